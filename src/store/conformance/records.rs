//! Each record by itself: every field there and back, inserts, lists, updates.

use std::sync::Mutex;

use super::*;
use crate::keys::Added;

pub(crate) async fn accounts_keep_every_field(bench: Bench) {
    assert_eq!(bench.store.account(&name("acme")).await.expect("a read"), None);
    for (number, title) in TITLES.iter().enumerate() {
        let full = Account {
            name: name(&format!("a.{number}@example.com")),
            title: (*title).to_owned(),
            password: Some(PasswordHash::from_phc("$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA".to_owned())),
            suspended: true,
            expires_at: Some(Timestamp::from_millis(1_234_567_890_123)),
            created_at: Timestamp::from_millis(987_654_321),
        };
        assert!(bench.store.insert_account(&full).await.expect("an insert"));
        assert_eq!(bench.store.account(&full.name).await.expect("a read").as_ref(), Some(&full));
        let bare = Account { title: "x".to_owned(), password: None, suspended: false, expires_at: None, ..full };
        let updated = bench.store.update_account(&bare.name, &|_| Update::Write(bare.clone(), Cut::No)).await;
        assert_eq!(updated.expect("an update"), Updated::Done(bare.clone()));
        assert_eq!(bench.store.account(&bare.name).await.expect("a read"), Some(bare));
    }
}

pub(crate) async fn groups_keep_every_field_and_can_go(bench: Bench) {
    for (number, title) in TITLES.iter().enumerate() {
        let full = Group {
            id: group_id(&format!("g.{number}_x-y")),
            title: (*title).to_owned(),
            token_lifetime: Some(Duration::from_millis(90_500)),
            created_at: Timestamp::from_millis(1_234),
        };
        assert!(!bench.store.replace_group(&full).await.expect("a replacement"), "there is none to replace");
        assert!(!bench.store.delete_group(&full.id).await.expect("a removal"), "there is none to remove");
        assert!(bench.store.insert_group(&full).await.expect("an insert"));
        assert_eq!(bench.store.group(&full.id).await.expect("a read").as_ref(), Some(&full));
        let bare = Group { title: "x".to_owned(), token_lifetime: None, ..full };
        assert!(bench.store.replace_group(&bare).await.expect("a replacement"));
        assert_eq!(bench.store.group(&bare.id).await.expect("a read").as_ref(), Some(&bare));
        assert!(bench.store.delete_group(&bare.id).await.expect("a removal"));
        assert_eq!(bench.store.group(&bare.id).await.expect("a read"), None);
    }
}

pub(crate) async fn keys_keep_every_field(bench: Bench) {
    with_accounts(&bench, &["acme"]).await;
    let narrowed = [None, Some(Groups::new()), Some(groups(&["orders"])), Some(groups(&["orders.read", "demo"]))];
    let states = [KeyState::Active, KeyState::Suspended, KeyState::Revoked, KeyState::Active];
    for ((id, groups), state) in ('a'..).zip(narrowed).zip(states) {
        let full = Key {
            label: TITLES[1].to_owned(),
            groups,
            state,
            expires_at: Some(Timestamp::from_millis(55)),
            ..key(id, "acme")
        };
        assert_eq!(bench.store.key(&full.id).await.expect("a read"), None);
        assert!(bench.store.insert_key(&full).await.expect("an insert"));
        assert_eq!(bench.store.key(&full.id).await.expect("a read").as_ref(), Some(&full));
        let other = Key {
            label: TITLES[2].to_owned(),
            hash: PasswordHash::from_phc("$argon2id$other".to_owned()),
            groups: Some(self::groups(&["x"])),
            state: KeyState::Suspended,
            expires_at: None,
            ..full
        };
        let updated = bench.store.update_key(&other.id, &|_| Update::Write(other.clone(), Cut::No)).await;
        assert_eq!(updated.expect("an update"), Updated::Done(other.clone()));
        assert_eq!(bench.store.key(&other.id).await.expect("a read"), Some(other));
    }
}

pub(crate) async fn an_old_half_is_kept_and_found_when_it_ends(bench: Bench) {
    let store = &bench.store;
    with_accounts(&bench, &["acme"]).await;
    let old = |hash: Option<&str>, end| Half {
        hash: hash.map(|hash| PasswordHash::from_phc(hash.to_owned())),
        rolled_at: Timestamp::from_millis(1_500),
        end,
        used_at: Some(at(1)),
    };
    let halves = [
        ('a', old(Some("$a"), End::At(Timestamp::from_millis(9_999)))),
        ('b', old(Some("$b"), End::At(at(10)))),
        ('c', old(None, End::At(at(5)))),
        ('d', old(Some("$d"), End::AfterFirstUse(Duration::from_secs(1)))),
    ];
    for (id, half) in &halves {
        let full = Key {
            networks: Some("203.0.113.0/24 2001:db8::/48".parse().expect("networks")),
            plan: Some("gold".parse().expect("a plan")),
            used_at: Some(at(60)),
            previous: Some(half.clone()),
            ..key(*id, "acme")
        };
        assert!(store.insert_key(&full).await.expect("an insert"));
        assert_eq!(bench.other.key(&full.id).await.expect("a read").as_ref(), Some(&full));
    }
    assert!(store.insert_key(&key('e', "acme")).await.expect("an insert"));
    assert_eq!(store.keys(Some(&name("acme"))).await.expect("a list").len(), 5);
    assert_eq!(store.keys_to_finish(Timestamp::from_millis(9_998)).await.expect("a list"), []);
    assert_eq!(store.keys_to_finish(Timestamp::from_millis(9_999)).await.expect("a list"), [key_id('a')]);
    assert_eq!(store.keys_to_finish(at(10)).await.expect("a list"), ['a', 'b'].map(key_id));

    // Every field of it can change, and go.
    for previous in [Some(old(None, End::At(at(7)))), Some(old(Some("$x"), End::AfterFirstUse(Duration::ZERO))), None] {
        let wanted = Key { previous, networks: None, plan: None, used_at: None, ..key('b', "acme") };
        let done = store.update_key(&wanted.id, &|_| Update::Write(wanted.clone(), Cut::No)).await;
        assert_eq!(done.expect("an update"), Updated::Done(wanted.clone()));
        assert_eq!(bench.other.key(&wanted.id).await.expect("a read"), Some(wanted));
    }
    assert_eq!(store.keys_to_finish(at(1000)).await.expect("a list"), [key_id('a')]);
}

pub(crate) async fn stamps_are_put_on_the_right_half(bench: Bench) {
    let store = &bench.store;
    with_accounts(&bench, &["acme"]).await;
    let rolled = |id, at| {
        let half = Half { hash: None, rolled_at: at, end: End::At(at), used_at: None };
        Key { previous: Some(half), ..key(id, "acme") }
    };
    for full in [key('a', "acme"), rolled('b', at(500)), rolled('c', at(500)), rolled('d', at(500))] {
        assert!(store.insert_key(&full).await.expect("an insert"));
    }
    let reached = store.version().await.expect("a version");
    let stamp = |id, rolled_at, old, secs| Stamp { key: key_id(id), rolled_at, old, at: at(secs) };
    let seen = async |id| {
        let key = bench.other.key(&key_id(id)).await.expect("a read").expect("a key");
        (key.used_at, key.previous.and_then(|half| half.used_at))
    };
    let all = [
        stamp('a', None, false, 120),
        stamp('b', Some(at(500)), false, 600),
        stamp('b', Some(at(500)), true, 660),
        // What was the present secret when it was used is the old one now.
        stamp('c', None, false, 480),
        // It is of a roll that this key has had no more.
        stamp('d', Some(at(400)), true, 420),
        stamp('d', Some(at(900)), false, 960),
        stamp('x', None, false, 120),
    ];
    store.stamp_keys(&all).await.expect("a write");
    assert_eq!(seen('a').await, (Some(at(120)), None));
    assert_eq!(seen('b').await, (Some(at(600)), Some(at(660))));
    assert_eq!(seen('c').await, (None, Some(at(480))));
    assert_eq!(seen('d').await, (None, None));
    store.stamp_keys(&[stamp('a', None, false, 60), stamp('b', Some(at(500)), true, 720)]).await.expect("a write");
    assert_eq!(seen('a').await, (Some(at(120)), None), "a time never goes back");
    assert_eq!(seen('b').await, (Some(at(600)), Some(at(720))));
    store.stamp_keys(&[]).await.expect("nothing");
    let many: Vec<Stamp> = (0..2_500).map(|n| stamp('a', None, false, 60 * n)).collect();
    store.stamp_keys(&many).await.expect("a write");
    assert_eq!(seen('a').await.0, Some(at(60 * 2_499)));
    assert_eq!(changes(store, reached).await, [], "the feed does not tell of it");
}

pub(crate) async fn many_keys_are_added_all_or_none(bench: Bench) {
    let store = &bench.store;
    with_accounts(&bench, &["acme"]).await;
    assert!(store.insert_key(&key('a', "acme")).await.expect("an insert"));
    let reached = store.version().await.expect("a version");
    let labelled = |id| Key { label: "new".to_owned(), ..key(id, "acme") };
    let any = |_: &[Licence]| None;
    let new = store.insert_keys(&[labelled('a'), labelled('b'), labelled('c')], at(0), &any).await;
    assert_eq!(new.expect("two are new"), Added::Keys(2));
    assert_eq!(bench.other.key(&key_id('a')).await.expect("a read"), Some(key('a', "acme")), "it was there");
    assert_eq!(bench.other.key(&key_id('b')).await.expect("a read"), Some(labelled('b')));
    assert!(store.insert_keys(&[key('d', "acme"), key('e', "nobody")], at(0), &any).await.is_err());
    assert_eq!(bench.other.key(&key_id('d')).await.expect("a read"), None, "none of them");
    assert_eq!(store.insert_keys(&[], at(0), &|_| Some(0)).await.expect("nothing"), Added::Keys(0));
    assert_eq!(changes(store, reached).await, [], "the feed does not tell of it");
}

pub(crate) async fn many_keys_take_the_seats_there_are(bench: Bench) {
    let store = &bench.store;
    with_accounts(&bench, &["acme", "other"]).await;
    assert!(store.insert_key(&key('a', "acme")).await.expect("an insert"));
    let gone = Key { state: KeyState::Revoked, ..key('b', "acme") };
    let late = Key { expires_at: Some(at(5)), ..key('c', "acme") };
    // The licences that it is asked with tell whose seats they are.
    let granted = Licence { seats: Some(3), ..licence('l', "acme") };
    assert!(store.insert_licence(&granted).await.expect("an insert"));
    let asked = Mutex::new(Vec::new());
    let seats = |licences: &[Licence]| {
        asked.lock().expect("a lock").push(licences.to_vec());
        licences.first().and_then(|licence| licence.seats).map(u64::from)
    };
    let add = async |keys: &[Key]| {
        let added = store.insert_keys(keys, at(10), &seats).await.expect("an answer");
        (added, std::mem::take(&mut *asked.lock().expect("a lock")))
    };
    let held = async |account: &str| {
        bench.other.seating(&account.parse().expect("a name"), at(10)).await.expect("a read").held
    };
    let of_acme = vec![granted.clone()];
    assert_eq!(add(&[key('a', "acme"), gone, late]).await, (Added::Keys(2), vec![]), "no seat is taken");
    assert_eq!(held("acme").await, 1);
    let seating = Seating { licences: of_acme.clone(), held: 4 };
    let refused = (Added::NoSeats(name("acme"), seating), vec![of_acme.clone()]);
    assert_eq!(add(&[key('d', "acme"), key('e', "acme"), key('f', "acme")]).await, refused);
    assert_eq!(bench.other.key(&key_id('d')).await.expect("a read"), None, "none of them");
    let (added, mut of) = add(&[key('d', "acme"), key('e', "acme"), key('f', "other")]).await;
    of.sort_by_key(Vec::len);
    assert_eq!((added, of), (Added::Keys(3), vec![vec![], of_acme]));
    assert_eq!((held("acme").await, held("other").await), (3, 1));
}

pub(crate) async fn licences_keep_every_field(bench: Bench) {
    with_accounts(&bench, &["acme"]).await;
    for (id, granted) in ('a'..).zip([Groups::new(), groups(&["orders", "demo", "a.b"])]) {
        let full = Licence {
            groups: granted,
            plan: TITLES[1].to_owned(),
            starts_at: Timestamp::from_millis(77),
            ends_at: Some(Timestamp::from_millis(88)),
            suspended: true,
            seats: Some(u32::MAX),
            trial: true,
            document: Some("a.b.c".to_owned()),
            quotas: [].into(),
            created_at: Timestamp::from_millis(66),
            ..licence(id, "acme")
        };
        assert_eq!(bench.store.licence(&full.id).await.expect("a read"), None);
        assert!(bench.store.insert_licence(&full).await.expect("an insert"));
        assert_eq!(bench.store.licence(&full.id).await.expect("a read").as_ref(), Some(&full));
        let other = Licence {
            groups: groups(&["x"]),
            plan: String::new(),
            starts_at: at(99),
            ends_at: None,
            suspended: false,
            seats: None,
            trial: false,
            document: None,
            quotas: [].into(),
            ..full
        };
        let updated = bench.store.update_licence(&other.id, &|_| Update::Write(other.clone(), Cut::No)).await;
        assert_eq!(updated.expect("an update"), Updated::Done(other.clone()));
        assert_eq!(bench.store.licence(&other.id).await.expect("a read"), Some(other));
    }
}

/// All of the signing keys, which are not `Eq`, as text.
fn plain(keys: &[SigningKey]) -> Vec<String> {
    keys.iter().map(|key| format!("{key:?} {:?}", key.private.expose())).collect()
}

pub(crate) async fn signing_keys_are_one_set_in_order(bench: Bench) {
    assert!(bench.store.signing_keys().await.expect("a read").is_empty());
    let retiring = SigningKey {
        state: SigningState::Retiring,
        gone_at: Some(Timestamp::from_millis(123_456)),
        private: Secret::new(vec![0, 255, 7, 0]),
        sealed_by: Some("0123456789abcdef".to_owned()),
        ..signing_key("retiring", 1)
    };
    let active = SigningKey { state: SigningState::Active, ..signing_key("active", 2) };
    let next = signing_key("next", 3);
    let sorted = [retiring.clone(), active.clone(), next.clone()];
    let set = vec![next.clone(), retiring, active];
    let reached = bench.store.version().await.expect("a version");
    let written = bench.store.update_signing_keys(&|_| Update::Write(set.clone(), Cut::No)).await;
    assert_eq!(plain(&written.expect("an update")), plain(&sorted));
    assert_eq!(plain(&bench.store.signing_keys().await.expect("a read")), plain(&sorted));
    assert_eq!(changes(&bench.store, reached).await, [Change::SigningKeys]);

    let kept = bench.store.update_signing_keys(&|_| Update::Keep).await.expect("an update");
    assert_eq!(plain(&kept), plain(&sorted));
    let twice = vec![next.clone(), next.clone()];
    assert!(bench.store.update_signing_keys(&|_| Update::Write(twice.clone(), Cut::No)).await.is_err());
    assert_eq!(
        plain(&bench.store.signing_keys().await.expect("a read")),
        plain(&sorted),
        "a refused set changes nothing"
    );
    assert_eq!(changes(&bench.store, reached + 1).await, []);

    let left = bench.store.update_signing_keys(&|all| Update::Write(all[2..].to_vec(), Cut::No)).await;
    assert_eq!(plain(&left.expect("an update")), plain(std::slice::from_ref(&next)));
    assert_eq!(plain(&bench.store.signing_keys().await.expect("a read")), plain(&[next]));
}

pub(crate) async fn a_new_set_of_signing_keys_may_end_every_token(bench: Bench) {
    let store = &bench.store;
    let new = vec![SigningKey { state: SigningState::Active, ..signing_key("new", 1) }];
    let refused = vec![new[0].clone(), new[0].clone()];
    assert!(store.update_signing_keys(&|_| Update::Write(refused.clone(), Cut::Now(at(5)))).await.is_err());
    assert_eq!(store.revocations(at(5)).await.expect("a list"), [], "nothing is cut by what is refused");
    for cut in [Cut::Now(at(5)), Cut::Forever(at(5))] {
        store.update_signing_keys(&|_| Update::Write(new.clone(), cut)).await.expect("an update");
    }
    let stands = bench.other.revocations(at(5)).await.expect("a list");
    assert_eq!(stands.len(), 1);
    assert_eq!((&stands[0].target, stands[0].cutoff), (&Target::All, Cutoff(7)), "tokens of the new keys are good");
    let told = changes(store, 0).await;
    assert!(matches!(&told[..2], [Change::SigningKeys, Change::Revoked(_)]), "{told:?}");
}

pub(crate) async fn a_second_insert_changes_nothing(bench: Bench) {
    with_accounts(&bench, &["acme", "other"]).await;
    let store = &bench.store;
    assert!(store.insert_key(&key('k', "acme")).await.expect("an insert"));
    assert!(store.insert_licence(&licence('l', "acme")).await.expect("an insert"));
    assert!(store.insert_group(&group("orders")).await.expect("an insert"));
    let reached = store.version().await.expect("a version");

    let again = Account { title: "again".to_owned(), ..account("acme") };
    assert!(!store.insert_account(&again).await.expect("an insert"));
    assert_eq!(store.account(&again.name).await.expect("a read"), Some(account("acme")));
    assert!(!store.insert_key(&key('k', "other")).await.expect("an insert"));
    assert_eq!(store.key(&key_id('k')).await.expect("a read"), Some(key('k', "acme")));
    assert!(!store.insert_licence(&licence('l', "other")).await.expect("an insert"));
    assert_eq!(store.licence(&licence_id('l')).await.expect("a read"), Some(licence('l', "acme")));
    assert!(!store.insert_group(&Group { title: "again".to_owned(), ..group("orders") }).await.expect("an insert"));
    assert_eq!(store.group(&group_id("orders")).await.expect("a read"), Some(group("orders")));

    assert_eq!(changes(store, reached).await, []);
    // Names differ by case.
    assert!(store.insert_account(&account("Acme")).await.expect("an insert"));
}

pub(crate) async fn what_belongs_to_an_account_needs_one(bench: Bench) {
    assert!(bench.store.insert_key(&key('k', "nobody")).await.is_err());
    assert!(bench.store.insert_licence(&licence('l', "nobody")).await.is_err());
    assert_eq!(bench.store.keys(None).await.expect("a list"), []);
    assert_eq!(bench.store.licences(None).await.expect("a list"), []);
    assert_eq!(changes(&bench.store, 0).await, []);
}

pub(crate) async fn lists_are_ordered_and_filtered(bench: Bench) {
    let store = &bench.store;
    with_accounts(&bench, &["b", "C", "a", "B"]).await;
    for (id, of) in [('3', "a"), ('z', "C"), ('1', "a"), ('A', "b"), ('2', "a")] {
        assert!(store.insert_key(&key(id, of)).await.expect("an insert"));
        assert!(store.insert_licence(&licence(id, of)).await.expect("an insert"));
    }
    for id in ["orders", "demo", "orders.read"] {
        assert!(store.insert_group(&group(id)).await.expect("an insert"));
    }
    let names: Vec<String> = store.accounts().await.expect("a list").iter().map(|held| held.name.to_string()).collect();
    assert_eq!(names, ["B", "C", "a", "b"]);
    let groups: Vec<String> = store.groups().await.expect("a list").iter().map(|held| held.id.to_string()).collect();
    assert_eq!(groups, ["demo", "orders", "orders.read"]);

    let all: Vec<KeyId> = store.keys(None).await.expect("a list").into_iter().map(|held| held.id).collect();
    assert_eq!(all, ['z', '1', '2', '3', 'A'].map(key_id));
    let of: Vec<KeyId> = store.keys(Some(&name("a"))).await.expect("a list").into_iter().map(|held| held.id).collect();
    assert_eq!(of, ['1', '2', '3'].map(key_id));
    assert_eq!(store.keys(Some(&name("B"))).await.expect("a list"), []);
    assert_eq!(store.keys(Some(&name("nobody"))).await.expect("a list"), []);

    let all: Vec<LicenceId> = store.licences(None).await.expect("a list").into_iter().map(|held| held.id).collect();
    assert_eq!(all, ['z', '1', '2', '3', 'A'].map(licence_id));
    let of = store.licences(Some(&name("a"))).await.expect("a list");
    assert_eq!(of.into_iter().map(|held| held.id).collect::<Vec<_>>(), ['1', '2', '3'].map(licence_id));
    assert_eq!(store.licences(Some(&name("nobody"))).await.expect("a list"), []);

    assert_eq!(store.installed_licences().await.expect("a list"), []);
    let installed = |id, of| Licence { document: Some("a document".to_owned()), ..licence(id, of) };
    for (id, of) in [('d', "b"), ('c', "a")] {
        assert!(store.insert_licence(&installed(id, of)).await.expect("an insert"));
    }
    assert_eq!(store.installed_licences().await.expect("a list"), [installed('c', "a"), installed('d', "b")]);
}

pub(crate) async fn an_update_of_nothing_is_missing(bench: Bench) {
    let store = &bench.store;
    let done = store.update_account(&name("nobody"), &|_| panic!("there is no account to show")).await;
    assert_eq!(done.expect("an update"), Updated::Missing);
    let done = store.update_key(&key_id('k'), &|_| panic!("there is no key to show")).await;
    assert_eq!(done.expect("an update"), Updated::Missing);
    let done = store.update_licence(&licence_id('l'), &|_| panic!("there is no licence to show")).await;
    assert_eq!(done.expect("an update"), Updated::Missing);
    assert_eq!(changes(store, 0).await, []);
    assert_eq!(store.revocations(at(0)).await.expect("a list"), []);
}

pub(crate) async fn keep_changes_and_tells_nothing(bench: Bench) {
    let store = &bench.store;
    with_accounts(&bench, &["acme"]).await;
    assert!(store.insert_key(&key('k', "acme")).await.expect("an insert"));
    assert!(store.insert_licence(&licence('l', "acme")).await.expect("an insert"));
    let reached = store.version().await.expect("a version");

    let done = store.update_account(&name("acme"), &|_| Update::Keep).await;
    assert_eq!(done.expect("an update"), Updated::Done(account("acme")));
    let done = store.update_key(&key_id('k'), &|_| Update::Keep).await;
    assert_eq!(done.expect("an update"), Updated::Done(key('k', "acme")));
    let done = store.update_licence(&licence_id('l'), &|_| Update::Keep).await;
    assert_eq!(done.expect("an update"), Updated::Done(licence('l', "acme")));
    store.update_signing_keys(&|_| Update::Keep).await.expect("an update");

    assert_eq!(changes(store, reached).await, []);
    assert_eq!(store.account(&name("acme")).await.expect("a read"), Some(account("acme")));
}

pub(crate) async fn what_must_not_change_stays(bench: Bench) {
    let store = &bench.store;
    with_accounts(&bench, &["acme", "other"]).await;
    assert!(store.insert_key(&key('k', "acme")).await.expect("an insert"));
    assert!(store.insert_licence(&licence('l', "acme")).await.expect("an insert"));

    let wanted = Account { title: "new".to_owned(), created_at: at(99), ..account("third") };
    let kept = Account { title: "new".to_owned(), ..account("acme") };
    let done = store.update_account(&name("acme"), &|_| Update::Write(wanted.clone(), Cut::No)).await;
    assert_eq!(done.expect("an update"), Updated::Done(kept.clone()));
    assert_eq!(store.account(&name("acme")).await.expect("a read"), Some(kept));
    assert_eq!(store.account(&name("third")).await.expect("a read"), None);

    let wanted = Key { label: "new".to_owned(), created_at: at(99), ..key('x', "other") };
    let kept = Key { label: "new".to_owned(), ..key('k', "acme") };
    let done = store.update_key(&key_id('k'), &|_| Update::Write(wanted.clone(), Cut::No)).await;
    assert_eq!(done.expect("an update"), Updated::Done(kept.clone()));
    assert_eq!(store.keys(None).await.expect("a list"), [kept]);

    let wanted = Licence { plan: "new".to_owned(), created_at: at(99), ..licence('x', "other") };
    let kept = Licence { plan: "new".to_owned(), ..licence('l', "acme") };
    let done = store.update_licence(&licence_id('l'), &|_| Update::Write(wanted.clone(), Cut::Now(at(9)))).await;
    assert_eq!(done.expect("an update"), Updated::Done(kept.clone()));
    assert_eq!(store.licences(None).await.expect("a list"), [kept]);
    let cut: Vec<Target> =
        store.revocations(at(9)).await.expect("a list").into_iter().map(|revocation| revocation.target).collect();
    assert_eq!(cut, [Target::Account(name("acme"))], "the licensee's tokens, whatever the update claimed");
}

pub(crate) async fn the_latest_time_only_grows(bench: Bench) {
    assert_eq!(bench.store.latest_time().await.expect("a time"), Timestamp::default());
    for (noted, latest) in [(5, 5), (3, 5), (9, 9), (0, 9)] {
        bench.store.note_time(at(noted)).await.expect("a note");
        assert_eq!(bench.other.latest_time().await.expect("a time"), at(latest));
    }
    assert_eq!(changes(&bench.store, 0).await, []);
}
