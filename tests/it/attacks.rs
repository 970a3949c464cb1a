//! Attacks on the proxy door that once went through, or that its protection against is not to be seen elsewhere: by raw
//! bytes on both sides.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keybearer::ids::{RouteId, UpstreamId};
use keybearer::proxy::upstream::UpstreamSettings;
use keybearer::revocations::Target;
use keybearer::routes::{Destination, Forwarding, Resource, Rewrite, RouteSettings, TokenEnd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::client::Http;
use crate::gateway::{Builder, SAMPLE, TestGateway};
use crate::wire::{LONG, Wire, connect};

/// A gateway with `/open/*` in front of the upstream at `address`, and `change` to that route.
fn before(address: std::net::SocketAddr, change: impl FnOnce(&mut Forwarding)) -> Builder {
    let id: UpstreamId = "api".parse().unwrap();
    let mut forwarding = Forwarding {
        upstream: id.clone(),
        rewrite: Rewrite::Keep,
        body_bytes: None,
        response_timeout: None,
        idle_timeout: None,
        pass_credentials: false,
        identity_headers: true,
        token_end: TokenEnd::Streams,
    };
    change(&mut forwarding);
    let target = format!("http://{address}").parse().unwrap();
    TestGateway::build().with(move |config| {
        config.upstreams = vec![UpstreamSettings::new(id, vec![target])];
        let route: RouteId = "open".parse().unwrap();
        config.routes = vec![RouteSettings {
            groups: vec![SAMPLE.parse().unwrap()],
            destination: Destination::Upstream(Arc::new(forwarding)),
            ..RouteSettings::new(route, "/open/*".parse().unwrap(), Resource::Echo)
        }];
    })
}

/// An upstream that answers each connection by `serve`.
async fn upstream<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> std::net::SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads one header section; `None` at the end.
async fn head(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            return Some(String::from_utf8_lossy(&read.drain(..at + 4).collect::<Vec<_>>()).into_owned());
        }
        if !matches!(stream.read_buf(read).await, Ok(1..)) {
            return None;
        }
    }
}

/// An upstream like nginx or Node.js: it answers a request for which no content matters without waiting for the content, and
/// then takes so many bytes as were announced for it. `seen` are the request lines that it took for such.
async fn keep_alive(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>) {
    let mut read = Vec::new();
    while let Some(head) = head(&mut stream, &mut read).await {
        seen.lock().unwrap().push(head.clone());
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        for _ in 0..length.unwrap_or(0) {
            if read.is_empty() && !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                return;
            }
            read.remove(0);
        }
    }
}

/// The content of a request that also asks for an upgrade was dropped, and its length announced to the upstream all the
/// same. The upstream then took the beginning of the next request on that connection for the content, and the rest of it,
/// which a client chooses, for a request.
#[tokio::test]
async fn content_beside_an_upgrade_does_not_desynchronise_the_upstream() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&seen);
    let address = upstream(move |stream| keep_alive(stream, Arc::clone(&log))).await;
    let gateway = before(address, |_| {}).start().await;
    let token = gateway.token(&gateway.acme().await).await;

    for method in ["GET", "POST"] {
        let mut wire = Wire::open(&gateway).await;
        let content = "x".repeat(40);
        wire.send(format!(
            "{method} /open/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: upgrade\r\n\
             Upgrade: foo\r\nContent-Length: {}\r\n\r\n{content}",
            content.len()
        ))
        .await;
        assert_eq!(wire.answer().await.map(|answer| answer.status), Some(200));
        let mut wire = Wire::open(&gateway).await;
        wire.send(format!(
            "GET /open/{}/GET%20/admin HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n",
            "y".repeat(30)
        ))
        .await;
        wire.answer().await;
    }
    let seen = seen.lock().unwrap();
    for request in seen.iter() {
        assert!(request.starts_with("GET /open/") || request.starts_with("POST /open/"), "{seen:#?}");
    }
    assert_eq!(seen.len(), 4, "{seen:#?}");
}

/// A stream that is the answer to a request with content was never cut off when its token was revoked while the upstream
/// had the whole request and had not answered yet.
#[tokio::test]
async fn a_stream_whose_token_is_revoked_before_its_head_is_cut_off() {
    let (asked, was_asked) = oneshot::channel();
    let (answer, may_answer) = oneshot::channel::<()>();
    let once = Arc::new(Mutex::new(Some((asked, may_answer))));
    let address = upstream(move |mut stream| {
        let once = Arc::clone(&once);
        async move {
            let mut read = Vec::new();
            if head(&mut stream, &mut read).await.is_none() {
                return;
            }
            while read.len() < 5 && matches!(stream.read_buf(&mut read).await, Ok(1..)) {}
            let (asked, may_answer) = once.lock().unwrap().take().expect("one request");
            asked.send(()).unwrap();
            may_answer.await.unwrap();
            let begin = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.write_all(begin).await;
            while stream.write_all(b"8\r\ndata: x\n\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    })
    .await;
    let gateway = before(address, |_| {}).start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(format!(
        "POST /open/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 5\r\n\
         Connection: close\r\n\r\nhello"
    ))
    .await;
    was_asked.await.expect("the upstream was asked");
    gateway.store.revoke(&Target::All, gateway.now(), false).await.expect("stored");
    gateway.sync().await;
    // Time for what looks over all that is under way, which it does at once.
    tokio::time::sleep(Duration::from_millis(600)).await;
    answer.send(()).unwrap();
    let began = Instant::now();
    let rest = tokio::time::timeout(LONG, wire.rest()).await;
    let rest = rest.unwrap_or_else(|_| panic!("the stream goes on after {:?}", began.elapsed()));
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.starts_with("HTTP/1.1 401") && !rest.contains("data: x"), "not a byte of it: {rest}");
}

/// A frame may be as long as its sender says. That was let through for five seconds after a revocation.
#[tokio::test]
async fn an_endless_frame_does_not_outlive_a_revocation() {
    let address = upstream(|mut stream| async move {
        let mut read = Vec::new();
        head(&mut stream, &mut read).await;
        let agreed = b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        let _ = stream.write_all(agreed).await;
        // All that comes goes back, so that it is seen here how far it got.
        let mut some = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut some).await {
            // As one frame without a mask and without an end.
            let _ = stream.write_all(&some[..n]).await;
        }
    })
    .await;
    let gateway = before(address, |_| {}).start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(format!(
        "GET /open/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: upgrade\r\n\
         Upgrade: websocket\r\n\r\n"
    ))
    .await;
    assert_eq!(wire.answer().await.map(|answer| answer.status), Some(101));
    // 2^62 bytes, in both directions.
    let begin = [0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    wire.send(begin).await;
    wire.take_some(begin.len()).await;
    gateway.store.revoke(&Target::All, gateway.now(), false).await.expect("stored");
    gateway.sync().await;
    let began = Instant::now();
    wire.rest().await;
    assert!(began.elapsed() < Duration::from_secs(4), "it went on for {:?}", began.elapsed());
}

/// Answers whatever has come when nothing more does, with these bytes, and keeps what it was sent.
async fn answering(bytes: &'static str) -> (std::net::SocketAddr, Arc<Mutex<String>>) {
    let seen: Arc<Mutex<String>> = Arc::default();
    let log = Arc::clone(&seen);
    let address = upstream(move |mut stream| {
        let log = Arc::clone(&log);
        async move {
            let mut read = Vec::new();
            loop {
                match tokio::time::timeout(Duration::from_millis(300), stream.read_buf(&mut read)).await {
                    Ok(Ok(1..)) => log.lock().unwrap().push_str(&String::from_utf8_lossy(&std::mem::take(&mut read))),
                    Ok(_) => return,
                    Err(_) if log.lock().unwrap().is_empty() => {}
                    Err(_) => {
                        let _ = stream.write_all(bytes.as_bytes()).await;
                        return;
                    }
                }
            }
        }
    })
    .await;
    (address, seen)
}

/// The content of a GET of unknown length was left out on the way: the upstream answered another request.
#[tokio::test]
async fn the_content_of_a_get_arrives() {
    let (address, seen) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let gateway = before(address, |_| {}).start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(format!(
        "GET /open/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\n\r\n"
    ))
    .await;
    assert_eq!(wire.answer().await.map(|answer| answer.status), Some(200));
    let seen = seen.lock().unwrap();
    assert!(seen.contains("transfer-encoding: chunked\r\n") && seen.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{seen}");
}

/// `Content-Length` beside `Transfer-Encoding` is an error, or somebody's attempt (RFC 9112 §6.3). The answer was cut off by it.
#[tokio::test]
async fn a_length_beside_an_encoding_does_not_cut_an_answer_off() {
    let bytes = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (address, _) = answering(bytes).await;
    let gateway = before(address, |_| {}).start().await;
    let token = gateway.token(&gateway.acme().await).await;
    gateway.get("/open/a").bearer(&token).await.problem(502, "bad-gateway");
}

/// By HTTP/2 any 2xx opens a WebSocket (RFC 8441 §5), also where the upstream meant an answer by it.
#[tokio::test]
async fn an_answer_that_is_no_switch_opens_no_web_socket() {
    let (address, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let gateway = before(address, |_| {}).start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let tcp = TcpStream::connect(gateway.https()).await.expect("a connection");
    let tls = connect(&gateway, "h2", tcp).await.expect("TLS");
    let (client, connection) = h2::client::handshake(tls).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut client = client.ready().await.expect("ready");
    let began = Instant::now();
    while !client.is_extended_connect_protocol_enabled() {
        assert!(began.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let request = http::Request::connect("https://localhost/open/a")
        .header("authorization", format!("Bearer {token}"))
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    let (answer, _stream) = client.send_request(request, false).expect("sent");
    assert_eq!(answer.await.expect("an answer").status(), 502);
}

/// A load balancer that is trusted to say whose requests it hands on was itself taken for the proxy that asks, if its
/// network may: so anybody could ask through it.
#[tokio::test]
async fn nobody_asks_for_decisions_through_the_load_balancer() {
    let (address, _) = answering("").await;
    let gateway = before(address, |_| {}).behind_proxy(&["127.0.0.0/8"]).with(|config| {
        let trusted = vec!["127.0.0.0/8".parse().unwrap()];
        config.forward_auth = Some(keybearer::forward_auth::Settings { trusted, ..Default::default() });
    });
    let gateway = gateway.start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let question = gateway.by_proxy("/authz/forward-auth").header("x-forwarded-for", "203.0.113.9");
    let question = question.header("x-forwarded-proto", "https").header("x-forwarded-host", "a");
    let question = question.header("x-forwarded-uri", "/open/x").header("x-forwarded-method", "GET").bearer(&token);
    let answer = question.await;
    assert_eq!((answer.status, answer.header("x-auth-reason")), (403, Some("untrusted_peer")));
}

/// HTTP/2 lets a client send a cookie in crumbs, HTTP/1.1 does not (RFC 9113 §8.2.3).
#[tokio::test]
async fn the_crumbs_of_a_cookie_are_joined() {
    let (address, seen) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let gateway = before(address, |_| {}).start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let call = gateway.get("/open/a").over(Http::Two).bearer(&token);
    let answer = call.header("cookie", "a=1").header("cookie", "b=2").await;
    assert_eq!(answer.status, 200);
    let seen = seen.lock().unwrap();
    assert!(seen.contains("\r\ncookie: a=1; b=2\r\n") && seen.matches("cookie").count() == 1, "{seen}");
}
