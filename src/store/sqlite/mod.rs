//! The default backend: one SQLite file in the data folder, opened by the server and any number of CLI processes at once.
//!
//! Write-ahead log with `synchronous=FULL`: what was acknowledged survives a kill and a power cut. All writing goes through
//! one connection, and every write transaction begins `IMMEDIATE`, so that what it reads cannot change under it; readers
//! never wait for it. Record files hold the SQL of one record each; this file holds what they share.

mod accounts;
mod fault;
mod groups;
mod keys;
mod licences;
mod many;
mod notices;
mod open;
mod plans;
mod revocations;
mod row;
mod signing_keys;
#[cfg(test)]
mod tests;
mod usage;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteArguments, SqlitePoolOptions, SqliteRow};
use sqlx::{Connection, Row, Sqlite, SqlitePool};

use self::fault::fault;
use self::open::Setup;
use super::rules::Record;
use crate::accounts::AccountStore;
use crate::clock::Timestamp;
use crate::groups::GroupStore;
use crate::keys::KeyStore;
use crate::licences::LicenceStore;
use crate::notices::NoticeStore;
use crate::persist::{Error, Inserted, Result, Update, Updated};
use crate::plans::CountStore;
use crate::revocations::Change;
use crate::signing::SigningKeyStore;

/// Reads run beside one another and beside the writer; few are enough, since each takes some ten microseconds.
const READERS: u32 = 4;

/// How long a call waits for a connection of this process, before the busy time-out of the file begins.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

type Sql = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

fn sql(text: &'static str) -> Sql {
    sqlx::query(text)
}

/// A store in an SQLite file. Several may be open on one file, in this process and in others.
#[derive(Debug)]
pub struct SqliteStore {
    path: Arc<Path>,
    writer: SqlitePool,
    readers: SqlitePool,
}

/// A record that can be read from a row.
trait Stored: Sized + Send {
    /// Reads the row whose primary key is `$1`.
    const FIND: &'static str;
    /// The record in a row.
    fn read(row: &SqliteRow) -> Result<Self>;
}

/// A record that an update may replace.
trait Replaced: Stored + Record {
    /// Writes every field that may change.
    fn replace(&self) -> Sql;
}

impl SqliteStore {
    /// Opens the database, and creates it (mode 0600) or brings its schema up to date first. The folder must exist.
    ///
    /// # Errors
    /// A file that is no database, another program's, damaged, of a later version or not ours to read and write is refused
    /// and left as it is.
    pub async fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, Setup::default()).await
    }

    async fn open_with(path: &Path, setup: Setup) -> Result<Self> {
        // Absolute, so that no name is taken for a URI or `:memory:`, and a change of folder does not matter.
        let path: Arc<Path> = match std::path::absolute(path) {
            Ok(path) => path.into(),
            Err(error) => return Err(Error::Unavailable(error.into())),
        };
        let first = open::open(&path, &setup).await?;
        let options = open::options(&path, &setup);
        let pool = |size| {
            SqlitePoolOptions::new()
                .max_connections(size)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let writer = pool(1).connect_lazy_with(options.clone());
        let readers = pool(READERS).connect_lazy_with(options.pragma("query_only", "ON"));
        // The first connection goes when another is there: the last one of all would take the log away as it closes.
        writer.acquire().await.map_err(|error| fault(&path, error))?;
        first.close().await.map_err(|error| fault(&path, error))?;
        Ok(Self { path, writer, readers })
    }

    /// Closes all connections. Calls that come later fail.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Looks the whole database over, and says every fault found; none is a healthy one.
    ///
    /// # Errors
    /// When it cannot be read at all. Damage is no error but a finding.
    pub async fn check(&self) -> Result<Vec<String>> {
        let mut findings = Vec::new();
        match self.rows(sql("PRAGMA quick_check")).await {
            Ok(rows) => {
                let said = rows.iter().filter_map(|row| row.try_get::<String, _>(0).ok());
                findings.extend(said.filter(|text| text != "ok"));
            }
            Err(error) => findings.push(finding(error)?),
        }
        match self.rows(sql("PRAGMA foreign_key_check")).await {
            Ok(rows) => findings.extend(rows.iter().map(|row| {
                let table = row.try_get::<String, _>("table").unwrap_or_default();
                let parent = row.try_get::<String, _>("parent").unwrap_or_default();
                format!("a row of {table} belongs to none of {parent}")
            })),
            Err(error) => findings.push(finding(error)?),
        }
        // What SQLite finds in order may still be no record of ours.
        let read = [
            self.accounts().await.err(),
            self.groups().await.err(),
            self.keys(None).await.err(),
            self.licences(None).await.err(),
            self.signing_keys().await.err(),
            self.notices(Timestamp::default()).await.err(),
            self.read_all_revocations().await.err(),
            self.read_all_usage_lines().await.err(),
            self.counts(Timestamp::default()).await.err(),
        ];
        for error in read.into_iter().flatten() {
            findings.push(finding(error)?);
        }
        Ok(findings)
    }

    async fn row(&self, query: Sql) -> Result<Option<SqliteRow>> {
        query.fetch_optional(&self.readers).await.map_err(|error| fault(&self.path, error))
    }

    async fn rows(&self, query: Sql) -> Result<Vec<SqliteRow>> {
        query.fetch_all(&self.readers).await.map_err(|error| fault(&self.path, error))
    }

    async fn find<R: Stored>(&self, id: &str) -> Result<Option<R>> {
        self.row(sql(R::FIND).bind(id)).await?.as_ref().map(R::read).transpose()
    }

    async fn list<R: Stored>(&self, query: Sql) -> Result<Vec<R>> {
        self.rows(query).await?.iter().map(R::read).collect()
    }

    /// Runs one statement and tells of it, unless it concerned no row: then nothing happened, and the answer is `false`.
    async fn change_one(&self, query: Sql, change: &Change) -> Result<bool> {
        Ok(self.write().await?.insert(query, change).await? == Inserted::Done)
    }

    async fn update<R: Replaced>(
        &self,
        id: &str,
        change: &(dyn Fn(R) -> Update<R> + Send + Sync),
    ) -> Result<Updated<R>> {
        let mut write = self.write().await?;
        let Some(row) = write.row(sql(R::FIND).bind(id)).await? else {
            write.abandon().await?;
            return Ok(Updated::Missing);
        };
        let before = R::read(&row)?;
        let decided = change(before.clone());
        write.update(before, decided).await
    }

    /// Begins a write transaction. Waits for the writers before it, here and in other processes.
    async fn write(&self) -> Result<Write> {
        let conn = self.writer.acquire().await.map_err(|error| fault(&self.path, error))?;
        let mut write = Write { conn, open: true, path: Arc::clone(&self.path) };
        write.execute(sql("BEGIN IMMEDIATE")).await?;
        Ok(write)
    }
}

/// What `check` says of an error; one that is no damage stays an error.
fn finding(error: Error) -> Result<String> {
    match error {
        Error::Corrupt { detail } => Ok(detail),
        other => Err(other),
    }
}

/// A write transaction. One that is dropped before its end, after an error or because its caller went away, takes the
/// connection with it: SQLite may or may not have rolled back by itself, and closing settles it either way. That is why
/// sqlx's own transaction is not used here: it counts on its ROLLBACK to succeed.
struct Write {
    conn: PoolConnection<Sqlite>,
    open: bool,
    path: Arc<Path>,
}

impl Write {
    async fn execute(&mut self, query: Sql) -> Result<u64> {
        match query.execute(&mut *self.conn).await {
            Ok(done) => Ok(done.rows_affected()),
            Err(error) => Err(fault(&self.path, error)),
        }
    }

    async fn row(&mut self, query: Sql) -> Result<Option<SqliteRow>> {
        query.fetch_optional(&mut *self.conn).await.map_err(|error| fault(&self.path, error))
    }

    async fn rows(&mut self, query: Sql) -> Result<Vec<SqliteRow>> {
        query.fetch_all(&mut *self.conn).await.map_err(|error| fault(&self.path, error))
    }

    /// Runs one statement, tells of it and commits. A statement that concerned no row ends the transaction without a change.
    async fn insert(mut self, query: Sql, change: &Change) -> Result<Inserted> {
        if self.execute(query).await? == 0 {
            self.abandon().await?;
            return Ok(Inserted::Taken);
        }
        self.tell(change).await?;
        self.commit().await?;
        Ok(Inserted::Done)
    }

    /// Makes of the record what was decided, and commits.
    async fn update<R: Replaced>(mut self, before: R, decided: Update<R>) -> Result<Updated<R>> {
        let (after, cut) = match decided {
            Update::Keep => {
                self.abandon().await?;
                return Ok(Updated::Done(before));
            }
            Update::Write(after, cut) => (after.settled(&before), cut),
        };
        self.execute(after.replace()).await?;
        self.tell(&after.change()).await?;
        self.cut(&after.target(), cut).await?;
        self.commit().await?;
        Ok(Updated::Done(after))
    }

    /// Ends the transaction; from the return on, what it did is durable.
    async fn commit(mut self) -> Result<()> {
        self.execute(sql("COMMIT")).await?;
        self.open = false;
        Ok(())
    }

    /// Ends the transaction without a change.
    async fn abandon(mut self) -> Result<()> {
        self.execute(sql("ROLLBACK")).await?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if self.open {
            self.conn.close_on_drop();
        }
    }
}
