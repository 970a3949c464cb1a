//! `GET` and `POST /token`: a credential becomes a token (CONTRACT §1).
//!
//! Phases, in this order, each with its own refusals: what was presented, is it right, what may it have, issue. Other
//! dialects differ in the first phase and in how refusals are spelled.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{AUTHORIZATION, PRAGMA};
use http::{HeaderValue, Request, Response};
use serde::Serialize;

use crate::client_addr;
use crate::clock::Clock;
use crate::credentials::{NotSpecified, Outcome, Presented, Verifier};
use crate::exchange::{Exchange, Refusal, Verdict, private_json, quotable, read_body};
use crate::groups::demo;
use crate::ids::scope;
use crate::limits::{Limiter, Rate};
use crate::problem::Kind;
use crate::registry::{Digest, Registry, Session};
use crate::telemetry::Metrics;
use crate::tokens::{Client, Grant, Issued, Issuer};

/// Client addresses whose demo tokens are counted at once.
const MOST_DEMO_CLIENTS: usize = 200_000;

/// How much content of a plain request is read, and for how long, to be ignored.
const IGNORED_CONTENT: usize = 64 * 1024;
const IGNORED_TIME: Duration = Duration::from_secs(10);

/// What a [`TokenEndpoint`] works with.
pub struct TokenParts {
    /// Verifies credentials.
    pub credentials: Arc<Verifier>,
    /// Issues tokens.
    pub issuer: Arc<Issuer>,
    /// Takes the issued ones in.
    pub registry: Arc<Registry>,
    /// Counts them.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The token endpoint.
pub struct TokenEndpoint {
    parts: TokenParts,
    challenge: HeaderValue,
    demo: Limiter<IpAddr>,
}

impl std::fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenEndpoint").finish_non_exhaustive()
    }
}

/// RFC 6749 §5.1, and `token` with the same value as `access_token`.
#[derive(Serialize)]
struct Answer<'a> {
    token: &'a str,
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    scope: String,
}

impl TokenEndpoint {
    /// An endpoint that challenges for `realm`.
    pub fn new(parts: TokenParts, realm: &str, demo: &demo::Settings) -> Self {
        // RFC 7617 §2.1: charset tells clients to send UTF-8.
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", quotable(realm));
        Self {
            parts,
            challenge: HeaderValue::from_str(&challenge).unwrap_or(HeaderValue::from_static("Basic")),
            demo: Limiter::new(demo.tokens_per_address, MOST_DEMO_CLIENTS),
        }
    }

    /// Answers a request.
    pub async fn respond(&self, exchange: &Exchange, request: Request<Body>) -> Response<Body> {
        match self.issue(exchange, request).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(exchange),
        }
    }

    async fn issue(&self, exchange: &Exchange, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let (head, body) = request.into_parts();
        let presented = self.presented(head.headers.get(AUTHORIZATION))?;
        // The plain dialect takes nothing from the content; it is read so that the connection can go on.
        read_body(body, IGNORED_CONTENT, IGNORED_TIME).await?;
        let grant = self.granted(self.parts.credentials.verify(presented, exchange.client).await)?;
        let (issued, session) = self.signed(&grant, exchange.client)?;
        exchange.note(Verdict { reason: None, who: Some((Arc::clone(session.principal()), session.id())) });
        Ok(self.answer(&issued))
    }

    /// What was presented: 400 when it was not specified.
    fn presented(&self, authorization: Option<&HeaderValue>) -> Result<Presented, Refusal> {
        let presented = authorization
            .ok_or(NotSpecified::NoHeader)
            .and_then(|value| Presented::from_authorization(value.as_bytes(), self.parts.credentials.prefix()));
        presented.map_err(|why| {
            let detail = format!(
                "{why} Send your API key as user-id with an empty password (curl -u \"$KEY:\"), or a username and a password."
            );
            Refusal::new(Kind::CredentialsNotSpecified, why.word(), detail)
        })
    }

    /// What it may have: 401 when it was wrong, in whichever way.
    fn granted(&self, outcome: Outcome) -> Result<Grant, Refusal> {
        match outcome {
            Outcome::Verified(grant) => Ok(grant),
            Outcome::Rejected(reason) => Err(self.invalid(reason.word())),
            Outcome::Throttled(wait) => {
                let detail =
                    "Too many failed attempts from this address or for this user-id. Wait before trying again.";
                Err(Refusal::new(Kind::TooManyRequests, "failures", detail).retry_after(wait))
            }
            Outcome::Busy => {
                let detail = "Too many credentials are being verified now. Try again in a moment.";
                Err(Refusal::new(Kind::Unavailable, "hashing_queue_full", detail).retry_after(Duration::from_secs(1)))
            }
            Outcome::Unavailable(error) => {
                tracing::error!(error = %error, "a credential could not be verified");
                let detail = "Credentials cannot be verified now. Try again in a moment.";
                Err(Refusal::new(Kind::Unavailable, "store", detail).retry_after(Duration::from_secs(5)))
            }
        }
    }

    fn invalid(&self, reason: &'static str) -> Refusal {
        let detail = "The credentials are wrong, or are not valid any more.";
        Refusal::new(Kind::InvalidCredentials, reason, detail).challenge(self.challenge.clone())
    }

    fn signed(&self, grant: &Grant, client: IpAddr) -> Result<(Issued, Session), Refusal> {
        let now = self.parts.clock.now();
        let is_demo = grant.account.as_str() == demo::DEMO;
        if is_demo && let Err(wait) = self.demo.charge(&client_addr::network(client), now) {
            let detail = "Too many demo tokens for this address. A token can be used many times until it expires.";
            return Err(Refusal::new(Kind::TooManyRequests, "demo_rate", detail).retry_after(wait));
        }
        let issued = self.parts.issuer.issue(grant, now).map_err(|error| {
            tracing::error!(error = %error, "a token could not be signed");
            Refusal::new(Kind::Internal, "signing", "The token could not be signed. It was logged.")
        })?;
        let issued = issued.ok_or_else(|| self.invalid("ended"))?;
        let digest = Digest::of(issued.jwt.expose().as_bytes());
        let session = self.parts.registry.admit(digest, &issued.token, now).ok_or_else(|| self.invalid("revoked"))?;
        self.parts.metrics.issued(match &grant.client {
            _ if is_demo => "demo",
            Client::Key(_) => "key",
            Client::Password => "password",
        });
        Ok((issued, session))
    }

    fn answer(&self, issued: &Issued) -> Response<Body> {
        let jwt = issued.jwt.expose();
        let answer = Answer {
            token: jwt,
            access_token: jwt,
            token_type: "Bearer",
            expires_in: issued.token.expires_at.saturating_sub(self.parts.clock.now().secs()),
            scope: scope(&issued.token.groups),
        };
        let mut response = private_json(serde_json::to_vec(&answer).unwrap_or_default());
        response.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
        response
    }

    /// Keeps another rate of demo tokens from now on.
    pub fn set_demo_rate(&self, rate: Rate) {
        self.demo.set(rate);
    }

    /// Drops the demo clients that have their full allowance again.
    pub fn forget_clients(&self) {
        self.demo.forget(self.parts.clock.now());
    }
}
