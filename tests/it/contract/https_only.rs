//! §3 HTTPS only.

use std::time::Duration;

use keybearer::keys::{ApiKey, KeyPrefix};
use keybearer::server::{ForwardedHeader, PlaintextCredentials};

use crate::client::basic;
use crate::gateway::TestGateway;
use crate::wire::Wire;

/// What a request in the clear is answered, byte for byte.
async fn in_the_clear(gateway: &TestGateway, request: &str) -> Vec<u8> {
    let mut wire = Wire::open_plain(gateway).await;
    wire.send(request).await;
    wire.rest().await
}

fn request(path: &str, authorization: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n")
}

/// Waits, in real time, until a counter has this value: what came in the clear is looked at after it was answered.
async fn until_metric(gateway: &TestGateway, line: &str, value: f64) {
    for _ in 0..500 {
        if gateway.metric(line).await == value {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{line} is {}, not {value}", gateway.metric(line).await);
}

/// §3: one fixed 400, never a redirect, the connection closes, and nothing in it depends on the request.
#[tokio::test]
async fn a_request_in_the_clear_gets_one_fixed_answer_for_good_and_bad_keys() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    let unknown = ApiKey::generate(&KeyPrefix::default());
    let requests = [
        request("/token", &basic(key.secret().expose(), "")),
        request("/token", &basic(unknown.secret().expose(), "")),
        request("/token", &basic("acme", "open sesame")),
        request("/token", "Basic *"),
        request("/whoami", &format!("Bearer {token}")),
        request("/nothing", "Bearer x"),
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc".into(),
        "GET http://evil.example/ HTTP/1.0\r\n\r\n".into(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
        "\r\n\r\n".into(),
    ];
    let expected = in_the_clear(&gateway, &requests[0]).await;
    let text = String::from_utf8(expected.clone()).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(!head.contains("location:"), "no redirect: {head}");
    assert!(head.contains("content-type: application/problem+json") && head.contains("connection: close"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    let problem: serde_json::Value = serde_json::from_str(body).expect("a problem");
    assert_eq!(problem["type"], "urn:keybearer:problem:https-required");
    assert_eq!(problem["status"], 400);
    for request in &requests {
        assert!(in_the_clear(&gateway, request).await == expected, "{request:?}");
    }
    let no_http = in_the_clear(&gateway, "hello\r\n\r\n").await;
    assert!(no_http == expected, "whatever it is");
    // The admin listener is no other.
    assert_eq!(gateway.token_call(&key).await.status, 200, "by HTTPS the key still works: the policy is to report");
}

/// §3: the same answer when the client closes its half at once, as some do.
#[tokio::test]
async fn half_closed_requests_in_the_clear_are_answered_too() {
    let gateway = TestGateway::start().await;
    let expected = in_the_clear(&gateway, "GET / HTTP/1.1\r\n\r\n").await;
    assert!(expected.starts_with(b"HTTP/1.1 400 "));
    let stream = tokio::net::TcpStream::connect(gateway.https()).await.expect("a connection");
    let (mut from, mut to) = stream.into_split();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    to.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.expect("sent");
    to.shutdown().await.expect("closed");
    let mut answer = Vec::new();
    from.read_to_end(&mut answer).await.expect("read");
    assert!(answer == expected);
}

/// §3: a key sent in the clear is counted as exposed; the policy "report" leaves it as it is.
#[tokio::test]
async fn exposed_credentials_are_counted_by_what_they_are() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    let count = |what: &str| format!("keybearer_exposed_credentials_total{{credential=\"{what}\"}}");
    in_the_clear(&gateway, &request("/token", &basic(key.secret().expose(), ""))).await;
    until_metric(&gateway, &count("key"), 1.0).await;
    in_the_clear(&gateway, &request("/token", &basic("acme", "open sesame"))).await;
    until_metric(&gateway, &count("password"), 1.0).await;
    in_the_clear(&gateway, &request("/whoami", &format!("Bearer {token}"))).await;
    until_metric(&gateway, &count("token"), 1.0).await;
    in_the_clear(&gateway, &request("/token", &basic("acme", "wrong"))).await;
    until_metric(&gateway, &count("none"), 1.0).await;
    assert_eq!(gateway.metric("keybearer_plaintext_requests_total").await, 4.0);
    assert_eq!(gateway.token_call(&key).await.status, 200);
    assert_eq!(gateway.get("/whoami").bearer(&token).await.status, 200);
    assert_eq!(gateway.get("/token").basic("acme", "open sesame").await.status, 200);
}

async fn revoking() -> TestGateway {
    let build = TestGateway::build();
    build.with(|config| config.server.plaintext_credentials = PlaintextCredentials::Revoke).start().await
}

/// §3: by the policy "revoke" an exposed key is dead, and so are its tokens.
#[tokio::test]
async fn an_exposed_key_is_revoked_with_its_tokens() {
    let gateway = revoking().await;
    let (key, other) = (gateway.acme().await, gateway.key("acme").await);
    let (token, others) = (gateway.token(&key).await, gateway.token(&other).await);
    in_the_clear(&gateway, &request("/token", &basic(key.secret().expose(), ""))).await;
    until_metric(&gateway, "keybearer_revocations", 1.0).await;
    gateway.token_call(&key).await.problem(401, "invalid-credentials");
    gateway.get("/whoami").bearer(&token).await.assert_invalid_token();
    assert_eq!(gateway.get("/whoami").bearer(&others).await.status, 200, "another key of the account is untouched");
    assert_eq!(gateway.token_call(&other).await.status, 200);
}

/// §3: an exposed password no longer works, nor the tokens it got.
#[tokio::test]
async fn an_exposed_password_is_revoked_with_its_tokens() {
    let gateway = revoking().await;
    gateway.acme().await;
    let token = gateway.get("/token").basic("acme", "open sesame").await.token();
    in_the_clear(&gateway, &request("/", &basic("acme", "open sesame"))).await;
    until_metric(&gateway, "keybearer_revocations", 1.0).await;
    gateway.get("/token").basic("acme", "open sesame").await.problem(401, "invalid-credentials");
    gateway.get("/whoami").bearer(&token).await.assert_invalid_token();
}

/// §3: an exposed token is dead; the key that got it is not.
#[tokio::test]
async fn an_exposed_token_is_revoked_alone() {
    let gateway = revoking().await;
    let key = gateway.acme().await;
    let (token, other) = (gateway.token(&key).await, gateway.token(&key).await);
    in_the_clear(&gateway, &request("/whoami", &format!("bearer {token}"))).await;
    until_metric(&gateway, "keybearer_revocations", 1.0).await;
    gateway.get("/whoami").bearer(&token).await.assert_invalid_token();
    assert_eq!(gateway.get("/whoami").bearer(&other).await.status, 200);
    assert_eq!(gateway.token_call(&key).await.status, 200);
}

/// §3: a client that keeps the connection open changes nothing about it.
#[tokio::test]
async fn an_exposed_key_is_revoked_even_if_the_client_stays_connected() {
    let build = TestGateway::build().with(|config| {
        config.server.plaintext_credentials = PlaintextCredentials::Revoke;
        config.limits.handshake_timeout = Duration::from_millis(200);
    });
    let gateway = build.start().await;
    let key = gateway.acme().await;
    let mut wire = Wire::open_plain(&gateway).await;
    wire.send(request("/token", &basic(key.secret().expose(), ""))).await;
    assert_eq!(wire.answer().await.map(|answer| answer.status), Some(400));
    until_metric(&gateway, "keybearer_revocations", 1.0).await;
    gateway.token_call(&key).await.problem(401, "invalid-credentials");
    drop(wire);
}

/// §3: ids are public, so that whoever sends one with a wrong secret must not revoke the right key. The demo key is public
/// altogether.
#[tokio::test]
async fn a_wrong_key_with_a_right_id_revokes_nothing_nor_does_the_demo_key() {
    let gateway = revoking().await;
    let key = gateway.acme().await;
    let body = format!("kb_{}_{}", key.id(), "A".repeat(32));
    let checksum = keybearer::random::to_base62(u64::from(crc32fast::hash(body.as_bytes())), 6);
    let wrong = ApiKey::parse(&KeyPrefix::default(), &format!("{body}{checksum}")).expect("a well-formed key");
    assert_eq!(wrong.id(), key.id());
    let none = "keybearer_exposed_credentials_total{credential=\"none\"}";
    let attempts = [
        basic(wrong.secret().expose(), ""),
        basic(&format!("kb_{}", key.id()), wrong.secret().expose()),
        basic(&format!("kb_{}", key.id()), "x"),
        basic(&format!("kb_{}", key.id()), ""),
        basic("acme", "wrong"),
        basic(key.secret().expose(), "with a password"),
    ];
    for (n, attempt) in attempts.iter().enumerate() {
        in_the_clear(&gateway, &request("/token", attempt)).await;
        until_metric(&gateway, none, (n + 1) as f64).await;
    }
    let demo = gateway.get("/demo").await.json();
    in_the_clear(&gateway, &request("/token", &basic(demo["key"].as_str().expect("a key"), ""))).await;
    until_metric(&gateway, "keybearer_exposed_credentials_total{credential=\"demo\"}", 1.0).await;
    let token = demo["token"].as_str().expect("a token");
    in_the_clear(&gateway, &request("/demo/time", &format!("Bearer {token}"))).await;
    until_metric(&gateway, "keybearer_exposed_credentials_total{credential=\"token\"}", 1.0).await;
    gateway.sync().await;
    assert_eq!(gateway.metric("keybearer_revocations").await, 0.0);
    assert_eq!(gateway.token_call(&key).await.status, 200);
    assert_eq!(gateway.get("/token").basic("acme", "open sesame").await.status, 200);
    assert_eq!(gateway.get("/demo/time").bearer(token).await.status, 200);
}

/// §3: behind a proxy, a request that came by HTTPS is served, with the client's address as the proxy tells it.
#[tokio::test]
async fn behind_a_trusted_proxy_https_is_served_and_http_is_not() {
    let gateway = TestGateway::build().behind_proxy(&["127.0.0.0/8"]).start().await;
    let key = gateway.acme().await;
    let token = gateway.by_proxy("/token").key(&key).header("x-forwarded-proto", "https").await.token();
    let echo = async |call: crate::client::Call<'_>| call.bearer(&token).await.json();
    let by = |path| gateway.by_proxy(path);

    let seen = echo(by("/demo/echo").header("x-forwarded-proto", "https").header("x-forwarded-for", "192.0.2.7")).await;
    assert_eq!(seen["client"], "192.0.2.7");
    let seen = echo(by("/demo/echo").header("forwarded", "for=\"[2001:db8::7]:1234\";proto=https")).await;
    assert_eq!(seen["client"], "2001:db8::7");
    // What the client itself put in front is not believed: the nearest hop that is no proxy of ours counts.
    let forged = by("/demo/echo")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-for", "10.9.9.9, 192.0.2.7, 127.0.0.9");
    assert_eq!(echo(forged).await["client"], "192.0.2.7");

    for (name, value) in [
        ("x-forwarded-proto", "http"),
        ("x-forwarded-proto", "https, http"),
        ("x-forwarded-proto", ""),
        ("x-forwarded-proto", "httpss"),
        ("forwarded", "for=192.0.2.7;proto=http"),
        ("forwarded", "for=192.0.2.7"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-scheme", "https"),
    ] {
        for answer in
            [by("/token").key(&key).header(name, value).await, by("/whoami").bearer(&token).header(name, value).await]
        {
            assert_eq!(answer.status, 400, "{name}: {value}");
            answer.problem(400, "https-required");
            assert_eq!(answer.header("location"), None);
        }
    }
    by("/token").key(&key).await.problem(400, "https-required");
    let both = by("/token").key(&key).header("x-forwarded-proto", "https").header("forwarded", "proto=http");
    both.await.problem(400, "https-required");
    let good = "keybearer_exposed_credentials_total{credential=\"key\"}";
    until_metric(&gateway, good, 10.0).await;
}

/// §3: where it is said which header the proxy writes, the other one is the client's and means nothing.
#[tokio::test]
async fn behind_a_proxy_that_writes_one_header_the_other_is_dropped() {
    let proxied = ("x-forwarded-proto", "https");
    for (header, good, forged) in [
        (ForwardedHeader::XForwarded, ("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=192.0.2.66;proto=http")),
        (ForwardedHeader::Forwarded, ("forwarded", "for=203.0.113.7;proto=https"), ("x-forwarded-for", "192.0.2.66")),
    ] {
        let build = TestGateway::build().behind_proxy(&["127.0.0.0/8"]);
        let build = build.with(|config| config.server.behind_proxy.as_mut().expect("a listener").header = header);
        let gateway = build.start().await;
        let token = gateway.token(&gateway.acme().await).await;
        let call = || gateway.by_proxy("/demo/echo").bearer(&token).header(forged.0, forged.1);
        let call_by_proxy = match header {
            ForwardedHeader::XForwarded => call().header(good.0, good.1).header(proxied.0, proxied.1),
            _ => call().header(good.0, good.1).header("x-forwarded-proto", "http"),
        };
        assert_eq!(call_by_proxy.await.json()["client"], "203.0.113.7", "{header:?}");
        call().await.problem(400, "https-required");
    }
}

/// §3: a peer that is not trusted is refused whatever it says.
#[tokio::test]
async fn behind_a_proxy_an_untrusted_peer_is_refused() {
    let gateway = TestGateway::build().behind_proxy(&["10.0.0.0/8", "192.0.2.0/24"]).start().await;
    let key = gateway.acme().await;
    let answers = [
        gateway.by_proxy("/token").key(&key).header("x-forwarded-proto", "https").await,
        gateway.by_proxy("/token").key(&key).header("forwarded", "for=10.0.0.1;proto=https").await,
        gateway.by_proxy("/health/live").header("x-forwarded-for", "10.0.0.1").await,
    ];
    let first = answers[0].problem(400, "https-required");
    for answer in &answers {
        assert_eq!(answer.problem(400, "https-required"), first, "the same for all");
    }
}

/// §3: X-Forwarded-* means nothing on a listener that ends TLS itself.
#[tokio::test]
async fn a_direct_listener_believes_no_forwarded_header() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let call = gateway.get("/demo/echo").bearer(&token);
    let answer = call
        .header("x-forwarded-for", "192.0.2.7")
        .header("x-forwarded-proto", "http")
        .header("forwarded", "for=192.0.2.8");
    assert_eq!(answer.await.json()["client"], "127.0.0.1");
}

/// §3: only TLS 1.2 and later.
#[tokio::test]
async fn old_tls_is_not_spoken() {
    let gateway = TestGateway::start().await;
    // A ClientHello of TLS 1.0 with one old cipher suite, as a client of that time sent it.
    let mut hello = vec![0x16, 3, 1, 0, 47, 1, 0, 0, 43, 3, 1];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0, 0x2f, 0, 0xff, 1, 0]);
    let mut wire = Wire::open_plain(&gateway).await;
    wire.send(&hello).await;
    let answer = wire.rest().await;
    assert_eq!(answer.first(), Some(&0x15), "an alert, and the end: {answer:?}");
}
