//! Notices: claimed once, kept with every field, forgotten by their end.

use super::*;
use crate::notices::{Notice, NoticeState, Occasion};

fn notice(id: char, ends: u64, ahead: u64) -> Notice {
    Notice {
        occasion: Occasion { licence: licence_id(id), ends_at: at(ends), ahead: Duration::from_secs(ahead) },
        message: "msg_1".to_owned(),
        state: NoticeState::Open,
        attempts: 1,
        next_at: at(5),
    }
}

pub(crate) async fn notices_keep_every_field_and_are_forgotten(bench: Bench) {
    let store = &bench.store;
    let reached = store.version().await.expect("a version");
    let first = notice('a', 100, 30);
    let nothing = store.update_notice(&first.occasion, &|held| held).await.expect("an update");
    assert_eq!(nothing, None);
    let made = store.update_notice(&first.occasion, &|_| Some(first.clone())).await.expect("an update");
    assert_eq!(made.as_ref(), Some(&first));
    for state in [NoticeState::Sent, NoticeState::GivenUp, NoticeState::Open] {
        let next_at = Timestamp::from_millis(77_777);
        let other = Notice { message: "msg_2".to_owned(), state, attempts: u32::MAX, next_at, ..first.clone() };
        let change = |held: Option<Notice>| {
            assert!(held.is_some());
            // The occasion never changes.
            Some(Notice { occasion: notice('z', 1, 1).occasion, ..other.clone() })
        };
        let written = store.update_notice(&first.occasion, &change).await.expect("an update");
        assert_eq!(written.as_ref(), Some(&other));
        assert_eq!(bench.other.notices(at(99)).await.expect("a list"), [other]);
    }
    for more in [notice('a', 100, 0), notice('a', 200, 30), notice('b', 100, 30)] {
        store.update_notice(&more.occasion, &|held| held.is_none().then(|| more.clone())).await.expect("an update");
    }
    assert_eq!(store.notices(at(99)).await.expect("a list").len(), 4);
    assert_eq!(store.notices(at(100)).await.expect("a list"), [notice('a', 200, 30)]);
    assert_eq!(store.forget_notices(at(99)).await.expect("forgetting"), 0);
    assert_eq!(store.forget_notices(at(100)).await.expect("forgetting"), 3);
    assert_eq!(store.notices(at(0)).await.expect("a list"), [notice('a', 200, 30)]);
    assert_eq!(changes(store, reached).await, [], "nobody follows them");
}

pub(crate) async fn a_notice_is_claimed_by_one_of_many(bench: Bench) {
    let claims: Vec<_> = (0..20)
        .map(|number| {
            let store = Arc::clone(if number % 2 == 0 { &bench.store } else { &bench.other });
            tokio::spawn(async move {
                let wanted = Notice { message: format!("msg_{number}"), ..notice('a', 100, 30) };
                let claim = |held: Option<Notice>| held.is_none().then(|| wanted.clone());
                store.update_notice(&wanted.occasion, &claim).await.expect("an update").is_some()
            })
        })
        .collect();
    let mut claimed = 0;
    for claim in claims {
        claimed += u32::from(claim.await.expect("a claim"));
    }
    assert_eq!(claimed, 1);
}

pub(crate) async fn licences_are_found_by_their_end(bench: Bench) {
    with_accounts(&bench, &["acme", "other"]).await;
    let ending = |id, of, end| Licence { ends_at: end, ..licence(id, of) };
    for held in [
        ending('e', "acme", None),
        ending('d', "acme", Some(at(30))),
        ending('c', "other", Some(at(20))),
        ending('b', "acme", Some(at(20))),
        ending('a', "acme", Some(at(10))),
    ] {
        assert!(bench.store.insert_licence(&held).await.expect("an insert"));
    }
    let found = async |after, until| {
        let found = bench.store.licences_ending(at(after), at(until)).await.expect("a list");
        found.into_iter().map(|licence| licence.id).collect::<Vec<_>>()
    };
    assert_eq!(found(10, 30).await, ['b', 'c', 'd'].map(licence_id));
    assert_eq!(found(9, 20).await, ['a', 'b', 'c'].map(licence_id));
    assert_eq!(found(30, 1000).await, []);
}
