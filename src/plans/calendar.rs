//! Days and months of the calendar, in a stated time zone.

use std::fmt;
use std::str::FromStr;

use time::{Date, OffsetDateTime, Time, UtcOffset};

use crate::clock::Timestamp;

/// A calendar period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From the first to the last day of a month.
    Month,
}

/// The calendar of a time zone: a fixed distance from UTC, without summer time, so that every day has 24 hours and no hour is
/// counted twice or left out. Written `UTC` or `+02:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    offset: UtcOffset,
}

impl Default for Calendar {
    fn default() -> Self {
        Self { offset: UtcOffset::UTC }
    }
}

/// Text is no time zone; `Display` says the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidZone;

impl fmt::Display for InvalidZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time zone is \"UTC\" or its distance from it, from \"-14:00\" to \"+14:00\"")
    }
}

impl std::error::Error for InvalidZone {}

impl FromStr for Calendar {
    type Err = InvalidZone;

    fn from_str(text: &str) -> Result<Self, InvalidZone> {
        if text == "UTC" {
            return Ok(Self::default());
        }
        let (sign, rest) = match text.split_at_checked(1) {
            Some(("+", rest)) => (1, rest),
            Some(("-", rest)) => (-1, rest),
            _ => return Err(InvalidZone),
        };
        let number = |text: &str| {
            let is_two_digits = text.len() == 2 && text.bytes().all(|c| c.is_ascii_digit());
            if is_two_digits { text.parse::<i8>().map_err(|_| InvalidZone) } else { Err(InvalidZone) }
        };
        let (hours, minutes) = rest.split_once(':').ok_or(InvalidZone)?;
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        if minutes > 59 || hours > 14 || (hours == 14 && minutes > 0) {
            return Err(InvalidZone);
        }
        let offset = UtcOffset::from_hms(sign * hours, sign * minutes, 0).map_err(|_| InvalidZone)?;
        Ok(Self { offset })
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes, _) = self.offset.as_hms();
        if self.offset == UtcOffset::UTC {
            return f.write_str("UTC");
        }
        let sign = if self.offset.is_negative() { '-' } else { '+' };
        write!(f, "{sign}{:02}:{:02}", hours.abs(), minutes.abs())
    }
}

impl Calendar {
    /// The first instant of the period that `now` lies in, and that of the next one.
    pub fn around(&self, period: Period, now: Timestamp) -> (Timestamp, Timestamp) {
        let Some(today) = self.date(now) else { return (now, Timestamp::from_millis(u64::MAX)) };
        let (first, next) = match period {
            Period::Day => (Some(today), today.next_day()),
            Period::Month => {
                let first = today.replace_day(1).ok();
                let next = first.and_then(|first| {
                    let (year, month) = (first.year(), first.month());
                    let year = if month == time::Month::December { year + 1 } else { year };
                    Date::from_calendar_date(year, month.next(), 1).ok()
                });
                (first, next)
            }
        };
        let at = |date: Option<Date>| date.and_then(|date| self.midnight(date));
        (at(first).unwrap_or_default(), at(next).unwrap_or(Timestamp::from_millis(u64::MAX)))
    }

    fn date(&self, at: Timestamp) -> Option<Date> {
        let at = OffsetDateTime::from_unix_timestamp(i64::try_from(at.secs()).ok()?).ok()?;
        Some(at.checked_to_offset(self.offset)?.date())
    }

    fn midnight(&self, date: Date) -> Option<Timestamp> {
        let at = OffsetDateTime::new_in_offset(date, Time::MIDNIGHT, self.offset).unix_timestamp();
        // Of the very first day, in the east, the beginning lies before the epoch.
        Some(Timestamp::from_secs(u64::try_from(at.max(0)).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_period_begins_and_ends_where_its_zone_says() {
        for (zone, period, now, first, next) in [
            ("UTC", Period::Day, "2026-11-24T23:59:59Z", "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z"),
            ("UTC", Period::Day, "2026-11-25T00:00:00Z", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"),
            ("+02:00", Period::Day, "2026-11-24T22:30:00Z", "2026-11-24T22:00:00Z", "2026-11-25T22:00:00Z"),
            ("-05:30", Period::Day, "2026-11-24T05:00:00Z", "2026-11-23T05:30:00Z", "2026-11-24T05:30:00Z"),
            ("UTC", Period::Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            ("UTC", Period::Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("+01:00", Period::Month, "2026-12-31T23:00:00Z", "2026-12-31T23:00:00Z", "2027-01-31T23:00:00Z"),
        ] {
            let calendar: Calendar = zone.parse().unwrap();
            assert_eq!(calendar.around(period, at(now)), (at(first), at(next)), "{zone} {period:?} {now}");
            assert_eq!(calendar.to_string(), zone);
        }
    }

    #[test]
    fn what_is_no_zone_is_refused() {
        for bad in
            ["", "utc", "Europe/Berlin", "+2:00", "+02", "+0200", "02:00", "+14:01", "-15:00", "+01:60", "+-1:00", "±1"]
        {
            assert_eq!(bad.parse::<Calendar>(), Err(InvalidZone), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_instant_lies_in_one_period(secs in 0..4_000_000_000u64, minutes in -840..=840i32, is_month: bool) {
            let calendar = Calendar { offset: UtcOffset::from_whole_seconds(minutes * 60).unwrap() };
            let period = if is_month { Period::Month } else { Period::Day };
            let now = Timestamp::from_secs(secs);
            let (first, next) = calendar.around(period, now);
            prop_assert!(first <= now && now < next);
            prop_assert_eq!(calendar.around(period, first), (first, next));
            prop_assert_eq!(calendar.around(period, Timestamp::from_millis(next.millis() - 1)), (first, next));
            prop_assert_eq!(calendar.around(period, next).0, next);
        }
    }
}
