//! `GET` and `POST /token`: a credential becomes a token (CONTRACT §1).
//!
//! Phases, in this order, each with its own refusals: what was presented, is it right, what may it have, issue. The plain
//! dialect takes a Basic credential and nothing else. A form with a `grant_type` speaks RFC 6749 §4.4: it differs in the first
//! phase, may ask for less than everything, and spells refusals in its own way. A third dialect is in `repository_token`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::PRAGMA;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response};
use serde::Serialize;

use super::client::Clients;
use super::error::{Code, OAuthError};
use super::form::{self, Form};
use super::repository_token;
use super::stop::Stop;
use crate::client_addr;
use crate::clock::{Clock, Timestamp};
use crate::exchange::{Exchange, Refusal, Verdict, comes_unasked, pass_over, private_json, read_body};
use crate::groups::demo;
use crate::ids::{GroupId, Groups, scope};
use crate::limits::{Limiter, Rate};
use crate::registry::{Digest, Registry, Session};
use crate::repositories::Repositories;
use crate::telemetry::Metrics;
use crate::tokens::{Client, Grant, Issued, Issuer};

/// Client addresses whose demo tokens are counted at once.
const MOST_DEMO_CLIENTS: usize = 200_000;

/// How much content is read, and for how long. The plain dialect ignores it, and no form of the other needs more.
const MOST_CONTENT: usize = 64 * 1024;
const LONGEST_CONTENT: Duration = Duration::from_secs(10);

/// What a [`TokenEndpoint`] works with.
pub struct TokenParts {
    /// Verifies credentials.
    pub clients: Arc<Clients>,
    /// Issues tokens.
    pub issuer: Arc<Issuer>,
    /// Issues those for an image registry, if there is one.
    pub repositories: Option<Repositories>,
    /// Takes the issued ones in.
    pub registry: Arc<Registry>,
    /// Counts them.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The token endpoint.
pub struct TokenEndpoint {
    pub(super) parts: TokenParts,
    demo: Limiter<IpAddr>,
}

impl std::fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenEndpoint").finish_non_exhaustive()
    }
}

/// RFC 6749 §5.1, and `token` with the same value as `access_token`. Clients of registries want to know when it was issued.
#[derive(Serialize)]
struct Answer<'a> {
    token: &'a str,
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<String>,
    scope: String,
}

/// The content of a plain request.
enum Content {
    /// Not looked at yet.
    Unread(Body),
    /// It is there, or it could not be taken in.
    Read(Result<(), Refusal>),
}

impl TokenEndpoint {
    /// An endpoint that gives demo tokens as often as `demo` says.
    pub fn new(parts: TokenParts, demo: &demo::Settings) -> Self {
        Self { parts, demo: Limiter::new(demo.tokens_per_address, MOST_DEMO_CLIENTS) }
    }

    /// Answers a request.
    pub async fn respond(&self, exchange: &Exchange, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        if head.method == Method::POST && form::is_form(&head.headers) {
            return self.respond_to_form(exchange, &head, body).await;
        }
        if let (Some(repositories), Some(query)) = (&self.parts.repositories, repository_token::query(&head)) {
            let answer = match read_body(body, MOST_CONTENT, LONGEST_CONTENT).await {
                Ok(_) => self.repository_token(repositories, exchange, &head, query).await,
                Err(refusal) => Err(refusal.for_registry_clients()),
            };
            return answer.unwrap_or_else(|refusal| refusal.into_response(exchange));
        }
        self.plain(exchange, &head, Content::Unread(body))
            .await
            .unwrap_or_else(|refusal| refusal.into_response(exchange))
    }

    /// A form is in OAuth's dialect when it has a `grant_type`, however malformed the rest may be. What is in the query
    /// counts for nothing.
    async fn respond_to_form(&self, exchange: &Exchange, head: &Parts, body: Body) -> Response<Body> {
        let content = read_body(body, MOST_CONTENT, LONGEST_CONTENT).await;
        match content {
            Ok(content) if form::mentions(&content, "grant_type") => self
                .client_credentials(exchange, head, &content)
                .await
                .unwrap_or_else(|error| error.into_response(exchange)),
            content => self
                .plain(exchange, head, Content::Read(content.map(drop)))
                .await
                .unwrap_or_else(|refusal| refusal.into_response(exchange)),
        }
    }

    async fn plain(&self, exchange: &Exchange, head: &Parts, content: Content) -> Result<Response<Body>, Refusal> {
        let clients = &self.parts.clients;
        let presented = match clients.plain(&head.headers) {
            Ok(presented) => presented,
            Err(stop) => {
                if let Content::Unread(body) = content
                    && comes_unasked(head)
                {
                    pass_over(body);
                }
                return Err(stop.plain(clients.challenge()));
            }
        };
        // The plain dialect takes nothing from the content; it is read so that the connection can go on.
        match content {
            Content::Unread(body) => drop(read_body(body, MOST_CONTENT, LONGEST_CONTENT).await?),
            Content::Read(read) => read?,
        }
        let issued = match clients.verified(presented, exchange.client).await {
            Ok(grant) => self.signed(&grant, exchange.client),
            Err(stop) => Err(stop),
        };
        let (issued, session) = issued.map_err(|stop| stop.plain(clients.challenge()))?;
        Ok(self.answer(exchange, &issued, &session, scope(&issued.token.groups), None))
    }

    /// The Client Credentials Grant (RFC 6749 §4.4).
    async fn client_credentials(
        &self,
        exchange: &Exchange,
        head: &Parts,
        content: &[u8],
    ) -> Result<Response<Body>, OAuthError> {
        let clients = &self.parts.clients;
        let form =
            Form::parse(content).map_err(|why| OAuthError::new(Code::InvalidRequest, why.word(), why.description()))?;
        match form.get("grant_type") {
            Some("client_credentials") => {}
            Some("password")
                if let Some(repositories) =
                    self.parts.repositories.as_ref().filter(|_| form.get("service").is_some()) =>
            {
                return self.repository_form(repositories, exchange, &form).await;
            }
            Some(_) => {
                let description = "The only grant here is client_credentials";
                return Err(OAuthError::new(Code::UnsupportedGrantType, "unsupported_grant_type", description));
            }
            None => {
                let description = "The parameter grant_type is empty";
                return Err(OAuthError::new(Code::InvalidRequest, "no_grant_type", description));
            }
        }
        let grant = clients.authenticate(&head.headers, &form, exchange.client).await?;
        let grant = narrowed(grant, form.get("scope"))?;
        let (issued, session) = self.signed(&grant, exchange.client).map_err(|stop| stop.oauth(clients.challenge()))?;
        Ok(self.answer(exchange, &issued, &session, scope(&issued.token.groups), None))
    }

    fn signed(&self, grant: &Grant, client: IpAddr) -> Result<(Issued, Session), Stop> {
        self.charge(grant, client)?;
        let now = self.parts.clock.now();
        let issued = self.parts.issuer.issue(grant, now).map_err(Stop::signing)?.ok_or(Stop::Rejected("ended"))?;
        let digest = Digest::of(issued.jwt.expose().as_bytes());
        let session = self.parts.registry.admit(digest, &issued.token, now).ok_or(Stop::Rejected("revoked"))?;
        self.count(grant);
        Ok((issued, session))
    }

    /// Counts a demo token of this client before it is issued.
    pub(super) fn charge(&self, grant: &Grant, client: IpAddr) -> Result<(), Stop> {
        match is_demo(grant) {
            true => self.demo.charge(&client_addr::network(client), self.parts.clock.now()).map_err(Stop::DemoRate),
            false => Ok(()),
        }
    }

    /// Counts a token that was issued.
    pub(super) fn count(&self, grant: &Grant) {
        self.parts.metrics.issued(match &grant.client {
            _ if is_demo(grant) => "demo",
            Client::Key(_) => "key",
            Client::Password => "password",
        });
    }

    pub(super) fn answer(
        &self,
        exchange: &Exchange,
        issued: &Issued,
        session: &Session,
        scope: String,
        issued_at: Option<Timestamp>,
    ) -> Response<Body> {
        exchange.note(Verdict { reason: None, who: Some((Arc::clone(session.principal()), session.id())) });
        let jwt = issued.jwt.expose();
        let answer = Answer {
            token: jwt,
            access_token: jwt,
            token_type: "Bearer",
            expires_in: issued.token.expires_at.saturating_sub(self.parts.clock.now().secs()),
            issued_at: issued_at.map(|at| at.to_string()),
            scope,
        };
        let mut response = private_json(serde_json::to_vec(&answer).unwrap_or_default());
        response.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
        response
    }

    /// Keeps another rate of demo tokens from now on.
    pub fn set_demo_rate(&self, rate: Rate) {
        self.demo.set(rate);
    }

    /// The image registry that tokens are issued for.
    pub fn repositories(&self) -> Option<&Repositories> {
        self.parts.repositories.as_ref()
    }

    /// Drops the demo clients that have their full allowance again.
    pub fn forget_clients(&self) {
        self.demo.forget(self.parts.clock.now());
    }
}

fn is_demo(grant: &Grant) -> bool {
    grant.account.as_str() == demo::DEMO
}

/// A grant of no more groups than `scope` names (RFC 6749 §3.3); without a scope, of all. What shortened the life of the
/// whole grant shortens that of a part of it too.
fn narrowed(grant: Grant, scope: Option<&str>) -> Result<Grant, OAuthError> {
    let Some(scope) = scope else { return Ok(grant) };
    // One answer for what is malformed, unknown or not licensed: which groups there are is nobody's business.
    let invalid = || {
        let description = "The scope is malformed, or asks for what these credentials do not have";
        OAuthError::new(Code::InvalidScope, "invalid_scope", description)
    };
    let asked = scope.split(' ').filter(|name| !name.is_empty()).map(str::parse::<GroupId>);
    let groups = asked
        .map(|group| group.ok().filter(|group| grant.groups.contains(group)).ok_or_else(invalid))
        .collect::<Result<Groups, _>>()?;
    if groups.is_empty() { Err(invalid()) } else { Ok(Grant { groups, ..grant }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocations::Cutoff;
    use crate::tokens::Terms;
    use proptest::prelude::*;

    fn groups(names: &[&str]) -> Groups {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn grant() -> Grant {
        Grant {
            account: "acme".parse().unwrap(),
            client: Client::Password,
            groups: groups(&["demo", "orders", "orders.read"]),
            not_after: Some(Timestamp::from_secs(2000)),
            longest: Some(Duration::from_secs(60)),
            known_at: Timestamp::from_secs(1000),
            cutoff: Cutoff(0),
            terms: Terms::default(),
        }
    }

    #[test]
    fn a_scope_narrows_and_never_widens() {
        assert_eq!(narrowed(grant(), None).unwrap(), grant());
        for (scope, granted) in [
            ("orders", &["orders"][..]),
            ("orders orders", &["orders"]),
            ("orders.read demo", &["demo", "orders.read"]),
            (" orders  demo ", &["demo", "orders"]),
            ("demo orders orders.read", &["demo", "orders", "orders.read"]),
        ] {
            let narrow = narrowed(grant(), Some(scope)).unwrap();
            assert_eq!(narrow, Grant { groups: groups(granted), ..grant() }, "{scope:?}");
        }
        for scope in [" ", "other", "orders other", "ORDERS", "orders\tdemo", "orders,demo", "*", "ord\u{e9}rs", "\0"] {
            assert!(narrowed(grant(), Some(scope)).is_err(), "{scope:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_nothing_is_added(scope in "([a-z.]{0,6}|demo|orders|orders\\.read| |\\PC){0,6}") {
            if let Ok(narrow) = narrowed(grant(), Some(&scope)) {
                prop_assert!(!narrow.groups.is_empty() && narrow.groups.is_subset(&grant().groups));
                prop_assert!(narrow.groups.iter().all(|group| scope.split(' ').any(|name| name == group.as_str())));
            }
        }
    }
}
