//! `POST /revoke`: a token is ended before its time (RFC 7009).
//!
//! A token that is not valid, or none of the asker's business, answers as one that was revoked (§2.2): it is of no use
//! to the asker in either case, and nobody learns which. `token_type_hint` is ignored (§2.1): there is one type of token.
//! The published demo token is left alone unless an operator ends it, or anyone could switch the Demo group off.

use std::sync::Arc;

use axum::body::Body;
use http::header::{CACHE_CONTROL, PRAGMA};
use http::{HeaderValue, Request, Response};

use super::error::OAuthError;
use super::question::Questions;
use super::stop::Stop;
use crate::exchange::Exchange;
use crate::registry::Registry;
use crate::revocations;

/// The revocation endpoint.
#[derive(Debug)]
pub struct RevocationEndpoint {
    questions: Arc<Questions>,
    revocations: revocations::Operations,
    registry: Arc<Registry>,
}

impl RevocationEndpoint {
    /// Writes to `revocations` what `questions` are about, and puts it into force in `registry`.
    pub fn new(questions: Arc<Questions>, revocations: revocations::Operations, registry: Arc<Registry>) -> Self {
        Self { questions, revocations, registry }
    }

    /// Answers a request.
    pub async fn respond(&self, exchange: &Exchange, request: Request<Body>) -> Response<Body> {
        self.revoke(exchange, request).await.unwrap_or_else(|error| error.into_response(exchange))
    }

    async fn revoke(&self, exchange: &Exchange, request: Request<Body>) -> Result<Response<Body>, OAuthError> {
        let subject = self.questions.take(exchange, request).await?;
        if let Some(subject) = subject.filter(|subject| subject.by_operator || !subject.session.principal().is_demo()) {
            let id = subject.session.id();
            // It may take a while to be written, and whoever goes away meanwhile has asked for it all the same.
            let (revocations, registry) = (self.revocations.clone(), Arc::clone(&self.registry));
            let written = tokio::spawn(async move {
                let revocation = revocations.token(id).await?;
                // Durable first. Here it is in force with the answer; elsewhere, and here again, when the feed is read.
                registry.revoke(&revocation);
                Ok::<_, revocations::Error>(())
            });
            let failed = match written.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = failed {
                tracing::error!(error, token.id = %id, "a token could not be revoked");
                return Err(Stop::away("The token could not be revoked now"));
            }
            subject.answered(exchange);
        }
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
        Ok(response)
    }
}
