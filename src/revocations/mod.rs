//! Revocations: decisions that tokens are dead before their time. Owns the durable record, the feed by which other
//! processes hear of changes, and the set in memory that every access checks.
//!
//! A revocation of a key, an account or everything is a cut-off: tokens with `iat` before it are dead. The cut-off of a
//! target only grows, and a credential verified before the change cannot yield a token after it (see [`Cutoff`]).

mod operations;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dashmap::DashMap;

use crate::clock::Timestamp;
use crate::ids::{AccountName, GroupId, KeyId, TokenId};
use crate::persist::Result;

pub use operations::{Error, Operations};

/// No token lives longer than this, so no revocation has to be remembered longer.
pub const LONGEST_TOKEN: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a revocation ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// One token.
    Token(TokenId),
    /// The tokens got with one key.
    Key(KeyId),
    /// The tokens of one account, by key or password.
    Account(AccountName),
    /// All tokens.
    All,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(id) => write!(f, "token {id}"),
            Self::Key(id) => write!(f, "key {id}"),
            Self::Account(name) => write!(f, "account {name}"),
            Self::All => f.write_str("all tokens"),
        }
    }
}

/// The first `iat` (in seconds) that is still good; everything before it is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cutoff(pub u64);

impl Cutoff {
    /// Nothing is good any more. Fits a signed 64-bit column.
    pub const FOREVER: Self = Self(i64::MAX as u64);

    /// The cut-off of a revocation at `now` after an earlier one. It lies beyond the present second, since `iat` counts
    /// in seconds and tokens of this second must die too; and beyond the earlier cut-off, since an issuance that began
    /// under that one may still be under way with an `iat` of exactly that.
    pub fn after(earlier: Option<Self>, now: Timestamp) -> Self {
        let present = now.secs() + 1;
        match earlier {
            Some(Self(earlier)) => Self(present.max(earlier.saturating_add(1)).min(Self::FOREVER.0)),
            None => Self(present),
        }
    }
}

/// A durable revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What it ends.
    pub target: Target,
    /// Tokens with an earlier `iat` are dead. For a single token, [`Cutoff::FOREVER`].
    pub cutoff: Cutoff,
    /// When it was decided.
    pub made_at: Timestamp,
    /// From then on no token it could concern is alive, and it may be forgotten.
    pub forget_at: Timestamp,
}

/// What changed in the store, for those who keep something of it in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An account was written.
    Account(AccountName),
    /// A key was written.
    Key(KeyId),
    /// A licence of this account was written.
    Licence(AccountName),
    /// A group was written.
    Group(GroupId),
    /// The signing keys were written.
    SigningKeys,
    /// A revocation was decided.
    Revoked(Revocation),
}

/// What the feed says since a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Everything since then, in order, and the version now reached.
    List(Vec<Change>, u64),
    /// Too much has happened, or the version is unknown: forget all that is kept and load it anew.
    Lost,
}

/// Durable revocations and the feed of changes. The feed's version grows with every committed change, whichever process
/// made it.
#[async_trait]
pub trait RevocationStore: Send + Sync {
    /// Decides that the tokens of `target` so far are dead; the answer is durable. For [`Target::Token`] and where
    /// `forever`, the cut-off is [`Cutoff::FOREVER`]; else [`Cutoff::after`] of the target's latest one.
    async fn revoke(&self, target: &Target, now: Timestamp, forever: bool) -> Result<Revocation>;
    /// Decides that tokens issued before `before` are dead, everywhere.
    async fn revoke_all_before(&self, before: Timestamp, now: Timestamp) -> Result<Revocation>;
    /// All that must still be remembered at `now`, one per target, oldest first; for replay before ready.
    async fn revocations(&self, now: Timestamp) -> Result<Vec<Revocation>>;
    /// Drops what may be forgotten at `now`, and feed entries that an earlier call met an hour ago or longer: updates are
    /// not told the time, so these calls are what dates an entry. Returns how many rows went.
    async fn forget(&self, now: Timestamp) -> Result<u64>;
    /// The feed's present version.
    async fn version(&self) -> Result<u64>;
    /// What changed after `version`.
    async fn changes_since(&self, version: u64) -> Result<Changes>;
}

/// All revocations in force, in memory.
///
/// Made for readers: whoever keeps something that a revocation could end also keeps the [`generation`] it was last
/// compared at, and asks again only when that has moved.
///
/// [`generation`]: Revocations::generation
#[derive(Debug, Default)]
pub struct Revocations {
    generation: AtomicU64,
    all: AtomicU64,
    keys: DashMap<KeyId, Cutoff>,
    accounts: DashMap<AccountName, Cutoff>,
    tokens: DashMap<TokenId, Timestamp>,
    token_count: AtomicUsize,
}

impl Revocations {
    /// Puts a revocation into force at once.
    pub fn apply(&self, revocation: &Revocation) {
        let cutoff = revocation.cutoff;
        // Before the change as well: whoever reads the new cut-off must not find the generation it began with.
        self.generation.fetch_add(1, Ordering::AcqRel);
        match &revocation.target {
            Target::Token(id) => {
                if self.tokens.insert(*id, revocation.forget_at).is_none() {
                    self.token_count.fetch_add(1, Ordering::Release);
                }
            }
            Target::Key(id) => {
                let mut held = self.keys.entry(*id).or_insert(cutoff);
                *held = cutoff.max(*held);
            }
            Target::Account(name) => {
                let mut held = self.accounts.entry(name.clone()).or_insert(cutoff);
                *held = cutoff.max(*held);
            }
            Target::All => {
                self.all.fetch_max(cutoff.0, Ordering::AcqRel);
            }
        }
        // After the change, so that whoever sees the new generation also sees what it brought.
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Moves with every revocation.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The cut-off that a token of this account, got with this key, must obey.
    pub fn cutoff(&self, account: &AccountName, key: Option<&KeyId>) -> Cutoff {
        let mut cutoff = Cutoff(self.all.load(Ordering::Acquire));
        if let Some(held) = self.accounts.get(account) {
            cutoff = cutoff.max(*held);
        }
        if let Some(held) = key.and_then(|key| self.keys.get(key)) {
            cutoff = cutoff.max(*held);
        }
        cutoff
    }

    /// Whether this one token was revoked.
    pub fn has_token(&self, id: TokenId) -> bool {
        self.token_count.load(Ordering::Acquire) > 0 && self.tokens.contains_key(&id)
    }

    /// How many targets are held.
    pub fn len(&self) -> usize {
        self.keys.len() + self.accounts.len() + self.tokens.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops what no token alive at `now` could be concerned by.
    pub fn forget(&self, now: Timestamp) {
        self.tokens.retain(|_, forget_at| {
            let keep = now < *forget_at;
            if !keep {
                self.token_count.fetch_sub(1, Ordering::Release);
            }
            keep
        });
        let oldest = (now - LONGEST_TOKEN).secs();
        self.keys.retain(|_, cutoff| cutoff.0 > oldest);
        self.accounts.retain(|_, cutoff| cutoff.0 > oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cutoff_lies_beyond_the_present_second_and_beyond_the_earlier_one() {
        let now = Timestamp::from_millis(100_900);
        assert_eq!(Cutoff::after(None, now), Cutoff(101));
        assert_eq!(Cutoff::after(Some(Cutoff(101)), now), Cutoff(102));
        assert_eq!(Cutoff::after(Some(Cutoff::FOREVER), now), Cutoff::FOREVER);
    }

    #[test]
    fn the_highest_cutoff_of_all_key_and_account_holds_and_never_shrinks() {
        let revocations = Revocations::default();
        let (account, key) = ("acme".parse().unwrap(), "0123456789ab".parse().unwrap());
        let apply = |target, cutoff| {
            revocations.apply(&Revocation {
                target,
                cutoff: Cutoff(cutoff),
                made_at: Timestamp::default(),
                forget_at: Timestamp::default(),
            });
        };
        apply(Target::All, 200);
        apply(Target::All, 100);
        assert_eq!(revocations.cutoff(&account, Some(&key)), Cutoff(200));
        apply(Target::Account(account.clone()), 300);
        apply(Target::Key(key), 400);
        assert_eq!(revocations.cutoff(&account, None), Cutoff(300));
        assert_eq!(revocations.cutoff(&account, Some(&key)), Cutoff(400));
        assert_eq!(revocations.generation(), 8, "it moves before and after each change");
    }

    #[test]
    fn what_concerns_no_live_token_is_forgotten() {
        let revocations = Revocations::default();
        let made_at = Timestamp::from_secs(1000);
        let id = TokenId::random();
        let forget_at = made_at + LONGEST_TOKEN;
        revocations.apply(&Revocation { target: Target::Token(id), cutoff: Cutoff::FOREVER, made_at, forget_at });
        revocations.forget(forget_at - std::time::Duration::from_secs(1));
        assert!(revocations.has_token(id));
        revocations.forget(forget_at);
        assert!(!revocations.has_token(id));
        assert!(revocations.is_empty());
    }
}
