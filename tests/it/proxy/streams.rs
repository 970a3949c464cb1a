//! Streams: they pass as they come, and end with their token as the route says.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use axum::body::Body;
use http::Response;
use hyper::body::Incoming;
use keybearer::proxy::Cut;
use keybearer::routes::TokenEnd;

use super::caller::{Caller, Feeder, feed, piece};
use super::upstream::{Speaks, Upstream};
use super::{Guarded, WAYS, forwarding};
use crate::client::Http;
use crate::gateway::TestGateway;

const HOUR: Duration = Duration::from_secs(3600);

/// An upstream whose answers the test feeds: `/events` are an event stream, the rest is a download.
async fn fed(speaks: Speaks) -> (Upstream, Receiver<Feeder>) {
    let (sender, feeders) = channel();
    let upstream = Upstream::streaming(speaks, move |request| {
        let (feeder, body) = feed();
        feeder.data("first");
        sender.send(feeder).expect("the test waits for it");
        let kind = match request.uri().path() {
            "/api/events" => "text/event-stream; charset=utf-8",
            "/api/parts" => "multipart/x-mixed-replace; boundary=x",
            _ => "application/octet-stream",
        };
        std::future::ready(Response::builder().header("content-type", kind).body(body).expect("a response"))
    })
    .await;
    (upstream, feeders)
}

/// An answer that has begun.
struct Begun {
    _caller: Caller,
    feeder: Feeder,
    body: Incoming,
}

impl Begun {
    async fn at(guarded: &Guarded, http: Http, path: &str, feeders: &Receiver<Feeder>) -> Self {
        let mut caller = Caller::open(guarded, http).await;
        let request = caller.get(path).body(Body::empty()).unwrap();
        let answer = caller.send(request).await;
        assert_eq!(answer.status(), 200);
        let mut body = answer.into_body();
        assert_eq!(piece(&mut body).await.expect("a piece").expect("sound"), "first");
        Self { _caller: caller, feeder: feeders.recv().expect("a feeder"), body }
    }

    /// It goes on after the gateway has looked over everything.
    async fn goes_on(&mut self, guarded: &Guarded) {
        guarded.gateway.gateway.proxy().flows().look_over();
        self.feeder.data("next");
        assert_eq!(piece(&mut self.body).await.expect("a piece").expect("sound"), "next");
    }

    /// It breaks, for the client and for the upstream.
    async fn ends_broken(mut self) {
        assert!(piece(&mut self.body).await.expect("not the end").is_err());
        self.feeder.is_unwanted().await;
    }
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    for (http, speaks) in WAYS {
        let (upstream, feeders) = fed(speaks).await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut begun = Begun::at(&guarded, http, "/api/events", &feeders).await;
        for event in ["data: 1\n\n", "data: 2\n\n", ":\n\n"] {
            begun.feeder.data(event);
            assert_eq!(piece(&mut begun.body).await.expect("a piece").expect("sound"), event, "{http:?} {speaks:?}");
        }
        drop(begun.feeder);
        assert!(piece(&mut begun.body).await.is_none(), "its own end is the client's");
        guarded.is_at_rest().await;
    }
}

/// What has no end of its own ends with its token.
#[tokio::test]
async fn an_event_stream_ends_when_its_token_expires() {
    for (http, speaks) in WAYS {
        for path in ["/api/events", "/api/parts"] {
            let (upstream, feeders) = fed(speaks).await;
            let guarded = Guarded::front(upstream.settings("api")).await;
            let mut begun = Begun::at(&guarded, http, path, &feeders).await;
            guarded.gateway.advance(HOUR - Duration::from_secs(1));
            begun.goes_on(&guarded).await;
            guarded.gateway.advance(Duration::from_secs(1));
            begun.ends_broken().await;
            assert_eq!(guarded.gateway.gateway.proxy().flows().cuts(Cut::Expired), 1);
            guarded.is_at_rest().await;
        }
    }
}

#[tokio::test]
async fn everything_ends_when_its_token_is_revoked() {
    for (http, speaks) in WAYS {
        for path in ["/api/events", "/api/download"] {
            let (upstream, feeders) = fed(speaks).await;
            let guarded = Guarded::front(upstream.settings("api")).await;
            let mut begun = Begun::at(&guarded, http, path, &feeders).await;
            begun.goes_on(&guarded).await;
            guarded.revoke().await;
            begun.ends_broken().await;
            assert_eq!(guarded.gateway.gateway.proxy().flows().cuts(Cut::Revoked), 1);
            guarded.is_at_rest().await;
        }
    }
}

/// A download has an end, and is let come to it.
#[tokio::test]
async fn a_download_outlives_its_token() {
    for (http, speaks) in WAYS {
        let (upstream, feeders) = fed(speaks).await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut begun = Begun::at(&guarded, http, "/api/download", &feeders).await;
        guarded.gateway.advance(2 * HOUR);
        begun.goes_on(&guarded).await;
        drop(begun.feeder);
        assert!(piece(&mut begun.body).await.is_none());
        guarded.is_at_rest().await;
    }
}

#[tokio::test]
async fn what_ends_with_a_token_is_the_routes_affair() {
    let (upstream, feeders) = fed(Speaks::Http1).await;
    let to = |id: &str, path: &str, end| forwarding(id, path, "api", |forwarding| forwarding.token_end = end);
    let builder = TestGateway::build()
        .upstream(upstream.settings("api"))
        .route(to("everything", "/api/download", TokenEnd::Everything))
        .route(to("nothing", "/api/events", TokenEnd::Nothing));
    let guarded = Guarded::started(builder).await;
    let download = Begun::at(&guarded, Http::Two, "/api/download", &feeders).await;
    let mut events = Begun::at(&guarded, Http::One, "/api/events", &feeders).await;
    guarded.gateway.advance(HOUR);
    download.ends_broken().await;
    events.goes_on(&guarded).await;
    guarded.revoke().await;
    events.goes_on(&guarded).await;
    drop(events);
    guarded.is_at_rest().await;
}

/// `access.stream_grace`: for who renews its token a little late. A revocation knows no grace.
#[tokio::test]
async fn a_stream_has_its_grace() {
    let (upstream, feeders) = fed(Speaks::Http1).await;
    let builder = TestGateway::build().with(|config| config.access.stream_grace = Duration::from_secs(30));
    let builder = builder.upstream(upstream.settings("api")).route(super::route("api", "/api/*", "api"));
    let guarded = Guarded::started(builder).await;
    let mut first = Begun::at(&guarded, Http::One, "/api/events", &feeders).await;
    guarded.gateway.advance(HOUR + Duration::from_secs(29));
    first.goes_on(&guarded).await;
    guarded.gateway.advance(Duration::from_secs(1));
    first.ends_broken().await;

    let token = guarded.gateway.token(&guarded.key).await;
    let guarded = Guarded { token, ..guarded };
    let second = Begun::at(&guarded, Http::One, "/api/events", &feeders).await;
    guarded.revoke().await;
    second.ends_broken().await;
    guarded.is_at_rest().await;
}

/// A token that ends while its content is still on its way there is one that was not good for all of it.
#[tokio::test]
async fn an_upload_ends_when_its_token_is_revoked() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::hello(speaks).await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = Caller::open(&guarded, http).await;
        let (feeder, body) = feed();
        feeder.data("begun");
        let request = caller.post("/api/a").body(body).unwrap();
        let revoking = async {
            super::eventually("the upstream works", || upstream.working() == 1).await;
            guarded.revoke().await;
        };
        let (answer, ()) = tokio::join!(caller.answer(request), revoking);
        answer.assert_invalid_token();
        super::eventually("the upstream sees the break", || !upstream.seen().is_empty()).await;
        assert!(!upstream.one().is_whole, "by {http:?} to {speaks:?}");
        guarded.is_at_rest().await;
    }
}

/// Events of one key end, those of another go on.
#[tokio::test]
async fn a_revocation_ends_nobody_elses_stream() {
    let (upstream, feeders) = fed(Speaks::H2c).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    let first = guarded.token.clone();
    let mut own = Begun::at(&guarded, Http::Two, "/api/events", &feeders).await;
    let token = guarded.gateway.token(&guarded.gateway.key("acme").await).await;
    assert_ne!(first, token);
    let guarded = Guarded { token, ..guarded };
    let other = Begun::at(&guarded, Http::Two, "/api/events", &feeders).await;
    guarded.revoke().await;
    other.ends_broken().await;
    own.goes_on(&guarded).await;
}

/// At its end the gateway does not wait for what has none.
#[tokio::test]
async fn a_stream_does_not_keep_the_gateway() {
    let (upstream, feeders) = fed(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    let begun = Begun::at(&guarded, Http::One, "/api/events", &feeders).await;
    let stopping = tokio::spawn(guarded.gateway.stop(Duration::from_secs(60)));
    begun.ends_broken().await;
    tokio::time::timeout(crate::wire::LONG, stopping).await.expect("in time").expect("no panic");
}
