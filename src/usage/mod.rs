//! Usage: how many requests, bytes and how much waiting, per account, credential, group, route, status class and hour.
//!
//! Owns what is counted and in which words, the cells that it is counted in, how they get into the store exactly once, and
//! the questions about it. Nothing of a request's content or path is kept: only its route. Refuses to know what HTTP is, who
//! may ask, and what anything costs.
//!
//! - A request counts in the hour (UTC) in which the head of its answer was ready, with the time it took to get there. Bytes
//!   are those of content, as it passes: those of a long stream count in the hours in which they pass.
//! - A refused request counts when it is known whose it was: a token that expired or does not reach the route, but no
//!   unknown one.
//! - The group is the first of the route's groups that the token reaches, when the request was let through by it; else none.
//! - What another proxy asks about counts under the route that was asked about, by the decision and without bytes.

mod counts;
mod flush;
mod ledger;
mod report;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::ids::{AccountName, GroupId, RouteId};
use crate::persist::Result;
use crate::tokens::Client;

pub use counts::{BUCKETS, Counts, Latency, bound};
pub use flush::{close, keep_flushed};
pub use ledger::{Event, Ledger, Spot};
pub use report::{By, Entry, Error, Filter, Label, Operations, Question, Range, Report, SOME_DAYS};

/// Settings of `[usage]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether anything is counted.
    pub enabled: bool,
    /// How long an hour's counts are kept.
    pub keep: Duration,
    /// How often what was counted in memory is written to the store.
    pub flush_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: true, keep: Duration::from_secs(400 * 86_400), flush_every: Duration::from_secs(10) }
    }
}

/// An hour, UTC: hours since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hour(pub u32);

impl Hour {
    /// The hour that `at` lies in.
    pub fn of(at: Timestamp) -> Self {
        Self(u32::try_from(at.secs() / 3600).unwrap_or(u32::MAX))
    }

    /// The first hour that does not begin before `at`.
    pub fn not_before(at: Timestamp) -> Self {
        let hour = Self::of(at);
        if hour.start() < at { hour.next() } else { hour }
    }

    /// When it begins.
    pub fn start(self) -> Timestamp {
        Timestamp::from_secs(u64::from(self.0) * 3600)
    }

    /// The hour after it.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The first hour of its day, UTC.
    pub fn day(self) -> Self {
        Self(self.0 / 24 * 24)
    }
}

/// The hundreds of a status code (RFC 9110 §15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusClass(u8);

impl StatusClass {
    /// The class of a status.
    pub fn of(status: u16) -> Self {
        Self(u8::try_from(status / 100).unwrap_or(5).clamp(1, 5))
    }

    /// Its digit.
    pub fn digit(self) -> u8 {
        self.0
    }
}

impl fmt::Display for StatusClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}xx", self.0)
    }
}

impl FromStr for StatusClass {
    type Err = &'static str;
    fn from_str(text: &str) -> std::result::Result<Self, &'static str> {
        match text.strip_suffix("xx").map(str::as_bytes) {
            Some(&[digit @ b'1'..=b'5']) => Ok(Self(digit - b'0')),
            _ => Err("a status class is 1xx, 2xx, 3xx, 4xx or 5xx"),
        }
    }
}

/// Whose requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// The account.
    pub account: AccountName,
    /// Which of its credentials.
    pub client: Client,
}

/// What is counted together within an hour.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Line {
    /// Whose requests; `None` for what there was no room to count by holder.
    pub holder: Option<Holder>,
    /// The group that let them through, if one did.
    pub group: Option<GroupId>,
    /// The route; `None` where the path was nobody's.
    pub route: Option<RouteId>,
    /// How they were answered.
    pub class: StatusClass,
}

impl Line {
    /// The line of everybody's requests beyond what there is room for: they are counted, and no longer told apart.
    pub fn other(class: StatusClass) -> Self {
        Self { holder: None, group: None, route: None, class }
    }
}

/// An hour's counts of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The hour.
    pub hour: Hour,
    /// The line.
    pub line: Line,
    /// What is to be added to it.
    pub counts: Counts,
}

/// What is written at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The gateway process it comes from.
    pub gateway: String,
    /// Its number among the batches of that process: they are written in order, from 1 on.
    pub number: u64,
    /// When it was made.
    pub at: Timestamp,
    /// No two of the same hour and line.
    pub rows: Vec<Row>,
}

/// Durable usage.
#[async_trait]
pub trait UsageStore: Send + Sync {
    /// Adds a batch to what is there, all of it or nothing, and once: one whose number is not above the last of its gateway is
    /// there already. So a batch may be written again when it is not known what became of it.
    async fn add_usage(&self, batch: &Batch) -> Result<()>;
    /// What `filter` admits, added up by `by`, in no particular order.
    async fn usage(&self, filter: &Filter, by: By) -> Result<Vec<(Label, Counts)>>;
    /// Forgets a day's worth of the oldest hours, as far as they lie before `before`. How many rows went: 0 when none are left.
    async fn forget_usage(&self, before: Hour) -> Result<u64>;
}
