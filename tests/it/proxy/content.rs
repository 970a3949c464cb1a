//! Content of requests: limits, `Expect`, and answers that come before it is complete.

use std::time::Duration;

use axum::body::Body;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use keybearer::proxy::upstream::UpstreamSettings;

use super::caller::{Caller, feed};
use super::raw::Raw;
use super::upstream::{Speaks, Upstream, settings};
use super::{Guarded, WAYS, eventually};
use crate::client::{BOTH, Http};
use crate::wire::Wire;

/// RFC 9110 §10.1.1: the client is told to go on when there is somebody to take its content.
#[tokio::test]
async fn content_is_asked_for_when_the_upstream_is_there() {
    for speaks in [Speaks::Http1, Speaks::H2c] {
        let upstream = Upstream::start(speaks, |seen| Response::new(seen.content.to_vec().into())).await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut wire = Wire::open(&guarded.gateway).await;
        for content in ["first", "other"] {
            let head = guarded.head("POST /api/a") + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n";
            wire.send(head).await;
            assert_eq!(wire.answer().await.expect("an interim answer").status, 100);
            assert!(upstream.accepted() > 0, "the upstream was reached before");
            wire.send(content).await;
            let answer = wire.answer().await.expect("an answer");
            assert_eq!((answer.status, answer.body.as_str()), (200, content), "{speaks:?}");
            let seen = upstream.one();
            assert_eq!((seen.header("expect"), &seen.content[..]), (None, content.as_bytes()));
        }
    }
}

/// A refusal comes in its place.
#[tokio::test]
async fn content_that_is_refused_is_not_asked_for() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::with(upstream.settings("api"), |forwarding| forwarding.body_bytes = Some(10)).await;
    let expect = "Expect: 100-continue\r\n\r\n";
    for (what, head, status) in [
        ("too large", guarded.head("POST /api/a") + "Content-Length: 11\r\n", 413),
        ("no token", "POST /api/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n".into(), 401),
        ("a bad token", guarded.head("POST /api/a").replace("Bearer ", "Bearer x") + "Content-Length: 5\r\n", 401),
        ("no path", guarded.head("POST /api/../a") + "Content-Length: 5\r\n", 400),
    ] {
        let mut wire = Wire::open(&guarded.gateway).await;
        wire.send(head + expect).await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!(answer.status, status, "{what}: {answer:?}");
    }
    assert_eq!(upstream.accepted(), 0);
}

/// Where nobody is there, nothing is asked for either.
#[tokio::test]
async fn content_is_not_asked_for_when_no_upstream_is_there() {
    let nobody = Raw::saying("").await;
    let address = nobody.address;
    drop(nobody);
    let guarded = Guarded::front(settings("api", address)).await;
    let mut wire = Wire::open(&guarded.gateway).await;
    wire.send(guarded.head("POST /api/a") + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(wire.answer().await.expect("an answer").status, 502);
}

/// RFC 9110 §15.5.14. What says its length is refused at once; what says none, when it is too much.
#[tokio::test]
async fn content_beyond_the_limit_is_refused() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::hello(speaks).await;
        let guarded = Guarded::with(upstream.settings("api"), |forwarding| forwarding.body_bytes = Some(10)).await;
        let mut caller = Caller::open(&guarded, http).await;
        let request = caller.post("/api/a").body("ten bytes!".into()).unwrap();
        assert_eq!(caller.answer(request).await.status, 200);
        assert!(upstream.one().is_whole);

        let request = caller.post("/api/a").body("eleven byte".into()).unwrap();
        caller.answer(request).await.problem(413, "content-too-large");
        assert!(upstream.seen().is_empty(), "by {http:?} to {speaks:?}");

        let mut caller = Caller::open(&guarded, http).await;
        let (feeder, body) = feed();
        feeder.data("eight by");
        let request = caller.post("/api/a").body(body).unwrap();
        let more = async {
            eventually("the upstream works", || upstream.working() == 1).await;
            feeder.data("and more");
        };
        let (answer, ()) = tokio::join!(caller.answer(request), more);
        answer.problem(413, "content-too-large");
        eventually("the upstream sees the break", || !upstream.seen().is_empty()).await;
        let seen = upstream.one();
        assert!(!seen.is_whole, "by {http:?} to {speaks:?}: {seen:?}");
        drop(feeder);
        assert_eq!(Caller::open(&guarded, http).await.got("/api/a").await.status, 200);
        guarded.is_at_rest().await;
    }
}

/// RFC 9110 §15.5.9: a client that stops in the middle is told so, and the upstream is let go.
#[tokio::test]
async fn content_that_stops_coming_is_a_408() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::hello(speaks).await;
        let guarded = Guarded::with(upstream.settings("api"), |forwarding| {
            forwarding.idle_timeout = Some(Duration::from_millis(200));
        })
        .await;
        let mut caller = Caller::open(&guarded, http).await;
        let (feeder, body) = feed();
        feeder.data("some");
        let request = caller.post("/api/a").body(body).unwrap();
        caller.answer(request).await.problem(408, "request-timeout");
        eventually("the upstream sees the break", || !upstream.seen().is_empty()).await;
        assert!(!upstream.one().is_whole, "by {http:?} to {speaks:?}");
        guarded.is_at_rest().await;
        drop(feeder);
    }
}

/// The same where a length was declared, and the rest of it never comes.
#[tokio::test]
async fn content_of_a_declared_length_that_stops_coming_is_a_408() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::with(upstream.settings("api"), |forwarding| {
        forwarding.idle_timeout = Some(Duration::from_millis(200));
    })
    .await;
    let mut wire = Wire::open(&guarded.gateway).await;
    wire.send(guarded.head("POST /api/a") + "Content-Length: 10\r\n\r\nhello").await;
    assert_eq!(wire.answer().await.expect("an answer").status, 408);
    assert!(wire.is_closed().await, "where the next request would begin is not known");
    guarded.is_at_rest().await;
}

/// An upstream need not hear all of it. Its answer reaches the client, and the connections stay sound.
#[tokio::test]
async fn an_answer_may_come_before_the_content_is_complete() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::streaming(speaks, |request| async move {
            if request.method() == "GET" {
                return Response::new("own".into());
            }
            // The content is kept, so that it is neither read nor given up.
            let body = request.into_body();
            tokio::spawn(async move { drop(body.collect().await) });
            let mut response = Response::new(Body::from("early"));
            *response.status_mut() = StatusCode::FORBIDDEN;
            response
        })
        .await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = Caller::open(&guarded, http).await;
        let (feeder, body) = feed();
        feeder.data("begun");
        let request = caller.post("/api/a").body(body).unwrap();
        let answer = caller.answer(request).await;
        assert_eq!((answer.status, answer.body.as_str()), (403, "early"), "by {http:?} to {speaks:?}");
        feeder.data("and ended");
        drop(feeder);
        // HTTP/1.1 may close here; if it does not, the next answer is the next request's.
        let request = caller.get("/api/a").body(Body::empty()).unwrap();
        if let Ok(answer) = caller.try_send(request).await {
            let (answer, _) = super::caller::whole(answer).await.expect("a whole answer");
            assert_eq!((answer.status, answer.body.as_str()), (200, "own"), "by {http:?} to {speaks:?}");
        } else {
            assert_eq!(http, Http::One, "a stream's end is not the connection's");
        }
        assert_eq!(Caller::open(&guarded, http).await.got("/api/a").await.body, "own");
        guarded.is_at_rest().await;
    }
}

/// An answer that is over does not make room while the request's content still holds the upstream's connection.
#[tokio::test]
async fn a_request_counts_until_its_content_is_over() {
    let upstream = Raw::start(|mut peer| async move {
        while let Some(head) = peer.head().await {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await;
            if head.starts_with("POST ") {
                // The chunks of its content end with a blank line, as a head does.
                peer.head().await;
            }
        }
    })
    .await;
    let settings = UpstreamSettings { max_requests: 1, ..settings("api", upstream.address) };
    let guarded = Guarded::front(settings).await;
    let mut caller = Caller::open(&guarded, Http::Two).await;
    let (feeder, body) = feed();
    feeder.data("begun");
    let request = caller.post("/api/a").body(body).unwrap();
    assert_eq!(caller.answer(request).await.body, "early");
    Caller::open(&guarded, Http::One).await.got("/api/a").await.problem(503, "unavailable");
    drop(feeder);
    guarded.is_at_rest().await;
    assert_eq!(Caller::open(&guarded, Http::One).await.got("/api/a").await.body, "early");
}

/// An upstream that answers, and wants no more of a large content.
#[tokio::test]
async fn an_upstream_may_refuse_large_content_and_read_no_more() {
    let upstream = Raw::start(|mut peer| async move {
        while let Some(head) = peer.head().await {
            if head.starts_with("GET ") {
                peer.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown").await;
                continue;
            }
            peer.say("HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge").await;
            peer.rest().await;
        }
    })
    .await;
    let guarded = Guarded::front(settings("api", upstream.address)).await;
    for http in BOTH {
        let mut caller = Caller::open(&guarded, http).await;
        let request = caller.post("/api/a").body(vec![b'x'; 4 << 20].into()).unwrap();
        let answer = caller.answer(request).await;
        assert_eq!((answer.status, answer.body.as_str()), (413, "large"), "{http:?}");
        assert_eq!(Caller::open(&guarded, http).await.got("/api/a").await.body, "own");
    }
    guarded.is_at_rest().await;
}

/// RFC 9112 §7.1.1: chunk extensions are this hop's. Trailers that no HTTP/1.1 client may send end nowhere.
#[tokio::test]
async fn chunks_are_rewritten() {
    let upstream = Upstream::start(Speaks::Http1, |seen| Response::new(seen.content.to_vec().into())).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    let mut wire = Wire::open(&guarded.gateway).await;
    let trailers = "X-Sum: 1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\nX-Auth-Subject: admin\r\n\r\n";
    let head = guarded.head("POST /api/a") + "Transfer-Encoding: chunked\r\nTrailer: X-Sum, X-Auth-Subject\r\n\r\n";
    wire.send(head + "5;ext=\"a b\"\r\nhello\r\n0\r\n" + trailers).await;
    wire.send(guarded.head("POST /api/b") + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + trailers).await;
    assert_eq!(String::from_utf8_lossy(&wire.any_answer().await.expect("an answer")).lines().last(), Some("hello"));
    assert_eq!(String::from_utf8_lossy(&wire.any_answer().await.expect("an answer")).lines().last(), Some("x"));
    let seen = upstream.seen();
    let names: Vec<_> = seen[0].trailers.iter().flatten().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-sum"]);
    assert_eq!(seen[1].trailers, None, "what the head did not announce is not sent on by HTTP/1.1");
}
