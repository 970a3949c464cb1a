//! How many are under way at once, and bytes on their way: counted until an answer ends, is cut off, or its client goes away.

use axum::body::Body;
use http::Response;
use hyper::body::Incoming;
use keybearer::ids::{KeyId, LicenceId};
use serde_json::json;

use super::caller::{Caller, feed, piece, whole};
use super::upstream::{Speaks, Upstream};
use super::websocket::{Socket, echoing};
use super::{Guarded, WAYS, eventually, route};
use crate::client::{BOTH, Http};
use crate::gateway::{SAMPLE, TestGateway};
use crate::plans::{plan, token_of, with_plans};

/// A gateway in front of `upstream`, and a token that is bound by these limits.
async fn bound(upstream: &Upstream, limits: &[(&str, u64)]) -> Guarded {
    let builder = with_plans(vec![plan("pro", limits)]).upstream(upstream.settings("api"));
    let guarded = Guarded::started(builder.route(route("api", "/api/*", "api"))).await;
    let token = token(&guarded.gateway);
    Guarded { token, ..guarded }
}

fn token(gateway: &TestGateway) -> String {
    let id = LicenceId::random().to_string();
    let limit = json!({"licence": id, "plan": "pro", "groups": [SAMPLE, "demo"]});
    token_of(gateway.now(), "acme", KeyId::random(), &[limit], None)
}

async fn status(guarded: &Guarded, http: Http) -> u16 {
    Caller::open(guarded, http).await.got("/api/x").await.status
}

#[tokio::test]
async fn what_is_under_way_takes_a_place_until_it_ends() {
    for (http, speaks) in WAYS {
        let (sender, feeders) = std::sync::mpsc::channel();
        let upstream = Upstream::streaming(speaks, move |request: http::Request<Incoming>| {
            let (feeder, body) = feed();
            if request.uri().path() == "/api/x" {
                return std::future::ready(Response::new(Body::from("short")));
            }
            feeder.data("first");
            sender.send(feeder).expect("the test waits for it");
            std::future::ready(Response::new(body))
        })
        .await;
        let guarded = bound(&upstream, &[("concurrent", 2)]).await;
        let mut begun = Vec::new();
        for _ in 0..2 {
            let mut caller = Caller::open(&guarded, http).await;
            let request = caller.get("/api/slow").body(Body::empty()).unwrap();
            let mut answer = caller.send(request).await;
            assert_eq!(answer.status(), 200);
            assert_eq!(piece(answer.body_mut()).await.expect("more").expect("sound"), "first");
            begun.push((caller, answer, feeders.recv().expect("a feeder")));
        }
        let refused = Caller::open(&guarded, http).await.got("/api/x").await;
        let problem = refused.problem(429, "quota-exceeded");
        assert_eq!((&problem["limit"], &problem["scope"]), (&json!("2 requests at once"), &json!("this gateway")));
        assert_eq!(refused.header("retry-after"), Some("1"));
        // One comes to its end: whoever has read all of it may ask for the next one at once.
        let (_caller, answer, feeder) = begun.pop().expect("two");
        drop(feeder);
        whole(answer).await.expect("a whole answer");
        let mut caller = Caller::open(&guarded, http).await;
        for _ in 0..5 {
            assert_eq!(caller.got("/api/x").await.status, 200, "{http:?} {speaks:?}");
        }
        // The other one's client goes away.
        let (caller, answer, feeder) = begun.pop().expect("one");
        drop((caller, answer));
        guarded.is_at_rest().await;
        drop(feeder);
        let mut callers = Vec::new();
        for _ in 0..2 {
            let mut caller = Caller::open(&guarded, http).await;
            let request = caller.get("/api/slow").body(Body::empty()).unwrap();
            callers.push((caller.send(request).await.status().as_u16(), caller, feeders.recv().expect("a feeder")));
        }
        assert!(callers.iter().all(|(status, ..)| *status == 200), "both places are free");
        // The upstream breaks off.
        let (_, _caller, feeder) = callers.pop().expect("two");
        feeder.fail();
        guarded_frees_one(&guarded, http).await;
    }
}

async fn guarded_frees_one(guarded: &Guarded, http: Http) {
    for _ in 0..500 {
        if status(guarded, http).await == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("what was cut off still takes its place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_are_under_way_than_the_plan_allows() {
    const PLACES: usize = 5;
    for http in BOTH {
        let (sender, feeders) = std::sync::mpsc::channel();
        let upstream = Upstream::streaming(Speaks::Http1, move |_: http::Request<Incoming>| {
            let (feeder, body) = feed();
            sender.send(feeder).expect("the test waits for it");
            std::future::ready(Response::new(body))
        })
        .await;
        let guarded = std::sync::Arc::new(bound(&upstream, &[("concurrent", PLACES as u64)]).await);
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let guarded = std::sync::Arc::clone(&guarded);
                tokio::spawn(async move {
                    let mut caller = Caller::open(&guarded, http).await;
                    let request = caller.get("/api/slow").body(Body::empty()).unwrap();
                    let answer = caller.send(request).await;
                    (answer, caller)
                })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.expect("it ends"));
        }
        let open = answers.iter().filter(|(answer, _)| answer.status() == 200).count();
        assert_eq!(open, PLACES, "{http:?}");
        assert!(answers.iter().all(|(answer, _)| [200, 429].contains(&answer.status().as_u16())));
        assert_eq!(feeders.try_iter().count(), PLACES, "no more came to the upstream");
    }
}

#[tokio::test]
async fn a_websocket_takes_a_place_until_it_ends() {
    for http in BOTH {
        let upstream = echoing().await;
        let guarded = bound(&upstream, &[("concurrent", 1), ("bytes_per_day", 100)]).await;
        let mut socket = Socket::open(&guarded, http).await;
        socket.echoes().await;
        assert_eq!(status(&guarded, http).await, 429);
        drop(socket);
        guarded.is_at_rest().await;
        eventually("its connection is gone", || guarded.gateway.gateway.connections() <= guarded.own).await;
        // Its bytes have passed: the place is free, and there is something left.
        let answer = Caller::open(&guarded, http).await.got("/api/plain").await;
        assert_eq!(answer.status, 200);
        let left = answer.header("ratelimit").expect("a field").to_owned();
        assert!(left.contains("\"pro.concurrent\";r=0"), "{left}");
        assert!(!left.contains("\"pro.day-bytes\";r=100"), "{left}");
    }
}

/// Who has bytes left may begin, and may end what was begun; then it is over.
#[tokio::test]
async fn bytes_count_in_both_directions_and_as_they_pass() {
    for is_counted in [true, false] {
        for (http, speaks) in WAYS {
            let upstream = Upstream::start(speaks, |seen| Response::new(Body::from(seen.content.clone()))).await;
            let builder = with_plans(vec![plan("pro", &[("bytes_per_month", 5000)])])
                .upstream(upstream.settings("api"))
                .with(|config| config.usage.enabled = is_counted);
            let guarded = Guarded::started(builder.route(route("api", "/api/*", "api"))).await;
            let guarded = Guarded { token: token(&guarded.gateway), ..guarded };
            let mut caller = Caller::open(&guarded, http).await;
            for (size, expected, left) in [(1000, 200, 5000), (2000, 200, 3000), (1, 429, 0)] {
                let request = caller.post("/api/a").body(Body::from("x".repeat(size))).unwrap();
                let answer = caller.answer(request).await;
                assert_eq!(answer.status, expected, "{http:?} {speaks:?} {size}");
                let said = answer.header("ratelimit").expect("a field");
                assert!(said.starts_with(&format!("\"pro.month-bytes\";r={left};t=")), "{said}");
            }
        }
    }
}

#[tokio::test]
async fn what_an_upstream_says_stays_beside_it() {
    let upstream = Upstream::start(Speaks::Http1, |_| {
        let response = Response::builder().header("ratelimit", "\"own\";r=1;t=2");
        response.header("ratelimit-policy", "\"own\";q=3;w=4").body(Body::empty()).unwrap()
    })
    .await;
    let guarded = bound(&upstream, &[("requests_per_day", 10)]).await;
    for http in BOTH {
        let answer = Caller::open(&guarded, http).await.got("/api/x").await;
        let all = |name: &str| {
            answer.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>().join(", ")
        };
        let (policy, limit) = (all("ratelimit-policy"), all("ratelimit"));
        assert!(policy.starts_with("\"own\";q=3;w=4, \"pro.day\";q=10;w=86400"), "{policy}");
        assert!(limit.starts_with("\"own\";r=1;t=2, \"pro.day\";r="), "{limit}");
    }
}
