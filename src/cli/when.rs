//! Dates and spans of time as people type them.

use std::str::FromStr;
use std::time::Duration;

use crate::clock::Timestamp;

const RULE: &str =
    "a time is a date (2027-01-31, midnight UTC), an instant (2027-01-31T12:00:00Z) or a span from now (90d, 24h)";

/// An instant: given itself, or as a span from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    At(Timestamp),
    In(Duration),
}

impl When {
    pub(super) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::In(span) => now + span,
        }
    }
}

impl FromStr for When {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = Timestamp::parse(text).map(Self::At);
        at.or_else(|| span(text).ok().map(Self::In)).ok_or(RULE)
    }
}

/// An instant up to now: given itself, or as a span back from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Past(When);

impl Past {
    pub(super) fn resolve(self, now: Timestamp) -> Timestamp {
        match self.0 {
            When::At(at) => at,
            When::In(span) => now - span,
        }
    }
}

impl FromStr for Past {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_: &str| {
            "a time is a date (2027-01-31, midnight UTC), an instant (2027-01-31T12:00:00Z) or a span back from now (90d, 24h)"
        })
    }
}

/// An end: an instant, or `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End(Option<When>);

impl End {
    pub(super) fn resolve(self, now: Timestamp) -> Option<Timestamp> {
        self.0.map(|when| when.resolve(now))
    }
}

impl FromStr for End {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "never" {
            return Ok(Self(None));
        }
        text.parse().map(|when| Self(Some(when))).map_err(|rule: &str| format!("{rule}, or never"))
    }
}

/// An instant of the past: a span would be ambiguous here.
pub(super) fn instant(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::parse(text).ok_or("write a date (2027-01-31, midnight UTC) or an instant (2027-01-31T12:00:00Z)")
}

/// A span such as `30s`, `15m`, `24h`, `90d`, `2w`.
pub(super) fn span(text: &str) -> Result<Duration, &'static str> {
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
pub(super) fn show_span(span: Duration) -> String {
    let secs = span.as_secs();
    let (unit, word) = [(86_400, "d"), (3600, "h"), (60, "m")]
        .into_iter()
        .find(|(unit, _)| secs.is_multiple_of(*unit))
        .unwrap_or((1, "s"));
    format!("{}{word}", secs / unit)
}

/// An end for people.
pub(super) fn show_end(end: Option<Timestamp>) -> String {
    end.map_or_else(|| "never".to_owned(), |end| end.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form_people_use() {
        let now = Timestamp::parse("2026-11-01").unwrap();
        let resolve = |text: &str| text.parse::<When>().map(|when| when.resolve(now).to_string());
        assert_eq!(resolve("2027-01-31"), Ok("2027-01-31T00:00:00Z".into()));
        assert_eq!(resolve("2027-01-31T12:00:00+01:00"), Ok("2027-01-31T11:00:00Z".into()));
        assert_eq!(resolve("24h"), Ok("2026-11-02T00:00:00Z".into()));
        for bad in ["", "d", "0d", "-1d", "+1d", "1.5h", "soon", "31.1.2027", "99999999999999999999d", "9999999w", "5é"]
        {
            assert!(bad.parse::<When>().is_err(), "{bad:?}");
        }
        let past = |text: &str| text.parse::<Past>().map(|when| when.resolve(now).to_string());
        assert_eq!(past("24h"), Ok("2026-10-31T00:00:00Z".into()));
        assert_eq!(past("2026-01-31"), Ok("2026-01-31T00:00:00Z".into()));
        assert!(past("yesterday").is_err());
        assert_eq!("never".parse::<End>().unwrap().resolve(now), None);
        assert!("nie".parse::<End>().unwrap_err().ends_with("or never"));
    }

    #[test]
    fn spans_are_shown_as_they_are_typed() {
        for text in ["45s", "90m", "36h", "90d"] {
            assert_eq!(show_span(span(text).unwrap()), text);
        }
        assert_eq!(show_span(span("2w").unwrap()), "14d");
    }
}
