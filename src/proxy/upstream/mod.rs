//! Upstreams: where an upstream's targets are, the connections to them, who gets a request, and who is well enough to. It
//! knows nothing of tokens, routes or what a request is about.
//!
//! A request comes with everything decided that is said to the target, except what depends on the connection. Its answer
//! holds a [`Lease`] until its content is over; then the connection serves the next request.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use axum::body::Body;
use http::{Request, Response};
use tokio::time::Instant;

use crate::ids::UpstreamId;

mod background;
mod balance;
mod connect;
mod core;
mod ejection;
mod endpoint;
mod error;
mod health;
mod lease;
mod pool;
mod pulse;
mod resolve;
mod retry;
mod send;
mod settings;
mod trust;

#[cfg(test)]
mod tests;

pub use connect::ConnectError;
pub use error::{SendError, UpstreamError};
pub use lease::{Lease, UpstreamBody};
pub use pulse::Pulse;
pub use resolve::{Resolve, SystemResolver};
pub use send::{SendLimits, WantsUpgrade};
pub use settings::{
    Balance, Ejection, HealthCheck, HostHeader, InvalidTarget, Protocol, TargetUrl, UpstreamSettings, UpstreamTls,
};

use self::connect::Connector;
use self::core::Core;
use self::endpoint::Target;
use self::trust::{Files, SystemRoots};

/// All upstreams of a configuration, by id.
#[derive(Debug)]
pub struct Upstreams {
    by_id: ArcSwap<HashMap<UpstreamId, Arc<Upstream>>>,
    resolver: Arc<dyn Resolve>,
    is_started: AtomicBool,
}

impl Upstreams {
    /// Upstreams as `settings` say. Reads the files that they name; opens no connection and needs no runtime yet.
    ///
    /// # Errors
    /// Everything that is wrong with those files.
    pub fn new(settings: &[UpstreamSettings]) -> Result<Self, Vec<UpstreamError>> {
        Self::with_resolver(settings, Arc::new(SystemResolver))
    }

    /// The same with another way to find addresses.
    ///
    /// # Errors
    /// As [`Upstreams::new`].
    pub fn with_resolver(
        settings: &[UpstreamSettings],
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, Vec<UpstreamError>> {
        let by_id = build(settings, &HashMap::new(), &resolver)?;
        Ok(Self { by_id: ArcSwap::from_pointee(by_id), resolver, is_started: AtomicBool::new(false) })
    }

    /// Begins to look names up and to check health, now and for whatever a reload brings. Without it an upstream begins
    /// with its first request. To be called in a runtime.
    pub fn start(&self) {
        self.is_started.store(true, Ordering::Release);
        for upstream in self.by_id.load().values() {
            upstream.start();
        }
    }

    /// Takes other settings. An upstream whose settings and files are unchanged goes on as it is; one that changed begins
    /// anew, and the old one ends with its last request. To be called in a runtime.
    ///
    /// # Errors
    /// Everything that is wrong with the files that the settings name; then nothing changes.
    pub fn reload(&self, settings: &[UpstreamSettings]) -> Result<(), Vec<UpstreamError>> {
        let by_id = build(settings, &self.by_id.load(), &self.resolver)?;
        self.by_id.store(Arc::new(by_id));
        if self.is_started.load(Ordering::Acquire) {
            self.start();
        }
        Ok(())
    }

    /// The upstream of that name.
    pub fn get(&self, id: &UpstreamId) -> Option<Arc<Upstream>> {
        self.by_id.load().get(id).cloned()
    }

    /// How all of them stand, by name.
    pub fn snapshots(&self) -> Vec<(UpstreamId, Snapshot)> {
        let mut all: Vec<_> =
            self.by_id.load().iter().map(|(id, upstream)| (id.clone(), upstream.snapshot())).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }
}

fn build(
    settings: &[UpstreamSettings],
    before: &HashMap<UpstreamId, Arc<Upstream>>,
    resolver: &Arc<dyn Resolve>,
) -> Result<HashMap<UpstreamId, Arc<Upstream>>, Vec<UpstreamError>> {
    let mut errors = Vec::new();
    let mut system = SystemRoots::default();
    let mut by_id = HashMap::new();
    for settings in settings {
        match Upstream::new(settings, before.get(&settings.id), resolver, &mut system) {
            Ok(upstream) => drop(by_id.insert(settings.id.clone(), upstream)),
            Err(faults) => errors.extend(faults),
        }
    }
    if errors.is_empty() { Ok(by_id) } else { Err(errors) }
}

/// One upstream at work.
#[derive(Debug)]
pub struct Upstream {
    core: Arc<Core>,
}

impl Upstream {
    fn new(
        settings: &UpstreamSettings,
        before: Option<&Arc<Self>>,
        resolver: &Arc<dyn Resolve>,
        system: &mut SystemRoots,
    ) -> Result<Arc<Self>, Vec<UpstreamError>> {
        let files = Files::read(settings)?;
        let fingerprint = files.fingerprint();
        if let Some(before) = before
            && *before.core.settings == *settings
            && before.core.fingerprint == fingerprint
        {
            return Ok(Arc::clone(before));
        }
        let targets = settings.targets.iter().map(|url| Target::new(url).map(Arc::new).ok_or(url));
        let targets = targets.collect::<Result<_, _>>().map_err(|url| {
            let problem = format!("the target {url} is neither a host name nor an address; correct it");
            vec![UpstreamError { upstream: settings.id.clone(), path: None, problem }]
        })?;
        let connector = Connector { tls: files.tls(settings, system)?, timeout: settings.connect_timeout };
        let core = Core::new(settings.clone(), targets, connector, fingerprint, Arc::clone(resolver));
        Ok(Arc::new(Self { core: Arc::new(core) }))
    }

    fn start(&self) {
        // Reads first: this is asked for every request.
        let started = &self.core.is_started;
        if !started.load(Ordering::Relaxed) && !started.swap(true, Ordering::AcqRel) {
            tokio::spawn(background::run(Arc::downgrade(&self.core)));
        }
    }

    /// Sends a request and waits for the head of its answer. The request's URI is in origin form; its `Host` is decided by
    /// the caller, unless the settings say that it is the target's. `affinity` stands for the account. A 5xx is an answer.
    ///
    /// # Errors
    /// Why there is no answer; attempts anew were made as far as they were safe and allowed.
    pub async fn send(
        &self,
        request: Request<Body>,
        affinity: u64,
        limits: SendLimits,
    ) -> Result<Response<UpstreamBody>, SendError> {
        self.start();
        self.core.send(request, affinity, limits).await
    }

    /// What it was made of.
    pub fn settings(&self) -> &UpstreamSettings {
        &self.core.settings
    }

    /// How it stands.
    pub fn snapshot(&self) -> Snapshot {
        let counters = &self.core.counters;
        let now = Instant::now();
        let mut snapshot = Snapshot {
            in_flight: counters.in_flight.load(Ordering::Relaxed),
            connections: counters.connections.load(Ordering::Relaxed),
            retries: counters.retries.load(Ordering::Relaxed),
            ejections: counters.ejections.load(Ordering::Relaxed),
            ..Snapshot::default()
        };
        for endpoint in self.core.endpoints.load().iter() {
            *match (endpoint.is_healthy(), endpoint.share(|| now)) {
                (false, _) => &mut snapshot.unhealthy,
                (true, 100) => &mut snapshot.available,
                (true, 0) => &mut snapshot.ejected,
                (true, _) => &mut snapshot.returning,
            } += 1;
        }
        snapshot
    }
}

/// How an upstream stands at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests under way, and tunnels.
    pub in_flight: usize,
    /// Connections that are not closed, those of tunnels and of former addresses too.
    pub connections: usize,
    /// Attempts anew since it began.
    pub retries: u64,
    /// How often an address was put out since it began.
    pub ejections: u64,
    /// Addresses that nothing is amiss with.
    pub available: usize,
    /// Addresses on their way back to their whole share.
    pub returning: usize,
    /// Addresses that are put out because requests failed.
    pub ejected: usize,
    /// Addresses that active checks found unhealthy.
    pub unhealthy: usize,
}
