//! What an operator does with keys, on the store in memory.

use super::*;
use crate::accounts::Account;
use crate::clock::ManualClock;
use crate::groups::Group;
use crate::keys::{Added, Seats};
use crate::keys::{Fits, SeatedChange};
use crate::revocations::{Cutoff, RevocationStore, Target};
use crate::store::MemoryStore;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

struct Office {
    store: Arc<MemoryStore>,
    keys: Operations,
    now: Timestamp,
}

impl Office {
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)));
        let now = clock.now();
        let acme = Account {
            name: acme(),
            title: String::new(),
            password: None,
            suspended: false,
            expires_at: None,
            created_at: now,
        };
        assert!(store.insert_account(&acme).await.expect("a store"));
        for id in ["orders", "reports"] {
            let id = id.parse().expect("a group id");
            let group = Group { id, title: String::new(), token_lifetime: None, created_at: now };
            assert!(store.insert_group(&group).await.expect("a store"));
        }
        let keys = Operations::new(store.clone(), store.clone(), store.clone(), clock, KeyPrefix::default());
        Self { store, keys, now }
    }

    async fn create(&self, new: NewKey) -> Result<(ApiKey, Key), Error> {
        let hash =
            |text: Secret<String>| std::future::ready(Ok(PasswordHash::from_phc(format!("${}", text.expose().len()))));
        self.keys.create(new, hash).await
    }

    async fn key(&self) -> KeyId {
        self.create(plain()).await.expect("a key").1.id
    }

    async fn cutoff(&self, id: &KeyId) -> Option<Cutoff> {
        let revocations = self.store.revocations(self.now).await.expect("a store");
        revocations.iter().find(|r| r.target == Target::Key(*id)).map(|r| r.cutoff)
    }
}

fn acme() -> AccountName {
    "acme".parse().expect("a name")
}

fn plain() -> NewKey {
    NewKey { account: acme(), label: "ci".into(), groups: None, expires_at: None, networks: None, plan: None }
}

fn groups(ids: &[&str]) -> Groups {
    ids.iter().map(|id| id.parse().expect("a group id")).collect()
}

#[tokio::test]
async fn a_created_key_is_stored_under_its_id_with_the_hash_of_the_whole_key() {
    let office = Office::new().await;
    let (api_key, key) = office.create(plain()).await.expect("a key");
    assert_eq!((api_key.id(), key.hash.as_phc()), (&key.id, "$54"));
    assert_eq!(office.keys.show(&key.id).await.expect("stored"), key);
    assert!(key.is_live(office.now));
}

#[tokio::test]
async fn what_a_key_names_must_exist() {
    let office = Office::new().await;
    let nobody: AccountName = "nobody".parse().unwrap();
    let with = |account: AccountName| NewKey { account, ..plain() };
    assert!(matches!(office.create(with(nobody.clone())).await, Err(Error::NoAccount(_))));
    assert!(matches!(office.create(with("demo".parse().unwrap())).await, Err(Error::Demo)));
    assert!(matches!(office.keys.list(Some(&nobody)).await, Err(Error::NoAccount(_))));
    let within = |ids: &[&str]| NewKey { groups: Some(groups(ids)), ..plain() };
    assert!(matches!(office.create(within(&["orders", "none"])).await, Err(Error::NoGroup(_))));
    assert!(matches!(office.create(within(&["demo"])).await, Err(Error::DemoGroup)));
    assert!(matches!(office.create(within(&[])).await, Err(Error::NoGroups)));
    assert!(matches!(office.create(NewKey { expires_at: Some(office.now), ..plain() }).await, Err(Error::PastEnd(_))));
    assert!(matches!(office.create(NewKey { label: "a\nb".into(), ..plain() }).await, Err(Error::Text(_))));
    assert_eq!(office.keys.list(None).await.expect("a store"), [], "a refusal stores nothing");
}

#[tokio::test]
async fn the_demo_key_cannot_be_touched() {
    let office = Office::new().await;
    assert!(matches!(office.keys.revoke(&demo::key_id()).await, Err(Error::Demo)));
    assert!(matches!(office.keys.set_groups(&demo::key_id(), None).await, Err(Error::Demo)));
}

#[tokio::test]
async fn suspending_cuts_tokens_and_resuming_brings_the_key_back() {
    let office = Office::new().await;
    let id = office.key().await;
    let suspended = office.keys.suspend(&id).await.expect("a key");
    assert!(suspended.tokens_cut && !suspended.record.is_live(office.now));
    assert!(office.cutoff(&id).await.is_some_and(|cutoff| cutoff != Cutoff::FOREVER));
    assert!(!office.keys.suspend(&id).await.expect("a key").written);
    let resumed = office.keys.resume(&id).await.expect("a key");
    assert!(resumed.record.is_live(office.now) && !resumed.tokens_cut);
}

#[tokio::test]
async fn revoking_is_for_good_and_can_be_repeated() {
    let office = Office::new().await;
    let id = office.key().await;
    let revoked = office.keys.revoke(&id).await.expect("a key");
    assert!(revoked.tokens_cut && revoked.record.state == KeyState::Revoked);
    assert_eq!(office.cutoff(&id).await, Some(Cutoff::FOREVER));
    let again = office.keys.revoke(&id).await.expect("a key");
    assert!(!again.written && again.record.state == KeyState::Revoked);
    assert!(matches!(office.keys.resume(&id).await, Err(Error::Revoked(_))));
    assert!(matches!(office.keys.suspend(&id).await, Err(Error::Revoked(_))));
    assert!(matches!(office.keys.set_expiry(&id, None).await, Err(Error::Revoked(_))));
    assert!(matches!(office.keys.set_groups(&id, None).await, Err(Error::Revoked(_))));
    assert!(office.keys.set_label(&id, "was ci").await.expect("only a label").written);
}

#[tokio::test]
async fn an_earlier_end_and_a_lost_group_cut_tokens() {
    let office = Office::new().await;
    let id = office.key().await;
    let end = async |end| office.keys.set_expiry(&id, end).await.expect("a key").tokens_cut;
    assert!(end(Some(office.now + DAY)).await);
    assert!(!end(Some(office.now + 2 * DAY)).await);
    assert!(!end(None).await);
    let reach = async |ids: Option<&[&str]>| {
        let changed = office.keys.set_groups(&id, ids.map(groups).as_ref()).await.expect("a key");
        (changed.written, changed.tokens_cut)
    };
    assert_eq!(reach(Some(&["orders"])).await, (true, true), "from all to one");
    assert_eq!(reach(Some(&["orders", "reports"])).await, (true, false), "from one to two");
    assert_eq!(reach(Some(&["reports"])).await, (true, true), "from two to one");
    assert_eq!(reach(Some(&["orders"])).await, (true, true), "from one to another");
    assert_eq!(reach(None).await, (true, false), "from one to all");
    assert_eq!(reach(None).await, (false, false));
}

#[tokio::test]
async fn an_id_that_is_taken_is_drawn_anew() {
    struct TakenAtFirst(Arc<MemoryStore>, std::sync::atomic::AtomicUsize);
    #[async_trait::async_trait]
    impl KeyStore for TakenAtFirst {
        async fn insert_key(&self, key: &Key) -> persist::Result<bool> {
            self.0.insert_key(key).await
        }
        async fn insert_key_if(&self, key: &Key, now: Timestamp, fits: &Fits<'_>) -> persist::Result<Inserted> {
            if self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
                return Ok(Inserted::Taken);
            }
            self.0.insert_key_if(key, now, fits).await
        }
        async fn update_key_seated(
            &self,
            id: &KeyId,
            now: Timestamp,
            change: &SeatedChange<'_>,
        ) -> persist::Result<Updated<Key>> {
            self.0.update_key_seated(id, now, change).await
        }
        async fn key(&self, id: &KeyId) -> persist::Result<Option<Key>> {
            self.0.key(id).await
        }
        async fn keys(&self, of: Option<&AccountName>) -> persist::Result<Vec<Key>> {
            self.0.keys(of).await
        }
        async fn update_key(
            &self,
            id: &KeyId,
            change: &(dyn Fn(Key) -> Update<Key> + Send + Sync),
        ) -> persist::Result<persist::Updated<Key>> {
            self.0.update_key(id, change).await
        }
        async fn insert_keys(&self, keys: &[Key], now: Timestamp, seats: &Seats<'_>) -> persist::Result<Added> {
            self.0.insert_keys(keys, now, seats).await
        }
        async fn seating(&self, account: &AccountName, now: Timestamp) -> persist::Result<Seating> {
            self.0.seating(account, now).await
        }
        async fn keys_to_finish(&self, now: Timestamp) -> persist::Result<Vec<KeyId>> {
            self.0.keys_to_finish(now).await
        }
        async fn stamp_keys(&self, stamps: &[crate::keys::Stamp]) -> persist::Result<()> {
            self.0.stamp_keys(stamps).await
        }
    }

    let Office { store, keys, .. } = Office::new().await;
    let taken = Arc::new(TakenAtFirst(store, std::sync::atomic::AtomicUsize::new(0)));
    let keys = Operations { keys: taken, ..keys };
    let mut hashed = Vec::new();
    let hash = |text: Secret<String>| {
        hashed.push(text);
        std::future::ready(Ok(PasswordHash::from_phc("$".into())))
    };
    let (api_key, key) = keys.create(plain(), hash).await.expect("the second draw");
    assert_eq!(hashed.len(), 2);
    assert_eq!(&hashed[1], api_key.secret());
    assert_eq!(keys.list(Some(&acme())).await.expect("a store"), [key]);
}
