//! The Bearer layer: in front of every secured path, in tower's usual form.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::IntoResponse;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{Denial, Gate, Presented, Settings};
use crate::exchange::{Exchange, Refusal, quotable};
use crate::ids::GroupId;
use crate::problem::Kind;
use crate::routes::Audience;
use crate::tokens::Invalid;

/// Lets a request through to the inner service only with a [`Permit`](super::Permit), which it leaves in the request's
/// [`Exchange`]; on a public route without one.
#[derive(Debug, Clone)]
pub struct RequireAccess {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gate: Arc<Gate>,
    contact: Option<String>,
    /// RFC 6750 §3.1: without a token, the challenge has no `error`.
    bare_challenge: HeaderValue,
    realm: String,
}

impl RequireAccess {
    /// A layer that asks `gate`.
    pub fn new(gate: Arc<Gate>, settings: &Settings) -> Self {
        let realm = quotable(&settings.realm);
        let bare_challenge = challenge(&format!("Bearer realm=\"{realm}\""));
        Self { shared: Arc::new(Shared { gate, contact: settings.contact.clone(), bare_challenge, realm }) }
    }
}

impl<S> Layer<S> for RequireAccess {
    type Service = RequireAccessService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireAccessService { inner, shared: Arc::clone(&self.shared) }
    }
}

/// The service that [`RequireAccess`] makes.
#[derive(Debug, Clone)]
pub struct RequireAccessService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for RequireAccessService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = AccessFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(exchange) = Exchange::of(&request) else {
            // Nothing reaches this layer without an exchange; if a change of the stack lost it, nothing passes.
            let response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
            return AccessFuture::Refused { response: Some(Box::new(response)) };
        };
        match self.shared.verdict(exchange, &request) {
            Ok(()) => AccessFuture::Inner { inner: self.inner.call(request) },
            Err(refusal) => AccessFuture::Refused { response: Some(Box::new(refusal.into_response(exchange))) },
        }
    }
}

impl Shared {
    /// Leaves a permit in the exchange, or nothing where nothing is asked, or refuses. Not async: it can be tested as it is.
    fn verdict(&self, exchange: &Exchange, request: &Request<Body>) -> Result<(), Refusal> {
        let route = exchange.route.route();
        let audience = route.map_or(&Audience::Token, |route| &route.audience);
        if *audience != Audience::Public {
            let presented = presented(request.headers(), request.uri().query());
            let permit = self.gate.decide(audience, presented, exchange.client, exchange.at);
            exchange.granted(permit.map_err(|denial| self.refusal(denial))?);
        }
        let Some(route) = route else {
            return Err(Refusal::new(Kind::NotFound, "not_found", "There is nothing at this path."));
        };
        if !route.answers(request.method().as_str()) {
            let detail = format!("This path answers {}.", route.allow);
            return Err(Refusal::new(Kind::MethodNotAllowed, "method_not_allowed", detail).allow(&route.allow));
        }
        Ok(())
    }

    fn refusal(&self, denial: Denial) -> Refusal {
        match denial {
            Denial::Missing { in_query } => {
                let (reason, detail) = if in_query {
                    (
                        "token_in_query",
                        "A token in the query string is not accepted. Send `Authorization: Bearer <token>`.",
                    )
                } else {
                    ("token_missing", "Send `Authorization: Bearer <token>`. The token endpoint is /token.")
                };
                Refusal::new(Kind::MissingToken, reason, detail).challenge(self.bare_challenge.clone())
            }
            Denial::Invalid { why, session } => {
                let description = why.description();
                let detail = match why {
                    Invalid::Expired | Invalid::Revoked => format!("{description}. Get a new one at /token."),
                    _ => format!("{description}."),
                };
                let challenge = challenge(&format!(
                    "Bearer realm=\"{}\", error=\"invalid_token\", error_description=\"{description}\"",
                    self.realm
                ));
                let refusal = Refusal::new(Kind::InvalidToken, why.word(), detail).challenge(challenge);
                match session {
                    Some(session) => refusal.of(Arc::clone(session.principal()), session.id()),
                    None => refusal,
                }
            }
            Denial::Scope { missing, session } => {
                let ask = ask_for_licence(self.contact.as_deref());
                let (detail, scope) = match &missing {
                    Some(group) => {
                        (format!("This needs a licence for the group '{group}'. {ask}"), format!(", scope=\"{group}\""))
                    }
                    None => (format!("The Demo group does not reach this. {ask}"), String::new()),
                };
                let challenge =
                    challenge(&format!("Bearer realm=\"{}\", error=\"insufficient_scope\"{scope}", self.realm));
                let missing = missing.as_ref().map(GroupId::as_str);
                Refusal::new(Kind::InsufficientScope, "insufficient_scope", detail)
                    .licence(missing, self.contact.as_deref())
                    .challenge(challenge)
                    .of(Arc::clone(session.principal()), session.id())
            }
            Denial::TooMany { wait, session } => {
                let detail =
                    "Too many requests in the Demo group from this address. Wait, or ask for a key of your own.";
                Refusal::new(Kind::TooManyRequests, "demo_rate", detail)
                    .retry_after(wait)
                    .of(Arc::clone(session.principal()), session.id())
            }
        }
    }
}

/// What to do about a missing licence.
pub fn ask_for_licence(contact: Option<&str>) -> String {
    match contact {
        Some(contact) => format!("Write to {contact} for a licence."),
        None => "Ask the operator of this API for a licence.".to_owned(),
    }
}

fn challenge(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("Bearer"))
}

/// What the headers present. A doubled `Authorization` was refused before; if it were not, the first would count.
fn presented<'a>(headers: &'a HeaderMap, query: Option<&str>) -> Presented<'a> {
    match headers.get(AUTHORIZATION) {
        Some(value) => Presented::from_authorization(value.as_bytes()),
        None if query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("access_token="))) => {
            Presented::InQuery
        }
        None => Presented::Nothing,
    }
}

pin_project! {
    /// Answers with the inner service's answer, or the refusal.
    #[project = AccessProjection]
    #[derive(Debug)]
    pub enum AccessFuture<F> {
        /// It was let through.
        Inner { #[pin] inner: F },
        /// It was not.
        Refused { response: Option<Box<Response<Body>>> },
    }
}

impl<F, E> Future for AccessFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AccessProjection::Inner { inner } => inner.poll(cx),
            AccessProjection::Refused { response } => {
                Poll::Ready(Ok(*response.take().expect("a future is not polled after it is ready")))
            }
        }
    }
}
