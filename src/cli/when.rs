//! Dates and spans of time as people type them.

use std::str::FromStr;
use std::time::Duration;

use crate::clock::Timestamp;

pub(super) use crate::clock::{show_span, span};

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

/// A last use for people, to the minute.
pub(super) fn show_use(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| at.to_string())
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
