//! What an operator can do against tokens that are out. The command line calls it, and an admin API can call the same.

use std::fmt;
use std::sync::Arc;

use super::{Revocation, RevocationStore, Target};
use crate::accounts::AccountStore;
use crate::change::is_late;
use crate::clock::{Clock, Timestamp};
use crate::groups::demo;
use crate::ids::{AccountName, KeyId, TokenId};
use crate::keys::KeyStore;
use crate::persist;

/// Why tokens could not be revoked.
#[derive(Debug)]
pub enum Error {
    /// There is no key of that id.
    NoKey(KeyId),
    /// There is no account of that name.
    NoAccount(AccountName),
    /// An instant that has not come yet.
    Future(Timestamp),
    /// The store failed.
    Store(persist::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey(id) => write!(f, "there is no key {id}"),
            Self::NoAccount(name) => write!(f, "there is no account \"{name}\""),
            Self::Future(at) => write!(f, "{at} has not come yet; tokens can be revoked up to now"),
            Self::Store(_) => f.write_str("revocations could not be read or written"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
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

/// The operations on revocations. None of them touches a credential: a key or password goes on working, and gets new
/// tokens. To stop it, suspend or revoke it in its own room.
#[derive(Clone)]
pub struct Operations {
    revocations: Arc<dyn RevocationStore>,
    keys: Arc<dyn KeyStore>,
    accounts: Arc<dyn AccountStore>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl Operations {
    /// Operations on `revocations`; the other stores are asked whether a target exists, since a mistyped one would
    /// revoke nothing and look done.
    pub fn new(
        revocations: Arc<dyn RevocationStore>,
        keys: Arc<dyn KeyStore>,
        accounts: Arc<dyn AccountStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { revocations, keys, accounts, clock }
    }

    /// Revokes one token. Whether it ever existed is not known here: tokens are no records.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn token(&self, id: TokenId) -> Result<Revocation, Error> {
        // A token is dead for good; the store knows that of `Target::Token`, whatever `forever` says.
        Ok(self.revocations.revoke(&Target::Token(id), self.clock.now(), true).await?)
    }

    /// Revokes the tokens got so far with one key, the demo key included.
    ///
    /// # Errors
    /// When there is no such key, or the store fails.
    pub async fn of_key(&self, id: &KeyId) -> Result<Revocation, Error> {
        if *id != demo::key_id() && self.keys.key(id).await?.is_none() {
            return Err(Error::NoKey(*id));
        }
        self.cut(&Target::Key(*id)).await
    }

    /// Revokes the tokens of one account so far, by key or password, the demo account included.
    ///
    /// # Errors
    /// When there is no such account, or the store fails.
    pub async fn of_account(&self, name: &AccountName) -> Result<Revocation, Error> {
        if name.as_str() != demo::DEMO && self.accounts.account(name).await?.is_none() {
            return Err(Error::NoAccount(name.clone()));
        }
        self.cut(&Target::Account(name.clone())).await
    }

    /// Revokes every token so far.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn all(&self) -> Result<Revocation, Error> {
        self.cut(&Target::All).await
    }

    /// Ends the tokens of `target` so far: those that were got while this was being written as well.
    async fn cut(&self, target: &Target) -> Result<Revocation, Error> {
        let decided_at = self.clock.now();
        let revocation = self.revocations.revoke(target, decided_at, false).await?;
        let committed_at = self.clock.now();
        if !is_late(decided_at, committed_at) {
            return Ok(revocation);
        }
        Ok(self.revocations.revoke(target, committed_at, false).await?)
    }

    /// Revokes every token issued before an instant.
    ///
    /// # Errors
    /// When the instant has not come yet, or the store fails.
    pub async fn all_before(&self, before: Timestamp) -> Result<Revocation, Error> {
        let now = self.clock.now();
        if before > now {
            return Err(Error::Future(before));
        }
        Ok(self.revocations.revoke_all_before(before, now).await?)
    }

    /// All revocations in force, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self) -> Result<Vec<Revocation>, Error> {
        Ok(self.revocations.revocations(self.clock.now()).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::revocations::Cutoff;
    use crate::store::MemoryStore;
    use std::time::Duration;

    fn office() -> (Operations, Timestamp) {
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)));
        let now = clock.now();
        (Operations::new(store.clone(), store.clone(), store, clock), now)
    }

    #[tokio::test]
    async fn a_mistyped_target_is_told_and_revokes_nothing() {
        let (revocations, _) = office();
        assert!(matches!(revocations.of_key(&"0123456789ab".parse().unwrap()).await, Err(Error::NoKey(_))));
        assert!(matches!(revocations.of_account(&"nobody".parse().unwrap()).await, Err(Error::NoAccount(_))));
        assert_eq!(revocations.list().await.expect("a store"), []);
    }

    #[tokio::test]
    async fn tokens_of_the_demo_key_and_single_tokens_can_be_revoked() {
        let (revocations, now) = office();
        let demo = revocations.of_key(&demo::key_id()).await.expect("the demo key");
        assert_eq!((demo.target, demo.cutoff), (Target::Key(demo::key_id()), Cutoff(now.secs() + 1)));
        let id = TokenId::random();
        let token = revocations.token(id).await.expect("a store");
        assert_eq!((token.target, token.cutoff), (Target::Token(id), Cutoff::FOREVER));
        assert_eq!(revocations.list().await.expect("a store").len(), 2);
    }

    #[tokio::test]
    async fn everything_is_revoked_up_to_now_and_no_further() {
        let (revocations, now) = office();
        let hour = Duration::from_secs(3600);
        assert!(matches!(revocations.all_before(now + hour).await, Err(Error::Future(_))));
        assert_eq!(revocations.all_before(now - hour).await.expect("a store").cutoff, Cutoff((now - hour).secs()));
        assert!(revocations.all().await.expect("a store").cutoff > Cutoff(now.secs()));
    }
}
