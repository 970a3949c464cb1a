//! The assembly: joins rooms, doors and a store into the running gateway.
//!
//! The stack of a request, outermost first, each with its why:
//!
//! 1. `accept`: TLS, or the one answer to a request in the clear; `connection`: how many, and no slow ones
//! 2. `front`: number, client address, rules of HTTP, normalised path, route; last of all counters and log line
//! 3. `SetSensitiveRequestHeaders`: before anything could print a credential
//! 4. [`RequireAccess`](crate::access::RequireAccess): a [`Permit`](crate::access::Permit) or a refusal
//! 5. `dispatch`: the door of the route, with its limits of content and time

mod accept;
mod certificates;
mod conduct;
mod connection;
mod content;
mod counts;
mod dispatch;
mod exposure;
mod follow;
mod front;
mod gateway;
mod health;
mod listeners;
mod observe;
pub mod openapi;
mod reload;
mod start;
mod time_watch;
mod unix;
mod upkeep;

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

pub use counts::CountWriter;
pub use follow::Follower;
pub use gateway::Gateway;
pub use listeners::Addresses;
pub use start::StartError;

/// What happens to a credential that was sent over plain HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlaintextCredentials {
    /// It is audited and counted.
    #[default]
    Report,
    /// It is audited, counted and revoked.
    Revoke,
}

/// Settings of `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the gateway listens, HTTPS only.
    pub listen: SocketAddr,
    /// Where health and metrics for operators listen, HTTPS only.
    pub admin_listen: SocketAddr,
    /// How long requests in flight may take to finish after SIGTERM.
    pub shutdown_grace: Duration,
    /// What happens to a credential that was sent over plain HTTP.
    pub plaintext_credentials: PlaintextCredentials,
    /// A listener behind a load balancer that ends TLS.
    pub behind_proxy: Option<BehindProxy>,
}

/// Settings of `[server.behind_proxy]`: a listener whose peers end TLS for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BehindProxy {
    /// Where it listens, in the clear.
    pub listen: SocketAddr,
    /// The networks whose forwarded headers are believed; every other peer is refused.
    pub trusted: Vec<IpNet>,
    /// Which of them those peers write.
    pub header: ForwardedHeader,
}

/// The headers by which a proxy says how a request came to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeader {
    /// Whichever is there; a request with both is refused, since the client may have sent one of them.
    #[default]
    Either,
    /// `X-Forwarded-For` and `X-Forwarded-Proto`. What `Forwarded` says is the client's.
    XForwarded,
    /// `Forwarded` (RFC 7239). What `X-Forwarded-*` say is the client's.
    Forwarded,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8443)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 8444)),
            shutdown_grace: Duration::from_secs(20),
            plaintext_credentials: PlaintextCredentials::Report,
            behind_proxy: None,
        }
    }
}

/// Settings of `[limits]`: what one client may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, on all listeners together.
    pub connections: usize,
    /// Connections at once from one client address (IPv6: one /64).
    pub connections_per_address: usize,
    /// Bytes of a request's header section.
    pub header_bytes: usize,
    /// Bytes of a request's content, for the built-in resources and the token endpoint.
    pub body_bytes: usize,
    /// From the first byte of a TLS connection to the end of its handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a request to the end of its header section.
    pub header_timeout: Duration,
    /// Between requests, and before the first one.
    pub idle_timeout: Duration,
    /// From the start of a request to the end of its content.
    pub body_timeout: Duration,
    /// How long the gateway itself may take for an answer.
    pub request_timeout: Duration,
    /// How long a client may take none of an answer's bytes.
    pub write_timeout: Duration,
    /// Streams at once on one HTTP/2 connection.
    pub http2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_address: 20_000,
            header_bytes: 32 * 1024,
            body_bytes: 64 * 1024,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            http2_streams: 128,
        }
    }
}
