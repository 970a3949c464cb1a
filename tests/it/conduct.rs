//! The conduct of an HTTP server: what is malformed or too large is refused, and every answer has what it must have.

use crate::client::{BOTH, Http};
use crate::gateway::TestGateway;
use crate::wire::{Wire, exchange};

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A POST of the whole declared length, or of less.
pub fn post(token: &str, declared: usize, sent: &str) -> String {
    format!(
        "POST /demo/echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: {declared}\r\n\r\n{sent}"
    )
}

pub async fn status(gateway: &TestGateway, request: impl AsRef<[u8]>) -> Option<u16> {
    exchange(gateway, request).await.map(|raw| raw.status)
}

/// RFC 9112 §3.2: one Host, and a good one.
#[tokio::test]
async fn the_host_must_be_there_once_and_well_formed() {
    let gateway = TestGateway::start().await;
    let with = |hosts: &str| format!("GET /health/live HTTP/1.1\r\n{hosts}\r\n");
    for good in ["Host: localhost\r\n", "Host: localhost:8443\r\n", "host: [::1]:8443\r\n", "HOST: a.example\r\n"] {
        assert_eq!(status(&gateway, with(good)).await, Some(200), "{good:?}");
    }
    for bad in [
        "",
        "Host: \r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a b\r\n",
        "Host: a, b\r\n",
        "Host: user@a\r\n",
        "Host: a/b\r\n",
        "Host: a:x\r\n",
        "Host: a:99999\r\n",
        "Host: [::1\r\n",
        "Host: http://a\r\n",
        "Host: \u{e4}\r\n",
    ] {
        assert_eq!(status(&gateway, with(bad)).await, Some(400), "{bad:?}");
    }
    assert_eq!(status(&gateway, "GET /health/live HTTP/1.0\r\n\r\n").await, Some(200), "HTTP/1.0 has none");
    let other = gateway.get("/health/live").header("host", "other.example").over(Http::Two).await;
    assert_eq!(other.status, 400, "in HTTP/2 it must be the :authority: {other:?}");
}

/// Two readers could take either, on any path.
#[tokio::test]
async fn a_doubled_authorization_is_refused() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    for path in ["/whoami", "/demo/time", "/nothing", "/health/live"] {
        for http in BOTH {
            let answer = gateway.get(path).bearer(&token).bearer(&token).over(http).await;
            answer.problem(400, "malformed-request");
            let other = gateway.get(path).bearer(&token).basic("acme", "open sesame").over(http).await;
            assert_eq!(other.status, 400, "{path}");
        }
    }
}

/// What could be read in two ways is no path here.
#[tokio::test]
async fn ambiguous_paths_are_refused() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    for path in [
        "/demo/../sample/x",
        "/demo/%2e%2e/sample/x",
        "/demo/.%2E/sample/x",
        "/./demo/time",
        "/demo//time",
        "//demo/time",
        "/demo%2ftime",
        "/demo%2Ftime",
        "/demo\\time",
        "/demo%5ctime",
        "/demo/time%00",
        "/demo/time%0a",
        "/demo/time%",
        "/demo/time%zz",
        "*",
    ] {
        for authorization in [String::new(), format!("Authorization: Bearer {token}\r\n")] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n");
            assert_eq!(status(&gateway, request).await, Some(400), "{path}");
        }
    }
    // One path has one meaning however it is spelled, and it is the guarded one.
    for path in ["/%64emo/time", "/demo/tim%65"] {
        assert_eq!(status(&gateway, get(path)).await, Some(401), "{path}");
        assert_eq!(gateway.get(path).bearer(&token).await.status, 200, "{path}");
    }
}

/// Requests that are no HTTP, or leave open where they end, are refused and the connection closes.
#[tokio::test]
async fn requests_without_a_clear_end_are_refused() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let post = |headers: &str, body: &str| {
        format!(
            "POST /demo/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{headers}\r\n{body}GET /demo/time HTTP/1.1\r\nHost: x\r\n\r\n"
        )
    };
    for (what, request) in [
        ("two lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello")),
        ("no number", post("Content-Length: +5\r\n", "hello")),
        ("an encoding we do not know", post("Transfer-Encoding: gzip\r\n", "")),
        ("chunked not last", post("Transfer-Encoding: chunked, gzip\r\n", "")),
        ("a blank before the colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")),
        ("no HTTP", "hello\r\n\r\n".into()),
        ("a blank in the path", "GET /demo time HTTP/1.1\r\nHost: x\r\n\r\n".into()),
        ("another version", "GET / HTTP/3.7\r\nHost: x\r\n\r\n".into()),
        ("NUL in a header", "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n".into()),
    ] {
        let mut wire = Wire::open(&gateway).await;
        wire.send(&request).await;
        let first = wire.answer().await;
        assert_eq!(first.as_ref().map(|raw| raw.status), Some(400), "{what}: {first:?}");
        let next = wire.answer().await;
        assert_eq!(next, None, "{what}: what follows is not taken for a request");
    }
}

/// RFC 9112 §6.1: of length and encoding the encoding holds, the length reaches nobody behind us, and the connection closes.
#[tokio::test]
async fn a_length_beside_an_encoding_smuggles_nothing() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let (length, encoding) = ("Content-Length: 6\r\n", "Transfer-Encoding: chunked\r\n");
    for headers in [[length, encoding], [encoding, length]].map(|lines| lines.concat()) {
        let head = format!("POST /demo/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{headers}\r\n");
        let mut wire = Wire::open(&gateway).await;
        wire.send(format!("{head}0\r\n\r\n{}", get("/demo/time"))).await;
        let answer = wire.answer().await.expect("an answer");
        let refused = answer.status == 400;
        let as_chunked =
            answer.status == 200 && answer.body.contains("\"bytes\": 0") && !answer.body.contains("length");
        assert!(refused || as_chunked, "{answer:?}");
        assert_eq!(wire.answer().await, None, "what follows is not taken for a request");
    }
}

/// Whatever the answer is, it has these headers, and not those.
#[tokio::test]
async fn every_answer_has_the_headers_that_every_answer_has() {
    let gateway = TestGateway::start().await;
    gateway.group("other", None).await;
    gateway.account("small", Some("password")).await;
    gateway.licence("small", &["other"], None).await;
    let token = gateway.get("/token").basic("small", "password").await.token();
    for http in BOTH {
        let answers = [
            (200, gateway.get("/health/live").over(http).await),
            (200, gateway.get("/whoami").bearer(&token).over(http).await),
            (200, gateway.get("/token").basic("small", "password").over(http).await),
            (400, gateway.get("/token").over(http).await),
            (400, gateway.get("/demo%2ftime").over(http).await),
            (401, gateway.get("/token").basic("small", "wrong").over(http).await),
            (401, gateway.get("/whoami").over(http).await),
            (401, gateway.get("/nothing").bearer("x").over(http).await),
            (403, gateway.get("/sample").bearer(&token).over(http).await),
            (404, gateway.get("/nothing").bearer(&token).over(http).await),
            (405, gateway.post("/").over(http).await),
            (413, gateway.post("/demo/echo").bearer(&token).body(vec![b'x'; 65 * 1024]).over(http).await),
            (431, gateway.get("/").header("x-large", "x".repeat(33 * 1024)).over(http).await),
        ];
        let mut numbers = Vec::new();
        for (status, answer) in &answers {
            assert_eq!(answer.status, *status, "{answer:?}");
            assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000"), "{status}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{status}");
            for absent in ["server", "x-powered-by", "via", "access-control-allow-origin"] {
                assert_eq!(answer.header(absent), None, "{status}");
            }
            numbers.push(answer.header("x-request-id").expect("a number").to_owned());
            if *status >= 400 {
                answer.problem(*status, answer.json()["type"].as_str().expect("a type").rsplit(':').next().unwrap());
            }
        }
        numbers.sort();
        numbers.dedup();
        assert_eq!(numbers.len(), answers.len(), "each request has a number of its own");
    }
    let own = gateway.get("/health/live").header("x-request-id", "0123456789abcdef").await;
    assert_ne!(own.header("x-request-id"), Some("0123456789abcdef"), "a client does not choose it");
}

#[tokio::test]
async fn large_header_sections_are_refused() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let fitting = "x".repeat(30 * 1024);
    for http in BOTH {
        assert_eq!(gateway.get("/whoami").bearer(&token).header("x-large", &fitting).over(http).await.status, 200);
        let over = gateway.get("/whoami").bearer(&token).header("x-large", "x".repeat(33 * 1024)).over(http).await;
        over.problem(431, "headers-too-large");
        // 16 KiB of Basic are no header section too large, but nobody's credentials.
        let basic = gateway.get("/token").basic("user", &"x".repeat(12 * 1024)).over(http).await;
        basic.problem(400, "credentials-not-specified");
        // A token over 8 KiB that fits in the header section is no token.
        gateway.get("/whoami").bearer("x".repeat(16 * 1024)).over(http).await.assert_invalid_token();
    }
    // Many small lines count as well.
    let lines: String = (0..90).map(|n| format!("x-{n}: {}\r\n", "y".repeat(400))).collect();
    assert_eq!(status(&gateway, format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n")).await, Some(431));
    let paths = format!("/{}", "p".repeat(40 * 1024));
    assert!(matches!(status(&gateway, get(&paths)).await, Some(414 | 431)));
    // A megabyte is not even read to its end.
    let huge = format!("GET /whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", "x".repeat(1 << 20));
    assert_eq!(status(&gateway, huge).await, Some(431));
    assert_eq!(gateway.get("/whoami").bearer(&token).await.status, 200, "and all is well");
}

#[tokio::test]
async fn large_content_is_refused() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    for http in BOTH {
        let most = gateway.post("/demo/echo").bearer(&token).body(vec![b'x'; 64 * 1024]).over(http).await;
        assert_eq!(most.json()["content"]["bytes"], 64 * 1024);
        let over = gateway.post("/demo/echo").bearer(&token).body(vec![b'x'; 64 * 1024 + 1]).over(http).await;
        over.problem(413, "content-too-large");
    }
    // It is refused by what is announced, before it is sent; and by what comes, when nothing is announced.
    assert_eq!(status(&gateway, post(&token, 1 << 30, "")).await, Some(413));
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let chunked = format!(
        "POST /demo/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}"
    );
    assert_eq!(status(&gateway, chunked).await, Some(413));
    // Without a token nobody's content is waited for.
    let anonymous = "POST /demo/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n";
    assert_eq!(status(&gateway, anonymous).await, Some(401));
}

/// RFC 9112 §9.6: whoever writes all of a request before it reads must be able to read the answer. A little of what is not
/// wanted is taken in for it.
#[tokio::test]
async fn a_refusal_does_not_cut_the_connection_under_what_is_still_written() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let mut wire = Wire::open(&gateway).await;
    for (token, path, length, status) in [
        (token.as_str(), "/demo/echo", 64 * 1024 + 1, 413),
        (token.as_str(), "/demo/echo", 1024 * 1024, 413),
        ("nonsense", "/demo/echo", 1024 * 1024, 401),
        ("nonsense", "/demo/%2fecho", 1024 * 1024, 400),
        ("nonsense", "/token", 1024 * 1024, 400),
    ] {
        wire.send(post(token, length, &"x".repeat(length)).replacen("/demo/echo", path, 1)).await;
        assert_eq!(wire.answer().await.map(|raw| raw.status), Some(status), "{path} {length}");
    }
    wire.send(get("/health/live")).await;
    assert_eq!(wire.answer().await.map(|raw| raw.status), Some(200), "on the same connection");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let mut wire = Wire::open(&gateway).await;
    wire.send([get("/health/live"), get("/whoami"), post(&token, 5, "hello"), get("/health/ready")].concat()).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(wire.answer().await.map(|raw| raw.status));
    }
    assert_eq!(statuses, [Some(200), Some(401), Some(200), Some(200)]);
}

/// RFC 9110 §10.1.1: who waits for a 100 gets it where the content is wanted, and a final answer where it is not.
#[tokio::test]
async fn expect_100_continue_is_understood() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let mut wire = Wire::open(&gateway).await;
    let expecting = |token: &str| post(token, 5, "").replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    wire.send(expecting(&token)).await;
    assert_eq!(wire.answer().await.map(|raw| raw.status), Some(100));
    wire.send("hello").await;
    let answer = wire.answer().await.expect("an answer");
    assert!(answer.status == 200 && answer.body.contains("\"hello\""), "{answer:?}");
    let mut wire = Wire::open(&gateway).await;
    wire.send(expecting("nonsense")).await;
    assert_eq!(wire.answer().await.map(|raw| raw.status), Some(401));
}

#[tokio::test]
async fn head_has_no_content_on_the_wire() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(["HEAD /health/live HTTP/1.1\r\nHost: x\r\n\r\n", &get("/health/live")].concat()).await;
    let head = wire.answer_to("HEAD").await.expect("an answer");
    let get = wire.answer().await.expect("an answer");
    assert_eq!(head.header("content-length"), get.header("content-length"));
    assert_eq!(get.body.len().to_string(), get.header("content-length").expect("a length"));
}
