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

use super::defence::{Defence, Refused, Turn, User};
use super::standing::{GroupLives, Reach, Standing};
use super::{Busy, HashError, HashPool, Match, Outcome, PasswordHash, Presented, Reason, Settings};
use crate::accounts::{Account, AccountStore};
use crate::client_addr;
use crate::clock::{Clock, Timestamp};
use crate::groups::{GroupStore, demo};
use crate::ids::{AccountName, Groups, KeyId};
use crate::keys::{ApiKey, Key, KeyPrefix, KeyStore};
use crate::licences::{Documents, LicenceStore};
use crate::limits::Rate;
use crate::persist::{self, Cut, Update};
use crate::random;
use crate::revocations::{Change, Revocations};
use crate::secret::Secret;
use crate::tokens::{Client, Grant};

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
    defence: Defence,
    documents: Arc<Documents>,
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

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Throttled(wait) => Self::Throttled(wait),
            Refused::Busy => Self::Busy,
        }
    }
}

impl From<persist::Error> for Stop {
    fn from(error: persist::Error) -> Self {
        Self::Store(error)
    }
}

/// One reading of a credential that was presented.
struct Attempt {
    credential: Credential,
    secret: Secret<String>,
    mac: Mac,
    began_at: Timestamp,
}

/// One presentation of a credential, however it is read.
struct Login<'a> {
    from: IpAddr,
    /// Whose failures count together. For a key it is the whole key: whoever only knows its id cannot lock its holder out.
    user: User,
    /// Once there is something to prove. Whatever is tried, it is one failure.
    turn: Option<Turn<'a>>,
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
            defence: Defence::new(settings),
            settings: settings.clone(),
            clock,
            documents: Arc::default(),
        })
    }

    /// With licence documents of vendors that are believed; otherwise none is.
    pub fn with_documents(self, documents: Arc<Documents>) -> Self {
        Self { documents, ..self }
    }

    /// What keys of this installation begin with.
    pub fn prefix(&self) -> &KeyPrefix {
        &self.prefix
    }

    /// Verifies what a caller at `from` presented.
    pub async fn verify(self: &Arc<Self>, presented: Presented, from: IpAddr) -> Outcome {
        let from = client_addr::network(from);
        let (credential, secret, otherwise) = match presented {
            Presented::Wrong(reason) => return self.refuse(reason, from),
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
        let user = match &credential {
            Credential::Key(_) => self.mac(secret.expose().as_bytes()),
            Credential::Password(name) => self.mac(name.as_str().as_bytes()),
        };
        let mut login = Login { from, user, turn: None };
        let mut ended = self.attempt(&mut login, &credential, secret).await;
        // Tried where there is no such account as well, so that the time says nothing of that.
        if let (Err(Stop::Rejected(reason)), Some(other)) = (&ended, otherwise)
            && is_guess(*reason)
        {
            ended = self.attempt(&mut login, &credential, other).await;
        }
        self.settle(login, &credential, ended)
    }

    /// Says whose failure an attempt was, if it was one.
    fn settle(&self, login: Login<'_>, credential: &Credential, ended: Result<Grant, Stop>) -> Outcome {
        let Login { from, user, turn } = login;
        let now = self.clock.now();
        match (ended, turn) {
            (Ok(grant), turn) => {
                if let Some(turn) = turn {
                    turn.right(matches!(credential, Credential::Password(_)), now);
                }
                Outcome::Verified(grant)
            }
            (Err(Stop::Rejected(reason)), turn) => {
                match turn {
                    Some(turn) => turn.wrong(is_guess(reason)),
                    // Memory knew it to be no good. It was let through before, and is answered whatever else there was.
                    None => drop(self.defence.failed(from, is_guess(reason).then_some(&user), now)),
                }
                Outcome::Rejected(reason)
            }
            (Err(stop), turn) => {
                if let Some(turn) = turn {
                    turn.unjudged();
                }
                match stop {
                    Stop::Throttled(wait) => Outcome::Throttled(wait),
                    Stop::Store(error) => Outcome::Unavailable(error),
                    Stop::Busy | Stop::Rejected(_) => Outcome::Busy,
                }
            }
        }
    }

    /// Tries one reading of a credential.
    async fn attempt<'a>(
        self: &'a Arc<Self>,
        login: &mut Login<'a>,
        credential: &Credential,
        secret: Secret<String>,
    ) -> Result<Grant, Stop> {
        let mac = self.mac(secret.expose().as_bytes());
        // A revocation may arrive while the records are read. It is rare, and then they are read once more.
        for _ in 0..4 {
            let generation = self.revocations.generation();
            let (credential, secret) = (credential.clone(), secret.clone());
            let attempt = Arc::new(Attempt { credential, secret, mac, began_at: self.clock.now() });
            let grant = self.grant(login, &attempt).await?;
            if self.revocations.generation() == generation {
                return Ok(grant);
            }
        }
        Err(Stop::Busy)
    }

    fn is_remembered(&self, credential: &Credential, secret: &Secret<String>) -> bool {
        let mac = self.mac(secret.expose().as_bytes());
        self.proven.get(credential).is_some_and(|proven| bool::from(proven.mac.ct_eq(&mac)))
    }

    /// The demo key is published, so it is compared and not hashed; it reaches the Demo group and nothing else.
    fn verify_demo(&self, key: &ApiKey, from: IpAddr) -> Outcome {
        if !self.demo_is_open || !demo::is_key(&self.prefix, key) {
            return self.refuse(Reason::UnknownKey, from);
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
        let turn = match self.turn(from, self.mac(user_id.as_bytes())).await {
            Ok(turn) => turn,
            Err(Refused::Throttled(wait)) => return Outcome::Throttled(wait),
            Err(Refused::Busy) => return Outcome::Busy,
        };
        match self.pool.run(move |hasher| hasher.waste(password.expose().as_bytes())).await {
            Ok(()) => {
                turn.wrong(true);
                Outcome::Rejected(Reason::UnknownAccount)
            }
            Err(Busy) => {
                turn.unjudged();
                Outcome::Busy
            }
        }
    }

    async fn turn(&self, from: IpAddr, user: User) -> Result<Turn<'_>, Refused> {
        let place = self.defence.place(from, user, self.clock.now()).await?;
        Ok(place.charge(self.clock.now())?)
    }

    /// Rejects what is seen to be wrong without a hash.
    fn refuse(&self, reason: Reason, from: IpAddr) -> Outcome {
        match self.defence.failed(from, None, self.clock.now()) {
            Ok(()) => Outcome::Rejected(reason),
            Err(wait) => Outcome::Throttled(wait),
        }
    }

    fn mac(&self, secret: &[u8]) -> Mac {
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&self.mac_key, secret).as_ref());
        mac
    }

    async fn grant<'a>(self: &'a Arc<Self>, login: &mut Login<'a>, attempt: &Arc<Attempt>) -> Result<Grant, Stop> {
        let synced_at = Timestamp::from_millis(self.synced_at.load(Ordering::Acquire));
        // Memory that the store has not confirmed for a while is asked only when the store does not answer.
        // A clock that was set back says nothing about how old memory is.
        let trusted = attempt.began_at >= synced_at && attempt.began_at.since(synced_at) <= TRUSTED_FOR;
        let (record, mut known_at) = match self.remembered(attempt, trusted).await? {
            Some((record, true)) => (record, attempt.began_at),
            Some((record, false)) => (record, synced_at.min(attempt.began_at)),
            None => (self.prove(login, attempt).await?, attempt.began_at),
        };
        let (standing, standing_is_fresh) = self.standing(&record.account, attempt.began_at, trusted).await?;
        if !standing_is_fresh {
            known_at = known_at.min(synced_at);
        }
        let (lives, lives_are_fresh) = self.lives(trusted).await?;
        if !lives_are_fresh {
            known_at = known_at.min(synced_at);
        }
        let now = self.clock.now();
        // Asked each time: a clock can be set back at any moment.
        let standing = if self.documents.is_set_back(now) { Arc::new(standing.without_documents()) } else { standing };
        let Reach { groups, not_after, longest } = standing
            .reach(record.only.as_ref(), record.ends_at, &lives, self.demo_is_open, now)
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
    async fn prove<'a>(self: &'a Arc<Self>, login: &mut Login<'a>, attempt: &Arc<Attempt>) -> Result<Record, Stop> {
        let place = match login.turn {
            None => Some(self.defence.place(login.from, login.user, self.clock.now()).await?),
            Some(_) => None,
        };
        let epoch = self.epoch.load(Ordering::Acquire);
        let record = self.record(&attempt.credential, attempt.began_at).await;
        if let Ok(record) = &record
            && self.is_proven(attempt, record)
        {
            // By another who stood further ahead in the line. So a fleet with one key costs one hash, and no failure.
            return Ok(record.clone());
        }
        if let Some(place) = place {
            login.turn = Some(place.charge(self.clock.now()).map_err(Stop::Throttled)?);
        }
        let record = match record {
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
                    if verifier.is_proven(&attempt, &record) {
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

    /// Whether the very credential is remembered, for the hash that the store has of it now.
    fn is_proven(&self, attempt: &Attempt, record: &Record) -> bool {
        self.proven
            .get(&attempt.credential)
            .is_some_and(|proven| bool::from(proven.mac.ct_eq(&attempt.mac)) && proven.record.hash == record.hash)
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
            let licences = self.documents.believed(self.stores.licences.licences(Some(name)).await?);
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
    pub fn set_failures(&self, per_address: Rate, per_user: Rate, in_all: Rate) {
        self.defence.set(per_address, per_user, in_all);
    }

    /// Drops the failures that count no more.
    pub fn forget_failures(&self) {
        self.defence.forget(self.clock.now());
    }

    /// How many credentials are remembered.
    pub fn remembered_credentials(&self) -> usize {
        self.proven.len()
    }
}

/// Whether a rejection counts as a guess at its user-id.
fn is_guess(reason: Reason) -> bool {
    matches!(reason, Reason::WrongSecret | Reason::UnknownAccount | Reason::NoPassword)
}
