//! Questions about usage, and their answers. The command line calls it, and doors can call the same.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::{Counts, Holder, Hour, Ledger, Line, StatusClass, UsageStore};
use crate::clock::{Clock, Timestamp};
use crate::ids::{AccountName, GroupId, RouteId};
use crate::persist;
use crate::tokens::Client;

/// How far back a question goes that does not say it.
pub const SOME_DAYS: Duration = Duration::from_secs(30 * 86_400);

/// What usage is added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// By account.
    Account,
    /// By credential.
    Key,
    /// By group.
    Group,
    /// By route.
    Route,
    /// By status class.
    Status,
    /// By hour.
    Hour,
    /// By day, UTC.
    Day,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Account, Self::Key, Self::Group, Self::Route, Self::Status, Self::Hour, Self::Day];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Key => "key",
            Self::Group => "group",
            Self::Route => "route",
            Self::Status => "status",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// What a line of an hour is added up under.
    pub fn label(self, hour: Hour, line: &Line) -> Label {
        match self {
            Self::Account => Label::Account(line.holder.as_ref().map(|holder| holder.account.clone())),
            Self::Key => Label::Key(line.holder.clone()),
            Self::Group => Label::Group(line.group.clone()),
            Self::Route => Label::Route(line.route.clone()),
            Self::Status => Label::Status(line.class),
            Self::Hour => Label::Hour(hour),
            Self::Day => Label::Day(hour.day()),
        }
    }
}

impl FromStr for By {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let by = Self::ALL.into_iter().find(|by| by.word() == text);
        by.ok_or("usage is added up by account, key, group, route, status, hour or day")
    }
}

/// What some usage is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Label {
    /// An account; `None` for what there was no room to tell apart.
    Account(Option<AccountName>),
    /// A credential.
    Key(Option<Holder>),
    /// A group, or none.
    Group(Option<GroupId>),
    /// A route, or none.
    Route(Option<RouteId>),
    /// A status class.
    Status(StatusClass),
    /// An hour.
    Hour(Hour),
    /// A day, by its first hour.
    Day(Hour),
}

/// Which usage is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// When.
    pub range: Range,
    /// Whose.
    pub account: Option<AccountName>,
    /// By which credential.
    pub client: Option<Client>,
    /// By which group.
    pub group: Option<GroupId>,
    /// On which route.
    pub route: Option<RouteId>,
}

impl Filter {
    /// Everything in `range`.
    pub fn all(range: Range) -> Self {
        Self { range, account: None, client: None, group: None, route: None }
    }

    /// Whether a line of an hour is asked about.
    pub fn admits(&self, hour: Hour, line: &Line) -> bool {
        let holder = line.holder.as_ref();
        (self.range.since..self.range.until).contains(&hour)
            && self.account.as_ref().is_none_or(|account| holder.is_some_and(|holder| holder.account == *account))
            && self.client.as_ref().is_none_or(|client| holder.is_some_and(|holder| holder.client == *client))
            && self.group.as_ref().is_none_or(|group| line.group.as_ref() == Some(group))
            && self.route.as_ref().is_none_or(|route| line.route.as_ref() == Some(route))
    }
}

/// Whole hours, from one up to another that is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub since: Hour,
    /// The one after the last.
    pub until: Hour,
}

impl Range {
    /// The whole hours that have any part in the time from `since` to `until`; without them, the last [`SOME_DAYS`] up to the
    /// present hour, which is among them.
    ///
    /// # Errors
    /// Times that are the wrong way round, or a beginning that has not come yet.
    pub fn new(since: Option<Timestamp>, until: Option<Timestamp>, now: Timestamp) -> Result<Self, Error> {
        let end = until.unwrap_or(now);
        let begin = since.unwrap_or(end - SOME_DAYS);
        if begin > now {
            return Err(Error::Future(begin));
        }
        if until.is_some_and(|until| until <= begin) {
            return Err(Error::Backwards { since: begin, until: end });
        }
        let since = Hour::of(begin);
        Ok(Self { since, until: Hour::not_before(end).max(since.next()) })
    }

    /// How many hours.
    pub fn hours(self) -> u32 {
        self.until.0 - self.since.0
    }
}

/// Why a question has no answer.
#[derive(Debug)]
pub enum Error {
    /// It ends before it begins.
    Backwards {
        /// Its beginning.
        since: Timestamp,
        /// Its end.
        until: Timestamp,
    },
    /// It begins at an instant that has not come yet.
    Future(Timestamp),
    /// The store failed.
    Store(persist::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backwards { since, until } => {
                write!(f, "{until} is not after {since}: since must be before until")
            }
            Self::Future(at) => write!(f, "{at} has not come yet: since must lie in the past"),
            Self::Store(_) => f.write_str("usage could not be read"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(source) => Some(source),
            _ => None,
        }
    }
}

impl From<persist::Error> for Error {
    fn from(error: persist::Error) -> Self {
        Self::Store(error)
    }
}

/// A question.
#[derive(Debug, Clone)]
pub struct Question {
    /// Which usage.
    pub filter: Filter,
    /// Added up by what.
    pub by: By,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// When.
    pub range: Range,
    /// Added up by what.
    pub by: By,
    /// Hours and days in their order; else who has the most requests comes first.
    pub entries: Vec<Entry>,
    /// All of them together.
    pub total: Counts,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is of.
    pub label: Label,
    /// How much.
    pub counts: Counts,
}

/// Answers questions about usage.
#[derive(Clone)]
pub struct Operations {
    store: Arc<dyn UsageStore>,
    ledger: Option<Arc<Ledger>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl Operations {
    /// Of what is in the store. What a running gateway has not written yet is not in it.
    pub fn new(store: Arc<dyn UsageStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, ledger: None, clock }
    }

    /// With what this process has counted and not written yet.
    pub fn with_ledger(mut self, ledger: Arc<Ledger>) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// The time that a question is about: see [`Range::new`].
    ///
    /// # Errors
    /// As there.
    pub fn range(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> Result<Range, Error> {
        Range::new(since, until, self.clock.now())
    }

    /// Answers a question.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn report(&self, question: Question) -> Result<Report, Error> {
        let Question { filter, by } = question;
        let found = match &self.ledger {
            Some(ledger) => ledger.usage(&*self.store, &filter, by).await?,
            None => self.store.usage(&filter, by).await?,
        };
        let mut total = Counts::default();
        let mut sums: HashMap<Label, Counts> = HashMap::new();
        for (label, counts) in found {
            total.add(&counts);
            sums.entry(label).or_default().add(&counts);
        }
        let mut entries: Vec<Entry> = sums.into_iter().map(|(label, counts)| Entry { label, counts }).collect();
        match by {
            By::Hour | By::Day | By::Status => entries.sort_by(|a, b| a.label.cmp(&b.label)),
            _ => entries.sort_by(|a, b| (b.counts.requests, &a.label).cmp(&(a.counts.requests, &b.label))),
        }
        Ok(Report { range: filter.range, by, entries, total })
    }
}
