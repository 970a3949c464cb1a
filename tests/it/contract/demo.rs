//! §4 The Demo group.

use std::time::Duration;

use keybearer::credentials::Kept;
use keybearer::groups::demo;
use keybearer::ids::Groups;
use keybearer::keys::{ApiKey, Key, KeyPrefix};
use keybearer::limits::Rate;
use keybearer::revocations::Target;
use serde_json::json;

use crate::client::BOTH;
use crate::forge;
use crate::gateway::{SAMPLE, TestGateway};

const KEY: &str = "kb_demodemodemo_ThisKeyIsPublicAndOpensDemoOnly01bQJ3X";

/// §4: the published key is a constant, needs no password, and opens the Demo group.
#[tokio::test]
async fn the_published_key_opens_the_demo_group() {
    let gateway = TestGateway::start().await;
    for http in BOTH {
        let answer = gateway.get("/token").basic(KEY, "").over(http).await;
        let token = answer.token();
        assert_eq!(answer.json()["scope"], "demo");
        assert_eq!(forge::claims(&token)["groups"], json!(["demo"]));
        assert_eq!(gateway.get("/demo/time").bearer(&token).over(http).await.status, 200);
        assert_eq!(gateway.post("/demo/echo").bearer(&token).body("x").over(http).await.status, 200);
    }
    let shown = gateway.get("/demo").await.json();
    assert_eq!(shown["key"], KEY);
    assert!(gateway.get("/").await.body.contains(KEY), "it is on the developer page");
    // It is compared whole, not by its id.
    let body = format!("kb_demodemodemo_{}", "A".repeat(32));
    let checksum = keybearer::random::to_base62(u64::from(crc32fast::hash(body.as_bytes())), 6);
    gateway.get("/token").basic(&format!("{body}{checksum}"), "").await.problem(401, "invalid-credentials");
    gateway.get("/token").basic(KEY, "password").await.problem(401, "invalid-credentials");
}

/// §4: whoever is licensed for anything reaches the Demo group too, but not the other way round.
#[tokio::test]
async fn the_demo_key_reaches_nothing_else_whatever_the_store_says() {
    let gateway = TestGateway::start().await;
    gateway.acme().await;
    // As someone with the database in his hands might try: an account, a licence and a key by the demo key's name.
    gateway.account("demo", Some("password")).await;
    gateway.licence("demo", &[SAMPLE], None).await;
    let key = ApiKey::parse(&KeyPrefix::default(), KEY).expect("a key");
    let record = Key {
        groups: Some(Groups::from([SAMPLE.parse().expect("a group")])),
        ..Key::new(*key.id(), demo::account(), gateway.hash(KEY, Kept::Key), gateway.now())
    };
    let _ = gateway.store.insert_key(&record).await;
    gateway.sync().await;
    let token = gateway.get("/token").basic(KEY, "").await.token();
    let published = gateway.get("/demo").await.json()["token"].as_str().expect("a token").to_owned();
    for token in [&token, &published] {
        assert_eq!(forge::claims(token)["scope"], "demo");
        let answer = gateway.get("/sample/x").bearer(token).await;
        assert_eq!(answer.problem(403, "insufficient-scope")["missing_group"], SAMPLE);
        assert_eq!(gateway.get("/demo/time").bearer(token).await.status, 200);
    }
}

/// §4: it cannot reach what operators use.
#[tokio::test]
async fn the_demo_token_is_of_no_use_at_the_admin_listener() {
    let gateway = TestGateway::start().await;
    let token = gateway.get("/token").basic(KEY, "").await.token();
    for path in ["/accounts", "/keys", "/token", "/demo/time", "/whoami"] {
        let answer = gateway.admin("GET", path).bearer(&token).await;
        assert_eq!(answer.status, 404, "{path}: there is nothing there, and the token opens nothing: {answer:?}");
    }
}

/// §4: tokens by the demo key, and calls with a demo token, are rate-limited by client address.
#[tokio::test]
async fn demo_use_is_limited_by_address() {
    let build = TestGateway::build().behind_proxy(&["127.0.0.0/8"]).with(|config| {
        config.demo.tokens_per_address = Rate::new(3, Duration::from_secs(60));
        config.demo.requests_per_address = Rate::new(5, Duration::from_secs(60));
    });
    let gateway = build.start().await;
    let key = gateway.acme().await;
    let from = |path, address: &str| {
        gateway.by_proxy(path).header("x-forwarded-proto", "https").header("x-forwarded-for", address)
    };
    let mut token = String::new();
    for _ in 0..3 {
        token = from("/token", "192.0.2.1").basic(KEY, "").await.token();
    }
    let answer = from("/token", "192.0.2.1").basic(KEY, "").await;
    answer.problem(429, "too-many-requests");
    assert_eq!(answer.header("retry-after"), Some("20"), "a third of a minute");
    assert_eq!(from("/token", "192.0.2.2").basic(KEY, "").await.status, 200, "another address has its own");
    for _ in 0..5 {
        assert_eq!(from("/demo/time", "192.0.2.1").bearer(&token).await.status, 200);
    }
    let answer = from("/demo/time", "192.0.2.1").bearer(&token).await;
    answer.problem(429, "too-many-requests");
    assert_eq!(answer.header("retry-after"), Some("12"));
    // The published token is the same to the limit: it counts the address, not the token.
    let published = gateway.get("/demo").await.json()["token"].as_str().expect("a token").to_owned();
    assert_eq!(from("/demo/time", "192.0.2.1").bearer(&published).await.status, 429);
    assert_eq!(from("/demo/time", "192.0.2.2").bearer(&published).await.status, 200);
    // One IPv6 client has a whole /64.
    for n in 1..=3 {
        assert_eq!(from("/token", &format!("2001:db8:0:1::{n}")).basic(KEY, "").await.status, 200);
    }
    assert_eq!(from("/token", "2001:db8:0:1:ffff::9").basic(KEY, "").await.status, 429);
    assert_eq!(from("/token", "2001:db8:0:2::1").basic(KEY, "").await.status, 200);

    // A licensed client of the same address is not concerned.
    let own = from("/token", "192.0.2.1").key(&key).await.token();
    for _ in 0..20 {
        assert_eq!(from("/demo/time", "192.0.2.1").bearer(&own).await.status, 200);
    }
    gateway.advance(Duration::from_secs(20));
    assert_eq!(from("/token", "192.0.2.1").basic(KEY, "").await.status, 200, "and it is not for ever");
}

/// §4: the published token works, and is renewed before it expires.
#[tokio::test]
async fn the_published_token_is_renewed_before_it_expires() {
    let gateway = TestGateway::start().await;
    let published = async || {
        let answer = gateway.get("/demo").await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let shown = answer.json();
        (shown["token"].as_str().expect("a token").to_owned(), shown["expires_in"].as_u64().expect("seconds"))
    };
    let (first, life) = published().await;
    assert_eq!(life, 24 * 3600);
    for hours in 1..=60 {
        let (token, left) = published().await;
        assert!(left >= life / 2, "after {hours} h it has {left} s");
        assert_eq!(forge::claims(&token)["exp"].as_u64(), Some(gateway.now().secs() + left), "true to the second");
        assert_eq!(gateway.get("/demo/time").bearer(&token).await.status, 200);
        gateway.advance(Duration::from_secs(3600));
    }
    gateway.get("/demo/time").bearer(&first).await.assert_invalid_token();
}

/// §4: a published token that was revoked is replaced.
#[tokio::test]
async fn the_published_token_is_replaced_when_it_is_revoked() {
    let gateway = TestGateway::start().await;
    let token = async || gateway.get("/demo").await.json()["token"].as_str().expect("a token").to_owned();
    let first = token().await;
    assert_eq!(first, token().await, "it is one token, not one for each who asks");
    gateway.store.revoke(&Target::All, gateway.now(), false).await.expect("stored");
    gateway.sync().await;
    gateway.get("/demo/time").bearer(&first).await.assert_invalid_token();
    let second = token().await;
    assert_ne!(first, second);
    assert_eq!(gateway.get("/demo/time").bearer(&second).await.status, 200);
}

/// §4: an operator may close it.
#[tokio::test]
async fn a_closed_demo_group_is_closed() {
    let gateway = TestGateway::build().with(|config| config.demo.enabled = false).start().await;
    let key = gateway.acme().await;
    gateway.get("/token").basic(KEY, "").await.problem(401, "invalid-credentials");
    let token = gateway.token_call(&key).await;
    assert_eq!(token.json()["scope"], "sample");
    for path in ["/demo", "/demo/time", "/demo/echo"] {
        assert_eq!(gateway.get(path).await.status, 401, "{path}");
        assert_eq!(gateway.get(path).bearer(token.token()).await.status, 404, "{path}");
    }
    let page = gateway.get("/").await.body;
    let header = forge::ours().key.encoded_header();
    assert!(!page.contains(header) && !page.contains(KEY), "nothing to copy is shown");
}
