//! Where a webhook goes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

/// Why a URL is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidTarget {
    /// It is no `https` or `http` URL with a host.
    NoUrl,
    /// It has a user name or a fragment in it.
    Userinfo,
    /// It goes to another machine in the clear.
    Clear,
}

impl fmt::Display for InvalidTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoUrl => "write an https URL with a host",
            Self::Userinfo => "write it without user name and fragment; messages are signed by secret_file",
            Self::Clear => "write https; http may go to this machine only (127.0.0.1, [::1] or localhost)",
        })
    }
}

impl std::error::Error for InvalidTarget {}

/// A URL that may be posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    uri: Uri,
    tls: bool,
}

impl Target {
    /// Whether it is `https`.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host, an IPv6 address without its brackets.
    pub(super) fn host(&self) -> &str {
        let host = self.uri.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    pub(super) fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// What the `Host` field says.
    pub(super) fn authority(&self) -> &str {
        self.uri.authority().map(http::uri::Authority::as_str).unwrap_or_default()
    }

    pub(super) fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;
    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let uri: Uri = text.parse().map_err(|_| InvalidTarget::NoUrl)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(InvalidTarget::NoUrl),
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) || text.contains('#') {
            return Err(InvalidTarget::Userinfo);
        }
        let target = Self { uri, tls };
        let host = target.host();
        if host.is_empty() {
            return Err(InvalidTarget::NoUrl);
        }
        let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if tls || is_local { Ok(target) } else { Err(InvalidTarget::Clear) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_clear_it_goes_to_this_machine_only() {
        for good in [
            "https://hooks.example.com/x?y=1",
            "https://10.0.0.1",
            "http://127.0.0.1:9/x",
            "http://[::1]:9",
            "http://localhost",
        ] {
            good.parse::<Target>().unwrap_or_else(|rule| panic!("{good}: {rule}"));
        }
        for (bad, rule) in [
            ("http://hooks.example.com", InvalidTarget::Clear),
            ("http://10.0.0.1", InvalidTarget::Clear),
            ("http://localhost.example.com", InvalidTarget::Clear),
            ("https://user@example.com", InvalidTarget::Userinfo),
            ("ftp://example.com", InvalidTarget::NoUrl),
            ("hooks.example.com", InvalidTarget::NoUrl),
            ("/x", InvalidTarget::NoUrl),
            ("", InvalidTarget::NoUrl),
        ] {
            assert_eq!(bad.parse::<Target>(), Err(rule), "{bad}");
        }
        let target: Target = "https://[2001:db8::1]/a?b".parse().expect("a target");
        assert_eq!((target.host(), target.port(), target.path_and_query()), ("2001:db8::1", 443, "/a?b"));
        assert_eq!(target.authority(), "[2001:db8::1]");
    }
}
