//! What a token says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Deprecated, Limited, Terms};
use crate::client_addr::Networks;
use crate::clock::Timestamp;
use crate::ids::{AccountName, Groups, KeyId, PlanId, TokenId, scope};
use crate::keys::KeyPrefix;

/// Who a token was issued to: by which credential of the account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Client {
    /// By an API key.
    Key(KeyId),
    /// By the account's password.
    Password,
}

/// `aud`: one as a string, several as an array (RFC 7519 §4.1.3). Both are read; one is written as a string, since some
/// verifiers know nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl From<&[String]> for Audience {
    fn from(all: &[String]) -> Self {
        match all {
            [one] => Self::One(one.clone()),
            many => Self::Many(many.to_vec()),
        }
    }
}

/// The claims of an access token (RFC 9068 §2.2), as they travel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// RFC 7519 §4.1.1
    pub iss: String,
    /// RFC 7519 §4.1.3
    pub aud: Audience,
    /// RFC 7519 §4.1.2: the account.
    pub sub: String,
    /// RFC 8693 §4.3: `<prefix>_<key id>`, or the account's name when it was a password.
    pub client_id: String,
    /// RFC 7519 §4.1.6
    pub iat: u64,
    /// RFC 7519 §4.1.5
    pub nbf: u64,
    /// RFC 7519 §4.1.4
    pub exp: u64,
    /// RFC 7519 §4.1.7
    pub jti: String,
    /// RFC 8693 §4.2: the groups, space-separated.
    pub scope: String,
    /// RFC 9068 §2.2.3.1: the groups again, as an array.
    pub groups: Groups,
    /// Private: [`Terms::networks`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Networks>,
    /// Private: [`Terms::deprecated`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<Deprecated>,
    /// Private: [`Terms::limits`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limited>,
    /// Private: [`Terms::plan`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanId>,
}

/// A token's content, read into types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The account it was issued to.
    pub account: AccountName,
    /// By which of its credentials.
    pub client: Client,
    /// The groups it reaches.
    pub groups: Groups,
    /// Its `jti`.
    pub id: TokenId,
    /// When it was issued, in seconds.
    pub issued_at: u64,
    /// The first second it is no longer good.
    pub expires_at: u64,
    /// What it is bound to beyond that.
    pub terms: Terms,
}

impl Token {
    /// Its `nbf`: this much before it was issued, for verifiers whose clocks are behind.
    pub fn not_before(&self, slack: Duration, now: Timestamp) -> u64 {
        self.issued_at.min(now.secs()).saturating_sub(slack.as_secs())
    }

    /// The claims of this token.
    pub(super) fn claims(&self, prefix: &KeyPrefix, issuer: &str, audience: Audience, not_before: u64) -> Claims {
        Claims {
            iss: issuer.to_owned(),
            aud: audience,
            sub: self.account.as_str().to_owned(),
            client_id: match &self.client {
                Client::Key(id) => prefix.name_of(id),
                Client::Password => self.account.as_str().to_owned(),
            },
            iat: self.issued_at,
            nbf: not_before,
            exp: self.expires_at,
            jti: self.id.to_string(),
            scope: scope(&self.groups),
            groups: self.groups.clone(),
            networks: self.terms.networks.clone(),
            deprecated: self.terms.deprecated,
            limits: self.terms.limits.clone(),
            plan: self.terms.plan.clone(),
        }
    }

    /// Reads claims; `None` when they are not of the form that [`Token::claims`] gives. A key's prefix may be one that was
    /// configured before.
    pub(super) fn from_claims(claims: Claims) -> Option<Self> {
        let account: AccountName = claims.sub.parse().ok()?;
        let client = if claims.client_id == claims.sub {
            Client::Password
        } else {
            Client::Key(claims.client_id.rsplit_once('_')?.1.parse().ok()?)
        };
        if claims.scope != scope(&claims.groups) {
            return None;
        }
        Some(Self {
            account,
            client,
            groups: claims.groups,
            id: claims.jti.parse().ok()?,
            issued_at: claims.iat,
            expires_at: claims.exp,
            terms: Terms {
                networks: claims.networks,
                deprecated: claims.deprecated,
                limits: claims.limits,
                plan: claims.plan,
            },
        })
    }
}
