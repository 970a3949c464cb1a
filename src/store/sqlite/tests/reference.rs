//! Any sequence of calls does here what it does to the reference.

use super::*;

#[derive(Debug, Clone)]
enum Call {
    InsertAccount(u8, String),
    UpdateAccount(u8, String, u8, u64),
    InsertKey(u8, u8),
    UpdateKey(u8, String, u8, u64),
    InsertGroup(u8),
    DeleteGroup(u8),
    Revoke(u8, u64, bool),
    RevokeAllBefore(u64, u64),
    Forget(u64),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let time = 0..10_000_000u64;
    let call = prop_oneof![
        (0..3u8, any::<String>()).prop_map(|(a, b)| Call::InsertAccount(a, b)),
        (0..3u8, any::<String>(), 0..4u8, time.clone()).prop_map(|(a, b, c, d)| Call::UpdateAccount(a, b, c, d)),
        (0..3u8, 0..3u8).prop_map(|(a, b)| Call::InsertKey(a, b)),
        (0..3u8, any::<String>(), 0..4u8, time.clone()).prop_map(|(a, b, c, d)| Call::UpdateKey(a, b, c, d)),
        (0..2u8).prop_map(Call::InsertGroup),
        (0..2u8).prop_map(Call::DeleteGroup),
        (0..4u8, time.clone(), any::<bool>()).prop_map(|(a, b, c)| Call::Revoke(a, b, c)),
        (time.clone(), time.clone()).prop_map(|(a, b)| Call::RevokeAllBefore(a, b)),
        time.prop_map(Call::Forget),
    ];
    prop::collection::vec(call, 1..40)
}

fn update<T>(record: T, kind: u8, now: u64) -> Update<T> {
    let now = Timestamp::from_millis(now);
    match kind {
        0 => Update::Keep,
        1 => Update::Write(record, Cut::No),
        2 => Update::Write(record, Cut::Now(now)),
        _ => Update::Write(record, Cut::Forever(now)),
    }
}

/// Makes a call, and writes down what came of it. Faults are alike, whatever their words.
async fn outcome(store: &SharedStore, call: &Call) -> String {
    fn told<T: std::fmt::Debug>(result: crate::persist::Result<T>) -> String {
        result.map_or_else(|_| "a fault".to_owned(), |value| format!("{value:?}"))
    }
    let name = |number: &u8| format!("account{number}");
    let key_id = |number: &u8| format!("key00000000{number}");
    let group = |number: &u8| Group {
        id: format!("group{number}").parse().expect("a group id"),
        title: String::new(),
        token_lifetime: None,
        created_at: Timestamp::from_secs(1),
    };
    match call {
        Call::InsertAccount(number, title) => told(store.insert_account(&account(&name(number), title)).await),
        Call::UpdateAccount(number, title, kind, now) => {
            let change = |old: Account| update(Account { title: title.clone(), ..old }, *kind, *now);
            told(store.update_account(&name(number).parse().expect("a name"), &change).await)
        }
        Call::InsertKey(number, of) => told(store.insert_key(&key(&key_id(number), &name(of))).await),
        Call::UpdateKey(number, label, kind, now) => {
            let change = |old: Key| update(Key { label: label.clone(), ..old }, *kind, *now);
            told(store.update_key(&key_id(number).parse().expect("a key id"), &change).await)
        }
        Call::InsertGroup(number) => told(store.insert_group(&group(number)).await),
        Call::DeleteGroup(number) => told(store.delete_group(&group(number).id).await),
        Call::Revoke(target, now, forever) => {
            let target = match target {
                0 => Target::All,
                1 => Target::Token("AAAAAAAAAAAAAAAAAAAAAA".parse().expect("a token id")),
                2 => Target::Key(key_id(&1).parse().expect("a key id")),
                _ => Target::Account(name(&1).parse().expect("a name")),
            };
            told(store.revoke(&target, Timestamp::from_millis(*now), *forever).await)
        }
        Call::RevokeAllBefore(before, now) => {
            told(store.revoke_all_before(Timestamp::from_millis(*before), Timestamp::from_millis(*now)).await)
        }
        Call::Forget(now) => told(store.forget(Timestamp::from_millis(*now)).await),
    }
}

/// All that can be seen of a store.
async fn everything(store: &SharedStore) -> String {
    let version = store.version().await.expect("a version");
    let mut seen = format!(
        "{version} {:?} {:?} {:?} {:?}",
        store.accounts().await.expect("a list"),
        store.groups().await.expect("a list"),
        store.keys(None).await.expect("a list"),
        store.revocations(Timestamp::default()).await.expect("a list"),
    );
    for since in 0..=version + 1 {
        seen.push_str(&format!("\n{:?}", store.changes_since(since).await.expect("the feed")));
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn it_does_what_the_reference_does(calls in calls()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let Bench { store, folder, .. } = bench().await;
            let reference: SharedStore = Arc::new(MemoryStore::new());
            for call in &calls {
                prop_assert_eq!(outcome(&store, call).await, outcome(&reference, call).await, "{:?}", call);
            }
            prop_assert_eq!(everything(&store).await, everything(&reference).await);
            drop(folder);
            Ok(())
        })?;
    }
}
