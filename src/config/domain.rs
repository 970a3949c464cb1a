//! The values of settings that have a meaning of their own: networks, URLs, names, log filters and routes.

use ipnet::IpNet;
use rustls::pki_types::ServerName;
use tracing_subscriber::EnvFilter;

use super::suggest;
use super::values::{Given, Read, Wrong, alternatives};
use crate::routes::host::InvalidHost;
use crate::routes::{HostPattern, InvalidPattern, Pattern, Segment};

/// A network whose forwarded headers may be believed.
pub(super) fn network(given: Given) -> Read<IpNet> {
    const EXAMPLE: &str = "[\"10.0.0.0/8\"]";
    let remedy = "write a network address, '/' and a prefix length; a single machine is /32 or, in IPv6, /128";
    let Some(network) = given.text().and_then(|text| text.parse::<IpNet>().ok()) else {
        return Err(given.is_not("a network", remedy, EXAMPLE));
    };
    if network.addr() != network.network() {
        let remedy = format!("write {:?}", network.trunc().to_string());
        return Err(given.is("has bits set beyond its prefix length", remedy, EXAMPLE));
    }
    // `::ffff:0:0/96` is all of IPv4 in its mapped form.
    let everyone = match network {
        IpNet::V4(network) => network.prefix_len() == 0,
        IpNet::V6(network) => {
            network.contains(&"::ffff:0.0.0.0".parse::<std::net::Ipv6Addr>().expect("an address"))
                && network.prefix_len() <= 96
        }
    };
    if everyone {
        let remedy =
            "anyone could claim to have come by HTTPS from any address: write the load balancer's own networks";
        return Err(given.is("trusts every address there is", remedy, EXAMPLE));
    }
    Ok(network)
}

/// A DNS name, perhaps with a wildcard as its first label, or an IP address.
pub(super) fn host_name(given: Given) -> Read<String> {
    let good = given.text().filter(|text| ServerName::try_from(text.strip_prefix("*.").unwrap_or(text)).is_ok());
    good.map(str::to_owned).ok_or_else(|| {
        let remedy = "write a DNS name or an IP address, without scheme or port";
        given.is_not("a host name", remedy, "[\"gateway.example.com\", \"192.0.2.1\"]")
    })
}

/// An issuer: an `https` URL without query or fragment (RFC 8414 §2).
pub(super) fn issuer(given: Given) -> Read<String> {
    const EXAMPLE: &str = "\"https://gateway.example.com\"";
    let remedy = "write an https URL without query or fragment (RFC 8414 §2)";
    let Some(text) = given.text() else { return Err(given.is_not("a URL", remedy, EXAMPLE)) };
    if text.contains('#') {
        return Err(given.is("has a fragment", remedy, EXAMPLE));
    }
    let Ok(url) = text.parse::<http::Uri>() else { return Err(given.is_not("a URL", remedy, EXAMPLE)) };
    if url.scheme_str() != Some("https") {
        return Err(given.is_not("an https URL", remedy, EXAMPLE));
    }
    if url.query().is_some() {
        return Err(given.is("has a query", remedy, EXAMPLE));
    }
    match url.authority() {
        Some(authority) if authority.as_str().contains('@') => Err(given.is("has a user name in it", remedy, EXAMPLE)),
        Some(authority) if !authority.host().is_empty() => Ok(text.to_owned()),
        _ => Err(given.is_not("a URL with a host", remedy, EXAMPLE)),
    }
}

/// A realm: what may stand in a quoted-string without escapes (RFC 9110 §5.6.4).
pub(super) fn realm(given: Given) -> Read<String> {
    let good = |text: &&str| {
        (1..=128).contains(&text.len()) && text.bytes().all(|c| (b' '..=b'~').contains(&c) && c != b'"' && c != b'\\')
    };
    given.text().filter(good).map(str::to_owned).ok_or_else(|| {
        given.is_not("a realm", "write 1 to 128 ASCII characters without '\"' and '\\'", "\"keybearer\"")
    })
}

/// A `tracing` filter. A bare word must be a level: `infoo` would otherwise be taken for a target, and silence the log.
pub(super) fn log_filter(given: Given) -> Read<String> {
    const EXAMPLE: &str = "\"info,keybearer::store=debug\"";
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const REMEDY: &str = "write off, error, warn, info, debug or trace, and more of the same for parts";
    let Some(text) = given.text() else { return Err(given.is_not("a log filter", REMEDY, EXAMPLE)) };
    let bare = text.split(',').map(str::trim).find(|part| {
        !part.contains(['=', '[', '{', '}', ']']) && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part))
    });
    if let Some(word) = bare {
        let remedy = match suggest::closest(word, LEVELS) {
            Some(level) => format!("did you mean {level:?}?"),
            None => REMEDY.into(),
        };
        return Err(given.is(format!("names no level with {word:?}"), remedy, EXAMPLE));
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(given.is_not(&format!("a log filter ({error})"), REMEDY, EXAMPLE)),
    }
}

/// A method of [`METHODS`].
pub(super) fn method(given: Given) -> Read<String> {
    const EXAMPLE: &str = "[\"GET\", \"POST\"]";
    match given.text() {
        Some(text) if METHODS.contains(&text) => Ok(text.to_owned()),
        other => {
            let close = other.and_then(|text| suggest::closest(&text.to_ascii_uppercase(), METHODS));
            let remedy = match close {
                Some(method) => format!("did you mean {method:?}?"),
                None => format!("write {}", alternatives(METHODS.iter().map(|method| format!("{method:?}")))),
            };
            Err(given.is_not("a method that a route can have", remedy, EXAMPLE))
        }
    }
}

/// TRACE and CONNECT are missing on purpose: no resource of a gateway answers them (RFC 9110 §9.3.6, §9.3.8).
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// A route's path pattern.
pub(super) fn pattern(given: Given) -> Read<Pattern> {
    const EXAMPLE: &str = "\"/orders/*\"";
    let Some(text) = given.text() else {
        return Err(given.is_not("a path", InvalidPattern::NotAbsolute.remedy(), EXAMPLE));
    };
    text.parse().map_err(|why: InvalidPattern| given.is(why, why.remedy(), EXAMPLE))
}

/// A host that a route answers.
pub(super) fn host_pattern(given: Given) -> Read<HostPattern> {
    const EXAMPLE: &str = "[\"api.example.com\", \"*.example.com\"]";
    let Some(text) = given.text() else { return Err(given.is_not("a host", "write it as text", EXAMPLE)) };
    text.parse().map_err(|rule: InvalidHost| given.is_not("a host", rule.to_string(), EXAMPLE))
}

/// A path without parameters or a `*`: a prefix to take away or put before, or a whole path.
pub(super) fn plain_path(given: Given) -> Read<String> {
    const EXAMPLE: &str = "\"/v1\"";
    let path = pattern(given).map_err(|wrong| Wrong { example: EXAMPLE, ..wrong })?;
    let is_plain = path.segments().iter().all(|segment| matches!(segment, Segment::Literal(_)));
    if !is_plain || path.and_below() {
        return Err(given.is("has a parameter or a '*'", "write the path as it is", EXAMPLE));
    }
    Ok(path.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::values::tests::read;

    #[test]
    fn a_network_that_trusts_everyone_is_refused() {
        assert!(read(network, "10.0.0.0/8").is_ok());
        assert!(read(network, "fd00::/8").is_ok());
        for everyone in ["0.0.0.0/0", "::/0", "::ffff:0:0/96", "::/64"] {
            assert!(read(network, everyone).expect_err(everyone).contains("trusts every address"), "{everyone}");
        }
        assert!(read(network, "10.1.2.3/8").unwrap_err().ends_with("write \"10.0.0.0/8\""));
        assert!(read(network, "10.0.0.1").unwrap_err().contains("/32"));
    }

    #[test]
    fn an_issuer_is_an_https_url_without_query_or_fragment() {
        for good in ["https://a", "https://a.example:8443/tenant", "https://[::1]:8443"] {
            assert_eq!(read(issuer, good).as_deref(), Ok(good));
        }
        for bad in
            ["", "a", "http://a", "https://", "https://a?b", "https://a#b", "https://u@a", "https:///p", "https://a b"]
        {
            assert!(read(issuer, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_level_that_is_mistyped_is_not_taken_for_a_target() {
        for good in ["info", "INFO", "off", "info,keybearer::store=debug", "warn,hyper=info", "[request{id=1}]=trace"] {
            assert!(read(log_filter, good).is_ok(), "{good}");
        }
        assert_eq!(
            read(log_filter, "infoo").unwrap_err(),
            "\"infoo\" names no level with \"infoo\"; did you mean \"info\"?"
        );
        assert!(read(log_filter, "keybearer=verbose").is_err());
        assert!(read(log_filter, "").is_err());
    }

    #[test]
    fn a_path_says_why_it_is_none() {
        assert!(read(pattern, "/orders/{id}/*").is_ok());
        assert_eq!(
            read(pattern, "/a/").unwrap_err(),
            "\"/a/\" ends with '/'; write it without, or with '/*' for all that is below it"
        );
        assert_eq!(read(plain_path, "/v1/x").as_deref(), Ok("/v1/x"));
        assert_eq!(read(plain_path, "/").as_deref(), Ok("/"));
        for bad in ["/{id}", "/a/*", "a"] {
            assert!(read(plain_path, bad).is_err(), "{bad}");
        }
    }
}
