//! What plans say to a request that access let through: it is charged, and what it holds is given back when it ends.

use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::HeaderMap;

use super::fields::{Fields, policy_name};
use super::{Denial, Gate, Permit};
use crate::clock::Timestamp;
use crate::exchange::Exchange;
use crate::plans::{Held, Shown, Taken};
use crate::routes::Route;

/// What plans made of one request.
#[derive(Debug, Default)]
pub struct Admission {
    fields: Option<Fields>,
    /// What counts it as under way, and its bytes.
    held: Option<Mutex<Held>>,
}

impl Admission {
    /// Counts bytes of its content.
    pub fn pass(&self, bytes: u64, now: Timestamp) {
        if let Some(held) = &self.held {
            held.lock().unwrap_or_else(PoisonError::into_inner).pass(bytes, now);
        }
    }

    /// Whether bytes are counted.
    pub fn counts_bytes(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.lock().unwrap_or_else(PoisonError::into_inner).counts_bytes())
    }

    /// It is not under way any more.
    pub fn end(&self) {
        if let Some(held) = &self.held {
            held.lock().unwrap_or_else(PoisonError::into_inner).end();
        }
    }

    /// Whether something is to be told when it ends.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Says on the answer what bounds the request, and what is left.
    pub fn add_fields(&self, headers: &mut HeaderMap) {
        if let Some(fields) = &self.fields {
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
    /// Who shares it: `key` or `licence`.
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
    /// What is left to whoever has `permit` by its key and its licences. Nothing is charged for the question.
    pub fn standings(&self, permit: &Permit, now: Timestamp) -> Vec<Quota> {
        let all = self.quotas().map(|quotas| quotas.standings(permit.principal(), now)).unwrap_or_default();
        let quota = |(per, shown): (&'static str, Shown)| {
            let limit = &shown.plan.limits[shown.limit];
            let policy = policy_name(shown.plan.id.as_str(), limit);
            let reset = shown.standing.window.map(|_| shown.standing.reset);
            Quota { policy, limit: limit.to_string(), per, left: shown.standing.left, reset }
        };
        all.into_iter().map(quota).collect()
    }

    /// Charges a request on `route` to all plans that bound it, or to none. What came of it is in the exchange from then on.
    ///
    /// # Errors
    /// [`Denial::Quota`].
    pub fn charge(&self, exchange: &Exchange, permit: &Permit, route: &Route, client: IpAddr) -> Result<(), Denial> {
        let Some(quotas) = self.quotas().filter(|_| route.is_charged()) else { return Ok(()) };
        let table = exchange.route.table().serial();
        let Some(bound) = quotas.bound(permit.principal(), table, route, client) else { return Ok(()) };
        match bound.take(exchange.at) {
            Ok(Taken { shown, held }) => {
                let fields = Fields::of(shown, quotas.legacy_fields());
                exchange.admitted(Admission { fields, held: held.map(Mutex::new) });
                Ok(())
            }
            Err(refused) => {
                let exceeded = Exceeded {
                    policy: policy_name(refused.plan.id.as_str(), &refused.limit),
                    limit: refused.limit.to_string(),
                    is_shared: refused.limit.is_shared(),
                    wait: refused.wait,
                };
                let fields = Fields::of(refused.shown, quotas.legacy_fields());
                exchange.admitted(Admission { fields, held: None });
                Err(Denial::Quota { exceeded: Box::new(exceeded), session: permit.session().clone() })
            }
        }
    }
}

/// Where an exchange keeps it.
pub type AdmissionCell = OnceLock<Box<Admission>>;
