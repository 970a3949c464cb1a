//! Life and readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::follow::Follower;
use super::time_watch::TimeWatch;

/// Whether requests should be sent here.
#[derive(Debug)]
pub struct Health {
    follower: Arc<Follower>,
    time: Arc<TimeWatch>,
    draining: AtomicBool,
}

impl Health {
    /// Ready as long as the store answers, the clock has not been set back where licence documents count on it, and nobody
    /// asked the process to end.
    pub fn new(follower: Arc<Follower>, time: Arc<TimeWatch>) -> Self {
        Self { follower, time, draining: AtomicBool::new(false) }
    }

    /// The process was asked to end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether requests should be sent here.
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Acquire) && self.follower.is_reachable() && !self.time.is_set_back()
    }
}
