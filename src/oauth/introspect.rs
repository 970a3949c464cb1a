//! `POST /introspect`: whether a token is active, and what it says (RFC 7662).
//!
//! The judgement is the gate's own, so that what is introspected and what is let through never differ; a revocation counts
//! at once. Nothing is charged for it, and the token does not come into the registry by it.
//!
//! A token may be bound to networks, and only who asks knows from where it was presented. Who says so in `client_address` gets
//! the judgement; who does not gets the networks to judge by, as with other bindings (RFC 8705 §3.2).

use std::sync::Arc;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response};
use serde_json::{Map, Value};

use super::question::{Questions, Subject};
use crate::exchange::{Exchange, private_json};

/// The claims that are passed on as they are (RFC 7662 §2.2), and our own.
const CLAIMS: [&str; 11] =
    ["scope", "client_id", "exp", "iat", "nbf", "sub", "aud", "iss", "jti", "networks", "deprecated"];

/// The introspection endpoint.
#[derive(Debug)]
pub struct IntrospectionEndpoint {
    questions: Arc<Questions>,
}

impl IntrospectionEndpoint {
    /// Answers `questions`.
    pub fn new(questions: Arc<Questions>) -> Self {
        Self { questions }
    }

    /// Answers a request.
    pub async fn respond(&self, exchange: &Exchange, request: Request<Body>) -> Response<Body> {
        match self.questions.take(exchange, request).await {
            Ok(subject) => {
                let is_elsewhere = |subject: &Subject| {
                    subject.presented_from.is_some_and(|address| !subject.session.principal().admits(address))
                };
                let subject = subject.filter(|subject| !is_elsewhere(subject));
                let said = described(subject.as_ref());
                if let Some(subject) = subject {
                    subject.answered(exchange);
                }
                private_json(said.to_string())
            }
            Err(error) => error.into_response(exchange),
        }
    }
}

/// What is said of a token. Of one that is not active nothing else is said, not even why (RFC 7662 §2.2).
fn described(subject: Option<&Subject>) -> Value {
    let claims = subject.and_then(|subject| claims(subject.jwt.expose()));
    let (Some(subject), Some(mut claims)) = (subject, claims) else {
        return Value::Object(Map::from_iter([("active".to_owned(), false.into())]));
    };
    let mut said = Map::new();
    said.insert("active".into(), true.into());
    said.insert("token_type".into(), "Bearer".into());
    said.insert("username".into(), subject.session.principal().account().as_str().into());
    for name in CLAIMS {
        if let Some(value) = claims.remove(name) {
            said.insert(name.into(), value);
        }
    }
    Value::Object(said)
}

/// The claims of a token that was found valid.
fn claims(jwt: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?).ok()
}
