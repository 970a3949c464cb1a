//! Credentials from another system: they work as they did, and are hashed anew at their first use.

use std::time::Duration;

use aws_lc_rs::digest;
use keybearer::accounts::Account;
use keybearer::credentials::{Kept, PasswordHash};
use keybearer::keys::Key;
use keybearer::persist::Cut;

use super::another_secret_of;
use crate::gateway::TestGateway;

/// Waits for what the gateway does beside the request.
async fn until(done: impl AsyncFn() -> bool) {
    for _ in 0..2_000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it does not come about");
}

#[tokio::test]
async fn a_key_with_a_foreign_hash_works_and_is_hashed_anew() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let sha: String = digest::digest(&digest::SHA256, key.secret().expose().as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let hash = PasswordHash::import(&sha, Kept::Key).expect("a hash");
    gateway.update_key(&key, |old| (Key { hash: hash.clone(), ..old }, Cut::No)).await;
    gateway.sync().await;
    assert_eq!(gateway.token_call(&key).await.status, 200);
    let stored = async || gateway.store.key(key.id()).await.expect("a read").expect("a key").hash;
    until(async || stored().await.has_check_value()).await;
    assert!(stored().await.is_argon2id());
    gateway.sync().await;
    assert_eq!(gateway.token_call(&key).await.status, 200, "it works by the new hash");
    let wrong = another_secret_of(&key);
    gateway.get("/token").basic(&wrong, "").await.problem(401, "invalid-credentials");
}

#[tokio::test]
async fn a_password_with_a_foreign_hash_works_and_is_hashed_anew() {
    let gateway = TestGateway::start().await;
    gateway.acme().await;
    // Python: hashlib.pbkdf2_hmac("sha256", b"open sesame", b"0123456789abcdef", 1000)
    let hash = "pbkdf2_sha256$1000$0123456789abcdef$Mqp8wAsrOsjVEIymTD0kATxTpTf4f+0ZMgQPDlukk/w=";
    let hash = PasswordHash::import(hash, Kept::Password).expect("a hash");
    gateway.update_account("acme", |account| (Account { password: Some(hash.clone()), ..account }, Cut::No)).await;
    gateway.sync().await;
    gateway.get("/token").basic("acme", "open sesam").await.problem(401, "invalid-credentials");
    assert_eq!(gateway.get("/token").basic("acme", "open sesame").await.status, 200);
    let name = "acme".parse().expect("a name");
    let stored = async || gateway.store.account(&name).await.expect("a read").and_then(|account| account.password);
    until(async || stored().await.is_some_and(|hash| hash.is_argon2id())).await;
    gateway.sync().await;
    assert_eq!(gateway.get("/token").basic("acme", "open sesame").await.status, 200);
}

/// So were all keys hashed by earlier versions: nothing of theirs rules a wrong one out without a hash.
#[tokio::test]
async fn a_keys_hash_without_a_check_value_works_and_is_made_anew() {
    let gateway = TestGateway::build().sqlite().start().await;
    let key = gateway.acme().await;
    let hash = gateway.hash(key.secret().expose(), Kept::Password);
    assert!(!hash.has_check_value());
    gateway.update_key(&key, |old| (Key { hash: hash.clone(), ..old }, Cut::No)).await;
    gateway.sync().await;
    gateway.get("/token").basic(&another_secret_of(&key), "").await.problem(401, "invalid-credentials");
    let token = gateway.token(&key).await;
    let stored = async || gateway.store.key(key.id()).await.expect("a read").expect("a key").hash;
    until(async || stored().await.has_check_value()).await;
    gateway.sync().await;
    assert_eq!(gateway.get("/whoami").bearer(&token).await.status, 200, "nothing is revoked by that");
    assert_eq!(gateway.token_call(&key).await.status, 200);
    gateway.get("/token").basic(&another_secret_of(&key), "").await.problem(401, "invalid-credentials");
}
