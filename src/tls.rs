//! TLS: the certificates and the configuration of the HTTPS listeners.

use std::path::PathBuf;

/// Settings of `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The operator's certificate chain, PEM. Without one, a localhost certificate is made in the data folder.
    pub certificate: Option<PathBuf>,
    /// The key of that certificate, PEM.
    pub private_key: Option<PathBuf>,
    /// Names and addresses in the certificate that is made.
    pub names: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { certificate: None, private_key: None, names: vec!["localhost".into(), "127.0.0.1".into(), "::1".into()] }
    }
}
