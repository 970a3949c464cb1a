//! What bounds a request that access let through, beyond whether it may: the rate of the Demo group and the plans. It is
//! charged, is told where it stands, and what it holds is given back when it ends.

use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::HeaderMap;

use super::fields::{DEMO_POLICY, Fields, policy_name};
use super::{Denial, Gate, Permit};
use crate::client_addr;
use crate::clock::Timestamp;
use crate::exchange::Exchange;
use crate::limits;
use crate::plans::{Held, Shown, Taken};
use crate::registry::Session;
use crate::routes::Route;

/// What bounds one request, and where that stands.
#[derive(Debug, Default)]
pub struct Admission {
    /// The rate of the Demo group, where it came by that.
    demo: Option<limits::Standing>,
    /// Set where plans were asked, which is last of all.
    plans: OnceLock<Planned>,
    has_legacy: bool,
}

/// What plans made of it.
#[derive(Debug)]
struct Planned {
    shown: Vec<Shown>,
    /// What counts it as under way, and its bytes.
    held: Option<Mutex<Held>>,
}

impl Admission {
    fn held(&self) -> Option<&Mutex<Held>> {
        self.plans.get()?.held.as_ref()
    }

    /// Counts bytes of its content.
    pub fn pass(&self, bytes: u64, now: Timestamp) {
        if let Some(held) = self.held() {
            held.lock().unwrap_or_else(PoisonError::into_inner).pass(bytes, now);
        }
    }

    /// Whether bytes are counted.
    pub fn counts_bytes(&self) -> bool {
        self.held().is_some_and(|held| held.lock().unwrap_or_else(PoisonError::into_inner).counts_bytes())
    }

    /// It is not under way any more.
    pub fn end(&self) {
        if let Some(held) = self.held() {
            held.lock().unwrap_or_else(PoisonError::into_inner).end();
        }
    }

    /// Whether something is to be told when it ends.
    pub fn is_held(&self) -> bool {
        self.held().is_some()
    }

    /// Says on the answer what bounds the request, and what is left.
    pub fn add_fields(&self, headers: &mut HeaderMap) {
        let shown = self.plans.get().map_or(&[][..], |plans| &plans.shown);
        if let Some(fields) = Fields::of(self.demo.as_ref(), shown, self.has_legacy) {
            fields.add_to(headers);
        }
    }
}

/// A limit that bounds somebody, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// The policy, by its name in `RateLimit-Policy`.
    pub policy: String,
    /// Its limit, in words.
    pub limit: String,
    /// Who shares it: `key`, `licence` or `client address`.
    pub per: &'static str,
    /// So much is left.
    pub left: u64,
    /// Until there is more; `None` for what is limited at any time alike.
    pub reset: Option<Duration>,
}

/// Which quota is used up.
#[derive(Debug)]
pub struct Exceeded {
    /// The policy, by its name in `RateLimit-Policy`.
    pub policy: String,
    /// Its limit, in words.
    pub limit: String,
    /// Whether all gateways on one store count it together.
    pub is_shared: bool,
    /// After so long there may be one more, and not before. Zero where nobody can know.
    pub wait: Duration,
}

impl Gate {
    /// What is left to whoever has `permit` by its key and its licences, and in the Demo group by its address. No plan is
    /// charged for the question.
    pub fn standings(&self, exchange: &Exchange, permit: &Permit) -> Vec<Quota> {
        let of_demo = exchange.admission().and_then(|admission| admission.demo).map(|standing| {
            let limits::Standing { rate, left, reset } = standing;
            let (policy, limit) = (DEMO_POLICY.to_owned(), rate.in_words("request"));
            Quota { policy, limit, per: "client address", left: left.into(), reset: Some(reset) }
        });
        let of_plans = self
            .quotas()
            .map(|quotas| quotas.standings(permit.principal(), exchange.client, exchange.at))
            .unwrap_or_default();
        let quota = |(per, shown): (&'static str, Shown)| {
            let limit = &shown.plan.limits[shown.limit];
            let policy = policy_name(shown.plan.id.as_str(), limit);
            let reset = shown.standing.window.map(|_| shown.standing.reset);
            Quota { policy, limit: limit.to_string(), per, left: shown.standing.left, reset }
        };
        of_demo.into_iter().chain(of_plans.into_iter().map(quota)).collect()
    }

    /// Charges a request of the Demo group to its client's address. Where that stands is in the exchange from then on.
    ///
    /// # Errors
    /// [`Denial::TooMany`].
    pub(super) fn charge_demo(&self, exchange: &Exchange, session: &Session, client: IpAddr) -> Result<(), Denial> {
        let (taken, demo) = self.demo().take(&client_addr::network(client), exchange.at);
        exchange.admitted(Admission { demo, has_legacy: self.has_legacy(), ..Admission::default() });
        taken.map_err(|wait| Denial::TooMany { wait, session: session.clone() })
    }

    /// Charges a request on `route` to all plans that bound it, or to none. What came of it is in the exchange from then on.
    ///
    /// # Errors
    /// [`Denial::Quota`].
    pub fn charge(&self, exchange: &Exchange, permit: &Permit, route: &Route, client: IpAddr) -> Result<(), Denial> {
        let Some(quotas) = self.quotas().filter(|_| route.is_charged()) else { return Ok(()) };
        let table = exchange.route.table().serial();
        let bound = quotas.bound(permit.principal(), table, route, client, exchange.at);
        let Some(bound) = bound else { return Ok(()) };
        let (planned, verdict) = match bound.take(exchange.at) {
            Ok(Taken { shown, held }) => (Planned { shown, held: held.map(Mutex::new) }, Ok(())),
            Err(refused) => {
                let exceeded = Exceeded {
                    policy: policy_name(refused.plan.id.as_str(), &refused.limit),
                    limit: refused.limit.to_string(),
                    is_shared: refused.limit.is_shared(),
                    wait: refused.wait,
                };
                let denial = Denial::Quota { exceeded: Box::new(exceeded), session: permit.session().clone() };
                (Planned { shown: refused.shown, held: None }, Err(denial))
            }
        };
        let admission = exchange.admission_or(|| Admission { has_legacy: self.has_legacy(), ..Admission::default() });
        let _ = admission.plans.set(planned);
        verdict
    }

    fn has_legacy(&self) -> bool {
        self.quotas().is_some_and(|quotas| quotas.legacy_fields())
    }
}

/// Where an exchange keeps it.
pub type AdmissionCell = OnceLock<Box<Admission>>;
