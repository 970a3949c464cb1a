//! What passes through the gateway is counted as it passes: in both directions, in the hour in which it does.

use std::time::Duration;

use axum::body::Body;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use keybearer::routes::{Forwarding, TokenEnd};
use keybearer::usage::{By, Filter, Hour, Range};

use super::caller::{Caller, feed, piece};
use super::upstream::{Speaks, Upstream};
use super::websocket::Socket;
use super::{Guarded, WAYS, frame};
use crate::client::Http;
use crate::gateway::TestGateway;
use crate::usage::settle;

const HOUR: Duration = Duration::from_secs(3600);

/// Requests, bytes in and bytes out of the route to the upstream, in this hour.
async fn passed(gateway: &TestGateway, hour: Hour) -> [u64; 3] {
    gateway.gateway.counts().close().await;
    let range = Range { since: hour, until: hour.next() };
    let filter = Filter { route: Some("api".parse().expect("an id")), ..Filter::all(range) };
    let found = gateway.store.usage(&filter, By::Hour).await.expect("an answer");
    found.first().map_or([0; 3], |(_, counts)| [counts.requests, counts.bytes_in, counts.bytes_out])
}

/// A gateway whose tokens end nothing that is under way.
async fn guarded(upstream: &Upstream) -> Guarded {
    let endless = |forwarding: &mut Forwarding| forwarding.token_end = TokenEnd::Nothing;
    let guarded = Guarded::with(upstream.settings("api"), endless).await;
    settle(&guarded.gateway);
    let token = guarded.gateway.token(&guarded.key).await;
    Guarded { token, ..guarded }
}

#[tokio::test]
async fn content_is_counted_in_both_directions() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::start(speaks, |seen| {
            let length = seen.content.len();
            Response::new(Body::from("y".repeat(length * 2 + 1)))
        })
        .await;
        let guarded = guarded(&upstream).await;
        let mut caller = Caller::open(&guarded, http).await;
        let (mut bytes_in, mut bytes_out) = (0, 0);
        for size in [0, 1, 1000, 300_000, 1_200_000] {
            let request = caller.post("/api/a").body(Body::from("x".repeat(size))).unwrap();
            let answer = caller.send(request).await;
            let content = answer.into_body().collect().await.expect("sound").to_bytes();
            bytes_in += size as u64;
            bytes_out += content.len() as u64;
        }
        // HEAD says a length, and nothing comes.
        let request = caller.request("HEAD", "/api/a").body(Body::empty()).unwrap();
        assert_eq!(caller.send(request).await.status(), 200);
        let found = passed(&guarded.gateway, Hour::of(guarded.gateway.now())).await;
        assert_eq!(found, [6, bytes_in, bytes_out], "{http:?} {speaks:?}");
    }
}

/// A stream is a request of the hour in which it begins; its bytes are of the hours in which they pass.
#[tokio::test]
async fn a_stream_is_counted_while_it_goes_on() {
    for http in [Http::One, Http::Two] {
        let (sender, feeders) = std::sync::mpsc::channel();
        let upstream = Upstream::streaming(Speaks::Http1, move |request: http::Request<Incoming>| {
            let (feeder, body) = feed();
            feeder.data("first");
            sender.send(feeder).expect("the test waits for it");
            drop(request);
            std::future::ready(Response::builder().header("content-type", "text/event-stream").body(body).unwrap())
        })
        .await;
        let guarded = guarded(&upstream).await;
        let gateway = &guarded.gateway;
        let mut caller = Caller::open(&guarded, http).await;
        let request = caller.get("/api/events").body(Body::empty()).unwrap();
        let mut body = caller.send(request).await.into_body();
        let feeder = feeders.recv().expect("a feeder");
        let mut heard = async |text: &str| assert_eq!(piece(&mut body).await.expect("more").expect("sound"), text);
        heard("first").await;
        let first = Hour::of(gateway.now());
        assert_eq!(passed(gateway, first).await, [1, 0, 5], "while it goes on");
        feeder.data("second");
        heard("second").await;
        assert_eq!(passed(gateway, first).await, [1, 0, 11]);
        gateway.advance(HOUR);
        feeder.data("in another hour");
        heard("in another hour").await;
        assert_eq!(passed(gateway, first.next()).await, [0, 0, 15]);
        assert_eq!(passed(gateway, first).await, [1, 0, 11]);
    }
}

#[tokio::test]
async fn a_tunnels_bytes_are_counted_while_it_is_open() {
    for http in [Http::One, Http::Two] {
        let upstream = super::websocket::echoing().await;
        let guarded = guarded(&upstream).await;
        let gateway = &guarded.gateway;
        let mut socket = Socket::open(&guarded, http).await;
        let said = frame::text("are you there?");
        let (there, back) = (said.bytes(Some([1, 2, 3, 4])).len() as u64, said.bytes(None).len() as u64);
        socket.echoes().await;
        let first = Hour::of(gateway.now());
        // By HTTP/2 the gateway was asked whether it knows RFC 8441: that is nobody's usage.
        assert_eq!(passed(gateway, first).await, [1, there, back], "{http:?}");
        gateway.advance(HOUR);
        socket.echoes().await;
        assert_eq!(passed(gateway, first.next()).await, [0, there, back], "{http:?}");
    }
}

/// What breaks off has passed as far as it did.
#[tokio::test]
async fn an_answer_that_breaks_off_is_counted_as_far_as_it_came() {
    for http in [Http::One, Http::Two] {
        let upstream = Upstream::streaming(Speaks::Http1, |_| {
            let (feeder, body) = feed();
            feeder.data("x".repeat(1000));
            feeder.fail();
            std::future::ready(Response::builder().header("content-length", "5000").body(body).unwrap())
        })
        .await;
        let guarded = guarded(&upstream).await;
        let mut caller = Caller::open(&guarded, http).await;
        let request = caller.get("/api/a").body(Body::empty()).unwrap();
        let mut body = caller.send(request).await.into_body();
        let mut came = 0;
        while let Some(Ok(piece)) = piece(&mut body).await {
            came += piece.len() as u64;
        }
        let [requests, _, bytes_out] = passed(&guarded.gateway, Hour::of(guarded.gateway.now())).await;
        assert_eq!(requests, 1);
        // What was on the way when it broke may be lost on either side of the gateway.
        assert!((came..=1000).contains(&bytes_out), "{http:?}: {came} came, {bytes_out} counted");
    }
}
