//! Shapes by which a request is smuggled past a guard: refused, and nobody behind it hears of them.

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Version};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Guarded;
use super::caller::Caller;
use super::raw::Raw;
use super::upstream::{Speaks, Upstream, settings};
use crate::client::Http;
use crate::wire::{self, LONG, Wire};

const TAIL: &str = "GET /api/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// RFC 9112 §6, §11.2. One refusal, and the connection is over.
#[tokio::test]
async fn a_request_whose_end_is_unclear_reaches_nobody() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    let post = |fields: &str, content: &str| guarded.head("POST /api/a") + fields + "\r\n" + content + TAIL;
    for (what, request) in [
        ("two lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello")),
        ("two lengths in one", post("Content-Length: 5, 6\r\n", "hello")),
        ("no number", post("Content-Length: +5\r\n", "hello")),
        ("a negative number", post("Content-Length: -1\r\n", "hello")),
        ("a number in hex", post("Content-Length: 0x5\r\n", "hello")),
        ("a huge number", post("Content-Length: 99999999999999999999\r\n", "hello")),
        ("chunked, identity", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")),
        ("xchunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")),
        ("identity", post("Transfer-Encoding: identity\r\n", "")),
        ("gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        ("chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("chunked and identity", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n")),
        ("a vertical tab", post("Transfer-Encoding: \u{b}chunked\r\n", "0\r\n\r\n")),
        ("a blank before the colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")),
        ("a blank before the name", post(" Transfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("a folded field", post("X-A: b\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("a folded value", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n")),
        ("NUL in a value", post("X-A: b\0c\r\n", "")),
        ("NUL in a name", post("X\0A: b\r\n", "")),
        ("a bare CR", post("X-A: b\rTransfer-Encoding: chunked\r\n", "")),
        ("no colon", post("Transfer-Encoding chunked\r\n", "0\r\n\r\n")),
        ("chunks in HTTP/1.0", post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n").replacen("HTTP/1.1", "HTTP/1.0", 1)),
    ] {
        let mut wire = Wire::open(&guarded.gateway).await;
        wire.send(&request).await;
        let first = wire.answer().await;
        assert_eq!(first.as_ref().map(|raw| raw.status), Some(400), "{what}: {first:?}");
        assert_eq!(wire.answer().await, None, "{what}: what follows is not taken for a request");
    }
    assert_eq!(upstream.accepted(), 0);
}

/// RFC 9112 §6.3: a length beside chunks counts for nothing, and the connection is over (`hyper` takes the length away before
/// anybody here could refuse it). The upstream gets one request with one meaning.
#[tokio::test]
async fn a_length_beside_chunks_smuggles_nothing() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    let (length, chunked) = ("Content-Length: 6\r\n", "Transfer-Encoding: chunked\r\n");
    for fields in [[length, chunked], [chunked, length]].map(|lines| lines.concat()) {
        let mut wire = Wire::open(&guarded.gateway).await;
        wire.send(guarded.head("POST /api/a") + &fields + "\r\n2\r\nab\r\n0\r\n\r\n" + TAIL).await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!(wire.answer().await, None, "what follows is not taken for a request");
        if answer.status == 400 {
            continue;
        }
        let seen = upstream.one();
        assert_eq!((seen.target.as_str(), &seen.content[..]), ("/api/a", &b"ab"[..]));
        assert_eq!((seen.all("content-length"), seen.all("transfer-encoding")), (vec![], vec!["chunked"]));
    }
}

/// RFC 9112 §7.1: content whose chunks are none breaks; what follows is not taken for a request.
#[tokio::test]
async fn chunks_that_are_none_end_the_connection() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    for (what, chunks) in [
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("no number", "5g\r\nhello\r\n0\r\n\r\n"),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a size beyond all", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("a bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("a bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("too much content", "5\r\nhello there\r\n0\r\n\r\n"),
    ] {
        let mut wire = Wire::open(&guarded.gateway).await;
        wire.send(guarded.head("POST /api/a") + "Transfer-Encoding: chunked\r\n\r\n" + chunks + TAIL).await;
        let first = wire.answer().await;
        assert!(first.as_ref().is_none_or(|raw| raw.status == 400), "{what}: {first:?}");
        assert_eq!(wire.answer().await, None, "{what}");
    }
    guarded.is_at_rest().await;
    for seen in upstream.seen() {
        assert!(!seen.is_whole && seen.target == "/api/a", "{seen:?}");
    }
}

/// RFC 9112 §2.2 lets a recipient take a bare LF for the end of a line, and the parser does. What reaches the upstream is
/// written anew, so that it is one request to every reader.
#[tokio::test]
async fn a_bare_lf_ends_a_line_for_everybody() {
    let upstream = Raw::start(|mut peer| async move {
        while peer.head().await.is_some() {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let guarded = Guarded::front(settings("api", upstream.address)).await;
    let mut wire = Wire::open(&guarded.gateway).await;
    wire.send((guarded.head("GET /api/a") + "X-A: b\r\nX-C: d\r\n\r\n").replace("\r\n", "\n")).await;
    let answer = wire.answer().await.expect("an answer");
    assert!(answer.status == 200 || answer.status == 400, "{answer:?}");
    let received = upstream.received();
    assert_eq!(received.matches('\n').count(), received.matches("\r\n").count(), "{received:?}");
    assert!(received.matches("HTTP/1.1").count() <= 1);
}

/// A request in the content of another is content.
#[tokio::test]
async fn content_is_no_request() {
    for speaks in [Speaks::Http1, Speaks::H2c] {
        let upstream = Upstream::hello(speaks).await;
        let guarded = Guarded::front(upstream.settings("api")).await;
        let mut wire = Wire::open(&guarded.gateway).await;
        let length = TAIL.len();
        wire.send(guarded.head("GET /api/get") + &format!("Content-Length: {length}\r\n\r\n{TAIL}")).await;
        wire.send(
            guarded.head("POST /api/post")
                + &format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{TAIL}\r\n0\r\n\r\n"),
        )
        .await;
        for _ in 0..2 {
            assert_eq!(wire.answer().await.expect("an answer").status, 200);
        }
        let seen: Vec<_> = upstream.seen().into_iter().map(|seen| (seen.target, seen.content)).collect();
        let tail = Bytes::from(TAIL);
        assert_eq!(seen, [("/api/get".to_owned(), tail.clone()), ("/api/post".to_owned(), tail)]);
    }
}

/// A connection by HTTP/2, frame by frame.
async fn h2(guarded: &Guarded) -> h2::client::SendRequest<Bytes> {
    let tcp = TcpStream::connect(guarded.gateway.https()).await.expect("a connection");
    let tls = wire::connect(&guarded.gateway, "h2", tcp).await.expect("TLS");
    let (sender, connection) = h2::client::handshake(tls).await.expect("a beginning");
    tokio::spawn(async { drop(connection.await) });
    sender.ready().await.expect("it is ready")
}

/// RFC 9113 §8.1.1: a length that is not the content's is malformed, whatever the upstream has of it by then.
#[tokio::test]
async fn a_length_that_is_not_the_contents_is_no_whole_request_by_http_2() {
    for (what, length, content) in [("more", "3", "hello"), ("less", "10", "hello"), ("none", "10", "")] {
        for speaks in [Speaks::Http1, Speaks::H2c] {
            let upstream = Upstream::hello(speaks).await;
            let guarded = Guarded::front(upstream.settings("api")).await;
            let mut sender = h2(&guarded).await;
            let request = Request::post("https://localhost/api/a")
                .version(Version::HTTP_2)
                .header("authorization", format!("Bearer {}", guarded.token))
                .header("content-length", length)
                .body(())
                .unwrap();
            let (answer, mut stream) = sender.send_request(request, content.is_empty()).expect("sent");
            if !content.is_empty() {
                let _ = stream.send_data(content.into(), true);
            }
            let answer = timeout(LONG, answer).await.expect("in time");
            assert!(answer.as_ref().is_ok_and(|a| a.status() == 400) || answer.is_err(), "{what}: {answer:?}");
            guarded.is_at_rest().await;
            assert!(upstream.seen().iter().all(|seen| !seen.is_whole), "{what} to {speaks:?}");
        }
    }
}

/// RFC 9113 §8.2: fields of HTTP/1.1's own, and values that would be several lines there.
#[tokio::test]
async fn what_http_2_forbids_reaches_nobody() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    for (name, value) in [
        ("transfer-encoding", "chunked"),
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("host", "other"),
    ] {
        let mut frames = RawH2::open(&guarded).await;
        let status = frames.request(&guarded, "/api/a", &[(name, value)]).await;
        assert!(status.is_none_or(|status| status == 400), "{name}: {status:?}");
        assert_eq!(upstream.accepted(), 0, "{name}");
    }
    for (name, value) in
        [("x-a", "b\r\nx-c: d"), ("x-a", "b\0"), ("X-Upper", "b"), ("x a", "b"), ("x-a:", "b"), ("", "b")]
    {
        let mut frames = RawH2::open(&guarded).await;
        let status = frames.request(&guarded, "/api/a", &[(name, value)]).await;
        assert!(status.is_none_or(|status| status == 400), "{name:?}: {status:?}");
        assert_eq!(upstream.accepted(), 0, "{name:?}");
    }
    for path in ["/api/a HTTP/1.1\r\nx: y", "/api/a b", "", "api/a"] {
        let mut frames = RawH2::open(&guarded).await;
        let status = frames.request(&guarded, path, &[]).await;
        assert!(status.is_none_or(|status| status == 400), "{path:?}: {status:?}");
        assert_eq!(upstream.accepted(), 0, "{path:?}");
    }
    let mut frames = RawH2::open(&guarded).await;
    assert_eq!(frames.request(&guarded, "/api/a", &[("x-a", "b")]).await, Some(200), "this is how a good one looks");
    assert_eq!(upstream.one().header("x-a"), Some("b"));
}

/// HTTP/2 with header blocks written by hand, for what a library would not send.
struct RawH2(Wire);

impl RawH2 {
    async fn open(guarded: &Guarded) -> Self {
        let mut wire = Wire::open_for(&guarded.gateway, "h2").await;
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        Self(wire)
    }

    /// The status of a GET with these fields; `None` where its stream or the connection was ended.
    async fn request(&mut self, guarded: &Guarded, path: &str, fields: &[(&str, &str)]) -> Option<u16> {
        let mut block = Vec::new();
        let authorization = format!("Bearer {}", guarded.token);
        let first = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", path),
            ("authorization", &authorization),
        ];
        for (name, value) in first.iter().chain(fields) {
            // RFC 7541 §6.2.2: a literal without indexing, with a new name.
            block.push(0);
            for text in [name, value] {
                integer(&mut block, text.len());
                block.extend_from_slice(text.as_bytes());
            }
        }
        let mut frame = (block.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[1, 0x05, 0, 0, 0, 1]);
        frame.extend_from_slice(&block);
        self.0.send(frame).await;
        loop {
            let head = self.0.bytes(9).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let content = self.0.bytes(length).await?;
            match head[3] {
                1 => return Some(status(&content)),
                3 | 7 => return None,
                _ => {}
            }
        }
    }
}

/// RFC 7541 §5.1, with a prefix of seven bits.
fn integer(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push((value % 128 + 128) as u8);
        value /= 128;
    }
    block.push(value as u8);
}

/// The status at the beginning of a header block: of the static table (RFC 7541 Appendix A), or a literal.
fn status(block: &[u8]) -> u16 {
    match block[0] {
        0x88 => 200,
        0x8c => 400,
        0x8d => 404,
        _ => 0,
    }
}

/// What the library itself sends is sound: the tests above fail for what they are about.
#[tokio::test]
async fn a_sound_request_by_both_versions_passes() {
    let upstream = Upstream::hello(Speaks::Http1).await;
    let guarded = Guarded::front(upstream.settings("api")).await;
    for http in [Http::One, Http::Two] {
        let mut caller = Caller::open(&guarded, http).await;
        let request = caller.post("/api/a").header("content-length", 5).body(Body::from("hello")).unwrap();
        assert_eq!(caller.answer(request).await.status, 200);
        assert!(upstream.one().is_whole);
    }
}
