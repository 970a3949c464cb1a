use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::revocations::{Cutoff, Target};
use crate::tokens::Terms;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn token(account: &str, expires_in: u64) -> Token {
    Token {
        account: account.parse().unwrap(),
        client: Client::Password,
        groups: ["demo".parse().unwrap()].into(),
        id: TokenId::random(),
        issued_at: NOW.secs(),
        expires_at: NOW.secs() + expires_in,
        terms: Terms::default(),
    }
}

fn admit(registry: &Registry, token: &Token) -> Digest {
    let digest = Digest::of(token.id.to_string().as_bytes());
    registry.admit(digest, token, NOW).expect("not revoked");
    digest
}

fn revoke(registry: &Registry, target: Target, cutoff: u64) {
    let forget_at = NOW + Duration::from_secs(100_000);
    registry.revoke(&Revocation { target, cutoff: Cutoff(cutoff), made_at: NOW, forget_at });
}

#[test]
fn a_session_is_live_until_its_expiry_and_evicted_when_read_at_it() {
    let registry = Registry::new(100);
    let digest = admit(&registry, &token("acme", 60));
    assert!(matches!(registry.look_up(&digest, NOW + Duration::from_millis(59_999)), Lookup::Live(_)));
    assert!(matches!(registry.look_up(&digest, NOW + Duration::from_secs(60)), Lookup::Expired(_)));
    assert!(matches!(registry.look_up(&digest, NOW), Lookup::Unknown), "it is gone, not hidden");
    assert_eq!((registry.len(), registry.evictions().on_read), (0, 1));
}

#[test]
fn leeway_holds_for_what_is_known_as_for_what_is_verified() {
    let registry = Registry::new(100).with_leeway(Duration::from_secs(30));
    let digest = admit(&registry, &token("acme", 60));
    assert_eq!(registry.next_expiry(), Some(NOW + Duration::from_secs(90)));
    assert_eq!(registry.sweep(NOW + Duration::from_secs(89)), 0);
    assert!(matches!(registry.look_up(&digest, NOW + Duration::from_secs(89)), Lookup::Live(_)));
    assert!(matches!(registry.look_up(&digest, NOW + Duration::from_secs(90)), Lookup::Expired(_)));
    let digest = admit(&registry, &token("acme", 61));
    assert_eq!(registry.sweep(NOW + Duration::from_secs(91)), 1);
    assert!(matches!(registry.look_up(&digest, NOW), Lookup::Unknown));
}

#[test]
fn what_was_issued_by_a_clock_that_was_ahead_is_not_known_until_its_time_comes() {
    let leeway = Duration::from_secs(30);
    let registry = Registry::new(100).with_leeway(leeway);
    let digest = admit(&registry, &token("acme", 3600));
    let early = NOW - leeway - MOST_AHEAD;
    assert!(matches!(registry.look_up(&digest, early - Duration::from_millis(1)), Lookup::Unknown));
    assert!(matches!(registry.look_up(&digest, early), Lookup::Live(_)), "it is not evicted");
}

#[test]
fn the_sweep_evicts_what_nobody_presents() {
    let registry = Registry::new(1000);
    for n in 0..300 {
        admit(&registry, &token(&format!("a{}", n % 7), 10 + n % 20));
    }
    assert_eq!(registry.next_expiry(), Some(NOW + Duration::from_secs(10)));
    assert_eq!(registry.sweep(NOW + Duration::from_secs(9)), 0);
    assert_eq!(registry.sweep(NOW + Duration::from_secs(10)), 15);
    assert_eq!(registry.next_expiry(), Some(NOW + Duration::from_secs(11)));
    assert_eq!(registry.sweep(NOW + Duration::from_secs(100)), 285);
    assert_eq!((registry.len(), registry.principals(), registry.next_expiry()), (0, 0, None));
}

#[tokio::test]
async fn the_sweeper_wakes_for_an_expiry_that_comes_before_the_one_it_waits_for() {
    let registry = Arc::new(Registry::new(100));
    let clock = Arc::new(ManualClock::new(NOW));
    let sweeper = tokio::spawn(keep_swept(Arc::clone(&registry), Arc::clone(&clock) as Arc<dyn Clock>));
    admit(&registry, &token("acme", 3600));
    tokio::task::yield_now().await;
    admit(&registry, &token("acme", 5));
    tokio::task::yield_now().await;
    clock.advance(Duration::from_secs(5));
    while registry.len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(registry.evictions().swept, 1);
    sweeper.abort();
}

#[test]
fn a_full_registry_evicts_the_soonest_to_expire() {
    let registry = Registry::new(3);
    let soon = admit(&registry, &token("a", 10));
    let later: Vec<_> = (0..3).map(|n| admit(&registry, &token("b", 100 + n))).collect();
    assert_eq!((registry.len(), registry.evictions().for_room), (3, 1));
    assert!(matches!(registry.look_up(&soon, NOW), Lookup::Unknown));
    assert!(later.iter().all(|digest| matches!(registry.look_up(digest, NOW), Lookup::Live(_))));
}

#[test]
fn every_kind_of_revocation_ends_its_tokens_and_no_others() {
    let registry = Registry::new(100);
    let key: crate::ids::KeyId = "0123456789ab".parse().unwrap();
    let by_key = Token { client: Client::Key(key), ..token("acme", 60) };
    let (one, other, of_key, of_another) = (token("acme", 60), token("acme", 60), by_key, token("globex", 60));
    let digests: Vec<_> = [&one, &other, &of_key, &of_another].map(|token| admit(&registry, token)).into();
    let live = || -> Vec<bool> {
        digests.iter().map(|digest| matches!(registry.look_up(digest, NOW), Lookup::Live(_))).collect()
    };
    assert_eq!(live(), [true; 4]);
    revoke(&registry, Target::Token(one.id), Cutoff::FOREVER.0);
    assert_eq!(live(), [false, true, true, true]);
    revoke(&registry, Target::Key(key), NOW.secs() + 1);
    assert_eq!(live(), [false, true, false, true]);
    revoke(&registry, Target::Account("acme".parse().unwrap()), NOW.secs() + 1);
    assert_eq!(live(), [false, false, false, true]);
    revoke(&registry, Target::All, NOW.secs());
    assert_eq!(live(), [false, false, false, true], "issued at the cut-off is good");
    revoke(&registry, Target::All, NOW.secs() + 1);
    assert_eq!(live(), [false; 4]);
    assert!(registry.admit(Digest::of(b"again"), &one, NOW).is_none(), "a dead token is not taken in again");
    assert_eq!(registry.evictions().revoked, 4);
}

#[test]
fn sessions_are_listed_by_account_and_by_credential() {
    let registry = Registry::new(100);
    let key = Client::Key("0123456789ab".parse().unwrap());
    admit(&registry, &token("acme", 60));
    admit(&registry, &Token { client: key.clone(), ..token("acme", 30) });
    admit(&registry, &token("globex", 60));
    let account = "acme".parse().unwrap();
    let all = registry.sessions_of(&account, None);
    assert_eq!(all.iter().map(|session| session.expires_at - NOW.secs() as u32).collect::<Vec<_>>(), [30, 60]);
    assert_eq!(registry.sessions_of(&account, Some(&key)).len(), 1);
}

#[test]
fn admission_and_sweeping_from_many_threads_lose_nothing() {
    let registry = Registry::new(1_000_000);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let registry = &registry;
            scope.spawn(move || {
                for n in 0..2_000u64 {
                    admit(registry, &token(&format!("a{}", n % 3), 1 + (n + thread) % 50));
                    if n % 10 == 0 {
                        registry.sweep(NOW + Duration::from_secs(n % 50));
                    }
                }
            });
        }
    });
    registry.sweep(NOW + Duration::from_secs(1000));
    assert_eq!((registry.len(), registry.principals(), registry.next_expiry()), (0, 0, None));
    assert_eq!(registry.evictions().swept, 8_000);
}

proptest! {
    /// Against the simplest model there is: a list of tokens with their expiries.
    #[test]
    fn whatever_the_order_the_live_ones_are_live(
        steps in prop::collection::vec((0u64..40, 0u64..5, any::<bool>()), 1..120)
    ) {
        let registry = Registry::new(1_000);
        let mut model: Vec<(Digest, u64)> = Vec::new();
        let mut now = NOW;
        for (life, step, sweep) in steps {
            let mut token = token(if life % 2 == 0 { "even" } else { "odd" }, life);
            token.expires_at = now.secs() + life + 1;
            let digest = Digest::of(token.id.to_string().as_bytes());
            registry.admit(digest, &token, now);
            model.push((digest, token.expires_at));
            now = now + Duration::from_secs(step);
            if sweep {
                registry.sweep(now);
                prop_assert_eq!(registry.len(), model.iter().filter(|(_, at)| *at > now.secs()).count());
            }
            for (digest, at) in &model {
                let live = matches!(registry.look_up(digest, now), Lookup::Live(_));
                prop_assert_eq!(live, *at > now.secs());
            }
        }
    }
}
