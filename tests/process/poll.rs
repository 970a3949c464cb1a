//! Waiting for a condition, and never for longer than it may take.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Long enough for a debug build on a busy machine: what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What an operator is promised: a change is in force within this of its command's end.
pub const IN_FORCE: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(5);

/// The first `Some`; panics with `what` when there is none in time.
#[track_caller]
pub fn until_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        sleep(PAUSE);
    }
}

/// Waits until `holds`; panics with `what` when that takes too long.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    until_some(what, || holds().then_some(()));
}

/// Asserts that `holds`, when asked later than `limit` after `since` at the latest. What counts is when the question was
/// asked: how long a busy machine takes for the answer is another matter.
#[track_caller]
pub fn within(limit: Duration, since: Instant, what: &str, mut holds: impl FnMut() -> bool) {
    loop {
        let asked = since.elapsed();
        if holds() {
            return;
        }
        assert!(asked < limit, "not {limit:?} after the command ended: {what} (asked after {asked:?})");
        sleep(PAUSE);
    }
}
