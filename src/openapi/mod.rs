//! How endpoints are described: OpenAPI 3.1, in the words that all doors share. Owns the description of one endpoint, what
//! every endpoint has in common (its refusals and header fields), and the document that is made of them. Knows no endpoint:
//! each door describes its own.

mod document;
mod endpoint;
mod shared;

pub use document::{Document, Site};
pub use endpoint::{Answer, Endpoint, Field, Media, Refused, Tag};
pub use shared::{
    BAD_REQUEST, BASIC_CHALLENGE, CHALLENGE, CONTENT_TOO_LARGE, ENTITY_TAG, FIVE_MINUTES, FORBIDDEN, HEADERS_TOO_LARGE,
    INTERNAL, NO_CACHE, NO_STORE, RATE_LIMIT, RATE_LIMIT_POLICY, REQUEST_ID, REQUEST_TIMEOUT, RETRY_AFTER,
    TOKEN_EXAMPLE, TOO_MANY_REQUESTS, UNAUTHORIZED, UNAVAILABLE, problems,
};

/// The names of the security schemes.
pub mod scheme {
    /// A key, or a username and password (RFC 7617).
    pub const BASIC: &str = "basic";
    /// An access token (RFC 6750).
    pub const BEARER: &str = "bearer";
    /// An access token, and how a library gets it by itself (RFC 6749 §4.4).
    pub const OAUTH2: &str = "oauth2";
}
