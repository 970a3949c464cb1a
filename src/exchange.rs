//! The exchange: what layers and doors know and tell each other about one request and its answer.
//!
//! [`Exchange`] travels with the request; [`Refusal`] is an answer that says no.

mod metering;

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, EXPECT, RETRY_AFTER, STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::access::{Admission, AdmissionCell, Permit};
use crate::client_addr::Peer;
use crate::clock::Timestamp;
use crate::ids::{RequestId, TokenId};
use crate::limits;
use crate::problem::{Kind, Problem, Violated};
use crate::registry::Principal;
use crate::routes::{Route, RouteTable, Target};
use crate::secret::Secret;
use crate::usage::Spot;

pub use metering::Meter;

/// One request from its head to its log line. Shared, so that nothing has to ride on the answer.
#[derive(Debug)]
pub struct Exchange {
    /// Its number.
    pub request: RequestId,
    /// When its header section was complete: the time that its access is decided for.
    pub at: Timestamp,
    /// Who sent it here.
    pub peer: Peer,
    /// That is a trusted proxy, which ended TLS for us.
    pub is_proxied: bool,
    /// Whose request it is; see `client_addr`.
    pub client: IpAddr,
    /// The route of its host, path and method.
    pub route: Located,
    /// Its method.
    pub method: Method,
    /// Its path and query as received, where it has any.
    pub target: Option<PathAndQuery>,
    /// The version of HTTP it came by.
    pub version: Version,
    /// Its normalised path, where that is not as received.
    normalised: Option<Box<str>>,
    permit: OnceLock<Permit>,
    admission: AdmissionCell,
    verdict: OnceLock<Verdict>,
    asked: OnceLock<Box<Asked>>,
    exposed: OnceLock<Secret<Vec<u8>>>,
    /// Bytes of content that have arrived and are not counted yet.
    received: AtomicU64,
    /// Where it counts as usage, once it is answered; nowhere when it is not known whose it is.
    counted: OnceLock<Option<Spot>>,
}

/// A request that plans count as under way until this is dropped: with the last byte of its answer, or when it is cut off, or
/// when its client goes away.
#[derive(Debug)]
pub struct UnderWay(Arc<Exchange>);

impl UnderWay {
    /// Whether its bytes are counted.
    pub fn counts_bytes(&self) -> bool {
        self.0.admission().is_some_and(Admission::counts_bytes)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(admission) = self.0.admission() {
            admission.end();
        }
    }
}

/// What another proxy asked about: the request that it was sent itself.
#[derive(Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its path, normalised.
    pub path: String,
    /// The index of its route, if it has one.
    pub route: Option<usize>,
    /// Whose it is.
    pub client: IpAddr,
}

/// What is known of a request before anything is decided about it.
#[derive(Debug)]
pub struct Received<'a> {
    /// Its number.
    pub request: RequestId,
    /// When its header section was complete.
    pub at: Timestamp,
    /// Who sent it here.
    pub peer: Peer,
    /// That is a trusted proxy, which ended TLS for us.
    pub is_proxied: bool,
    /// Whose it is.
    pub client: IpAddr,
    /// The route of its host, path and method.
    pub route: Located,
    /// Its normalised path, where that is not as received.
    pub normalised: Option<Box<str>>,
    /// Its head.
    pub head: &'a Parts,
}

impl Exchange {
    /// A request that nothing is decided about yet.
    pub fn new(received: Received<'_>) -> Self {
        let Received { request, at, peer, is_proxied, client, route, normalised, head } = received;
        Self {
            request,
            at,
            peer,
            is_proxied,
            client,
            route,
            normalised,
            method: head.method.clone(),
            target: head.uri.path_and_query().cloned(),
            version: head.version,
            permit: OnceLock::new(),
            admission: AdmissionCell::new(),
            verdict: OnceLock::new(),
            asked: OnceLock::new(),
            exposed: OnceLock::new(),
            received: AtomicU64::new(0),
            counted: OnceLock::new(),
        }
    }

    /// The path in its one spelling: what the route was found by, and what an upstream is sent.
    pub fn path(&self) -> &str {
        let received = || self.target.as_ref().map_or("*", PathAndQuery::path);
        self.normalised.as_deref().unwrap_or_else(received)
    }

    /// The exchange that a request belongs to.
    pub fn of<B>(request: &Request<B>) -> Option<&Arc<Self>> {
        request.extensions().get()
    }

    /// The right to proceed, on a secured route.
    pub fn permit(&self) -> Option<&Permit> {
        self.permit.get()
    }

    /// Access was granted. Only who has a permit can say so.
    pub fn granted(&self, permit: Permit) {
        let _ = self.permit.set(permit);
    }

    /// The rate of the Demo group was asked, and this is what it made of it.
    pub fn admitted(&self, admission: Admission) {
        let _ = self.admission.set(Box::new(admission));
    }

    /// What is known of it, or this new one.
    pub fn admission_or(&self, new: impl FnOnce() -> Admission) -> &Admission {
        self.admission.get_or_init(|| Box::new(new()))
    }

    /// What the rate of the Demo group and plans made of it, where any bounds it.
    pub fn admission(&self) -> Option<&Admission> {
        self.admission.get().map(|admission| &**admission)
    }

    /// To be kept for as long as it is under way, where a plan counts that.
    pub fn under_way(self: &Arc<Self>) -> Option<UnderWay> {
        self.admission().is_some_and(Admission::is_held).then(|| UnderWay(Arc::clone(self)))
    }

    /// What else the request log should know. The first word counts.
    pub fn note(&self, verdict: Verdict) {
        let _ = self.verdict.set(verdict);
    }

    /// Another proxy asks about this request.
    pub fn asks_about(&self, asked: Asked) {
        let _ = self.asked.set(Box::new(asked));
    }

    /// What another proxy asked about.
    pub fn asked(&self) -> Option<&Asked> {
        self.asked.get().map(|asked| &**asked)
    }

    /// This `Authorization` came to another proxy in the clear.
    pub fn expose(&self, authorization: &[u8]) {
        let _ = self.exposed.set(Secret::new(authorization.to_vec()));
    }

    /// What came to another proxy in the clear.
    pub fn exposed(&self) -> Option<&Secret<Vec<u8>>> {
        self.exposed.get()
    }

    /// Why it was refused, if it was.
    pub fn reason(&self) -> Option<&'static str> {
        self.verdict.get().and_then(|verdict| verdict.reason)
    }

    /// Who is to hear what there is to say of its credential: whoever was let through, or was just given a token. A word about
    /// somebody else's token does not count.
    pub fn noticed(&self) -> Option<&Principal> {
        let is_issue = || self.route.route().is_some_and(|route| route.target == Target::Token);
        match self.permit.get() {
            Some(permit) => Some(permit.principal()),
            None if is_issue() => self.who().map(|(principal, _)| principal),
            None => None,
        }
    }

    /// Who asked, as far as that is proven, and the token that was presented or issued.
    pub fn who(&self) -> Option<(&Principal, TokenId)> {
        match (self.verdict.get(), self.permit.get()) {
            (Some(Verdict { who: Some((principal, token)), .. }), _) => Some((principal, *token)),
            (_, Some(permit)) => Some((permit.principal(), permit.token())),
            _ => None,
        }
    }
}

/// A request found in the route table, or not.
#[derive(Debug, Clone)]
pub struct Located {
    table: Arc<RouteTable>,
    index: Option<usize>,
}

impl Located {
    /// Finds a request: its host and normalised path, each in its one spelling, and its method.
    pub fn find(table: Arc<RouteTable>, host: &str, path: &str, method: &str) -> Self {
        let index = table.find(host, path, method).map(|route| route.index);
        Self { table, index }
    }

    /// A request that was not looked for, because it was refused before.
    pub fn nowhere(table: Arc<RouteTable>) -> Self {
        Self { table, index: None }
    }

    /// Whether it was looked for in this table.
    pub fn is_of(&self, table: &Arc<RouteTable>) -> bool {
        Arc::ptr_eq(&self.table, table)
    }

    /// The table it was looked for in.
    pub fn table(&self) -> &RouteTable {
        &self.table
    }

    /// The route, if the path is somebody's.
    pub fn route(&self) -> Option<&Route> {
        self.index.map(|index| &self.table.routes()[index])
    }
}

/// A tunnel that an answer opens (RFC 9110 §7.8, RFC 8441): rides on the answer, so that whoever counts the request can go on
/// counting it until the tunnel ends.
#[derive(Debug, Clone, Default)]
pub struct Tunnel(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    kept: OnceLock<Kept>,
    meter: OnceLock<Meter>,
}

struct Kept(#[allow(dead_code, reason = "it is kept to be dropped")] Box<dyn Send + Sync>);

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

impl Tunnel {
    /// Keeps `guard` until the last clone of this is dropped: the one that the tunnel itself holds.
    pub fn keep(self, guard: impl Send + Sync + 'static) {
        let _ = self.0.kept.set(Kept(Box::new(guard)));
    }

    /// Has its bytes counted by `meter`, from before it begins.
    pub fn metered(&self, meter: Meter) {
        let _ = self.0.meter.set(meter);
    }

    /// What counts its bytes, if anything does.
    pub fn meter(&self) -> Option<&Meter> {
        self.0.meter.get()
    }
}

/// What the request log should know of an answer that a permit does not say.
#[derive(Debug, Default)]
pub struct Verdict {
    /// A stable word: why it was refused, or nothing.
    pub reason: Option<&'static str>,
    /// Who asked, and the token that was presented or issued.
    pub who: Option<(Arc<Principal>, TokenId)>,
}

/// An answer that says no: a problem with its headers.
#[derive(Debug)]
pub struct Refusal(Box<Refused>);

#[derive(Debug)]
struct Refused {
    kind: Kind,
    problem: Problem,
    verdict: Verdict,
    challenge: Option<HeaderValue>,
    allow: Option<HeaderValue>,
    retry_after: Option<u64>,
    status: Option<StatusCode>,
}

impl Refusal {
    /// Says no for `reason`, a stable word for the log; `detail` tells the client what to do.
    pub fn new(kind: Kind, reason: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Refused {
            kind,
            problem: Problem::new(kind, detail),
            verdict: Verdict { reason: Some(reason), ..Verdict::default() },
            challenge: None,
            allow: None,
            retry_after: None,
            status: None,
        }))
    }

    /// With a challenge (RFC 9110 §11.6.1). A 401 is not finished without one.
    pub fn challenge(mut self, challenge: HeaderValue) -> Self {
        self.0.challenge = Some(challenge);
        self
    }

    /// With the methods that would be answered.
    pub fn allow(mut self, methods: &str) -> Self {
        self.0.allow = HeaderValue::from_str(methods).ok();
        self
    }

    /// With the time after which it may go better.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(limits::retry_after(wait));
        self
    }

    /// Names the group that is missing and whom to ask for it.
    pub fn licence(mut self, missing_group: Option<&str>, contact: Option<&str>) -> Self {
        self.0.problem = self.0.problem.licence(missing_group, contact);
        self
    }

    /// Names the quota that is used up.
    pub fn violated(mut self, violated: Violated) -> Self {
        self.0.problem = self.0.problem.violated(violated);
        self
    }

    /// Said once more in the way that clients of a registry read.
    pub fn for_registry_clients(mut self) -> Self {
        self.0.problem = self.0.problem.for_registry_clients();
        self
    }

    /// Who was refused.
    pub fn of(mut self, principal: Arc<Principal>, token: TokenId) -> Self {
        self.0.verdict.who = Some((principal, token));
        self
    }

    /// With another status than that of its kind, for a caller that would misread that one. The kind stays what it is.
    pub fn answered_as(mut self, status: StatusCode) -> Self {
        self.0.problem = self.0.problem.answered_as(status.as_u16());
        self.0.status = Some(status);
        self
    }

    /// The kind of problem.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The stable word.
    pub fn reason(&self) -> &'static str {
        self.0.verdict.reason.unwrap_or(self.0.kind.word())
    }

    /// The answer, noted in the exchange.
    pub fn into_response(self, exchange: &Exchange) -> Response<Body> {
        self.into_answer(exchange).map(Body::from)
    }

    /// The answer with its content at hand, noted in the exchange.
    pub fn into_answer(self, exchange: &Exchange) -> Response<Vec<u8>> {
        let Refused { kind, problem, verdict, challenge, allow, retry_after, status } = *self.0;
        let mut response = Response::new(problem.instance(exchange.request).to_json());
        *response.status_mut() =
            status.or(StatusCode::from_u16(kind.status()).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = PRIVATE_JSON.clone();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(allow) = allow {
            headers.insert(ALLOW, allow);
        }
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        exchange.note(verdict);
        response
    }
}

/// The headers that every answer has but for its number: HTTPS from now on (RFC 6797), and no guessing at content types.
/// Copying them costs less than inserting one.
static COMMON: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
});

/// The headers of an answer that only its caller may keep (RFC 9111 §5.2.2.5), in JSON.
static PRIVATE_JSON: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut headers = COMMON.clone();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
});

/// Puts the headers on an answer that every one has, where they are not there yet.
pub fn with_common_headers(response: &mut Response<Body>) {
    if !response.headers().contains_key(STRICT_TRANSPORT_SECURITY) {
        for (name, value) in COMMON.iter() {
            response.headers_mut().insert(name, value.clone());
        }
    }
}

/// The same for an answer to another proxy, which may hand it on to its client: what host that is reached by HTTPS alone is
/// not ours to say then.
pub fn with_common_headers_for_proxies(response: &mut Response<Body>) {
    response.headers_mut().remove(STRICT_TRANSPORT_SECURITY);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// A JSON answer that only its caller may keep.
pub fn private_json(body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.headers_mut() = PRIVATE_JSON.clone();
    response
}

/// How much content that nobody wants is taken in all the same, for how long, and how long its next piece may take.
const MOST_PASSED_OVER: usize = 1024 * 1024;
const LONGEST_PASSED_OVER: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A request's content, of at most `most` bytes and within `limit`.
///
/// # Errors
/// The refusal: 413, 408, or 400 when the content breaks off.
pub async fn read_body(mut body: Body, most: usize, limit: Duration) -> Result<Bytes, Refusal> {
    let end = tokio::time::Instant::now() + limit;
    if body.size_hint().lower() <= most as u64 {
        match tokio::time::timeout_at(end, Limited::new(&mut body, most).collect()).await {
            Err(_) => {
                let detail = format!("The content did not arrive within {} s.", limit.as_secs());
                return Err(Refusal::new(Kind::RequestTimeout, "slow_content", detail));
            }
            Ok(Ok(content)) => return Ok(content.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {}
            Ok(Err(_)) => {
                return Err(Refusal::new(Kind::MalformedRequest, "broken_content", "The content broke off."));
            }
        }
    }
    pass_over(body);
    let detail = format!("The content may have {most} bytes.");
    Err(Refusal::new(Kind::ContentTooLarge, "content_too_large", detail))
}

/// Lets go of the content of a request that is answered without it. Of HTTP/1.1 a little is taken in first, while the answer
/// goes out: whoever writes all of a request before it reads would not see the answer otherwise, since the connection would be
/// cut under what it still writes (RFC 9112 §9.6).
pub fn pass_over<B>(body: B)
where
    B: HttpBody + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if body.is_end_stream() || body.size_hint().lower() > MOST_PASSED_OVER as u64 {
        return;
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        let mut body = Limited::new(body, MOST_PASSED_OVER);
        let whole = async { while let Ok(Some(Ok(_))) = tokio::time::timeout(LONGEST_PAUSE, body.frame()).await {} };
        let _ = tokio::time::timeout(LONGEST_PASSED_OVER, whole).await;
    });
}

/// Whether a request's content is sent without being asked for (RFC 9110 §10.1.1): who waits for a 100 sends none with a final
/// answer, and is not to be asked for it. In HTTP/2 a stream ends without hurting others.
pub fn comes_unasked(head: &Parts) -> bool {
    head.version < Version::HTTP_2 && !head.headers.contains_key(EXPECT)
}

/// A value inside a quoted-string of a challenge: what would end it is left out (RFC 9110 §5.6.4).
pub fn quotable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect()
}
