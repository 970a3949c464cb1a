//! What bounds a request, and one step that takes it: every meter it is counted by is locked, in one order for all, before the
//! first of them is asked. So nothing has to be given back, no other request sees half of it, and N + 1 never pass.

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::meters::{Counted, Inner};
use super::{Exceeded, Limit, Measure, Meters, Plan, Span, Standing};
use crate::clock::Timestamp;

/// A plan, and whose counts it is held against.
#[derive(Debug, Clone)]
pub struct Share {
    /// The counts.
    pub counted: Arc<Counted>,
    /// The plan.
    pub plan: Arc<Plan>,
}

impl Share {
    /// Where every limit of the plan stands. Nothing is counted.
    pub fn shown(&self, meters: &Meters, now: Timestamp) -> Vec<Shown> {
        let mut inner = self.counted.lock();
        let standings = inner.meter.standings(&self.plan, meters.calendar(), now).enumerate();
        standings.map(|(limit, standing)| Shown { plan: Arc::clone(&self.plan), limit, standing }).collect()
    }
}

/// The same, with its place among the locks.
#[derive(Debug)]
struct Part {
    at: usize,
    plan: Arc<Plan>,
}

/// What a request is over, and by which plan.
type Over = (Arc<Plan>, Exceeded);

/// All that bounds some requests alike.
#[derive(Debug)]
pub struct Bound {
    meters: Arc<Meters>,
    /// Each once, by address: the order in which everybody locks them.
    counted: Box<[Arc<Counted>]>,
    /// All of these hold.
    all: Box<[Part]>,
    /// The first of these that allows it is charged, as of two subscriptions. None is no bound.
    either: Box<[Box<[Part]>]>,
    has_at_once: bool,
    has_bytes: bool,
}

/// Where a limit stands, after the request that asks or was refused.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Its limit, by its place.
    pub limit: usize,
    /// Where it stands.
    pub standing: Standing,
}

/// A request that was taken.
#[derive(Debug)]
pub struct Taken {
    /// Where every limit stands.
    pub shown: Vec<Shown>,
    /// What holds it as under way, and counts its bytes; `None` where nobody counts either.
    pub held: Option<Held>,
}

/// Which limit was exceeded, and when there may be one more.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Its limit.
    pub limit: Limit,
    /// After so long there may be one more, and not before. Zero where nobody can know.
    pub wait: Duration,
    /// Where every limit stands.
    pub shown: Vec<Shown>,
}

/// A request that is under way.
#[derive(Debug)]
pub struct Held {
    bound: Arc<Bound>,
    chosen: Option<usize>,
    is_open: bool,
}

impl Bound {
    /// All of `all` hold, and of `either` the first that allows a request.
    pub fn new(meters: &Arc<Meters>, all: Vec<Share>, either: Vec<Vec<Share>>) -> Self {
        let mut counted: Vec<_> =
            all.iter().chain(either.iter().flatten()).map(|share| Arc::clone(&share.counted)).collect();
        counted.sort_by_key(|counted| Arc::as_ptr(counted).addr());
        // One that is locked twice would wait for itself.
        counted.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let place = |share: Share| {
            let address = Arc::as_ptr(&share.counted).addr();
            let at = counted.binary_search_by_key(&address, |counted| Arc::as_ptr(counted).addr());
            Part { at: at.expect("it is among them"), plan: share.plan }
        };
        let all: Box<[Part]> = all.into_iter().map(place).collect();
        let either: Box<[Box<[Part]>]> =
            either.into_iter().map(|shares| shares.into_iter().map(place).collect()).collect();
        let has = |of: fn(&Limit) -> bool| {
            all.iter().chain(either.iter().flatten()).any(|part| part.plan.limits.iter().any(of))
        };
        let has_at_once = has(|limit| limit.span == Span::AtOnce);
        let has_bytes = has(|limit| limit.measure == Measure::Bytes);
        Self { meters: Arc::clone(meters), counted: counted.into(), all, either, has_at_once, has_bytes }
    }

    /// Takes one request of all that bounds it, or of nothing.
    ///
    /// # Errors
    /// The limit that is the longest to wait for; of alternatives, in the one that is the first to allow it again.
    pub fn take(self: &Arc<Self>, now: Timestamp) -> Result<Taken, Box<Refused>> {
        let mut locked: Vec<_> = self.counted.iter().map(|counted| counted.lock()).collect();
        let (chosen, exceeded) = self.choose(&mut locked, now);
        let parts = || self.parts(chosen);
        if let Some((plan, Exceeded { limit, wait })) = exceeded {
            let shown = self.shown(parts(), &mut locked, now);
            let limit = plan.limits[limit];
            return Err(Box::new(Refused { plan, limit, wait, shown }));
        }
        for Part { at, plan } in parts() {
            let inner = &mut *locked[*at];
            if inner.meter.charge(plan, self.meters.calendar(), now) {
                self.meters.list(&self.counted[*at], inner);
            }
        }
        let shown = self.shown(parts(), &mut locked, now);
        drop(locked);
        let is_held = self.has_at_once || self.has_bytes;
        let held = is_held.then(|| Held { bound: Arc::clone(self), chosen, is_open: self.has_at_once });
        Ok(Taken { shown, held })
    }

    /// The alternative that a request is charged to, or would have to wait for, and what of all this it exceeds.
    fn choose(&self, locked: &mut [MutexGuard<'_, Inner>], now: Timestamp) -> (Option<usize>, Option<Over>) {
        let mut check = |parts: &[Part]| {
            let exceeded = parts.iter().filter_map(|Part { at, plan }| {
                let exceeded = locked[*at].meter.check(plan, self.meters.calendar(), now).err()?;
                Some((Arc::clone(plan), exceeded))
            });
            exceeded.reduce(|a, b| if b.1.wait > a.1.wait { b } else { a })
        };
        let mut chosen: Option<(usize, Option<Over>)> = None;
        for (number, parts) in self.either.iter().enumerate() {
            let exceeded = check(parts);
            let Some((_, new)) = &exceeded else {
                chosen = Some((number, None));
                break;
            };
            if chosen.as_ref().is_none_or(|(_, known)| known.as_ref().is_some_and(|known| new.wait < known.1.wait)) {
                chosen = Some((number, exceeded));
            }
        }
        let (chosen, of_either) = chosen.map_or((None, None), |(number, exceeded)| (Some(number), exceeded));
        let exceeded = match (check(&self.all), of_either) {
            (Some(a), Some(b)) => Some(if b.1.wait > a.1.wait { b } else { a }),
            (a, b) => a.or(b),
        };
        (chosen, exceeded)
    }

    fn parts(&self, chosen: Option<usize>) -> impl Iterator<Item = &Part> {
        self.all.iter().chain(chosen.into_iter().flat_map(|number| &self.either[number]))
    }

    fn shown<'a>(
        &self,
        parts: impl Iterator<Item = &'a Part>,
        locked: &mut [MutexGuard<'_, Inner>],
        now: Timestamp,
    ) -> Vec<Shown> {
        let mut shown = Vec::new();
        for Part { at, plan } in parts {
            let standings = locked[*at].meter.standings(plan, self.meters.calendar(), now).enumerate();
            shown.extend(standings.map(|(limit, standing)| Shown { plan: Arc::clone(plan), limit, standing }));
        }
        shown
    }
}

impl Held {
    /// Whether it counts bytes.
    pub fn counts_bytes(&self) -> bool {
        self.bound.has_bytes
    }

    /// Counts bytes that have passed.
    pub fn pass(&self, bytes: u64, now: Timestamp) {
        if !self.bound.has_bytes || bytes == 0 {
            return;
        }
        let meters = &self.bound.meters;
        for Part { at, plan } in self.bound.parts(self.chosen) {
            let counted = &self.bound.counted[*at];
            let mut inner = counted.lock();
            if inner.meter.pass(plan, meters.calendar(), bytes, now) {
                meters.list(counted, &mut inner);
            }
        }
    }

    /// It is not under way any more: room for another. Its bytes may go on being counted.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            for Part { at, plan } in self.bound.parts(self.chosen) {
                self.bound.counted[*at].lock().meter.end(plan);
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
