//! Words that every store and every room share: what can go wrong with a store, and what an atomic update is.

use std::path::PathBuf;

use crate::clock::Timestamp;

/// Why a store could not do what it was asked. The text is for operators; no door shows it to a client.
#[derive(Debug)]
pub enum Error {
    /// The store cannot be reached, or is busy for longer than its time limit. Trying again may help.
    Unavailable(Source),
    /// Nothing more can be written: the disk or a quota is full.
    Full(Source),
    /// The file is no database of ours.
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The database is damaged.
    Corrupt {
        /// What was found.
        detail: String,
    },
    /// The database was written by a later version of this program.
    NewerSchema {
        /// Its schema version.
        found: i64,
        /// The latest one this program knows.
        known: i64,
    },
    /// The folder or file may not be read or written by this user.
    Forbidden {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

type Source = Box<dyn std::error::Error + Send + Sync>;

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unavailable(_) => write!(f, "the store cannot be reached now"),
            Self::Full(_) => {
                write!(
                    f,
                    "the store cannot write: the disk is full; free some space and try again (nothing was changed)"
                )
            }
            Self::NotADatabase { path } => write!(
                f,
                "{} is not a keybearer database; move it away to begin anew, or restore a backup (it was left untouched)",
                path.display()
            ),
            Self::Corrupt { detail } => {
                write!(f, "the database is damaged ({detail}); restore a backup (it was left untouched)")
            }
            Self::NewerSchema { found, known } => write!(
                f,
                "the database has schema {found}, this program knows up to {known}; run the newer keybearer, or restore a \
                 backup made before the upgrade (it was left untouched)"
            ),
            Self::Forbidden { path, .. } => {
                write!(f, "{} may not be read and written by this user; check owner and mode", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unavailable(source) | Self::Full(source) => Some(source.as_ref()),
            Self::Forbidden { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// What a store call gives back.
pub type Result<T> = std::result::Result<T, Error>;

/// Whether a change of a record also ends the tokens below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Live tokens stay.
    No,
    /// Tokens issued before now are revoked, in the same transaction as the change.
    Now(Timestamp),
    /// Every token of this record is revoked for good.
    Forever(Timestamp),
    /// Tokens issued before an instant of the past are revoked.
    Before {
        /// That instant; a token of its second may be older, and is revoked as well.
        before: Timestamp,
        /// When it is decided.
        now: Timestamp,
    },
}

/// What an atomic update makes of the record it was shown.
#[derive(Debug)]
pub enum Update<T> {
    /// The record stays as it was.
    Keep,
    /// The record is replaced, and its tokens are cut or not.
    Write(T, Cut),
}

/// How an update ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Updated<T> {
    /// There is no such record.
    Missing,
    /// The record as it now stands.
    Done(T),
}

/// How an insertion ended that depended on what else there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is there.
    Done,
    /// The id is taken; nothing changed.
    Taken,
    /// What else there is does not allow it; nothing changed.
    Refused,
}
