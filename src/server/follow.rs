//! Following the store: what another process wrote is in force here within a second, and everything before ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock::{Clock, Timestamp};
use crate::credentials::Verifier;
use crate::persist;
use crate::registry::Registry;
use crate::revocations::{Change, Changes};
use crate::signing::KeyRing;
use crate::store::SharedStore;

/// How often the store is asked what changed.
const EVERY: Duration = Duration::from_millis(250);

/// Keeps memory in agreement with the store.
pub struct Follower {
    store: SharedStore,
    credentials: Arc<Verifier>,
    registry: Arc<Registry>,
    ring: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    version: Mutex<u64>,
    reachable: AtomicBool,
    /// The signing keys changed and are not loaded yet.
    keys_are_due: AtomicBool,
    /// A signing key has gone before its time, and what was found by its digest must be verified anew.
    keys_dropped: AtomicBool,
    /// Loading them failed, and was told.
    keys_failed: AtomicBool,
    /// The longest time, in milliseconds, from a revocation's decision to its being in force here.
    lag: AtomicU64,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("reachable", &self.reachable).finish_non_exhaustive()
    }
}

impl Follower {
    /// Puts every revocation into force, and follows from there. Until this returns nothing may be served.
    ///
    /// # Errors
    /// The store's.
    pub async fn start(
        store: SharedStore,
        credentials: Arc<Verifier>,
        registry: Arc<Registry>,
        ring: Arc<KeyRing>,
        clock: Arc<dyn Clock>,
    ) -> persist::Result<Self> {
        let follower = Self {
            version: Mutex::new(0),
            store,
            credentials,
            registry,
            ring,
            clock,
            reachable: AtomicBool::new(true),
            keys_are_due: AtomicBool::new(false),
            keys_dropped: AtomicBool::new(false),
            keys_failed: AtomicBool::new(false),
            lag: AtomicU64::new(0),
        };
        *follower.version.lock().await = follower.replay().await?;
        Ok(follower)
    }

    /// Takes everything from the store, as if nothing were known, and returns the version that this is of.
    async fn replay(&self) -> persist::Result<u64> {
        let began = self.clock.now();
        // The version first: what is written while the revocations are read is then seen twice rather than never.
        let version = self.store.version().await?;
        self.credentials.forget_all();
        for revocation in self.store.revocations(began).await? {
            self.registry.revoke(&revocation);
        }
        self.credentials.synced(began);
        Ok(version)
    }

    /// Brings memory into agreement with the store. When it returns, every change committed before the call is in force.
    ///
    /// # Errors
    /// The store's; memory stays as it was.
    pub async fn sync(&self) -> persist::Result<()> {
        let synced = self.try_sync().await;
        let was = self.reachable.swap(synced.is_ok(), Ordering::AcqRel);
        match &synced {
            Err(error) if was => tracing::error!(
                error = error as &dyn std::error::Error,
                "the store is away; tokens and credentials known before go on working"
            ),
            Ok(()) if !was => tracing::info!("the store is back"),
            _ => {}
        }
        synced
    }

    async fn try_sync(&self) -> persist::Result<()> {
        let mut version = self.version.lock().await;
        let began = self.clock.now();
        if self.store.version().await? != *version {
            match self.store.changes_since(*version).await? {
                Changes::List(changes, reached) => {
                    self.apply(&changes).await;
                    *version = reached;
                }
                Changes::Lost => {
                    tracing::warn!("the store's feed has a gap; everything is loaded anew");
                    *version = self.replay().await?;
                    self.keys_are_due.store(true, Ordering::Release);
                }
            }
        }
        // Once more a turn later: what was verified at that very moment was admitted only then.
        if self.keys_dropped.swap(false, Ordering::AcqRel) {
            self.registry.forget_all();
        }
        if self.keys_are_due.load(Ordering::Acquire) {
            self.reload_keys().await;
        }
        if self.ring.take_dropped() {
            self.registry.forget_all();
            self.keys_dropped.store(true, Ordering::Release);
        }
        self.credentials.synced(began);
        Ok(())
    }

    /// Forgets what changed, then puts the revocations into force: see [`Verifier::forget`] for this order.
    async fn apply(&self, changes: &[Change]) {
        self.credentials.forget(changes);
        for change in changes {
            if let Change::Revoked(revocation) = change {
                self.registry.revoke(revocation);
                let lag = self.clock.now().since(revocation.made_at);
                self.lag.fetch_max(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
                tracing::info!(target = %revocation.target, "revoked");
            }
        }
        if changes.contains(&Change::SigningKeys) {
            self.keys_are_due.store(true, Ordering::Release);
        }
    }

    /// Keys that cannot be loaded now are asked for again at every turn: the change of them is told once.
    async fn reload_keys(&self) {
        let loaded = self.ring.reload().await;
        let failed_before = self.keys_failed.swap(loaded.is_err(), Ordering::AcqRel);
        match loaded {
            Ok(()) => {
                self.keys_are_due.store(false, Ordering::Release);
                tracing::info!(kid = self.ring.active().kid(), "signing keys loaded");
            }
            Err(error) if !failed_before => tracing::error!(
                error = &error as &dyn std::error::Error,
                "changed signing keys cannot be used now; the old ones stay"
            ),
            Err(_) => {}
        }
    }

    /// Whether the store answered when it was last asked.
    pub fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Acquire)
    }

    /// When memory last agreed with the store.
    pub fn synced_at(&self) -> Timestamp {
        self.credentials.synced_at()
    }

    /// The longest lag of a revocation so far.
    pub fn lag(&self) -> Duration {
        Duration::from_millis(self.lag.load(Ordering::Relaxed))
    }
}

/// Follows for ever.
pub async fn follow(follower: Arc<Follower>, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep_until(clock.now() + EVERY).await;
        // A failure is logged and seen in readiness; the next turn tries again.
        let _ = follower.sync().await;
    }
}
