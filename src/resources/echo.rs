//! The request as it was received, credentials blanked.

use std::collections::BTreeMap;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};
use serde::Serialize;

use crate::access::Permit;
use crate::exchange::{Exchange, private_json};

const BLANK: &str = "[redacted]";

#[derive(Serialize)]
struct Echo<'a> {
    method: &'a str,
    path: String,
    query: Option<String>,
    http_version: String,
    client: String,
    headers: BTreeMap<&'a str, String>,
    content: Content<'a>,
    request_id: String,
}

#[derive(Serialize)]
struct Content<'a> {
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Shows a request to whoever sent it. `key_mark` is what keys begin with.
pub fn echo(_permit: &Permit, exchange: &Exchange, head: &Parts, content: &Bytes, key_mark: &str) -> Response<Body> {
    let text = std::str::from_utf8(content).ok();
    let view = Echo {
        method: head.method.as_str(),
        path: blank_path(head.uri.path(), key_mark),
        query: head.uri.query().map(|query| blank_query(query, key_mark)),
        http_version: format!("{:?}", head.version),
        client: exchange.client.to_string(),
        headers: headers(&head.headers, key_mark),
        content: Content {
            bytes: content.len(),
            text: text.filter(|text| !text.is_empty()),
            base64: text.is_none().then(|| STANDARD.encode(content)),
        },
        request_id: exchange.request.to_string(),
    };
    private_json(serde_json::to_vec_pretty(&view).unwrap_or_default())
}

/// Lines of one name are one value with commas (RFC 9110 §5.3).
fn headers<'a>(headers: &'a HeaderMap, key_mark: &str) -> BTreeMap<&'a str, String> {
    let mut all = BTreeMap::new();
    for (name, value) in headers {
        let value = shown(name.as_str(), value, key_mark);
        all.entry(name.as_str()).and_modify(|lines: &mut String| *lines += &format!(", {value}")).or_insert(value);
    }
    all
}

fn shown(name: &str, value: &HeaderValue, key_mark: &str) -> String {
    let is_credential = value.is_sensitive() || matches!(name, "authorization" | "proxy-authorization" | "cookie");
    let text = String::from_utf8_lossy(value.as_bytes());
    if is_credential || is_secret(&text, key_mark) { BLANK.to_owned() } else { text.into_owned() }
}

/// Blanks the values that look like a key or a token: they have no business in a query, but people put them there.
fn blank_query(query: &str, key_mark: &str) -> String {
    let pairs: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if is_secret(value, key_mark) => format!("{name}={BLANK}"),
            _ if is_secret(pair, key_mark) => BLANK.to_owned(),
            _ => pair.to_owned(),
        })
        .collect();
    pairs.join("&")
}

/// And so in a path.
fn blank_path(path: &str, key_mark: &str) -> String {
    let segments: Vec<&str> =
        path.split('/').map(|segment| if is_secret(segment, key_mark) { BLANK } else { segment }).collect();
    segments.join("/")
}

fn is_secret(text: &str, key_mark: &str) -> bool {
    text.contains(key_mark) || text.contains("eyJ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_tokens_are_blanked_wherever_they_stand() {
        assert_eq!(
            blank_query("a=1&key=kb_x&access_token=eyJh.b.c&kb_y", "kb_"),
            "a=1&key=[redacted]&access_token=[redacted]&[redacted]"
        );
        assert_eq!(blank_path("/sample/kb_x/y", "kb_"), "/sample/[redacted]/y");
        let mut map = HeaderMap::new();
        map.insert("authorization", HeaderValue::from_static("Basic a2V5Og=="));
        map.insert("x-api-key", HeaderValue::from_static("kb_abc"));
        map.insert("accept", HeaderValue::from_static("*/*"));
        map.append("accept", HeaderValue::from_static("text/html"));
        let shown: Vec<_> = headers(&map, "kb_").into_iter().collect();
        assert_eq!(
            shown,
            [("accept", "*/*, text/html".into()), ("authorization", BLANK.into()), ("x-api-key", BLANK.into())]
        );
    }
}
