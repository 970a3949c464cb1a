//! A key that is bound to networks, and its tokens: refused from elsewhere at every door.

use keybearer::client_addr::Networks;
use keybearer::keys::Key;
use keybearer::routes::{Destination, Resource, RouteSettings};

use crate::client::Call;
use crate::forge;
use crate::gateway::{SAMPLE, TestGateway};

fn networks(text: &str) -> Option<Networks> {
    Some(text.parse().expect("networks"))
}

/// A gateway behind a load balancer on this machine, which says who calls; other proxies may ask it, too.
async fn start() -> TestGateway {
    TestGateway::build()
        .behind_proxy(&["127.0.0.0/8"])
        .with(|config| {
            let trusted = vec!["127.0.0.0/8".parse().expect("a network")];
            config.forward_auth = Some(keybearer::forward_auth::Settings { trusted, ..Default::default() });
            let (id, path) = ("orders".parse().expect("an id"), "/orders/*".parse().expect("a path"));
            config.routes.push(RouteSettings {
                groups: vec![SAMPLE.parse().expect("a group")],
                destination: Destination::External,
                ..RouteSettings::new(id, path, Resource::Echo)
            });
        })
        .start()
        .await
}

fn from<'a>(gateway: &'a TestGateway, path: &str, client: &str) -> Call<'a> {
    gateway.by_proxy(path).header("X-Forwarded-For", client).header("X-Forwarded-Proto", "https")
}

#[tokio::test]
async fn a_key_and_its_tokens_are_refused_from_elsewhere() {
    let gateway = start().await;
    gateway.acme().await;
    let allowed = "203.0.113.0/24 2001:db8::/48";
    let key = gateway.key_with("acme", |key| Key { networks: networks(allowed), ..key }).await;

    let refused = from(&gateway, "/token", "198.51.100.7").key(&key).await;
    let problem = refused.problem(403, "forbidden");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("may not be used from this address")));
    // Who does not hold the key does not learn that there is such a list.
    from(&gateway, "/token", "198.51.100.7")
        .basic(&format!("kb_{}", key.id()), "x")
        .await
        .problem(401, "invalid-credentials");

    for client in ["203.0.113.7", "2001:db8::7"] {
        let token = from(&gateway, "/token", client).key(&key).await.token();
        assert_eq!(forge::claims(&token)["networks"], serde_json::json!(["203.0.113.0/24", "2001:db8::/48"]));
        for inside in ["203.0.113.200", "2001:db8::9"] {
            assert_eq!(from(&gateway, "/sample/x", inside).bearer(&token).await.status, 200, "{inside}");
        }
        for outside in ["198.51.100.7", "2001:db8:1::7"] {
            from(&gateway, "/sample/x", outside).bearer(&token).await.problem(403, "forbidden");
        }
        // Directly, it is this machine that calls.
        gateway.get("/whoami").bearer(&token).await.problem(403, "forbidden");
    }
}

#[tokio::test]
async fn oauths_dialect_says_it_in_its_own_word() {
    let gateway = TestGateway::start().await;
    gateway.acme().await;
    let key = gateway.key_with("acme", |key| Key { networks: networks("203.0.113.0/24"), ..key }).await;
    let answer = gateway.post("/token").form(&[("grant_type", "client_credentials")]).key(&key).await;
    answer.oauth_error(400, "unauthorized_client");
}

#[tokio::test]
async fn a_proxy_that_asks_is_told_no_for_a_client_elsewhere() {
    let gateway = start().await;
    gateway.acme().await;
    let key = gateway.key_with("acme", |key| Key { networks: networks("203.0.113.0/24"), ..key }).await;
    let token = from(&gateway, "/token", "203.0.113.7").key(&key).await.token();
    let asked = |client: &str| {
        gateway
            .get("/authz/forward-auth")
            .header("X-Forwarded-Method", "GET")
            .header("X-Forwarded-Uri", "/orders/1")
            .header("X-Forwarded-Host", "api.example.com")
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-For", client)
            .bearer(&token)
    };
    assert_eq!(asked("203.0.113.7").await.status, 200);
    let refused = asked("198.51.100.7").await;
    assert_eq!((refused.status, refused.header("x-auth-reason")), (403, Some("network_not_allowed")));
}

#[tokio::test]
async fn introspection_judges_by_the_address_it_is_told_or_says_the_networks() {
    let gateway = start().await;
    let other = gateway.acme().await;
    let key = gateway.key_with("acme", |key| Key { networks: networks("203.0.113.0/24"), ..key }).await;
    let token = from(&gateway, "/token", "203.0.113.7").key(&key).await.token();
    let ask = async |more: &[(&str, &str)]| {
        let form = [&[("token", token.as_str())], more].concat();
        gateway.post("/introspect").form(&form).key(&other).await
    };
    let told = ask(&[]).await.json();
    assert_eq!((&told["active"], &told["networks"]), (&true.into(), &serde_json::json!(["203.0.113.0/24"])));
    assert_eq!(ask(&[("client_address", "203.0.113.9")]).await.json()["active"], true);
    assert_eq!(ask(&[("client_address", "198.51.100.7")]).await.json(), serde_json::json!({"active": false}));
    ask(&[("client_address", "nowhere")]).await.oauth_error(400, "invalid_request");
    // Who asks with such a token has to be where it is good, too.
    let form = [("token", token.as_str())];
    let by_token = gateway.post("/introspect").form(&form).bearer(&token).await;
    by_token.oauth_error(401, "invalid_token");
}

#[tokio::test]
async fn a_narrower_list_ends_the_tokens_and_a_wider_one_does_not() {
    let gateway = start().await;
    let key = gateway.acme().await;
    let keys = gateway.keys();
    let set = async |list: Option<&str>| {
        let list = list.and_then(networks);
        let changed = keys.set_networks(key.id(), list.as_ref()).await.expect("done");
        gateway.sync().await;
        (changed.written, changed.tokens_cut)
    };
    let token = gateway.token(&key).await;
    assert_eq!(set(Some("203.0.113.0/24")).await, (true, true), "from everywhere to one");
    from(&gateway, "/whoami", "203.0.113.7").bearer(&token).await.assert_invalid_token();
    assert_eq!(set(Some("203.0.112.0/23")).await, (true, false));
    assert_eq!(set(Some("203.0.112.0/24 203.0.113.0/24")).await, (false, false), "the same in other words");
    assert_eq!(set(Some("203.0.113.0/24 10.0.0.0/8")).await, (true, true), "from one to another");
    assert_eq!(set(None).await, (true, false));
    assert_eq!(gateway.get("/whoami").bearer(gateway.token(&key).await).await.status, 200);
}
