//! Rolling a key: what its callers see with either secret, and when the old one ends.

use std::time::Duration;

use keybearer::clock::Timestamp;
use keybearer::keys::{ApiKey, Key, Start};
use keybearer::routes::{Destination, Resource, RouteSettings};

use super::another_secret_of;
use crate::client::Answer;
use crate::forge;
use crate::gateway::{SAMPLE, TestGateway};

const HOUR: Duration = Duration::from_secs(3600);

async fn record(gateway: &TestGateway, key: &ApiKey) -> Key {
    gateway.store.key(key.id()).await.expect("a read").expect("a key")
}

/// The notices on an answer.
fn notices(answer: &Answer) -> (Option<&str>, Option<&str>) {
    (answer.header("deprecation"), answer.header("sunset"))
}

/// Moves time, and lets the gateway know that the store still agrees.
async fn advance(gateway: &TestGateway, by: Duration) {
    gateway.advance(by);
    gateway.sync().await;
}

/// Lets the gateway's own tasks run until `done`.
async fn settle(gateway: &TestGateway, done: impl AsyncFn() -> bool) {
    for _ in 0..400 {
        if done().await {
            return;
        }
        gateway.advance(Duration::from_millis(250));
        tokio::task::yield_now().await;
        gateway.get("/health/live").await;
    }
    panic!("it does not come about");
}

#[tokio::test]
async fn the_old_secret_goes_on_until_a_grace_after_the_new_one_is_used() {
    let gateway = TestGateway::start().await;
    let old = gateway.acme().await;
    let before = gateway.token_call(&old).await;
    assert_eq!(notices(&before), (None, None));
    let rolled_at = gateway.now().secs();
    let new = gateway.roll(&old, "2h", Start::FirstUse).await;
    assert_eq!(new.id(), old.id());

    // Nobody has the new one yet, however long that takes. What is got with the old one says so.
    let since = format!("@{rolled_at}");
    advance(&gateway, 100 * HOUR).await;
    let answer = gateway.token_call(&old).await;
    let token = answer.token();
    assert_eq!(notices(&answer), (Some(since.as_str()), None), "the end is not known");
    let claims = forge::claims(&token);
    assert_eq!(claims["deprecated"], serde_json::json!({"since": rolled_at}));
    let called = gateway.get("/sample/x").bearer(&token).await;
    assert_eq!((called.status, notices(&called)), (200, (Some(since.as_str()), None)));

    // The new one is used: from now on it is known when the old one ends.
    let first_use = gateway.now();
    let answer = gateway.token_call(&new).await;
    assert_eq!(notices(&answer), (None, None), "{answer:?}");
    let fresh = answer.token();
    assert_eq!(forge::claims(&fresh).get("deprecated"), None, "a claim that says nothing is left out");
    let end = first_use + 2 * HOUR;
    assert_eq!(record(&gateway, &old).await.old_ends_at(), Some(end));
    let (since, sunset) = (Some(since.as_str()), end.http_date());
    let answer = gateway.token_call(&old).await;
    assert_eq!(notices(&answer), (since, sunset.as_deref()));
    let called = gateway.get("/whoami").bearer(answer.token()).await;
    assert_eq!((called.status, notices(&called)), (200, (since, sunset.as_deref())));
    assert_eq!(notices(&gateway.get("/whoami").bearer(&fresh).await), (None, None));

    // Half an hour before the end a token is good for half an hour; and at the end there is none.
    advance(&gateway, 2 * HOUR - Duration::from_secs(1800)).await;
    let last = gateway.token_call(&old).await;
    assert_eq!(last.json()["expires_in"], 1800);
    advance(&gateway, Duration::from_secs(1799)).await;
    assert_eq!(gateway.get("/whoami").bearer(last.token()).await.status, 200);
    assert_eq!(gateway.token_call(&old).await.status, 200);
    advance(&gateway, Duration::from_secs(1)).await;
    gateway.token_call(&old).await.problem(401, "invalid-credentials");
    gateway.get("/whoami").bearer(last.token()).await.assert_invalid_token();
    assert_eq!(gateway.token_call(&new).await.status, 200);
}

#[tokio::test]
async fn tokens_from_before_a_short_grace_end_with_it_and_those_of_the_new_secret_do_not() {
    let gateway = TestGateway::build().sqlite().start().await;
    let old = gateway.acme().await;
    let before = gateway.token(&old).await;
    let new = gateway.roll(&old, "10m", Start::Now).await;
    advance(&gateway, Duration::from_secs(60)).await;
    let since = gateway.token(&old).await;
    let fresh = gateway.token(&new).await;
    assert_eq!(gateway.get("/whoami").bearer(&before).await.status, 200, "nobody is interrupted");
    advance(&gateway, Duration::from_secs(540)).await;
    gateway.get("/whoami").bearer(&since).await.assert_invalid_token();
    settle(&gateway, async || gateway.get("/whoami").bearer(&before).await.status == 401).await;
    assert_eq!(gateway.get("/whoami").bearer(&fresh).await.status, 200);
    let half = record(&gateway, &old).await.previous.expect("it is told that there was one");
    assert_eq!(half.hash, None, "its hash is cleared away");
}

#[tokio::test]
async fn without_a_grace_the_old_secret_and_its_tokens_end_at_once() {
    let gateway = TestGateway::start().await;
    let old = gateway.acme().await;
    let token = gateway.token(&old).await;
    let new = gateway.roll(&old, "0", Start::FirstUse).await;
    gateway.get("/whoami").bearer(&token).await.assert_invalid_token();
    gateway.token_call(&old).await.problem(401, "invalid-credentials");
    assert_eq!(gateway.get("/whoami").bearer(gateway.token(&new).await).await.status, 200);
}

#[tokio::test]
async fn an_old_secret_is_ended_early_by_decision() {
    let gateway = TestGateway::start().await;
    let old = gateway.acme().await;
    let new = gateway.roll(&old, "24h", Start::Now).await;
    let token = gateway.token(&old).await;
    gateway.keys().end_old(old.id()).await.expect("ended");
    gateway.sync().await;
    gateway.token_call(&old).await.problem(401, "invalid-credentials");
    gateway.get("/whoami").bearer(&token).await.assert_invalid_token();
    assert_eq!(gateway.get("/whoami").bearer(gateway.token(&new).await).await.status, 200);
}

/// Two gateways on one database meet the new secret at once: one writes the end, and both say the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_agree_when_the_old_secret_ends() {
    let one = TestGateway::build().sqlite().start().await;
    let two = TestGateway::build().beside(&one).await.start().await;
    let old = one.acme().await;
    let new = one.roll(&old, "1h", Start::FirstUse).await;
    two.sync().await;
    let (first, second) = tokio::join!(one.token_call(&new), two.token_call(&new));
    assert_eq!((first.status, second.status), (200, 200));
    let end = record(&one, &old).await.old_ends_at().expect("an end");
    one.sync().await;
    two.sync().await;
    for gateway in [&one, &two] {
        let answer = gateway.token_call(&old).await;
        assert_eq!(answer.header("sunset"), end.http_date().as_deref());
        // What one of them issued, the other knows by the token alone.
        for other in [&one, &two] {
            let called = other.get("/whoami").bearer(answer.token()).await;
            assert_eq!(called.header("sunset"), end.http_date().as_deref());
        }
    }
}

#[tokio::test]
async fn a_gateway_that_starts_anew_still_says_it_of_every_token() {
    let gateway = TestGateway::build().sqlite().start().await;
    let old = gateway.acme().await;
    gateway.roll(&old, "24h", Start::Now).await;
    let answer = gateway.token_call(&old).await;
    let (said, token) = (answer.header("sunset").map(str::to_owned), answer.token());
    let gateway = gateway.restart().await;
    let called = gateway.get("/whoami").bearer(&token).await;
    assert_eq!((called.status, called.header("sunset")), (200, said.as_deref()));
}

#[tokio::test]
async fn the_key_ends_and_so_do_both_secrets() {
    let gateway = TestGateway::start().await;
    gateway.acme().await;
    let end = gateway.now() + HOUR;
    let old = gateway.key_with("acme", |key| Key { expires_at: Some(end), ..key }).await;
    let new = gateway.roll(&old, "24h", Start::Now).await;
    let answer = gateway.token_call(&old).await;
    assert_eq!(answer.header("sunset"), end.http_date().as_deref(), "no grace goes beyond that");
    advance(&gateway, HOUR).await;
    for key in [&old, &new] {
        gateway.token_call(key).await.problem(401, "invalid-credentials");
    }
}

/// Callers with either secret, one after the other: neither drives the other's proof out of memory.
#[tokio::test]
async fn a_wrong_secret_is_refused_while_both_work() {
    let gateway = TestGateway::start().await;
    let old = gateway.acme().await;
    let new = gateway.roll(&old, "24h", Start::Now).await;
    for _ in 0..3 {
        assert_eq!(gateway.token_call(&old).await.status, 200);
        assert_eq!(gateway.token_call(&new).await.status, 200);
        let wrong = another_secret_of(&new);
        gateway.get("/token").basic(&wrong, "").await.problem(401, "invalid-credentials");
    }
    assert_eq!(gateway.gateway.remembered_credentials(), 2);
}

#[tokio::test]
async fn it_is_seen_when_either_secret_was_last_used() {
    let gateway = TestGateway::build().sqlite().start().await;
    let old = gateway.acme().await;
    let minute = |at: Timestamp| Some(Timestamp::from_secs(at.secs() - at.secs() % 60));
    gateway.token(&old).await;
    let first = gateway.now();
    settle(&gateway, async || record(&gateway, &old).await.used_at == minute(first)).await;
    let version = gateway.store.version().await.expect("a version");
    advance(&gateway, HOUR).await;
    gateway.token(&old).await;
    let second = gateway.now();
    settle(&gateway, async || record(&gateway, &old).await.used_at == minute(second)).await;
    assert_eq!(gateway.store.version().await.expect("a version"), version, "no cache is emptied for it");

    let new = gateway.roll(&old, "24h", Start::Now).await;
    let rolled = record(&gateway, &old).await;
    assert_eq!((rolled.used_at, rolled.previous.and_then(|half| half.used_at)), (None, minute(second)));
    advance(&gateway, HOUR).await;
    gateway.token(&old).await;
    let with_old = gateway.now();
    advance(&gateway, HOUR).await;
    gateway.token(&new).await;
    let with_new = gateway.now();
    // What is not written yet is written at the end.
    let gateway = gateway.restart().await;
    let key = record(&gateway, &old).await;
    assert_eq!((key.used_at, key.previous.and_then(|half| half.used_at)), (minute(with_new), minute(with_old)));
}

/// Forward-auth says it to the proxy, and a guarded path with an upstream to the client.
#[tokio::test]
async fn other_proxies_hear_of_it() {
    let gateway = TestGateway::build()
        .with(|config| {
            let trusted = vec!["127.0.0.0/8".parse().expect("a network")];
            config.forward_auth = Some(keybearer::forward_auth::Settings { trusted, ..Default::default() });
            config.routes = vec![RouteSettings {
                groups: vec![SAMPLE.parse().expect("a group")],
                destination: Destination::External,
                ..RouteSettings::new(
                    "orders".parse().expect("an id"),
                    "/orders/*".parse().expect("a path"),
                    Resource::Echo,
                )
            }];
        })
        .start()
        .await;
    let old = gateway.acme().await;
    gateway.roll(&old, "24h", Start::Now).await;
    let answer = gateway.token_call(&old).await;
    let asked = gateway
        .get("/authz/forward-auth")
        .header("X-Forwarded-Method", "GET")
        .header("X-Forwarded-Uri", "/orders/1")
        .header("X-Forwarded-Host", "api.example.com")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-For", "203.0.113.7")
        .bearer(answer.token())
        .await;
    assert_eq!(asked.status, 200);
    assert_eq!(notices(&asked), notices(&answer));
    assert!(notices(&answer).1.is_some());
}
