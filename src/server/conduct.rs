//! Rules of HTTP that `hyper` leaves to us, checked before a request is looked at any further.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, Version};
use hyper::ext::Protocol;

use crate::exchange::Refusal;
use crate::problem::Kind;
use crate::routes::host::{is_authority, of_authority};

const LENGTH_AND_ENCODING: &str = "length_and_encoding";
const TRANSFER_CODING: &str = "transfer_coding";

/// What must be so for every request, on any path.
///
/// # Errors
/// The refusal.
pub fn check(head: &Parts, header_bytes: usize) -> Result<(), Refusal> {
    // 32 bytes a line are HPACK's reckoning (RFC 7541 §4.1), and about right for HTTP/1.1 too.
    let size: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    if size + head.uri.path().len() + head.uri.query().map_or(0, str::len) > header_bytes {
        let detail = format!("Path and header fields may have {header_bytes} bytes together.");
        return Err(Refusal::new(Kind::HeadersTooLarge, "headers_too_large", detail));
    }
    if head.method == Method::TRACE || (head.method == Method::CONNECT && !opens_web_socket(head)) {
        // TRACE would send credentials back (RFC 9110 §9.3.8), CONNECT is for forward proxies.
        let detail = "TRACE and CONNECT are not answered here.";
        return Err(Refusal::new(Kind::MethodNotAllowed, "method_not_allowed", detail)
            .allow("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    host(head)?;
    framing(head)
}

/// Whether the connection must end with a refusal: where the request ends is not certain, so neither is where the next one
/// begins.
pub fn ends_connection(refusal: &Refusal) -> bool {
    matches!(refusal.reason(), LENGTH_AND_ENCODING | TRANSFER_CODING)
}

/// RFC 9112 §6: what a request says of its own end. A length beside chunks is how requests are smuggled (§6.3), and content
/// in a transfer coding that is not undone here would mean something else behind us, where its name does not get.
fn framing(head: &Parts) -> Result<(), Refusal> {
    let Some(encoding) = head.headers.get(TRANSFER_ENCODING) else { return Ok(()) };
    if head.headers.contains_key(CONTENT_LENGTH) {
        let detail = "Content-Length and Transfer-Encoding exclude each other.";
        return Err(Refusal::new(Kind::MalformedRequest, LENGTH_AND_ENCODING, detail));
    }
    let is_chunked = encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if !is_chunked || head.headers.get_all(TRANSFER_ENCODING).iter().count() > 1 {
        let detail = "The only transfer coding that is understood is chunked.";
        return Err(Refusal::new(Kind::MalformedRequest, TRANSFER_CODING, detail));
    }
    Ok(())
}

/// Whether it asks for a WebSocket on an HTTP/2 stream (RFC 8441 §4).
pub fn opens_web_socket(head: &Parts) -> bool {
    head.method == Method::CONNECT
        && head.extensions.get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// Whether there is more than one `Authorization` line: two readers could take either.
pub fn has_several_authorizations(head: &Parts) -> bool {
    let mut values = head.headers.get_all(AUTHORIZATION).iter();
    values.next().is_some() && values.next().is_some()
}

/// RFC 9112 §3.2: missing, repeated or malformed is 400. With HTTP/2 `:authority` takes its place, and a `Host` beside it
/// must be the same (RFC 9113 §8.3.1).
fn host(head: &Parts) -> Result<(), Refusal> {
    let refuse = |reason, detail: &str| Err(Refusal::new(Kind::MalformedRequest, reason, detail));
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return refuse("several_hosts", "There is more than one Host header.");
    }
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let named = match (host, authority) {
        (Some(host), _) => host.as_bytes(),
        (None, Some(authority)) if head.version >= Version::HTTP_2 => authority,
        (None, None) if head.version <= Version::HTTP_10 => return Ok(()),
        (None, _) => return refuse("no_host", "There is no Host header."),
    };
    if !is_authority(named) {
        return refuse("malformed_host", "The Host header is not a host name or address with an optional port.");
    }
    // A request line may name a host too (RFC 9112 §3.2.2): of two that differ, two readers could take either.
    if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(named)) {
        return refuse("other_host", "The Host header is not the authority that the request is for.");
    }
    Ok(())
}

/// The host that a request is for, in its one spelling; empty when it names none (HTTP/1.0). [`check`] found it good.
pub fn host_of(head: &Parts) -> Cow<'_, str> {
    let authority = match head.headers.get(HOST) {
        Some(host) => host.to_str().unwrap_or_default(),
        None => head.uri.authority().map_or("", |authority| authority.as_str()),
    };
    of_authority(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn word(request: http::request::Builder) -> Option<u16> {
        let (head, ()) = request.body(()).unwrap().into_parts();
        check(&head, 4096).err().map(|refusal| refusal.kind().status())
    }

    fn get() -> http::request::Builder {
        Request::get("/")
    }

    #[test]
    fn host_is_there_once_and_well_formed() {
        for good in ["localhost", "localhost:8443", "127.0.0.1", "[::1]:8443", "a.example.:80", "x:"] {
            assert_eq!(word(get().header(HOST, good)), None, "{good}");
        }
        for bad in ["", "a b", "user@host", "a/b", "host:x", "host:99999", "[::1", "a,b c", ":80", "ä"] {
            assert_eq!(word(get().header(HOST, bad.as_bytes())), Some(400), "{bad}");
        }
        assert_eq!(word(get()), Some(400));
        assert_eq!(word(get().version(Version::HTTP_10)), None);
        assert_eq!(word(get().header(HOST, "a").header(HOST, "a")), Some(400));
    }

    #[test]
    fn in_http_2_the_authority_takes_the_place_of_host() {
        let get = |uri: &str| Request::get(uri).version(Version::HTTP_2);
        assert_eq!(word(get("https://a.example/")), None);
        assert_eq!(word(get("https://a.example/").header(HOST, "A.example")), None);
        assert_eq!(word(get("https://a.example/").header(HOST, "b.example")), Some(400));
        assert_eq!(word(get("https://user@a.example/")), Some(400));
        assert_eq!(word(get("/")), Some(400));
        let absolute = Request::get("https://a.example/").header(HOST, "b.example");
        assert_eq!(word(absolute), Some(400), "in HTTP/1.1 the request line may name one too");
    }

    #[test]
    fn trace_and_connect_are_off_and_large_heads_are_refused() {
        assert_eq!(word(Request::builder().method("TRACE").uri("/").header(HOST, "a")), Some(405));
        assert_eq!(word(get().header(HOST, "a").header("x-large", "x".repeat(5000))), Some(431));
        assert_eq!(
            word(get().header(HOST, "a").header("content-length", "1").header("transfer-encoding", "chunked")),
            Some(400)
        );
        let encoded = |coding: &str| word(get().header(HOST, "a").header("transfer-encoding", coding));
        assert_eq!((encoded("chunked"), encoded("Chunked")), (None, None));
        for other in ["gzip, chunked", "chunked, identity", "chunked, chunked", "xchunked", "identity", ""] {
            assert_eq!(encoded(other), Some(400), "{other}");
        }
        let twice =
            get().header(HOST, "a").header("transfer-encoding", "chunked").header("transfer-encoding", "chunked");
        assert_eq!(word(twice), Some(400));
    }
}
