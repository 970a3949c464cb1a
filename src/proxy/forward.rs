//! Forwarding: a request that access let through becomes the upstream's, and its answer the client's.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use super::flow::{Answered, Cut, Flow, Flows, Upload, UploadFault};
use super::framing;
use super::headers::{self, Onward};
use super::metered::Metered;
use super::rewrite;
use super::tunnel::{self, Ending};
use super::upstream::{
    Balance, HostHeader, SendError, SendLimits, Upstream, UpstreamBody, UpstreamError, UpstreamSettings, Upstreams,
    WantsUpgrade,
};
use super::websocket;
use crate::access::{self, Gate, Permit, Refusals, identity_headers};
use crate::exchange::{Exchange, Refusal, Tunnel};
use crate::keys::KeyPrefix;
use crate::problem::Kind;
use crate::random;
use crate::routes::{Forwarding, Route, TokenEnd};
use crate::tokens::Invalid;

const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SEC_WEBSOCKET_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");

/// How soon it may be worth to come again after an upstream could not take a request.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// How long both sides of an upgrade may take from the answer that agrees to it.
const UPGRADE_WITHIN: Duration = Duration::from_secs(10);

/// The reverse proxy.
#[derive(Debug)]
pub struct Proxy {
    upstreams: Upstreams,
    flows: Arc<Flows>,
    gate: Arc<Gate>,
    refusals: Arc<Refusals>,
    prefix: KeyPrefix,
    stream_grace: Duration,
    tunnels: Tunnels,
}

/// The tunnels that are open, and how they are told to end.
#[derive(Debug)]
struct Tunnels {
    ending: CancellationToken,
    open: tokio_util::task::TaskTracker,
}

impl Proxy {
    /// In front of these upstreams.
    ///
    /// # Errors
    /// What of the settings cannot be used.
    pub fn new(
        upstreams: &[UpstreamSettings],
        gate: Arc<Gate>,
        refusals: Arc<Refusals>,
        stream_grace: Duration,
        prefix: &KeyPrefix,
    ) -> Result<Self, Vec<UpstreamError>> {
        Ok(Self {
            upstreams: Upstreams::new(upstreams)?,
            flows: Flows::new(Arc::clone(&gate), stream_grace),
            gate,
            refusals,
            prefix: prefix.clone(),
            stream_grace,
            tunnels: Tunnels { ending: CancellationToken::new(), open: tokio_util::task::TaskTracker::new() },
        })
    }

    /// Begins to look after the upstreams and what is under way, until it is aborted.
    pub async fn watch(self: Arc<Self>) {
        self.upstreams.start();
        Arc::clone(&self.flows).watch().await;
    }

    /// The upstreams.
    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// What is under way.
    pub fn flows(&self) -> &Arc<Flows> {
        &self.flows
    }

    /// How many tunnels are open.
    pub fn tunnels(&self) -> usize {
        self.tunnels.open.len()
    }

    /// Ends what has no end of its own, and waits until the tunnels have said goodbye.
    pub async fn end(&self) {
        self.tunnels.ending.cancel();
        self.flows.begin_to_end();
        self.tunnels.open.close();
        self.tunnels.open.wait().await;
    }

    /// Passes a request on, and the answer back. That there is a permit is the right to do so.
    pub async fn forward(self: Arc<Self>, exchange: Arc<Exchange>, request: Request<Body>) -> Response<Body> {
        let (Some(permit), Some(route)) = (exchange.permit(), exchange.route.route()) else {
            return not_found().into_response(&exchange);
        };
        let Some(forwarding) = &route.forwarding else { return not_found().into_response(&exchange) };
        let Some(upstream) = self.upstreams.get(&forwarding.upstream) else {
            // A reload took it away between the decision and here.
            return unavailable("upstream_gone").into_response(&exchange);
        };
        let passage = Passage { proxy: &self, exchange: &exchange, permit, route, forwarding, upstream: &upstream };
        passage.pass(request).await.unwrap_or_else(|refusal| refusal.into_response(&exchange))
    }
}

/// One request on its way.
struct Passage<'a> {
    proxy: &'a Arc<Proxy>,
    exchange: &'a Arc<Exchange>,
    permit: &'a Permit,
    route: &'a Route,
    forwarding: &'a Arc<Forwarding>,
    upstream: &'a Arc<Upstream>,
}

/// What a client wants its connection, or stream, to become.
struct Wanted {
    /// The token of `Upgrade`.
    protocol: HeaderValue,
    is_web_socket: bool,
    /// The client speaks HTTP/2, and knows nothing of 101 (RFC 8441).
    is_stream: bool,
    client: OnUpgrade,
}

impl Passage<'_> {
    async fn pass(self, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let (mut head, body) = request.into_parts();
        self.check_length(&head.headers)?;
        let received = self.exchange.target.as_ref().ok_or_else(not_found)?;
        let target = rewrite::target(&self.forwarding.rewrite, self.exchange.path(), received).map_err(|_| {
            Refusal::new(Kind::MalformedRequest, "target_too_long", "The path is too long for what lies behind it.")
        })?;
        // Content and an upgrade exclude each other: what came after the content could not be told from it, and an upstream
        // that was told of content which does not come takes the next request on its connection for it. An upgrade may be
        // ignored (RFC 9110 §7.8), content may not.
        let wanted = if body.is_end_stream() { wanted(&mut head) } else { None };
        self.fields(&mut head, wanted.as_ref())?;
        head.uri = target.into();
        head.extensions.clear();
        if wanted.is_some() {
            head.extensions.insert(WantsUpgrade);
        }
        let is_grpc = is_grpc(&head.headers);

        let settings = self.upstream.settings();
        let idle = self.forwarding.idle_timeout.unwrap_or(settings.idle_timeout);
        let flow = Flow::new(&self.proxy.flows, self.permit.clone(), self.forwarding.token_end, idle);
        let has_content = !body.is_end_stream();
        let body = match has_content {
            true => Body::new(Upload::new(body, &flow, self.forwarding.body_bytes)),
            false => Body::empty(),
        };
        let limits = SendLimits {
            response_timeout: self.forwarding.response_timeout.unwrap_or(settings.response_timeout),
            progress: has_content.then(|| Arc::clone(flow.pulse())),
        };
        let affinity = if settings.balance == Balance::Account { affinity(self.permit) } else { 0 };
        let answer = self.upstream.send(Request::from_parts(head, body), affinity, limits).await;
        let answer = answer.map_err(|error| self.failed(&error, &flow))?;
        if let Some(ended) = self.ended(&flow) {
            return Err(ended);
        }
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switched(answer, wanted, idle);
        }
        if answer.status().is_success() && wanted.is_some_and(|wanted| wanted.is_stream) {
            // RFC 8441 §4: by HTTP/2 a 2xx would say that the WebSocket is open.
            tracing::warn!(request.id = %self.exchange.request, upstream = %self.forwarding.upstream,
                "the upstream did not switch protocols, and did not refuse");
            return Err(bad_gateway("upstream_protocol"));
        }
        self.answered(answer, flow, is_grpc)
    }

    /// RFC 9110 §8.6: what says beforehand that it is too large need not be read.
    fn check_length(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(most) = self.forwarding.body_bytes else { return Ok(()) };
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > most) { Err(too_large(most)) } else { Ok(()) }
    }

    /// Makes the fields those that the upstream gets.
    fn fields(&self, head: &mut Parts, wanted: Option<&Wanted>) -> Result<(), Refusal> {
        let host = match head.headers.get(HOST) {
            Some(host) => host.clone(),
            None => {
                let authority = head.uri.authority().map_or("", |authority| authority.as_str());
                HeaderValue::from_str(authority).unwrap_or(HeaderValue::from_static(""))
            }
        };
        let chain = self.exchange.is_proxied.then(|| headers::chain(&head.headers)).flatten();
        let own = self.route.audience.groups();
        let identity = self.forwarding.identity_headers.then(|| identity_headers(self.permit, &self.proxy.prefix, own));
        let onward = Onward {
            version: self.exchange.version,
            peer: self.exchange.peer.ip(),
            chain: chain.as_deref(),
            host: host.to_str().unwrap_or_default(),
            request: self.exchange.request,
            pass_credentials: self.forwarding.pass_credentials,
            identity,
        };
        onward.apply(&mut head.headers, random::open_bytes).map_err(|_| {
            let detail = "The request has passed this gateway too often: an upstream leads back to it.";
            Refusal::new(Kind::LoopDetected, "loop", detail)
        })?;
        if !self.route.methods.is_empty() {
            headers::drop_other_methods(&mut head.headers);
        }
        match &self.upstream.settings().host {
            // HTTP/1.0 may name none; then the target's own is put in.
            HostHeader::Client if host.is_empty() => drop(head.headers.remove(HOST)),
            HostHeader::Client => drop(head.headers.insert(HOST, host)),
            HostHeader::Name(name) => {
                if let Ok(name) = HeaderValue::from_str(name) {
                    head.headers.insert(HOST, name);
                }
            }
            // The upstream knows which of its targets it will be.
            HostHeader::Target => drop(head.headers.remove(HOST)),
        }
        if let Some(wanted) = wanted {
            headers::upgrade(&mut head.headers, wanted.protocol.clone());
            if wanted.is_stream {
                // RFC 8441 §5 leaves out what only HTTP/1.1 needs.
                head.headers.insert(SEC_WEBSOCKET_KEY, websocket::key());
                head.headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
        }
        Ok(())
    }

    /// The upstream's answer as the client's.
    fn answered(
        &self,
        answer: Response<UpstreamBody>,
        flow: Arc<Flow>,
        is_grpc: bool,
    ) -> Result<Response<Body>, Refusal> {
        let (mut head, body) = answer.into_parts();
        framing::check(&mut head.headers).map_err(|fault| {
            tracing::warn!(request.id = %self.exchange.request, upstream = %self.forwarding.upstream, error = %fault,
                "not passed on");
            bad_gateway("upstream_protocol")
        })?;
        headers::homeward(&mut head.headers, head.version);
        let is_stream = is_grpc || has_no_end(&head.headers);
        let body = match body.is_end_stream() {
            true if self.exchange.method == Method::HEAD => Body::new(framing::Untold),
            true => Body::empty(),
            false => Body::new(Answered::new(body, flow, is_stream)),
        };
        // hyper's own notes on the upstream's connection are nothing for the client's.
        head.extensions.clear();
        head.version = Version::HTTP_11;
        Ok(Response::from_parts(head, body))
    }

    /// The upstream agreed to an upgrade.
    fn switched(
        &self,
        mut answer: Response<UpstreamBody>,
        wanted: Option<Wanted>,
        idle: Duration,
    ) -> Result<Response<Body>, Refusal> {
        let agreed = answer.headers().get(UPGRADE).cloned();
        let Some(wanted) = wanted.filter(|wanted| {
            agreed.as_ref().is_some_and(|agreed| agreed.as_bytes().eq_ignore_ascii_case(wanted.protocol.as_bytes()))
        }) else {
            tracing::warn!(request.id = %self.exchange.request, upstream = %self.forwarding.upstream,
                "the upstream switched to a protocol that was not asked for");
            return Err(bad_gateway("upstream_protocol"));
        };
        let at_upstream = hyper::upgrade::on(&mut answer);
        let (mut head, body) = answer.into_parts();
        headers::homeward(&mut head.headers, head.version);
        if wanted.is_stream {
            head.status = StatusCode::OK;
            head.headers.remove(SEC_WEBSOCKET_ACCEPT);
        } else {
            headers::upgrade(&mut head.headers, wanted.protocol.clone());
        }
        head.extensions.clear();
        let guard = Tunnel::default();
        head.extensions.insert(guard.clone());
        head.version = Version::HTTP_11;

        let protocol = if wanted.is_web_socket { tunnel::Protocol::WebSocket } else { tunnel::Protocol::Other };
        let (proxy, permit) = (Arc::clone(self.proxy), self.permit.clone());
        let (request, token_end) = (self.exchange.request, self.forwarding.token_end);
        self.proxy.tunnels.open.spawn(async move {
            // Whatever counts this request, and the upstream's connection, is held until the tunnel is closed.
            let held = (guard, body.into_lease());
            let both = async { tokio::try_join!(wanted.client, at_upstream) };
            let (client, upstream) = match tokio::time::timeout(UPGRADE_WITHIN, both).await {
                Ok(Ok(both)) => both,
                Ok(Err(error)) => {
                    tracing::debug!(request.id = %request, error = &error as &dyn std::error::Error, "no tunnel");
                    return;
                }
                Err(_) => {
                    tracing::debug!(request.id = %request, "a tunnel was agreed to and not begun");
                    return;
                }
            };
            let ended = proxy.tunnel_ended(&permit, token_end);
            // Whoever answers the request has said by now who counts its bytes: the client switches after the answer's head.
            let client = Metered::new(TokioIo::new(client), held.0.meter().cloned());
            let summary = tunnel::join(client, TokioIo::new(upstream), protocol, idle, ended).await;
            tracing::info!(
                request.id = %request,
                outcome = summary.outcome.word(),
                bytes_to_upstream = summary.to_upstream,
                bytes_to_client = summary.to_client,
                "tunnel ended"
            );
        });
        Ok(Response::from_parts(head, Body::empty()))
    }

    /// What the client is told when its token came to its end before there was an answer.
    fn ended(&self, flow: &Flow) -> Option<Refusal> {
        let why = match flow.cut()? {
            Cut::Expired => Invalid::Expired,
            Cut::Revoked => Invalid::Revoked,
            Cut::Idle | Cut::Shutdown => return None,
        };
        Some(self.proxy.refusals.of(self.permit.ended(why)))
    }

    /// What the client is told of a failure, and the log more.
    fn failed(&self, error: &SendError, flow: &Flow) -> Refusal {
        match (flow.upload_fault(), flow.cut()) {
            (Some(UploadFault::TooLarge), _) => return too_large(self.forwarding.body_bytes.unwrap_or_default()),
            (Some(UploadFault::Broken), _) => {
                return Refusal::new(Kind::MalformedRequest, "broken_content", "The content broke off.");
            }
            (None, Some(Cut::Idle)) if flow.awaits_client() => return slow_content(),
            _ => {}
        }
        if let Some(ended) = self.ended(flow) {
            return ended;
        }
        if matches!(error, SendError::ResponseTimeout) && flow.awaits_client() {
            return slow_content();
        }
        tracing::warn!(
            request.id = %self.exchange.request,
            upstream = %self.forwarding.upstream,
            error = error as &dyn std::error::Error,
            "not passed on"
        );
        let word = error.word();
        match error {
            SendError::AllDown | SendError::Overloaded => unavailable(word),
            // The upstream did not take the content. Whether that shows as an error of it depends on who is woken first.
            _ if flow.cut() == Some(Cut::Idle) => too_late("upstream_timeout"),
            SendError::ConnectTimeout | SendError::ResponseTimeout => too_late(word),
            _ => bad_gateway(word),
        }
    }
}

impl Proxy {
    /// When a tunnel has to end.
    async fn tunnel_ended(&self, permit: &Permit, token_end: TokenEnd) -> Ending {
        let token = async {
            match token_end {
                TokenEnd::Nothing => std::future::pending().await,
                _ => match self.gate.ended(permit, self.stream_grace).await {
                    access::Ending::Expired => Ending::Expired,
                    access::Ending::Revoked => Ending::Revoked,
                },
            }
        };
        tokio::select! {
            ending = token => ending,
            () = self.tunnels.ending.cancelled() => Ending::Shutdown,
        }
    }
}

/// The upgrade that a request asks for (RFC 9110 §7.8), or the WebSocket on an HTTP/2 stream (RFC 8441).
fn wanted(head: &mut Parts) -> Option<Wanted> {
    if head.extensions.get::<Protocol>().is_some() {
        let client = head.extensions.remove::<OnUpgrade>()?;
        let protocol = HeaderValue::from_static("websocket");
        return Some(Wanted { protocol, is_web_socket: true, is_stream: true, client });
    }
    if head.version != Version::HTTP_11 || !names_upgrade(&head.headers) {
        return None;
    }
    let protocol = head.headers.get(UPGRADE)?.clone();
    // HTTP/2 is not begun this way any more (RFC 9113 §3.1), and several tokens are offers that nobody makes.
    let token = protocol.as_bytes();
    if token.eq_ignore_ascii_case(b"h2c") || token.contains(&b',') || head.headers.get_all(UPGRADE).iter().count() > 1 {
        return None;
    }
    let is_web_socket = token.eq_ignore_ascii_case(b"websocket");
    let client = head.extensions.remove::<OnUpgrade>()?;
    Some(Wanted { protocol, is_web_socket, is_stream: false, client })
}

/// Whether `Connection` names `Upgrade`.
fn names_upgrade(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CONNECTION).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
}

fn content_type(headers: &HeaderMap) -> &[u8] {
    headers.get(CONTENT_TYPE).map_or(b"", HeaderValue::as_bytes)
}

fn begins_with(text: &[u8], start: &str) -> bool {
    text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start.as_bytes()))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    begins_with(content_type(headers), "application/grpc")
}

/// Whether an answer is of a kind that goes on until somebody ends it.
fn has_no_end(headers: &HeaderMap) -> bool {
    // Many an API answers with one or another by the client's `Accept`, so all kinds that are made for streams count.
    const ENDLESS: [&str; 8] = [
        "text/event-stream",
        "multipart/x-mixed-replace",
        "application/grpc",
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/json-seq",
        "application/stream+json",
    ];
    let kind = content_type(headers);
    ENDLESS.into_iter().any(|endless| begins_with(kind, endless))
}

/// The same for all requests of an account.
fn affinity(permit: &Permit) -> u64 {
    let mut hasher = DefaultHasher::new();
    permit.principal().account().hash(&mut hasher);
    hasher.finish()
}

fn not_found() -> Refusal {
    Refusal::new(Kind::NotFound, "not_found", "There is nothing at this path.")
}

fn unavailable(word: &'static str) -> Refusal {
    let detail = "What answers this path cannot take the request now. Try again in a moment.";
    Refusal::new(Kind::Unavailable, word, detail).retry_after(COME_AGAIN)
}

fn too_late(word: &'static str) -> Refusal {
    Refusal::new(Kind::GatewayTimeout, word, "What answers this path did not do so in time.")
}

fn bad_gateway(word: &'static str) -> Refusal {
    Refusal::new(Kind::BadGateway, word, "What answers this path gave no answer that can be passed on.")
}

fn too_large(most: u64) -> Refusal {
    Refusal::new(Kind::ContentTooLarge, "content_too_large", format!("The content may have {most} bytes."))
}

fn slow_content() -> Refusal {
    Refusal::new(Kind::RequestTimeout, "slow_content", "The content stopped coming.")
}
