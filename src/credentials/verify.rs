//! Verifying a credential: cheap checks first, argon2 once, and from then on from memory.
//!
//! What is remembered is that a credential was right (by a keyed MAC of it, never itself) and what the store said of its
//! records. A change in the store evicts the records it concerns; see [`Verifier::forget`] for the order that makes
//! this safe.

mod prove;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::defence::{Defence, Refused, Turn, User};
use super::memory::{Mac, Memory};
use super::record::{Credential, WhichSecret};
use super::standing::{GroupLives, Reach, Standing};
use super::{Busy, HashError, HashPool, Kept, Lane, Outcome, PasswordHash, Presented, Reason, Settings};
use crate::accounts::AccountStore;
use crate::client_addr;
use crate::clock::{Clock, Timestamp};
use crate::groups::{GroupStore, demo};
use crate::ids::{AccountName, KeyId, PlanId};
use crate::keys::{ApiKey, End, KeyPrefix, KeyStore, Uses, first_used};
use crate::licences::{Documents, LicenceStore};
use crate::limits::Rate;
use crate::persist;
use crate::revocations::{Change, Revocations};
use crate::secret::Secret;
use crate::tokens::{Client, Deprecated, Grant, Terms};

/// How long memory may go unconfirmed by the store before it is asked only when the store does not answer.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

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
    prefix: KeyPrefix,
    demo_is_open: bool,
    stores: Stores,
    clock: Arc<dyn Clock>,
    revocations: Arc<Revocations>,
    pool: HashPool,
    memory: Memory,
    /// When keys were last used.
    uses: Uses,
    defence: Defence,
    documents: Arc<Documents>,
    /// The plans there are.
    plans: ArcSwap<BTreeSet<PlanId>>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("remembered", &self.memory.len()).finish_non_exhaustive()
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
    /// Who it is to the bit.
    address: IpAddr,
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
            memory: Memory::new(settings, clock.now()),
            uses: Uses::default(),
            defence: Defence::new(settings),
            clock,
            documents: Arc::default(),
            plans: ArcSwap::default(),
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
    pub async fn verify(self: &Arc<Self>, presented: Presented, address: IpAddr) -> Outcome {
        let from = client_addr::network(address);
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
            Credential::Key(_) => self.memory.mac(secret.expose().as_bytes()),
            Credential::Password(name) => self.memory.mac(name.as_str().as_bytes()),
        };
        let mut login = Login { from, user, turn: None };
        let mut ended = self.attempt(&mut login, &credential, secret, address).await;
        // Tried where there is no such account as well, so that the time says nothing of that.
        if let (Err(Stop::Rejected(reason)), Some(other)) = (&ended, otherwise)
            && is_guess(*reason)
        {
            ended = self.attempt(&mut login, &credential, other, address).await;
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
        address: IpAddr,
    ) -> Result<Grant, Stop> {
        let mac = self.memory.mac(secret.expose().as_bytes());
        // A revocation may arrive while the records are read. It is rare, and then they are read once more.
        for _ in 0..4 {
            let generation = self.revocations.generation();
            let (credential, secret) = (credential.clone(), secret.clone());
            let attempt = Arc::new(Attempt { credential, secret, mac, address, began_at: self.clock.now() });
            let grant = self.grant(login, &attempt).await?;
            if self.revocations.generation() == generation {
                return Ok(grant);
            }
        }
        Err(Stop::Busy)
    }

    fn is_remembered(&self, credential: &Credential, secret: &Secret<String>) -> bool {
        self.memory.proof(credential, &self.memory.mac(secret.expose().as_bytes())).is_some()
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
            terms: Terms::default(),
        }
    }

    /// A user-id that no account can have costs what a wrong password costs.
    async fn reject_unknown(&self, user_id: &str, password: Secret<String>, from: IpAddr) -> Outcome {
        let turn = match self.turn(from, self.memory.mac(user_id.as_bytes())).await {
            Ok(turn) => turn,
            Err(Refused::Throttled(wait)) => return Outcome::Throttled(wait),
            Err(Refused::Busy) => return Outcome::Busy,
        };
        match self.pool.run(Lane::Doubtful, move |hasher| hasher.waste(password.expose().as_bytes())).await {
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

    async fn grant<'a>(self: &'a Arc<Self>, login: &mut Login<'a>, attempt: &Arc<Attempt>) -> Result<Grant, Stop> {
        let synced_at = self.memory.synced_at();
        // Memory that the store has not confirmed for a while is asked only when the store does not answer.
        // A clock that was set back says nothing about how old memory is.
        let trusted = attempt.began_at >= synced_at && attempt.began_at.since(synced_at) <= TRUSTED_FOR;
        let (record, mut known_at) = match self.remembered(attempt, trusted).await? {
            Some((record, true)) => (record, attempt.began_at),
            Some((record, false)) => (record, synced_at.min(attempt.began_at)),
            None => (self.prove(login, attempt).await?, attempt.began_at),
        };
        let store_answers = trusted || known_at == attempt.began_at;
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
        let Reach { groups, mut not_after, longest } = standing
            .reach(record.only.as_ref(), record.ends_at, &lives, self.demo_is_open, now)
            .map_err(Stop::Rejected)?;
        // Whoever holds the secret may be told that it is the place.
        if record.networks.as_ref().is_some_and(|networks| !networks.contain(attempt.address)) {
            return Err(Stop::Rejected(Reason::Elsewhere));
        }
        let mut deprecated = None;
        if let WhichSecret::Old(end) = record.secret {
            let dead_by = end.not_after(known_at);
            not_after = Some(not_after.map_or(dead_by, |end| end.min(dead_by)));
            let since = record.rolled_at.unwrap_or_default().secs();
            let until = match end {
                End::At(_) => record.ends_at.map(Timestamp::secs),
                End::AfterFirstUse(_) => None,
            };
            deprecated = Some(Deprecated { since, until });
        }
        let (client, key) = match &attempt.credential {
            Credential::Key(id) => (Client::Key(*id), Some(id)),
            Credential::Password(_) => (Client::Password, None),
        };
        if let Some(id) = key {
            if record.secret == WhichSecret::Unused && store_answers {
                self.begin_grace(id, attempt).await;
            }
            let is_old = matches!(record.secret, WhichSecret::Old(_));
            self.uses.note(*id, record.rolled_at, is_old, attempt.began_at);
        }
        let cutoff = self.revocations.cutoff(&record.account, key);
        let plans = self.plans.load();
        let terms = Terms {
            networks: record.networks,
            deprecated,
            limits: standing.limits(&groups, &plans, now),
            plan: record.plan.filter(|plan| plans.contains(plan)),
        };
        Ok(Grant { account: record.account, client, groups, not_after, longest, cutoff, known_at, terms })
    }

    /// The new secret of a rolled key is used for the first time: from now on it is known when the old one ends. Where that
    /// cannot be written, the next use tries again; the old one does not end before.
    async fn begin_grace(&self, id: &KeyId, attempt: &Attempt) {
        match first_used(&*self.stores.keys, &*self.clock, id).await {
            Ok(_) => {
                tracing::info!(key.id = %id, "the new secret of a rolled key is in use: the grace of the old one has begun");
                self.memory.first_use_is_written(id, &attempt.mac);
            }
            Err(error) => tracing::warn!(error = %error, key.id = %id, "the grace of a rolled key could not be begun"),
        }
    }

    /// An account with its licences, and whether it was read from the store just now.
    async fn standing(&self, name: &AccountName, now: Timestamp, trusted: bool) -> Result<(Arc<Standing>, bool), Stop> {
        let held = self.memory.standing(name);
        if let Some(held) = &held
            && trusted
            && self.memory.is_fresh(held.read_at, now)
        {
            return Ok((Arc::clone(held), false));
        }
        let epoch = self.memory.epoch();
        let read = async {
            let account = self.stores.accounts.account(name).await?;
            let licences = self.documents.believed(self.stores.licences.licences(Some(name)).await?);
            Ok(account.map(|account| Standing { account, licences, read_at: now }))
        };
        match (read.await, held) {
            (Ok(None), _) => Err(Stop::Rejected(Reason::UnknownAccount)),
            (Ok(Some(standing)), _) => {
                let standing = Arc::new(standing);
                self.memory.remember_standing(name, &standing, epoch);
                Ok((standing, true))
            }
            (Err(_), Some(held)) => Ok((held, false)),
            (Err(error), None) => Err(Stop::Store(error)),
        }
    }

    /// All groups with the token lives they allow, and whether they were read from the store just now.
    async fn lives(&self, trusted: bool) -> Result<(Arc<GroupLives>, bool), Stop> {
        let held = self.memory.lives();
        if let Some(held) = &held
            && trusted
        {
            return Ok((Arc::clone(held), false));
        }
        let epoch = self.memory.epoch();
        match (self.stores.groups.groups().await, held) {
            (Ok(groups), _) => {
                let lives: GroupLives = groups.into_iter().map(|group| (group.id, group.token_lifetime)).collect();
                let lives = Arc::new(lives);
                self.memory.remember_lives(&lives, epoch);
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
        self.memory.forget(changes);
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        self.memory.forget_all();
    }

    /// Says that memory agreed with the store at `at`: every change until then was forgotten and put into force.
    pub fn synced(&self, at: Timestamp) {
        self.memory.synced(at);
    }

    /// When memory last agreed with the store.
    pub fn synced_at(&self) -> Timestamp {
        self.memory.synced_at()
    }

    /// Puts other plans into force, for grants from now on: what bounds a grant's use is told to be one of these.
    pub fn set_plans(&self, plans: BTreeSet<PlanId>) {
        self.plans.store(Arc::new(plans));
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
        self.memory.len()
    }

    /// Hashes a new key for somebody who has proven who it is, by the same threads as all that is verified.
    ///
    /// # Errors
    /// [`Busy`] when too many wait.
    pub async fn hash_key(&self, key: Secret<String>) -> Result<Result<PasswordHash, HashError>, Busy> {
        self.pool.run(Lane::Likely, move |hasher| hasher.hash(key.expose().as_bytes(), Kept::Key)).await
    }

    /// When keys were last used.
    pub fn uses(&self) -> &Uses {
        &self.uses
    }
}

/// Whether a rejection counts as a guess at its user-id.
fn is_guess(reason: Reason) -> bool {
    matches!(reason, Reason::WrongSecret | Reason::UnknownAccount | Reason::NoPassword)
}
