//! Messages as they pass in both directions: methods, content, trailers, statuses without content, interim answers, sizes.

use axum::body::Body;
use http::{Response, Version};

use super::caller::{Caller, feed, whole};
use super::raw::Raw;
use super::upstream::{Speaks, Upstream, settings};
use super::{Guarded, WAYS};
use crate::client::{BOTH, Http};
use crate::wire::Wire;

fn answered(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let builder = Response::builder().status(status);
    let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    builder.body(body.into()).expect("a response")
}

#[tokio::test]
async fn every_method_passes_with_its_content() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::start(speaks, |seen| {
            answered(201, &[("x-from", "upstream"), ("content-type", "text/plain")], seen.content.to_vec())
        })
        .await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = Caller::open(&guarded, http).await;
        for (method, content) in [
            ("GET", ""),
            ("POST", "some content"),
            ("PUT", "other content"),
            ("PATCH", "a change"),
            ("DELETE", ""),
            ("DELETE", "with content"),
            ("OPTIONS", ""),
            ("PROPFIND", "<propfind/>"),
        ] {
            let request = caller.request(method, "/api/some?a=b&c").body(Body::from(content)).unwrap();
            let answer = caller.answer(request).await;
            let case = format!("{method} by {http:?} to {speaks:?}: {answer:?}");
            assert_eq!((answer.status, answer.body.as_str()), (201, content), "{case}");
            assert_eq!(answer.header("x-from"), Some("upstream"), "{case}");
            assert_eq!(answer.header("content-type"), Some("text/plain"), "{case}");
            let seen = upstream.one();
            assert_eq!((seen.method.as_str(), seen.target.as_str()), (method, "/api/some?a=b&c"));
            assert_eq!((&seen.content[..], seen.is_whole), (content.as_bytes(), true), "{case}");
            let length = if content.is_empty() { None } else { Some(content.len().to_string()) };
            assert!(length.is_none() || seen.header("content-length") == length.as_deref(), "{case}: {seen:?}");
            assert!(!content.is_empty() || seen.header("transfer-encoding").is_none(), "{case}: {seen:?}");
            let version = if speaks == Speaks::Http1 { Version::HTTP_11 } else { Version::HTTP_2 };
            assert_eq!(seen.version, version);
        }
        guarded.is_at_rest().await;
    }
}

/// Whatever comes first, the target's connection serves the next request too.
#[tokio::test]
async fn one_connection_to_the_upstream_serves_many_requests() {
    for (http, speaks) in WAYS.into_iter().chain([(Http::Two, Speaks::Tls)]) {
        let upstream = Upstream::hello(speaks).await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        for _ in 0..3 {
            // Clients come and go; the connection stays.
            let mut caller = Caller::open(&guarded, http).await;
            for n in 0..10 {
                let request = match n % 3 {
                    0 => caller.get("/api/a").body(Body::empty()),
                    1 => caller.post("/api/a").body("content".into()),
                    _ => caller.request("HEAD", "/api/a").body(Body::empty()),
                };
                assert_eq!(caller.answer(request.unwrap()).await.status, 200);
            }
        }
        assert_eq!((upstream.accepted(), upstream.seen().len()), (1, 30), "by {http:?} to {speaks:?}");
    }
}

#[tokio::test]
async fn content_without_a_length_passes_piece_by_piece() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::start(speaks, |seen| {
            let (feeder, body) = feed();
            for part in seen.content.chunks(3) {
                feeder.data(part.to_vec());
            }
            answered(200, &[], body)
        })
        .await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = Caller::open(&guarded, http).await;
        let (feeder, body) = feed();
        for part in ["one", "two", "three"] {
            feeder.data(part);
        }
        drop(feeder);
        let request = caller.post("/api/a").body(body).unwrap();
        let answer = caller.answer(request).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "onetwothree"), "by {http:?} to {speaks:?}");
        assert_eq!(answer.header("content-length"), None);
        let seen = upstream.one();
        assert!(seen.is_whole);
        assert_eq!((&seen.content[..], seen.header("content-length")), (&b"onetwothree"[..], None));
        let chunked = (speaks == Speaks::Http1).then_some("chunked");
        assert_eq!(seen.header("transfer-encoding"), chunked, "it is the hop's own");
    }
}

/// RFC 9110 §6.5: trailers pass both ways, and what must not stand in them does not.
#[tokio::test]
async fn trailers_pass_and_cannot_say_what_a_head_must() {
    const TRAILERS: &[(&str, &str)] = &[
        ("x-sum", "42"),
        ("x-auth-subject", "admin"),
        ("content-length", "3"),
        ("authorization", "Bearer other"),
        ("x-forwarded-for", "10.0.0.1"),
        ("host", "other"),
    ];
    for (http, speaks) in WAYS {
        let upstream = Upstream::start(speaks, |_| {
            let (feeder, body) = feed();
            feeder.data("hello");
            feeder.trailers(&[("x-check", "7"), ("content-type", "text/html"), ("set-cookie", "a=b")]);
            answered(200, &[("trailer", "x-check, content-type, set-cookie")], body)
        })
        .await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = Caller::open(&guarded, http).await;
        let (feeder, body) = feed();
        feeder.data("content");
        feeder.trailers(TRAILERS);
        let names: Vec<&str> = TRAILERS.iter().map(|(name, _)| *name).collect();
        let request = caller.post("/api/a").header("trailer", names.join(", ")).header("te", "trailers");
        let answer = caller.send(request.body(body).unwrap()).await;
        let case = format!("by {http:?} to {speaks:?}");
        let (answer, trailers) = whole(answer).await.expect("a whole answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello"), "{case}");
        let trailers = trailers.expect("trailers");
        assert_eq!((trailers.len(), trailers.get("x-check").map(|value| value.as_bytes())), (1, Some(&b"7"[..])));
        let seen = upstream.one();
        let trailers = seen.trailers.expect("trailers");
        assert_eq!((trailers.len(), trailers.get("x-sum").map(|value| value.as_bytes())), (1, Some(&b"42"[..])));
        assert_eq!(seen.headers.get("x-auth-subject").unwrap(), "acme", "{case}");
    }
}

/// RFC 9110 §9.3.2: HEAD says what GET would, length included, and nothing is made up.
#[tokio::test]
async fn head_keeps_the_length_and_has_no_content() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::start(speaks, |seen| match (seen.method.as_str(), seen.target.as_str()) {
            ("HEAD", "/api/long") => answered(200, &[("content-length", "123456")], Body::empty()),
            ("HEAD", _) => answered(200, &[("etag", "\"1\"")], feed().1),
            _ => answered(200, &[], "hello"),
        })
        .await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = Caller::open(&guarded, http).await;
        for (path, length) in [("/api/long", Some("123456")), ("/api/unknown", None)] {
            let request = caller.request("HEAD", path).body(Body::empty()).unwrap();
            let answer = caller.answer(request).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, ""));
            assert_eq!(answer.header("content-length"), length, "{path} by {http:?} to {speaks:?}");
            assert_eq!(caller.got("/api/a").await.body, "hello", "what follows is no content of HEAD's");
        }
    }
}

/// RFC 9110 §6.4.1: some answers have no content, whatever they say of its length.
#[tokio::test]
async fn answers_without_content_pass_as_such() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::start(speaks, |seen| match seen.target.as_str() {
            "/api/204" => answered(204, &[("x-a", "b")], Body::empty()),
            "/api/205" => answered(205, &[("x-a", "b")], Body::empty()),
            "/api/304" => answered(304, &[("x-a", "b"), ("etag", "\"1\"")], Body::empty()),
            "/api/empty" => answered(200, &[("x-a", "b"), ("content-length", "0")], Body::empty()),
            _ => answered(200, &[], "hello"),
        })
        .await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = Caller::open(&guarded, http).await;
        for (path, status) in [("/api/204", 204), ("/api/205", 205), ("/api/304", 304), ("/api/empty", 200)] {
            let answer = caller.got(path).await;
            assert_eq!((answer.status, answer.body.as_str()), (status, ""), "{path} by {http:?} to {speaks:?}");
            assert_eq!(answer.header("x-a"), Some("b"));
            assert_eq!(answer.header("transfer-encoding"), None);
            if status == 204 || status == 304 {
                assert_eq!(answer.header("content-length"), None, "{path} by {http:?} to {speaks:?}");
            }
            assert_eq!(caller.got("/api/a").await.body, "hello");
        }
        assert_eq!(upstream.accepted(), 1);
    }
}

/// A length beside a 304 is that of the representation (RFC 9110 §8.6).
#[tokio::test]
async fn a_304_may_say_the_length_that_it_does_not_send() {
    let upstream =
        Raw::saying("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"1\"\r\nConnection: close\r\n\r\n").await;
    let guarded = Guarded::front(settings("api", upstream.address)).await;
    for http in BOTH {
        let answer = Caller::open(&guarded, http).await.got("/api/a").await;
        assert_eq!((answer.status, answer.body.as_str(), answer.header("etag")), (304, "", Some("\"1\"")));
        assert!(matches!(answer.header("content-length"), None | Some("5")), "{answer:?}");
    }
}

/// RFC 9110 §15.2: interim answers come before the final one, any number of them. They are not passed on.
#[tokio::test]
async fn interim_answers_do_not_hide_the_final_one() {
    let upstream = Raw::start(|mut peer| async move {
        while peer.head().await.is_some() {
            peer.say("HTTP/1.1 100 Continue\r\n\r\n").await;
            peer.say("HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nX-Early: 1\r\n\r\n").await;
            peer.say("HTTP/1.1 199 Anything\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Final: 1\r\n\r\nfinal")
                .await;
        }
    })
    .await;
    let guarded = Guarded::front(settings("api", upstream.address)).await;
    for http in BOTH {
        let mut caller = Caller::open(&guarded, http).await;
        for _ in 0..2 {
            let answer = caller.got("/api/a").await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "final"), "{http:?}");
            assert_eq!((answer.header("x-final"), answer.header("x-early")), (Some("1"), None));
        }
    }
    assert_eq!(upstream.accepted(), 1);
}

/// HTTP/1.0, which knows no chunks: the end of the connection is the end of the content.
#[tokio::test]
async fn an_upstream_of_http_1_0_is_understood() {
    let upstream = Raw::saying("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end").await;
    let guarded = Guarded::front(settings("api", upstream.address)).await;
    for http in BOTH {
        let answer = Caller::open(&guarded, http).await.got("/api/a").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "until the end"), "{http:?}");
        assert_eq!(answer.header("via"), Some("1.0 keybearer"));
    }
}

/// A client of HTTP/1.0 is not sent chunks either.
#[tokio::test]
async fn a_client_of_http_1_0_gets_content_without_chunks() {
    let upstream = Upstream::start(Speaks::Http1, |_| {
        let (feeder, body) = feed();
        feeder.data("one ");
        feeder.data("two");
        answered(200, &[], body)
    })
    .await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    let mut wire = Wire::open(&guarded.gateway).await;
    wire.send(guarded.head("GET /api/a").replace("HTTP/1.1", "HTTP/1.0") + "\r\n").await;
    let answer = String::from_utf8(wire.rest().await).expect("text");
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("\r\n\r\none two"), "{answer}");
    assert!(!answer.to_lowercase().contains("chunked"), "{answer}");
}

/// Up to `limits.header_bytes` (32 KiB) of a request's head; one field more is 431.
#[tokio::test]
async fn large_request_heads_pass_up_to_the_limit() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::hello(speaks).await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = Caller::open(&guarded, http).await;
        let large = "x".repeat(30 * 1024);
        let request = caller.get("/api/a").header("x-large", &large).body(Body::empty()).unwrap();
        assert_eq!(caller.answer(request).await.status, 200, "by {http:?} to {speaks:?}");
        assert_eq!(upstream.one().header("x-large"), Some(large.as_str()));
        let target = format!("/api/a?{large}");
        assert_eq!(caller.got(&target).await.status, 200);
        assert_eq!(upstream.one().target, target);
        let request = caller.get("/api/a").header("x-large", "x".repeat(33 * 1024)).body(Body::empty()).unwrap();
        caller.answer(request).await.problem(431, "headers-too-large");
        assert!(upstream.seen().is_empty());
    }
}

/// What an upstream may say in a head: 60 KiB pass either way. By HTTP/2 the limit is 64 KiB, by HTTP/1.1 about 400 KiB and
/// 100 fields; beyond it is a 502.
#[tokio::test]
async fn large_answer_heads_pass_up_to_the_limit() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::start(speaks, |seen| {
            let size = seen.target.rsplit('/').next().unwrap().parse().expect("a number");
            answered(200, &[("x-large", &"x".repeat(size))], "hello")
        })
        .await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = Caller::open(&guarded, http).await;
        for size in [30_000, 60_000] {
            let answer = caller.got(&format!("/api/{size}")).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "hello"), "by {http:?} to {speaks:?}");
            assert_eq!(answer.header("x-large").map(str::len), Some(size));
        }
        let too_large = if speaks == Speaks::Http1 { 1_000_000 } else { 70_000 };
        caller.got(&format!("/api/{too_large}")).await.problem(502, "bad-gateway");
        assert_eq!(caller.got("/api/10").await.status, 200, "what follows is sound");
    }
}
