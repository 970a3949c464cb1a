//! The files and the TLS settings of `https` targets: whom to trust, and the client certificate. Opens no connection.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::error::UpstreamError;
use super::settings::UpstreamSettings;
use crate::authorities;

/// A TLS client for each thing that may be agreed on (ALPN, RFC 7301).
pub(super) struct Tls {
    pub http1: TlsConnector,
    pub http2: TlsConnector,
    pub either: TlsConnector,
    /// What stands in for each target's own host.
    pub server_name: Option<ServerName<'static>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// The contents of the files that an upstream's settings name, wiped when dropped.
pub(super) struct Files {
    authorities: Option<Content>,
    certificate: Option<Content>,
    private_key: Option<Content>,
}

type Content = (PathBuf, Zeroizing<Vec<u8>>);

impl Files {
    /// Reads them all.
    pub fn read(settings: &UpstreamSettings) -> Result<Self, Vec<UpstreamError>> {
        let mut errors = Vec::new();
        let mut read = |path: &Option<PathBuf>| {
            let path = path.as_ref()?;
            match fs::read(path) {
                Ok(content) => Some((path.clone(), Zeroizing::new(content))),
                Err(error) => {
                    errors.push(fault(settings, Some(path), &unreadable(&error)));
                    None
                }
            }
        };
        let tls = &settings.tls;
        let (authorities, certificate, private_key) =
            (read(&tls.ca_file), read(&tls.certificate), read(&tls.private_key));
        if errors.is_empty() { Ok(Self { authorities, certificate, private_key }) } else { Err(errors) }
    }

    /// Differs when a file's content does, so that a renewed certificate is noticed though no setting has changed.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        for content in [&self.authorities, &self.certificate, &self.private_key] {
            let bytes = content.as_ref().map_or(&[][..], |(_, bytes)| bytes);
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        }
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// TLS as the settings and these files say; `None` when no target needs it.
    pub fn tls(
        &self,
        settings: &UpstreamSettings,
        system: &mut SystemRoots,
    ) -> Result<Option<Tls>, Vec<UpstreamError>> {
        let bad = |path: Option<&PathBuf>, problem: &str| vec![fault(settings, path, problem)];
        if !settings.targets.iter().any(|target| target.tls) {
            return Ok(None);
        }
        let roots = match &self.authorities {
            Some((path, content)) => {
                Arc::new(authorities::in_pem(content).map_err(|problem| bad(Some(path), &problem))?)
            }
            None => system.get().map_err(|problem| bad(None, &problem))?,
        };
        // The provider is named: nothing may depend on which one a process has made its default.
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(None, &format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(roots);
        let config = match (&self.certificate, &self.private_key) {
            (Some((path, chain)), Some((key_path, key))) => {
                let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
                    .collect::<Result<_, _>>()
                    .map_err(|_| bad(Some(path), "is malformed PEM; get the certificate anew"))?;
                if chain.is_empty() {
                    let problem = "has no certificate; it needs a block that begins with -----BEGIN CERTIFICATE-----";
                    return Err(bad(Some(path), problem));
                }
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
                    bad(Some(key_path), "has no usable private key; it needs one in PEM that is not encrypted")
                })?;
                config.with_client_auth_cert(chain, key).map_err(|error| {
                    bad(Some(key_path), &format!("does not fit {}, or cannot be used: {error}", path.display()))
                })?
            }
            (None, None) => config.with_no_client_auth(),
            _ => return Err(bad(None, "tls.certificate and tls.private_key need each other; give both, or neither")),
        };
        let agreeing_on = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        let server_name = settings.tls.server_name.as_ref().map(|name| {
            ServerName::try_from(name.clone())
                .map_err(|_| bad(None, &format!("tls.server_name \"{name}\" is neither a host name nor an address")))
        });
        Ok(Some(Tls {
            http1: agreeing_on(&[b"http/1.1"]),
            http2: agreeing_on(&[b"h2"]),
            either: agreeing_on(&[b"h2", b"http/1.1"]),
            server_name: server_name.transpose()?,
        }))
    }
}

/// The system's authorities: read once for all upstreams, and only if one needs them.
#[derive(Debug, Default)]
pub(super) struct SystemRoots(Option<Arc<RootCertStore>>);

impl SystemRoots {
    fn get(&mut self) -> Result<Arc<RootCertStore>, String> {
        if let Some(roots) = &self.0 {
            return Ok(Arc::clone(roots));
        }
        let roots = authorities::of_system("tls.ca_file")?;
        Ok(Arc::clone(self.0.insert(Arc::new(roots))))
    }
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist; correct the path, or put the file there".into(),
        _ => format!("cannot be read: {error}; let the user that runs keybearer read it"),
    }
}

fn fault(settings: &UpstreamSettings, path: Option<&PathBuf>, problem: &str) -> UpstreamError {
    UpstreamError {
        upstream: settings.id.clone(),
        path: path.map(|path| Path::to_path_buf(path)),
        problem: problem.to_owned(),
    }
}
