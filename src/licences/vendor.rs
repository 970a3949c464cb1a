//! The keys that licence documents are signed and verified with: Ed25519 (RFC 8032).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Why there is no vendor key.
#[derive(Debug)]
pub enum VendorKeyError {
    /// The file cannot be read.
    Unreadable(PathBuf, std::io::Error),
    /// The file holds no Ed25519 private key.
    NoKey(PathBuf),
    /// Others may read the file; its mode.
    Open(PathBuf, u32),
    /// No key could be made.
    Generate,
}

impl fmt::Display for VendorKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "{} cannot be read: {error}", path.display()),
            Self::NoKey(path) => write!(
                f,
                "{} holds no vendor key (an Ed25519 private key, PKCS#8 in PEM); make one with `keybearer licences \
                 vendor-key new FILE`",
                path.display()
            ),
            Self::Open(path, mode) => write!(
                f,
                "{} may be read by others (mode {mode:04o}), and whoever has it can make licences; chmod 600 it",
                path.display()
            ),
            Self::Generate => f.write_str("no key could be made"),
        }
    }
}

impl std::error::Error for VendorKeyError {}

/// The private key of a vendor.
pub struct VendorKey(Ed25519KeyPair);

impl fmt::Debug for VendorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VendorKey").field(&self.public()).finish()
    }
}

impl VendorKey {
    /// A new key.
    ///
    /// # Errors
    /// [`VendorKeyError::Generate`].
    pub fn generate() -> Result<Self, VendorKeyError> {
        Ed25519KeyPair::generate().map(Self).map_err(|_| VendorKeyError::Generate)
    }

    /// The text of its file: PKCS#8 in PEM.
    ///
    /// # Errors
    /// [`VendorKeyError::Generate`].
    pub fn to_pem(&self) -> Result<Secret<String>, VendorKeyError> {
        let der: Pkcs8V1Der<'_> = self.0.as_der().map_err(|_| VendorKeyError::Generate)?;
        let text = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.extend(line.iter().map(|c| char::from(*c)));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok(Secret::new(pem))
    }

    /// Reads a file that its owner alone may read.
    ///
    /// # Errors
    /// [`VendorKeyError`].
    pub fn read(path: &Path) -> Result<Self, VendorKeyError> {
        use std::os::unix::fs::PermissionsExt;
        let unreadable = |error| VendorKeyError::Unreadable(path.to_owned(), error);
        let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(VendorKeyError::Open(path.to_owned(), mode));
        }
        let pem = Zeroizing::new(std::fs::read(path).map_err(unreadable)?);
        Self::from_pem(&pem).ok_or_else(|| VendorKeyError::NoKey(path.to_owned()))
    }

    fn from_pem(pem: &[u8]) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
        let der = der.secret_pkcs8_der();
        // Some tools write version 1, which has no public half to hold the private one against.
        let pair = Ed25519KeyPair::from_pkcs8(der).or_else(|_| Ed25519KeyPair::from_pkcs8_maybe_unchecked(der));
        pair.ok().map(Self)
    }

    /// The half that customers' gateways know.
    pub fn public(&self) -> VendorPublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        VendorPublicKey(bytes)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

/// The public key of a vendor: 43 characters of base64url.
#[derive(Clone, PartialEq, Eq)]
pub struct VendorPublicKey([u8; 32]);

impl VendorPublicKey {
    /// Tells keys apart: 16 hexadecimal digits of its SHA-256, the `kid` of documents.
    pub fn id(&self) -> String {
        digest(&SHA256, &self.0).as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for VendorPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for VendorPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VendorPublicKey {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str =
            "write the 43 characters that `keybearer licences vendor-key new` printed on the vendor's machine";
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| RULE)?;
        bytes.try_into().map(Self).map_err(|_| RULE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_its_public_half_its_text() {
        use std::os::unix::fs::PermissionsExt;
        let key = VendorKey::generate().expect("a key");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vendor.key");
        std::fs::write(&path, key.to_pem().expect("PEM").expose()).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("a mode");
        assert!(matches!(VendorKey::read(&path), Err(VendorKeyError::Open(_, 0o644))));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        let read = VendorKey::read(&path).expect("a key");
        assert_eq!(read.public(), key.public());
        let public: VendorPublicKey = key.public().to_string().parse().expect("a key");
        assert!(public.verifies(b"x", &read.sign(b"x")) && !public.verifies(b"y", &read.sign(b"x")));
        assert_eq!(public.id().len(), 16);
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").expect("a file");
        assert!(matches!(VendorKey::read(&path), Err(VendorKeyError::NoKey(_))));
        for bad in ["", "AAAA", &"A".repeat(44), &"+".repeat(43)] {
            assert!(bad.parse::<VendorPublicKey>().is_err(), "{bad}");
        }
    }
}
