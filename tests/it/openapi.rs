//! The OpenAPI document against the gateway that serves it: the same endpoints, and answers as it says.

use std::collections::BTreeSet;

use jsonschema::Validator;
use keybearer::config::Config;
use keybearer::forward_auth;
use keybearer::repositories;
use keybearer::routes::{BuiltIns, Contract, Destination, Resource, RouteSettings, RouteTable, Target};
use keybearer::server::openapi;
use serde_json::{Value, json};

use crate::client::{Answer, BOTH, Call};
use crate::gateway::{SAMPLE, TestGateway};

/// By what a route of every method is described.
const METHODS: [&str; 7] = ["get", "head", "post", "put", "patch", "delete", "options"];

/// A document, read.
struct Described(Value);

/// An operation by its path and method, and a status.
type Case = (String, String, u16);

impl Described {
    fn operations(&self) -> BTreeSet<(String, String)> {
        let paths = self.0["paths"].as_object().expect("paths");
        let of = |(path, item): (&String, &Value)| -> Vec<(String, String)> {
            let methods = item.as_object().expect("a path").keys().filter(|key| METHODS.contains(&key.as_str()));
            methods.map(|method| (path.clone(), method.clone())).collect()
        };
        paths.iter().flat_map(of).collect()
    }

    /// What a `$ref` leads to.
    fn followed<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self.0.pointer(reference.trim_start_matches('#')).expect("a reference leads somewhere"),
            None => value,
        }
    }

    /// Checks a value against a schema of the document.
    fn check(&self, schema: &Value, value: &Value, what: &str) {
        // References are to the document's own components.
        let mut whole = schema.clone();
        whole["components"] = self.0["components"].clone();
        let validator: Validator =
            jsonschema::draft202012::new(&whole).unwrap_or_else(|error| panic!("{what}: {error}"));
        let faults: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{error} at {}", error.instance_path())).collect();
        assert!(faults.is_empty(), "{what}: {faults:#?} in {value:#}");
    }

    /// The answer to a call of this operation is one that it describes.
    fn holds(&self, path: &str, method: &str, answer: &Answer) -> Case {
        let what = format!("{method} {path} → {}", answer.status);
        let responses = &self.0["paths"][path][method]["responses"];
        let described = &responses[answer.status.to_string()];
        assert!(!described.is_null(), "{what}: the document does not know this status: {answer:?}");
        let described = self.followed(described);
        for (name, header) in described["headers"].as_object().into_iter().flatten() {
            let Some(value) = answer.header(name) else { continue };
            let schema = &self.followed(header)["schema"];
            let value = if schema["type"] == "integer" { json!(value.parse::<i64>().unwrap()) } else { json!(value) };
            self.check(schema, &value, &format!("{what}, {name}"));
        }
        let challenged = described["headers"].get("WWW-Authenticate").is_some();
        assert!(challenged || answer.header("www-authenticate").is_none(), "{what}: a challenge that is not described");
        let waits = described["headers"].get("Retry-After").is_some();
        assert!(waits || answer.header("retry-after").is_none(), "{what}: Retry-After is not described");
        if answer.body.is_empty() {
            assert!(method == "head" || described["content"].is_null(), "{what}: there is content, says the document");
            return (path.to_owned(), method.to_owned(), answer.status);
        }
        let media_type = answer.header("content-type").expect("a type").split(';').next().unwrap().trim();
        let content = &described["content"][media_type];
        assert!(!content.is_null(), "{what}: {media_type} is not described");
        let value = match media_type.ends_with("json") {
            true => answer.json(),
            false => json!(answer.body),
        };
        self.check(&content["schema"], &value, &what);
        (path.to_owned(), method.to_owned(), answer.status)
    }

    /// Every example of it is one of its schema.
    fn examples_hold(&self) {
        fn media<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
            match value {
                Value::Object(members) => {
                    if members.contains_key("schema") {
                        found.push(value);
                    }
                    members.values().for_each(|member| media(member, found));
                }
                Value::Array(items) => items.iter().for_each(|item| media(item, found)),
                _ => {}
            }
        }
        let mut found = vec![];
        media(&self.0, &mut found);
        let mut count = 0;
        for described in found {
            let several = described["examples"].as_object().into_iter().flat_map(|examples| examples.values());
            let examples: Vec<&Value> =
                described.get("example").into_iter().chain(several.map(|one| &one["value"])).collect();
            for example in examples {
                self.check(&described["schema"], example, "an example");
                count += 1;
            }
        }
        assert!(count > 10, "{count} examples");
    }
}

async fn document(gateway: &TestGateway) -> Described {
    let answer = gateway.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    Described(answer.json())
}

/// The operations that a route is described by.
fn expected(table: &RouteTable) -> BTreeSet<(String, String)> {
    let of = |route: &keybearer::routes::Route| -> Vec<(String, String)> {
        let path = route.path.to_string();
        let (path, methods): (String, Vec<String>) = match route.target {
            // gRPC is not described by OpenAPI.
            Target::Check => return vec![],
            Target::ForwardAuth(Contract::ExtAuthz) => (path.replace('*', "{path}"), vec!["get".into()]),
            // By any method; the one that proxies ask by is described.
            Target::ForwardAuth(contract) => (contract.path().into(), vec!["get".into()]),
            Target::Metadata => (path.trim_end_matches("/*").into(), vec!["get".into()]),
            _ if route.methods.is_empty() => (path, METHODS.map(str::to_owned).into()),
            _ => (path, route.methods.iter().map(|method| method.to_ascii_lowercase()).collect()),
        };
        methods.into_iter().map(|method| (path.clone(), method)).collect()
    };
    table.routes().iter().flat_map(of).collect()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    for (demo, asks) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut config = Config::default();
        config.demo.enabled = demo;
        config.forward_auth = asks.then(forward_auth::Settings::default);
        let described = Described(serde_json::to_value(openapi::of(&config)).unwrap());
        let table = RouteTable::new(&[], BuiltIns { demo, forward_auth: asks });
        assert_eq!(described.operations(), expected(&table), "demo: {demo}, forward-auth: {asks}");
        described.examples_hold();
        assert_eq!(described.0["servers"][0]["url"], "https://localhost:8443");
    }
    let admin = Described(serde_json::to_value(openapi::admin(&Config::default())).unwrap());
    assert_eq!(admin.operations(), expected(&RouteTable::admin()));
    admin.examples_hold();
}

/// The issuer's path goes behind the well-known one, which is the host's.
#[test]
fn metadata_is_described_where_it_is() {
    let mut config = Config::default();
    config.tokens.issuer = "https://a.example/one".to_owned();
    config.tokens.audience = vec!["https://b.example/x".to_owned()];
    let described = serde_json::to_value(openapi::of(&config)).unwrap();
    assert_eq!(described["servers"][0]["url"], "https://a.example/one");
    let scheme = &described["components"]["securitySchemes"]["oauth2"];
    assert_eq!(scheme["flows"]["clientCredentials"]["tokenUrl"], "https://a.example/one/token");
    for path in ["/.well-known/oauth-authorization-server/one", "/.well-known/oauth-protected-resource/x"] {
        assert_eq!(described["paths"][path]["servers"][0]["url"], "https://a.example", "{path}");
    }
}

fn all_doors(config: &mut Config) {
    let trusted = vec!["127.0.0.0/8".parse().unwrap()];
    config.forward_auth = Some(forward_auth::Settings { trusted, ..Default::default() });
    let orders = RouteSettings::new("orders".parse().unwrap(), "/orders/*".parse().unwrap(), Resource::Echo);
    let groups = vec![SAMPLE.parse().unwrap()];
    config.routes = vec![RouteSettings { groups, destination: Destination::External, ..orders }];
    config.limits.body_bytes = 1024;
    config.image_registry = Some(repositories::Settings {
        service: "registry.example.com".into(),
        key_name: repositories::KeyName::Libtrust,
        catalog_groups: vec![],
        rules: vec![],
    });
    config.demo.tokens_per_address = "1/d".parse().unwrap();
}

/// What another proxy asks.
fn asking<'a>(call: Call<'a>, path: &str) -> Call<'a> {
    let call = call.header("x-original-uri", path).header("x-forwarded-uri", path);
    let call = call.header("x-original-method", "GET").header("x-forwarded-method", "GET");
    let call = call.header("x-forwarded-host", "api.example.com").header("x-forwarded-proto", "https");
    call.header("x-forwarded-for", "203.0.113.7")
}

/// Every operation is called so that it does what it is for, and so that it refuses.
#[tokio::test]
async fn what_is_answered_is_what_is_described() {
    let gateway = TestGateway::build().with(all_doors).start().await;
    let described = document(&gateway).await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    let demo_key = gateway.get("/demo").await.json()["key"].as_str().unwrap().to_owned();
    let demo = gateway.get("/demo").await.json()["token"].as_str().unwrap().to_owned();
    let ended = gateway.token(&key).await;
    let mut seen: BTreeSet<Case> = BTreeSet::new();
    let call = |method: &str, path: &str| gateway.call(&method.to_ascii_uppercase(), path);

    let grant = [("grant_type", "client_credentials")];
    let long = "x".repeat(65 * 1024);
    for (method, call) in [
        ("get", call("get", "/token").key(&key)),
        ("get", call("get", "/token")),
        ("get", call("get", "/token").basic("nobody", "wrong")),
        ("get", call("get", "/token").basic(&demo_key, "")),
        ("get", call("get", "/token").basic(&demo_key, "")),
        ("get", call("get", "/token").key(&key).header("x-large", "x".repeat(40 * 1024))),
        ("get", call("get", "/token?service=registry.example.com&scope=repository:a:pull").key(&key)),
        ("get", call("get", "/token?service=registry.example.com")),
        ("get", call("get", "/token?service=another").key(&key)),
        ("post", call("post", "/token").key(&key)),
        ("post", call("post", "/token").key(&key).form(&grant)),
        ("post", call("post", "/token").form(&grant)),
        ("post", call("post", "/token").basic(&demo_key, "").form(&grant)),
        ("post", call("post", "/token").key(&key).form(&[("grant_type", "password")])),
        ("post", call("post", "/token").key(&key).form(&[grant[0], ("scope", "other")])),
        ("post", call("post", "/token").basic("nobody", "wrong")),
        ("post", call("post", "/token").key(&key).raw_form(&long)),
    ] {
        seen.insert(described.holds("/token", method, &call.await));
    }
    for path in ["/introspect", "/revoke"] {
        for call in [
            call("post", path).key(&key).form(&[("token", &ended)]),
            call("post", path).bearer(&token).form(&[("token", "nonsense")]),
            call("post", path).form(&[("token", &ended)]),
            call("post", path).bearer("nonsense").form(&[("token", &ended)]),
            call("post", path).key(&key).form(&[("token", "")]),
            call("post", path).key(&key).form(&[("token", &long)]),
            call("post", &format!("{path}?;")).header("host", "a b"),
        ] {
            seen.insert(described.holds(path, "post", &call.await));
        }
    }
    for path in [
        "/",
        "/openapi.json",
        "/demo",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource",
        "/health/live",
        "/health/ready",
    ] {
        seen.insert(described.holds(path, "get", &call("get", path).await));
        seen.insert(described.holds(path, "get", &call("get", path).header("host", "a b").await));
    }
    let password = gateway.get("/token").basic("acme", "open sesame").await.token();
    for path in ["/whoami", "/demo/time"] {
        for token in [&token, &demo, &password, &ended, &"nonsense".to_owned()] {
            seen.insert(described.holds(path, "get", &call("get", path).bearer(token).await));
        }
        seen.insert(described.holds(path, "get", &call("get", path).await));
    }
    for query in ["", "?by=group", "?by=hour", "?by=never"] {
        for token in [&token, &demo, &password] {
            let call = call("get", &format!("/me/usage{query}")).bearer(token);
            seen.insert(described.holds("/me/usage", "get", &call.await));
        }
    }
    let roll = "/me/keys/{id}/roll";
    for (token, content) in [
        (&token, json!({"api_key": key.secret().expose()}).to_string()),
        (&token, json!({"api_key": key.secret().expose()}).to_string()),
        (&token, json!({"password": "wrong"}).to_string()),
        (&token, " ".repeat(5000)),
        (&password, "{}".to_owned()),
        (&demo, "{}".to_owned()),
        (&"nonsense".to_owned(), "{}".to_owned()),
    ] {
        let call = call("post", &format!("/me/keys/kb_{}/roll", key.id())).bearer(token).body(content);
        seen.insert(described.holds(roll, "post", &call.await));
    }
    let nowhere = call("post", "/me/keys/kb_000000000000/roll").bearer(&password);
    seen.insert(described.holds(roll, "post", &nowhere.body(json!({"password": "open sesame"}).to_string()).await));
    for method in METHODS {
        for token in [&demo, &"nonsense".to_owned()] {
            let call = || call(method, "/demo/echo").bearer(token);
            seen.insert(described.holds("/demo/echo", method, &call().await));
            let content = call().body([0xff, 0x00]);
            seen.insert(described.holds("/demo/echo", method, &content.await));
            seen.insert(described.holds("/demo/echo", method, &call().body(vec![b'x'; 1025]).await));
        }
    }
    for contract in Contract::ALL {
        let (path, at) = match contract {
            Contract::ExtAuthz => ("/authz/ext-authz/{path}", "/authz/ext-authz/orders/1"),
            _ => (contract.path(), contract.path()),
        };
        for token in [&token, &demo, &ended] {
            seen.insert(described.holds(path, "get", &asking(call("get", at), "/orders/1").bearer(token).await));
        }
        seen.insert(described.holds(path, "get", &call("get", contract.path()).bearer(&token).await));
    }

    let fulfilled: BTreeSet<(String, String)> = seen
        .iter()
        .filter(|(.., status)| *status == 200)
        .map(|(path, method, _)| (path.clone(), method.clone()))
        .collect();
    assert_eq!(fulfilled, described.operations(), "every operation has done what it is for");
    let statuses: BTreeSet<u16> = seen.iter().map(|(.., status)| *status).collect();
    assert_eq!(statuses, BTreeSet::from([200, 400, 401, 403, 404, 409, 413, 429, 431]));
}

#[tokio::test]
async fn keys_of_every_algorithm_are_described() {
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let gateway = TestGateway::build().with(|config| {
            config.signing.algorithm = algorithm.parse().unwrap();
            if algorithm != "RS256" {
                // Its own key is for RS256, and quickly there.
                config.signing.private_key_file = None;
            }
        });
        let gateway = gateway.start().await;
        let keys = gateway.get("/.well-known/jwks.json").await;
        assert_eq!(keys.json()["keys"][0]["alg"], algorithm);
        document(&gateway).await.holds("/.well-known/jwks.json", "get", &keys);
    }
}

#[tokio::test]
async fn the_admin_listener_is_described_there_and_not_to_clients() {
    let gateway = TestGateway::start().await;
    let described = Described(gateway.admin("GET", "/openapi.json").await.json());
    for path in ["/health/live", "/health/ready", "/metrics", "/openapi.json"] {
        described.holds(path, "get", &gateway.admin("GET", path).await);
    }
    assert!(document(&gateway).await.0["paths"]["/metrics"].is_null());
}

/// RFC 9110 §13.1.2: whoever has the document is not sent it again.
#[tokio::test]
async fn the_document_is_sent_once() {
    let gateway = TestGateway::start().await;
    for http in BOTH {
        let first = gateway.get("/openapi.json").over(http).await;
        let tag = first.header("etag").expect("an entity tag").to_owned();
        assert_eq!(first.header("cache-control"), Some("public, max-age=300"));
        let head = gateway.call("HEAD", "/openapi.json").over(http).await;
        assert_eq!((head.status, head.header("etag"), head.body.as_str()), (200, Some(tag.as_str()), ""));
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let again = gateway.get("/openapi.json").header("if-none-match", &known).over(http).await;
            assert_eq!((again.status, again.body.as_str()), (304, ""), "{known}");
            assert_eq!(again.header("etag"), Some(tag.as_str()));
        }
        for other in ["\"x\"", "", "x", tag.trim_matches('"')] {
            let again = gateway.get("/openapi.json").header("if-none-match", other).over(http).await;
            assert_eq!((again.status, again.body == first.body), (200, true), "{other:?}");
        }
    }
}

/// Where clients reach it, and nothing of this machine.
#[tokio::test]
async fn the_server_is_the_issuer() {
    let issuer = "https://api.example.com/auth".to_owned();
    let gateway = TestGateway::build().with(|config| config.tokens.issuer = issuer.clone()).start().await;
    let answer = gateway.get("/openapi.json").await;
    assert_eq!(answer.json()["servers"][0]["url"], issuer);
    for inside in ["127.0.0.1", "localhost"] {
        assert!(!answer.body.replace("https://localhost:8443\"", "").contains(inside), "{inside}");
    }
}
