//! What is refused, and what a fault is called.

use super::*;

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let (_folder, path) = place();
    let contents: [&[u8]; 5] = [b"x", b"xy", b"SQLite format 3\0 it says, and no more", &[0; 8192], &[0xa5; 100_000]];
    for content in contents {
        fs::write(&path, content).expect("a file");
        let error = refused(&path).await;
        assert!(matches!(&error, Error::NotADatabase { path: at } if *at == path), "{error:?}");
    }
    fs::remove_file(&path).expect("no file");
    fs::create_dir(&path).expect("a folder");
    assert!(matches!(SqliteStore::open(&path).await, Err(Error::NotADatabase { .. })));
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    for text in [
        "CREATE TABLE accounts (name TEXT)",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 1",
        "PRAGMA journal_mode = WAL; CREATE TABLE t (x); PRAGMA application_id = 1; PRAGMA user_version = 1",
    ] {
        let (_folder, path) = place();
        run(&path, text).await;
        let error = refused(&path).await;
        assert!(matches!(error, Error::NotADatabase { .. }), "{text}: {error:?}");
        let mode: String = {
            let mut conn = raw(&path).await;
            sql("PRAGMA journal_mode").fetch_one(&mut conn).await.expect("a mode").get(0)
        };
        assert_eq!(mode == "wal", text.contains("WAL"), "its journal stays as it was");
    }
}

#[tokio::test]
async fn a_later_schema_is_refused() {
    let (_folder, path) = place();
    SqliteStore::open(&path).await.expect("a store").close().await;
    run(&path, "PRAGMA user_version = 99").await;
    let known = i64::try_from(MIGRATIONS.len()).expect("a number");
    let error = refused(&path).await;
    assert!(matches!(error, Error::NewerSchema { found: 99, known: k } if k == known), "{error:?}");
    run(&path, "PRAGMA user_version = -1").await;
    assert!(matches!(refused(&path).await, Error::Corrupt { .. }));
}

#[tokio::test]
async fn damage_is_told_where_it_is_met() {
    let (_folder, path) = place();
    let store = SqliteStore::open(&path).await.expect("a store");
    for number in 0..200 {
        assert!(store.insert_account(&account(&format!("a{number:03}"), &"x".repeat(500))).await.expect("an insert"));
    }
    assert_eq!(store.check().await.expect("a check"), Vec::<String>::new());
    store.close().await;

    let healthy = fs::read(&path).expect("the file");
    let mut damaged = healthy.clone();
    let middle = damaged.len() / 2;
    damaged[middle..].fill(0xff);
    fs::write(&path, &damaged).expect("a file");
    let store = SqliteStore::open(&path).await.expect("its first page is whole");
    assert!(matches!(store.accounts().await, Err(Error::Corrupt { .. })));
    assert_ne!(store.check().await.expect("a check"), Vec::<String>::new());
    store.close().await;

    // The schema itself, behind a whole header.
    let mut damaged = healthy;
    damaged[100..4096].fill(0xff);
    fs::write(&path, &damaged).expect("a file");
    let error = refused(&path).await;
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");

    // A file that was cut short.
    let (_folder, path) = place();
    fs::write(&path, &damaged[..50]).expect("a file");
    assert!(matches!(refused(&path).await, Error::NotADatabase { .. } | Error::Corrupt { .. }));
}

#[tokio::test]
async fn what_no_record_can_be_is_told_with_table_and_id() {
    let (_folder, path) = place();
    let store = SqliteStore::open(&path).await.expect("a store");
    assert!(store.insert_account(&account("acme", "")).await.expect("an insert"));
    assert!(store.insert_key(&key("aaaaaaaaaaaa", "acme")).await.expect("an insert"));
    assert!(store.insert_key(&key("bbbbbbbbbbbb", "acme")).await.expect("an insert"));
    let id: KeyId = "bbbbbbbbbbbb".parse().expect("a key id");
    for (text, column) in [
        ("UPDATE keys SET state = 'frozen' WHERE id = 'bbbbbbbbbbbb'", "state"),
        ("UPDATE keys SET state = 'active', groups = 'Not A Group' WHERE id = 'bbbbbbbbbbbb'", "groups"),
        ("UPDATE keys SET groups = NULL, expires_at = -1 WHERE id = 'bbbbbbbbbbbb'", "expires_at"),
        ("UPDATE keys SET expires_at = NULL, label = CAST(x'ff' AS TEXT) WHERE id = 'bbbbbbbbbbbb'", "label"),
    ] {
        run(&path, text).await;
        let expected = format!("table keys, id \"bbbbbbbbbbbb\": {column}: ");
        let told = |error: Error| match error {
            Error::Corrupt { detail } => assert!(detail.starts_with(&expected), "{detail}"),
            other => panic!("{other:?}"),
        };
        told(store.key(&id).await.expect_err("no key"));
        told(store.keys(None).await.expect_err("no list"));
        told(store.update_key(&id, &|old| Update::Write(old, Cut::No)).await.expect_err("no update"));
        let findings = store.check().await.expect("a check");
        assert!(findings.iter().any(|finding| finding.starts_with(&expected)), "{findings:?}");
    }
    run(&path, "UPDATE keys SET label = '', account = 'nobody' WHERE id = 'bbbbbbbbbbbb'").await;
    assert_eq!(store.check().await.expect("a check"), ["a row of keys belongs to none of accounts"]);
    run(&path, "DELETE FROM keys WHERE id = 'bbbbbbbbbbbb'; UPDATE feed SET kind = 'gossip' WHERE version = 2").await;
    assert!(matches!(store.changes_since(0).await, Err(Error::Corrupt { .. })));
    assert_eq!(store.check().await.expect("a check").len(), 1);
    run(&path, "DELETE FROM feed_state").await;
    assert!(matches!(store.version().await, Err(Error::Corrupt { .. })));
    assert!(matches!(store.insert_account(&account("b", "")).await, Err(Error::Corrupt { .. })));
    assert_eq!(store.account(&"b".parse().expect("a name")).await.expect("a read"), None, "nothing was changed");
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let (folder, _) = place();
    let error = SqliteStore::open(&folder.path().join("no/such/keybearer.db")).await.expect_err("a refusal");
    let Error::Unavailable(source) = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("no/such/keybearer.db"), "{source}");
}

#[tokio::test]
async fn a_full_disk_is_told_and_got_over() {
    let (_folder, path) = place();
    let store = SqliteStore::open(&path).await.expect("a store");
    // As many pages as there are: the limit holds for this one connection.
    {
        let mut writer = store.writer.acquire().await.expect("the writer");
        sql("PRAGMA max_page_count = 1").fetch_one(&mut *writer).await.expect("a limit");
    }
    let mut acknowledged = 0;
    let error = loop {
        match store.insert_account(&account(&format!("a{acknowledged}"), &"x".repeat(3000))).await {
            Ok(inserted) => acknowledged += usize::from(inserted),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full(_)), "{error:?}");
    assert_eq!(store.accounts().await.expect("a list").len(), acknowledged, "all or nothing");
    assert_eq!(store.version().await.expect("a version"), acknowledged as u64);
    // There is room again.
    assert!(store.insert_account(&account("later", &"x".repeat(3000))).await.expect("an insert"));
    assert_eq!(store.check().await.expect("a check"), Vec::<String>::new());
}

#[tokio::test]
async fn a_lock_that_stays_is_unavailable_and_readers_do_not_mind() {
    let (_folder, path) = place();
    let setup = Setup { busy_timeout: Duration::from_millis(100), ..Setup::default() };
    let store = SqliteStore::open_with(&path, setup.clone()).await.expect("a store");
    let mut other = raw(&path).await;
    sql("BEGIN IMMEDIATE").execute(&mut other).await.expect("a lock");
    let error = store.insert_account(&account("acme", "")).await.expect_err("it is locked");
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert_eq!(store.accounts().await.expect("a list"), []);
    SqliteStore::open_with(&path, setup).await.expect("opening needs no lock").close().await;
    sql("ROLLBACK").execute(&mut other).await.expect("no lock");
    assert!(store.insert_account(&account("acme", "")).await.expect("an insert"));
}

#[tokio::test]
async fn after_close_calls_fail() {
    let (_folder, path) = place();
    let store = SqliteStore::open(&path).await.expect("a store");
    store.close().await;
    assert!(matches!(store.accounts().await, Err(Error::Unavailable(_))));
    assert!(matches!(store.insert_account(&account("acme", "")).await, Err(Error::Unavailable(_))));
    let [_, log, index] = files(&path);
    assert!(!log.exists() && !index.exists(), "the last to close leaves one file");
}
