//! Life and readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::follow::Follower;

/// Whether requests should be sent here.
#[derive(Debug)]
pub struct Health {
    follower: Arc<Follower>,
    draining: AtomicBool,
}

impl Health {
    /// Ready as long as the store answers and nobody asked the process to end.
    pub fn new(follower: Arc<Follower>) -> Self {
        Self { follower, draining: AtomicBool::new(false) }
    }

    /// The process was asked to end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether requests should be sent here.
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Acquire) && self.follower.is_reachable()
    }
}
