//! The reverse proxy's conformance: what passes, what is changed on its way, and what never reaches anybody. Through the
//! real gateway by TLS, to real upstream sockets.
//!
//! `upstream` and `raw` are what stands behind the gateway, `caller` what stands before it, and `frame` what they say in a
//! WebSocket; the other files are about one thing each.

mod caller;
mod frame;
mod raw;
pub mod upstream;

mod broken;
mod content;
mod grpc;
mod hygiene;
mod leaving;
mod messages;
mod paths;
mod plans;
mod reload;
mod smuggling;
mod streams;
mod usage;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use keybearer::keys::ApiKey;
use keybearer::proxy::upstream::UpstreamSettings;
use keybearer::revocations::Target;
use keybearer::routes::{Destination, Forwarding, Resource, Rewrite, RouteSettings, TokenEnd};

use self::upstream::Speaks;
use crate::client::Http;
use crate::forge;
use crate::gateway::{Builder, TestGateway};
use crate::wire::LONG;

/// Every client's version with every upstream's.
const WAYS: [(Http, Speaks); 4] =
    [(Http::One, Speaks::Http1), (Http::One, Speaks::H2c), (Http::Two, Speaks::Http1), (Http::Two, Speaks::H2c)];

/// A route to an upstream for any licensed token.
pub fn route(id: &str, path: &str, upstream: &str) -> RouteSettings {
    forwarding(id, path, upstream, |_| {})
}

/// The same, changed.
fn forwarding(id: &str, path: &str, upstream: &str, change: impl FnOnce(&mut Forwarding)) -> RouteSettings {
    let mut forwarding = Forwarding {
        upstream: upstream.parse().expect("an id"),
        rewrite: Rewrite::Keep,
        body_bytes: None,
        response_timeout: None,
        idle_timeout: None,
        pass_credentials: false,
        identity_headers: true,
        token_end: TokenEnd::Streams,
    };
    change(&mut forwarding);
    let (id, path) = (id.parse().expect("an id"), path.parse().expect("a pattern"));
    let destination = Destination::Upstream(Arc::new(forwarding));
    RouteSettings { destination, ..RouteSettings::new(id, path, Resource::Echo) }
}

/// A gateway with upstreams behind it, and a token of the account `acme`.
struct Guarded {
    gateway: TestGateway,
    key: ApiKey,
    token: String,
    /// Connections that fetching the token has left open.
    own: usize,
}

impl Guarded {
    /// Everything below `/api` is answered by this upstream.
    async fn front(settings: UpstreamSettings) -> Self {
        Self::with(settings, |_| {}).await
    }

    /// The same with another way to forward.
    async fn with(settings: UpstreamSettings, change: impl FnOnce(&mut Forwarding)) -> Self {
        let route = forwarding("api", "/api/*", settings.id.as_str(), change);
        Self::started(TestGateway::build().upstream(settings).route(route)).await
    }

    async fn started(builder: Builder) -> Self {
        let gateway = builder.start().await;
        let key = gateway.acme().await;
        let token = gateway.token(&key).await;
        let own = gateway.gateway.connections();
        Self { gateway, key, token, own }
    }

    /// Revokes the token.
    async fn revoke(&self) {
        self.revoke_token(&self.token).await;
    }

    /// Revokes another one.
    async fn revoke_token(&self, token: &str) {
        let id = forge::claims(token)["jti"].as_str().expect("an id").parse().expect("an id");
        self.gateway.store.revoke(&Target::Token(id), self.gateway.now(), false).await.expect("stored");
        self.gateway.sync().await;
    }

    /// Nothing is under way any more: no request, no content, no tunnel.
    async fn is_at_rest(&self) {
        let proxy = self.gateway.gateway.proxy();
        eventually("nothing is under way", || {
            let in_flight = proxy.upstreams().snapshots().iter().map(|(_, snapshot)| snapshot.in_flight).sum::<usize>();
            in_flight == 0 && proxy.flows().under_way() == 0 && proxy.tunnels() == 0
        })
        .await;
    }

    /// And no other client is connected.
    async fn is_deserted(&self) {
        self.is_at_rest().await;
        eventually("no client is connected", || self.gateway.gateway.connections() <= self.own).await;
    }

    /// A request's first lines by HTTP/1.1, byte by byte.
    fn head(&self, line: &str) -> String {
        format!("{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n", self.token)
    }
}

/// Waits until something holds.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = tokio::time::Instant::now() + LONG;
    while !holds() {
        assert!(tokio::time::Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
