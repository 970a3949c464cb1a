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
    /// Alternatives, as two subscriptions are, each by its place.
    options: Box<[Box<[Part]>]>,
    /// Of each of these lists one option is charged. None is no bound.
    each: Box<[Box<[usize]>]>,
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
    chosen: Vec<usize>,
    is_open: bool,
}

impl Bound {
    /// All of `all` hold, and of `either` the first that allows a request.
    pub fn new(meters: &Arc<Meters>, all: Vec<Share>, either: Vec<Vec<Share>>) -> Self {
        let one = (0..either.len()).collect();
        Self::of_each(meters, all, either, vec![one])
    }

    /// All of `all` hold, and of each list in `each` one of `options`, which stand there by their places: one that is charged
    /// for another list already, or else the first that allows the request. An option is charged once, for however many lists.
    pub fn of_each(
        meters: &Arc<Meters>,
        all: Vec<Share>,
        mut options: Vec<Vec<Share>>,
        mut each: Vec<Vec<usize>>,
    ) -> Self {
        each.retain(|list| !list.is_empty());
        // Who has no choice chooses first: what is charged in any case may serve the others.
        each.sort_by_key(Vec::len);
        for (place, option) in options.iter_mut().enumerate() {
            if !each.iter().flatten().any(|listed| *listed == place) {
                option.clear();
            }
        }
        let mut counted: Vec<_> =
            all.iter().chain(options.iter().flatten()).map(|share| Arc::clone(&share.counted)).collect();
        counted.sort_by_key(|counted| Arc::as_ptr(counted).addr());
        // One that is locked twice would wait for itself.
        counted.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let place = |share: Share| {
            let address = Arc::as_ptr(&share.counted).addr();
            let at = counted.binary_search_by_key(&address, |counted| Arc::as_ptr(counted).addr());
            Part { at: at.expect("it is among them"), plan: share.plan }
        };
        let all: Box<[Part]> = all.into_iter().map(place).collect();
        let options: Box<[Box<[Part]>]> =
            options.into_iter().map(|shares| shares.into_iter().map(place).collect()).collect();
        let has = |of: fn(&Limit) -> bool| {
            all.iter().chain(options.iter().flatten()).any(|part| part.plan.limits.iter().any(of))
        };
        let has_at_once = has(|limit| limit.span == Span::AtOnce);
        let has_bytes = has(|limit| limit.measure == Measure::Bytes);
        let each = each.into_iter().map(Into::into).collect();
        Self { meters: Arc::clone(meters), counted: counted.into(), all, options, each, has_at_once, has_bytes }
    }

    /// Takes one request of all that bounds it, or of nothing.
    ///
    /// # Errors
    /// The limit that is the longest to wait for; of options, in the one that is the first to allow it again.
    pub fn take(self: &Arc<Self>, now: Timestamp) -> Result<Taken, Box<Refused>> {
        let mut locked: Vec<_> = self.counted.iter().map(|counted| counted.lock()).collect();
        let (chosen, exceeded) = self.choose(&mut locked, now);
        let parts = || self.parts(&chosen);
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

    /// The options that a request is charged to, or would have to wait for, and what of all this it exceeds.
    fn choose(&self, locked: &mut [MutexGuard<'_, Inner>], now: Timestamp) -> (Vec<usize>, Option<Over>) {
        let mut check = |parts: &[Part]| {
            let exceeded = parts.iter().filter_map(|Part { at, plan }| {
                let exceeded = locked[*at].meter.check(plan, self.meters.calendar(), now).err()?;
                Some((Arc::clone(plan), exceeded))
            });
            exceeded.reduce(later)
        };
        let mut chosen = Vec::new();
        let mut exceeded = check(&self.all);
        for list in &self.each {
            let mut best: Option<(usize, Option<Over>)> = None;
            let is_charged = |place: &&usize| chosen.contains(*place);
            let charged = list.iter().filter(is_charged);
            for &place in charged.chain(list.iter().filter(|place| !is_charged(place))) {
                let over = check(&self.options[place]);
                let is_better = match (&best, &over) {
                    (Some((_, Some((_, best)))), Some((_, over))) => over.wait < best.wait,
                    _ => true,
                };
                let allows = over.is_none();
                if is_better {
                    best = Some((place, over));
                }
                if allows {
                    break;
                }
            }
            let Some((place, over)) = best else { continue };
            if !chosen.contains(&place) {
                chosen.push(place);
            }
            exceeded = exceeded.into_iter().chain(over).reduce(later);
        }
        (chosen, exceeded)
    }

    fn parts(&self, chosen: &[usize]) -> impl Iterator<Item = &Part> {
        self.all.iter().chain(chosen.iter().flat_map(|place| &self.options[*place]))
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

/// The one that is longer to wait for.
fn later(a: Over, b: Over) -> Over {
    if b.1.wait > a.1.wait { b } else { a }
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
        for Part { at, plan } in self.bound.parts(&self.chosen) {
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
            for Part { at, plan } in self.bound.parts(&self.chosen) {
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
