//! A signed licence document: what a vendor grants, in a form that needs no call home to be believed.
//!
//! A compact JWS (RFC 7515 §7.1) with Ed25519 (RFC 8037), of which one form alone is accepted: a header of `alg`, `typ` and
//! `kid`, claims that are all known here, base64url without padding and without stray bits (RFC 4648 §3.5), sixteen
//! kibibytes at most. Between two lines that say what it is, in lines of 64 characters, it can be mailed.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::vendor::{VendorKey, VendorPublicKey};
use crate::clock::Timestamp;
use crate::ids::{AccountName, Groups, LicenceId, TokenId, free_text};

const TYPE: &str = "keybearer-licence+jwt";
const BEGIN: &str = "-----BEGIN KEYBEARER LICENCE-----";
const END: &str = "-----END KEYBEARER LICENCE-----";
const WIDTH: usize = 64;

/// The longest document there can be, armoured or not.
pub const MOST_BYTES: usize = 16 * 1024;

/// Why a text is no licence document that can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentError {
    /// Longer than [`MOST_BYTES`].
    TooLong,
    /// Not the two lines with the document between them, or not a compact JWS.
    Form,
    /// A header that is not that of a licence document, or names something that must be understood and is not.
    Header,
    /// Signed with a key that is not trusted here; its id.
    UnknownKey(String),
    /// The signature does not fit: it was altered, or somebody else made it.
    Signature,
    /// Claims that break a rule, or that this version does not know.
    Claims(String),
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "it is longer than {MOST_BYTES} bytes, so it is no licence document"),
            Self::Form => write!(
                f,
                "it is no licence document, or was altered on its way: it must begin with {BEGIN}, end with {END} and have \
                 nothing else around it; ask the vendor for it as a file"
            ),
            Self::Header => f.write_str("it is no licence document that this version knows"),
            Self::UnknownKey(id) => write!(
                f,
                "it was signed with vendor key {id}, which is not one of licences.vendor_keys; add the vendor's public key \
                 there if you trust it"
            ),
            Self::Signature => f.write_str(
                "its signature is wrong: it was altered, or not made by this vendor; ask the vendor for it anew",
            ),
            Self::Claims(why) => write!(f, "what it says cannot be used: {why}"),
        }
    }
}

impl std::error::Error for DocumentError {}

/// What a document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its own id: `jti`.
    pub id: TokenId,
    /// Who made it: `iss`.
    pub vendor: String,
    /// The licence that it is about: `sub`. A newer document of the same licence takes the place of an older one.
    pub licence: LicenceId,
    /// When it was made: `iat`.
    pub issued_at: Timestamp,
    /// The licence's start: `nbf`.
    pub starts_at: Timestamp,
    /// The licence's end: `exp`; `None` is without end.
    pub ends_at: Option<Timestamp>,
    /// The licensee.
    pub account: AccountName,
    /// What it grants.
    pub groups: Groups,
    /// The plan's name.
    pub plan: String,
    /// How many keys may hold a seat; `None` is any number.
    pub seats: Option<u32>,
    /// Numbers by the vendor's own names, such as `requests_per_month`.
    pub quotas: BTreeMap<String, u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// The claims in their wire form. One that is not known here is refused: it may be a limit.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    jti: String,
    iss: String,
    sub: LicenceId,
    iat: u64,
    nbf: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    account: AccountName,
    groups: Groups,
    plan: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seats: Option<u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "each_once")]
    quotas: BTreeMap<String, u64>,
}

/// A map of which no name is there twice: others might go by the first of the two (RFC 8259 §4).
fn each_once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u64>, D::Error> {
    struct EachOnce;
    impl<'de> Visitor<'de> for EachOnce {
        type Value = BTreeMap<String, u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("numbers by their names")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut numbers = BTreeMap::new();
            while let Some((name, number)) = map.next_entry::<String, u64>()? {
                if numbers.insert(name, number).is_some() {
                    return Err(Error::custom("a quota is there twice"));
                }
            }
            Ok(numbers)
        }
    }
    deserializer.deserialize_map(EachOnce)
}

impl Document {
    /// The document, signed, as a compact JWS.
    ///
    /// # Errors
    /// [`DocumentError::Claims`] or [`DocumentError::TooLong`]: what this makes can be read.
    pub fn sign(&self, key: &VendorKey) -> Result<String, DocumentError> {
        self.check()?;
        let header = Header { alg: "EdDSA".into(), typ: TYPE.into(), kid: key.public().id() };
        let claims = Claims {
            jti: self.id.to_string(),
            iss: self.vendor.clone(),
            sub: self.licence,
            iat: self.issued_at.secs(),
            nbf: self.starts_at.secs(),
            exp: self.ends_at.map(Timestamp::secs),
            account: self.account.clone(),
            groups: self.groups.clone(),
            plan: self.plan.clone(),
            seats: self.seats,
            quotas: self.quotas.clone(),
        };
        let part = |json: serde_json::Result<Vec<u8>>| {
            json.map(|json| URL_SAFE_NO_PAD.encode(json)).map_err(|error| DocumentError::Claims(error.to_string()))
        };
        let signed = format!("{}.{}", part(serde_json::to_vec(&header))?, part(serde_json::to_vec(&claims))?);
        let compact = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())));
        if armour(&compact).len() > MOST_BYTES { Err(DocumentError::TooLong) } else { Ok(compact) }
    }

    /// Reads a compact JWS that one of `keys` has signed.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn verify(compact: &str, keys: &[VendorPublicKey]) -> Result<Self, DocumentError> {
        let (header, claims, [signed, signature]) = parts(compact)?;
        let key = keys.iter().find(|key| key.id() == header.kid);
        let key = key.ok_or_else(|| DocumentError::UnknownKey(header.kid.clone()))?;
        let signature = decode(signature)?;
        if !key.verifies(signed.as_bytes(), &signature) {
            return Err(DocumentError::Signature);
        }
        Self::read(&claims)
    }

    /// What a document says and the id of the key that it names, with nothing proven: for showing alone.
    ///
    /// # Errors
    /// [`DocumentError`], but nothing about keys and signature.
    pub fn unproven(compact: &str) -> Result<(Self, String), DocumentError> {
        let (header, claims, _) = parts(compact)?;
        Ok((Self::read(&claims)?, header.kid))
    }

    fn read(claims: &[u8]) -> Result<Self, DocumentError> {
        let claims: Claims = serde_json::from_slice(claims).map_err(|error| {
            DocumentError::Claims(format!("{error}; a newer version of this program may know what this one does not"))
        })?;
        let at = |secs: u64| {
            // Later than any clock shows, and a sum with it would overflow.
            let known = (secs < 1 << 40).then(|| Timestamp::from_secs(secs));
            known.ok_or_else(|| DocumentError::Claims("a time is out of range".into()))
        };
        let document = Self {
            id: claims.jti.parse().map_err(|_| DocumentError::Claims("its id is none".into()))?,
            vendor: claims.iss,
            licence: claims.sub,
            issued_at: at(claims.iat)?,
            starts_at: at(claims.nbf)?,
            ends_at: claims.exp.map(at).transpose()?,
            account: claims.account,
            groups: claims.groups,
            plan: claims.plan,
            seats: claims.seats,
            quotas: claims.quotas,
        };
        document.check().map(|()| document)
    }

    fn check(&self) -> Result<(), DocumentError> {
        let wrong = |why: &str| Err(DocumentError::Claims(why.into()));
        if self.groups.is_empty() {
            return wrong("it grants no group");
        }
        if self.groups.contains(&crate::groups::demo::group()) {
            return wrong("the Demo group is open to anyone and cannot be licensed");
        }
        if self.account.as_str() == crate::groups::demo::DEMO {
            return wrong("the demo account cannot be licensed");
        }
        if self.ends_at.is_some_and(|end| end <= self.starts_at) {
            return wrong("its end does not lie after its start");
        }
        for (text, what) in [(&self.plan, "its plan's name"), (&self.vendor, "its vendor's name")] {
            if text.trim().is_empty() || free_text(text).is_err() {
                return wrong(&format!("{what} is no single line of text"));
            }
        }
        let named = |name: &String| {
            (1..=64).contains(&name.len())
                && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
        };
        if self.quotas.keys().all(named) { Ok(()) } else { wrong("a quota's name is not of a-z, 0-9 and _") }
    }
}

type Parts<'c> = (Header, Vec<u8>, [&'c str; 2]);

/// Header and claims, and what was signed with its signature, as they stand.
fn parts(compact: &str) -> Result<Parts<'_>, DocumentError> {
    if compact.len() > MOST_BYTES {
        return Err(DocumentError::TooLong);
    }
    let (signed, signature) = compact.rsplit_once('.').ok_or(DocumentError::Form)?;
    let (header, claims) = signed.split_once('.').ok_or(DocumentError::Form)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| DocumentError::Header)?;
    if header.alg != "EdDSA" || header.typ != TYPE {
        return Err(DocumentError::Header);
    }
    Ok((header, decode(claims)?, [signed, signature]))
}

/// The engine refuses padding and bits that belong to no byte.
fn decode(part: &str) -> Result<Vec<u8>, DocumentError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| DocumentError::Form)
}

/// A compact JWS between two lines, in lines of 64 characters.
pub fn armour(compact: &str) -> String {
    let mut text = format!("{BEGIN}\n");
    for (at, c) in compact.chars().enumerate() {
        if at > 0 && at % WIDTH == 0 {
            text.push('\n');
        }
        text.push(c);
    }
    text + "\n" + END + "\n"
}

/// The compact JWS in an armoured text. What is not exactly what [`armour`] makes of it is refused; line ends may be those of
/// another system, and the last one may be missing.
///
/// # Errors
/// [`DocumentError::Form`] or [`DocumentError::TooLong`].
pub fn unarmour(text: &str) -> Result<String, DocumentError> {
    // Twice as much: every line end may have become two characters.
    if text.len() > 2 * MOST_BYTES {
        return Err(DocumentError::TooLong);
    }
    let mut text = text.replace("\r\n", "\n");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let inside = text.strip_prefix(BEGIN).and_then(|rest| rest.trim_end_matches('\n').strip_suffix(END));
    let compact = inside.ok_or(DocumentError::Form)?.replace('\n', "");
    if armour(&compact) == text { Ok(compact) } else { Err(DocumentError::Form) }
}

#[cfg(test)]
mod tests;
