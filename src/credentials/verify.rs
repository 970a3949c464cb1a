//! Verifying a credential: cheap checks first, argon2 once, and from then on from memory.
//!
//! What is remembered is that a credential was right (by a keyed MAC of it, never itself) and what the store said of its
//! records. A change in the store evicts the records it concerns; see [`Verifier::forget`] for the order that makes
//! this safe.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;
use dashmap::DashMap;
use subtle::ConstantTimeEq;

use super::standing::{GroupLives, Reach, Standing};
use super::{Busy, HashError, HashPool, Match, Outcome, PasswordHash, Presented, Reason, Settings};
use crate::accounts::{Account, AccountStore};
use crate::client_addr;
use crate::clock::{Clock, Timestamp};
use crate::groups::{GroupStore, demo};
use crate::ids::{AccountName, Groups, KeyId};
use crate::keys::{ApiKey, Key, KeyPrefix, KeyStore};
use crate::licences::LicenceStore;
use crate::limits::{Limiter, Rate};
use crate::persist::{self, Cut, Update};
use crate::random;
use crate::revocations::{Change, Revocations};
use crate::secret::Secret;
use crate::tokens::{Client, Grant};

/// Addresses and user-ids whose failures are remembered, each.
const MOST_FAILURES: usize = 200_000;

/// How long memory may go unconfirmed by the store before it is asked only when the store does not answer.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

type Mac = [u8; 32];

/// Which credential: a key by its id, or an account's password.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Credential {
    Key(KeyId),
    Password(AccountName),
}

impl std::fmt::Display for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(id) => write!(f, "key {id}"),
            Self::Password(name) => write!(f, "password of {name}"),
        }
    }
}

/// What the store says a credential must match, and what it is limited to.
#[derive(Clone)]
struct Record {
    hash: PasswordHash,
    account: AccountName,
    only: Option<Groups>,
    ends_at: Option<Timestamp>,
}

/// A credential that was right when it was last looked at.
#[derive(Clone)]
struct Proven {
    mac: Mac,
    record: Record,
    read_at: Timestamp,
}

/// Where records are read.
#[derive(Clone)]
pub struct Stores {
    /// Accounts.
    pub accounts: Arc<dyn AccountStore>,
    /// Keys.
    pub keys: Arc<dyn KeyStore>,
    /// Licences.
    pub licences: Arc<dyn LicenceStore>,
    /// Groups.
    pub groups: Arc<dyn GroupStore>,
}

/// Verifies credentials; see the module.
pub struct Verifier {
    settings: Settings,
    prefix: KeyPrefix,
    demo_is_open: bool,
    stores: Stores,
    clock: Arc<dyn Clock>,
    revocations: Arc<Revocations>,
    pool: HashPool,
    mac_key: hmac::Key,
    proven: DashMap<Credential, Proven>,
    standings: DashMap<AccountName, Arc<Standing>>,
    lives: ArcSwapOption<GroupLives>,
    /// Moves when anything is forgotten: what was read before must not be remembered after.
    epoch: AtomicU64,
    /// When memory was last known to agree with the store, in milliseconds.
    synced_at: AtomicU64,
    by_address: Limiter<IpAddr>,
    by_user: Limiter<Mac>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("proven", &self.proven.len()).finish_non_exhaustive()
    }
}

/// Why a verification ended without a grant.
enum Stop {
    Rejected(Reason),
    Throttled(Duration),
    Busy,
    Store(persist::Error),
}

impl From<Busy> for Stop {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

impl From<persist::Error> for Stop {
    fn from(error: persist::Error) -> Self {
        Self::Store(error)
    }
}

/// One presentation of a credential.
struct Attempt {
    credential: Credential,
    secret: Secret<String>,
    mac: Mac,
    from: IpAddr,
    began_at: Timestamp,
}

impl Verifier {
    /// A verifier with nothing remembered yet, and its hashing threads started.
    ///
    /// # Errors
    /// [`HashError::Parameters`].
    pub fn start(
        settings: &Settings,
        prefix: &KeyPrefix,
        demo_is_open: bool,
        stores: Stores,
        revocations: Arc<Revocations>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, HashError> {
        Ok(Self {
            pool: HashPool::start(settings)?,
            prefix: prefix.clone(),
            demo_is_open,
            stores,
            revocations,
            mac_key: hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()),
            proven: DashMap::new(),
            standings: DashMap::new(),
            lives: ArcSwapOption::empty(),
            epoch: AtomicU64::new(0),
            synced_at: AtomicU64::new(clock.now().millis()),
            by_address: Limiter::new(settings.failures_per_address, MOST_FAILURES),
            by_user: Limiter::new(settings.failures_per_user, MOST_FAILURES),
            settings: settings.clone(),
            clock,
        })
    }

    /// What keys of this installation begin with.
    pub fn prefix(&self) -> &KeyPrefix {
        &self.prefix
    }

    /// Verifies what a caller at `from` presented.
    pub async fn verify(self: &Arc<Self>, presented: Presented, from: IpAddr) -> Outcome {
        let from = client_addr::network(from);
        let (credential, secret, otherwise) = match presented {
            Presented::Wrong(reason) => {
                return match self.by_address.peek(&from, self.clock.now()) {
                    Ok(()) => self.rejected(reason, from, None),
                    Err(wait) => Outcome::Throttled(wait),
                };
            }
            Presented::Key(key) if *key.id() == demo::key_id() => return self.verify_demo(&key, from),
            Presented::Key(key) => (Credential::Key(*key.id()), key.secret().clone(), None),
            Presented::Password { user_id, password, otherwise } => match user_id.parse() {
                Ok(name) => (Credential::Password(name), password, otherwise),
                Err(_) => return self.reject_unknown(&user_id, password, from).await,
            },
        };
        let (secret, otherwise) = match otherwise {
            // The one that was right before is likely to be right again, and costs no hash.
            Some(other) if self.is_remembered(&credential, &other) => (other, Some(secret)),
            otherwise => (secret, otherwise),
        };
        let mut ended = self.attempt(&credential, secret, from).await;
        // Tried where there is no such account as well, so that the time says nothing of that.
        if let (Err((Stop::Rejected(_), Some(_))), Some(other)) = (&ended, otherwise) {
            ended = self.attempt(&credential, other, from).await;
        }
        match ended {
            Ok(grant) => Outcome::Verified(grant),
            // Whatever was tried, it is one failure.
            Err((Stop::Rejected(reason), user)) => self.rejected(reason, from, user),
            Err((Stop::Throttled(wait), _)) => Outcome::Throttled(wait),
            Err((Stop::Busy, _)) => Outcome::Busy,
            Err((Stop::Store(error), _)) => Outcome::Unavailable(error),
        }
    }

    /// Tries one reading of a credential. With what ended it comes whose failure that is, where it counts as somebody's.
    async fn attempt(
        self: &Arc<Self>,
        credential: &Credential,
        secret: Secret<String>,
        from: IpAddr,
    ) -> Result<Grant, (Stop, Option<Mac>)> {
        let mac = self.mac(secret.expose().as_bytes());
        // A revocation may arrive while the records are read. It is rare, and then they are read once more.
        for _ in 0..4 {
            let generation = self.revocations.generation();
            let (credential, secret) = (credential.clone(), secret.clone());
            let attempt = Arc::new(Attempt { credential, secret, mac, from, began_at: self.clock.now() });
            match self.grant(&attempt).await {
                Ok(grant) if self.revocations.generation() == generation => return Ok(grant),
                Ok(_) => {}
                Err(Stop::Rejected(reason)) => {
                    let user = matches!(reason, Reason::WrongSecret | Reason::UnknownAccount | Reason::NoPassword);
                    return Err((Stop::Rejected(reason), user.then(|| self.user(&attempt))));
                }
                Err(stop) => return Err((stop, None)),
            }
        }
        Err((Stop::Busy, None))
    }

    fn is_remembered(&self, credential: &Credential, secret: &Secret<String>) -> bool {
        let mac = self.mac(secret.expose().as_bytes());
        self.proven.get(credential).is_some_and(|proven| bool::from(proven.mac.ct_eq(&mac)))
    }

    /// The demo key is published, so it is compared and not hashed; it reaches the Demo group and nothing else.
    fn verify_demo(&self, key: &ApiKey, from: IpAddr) -> Outcome {
        if !self.demo_is_open || !demo::is_key(&self.prefix, key) {
            return self.rejected(Reason::UnknownKey, from, None);
        }
        Outcome::Verified(self.demo_grant())
    }

    /// What the demo key may have.
    pub fn demo_grant(&self) -> Grant {
        let (account, key) = (demo::account(), demo::key_id());
        Grant {
            cutoff: self.revocations.cutoff(&account, Some(&key)),
            account,
            client: Client::Key(key),
            groups: demo::groups(),
            not_after: None,
            longest: None,
            known_at: self.clock.now(),
        }
    }

    /// A user-id that no account can have costs what a wrong password costs.
    async fn reject_unknown(&self, user_id: &str, password: Secret<String>, from: IpAddr) -> Outcome {
        let user = self.mac(user_id.as_bytes());
        if let Err(wait) = self.throttled(from, &user) {
            return Outcome::Throttled(wait);
        }
        match self.pool.run(move |hasher| hasher.waste(password.expose().as_bytes())).await {
            Ok(()) => self.rejected(Reason::UnknownAccount, from, Some(user)),
            Err(Busy) => Outcome::Busy,
        }
    }

    fn rejected(&self, reason: Reason, from: IpAddr, user: Option<Mac>) -> Outcome {
        let now = self.clock.now();
        // Being over the limit already changes nothing for this one: it was let through before.
        let _ = self.by_address.charge(&from, now);
        if let Some(user) = user {
            let _ = self.by_user.charge(&user, now);
        }
        Outcome::Rejected(reason)
    }

    fn throttled(&self, from: IpAddr, user: &Mac) -> Result<(), Duration> {
        let now = self.clock.now();
        self.by_address.peek(&from, now)?;
        self.by_user.peek(user, now)
    }

    fn mac(&self, secret: &[u8]) -> Mac {
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&self.mac_key, secret).as_ref());
        mac
    }

    /// Whose failures count together. For a key it is the whole key: whoever only knows its id cannot lock its holder out.
    fn user(&self, attempt: &Attempt) -> Mac {
        match &attempt.credential {
            Credential::Key(_) => attempt.mac,
            Credential::Password(name) => self.mac(name.as_str().as_bytes()),
        }
    }

    async fn grant(self: &Arc<Self>, attempt: &Arc<Attempt>) -> Result<Grant, Stop> {
        let synced_at = Timestamp::from_millis(self.synced_at.load(Ordering::Acquire));
        // Memory that the store has not confirmed for a while is asked only when the store does not answer.
        // A clock that was set back says nothing about how old memory is.
        let trusted = attempt.began_at >= synced_at && attempt.began_at.since(synced_at) <= TRUSTED_FOR;
        let (record, mut known_at) = match self.remembered(attempt, trusted).await? {
            Some((record, true)) => (record, attempt.began_at),
            Some((record, false)) => (record, synced_at.min(attempt.began_at)),
            None => (self.prove(attempt).await?, attempt.began_at),
        };
        let (standing, standing_is_fresh) = self.standing(&record.account, attempt.began_at, trusted).await?;
        if !standing_is_fresh {
            known_at = known_at.min(synced_at);
        }
        let (lives, lives_are_fresh) = self.lives(trusted).await?;
        if !lives_are_fresh {
            known_at = known_at.min(synced_at);
        }
        let Reach { groups, not_after, longest } = standing
            .reach(record.only.as_ref(), record.ends_at, &lives, self.demo_is_open, self.clock.now())
            .map_err(Stop::Rejected)?;
        let (client, key) = match &attempt.credential {
            Credential::Key(id) => (Client::Key(*id), Some(id)),
            Credential::Password(_) => (Client::Password, None),
        };
        let cutoff = self.revocations.cutoff(&record.account, key);
        Ok(Grant { account: record.account, client, groups, not_after, longest, cutoff, known_at })
    }

    /// The record of a credential that was proven before, and whether it was read from the store just now.
    async fn remembered(&self, attempt: &Attempt, trusted: bool) -> Result<Option<(Record, bool)>, Stop> {
        let Some(proven) = self.proven.get(&attempt.credential).map(|found| found.clone()) else {
            return Ok(None);
        };
        if !bool::from(proven.mac.ct_eq(&attempt.mac)) {
            return Ok(None);
        }
        let now = attempt.began_at;
        if trusted && now.since(proven.read_at) < self.settings.cache_ttl {
            // The store need not be asked what the clock can tell.
            if proven.record.ends_at.is_some_and(|end| now >= end) {
                return Err(Stop::Rejected(Reason::KeyNotLive));
            }
            return Ok(Some((proven.record, false)));
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        match self.record(&attempt.credential, now).await {
            Ok(record) if record.hash == proven.record.hash => {
                self.remember(attempt, record.clone(), epoch);
                Ok(Some((record, true)))
            }
            Ok(_) => {
                self.proven.remove(&attempt.credential);
                Ok(None)
            }
            Err(Stop::Store(error)) => {
                tracing::warn!(error = %error, "the store is away: a credential verified before is taken from memory");
                Ok(Some((proven.record, false)))
            }
            Err(stop) => {
                self.proven.remove(&attempt.credential);
                Err(stop)
            }
        }
    }

    /// Proves a credential by its argon2id hash, and remembers that it was right.
    async fn prove(self: &Arc<Self>, attempt: &Arc<Attempt>) -> Result<Record, Stop> {
        self.throttled(attempt.from, &self.user(attempt)).map_err(Stop::Throttled)?;
        let epoch = self.epoch.load(Ordering::Acquire);
        let record = match self.record(&attempt.credential, attempt.began_at).await {
            Ok(record) => record,
            // An unknown user costs what a wrong password costs. Ids of keys are no secret, so that costs nothing.
            Err(Stop::Rejected(reason)) if matches!(attempt.credential, Credential::Password(_)) => {
                let attempt = Arc::clone(attempt);
                self.pool.run(move |hasher| hasher.waste(attempt.secret.expose().as_bytes())).await?;
                return Err(Stop::Rejected(reason));
            }
            Err(stop) => return Err(stop),
        };
        let matched = {
            let (verifier, attempt, record) = (Arc::clone(self), Arc::clone(attempt), record.clone());
            self.pool
                .run(move |hasher| {
                    // Of many that came at once with the same credential, one is hashed.
                    let known = verifier.proven.get(&attempt.credential).is_some_and(|proven| {
                        bool::from(proven.mac.ct_eq(&attempt.mac)) && proven.record.hash == record.hash
                    });
                    if known {
                        return Ok(Match::Yes);
                    }
                    let matched = hasher.verify(attempt.secret.expose().as_bytes(), &record.hash)?;
                    if matched != Match::No {
                        verifier.remember(&attempt, record, epoch);
                    }
                    Ok::<_, HashError>(matched)
                })
                .await?
        };
        match matched {
            Ok(Match::Yes) => Ok(record),
            Ok(Match::Outdated) => {
                let (verifier, attempt, outdated) = (Arc::clone(self), Arc::clone(attempt), record.hash.clone());
                tokio::spawn(async move { verifier.rehash(&attempt, outdated).await });
                Ok(record)
            }
            Ok(Match::No) => Err(Stop::Rejected(Reason::WrongSecret)),
            Err(error) => {
                tracing::error!(error = %error, credential = %attempt.credential, "a stored hash cannot be used");
                Err(Stop::Rejected(Reason::UnreadableHash))
            }
        }
    }

    /// Replaces a hash that was made with weaker parameters than today's, unless it was replaced meanwhile.
    async fn rehash(&self, attempt: &Arc<Attempt>, outdated: PasswordHash) {
        let hashing = Arc::clone(attempt);
        let Ok(Ok(hash)) = self.pool.run(move |hasher| hasher.hash(hashing.secret.expose().as_bytes())).await else {
            return;
        };
        let replaced = match &attempt.credential {
            Credential::Key(id) => {
                let change = |key: Key| match key.hash == outdated {
                    true => Update::Write(Key { hash: hash.clone(), ..key }, Cut::No),
                    false => Update::Keep,
                };
                self.stores.keys.update_key(id, &change).await.map(drop)
            }
            Credential::Password(name) => {
                let change = |account: Account| match account.password.as_ref() == Some(&outdated) {
                    true => Update::Write(Account { password: Some(hash.clone()), ..account }, Cut::No),
                    false => Update::Keep,
                };
                self.stores.accounts.update_account(name, &change).await.map(drop)
            }
        };
        match replaced {
            Ok(()) => tracing::info!(credential = %attempt.credential, "hashed anew with today's parameters"),
            Err(error) => tracing::warn!(error = %error, credential = %attempt.credential, "could not be hashed anew"),
        }
    }

    /// Remembers a proof, unless something was forgotten since its record was read.
    fn remember(&self, attempt: &Attempt, record: Record, epoch: u64) {
        if self.proven.len() >= self.settings.cache_size {
            self.shrink(attempt.began_at);
        }
        // Under the entry's lock: whoever forgets has moved the epoch before it removes, so that what is stale is either not
        // put in or taken out, and nobody sees it in between.
        let entry = self.proven.entry(attempt.credential.clone());
        if self.epoch.load(Ordering::Acquire) == epoch {
            entry.insert(Proven { mac: attempt.mac, record, read_at: attempt.began_at });
        }
    }

    /// Makes room: first what is old, then one in eight of the rest.
    fn shrink(&self, now: Timestamp) {
        self.proven.retain(|_, proven| now.since(proven.read_at) < self.settings.cache_ttl);
        if self.proven.len() >= self.settings.cache_size {
            self.proven.retain(|_, proven| proven.mac[0] & 7 != 0);
        }
    }

    /// What the store says a credential must match now.
    async fn record(&self, credential: &Credential, now: Timestamp) -> Result<Record, Stop> {
        match credential {
            Credential::Key(id) => {
                let key = self.stores.keys.key(id).await?.ok_or(Stop::Rejected(Reason::UnknownKey))?;
                if !key.is_live(now) {
                    return Err(Stop::Rejected(Reason::KeyNotLive));
                }
                Ok(Record { hash: key.hash, account: key.account, only: key.groups, ends_at: key.expires_at })
            }
            Credential::Password(name) => {
                let account = self.stores.accounts.account(name).await?;
                let account = account.ok_or(Stop::Rejected(Reason::UnknownAccount))?;
                let hash = account.password.ok_or(Stop::Rejected(Reason::NoPassword))?;
                Ok(Record { hash, account: account.name, only: None, ends_at: None })
            }
        }
    }

    /// An account with its licences, and whether it was read from the store just now.
    async fn standing(&self, name: &AccountName, now: Timestamp, trusted: bool) -> Result<(Arc<Standing>, bool), Stop> {
        let held = self.standings.get(name).map(|found| Arc::clone(&found));
        if let Some(held) = &held
            && trusted
            && now.since(held.read_at) < self.settings.cache_ttl
        {
            return Ok((Arc::clone(held), false));
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let read = async {
            let account = self.stores.accounts.account(name).await?;
            let licences = self.stores.licences.licences(Some(name)).await?;
            Ok(account.map(|account| Standing { account, licences, read_at: now }))
        };
        match (read.await, held) {
            (Ok(None), _) => Err(Stop::Rejected(Reason::UnknownAccount)),
            (Ok(Some(standing)), _) => {
                let standing = Arc::new(standing);
                if self.standings.len() >= self.settings.cache_size {
                    self.standings.retain(|_, held| now.since(held.read_at) < self.settings.cache_ttl);
                }
                if self.standings.len() < self.settings.cache_size {
                    // As in `remember`.
                    let entry = self.standings.entry(name.clone());
                    if self.epoch.load(Ordering::Acquire) == epoch {
                        entry.insert(Arc::clone(&standing));
                    }
                }
                Ok((standing, true))
            }
            (Err(_), Some(held)) => Ok((held, false)),
            (Err(error), None) => Err(Stop::Store(error)),
        }
    }

    /// All groups with the token lives they allow, and whether they were read from the store just now.
    async fn lives(&self, trusted: bool) -> Result<(Arc<GroupLives>, bool), Stop> {
        let held = self.lives.load_full();
        if let Some(held) = &held
            && trusted
        {
            return Ok((Arc::clone(held), false));
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        match (self.stores.groups.groups().await, held) {
            (Ok(groups), _) => {
                let lives: GroupLives = groups.into_iter().map(|group| (group.id, group.token_lifetime)).collect();
                let lives = Arc::new(lives);
                self.lives.store(Some(Arc::clone(&lives)));
                if self.epoch.load(Ordering::Acquire) != epoch {
                    self.lives.store(None);
                }
                Ok((lives, true))
            }
            (Err(_), Some(held)) => Ok((held, false)),
            (Err(error), None) => Err(Stop::Store(error)),
        }
    }

    /// Forgets the records that changed in the store. Must be called *before* the revocations that came with the changes
    /// are put into force: a verification that took a record from memory before this call notices the revocation after it
    /// and starts again, or its token bears an `iat` that the revocation covers.
    pub fn forget(&self, changes: &[Change]) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for change in changes {
            match change {
                Change::Key(id) => {
                    self.proven.remove(&Credential::Key(*id));
                }
                Change::Account(name) => {
                    self.proven.remove(&Credential::Password(name.clone()));
                    self.standings.remove(name);
                }
                Change::Licence(account) => {
                    self.standings.remove(account);
                }
                Change::Group(_) => self.lives.store(None),
                Change::SigningKeys | Change::Revoked(_) => {}
            }
        }
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.proven.clear();
        self.standings.clear();
        self.lives.store(None);
    }

    /// Says that memory agreed with the store at `at`: every change until then was forgotten and put into force.
    pub fn synced(&self, at: Timestamp) {
        self.synced_at.store(at.millis(), Ordering::Release);
    }

    /// When memory last agreed with the store.
    pub fn synced_at(&self) -> Timestamp {
        Timestamp::from_millis(self.synced_at.load(Ordering::Acquire))
    }

    /// Keeps other rates of failures from now on.
    pub fn set_failures(&self, per_address: Rate, per_user: Rate) {
        self.by_address.set(per_address);
        self.by_user.set(per_user);
    }

    /// Drops the failures that count no more.
    pub fn forget_failures(&self) {
        let now = self.clock.now();
        self.by_address.forget(now);
        self.by_user.forget(now);
    }

    /// How many credentials are remembered.
    pub fn remembered_credentials(&self) -> usize {
        self.proven.len()
    }
}
