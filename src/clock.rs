//! The time of day, as an argument.
//!
//! Owns [`Timestamp`] and the [`Clock`] every room is handed. Nothing else in the crate reads the system clock
//! (`clippy.toml` forbids it), so a test advances time instead of sleeping through it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From whole seconds since the epoch (a `NumericDate`, RFC 7519 §2).
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// As an IMF-fixdate (RFC 9110 §5.6.7); `None` beyond the year 9999.
    pub fn http_date(self) -> Option<String> {
        let at = OffsetDateTime::from_unix_timestamp(i64::try_from(self.secs()).ok()?).ok()?;
        // The two differ in how they spell UTC.
        Some(at.format(&Rfc2822).ok()?.replace("+0000", "GMT"))
    }

    /// Parses RFC 3339 (`2027-01-31T12:00:00Z`) or a plain date (`2027-01-31`, midnight UTC).
    pub fn parse(text: &str) -> Option<Self> {
        let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
        let at = OffsetDateTime::parse(&full, &Rfc3339).ok()?;
        let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()?;
        Some(Self(millis))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// RFC 3339 in UTC, to the second.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = i64::try_from(self.secs())
            .ok()
            .and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
            .and_then(|at| at.format(&Rfc3339).ok());
        match at {
            Some(text) => f.write_str(&text),
            None => f.write_str("never"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A span of time as people type it: `30s`, `15m`, `24h`, `90d`, `2w`.
///
/// # Errors
/// The rule.
pub fn span(text: &str) -> Result<Duration, &'static str> {
    const RULE: &str = "a span of time is a whole number and s, m, h, d or w, as in 15m or 90d";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(RULE)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(RULE),
    };
    // A thousand years are enough for anyone, and no sum with the present overflows what a database column holds.
    const MOST: u64 = 1000 * 366 * 86_400;
    let whole = number.bytes().all(|c| c.is_ascii_digit());
    let secs = number.parse::<u64>().ok().filter(|_| whole).and_then(|number| number.checked_mul(unit)).ok_or(RULE)?;
    if secs == 0 || secs > MOST { Err(RULE) } else { Ok(Duration::from_secs(secs)) }
}

/// A span as [`span`] reads it, in the largest unit that is exact.
pub fn show_span(span: Duration) -> String {
    let secs = span.as_secs();
    let (unit, word) = [(86_400, "d"), (3600, "h"), (60, "m")]
        .into_iter()
        .find(|(unit, _)| secs.is_multiple_of(*unit))
        .unwrap_or((1, "s"));
    format!("{}{word}", secs / unit)
}

/// A wait that ends when a clock reaches an instant.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present instant.
    fn now(&self) -> Timestamp;

    /// Completes once `now()` is at or past `at`.
    fn sleep_until(&self, at: Timestamp) -> Sleep;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that may read the system clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep_until(&self, at: Timestamp) -> Sleep {
        Box::pin(tokio::time::sleep(at.since(self.now())))
    }
}

/// A clock that stands still until it is advanced; for tests and benchmarks.
#[derive(Debug)]
pub struct ManualClock {
    millis: AtomicU64,
    moved: tokio::sync::watch::Sender<u64>,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self { millis: AtomicU64::new(start.0), moved: tokio::sync::watch::Sender::new(start.0) }
    }

    /// Moves the clock forward and wakes whoever slept until then.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let now = self.millis.fetch_add(by, Ordering::SeqCst).saturating_add(by);
        self.moved.send_replace(now);
    }

    /// Moves the clock back, as when one that was ahead is put right. Nobody is woken.
    pub fn set_back(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let back = |now: u64| Some(now.saturating_sub(by));
        let was = self.millis.fetch_update(Ordering::SeqCst, Ordering::SeqCst, back).unwrap_or_else(|now| now);
        self.moved.send_replace(was.saturating_sub(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.millis.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, at: Timestamp) -> Sleep {
        let mut moved = self.moved.subscribe();
        Box::pin(async move {
            // The sender lives as long as the clock; its end is the end of the test.
            let _ = moved.wait_for(|now| *now >= at.0).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_of_http_is_spelled_as_its_rfc_says() {
        // The example of RFC 9110 §5.6.7.
        assert_eq!(Timestamp::from_secs(784_111_777).http_date().as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(Timestamp::from_secs(u64::MAX / 1000).http_date(), None);
    }

    #[test]
    fn dates_are_read_and_written_as_rfc_3339() {
        let at = Timestamp::parse("2027-01-31").expect("a plain date");
        assert_eq!(at.to_string(), "2027-01-31T00:00:00Z");
        assert_eq!(Timestamp::parse("2027-01-31T01:00:00+01:00"), Some(at));
        assert_eq!(Timestamp::parse("31.1.2027"), None);
        assert_eq!(Timestamp::parse("1969-12-31"), None);
    }

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_it_is_advanced() {
        let clock = ManualClock::new(Timestamp::from_secs(100));
        let sleep = clock.sleep_until(Timestamp::from_secs(160));
        clock.advance(Duration::from_secs(60));
        sleep.await;
        assert_eq!(clock.now().secs(), 160);
    }
}
