//! A copy of a request without content, for the case that its connection breaks. Hardly any is used, so it is cheap to make
//! and to drop, and dear to turn back: the fields are one text, where a `HeaderMap` would count each value's owners.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

/// Before a value that no log and no HPACK table may have.
const SENSITIVE: u8 = b'!';

/// A copy of a request's head.
#[derive(Debug)]
pub(super) struct Copy {
    method: Method,
    uri: Uri,
    /// `name:value` in lines: neither has a line feed in it, and no name has a colon (RFC 9110 §5.1, §5.5).
    fields: Vec<u8>,
}

impl Copy {
    pub fn of(request: &Request<Body>) -> Self {
        let lines = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 3);
        let mut fields = Vec::with_capacity(lines.sum());
        for (name, value) in request.headers() {
            fields.extend_from_slice(name.as_str().as_bytes());
            fields.push(b':');
            fields.push(if value.is_sensitive() { SENSITIVE } else { b' ' });
            fields.extend_from_slice(value.as_bytes());
            fields.push(b'\n');
        }
        Self { method: request.method().clone(), uri: request.uri().clone(), fields }
    }

    /// The request once more.
    pub fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = read(&Bytes::copy_from_slice(&self.fields));
        request
    }
}

fn read(fields: &Bytes) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in fields.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, [_, mark, value @ ..]) = line.split_at(colon) else { continue };
        // Both were good before.
        if let (Ok(name), Ok(mut value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_maybe_shared(fields.slice_ref(value)))
        {
            value.set_sensitive(*mark == SENSITIVE);
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_request_itself() {
        let mut secret = HeaderValue::from_static("Bearer a:b");
        secret.set_sensitive(true);
        let request = Request::put("/orders/1?a=b:c")
            .header("host", "api.example.com:8443")
            .header("authorization", secret)
            .header("x-empty", "")
            .header("x-marked", "!a")
            .header("accept", "text/html; q=\"1\"")
            .header("accept", "\t*/*")
            .header("x-bytes", HeaderValue::from_bytes(b"\xff\x80 ").unwrap())
            .body(Body::empty())
            .unwrap();
        let copy = Copy::of(&request).request();
        assert_eq!(copy.headers(), request.headers());
        assert_eq!((copy.method(), copy.uri()), (request.method(), request.uri()));
        assert!(copy.headers()["authorization"].is_sensitive() && !copy.headers()["x-marked"].is_sensitive());
    }
}
