//! Licences: what an account may reach, and for how long. Owns the record and its store trait.
//!
//! A licence is granted here, or installed from a document that a vendor has signed (`document`, `documents`, `vendor`).

pub mod document;
mod documents;
mod error;
mod install;
mod operations;
pub mod seats;
mod vendor;

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::ids::{AccountName, Groups, LicenceId};
use crate::persist::{Inserted, Result, Update, Updated};

pub use document::{Document, DocumentError};
pub use documents::{Distrust, Documents, LOOK_EVERY, TOLERANCE};
pub use error::Error;
pub use install::Installed;
pub use operations::{NewLicence, Operations, STANDARD_PLAN, Upgrade};
pub use vendor::{VendorKey, VendorKeyError, VendorPublicKey};

/// Settings of `[licences]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The vendors whose documents are believed.
    pub vendor_keys: Vec<VendorPublicKey>,
}

/// Grants groups and a plan to an account for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Licence {
    /// Its id.
    pub id: LicenceId,
    /// The licensee.
    pub account: AccountName,
    /// What it grants.
    pub groups: Groups,
    /// The plan's name; rates and quotas hang on it.
    pub plan: String,
    /// It grants nothing before this instant.
    pub starts_at: Timestamp,
    /// It grants nothing from this instant on; `None` is without end.
    pub ends_at: Option<Timestamp>,
    /// Suspended for a time.
    pub suspended: bool,
    /// How many keys may hold a seat under it; `None` is any number. See [`seats`].
    pub seats: Option<u32>,
    /// Granted to try things out.
    pub trial: bool,
    /// The signed document it was installed from, as a compact JWS; `None` when it was granted here.
    pub document: Option<String>,
    /// What that document says of how much it may be used, by name. A store keeps none: they are not believed by themselves.
    pub quotas: BTreeMap<String, u64>,
    /// When it was granted.
    pub created_at: Timestamp,
}

impl Licence {
    /// Whether it grants anything at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        !self.suspended && self.starts_at <= now && self.ends_at.is_none_or(|end| now < end)
    }
}

/// Whether a licence may be added to those that its account has.
pub type Beside<'f> = dyn Fn(&[Licence]) -> bool + Send + Sync + 'f;

/// Durable licences.
#[async_trait]
pub trait LicenceStore: Send + Sync {
    /// Adds a licence; `false` when the id is taken. That its account does not exist is an error, as with a key.
    async fn insert_licence(&self, licence: &Licence) -> Result<bool>;
    /// As [`insert_licence`](Self::insert_licence), if `fits` says so of the licences that the account has at that moment.
    /// No other insertion comes between the question and the answer.
    async fn insert_licence_if(&self, licence: &Licence, fits: &Beside<'_>) -> Result<Inserted>;
    /// The licence of that id.
    async fn licence(&self, id: &LicenceId) -> Result<Option<Licence>>;
    /// All licences by account and id, or those of one account.
    async fn licences(&self, of: Option<&AccountName>) -> Result<Vec<Licence>>;
    /// Those that were installed from a document, by account and id.
    async fn installed_licences(&self) -> Result<Vec<Licence>>;
    /// Replaces a licence by an atomic function of its present value; `id`, `account` and `created_at` never change.
    /// A [`Cut`](crate::persist::Cut) revokes the account's tokens in the same transaction.
    async fn update_licence(
        &self,
        id: &LicenceId,
        change: &(dyn Fn(Licence) -> Update<Licence> + Send + Sync),
    ) -> Result<Updated<Licence>>;
    /// The latest time that was ever noted; the epoch when none was.
    async fn latest_time(&self) -> Result<Timestamp>;
    /// Notes a time, unless a later one was noted. It is in no feed.
    async fn note_time(&self, at: Timestamp) -> Result<()>;
}
