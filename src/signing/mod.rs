//! Signing keys: their life from next to gone, the ring in memory that signs and verifies, and the JWK Set.
//!
//! Implements the RS256 of RFC 7518 §3.3 with a parsed key kept in memory, `kid` as RFC 7638 thumbprint and the JWK Set of
//! RFC 7517 §5. Knows nothing of claims or HTTP.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::persist::{Result, Update};
use crate::secret::Secret;

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
    /// JWS algorithm (RFC 7518 §3.1); `RS256`.
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
    /// A PEM file with an RSA private key (PKCS#8 or PKCS#1) to sign with, in place of a generated one.
    pub private_key_file: Option<std::path::PathBuf>,
    /// Size of a generated key: 2048, 3072 or 4096.
    pub rsa_bits: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self { private_key_file: None, rsa_bits: 2048 }
    }
}
