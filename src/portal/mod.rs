//! The developer page: how to try the Demo group, with lines that can be copied.

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};

use crate::resources::Published;

/// `GET /`
pub fn page(published: &Published, demo_is_open: bool) -> Response<Body> {
    let text = if demo_is_open { format!("{published:?}") } else { String::new() };
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
