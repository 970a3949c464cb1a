//! `[[claims]]`: what tokens say of an account or group beyond the standard claims.

use toml::de::DeValue;

use super::reader::{Reader, Section};
use super::values::{Given, Read, parsed};
use crate::ids::{AccountName, GroupId};
use crate::tokens::{ClaimValue, Holder, MOST_EXTRA, RESERVED, StaticClaim, most_bytes};

/// A claim as far as it could be read.
#[derive(Debug, Default)]
pub(super) struct Claim {
    account: Option<AccountName>,
    group: Option<GroupId>,
    name: Option<String>,
    value: Option<ClaimValue>,
}

pub(super) fn read_claim(section: &mut Section) -> Claim {
    let mut claim = Claim::default();
    section.read_some("account", &mut claim.account, parsed("an account", "\"acme\""));
    section.read_some("group", &mut claim.group, parsed("a group", "\"orders\""));
    section.read_some("name", &mut claim.name, name);
    section.read_some("value", &mut claim.value, value);
    section.require("name", "write what the claim is called, as in name = \"https://example.com/tier\"");
    section.require("value", "write what it says, as in value = \"gold\"");
    match (section.has("account"), section.has("group")) {
        (true, true) => section.object("group", "is given beside account", "a claim has one holder: remove the other"),
        (false, false) => {
            section.object("group", "is not given", "write whose tokens say it: group = \"…\" or account = \"…\"")
        }
        _ => {}
    }
    claim
}

/// RFC 7519 §4.2: a name that nobody else can mean something by.
fn name(given: Given) -> Read<String> {
    const EXAMPLE: &str = "\"https://example.com/tier\"";
    const REMEDY: &str = "write a name of your own, a URI or a name with a domain in it (RFC 7519 §4.2)";
    match given.text() {
        Some(text) if RESERVED.contains(&text) => Err(given.is("is said by every token itself", REMEDY, EXAMPLE)),
        Some(text) if text.is_empty() || text.len() > 256 || text.chars().any(|c| c.is_control() || c == ' ') => {
            Err(given.is_not("the name of a claim", REMEDY, EXAMPLE))
        }
        Some(text) if !text.contains(['.', '/', ':']) => Err(given.is("has no namespace", REMEDY, EXAMPLE)),
        Some(text) => Ok(text.to_owned()),
        None => Err(given.is_not("the name of a claim", REMEDY, EXAMPLE)),
    }
}

fn value(given: Given) -> Read<ClaimValue> {
    /// Beyond it readers of JSON differ (RFC 7493 §2.2).
    const MOST: i64 = (1 << 53) - 1;
    const REMEDY: &str = "write text in quotes, a whole number of less than 2^53, true or false";
    let found = match given {
        _ if given.text().is_some() => given.text().map(|text| ClaimValue::Text(text.to_owned())),
        Given::Toml(DeValue::Boolean(is)) => Some(ClaimValue::Boolean(*is)),
        Given::Toml(DeValue::Integer(number)) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| (-MOST..=MOST).contains(number))
            .map(ClaimValue::Integer),
        _ => None,
    };
    found.ok_or_else(|| given.is_not("what a claim can say", REMEDY, "\"gold\""))
}

/// Checks claims against one another.
pub(super) fn check(claims: &[Claim], reader: &mut Reader) {
    for (index, claim) in claims.iter().enumerate() {
        let is_same =
            |other: &Claim| other.name == claim.name && other.group == claim.group && other.account == claim.account;
        if claim.name.is_some()
            && let Some(twin) = claims[..index].iter().position(is_same)
        {
            let problem = format!("is the claim of claims[{twin}] too, for the same holder");
            reader.object(&format!("claims[{index}].name"), problem, "write it once");
        }
    }
    let bytes = most_bytes(&claims.iter().filter_map(settle).collect::<Vec<_>>());
    if bytes > MOST_EXTRA {
        let problem = format!("take up to {bytes} bytes of one token");
        reader.object(
            "claims",
            problem,
            format!("write {MOST_EXTRA} bytes or less: a token travels with every request"),
        );
    }
}

/// The whole claims; all of them, when the reading had no fault.
pub(super) fn settled(claims: Vec<Claim>) -> Vec<StaticClaim> {
    claims.iter().filter_map(settle).collect()
}

fn settle(claim: &Claim) -> Option<StaticClaim> {
    let holder = match (&claim.account, &claim.group) {
        (Some(account), None) => Holder::Account(account.clone()),
        (None, Some(group)) => Holder::Group(group.clone()),
        _ => return None,
    };
    Some(StaticClaim { holder, name: claim.name.clone()?, value: claim.value.clone()? })
}
