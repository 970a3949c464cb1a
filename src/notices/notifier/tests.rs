//! Who sends what, how often, and when.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::accounts::{Account, AccountStore};
use crate::clock::ManualClock;
use crate::ids::LicenceId;
use crate::licences::LicenceStore;
use crate::persist::{Cut, Update};
use crate::store::MemoryStore;

const DAY: Duration = Duration::from_secs(86_400);

/// Writes down what it was given, and says that it did not arrive while it is down.
#[derive(Default)]
struct Receiver {
    down: AtomicBool,
    got: Mutex<Vec<(String, serde_json::Value)>>,
}

#[async_trait]
impl Deliver for Receiver {
    async fn deliver(&self, message: &str, _: Timestamp, body: Vec<u8>) -> std::result::Result<(), Undelivered> {
        let body = serde_json::from_slice(&body).expect("JSON");
        self.got.lock().expect("a lock").push((message.to_owned(), body));
        // Others get their turn while this is on its way.
        tokio::task::yield_now().await;
        if self.down.load(Ordering::SeqCst) { Err(Undelivered("down".into())) } else { Ok(()) }
    }
}

impl Receiver {
    fn taken(&self) -> Vec<(String, serde_json::Value)> {
        std::mem::take(&mut *self.got.lock().expect("a lock"))
    }
}

struct Scene {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    receiver: Arc<Receiver>,
    licence: LicenceId,
    end: Timestamp,
}

impl Scene {
    /// A licence that ends in 40 days.
    async fn new() -> Self {
        let (store, clock) =
            (Arc::new(MemoryStore::new()), Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000))));
        let (created_at, name) = (clock.now(), "acme".parse().expect("a name"));
        let account =
            Account { name, title: String::new(), password: None, suspended: false, expires_at: None, created_at };
        assert!(store.insert_account(&account).await.expect("a store"));
        let end = created_at + 40 * DAY;
        let licence = Licence {
            id: LicenceId::random(),
            account: account.name,
            groups: ["orders".parse().expect("a group")].into(),
            plan: "gold".into(),
            starts_at: created_at,
            ends_at: Some(end),
            suspended: false,
            seats: None,
            trial: true,
            document: None,
            quotas: [].into(),
            created_at,
        };
        assert!(store.insert_licence(&licence).await.expect("a store"));
        Self { store, clock, receiver: Arc::default(), licence: licence.id, end }
    }

    /// Another gateway on the same store, or the same one after a restart.
    fn gateway(&self) -> Arc<Notifier> {
        let deliver = Arc::clone(&self.receiver) as Arc<dyn Deliver>;
        Arc::new(Notifier::new(&Settings::default(), self.store.clone(), Some(deliver), self.clock.clone()))
    }

    async fn move_end(&self, to: Timestamp) {
        let change = |licence| Update::Write(Licence { ends_at: Some(to), ..licence }, Cut::No);
        self.store.update_licence(&self.licence, &change).await.expect("a store");
    }
}

#[tokio::test]
async fn each_step_is_sent_once_by_one_of_many_gateways_through_restarts() {
    let scene = Scene::new().await;
    let mut seen = Vec::new();
    // Every twelve hours for 50 days: three gateways at once, all made anew each time.
    for _ in 0..100 {
        let gateways = [scene.gateway(), scene.gateway(), scene.gateway()];
        let [a, b, c] = gateways.each_ref();
        let (a, b, c) = tokio::join!(a.look(), b.look(), c.look());
        a.and(b).and(c).expect("a store");
        for (_, body) in scene.receiver.taken() {
            let days = (scene.clock.now().since(Timestamp::from_secs(1_800_000_000))).as_secs() / 86_400;
            seen.push((days, body["type"].as_str().map(str::to_owned), body["data"]["ahead_seconds"].as_u64()));
        }
        scene.clock.advance(DAY / 2);
    }
    let said = |days, word: &str, ahead: u64| (days, Some(word.to_owned()), Some(ahead * 86_400));
    assert_eq!(
        seen,
        [
            said(10, "licence.expiring", 30),
            said(33, "licence.expiring", 7),
            said(39, "licence.expiring", 1),
            said(40, "licence.ended", 0)
        ]
    );
    assert_eq!(scene.store.notices(Timestamp::default()).await.expect("a store").len(), 4);
    scene.clock.advance(5 * DAY);
    scene.gateway().look().await.expect("a store");
    assert_eq!(scene.store.notices(Timestamp::default()).await.expect("a store"), [], "in the end they are forgotten");
}

#[tokio::test]
async fn a_moved_end_makes_new_notices_due() {
    let scene = Scene::new().await;
    let gateway = scene.gateway();
    scene.clock.advance(34 * DAY);
    gateway.look().await.expect("a store");
    assert_eq!(scene.receiver.taken().len(), 1, "the nearest one alone, though another was due before");
    scene.move_end(scene.end + 3 * DAY).await;
    gateway.look().await.expect("a store");
    let got = scene.receiver.taken();
    assert_eq!(got[0].1["data"]["ends_at"], (scene.end + 3 * DAY).to_string());
    assert_eq!(got[0].1["data"]["ahead_seconds"], (30 * DAY).as_secs());
    scene.move_end(scene.end + 300 * DAY).await;
    gateway.look().await.expect("a store");
    scene.move_end(scene.end).await;
    gateway.look().await.expect("a store");
    assert_eq!(scene.receiver.taken(), [], "that end had its notice");
}

#[tokio::test]
async fn what_fails_is_tried_again_with_growing_pauses_and_given_up_in_the_end() {
    let scene = Scene::new().await;
    scene.receiver.down.store(true, Ordering::SeqCst);
    scene.clock.advance(10 * DAY);
    let start = scene.clock.now();
    let mut tried = Vec::new();
    let mut messages = std::collections::BTreeSet::new();
    for _ in 0..2 * 24 * 60 {
        // Two gateways, and still one attempt.
        let (a, b) = (scene.gateway(), scene.gateway());
        let (a, b) = tokio::join!(a.look(), b.look());
        a.and(b).expect("a store");
        for (message, _) in scene.receiver.taken() {
            tried.push(scene.clock.now().since(start).as_secs() / 60);
            messages.insert(message);
        }
        scene.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(tried, [0, 1, 6, 21, 81, 261, 621, 1341]);
    assert_eq!(messages.len(), 1, "always the same message");
    let held = scene.store.notices(Timestamp::default()).await.expect("a store");
    assert_eq!((held.len(), held[0].state, held[0].attempts), (1, NoticeState::GivenUp, 8));
    scene.receiver.down.store(false, Ordering::SeqCst);
    scene.clock.advance(22 * DAY);
    scene.gateway().look().await.expect("a store");
    assert_eq!(scene.receiver.taken().len(), 1, "the next step is a notice of its own");
}

#[tokio::test]
async fn a_claim_that_is_never_settled_lapses_and_the_message_stays_the_same() {
    let scene = Scene::new().await;
    scene.clock.advance(10 * DAY);
    let gateway = scene.gateway();
    let now = scene.clock.now();
    let occasion = Occasion { licence: scene.licence, ends_at: scene.end, ahead: 30 * DAY };
    let claimed = gateway.claim(&occasion, now).await.expect("a store").expect("a claim");
    gateway.look().await.expect("a store");
    assert_eq!(scene.receiver.taken(), [], "somebody is at it");
    scene.clock.advance(CLAIM);
    gateway.look().await.expect("a store");
    assert_eq!(scene.receiver.taken()[0].0, claimed.message);
    // The one that was thought dead comes late; what it says of its attempt changes nothing.
    gateway.send(&scene.store.licence(&scene.licence).await.expect("a store").expect("a licence"), claimed).await;
    let held = scene.store.notices(Timestamp::default()).await.expect("a store");
    assert_eq!((held[0].state, held[0].attempts), (NoticeState::Sent, 2));
}
