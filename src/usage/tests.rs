//! The ledger against a plain model: whatever happens in which order, everything is counted once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::persist::{Error as StoreError, Result};
use crate::store::MemoryStore;

/// What becomes of an attempt to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    /// Nothing was written.
    Refused,
    /// It was written, and nobody heard of it.
    Unheard,
    /// It was written, and its caller is gone before it hears of it.
    Held,
}

/// A store that does what it is told.
struct Told {
    inner: MemoryStore,
    fates: Mutex<Vec<Fate>>,
    attempts: AtomicU64,
}

impl Told {
    fn new(fates: &[Fate]) -> Arc<Self> {
        let fates = Mutex::new(fates.iter().rev().copied().collect());
        Arc::new(Self { inner: MemoryStore::new(), fates, attempts: AtomicU64::new(0) })
    }
}

fn away() -> StoreError {
    StoreError::Unavailable("away".into())
}

#[async_trait]
impl UsageStore for Told {
    async fn add_usage(&self, batch: &Batch) -> Result<()> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        let fate = self.fates.lock().unwrap().pop().unwrap_or(Fate::Good);
        if fate != Fate::Refused {
            self.inner.add_usage(batch).await?;
        }
        match fate {
            Fate::Good => Ok(()),
            Fate::Refused | Fate::Unheard => Err(away()),
            Fate::Held => std::future::pending().await,
        }
    }

    async fn usage(&self, filter: &Filter, by: By) -> Result<Vec<(Label, Counts)>> {
        self.inner.usage(filter, by).await
    }

    async fn forget_usage(&self, before: Hour) -> Result<u64> {
        self.inner.forget_usage(before).await
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)))
}

fn ledger(clock: &Arc<ManualClock>, most_cells: usize, most_lines: usize) -> Arc<Ledger> {
    Arc::new(Ledger::bounded(&Settings::default(), clock.clone(), most_cells, most_lines))
}

/// A spot of our choice, and its line. The group of a principal's requests depends on whether they were let through.
fn place(who: u64, route: u32, hour: Hour, status: u16) -> (Spot, Line) {
    let class = StatusClass::of(status);
    let is_granted = status < 400;
    let spot = Spot { who: who + 1, table: 1, route: Some(route), hour, class, is_granted };
    let line = Line {
        holder: Some(Holder { account: format!("account{who}").parse().unwrap(), client: Client::Password }),
        group: is_granted.then(|| "group".parse().unwrap()),
        route: Some(format!("route{route}").parse().unwrap()),
        class,
    };
    (spot, line)
}

fn answered(millis: u64, bytes_in: u64, bytes_out: u64) -> Event {
    Event { answered: Some(Duration::from_millis(millis)), bytes_in, bytes_out }
}

fn ever() -> Filter {
    Filter::all(Range { since: Hour(0), until: Hour(u32::MAX) })
}

async fn total(store: &dyn UsageStore) -> Counts {
    let mut total = Counts::default();
    store.usage(&ever(), By::Status).await.unwrap().iter().for_each(|(_, counts)| total.add(counts));
    total
}

#[derive(Debug, Clone)]
enum Step {
    Answer { who: u64, route: u32, status: u16, millis: u64, bytes_in: u64, bytes_out: u64 },
    Content { who: u64, route: u32, bytes: u64 },
    Advance(u64),
    Flush(Fate),
    Look(By),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![
        4 => Just(Fate::Good), 2 => Just(Fate::Refused), 2 => Just(Fate::Unheard), 2 => Just(Fate::Held),
    ];
    let status = prop::sample::select(vec![200u16, 204, 302, 401, 403, 404, 500, 503]);
    let step = prop_oneof![
        8 => (0..6u64, 0..3u32, status, 0..70_000u64, 0..1000u64, 0..100_000u64).prop_map(
            |(who, route, status, millis, bytes_in, bytes_out)| {
                Step::Answer { who, route, status, millis, bytes_in, bytes_out }
            }),
        2 => (0..6u64, 0..3u32, 1..5000u64).prop_map(|(who, route, bytes)| Step::Content { who, route, bytes }),
        2 => (1..5000u64).prop_map(Step::Advance),
        3 => fate.prop_map(Step::Flush),
        1 => prop::sample::select(By::ALL.to_vec()).prop_map(Step::Look),
    ];
    prop::collection::vec(step, 1..120)
}

type Model = BTreeMap<(Hour, Line), Counts>;

fn added_up(model: &Model, by: By) -> BTreeMap<Label, Counts> {
    let mut sums: BTreeMap<Label, Counts> = BTreeMap::new();
    for ((hour, line), counts) in model {
        sums.entry(by.label(*hour, line)).or_default().add(counts);
    }
    sums
}

async fn play(steps: &[Step], most_cells: usize, most_lines: usize) -> (Model, Arc<Told>, Arc<Ledger>) {
    let (clock, store) = (clock(), Told::new(&[]));
    let ledger = ledger(&clock, most_cells, most_lines);
    let is_bounded = most_cells < 1000;
    let mut model = Model::new();
    for step in steps {
        let hour = Hour::of(clock.now());
        match step {
            Step::Answer { who, route, status, millis, bytes_in, bytes_out } => {
                let (spot, line) = place(*who, *route, hour, *status);
                ledger.count(spot, answered(*millis, *bytes_in, *bytes_out), || line.clone());
                let held = model.entry((hour, line)).or_default();
                held.requests += 1;
                held.bytes_in += bytes_in;
                held.bytes_out += bytes_out;
                held.latency.0[(0..16).find(|n| *millis <= 1 << n).unwrap_or(16)] += 1;
            }
            Step::Content { who, route, bytes } => {
                let (spot, line) = place(*who, *route, hour, 200);
                ledger.count(spot, Event { bytes_out: *bytes, ..Event::default() }, || line.clone());
                model.entry((hour, line)).or_default().bytes_out += bytes;
            }
            Step::Advance(secs) => clock.advance(Duration::from_secs(*secs)),
            Step::Flush(fate) => {
                store.fates.lock().unwrap().push(*fate);
                let flush = ledger.flush(&*store);
                // One that is held is given up: nothing else in here waits, so it comes to an end at once or never.
                let done = polled_once(flush);
                assert!(*fate != Fate::Good || matches!(done, Some(Ok(()))));
                store.fates.lock().unwrap().clear();
            }
            Step::Look(by) if !is_bounded => {
                let operations = Operations::new(store.clone(), clock.clone()).with_ledger(ledger.clone());
                let report = operations.report(Question { filter: ever(), by: *by }).await.unwrap();
                let seen: BTreeMap<_, _> =
                    report.entries.into_iter().map(|entry| (entry.label, entry.counts)).collect();
                assert_eq!(seen, added_up(&model, *by));
            }
            Step::Look(_) => {}
        }
    }
    store.fates.lock().unwrap().clear();
    ledger.flush(&*store).await.unwrap();
    (model, store, ledger)
}

/// Polls once.
fn polled_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(done) => Some(done),
        std::task::Poll::Pending => None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #[test]
    fn whatever_fails_everything_is_counted_once(steps in steps()) {
        runtime().block_on(async {
            let (model, store, ledger) = play(&steps, 100_000, 100_000).await;
            for by in By::ALL {
                let found: BTreeMap<_, _> = store.usage(&ever(), by).await.unwrap().into_iter().collect();
                prop_assert_eq!(found, added_up(&model, by), "{:?}", by);
            }
            prop_assert_eq!((ledger.unwritten(), ledger.others()), (0, 0));
            Ok(())
        })?;
    }

    #[test]
    fn without_room_requests_are_not_told_apart_and_none_is_lost(steps in steps(), cells in 0..4usize, lines in 0..4usize) {
        runtime().block_on(async {
            let (model, store, ledger) = play(&steps, cells, lines).await;
            for by in [By::Status, By::Hour, By::Day] {
                let found: BTreeMap<_, _> = store.usage(&ever(), by).await.unwrap().into_iter().collect();
                prop_assert_eq!(found, added_up(&model, by), "{:?}", by);
            }
            let accounts: BTreeMap<_, _> = store.usage(&ever(), By::Account).await.unwrap().into_iter().collect();
            let others = accounts.get(&Label::Account(None)).map_or(0, |counts| counts.requests);
            prop_assert_eq!(others, ledger.others(), "what is not told apart is said");
            for (label, counts) in accounts.iter().filter(|(label, _)| **label != Label::Account(None)) {
                prop_assert!(counts.requests <= added_up(&model, By::Account)[label].requests);
            }
            Ok(())
        })?;
    }
}

#[test]
fn threads_count_beside_one_another_and_beside_the_flusher() {
    const THREADS: u64 = 8;
    const EACH: u64 = 20_000;
    let (clock, store) = (clock(), Told::new(&[Fate::Unheard, Fate::Refused, Fate::Good, Fate::Unheard]));
    let ledger = ledger(&clock, 100_000, 100_000);
    let hour = Hour::of(clock.now());
    let working = AtomicU64::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (ledger, working) = (&ledger, &working);
            scope.spawn(move || {
                for n in 0..EACH {
                    let (spot, line) = place((thread + n) % 5, (n % 3) as u32, hour, 200);
                    ledger.count(spot, answered(1, 1, 2), || line);
                }
                working.fetch_sub(1, Ordering::SeqCst);
            });
        }
        runtime().block_on(async {
            while working.load(Ordering::SeqCst) > 0 {
                let _ = ledger.flush(&*store).await;
            }
        });
    });
    runtime().block_on(async {
        while ledger.flush(&*store).await.is_err() {}
        let all = total(&*store).await;
        assert_eq!((all.requests, all.bytes_in, all.bytes_out), (THREADS * EACH, THREADS * EACH, THREADS * EACH * 2));
        assert_eq!(all.latency.0[0], THREADS * EACH);
    });
}

#[tokio::test]
async fn many_lines_are_written_in_several_batches() {
    let (clock, store) = (clock(), Told::new(&[Fate::Good, Fate::Unheard, Fate::Good, Fate::Refused]));
    let ledger = ledger(&clock, 100_000, 100_000);
    let hour = Hour::of(clock.now());
    for who in 0..10_000 {
        let (spot, line) = place(who, 0, hour, 200);
        ledger.count(spot, answered(1, 0, 0), || line);
    }
    while ledger.flush(&*store).await.is_err() {}
    assert_eq!(store.attempts.load(Ordering::SeqCst), 12, "ten batches, two of them twice");
    assert_eq!(total(&*store).await.requests, 10_000);
}

/// The flusher writes in turn, and before its turn when half of the room is taken; and once an hour it forgets.
#[tokio::test]
async fn the_flusher_keeps_its_turns() {
    let (clock, store) = (clock(), Told::new(&[]));
    let ledger = ledger(&clock, 10, 100);
    let hour = Hour::of(clock.now());
    let count = |who| {
        let (spot, line) = place(who, 0, hour, 200);
        ledger.count(spot, answered(1, 0, 0), || line);
    };
    let until = async |requests| {
        for _ in 0..10_000 {
            if total(&*store).await.requests == requests {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{requests} requests are not written");
    };
    let old = |days: u32| Row {
        hour: Hour(hour.0 - (400 + days) * 24),
        line: place(0, 0, hour, 200).1,
        counts: Counts::default(),
    };
    let rows = vec![old(1), old(3), old(5), old(7)];
    store.add_usage(&Batch { gateway: "old".into(), number: 1, at: clock.now(), rows }).await.unwrap();
    let flusher = tokio::spawn(keep_flushed(Arc::clone(&ledger), store.clone()));
    let settled = async || {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    settled().await;
    count(1);
    settled().await;
    assert_eq!(total(&*store).await.requests, 0, "its turn has not come");
    clock.advance(Duration::from_secs(10));
    until(1).await;
    let hours = async || store.usage(&ever(), By::Hour).await.unwrap().len();
    settled().await;
    assert_eq!(hours().await, 3, "two of the old days are gone, and one that was just written is there");
    clock.advance(Duration::from_secs(3600));
    settled().await;
    assert_eq!(hours().await, 1, "the others went an hour later");
    (0..6).for_each(count);
    until(7).await;
    flusher.abort();
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_the_store_for_a_while() {
    let clock = clock();
    for (fates, written) in [(vec![Fate::Refused, Fate::Unheard, Fate::Refused], 1), (vec![Fate::Refused; 100], 0)] {
        let (store, ledger) = (Told::new(&fates), ledger(&clock, 10, 10));
        let (spot, line) = place(1, 0, Hour::of(clock.now()), 200);
        ledger.count(spot, answered(1, 0, 0), || line);
        close(&ledger, &*store).await;
        assert_eq!((total(&*store).await.requests, ledger.unwritten()), (written, 1 - written));
    }
}

#[test]
fn hours_and_ranges_are_whole() {
    let at = |text: &str| Timestamp::parse(text).unwrap();
    let hour = Hour::of(at("2026-11-24T13:59:59Z"));
    assert_eq!(hour.start(), at("2026-11-24T13:00:00Z"));
    assert_eq!((hour.day().start(), hour.next().start()), (at("2026-11-24"), at("2026-11-24T14:00:00Z")));
    let now = at("2026-11-24T13:30:00Z");
    let range = |since: Option<&str>, until: Option<&str>| Range::new(since.map(at), until.map(at), now);
    let found = range(Some("2026-11-24T12:30:00Z"), Some("2026-11-24T13:00:01Z")).unwrap();
    assert_eq!((found.since.start(), found.until.start()), (at("2026-11-24T12:00:00Z"), at("2026-11-24T14:00:00Z")));
    let found = range(None, None).unwrap();
    assert_eq!((found.since.start(), found.until.start()), (at("2026-10-25T13:00:00Z"), at("2026-11-24T14:00:00Z")));
    let exact = range(Some("2026-11-01"), Some("2026-11-02")).unwrap();
    assert_eq!(exact.hours(), 24);
    assert!(matches!(range(Some("2026-11-02"), Some("2026-11-02")), Err(Error::Backwards { .. })));
    assert!(matches!(range(Some("2026-11-25"), None), Err(Error::Future(_))));
    assert_eq!(range(Some("2026-11-24T13:30:00Z"), None).unwrap().hours(), 1, "now is in the present hour");
    for (text, good) in [("2xx", true), ("0xx", false), ("6xx", false), ("xx", false), ("22xx", false), ("2XX", false)]
    {
        assert_eq!(text.parse::<StatusClass>().is_ok(), good, "{text}");
    }
}
