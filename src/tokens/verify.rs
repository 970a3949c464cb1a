//! Verifying: RFC 7519 §7.2 and RFC 8725, with every refusal of CONTRACT §6. `jsonwebtoken` checks signature, issuer and
//! audience; what it is lax about (times, header, canonical encoding) is checked here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Validation, decode};
use serde::Deserialize;

use super::claims::{Claims, Token};
use super::{LARGEST, Settings};
use crate::clock::Timestamp;
use crate::signing::{self, Algorithm, KeyRing};

/// Why a token is refused. The word is for logs and metrics; the client is told less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Invalid {
    /// Larger than 8 KiB.
    TooLarge,
    /// Not three canonical base64url parts.
    Malformed,
    /// The header is not `{alg, typ: at+jwt, kid}` and nothing else, or `alg` is not the one of that key.
    Header,
    /// A `kid` we did not publish.
    UnknownKey,
    /// The signature is not ours.
    Signature,
    /// A claim is missing, of the wrong type, or not ours.
    Claims,
    /// `exp` has come.
    Expired,
    /// `nbf` or `iat` lies ahead.
    NotYetValid,
    /// Ended by decision.
    Revoked,
    /// Good, and not from where it was presented.
    Elsewhere,
}

impl Invalid {
    /// A stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TooLarge => "token_too_large",
            Self::Malformed => "token_malformed",
            Self::Header => "token_header",
            Self::UnknownKey => "token_unknown_kid",
            Self::Signature => "token_signature",
            Self::Claims => "token_claims",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Revoked => "token_revoked",
            Self::Elsewhere => "network_not_allowed",
        }
    }

    /// `error_description` for the client (RFC 6750 §3): no quotes or backslashes.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Expired => "The access token expired",
            Self::Revoked => "The access token was revoked",
            Self::Elsewhere => "The access token may not be used from this address",
            Self::NotYetValid => "The access token is not valid yet",
            _ => "The access token is malformed or was not issued here",
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl std::error::Error for Invalid {}

/// The header we issue and accept. `crit`, `jku`, `jwk`, `x5u`, `x5c`, `zip` and whatever else may be thought of are
/// refused by being unknown (RFC 7515 §4.1, RFC 8725 §3.10).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// How far `iat` may lie ahead.
pub const MOST_AHEAD: Duration = Duration::from_secs(60);

/// Verifies tokens. Does not know revocations: that is the registry's part.
#[derive(Debug)]
pub struct Verifier {
    /// One for each of [`Algorithm::ALL`]: what a key verifies by is not the token's choice.
    validations: [Validation; 3],
    leeway: u64,
    ring: Arc<KeyRing>,
}

impl Verifier {
    /// A verifier that trusts the keys of `ring`.
    pub fn new(settings: &Settings, ring: Arc<KeyRing>) -> Self {
        let validations = Algorithm::ALL.map(|algorithm| Self::validation(settings, algorithm));
        Self { validations, leeway: settings.leeway.as_secs(), ring }
    }

    fn validation(settings: &Settings, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm.into());
        validation.set_issuer(&[&settings.issuer]);
        validation.set_audience(&settings.audience);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
        // Times are checked against our own clock below, without the library's minute of leeway.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation
    }

    /// Verifies a compact JWT at `now`.
    ///
    /// # Errors
    /// The reason of the refusal; [`Invalid::Revoked`] and [`Invalid::Elsewhere`] never.
    pub fn verify(&self, jwt: &[u8], now: Timestamp) -> Result<Token, Invalid> {
        self.judge(jwt, now).map_err(|(why, _)| why)
    }

    /// The same, and of a token that only its time speaks against, whose it is: for the records of who was refused.
    ///
    /// # Errors
    /// As there.
    pub fn judge(&self, jwt: &[u8], now: Timestamp) -> Result<Token, (Invalid, Option<Box<Token>>)> {
        let claims = self.authentic(jwt).map_err(|why| (why, None))?;
        let timely = self.check_times(&claims, now);
        let token = Token::from_claims(claims);
        match (timely, token) {
            (Ok(()), Some(token)) => Ok(token),
            (Ok(()), None) => Err((Invalid::Claims, None)),
            (Err(why), token) => Err((why, token.map(Box::new))),
        }
    }

    /// The claims of a token that was issued here, whenever that was.
    fn authentic(&self, jwt: &[u8]) -> Result<Claims, Invalid> {
        if jwt.len() > LARGEST {
            return Err(Invalid::TooLarge);
        }
        let mut parts = jwt.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Invalid::Malformed);
        };
        // Strict: no padding, no foreign characters, no loose trailing bits. One token has one spelling, so that a
        // revocation or a digest of it covers it (RFC 7515 §2).
        let decoded = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).map_err(|_| Invalid::Malformed);
        let (header, _, signature) = (decoded(header)?, decoded(payload)?, decoded(signature)?);
        let header: Header = serde_json::from_slice(&header).map_err(|_| Invalid::Header)?;
        let alg: Algorithm = header.alg.parse().map_err(|_| Invalid::Header)?;
        if header.typ != "at+jwt" {
            return Err(Invalid::Header);
        }
        let verify = |algorithm: Algorithm, key: &_| {
            // RFC 8725 §3.1: the key says how, and a token that says otherwise is none of ours.
            if alg != algorithm {
                return Err(Invalid::Header);
            }
            if !signing::is_canonical(algorithm, &signature) {
                return Err(Invalid::Signature);
            }
            match decode::<Claims>(jwt, key, &self.validations[algorithm as usize]) {
                Ok(data) => Ok(data.claims),
                Err(error) if *error.kind() == jsonwebtoken::errors::ErrorKind::InvalidSignature => {
                    Err(Invalid::Signature)
                }
                Err(_) => Err(Invalid::Claims),
            }
        };
        self.ring.with_key(&header.kid, verify).ok_or(Invalid::UnknownKey)?
    }

    /// RFC 7519 §4.1.4: a token is expired *at* `exp`. `iat` may lie a second ahead, or one for each revocation of that
    /// second: see [`super::Grant::cutoff`]. Further ahead it would escape the revocations to come.
    fn check_times(&self, claims: &Claims, now: Timestamp) -> Result<(), Invalid> {
        let now = now.secs();
        if now >= claims.exp.saturating_add(self.leeway) {
            return Err(Invalid::Expired);
        }
        let ahead = now.saturating_add(self.leeway);
        if claims.nbf > ahead || claims.iat > ahead.saturating_add(MOST_AHEAD.as_secs()) {
            return Err(Invalid::NotYetValid);
        }
        if claims.exp <= claims.iat || claims.nbf > claims.exp {
            return Err(Invalid::Claims);
        }
        Ok(())
    }
}
