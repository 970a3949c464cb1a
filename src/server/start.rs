//! Why a gateway cannot start: each says what is wrong, where, and what to do.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::credentials::HashError;
use crate::persist;
use crate::proxy::upstream::UpstreamError;
use crate::signing;
use crate::tls;
use crate::webhook;

/// Why the gateway cannot start. Each says what to do.
#[derive(Debug)]
pub enum StartError {
    /// Certificates.
    Tls(tls::Faults),
    /// Signing keys.
    Signing(signing::Error),
    /// The store.
    Store(persist::Error),
    /// Hashing parameters.
    Hash(HashError),
    /// Files of upstreams.
    Upstreams(Vec<UpstreamError>),
    /// Files of the webhook.
    Webhook(webhook::Error),
    /// The Unix socket for other proxies.
    Socket {
        /// Where it was to be.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// An address that cannot be listened on.
    Listen {
        /// The setting.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's word.
        source: std::io::Error,
    },
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tls(faults) => faults.fmt(f),
            Self::Signing(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Hash(error) => error.fmt(f),
            Self::Upstreams(errors) => {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Webhook(error) => error.fmt(f),
            Self::Socket { path, source } => {
                let why = match source.kind() {
                    std::io::ErrorKind::AddrInUse => "another program, or another keybearer, listens there".to_owned(),
                    std::io::ErrorKind::NotFound => "its folder does not exist; make it".to_owned(),
                    std::io::ErrorKind::PermissionDenied => "this user may not write to its folder".to_owned(),
                    std::io::ErrorKind::AlreadyExists => "something that is no socket is there".to_owned(),
                    _ => source.to_string(),
                };
                write!(f, "forward_auth.unix_socket: cannot listen on {}: {why}", path.display())
            }
            Self::Listen { setting, address, source } => {
                let why = match source.kind() {
                    std::io::ErrorKind::AddrInUse => "another program, or another keybearer, listens there",
                    std::io::ErrorKind::PermissionDenied => "this user may not listen there; take a port from 1024 on",
                    std::io::ErrorKind::AddrNotAvailable => "this machine has no such address",
                    _ => return write!(f, "{setting}: cannot listen on {address}: {source}"),
                };
                write!(f, "{setting}: cannot listen on {address}: {why}")
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Signing(error) => error.source(),
            Self::Store(error) => error.source(),
            _ => None,
        }
    }
}

impl From<persist::Error> for StartError {
    fn from(error: persist::Error) -> Self {
        Self::Store(error)
    }
}

impl From<signing::Error> for StartError {
    fn from(error: signing::Error) -> Self {
        match error {
            signing::Error::Store(error) => Self::Store(error),
            other => Self::Signing(other),
        }
    }
}
