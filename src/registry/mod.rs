//! The registry of live tokens: what makes a guarded request cheap, and a revocation immediate.
//!
//! Maps the SHA-256 of a compact token to its session. A token found here was issued or verified by this process before,
//! so it needs no signature check; one that is not found is verified and admitted. The registry may therefore be bounded and
//! may be lost: it is never the only proof.
//!
//! Sessions of one credential share a [`Principal`], which also orders them by expiry. The sweeper sees one entry per
//! principal, so neither admission nor sweeping scans the map.

mod principal;

use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use dashmap::DashMap;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::clock::Timestamp;
use crate::ids::{AccountName, TokenId};
use crate::revocations::{Revocation, Revocations};
use crate::tokens::{Client, MOST_AHEAD, Token};

use principal::Due;

pub use principal::Principal;

/// SHA-256 of a compact token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of a token as presented.
    pub fn of(jwt: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, jwt).as_ref());
        Self(out)
    }
}

impl std::hash::Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// A SHA-256 is its own hash: eight bytes of it are as good as any function of it, and nobody can choose them.
#[derive(Default)]
pub struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut first = [0; 8];
        first.copy_from_slice(&bytes[..8]);
        self.0 = u64::from_ne_bytes(first);
    }
}

/// Many small shards: the growth of one stalls its readers for microseconds, not milliseconds.
const SHARDS: usize = 1024;

/// How many expired sessions are dropped while one principal is locked.
const SWEEP_AT_ONCE: usize = 256;

/// One live token.
#[derive(Clone, Debug)]
pub struct Session {
    principal: Arc<Principal>,
    id: TokenId,
    issued_at: u32,
    expires_at: u32,
}

impl Session {
    fn of(token: &Token, principal: Arc<Principal>) -> Self {
        let seconds = |at| u32::try_from(at).unwrap_or(u32::MAX);
        let (issued_at, expires_at) = (seconds(token.issued_at), seconds(token.expires_at));
        Self { principal, id: token.id, issued_at, expires_at }
    }

    /// Whose it is.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// Its `jti`.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// When it was issued.
    pub fn issued_at(&self) -> Timestamp {
        Timestamp::from_secs(u64::from(self.issued_at))
    }

    /// When it expires.
    pub fn expires_at(&self) -> Timestamp {
        Timestamp::from_secs(u64::from(self.expires_at))
    }
}

/// What the registry knows of a presented token.
#[derive(Debug)]
pub enum Lookup {
    /// It is live.
    Live(Session),
    /// It had expired, and was evicted just now.
    Expired(Session),
    /// It was revoked, and was evicted just now.
    Revoked(Session),
    /// Nothing: it must be verified.
    Unknown,
}

/// What the registry has counted since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evictions {
    /// Found expired when presented.
    pub on_read: u64,
    /// Found expired by the sweeper.
    pub swept: u64,
    /// Made room for newer ones.
    pub for_room: u64,
    /// Found revoked.
    pub revoked: u64,
}

/// The live tokens of this process.
#[derive(Debug)]
pub struct Registry {
    sessions: DashMap<Digest, Session, BuildHasherDefault<IdentityHasher>>,
    principals: DashMap<Arc<Principal>, ()>,
    revocations: Arc<Revocations>,
    /// By expiry of its first session, every principal that has any.
    due: Mutex<BTreeMap<Due, Arc<Principal>>>,
    earlier: Notify,
    revoked_some: Notify,
    live: AtomicUsize,
    most: usize,
    leeway: Duration,
    on_read: AtomicU64,
    swept: AtomicU64,
    for_room: AtomicU64,
    revoked: AtomicU64,
    tickets: AtomicU64,
}

impl Registry {
    /// An empty registry that holds at most `most` sessions.
    pub fn new(most: usize) -> Self {
        Self {
            sessions: DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), SHARDS),
            principals: DashMap::new(),
            revocations: Arc::default(),
            due: Mutex::default(),
            earlier: Notify::new(),
            revoked_some: Notify::new(),
            live: AtomicUsize::new(0),
            most: most.max(1),
            leeway: Duration::ZERO,
            on_read: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            for_room: AtomicU64::new(0),
            revoked: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
        }
    }

    /// Keeps sessions for so long after their expiry: clocks may differ by as much, and a token that is verified as good must
    /// not be found expired here.
    pub fn with_leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// The revocations in force here.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Puts a revocation into force: tokens it ends are refused from now on, and leave memory when they are presented or
    /// would have expired.
    pub fn revoke(&self, revocation: &Revocation) {
        self.revocations.apply(revocation);
        self.revoked_some.notify_waiters();
    }

    /// Waits for the next revocation, of whatever it may be. Must be enabled before the state is looked at.
    pub fn next_revocation(&self) -> Notified<'_> {
        self.revoked_some.notified()
    }

    /// Finds a presented token and checks expiry and revocation; what is dead is evicted on the spot.
    pub fn look_up(&self, digest: &Digest, now: Timestamp) -> Lookup {
        // The guard ends with this statement: nothing below may run under a shard's lock.
        let Some(session) = self.sessions.get(digest).map(|found| found.clone()) else {
            return Lookup::Unknown;
        };
        if now >= session.expires_at() + self.leeway {
            if self.evict(digest) {
                self.on_read.fetch_add(1, Ordering::Relaxed);
            }
            return Lookup::Expired(session);
        }
        // The clock was ahead when it was issued. Revocations from now on would not reach it, so it is no better known than
        // elsewhere, where it is not valid yet.
        if session.issued_at() > now + self.leeway + MOST_AHEAD {
            return Lookup::Unknown;
        }
        if self.is_revoked(&session) {
            if self.evict(digest) {
                self.revoked.fetch_add(1, Ordering::Relaxed);
            }
            return Lookup::Revoked(session);
        }
        Lookup::Live(session)
    }

    /// Takes in a token that was just issued or verified. `None` when a revocation ends it.
    pub fn admit(&self, digest: Digest, token: &Token, now: Timestamp) -> Option<Session> {
        let session = Session::of(token, self.intern(token));
        if self.is_revoked(&session) {
            return None;
        }
        self.sweep_some(now);
        while self.live.load(Ordering::Relaxed) >= self.most && self.make_room() {}
        if self.sessions.insert(digest, session.clone()).is_some() {
            // Another request admitted the same token meanwhile: it is listed already.
            return Some(session);
        }
        self.live.fetch_add(1, Ordering::Relaxed);
        self.enlist(digest, session)
    }

    /// The session that a verified token would be, without taking it in. `None` when a revocation ends it.
    pub fn regard(&self, token: &Token) -> Option<Session> {
        let session = Session::of(token, Arc::new(principal_of(token)));
        (!self.is_revoked(&session)).then_some(session)
    }

    /// The session that a token of ours was, or would be, though it is not good now: for the records of who was refused. It is
    /// not taken in.
    pub fn once(&self, token: &Token) -> Session {
        let candidate = principal_of(token);
        let known = self.principals.get(&candidate).map(|found| Arc::clone(found.key()));
        Session::of(token, known.unwrap_or_else(|| Arc::new(candidate)))
    }

    /// Lists the session under its principal, which may have been retired by the sweeper since it was looked up.
    fn enlist(&self, digest: Digest, mut session: Session) -> Option<Session> {
        loop {
            if let Some(due) = session.principal.enlist(session.expires_at, digest, self.ticket()) {
                if let Some(due) = due {
                    self.schedule(due, Arc::clone(&session.principal));
                }
                return Some(session);
            }
            session.principal = self.intern_principal(session.principal.renewed());
            if self.sessions.insert(digest, session.clone()).is_none() {
                // It was evicted meanwhile.
                self.live.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether a revocation in force ends this session.
    pub fn is_revoked(&self, session: &Session) -> bool {
        u64::from(session.issued_at) < session.principal.cutoff(&self.revocations).0
            || self.revocations.has_token(session.id)
    }

    fn evict(&self, digest: &Digest) -> bool {
        let gone = self.sessions.remove(digest).is_some();
        if gone {
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
        gone
    }

    fn intern(&self, token: &Token) -> Arc<Principal> {
        self.intern_principal(principal_of(token))
    }

    fn intern_principal(&self, candidate: Principal) -> Arc<Principal> {
        if let Some(found) = self.principals.get(&candidate) {
            return Arc::clone(found.key());
        }
        let candidate = Arc::new(candidate);
        self.principals.entry(Arc::clone(&candidate)).or_insert(());
        // Of two that came at once, the one that was first is in the map.
        self.principals.get(&candidate).map_or(candidate, |found| Arc::clone(found.key()))
    }

    fn due(&self) -> MutexGuard<'_, BTreeMap<Due, Arc<Principal>>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    fn schedule(&self, at: Due, principal: Arc<Principal>) {
        let mut due = self.due();
        let is_first = due.first_key_value().is_none_or(|(first, _)| at.0 < first.0);
        due.insert(at, principal);
        drop(due);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// When the first session ends, leeway included.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.due().first_key_value().map(|((at, _), _)| Timestamp::from_secs(u64::from(*at)) + self.leeway)
    }

    /// Waits until a session is admitted that ends before all others.
    pub async fn earlier_expiry(&self) {
        self.earlier.notified().await;
    }

    /// Evicts everything that has expired at `now`, without a scan and without holding any lock for long. Returns how many.
    pub fn sweep(&self, now: Timestamp) -> usize {
        let mut evicted = 0;
        while let Some(some) = self.sweep_one(now) {
            evicted += some;
        }
        evicted
    }

    /// Forgets every session, so that each token is verified anew when it is next presented.
    pub fn forget_all(&self) {
        self.sweep(Timestamp::from_secs(u64::from(u32::MAX)));
    }

    /// A full registry is swept by those who need room, so that it does not depend on the sweeper's turn.
    fn sweep_some(&self, now: Timestamp) {
        if self.live.load(Ordering::Relaxed) >= self.most {
            self.sweep_one(now);
        }
    }

    /// Takes one principal that is due and drops some of its expired sessions.
    fn sweep_one(&self, now: Timestamp) -> Option<usize> {
        let now = u32::try_from(now.secs().saturating_sub(self.leeway.as_secs())).unwrap_or(u32::MAX);
        let (turn, principal) = {
            let mut due = self.due();
            let first = due.first_entry()?;
            if first.key().0 > now {
                return None;
            }
            first.remove_entry()
        };
        let Some((expired, next)) = principal.expire(turn, now, SWEEP_AT_ONCE, self.ticket()) else {
            return Some(0);
        };
        let gone = expired.iter().filter(|digest| self.evict(digest)).count();
        self.swept.fetch_add(gone as u64, Ordering::Relaxed);
        match next {
            Some(at) => self.schedule(at, principal),
            None => self.retire(&principal),
        }
        Some(gone)
    }

    /// Evicts the session that would expire first. `false` when there is none.
    fn make_room(&self) -> bool {
        let Some((turn, principal)) = self.due().pop_first() else {
            return false;
        };
        let Some((first, next)) = principal.take_first(turn, self.ticket()) else {
            return true;
        };
        if first.is_some_and(|digest| self.evict(&digest)) {
            self.for_room.fetch_add(1, Ordering::Relaxed);
        }
        match next {
            Some(at) => self.schedule(at, principal),
            None => self.retire(&principal),
        }
        true
    }

    fn retire(&self, principal: &Arc<Principal>) {
        if principal.retire() {
            // Its successor is equal to it, and must stay.
            self.principals.remove_if(principal, |held, ()| Arc::ptr_eq(held, principal));
        }
    }

    /// How many sessions are held.
    pub fn len(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many principals they belong to.
    pub fn principals(&self) -> usize {
        self.principals.len()
    }

    /// What was evicted so far, and why.
    pub fn evictions(&self) -> Evictions {
        Evictions {
            on_read: self.on_read.load(Ordering::Relaxed),
            swept: self.swept.load(Ordering::Relaxed),
            for_room: self.for_room.load(Ordering::Relaxed),
            revoked: self.revoked.load(Ordering::Relaxed),
        }
    }

    /// The live sessions of an account, or of one of its credentials, soonest to expire first.
    pub fn sessions_of(&self, account: &AccountName, client: Option<&Client>) -> Vec<Session> {
        let wanted: Vec<_> = self
            .principals
            .iter()
            .map(|entry| Arc::clone(entry.key()))
            .filter(|principal| {
                principal.account() == account && client.is_none_or(|client| principal.client() == client)
            })
            .collect();
        let mut sessions: Vec<_> = wanted
            .iter()
            .flat_map(|principal| principal.digests())
            .filter_map(|digest| self.sessions.get(&digest).map(|found| found.clone()))
            .filter(|session| !self.is_revoked(session))
            .collect();
        sessions.sort_by_key(|session| session.expires_at);
        sessions
    }
}

fn principal_of(token: &Token) -> Principal {
    Principal::new(token.account.clone(), token.client.clone(), &token.groups, token.terms.clone())
}

/// Evicts what expires, when it expires: wakes for the next expiry alone. Ends when it is dropped.
pub async fn keep_swept(registry: Arc<Registry>, clock: Arc<dyn crate::clock::Clock>) {
    loop {
        registry.sweep(clock.now());
        match registry.next_expiry() {
            Some(at) => tokio::select! {
                () = clock.sleep_until(at) => {}
                () = registry.earlier_expiry() => {}
            },
            None => registry.earlier_expiry().await,
        }
    }
}

#[cfg(test)]
mod tests;
