//! The choice among real endpoints; nothing is sent.

use super::*;

#[tokio::test]
async fn a_returning_target_gets_a_small_share_of_requests() {
    let ejection = Ejection { failures: 1, time: Duration::ZERO, return_over: Duration::from_secs(100_000) };
    for balance in [Balance::RoundRobin, Balance::LeastRequests, Balance::Account] {
        let upstream = upstream(UpstreamSettings {
            balance,
            ejection: ejection.clone(),
            ..settings(&["http://127.0.0.1:1", "http://127.0.0.1:2"])
        });
        let returning = Arc::clone(&upstream.core.endpoints.load()[0]);
        returning.failed("test");
        assert_eq!((upstream.snapshot().returning, upstream.snapshot().available), (1, 1));
        let chosen = (0..4000u64)
            .filter(|account| {
                Arc::ptr_eq(
                    &upstream.core.choose(upstream.core.next_turn(), balance::mix(*account), &[]).unwrap(),
                    &returning,
                )
            })
            .count();
        // A tenth of a half.
        assert!((100..320).contains(&chosen), "{balance:?}: {chosen}");
        // With the other one tried, it is better than none.
        let other = Arc::clone(&upstream.core.endpoints.load()[1]);
        assert!(Arc::ptr_eq(
            &upstream.core.choose(upstream.core.next_turn(), 1, std::slice::from_ref(&other)).unwrap(),
            &returning
        ));
        assert!(upstream.core.choose(upstream.core.next_turn(), 1, &[other, returning]).is_none());
    }
}

#[tokio::test]
async fn an_account_stays_with_its_target() {
    let targets = ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"];
    let upstream = upstream(UpstreamSettings { balance: Balance::Account, ..settings(&targets) });
    for account in 0..50 {
        let first = upstream.core.choose(upstream.core.next_turn(), account, &[]).unwrap();
        assert!(
            (0..20)
                .all(|_| Arc::ptr_eq(&upstream.core.choose(upstream.core.next_turn(), account, &[]).unwrap(), &first))
        );
    }
}
