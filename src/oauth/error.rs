//! Errors as OAuth spells them (RFC 6749 §5.2): JSON with `error` and `error_description`. They say what a client can mend,
//! and nothing of the inside.

use std::time::Duration;

use axum::body::Body;
use http::header::{PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::exchange::{Exchange, Refusal, Verdict, private_json};
use crate::limits;
use crate::problem::Kind;

/// The `error` words of RFC 6749 §5.2 and §4.1.2.1, and of RFC 6750 §3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A parameter is missing or doubled, or the content cannot be read.
    InvalidRequest,
    /// Who asks did not say who it is, or could not prove it.
    InvalidClient,
    /// Who asks is known, and may not do so here.
    UnauthorizedClient,
    /// Another grant than `client_credentials`.
    UnsupportedGrantType,
    /// The scope is malformed, or more than the credential has.
    InvalidScope,
    /// The access token that was presented is not valid (RFC 6750 §3.1).
    InvalidToken,
    /// Not now.
    TemporarilyUnavailable,
    /// The gateway failed.
    ServerError,
}

impl Code {
    const fn word(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidToken => "invalid_token",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::ServerError => "server_error",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest | Self::UnauthorizedClient | Self::UnsupportedGrantType | Self::InvalidScope => {
                StatusCode::BAD_REQUEST
            }
            Self::InvalidClient | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An answer that says no.
#[derive(Debug)]
pub struct OAuthError(Box<Said>);

#[derive(Debug)]
struct Said {
    code: Code,
    status: StatusCode,
    reason: &'static str,
    description: &'static str,
    challenge: Option<HeaderValue>,
    retry_after: Option<u64>,
}

#[derive(Serialize)]
struct Content {
    error: &'static str,
    error_description: &'static str,
}

impl OAuthError {
    /// Says no for `reason`, a stable word for the log. The description has no quotes or backslashes.
    pub fn new(code: Code, reason: &'static str, description: &'static str) -> Self {
        let status = code.status();
        Self(Box::new(Said { code, status, reason, description, challenge: None, retry_after: None }))
    }

    /// Content that could not be taken in: 413, 408 or 400, as for every request.
    pub fn of_content(refusal: &Refusal) -> Self {
        let description = match refusal.kind() {
            Kind::ContentTooLarge => "The content is too large",
            Kind::RequestTimeout => "The content did not arrive in time",
            _ => "The content broke off",
        };
        let mut error = Self::new(Code::InvalidRequest, refusal.reason(), description);
        error.0.status = StatusCode::from_u16(refusal.kind().status()).unwrap_or(StatusCode::BAD_REQUEST);
        error
    }

    /// Too often: 429, which RFC 6749 has no word of its own for.
    pub fn too_often(reason: &'static str, description: &'static str, wait: Duration) -> Self {
        let mut error = Self::new(Code::TemporarilyUnavailable, reason, description).retry_after(wait);
        error.0.status = StatusCode::TOO_MANY_REQUESTS;
        error
    }

    /// With a challenge. A 401 is not finished without one (RFC 9110 §15.5.2).
    pub fn challenge(mut self, challenge: HeaderValue) -> Self {
        self.0.challenge = Some(challenge);
        self
    }

    /// With the time after which it may go better.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(limits::retry_after(wait));
        self
    }

    /// The answer, noted in the exchange.
    pub fn into_response(self, exchange: &Exchange) -> Response<Body> {
        let Said { code, status, reason, description, challenge, retry_after } = *self.0;
        let content = Content { error: code.word(), error_description: description };
        let mut response = private_json(serde_json::to_vec(&content).unwrap_or_default());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        exchange.note(Verdict { reason: Some(reason), who: None });
        response
    }
}
