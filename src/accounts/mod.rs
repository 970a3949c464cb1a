//! Accounts: the licensees. Owns the record and its store trait; knows nothing of HTTP.

mod operations;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::credentials::PasswordHash;
use crate::ids::AccountName;
use crate::persist::{Result, Update, Updated};

pub use operations::{Error, NewAccount, NewPassword, Operations};

/// A licensee: a person or organisation that holds keys and licences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name, and the user-id of its Basic credentials.
    pub name: AccountName,
    /// Free text for the operator.
    pub title: String,
    /// The password, if it has one, as an argon2id PHC string.
    pub password: Option<PasswordHash>,
    /// A suspended account's credentials are refused and its tokens are dead.
    pub suspended: bool,
    /// From this instant on its credentials are refused.
    pub expires_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
}

impl Account {
    /// Whether its credentials count at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        !self.suspended && self.expires_at.is_none_or(|end| now < end)
    }
}

/// Durable accounts. A change is acknowledged only when it would survive a power cut.
#[async_trait]
pub trait AccountStore: Send + Sync {
    /// Adds an account; `false` when the name is taken.
    async fn insert_account(&self, account: &Account) -> Result<bool>;
    /// The account of that name.
    async fn account(&self, name: &AccountName) -> Result<Option<Account>>;
    /// All accounts by name.
    async fn accounts(&self) -> Result<Vec<Account>>;
    /// Replaces an account by an atomic function of its present value; `name` and `created_at` never change.
    /// A [`Cut`](crate::persist::Cut) revokes [`Target::Account`](crate::revocations::Target) in the same transaction.
    async fn update_account(
        &self,
        name: &AccountName,
        change: &(dyn Fn(Account) -> Update<Account> + Send + Sync),
    ) -> Result<Updated<Account>>;
}
