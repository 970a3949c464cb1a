//! Rules of HTTP that `hyper` leaves to us, checked before a request is looked at any further.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, Version};

use crate::exchange::Refusal;
use crate::problem::Kind;

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
    if head.method == Method::TRACE || head.method == Method::CONNECT {
        // TRACE would send credentials back (RFC 9110 §9.3.8), CONNECT is for forward proxies.
        let detail = "TRACE and CONNECT are not answered here.";
        return Err(Refusal::new(Kind::MethodNotAllowed, "method_not_allowed", detail)
            .allow("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    host(head)?;
    if head.headers.contains_key(TRANSFER_ENCODING) && head.headers.contains_key(CONTENT_LENGTH) {
        let detail = "Content-Length and Transfer-Encoding exclude each other.";
        return Err(Refusal::new(Kind::MalformedRequest, "length_and_encoding", detail));
    }
    Ok(())
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
    let authority = head.uri.authority();
    let Some(host) = host else {
        return match head.version {
            Version::HTTP_09 | Version::HTTP_10 => Ok(()),
            _ if head.version >= Version::HTTP_2 && authority.is_some() => Ok(()),
            _ => refuse("no_host", "There is no Host header."),
        };
    };
    if !is_authority(host.as_bytes()) {
        return refuse("malformed_host", "The Host header is not a host name or address with an optional port.");
    }
    if head.version >= Version::HTTP_2
        && authority.is_some_and(|authority| !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()))
    {
        return refuse("other_host", "The Host header is not the :authority of the request.");
    }
    Ok(())
}

/// `uri-host [":" port]` (RFC 3986 §3.2.2), without user information.
fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let Ok(address) = std::str::from_utf8(&rest[..end]) else { return false };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (&rest[..end], &rest[end + 1..])
        }
        _ => {
            let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            let (host, port) = text.split_at(end);
            let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
            if !host.iter().all(is_name) {
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
        assert_eq!(word(get("/")), Some(400));
    }

    #[test]
    fn trace_and_connect_are_off_and_large_heads_are_refused() {
        assert_eq!(word(Request::builder().method("TRACE").uri("/").header(HOST, "a")), Some(405));
        assert_eq!(word(get().header(HOST, "a").header("x-large", "x".repeat(5000))), Some(431));
        assert_eq!(
            word(get().header(HOST, "a").header("content-length", "1").header("transfer-encoding", "chunked")),
            Some(400)
        );
    }
}
