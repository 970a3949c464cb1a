//! Paths, hosts and methods: the upstream sees the path that was decided for, and nothing reaches it that was not.

use keybearer::routes::{Rewrite, RouteSettings};

use super::caller::Caller;
use super::upstream::{Speaks, Upstream};
use super::{Guarded, forwarding, route};
use crate::client::BOTH;
use crate::gateway::TestGateway;
use crate::wire::exchange;
use axum::body::Body;

fn strip(prefix: &str, add: &str) -> Rewrite {
    Rewrite::Strip { prefix: prefix.into(), add: add.into() }
}

#[tokio::test]
async fn the_upstream_sees_the_path_that_was_matched() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    for (sent, arrives) in [
        ("/api", "/api"),
        ("/api/", "/api/"),
        ("/api/a%41b", "/api/aAb"),
        ("/%61pi/x", "/api/x"),
        ("/api/caf%c3%a9", "/api/caf%C3%A9"),
        ("/api/a%20b%3bc=d,e", "/api/a%20b%3Bc=d,e"),
        ("/api/%7e", "/api/~"),
        ("/api?", "/api?"),
        ("/api/a?x=%2f..//;%41&y=%zz%", "/api/a?x=%2f..//;%41&y=%zz%"),
        ("/api/a?a=|{}'", "/api/a?a=|{}'"),
    ] {
        for http in BOTH {
            let mut caller = Caller::open(&guarded, http).await;
            // A library refuses some of these; as bytes they can be sent.
            let Ok(request) = caller.get("/api").uri(uri(http, sent)).body(Body::empty()) else {
                let raw = exchange(&guarded.gateway, guarded.head(&format!("GET {sent}")) + "\r\n").await;
                assert_eq!(raw.expect("an answer").status, 200, "{sent}");
                assert_eq!(upstream.one().target, arrives);
                continue;
            };
            assert_eq!(caller.answer(request).await.status, 200, "{sent} by {http:?}");
            assert_eq!(upstream.one().target, arrives, "{sent} by {http:?}");
        }
    }
}

fn uri(http: crate::client::Http, target: &str) -> String {
    if http == crate::client::Http::One { target.to_owned() } else { format!("https://localhost{target}") }
}

#[tokio::test]
async fn paths_are_rewritten_as_the_route_says() {
    for speaks in [Speaks::Http1, Speaks::H2c] {
        let upstream = Upstream::hello(speaks).await;
        let to = |id: &str, path: &str, rewrite| forwarding(id, path, "api", |forwarding| forwarding.rewrite = rewrite);
        let builder = TestGateway::build()
            .upstream(upstream.settings("api"))
            .route(to("strip", "/strip/*", strip("/strip", "")))
            .route(to("both", "/both/*", strip("/both", "/v1")))
            .route(to("add", "/add/*", strip("", "/v2")))
            .route(to("replace", "/replace/*", Rewrite::Replace("/fixed".into())))
            .route(to("part", "/users/{id}/orders", strip("/users", "/u")));
        let guarded = Guarded::started(builder).await;
        for (sent, arrives) in [
            ("/strip", "/"),
            ("/strip/", "/"),
            ("/strip/a/b?c=%2F", "/a/b?c=%2F"),
            ("/strip?q", "/?q"),
            ("/%73trip/a", "/a"),
            ("/strip/strip/a", "/strip/a"),
            ("/both", "/v1"),
            ("/both/a", "/v1/a"),
            ("/add/a", "/v2/add/a"),
            ("/replace/a/b?q=1", "/fixed?q=1"),
            ("/users/7/orders", "/u/7/orders"),
        ] {
            for http in BOTH {
                let answer = Caller::open(&guarded, http).await.got(sent).await;
                assert_eq!(answer.status, 200, "{sent}: {answer:?}");
                assert_eq!(upstream.one().target, arrives, "{sent} by {http:?} to {speaks:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_ambiguous_path_reaches_nobody() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    for path in [
        "/api/../a",
        "/api/%2e%2e/a",
        "/api/.%2E/a",
        "/api/./a",
        "/api//a",
        "//api/a",
        "/api/a%2fb",
        "/api/a%5Cb",
        "/api/a\\b",
        "/api/a%00",
        "/api/a%0d%0aX:1",
        "/api/a%",
        "/api/a%zz",
        "/api/..",
        "api/a",
        "*",
    ] {
        let raw = exchange(&guarded.gateway, guarded.head(&format!("GET {path}")) + "\r\n").await.expect("an answer");
        assert_eq!(raw.status, 400, "{path}: {raw:?}");
    }
    for http in BOTH {
        for path in ["/api/%2e%2e/a", "/api/a%2fb", "/api//a", "/api/a%00"] {
            Caller::open(&guarded, http).await.got(path).await.problem(400, "malformed-request");
        }
    }
    assert_eq!(upstream.accepted(), 0);
}

/// RFC 9112 §3.2.2: a target in absolute form is that of the host it names.
#[tokio::test]
async fn a_host_has_its_own_routes() {
    let (own, any) = (Upstream::hello(Speaks::Http1).await, Upstream::hello(Speaks::Http1).await);
    let at = |id: &str, hosts: &[&str], upstream: &str| RouteSettings {
        hosts: hosts.iter().map(|host| host.parse().expect("a host")).collect(),
        ..route(id, "/api/*", upstream)
    };
    let builder = TestGateway::build()
        .upstream(own.settings("own"))
        .upstream(any.settings("any"))
        .route(at("of-name", &["api.example.com"], "own"))
        .route(at("of-all-below", &["*.example.org"], "own"))
        .route(at("of-any", &[], "any"));
    let guarded = Guarded::started(builder).await;
    let get = |target: &str, host: &str| guarded.head(&format!("GET {target}")).replace("localhost", host) + "\r\n";
    for (target, host, is_own) in [
        ("/api/a", "api.example.com", true),
        ("/api/a", "API.Example.Com:8443", true),
        ("/api/a", "api.example.com.", true),
        ("/api/a", "a.b.example.org", true),
        ("/api/a", "example.org", false),
        ("/api/a", "other.example.com", false),
        ("http://api.example.com/api/a", "api.example.com", true),
    ] {
        let raw = exchange(&guarded.gateway, get(target, host)).await.expect("an answer");
        assert_eq!(raw.status, 200, "{host}: {raw:?}");
        let seen = if is_own { own.one() } else { any.one() };
        assert_eq!((seen.target.as_str(), seen.host()), ("/api/a", Some(host)), "{seen:?}");
        assert!(own.seen().is_empty() && any.seen().is_empty());
    }
    let raw = exchange(&guarded.gateway, get("http://other.example/api/a", "api.example.com")).await;
    assert_eq!(raw.expect("an answer").status, 400, "two hosts");
    assert!(own.seen().is_empty() && any.seen().is_empty());
}

/// Methods of one path may ask for different groups; what is no method of it is 405, to whom has a token for it.
#[tokio::test]
async fn methods_and_groups_decide_together() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let group = |id: &str| id.parse().expect("a group");
    let by = |id: &str, methods: &[&str], groups: &[&str], all_groups| RouteSettings {
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        groups: groups.iter().map(|id| group(id)).collect(),
        all_groups,
        ..route(id, "/api/*", "api")
    };
    let all = RouteSettings {
        groups: vec![group("sample"), group("writers")],
        all_groups: true,
        ..route("all", "/all", "api")
    };
    let builder = TestGateway::build()
        .upstream(upstream.settings("api"))
        .route(by("read", &["GET"], &["sample"], false))
        .route(by("write", &["POST", "PUT"], &["writers", "admins"], false))
        .route(all);
    let guarded = Guarded::started(builder).await;
    let gateway = &guarded.gateway;
    for id in ["writers", "admins"] {
        gateway.group(id, None).await;
    }
    gateway.account("writer", None).await;
    gateway.licence("writer", &["sample", "writers"], None).await;
    gateway.sync().await;
    let writer = gateway.token(&gateway.key("writer").await).await;
    for http in BOTH {
        for (token, method, path, status) in [
            (&guarded.token, "GET", "/api/a", 200),
            (&guarded.token, "HEAD", "/api/a", 200),
            (&guarded.token, "POST", "/api/a", 403),
            (&guarded.token, "DELETE", "/api/a", 405),
            (&guarded.token, "GET", "/all", 403),
            (&writer, "GET", "/api/a", 200),
            (&writer, "POST", "/api/a", 200),
            (&writer, "PUT", "/api/a", 200),
            (&writer, "PATCH", "/api/a", 405),
            (&writer, "GET", "/all", 200),
            (&writer, "GET", "/all/below", 404),
        ] {
            let answer = gateway.call(method, path).bearer(token).over(http).await;
            assert_eq!(
                answer.status,
                status,
                "{method} {path} by {http:?}: {answer:?} {:?}",
                crate::forge::claims(token)
            );
            if status == 200 {
                assert_eq!(upstream.one().method, method);
            }
            assert_eq!(answer.header("allow"), (status == 405).then_some("GET, POST, PUT, HEAD"));
            assert_eq!(answer.header("www-authenticate").is_some(), status == 403);
        }
        let without = gateway.call("DELETE", "/api/a").over(http).await;
        assert_eq!(without.status, 401, "who has no token learns no methods");
    }
    assert!(upstream.seen().is_empty(), "no refusal reaches the upstream");
}
