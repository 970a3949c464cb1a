//! Contents far larger than memory should ever hold, in both directions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::Method;

use crate::backend::{Backend, Zeros};
use crate::caller::{drain, whole};
use crate::scene::{Scene, route_to};

/// A debug build takes its time.
const BYTES: u64 = if cfg!(debug_assertions) { 512 << 20 } else { 2 << 30 };

/// The most that memory may grow by meanwhile, in KiB.
const MOST: u64 = 64 << 10;

#[test]
fn large_contents_pass_through_flat_memory() {
    let backend = Backend::start();
    let scene = Scene::new(&route_to(&[backend.url()], ""));
    let done = Arc::new(AtomicBool::new(false));
    for version in [1, 2] {
        for upload in [true, false] {
            let before = scene.server.process.resident_kib();
            let began = Instant::now();
            done.store(false, Ordering::Relaxed);
            let passed = std::thread::scope(|scope| {
                let peak = scope.spawn(|| {
                    let mut peak = 0;
                    while !done.load(Ordering::Relaxed) {
                        peak = peak.max(scene.server.process.resident_kib());
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    peak
                });
                let passed = scene.runtime.block_on(async {
                    let mut line = if version == 1 { scene.caller.one().await } else { scene.caller.two().await };
                    let passing = async {
                        if upload {
                            let body = Body::new(Zeros { left: BYTES });
                            let request = scene.caller.request(Method::POST, "/api/upload", body);
                            let answer = whole(line.send(request).await.expect("an answer")).await.expect("the whole");
                            let text = String::from_utf8_lossy(&answer.body).into_owned();
                            text.trim_start_matches("upload ").parse().expect(&text)
                        } else {
                            let path = format!("/api/bytes/{BYTES}");
                            let request = scene.caller.request(Method::GET, &path, Body::empty());
                            let answer = line.send(request).await.expect("an answer");
                            drain(answer.into_body(), |_| {}).await.expect("the whole of it")
                        }
                    };
                    tokio::time::timeout(Duration::from_secs(60), passing).await
                });
                done.store(true, Ordering::Relaxed);
                (passed, peak.join().unwrap())
            });
            let (passed, peak) = passed;
            let way = if upload { "up" } else { "down" };
            let grown = peak.saturating_sub(before);
            println!("HTTP/{version} {way}: {} MiB in {:?}, memory grew by {grown} KiB", BYTES >> 20, began.elapsed());
            assert_eq!(passed.expect("within a minute"), BYTES);
            assert!(grown < MOST, "memory grew by {grown} KiB");
        }
    }
    scene.server.stop();
}
