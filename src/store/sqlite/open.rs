//! Opening the file: created for its owner alone, known for ours before anything is written, brought up to date by one
//! process while the others wait.
//!
//! SQLite holds POSIX locks, which a process loses on a file as soon as it closes *any* descriptor of it. So nothing here
//! opens a database that may already be in use, not even to look at its first bytes: only SQLite does.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::Access;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::time::Instant;

use super::fault::{fault, io_fault, is_busy};
use super::sql;
use crate::persist::{Error, Result};

/// "KEYB". Tells our databases from those of other programs.
const APPLICATION_ID: i64 = 0x4B45_5942;

/// Schema changes in order; each one ends by setting `user_version` to its number.
///
/// Not `sqlx::migrate!`: on SQLite it takes no lock, so that two processes on a new file get in each other's way.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_records.sql"),
    include_str!("../../../migrations/sqlite/0002_rotation.sql"),
    include_str!("../../../migrations/sqlite/0003_licences.sql"),
    include_str!("../../../migrations/sqlite/0004_usage.sql"),
    include_str!("../../../migrations/sqlite/0005_keys.sql"),
    include_str!("../../../migrations/sqlite/0006_plans.sql"),
];

const OWNER_ONLY: u32 = 0o600;

/// What a test may want otherwise.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// How long to wait for a lock that another process holds.
    pub(super) busy_timeout: Duration,
    /// The schema this program knows.
    pub(super) migrations: &'static [&'static str],
}

impl Default for Setup {
    fn default() -> Self {
        Self { busy_timeout: Duration::from_secs(5), migrations: MIGRATIONS }
    }
}

impl Setup {
    fn known(&self) -> i64 {
        i64::try_from(self.migrations.len()).unwrap_or(i64::MAX)
    }
}

/// How every connection is made.
pub(super) fn options(path: &Path, setup: &Setup) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(setup.busy_timeout)
        .foreign_keys(true)
        .synchronous(SqliteSynchronous::Full)
        // On macOS fsync alone does not reach the platter; elsewhere these change nothing.
        .pragma("fullfsync", "ON")
        .pragma("checkpoint_fullfsync", "ON")
        // A retired signing key or a replaced hash is not left behind in free pages.
        .pragma("secure_delete", "ON")
        // Damage is found where it is read, and a schema that someone tampered with runs nothing.
        .pragma("cell_size_check", "ON")
        .pragma("trusted_schema", "OFF")
}

/// A connection to the database at `path`, which then has the schema we know and a write-ahead log.
pub(super) async fn open(path: &Path, setup: &Setup) -> Result<SqliteConnection> {
    reach(path)?;
    // The switch to a write-ahead log does not wait for other connections by itself.
    let give_up = Instant::now() + setup.busy_timeout;
    let mut pause = Duration::from_millis(5);
    loop {
        match attempt(path, setup).await {
            Err(Attempt::Busy(error)) if Instant::now() + pause > give_up => return Err(fault(path, error)),
            Err(Attempt::Busy(_)) => tokio::time::sleep(pause).await,
            Err(Attempt::Refused(error)) => return Err(error),
            Ok(conn) => return Ok(conn),
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

enum Attempt {
    Busy(sqlx::Error),
    Refused(Error),
}

async fn attempt(path: &Path, setup: &Setup) -> std::result::Result<SqliteConnection, Attempt> {
    let failed = |error: sqlx::Error| match is_busy(&error) {
        true => Attempt::Busy(error),
        false => Attempt::Refused(fault(path, error)),
    };
    let mut conn = options(path, setup).connect().await.map_err(failed)?;
    let known = setup.known();
    let found = identify(&mut conn).await.map_err(failed)?;
    if found.version(path, known).map_err(Attempt::Refused)? < known {
        sql("BEGIN IMMEDIATE").execute(&mut conn).await.map_err(failed)?;
        // Another process may have done it while we waited. An early return closes the connection, which rolls back.
        let found = identify(&mut conn).await.map_err(failed)?;
        let version = found.version(path, known).map_err(Attempt::Refused)?;
        let done = usize::try_from(version).unwrap_or_default();
        for migration in setup.migrations.iter().skip(done) {
            sqlx::raw_sql(*migration).execute(&mut conn).await.map_err(failed)?;
        }
        sql("COMMIT").execute(&mut conn).await.map_err(failed)?;
    }
    keep_private(path).map_err(Attempt::Refused)?;
    let mode = sql("PRAGMA journal_mode = WAL").fetch_one(&mut conn).await.map_err(failed)?;
    match mode.try_get::<String, _>(0).map_err(failed)? {
        wal if wal == "wal" => Ok(conn),
        mode => {
            let _ = conn.close().await;
            let text = format!(
                "{} allows no write-ahead log (its journal is {mode}): keep it on a local disk",
                path.display()
            );
            Err(Attempt::Refused(Error::Unavailable(text.into())))
        }
    }
}

/// What a database says of itself.
struct Identity {
    application: i64,
    version: i64,
    objects: i64,
}

async fn identify(conn: &mut SqliteConnection) -> sqlx::Result<Identity> {
    // One statement, so that the three belong together.
    let row = sql("SELECT application_id, user_version, (SELECT COUNT(*) FROM sqlite_schema) \
                   FROM pragma_application_id, pragma_user_version")
    .fetch_one(conn)
    .await?;
    Ok(Identity { application: row.try_get(0)?, version: row.try_get(1)?, objects: row.try_get(2)? })
}

impl Identity {
    /// The schema's version, 0 for an empty database; refused when it is not ours to write to.
    fn version(&self, path: &Path, known: i64) -> Result<i64> {
        match (self.application, self.version) {
            (APPLICATION_ID, version) if version > known => Err(Error::NewerSchema { found: version, known }),
            (APPLICATION_ID, version) if version > 0 => Ok(version),
            (APPLICATION_ID, version) => Err(Error::Corrupt { detail: format!("its schema version is {version}") }),
            (0, 0) if self.objects == 0 => Ok(0),
            _ => Err(Error::NotADatabase { path: path.to_owned() }),
        }
    }
}

/// Makes sure that there is a file which we may read and write, in a folder where SQLite may put its log.
fn reach(path: &Path) -> Result<()> {
    // Creating is the one moment when we hold a descriptor of the file ourselves; see the module.
    static CREATING: Mutex<()> = Mutex::new(());
    let folder = path.parent().unwrap_or(path);
    {
        let _creating = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::metadata(path) {
            // SQLite takes a file of one byte for an empty one.
            Ok(found) if found.is_file() && found.len() != 1 => {}
            Ok(_) => return Err(Error::NotADatabase { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, folder)?,
            Err(error) => return Err(io_fault(path, error)),
        }
    }
    let may = |what: &Path, access| rustix::fs::access(what, access).map_err(|error| io_fault(what, error.into()));
    may(path, Access::READ_OK | Access::WRITE_OK)?;
    may(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
}

fn create(path: &Path, folder: &Path) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(path) {
        Ok(file) => {
            // A umask may have taken away the owner's own bits.
            file.set_permissions(fs::Permissions::from_mode(OWNER_ONLY)).map_err(|error| io_fault(path, error))?;
            drop(file);
            // The name has to survive a power cut as well as the content.
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| io_fault(folder, error))
        }
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io_fault(path, error)),
    }
}

/// Takes away what others may do with the files: a restored backup often comes with a wider mode, and private keys lie in
/// them. New logs get the mode of the database from SQLite.
fn keep_private(path: &Path) -> Result<()> {
    let beside = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    for file in [path.to_owned(), beside("-wal"), beside("-shm")] {
        let tightened = match fs::metadata(&file) {
            Ok(found) if found.permissions().mode() & 0o777 == OWNER_ONLY => Ok(()),
            Ok(_) => fs::set_permissions(&file, fs::Permissions::from_mode(OWNER_ONLY)),
            Err(error) => Err(error),
        };
        match tightened {
            // The logs come and go.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(|error| io_fault(&file, error))?,
        }
    }
    Ok(())
}
