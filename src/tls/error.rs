//! What can be wrong with certificates and keys, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use crate::clock::Timestamp;

/// One thing that is wrong with a certificate or key file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The file does not exist.
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's word.
        reason: String,
    },
    /// The file or folder cannot be written.
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// The system's word.
        reason: String,
    },
    /// The file has no PEM certificate.
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        found: Found,
    },
    /// The file has a certificate that cannot be understood.
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file has no PEM private key.
    NoKey {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        found: Found,
    },
    /// The file has a private key that cannot be used.
    BadKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The private key is encrypted.
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The key belongs to another certificate.
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// It belongs to a later certificate of the same file, which is in the wrong order.
        wrong_order: bool,
    },
    /// The certificate is valid no more.
    Expired {
        /// The file.
        path: PathBuf,
        /// When its validity ended.
        at: Timestamp,
    },
    /// The certificate is not valid yet.
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// When its validity begins.
        from: Timestamp,
    },
    /// One of the two files of the local authority is missing.
    Incomplete {
        /// The file that is missing.
        missing: PathBuf,
        /// The file that is there.
        beside: PathBuf,
    },
    /// Something is wrong with a file of the local authority in the data folder.
    Local {
        /// What is wrong.
        fault: Box<Error>,
        /// Whether it is a file of the authority, which is never replaced unasked: clients trust it.
        authority: bool,
    },
    /// A certificate cannot be made, or TLS cannot be set up.
    Setup {
        /// What went wrong.
        reason: String,
    },
}

/// What a file without the expected PEM seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing known.
    Nothing,
    /// The same in binary form.
    Der,
    /// A private key.
    Key,
    /// A certificate.
    Certificate,
}

impl Error {
    fn problem(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => write!(f, "{} does not exist", path.display()),
            Self::Unreadable { path, reason } => write!(f, "{} cannot be read: {reason}", path.display()),
            Self::Unwritable { path, reason } => write!(f, "{} cannot be written: {reason}", path.display()),
            Self::NoCertificate { path, found } => write!(f, "{} has no PEM certificate{found}", path.display()),
            Self::BadCertificate { path, reason } => {
                write!(f, "{} has a certificate that cannot be used: {reason}", path.display())
            }
            Self::NoKey { path, found } => write!(f, "{} has no PEM private key{found}", path.display()),
            Self::BadKey { path, reason } => write!(f, "{} has a key that cannot be used: {reason}", path.display()),
            Self::EncryptedKey { path } => write!(f, "the private key in {} is encrypted", path.display()),
            Self::Mismatch { certificate, key, wrong_order: true } => {
                write!(f, "the key in {} belongs to a later certificate of {}", key.display(), certificate.display())
            }
            Self::Mismatch { certificate, key, wrong_order: false } => {
                let (key, certificate) = (key.display(), certificate.display());
                write!(f, "the key in {key} does not belong to the certificate in {certificate}")
            }
            Self::Expired { path, at } => write!(f, "the certificate in {} expired at {at}", path.display()),
            Self::NotYetValid { path, from } => {
                write!(f, "the certificate in {} is not valid before {from}", path.display())
            }
            Self::Incomplete { missing, beside } => {
                write!(f, "{} is missing beside {}", missing.display(), beside.display())
            }
            Self::Local { fault, .. } => fault.problem(f),
            Self::Setup { reason } => write!(f, "TLS cannot be set up: {reason}"),
        }
    }

    fn remedy(&self) -> &'static str {
        match self {
            Self::Missing { .. } => {
                "correct the path, which is relative to the working directory, or put the file there"
            }
            Self::Unreadable { .. } => "let the user that runs keybearer read it",
            Self::Unwritable { .. } => {
                "let the user that runs keybearer write there, and see that the disk is not full"
            }
            Self::NoCertificate { found: Found::Key, .. } | Self::NoKey { found: Found::Certificate, .. } => {
                "perhaps tls.certificate and tls.private_key are exchanged"
            }
            Self::NoCertificate { found: Found::Der, .. } => {
                "convert it: openssl x509 -inform DER -in <file> -out <file>.pem"
            }
            Self::NoCertificate { .. } => "it needs a block that begins with -----BEGIN CERTIFICATE-----",
            Self::BadCertificate { .. } => "get the certificate anew from whoever issued it",
            Self::NoKey { found: Found::Der, .. } => "convert it: openssl pkey -inform DER -in <file> -out <file>.pem",
            Self::NoKey { .. } => "it needs a block that begins with -----BEGIN PRIVATE KEY-----",
            Self::BadKey { .. } => "use RSA of 2048 bits or more, ECDSA (P-256, P-384, P-521) or Ed25519",
            Self::EncryptedKey { .. } => {
                "decrypt it: openssl pkey -in <file> -out <file>.plain, and keep that at mode 0600"
            }
            Self::Mismatch { wrong_order: true, .. } => "put the server's own certificate first, its issuer after it",
            Self::Mismatch { .. } => "name the key that the certificate was requested with",
            Self::Expired { .. } => "renew it",
            Self::NotYetValid { .. } => "wait for it, or set this machine's clock right",
            // Nothing is wrong with the file then.
            Self::Local { fault, .. } if matches!(**fault, Self::NotYetValid { .. } | Self::Unreadable { .. }) => {
                fault.remedy()
            }
            Self::Incomplete { .. } | Self::Local { authority: true, .. } => {
                "restore it from a backup, or move the folder away to begin with a new authority, whose ca.pem clients \
                 must then be told to trust (it was left untouched)"
            }
            Self::Local { authority: false, .. } => "remove it, and it is made anew",
            Self::Setup { .. } => "this is a fault of keybearer or of tls.names",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem(f)?;
        write!(f, "; {}", self.remedy())
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "",
            Self::Der => " (it seems to be DER)",
            Self::Key => " (but a private key)",
            Self::Certificate => " (but a certificate)",
        })
    }
}

/// Everything that is wrong with a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub(super) Vec<Error>);

impl Faults {
    /// The faults one by one.
    pub fn list(&self) -> &[Error] {
        &self.0
    }
}

impl From<Error> for Faults {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "tls: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Something that works, and is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Every user of this machine can read the private key.
    KeyOpenToOthers {
        /// The key's file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The certificate names no host, so current clients accept it for none (RFC 9525 §2).
    NoNames {
        /// The certificate's file.
        path: PathBuf,
    },
    /// The certificate ends soon.
    ExpiresSoon {
        /// The certificate's file.
        path: PathBuf,
        /// When.
        at: Timestamp,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyOpenToOthers { path, mode } => {
                let path = path.display();
                write!(
                    f,
                    "every user of this machine can use the private key in {path} (mode {mode:04o}); chmod 600 {path}"
                )
            }
            Self::NoNames { path } => {
                write!(f, "the certificate in {} has no subjectAltName; clients will refuse it", path.display())
            }
            Self::ExpiresSoon { path, at } => {
                write!(f, "the certificate in {} expires at {at}; renew it", path.display())
            }
        }
    }
}
