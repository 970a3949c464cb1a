//! Contents far larger than memory should ever hold, in both directions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::Method;

use crate::backend::{Backend, Zeros};
use crate::caller::{Line, drain, whole};
use crate::files::alone;
use crate::scene::{Scene, route_to};

const BYTES: u64 = 2 << 30;

/// The most that memory may grow by meanwhile, in KiB.
const MOST: u64 = 64 << 10;

/// What takes longer hangs: it is some ten seconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn an_upload_of_two_gibibytes_passes_through_flat_memory() {
    passes("up", false);
}

#[test]
fn an_upload_of_two_gibibytes_passes_through_flat_memory_by_http_2() {
    passes("up", true);
}

#[test]
fn a_download_of_two_gibibytes_passes_through_flat_memory() {
    passes("down", false);
}

#[test]
fn a_download_of_two_gibibytes_passes_through_flat_memory_by_http_2() {
    passes("down", true);
}

#[track_caller]
fn passes(way: &str, by_http2: bool) {
    let _alone = alone();
    let backend = Backend::start();
    let scene = Scene::new(&route_to(&[backend.url()], "keep_alive = \"500ms\"\n"));
    assert_eq!(scene.runtime.block_on(scene.caller.get("/api/quick")).status, 200);
    let before = scene.server.process.resident_kib();
    let (began, done) = (Instant::now(), AtomicBool::new(false));
    let (passed, peak) = std::thread::scope(|scope| {
        let peak = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(scene.server.process.resident_kib());
                std::thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        let passed = scene.runtime.block_on(async {
            let line = if by_http2 { scene.caller.two().await } else { scene.caller.one().await };
            tokio::time::timeout(LIMIT, pass(&scene, line, way == "up")).await
        });
        done.store(true, Ordering::Relaxed);
        (passed, peak.join().unwrap())
    });
    let (took, grown) = (began.elapsed(), peak.saturating_sub(before));
    let version = if by_http2 { "2" } else { "1.1" };
    println!("HTTP/{version} {way}: {} MiB in {took:?}, memory grew by {grown} KiB", BYTES >> 20);
    assert_eq!(passed.expect("in time"), BYTES);
    assert!(grown < MOST, "memory grew by {grown} KiB");
    scene.until_at_rest(&backend);
    scene.server.stop();
}

/// Sends so much, or fetches it; how much came to the other end.
async fn pass(scene: &Scene, mut line: Line, is_upload: bool) -> u64 {
    if is_upload {
        let request = scene.caller.request(Method::POST, "/api/upload", Body::new(Zeros { left: BYTES }));
        let answer = whole(line.send(request).await.expect("an answer")).await.expect("the whole of it");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        return text.trim_start_matches("upload ").parse().unwrap_or_else(|_| panic!("{text}"));
    }
    let request = scene.caller.request(Method::GET, &format!("/api/bytes/{BYTES}"), Body::empty());
    let answer = line.send(request).await.expect("an answer");
    drain(answer.into_body()).await.expect("the whole of it")
}
