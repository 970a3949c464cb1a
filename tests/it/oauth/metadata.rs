//! What programs find out by themselves: RFC 8414, RFC 9728.

use serde_json::{Value, json};

use crate::client::{Answer, BOTH};
use crate::gateway::TestGateway;

#[track_caller]
fn document(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    answer.json()
}

#[tokio::test]
async fn a_client_that_knows_the_issuer_finds_every_door() {
    let gateway = TestGateway::start().await;
    let at = |path: &str| format!("https://localhost:{}{path}", gateway.https().port());
    let methods = json!(["client_secret_basic", "client_secret_post"]);
    for http in BOTH {
        let server = document(&gateway.get("/.well-known/oauth-authorization-server").over(http).await);
        assert_eq!(
            server,
            json!({
                "issuer": "https://localhost:8443",
                "token_endpoint": at("/token"), "token_endpoint_auth_methods_supported": methods,
                "introspection_endpoint": at("/introspect"), "introspection_endpoint_auth_methods_supported": methods,
                "revocation_endpoint": at("/revoke"), "revocation_endpoint_auth_methods_supported": methods,
                "jwks_uri": at("/.well-known/jwks.json"),
                // Neither left out nor empty: tests/clients has a client that refuses both.
                "response_types_supported": ["none"], "grant_types_supported": ["client_credentials"],
                "service_documentation": at("/"),
            })
        );
        let resource = document(&gateway.get("/.well-known/oauth-protected-resource").over(http).await);
        assert_eq!(
            resource,
            json!({
                "resource": "https://localhost:8443", "authorization_servers": ["https://localhost:8443"],
                "jwks_uri": at("/.well-known/jwks.json"), "bearer_methods_supported": ["header"],
                "resource_documentation": at("/"),
            })
        );
    }
}

/// From a bare challenge to a token, following nothing but what the answers say (RFC 9728 §5).
#[tokio::test]
async fn a_challenge_leads_to_a_token() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let base = format!("https://localhost:{}", gateway.https().port());
    let path_of = |url: &str| url.strip_prefix(&base).expect("a URL of this gateway").to_owned();
    let refused = gateway.get("/sample/x").await;
    let (_, url) = refused.challenge().split_once("resource_metadata=\"").expect("the parameter");
    let resource = document(&gateway.get(&path_of(url.trim_end_matches('"'))).await);
    assert_eq!(resource["authorization_servers"], json!(["https://localhost:8443"]));
    let server = document(&gateway.get("/.well-known/oauth-authorization-server").await);
    let endpoint = path_of(server["token_endpoint"].as_str().expect("a URL"));
    let form = [("grant_type", server["grant_types_supported"][0].as_str().expect("a grant"))];
    let token = gateway.post(&endpoint).form(&form).key(&key).await.token();
    assert_eq!(gateway.get("/sample/x").bearer(token).await.status, 200);
}

/// RFC 8414 §3.1, RFC 9728 §3.1: the path goes behind the well-known one.
#[tokio::test]
async fn an_issuer_with_a_path_is_found_behind_the_well_known_one() {
    let build = TestGateway::build().with(|config| {
        config.tokens.issuer = "https://gateway.example.com/auth/".into();
        config.tokens.audience = vec!["https://gateway.example.com/api/v1".into()];
    });
    let gateway = build.start().await;
    let server = document(&gateway.get("/.well-known/oauth-authorization-server/auth").await);
    assert_eq!(server["issuer"], "https://gateway.example.com/auth/", "to the letter");
    assert_eq!(server["token_endpoint"], "https://gateway.example.com/auth/token");
    let resource = document(&gateway.get("/.well-known/oauth-protected-resource/api/v1").await);
    assert_eq!(resource["resource"], "https://gateway.example.com/api/v1");
    for none in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/other",
        "/.well-known/oauth-authorization-server/auth/x",
        "/.well-known/oauth-protected-resource",
    ] {
        gateway.get(none).await.problem(404, "not-found");
    }
    let challenge = "Bearer realm=\"keybearer\", \
                     resource_metadata=\"https://gateway.example.com/.well-known/oauth-protected-resource/api/v1\"";
    assert_eq!(gateway.get("/whoami").await.challenge(), challenge);
}
