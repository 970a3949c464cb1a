//! The meters of all subjects: found by plan and subject, made when somebody first asks for them, and forgotten when nothing
//! of them counts any more.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use ipnet::IpNet;

use super::flush::{Pending, Row};
use super::{Calendar, Meter, Plan, Settings};
use crate::client_addr;
use crate::clock::Timestamp;
use crate::ids::{AccountName, KeyId, LicenceId, PlanId, RouteId};

/// Client addresses that are counted each by itself, of all plans and routes together; licences, keys and accounts are as many as
/// there are. An address that finds no room is counted together with its neighbours, those of its /16 that found none either. So
/// nobody goes uncounted, and a great many addresses are worth no more than the room there is and one count for each /16; whom
/// they crowd out shares what is left with the network they came from, and not with everybody.
const MOST_ADDRESSES: usize = 200_000;

/// Whoever looks for room looks at every meter, so it is not done for every request.
const LOOKS_EVERY: Duration = Duration::from_secs(10);

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
    /// A client address in the Demo group.
    Address(Address),
    /// A client address in the Demo group, on a route.
    RouteAddress(RouteId, Address),
}

/// Which client addresses are counted as one. Written `192.0.2.1` or, with its neighbours, `192.0.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// By itself (IPv6: a /64).
    Own(IpAddr),
    /// All of a network for which there was no room.
    Shared(IpNet),
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        Self::Own(client_addr::network(address))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(address) => address.fmt(f),
            Self::Shared(network) => network.fmt(f),
        }
    }
}

impl FromStr for Address {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let own = text.parse().map(Self::Own);
        own.or_else(|_| text.parse().map(Self::Shared)).map_err(|_| InvalidSubject)
    }
}

impl Subject {
    /// Who shares the counts when there is no room for it; `None` of what needs none.
    fn crowded(&self) -> Option<Self> {
        let shared = |address: &Address| match address {
            Address::Own(address) => Some(Address::Shared(client_addr::neighbourhood(*address))),
            Address::Shared(_) => None,
        };
        match self {
            Self::Licence(_) | Self::Key(_) | Self::Route(..) => None,
            Self::Address(address) => Some(Self::Address(shared(address)?)),
            Self::RouteAddress(route, address) => Some(Self::RouteAddress(route.clone(), shared(address)?)),
        }
    }

    fn needs_room(&self) -> bool {
        matches!(self, Self::Address(Address::Own(_)) | Self::RouteAddress(_, Address::Own(_)))
    }
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
    /// How many of both need room, and for how many there is some.
    addresses: AtomicUsize,
    most_addresses: usize,
    /// It was told that there is no more.
    is_crowded: AtomicBool,
    /// When room was looked for, in milliseconds since the epoch.
    looked_at: AtomicU64,
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
        Self::with_room(settings, stored, MOST_ADDRESSES)
    }

    fn with_room(settings: &Settings, stored: Vec<Row>, most_addresses: usize) -> Self {
        let mut by_subject = Stored::new();
        for row in stored {
            by_subject.entry((row.line.plan.clone(), row.line.subject.clone())).or_default().push(row);
        }
        let addresses = by_subject.keys().filter(|(_, subject)| subject.needs_room()).count();
        Self {
            counted: DashMap::new(),
            stored: Mutex::new(by_subject),
            addresses: AtomicUsize::new(addresses),
            most_addresses,
            is_crowded: AtomicBool::new(false),
            looked_at: AtomicU64::new(0),
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

    /// The counts of `subject` under the plan; of an address that finds no room, those that it shares with its neighbours.
    pub fn of(&self, plan: &Plan, subject: Subject) -> Arc<Counted> {
        let key = (plan.id.clone(), subject);
        if let Some(found) = self.counted.get(&key) {
            return Arc::clone(&found);
        }
        match self.counted.entry(key) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(entry) => {
                let rows = lock(&self.stored).remove(entry.key());
                // What was in the store has had its room since then.
                if rows.is_none()
                    && let Some(crowded) = entry.key().1.crowded()
                    && !self.takes_room()
                {
                    drop(entry);
                    return self.of(plan, crowded);
                }
                let (plan, subject) = entry.key().clone();
                let inner = Inner { meter: Meter::with(rows.unwrap_or_default()), is_listed: false };
                Arc::clone(&entry.insert(Arc::new(Counted { plan, subject, inner: Mutex::new(inner) })))
            }
        }
    }

    fn takes_room(&self) -> bool {
        let one_more = |taken: usize| (taken < self.most_addresses).then_some(taken + 1);
        let is_taken = self.addresses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        if !is_taken && !self.is_crowded.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                addresses = self.most_addresses,
                "plans count so many client addresses of the Demo group that new ones share the counts of their /16"
            );
        }
        is_taken
    }

    /// Looks for room for addresses where there is none: those of which nothing counts any more are forgotten.
    pub fn make_room(&self, now: Timestamp) {
        let (last, now_millis) = (self.looked_at.load(Ordering::Relaxed), now.millis());
        let is_due = u128::from(now_millis.abs_diff(last)) >= LOOKS_EVERY.as_millis();
        if self.addresses.load(Ordering::Relaxed) >= self.most_addresses
            && is_due
            && self.looked_at.compare_exchange(last, now_millis, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.forget(now);
        }
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
        let leave = |subject: &Subject, stays: bool| {
            if !stays && subject.needs_room() {
                self.addresses.fetch_sub(1, Ordering::Relaxed);
            }
            stays
        };
        self.counted.retain(|(_, subject), counted| {
            leave(subject, Arc::strong_count(counted) > 1 || !counted.lock().meter.is_over(now))
        });
        lock(&self.stored).retain(|(_, subject), rows| leave(subject, rows.iter().any(|row| row.until > now)));
        if self.addresses.load(Ordering::Relaxed) < self.most_addresses {
            self.is_crowded.store(false, Ordering::Relaxed);
        }
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
