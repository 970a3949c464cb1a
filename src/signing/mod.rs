//! Signing keys: their life from next to gone, the ring in memory that signs and verifies, and the JWK Set.
//!
//! Implements RS256 and ES256 of RFC 7518 §3 and the EdDSA of RFC 8037 with parsed keys kept in memory, `kid` as RFC 7638
//! thumbprint and the JWK Set of RFC 7517 §5. Knows nothing of claims or HTTP.

mod algorithm;
mod certificate;
mod key;
mod low_s;
mod operations;
mod ring;
mod rotation;
mod seal;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::persist::{self, Result, Update};
use crate::secret::Secret;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use certificate::Certificate;
pub use key::PrivateKey;
pub use operations::{Operations, Rotated};
pub use ring::{KeyRing, keep_rotated};
pub use rotation::{JWKS_MAX_AGE, LEAST_PUBLISH_AHEAD};
pub use seal::{BadMasterKey, MasterKey};

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
    /// A key has no name of the kind that is wanted of it.
    Unnamed {
        /// The key.
        kid: String,
        /// What it is for.
        algorithm: Algorithm,
    },
    /// A token came out larger than any door accepts.
    TooLarge {
        /// So large.
        bytes: usize,
    },
    /// The file of the master key cannot be used.
    MasterKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BadMasterKey,
    },
    /// A stored key is sealed, and no master key is given.
    Sealed {
        /// The key.
        kid: String,
        /// The id of the master key that it takes.
        by: String,
    },
    /// A stored key is sealed under another master key.
    WrongMasterKey {
        /// The key.
        kid: String,
        /// The id of the master key that it takes.
        by: String,
        /// The id of the one that is given.
        given: String,
    },
    /// A sealed key does not open under its own master key.
    Damaged(String),
    /// Sealing failed.
    Seal,
    /// The operator supplies the signing key.
    Supplied(PathBuf),
    /// The operator supplies the signing key, and it is one that is published already.
    SuppliedIsOld(PathBuf),
    /// There are no signing keys yet.
    NoKeys,
    /// No key is published that could sign now.
    NothingPublished,
    /// The next key has not been published for long enough.
    TooEarly(Timestamp),
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
            Self::Unnamed { kid, algorithm } => write!(
                f,
                "signing key {kid} is for {algorithm} and has no name as image_registry.key_id wants it; rotate the keys to \
                 signing.algorithm, or set key_id = \"thumbprint\""
            ),
            Self::TooLarge { bytes } => {
                write!(f, "the token would have {bytes} bytes; narrow the key to fewer groups, or shorten [[claims]]")
            }
            Self::MasterKey { path, source } => write!(f, "signing.master_key_file: {}: {source}", path.display()),
            Self::Sealed { kid, by } => write!(
                f,
                "signing key {kid} is sealed under master key {by}, and none is given; name its file in \
                 signing.master_key_file"
            ),
            Self::WrongMasterKey { kid, by, given } => write!(
                f,
                "signing key {kid} is sealed under master key {by}, and the one that is given is {given}; give the right \
                 one (`keybearer signing-keys master-key change` is how to get from one to the other)"
            ),
            Self::Damaged(kid) => {
                write!(f, "signing key {kid} is damaged: it does not open under its own master key; restore a backup")
            }
            Self::Seal => f.write_str("a signing key could not be sealed"),
            Self::Supplied(path) => write!(
                f,
                "signing.private_key_file is set, so the key is yours to rotate: put another into {} and restart the gateway",
                path.display()
            ),
            Self::SuppliedIsOld(path) => write!(
                f,
                "signing.private_key_file is set and holds a key that is published already; put a new one into {} first",
                path.display()
            ),
            Self::NoKeys => f.write_str("there are no signing keys yet; the gateway makes one when it first starts"),
            Self::NothingPublished => f.write_str(
                "no key is published that could sign now: verifiers that keep the published keys would not know it; \
                 rotate without --now publishes one",
            ),
            Self::TooEarly(ripe) => write!(
                f,
                "the next key has not been published for long enough: verifiers that keep the published keys may not know \
                 it before {ripe}"
            ),
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
    /// PKCS#8, DER; in the clear or sealed.
    pub private: Secret<Vec<u8>>,
    /// The id of the master key under which `private` is sealed; `None` when it is in the clear.
    pub sealed_by: Option<String>,
    /// Where it is in its life.
    pub state: SigningState,
    /// When it was made or supplied, and published.
    pub created_at: Timestamp,
    /// When it began, or will begin, to sign.
    pub activates_at: Timestamp,
    /// How long the tokens it signs may be accepted, at the most; it never shrinks.
    pub longest_token: Duration,
    /// For a retiring key: when it will be gone.
    pub gone_at: Option<Timestamp>,
}

/// Durable signing keys, always read and written as one set.
#[async_trait]
pub trait SigningKeyStore: Send + Sync {
    /// All keys, oldest first.
    async fn signing_keys(&self) -> Result<Vec<SigningKey>>;
    /// Replaces the set by an atomic function of its present value, and returns the set as it then stands. With a cut of the
    /// [`Update`], of either kind, every token issued so far is revoked in the same transaction; those of the new set are good.
    /// A set in which a `kid` occurs twice is an error and changes nothing.
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
    /// How long a generated key signs before the next one does; zero turns the schedule off.
    pub rotate_every: Duration,
    /// How long a key is published before it signs.
    pub publish_ahead: Duration,
    /// A file with the key under which private keys are sealed in the store.
    pub master_key_file: Option<PathBuf>,
}

impl Settings {
    /// Whether the operator supplies the key, and rotates it.
    pub fn is_supplied(&self) -> bool {
        self.private_key_file.is_some()
    }

    /// Whether keys are rotated by themselves.
    pub fn is_scheduled(&self) -> bool {
        !self.is_supplied() && !self.rotate_every.is_zero()
    }
}

impl Default for Settings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            private_key_file: None,
            algorithm: Algorithm::Rs256,
            rsa_bits: 2048,
            rotate_every: 30 * DAY,
            publish_ahead: DAY,
            master_key_file: None,
        }
    }
}
