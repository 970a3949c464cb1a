//! `POST /me/keys/{id}/roll`: whoever holds a key rolls it.

use std::time::Duration;

use keybearer::keys::{ApiKey, KeyPrefix};
use keybearer::limits::Rate;
use keybearer::store::MemoryStore;
use serde_json::{Value, json};

use crate::client::{BOTH, Call};
use crate::gateway::TestGateway;

/// The password of `acme` in this file, and of `other`.
const PASSWORD: &str = "open sesame";

fn path(key: &ApiKey) -> String {
    format!("/me/keys/kb_{}/roll", key.id())
}

/// Rolls a key by what it is.
fn roll<'a>(gateway: &'a TestGateway, key: &ApiKey, token: &str) -> Call<'a> {
    roll_as(gateway, key, token, json!({}))
}

/// The same, with more to say.
fn roll_as<'a>(gateway: &'a TestGateway, key: &ApiKey, token: &str, mut how: Value) -> Call<'a> {
    how["api_key"] = key.secret().expose().as_str().into();
    gateway.post(&path(key)).bearer(token).body(how.to_string())
}

fn roll_by<'a>(gateway: &'a TestGateway, key: &ApiKey, token: &str, proof: &Value) -> Call<'a> {
    gateway.post(&path(key)).bearer(token).body(proof.to_string())
}

#[tokio::test]
async fn a_key_rolls_itself_and_nobody_notices() {
    for http in BOTH {
        let gateway = TestGateway::start().await;
        let old = gateway.acme().await;
        let token = gateway.token(&old).await;
        let answer = roll(&gateway, &old, &token).over(http).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
        let said = answer.json();
        assert_eq!(said["key"], format!("kb_{}", old.id()));
        assert_eq!(said["old_secret"], json!({"ends_at": null, "grace_seconds": 86_400}));
        let text = said["api_key"].as_str().expect("the new key");
        let new = ApiKey::parse(&KeyPrefix::default(), text).expect("a good key");
        assert_eq!(new.id(), old.id());
        gateway.sync().await;

        assert_eq!(gateway.get("/whoami").bearer(&token).await.status, 200);
        assert!(gateway.token_call(&old).await.header("deprecation").is_some());
        let fresh = gateway.token(&new).await;
        let again = roll(&gateway, &old, &fresh).await;
        let problem = again.problem(409, "conflict");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("works until")), "{problem}");
    }
}

#[tokio::test]
async fn the_content_says_how() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    let call = || gateway.post(&path(&key)).bearer(&token);
    for wrong in ["", "{}", "grace=1h", "[]", "{", r#"{"grace": "1h"}"#] {
        let problem = call().body(wrong).await.problem(400, "malformed-request");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("api_key")), "{problem}");
    }
    for wrong in [
        json!({"grace": 3600}),
        json!({"grace": "31d"}),
        json!({"start": "later"}),
        json!({"force": true}),
        json!({"password": PASSWORD}),
    ] {
        roll_as(&gateway, &key, &token, wrong).await.problem(400, "malformed-request");
    }
    roll(&gateway, &key, &token).body([b' '; 5000]).await.problem(413, "content-too-large");
    let answer = roll_as(&gateway, &key, &token, json!({"grace": "10m", "start": "now"})).await;
    let end = gateway.now() + Duration::from_secs(600);
    assert_eq!(answer.json()["old_secret"], json!({"ends_at": end.to_string(), "grace_seconds": null}));

    let other = gateway.key("acme").await;
    let token = gateway.token(&other).await;
    let answer = roll_as(&gateway, &other, &token, json!({"grace": "0"})).await;
    assert_eq!(answer.json()["old_secret"]["ends_at"], gateway.now().to_string());
    gateway.sync().await;
    gateway.get("/whoami").bearer(&token).await.assert_invalid_token();
    gateway.token_call(&other).await.problem(401, "invalid-credentials");
}

/// Two keys of `acme`, and one of `other`.
async fn of_two_accounts() -> (TestGateway, [ApiKey; 3]) {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let sibling = gateway.key("acme").await;
    gateway.account("other", Some("another password")).await;
    gateway.licence("other", &[crate::gateway::SAMPLE], None).await;
    let theirs = gateway.key("other").await;
    (gateway, [key, sibling, theirs])
}

#[tokio::test]
async fn nobody_rolls_what_is_not_his() {
    let (gateway, [key, sibling, theirs]) = of_two_accounts().await;
    let nobodys = ApiKey::generate(&KeyPrefix::default());

    let by_key = gateway.token(&key).await;
    for other in [&sibling, &theirs, &nobodys] {
        roll(&gateway, other, &by_key).await.problem(403, "forbidden");
    }
    let by_password = gateway.get("/token").basic("acme", PASSWORD).await.token();
    let proof = json!({"password": PASSWORD});
    let refusals = [&theirs, &nobodys].map(|other| roll_by(&gateway, other, &by_password, &proof));
    let [of_theirs, of_nobodys] = refusals;
    assert_eq!(
        of_theirs.await.problem(404, "not-found"),
        of_nobodys.await.problem(404, "not-found"),
        "nobody learns which there are"
    );
    for path in ["/me/keys/nonsense/roll", "/me/keys/kb_x/roll"] {
        gateway.post(path).bearer(&by_password).body(proof.to_string()).await.problem(404, "not-found");
    }
    assert_eq!(roll_by(&gateway, &sibling, &by_password, &proof).await.status, 200, "any key of one's own account");
    assert_eq!(roll(&gateway, &key, &by_password).await.status, 200, "or by that very key");

    let demo = gateway.get("/demo").await.json()["token"].as_str().expect("a token").to_owned();
    let demo_key = keybearer::groups::demo::key_id();
    gateway.post(&format!("/me/keys/kb_{demo_key}/roll")).bearer(&demo).await.problem(403, "insufficient-scope");
    let call = gateway.post(&format!("/me/keys/kb_{demo_key}/roll")).bearer(&by_password);
    call.body(proof.to_string()).await.problem(404, "not-found");
    gateway.post(&format!("/me/keys/kb_{}/roll", key.id())).key(&key).await.problem(401, "missing-token");
}

/// A token is passed around more than what it was got with, and may reach less.
#[tokio::test]
async fn a_token_alone_does_not_become_a_key() {
    let (gateway, [key, sibling, theirs]) = of_two_accounts().await;
    let token = gateway.token(&key).await;
    let text = |key: &ApiKey| key.secret().expose().clone();
    let forged = ApiKey::generate(&KeyPrefix::default());
    let forged = text(&forged).replace(&forged.id().to_string(), &key.id().to_string());
    for proof in [
        json!({"api_key": "kb_nonsense"}),
        json!({"api_key": text(&sibling)}),
        json!({"api_key": text(&theirs)}),
        json!({"api_key": forged}),
        json!({"password": "another password"}),
        json!({"password": ""}),
    ] {
        let answer = roll_by(&gateway, &key, &token, &proof).await;
        let problem = answer.problem(403, "forbidden");
        assert!(!problem.to_string().contains(&text(&key)), "{problem}");
    }
    assert_eq!(gateway.token_call(&key).await.status, 200, "nothing has changed");
    assert_eq!(roll(&gateway, &key, &token).await.status, 200);
}

/// Guesses at what proves it are guesses as at the token endpoint.
#[tokio::test]
async fn a_proof_is_not_guessed_for_long() {
    let build = TestGateway::build();
    let build = build.with(|config| config.credentials.failures_per_user = Rate::new(2, Duration::from_secs(60)));
    let gateway = build.start().await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    let guess = || roll_by(&gateway, &key, &token, &json!({"password": "a guess"}));
    for _ in 0..2 {
        guess().await.problem(403, "forbidden");
    }
    let answer = guess().await;
    answer.problem(429, "too-many-requests");
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn an_account_does_not_roll_by_the_minute() {
    let gateway = TestGateway::start().await;
    gateway.acme().await;
    let token = gateway.get("/token").basic("acme", PASSWORD).await.token();
    let mut refused = 0;
    for _ in 0..12 {
        let key = gateway.key("acme").await;
        let answer = roll(&gateway, &key, &token).await;
        if answer.status != 200 {
            answer.problem(429, "too-many-requests");
            assert!(answer.header("retry-after").is_some());
            refused += 1;
        }
    }
    assert_eq!(refused, 2);
    gateway.advance(Duration::from_secs(60));
    let key = gateway.key("acme").await;
    assert_eq!(roll(&gateway, &key, &token).await.status, 200);
}

/// What is answered is in the store: a gateway that is gone right after has lost nothing.
#[tokio::test]
async fn the_new_key_works_at_every_gateway() {
    let store = std::sync::Arc::new(MemoryStore::new());
    let one = TestGateway::build().store(store.clone()).start().await;
    let two = TestGateway::build().store(store).start().await;
    let key = one.acme().await;
    let token = one.token(&key).await;
    let answer = roll(&one, &key, &token).await.json();
    let new = ApiKey::parse(&KeyPrefix::default(), answer["api_key"].as_str().expect("a key")).expect("a good key");
    assert_eq!(two.token_call(&new).await.status, 200);
}
