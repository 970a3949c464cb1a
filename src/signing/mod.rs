//! Signing keys: their life from next to gone, the ring in memory that signs and verifies, and the JWK Set.
//!
//! Implements RS256 and ES256 of RFC 7518 §3 and the EdDSA of RFC 8037 with parsed keys kept in memory, `kid` as RFC 7638
//! thumbprint and the JWK Set of RFC 7517 §5. Knows nothing of claims or HTTP.

mod algorithm;
mod key;
mod low_s;
mod ring;

use std::path::PathBuf;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::persist::{self, Result, Update};
use crate::secret::Secret;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use key::PrivateKey;
pub use ring::KeyRing;

/// Whether a signature that verifies by `algorithm` is in the one spelling of it that we accept.
pub(crate) fn is_canonical(algorithm: Algorithm, signature: &[u8]) -> bool {
    algorithm != Algorithm::Es256 || low_s::is_low(signature)
}

/// What can be wrong with a signing key.
#[derive(Debug)]
pub enum Error {
    /// A key file cannot be used.
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not PEM.
    NotPem,
    /// An encrypted private key.
    Encrypted,
    /// Not a private key of a kind that we sign with.
    Unreadable,
    /// A supplied key is for another algorithm than the one that is set.
    Mismatch {
        /// What the key is for.
        key: Algorithm,
        /// What is set.
        set: Algorithm,
    },
    /// A modulus of a size we do not sign with, in bits.
    Size(usize),
    /// An algorithm this version does not know.
    Algorithm {
        /// Of this key.
        kid: String,
        /// The algorithm.
        algorithm: String,
    },
    /// A stored key's `kid` is not its thumbprint.
    Mislabelled(String),
    /// No stored key is active.
    NoActiveKey,
    /// No key could be generated.
    Generate,
    /// Signing failed.
    Sign,
    /// The store failed.
    Store(persist::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "signing key {}: {source}", path.display()),
            Self::NotPem => f.write_str(
                "not a PEM private key (expected BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY)",
            ),
            Self::Encrypted => {
                f.write_str("the private key is encrypted; decrypt it with `openssl pkey -in FILE -out FILE`")
            }
            Self::Unreadable => f.write_str(
                "not a private key for RS256 (RSA of 2048 bits or more), ES256 (P-256) or EdDSA (Ed25519); make one with \
                 `openssl genrsa -out FILE 2048`",
            ),
            Self::Mismatch { key, set } => {
                write!(f, "the key is for {key} and signing.algorithm is {set}; set signing.algorithm = \"{key}\"")
            }
            Self::Size(bits) => write!(f, "an RSA key of {bits} bits cannot be used; take 2048, 3072 or 4096"),
            Self::Algorithm { kid, algorithm } => {
                write!(f, "signing key {kid} is for {algorithm}, which this version does not know")
            }
            Self::Mislabelled(kid) => write!(f, "stored signing key {kid} is not the key of that thumbprint"),
            Self::NoActiveKey => f.write_str("no stored signing key is active"),
            Self::Generate => f.write_str("a signing key could not be generated"),
            Self::Sign => f.write_str("signing failed"),
            Self::Store(_) => f.write_str("signing keys cannot be read or written"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(source) => Some(source),
            _ => None,
        }
    }
}

/// Where a signing key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningState {
    /// Published, does not sign yet.
    Next,
    /// Signs.
    Active,
    /// Signs no more; published until the last token it signed is dead.
    Retiring,
}

/// A signing key at rest.
#[derive(Debug, Clone)]
pub struct SigningKey {
    /// RFC 7638 thumbprint of the public half.
    pub kid: String,
    /// JWS algorithm (RFC 7518 §3.1): the name of an [`Algorithm`].
    pub algorithm: String,
    /// PKCS#8, DER.
    pub private: Secret<Vec<u8>>,
    /// Where it is in its life.
    pub state: SigningState,
    /// When it was made or supplied.
    pub created_at: Timestamp,
    /// When it began, or will begin, to sign.
    pub activates_at: Timestamp,
    /// For a retiring key: when it will be gone.
    pub gone_at: Option<Timestamp>,
}

/// Durable signing keys, always read and written as one set.
#[async_trait]
pub trait SigningKeyStore: Send + Sync {
    /// All keys, oldest first.
    async fn signing_keys(&self) -> Result<Vec<SigningKey>>;
    /// Replaces the set by an atomic function of its present value, and returns the set as it then stands. The cut of the
    /// [`Update`] is not used. A set in which a `kid` occurs twice is an error and changes nothing.
    async fn update_signing_keys(
        &self,
        change: &(dyn Fn(Vec<SigningKey>) -> Update<Vec<SigningKey>> + Send + Sync),
    ) -> Result<Vec<SigningKey>>;
}

/// Settings of `[signing]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A PEM file with a private key to sign with, in place of a generated one.
    pub private_key_file: Option<PathBuf>,
    /// What keys are generated for.
    pub algorithm: Algorithm,
    /// Size of a generated key for RS256: 2048, 3072 or 4096.
    pub rsa_bits: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self { private_key_file: None, algorithm: Algorithm::Rs256, rsa_bits: 2048 }
    }
}
