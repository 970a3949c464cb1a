//! Credentials: what a caller presents to prove who it is, and how that is verified.
//!
//! Implements the user-id and password of RFC 7617 and our API keys, both kept as argon2id PHC strings (RFC 9106).

mod hash;

use crate::limits::Rate;

pub use hash::{HashError, Hasher, Match, PasswordHash};

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
