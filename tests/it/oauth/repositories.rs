//! The dialect of image registries (the distribution project's token specification): what any client of one may rely on, and
//! what such a token is not good for.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use keybearer::config::{Config, Overrides};
use keybearer::keys::Key;
use keybearer::limits::Rate;
use keybearer::signing;
use serde_json::{Value, json};

use super::Scene;
use crate::client::{Answer, BOTH, form_encoded};
use crate::forge::claims;
use crate::gateway::{Builder, TestGateway, group_set};

const SERVICE: &str = "registry.example.com";

/// The rules as an operator writes them.
const RULES: &str = r#"
[image_registry]
service = "registry.example.com"
catalog_groups = ["keybearer-operator"]

[[repositories]]
match = "team/*"
groups = ["sample"]
actions = ["pull", "push"]

[[repositories]]
match = "{account}/**"
groups = []
actions = ["pull", "push", "delete"]

[[repositories]]
match = "public/**"
groups = ["demo"]
actions = ["pull"]
"#;

fn configured(text: &str) -> Config {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, text).expect("a file");
    Config::load(Some(&file), std::iter::empty(), &Overrides::default()).unwrap_or_else(|faults| panic!("{faults}"))
}

fn build() -> Builder {
    let registry = configured(RULES).image_registry;
    TestGateway::build().with(|config| config.image_registry = registry)
}

async fn scene() -> Scene {
    Scene::of(build().start().await).await
}

fn target(scopes: &[&str]) -> String {
    let scopes: String = scopes.iter().map(|scope| format!("&scope={}", form_encoded(scope))).collect();
    format!("/token?service={SERVICE}{scopes}")
}

/// What a token allows, one scope each.
#[track_caller]
fn access(answer: &Answer) -> Vec<String> {
    let claims = claims(&answer.token());
    let entries = claims["access"].as_array().expect("a list").clone();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let show = |entry: &Value| {
        let actions: Vec<String> = entry["actions"].as_array().expect("a list").iter().map(text).collect();
        format!("{}:{}:{}", text(&entry["type"]), text(&entry["name"]), actions.join(","))
    };
    entries.iter().map(show).collect()
}

/// A refusal that both clients of registries and readers of problem details understand.
#[track_caller]
fn refused(answer: &Answer, status: u16, word: &str, code: &str) -> String {
    let problem = answer.problem(status, word);
    assert_eq!(problem["errors"], json!([{ "code": code, "message": problem["detail"] }]));
    assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
    problem["detail"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn the_answer_and_the_token_are_those_of_the_specification() {
    let scene = scene().await;
    let gateway = &scene.gateway;
    let scope = "repository:team/app:pull,push";
    for http in BOTH {
        let answer = gateway.get(&target(&[scope])).key(&scene.key).over(http).await;
        let token = answer.token();
        let now = gateway.now();
        assert_eq!(
            answer.json(),
            json!({
                "token": token, "access_token": token, "token_type": "Bearer", "expires_in": 300,
                "issued_at": now.to_string(), "scope": scope,
            })
        );
        assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
        let mut said = claims(&token);
        assert_eq!(said["jti"].take().as_str().map(str::len), Some(22));
        let now = now.secs();
        assert_eq!(
            said,
            json!({
                "iss": "https://localhost:8443", "sub": "acme", "aud": SERVICE, "jti": null,
                "iat": now, "nbf": now - 2, "exp": now + 300,
                "access": [{ "type": "repository", "name": "team/app", "actions": ["pull", "push"] }],
            })
        );
        let header = jsonwebtoken::decode_header(&token).expect("a header");
        assert_eq!(header.typ.as_deref(), Some("JWT"));
        let kid = header.kid.expect("a kid");
        assert!(kid.split(':').count() == 12 && kid.split(':').all(|group| group.len() == 4), "{kid}");
        // By the published key, whose kid is another one.
        let keys: jsonwebtoken::jwk::JwkSet =
            serde_json::from_value(gateway.get("/.well-known/jwks.json").await.json()).expect("a JWK Set");
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&[SERVICE]);
        validation.validate_exp = false;
        let key = DecodingKey::from_jwk(&keys.keys[0]).expect("a key");
        jsonwebtoken::decode::<Value>(&token, &key, &validation).expect("a good signature");
    }
}

#[tokio::test]
async fn every_credential_is_good_and_has_what_its_groups_have() {
    let scene = scene().await;
    let gateway = &scene.gateway;
    let (id, text) = (format!("kb_{}", scene.key.id()), scene.key.secret().expose().as_str());
    let asked = ["repository:team/app:pull,push,delete", "repository:other/x:pull", "repository:acme/x/y:delete"];
    for (user, password) in [(text, ""), (&id, text), ("acme", "open sesame")] {
        let answer = gateway.get(&target(&asked)).basic(user, password).await;
        assert_eq!(access(&answer), ["repository:team/app:pull,push", "repository:acme/x/y:delete"], "{user}");
    }
    // The same in one parameter, as some clients send it, and with all that they may add.
    let more = "&account=acme&client_id=docker&offline_token=true";
    let answer = gateway.get(&(target(&[&asked.join(" ")]) + more)).key(&scene.key).await;
    assert_eq!(access(&answer), ["repository:team/app:pull,push", "repository:acme/x/y:delete"]);
    assert_eq!(answer.json().get("refresh_token"), None);
    // A narrowed key has no more than it is narrowed to.
    gateway.group("extra", None).await;
    gateway.licence("acme", &["extra"], None).await;
    gateway.sync().await;
    let narrow = gateway.key_with("acme", |key| Key { groups: Some(group_set(&["extra"])), ..key }).await;
    assert_eq!(access(&gateway.get(&target(&asked)).key(&narrow).await), ["repository:acme/x/y:delete"]);
    let catalog = target(&["registry:catalog:*"]);
    assert_eq!(access(&gateway.get(&catalog).key(&scene.operator).await), ["registry:catalog:*"]);
    assert_eq!(access(&gateway.get(&catalog).key(&scene.other).await), [""; 0]);
}

/// Nothing at all is no refusal, and a login asks for nothing.
#[tokio::test]
async fn a_login_and_a_stranger_get_a_token_that_allows_nothing() {
    let scene = scene().await;
    let gateway = &scene.gateway;
    for scopes in [&[][..], &[""], &["repository:private/app:pull"], &["volume:x:mount"]] {
        let answer = gateway.get(&target(scopes)).key(&scene.key).await;
        assert_eq!(access(&answer), [""; 0], "{scopes:?}");
        assert_eq!(answer.json()["scope"], "");
    }
}

#[tokio::test]
async fn the_demo_key_reaches_what_names_its_group_as_often_as_it_may() {
    const DEMO: &str = "kb_demodemodemo_ThisKeyIsPublicAndOpensDemoOnly01bQJ3X";
    let build = build().with(|config| config.demo.tokens_per_address = Rate::new(2, Duration::from_secs(60)));
    let gateway = build.start().await;
    let all = target(&["repository:public/x:pull,push", "repository:demo/x:pull"]);
    assert_eq!(access(&gateway.get(&all).basic(DEMO, "").await), ["repository:public/x:pull"]);
    assert_eq!(gateway.get("/token").basic(DEMO, "").await.status, 200, "both dialects count");
    refused(&gateway.get(&all).basic(DEMO, "").await, 429, "too-many-requests", "TOOMANYREQUESTS");
}

#[tokio::test]
async fn who_is_not_proven_is_challenged() {
    let scene = scene().await;
    let gateway = &scene.gateway;
    let target = target(&["repository:team/app:pull"]);
    let challenge = "Basic realm=\"keybearer\", charset=\"UTF-8\"";
    for authorization in [None, Some("Basic !"), Some("Bearer abc"), Some("Basic YWNtZTp3cm9uZw==")] {
        let mut call = gateway.get(&target);
        if let Some(value) = authorization {
            call = call.header("authorization", value);
        }
        let answer = call.await;
        refused(&answer, 401, "invalid-credentials", "UNAUTHORIZED");
        assert_eq!(answer.challenge(), challenge);
    }
    // What ends a credential ends it here.
    gateway.suspend_account("acme").await;
    gateway.sync().await;
    refused(&gateway.get(&target).key(&scene.key).await, 401, "invalid-credentials", "UNAUTHORIZED");
}

#[tokio::test]
async fn failures_are_throttled_here_too() {
    let build = build().with(|config| config.credentials.failures_per_user = Rate::new(2, Duration::from_secs(60)));
    let gateway = build.start().await;
    gateway.acme().await;
    let target = target(&[]);
    for _ in 0..2 {
        assert_eq!(gateway.get(&target).basic("acme", "wrong").await.status, 401);
    }
    let answer = gateway.get(&target).basic("acme", "wrong").await;
    refused(&answer, 429, "too-many-requests", "TOOMANYREQUESTS");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(gateway.get("/token").basic("acme", "wrong").await.status, 429, "one count for all dialects");
}

#[tokio::test]
async fn what_is_not_clear_is_a_bad_request() {
    let scene = scene().await;
    let gateway = &scene.gateway;
    let (service, scope) = (format!("service={SERVICE}"), "scope=repository:team/app:pull");
    for (query, detail) in [
        (scope.to_owned(), "The parameter service is missing."),
        ("service=".to_owned(), "The parameter service is missing."),
        (format!("service=other.example.com&{scope}"), "No tokens are issued here for this service."),
        (format!("{service}&scope=repository:team/app"), "A scope is not of the form"),
        (format!("{service}&scope=repository:team/App:pull"), "A scope is not of the form"),
        (format!("{service}&scope=repository:a/../b:pull"), "A scope is not of the form"),
        (format!("{service}&{service}"), "A parameter is in the form more than once."),
        (format!("{service}&x=%zz"), "The form has a percent sign"),
    ] {
        let answer = gateway.get(&format!("/token?{query}")).key(&scene.key).await;
        let said = refused(&answer, 400, "malformed-request", "UNKNOWN");
        assert!(said.starts_with(detail), "{query}: {said}");
    }
}

/// The guard, introspection and revocation know nothing of such a token, however its key is named.
#[tokio::test]
async fn the_token_is_good_at_no_door_of_ours() {
    for name in ["libtrust", "thumbprint"] {
        let registry = configured(&RULES.replace("catalog", &format!("key_id = \"{name}\"\ncatalog"))).image_registry;
        let scene = Scene::of(TestGateway::build().with(|config| config.image_registry = registry).start().await).await;
        let gateway = &scene.gateway;
        let before = gateway.gateway.registry().len();
        let token = gateway.get(&target(&["repository:acme/x:pull"])).key(&scene.key).await.token();
        assert_eq!(gateway.gateway.registry().len(), before, "it is no live token");
        gateway.get("/whoami").bearer(&token).await.assert_invalid_token();
        let answer = gateway.post("/introspect").key(&scene.key).form(&[("token", &token)]).await;
        assert_eq!(answer.json(), json!({ "active": false }), "{name}");
        assert_eq!(gateway.post("/revoke").key(&scene.key).form(&[("token", &token)]).await.status, 200);
    }
}

/// Nobody's token outlives their licence by the five minutes.
#[tokio::test]
async fn the_token_ends_with_the_licence() {
    let gateway = build().start().await;
    gateway.group("sample", None).await;
    gateway.account("acme", Some("open sesame")).await;
    let end = gateway.now() + Duration::from_secs(100);
    gateway.licence("acme", &["sample"], Some(end)).await;
    let answer = gateway.get(&target(&["repository:team/app:pull"])).basic("acme", "open sesame").await;
    assert_eq!(answer.json()["expires_in"], 100);
    assert_eq!(claims(&answer.token())["exp"], end.secs());
}

/// Without a registry in the configuration, and without its parameters, the query counts for nothing.
#[tokio::test]
async fn the_plain_dialect_stays_what_it_is() {
    let (with, without) = (scene().await, Scene::start().await);
    for (scene, query) in [(&with, "?x=%zz&services=1&account=acme"), (&without, "?service=x&scope=y&x=%zz")] {
        let gateway = &scene.gateway;
        let target = format!("/token{query}");
        assert_eq!(gateway.get(&target).key(&scene.key).await.json()["scope"], "demo sample");
        let problem = gateway.get(&target).await.problem(400, "credentials-not-specified");
        assert_eq!(problem.get("errors"), None);
    }
    // A POST has its parameters in the content.
    let answer = with.gateway.post(&target(&[])).key(&with.key).await;
    assert_eq!(answer.json()["scope"], "demo sample");
}

#[tokio::test]
async fn containerd_sends_a_form() {
    let scene = scene().await;
    let gateway = &scene.gateway;
    let (id, text) = (format!("kb_{}", scene.key.id()), scene.key.secret().expose().as_str());
    let form = |user: &str, password: &str, more: &[(&str, &str)]| {
        let mut form = vec![("grant_type", "password"), ("client_id", "containerd-client"), ("username", user)];
        form.push(("password", password));
        form.extend(more);
        gateway.post("/token").form(&form)
    };
    let asked = [("service", SERVICE), ("scope", "repository:team/app:pull repository:other/x:pull")];
    for (user, password) in [(id.as_str(), text), ("acme", "open sesame")] {
        let answer = form(user, password, &asked).await;
        assert_eq!(access(&answer), ["repository:team/app:pull"]);
        assert_eq!(answer.json()["scope"], "repository:team/app:pull");
    }
    form("acme", "wrong", &asked).await.oauth_error(401, "invalid_client");
    form("", "", &asked).await.oauth_error(401, "invalid_client");
    form("acme", "open sesame", &[("service", "other")]).await.oauth_error(400, "invalid_request");
    let bad = [("service", SERVICE), ("scope", "openid")];
    form("acme", "open sesame", &bad).await.oauth_error(400, "invalid_scope");
    // Whoever names no registry asks for a grant that there is none of.
    form("acme", "open sesame", &[]).await.oauth_error(400, "unsupported_grant_type");
}

#[tokio::test]
async fn rules_change_with_a_reload() {
    let scene = scene().await;
    let gateway = &scene.gateway;
    let asked = target(&["repository:team/app:pull"]);
    assert_eq!(access(&gateway.get(&asked).key(&scene.other).await), ["repository:team/app:pull"]);
    let mut new = gateway.config.clone();
    new.image_registry.as_mut().expect("a registry").rules.clear();
    assert_eq!(gateway.gateway.reload(&new).await.expect("no fault"), [""; 0]);
    assert_eq!(access(&gateway.get(&asked).key(&scene.other).await), [""; 0]);
    let needs_restart = ["image_registry (its service, and whether there is one)"];
    // The name stays, as it is described to clients; told anew by each reload, until there is a restart.
    new.image_registry.as_mut().expect("a registry").service = "other.example.com".into();
    for _ in 0..2 {
        assert_eq!(gateway.gateway.reload(&new).await.expect("no fault"), needs_restart);
        assert_eq!(access(&gateway.get(&asked).key(&scene.other).await), [""; 0]);
    }
    new.image_registry = None;
    assert_eq!(gateway.gateway.reload(&new).await.expect("no fault"), needs_restart);
    assert_eq!(access(&gateway.get(&asked).key(&scene.other).await), [""; 0]);
}

/// A key from before the configuration changed has no name; the gateway says so in its log and gives no token that nobody can
/// verify.
#[tokio::test]
async fn a_key_without_a_name_signs_nothing() {
    let build = build().with(|config| {
        config.signing = signing::Settings { algorithm: signing::Algorithm::EdDsa, ..signing::Settings::default() };
    });
    let gateway = build.start().await;
    let key = gateway.acme().await;
    refused(&gateway.get(&target(&[])).key(&key).await, 500, "internal", "UNKNOWN");
    assert_eq!(gateway.token_call(&key).await.status, 200, "the other dialects are as they were");
}
