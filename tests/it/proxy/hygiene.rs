//! Fields on their way (RFC 9110 §7.6): what is for one hop, what is the gateway's own word, and what stays as it is.

use std::collections::BTreeSet;

use axum::body::Body;
use http::Response;
use keybearer::proxy::upstream::HostHeader;
use keybearer::routes::RouteSettings;

use super::caller::Caller;
use super::upstream::{Seen, Speaks, Upstream};
use super::{Guarded, WAYS, route};
use crate::client::{BOTH, Http};
use crate::gateway::TestGateway;
use crate::wire::exchange;

/// What an upstream gets of a request with these fields.
async fn passed(guarded: &Guarded, upstream: &Upstream, http: Http, fields: &[(&str, &str)]) -> Seen {
    let mut caller = Caller::open(guarded, http).await;
    let request = fields.iter().fold(caller.get("/api/a"), |request, (name, value)| request.header(*name, *value));
    let answer = caller.answer(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    upstream.one()
}

/// Nothing but these is said to an upstream beside what the client says.
#[tokio::test]
async fn an_upstream_learns_whose_request_it_is_and_nothing_the_client_made_up() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::hello(speaks).await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let seen = passed(
            &guarded,
            &upstream,
            http,
            &[
                ("x-auth-subject", "admin"),
                ("x-auth-groups", "everything"),
                ("x_auth_subject", "admin"),
                ("x-auth_key.id", "kb_1"),
                ("x-auth-anything", "1"),
                ("x.auth.expires", "9"),
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-port", "1"),
                ("x_forwarded_for", "10.0.0.2"),
                ("x-forwarded-prefix", "/x"),
                ("forwarded", "for=10.0.0.1"),
                ("x-real-ip", "10.0.0.1"),
                ("x-request-id", "mine"),
                ("x_request_id", "mine"),
                ("x-own", "stays"),
            ],
        )
        .await;
        let case = format!("by {http:?} to {speaks:?}: {seen:?}");
        assert_eq!(seen.all("x-auth-subject"), ["acme"], "{case}");
        let key = format!("{}_{}", guarded.gateway.config.key_prefix.as_str(), guarded.key.id().as_str());
        assert_eq!(seen.all("x-auth-key-id"), [key.as_str()], "{case}");
        assert_eq!(seen.all("x-auth-groups"), ["demo,sample"], "{case}");
        let claims = crate::forge::claims(&guarded.token);
        assert_eq!(seen.all("x-auth-token-id"), [claims["jti"].as_str().unwrap()], "{case}");
        assert_eq!(seen.all("x-auth-expires"), [claims["exp"].to_string()], "{case}");
        let host = format!("localhost:{}", guarded.gateway.https().port());
        assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"], "{case}");
        assert_eq!(seen.all("x-forwarded-proto"), ["https"], "{case}");
        assert_eq!(seen.all("x-forwarded-host"), [host.as_str()], "{case}");
        assert_eq!(seen.all("forwarded"), [format!("for=127.0.0.1;host=\"{host}\";proto=https")], "{case}");
        assert_eq!(seen.all("via"), [if http == Http::One { "1.1 keybearer" } else { "2 keybearer" }], "{case}");
        assert_eq!(seen.all("x-own"), ["stays"], "{case}");
        assert_eq!(seen.header("authorization"), None, "{case}");
        assert_eq!(seen.host(), Some(host.as_str()), "{case}");
        assert_eq!(seen.all("x-request-id").len(), 1, "{case}");
        let names: BTreeSet<&str> = seen.headers.keys().map(http::HeaderName::as_str).collect();
        let mut expected = BTreeSet::from([
            "forwarded",
            "traceparent",
            "via",
            "x-auth-expires",
            "x-auth-groups",
            "x-auth-key-id",
            "x-auth-subject",
            "x-auth-token-id",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-own",
            "x-request-id",
        ]);
        if speaks == Speaks::Http1 {
            expected.insert("host");
        }
        assert_eq!(names, expected, "{case}");
    }
}

/// The number that an upstream gets is the one that the client is told.
#[tokio::test]
async fn a_request_has_one_number_everywhere() {
    let upstream = Upstream::start(Speaks::Http1, |_| {
        Response::builder().header("x-request-id", "theirs").body("hello".into()).unwrap()
    })
    .await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    for http in BOTH {
        let answer = Caller::open(&guarded, http).await.got("/api/a").await;
        assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1, "{answer:?}");
        assert_eq!(answer.header("x-request-id"), upstream.one().header("x-request-id"));
    }
}

/// RFC 9110 §7.6.1, on the way there. `Connection` takes nothing that the guard reads or says.
#[tokio::test]
async fn what_is_for_one_hop_goes_no_further() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    let seen = passed(
        &guarded,
        &upstream,
        Http::One,
        &[
            ("connection", "x-one, X-Two , keep-alive"),
            ("connection", "x-three, authorization, x-auth-subject, x-forwarded-for, x-request-id, via, host, cookie"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("x-four", "4"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eDp5"),
            ("te", "trailers, deflate"),
            ("cookie", "a=b"),
            ("via", "1.0 other"),
            ("http2-settings", "AAMAAABk"),
        ],
    )
    .await;
    for gone in ["x-one", "x-two", "x-three", "keep-alive", "proxy-connection", "proxy-authorization", "http2-settings"]
    {
        assert_eq!(seen.header(gone), None, "{gone}: {seen:?}");
    }
    assert_eq!((seen.all("x-four"), seen.all("cookie")), (vec!["4"], vec!["a=b"]));
    assert_eq!(seen.all("x-auth-subject"), ["acme"]);
    assert_eq!(seen.all("via"), ["1.0 other", "1.1 keybearer"]);
    assert_eq!((seen.all("te"), seen.all("connection")), (vec!["trailers"], vec!["te"]), "our own wish, for this hop");
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
}

/// And on the way back.
#[tokio::test]
async fn what_an_upstream_says_for_one_hop_goes_no_further() {
    let upstream = Upstream::start(Speaks::Http1, |_| {
        let fields = [
            ("connection", "x-one"),
            ("x-one", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("proxy-connection", "close"),
            ("via", "1.1 other"),
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d"),
            ("server", "other"),
            ("x-auth-subject", "said by the upstream"),
            ("www-authenticate", "Basic realm=\"api\""),
            ("date", "Tue, 15 Nov 1994 08:12:31 GMT"),
        ];
        let builder = fields.iter().fold(Response::builder(), |builder, (name, value)| builder.header(*name, *value));
        builder.body("hello".into()).unwrap()
    })
    .await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    for http in BOTH {
        let answer = Caller::open(&guarded, http).await.got("/api/a").await;
        for gone in ["connection", "x-one", "keep-alive", "proxy-authenticate", "proxy-connection"] {
            assert_eq!(answer.header(gone), None, "{gone}: {answer:?}");
        }
        let all = |name: &str| -> Vec<_> { answer.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect() };
        assert_eq!(all("via"), ["1.1 other", "1.1 keybearer"]);
        assert_eq!(all("set-cookie"), ["a=b", "c=d"]);
        assert_eq!(all("server"), ["other"]);
        assert_eq!(all("date"), ["Tue, 15 Nov 1994 08:12:31 GMT"]);
        assert_eq!(all("www-authenticate"), ["Basic realm=\"api\""]);
        assert_eq!(all("strict-transport-security").len(), 1);
    }
}

#[tokio::test]
async fn credentials_and_identity_pass_as_the_route_says() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::with(upstream.settings("api"), |forwarding| {
        forwarding.pass_credentials = true;
        forwarding.identity_headers = false;
    })
    .await;
    for http in BOTH {
        let seen = passed(&guarded, &upstream, http, &[("x-auth-subject", "admin")]).await;
        assert_eq!(seen.all("authorization"), [format!("Bearer {}", guarded.token)]);
        let identity = seen.headers.keys().filter(|name| name.as_str().starts_with("x-auth"));
        assert_eq!(identity.count(), 0, "nobody's word is better than a client's: {seen:?}");
    }
}

#[tokio::test]
async fn the_host_is_the_clients_the_targets_or_a_given_one() {
    for speaks in [Speaks::Http1, Speaks::H2c] {
        let upstream = Upstream::hello(speaks).await;
        let target = upstream.address.to_string();
        for (host, expected) in [
            (HostHeader::Client, None),
            (HostHeader::Target, Some(target.as_str())),
            (HostHeader::Name("internal.example:81".into()), Some("internal.example:81")),
        ] {
            let mut settings = upstream.settings("api");
            settings.host = host;
            let guarded = Guarded::front(settings).await;
            let client = format!("localhost:{}", guarded.gateway.https().port());
            for http in BOTH {
                let seen = passed(&guarded, &upstream, http, &[]).await;
                assert_eq!(seen.host(), Some(expected.unwrap_or(&client)), "by {http:?} to {speaks:?}");
                assert_eq!(seen.all("x-forwarded-host"), [client.as_str()]);
                assert!(seen.all("host").len() <= 1, "{seen:?}");
            }
        }
    }
}

/// W3C Trace Context.
#[tokio::test]
async fn a_trace_is_passed_or_begun() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    for http in BOTH {
        let seen = passed(&guarded, &upstream, http, &[("traceparent", TRACE), ("tracestate", "a=b")]).await;
        assert_eq!((seen.all("traceparent"), seen.all("tracestate")), (vec![TRACE], vec!["a=b"]));
        let seen = passed(&guarded, &upstream, http, &[("traceparent", "nonsense"), ("tracestate", "a=b")]).await;
        let begun = seen.header("traceparent").expect("a trace");
        assert!(begun.len() == 55 && begun.starts_with("00-"), "{begun}");
        assert_eq!(seen.all("tracestate"), [""; 0]);
        let seen = passed(&guarded, &upstream, http, &[]).await;
        assert_ne!(seen.header("traceparent"), Some(begun), "each has its own");
    }
}

/// RFC 9113 §8.2.3: HTTP/2 may split a cookie line, and HTTP/1.1 must not see that.
#[tokio::test]
async fn cookies_arrive_in_one_line() {
    for (http, speaks) in WAYS {
        let upstream = Upstream::hello(speaks).await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let seen = passed(&guarded, &upstream, http, &[("cookie", "a=b; c=\"d\"")]).await;
        assert_eq!(seen.all("cookie"), ["a=b; c=\"d\""], "untouched");
        if http == Http::Two {
            let seen =
                passed(&guarded, &upstream, http, &[("cookie", "a=b"), ("cookie", "c=d"), ("cookie", "e=f")]).await;
            assert_eq!(seen.all("cookie"), ["a=b; c=d; e=f"], "to {speaks:?}");
        }
    }
}

/// An upstream that leads back here is a 508 before long.
#[tokio::test]
async fn a_loop_ends() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    for http in BOTH {
        let seen = passed(&guarded, &upstream, http, &[("via", "1.1 keybearer, 1.1 other, 2 keybearer")]).await;
        assert_eq!(seen.all("via").len(), 2, "some gateways stand behind gateways");
        let caller = Caller::open(&guarded, http).await;
        let request = caller.get("/api/a").header("via", ["1.1 keybearer"; 9].join(", ")).body(Body::empty()).unwrap();
        let mut caller = caller;
        caller.answer(request).await.problem(508, "loop-detected");
        assert!(upstream.seen().is_empty());
    }
}

/// Behind a load balancer its word is kept, and the gateway's own is added.
#[tokio::test]
async fn what_a_trusted_proxy_says_is_continued() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let builder = TestGateway::build().behind_proxy(&["127.0.0.0/8"]);
    let settings = upstream.settings("api");
    let guarded = Guarded::started(builder.upstream(settings).route(route("api", "/api/*", "api"))).await;
    let call = guarded.gateway.by_proxy("/api/a").bearer(&guarded.token).header("x-forwarded-proto", "https");
    let answer = call.header("x-forwarded-for", "203.0.113.7, 10.1.1.1").header("x-auth-subject", "admin").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = upstream.one();
    assert_eq!(seen.all("x-forwarded-for"), ["203.0.113.7, 10.1.1.1, 127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    let forwarded = seen.header("forwarded").expect("a field");
    assert!(forwarded.starts_with("for=203.0.113.7, for=10.1.1.1, for=127.0.0.1;host="), "{forwarded}");
    assert_eq!(seen.all("x-auth-subject"), ["acme"]);
}

/// HTTP/1.0 names no host; the upstream is told its own.
#[tokio::test]
async fn a_request_without_a_host_gets_the_targets() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    let head = format!("GET /api/a HTTP/1.0\r\nAuthorization: Bearer {}\r\n\r\n", guarded.token);
    let answer = exchange(&guarded.gateway, head).await.expect("an answer");
    assert_eq!(answer.status, 200);
    let (seen, target) = (upstream.one(), upstream.address.to_string());
    assert!(matches!(seen.host(), Some(host) if host == target), "{seen:?}");
    assert_eq!(seen.all("via"), ["1.0 keybearer"]);
}

/// A route that has some methods has no others under another's name, in whichever spelling.
#[tokio::test]
async fn a_route_with_methods_lets_no_other_in_by_a_field() {
    let fields = [("x-http-method-override", "DELETE"), ("X_HTTP_Method", "PUT"), ("x.method.override", "PATCH")];
    for (http, speaks) in WAYS {
        for methods in [vec![], vec!["GET".to_owned()]] {
            let upstream = Upstream::hello(speaks).await;
            let drops = !methods.is_empty();
            let route = RouteSettings { methods, ..route("api", "/api/*", "api") };
            let builder = TestGateway::build().upstream(upstream.settings("api")).route(route);
            let guarded = Guarded::started(builder).await;
            let seen = passed(&guarded, &upstream, http, &fields).await;
            for (name, value) in fields {
                let expected: &[&str] = if drops { &[] } else { &[value] };
                assert_eq!(seen.all(name), expected, "{name} by {http:?} to {speaks:?}");
            }
        }
    }
}
