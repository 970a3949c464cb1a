//! §2 Calling a secured path.

use std::time::Duration;

use keybearer::revocations::Target;
use serde_json::json;

use crate::client::{BOTH, Http};
use crate::forge;
use crate::gateway::TestGateway;

/// RFC 6750 §3.1: without a token no error; RFC 9728 §5.1: where to read on.
fn bare(gateway: &TestGateway) -> String {
    format!("Bearer realm=\"keybearer\", {}", gateway.resource_metadata())
}

/// §2: without a token 401, and the challenge has no `error` (RFC 6750 §3.1).
#[tokio::test]
async fn without_a_token_every_path_off_the_public_list_asks_for_one() {
    let gateway = TestGateway::start().await;
    for http in BOTH {
        for path in
            ["/whoami", "/demo/time", "/demo/echo", "/sample/x", "/nothing", "/Token", "/token/", "/health", "/admin"]
        {
            let answer = gateway.get(path).over(http).await;
            answer.problem(401, "missing-token");
            assert_eq!(answer.challenge(), bare(&gateway), "{path}");
        }
    }
}

/// §2: a path nobody configured is secured too: 401 without a token, 404 with one.
#[tokio::test]
async fn an_unknown_path_is_not_found_only_for_who_has_a_token() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    for path in ["/nothing", "/demo/nothing", "/samples", "/metrics", "/.well-known/nothing"] {
        assert_eq!(gateway.get(path).await.status, 401, "{path}");
        gateway.get(path).bearer(&token).await.problem(404, "not-found");
        assert_eq!(gateway.get(path).bearer("nonsense").await.status, 401, "{path}");
    }
}

/// §2: the public list is short, and it is public.
#[tokio::test]
async fn the_public_list_needs_no_token() {
    let gateway = TestGateway::start().await;
    for http in BOTH {
        for path in ["/", "/demo", "/health/live", "/health/ready", "/.well-known/jwks.json"] {
            assert_eq!(gateway.get(path).over(http).await.status, 200, "{path}");
            // Whatever is presented there is not looked at.
            assert_eq!(gateway.get(path).bearer("nonsense").over(http).await.status, 200, "{path}");
        }
    }
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(gateway.admin("GET", path).await.status, 200, "{path}");
    }
}

/// §2: valid, and the request proceeds.
#[tokio::test]
async fn a_valid_token_opens_what_it_is_licensed_for() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    for http in BOTH {
        let whoami = gateway.get("/whoami").bearer(&token).over(http).await.json();
        assert_eq!(whoami["credential"], json!({"type": "key", "id": key.id().as_str()}));
        assert_eq!(whoami["groups"], json!(["demo", "sample"]));
        assert_eq!(whoami["token"]["expires_in"], 3600);
        let echo = gateway.post("/sample/orders?page=2").bearer(&token).body("hello").over(http).await.json();
        assert_eq!(
            (&echo["method"], &echo["path"], &echo["query"]),
            (&json!("POST"), &json!("/sample/orders"), &json!("page=2"))
        );
        assert_eq!(echo["content"], json!({"bytes": 5, "text": "hello"}));
        assert_eq!(echo["headers"]["authorization"], "[redacted]", "credentials are blanked");
        assert_eq!(gateway.get("/demo/time").bearer(&token).over(http).await.json()["unix"], gateway.now().secs());
    }
}

/// §2: `Authorization: Bearer`, and nothing else.
#[tokio::test]
async fn a_token_anywhere_but_in_a_bearer_header_is_refused() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    let form = format!("access_token={token}");
    let answers = [
        gateway.get(&format!("/whoami?access_token={token}")).await,
        gateway.get(&format!("/whoami?a=b&access_token={token}&c=d")).await,
        gateway.get(&format!("/demo/echo?token={token}")).await,
        gateway.post("/demo/echo").header("content-type", "application/x-www-form-urlencoded").body(&form).await,
        gateway.get("/whoami").header("cookie", &form).await,
        gateway.get("/whoami").header("x-access-token", &token).await,
        gateway.get("/whoami").header("proxy-authorization", format!("Bearer {token}")).await,
        gateway.get("/whoami").header("authorization", &token).await,
        gateway.get("/whoami").header("authorization", format!("Token {token}")).await,
        gateway.get("/whoami").header("authorization", format!("Bearer{token}")).await,
        gateway.get("/whoami").basic("token", &token).await,
        gateway.get("/whoami").key(&key).await,
    ];
    for (n, answer) in answers.iter().enumerate() {
        answer.problem(401, "missing-token");
        assert_eq!(answer.challenge(), bare(&gateway), "{n}: nothing that counts was presented");
    }
    // Beside a good header, a token in the query changes nothing.
    assert_eq!(gateway.get("/whoami?access_token=x").bearer(&token).await.status, 200);
    assert_eq!(gateway.get("/whoami").header("authorization", format!("bEARER   {token}")).await.status, 200);
}

/// §2: malformed or forged is 401 with `invalid_token`.
#[tokio::test]
async fn what_is_no_token_of_ours_is_refused() {
    let gateway = TestGateway::start().await;
    let good = forge::good_claims(gateway.now());
    let bad = [
        String::new(),
        "x".into(),
        "a.b.c".into(),
        "..".into(),
        "Bearer x".into(),
        "é".into(),
        forge::a_strangers().with_claims(&good),
        forge::a_strangers().token(&forge::ours().header(), &good),
    ];
    for http in BOTH {
        for token in &bad {
            gateway.get("/whoami").bearer(token).over(http).await.assert_invalid_token();
        }
        let own = forge::ours().with_claims(&good);
        assert_eq!(gateway.get("/whoami").bearer(own).over(http).await.status, 200, "the forge can make a good one");
    }
}

/// §2: every call validates; a token that is found expired is removed from the registry at that moment.
#[tokio::test]
async fn an_expired_token_is_refused_and_evicted_the_moment_it_is_presented() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    gateway.advance(Duration::from_millis(3_599_999));
    assert_eq!(gateway.get("/whoami").bearer(&token).await.status, 200, "good to the last millisecond");
    assert_eq!((gateway.registry().len(), gateway.registry().evictions().on_read), (1, 0));
    gateway.advance(Duration::from_millis(1));
    // Not a word to the sweeper: the gateway's tasks run only when this one waits, and the call below may come first or
    // last. Either way the token is gone when the answer is there.
    let answer = gateway.get("/whoami").bearer(&token).await;
    answer.assert_invalid_token();
    assert!(answer.challenge().contains(", error_description=\"The access token expired\", resource"), "{answer:?}");
    assert_eq!(gateway.registry().len(), 0);
    gateway.get("/whoami").bearer(&token).await.assert_invalid_token();
    assert_eq!(gateway.registry().len(), 0, "and it does not come back");
    assert_eq!(gateway.metric("keybearer_registry_tokens").await, 0.0);
}

/// §2: the same where no sweeper helps: the registry itself evicts on the read.
#[tokio::test]
async fn the_read_itself_evicts() {
    use keybearer::registry::{Digest, Lookup};
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    gateway.advance(Duration::from_secs(3600));
    // No await since the clock moved: the sweeper, a task of this same thread, cannot have run.
    let registry = gateway.registry();
    assert_eq!(registry.len(), 1);
    assert!(matches!(registry.look_up(&Digest::of(token.as_bytes()), gateway.now()), Lookup::Expired(_)));
    assert_eq!((registry.len(), registry.evictions().on_read, registry.evictions().swept), (0, 1, 0));
}

/// §2: and a sweeper removes the tokens that nobody presents.
#[tokio::test]
async fn tokens_that_nobody_presents_are_swept() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    for _ in 0..20 {
        gateway.token(&key).await;
        gateway.advance(Duration::from_secs(10));
    }
    assert_eq!(gateway.registry().len(), 20);
    gateway.advance(Duration::from_secs(3500));
    until(|| gateway.registry().len() == 9).await;
    gateway.advance(Duration::from_secs(90));
    until(|| gateway.registry().is_empty()).await;
    let evictions = gateway.registry().evictions();
    assert_eq!((evictions.swept, evictions.on_read), (20, 0), "nobody presented them");
    assert_eq!(gateway.registry().principals(), 0, "and nothing is left behind of whose they were");
}

/// Lets other tasks run until something is so.
async fn until(done: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it did not come about");
}

/// §2: revoked is 401, on the spot.
#[tokio::test]
async fn a_revoked_token_is_refused() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let (token, other) = (gateway.token(&key).await, gateway.token(&key).await);
    let jti = forge::claims(&token)["jti"].as_str().expect("an id").parse().expect("an id");
    gateway.store.revoke(&Target::Token(jti), gateway.now(), false).await.expect("stored");
    gateway.sync().await;
    for http in BOTH {
        let answer = gateway.get("/whoami").bearer(&token).over(http).await;
        answer.assert_invalid_token();
        assert!(answer.challenge().contains("The access token was revoked"));
    }
    assert_eq!(gateway.get("/whoami").bearer(&other).await.status, 200, "the other one is another");
}

/// §2: valid and too weak is 403, and says what is missing and whom to ask.
#[tokio::test]
async fn a_token_without_the_group_is_told_which_and_whom_to_ask() {
    let gateway = TestGateway::start().await;
    gateway.group("other", None).await;
    gateway.account("small", Some("password")).await;
    gateway.licence("small", &["other"], None).await;
    let token = gateway.get("/token").basic("small", "password").await.token();
    for http in BOTH {
        let answer = gateway.get("/sample/x").bearer(&token).over(http).await;
        let problem = answer.problem(403, "insufficient-scope");
        assert_eq!((&problem["missing_group"], &problem["contact"]), (&json!("sample"), &json!("sales@example.com")));
        let error = "error=\"insufficient_scope\", scope=\"sample\"";
        let challenge = format!("Bearer realm=\"keybearer\", {error}, {}", gateway.resource_metadata());
        assert_eq!(answer.challenge(), challenge);
    }
    assert_eq!(gateway.get("/whoami").bearer(&token).await.status, 200);
}

/// §2: a 401 says nothing about the path: it is the same for what there is and what there is not.
#[tokio::test]
async fn a_refusal_does_not_tell_which_paths_there_are() {
    let gateway = TestGateway::start().await;
    let known = gateway.get("/sample/x").await.problem(401, "missing-token");
    let unknown = gateway.get("/nothing").over(Http::Two).await.problem(401, "missing-token");
    assert_eq!(known, unknown);
    assert_eq!(gateway.call("DELETE", "/whoami").await.problem(401, "missing-token"), known, "nor which methods");
}
