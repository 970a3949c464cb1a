//! Notices that a licence is about to end, and that it has: which are due, whose they are to send, and how often one is tried.
//!
//! Every gateway looks at the clock. What is due is claimed inside an atomic update of the store, so that of several gateways
//! one sends it; a claim that is not settled lapses, and then the attempt is anyone's. So a notice goes into the log once, and
//! to the webhook at least once, always under the same message id. How it travels is for whoever delivers.

mod due;
mod notifier;

use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::ids::LicenceId;
use crate::licences::Licence;
use crate::persist::Result;

pub use due::due;
pub use notifier::{Deliver, Notifier, Undelivered, keep_noticed};

/// Settings of `[notices]` but the webhook's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long before a licence's end there is a notice; there always is one at the end itself.
    pub before_end: Vec<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self { before_end: vec![30 * DAY, 7 * DAY, DAY] }
    }
}

/// Which notice: of which licence, of which end of it, how long ahead. An end that is moved makes others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Occasion {
    /// The licence.
    pub licence: LicenceId,
    /// Its end.
    pub ends_at: Timestamp,
    /// How long before that; zero is the end itself.
    pub ahead: Duration,
}

/// Where a notice is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeState {
    /// Somebody is at it, or will be.
    Open,
    /// It was delivered, or there was nowhere to deliver it to.
    Sent,
    /// It was tried as often as anything is.
    GivenUp,
}

/// A notice that a gateway has taken upon itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Which one.
    pub occasion: Occasion,
    /// The message's id, the same in every attempt.
    pub message: String,
    /// Where it is on its way.
    pub state: NoticeState,
    /// How many attempts were begun.
    pub attempts: u32,
    /// From then on the next attempt is anyone's.
    pub next_at: Timestamp,
}

/// Durable notices. They are not in the feed: nobody follows them.
#[async_trait]
pub trait NoticeStore: Send + Sync {
    /// The licences that end after one instant and no later than another, by their end and id.
    async fn licences_ending(&self, after: Timestamp, until: Timestamp) -> Result<Vec<Licence>>;
    /// The notices of ends after an instant.
    async fn notices(&self, after: Timestamp) -> Result<Vec<Notice>>;
    /// Replaces a notice, or makes it, by an atomic function of what there is; `None` leaves that. Returns what was written.
    /// The occasion never changes.
    async fn update_notice(
        &self,
        occasion: &Occasion,
        change: &(dyn Fn(Option<Notice>) -> Option<Notice> + Send + Sync),
    ) -> Result<Option<Notice>>;
    /// Drops the notices of ends at or before an instant, and says how many.
    async fn forget_notices(&self, until: Timestamp) -> Result<u64>;
}
