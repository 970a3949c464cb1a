//! What an operator can do with API keys. The command line calls it, and an admin API can call the same.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use super::{ApiKey, Key, KeyPrefix, KeyState, KeyStore};
use crate::accounts::AccountStore;
use crate::change::{Changed, Verdict, cut_for_end};
use crate::client_addr::Networks;
use crate::clock::{Clock, Timestamp};
use crate::credentials::{HashError, PasswordHash};
use crate::groups::{self, GroupStore, demo};
use crate::ids::{AccountName, GroupId, Groups, InvalidId, KeyId, PlanId, free_text};
use crate::licences::seats::{self, Limit, Seating};
use crate::licences::{Documents, Licence};
use crate::persist::{self, Cut, Inserted, Update, Updated};
use crate::secret::Secret;

/// How often an id that is taken is drawn anew. With 71 random bits even the second time never comes.
const DRAWS: usize = 4;

/// Whose seats are taken, how many there are, and by which licences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSeat {
    /// The account.
    pub account: AccountName,
    /// The seats that its licences sum up to.
    pub limit: Limit,
    /// How many keys hold one.
    pub held: u64,
}

impl fmt::Display for NoSeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, limit: Limit { seats, licences }, held } = self;
        let (seat, licence) = (if *seats == 1 { "seat" } else { "seats" }, if licences.len() == 1 { "" } else { "s" });
        let ids: Vec<&str> = licences.iter().map(|id| id.as_str()).collect();
        write!(f, "account \"{account}\" has {seats} {seat} by licence{licence} {}, and {held} ", ids.join(", "))?;
        f.write_str(if *held == 1 { "key holds one" } else { "keys hold one each" })
    }
}

/// Why an operation on keys was refused or failed.
#[derive(Debug)]
pub enum Error {
    /// There is no key of that id.
    Unknown(KeyId),
    /// There is no account of that name.
    NoAccount(AccountName),
    /// The demo account has the published key alone, and it cannot be changed.
    Demo,
    /// There is no group of that id.
    NoGroup(GroupId),
    /// The Demo group needs no key of one's own.
    DemoGroup,
    /// A key that is narrowed to nothing.
    NoGroups,
    /// An end that lies in the past.
    PastEnd(Timestamp),
    /// The key was revoked, which is for good.
    Revoked(KeyId),
    /// The key is suspended, and cannot be rolled.
    Suspended(KeyId),
    /// The key has expired, and cannot be rolled.
    Expired(KeyId),
    /// The key was rolled before, and its old secret still works; until then, where that is known.
    Rolling(KeyId, Option<Timestamp>),
    /// A label that is no single line.
    Text(InvalidId),
    /// The key could not be hashed.
    Hash(HashError),
    /// Every seat of the account's licences is taken.
    NoSeat(NoSeat),
    /// Every id that was drawn is taken.
    NoFreeId,
    /// The store failed.
    Store(persist::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(id) => write!(f, "there is no key {id}"),
            Self::NoAccount(name) => write!(f, "there is no account \"{name}\""),
            Self::Demo => f.write_str(
                "the demo account and its published key are built in; they cannot be changed, and no key can be added",
            ),
            Self::NoGroup(id) => write!(f, "there is no group \"{id}\""),
            Self::DemoGroup => f.write_str(
                "the Demo group is reached with the published demo key; leave \"demo\" out of this key's groups",
            ),
            Self::NoGroups => f.write_str("a key must keep at least one group; to shut it out, suspend or revoke it"),
            Self::PastEnd(at) => write!(f, "the end {at} is in the past; to end a key now, revoke it"),
            Self::Revoked(id) => write!(f, "key {id} is revoked, which is for good; create a new key"),
            Self::Suspended(id) => write!(f, "key {id} is suspended; resume it first"),
            Self::Expired(id) => write!(f, "key {id} has expired, and no grace goes beyond that; move its end first"),
            Self::Rolling(id, Some(end)) => {
                write!(
                    f,
                    "key {id} was rolled before, and its old secret works until {end}; there can be two and no more"
                )
            }
            Self::Rolling(id, None) => write!(
                f,
                "key {id} was rolled before, and its new secret has not been used yet, so the old one still works; there can \
                 be two and no more"
            ),
            Self::Text(rule) => rule.fmt(f),
            Self::Hash(_) => f.write_str("the key could not be hashed"),
            Self::NoSeat(seats) => seats.fmt(f),
            Self::NoFreeId => f.write_str("no free key id was found; try again"),
            Self::Store(_) => f.write_str("keys could not be read or written"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Hash(source) => Some(source),
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

/// What a new key is made of.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Whose key it will be.
    pub account: AccountName,
    /// Free text for people.
    pub label: String,
    /// Narrower than what the account is licensed for; `None` is all of it.
    pub groups: Option<Groups>,
    /// From this instant on it is refused.
    pub expires_at: Option<Timestamp>,
    /// The networks it is good from; `None` is from everywhere.
    pub networks: Option<Networks>,
    /// A plan of its own.
    pub plan: Option<PlanId>,
}

/// The operations on keys.
#[derive(Clone)]
pub struct Operations {
    pub(super) keys: Arc<dyn KeyStore>,
    pub(super) accounts: Arc<dyn AccountStore>,
    pub(super) groups: Arc<dyn GroupStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) prefix: KeyPrefix,
    documents: Arc<Documents>,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl Operations {
    /// Operations on the keys of `keys`; the other stores are asked whether what a key names exists.
    pub fn new(
        keys: Arc<dyn KeyStore>,
        accounts: Arc<dyn AccountStore>,
        groups: Arc<dyn GroupStore>,
        clock: Arc<dyn Clock>,
        prefix: KeyPrefix,
    ) -> Self {
        Self { keys, accounts, groups, clock, prefix, documents: Arc::default() }
    }

    /// With licence documents of vendors that are believed: their seats count as they say.
    pub fn with_documents(self, documents: Arc<Documents>) -> Self {
        Self { documents, ..self }
    }

    /// Creates a key. It is stored before it is returned, so a key that was shown works.
    ///
    /// `hash` turns the whole key into what is stored. Hashing is slow on purpose: a command may do it on the spot, a
    /// server gives it to a thread that may block.
    ///
    /// # Errors
    /// When the account or a group does not exist, the end is past, the label is no single line, or hashing or the store
    /// fails.
    pub async fn create<H, F>(&self, new: NewKey, mut hash: H) -> Result<(ApiKey, Key), Error>
    where
        H: FnMut(Secret<String>) -> F + Send,
        F: Future<Output = Result<PasswordHash, HashError>> + Send,
    {
        free_text(&new.label).map_err(Error::Text)?;
        self.account(&new.account).await?;
        if let Some(groups) = &new.groups {
            self.check_groups(groups).await?;
        }
        not_past(new.expires_at, self.clock.now())?;
        let refused = Mutex::new(None);
        for _ in 0..DRAWS {
            let api_key = ApiKey::generate(&self.prefix);
            let hash = hash(api_key.secret().clone()).await.map_err(Error::Hash)?;
            let now = self.clock.now();
            let key = Key {
                label: new.label.clone(),
                groups: new.groups.clone(),
                expires_at: new.expires_at,
                networks: new.networks.clone(),
                plan: new.plan.clone(),
                ..Key::new(*api_key.id(), new.account.clone(), hash, now)
            };
            if *api_key.id() == demo::key_id() {
                continue;
            }
            let fits = |seating: &Seating| {
                let verdict = self.seat(&new.account, seating, now);
                let fits = verdict.is_ok();
                *refused.lock().unwrap_or_else(PoisonError::into_inner) = verdict.err();
                fits
            };
            match self.keys.insert_key_if(&key, now, &fits).await? {
                Inserted::Done => return Ok((api_key, key)),
                Inserted::Taken => {}
                Inserted::Refused => break,
            }
        }
        Err(refused.into_inner().unwrap_or_else(PoisonError::into_inner).unwrap_or(Error::NoFreeId))
    }

    /// Whether one more key may hold a seat.
    fn seat(&self, account: &AccountName, seating: &Seating, now: Timestamp) -> Result<(), Error> {
        match self.seats(&seating.licences, now) {
            Some(limit) if seating.held >= limit.seats => {
                Err(Error::NoSeat(NoSeat { account: account.clone(), limit, held: seating.held }))
            }
            _ => Ok(()),
        }
    }

    /// How many keys may hold a seat, by the licences of one account.
    pub(super) fn seats(&self, licences: &[Licence], now: Timestamp) -> Option<Limit> {
        let settled = |licence: &Licence| self.documents.settled(licence.clone()).unwrap_or_else(|_| licence.clone());
        let licences: Vec<Licence> = licences.iter().map(settled).collect();
        seats::limit(&licences, now)
    }

    /// All keys by account and id, or those of one account.
    ///
    /// # Errors
    /// When there is no such account, or the store fails.
    pub async fn list(&self, of: Option<&AccountName>) -> Result<Vec<Key>, Error> {
        if let Some(name) = of {
            self.account(name).await?;
        }
        Ok(self.keys.keys(of).await?)
    }

    /// One key.
    ///
    /// # Errors
    /// When there is none of that id, or the store fails.
    pub async fn show(&self, id: &KeyId) -> Result<Key, Error> {
        not_demo(id)?;
        self.keys.key(id).await?.ok_or_else(|| Error::Unknown(*id))
    }

    /// Refuses the key until it is resumed; its tokens die.
    ///
    /// # Errors
    /// When there is no such key, it is revoked, or the store fails.
    pub async fn suspend(&self, id: &KeyId) -> Result<Changed<Key>, Error> {
        self.update(id, |key, now| match key.state {
            KeyState::Active => Ok(Update::Write(Key { state: KeyState::Suspended, ..key }, Cut::Now(now))),
            KeyState::Suspended => Ok(Update::Keep),
            KeyState::Revoked => Err(Error::Revoked(key.id)),
        })
        .await
    }

    /// Ends a suspension. Tokens that died stay dead.
    ///
    /// # Errors
    /// When there is no such key, it is revoked, or the store fails.
    pub async fn resume(&self, id: &KeyId) -> Result<Changed<Key>, Error> {
        self.update(id, |key, _| match key.state {
            KeyState::Active => Ok(Update::Keep),
            KeyState::Suspended => Ok(Update::Write(Key { state: KeyState::Active, ..key }, Cut::No)),
            KeyState::Revoked => Err(Error::Revoked(key.id)),
        })
        .await
    }

    /// Ends the key and its tokens for good. To do it twice is no error.
    ///
    /// # Errors
    /// When there is no such key, or the store fails.
    pub async fn revoke(&self, id: &KeyId) -> Result<Changed<Key>, Error> {
        self.update(id, |key, now| match key.state {
            KeyState::Revoked => Ok(Update::Keep),
            _ => {
                let previous = key.previous.map(|half| half.ended(now));
                Ok(Update::Write(Key { state: KeyState::Revoked, previous, ..key }, Cut::Forever(now)))
            }
        })
        .await
    }

    /// Moves the key's end; `None` takes it away. An earlier end cuts tokens where one could outlive it. A key that had
    /// expired and comes back takes a seat.
    ///
    /// # Errors
    /// When the end is past, there is no such key, it is revoked, there is no seat for it, or the store fails.
    pub async fn set_expiry(&self, id: &KeyId, end: Option<Timestamp>) -> Result<Changed<Key>, Error> {
        self.update_seated(id, |key, seating, now| {
            not_revoked(&key)?;
            not_past(end, now)?;
            if !key.holds_seat(now) {
                self.seat(&key.account, seating, now)?;
            }
            if key.expires_at == end {
                return Ok(Update::Keep);
            }
            let cut = cut_for_end(key.expires_at, end, now);
            Ok(Update::Write(Key { expires_at: end, ..key }, cut))
        })
        .await
    }

    /// Narrows or widens the key within what its account is licensed for; `None` is all of that. Tokens die when a group
    /// is lost.
    ///
    /// # Errors
    /// When a group does not exist, there is no such key, it is revoked, or the store fails.
    pub async fn set_groups(&self, id: &KeyId, groups: Option<&Groups>) -> Result<Changed<Key>, Error> {
        if let Some(groups) = groups {
            self.check_groups(groups).await?;
        }
        self.update(id, |key, now| {
            not_revoked(&key)?;
            let loses = match (&key.groups, groups) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(old), Some(new)) => !new.is_superset(old),
            };
            if key.groups.as_ref() == groups {
                return Ok(Update::Keep);
            }
            let cut = if loses { Cut::Now(now) } else { Cut::No };
            Ok(Update::Write(Key { groups: groups.cloned(), ..key }, cut))
        })
        .await
    }

    /// Binds the key's use to a plan; `None` is to none of its own. Tokens die where the plan is another or new, since each
    /// carries that of its time.
    ///
    /// # Errors
    /// When there is no such key, it is revoked, or the store fails.
    pub async fn set_plan(&self, id: &KeyId, plan: Option<&PlanId>) -> Result<Changed<Key>, Error> {
        self.update(id, |key, now| {
            not_revoked(&key)?;
            if key.plan.as_ref() == plan {
                return Ok(Update::Keep);
            }
            let cut = if plan.is_some() { Cut::Now(now) } else { Cut::No };
            Ok(Update::Write(Key { plan: plan.cloned(), ..key }, cut))
        })
        .await
    }

    /// Replaces the networks that the key is good from; `None` is from everywhere. Tokens die when an address is lost, since
    /// each carries the networks of its time.
    ///
    /// # Errors
    /// When there is no such key, it is revoked, or the store fails.
    pub async fn set_networks(&self, id: &KeyId, networks: Option<&Networks>) -> Result<Changed<Key>, Error> {
        self.update(id, |key, now| {
            not_revoked(&key)?;
            if key.networks.as_ref() == networks {
                return Ok(Update::Keep);
            }
            let loses = match (&key.networks, networks) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(old), Some(new)) => !new.cover(old),
            };
            let cut = if loses { Cut::Now(now) } else { Cut::No };
            Ok(Update::Write(Key { networks: networks.cloned(), ..key }, cut))
        })
        .await
    }

    /// Replaces the label.
    ///
    /// # Errors
    /// When it is no single line, there is no such key, or the store fails.
    pub async fn set_label(&self, id: &KeyId, label: &str) -> Result<Changed<Key>, Error> {
        free_text(label).map_err(Error::Text)?;
        self.update(id, |key, _| {
            Ok(if key.label == label {
                Update::Keep
            } else {
                Update::Write(Key { label: label.to_owned(), ..key }, Cut::No)
            })
        })
        .await
    }

    async fn account(&self, name: &AccountName) -> Result<(), Error> {
        if name.as_str() == demo::DEMO {
            return Err(Error::Demo);
        }
        self.accounts.account(name).await?.map(|_| ()).ok_or_else(|| Error::NoAccount(name.clone()))
    }

    async fn check_groups(&self, groups: &Groups) -> Result<(), Error> {
        if groups.is_empty() {
            return Err(Error::NoGroups);
        }
        if groups.contains(&demo::group()) {
            return Err(Error::DemoGroup);
        }
        match groups::missing(&*self.groups, groups).await? {
            Some(id) => Err(Error::NoGroup(id)),
            None => Ok(()),
        }
    }

    /// As [`update`](Self::update), with the seats of the key's account.
    async fn update_seated(
        &self,
        id: &KeyId,
        change: impl Fn(Key, &Seating, Timestamp) -> Result<Update<Key>, Error> + Send + Sync,
    ) -> Result<Changed<Key>, Error> {
        not_demo(id)?;
        let verdict = Verdict::default();
        let decide = |key: Key, seating: &Seating| verdict.note(change(key, seating, self.clock.now()));
        let updated = self.keys.update_key_seated(id, self.clock.now(), &decide).await?;
        self.settle(id, verdict, updated).await
    }

    /// `now` is read inside the atomic update: a cut that waited for another writer must not be older than the change.
    pub(super) async fn update(
        &self,
        id: &KeyId,
        change: impl Fn(Key, Timestamp) -> Result<Update<Key>, Error> + Send + Sync,
    ) -> Result<Changed<Key>, Error> {
        not_demo(id)?;
        let verdict = Verdict::default();
        let decide = |key| verdict.note(change(key, self.clock.now()));
        let updated = self.keys.update_key(id, &decide).await?;
        self.settle(id, verdict, updated).await
    }

    async fn settle(&self, id: &KeyId, verdict: Verdict<Error>, updated: Updated<Key>) -> Result<Changed<Key>, Error> {
        if verdict.is_late(self.clock.now()) {
            let again = |key| Update::Write(key, Cut::Now(self.clock.now()));
            self.keys.update_key(id, &again).await?;
        }
        verdict.of(updated)?.ok_or_else(|| Error::Unknown(*id))
    }
}

pub(super) fn not_demo(id: &KeyId) -> Result<(), Error> {
    if *id == demo::key_id() { Err(Error::Demo) } else { Ok(()) }
}

fn not_revoked(key: &Key) -> Result<(), Error> {
    if key.state == KeyState::Revoked { Err(Error::Revoked(key.id)) } else { Ok(()) }
}

fn not_past(end: Option<Timestamp>, now: Timestamp) -> Result<(), Error> {
    match end {
        Some(end) if end <= now => Err(Error::PastEnd(end)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
