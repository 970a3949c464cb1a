//! What it is to roll a key: its secret is replaced, and the old one goes on working for a grace.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::clock::{Timestamp, span};
use crate::credentials::PasswordHash;

/// How long the old secret goes on working: whole seconds, 30 days at most; none, and it ends at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace(Duration);

/// What a grace may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidGrace;

impl fmt::Display for InvalidGrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a grace is a whole number and s, m, h, d or w, as in 24h, and 30d at most; 0 ends the old secret at once",
        )
    }
}

impl std::error::Error for InvalidGrace {}

impl Grace {
    /// The longest there is.
    pub const LONGEST: Duration = Duration::from_secs(30 * 86_400);
    /// None: the old secret ends at once.
    pub const NONE: Self = Self(Duration::ZERO);

    /// A grace of so many whole seconds.
    ///
    /// # Errors
    /// [`InvalidGrace`].
    pub fn new(time: Duration) -> Result<Self, InvalidGrace> {
        if time <= Self::LONGEST && time.subsec_nanos() == 0 { Ok(Self(time)) } else { Err(InvalidGrace) }
    }

    /// How long it is.
    pub fn time(self) -> Duration {
        self.0
    }

    /// Whether there is any.
    pub fn is_none(self) -> bool {
        self.0.is_zero()
    }
}

impl Default for Grace {
    fn default() -> Self {
        Self(Duration::from_secs(86_400))
    }
}

impl FromStr for Grace {
    type Err = InvalidGrace;
    fn from_str(text: &str) -> Result<Self, InvalidGrace> {
        match text {
            "0" | "0s" => Ok(Self::NONE),
            text => Self::new(span(text).map_err(|_| InvalidGrace)?),
        }
    }
}

/// What the grace is counted from.
///
/// The default is the first use of the new secret: whoever rolls a key cannot know when the new one will be in place, and
/// nobody is cut off who does not have it yet. What was counted from now would end on a Saturday, if it was rolled on a
/// Friday and not yet rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// The first use of the new secret. Until then the old one does not end.
    #[default]
    FirstUse,
    /// The roll.
    Now,
}

impl Start {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::FirstUse => "first-use",
            Self::Now => "now",
        }
    }
}

impl FromStr for Start {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "first-use" => Ok(Self::FirstUse),
            "now" => Ok(Self::Now),
            _ => Err("a grace starts at first-use (of the new secret) or now"),
        }
    }
}

/// When an old secret ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// So long after the new one is first used, which has not come yet.
    AfterFirstUse(Duration),
    /// Then.
    At(Timestamp),
}

/// The secret that a key had before it was rolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Half {
    /// The whole old key, hashed; `None` once it has ended and was cleared away.
    pub hash: Option<PasswordHash>,
    /// When it was replaced.
    pub rolled_at: Timestamp,
    /// When it ends, or has ended.
    pub end: End,
    /// When a token was last got with it, to the minute.
    pub used_at: Option<Timestamp>,
}

impl Half {
    /// Whether it opens anything at `now`, as far as that is its own matter and not the whole key's.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.hash.is_some() && !self.has_ended(now)
    }

    /// Whether its end has come.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        matches!(self.end, End::At(end) if end <= now)
    }

    /// When it ends, where that is known.
    pub fn ends_at(&self) -> Option<Timestamp> {
        match self.end {
            End::At(end) => Some(end),
            End::AfterFirstUse(_) => None,
        }
    }

    /// The same at its end.
    pub(super) fn ended(self, now: Timestamp) -> Self {
        let end = self.ends_at().filter(|end| *end <= now).unwrap_or(now);
        Self { hash: None, end: End::At(end), ..self }
    }
}

impl End {
    /// By when a token must be dead that was got with the old secret, where the end was known to be this at `known_at`. The
    /// new secret had not been used by then, so the end cannot be earlier than a grace after it.
    pub fn not_after(self, known_at: Timestamp) -> Timestamp {
        match self {
            Self::At(end) => end,
            Self::AfterFirstUse(grace) => known_at + grace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_is_none_or_a_span_of_thirty_days_at_most() {
        for (text, secs) in [("0", 0), ("0s", 0), ("90s", 90), ("24h", 86_400), ("30d", 2_592_000), ("4w", 2_419_200)] {
            assert_eq!(text.parse::<Grace>().map(|grace| grace.time().as_secs()), Ok(secs), "{text}");
        }
        for bad in ["", "31d", "1.5h", "-1h", "24", "00", "0x", "never", "99999999999999999999s"] {
            assert_eq!(bad.parse::<Grace>(), Err(InvalidGrace), "{bad}");
        }
        assert!(Grace::new(Duration::from_millis(1_500)).is_err());
        assert_eq!(Grace::default(), "24h".parse().unwrap());
    }

    #[test]
    fn a_start_is_one_of_two_words() {
        for start in [Start::FirstUse, Start::Now] {
            assert_eq!(start.word().parse(), Ok(start));
        }
        assert!("later".parse::<Start>().is_err());
        assert_eq!(Start::default(), Start::FirstUse);
    }

    #[test]
    fn an_old_half_is_dead_at_its_end_and_not_after() {
        let at = Timestamp::from_secs;
        let half = |end| Half { hash: Some(PasswordHash::from_phc("$".into())), rolled_at: at(10), end, used_at: None };
        let ending = half(End::At(at(20)));
        assert!(ending.is_live(Timestamp::from_millis(19_999)) && !ending.is_live(at(20)));
        let waiting = half(End::AfterFirstUse(Duration::from_secs(5)));
        assert!(waiting.is_live(at(1_000_000)));
        assert_eq!(waiting.end.not_after(at(100)), at(105));
        assert_eq!((waiting.clone().ended(at(30)).end, ending.ended(at(30)).end), (End::At(at(30)), End::At(at(20))));
        assert!(!waiting.ended(at(30)).is_live(at(29)), "its hash is gone");
    }
}
