//! How many attempts anew an upstream is given in all: a share of its requests, so that retries cannot multiply the load
//! of an upstream that is failing under load. Pure; knows no request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Thousandths of an attempt.
const WHOLE: u64 = 1000;

/// Unused share is kept up to so many attempts: a quiet hour must not pay for a storm.
const KEPT: u64 = 100 * WHOLE;

/// Attempts per second that are free besides, so that a quiet upstream may retry at all; also the most of them at once.
const FLOOR: f64 = 10.0;

/// A budget of attempts.
#[derive(Debug)]
pub(super) struct Budget {
    per_request: u64,
    saved: AtomicU64,
    floor: Mutex<(Instant, f64)>,
}

impl Budget {
    /// A budget of `percent` of the requests.
    pub fn new(percent: u32, now: Instant) -> Self {
        Self {
            per_request: u64::from(percent) * WHOLE / 100,
            saved: AtomicU64::new(0),
            floor: Mutex::new((now, FLOOR)),
        }
    }

    /// A request came: its share is put aside.
    pub fn deposit(&self) {
        // Two that come at once may leave a little more than is kept, once. That is of no consequence.
        if self.per_request > 0 && self.saved.load(Ordering::Relaxed) < KEPT {
            self.saved.fetch_add(self.per_request, Ordering::Relaxed);
        }
    }

    /// Whether one more attempt may be made at `now`; if so, it is taken from the budget.
    pub fn withdraw(&self, now: Instant) -> bool {
        let saved = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(WHOLE));
        if saved.is_ok() {
            return true;
        }
        let mut floor = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, left) = *floor;
        let left = (left + now.saturating_duration_since(since).as_secs_f64() * FLOOR).min(FLOOR);
        let enough = left >= 1.0;
        *floor = (now.max(since), if enough { left - 1.0 } else { left });
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn all(budget: &Budget, now: Instant) -> usize {
        (0..1000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn a_share_of_the_requests_and_a_floor_per_second() {
        let now = Instant::now();
        let budget = Budget::new(20, now);
        assert_eq!(all(&budget, now), 10, "the floor alone");
        for _ in 0..50 {
            budget.deposit();
        }
        assert_eq!(all(&budget, now), 10, "a fifth of fifty");
        assert_eq!(all(&budget, now + Duration::from_millis(500)), 5, "half a second of the floor");
        assert_eq!(all(&budget, now + Duration::from_secs(3600)), 10, "the floor is not saved up");
    }

    #[test]
    fn what_is_saved_has_a_bound() {
        let now = Instant::now();
        let budget = Budget::new(100, now);
        for _ in 0..10_000 {
            budget.deposit();
        }
        assert_eq!(all(&budget, now), 110);
    }

    #[test]
    fn zero_percent_leaves_the_floor() {
        let now = Instant::now();
        let budget = Budget::new(0, now);
        for _ in 0..10_000 {
            budget.deposit();
        }
        assert_eq!(all(&budget, now), 10);
    }
}
