//! What SQLite's result codes mean to an operator. See <https://www.sqlite.org/rescode.html>.

use std::io;
use std::path::Path;

use crate::persist::Error;

// Primary codes are the low byte of an extended one.
const PERM: i32 = 3;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const AUTH: i32 = 23;
const NOTADB: i32 = 26;
const READONLY_DBMOVED: i32 = 1032;
const IOERR_SHORT_READ: i32 = 522;
const IOERR_DATA: i32 = 8202;
const IOERR_CORRUPTFS: i32 = 8458;

/// With less room than this, a failed write is put down to a full disk: SQLite says so itself only where the system said
/// ENOSPC to a plain write, and not where the shared-memory file could not grow.
const NO_ROOM: u64 = 64 * 1024;

fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse().ok())
}

/// Whether another connection was in the way, so that the same attempt may succeed a moment later.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(code & 0xff, BUSY | LOCKED))
}

/// The store's word for what happened to the database at `path`.
pub(super) fn fault(path: &Path, error: sqlx::Error) -> Error {
    if let sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) = error {
        return Error::Corrupt { detail: error.to_string() };
    }
    let Some(code) = code(&error) else { return Error::Unavailable(error.into()) };
    match (code, code & 0xff) {
        (IOERR_SHORT_READ | IOERR_DATA | IOERR_CORRUPTFS, _) | (_, CORRUPT) => {
            Error::Corrupt { detail: error.to_string() }
        }
        (_, NOTADB) => Error::NotADatabase { path: path.to_owned() },
        (_, FULL) => Error::Full(error.into()),
        (_, IOERR) if !has_room(path) => Error::Full(error.into()),
        (READONLY_DBMOVED, _) => Error::Unavailable(error.into()),
        (_, PERM | READONLY | AUTH) => {
            Error::Forbidden { path: path.to_owned(), source: io::Error::new(io::ErrorKind::PermissionDenied, error) }
        }
        _ => Error::Unavailable(error.into()),
    }
}

fn has_room(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(path);
    rustix::fs::statvfs(folder).map_or(true, |disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= NO_ROOM)
}

/// The store's word for what the file system said of `path`.
pub(super) fn io_fault(path: &Path, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Error::Forbidden { path: path.to_owned(), source }
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full(source.into()),
        _ => Error::Unavailable(format!("{}: {source}", path.display()).into()),
    }
}
