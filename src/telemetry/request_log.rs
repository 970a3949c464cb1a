//! The request log: one line a request, written without passing through `tracing`, whose formatting alone would cost a
//! third of a guarded request.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::{Format, Sink};
use crate::clock::Timestamp;
use crate::ids::RequestId;

/// What a request's line says. Names are stable: they are what operators query by.
#[derive(Debug)]
pub struct RequestLine<'a> {
    /// When it was answered.
    pub at: Timestamp,
    /// `request.id`
    pub request: RequestId,
    /// `client.address`
    pub client: IpAddr,
    /// `http.version`
    pub version: http::Version,
    /// `http.method`
    pub method: &'a str,
    /// `http.path`: the path as matched, without the query.
    pub path: &'a str,
    /// `http.status`
    pub status: u16,
    /// `duration_us`
    pub duration: Duration,
    /// `route.id`
    pub route: &'a str,
    /// `account`
    pub account: Option<&'a str>,
    /// `key.id`
    pub key: Option<&'a str>,
    /// `token.id`
    pub token: Option<crate::ids::TokenId>,
    /// `reason`: why it was refused.
    pub reason: Option<&'static str>,
    /// What another proxy asked about.
    pub asked: Option<AskedLine<'a>>,
}

/// What a line says of the request that another proxy asked about.
#[derive(Debug)]
pub struct AskedLine<'a> {
    /// `asked.method`
    pub method: &'a str,
    /// `asked.path`
    pub path: &'a str,
    /// `asked.route.id`
    pub route: &'a str,
    /// `asked.client.address`
    pub client: IpAddr,
}

/// Writes request lines.
#[derive(Debug, Clone)]
pub struct RequestLog {
    sink: Sink,
    format: Format,
    /// What keys begin with, and an underscore: such a thing in a path is blanked.
    key_mark: String,
}

/// Neither a key nor a token that could be used is shorter than this.
const SHORTEST_SECRET: usize = 32;

/// The longest path in a line; what is beyond is cut.
const LONGEST_PATH: usize = 512;

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The last second written, as text.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

impl RequestLog {
    /// A log in this form.
    pub fn new(sink: Sink, format: Format, key_prefix: &str) -> Self {
        Self { sink, format, key_mark: format!("{key_prefix}_") }
    }

    /// Writes a line.
    pub fn write(&self, line: &RequestLine<'_>) {
        LINE.with_borrow_mut(|out| {
            out.clear();
            self.compose(out, line);
            self.sink.write(out, false);
        });
    }

    /// Composes a line from bytes: `core::fmt` would cost more than everything else that is done for a guarded request.
    /// Only the path and the method can hold what a client chose; every other field is an id, an address or a word of ours.
    fn compose(&self, out: &mut Vec<u8>, line: &RequestLine<'_>) {
        let form = match self.format {
            Format::Text => &TEXT,
            Format::Json => &JSON,
        };
        out.extend_from_slice(form.begin);
        time(out, line.at);
        out.extend_from_slice(form.method);
        out.extend_from_slice(line.method.as_bytes());
        out.extend_from_slice(form.path);
        self.path(out, line.path);
        out.extend_from_slice(form.status);
        number(out, u64::from(line.status));
        out.extend_from_slice(form.duration);
        number(out, micros(line.duration));
        let mut field = |name: &[u8], value: &[u8]| {
            out.extend_from_slice(name);
            out.extend_from_slice(value);
        };
        field(form.client, address(&mut [0; 48], line.client));
        field(form.route, line.route.as_bytes());
        if let Some(reason) = line.reason {
            field(form.reason, reason.as_bytes());
        }
        if let Some(account) = line.account {
            field(form.account, account.as_bytes());
        }
        if let Some(key) = line.key {
            field(form.key, key.as_bytes());
        }
        if let Some(token) = line.token {
            field(form.token, token.write(&mut [0; 22]));
        }
        if let Some(asked) = &line.asked {
            out.extend_from_slice(form.asked_method);
            out.extend_from_slice(asked.method.as_bytes());
            out.extend_from_slice(form.asked_path);
            self.path(out, asked.path);
            out.extend_from_slice(form.asked_route);
            out.extend_from_slice(asked.route.as_bytes());
            out.extend_from_slice(form.asked_client);
            out.extend_from_slice(address(&mut [0; 48], asked.client));
        }
        let mut field = |name: &[u8], value: &[u8]| {
            out.extend_from_slice(name);
            out.extend_from_slice(value);
        };
        field(form.request, line.request.write(&mut [0; 16]));
        field(form.version, version(line.version));
        out.extend_from_slice(form.end);
    }

    /// The path, with what could be a key or a token blanked, what could end a line or a JSON string escaped, and cut where
    /// it is longer than anyone reads.
    fn path(&self, out: &mut Vec<u8>, path: &str) {
        let blanked;
        let could_hold_a_secret = path.len() >= SHORTEST_SECRET;
        let path = if could_hold_a_secret && (path.contains(&self.key_mark) || path.contains("eyJ")) {
            blanked = blank(path, &self.key_mark);
            &blanked
        } else {
            path
        };
        let shown = &path.as_bytes()[..path.len().min(LONGEST_PATH)];
        if shown.iter().all(is_plain) {
            out.extend_from_slice(shown);
        } else {
            for byte in shown {
                if is_plain(byte) {
                    out.push(*byte);
                } else {
                    let _ = write!(out, "%{byte:02X}");
                }
            }
        }
        if shown.len() < path.len() {
            out.extend_from_slice(b"...");
        }
    }
}

/// What stands before each field. In JSON it also ends the field before.
struct Form {
    begin: &'static [u8],
    method: &'static [u8],
    path: &'static [u8],
    status: &'static [u8],
    duration: &'static [u8],
    client: &'static [u8],
    route: &'static [u8],
    reason: &'static [u8],
    account: &'static [u8],
    key: &'static [u8],
    token: &'static [u8],
    asked_method: &'static [u8],
    asked_path: &'static [u8],
    asked_route: &'static [u8],
    asked_client: &'static [u8],
    request: &'static [u8],
    version: &'static [u8],
    end: &'static [u8],
}

const TEXT: Form = Form {
    begin: b"",
    method: b"  INFO request: ",
    path: b" ",
    status: b" ",
    duration: b" ",
    client: b"us client.address=",
    route: b" route.id=",
    reason: b" reason=",
    account: b" account=",
    key: b" key.id=",
    token: b" token.id=",
    asked_method: b" asked.method=",
    asked_path: b" asked.path=",
    asked_route: b" asked.route.id=",
    asked_client: b" asked.client.address=",
    request: b" request.id=",
    version: b" http.version=",
    end: b"\n",
};

const JSON: Form = Form {
    begin: b"{\"timestamp\":\"",
    method: b"\",\"level\":\"INFO\",\"message\":\"request\",\"http.method\":\"",
    path: b"\",\"http.path\":\"",
    status: b"\",\"http.status\":",
    duration: b",\"duration_us\":",
    client: b",\"client.address\":\"",
    route: b"\",\"route.id\":\"",
    reason: b"\",\"reason\":\"",
    account: b"\",\"account\":\"",
    key: b"\",\"key.id\":\"",
    token: b"\",\"token.id\":\"",
    asked_method: b"\",\"asked.method\":\"",
    asked_path: b"\",\"asked.path\":\"",
    asked_route: b"\",\"asked.route.id\":\"",
    asked_client: b"\",\"asked.client.address\":\"",
    request: b"\",\"request.id\":\"",
    version: b"\",\"http.version\":\"",
    end: b"\"}\n",
};

/// Whether a byte can stand in a line as it is, in both forms.
fn is_plain(byte: &u8) -> bool {
    matches!(byte, 0x21..=0x7e) && !matches!(byte, b'"' | b'\\')
}

/// Blanks every segment in which a key or a token begins.
fn blank(path: &str, key_mark: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for (n, segment) in path.split('/').enumerate() {
        if n > 0 {
            out.push('/');
        }
        let secret = segment.contains(key_mark) || segment.contains("eyJ");
        out.push_str(if secret { "[redacted]" } else { segment });
    }
    out
}

/// RFC 3339 with milliseconds; the second's text is kept, as a second has many requests.
fn time(out: &mut Vec<u8>, at: Timestamp) {
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != at.secs() {
            *second = at.secs();
            text.clear();
            let _ = write!(text, "{at}");
            text.truncate(19);
        }
        out.extend_from_slice(text.as_bytes());
    });
    let millis = at.millis() % 1000;
    let digit = |value: u64| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// An address as text. IPv4 without `core::fmt`; the rest is rarer and longer.
fn address(text: &mut [u8; 48], address: IpAddr) -> &[u8] {
    let mut len = 0;
    match address {
        IpAddr::V4(v4) => {
            for (n, octet) in v4.octets().into_iter().enumerate() {
                let digits = [octet / 100, octet / 10 % 10, octet % 10];
                let skipped = if octet >= 100 {
                    0
                } else if octet >= 10 {
                    1
                } else {
                    2
                };
                if n > 0 {
                    text[len] = b'.';
                    len += 1;
                }
                for digit in &digits[skipped..] {
                    text[len] = b'0' + digit;
                    len += 1;
                }
            }
        }
        IpAddr::V6(v6) => {
            let mut rest = &mut text[..];
            let _ = write!(rest, "{v6}");
            len = 48 - rest.len();
        }
    }
    &text[..len]
}

fn version(version: http::Version) -> &'static [u8] {
    match version {
        http::Version::HTTP_10 => b"HTTP/1.0",
        http::Version::HTTP_11 => b"HTTP/1.1",
        http::Version::HTTP_2 => b"HTTP/2.0",
        _ => b"HTTP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, path: &str) -> String {
        written_about(format, path, None)
    }

    fn written_about(format: Format, path: &str, asked: Option<AskedLine<'_>>) -> String {
        let log = RequestLog::new(Sink::start(std::io::sink()).unwrap(), format, "kb");
        let line = RequestLine {
            at: Timestamp::from_millis(1_795_489_445_007),
            request: RequestId(255),
            client: "192.0.2.1".parse().unwrap(),
            version: http::Version::HTTP_2,
            method: "GET",
            path,
            status: 403,
            duration: Duration::from_micros(42),
            route: "sample",
            account: Some("acme"),
            key: Some("0123456789ab"),
            token: None,
            reason: Some("insufficient_scope"),
            asked,
        };
        let mut out = Vec::new();
        log.compose(&mut out, &line);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_reads_well_in_both_forms() {
        assert_eq!(
            written(Format::Text, "/sample/x"),
            "2026-11-24T03:04:05.007Z  INFO request: GET /sample/x 403 42us client.address=192.0.2.1 \
             route.id=sample reason=insufficient_scope account=acme key.id=0123456789ab request.id=00000000000000ff http.version=HTTP/2.0\n"
        );
        let json: serde_json::Value = serde_json::from_str(&written(Format::Json, "/sample/\"x\n")).unwrap();
        assert_eq!(json["http.path"], "/sample/%22x%0A");
        assert_eq!((&json["http.status"], &json["key.id"]), (&403.into(), &"0123456789ab".into()));
    }

    #[test]
    fn what_another_proxy_asked_about_is_in_the_line() {
        let asked = || AskedLine {
            method: "POST",
            path: "/orders/eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9.x.y",
            route: "orders",
            client: "192.0.2.9".parse().unwrap(),
        };
        let line = written_about(Format::Text, "/authz/auth-request", Some(asked()));
        let expected = " asked.method=POST asked.path=/orders/[redacted] asked.route.id=orders \
                        asked.client.address=192.0.2.9 request.id=";
        assert!(line.contains(expected), "{line}");
        let json = written_about(Format::Json, "/authz/auth-request", Some(asked()));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["asked.route.id"], &json["request.id"]), (&"orders".into(), &"00000000000000ff".into()));
    }

    #[test]
    fn a_key_or_token_in_a_path_is_blanked() {
        let line = written(Format::Text, "/token/kb_demodemodemo_ThisKey/eyJhbGciOi.x.y/z");
        assert!(line.contains(" /token/[redacted]/[redacted]/z "), "{line}");
        assert!(written(Format::Text, &format!("/{}", "a".repeat(9000))).len() < 1000);
    }

    #[test]
    fn numbers_and_addresses_are_written_as_fmt_writes_them() {
        for value in [0, 7, 10, 99, 100, 65_535, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, value);
            assert_eq!(out, value.to_string().as_bytes());
        }
        for text in ["0.0.0.0", "127.0.0.1", "10.99.100.255", "::1", "2001:db8:1111:2222:3333:4444:5555:6666"] {
            assert_eq!(address(&mut [0; 48], text.parse().unwrap()), text.as_bytes());
        }
    }
}
