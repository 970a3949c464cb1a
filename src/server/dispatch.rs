//! The innermost service: the route that access was decided for is the route that answers.
//!
//! Paths are matched once. A router of its own here would match a second time, and could disagree with the decision.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::ext::Protocol;
use tower::Service;

use super::exposure::Exposure;
use super::health::Health;
use super::openapi::Descriptions;
use crate::access::Gate;
use crate::client_addr::Peer;
use crate::exchange::{Exchange, Refusal, private_json, read_body};
use crate::forward_auth::ForwardAuth;
use crate::me::{MyUsage, Roller};
use crate::oauth::{self, IntrospectionEndpoint, Metadata, RevocationEndpoint, TokenEndpoint};
use crate::portal::{self, Portal};
use crate::problem::Kind;
use crate::proxy::Proxy;
use crate::resources::{self, Demo};
use crate::routes::{Contract, Resource, Target};
use crate::signing::KeyRing;
use crate::telemetry::Metrics;

/// All doors.
#[derive(Debug)]
pub struct Doors {
    /// The token endpoint.
    pub token: Arc<TokenEndpoint>,
    /// The introspection endpoint.
    pub introspection: IntrospectionEndpoint,
    /// The revocation endpoint.
    pub revocation: RevocationEndpoint,
    /// Rolls keys for their holders.
    pub roller: Roller,
    /// Metadata.
    pub metadata: Metadata,
    /// The Demo group.
    pub demo: Arc<Demo>,
    /// The developer page.
    pub portal: Portal,
    /// The OpenAPI documents.
    pub descriptions: Descriptions,
    /// The published keys.
    pub ring: Arc<KeyRing>,
    /// Life and readiness.
    pub health: Arc<Health>,
    /// Whoever is let through.
    pub gate: Arc<Gate>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The reverse proxy.
    pub proxy: Arc<Proxy>,
    /// Where other proxies ask, if they may.
    pub forward_auth: Option<ForwardAuth>,
    /// The usage of whose token it is.
    pub usage: Arc<MyUsage>,
    /// Looks into what came in the clear.
    pub exposure: Arc<Exposure>,
    /// What keys begin with, and an underscore.
    pub key_mark: String,
    /// Bytes of a request's content that a built-in resource takes.
    pub body_bytes: usize,
    /// How long content may take to arrive.
    pub body_timeout: Duration,
    /// How long an answer may take.
    pub request_timeout: Duration,
}

/// Hands a request to its door.
#[derive(Debug, Clone)]
pub struct Dispatch {
    doors: Arc<Doors>,
}

impl Dispatch {
    /// To these doors.
    pub fn new(doors: Arc<Doors>) -> Self {
        Self { doors }
    }
}

type Answer = Result<Response<Body>, Infallible>;

/// The answer of a door that had it at once, or works on it.
pub enum DispatchFuture {
    /// It is there.
    Ready(Ready<Answer>),
    /// It is being worked on.
    Working(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

impl Future for DispatchFuture {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut *self {
            Self::Ready(answer) => Pin::new(answer).poll(cx),
            Self::Working(answer) => answer.as_mut().poll(cx),
        }
    }
}

impl Service<Request<Body>> for Dispatch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = DispatchFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> DispatchFuture {
        let exchange = Exchange::of(&request).map(Arc::clone);
        let Some((exchange, target)) = exchange.and_then(|exchange| {
            let target = exchange.route.route()?.target;
            Some((exchange, target))
        }) else {
            // The access layer has refused what has no route.
            return at_once(StatusCode::NOT_FOUND.into_response());
        };
        let doors = &self.doors;
        let failed = |error| signing_failed(&error, &exchange);
        if target != Target::Upstream && request.extensions().get::<Protocol>().is_some() {
            // It came as a CONNECT (RFC 8441), whose answer would be taken for an open WebSocket.
            let refusal = Refusal::new(Kind::MethodNotAllowed, "no_web_socket", "There is no WebSocket at this path.");
            return at_once(refusal.into_response(&exchange));
        }
        match target {
            Target::Resource(Resource::Echo) => {
                self.work(exchange, |doors, exchange| async move { doors.echo(&exchange, request).await })
            }
            Target::Resource(resource) => at_once(doors.resource(resource, &exchange)),
            Target::Token => {
                self.work(exchange, |doors, exchange| async move { doors.token.respond(&exchange, request).await })
            }
            Target::Introspection => self
                .work(exchange, |doors, exchange| async move { doors.introspection.respond(&exchange, request).await }),
            Target::Revocation => {
                self.work(exchange, |doors, exchange| async move { doors.revocation.respond(&exchange, request).await })
            }
            Target::RollKey => {
                self.work(exchange, |doors, exchange| async move { doors.roller.respond(&exchange, request).await })
            }
            Target::Metadata => {
                let found = doors.metadata.respond(exchange.path());
                at_once(found.unwrap_or_else(|| not_found().into_response(&exchange)))
            }
            Target::Jwks => at_once(oauth::jwks(&doors.ring)),
            Target::HealthLive => at_once(status(true, "ok")),
            Target::HealthReady => {
                let ready = doors.health.is_ready();
                at_once(status(ready, if ready { "ready" } else { "not ready" }))
            }
            Target::Demo => at_once(doors.demo.respond().unwrap_or_else(failed)),
            Target::Portal => at_once(doors.page(&exchange).unwrap_or_else(failed)),
            Target::OpenApi => at_once(doors.descriptions.public.respond(request.headers())),
            Target::AdminOpenApi => at_once(doors.descriptions.admin.respond(request.headers())),
            Target::Metrics => at_once(metrics(&doors.metrics)),
            Target::Upstream => {
                let proxy = Arc::clone(&doors.proxy);
                // Made inside, so that it is in the box from the beginning: moved there, it would be copied, and have its
                // place twice.
                DispatchFuture::Working(Box::pin(async move { Ok(proxy.forward(exchange, request).await) }))
            }
            Target::ForwardAuth(contract) => at_once(doors.decide(contract, &exchange, request)),
            Target::Check => {
                self.work(exchange, |doors, exchange| async move { doors.check(&exchange, request).await })
            }
            Target::MyUsage => self.work(exchange, |doors, exchange| async move { doors.my_usage(&exchange).await }),
            Target::External => at_once(external().into_response(&exchange)),
        }
    }
}

impl Dispatch {
    /// Works on an answer for as long as it may take.
    fn work<F>(&self, exchange: Arc<Exchange>, door: impl FnOnce(Arc<Doors>, Arc<Exchange>) -> F) -> DispatchFuture
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let limit = self.doors.request_timeout;
        let answer = door(Arc::clone(&self.doors), Arc::clone(&exchange));
        DispatchFuture::Working(Box::pin(async move {
            Ok(tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
                let detail = "The answer took too long. Try again in a moment.";
                Refusal::new(Kind::Unavailable, "slow_answer", detail)
                    .retry_after(Duration::from_secs(1))
                    .into_response(&exchange)
            }))
        }))
    }
}

impl Doors {
    /// A resource that answers at once. Without a permit there is nothing to see.
    fn resource(&self, resource: Resource, exchange: &Exchange) -> Response<Body> {
        match (exchange.permit(), resource) {
            (Some(permit), Resource::Time) => resources::time(permit, exchange.at),
            (Some(permit), Resource::Whoami) => {
                let quotas = self.gate.standings(exchange, permit);
                resources::whoami(permit, exchange.at, self.demo.settings(), quotas)
            }
            (Some(_), Resource::Echo) | (None, _) => not_found().into_response(exchange),
        }
    }

    /// The developer page. No demo token is made where the Demo group is closed.
    fn page(&self, exchange: &Exchange) -> Result<Response<Body>, crate::signing::Error> {
        let published = self.demo.settings().enabled.then(|| self.demo.published()).transpose()?;
        Ok(self.portal.respond(&portal::Now {
            demo: published.as_ref().map(|published| (self.demo.settings(), published)),
            routes: exchange.route.table(),
            time: exchange.at,
        }))
    }

    /// The decision for another proxy.
    fn decide(&self, contract: Contract, exchange: &Exchange, request: Request<Body>) -> Response<Body> {
        let Some(door) = &self.forward_auth else { return not_found().into_response(exchange) };
        let (head, _) = request.into_parts();
        // As received: what Envoy appends is normalised as the path of the request that it asks about.
        let below = Contract::of(head.uri.path()).map_or("", |(_, below)| below);
        let response = door.respond(exchange, asker(exchange), &head, contract, below);
        self.examine(exchange);
        response
    }

    /// Looks into what another proxy was sent in the clear, as if it had been sent here.
    fn examine(&self, exchange: &Exchange) {
        if let Some(value) = exchange.exposed() {
            self.metrics.plaintext.inc();
            self.exposure.examine_value(value.expose(), SocketAddr::new(exchange.client, 0));
        }
    }

    /// The same by gRPC.
    async fn check(&self, exchange: &Exchange, request: Request<Body>) -> Response<Body> {
        match &self.forward_auth {
            Some(door) => {
                let response = door.check(exchange, asker(exchange), request).await;
                self.examine(exchange);
                response
            }
            None => not_found().into_response(exchange),
        }
    }

    async fn my_usage(&self, exchange: &Exchange) -> Response<Body> {
        match exchange.permit() {
            Some(permit) => self.usage.respond(permit, exchange).await,
            None => not_found().into_response(exchange),
        }
    }

    async fn echo(&self, exchange: &Exchange, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Some(permit) = exchange.permit() else {
            return not_found().into_response(exchange);
        };
        match read_body(body, self.body_bytes, self.body_timeout).await {
            Ok(content) => resources::echo(permit, exchange, &head, &content, &self.key_mark),
            Err(refusal) => refusal.into_response(exchange),
        }
    }
}

/// Who asks for a decision. Behind a load balancer that is whoever it hands on the question of: what it is trusted for is
/// to say who that is, and no more.
fn asker(exchange: &Exchange) -> Peer {
    if exchange.is_proxied { Peer::Address(SocketAddr::new(exchange.client, 0)) } else { exchange.peer }
}

fn at_once(response: Response<Body>) -> DispatchFuture {
    DispatchFuture::Ready(ready(Ok(response)))
}

fn not_found() -> Refusal {
    Refusal::new(Kind::NotFound, "not_found", "There is nothing at this path.")
}

/// A route that another proxy answers: whoever asks here has the wrong address.
fn external() -> Refusal {
    let detail = "This path is answered by another proxy, which asks this gateway for a decision.";
    Refusal::new(Kind::NotFound, "answered_elsewhere", detail)
}

fn signing_failed(error: &crate::signing::Error, exchange: &Exchange) -> Response<Body> {
    tracing::error!(error = %error, "the demo token could not be signed");
    Refusal::new(Kind::Internal, "signing", "The demo token could not be signed. It was logged.")
        .into_response(exchange)
}

/// Health without detail: who may ask is anyone.
fn status(good: bool, word: &str) -> Response<Body> {
    let mut response = private_json(format!("{{\"status\":\"{word}\"}}"));
    if !good {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn metrics(metrics: &Metrics) -> Response<Body> {
    let mut response = Response::new(Body::from(metrics.encode()));
    let content_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
