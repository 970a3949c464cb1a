//! Settings of `[[upstreams]]`: where an upstream is, and how it is treated. Values only; nothing here opens a file.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::ids::UpstreamId;

/// One entry of `[[upstreams]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Its name in routes, metrics and logs.
    pub id: UpstreamId,
    /// Where it is. A name may stand for several addresses; each is used.
    pub targets: Vec<TargetUrl>,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// Who gets the next request.
    pub balance: Balance,
    /// Which `Host` it sees.
    pub host: HostHeader,
    /// Most requests at once, on all targets together.
    pub max_requests: usize,
    /// Longest time for TCP, TLS and the protocol's own beginning together.
    pub connect_timeout: Duration,
    /// Longest time from the last byte sent to the head of the answer.
    pub response_timeout: Duration,
    /// How long nothing may move in a body, a stream or a tunnel. Kept by whoever reads the body.
    pub idle_timeout: Duration,
    /// How long an idle connection is kept; zero keeps none.
    pub keep_alive: Duration,
    /// Most further attempts of one request.
    pub retries: u32,
    /// Percent of requests that may be attempts anew; a floor of 10 per second comes on top.
    pub retry_budget: u32,
    /// How `https` targets are spoken to.
    pub tls: UpstreamTls,
    /// Active checks; none are made without.
    pub health: Option<HealthCheck>,
    /// When a failing target is left out for a while.
    pub ejection: Ejection,
}

impl UpstreamSettings {
    /// An upstream with the default of everything else.
    pub fn new(id: UpstreamId, targets: Vec<TargetUrl>) -> Self {
        Self {
            id,
            targets,
            protocol: Protocol::default(),
            balance: Balance::default(),
            host: HostHeader::default(),
            max_requests: 1024,
            connect_timeout: Duration::from_secs(3),
            response_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(30),
            retries: 2,
            retry_budget: 20,
            tls: UpstreamTls::default(),
            health: None,
            ejection: Ejection::default(),
        }
    }
}

/// What is spoken with an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// `https` negotiates HTTP/2 or HTTP/1.1 (RFC 7301); `http` is HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1 (RFC 9112).
    Http1,
    /// HTTP/2 (RFC 9113); over `http` by prior knowledge (§3.3).
    Http2,
}

/// Who gets the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Whoever has the fewest requests in flight.
    LeastRequests,
    /// The same account goes to the same target as long as it is there.
    Account,
}

/// Which `Host` an upstream sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostHeader {
    /// The one that the client sent.
    #[default]
    Client,
    /// The target's own.
    Target,
    /// This one.
    Name(Box<str>),
}

/// How `https` targets are spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamTls {
    /// The authorities to trust, as PEM; the system's when left out.
    pub ca_file: Option<PathBuf>,
    /// A client certificate and its chain, as PEM.
    pub certificate: Option<PathBuf>,
    /// The client certificate's key, as PEM.
    pub private_key: Option<PathBuf>,
    /// The name that the target's certificate must have; the target's host when left out.
    pub server_name: Option<String>,
}

/// Active checks of every address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for: a path, perhaps with a query.
    pub path: String,
    /// The time between two checks.
    pub interval: Duration,
    /// Longest time until an answer.
    pub timeout: Duration,
    /// Good answers in a row until an address counts as healthy again.
    pub healthy_after: u32,
    /// Bad ones in a row until it does not.
    pub unhealthy_after: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/".into(),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }
}

/// When a failing target is left out for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// So many failures in a row put it out; 0 never does.
    pub failures: u32,
    /// How long it is out the first time. Doubles up to ten times that.
    pub time: Duration,
    /// How long its share takes from a tenth to the whole when it returns.
    pub return_over: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, time: Duration::from_secs(30), return_over: Duration::from_secs(30) }
    }
}

/// Where a target is: `http://host[:port]` or `https://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetUrl {
    /// Whether it is `https`.
    pub tls: bool,
    /// A host name in lower case, or an address; IPv6 without its brackets.
    pub host: Box<str>,
    /// The TCP port.
    pub port: u16,
}

impl TargetUrl {
    /// The address, when it is one and no name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// What its own `Host` says: `host[:port]`, without a port that goes without saying (RFC 9110 §7.2).
    pub fn authority(&self) -> String {
        if self.port == if self.tls { 443 } else { 80 } {
            self.bracketed()
        } else {
            format!("{}:{}", self.bracketed(), self.port)
        }
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() }
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.tls { "https" } else { "http" }, self.bracketed(), self.port)
    }
}

/// Text that is no [`TargetUrl`]; `Display` says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidTarget(&'static str);

impl fmt::Display for InvalidTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidTarget {}

impl FromStr for TargetUrl {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let (tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            _ => return Err(InvalidTarget("a target begins with http:// or https://")),
        };
        if rest.contains(['/', '?', '#']) {
            return Err(InvalidTarget("a target has no path; a route's strip_prefix and add_prefix change paths"));
        }
        if rest.contains('@') {
            return Err(InvalidTarget("a target has no user in it"));
        }
        let (host, port) = split_port(rest).ok_or(InvalidTarget("a target is http://host or http://host:port"))?;
        let port = match port {
            None if tls => 443,
            None => 80,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port > 0).ok_or(InvalidTarget("a port is 1 to 65535"))?
            }
            Some(_) => return Err(InvalidTarget("a port is 1 to 65535")),
        };
        Ok(Self { tls, host, port })
    }
}

/// The host in its usual form, and the port's text.
fn split_port(authority: &str) -> Option<(Box<str>, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
        return Some((address.to_string().into(), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let sound = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(sound);
    is_name.then(|| (host.to_ascii_lowercase().into(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for (text, written, authority) in [
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("https://Orders.internal", "https://orders.internal:443", "orders.internal"),
            ("http://orders:80", "http://orders:80", "orders"),
            ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443", "[2001:db8::1]:8443"),
            ("http://my_service.ns.svc.", "http://my_service.ns.svc.:80", "my_service.ns.svc."),
        ] {
            let target: TargetUrl = text.parse().expect(text);
            assert_eq!(target.to_string(), written);
            assert_eq!(target.authority(), authority);
            assert_eq!(written.parse(), Ok(target));
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for bad in [
            "orders",
            "ftp://orders",
            "http://",
            "http://orders/",
            "http://orders?x",
            "http://a@orders",
            "http://orders:0",
            "http://orders:65536",
            "http://orders:",
            "http://orders:+1",
            "http://::1",
            "http://[::1",
            "http://[::1]x",
            "http://a b",
            "http://-a",
            "http://a..b",
        ] {
            assert!(bad.parse::<TargetUrl>().is_err(), "{bad:?}");
        }
    }
}
