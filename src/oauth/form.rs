//! Forms: `application/x-www-form-urlencoded` content (RFC 6749 Appendix B), read strictly. What a lenient reader would
//! mend, another one might mend differently. A query is read in the same way.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::secret::Secret;

/// No request of ours has more parameters.
const MOST_PARAMETERS: usize = 64;

/// Why content is no form that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A `%` without two hexadecimal digits.
    Escape,
    /// Not UTF-8, as sent or decoded.
    NotUtf8,
    /// A parameter is there twice (RFC 6749 §3.2).
    Doubled,
    /// More parameters than any request has.
    TooMany,
}

impl Malformed {
    /// `error_description` for the client: it does not name the parameter, which could be anything.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Escape => "The form has a percent sign without two hexadecimal digits",
            Self::NotUtf8 => "The form is not UTF-8",
            Self::Doubled => "A parameter is in the form more than once",
            Self::TooMany => "The form has too many parameters",
        }
    }

    /// A stable word for the log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Escape => "form_escape",
            Self::NotUtf8 => "form_not_utf8",
            Self::Doubled => "form_doubled_parameter",
            Self::TooMany => "form_too_many_parameters",
        }
    }
}

/// The parameters of a form. Their values may be secrets, and their names what somebody pasted into the wrong place.
#[derive(Debug, Default)]
pub struct Form(Vec<(Secret<String>, Secret<String>)>);

impl Form {
    /// Reads content.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(content: &[u8]) -> Result<Self, Malformed> {
        Self::parse_with(content, None)
    }

    /// Reads content in which the parameter `several` may be there more than once.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse_with(content: &[u8], several: Option<&str>) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(content).map_err(|_| Malformed::NotUtf8)?;
        let mut form = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if form.0.len() == MOST_PARAMETERS {
                return Err(Malformed::TooMany);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?.into_owned(), decode(value)?.into_owned());
            if several != Some(name.as_str()) && form.0.iter().any(|(known, _)| *known.expose() == name) {
                return Err(Malformed::Doubled);
            }
            form.0.push((Secret::new(name), Secret::new(value)));
        }
        Ok(form)
    }

    /// A parameter's value. One that is empty counts as left out (RFC 6749 §3.2).
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known.expose() == name)?;
        Some(value.expose().as_str()).filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known.expose() == name).map(|(_, value)| value.expose().as_str())
    }
}

/// Whether content, be it as malformed as it may, has a parameter of this name.
pub fn mentions(content: &[u8], name: &str) -> bool {
    content.split(|byte| *byte == b'&').any(|pair| {
        let found = pair.split(|byte| *byte == b'=').next().and_then(|name| std::str::from_utf8(name).ok());
        found.is_some_and(|found| decode(found).is_ok_and(|found| found == name))
    })
}

/// Whether the content is said to be a form. Two `Content-Type` lines say nothing.
pub fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// Whether text has anything that [`decode`] would change.
pub fn has_escapes(text: &str) -> bool {
    text.contains(['%', '+'])
}

/// Decodes a name or a value: `+` is a blank, `%` and two hexadecimal digits are a byte of UTF-8.
///
/// # Errors
/// [`Malformed::Escape`] or [`Malformed::NotUtf8`].
pub fn decode(text: &str) -> Result<Cow<'_, str>, Malformed> {
    if !has_escapes(text) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit =
                    || bytes.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or(Malformed::Escape);
                u8::try_from(digit()? << 4 | digit()?).map_err(|_| Malformed::Escape)?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|error| {
        drop(Secret::new(error.into_bytes()));
        Malformed::NotUtf8
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(text: &str) -> String {
        let mut encoded = String::new();
        for byte in text.bytes() {
            match byte {
                b' ' => encoded.push('+'),
                byte if byte.is_ascii_alphanumeric() => encoded.push(byte.into()),
                byte => encoded.push_str(&format!("%{byte:02X}")),
            }
        }
        encoded
    }

    /// RFC 6749 Appendix B has this example.
    #[test]
    fn the_example_of_rfc_6749_is_read() {
        assert_eq!(decode("+%25%26%2B%C2%A3%E2%82%AC").unwrap(), " %&+£€");
        assert_eq!(decode("%2b%e2%82%ac").unwrap(), "+€", "digits of either case");
    }

    #[test]
    fn parameters_are_found_and_empty_ones_count_as_left_out() {
        let form = Form::parse(b"grant_type=client_credentials&&scope=&flag&client%5Fid=a%3Db=c&=x&").unwrap();
        assert_eq!(form.get("grant_type"), Some("client_credentials"));
        assert_eq!(form.get("client_id"), Some("a=b=c"), "split at the first equals sign, then decoded");
        for none in ["scope", "flag", "client%5Fid", "other", "Grant_Type"] {
            assert_eq!(form.get(none), None, "{none}");
        }
        assert!(Form::parse(b"").is_ok());
        assert_eq!(format!("{form:?}").matches("redacted").count(), 10, "neither names nor values show");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let cases: &[(&[u8], Malformed)] = &[
            (b"a=1&a=1", Malformed::Doubled),
            (b"a=1&a=2", Malformed::Doubled),
            (b"a=&a=2", Malformed::Doubled),
            (b"a&a", Malformed::Doubled),
            (b"a=1&b=2&%61=3", Malformed::Doubled),
            (b"unknown=1&unknown=2", Malformed::Doubled),
            (b"a=%", Malformed::Escape),
            (b"a=%4", Malformed::Escape),
            (b"a=%4g", Malformed::Escape),
            (b"a=%+1", Malformed::Escape),
            (b"%zz=1", Malformed::Escape),
            (b"a=%%34%31", Malformed::Escape),
            (b"a=%ff", Malformed::NotUtf8),
            (b"a=%c3%28", Malformed::NotUtf8),
            (b"a=\xff", Malformed::NotUtf8),
        ];
        for (content, why) in cases {
            assert_eq!(Form::parse(content).err(), Some(*why), "{}", String::from_utf8_lossy(content));
        }
        let many = |count: usize| (0..count).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join("&");
        assert!(Form::parse(many(MOST_PARAMETERS).as_bytes()).is_ok());
        assert_eq!(Form::parse(many(MOST_PARAMETERS + 1).as_bytes()).err(), Some(Malformed::TooMany));
    }

    #[test]
    fn a_parameter_may_be_there_several_times_where_that_is_meant() {
        let form = Form::parse_with(b"scope=a&service=x&s%63ope=b+c&scope=", Some("scope")).unwrap();
        assert_eq!(form.all("scope").collect::<Vec<_>>(), ["a", "b c", ""]);
        assert_eq!((form.get("service"), form.all("other").count()), (Some("x"), 0));
        assert_eq!(Form::parse_with(b"scope=a&x=1&x=1", Some("scope")).err(), Some(Malformed::Doubled));
    }

    #[test]
    fn a_parameter_is_noticed_in_content_that_is_no_good_form() {
        for content in ["grant_type", "grant_type=", "x=%zz&grant_type=a", "grant%5ftype=x", "a=1&grant_type=x&a=2"] {
            assert!(mentions(content.as_bytes(), "grant_type"), "{content}");
        }
        for content in ["", "a=grant_type", "grant_types=x", "xgrant_type=", "{\"grant_type\":1}", "Grant_type=x"] {
            assert!(!mentions(content.as_bytes(), "grant_type"), "{content}");
        }
    }

    #[test]
    fn a_form_is_told_by_its_media_type() {
        let says = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_TYPE, value.parse().unwrap());
            }
            is_form(&headers)
        };
        assert!(says(&["application/x-www-form-urlencoded"]));
        assert!(says(&["Application/X-WWW-Form-Urlencoded ; charset=UTF-8"]));
        for other in ["application/json", "application/x-www-form-urlencodedx", "multipart/form-data", ""] {
            assert!(!says(&[other]), "{other}");
        }
        assert!(!says(&[]));
        assert!(!says(&["application/x-www-form-urlencoded", "application/x-www-form-urlencoded"]));
    }

    proptest! {
        #[test]
        fn reading_never_panics(content in prop::collection::vec(any::<u8>(), 0..300), name in ".{0,8}") {
            let form = Form::parse(&content);
            if let Ok(form) = &form {
                prop_assert!(form.get(&name).is_none_or(|value| !value.is_empty()));
                prop_assert!(form.get(&name).is_none() || mentions(&content, &name));
            }
        }

        #[test]
        fn forms_of_strange_but_printable_parts_never_panic(content in "[a-c%+&=0-9A-F]{0,60}") {
            if let Ok(form) = Form::parse(content.as_bytes()) {
                prop_assert!(form.0.len() <= content.split('&').count());
            }
        }

        #[test]
        fn what_was_encoded_is_read_back(name in "[a-z_]{1,10}", value in "\\PC{1,40}", other in any::<String>()) {
            let content = format!("other={}&{}={}", encode(&other), encode(&name), encode(&value));
            prop_assume!(name != "other");
            let form = Form::parse(content.as_bytes()).unwrap();
            prop_assert_eq!(form.get(&name), Some(value.as_str()));
            prop_assert_eq!(form.get("other").unwrap_or_default(), other.as_str());
            prop_assert!(mentions(content.as_bytes(), &name));
        }

        #[test]
        fn a_doubled_parameter_is_refused_wherever_it_stands(
            mut pairs in prop::collection::vec(("[a-z]{1,4}", "[a-z]{0,4}"), 1..8),
            at in any::<prop::sample::Index>(),
            value in "[a-z]{0,4}",
        ) {
            let name = pairs[at.index(pairs.len())].0.clone();
            pairs.insert(at.index(pairs.len() + 1), (name, value));
            let content: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            prop_assert_eq!(Form::parse(content.join("&").as_bytes()).err(), Some(Malformed::Doubled));
        }
    }
}
