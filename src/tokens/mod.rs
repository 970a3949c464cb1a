//! Access tokens: JSON Web Tokens in the profile of RFC 9068 (CONTRACT §6). Issues them and verifies them strictly.

mod claims;
mod extra;
mod issue;
mod terms;
#[cfg(test)]
mod tests;
mod verify;

use std::time::Duration;

pub use claims::{Audience, Claims, Client, Token};
pub use extra::{ClaimValue, Holder, MOST_EXTRA, RESERVED, StaticClaim, most_bytes};
pub use issue::{Grant, Issued, Issuer};
pub use terms::{Deprecated, Limited, Terms};
pub use verify::{Invalid, MOST_AHEAD, Verifier};

/// No token is larger, in bytes; a longer one is refused before it is looked at.
pub const LARGEST: usize = 8 * 1024;

/// Settings of `[tokens]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `iss`: the URL of this authorization server.
    pub issuer: String,
    /// `aud`: whom the tokens are for, one or several. A token is good here when it is for any of them.
    pub audience: Vec<String>,
    /// How long a token lives; a group may shorten it.
    pub lifetime: Duration,
    /// Allowed clock difference when `exp`, `nbf` and `iat` are checked.
    pub leeway: Duration,
    /// `nbf` lies this long before `iat`, for verifiers whose clock is behind.
    pub not_before_slack: Duration,
    /// Live tokens kept in the registry; beyond it the soonest to expire are evicted (they stay valid, at the price of one
    /// signature verification when next presented).
    pub max_live: usize,
    /// `[[claims]]`: what tokens say beyond that, by account or group.
    pub claims: Vec<StaticClaim>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            issuer: "https://localhost:8443".into(),
            audience: vec!["https://localhost:8443".into()],
            lifetime: Duration::from_secs(3600),
            leeway: Duration::ZERO,
            not_before_slack: Duration::from_secs(2),
            max_live: 1_000_000,
            claims: vec![],
        }
    }
}
