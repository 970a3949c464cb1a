//! Libraries for OAuth clients. Each script does every operation of the table, and says which have passed.

use serde_json::json;

use crate::gateway::SAMPLE;
use crate::scene::{OTHER, Scene};
use crate::script::Script;

/// What every library is taken through; the columns of the table.
pub const OPERATIONS: [&str; 8] = [
    "metadata",
    "token, basic",
    "token, post",
    "narrowed scope",
    "introspection",
    "revocation",
    "invalid_client",
    "invalid_scope",
];

const ACCOUNT: &str = "bob-1";

/// Some libraries encode it for Basic as a form would (RFC 6749 §2.3.1), others send it as it is (RFC 7617).
const PASSWORD: &str = "open: 100 % sesame+more &c=";

async fn play(script: &str) {
    let scene = Scene::start(|_| ()).await;
    scene.gateway.account(ACCOUNT, Some(PASSWORD)).await;
    scene.gateway.licence(ACCOUNT, &[SAMPLE], None).await;
    let test = json!({
        "issuer": scene.url,
        "client_id": scene.gateway.config.key_prefix.name_of(scene.key.id()),
        "client_secret": scene.key.secret().expose(),
        "account": ACCOUNT, "password": PASSWORD,
        // Every group of the credential, as it is granted when nothing is asked for.
        "scope": format!("{OTHER} {SAMPLE}"),
        "guarded": format!("{}/sample/orders/1", scene.url),
        "needed": SAMPLE,
        "other": OTHER,
    });
    let Some(script) = Script::start(script, &scene.gateway, &test) else { return };
    let passed = script.end().await;
    let all: Vec<_> = OPERATIONS.map(|name| json!({"passed": name})).into();
    assert_eq!(passed, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oauth4webapi_does_every_operation() {
    play("oauth4webapi.mjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openid_client_does_every_operation() {
    play("openid_client.mjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authlib_does_every_operation() {
    play("authlib_client.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_oauthlib_does_every_operation() {
    play("requests_oauthlib_client.py").await;
}
