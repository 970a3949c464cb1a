//! Plans: what bounds whom, exactly, and what is said of it.

mod all_groups;
mod demo;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keybearer::clock::Timestamp;
use keybearer::forward_auth;
use keybearer::ids::{KeyId, LicenceId};
use keybearer::keys::Key;
use keybearer::licences::VendorKey;
use keybearer::plans::{Limit, Plan};
use keybearer::routes::{Destination, Resource, RouteSettings};
use keybearer::store::{MemoryStore, SharedStore};
use serde_json::{Value, json};

use crate::client::{Answer, BOTH};
use crate::forge;
use crate::gateway::{Builder, SAMPLE, TestGateway};

/// A plan of these limits.
pub fn plan(id: &str, limits: &[(&str, u64)]) -> Plan {
    let limit = |(name, most): &(&str, u64)| Limit::named(name, *most, None).expect("a limit");
    Plan { id: id.parse().expect("a plan"), limits: limits.iter().map(limit).collect() }
}

/// With these plans.
pub fn with_plans(plans: Vec<Plan>) -> Builder {
    TestGateway::build().with(|config| config.plans = plans)
}

/// A licence's entry in a token.
fn licence(id: LicenceId, plan: &str, groups: &[&str]) -> Value {
    json!({"licence": id.to_string(), "plan": plan, "groups": groups})
}

/// A token of an account's key, bound by these licences and this plan.
pub fn token_of(now: Timestamp, account: &str, key: KeyId, limits: &[Value], plan: Option<&str>) -> String {
    let mut claims = forge::good_claims(now);
    (claims["sub"], claims["client_id"]) = (json!(account), json!(format!("kb_{key}")));
    claims["limits"] = json!(limits);
    if let Some(plan) = plan {
        claims["plan"] = json!(plan);
    }
    forge::ours().with_claims(&claims)
}

/// A member of a list: its string, and its parameters as they are written.
type Member = (String, BTreeMap<String, String>);

/// Reads a list of strings with parameters (RFC 9651 §3.1, §4.2), and takes nothing else.
fn list(value: &str) -> Vec<Member> {
    let mut rest = value;
    let mut members = Vec::new();
    loop {
        rest = rest.strip_prefix('"').unwrap_or_else(|| panic!("no string: {value}"));
        let (name, after) = rest.split_once('"').expect("an end of the string");
        assert!(name.bytes().all(|c| c.is_ascii_graphic() && c != b'\\'), "{value}");
        rest = after;
        let mut parameters = BTreeMap::new();
        while let Some(after) = rest.strip_prefix(';') {
            let (key, after) = after.split_once('=').expect("a value");
            assert!(key.bytes().all(|c| c.is_ascii_lowercase()), "{value}");
            let end = match after.strip_prefix('"') {
                Some(text) => 2 + text.find('"').expect("an end of the string"),
                None => after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()),
            };
            let (found, after) = after.split_at(end);
            assert!(!found.is_empty() && found.len() < 40, "{value}");
            parameters.insert(key.to_owned(), found.to_owned());
            rest = after;
        }
        members.push((name.to_owned(), parameters));
        match rest.strip_prefix(", ") {
            Some(more) => rest = more,
            None if rest.is_empty() => return members,
            None => panic!("not a list: {value}"),
        }
    }
}

/// The parameters of a member.
fn parameters(text: &str) -> BTreeMap<String, String> {
    list(&format!("\"x\"{text}"))[0].1.clone()
}

/// Both fields of an answer, of all their lines.
#[track_caller]
fn fields(answer: &Answer) -> (Vec<Member>, Vec<Member>) {
    let all = |name: &str| {
        let lines = answer.headers.get_all(name).iter();
        lines.flat_map(|line| list(line.to_str().expect("visible ASCII"))).collect::<Vec<_>>()
    };
    let (policies, limits) = (all("ratelimit-policy"), all("ratelimit"));
    let names = |members: &[Member]| members.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&policies), names(&limits), "each policy has its limit");
    (policies, limits)
}

/// What is left of each limit.
#[track_caller]
fn left(answer: &Answer) -> BTreeMap<String, u64> {
    let (_, limits) = fields(answer);
    limits.into_iter().map(|(name, of)| (name, of["r"].parse().expect("a number"))).collect()
}

fn echo(id: &str, groups: &[&str]) -> RouteSettings {
    RouteSettings {
        groups: groups.iter().map(|group| group.parse().expect("a group")).collect(),
        ..RouteSettings::new(id.parse().expect("an id"), format!("/{id}/*").parse().expect("a path"), Resource::Echo)
    }
}

/// So that no window or period of the clock ends by itself within a test, and time may be advanced for a few minutes.
fn settle(gateway: &TestGateway) {
    crate::usage::settle(gateway);
    let into = gateway.now().millis() % 60_000;
    gateway.advance(Duration::from_millis(60_000 - into));
}

#[tokio::test]
async fn every_guarded_answer_says_what_bounds_it() {
    let limits = [
        ("requests_per_second", 10),
        ("requests_per_minute", 600),
        ("requests_per_hour", 700),
        ("requests_per_day", 800),
        ("requests_per_month", 900),
        ("bytes_per_day", 1_000_000),
        ("concurrent", 5),
    ];
    let gateway =
        with_plans(vec![plan("pro", &limits)]).with(|config| config.quotas.legacy_fields = true).start().await;
    settle(&gateway);
    let key = KeyId::random();
    let token = token_of(gateway.now(), "acme", key, &[licence(LicenceId::random(), "pro", &[SAMPLE])], None);
    for (turn, http) in (1..).zip(BOTH) {
        let answer = gateway.get("/sample/x").over(http).bearer(&token).await;
        assert_eq!(answer.status, 200);
        let (policies, limits) = fields(&answer);
        let policy = |name: &str, parameters: &str| (name.to_owned(), self::parameters(parameters));
        let month = policies[4].1["w"].parse::<u64>().expect("a number");
        assert!((28..=31).any(|days| month == days * 86_400), "the seconds of this month: {month}");
        let expected = [
            policy("pro.second", ";q=10;w=1"),
            policy("pro.minute", ";q=600;w=60"),
            policy("pro.hour", ";q=700;w=3600"),
            policy("pro.day", ";q=800;w=86400"),
            policy("pro.month", &format!(";q=900;w={month}")),
            policy("pro.day-bytes", ";q=1000000;w=86400;qu=\"content-bytes\""),
            policy("pro.concurrent", ";q=5;qu=\"concurrent-requests\""),
        ];
        assert_eq!(policies, expected);
        let of = |name: &str| limits.iter().find(|(known, _)| known == name).expect(name).1.clone();
        assert_eq!(
            (of("pro.minute")["r"].clone(), of("pro.minute")["t"].clone()),
            ((600 - turn).to_string(), "60".into())
        );
        assert_eq!(of("pro.concurrent"), policy("", ";r=4").1);
        let next_midnight = 86_400 - gateway.now().secs() % 86_400;
        assert_eq!(of("pro.day")["t"], next_midnight.to_string());
        // Of the second there is the least left.
        let legacy =
            ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(|name| answer.header(name));
        assert_eq!(legacy, [Some("10"), Some(if turn == 1 { "9" } else { "8" }), Some("1")]);
    }
    // The gateway's own doors are not charged, nor what is refused for another reason.
    for (path, status) in [("/whoami", 200), ("/me/usage", 200), ("/nowhere", 404), ("/.well-known/jwks.json", 200)] {
        let answer = gateway.get(path).bearer(&token).await;
        assert_eq!((answer.status, answer.header("ratelimit")), (status, None), "{path}");
    }
    let answer = gateway.get("/sample/x").bearer(&token).await;
    assert_eq!(left(&answer)["pro.minute"], 597);
    // Nor is there anything to say where no plan is.
    let free = forge::ours().with_claims(&forge::good_claims(gateway.now()));
    let answer = gateway.get("/sample/x").bearer(&free).await;
    assert_eq!((answer.status, answer.header("ratelimit"), answer.header("ratelimit-policy")), (200, None, None));
}

#[tokio::test]
async fn who_has_used_it_up_is_told_so_until_when_and_by_whom() {
    let plans = vec![plan("pro", &[("requests_per_minute", 2)]), plan("fast", &[("requests_per_second", 1)])];
    let gateway = with_plans(plans).start().await;
    settle(&gateway);
    let token = |plan: &str| {
        let limits = [licence(LicenceId::random(), plan, &[SAMPLE])];
        token_of(gateway.now(), "acme", KeyId::random(), &limits, None)
    };
    let pro = token("pro");
    for http in BOTH {
        assert_eq!(gateway.get("/sample/x").over(http).bearer(&pro).await.status, 200);
    }
    for http in BOTH {
        let refused = gateway.get("/sample/x").over(http).bearer(&pro).await;
        let problem = refused.problem(429, "quota-exceeded");
        assert_eq!(problem["violated-policies"], json!(["pro.minute"]));
        assert_eq!((&problem["limit"], &problem["scope"]), (&json!("2 requests a minute"), &json!("all gateways")));
        assert_eq!(left(&refused), BTreeMap::from([("pro.minute".to_owned(), 0)]));
        // Of two one counts no more when half of the window before lies outside.
        assert_eq!(refused.header("retry-after"), Some("90"));
    }
    let seen = gateway.get("/whoami").bearer(&pro).await.json();
    let quota =
        json!({"policy": "pro.minute", "limit": "2 requests a minute", "per": "licence", "left": 0, "resets_in": 60});
    assert_eq!(seen["quotas"], json!([quota]), "what is used up can still be looked at");
    gateway.advance(Duration::from_millis(89_999));
    assert_eq!(gateway.get("/sample/x").bearer(&pro).await.header("retry-after"), Some("1"));
    gateway.advance(Duration::from_millis(1));
    assert_eq!(gateway.get("/sample/x").bearer(&pro).await.status, 200);
    gateway.get("/sample/x").bearer(&pro).await.problem(429, "quota-exceeded");

    let fast = token("fast");
    assert_eq!(gateway.get("/sample/x").bearer(&fast).await.status, 200);
    let problem = gateway.get("/sample/x").bearer(&fast).await.problem(429, "quota-exceeded");
    assert_eq!(problem["scope"], "this gateway");
}

/// However many come at once: N pass and N + 1 never do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_exact_under_concurrency() {
    const LIMIT: usize = 40;
    let plans = vec![
        plan("pro", &[("requests_per_month", LIMIT as u64)]),
        plan("wide", &[("requests_per_hour", 1000), ("requests_per_second", 1000)]),
    ];
    let mut route = echo("counted", &[SAMPLE]);
    route.plan = Some("wide".parse().unwrap());
    let gateway = Arc::new(with_plans(plans).route(route).start().await);
    settle(&gateway);
    for http in BOTH {
        let limits = [licence(LicenceId::random(), "pro", &[SAMPLE])];
        // Several keys below one licence, in whatever order.
        let tokens: Vec<_> =
            (0..4).map(|_| token_of(gateway.now(), "acme", KeyId::random(), &limits, Some("wide"))).collect();
        let tasks: Vec<_> = (0..64)
            .map(|number| {
                let (gateway, token) = (Arc::clone(&gateway), tokens[number % 4].clone());
                tokio::spawn(async move {
                    let mut passed = 0;
                    for _ in 0..3 {
                        let answer = gateway.get("/counted/x").over(http).bearer(&token).await;
                        match answer.status {
                            200 => passed += 1,
                            status => assert_eq!(status, 429),
                        }
                    }
                    passed
                })
            })
            .collect();
        let mut passed = 0;
        for task in tasks {
            passed += task.await.expect("it ends");
        }
        assert_eq!(passed, LIMIT, "{http:?}");
        let answer = gateway.get("/sample/x").over(http).bearer(&tokens[0]).await;
        answer.problem(429, "quota-exceeded");
        // What was refused has cost nobody else anything.
        let refused = gateway.get("/counted/x").over(http).bearer(&tokens[0]).await;
        let charged = 1000 - left(&refused)["wide.hour"];
        assert!(charged <= LIMIT as u64 * 2, "of the route and of the keys no more than passed: {charged}");
    }
}

#[tokio::test]
async fn a_request_is_bound_by_the_licences_it_came_by() {
    let plans = vec![plan("small", &[("requests_per_day", 1)]), plan("large", &[("requests_per_day", 2)])];
    let gateway = with_plans(plans).route(echo("both", &[SAMPLE, "orders"])).route(echo("any", &[])).start().await;
    settle(&gateway);
    let (small, large) = (LicenceId::random(), LicenceId::random());
    let claims = |limits: Value| {
        let mut claims = forge::good_claims(gateway.now());
        claims["groups"] = json!(["orders", SAMPLE]);
        claims["scope"] = json!(format!("orders {SAMPLE}"));
        claims["limits"] = limits;
        forge::ours().with_claims(&claims)
    };
    let bound = claims(json!([licence(small, "small", &[SAMPLE]), licence(large, "large", &["orders"])]));
    // Two subscriptions: the first is used up, then the second.
    let mut charged = Vec::new();
    for _ in 0..4 {
        let answer = gateway.get("/both/x").bearer(&bound).await;
        charged.push((answer.status, left(&answer).into_iter().next().expect("one")));
    }
    let of = |name: &str, left| (name.to_owned(), left);
    // When neither allows it, both must be waited for as long; the first is told.
    let expected =
        [(200, of("small.day", 0)), (200, of("large.day", 1)), (200, of("large.day", 0)), (429, of("small.day", 0))];
    assert_eq!(charged, expected);
    gateway.get("/sample/x").bearer(&bound).await.problem(429, "quota-exceeded");
    // A group that no licence bounds is free, and so is a licence whose plan nobody knows.
    let half = claims(json!([licence(small, "small", &[SAMPLE])]));
    for path in ["/both/x", "/any/x"] {
        let answer = gateway.get(path).bearer(&half).await;
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None), "{path}");
    }
    gateway.get("/sample/x").bearer(&half).await.problem(429, "quota-exceeded");
    let unknown = claims(json!([licence(small, "gone", &[SAMPLE]), licence(large, "large", &["orders"])]));
    assert_eq!(gateway.get("/sample/x").bearer(&unknown).await.status, 200);
    // A route for any licensed token is bound by all of them.
    gateway.get("/any/x").bearer(&bound).await.problem(429, "quota-exceeded");
}

#[tokio::test]
async fn quotas_of_a_document_and_a_plan_hold_both() {
    let gateway = with_plans(vec![plan("pro", &[("requests_per_day", 2)])]).start().await;
    settle(&gateway);
    let id = LicenceId::random();
    let own = format!("licence-{id}").to_lowercase();
    let token = |quotas: Value| {
        let mut limit = licence(id, "pro", &[SAMPLE]);
        limit["quotas"] = quotas;
        token_of(gateway.now(), "acme", KeyId::random(), &[limit], None)
    };
    let first = token(json!({"requests_per_month": 3, "seats_of_something": 9}));
    let answer = gateway.get("/sample/x").bearer(&first).await;
    let expected = BTreeMap::from([("pro.day".to_owned(), 1), (format!("{own}.month"), 2)]);
    assert_eq!(left(&answer), expected);
    gateway.get("/sample/x").bearer(&first).await;
    let problem = gateway.get("/sample/x").bearer(&first).await.problem(429, "quota-exceeded");
    assert_eq!(problem["violated-policies"], json!(["pro.day"]), "the tightest");
    // The licence is renewed with less: what was counted goes on.
    let renewed = token(json!({"requests_per_month": 2}));
    let problem = gateway.get("/sample/x").bearer(&renewed).await.problem(429, "quota-exceeded");
    assert_eq!(problem["violated-policies"], json!([format!("{own}.month")]), "the longest to wait for");
    // None is none.
    let none = token(json!({"requests_per_hour": 0}));
    gateway.get("/sample/x").bearer(&none).await.problem(429, "quota-exceeded");
}

/// From the records to the answer: what an operator wrote down bounds the tokens that are got from then on.
#[tokio::test]
async fn what_an_account_and_a_key_are_on_bounds_their_tokens() {
    let plans = || vec![plan("pro", &[("requests_per_day", 2)]), plan("ci", &[("requests_per_month", 1)])];
    let gateway = with_plans(plans()).route(echo("any", &[])).start().await;
    settle(&gateway);
    gateway.group(SAMPLE, None).await;
    gateway.account("acme", Some("open sesame")).await;
    let first = gateway.licence_on("pro", "acme", &[SAMPLE], Some(gateway.now() + Duration::from_secs(86_400))).await;
    let key = gateway.key("acme").await;
    let tied = gateway.key_with("acme", |key| Key { plan: Some("ci".parse().unwrap()), ..key }).await;
    let call = async |token: &str| gateway.get("/sample/x").bearer(token).await;

    let token = gateway.token(&tied).await;
    assert_eq!(left(&call(&token).await), BTreeMap::from([("ci.month".to_owned(), 0), ("pro.day".to_owned(), 1)]));
    let problem = call(&token).await.problem(429, "quota-exceeded");
    assert_eq!(problem["violated-policies"], json!(["ci.month"]));
    // Its siblings and the password share the licence, and not the key's plan.
    assert_eq!(left(&call(&gateway.token(&key).await).await), BTreeMap::from([("pro.day".to_owned(), 0)]));
    let by_password = gateway.get("/token").basic("acme", "open sesame").await.token();
    call(&by_password).await.problem(429, "quota-exceeded");
    // That everybody reaches the Demo group does not open a route for any licensed token.
    gateway.get("/any/x").bearer(&by_password).await.problem(429, "quota-exceeded");
    assert_eq!(gateway.get("/demo/time").bearer(&by_password).await.status, 200);

    // A second subscription adds to it, and the one that ends first is used up first.
    gateway.licence_on("pro", "acme", &[SAMPLE], None).await;
    gateway.sync().await;
    let both = gateway.token(&key).await;
    assert_eq!(left(&call(&both).await), BTreeMap::from([("pro.day".to_owned(), 1)]));
    // One that has no bounds lifts them, for tokens that know of it.
    let free = gateway.licence_on("standard", "acme", &[SAMPLE], None).await;
    gateway.sync().await;
    assert_eq!(call(&gateway.token(&key).await).await.header("ratelimit"), None);
    assert_eq!(left(&call(&both).await), BTreeMap::from([("pro.day".to_owned(), 0)]));
    // And bounds them, once there is such a plan.
    let mut config = gateway.config.clone();
    config.plans.push(plan("standard", &[("requests_per_day", 1)]));
    gateway.gateway.reload(&config).await.expect("a reload");
    let token = gateway.token(&key).await;
    let mut charged = 0;
    while call(&token).await.status == 200 {
        charged += 1;
    }
    assert_eq!(charged, 1, "of {first} and {free} and the second, the last one alone has something left");
}

#[tokio::test]
async fn a_documents_quotas_bound_its_customers_tokens() {
    let vendor = VendorKey::generate().expect("a key");
    let gateway = crate::licence_documents::gateway(&vendor, &(Arc::new(MemoryStore::new()) as SharedStore)).await;
    settle(&gateway);
    gateway.group(SAMPLE, None).await;
    gateway.account("acme", None).await;
    let quotas = [("requests_per_month".to_owned(), 2), ("widgets".to_owned(), 9)].into();
    let id = crate::licence_documents::install(&gateway, &vendor, quotas).await;
    let key = gateway.key("acme").await;
    let token = gateway.token(&key).await;
    let own = format!("licence-{id}.month").to_lowercase();
    for expected in [1, 0] {
        let answer = gateway.get("/sample/x").bearer(&token).await;
        assert_eq!((answer.status, left(&answer)), (200, BTreeMap::from([(own.clone(), expected)])));
    }
    let problem = gateway.get("/sample/x").bearer(&token).await.problem(429, "quota-exceeded");
    assert_eq!(problem["violated-policies"], json!([own]));
}

#[tokio::test]
async fn keys_and_routes_have_plans_of_their_own() {
    let plans = vec![plan("key", &[("requests_per_day", 2)]), plan("route", &[("requests_per_day", 3)])];
    let mut route = echo("tight", &[SAMPLE]);
    route.plan = Some("route".parse().unwrap());
    let gateway = with_plans(plans).route(route).start().await;
    settle(&gateway);
    let [one, two, three] = [(); 3].map(|()| token_of(gateway.now(), "acme", KeyId::random(), &[], Some("key")));
    let statuses = async |path: &str, token: &str| {
        [gateway.get(path).bearer(token).await.status, gateway.get(path).bearer(token).await.status]
    };
    assert_eq!(statuses("/tight/x", &one).await, [200, 200]);
    gateway.get("/sample/x").bearer(&one).await.problem(429, "quota-exceeded");
    // The account has one left there, whichever key comes.
    assert_eq!(statuses("/tight/x", &two).await, [200, 429]);
    assert_eq!(statuses("/sample/x", &two).await, [200, 429], "what the route refused has not cost the key anything");
    assert_eq!(statuses("/sample/x", &three).await, [200, 200]);
    let other = token_of(gateway.now(), "bob", KeyId::random(), &[], None);
    assert_eq!(left(&gateway.get("/tight/x").bearer(&other).await), BTreeMap::from([("route.day".to_owned(), 2)]));
}

#[tokio::test]
async fn what_was_used_up_is_used_up_after_a_restart() {
    let limits = [("requests_per_minute", 5), ("requests_per_day", 3), ("bytes_per_month", 1_000_000)];
    let gateway = with_plans(vec![plan("pro", &limits)]).sqlite().start().await;
    settle(&gateway);
    let id = LicenceId::random();
    let token = token_of(gateway.now(), "acme", KeyId::random(), &[licence(id, "pro", &[SAMPLE])], None);
    let content = "x".repeat(1000);
    let first = gateway.post("/sample/x").bearer(&token).body(&content).await;
    let bytes = 1000 + first.body.len() as u64;
    let gateway = gateway.restart().await;
    let answer = gateway.get("/sample/x").bearer(&token).await;
    let expected = [("pro.day", 1), ("pro.minute", 3), ("pro.month-bytes", 1_000_000 - bytes)];
    assert_eq!(left(&answer), expected.map(|(name, left)| (name.to_owned(), left)).into());
    let gateway = gateway.restart().await;
    assert_eq!(gateway.get("/sample/x").bearer(&token).await.status, 200);
    let gateway = gateway.restart().await;
    gateway.get("/sample/x").bearer(&token).await.problem(429, "quota-exceeded");
}

#[tokio::test]
async fn gateways_on_one_store_count_together() {
    let plans = || vec![plan("pro", &[("requests_per_day", 10), ("requests_per_second", 7)])];
    let one = with_plans(plans()).sqlite().start().await;
    let two = with_plans(plans()).beside(&one).await.start().await;
    settle(&one);
    let token = token_of(one.now(), "acme", KeyId::random(), &[licence(LicenceId::random(), "pro", &[SAMPLE])], None);
    for turn in 0..2 {
        for gateway in [&one, &two] {
            for _ in 0..2 {
                assert_eq!(gateway.get("/sample/x").bearer(&token).await.status, 200, "{turn}");
            }
        }
        for gateway in [&one, &two, &one] {
            gateway.gateway.counts().write_plans().await.expect("written");
        }
    }
    // Eight are used up by both; of the second each has used what it was asked itself.
    for gateway in [&one, &two] {
        let answer = gateway.get("/sample/x").bearer(&token).await;
        let second = left(&answer)["pro.second"];
        assert_eq!((answer.status, second), (200, 2));
        gateway.gateway.counts().write_plans().await.expect("written");
    }
    one.gateway.counts().write_plans().await.expect("written");
    for gateway in [&two, &one] {
        let refused = gateway.get("/sample/x").bearer(&token).await;
        if refused.status == 200 {
            // What the other one has counted last is learned with the next turn that writes something.
            gateway.gateway.counts().write_plans().await.expect("written");
        }
        let problem = gateway.get("/sample/x").bearer(&token).await.problem(429, "quota-exceeded");
        assert_eq!((&problem["scope"], &problem["violated-policies"]), (&json!("all gateways"), &json!(["pro.day"])));
    }
}

#[tokio::test]
async fn plans_change_with_a_reload_and_counts_go_on() {
    let gateway = with_plans(vec![plan("pro", &[("requests_per_day", 2)])]).start().await;
    settle(&gateway);
    let token = token_of(gateway.now(), "acme", KeyId::random(), &[], Some("pro"));
    let status = async || gateway.get("/sample/x").bearer(&token).await.status;
    assert_eq!((status().await, status().await, status().await), (200, 200, 429));
    let mut config = gateway.config.clone();
    for (plans, expected) in [
        (vec![plan("pro", &[("requests_per_day", 3), ("requests_per_minute", 100)])], 200),
        (vec![plan("pro", &[("requests_per_day", 3)])], 429),
        (vec![], 200),
        (vec![plan("pro", &[("requests_per_day", 3)])], 429),
        (vec![plan("pro", &[("requests_per_hour", 50)])], 200),
    ] {
        config.plans = plans;
        assert_eq!(gateway.gateway.reload(&config).await.expect("good"), Vec::<&str>::new());
        assert_eq!(status().await, expected, "{:?}", config.plans);
    }
    config.quotas.flush_every = Duration::from_secs(9);
    assert_eq!(gateway.gateway.reload(&config).await.expect("good"), ["quotas"]);
}

#[tokio::test]
async fn proxies_that_ask_are_told_too() {
    let mut route = echo("orders", &[SAMPLE]);
    route.destination = Destination::External;
    let gateway = with_plans(vec![plan("pro", &[("requests_per_day", 2)])])
        .route(route)
        .with(|config| {
            config.forward_auth = Some(forward_auth::Settings {
                trusted: vec!["127.0.0.0/8".parse().unwrap()],
                ..forward_auth::Settings::default()
            });
        })
        .start()
        .await;
    settle(&gateway);
    for (contract, refused) in
        [("auth-request", 403), ("forward-auth", 429), ("ext-authz/orders/x", 429), ("haproxy", 429)]
    {
        let limits = [licence(LicenceId::random(), "pro", &[SAMPLE])];
        let token = token_of(gateway.now(), "acme", KeyId::random(), &limits, None);
        for (remaining, status) in [(1, 200), (0, 200), (0, refused)] {
            let call = gateway.get(&format!("/authz/{contract}")).bearer(&token);
            let call =
                call.header("X-Original-URL", "https://api.example.com/orders/x").header("X-Original-Method", "GET");
            let call = call.header("X-Forwarded-Uri", "/orders/x").header("X-Forwarded-Method", "GET");
            let call = if contract == "haproxy" { call.header("X-Original-URI", "/orders/x") } else { call };
            let call = call.header("X-Forwarded-Host", "api.example.com").header("X-Forwarded-Proto", "https");
            let answer = call.header("X-Forwarded-For", "203.0.113.7").await;
            assert_eq!(answer.status, status, "{contract}: {answer:?}");
            assert_eq!((answer.status, left(&answer)["pro.day"]), (status, remaining), "{contract}: {answer:?}");
            if status != 200 {
                assert_eq!(answer.header("x-auth-reason"), Some("quota_exceeded"));
                assert_eq!(answer.header("x-auth-status"), (refused == 403).then_some("429"), "{contract}");
                assert!(answer.header("retry-after").is_some());
            }
        }
    }
}
