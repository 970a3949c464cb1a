//! `keybearer serve`: starts the gateway, and ends it when it is asked to.

use std::fmt::Write;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use super::output::Output;
use super::{Exit, Source, store};
use crate::clock::Clock;
use crate::config::{Config, StoreKind};
use crate::server::{Gateway, StartError};
use crate::store::{MemoryStore, SharedStore, SqliteStore};
use crate::telemetry::{self, Sink};

/// How often the configuration file is looked at.
const LOOK_AT_CONFIG: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where clients connect, by HTTPS [default: 127.0.0.1:8443].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where operators connect, by HTTPS: health and metrics [default: 127.0.0.1:8444].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<SocketAddr>,
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Store(error) => error.into(),
            StartError::Hash(error) => error.into(),
            StartError::Listen { setting, .. } => {
                let hint = format!("set {setting} in the configuration; see `keybearer serve --help` for the options");
                Self::mendable(error.to_string()).hint(hint)
            }
            StartError::Tls(_)
            | StartError::Signing(_)
            | StartError::Upstreams(_)
            | StartError::Webhook(_)
            | StartError::Socket { .. } => Self::mendable(error.to_string()),
        }
    }
}

/// Serves until the process is asked to end.
pub(super) async fn run(
    source: &Source,
    config: Config,
    clock: Arc<dyn Clock>,
    out: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let refused = |error| Failure::ours(format!("the system refused a thread or a signal handler: {error}"));
    let sink = Sink::start(std::io::stdout()).map_err(refused)?;
    telemetry::install(&config.logging, sink.clone());
    raise_open_files(&config);
    let mut signals = Signals::listen().map_err(refused)?;
    let sqlite: Option<Arc<SqliteStore>> = match config.store {
        StoreKind::Sqlite => Some(store::open_database(&config, out).await?),
        StoreKind::Memory => None,
    };
    let shared = sqlite.clone().map_or_else(|| Arc::new(MemoryStore::new()) as SharedStore, |sqlite| sqlite as _);
    let served = serve(source, &config, shared, clock, &sink, &mut signals, out).await;
    if let Some(sqlite) = sqlite {
        sqlite.close().await;
    }
    if served.is_ok() {
        tracing::info!("ended");
    }
    sink.flush();
    served.map(|()| Exit::Done)
}

/// What the gateway opens beside connections: the database, certificates, the log.
const OTHER_FILES: usize = 64;

/// Raises the limit of open files as far as this user may: most systems begin with 1024, for the sake of old programs that
/// call `select`, and a gateway that meets it takes no new connections.
fn raise_open_files(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    // Refused, it stays as it was; what matters is told below.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let Some(most) = getrlimit(Resource::Nofile).current else { return };
    let connections = config.limits.connections;
    // A request that is passed on may need a connection of its own at the upstream.
    let upstreams = config.upstreams.iter().fold(0usize, |sum, upstream| sum.saturating_add(upstream.max_requests));
    let needed = connections.saturating_add(upstreams).saturating_add(OTHER_FILES);
    if usize::try_from(most).is_ok_and(|most| most < needed) {
        tracing::warn!(
            open_files = most,
            limits.connections = connections,
            upstreams.max_requests = upstreams,
            "the limit of open files (ulimit -Hn) allows fewer connections than the configuration; raise it, or lower \
             limits.connections, or max_requests of the upstreams"
        );
    }
}

async fn serve(
    source: &Source,
    config: &Config,
    store: SharedStore,
    clock: Arc<dyn Clock>,
    sink: &Sink,
    signals: &mut Signals,
    out: &mut Output<'_>,
) -> Result<(), Failure> {
    let gateway = Gateway::start(config, store, clock, Some(sink)).await?;
    out.note(&welcome(&gateway, config));
    let addresses = gateway.addresses();
    tracing::info!(https = %addresses.https, admin = %addresses.admin, version = env!("CARGO_PKG_VERSION"), "serving");
    let grace = until_asked_to_end(&gateway, source, config.server.shutdown_grace, signals).await;
    tracing::info!(grace = ?grace, "asked to end: requests in flight may finish");
    let counts = gateway.counts().clone();
    let is_orderly = tokio::select! {
        () = gateway.shut_down(grace) => true,
        () = signals.end() => false,
    };
    if !is_orderly {
        tracing::warn!("asked again: ending at once");
        // What was answered is written all the same.
        counts.close().await;
    }
    Ok(())
}

/// Until the process is asked to end: reloads when it is asked to, or when the file has changed.
async fn until_asked_to_end(
    gateway: &Gateway,
    source: &Source,
    mut grace: Duration,
    signals: &mut Signals,
) -> Duration {
    let mut contents = source.contents();
    loop {
        let changed = async {
            if source.file.is_none() {
                pending::<()>().await;
            }
            loop {
                tokio::time::sleep(LOOK_AT_CONFIG).await;
                let now = source.contents();
                // A file that is away for a moment is being replaced.
                if now.is_some() && now != contents {
                    contents = now;
                    return;
                }
            }
        };
        tokio::select! {
            asked = signals.next() => if asked == Asked::ToEnd { return grace },
            () = changed => {}
        }
        match source.load() {
            Ok(new) => match gateway.reload(&new).await {
                Ok(fixed) => {
                    grace = new.server.shutdown_grace;
                    tracing::info!("configuration reloaded");
                    for setting in fixed {
                        tracing::warn!(setting, "changed, and takes effect after a restart");
                    }
                }
                Err(errors) => {
                    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    tracing::error!("the new upstreams cannot be used, and all stays: {}", errors.join("; "));
                }
            },
            Err(faults) => tracing::error!("the new configuration is faulty, and the old one stays: {faults}"),
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::ToEnd,
            _ = self.interrupt.recv() => Asked::ToEnd,
            _ = self.hangup.recv() => Asked::ToReload,
        }
    }

    async fn end(&mut self) {
        while self.next().await != Asked::ToEnd {}
    }
}

#[derive(PartialEq, Eq)]
enum Asked {
    ToEnd,
    ToReload,
}

/// What a newcomer can copy.
fn welcome(gateway: &Gateway, config: &Config) -> String {
    let addresses = gateway.addresses();
    let mut text = format!("keybearer {} serves https://{}\n", env!("CARGO_PKG_VERSION"), addresses.https);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "health and metrics: https://{}", addresses.admin);
    if let Some(behind) = addresses.behind_proxy {
        let _ = writeln!(text, "behind a proxy: http://{behind}");
    }
    if config.demo.enabled
        && let Ok(published) = gateway.demo().published()
    {
        let (curl, key, url) = (published.site.curl(), &published.key, &published.site.base_url);
        let _ = write!(
            text,
            "\nTry it: the demo key gets a token, and the token opens the Demo group.\n\n  \
             {curl} -u '{key}:' {url}/token\n  \
             TOKEN=$({curl} -s -u '{key}:' {url}/token | cut -d'\"' -f4)\n  \
             {curl} -H \"Authorization: Bearer $TOKEN\" {url}/demo/time\n"
        );
    }
    text
}
