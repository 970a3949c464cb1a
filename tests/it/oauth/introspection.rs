//! Introspection (RFC 7662): what the gate would say, to who may know.

use std::time::Duration;

use keybearer::limits::Rate;
use keybearer::revocations::Target;
use serde_json::{Value, json};

use super::{Scene, grant};
use crate::client::{Answer, BOTH, Call, Http, form_encoded};
use crate::forge;
use crate::gateway::TestGateway;

fn ask<'a>(gateway: &'a TestGateway, token: &str) -> Call<'a> {
    gateway.post("/introspect").form(&[("token", token)])
}

#[track_caller]
fn answered(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.json()
}

#[track_caller]
fn inactive(answer: &Answer) {
    assert_eq!(answered(answer), json!({"active": false}));
    assert_eq!(answer.body, "{\"active\":false}", "and nothing else");
}

#[tokio::test]
async fn a_token_of_ones_own_is_described_to_whichever_credential_asks() {
    let scene = Scene::start().await;
    let gateway = &scene.gateway;
    let token = gateway.token(&scene.key).await;
    let second = gateway.key("acme").await;
    let by_another = gateway.token(&second).await;
    let text = second.secret().expose();
    for http in BOTH {
        let now = gateway.now().secs();
        let jti = &forge::claims(&token)["jti"];
        let form = |more: &[(&str, &str)]| {
            let mut form = vec![("token", token.as_str())];
            form.extend(more);
            gateway.post("/introspect").form(&form).over(http)
        };
        for call in [
            form(&[]).key(&scene.key),
            form(&[("token_type_hint", "access_token")]).key(&second),
            form(&[("token_type_hint", "nonsense"), ("other", "x")]).basic("acme", "open sesame"),
            form(&[]).basic("acme", &form_encoded("open sesame")),
            form(&[("client_id", "acme"), ("client_secret", "open sesame")]),
            form(&[("client_id", text)]),
            form(&[]).bearer(&token),
            form(&[]).bearer(&by_another),
        ] {
            let expected = json!({
                "active": true, "token_type": "Bearer", "username": "acme", "sub": "acme",
                "client_id": format!("kb_{}", scene.key.id()), "scope": "demo sample",
                "iat": now, "nbf": now - 2, "exp": now + 3600, "jti": jti,
                "iss": "https://localhost:8443", "aud": "https://localhost:8443",
            });
            assert_eq!(answered(&call.await), expected);
        }
    }
}

/// RFC 7662 §2.2: of what is not active nothing is said, not even why.
#[tokio::test]
async fn what_the_gate_would_refuse_is_not_active() {
    let scene = Scene::start().await;
    let gateway = &scene.gateway;
    let forge = forge::ours();
    let revoked = gateway.token(&scene.key).await;
    let jti = forge::claims(&revoked)["jti"].as_str().expect("an id").parse().expect("an id");
    gateway.store.revoke(&Target::Token(jti), gateway.now(), false).await.expect("stored");
    gateway.sync().await;
    let good = gateway.token(&scene.key).await;
    let mut expired = forge::good_claims(gateway.now());
    expired["exp"] = json!(gateway.now().secs());
    let mut early = forge::good_claims(gateway.now());
    early["nbf"] = json!(gateway.now().secs() + 60);
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let tokens = [
        revoked,
        forge.with_claims(&expired),
        forge.with_claims(&early),
        forge::a_strangers().with_claims(&forge::good_claims(gateway.now())),
        format!("{head}.{}", forge::encode([0; 256])),
        format!("{good}="),
        format!(" {good}"),
        format!("{good}.{signature}"),
        "nonsense".into(),
        scene.key.secret().expose().clone(),
        "x".repeat(9000),
    ];
    for http in BOTH {
        for token in &tokens {
            inactive(&ask(gateway, token).over(http).key(&scene.key).await);
            inactive(&ask(gateway, token).over(http).key(&scene.operator).await);
            inactive(&ask(gateway, token).over(http).bearer(&good).await);
        }
    }
    let token = gateway.token(&scene.key).await;
    gateway.advance(Duration::from_millis(3_599_999));
    assert_eq!(answered(&ask(gateway, &token).key(&scene.key).await)["active"], true);
    gateway.advance(Duration::from_millis(1));
    inactive(&ask(gateway, &token).key(&scene.key).await);
}

/// Wherever a character is changed, introspection and the guard are of one mind.
#[tokio::test]
async fn introspection_and_the_guard_never_differ() {
    let scene = Scene::start().await;
    let gateway = &scene.gateway;
    let token = gateway.token(&scene.key).await;
    let mut good = 0;
    for at in (1..token.len()).step_by(5).chain([token.len() - 2, token.len() - 1]) {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'Q' } else { b'A' };
        for candidate in [String::from_utf8(changed).expect("ASCII"), token[..at].to_owned(), token.clone()] {
            let active = answered(&ask(gateway, &candidate).key(&scene.key).await)["active"] == true;
            assert_eq!(active, scene.is_alive(&candidate).await, "{at}");
            good += u32::from(active);
        }
    }
    assert!(good > 100, "{good}: the one that is as it was");
}

#[tokio::test]
async fn a_token_of_somebody_else_is_as_good_as_none_unless_an_operator_asks() {
    let scene = Scene::start().await;
    let gateway = &scene.gateway;
    let demo = gateway.get("/demo").await.json();
    let (demo_key, demo_token) = (demo["key"].as_str().expect("a key"), demo["token"].as_str().expect("a token"));
    let (own, foreign) = (gateway.token(&scene.key).await, gateway.token(&scene.other).await);
    for http in BOTH {
        let ask = |token: &str| ask(gateway, token).over(http);
        inactive(&ask(&foreign).key(&scene.key).await);
        inactive(&ask(&foreign).bearer(&own).await);
        inactive(&ask(&own).key(&scene.other).await);
        inactive(&ask(demo_token).key(&scene.key).await);
        inactive(&ask(&own).basic(demo_key, "").await);
        inactive(&ask(&own).bearer(demo_token).await);
        // What is published may be described to whoever has what is published.
        assert_eq!(answered(&ask(demo_token).basic(demo_key, "").await)["username"], "demo");
        assert_eq!(answered(&ask(demo_token).bearer(demo_token).await)["scope"], "demo");
        for (token, account) in [(own.as_str(), "acme"), (&foreign, "other"), (demo_token, "demo")] {
            assert_eq!(answered(&ask(token).key(&scene.operator).await)["username"], account);
        }
        // A token of the operator's is no operator: it travels further than a key.
        let operator = gateway.token(&scene.operator).await;
        inactive(&ask(&foreign).bearer(&operator).await);
        assert_eq!(answered(&ask(&operator).bearer(&operator).await)["username"], "office");
    }
}

#[tokio::test]
async fn a_narrowed_token_is_described_as_narrow_as_it_is() {
    let scene = Scene::start().await;
    let token = grant(&scene.gateway, &[("scope", "demo")], Http::One).key(&scene.key).await.token();
    assert_eq!(answered(&ask(&scene.gateway, &token).key(&scene.key).await)["scope"], "demo");
}

/// The token does not come into the registry by it, and demo requests are not charged for it.
#[tokio::test]
async fn asking_changes_nothing() {
    let build =
        TestGateway::build().with(|config| config.demo.requests_per_address = Rate::new(3, Duration::from_secs(60)));
    let scene = Scene::of(build.start().await).await;
    let gateway = &scene.gateway;
    let unseen = forge::ours().with_claims(&forge::good_claims(gateway.now()));
    for _ in 0..3 {
        assert_eq!(answered(&ask(gateway, &unseen).key(&scene.key).await)["active"], true);
        assert_eq!(answered(&ask(gateway, &unseen).bearer(&unseen).await)["active"], true);
    }
    assert_eq!(gateway.registry().len(), 0);
    let demo = gateway.get("/demo").await.json()["token"].as_str().expect("a token").to_owned();
    for _ in 0..5 {
        assert_eq!(answered(&ask(gateway, &demo).bearer(&demo).await)["active"], true);
    }
    for status in [200, 200, 200, 429] {
        assert_eq!(gateway.get("/demo/time").bearer(&demo).await.status, status);
    }
    assert_eq!(answered(&ask(gateway, &demo).bearer(&demo).await)["active"], true, "nor is it refused for that");
}

/// The same at both doors that take questions.
#[tokio::test]
async fn who_asks_must_be_known_and_must_ask_something() {
    let scene = Scene::start().await;
    let gateway = &scene.gateway;
    let token = gateway.token(&scene.key).await;
    for http in BOTH {
        for path in ["/introspect", "/revoke"] {
            let post = || gateway.post(path).over(http);
            let form = |form: &[(&str, &str)]| post().form(form);
            let unknown = [
                form(&[("token", &token)]),
                post(),
                form(&[("token", &token)]).basic("acme", "wrong"),
                form(&[("token", &token), ("client_id", "acme"), ("client_secret", "wrong")]),
                form(&[("token", &token)]).header("authorization", "Basic !"),
                gateway
                    .post(&format!("{path}?client_id=acme&client_secret=open+sesame"))
                    .over(http)
                    .form(&[("token", &token)]),
            ];
            for call in unknown {
                let answer = call.await;
                answer.oauth_error(401, "invalid_client");
                assert_eq!(answer.challenge(), "Basic realm=\"keybearer\", charset=\"UTF-8\"");
            }
            let answer = form(&[("token", &token)]).bearer("nonsense").await;
            answer.oauth_error(401, "invalid_token");
            assert!(
                answer.challenge().starts_with("Bearer realm=\"keybearer\", error=\"invalid_token\""),
                "RFC 6750 §3"
            );
            let malformed = [
                form(&[]).key(&scene.key),
                form(&[("token", "")]).key(&scene.key),
                post().key(&scene.key),
                post().key(&scene.key).body(format!("token={token}")),
                gateway.post(&format!("{path}?token={token}")).over(http).form(&[]).key(&scene.key),
                post().raw_form(format!("token={token}&token={token}")).key(&scene.key),
                post().raw_form(format!("token={token}&x=%zz")).key(&scene.key),
                form(&[("token", &token), ("client_id", "acme"), ("client_secret", "open sesame")]).key(&scene.key),
                form(&[("token", &token), ("client_id", "acme")]).bearer(&token),
            ];
            for call in malformed {
                call.await.oauth_error(400, "invalid_request");
            }
            form(&[("token", &"x".repeat(70_000))]).key(&scene.key).await.oauth_error(413, "invalid_request");
        }
    }
    assert!(scene.is_alive(&token).await);
}

#[tokio::test]
async fn failures_are_throttled_here_as_at_the_token_endpoint() {
    let build = TestGateway::build()
        .with(|config| config.credentials.failures_per_user = Rate::new(2, Duration::from_secs(60)));
    let scene = Scene::of(build.start().await).await;
    for path in ["/introspect", "/revoke"] {
        scene
            .gateway
            .post(path)
            .form(&[("token", "x")])
            .basic("acme", "wrong")
            .await
            .oauth_error(401, "invalid_client");
    }
    for path in ["/introspect", "/revoke", "/token"] {
        let form = [("grant_type", "client_credentials"), ("token", "x")];
        let answer = scene.gateway.post(path).form(&form).basic("acme", "wrong").await;
        answer.oauth_error(429, "temporarily_unavailable");
        assert!(answer.header("retry-after").is_some());
    }
}

#[tokio::test]
async fn where_the_demo_group_is_closed_its_tokens_are_not_active() {
    let scene = Scene::of(TestGateway::build().with(|config| config.demo.enabled = false).start().await).await;
    let mut claims = forge::good_claims(scene.gateway.now());
    (claims["sub"], claims["client_id"]) = (json!("demo"), json!("kb_demodemodemo"));
    (claims["scope"], claims["groups"]) = (json!("demo"), json!(["demo"]));
    let token = forge::ours().with_claims(&claims);
    inactive(&ask(&scene.gateway, &token).key(&scene.operator).await);
    ask(&scene.gateway, &token).bearer(&token).await.oauth_error(401, "invalid_token");
}
