//! The local authority: a CA and a certificate made in the data folder, for machines that have been given none.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::Loaded;
use super::error::{Error, Faults, Warning};
use super::files::{self, Facts, Pair};
use crate::clock::Timestamp;
use crate::random;

const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);
/// The longest that browsers accept (CA/Browser Forum Baseline Requirements §6.3.2).
const LEAF_LIFETIME: Duration = Duration::from_secs(397 * 86_400);
/// A leaf is made anew when it has no more than this left.
const RENEWAL: Duration = Duration::from_secs(30 * 86_400);
/// Validity begins this long ago, for clients whose clocks are behind.
const SLACK: Duration = Duration::from_secs(3600);

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const LEAF_CERTIFICATE: &str = "localhost.pem";
const LEAF_KEY: &str = "localhost.key";

/// The folder of the local authority.
#[derive(Debug)]
pub(super) struct Local {
    folder: PathBuf,
    names: Vec<String>,
}

struct Authority {
    pair: Pair,
    issuer: Issuer<'static, KeyPair>,
}

impl Local {
    /// The authority in `data_dir`, for a certificate of these names.
    pub fn new(data_dir: &Path, names: &[String]) -> Self {
        Self { folder: data_dir.join("tls"), names: names.to_vec() }
    }

    /// The certificate that clients have to trust.
    pub fn ca_certificate(&self) -> PathBuf {
        self.folder.join(CA_CERTIFICATE)
    }

    /// A digest of the files as they are.
    pub fn fingerprint(&self) -> [u8; 32] {
        let contents =
            [CA_CERTIFICATE, CA_KEY, LEAF_CERTIFICATE, LEAF_KEY].map(|name| files::read(&self.folder.join(name)));
        files::fingerprint(contents.iter().map(Result::as_ref))
    }

    /// The leaf, after making whatever is missing or due.
    pub fn leaf(&self, now: Timestamp) -> Result<Loaded, Faults> {
        // Another process may be about to make the same; whoever comes second finds it made.
        let _lock = self.lock()?;
        let authority = self.authority(now)?;
        let mut pair = match self.usable_leaf(&authority, now)? {
            Some(pair) => pair,
            None => self.make_leaf(&authority, now)?,
        };
        pair.warnings.extend(authority.pair.warnings);
        let last = pair.facts.not_after >= authority.pair.facts.not_after;
        let renew_at = (!last).then(|| pair.facts.not_after - RENEWAL);
        Ok(Loaded { pair, fingerprint: self.fingerprint(), renew_at })
    }

    fn lock(&self) -> Result<File, Error> {
        let unwritable =
            |path: &Path, error: std::io::Error| Error::Unwritable { path: path.into(), reason: error.to_string() };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|error| unwritable(&self.folder, error))?;
        let path = self.folder.join(".lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(|error| unwritable(&path, error))?;
        file.lock().map_err(|error| unwritable(&path, error))?;
        Ok(file)
    }

    fn authority(&self, now: Timestamp) -> Result<Authority, Faults> {
        let (certificate, key) = (self.folder.join(CA_CERTIFICATE), self.folder.join(CA_KEY));
        let leaf = self.folder.join(LEAF_CERTIFICATE);
        match (exists(&certificate), exists(&key)) {
            (true, true) => {}
            (true, false) => return Err(Error::Incomplete { missing: key, beside: certificate }.into()),
            // With a leaf beside it the authority was in use, and somebody may trust it. Without one, its making was
            // interrupted.
            (false, true) if exists(&leaf) => {
                return Err(Error::Incomplete { missing: certificate, beside: key }.into());
            }
            (false, _) => self.make_authority(now)?,
        }
        let wrap = |fault: Error| Error::Local { fault: Box::new(fault), authority: true };
        let pem = files::read(&key);
        let pair = files::pair((&certificate, &files::read(&certificate)), (&key, &pem), now)
            .map_err(|faults| Faults(faults.into_iter().map(wrap).collect()))?;
        let bad = |error: rcgen::Error| wrap(Error::BadKey { path: key.clone(), reason: error.to_string() });
        let text = Zeroizing::new(String::from_utf8_lossy(&pem.unwrap_or_default()).into_owned());
        let key = KeyPair::from_pem(&text).map_err(bad)?;
        let issuer = Issuer::from_ca_cert_der(&pair.certified.cert[0], key)
            .map_err(|error| wrap(Error::BadCertificate { path: certificate, reason: error.to_string() }))?;
        let mut authority = Authority { pair, issuer };
        // An authority has no host names, and its end is told of by name when it comes.
        authority.pair.warnings.retain(|warning| matches!(warning, Warning::KeyOpenToOthers { .. }));
        Ok(authority)
    }

    fn make_authority(&self, now: Timestamp) -> Result<(), Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("Keybearer local CA {}", random::base62(6)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date(now - SLACK)?;
        params.not_after = date(now - SLACK + AUTHORITY_LIFETIME)?;
        let key = new_key()?;
        let certificate = params.self_signed(&key).map_err(setup)?;
        // The certificate last: with it, the authority is whole.
        files::write(&self.folder, CA_KEY, Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)?;
        files::write(&self.folder, CA_CERTIFICATE, certificate.pem().as_bytes(), 0o644)
    }

    /// The leaf in the folder, unless it is missing or has to be made anew.
    fn usable_leaf(&self, authority: &Authority, now: Timestamp) -> Result<Option<Pair>, Faults> {
        let (certificate, key) = (self.folder.join(LEAF_CERTIFICATE), self.folder.join(LEAF_KEY));
        if !exists(&certificate) || !exists(&key) {
            return Ok(None);
        }
        let pair = match files::pair((&certificate, &files::read(&certificate)), (&key, &files::read(&key)), now) {
            Ok(pair) => pair,
            Err(faults) => {
                // A certificate beside another's key is what an interrupted renewal leaves behind.
                let passing = |fault: &Error| {
                    matches!(fault, Error::Mismatch { .. } | Error::Expired { .. } | Error::NotYetValid { .. })
                };
                let lasting: Vec<Error> = faults
                    .into_iter()
                    .filter(|fault| !passing(fault))
                    .map(|fault| Error::Local { fault: Box::new(fault), authority: false })
                    .collect();
                return if lasting.is_empty() { Ok(None) } else { Err(Faults(lasting)) };
            }
        };
        let good = is_issued_by(&pair, &authority.pair, now)
            && canonical(&pair.facts.names) == canonical(&self.names)
            && !is_due(&pair.facts, &authority.pair.facts, now);
        Ok(good.then_some(pair))
    }

    fn make_leaf(&self, authority: &Authority, now: Timestamp) -> Result<Pair, Faults> {
        let mut params = CertificateParams::new(self.names.clone()).map_err(setup)?;
        params.distinguished_name = common_name("Keybearer");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = date(now - SLACK)?;
        params.not_after = date((now - SLACK + LEAF_LIFETIME).min(authority.pair.facts.not_after))?;
        let key = new_key()?;
        let certificate = params.signed_by(&key, &authority.issuer).map_err(setup)?;
        files::write(&self.folder, LEAF_KEY, Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)?;
        files::write(&self.folder, LEAF_CERTIFICATE, certificate.pem().as_bytes(), 0o644)?;

        let (certificate, key) = (self.folder.join(LEAF_CERTIFICATE), self.folder.join(LEAF_KEY));
        let pair =
            files::pair((&certificate, &files::read(&certificate)), (&key, &files::read(&key)), now).map_err(Faults)?;
        if !is_issued_by(&pair, &authority.pair, now) {
            // Otherwise it would be made anew for ever.
            let reason = "it is not the certificate of an authority".into();
            let fault = Box::new(Error::BadCertificate { path: self.ca_certificate(), reason });
            return Err(Error::Local { fault, authority: true }.into());
        }
        Ok(pair)
    }
}

fn exists(path: &Path) -> bool {
    // What cannot be looked at exists as well, so that nothing is put in its place.
    fs::symlink_metadata(path).map_or_else(|error| error.kind() != std::io::ErrorKind::NotFound, |_| true)
}

fn is_issued_by(leaf: &Pair, authority: &Pair, now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    if roots.add(authority.certified.cert[0].clone()).is_err() {
        return false;
    }
    let leaf: &CertificateDer<'_> = &leaf.certified.cert[0];
    let at = UnixTime::since_unix_epoch(Duration::from_secs(now.secs()));
    let algorithms = default_provider().signature_verification_algorithms;
    ParsedCertificate::try_from(leaf)
        .is_ok_and(|leaf| verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], at, algorithms.all).is_ok())
}

/// Whether another leaf is due, and would live longer than this one.
fn is_due(leaf: &Facts, authority: &Facts, now: Timestamp) -> bool {
    now + RENEWAL >= leaf.not_after && leaf.not_after < authority.not_after
}

/// Names in one spelling and order, for comparison.
fn canonical(names: &[String]) -> BTreeSet<String> {
    let spell = |name: &String| match name.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => name.to_ascii_lowercase(),
    };
    names.iter().map(spell).collect()
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(setup)
}

fn date(at: Timestamp) -> Result<OffsetDateTime, Error> {
    let secs = i64::try_from(at.secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(secs).map_err(|error| Error::Setup { reason: error.to_string() })
}

fn setup(error: rcgen::Error) -> Error {
    Error::Setup { reason: error.to_string() }
}
