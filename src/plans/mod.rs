//! Plans: how much whoever holds one may use. Owns what a plan is, and the counting of it, which is exact however many come at
//! once. Knows nothing of HTTP, and not who is counted: a [`Subject`] is a name.

mod bound;
mod calendar;
mod count;
mod flush;
mod meter;
mod meters;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::ids::PlanId;

pub use bound::{Bound, Held, Refused, Share, Shown, Taken};
pub use calendar::{Calendar, InvalidZone, Period};
pub use flush::{Batch, CountStore, Line, Row, close, keep_written};
pub use meter::{Exceeded, Meter, Standing};
pub use meters::{Address, Counted, InvalidSubject, Meters, Subject};

/// Settings of `[quotas]`: what all plans have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where days and months begin.
    pub calendar: Calendar,
    /// Whether answers have the older `X-RateLimit-…` fields as well.
    pub legacy_fields: bool,
    /// How often what was counted in memory is written to the store, and what other gateways counted is learned.
    pub flush_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { calendar: Calendar::default(), legacy_fields: false, flush_every: Duration::from_secs(1) }
    }
}

/// What an account, a key, a route or a client address may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its name, in licences, keys, routes and answers.
    pub id: PlanId,
    /// What limits it; the tightest holds. None is no limit.
    pub limits: Vec<Limit>,
}

impl Plan {
    /// The plan of quotas that are known by name alone, as in a licence's document. Names that nobody here knows are left
    /// out; `None` when none is left.
    pub fn of_quotas(id: PlanId, quotas: &BTreeMap<String, u64>) -> Option<Self> {
        let limits: Vec<_> =
            Limit::NAMES.iter().filter_map(|name| Limit::named(name, *quotas.get(*name)?, None)).collect();
        (!limits.is_empty()).then_some(Self { id, limits })
    }
}

/// One limit of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is counted.
    pub measure: Measure,
    /// How many of it. 0 is none, ever.
    pub most: u64,
    /// In which time.
    pub span: Span,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Requests. One is counted before it goes on, and one too many does not.
    Requests,
    /// Bytes of content, in both directions. They are counted as they pass: who has any left may begin, and may end what was
    /// begun.
    Bytes,
}

/// The time that a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Each second on the average, of which so many may come at once: the generic cell rate algorithm.
    Second {
        /// At least 1.
        burst: u64,
    },
    /// By two windows of the clock, so long each: what came in the one before counts for as much of it as still lies within. In no
    /// window of the clock are there more than the limit says; across two of them there may be, of what came in a burst.
    Sliding(Duration),
    /// The day or the month by the calendar.
    Calendar(Period),
    /// No time: so many may be under way at once.
    AtOnce,
}

impl Limit {
    /// What limits are called in configurations and documents, in the order in which a plan has them.
    pub const NAMES: [&str; 8] = [
        "requests_per_second",
        "requests_per_minute",
        "requests_per_hour",
        "requests_per_day",
        "requests_per_month",
        "bytes_per_day",
        "bytes_per_month",
        "concurrent",
    ];

    /// The limit of that name. A `burst` is of use by the second alone; without one it is a second's worth.
    pub fn named(name: &str, most: u64, burst: Option<u64>) -> Option<Self> {
        let (measure, span) = match name {
            "requests_per_second" => (Measure::Requests, Span::Second { burst: burst.unwrap_or(most).max(1) }),
            "requests_per_minute" => (Measure::Requests, Span::Sliding(MINUTE)),
            "requests_per_hour" => (Measure::Requests, Span::Sliding(HOUR)),
            "requests_per_day" => (Measure::Requests, Span::Calendar(Period::Day)),
            "requests_per_month" => (Measure::Requests, Span::Calendar(Period::Month)),
            "bytes_per_day" => (Measure::Bytes, Span::Calendar(Period::Day)),
            "bytes_per_month" => (Measure::Bytes, Span::Calendar(Period::Month)),
            "concurrent" => (Measure::Requests, Span::AtOnce),
            _ => return None,
        };
        Some(Self { measure, most, span })
    }

    /// Its name beside its plan's, by which it is counted: of two plans' limits with one word, a count goes on.
    pub fn word(&self) -> &'static str {
        let words = match self.span {
            Span::Second { .. } => ["second", "second-bytes"],
            Span::Sliding(window) if window <= MINUTE => ["minute", "minute-bytes"],
            Span::Sliding(_) => ["hour", "hour-bytes"],
            Span::Calendar(Period::Day) => ["day", "day-bytes"],
            Span::Calendar(Period::Month) => ["month", "month-bytes"],
            Span::AtOnce => ["concurrent", "concurrent"],
        };
        words[usize::from(self.measure == Measure::Bytes)]
    }

    /// How many may come at once, where that is said.
    pub fn burst(&self) -> Option<u64> {
        match self.span {
            Span::Second { burst } => Some(burst),
            _ => None,
        }
    }

    /// Whether all gateways on one store count it together. What is over in a second, or under way, each counts by itself.
    pub fn is_shared(&self) -> bool {
        matches!(self.span, Span::Sliding(_) | Span::Calendar(_))
    }
}

/// A minute, as a sliding window.
pub const MINUTE: Duration = Duration::from_secs(60);
/// An hour, as a sliding window.
pub const HOUR: Duration = Duration::from_secs(3600);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measure = match self.measure {
            Measure::Requests => "requests",
            Measure::Bytes => "bytes",
        };
        let span = match self.span {
            Span::Second { burst } if burst != self.most => {
                return write!(f, "{} {measure} a second, {burst} at once", self.most);
            }
            Span::Second { .. } => "a second",
            Span::Sliding(window) if window <= MINUTE => "a minute",
            Span::Sliding(_) => "an hour",
            Span::Calendar(Period::Day) => "a day",
            Span::Calendar(Period::Month) => "a month",
            Span::AtOnce => "at once",
        };
        write!(f, "{} {measure} {span}", self.most)
    }
}
