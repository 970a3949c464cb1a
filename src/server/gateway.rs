//! The running gateway: started, reloaded and ended as a whole.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tower::ServiceBuilder;
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;

use super::accept::{ProxiedDoor, TlsDoor};
use super::certificates::Certificates;
use super::connection::Connections;
use super::counts::CountWriter;
use super::dispatch::{Dispatch, Doors};
use super::exposure::Exposure;
use super::follow::{Follower, follow};
use super::front::{Arrivals, Desk, Front, Site};
use super::health::Health;
use super::listeners::{Addresses, Listeners, Running, Stack};
use super::observe;
use super::openapi::Descriptions;
use super::reload::fixed_settings;
use super::start::StartError;
use super::time_watch::TimeWatch;
use super::unix::Socket;
use super::upkeep::{clean, keep_rolled, keep_stamped, stamp};
use crate::access::{Gate, Quotas, Refusals, RequireAccess};
use crate::client_addr::TrustedProxies;
use crate::clock::Clock;
use crate::config::Config;
use crate::credentials::{Stores, Verifier};
use crate::forward_auth::ForwardAuth;
use crate::ids::PlanId;
use crate::keys;
use crate::licences::Documents;
use crate::me::{MyUsage, Roller};
use crate::notices::{Notifier, keep_noticed};
use crate::oauth::{
    Clients, IntrospectionEndpoint, Metadata, QuestionParts, Questions, RevocationEndpoint, TokenEndpoint, TokenParts,
};
use crate::plans::{Meters, keep_written};
use crate::portal::Portal;
use crate::proxy::Proxy;
use crate::proxy::upstream::{UpstreamError, UpstreamSettings};
use crate::registry::{Evictions, Registry, keep_swept};
use crate::repositories::{self, Repositories};
use crate::resources::{Demo, PublishedSite};
use crate::revocations;
use crate::routes::{BuiltIns, RouteSettings, RouteTable};
use crate::signing::{KeyRing, keep_rotated};
use crate::store::SharedStore;
use crate::telemetry::{Metrics, RequestLog, Sink};
use crate::tokens::{self, Issuer};
use crate::usage::{self, Ledger, keep_flushed};
use crate::webhook::Webhook;

/// How long an upstream that a reload took away is kept for the requests that were decided before.
const LINGER: Duration = Duration::from_secs(1);

/// A running gateway. When it is dropped without [`Gateway::shut_down`], it ends at once.
pub struct Gateway {
    addresses: Addresses,
    local_authority: Option<PathBuf>,
    config: Mutex<Config>,
    handles: Vec<Handle<SocketAddr>>,
    socket: Option<Socket>,
    servers: Vec<JoinHandle<std::io::Result<()>>>,
    tasks: Vec<JoinHandle<()>>,
    desk: Arc<Desk>,
    connections: Arc<Connections>,
    credentials: Arc<Verifier>,
    keys: keys::Operations,
    store: SharedStore,
    gate: Arc<Gate>,
    doors: Arc<Doors>,
    follower: Arc<Follower>,
    registry: Arc<Registry>,
    certificates: Arc<Certificates>,
    time: Arc<TimeWatch>,
    counts: CountWriter,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Starts everything. When it returns, requests are answered; when it fails, nothing is left behind.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        config: &Config,
        store: SharedStore,
        clock: Arc<dyn Clock>,
        sink: Option<&Sink>,
    ) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::default());
        let certificates = Arc::new(Certificates::open(config, &clock).await.map_err(StartError::Tls)?);
        let longest_token = config.longest_token();
        let ring = KeyRing::load(&config.signing, longest_token, Arc::clone(&store) as _, Arc::clone(&clock)).await?;
        let ring = Arc::new(ring);
        let registry = Arc::new(Registry::new(config.tokens.max_live).with_leeway(config.tokens.leeway));
        let documents = Arc::new(Documents::new(&config.licences));
        let credentials = Arc::new(
            Verifier::start(
                &config.credentials,
                &config.key_prefix,
                config.demo.enabled,
                Stores {
                    accounts: Arc::clone(&store) as _,
                    keys: Arc::clone(&store) as _,
                    licences: Arc::clone(&store) as _,
                    groups: Arc::clone(&store) as _,
                },
                Arc::clone(registry.revocations()),
                Arc::clone(&clock),
            )
            .map_err(StartError::Hash)?
            .with_documents(Arc::clone(&documents)),
        );
        credentials.set_plans(plan_ids(config));
        let time = Arc::new(TimeWatch::start(Arc::clone(&documents), Arc::clone(&store), Arc::clone(&clock)).await?);
        let follower = Arc::new(
            Follower::start(
                Arc::clone(&store),
                Arc::clone(&credentials),
                Arc::clone(&registry),
                Arc::clone(&ring),
                Arc::clone(&clock),
            )
            .await?,
        );
        let webhook = config.webhook.as_ref().map(Webhook::new).transpose().map_err(StartError::Webhook)?;
        let notifier = Notifier::new(
            &config.notices,
            Arc::clone(&store) as _,
            webhook.map(|webhook| Arc::new(webhook) as _),
            Arc::clone(&clock),
        );
        let listeners = Listeners::bind(config).await?;
        let issuer = Arc::new(Issuer::new(&config.tokens, &config.key_prefix, Arc::clone(&ring)));
        // What was used up before is used up still.
        let meters = Arc::new(Meters::new(&config.quotas, store.counts(clock.now()).await?));
        let quotas =
            Quotas::new(Arc::clone(&meters), &config.plans, config.demo.plan.as_ref(), config.quotas.legacy_fields);
        let gate = Gate::new(
            Arc::clone(&registry),
            tokens::Verifier::new(&config.tokens, Arc::clone(&ring)),
            &config.demo,
            Arc::clone(&clock),
        );
        let gate = Arc::new(gate.with_quotas(Arc::new(quotas)));
        let site = PublishedSite {
            base_url: base_url(&config.tokens.issuer, listeners.addresses.https),
            ca_file: certificates.local_authority().map(|path| path.display().to_string()),
        };
        let metadata = Metadata::new(&site.base_url, &config.tokens);
        let descriptions = Descriptions::new(config, &site.base_url);
        let refusals = Arc::new(Refusals::new(&config.access, Some(metadata.resource_url())));
        let proxy = Proxy::new(
            &config.upstreams,
            Arc::clone(&gate),
            Arc::clone(&refusals),
            config.access.stream_grace,
            &config.key_prefix,
        );
        let proxy = Arc::new(proxy.map_err(StartError::Upstreams)?);
        let forward_auth = config.forward_auth.as_ref().map(|settings| {
            ForwardAuth::new(settings, Arc::clone(&gate), Arc::clone(&refusals), config.key_prefix.clone())
        });
        let exposure = Arc::new(Exposure::new(
            config.server.plaintext_credentials,
            Arc::clone(&credentials),
            tokens::Verifier::new(&config.tokens, Arc::clone(&ring)),
            &store,
            Arc::clone(&follower),
            Arc::clone(&metrics),
            Arc::clone(&clock),
        ));
        let clients = Arc::new(Clients::new(Arc::clone(&credentials), &config.access.realm));
        let questions = Arc::new(Questions::new(QuestionParts {
            clients: Arc::clone(&clients),
            gate: Arc::clone(&gate),
            refusals: Arc::clone(&refusals),
            body_bytes: config.limits.body_bytes,
            body_timeout: config.limits.body_timeout,
        }));
        let revocations = revocations::Operations::new(
            Arc::clone(&store) as _,
            Arc::clone(&store) as _,
            Arc::clone(&store) as _,
            Arc::clone(&clock),
        );
        let repositories = config
            .image_registry
            .as_ref()
            .map(|settings| Repositories::new(settings, repositories::Issuer::new(&config.tokens, Arc::clone(&ring))));
        let keys = keys::Operations::new(
            Arc::clone(&store) as _,
            Arc::clone(&store) as _,
            Arc::clone(&store) as _,
            Arc::clone(&clock),
            config.key_prefix.clone(),
        )
        .with_documents(Arc::clone(&documents));
        let token_parts = TokenParts {
            clients,
            issuer: Arc::clone(&issuer),
            repositories,
            registry: Arc::clone(&registry),
            metrics: Arc::clone(&metrics),
            clock: Arc::clone(&clock),
        };
        let counts = CountWriter {
            ledger: Arc::new(Ledger::new(&config.usage, Arc::clone(&clock))),
            usage: Arc::clone(&store) as _,
            meters,
            counts: Arc::clone(&store) as _,
            clock: Arc::clone(&clock),
        };
        let my_usage = usage::Operations::new(Arc::clone(&counts.usage), Arc::clone(&clock))
            .with_ledger(Arc::clone(&counts.ledger));
        let key_mark = format!("{}_", config.key_prefix.as_str());
        let portal = Portal::new(site.clone(), &key_mark, &config.access, &config.tokens)
            .signed_by(config.signing.algorithm.as_str());
        let demo =
            Demo::new(&config.demo, site, Arc::clone(&credentials), issuer, Arc::clone(&registry), Arc::clone(&clock));
        let doors = Arc::new(Doors {
            token: Arc::new(TokenEndpoint::new(token_parts, &config.demo)),
            introspection: IntrospectionEndpoint::new(Arc::clone(&questions)),
            revocation: RevocationEndpoint::new(questions, revocations, Arc::clone(&registry)),
            roller: Roller::new(keys.clone(), Arc::clone(&credentials), Arc::clone(&clock), &config.key_prefix),
            metadata,
            demo: Arc::new(demo),
            portal,
            descriptions,
            ring,
            health: Arc::new(Health::new(Arc::clone(&follower), Arc::clone(&time))),
            gate: Arc::clone(&gate),
            metrics: Arc::clone(&metrics),
            proxy,
            forward_auth,
            usage: Arc::new(MyUsage::new(my_usage, config.key_prefix.clone())),
            exposure: Arc::clone(&exposure),
            key_mark,
            body_bytes: config.limits.body_bytes,
            body_timeout: config.limits.body_timeout,
            request_timeout: config.limits.request_timeout,
        });
        let log = sink
            .filter(|_| config.logging.requests)
            .map(|sink| RequestLog::new(sink.clone(), config.logging.format, config.key_prefix.as_str()));
        let desk = |table| {
            let site = Site::new(table, &metrics);
            let (bytes, ledger) = (config.limits.header_bytes, Arc::clone(&counts.ledger));
            Arc::new(Desk::new(site, log.clone(), Arc::clone(&metrics), ledger, Arc::clone(&clock), bytes))
        };
        let main_desk = desk(route_table(&config.routes, config));
        let admin_desk = desk(RouteTable::admin());
        let connections = Arc::new(Connections::new(&config.limits, Arc::clone(&metrics)));

        let stack: Stack = ServiceBuilder::new()
            .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION]))
            .layer(RequireAccess::new(Arc::clone(&gate), refusals))
            .service(Dispatch::new(Arc::clone(&doors)));
        let entrance = |desk: &Arc<Desk>, arrivals| {
            Front::new(stack.clone(), Arc::clone(desk), arrivals).entrance(Arc::clone(&connections))
        };
        let door = TlsDoor::new(
            certificates.serving().clone(),
            config.limits.handshake_timeout,
            Arc::clone(&exposure),
            Arc::clone(&metrics),
        );
        let Listeners { addresses, https, admin, behind_proxy, grpc, socket } = listeners;
        let mut running = Running { limits: &config.limits, handles: vec![], servers: vec![] };
        running.serve(https, door.clone(), entrance(&main_desk, Arrivals::Direct));
        running.serve(admin, door.clone(), entrance(&admin_desk, Arrivals::Direct));
        if let Some(listener) = grpc {
            running.serve(listener, door, entrance(&main_desk, Arrivals::Questions));
        }
        let socket = socket.map(|bound| running.serve_unix(bound, entrance(&main_desk, Arrivals::Questions)));
        if let (Some(listener), Some(settings)) = (behind_proxy, &config.server.behind_proxy) {
            let trusted = Arc::new(TrustedProxies::new(&settings.trusted));
            running.serve(
                listener,
                ProxiedDoor,
                entrance(&main_desk, Arrivals::Proxied(trusted, settings.header, exposure)),
            );
        }
        let Running { handles, servers, .. } = running;
        let gateway = Self {
            addresses,
            local_authority: certificates.local_authority(),
            config: Mutex::new(config.clone()),
            handles,
            socket,
            servers,
            tasks: vec![],
            desk: main_desk,
            connections,
            credentials,
            keys,
            store: Arc::clone(&store),
            gate,
            doors,
            follower,
            registry,
            certificates,
            time,
            counts,
        };
        gateway.observe(sink);
        Ok(gateway.with_tasks(&store, &clock, notifier))
    }

    /// Starts what runs beside the requests.
    fn with_tasks(mut self, store: &SharedStore, clock: &Arc<dyn Clock>, notifier: Notifier) -> Self {
        self.tasks = vec![
            tokio::spawn(keep_swept(Arc::clone(&self.registry), Arc::clone(clock))),
            tokio::spawn(follow(Arc::clone(&self.follower), Arc::clone(clock))),
            tokio::spawn(keep_rotated(Arc::clone(&self.doors.ring))),
            tokio::spawn(Arc::clone(&self.certificates).keep_fresh(Arc::clone(clock))),
            tokio::spawn(Arc::clone(&self.doors.proxy).watch()),
            tokio::spawn(Arc::clone(&self.time).keep()),
            tokio::spawn(keep_noticed(Arc::new(notifier))),
            tokio::spawn(keep_flushed(Arc::clone(&self.counts.ledger), Arc::clone(&self.counts.usage))),
            tokio::spawn(keep_written(
                Arc::clone(&self.counts.meters),
                Arc::clone(&self.counts.counts),
                Arc::clone(clock),
            )),
            tokio::spawn(keep_rolled(self.keys.clone(), Arc::clone(clock))),
            tokio::spawn(keep_stamped(Arc::clone(store), Arc::clone(&self.credentials), Arc::clone(clock))),
            tokio::spawn(clean(
                Arc::clone(store),
                Arc::clone(clock),
                Arc::clone(&self.registry),
                Arc::clone(&self.credentials),
                Arc::clone(&self.gate),
                Arc::clone(&self.doors),
            )),
        ];
        self
    }

    /// Adds the values that are read when the metrics are.
    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is more than we hold")]
    fn observe(&self, sink: Option<&Sink>) {
        let metrics = &self.doors.metrics;
        let registry = || Arc::clone(&self.registry);
        let (of, evictions) =
            (registry(), |registry: Arc<Registry>, which: fn(Evictions) -> u64| move || which(registry.evictions()));
        metrics.gauge("registry_tokens", "Live tokens in memory", move || of.len() as f64);
        let on_read = evictions(registry(), |evictions| evictions.on_read);
        metrics.counter("registry_evicted_on_read", "Tokens found expired when presented", on_read);
        let swept = evictions(registry(), |evictions| evictions.swept);
        metrics.counter("registry_evicted_by_sweep", "Tokens found expired by the sweeper", swept);
        let for_room = evictions(registry(), |evictions| evictions.for_room);
        metrics.counter("registry_evicted_for_room", "Tokens evicted because tokens.max_live was reached", for_room);
        let revoked = evictions(registry(), |evictions| evictions.revoked);
        metrics.counter("registry_evicted_revoked", "Tokens found revoked when presented", revoked);
        let of = registry();
        metrics.gauge("revocations", "Revocations in force", move || of.revocations().len() as f64);
        let of = Arc::clone(&self.credentials);
        metrics
            .gauge("credentials_remembered", "Credentials verified before", move || of.remembered_credentials() as f64);
        let of = Arc::clone(&self.follower);
        let help = "Longest time from a revocation's decision to its being in force here";
        metrics.gauge("revocation_lag_seconds", help, move || of.lag().as_secs_f64());
        let of = Arc::clone(&self.follower);
        metrics.gauge("store_reachable", "Whether the store answered when last asked", move || {
            f64::from(u8::from(of.is_reachable()))
        });
        observe::proxy(metrics, &self.doors.proxy);
        observe::usage(metrics, &self.counts.ledger);
        observe::plans(metrics, &self.counts.meters);
        let of = Arc::clone(&self.certificates);
        metrics.gauge("certificate_expiry_timestamp_seconds", "When the certificate in force ends", move || {
            of.not_after().secs() as f64
        });
        if let Some(of) = sink.cloned() {
            metrics.counter("log_lines_dropped", "Log lines that nobody took", move || of.dropped());
        }
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The certificate that clients have to trust, when it is that of the local authority.
    pub fn local_authority(&self) -> Option<&PathBuf> {
        self.local_authority.as_ref()
    }

    /// The Demo group.
    pub fn demo(&self) -> &Arc<Demo> {
        &self.doors.demo
    }

    /// What follows the store.
    pub fn follower(&self) -> &Arc<Follower> {
        &self.follower
    }

    /// The live tokens.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The reverse proxy.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.doors.proxy
    }

    /// What was counted, and where it is written: for whoever ends this gateway without its help.
    pub fn counts(&self) -> &CountWriter {
        &self.counts
    }

    /// How many credentials are remembered as right.
    pub fn remembered_credentials(&self) -> usize {
        self.credentials.remembered_credentials()
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.connections.open()
    }

    /// Puts another configuration into force, as far as that goes without a restart: routes, rates, limits of connections,
    /// certificates, upstreams. Returns the settings that changed and need a restart.
    ///
    /// # Errors
    /// What cannot be used of the new upstreams; then nothing has changed.
    pub async fn reload(&self, new: &Config) -> Result<Vec<&'static str>, Vec<UpstreamError>> {
        let mut config = self.config.lock().await;
        let upstreams = self.doors.proxy.upstreams();
        // Requests that are decided by the old routes must find where they lead, until there are none any more.
        let is_gone = |old: &&UpstreamSettings| new.upstreams.iter().all(|upstream| upstream.id != old.id);
        let gone: Vec<UpstreamSettings> = config.upstreams.iter().filter(is_gone).cloned().collect();
        // Made before either is in force: what an upstream's name leads to must not change long before who may go there.
        let site =
            (new.routes != config.routes).then(|| Site::new(route_table(&new.routes, &config), &self.doors.metrics));
        upstreams.reload(&[new.upstreams.as_slice(), &gone].concat())?;
        if let Some(quotas) = self.gate.quotas() {
            quotas.set(&new.plans, new.demo.plan.as_ref());
        }
        if let Some(site) = site {
            self.desk.replace(site);
        }
        if let (Some(door), Some(settings)) = (&self.doors.forward_auth, &new.forward_auth) {
            door.trust(settings);
        }
        if let (Some(repositories), Some(settings)) = (self.doors.token.repositories(), &new.image_registry) {
            repositories.set(settings);
        }
        if !gone.is_empty() {
            tokio::time::sleep(LINGER).await;
            upstreams.reload(&new.upstreams)?;
        }
        self.connections.set(&new.limits);
        let settings = &new.credentials;
        self.credentials.set_failures(
            settings.failures_per_address,
            settings.failures_per_user,
            settings.failures_in_all,
        );
        self.credentials.set_plans(plan_ids(new));
        self.gate.set_demo_rate(new.demo.requests_per_address);
        self.doors.token.set_demo_rate(new.demo.tokens_per_address);
        self.counts.ledger.set(&new.usage);
        Arc::clone(&self.certificates).look(self.gate.clock()).await;
        let fixed = fixed_settings(&config, new);
        // What is not in force must not be taken for it by the next reload.
        let (demo_is_open, forward_auth) = (config.demo.enabled, config.forward_auth.clone());
        let image_registry = config.image_registry.clone();
        let path_parameters = config.access.path_parameters;
        *config = new.clone();
        (config.demo.enabled, config.access.path_parameters) = (demo_is_open, path_parameters);
        if config.forward_auth.is_some() != forward_auth.is_some() {
            config.forward_auth = forward_auth;
        }
        match (&mut config.image_registry, image_registry) {
            (Some(new), Some(old)) => new.service = old.service,
            (new, old) => *new = old,
        }
        Ok(fixed)
    }

    /// Ends: no new connections, those in flight finish within `grace`, then everything stops.
    pub async fn shut_down(mut self, grace: Duration) {
        self.doors.health.drain();
        for handle in &self.handles {
            handle.graceful_shutdown(Some(grace));
        }
        if let Some(socket) = &self.socket {
            socket.handle.graceful_shutdown(Some(grace));
        }
        // Tunnels and streams would go on for ever.
        if tokio::time::timeout(grace, self.doors.proxy.end()).await.is_err() {
            tracing::warn!(open = self.doors.proxy.tunnels(), "tunnels are cut off");
        }
        for server in self.servers.drain(..) {
            match server.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(error = %error, "a listener ended"),
                Err(error) => tracing::error!(error = %error, "a listener's task ended"),
            }
        }
        self.time.look().await;
        self.counts.close().await;
        // A failure is logged; the times are no loss that anybody should wait for.
        let _ = stamp(&self.store, &self.credentials, self.gate.clock().now(), false).await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for handle in &self.handles {
            handle.shutdown();
        }
        if let Some(socket) = &self.socket {
            socket.handle.shutdown();
        }
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The table of these routes. Which of the gateway's own paths there are takes a restart to change, and so does what a path may
/// have.
fn route_table(routes: &[RouteSettings], in_force: &Config) -> RouteTable {
    RouteTable::new(routes, built_ins(in_force)).with_parameters(in_force.access.path_parameters)
}

/// The gateway's own paths.
pub(super) fn built_ins(config: &Config) -> BuiltIns {
    BuiltIns { demo: config.demo.enabled, forward_auth: config.forward_auth.is_some() }
}

/// The plans that tokens may bear.
fn plan_ids(config: &Config) -> BTreeSet<PlanId> {
    config.plans.iter().map(|plan| plan.id.clone()).collect()
}

/// The URL to show to people: the issuer, but with the port that is really listened on when that is this machine.
pub(super) fn base_url(issuer: &str, https: SocketAddr) -> String {
    let is_local =
        issuer.strip_prefix("https://localhost").is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
    if is_local { format!("https://localhost:{}", https.port()) } else { issuer.trim_end_matches('/').to_owned() }
}
