//! The ledger: where requests are counted as they are answered, in memory and without waiting for the store.
//!
//! Each thread counts into cells of its own, so nobody waits for another; what takes them out only swaps the map. A cell is
//! found by numbers, and names are looked at once, when it is made. There is a bound: when all cells there may be are taken,
//! what is new counts on one line for all others, and nothing is lost.

use std::cell::Cell as ThreadCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, RwLock};

use super::{Batch, Counts, Hour, Line, Row, Settings, StatusClass};
use crate::clock::{Clock, Timestamp};
use crate::random;

/// Cells that there may be between two turns of the flusher, on all threads together; each takes about 350 bytes. When half of
/// them are taken the flusher is woken before its time.
const MOST_CELLS: usize = 128 * 1024;

/// Lines that may wait for the store.
const MOST_LINES: usize = 256 * 1024;

/// Rows that are written at once: few enough that others who write to the store do not wait for long.
const MOST_ROWS: usize = 1024;

/// More than there are cores on most machines. Threads that share one wait for each other now and then.
const SHARDS: usize = 32;

/// Where something counts, in numbers that are never used for anything else within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spot {
    /// The principal's number, from 1 on.
    pub who: u64,
    /// The route table's.
    pub table: u64,
    /// The route's index in it.
    pub route: Option<u32>,
    /// The hour.
    pub hour: Hour,
    /// How it was answered.
    pub class: StatusClass,
    /// Whether the token let it through.
    pub is_granted: bool,
}

impl Spot {
    /// Where it counts when there is no room.
    fn other(self) -> Self {
        Self { who: 0, table: 0, route: None, is_granted: false, ..self }
    }
}

/// Something to count.
#[derive(Debug, Clone, Copy, Default)]
pub struct Event {
    /// A request was answered, after so long.
    pub answered: Option<Duration>,
    /// Bytes that came in.
    pub bytes_in: u64,
    /// Bytes that went out.
    pub bytes_out: u64,
}

impl Event {
    fn count(self, counts: &mut Counts) {
        if let Some(duration) = self.answered {
            counts.requests += 1;
            counts.latency.observe(duration);
        }
        counts.bytes_in += self.bytes_in;
        counts.bytes_out += self.bytes_out;
    }
}

#[derive(Debug)]
struct Cell {
    line: Line,
    counts: Counts,
}

/// Spots are made of our own numbers, so nobody can choose where they fall.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value.cast_unsigned() as u64);
    }
}

type Cells = HashMap<Spot, Cell, BuildHasherDefault<Fold>>;

/// The cells of a thread, or of a few. On cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Cells>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which shard a thread counts in.
fn turn_of_thread() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static THREAD: ThreadCell<usize> = const { ThreadCell::new(usize::MAX) };
    }
    THREAD.with(|thread| {
        if thread.get() == usize::MAX {
            thread.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        thread.get()
    })
}

/// What waits for the store.
#[derive(Debug)]
pub(super) struct Pending {
    gateway: String,
    /// Of the last batch.
    number: u64,
    lines: HashMap<(Hour, Line), Counts>,
    /// What is being written, or was tried to. It stays as it is until it is known to be there: only so can it be told from
    /// one that is there already.
    pub(super) batch: Option<Arc<Batch>>,
}

/// Counts requests; see the module.
#[derive(Debug)]
pub struct Ledger {
    is_enabled: AtomicBool,
    keep_millis: AtomicU64,
    flush_millis: AtomicU64,
    most_cells: usize,
    most_lines: usize,
    shards: Box<[Shard]>,
    cells: AtomicUsize,
    pub(super) early: Notify,
    pub(super) pending: Mutex<Pending>,
    /// Held for writing by who writes to the store, and for reading by who adds up the store and what is not in it yet: in
    /// between nothing goes from here to there.
    pub(super) turn: RwLock<()>,
    pub(super) clock: Arc<dyn Clock>,
    others: AtomicU64,
    pub(super) failures: AtomicU64,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(settings: &Settings, clock: Arc<dyn Clock>) -> Self {
        Self::bounded(settings, clock, MOST_CELLS, MOST_LINES)
    }

    pub(super) fn bounded(settings: &Settings, clock: Arc<dyn Clock>, most_cells: usize, most_lines: usize) -> Self {
        let pending = Pending { gateway: random::base62(16), number: 0, lines: HashMap::new(), batch: None };
        let ledger = Self {
            is_enabled: AtomicBool::new(false),
            keep_millis: AtomicU64::new(0),
            flush_millis: AtomicU64::new(0),
            most_cells,
            most_lines,
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            cells: AtomicUsize::new(0),
            early: Notify::new(),
            pending: Mutex::new(pending),
            turn: RwLock::default(),
            clock,
            others: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        };
        ledger.set(settings);
        ledger
    }

    /// Keeps other settings from now on, and writes what there is.
    pub fn set(&self, settings: &Settings) {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.keep_millis.store(millis(settings.keep), Ordering::Relaxed);
        self.flush_millis.store(millis(settings.flush_every), Ordering::Relaxed);
        self.is_enabled.store(settings.enabled, Ordering::Relaxed);
        self.early.notify_one();
    }

    /// Whether anything is counted.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled.load(Ordering::Relaxed)
    }

    pub(super) fn keep(&self) -> Duration {
        Duration::from_millis(self.keep_millis.load(Ordering::Relaxed))
    }

    pub(super) fn flush_every(&self) -> Duration {
        Duration::from_millis(self.flush_millis.load(Ordering::Relaxed))
    }

    /// The present time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The present hour.
    pub fn hour(&self) -> Hour {
        Hour::of(self.clock.now())
    }

    /// Counts `event` at `spot`; `line` says which line that is, when it is not known yet.
    pub fn count(&self, spot: Spot, event: Event, line: impl FnOnce() -> Line) {
        let mut cells = lock(&self.shards[turn_of_thread() % SHARDS].0);
        if let Some(cell) = cells.get_mut(&spot) {
            return event.count(&mut cell.counts);
        }
        let taken = self.cells.fetch_add(1, Ordering::Relaxed);
        let (spot, line) = if taken < self.most_cells {
            (spot, line())
        } else {
            self.others.fetch_add(u64::from(event.answered.is_some()), Ordering::Relaxed);
            (spot.other(), Line::other(spot.class))
        };
        match cells.entry(spot) {
            MapEntry::Occupied(mut cell) => {
                self.cells.fetch_sub(1, Ordering::Relaxed);
                event.count(&mut cell.get_mut().counts);
            }
            MapEntry::Vacant(free) => {
                let mut cell = Cell { line, counts: Counts::default() };
                event.count(&mut cell.counts);
                free.insert(cell);
            }
        }
        if taken == self.most_cells / 2 {
            self.early.notify_one();
        }
    }

    /// Moves what was counted to what waits for the store. Who counts meanwhile waits for the swap of a map at the most.
    pub(super) fn drain(&self) {
        for shard in &self.shards {
            // The new map is as large as the old one came to be, and made outside of the lock.
            let size = lock(&shard.0).len();
            if size == 0 {
                continue;
            }
            let fresh = Cells::with_capacity_and_hasher(size, BuildHasherDefault::default());
            let taken = std::mem::replace(&mut *lock(&shard.0), fresh);
            // Anew for each shard, so that nobody who asks waits for all of them.
            let mut pending = lock(&self.pending);
            self.cells.fetch_sub(taken.len(), Ordering::Relaxed);
            for (spot, Cell { line, counts }) in taken {
                let others = pending.put(spot.hour, line, &counts, self.most_lines);
                self.others.fetch_add(others, Ordering::Relaxed);
            }
        }
    }

    /// The batch to write: the one that was tried before, else a new one; `None` when nothing waits.
    pub(super) fn next_batch(&self) -> Option<Arc<Batch>> {
        let mut pending = lock(&self.pending);
        if pending.batch.is_none() && !pending.lines.is_empty() {
            let mut rows: Vec<Row> = if pending.lines.len() <= MOST_ROWS {
                pending.lines.drain().map(row).collect()
            } else {
                let some: Vec<_> = pending.lines.keys().take(MOST_ROWS).cloned().collect();
                some.into_iter().filter_map(|key| pending.lines.remove_entry(&key).map(row)).collect()
            };
            // In the order in which they lie in the store.
            rows.sort_unstable_by(|a, b| (a.hour, &a.line).cmp(&(b.hour, &b.line)));
            pending.number += 1;
            let (gateway, number) = (pending.gateway.clone(), pending.number);
            pending.batch = Some(Arc::new(Batch { gateway, number, at: self.clock.now(), rows }));
        }
        pending.batch.clone()
    }

    /// That batch is in the store.
    pub(super) fn written(&self) {
        lock(&self.pending).batch = None;
    }

    /// Whether a batch was tried, and it is not known whether it is in the store.
    pub(super) fn is_unsure(&self) -> bool {
        lock(&self.pending).batch.is_some()
    }

    /// Looks at every line that waits, when no batch is tried.
    pub(super) fn waiting(&self, mut look: impl FnMut(Hour, &Line, &Counts)) {
        lock(&self.pending).lines.iter().for_each(|((hour, line), counts)| look(*hour, line, counts));
    }

    /// Requests that are counted and not known to be in the store.
    pub fn unwritten(&self) -> u64 {
        self.drain();
        let pending = lock(&self.pending);
        let tried = pending.batch.iter().flat_map(|batch| &batch.rows).map(|row| row.counts.requests);
        pending.lines.values().map(|counts| counts.requests).chain(tried).sum()
    }

    /// How many cells there are, and lines that wait for the store.
    pub fn size(&self) -> (usize, usize) {
        let pending = lock(&self.pending);
        let tried = pending.batch.as_ref().map_or(0, |batch| batch.rows.len());
        (self.cells.load(Ordering::Relaxed), pending.lines.len() + tried)
    }

    /// Requests that there was no room to tell apart from others.
    pub fn others(&self) -> u64 {
        self.others.load(Ordering::Relaxed)
    }

    /// How often writing to the store has failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

fn row(((hour, line), counts): ((Hour, Line), Counts)) -> Row {
    Row { hour, line, counts }
}

impl Pending {
    /// Adds to what waits. How many requests there was no room to tell apart.
    fn put(&mut self, hour: Hour, line: Line, counts: &Counts, most: usize) -> u64 {
        let is_full = self.lines.len() >= most;
        match self.lines.entry((hour, line)) {
            MapEntry::Occupied(mut held) => held.get_mut().add(counts),
            MapEntry::Vacant(free) if !is_full => drop(free.insert(*counts)),
            MapEntry::Vacant(full) => {
                let (_, line) = full.into_key();
                let is_new = line.holder.is_some();
                self.lines.entry((hour, Line::other(line.class))).or_default().add(counts);
                return if is_new { counts.requests } else { 0 };
            }
        }
        0
    }
}
