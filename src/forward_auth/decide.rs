//! The decision about an original request: the gate's, for the route that the gateway itself would find.

use http::Method;

use super::{Error, Original};
use crate::access::{Gate, Permit, Presented, Refusals};
use crate::exchange::{Asked, Exchange, Refusal};
use crate::problem::Kind;
use crate::routes::{Audience, Route};

/// An original request that may proceed.
#[derive(Debug)]
pub struct Allowed<'t> {
    /// The right to.
    pub permit: Permit,
    /// The route it was decided for.
    pub route: &'t Route,
}

/// Decides about `original`, by the routes that are configured. The built-in ones are not behind another proxy.
///
/// As everywhere, who has no valid token is not told what there is.
///
/// # Errors
/// The refusal.
pub fn decide<'t>(
    gate: &Gate,
    refusals: &Refusals,
    exchange: &'t Exchange,
    original: &Original<'_>,
    authorization: Option<&[u8]>,
) -> Result<Allowed<'t>, Refusal> {
    let method = original.method.as_str();
    let table = exchange.route.table();
    table.admits(&original.path).map_err(Error::Ambiguous)?;
    let route = table.find_configured(&original.host, &original.path, method);
    exchange.asks_about(Asked {
        method: original.method.clone(),
        path: original.path.clone().into_owned(),
        route: route.map(|route| route.index),
        client: original.client,
    });
    let audience = route.map_or(&Audience::Token, |route| &route.audience);
    let presented = Presented::read(authorization, original.query);
    let permit = gate.decide(exchange, audience, presented, original.client).map_err(|denial| refusals.of(denial))?;
    let refuse = |kind, reason, detail: String| {
        let who = permit.principal();
        Err(Refusal::new(kind, reason, detail).of(std::sync::Arc::clone(who), permit.token()))
    };
    let Some(route) = route else {
        return refuse(Kind::NotFound, "no_route", "No route is configured for this path.".into());
    };
    // The gateway answers these two on no path (RFC 9110 §9.3.6, §9.3.8).
    if original.method == Method::TRACE || original.method == Method::CONNECT {
        return refuse(Kind::MethodNotAllowed, "method_not_allowed", "TRACE and CONNECT are not allowed.".into());
    }
    if !route.answers(method) {
        return refuse(Kind::MethodNotAllowed, "method_not_allowed", format!("This path answers {}.", route.allow));
    }
    gate.charge(exchange, &permit, route, original.client).map_err(|denial| refusals.of(denial))?;
    Ok(Allowed { permit, route })
}
