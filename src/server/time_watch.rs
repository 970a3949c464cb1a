//! Keeps the latest time in the store, for licences from documents: see [`Documents`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::clock::Clock;
use crate::licences::{Documents, LOOK_EVERY};
use crate::persist;
use crate::store::SharedStore;

/// Watches the clock.
#[derive(Clone)]
pub struct TimeWatch {
    documents: Arc<Documents>,
    store: SharedStore,
    clock: Arc<dyn Clock>,
    told: Arc<AtomicBool>,
}

impl std::fmt::Debug for TimeWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimeWatch").field("latest", &self.documents.latest()).finish_non_exhaustive()
    }
}

impl TimeWatch {
    /// Learns the latest time there was, and looks every installed document over: what is wrong with one is told now, and not
    /// when its customer calls.
    ///
    /// # Errors
    /// The store's.
    pub async fn start(documents: Arc<Documents>, store: SharedStore, clock: Arc<dyn Clock>) -> persist::Result<Self> {
        documents.learn(store.latest_time().await?);
        documents.believed(store.installed_licences().await?);
        let watch = Self { documents, store, clock, told: Arc::default() };
        watch.look().await;
        Ok(watch)
    }

    /// Whether documents count here, and the clock shows less than it once did.
    pub fn is_set_back(&self) -> bool {
        self.documents.are_used() && self.documents.is_set_back(self.clock.now())
    }

    /// Notes the time, and tells of a clock that was set back.
    pub async fn look(&self) {
        if !self.documents.are_used() {
            return;
        }
        let now = self.clock.now();
        self.documents.look(now);
        let set_back = self.is_set_back();
        match (self.told.swap(set_back, Ordering::AcqRel), set_back) {
            (false, true) => tracing::error!(
                %now,
                latest = %self.documents.latest(),
                "the clock was set back: until it is right no licence from a document grants anything, and this gateway is \
                 not ready"
            ),
            (true, false) => tracing::info!(%now, "the clock is right again"),
            _ => {}
        }
        let noted = async {
            self.store.note_time(self.documents.latest()).await?;
            // Other gateways on this store have clocks as well.
            self.documents.learn(self.store.latest_time().await?);
            Ok::<_, persist::Error>(())
        };
        if let Err(error) = noted.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the time could not be noted");
        }
    }

    /// Looks for ever.
    pub async fn keep(self: Arc<Self>) {
        loop {
            self.clock.sleep_until(self.clock.now() + LOOK_EVERY).await;
            self.look().await;
        }
    }
}
