//! What an upstream does between requests, in one task: lets idle connections go, looks names up again, checks health. It
//! ends with the upstream.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::core::Core;
use super::health;

/// Every name is looked up again so often.
const LOOK_UP: Duration = Duration::from_secs(10);
/// The same while a target has no address at all.
const LOOK_UP_SOON: Duration = Duration::from_secs(1);
/// A lookup takes no longer.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(5);
/// The longest and the shortest time between two looks at what is to be done.
const TICK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Runs until the upstream is gone.
pub(super) async fn run(weak: Weak<Core>) {
    let mut lookup: Option<JoinHandle<()>> = None;
    let mut next_lookup = Instant::now();
    let mut next_check: Option<Instant> = None;
    loop {
        let tick = {
            let Some(core) = weak.upgrade() else { return };
            let now = Instant::now();
            for endpoint in core.endpoints.load().iter() {
                endpoint.pool.expire(now);
            }
            let has_names = core.targets.iter().any(|target| target.url.address().is_none());
            if has_names && now >= next_lookup && lookup.as_ref().is_none_or(JoinHandle::is_finished) {
                lookup = Some(tokio::spawn(look_up(Arc::clone(&core))));
                next_lookup = now + if core.lacks_addresses() { LOOK_UP_SOON } else { LOOK_UP };
            }
            let keep_alive = core.settings.keep_alive;
            let mut tick = if keep_alive.is_zero() { TICK.1 } else { keep_alive / 2 };
            if let Some(rules) = &core.settings.health {
                tick = tick.min(rules.interval);
                // The first check waits for the first addresses.
                let has_endpoints = !core.endpoints.load().is_empty();
                if has_endpoints && next_check.is_none_or(|at| now >= at) {
                    for endpoint in core.endpoints.load().iter() {
                        tokio::spawn(health::check(Arc::clone(endpoint)));
                    }
                    next_check = Some(now + rules.interval);
                }
            }
            tick.clamp(TICK.0, TICK.1)
        };
        tokio::time::sleep(tick).await;
    }
}

/// Looks all names up once, at the same time.
pub(super) async fn look_up(core: Arc<Core>) {
    let mut lookups = JoinSet::new();
    for (index, target) in core.targets.iter().enumerate() {
        if target.url.address().is_some() {
            continue;
        }
        let (core, target) = (Arc::clone(&core), Arc::clone(target));
        lookups.spawn(async move {
            let found = core.resolver.resolve(&target.url.host, target.url.port);
            let found = tokio::time::timeout(LOOK_UP_LIMIT, found).await;
            core.looked_up(index, found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())));
        });
    }
    while lookups.join_next().await.is_some() {}
    core.names_were_looked_up();
}
