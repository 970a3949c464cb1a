//! The published keys, and waiting until they are what the clock says.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use keybearer::signing::SigningState;

use crate::gateway::TestGateway;

/// Making a key of 2048 bits takes its time on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn jwks(gateway: &TestGateway) -> JwkSet {
    serde_json::from_value(gateway.get("/.well-known/jwks.json").await.json()).expect("a JWK Set")
}

pub fn kids(set: &JwkSet) -> BTreeSet<String> {
    set.keys.iter().filter_map(|jwk| jwk.common.key_id.clone()).collect()
}

/// The key that a token says it was signed with.
pub fn kid_of(token: &str) -> String {
    jsonwebtoken::decode_header(token).expect("a header").kid.expect("a kid")
}

/// Lets the gateways' own tasks run until what is due is done, and known to all of them. Time stands still for one alone.
pub async fn settle(gateways: &[&TestGateway]) -> JwkSet {
    let settings = &gateways[0].config.signing;
    let unpublished = settings.rotate_every.saturating_sub(settings.publish_ahead);
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if gateways.len() > 1 {
            // Each learns by the clock what another has done.
            gateways[0].advance(Duration::from_millis(250));
        }
        let (keys, now) = (gateways[0].store.signing_keys().await.expect("a read"), gateways[0].now());
        let wants_next = settings.is_scheduled() && keys.iter().all(|key| key.state != SigningState::Next);
        let is_due = keys.iter().any(|key| match key.state {
            SigningState::Next => key.activates_at <= now,
            SigningState::Active => wants_next && key.activates_at + unpublished <= now,
            SigningState::Retiring => key.gone_at.is_none_or(|at| at <= now),
        });
        let stored: BTreeSet<String> = keys.into_iter().map(|key| key.kid).collect();
        let mut sets = Vec::new();
        for gateway in gateways {
            sets.push(jwks(gateway).await);
        }
        if !is_due && sets.iter().all(|set| kids(set) == stored) {
            return sets.remove(0);
        }
    }
    panic!("the gateways do not agree");
}
