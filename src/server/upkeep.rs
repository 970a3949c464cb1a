//! What is done beside the requests, in turn and for ever: rolled keys are finished, last uses written, and what counts no more is
//! dropped. None of it is waited for, and what fails is done the next time.

use std::sync::Arc;
use std::time::Duration;

use super::dispatch::Doors;
use crate::access::Gate;
use crate::clock::{Clock, Timestamp};
use crate::credentials::Verifier;
use crate::keys;
use crate::persist;
use crate::registry::Registry;
use crate::store::SharedStore;

/// How often what counts no more is dropped.
const CLEAN: Duration = Duration::from_secs(60);

/// How often old secrets that have ended are looked for. They open nothing any more by then: it is for the tokens from before.
const FINISH: Duration = Duration::from_secs(1);

/// How often it is written when keys were last used.
const STAMP: Duration = Duration::from_secs(5);

/// Finishes what rolled keys have left to finish.
pub(super) async fn keep_rolled(keys: keys::Operations, clock: Arc<dyn Clock>) {
    let mut failed_before = false;
    loop {
        clock.sleep_until(clock.now() + FINISH).await;
        let finished = keys.finish_due().await;
        match &finished {
            Ok(finished) => {
                finished.iter().for_each(|id| tracing::info!(key.id = %id, "the old secret of a key has ended"));
            }
            Err(error) if !failed_before => {
                tracing::warn!(error = error as &dyn std::error::Error, "ended secrets stay in the store for now");
            }
            Err(_) => {}
        }
        failed_before = finished.is_err();
    }
}

/// Writes when keys were last used. Nobody waits for it but the end of the gateway.
pub(super) async fn keep_stamped(store: SharedStore, credentials: Arc<Verifier>, clock: Arc<dyn Clock>) {
    let mut failed_before = false;
    loop {
        clock.sleep_until(clock.now() + STAMP).await;
        failed_before = stamp(&store, &credentials, clock.now(), failed_before).await.is_err();
    }
}

/// Writes what was noted so far. A failure is logged, unless it `is_told` already.
pub(super) async fn stamp(
    store: &SharedStore,
    credentials: &Verifier,
    now: Timestamp,
    is_told: bool,
) -> persist::Result<usize> {
    credentials.uses().write(&**store, now).await.inspect_err(|error| {
        if !is_told {
            tracing::warn!(error = error as &dyn std::error::Error, "when keys were last used is written later");
        }
    })
}

/// Once a minute, drops what counts no more.
pub(super) async fn clean(
    store: SharedStore,
    clock: Arc<dyn Clock>,
    registry: Arc<Registry>,
    credentials: Arc<Verifier>,
    gate: Arc<Gate>,
    doors: Arc<Doors>,
) {
    loop {
        clock.sleep_until(clock.now() + CLEAN).await;
        let now = clock.now();
        registry.revocations().forget(now);
        credentials.forget_failures();
        gate.forget_clients();
        doors.token.forget_clients();
        doors.roller.forget_accounts();
        if let Err(error) = store.forget_counts(now).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "what plans counted stays in the store for now");
        }
        if let Err(error) = store.forget(now).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "old revocations stay in the store for now");
        }
    }
}
