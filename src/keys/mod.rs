//! API keys: what one looks like, the record of it at rest, and its store trait.
//!
//! A key is `<prefix>_<id>_<secret><checksum>` (CONTRACT §5). The id may be seen by anyone; the secret is shown once.

mod format;
mod operations;
mod roll;
mod rolling;
mod transfer;
mod used;

use async_trait::async_trait;

use crate::client_addr::Networks;
use crate::clock::Timestamp;
use crate::credentials::PasswordHash;
use crate::ids::{AccountName, Groups, KeyId, PlanId};
use crate::licences::Licence;
use crate::licences::seats::Seating;
use crate::persist::{Inserted, Result, Update, Updated};

pub use format::{ApiKey, DEFAULT_PREFIX, KeyPrefix, MalformedKey};
pub use operations::{Error, NewKey, NoSeat, Operations};
pub use roll::{End, Grace, Half, InvalidGrace, Start};
pub use rolling::{Roll, first_used};
pub use transfer::{Line, Look, Looked};
pub use used::{Stamp, Uses};

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
    /// The networks it is good from; `None` is from everywhere.
    pub networks: Option<Networks>,
    /// The plan that bounds its use beside those of its account's licences; `None` is no plan of its own.
    pub plan: Option<PlanId>,
    /// When a token was last got with its present secret, to the minute.
    pub used_at: Option<Timestamp>,
    /// The secret it had before it was rolled, even if that has ended.
    pub previous: Option<Half>,
}

impl Key {
    /// An active key with nothing but what every key has.
    pub fn new(id: KeyId, account: AccountName, hash: PasswordHash, created_at: Timestamp) -> Self {
        Self {
            id,
            account,
            label: String::new(),
            hash,
            groups: None,
            state: KeyState::Active,
            expires_at: None,
            created_at,
            networks: None,
            plan: None,
            used_at: None,
            previous: None,
        }
    }

    /// The secret it had before, as long as that works.
    pub fn old_half(&self, now: Timestamp) -> Option<&Half> {
        self.previous.as_ref().filter(|half| half.is_live(now))
    }

    /// When the secret it had before ends: by its grace, or with the whole key.
    pub fn old_ends_at(&self) -> Option<Timestamp> {
        let grace_ends_at = self.previous.as_ref()?.ends_at()?;
        Some(self.expires_at.map_or(grace_ends_at, |end| end.min(grace_ends_at)))
    }

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

/// How many keys may hold a seat by the licences of one account; `None` is any number.
pub type Seats<'f> = dyn Fn(&[Licence]) -> Option<u64> + Send + Sync + 'f;

/// What became of many keys.
#[derive(Debug, Clone, PartialEq)]
pub enum Added {
    /// So many are added; the others were there.
    Keys(usize),
    /// None is: with them this account would have keys that hold a seat as said, which are too many.
    NoSeats(AccountName, Seating),
}

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
    /// Adds many keys at once, all or none, and returns how many; a key whose id is taken is passed over. As with
    /// [`insert_key`](Self::insert_key) their accounts must exist. `seats` is asked of each account that has new keys which hold
    /// a seat at `now`, and when it has more of them with these than that, none is added. The feed does not tell of it: nobody
    /// keeps in memory that there is no such key.
    async fn insert_keys(&self, keys: &[Key], now: Timestamp, seats: &Seats<'_>) -> Result<Added>;
    /// The seats of an account as they are at `now`.
    async fn seating(&self, account: &AccountName, now: Timestamp) -> Result<Seating>;
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
    /// The keys whose old secret has come to its end by `now` and is still kept.
    async fn keys_to_finish(&self, now: Timestamp) -> Result<Vec<KeyId>>;
    /// Writes when keys were last used, as [`Stamp::put_on`] does, for all at once. A time never goes back, and a key that
    /// is not there is passed over. The feed does not tell of it: nobody keeps these in memory.
    async fn stamp_keys(&self, stamps: &[Stamp]) -> Result<()>;
}
