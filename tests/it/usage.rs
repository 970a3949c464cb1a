//! Usage: what is kept is what clients have counted, to the request and to the byte.

use std::collections::BTreeMap;
use std::time::Duration;

use keybearer::clock::Timestamp;
use keybearer::forward_auth;
use keybearer::keys::ApiKey;
use keybearer::routes::{Destination, Resource, RouteSettings};
use keybearer::tokens::Client;
use keybearer::usage::{By, Counts, Filter, Holder, Hour, Label, Line, Range, StatusClass};
use serde_json::{Value, json};

use crate::client::{Answer, BOTH, Call, Http};
use crate::gateway::{Builder, SAMPLE, TestGateway};

const HOUR: Duration = Duration::from_secs(3600);

pub fn ever() -> Filter {
    Filter::all(Range { since: Hour(0), until: Hour(u32::MAX) })
}

/// What is in the store once everything is written, but for how long it took.
pub async fn kept(gateway: &TestGateway, by: By) -> BTreeMap<Label, [u64; 3]> {
    gateway.gateway.counts().close().await;
    written(gateway, &ever(), by).await
}

async fn written(gateway: &TestGateway, filter: &Filter, by: By) -> BTreeMap<Label, [u64; 3]> {
    let found = gateway.store.usage(filter, by).await.expect("an answer");
    let numbers = |(label, counts): (Label, Counts)| {
        assert_eq!(counts.latency.0.iter().sum::<u64>(), counts.requests, "each has taken its time");
        (label, [counts.requests, counts.bytes_in, counts.bytes_out])
    };
    found.into_iter().map(numbers).collect()
}

/// To where no hour ends by itself: this one, when half of it is left, or the beginning of the next. No further, since a gateway
/// that starts later makes a certificate that clients by real time must take; it is dated back by an hour.
pub fn settle(gateway: &TestGateway) {
    let left = Hour::of(gateway.now()).next().start().since(gateway.now());
    if left < Duration::from_secs(1800) {
        gateway.advance(left + Duration::from_secs(60));
    }
}

/// What the clients of a test have counted.
#[derive(Default)]
struct Counted(BTreeMap<(Hour, Line), [u64; 3]>);

impl Counted {
    fn add(&mut self, at: Timestamp, line: Line, numbers: [u64; 3]) {
        let held = self.0.entry((Hour::of(at), line)).or_default();
        held.iter_mut().zip(numbers).for_each(|(held, more)| *held += more);
    }

    fn by(&self, filter: &Filter, by: By) -> BTreeMap<Label, [u64; 3]> {
        let mut sums: BTreeMap<Label, [u64; 3]> = BTreeMap::new();
        for ((hour, line), numbers) in self.0.iter().filter(|((hour, line), _)| filter.admits(*hour, line)) {
            let held = sums.entry(by.label(*hour, line)).or_default();
            held.iter_mut().zip(numbers).for_each(|(held, more)| *held += more);
        }
        sums
    }

    async fn assert_kept(&self, gateway: &TestGateway) {
        for by in By::ALL {
            assert_eq!(kept(gateway, by).await, self.by(&ever(), by), "{by:?}");
        }
    }
}

fn holder(account: &str, key: Option<&ApiKey>) -> Holder {
    let client = key.map_or(Client::Password, |key| Client::Key(*key.id()));
    Holder { account: account.parse().expect("a name"), client }
}

fn line(holder: &Holder, group: Option<&str>, route: Option<&str>, status: u16) -> Line {
    Line {
        holder: Some(holder.clone()),
        group: group.map(|group| group.parse().expect("a group")),
        route: route.map(|route| route.parse().expect("a route")),
        class: StatusClass::of(status),
    }
}

fn echo(id: &str, groups: &[&str]) -> RouteSettings {
    RouteSettings {
        groups: groups.iter().map(|group| group.parse().expect("a group")).collect(),
        ..RouteSettings::new(id.parse().expect("an id"), format!("/{id}/*").parse().expect("a path"), Resource::Echo)
    }
}

/// With routes of one group, of two of which one is enough, and of two that are both asked for.
fn furnished() -> Builder {
    TestGateway::build()
        .route(echo("any", &["orders", SAMPLE]))
        .route(RouteSettings { all_groups: true, ..echo("all", &[SAMPLE, "orders"]) })
        .route(echo("licensed", &[]))
}

async fn customers(gateway: &TestGateway) -> (ApiKey, ApiKey) {
    let acme = gateway.acme().await;
    gateway.group("orders", None).await;
    gateway.account("bob", None).await;
    gateway.licence("bob", &["orders", SAMPLE], None).await;
    (acme, gateway.key("bob").await)
}

#[tokio::test]
async fn every_request_is_told_apart_by_everything_and_sums_are_exact() {
    let gateway = furnished().start().await;
    settle(&gateway);
    let (acme, bob) = customers(&gateway).await;
    let second = gateway.key("acme").await;
    let mut counted = Counted::default();
    for round in 0..3 {
        let holders = [
            (holder("acme", Some(&acme)), gateway.token_call(&acme)),
            (holder("acme", Some(&second)), gateway.token_call(&second)),
            (holder("acme", None), gateway.get("/token").basic("acme", "open sesame")),
            (holder("bob", Some(&bob)), gateway.token_call(&bob)),
        ];
        for (who, login) in holders {
            let answer = login.await;
            let token = answer.token();
            let size = |answer: &Answer| answer.body.len() as u64;
            counted.add(gateway.now(), line(&who, None, Some("token"), 200), [1, 0, size(&answer)]);
            let is_bob = who.account.as_str() == "bob";
            for http in BOTH {
                // Method, path, content, and what is expected: the status, and the route and group it counts under.
                let content = "x".repeat(1000 + round);
                let any = if is_bob { "orders" } else { SAMPLE };
                for (method, path, content, status, route, group) in [
                    ("GET", "/sample/a", "", 200, Some("sample"), Some(SAMPLE)),
                    ("HEAD", "/sample/a", "", 200, Some("sample"), Some(SAMPLE)),
                    ("POST", "/sample/b", content.as_str(), 200, Some("sample"), Some(SAMPLE)),
                    ("GET", "/any/c", "", 200, Some("any"), Some(any)),
                    ("GET", "/all/d", "", if is_bob { 200 } else { 403 }, Some("all"), is_bob.then_some(SAMPLE)),
                    ("GET", "/licensed/e", "", 200, Some("licensed"), None),
                    ("GET", "/whoami", "", 200, Some("whoami"), None),
                    ("POST", "/whoami", "", 405, Some("whoami"), None),
                    ("GET", "/nowhere", "", 404, None, None),
                ] {
                    let mut call = gateway.call(method, path).bearer(&token).over(http);
                    if !content.is_empty() {
                        call = call.body(content);
                    }
                    let answer = call.await;
                    assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
                    let numbers = [1, content.len() as u64, size(&answer)];
                    counted.add(gateway.now(), line(&who, group, route, status), numbers);
                }
            }
        }
        // Of nobody: these are no account's.
        gateway.get("/sample/x").await;
        gateway.get("/sample/x").bearer("nonsense").await;
        gateway.get("/token").basic("acme", "wrong").await;
        gateway.get("/demo").await;
        gateway.advance(HOUR);
    }
    counted.assert_kept(&gateway).await;
    let noon = Hour::of(gateway.now() - HOUR);
    for filter in [
        Filter { account: Some("acme".parse().unwrap()), ..ever() },
        Filter { client: Some(Client::Key(*second.id())), ..ever() },
        Filter { account: Some("acme".parse().unwrap()), client: Some(Client::Password), ..ever() },
        Filter { route: Some("all".parse().unwrap()), group: Some(SAMPLE.parse().unwrap()), ..ever() },
        Filter::all(Range { since: noon, until: noon.next() }),
    ] {
        for by in By::ALL {
            let found = written(&gateway, &filter, by).await;
            assert_eq!(found, counted.by(&filter, by), "{filter:?} {by:?}");
            assert!(!found.is_empty());
        }
    }
}

/// Whoever presents a token that was issued here is known, whatever has become of it, and however often it is presented.
#[tokio::test]
async fn a_dead_token_is_refused_on_its_accounts_bill() {
    let gateway = TestGateway::start().await;
    settle(&gateway);
    let key = gateway.acme().await;
    let (revoked, expired) = (gateway.token(&key).await, gateway.token(&key).await);
    let id = crate::forge::claims(&revoked)["jti"].as_str().unwrap().parse().unwrap();
    let target = keybearer::revocations::Target::Token(id);
    gateway.store.revoke(&target, gateway.now(), false).await.expect("stored");
    gateway.sync().await;
    for _ in 0..3 {
        gateway.get("/sample/a").bearer(&revoked).await.assert_invalid_token();
    }
    gateway.advance(HOUR);
    for _ in 0..3 {
        gateway.get("/sample/a").bearer(&expired).await.assert_invalid_token();
    }
    let kept = kept(&gateway, By::Status).await;
    assert_eq!(kept[&Label::Status(StatusClass::of(401))][0], 6);
    assert_eq!(kept[&Label::Status(StatusClass::of(200))][0], 2, "the two tokens");
}

#[tokio::test]
async fn restarts_and_a_second_gateway_add_up() {
    let mut gateway = TestGateway::build().sqlite().start().await;
    settle(&gateway);
    let key = gateway.acme().await;
    let mut requests = 0;
    for round in 0..3u64 {
        let token = gateway.token(&key).await;
        let other = TestGateway::build().beside(&gateway).await.start().await;
        let others = other.token(&key).await;
        for _ in 0..=round {
            assert_eq!(gateway.get("/sample/a").bearer(&token).await.status, 200);
            assert_eq!(other.get("/sample/a").bearer(&others).await.status, 200);
        }
        requests += 2 + 2 * (round + 1);
        other.stop(Duration::ZERO).await;
        gateway = gateway.restart().await;
        let found = written(&gateway, &ever(), By::Account).await;
        let [kept, _, _] = found[&Label::Account(Some("acme".parse().unwrap()))];
        assert_eq!((kept, found.len()), (requests, 1), "an orderly end writes everything");
    }
}

/// One entry of `GET /me/usage`.
fn entry<'a>(usage: &'a Value, by: &str, label: &str) -> &'a Value {
    let entries = usage["usage"].as_array().expect("entries");
    entries.iter().find(|entry| entry[by] == label).unwrap_or_else(|| panic!("no {label}: {usage}"))
}

#[tokio::test]
async fn everyone_sees_their_own_usage_as_it_is_counted() {
    let gateway = TestGateway::start().await;
    settle(&gateway);
    let key = gateway.acme().await;
    let second = gateway.key("acme").await;
    gateway.account("bob", Some("the password of bob")).await;
    gateway.licence("bob", &[SAMPLE], None).await;
    let ask = async |token: &str, query: &str| {
        let answer = gateway.get(&format!("/me/usage{query}")).bearer(token).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let name = |key: &ApiKey| format!("kb_{}", key.id());
    let (one, two) = (gateway.token(&key).await, gateway.token(&second).await);
    let owner = gateway.get("/token").basic("acme", "open sesame").await.token();
    let bob = gateway.get("/token").basic("bob", "the password of bob").await.token();
    for (token, times) in [(&one, 3), (&two, 5), (&owner, 7)] {
        for _ in 0..times {
            assert_eq!(gateway.get("/sample/a").bearer(token).await.status, 200);
        }
    }
    assert_eq!(written(&gateway, &ever(), By::Account).await, BTreeMap::new(), "nothing is written yet");
    let seen = ask(&one, "?by=route").await;
    assert_eq!((&seen["account"], &seen["key"], &seen["by"]), (&json!("acme"), &json!(name(&key)), &json!("route")));
    assert_eq!(seen["total"]["requests"], 4, "its own alone, and this question is not answered yet: {seen}");
    assert_eq!(entry(&seen, "route", "sample")["requests"], 3);
    assert_eq!(entry(&seen, "route", "token")["requests"], 1);
    let seen = ask(&two, "?by=key").await;
    assert_eq!((seen["total"]["requests"].as_u64(), seen["usage"].as_array().map(Vec::len)), (Some(6), Some(1)));
    // The whole account's, the questions before among them; written and not written.
    gateway.gateway.counts().close().await;
    gateway.get("/sample/a").bearer(&owner).await;
    let seen = ask(&owner, "?by=key").await;
    assert_eq!((&seen["account"], &seen["key"]), (&json!("acme"), &Value::Null));
    assert_eq!(seen["total"]["requests"], (1 + 3 + 1) + (1 + 5 + 1) + (1 + 7 + 1), "{seen}");
    assert_eq!(entry(&seen, "key", &name(&second))["requests"], 7);
    assert!(seen["total"]["latency_ms"]["p50"].as_u64().is_some_and(|millis| millis >= 1), "{seen}");
    let seen = ask(&bob, "").await;
    assert_eq!((seen["total"]["requests"].as_u64(), &seen["by"]), (Some(1), &json!("day")), "nobody else's");

    // By time.
    let day = |at: Timestamp| at.to_string()[..10].to_owned();
    let before = gateway.now();
    gateway.advance(24 * HOUR);
    let two = gateway.token(&second).await;
    let tomorrow = day(gateway.now());
    let seen = ask(&two, &format!("?by=day&since={tomorrow}")).await;
    assert_eq!(
        (seen["since"].as_str(), seen["total"]["requests"].as_u64()),
        (Some(&*format!("{tomorrow}T00:00:00Z")), Some(1))
    );
    let seen = ask(&two, &format!("?until={tomorrow}&by=day")).await;
    assert_eq!(entry(&seen, "day", &day(before))["requests"], 7);
    assert_eq!(seen["usage"].as_array().map(Vec::len), Some(1));
    let seen = ask(&two, &format!("?since={before}&by=hour")).await;
    assert_eq!(seen["usage"].as_array().map(Vec::len), Some(2), "{seen}");
}

#[tokio::test]
async fn a_question_that_is_none_and_the_demo_token_are_refused() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let now = gateway.now();
    let future = now + HOUR;
    for (query, said) in [
        ("by=week".to_owned(), "day"),
        ("since=yesterday".into(), "since"),
        ("until=1".into(), "until"),
        (format!("since={future}"), "has not come yet"),
        (format!("since={now}&until={now}"), "before"),
        ("by=hour&since=2020-01-01".into(), "31 days"),
        ("since=2020-01-01".into(), "400 days"),
        ("account=bob".into(), "parameters"),
        ("by=day&by=day".into(), "twice"),
    ] {
        let answer = gateway.get(&format!("/me/usage?{query}")).bearer(&token).await;
        let problem = answer.problem(400, "malformed-request");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(said), "{query}: {detail}");
    }
    let demo = gateway.get("/demo").await.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.get("/demo/time").bearer(&demo).await.status, 200);
    gateway.get("/me/usage").bearer(&demo).await.problem(403, "insufficient-scope");
    gateway.get("/me/usage").await.problem(401, "missing-token");
    let demo = Label::Account(Some("demo".parse().unwrap()));
    assert_eq!(kept(&gateway, By::Account).await[&demo][0], 2, "the demo account's is counted all the same");
}

/// What another proxy asks about counts where it was asked about, and the content is the other proxy's affair.
#[tokio::test]
async fn decisions_for_other_proxies_count_under_the_route_asked_about() {
    let gateway = TestGateway::build().with(|config| {
        config.forward_auth =
            Some(forward_auth::Settings { trusted: vec!["127.0.0.0/8".parse().unwrap()], ..Default::default() });
        config.routes = vec![
            RouteSettings { destination: Destination::External, ..echo("orders", &[SAMPLE]) },
            RouteSettings { destination: Destination::External, ..echo("closed", &["closed"]) },
        ];
    });
    let gateway = gateway.start().await;
    settle(&gateway);
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    let asking = |path: &str| {
        let call = gateway.get("/authz/forward-auth").header("x-forwarded-method", "GET");
        let call = call.header("x-forwarded-uri", path).header("x-forwarded-host", "api.example.com");
        call.header("x-forwarded-proto", "https").header("x-forwarded-for", "203.0.113.7").bearer(&token)
    };
    let mut counted = Counted::default();
    let who = holder("acme", Some(&key));
    for (path, status, route, group, times) in [
        ("/orders/1", 200, Some("orders"), Some(SAMPLE), 3),
        ("/closed/1", 403, Some("closed"), None, 2),
        ("/nowhere", 403, None, None, 1),
    ] {
        for _ in 0..times {
            assert_eq!(asking(path).await.status, status);
            counted.add(gateway.now(), line(&who, group, route, status), [1, 0, 0]);
        }
    }
    let by_route = |mut counted: BTreeMap<Label, [u64; 3]>| {
        counted.remove(&Label::Route(Some("token".parse().unwrap())));
        counted
    };
    assert_eq!(by_route(kept(&gateway, By::Route).await), counted.by(&ever(), By::Route));
    let groups = kept(&gateway, By::Group).await;
    assert_eq!(groups[&Label::Group(Some(SAMPLE.parse().unwrap()))], [3, 0, 0]);
}

#[tokio::test]
async fn a_reload_turns_counting_off_and_on() {
    let gateway = TestGateway::start().await;
    settle(&gateway);
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    let call = async |call: Call<'_>| assert_eq!(call.await.status, 200);
    let mut config = gateway.config.clone();
    for enabled in [false, true] {
        config.usage.enabled = enabled;
        assert_eq!(gateway.gateway.reload(&config).await.expect("good"), Vec::<&str>::new());
        for http in [Http::One, Http::Two] {
            call(gateway.post("/sample/a").bearer(&token).body("content").over(http)).await;
        }
    }
    let kept = kept(&gateway, By::Group).await;
    let [requests, bytes_in, _] = kept[&Label::Group(Some(SAMPLE.parse().unwrap()))];
    assert_eq!((requests, bytes_in), (2, 14));
}
