//! When a part is away or overrun: what goes on, what waits, and that it mends by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keybearer::accounts::{Account, AccountStore};
use keybearer::clock::Timestamp;
use keybearer::credentials::{Kept, PasswordHash};
use keybearer::groups::{Group, GroupStore};
use keybearer::ids::{AccountName, GroupId, KeyId, LicenceId};
use keybearer::keys::{Added, Fits, Key, KeyState, KeyStore, SeatedChange, Seats, Stamp};
use keybearer::licences::seats::Seating;
use keybearer::licences::{Beside, Licence, LicenceStore};
use keybearer::limits::Rate;
use keybearer::notices::{Notice, NoticeStore, Occasion};
use keybearer::persist::{Cut, Error, Inserted, Result, Update, Updated};
use keybearer::plans::{self, CountStore};
use keybearer::revocations::{Changes, Revocation, RevocationStore, Target};
use keybearer::signing::{SigningKey, SigningKeyStore};
use keybearer::store::MemoryStore;
use keybearer::usage::{Batch, By, Counts, Filter, Hour, Label, UsageStore};

use crate::forge;
use crate::gateway::TestGateway;
use crate::keys::another_secret_of;

/// A store that can be away, and whose answers can be held up on their way back.
#[derive(Debug, Default)]
struct Faulty {
    inner: MemoryStore,
    away: AtomicBool,
    /// The call whose answers are held up, while someone has the lock for writing.
    held: std::sync::Mutex<&'static str>,
    lock: tokio::sync::RwLock<()>,
    waiting: AtomicUsize,
}

impl Faulty {
    fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// Where an answer waits that is held up: what it says was true when it was read.
    async fn on_its_way(&self, call: &str) {
        let is_held = *self.held.lock().expect("no panic") == call;
        if is_held {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            drop(self.lock.read().await);
        }
    }

    fn inner(&self) -> Result<&MemoryStore> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(Error::Unavailable("the wire was cut at db.internal:5432".into())),
            false => Ok(&self.inner),
        }
    }
}

/// Hands calls on while the store is there.
macro_rules! hand_on {
    ($trait:ident { $(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty;)* }) => {
        #[async_trait]
        impl $trait for Faulty {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$out> {
                let answer = self.inner()?.$name($($arg),*).await;
                self.on_its_way(stringify!($name)).await;
                answer
            })*
        }
    };
}

hand_on!(AccountStore {
    fn insert_account(account: &Account) -> bool;
    fn account(name: &AccountName) -> Option<Account>;
    fn accounts() -> Vec<Account>;
    fn update_account(name: &AccountName, change: &(dyn Fn(Account) -> Update<Account> + Send + Sync)) -> Updated<Account>;
});
hand_on!(GroupStore {
    fn insert_group(group: &Group) -> bool;
    fn group(id: &GroupId) -> Option<Group>;
    fn groups() -> Vec<Group>;
    fn replace_group(group: &Group) -> bool;
    fn delete_group(id: &GroupId) -> bool;
});
hand_on!(KeyStore {
    fn insert_key(key: &Key) -> bool;
    fn insert_key_if(key: &Key, now: Timestamp, fits: &Fits<'_>) -> Inserted;
    fn update_key_seated(id: &KeyId, now: Timestamp, change: &SeatedChange<'_>) -> Updated<Key>;
    fn key(id: &KeyId) -> Option<Key>;
    fn keys(of: Option<&AccountName>) -> Vec<Key>;
    fn update_key(id: &KeyId, change: &(dyn Fn(Key) -> Update<Key> + Send + Sync)) -> Updated<Key>;
    fn insert_keys(keys: &[Key], now: Timestamp, seats: &Seats<'_>) -> Added;
    fn seating(account: &AccountName, now: Timestamp) -> Seating;
    fn keys_to_finish(now: Timestamp) -> Vec<KeyId>;
    fn stamp_keys(stamps: &[Stamp]) -> ();
});
hand_on!(LicenceStore {
    fn insert_licence(licence: &Licence) -> bool;
    fn insert_licence_if(licence: &Licence, fits: &Beside<'_>) -> Inserted;
    fn installed_licences() -> Vec<Licence>;
    fn latest_time() -> Timestamp;
    fn note_time(at: Timestamp) -> ();
    fn licence(id: &LicenceId) -> Option<Licence>;
    fn licences(of: Option<&AccountName>) -> Vec<Licence>;
    fn update_licence(id: &LicenceId, change: &(dyn Fn(Licence) -> Update<Licence> + Send + Sync)) -> Updated<Licence>;
});
hand_on!(NoticeStore {
    fn licences_ending(after: Timestamp, until: Timestamp) -> Vec<Licence>;
    fn notices(after: Timestamp) -> Vec<Notice>;
    fn update_notice(occasion: &Occasion, change: &(dyn Fn(Option<Notice>) -> Option<Notice> + Send + Sync)) -> Option<Notice>;
    fn forget_notices(until: Timestamp) -> u64;
});
hand_on!(RevocationStore {
    fn revoke(target: &Target, now: Timestamp, forever: bool) -> Revocation;
    fn revoke_all_before(before: Timestamp, now: Timestamp) -> Revocation;
    fn revocations(now: Timestamp) -> Vec<Revocation>;
    fn forget(now: Timestamp) -> u64;
    fn version() -> u64;
    fn changes_since(version: u64) -> Changes;
});
hand_on!(UsageStore {
    fn add_usage(batch: &Batch) -> ();
    fn usage(filter: &Filter, by: By) -> Vec<(Label, Counts)>;
    fn forget_usage(before: Hour) -> u64;
});
hand_on!(CountStore {
    fn add_counts(batch: &plans::Batch) -> Vec<u64>;
    fn counts(now: Timestamp) -> Vec<plans::Row>;
    fn forget_counts(now: Timestamp) -> u64;
});
hand_on!(SigningKeyStore {
    fn signing_keys() -> Vec<SigningKey>;
    fn update_signing_keys(change: &(dyn Fn(Vec<SigningKey>) -> Update<Vec<SigningKey>> + Send + Sync)) -> Vec<SigningKey>;
});

/// Lets the gateway's own tasks run, until it says that it is ready, or is not.
async fn until_ready(gateway: &TestGateway, ready: bool) {
    for _ in 0..200 {
        gateway.advance(Duration::from_millis(250));
        if (gateway.get("/health/ready").await.status == 200) == ready {
            return;
        }
    }
    panic!("readiness is not {ready}");
}

#[tokio::test]
async fn with_the_store_away_what_was_known_before_goes_on_and_all_mends_by_itself() {
    let store = Arc::new(Faulty::default());
    let gateway = TestGateway::build().store(Arc::clone(&store) as _).start().await;
    let (key, cold) = (gateway.acme().await, gateway.key("acme").await);
    let soon = gateway.now() + Duration::from_secs(300);
    let ending = gateway.key_with("acme", |key| Key { expires_at: Some(soon), ..key }).await;
    let token = gateway.token(&key).await;
    gateway.token(&ending).await;
    assert_eq!(gateway.get("/health/ready").await.status, 200);

    store.set_away(true);
    until_ready(&gateway, false).await;
    let not_ready = gateway.get("/health/ready").await;
    assert_eq!((not_ready.status, not_ready.body.as_str()), (503, "{\"status\":\"not ready\"}"), "without detail");
    assert_eq!(gateway.admin("GET", "/health/ready").await.status, 503);
    assert_eq!(gateway.get("/health/live").await.status, 200, "the process lives");
    assert_eq!(gateway.metric("keybearer_store_reachable").await, 0.0);

    // Past every limit of what is taken for fresh.
    gateway.advance(Duration::from_secs(120));
    let forged = forge::ours().with_claims(&forge::good_claims(gateway.now()));
    for token in [&token, &forged] {
        assert_eq!(gateway.get("/sample/x").bearer(token).await.status, 200, "tokens need no store");
    }
    gateway.get("/whoami").bearer("nonsense").await.assert_invalid_token();
    let renewed = gateway.token_call(&key).await;
    assert_eq!(gateway.get("/sample/x").bearer(renewed.token()).await.status, 200, "verified before, verified still");
    assert_eq!(gateway.get("/demo").await.status, 200);
    for call in [
        gateway.token_call(&cold),
        gateway.get("/token").basic("acme", "open sesame"),
        gateway.get("/token").basic("nobody", "password"),
    ] {
        let answer = call.await;
        let problem = answer.problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert!(!problem.to_string().contains("db.internal"), "nothing of the inside: {problem}");
    }

    // What the clock alone can tell is told.
    gateway.advance(Duration::from_secs(300));
    gateway.token_call(&ending).await.problem(401, "invalid-credentials");

    store.set_away(false);
    until_ready(&gateway, true).await;
    assert_eq!(gateway.metric("keybearer_store_reachable").await, 1.0);
    assert_eq!(gateway.token_call(&cold).await.status, 200);
    assert_eq!(gateway.token_call(&key).await.status, 200);
    gateway.get("/token").basic("nobody", "password").await.problem(401, "invalid-credentials");
}

/// RFC 7009 §2.2.1: what could not be written is not claimed to be revoked.
#[tokio::test]
async fn with_the_store_away_nothing_is_revoked_and_nobody_is_told_so() {
    let store = Arc::new(Faulty::default());
    let gateway = TestGateway::build().store(Arc::clone(&store) as _).start().await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    store.set_away(true);
    until_ready(&gateway, false).await;
    let ask = async |path: &str| gateway.post(path).form(&[("token", &token)]).key(&key).await;
    let answer = ask("/revoke").await;
    let description = answer.oauth_error(503, "temporarily_unavailable");
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert!(!description.contains("db.internal"), "nothing of the inside: {description}");
    assert_eq!(ask("/introspect").await.json()["active"], true, "who was verified before may ask");
    assert_eq!(gateway.get("/whoami").bearer(&token).await.status, 200);
    let unknown = gateway.post("/introspect").form(&[("token", &token)]).basic("acme", "open sesame").await;
    unknown.oauth_error(503, "temporarily_unavailable");
    store.set_away(false);
    until_ready(&gateway, true).await;
    assert_eq!(ask("/revoke").await.status, 200);
    gateway.get("/whoami").bearer(&token).await.assert_invalid_token();
}

/// What was decided while the store was away is in force when it is back.
#[tokio::test]
async fn a_revocation_made_while_the_store_was_away_is_in_force_when_it_is_back() {
    let store = Arc::new(Faulty::default());
    let gateway = TestGateway::build().store(Arc::clone(&store) as _).start().await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    store.set_away(true);
    until_ready(&gateway, false).await;
    // Another process still reaches it.
    let revoked = store.inner.revoke(&Target::Key(*key.id()), gateway.now(), true).await;
    revoked.expect("stored");
    assert_eq!(gateway.get("/whoami").bearer(&token).await.status, 200, "nobody has told this one");
    store.set_away(false);
    until_ready(&gateway, true).await;
    gateway.get("/whoami").bearer(&token).await.assert_invalid_token();
}

/// A token got from memory while the store was away dies by a revocation that was decided meanwhile, whenever it was issued.
#[tokio::test]
async fn a_token_issued_while_the_store_was_away_does_not_escape_a_revocation() {
    let store = Arc::new(Faulty::default());
    let gateway = TestGateway::build().store(Arc::clone(&store) as _).start().await;
    let key = gateway.acme().await;
    gateway.token(&key).await;
    store.set_away(true);
    until_ready(&gateway, false).await;
    store.inner.revoke(&Target::Key(*key.id()), gateway.now(), false).await.expect("stored");
    gateway.advance(Duration::from_secs(60));
    let token = gateway.token(&key).await;
    store.set_away(false);
    until_ready(&gateway, true).await;
    gateway.get("/whoami").bearer(&token).await.assert_invalid_token();
    let renewed = gateway.token(&key).await;
    assert_eq!(gateway.get("/whoami").bearer(&renewed).await.status, 200);
}

/// A record that was read before a change must not be remembered after it, or the change would be lost until memory is old.
#[tokio::test]
async fn what_was_read_before_a_change_is_not_remembered_after_it() {
    for held in ["key", "licences", "groups"] {
        let store = Arc::new(Faulty::default());
        let gateway = TestGateway::build().store(Arc::clone(&store) as _).start().await;
        let key = gateway.acme().await;
        *store.held.lock().expect("no panic") = held;
        let door = store.lock.write().await;
        let (slow, ()) = tokio::join!(async { gateway.token_call(&key).await }, async {
            while store.waiting.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            // Another process changes what is on its way. Without a cut: nothing but the records says that it is over.
            match held {
                "key" => {
                    let suspend = |key| Update::Write(Key { state: KeyState::Suspended, ..key }, Cut::No);
                    store.inner.update_key(key.id(), &suspend).await.expect("stored");
                }
                "licences" => {
                    let licence = store.inner.licences(None).await.expect("stored").remove(0).id;
                    let suspend = |licence| Update::Write(Licence { suspended: true, ..licence }, Cut::No);
                    store.inner.update_licence(&licence, &suspend).await.expect("stored");
                }
                _ => assert!(store.inner.delete_group(&"sample".parse().expect("a group")).await.expect("stored")),
            }
            gateway.sync().await;
            *store.held.lock().expect("no panic") = "";
            drop(door);
        });
        // It began before the change, so either answer is right; what comes after must know better.
        assert!(matches!(slow.status, 200 | 401), "{held}: {slow:?}");
        let after = gateway.token_call(&key).await;
        assert_eq!(after.status, 401, "{held}: {after:?}");
    }
}

/// A flood of strangers fills the hashing queue and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_hashing_queue_refuses_strangers_and_nobody_else() {
    let build = TestGateway::build().behind_proxy(&["127.0.0.0/8"]).with(|config| {
        (config.credentials.hashing_threads, config.credentials.hashing_queue) = (1, 1);
        (config.credentials.argon2_memory_kib, config.credentials.argon2_iterations) = (8 * 1024, 8);
    });
    let gateway = Arc::new(build.start().await);
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    let flood: Vec<_> = (0..24)
        .map(|n| {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move {
                let user = ["acme", "nobody"][n % 2];
                let wrong = format!("wrong {n}");
                let by_form = n % 4 > 1;
                // Of one address, the others would wait their turn.
                let call = gateway.by_proxy("/token").header("x-forwarded-proto", "https");
                let call = call.header("x-forwarded-for", format!("192.0.2.{n}")).basic(user, &wrong);
                let answer = match by_form {
                    true => call.by_post().form(&[("grant_type", "client_credentials")]).await,
                    false => call.await,
                };
                (by_form, answer)
            })
        })
        .collect();
    let mut served = 0;
    while !flood.iter().all(|call| call.is_finished()) {
        assert_eq!(gateway.token_call(&key).await.status, 200, "verified a moment ago");
        assert_eq!(gateway.get("/whoami").bearer(&token).await.status, 200);
        served += 1;
    }
    assert!(served > 0);
    let (mut refused, mut wrong) = (0, 0);
    for call in flood {
        let (by_form, answer) = call.await.expect("no panic");
        match (answer.status, by_form) {
            (503, true) => drop(answer.oauth_error(503, "temporarily_unavailable")),
            (503, false) => drop(answer.problem(503, "unavailable")),
            (_, true) => drop(answer.oauth_error(401, "invalid_client")),
            (_, false) => drop(answer.problem(401, "invalid-credentials")),
        }
        if answer.status == 503 {
            assert_eq!(answer.header("retry-after"), Some("1"));
            refused += 1;
        } else {
            wrong += 1;
        }
    }
    assert!(refused > 0 && wrong > 0, "{refused} refused, {wrong} wrong");
    assert_eq!(gateway.get("/token").basic("acme", "open sesame").await.status, 200, "and it is over when it is over");
}

/// §1: 429 with `Retry-After` after repeated failures from one address, and for one user-id; neither locks out a caller
/// whose credential was verified a moment ago.
/// Strangers who come from ever new addresses fill a lane of their own.
#[tokio::test]
async fn a_flood_from_many_addresses_keeps_nobody_from_a_first_login() {
    let build = TestGateway::build().behind_proxy(&["127.0.0.0/8"]).with(|config| {
        (config.credentials.hashing_threads, config.credentials.hashing_queue) = (1, 2);
        (config.credentials.argon2_memory_kib, config.credentials.argon2_iterations) = (8 * 1024, 4);
    });
    let gateway = Arc::new(build.start().await);
    let rolled = gateway.acme().await;
    let token = gateway.token(&rolled).await;
    assert_eq!(gateway.get("/token").basic("acme", "open sesame").await.status, 200);
    let word = gateway.hash("another word", Kept::Password);
    gateway.update_account("acme", |old| (Account { password: Some(word.clone()), ..old }, Cut::No)).await;
    let mut keys = Vec::new();
    for _ in 0..5 {
        keys.push(gateway.key("acme").await);
    }
    gateway.sync().await;

    let is_over = Arc::new(AtomicBool::new(false));
    let flood: Vec<_> = (0..6)
        .map(|one| {
            let (gateway, is_over) = (Arc::clone(&gateway), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    let call = gateway.by_proxy("/token").header("x-forwarded-proto", "https");
                    let from = format!("192.0.{one}.{}", statuses.len() % 256);
                    let call = call.header("x-forwarded-for", from).basic("acme", "guess");
                    statuses.push(call.await.status);
                }
                statuses
            })
        })
        .collect();
    // It has begun when somebody is refused.
    while gateway.metric("keybearer_refusals_total{reason=\"hashing_queue_full\"}").await == 0.0 {
        tokio::task::yield_now().await;
    }
    for key in &keys {
        assert_eq!(gateway.token_call(key).await.status, 200, "a key that nobody has used yet");
    }
    let path = format!("/me/keys/{}/roll", rolled.id());
    let proof = serde_json::json!({ "api_key": rolled.secret().expose() }).to_string();
    assert_eq!(gateway.post(&path).bearer(&token).body(proof).await.status, 200, "its holder rolls a key");
    let answer = gateway.get("/token").basic("acme", "another word").await;
    assert_eq!(answer.status, 200, "a password, from where its user logged in before");
    is_over.store(true, Ordering::SeqCst);
    let mut statuses = Vec::new();
    for one in flood {
        statuses.extend(one.await.expect("no panic"));
    }
    assert!(statuses.contains(&401) && statuses.contains(&503), "the others got their share: {statuses:?}");
}

/// Neither argon2 nor its parameters are looked at: these could not be used.
#[tokio::test]
async fn a_wrong_key_costs_no_hash() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let hash = gateway.hash(key.secret().expose(), Kept::Key);
    let unusable = PasswordHash::from_phc(hash.as_phc().replace("m=64", "m=4294967295"));
    gateway.update_key(&key, |old| (Key { hash: unusable.clone(), ..old }, Cut::No)).await;
    gateway.sync().await;
    let refused = async |reason| gateway.metric(&format!("keybearer_refusals_total{{reason=\"{reason}\"}}")).await;
    // One in 65,536 is not ruled out.
    for _ in 0..10 {
        gateway.get("/token").basic(&another_secret_of(&key), "").await.problem(401, "invalid-credentials");
    }
    assert!(refused("wrong_secret").await >= 9.0);
    let of_others = refused("unreadable_hash").await;
    gateway.get("/token").basic(key.secret().expose(), "").await.problem(401, "invalid-credentials");
    assert_eq!(refused("unreadable_hash").await, of_others + 1.0, "the right one is hashed");
}

#[tokio::test]
async fn repeated_failures_are_throttled_by_address_and_by_user_id() {
    let build = TestGateway::build().behind_proxy(&["127.0.0.0/8"]).with(|config| {
        config.credentials.failures_per_address = Rate::new(4, Duration::from_secs(60));
        config.credentials.failures_per_user = Rate::new(6, Duration::from_secs(60));
    });
    let gateway = build.start().await;
    let key = gateway.acme().await;
    let cold = gateway.key("acme").await;
    gateway.account("other", Some("password")).await;
    gateway.licence("other", &["sample"], None).await;
    let from = |address: &str| {
        gateway.by_proxy("/token").header("x-forwarded-proto", "https").header("x-forwarded-for", address)
    };
    assert_eq!(from("192.0.2.1").key(&key).await.status, 200);
    // Successes cost nothing, however many.
    for _ in 0..10 {
        assert_eq!(from("192.0.2.1").key(&key).await.status, 200);
    }

    for n in 0..4 {
        from("192.0.2.1").basic("acme", &format!("wrong {n}")).await.problem(401, "invalid-credentials");
    }
    let throttled = from("192.0.2.1").basic("acme", "wrong").await;
    throttled.problem(429, "too-many-requests");
    assert_eq!(throttled.header("retry-after"), Some("15"), "four a minute");
    assert_eq!(from("192.0.2.1").basic("other", "password").await.status, 429, "whatever is tried, right or wrong");
    assert_eq!(from("192.0.2.1").key(&cold).await.status, 429);
    assert_eq!(from("192.0.2.1").key(&key).await.status, 200, "but for what was verified a moment ago");
    assert_eq!(from("192.0.2.2").basic("other", "password").await.status, 200, "elsewhere nothing is amiss");

    // The user-id, tried from anywhere: two more make six.
    for address in ["192.0.2.3", "192.0.2.4"] {
        from(address).basic("acme", "wrong").await.problem(401, "invalid-credentials");
    }
    let throttled = from("192.0.2.5").basic("acme", "open sesame").await;
    throttled.problem(429, "too-many-requests");
    assert_eq!(throttled.header("retry-after"), Some("10"), "six a minute");
    assert_eq!(from("192.0.2.5").basic("other", "password").await.status, 200, "another user-id is another");
    assert_eq!(from("192.0.2.5").key(&cold).await.status, 200, "an account's keys do not hang on its name");

    // Neither is for ever, and being refused does not prolong it.
    gateway.advance(Duration::from_secs(15));
    assert_eq!(from("192.0.2.1").basic("acme", "open sesame").await.status, 200);
    // Verified now, it is not locked out by others who try its name.
    for n in 0..20 {
        let _ = from(&format!("198.51.100.{n}")).basic("acme", "wrong").await;
    }
    assert_eq!(from("198.51.100.77").basic("acme", "wrong").await.status, 429);
    assert_eq!(from("192.0.2.9").basic("acme", "open sesame").await.status, 200);
}

/// However many come at once, no more guesses are answered than the limit has; and a fleet that starts at once, behind one address
/// and with one key, is no guess.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_guesses_gets_no_further_than_the_limit_and_a_fleet_is_let_in() {
    let build = TestGateway::build().with(|config| {
        config.credentials.failures_per_address = Rate::new(4, Duration::from_secs(3600));
        config.credentials.hashing_queue = 8;
        (config.credentials.argon2_memory_kib, config.credentials.argon2_iterations) = (8 * 1024, 2);
    });
    let gateway = Arc::new(build.start().await);
    let key = gateway.acme().await;
    let mut fleet = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (gateway, key) = (Arc::clone(&gateway), key.clone());
        fleet.spawn(async move { gateway.token_call(&key).await.status });
    }
    assert_eq!(fleet.join_all().await, [200; 40]);
    let mut guesses = tokio::task::JoinSet::new();
    for n in 0..40 {
        let gateway = Arc::clone(&gateway);
        guesses.spawn(async move { gateway.get("/token").basic("acme", &format!("guess {n}")).await.status });
    }
    let mut guesses = guesses.join_all().await;
    guesses.sort_unstable();
    assert_eq!(guesses[..4], [401; 4]);
    assert_eq!(guesses[4..], [429; 36]);
}

/// What was counted while the store was away or slow is written when it answers again, once.
#[tokio::test]
async fn usage_is_counted_once_whatever_becomes_of_the_store() {
    let store = Arc::new(Faulty::default());
    let gateway = TestGateway::build().store(Arc::clone(&store) as _).start().await;
    crate::usage::settle(&gateway);
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    let mut requests = 1;
    let mut use_it = async |gateway: &TestGateway| {
        for _ in 0..5 {
            assert_eq!(gateway.get("/sample/x").bearer(&token).await.status, 200);
            requests += 1;
        }
        requests
    };
    use_it(&gateway).await;
    // Away at every turn of the flusher.
    store.set_away(true);
    let failures = async || gateway.metric("keybearer_usage_writes_failed_total").await;
    for turn in 1.. {
        gateway.advance(Duration::from_secs(10));
        use_it(&gateway).await;
        if failures().await >= 3.0 {
            break;
        }
        assert!(turn < 200, "the flusher has its turns");
    }
    let asked = gateway.get("/me/usage").bearer(&token).await;
    let problem = asked.problem(503, "unavailable");
    assert!(!problem.to_string().contains("db.internal"), "nothing of the inside: {problem}");
    store.set_away(false);
    // Written, and its answer is held up on its way: what is counted meanwhile comes after it.
    *store.held.lock().expect("no panic") = "add_usage";
    let held = store.lock.write().await;
    until_waiting(&gateway, &store).await;
    let requests = use_it(&gateway).await + 1;
    drop(held);
    let kept = crate::usage::kept(&gateway, By::Account).await;
    assert_eq!(kept[&Label::Account(Some("acme".parse().expect("a name")))][0], requests);
    assert_eq!(gateway.metric("keybearer_usage_requests_not_told_apart_total").await, 0.0);
}

/// Until an answer of the store is held up.
async fn until_waiting(gateway: &TestGateway, store: &Faulty) {
    for _ in 0..200 {
        if store.waiting.load(Ordering::SeqCst) > 0 {
            return;
        }
        gateway.advance(Duration::from_secs(10));
        gateway.get("/health/live").await;
    }
    panic!("nobody asks the store");
}
