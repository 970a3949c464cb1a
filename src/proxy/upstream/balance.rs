//! Who gets a request: pure choices among numbered endpoints, without an allocation. Knows neither what an endpoint is nor
//! why one takes no part.

use super::settings::Balance;

/// Up to so many endpoints are all looked at to find the least busy one; of more, two are drawn.
const LOOK_AT_ALL: usize = 16;

/// What one choice is made by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    /// Counts the choices.
    pub turn: u64,
    /// Evenly distributed.
    pub chance: u64,
    /// Whose request it is.
    pub affinity: u64,
}

/// Chooses one of `n` that take `part`. `part` must answer alike within one choice.
pub(super) fn choose(
    balance: Balance,
    n: usize,
    draw: Draw,
    part: impl Fn(usize) -> bool,
    load: impl Fn(usize) -> usize,
    key: impl Fn(usize) -> u64,
) -> Option<usize> {
    match balance {
        _ if n == 0 => None,
        Balance::RoundRobin => round_robin(n, draw.turn, part),
        Balance::LeastRequests => least(n, draw, part, load),
        Balance::Account => (0..n).filter(|i| part(*i)).max_by_key(|i| score(key(*i), draw.affinity)),
    }
}

fn round_robin(n: usize, turn: u64, part: impl Fn(usize) -> bool) -> Option<usize> {
    let whose = below(turn, n);
    if part(whose) {
        return Some(whose);
    }
    // The turn of one that takes no part goes to the others in turn. If it always went to its neighbour, that one would
    // have twice the load.
    let others = (0..n).filter(|i| part(*i)).count();
    if others == 0 {
        return None;
    }
    (0..n).filter(|i| part(*i)).nth(below(turn / n as u64, others))
}

fn least(n: usize, draw: Draw, part: impl Fn(usize) -> bool, load: impl Fn(usize) -> usize) -> Option<usize> {
    if n > LOOK_AT_ALL {
        let (one, other) = (below(draw.chance, n), below(mix(draw.chance), n));
        match (part(one), part(other)) {
            (true, true) => return Some(if load(other) < load(one) { other } else { one }),
            (true, false) => return Some(one),
            (false, true) => return Some(other),
            (false, false) => {}
        }
    }
    // Of those that are equally busy, another comes first each time.
    let first = below(draw.turn, n);
    (first..n).chain(0..first).filter(|i| part(*i)).min_by_key(|i| load(*i))
}

#[allow(clippy::cast_possible_truncation, reason = "less than n")]
fn below(number: u64, n: usize) -> usize {
    (number % n as u64) as usize
}

/// Rendezvous hashing: the highest score has it. When an endpoint goes, only what it had moves, and evenly.
fn score(key: u64, affinity: u64) -> u64 {
    mix(key ^ mix(affinity))
}

/// Spreads a number evenly over all numbers (the finalizer of splitmix64). Whom a choice falls on is no secret.
pub(super) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number for a text that is the same in every process, so that all gateways send an account to the same endpoint
/// (FNV-1a, mixed).
pub(super) fn stable_hash(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    mix(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draw(turn: u64) -> Draw {
        Draw { turn, chance: mix(turn), affinity: 0 }
    }

    fn counts(balance: Balance, n: usize, times: u64, part: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut counts = vec![0; n];
        for turn in 0..times {
            counts[choose(balance, n, draw(turn), &part, |_| 0, |i| i as u64).expect("one takes part")] += 1;
        }
        counts
    }

    #[test]
    fn turns_are_even_also_when_one_takes_no_part() {
        assert_eq!(counts(Balance::RoundRobin, 3, 300, |_| true), [100, 100, 100]);
        assert_eq!(counts(Balance::RoundRobin, 3, 300, |i| i != 1), [150, 0, 150]);
        assert_eq!(counts(Balance::LeastRequests, 3, 300, |_| true), [100, 100, 100]);
    }

    #[test]
    fn the_least_busy_one_is_found() {
        let loads = [3, 1, 2];
        for turn in 0..9 {
            assert_eq!(choose(Balance::LeastRequests, 3, draw(turn), |_| true, |i| loads[i], |_| 0), Some(1));
        }
        assert_eq!(choose(Balance::LeastRequests, 3, draw(0), |i| i != 1, |i| loads[i], |_| 0), Some(2));
    }

    #[test]
    fn of_many_the_busiest_is_rarely_drawn() {
        let mut drawn = [0; 64];
        for turn in 0..6400 {
            let chosen = choose(Balance::LeastRequests, 64, draw(turn), |_| true, |i| usize::from(i == 7), |_| 0);
            drawn[chosen.expect("one of them")] += 1;
        }
        assert!(drawn[7] < 20, "{drawn:?}");
        assert!(drawn.iter().enumerate().all(|(i, n)| i == 7 || *n > 40), "{drawn:?}");
    }

    #[test]
    fn nobody_is_chosen_when_nobody_takes_part() {
        for balance in [Balance::RoundRobin, Balance::LeastRequests, Balance::Account] {
            for n in [0, 1, 3, 40] {
                assert_eq!(choose(balance, n, draw(5), |_| false, |_| 0, |i| i as u64), None);
            }
        }
    }

    proptest! {
        /// When one goes, its accounts move and nobody else's do.
        #[test]
        fn accounts_stay_where_they_are(accounts in prop::collection::vec(any::<u64>(), 1..200), n in 2usize..20, gone in 0usize..20) {
            let gone = gone % n;
            let key = |i: usize| stable_hash(&format!("http://10.0.0.{i}:80"));
            for affinity in accounts {
                let draw = Draw { turn: affinity, chance: affinity, affinity };
                let before = choose(Balance::Account, n, draw, |_| true, |_| 0, key);
                let after = choose(Balance::Account, n, Draw { turn: 0, ..draw }, |i| i != gone, |_| 0, key);
                if before == Some(gone) {
                    prop_assert_ne!(after, before);
                } else {
                    prop_assert_eq!(after, before);
                }
            }
        }
    }

    #[test]
    fn accounts_are_spread_evenly() {
        let mut counts = [0; 5];
        for account in 0..5000u64 {
            let draw = Draw { turn: 0, chance: 0, affinity: stable_hash(&format!("account-{account}")) };
            let key = |i: usize| stable_hash(&format!("http://10.0.0.{i}:80"));
            counts[choose(Balance::Account, 5, draw, |_| true, |_| 0, key).expect("one of them")] += 1;
        }
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
    }
}
