//! How far a request's content has come. Whoever reads the content tells, and the limit of the answer's time is counted
//! from there: an upload of gigabytes may take long, and a target that has it all may not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::lease::Slot;

/// The progress of one request's content.
#[derive(Debug)]
pub struct Pulse {
    began: Instant,
    /// Milliseconds since it began.
    last: AtomicU64,
    ended: AtomicBool,
    failed: AtomicBool,
    stopped: AtomicBool,
    /// Who waits for the head of the answer.
    waiter: Mutex<Option<Waker>>,
    /// The place of the request, which content on its way takes even when the answer is over: it holds a connection.
    slot: Mutex<Option<Arc<Slot>>>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

impl Pulse {
    /// Nothing has been read yet.
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            waiter: Mutex::default(),
            slot: Mutex::default(),
        }
    }

    /// Keeps the place of the request until the content is over.
    pub(super) fn hold(&self, slot: &Arc<Slot>) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(slot));
    }

    /// The content is over, or nobody sends it any more.
    pub(super) fn let_go(&self) {
        drop(self.slot.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Some of the content was read.
    pub fn bump(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Release);
    }

    /// The content was read to its end.
    pub fn end(&self) {
        self.bump();
        self.ended.store(true, Ordering::Release);
        self.let_go();
    }

    /// The content failed: the client went away, or sent too much or too slowly. The target is not to blame for what follows.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        self.let_go();
    }

    /// Nobody is to wait for the answer any more. Content that the target does not take is not read, so this cannot be told
    /// by an error in it.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// When something was last read.
    pub fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Acquire))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The same; wakes whoever asks when it comes to that.
    pub(super) fn poll_stopped(&self, cx: &mut Context<'_>) -> bool {
        {
            let mut waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner);
            if !waiter.as_ref().is_some_and(|waiter| waiter.will_wake(cx.waker())) {
                *waiter = Some(cx.waker().clone());
            }
        }
        // It may have come to that before the waker was there.
        self.has_stopped()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_told_to_stop() {
        let pulse = Pulse::new();
        let stopped = poll_fn(|cx| if pulse.poll_stopped(cx) { Poll::Ready(()) } else { Poll::Pending });
        tokio::join!(stopped, async {
            tokio::task::yield_now().await;
            assert!(!pulse.has_stopped());
            pulse.stop();
        });
        assert!(pulse.has_stopped() && !pulse.has_failed() && !pulse.has_ended());
    }
}
