//! What only an SQLite file can get wrong: opening, refusing, locking, surviving.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};

use super::open::{MIGRATIONS, Setup};
use super::{SqliteStore, sql};
use crate::accounts::{Account, AccountStore};
use crate::clock::Timestamp;
use crate::credentials::PasswordHash;
use crate::groups::Group;
use crate::ids::{AccountName, KeyId};
use crate::keys::{Key, KeyStore};
use crate::persist::{Cut, Error, Update, Updated};
use crate::revocations::{Changes, RevocationStore, Target};
use crate::secret::Secret;
use crate::signing::{SigningKey, SigningKeyStore, SigningState};
use crate::store::conformance::Bench;
use crate::store::{MemoryStore, SharedStore};

mod files;
mod processes;
mod reference;
mod refusals;

async fn bench() -> Bench {
    let (folder, path) = place();
    let store = SqliteStore::open(&path).await.expect("a new store");
    let other = SqliteStore::open(&path).await.expect("the same store");
    Bench { store: Arc::new(store), other: Arc::new(other), folder: Some(folder) }
}

store_conformance!(sqlite, super::bench);

fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keybearer.db");
    (folder, path)
}

/// A connection of another program, which knows nothing of our rules.
async fn raw(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).foreign_keys(false);
    options.connect().await.expect("a plain connection")
}

async fn run(path: &Path, text: &'static str) {
    let mut conn = raw(path).await;
    sqlx::raw_sql(text).execute(&mut conn).await.expect(text);
    conn.close().await.expect("a closed connection");
}

fn account(name: &str, title: &str) -> Account {
    Account {
        name: name.parse().expect("an account name"),
        title: title.to_owned(),
        password: None,
        suspended: false,
        expires_at: None,
        created_at: Timestamp::from_secs(1),
    }
}

fn key(id: &str, account: &str) -> Key {
    let (id, account) = (id.parse().expect("a key id"), account.parse().expect("an account name"));
    Key::new(id, account, PasswordHash::from_phc("$argon2id$".to_owned()), Timestamp::from_secs(1))
}

/// Opens what must not be opened, and makes sure that nothing came of it.
async fn refused(path: &Path) -> Error {
    let before = fs::read(path).expect("the file");
    let error = SqliteStore::open(path).await.expect_err("a refusal");
    assert!(fs::read(path).expect("the file") == before, "left untouched");
    error
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

/// The database, its log and the log's index.
fn files(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|ending| PathBuf::from(format!("{}{ending}", path.display())))
}
