//! Settings of `[forward_auth]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// Settings of `[forward_auth]`: who may ask for decisions, and where. Without the section nobody may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The networks whose proxies may ask, on the HTTPS listener and over gRPC. Their forwarded headers are believed.
    pub trusted: Vec<IpNet>,
    /// A Unix socket for proxies on this machine that cannot ask by TLS. Who may connect is the file's mode.
    pub unix_socket: Option<PathBuf>,
    /// Where Envoy's authorization service listens, by TLS.
    pub grpc_listen: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        let loopback = ["127.0.0.1/32", "::1/128"].map(|network| network.parse().expect("a network"));
        Self { trusted: loopback.to_vec(), unix_socket: None, grpc_listen: None }
    }
}
