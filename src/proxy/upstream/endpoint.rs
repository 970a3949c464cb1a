//! One address of one target: its connections, what is in flight there, and how it stands.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderValue;
use http::uri::Authority;
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use super::balance::stable_hash;
use super::connect::{Connector, Wanted};
use super::ejection::Standing;
use super::health::Health;
use super::pool::{Origin, Pool};
use super::settings::{Protocol, TargetUrl, UpstreamSettings};

/// A target as it is named in the settings, in the forms that requests need.
#[derive(Debug)]
pub(super) struct Target {
    pub url: TargetUrl,
    pub host: HeaderValue,
    pub authority: Authority,
    /// The name that is asked for over TLS.
    name: Option<ServerName<'static>>,
}

impl Target {
    /// `None` when its host is nothing that could stand in a request.
    pub fn new(url: &TargetUrl) -> Option<Self> {
        let authority = url.authority();
        let name = if url.tls { Some(ServerName::try_from(url.host.to_string()).ok()?) } else { None };
        Some(Self {
            url: url.clone(),
            host: HeaderValue::from_str(&authority).ok()?,
            authority: authority.parse().ok()?,
            name,
        })
    }
}

/// What is counted of an upstream as a whole.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub in_flight: AtomicUsize,
    pub connections: Arc<AtomicUsize>,
    pub retries: AtomicU64,
    pub ejections: AtomicU64,
}

/// One address of one target.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub target: Arc<Target>,
    pub address: SocketAddr,
    pub settings: Arc<UpstreamSettings>,
    pub pool: Pool,
    /// The same in every process, for whoever must find the same endpoint.
    pub key: u64,
    pub in_flight: AtomicUsize,
    pub being_checked: AtomicBool,
    counters: Arc<Counters>,
    is_healthy: AtomicBool,
    health: Mutex<Health>,
    /// Something is to be asked of `standing` before it is used.
    is_impaired: AtomicBool,
    /// Something is to be told `standing` when a request succeeds.
    has_failed: AtomicBool,
    standing: Mutex<Standing>,
}

impl Endpoint {
    pub fn new(
        target: &Arc<Target>,
        address: SocketAddr,
        settings: &Arc<UpstreamSettings>,
        connector: &Arc<Connector>,
        counters: &Arc<Counters>,
    ) -> Self {
        let pool = Pool::new(Origin {
            address,
            name: target.name.clone(),
            connector: Arc::clone(connector),
            open: Arc::clone(&counters.connections),
            keep_alive: settings.keep_alive,
        });
        Self {
            target: Arc::clone(target),
            address,
            settings: Arc::clone(settings),
            pool,
            key: stable_hash(&format!("{} {address}", target.url)),
            in_flight: AtomicUsize::new(0),
            being_checked: AtomicBool::new(false),
            counters: Arc::clone(counters),
            is_healthy: AtomicBool::new(true),
            health: Mutex::default(),
            is_impaired: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            standing: Mutex::default(),
        }
    }

    /// What a request's connection must speak. An upgrade is a thing of HTTP/1.1 alone (RFC 9113 §8.6).
    pub fn wanted(&self, upgrade: bool) -> Wanted {
        match self.settings.protocol {
            _ if upgrade => Wanted::Http1,
            Protocol::Http1 => Wanted::Http1,
            Protocol::Http2 => Wanted::Http2,
            Protocol::Auto if self.target.url.tls => Wanted::Either,
            Protocol::Auto => Wanted::Http1,
        }
    }

    /// Whether active checks say nothing against it.
    pub fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }

    /// Its share of requests in percent; asks for the time only when something is amiss.
    pub fn share(&self, now: impl FnOnce() -> Instant) -> u8 {
        if !self.is_impaired.load(Ordering::Relaxed) {
            return 100;
        }
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let share = standing.share(now(), &self.settings.ejection);
        if share == 100 {
            self.is_impaired.store(false, Ordering::Relaxed);
            tracing::info!(upstream = %self.settings.id, target = %self.target.url, address = %self.address,
                "a target that was left out has its whole share again");
        }
        share
    }

    /// A request was answered to its end.
    pub fn succeeded(&self) {
        if self.has_failed.load(Ordering::Relaxed) {
            let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
            self.has_failed.store(false, Ordering::Relaxed);
            standing.succeeded();
        }
    }

    /// A request failed, and the endpoint is to blame.
    pub fn failed(&self, why: &str) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_failed.store(true, Ordering::Relaxed);
        if let Some(time) = standing.failed(Instant::now(), &self.settings.ejection) {
            self.is_impaired.store(true, Ordering::Relaxed);
            drop(standing);
            self.counters.ejections.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(upstream = %self.settings.id, target = %self.target.url, address = %self.address,
                seconds = time.as_secs(), reason = why, "a target failed repeatedly and is left out");
        }
    }

    /// An active check has ended.
    pub fn checked(&self, outcome: Result<(), String>) {
        let Some(rules) = &self.settings.health else { return };
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(is_good) = health.checked(outcome.is_ok(), rules) else { return };
        self.is_healthy.store(is_good, Ordering::Relaxed);
        match outcome {
            Ok(()) => tracing::info!(upstream = %self.settings.id, target = %self.target.url, address = %self.address,
                "a target is healthy again"),
            Err(reason) => tracing::warn!(upstream = %self.settings.id, target = %self.target.url,
                address = %self.address, reason, "a target is not healthy and gets no requests"),
        }
    }
}
