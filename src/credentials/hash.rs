//! argon2id (RFC 9106) as PHC strings, with the memory of one hash reused for the next. What was hashed elsewhere is compared
//! as well, and never made.

use std::fmt;

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;

use super::Settings;
use super::foreign::{self, Foreign};
use crate::random;

/// A stored hash may ask for no more than this: a forged or imported record must not be able to exhaust the machine.
const MOST_MEMORY_KIB: u32 = 1024 * 1024;
const MOST_ITERATIONS: u32 = 64;
const MOST_PARALLELISM: u32 = 64;

const OUTPUT: usize = 32;

/// What is by chance in a salt.
const NONCE: usize = 16;
/// Says that a salt ends with a check value.
const MARK: [u8; 4] = *b"kcv1";
/// Of 65,536 wrong keys one costs a hash. A key has 190 bits; whoever reads the store learns 16 of them and has 174 to guess.
const CHECK: usize = 2;

/// An argon2id PHC string, or what another system made in its place. Prints as `[hash]`: it could be guessed at offline.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// From a PHC string, as a store kept it.
    pub fn from_phc(phc: String) -> Self {
        Self(phc)
    }

    /// From the text of a hash that was made elsewhere, of this kind of secret. One of our own is good as well.
    ///
    /// # Errors
    /// [`InvalidHash`] when it is in no form that can be compared with, or too weak for a password.
    pub fn import(text: &str, of: Kept) -> Result<Self, InvalidHash> {
        // Bare digits are what most systems keep of a key.
        let text = match foreign::hex(text) {
            Some(_) => format!("sha256:{text}"),
            None => text.to_owned(),
        };
        match Foreign::read(&text) {
            Some(foreign) if of == Kept::Password && !foreign.is_slow() => Err(InvalidHash::Fast),
            None if Argon2id::read(&text).is_err() => Err(InvalidHash::Form),
            _ => Ok(Self(text)),
        }
    }

    /// Whether it is one of our own kind: argon2id.
    pub fn is_argon2id(&self) -> bool {
        self.0.starts_with("$argon2id$")
    }

    /// Whether its salt tells of keys that they are not the one.
    pub fn has_check_value(&self) -> bool {
        phc::PasswordHash::new(&self.0)
            .is_ok_and(|stored| stored.salt.is_some_and(|salt| split(salt.as_ref()).is_some()))
    }

    /// Whether `secret` is seen not to be the one, without hashing it. `false` says nothing.
    pub fn rules_out(&self, secret: &[u8]) -> bool {
        let Some(salt) = phc::PasswordHash::new(&self.0).ok().and_then(|stored| stored.salt) else { return false };
        split(salt.as_ref()).is_some_and(|(nonce, check)| !bool::from(check_value(nonce, secret).ct_eq(check)))
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

/// What a hash keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// A key, which nobody can guess.
    Key,
    /// A password.
    Password,
}

/// A text that cannot be taken for a hash. The text is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidHash {
    /// It is in no form we know, or asks for more than our bounds.
    Form,
    /// It is made so fast that a password could be guessed.
    Fast,
}

impl fmt::Display for InvalidHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => {
                "no hash that can be used: argon2id or PBKDF2 as a PHC string, PBKDF2 as passlib or Django writes it, bcrypt \
                 ($2a$, $2b$, $2y$), or of a key its SHA-256 in 64 hexadecimal digits"
            }
            Self::Fast => "a plain SHA-256 keeps no password, only a key; have a new password set",
        })
    }
}

impl std::error::Error for InvalidHash {}

/// A hash that cannot be made or read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashError {
    /// The parameters are out of argon2's bounds.
    Parameters(String),
    /// The stored string is no hash within our bounds.
    Unreadable,
}

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parameters(why) => write!(f, "argon2 parameters are out of bounds: {why}"),
            Self::Unreadable => f.write_str("a stored hash is in no form that can be read"),
        }
    }
}

impl std::error::Error for HashError {}

/// How a comparison ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// It is not the one.
    No,
    /// It is.
    Yes,
    /// It is, and the hash was made with weaker parameters than today's, without what a key's has today, or elsewhere: hash it
    /// anew.
    Outdated,
}

/// Of a salt that ends with a check value: what is by chance in it, and that value.
fn split(salt: &[u8]) -> Option<(&[u8], &[u8])> {
    let (nonce, rest) = salt.split_at_checked(NONCE)?;
    let check = rest.strip_prefix(&MARK)?;
    (check.len() == CHECK).then_some((nonce, check))
}

/// The key check value: a few bits of a MAC of the key, so that a wrong one costs no argon2 hash. It has a place in the salt,
/// where any argon2 takes it for a part of that.
fn check_value(nonce: &[u8], secret: &[u8]) -> [u8; CHECK] {
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, nonce), secret);
    let mut check = [0; CHECK];
    check.copy_from_slice(&mac.as_ref()[..CHECK]);
    check
}

/// Makes and checks hashes. Holds the memory of one hash, so each thread has one of its own.
pub struct Hasher {
    params: Params,
    memory: Vec<Block>,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("params", &self.params).finish_non_exhaustive()
    }
}

impl Hasher {
    /// A hasher with the parameters of `settings`.
    ///
    /// # Errors
    /// [`HashError::Parameters`] when argon2 cannot work with them.
    pub fn new(settings: &Settings) -> Result<Self, HashError> {
        let params = bounded(settings.argon2_memory_kib, settings.argon2_iterations, settings.argon2_parallelism)
            .map_err(HashError::Parameters)?;
        Ok(Self { params, memory: Vec::new() })
    }

    /// Hashes `secret` with a salt of its own. That of a key has a check value in it, by which most that is wrong can be told
    /// without a hash; of a password nothing is given away.
    ///
    /// # Errors
    /// [`HashError::Parameters`] when `secret` is longer than argon2 takes.
    pub fn hash(&mut self, secret: &[u8], of: Kept) -> Result<PasswordHash, HashError> {
        let mut salt = random::bytes::<NONCE>().to_vec();
        if of == Kept::Key {
            let check = check_value(&salt, secret);
            salt.extend(MARK.into_iter().chain(check));
        }
        let params = self.params.clone();
        let output = self.run(params, secret, &salt)?;
        let phc = format!(
            "$argon2id$v=19$m={},t={},p={}${}${}",
            self.params.m_cost(),
            self.params.t_cost(),
            self.params.p_cost(),
            phc::Salt::new(&salt).map_err(|_| HashError::Unreadable)?.to_salt_string().as_ref(),
            phc::Output::new(&output).map_err(|_| HashError::Unreadable)?,
        );
        Ok(PasswordHash(phc))
    }

    /// Compares in constant time. The parameters are those of the stored hash.
    ///
    /// # Errors
    /// [`HashError::Unreadable`] when the stored string is no hash within our bounds.
    pub fn verify(&mut self, secret: &[u8], hash: &PasswordHash, of: Kept) -> Result<Match, HashError> {
        if let Some(foreign) = Foreign::read(hash.as_phc()) {
            return Ok(if foreign.matches(secret) { Match::Outdated } else { Match::No });
        }
        let Argon2id { params, salt, expected } = Argon2id::read(hash.as_phc())?;
        let weaker = params.m_cost() < self.params.m_cost() || params.t_cost() < self.params.t_cost();
        let lacks_check_value = of == Kept::Key && split(salt.as_ref()).is_none();
        let output = self.run(params, secret, salt.as_ref())?;
        if !bool::from(output.ct_eq(expected.as_bytes())) {
            return Ok(Match::No);
        }
        Ok(if weaker || lacks_check_value { Match::Outdated } else { Match::Yes })
    }

    /// Costs what a comparison with a hash of today's parameters costs, for a user who does not exist.
    pub fn waste(&mut self, secret: &[u8]) {
        let params = self.params.clone();
        let _ = self.run(params, secret, b"nobody-has-this!");
    }

    fn run(&mut self, params: Params, secret: &[u8], salt: &[u8]) -> Result<[u8; OUTPUT], HashError> {
        let blocks = params.block_count();
        if self.memory.len() < blocks {
            self.memory.resize(blocks, Block::default());
        }
        let mut output = [0u8; OUTPUT];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(secret, salt, &mut output, &mut self.memory[..blocks])
            .map_err(|error| HashError::Parameters(error.to_string()))?;
        Ok(output)
    }
}

/// A hash of our own kind, read.
struct Argon2id {
    params: Params,
    salt: phc::Salt,
    expected: phc::Output,
}

impl Argon2id {
    fn read(text: &str) -> Result<Self, HashError> {
        let stored = phc::PasswordHash::new(text).map_err(|_| HashError::Unreadable)?;
        let cost = |name: &str| stored.params.get_decimal(name).ok_or(HashError::Unreadable);
        let (salt, expected) = (stored.salt.ok_or(HashError::Unreadable)?, stored.hash.ok_or(HashError::Unreadable)?);
        if stored.algorithm.as_str() != "argon2id" || stored.version != Some(19) || expected.len() != OUTPUT {
            return Err(HashError::Unreadable);
        }
        let params = bounded(cost("m")?, cost("t")?, cost("p")?).map_err(|_| HashError::Unreadable)?;
        Ok(Self { params, salt, expected })
    }
}

fn bounded(memory_kib: u32, iterations: u32, parallelism: u32) -> Result<Params, String> {
    if memory_kib > MOST_MEMORY_KIB || iterations > MOST_ITERATIONS || parallelism > MOST_PARALLELISM {
        return Err(format!("at most m={MOST_MEMORY_KIB} KiB, t={MOST_ITERATIONS}, p={MOST_PARALLELISM}"));
    }
    Params::new(memory_kib, iterations, parallelism, Some(OUTPUT)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::Kept::{Key, Password};
    use super::*;

    fn hasher(memory_kib: u32, iterations: u32) -> Hasher {
        let settings = Settings { argon2_memory_kib: memory_kib, argon2_iterations: iterations, ..Settings::default() };
        Hasher::new(&settings).expect("parameters within bounds")
    }

    #[test]
    fn a_hash_matches_its_secret_alone() {
        let mut hasher = hasher(64, 1);
        let hash = hasher.hash(b"open sesame", Password).unwrap();
        assert!(hash.as_phc().starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{}", hash.as_phc());
        assert_eq!(hasher.verify(b"open sesame", &hash, Password), Ok(Match::Yes));
        assert_eq!(hasher.verify(b"open sesame ", &hash, Password), Ok(Match::No));
        assert_ne!(hasher.hash(b"open sesame", Password).unwrap(), hash, "each hash has a salt of its own");
    }

    #[test]
    fn long_secrets_are_not_cut_as_bcrypt_cuts_them() {
        let mut hasher = hasher(64, 1);
        let long = [b'x'; 100];
        let hash = hasher.hash(&long, Password).unwrap();
        assert_eq!(hasher.verify(&long[..99], &hash, Password), Ok(Match::No));
    }

    #[test]
    fn a_hash_with_weaker_parameters_is_outdated() {
        let hash = hasher(64, 1).hash(b"s", Password).unwrap();
        assert_eq!(hasher(64, 2).verify(b"s", &hash, Password), Ok(Match::Outdated));
        assert_eq!(hasher(128, 1).verify(b"s", &hash, Password), Ok(Match::Outdated));
        assert_eq!(hasher(32, 1).verify(b"s", &hash, Password), Ok(Match::Yes));
    }

    #[test]
    fn a_forged_hash_cannot_ask_for_more_than_our_bounds() {
        let mut hasher = hasher(64, 1);
        for phc in [
            "$argon2id$v=19$m=4294967295,t=2,p=1$bm9ib2R5LWhhcy10aGlz$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$argon2i$v=19$m=64,t=1,p=1$bm9ib2R5LWhhcy10aGlz$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "plain text",
            "",
        ] {
            assert_eq!(
                hasher.verify(b"s", &PasswordHash::from_phc(phc.into()), Password),
                Err(HashError::Unreadable),
                "{phc}"
            );
        }
    }

    #[test]
    fn a_hash_from_elsewhere_is_taken_over_and_outdated() {
        let digits = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hash = PasswordHash::import(digits, Key).expect("a hash of a key");
        assert_eq!(hash.as_phc(), format!("sha256:{digits}"));
        assert_eq!(hasher(64, 1).verify(b"abc", &hash, Password), Ok(Match::Outdated));
        assert_eq!(hasher(64, 1).verify(b"abd", &hash, Password), Ok(Match::No));
        assert_eq!(PasswordHash::import(digits, Password), Err(InvalidHash::Fast));
        assert_eq!(PasswordHash::import("open sesame", Password), Err(InvalidHash::Form));
        let ours = hasher(64, 1).hash(b"s", Password).unwrap();
        assert_eq!(PasswordHash::import(ours.as_phc(), Password), Ok(ours));
    }

    #[test]
    fn the_salt_of_a_keys_hash_rules_most_other_keys_out() {
        let mut hasher = hasher(64, 1);
        let hash = hasher.hash(b"the key", Key).unwrap();
        assert!(hash.has_check_value() && !hash.rules_out(b"the key"));
        assert_eq!(hasher.verify(b"the key", &hash, Key), Ok(Match::Yes));
        let others = (0..1000u32).map(u32::to_be_bytes);
        let (ruled_out, left): (Vec<_>, Vec<_>) = others.partition(|other| hash.rules_out(other));
        // By chance more than three are left once in a hundred million runs.
        assert!(ruled_out.len() >= 997, "{left:?} are left");
        assert_eq!(hasher.verify(&ruled_out[0], &hash, Key), Ok(Match::No));
        // What one key gives away says nothing of the same key's next hash.
        let again = hasher.hash(b"the key", Key).unwrap();
        assert_ne!(hash.as_phc().split('$').nth(4), again.as_phc().split('$').nth(4));
    }

    #[test]
    fn of_a_password_nothing_is_given_away() {
        let hash = hasher(64, 1).hash(b"open sesame", Password).unwrap();
        assert!(!hash.has_check_value() && !hash.rules_out(b"guess"));
        assert_eq!(hash.as_phc().split('$').nth(4).map(str::len), Some(22), "16 bytes by chance, and no more");
    }

    #[test]
    fn a_keys_hash_without_a_check_value_rules_nothing_out_and_is_outdated() {
        let mut hasher = hasher(64, 1);
        let hash = hasher.hash(b"the key", Password).unwrap();
        assert!(!hash.rules_out(b"another"));
        assert_eq!(hasher.verify(b"the key", &hash, Key), Ok(Match::Outdated));
        assert_eq!(hasher.verify(b"another", &hash, Key), Ok(Match::No));
        for text in ["", "sha256:00", "$argon2id$v=19$m=64,t=1,p=1$AAAA$AAAA", "plain text"] {
            assert!(
                !PasswordHash::from_phc(text.into()).rules_out(b"another"),
                "{text}: what cannot be read says nothing"
            );
        }
    }

    /// Made with Python's `hmac` and argon2-cffi: what is stored must be read by every later version, and by others.
    #[test]
    fn a_hash_with_a_check_value_of_another_making_is_read() {
        let stored =
            "$argon2id$v=19$m=64,t=1,p=1$AAECAwQFBgcICQoLDA0OD2tjdjHNWA$n9zMPXNzzUlK04XIeNJ0KDPJuJM98L/yYeZIHuUZg6M";
        let hash = PasswordHash::from_phc(stored.into());
        assert!(hash.has_check_value() && !hash.rules_out(b"the key") && hash.rules_out(b"another"));
        assert_eq!(hasher(64, 1).verify(b"the key", &hash, Key), Ok(Match::Yes));
    }

    /// The test vector of phc-winner-argon2: `echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1 -l 32`
    #[test]
    fn a_hash_of_the_reference_implementation_is_verified() {
        let reference = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let hash = PasswordHash::from_phc(reference.into());
        assert_eq!(hasher(64, 1).verify(b"password", &hash, Password), Ok(Match::Yes));
    }
}
