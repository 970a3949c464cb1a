//! One request: who gets it, over which connection, and whether it is attempted anew.
//!
//! A request is attempted anew only if that cannot do anything twice: when nothing of it was sent (no connection came about,
//! or `hyper` hands it back), or when its method is idempotent (RFC 9110 §9.2.2), it has no content, and the connection broke
//! before an answer. For the latter a copy of the head is made before the first attempt. That costs 300 ns for 13 fields, and
//! there is no later time to do it: `hyper` consumes the head when it is written. To save it where a
//! connection was used a moment ago would save it nearly always, and lose the request exactly when a target restarts.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::{Instant, sleep_until};

use super::core::Core;
use super::endpoint::Endpoint;
use super::error::SendError;
use super::lease::{Lease, Slot, UpstreamBody, Visit};
use super::pool::{Checkout, Connection};
use super::pulse::Pulse;
use super::settings::HostHeader;
use crate::proxy::headers;

/// A client that has sent nothing for so long keeps the target waiting, not the other way round.
const STALLED: Duration = Duration::from_secs(1);

/// Put into a request's extensions: it asks for an upgrade (RFC 9110 §7.8), so it needs an HTTP/1.1 connection, which
/// becomes a tunnel if the target agrees.
#[derive(Debug, Clone, Copy)]
pub struct WantsUpgrade;

/// What limits one request.
#[derive(Debug, Clone)]
pub struct SendLimits {
    /// Longest time from the last byte sent to the head of the answer.
    pub response_timeout: Duration,
    /// How far the request's content has come, if it has any; without it, the time is counted from the beginning, and running
    /// out of it is always the target's fault.
    pub progress: Option<Arc<Pulse>>,
}

/// One attempt that got no answer.
struct Failure {
    error: SendError,
    /// The request, if nothing of it was sent.
    unsent: Option<Request<Body>>,
    /// Whether the endpoint is to blame.
    blame: bool,
}

/// A copy of a request without content.
struct Copy {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Copy {
    fn of(request: &Request<Body>) -> Self {
        Self { method: request.method().clone(), uri: request.uri().clone(), headers: request.headers().clone() }
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

impl Core {
    pub(super) async fn send(
        self: &Arc<Self>,
        request: Request<Body>,
        affinity: u64,
        limits: SendLimits,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let Some(slot) = Slot::enter(&self.counters, self.settings.max_requests) else {
            return Err(SendError::Overloaded);
        };
        let slot = Arc::new(slot);
        let Some(progress) = &limits.progress else {
            return self.send_in(slot, request, affinity, &limits).await;
        };
        progress.hold(&slot);
        let sent = self.send_in(slot, request, affinity, &limits).await;
        if sent.is_err() {
            progress.let_go();
        }
        sent
    }

    /// Sends a request that has a place.
    async fn send_in(
        self: &Arc<Self>,
        slot: Arc<Slot>,
        mut request: Request<Body>,
        affinity: u64,
        limits: &SendLimits,
    ) -> Result<Response<UpstreamBody>, SendError> {
        self.budget.deposit();
        self.have_addresses().await;
        let upgrade = request.extensions_mut().remove::<WantsUpgrade>().is_some();
        let can_repeat =
            self.settings.retries > 0 && !upgrade && is_idempotent(request.method()) && request.body().is_end_stream();
        let copy = can_repeat.then(|| Copy::of(&request));
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        let mut left = self.settings.retries;
        let turn = self.next_turn();
        let mut endpoint = self.choose(turn, affinity, &tried).ok_or(SendError::AllDown)?;
        loop {
            let failure = match attempt(&endpoint, request, upgrade, limits).await {
                Ok((response, connection, visit)) => {
                    return answer(response, Lease::new(connection, visit, slot), upgrade);
                }
                Err(failure) => failure,
            };
            if failure.blame {
                endpoint.failed(failure.error.word());
            }
            let was_sent = failure.unsent.is_none();
            let again = match (failure.unsent, &failure.error) {
                (Some(unsent), _) => Some(unsent),
                // An answer that makes no sense would make none the next time.
                (None, SendError::Broken(error)) if !error.is_parse() => copy.as_ref().map(Copy::request),
                (None, _) => None,
            };
            let (Some(again), true) = (again, left > 0) else { return Err(failure.error) };
            tried.push(Arc::clone(&endpoint));
            // Another one if there is another one. Where a connection broke the same may do better with the next one; where
            // none came about, it would only take as long again.
            let next = self
                .choose(turn, affinity, &tried)
                .or_else(|| was_sent.then(|| self.choose(turn, affinity, &[])).flatten());
            let Some(next) = next else { return Err(failure.error) };
            if !self.budget.withdraw(Instant::now()) {
                return Err(failure.error);
            }
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
            left -= 1;
            request = again;
            endpoint = next;
        }
    }
}

/// Idempotent by definition (RFC 9110 §9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// Sends the request to one endpoint. An idle connection that turns out to be closed is no failure: the request was not
/// sent, and the next connection is taken, at last a new one.
async fn attempt(
    endpoint: &Arc<Endpoint>,
    mut request: Request<Body>,
    upgrade: bool,
    limits: &SendLimits,
) -> Result<(Response<Incoming>, Connection, Visit), Failure> {
    let visit = Visit::begin(endpoint);
    loop {
        let Checkout { mut connection, reused } = match endpoint.pool.checkout(endpoint.wanted(upgrade)).await {
            Ok(checkout) => checkout,
            Err(error) => return Err(Failure { error: error.into(), unsent: Some(request), blame: true }),
        };
        if let Err(error) = shape(&mut request, &connection, endpoint) {
            return Err(Failure { error, unsent: None, blame: false });
        }
        let answer = match &mut connection {
            Connection::Http1(own) => in_time(own.sender().try_send_request(request), limits).await,
            Connection::Http2(stream) => {
                let sent = stream.sender().try_send_request(request);
                in_time(sent, limits).await
            }
        };
        let mut error = match answer {
            Some(Ok(response)) => return Ok((response, connection, visit)),
            Some(Err(error)) => error,
            None => {
                // While the client has not sent everything, it is not known whom the exchange waits for.
                let blame = limits.progress.as_ref().is_none_or(|it| it.has_ended() && !it.has_stopped());
                return Err(Failure { error: SendError::ResponseTimeout, unsent: None, blame });
            }
        };
        match error.take_message() {
            Some(unsent) if reused => request = unsent,
            unsent => {
                let error = error.into_error();
                if unsent.is_none() && is_of_content(&error, limits) {
                    return Err(Failure { error: SendError::RequestBody(error), unsent, blame: false });
                }
                // Not what this side did wrong, and not that the target lost patience with the client.
                let blame = !error.is_user() && !is_stalled(limits);
                return Err(Failure { error: SendError::Broken(error), unsent, blame });
            }
        }
    }
}

/// Whether an exchange broke because of the client's content: it failed, or had another length than was said.
fn is_of_content(error: &hyper::Error, limits: &SendLimits) -> bool {
    use std::error::Error as _;
    limits.progress.as_ref().is_some_and(|progress| progress.has_failed())
        || error.is_body_write_aborted()
        || (error.is_user() && error.source().is_some_and(|source| source.is::<axum::Error>()))
}

/// Whether the client has not sent everything, and has not sent anything for a while. If that counted against a target,
/// a client could put it out by sending slowly.
fn is_stalled(limits: &SendLimits) -> bool {
    limits.progress.as_ref().is_some_and(|progress| !progress.has_ended() && progress.last().elapsed() >= STALLED)
}

/// Waits for the head of the answer; `None` when it does not come in time, or is not to be waited for.
async fn in_time(
    answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>>,
    limits: &SendLimits,
) -> Option<Result<Response<Incoming>, TrySendError<Request<Body>>>> {
    let mut answer = pin!(answer);
    let began = Instant::now();
    let mut alarm = pin!(sleep_until(began + limits.response_timeout));
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        if limits.progress.as_ref().is_some_and(|progress| progress.poll_stopped(cx)) {
            return Poll::Ready(None);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            // Only now is it asked how far the content has come: a request whose answer comes in time does not pay for it.
            let last = limits.progress.as_ref().map_or(began, |progress| progress.last().max(began));
            let due = last + limits.response_timeout;
            if due <= Instant::now() {
                return Poll::Ready(None);
            }
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await
}

fn answer(response: Response<Incoming>, mut lease: Lease, upgrade: bool) -> Result<Response<UpstreamBody>, SendError> {
    let status = response.status();
    let is_tunnel = status == StatusCode::SWITCHING_PROTOCOLS;
    if is_tunnel && !upgrade {
        lease.fail("upstream_protocol");
        return Err(SendError::Protocol("the target switched protocols without being asked to"));
    }
    if is_tunnel {
        // Its end is far, and says nothing of the target.
        lease.succeeded();
    }
    if matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT) {
        lease.fail("status");
    }
    Ok(response.map(|content| UpstreamBody::new(content, lease, is_tunnel)))
}

/// Gives a request the form that the connection's protocol needs, whichever form an earlier attempt has given it.
pub(super) fn shape(
    request: &mut Request<Body>,
    connection: &Connection,
    endpoint: &Endpoint,
) -> Result<(), SendError> {
    let target_is_host = endpoint.settings.host == HostHeader::Target;
    match connection {
        Connection::Http1(_) => {
            *request.version_mut() = Version::HTTP_11;
            headers::name_te(request.headers_mut());
            if target_is_host {
                request.headers_mut().insert(HOST, endpoint.target.host.clone());
            }
            // Said, because hyper takes a GET of unknown length for one without content and drops it.
            let body = request.body();
            if !body.is_end_stream()
                && body.size_hint().exact().is_none()
                && !request.headers().contains_key(CONTENT_LENGTH)
            {
                request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            // An earlier attempt was HTTP/2.
            if let Some(authority) = request.uri().authority().cloned() {
                if !request.headers().contains_key(HOST) {
                    let host = HeaderValue::from_str(authority.as_str())
                        .map_err(|_| SendError::Protocol("the request's host cannot be written"))?;
                    request.headers_mut().insert(HOST, host);
                }
                let path = request.uri().path_and_query().cloned();
                *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
            }
            if !request.headers().contains_key(HOST) {
                request.headers_mut().insert(HOST, endpoint.target.host.clone());
            }
        }
        Connection::Http2(_) => {
            // RFC 9113 §8.3.1: the authority stands in place of Host.
            *request.version_mut() = Version::HTTP_2;
            request.headers_mut().remove(TRANSFER_ENCODING);
            let host = request.headers_mut().remove(HOST);
            let authority = match host {
                _ if target_is_host => endpoint.target.authority.clone(),
                Some(host) => Authority::try_from(host.as_bytes())
                    .map_err(|_| SendError::Protocol("the request's host is no authority"))?,
                None => match request.uri().authority() {
                    Some(earlier) => earlier.clone(),
                    None => endpoint.target.authority.clone(),
                },
            };
            let mut parts = Parts::default();
            parts.scheme = Some(if endpoint.target.url.tls { Scheme::HTTPS } else { Scheme::HTTP });
            parts.authority = Some(authority);
            parts.path_and_query =
                Some(request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
            *request.uri_mut() = Uri::from_parts(parts)
                .map_err(|_| SendError::Protocol("the request's target cannot be written in HTTP/2"))?;
        }
    }
    Ok(())
}
