//! `keybearer serve`: starts the gateway, and ends it when it is asked to.

use std::future::pending;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock::Clock;
use crate::config::{Config, Faults, Overrides, StoreKind};
use crate::persist;
use crate::server::{Gateway, StartError};
use crate::store::{MemoryStore, SharedStore, SqliteStore};
use crate::telemetry::{self, Sink};

/// How often the configuration file is looked at.
const LOOK_AT_CONFIG: Duration = Duration::from_secs(2);

/// Where the configuration comes from, each time it is read.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file, if one was named.
    pub file: Option<PathBuf>,
    /// The environment at the start.
    pub environment: Vec<(String, String)>,
    /// The command line.
    pub overrides: Overrides,
}

impl Source {
    /// Reads it.
    ///
    /// # Errors
    /// All faults.
    pub fn load(&self) -> Result<Config, Faults> {
        Config::load(self.file.as_deref(), self.environment.iter().cloned(), &self.overrides)
    }

    /// What the file says now; a change of it is a change of the configuration.
    fn contents(&self) -> Option<Vec<u8>> {
        std::fs::read(self.file.as_deref()?).ok()
    }
}

/// Why `serve` ended otherwise than by being asked to.
#[derive(Debug)]
pub enum ServeError {
    /// The configuration.
    Config(Faults),
    /// The gateway could not start.
    Start(StartError),
    /// The system refused a thread or a signal handler.
    System(std::io::Error),
}

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(faults) => faults.fmt(f),
            Self::Start(error) => error.fmt(f),
            Self::System(error) => write!(f, "the system refused a thread or a signal handler: {error}"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(error) => error.source(),
            _ => None,
        }
    }
}

impl From<persist::Error> for ServeError {
    fn from(error: persist::Error) -> Self {
        Self::Start(StartError::Store(error))
    }
}

/// A store, and what must be closed of it in the end.
struct Opened {
    shared: SharedStore,
    sqlite: Option<Arc<SqliteStore>>,
}

impl Opened {
    async fn open(config: &Config) -> persist::Result<Self> {
        match config.store {
            StoreKind::Memory => Ok(Self { shared: Arc::new(MemoryStore::new()), sqlite: None }),
            StoreKind::Sqlite => {
                use std::os::unix::fs::DirBuilderExt as _;
                let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir);
                made.map_err(|source| persist::Error::Forbidden { path: config.data_dir.clone(), source })?;
                let store = Arc::new(SqliteStore::open(&config.data_dir.join("keybearer.db")).await?);
                Ok(Self { shared: Arc::clone(&store) as _, sqlite: Some(store) })
            }
        }
    }

    async fn close(self) {
        if let Some(sqlite) = self.sqlite {
            sqlite.close().await;
        }
    }
}

/// Serves until the process is asked to end.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(source: &Source, clock: Arc<dyn Clock>, stderr: &mut dyn Write) -> Result<(), ServeError> {
    let config = source.load().map_err(ServeError::Config)?;
    let sink = Sink::start(std::io::stdout()).map_err(ServeError::System)?;
    telemetry::install(&config.logging, sink.clone());
    let mut signals = Signals::listen().map_err(ServeError::System)?;
    let store = Opened::open(&config).await?;
    let gateway = match Gateway::start(&config, Arc::clone(&store.shared), clock, Some(&sink)).await {
        Ok(gateway) => gateway,
        Err(error) => {
            store.close().await;
            sink.flush();
            return Err(ServeError::Start(error));
        }
    };
    // Nobody may be there to read it; the gateway serves all the same.
    let _ = welcome(stderr, &gateway, &config);
    tracing::info!(
        https = %gateway.addresses().https, admin = %gateway.addresses().admin, version = env!("CARGO_PKG_VERSION"), "serving"
    );
    let grace = run(&gateway, source, config.server.shutdown_grace, &mut signals).await;
    tracing::info!(grace = ?grace, "asked to end: requests in flight may finish");
    tokio::select! {
        () = gateway.shut_down(grace) => {}
        () = signals.end() => tracing::warn!("asked again: ending at once"),
    }
    store.close().await;
    tracing::info!("ended");
    sink.flush();
    Ok(())
}

/// Until the process is asked to end: reloads when it is asked to, or when the file has changed.
async fn run(gateway: &Gateway, source: &Source, mut grace: Duration, signals: &mut Signals) -> Duration {
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
            Ok(new) => {
                let fixed = gateway.reload(&new).await;
                grace = new.server.shutdown_grace;
                tracing::info!("configuration reloaded");
                for setting in fixed {
                    tracing::warn!(setting, "changed, and takes effect after a restart");
                }
            }
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
fn welcome(out: &mut dyn Write, gateway: &Gateway, config: &Config) -> std::io::Result<()> {
    let addresses = gateway.addresses();
    writeln!(out, "keybearer {} serves https://{}", env!("CARGO_PKG_VERSION"), addresses.https)?;
    writeln!(out, "health and metrics: https://{}", addresses.admin)?;
    if let Some(behind) = addresses.behind_proxy {
        writeln!(out, "behind a proxy: http://{behind}")?;
    }
    if !config.demo.enabled {
        return Ok(());
    }
    let Ok(published) = gateway.demo().published() else {
        return Ok(());
    };
    let (curl, key, url) = (published.site.curl(), &published.key, &published.site.base_url);
    writeln!(out, "\nTry it: the demo key gets a token, and the token opens the Demo group.\n")?;
    writeln!(out, "  {curl} -u '{key}:' {url}/token")?;
    writeln!(out, "  TOKEN=$({curl} -s -u '{key}:' {url}/token | cut -d'\"' -f4)")?;
    writeln!(out, "  {curl} -H \"Authorization: Bearer $TOKEN\" {url}/demo/time\n")?;
    out.flush()
}
