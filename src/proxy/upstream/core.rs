//! What an upstream is made of, and the choice of an endpoint for a request. Owned by [`Upstream`](super::Upstream); what
//! runs in the background holds it weakly.

use std::cell::LazyCell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::balance::{Draw, choose, mix};
use super::connect::Connector;
use super::endpoint::{Counters, Endpoint, Target};
use super::resolve::Resolve;
use super::retry::Budget;
use super::settings::{Balance, UpstreamSettings};
use crate::random;

/// A running upstream.
#[derive(Debug)]
pub(super) struct Core {
    pub settings: Arc<UpstreamSettings>,
    pub counters: Arc<Counters>,
    pub budget: Budget,
    pub resolver: Arc<dyn Resolve>,
    pub targets: Vec<Arc<Target>>,
    /// All addresses of all targets.
    pub endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// What the files that the settings name had in them.
    pub fingerprint: [u8; 32],
    pub is_started: AtomicBool,
    /// Whether every name was looked up once.
    resolved: watch::Sender<bool>,
    known: Mutex<Vec<Known>>,
    connector: Arc<Connector>,
    turn: AtomicU64,
    seed: u64,
}

/// What is known of a target's name.
#[derive(Debug, Clone, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    is_failing: bool,
}

impl Core {
    pub fn new(
        settings: UpstreamSettings,
        targets: Vec<Arc<Target>>,
        connector: Connector,
        fingerprint: [u8; 32],
        resolver: Arc<dyn Resolve>,
    ) -> Self {
        let literal = |target: &Arc<Target>| {
            let address = target.url.address().map(|address| SocketAddr::new(address, target.url.port));
            Known { addresses: address.into_iter().collect(), is_failing: false }
        };
        let core = Self {
            budget: Budget::new(settings.retry_budget, Instant::now()),
            settings: Arc::new(settings),
            counters: Arc::default(),
            resolver,
            endpoints: ArcSwap::default(),
            fingerprint,
            is_started: AtomicBool::new(false),
            resolved: watch::Sender::new(targets.iter().all(|target| target.url.address().is_some())),
            known: Mutex::new(targets.iter().map(literal).collect()),
            targets,
            connector: Arc::new(connector),
            turn: AtomicU64::new(0),
            seed: u64::from_ne_bytes(random::bytes()),
        };
        core.rebuild(&core.known.lock().unwrap_or_else(PoisonError::into_inner));
        core
    }

    /// Waits until the names were looked up, if no target has an address yet.
    pub async fn have_addresses(&self) {
        if self.endpoints.load().is_empty() && !*self.resolved.borrow() {
            let mut resolved = self.resolved.subscribe();
            let looked_up = resolved.wait_for(|resolved| *resolved);
            // Whoever waits too long finds no endpoint, and is told so.
            drop(tokio::time::timeout(self.settings.connect_timeout, looked_up).await);
        }
    }

    /// Every name was looked up once, however that went.
    pub fn names_were_looked_up(&self) {
        self.resolved.send_replace(true);
    }

    /// Whether a target has no address at all, so that it is worth asking again soon.
    pub fn lacks_addresses(&self) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|known| known.addresses.is_empty())
    }

    /// A target's name was looked up. Addresses that are gone get no requests any more; when nothing was found, all stays.
    pub fn looked_up(&self, target: usize, found: std::io::Result<Vec<SocketAddr>>) {
        let found = found.and_then(|mut addresses| {
            addresses.sort_unstable();
            addresses.dedup();
            if addresses.is_empty() { Err(std::io::Error::other("it has no address")) } else { Ok(addresses) }
        });
        let url = &self.targets[target].url;
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut all[target];
        match found {
            Err(error) => {
                // Said once, not every ten seconds.
                if !std::mem::replace(&mut known.is_failing, true) {
                    let kept = known.addresses.len();
                    tracing::warn!(upstream = %self.settings.id, target = %url, %error, kept,
                        "the addresses of a target cannot be found; those that are known stay in use");
                }
            }
            Ok(addresses) => {
                known.is_failing = false;
                if addresses != known.addresses {
                    tracing::info!(upstream = %self.settings.id, target = %url, ?addresses, "a target's addresses");
                    known.addresses = addresses;
                    self.rebuild(&all);
                }
            }
        }
    }

    /// Makes the endpoints anew of what is known. Those that stay keep their connections and their standing.
    fn rebuild(&self, known: &[Known]) {
        let before = self.endpoints.load_full();
        let mut now: Vec<Arc<Endpoint>> = Vec::new();
        for (target, known) in self.targets.iter().zip(known) {
            for address in &known.addresses {
                let is_it =
                    |endpoint: &&Arc<Endpoint>| endpoint.address == *address && endpoint.target.url == target.url;
                if now.iter().any(|endpoint| is_it(&endpoint)) {
                    continue;
                }
                now.push(before.iter().find(is_it).cloned().unwrap_or_else(|| {
                    let (settings, connector) = (&self.settings, &self.connector);
                    Arc::new(Endpoint::new(target, *address, settings, connector, &self.counters))
                }));
            }
        }
        let gone = |endpoint: &&Arc<Endpoint>| !now.iter().any(|stays| Arc::ptr_eq(stays, endpoint));
        let gone: Vec<_> = before.iter().filter(gone).cloned().collect();
        self.endpoints.store(Arc::new(now));
        for endpoint in gone {
            endpoint.pool.close();
        }
    }

    /// A request's turn. It keeps it in all its attempts: if each took one, then of two targets a failing one would come
    /// first for every request.
    pub fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// An endpoint for a request, none of those that were `tried`. Those that are put out are used only when there are no
    /// others: some of what they do may still go well, and without them all of it fails. Those that fail active checks are
    /// never used.
    pub fn choose(&self, turn: u64, affinity: u64, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        let all = self.endpoints.load();
        let draw = Draw { turn, chance: mix(self.seed ^ turn), affinity };
        let now = LazyCell::new(Instant::now);
        let may = |i: usize| all[i].is_healthy() && !tried.iter().any(|tried| Arc::ptr_eq(tried, &all[i]));
        let share = |i: usize| all[i].share(|| *now);
        // One that returns takes part in some of the choices. By account, so that accounts come back one after the other,
        // and stay.
        let dice = if self.settings.balance == Balance::Account { affinity } else { draw.chance };
        let takes_part = |i: usize| match share(i) {
            100 => true,
            0 => false,
            share => mix(dice ^ all[i].key.rotate_left(32)) % 100 < u64::from(share),
        };
        let pick = |part: &dyn Fn(usize) -> bool| {
            let load = |i: usize| all[i].in_flight.load(Ordering::Relaxed);
            choose(self.settings.balance, all.len(), draw, part, load, |i| all[i].key)
        };
        let chosen =
            pick(&|i| may(i) && takes_part(i)).or_else(|| pick(&|i| may(i) && share(i) > 0)).or_else(|| pick(&may))?;
        Some(Arc::clone(&all[chosen]))
    }
}

impl Drop for Core {
    /// What is idle is closed at once; requests under way keep what they need until they end.
    fn drop(&mut self) {
        for endpoint in self.endpoints.load().iter() {
            endpoint.pool.close();
        }
    }
}
