//! The authorization server's doors: the token endpoint (RFC 6749 §3.2, in our plain dialect, in OAuth's and in that of image
//! registries), introspection (RFC 7662), revocation (RFC 7009), metadata (RFC 8414, RFC 9728) and the JWK Set (RFC 7517).
//!
//! Who calls proves who it is at the door itself, so that access sees public paths here. What a token is worth is the gate's
//! judgement, here as everywhere.

mod client;
mod error;
mod form;
mod introspect;
mod metadata;
pub mod openapi;
mod question;
mod repository_token;
mod revoke;
mod stop;
mod token;

use std::sync::Arc;

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};

use crate::signing::{JWKS_MAX_AGE, KeyRing};

pub use client::Clients;
pub use introspect::IntrospectionEndpoint;
pub use metadata::Metadata;
pub use question::{QuestionParts, Questions};
pub use revoke::RevocationEndpoint;
pub use token::{TokenEndpoint, TokenParts};

fn max_age() -> HeaderValue {
    HeaderValue::from_str(&format!("public, max-age={}", JWKS_MAX_AGE.as_secs()))
        .unwrap_or(HeaderValue::from_static("public"))
}

/// `GET /.well-known/jwks.json`. Verifiers may keep it for five minutes; a key is published long before it signs.
pub fn jwks(ring: &Arc<KeyRing>) -> Response<Body> {
    let mut response = Response::new(Body::from(ring.jwks().to_vec()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    headers.insert(CACHE_CONTROL, max_age());
    response
}
