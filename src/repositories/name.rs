//! Names of repositories, and the patterns that rules have for them. A name is taken as it is or refused: what a registry
//! would read otherwise must not get past a rule.

use std::fmt;
use std::str::FromStr;

use crate::ids::AccountName;

/// The longest name of a repository that a registry takes, in bytes.
pub(super) const LONGEST: usize = 255;

/// The account's own name, where a pattern has it.
const ACCOUNT: &str = "{account}";

/// Whether this is the name of a repository: `[host[:port]/]component/…`.
pub(super) fn is_name(text: &str) -> bool {
    let mut segments = text.split('/');
    let first = segments.next().unwrap_or_default();
    text.len() <= LONGEST
        && (is_component(first) || (is_host(first) && text.len() > first.len()))
        && segments.all(is_component)
}

/// Small letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |run: &str| matches!(run, "." | "_" | "__") || run.bytes().all(|c| c == b'-');
    text.starts_with(is_alphanumeric)
        && text.ends_with(is_alphanumeric)
        && text.split(is_alphanumeric).all(is_separator)
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let is_label = |label: &str| {
        label.starts_with(|c: char| c.is_ascii_alphanumeric())
            && label.ends_with(|c: char| c.is_ascii_alphanumeric())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    host.split('.').all(is_label) && (1..=5).contains(&port.len()) && port.bytes().all(|c| c.is_ascii_digit())
}

/// Why text is no pattern; `Display` says the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidName;

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "write the repository's name; '*' or {account} may stand for one whole part of it, and '**' for all that \
             follows",
        )
    }
}

impl std::error::Error for InvalidName {}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Account,
    Any,
}

/// A pattern of names: `team/app` is that one, `team/*` each directly in `team`, `team/**` each below it at any depth, and
/// `{account}/**` each below the name of whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    segments: Vec<Segment>,
    and_below: bool,
}

impl NamePattern {
    /// Whether it has this name, for this account.
    pub fn has(&self, name: &str, account: &AccountName) -> bool {
        let mut parts = name.split('/');
        let begins = self.segments.iter().all(|segment| match (segment, parts.next()) {
            (_, None) => false,
            (Segment::Literal(text), Some(part)) => **text == *part,
            (Segment::Account, Some(part)) => account.as_str() == part,
            (Segment::Any, Some(_)) => true,
        });
        begins && parts.next().is_some() == self.and_below
    }
}

impl FromStr for NamePattern {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (text, and_below) = match text.strip_suffix("**") {
            Some("") => return Ok(Self { segments: vec![], and_below: true }),
            Some(before) => (before.strip_suffix('/').ok_or(InvalidName)?, true),
            None => (text, false),
        };
        // A host alone is no name.
        let may_be_host = |at: usize| at == 0 && (and_below || text.contains('/'));
        let segments = text.split('/').enumerate().map(|(at, part)| match part {
            ACCOUNT => Ok(Segment::Account),
            "*" => Ok(Segment::Any),
            part if is_component(part) || (may_be_host(at) && is_host(part)) => Ok(Segment::Literal(part.into())),
            _ => Err(InvalidName),
        });
        let segments = segments.collect::<Result<Vec<_>, _>>()?;
        if text.len() <= LONGEST { Ok(Self { segments, and_below }) } else { Err(InvalidName) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_what_a_registry_takes_for_one() {
        for good in [
            "a",
            "library/alpine",
            "a.b/c_d/e__f/g---h",
            "localhost:5000/a",
            "Registry.example.com/team/app",
            "registry.example.com:443/a",
            "0/1",
            &"a".repeat(255),
        ] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a/./b",
            "A",
            "a/B",
            "a..b",
            "a___b",
            "a._b",
            "-a",
            "a-",
            "a:b",
            "a:1",
            "host:/a",
            "host:123456/a",
            "a/b:1/c",
            "a b",
            "a%2fb",
            "ä",
            "a\n",
            "*",
            "a/*",
            "{account}/a",
            &"a".repeat(256),
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_pattern_has_the_names_it_says() {
        let acme: AccountName = "acme".parse().unwrap();
        let has = |pattern: &str, name: &str| pattern.parse::<NamePattern>().unwrap().has(name, &acme);
        let table: [(&str, &[&str], &[&str]); 8] = [
            ("team/app", &["team/app"], &["team", "team/app/x", "team/apple", "x/team/app"]),
            ("team/*", &["team/app"], &["team", "team/app/x", "teams/app"]),
            ("team/**", &["team/app", "team/app/x/y"], &["team", "teams/app", "x/team/app"]),
            ("*/app", &["team/app", "acme/app"], &["app", "team/other/app", "team/apps"]),
            ("{account}/**", &["acme/app", "acme/a/b"], &["acme", "acmes/app", "other/app", "other/acme/x"]),
            ("mirror/{account}", &["mirror/acme"], &["mirror/other", "mirror/acme/x"]),
            ("**", &["a", "a/b/c", "host:5000/x"], &[]),
            ("host:5000/*", &["host:5000/x"], &["host/x", "host:5001/x"]),
        ];
        for (pattern, names, others) in table {
            for name in names {
                assert!(has(pattern, name), "{pattern} has {name}");
            }
            for name in others {
                assert!(!has(pattern, name), "{pattern} does not have {name}");
            }
        }
        // No repository can have this name, and none that is alike is meant.
        let odd: AccountName = "Acme@example.com".parse().unwrap();
        let own: NamePattern = "{account}/**".parse().unwrap();
        assert!(!own.has("acme/app", &odd) && !own.has("acme@example.com/app", &odd));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "team-*",
            "*a/b",
            "a**",
            "**/a",
            "a/**/b",
            "a/***",
            "A",
            "..",
            "a/{accounts}",
            "{account}x",
            "{name}",
            "a b",
            "a:b/c/d:e",
        ] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_a_pattern_of_itself_alone(
            name in "([a-b]:[0-9]/)?[a-b]{1,2}([./_-][a-b]){0,2}",
            other in "([a-b]:[0-9]/)?[a-b]{1,2}([./_-][a-b]){0,2}",
        ) {
            prop_assert!(is_name(&name) && is_name(&other));
            let pattern: NamePattern = name.parse().unwrap();
            let account = "acme".parse().unwrap();
            prop_assert!(pattern.has(&name, &account));
            prop_assert_eq!(pattern.has(&other, &account), name == other);
        }

        #[test]
        fn reading_never_panics_and_what_is_read_as_a_name_is_one(text in "[a-bA./_:*{}-]{0,12}|\\PC{0,12}") {
            if let Ok(pattern) = text.parse::<NamePattern>() {
                let account = "acme".parse().unwrap();
                prop_assert_eq!(pattern.has(&text, &account) && !text.contains(['*', '{']), is_name(&text));
            }
        }

        #[test]
        fn what_is_below_begins_with_what_is_above(name in "[a-z]{1,3}(/[a-z]{1,3}){0,4}") {
            let below: NamePattern = "a/**".parse().unwrap();
            prop_assert_eq!(below.has(&name, &"acme".parse().unwrap()), name.starts_with("a/"));
        }
    }
}
