//! Answers that proxies understand. Their header sections stay under 3 KiB, and under 5 KiB with what is put on them of plans:
//! nginx reads one into a buffer of 4 KiB unless told otherwise, and makes a 500 of what does not fit.

use axum::body::Body;
use http::header::{CACHE_CONTROL, HeaderName};
use http::{HeaderValue, Response, StatusCode};

use super::Allowed;
use crate::access::{identity, identity_headers};
use crate::exchange::{Exchange, Refusal};
use crate::keys::KeyPrefix;
use crate::problem::Kind;
use crate::routes::Contract;

const X_AUTH_REASON: HeaderName = HeaderName::from_static("x-auth-reason");

/// The status that a refusal stands for, where its proxy cannot be told it.
const X_AUTH_STATUS: HeaderName = HeaderName::from_static("x-auth-status");

/// By this Envoy is told over HTTP what not to pass on.
const HEADERS_TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// The answer that lets a request through: the identity headers and no content. It may not be kept, since a revocation must
/// be in force at once.
pub fn allowed(allowed: &Allowed<'_>, contract: Contract, prefix: &KeyPrefix, exchange: &Exchange) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.extend(identity_headers(&allowed.permit, prefix, allowed.route.audience.groups()));
    if contract == Contract::ExtAuthz && !passes_credentials(allowed) {
        headers.insert(HEADERS_TO_REMOVE, HeaderValue::from_static("authorization"));
    }
    exchange.granted(allowed.permit.clone());
    response
}

/// The status that a client is to see. A proxy that meets any other fails itself: Envoy takes a 5xx for a fault of ours that it
/// may be told to overlook.
fn meant(kind: Kind) -> StatusCode {
    match kind.status() {
        401 => StatusCode::UNAUTHORIZED,
        429 => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::FORBIDDEN,
    }
}

/// The status of a refusal with that meaning. nginx makes a 500 of all but 401 and 403.
fn status(contract: Contract, meant: StatusCode) -> StatusCode {
    match (contract, meant) {
        (Contract::AuthRequest, StatusCode::TOO_MANY_REQUESTS) => StatusCode::FORBIDDEN,
        _ => meant,
    }
}

/// The answer that does not, with the refusal's word in a header: nginx passes no content on. Where it cannot have the status
/// that is meant, that is in a header too, so that nobody has to know which words mean 429.
pub fn refused(refusal: Refusal, contract: Contract, exchange: &Exchange) -> Response<Vec<u8>> {
    let meant = meant(refusal.kind());
    let status = status(contract, meant);
    let reason = HeaderValue::from_static(refusal.reason());
    let mut response = refusal.answered_as(status).into_answer(exchange);
    response.headers_mut().insert(X_AUTH_REASON, reason);
    if status != meant {
        response.headers_mut().insert(X_AUTH_STATUS, HeaderValue::from(meant.as_u16()));
    }
    response
}

/// Whether the client's `Authorization` goes on to the API. What another proxy answers never gets it from us.
pub fn passes_credentials(allowed: &Allowed<'_>) -> bool {
    allowed.route.forwarding.as_ref().is_some_and(|forwarding| forwarding.pass_credentials)
}

/// Whether a header of the client's could pass for an identity header in an API that reads names loosely, as CGI does
/// (RFC 3875 §4.1.18). The identity headers themselves are overwritten.
pub fn is_look_alike(name: &str) -> bool {
    const OURS: [HeaderName; 5] =
        [identity::SUBJECT, identity::KEY_ID, identity::GROUPS, identity::TOKEN_ID, identity::EXPIRES];
    identity::is_identity(name) && !OURS.iter().any(|ours| ours == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_alike_is_any_spelling_but_the_exact_one() {
        for alike in ["x_auth_subject", "x.auth.subject", "x-auth_key-id", "x-auth-licence", "X-Auth_Groups"] {
            assert!(is_look_alike(alike), "{alike}");
        }
        for other in ["x-auth-subject", "x-auth-expires", "authorization", "x-authority", "x-auth", "x-aut"] {
            assert!(!is_look_alike(other), "{other}");
        }
    }

    #[test]
    fn a_refusal_has_a_status_that_the_proxy_understands() {
        for contract in Contract::ALL {
            let too_many = if contract == Contract::AuthRequest { 403 } else { 429 };
            for (kind, expected) in [
                (Kind::MissingToken, 401),
                (Kind::InvalidToken, 401),
                (Kind::InsufficientScope, 403),
                (Kind::NotFound, 403),
                (Kind::MethodNotAllowed, 403),
                (Kind::HttpsRequired, 403),
                (Kind::MalformedRequest, 403),
                (Kind::HeadersTooLarge, 403),
                (Kind::Internal, 403),
                (Kind::Unavailable, 403),
                (Kind::TooManyRequests, too_many),
                (Kind::QuotaExceeded, too_many),
            ] {
                assert_eq!(status(contract, meant(kind)), expected, "{contract:?} {kind:?}");
            }
        }
    }
}
