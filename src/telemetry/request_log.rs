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
}

/// Writes request lines.
#[derive(Debug, Clone)]
pub struct RequestLog {
    sink: Sink,
    format: Format,
    /// What keys begin with, and an underscore: such a thing in a path is blanked.
    key_mark: String,
}

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
            // Writing to a vector cannot fail.
            let _ = match self.format {
                Format::Text => self.text(out, line),
                Format::Json => self.json(out, line),
            };
            self.sink.write(out, false);
        });
    }

    fn text(&self, out: &mut Vec<u8>, line: &RequestLine<'_>) -> std::io::Result<()> {
        time(out, line.at);
        out.extend_from_slice(b"  INFO request: ");
        out.extend_from_slice(line.method.as_bytes());
        out.push(b' ');
        self.path(out, line.path);
        write!(out, " {} {}us", line.status, line.duration.as_micros())?;
        if let Some(reason) = line.reason {
            out.extend_from_slice(b" reason=");
            out.extend_from_slice(reason.as_bytes());
        }
        write!(out, " client.address={}", line.client)?;
        out.extend_from_slice(b" route.id=");
        out.extend_from_slice(line.route.as_bytes());
        if let Some(account) = line.account {
            out.extend_from_slice(b" account=");
            out.extend_from_slice(account.as_bytes());
        }
        if let Some(key) = line.key {
            out.extend_from_slice(b" key.id=");
            out.extend_from_slice(key.as_bytes());
        }
        if let Some(token) = line.token {
            write!(out, " token.id={token}")?;
        }
        write!(out, " request.id={} http.version={:?}", line.request, line.version)?;
        out.push(b'\n');
        Ok(())
    }

    fn json(&self, out: &mut Vec<u8>, line: &RequestLine<'_>) -> std::io::Result<()> {
        out.extend_from_slice(b"{\"timestamp\":\"");
        time(out, line.at);
        out.extend_from_slice(b"\",\"level\":\"INFO\",\"message\":\"request\",\"http.method\":\"");
        out.extend_from_slice(line.method.as_bytes());
        out.extend_from_slice(b"\",\"http.path\":\"");
        self.path(out, line.path);
        write!(
            out,
            "\",\"http.status\":{},\"http.version\":\"{:?}\",\"duration_us\":{},\"client.address\":\"{}\",\"route.id\":\"{}\"",
            line.status,
            line.version,
            line.duration.as_micros(),
            line.client,
            line.route
        )?;
        let optional = [("reason", line.reason), ("account", line.account), ("key.id", line.key)];
        for (name, value) in optional {
            if let Some(value) = value {
                write!(out, ",\"{name}\":\"{value}\"")?;
            }
        }
        if let Some(token) = line.token {
            write!(out, ",\"token.id\":\"{token}\"")?;
        }
        writeln!(out, ",\"request.id\":\"{}\"}}", line.request)
    }

    /// The path, with what could be a key or a token blanked, what could end a JSON string escaped, and cut where it is
    /// longer than anyone reads.
    fn path(&self, out: &mut Vec<u8>, path: &str) {
        let blanked;
        let path = if path.contains(&self.key_mark) || path.contains("eyJ") {
            blanked = blank(path, &self.key_mark);
            &blanked
        } else {
            path
        };
        for byte in path.bytes().take(LONGEST_PATH) {
            match byte {
                b'"' | b'\\' | 0..=0x20 | 0x7f.. => {
                    let _ = write!(out, "%{byte:02X}");
                }
                _ => out.push(byte),
            }
        }
        if path.len() > LONGEST_PATH {
            out.extend_from_slice(b"...");
        }
    }
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
    let digit = |value: u64| b'0' + u8::try_from(value % 10).unwrap_or_default();
    out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, path: &str) -> String {
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
        };
        let mut out = Vec::new();
        match format {
            Format::Text => log.text(&mut out, &line).unwrap(),
            Format::Json => log.json(&mut out, &line).unwrap(),
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_reads_well_in_both_forms() {
        assert_eq!(
            written(Format::Text, "/sample/x"),
            "2026-11-24T03:04:05.007Z  INFO request: GET /sample/x 403 42us reason=insufficient_scope client.address=192.0.2.1 \
             route.id=sample account=acme key.id=0123456789ab request.id=00000000000000ff http.version=HTTP/2.0\n"
        );
        let json: serde_json::Value = serde_json::from_str(&written(Format::Json, "/sample/\"x\n")).unwrap();
        assert_eq!(json["http.path"], "/sample/%22x%0A");
        assert_eq!((&json["http.status"], &json["key.id"]), (&403.into(), &"0123456789ab".into()));
    }

    #[test]
    fn a_key_or_token_in_a_path_is_blanked() {
        let line = written(Format::Text, "/token/kb_demodemodemo_ThisKey/eyJhbGciOi.x.y/z");
        assert!(line.contains(" /token/[redacted]/[redacted]/z "), "{line}");
        assert!(written(Format::Text, &format!("/{}", "a".repeat(9000))).len() < 1000);
    }
}
