//! One private key in memory, parsed once: signing, and the public half for verifying and publishing.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters, EllipticCurveKeyType, Jwk,
    KeyAlgorithm, OctetKeyPairParameters, OctetKeyPairType, PublicKeyUse, RSAKeyParameters, RSAKeyType, ThumbprintHash,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::{Algorithm, Error, low_s};
use crate::secret::Secret;

/// The smallest and largest modulus we sign with, in bits (RFC 7518 §3.3: at least 2048).
const SIZES: std::ops::RangeInclusive<usize> = 2048..=8192;

enum Pair {
    Rsa(RsaPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// A key pair for one [`Algorithm`], parsed and checked.
pub struct PrivateKey {
    pair: Pair,
    kid: String,
    jwk: Jwk,
    header: String,
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl PrivateKey {
    /// Generates a key; `rsa_bits` is the size of one for RS256. That takes tens to hundreds of milliseconds: keep it off
    /// the async threads.
    ///
    /// # Errors
    /// [`Error::Size`] for a size that is not offered.
    pub fn generate(algorithm: Algorithm, rsa_bits: u16) -> Result<Self, Error> {
        Self::new(match algorithm {
            Algorithm::Rs256 => {
                let size = match rsa_bits {
                    2048 => KeySize::Rsa2048,
                    3072 => KeySize::Rsa3072,
                    4096 => KeySize::Rsa4096,
                    other => return Err(Error::Size(usize::from(other))),
                };
                Pair::Rsa(RsaPair::generate(size).map_err(|_| Error::Generate)?)
            }
            Algorithm::Es256 => {
                Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| Error::Generate)?)
            }
            Algorithm::EdDsa => Pair::Ed(Ed25519KeyPair::generate().map_err(|_| Error::Generate)?),
        })
    }

    /// From PKCS#8 DER, as a store keeps it.
    ///
    /// # Errors
    /// [`Error::Unreadable`] or [`Error::Size`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Error> {
        // Each of them refuses the keys of the others, by the algorithm that PKCS#8 names.
        if let Ok(pair) = RsaPair::from_pkcs8(der) {
            return Self::new(Pair::Rsa(pair));
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            return Self::new(Pair::Ec(pair));
        }
        match Ed25519KeyPair::from_pkcs8(der) {
            Ok(pair) => Self::new(Pair::Ed(pair)),
            // Some tools write version 1, which has no public half to hold the private one against.
            Err(_) => match Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
                Ok(pair) => Self::new(Pair::Ed(pair)),
                Err(_) => Err(Error::Unreadable),
            },
        }
    }

    /// From PEM: `PRIVATE KEY` (PKCS#8), `RSA PRIVATE KEY` (PKCS#1) or `EC PRIVATE KEY` (SEC 1).
    ///
    /// # Errors
    /// [`Error::Encrypted`], [`Error::NotPem`], [`Error::Unreadable`] or [`Error::Size`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let text = String::from_utf8_lossy(pem);
        if text.contains("ENCRYPTED") {
            return Err(Error::Encrypted);
        }
        match PrivateKeyDer::from_pem_slice(pem).map_err(|_| Error::NotPem)? {
            PrivateKeyDer::Pkcs8(der) => Self::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => {
                Self::new(Pair::Rsa(RsaPair::from_der(der.secret_pkcs1_der()).map_err(|_| Error::Unreadable)?))
            }
            PrivateKeyDer::Sec1(der) => {
                let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_sec1_der());
                Self::new(Pair::Ec(pair.map_err(|_| Error::Unreadable)?))
            }
            _ => Err(Error::Unreadable),
        }
    }

    fn new(pair: Pair) -> Result<Self, Error> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (algorithm, parameters) = match &pair {
            Pair::Rsa(pair) => {
                let bits = pair.public_modulus_len() * 8;
                if !SIZES.contains(&bits) {
                    return Err(Error::Size(bits));
                }
                let public = pair.public_key();
                let parameters = AlgorithmParameters::RSA(RSAKeyParameters {
                    key_type: RSAKeyType::RSA,
                    n: encode(public.modulus().big_endian_without_leading_zero()),
                    e: encode(public.exponent().big_endian_without_leading_zero()),
                });
                (KeyAlgorithm::RS256, parameters)
            }
            Pair::Ec(pair) => {
                // SEC 1 §2.3.3, uncompressed: 4, x, y. RFC 7518 §6.2.1.2: both of full length.
                let &[4, ref point @ ..] = pair.public_key().as_ref() else { return Err(Error::Unreadable) };
                let Some((x, y)) = point.split_at_checked(32).filter(|(_, y)| y.len() == 32) else {
                    return Err(Error::Unreadable);
                };
                let parameters = AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters {
                    key_type: EllipticCurveKeyType::EC,
                    curve: EllipticCurve::P256,
                    x: encode(x),
                    y: encode(y),
                });
                (KeyAlgorithm::ES256, parameters)
            }
            Pair::Ed(pair) => {
                let parameters = AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters {
                    key_type: OctetKeyPairType::OctetKeyPair,
                    curve: EllipticCurve::Ed25519,
                    x: encode(pair.public_key().as_ref()),
                });
                (KeyAlgorithm::EdDSA, parameters)
            }
        };
        let mut jwk = Jwk {
            common: CommonParameters {
                public_key_use: Some(PublicKeyUse::Signature),
                key_algorithm: Some(algorithm),
                ..CommonParameters::default()
            },
            algorithm: parameters,
        };
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| Error::Unreadable)?;
        jwk.common.key_id = Some(kid.clone());
        let mut key = Self { pair, kid, jwk, header: String::new() };
        // Fixed per key, so it is encoded once: the token header of RFC 9068 §2.1.
        key.header =
            encode(format!(r#"{{"alg":"{}","typ":"at+jwt","kid":"{}"}}"#, key.algorithm(), key.kid).as_bytes());
        Ok(key)
    }

    /// What it signs by.
    pub fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Rsa(_) => Algorithm::Rs256,
            Pair::Ec(_) => Algorithm::Es256,
            Pair::Ed(_) => Algorithm::EdDsa,
        }
    }

    /// RFC 7638 thumbprint of the public half.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Length of a signature in bytes.
    pub fn signature_len(&self) -> usize {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_modulus_len(),
            Pair::Ec(_) | Pair::Ed(_) => 64,
        }
    }

    /// The JOSE header of every token signed with this key, base64url-encoded.
    pub fn encoded_header(&self) -> &str {
        &self.header
    }

    /// The public half (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The public half as SubjectPublicKeyInfo, DER (RFC 5280 §4.1.2.7).
    ///
    /// # Errors
    /// [`Error::Unreadable`] when the library cannot encode it.
    pub(super) fn public_der(&self) -> Result<Vec<u8>, Error> {
        let der: PublicKeyX509Der = match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_der(),
            Pair::Ec(pair) => pair.public_key().as_der(),
            Pair::Ed(pair) => pair.public_key().as_der(),
        }
        .map_err(|_| Error::Unreadable)?;
        Ok(der.as_ref().to_vec())
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
        let der = match &self.pair {
            Pair::Rsa(pair) => pair.as_der().map_err(|_| Error::Unreadable)?.as_ref().to_vec(),
            Pair::Ec(pair) => pair.to_pkcs8v1().map_err(|_| Error::Unreadable)?.as_ref().to_vec(),
            Pair::Ed(pair) => pair.to_pkcs8().map_err(|_| Error::Unreadable)?.as_ref().to_vec(),
        };
        Ok(Secret::new(der))
    }

    /// A JWS of this payload in compact form (RFC 7515 §7.1), under a header that is base64url-encoded already.
    ///
    /// # Errors
    /// As [`PrivateKey::sign`].
    pub fn compact(&self, header: &str, payload: &[u8]) -> Result<String, Error> {
        let mut jws = String::with_capacity(header.len() + (payload.len() + self.signature_len()) * 4 / 3 + 8);
        jws.push_str(header);
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut jws);
        let signature = self.sign(jws.as_bytes())?;
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(&signature, &mut jws);
        Ok(jws)
    }

    /// The signature over `message`, in the form that JWS wants (RFC 7518 §3.3 and §3.4, RFC 8037 §3.1).
    ///
    /// # Errors
    /// [`Error::Sign`] when the library fails, which it does not do for a key that was checked.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).map_err(|_| Error::Sign)?;
                Ok(signature)
            }
            Pair::Ec(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message).map_err(|_| Error::Sign)?;
                let mut signature = signature.as_ref().to_vec();
                low_s::lower(&mut signature);
                Ok(signature)
            }
            Pair::Ed(pair) => Ok(pair.try_sign(message).map_err(|_| Error::Sign)?.as_ref().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thumbprint(jwk: &str) -> String {
        let jwk: Jwk = serde_json::from_str(jwk).expect("a JWK");
        jwk.thumbprint(ThumbprintHash::SHA256).expect("a thumbprint")
    }

    /// RFC 7638 §3.1 and RFC 8037 appendix A.3: the keys of the examples have these thumbprints.
    #[test]
    fn thumbprints_are_those_of_the_standards() {
        assert_eq!(
            thumbprint(
                r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#
            ),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
        assert_eq!(
            thumbprint(r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
    }

    #[test]
    fn a_key_of_every_algorithm_survives_the_store() {
        for algorithm in Algorithm::ALL {
            let key = PrivateKey::generate(algorithm, 2048).unwrap();
            let again = PrivateKey::from_pkcs8(key.to_pkcs8().unwrap().expose()).unwrap();
            assert_eq!((key.kid(), again.algorithm()), (again.kid(), algorithm));
            assert_eq!(key.sign(b"m").unwrap().len(), key.signature_len());
            let verifies = |signature: &[u8]| {
                let public = again.decoding_key().unwrap();
                let text = URL_SAFE_NO_PAD.encode(signature);
                jsonwebtoken::crypto::verify(&text, b"m", &public, algorithm.into()).unwrap()
            };
            assert!(verifies(&key.sign(b"m").unwrap()), "{algorithm}");
            assert!(!verifies(&key.sign(b"n").unwrap()), "{algorithm}");
        }
    }

    #[test]
    fn the_public_half_is_published_in_the_form_of_its_type() {
        let members = |algorithm| {
            let jwk = serde_json::to_value(PrivateKey::generate(algorithm, 2048).unwrap().jwk()).unwrap();
            let text = |name: &str| jwk[name].as_str().unwrap_or_default().to_owned();
            let names: Vec<String> = jwk.as_object().unwrap().keys().cloned().collect();
            (text("kty"), text("crv"), text("alg"), text("x").len(), names)
        };
        let (kty, _, alg, _, names) = members(Algorithm::Rs256);
        assert_eq!((kty.as_str(), alg.as_str()), ("RSA", "RS256"));
        assert!(names.iter().all(|name| ["use", "alg", "kid", "kty", "n", "e"].contains(&name.as_str())), "{names:?}");
        for _ in 0..40 {
            // A coordinate that begins with a zero byte must keep it.
            let (kty, crv, alg, x, names) = members(Algorithm::Es256);
            assert_eq!((kty.as_str(), crv.as_str(), alg.as_str(), x), ("EC", "P-256", "ES256", 43));
            assert_eq!(names.len(), 7, "{names:?}");
        }
        let (kty, crv, alg, x, names) = members(Algorithm::EdDsa);
        assert_eq!((kty.as_str(), crv.as_str(), alg.as_str(), x), ("OKP", "Ed25519", "EdDSA", 43));
        assert_eq!(names.len(), 6, "{names:?}");
    }

    #[test]
    fn keys_that_other_tools_make_are_read() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
            let pem = rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem();
            PrivateKey::from_pem(pem.as_bytes()).unwrap();
        }
        // RFC 8410 §10.3: version 1, without the public half.
        let ed = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        assert_eq!(PrivateKey::from_pem(ed.as_bytes()).unwrap().algorithm(), Algorithm::EdDsa);
    }

    #[test]
    fn what_is_no_key_of_ours_is_refused_by_name() {
        assert!(matches!(PrivateKey::from_pem(b"hello"), Err(Error::NotPem)));
        assert!(matches!(PrivateKey::generate(Algorithm::Rs256, 1024), Err(Error::Size(1024))));
        let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(matches!(PrivateKey::from_pem(encrypted), Err(Error::Encrypted)));
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        assert!(matches!(PrivateKey::from_pem(p384.as_bytes()), Err(Error::Unreadable)));
    }
}
