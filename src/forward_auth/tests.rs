//! The door with a gate behind it: requests as each proxy sends them, and every refusal.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::BodyExt;

use super::*;
use crate::access::{self, Refusals};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::exchange::{Located, Received};
use crate::groups::demo;
use crate::ids::{Groups, KeyId, RequestId, TokenId};
use crate::limits::Rate;
use crate::plans::{self, Limit, Meters, Plan};
use crate::registry::{Digest, Registry};
use crate::revocations::LONGEST_TOKEN;
use crate::revocations::{Cutoff, Revocation, Target};
use crate::routes::{BuiltIns, Resource, RouteSettings, RouteTable};
use crate::signing::{self, KeyRing};
use crate::store::MemoryStore;
use crate::tokens::{self, Client, Terms, Token};

pub(super) const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// A proxy that is trusted, and somebody who is not.
pub(super) const PROXY: Peer =
    Peer::Address(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4711));

pub(super) fn stranger() -> Peer {
    Peer::Address("192.0.2.66:4711".parse().unwrap())
}

/// One key for all tests: making one takes a while.
static RING: LazyLock<Arc<KeyRing>> = LazyLock::new(|| {
    let load = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let clock = Arc::new(ManualClock::new(NOW));
        let store = Arc::new(MemoryStore::new());
        runtime.block_on(KeyRing::load(&signing::Settings::default(), LONGEST_TOKEN, store, clock)).expect("a key ring")
    };
    Arc::new(std::thread::spawn(load).join().expect("it does not panic"))
});

/// Where the metadata of the guarded API is.
const METADATA: &str = "https://api.example.com/r";

/// A door with routes, and tokens that are known to its gate under short names.
pub(super) struct House {
    pub(super) door: ForwardAuth,
    registry: Arc<Registry>,
    table: Arc<RouteTable>,
}

impl House {
    pub(super) fn new() -> Self {
        let access = access::Settings {
            realm: "api".into(),
            contact: Some("sales@example.com".into()),
            ..access::Settings::default()
        };
        Self::with(&access, METADATA)
    }

    fn with(access: &access::Settings, metadata: &str) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW));
        let registry = Arc::new(Registry::new(1000));
        let verifier = tokens::Verifier::new(&tokens::Settings::default(), Arc::clone(&RING));
        let demo =
            demo::Settings { requests_per_address: Rate::new(2, Duration::from_secs(60)), ..demo::Settings::default() };
        let plan =
            Plan { id: "pro".parse().unwrap(), limits: vec![Limit::named("requests_per_day", 2, None).unwrap()] };
        let meters = Arc::new(Meters::new(&plans::Settings::default(), vec![]));
        let quotas = Arc::new(access::Quotas::new(meters, &[plan], None, false));
        let gate = Arc::new(Gate::new(Arc::clone(&registry), verifier, &demo, clock).with_quotas(quotas));
        let refusals = Arc::new(Refusals::new(access, Some(metadata)));
        let settings = Settings { trusted: vec!["127.0.0.0/8".parse().unwrap()], ..Settings::default() };
        let route = |id: &str, path: &str, methods: &[&str], groups: &[&str]| RouteSettings {
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
            ..RouteSettings::new(id.parse().unwrap(), path.parse().unwrap(), Resource::Echo)
        };
        let routes = [
            route("orders", "/orders/*", &["GET", "POST"], &["orders", "audit"]),
            route("open", "/open/*", &[], &["demo"]),
            route("any", "/any", &[], &[]),
        ];
        let house = Self {
            door: ForwardAuth::new(&settings, gate, refusals, KeyPrefix::default()),
            registry,
            table: Arc::new(RouteTable::new(&routes, BuiltIns { demo: true, forward_auth: true })),
        };
        house.admit("good", "alice", Client::Key("AbCdEfGhIjKl".parse().unwrap()), &["billing", "orders"]);
        house.admit("weak", "bob", Client::Password, &["billing"]);
        house.admit("demo", demo::DEMO, Client::Key("DemoDemoDemo".parse().unwrap()), &["demo"]);
        house
    }

    fn admit(&self, jwt: &str, account: &str, client: Client, groups: &[&str]) -> TokenId {
        self.admit_on(Terms::default(), jwt, account, client, groups)
    }

    pub(super) fn admit_on(&self, terms: Terms, jwt: &str, account: &str, client: Client, groups: &[&str]) -> TokenId {
        let token = Token {
            account: account.parse().unwrap(),
            client,
            groups: groups.iter().map(|group| group.parse().unwrap()).collect::<Groups>(),
            id: "AAAAAAAAAAAAAAAAAAAAAA".parse().unwrap(),
            issued_at: NOW.secs(),
            expires_at: NOW.secs() + 600,
            terms,
        };
        self.registry.admit(Digest::of(jwt.as_bytes()), &token, NOW).expect("not revoked");
        token.id
    }

    pub(super) fn exchange(&self, head: &Parts) -> Exchange {
        let route = Located::nowhere(Arc::clone(&self.table));
        Exchange::new(Received {
            request: RequestId(7),
            at: NOW,
            peer: PROXY,
            is_proxied: false,
            client: PROXY.ip(),
            route,
            normalised: None,
            head,
        })
    }

    /// What the door answers, and what the log will know.
    fn ask(&self, peer: Peer, text: &str) -> (Response<Body>, Exchange) {
        let head = head(text);
        let exchange = self.exchange(&head);
        let path = head.uri.path().to_owned();
        let (contract, below) = Contract::of(&path).expect("a contract's path");
        (self.door.respond(&exchange, peer, &head, contract, below), exchange)
    }

    /// Status and reason; for an answer that lets through there is no reason.
    fn verdict(&self, text: &str) -> (u16, Option<&'static str>) {
        let (response, exchange) = self.ask(PROXY, text);
        let header = response.headers().get("x-auth-reason").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header.as_deref(), exchange.reason(), "the header says what the log says");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        (response.status().as_u16(), exchange.reason())
    }
}

/// A request's head, from how it looks on the wire but for its line ends.
pub(super) fn head(text: &str) -> Parts {
    let mut lines = text.trim().lines().map(str::trim);
    let mut line = lines.next().unwrap().split(' ');
    let mut request = Request::builder().method(line.next().unwrap()).uri(line.next().unwrap());
    if line.next() == Some("HTTP/2") {
        request = request.version(Version::HTTP_2);
    }
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        request = request.header(name, value.trim());
    }
    request.body(()).unwrap().into_parts().0
}

/// nginx's subrequest (HTTP/1.0 without keep-alive is its default), with the shipped lines.
fn nginx(method: &str, uri: &str, more: &str) -> String {
    format!(
        "GET /authz/auth-request HTTP/1.0
         Host: keybearer.internal:8443
         X-Original-URI: {uri}
         X-Original-Method: {method}
         X-Forwarded-Host: api.example.com
         X-Forwarded-Proto: https
         X-Forwarded-For: 203.0.113.7
         Content-Length:
         Connection: close
         user-agent: curl/8.14.1
         accept: */*
         {more}"
    )
    .trim_end()
    .to_owned()
}

/// Traefik's request; Caddy's has the same fields besides its own.
fn traefik(method: &str, uri: &str, more: &str) -> String {
    format!(
        "GET /authz/forward-auth HTTP/1.1
         Host: keybearer.internal:8443
         User-Agent: curl/8.14.1
         Accept: */*
         Accept-Encoding: gzip
         X-Forwarded-For: 203.0.113.7
         X-Forwarded-Host: api.example.com
         X-Forwarded-Method: {method}
         X-Forwarded-Port: 443
         X-Forwarded-Proto: https
         X-Forwarded-Server: traefik-1
         X-Forwarded-Uri: {uri}
         X-Real-Ip: 203.0.113.7
         {more}"
    )
    .trim_end()
    .to_owned()
}

fn caddy(method: &str, uri: &str, more: &str) -> String {
    format!(
        "GET /authz/forward-auth HTTP/1.1
         Host: keybearer.internal:8443
         User-Agent: curl/8.14.1
         Accept: */*
         Accept-Encoding: gzip
         Via: 2.0 Caddy
         X-Forwarded-For: 203.0.113.7
         X-Forwarded-Host: api.example.com
         X-Forwarded-Method: {method}
         X-Forwarded-Proto: https
         X-Forwarded-Uri: {uri}
         {more}"
    )
    .trim_end()
    .to_owned()
}

/// Envoy's request: the original one, below our path.
fn envoy(method: &str, uri: &str, more: &str) -> String {
    format!(
        "{method} /authz/ext-authz{uri} HTTP/1.1
         host: api.example.com
         content-length: 0
         x-envoy-internal: true
         x-envoy-expected-rq-timeout-ms: 200
         x-forwarded-for: 203.0.113.7
         x-forwarded-proto: https
         {more}"
    )
    .trim_end()
    .to_owned()
}

/// HAProxy's, by the shipped script.
fn haproxy(method: &str, uri: &str, more: &str) -> String {
    format!(
        "HEAD /authz/haproxy HTTP/1.1
         host: keybearer
         x-original-method: {method}
         x-original-uri: {uri}
         x-forwarded-host: api.example.com
         x-forwarded-proto: https
         x-forwarded-for: 203.0.113.7
         {more}"
    )
    .trim_end()
    .to_owned()
}

const GOOD: &str = "Authorization: Bearer good";

type Proxy = fn(&str, &str, &str) -> String;
const PROXIES: [(&str, Proxy); 5] =
    [("nginx", nginx), ("Traefik", traefik), ("Caddy", caddy), ("Envoy", envoy), ("HAProxy", haproxy)];

/// Bytes of an answer's header section with HTTP/1.1, the headers of the front included.
fn header_bytes(response: &mut Response<Body>) -> usize {
    crate::exchange::with_common_headers(response);
    let front = "HTTP/1.1 403 Forbidden\r\nx-request-id: 0123456789abcdef\r\ncontent-length: 12345\r\n\
                 date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
    let fields = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    front.len() + fields.sum::<usize>()
}

async fn content(response: Response<Body>) -> serde_json::Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn who_may_pass_passes_with_all_five_identity_headers_and_no_content() {
    for (name, proxy) in PROXIES {
        let (response, exchange) = House::new().ask(PROXY, &proxy("GET", "/orders/7?x=1", GOOD));
        assert_eq!(response.status(), StatusCode::OK, "{name}");
        let headers = response.headers().clone();
        for (header, value) in [
            ("x-auth-subject", "alice"),
            ("x-auth-key-id", "kb_AbCdEfGhIjKl"),
            ("x-auth-groups", "orders,billing"),
            ("x-auth-token-id", "AAAAAAAAAAAAAAAAAAAAAA"),
            ("x-auth-expires", "1700000600"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(headers[header], value, "{name} {header}");
        }
        assert!(!headers.contains_key("x-auth-reason"));
        assert_eq!(headers.contains_key("x-envoy-auth-headers-to-remove"), name == "Envoy");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "", "{name}");
        assert_eq!(exchange.who().unwrap().0.account().as_str(), "alice");
        assert_eq!(exchange.reason(), None);
    }
}

#[test]
fn an_identity_header_without_a_value_is_there_and_empty() {
    let (response, _) = House::new().ask(PROXY, &traefik("GET", "/any", "Authorization: Bearer weak"));
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-auth-key-id"], "", "a password has none");
    assert_eq!(response.headers()["x-auth-groups"], "billing");
}

#[test]
fn every_contract_refuses_the_same() {
    for (name, proxy) in PROXIES {
        for (method, uri, more, verdict) in [
            ("GET", "/orders", "", (401, "token_missing")),
            ("GET", "/orders?access_token=good", "", (401, "token_in_query")),
            ("GET", "/orders", "Authorization: Basic Z29vZDo=", (401, "token_missing")),
            ("GET", "/orders", "Authorization: Bearer forged", (401, "token_malformed")),
            ("GET", "/orders", "Authorization: Bearer weak", (403, "insufficient_scope")),
            ("DELETE", "/orders", GOOD, (403, "method_not_allowed")),
            ("TRACE", "/any", GOOD, (403, "method_not_allowed")),
            ("GET", "/nowhere", GOOD, (403, "no_route")),
            ("GET", "/nowhere", "", (401, "token_missing")),
            ("GET", "/", GOOD, (403, "no_route")),
            ("GET", "/token", GOOD, (403, "no_route")),
            ("GET", "/whoami", GOOD, (403, "no_route")),
            ("GET", "/demo/time", "Authorization: Bearer demo", (403, "no_route")),
            ("GET", "/any", "Authorization: Bearer demo", (403, "insufficient_scope")),
            ("GET", "/orders/../any", GOOD, (403, "ambiguous_path")),
            ("GET", "/orders/%2e%2e/any", GOOD, (403, "ambiguous_path")),
            ("GET", "/orders%2Fx", GOOD, (403, "ambiguous_path")),
            ("GET", "//orders", GOOD, (403, "ambiguous_path")),
            ("GET", "/orders", "Authorization: Bearer good\nAuthorization: Bearer weak", (403, "original_request")),
        ] {
            let house = House::new();
            let (status, reason) = house.verdict(&proxy(method, uri, more));
            assert_eq!((status, reason), (verdict.0, Some(verdict.1)), "{name}: {method} {uri} {more}");
        }
        let house = House::new();
        assert_eq!(house.verdict(&proxy("HEAD", "/%6frders/7", GOOD)), (200, None), "{name}: HEAD goes with GET");
        assert_eq!(house.verdict(&proxy("PROPFIND", "/any", GOOD)), (200, None), "{name}: any method");
    }
}

#[tokio::test]
async fn a_refusal_is_the_problem_of_the_bearer_layer() {
    let (response, exchange) = House::new().ask(PROXY, &nginx("GET", "/orders", "Authorization: Bearer weak"));
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    let metadata = r#"resource_metadata="https://api.example.com/r""#;
    let challenge = format!(r#"Bearer realm="api", error="insufficient_scope", scope="orders", {metadata}"#);
    assert_eq!(response.headers()[WWW_AUTHENTICATE], challenge);
    assert_eq!(exchange.who().unwrap().0.account().as_str(), "bob");
    let problem = content(response).await;
    assert_eq!(problem["missing_group"], "orders");
    assert_eq!(problem["contact"], "sales@example.com");
    assert_eq!(problem["instance"], "urn:keybearer:request:0000000000000007");

    let (response, _) = House::new().ask(PROXY, &caddy("GET", "/orders", ""));
    assert_eq!(response.headers()[WWW_AUTHENTICATE], format!(r#"Bearer realm="api", {metadata}"#));
    let (response, _) = House::new().ask(PROXY, &envoy("GET", "/orders", "authorization: Bearer x"));
    assert!(response.headers()[WWW_AUTHENTICATE].to_str().unwrap().contains(r#"error="invalid_token""#));
}

#[tokio::test]
async fn the_status_in_the_content_is_the_status_of_the_answer() {
    let (response, _) = House::new().ask(PROXY, &traefik("GET", "/nowhere", GOOD));
    let problem = content(response).await;
    assert_eq!((&problem["status"], &problem["type"]), (&403.into(), &"urn:keybearer:problem:not-found".into()));
}

#[tokio::test]
async fn too_many_demo_requests_are_429_where_the_proxy_knows_it_and_403_where_not() {
    for (name, proxy) in PROXIES {
        let house = House::new();
        let ask = || house.ask(PROXY, &proxy("GET", "/open", "Authorization: Bearer demo"));
        assert_eq!((ask().0.status(), ask().0.status()), (StatusCode::OK, StatusCode::OK), "{name}");
        let (response, exchange) = ask();
        let status = if name == "nginx" { 403 } else { 429 };
        assert_eq!(response.status(), status, "{name}");
        assert_eq!(response.headers()["x-auth-reason"], "demo_rate");
        let stands_for = response.headers().get("x-auth-status").map(|status| status.to_str().unwrap());
        assert_eq!(stands_for, (name == "nginx").then_some("429"), "{name}");
        assert_eq!(response.headers()[RETRY_AFTER], "30");
        assert_eq!(exchange.reason(), Some("demo_rate"));
        assert_eq!(content(response).await["status"], status);
        // It is the client's address that is counted, and not the proxy's.
        let other = proxy("GET", "/open", "Authorization: Bearer demo").replace("203.0.113.7", "203.0.113.8");
        assert_eq!(house.ask(PROXY, &other).0.status(), StatusCode::OK, "{name}");
    }
}

#[test]
fn a_revoked_token_is_refused_at_once() {
    let house = House::new();
    assert_eq!(house.verdict(&nginx("GET", "/orders", GOOD)), (200, None));
    house.registry.revoke(&Revocation {
        target: Target::Key("AbCdEfGhIjKl".parse::<KeyId>().unwrap()),
        cutoff: Cutoff(NOW.secs() + 1),
        made_at: NOW,
        forget_at: NOW + Duration::from_secs(1000),
    });
    assert_eq!(house.verdict(&nginx("GET", "/orders", GOOD)), (401, Some("token_revoked")));
}

#[test]
fn a_stranger_is_told_nothing_whatever_it_says() {
    for (name, proxy) in PROXIES {
        let house = House::new();
        for more in ["", GOOD, "X-Real-IP: 127.0.0.1"] {
            let (response, exchange) = house.ask(stranger(), &proxy("GET", "/orders", more));
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{name}");
            assert_eq!(exchange.reason(), Some("untrusted_peer"), "{name}");
            assert!(!response.headers().contains_key("x-auth-subject"));
            assert!(exchange.permit().is_none());
        }
        assert_eq!(house.ask(Peer::Unix, &proxy("GET", "/orders", GOOD)).0.status(), StatusCode::OK, "{name}");
        house.door.trust(&Settings { trusted: vec!["192.0.2.0/24".parse().unwrap()], ..Settings::default() });
        assert_eq!(house.ask(stranger(), &proxy("GET", "/orders", GOOD)).0.status(), StatusCode::OK, "{name}");
        assert_eq!(house.verdict(&proxy("GET", "/orders", GOOD)).0, 403, "{name}");
    }
}

#[test]
fn a_refusal_of_before_the_door_is_put_in_the_contracts_words() {
    let head = head("GET /authz/auth-request HTTP/1.1\nHost: x");
    for (kind, status) in [
        (Kind::HeadersTooLarge, 403),
        (Kind::MalformedRequest, 403),
        (Kind::MethodNotAllowed, 403),
        (Kind::Internal, 403),
        (Kind::MissingToken, 401),
        (Kind::TooManyRequests, 403),
    ] {
        let exchange = House::new().exchange(&head);
        let refusal = Refusal::new(kind, "a_word", "Why.");
        let response = ForwardAuth::refuse(refusal, &exchange, Contract::AuthRequest);
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["x-auth-reason"], "a_word");
        let stands_for = response.headers().get("x-auth-status").map(|status| status.to_str().unwrap());
        assert_eq!(stands_for, (kind == Kind::TooManyRequests).then_some("429"));
        assert_eq!(exchange.reason(), Some("a_word"));
    }
}

#[test]
fn header_sections_fit_the_buffers_of_proxies() {
    let access =
        access::Settings { realm: "r".repeat(128), contact: Some("c".repeat(1000)), ..access::Settings::default() };
    let house = House::with(&access, &format!("https://{}", "u".repeat(504)));
    let group = |n: usize| format!("g{n:063}");
    let mut groups: Vec<String> = (0..200).map(group).collect();
    groups.push("orders".into());
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    house.admit("many", &"a".repeat(128), Client::Key("AbCdEfGhIjKl".parse().unwrap()), &groups);
    house.admit("long", &"b".repeat(128), Client::Password, &[]);
    for (name, proxy) in PROXIES {
        let (mut response, _) = house.ask(PROXY, &proxy("GET", "/orders", "Authorization: Bearer many"));
        assert_eq!(response.status(), StatusCode::OK);
        let sent = response.headers()["x-auth-groups"].to_str().unwrap().to_owned();
        assert!(sent.starts_with("orders,g000"), "the route's own come first");
        assert!((1900..=2048).contains(&sent.len()), "{}", sent.len());
        let bytes = header_bytes(&mut response);
        assert!((2048..3072).contains(&bytes), "{name}: {bytes}");
        for more in ["", "Authorization: Bearer long", "Authorization: Bearer forged"] {
            let (mut response, _) = house.ask(PROXY, &proxy("GET", "/orders", more));
            assert!(response.status().is_client_error());
            assert!(header_bytes(&mut response) < 1536, "{name} {more}");
        }
    }
}

#[tokio::test]
async fn content_that_nobody_reads_does_not_spoil_the_connection() {
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let house = Arc::new(House::new());
    let (client, server) = tokio::io::duplex(64 * 1024);
    let serving = tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(
        TokioIo::new(server),
        hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let (head, _ignored) = request.into_parts();
            let exchange = house.exchange(&head);
            let (contract, below) = Contract::of(head.uri.path()).unwrap();
            let response = house.door.respond(&exchange, PROXY, &head, contract, below);
            std::future::ready(Ok::<_, std::convert::Infallible>(response))
        }),
    ));
    let ask = traefik("POST", "/orders", GOOD).replace("GET /", "POST /");
    let ask = ask.lines().map(str::trim).collect::<Vec<_>>().join("\r\n");
    let (mut from, mut to) = tokio::io::split(client);
    for content in ["hello", ""] {
        let asked = format!("{ask}\r\nContent-Length: {}\r\n\r\n{content}", content.len());
        to.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = vec![];
        while !answer.ends_with(b"\r\n\r\n") {
            assert_ne!(from.read_buf(&mut answer).await.unwrap(), 0, "the connection is closed");
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
    serving.abort();
}

#[test]
fn headers_are_read_by_their_exact_names_alone() {
    let names: HeaderMap = head(&traefik("GET", "/orders", GOOD)).headers;
    assert!(names.contains_key("x-forwarded-uri"));
    let house = House::new();
    // A client's look-alikes come through Caddy, Envoy and Traefik. They neither say anything nor contradict anything.
    let alike = format!("X_Forwarded_Uri: /any\nX.Forwarded.Uri: /any\nX-Forwarded_Method: DELETE\n{GOOD}");
    assert_eq!(house.verdict(&traefik("GET", "/orders", &alike)), (200, None));
    let alone = traefik("GET", "/orders", GOOD).replace("X-Forwarded-Uri", "X_Forwarded_Uri");
    assert_eq!(house.verdict(&alone), (403, Some("original_request")));
}
