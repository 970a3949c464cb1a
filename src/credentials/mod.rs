//! Credentials: what a caller presents to prove who it is, and how that is verified.
//!
//! Implements the user-id and password of RFC 7617 and our API keys, both kept as argon2id PHC strings (RFC 9106).

mod basic;
mod defence;
mod foreign;
mod hash;
mod memory;
mod pool;
mod record;
mod standing;
mod verify;

use std::time::Duration;

use crate::limits::Rate;
use crate::persist;
use crate::tokens::Grant;

pub use basic::{LONGEST, NotSpecified, Presented, token68};
pub use hash::{HashError, Hasher, InvalidHash, Kept, Match, PasswordHash};
pub use pool::{Busy, HashPool, Lane};
pub use verify::{Stores, Verifier};

/// How a verification ended.
#[derive(Debug)]
pub enum Outcome {
    /// The credential is right, and may have this.
    Verified(Grant),
    /// It is wrong, or no good any more. The reason is for the log; the client sees one answer.
    Rejected(Reason),
    /// Too many failures from this address or for this user-id: try again after so long.
    Throttled(Duration),
    /// The hashing queue is full.
    Busy,
    /// The store does not answer, and the credential was not verified before.
    Unavailable(persist::Error),
}

/// Why a credential is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It begins like a key and is none: wrong length, alphabet or checksum.
    MalformedKey,
    /// A key's id without the key.
    KeyIdAlone,
    /// A key's id with another key.
    OtherKeyId,
    /// A key with a password.
    PasswordWithKey,
    /// No such key.
    UnknownKey,
    /// The key was suspended, was revoked or has expired.
    KeyNotLive,
    /// No such account.
    UnknownAccount,
    /// The account has no password.
    NoPassword,
    /// The account was suspended or has expired.
    AccountNotLive,
    /// The secret half or the password is wrong.
    WrongSecret,
    /// No licence grants anything now.
    NothingGranted,
    /// The stored hash is damaged.
    UnreadableHash,
    /// It is right, and may not be used from where it was presented.
    Elsewhere,
}

impl Reason {
    /// A stable word for logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::MalformedKey => "malformed_key",
            Self::KeyIdAlone => "key_id_alone",
            Self::OtherKeyId => "other_key_id",
            Self::PasswordWithKey => "password_with_key",
            Self::UnknownKey => "unknown_key",
            Self::KeyNotLive => "key_not_live",
            Self::UnknownAccount => "unknown_account",
            Self::NoPassword => "no_password",
            Self::AccountNotLive => "account_not_live",
            Self::WrongSecret => "wrong_secret",
            Self::NothingGranted => "nothing_granted",
            Self::UnreadableHash => "unreadable_hash",
            Self::Elsewhere => "network_not_allowed",
        }
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
    /// Hashing threads; 0 is one per core. There is one more for what is likely right.
    pub hashing_threads: usize,
    /// Verifications that may wait for a hashing thread; beyond it the answer is 503 with `Retry-After`.
    pub hashing_queue: usize,
    /// How long a verified credential is remembered.
    pub cache_ttl: Duration,
    /// How many verified credentials are remembered.
    pub cache_size: usize,
    /// Failed attempts allowed to one client address (IPv6: one /64).
    pub failures_per_address: Rate,
    /// Failed attempts allowed for one user-id.
    pub failures_per_user: Rate,
    /// Failed attempts allowed in all, before addresses that have failed have to wait.
    pub failures_in_all: Rate,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            argon2_memory_kib: 19_456,
            argon2_iterations: 2,
            argon2_parallelism: 1,
            hashing_threads: 0,
            hashing_queue: 64,
            cache_ttl: Duration::from_secs(60),
            cache_size: 100_000,
            failures_per_address: Rate::new(30, Duration::from_secs(60)),
            failures_per_user: Rate::new(10, Duration::from_secs(60)),
            failures_in_all: Rate::new(600, Duration::from_secs(60)),
        }
    }
}
