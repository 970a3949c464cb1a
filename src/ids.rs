//! The names of things, checked once when they are read and carried as types from then on.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::random;

/// A name that breaks its rule; `Display` says which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidId(&'static str);

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidId {}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $rule:expr, $says:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Box<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let rule: fn(&str) -> bool = $rule;
                if rule(text) { Ok(Self(text.into())) } else { Err(InvalidId($says)) }
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.into()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $says:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type([u8; 12]);

        impl $type {
            /// A new id, unpredictable and for all purposes unique.
            pub fn random() -> Self {
                let mut id = [0; 12];
                id.copy_from_slice(random::base62(12).as_bytes());
                Self(id)
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                std::str::from_utf8(&self.0).unwrap_or_default()
            }
        }

        impl FromStr for $type {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                match text.as_bytes().try_into() {
                    Ok(id) if text.bytes().all(random::is_base62) => Ok(Self(id)),
                    _ => Err(InvalidId($says)),
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.as_str().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

id!(
    /// The public half of an API key: 12 base62 characters. May be logged and listed.
    KeyId,
    "a key id is 12 letters and digits"
);

id!(
    /// A licence's id: 12 base62 characters.
    LicenceId,
    "a licence id is 12 letters and digits"
);

name!(
    /// A group of resources; also a `scope` token (RFC 6749 §3.3).
    GroupId,
    |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_' | b'.'))
            && text.as_bytes()[0].is_ascii_alphanumeric()
    },
    "a group is 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
);

name!(
    /// A licensee's name, which is also the user-id of its Basic credentials (RFC 7617: no colon).
    AccountName,
    |text| {
        (1..=128).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b'@' | b'+'))
            && text.as_bytes()[0].is_ascii_alphanumeric()
    },
    "an account name is 1 to 128 letters, digits and '-', '_', '.', '@', '+', beginning with a letter or digit"
);

name!(
    /// A route's id, and its label in metrics and logs.
    RouteId,
    |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_' | b'.'))
    },
    "a route id is 1 to 64 of a-z, 0-9, '-', '_' and '.'"
);

name!(
    /// An upstream's id, and its label in metrics and logs.
    UpstreamId,
    |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_' | b'.'))
    },
    "an upstream id is 1 to 64 of a-z, 0-9, '-', '_' and '.'"
);

name!(
    /// A plan's id, in licences, keys, routes and answers.
    PlanId,
    |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_' | b'.'))
    },
    "a plan is 1 to 64 of a-z, 0-9, '-', '_' and '.'"
);

/// A token's `jti` (RFC 7519 §4.1.7): 128 random bits, written as 22 base64url characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; 16]);

impl TokenId {
    /// A new id.
    pub fn random() -> Self {
        Self(random::bytes())
    }

    /// Its 22 characters. Written for every request, so without the generality of a base64 engine.
    pub fn write<'a>(&self, text: &'a mut [u8; 22]) -> &'a [u8] {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits = u128::from_be_bytes(self.0);
        for (n, character) in text.iter_mut().take(21).enumerate() {
            *character = ALPHABET[(bits >> (122 - 6 * n) & 63) as usize];
        }
        // The last character holds the two bits that are left, and four zeros.
        text[21] = ALPHABET[(bits << 4 & 63) as usize];
        text
    }
}

impl FromStr for TokenId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut raw = [0u8; 16];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut raw) {
            Ok(16) if text.len() == 22 => Ok(Self(raw)),
            _ => Err(InvalidId("a token id is 22 base64url characters")),
        }
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(self.write(&mut [0; 22])).unwrap_or_default())
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of one request, in its log line, its answer's `X-Request-Id` and its problem's `instance`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestId(pub u64);

impl RequestId {
    /// Its 16 hexadecimal digits, without an allocation.
    pub fn write<'a>(&self, digits: &'a mut [u8; 16]) -> &'a [u8] {
        for (n, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(self.0 >> (60 - 4 * n) & 15) as usize];
        }
        digits
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(self.write(&mut [0; 16])).unwrap_or_default())
    }
}

/// Groups in their canonical order, without repeats.
pub type Groups = std::collections::BTreeSet<GroupId>;

/// A space-separated `scope` (RFC 6749 §3.3).
pub fn scope(groups: &Groups) -> String {
    let mut out = String::new();
    for group in groups {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(group.as_str());
    }
    out
}

/// Checks free text for people (titles, labels, plans): one line that cannot play tricks with the terminal it is shown on.
///
/// # Errors
/// [`InvalidId`], which says the rule.
pub fn free_text(text: &str) -> Result<&str, InvalidId> {
    if text.chars().count() <= 200 && !text.chars().any(controls) {
        Ok(text)
    } else {
        Err(InvalidId("free text is at most 200 characters on one line, without control characters"))
    }
}

/// Whether a character controls what shows it: those of the terminal, those that end a line, and those that turn the direction
/// of what stands around them (UAX #9 §2).
pub fn controls(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_rules() {
        assert!("acme@example.com".parse::<AccountName>().is_ok());
        for bad in ["", "a:b", "a b", "\u{7}", "-x", "ü"] {
            assert!(bad.parse::<AccountName>().is_err(), "{bad:?}");
        }
        assert!("orders.read".parse::<GroupId>().is_ok());
        assert!("Orders".parse::<GroupId>().is_err());
        assert!("0123456789Ab".parse::<KeyId>().is_ok());
        assert!("0123456789A_".parse::<KeyId>().is_err());
    }

    #[test]
    fn free_text_stays_on_its_line() {
        assert!(free_text("Acme GmbH, Köln").is_ok());
        assert!(free_text("").is_ok());
        assert!(free_text("שלום").is_ok());
        for bad in ["two\nlines", "two\u{2028}lines", "\u{1b}[2J", "\u{9b}2J", "no\u{202e}se", &"x".repeat(201)] {
            assert!(free_text(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn token_ids_round_trip() {
        for _ in 0..100 {
            let id = TokenId::random();
            assert_eq!(id.to_string(), URL_SAFE_NO_PAD.encode(id.0));
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert!("short".parse::<TokenId>().is_err());
    }
}
