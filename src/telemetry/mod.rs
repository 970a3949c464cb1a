//! Telemetry: the log, the request log and the metrics. Owns their form and their sink; sees no credential, token or body.

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
