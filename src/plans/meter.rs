//! A meter: the counts of one subject, taken all together or not at all. By which plan is an argument: of two that limit the same
//! thing, one count goes on.

use std::time::Duration;

use super::count::{Count, Reach};
use super::{Calendar, Limit, Measure, Plan, Row, Span};
use crate::clock::Timestamp;

/// One too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit, by its place in the plan: of several, the one that is the longest to wait for.
    pub limit: usize,
    /// After so long there may be one more, and not before. Zero where nobody can know.
    pub wait: Duration,
}

/// Where one limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Of so many.
    pub quota: u64,
    /// So many are left.
    pub left: u64,
    /// Until there are more.
    pub reset: Duration,
    /// The time that the quota is for; `None` for what is limited at any time alike.
    pub window: Option<Duration>,
}

impl Standing {
    /// Of what knows no time.
    pub(super) fn open(quota: u64) -> Self {
        Self { quota, left: quota, reset: Duration::ZERO, window: None }
    }
}

/// The counts of one subject.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meter {
    /// By [`Limit::word`]. There are eight words at the most, so this is looked through.
    counts: Vec<(&'static str, Count)>,
    /// What was in the store when this began, for counts that nobody has asked for yet.
    stored: Vec<Row>,
}

impl Meter {
    /// With what is in the store of it.
    pub(super) fn with(stored: Vec<Row>) -> Self {
        Self { counts: Vec::new(), stored }
    }

    /// The count of a limit, brought to `now`.
    fn count(&mut self, limit: &Limit, calendar: &Calendar, now: Timestamp) -> &mut Count {
        let word = limit.word();
        let at = match self.counts.iter().position(|(known, _)| *known == word) {
            Some(at) => at,
            None => {
                let mut count = Count::new(limit);
                count.turn(limit, calendar, now);
                for Row { line, used, .. } in self.stored.iter().filter(|row| row.line.limit == word) {
                    count.learn(line.from, *used);
                }
                self.counts.push((word, count));
                self.counts.len() - 1
            }
        };
        let count = &mut self.counts[at].1;
        count.turn(limit, calendar, now);
        count
    }

    /// Whether every limit allows one more request. Nothing is counted.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn check(&mut self, plan: &Plan, calendar: &Calendar, now: Timestamp) -> Result<(), Exceeded> {
        let mut exceeded: Option<Exceeded> = None;
        for (at, limit) in plan.limits.iter().enumerate() {
            if let Err(wait) = self.count(limit, calendar, now).allows(limit, now)
                && exceeded.is_none_or(|known| wait > known.wait)
            {
                exceeded = Some(Exceeded { limit: at, wait });
            }
        }
        exceeded.map_or(Ok(()), Err)
    }

    /// Counts one request. Whether there is something to be written.
    pub fn charge(&mut self, plan: &Plan, calendar: &Calendar, now: Timestamp) -> bool {
        self.add(plan, Measure::Requests, 1, calendar, now)
    }

    /// Takes one request, if every limit allows it.
    ///
    /// # Errors
    /// [`Exceeded`]; then nothing is counted.
    pub fn take(&mut self, plan: &Plan, calendar: &Calendar, now: Timestamp) -> Result<(), Exceeded> {
        self.check(plan, calendar, now)?;
        self.charge(plan, calendar, now);
        Ok(())
    }

    /// A request that was taken has ended.
    pub fn end(&mut self, plan: &Plan) {
        for limit in plan.limits.iter().filter(|limit| limit.span == Span::AtOnce) {
            let word = limit.word();
            if let Some((_, count)) = self.counts.iter_mut().find(|(known, _)| *known == word) {
                count.end();
            }
        }
    }

    /// Counts bytes that have passed. Whether there is something to be written.
    pub fn pass(&mut self, plan: &Plan, calendar: &Calendar, bytes: u64, now: Timestamp) -> bool {
        self.add(plan, Measure::Bytes, bytes, calendar, now)
    }

    fn add(&mut self, plan: &Plan, of: Measure, n: u64, calendar: &Calendar, now: Timestamp) -> bool {
        let mut is_to_be_written = false;
        for limit in plan.limits.iter().filter(|limit| limit.measure == of) {
            is_to_be_written |= self.count(limit, calendar, now).add(limit, n, now);
        }
        is_to_be_written
    }

    /// Where each limit stands at `now`, in the plan's order.
    pub fn standings<'a>(
        &'a mut self,
        plan: &'a Plan,
        calendar: &'a Calendar,
        now: Timestamp,
    ) -> impl Iterator<Item = Standing> + 'a {
        plan.limits.iter().map(move |limit| self.count(limit, calendar, now).standing(limit, now))
    }

    /// Takes out what is to be written.
    pub(super) fn take_unwritten(&mut self) -> Vec<(&'static str, Reach, u64)> {
        let counts = self.counts.iter_mut();
        counts.flat_map(|(word, count)| count.take_unwritten().map(|(reach, n)| (*word, reach, n))).collect()
    }

    /// Learns what all gateways together have counted.
    pub(super) fn learn(&mut self, word: &str, from: Timestamp, total: u64) {
        if let Some((_, count)) = self.counts.iter_mut().find(|(known, _)| *known == word) {
            count.learn(from, total);
        }
    }

    /// Whether nothing of it counts at `now` any more, of what nobody has asked for yet neither.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.counts.iter().all(|(_, count)| count.is_over(now)) && self.stored.iter().all(|row| row.until <= now)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
