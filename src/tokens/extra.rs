//! Static claims that an operator adds to the tokens of an account or group: a tier, a tenant number.
//!
//! Their names are namespaced (RFC 7519 §4.2: collision-resistant), so that none is ever taken for a claim of a standard. No
//! decision here looks at them.

use serde_json::Value;

use super::Token;
use crate::ids::{AccountName, GroupId};

/// The claims that are ours to say.
pub const RESERVED: [&str; 14] = [
    "iss",
    "aud",
    "sub",
    "client_id",
    "iat",
    "nbf",
    "exp",
    "jti",
    "scope",
    "groups",
    "networks",
    "deprecated",
    "limits",
    "plan",
];

/// Static claims of one token are no longer than this together, in bytes of JSON: a token has to stay below
/// [`super::LARGEST`], and travels with every request.
pub const MOST_EXTRA: usize = 2048;

/// Whose tokens a claim is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Those of one account.
    Account(AccountName),
    /// Those that reach a group.
    Group(GroupId),
}

/// What a claim says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimValue {
    /// Text.
    Text(String),
    /// A number that every reader of JSON reads alike (RFC 7493 §2.2).
    Integer(i64),
    /// Yes or no.
    Boolean(bool),
}

/// A static claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticClaim {
    /// Whose tokens it is in.
    pub holder: Holder,
    /// Its name, namespaced.
    pub name: String,
    /// What it says.
    pub value: ClaimValue,
}

impl StaticClaim {
    /// As a member of a JSON object, with the comma before it.
    fn member(&self) -> String {
        let value = match &self.value {
            ClaimValue::Text(text) => Value::from(text.as_str()),
            ClaimValue::Integer(number) => Value::from(*number),
            ClaimValue::Boolean(is) => Value::from(*is),
        };
        format!(",{}:{value}", Value::from(self.name.as_str()))
    }
}

/// The most bytes that the static claims of one token can have: those of every group, and of the account with the most.
pub fn most_bytes(claims: &[StaticClaim]) -> usize {
    let sum = |holds: &dyn Fn(&Holder) -> bool| -> usize {
        claims.iter().filter(|claim| holds(&claim.holder)).map(|claim| claim.member().len()).sum()
    };
    let groups = sum(&|holder| matches!(holder, Holder::Group(_)));
    let accounts = claims.iter().filter(|claim| matches!(claim.holder, Holder::Account(_)));
    groups + accounts.map(|claim| sum(&|holder| *holder == claim.holder)).max().unwrap_or(0)
}

/// The static claims, encoded once.
#[derive(Debug)]
pub(super) struct Extra(Vec<Encoded>);

#[derive(Debug)]
struct Encoded {
    holder: Holder,
    name: String,
    member: String,
}

impl Extra {
    pub(super) fn new(claims: &[StaticClaim]) -> Self {
        let encoded = |claim: &StaticClaim| Encoded {
            holder: claim.holder.clone(),
            name: claim.name.clone(),
            member: claim.member(),
        };
        // An account's own come first, and the first of a name counts: it goes over what its groups say.
        let (of_accounts, of_groups): (Vec<_>, Vec<_>) =
            claims.iter().map(encoded).partition(|claim| matches!(claim.holder, Holder::Account(_)));
        Self(of_accounts.into_iter().chain(of_groups).collect())
    }

    /// Adds what `token` is to say to its claims, a JSON object that is not empty.
    pub(super) fn append(&self, token: &Token, claims: &mut Vec<u8>) {
        if self.0.is_empty() || claims.pop() != Some(b'}') {
            return;
        }
        let mut said: Vec<&str> = Vec::new();
        for claim in &self.0 {
            let is_held = match &claim.holder {
                Holder::Account(name) => *name == token.account,
                Holder::Group(id) => token.groups.contains(id),
            };
            if is_held && !said.contains(&claim.name.as_str()) {
                said.push(&claim.name);
                claims.extend_from_slice(claim.member.as_bytes());
            }
        }
        claims.push(b'}');
    }
}
