//! §4 Groups and licences.

use std::time::Duration;

use keybearer::accounts::Account;
use keybearer::ids::LicenceId;
use keybearer::licences::Licence;
use keybearer::persist::{Cut, Update};
use serde_json::json;

use crate::client::BOTH;
use crate::forge;
use crate::gateway::{SAMPLE, TestGateway};

/// §4: after a licence's end the keys below it get 401 and their tokens stop working; no token outlives it.
#[tokio::test]
async fn a_licence_ends_its_keys_and_tokens_at_its_end() {
    let gateway = TestGateway::start().await;
    let end = gateway.now() + Duration::from_secs(1800);
    gateway.group(SAMPLE, None).await;
    gateway.account("acme", Some("password")).await;
    gateway.licence("acme", &[SAMPLE], Some(end)).await;
    let key = gateway.key("acme").await;
    let mut tokens = Vec::new();
    for step in [0, 600, 1199] {
        gateway.advance(Duration::from_secs(step));
        for call in [gateway.token_call(&key), gateway.get("/token").basic("acme", "password")] {
            let token = call.await.token();
            assert_eq!(forge::claims(&token)["exp"].as_u64(), Some(end.secs()), "never past the licence's end");
            tokens.push(token);
        }
    }
    for token in &tokens {
        assert_eq!(gateway.get("/sample/x").bearer(token).await.status, 200);
    }
    gateway.advance(Duration::from_secs(1));
    for http in BOTH {
        gateway.token_call(&key).over(http).await.problem(401, "invalid-credentials");
        gateway.get("/token").basic("acme", "password").over(http).await.problem(401, "invalid-credentials");
        for token in &tokens {
            gateway.get("/sample/x").bearer(token).over(http).await.assert_invalid_token();
        }
    }
    // A new licence, and the same key works again.
    gateway.licence("acme", &[SAMPLE], None).await;
    gateway.sync().await;
    assert_eq!(gateway.token_call(&key).await.status, 200);
}

/// §4: a licence that has not begun grants nothing yet.
#[tokio::test]
async fn a_licence_begins_at_its_start() {
    let gateway = TestGateway::start().await;
    gateway.group(SAMPLE, None).await;
    gateway.account("acme", None).await;
    let key = gateway.key("acme").await;
    let licence = Licence {
        id: LicenceId::random(),
        account: "acme".parse().expect("a name"),
        groups: crate::gateway::group_set(&[SAMPLE]),
        plan: String::new(),
        starts_at: gateway.now() + Duration::from_secs(60),
        ends_at: None,
        suspended: false,
        seats: None,
        trial: false,
        document: None,
        quotas: [].into(),
        created_at: gateway.now(),
    };
    assert!(gateway.store.insert_licence(&licence).await.expect("stored"));
    gateway.token_call(&key).await.problem(401, "invalid-credentials");
    gateway.advance(Duration::from_millis(59_999));
    gateway.token_call(&key).await.problem(401, "invalid-credentials");
    gateway.advance(Duration::from_millis(1));
    assert_eq!(gateway.token_call(&key).await.json()["scope"], "demo sample");
}

/// §4: a credential reaches the groups that it was licensed for.
#[tokio::test]
async fn each_licence_adds_its_groups_and_takes_them_along_when_it_ends() {
    let gateway = TestGateway::start().await;
    gateway.group(SAMPLE, None).await;
    gateway.group("orders", None).await;
    gateway.account("acme", None).await;
    let end = gateway.now() + Duration::from_secs(600);
    gateway.licence("acme", &[SAMPLE], None).await;
    gateway.licence("acme", &["orders"], Some(end)).await;
    let key = gateway.key("acme").await;
    let both = gateway.token_call(&key).await.json();
    assert_eq!((&both["scope"], &both["expires_in"]), (&json!("demo orders sample"), &json!(600)));
    gateway.advance(Duration::from_secs(600));
    let one = gateway.token_call(&key).await.json();
    assert_eq!((&one["scope"], &one["expires_in"]), (&json!("demo sample"), &json!(3600)));
}

/// §4: an ended account is as good as none.
#[tokio::test]
async fn an_account_ends_at_its_end() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let end = gateway.now() + Duration::from_secs(60);
    gateway.update_account("acme", |account| (Account { expires_at: Some(end), ..account }, Cut::No)).await;
    gateway.sync().await;
    let answer = gateway.token_call(&key).await;
    assert_eq!(answer.json()["expires_in"], 60);
    gateway.advance(Duration::from_secs(60));
    gateway.token_call(&key).await.problem(401, "invalid-credentials");
    gateway.get("/sample/x").bearer(answer.token()).await.assert_invalid_token();
}

/// §4: suspending a licence with a cut ends the tokens got under it; resuming it makes the key good again.
#[tokio::test]
async fn a_suspended_licence_cuts_and_a_resumed_one_grants() {
    let gateway = TestGateway::start().await;
    gateway.group(SAMPLE, None).await;
    gateway.account("acme", None).await;
    let licence = gateway.licence("acme", &[SAMPLE], None).await;
    let key = gateway.key("acme").await;
    let token = gateway.token(&key).await;
    let now = gateway.now();
    let set = async |suspended: bool, cut: Cut| {
        let change = move |licence| Update::Write(Licence { suspended, ..licence }, cut);
        gateway.store.update_licence(&licence, &change).await.expect("stored");
        gateway.sync().await;
    };
    set(true, Cut::Now(now)).await;
    gateway.token_call(&key).await.problem(401, "invalid-credentials");
    gateway.get("/sample/x").bearer(&token).await.assert_invalid_token();
    set(false, Cut::No).await;
    let renewed = gateway.token(&key).await;
    assert_eq!(gateway.get("/sample/x").bearer(&renewed).await.status, 200, "even in the same second");
    gateway.get("/sample/x").bearer(&token).await.assert_invalid_token();
}

/// §4: of a deleted group nothing is granted.
#[tokio::test]
async fn a_deleted_group_is_granted_no_more() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    gateway.group("extra", None).await;
    gateway.licence("acme", &["extra"], None).await;
    gateway.sync().await;
    assert_eq!(gateway.token_call(&key).await.json()["scope"], "demo extra sample");
    assert!(gateway.store.delete_group(&"extra".parse().expect("a group")).await.expect("stored"));
    gateway.sync().await;
    assert_eq!(gateway.token_call(&key).await.json()["scope"], "demo sample");
}
