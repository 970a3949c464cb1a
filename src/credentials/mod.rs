//! Credentials: what a caller presents to prove who it is, and how that is verified.

use std::fmt;

use crate::limits::Rate;

/// An argon2id PHC string. Prints as `[hash]`: it could be guessed at offline.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// From a PHC string, as a store kept it.
    pub fn from_phc(phc: String) -> Self {
        Self(phc)
    }

    /// The PHC string, for a store to keep.
    pub fn as_phc(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hash]")
    }
}

/// Settings of `[credentials]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// argon2id memory in KiB (RFC 9106 §3.1 m).
    pub argon2_memory_kib: u32,
    /// argon2id passes (t).
    pub argon2_iterations: u32,
    /// argon2id lanes (p).
    pub argon2_parallelism: u32,
    /// Hashing threads; 0 is one per core.
    pub hashing_threads: usize,
    /// Verifications that may wait for a hashing thread; beyond it the answer is 503 with `Retry-After`.
    pub hashing_queue: usize,
    /// How long a verified credential is remembered.
    pub cache_ttl: std::time::Duration,
    /// How many verified credentials are remembered.
    pub cache_size: usize,
    /// Failed attempts allowed to one client address (IPv6: one /64).
    pub failures_per_address: Rate,
    /// Failed attempts allowed for one user-id.
    pub failures_per_user: Rate,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            argon2_memory_kib: 19_456,
            argon2_iterations: 2,
            argon2_parallelism: 1,
            hashing_threads: 0,
            hashing_queue: 64,
            cache_ttl: std::time::Duration::from_secs(60),
            cache_size: 100_000,
            failures_per_address: Rate::new(30, std::time::Duration::from_secs(60)),
            failures_per_user: Rate::new(10, std::time::Duration::from_secs(60)),
        }
    }
}
