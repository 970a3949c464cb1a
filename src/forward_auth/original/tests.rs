//! Reading: each contract line by line, and whatever a client could slip in.

use proptest::prelude::*;

use super::super::tests::{PROXY, head};
use super::*;

fn trusted() -> TrustedProxies {
    TrustedProxies::new(&["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()])
}

/// Method, host, path, query and client in one line.
fn read(text: &str) -> Result<String, Error> {
    read_by(PROXY, text)
}

fn read_by(peer: Peer, text: &str) -> Result<String, Error> {
    let head = head(text);
    let (contract, below) = Contract::of(head.uri.path()).unwrap();
    let original = Original::read(contract, below, &head, &trusted(), peer)?;
    let Original { method, host, path, query, client } = original;
    Ok(format!("{method} {host} {path} {} {client}", query.unwrap_or("-")))
}

const AUTH_REQUEST: &str = "GET /authz/auth-request HTTP/1.1
    Host: keybearer.internal
    X-Original-URI: /a%7eb?x=%2e%2e/
    X-Original-Method: PUT
    X-Forwarded-Host: API.Example.com:8443
    X-Forwarded-Proto: https
    X-Forwarded-For: 203.0.113.7";

const AUTH_REQUEST_URL: &str = "GET /authz/auth-request HTTP/1.1
    Host: keybearer.internal
    X-Original-URL: https://API.Example.com:8443/a%7eb?x=%2e%2e/
    X-Original-Method: PUT
    X-Forwarded-For: 203.0.113.7";

const FORWARD_AUTH: &str = "GET /authz/forward-auth HTTP/1.1
    Host: keybearer.internal
    X-Forwarded-Uri: /a%7eb?x=%2e%2e/
    X-Forwarded-Method: PUT
    X-Forwarded-Host: API.Example.com:8443
    X-Forwarded-Proto: https
    X-Forwarded-For: 203.0.113.7";

const HAPROXY: &str = "HEAD /authz/haproxy HTTP/1.1
    Host: keybearer.internal
    X-Original-URI: /a%7eb?x=%2e%2e/
    X-Original-Method: PUT
    X-Forwarded-Host: API.Example.com:8443
    X-Forwarded-Proto: https
    X-Forwarded-For: 203.0.113.7";

const EXT_AUTHZ: &str = "PUT /authz/ext-authz/a%7eb?x=%2e%2e/ HTTP/1.1
    Host: API.Example.com:8443
    X-Forwarded-Proto: https
    X-Forwarded-For: 203.0.113.7";

const ALL: [&str; 5] = [AUTH_REQUEST, AUTH_REQUEST_URL, FORWARD_AUTH, HAPROXY, EXT_AUTHZ];

/// The lines of a request but one.
fn without(text: &str, name: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().starts_with(&format!("{name}:"))).collect();
    assert!(lines.len() < text.lines().count(), "{name} is not there");
    lines.join("\n")
}

fn with(text: &str, line: &str) -> String {
    format!("{text}\n{line}")
}

#[test]
fn each_contract_tells_of_the_same_request() {
    for text in ALL {
        assert_eq!(read(text).as_deref(), Ok("PUT api.example.com /a~b x=%2e%2e/ 203.0.113.7"), "{text}");
    }
}

#[test]
fn what_is_missing_is_missed() {
    for text in [AUTH_REQUEST, HAPROXY] {
        for name in [ORIGINAL_URI, ORIGINAL_METHOD, FORWARDED_HOST, FORWARDED_PROTO, FORWARDED_FOR] {
            assert_eq!(read(&without(text, name)), Err(Error::Missing(name)));
            let emptied = with(&without(text, name), &format!("{name}:"));
            if name != FORWARDED_FOR {
                assert_eq!(read(&emptied), Err(Error::Missing(name)), "empty");
            }
        }
    }
    for name in [FORWARDED_URI, FORWARDED_METHOD, FORWARDED_HOST, FORWARDED_PROTO, FORWARDED_FOR] {
        assert_eq!(read(&without(FORWARD_AUTH, name)), Err(Error::Missing(name)));
    }
    for name in [ORIGINAL_METHOD, FORWARDED_FOR] {
        assert_eq!(read(&without(AUTH_REQUEST_URL, name)), Err(Error::Missing(name)));
    }
    assert_eq!(read(&without(EXT_AUTHZ, "Host")), Err(Error::Missing(HOST)));
    assert_eq!(read(&EXT_AUTHZ.replace("/a%7eb?x=%2e%2e/", "")), Err(Error::Missing("path")), "never the root");
    // Envoy tells of scheme and hops where it is configured to.
    assert!(read(&without(EXT_AUTHZ, FORWARDED_PROTO)).is_ok());
    assert_eq!(read(&without(EXT_AUTHZ, FORWARDED_FOR)).as_deref(), Ok("PUT api.example.com /a~b x=%2e%2e/ 127.0.0.1"));
}

#[test]
fn what_is_said_twice_is_not_believed() {
    for text in ALL {
        for name in [ORIGINAL_URI, ORIGINAL_URL, ORIGINAL_METHOD, FORWARDED_URI, FORWARDED_METHOD, FORWARDED_HOST, HOST]
        {
            let Some(line) = text.lines().find(|line| line.trim().starts_with(&format!("{name}:"))) else { continue };
            if name == HOST && text != EXT_AUTHZ {
                continue;
            }
            // Even what agrees: which of two counts must not depend on who reads.
            assert_eq!(read(&with(text, line)), Err(Error::Repeated(name)));
            let joined = text.replace(line, &format!("{line}, other"));
            assert!(matches!(read(&joined), Err(Error::Repeated(_))), "{joined}");
        }
    }
    assert_eq!(read(&with(FORWARD_AUTH, "X-Forwarded-Proto: https")), Err(Error::Repeated(FORWARDED_PROTO)));
    assert_eq!(
        read(&FORWARD_AUTH.replace("Proto: https", "Proto: https, http")),
        Err(Error::Repeated(FORWARDED_PROTO))
    );
}

#[test]
fn a_comma_may_stand_in_a_path() {
    let text = FORWARD_AUTH.replace("/a%7eb", "/a,/b");
    assert_eq!(read(&text).as_deref(), Ok("PUT api.example.com /a,/b x=%2e%2e/ 203.0.113.7"));
}

#[test]
fn what_contradicts_is_not_believed() {
    for (line, verdict) in [
        ("X-Original-URI: /a%7eb?x=%2e%2e/", Ok(())),
        ("X-Original-URI: /other", Err(Error::Contradictory(ORIGINAL_URI))),
        ("X-Original-URI: /a~b?x=%2e%2e/", Err(Error::Contradictory(ORIGINAL_URI))),
        ("X-Forwarded-Host: api.example.com", Ok(())),
        ("X-Forwarded-Host: other.example.com", Err(Error::Contradictory(FORWARDED_HOST))),
        ("X-Forwarded-Proto: https", Ok(())),
        ("X-Forwarded-Proto: http", Err(Error::NotHttps)),
    ] {
        assert_eq!(read(&with(AUTH_REQUEST_URL, line)).map(|_| ()), verdict, "{line}");
    }
    // With HTTP/2 the host comes twice at times.
    let text = EXT_AUTHZ.replace("PUT /", "PUT https://api.example.com/").replace("HTTP/1.1", "HTTP/2");
    assert!(read(&text).is_ok());
    assert!(read(&without(&text, "Host")).is_ok());
    let text = text.replace("https://api.", "https://other.");
    assert_eq!(read(&text), Err(Error::Contradictory(HOST)));
}

#[test]
fn what_is_malformed_is_not_believed() {
    for (from, to, error) in [
        ("URI: /a", "URI: a", Error::Malformed(ORIGINAL_URI)),
        ("URI: /a", "URI: https://api.example.com/a", Error::Malformed(ORIGINAL_URI)),
        ("URI: /a", "URI: *", Error::Malformed(ORIGINAL_URI)),
        ("URI: /a", "URI: ?a", Error::Malformed(ORIGINAL_URI)),
        ("URI: /a", "URI: /b /a", Error::Repeated(ORIGINAL_URI)),
        ("Method: PUT", "Method: PU T", Error::Malformed(ORIGINAL_METHOD)),
        ("Method: PUT", "Method: PUT/1", Error::Malformed(ORIGINAL_METHOD)),
        ("Host: API.Example.com:8443", "Host: user@api.example.com", Error::Malformed(FORWARDED_HOST)),
        ("Host: API.Example.com:8443", "Host: api.example.com/x", Error::Malformed(FORWARDED_HOST)),
        ("Host: API.Example.com:8443", "Host: .", Error::Malformed(FORWARDED_HOST)),
        ("Host: API.Example.com:8443", "Host: [::1", Error::Malformed(FORWARDED_HOST)),
        ("Proto: https", "Proto: httpss", Error::Malformed(FORWARDED_PROTO)),
        ("Proto: https", "Proto: http", Error::NotHttps),
        ("Proto: https", "Proto: ws", Error::NotHttps),
        ("URI: /a", "URI: /a/../b", Error::Ambiguous(Ambiguous::DotSegment)),
        ("URI: /a", "URI: /b#/a", Error::Ambiguous(Ambiguous::Character)),
        ("URI: /a", "URI: /ä", Error::Ambiguous(Ambiguous::Character)),
    ] {
        let text = AUTH_REQUEST.replace(from, to);
        assert_ne!(text, AUTH_REQUEST, "{from}");
        assert_eq!(read(&text), Err(error), "{to}");
    }
    for url in ["api.example.com/a", "https:/a", "https://", "https://api.example.com", "https://api.example.com?a"] {
        let text = with(&without(AUTH_REQUEST_URL, ORIGINAL_URL), &format!("X-Original-URL: {url}"));
        assert_eq!(read(&text), Err(Error::Malformed(ORIGINAL_URL)), "{url}");
    }
    let text = with(&without(AUTH_REQUEST_URL, ORIGINAL_URL), "X-Original-URL: http://api.example.com/a");
    assert_eq!(read(&text), Err(Error::NotHttps));
    assert!(read(&AUTH_REQUEST.replace("Proto: https", "Proto: WSS")).is_ok(), "a WebSocket by TLS");
    for (method, valid) in [("M-SEARCH", true), ("get", true), ("GE(T", false)] {
        assert_eq!(read(&AUTH_REQUEST.replace("Method: PUT", &format!("Method: {method}"))).is_ok(), valid, "{method}");
    }
}

#[test]
fn the_client_is_the_nearest_hop_that_is_not_trusted() {
    let client = |peer, hops: &str| {
        let text = FORWARD_AUTH.replace("For: 203.0.113.7", &format!("For: {hops}"));
        read_by(peer, &text).unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(client(PROXY, "6.6.6.6, 203.0.113.7"), "203.0.113.7");
    assert_eq!(client(PROXY, "6.6.6.6, 203.0.113.7, 10.0.0.9"), "203.0.113.7");
    assert_eq!(client(PROXY, "ä, 203.0.113.7"), "203.0.113.7");
    assert_eq!(client(PROXY, "203.0.113.7, unix:"), "127.0.0.1", "it names no address");
    assert_eq!(client(Peer::Unix, "6.6.6.6, [2001:db8::1]:443"), "2001:db8::1");
    let text = with(FORWARD_AUTH, "X-Forwarded-For: 198.51.100.1, 10.0.0.3");
    assert!(read(&text).unwrap().ends_with(" 198.51.100.1"), "several lines are one list");
}

#[test]
fn each_error_has_its_word() {
    let word = |error: Error| Refusal::from(error).reason();
    assert_eq!(word(Error::NotHttps), "not_https");
    assert_eq!(word(Error::Ambiguous(Ambiguous::Slash)), "ambiguous_path");
    for error in [Error::Missing("X"), Error::Repeated("X"), Error::Malformed("X"), Error::Contradictory("X")] {
        assert_eq!(word(error), "original_request");
    }
}

proptest! {
    #[test]
    fn a_path_is_the_normal_one_or_none(uri in "/[ -~äß]{0,40}") {
        // A header's value has no space around it.
        let uri = uri.trim_end();
        for text in [AUTH_REQUEST, FORWARD_AUTH, HAPROXY] {
            let mut head = head(text);
            for name in ["x-original-uri", "x-forwarded-uri"] {
                if head.headers.contains_key(name) {
                    head.headers.insert(name, http::HeaderValue::from_bytes(uri.as_bytes()).unwrap());
                }
            }
            let (contract, below) = Contract::of(head.uri.path()).unwrap();
            let path = uri.split('?').next().unwrap();
            match Original::read(contract, below, &head, &trusted(), PROXY) {
                Ok(original) => prop_assert_eq!(Ok(original.path), normalise(path)),
                Err(Error::Ambiguous(why)) => prop_assert_eq!(normalise(path), Err(why)),
                Err(error) => prop_assert!(uri.contains(' '), "{error}"),
            }
        }
    }

    #[test]
    fn any_bytes_in_any_header_are_read_or_refused(
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 7),
        names in proptest::collection::vec(0_usize..7, 0..9),
    ) {
        const NAMES: [&str; 7] = [
            "x-original-uri", "x-original-url", "x-original-method", "x-forwarded-uri", "x-forwarded-host",
            "x-forwarded-proto", "x-forwarded-for",
        ];
        for text in ALL {
            let mut head = head(text);
            for at in &names {
                if let Ok(value) = http::HeaderValue::from_bytes(&values[*at]) {
                    head.headers.append(NAMES[*at], value);
                }
            }
            let (contract, below) = Contract::of(head.uri.path()).unwrap();
            if let Ok(original) = Original::read(contract, below, &head, &trusted(), PROXY) {
                prop_assert_eq!(normalise(&original.path), Ok(original.path.clone()));
                prop_assert!(host::is_authority(original.host.as_bytes()));
            }
        }
    }

    #[test]
    fn any_url_is_read_or_refused(url in "(https://)?[a-c:@/?#.\\[\\]%, -]{0,30}") {
        let mut head = head(AUTH_REQUEST_URL);
        head.headers.insert("x-original-url", http::HeaderValue::from_str(&url).unwrap());
        let _ = Original::read(Contract::AuthRequest, "", &head, &trusted(), PROXY);
    }
}
