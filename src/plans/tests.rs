//! Meters against plain models of what they promise.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::plans::{HOUR, MINUTE, Period, Span};

const UTC: &str = "UTC";

fn plan(limits: Vec<Limit>) -> Plan {
    Plan { id: "pro".parse().unwrap(), limits }
}

fn requests(most: u64, span: Span) -> Limit {
    Limit { measure: Measure::Requests, most, span }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + millis)
}

/// A plan's meter, and the time.
#[derive(Clone)]
struct Desk {
    plan: Plan,
    calendar: Calendar,
    meter: Meter,
}

impl Desk {
    fn new(limits: Vec<Limit>) -> Self {
        let plan = plan(limits);
        Self { meter: Meter::default(), plan, calendar: UTC.parse().unwrap() }
    }

    fn take(&mut self, millis: u64) -> Result<(), Exceeded> {
        self.meter.take(&self.plan, &self.calendar, at(millis))
    }

    fn take_at(&mut self, millis: u64) -> Result<(), Exceeded> {
        self.meter.take(&self.plan, &self.calendar, Timestamp::from_millis(millis))
    }

    fn left(&mut self, millis: u64) -> Vec<(u64, u64)> {
        let standings = self.meter.standings(&self.plan, &self.calendar, at(millis));
        standings.map(|standing| (standing.left, standing.reset.as_secs())).collect()
    }
}

#[test]
fn a_burst_comes_at_once_and_the_rest_at_its_rate() {
    let mut desk = Desk::new(vec![requests(2, Span::Second { burst: 5 })]);
    for n in (0..5).rev() {
        assert_eq!(desk.take(0), Ok(()));
        assert_eq!(desk.left(0)[0].0, n);
    }
    assert_eq!(desk.take(0), Err(Exceeded { limit: 0, wait: Duration::from_millis(500) }));
    assert!(desk.take(499).is_err());
    assert_eq!(desk.take(500), Ok(()));
    assert_eq!(desk.left(3000), [(5, 0)]);
}

#[test]
fn a_window_slides() {
    let mut desk = Desk::new(vec![requests(10, Span::Sliding(MINUTE))]);
    for _ in 0..10 {
        assert_eq!(desk.take(30_000), Ok(()));
    }
    // One of ten counts no more when a tenth of the window before lies outside.
    assert_eq!(desk.take(30_000), Err(Exceeded { limit: 0, wait: Duration::from_secs(36) }));
    assert!(desk.take(65_999).is_err());
    assert_eq!(desk.left(66_000), [(1, 54)]);
    assert_eq!(desk.take(66_000), Ok(()));
    assert!(desk.take(66_000).is_err());
    assert_eq!(desk.left(180_000), [(10, 60)]);
}

#[test]
fn a_quota_ends_with_its_period() {
    let mut desk =
        Desk::new(vec![requests(2, Span::Calendar(Period::Day)), requests(3, Span::Calendar(Period::Month))]);
    let day = 86_400_000;
    assert_eq!((desk.take(0), desk.take(0)), (Ok(()), Ok(())));
    let Err(Exceeded { limit: 0, wait }) = desk.take(0) else { panic!("of the day there is none left") };
    let midnight = u64::try_from(wait.as_millis()).unwrap();
    assert!(desk.take(midnight - 1).is_err());
    assert_eq!(desk.take(midnight), Ok(()));
    let Err(Exceeded { limit: 1, wait }) = desk.take(midnight) else { panic!("of the month there is none left") };
    assert!(desk.take(midnight + day).is_err());
    assert_eq!(desk.take(midnight + u64::try_from(wait.as_millis()).unwrap()), Ok(()));
}

#[test]
fn what_one_limit_refuses_is_counted_by_none() {
    let mut desk = Desk::new(vec![requests(100, Span::Sliding(HOUR)), requests(1, Span::Sliding(MINUTE))]);
    assert_eq!(desk.take(0), Ok(()));
    for _ in 0..50 {
        assert_eq!(desk.take(0).unwrap_err().limit, 1);
    }
    assert_eq!(desk.left(0)[0].0, 99);
}

#[test]
fn who_has_bytes_left_may_begin_and_end_what_was_begun() {
    let bytes = Limit { measure: Measure::Bytes, most: 1000, span: Span::Calendar(Period::Day) };
    let mut desk = Desk::new(vec![bytes]);
    desk.meter.pass(&desk.plan, &desk.calendar, 999, at(0));
    assert_eq!(desk.take(0), Ok(()));
    desk.meter.pass(&desk.plan, &desk.calendar, 5000, at(0));
    assert!(desk.take(0).is_err());
    assert_eq!(desk.left(0)[0].0, 0);
}

#[test]
fn a_clock_that_is_set_back_allows_nothing_twice() {
    for span in [Span::Second { burst: 3 }, Span::Sliding(MINUTE), Span::Calendar(Period::Day)] {
        let mut desk = Desk::new(vec![requests(3, span)]);
        let later = 86_400_000 * 2;
        for _ in 0..3 {
            assert_eq!(desk.take(later), Ok(()));
        }
        for earlier in [later - 1, later - 3_600_000, 0] {
            assert!(desk.take(earlier).is_err(), "{span:?} {earlier}");
        }
    }
}

/// A clock that ran a year ahead for a moment must not cost anybody a year.
#[test]
fn a_clock_that_was_ahead_and_is_put_right_shuts_nobody_out() {
    let year = 365 * 86_400_000;
    for (span, longest) in [
        (Span::Second { burst: 3 }, 1),
        (Span::Sliding(MINUTE), 120),
        (Span::Sliding(HOUR), 7200),
        (Span::Calendar(Period::Day), 86_400),
        (Span::Calendar(Period::Month), 31 * 86_400),
    ] {
        let mut desk = Desk::new(vec![requests(3, span)]);
        for _ in 0..3 {
            assert_eq!(desk.take(year), Ok(()));
        }
        let Err(Exceeded { wait, .. }) = desk.take(0) else { panic!("{span:?}: it is allowed twice") };
        assert!(wait <= Duration::from_secs(longest), "{span:?}: {wait:?}");
        let reset = desk.left(0)[0].1;
        assert!(reset <= longest, "{span:?}: {reset}");
        let wait = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap();
        assert!(desk.take(wait - 1).is_err(), "{span:?}");
        assert_eq!(desk.take(wait), Ok(()), "{span:?}");
    }
}

/// Requests that come at once are not counted in the order of their instants.
#[test]
fn an_instant_from_just_before_a_window_counts_in_it() {
    for (span, next) in [(Span::Sliding(MINUTE), 60_000), (Span::Calendar(Period::Day), 86_400_000)] {
        let mut desk = Desk::new(vec![requests(3, span)]);
        let begins = next - at(0).millis() % next;
        for millis in [begins, begins - 5, begins] {
            assert_eq!(desk.take(millis), Ok(()), "{span:?}");
        }
        let Err(Exceeded { wait, .. }) = desk.take(begins - 5) else { panic!("{span:?}: there were three") };
        assert!(desk.take(begins - 5 + u64::try_from(wait.as_millis()).unwrap()).is_ok(), "{span:?}: too early");
    }
}

fn any_limit() -> impl Strategy<Value = Limit> {
    let span = prop_oneof![
        (1..6u64).prop_map(|burst| Span::Second { burst }),
        Just(Span::Sliding(MINUTE)),
        Just(Span::Sliding(HOUR)),
        Just(Span::Calendar(Period::Day)),
        Just(Span::Calendar(Period::Month)),
    ];
    (1..12u64, span).prop_map(|(most, span)| requests(most, span))
}

/// The plainest model: all instants that were let through.
struct Model(VecDeque<u64>);

impl Model {
    /// Whether one more at `now` is right by this limit.
    fn allows(&self, limit: &Limit, now: u64) -> bool {
        let since = |from: u64| self.0.iter().filter(|at| **at >= from).count() as u64;
        match limit.span {
            // A bucket that holds `burst` and is filled at the rate, in nanoseconds of filling.
            Span::Second { burst } => {
                let interval = 1_000_000_000_u64.div_ceil(limit.most);
                let (mut level, mut last) = (burst * interval, 0);
                for at in self.0.iter().chain([&now]) {
                    level = (level + (at - last) * 1_000_000).min(burst * interval);
                    last = *at;
                    if level < interval {
                        return false;
                    }
                    level -= interval;
                }
                true
            }
            Span::Sliding(window) => {
                let window = u64::try_from(window.as_millis()).unwrap();
                let begun = now - now % window;
                let current = since(begun);
                let previous = since(begun - window) - current;
                previous * (window - (now - begun)) + (current + 1) * window <= limit.most * window
            }
            Span::AtOnce => true,
            Span::Calendar(period) => {
                let calendar = Calendar::default();
                since(calendar.around(period, Timestamp::from_millis(now)).0.millis()) < limit.most
            }
        }
    }
}

proptest! {
    /// A meter lets through what the model lets through, and the wait it names is the shortest that helps.
    #[test]
    fn a_meter_does_what_its_model_does(
        limits in prop::collection::vec(any_limit(), 1..4),
        steps in prop::collection::vec(prop_oneof![0..300u64, 0..70_000u64, 0..100_000_000u64], 1..80),
    ) {
        // A plan has one limit of a kind.
        let kinds: BTreeMap<_, _> = limits.into_iter().map(|limit| (limit.word(), limit)).collect();
        let mut desk = Desk::new(kinds.into_values().collect());
        let mut model = Model(VecDeque::new());
        let mut now = at(0).millis();
        for step in steps {
            now += step;
            let right = desk.plan.limits.iter().all(|limit| model.allows(limit, now));
            let taken = desk.meter.take(&desk.plan, &desk.calendar, Timestamp::from_millis(now));
            prop_assert_eq!(taken.is_ok(), right, "{:?}", taken);
            match taken {
                Ok(()) => model.0.push_back(now),
                Err(Exceeded { limit, wait }) => {
                    let limit = &desk.plan.limits[limit];
                    let wait = wait.as_nanos().div_ceil(1_000_000) as u64;
                    prop_assert!(model.allows(limit, now + wait), "{limit} after {wait} ms");
                    prop_assert!(!model.allows(limit, now + wait - 1), "{limit} before {wait} ms");
                    // And so says the meter itself, when nobody else comes.
                    prop_assert_eq!(desk.clone().take_at(now + wait), Ok(()), "after {} ms", wait);
                    prop_assert!(desk.clone().take_at(now + wait - 1).is_err(), "before {wait} ms");
                }
            }
        }
    }

    /// What is said to be left is there, and no more.
    #[test]
    fn what_is_left_can_be_taken(limit in any_limit(), steps in prop::collection::vec(0..5_000u64, 1..30)) {
        let mut desk = Desk::new(vec![limit]);
        let mut now = 0;
        for step in steps {
            now += step;
            let _ = desk.take(now);
        }
        let left = desk.left(now)[0].0;
        for _ in 0..left {
            prop_assert_eq!(desk.take(now), Ok(()));
        }
        prop_assert!(desk.take(now).is_err());
    }
}
