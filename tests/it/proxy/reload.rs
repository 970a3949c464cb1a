//! Routes and upstreams change while requests pass, and no request notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use keybearer::config::Config;
use keybearer::routes::Rewrite;

use super::caller::{Caller, whole};
use super::upstream::{Speaks, Upstream};
use super::{Guarded, WAYS, eventually, forwarding, route};
use crate::gateway::TestGateway;

/// The configuration in the state of this turn: other timeouts, another path, another upstream for the same route.
fn turned(config: &Config, upstreams: [&Upstream; 2], turn: usize) -> Config {
    let [first, second] = upstreams;
    let mut first = first.settings("first");
    first.response_timeout = Duration::from_secs(30 + turn as u64 % 2);
    let to = if turn.is_multiple_of(3) { "first" } else { "second" };
    let api = forwarding("api", "/api/*", to, |forwarding| {
        forwarding.rewrite = Rewrite::Strip { prefix: "/api".into(), add: format!("/v{}", turn % 4).into() };
    });
    let routes = vec![api, route(&format!("turn-{turn}"), "/other/*", "first")];
    Config { upstreams: vec![first, second.settings("second")], routes, ..config.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_reloads_under_load_fail_no_request() {
    let [first, second] = [Upstream::hello(Speaks::Http1).await, Upstream::hello(Speaks::H2c).await];
    let config = |config: &Config, turn| turned(config, [&first, &second], turn);
    let guarded = Guarded::started(TestGateway::build().with(|base| *base = config(base, 0))).await;
    let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for (http, _) in WAYS {
        let mut caller = Caller::open(&guarded, http).await;
        let (is_over, answered) = (Arc::clone(&is_over), Arc::clone(&answered));
        clients.spawn(async move {
            while !is_over.load(Ordering::Acquire) {
                let content = if answered.load(Ordering::Relaxed).is_multiple_of(2) { "" } else { "content" };
                let request = caller.post("/api/a").body(Body::from(content)).unwrap();
                let answer = caller.send(request).await;
                let (answer, _) = whole(answer).await.expect("a whole answer");
                assert_eq!((answer.status, answer.body.as_str()), (200, "hello"), "{answer:?}");
                answered.fetch_add(1, Ordering::AcqRel);
            }
        });
    }
    for turn in 1..=20 {
        let before = answered.load(Ordering::Acquire);
        let fixed = guarded.gateway.gateway.reload(&config(&guarded.gateway.config, turn)).await.expect("good files");
        assert!(fixed.is_empty(), "{fixed:?}");
        eventually("requests pass between two reloads", || answered.load(Ordering::Acquire) >= before + 8).await;
    }
    is_over.store(true, Ordering::Release);
    while let Some(client) = clients.join_next().await {
        client.expect("no request failed");
    }
    let arrived: Vec<_> = first.seen().into_iter().chain(second.seen()).map(|seen| seen.target).collect();
    assert_eq!(arrived.len(), answered.load(Ordering::Acquire), "each request arrived once");
    for version in ["/v0/a", "/v1/a", "/v2/a", "/v3/a"] {
        assert!(arrived.iter().any(|target| target == version), "{version}");
    }
    guarded.is_at_rest().await;
}

/// What is taken away is not found any more, and never a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_is_taken_away_is_a_404() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    let statuses = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut clients = tokio::task::JoinSet::new();
    for (http, _) in WAYS {
        let mut caller = Caller::open(&guarded, http).await;
        let statuses = Arc::clone(&statuses);
        clients.spawn(async move {
            loop {
                let status = caller.got("/api/a").await.status;
                statuses.lock().unwrap().push(status);
                if status != 200 {
                    break;
                }
            }
        });
    }
    eventually("requests pass", || statuses.lock().unwrap().len() > 20).await;
    let without = Config { upstreams: vec![], routes: vec![], ..guarded.gateway.config.clone() };
    guarded.gateway.gateway.reload(&without).await.expect("nothing to be wrong");
    while let Some(client) = clients.join_next().await {
        client.expect("no panic");
    }
    {
        let statuses = statuses.lock().unwrap();
        assert!(statuses.iter().all(|status| [200, 404].contains(status)), "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 404).count(), WAYS.len());
    }
    eventually("its connections are closed", || upstream.open() == 0).await;
}
