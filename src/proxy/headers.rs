//! What a request's fields become on their way to an upstream, and an answer's on their way back (RFC 9110 §7.6).
//!
//! Three things come off a request: what is for this hop alone, what would be the gateway's own word, and the credentials
//! that the guard has read by then. Then the gateway says its own. Knows neither routes nor upstreams: `Host` and the
//! framing of the content are for who writes the message.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, EXPECT, FORWARDED, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    STRICT_TRANSPORT_SECURITY, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::trace::{TRACEPARENT, TRACESTATE, is_traced, write_trace};
use crate::access::IdentityHeaders;
use crate::access::identity::{is_other_method, is_ours};
use crate::ids::RequestId;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the gateway calls itself in `Via`: a pseudonym, so that no host name gets out (RFC 9110 §7.6.3).
const PSEUDONYM: &str = "keybearer";

/// How often a request may have been here. Some installations have gateways behind gateways, but not this many.
const MOST_PASSES: usize = 8;

/// Fields for one hop alone, which go whether or not `Connection` names them (RFC 9110 §7.6.1), by their place in [`hop`].
/// `Trailer` is not among them: it describes the content (§6.6.2).
static HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
];

fn hop(name: &str) -> Option<usize> {
    Some(match name {
        "connection" => 0,
        "te" => 1,
        "keep-alive" => 2,
        "proxy-connection" => 3,
        "proxy-authenticate" => 4,
        "proxy-authorization" => 5,
        "proxy-authentication-info" => 6,
        "transfer-encoding" => 7,
        "upgrade" => 8,
        "http2-settings" => 9,
        _ => return None,
    })
}

/// Fields that stay though `Connection` names them. Whoever names one of these wants a request understood differently
/// behind the gateway than before it: RFC 9110 §7.6.1 forbids senders to name what is meant for all recipients.
fn is_protected(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "host"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "cookie"
            | "set-cookie"
            | "expect"
            | "cache-control"
            | "trailer"
            | "via"
            | "traceparent"
            | "tracestate"
    ) || is_ours(name)
}

/// The request has been here too often: an upstream leads back to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopDetected;

impl std::fmt::Display for LoopDetected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the request has passed the gateway more than {MOST_PASSES} times")
    }
}

impl std::error::Error for LoopDetected {}

/// A request on its way to an upstream: what the gateway has to say about it.
#[derive(Debug)]
pub struct Onward<'a> {
    /// The version of HTTP that it was received by.
    pub version: Version,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Where that is a trusted proxy, the hops before it; see [`chain`]. `None` where the peer is the client.
    pub chain: Option<&'a str>,
    /// The client's `Host` or `:authority`, as sent.
    pub host: &'a str,
    /// Its number.
    pub request: RequestId,
    /// Whether the upstream gets the client's `Authorization`.
    pub pass_credentials: bool,
    /// Who it is from, where the upstream is told.
    pub identity: Option<IdentityHeaders>,
}

impl Onward<'_> {
    /// Makes a request's fields those that the upstream gets. `trace` gives 24 unpredictable bytes, and is asked only where
    /// a trace is begun.
    ///
    /// An `Expect: 100-continue` goes: the server's side of `hyper` answers it when the content is first read, which is when
    /// the upstream takes it, so each hop's wait is its own (RFC 9110 §10.1.1).
    ///
    /// # Errors
    /// [`LoopDetected`].
    pub fn apply(self, headers: &mut HeaderMap, trace: impl FnOnce() -> [u8; 24]) -> Result<(), LoopDetected> {
        if passes(headers) > MOST_PASSES {
            return Err(LoopDetected);
        }
        let seen = Seen::of(headers);
        seen.take_off(headers);
        if seen.credentials && !self.pass_credentials {
            headers.remove(AUTHORIZATION);
        }
        if seen.expect {
            headers.remove(EXPECT);
        }
        if seen.cookies && self.version >= Version::HTTP_2 {
            join_cookies(headers);
        }
        let traced = seen.trace && is_traced(headers);
        if seen.trace && !traced {
            headers.remove(TRACESTATE);
        }

        // One allocation for all values, which are slices of it; and one for the places.
        let mut text = Vec::with_capacity(320);
        let peer = self.write_addresses(&mut text);
        let addresses = text.len();
        text.extend_from_slice(self.host.as_bytes());
        let host = text.len();
        self.write_forwarded(&mut text, peer);
        let forwarded = text.len();
        text.extend_from_slice(self.request.write(&mut [0; 16]));
        let request = text.len();
        if !traced {
            write_trace(&mut text, trace());
        }
        let text = Bytes::from(text);
        let _ = headers.try_reserve(12);
        let mut set =
            |name: HeaderName, from: usize, to: usize| match HeaderValue::from_maybe_shared(text.slice(from..to)) {
                Ok(value) => drop(headers.insert(name, value)),
                // No host that was let in has a character that a field may not have; if it had, nothing is said.
                Err(_) => drop(headers.remove(name)),
            };
        set(X_FORWARDED_FOR, 0, addresses);
        set(X_FORWARDED_HOST, addresses, host);
        set(FORWARDED, host, forwarded);
        set(X_REQUEST_ID, forwarded, request);
        if !traced {
            set(TRACEPARENT, request, text.len());
        }
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        headers.append(VIA, via(self.version));
        for (name, value) in self.identity.into_iter().flatten() {
            headers.insert(name, value);
        }
        Ok(())
    }

    /// `X-Forwarded-For`: the hops before a trusted proxy as it told them, and the other end of the connection. Where that
    /// is written, so that it need not be spelled out twice.
    fn write_addresses(&self, text: &mut Vec<u8>) -> Range<usize> {
        if let Some(chain) = self.chain.filter(|chain| !chain.is_empty()) {
            text.extend_from_slice(chain.as_bytes());
            text.extend_from_slice(b", ");
        }
        let from = text.len();
        match self.peer.to_canonical() {
            IpAddr::V4(address) => write_ipv4(text, address),
            IpAddr::V6(address) => drop(write!(text, "{address}")),
        }
        from..text.len()
    }

    /// `Forwarded` (RFC 7239 §4): the same hops, and what the client asked for.
    fn write_forwarded(&self, text: &mut Vec<u8>, peer: Range<usize>) {
        for hop in self.chain.into_iter().flat_map(|chain| chain.split(',')) {
            match address(hop.trim()) {
                Some(IpAddr::V4(address)) => drop(write!(text, "for={address}")),
                Some(IpAddr::V6(address)) => drop(write!(text, "for=\"[{address}]\"")),
                None => text.extend_from_slice(b"for=unknown"),
            }
            text.extend_from_slice(b", ");
        }
        // Quoted and bracketed where it is of IPv6 (RFC 7239 §6).
        let (before, after) = if self.peer.to_canonical().is_ipv4() { ("for=", "") } else { ("for=\"[", "]\"") };
        text.extend_from_slice(before.as_bytes());
        text.extend_from_within(peer);
        text.extend_from_slice(after.as_bytes());
        if self.host.is_empty() {
            // HTTP/1.0 may name none.
        } else if self.host.bytes().all(is_token) {
            text.extend_from_slice(b";host=");
            text.extend_from_slice(self.host.as_bytes());
        } else {
            // A colon is enough to ask for quotes (RFC 7239 §4).
            text.extend_from_slice(b";host=\"");
            for (place, part) in self.host.as_bytes().chunk_by(|_, next| !matches!(next, b'"' | b'\\')).enumerate() {
                if place > 0 || matches!(part, [b'"' | b'\\', ..]) {
                    text.push(b'\\');
                }
                text.extend_from_slice(part);
            }
            text.push(b'"');
        }
        text.extend_from_slice(b";proto=https");
    }
}

/// The hops that a trusted proxy tells of, in the form of `X-Forwarded-For`: that field's lines, or else the `for` of
/// `Forwarded`. `None` where it tells of none.
pub fn chain(headers: &HeaderMap) -> Option<String> {
    let lines = |name: HeaderName| headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    let join = |mut all: String, hop: &str| {
        if !hop.is_empty() {
            all.push_str(if all.is_empty() { "" } else { ", " });
            all.push_str(hop);
        }
        all
    };
    let mut chain = lines(X_FORWARDED_FOR).flat_map(|line| line.split(',')).map(str::trim).fold(String::new(), join);
    if chain.is_empty() {
        // What a quoted comma would break apart names no address, and is nothing that is handed on.
        let hops = lines(FORWARDED).flat_map(|line| line.split(','));
        let nodes = hops.flat_map(|hop| hop.split(';')).filter_map(|pair| {
            let (name, node) = pair.split_once('=')?;
            let address = address(node.trim().trim_matches('"'));
            name.trim().eq_ignore_ascii_case("for").then(|| address.map_or("unknown".into(), |it| it.to_string()))
        });
        chain = nodes.fold(String::new(), |all, node| join(all, &node));
    }
    (!chain.is_empty()).then_some(chain)
}

/// Makes an answer's fields those that the client gets. `version` is the one that the upstream answered by. What an upstream
/// says under a name of ours stays: it is behind the guard.
pub fn homeward(headers: &mut HeaderMap, version: Version) {
    Seen::of(headers).take_off_answer(headers);
    // The gateway says its own: an upstream that knows nothing of HTTPS must not take it back.
    headers.remove(STRICT_TRANSPORT_SECURITY);
    headers.append(VIA, via(version));
}

/// Says that a connection is to become one of `protocol` (RFC 9110 §7.8): on a request after [`Onward::apply`] and before
/// [`name_te`], and on a 101 after [`homeward`].
pub fn upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Drops what names another method than the request's, in whichever spelling: for a route that has some methods and not others.
pub fn drop_other_methods(headers: &mut HeaderMap) {
    let others: Vec<HeaderName> = headers.keys().filter(|name| is_other_method(name.as_str())).cloned().collect();
    for name in others {
        headers.remove(name);
    }
}

/// Completes a request's fields for an upstream by HTTP/1.1, where `TE` is for the hop and has to be named as such
/// (RFC 9110 §10.1.4). By HTTP/2 it goes as it is (RFC 9113 §8.2.2).
pub fn name_te(headers: &mut HeaderMap) {
    if headers.contains_key(TE) {
        headers.append(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Takes out of a trailer section what must not stand in one (RFC 9110 §6.5.1): a server that merges trailers into the
/// header section would take it for what the gateway said.
pub fn trailers(trailers: &mut HeaderMap) {
    let belongs_in_a_head = |name: &str| {
        hop(name).is_some()
            || is_ours(name)
            || matches!(
                name,
                "authorization"
                    | "content-encoding"
                    | "content-length"
                    | "content-range"
                    | "content-type"
                    | "cookie"
                    | "expect"
                    | "host"
                    | "set-cookie"
                    | "trailer"
                    | "traceparent"
                    | "tracestate"
                    | "via"
            )
    };
    let misplaced: Vec<HeaderName> = trailers.keys().filter(|name| belongs_in_a_head(name.as_str())).cloned().collect();
    for name in misplaced {
        trailers.remove(name);
    }
}

const CONNECTION_PLACE: usize = 0;
const TE_PLACE: usize = 1;

/// What one look at all names has found. Most requests have one or two of these, and removing what is not there costs as
/// much as removing what is.
#[derive(Debug, Default)]
struct Seen {
    /// By place in [`HOP_BY_HOP`].
    hops: u16,
    credentials: bool,
    cookies: bool,
    expect: bool,
    trace: bool,
    /// Names of ours that nothing is set under, or that only look like ours.
    look_alikes: Vec<HeaderName>,
}

impl Seen {
    fn of(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for name in headers.keys() {
            let text = name.as_str();
            if let Some(place) = hop(text) {
                seen.hops |= 1 << place;
                continue;
            }
            match text {
                "authorization" => seen.credentials = true,
                "cookie" => seen.cookies = true,
                "expect" => seen.expect = true,
                "traceparent" | "tracestate" => seen.trace = true,
                // These are set in any case, which drops what was there.
                "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" | "forwarded" | "x-request-id" => {}
                _ if is_ours(text) => seen.look_alikes.push(name.clone()),
                _ => {}
            }
        }
        seen
    }

    /// Takes off what is for this hop, and what would be the gateway's own word.
    fn take_off(&self, headers: &mut HeaderMap) {
        self.take_off_answer(headers);
        for name in &self.look_alikes {
            headers.remove(name);
        }
    }

    /// Takes off what is for this hop.
    fn take_off_answer(&self, headers: &mut HeaderMap) {
        if self.hops == 0 {
            return;
        }
        let wants_trailers = self.hops & 1 << TE_PLACE != 0 && wants_trailers(headers);
        if self.hops & 1 << CONNECTION_PLACE != 0 {
            take_off_named(headers);
        }
        for (place, name) in HOP_BY_HOP.iter().enumerate() {
            if self.hops & 1 << place != 0 {
                headers.remove(name);
            }
        }
        if wants_trailers {
            // Trailers are passed on, so the wish for them may be too.
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Takes off what `Connection` names.
fn take_off_named(headers: &mut HeaderMap) {
    let is_plain = |value: &HeaderValue| {
        ["keep-alive", "close", "upgrade"].iter().any(|option| value.as_bytes().eq_ignore_ascii_case(option.as_bytes()))
    };
    if headers.get_all(CONNECTION).iter().all(is_plain) {
        return;
    }
    let options: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    for option in options.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        // What is no name names nothing.
        if let Ok(name) = HeaderName::from_bytes(option.trim_ascii())
            && !is_protected(name.as_str())
        {
            headers.remove(name);
        }
    }
}

/// HTTP/2 may split a `Cookie` into lines, which are one again before anything else reads them (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(mut cookies) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        cookies.set_sensitive(true);
        headers.insert(COOKIE, cookies);
    }
}

/// Whether a `TE` has the member `trailers` (RFC 9110 §10.1.4).
fn wants_trailers(headers: &HeaderMap) -> bool {
    let mut members = headers.get_all(TE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// How often `Via` says that a message was here. What stands in a comment counts too: it harms only who wrote it.
fn passes(headers: &HeaderMap) -> usize {
    let lines = headers.get_all(VIA).into_iter();
    let hops = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let by = hops.filter_map(|hop| hop.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).nth(1));
    by.filter(|by| by.eq_ignore_ascii_case(PSEUDONYM.as_bytes())).count()
}

/// The gateway's entry in `Via`, with the version of what it received (RFC 9110 §7.6.3).
fn via(received: Version) -> HeaderValue {
    HeaderValue::from_static(match received {
        Version::HTTP_09 | Version::HTTP_10 => "1.0 keybearer",
        Version::HTTP_2 => "2 keybearer",
        Version::HTTP_3 => "3 keybearer",
        _ => "1.1 keybearer",
    })
}

/// An address with or without brackets and port.
fn address(node: &str) -> Option<IpAddr> {
    let bare = node.strip_prefix('[').and_then(|node| node.strip_suffix(']')).unwrap_or(node);
    let address = bare.parse().ok().or_else(|| node.parse().ok().map(|socket: SocketAddr| socket.ip()))?;
    Some(address.to_canonical())
}

/// An IPv4 address without the generality of `write!`: nearly every request has one.
fn write_ipv4(text: &mut Vec<u8>, address: Ipv4Addr) {
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push(b'.');
        }
        if octet >= 100 {
            text.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            text.push(b'0' + octet / 10 % 10);
        }
        text.push(b'0' + octet % 10);
    }
}

/// RFC 9110 §5.6.2. `matches!` and no search: every request's host is looked at.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

#[cfg(test)]
mod tests;
