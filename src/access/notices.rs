//! Notices to a caller whose credential was replaced: `Deprecation` (RFC 9745) and `Sunset` (RFC 8594) on every answer.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::Timestamp;
use crate::registry::Principal;

/// When the credential was replaced: a structured date (RFC 9745 §2.1).
pub const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
/// When it ends (RFC 8594 §3).
pub const SUNSET: HeaderName = HeaderName::from_static("sunset");

/// Says on an answer to `principal` that its credential was replaced, and when it ends, where that is so. What an upstream says
/// of its resource under these names stays, since each may be there once.
pub fn add_notices(headers: &mut HeaderMap, principal: &Principal) {
    let Some(deprecated) = principal.terms().deprecated else { return };
    let since = HeaderValue::from_str(&format!("@{}", deprecated.since));
    let until = deprecated.until.and_then(|until| Timestamp::from_secs(until).http_date());
    let until = until.and_then(|date| HeaderValue::from_str(&date).ok());
    for (name, value) in [(DEPRECATION, since.ok()), (SUNSET, until)] {
        if let Some(value) = value {
            headers.entry(name).or_insert(value);
        }
    }
}
