//! Opens the store that the configuration names. The one place of the command line that knows a concrete store.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::Failure;
use super::output::Output;
use crate::config::{Config, StoreKind};
use crate::persist;
use crate::store::{SharedStore, SqliteStore};

/// The database in a data folder.
pub(super) fn database(config: &Config) -> PathBuf {
    config.data_dir.join("keybearer.db")
}

/// The database that a command has opened, if it has.
#[derive(Debug, Default)]
pub(super) struct Opened(Option<Arc<SqliteStore>>);

impl Opened {
    /// Closes it. The last process to do so moves what is in the write-ahead log into the database: when nothing runs, the
    /// one file holds everything, and a copy of it is a backup.
    pub(super) async fn close(self) {
        if let Some(store) = self.0 {
            store.close().await;
        }
    }
}

/// Opens the store, and makes it where there is none.
pub(super) async fn open(config: &Config, out: &mut Output<'_>, opened: &mut Opened) -> Result<SharedStore, Failure> {
    if config.store == StoreKind::Memory {
        return Err(Failure::mendable(
            "store = \"memory\": records live in the gateway's process alone, so commands have nothing to work on",
        )
        .hint("set store = \"sqlite\" in the configuration"));
    }
    let store = open_database(config, out).await?;
    opened.0 = Some(Arc::clone(&store));
    Ok(store)
}

/// Opens the database in the data folder, and makes both where there are none.
pub(super) async fn open_database(config: &Config, out: &mut Output<'_>) -> Result<Arc<SqliteStore>, Failure> {
    let path = database(config);
    make_folder(&config.data_dir)?;
    // A mistyped --data-dir would else look like an installation that has lost everything.
    if !path.try_exists().unwrap_or(true) {
        out.note(&format!("{} is new", path.display()));
    }
    Ok(Arc::new(SqliteStore::open(&path).await?))
}

/// Keys and the database are for their owner alone.
fn make_folder(path: &Path) -> Result<(), Failure> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(persist::Error::Forbidden { path: path.to_owned(), source: error }.into())
        }
        Err(error) => Err(Failure::mendable(format!("the data folder {} could not be made: {error}", path.display()))
            .hint("name another one with --data-dir")),
    }
}

/// Opens an existing database and looks it over. It is not closed as by [`Opened::close`]: nothing moves in a database that
/// may be damaged.
pub(super) async fn open_checked(path: &Path) -> persist::Result<(SharedStore, Vec<String>)> {
    let store = SqliteStore::open(path).await?;
    let findings = store.check().await?;
    Ok((Arc::new(store), findings))
}
