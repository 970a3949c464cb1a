//! Upstreams that break, lie or are no HTTP at all: the client learns it, and nothing gets into another answer.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Response};
use keybearer::proxy::upstream::UpstreamSettings;

use super::caller::{Caller, feed, piece, whole};
use super::raw::Raw;
use super::upstream::{Upstream, settings};
use super::{Guarded, WAYS, eventually};
use crate::client::BOTH;
use crate::wire::{LONG, Wire};

const SHORT: Duration = Duration::from_millis(200);

fn hasty(settings: UpstreamSettings) -> UpstreamSettings {
    UpstreamSettings { response_timeout: SHORT, idle_timeout: SHORT, ..settings }
}

/// What is no answer is a 502, which says nothing of what it was.
#[tokio::test]
async fn what_is_no_answer_is_a_502() {
    for (what, said) in [
        ("nothing", ""),
        ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ("noise", "\u{1}\u{2}\u{3}\0\0\0\r\n\r\n"),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Le"),
        ("no status", "HTTP/1.1 OK\r\n\r\n"),
        ("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
        ("NUL in a field", "HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 0\r\n\r\n"),
        ("a blank before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"),
        ("a folded field", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n"),
        (
            "a switch that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        ),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        ("two lengths in one", "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!"),
        ("no number", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"),
        ("a negative number", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"),
        (
            "a length and chunks",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "chunks and a length",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 300\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "an encoding after chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "an encoding of another name",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
    ] {
        let upstream = Raw::saying(said).await;
        let guarded = Guarded::front(settings("api", upstream.address)).await;
        for http in BOTH {
            let mut caller = Caller::open(&guarded, http).await;
            let request = caller.post("/api/a").body("content".into()).unwrap();
            let answer = caller.answer(request).await;
            assert_eq!(answer.status, 502, "{what} by {http:?}: {answer:?}");
            answer.problem(502, "bad-gateway");
            assert!(!answer.body.contains("hello") && !answer.body.contains("127.0.0.1"), "{what}: {answer:?}");
        }
        assert_eq!(upstream.accepted(), 2, "{what}: a POST is not sent twice");
        guarded.is_deserted().await;
    }
}

/// The same length twice is one (RFC 9112 §6.3), and reaches the client as one.
#[tokio::test]
async fn a_length_said_twice_is_one_or_a_502() {
    let upstream = Raw::saying("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello").await;
    let guarded = Guarded::front(settings("api", upstream.address)).await;
    for http in BOTH {
        let answer = Caller::open(&guarded, http).await.got("/api/a").await;
        let lengths = answer.headers.get_all("content-length").iter().count();
        let passed = answer.status == 200 && lengths == 1 && answer.body == "hello";
        assert!(passed || answer.status == 502, "{answer:?}");
    }
}

/// A broken answer is seen as one: by HTTP/1.1 the connection ends before the content does, by HTTP/2 the stream is reset.
#[tokio::test]
async fn an_answer_that_breaks_is_never_taken_for_a_whole_one() {
    for (what, said) in [
        ("less than its length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
        ("no last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("half a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello"),
        ("no chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\nworse\r\n0\r\n\r\n"),
        ("a longer chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello there\r\n0\r\n\r\n"),
        ("an endless size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nfffffffffffffffff\r\n"),
        (
            "a size with a bare LF",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\nworse\r\n0\r\n\r\n",
        ),
        ("half a trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: "),
    ] {
        let upstream = Raw::saying(said).await;
        let guarded = Guarded::front(settings("api", upstream.address)).await;
        for http in BOTH {
            let mut caller = Caller::open(&guarded, http).await;
            let request = caller.get("/api/a").body(Body::empty()).unwrap();
            // Where the break comes with the head, a 502 says so as well.
            let Ok(answer) = caller.try_send(request).await else { continue };
            let status = answer.status().as_u16();
            let content = whole(answer).await;
            assert!(status == 502 || content.is_err(), "{what} by {http:?}: {content:?}");
        }
        guarded.is_deserted().await;
    }
}

/// The same where the upstream speaks HTTP/2, or dies in the middle by its own doing.
#[tokio::test]
async fn an_upstream_that_dies_in_its_content_is_seen_to() {
    for (http, speaks) in WAYS {
        let (sender, feeders) = std::sync::mpsc::channel();
        let upstream = Upstream::start(speaks, move |_| {
            let (feeder, body) = feed();
            feeder.data("hello");
            sender.send(feeder).expect("the test waits for it");
            Response::new(body)
        })
        .await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = Caller::open(&guarded, http).await;
        let request = caller.get("/api/a").body(Body::empty()).unwrap();
        let mut body = caller.send(request).await.into_body();
        assert_eq!(piece(&mut body).await.expect("content").expect("sound"), "hello");
        feeders.recv().expect("a feeder").fail();
        assert!(piece(&mut body).await.expect("no end").is_err(), "by {http:?} to {speaks:?}");
        guarded.is_at_rest().await;
    }
}

/// HTTP/1.0 has no other sign of a break than a connection that ends without TLS saying so.
#[tokio::test]
async fn a_client_of_http_1_0_sees_a_break_by_tls() {
    let upstream = Raw::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    let guarded = Guarded::front(settings("api", upstream.address)).await;
    let mut wire = Wire::open(&guarded.gateway).await;
    wire.send(guarded.head("GET /api/a").replace("HTTP/1.1", "HTTP/1.0") + "\r\n").await;
    assert!(wire.ends_abruptly().await, "a close_notify would say that this was all");
}

/// What an upstream says beyond its answer belongs to no other (response splitting).
#[tokio::test]
async fn what_follows_an_answer_is_nobody_elses() {
    for (what, said) in [
        ("more than its length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        ("more than its chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("content of a 204", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("content of a 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 40\r\n\r\n"),
        ("an answer before the request", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let upstream = Raw::start(move |mut peer| async move {
            while let Some(head) = peer.head().await {
                if head.starts_with("GET /api/first ") {
                    peer.say(format!("{said}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")).await;
                } else {
                    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond").await;
                }
            }
        })
        .await;
        let guarded = Guarded::front(settings("api", upstream.address)).await;
        for _ in 0..10 {
            let mut wire = Wire::open(&guarded.gateway).await;
            let get = |path: &str| guarded.head(&format!("GET {path}")) + "\r\n";
            wire.send(get("/api/first") + &get("/api/second")).await;
            let all = String::from_utf8_lossy(&answers(&mut wire).await).into_owned();
            assert!(!all.contains("poison"), "{what}: {all}");
            let answer = Caller::open(&guarded, crate::client::Http::Two).await.got("/api/second").await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "second"), "{what}");
        }
        guarded.is_deserted().await;
    }
}

/// Two answers by HTTP/1.1, or as much of them as there is.
async fn answers(wire: &mut Wire) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..2 {
        let Some(answer) = wire.any_answer().await else { break };
        all.extend(answer);
    }
    all
}

/// HEAD has no content, whatever the upstream sends.
#[tokio::test]
async fn content_of_head_is_nobody_elses() {
    let upstream = Raw::start(|mut peer| async move {
        while let Some(head) = peer.head().await {
            let said = if head.starts_with("HEAD ") { "poison" } else { "second" };
            peer.say(format!("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n{said}")).await;
        }
    })
    .await;
    let guarded = Guarded::front(settings("api", upstream.address)).await;
    for http in BOTH {
        let mut caller = Caller::open(&guarded, http).await;
        for _ in 0..10 {
            let request = caller.request("HEAD", "/api/a").body(Body::empty()).unwrap();
            let answer = caller.answer(request).await;
            assert_eq!((answer.status, answer.header("content-length")), (200, Some("6")));
            assert_eq!(caller.got("/api/a").await.body, "second");
        }
    }
}

/// Too late is a 504: no answer, an answer whose head does not come to its end, or one that comes byte by byte.
#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_a_504() {
    for said in ["", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let upstream = Raw::start(move |mut peer| async move {
            peer.head().await;
            peer.say(said).await;
            peer.rest().await;
        })
        .await;
        let guarded = Guarded::front(hasty(settings("api", upstream.address))).await;
        for http in BOTH {
            let mut caller = Caller::open(&guarded, http).await;
            caller.got("/api/a").await.problem(504, "gateway-timeout");
            let request = caller.post("/api/a").body("content".into()).unwrap();
            caller.answer(request).await.problem(504, "gateway-timeout");
        }
        guarded.is_at_rest().await;
        eventually("its connections are closed", || upstream.ended() == upstream.accepted()).await;
        assert_eq!(upstream.accepted(), 4, "what was sent and not answered is not sent again");
    }
}

#[tokio::test]
async fn a_head_that_trickles_is_a_504_too() {
    let upstream = Raw::start(|mut peer| async move {
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\nX-Slow: ").await;
        for _ in 0..LONG.as_millis() / 10 {
            peer.say("x").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let guarded = Guarded::front(hasty(settings("api", upstream.address))).await;
    for http in BOTH {
        Caller::open(&guarded, http).await.got("/api/a").await.problem(504, "gateway-timeout");
    }
}

/// Content that stops coming is cut off, and the client sees that it is not whole.
#[tokio::test]
async fn content_that_stops_coming_is_cut_off() {
    for (http, speaks) in WAYS {
        let (feeder, body) = feed();
        feeder.data("hello");
        let body = std::sync::Mutex::new(Some(body));
        let upstream = Upstream::start(speaks, move |_| Response::new(body.lock().unwrap().take().expect("one"))).await;
        let guarded = Guarded::front(hasty(upstream.settings("api"))).await;
        let mut caller = Caller::open(&guarded, http).await;
        let request = caller.get("/api/a").body(Body::empty()).unwrap();
        let answer = caller.send(request).await;
        assert_eq!(answer.status(), 200);
        assert!(whole(answer).await.is_err(), "by {http:?} to {speaks:?}");
        guarded.is_at_rest().await;
        feeder.is_unwanted().await;
    }
}

/// RFC 9110 §9.2.2: what is idempotent and has no content is tried again, and nothing else.
#[tokio::test]
async fn only_what_may_be_sent_twice_is() {
    for (method, content, attempts) in
        [(Method::GET, "", 3), (Method::DELETE, "", 3), (Method::POST, "", 1), (Method::PUT, "content", 1)]
    {
        let upstream = Raw::saying("").await;
        let guarded = Guarded::front(settings("api", upstream.address)).await;
        let mut caller = Caller::open(&guarded, crate::client::Http::One).await;
        let request = caller.request(method.as_str(), "/api/a").body(Body::from(content)).unwrap();
        caller.answer(request).await.problem(502, "bad-gateway");
        assert_eq!(upstream.accepted(), attempts, "{method}");
    }
}
