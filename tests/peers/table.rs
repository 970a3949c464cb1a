//! What must hold with every proxy.

mod limits;

use std::time::{Duration, Instant};

use keybearer::cli::examples::Values;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::api::{ANSWER, Api, Seen};
use crate::caller::{Caller, LONG};
use crate::client::{Answer, BOTH, Http};
use crate::keybearer::Keybearer;
use crate::program::find;
use crate::proxies::{Kind, Proxy};

const IDENTITY: [&str; 5] = ["x-auth-subject", "x-auth-key-id", "x-auth-groups", "x-auth-token-id", "x-auth-expires"];

/// What a client says of itself in vain. Every value has a mark that must not be found behind the proxy.
const LIES: &[&str] = &[
    "X-Auth-Subject: spoofed",
    "x-auth-subject: spoofed",
    "X_Auth_Subject: spoofed",
    "x.auth.subject: spoofed",
    "X-AUTH-GROUPS: spoofed",
    "X_AUTH_GROUPS: spoofed",
    "X-Auth_Key.Id: spoofed",
    "X-Auth-Key-Id: spoofed",
    "X-Auth-Token-Id: spoofed",
    "X-Auth-Expires: spoofed",
    "X-Auth-Reason: spoofed",
    "X-Auth-Status: spoofed",
    "X-Forwarded-Uri: /reports/spoofed",
    "X-Forwarded-Method: spoofed",
    "X-Forwarded-Host: spoofed.example",
    "X-Forwarded-Proto: spoofed",
    "X-Forwarded-For: 203.0.113.9",
    "X-Original-URI: /reports/spoofed",
    "X-Original-URL: https://spoofed.example/reports/1",
    "X-Original-Method: spoofed",
    "X-Real-IP: 203.0.113.9",
    "Forwarded: for=203.0.113.9;host=spoofed.example",
];

struct Case {
    kind: Kind,
    keybearer: Keybearer,
    api: Api,
    caller: Caller,
    _proxy: Proxy,
}

/// Runs the whole table through one proxy.
pub async fn play(kind: Kind) {
    let Some(program) = find(kind.program()) else { return };
    let (keybearer, api) = (Keybearer::start(kind).await, Api::start().await);
    let values = Values { api: api.address, ..keybearer.values() };
    let proxy = Proxy::start(kind, &program, &values).await;
    let caller = Caller::new(proxy.port, &proxy.certificate);
    assert_eq!(caller.first("/orders/1", "no.such.token").await.status, 401, "{kind:?}");
    let case = Case { kind, keybearer, api, caller, _proxy: proxy };
    case.refuses().await;
    case.lets_through().await;
    case.believes_no_client().await;
    case.carries_content().await;
    case.passes_websockets_on().await;
    case.passes_no_other_upgrade_on().await;
    case.keeps_connections().await;
    case.passes_the_limit_on().await;
    case.passes_quotas_on().await;
    case.tells_of_an_old_key().await;
    case.understands_the_longest_answer().await;
    case.revokes().await;
    case.without_an_answer().await;
}

/// What goes wrong with a good token where the proxy cannot know whom it asks: the certificate is from another authority,
/// or for another name.
pub async fn impostors(kind: Kind) -> Vec<String> {
    let Some(program) = find(kind.program()) else { return vec![] };
    let (keybearer, api) = (Keybearer::start(kind).await, Api::start().await);
    let token = keybearer.good().await;
    let stranger = tempfile::NamedTempFile::new().expect("a file");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(stranger.path(), made.cert.pem()).expect("a file");
    let known = Values { api: api.address, ..keybearer.values() };
    let distrusted = Values { authority: stranger.path().to_owned(), ..known.clone() };
    let misnamed = Values { name: "keybearer.invalid".into(), ..known };
    let mut wrong = Vec::new();
    for (what, values) in [("another authority", distrusted), ("another name", misnamed)] {
        let proxy = Proxy::start(kind, &program, &values).await;
        let answer = Caller::new(proxy.port, &proxy.certificate).first("/orders/1", &token).await;
        if answer.status < 500 || !api.take().is_empty() {
            wrong.push(format!("{kind:?}, {what}: {answer:?}"));
        }
    }
    wrong
}

impl Case {
    async fn refuses(&self) {
        let narrow = self.keybearer.narrow().await;
        for http in BOTH {
            let ask = async |path: &str, token: &str| {
                let authorization = format!("Bearer {token}");
                let with: &[(&str, &str)] = if token.is_empty() { &[] } else { &[("authorization", &authorization)] };
                self.caller.send(http, "GET", path, with, &[]).await
            };
            let answer = ask("/orders/1", "").await;
            self.assert_refused(&answer, 401);
            let challenge = self.challenge(&answer);
            assert!(challenge.starts_with("Bearer realm=\"keybearer\", resource_metadata=\"https://"), "{challenge}");

            let answer = ask("/orders/1", "not.a.token").await;
            self.assert_refused(&answer, 401);
            assert!(self.challenge(&answer).contains("error=\"invalid_token\""), "{answer:?}");

            let answer = ask("/orders/1", &narrow).await;
            self.assert_refused(&answer, 403);
            assert!(self.challenge(&answer).contains("error=\"insufficient_scope\""), "{answer:?}");

            self.assert_refused(&ask("/nothing/here", "").await, 401);
            self.assert_refused(&ask("/nothing/here", &narrow).await, 403);
            self.nothing_reached_the_api("a refusal");
        }
        // A path that could be read in two ways: for one reader an order, for another /admin.
        let good = self.keybearer.good().await;
        for path in ["/orders/..%2fadmin", "/orders/%2e%2e/reports/1", "/orders/..%5cadmin", "/orders/1%00"] {
            let lines = [format!("Authorization: Bearer {good}")];
            let status = self.caller.raw(&format!("GET {path} HTTP/1.1"), &lines).await;
            // Traefik turns %2e%2e into a step up before it asks, and the API gets what was asked about.
            if self.kind == Kind::Traefik && status == 200 {
                assert_eq!(self.only_seen().target, "/reports/1");
                continue;
            }
            assert!((400..500).contains(&status), "{:?}: {path}: {status}", self.kind);
            self.nothing_reached_the_api(path);
        }
    }

    async fn lets_through(&self) {
        let token = self.keybearer.good().await;
        for http in BOTH {
            let authorization = format!("Bearer {token}");
            let with = [("authorization", authorization.as_str())];
            let path = "/orders/a%20b?x=1&y=%2F..%2f&z=/a//b";
            let answer = self.caller.send(http, "GET", path, &with, &[]).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, ANSWER), "{:?}: {answer:?}", self.kind);
            let seen = self.only_seen();
            assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", path), "as it was sent");
            self.assert_identity(&seen.headers, &token);

            let answer = self.caller.send(http, "HEAD", "/orders/1", &with, &[]).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{:?}", self.kind);
            assert_eq!(self.only_seen().method, "HEAD");
        }
        // A token that was got with a password has no key: the header is empty, or not there.
        let narrow = self.keybearer.narrow().await;
        assert_eq!(self.caller.get("/reports/1", &narrow).await.status, 200);
        self.assert_identity(&self.only_seen().headers, &narrow);
    }

    async fn believes_no_client(&self) {
        let (good, narrow) = (self.keybearer.good().await, self.keybearer.narrow().await);
        let lines = |token: &str| {
            let lies = LIES.iter().map(ToString::to_string);
            lies.chain([format!("Authorization: Bearer {token}")]).collect::<Vec<_>>()
        };
        let status = self.caller.raw("GET /orders/1 HTTP/1.1", &lines(&good)).await;
        assert_eq!(status, 200, "{:?}", self.kind);
        self.assert_identity(&self.only_seen().headers, &good);
        // The same over HTTP/2, where names are in lower case.
        let authorization = format!("Bearer {good}");
        let mut with: Vec<(&str, &str)> = LIES.iter().map(|line| line.split_once(": ").expect("a line")).collect();
        with.push(("authorization", &authorization));
        assert_eq!(self.caller.send(Http::Two, "GET", "/orders/1", &with, &[]).await.status, 200, "{:?}", self.kind);
        self.assert_identity(&self.only_seen().headers, &good);

        // Bob may see reports, by GET and HEAD. He says that is what this is.
        for request in ["GET /orders/1 HTTP/1.1", "POST /reports/1 HTTP/1.1"] {
            let mut lines = lines(&narrow);
            lines.extend(["X-Forwarded-Method: GET".to_owned(), "X-Original-Method: GET".to_owned()]);
            lines.extend(["X-HTTP-Method-Override: GET".to_owned(), "Content-Length: 0".to_owned()]);
            assert_eq!(self.caller.raw(request, &lines).await, 403, "{:?}: {request}", self.kind);
            self.nothing_reached_the_api(request);
        }
        // What Connection names is removed between hops (RFC 9110 §7.6.1), and that must not be the identity.
        let hop = [format!("Authorization: Bearer {good}"), "Connection: x-auth-subject, x-auth-groups".to_owned()];
        assert_eq!(self.caller.raw("GET /orders/1 HTTP/1.1", &hop).await, 200, "{:?}", self.kind);
        self.assert_identity(&self.only_seen().headers, &good);
    }

    async fn carries_content(&self) {
        let token = self.keybearer.good().await;
        let content: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[0]).collect();
        for http in BOTH {
            let authorization = format!("Bearer {token}");
            let with = [("authorization", authorization.as_str())];
            let answer = self.caller.send(http, "POST", "/orders/1", &with, &content).await;
            assert_eq!(answer.status, 200, "{:?}: {answer:?}", self.kind);
            let seen = self.only_seen();
            assert!(seen.method == "POST" && seen.content == content, "{:?}: {} bytes", self.kind, seen.content.len());
        }
        // Refused before it is sent: an answer comes although no content does.
        let lines = ["Content-Length: 1048576".to_owned(), "Expect: 100-continue".to_owned()];
        assert_eq!(self.caller.raw("POST /orders/1 HTTP/1.1", &lines).await, 401, "{:?}", self.kind);
        self.nothing_reached_the_api("content without a token");
    }

    /// The request that begins a WebSocket (RFC 6455 §4.1) is judged like any other; here the API declines.
    async fn passes_websockets_on(&self) {
        let token = self.keybearer.good().await;
        let upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"].map(str::to_owned);
        let mut lines = upgrade.to_vec();
        lines.push("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==".to_owned());
        assert_eq!(self.caller.raw("GET /orders/live HTTP/1.1", &lines).await, 401, "{:?}", self.kind);
        self.nothing_reached_the_api("a WebSocket without a token");
        lines.push(format!("Authorization: Bearer {token}"));
        assert_eq!(self.caller.raw("GET /orders/live HTTP/1.1", &lines).await, 200, "{:?}", self.kind);
        let seen = self.only_seen();
        assert_eq!(
            seen.headers.get("upgrade").map(http::HeaderValue::as_bytes),
            Some(&b"websocket"[..]),
            "{:?}",
            self.kind
        );
        self.assert_identity(&seen.headers, &token);
    }

    /// Who speaks HTTP/2 to the API through the proxy (RFC 7540 §3.2) asks it for whatever it likes: after the first request
    /// the proxy sees no other, and nobody is asked about them.
    async fn passes_no_other_upgrade_on(&self) {
        let token = self.keybearer.good().await;
        for protocol in ["h2c", "H2C", "foo"] {
            let lines = [
                format!("Upgrade: {protocol}"),
                "Connection: Upgrade, HTTP2-Settings".to_owned(),
                "HTTP2-Settings: AAMAAABkAAQAAP__".to_owned(),
                format!("Authorization: Bearer {token}"),
            ];
            let status = self.caller.raw("GET /orders/1 HTTP/1.1", &lines).await;
            for seen in self.api.take() {
                let passed = ["upgrade", "http2-settings"].map(|name| seen.headers.get(name));
                assert_eq!(passed, [None, None], "{:?} {protocol}: {status}", self.kind);
            }
        }
    }

    async fn keeps_connections(&self) {
        const REQUESTS: usize = 50;
        // Every worker of a proxy has connections of its own.
        const FEW: usize = 8;
        let token = self.keybearer.good().await;
        let before = self.keybearer.relay.accepted();
        for n in 0..REQUESTS {
            assert_eq!(self.caller.get(&format!("/orders/{n}"), &token).await.status, 200, "{:?}: {n}", self.kind);
        }
        assert_eq!(self.api.take().len(), REQUESTS);
        let opened = self.keybearer.relay.accepted() - before;
        assert!(opened <= FEW, "{:?} opened {opened} connections for {REQUESTS} questions", self.kind);
    }

    async fn revokes(&self) {
        let token = self.keybearer.good().await;
        assert_eq!(self.caller.get("/orders/1", &token).await.status, 200, "{:?}", self.kind);
        self.only_seen();
        self.keybearer.revoke().await;
        let answer = self.caller.get("/orders/1", &token).await;
        self.assert_refused(&answer, 401);
        assert!(self.challenge(&answer).contains("error=\"invalid_token\""), "{answer:?}");
        self.nothing_reached_the_api("a revoked key");
    }

    async fn without_an_answer(mut self) {
        let token = self.keybearer.narrow().await;
        assert_eq!(self.caller.get("/reports/1", &token).await.status, 200, "{:?}", self.kind);
        self.only_seen();
        if !self.kind.by_socket() {
            self.keybearer.relay.cut().await;
            self.refuses_without_an_answer(&token).await;
            self.keybearer.relay.mend().await;
            let began = Instant::now();
            while self.caller.get("/reports/1", &token).await.status != 200 {
                assert!(began.elapsed() < LONG, "{:?} does not come back", self.kind);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            self.api.take();
        }
        self.keybearer.stop().await;
        self.refuses_without_an_answer(&token).await;
    }

    async fn refuses_without_an_answer(&self, token: &str) {
        let answer = self.caller.get("/reports/1", token).await;
        assert!(answer.status >= 500, "{:?}: {answer:?}", self.kind);
        self.nothing_reached_the_api("a request without a decision");
    }

    fn assert_refused(&self, answer: &Answer, status: u16) {
        assert_eq!(answer.status, status, "{:?}: {answer:?}", self.kind);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{:?}: {answer:?}", self.kind);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{:?}: {answer:?}", self.kind);
        assert_eq!(answer.json()["status"], status, "{:?}: {answer:?}", self.kind);
    }

    fn challenge<'a>(&self, answer: &'a Answer) -> &'a str {
        let challenges = answer.headers.get_all("www-authenticate").iter().count();
        assert_eq!(challenges, 1, "{:?}: {answer:?}", self.kind);
        answer.header("www-authenticate").unwrap_or_default()
    }

    fn nothing_reached_the_api(&self, what: &str) {
        let seen = self.api.take();
        assert!(seen.is_empty(), "{:?}: {what}: {seen:#?}", self.kind);
    }

    #[track_caller]
    fn only_seen(&self) -> Seen {
        let mut seen = self.api.take();
        assert_eq!(seen.len(), 1, "{:?}: one request reached the API: {seen:#?}", self.kind);
        seen.remove(0)
    }

    /// The API sees who it is, as the token says, and nothing that a client said.
    #[track_caller]
    fn assert_identity(&self, headers: &HeaderMap, token: &str) {
        let kind = self.kind;
        let claims = Keybearer::claims(token);
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let client = text(&claims["client_id"]);
        let key = if client.starts_with("kb_") { client.as_str() } else { "" };
        let expected =
            [text(&claims["sub"]), key.to_owned(), String::new(), text(&claims["jti"]), text(&claims["exp"])];
        for (name, expected) in IDENTITY.into_iter().zip(expected) {
            let values: Vec<_> = headers.get_all(name).iter().collect();
            assert!(values.len() <= 1, "{kind:?}: {name} once: {headers:?}");
            let value = values.first().map_or("", |value| value.to_str().expect("ASCII"));
            if name == "x-auth-groups" {
                let mut groups: Vec<&str> = value.split(',').collect();
                groups.sort_unstable();
                let mut licensed: Vec<String> = claims["groups"].as_array().into_iter().flatten().map(&text).collect();
                licensed.sort_unstable();
                assert_eq!(groups, licensed, "{kind:?}");
            } else {
                assert_eq!(value, expected, "{kind:?}: {name}");
            }
        }
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            assert!(!value.contains("spoofed") && !value.contains("203.0.113.9"), "{kind:?}: {name}: {value}");
            // As an application would read the name that turns it into a variable.
            let read = name.as_str().replace(['_', '.'], "-");
            let is_ours = read.starts_with("x-auth-");
            assert!(!is_ours || IDENTITY.contains(&name.as_str()), "{kind:?}: a look-alike reached the API: {name}");
        }
        assert!(!headers.contains_key("authorization"), "{kind:?}: the token reached the API");
        // Traefik has a word of its own for a WebSocket over TLS.
        let proto = headers.get("x-forwarded-proto").map(http::HeaderValue::as_bytes);
        assert!(matches!(proto, Some(b"https" | b"wss")), "{kind:?}: {headers:?}");
    }
}
