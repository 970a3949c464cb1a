//! Revocation (RFC 7009): what is ended is dead at once and for good; what is not one's own is left alone.

use std::sync::Arc;

use keybearer::store::MemoryStore;

use super::{Scene, grant};
use crate::client::{Answer, BOTH, Call, Http};
use crate::forge;
use crate::gateway::TestGateway;

fn revoke<'a>(gateway: &'a TestGateway, token: &str) -> Call<'a> {
    gateway.post("/revoke").form(&[("token", token)])
}

/// RFC 7009 §2.2: 200 with nothing in it, whatever became of the token.
#[track_caller]
fn answered(answer: &Answer) {
    assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{answer:?}");
    assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
}

/// The store is not asked what happened before the answer is there: the clock stands still, so no follower has looked.
#[tokio::test]
async fn a_token_is_dead_at_once_and_no_other_is() {
    let scene = Scene::start().await;
    let gateway = &scene.gateway;
    let second = gateway.key("acme").await;
    let witness = gateway.token(&scene.key).await;
    for http in BOTH {
        for (n, hint) in ["access_token", "refresh_token", "x"].into_iter().enumerate() {
            let token = gateway.token(&scene.key).await;
            let mut form = vec![("token", token.as_str()), ("token_type_hint", hint)];
            if n == 2 {
                form.push(("client_id", second.secret().expose()));
            }
            let call = gateway.post("/revoke").form(&form).over(http);
            let call = match n {
                0 => call.key(&scene.key),
                1 => call.basic("acme", "open sesame"),
                _ => call,
            };
            assert!(scene.is_alive(&token).await);
            answered(&call.await);
            assert!(!scene.is_alive(&token).await, "{hint}");
            answered(&revoke(gateway, &token).over(http).key(&scene.key).await);
        }
        // With nothing but the token itself.
        let token = gateway.token(&scene.key).await;
        answered(&revoke(gateway, &token).bearer(&token).over(http).await);
        assert!(!scene.is_alive(&token).await);
        revoke(gateway, &token).bearer(&token).over(http).await.oauth_error(401, "invalid_token");
        assert!(scene.is_alive(&witness).await, "the others of the account live");
    }
}

/// One `jti` is one token, however it is presented and wherever it was known.
#[tokio::test]
async fn it_is_dead_in_every_spelling() {
    let scene = Scene::start().await;
    let gateway = &scene.gateway;
    let claims = forge::good_claims(gateway.now());
    // Two signed texts of the same claims: the registry knows them by different digests, or not at all.
    let forge = forge::ours();
    let spaced = forge.sign(&forge.header().to_string().replace(',', " ,"), &claims.to_string());
    let plain = forge.with_claims(&claims);
    assert_ne!(spaced, plain);
    assert!(scene.is_alive(&plain).await);
    answered(&revoke(gateway, &spaced).key(&scene.key).await);
    for token in [&spaced, &plain] {
        assert!(!scene.is_alive(token).await);
        let answer = gateway.post("/introspect").form(&[("token", token)]).key(&scene.key).await;
        assert_eq!(answer.body, "{\"active\":false}");
        for http in BOTH {
            for scheme in ["bearer", "BEARER", "Bearer  "] {
                let call = gateway.get("/whoami").header("authorization", format!("{scheme} {token}")).over(http);
                call.await.assert_invalid_token();
            }
        }
    }
}

#[tokio::test]
async fn a_foreign_token_is_left_alone_unless_an_operator_ends_it() {
    let scene = Scene::start().await;
    let gateway = &scene.gateway;
    for http in BOTH {
        let (own, foreign) = (gateway.token(&scene.key).await, gateway.token(&scene.other).await);
        answered(&revoke(gateway, &foreign).over(http).key(&scene.key).await);
        answered(&revoke(gateway, &foreign).over(http).bearer(&own).await);
        let operators = gateway.token(&scene.operator).await;
        answered(&revoke(gateway, &foreign).over(http).bearer(&operators).await);
        assert!(scene.is_alive(&foreign).await);
        answered(&revoke(gateway, &foreign).over(http).key(&scene.operator).await);
        assert!(!scene.is_alive(&foreign).await);
        assert!(scene.is_alive(&own).await);
        for nonsense in ["nonsense", &forge::a_strangers().with_claims(&forge::good_claims(gateway.now()))] {
            answered(&revoke(gateway, nonsense).over(http).key(&scene.key).await);
        }
    }
}

/// The demo key is public: what it could end, anyone could end.
#[tokio::test]
async fn nobody_switches_the_demo_group_off() {
    let scene = Scene::start().await;
    let gateway = &scene.gateway;
    let demo = gateway.get("/demo").await.json();
    let (key, token) = (demo["key"].as_str().expect("a key"), demo["token"].as_str().expect("a token"));
    let another = gateway.get("/token").basic(key, "").await.token();
    for http in BOTH {
        for token in [token, another.as_str()] {
            answered(&revoke(gateway, token).over(http).basic(key, "").await);
            answered(&revoke(gateway, token).over(http).bearer(token).await);
            answered(&revoke(gateway, token).over(http).key(&scene.key).await);
            assert!(scene.is_alive(token).await);
        }
    }
    answered(&revoke(gateway, token).key(&scene.operator).await);
    assert!(!scene.is_alive(token).await, "an operator's word counts");
    let renewed = gateway.get("/demo").await.json()["token"].as_str().expect("a token").to_owned();
    assert!(scene.is_alive(&renewed).await, "and another one is published");
}

#[tokio::test]
async fn it_stays_dead_after_a_restart_and_elsewhere() {
    let scene = Scene::of(TestGateway::build().sqlite().start().await).await;
    let (token, witness) = (scene.gateway.token(&scene.key).await, scene.gateway.token(&scene.key).await);
    let narrow = grant(&scene.gateway, &[("scope", "demo")], Http::One).key(&scene.key).await.token();
    answered(&revoke(&scene.gateway, &token).key(&scene.key).await);
    answered(&revoke(&scene.gateway, &narrow).key(&scene.key).await);
    let elsewhere = scene.gateway.other_process().await;
    let written = keybearer::revocations::RevocationStore::revocations(&elsewhere, scene.gateway.now()).await;
    assert_eq!(written.expect("stored").len(), 2, "what another process reads");
    elsewhere.close().await;
    let scene = Scene { gateway: scene.gateway.restart().await, ..scene };
    assert!(!scene.is_alive(&token).await && !scene.is_alive(&narrow).await);
    assert!(scene.is_alive(&witness).await);
}

/// What is under way with a token ends with it: the waiting are told.
#[tokio::test]
async fn what_was_answered_before_the_follower_looks_is_not_undone_by_it() {
    let scene = Scene::of(TestGateway::build().store(Arc::new(MemoryStore::new())).start().await).await;
    let token = scene.gateway.token(&scene.key).await;
    let before = scene.gateway.registry().revocations().len();
    answered(&revoke(&scene.gateway, &token).key(&scene.key).await);
    assert_eq!(scene.gateway.registry().revocations().len(), before + 1, "in force without a look at the store");
    scene.gateway.sync().await;
    assert_eq!(scene.gateway.registry().revocations().len(), before + 1);
    assert!(!scene.is_alive(&token).await);
}
