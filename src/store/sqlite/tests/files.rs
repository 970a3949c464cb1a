//! The file through restarts, upgrades, and callers that go away.

use sqlx::AssertSqlSafe;

use super::super::keys::TO_FINISH;
use super::super::usage::{OLDEST, question};
use super::*;
use crate::usage::{By, Filter, Hour, Range};

#[tokio::test]
async fn every_connection_is_set_up_to_lose_nothing() {
    let (_folder, path) = place();
    let store = SqliteStore::open(&path).await.expect("a store");
    for (pool, query_only) in [(&store.writer, 0), (&store.readers, 1)] {
        let mut conn = pool.acquire().await.expect("a connection");
        for (pragma, expected) in [
            ("PRAGMA synchronous", 2),
            ("PRAGMA foreign_keys", 1),
            ("PRAGMA busy_timeout", 5000),
            ("PRAGMA secure_delete", 1),
            ("PRAGMA trusted_schema", 0),
            ("PRAGMA query_only", query_only),
        ] {
            let value: i64 = sql(pragma).fetch_one(&mut *conn).await.expect(pragma).get(0);
            assert_eq!(value, expected, "{pragma}");
        }
        let mode: String = sql("PRAGMA journal_mode").fetch_one(&mut *conn).await.expect("a mode").get(0);
        assert_eq!(mode, "wal");
    }
    assert_eq!(store.writer.options().get_max_connections(), 1);
}

#[tokio::test]
async fn signing_keys_from_before_rotation_are_kept_for_the_longest_token_there_could_be() {
    let (_folder, path) = place();
    let before = Setup { migrations: &MIGRATIONS[..1], ..Setup::default() };
    SqliteStore::open_with(&path, before).await.expect("a store").close().await;
    run(&path, "INSERT INTO signing_keys VALUES ('kid', 'RS256', x'00', 'active', 1000, 1000, NULL)").await;
    let store = SqliteStore::open(&path).await.expect("the store, brought up to date");
    let keys = store.signing_keys().await.expect("a list");
    assert_eq!((keys[0].sealed_by.as_deref(), keys[0].private.expose().as_slice()), (None, &[0][..]));
    assert!(keys[0].longest_token >= crate::revocations::LONGEST_TOKEN + Duration::from_secs(300));
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let (_folder, path) = place();
    let store = SqliteStore::open(&path).await.expect("a store");
    let signing = SigningKey {
        kid: "kid".to_owned(),
        algorithm: "RS256".to_owned(),
        private: Secret::new(b"a private key".to_vec()),
        sealed_by: None,
        state: SigningState::Active,
        created_at: Timestamp::from_secs(1),
        activates_at: Timestamp::from_secs(2),
        longest_token: Duration::from_secs(3600),
        gone_at: None,
    };
    assert!(store.insert_account(&account("acme", "title")).await.expect("an insert"));
    store.update_signing_keys(&|_| Update::Write(vec![signing.clone()], Cut::No)).await.expect("an update");
    let revocation = store.revoke(&Target::All, Timestamp::from_secs(5), false).await.expect("a revocation");
    let feed = store.changes_since(0).await.expect("the feed");
    store.close().await;

    let store = SqliteStore::open(&path).await.expect("the store again");
    assert_eq!(store.accounts().await.expect("a list"), [account("acme", "title")]);
    let keys = store.signing_keys().await.expect("a list");
    assert_eq!((keys.len(), &keys[0].private), (1, &signing.private));
    assert_eq!(store.revocations(Timestamp::from_secs(5)).await.expect("a list"), [revocation]);
    assert_eq!(store.changes_since(0).await.expect("the feed"), feed);

    // A key that is gone has left no trace once the log is folded in.
    store.update_signing_keys(&|_| Update::Write(vec![], Cut::No)).await.expect("an update");
    store.close().await;
    let bytes = fs::read(&path).expect("the file");
    assert!(!bytes.windows(13).any(|window| window == b"a private key"));
}

#[tokio::test]
async fn records_are_found_by_their_key_without_a_scan() {
    let (_folder, path) = place();
    let store = SqliteStore::open(&path).await.expect("a store");
    let plans = [
        sql("EXPLAIN QUERY PLAN SELECT id, hash FROM keys WHERE id = $1"),
        sql("EXPLAIN QUERY PLAN SELECT name, password FROM accounts WHERE name = $1"),
        sql("EXPLAIN QUERY PLAN SELECT id, plan FROM licences WHERE account = $1 ORDER BY account, id"),
        sql("EXPLAIN QUERY PLAN SELECT id, label FROM keys WHERE account = $1 ORDER BY account, id"),
        sql("EXPLAIN QUERY PLAN SELECT cutoff FROM revocations WHERE target = $1 AND name = $1"),
        // What every gateway asks again and again, however many keys there are.
        sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {TO_FINISH}"))),
    ];
    for plan in plans {
        for row in store.rows(plan.bind("x")).await.expect("a plan") {
            let step: String = row.get("detail");
            assert!(step.starts_with("SEARCH ") || step == "USE TEMP B-TREE FOR ORDER BY", "{step}");
        }
    }
}

/// The usage of one account costs what it has used, and not what everybody has.
#[tokio::test]
async fn usage_of_somebody_is_found_without_a_scan() {
    let (_folder, path) = place();
    let store = SqliteStore::open(&path).await.expect("a store");
    // The first entry of the table, which is in the order of hours, and not the index of another order.
    let oldest = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {OLDEST}")));
    let steps = store.rows(oldest).await.expect("a plan");
    assert_eq!(steps.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>(), ["SCAN usage"]);
    let range = Range { since: Hour(0), until: Hour(1) };
    let account = Filter { account: Some("acme".parse().expect("a name")), ..Filter::all(range) };
    for (filter, steps) in [
        (
            account,
            ["SEARCH usage_lines USING COVERING INDEX", "SEARCH usage USING INDEX usage_by_line (line=? AND hour>?"],
        ),
        (
            Filter::all(range),
            ["SEARCH usage USING PRIMARY KEY (hour>? AND hour<?)", "SEARCH usage_lines USING INTEGER PRIMARY"],
        ),
    ] {
        for by in By::ALL {
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", question(&filter, by))));
            let rows = store.rows(plan.bind("x")).await.expect("a plan");
            let found: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            for (step, expected) in found.iter().zip(steps) {
                assert!(step.starts_with(expected), "{by:?}: {found:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_a_new_file_at_once_is_safe() {
    for _ in 0..5 {
        let (_folder, path) = place();
        let openers: Vec<_> = (0..8)
            .map(|number| {
                let path = path.clone();
                tokio::spawn(async move {
                    let store = SqliteStore::open(&path).await.expect("a store");
                    assert!(store.insert_account(&account(&format!("a{number}"), "")).await.expect("an insert"));
                    store
                })
            })
            .collect();
        let mut stores = Vec::new();
        for opener in openers {
            stores.push(opener.await.expect("an opener"));
        }
        for store in &stores {
            assert_eq!(store.accounts().await.expect("a list").len(), 8);
            assert_eq!(store.version().await.expect("a version"), 8);
        }
        assert_eq!(stores[0].check().await.expect("a check"), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_or_panics_leaves_the_store_whole() {
    let (_folder, path) = place();
    let store = Arc::new(SqliteStore::open(&path).await.expect("a store"));
    let name: AccountName = "acme".parse().expect("a name");
    assert!(store.insert_account(&account("acme", "0")).await.expect("an insert"));
    let add = |old: Account| {
        let count: u32 = old.title.parse().expect("a number");
        Update::Write(Account { title: (count + 1).to_string(), ..old }, Cut::Now(Timestamp::from_secs(9)))
    };
    let mut done = 0;
    for micros in (0..2000).step_by(50) {
        let update = store.update_account(&name, &add);
        done += u32::from(tokio::time::timeout(Duration::from_micros(micros), update).await.is_ok());
    }
    let panicking = Arc::clone(&store);
    let panicked = tokio::spawn(async move {
        let name: AccountName = "acme".parse().expect("a name");
        let _ = panicking.update_account(&name, &|_| panic!("the caller's fault")).await;
    });
    assert!(panicked.await.is_err());

    let Updated::Done(end) = store.update_account(&name, &add).await.expect("an update") else { panic!("it is gone") };
    let count: u32 = end.title.parse().expect("a number");
    assert!(count > done, "{count} updates, {done} of them acknowledged");
    // Each update told of the record and of the cut, whole or not at all.
    let Changes::List(list, _) = store.changes_since(1).await.expect("the feed") else { panic!("lost") };
    assert_eq!(list.len(), 2 * count as usize);
}

#[tokio::test]
async fn an_older_schema_is_brought_up_to_date_and_a_failed_change_leaves_it() {
    const SECOND: &str = "ALTER TABLE groups ADD COLUMN colour TEXT; PRAGMA user_version = 2";
    const FAULTY: &str = "ALTER TABLE groups ADD COLUMN shape TEXT; PRAGMA user_version = 3; SELECT no_such_thing";
    static UP_TO_TWO: &[&str] = &[MIGRATIONS[0], SECOND];
    static UP_TO_THREE: &[&str] = &[MIGRATIONS[0], SECOND, FAULTY];
    let (_folder, path) = place();
    let first = Setup { migrations: &MIGRATIONS[..1], ..Setup::default() };
    let second = Setup { migrations: UP_TO_TWO, ..Setup::default() };
    let third = Setup { migrations: UP_TO_THREE, ..Setup::default() };

    let store = SqliteStore::open_with(&path, first.clone()).await.expect("a store");
    assert!(store.insert_account(&account("acme", "")).await.expect("an insert"));
    store.close().await;
    assert!(SqliteStore::open_with(&path, third).await.is_err());
    let store = SqliteStore::open_with(&path, first.clone()).await.expect("the schema it had");
    store.close().await;

    let store = SqliteStore::open_with(&path, second.clone()).await.expect("a newer schema");
    assert_eq!(store.accounts().await.expect("a list"), [account("acme", "")]);
    store.rows(sql("SELECT colour FROM groups")).await.expect("the new column");
    store.close().await;
    SqliteStore::open_with(&path, second).await.expect("nothing left to do").close().await;
    let error = SqliteStore::open_with(&path, first).await.expect_err("a refusal");
    assert!(matches!(error, Error::NewerSchema { found: 2, known: 1 }), "{error:?}");
}

#[tokio::test]
async fn the_last_schema_change_sets_its_number() {
    let (_folder, path) = place();
    let store = SqliteStore::open(&path).await.expect("a store");
    let row = store.row(sql("PRAGMA user_version")).await.expect("a read").expect("a row");
    assert_eq!(row.get::<i64, _>(0), i64::try_from(MIGRATIONS.len()).expect("a number"));
}

#[tokio::test]
async fn an_empty_file_becomes_a_store_and_a_wide_mode_is_narrowed() {
    let (_folder, path) = place();
    fs::write(&path, b"").expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
    let store = SqliteStore::open(&path).await.expect("a store");
    assert!(store.insert_account(&account("acme", "")).await.expect("an insert"));
    assert_eq!(files(&path).map(|file| mode(&file)), [0o600; 3]);
    store.close().await;
    // As a backup that was copied back.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).expect("a mode");
    let store = SqliteStore::open(&path).await.expect("a store");
    assert!(store.insert_account(&account("other", "")).await.expect("an insert"));
    assert_eq!(files(&path).map(|file| mode(&file)), [0o600; 3]);
}
