//! The Demo group: open to anyone by a published key, and by nothing else wider than itself (CONTRACT §4).
//!
//! The demo account and key are no records in the store, so no command and no licence can widen them.

use std::time::Duration;

use crate::ids::{AccountName, GroupId, Groups, KeyId, PlanId};
use crate::keys::{ApiKey, KeyPrefix};
use crate::limits::Rate;
use crate::secret::Secret;

/// The group's id, and the name of its account. Neither can be used for anything else.
pub const DEMO: &str = "demo";

const DEMO_KEY_ID: &str = "demodemodemo";
const DEMO_KEY_SECRET: &str = "ThisKeyIsPublicAndOpensDemoOnly0";

/// The Demo group's id.
pub fn group() -> GroupId {
    DEMO.parse().expect("a group id")
}

/// The account that demo tokens are issued to.
pub fn account() -> AccountName {
    DEMO.parse().expect("an account name")
}

/// What the demo key reaches: always this, whatever the configuration says.
pub fn groups() -> Groups {
    Groups::from([group()])
}

/// The id of the demo key.
pub fn key_id() -> KeyId {
    DEMO_KEY_ID.parse().expect("a key id")
}

/// The published demo key of an installation with this key prefix.
pub fn key(prefix: &KeyPrefix) -> ApiKey {
    ApiKey::compose(prefix, DEMO_KEY_ID, DEMO_KEY_SECRET)
}

/// Whether `text` is the published key. The key is no secret, so this needs no hash.
pub fn is_key(prefix: &KeyPrefix, presented: &ApiKey) -> bool {
    *presented.secret() == Secret::new(key(prefix).secret().expose().clone())
}

/// Settings of `[demo]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether there is a Demo group at all.
    pub enabled: bool,
    /// How long the published demo token lives; it is renewed when half of that is over.
    pub token_lifetime: Duration,
    /// Calls by one client address (IPv6: one /64) with a demo token, whatever of.
    pub requests_per_address: Rate,
    /// Tokens got with the demo key by one client address.
    pub tokens_per_address: Rate,
    /// The plan that each client address has with a demo token.
    pub plan: Option<PlanId>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            token_lifetime: Duration::from_secs(24 * 3600),
            requests_per_address: Rate::new(300, Duration::from_secs(60)),
            tokens_per_address: Rate::new(30, Duration::from_secs(60)),
            plan: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_key_is_well_formed_and_never_changes() {
        let prefix = KeyPrefix::default();
        let text = key(&prefix).secret().expose().clone();
        let parsed = ApiKey::parse(&prefix, &text).expect("a well-formed key");
        assert!(is_key(&prefix, &parsed));
        assert!(!is_key(&prefix, &ApiKey::generate(&prefix)));
        assert_eq!(text, "kb_demodemodemo_ThisKeyIsPublicAndOpensDemoOnly01bQJ3X");
    }
}
