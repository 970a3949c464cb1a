//! One RSA key in memory, parsed once: signing, and the public half for verifying and publishing.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, Jwk, KeyAlgorithm, PublicKeyUse, RSAKeyParameters, RSAKeyType,
    ThumbprintHash,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::Error;
use crate::secret::Secret;

/// The smallest and largest modulus we sign with, in bits (RFC 7518 §3.3: at least 2048).
const SIZES: std::ops::RangeInclusive<usize> = 2048..=8192;

/// An RS256 key pair (RFC 7518 §3.3), parsed and checked.
pub struct RsaKey {
    pair: KeyPair,
    kid: String,
    jwk: Jwk,
    header: String,
}

impl std::fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RsaKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl RsaKey {
    /// Generates a key. Takes tens to hundreds of milliseconds: keep it off the async threads.
    ///
    /// # Errors
    /// [`Error::Size`] for a size that is not offered.
    pub fn generate(bits: u16) -> Result<Self, Error> {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            other => return Err(Error::Size(usize::from(other))),
        };
        Self::new(KeyPair::generate(size).map_err(|_| Error::Generate)?)
    }

    /// From PKCS#8 DER, as a store keeps it.
    ///
    /// # Errors
    /// [`Error::Unreadable`] or [`Error::Size`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Error> {
        Self::new(KeyPair::from_pkcs8(der).map_err(|_| Error::Unreadable)?)
    }

    /// From PEM: `PRIVATE KEY` (PKCS#8) or `RSA PRIVATE KEY` (PKCS#1).
    ///
    /// # Errors
    /// [`Error::Encrypted`], [`Error::NotPem`], [`Error::Unreadable`] or [`Error::Size`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let text = String::from_utf8_lossy(pem);
        if text.contains("ENCRYPTED") {
            return Err(Error::Encrypted);
        }
        let pair = match PrivateKeyDer::from_pem_slice(pem).map_err(|_| Error::NotPem)? {
            PrivateKeyDer::Pkcs8(der) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => KeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err(Error::Unreadable),
        };
        Self::new(pair.map_err(|_| Error::Unreadable)?)
    }

    fn new(pair: KeyPair) -> Result<Self, Error> {
        let bits = pair.public_modulus_len() * 8;
        if !SIZES.contains(&bits) {
            return Err(Error::Size(bits));
        }
        let public = pair.public_key();
        let encode = |number: &[u8]| URL_SAFE_NO_PAD.encode(number);
        let mut jwk = Jwk {
            common: CommonParameters {
                public_key_use: Some(PublicKeyUse::Signature),
                key_algorithm: Some(KeyAlgorithm::RS256),
                ..CommonParameters::default()
            },
            algorithm: AlgorithmParameters::RSA(RSAKeyParameters {
                key_type: RSAKeyType::RSA,
                n: encode(public.modulus().big_endian_without_leading_zero()),
                e: encode(public.exponent().big_endian_without_leading_zero()),
            }),
        };
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| Error::Unreadable)?;
        jwk.common.key_id = Some(kid.clone());
        // Fixed per key, so it is encoded once: the token header of RFC 9068 §2.1.
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"RS256","typ":"at+jwt","kid":"{kid}"}}"#));
        Ok(Self { pair, kid, jwk, header })
    }

    /// RFC 7638 thumbprint of the public half.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Size of the modulus in bits.
    pub fn bits(&self) -> usize {
        self.pair.public_modulus_len() * 8
    }

    /// The JOSE header of every token signed with this key, base64url-encoded.
    pub fn encoded_header(&self) -> &str {
        &self.header
    }

    /// The public half (RFC 7517 §4).
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The public half, for verifying.
    pub(super) fn decoding_key(&self) -> Result<DecodingKey, Error> {
        DecodingKey::from_jwk(&self.jwk).map_err(|_| Error::Unreadable)
    }

    /// PKCS#8 DER, for a store to keep.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when the library cannot encode it.
    pub fn to_pkcs8(&self) -> Result<Secret<Vec<u8>>, Error> {
        let der = self.pair.as_der().map_err(|_| Error::Unreadable)?;
        Ok(Secret::new(der.as_ref().to_vec()))
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256 over `message`.
    ///
    /// # Errors
    /// [`Error::Sign`] when the library fails, which it does not do for a key that was checked.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).map_err(|_| Error::Sign)?;
        Ok(signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7638 §3.1: the key of the example has this thumbprint.
    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        let jwk: Jwk = serde_json::from_str(
            r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#,
        )
        .unwrap();
        assert_eq!(jwk.thumbprint(ThumbprintHash::SHA256).unwrap(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn a_key_survives_the_store() {
        let key = RsaKey::generate(2048).unwrap();
        let again = RsaKey::from_pkcs8(key.to_pkcs8().unwrap().expose()).unwrap();
        assert_eq!(key.kid(), again.kid());
        assert_eq!(key.sign(b"m").unwrap(), again.sign(b"m").unwrap(), "PKCS#1 v1.5 is deterministic");
    }

    #[test]
    fn what_is_no_rsa_key_is_refused_by_name() {
        assert!(matches!(RsaKey::from_pem(b"hello"), Err(Error::NotPem)));
        assert!(matches!(RsaKey::generate(1024), Err(Error::Size(1024))));
        let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(matches!(RsaKey::from_pem(encrypted), Err(Error::Encrypted)));
        let ec = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert!(matches!(RsaKey::from_pem(ec.as_bytes()), Err(Error::Unreadable)));
    }
}
