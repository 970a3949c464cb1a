//! A signing key's certificate (RFC 5280), and its name by libtrust: for verifiers that know public keys by these alone.
//!
//! A certificate here is a public key in an envelope. It is signed by its own key and dated from the beginning to the end of
//! certificates, because what says whether a key is good is that it is published.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::{Algorithm, Error, PrivateKey};

/// A signing key's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The key's `kid`.
    pub kid: String,
    /// What the key is for.
    pub algorithm: Algorithm,
    der: Vec<u8>,
    pem: String,
}

impl Certificate {
    /// PEM, with an end of line (RFC 7468 §5).
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// As an element of `x5c`: base64 and not base64url (RFC 7515 §4.1.6).
    pub fn x5c(&self) -> String {
        STANDARD.encode(&self.der)
    }
}

impl PrivateKey {
    /// The key's certificate. For an RSA key it is the same one whenever it is made; the signatures of ECDSA differ.
    ///
    /// # Errors
    /// [`Error::Unreadable`] or [`Error::Sign`], which do not occur with a key that was checked.
    pub fn certificate(&self) -> Result<Certificate, Error> {
        let algorithm = match self.algorithm() {
            Algorithm::Rs256 => &rcgen::PKCS_RSA_SHA256,
            Algorithm::Es256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Algorithm::EdDsa => &rcgen::PKCS_ED25519,
        };
        let private = self.to_pkcs8()?;
        let pair =
            KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(private.expose().as_slice()), algorithm)
                .map_err(|_| Error::Unreadable)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // RFC 5280 bounds a common name to 64 characters; a thumbprint has 43.
        params.distinguished_name.push(DnType::CommonName, format!("Keybearer {}", self.kid()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // RFC 5280 §4.1.2.5: a certificate without a well-defined end has this one.
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(9999, 12, 31));
        let certificate = params.self_signed(&pair).map_err(|_| Error::Sign)?;
        Ok(Certificate {
            kid: self.kid().to_owned(),
            algorithm: self.algorithm(),
            der: certificate.der().to_vec(),
            pem: certificate.pem(),
        })
    }

    /// The key's name by libtrust: of the SHA-256 of its public half 240 bits in base32 (RFC 4648 §6), by fours. `None` for
    /// an Ed25519 key, which that library does not know.
    ///
    /// # Errors
    /// [`Error::Unreadable`], which does not occur with a key that was checked.
    pub fn libtrust_id(&self) -> Result<Option<String>, Error> {
        if self.algorithm() == Algorithm::EdDsa {
            return Ok(None);
        }
        const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let hash = digest(&SHA256, &self.public_der()?);
        // Five bytes are eight characters, and so two groups of four.
        let groups = hash.as_ref()[..30].chunks(5).flat_map(|bytes| {
            let bits = bytes.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            let group = move |high: u32| -> String {
                (0..4).map(|n| char::from(ALPHABET[(bits >> (high - 5 * n) & 31) as usize])).collect()
            };
            [group(35), group(15)]
        });
        Ok(Some(groups.collect::<Vec<_>>().join(":")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer, X509Certificate};

    /// A P-256 key that was made for this test, and its name as docker-registry computes it.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgpk1jfg8akPUIXAqS\n4CxSmtRwjxNu9al7vKeJ7YnfxB6hRANCAARxbLrjQcEe5JkN73pCbKrl4bYI6lht\n1evNjAjYeWzrL6E9MSDqgZhsHPVb/2EXgcDM/n2/89vPXAAGQjnokUBt\n-----END PRIVATE KEY-----\n";
    const NAME: &str = "T4CG:D7WH:4E4I:27RV:TORC:OLDQ:ECK6:CL35:CQG2:NKRT:JY6W:UCN7";

    #[test]
    fn the_name_by_libtrust_is_the_one_that_registries_compute() {
        let key = PrivateKey::from_pem(KEY.as_bytes()).unwrap();
        assert_eq!(key.libtrust_id().unwrap().as_deref(), Some(NAME));
        assert_eq!(PrivateKey::generate(Algorithm::EdDsa, 2048).unwrap().libtrust_id().unwrap(), None);
    }

    #[test]
    fn a_certificate_has_the_key_and_no_end() {
        for algorithm in Algorithm::ALL {
            let key = PrivateKey::generate(algorithm, 2048).unwrap();
            let certificate = key.certificate().unwrap();
            let (rest, parsed) = X509Certificate::from_der(&certificate.der).unwrap();
            assert!(rest.is_empty());
            assert_eq!(parsed.tbs_certificate.subject_pki.raw, key.public_der().unwrap(), "{algorithm}");
            assert_eq!(parsed.subject().to_string(), format!("CN=Keybearer {}", key.kid()));
            assert_eq!(parsed.subject(), parsed.issuer());
            assert_eq!(parsed.validity().not_after.to_datetime().year(), 9999);
            assert!(
                certificate.pem().starts_with("-----BEGIN CERTIFICATE-----\n")
                    && certificate.pem().ends_with("-----\n")
            );
            assert_eq!(STANDARD.decode(certificate.x5c()).unwrap(), certificate.der);
        }
    }

    #[test]
    fn an_rsa_key_has_one_certificate() {
        let key = PrivateKey::generate(Algorithm::Rs256, 2048).unwrap();
        let again = PrivateKey::from_pkcs8(key.to_pkcs8().unwrap().expose()).unwrap();
        assert_eq!(key.certificate().unwrap(), again.certificate().unwrap());
    }
}
