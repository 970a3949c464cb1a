//! The limits of patience: clients that are slow, too many, or still there when the gateway ends.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::conduct::{get, post, status};
use crate::gateway::TestGateway;
use crate::wire::{LONG, Raw, Wire, connect};

/// The configured limit of whatever a slow client does. Real time: kept short, and only looked at from below.
const LIMIT: Duration = Duration::from_millis(300);

/// Limits far beyond a test's life, but for the one that a test is about.
async fn with_limits(change: impl FnOnce(&mut keybearer::server::Limits)) -> TestGateway {
    let far = Duration::from_secs(3600);
    let build = TestGateway::build().with(|config| {
        let limits = &mut config.limits;
        (limits.handshake_timeout, limits.header_timeout, limits.idle_timeout) = (far, far, far);
        (limits.body_timeout, limits.write_timeout) = (far, far);
        change(limits);
    });
    build.start().await
}

/// Waits for the end of a connection and asserts that it did not come much too early.
async fn closes<IO>(wire: &mut Wire<IO>, began: Instant) -> Vec<u8>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let rest = wire.rest().await;
    let took = began.elapsed();
    assert!(took >= LIMIT / 2, "closed after {took:?}");
    rest
}

#[tokio::test]
async fn a_client_that_never_begins_tls_is_closed() {
    let gateway = with_limits(|limits| limits.handshake_timeout = LIMIT).await;
    let began = Instant::now();
    let mut silent = Wire::open_plain(&gateway).await;
    assert!(closes(&mut silent, began).await.is_empty());
    // Nor does it help to begin and not go on.
    let began = Instant::now();
    let mut begun = Wire::open_plain(&gateway).await;
    begun.send([0x16, 3, 1, 2]).await;
    closes(&mut begun, began).await;
    assert_eq!(gateway.metric("keybearer_connections_closed_total{reason=\"slow_handshake\"}").await, 2.0);
}

#[tokio::test]
async fn a_client_that_never_asks_is_closed_and_so_is_an_idle_one() {
    let gateway = with_limits(|limits| limits.idle_timeout = LIMIT).await;
    let began = Instant::now();
    let mut wire = Wire::open(&gateway).await;
    assert!(closes(&mut wire, began).await.is_empty());
    let mut wire = Wire::open(&gateway).await;
    wire.send(get("/health/live")).await;
    assert!(wire.answer().await.is_some());
    assert!(closes(&mut wire, Instant::now()).await.is_empty());
    // With HTTP/2 too.
    let began = Instant::now();
    let tcp = TcpStream::connect(gateway.https()).await.expect("a connection");
    let mut tls = connect(&gateway, "h2", tcp).await.expect("TLS");
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut tls, &mut rest);
    let _ = tokio::time::timeout(LONG, read).await.expect("it is closed");
    assert!(began.elapsed() >= LIMIT / 2);
}

#[tokio::test]
async fn a_header_section_in_a_trickle_is_cut_off() {
    let gateway = with_limits(|limits| limits.header_timeout = LIMIT).await;
    let mut wire = Wire::open(&gateway).await;
    let began = Instant::now();
    wire.send("GET / HTTP/1.1\r\nHost: x\r\n").await;
    let trickle = async {
        // Each byte comes well within the limit; it is the whole that does not.
        for _ in 0..1000 {
            wire.send("x").await;
            tokio::time::sleep(LIMIT / 10).await;
            if began.elapsed() > LIMIT * 3 {
                break;
            }
        }
        closes(&mut wire, began).await
    };
    let rest = trickle.await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{rest:?}");
    assert_eq!(gateway.metric("keybearer_connections_closed_total{reason=\"slow_header\"}").await, 1.0);
}

#[tokio::test]
async fn half_a_body_is_answered_408() {
    let gateway = with_limits(|limits| limits.body_timeout = LIMIT).await;
    let token = gateway.token(&gateway.acme().await).await;
    let mut wire = Wire::open(&gateway).await;
    let began = Instant::now();
    wire.send(post(&token, 100, "half of it")).await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!(answer.status, 408, "{answer:?}");
    assert!(began.elapsed() >= LIMIT / 2);
    assert!(answer.body.contains("urn:keybearer:problem:request-timeout"), "{answer:?}");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_closed() {
    let gateway = with_limits(|limits| {
        limits.write_timeout = LIMIT;
        limits.body_bytes = 16 << 20;
    })
    .await;
    let token = gateway.token(&gateway.acme().await).await;
    let mut wire = Wire::open_narrow(&gateway).await;
    let began = Instant::now();
    // More than the sockets of both ends hold.
    let size = 12 << 20;
    wire.send(post(&token, size, &"x".repeat(size))).await;
    until_closed(&gateway, "slow_reader").await;
    assert!(began.elapsed() >= LIMIT / 2);
    assert!(wire.rest().await.len() < size, "the answer was cut off");
}

/// A reader that is slow and takes something is served to the end, however long that lasts.
#[tokio::test]
async fn a_slow_reader_that_takes_something_is_served() {
    let gateway = with_limits(|limits| {
        limits.idle_timeout = LIMIT;
        limits.body_bytes = 16 << 20;
    })
    .await;
    let token = gateway.token(&gateway.acme().await).await;
    let mut wire = Wire::open_narrow(&gateway).await;
    let size = 12 << 20;
    wire.send(post(&token, size, &"x".repeat(size))).await;
    let began = Instant::now();
    while began.elapsed() < LIMIT * 4 {
        wire.take_some(128 * 1024).await;
        tokio::time::sleep(LIMIT / 20).await;
    }
    let answer = wire.answer().await.expect("the whole answer");
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() > size);
}

async fn until_closed(gateway: &TestGateway, reason: &str) {
    let began = Instant::now();
    let line = format!("keybearer_connections_closed_total{{reason=\"{reason}\"}}");
    while gateway.metric(&line).await == 0.0 {
        assert!(began.elapsed() < LONG, "nothing was closed as {reason}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_not_served() {
    for per_address in [false, true] {
        let gateway = with_limits(|limits| match per_address {
            true => limits.connections_per_address = 2,
            false => limits.connections = 2,
        })
        .await;
        let (mut one, mut two) = (Wire::open(&gateway).await, Wire::open(&gateway).await);
        for wire in [&mut one, &mut two] {
            wire.send(get("/health/live")).await;
            assert_eq!(wire.answer().await.map(|raw| raw.status), Some(200));
        }
        let mut three = Wire::open_plain(&gateway).await;
        assert!(three.is_closed().await, "the third is closed before TLS");
        drop(one);
        // The place is free as soon as the gateway has seen the end.
        let began = Instant::now();
        while gateway.gateway.connections() > 1 {
            assert!(began.elapsed() < LONG);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(status(&gateway, get("/health/live")).await, Some(200));
        two.send(get("/health/live")).await;
        assert_eq!(two.answer().await.map(|raw| raw.status), Some(200), "the others never noticed");
    }
}

#[tokio::test]
async fn a_graceful_end_finishes_what_is_in_flight_and_takes_nothing_new() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let address = gateway.https();
    let mut wire = Wire::open(&gateway).await;
    wire.send(post(&token, 10, "hello")).await;
    let mut idle = Wire::open(&gateway).await;
    idle.send(get("/health/live")).await;
    assert!(idle.answer().await.is_some());
    // The half request was sent before the idle connection was opened and answered, so it is in flight by now.
    let ending = tokio::spawn(gateway.stop(Duration::from_secs(60)));
    let began = Instant::now();
    while TcpStream::connect(address).await.is_ok() {
        assert!(began.elapsed() < LONG, "new connections are accepted still");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(idle.is_closed().await, "idle connections end at once");
    assert!(!ending.is_finished(), "one is in flight");
    wire.send("world").await;
    let answer = wire.answer().await;
    assert!(matches!(&answer, Some(Raw { status: 200, body, .. }) if body.contains("helloworld")), "{answer:?}");
    assert!(wire.is_closed().await);
    tokio::time::timeout(LONG, ending).await.expect("it ends").expect("without a panic");
}

#[tokio::test]
async fn an_end_does_not_wait_longer_than_its_grace() {
    let gateway = TestGateway::start().await;
    let token = gateway.token(&gateway.acme().await).await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(post(&token, 10, "hello")).await;
    let mut ready = Wire::open(&gateway).await;
    ready.send(get("/health/live")).await;
    assert!(ready.answer().await.is_some());
    let ending = tokio::time::timeout(LONG, gateway.stop(LIMIT));
    ending.await.expect("the grace ends it");
    assert!(wire.answer().await.is_none());
}
