//! Backends of the rooms' store traits: `memory` is the reference, `sqlite` the default. One conformance suite runs on
//! each. Only the assembly names a concrete one.

use std::sync::Arc;

use crate::accounts::AccountStore;
use crate::groups::GroupStore;
use crate::keys::KeyStore;
use crate::licences::LicenceStore;
use crate::notices::NoticeStore;
use crate::plans::CountStore;
use crate::revocations::RevocationStore;
use crate::signing::SigningKeyStore;
use crate::usage::UsageStore;

#[cfg(test)]
#[macro_use]
pub(crate) mod conformance;
mod memory;
mod rules;
mod sqlite;

pub use memory::MemoryStore;
pub use sqlite::SqliteStore;

/// A backend for every record of the gateway.
pub trait Store:
    AccountStore
    + CountStore
    + GroupStore
    + KeyStore
    + LicenceStore
    + NoticeStore
    + RevocationStore
    + SigningKeyStore
    + UsageStore
{
}

impl<T> Store for T where
    T: AccountStore
        + CountStore
        + GroupStore
        + KeyStore
        + LicenceStore
        + NoticeStore
        + RevocationStore
        + SigningKeyStore
        + UsageStore
{
}

/// A store, whichever it is.
pub type SharedStore = Arc<dyn Store>;
