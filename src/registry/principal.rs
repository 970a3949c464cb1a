//! Whose a session is: shared by all sessions of one credential with the same groups.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Digest;
use crate::groups::demo;
use crate::ids::{AccountName, GroupId, Groups};
use crate::revocations::{Cutoff, Revocations};
use crate::tokens::{Client, Terms};

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// An account, the credential it used, the groups that this reaches, and on which terms.
#[derive(Debug)]
pub struct Principal {
    serial: u64,
    account: AccountName,
    client: Client,
    groups: Box<[GroupId]>,
    terms: Terms,
    /// The revocations' generation that `cutoff` was taken at.
    generation: AtomicU64,
    cutoff: AtomicU64,
    sessions: Mutex<Sessions>,
}

/// A place in the registry's order of expiry: a second, and a ticket that tells entries of the same second apart.
pub(super) type Due = (u32, u64);

#[derive(Debug)]
struct Sessions {
    /// By expiry. What was evicted early stays listed until it would have expired.
    by_expiry: VecDeque<(u32, Digest)>,
    /// Under which second and ticket the registry has this principal down, if any. An entry there that is not this one
    /// was overtaken by an earlier expiry and means nothing.
    due: Option<Due>,
    /// It was taken out of the registry; nothing may be listed here any more.
    retired: bool,
}

impl Principal {
    pub(super) fn new(account: AccountName, client: Client, groups: &Groups, terms: Terms) -> Self {
        Self::with(account, client, groups.iter().cloned().collect(), terms)
    }

    fn with(account: AccountName, client: Client, groups: Box<[GroupId]>, terms: Terms) -> Self {
        let sessions = Sessions { by_expiry: VecDeque::new(), due: None, retired: false };
        Self {
            serial: NUMBERS.fetch_add(1, Ordering::Relaxed),
            account,
            client,
            groups,
            terms,
            // No generation is this one, so the first look compares.
            generation: AtomicU64::new(u64::MAX),
            cutoff: AtomicU64::new(0),
            sessions: Mutex::new(sessions),
        }
    }

    /// The same principal with no sessions, to take the place of a retired one.
    pub(super) fn renewed(&self) -> Self {
        Self::with(self.account.clone(), self.client.clone(), self.groups.clone(), self.terms.clone())
    }

    /// Its number, from 1 on, which no other principal of this process ever has.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The account: `sub`.
    pub fn account(&self) -> &AccountName {
        &self.account
    }

    /// The credential.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The groups, in order.
    pub fn groups(&self) -> &[GroupId] {
        &self.groups
    }

    /// What it is bound to beyond that.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether it may be used by a client at `address`.
    pub fn admits(&self, address: IpAddr) -> bool {
        self.terms.networks.as_ref().is_none_or(|networks| networks.contain(address))
    }

    /// Whether it reaches `group`.
    pub fn reaches(&self, group: &GroupId) -> bool {
        self.groups.contains(group)
    }

    /// Whether it is the published demo credential.
    pub fn is_demo(&self) -> bool {
        self.account.as_str() == demo::DEMO
    }

    /// Sessions issued before this are dead. Asks the revocations only when there are new ones.
    pub(super) fn cutoff(&self, revocations: &Revocations) -> Cutoff {
        let generation = revocations.generation();
        if self.generation.load(Ordering::Acquire) == generation {
            return Cutoff(self.cutoff.load(Ordering::Relaxed));
        }
        let key = match &self.client {
            Client::Key(id) => Some(id),
            Client::Password => None,
        };
        let cutoff = revocations.cutoff(&self.account, key);
        let cutoff = self.cutoff.fetch_max(cutoff.0, Ordering::Relaxed).max(cutoff.0);
        // The generation read before the cut-off was taken: a revocation in between is seen at the next look.
        self.generation.store(generation, Ordering::Release);
        Cutoff(cutoff)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a session. `None` when this principal is retired; else the place to put it down at, if that is new.
    pub(super) fn enlist(&self, expires_at: u32, digest: Digest, ticket: u64) -> Option<Option<Due>> {
        let mut sessions = self.sessions();
        if sessions.retired {
            return None;
        }
        let place = sessions.by_expiry.partition_point(|(at, _)| *at <= expires_at);
        if sessions.by_expiry.capacity() == 0 {
            sessions.by_expiry.reserve_exact(1);
        }
        sessions.by_expiry.insert(place, (expires_at, digest));
        if sessions.due.is_some_and(|(due, _)| due <= expires_at) {
            return Some(None);
        }
        sessions.due = Some((expires_at, ticket));
        Some(sessions.due)
    }

    /// At its turn `due`: takes up to `most` sessions that have expired at `now`, and says where to put it down next.
    /// `None` when the turn was overtaken.
    pub(super) fn expire(&self, due: Due, now: u32, most: usize, ticket: u64) -> Option<(Vec<Digest>, Option<Due>)> {
        let mut sessions = self.sessions();
        if sessions.due != Some(due) {
            return None;
        }
        let expired = sessions.by_expiry.iter().take(most).take_while(|(at, _)| *at <= now).count();
        let expired = sessions.by_expiry.drain(..expired).map(|(_, digest)| digest).collect();
        Some((expired, sessions.reschedule(ticket)))
    }

    /// At its turn `due`: takes the session that expires first, and says where to put it down next. `None` when the turn
    /// was overtaken.
    pub(super) fn take_first(&self, due: Due, ticket: u64) -> Option<(Option<Digest>, Option<Due>)> {
        let mut sessions = self.sessions();
        if sessions.due != Some(due) {
            return None;
        }
        let first = sessions.by_expiry.pop_front().map(|(_, digest)| digest);
        Some((first, sessions.reschedule(ticket)))
    }

    /// Ends it, if it has no sessions and is not put down for any.
    pub(super) fn retire(&self) -> bool {
        let mut sessions = self.sessions();
        sessions.retired |= sessions.by_expiry.is_empty() && sessions.due.is_none();
        sessions.retired
    }

    pub(super) fn digests(&self) -> Vec<Digest> {
        self.sessions().by_expiry.iter().map(|(_, digest)| *digest).collect()
    }
}

impl Sessions {
    fn reschedule(&mut self, ticket: u64) -> Option<Due> {
        self.due = self.by_expiry.front().map(|(at, _)| (*at, ticket));
        if self.by_expiry.capacity() > 64 && self.by_expiry.len() * 4 < self.by_expiry.capacity() {
            self.by_expiry.shrink_to_fit();
        }
        self.due
    }
}

impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        (&self.account, &self.client, &self.groups, &self.terms)
            == (&other.account, &other.client, &other.groups, &other.terms)
    }
}

impl Eq for Principal {}

impl Hash for Principal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.account, &self.client, &self.groups, &self.terms).hash(state);
    }
}
