//! What of an exchange counts as usage, and where: its principal, its route, how it was answered, and the content that
//! passes in both directions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Exchange;
use crate::access::Permit;
use crate::routes::Route;
use crate::usage::{Event, Holder, Hour, Ledger, Line, Spot, StatusClass};

impl Exchange {
    /// Counts the request, now that the head of its answer is there, after `duration`. Where it is not known whose it was,
    /// it is nobody's usage.
    pub fn count(&self, ledger: &Ledger, status: u16, duration: Duration) {
        let hour = Hour::of(self.at + duration);
        let spot = self.spot(status, hour);
        let _ = self.counted.set(spot);
        let Some(spot) = spot else { return };
        // From here on whoever takes content in counts it by itself: see `Meter::received`.
        let bytes_in = self.received.swap(0, Ordering::AcqRel);
        ledger.count(spot, Event { answered: Some(duration), bytes_in, bytes_out: 0 }, || self.line(spot.class));
    }

    /// The route that usage counts under: of a question about another request, that request's.
    fn counted_route(&self) -> Option<&Route> {
        match self.asked() {
            Some(asked) => asked.route.map(|index| &self.route.table().routes()[index]),
            None => self.route.route(),
        }
    }

    fn spot(&self, status: u16, hour: Hour) -> Option<Spot> {
        let (principal, _) = self.who()?;
        // By gRPC a refusal is told in the content of a 200.
        let is_told_otherwise = self.asked().is_some() && self.reason().is_some() && status < 400;
        Some(Spot {
            who: principal.serial(),
            table: self.route.table().serial(),
            route: self.counted_route().and_then(|route| u32::try_from(route.index).ok()),
            hour,
            class: StatusClass::of(if is_told_otherwise { 403 } else { status }),
            is_granted: self.permit().is_some(),
        })
    }

    /// The same in names.
    fn line(&self, class: StatusClass) -> Line {
        let Some((principal, _)) = self.who() else { return Line::other(class) };
        let holder = Holder { account: principal.account().clone(), client: principal.client().clone() };
        let route = self.counted_route();
        let reached = |permit: &Permit| {
            let groups = route.map_or(&[][..], |route| route.audience.groups());
            groups.iter().find(|group| permit.principal().reaches(group)).cloned()
        };
        let group = self.permit().and_then(reached);
        Line { holder: Some(holder), group, route: route.map(|route| route.id.clone()), class }
    }
}

/// Counts an exchange's content as it passes.
#[derive(Debug, Clone)]
pub struct Meter {
    ledger: Arc<Ledger>,
    exchange: Arc<Exchange>,
    /// It takes no time to pass, and counts with its request.
    is_short: bool,
}

impl Meter {
    /// For content that may take its time: it counts in the hours in which it passes.
    pub fn new(ledger: &Arc<Ledger>, exchange: &Arc<Exchange>) -> Self {
        Self { ledger: Arc::clone(ledger), exchange: Arc::clone(exchange), is_short: false }
    }

    /// For content that is there as a whole, if `is_short`.
    pub fn short(self, is_short: bool) -> Self {
        Self { is_short, ..self }
    }

    /// Whether anything that passes will be counted.
    pub fn is_in_use(&self) -> bool {
        let is_counted = || self.exchange.counted.get().is_none_or(Option::is_some);
        self.exchange.asked().is_none() && (is_counted() || self.exchange.admission().is_some())
    }

    /// Content of the request arrived.
    pub fn received(&self, bytes: usize) {
        self.charge(bytes);
        // Until the head of the answer is there, it is not known whose it is. Whichever of the two comes second in the order
        // of changes of this number sees what the other has left.
        self.exchange.received.fetch_add(bytes as u64, Ordering::AcqRel);
        if self.exchange.counted.get().is_some() {
            let bytes_in = self.exchange.received.swap(0, Ordering::AcqRel);
            self.count(Event { bytes_in, ..Event::default() });
        }
    }

    /// Content of the answer was handed on.
    pub fn sent(&self, bytes: usize) {
        self.charge(bytes);
        self.count(Event { bytes_out: bytes as u64, ..Event::default() });
    }

    /// Plans that bound bytes count them too. What comes before access was decided is nobody's yet.
    fn charge(&self, bytes: usize) {
        if let Some(admission) = self.exchange.admission() {
            admission.pass(bytes as u64, self.ledger.now());
        }
    }

    fn count(&self, event: Event) {
        let Some(Some(spot)) = self.exchange.counted.get() else { return };
        if self.exchange.asked().is_some() || (event.bytes_in == 0 && event.bytes_out == 0) {
            return;
        }
        let hour = if self.is_short { spot.hour } else { self.ledger.hour() };
        self.ledger.count(Spot { hour, ..*spot }, event, || self.exchange.line(spot.class));
    }
}
