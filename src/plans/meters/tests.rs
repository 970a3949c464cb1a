//! Whose counts are whose.

use std::sync::Barrier;

use proptest::prelude::*;

use super::*;
use crate::plans::{Bound, CountStore, Limit, Share};
use crate::store::MemoryStore;

fn any_address() -> impl Strategy<Value = Address> {
    let address = prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u16; 8]>().prop_map(IpAddr::from)];
    (address, any::<bool>()).prop_map(|(address, is_own)| match is_own {
        true => Address::Own(address),
        false => Address::Shared(client_addr::neighbourhood(address)),
    })
}

fn any_subject() -> impl Strategy<Value = Subject> {
    let id = "[0-9A-Za-z]{12}";
    let route = || "[a-z0-9._-]{1,64}".prop_map(|id| id.parse::<RouteId>().unwrap());
    prop_oneof![
        id.prop_map(|id| Subject::Licence(id.parse().unwrap())),
        id.prop_map(|id| Subject::Key(id.parse().unwrap())),
        (route(), "[0-9A-Za-z][0-9A-Za-z._@+-]{0,40}")
            .prop_map(|(route, account)| Subject::Route(route, account.parse().unwrap())),
        any_address().prop_map(Subject::Address),
        (route(), any_address()).prop_map(|(route, address)| Subject::RouteAddress(route, address)),
    ]
}

proptest! {
    #[test]
    fn a_subject_is_read_as_it_was_written(subject in any_subject()) {
        prop_assert_eq!(subject.to_string().parse(), Ok(subject));
    }
}

/// Rows are kept for longer than a gateway lives: what was written is read by every later one.
#[test]
fn a_subject_is_written_so() {
    let route: RouteId = "orders".parse().unwrap();
    let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
    let (v4, v6) = (address("192.0.2.1"), address("2001:db8::7"));
    let wide = |text: &str| Address::Shared(text.parse().unwrap());
    for (text, subject) in [
        ("licence:0123456789ab", Subject::Licence("0123456789ab".parse().unwrap())),
        ("key:0123456789ab", Subject::Key("0123456789ab".parse().unwrap())),
        ("route:orders:acme", Subject::Route(route.clone(), "acme".parse().unwrap())),
        // An account may have such a name.
        ("route:orders:192.0.2.1", Subject::Route(route.clone(), "192.0.2.1".parse().unwrap())),
        ("address:2001:db8::", Subject::Address(v6)),
        ("route-address:orders:192.0.2.1", Subject::RouteAddress(route.clone(), v4)),
        ("route-address:orders:2001:db8::", Subject::RouteAddress(route.clone(), v6)),
        ("address:192.0.0.0/16", Subject::Address(wide("192.0.0.0/16"))),
        ("route-address:orders:2001::/16", Subject::RouteAddress(route, wide("2001::/16"))),
    ] {
        assert_eq!(subject.to_string(), text);
        assert_eq!(text.parse(), Ok(subject));
    }
    for bad in ["", "acme", "route:orders", "route:orders:2001:db8::", "route-address:orders:acme", "address:acme"] {
        assert_eq!(bad.parse::<Subject>(), Err(InvalidSubject), "{bad}");
    }
}

const DAY: Duration = Duration::from_secs(86_400);
const NOW: Timestamp = Timestamp::from_secs(20_000 * 86_400);
const MOST: usize = 4;
const QUOTA: u64 = 3;

fn plan() -> Arc<Plan> {
    let limit = Limit::named("requests_per_day", QUOTA, None).unwrap();
    Arc::new(Plan { id: "trial".parse().unwrap(), limits: vec![limit] })
}

fn bound(meters: &Arc<Meters>, plan: &Arc<Plan>, subject: Subject) -> (Subject, Arc<Bound>) {
    let counted = meters.of(plan, subject);
    let whose = counted.subject.clone();
    (whose, Arc::new(Bound::new(meters, vec![Share { counted, plan: Arc::clone(plan) }], vec![])))
}

/// Of three networks.
fn nth(n: u8) -> IpAddr {
    IpAddr::from([10, n % 3, 0, n])
}

/// What is done to the meters.
#[derive(Debug, Clone, Copy)]
enum Step {
    Take(u8),
    TakeOnRoute(u8),
    Key,
    Wait(u64),
    Forget,
    Flush,
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..20u8).prop_map(Step::Take),
        4 => (0..20u8).prop_map(Step::TakeOnRoute),
        1 => Just(Step::Key),
        2 => (0..40_000_000u64).prop_map(Step::Wait),
        1 => Just(Step::Forget),
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ]
}

async fn run(steps: Vec<Step>) {
    let (store, plan, route) = (MemoryStore::new(), plan(), "orders".parse::<RouteId>().unwrap());
    let with_room = |rows| Arc::new(Meters::with_room(&Settings::default(), rows, MOST));
    let mut meters = with_room(vec![]);
    // What each has used today, by the name under which it was counted.
    let (mut used, mut today) = (HashMap::<Subject, u64>::new(), 0);
    let mut now = NOW;
    for step in steps {
        if now.secs() / DAY.as_secs() != today {
            today = now.secs() / DAY.as_secs();
            used.clear();
        }
        match step {
            Step::Take(_) | Step::TakeOnRoute(_) => {
                let asked = match step {
                    Step::TakeOnRoute(n) => Subject::RouteAddress(route.clone(), nth(n).into()),
                    Step::Take(n) => Subject::Address(nth(n).into()),
                    _ => continue,
                };
                meters.make_room(now);
                let (whose, bound) = bound(&meters, &plan, asked.clone());
                assert!(whose == asked || Some(&whose) == asked.crowded().as_ref(), "{whose} is counted for {asked}");
                if whose != asked {
                    assert!(meters.addresses.load(Ordering::Relaxed) >= MOST, "{asked} is crowded where there is room");
                    assert!(!used.contains_key(&asked), "{asked} has lost its own counts, with a day's use");
                }
                // Exact, whoever else comes, is forgotten or crowds in.
                let count = used.entry(whose).or_default();
                assert_eq!(bound.take(now).is_ok(), *count < QUOTA);
                *count = (*count + 1).min(QUOTA);
            }
            Step::Key => {
                bound(&meters, &plan, Subject::Key(KeyId::random())).1.take(now).unwrap();
            }
            Step::Wait(millis) => now = now + Duration::from_millis(millis),
            Step::Forget => meters.forget(now),
            Step::Flush => meters.flush(&store, now).await.unwrap(),
            Step::Restart => {
                meters.flush(&store, now).await.unwrap();
                meters = with_room(store.counts(now).await.unwrap());
            }
        }
        // Memory is bounded, and the bound is counted right.
        let in_memory = meters.counted.iter().filter(|entry| entry.key().1.needs_room()).count();
        let in_store = lock(&meters.stored).keys().filter(|(_, subject)| subject.needs_room()).count();
        assert_eq!(in_memory + in_store, meters.addresses.load(Ordering::Relaxed));
        assert!(in_memory + in_store <= MOST);
    }
}

proptest! {
    #[test]
    fn who_finds_no_room_is_counted_all_the_same(steps in prop::collection::vec(any_step(), 1..120)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(steps));
    }
}

#[test]
fn addresses_have_room_of_their_own_and_get_it_back() {
    let (plan, meters) = (plan(), Arc::new(Meters::with_room(&Settings::default(), vec![], MOST)));
    let own = |n| Subject::Address(nth(n).into());
    for _ in 0..3 * MOST {
        bound(&meters, &plan, Subject::Key(KeyId::random())).1.take(NOW).unwrap();
    }
    for n in 0..4 {
        let (whose, bound) = bound(&meters, &plan, own(n));
        assert_eq!(whose, own(n), "keys take no address's room");
        bound.take(NOW).unwrap();
    }
    meters.take_listed();
    // Those of one network share one count, those of another have their own.
    for (n, network, left) in
        [(5, "10.2.0.0/16", 2), (8, "10.2.0.0/16", 1), (6, "10.0.0.0/16", 2), (5, "10.2.0.0/16", 0)]
    {
        meters.make_room(NOW);
        let (whose, bound) = bound(&meters, &plan, own(n));
        assert_eq!(whose, Subject::Address(Address::Shared(network.parse().unwrap())));
        assert_eq!(bound.take(NOW).unwrap().shown[0].standing.left, left, "{n}");
    }
    assert!(bound(&meters, &plan, own(11)).1.take(NOW).is_err(), "and that can be used up");
    meters.take_listed();
}

/// Nothing of theirs counts any more from midnight on; but whoever has looked a moment ago does not look again.
#[test]
fn room_is_looked_for_now_and_then() {
    let (plan, midnight, second) = (plan(), NOW + DAY, Duration::from_secs(1));
    for (wait, finds_room) in [(LOOKS_EVERY - second, false), (LOOKS_EVERY, true)] {
        let meters = Arc::new(Meters::with_room(&Settings::default(), vec![], 1));
        let own = |n| Subject::Address(nth(n).into());
        bound(&meters, &plan, own(1)).1.take(NOW).unwrap();
        meters.take_listed();
        let last = midnight - second;
        for at in [last, last + wait] {
            meters.make_room(at);
            assert_eq!(meters.is_empty(), finds_room && at > last);
        }
        assert_eq!(bound(&meters, &plan, own(2)).0 == own(2), finds_room);
    }
}

#[test]
fn no_more_find_room_than_there_is_however_many_come_at_once() {
    let (plan, meters) = (plan(), Arc::new(Meters::with_room(&Settings::default(), vec![], 50)));
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                for n in 0..200u8 {
                    bound(&meters, &plan, Subject::Address(nth(n).into())).1.take(NOW).ok();
                }
            });
        }
    });
    let own = meters.counted.iter().filter(|entry| entry.key().1.needs_room()).count();
    assert_eq!((own, meters.len()), (50, 53));
}
