//! What an operator can do with API keys. The command line calls it, and an admin API can call the same.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use super::{ApiKey, Key, KeyPrefix, KeyState, KeyStore};
use crate::accounts::AccountStore;
use crate::change::{Changed, Verdict, cut_for_end};
use crate::clock::{Clock, Timestamp};
use crate::credentials::{HashError, PasswordHash};
use crate::groups::{self, GroupStore, demo};
use crate::ids::{AccountName, GroupId, Groups, InvalidId, KeyId, free_text};
use crate::persist::{self, Cut, Update};
use crate::secret::Secret;

/// How often an id that is taken is drawn anew. With 71 random bits even the second time never comes.
const DRAWS: usize = 4;

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
    /// A label that is no single line.
    Text(InvalidId),
    /// The key could not be hashed.
    Hash(HashError),
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
            Self::Text(rule) => rule.fmt(f),
            Self::Hash(_) => f.write_str("the key could not be hashed"),
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
}

/// The operations on keys.
#[derive(Clone)]
pub struct Operations {
    keys: Arc<dyn KeyStore>,
    accounts: Arc<dyn AccountStore>,
    groups: Arc<dyn GroupStore>,
    clock: Arc<dyn Clock>,
    prefix: KeyPrefix,
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
        Self { keys, accounts, groups, clock, prefix }
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
        for _ in 0..DRAWS {
            let api_key = ApiKey::generate(&self.prefix);
            let key = Key {
                id: api_key.id().clone(),
                account: new.account.clone(),
                label: new.label.clone(),
                hash: hash(api_key.secret().clone()).await.map_err(Error::Hash)?,
                groups: new.groups.clone(),
                state: KeyState::Active,
                expires_at: new.expires_at,
                created_at: self.clock.now(),
            };
            if *api_key.id() != demo::key_id() && self.keys.insert_key(&key).await? {
                return Ok((api_key, key));
            }
        }
        Err(Error::NoFreeId)
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
        self.keys.key(id).await?.ok_or_else(|| Error::Unknown(id.clone()))
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
            _ => Ok(Update::Write(Key { state: KeyState::Revoked, ..key }, Cut::Forever(now))),
        })
        .await
    }

    /// Moves the key's end; `None` takes it away. An earlier end cuts tokens where one could outlive it.
    ///
    /// # Errors
    /// When the end is past, there is no such key, it is revoked, or the store fails.
    pub async fn set_expiry(&self, id: &KeyId, end: Option<Timestamp>) -> Result<Changed<Key>, Error> {
        self.update(id, |key, now| {
            not_revoked(&key)?;
            not_past(end, now)?;
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

    /// `now` is read inside the atomic update: a cut that waited for another writer must not be older than the change.
    async fn update(
        &self,
        id: &KeyId,
        change: impl Fn(Key, Timestamp) -> Result<Update<Key>, Error> + Send + Sync,
    ) -> Result<Changed<Key>, Error> {
        not_demo(id)?;
        let verdict = Verdict::default();
        let decide = |key| verdict.note(change(key, self.clock.now()));
        let updated = self.keys.update_key(id, &decide).await?;
        verdict.of(updated)?.ok_or_else(|| Error::Unknown(id.clone()))
    }
}

fn not_demo(id: &KeyId) -> Result<(), Error> {
    if *id == demo::key_id() { Err(Error::Demo) } else { Ok(()) }
}

fn not_revoked(key: &Key) -> Result<(), Error> {
    if key.state == KeyState::Revoked { Err(Error::Revoked(key.id.clone())) } else { Ok(()) }
}

fn not_past(end: Option<Timestamp>, now: Timestamp) -> Result<(), Error> {
    match end {
        Some(end) if end <= now => Err(Error::PastEnd(end)),
        _ => Ok(()),
    }
}
