//! The certificate in force, and its files: loaded at the start, looked at every two seconds, replaced without a restart.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;

use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::tls::{self, Reload, Watched};

/// How often certificate files are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(2);

/// The certificate in force and its files.
pub struct Certificates {
    watched: Mutex<Watched>,
    serving: RustlsConfig,
    not_after: AtomicU64,
}

impl Certificates {
    /// Loads them, or makes those of the local authority.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub async fn open(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, tls::Faults> {
        let (settings, data_dir, now) = (config.tls.clone(), config.data_dir.clone(), clock.now());
        let opened = tokio::task::spawn_blocking(move || Watched::open(&settings, &data_dir, now)).await;
        let watched = match opened {
            Ok(watched) => watched?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let material = watched.material();
        log_certificate("certificate loaded", &material.summary);
        Ok(Self {
            serving: RustlsConfig::from_config(Arc::clone(&material.config)),
            not_after: AtomicU64::new(material.summary.not_after.secs()),
            watched: Mutex::new(watched),
        })
    }

    /// What listeners serve: the certificate in force at the moment of each handshake.
    pub fn serving(&self) -> &RustlsConfig {
        &self.serving
    }

    /// When the certificate in force ends.
    pub fn not_after(&self) -> Timestamp {
        Timestamp::from_secs(self.not_after.load(Ordering::Relaxed))
    }

    /// The certificate that clients have to trust, when it is that of the local authority.
    pub fn local_authority(&self) -> Option<PathBuf> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).local_authority()
    }

    /// Looks at the files, and serves what changed.
    pub async fn look(self: Arc<Self>, clock: &Arc<dyn Clock>) {
        let now = clock.now();
        let looked = tokio::task::spawn_blocking(move || {
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            match watched.reload(now) {
                Reload::Unchanged => {}
                Reload::Changed(config, summary) => {
                    self.serving.reload_from_config(config);
                    self.not_after.store(summary.not_after.secs(), Ordering::Relaxed);
                    log_certificate("certificate replaced", &summary);
                }
                Reload::Faulty(faults) => {
                    tracing::error!("changed certificate files cannot be used; the old certificate stays: {faults}");
                }
            }
        });
        if let Err(error) = looked.await {
            tracing::error!(error = %error, "certificate files could not be looked at");
        }
    }

    /// Looks at the files for ever.
    pub async fn keep_fresh(self: Arc<Self>, clock: Arc<dyn Clock>) {
        loop {
            clock.sleep_until(clock.now() + LOOK_AT_FILES).await;
            Arc::clone(&self).look(&clock).await;
        }
    }
}

fn log_certificate(what: &str, summary: &tls::Summary) {
    tracing::info!(
        names = summary.names.join(" "),
        not_after = %summary.not_after,
        fingerprint = summary.fingerprint,
        "{what}"
    );
    for warning in &summary.warnings {
        tracing::warn!("certificate: {warning}");
    }
}
