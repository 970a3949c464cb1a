//! Private keys at rest: sealed with AES-256-GCM under a master key that lies elsewhere than the store.
//!
//! A sealed key is a format byte, a random nonce, and the ciphertext with its tag; the `kid` is authenticated with it, so
//! that no key can be passed off as another. Beside it stands the id of the master key, so that a wrong one is told by name.

use std::fmt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::{Zeroize, Zeroizing};

use super::{Error, SigningKey};
use crate::random;
use crate::secret::Secret;

const FORMAT: u8 = 1;
const LENGTH: usize = 32;

/// A file that holds no master key; `Display` says why.
#[derive(Debug)]
pub enum BadMasterKey {
    /// It cannot be read.
    Unreadable(std::io::Error),
    /// Not 32 bytes in hexadecimal or base64.
    NoKey,
    /// So many bytes, and not 32.
    Length(usize),
}

impl fmt::Display for BadMasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAKE: &str = "make one with `keybearer signing-keys master-key new FILE`";
        match self {
            Self::Unreadable(error) if error.kind() == std::io::ErrorKind::NotFound => {
                write!(f, "there is no such file; {MAKE}, or restore it from where you keep it")
            }
            Self::Unreadable(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                f.write_str("this user may not read it; check owner and mode")
            }
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Self::NoKey => write!(f, "it does not hold 32 bytes in base64 or hexadecimal; {MAKE}"),
            Self::Length(bytes) => write!(f, "it holds {bytes} bytes and a master key has 32; {MAKE}"),
        }
    }
}

impl std::error::Error for BadMasterKey {}

/// The key under which private keys are sealed.
pub struct MasterKey {
    key: RandomizedNonceKey,
    id: String,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl MasterKey {
    /// The text of a file with a new key.
    pub fn generate() -> Secret<String> {
        let key = Zeroizing::new(random::bytes::<LENGTH>());
        Secret::new(format!("{}\n", STANDARD.encode(*key)))
    }

    /// Reads a file with 32 bytes in base64 (either alphabet, padded or not) or hexadecimal.
    ///
    /// # Errors
    /// [`Error::MasterKey`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bad = |source| Error::MasterKey { path: path.to_owned(), source };
        let text = Zeroizing::new(std::fs::read(path).map_err(|error| bad(BadMasterKey::Unreadable(error)))?);
        Self::parse(&text).map_err(bad)
    }

    fn parse(text: &[u8]) -> Result<Self, BadMasterKey> {
        let text = text.trim_ascii();
        let bytes = Zeroizing::new(from_hex(text).or_else(|| from_base64(text)).ok_or(BadMasterKey::NoKey)?);
        let length = || BadMasterKey::Length(bytes.len());
        let key: &[u8; LENGTH] = bytes.as_slice().try_into().map_err(|_| length())?;
        // One way: the id says nothing of the key.
        let mark = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"keybearer master key id");
        let id = mark.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { key: RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| length())?, id })
    }

    /// Tells master keys apart and may be shown: 16 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals the private half of a record whose own is in the clear.
    pub(super) fn seal(&self, record: SigningKey) -> Result<SigningKey, Error> {
        let mut text = Zeroizing::new(record.private.expose().clone());
        // Room for the tag, so that no copy of the clear text is left behind by a move.
        text.reserve_exact(AES_256_GCM.tag_len());
        let aad = Aad::from(record.kid.as_bytes());
        let nonce = self.key.seal_in_place_append_tag(aad, &mut *text).map_err(|_| Error::Seal)?;
        let sealed = [&[FORMAT][..], nonce.as_ref(), &text].concat();
        Ok(SigningKey { private: Secret::new(sealed), sealed_by: Some(self.id.clone()), ..record })
    }

    fn open(&self, kid: &str, sealed: &[u8]) -> Option<Secret<Vec<u8>>> {
        let (nonce, text) = sealed.strip_prefix(&[FORMAT])?.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::from(kid.as_bytes()), &mut text).ok().map(|clear| clear.len());
        let Some(length) = opened else {
            text.zeroize();
            return None;
        };
        text.truncate(length);
        Some(Secret::new(text))
    }
}

/// The private half of a record, in the clear.
pub(super) fn opened(record: &SigningKey, master: Option<&MasterKey>) -> Result<Secret<Vec<u8>>, Error> {
    let Some(sealed_by) = &record.sealed_by else { return Ok(record.private.clone()) };
    let kid = || record.kid.clone();
    match master {
        None => Err(Error::Sealed { kid: kid(), by: sealed_by.clone() }),
        Some(master) if master.id != *sealed_by => {
            Err(Error::WrongMasterKey { kid: kid(), by: sealed_by.clone(), given: master.id.clone() })
        }
        Some(master) => master.open(&record.kid, record.private.expose()).ok_or_else(|| Error::Damaged(kid())),
    }
}

/// Seals all that lies in the clear; `None` when there is nothing to do. What another master key sealed is not touched.
pub(super) fn sealed(keys: &[SigningKey], master: &MasterKey) -> Option<Result<Vec<SigningKey>, Error>> {
    let seal = |key: &SigningKey| if key.sealed_by.is_none() { master.seal(key.clone()) } else { Ok(key.clone()) };
    keys.iter().any(|key| key.sealed_by.is_none()).then(|| keys.iter().map(seal).collect())
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() != 2 * LENGTH || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.chunks_exact(2).map(pair).collect()
}

fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() {
        return None;
    }
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD].iter().find_map(|engine| engine.decode(text).ok())
}

#[cfg(test)]
mod tests {
    use super::super::SigningState;
    use super::*;
    use crate::clock::Timestamp;

    fn master(byte: u8) -> MasterKey {
        MasterKey::parse(STANDARD.encode([byte; LENGTH]).as_bytes()).expect("a key")
    }

    fn record() -> SigningKey {
        SigningKey {
            kid: "kid".into(),
            algorithm: "EdDSA".into(),
            private: Secret::new(b"a private key".to_vec()),
            sealed_by: None,
            state: SigningState::Active,
            created_at: Timestamp::default(),
            activates_at: Timestamp::default(),
            longest_token: std::time::Duration::ZERO,
            gone_at: None,
        }
    }

    #[test]
    fn a_master_key_is_read_in_every_usual_form() {
        let bytes = [0xfb; LENGTH];
        let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        let forms =
            [STANDARD.encode(bytes), STANDARD_NO_PAD.encode(bytes), URL_SAFE.encode(bytes), format!("  {hex}\r\n")];
        for form in forms {
            assert_eq!(MasterKey::parse(form.as_bytes()).expect("a key").id(), master(0xfb).id(), "{form}");
        }
        assert_ne!(master(1).id(), master(2).id());
        let made = MasterKey::generate();
        assert_eq!(MasterKey::parse(made.expose().as_bytes()).expect("a key").id().len(), 16);
        assert_ne!(made, MasterKey::generate());
        assert_eq!(format!("{:?}", master(1)), format!("MasterKey {{ id: {:?}, .. }}", master(1).id()));
    }

    #[test]
    fn what_is_no_master_key_is_told_apart() {
        let said = |text: &[u8]| MasterKey::parse(text).expect_err("no key").to_string();
        assert!(said(b"").contains("does not hold 32 bytes"));
        assert!(said(b"hello, world").contains("does not hold"));
        assert!(said(STANDARD.encode([1; 16]).as_bytes()).contains("holds 16 bytes"));
        assert!(said(STANDARD.encode([1; 64]).as_bytes()).contains("holds 64 bytes"));
        let missing = MasterKey::read(Path::new("/no/such/file")).expect_err("no file").to_string();
        assert!(missing.contains("signing.master_key_file: /no/such/file: there is no such file"), "{missing}");
    }

    #[test]
    fn what_was_sealed_opens_under_its_own_key_and_kid_alone() {
        let sealed = master(1).seal(record()).expect("sealed");
        assert!(!sealed.private.expose().windows(7).any(|part| part == b"private"));
        assert_ne!(sealed.private, master(1).seal(record()).expect("sealed").private, "a nonce of its own each time");
        assert_eq!(opened(&sealed, Some(&master(1))).expect("opened"), record().private);
        assert_eq!(opened(&record(), None).expect("in the clear"), record().private);
        assert!(matches!(opened(&sealed, None), Err(Error::Sealed { .. })));
        assert!(matches!(opened(&sealed, Some(&master(2))), Err(Error::WrongMasterKey { .. })));
        let other = SigningKey { kid: "other".into(), ..sealed.clone() };
        assert!(matches!(opened(&other, Some(&master(1))), Err(Error::Damaged(_))));
        let lied = SigningKey { sealed_by: Some(master(2).id().to_owned()), ..sealed.clone() };
        assert!(matches!(opened(&lied, Some(&master(2))), Err(Error::Damaged(_))));
        for at in 0..sealed.private.expose().len() {
            let mut bytes = sealed.private.expose().clone();
            bytes[at] ^= 1;
            let changed = SigningKey { private: Secret::new(bytes.clone()), ..sealed.clone() };
            assert!(matches!(opened(&changed, Some(&master(1))), Err(Error::Damaged(_))), "byte {at}");
            bytes.truncate(at);
            let short = SigningKey { private: Secret::new(bytes), ..sealed.clone() };
            assert!(matches!(opened(&short, Some(&master(1))), Err(Error::Damaged(_))), "{at} bytes");
        }
    }
}
