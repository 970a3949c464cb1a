//! Delivers messages by HTTP POST, signed in the manner of Standard Webhooks (<https://www.standardwebhooks.com>): headers
//! `webhook-id`, `webhook-timestamp` and `webhook-signature`, the last one `v1,` and the base64 of an HMAC-SHA256 over
//! `<id>.<timestamp>.<body>`.
//!
//! Owns the client alone; what is delivered, and what becomes of it when it fails, is for others. `https` anywhere, `http` to
//! this machine only. No redirect is followed, and a receiver says that it took a message by any 2xx.

mod client;
mod secret;
mod target;

use std::path::PathBuf;

pub use client::Webhook;
pub use secret::WebhookSecret;
pub use target::{InvalidTarget, Target};

/// Settings of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where messages go.
    pub target: Target,
    /// A file with the secret they are signed with; without one they are not signed.
    pub secret_file: Option<PathBuf>,
    /// Authorities to trust in place of the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

/// A file of the settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The setting that names it.
    pub setting: &'static str,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.setting, self.problem)
    }
}

impl std::error::Error for Error {}
