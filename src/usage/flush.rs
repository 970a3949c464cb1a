//! From the ledger into the store, exactly once.
//!
//! A batch is frozen before it is tried, and has a number that the store remembers with it. Whatever became of an attempt (an
//! answer that was lost, a caller that went away in the midst of it), the same batch is tried again under the same number, and
//! what is counted meanwhile goes into the next one.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{By, Counts, Filter, Hour, Label, Ledger, UsageStore};
use crate::persist::Result;

/// How long the end of the process waits for a store that is away, and how often it tries.
const LAST_WAIT: Duration = Duration::from_secs(5);
const LAST_EVERY: Duration = Duration::from_millis(250);

/// Days that are forgotten in an hour, so that a clock that is wrong for an hour does not cost the books of a year. What is left
/// goes in the hours that follow.
const FORGET_AT_ONCE: usize = 2;

impl Ledger {
    /// Writes all that was counted before this call.
    ///
    /// # Errors
    /// The store's. Nothing is lost: the next call tries again.
    pub async fn flush(&self, store: &dyn UsageStore) -> Result<()> {
        let _turn = self.turn.write().await;
        self.drain();
        while let Some(batch) = self.next_batch() {
            store.add_usage(&batch).await.inspect_err(|_| {
                self.failures.fetch_add(1, Ordering::Relaxed);
            })?;
            self.written();
        }
        Ok(())
    }

    /// What `filter` admits, in the store and not in it yet, added up by `by`.
    ///
    /// # Errors
    /// The store's.
    pub async fn usage(&self, store: &dyn UsageStore, filter: &Filter, by: By) -> Result<Vec<(Label, Counts)>> {
        let turn = loop {
            let turn = self.turn.read().await;
            if !self.is_unsure() {
                break turn;
            }
            drop(turn);
            // What may be there or not can be added up neither way.
            self.flush(store).await?;
        };
        let mut found = store.usage(filter, by).await?;
        self.drain();
        self.waiting(|hour, line, counts| {
            if filter.admits(hour, line) {
                found.push((by.label(hour, line), *counts));
            }
        });
        drop(turn);
        Ok(found)
    }
}

/// Writes in turn, for ever; and once an hour forgets what is older than it is kept.
pub async fn keep_flushed(ledger: Arc<Ledger>, store: Arc<dyn UsageStore>) {
    let (mut was_away, mut forgot_at) = (false, None);
    loop {
        tokio::select! {
            () = ledger.clock.sleep_until(ledger.clock.now() + ledger.flush_every()) => {}
            () = ledger.early.notified() => {}
        }
        let flushed = {
            let mut flush = pin!(ledger.flush(&*store));
            loop {
                tokio::select! {
                    done = &mut flush => break done,
                    // The store takes its time; the cells must not run out because of it.
                    () = ledger.early.notified() => ledger.drain(),
                }
            }
        };
        match &flushed {
            Err(error) if !was_away => tracing::error!(
                error = error as &dyn std::error::Error,
                "usage cannot be written now; it is kept in memory and tried again"
            ),
            Ok(()) if was_away => tracing::info!("usage is written again"),
            _ => {}
        }
        was_away = flushed.is_err();
        let hour = ledger.hour();
        if forgot_at != Some(hour) && !was_away {
            forgot_at = Some(hour);
            forget(&ledger, &*store).await;
        }
    }
}

async fn forget(ledger: &Ledger, store: &dyn UsageStore) {
    let before = Hour::of(ledger.clock.now() - ledger.keep());
    for _ in 0..FORGET_AT_ONCE {
        match store.forget_usage(before).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "old usage stays in the store for now");
                return;
            }
        }
    }
}

/// At the end of the process: writes the last of it, and waits a little for a store that is away.
pub async fn close(ledger: &Ledger, store: &dyn UsageStore) {
    let all = async {
        while let Err(error) = ledger.flush(store).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "usage is not written yet");
            tokio::time::sleep(LAST_EVERY).await;
        }
    };
    if tokio::time::timeout(LAST_WAIT, all).await.is_err() {
        tracing::error!(requests = ledger.unwritten(), "usage could not be written, and is lost");
    }
}
