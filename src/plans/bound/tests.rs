//! One step takes all or nothing, whoever else is at it.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::ids::{KeyId, LicenceId};
use crate::plans::{Line, Row, Settings, Subject};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn meters() -> Arc<Meters> {
    Arc::new(Meters::new(&Settings::default(), vec![]))
}

fn plan(id: &str, limits: &[(&str, u64)]) -> Arc<Plan> {
    let limit = |(name, most): &(&str, u64)| Limit::named(name, *most, None).unwrap();
    Arc::new(Plan { id: id.parse().unwrap(), limits: limits.iter().map(limit).collect() })
}

fn share(meters: &Meters, plan: &Arc<Plan>, subject: &Subject) -> Share {
    Share { counted: meters.of(plan, subject.clone()), plan: Arc::clone(plan) }
}

fn key() -> Subject {
    Subject::Key(KeyId::random())
}

fn left(taken: &[Shown]) -> Vec<(String, u64)> {
    taken.iter().map(|shown| (shown.plan.id.to_string(), shown.standing.left)).collect()
}

/// Threads take by bounds that have some meters in common, in whatever order they were written: nobody waits for ever, and of
/// each meter no more is taken than there is.
#[test]
fn many_threads_take_exactly_what_there_is() {
    const MOST: u64 = 500;
    let meters = meters();
    let plan = plan("pro", &[("requests_per_day", MOST), ("requests_per_hour", 10 * MOST)]);
    let subjects: Vec<Subject> = (0..3).map(|_| key()).collect();
    let bounds: Vec<_> = [[0, 1], [1, 2], [2, 0], [1, 0]]
        .map(|pair| pair.map(|at| share(&meters, &plan, &subjects[at])).to_vec())
        .map(|all| Arc::new(Bound::new(&meters, all, vec![])))
        .into();
    let (taken, barrier) = ([const { AtomicUsize::new(0) }; 4], Barrier::new(8));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (bound, taken, barrier) = (&bounds[thread % 4], &taken[thread % 4], &barrier);
            scope.spawn(move || {
                barrier.wait();
                while bound.take(NOW).is_ok() {
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let taken = taken.map(|taken| taken.load(Ordering::Relaxed) as u64);
    let of = [taken[0] + taken[2] + taken[3], taken[0] + taken[1] + taken[3], taken[1] + taken[2]];
    for (subject, of) in subjects.iter().zip(of) {
        assert!(of <= MOST);
        let counted = meters.of(&plan, subject.clone());
        let mut standings = counted.lock();
        let left: Vec<_> =
            standings.meter.standings(&plan, meters.calendar(), NOW).map(|standing| standing.left).collect();
        assert_eq!(left, [MOST - of, 10 * MOST - of], "what was refused is counted nowhere");
    }
    // Two of three subjects are used up, or none would have been refused.
    assert!(of.iter().filter(|of| **of == MOST).count() >= 2, "{of:?}");
}

#[test]
fn the_first_alternative_that_has_some_left_is_charged() {
    let meters = meters();
    let (small, large) = (plan("small", &[("requests_per_day", 1)]), plan("large", &[("requests_per_hour", 2)]));
    let own = plan("own", &[("requests_per_day", 9)]);
    let licence = |plan| vec![share(&meters, plan, &Subject::Licence(LicenceId::random()))];
    let all = vec![share(&meters, &own, &key())];
    let bound = Arc::new(Bound::new(&meters, all, vec![licence(&small), licence(&large)]));
    let expected = [("small", 0), ("large", 1), ("large", 0)];
    for (turn, (plan, remaining)) in expected.into_iter().enumerate() {
        let taken = bound.take(NOW).unwrap();
        assert_eq!(left(&taken.shown), [("own".to_owned(), 8 - turn as u64), (plan.to_owned(), remaining)]);
    }
    let refused = bound.take(NOW).unwrap_err();
    assert_eq!((refused.plan.id.as_str(), left(&refused.shown)[0].1), ("large", 6), "the first that will have more");
    assert!(bound.take(NOW + refused.wait - Duration::from_millis(1)).is_err());
    assert!(bound.take(NOW + refused.wait).is_ok());
}

#[test]
fn of_each_list_one_is_charged_and_none_twice() {
    let meters = meters();
    let day = |id, most| plan(id, &[("requests_per_day", most)]);
    let options = [day("a", 9), day("ab", 3), day("b", 9)];
    let options = options.map(|plan| vec![share(&meters, &plan, &Subject::Licence(LicenceId::random()))]);
    let bound = |each: &[&[usize]]| {
        let each = each.iter().map(|list| list.to_vec()).collect();
        Arc::new(Bound::of_each(&meters, vec![], options.to_vec(), each))
    };
    let charged = |bound: &Arc<Bound>| {
        let mut left = left(&bound.take(NOW).unwrap().shown);
        left.sort();
        left.into_iter().map(|(plan, left)| format!("{plan} {left}")).collect::<Vec<_>>().join(", ")
    };
    // What must be charged for one serves the other, wherever it stands.
    assert_eq!(charged(&bound(&[&[0, 1], &[1]])), "ab 2");
    // The first for each, and what was charged for the one before it serves the next.
    assert_eq!(charged(&bound(&[&[0, 1], &[2, 1]])), "a 8, b 8");
    assert_eq!(charged(&bound(&[&[1, 0], &[2, 1]])), "ab 1");
    assert_eq!(charged(&bound(&[&[1, 0], &[2, 1]])), "ab 0");
    // When it has nothing left, each finds another one.
    assert_eq!(charged(&bound(&[&[1, 0], &[2, 1]])), "a 7, b 7");
    let refused = bound(&[&[0], &[1], &[2]]).take(NOW).unwrap_err();
    assert_eq!(refused.plan.id.as_str(), "ab");
    assert_eq!(left(&refused.shown), [("a".to_owned(), 7), ("ab".to_owned(), 0), ("b".to_owned(), 7)]);
    assert_eq!(charged(&bound(&[&[0], &[2], &[]])), "a 6, b 6");
}

/// Both are charged or neither is, whoever else takes of one of them.
#[test]
fn threads_that_take_of_several_lists_take_all_or_nothing() {
    const MOST: u64 = 300;
    let (meters, plan) = (meters(), plan("pro", &[("requests_per_day", MOST)]));
    let subjects: Vec<Subject> = (0..3).map(|_| Subject::Licence(LicenceId::random())).collect();
    let options: Vec<_> = subjects.iter().map(|subject| vec![share(&meters, &plan, subject)]).collect();
    let bounds = [vec![vec![0], vec![1]], vec![vec![1], vec![2]], vec![vec![2]]]
        .map(|each| Arc::new(Bound::of_each(&meters, vec![], options.clone(), each)));
    let (taken, barrier) = ([const { AtomicUsize::new(0) }; 3], Barrier::new(6));
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (bound, taken, barrier) = (&bounds[thread % 3], &taken[thread % 3], &barrier);
            scope.spawn(move || {
                barrier.wait();
                while bound.take(NOW).is_ok() {
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let [a, b, c] = taken.map(|taken| taken.load(Ordering::Relaxed) as u64);
    let used: Vec<u64> = options.iter().map(|shares| MOST - shares[0].shown(&meters, NOW)[0].standing.left).collect();
    assert_eq!(used, [a, a + b, b + c]);
    assert!(used[1] == MOST && used[2] == MOST, "{used:?}");
}

proptest! {
    /// It passes where every list has an option that has something left, and all else that holds has too. Then of each list one
    /// is charged, once, and nothing besides; or nothing at all, and after the wait that was named it passes, and not before.
    #[test]
    fn all_that_is_asked_for_is_charged_or_nothing(
        quotas in prop::collection::vec((1..6u64, any::<bool>()), 1..5),
        own in 1..12u64,
        each in prop::collection::vec(prop::collection::vec(any::<bool>(), 5), 0..4),
        steps in prop::collection::vec(0..20_000_000u64, 1..25),
    ) {
        let meters = meters();
        let option = |(most, is_day): (u64, bool)| {
            let plan = plan("option", &[(if is_day { "requests_per_day" } else { "requests_per_hour" }, most)]);
            vec![share(&meters, &plan, &Subject::Licence(LicenceId::random()))]
        };
        let options: Vec<_> = quotas.into_iter().map(option).collect();
        let own = share(&meters, &plan("own", &[("requests_per_day", own)]), &key());
        let each: Vec<Vec<usize>> =
            each.into_iter().map(|list| (0..options.len()).filter(|place| list[*place]).collect()).collect();
        let bound = Arc::new(Bound::of_each(&meters, vec![own.clone()], options.clone(), each.clone()));
        let lists = || each.iter().filter(|list| !list.is_empty());
        let left = |now| -> Vec<u64> {
            let all = options.iter().map(|shares| &shares[0]).chain([&own]);
            all.map(|share| share.shown(&meters, now)[0].standing.left).collect()
        };
        let mut now = NOW;
        for step in steps {
            let before = left(now);
            let passes = before[options.len()] > 0 && lists().all(|list| list.iter().any(|place| before[*place] > 0));
            let taken = bound.take(now);
            prop_assert_eq!(taken.is_ok(), passes, "{:?} of {:?}", before, each);
            let after = left(now);
            match taken {
                Ok(_) => {
                    let charged: Vec<usize> = (0..options.len()).filter(|place| after[*place] < before[*place]).collect();
                    prop_assert_eq!(after[options.len()] + 1, before[options.len()]);
                    prop_assert!(charged.iter().all(|place| after[*place] + 1 == before[*place]), "{:?}", charged);
                    prop_assert!(lists().all(|list| list.iter().any(|place| charged.contains(place))), "{:?}", charged);
                    let serves = |place: &usize| lists().any(|list| list.contains(place));
                    prop_assert!(charged.iter().all(serves) && charged.len() <= lists().count(), "{:?}", charged);
                    now = now + Duration::from_millis(step);
                }
                Err(refused) => {
                    prop_assert_eq!(after, before);
                    prop_assert!(bound.take(now + refused.wait - Duration::from_millis(1)).is_err());
                    now = now + refused.wait;
                    prop_assert!(bound.take(now).is_ok(), "after {:?}", refused.wait);
                }
            }
        }
    }
}

#[test]
fn a_place_is_given_back_once() {
    let meters = meters();
    let (plan, subject) = (plan("pro", &[("concurrent", 2), ("bytes_per_day", 100)]), key());
    let bound = Arc::new(Bound::new(&meters, vec![share(&meters, &plan, &subject)], vec![]));
    let mut first = bound.take(NOW).unwrap().held.unwrap();
    let second = bound.take(NOW).unwrap();
    assert_eq!(bound.take(NOW).unwrap_err().wait, Duration::ZERO);
    first.end();
    first.end();
    // What has ended may still have bytes on their way.
    first.pass(40, NOW);
    drop(first);
    let third = bound.take(NOW).unwrap();
    assert_eq!(left(&third.shown), [("pro".to_owned(), 0), ("pro".to_owned(), 60)]);
    drop((second, third));
    drop(bound);
    assert_eq!(meters.len(), 1);
    meters.forget(NOW + Duration::from_secs(86_400));
    assert_eq!(meters.len(), 1, "what is to be written stays");
    drop(meters.take_listed());
    meters.forget(NOW);
    assert_eq!(meters.len(), 1, "bytes of this day count still");
    meters.forget(NOW + Duration::from_secs(86_400));
    assert!(meters.is_empty());
}

/// Of alternatives the later ones are not asked while the first allows it: what the store says of them is kept meanwhile.
#[test]
fn what_nobody_has_asked_for_yet_is_not_forgotten() {
    let plan = plan("pro", &[("requests_per_day", 2)]);
    let [first, second] = [(); 2].map(|()| Subject::Licence(LicenceId::random()));
    let from = Timestamp::from_secs(NOW.secs() - NOW.secs() % 86_400);
    let day = Duration::from_secs(86_400);
    let line = Line { plan: plan.id.clone(), subject: second.clone(), limit: "day".to_owned(), from };
    let used_up = Row { line, until: from + day, used: 2 };
    let meters = Arc::new(Meters::new(&Settings::default(), vec![used_up]));
    let bound = || {
        let either = [&first, &second].map(|subject| vec![share(&meters, &plan, subject)]);
        Arc::new(Bound::new(&meters, vec![], either.into()))
    };
    bound().take(NOW).unwrap();
    meters.take_listed();
    meters.forget(NOW);
    bound().take(NOW).unwrap();
    meters.take_listed();
    meters.forget(NOW);
    assert!(bound().take(NOW).is_err(), "both are used up");
    meters.forget(from + day);
    assert!(meters.is_empty(), "and forgotten when they count no more");
}
