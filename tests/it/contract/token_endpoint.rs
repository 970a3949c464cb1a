//! §1 Getting a token, §5 API keys, §6 The token.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keybearer::keys::{ApiKey, Key, KeyPrefix, KeyState};
use keybearer::persist::Cut;
use serde_json::{Value, json};

use crate::client::{Answer, BOTH};
use crate::forge;
use crate::gateway::{SAMPLE, TestGateway};
use crate::keys::another_secret_of;
use crate::wire::exchange;

/// §1: a wrong credential is 401 with the Basic challenge. Returns the body without the request's number.
#[track_caller]
fn refused(answer: &Answer) -> Value {
    let problem = answer.problem(401, "invalid-credentials");
    assert_eq!(answer.challenge(), "Basic realm=\"keybearer\", charset=\"UTF-8\"");
    assert!(!answer.body.contains("token\":"), "{answer:?}");
    problem
}

/// §1: `GET /token` and `POST /token`, with the key as user-id and no password.
#[tokio::test]
async fn a_key_gets_a_token_by_get_and_by_post_over_either_http() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    for http in BOTH {
        for method in ["GET", "POST"] {
            let answer = gateway.call(method, "/token").key(&key).over(http).await;
            let token = answer.token();
            let whoami = gateway.get("/whoami").bearer(token).over(http).await;
            assert_eq!(whoami.json()["account"], "acme", "{method} over {http:?}: {whoami:?}");
        }
    }
}

/// §1: the answer's members; `expires_in` is true to the second; nobody may keep it.
#[tokio::test]
async fn the_answer_has_the_token_twice_its_true_lifetime_and_its_scope() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    // Half a second into a second: the token still dies when `expires_in` says.
    gateway.advance(Duration::from_millis(500));
    let answer = gateway.token_call(&key).await;
    let body = answer.json();
    let claims = forge::claims(&answer.token());
    assert_eq!(
        body,
        json!({
            "token": answer.token(), "access_token": answer.token(), "token_type": "Bearer",
            "expires_in": 3600, "scope": "demo sample",
        })
    );
    assert_eq!(claims["exp"].as_u64(), Some(gateway.now().secs() + 3600));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("pragma"), Some("no-cache"));
}

/// §1: a username and its password; the password is everything behind the first colon, in UTF-8.
#[tokio::test]
async fn a_password_gets_a_token_colons_blanks_and_umlauts_included() {
    let gateway = TestGateway::start().await;
    gateway.acme().await;
    for (name, password) in
        [("colon", "a:b:c"), ("blank", " s p a c e "), ("umlaut", "pässwörd £€"), ("long", &"x".repeat(2000))]
    {
        gateway.account(name, Some(password)).await;
        gateway.licence(name, &[SAMPLE], None).await;
        let token = gateway.get("/token").basic(name, password).await.token();
        assert_eq!(forge::claims(&token)["client_id"], name, "of a password, the account is the client");
        for wrong in [format!("{password}x"), format!("x{password}"), password.replace([' ', 'ä', ':'], "") + "y"] {
            refused(&gateway.get("/token").basic(name, &wrong).await);
        }
    }
}

/// §1: the scheme is case-insensitive (RFC 9110 §11.1), and more than one blank may follow.
#[tokio::test]
async fn the_scheme_is_read_in_any_case() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let credentials = STANDARD.encode(format!("{}:", key.secret().expose()));
    for scheme in ["Basic", "basic", "BASIC", "bAsIc", "Basic  "] {
        let answer = gateway.get("/token").header("authorization", format!("{scheme} {credentials}")).await;
        assert_eq!(answer.status, 200, "{scheme:?}");
    }
}

/// §1: clients that insist on a password send the key's id as user-id and the key as password.
#[tokio::test]
async fn a_key_goes_behind_its_own_id_too() {
    let gateway = TestGateway::start().await;
    let (key, other) = (gateway.acme().await, gateway.key("acme").await);
    let (id, text) = (format!("kb_{}", key.id()), key.secret().expose());
    let token = gateway.get("/token").basic(&id, text).await.token();
    assert_eq!(forge::claims(&token)["client_id"], id);
    for (user, password) in [
        // With a password of whatever kind, the key as user-id is a wrong credential.
        (text.as_str(), "password"),
        (text, text),
        (text, " "),
        // An id alone, an id with something else, and an id with another's key.
        (&id, "password"),
        (&id, other.secret().expose()),
        (&id, &text[..text.len() - 1]),
    ] {
        refused(&gateway.get("/token").basic(user, password).await);
    }
    // The id is no key, but it begins like one: not "not specified", but wrong.
    refused(&gateway.get("/token").basic(&id, "").await);
}

/// §1: 400 when the username and/or the password is not specified, however that comes about.
#[tokio::test]
async fn credentials_that_are_not_specified_are_a_bad_request() {
    let gateway = TestGateway::start().await;
    gateway.acme().await;
    let encoded = |pair: &[u8]| format!("Basic {}", STANDARD.encode(pair));
    let cases: &[(&str, String)] = &[
        ("another scheme", "Bearer abc".into()),
        ("another scheme", "Digest username=\"acme\"".into()),
        ("a scheme that begins alike", "Basically YWNtZTpvcGVuIHNlc2FtZQ==".into()),
        ("the scheme alone", "Basic".into()),
        ("nothing", "".into()),
        ("not base64", "Basic *".into()),
        ("base64 without its padding", "Basic YWNtZTpvcGVuIHNlc2FtZQ".into()),
        ("base64url", "Basic YWNtZTo_Pz8_".into()),
        ("something behind", "Basic YWNtZTpvcGVuIHNlc2FtZQ== x".into()),
        ("not UTF-8", encoded(b"acme:\xff\xfe")),
        ("no colon", encoded(b"acme")),
        ("no user-id", encoded(b":open sesame")),
        ("neither user-id nor password", encoded(b":")),
        ("no password", encoded(b"acme:")),
        ("NUL", encoded(b"acme:open\0sesame")),
        ("a newline", encoded(b"acme\n:open sesame")),
        ("DEL", encoded(b"acme:open sesame\x7f")),
        ("a control character above ASCII", encoded("acme:open\u{85}".as_bytes())),
        ("too long", encoded(&[b"acme:".as_slice(), &[b'x'; 5000]].concat())),
    ];
    for http in BOTH {
        for method in ["GET", "POST"] {
            let none = gateway.call(method, "/token").over(http).await;
            none.problem(400, "credentials-not-specified");
            assert_eq!(none.header("www-authenticate"), None, "a 400 has no challenge");
        }
        for (what, value) in cases {
            let answer = gateway.get("/token").header("authorization", value).over(http).await;
            assert_eq!(answer.status, 400, "{what}: {answer:?}");
            answer.problem(400, "credentials-not-specified");
        }
    }
}

/// §1: two `Authorization` lines are 400, even when both are right: two readers could take either.
#[tokio::test]
async fn two_authorization_lines_are_a_bad_request() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    for http in BOTH {
        gateway.token_call(&key).key(&key).over(http).await.problem(400, "credentials-not-specified");
    }
    let line = format!("Authorization: {}\r\n", crate::client::basic("acme", "open sesame"));
    let request = format!("GET /token HTTP/1.1\r\nHost: x\r\n{line}Accept: */*\r\n{line}\r\n");
    assert_eq!(exchange(&gateway, request).await.map(|raw| raw.status), Some(400));
}

/// §1: 401 for what was specified and is wrong, expired, revoked or suspended; and the answers are the same.
#[tokio::test]
async fn wrong_credentials_are_refused_alike_whatever_is_wrong_with_them() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let soon = gateway.now() + Duration::from_secs(60);
    let now = gateway.now();
    gateway.account("poor", Some("password")).await;
    gateway.account("was", Some("password")).await;
    gateway.licence("was", &[SAMPLE], Some(soon)).await;
    gateway.account("held", Some("password")).await;
    gateway.licence("held", &[SAMPLE], None).await;
    gateway.account("keyed", None).await;
    gateway.licence("keyed", &[SAMPLE], None).await;
    gateway.account("lost", Some("password")).await;
    gateway.licence("lost", &["no-such-group"], None).await;

    let expired = gateway.key_with("acme", |key| Key { expires_at: Some(soon), ..key }).await;
    let (revoked, suspended) = (gateway.key("acme").await, gateway.key("acme").await);
    let (of_held, of_poor, of_was) = (gateway.key("held").await, gateway.key("poor").await, gateway.key("was").await);
    let elsewhere =
        gateway.key_with("acme", |key| Key { groups: Some(crate::gateway::group_set(&["demo"])), ..key }).await;
    gateway.revoke_key(&revoked).await;
    gateway.update_key(&suspended, |key| (Key { state: KeyState::Suspended, ..key }, Cut::Now(now))).await;
    gateway.suspend_account("held").await;
    gateway.advance(Duration::from_secs(60));
    gateway.sync().await;

    let text = key.secret().expose();
    let unknown = ApiKey::generate(&KeyPrefix::default());
    // In this one place: the same character may be in the prefix, and then it would be no key at all.
    let mistyped = format!("{}{}{}", &text[..20], if &text[20..21] == "A" { "B" } else { "A" }, &text[21..]);
    let other_prefix = ApiKey::generate(&"acme".parse().expect("a prefix"));
    let shown = |key: &ApiKey| (key.secret().expose().clone(), String::new());
    let pair = |user: &str, password: &str| (user.to_owned(), password.to_owned());

    let cases = [
        ("an unknown key", shown(&unknown)),
        ("another secret", (another_secret_of(&key), String::new())),
        ("a mistyped key", (mistyped, String::new())),
        ("a cut key", (text[..50].to_owned(), String::new())),
        ("an expired key", shown(&expired)),
        ("a revoked key", shown(&revoked)),
        ("a suspended key", shown(&suspended)),
        ("a key of a suspended account", shown(&of_held)),
        ("a key without a licence", shown(&of_poor)),
        ("a key whose licence has ended", shown(&of_was)),
        ("a key for nothing that is licensed", shown(&elsewhere)),
        ("a key of another installation, with a password", pair(other_prefix.secret().expose(), "x")),
        ("an unknown user", pair("nobody", "password")),
        ("a user-id that no account can have", pair("no body/", "password")),
        ("a wrong password", pair("acme", "open sesam")),
        ("a password that differs in case", pair("acme", "Open Sesame")),
        ("a user-id that differs in case", pair("ACME", "open sesame")),
        ("an account without a password", pair("keyed", "password")),
        ("a suspended account", pair("held", "password")),
        ("an account without a licence", pair("poor", "password")),
        ("an account whose licence has ended", pair("was", "password")),
        ("a licence for a group that there is not", pair("lost", "password")),
    ];
    let mut bodies = Vec::new();
    for (what, (user, password)) in &cases {
        for http in BOTH {
            let answer = gateway.get("/token").basic(user, password).over(http).await;
            assert_eq!(answer.status, 401, "{what}: {answer:?}");
            bodies.push((what, refused(&answer)));
        }
    }
    for (what, body) in &bodies {
        assert_eq!(body, &bodies[0].1, "{what}: the body does not say which it was");
    }
    assert_eq!(gateway.token_call(&key).await.status, 200, "the good one is still good");
}

/// §1, last ★ row, at the exact instant: a key works until just before its end.
#[tokio::test]
async fn a_key_ends_at_its_end_and_its_tokens_never_outlive_it() {
    let gateway = TestGateway::start().await;
    gateway.acme().await;
    let end = gateway.now() + Duration::from_secs(100);
    let key = gateway.key_with("acme", |key| Key { expires_at: Some(end), ..key }).await;
    let answer = gateway.token_call(&key).await;
    assert_eq!(answer.json()["expires_in"], 100, "not an hour: the key ends before");
    gateway.advance(Duration::from_millis(99_999));
    let last = gateway.token_call(&key).await;
    assert_eq!(last.json()["expires_in"], 1);
    assert_eq!(gateway.get("/whoami").bearer(last.token()).await.status, 200);
    gateway.advance(Duration::from_millis(1));
    refused(&gateway.token_call(&key).await);
    gateway.get("/whoami").bearer(answer.token()).await.assert_invalid_token();
    gateway.get("/whoami").bearer(last.token()).await.assert_invalid_token();
}

/// §6: header and claims of an issued token; the signature verifies with the published key.
#[tokio::test]
async fn the_token_is_an_rs256_access_token_of_rfc_9068() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    assert_eq!(forge::decode(parts[0]), json!({"alg": "RS256", "typ": "at+jwt", "kid": forge::ours().key.kid()}));
    let mut claims = forge::claims(&token);
    let jti = claims["jti"].take();
    assert_eq!(jti.as_str().map(str::len), Some(22), "128 bits");
    let now = gateway.now().secs();
    assert_eq!(
        claims,
        json!({
            "iss": "https://localhost:8443", "aud": "https://localhost:8443", "sub": "acme",
            "client_id": format!("kb_{}", key.id()), "iat": now, "nbf": now - 2, "exp": now + 3600, "jti": null,
            "scope": "demo sample", "groups": ["demo", "sample"],
        })
    );

    let jwks = gateway.get("/.well-known/jwks.json").await;
    assert_eq!(jwks.header("cache-control"), Some("public, max-age=300"));
    let jwks: jsonwebtoken::jwk::JwkSet = serde_json::from_value(jwks.json()).expect("a JWK Set");
    assert_eq!(jwks.keys.len(), 1);
    let jwk = jwks.find(forge::ours().key.kid()).expect("the key by its kid");
    let public = jsonwebtoken::DecodingKey::from_jwk(jwk).expect("an RSA key");
    let signed = format!("{}.{}", parts[0], parts[1]);
    let good = jsonwebtoken::crypto::verify(parts[2], signed.as_bytes(), &public, jsonwebtoken::Algorithm::RS256);
    assert!(good.expect("a verdict"), "whoever has the JWK Set can verify it");
}

/// §6: two tokens of one credential are different tokens.
#[tokio::test]
async fn each_call_issues_a_token_of_its_own() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let (one, two) = (gateway.token(&key).await, gateway.token(&key).await);
    assert_ne!(forge::claims(&one)["jti"], forge::claims(&two)["jti"]);
    assert_eq!(gateway.registry().len(), 2);
}

/// §6: a group may shorten the lifetime, and a key may be narrower than its account.
#[tokio::test]
async fn a_group_shortens_the_lifetime_and_a_key_narrows_the_scope() {
    let gateway = TestGateway::start().await;
    gateway.acme().await;
    gateway.group("brief", Some(Duration::from_secs(60))).await;
    gateway.licence("acme", &["brief"], None).await;
    let all = gateway.key("acme").await;
    let narrow =
        gateway.key_with("acme", |key| Key { groups: Some(crate::gateway::group_set(&[SAMPLE])), ..key }).await;
    let all = gateway.token_call(&all).await.json();
    assert_eq!((&all["scope"], &all["expires_in"]), (&json!("brief demo sample"), &json!(60)));
    let narrow = gateway.token_call(&narrow).await.json();
    assert_eq!((&narrow["scope"], &narrow["expires_in"]), (&json!("demo sample"), &json!(3600)));
}

/// §5: the form of a key, and that its checksum is looked at before the store is.
#[tokio::test]
async fn a_key_has_its_published_form() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let text = key.secret().expose();
    let (prefix, rest) = text.split_at(3);
    let (id, rest) = rest.split_at(12);
    assert_eq!((prefix, id, &rest[..1], rest.len()), ("kb_", key.id().as_str(), "_", 1 + 32 + 6));
    assert!(rest[1..].bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let stored = gateway.store.key(key.id()).await.expect("stored").expect("the record");
    assert!(stored.hash.as_phc().starts_with("$argon2id$v=19$"), "at rest it is a hash");
    assert!(!format!("{stored:?}").contains(&rest[1..]), "and shows nothing of the key");
}
