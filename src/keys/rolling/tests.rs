//! Rolling, step by step and against a reference model.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::accounts::{Account, AccountStore};
use crate::clock::ManualClock;
use crate::ids::AccountName;
use crate::keys::{KeyPrefix, NewKey, Stamp};
use crate::revocations::{Cutoff, RevocationStore, Target};
use crate::store::MemoryStore;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn at(secs: u64) -> Timestamp {
    NOW + Duration::from_secs(secs)
}

/// A store with one key, and a clock.
struct Office {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    keys: Operations,
    id: KeyId,
}

impl Office {
    async fn new(expires_at: Option<Timestamp>) -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(ManualClock::new(NOW));
        let account: AccountName = "acme".parse().expect("a name");
        let record = Account {
            name: account.clone(),
            title: String::new(),
            password: None,
            suspended: false,
            expires_at: None,
            created_at: NOW,
        };
        assert!(store.insert_account(&record).await.expect("a store"));
        let keys = Operations::new(store.clone(), store.clone(), store.clone(), clock.clone(), KeyPrefix::default());
        let new = NewKey { account, label: String::new(), groups: None, expires_at, networks: None, plan: None };
        let (_, key) = keys.create(new, plain).await.expect("a key");
        Self { store, clock, keys, id: key.id }
    }

    async fn key(&self) -> Key {
        self.keys.show(&self.id).await.expect("a key")
    }

    async fn roll(&self, roll: Roll) -> Result<(ApiKey, Changed<Key>), Error> {
        self.keys.roll(&self.id, roll, plain).await
    }

    async fn first_used(&self) -> Key {
        match first_used(&*self.store, &*self.clock, &self.id).await.expect("a store") {
            Updated::Done(key) => key,
            Updated::Missing => panic!("the key is gone"),
        }
    }

    async fn cutoff(&self) -> Option<Cutoff> {
        let held = self.store.revocations(self.clock.now()).await.expect("a store");
        held.into_iter().find(|held| held.target == Target::Key(self.id)).map(|held| held.cutoff)
    }
}

/// A hash that says what it is of.
async fn plain(text: Secret<String>) -> Result<PasswordHash, HashError> {
    Ok(PasswordHash::from_phc(text.expose().clone()))
}

fn roll(grace: &str, start: Start) -> Roll {
    Roll { grace: grace.parse().expect("a grace"), start, force: false }
}

#[tokio::test]
async fn a_rolled_key_keeps_its_id_and_its_old_secret_for_a_grace() {
    let office = Office::new(None).await;
    let before = office.key().await;
    office.store.stamp_keys(&[Stamp { key: office.id, rolled_at: None, old: false, at: NOW }]).await.expect("a store");
    let (api_key, changed) = office.roll(Roll::default()).await.expect("rolled");
    assert_eq!(api_key.id(), &office.id);
    assert!(changed.written && !changed.tokens_cut, "nobody is interrupted");
    let key = office.key().await;
    assert_eq!((key.hash.as_phc(), key.used_at), (api_key.secret().expose().as_str(), None));
    let old = key.previous.clone().expect("an old half");
    let expected = Half {
        hash: Some(before.hash.clone()),
        rolled_at: NOW,
        end: End::AfterFirstUse(24 * HOUR),
        used_at: Some(NOW),
    };
    assert_eq!(old, expected);
    assert_ne!(key.hash, before.hash);

    office.clock.advance(1000 * HOUR);
    assert!(office.key().await.old_half(office.clock.now()).is_some(), "it waits for the new one");
    let key = office.first_used().await;
    assert_eq!(key.old_ends_at(), Some(at(1024 * 3600)));
    office.clock.advance(HOUR);
    assert_eq!(office.first_used().await, key, "the first use is the first");
    office.clock.advance(23 * HOUR - Duration::from_millis(1));
    assert!(key.old_half(office.clock.now()).is_some());
    assert_eq!(office.keys.finish_due().await.expect("a store"), []);
    office.clock.advance(Duration::from_millis(1));
    assert!(key.old_half(office.clock.now()).is_none());
    assert_eq!(office.keys.finish_due().await.expect("a store"), [office.id]);
    assert_eq!(office.keys.finish_due().await.expect("a store"), [], "once is enough");
    let finished = office.key().await;
    assert_eq!(finished.previous, Some(Half { hash: None, end: End::At(at(1024 * 3600)), ..old }));
    assert_eq!(office.cutoff().await, Some(Cutoff(at(15).secs())), "tokens from before the roll, and no others");
}

#[tokio::test]
async fn a_grace_from_now_ends_whatever_is_used_and_never_after_the_key() {
    let office = Office::new(Some(at(7200))).await;
    office.roll(roll("24h", Start::Now)).await.expect("rolled");
    let key = office.key().await;
    assert_eq!(key.previous.as_ref().and_then(Half::ends_at), Some(at(86_400)));
    assert_eq!(key.old_ends_at(), Some(at(7200)), "the key ends before");
    assert_eq!(office.first_used().await, key);
}

#[tokio::test]
async fn without_a_grace_the_old_secret_ends_at_once_with_the_tokens() {
    for start in [Start::Now, Start::FirstUse] {
        let office = Office::new(None).await;
        let (_, changed) = office.roll(roll("0", start)).await.expect("rolled");
        assert!(changed.tokens_cut);
        let old = office.key().await.previous.expect("an old half");
        assert_eq!((old.hash, old.end), (None, End::At(NOW)));
        assert_eq!(office.cutoff().await, Some(Cutoff(at(1).secs())));
        office.roll(Roll::default()).await.expect("it is over, so it can be rolled again");
    }
}

#[tokio::test]
async fn what_is_not_active_or_still_rolling_is_not_rolled() {
    let office = Office::new(Some(at(7200))).await;
    office.keys.suspend(&office.id).await.expect("done");
    assert!(matches!(office.roll(Roll::default()).await, Err(Error::Suspended(_))));
    office.keys.resume(&office.id).await.expect("done");
    office.roll(roll("1h", Start::FirstUse)).await.expect("rolled");
    assert!(matches!(office.roll(Roll::default()).await, Err(Error::Rolling(_, None))));
    office.first_used().await;
    let second = office.roll(Roll::default()).await.map(drop);
    assert!(matches!(second, Err(Error::Rolling(_, Some(end))) if end == at(3600)), "{second:?}");
    let rolled = office.key().await;
    let (_, forced) = office.roll(Roll { force: true, ..Roll::default() }).await.expect("forced");
    assert!(forced.tokens_cut, "those of the oldest secret are among them");
    assert_eq!(forced.record.previous.and_then(|half| half.hash), Some(rolled.hash));
    office.clock.advance(2 * HOUR);
    assert!(matches!(office.roll(Roll::default()).await, Err(Error::Expired(_))));
    office.keys.revoke(&office.id).await.expect("done");
    assert!(matches!(office.roll(Roll { force: true, ..Roll::default() }).await, Err(Error::Revoked(_))));
    assert_eq!(office.key().await.previous.and_then(|half| half.hash), None, "revoking clears the old hash away");
    let demo = office.keys.roll(&crate::groups::demo::key_id(), Roll::default(), plain).await;
    assert!(matches!(demo, Err(Error::Demo)));
    assert!(matches!(office.keys.roll(&KeyId::random(), Roll::default(), plain).await, Err(Error::Unknown(_))));
}

#[tokio::test]
async fn an_old_secret_can_be_ended_early() {
    let office = Office::new(None).await;
    assert!(!office.keys.end_old(&office.id).await.expect("done").written, "there is none");
    office.roll(Roll::default()).await.expect("rolled");
    let ended = office.keys.end_old(&office.id).await.expect("done");
    assert!(ended.tokens_cut && ended.record.old_half(NOW).is_none());
    assert!(!office.keys.end_old(&office.id).await.expect("done").written);
    office.roll(Roll::default()).await.expect("rolled again");
}

/// Two gateways meet the new secret at once: one writes the end, and both go by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_first_uses_one_counts() {
    let office = Arc::new(Office::new(None).await);
    office.roll(Roll::default()).await.expect("rolled");
    let version = office.store.version().await.expect("a version");
    let uses: Vec<_> = (0..16)
        .map(|_| {
            let office = Arc::clone(&office);
            tokio::spawn(async move {
                office.clock.advance(Duration::from_millis(1));
                office.first_used().await.old_ends_at()
            })
        })
        .collect();
    let mut ends = std::collections::BTreeSet::new();
    for used in uses {
        ends.insert(used.await.expect("a use"));
    }
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!(office.store.version().await.expect("a version"), version + 1, "one write");
}

#[derive(Debug, Clone)]
enum Step {
    Roll { grace: u64, now: bool, force: bool },
    UseOld,
    UseNew,
    Advance(u64),
    EndOld,
    Finish,
    Suspend,
    Resume,
    Revoke,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..4, any::<bool>(), any::<bool>()).prop_map(|(grace, now, force)| Step::Roll { grace: grace * 100, now, force }),
        3 => Just(Step::UseOld),
        3 => Just(Step::UseNew),
        4 => (0u64..250).prop_map(Step::Advance),
        1 => Just(Step::EndOld),
        2 => Just(Step::Finish),
        1 => Just(Step::Suspend),
        2 => Just(Step::Resume),
        1 => Just(Step::Revoke),
    ];
    prop::collection::vec(step, 1..40)
}

/// A token, by the number of the secret it was got with.
#[derive(Debug)]
struct Token {
    of: usize,
    issued_at: u64,
    dead_by: Timestamp,
}

/// What a key is, in the plainest words.
#[derive(Debug, Default)]
struct Model {
    /// Secrets by number; the newest is the present one.
    newest: usize,
    /// The old one: its number, its grace, and its end once known.
    old: Option<(usize, u64, Option<u64>)>,
    suspended: bool,
    revoked: bool,
    expires_at: Option<u64>,
}

impl Model {
    fn is_live(&self, now: u64) -> bool {
        !self.suspended && !self.revoked && self.expires_at.is_none_or(|end| now < end)
    }

    fn old_works(&self, now: u64) -> bool {
        self.old.is_some_and(|(_, _, end)| end.is_none_or(|end| now < end))
    }

    /// The numbers of the secrets that open something.
    fn working(&self, now: u64) -> Vec<usize> {
        match self.is_live(now) {
            false => vec![],
            true => {
                self.old.filter(|_| self.old_works(now)).map(|old| old.0).into_iter().chain([self.newest]).collect()
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn a_random_life_is_that_of_the_model(steps in steps(), expires in prop::option::of(500u64..3000)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let office = Office::new(expires.map(at)).await;
            let mut model = Model { expires_at: expires, ..Model::default() };
            let mut secrets = vec![office.key().await.hash];
            let mut now = 0;
            let mut tokens: Vec<Token> = Vec::new();
            for step in steps {
                match step {
                    Step::Advance(secs) => {
                        office.clock.advance(Duration::from_secs(secs));
                        now += secs;
                    }
                    Step::Roll { grace, now: from_now, force } => {
                        let start = if from_now { Start::Now } else { Start::FirstUse };
                        let grace_of = Grace::new(Duration::from_secs(grace)).expect("a grace");
                        let done = office.roll(Roll { grace: grace_of, start, force }).await;
                        let may = model.is_live(now) && (force || !model.old_works(now));
                        prop_assert_eq!(done.is_ok(), may, "{:?}", done.map(drop));
                        if may {
                            let end = if grace == 0 || from_now { Some(now + grace) } else { None };
                            model.old = Some((model.newest, grace, end));
                            model.newest = secrets.len();
                            secrets.push(office.key().await.hash);
                        }
                    }
                    Step::UseOld => {
                        let key = office.key().await;
                        if let Some(half) = key.old_half(at(now)).filter(|_| key.is_live(at(now))) {
                            let number = model.old.expect("the model has one").0;
                            tokens.push(Token { of: number, issued_at: now, dead_by: half.end.not_after(at(now)) });
                        }
                    }
                    Step::UseNew => {
                        if model.is_live(now) {
                            office.first_used().await;
                            tokens.push(Token { of: model.newest, issued_at: now, dead_by: at(1_000_000) });
                            if let Some((_, grace, end @ None)) = &mut model.old {
                                *end = Some(now + *grace);
                            }
                        }
                    }
                    Step::EndOld => {
                        let ended = office.keys.end_old(&office.id).await.expect("done").written;
                        prop_assert_eq!(ended, !model.revoked && model.old_works(now));
                        if let Some((_, _, end)) = &mut model.old && ended {
                            *end = Some(now);
                        }
                    }
                    Step::Finish => {
                        office.keys.finish_due().await.expect("a store");
                    }
                    Step::Suspend => model.suspended |= office.keys.suspend(&office.id).await.is_ok(),
                    Step::Resume => model.suspended &= office.keys.resume(&office.id).await.is_err(),
                    Step::Revoke => {
                        office.keys.revoke(&office.id).await.expect("done");
                        model.revoked = true;
                    }
                }
                let key = office.key().await;
                let present = Some(&key.hash);
                let old = key.old_half(at(now)).and_then(|half| half.hash.as_ref());
                let opens: Vec<usize> = [old, present].into_iter().flatten().filter(|_| key.is_live(at(now))).map(|hash| {
                    secrets.iter().position(|known| known == hash).expect("one of its secrets")
                }).collect();
                prop_assert_eq!(opens, model.working(now), "after {:?} at {}", step, now);
                // No token outlives the secret it was got with, once what is due is finished. One got with the old secret
                // bears the end, if it was not cut before.
                let cutoff = office.cutoff().await.map_or(0, |cutoff| cutoff.0);
                for token in tokens.iter().filter(|token| at(token.issued_at).secs() >= cutoff) {
                    match model.old {
                        Some((number, _, Some(end))) if number == token.of && token.dead_by < at(1_000_000) => {
                            prop_assert!(token.dead_by <= at(end), "{:?} outlives {}", token, end);
                        }
                        _ => {}
                    }
                    let works = token.of == model.newest
                        || model.old.is_some_and(|old| old.0 == token.of) && model.old_works(now);
                    if matches!(step, Step::Finish) && !works {
                        prop_assert!(token.dead_by <= at(now), "{:?} lives at {}", token, now);
                    }
                }
            }
            Ok(())
        })?;
    }
}
