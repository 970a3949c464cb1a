//! TLS: the certificates and the configuration of the HTTPS listeners.
//!
//! An operator brings a certificate, or a local authority is made in the data folder so that HTTPS works from the first run.
//! [`Watched`] notices when either changes. Everything here is plain and blocking: it is short, and called seldom.

mod error;
mod files;
mod generate;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::ProducesTickets;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};

pub use error::{Error, Faults, Found, Warning};

use self::files::Pair;
use self::generate::Local;
use crate::clock::Timestamp;

/// Settings of `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The operator's certificate chain, PEM. Without one, a localhost certificate is made in the data folder.
    pub certificate: Option<PathBuf>,
    /// The key of that certificate, PEM.
    pub private_key: Option<PathBuf>,
    /// Names and addresses in the certificate that is made.
    pub names: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { certificate: None, private_key: None, names: vec!["localhost".into(), "127.0.0.1".into(), "::1".into()] }
    }
}

/// A certificate in force, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The DNS names and addresses it is for.
    pub names: Vec<String>,
    /// When it ends.
    pub not_after: Timestamp,
    /// Its SHA-256, in the form that `openssl x509 -fingerprint -sha256` prints.
    pub fingerprint: String,
    /// What is not as it should be.
    pub warnings: Vec<Warning>,
}

/// A certificate and key, ready to serve.
#[derive(Debug, Clone)]
pub struct Material {
    /// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1, with session tickets and without client certificates.
    pub config: Arc<ServerConfig>,
    /// What it serves.
    pub summary: Summary,
}

/// How a look at the files ended.
#[derive(Debug)]
pub enum Reload {
    /// Nothing to do: nothing changed, or what is wrong was reported before.
    Unchanged,
    /// A new certificate is to be served from now on.
    Changed(Arc<ServerConfig>, Summary),
    /// The files changed and cannot be used. What was in force stays in force.
    Faulty(Faults),
}

/// A usable pair, as it was found.
#[derive(Debug)]
struct Loaded {
    pair: Pair,
    /// Of the files it came from.
    fingerprint: [u8; 32],
    /// When it is time to make another; `None` when that is not ours to do.
    renew_at: Option<Timestamp>,
}

#[derive(Debug)]
enum Source {
    Operator { certificate: PathBuf, private_key: PathBuf },
    Local(Local),
}

impl Source {
    fn fingerprint(&self) -> [u8; 32] {
        match self {
            Self::Operator { certificate, private_key } => {
                let contents = [files::read(certificate), files::read(private_key)];
                files::fingerprint(contents.iter().map(Result::as_ref))
            }
            Self::Local(local) => local.fingerprint(),
        }
    }

    fn load(&self, now: Timestamp) -> Result<Loaded, Faults> {
        match self {
            Self::Operator { certificate, private_key } => {
                let (chain, key) = (files::read(certificate), files::read(private_key));
                let pair = files::pair((certificate, &chain), (private_key, &key), now).map_err(Faults)?;
                let fingerprint = files::fingerprint([chain.as_ref(), key.as_ref()]);
                Ok(Loaded { pair, fingerprint, renew_at: None })
            }
            Self::Local(local) => local.leaf(now),
        }
    }
}

/// The certificate in force, followed as its files change.
#[derive(Debug)]
pub struct Watched {
    source: Source,
    /// One for all certificates, so that a renewal does not cost every client its session.
    tickets: Arc<dyn ProducesTickets>,
    material: Material,
    fingerprint: [u8; 32],
    renew_at: Option<Timestamp>,
    /// What was reported last, so that a lasting fault is told once.
    reported: Option<Faults>,
}

impl Watched {
    /// Reads the operator's certificate and key, or, when none are named, those of the local authority in `data_dir`, which
    /// are made if need be.
    ///
    /// # Errors
    /// Everything that is wrong with the two files.
    pub fn open(settings: &Settings, data_dir: &Path, now: Timestamp) -> Result<Self, Faults> {
        let source = match (&settings.certificate, &settings.private_key) {
            (Some(certificate), Some(private_key)) => {
                Source::Operator { certificate: certificate.clone(), private_key: private_key.clone() }
            }
            (None, None) => Source::Local(Local::new(data_dir, &settings.names)),
            // The configuration refuses this; here it must not end in a certificate that nobody asked for.
            _ => {
                let reason = "tls.certificate and tls.private_key belong together".into();
                return Err(Error::Setup { reason }.into());
            }
        };
        let tickets = Ticketer::new().map_err(|error| Error::Setup { reason: error.to_string() })?;
        let Loaded { pair, fingerprint, renew_at } = source.load(now)?;
        let material = Material::new(pair, &tickets)?;
        Ok(Self { source, tickets, material, fingerprint, renew_at, reported: None })
    }

    /// What is in force.
    pub fn material(&self) -> &Material {
        &self.material
    }

    /// The certificate that clients have to trust, when it is that of the local authority.
    pub fn local_authority(&self) -> Option<PathBuf> {
        match &self.source {
            Source::Operator { .. } => None,
            Source::Local(local) => Some(local.ca_certificate()),
        }
    }

    /// Looks at the files again, and renews the certificate of the local authority when that is due. Cheap when nothing
    /// changed.
    pub fn reload(&mut self, now: Timestamp) -> Reload {
        let due = self.renew_at.is_some_and(|at| now >= at);
        if !due && self.source.fingerprint() == self.fingerprint {
            self.reported = None;
            return Reload::Unchanged;
        }
        let loaded = self.source.load(now).and_then(|Loaded { pair, fingerprint, renew_at }| {
            Ok((Material::new(pair, &self.tickets)?, fingerprint, renew_at))
        });
        match loaded {
            Ok((material, fingerprint, renew_at)) => {
                (self.fingerprint, self.renew_at, self.reported) = (fingerprint, renew_at, None);
                self.material = material.clone();
                Reload::Changed(material.config, material.summary)
            }
            Err(faults) if self.reported.as_ref() == Some(&faults) => Reload::Unchanged,
            Err(faults) => {
                self.reported = Some(faults.clone());
                Reload::Faulty(faults)
            }
        }
    }
}

impl Material {
    fn new(pair: Pair, tickets: &Arc<dyn ProducesTickets>) -> Result<Self, Error> {
        let Pair { certified, facts, warnings } = pair;
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| Error::Setup { reason: error.to_string() })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = tickets.clone();
        let summary =
            Summary { names: facts.names, not_after: facts.not_after, fingerprint: facts.fingerprint, warnings };
        Ok(Self { config: Arc::new(config), summary })
    }
}

#[cfg(test)]
mod tests;
