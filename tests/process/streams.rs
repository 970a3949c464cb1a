//! Thousands of streams and tunnels at once: that they are held cheaply, all end when their token does, and leave nothing.

use std::time::{Duration, Instant};

use axum::body::Body;
use http::Method;
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use crate::backend::Backend;
use crate::caller::{Caller, Line, close_code, frame, whole};
use crate::files::{alone, open_files};
use crate::poll::{PATIENCE, until};
use crate::scene::{Scene, route_to};

const LINES: usize = 100;

/// All that a revocation ends is over so soon after its command: 2 s, and the time between two looks at the store and at
/// what is under way. A debug build beside other tests takes its time for ten thousand of them.
const ENDED: Duration = if cfg!(debug_assertions) { PATIENCE } else { Duration::from_millis(2500) };

/// A stream that is open, and ends at some time.
type Ending = JoinHandle<Result<Instant, String>>;

/// Many streams of events over HTTP/2. Each has got its first event when this returns.
async fn open_streams(caller: &Caller, each: usize) -> (Vec<Line>, Vec<Ending>) {
    let lines: Vec<JoinHandle<(Line, Vec<Ending>)>> = (0..LINES)
        .map(|_| {
            let caller = caller.clone();
            tokio::spawn(async move {
                let line = caller.two().await;
                let mut endings = Vec::with_capacity(each);
                for _ in 0..each {
                    let request = caller.request(Method::GET, "/api/events", Body::empty());
                    let answer = line.share().send(request).await.expect("an answer");
                    assert_eq!(answer.status(), 200);
                    let mut body = answer.into_body();
                    let event = body.frame().await.expect("an event").expect("an event");
                    assert_eq!(&event.into_data().expect("data")[..], b"data: hello\n\n");
                    endings.push(tokio::spawn(async move {
                        match body.frame().await {
                            Some(Err(_)) => Ok(Instant::now()),
                            other => Err(format!("no reset: {other:?}")),
                        }
                    }));
                }
                (line, endings)
            })
        })
        .collect();
    let (mut kept, mut endings) = (Vec::new(), Vec::new());
    for line in lines {
        let (line, its) = line.await.expect("no panic");
        kept.push(line);
        endings.extend(its);
    }
    (kept, endings)
}

/// Revokes all tokens, and says how long after the command's end the last of `endings` came.
fn revoke(scene: &Scene, endings: Vec<Ending>) -> Duration {
    assert!(endings.iter().all(|ending| !ending.is_finished()), "all are open");
    let revoked = scene.installation.run(&["tokens", "revoke", "--all"]);
    assert_eq!(revoked.code(), Some(0), "{revoked}");
    let ended = scene.runtime.block_on(async {
        let mut last = revoked.at;
        for ending in endings {
            let ended = tokio::time::timeout(PATIENCE, ending).await;
            last = last.max(ended.expect("it ends").expect("no panic").expect("it is told why"));
        }
        last
    });
    ended - revoked.at
}

#[test]
fn ten_thousand_streams_end_with_their_token_and_leave_nothing() {
    let _alone = alone();
    let each = match open_files() {
        12_000.. => 100,
        few => {
            println!("SKIPPED in part: the limit of open files allows {few}, and 10000 streams need 12000");
            few.saturating_sub(500) / LINES / 2
        }
    };
    let backend = Backend::start();
    let more = "max_requests = 20000\nidle_timeout = \"10m\"\nkeep_alive = \"500ms\"\nretries = 0\n";
    let mut scene = Scene::new(&route_to(&[backend.url()], more));
    assert_eq!(scene.runtime.block_on(scene.caller.get("/api/quick")).status, 200);
    scene.until_at_rest(&backend);
    let at_rest = scene.server.metric("keybearer_connections");
    let memory = || scene.server.process.resident_kib();
    let (before, mut peaks, mut cut) = (memory(), Vec::new(), 0);
    // The second wave must find room in what the first one took: the allocator keeps that, in pieces.
    for each in [each, each / 4] {
        let count = each * LINES;
        let (began, at_start) = (Instant::now(), memory());
        let (lines, endings) = scene.runtime.block_on(open_streams(&scene.caller, each));
        let opened = began.elapsed();
        until("all are counted", || scene.of_upstream("requests_in_flight") == count as f64);
        assert_eq!(scene.server.metric("keybearer_flows_under_way"), count as f64);
        assert_eq!(scene.of_upstream("connections"), count as f64);
        let peak = scene.server.process.resident_kib();
        let took = revoke(&scene, endings);
        println!(
            "{count} streams: open in {opened:?}, {:.1} KiB each ({at_start} to {peak} KiB), all ended {took:?} \
             after the revocation",
            peak.saturating_sub(at_start) as f64 / count as f64,
        );
        assert!(took < ENDED, "{took:?}");
        cut += count;
        assert_eq!(scene.cuts("token_revoked"), cut as f64);
        scene.until_at_rest(&backend);
        drop(lines);
        until("the clients are counted out", || scene.server.metric("keybearer_connections") <= at_rest);
        println!("after it: {} KiB", scene.server.process.resident_kib());
        peaks.push(peak);
        // The next ones need a token from after the revocation.
        let token = scene.server.client().with_key(&scene.customer.key).token();
        scene.caller = Caller::new(&scene.installation, &scene.server, &token);
    }
    let lost = (peaks[0] - before) / 4;
    assert!(peaks[1] < peaks[0] + lost / 2, "of what the first wave took more than half is lost: {peaks:?}");
    scene.server.stop();
}

#[test]
fn a_thousand_web_sockets_are_told_that_their_token_was_revoked() {
    const COUNT: usize = 1000;
    let _alone = alone();
    if open_files() < 3 * COUNT {
        println!("SKIPPED: the limit of open files is below {}", 3 * COUNT);
        return;
    }
    let backend = Backend::start();
    let more = "max_requests = 2000\nidle_timeout = \"10m\"\nkeep_alive = \"500ms\"\n";
    let scene = Scene::new(&route_to(&[backend.url()], more));
    assert_eq!(scene.runtime.block_on(scene.caller.get("/api/quick")).status, 200);
    scene.until_at_rest(&backend);
    let (at_rest, before) = (scene.server.metric("keybearer_connections"), scene.server.process.resident_kib());
    let began = Instant::now();
    let endings: Vec<Ending> = scene.runtime.block_on(async {
        let mut endings = Vec::with_capacity(COUNT);
        let turns = std::sync::Arc::new(tokio::sync::Semaphore::new(50));
        let opening: Vec<_> = (0..COUNT)
            .map(|_| {
                let (caller, turns) = (scene.caller.clone(), std::sync::Arc::clone(&turns));
                tokio::spawn(async move {
                    let _turn = turns.acquire().await.expect("never closed");
                    let mut tls = caller.web_socket("/api/ws").await.expect("a WebSocket");
                    // A text frame, and the answer to it.
                    tls.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'o']).await.expect("sent");
                    assert_eq!(frame(&mut tls).await.expect("a frame"), (1, b"hi".to_vec()));
                    tls
                })
            })
            .collect();
        for tls in opening {
            let mut tls = tls.await.expect("no panic");
            endings.push(tokio::spawn(async move {
                match close_code(&mut tls).await {
                    Ok(4401) => {}
                    other => return Err(format!("{other:?}")),
                }
                let at = Instant::now();
                let _ = tls.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await;
                let _ = tls.shutdown().await;
                Ok(at)
            }));
        }
        endings
    });
    let opened = began.elapsed();
    until("all are counted", || scene.server.metric("keybearer_tunnels") == COUNT as f64);
    assert_eq!(scene.of_upstream("requests_in_flight"), COUNT as f64);
    let peak = scene.server.process.resident_kib();
    let took = revoke(&scene, endings);
    println!(
        "{COUNT} tunnels: open in {opened:?}, {:.1} KiB each ({before} to {peak} KiB), the last was told {took:?} after the \
         revocation",
        (peak - before) as f64 / COUNT as f64,
    );
    assert!(took < ENDED, "{took:?}");
    scene.until_at_rest(&backend);
    until("the clients are counted out", || scene.server.metric("keybearer_connections") <= at_rest);
    assert_eq!(backend.seen.closes.load(std::sync::atomic::Ordering::Relaxed), COUNT, "the upstream is told too");
    scene.server.stop();
}

/// A client may keep its HTTP/2 windows shut; it keeps neither the upstream nor its own connection by that.
#[test]
fn answers_that_nobody_takes_are_let_go() {
    const STREAMS: usize = 100;
    let backend = Backend::start();
    let config = format!(
        "[limits]\nidle_timeout = \"3s\"\n\n{}",
        route_to(&[backend.url()], "idle_timeout = \"1s\"\nkeep_alive = \"500ms\"\n")
    );
    let scene = Scene::new(&config);
    let at_rest = scene.server.metric("keybearer_connections");
    // From the beginning, or after some of each answer; long answers, and short ones, which the gateway has whole at once.
    for (window, bytes, cut) in [(Some(0), 10_000_000, STREAMS), (None, 10_000_000, STREAMS), (Some(0), 1000, 0)] {
        let (seen, cuts) = (backend.requests(), scene.cuts("idle"));
        let line = scene.runtime.block_on(scene.caller.two_with(|builder| {
            if let Some(window) = window {
                builder.initial_stream_window_size(window);
            }
        }));
        let path = format!("/api/bytes/{bytes}");
        let answers: Vec<_> = (0..STREAMS)
            .map(|_| {
                let (mut line, request) = (line.share(), scene.caller.request(Method::GET, &path, Body::empty()));
                scene.runtime.spawn(async move { line.send(request).await.expect("an answer") })
            })
            .collect();
        let answers: Vec<_> = scene.runtime.block_on(async {
            let mut heads = Vec::new();
            for answer in answers {
                heads.push(answer.await.expect("no panic"));
            }
            heads
        });
        assert!(answers.iter().all(|answer| answer.status() == 200));
        assert_eq!(backend.requests(), seen + STREAMS);
        // Others are served meanwhile.
        for mut line in scene.runtime.block_on(async { [scene.caller.one().await, scene.caller.two().await] }) {
            let request = scene.caller.request(Method::GET, "/api/quick", Body::empty());
            let answer = scene.runtime.block_on(async { whole(line.send(request).await?).await });
            assert_eq!(answer.expect("an answer").status, 200);
        }
        let began = Instant::now();
        scene.until_at_rest(&backend);
        let at_upstream = began.elapsed();
        assert_eq!(scene.cuts("idle"), cuts + cut as f64, "window {window:?}, {bytes} bytes");
        until("the connection is closed", || scene.server.metric("keybearer_connections") <= at_rest);
        println!(
            "window {window:?}, {bytes} bytes: the upstream is let go after {at_upstream:?}, the client after {:?}",
            began.elapsed()
        );
        drop((answers, line));
    }
    let text = scene.server.admin_client().call("GET", "/metrics", None).text();
    assert!(text.contains("keybearer_connections_closed_total{reason=\"idle\"} 3"), "{text}");
    scene.server.stop();
}
