//! Upgrades: WebSocket by both versions, other protocols, refusals, and the end of a tunnel with its token.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use keybearer::proxy::websocket::accept;
use keybearer::routes::{RouteSettings, TokenEnd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::caller::{Caller, whole};
use super::frame::{Frame, LEAVE, echo, text};
use super::raw::Raw;
use super::upstream::{Speaks, Upstream, settings};
use super::{Guarded, forwarding, route};
use crate::client::{BOTH, Http};
use crate::gateway::TestGateway;
use crate::wire::LONG;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// An upstream of WebSockets that echo. `/api/refused` is refused, `/api/other` switches to something else.
pub async fn echoing() -> Upstream {
    Upstream::streaming(Speaks::Http1, |mut request| async move {
        let refused = |status: StatusCode, body: &'static str| {
            Response::builder().status(status).header("x-why", "theirs").body(Body::from(body)).unwrap()
        };
        let (path, headers) = (request.uri().path().to_owned(), request.headers().clone());
        if path == "/api/refused" {
            return refused(StatusCode::FORBIDDEN, "not you");
        }
        if path == "/api/plain" {
            return refused(StatusCode::OK, "no websocket here");
        }
        let Some(key) = headers.get("sec-websocket-key") else { return refused(StatusCode::BAD_REQUEST, "no key") };
        let is_asked = headers["upgrade"].as_bytes().eq_ignore_ascii_case(b"websocket")
            && headers["connection"].as_bytes().eq_ignore_ascii_case(b"upgrade")
            && headers["sec-websocket-version"] == "13";
        if !is_asked {
            return refused(StatusCode::BAD_REQUEST, "no handshake");
        }
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                echo(TokioIo::new(upgraded)).await;
            }
        });
        let protocol = if path == "/api/other" { "other" } else { "websocket" };
        let builder = Response::builder().status(101).header("connection", "upgrade").header("upgrade", protocol);
        let builder = builder.header("sec-websocket-accept", accept(key.as_bytes()));
        builder.header("sec-websocket-protocol", "chat").body(Body::empty()).unwrap()
    })
    .await
}

/// The request that opens one.
fn opening(caller: &Caller, http: Http, path: &str) -> Request<Body> {
    let mut request = match http {
        Http::One => caller
            .get(path)
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-key", KEY)
            .header("sec-websocket-version", "13"),
        Http::Two => caller.request("CONNECT", path).extension(Protocol::from_static("websocket")),
    }
    .header("sec-websocket-protocol", "chat, other")
    .body(Body::empty())
    .unwrap();
    if http == Http::Two {
        *request.method_mut() = Method::CONNECT;
    }
    request
}

/// A connection on which the gateway has said that it knows RFC 8441.
async fn caller(guarded: &Guarded, http: Http) -> Caller {
    let mut caller = Caller::open(guarded, http).await;
    assert_eq!(caller.got("/health/live").await.status, 200);
    caller
}

/// An open WebSocket.
pub struct Socket {
    io: TokioIo<Upgraded>,
    _caller: Caller,
}

impl Socket {
    pub async fn open(guarded: &Guarded, http: Http) -> Self {
        Self::open_at(guarded, http, "/api/chat").await
    }

    async fn open_at(guarded: &Guarded, http: Http, path: &str) -> Self {
        let mut caller = caller(guarded, http).await;
        let request = opening(&caller, http, path);
        let mut answer: Response<Incoming> = caller.send(request).await;
        let headers = answer.headers().clone();
        if http == Http::One {
            assert_eq!(answer.status(), 101, "{answer:?}");
            assert_eq!(headers["sec-websocket-accept"], accept(KEY.as_bytes()));
            assert_eq!(
                (&headers["upgrade"], &headers["connection"]),
                (&"websocket".parse().unwrap(), &"upgrade".parse().unwrap())
            );
        } else {
            assert_eq!(answer.status(), 200, "{answer:?}");
            assert!(["sec-websocket-accept", "upgrade", "connection"].iter().all(|name| !headers.contains_key(*name)));
        }
        assert_eq!(headers["sec-websocket-protocol"], "chat");
        let upgraded = timeout(LONG, hyper::upgrade::on(&mut answer)).await.expect("in time").expect("an upgrade");
        Self { io: TokioIo::new(upgraded), _caller: caller }
    }

    async fn say(&mut self, frame: &Frame) {
        self.io.write_all(&frame.bytes(Some([1, 2, 3, 4]))).await.expect("it is taken");
        self.io.flush().await.expect("it is taken");
    }

    async fn hear(&mut self) -> Option<Frame> {
        Frame::read(&mut self.io).await
    }

    pub async fn echoes(&mut self) {
        self.say(&text("are you there?")).await;
        assert_eq!(self.hear().await, Some(text("are you there?")));
    }

    /// The server says goodbye with this code, and after the answer the connection ends.
    async fn ends_with(mut self, code: u16) {
        let close = self.hear().await.expect("a close");
        assert_eq!(close.close_code(), code);
        self.say(&close).await;
        assert_eq!(self.hear().await, None, "nothing after a close");
    }
}

#[tokio::test]
async fn a_websocket_passes_frames_of_every_kind() {
    for http in BOTH {
        let upstream = echoing().await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut socket = Socket::open(&guarded, http).await;
        let part = |is_last, opcode, content: &str| Frame { is_last, opcode, content: content.into() };
        for frame in [
            text("hello"),
            part(false, 1, "frag"),
            part(true, 9, "a ping between"),
            part(false, 0, "men"),
            part(true, 0, "ted"),
            part(true, 2, ""),
            part(true, 2, &"x".repeat(126)),
            part(true, 2, &"x".repeat(100_000)),
        ] {
            socket.say(&frame).await;
            let expected = if frame.opcode == 9 { Frame { opcode: 10, ..frame } } else { frame };
            assert_eq!(socket.hear().await, Some(expected), "{http:?}");
        }
        let seen = upstream.one();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/api/chat"));
        assert_eq!((seen.all("x-auth-subject"), seen.header("authorization")), (vec!["acme"], None));
        assert_eq!(seen.all("sec-websocket-protocol"), ["chat, other"]);
        assert_eq!(guarded.gateway.gateway.proxy().tunnels(), 1);
        // The client's own close passes, and its answer.
        let close = Frame { is_last: true, opcode: 8, content: b"\x03\xe8bye".to_vec() };
        socket.say(&close).await;
        assert_eq!(socket.hear().await, Some(close));
        assert_eq!(socket.hear().await, None);
        drop(socket);
        guarded.is_deserted().await;
        super::eventually("the upstream's connection is closed", || upstream.open() == 0).await;
    }
}

#[tokio::test]
async fn a_websocket_ends_with_its_token() {
    for http in BOTH {
        let upstream = echoing().await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut socket = Socket::open(&guarded, http).await;
        guarded.gateway.advance(Duration::from_secs(3599));
        socket.echoes().await;
        guarded.gateway.advance(Duration::from_secs(1));
        socket.ends_with(4401).await;
        guarded.is_deserted().await;
        super::eventually("the upstream's connection is closed", || upstream.open() == 0).await;

        let token = guarded.gateway.token(&guarded.key).await;
        let guarded = Guarded { token, ..guarded };
        let mut socket = Socket::open(&guarded, http).await;
        socket.echoes().await;
        guarded.revoke().await;
        socket.ends_with(4401).await;
        guarded.is_deserted().await;
    }
}

/// In the middle of a frame nothing can be said: it is let come to its end.
#[tokio::test]
async fn a_close_comes_between_two_frames() {
    for http in BOTH {
        let upstream = echoing().await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut socket = Socket::open(&guarded, http).await;
        socket.echoes().await;
        let frame = text("half of this comes later").bytes(Some([4, 3, 2, 1]));
        let (first, rest) = frame.split_at(12);
        socket.io.write_all(first).await.unwrap();
        socket.io.flush().await.unwrap();
        guarded.revoke().await;
        let close = socket.hear().await.expect("a close");
        assert_eq!(close.close_code(), 4401);
        socket.io.write_all(rest).await.unwrap();
        socket.say(&close).await;
        assert_eq!(socket.hear().await, None);
        guarded.is_at_rest().await;
    }
}

#[tokio::test]
async fn a_websocket_is_told_that_the_gateway_ends() {
    for http in BOTH {
        let upstream = echoing().await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut socket = Socket::open(&guarded, http).await;
        socket.echoes().await;
        let stopping = tokio::spawn(guarded.gateway.stop(Duration::from_secs(60)));
        socket.ends_with(1001).await;
        timeout(LONG, stopping).await.expect("in time").expect("no panic");
    }
}

#[tokio::test]
async fn a_websocket_that_is_left_alone_ends() {
    for http in BOTH {
        let upstream = echoing().await;
        let guarded = Guarded::with(upstream.settings("api"), |forwarding| {
            forwarding.idle_timeout = Some(Duration::from_millis(200));
        })
        .await;
        let mut socket = Socket::open(&guarded, http).await;
        socket.echoes().await;
        socket.ends_with(1001).await;
        guarded.is_deserted().await;
    }
}

/// `token_end` and `stream_grace` are for tunnels too.
#[tokio::test]
async fn a_websocket_may_outlive_its_token_where_the_route_says_so() {
    let upstream = echoing().await;
    let builder = TestGateway::build().upstream(upstream.settings("api"));
    let nothing = forwarding("nothing", "/api/*", "api", |forwarding| forwarding.token_end = TokenEnd::Nothing);
    let guarded = Guarded::started(builder.route(nothing)).await;
    let mut socket = Socket::open(&guarded, Http::One).await;
    guarded.gateway.advance(Duration::from_secs(7200));
    socket.echoes().await;
    guarded.revoke().await;
    socket.echoes().await;

    let builder = TestGateway::build().upstream(upstream.settings("api")).route(route("api", "/api/*", "api"));
    let builder = builder.with(|config| config.access.stream_grace = Duration::from_secs(30));
    let guarded = Guarded::started(builder).await;
    let mut socket = Socket::open(&guarded, Http::Two).await;
    guarded.gateway.advance(Duration::from_secs(3629));
    socket.echoes().await;
    guarded.gateway.advance(Duration::from_secs(1));
    socket.ends_with(4401).await;
}

/// A client that is gone, and an upstream that is, take the other end along.
#[tokio::test]
async fn a_tunnel_ends_with_either_side() {
    for http in BOTH {
        let upstream = echoing().await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut socket = Socket::open(&guarded, http).await;
        socket.echoes().await;
        drop(socket);
        guarded.is_deserted().await;
        super::eventually("the upstream's connection is closed", || upstream.open() == 0).await;

        let mut socket = Socket::open(&guarded, http).await;
        socket.echoes().await;
        socket.say(&text(LEAVE)).await;
        assert_eq!(socket.hear().await, None);
        drop(socket);
        guarded.is_deserted().await;
    }
}

#[tokio::test]
async fn a_refusal_of_the_upstream_is_the_clients() {
    for http in BOTH {
        let upstream = echoing().await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = caller(&guarded, http).await;
        let request = opening(&caller, http, "/api/refused");
        let answer = caller.answer(request).await;
        assert_eq!((answer.status, answer.body.as_str()), (403, "not you"), "{http:?}");
        assert_eq!(answer.header("x-why"), Some("theirs"));
        guarded.is_at_rest().await;
    }
}

/// A 200 to an extended CONNECT would be taken for an open WebSocket (RFC 8441 §4).
#[tokio::test]
async fn an_answer_that_is_no_upgrade_opens_nothing() {
    let upstream = echoing().await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    let mut one = caller(&guarded, Http::One).await;
    let request = opening(&one, Http::One, "/api/plain");
    let answer = one.answer(request).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "no websocket here"));

    let mut two = caller(&guarded, Http::Two).await;
    let request = opening(&two, Http::Two, "/api/plain");
    let answer = two.send(request).await;
    assert_eq!(answer.status(), 502, "{answer:?}");
    guarded.is_at_rest().await;
}

#[tokio::test]
async fn another_protocol_than_was_asked_for_is_a_502() {
    for http in BOTH {
        let upstream = echoing().await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut caller = caller(&guarded, http).await;
        let request = opening(&caller, http, "/api/other");
        caller.answer(request).await.problem(502, "bad-gateway");
        guarded.is_at_rest().await;
        super::eventually("the upstream's connection is closed", || upstream.open() == 0).await;
    }
}

#[tokio::test]
async fn an_upgrade_without_a_right_to_it_reaches_nobody() {
    let upstream = echoing().await;
    let settings = upstream.settings("api");
    let strict = RouteSettings { groups: vec!["other".parse().unwrap()], ..route("api", "/api/*", "api") };
    let guarded = Guarded::started(TestGateway::build().upstream(settings).route(strict)).await;
    for http in BOTH {
        let mut weak = caller(&guarded, http).await;
        let request = opening(&weak, http, "/api/chat");
        weak.answer(request).await.problem(403, "insufficient-scope");
        let mut without = caller(&guarded, http).await.with_token(None);
        let request = opening(&without, http, "/api/chat");
        without.answer(request).await.problem(401, "missing-token");
    }
    assert_eq!(upstream.accepted(), 0);
}

/// RFC 9110 §7.8: what is not WebSocket is bytes.
#[tokio::test]
async fn another_protocol_passes_as_it_is() {
    let upstream = Raw::start(|mut peer| async move {
        let head = peer.head().await.expect("a request").to_lowercase();
        assert!(head.contains("\r\nupgrade: echo/1\r\n") && head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        peer.say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo/1\r\n\r\nwelcome").await;
        peer.until("\0\u{1}bye").await;
        peer.say("\u{2}\0bye").await;
    })
    .await;
    let guarded = Guarded::front(settings("api", upstream.address)).await;
    let mut caller = Caller::open(&guarded, Http::One).await;
    let request = caller.get("/api/a").header("connection", "upgrade").header("upgrade", "echo/1");
    let mut answer = caller.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["upgrade"]), (101, &"echo/1".parse().unwrap()));
    let upgraded = timeout(LONG, hyper::upgrade::on(&mut answer)).await.expect("in time").expect("an upgrade");
    let mut io = TokioIo::new(upgraded);
    io.write_all(b"\0\x01bye").await.unwrap();
    let mut all = Vec::new();
    timeout(LONG, io.read_to_end(&mut all)).await.expect("in time").expect("the end");
    assert_eq!(all, b"welcome\x02\0bye");
    drop((io, caller));
    guarded.is_deserted().await;
}

/// What a client does not mean as an upgrade is none: HTTP/2 in the clear, several at once, or no `Connection`.
#[tokio::test]
async fn an_upgrade_that_is_none_is_a_plain_request() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    for (connection, upgrade) in [("upgrade", "h2c"), ("upgrade", "websocket, other"), ("keep-alive", "websocket")] {
        let mut caller = Caller::open(&guarded, Http::One).await;
        let request = caller.get("/api/a").header("connection", connection).header("upgrade", upgrade);
        let answer = caller.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(whole(answer).await.expect("whole").0.status, 200);
        let seen = upstream.one();
        assert_eq!((seen.header("upgrade"), seen.header("connection")), (None, None), "{upgrade}");
    }
}
