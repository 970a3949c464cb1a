//! Rates: how often something may happen, decided by the generic cell rate algorithm (GCRA).
//!
//! A limiter keeps one instant per key, so memory is small and a decision is one shard lock. It can be asked without being
//! charged ([`Limiter::peek`]): a limit on failures alone must not cost the successful anything.

use std::fmt;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;

use crate::clock::Timestamp;

/// So far may an arrival lie beyond what can be owed, in nanoseconds: clocks are put right by a little all the time. What lies
/// further ahead was charged while the clock was ahead, and must not shut anybody out until it shows that time again.
const AHEAD: u64 = 60_000_000_000;

/// So many in such a time; all of them may come at once. Written `20/s`, `100/m`, `1000/h`, `5000/d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many, and how many at once.
    pub count: u32,
    /// In this time.
    pub per: Duration,
}

impl Rate {
    /// `count` in `per`.
    pub const fn new(count: u32, per: Duration) -> Self {
        Self { count, per }
    }

    /// In words, as in "300 requests a minute"; `what` is the word for one.
    pub fn in_words(self, what: &str) -> String {
        let each = match self.per.as_secs() {
            1 => "a second",
            60 => "a minute",
            3600 => "an hour",
            _ => "a day",
        };
        format!("{} {what}{} {each}", self.count, if self.count == 1 { "" } else { "s" })
    }

    /// Nanoseconds until one more is allowed.
    fn interval(self) -> u64 {
        (u64::try_from(self.per.as_nanos()).unwrap_or(u64::MAX) / u64::from(self.count.max(1))).max(1)
    }

    /// So far ahead of now may an arrival be, in nanoseconds, when one more comes.
    fn tolerance(self) -> u64 {
        self.interval().saturating_mul(u64::from(self.count.max(1) - 1))
    }

    /// The arrival as it counts at `now`: after all that can be owed, when the clock was set back since.
    fn owed(self, arrival: u64, now: u64) -> u64 {
        let most = now.saturating_add(self.tolerance()).saturating_add(self.interval());
        if arrival > most.saturating_add(AHEAD) { most } else { arrival }
    }

    /// GCRA: the next arrival time, or how much too early this one is.
    fn allow(self, arrival: u64, now: u64) -> Result<u64, Duration> {
        let earliest = arrival.saturating_sub(self.tolerance());
        if now < earliest {
            return Err(Duration::from_nanos(earliest - now));
        }
        Ok(arrival.max(now).saturating_add(self.interval()))
    }

    /// What [`Rate::allow`] would let pass now, and when it would let pass one more.
    fn standing(self, arrival: u64, now: u64) -> Standing {
        let (interval, owed) = (self.interval(), arrival.saturating_sub(now));
        let used = owed.div_ceil(interval);
        let left = u64::from(self.count.max(1)).saturating_sub(used);
        // More may be owed than one rate allows, of a greater one that was kept before.
        let reset =
            if left == 0 { owed.saturating_sub(self.tolerance()) } else { owed - used.saturating_sub(1) * interval };
        Standing { rate: self, left: u32::try_from(left).unwrap_or(u32::MAX), reset: Duration::from_nanos(reset) }
    }
}

impl FromStr for Rate {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "a rate is a whole number from 1 to 1000000000, '/', and s, m, h or d, as in \"20/s\"";
        let (count, unit) = text.split_once('/').ok_or(RULE)?;
        let secs = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(RULE),
        };
        match count.parse() {
            Ok(count @ 1..=1_000_000_000) => Ok(Self::new(count, Duration::from_secs(secs))),
            _ => Err(RULE),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            3600 => "h",
            _ => "d",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// Where a key stands with its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The rate.
    pub rate: Rate,
    /// So many may come now.
    pub left: u32,
    /// Until there may be one more than that; zero when all of them may come.
    pub reset: Duration,
}

/// Keeps a [`Rate`] for every key it sees, up to a bound.
#[derive(Debug)]
pub struct Limiter<K: Hash + Eq> {
    /// In one piece, so that no decision is made by half of one rate and half of another.
    rate: ArcSwap<Rate>,
    most: usize,
    /// Per key, the theoretical arrival time of GCRA in nanoseconds since the epoch.
    arrivals: DashMap<K, u64>,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    /// A limiter of `rate` that remembers at most about `most` keys.
    pub fn new(rate: Rate, most: usize) -> Self {
        Self { rate: ArcSwap::from_pointee(rate), most, arrivals: DashMap::new() }
    }

    /// Keeps another rate from now on.
    pub fn set(&self, rate: Rate) {
        self.rate.store(Arc::new(rate));
    }

    /// How long `key` must wait before one more would be allowed; charges nothing.
    ///
    /// # Errors
    /// The wait, when it may not go on now.
    pub fn peek(&self, key: &K, now: Timestamp) -> Result<(), Duration> {
        let (rate, now) = (self.rate.load(), nanos(now));
        match self.arrival(key, **rate, now) {
            Some(arrival) => rate.allow(arrival, now).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Charges one to `key` when that is allowed.
    ///
    /// # Errors
    /// The wait, when it is not; nothing is charged then.
    pub fn charge(&self, key: &K, now: Timestamp) -> Result<(), Duration> {
        self.take(key, now).0
    }

    /// The same, and where `key` stands by that very charge, or by its refusal. `None` where there was no room to remember it.
    pub fn take(&self, key: &K, now: Timestamp) -> (Result<(), Duration>, Option<Standing>) {
        let (rate, now) = (self.rate.load(), nanos(now));
        let take = |arrival: &mut u64| {
            *arrival = rate.owed(*arrival, now);
            let taken = rate.allow(*arrival, now).map(|next| *arrival = next);
            (taken, Some(rate.standing(*arrival, now)))
        };
        if let Some(mut arrival) = self.arrivals.get_mut(key) {
            return take(&mut arrival);
        }
        if self.arrivals.len() >= self.most {
            self.forget_past(now);
        }
        if self.arrivals.len() < self.most {
            return take(&mut self.arrivals.entry(key.clone()).or_insert(now));
        }
        (Ok(()), None)
    }

    /// The arrival of `key` as it counts at `now`. It is put right where it is kept: else it would be as far ahead for ever.
    fn arrival(&self, key: &K, rate: Rate, now: u64) -> Option<u64> {
        let arrival = *self.arrivals.get(key)?;
        let owed = rate.owed(arrival, now);
        if owed != arrival {
            *self.arrivals.get_mut(key)? = owed;
        }
        Some(owed)
    }

    /// Gives back one that was charged to `key`.
    pub fn refund(&self, key: &K) {
        if let Some(mut arrival) = self.arrivals.get_mut(key) {
            *arrival = arrival.saturating_sub(self.rate.load().interval());
        }
    }

    /// How long until `key` has its full allowance again, but for so many that it was charged and may be given back; `None` when
    /// it has it.
    pub fn until_clean(&self, key: &K, pending: usize, now: Timestamp) -> Option<Duration> {
        let (rate, now) = (self.rate.load(), nanos(now));
        let pending = rate.interval().saturating_mul(pending as u64);
        let left = self.arrival(key, **rate, now)?.checked_sub(now)?.saturating_sub(pending);
        (left > 0).then(|| Duration::from_nanos(left))
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// Drops the keys that have their full allowance again.
    pub fn forget(&self, now: Timestamp) {
        self.forget_past(nanos(now));
    }

    fn forget_past(&self, now: u64) {
        let rate = self.rate.load();
        self.arrivals.retain(|_, arrival| {
            *arrival = rate.owed(*arrival, now);
            *arrival > now
        });
    }
}

fn nanos(at: Timestamp) -> u64 {
    at.millis().saturating_mul(1_000_000)
}

/// `Retry-After` in whole seconds: never too early, at least 1 (RFC 9110 §10.2.3).
pub fn retry_after(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_and_the_next_waits_one_interval() {
        let limiter = Limiter::new("3/s".parse().unwrap(), 100);
        let now = Timestamp::from_secs(1000);
        for _ in 0..3 {
            assert_eq!(limiter.peek(&1, now), Ok(()));
            assert_eq!(limiter.charge(&1, now), Ok(()));
        }
        let wait = limiter.charge(&1, now).expect_err("the fourth waits");
        assert!(wait <= Duration::from_millis(334), "{wait:?}");
        assert_eq!(limiter.charge(&2, now), Ok(()), "another key has its own allowance");
        assert_eq!(limiter.charge(&1, now + wait + Duration::from_millis(1)), Ok(()));
    }

    #[test]
    fn what_is_given_back_may_be_charged_again() {
        let limiter = Limiter::new("2/s".parse().unwrap(), 100);
        let now = Timestamp::from_secs(1000);
        assert_eq!(limiter.until_clean(&1, 0, now), None);
        limiter.refund(&1);
        limiter.charge(&1, now).unwrap();
        assert_eq!(limiter.until_clean(&1, 0, now), Some(Duration::from_millis(500)));
        assert_eq!(limiter.until_clean(&1, 1, now), None, "what is charged may be given back");
        limiter.charge(&1, now).unwrap();
        limiter.refund(&1);
        limiter.charge(&1, now).unwrap();
        assert!(limiter.charge(&1, now).is_err());
        assert_eq!(limiter.until_clean(&1, 0, now + Duration::from_secs(1)), None);
    }

    #[test]
    fn what_cannot_be_remembered_is_not_told() {
        let limiter = Limiter::new("1/s".parse().unwrap(), 1);
        let now = Timestamp::from_secs(1000);
        let (rate, reset) = ("1/s".parse().unwrap(), Duration::from_secs(1));
        assert_eq!(limiter.take(&1, now), (Ok(()), Some(Standing { rate, left: 0, reset })));
        assert_eq!(limiter.take(&1, now), (Err(reset), Some(Standing { rate, left: 0, reset })));
        assert_eq!(limiter.take(&2, now), (Ok(()), None));
    }

    #[test]
    fn keys_with_a_full_allowance_are_forgotten() {
        let limiter = Limiter::new("1/s".parse().unwrap(), 2);
        let now = Timestamp::from_secs(1000);
        limiter.charge(&1, now).unwrap();
        limiter.charge(&2, now).unwrap();
        limiter.charge(&3, now + Duration::from_secs(2)).unwrap();
        assert_eq!(limiter.len(), 1);
    }

    #[test]
    fn a_rate_is_said_in_words() {
        let said = |rate: &str, what| rate.parse::<Rate>().unwrap().in_words(what);
        assert_eq!(
            (said("1/h", "token").as_str(), said("300/m", "request").as_str()),
            ("1 token an hour", "300 requests a minute")
        );
    }

    #[test]
    fn a_clock_that_was_ahead_and_is_put_right_shuts_nobody_out() {
        let (now, year) = (Timestamp::from_secs(1000), Duration::from_secs(365 * 86_400));
        type Look = fn(&Limiter<u8>, Timestamp);
        let looks: [Look; 4] = [
            |limiter, now| assert_eq!(limiter.peek(&1, now), Err(Duration::from_secs(20)), "nothing is allowed twice"),
            |limiter, now| assert_eq!(limiter.charge(&1, now), Err(Duration::from_secs(20))),
            |limiter, now| assert_eq!(limiter.until_clean(&1, 0, now), Some(Duration::from_secs(60))),
            Limiter::forget,
        ];
        for look in looks {
            let limiter = Limiter::new("3/m".parse().unwrap(), 2);
            for _ in 0..3 {
                limiter.charge(&1, now + year).unwrap();
            }
            look(&limiter, now);
            let wait = Duration::from_millis(19_999);
            assert_eq!(limiter.charge(&1, now + wait), Err(Duration::from_millis(1)));
            assert_eq!(limiter.charge(&1, now + Duration::from_secs(20)), Ok(()));
        }
    }

    #[test]
    fn what_is_full_of_a_time_that_has_not_come_makes_room() {
        let limiter = Limiter::new("1/s".parse().unwrap(), 2);
        let (now, year) = (Timestamp::from_secs(1000), Duration::from_secs(365 * 86_400));
        limiter.charge(&1, now + year).unwrap();
        limiter.charge(&2, now + year).unwrap();
        limiter.forget(now);
        limiter.charge(&3, now + Duration::from_secs(1)).unwrap();
        assert_eq!(limiter.len(), 1);
    }

    #[test]
    fn retry_after_is_rounded_up() {
        assert_eq!(retry_after(Duration::ZERO), 1);
        assert_eq!(retry_after(Duration::from_millis(1001)), 2);
    }

    proptest! {
        #[test]
        fn no_window_passes_more_than_burst_plus_rate(count in 1u32..20, steps in prop::collection::vec(0u64..400, 1..200)) {
            let limiter = Limiter::new(Rate::new(count, Duration::from_secs(1)), 10);
            let mut now = Timestamp::from_secs(1000);
            let mut passed: Vec<u64> = Vec::new();
            for step in steps {
                now = now + Duration::from_millis(step);
                if limiter.charge(&(), now).is_ok() {
                    passed.push(now.millis());
                }
            }
            for (i, from) in passed.iter().enumerate() {
                let within = passed[i..].iter().filter(|at| **at < from + 1000).count();
                prop_assert!(within <= 2 * count as usize, "{within} in a second of {count}/s");
            }
        }

        /// What a charge says is what there is: so many pass now and no more, and one more when it says, and not before. By
        /// another rate too.
        #[test]
        fn a_standing_is_true(
            counts in prop::array::uniform2(1u32..20),
            per in 1u64..5000,
            steps in prop::collection::vec(0u64..400, 1..60),
            change in 0usize..60,
        ) {
            let rate = |at: usize| Rate::new(counts[at], Duration::from_millis(per));
            let limiter = Limiter::new(rate(0), 10);
            let mut now = Timestamp::from_secs(1000);
            for (at, step) in steps.into_iter().enumerate() {
                now = now + Duration::from_millis(step);
                if at == change {
                    limiter.set(rate(1));
                }
                let (taken, told) = limiter.take(&(), now);
                let Standing { rate, left, reset } = told.expect("there is room");
                let arrival = *limiter.arrivals.get(&()).expect("it is remembered");
                let fresh = || Limiter { rate: ArcSwap::from_pointee(rate), most: 1, arrivals: [((), arrival)].into_iter().collect() };
                let passes = |limiter: &Limiter<()>, now| std::iter::repeat_with(|| limiter.charge(&(), now)).take_while(Result::is_ok).count();
                prop_assert_eq!(passes(&fresh(), now), left as usize);
                if let Err(wait) = taken {
                    prop_assert_eq!((left, reset), (0, wait));
                }
                // The limiter's clock has milliseconds.
                let whole = u64::try_from(reset.as_nanos().div_ceil(1_000_000)).unwrap();
                prop_assert!(passes(&fresh(), now + Duration::from_millis(whole)) > left as usize);
                if whole > 1 {
                    prop_assert_eq!(passes(&fresh(), now + Duration::from_millis(whole - 1)), left as usize);
                }
            }
        }
    }
}
