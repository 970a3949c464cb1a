//! Cuts, revocations and the feed that tells of them.

use super::*;

pub(crate) async fn a_cut_comes_with_its_change(bench: Bench) {
    let store = &bench.store;
    with_accounts(&bench, &["acme"]).await;
    assert!(store.insert_key(&key('k', "acme")).await.expect("an insert"));
    assert!(store.insert_licence(&licence('l', "acme")).await.expect("an insert"));
    let reached = store.version().await.expect("a version");

    let now = Timestamp::from_millis(100_900);
    let later = at(200);
    store
        .update_key(&key_id('k'), &|old| Update::Write(Key { state: KeyState::Suspended, ..old }, Cut::Now(now)))
        .await
        .expect("an update");
    store
        .update_account(&name("acme"), &|old| Update::Write(Account { suspended: true, ..old }, Cut::Now(now)))
        .await
        .expect("an update");
    store
        .update_licence(&licence_id('l'), &|old| Update::Write(Licence { suspended: true, ..old }, Cut::Now(later)))
        .await
        .expect("an update");
    store
        .update_key(&key_id('k'), &|old| Update::Write(Key { state: KeyState::Revoked, ..old }, Cut::Forever(later)))
        .await
        .expect("an update");

    let of_key = Revocation {
        target: Target::Key(key_id('k')),
        cutoff: Cutoff(101),
        made_at: now,
        forget_at: at(101) + LONGEST_TOKEN,
    };
    // A token got with the key just after its cut has that for its `iat`; the account's cut must end it too.
    let of_account = Revocation {
        target: Target::Account(name("acme")),
        cutoff: Cutoff(102),
        forget_at: at(102) + LONGEST_TOKEN,
        ..of_key.clone()
    };
    let of_licence =
        Revocation { cutoff: Cutoff(201), made_at: later, forget_at: at(201) + LONGEST_TOKEN, ..of_account.clone() };
    let of_key_for_good =
        Revocation { cutoff: Cutoff::FOREVER, made_at: later, forget_at: later + LONGEST_TOKEN, ..of_key.clone() };
    let told = [
        Change::Key(key_id('k')),
        Change::Revoked(of_key),
        Change::Account(name("acme")),
        Change::Revoked(of_account),
        Change::Licence(name("acme")),
        Change::Revoked(of_licence.clone()),
        Change::Key(key_id('k')),
        Change::Revoked(of_key_for_good.clone()),
    ];
    assert_eq!(changes(store, reached).await, told);
    let stands: Vec<Revocation> = store.revocations(later).await.expect("a list");
    assert_eq!(stands, [of_licence, of_key_for_good]);
}

pub(crate) async fn cutoffs_grow_within_one_second(bench: Bench) {
    let targets = [Target::Key(key_id('k')), Target::Account(name("acme")), Target::All];
    for (second, target) in [1000, 2000, 3000].into_iter().zip(targets) {
        for expected in second + 1..second + 5 {
            let now = Timestamp::from_millis(second * 1000 + 500);
            let done = bench.store.revoke(&target, now, false).await.expect("a revocation");
            assert_eq!(done.cutoff, Cutoff(expected), "{target}");
            assert_eq!(done.forget_at, at(expected) + LONGEST_TOKEN);
        }
        let done = bench.store.revoke(&target, at(second - 10), false).await.expect("a revocation");
        assert_eq!(done.cutoff, Cutoff(second + 5), "a clock set back does not shrink it");
        let done = bench.store.revoke(&target, at(second + 300), false).await.expect("a revocation");
        assert_eq!(done.cutoff, Cutoff(second + 301));
    }
}

/// A token of a key is one of its account and of all: within one second each cut lies beyond those that such a token's
/// `iat` may be taken from, and not beyond others', or a thousand cuts would put the next token's `iat` far ahead.
pub(crate) async fn cutoffs_grow_beyond_those_that_share_tokens(bench: Bench) {
    let store = &bench.store;
    with_accounts(&bench, &["acme", "other"]).await;
    for (id, account) in [('k', "acme"), ('l', "acme"), ('o', "other")] {
        assert!(store.insert_key(&key(id, account)).await.expect("an insert"));
    }
    let (k, l, o) = (Target::Key(key_id('k')), Target::Key(key_id('l')), Target::Key(key_id('o')));
    let (acme, other) = (Target::Account(name("acme")), Target::Account(name("other")));
    for (target, expected) in [
        (&k, 101),
        (&l, 101),
        (&acme, 102),
        (&k, 103),
        (&o, 101),
        (&other, 102),
        (&acme, 104),
        (&Target::All, 105),
        (&other, 106),
        (&l, 106),
    ] {
        let done = store.revoke(target, Timestamp::from_millis(100_500), false).await.expect("a revocation");
        assert_eq!(done.cutoff, Cutoff(expected), "{target}");
    }
    store.revoke(&l, at(101), true).await.expect("a revocation");
    let done = store.revoke(&acme, at(200), false).await.expect("a revocation");
    assert_eq!(done.cutoff, Cutoff(201), "what is dead for good moves nobody's");
}

pub(crate) async fn forever_never_shrinks(bench: Bench) {
    let store = &bench.store;
    with_accounts(&bench, &["acme"]).await;
    let target = Target::Account(name("acme"));
    let done = store.revoke(&target, at(100), true).await.expect("a revocation");
    assert_eq!((done.cutoff, done.forget_at), (Cutoff::FOREVER, at(100) + LONGEST_TOKEN));
    assert_eq!(store.revoke(&target, at(200), false).await.expect("a revocation").cutoff, Cutoff::FOREVER);
    store.update_account(&name("acme"), &|old| Update::Write(old, Cut::Now(at(300)))).await.expect("an update");
    let stands = store.revocations(at(300)).await.expect("a list");
    let expected = Revocation { target, cutoff: Cutoff::FOREVER, made_at: at(300), forget_at: at(300) + LONGEST_TOKEN };
    assert_eq!(stands, [expected]);

    store.revoke(&Target::All, at(300), true).await.expect("a revocation");
    assert_eq!(store.revoke_all_before(at(1), at(301)).await.expect("a revocation").cutoff, Cutoff::FOREVER);
}

pub(crate) async fn a_token_is_revoked_for_good(bench: Bench) {
    let id = TokenId::random();
    let made_at = Timestamp::from_millis(100_900);
    let done = bench.store.revoke(&Target::Token(id), made_at, false).await.expect("a revocation");
    let expected =
        Revocation { target: Target::Token(id), cutoff: Cutoff::FOREVER, made_at, forget_at: made_at + LONGEST_TOKEN };
    assert_eq!(done, expected);
    assert_eq!(bench.store.revocations(made_at).await.expect("a list"), std::slice::from_ref(&expected));
    assert_eq!(changes(&bench.store, 0).await, [Change::Revoked(expected)]);
    let again = bench.store.revoke(&Target::Token(id), at(50), false).await.expect("a revocation");
    assert_eq!(again.forget_at, made_at + LONGEST_TOKEN, "what was promised stays, though the clock was set back");
}

pub(crate) async fn everything_before_an_instant(bench: Bench) {
    let store = &bench.store;
    let done = store.revoke_all_before(Timestamp::from_millis(100_001), at(500)).await.expect("a revocation");
    let expected =
        Revocation { target: Target::All, cutoff: Cutoff(101), made_at: at(500), forget_at: at(500) + LONGEST_TOKEN };
    assert_eq!(done, expected);
    let lower = store.revoke_all_before(at(50), at(501)).await.expect("a revocation");
    assert_eq!(lower.cutoff, Cutoff(101), "it never shrinks");
    let ahead = store.revoke_all_before(at(900), at(502)).await.expect("a revocation");
    assert_eq!((ahead.cutoff, ahead.forget_at), (Cutoff(900), at(900) + LONGEST_TOKEN));
    let now = store.revoke(&Target::All, at(503), false).await.expect("a revocation");
    assert_eq!(now.cutoff, Cutoff(901));
    assert_eq!(store.revocations(at(503)).await.expect("a list"), [now]);
}

pub(crate) async fn a_cut_may_lie_before(bench: Bench) {
    let store = &bench.store;
    with_accounts(&bench, &["acme"]).await;
    assert!(store.insert_key(&key('k', "acme")).await.expect("an insert"));
    let cut = async |before, now| {
        let before = Timestamp::from_millis(before);
        let change = |key: Key| Update::Write(key, Cut::Before { before, now });
        store.update_key(&key_id('k'), &change).await.expect("an update");
        let stands = bench.other.revocations(now).await.expect("a list");
        stands.into_iter().find(|held| held.target == Target::Key(key_id('k'))).expect("a revocation")
    };
    let first = cut(100_001, at(500)).await;
    assert_eq!((first.cutoff, first.made_at, first.forget_at), (Cutoff(101), at(500), at(500) + LONGEST_TOKEN));
    assert_eq!(cut(90_000, at(501)).await.cutoff, Cutoff(101), "it never shrinks");
    assert_eq!(cut(200_000, at(502)).await.cutoff, Cutoff(200));
    store.update_key(&key_id('k'), &|key| Update::Write(key, Cut::Forever(at(503)))).await.expect("an update");
    assert_eq!(cut(900_000, at(504)).await.cutoff, Cutoff::FOREVER);
}

pub(crate) async fn revocations_are_one_per_target_oldest_first(bench: Bench) {
    let store = &bench.store;
    let token = Target::Token(TokenId::random());
    let key = Target::Key(key_id('k'));
    let account = Target::Account(name("acme"));
    // The same name as a key's, to be told apart.
    let namesake = Target::Account(name("kkkkkkkkkkkk"));
    for (target, secs) in [(&key, 10), (&token, 20), (&account, 30), (&Target::All, 40), (&namesake, 50), (&key, 60)] {
        store.revoke(target, at(secs), false).await.expect("a revocation");
    }
    let stands = store.revocations(at(60)).await.expect("a list");
    let order: Vec<Target> = stands.into_iter().map(|revocation| revocation.target).collect();
    assert_eq!(order, [token, account, Target::All, namesake, key]);
}

pub(crate) async fn a_revocation_is_forgotten_at_its_instant(bench: Bench) {
    let store = &bench.store;
    let key = store.revoke(&Target::Key(key_id('k')), at(100), false).await.expect("a revocation");
    let token = store.revoke(&Target::Token(TokenId::random()), at(100), false).await.expect("a revocation");
    let (first, second) = (token.forget_at, key.forget_at);
    assert!(first < second);
    let just_before = first - Duration::from_millis(1);
    assert_eq!(store.revocations(just_before).await.expect("a list").len(), 2);
    assert_eq!(store.revocations(first).await.expect("a list"), std::slice::from_ref(&key));
    assert_eq!(store.revocations(second).await.expect("a list"), []);

    assert_eq!(store.forget(just_before).await.expect("a sweep"), 0);
    assert_eq!(store.revocations(at(100)).await.expect("a list").len(), 2);
    // The feed's two entries were first seen a millisecond ago, so it is the revocation alone that goes.
    assert_eq!(store.forget(first).await.expect("a sweep"), 1);
    assert_eq!(store.revocations(at(100)).await.expect("a list"), [key]);
    assert_eq!(store.forget(second).await.expect("a sweep"), 1);
    assert_eq!(store.revocations(at(100)).await.expect("a list"), []);
}

pub(crate) async fn the_feed_tells_everything_in_order(bench: Bench) {
    let store = &bench.store;
    assert_eq!(store.version().await.expect("a version"), 0);
    assert_eq!(store.changes_since(0).await.expect("the feed"), Changes::List(vec![], 0));
    with_accounts(&bench, &["acme"]).await;
    store.insert_group(&group("orders")).await.expect("an insert");
    store.insert_key(&key('k', "acme")).await.expect("an insert");
    store.insert_licence(&licence('l', "acme")).await.expect("an insert");
    store.update_signing_keys(&|_| Update::Write(vec![], Cut::No)).await.expect("an update");
    store.update_account(&name("acme"), &|old| Update::Write(old, Cut::No)).await.expect("an update");
    store.update_key(&key_id('k'), &|old| Update::Write(old, Cut::No)).await.expect("an update");
    store.update_licence(&licence_id('l'), &|old| Update::Write(old, Cut::No)).await.expect("an update");
    store.replace_group(&group("orders")).await.expect("a replacement");
    store.delete_group(&group_id("orders")).await.expect("a removal");
    let all = store.revoke_all_before(at(5), at(6)).await.expect("a revocation");
    let token = store.revoke(&Target::Token(TokenId::random()), at(7), false).await.expect("a revocation");
    let expected = [
        Change::Account(name("acme")),
        Change::Group(group_id("orders")),
        Change::Key(key_id('k')),
        Change::Licence(name("acme")),
        Change::SigningKeys,
        Change::Account(name("acme")),
        Change::Key(key_id('k')),
        Change::Licence(name("acme")),
        Change::Group(group_id("orders")),
        Change::Group(group_id("orders")),
        Change::Revoked(all),
        Change::Revoked(token),
    ];
    let reached = store.version().await.expect("a version");
    assert_eq!(reached, expected.len() as u64);
    for since in 0..=reached {
        let rest = expected[since as usize..].to_vec();
        assert_eq!(store.changes_since(since).await.expect("the feed"), Changes::List(rest, reached));
    }
}

pub(crate) async fn an_unknown_version_is_lost(bench: Bench) {
    with_accounts(&bench, &["a", "b"]).await;
    for unknown in [3, 4, u64::MAX] {
        assert_eq!(bench.store.changes_since(unknown).await.expect("the feed"), Changes::Lost);
    }
}

pub(crate) async fn the_feed_forgets_after_an_hour(bench: Bench) {
    let store = &bench.store;
    let hour = Duration::from_secs(3600);
    with_accounts(&bench, &["a", "b"]).await;
    assert_eq!(store.forget(at(10_000)).await.expect("a sweep"), 0);
    with_accounts(&bench, &["c"]).await;
    assert_eq!(store.forget(at(10_001)).await.expect("a sweep"), 0);
    assert_eq!(store.forget(at(10_000) + hour - Duration::from_millis(1)).await.expect("a sweep"), 0);
    assert_eq!(changes(store, 0).await.len(), 3);

    assert_eq!(store.forget(at(10_000) + hour).await.expect("a sweep"), 2);
    assert_eq!(store.changes_since(0).await.expect("the feed"), Changes::Lost);
    assert_eq!(store.changes_since(1).await.expect("the feed"), Changes::Lost);
    assert_eq!(changes(store, 2).await, [Change::Account(name("c"))]);
    assert_eq!(changes(store, 3).await, []);

    assert_eq!(store.forget(at(10_001) + hour).await.expect("a sweep"), 1);
    assert_eq!(store.changes_since(2).await.expect("the feed"), Changes::Lost);
    assert_eq!(changes(store, 3).await, []);
    assert_eq!(store.accounts().await.expect("a list").len(), 3, "only the feed forgets");
}

pub(crate) async fn versions_outlive_forgetting(bench: Bench) {
    let store = &bench.store;
    let mut last = 0;
    for round in 1..5 {
        let now = at(round * 100_000);
        store.revoke(&Target::All, now, false).await.expect("a revocation");
        let reached = store.version().await.expect("a version");
        assert!(reached > last);
        store.forget(now).await.expect("a sweep");
        store.forget(now + LONGEST_TOKEN + LONGEST_TOKEN).await.expect("a sweep");
        assert_eq!(store.version().await.expect("a version"), reached);
        assert_eq!(store.changes_since(reached).await.expect("the feed"), Changes::List(vec![], reached));
        last = reached;
    }
}
