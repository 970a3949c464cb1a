//! Clients that go away: whatever was done for them is let go, and nothing is left behind.

use std::time::Duration;

use axum::body::Body;
use http::Response;
use http_body_util::BodyExt;
use keybearer::proxy::upstream::UpstreamSettings;

use super::caller::{Caller, feed, piece};
use super::upstream::{Speaks, Upstream};
use super::{Guarded, WAYS, eventually};
use crate::client::Http;
use crate::wire::Wire;

/// While the upstream thinks.
#[tokio::test]
async fn a_client_that_leaves_before_its_answer_takes_the_request_along() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::streaming(speaks, |_| std::future::pending()).await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        for content in ["", "content"] {
            let mut caller = Caller::open(&guarded, http).await;
            let request = caller.post("/api/a").body(Body::from(content)).unwrap();
            let waiting = tokio::spawn(async move { drop(caller.try_send(request).await) });
            eventually("the upstream works", || upstream.working() == 1).await;
            waiting.abort();
            eventually("it works no more", || upstream.working() == 0).await;
            guarded.is_deserted().await;
        }
        if speaks == Speaks::Http1 {
            eventually("its connection is closed", || upstream.open() == 0).await;
        }
    }
}

/// While its content is on its way.
#[tokio::test]
async fn a_client_that_leaves_in_its_content_breaks_the_upstreams_request() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::hello(speaks).await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = Caller::open(&guarded, http).await;
        let (feeder, body) = feed();
        feeder.data("begun");
        let request = caller.post("/api/a").body(body).unwrap();
        let waiting = tokio::spawn(async move { drop(caller.try_send(request).await) });
        eventually("the upstream works", || upstream.working() == 1).await;
        waiting.abort();
        eventually("the upstream sees the break", || !upstream.seen().is_empty()).await;
        assert!(!upstream.one().is_whole, "by {http:?} to {speaks:?}");
        guarded.is_deserted().await;
        drop(feeder);
    }
}

/// While its answer is on its way.
#[tokio::test]
async fn a_client_that_leaves_in_its_answer_ends_the_upstreams() {
    for (http, speaks) in WAYS {
        let (sender, feeders) = std::sync::mpsc::channel();
        let upstream = Upstream::start(speaks, move |_| {
            let (feeder, body) = feed();
            feeder.data("begun");
            sender.send(feeder).expect("the test waits for it");
            Response::new(body)
        })
        .await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = Caller::open(&guarded, http).await;
        let request = caller.get("/api/a").body(Body::empty()).unwrap();
        let mut body = caller.send(request).await.into_body();
        assert_eq!(piece(&mut body).await.expect("content").expect("sound"), "begun");
        drop((body, caller));
        feeders.recv().expect("a feeder").is_unwanted().await;
        guarded.is_deserted().await;
    }
}

/// One stream of a connection that goes on (RFC 9113 §8.7: CANCEL).
#[tokio::test]
async fn a_stream_that_is_cancelled_is_the_only_one_to_end() {
    for speaks in [Speaks::Http1, Speaks::H2c] {
        let (sender, feeders) = std::sync::mpsc::channel();
        let upstream = Upstream::start(speaks, move |seen| {
            if seen.target == "/api/short" {
                return Response::new("short".into());
            }
            let (feeder, body) = feed();
            feeder.data("begun");
            sender.send(feeder).expect("the test waits for it");
            Response::new(body)
        })
        .await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = Caller::open(&guarded, Http::Two).await;
        let request = |caller: &Caller| caller.get("/api/a").body(Body::empty()).unwrap();
        let first = request(&caller);
        let mut first = caller.send(first).await.into_body();
        let second = request(&caller);
        let second = caller.send(second).await.into_body();
        assert_eq!(piece(&mut first).await.expect("content").expect("sound"), "begun");
        let (of_first, of_second) = (feeders.recv().unwrap(), feeders.recv().unwrap());
        drop(second);
        of_second.is_unwanted().await;
        of_first.data("goes on");
        assert_eq!(piece(&mut first).await.expect("content").expect("sound"), "goes on");
        assert_eq!(caller.got("/api/short").await.body, "short");
        drop(of_first);
        assert!(first.collect().await.is_ok());
        drop(caller);
        guarded.is_deserted().await;
    }
}

/// Behind requests that came in one go nobody sees the end of a connection (`hyper` reads no further); then the limit on the
/// upstream's answer ends what is left.
#[tokio::test]
async fn a_pipeline_whose_client_has_left_ends_in_time() {
    let upstream = Upstream::streaming(Speaks::Http1, |_| std::future::pending()).await;
    let settings = UpstreamSettings { response_timeout: Duration::from_millis(200), ..upstream.settings("api") };
    let guarded = Guarded::front(settings).await;
    let mut wire = Wire::open(&guarded.gateway).await;
    let get = guarded.head("GET /api/a") + "\r\n";
    wire.send(get.repeat(3)).await;
    eventually("the upstream works", || upstream.working() == 1).await;
    assert_eq!(upstream.seen().len(), 1, "one after the other");
    drop(wire);
    guarded.is_deserted().await;
    eventually("it works no more", || upstream.working() == 0).await;
}
