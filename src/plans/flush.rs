//! From the meters into the store and back: what was counted here is added there, and the totals that come back are those of all
//! gateways on that store.
//!
//! A batch is frozen before it is tried, and has a number that the store remembers with it: whatever became of an attempt, the
//! same batch is tried again under the same number, and counts once. What is killed loses what it counted since the last turn.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::meters::Counted;
use super::{Meters, Subject};
use crate::clock::{Clock, Timestamp};
use crate::ids::PlanId;
use crate::persist::Result;
use crate::random;

/// Rows that are written at once: few enough that others who write to the store do not wait for long.
const MOST_ROWS: usize = 1024;

/// How long the end of the process waits for a store that is away, and how often it tries.
const LAST_WAIT: Duration = Duration::from_secs(5);
const LAST_EVERY: Duration = Duration::from_millis(250);

/// What is counted together: a limit of somebody in one window or period.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Line {
    /// The plan.
    pub plan: PlanId,
    /// Whose.
    pub subject: Subject,
    /// The limit's word.
    pub limit: String,
    /// The first instant of the window or period.
    pub from: Timestamp,
}

/// How much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Of what.
    pub line: Line,
    /// When it counts no more.
    pub until: Timestamp,
    /// How much: to be added, or in all.
    pub used: u64,
}

/// What is written at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The gateway process it comes from.
    pub gateway: String,
    /// Its number among the batches of that process: they are written in order, from 1 on.
    pub number: u64,
    /// When it was made.
    pub at: Timestamp,
    /// What is to be added. No two of the same line.
    pub rows: Vec<Row>,
}

/// Counts that last, and that several gateways share.
#[async_trait]
pub trait CountStore: Send + Sync {
    /// Adds a batch to what is there, all of it or nothing, and once: one whose number is not above the last of its gateway is
    /// there already. Either way, what there is now of each of its rows, in their order.
    async fn add_counts(&self, batch: &Batch) -> Result<Vec<u64>>;
    /// What still counts at `now`, in no particular order.
    async fn counts(&self, now: Timestamp) -> Result<Vec<Row>>;
    /// Forgets what does not. How many rows went.
    async fn forget_counts(&self, now: Timestamp) -> Result<u64>;
}

/// A batch, and whose rows it has.
type Frozen = (Arc<Batch>, Arc<[Arc<Counted>]>);

/// What waits for the store.
#[derive(Debug)]
pub(super) struct Pending {
    gateway: String,
    /// Of the last batch.
    number: u64,
    waiting: VecDeque<(Arc<Counted>, Row)>,
    /// What is being written, or was tried to, and whose it is.
    batch: Option<Frozen>,
    failures: u64,
}

impl Default for Pending {
    fn default() -> Self {
        Self { gateway: random::base62(16), number: 0, waiting: VecDeque::new(), batch: None, failures: 0 }
    }
}

impl Meters {
    /// Writes all that was counted before this call, and learns what others counted of the same.
    ///
    /// # Errors
    /// The store's. Nothing is lost: the next call tries again.
    pub async fn flush(&self, store: &dyn CountStore, now: Timestamp) -> Result<()> {
        let _turn = self.turn.lock().await;
        // What could not be written goes first; then what was counted since, which may be of the same lines.
        self.write_waiting(store, now).await?;
        self.drain();
        self.write_waiting(store, now).await
    }

    async fn write_waiting(&self, store: &dyn CountStore, now: Timestamp) -> Result<()> {
        while let Some((batch, whose)) = self.next_batch(now) {
            let totals = store.add_counts(&batch).await.inspect_err(|_| self.pending().failures += 1)?;
            for ((row, counted), total) in batch.rows.iter().zip(whose.iter()).zip(totals) {
                counted.lock().meter.learn(&row.line.limit, row.line.from, total);
            }
            self.pending().batch = None;
        }
        Ok(())
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drain(&self) {
        for counted in self.take_listed() {
            let unwritten = {
                let mut inner = counted.lock();
                inner.is_listed = false;
                inner.meter.take_unwritten()
            };
            let mut pending = self.pending();
            for (word, (from, until), used) in unwritten {
                let (plan, subject) = (counted.plan.clone(), counted.subject.clone());
                let line = Line { plan, subject, limit: word.to_owned(), from };
                pending.waiting.push_back((Arc::clone(&counted), Row { line, until, used }));
            }
        }
    }

    fn next_batch(&self, at: Timestamp) -> Option<Frozen> {
        let mut pending = self.pending();
        if pending.batch.is_none() && !pending.waiting.is_empty() {
            let some = pending.waiting.len().min(MOST_ROWS);
            let (whose, rows): (Vec<_>, Vec<_>) = pending.waiting.drain(..some).unzip();
            pending.number += 1;
            let (gateway, number) = (pending.gateway.clone(), pending.number);
            pending.batch = Some((Arc::new(Batch { gateway, number, at, rows }), whose.into()));
        }
        pending.batch.clone()
    }

    /// How often writing has failed.
    pub fn failures(&self) -> u64 {
        self.pending().failures
    }
}

/// Writes in turn, for ever.
pub async fn keep_written(meters: Arc<Meters>, store: Arc<dyn CountStore>, clock: Arc<dyn Clock>) {
    let mut was_away = false;
    loop {
        clock.sleep_until(clock.now() + meters.settings.flush_every).await;
        let flushed = meters.flush(&*store, clock.now()).await;
        match &flushed {
            Err(error) if !was_away => tracing::error!(
                error = error as &dyn std::error::Error,
                "what plans count cannot be written now; it is kept in memory and tried again"
            ),
            Ok(()) if was_away => tracing::info!("what plans count is written again"),
            _ => {}
        }
        was_away = flushed.is_err();
    }
}

/// At the end of the process: writes the last of it, and waits a little for a store that is away.
pub async fn close(meters: &Meters, store: &dyn CountStore, clock: &dyn Clock) {
    let all = async {
        while meters.flush(store, clock.now()).await.is_err() {
            tokio::time::sleep(LAST_EVERY).await;
        }
    };
    if tokio::time::timeout(LAST_WAIT, all).await.is_err() {
        tracing::error!("what plans counted last could not be written, and is lost");
    }
}

#[cfg(test)]
mod tests;
