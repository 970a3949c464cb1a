//! When a failing endpoint is left out, and how it comes back: a state machine that is told what happened and when. Pure;
//! knows no connection and no clock.

use std::time::Duration;

use tokio::time::Instant;

use super::settings::Ejection;

/// The first share of an endpoint that returns, in percent.
const FIRST_SHARE: f64 = 10.0;

/// The longest time out, in times of the first.
const MOST_TIMES: u32 = 10;

/// How an endpoint stands after what happened to it.
#[derive(Debug, Default)]
pub(super) struct Standing {
    in_a_row: u32,
    /// How often it was put out since it last had its whole share.
    times: u32,
    state: State,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    In,
    Out {
        until: Instant,
    },
    Returning {
        since: Instant,
    },
}

impl Standing {
    /// A request failed. Says for how long the endpoint is put out, if this puts it out.
    pub fn failed(&mut self, now: Instant, rules: &Ejection) -> Option<Duration> {
        self.settle(now, rules);
        self.in_a_row = self.in_a_row.saturating_add(1);
        // Requests that were under way when it was put out, or that had nowhere else to go, say nothing new.
        let is_out = matches!(self.state, State::Out { .. });
        if rules.failures == 0 || is_out || self.in_a_row < rules.failures {
            return None;
        }
        let factor = 1u32.checked_shl(self.times).unwrap_or(MOST_TIMES).min(MOST_TIMES);
        let time = rules.time.saturating_mul(factor);
        self.times = (self.times + 1).min(MOST_TIMES);
        self.in_a_row = 0;
        self.state = State::Out { until: now + time };
        Some(time)
    }

    /// A request was answered to its end.
    pub fn succeeded(&mut self) {
        self.in_a_row = 0;
    }

    /// Its share of requests in percent: 0 when it is out, 100 when nothing is amiss.
    pub fn share(&mut self, now: Instant, rules: &Ejection) -> u8 {
        self.settle(now, rules);
        match self.state {
            State::In => 100,
            State::Out { .. } => 0,
            State::Returning { since } => {
                let part = now.saturating_duration_since(since).as_secs_f64() / rules.return_over.as_secs_f64();
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "lies between 10 and 99")]
                let share = (FIRST_SHARE + (100.0 - FIRST_SHARE) * part).clamp(FIRST_SHARE, 99.0) as u8;
                share
            }
        }
    }

    /// Goes on to the state that the time alone has brought.
    fn settle(&mut self, now: Instant, rules: &Ejection) {
        if let State::Out { until } = self.state
            && until <= now
        {
            self.state = State::Returning { since: until };
            self.in_a_row = 0;
        }
        if let State::Returning { since } = self.state
            && now.saturating_duration_since(since) >= rules.return_over
        {
            // It has borne its whole share: what was before counts no more.
            self.state = State::In;
            self.times = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Ejection =
        Ejection { failures: 3, time: Duration::from_secs(30), return_over: Duration::from_secs(20) };

    fn fail(standing: &mut Standing, now: Instant) -> Option<Duration> {
        (0..3).find_map(|_| standing.failed(now, &RULES))
    }

    #[test]
    fn failures_in_a_row_put_it_out_and_others_do_not() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(standing.failed(now, &RULES), None);
            assert_eq!(standing.failed(now, &RULES), None);
            standing.succeeded();
        }
        assert_eq!(fail(&mut standing, now), Some(RULES.time));
        assert_eq!(standing.share(now + Duration::from_secs(29), &RULES), 0);
    }

    #[test]
    fn it_returns_slowly() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        fail(&mut standing, now);
        let mut share = |seconds| standing.share(now + Duration::from_secs(seconds), &RULES);
        assert_eq!((share(29), share(30), share(40), share(49), share(50)), (0, 10, 55, 95, 100));
    }

    #[test]
    fn time_out_doubles_up_to_ten_times_until_it_had_its_whole_share() {
        let (mut standing, mut now) = (Standing::default(), Instant::now());
        for times in [1, 2, 4, 8, 10, 10] {
            let time = fail(&mut standing, now);
            assert_eq!(time, Some(RULES.time * times));
            now += RULES.time * times;
            assert_eq!(standing.share(now, &RULES), 10);
        }
        now += RULES.return_over;
        assert_eq!(standing.share(now, &RULES), 100);
        assert_eq!(fail(&mut standing, now), Some(RULES.time));
    }

    #[test]
    fn failures_while_it_is_out_do_not_prolong_it() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        fail(&mut standing, now);
        for _ in 0..10 {
            assert_eq!(standing.failed(now + Duration::from_secs(20), &RULES), None);
        }
        assert_eq!(standing.share(now + Duration::from_secs(30), &RULES), 10);
    }

    #[test]
    fn zero_failures_turn_it_off_and_zero_return_is_at_once() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        let off = Ejection { failures: 0, ..RULES };
        assert!((0..100).all(|_| standing.failed(now, &off).is_none()));
        let at_once = Ejection { return_over: Duration::ZERO, ..RULES };
        let mut standing = Standing::default();
        assert!((0..3).any(|_| standing.failed(now, &at_once).is_some()));
        assert_eq!(standing.share(now + RULES.time, &at_once), 100);
    }
}
