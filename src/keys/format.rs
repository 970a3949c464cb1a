//! The form of an API key: parsed and checked before any lookup.

use std::fmt;
use std::str::FromStr;

use crate::ids::KeyId;
use crate::random;
use crate::secret::Secret;

/// The prefix when the configuration names none.
pub const DEFAULT_PREFIX: &str = "kb";

const ID: usize = 12;
const SECRET: usize = 32;
const CHECKSUM: usize = 6;

/// What every key of this installation begins with, so that leak scanners and people know it: 2 to 12 of a-z and 0-9.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPrefix(Box<str>);

impl Default for KeyPrefix {
    fn default() -> Self {
        Self(DEFAULT_PREFIX.into())
    }
}

impl FromStr for KeyPrefix {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = (2..=12).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text.as_bytes()[0].is_ascii_lowercase();
        if good {
            Ok(Self(text.into()))
        } else {
            Err("a key prefix is 2 to 12 of a-z and 0-9, beginning with a letter")
        }
    }
}

impl KeyPrefix {
    /// The prefix without its underscore.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a user-id claims to be a key, or a key's id: it begins with `<prefix>_`.
    pub fn claims(&self, user_id: &str) -> bool {
        user_id.strip_prefix(&*self.0).is_some_and(|rest| rest.starts_with('_'))
    }

    /// The id in a user-id of the form `<prefix>_<id>`, which some clients send with the whole key as password.
    pub fn key_id(&self, user_id: &str) -> Option<KeyId> {
        user_id.strip_prefix(&*self.0)?.strip_prefix('_')?.parse().ok()
    }

    /// `<prefix>_<id>`, the public name of a key.
    pub fn name_of(&self, id: &KeyId) -> String {
        format!("{}_{id}", self.0)
    }
}

/// A string that is not a well-formed key. It does not say which part is wrong, and never shows the string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedKey;

impl fmt::Display for MalformedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a well-formed API key (a character may be missing or mistyped)")
    }
}

impl std::error::Error for MalformedKey {}

/// A well-formed API key: its prefix, lengths and checksum are right. Whether it is known is another question.
#[derive(Debug, Clone)]
pub struct ApiKey {
    id: KeyId,
    text: Secret<String>,
}

impl ApiKey {
    /// A new key with an unpredictable id and secret.
    pub fn generate(prefix: &KeyPrefix) -> Self {
        Self::compose(prefix, &random::base62(ID), &random::base62(SECRET))
    }

    /// A key of the same id with another secret.
    pub(super) fn renewed(prefix: &KeyPrefix, id: &KeyId) -> Self {
        Self::compose(prefix, id.as_str(), &random::base62(SECRET))
    }

    /// The key with these parts and the checksum that belongs to them. For constants; the parts must have their lengths.
    pub(crate) fn compose(prefix: &KeyPrefix, id: &str, secret: &str) -> Self {
        let mut text = format!("{}_{id}_{secret}", prefix.as_str());
        text.push_str(&checksum(&text));
        Self { id: id.parse().expect("an id of 12 base62 characters"), text: Secret::new(text) }
    }

    /// Checks prefix, lengths, alphabet and checksum.
    pub fn parse(prefix: &KeyPrefix, text: &str) -> Result<Self, MalformedKey> {
        let rest = text.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_prefix('_')).ok_or(MalformedKey)?;
        let (id, rest) = rest.split_once('_').ok_or(MalformedKey)?;
        let id: KeyId = id.parse().map_err(|_| MalformedKey)?;
        if rest.len() != SECRET + CHECKSUM || !rest.bytes().all(random::is_base62) {
            return Err(MalformedKey);
        }
        let (body, sum) = text.split_at(text.len() - CHECKSUM);
        if sum != checksum(body) {
            return Err(MalformedKey);
        }
        Ok(Self { id, text: Secret::from(text) })
    }

    /// The public half.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The whole key, for hashing, comparing, and showing once.
    pub fn secret(&self) -> &Secret<String> {
        &self.text
    }
}

/// CRC-32 (IEEE) of `body`, as six base62 digits.
fn checksum(body: &str) -> String {
    random::to_base62(u64::from(crc32fast::hash(body.as_bytes())), CHECKSUM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_generated_key_is_well_formed() {
        let prefix = KeyPrefix::default();
        let key = ApiKey::generate(&prefix);
        let text = key.secret().expose();
        assert_eq!(text.len(), 2 + 1 + 12 + 1 + 32 + 6);
        assert_eq!(ApiKey::parse(&prefix, text).expect("its own form").id(), key.id());
        assert!(!format!("{key:?}").contains(&text[16..]), "a key's Debug shows its id alone");
    }

    #[test]
    fn another_installations_prefix_is_refused() {
        let key = ApiKey::generate(&"acme".parse().unwrap());
        assert!(ApiKey::parse(&KeyPrefix::default(), key.secret().expose()).is_err());
    }

    proptest! {
        #[test]
        fn a_key_changed_in_any_one_character_is_refused(at in 0usize..54, to in any::<char>()) {
            let prefix = KeyPrefix::default();
            let key = ApiKey::compose(&prefix, "0123456789ab", "0123456789abcdefghijABCDEFGHIJKL");
            let mut chars: Vec<char> = key.secret().expose().chars().collect();
            prop_assume!(chars[at] != to);
            chars[at] = to;
            prop_assert!(ApiKey::parse(&prefix, &chars.into_iter().collect::<String>()).is_err());
        }

        #[test]
        fn a_key_with_anything_before_or_after_is_refused(before in "[ -~]{0,3}", after in "[ -~]{0,3}", cut in 0usize..54) {
            let prefix = KeyPrefix::default();
            let key = ApiKey::generate(&prefix);
            let text = key.secret().expose();
            if !before.is_empty() || !after.is_empty() {
                let longer = format!("{before}{text}{after}");
                prop_assert!(ApiKey::parse(&prefix, &longer).is_err());
            }
            prop_assert!(ApiKey::parse(&prefix, &text[..cut]).is_err());
        }

        #[test]
        fn parsing_never_panics(text in any::<String>()) {
            let _ = ApiKey::parse(&KeyPrefix::default(), &text);
        }
    }
}
