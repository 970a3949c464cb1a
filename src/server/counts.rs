//! What is counted while the gateway runs, and where it is written: the usage, and what plans count.

use std::sync::Arc;

use crate::clock::Clock;
use crate::persist;
use crate::plans::{self, CountStore, Meters};
use crate::usage::{self, Ledger, UsageStore};

/// What was counted, and where it is written.
#[derive(Clone)]
pub struct CountWriter {
    pub(super) ledger: Arc<Ledger>,
    pub(super) usage: Arc<dyn UsageStore>,
    pub(super) meters: Arc<Meters>,
    pub(super) counts: Arc<dyn CountStore>,
    pub(super) clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for CountWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CountWriter").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

impl CountWriter {
    /// Writes all that was counted so far, and waits a little for a store that is away.
    pub async fn close(&self) {
        plans::close(&self.meters, &*self.counts, &*self.clock).await;
        usage::close(&self.ledger, &*self.usage).await;
    }

    /// Writes what plans have counted so far, and learns what other gateways have.
    ///
    /// # Errors
    /// The store's. Nothing is lost.
    pub async fn write_plans(&self) -> persist::Result<()> {
        self.meters.flush(&*self.counts, self.clock.now()).await
    }
}
