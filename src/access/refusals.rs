//! A denial in words: the problem and the challenge (RFC 6750 §3) that every door answers with, so that no two differ.

use std::sync::Arc;

use http::HeaderValue;

use super::fields::DEMO_POLICY;
use super::{Denial, Exceeded, Settings};
use crate::exchange::{Refusal, quotable};
use crate::ids::GroupId;
use crate::problem::{Kind, Violated};
use crate::tokens::Invalid;

/// The longest URL that a challenge names: proxies that ask have small buffers for the header sections of answers.
const LONGEST_URL: usize = 512;

/// Turns denials into refusals.
#[derive(Debug)]
pub struct Refusals {
    contact: Option<String>,
    realm: String,
    /// The last parameter of every challenge, where there is one.
    metadata: String,
    /// RFC 6750 §3.1: without a token, the challenge has no `error`.
    bare_challenge: HeaderValue,
}

impl Refusals {
    /// Refusals in the realm of `settings`. Their challenges say where the metadata of what they guard is (RFC 9728 §5.1),
    /// when that is at a URL.
    pub fn new(settings: &Settings, metadata: Option<&str>) -> Self {
        let metadata = metadata
            .filter(|url| url.len() <= LONGEST_URL)
            .map(|url| format!(", resource_metadata=\"{}\"", quotable(url)))
            .unwrap_or_default();
        let realm = quotable(&settings.realm);
        let bare_challenge = challenge(&format!("Bearer realm=\"{realm}\"{metadata}"));
        Self { contact: settings.contact.clone(), realm, metadata, bare_challenge }
    }

    /// The challenge to who presented a token that is not valid (RFC 6750 §3.1).
    pub fn invalid_token(&self, why: Invalid) -> HeaderValue {
        self.challenge(&format!("error=\"invalid_token\", error_description=\"{}\"", why.description()))
    }

    fn challenge(&self, error: &str) -> HeaderValue {
        challenge(&format!("Bearer realm=\"{}\", {error}{}", self.realm, self.metadata))
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
                let challenge = self.invalid_token(why);
                let refusal = Refusal::new(Kind::InvalidToken, why.word(), detail).challenge(challenge);
                match session {
                    Some(session) => refusal.of(Arc::clone(session.principal()), session.id()),
                    None => refusal,
                }
            }
            // Another token of this key would not help, so it is no 401.
            Denial::Elsewhere { session } => {
                let detail =
                    "This access token may not be used from this address: its API key is bound to certain networks.";
                Refusal::new(Kind::Forbidden, "network_not_allowed", detail)
                    .of(Arc::clone(session.principal()), session.id())
            }
            Denial::Scope { missing, session } => {
                let ask = ask_for_licence(self.contact.as_deref());
                let (detail, scope) = match &missing {
                    Some(group) => {
                        (format!("This needs a licence for the group '{group}'. {ask}"), format!(", scope=\"{group}\""))
                    }
                    None => (format!("The Demo group does not reach this. {ask}"), String::new()),
                };
                let challenge = self.challenge(&format!("error=\"insufficient_scope\"{scope}"));
                let missing = missing.as_ref().map(GroupId::as_str);
                Refusal::new(Kind::InsufficientScope, "insufficient_scope", detail)
                    .licence(missing, self.contact.as_deref())
                    .challenge(challenge)
                    .of(Arc::clone(session.principal()), session.id())
            }
            Denial::Quota { exceeded, session } => {
                let Exceeded { policy, limit, is_shared, wait } = *exceeded;
                let scope = if is_shared { "all gateways" } else { "this gateway" };
                let what = if wait.is_zero() {
                    "Wait until one of them ends."
                } else {
                    "Wait as long as Retry-After says, or ask the operator for more."
                };
                let detail = format!("The plan allows {limit} ({policy}), and that is used up. {what}");
                Refusal::new(Kind::QuotaExceeded, "quota_exceeded", detail)
                    .violated(Violated { policies: vec![policy], limit, scope })
                    .retry_after(wait)
                    .of(Arc::clone(session.principal()), session.id())
            }
            Denial::TooMany { wait, session } => {
                let detail = format!(
                    "Too many requests in the Demo group from this address ({DEMO_POLICY}). Wait, or ask for a key of your own."
                );
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
