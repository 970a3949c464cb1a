//! Telemetry: the log, the request log and the metrics. Owns their form and their sink; sees no credential, token or body.

mod metrics;
mod request_log;
mod sink;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use metrics::{Labels, Metrics, RouteMetrics};
pub use request_log::{AskedLine, RequestLine, RequestLog};
pub use sink::Sink;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of `[logging]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How log lines look.
    pub format: Format,
    /// What is logged: a `tracing` filter such as `info` or `info,keybearer::store=debug`.
    pub level: String,
    /// Whether every request has a line.
    pub requests: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: Format::Text, level: "info".into(), requests: true }
    }
}

/// Sends `tracing`'s events to `sink`. Only the first call of a process has an effect.
pub fn install(settings: &Settings, sink: Sink) {
    let filter = EnvFilter::try_new(&settings.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(sink).with_ansi(false);
    let _ = match settings.format {
        Format::Text => registry.with(lines).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
}
