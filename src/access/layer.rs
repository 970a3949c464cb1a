//! The Bearer layer: in front of every secured path, in tower's usual form.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::IntoResponse;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{Gate, Presented, Refusals};
use crate::exchange::{Exchange, Refusal, comes_unasked, pass_over};
use crate::problem::Kind;
use crate::routes::Audience;

/// Lets a request through to the inner service only with a [`Permit`](super::Permit), which it leaves in the request's
/// [`Exchange`]; on a public route without one.
#[derive(Debug, Clone)]
pub struct RequireAccess {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gate: Arc<Gate>,
    refusals: Arc<Refusals>,
}

impl RequireAccess {
    /// A layer that asks `gate`.
    pub fn new(gate: Arc<Gate>, refusals: Arc<Refusals>) -> Self {
        Self { shared: Arc::new(Shared { gate, refusals }) }
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
            Err(refusal) => {
                let response = refusal.into_response(exchange);
                let (head, body) = request.into_parts();
                if comes_unasked(&head) {
                    pass_over(body);
                }
                AccessFuture::Refused { response: Some(Box::new(response)) }
            }
        }
    }
}

impl Shared {
    /// Leaves a permit in the exchange, or nothing where nothing is asked, or refuses. Not async: it can be tested as it is.
    fn verdict(&self, exchange: &Exchange, request: &Request<Body>) -> Result<(), Refusal> {
        let route = exchange.route.route();
        let audience = route.map_or(&Audience::Token, |route| &route.audience);
        if *audience != Audience::Public {
            // A doubled `Authorization` was refused before; if it were not, the first would count.
            let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
            let presented = Presented::read(authorization, request.uri().query());
            let permit = self.gate.decide(exchange, audience, presented, exchange.client);
            exchange.granted(permit.map_err(|denial| self.refusals.of(denial))?);
        }
        let Some(route) = route else {
            return Err(Refusal::new(Kind::NotFound, "not_found", "There is nothing at this path."));
        };
        if !route.answers(request.method().as_str()) {
            let detail = format!("This path answers {}.", route.allow);
            return Err(Refusal::new(Kind::MethodNotAllowed, "method_not_allowed", detail).allow(&route.allow));
        }
        // Last of all: what is refused for another reason is not charged.
        if let Some(permit) = exchange.permit() {
            self.gate.charge(exchange, permit, route, exchange.client).map_err(|denial| self.refusals.of(denial))?;
        }
        Ok(())
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
