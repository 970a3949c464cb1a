//! Whether an installed document is to be believed now: by whom it was signed, and whether the clock is.
//!
//! A licence from a document takes what it grants from the document, and nothing from the row that it is kept in but that an
//! operator suspended or ended it. And no clock that was set back makes it last longer: the latest time that is believed to have
//! been is kept, and while the clock shows much less, no document grants anything.
//!
//! What a clock shows is believed once it has gone on from there for a while. One that is far ahead when a machine boots is put
//! right soon after, and must not shut a customer out until that time comes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Document, DocumentError, Licence, Settings, VendorPublicKey};
use crate::clock::Timestamp;

/// How far a clock may lie behind the latest time: clocks of several machines differ, and are put right. And how long one has to
/// go on before it is believed.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// How often the clock is to be looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Why a licence that was installed from a document grants nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distrust {
    /// The document cannot be believed.
    Document(DocumentError),
    /// The document is that of another licence or account.
    Elsewhere,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(error) => error.fmt(f),
            Self::Elsewhere => f.write_str("its document is that of another licence or account; install the right one"),
        }
    }
}

impl std::error::Error for Distrust {}

/// Believes documents, or does not; see the module.
#[derive(Debug, Default)]
pub struct Documents {
    keys: Vec<VendorPublicKey>,
    /// The latest time that is believed to have been, in milliseconds.
    latest: AtomicU64,
    /// What the clock has shown without a leap.
    run: Mutex<Option<Run>>,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    since: Timestamp,
    last: Timestamp,
}

impl Documents {
    /// Believes what these settings' vendors have signed.
    pub fn new(settings: &Settings) -> Self {
        Self { keys: settings.vendor_keys.clone(), latest: AtomicU64::default(), run: Mutex::default() }
    }

    /// Whether there is a vendor to believe.
    pub fn are_used(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Looks at a clock that shows `now`, as is to be done every [`LOOK_EVERY`]. When it has not leapt for [`TOLERANCE`] it is
    /// believed.
    pub fn look(&self, now: Timestamp) {
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        // One look may come late.
        let goes_on = |run: &Run| run.last <= now && now.since(run.last) <= 2 * LOOK_EVERY;
        let since = run.filter(goes_on).map_or(now, |run| run.since);
        *run = Some(Run { since, last: now });
        if now.since(since) >= TOLERANCE {
            self.learn(now);
        }
    }

    /// Takes note that it was `at` once, and returns the latest time.
    pub fn learn(&self, at: Timestamp) -> Timestamp {
        Timestamp::from_millis(self.latest.fetch_max(at.millis(), Ordering::AcqRel).max(at.millis()))
    }

    /// The latest time that is believed to have been.
    pub fn latest(&self) -> Timestamp {
        Timestamp::from_millis(self.latest.load(Ordering::Acquire))
    }

    /// Whether a clock that shows `now` was set back.
    pub fn is_set_back(&self, now: Timestamp) -> bool {
        now + TOLERANCE < self.latest()
    }

    /// Reads a document, as a compact JWS.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn verify(&self, compact: &str) -> Result<Document, DocumentError> {
        Document::verify(compact, &self.keys)
    }

    /// The licence as it stands: one that was granted here as it is, one from a document as that says.
    ///
    /// # Errors
    /// [`Distrust`]: it grants nothing.
    pub fn settled(&self, licence: Licence) -> Result<Licence, Distrust> {
        let Some(compact) = &licence.document else { return Ok(licence) };
        let document = self.verify(compact).map_err(Distrust::Document)?;
        if document.licence != licence.id || document.account != licence.account {
            return Err(Distrust::Elsewhere);
        }
        // The vendor's clock has shown this.
        self.learn(document.issued_at);
        let ends_at = match (document.ends_at, licence.ends_at) {
            (Some(said), Some(ended)) => Some(said.min(ended)),
            (said, ended) => said.or(ended),
        };
        let Document { groups, plan, seats, starts_at, quotas, .. } = document;
        Ok(Licence { groups, plan, seats, starts_at, ends_at, quotas, trial: false, ..licence })
    }

    /// The licences that are to be believed, as they stand. Each of the others has a line in the log.
    pub fn believed(&self, licences: Vec<Licence>) -> Vec<Licence> {
        let believed = |licence: Licence| {
            let (id, account) = (licence.id, licence.account.clone());
            let told = |why: &Distrust| {
                tracing::error!(licence.id = %id, account = %account, %why, "a licence from a document grants nothing");
            };
            self.settled(licence).inspect_err(told).ok()
        };
        licences.into_iter().filter_map(believed).collect()
    }
}

#[cfg(test)]
mod tests;
