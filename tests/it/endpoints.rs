//! Every endpoint with every kind of credential. A route without a row here fails a test: deny by default must be seen.

use std::collections::BTreeSet;

use keybearer::forward_auth;
use keybearer::revocations::Target;
use keybearer::routes::{BuiltIns, Destination, Resource, RouteSettings, RouteTable, default_routes};
use serde_json::json;

use crate::client::{BOTH, Call};
use crate::forge;
use crate::gateway::TestGateway;
use crate::proxy::route;
use crate::proxy::upstream::{Speaks, Upstream};

/// One route by one method, and what it answers to no token, a malformed one, one of an unknown key, an expired one, a
/// revoked one, one for another group, and a good one.
struct Row {
    route: &'static str,
    method: &'static str,
    path: &'static str,
    statuses: [u16; 7],
}

const CREDENTIALS: [&str; 7] = ["no token", "malformed", "unknown", "expired", "revoked", "too weak", "good"];

const fn row(route: &'static str, method: &'static str, path: &'static str, statuses: [u16; 7]) -> Row {
    Row { route, method, path, statuses }
}

/// Whoever asks.
const PUBLIC: [u16; 7] = [200; 7];
/// Wherever the method is none of the route's, and the route is public.
const NO_SUCH_METHOD: [u16; 7] = [405; 7];
/// Any valid token.
const TOKEN: [u16; 7] = [401, 401, 401, 401, 401, 200, 200];
/// A token for the group.
const GROUP: [u16; 7] = [401, 401, 401, 401, 401, 403, 200];
/// Nobody learns a path's methods without a token for it.
const TOKEN_NO_SUCH_METHOD: [u16; 7] = [401, 401, 401, 401, 401, 405, 405];
const GROUP_NO_SUCH_METHOD: [u16; 7] = [401, 401, 401, 401, 401, 403, 405];
/// The token endpoint takes Basic: a Bearer token is "not specified" there.
const NOT_BASIC: [u16; 7] = [400; 7];
/// Who asks must be known, and then there is no token to ask about.
const ASKS: [u16; 7] = [401, 401, 401, 401, 401, 400, 400];
/// A key's own holder: neither of these accounts has this key.
const OWN_KEY: [u16; 7] = [401, 401, 401, 401, 401, 404, 404];
/// Public, and there is nothing.
const NOBODYS: [u16; 7] = [404; 7];
/// Not in the table: secured all the same.
const NOWHERE: [u16; 7] = [401, 401, 401, 401, 401, 404, 404];

const ROWS: &[Row] = &[
    row("token", "GET", "/token", NOT_BASIC),
    row("token", "POST", "/token", NOT_BASIC),
    row("token", "PUT", "/token", NO_SUCH_METHOD),
    row("token", "DELETE", "/token", NO_SUCH_METHOD),
    row("token", "OPTIONS", "/token", NO_SUCH_METHOD),
    row("introspect", "POST", "/introspect", ASKS),
    row("introspect", "GET", "/introspect", NO_SUCH_METHOD),
    row("introspect", "PUT", "/introspect", NO_SUCH_METHOD),
    row("revoke", "POST", "/revoke", ASKS),
    row("revoke", "GET", "/revoke", NO_SUCH_METHOD),
    row("revoke", "DELETE", "/revoke", NO_SUCH_METHOD),
    row("server-metadata", "GET", "/.well-known/oauth-authorization-server", PUBLIC),
    row("server-metadata", "POST", "/.well-known/oauth-authorization-server", NO_SUCH_METHOD),
    row("server-metadata", "GET", "/.well-known/oauth-authorization-server/x", NOBODYS),
    row("resource-metadata", "GET", "/.well-known/oauth-protected-resource", PUBLIC),
    row("resource-metadata", "PUT", "/.well-known/oauth-protected-resource", NO_SUCH_METHOD),
    row("resource-metadata", "GET", "/.well-known/oauth-protected-resource/x", NOBODYS),
    row("", "GET", "/.well-known/openid-configuration", NOWHERE),
    row("jwks", "GET", "/.well-known/jwks.json", PUBLIC),
    row("jwks", "POST", "/.well-known/jwks.json", NO_SUCH_METHOD),
    row("health-live", "GET", "/health/live", PUBLIC),
    row("health-live", "POST", "/health/live", NO_SUCH_METHOD),
    row("health-ready", "GET", "/health/ready", PUBLIC),
    row("health-ready", "PUT", "/health/ready", NO_SUCH_METHOD),
    row("portal", "GET", "/", PUBLIC),
    row("portal", "POST", "/", NO_SUCH_METHOD),
    row("openapi", "GET", "/openapi.json", PUBLIC),
    row("openapi", "POST", "/openapi.json", NO_SUCH_METHOD),
    row("whoami", "GET", "/whoami", TOKEN),
    row("whoami", "POST", "/whoami", TOKEN_NO_SUCH_METHOD),
    row("whoami", "OPTIONS", "/whoami", TOKEN_NO_SUCH_METHOD),
    row("me-usage", "GET", "/me/usage", TOKEN),
    row("me-usage", "POST", "/me/usage", TOKEN_NO_SUCH_METHOD),
    row("", "GET", "/me", NOWHERE),
    row("roll-key", "POST", "/me/keys/0123456789ab/roll", OWN_KEY),
    row("roll-key", "GET", "/me/keys/0123456789ab/roll", TOKEN_NO_SUCH_METHOD),
    row("demo", "GET", "/demo", PUBLIC),
    row("demo", "DELETE", "/demo", NO_SUCH_METHOD),
    row("demo-echo", "GET", "/demo/echo", GROUP),
    row("demo-echo", "POST", "/demo/echo", GROUP),
    row("demo-echo", "PATCH", "/demo/echo", GROUP),
    row("demo-echo", "OPTIONS", "/demo/echo", GROUP),
    row("demo-echo", "PROPFIND", "/demo/echo", GROUP),
    row("demo-time", "GET", "/demo/time", GROUP),
    row("demo-time", "POST", "/demo/time", GROUP_NO_SUCH_METHOD),
    row("sample", "GET", "/sample", GROUP),
    row("sample", "GET", "/sample/", GROUP),
    row("sample", "POST", "/sample/a/b", GROUP),
    row("sample", "OPTIONS", "/sample/a", GROUP),
    row("", "GET", "/nothing", NOWHERE),
    row("", "POST", "/demo/", NOWHERE),
    row("", "OPTIONS", "/nothing", NOWHERE),
];

const ADMIN_ROWS: &[Row] = &[
    row("admin-health-live", "GET", "/health/live", PUBLIC),
    row("admin-health-live", "POST", "/health/live", NO_SUCH_METHOD),
    row("admin-health-ready", "GET", "/health/ready", PUBLIC),
    row("admin-health-ready", "POST", "/health/ready", NO_SUCH_METHOD),
    row("admin-metrics", "GET", "/metrics", PUBLIC),
    row("admin-metrics", "DELETE", "/metrics", NO_SUCH_METHOD),
    row("admin-openapi", "GET", "/openapi.json", PUBLIC),
    row("admin-openapi", "PUT", "/openapi.json", NO_SUCH_METHOD),
    row("", "GET", "/token", NOWHERE),
    row("", "GET", "/nothing", NOWHERE),
];

/// A decision about `/guarded/a` of the sample group: what a proxy passes on as its own answer.
const DECIDED: [u16; 7] = GROUP;
/// Without a good token nobody learns that there is no such route.
const DECIDED_NOWHERE: [u16; 7] = [401, 401, 401, 401, 401, 403, 403];
/// What was asked about is not said: denied, whoever asks.
const UNASKED: [u16; 7] = [403; 7];
/// No gRPC.
const NO_GRPC: [u16; 7] = [415; 7];

/// With forward-auth, and an upstream that answers `/api/*`. The last segment of a decision's path says what it is asked
/// about.
const DOOR_ROWS: &[Row] = &[
    row("authz-auth-request", "GET", "/authz/auth-request", DECIDED),
    row("authz-auth-request", "POST", "/authz/auth-request", DECIDED),
    row("authz-auth-request", "GET", "/authz/auth-request/below", DECIDED),
    row("authz-auth-request", "GET", "/authz/auth-request/nowhere", DECIDED_NOWHERE),
    row("authz-auth-request", "GET", "/authz/auth-request/unasked", UNASKED),
    row("authz-forward-auth", "GET", "/authz/forward-auth", DECIDED),
    row("authz-forward-auth", "DELETE", "/authz/forward-auth/below", DECIDED),
    row("authz-forward-auth", "GET", "/authz/forward-auth/nowhere", DECIDED_NOWHERE),
    row("authz-forward-auth", "GET", "/authz/forward-auth/unasked", UNASKED),
    row("authz-ext-authz", "GET", "/authz/ext-authz/guarded/a", DECIDED),
    row("authz-ext-authz", "PUT", "/authz/ext-authz/guarded/a", DECIDED),
    row("authz-ext-authz", "OPTIONS", "/authz/ext-authz/guarded", DECIDED),
    row("authz-ext-authz", "GET", "/authz/ext-authz/nowhere", DECIDED_NOWHERE),
    row("authz-ext-authz", "GET", "/authz/ext-authz", UNASKED),
    row("authz-ext-authz", "GET", "/authz/ext-authz/guarded%2fa", UNASKED),
    row("authz-haproxy", "GET", "/authz/haproxy", DECIDED),
    row("authz-haproxy", "PATCH", "/authz/haproxy/below", DECIDED),
    row("authz-haproxy", "GET", "/authz/haproxy/nowhere", DECIDED_NOWHERE),
    row("authz-haproxy", "GET", "/authz/haproxy/unasked", UNASKED),
    row("authz-grpc", "GET", "/envoy.service.auth.v3.Authorization/Check", NO_GRPC),
    row("authz-grpc", "POST", "/envoy.service.auth.v3.Authorization/Check", NO_GRPC),
    row("authz-grpc", "POST", "/envoy.service.auth.v3.Authorization/Other", NO_GRPC),
    row("api", "GET", "/api/a", GROUP),
    row("api", "POST", "/api/a", GROUP),
    row("api", "OPTIONS", "/api", GROUP),
    row("guarded", "GET", "/guarded/a", [401, 401, 401, 401, 401, 403, 404]),
    row("guarded", "POST", "/guarded", [401, 401, 401, 401, 401, 403, 404]),
    row("", "GET", "/authz", NOWHERE),
    row("", "GET", "/authz/other", NOWHERE),
    row("", "GET", "/authz/auth-requests", NOWHERE),
];

/// The routes of [`DOOR_ROWS`] that are configured.
fn door_routes() -> Vec<RouteSettings> {
    let sample = vec!["sample".parse().expect("a group")];
    let external =
        RouteSettings::new("guarded".parse().expect("an id"), "/guarded/*".parse().expect("a path"), Resource::Echo);
    vec![
        RouteSettings { groups: sample.clone(), ..route("api", "/api/*", "api") },
        RouteSettings { groups: sample, destination: Destination::External, ..external },
    ]
}

/// The credentials of [`CREDENTIALS`], in that order.
async fn credentials(gateway: &TestGateway) -> [Option<String>; 7] {
    let forge = forge::ours();
    let good = forge::good_claims(gateway.now());
    let changed = |name: &str, value: serde_json::Value| {
        let mut claims = forge::good_claims(gateway.now());
        claims[name] = value;
        claims
    };
    let expired = changed("exp", json!(gateway.now().secs()));
    let mut weak = changed("groups", json!(["other"]));
    weak["scope"] = json!("other");
    let mut unknown = forge.header();
    unknown["kid"] = json!(forge::a_strangers().key.kid());
    let revoked = forge::good_claims(gateway.now());
    let jti = revoked["jti"].as_str().expect("an id").parse().expect("an id");
    gateway.store.revoke(&Target::Token(jti), gateway.now(), false).await.expect("stored");
    gateway.sync().await;
    [
        None,
        Some("nonsense".into()),
        Some(forge::a_strangers().token(&unknown, &good)),
        Some(forge.with_claims(&expired)),
        Some(forge.with_claims(&revoked)),
        Some(forge.with_claims(&weak)),
        Some(forge.with_claims(&good)),
    ]
}

async fn check<'a>(rows: &[Row], gateway: &'a TestGateway, call: impl Fn(&Row) -> Call<'a>) {
    let credentials = credentials(gateway).await;
    for row in rows {
        for ((credential, what), status) in credentials.iter().zip(CREDENTIALS).zip(row.statuses) {
            for http in BOTH {
                let call = call(row).over(http);
                let answer = match credential {
                    Some(token) => call.bearer(token).await,
                    None => call.await,
                };
                let case = format!("{} {} with {what} over {http:?}", row.method, row.path);
                assert_eq!(answer.status, status, "{case}: {answer:?}");
                let has_challenge = answer.header("www-authenticate").is_some();
                // A decision may refuse for what no other token would help with.
                let is_challenge =
                    status == 401 || (status == 403 && row.statuses != UNASKED && row.statuses[6] != 403);
                assert_eq!(has_challenge, is_challenge, "{case}: {answer:?}");
                assert_eq!(answer.header("allow").is_some(), status == 405, "{case}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn every_endpoint_answers_every_credential_as_it_should() {
    let gateway = TestGateway::start().await;
    check(ROWS, &gateway, |row| gateway.call(row.method, row.path)).await;
}

#[tokio::test]
async fn every_endpoint_for_operators_does_too() {
    let gateway = TestGateway::start().await;
    check(ADMIN_ROWS, &gateway, |row| gateway.admin(row.method, row.path)).await;
}

/// A call as the proxy of each contract makes it.
fn asking<'a>(gateway: &'a TestGateway, row: &Row) -> Call<'a> {
    let call = gateway.call(row.method, row.path);
    let target = match row.path.rsplit('/').next() {
        Some("unasked") => return call,
        Some("nowhere") => "/nowhere",
        _ => "/guarded/a?b=c",
    };
    let call = match row.route {
        "authz-auth-request" | "authz-haproxy" => {
            call.header("x-original-uri", target).header("x-original-method", "GET")
        }
        "authz-forward-auth" => call.header("x-forwarded-uri", target).header("x-forwarded-method", "GET"),
        _ => return call,
    };
    let call = call.header("x-forwarded-host", "api.example.com").header("x-forwarded-proto", "https");
    call.header("x-forwarded-for", "203.0.113.7")
}

#[tokio::test]
async fn every_decision_for_another_proxy_does_too() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let gateway = TestGateway::build().upstream(upstream.settings("api")).with(|config| {
        config.forward_auth = Some(forward_auth::Settings::default());
        config.routes = door_routes();
    });
    let gateway = gateway.start().await;
    check(DOOR_ROWS, &gateway, |row| asking(&gateway, row)).await;
    let good = DOOR_ROWS.iter().filter(|row| row.route == "api").count() * BOTH.len();
    assert_eq!(upstream.seen().len(), good, "only what was let through has reached the upstream");
}

/// Adding a route without a row fails here.
#[test]
fn every_route_has_a_row() {
    let ids = |table: &RouteTable| -> BTreeSet<String> {
        table.routes().iter().map(|route| route.id.as_str().to_owned()).collect()
    };
    let rows = |rows: &[Row]| -> BTreeSet<String> {
        rows.iter().map(|row| row.route.to_owned()).filter(|id| !id.is_empty()).collect()
    };
    let table = || RouteTable::new(&default_routes(), BuiltIns { demo: true, forward_auth: false });
    let doors = || RouteTable::new(&door_routes(), BuiltIns { demo: false, forward_auth: true });
    let own = |ids: BTreeSet<String>| -> BTreeSet<String> { &ids - &rows(ROWS) };
    assert_eq!(ids(&table()), rows(ROWS));
    assert_eq!(own(ids(&doors())), rows(DOOR_ROWS));
    assert_eq!(ids(&RouteTable::admin()), rows(ADMIN_ROWS));
    for (table, rows) in [(table(), ROWS), (doors(), DOOR_ROWS), (RouteTable::admin(), ADMIN_ROWS)] {
        for row in rows {
            let found = table.find("localhost", row.path, row.method).map_or("", |route| route.id.as_str());
            assert_eq!(found, row.route, "{} is the path of that route", row.path);
        }
        for route in table.routes().iter().filter(|route| rows.iter().any(|row| row.route == route.id.as_str())) {
            let mut own = rows.iter().filter(|row| row.route == route.id.as_str());
            let none_refused = route.methods.is_empty() || own.any(|row| row.statuses[6] == 405);
            assert!(none_refused, "{}: no row shows that other methods are refused", route.id);
        }
    }
}

/// RFC 9110 §15.5.6: a 405 says what would be answered.
#[tokio::test]
async fn a_refused_method_is_told_the_right_ones() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    for (path, allow) in
        [("/token", "GET, POST, HEAD"), ("/", "GET, HEAD"), ("/whoami", "GET, HEAD"), ("/demo/time", "GET, HEAD")]
    {
        for http in BOTH {
            let answer = gateway.call("DELETE", path).bearer(&token).over(http).await;
            answer.problem(405, "method-not-allowed");
            assert_eq!(answer.header("allow"), Some(allow), "{path}");
        }
    }
}

/// RFC 9110 §9.3.8: TRACE would send credentials back; it is off before anything else, everywhere.
#[tokio::test]
async fn trace_is_off_everywhere() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    for path in ["/", "/token", "/whoami", "/demo/echo", "/sample/x", "/nothing"] {
        for http in BOTH {
            let answer = gateway.call("TRACE", path).bearer(&token).over(http).await;
            answer.problem(405, "method-not-allowed");
            assert!(!answer.body.contains(&token));
        }
    }
}

/// RFC 9110 §9.3.2: HEAD is GET without the content, credentials included.
#[tokio::test]
async fn head_answers_as_get_does_without_the_content() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    for path in [
        "/",
        "/demo",
        "/health/live",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/whoami",
        "/demo/time",
        "/demo/echo",
        "/nothing",
    ] {
        for http in BOTH {
            for bearer in [true, false] {
                let call = |method| {
                    let call = gateway.call(method, path).over(http);
                    if bearer { call.bearer(&token) } else { call }
                };
                let (get, head) = (call("GET").await, call("HEAD").await);
                assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}");
                for name in ["content-type", "www-authenticate", "cache-control"] {
                    assert_eq!(head.header(name), get.header(name), "{path}: {name}");
                }
            }
        }
    }
    let head = gateway.call("HEAD", "/token").key(&key).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}
