//! Access: the one place that decides whether a request may proceed. Only this room can build a `Permit`.

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
