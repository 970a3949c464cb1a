//! Forward-auth: the door for proxies that answer requests themselves and ask here whether they may.
//!
//! Owns the contracts of nginx, Traefik, Caddy, Envoy and HAProxy: where each says what the original request was, and what
//! each makes of an answer. Who is let through is the gate's decision, as on every other door. Nothing is awaited for it:
//! Envoy waits 200 ms unless told otherwise.

mod answer;
mod decide;
mod grpc;
mod messages;
pub mod openapi;
mod original;
mod settings;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::Body;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Response};

use crate::access::{Gate, Refusals};
use crate::client_addr::{Peer, TrustedProxies};
use crate::exchange::{Exchange, Refusal};
use crate::keys::KeyPrefix;
use crate::problem::Kind;
use crate::routes::Contract;

use decide::Allowed;

pub use grpc::CHECK;
pub use original::{Error, Original};
pub use settings::Settings;

/// The door.
#[derive(Debug)]
pub struct ForwardAuth {
    gate: Arc<Gate>,
    refusals: Arc<Refusals>,
    prefix: KeyPrefix,
    trusted: ArcSwap<TrustedProxies>,
}

impl ForwardAuth {
    /// A door that asks `gate`, for the proxies that `settings` trust. Keys are called by `prefix`.
    pub fn new(settings: &Settings, gate: Arc<Gate>, refusals: Arc<Refusals>, prefix: KeyPrefix) -> Self {
        let trusted = ArcSwap::from_pointee(TrustedProxies::new(&settings.trusted));
        Self { gate, refusals, prefix, trusted }
    }

    /// Trusts the proxies of `settings` from now on, and no others.
    pub fn trust(&self, settings: &Settings) {
        self.trusted.store(Arc::new(TrustedProxies::new(&settings.trusted)));
    }

    /// Answers a request that asks by `contract`; `below` is what follows the contract's path ([`Contract::of`]). Its content
    /// is not looked at, so it need not be there.
    pub fn respond(
        &self,
        exchange: &Exchange,
        peer: Peer,
        head: &Parts,
        contract: Contract,
        below: &str,
    ) -> Response<Body> {
        match self.verdict(exchange, peer, head, contract, below) {
            Ok(allowed) => answer::allowed(&allowed, contract, &self.prefix, exchange),
            Err(refusal) => Self::refuse(refusal, exchange, contract),
        }
    }

    /// A refusal that was decided before this door, in the words of `contract`: whoever asks here must not meet a status that
    /// its proxy does not understand.
    pub fn refuse(refusal: Refusal, exchange: &Exchange, contract: Contract) -> Response<Body> {
        answer::refused(refusal, contract, exchange).map(Body::from)
    }

    fn verdict<'t>(
        &self,
        exchange: &'t Exchange,
        peer: Peer,
        head: &Parts,
        contract: Contract,
        below: &str,
    ) -> Result<Allowed<'t>, Refusal> {
        let trusted = self.trusted.load();
        if !trusted.trusts_peer(peer) {
            return Err(untrusted());
        }
        let mut authorizations = head.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let original = Original::read(contract, below, head, &trusted, peer).inspect_err(|error| {
            if let (Error::NotHttps, Some(value)) = (error, head.headers.get(AUTHORIZATION)) {
                exchange.expose(value.as_bytes());
            }
        })?;
        let authorization = authorizations.next();
        if authorizations.next().is_some() {
            return Err(Error::Repeated("Authorization").into());
        }
        decide::decide(&self.gate, &self.refusals, exchange, &original, authorization)
    }
}

/// What anyone else hears. Whether a token is good is not for them to find out here.
fn untrusted() -> Refusal {
    Refusal::new(Kind::Forbidden, "untrusted_peer", "Decisions are for the proxies that `forward_auth.trusted` names.")
}
