//! Access: the one place that decides whether a request may proceed. Only this room can build a [`Permit`].
//!
//! Implements the resource server's side of RFC 6750 (Bearer tokens). Proxying, forward-auth and the built-in resources
//! all ask the same [`Gate`].

mod decide;
mod layer;

pub use decide::{Denial, Gate, Permit, Presented};
pub use layer::{AccessFuture, RequireAccess, RequireAccessService, ask_for_licence};

/// Settings of `[access]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `realm` of every challenge (RFC 9110 §11.5).
    pub realm: String,
    /// Whom to write to for a licence: an address or URL, shown in 403 bodies.
    pub contact: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { realm: "keybearer".into(), contact: None }
    }
}
