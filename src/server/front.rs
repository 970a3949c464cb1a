//! The outermost layer: numbers a request, finds out whose it is and where it goes, and writes its line when it is answered.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use axum::body::Body;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, FORWARDED};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::ForwardedHeader;
use super::conduct;
use super::connection::{Connection, Connections, InFlight};
use super::content::{Arriving, Tracked};
use super::exposure::Exposure;
use crate::access::add_notices;
use crate::client_addr::{Forwarded, Peer, TrustedProxies};
use crate::clock::Clock;
use crate::exchange::{
    Exchange, Located, Meter, Received, Refusal, Tunnel, UnderWay, comes_unasked, pass_over, with_common_headers,
    with_common_headers_for_proxies,
};
use crate::forward_auth::ForwardAuth;
use crate::ids::RequestId;
use crate::problem::Kind;
use crate::random;
use crate::routes::{Contract, RouteTable, Target, normalise};
use crate::telemetry::{AskedLine, Metrics, RequestLine, RequestLog, RouteMetrics};
use crate::tokens::Client;
use crate::usage::Ledger;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// An answer of so many bytes is in memory as a whole: nothing works on it any more once its head is there.
const SHORT: u64 = 512 * 1024;

/// The routes in force, with their counters.
#[derive(Debug)]
pub struct Site {
    table: Arc<RouteTable>,
    metrics: Vec<RouteMetrics>,
}

impl Site {
    /// The routes of `table`.
    pub fn new(table: RouteTable, metrics: &Metrics) -> Self {
        let counters = table.routes().iter().map(|route| metrics.route(route.id.as_str())).collect();
        Self { table: Arc::new(table), metrics: counters }
    }
}

/// What all listeners share.
#[derive(Debug)]
pub struct Desk {
    site: ArcSwap<Site>,
    unrouted: RouteMetrics,
    log: Option<RequestLog>,
    metrics: Arc<Metrics>,
    usage: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    header_bytes: usize,
    numbers: AtomicU64,
}

impl Desk {
    /// A desk for this site.
    pub fn new(
        site: Site,
        log: Option<RequestLog>,
        metrics: Arc<Metrics>,
        usage: Arc<Ledger>,
        clock: Arc<dyn Clock>,
        header_bytes: usize,
    ) -> Self {
        Self {
            site: ArcSwap::from_pointee(site),
            unrouted: metrics.route("none"),
            log,
            metrics,
            usage,
            clock,
            header_bytes,
            numbers: AtomicU64::new(u64::from_ne_bytes(random::bytes())),
        }
    }

    /// Puts other routes in force, for requests from now on.
    pub fn replace(&self, site: Site) {
        self.site.store(Arc::new(site));
    }

    /// Numbers are spread out, so that they are told apart at a glance; they are no secret.
    fn number(&self) -> RequestId {
        RequestId(self.numbers.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Who may speak to a listener, and how their requests must have arrived.
#[derive(Debug, Clone)]
pub enum Arrivals {
    /// By TLS that we end ourselves.
    Direct,
    /// From other proxies, with questions alone.
    Questions,
    /// By TLS that a trusted proxy ended.
    Proxied(Arc<TrustedProxies>, ForwardedHeader, Arc<Exposure>),
}

/// The layer of one listener; see the module.
#[derive(Debug, Clone)]
pub struct Front<S> {
    inner: S,
    desk: Arc<Desk>,
    arrivals: Arrivals,
}

impl<S> Front<S> {
    /// Stands in front of `inner`.
    pub fn new(inner: S, desk: Arc<Desk>, arrivals: Arrivals) -> Self {
        Self { inner, desk, arrivals }
    }

    /// Makes a service for each connection that `connections` admits.
    pub fn entrance(self, connections: Arc<Connections>) -> Entrance<S> {
        Entrance { front: self, connections }
    }
}

/// Where connections come in.
#[derive(Debug, Clone)]
pub struct Entrance<S> {
    front: Front<S>,
    connections: Arc<Connections>,
}

impl<S: Clone> Entrance<S> {
    fn admit(&self, peer: Peer) -> Ready<io::Result<Serving<S>>> {
        let connection = self.connections.admit(peer).ok_or_else(|| io::Error::other("too many connections"));
        ready(connection.map(|connection| Serving { front: self.front.clone(), connection }))
    }
}

impl<S: Clone> Service<SocketAddr> for Entrance<S> {
    type Response = Serving<S>;
    type Error = io::Error;
    type Future = Ready<io::Result<Serving<S>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, peer: SocketAddr) -> Self::Future {
        self.admit(Peer::Address(peer))
    }
}

/// By the Unix socket.
impl<S: Clone> Service<std::os::unix::net::SocketAddr> for Entrance<S> {
    type Response = Serving<S>;
    type Error = io::Error;
    type Future = Ready<io::Result<Serving<S>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: std::os::unix::net::SocketAddr) -> Self::Future {
        self.admit(Peer::Unix)
    }
}

/// The service of one connection.
#[derive(Debug, Clone)]
pub struct Serving<S> {
    front: Front<S>,
    connection: Arc<Connection>,
}

impl<S> Serving<S> {
    /// The connection it serves.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl<S> Service<Request<Incoming>> for Serving<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Tracked>;
    type Error = Infallible;
    type Future = FrontFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.front.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let (in_flight, began) = (self.connection.begin(), Instant::now());
        let (mut head, body) = request.into_parts();
        let desk = &self.front.desk;
        let table = Arc::clone(&desk.site.load().table);
        let peer = self.connection.peer();
        let asker = if table.has_askers() { Contract::of(head.uri.path()).map(|(contract, _)| contract) } else { None };
        let Arrival { admitted, is_proxied, client } = self.arrive(&mut head);
        let checked = admitted.and_then(|()| conduct::check(&head, desk.header_bytes)).and_then(|()| {
            if head.method == Method::CONNECT {
                // It opens a WebSocket, which is a GET in HTTP/1.1: routes and doors need to know one of them only.
                head.method = Method::GET;
            }
            let path = match asker {
                // What follows the contract's own path is another request's, and is looked at as such.
                Some(contract) => Cow::Borrowed(contract.path()),
                None => normalise(head.uri.path()).and_then(|path| table.admits(&path).map(|()| path)).map_err(
                    |ambiguous| Refusal::new(Kind::MalformedRequest, "ambiguous_path", ambiguous.to_string()),
                )?,
            };
            let route = Located::find(Arc::clone(&table), &conduct::host_of(&head), &path, head.method.as_str());
            if asker.is_none() {
                authorizations(&head, &route)?;
            }
            if matches!(self.front.arrivals, Arrivals::Questions) {
                only_decisions(peer, &route)?;
            }
            let normalised = match path {
                Cow::Borrowed(_) => None,
                Cow::Owned(path) => Some(path.into_boxed_str()),
            };
            Ok((route, normalised))
        });
        let (route, normalised, refusal) = match checked {
            Ok((route, normalised)) => (route, normalised, None),
            Err(refusal) => (Located::nowhere(table), None, Some(refusal)),
        };
        let (request, at) = (desk.number(), desk.clock.now());
        let exchange =
            Arc::new(Exchange::new(Received { request, at, peer, is_proxied, client, route, normalised, head: &head }));
        let answer = match refusal {
            Some(refusal) => {
                let ends = conduct::ends_connection(&refusal);
                let mut response = match asker {
                    // Whoever asks must not meet a status that its proxy does not understand.
                    Some(contract) => ForwardAuth::refuse(refusal, &exchange, contract),
                    None => refusal.into_response(&exchange),
                };
                if !ends && comes_unasked(&head) {
                    pass_over(body);
                }
                if ends {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                refused(response)
            }
            None => {
                head.extensions.insert(Arc::clone(&exchange));
                let body = match body.is_end_stream() {
                    true => Body::empty(),
                    // Whether somebody counts it is not known before access is decided.
                    false => Body::new(Arriving { body, meter: Meter::new(&desk.usage, &exchange) }),
                };
                let request = Request::from_parts(head, body);
                // Most doors do their work here. One that panics must not take the connection's other streams with it.
                match catch_unwind(AssertUnwindSafe(|| self.front.inner.call(request))) {
                    Ok(inner) => Answer::Inner { inner },
                    Err(_) => refused(panicked(desk, &exchange)),
                }
            }
        };
        let (desk, under_way) = (Arc::clone(desk), exchange.under_way());
        FrontFuture { answer, answering: Some(Answering { desk, exchange, began, in_flight, under_way }) }
    }
}

/// How a request came here.
struct Arrival {
    admitted: Result<(), Refusal>,
    is_proxied: bool,
    client: IpAddr,
}

impl<S> Serving<S> {
    /// Finds the client, and whether it spoke HTTPS. What a trusted proxy was sent in the clear is exposed as much as what
    /// we were sent ourselves.
    fn arrive(&self, head: &mut http::request::Parts) -> Arrival {
        let peer = self.connection.peer();
        let Arrivals::Proxied(trusted, header, exposure) = &self.front.arrivals else {
            return Arrival { admitted: Ok(()), is_proxied: false, client: peer.ip() };
        };
        let Peer::Address(peer) = peer else {
            // There is no Unix socket behind a load balancer.
            let refusal = Refusal::new(Kind::HttpsRequired, "untrusted_proxy", "Only HTTPS is served.");
            return Arrival { admitted: Err(refusal), is_proxied: false, client: peer.ip() };
        };
        let clients_own: &[&str] = match header {
            ForwardedHeader::Either => &[],
            ForwardedHeader::XForwarded => &["forwarded"],
            ForwardedHeader::Forwarded => &[X_FORWARDED_FOR, X_FORWARDED_PROTO, "x-forwarded-host"],
        };
        for name in clients_own {
            head.headers.remove(*name);
        }
        let lines = |name: &str| {
            // What is not text is no address and no protocol.
            head.headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?\"")).collect()
        };
        let headers = Forwarded {
            x_forwarded_for: lines(X_FORWARDED_FOR),
            x_forwarded_proto: lines(X_FORWARDED_PROTO),
            forwarded: lines(FORWARDED.as_str()),
        };
        let (reason, client) = match trusted.arrival(peer, &headers) {
            Some(arrival) if arrival.https => {
                return Arrival { admitted: Ok(()), is_proxied: true, client: arrival.client };
            }
            Some(arrival) => ("not_https", arrival.client),
            None => ("untrusted_proxy", peer.ip().to_canonical()),
        };
        self.front.desk.metrics.plaintext.inc();
        if let Some(value) = head.headers.get(AUTHORIZATION) {
            exposure.examine_value(value.as_bytes(), SocketAddr::new(client, peer.port()));
        }
        let detail = "Only HTTPS is served. Whatever key or token was sent in the clear must be treated as exposed.";
        Arrival { admitted: Err(Refusal::new(Kind::HttpsRequired, reason, detail)), is_proxied: false, client }
    }
}

/// Refuses a doubled `Authorization`. At the token endpoint that is "not specified" (CONTRACT §1).
fn authorizations(head: &http::request::Parts, route: &Located) -> Result<(), Refusal> {
    if !conduct::has_several_authorizations(head) {
        return Ok(());
    }
    let kind = match route.route().map(|route| route.target) {
        Some(Target::Token) => Kind::CredentialsNotSpecified,
        _ => Kind::MalformedRequest,
    };
    Err(Refusal::new(kind, "several_authorizations", "There is more than one Authorization header."))
}

/// The Unix socket and the listener for gRPC are there for other proxies' questions. By the socket, anything else would be plain
/// HTTP.
fn only_decisions(peer: Peer, route: &Located) -> Result<(), Refusal> {
    let target = route.route().map(|route| route.target);
    let is_decision =
        matches!(target, Some(Target::ForwardAuth(_) | Target::Check | Target::HealthLive | Target::HealthReady));
    if is_decision {
        return Ok(());
    }
    let detail =
        "Only other proxies' questions and /health/… are answered here. Everything else is at the HTTPS listener.";
    let kind = if peer == Peer::Unix { Kind::HttpsRequired } else { Kind::NotFound };
    Err(Refusal::new(kind, "only_questions", detail))
}

/// A request until its line is written.
#[derive(Debug)]
struct Answering {
    desk: Arc<Desk>,
    exchange: Arc<Exchange>,
    began: Instant,
    in_flight: InFlight,
    under_way: Option<UnderWay>,
}

impl Answering {
    /// Finishes an answer: the headers that every one has, the counters and the line.
    fn finish(self, mut response: Response<Body>) -> Response<Tracked> {
        let Self { desk, exchange, began, in_flight, under_way } = self;
        let status = response.status().as_u16();
        let ended = Instant::now();
        let duration = ended - began;
        let route = exchange.route.route();
        match route.map(|route| route.target) {
            Some(Target::ForwardAuth(_)) => with_common_headers_for_proxies(&mut response),
            _ => with_common_headers(&mut response),
        }
        if let Ok(value) = HeaderValue::from_bytes(exchange.request.write(&mut [0; 16])) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        if let Some(principal) = exchange.noticed() {
            add_notices(response.headers_mut(), principal);
        }
        // In a gRPC call they are in the message, for whoever that is about.
        if let Some(admission) = exchange.admission()
            && route.is_none_or(|route| route.target != Target::Check)
        {
            admission.add_fields(response.headers_mut());
        }
        if exchange.method == Method::HEAD {
            without_content(&mut response);
        }
        let site = desk.site.load();
        // After a reload the old table's indices mean nothing to the new counters.
        let counters =
            route.filter(|_| exchange.route.is_of(&site.table)).and_then(|route| site.metrics.get(route.index));
        counters.unwrap_or(&desk.unrouted).answered(status, duration);
        let is_counted = desk.usage.is_enabled() || under_way.as_ref().is_some_and(UnderWay::counts_bytes);
        if desk.usage.is_enabled() {
            exchange.count(&desk.usage, status, duration);
        }
        let reason = exchange.reason();
        if let Some(reason) = reason {
            desk.metrics.refused(reason);
        }
        if let Some(log) = &desk.log {
            let (principal, token) = exchange.who().unzip();
            log.write(&RequestLine {
                at: exchange.at,
                request: exchange.request,
                client: exchange.client,
                version: exchange.version,
                method: exchange.method.as_str(),
                path: exchange.target.as_ref().map_or("*", PathAndQuery::path),
                status,
                duration,
                route: route.map_or("none", |route| route.id.as_str()),
                account: principal.map(|principal| principal.account().as_str()),
                key: principal.and_then(|principal| match principal.client() {
                    Client::Key(id) => Some(id.as_str()),
                    Client::Password => None,
                }),
                token,
                reason,
                asked: exchange.asked().map(|asked| AskedLine {
                    method: asked.method.as_str(),
                    path: &asked.path,
                    route: asked.route.map_or("none", |index| exchange.route.table().routes()[index].id.as_str()),
                    client: asked.client,
                }),
            });
        }
        if let Some(tunnel) = response.extensions_mut().remove::<Tunnel>() {
            // The head is all there is of this answer; what its connection carries from now on has limits of its own.
            if is_counted {
                tunnel.metered(Meter::new(&desk.usage, &exchange));
            }
            tunnel.keep((in_flight, under_way));
            return response.map(|body| Tracked { body, in_flight: None, meter: None, under_way: None });
        }
        let is_short = response.body().size_hint().exact().is_some_and(|bytes| bytes <= SHORT);
        // A client that does not take a short answer holds an idle connection, whatever HTTP/2 windows it keeps shut.
        let in_flight = if is_short {
            in_flight.ended(ended);
            None
        } else {
            Some(in_flight)
        };
        let is_metered = is_counted && !response.body().is_end_stream();
        let meter = is_metered.then(|| Meter::new(&desk.usage, &exchange).short(is_short)).filter(Meter::is_in_use);
        response.map(|body| Tracked { body, in_flight, meter, under_way })
    }
}

pin_project! {
    /// The answer of a [`Front`].
    #[derive(Debug)]
    pub struct FrontFuture<F> {
        #[pin]
        answer: Answer<F>,
        answering: Option<Answering>,
    }
}

pin_project! {
    #[project = AnswerProjection]
    #[derive(Debug)]
    enum Answer<F> {
        Inner { #[pin] inner: F },
        Refused { response: Option<Box<Response<Body>>> },
    }
}

impl<F> Future for FrontFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<Tracked>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.answer.project() {
            AnswerProjection::Inner { inner } => match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(Ok(response))) => Some(response),
                Err(_) => this.answering.as_ref().map(|request| panicked(&request.desk, &request.exchange)),
            },
            AnswerProjection::Refused { response } => response.take().map(|response| *response),
        };
        let done = this.answering.take().zip(response);
        let (answering, response) = done.expect("a future is not polled after it is ready");
        Poll::Ready(Ok(answering.finish(response)))
    }
}

fn refused<F>(response: Response<Body>) -> Answer<F> {
    Answer::Refused { response: Some(Box::new(response)) }
}

/// The answer to HEAD has no content, and says what length GET's would have (RFC 9110 §9.3.2). `hyper` sees to that with
/// HTTP/1.1 alone.
fn without_content(response: &mut Response<Body>) {
    let body = std::mem::replace(response.body_mut(), Body::empty());
    if let Some(length) = http_body::Body::size_hint(&body).exact() {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
}

fn panicked(desk: &Desk, exchange: &Exchange) -> Response<Body> {
    desk.metrics.panics.inc();
    tracing::error!(request.id = %exchange.request, "a request's handler panicked");
    Refusal::new(Kind::Internal, "panic", "The request could not be handled. It was logged.").into_response(exchange)
}
