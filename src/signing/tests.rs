//! Rings, operations and a store together, with time that is advanced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::ids::Groups;
use crate::keys::KeyPrefix;
use crate::revocations::{Cutoff, Target};
use crate::store::{MemoryStore, SharedStore, SqliteStore};
use crate::tokens::{self, Client, Grant, Issuer, Terms, Verifier};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

struct Bench {
    folder: tempfile::TempDir,
    store: SharedStore,
    clock: Arc<ManualClock>,
}

/// ES256, because its keys are made in no time.
fn quick() -> Settings {
    Settings { algorithm: Algorithm::Es256, ..Settings::default() }
}

impl Bench {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)));
        Self { folder: tempfile::tempdir().expect("a folder"), store: Arc::new(MemoryStore::new()), clock }
    }

    async fn sqlite() -> Self {
        let mut bench = Self::new();
        bench.store = Arc::new(bench.open().await);
        bench
    }

    async fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.folder.path().join("keybearer.db")).await.expect("a database")
    }

    async fn ring(&self, settings: &Settings) -> KeyRing {
        self.load(settings).await.expect("a ring")
    }

    async fn load(&self, settings: &Settings) -> std::result::Result<KeyRing, Error> {
        KeyRing::load(settings, HOUR, Arc::clone(&self.store) as _, self.clock.clone()).await
    }

    fn operations(&self, settings: &Settings) -> Operations {
        Operations::new(Arc::clone(&self.store) as _, settings, HOUR, self.clock.clone())
    }

    async fn keys(&self) -> Vec<SigningKey> {
        self.store.signing_keys().await.expect("a read")
    }

    async fn states(&self) -> Vec<SigningState> {
        self.keys().await.iter().map(|key| key.state).collect()
    }

    fn master(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, MasterKey::generate().expose()).expect("a file");
        path
    }
}

fn grant() -> Grant {
    Grant {
        account: "acme".parse().expect("a name"),
        client: Client::Password,
        groups: Groups::new(),
        not_after: None,
        longest: None,
        known_at: Timestamp::from_secs(u64::MAX / 2000),
        cutoff: Cutoff(0),
        terms: Terms::default(),
    }
}

/// A verifier of another make, which keeps the JWK Set for 20 minutes and fetches it at no other time.
struct Caching {
    fetched_at: Option<Timestamp>,
    phase: Duration,
    keys: BTreeMap<String, (jsonwebtoken::Algorithm, DecodingKey)>,
}

impl Caching {
    const KEEPS: Duration = Duration::from_secs(20 * 60);

    fn new(phase: Duration) -> Self {
        Self { fetched_at: None, phase, keys: BTreeMap::new() }
    }

    fn fetch(&mut self, ring: &KeyRing, now: Timestamp) {
        if self.fetched_at.is_some_and(|at| now.since(at) < Self::KEEPS) {
            return;
        }
        self.fetched_at = Some(self.fetched_at.map_or(now - self.phase, |_| now));
        let set: JwkSet = serde_json::from_slice(&ring.jwks()).expect("a JWK Set");
        self.keys.clear();
        for jwk in set.keys {
            let algorithm = jwk.common.key_algorithm.expect("alg").to_string().parse().expect("an algorithm");
            let key = DecodingKey::from_jwk(&jwk).expect("a key");
            self.keys.insert(jwk.common.key_id.expect("kid"), (algorithm, key));
        }
    }

    fn verify(&self, jwt: &str) {
        let kid = jsonwebtoken::decode_header(jwt).expect("a header").kid.expect("a kid");
        let (algorithm, key) = self.keys.get(&kid).expect("a known kid");
        let mut validation = Validation::new(*algorithm);
        (validation.validate_exp, validation.validate_aud) = (false, false);
        jsonwebtoken::decode::<serde_json::Value>(jwt, key, &validation).expect("a good token");
    }
}

/// Ten rotations, tokens all along, two gateways in turn that change their algorithm on the way: verifiers that keep the
/// JWK Set for 20 minutes know every key, and every live token verifies everywhere.
async fn ten_rotations(bench: Bench) {
    let settings = |algorithm| Settings { algorithm, rotate_every: 3 * HOUR, publish_ahead: HOUR, ..quick() };
    let mut rings = [
        Arc::new(bench.ring(&settings(Algorithm::Es256)).await),
        Arc::new(bench.ring(&settings(Algorithm::Es256)).await),
    ];
    let of = tokens::Settings::default();
    let mut caching: Vec<Caching> = (0..4).map(|n| Caching::new(n * 5 * MINUTE)).collect();
    let mut live: Vec<(Timestamp, String)> = Vec::new();
    let mut signed: Vec<(String, Timestamp)> = Vec::new();
    let (mut most, mut step) = (0, 0);
    while signed.len() < 11 {
        bench.clock.advance(5 * MINUTE);
        let now = bench.clock.now();
        step += 1;
        if step == 150 {
            // One after the other is restarted with another algorithm.
            rings = [
                Arc::new(bench.ring(&settings(Algorithm::EdDsa)).await),
                Arc::new(bench.ring(&settings(Algorithm::EdDsa)).await),
            ];
        }
        let (one, two) = tokio::join!(rings[0].turn(), rings[1].turn());
        assert!(one.expect("a turn").is_some_and(|due| due > now) && two.expect("a turn").is_some_and(|due| due > now));
        for ring in &rings {
            ring.reload().await.expect("what the follower does");
            assert!(!ring.take_dropped(), "nothing goes before its time");
        }
        assert_eq!(rings[0].jwks(), rings[1].jwks());
        let records = rings[0].records();
        let active = records.iter().find(|key| key.state == SigningState::Active).expect("an active key");
        assert_eq!(active.kid, rings[1].active().kid());
        if signed.last().is_none_or(|(kid, _)| *kid != active.kid) {
            let since = active.activates_at;
            if let Some((_, before)) = signed.last() {
                assert!(since.since(*before) >= 3 * HOUR, "rotated too early, or twice");
                assert!(since.since(*before) <= 3 * HOUR + 10 * MINUTE, "rotated too late");
            }
            signed.push((active.kid.clone(), since));
        }
        most = most.max(records.len());
        live.retain(|(expires, _)| now < *expires);
        let issuer = Issuer::new(&of, &KeyPrefix::default(), Arc::clone(&rings[step % 2]));
        let issued = issuer.issue(&grant(), now).expect("signed").expect("live");
        live.push((Timestamp::from_secs(issued.token.expires_at), issued.jwt.expose().clone()));
        let verifier = Verifier::new(&of, Arc::clone(&rings[(step + 1) % 2]));
        for (_, jwt) in &live {
            verifier.verify(jwt.as_bytes(), now).expect("a good token");
        }
        for caching in &mut caching {
            caching.fetch(&rings[step / 2 % 2], now);
            // Each token is met as the newest once, and as the oldest.
            live.iter().take(1).chain(live.last()).for_each(|(_, jwt)| caching.verify(jwt));
        }
    }
    assert_eq!(rings[0].active().algorithm(), Algorithm::EdDsa);
    assert!(most <= 3, "{most} keys at once: what retires goes");
    bench.clock.advance(HOUR + JWKS_MAX_AGE);
    rings[0].turn().await.expect("a turn");
    assert!(bench.keys().await.iter().all(|key| key.state != SigningState::Retiring), "and is deleted from the store");
}

#[tokio::test]
async fn no_verifier_meets_an_unknown_kid_through_ten_rotations() {
    ten_rotations(Bench::new()).await;
}

#[tokio::test]
async fn nor_with_two_gateways_on_one_database() {
    ten_rotations(Bench::sqlite().await).await;
}

/// Two processes that find a rotation due at the same moment publish one key, and the other throws its own away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_never_rotate_twice() {
    let bench = Bench::sqlite().await;
    let other: SharedStore = Arc::new(bench.open().await);
    let one = bench.ring(&Settings::default()).await;
    let two = KeyRing::load(&Settings::default(), HOUR, other as _, bench.clock.clone()).await.expect("a ring");
    assert_eq!(one.active().kid(), two.active().kid());
    use SigningState::{Active, Next, Retiring};
    let cycle: [&[SigningState]; 3] = [&[Active, Next], &[Retiring, Active], &[Active]];
    for expected in cycle.into_iter().cycle().take(9) {
        let due = one.turn().await.expect("a turn").expect("something is due");
        bench.clock.advance(due.since(bench.clock.now()));
        let (first, second) = tokio::join!(one.turn(), two.turn());
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(bench.states().await, expected);
        one.reload().await.expect("followed");
        two.reload().await.expect("followed");
        assert_eq!((one.jwks(), one.active().kid()), (two.jwks(), two.active().kid()));
    }
}

/// A key stays until the last token it signed is dead, whoever was configured to longer lives.
#[tokio::test]
async fn a_key_outlives_the_longest_token_of_any_process() {
    let bench = Bench::new();
    let _long = KeyRing::load(&quick(), DAY, Arc::clone(&bench.store) as _, bench.clock.clone()).await.expect("a ring");
    let short = bench.ring(&quick()).await;
    bench.clock.advance(MINUTE);
    bench.operations(&quick()).rotate(false).await.expect("planned");
    short.reload().await.expect("followed");
    bench.clock.advance(DAY);
    short.turn().await.expect("a turn");
    let keys = bench.keys().await;
    assert_eq!(keys[0].gone_at, Some(bench.clock.now() + DAY + JWKS_MAX_AGE));
    assert_eq!(keys[1].longest_token, HOUR, "the other one has not promised anything for this key yet");
}

#[tokio::test]
async fn a_rotation_on_demand_publishes_first() {
    let bench = Bench::new();
    let settings = Settings { rotate_every: Duration::ZERO, ..quick() };
    let operations = bench.operations(&settings);
    assert!(matches!(operations.rotate(false).await, Err(Error::NoKeys)));
    let ring = bench.ring(&settings).await;
    let first = ring.active().kid().to_owned();
    assert!(matches!(operations.rotate(true).await, Err(Error::NothingPublished)));

    let Ok(Rotated::Planned(kid, at)) = operations.rotate(false).await else { panic!("planned") };
    assert_eq!(at, bench.clock.now() + DAY);
    assert_eq!(operations.rotate(false).await.expect("planned"), Rotated::Planned(kid.clone(), at), "once");
    assert!(matches!(operations.rotate(true).await, Err(Error::TooEarly(ripe)) if ripe == at));
    ring.reload().await.expect("followed");
    assert!(ring.records().iter().any(|key| key.kid == kid), "it is published");
    assert_eq!(ring.active().kid(), first);

    // No gateway ran meanwhile: the command lets it sign.
    bench.clock.advance(DAY);
    assert_eq!(operations.rotate(true).await.expect("now"), Rotated::Now(kid.clone()));
    ring.reload().await.expect("followed");
    assert_eq!(ring.active().kid(), kid);
    assert!(matches!(operations.rotate(true).await, Err(Error::NothingPublished)));

    // With a gateway that runs it signs by itself, schedule or not; and one for another algorithm is replaced.
    operations.rotate(false).await.expect("planned");
    ring.reload().await.expect("followed");
    assert!(!ring.take_dropped());
    let other = bench.operations(&Settings { algorithm: Algorithm::EdDsa, ..settings.clone() });
    let Ok(Rotated::Planned(kid, at)) = other.rotate(false).await else { panic!("planned") };
    assert_eq!(bench.keys().await.iter().filter(|key| key.state == SigningState::Next).count(), 1);
    ring.reload().await.expect("followed");
    assert!(ring.take_dropped(), "the replaced one is noticed, although it had signed nothing");
    assert_eq!(ring.turn().await.expect("a turn").map(|due| due <= at), Some(true));
    bench.clock.advance(DAY);
    ring.turn().await.expect("a turn");
    assert_eq!((ring.active().kid(), ring.active().algorithm()), (kid.as_str(), Algorithm::EdDsa));
}

#[tokio::test]
async fn an_emergency_leaves_nothing_of_before() {
    let bench = Bench::sqlite().await;
    let ring = Arc::new(bench.ring(&quick()).await);
    bench.operations(&quick()).rotate(false).await.expect("planned");
    ring.reload().await.expect("followed");
    let of = tokens::Settings::default();
    let issue = |ring: &Arc<KeyRing>| {
        let issuer = Issuer::new(&of, &KeyPrefix::default(), Arc::clone(ring));
        issuer.issue(&grant(), bench.clock.now()).expect("signed").expect("live").jwt
    };
    let before = issue(&ring);
    let version = bench.store.version().await.expect("a version");
    let kid = bench.operations(&quick()).emergency().await.expect("done");
    assert_eq!(bench.store.version().await.expect("a version"), version + 2, "set and revocation, in one transaction");
    let revoked = bench.store.revocations(bench.clock.now()).await.expect("a list");
    assert_eq!((&revoked[0].target, revoked[0].cutoff), (&Target::All, Cutoff(bench.clock.now().secs() + 1)));
    assert!(!ring.take_dropped());
    ring.reload().await.expect("followed");
    assert!(ring.take_dropped() && !ring.take_dropped(), "told once");
    assert_eq!(ring.active().kid(), kid);
    assert_eq!(bench.keys().await.len(), 1);
    let verifier = Verifier::new(&of, Arc::clone(&ring));
    let verdict = |jwt: &Secret<String>| verifier.verify(jwt.expose().as_bytes(), bench.clock.now());
    assert_eq!(verdict(&before), Err(tokens::Invalid::UnknownKey));
    assert!(verdict(&issue(&ring)).is_ok());
}

fn pem(algorithm: Algorithm) -> String {
    let algorithm = match algorithm {
        Algorithm::EdDsa => &rcgen::PKCS_ED25519,
        _ => &rcgen::PKCS_ECDSA_P256_SHA256,
    };
    rcgen::KeyPair::generate_for(algorithm).expect("a key").serialize_pem()
}

#[tokio::test]
async fn a_supplied_key_is_rotated_by_the_operator_alone() {
    let bench = Bench::new();
    let file = bench.folder.path().join("signing.pem");
    std::fs::write(&file, pem(Algorithm::Es256)).expect("a file");
    let settings = Settings { private_key_file: Some(file.clone()), ..quick() };
    let ring = bench.ring(&settings).await;
    let first = ring.active().kid().to_owned();
    bench.clock.advance(100 * DAY);
    assert_eq!(ring.turn().await.expect("a turn"), None);
    assert_eq!(bench.states().await, [SigningState::Active]);
    let operations = bench.operations(&settings);
    assert!(matches!(operations.rotate(false).await, Err(Error::Supplied(_))));
    assert!(matches!(operations.emergency().await, Err(Error::SuppliedIsOld(_))));

    // Another key, after a restart: it signs at once, the one before retires and goes.
    std::fs::write(&file, pem(Algorithm::Es256)).expect("a file");
    let ring = bench.ring(&settings).await;
    assert_ne!(ring.active().kid(), first);
    assert_eq!(bench.states().await, [SigningState::Retiring, SigningState::Active]);
    bench.clock.advance(HOUR + JWKS_MAX_AGE);
    ring.turn().await.expect("a turn");
    assert_eq!(bench.states().await, [SigningState::Active]);

    // In an emergency the new one of the file is all there is.
    std::fs::write(&file, pem(Algorithm::Es256)).expect("a file");
    let kid = operations.emergency().await.expect("done");
    let keys = bench.keys().await;
    assert_eq!((keys.len(), &keys[0].kid), (1, &kid));
    ring.reload().await.expect("followed");
    assert_eq!(ring.active().kid(), kid, "what was decided later goes over what was read at the start");

    std::fs::write(&file, pem(Algorithm::EdDsa)).expect("a file");
    let error = bench.load(&settings).await.expect_err("another algorithm").to_string();
    assert!(error.contains("the key is for EdDSA and signing.algorithm is ES256"), "{error}");
}

fn with_master(path: &Path) -> Settings {
    Settings { master_key_file: Some(path.to_owned()), ..quick() }
}

#[tokio::test]
async fn a_master_key_seals_what_is_there_and_what_comes() {
    let bench = Bench::sqlite().await;
    let clear = bench.ring(&quick()).await;
    bench.operations(&quick()).rotate(false).await.expect("planned");
    let private: Vec<Secret<Vec<u8>>> = bench.keys().await.into_iter().map(|key| key.private).collect();
    let settings = with_master(&bench.master("master"));
    // A gateway that does not know of the master key yet can still read what a command adds.
    bench.operations(&settings).rotate(false).await.expect("planned");
    clear.reload().await.expect("all in the clear");

    let ring = bench.ring(&settings).await;
    assert_eq!(ring.active().kid(), clear.active().kid());
    let keys = bench.keys().await;
    assert!(keys.len() == 2 && keys.iter().all(|key| key.sealed_by.is_some()));
    for private in &private {
        assert!(keys.iter().all(|key| key.private != *private));
    }
    assert!(matches!(clear.reload().await, Err(Error::Sealed { .. })));
    assert_eq!(clear.active().kid(), ring.active().kid(), "it goes on with what it has");

    for _ in 0..2 {
        bench.clock.advance(30 * DAY);
        ring.turn().await.expect("a turn");
    }
    let kid = bench.operations(&settings).emergency().await.expect("done");
    ring.reload().await.expect("followed");
    assert_eq!(ring.active().kid(), kid);
    assert!(bench.keys().await.iter().all(|key| key.sealed_by.is_some()), "every new one is sealed");
}

#[tokio::test]
async fn what_is_wrong_with_a_master_key_is_said() {
    let bench = Bench::new();
    let path = bench.master("master");
    let settings = with_master(&path);
    bench.ring(&settings).await;
    let keys = bench.keys().await;
    let said = async |settings: &Settings| {
        let error = bench.load(settings).await.expect_err("a fault").to_string();
        let checked = bench.operations(settings).check().await.expect_err("a fault").to_string();
        assert_eq!(error, checked, "a check says the same");
        assert!(bench.operations(settings).rotate(false).await.is_err());
        assert!(bench.operations(settings).emergency().await.is_err());
        error
    };
    let id = keys[0].sealed_by.clone().expect("sealed");
    assert!(said(&quick()).await.contains(&format!("is sealed under master key {id}, and none is given")));
    let other = said(&with_master(&bench.master("other"))).await;
    assert!(other.contains(&format!("sealed under master key {id}, and the one that is given is ")), "{other}");
    assert!(said(&with_master(Path::new("/no/such"))).await.contains("there is no such file"));
    std::fs::write(&path, "0123").expect("a file");
    assert!(said(&settings).await.contains("holds 3 bytes and a master key has 32"));
    let now = bench.keys().await;
    assert_eq!((now.len(), &now[0].private), (1, &keys[0].private), "and nothing was changed");
}

#[tokio::test]
async fn a_master_key_is_changed_while_a_gateway_runs() {
    let bench = Bench::sqlite().await;
    let (old, new) = (bench.master("old"), bench.master("new"));
    let settings = with_master(&old);
    let ring = bench.ring(&settings).await;
    let operations = bench.operations(&settings);
    operations.rotate(false).await.expect("planned");
    let wrong = operations.change_master(&bench.master("wrong"), &new).await;
    assert!(matches!(wrong, Err(Error::WrongMasterKey { .. })));
    assert_eq!(operations.change_master(&old, &new).await.expect("changed"), 2);
    assert_eq!(operations.change_master(&old, &new).await.expect("again"), 2, "doing it twice does no harm");
    // The gateway has the old file still, and goes on; then its content is replaced, and it follows.
    assert!(matches!(ring.reload().await, Err(Error::WrongMasterKey { .. })));
    let active = ring.active().kid().to_owned();
    std::fs::rename(&new, &old).expect("renamed");
    ring.reload().await.expect("followed");
    assert_eq!((ring.active().kid(), ring.records().len()), (active.as_str(), 2));
    assert_eq!(bench.ring(&settings).await.active().kid(), active);
}

/// The task wakes by the clock, and when the keys change before.
#[tokio::test]
async fn keys_are_rotated_by_themselves() {
    let bench = Bench::new();
    let ring = Arc::new(bench.ring(&quick()).await);
    let task = tokio::spawn(keep_rotated(Arc::clone(&ring)));
    let first = ring.active().kid().to_owned();
    let until = async |what: &str, holds: &dyn Fn(&KeyRing) -> bool| {
        for _ in 0..2000 {
            if holds(&ring) {
                return;
            }
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{what}");
    };
    tokio::task::yield_now().await;
    bench.clock.advance(29 * DAY);
    until("published", &|ring| ring.records().len() == 2).await;
    assert_eq!(ring.active().kid(), first);
    bench.clock.advance(DAY);
    until("active", &|ring| ring.active().kid() != first).await;
    bench.clock.advance(HOUR + JWKS_MAX_AGE);
    until("gone", &|ring| ring.records().len() == 1).await;

    // Due in 29 days; what is planned on demand is due before, and the task hears of it.
    let Ok(Rotated::Planned(kid, _)) = bench.operations(&quick()).rotate(false).await else { panic!("planned") };
    ring.reload().await.expect("followed");
    bench.clock.advance(DAY);
    until("active", &|ring| ring.active().kid() == kid).await;
    task.abort();
}
