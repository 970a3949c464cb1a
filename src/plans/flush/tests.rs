//! Gateways on one store, whose answers get lost: everything is counted once.

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::ids::KeyId;
use crate::persist::Error;
use crate::plans::{Bound, Limit, Plan, Settings, Share};
use crate::store::MemoryStore;

/// What becomes of an attempt to write.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Good,
    /// Nothing was written.
    Refused,
    /// It was written, and nobody heard of it.
    Unheard,
}

/// A store that does what it is told.
struct Told {
    inner: MemoryStore,
    fates: Mutex<Vec<Fate>>,
}

#[async_trait]
impl CountStore for Told {
    async fn add_counts(&self, batch: &Batch) -> Result<Vec<u64>> {
        let fate = self.fates.lock().unwrap().pop().unwrap_or(Fate::Good);
        let totals = match fate {
            Fate::Refused => vec![],
            Fate::Good | Fate::Unheard => self.inner.add_counts(batch).await?,
        };
        if matches!(fate, Fate::Good) { Ok(totals) } else { Err(Error::Unavailable("away".into())) }
    }

    async fn counts(&self, now: Timestamp) -> Result<Vec<Row>> {
        self.inner.counts(now).await
    }

    async fn forget_counts(&self, now: Timestamp) -> Result<u64> {
        self.inner.forget_counts(now).await
    }
}

/// What one gateway does.
#[derive(Debug, Clone, Copy)]
enum Step {
    Take(usize),
    Flush(usize),
    /// It ends without a word, and another takes its place.
    Restart(usize),
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3usize).prop_map(Step::Take),
        3 => (0..3usize).prop_map(Step::Flush),
        1 => (0..3usize).prop_map(Step::Restart),
        1 => (0..100_000u64).prop_map(Step::Wait),
    ]
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![3 => Just(Fate::Good), 1 => Just(Fate::Refused), 1 => Just(Fate::Unheard)]
}

struct Gateway {
    meters: Arc<Meters>,
    bound: Arc<Bound>,
    /// Counted and not written, as far as it knows.
    open: u64,
}

async fn gateway(store: &Told, plan: &Arc<Plan>, subject: &Subject, now: Timestamp) -> Gateway {
    let meters = Arc::new(Meters::new(&Settings::default(), store.counts(now).await.unwrap()));
    let share = Share { counted: meters.of(plan, subject.clone()), plan: Arc::clone(plan) };
    Gateway { bound: Arc::new(Bound::new(&meters, vec![share], vec![])), meters, open: 0 }
}

async fn run(steps: Vec<Step>, fates: Vec<Fate>) {
    const MOST: u64 = 15;
    let limit = Limit::named("requests_per_day", MOST, None).unwrap();
    let plan = Arc::new(Plan { id: "pro".parse().unwrap(), limits: vec![limit] });
    let subject = Subject::Key(KeyId::random());
    // The beginning of a day, and no more waiting than there is of it.
    let mut now = Timestamp::from_secs(20_000 * 86_400);
    let store = Told { inner: MemoryStore::new(), fates: Mutex::new(fates) };
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(gateway(&store, &plan, &subject, now).await);
    }
    let (mut taken, mut lost) = (0, 0);
    for step in steps {
        match step {
            Step::Take(at) => {
                // Of what it has seen itself and what it was told, never one too many.
                if gateways[at].bound.take(now).is_ok() {
                    gateways[at].open += 1;
                    taken += 1;
                }
            }
            Step::Flush(at) => {
                if gateways[at].meters.flush(&store, now).await.is_ok() {
                    gateways[at].open = 0;
                }
            }
            Step::Restart(at) => {
                lost += gateways[at].open;
                gateways[at] = gateway(&store, &plan, &subject, now).await;
            }
            Step::Wait(millis) => now = now + Duration::from_millis(millis),
        }
    }
    store.fates.lock().unwrap().clear();
    for gateway in &gateways {
        gateway.meters.flush(&store, now).await.unwrap();
    }
    let total: u64 = store.counts(now).await.unwrap().iter().map(|row| row.used).sum();
    // What a killed one had written without hearing of it is there all the same.
    assert!((taken - lost..=taken).contains(&total), "{total} of {taken} taken, {lost} lost");
    // Whoever begins now knows all of it.
    let fresh = gateway(&store, &plan, &subject, now).await;
    let mut more = 0;
    while fresh.bound.take(now).is_ok() {
        more += 1;
    }
    assert_eq!(more, MOST.saturating_sub(total));
}

proptest! {
    #[test]
    fn everything_is_counted_once(
        steps in prop::collection::vec(any_step(), 1..80),
        fates in prop::collection::vec(any_fate(), 0..30),
    ) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(steps, fates));
    }
}

#[tokio::test]
async fn one_gateway_is_exact_by_itself_whatever_becomes_of_its_writes() {
    use Fate::{Good, Refused, Unheard};
    let limit = Limit::named("requests_per_hour", 10, None).unwrap();
    let plan = Arc::new(Plan { id: "pro".parse().unwrap(), limits: vec![limit] });
    let now = Timestamp::from_secs(1_800_000_000);
    let store =
        Told { inner: MemoryStore::new(), fates: Mutex::new(vec![Good, Unheard, Refused, Unheard, Refused, Good]) };
    let gateway = gateway(&store, &plan, &Subject::Key(KeyId::random()), now).await;
    let mut taken = 0;
    for turn in 0..30 {
        if gateway.bound.take(now).is_ok() {
            taken += 1;
        }
        if turn % 2 == 0 {
            let _ = gateway.meters.flush(&store, now).await;
        }
    }
    assert_eq!(taken, 10);
    gateway.meters.flush(&store, now).await.unwrap();
    let rows = store.counts(now).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.used).collect::<Vec<_>>(), [10]);
    assert_eq!(gateway.meters.failures(), 4);
}
