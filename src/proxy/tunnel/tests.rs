//! Time is paused: it goes on by itself only when everything waits, so nothing here depends on how fast the machine is.

use std::future::{pending, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, ready};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, DuplexStream, ReadBuf, duplex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::way::BUFFER;
use super::*;

const IDLE: Duration = Duration::from_secs(60);
const PIPE: usize = 64 * 1024;

struct Joined {
    client: DuplexStream,
    upstream: DuplexStream,
    end: oneshot::Sender<Ending>,
    tunnel: JoinHandle<Summary>,
}

impl Joined {
    fn new(protocol: Protocol) -> Self {
        Self::with_pipe(protocol, PIPE)
    }

    fn with_pipe(protocol: Protocol, pipe: usize) -> Self {
        let (client, to_client) = duplex(pipe);
        let (upstream, to_upstream) = duplex(pipe);
        let (end, ended) = oneshot::channel();
        let ended = async {
            match ended.await {
                Ok(ending) => ending,
                Err(_) => pending().await,
            }
        };
        let tunnel = tokio::spawn(join(to_client, to_upstream, protocol, IDLE, ended));
        Self { client, upstream, end, tunnel }
    }
}

/// An unmasked frame that is not the last of its message, or is.
fn server_frame(last: bool, length: usize) -> Vec<u8> {
    let mut frame = vec![if last { 0x82 } else { 0x02 }, 127];
    frame.extend((length as u64).to_be_bytes());
    frame.resize(frame.len() + length, 0xff);
    frame
}

fn client_frame(length: u8) -> Vec<u8> {
    let mut frame = vec![0x82, 0x80 | length, 1, 2, 3, 4];
    frame.resize(frame.len() + usize::from(length), 0xff);
    frame
}

/// The code and reason of a Close frame.
fn read_close(frame: &[u8]) -> (u16, String) {
    assert_eq!(frame[0], 0x88, "a Close: {frame:?}");
    let is_masked = frame[1] & 0x80 != 0;
    let content: Vec<u8> = if is_masked {
        frame[6..].iter().zip(frame[2..6].iter().cycle()).map(|(byte, key)| byte ^ key).collect()
    } else {
        frame[2..].to_vec()
    };
    assert_eq!(content.len(), usize::from(frame[1] & 0x7f), "nothing after it");
    (u16::from_be_bytes([content[0], content[1]]), String::from_utf8(content[2..].to_vec()).unwrap())
}

async fn read(from: &mut DuplexStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await.unwrap();
    bytes
}

async fn read_all(from: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_both_ways_and_are_counted() {
    let Joined { mut client, mut upstream, end: _end, tunnel } = Joined::new(Protocol::Other);
    for n in 0..50_u8 {
        let sent = vec![n; 1000 * usize::from(n) + 1];
        client.write_all(&sent).await.unwrap();
        assert_eq!(read(&mut upstream, sent.len()).await, sent);
        upstream.write_all(&sent[..1]).await.unwrap();
        assert_eq!(read(&mut client, 1).await, [n]);
    }
    drop((client, upstream));
    let to_upstream = (0..50).map(|n| 1000 * n + 1).sum();
    assert_eq!(tunnel.await.unwrap(), Summary { outcome: Outcome::Closed, to_upstream, to_client: 50 });
}

#[tokio::test(start_paused = true)]
async fn the_end_of_one_direction_is_passed_on_and_the_other_goes_on() {
    for protocol in [Protocol::Other, Protocol::WebSocket] {
        let Joined { mut client, mut upstream, end: _end, tunnel } = Joined::new(protocol);
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut upstream).await, b"question");
        upstream.write_all(b"answer").await.unwrap();
        assert_eq!(read(&mut client, 6).await, b"answer");
        upstream.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, b"");
        assert_eq!(tunnel.await.unwrap(), Summary { outcome: Outcome::Closed, to_upstream: 8, to_client: 6 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_in_which_nothing_moves_is_closed() {
    let Joined { mut client, mut upstream, end: _end, tunnel } = Joined::new(Protocol::Other);
    let began = Instant::now();
    for _ in 0..3 {
        sleep(Duration::from_secs(50)).await;
        client.write_all(b"x").await.unwrap();
        read(&mut upstream, 1).await;
    }
    assert_eq!(read_all(&mut upstream).await, b"");
    assert_eq!(began.elapsed().as_secs(), 3 * 50 + 60, "each byte gives another 60 s");
    assert_eq!(read_all(&mut client).await, b"");
    assert_eq!(tunnel.await.unwrap().outcome, Outcome::Idle);
}

#[tokio::test(start_paused = true)]
async fn an_idle_websocket_is_told_so() {
    let Joined { mut client, mut upstream, end: _end, tunnel } = Joined::new(Protocol::WebSocket);
    assert_eq!(read_close(&read_all(&mut client).await), (1001, "idle".into()));
    assert_eq!(read_close(&read_all(&mut upstream).await), (1001, String::new()));
    assert_eq!(tunnel.await.unwrap(), Summary { outcome: Outcome::Idle, to_upstream: 0, to_client: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_cuts_anything_but_a_websocket_at_once() {
    for ending in [Ending::Expired, Ending::Revoked, Ending::Shutdown] {
        let Joined { mut client, mut upstream, end, tunnel } = Joined::new(Protocol::Other);
        client.write_all(b"x").await.unwrap();
        read(&mut upstream, 1).await;
        let began = Instant::now();
        end.send(ending).unwrap();
        assert_eq!(read_all(&mut client).await, b"");
        assert_eq!(read_all(&mut upstream).await, b"");
        assert_eq!(tunnel.await.unwrap(), Summary { outcome: Outcome::Ended(ending), to_upstream: 1, to_client: 0 });
        assert!(began.elapsed() < Duration::from_millis(10));
    }
}

#[tokio::test(start_paused = true)]
async fn a_websocket_is_told_why_it_ends() {
    for (ending, code, reason) in [
        (Ending::Expired, 4401, "token expired"),
        (Ending::Revoked, 4401, "token revoked"),
        (Ending::Shutdown, 1001, "going away"),
    ] {
        let Joined { mut client, mut upstream, end, tunnel } = Joined::new(Protocol::WebSocket);
        let began = Instant::now();
        end.send(ending).unwrap();
        let close = read(&mut client, 4 + reason.len()).await;
        assert_eq!(read_close(&close), (code, reason.into()));
        let close = read(&mut upstream, 8).await;
        assert_eq!(close[1], 0x82, "masked, as from any client");
        assert_eq!(read_close(&close), (1001, String::new()));
        // Both answer, and then nobody waits for anything.
        client.write_all(&close_frame(code, "", Some([1, 2, 3, 4]))).await.unwrap();
        upstream.write_all(&close_frame(1001, "", None)).await.unwrap();
        assert_eq!(read_all(&mut client).await, b"");
        assert_eq!(read_all(&mut upstream).await, b"");
        assert_eq!(tunnel.await.unwrap().outcome, Outcome::Ended(ending));
        assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_frame_under_way_arrives_whole_before_the_close() {
    let Joined { mut client, mut upstream, end, tunnel } = Joined::new(Protocol::WebSocket);
    let frame = server_frame(false, 300_000);
    upstream.write_all(&frame[..9]).await.unwrap();
    assert_eq!(read(&mut client, 9).await, frame[..9], "cut within the header");
    end.send(Ending::Expired).unwrap();
    let writer = tokio::spawn(async move {
        for part in frame[9..].chunks(70_000) {
            sleep(Duration::from_millis(500)).await;
            upstream.write_all(part).await.unwrap();
        }
        // The next fragment of the same message is not passed on: control frames may stand between fragments.
        upstream.write_all(&server_frame(true, 100)).await.unwrap();
        upstream
    });
    let received = read_all(&mut client).await;
    let frame = server_frame(false, 300_000);
    assert_eq!(received[..frame.len() - 9], frame[9..]);
    assert_eq!(read_close(&received[frame.len() - 9..]), (4401, "token expired".into()));
    drop(writer.await.unwrap());
    let summary = tunnel.await.unwrap();
    assert_eq!((summary.outcome, summary.to_client), (Outcome::Ended(Ending::Expired), frame.len() as u64));
}

#[tokio::test(start_paused = true)]
async fn what_was_read_beyond_the_frame_under_way_is_not_passed_on() {
    // The pipe to the client is narrow, so that the tunnel holds the end of one frame and the whole of others.
    let Joined { mut client, mut upstream, end, tunnel } = Joined::with_pipe(Protocol::WebSocket, 100);
    let frame = server_frame(true, 150);
    let both = [frame.clone(), server_frame(true, 10), server_frame(true, 20)].concat();
    let writer = tokio::spawn(async move {
        upstream.write_all(&both).await.unwrap();
        upstream
    });
    let mut received = read(&mut client, 20).await;
    end.send(Ending::Expired).unwrap();
    received.extend(read_all(&mut client).await);
    assert_eq!(received[..frame.len()], frame);
    assert_eq!(read_close(&received[frame.len()..]), (4401, "token expired".into()));
    drop(writer.await.unwrap());
    tunnel.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_within_a_frame_may_finish_it_and_the_upstream_gets_it_whole() {
    let Joined { mut client, mut upstream, end, tunnel } = Joined::new(Protocol::WebSocket);
    let frame = client_frame(100);
    client.write_all(&frame[..50]).await.unwrap();
    assert_eq!(read(&mut upstream, 50).await, frame[..50]);
    end.send(Ending::Expired).unwrap();
    assert_eq!(read_close(&read(&mut client, 17).await).0, 4401, "the client is told without delay");
    sleep(Duration::from_secs(3)).await;
    let rest = [&frame[50..], &client_frame(5), &close_frame(4401, "", Some([5, 6, 7, 8]))].concat();
    client.write_all(&rest).await.unwrap();
    assert_eq!(read_all(&mut client).await, b"");
    let received = read_all(&mut upstream).await;
    assert_eq!(received[..56], frame[50..]);
    assert_eq!(
        read_close(&received[56..]),
        (1001, String::new()),
        "the gateway's Close, and nothing of what came after"
    );
    let summary = tunnel.await.unwrap();
    assert_eq!((summary.outcome, summary.to_upstream), (Outcome::Ended(Ending::Expired), frame.len() as u64));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_finishes_its_frame_is_closed_all_the_same() {
    let Joined { mut client, mut upstream, end, tunnel } = Joined::new(Protocol::WebSocket);
    client.write_all(&client_frame(100)[..50]).await.unwrap();
    read(&mut upstream, 50).await;
    let began = Instant::now();
    end.send(Ending::Expired).unwrap();
    assert_eq!(read_close(&read_all(&mut client).await).0, 4401);
    assert_eq!(read_all(&mut upstream).await, b"", "within a frame nothing can be said");
    assert_eq!(tunnel.await.unwrap().outcome, Outcome::Ended(Ending::Expired));
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_never_finishes_its_frame_leaves_the_client_without_a_close() {
    let Joined { mut client, mut upstream, end, tunnel } = Joined::new(Protocol::WebSocket);
    upstream.write_all(&server_frame(true, 100)[..60]).await.unwrap();
    read(&mut client, 60).await;
    let began = Instant::now();
    end.send(Ending::Expired).unwrap();
    assert_eq!(read_all(&mut client).await, b"", "it would be taken for content");
    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!(read_close(&read_all(&mut upstream).await).0, 1001);
    tunnel.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_a_close_is_waited_for_only_so_long() {
    let Joined { mut client, upstream: _upstream, end, tunnel } = Joined::new(Protocol::WebSocket);
    let began = Instant::now();
    end.send(Ending::Revoked).unwrap();
    // It goes on talking as if nothing had been said.
    client.write_all(&client_frame(10)).await.unwrap();
    assert_eq!(read_close(&read_all(&mut client).await).0, 4401);
    assert_eq!(began.elapsed().as_secs(), 2);
    assert_eq!(tunnel.await.unwrap().to_upstream, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_need_not_wait_for_the_upstream() {
    let Joined { mut client, upstream: _upstream, end, tunnel } = Joined::new(Protocol::WebSocket);
    let began = Instant::now();
    end.send(Ending::Revoked).unwrap();
    read(&mut client, 17).await;
    client.write_all(&close_frame(4401, "", Some([1, 2, 3, 4]))).await.unwrap();
    assert_eq!(read_all(&mut client).await, b"");
    assert!(began.elapsed() < Duration::from_millis(10));
    tunnel.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_cannot_keep_the_tunnel_from_ending() {
    let Joined { client: _client, mut upstream, end, tunnel } = Joined::with_pipe(Protocol::WebSocket, 100);
    let writer = tokio::spawn(async move { while upstream.write_all(&server_frame(true, 1000)).await.is_ok() {} });
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    end.send(Ending::Revoked).unwrap();
    assert_eq!(tunnel.await.unwrap().outcome, Outcome::Ended(Ending::Revoked));
    assert!(began.elapsed() <= FRAME_WITHIN + CLOSE_WITHIN + SHUT_WITHIN);
    writer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_a_close_of_the_servers_own_there_is_no_second_one() {
    let Joined { mut client, mut upstream, end, tunnel } = Joined::new(Protocol::WebSocket);
    let close = close_frame(1000, "done", None);
    upstream.write_all(&close).await.unwrap();
    assert_eq!(read(&mut client, close.len()).await, close);
    end.send(Ending::Expired).unwrap();
    assert_eq!(read_all(&mut client).await, b"");
    assert_eq!(read_close(&read_all(&mut upstream).await).0, 1001);
    tunnel.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_goes_is_noticed_by_the_client() {
    let Joined { mut client, mut upstream, end: _end, tunnel } = Joined::new(Protocol::WebSocket);
    upstream.write_all(b"\x82\x02hi").await.unwrap();
    drop(upstream);
    assert_eq!(read_all(&mut client).await, b"\x82\x02hi");
    drop(client);
    assert_eq!(tunnel.await.unwrap().outcome, Outcome::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_nothing_any_more_is_lost_when_it_has_said_all() {
    let Joined { mut client, upstream, end: _end, tunnel } = Joined::new(Protocol::Other);
    drop(upstream);
    // Its end was passed on, and what the client says has nowhere to go.
    assert_eq!(read_all(&mut client).await, b"");
    client.write_all(b"anyone?").await.unwrap();
    let summary = tunnel.await.unwrap();
    assert_eq!(summary, Summary { outcome: Outcome::UpstreamLost, to_upstream: 0, to_client: 0 });
}

/// A connection that can break where it would end, and that tells whether it was shut: that its peer was told of an end.
struct Watched {
    io: DuplexStream,
    breaks: bool,
    shut: Arc<AtomicBool>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let broken = self.breaks && buf.filled().is_empty();
        Poll::Ready(if broken { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) })
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut.store(true, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn watched(breaks: bool) -> (DuplexStream, Watched, Arc<AtomicBool>) {
    let (near, io) = duplex(PIPE);
    let shut = Arc::new(AtomicBool::new(false));
    (near, Watched { io, breaks, shut: Arc::clone(&shut) }, shut)
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_breaks_the_other_and_says_whose_it_was() {
    for upstream_breaks in [true, false] {
        let (mut near, breaks, _) = watched(true);
        let (mut far, holds, shut) = watched(false);
        let tunnel = tokio::spawn(async move {
            if upstream_breaks {
                join(holds, breaks, Protocol::WebSocket, IDLE, pending()).await
            } else {
                join(breaks, holds, Protocol::WebSocket, IDLE, pending()).await
            }
        });
        near.write_all(b"\x82\x05half").await.unwrap();
        drop(near);
        assert_eq!(read_all(&mut far).await, b"\x82\x05half", "what was said before arrives");
        let lost = if upstream_breaks { Outcome::UpstreamLost } else { Outcome::ClientLost };
        assert_eq!(tunnel.await.unwrap().outcome, lost);
        assert!(!shut.load(Ordering::Relaxed), "that would tell it of an end");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_told_why_is_told_of_the_end_and_who_is_cut_off_is_not() {
    for (protocol, is_told) in [(Protocol::WebSocket, true), (Protocol::Other, false)] {
        let (_client, to_client, client_shut) = watched(false);
        let (_upstream, to_upstream, upstream_shut) = watched(false);
        join(to_client, to_upstream, protocol, IDLE, ready(Ending::Expired)).await;
        assert_eq!(client_shut.load(Ordering::Relaxed), is_told, "{protocol:?}");
        assert_eq!(upstream_shut.load(Ordering::Relaxed), is_told, "{protocol:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_stops_the_writer() {
    let Joined { mut client, mut upstream, end: _end, tunnel } = Joined::new(Protocol::Other);
    let mut written: usize = 0;
    while let Ok(taken) = timeout(Duration::from_secs(1), upstream.write(&[7; 1000])).await {
        written += taken.unwrap();
        assert!(written <= 2 * PIPE + BUFFER, "more than the pipes and one buffer hold");
    }
    assert!(written >= 2 * PIPE, "{written}");
    drop(upstream);
    assert_eq!(read_all(&mut client).await, vec![7; written]);
    drop(client);
    assert_eq!(tunnel.await.unwrap().to_client, written as u64);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_is_dropped_closes_both() {
    let Joined { mut client, mut upstream, end: _end, tunnel } = Joined::new(Protocol::WebSocket);
    tunnel.abort();
    assert!(tunnel.await.unwrap_err().is_cancelled());
    assert_eq!(read_all(&mut client).await, b"");
    assert_eq!(read_all(&mut upstream).await, b"");
}

/// What a client gets that is cut off after some of the upstream's writes.
async fn cut_after(stream: &[u8], writes: usize, size: usize, pipe: usize) -> Vec<u8> {
    let Joined { mut client, mut upstream, end, tunnel } = Joined::with_pipe(Protocol::WebSocket, pipe);
    let reader = tokio::spawn(async move {
        let received = read_all(&mut client).await;
        (received, client)
    });
    let mut end = Some(end);
    for (n, part) in stream.chunks(size).enumerate() {
        if n == writes {
            let _ = end.take().expect("once").send(Ending::Revoked);
        }
        if upstream.write_all(part).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    if let Some(end) = end {
        let _ = end.send(Ending::Revoked);
    }
    let (received, client) = reader.await.unwrap();
    drop((client, upstream));
    assert_eq!(tunnel.await.unwrap().outcome, Outcome::Ended(Ending::Revoked));
    received
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_close_always_stands_between_two_frames(
        lengths in prop::collection::vec(prop_oneof![0_usize..20, 0_usize..40_000], 1..6),
        writes in 0_usize..8,
        size in prop_oneof![1_usize..400, 400_usize..30_000],
        pipe in prop_oneof![1_usize..64, 64_usize..40_000],
    ) {
        let frames: Vec<Vec<u8>> = lengths.iter().map(|length| server_frame(true, *length)).collect();
        let stream = frames.concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let received = runtime.block_on(cut_after(&stream, writes, size, pipe));
        let close = received.len().checked_sub(17).expect("a Close");
        prop_assert_eq!(&received[..close], &stream[..close]);
        prop_assert_eq!(read_close(&received[close..]), (4401, "token revoked".to_owned()));
        let mut borders = frames.iter().scan(0, |at, frame| { *at += frame.len(); Some(*at) });
        prop_assert!(close == 0 || borders.any(|border| border == close), "{} is no border", close);
    }
}
