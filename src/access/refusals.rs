//! A denial in words: the problem and the challenge (RFC 6750 §3) that every door answers with, so that no two differ.

use std::sync::Arc;

use http::HeaderValue;

use super::{Denial, Settings};
use crate::exchange::{Refusal, quotable};
use crate::ids::GroupId;
use crate::problem::Kind;
use crate::tokens::Invalid;

/// Turns denials into refusals.
#[derive(Debug)]
pub struct Refusals {
    contact: Option<String>,
    /// RFC 6750 §3.1: without a token, the challenge has no `error`.
    bare_challenge: HeaderValue,
    realm: String,
}

impl Refusals {
    /// Refusals in the realm of `settings`.
    pub fn new(settings: &Settings) -> Self {
        let realm = quotable(&settings.realm);
        let bare_challenge = challenge(&format!("Bearer realm=\"{realm}\""));
        Self { contact: settings.contact.clone(), bare_challenge, realm }
    }

    /// The refusal of `denial`, with its challenge where it has one.
    pub fn of(&self, denial: Denial) -> Refusal {
        match denial {
            Denial::Missing { in_query } => {
                let (reason, detail) = if in_query {
                    (
                        "token_in_query",
                        "A token in the query string is not accepted. Send `Authorization: Bearer <token>`.",
                    )
                } else {
                    ("token_missing", "Send `Authorization: Bearer <token>`. The token endpoint is /token.")
                };
                Refusal::new(Kind::MissingToken, reason, detail).challenge(self.bare_challenge.clone())
            }
            Denial::Invalid { why, session } => {
                let description = why.description();
                let detail = match why {
                    Invalid::Expired | Invalid::Revoked => format!("{description}. Get a new one at /token."),
                    _ => format!("{description}."),
                };
                let challenge = challenge(&format!(
                    "Bearer realm=\"{}\", error=\"invalid_token\", error_description=\"{description}\"",
                    self.realm
                ));
                let refusal = Refusal::new(Kind::InvalidToken, why.word(), detail).challenge(challenge);
                match session {
                    Some(session) => refusal.of(Arc::clone(session.principal()), session.id()),
                    None => refusal,
                }
            }
            Denial::Scope { missing, session } => {
                let ask = ask_for_licence(self.contact.as_deref());
                let (detail, scope) = match &missing {
                    Some(group) => {
                        (format!("This needs a licence for the group '{group}'. {ask}"), format!(", scope=\"{group}\""))
                    }
                    None => (format!("The Demo group does not reach this. {ask}"), String::new()),
                };
                let challenge =
                    challenge(&format!("Bearer realm=\"{}\", error=\"insufficient_scope\"{scope}", self.realm));
                let missing = missing.as_ref().map(GroupId::as_str);
                Refusal::new(Kind::InsufficientScope, "insufficient_scope", detail)
                    .licence(missing, self.contact.as_deref())
                    .challenge(challenge)
                    .of(Arc::clone(session.principal()), session.id())
            }
            Denial::TooMany { wait, session } => {
                let detail =
                    "Too many requests in the Demo group from this address. Wait, or ask for a key of your own.";
                Refusal::new(Kind::TooManyRequests, "demo_rate", detail)
                    .retry_after(wait)
                    .of(Arc::clone(session.principal()), session.id())
            }
        }
    }
}

/// What to do about a missing licence.
pub fn ask_for_licence(contact: Option<&str>) -> String {
    match contact {
        Some(contact) => format!("Write to {contact} for a licence."),
        None => "Ask the operator of this API for a licence.".to_owned(),
    }
}

fn challenge(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("Bearer"))
}
