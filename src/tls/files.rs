//! Certificate and key files: reads and checks them, and writes the ones that are made here.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256, digest};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as RustlsError, InconsistentKeys};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::error::{Error, Found, Warning};
use crate::clock::Timestamp;

/// What an operator should hear of in time.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// A certificate chain and its key, checked.
#[derive(Debug)]
pub(super) struct Pair {
    pub certified: CertifiedKey,
    pub facts: Facts,
    pub warnings: Vec<Warning>,
}

/// What a certificate says of itself.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub names: Vec<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub fingerprint: String,
}

/// The content of a file; wiped when dropped, since it may be a key.
pub(super) type Content = Zeroizing<Vec<u8>>;

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Content, Error> {
    fs::read(path).map(Zeroizing::new).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.into() },
        _ => Error::Unreadable { path: path.into(), reason: error.to_string() },
    })
}

/// A digest of the contents of files. It tells of a change whatever the file's time and inode say: Kubernetes replaces a
/// link to the folder, and copying tools keep times.
pub(super) fn fingerprint<'a>(contents: impl IntoIterator<Item = Result<&'a Content, &'a Error>>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for content in contents {
        match content {
            Ok(content) => {
                context.update(&(content.len() as u64).to_be_bytes());
                context.update(content);
            }
            Err(_) => context.update(&[0xff; 8]),
        }
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Checks a chain and its key, and reports everything that is wrong with the two.
pub(super) fn pair(
    (certificate, chain): (&Path, &Result<Content, Error>),
    (key_path, key): (&Path, &Result<Content, Error>),
    now: Timestamp,
) -> Result<Pair, Vec<Error>> {
    let mut errors = Vec::new();
    let mut keep = |error| errors.push(error);
    let chain = read_chain(certificate, chain).map_err(&mut keep).ok();
    let key = read_key(key_path, key).map_err(&mut keep).ok();
    let facts = chain.as_ref().and_then(|chain| facts(certificate, &chain[0]).map_err(&mut keep).ok());
    if let Some(facts) = &facts {
        if now.secs() > facts.not_after.secs() {
            keep(Error::Expired { path: certificate.into(), at: facts.not_after });
        } else if now < facts.not_before {
            keep(Error::NotYetValid { path: certificate.into(), from: facts.not_before });
        }
    }
    let (Some(chain), Some(key), Some(facts)) = (chain, key, facts) else { return Err(errors) };
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(RustlsError::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(RustlsError::InconsistentKeys(_)) => {
            let fits = |other: &CertificateDer<'static>| {
                CertifiedKey::new(vec![other.clone()], certified.key.clone()).keys_match().is_ok()
            };
            let wrong_order = certified.cert[1..].iter().any(fits);
            keep(Error::Mismatch { certificate: certificate.into(), key: key_path.into(), wrong_order });
        }
        Err(error) => keep(Error::BadCertificate { path: certificate.into(), reason: error.to_string() }),
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let warnings = warnings(certificate, key_path, &facts, now);
    Ok(Pair { certified, facts, warnings })
}

fn warnings(certificate: &Path, key: &Path, facts: &Facts, now: Timestamp) -> Vec<Warning> {
    let mut warnings = Vec::new();
    // A group is somebody's decision; everyone is an oversight.
    if let Ok(metadata) = fs::metadata(key)
        && metadata.permissions().mode() & 0o007 != 0
    {
        warnings.push(Warning::KeyOpenToOthers { path: key.into(), mode: metadata.permissions().mode() & 0o7777 });
    }
    if facts.names.is_empty() {
        warnings.push(Warning::NoNames { path: certificate.into() });
    }
    if now + SOON >= facts.not_after {
        warnings.push(Warning::ExpiresSoon { path: certificate.into(), at: facts.not_after });
    }
    warnings
}

fn read_chain(path: &Path, content: &Result<Content, Error>) -> Result<Vec<CertificateDer<'static>>, Error> {
    let content = content.as_ref().map_err(Clone::clone)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(Error::NoCertificate { path: path.into(), found: found(content) }),
        Ok(chain) => Ok(chain),
        Err(error) => Err(Error::BadCertificate { path: path.into(), reason: pem_fault(&error) }),
    }
}

fn read_key(path: &Path, content: &Result<Content, Error>) -> Result<Arc<dyn rustls::sign::SigningKey>, Error> {
    let content = content.as_ref().map_err(Clone::clone)?;
    let has = |mark: &str| content.windows(mark.len()).any(|window| window == mark.as_bytes());
    // PKCS#8 (RFC 5958 §3) and the older form of OpenSSL (RFC 1421 §4.6.1.1).
    if has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED") {
        return Err(Error::EncryptedKey { path: path.into() });
    }
    let key = match PrivateKeyDer::from_pem_slice(content) {
        Ok(key) => key,
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            return Err(Error::NoKey { path: path.into(), found: found(content) });
        }
        Err(error) => return Err(Error::BadKey { path: path.into(), reason: pem_fault(&error) }),
    };
    any_supported_type(&key).map_err(|error| Error::BadKey { path: path.into(), reason: error.to_string() })
}

/// What is wrong with a PEM block. The library's own words quote lines of the file, and the file may be a key.
fn pem_fault(error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error as Pem;
    match error {
        Pem::MissingSectionEnd { .. } => "the PEM block has no end; the file may be cut short",
        Pem::IllegalSectionStart { .. } => "the PEM block has a malformed first line",
        Pem::Base64Decode(_) => "the PEM block is not base64",
        _ => "the PEM block is malformed",
    }
    .into()
}

fn found(content: &[u8]) -> Found {
    match <(SectionKind, Vec<u8>)>::from_pem_slice(content) {
        Ok((SectionKind::Certificate, _)) => Found::Certificate,
        Ok((SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _)) => Found::Key,
        // A DER certificate or key is a SEQUENCE with a length of two bytes.
        _ if content.starts_with(&[0x30, 0x82]) || content.starts_with(&[0x30, 0x81]) => Found::Der,
        _ => Found::Nothing,
    }
}

/// What the certificate says of itself.
pub(super) fn facts(path: &Path, der: &CertificateDer<'_>) -> Result<Facts, Error> {
    let bad = |reason: String| Error::BadCertificate { path: path.into(), reason };
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| bad(error.to_string()))?;
    let names = match certificate.subject_alternative_name().map_err(|error| bad(error.to_string()))? {
        Some(extension) => extension.value.general_names.iter().filter_map(name).collect(),
        None => Vec::new(),
    };
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_secs(u64::try_from(time.timestamp()).unwrap_or(0));
    Ok(Facts {
        names,
        not_before: at(certificate.validity().not_before),
        not_after: at(certificate.validity().not_after),
        fingerprint: hex(digest(&SHA256, der).as_ref()),
    })
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or(v6).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

/// In the form of `openssl x509 -fingerprint -sha256`.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// Puts `content` at `folder/name` in one step that survives a loss of power: the old file or the new one is there, whole.
/// Only one process may do this at a time.
pub(super) fn write(folder: &Path, name: &str, content: &[u8], mode: u32) -> Result<(), Error> {
    let path = folder.join(name);
    let temporary = folder.join(format!(".{name}.new"));
    let put = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        // The umask may have taken from what was asked for.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()
    };
    put().map_err(|error| Error::Unwritable { path, reason: error.to_string() })
}
