//! HTTP Basic (RFC 7617), read into types. What is not specified and what is wrong are told apart here (CONTRACT §1).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Reason;
use crate::keys::{ApiKey, KeyPrefix};
use crate::secret::Secret;

/// The longest user-id and password together, in bytes. Longer ones are refused before any hashing.
pub const LONGEST: usize = 4096;

/// The username and/or the password was not specified: why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSpecified {
    /// No `Authorization` header.
    NoHeader,
    /// More than one.
    SeveralHeaders,
    /// Another scheme than Basic.
    OtherScheme,
    /// Not base64.
    NotBase64,
    /// Not UTF-8.
    NotUtf8,
    /// No colon between user-id and password.
    NoColon,
    /// Nothing before the colon.
    EmptyUserId,
    /// Nothing behind the colon, and the user-id is no API key.
    EmptyPassword,
    /// A control character (RFC 7617 §2 forbids them).
    ControlCharacter,
    /// Longer than anyone's credentials.
    TooLong,
}

impl NotSpecified {
    /// A stable word for logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoHeader => "no_authorization",
            Self::SeveralHeaders => "several_authorizations",
            Self::OtherScheme => "other_scheme",
            Self::NotBase64 => "not_base64",
            Self::NotUtf8 => "not_utf8",
            Self::NoColon => "no_colon",
            Self::EmptyUserId => "empty_user_id",
            Self::EmptyPassword => "empty_password",
            Self::ControlCharacter => "control_character",
            Self::TooLong => "too_long",
        }
    }
}

impl fmt::Display for NotSpecified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHeader => "There is no Authorization header.",
            Self::SeveralHeaders => "There is more than one Authorization header.",
            Self::OtherScheme => "The Authorization header is not of the Basic scheme.",
            Self::NotBase64 => "What follows \"Basic\" is not base64.",
            Self::NotUtf8 => "The credentials are not UTF-8.",
            Self::NoColon => "There is no colon between user-id and password.",
            Self::EmptyUserId => "The user-id is empty.",
            Self::EmptyPassword => "The password is empty. Only an API key goes without one.",
            Self::ControlCharacter => "The credentials contain a control character.",
            Self::TooLong => "The credentials are too long.",
        })
    }
}

/// Credentials as presented. Well-formed is not yet right.
#[derive(Debug)]
pub enum Presented {
    /// A well-formed API key.
    Key(ApiKey),
    /// A user-id and a password.
    Password {
        /// The user-id, which is the account's name if there is such an account.
        user_id: String,
        /// The password.
        password: Secret<String>,
        /// The password in the other reading, where what was sent has two (RFC 6749 §2.3.1). It is one presentation all
        /// the same.
        otherwise: Option<Secret<String>>,
    },
    /// Specified, and wrong whatever the store says.
    Wrong(Reason),
}

impl Presented {
    /// Reads the value of an `Authorization` header: `Basic base64(user-id ":" password)`, split at the first colon, the
    /// scheme in any case (RFC 7617 §2).
    ///
    /// # Errors
    /// [`NotSpecified`].
    pub fn from_authorization(value: &[u8], prefix: &KeyPrefix) -> Result<Self, NotSpecified> {
        Self::from_pair(value, |user_id, password| Self::new(user_id, password, prefix))
    }

    /// The same for who has a reading of his own of the pair.
    ///
    /// # Errors
    /// [`NotSpecified`].
    pub fn from_pair<T>(
        value: &[u8],
        read: impl FnOnce(&str, &str) -> Result<T, NotSpecified>,
    ) -> Result<T, NotSpecified> {
        let encoded = token68(value, b"basic").ok_or(NotSpecified::OtherScheme)?;
        if encoded.len() > LONGEST * 4 / 3 + 4 {
            return Err(NotSpecified::TooLong);
        }
        let decoded = zeroize::Zeroizing::new(STANDARD.decode(encoded).map_err(|_| NotSpecified::NotBase64)?);
        let text = std::str::from_utf8(&decoded).map_err(|_| NotSpecified::NotUtf8)?;
        presentable(text)?;
        let (user_id, password) = text.split_once(':').ok_or(NotSpecified::NoColon)?;
        read(user_id, password)
    }

    /// Reads a user-id and a password that did not come as one pair: as [`Presented::new`], with the rules of a pair.
    ///
    /// # Errors
    /// [`NotSpecified`].
    pub fn from_parts(user_id: &str, password: &str, prefix: &KeyPrefix) -> Result<Self, NotSpecified> {
        presentable(user_id)?;
        presentable(password)?;
        Self::new(user_id, password, prefix)
    }

    /// Sorts out a user-id and a password.
    ///
    /// # Errors
    /// [`NotSpecified::EmptyUserId`] or [`NotSpecified::EmptyPassword`].
    pub fn new(user_id: &str, password: &str, prefix: &KeyPrefix) -> Result<Self, NotSpecified> {
        if user_id.is_empty() {
            return Err(NotSpecified::EmptyUserId);
        }
        if !prefix.claims(user_id) {
            if password.is_empty() {
                return Err(NotSpecified::EmptyPassword);
            }
            let (user_id, password) = (user_id.to_owned(), Secret::from(password));
            return Ok(Self::Password { user_id, password, otherwise: None });
        }
        // The key as user-id needs no password. Clients that insist on one send the key's id, and the key as password.
        let key = match (prefix.key_id(user_id), password) {
            (None, "") => ApiKey::parse(prefix, user_id),
            (None, _) => return Ok(Self::Wrong(Reason::PasswordWithKey)),
            (Some(_), "") => return Ok(Self::Wrong(Reason::KeyIdAlone)),
            (Some(id), key) => match ApiKey::parse(prefix, key) {
                Ok(key) if *key.id() != id => return Ok(Self::Wrong(Reason::OtherKeyId)),
                parsed => parsed,
            },
        };
        Ok(key.map_or(Self::Wrong(Reason::MalformedKey), Self::Key))
    }
}

fn presentable(text: &str) -> Result<(), NotSpecified> {
    if text.len() > LONGEST {
        return Err(NotSpecified::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(NotSpecified::ControlCharacter);
    }
    Ok(())
}

/// What follows the scheme, when it is this one: `scheme 1*SP token68` (RFC 9110 §11.4).
pub fn token68<'a>(value: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (name, rest) = value.split_at_checked(scheme.len())?;
    if !name.eq_ignore_ascii_case(scheme) {
        return None;
    }
    let encoded = rest.trim_ascii_start();
    (encoded.len() < rest.len() || rest.is_empty()).then(|| encoded.trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(value: &str) -> Result<Presented, NotSpecified> {
        Presented::from_authorization(value.as_bytes(), &KeyPrefix::default())
    }

    fn basic(pair: &[u8]) -> Result<Presented, NotSpecified> {
        read(&format!("Basic {}", STANDARD.encode(pair)))
    }

    fn assert_password(presented: Result<Presented, NotSpecified>, user: &str, secret: &str) {
        match presented {
            Ok(Presented::Password { user_id, password, otherwise: None }) => {
                assert_eq!((user_id.as_str(), password.expose().as_str()), (user, secret));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_examples_of_rfc_7617_are_read() {
        assert_password(read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), "Aladdin", "open sesame");
        assert_password(read("Basic dGVzdDoxMjPCow=="), "test", "123£");
        assert_password(read("bAsIc   QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), "Aladdin", "open sesame");
        assert_password(basic(b"Aladdin:open:sesame: "), "Aladdin", "open:sesame: ");
    }

    #[test]
    fn what_is_not_specified_is_named() {
        let cases: &[(&[u8], NotSpecified)] = &[
            (b"nocolon", NotSpecified::NoColon),
            (b":password", NotSpecified::EmptyUserId),
            (b":", NotSpecified::EmptyUserId),
            (b"user:", NotSpecified::EmptyPassword),
            (b"us\x07er:password", NotSpecified::ControlCharacter),
            (b"user:pass\xc2\x85word", NotSpecified::ControlCharacter),
            (b"user:\xff\xfe", NotSpecified::NotUtf8),
        ];
        for (pair, why) in cases {
            assert_eq!(basic(pair).err(), Some(*why), "{pair:?}");
        }
        for other in ["Bearer abc", "Basically abc", "", "B", "Basic!abc"] {
            assert_eq!(read(other).err(), Some(NotSpecified::OtherScheme), "{other:?}");
        }
        for broken in ["Basic a", "Basic dGVzdDoxMjPCow", "Basic dXNlcjpwYXNz*", "Basic dGVz dDox"] {
            assert_eq!(read(broken).err(), Some(NotSpecified::NotBase64), "{broken:?}");
        }
        assert_eq!(read("Basic").err(), Some(NotSpecified::NoColon));
        assert_eq!(basic(&[b'x'; LONGEST + 1]).err(), Some(NotSpecified::TooLong));
    }

    #[test]
    fn a_key_goes_alone_or_behind_its_own_id() {
        let prefix = KeyPrefix::default();
        let key = ApiKey::generate(&prefix);
        let (text, name) = (key.secret().expose(), prefix.name_of(key.id()));
        let new = |user: &str, password: &str| Presented::new(user, password, &prefix).unwrap();
        assert!(matches!(new(text, ""), Presented::Key(_)));
        assert!(matches!(new(&name, text), Presented::Key(_)));
        assert!(matches!(new(text, "password"), Presented::Wrong(Reason::PasswordWithKey)));
        assert!(matches!(new(text, text), Presented::Wrong(Reason::PasswordWithKey)));
        assert!(matches!(new(&name, ""), Presented::Wrong(Reason::KeyIdAlone)));
        assert!(matches!(new("kb_AAAAAAAAAAAA", text), Presented::Wrong(Reason::OtherKeyId)));
        assert!(matches!(new("kb_nonsense", ""), Presented::Wrong(Reason::MalformedKey)));
        assert!(matches!(new(&name, "password"), Presented::Wrong(Reason::MalformedKey)));
    }

    proptest! {
        #[test]
        fn reading_never_panics(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Presented::from_authorization(&value, &KeyPrefix::default());
            let _ = basic(&value);
        }

        #[test]
        fn a_password_is_kept_to_the_letter(user in "[a-zA-Z0-9äöü ]{1,20}", password in "[ -~£€]{1,40}") {
            prop_assume!(!user.starts_with("kb_"));
            assert_password(basic(format!("{user}:{password}").as_bytes()), &user, &password);
        }
    }
}
