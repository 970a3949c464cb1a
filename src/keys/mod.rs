//! API keys: what one looks like, the record of it at rest, and its store trait.
//!
//! A key is `<prefix>_<id>_<secret><checksum>` (CONTRACT §5). The id may be seen by anyone; the secret is shown once.

mod format;
mod operations;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::credentials::PasswordHash;
use crate::ids::{AccountName, Groups, KeyId};
use crate::licences::seats::Seating;
use crate::persist::{Inserted, Result, Update, Updated};

pub use format::{ApiKey, DEFAULT_PREFIX, KeyPrefix, MalformedKey};
pub use operations::{Error, NewKey, NoSeat, Operations};

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It works.
    Active,
    /// It does not work until it is resumed.
    Suspended,
    /// It never works again.
    Revoked,
}

/// The record of an API key. The key itself is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The public id.
    pub id: KeyId,
    /// Whose key it is.
    pub account: AccountName,
    /// Free text for people.
    pub label: String,
    /// The whole key, as an argon2id PHC string.
    pub hash: PasswordHash,
    /// Narrower than what the account is licensed for; `None` is all of it.
    pub groups: Option<Groups>,
    /// Where it is in its life.
    pub state: KeyState,
    /// From this instant on it is refused.
    pub expires_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
}

impl Key {
    /// Whether it counts at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.state == KeyState::Active && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether it holds a seat at `now`: what is suspended may come back and does, what is revoked or has expired does not.
    pub fn holds_seat(&self, now: Timestamp) -> bool {
        self.state != KeyState::Revoked && self.expires_at.is_none_or(|end| now < end)
    }
}

/// Whether a key may be added to those that hold a seat.
pub type Fits<'f> = dyn Fn(&Seating) -> bool + Send + Sync + 'f;

/// A change of a key that takes a seat.
pub type SeatedChange<'f> = dyn Fn(Key, &Seating) -> Update<Key> + Send + Sync + 'f;

/// Durable keys. A key that was shown is stored for good.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// Adds a key; `false` when the id is taken. That its account does not exist is an error: accounts never go, so the
    /// caller has not looked.
    async fn insert_key(&self, key: &Key) -> Result<bool>;
    /// As [`insert_key`](Self::insert_key), if `fits` says so of the seats of the key's account as they are at `now`. No other
    /// insertion comes between the question and the answer, so two at once cannot both take the last seat.
    async fn insert_key_if(&self, key: &Key, now: Timestamp, fits: &Fits<'_>) -> Result<Inserted>;
    /// The key of that id.
    async fn key(&self, id: &KeyId) -> Result<Option<Key>>;
    /// All keys by account and id, or those of one account.
    async fn keys(&self, of: Option<&AccountName>) -> Result<Vec<Key>>;
    /// Replaces a key by an atomic function of its present value; `id`, `account` and `created_at` never change.
    /// A [`Cut`](crate::persist::Cut) revokes [`Target::Key`](crate::revocations::Target) in the same transaction.
    async fn update_key(&self, id: &KeyId, change: &(dyn Fn(Key) -> Update<Key> + Send + Sync))
    -> Result<Updated<Key>>;
    /// As [`update_key`](Self::update_key), for a change that takes a seat: the function sees the seats of the key's account
    /// as they are at `now` as well.
    async fn update_key_seated(&self, id: &KeyId, now: Timestamp, change: &SeatedChange<'_>) -> Result<Updated<Key>>;
}
