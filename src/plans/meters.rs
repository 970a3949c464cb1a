//! The meters of all subjects: found by plan and subject, made when somebody first asks for them, and forgotten when nothing
//! of them counts any more.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;

use super::flush::{Pending, Row};
use super::{Calendar, Meter, Plan, Settings};
use crate::clock::Timestamp;
use crate::ids::{AccountName, KeyId, LicenceId, PlanId, RouteId};

/// Client addresses that are counted at once. Who finds no room is not counted by its plan; the rates of the Demo group hold.
const MOST_ADDRESSES: usize = 200_000;

/// Who shares the counts of a plan. Written `licence:…`, `key:…`, `route:<route>:<account>`, `address:…` or
/// `route-address:<route>:<address>`: a word of its own, for an IPv4 address could be an account's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A licence.
    Licence(LicenceId),
    /// One key.
    Key(KeyId),
    /// An account on a route, but for that of the Demo group, which anybody has.
    Route(RouteId, AccountName),
    /// A client address in the Demo group (IPv6: a /64).
    Address(IpAddr),
    /// A client address in the Demo group, on a route.
    RouteAddress(RouteId, IpAddr),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Licence(id) => write!(f, "licence:{id}"),
            Self::Key(id) => write!(f, "key:{id}"),
            Self::Route(route, account) => write!(f, "route:{route}:{account}"),
            Self::Address(address) => write!(f, "address:{address}"),
            Self::RouteAddress(route, address) => write!(f, "route-address:{route}:{address}"),
        }
    }
}

/// Text is no subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidSubject;

impl fmt::Display for InvalidSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a subject is a licence, a key, an account or an address on a route, or an address")
    }
}

impl std::error::Error for InvalidSubject {}

impl FromStr for Subject {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        fn read<T: FromStr>(text: &str) -> Result<T, InvalidSubject> {
            text.parse().map_err(|_| InvalidSubject)
        }
        let (kind, rest) = text.split_once(':').ok_or(InvalidSubject)?;
        match kind {
            "licence" => Ok(Self::Licence(read(rest)?)),
            "key" => Ok(Self::Key(read(rest)?)),
            "route" => {
                let (route, account) = rest.split_once(':').ok_or(InvalidSubject)?;
                Ok(Self::Route(read(route)?, read(account)?))
            }
            "address" => Ok(Self::Address(read(rest)?)),
            "route-address" => {
                let (route, address) = rest.split_once(':').ok_or(InvalidSubject)?;
                Ok(Self::RouteAddress(read(route)?, read(address)?))
            }
            _ => Err(InvalidSubject),
        }
    }
}

/// The counts of one subject under plans of one name, shared by all that count it.
#[derive(Debug)]
pub struct Counted {
    pub(super) plan: PlanId,
    pub(super) subject: Subject,
    inner: Mutex<Inner>,
}

/// What is locked while it is counted.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) meter: Meter,
    /// It is on the list of those that have something to be written.
    pub(super) is_listed: bool,
}

impl Counted {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was in the store at the start, until somebody asks for it.
type Stored = HashMap<(PlanId, Subject), Vec<Row>>;

/// The meters of all subjects; see the module.
#[derive(Debug)]
pub struct Meters {
    counted: DashMap<(PlanId, Subject), Arc<Counted>>,
    stored: Mutex<Stored>,
    /// What has something to be written, each once.
    listed: Mutex<Vec<Arc<Counted>>>,
    pub(super) pending: Mutex<Pending>,
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(super) settings: Settings,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meters {
    /// With the counts that are in the store.
    pub fn new(settings: &Settings, stored: Vec<Row>) -> Self {
        let mut by_subject = Stored::new();
        for row in stored {
            by_subject.entry((row.line.plan.clone(), row.line.subject.clone())).or_default().push(row);
        }
        Self {
            counted: DashMap::new(),
            stored: Mutex::new(by_subject),
            listed: Mutex::default(),
            pending: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            settings: settings.clone(),
        }
    }

    /// Where days and months begin.
    pub fn calendar(&self) -> &Calendar {
        &self.settings.calendar
    }

    /// The counts of `subject` under the plan. `None` where there is no room for more.
    pub fn of(&self, plan: &Plan, subject: Subject) -> Option<Arc<Counted>> {
        let key = (plan.id.clone(), subject);
        if let Some(found) = self.counted.get(&key) {
            return Some(Arc::clone(&found));
        }
        if matches!(key.1, Subject::Address(_) | Subject::RouteAddress(..)) && self.counted.len() >= MOST_ADDRESSES {
            return None;
        }
        let entry = self.counted.entry(key.clone()).or_insert_with(|| {
            let rows = lock(&self.stored).remove(&key).unwrap_or_default();
            let meter = Meter::with(rows);
            let (plan, subject) = key;
            Arc::new(Counted { plan, subject, inner: Mutex::new(Inner { meter, is_listed: false }) })
        });
        Some(Arc::clone(&entry))
    }

    /// Notes that there is something to be written of it. The lock on it is held, so that it is listed once.
    pub(super) fn list(&self, counted: &Arc<Counted>, inner: &mut Inner) {
        if !inner.is_listed {
            inner.is_listed = true;
            lock(&self.listed).push(Arc::clone(counted));
        }
    }

    /// Takes out all that is listed.
    pub(super) fn take_listed(&self) -> Vec<Arc<Counted>> {
        std::mem::take(&mut *lock(&self.listed))
    }

    /// Drops the meters of which nothing counts any more, and which nobody holds.
    pub fn forget(&self, now: Timestamp) {
        // Nobody can take hold of one while its shard is locked, and whoever counts holds it.
        self.counted.retain(|_, counted| Arc::strong_count(counted) > 1 || !counted.lock().meter.is_over(now));
        lock(&self.stored).retain(|_, rows| rows.iter().any(|row| row.until > now));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.counted.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }
}

#[cfg(test)]
mod tests;
