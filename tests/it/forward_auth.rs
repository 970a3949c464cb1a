//! Forward-auth through the real gateway: on the HTTPS listener and on the Unix socket.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keybearer::forward_auth;
use keybearer::ids::RouteId;
use keybearer::routes::{Destination, Resource, RouteSettings};
use keybearer::server::PlaintextCredentials;
use keybearer::telemetry::Sink;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::client::Call;
use crate::gateway::{Builder, SAMPLE, TestGateway};

/// A gateway where proxies on this machine may ask, about one route.
fn build(change: impl FnOnce(&mut forward_auth::Settings)) -> Builder {
    TestGateway::build().with(|config| {
        let mut settings =
            forward_auth::Settings { trusted: vec!["127.0.0.0/8".parse().unwrap()], ..Default::default() };
        change(&mut settings);
        config.forward_auth = Some(settings);
        let id: RouteId = "orders".parse().unwrap();
        config.routes = vec![RouteSettings {
            groups: vec![SAMPLE.parse().unwrap()],
            methods: vec!["GET".into()],
            destination: Destination::External,
            ..RouteSettings::new(id, "/orders/*".parse().unwrap(), Resource::Echo)
        }];
    })
}

/// What Caddy and Traefik ask.
fn asking<'a>(gateway: &'a TestGateway, path: &str, proto: &str) -> Call<'a> {
    let call = gateway.get("/authz/forward-auth").header("X-Forwarded-Method", "GET").header("X-Forwarded-Uri", path);
    let call = call.header("X-Forwarded-Host", "api.example.com").header("X-Forwarded-Proto", proto);
    call.header("X-Forwarded-For", "203.0.113.7")
}

#[tokio::test]
async fn a_proxy_is_told_whose_request_it_is_and_may_not_be_told_more() {
    let gateway = build(|_| {}).start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let allowed = asking(&gateway, "/orders/1?x=y", "https").bearer(&token).await;
    assert_eq!((allowed.status, allowed.body.as_str()), (200, ""));
    assert_eq!(
        (allowed.header("x-auth-subject"), allowed.header("x-auth-groups")),
        (Some("acme"), Some("sample,demo"))
    );
    assert_eq!(allowed.header("strict-transport-security"), None, "the proxy's own host is its own affair");

    let unknown = asking(&gateway, "/orders/1", "https").await;
    unknown.problem(401, "missing-token");
    assert!(unknown.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Bearer ")));
    for (path, reason) in
        [("/other", "no_route"), ("/orders/%2e%2e/x", "ambiguous_path"), ("/orders/a%2fb", "ambiguous_path")]
    {
        let refused = asking(&gateway, path, "https").bearer(&token).await;
        assert_eq!((refused.status, refused.header("x-auth-reason")), (403, Some(reason)), "{path}");
    }
    // What another proxy answers is nothing that is answered here.
    gateway.get("/orders/1").bearer(&token).await.problem(404, "not-found");
}

/// Whatever is wrong with a question, nginx and Envoy must not meet a status that they make a 500 of, or pass by.
#[tokio::test]
async fn a_question_is_answered_200_401_403_or_429_whatever_it_is() {
    let gateway = build(|_| {}).start().await;
    let token = gateway.token(&gateway.acme().await).await;
    for path in ["/authz/auth-request", "/authz/forward-auth/x", "/authz/ext-authz/orders/..%2f1", "/authz/haproxy//x"]
    {
        for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "TRACE"] {
            let answer = gateway.call(method, path).bearer(&token).await;
            assert!(matches!(answer.status, 401 | 403), "{method} {path}: {}", answer.status);
            assert!(answer.header("x-auth-reason").is_some(), "{method} {path}");
        }
        let large = gateway.get(path).bearer(&token).header("X-Large", "x".repeat(40_000)).await;
        assert_eq!(large.status, 403, "{path}");
        let twice = gateway.get(path).bearer(&token).bearer(&token).await;
        assert_eq!(twice.status, 403, "{path}");
    }
    for outside in ["/authz", "/authz/other", "/authz/ext-authzz"] {
        gateway.get(outside).bearer(&token).await.problem(404, "not-found");
        gateway.get(outside).await.problem(401, "missing-token");
    }
}

#[tokio::test]
async fn what_a_proxy_was_sent_in_the_clear_is_exposed() {
    let build = build(|_| {}).with(|config| config.server.plaintext_credentials = PlaintextCredentials::Revoke);
    let gateway = build.start().await;
    let token = gateway.token(&gateway.acme().await).await;
    assert_eq!(asking(&gateway, "/orders/1", "https").bearer(&token).await.status, 200);
    let refused = asking(&gateway, "/orders/1", "http").bearer(&token).await;
    assert_eq!((refused.status, refused.header("x-auth-reason")), (403, Some("not_https")));
    for _ in 0..500 {
        if asking(&gateway, "/orders/1", "https").bearer(&token).await.status == 401 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the token is still good");
}

/// Sends a request in the clear to the socket, and returns the whole answer.
async fn by_socket(path: &Path, head: &str) -> String {
    let mut stream = UnixStream::connect(path).await.expect("a socket");
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn the_unix_socket_answers_questions_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("authz.sock");
    let gateway = build(|settings| settings.unix_socket = Some(path.clone())).start().await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    let question = format!(
        "GET /authz/haproxy HTTP/1.1\r\nHost: keybearer\r\nX-Original-Method: GET\r\nX-Original-URI: /orders/1\r\n\
         X-Forwarded-Host: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.7\r\nAuthorization: Bearer {token}"
    );
    let allowed = by_socket(&path, &question).await;
    assert!(allowed.starts_with("HTTP/1.1 200 OK") && allowed.contains("x-auth-subject: acme"), "{allowed}");
    assert!(by_socket(&path, "GET /health/ready HTTP/1.1\r\nHost: a").await.starts_with("HTTP/1.1 200"));
    for other in ["/token", "/", "/demo", "/demo/time", "/whoami", "/nothing", "/orders/1"] {
        let head = format!("GET {other} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}");
        let answer = by_socket(&path, &head).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https-required"), "{other}: {answer}");
    }
    gateway.stop(Duration::ZERO).await;
    assert!(!path.exists(), "the file goes with the gateway");
}

#[tokio::test]
async fn the_listener_for_grpc_answers_questions_and_nothing_else() {
    let gateway = build(|settings| settings.grpc_listen = Some("127.0.0.1:0".parse().unwrap())).start().await;
    let token = gateway.token(&gateway.acme().await).await;
    assert_eq!(gateway.at_grpc("/health/ready").await.status, 200);
    for other in ["/token", "/", "/demo/time", "/whoami", "/nothing", "/orders/1"] {
        gateway.at_grpc(other).bearer(&token).await.problem(404, "not-found");
    }
    // By the method that is there, what is no gRPC is told so.
    assert_eq!(gateway.at_grpc(forward_auth::CHECK).await.status, 415);
}

/// Who may ask is a setting that a reload puts into force.
#[tokio::test]
async fn only_trusted_proxies_are_answered() {
    let gateway = build(|settings| settings.trusted = vec!["192.0.2.0/24".parse().unwrap()]).start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let refused = asking(&gateway, "/orders/1", "https").bearer(&token).await;
    assert_eq!((refused.status, refused.header("x-auth-reason")), (403, Some("untrusted_peer")));

    let mut config = gateway.config.clone();
    config.forward_auth =
        Some(forward_auth::Settings { trusted: vec!["127.0.0.0/8".parse().unwrap()], ..Default::default() });
    assert_eq!(gateway.gateway.reload(&config).await.expect("no fault"), Vec::<&str>::new());
    assert_eq!(asking(&gateway, "/orders/1", "https").bearer(&token).await.status, 200);
}

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_says_what_was_asked_about() {
    let lines = Lines::default();
    let sink = Sink::start(lines.clone()).expect("a thread");
    let gateway = build(|_| {}).log_to(sink.clone()).start().await;
    let token = gateway.token(&gateway.acme().await).await;
    assert_eq!(asking(&gateway, "/orders/1?secret=x", "https").bearer(&token).await.status, 200);
    sink.flush();
    let written = String::from_utf8(lines.0.lock().expect("not poisoned").clone()).expect("text");
    let line = written.lines().find(|line| line.contains("asked.path")).expect("a line");
    for part in [
        "asked.method=GET",
        "asked.path=/orders/1 ",
        "asked.route.id=orders",
        "asked.client.address=203.0.113.7",
        "account=acme",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}
