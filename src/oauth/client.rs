//! Client authentication (RFC 6749 §2.3.1): by HTTP Basic, or with `client_id` and `client_secret` in the form.
//!
//! A client is a key (`kb_<id>` with the whole key as its secret, or the whole key alone) or an account with its password.
//! RFC 6749 has both halves of Basic form-encoded; RFC 7617 has not, and there are clients of either kind. Most often only
//! one reading can be meant: neither a key nor an account's name has a `%`, and a name with a `+` was not encoded.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use super::error::{Code, OAuthError};
use super::form::{Form, decode, has_escapes};
use super::stop::Stop;
use crate::credentials::{NotSpecified, Presented, Verifier, token68};
use crate::exchange::quotable;
use crate::ids::AccountName;
use crate::keys::KeyPrefix;
use crate::secret::Secret;
use crate::tokens::Grant;

/// Authenticates clients.
#[derive(Debug)]
pub struct Clients {
    credentials: Arc<Verifier>,
    challenge: HeaderValue,
}

impl Clients {
    /// Those of `credentials`, challenged in `realm`.
    pub fn new(credentials: Arc<Verifier>, realm: &str) -> Self {
        // RFC 7617 §2.1: charset tells clients to send UTF-8.
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", quotable(realm));
        let challenge = HeaderValue::from_str(&challenge).unwrap_or(HeaderValue::from_static("Basic"));
        Self { credentials, challenge }
    }

    /// The challenge of a 401.
    pub(super) fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// What a plain request presents (CONTRACT §1).
    ///
    /// # Errors
    /// [`Stop::NotSpecified`].
    pub(super) fn plain(&self, headers: &HeaderMap) -> Result<Presented, Stop> {
        headers
            .get(AUTHORIZATION)
            .ok_or(NotSpecified::NoHeader)
            .and_then(|value| Presented::from_authorization(value.as_bytes(), self.credentials.prefix()))
            .map_err(Stop::NotSpecified)
    }

    /// What a form with `grant_type=password` presents (RFC 6749 §4.3.2). Its `client_id` names a program and proves nothing.
    ///
    /// # Errors
    /// [`Stop::NotSpecified`].
    pub(super) fn owner(&self, form: &Form) -> Result<Presented, Stop> {
        let (username, password) = (form.get("username"), form.get("password"));
        Presented::from_parts(username.unwrap_or_default(), password.unwrap_or_default(), self.credentials.prefix())
            .map_err(Stop::NotSpecified)
    }

    /// Verifies what was presented.
    ///
    /// # Errors
    /// [`Stop`].
    pub(super) async fn verified(&self, presented: Presented, from: IpAddr) -> Result<Grant, Stop> {
        Stop::unless_verified(self.credentials.verify(presented, from).await)
    }

    /// Authenticates who sent this form with these headers.
    ///
    /// # Errors
    /// `invalid_client`, `invalid_request` when there are two, or what came in between.
    pub(super) async fn authenticate(
        &self,
        headers: &HeaderMap,
        form: &Form,
        from: IpAddr,
    ) -> Result<Grant, OAuthError> {
        let presented = presented(headers, form, self.credentials.prefix()).map_err(|unread| match unread {
            Unread::NotSpecified(why) => Stop::NotSpecified(why).oauth(&self.challenge),
            Unread::Several => {
                let description = "Authenticate in one way: by HTTP Basic or in the form";
                OAuthError::new(Code::InvalidRequest, "several_authentications", description)
            }
        })?;
        self.verified(presented, from).await.map_err(|stop| stop.oauth(&self.challenge))
    }
}

/// Why nobody can be read from a request.
#[derive(Debug, PartialEq, Eq)]
enum Unread {
    NotSpecified(NotSpecified),
    /// RFC 6749 §2.3: not more than one method in each request.
    Several,
}

impl From<NotSpecified> for Unread {
    fn from(why: NotSpecified) -> Self {
        Self::NotSpecified(why)
    }
}

/// Reads the credentials of a request.
fn presented(headers: &HeaderMap, form: &Form, prefix: &KeyPrefix) -> Result<Presented, Unread> {
    let (id, secret) = (form.get("client_id"), form.get("client_secret"));
    let Some(authorization) = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes) else {
        return match (id, secret) {
            (None, None) => Err(NotSpecified::NoHeader.into()),
            (id, secret) => Ok(Presented::from_parts(id.unwrap_or_default(), secret.unwrap_or_default(), prefix)?),
        };
    };
    if secret.is_some() {
        return Err(Unread::Several);
    }
    if let Some(id) = id {
        // Some clients name themselves in the form as well, which proves nothing and so is no second method.
        let is_same = |user_id: &str, _: &str| Ok(user_id == id || decode(user_id).is_ok_and(|decoded| decoded == id));
        let is_basic = token68(authorization, b"basic").is_some();
        if !is_basic || !Presented::from_pair(authorization, is_same)? {
            return Err(Unread::Several);
        }
    }
    Ok(Presented::from_pair(authorization, |user_id, password| from_basic(user_id, password, prefix))?)
}

/// Reads a pair that may be form-encoded.
fn from_basic(user_id: &str, password: &str, prefix: &KeyPrefix) -> Result<Presented, NotSpecified> {
    let as_sent = Presented::new(user_id, password, prefix);
    if !has_escapes(user_id) && !has_escapes(password) {
        return as_sent;
    }
    let (Ok(name), Ok(secret)) = (decode(user_id), decode(password)) else { return as_sent };
    let Ok(decoded) = Presented::from_parts(&name, &secret, prefix) else { return as_sent };
    match (as_sent, decoded) {
        (_, decoded @ Presented::Key(_)) => Ok(decoded),
        // The name does not say which it is. Both readings of the password are one presentation.
        (Ok(Presented::Password { user_id, password, .. }), Presented::Password { password: other, .. })
            if user_id == name =>
        {
            let otherwise = Some(other).filter(|other: &Secret<String>| *other != password);
            Ok(Presented::Password { user_id, password, otherwise })
        }
        (as_sent, _) if user_id == name || user_id.parse::<AccountName>().is_ok() => as_sent,
        (_, decoded) => Ok(decoded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Reason;
    use crate::keys::ApiKey;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    fn prefix() -> KeyPrefix {
        KeyPrefix::default()
    }

    fn basic(pair: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)).parse().unwrap());
        headers
    }

    fn read(headers: &HeaderMap, form: &str) -> Result<Presented, Unread> {
        presented(headers, &Form::parse(form.as_bytes()).unwrap(), &prefix())
    }

    /// User-id, password, and its other reading.
    fn password(presented: Result<Presented, Unread>) -> (String, String, Option<String>) {
        match presented {
            Ok(Presented::Password { user_id, password, otherwise }) => {
                (user_id, password.expose().clone(), otherwise.map(|other| other.expose().clone()))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn basic_is_read_as_sent_and_decoded_as_far_as_both_can_be_meant() {
        let none = None::<&str>;
        for (pair, user_id, as_sent, otherwise) in [
            ("acme:open sesame", "acme", "open sesame", none),
            ("acme:open+sesame", "acme", "open+sesame", Some("open sesame")),
            ("acme:100%25", "acme", "100%25", Some("100%")),
            ("acme:100%", "acme", "100%", none),
            ("acme:%00", "acme", "%00", none),
            ("acme:%FF", "acme", "%FF", none),
            // The name was encoded, so the password was.
            ("acme%40example.com:100%25", "acme@example.com", "100%", none),
            ("a%2Bb:c+d", "a+b", "c d", none),
            // The name has what an encoder would not have left.
            ("a+b:c+d", "a+b", "c+d", none),
            // No account can have the name either way.
            ("a b:c+d", "a b", "c+d", Some("c d")),
        ] {
            let (user, sent, other) = password(read(&basic(pair), ""));
            assert_eq!((user.as_str(), sent.as_str(), other.as_deref()), (user_id, as_sent, otherwise), "{pair}");
        }
    }

    #[test]
    fn a_key_is_found_in_every_place_and_spelling() {
        let key = ApiKey::generate(&prefix());
        let (text, name) = (key.secret().expose(), prefix().name_of(key.id()));
        let escaped = |text: &str| text.replace('_', "%5F");
        let is_key = |presented| matches!(presented, Ok(Presented::Key(found)) if found.id() == key.id());
        for pair in [
            format!("{text}:"),
            format!("{name}:{text}"),
            format!("{}:", escaped(text)),
            format!("{}:{}", escaped(&name), escaped(text)),
            format!("{name}:{}", escaped(text)),
        ] {
            assert!(is_key(read(&basic(&pair), "")), "Basic");
        }
        let none = HeaderMap::new();
        for form in [
            format!("client_id={text}"),
            format!("client_id={text}&client_secret="),
            format!("client_id={name}&client_secret={}", escaped(text)),
        ] {
            assert!(is_key(read(&none, &form)), "a form");
        }
        let wrong = |presented, reason| assert!(matches!(presented, Ok(Presented::Wrong(why)) if why == reason));
        wrong(read(&none, &format!("client_id={text}&client_secret=x")), Reason::PasswordWithKey);
        wrong(read(&none, &format!("client_id={name}")), Reason::KeyIdAlone);
        wrong(read(&basic(&format!("{text}:a+b")), ""), Reason::PasswordWithKey);
        wrong(read(&basic("kb%5Fnonsense:"), ""), Reason::MalformedKey);
    }

    #[test]
    fn who_authenticates_twice_or_not_at_all_is_refused() {
        let several = |headers: &HeaderMap, form: &str| assert_eq!(read(headers, form).err(), Some(Unread::Several));
        several(&basic("acme:x"), "client_id=acme&client_secret=x");
        several(&basic("acme:x"), "client_secret=x");
        several(&basic("acme:x"), "client_id=other");
        assert_eq!(password(read(&basic("acme:x"), "client_id=acme&client_secret=")).0, "acme", "it names itself");
        assert_eq!(password(read(&basic("a%40b:x"), "client_id=a%40b")).0, "a@b");
        let mut bearer = HeaderMap::new();
        bearer.insert(AUTHORIZATION, "Bearer abc".parse().unwrap());
        several(&bearer, "client_id=acme");
        let not_specified = |headers: &HeaderMap, form: &str, why: NotSpecified| {
            assert_eq!(read(headers, form).err(), Some(Unread::NotSpecified(why)), "{form}");
        };
        let none = HeaderMap::new();
        not_specified(&bearer, "", NotSpecified::OtherScheme);
        not_specified(&none, "", NotSpecified::NoHeader);
        not_specified(&none, "client_id=&client_secret=", NotSpecified::NoHeader);
        not_specified(&none, "client_secret=x", NotSpecified::EmptyUserId);
        not_specified(&none, "client_id=acme", NotSpecified::EmptyPassword);
        not_specified(&none, "client_id=acme&client_secret=%00", NotSpecified::ControlCharacter);
        not_specified(&none, &format!("client_id=a&client_secret={}", "x".repeat(4097)), NotSpecified::TooLong);
        not_specified(&basic("acme"), "", NotSpecified::NoColon);
    }

    proptest! {
        #[test]
        fn reading_never_panics(value in prop::collection::vec(any::<u8>(), 0..120), pair in ".{0,60}", form in "[a-z_%=&+0-9]{0,80}") {
            let form = Form::parse(form.as_bytes()).unwrap_or_default();
            let _ = presented(&basic(&pair), &form, &prefix());
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(AUTHORIZATION, value);
                let _ = presented(&headers, &form, &prefix());
            }
        }

        /// Whether a client encodes or not, its password is among the readings.
        #[test]
        fn either_kind_of_client_is_understood(name in "[a-z][a-z@+.]{0,12}", secret in "[ -~£€]{1,24}") {
            let encode = |text: &str| -> String {
                text.bytes().map(|b| match b {
                    b' ' => "+".to_owned(),
                    b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
                    b => format!("%{b:02X}"),
                }).collect()
            };
            for pair in [format!("{name}:{secret}"), format!("{}:{}", encode(&name), encode(&secret))] {
                let (user, password, otherwise) = password(read(&basic(&pair), ""));
                prop_assert_eq!(&user, &name);
                prop_assert!(password == secret || otherwise.as_deref() == Some(&secret));
            }
        }
    }
}
