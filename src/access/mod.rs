//! Access: the one place that decides whether a request may proceed. Only this room can build a [`Permit`].
//!
//! Implements the resource server's side of RFC 6750 (Bearer tokens). Proxying, forward-auth and the built-in resources
//! all ask the same [`Gate`].

mod admission;
mod decide;
mod fields;
pub mod identity;
mod layer;
mod notices;
mod quotas;
mod refusals;

use std::time::Duration;

pub use admission::{Admission, AdmissionCell, Exceeded, Quota};
pub use decide::{Denial, Ending, Gate, Permit, Presented};
pub use fields::{Fields, LEGACY, RATE_LIMIT, RATE_LIMIT_POLICY};
pub use identity::{IdentityHeaders, identity_headers};
pub use layer::{AccessFuture, RequireAccess, RequireAccessService};
pub use notices::{DEPRECATION, SUNSET, add_notices};
pub use quotas::Quotas;
pub use refusals::{Refusals, ask_for_licence};

/// Settings of `[access]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `realm` of every challenge (RFC 9110 §11.5).
    pub realm: String,
    /// Whom to write to for a licence: an address or URL, shown in 403 bodies.
    pub contact: Option<String>,
    /// Whether a path may have a `;`, after which some servers read a parameter and not the path.
    pub path_parameters: bool,
    /// How long a stream may go on after its token has expired. When the token is revoked, it ends at once.
    pub stream_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { realm: "keybearer".into(), contact: None, path_parameters: false, stream_grace: Duration::ZERO }
    }
}
