//! Insertions that depend on what else there is: nothing comes between the question and the answer.

use super::*;

pub(crate) async fn seats_are_never_exceeded_by_many_creators(bench: Bench) {
    const SEATS: u32 = 5;
    with_accounts(&bench, &["acme", "other"]).await;
    let (store, other) = (&bench.store, &bench.other);
    for held in [
        Licence { seats: Some(SEATS), ..licence('l', "acme") },
        Licence { seats: Some(1), ends_at: Some(at(10)), ..licence('m', "acme") },
        Licence { seats: Some(100), ..licence('n', "other") },
    ] {
        assert!(store.insert_licence(&held).await.expect("an insert"));
    }
    for held in [
        Key { state: KeyState::Suspended, ..key('a', "acme") },
        Key { state: KeyState::Revoked, ..key('b', "acme") },
        Key { expires_at: Some(at(10)), ..key('c', "acme") },
        Key { expires_at: Some(at(11)), ..key('d', "acme") },
        key('e', "other"),
    ] {
        assert!(store.insert_key(&held).await.expect("an insert"));
    }
    let reached = store.version().await.expect("a version");
    let creators: Vec<_> = ('A'..='Z')
        .enumerate()
        .map(|(number, id)| {
            let store = Arc::clone(if number % 2 == 0 { store } else { other });
            tokio::spawn(async move {
                let fits = |seating: &Seating| {
                    seats::limit(&seating.licences, at(10)).is_none_or(|limit| seating.held < limit.seats)
                };
                store.insert_key_if(&key(id, "acme"), at(10), &fits).await.expect("an insert")
            })
        })
        .collect();
    let mut done = 0;
    for creator in creators {
        match creator.await.expect("a creator") {
            Inserted::Done => done += 1,
            Inserted::Taken => panic!("every id is new"),
            Inserted::Refused => {}
        }
    }
    // The suspended one and the one that has not expired yet hold a seat each.
    assert_eq!(done, SEATS - 2);
    assert_eq!(changes(store, reached).await.len(), 3, "what is refused is not told");
    let held = store.keys(Some(&name("acme"))).await.expect("a list");
    assert_eq!(held.iter().filter(|key| key.holds_seat(at(10))).count(), 5);

    assert_eq!(
        store.insert_key_if(&key('A', "other"), at(10), &|_| false).await.expect("an answer"),
        Inserted::Refused
    );
    assert_eq!(store.insert_key_if(&key('a', "other"), at(10), &|_| true).await.expect("an answer"), Inserted::Taken);
    assert!(store.insert_key_if(&key('0', "nobody"), at(10), &|_| true).await.is_err());
}

pub(crate) async fn a_key_that_comes_back_takes_a_seat(bench: Bench) {
    with_accounts(&bench, &["acme"]).await;
    let store = &bench.store;
    let granted = Licence { seats: Some(2), ..licence('l', "acme") };
    assert!(store.insert_licence(&granted).await.expect("an insert"));
    for id in 'a'..='h' {
        assert!(store.insert_key(&Key { expires_at: Some(at(5)), ..key(id, "acme") }).await.expect("an insert"));
    }
    let missing = store.update_key_seated(&key_id('z'), at(9), &|_, _| panic!("there is no key to show")).await;
    assert_eq!(missing.expect("an answer"), Updated::Missing);
    let revivals: Vec<_> = ('a'..='h')
        .enumerate()
        .map(|(number, id)| {
            let store = Arc::clone(if number % 2 == 0 { &bench.store } else { &bench.other });
            tokio::spawn(async move {
                let revive = |key: Key, seating: &Seating| {
                    let limit = seats::limit(&seating.licences, at(9)).expect("a limit");
                    if seating.held < limit.seats {
                        Update::Write(Key { expires_at: None, ..key }, Cut::No)
                    } else {
                        Update::Keep
                    }
                };
                store.update_key_seated(&key_id(id), at(9), &revive).await.expect("an update");
            })
        })
        .collect();
    for revival in revivals {
        revival.await.expect("a revival");
    }
    let held = store.keys(Some(&name("acme"))).await.expect("a list");
    assert_eq!(held.iter().filter(|key| key.holds_seat(at(9))).count(), 2);
}

pub(crate) async fn one_of_many_equal_trials_is_granted(bench: Bench) {
    with_accounts(&bench, &["acme", "other"]).await;
    let elsewhere = Licence { trial: true, ..licence('0', "other") };
    assert!(bench.store.insert_licence(&elsewhere).await.expect("an insert"));
    let grants: Vec<_> = ('a'..='l')
        .enumerate()
        .map(|(number, id)| {
            let store = Arc::clone(if number % 2 == 0 { &bench.store } else { &bench.other });
            tokio::spawn(async move {
                let first = |held: &[Licence]| held.iter().all(|held| !held.trial);
                let trial = Licence { trial: true, ..licence(id, "acme") };
                store.insert_licence_if(&trial, &first).await.expect("an insert")
            })
        })
        .collect();
    let mut done = 0;
    for grant in grants {
        done += u32::from(grant.await.expect("a grant") == Inserted::Done);
    }
    assert_eq!(done, 1);
    let held = bench.store.licences(Some(&name("acme"))).await.expect("a list");
    assert!(held.len() == 1 && held[0].trial);
    let store = &bench.store;
    let taken = store.insert_licence_if(&licence('0', "acme"), &|_| true).await;
    assert_eq!(taken.expect("an answer"), Inserted::Taken);
    assert!(store.insert_licence_if(&licence('9', "nobody"), &|_| true).await.is_err());
}
