//! Hosts: the authority of a request (RFC 3986 §3.2), and which of them a route answers.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The bytes of a host name. RFC 3986 §3.2.2 allows more, and no host has it. A table, since every request's host is looked at.
const IN_NAMES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// Whether a text is `uri-host [":" port]` (RFC 3986 §3.2.2) of letters as they are, without user information.
pub fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let Ok(address) = std::str::from_utf8(&rest[..end]) else { return false };
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            (&rest[..end], &rest[end + 1..])
        }
        _ => {
            let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            let (host, port) = text.split_at(end);
            // An encoded letter or an empty label would be another host for the route table than for an upstream that decodes
            // it, or leaves it out.
            let is_name = host.iter().all(|byte| IN_NAMES[usize::from(*byte)]);
            if !is_name || host.starts_with(b".") || host.windows(2).any(|two| two == b"..") {
                return false;
            }
            (host, port)
        }
    };
    let port_is_good = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && digits.iter().fold(0u32, |port, digit| port * 10 + u32::from(digit - b'0')) <= 65_535
        }
        _ => false,
    };
    !host.is_empty() && port_is_good
}

/// The host of an authority that [`is_authority`] found good: without its port and the dot of a fully qualified name, in
/// lower case. Brackets stay around an IPv6 address.
pub fn of_authority(authority: &str) -> Cow<'_, str> {
    // A colon within brackets begins no port.
    let host = match authority.bytes().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(at) if authority.as_bytes()[at] == b':' => &authority[..at],
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match address.parse::<Ipv6Addr>() {
            Ok(address) => Cow::Owned(format!("[{address}]")),
            Err(_) => Cow::Borrowed(host),
        };
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// A host that a route answers: a name or address, or `*.` and a name for every host below that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern(Box<str>);

impl HostPattern {
    /// `.example.com` of `*.example.com`.
    pub fn suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }

    /// As written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no [`HostPattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidHost;

impl fmt::Display for InvalidHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write a name or an address without scheme and port; \"*.example.com\" is every host below it")
    }
}

impl std::error::Error for InvalidHost {}

impl FromStr for HostPattern {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        };
        let is_name = name.len() <= 253 && name.split('.').all(is_label);
        let is_address = text.starts_with('[') && text.ends_with(']') && is_authority(text.as_bytes());
        match (is_name, is_address) {
            (true, _) => Ok(Self(text.to_ascii_lowercase().into())),
            (_, true) => Ok(Self(of_authority(text).into())),
            (false, false) => Err(InvalidHost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        for good in ["localhost", "localhost:8443", "127.0.0.1", "[::1]:8443", "a.example.:80", "x:"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "a b",
            "user@host",
            "a/b",
            "host:x",
            "host:99999",
            "[::1",
            "a,b",
            "%61",
            "a..",
            "a..b",
            ".a",
            ":80",
            "ä",
            "[::1]x",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn a_host_has_one_spelling() {
        for (authority, host) in [
            ("localhost", "localhost"),
            ("API.Example.com:8443", "api.example.com"),
            ("a.example.", "a.example"),
            ("a.example.:80", "a.example"),
            ("[::1]:8443", "[::1]"),
            ("[FE80::1]", "[fe80::1]"),
            ("[0:0:0:0:0:0:0:1]:443", "[::1]"),
            ("x:", "x"),
        ] {
            assert_eq!(of_authority(authority), host);
        }
    }

    #[test]
    fn a_host_pattern_is_a_name_perhaps_with_a_star_before_it() {
        for good in ["api.example.com", "*.example.com", "localhost", "10.0.0.1", "[::1]", "API.example.com"] {
            assert!(good.parse::<HostPattern>().is_ok(), "{good}");
        }
        for bad in ["", "*", "*.", "a.*.b", "a b", "https://a", "a:8443", "a..b", "::1", "a/"] {
            assert_eq!(bad.parse::<HostPattern>(), Err(InvalidHost), "{bad}");
        }
        assert_eq!("*.Example.com".parse::<HostPattern>().unwrap().suffix(), Some(".example.com"));
    }
}
