//! What the store says a credential must match, and what it is limited to.

use std::fmt;

use super::{Kept, PasswordHash};
use crate::accounts::Account;
use crate::client_addr::Networks;
use crate::clock::Timestamp;
use crate::ids::{AccountName, Groups, KeyId, PlanId};
use crate::keys::{End, Key};

/// Which credential: a key by its id, or an account's password.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Credential {
    Key(KeyId),
    Password(AccountName),
}

impl Credential {
    /// What its hash keeps.
    pub fn kept(&self) -> Kept {
        match self {
            Self::Key(_) => Kept::Key,
            Self::Password(_) => Kept::Password,
        }
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => write!(f, "key {id}"),
            Self::Password(name) => write!(f, "password of {name}"),
        }
    }
}

/// One secret of a credential.
#[derive(Clone)]
pub(super) struct Record {
    pub hash: PasswordHash,
    pub account: AccountName,
    pub only: Option<Groups>,
    pub ends_at: Option<Timestamp>,
    pub networks: Option<Networks>,
    pub plan: Option<PlanId>,
    /// When the key was last rolled, if it was.
    pub rolled_at: Option<Timestamp>,
    pub secret: WhichSecret,
}

/// Which of a credential's secrets a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhichSecret {
    /// The present one.
    Present,
    /// The present one, and its first use sets the end of the old one.
    Unused,
    /// The old one of a key that was rolled.
    Old(End),
}

/// All that a credential may match now: the present secret, and the old one as long as it works.
pub(super) struct Records {
    pub present: Record,
    pub old: Option<Record>,
}

impl Records {
    /// Those of a key that is live.
    pub fn of_key(key: Key, now: Timestamp) -> Self {
        let old_ends_at = key.old_ends_at();
        let rolled_at = key.previous.as_ref().map(|half| half.rolled_at);
        let live = key.previous.filter(|half| half.is_live(now));
        let is_unused = live.as_ref().is_some_and(|half| matches!(half.end, End::AfterFirstUse(_)));
        let present = Record {
            hash: key.hash,
            account: key.account,
            only: key.groups,
            ends_at: key.expires_at,
            networks: key.networks,
            plan: key.plan,
            rolled_at,
            secret: if is_unused { WhichSecret::Unused } else { WhichSecret::Present },
        };
        let old = live.and_then(|half| {
            let secret = WhichSecret::Old(half.end);
            Some(Record { hash: half.hash?, ends_at: old_ends_at.or(key.expires_at), secret, ..present.clone() })
        });
        Self { present, old }
    }

    /// That of an account's password, if it has one.
    pub fn of_password(account: Account) -> Option<Self> {
        let present = Record {
            hash: account.password?,
            account: account.name,
            only: None,
            ends_at: None,
            networks: None,
            plan: None,
            rolled_at: None,
            secret: WhichSecret::Present,
        };
        Some(Self { present, old: None })
    }

    /// The one with this hash.
    pub fn with_hash(self, hash: &PasswordHash) -> Option<Record> {
        [Some(self.present), self.old].into_iter().flatten().find(|record| record.hash == *hash)
    }
}
