//! Every cut of every room, on a store whose commits take long enough for the second to turn.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::accounts::{self, Account, AccountStore};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::groups::{Group, GroupStore};
use crate::ids::{AccountName, GroupId, KeyId, LicenceId};
use crate::keys::{self, Added, Fits, Key, KeyPrefix, KeyStore, SeatedChange, Seats, Stamp};
use crate::licences::seats::Seating;
use crate::licences::{self, Beside, Licence, LicenceStore};
use crate::persist::{Inserted, Result, Update, Updated};
use crate::revocations::{self, Changes, Cutoff, Revocation, RevocationStore, Target};
use crate::store::MemoryStore;

/// Reads at once. A write is decided at once too, and is there for all to see 200 ms later.
struct Late {
    store: MemoryStore,
    clock: Arc<ManualClock>,
}

impl Late {
    fn commit<T>(&self, done: T) -> T {
        self.clock.advance(Duration::from_millis(200));
        done
    }
}

#[async_trait]
impl AccountStore for Late {
    async fn insert_account(&self, account: &Account) -> Result<bool> {
        self.store.insert_account(account).await
    }
    async fn account(&self, name: &AccountName) -> Result<Option<Account>> {
        self.store.account(name).await
    }
    async fn accounts(&self) -> Result<Vec<Account>> {
        self.store.accounts().await
    }
    async fn update_account(
        &self,
        name: &AccountName,
        change: &(dyn Fn(Account) -> Update<Account> + Send + Sync),
    ) -> Result<Updated<Account>> {
        Ok(self.commit(self.store.update_account(name, change).await?))
    }
}

#[async_trait]
impl KeyStore for Late {
    async fn insert_key(&self, key: &Key) -> Result<bool> {
        self.store.insert_key(key).await
    }
    async fn insert_key_if(&self, key: &Key, now: Timestamp, fits: &Fits<'_>) -> Result<Inserted> {
        self.store.insert_key_if(key, now, fits).await
    }
    async fn update_key_seated(&self, id: &KeyId, now: Timestamp, change: &SeatedChange<'_>) -> Result<Updated<Key>> {
        Ok(self.commit(self.store.update_key_seated(id, now, change).await?))
    }
    async fn key(&self, id: &KeyId) -> Result<Option<Key>> {
        self.store.key(id).await
    }
    async fn keys(&self, of: Option<&AccountName>) -> Result<Vec<Key>> {
        self.store.keys(of).await
    }
    async fn update_key(
        &self,
        id: &KeyId,
        change: &(dyn Fn(Key) -> Update<Key> + Send + Sync),
    ) -> Result<Updated<Key>> {
        Ok(self.commit(self.store.update_key(id, change).await?))
    }
    async fn insert_keys(&self, keys: &[Key], now: Timestamp, seats: &Seats<'_>) -> Result<Added> {
        self.store.insert_keys(keys, now, seats).await
    }
    async fn seating(&self, account: &AccountName, now: Timestamp) -> Result<Seating> {
        self.store.seating(account, now).await
    }
    async fn keys_to_finish(&self, now: Timestamp) -> Result<Vec<KeyId>> {
        self.store.keys_to_finish(now).await
    }
    async fn stamp_keys(&self, stamps: &[Stamp]) -> Result<()> {
        self.store.stamp_keys(stamps).await
    }
}

#[async_trait]
impl LicenceStore for Late {
    async fn insert_licence(&self, licence: &Licence) -> Result<bool> {
        self.store.insert_licence(licence).await
    }
    async fn insert_licence_if(&self, licence: &Licence, fits: &Beside<'_>) -> Result<Inserted> {
        self.store.insert_licence_if(licence, fits).await
    }
    async fn latest_time(&self) -> Result<Timestamp> {
        self.store.latest_time().await
    }
    async fn note_time(&self, at: Timestamp) -> Result<()> {
        self.store.note_time(at).await
    }
    async fn licence(&self, id: &LicenceId) -> Result<Option<Licence>> {
        self.store.licence(id).await
    }
    async fn licences(&self, of: Option<&AccountName>) -> Result<Vec<Licence>> {
        self.store.licences(of).await
    }
    async fn installed_licences(&self) -> Result<Vec<Licence>> {
        self.store.installed_licences().await
    }
    async fn update_licence(
        &self,
        id: &LicenceId,
        change: &(dyn Fn(Licence) -> Update<Licence> + Send + Sync),
    ) -> Result<Updated<Licence>> {
        Ok(self.commit(self.store.update_licence(id, change).await?))
    }
}

#[async_trait]
impl GroupStore for Late {
    async fn insert_group(&self, group: &Group) -> Result<bool> {
        self.store.insert_group(group).await
    }
    async fn group(&self, id: &GroupId) -> Result<Option<Group>> {
        self.store.group(id).await
    }
    async fn groups(&self) -> Result<Vec<Group>> {
        self.store.groups().await
    }
    async fn replace_group(&self, group: &Group) -> Result<bool> {
        self.store.replace_group(group).await
    }
    async fn delete_group(&self, id: &GroupId) -> Result<bool> {
        self.store.delete_group(id).await
    }
}

#[async_trait]
impl RevocationStore for Late {
    async fn revoke(&self, target: &Target, now: Timestamp, forever: bool) -> Result<Revocation> {
        Ok(self.commit(self.store.revoke(target, now, forever).await?))
    }
    async fn revoke_all_before(&self, before: Timestamp, now: Timestamp) -> Result<Revocation> {
        self.store.revoke_all_before(before, now).await
    }
    async fn revocations(&self, now: Timestamp) -> Result<Vec<Revocation>> {
        self.store.revocations(now).await
    }
    async fn forget(&self, now: Timestamp) -> Result<u64> {
        self.store.forget(now).await
    }
    async fn version(&self) -> Result<u64> {
        self.store.version().await
    }
    async fn changes_since(&self, version: u64) -> Result<Changes> {
        self.store.changes_since(version).await
    }
}

/// A store with one account, key and licence, and a clock at `millis`.
async fn late(millis: u64) -> (Arc<Late>, KeyId, LicenceId) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(millis)));
    let (created_at, hash) = (clock.now(), crate::credentials::PasswordHash::from_phc("$".into()));
    let store = Arc::new(Late { store: MemoryStore::new(), clock });
    let password = Some(hash.clone());
    let account =
        Account { name: acme(), title: String::new(), password, suspended: false, expires_at: None, created_at };
    assert!(store.insert_account(&account).await.expect("a store"));
    let id = KeyId::random();
    let key = Key::new(id, acme(), hash, created_at);
    assert!(store.insert_key(&key).await.expect("a store"));
    let licence = Licence {
        id: LicenceId::random(),
        account: acme(),
        groups: ["orders".parse().expect("a group")].into(),
        plan: "standard".into(),
        starts_at: created_at,
        ends_at: None,
        suspended: false,
        seats: None,
        trial: false,
        document: None,
        quotas: [].into(),
        created_at,
    };
    assert!(store.insert_licence(&licence).await.expect("a store"));
    (store, id, licence.id)
}

fn acme() -> AccountName {
    "acme".parse().expect("a name")
}

/// The cut-off of `target` that an operation begun at `millis` leaves behind.
async fn cutoff_after(millis: u64, operation: &str) -> Cutoff {
    let (late, key, licence) = late(millis).await;
    let clock = Arc::clone(&late.clock) as Arc<dyn Clock>;
    let keys =
        keys::Operations::new(late.clone(), late.clone(), late.clone(), Arc::clone(&clock), KeyPrefix::default());
    let accounts = accounts::Operations::new(late.clone(), Arc::clone(&clock), KeyPrefix::default());
    let licences = licences::Operations::new(late.clone(), late.clone(), late.clone(), Arc::clone(&clock));
    let revocations = revocations::Operations::new(late.clone(), late.clone(), late.clone(), clock);
    let target = match operation {
        "suspend a key" => keys.suspend(&key).await.map(|done| (done.tokens_cut, Target::Key(key))).expect("done"),
        "suspend an account" => {
            accounts.suspend(&acme()).await.map(|done| (done.tokens_cut, Target::Account(acme()))).expect("done")
        }
        "clear a password" => {
            accounts.clear_password(&acme()).await.map(|done| (done.tokens_cut, Target::Account(acme()))).expect("done")
        }
        "end a licence" => {
            licences.end(&licence).await.map(|done| (done.tokens_cut, Target::Account(acme()))).expect("done")
        }
        "revoke a key's tokens" => revocations.of_key(&key).await.map(|done| (true, done.target)).expect("done"),
        "revoke all tokens" => revocations.all().await.map(|done| (true, done.target)).expect("done"),
        other => panic!("{other}"),
    };
    assert!(target.0, "{operation} cuts");
    let held = late.revocations(Timestamp::from_millis(millis)).await.expect("a store");
    held.into_iter().find(|held| held.target == target.1).expect("a revocation").cutoff
}

#[tokio::test]
async fn a_cut_covers_what_was_issued_until_its_change_could_be_seen() {
    for operation in [
        "suspend a key",
        "suspend an account",
        "clear a password",
        "end a licence",
        "revoke a key's tokens",
        "revoke all tokens",
    ] {
        // Decided and seen within one second: tokens of that second are dead, and no later ones.
        assert_eq!(cutoff_after(100_100, operation).await, Cutoff(101), "{operation}");
        // Decided at 100.9 and seen at 101.1: a token of 101.0 was got from the record as it was, and must die.
        assert_eq!(cutoff_after(100_900, operation).await, Cutoff(102), "{operation}");
    }
}
