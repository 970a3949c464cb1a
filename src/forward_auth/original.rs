//! The original request, as the proxy that asks tells of it. What it does not say once and without contradiction is not
//! guessed: there is no path that stands for a missing one.
//!
//! Only the exact names of a contract are read. A client may get a look-alike (`X_Forwarded_Uri`) through its proxy, or a
//! header of another contract; neither says anything here.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, Method};

use crate::client_addr::{Peer, TrustedProxies};
use crate::exchange::Refusal;
use crate::problem::Kind;
use crate::routes::{Ambiguous, Contract, host, normalise};

const HOST: &str = "Host";
const ORIGINAL_URI: &str = "X-Original-URI";
const ORIGINAL_URL: &str = "X-Original-URL";
const ORIGINAL_METHOD: &str = "X-Original-Method";
const FORWARDED_URI: &str = "X-Forwarded-Uri";
const FORWARDED_METHOD: &str = "X-Forwarded-Method";
const FORWARDED_HOST: &str = "X-Forwarded-Host";
const FORWARDED_PROTO: &str = "X-Forwarded-Proto";
const FORWARDED_FOR: &str = "X-Forwarded-For";

/// A request that a proxy asks about. It came by HTTPS: of any other there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original<'a> {
    /// Its method.
    pub method: Method,
    /// Its host, without a port, in lower case.
    pub host: Cow<'a, str>,
    /// Its path, normalised.
    pub path: Cow<'a, str>,
    /// Its query.
    pub query: Option<&'a str>,
    /// Whose it is: see [`TrustedProxies::client`].
    pub client: IpAddr,
}

/// Why a request cannot be decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The proxy does not say this.
    Missing(&'static str),
    /// It says this more than once.
    Repeated(&'static str),
    /// What it says is not what this may be.
    Malformed(&'static str),
    /// This says something else than another header.
    Contradictory(&'static str),
    /// The request came in the clear.
    NotHttps,
    /// The path could be read in two ways.
    Ambiguous(Ambiguous),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "The proxy did not say {name} of the original request."),
            Self::Repeated(name) => write!(f, "The proxy said {name} of the original request more than once."),
            Self::Malformed(name) => write!(f, "{name} of the original request is malformed."),
            Self::Contradictory(name) => write!(f, "{name} contradicts what else was said of the original request."),
            Self::NotHttps => {
                f.write_str("Only HTTPS is served. A token that was sent in the clear must be treated as exposed.")
            }
            Self::Ambiguous(ambiguous) => ambiguous.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (kind, reason) = match error {
            Error::NotHttps => (Kind::HttpsRequired, "not_https"),
            Error::Ambiguous(_) => (Kind::MalformedRequest, "ambiguous_path"),
            _ => (Kind::MalformedRequest, "original_request"),
        };
        Self::new(kind, reason, error.to_string())
    }
}

impl<'a> Original<'a> {
    /// Reads what `peer`, which is trusted, says by `contract`; `below` is what follows the contract's path.
    ///
    /// # Errors
    /// [`Error`]: it is to be refused.
    pub fn read(
        contract: Contract,
        below: &'a str,
        head: &'a Parts,
        trusted: &TrustedProxies,
        peer: Peer,
    ) -> Result<Self, Error> {
        let fields = Fields(&head.headers);
        let original = match contract {
            Contract::AuthRequest => fields.auth_request()?,
            Contract::ForwardAuth => fields.forwarded(FORWARDED_METHOD, FORWARDED_URI)?,
            Contract::HaProxy => fields.forwarded(ORIGINAL_METHOD, ORIGINAL_URI)?,
            Contract::ExtAuthz => fields.itself(below, head)?,
        };
        let hops = head.headers.get_all(FORWARDED_FOR);
        if contract != Contract::ExtAuthz && hops.iter().next().is_none() {
            return Err(Error::Missing(FORWARDED_FOR));
        }
        let client = trusted.client(peer.ip(), hops.iter().map(|line| String::from_utf8_lossy(line.as_bytes())));
        Ok(Self { client, ..original })
    }

    /// A request of these parts, by a client that is still to be found.
    pub(super) fn of(
        method: Method,
        host: Cow<'a, str>,
        (path, query): (&'a str, Option<&'a str>),
    ) -> Result<Self, Error> {
        let path = normalise(path).map_err(Error::Ambiguous)?;
        Ok(Self { method, host, path, query, client: Peer::Unix.ip() })
    }
}

/// The header fields of an asking request.
struct Fields<'a>(&'a HeaderMap);

impl<'a> Fields<'a> {
    /// A field that is said once, or not at all. An empty one says nothing.
    fn one(&self, name: &'static str) -> Result<Option<&'a str>, Error> {
        let mut values = self.0.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Error::Repeated(name));
        }
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| Error::Malformed(name))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn required(&self, name: &'static str) -> Result<&'a str, Error> {
        self.one(name)?.ok_or(Error::Missing(name))
    }

    /// A contract that says each part by one header.
    fn forwarded(&self, method: &'static str, uri: &'static str) -> Result<Original<'a>, Error> {
        https(FORWARDED_PROTO, self.required(FORWARDED_PROTO)?)?;
        Original::of(
            parse_method(method, self.required(method)?)?,
            parse_host(FORWARDED_HOST, self.required(FORWARDED_HOST)?)?,
            parse_target(uri, self.required(uri)?)?,
        )
    }

    /// nginx passes on what its operator does not set, so a client may have said what the operator's own header says too:
    /// all that is said must agree.
    fn auth_request(&self) -> Result<Original<'a>, Error> {
        let Some(url) = self.one(ORIGINAL_URL)? else { return self.forwarded(ORIGINAL_METHOD, ORIGINAL_URI) };
        let (scheme, rest) = url.split_once("://").ok_or(Error::Malformed(ORIGINAL_URL))?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        https(ORIGINAL_URL, scheme)?;
        if let Some(proto) = self.one(FORWARDED_PROTO)? {
            https(FORWARDED_PROTO, proto)?;
        }
        let host = parse_host(ORIGINAL_URL, authority)?;
        if let Some(forwarded) = self.one(FORWARDED_HOST)?
            && parse_host(FORWARDED_HOST, forwarded)? != host
        {
            return Err(Error::Contradictory(FORWARDED_HOST));
        }
        if self.one(ORIGINAL_URI)?.is_some_and(|uri| uri != target) {
            return Err(Error::Contradictory(ORIGINAL_URI));
        }
        let method = parse_method(ORIGINAL_METHOD, self.required(ORIGINAL_METHOD)?)?;
        Original::of(method, host, parse_target(ORIGINAL_URL, target)?)
    }

    /// Envoy over HTTP: the asking request is the original one, with our path before its own. It says no scheme unless it is
    /// configured to.
    fn itself(&self, below: &'a str, head: &'a Parts) -> Result<Original<'a>, Error> {
        if let Some(proto) = self.one(FORWARDED_PROTO)? {
            https(FORWARDED_PROTO, proto)?;
        }
        if below.is_empty() {
            return Err(Error::Missing("path"));
        }
        // HTTP/2 says it by `:authority`, and may say it by `Host` as well (RFC 9113 §8.3.1).
        let host = self.one(HOST)?.map(|host| parse_host(HOST, host)).transpose()?;
        let authority = head.uri.authority().map(|authority| parse_host(HOST, authority.as_str())).transpose()?;
        let host = match (authority, host) {
            (Some(authority), Some(host)) if authority != host => return Err(Error::Contradictory(HOST)),
            (Some(host), _) | (None, Some(host)) => host,
            (None, None) => return Err(Error::Missing(HOST)),
        };
        Original::of(head.method.clone(), host, (below, head.uri.query()))
    }
}

/// `wss` is what Traefik calls HTTPS for a WebSocket's handshake.
pub(super) fn https(name: &'static str, scheme: &str) -> Result<(), Error> {
    match scheme {
        secure if secure.eq_ignore_ascii_case("https") || secure.eq_ignore_ascii_case("wss") => Ok(()),
        clear if clear.eq_ignore_ascii_case("http") || clear.eq_ignore_ascii_case("ws") => Err(Error::NotHttps),
        list if list.contains(',') => Err(Error::Repeated(name)),
        _ => Err(Error::Malformed(name)),
    }
}

pub(super) fn parse_method(name: &'static str, text: &str) -> Result<Method, Error> {
    if text.contains(',') {
        return Err(Error::Repeated(name));
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| Error::Malformed(name))
}

pub(super) fn parse_host<'a>(name: &'static str, text: &'a str) -> Result<Cow<'a, str>, Error> {
    // A comma may stand in a registered name (RFC 3986 §3.2.2), but no host has one: it is two values joined.
    if text.contains(',') {
        return Err(Error::Repeated(name));
    }
    if !host::is_authority(text.as_bytes()) {
        return Err(Error::Malformed(name));
    }
    let host = host::of_authority(text);
    if host.is_empty() { Err(Error::Malformed(name)) } else { Ok(host) }
}

/// Path and query of an origin-form (RFC 9112 §3.2.1). A comma may stand in both; space may not, and is what two values are
/// joined with.
pub(super) fn parse_target<'a>(name: &'static str, text: &'a str) -> Result<(&'a str, Option<&'a str>), Error> {
    if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        return Err(Error::Repeated(name));
    }
    if !text.starts_with('/') {
        return Err(Error::Malformed(name));
    }
    Ok(text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query))))
}

#[cfg(test)]
mod tests;
