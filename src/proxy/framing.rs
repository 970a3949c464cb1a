//! Where an upstream's answer ends (RFC 9112 §6, RFC 9110 §8.6): what it says of that, and what is said on. Reading the
//! content itself is `hyper`'s.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

/// An answer's end can be read in two ways, or its content is in a coding that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misframed {
    /// It has a `Content-Length` and a `Transfer-Encoding`.
    LengthAndEncoding,
    /// Its `Transfer-Encoding` is not `chunked` alone.
    Encoding,
}

impl std::fmt::Display for Misframed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LengthAndEncoding => "the answer has a Content-Length and a Transfer-Encoding",
            Self::Encoding => "the answer has a Transfer-Encoding other than chunked",
        })
    }
}

impl std::error::Error for Misframed {}

/// Looks at what an answer says of its own end, before it is taken off.
///
/// By a length beside chunks the client would take a part of the content for all of it (RFC 9112 §6.3: an error, or
/// somebody's attempt to split an answer); and content in another transfer coding means nothing without its name. A
/// `Content-Length` that is said several times becomes one (RFC 9110 §8.6); that all say the same was seen to when the
/// answer was read.
///
/// # Errors
/// [`Misframed`].
pub fn check(headers: &mut HeaderMap) -> Result<(), Misframed> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let (length, another) = (lengths.next(), lengths.next());
    if let Some(encoding) = headers.get(TRANSFER_ENCODING) {
        if length.is_some() {
            return Err(Misframed::LengthAndEncoding);
        }
        let is_chunked = encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || headers.get_all(TRANSFER_ENCODING).iter().count() > 1 {
            return Err(Misframed::Encoding);
        }
    }
    if let (Some(length), Some(_)) = (length, another) {
        let length = length.clone();
        headers.insert(CONTENT_LENGTH, length);
    }
    Ok(())
}

/// The content of an answer to `HEAD`: none, and no length of GET's is made up where the upstream told none
/// (RFC 9110 §9.3.2).
#[derive(Debug)]
pub struct Untold;

impl http_body::Body for Untold {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_end_is_said_in_one_way() {
        let framed = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, http::HeaderValue::from_static(value));
            }
            check(&mut headers).map(|()| headers.get_all("content-length").iter().count())
        };
        assert_eq!(framed(&[]), Ok(0));
        assert_eq!(framed(&[("content-length", "5")]), Ok(1));
        assert_eq!(framed(&[("content-length", "5"), ("content-length", "5")]), Ok(1), "said twice");
        assert_eq!(framed(&[("transfer-encoding", "Chunked ")]), Ok(0));
        let both = [("transfer-encoding", "chunked"), ("content-length", "5")];
        assert_eq!(framed(&both), Err(Misframed::LengthAndEncoding));
        for coding in ["gzip, chunked", "chunked, gzip", "xchunked", "identity", ""] {
            assert_eq!(framed(&[("transfer-encoding", coding)]), Err(Misframed::Encoding), "{coding}");
        }
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(framed(&twice), Err(Misframed::Encoding));
    }
}
