//! Many at once: nothing is lost, nothing is told twice.

use super::*;

pub(crate) async fn no_update_is_lost_under_a_hundred_writers(bench: Bench) {
    let start = Account { title: "0".to_owned(), ..account("acme") };
    assert!(bench.store.insert_account(&start).await.expect("an insert"));
    let writers: Vec<_> = (0..100)
        .map(|number| {
            let store = Arc::clone(if number % 2 == 0 { &bench.store } else { &bench.other });
            tokio::spawn(async move {
                let add = |old: Account| {
                    let count: u32 = old.title.parse().expect("a number");
                    Update::Write(Account { title: (count + 1).to_string(), ..old }, Cut::Now(at(1)))
                };
                store.update_account(&name("acme"), &add).await
            })
        })
        .collect();
    let mut titles = BTreeSet::new();
    for writer in writers {
        match writer.await.expect("a writer").expect("an update") {
            Updated::Done(account) => titles.insert(account.title),
            Updated::Missing => panic!("the account is gone"),
        };
    }
    assert_eq!(titles.len(), 100, "each saw another's work");
    let end = bench.store.account(&name("acme")).await.expect("a read").expect("the account");
    assert_eq!(end.title, "100");
    let stands = bench.store.revocations(at(1)).await.expect("a list");
    assert_eq!(stands[0].cutoff, Cutoff(101), "each cut lies beyond the one before");
}

pub(crate) async fn no_signing_key_is_lost_under_many_writers(bench: Bench) {
    let writers: Vec<_> = (0..20u64)
        .map(|number| {
            let store = Arc::clone(if number % 2 == 0 { &bench.store } else { &bench.other });
            tokio::spawn(async move {
                let add = |mut keys: Vec<SigningKey>| {
                    // Only the first to come makes a key active, as with two nodes that rotate at once.
                    let state = if keys.is_empty() { SigningState::Active } else { SigningState::Next };
                    keys.push(SigningKey { state, ..signing_key(&format!("kid-{number}"), number) });
                    Update::Write(keys, Cut::No)
                };
                store.update_signing_keys(&add).await.expect("an update").len()
            })
        })
        .collect();
    let mut sizes = BTreeSet::new();
    for writer in writers {
        sizes.insert(writer.await.expect("a writer"));
    }
    assert_eq!(sizes, (1..=20).collect());
    let keys = bench.store.signing_keys().await.expect("a read");
    assert_eq!(keys.iter().filter(|key| key.state == SigningState::Active).count(), 1);
    assert!(keys.is_sorted_by_key(|key| key.created_at));
}

pub(crate) async fn feed_versions_appear_in_order_under_many_writers(bench: Bench) {
    const CHANGES: u64 = 60;
    let writers: Vec<_> = (0..CHANGES)
        .map(|number| {
            let store = Arc::clone(if number % 2 == 0 { &bench.store } else { &bench.other });
            tokio::spawn(async move { store.insert_account(&account(&format!("a{number}"))).await })
        })
        .collect();
    // A reader that goes by versions while they are at it must meet every change exactly once.
    let reader = async {
        let mut seen = BTreeSet::new();
        let mut version = 0;
        while version < CHANGES {
            for change in changes(&bench.other, version).await {
                version += 1;
                match change {
                    Change::Account(name) => assert!(seen.insert(name), "told twice"),
                    other => panic!("{other:?}"),
                }
            }
            tokio::task::yield_now().await;
        }
        seen
    };
    let seen = tokio::time::timeout(Duration::from_secs(60), reader).await.expect("every change is told");
    for writer in writers {
        assert!(writer.await.expect("a writer").expect("an insert"));
    }
    assert_eq!(seen.len() as u64, CHANGES);
}

pub(crate) async fn two_handles_see_one_store(bench: Bench) {
    let Bench { store, other, .. } = &bench;
    store.insert_account(&account("acme")).await.expect("an insert");
    assert!(!other.insert_account(&account("acme")).await.expect("an insert"));
    assert_eq!(other.account(&name("acme")).await.expect("a read"), Some(account("acme")));
    other.insert_key(&key('k', "acme")).await.expect("an insert");
    assert_eq!(store.key(&key_id('k')).await.expect("a read"), Some(key('k', "acme")));
    other
        .update_key(&key_id('k'), &|old| Update::Write(Key { state: KeyState::Revoked, ..old }, Cut::Forever(at(9))))
        .await
        .expect("an update");
    assert_eq!(store.key(&key_id('k')).await.expect("a read").map(|held| held.state), Some(KeyState::Revoked));
    assert_eq!(store.revocations(at(9)).await.expect("a list"), other.revocations(at(9)).await.expect("a list"));
    assert_eq!(store.version().await.expect("a version"), 4);
    assert_eq!(store.changes_since(0).await.expect("the feed"), other.changes_since(0).await.expect("the feed"));
    let again = store.revoke(&Target::Key(key_id('k')), at(10), false).await.expect("a revocation");
    assert_eq!(again.cutoff, Cutoff::FOREVER, "the other's decision counts here");
}
