//! The Client Credentials Grant (RFC 6749 §4.4, §5.1, §5.2).

use std::time::Duration;

use keybearer::keys::{Key, KeyState};
use keybearer::limits::Rate;
use keybearer::persist::Cut;
use serde_json::json;

use super::{Scene, grant};
use crate::client::{BOTH, Http, form_encoded};
use crate::forge;
use crate::gateway::{SAMPLE, TestGateway, group_set};

#[tokio::test]
async fn every_way_to_authenticate_gets_a_token() {
    let scene = Scene::start().await;
    let gateway = &scene.gateway;
    gateway.account("ann+b@example.com", Some("50% off + tax: £€ ")).await;
    gateway.licence("ann+b@example.com", &[SAMPLE], None).await;
    let (id, text) = (format!("kb_{}", scene.key.id()), scene.key.secret().expose().as_str());
    let cases = [
        (id.as_str(), text, id.as_str()),
        (text, "", &id),
        ("acme", "open sesame", "acme"),
        ("ann+b@example.com", "50% off + tax: £€ ", "ann+b@example.com"),
    ];
    for http in BOTH {
        for (user, secret, client) in cases {
            let calls = [
                grant(gateway, &[], http).basic(user, secret),
                grant(gateway, &[], http).basic(&form_encoded(user), &form_encoded(secret)),
                grant(gateway, &[("client_id", user)], http).basic(user, secret),
                grant(gateway, &[("client_id", user), ("client_secret", secret)], http),
                grant(gateway, &[("client_id", user), ("client_secret", secret), ("scope", "")], http),
            ];
            for (n, call) in calls.into_iter().enumerate() {
                let answer = call.await;
                let token = answer.token();
                assert_eq!(forge::claims(&token)["client_id"], client, "{n} over {http:?}");
                let expected = json!({
                    "token": token, "access_token": token, "token_type": "Bearer", "expires_in": 3600,
                    "scope": "demo sample",
                });
                assert_eq!(answer.json(), expected);
                assert_eq!(answer.header("content-type"), Some("application/json"));
                assert_eq!(
                    (answer.header("cache-control"), answer.header("pragma")),
                    (Some("no-store"), Some("no-cache"))
                );
                assert!(scene.is_alive(&token).await);
            }
        }
    }
}

/// A password that reads differently as sent and decoded is good in either spelling, from memory as well, and wrong in others.
#[tokio::test]
async fn a_password_with_two_readings_is_tried_in_both() {
    let gateway = TestGateway::start().await;
    gateway.acme().await;
    let passwords = ["100%25", "a+b", "%41%42", "%", "a b"];
    for (n, password) in passwords.iter().enumerate() {
        let name = format!("user{n}");
        gateway.account(&name, Some(password)).await;
        gateway.licence(&name, &[SAMPLE], None).await;
        for _ in 0..2 {
            for sent in [(*password).to_owned(), form_encoded(password)] {
                let answer = grant(&gateway, &[], Http::One).basic(&name, &sent).await;
                assert_eq!(answer.status, 200, "{password} as {sent}");
            }
            for wrong in [form_encoded(&form_encoded(password)), format!("{password}+"), format!("%20{password}")] {
                grant(&gateway, &[], Http::One).basic(&name, &wrong).await.oauth_error(401, "invalid_client");
            }
        }
        // The plain dialect takes what is sent, and nothing else.
        assert_eq!(gateway.get("/token").basic(&name, password).await.status, 200);
        if form_encoded(password) != *password {
            gateway.get("/token").basic(&name, &form_encoded(password)).await.problem(401, "invalid-credentials");
        }
    }
}

/// Two readings are one failure.
#[tokio::test]
async fn a_wrong_password_with_two_readings_counts_once() {
    let build = TestGateway::build().with(|config| {
        config.credentials.failures_per_user = Rate::new(4, Duration::from_secs(60));
    });
    let gateway = build.start().await;
    gateway.acme().await;
    for name in ["acme", "nobody"] {
        for n in 0..4 {
            let answer = grant(&gateway, &[], Http::One).basic(name, &format!("wrong+{n}")).await;
            answer.oauth_error(401, "invalid_client");
        }
        let answer = grant(&gateway, &[], Http::One).basic(name, "wrong+5").await;
        answer.oauth_error(429, "temporarily_unavailable");
        assert!(answer.header("retry-after").is_some());
    }
}

/// RFC 6749 §5.2, case by case.
#[tokio::test]
async fn errors_are_spelled_as_the_rfc_has_them() {
    let scene = Scene::start().await;
    let gateway = &scene.gateway;
    let revoked = gateway.key("acme").await;
    gateway.update_key(&revoked, |key| (Key { state: KeyState::Revoked, ..key }, Cut::No)).await;
    let text = scene.key.secret().expose();
    let good = "grant_type=client_credentials";
    let body = format!("{good}&client_id={text}");
    let cases: Vec<(String, u16, &str)> = vec![
        ("grant_type=".into(), 400, "invalid_request"),
        ("grant_type".into(), 400, "invalid_request"),
        (format!("grant_type=&client_id={text}"), 400, "invalid_request"),
        (format!("{body}&grant_type=client_credentials"), 400, "invalid_request"),
        (format!("{body}&client_id={text}"), 400, "invalid_request"),
        (format!("{body}&scope=demo&scope=sample"), 400, "invalid_request"),
        (format!("{body}&resource=a&resource=b"), 400, "invalid_request"),
        (format!("{body}&grant%5Ftype=password"), 400, "invalid_request"),
        (format!("{body}&x=%zz"), 400, "invalid_request"),
        (format!("{body}&x=%ff"), 400, "invalid_request"),
        (format!("{body}&{}", (0..80).map(|n| format!("p{n}=")).collect::<Vec<_>>().join("&")), 400, "invalid_request"),
        ("grant_type=password&username=acme&password=open+sesame".into(), 400, "unsupported_grant_type"),
        ("grant_type=authorization_code&code=x".into(), 400, "unsupported_grant_type"),
        ("grant_type=Client_Credentials".into(), 400, "unsupported_grant_type"),
        ("grant_type=urn:ietf:params:oauth:grant-type:token-exchange".into(), 400, "unsupported_grant_type"),
        (good.into(), 401, "invalid_client"),
        (format!("{good}&client_id=&client_secret="), 401, "invalid_client"),
        (format!("{good}&client_id=acme"), 401, "invalid_client"),
        (format!("{good}&client_id=acme&client_secret=wrong"), 401, "invalid_client"),
        (format!("{good}&client_id=nobody&client_secret=wrong"), 401, "invalid_client"),
        (format!("{good}&client_secret={text}"), 401, "invalid_client"),
        (format!("{good}&client_id={text}&client_secret=x"), 401, "invalid_client"),
        (format!("{good}&client_id=kb_{}", scene.key.id()), 401, "invalid_client"),
        (format!("{good}&client_id={}", &text[..50]), 401, "invalid_client"),
        (format!("{good}&client_id={}", revoked.secret().expose()), 401, "invalid_client"),
        (format!("{body}&scope=other"), 400, "invalid_scope"),
        (format!("{body}&scope=sample+nothing"), 400, "invalid_scope"),
        (format!("{body}&scope=keybearer-operator"), 400, "invalid_scope"),
        (format!("{body}&scope=%00"), 400, "invalid_scope"),
        (format!("{body}&scope=+"), 400, "invalid_scope"),
    ];
    for http in BOTH {
        let (mut wrong, mut scopes) = (Vec::new(), Vec::new());
        for (form, status, error) in &cases {
            let answer = gateway.post("/token").raw_form(form).over(http).await;
            let description = answer.oauth_error(*status, error);
            if *status == 401 {
                assert_eq!(answer.challenge(), "Basic realm=\"keybearer\", charset=\"UTF-8\"");
                if form.contains("client_id=kb_") || form.contains("wrong") {
                    wrong.push(description);
                }
            } else if *error == "invalid_scope" {
                scopes.push(description);
            }
        }
        for same in [wrong, scopes] {
            assert!(same.len() > 4 && same.iter().all(|description| *description == same[0]), "{same:?}");
        }
    }
}

/// RFC 6749 §2.3: not more than one method in each request. §5.2: a 401 has the challenge of the scheme that was used.
#[tokio::test]
async fn who_authenticates_twice_is_refused_and_whose_header_is_no_good_is_challenged() {
    let scene = Scene::start().await;
    let text = scene.key.secret().expose();
    for http in BOTH {
        let both = grant(&scene.gateway, &[("client_id", "acme"), ("client_secret", "open sesame")], http);
        both.key(&scene.key).await.oauth_error(400, "invalid_request");
        let two = grant(&scene.gateway, &[("client_id", text)], http).basic("acme", "open sesame").await;
        two.oauth_error(400, "invalid_request");
        let bearer = grant(&scene.gateway, &[("client_id", text)], http).bearer("x").await;
        bearer.oauth_error(400, "invalid_request");
        for header in ["Bearer abc", "Basic", "Basic !", "Basic YWNtZQ==", "Digest a=b", ""] {
            let answer = grant(&scene.gateway, &[], http).header("authorization", header).await;
            answer.oauth_error(401, "invalid_client");
            assert!(answer.challenge().starts_with("Basic "), "{header}");
        }
        grant(&scene.gateway, &[], http).basic("acme", "wrong").await.oauth_error(401, "invalid_client");
        // Base64 of `acme:w\xf6rd`, as a client sends it that writes Latin-1.
        let latin = grant(&scene.gateway, &[], http).header("authorization", "Basic YWNtZTp39nJk").await;
        assert_eq!(latin.oauth_error(401, "invalid_client"), "The credentials are not UTF-8");
    }
}

/// A narrowed token does not reach what it was narrowed from: here, and where only the token is known.
#[tokio::test]
async fn a_scope_narrows_the_token_itself() {
    let scene = Scene::start().await;
    let gateway = &scene.gateway;
    gateway.group("orders", Some(Duration::from_secs(60))).await;
    gateway.licence("acme", &["orders"], None).await;
    let key = gateway.key("acme").await;
    let text = key.secret().expose();
    for http in BOTH {
        for (scope, granted, sample) in [
            ("demo", "demo", 403),
            ("sample", "sample", 200),
            ("orders demo", "demo orders", 403),
            ("sample sample demo", "demo sample", 200),
        ] {
            let answer = grant(gateway, &[("client_id", text), ("scope", scope)], http).await;
            assert_eq!(answer.json()["scope"], granted);
            assert_eq!(answer.json()["expires_in"], 60, "what shortened the whole shortens the part");
            let token = answer.token();
            let claims = forge::claims(&token);
            assert_eq!(claims["scope"], granted);
            assert_eq!(claims["groups"], json!(granted.split(' ').collect::<Vec<_>>()));
            assert_eq!(gateway.get("/sample/x").bearer(&token).over(http).await.status, sample, "{scope}");
            let demo = if granted.contains("demo") { 200 } else { 403 };
            assert_eq!(gateway.get("/demo/time").bearer(&token).over(http).await.status, demo, "{scope}");
        }
    }
    // A key that is narrower than its account cannot ask for what the account has.
    let narrow = gateway.key_with("acme", |key| Key { groups: Some(group_set(&["orders"])), ..key }).await;
    let ask =
        async |scope| grant(gateway, &[("client_id", narrow.secret().expose()), ("scope", scope)], Http::One).await;
    assert_eq!(ask("orders").await.json()["scope"], "orders");
    ask("sample").await.oauth_error(400, "invalid_scope");
    // And the demo key has the Demo group alone.
    let demo = gateway.get("/demo").await.json()["key"].as_str().expect("a key").to_owned();
    assert_eq!(grant(gateway, &[("client_id", &demo)], Http::One).await.json()["scope"], "demo");
    let more = grant(gateway, &[("client_id", &demo), ("scope", "demo sample")], Http::One).await;
    more.oauth_error(400, "invalid_scope");
}

#[tokio::test]
async fn a_narrowed_token_is_as_narrow_after_a_restart() {
    let scene = Scene::of(TestGateway::build().sqlite().start().await).await;
    let token = grant(&scene.gateway, &[("scope", "demo")], Http::One).key(&scene.key).await.token();
    let gateway = scene.gateway.restart().await;
    assert_eq!(gateway.get("/demo/time").bearer(&token).await.status, 200);
    gateway.get("/sample/x").bearer(&token).await.problem(403, "insufficient-scope");
}

/// ★ CONTRACT §1: without a `grant_type` in a form the plain dialect answers, and answers as ever.
#[tokio::test]
async fn without_a_grant_type_in_a_form_the_plain_dialect_answers() {
    let scene = Scene::start().await;
    let gateway = &scene.gateway;
    let good = "grant_type=client_credentials";
    for http in BOTH {
        let post = |path: &str| gateway.post(path).over(http);
        let plain = [
            post("/token").raw_form("scope=demo&service=x"),
            post("/token").raw_form("scope=%zz&scope=%ff"),
            post("/token").raw_form(""),
            post("/token").raw_form("grant_types=x"),
            post("/token?grant_type=client_credentials&scope=demo"),
            post("/token?grant_type=password").raw_form("x=y"),
            post("/token").header("content-type", "application/json").body("{\"grant_type\":\"client_credentials\"}"),
            post("/token").header("content-type", "text/plain").body(good),
            post("/token").body(good),
            gateway.get("/token").over(http).raw_form(good),
        ];
        for (n, call) in plain.into_iter().enumerate() {
            let answer = call.key(&scene.key).await;
            assert_eq!(answer.json()["scope"], "demo sample", "{n}: {answer:?}");
        }
        for form in ["scope=demo", "client_id=acme&client_secret=open+sesame", "x=%zz"] {
            post("/token").raw_form(form).await.problem(400, "credentials-not-specified");
            post("/token").raw_form(form).basic("acme", "wrong").await.problem(401, "invalid-credentials");
        }
        // Nothing of the query is read, in either dialect.
        let query = post("/token?scope=demo&client_id=x&client_secret=y").raw_form(good).key(&scene.key).await;
        assert_eq!(query.json()["scope"], "demo sample");
        post("/token?client_id=acme&client_secret=open+sesame").raw_form(good).await.oauth_error(401, "invalid_client");
        // A charset says nothing: a form is UTF-8.
        let typed =
            post("/token").header("content-type", "application/x-www-form-urlencoded; charset=UTF-8").body(good);
        assert_eq!(typed.key(&scene.key).await.status, 200);
        // Which dialect it is cannot be told of what is too large to be read.
        let large = format!("{good}&x={}", "x".repeat(70_000));
        post("/token").raw_form(&large).key(&scene.key).await.problem(413, "content-too-large");
    }
}

/// Demo tokens are counted by whichever dialect they are asked for.
#[tokio::test]
async fn demo_tokens_are_counted_in_this_dialect_too() {
    let build =
        TestGateway::build().with(|config| config.demo.tokens_per_address = Rate::new(2, Duration::from_secs(60)));
    let gateway = build.start().await;
    let demo = gateway.get("/demo").await.json()["key"].as_str().expect("a key").to_owned();
    for _ in 0..2 {
        assert_eq!(grant(&gateway, &[("client_id", &demo)], Http::One).await.status, 200);
    }
    let answer = grant(&gateway, &[("client_id", &demo)], Http::One).await;
    answer.oauth_error(429, "temporarily_unavailable");
    assert_eq!(answer.header("retry-after"), Some("30"));
}
