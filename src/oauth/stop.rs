//! Why the phases of the token endpoint ended without a token, and how each dialect spells that.

use std::time::Duration;

use http::HeaderValue;

use super::error::{Code, OAuthError};
use crate::credentials::{NotSpecified, Outcome, Reason};
use crate::exchange::Refusal;
use crate::problem::Kind;
use crate::signing;
use crate::tokens::Grant;

/// How long to wait for a hashing thread, and for a store that is away.
const BUSY: Duration = Duration::from_secs(1);
const AWAY: Duration = Duration::from_secs(5);

/// Why there is no token.
#[derive(Debug)]
pub enum Stop {
    /// Nothing readable was presented.
    NotSpecified(NotSpecified),
    /// It is wrong, or no good any more. The word is for the log.
    Rejected(&'static str),
    /// It is right, and may not be used from where it was presented.
    Elsewhere,
    /// Too many failures.
    Throttled(Duration),
    /// Too many demo tokens for this address.
    DemoRate(Duration),
    /// The hashing queue is full.
    Busy,
    /// The store does not answer.
    Away,
    /// The token could not be signed.
    Signing,
}

impl Stop {
    /// A token could not be signed.
    pub fn signing(error: signing::Error) -> Self {
        tracing::error!(error = %error, "a token could not be signed");
        Self::Signing
    }

    /// What a verification came to.
    ///
    /// # Errors
    /// Everything but a grant.
    pub fn unless_verified(outcome: Outcome) -> Result<Grant, Self> {
        Err(match outcome {
            Outcome::Verified(grant) => return Ok(grant),
            Outcome::Rejected(Reason::Elsewhere) => Self::Elsewhere,
            Outcome::Rejected(reason) => Self::Rejected(reason.word()),
            Outcome::Throttled(wait) => Self::Throttled(wait),
            Outcome::Busy => Self::Busy,
            Outcome::Unavailable(error) => {
                tracing::error!(error = %error, "a credential could not be verified");
                Self::Away
            }
        })
    }

    /// In the plain dialect (CONTRACT §1).
    pub fn plain(self, challenge: &HeaderValue) -> Refusal {
        match self {
            Self::NotSpecified(why) => {
                let detail = format!(
                    "{why} Send your API key as user-id with an empty password (curl -u \"$KEY:\"), or a username and a password."
                );
                Refusal::new(Kind::CredentialsNotSpecified, why.word(), detail)
            }
            Self::Rejected(reason) => {
                let detail = "The credentials are wrong, or are not valid any more.";
                Refusal::new(Kind::InvalidCredentials, reason, detail).challenge(challenge.clone())
            }
            // A new attempt with these credentials would not help, so it is no 401.
            Self::Elsewhere => {
                let detail =
                    "This API key may not be used from this address. Its holder's operator says from which it may.";
                Refusal::new(Kind::Forbidden, Reason::Elsewhere.word(), detail)
            }
            Self::Throttled(wait) => {
                let detail =
                    "Too many failed attempts from this address or for this user-id. Wait before trying again.";
                Refusal::new(Kind::TooManyRequests, "failures", detail).retry_after(wait)
            }
            Self::DemoRate(wait) => {
                let detail = "Too many demo tokens for this address. A token can be used many times until it expires.";
                Refusal::new(Kind::TooManyRequests, "demo_rate", detail).retry_after(wait)
            }
            Self::Busy => {
                let detail = "Too many credentials are being verified now. Try again in a moment.";
                Refusal::new(Kind::Unavailable, "hashing_queue_full", detail).retry_after(BUSY)
            }
            Self::Away => {
                let detail = "Credentials cannot be verified now. Try again in a moment.";
                Refusal::new(Kind::Unavailable, "store", detail).retry_after(AWAY)
            }
            Self::Signing => Refusal::new(Kind::Internal, "signing", "The token could not be signed. It was logged."),
        }
    }

    /// In that of registries, whose clients ask for nothing but a challenge when they presented nothing readable.
    pub fn registry(self, challenge: &HeaderValue) -> Refusal {
        let refusal = match self {
            Self::NotSpecified(why) => {
                let detail =
                    format!("{why} Log in with the key's id (kb_…) and the whole key, or a username and password.");
                Refusal::new(Kind::InvalidCredentials, why.word(), detail).challenge(challenge.clone())
            }
            other => other.plain(challenge),
        };
        refusal.for_registry_clients()
    }

    /// In OAuth's (RFC 6749 §5.2). Who presented nothing readable is as unknown as who presented something wrong.
    pub fn oauth(self, challenge: &HeaderValue) -> OAuthError {
        let invalid_client = |reason, description| {
            OAuthError::new(Code::InvalidClient, reason, description).challenge(challenge.clone())
        };
        match self {
            // There are clients that send Latin-1. Who is told so need not look for a typing error.
            Self::NotSpecified(why @ NotSpecified::NotUtf8) => {
                invalid_client(why.word(), "The credentials are not UTF-8")
            }
            Self::NotSpecified(why) => invalid_client(
                why.word(),
                "Authenticate by HTTP Basic, or with client_id and client_secret in the form",
            ),
            Self::Rejected(reason) => invalid_client(reason, "The client is unknown, or its credentials are wrong"),
            Self::Elsewhere => {
                let description = "This client may not be used from this address";
                OAuthError::new(Code::UnauthorizedClient, Reason::Elsewhere.word(), description)
            }
            Self::Throttled(wait) => OAuthError::too_often("failures", "Too many failed attempts", wait),
            Self::DemoRate(wait) => OAuthError::too_often("demo_rate", "Too many demo tokens for this address", wait),
            Self::Busy => {
                let description = "Too many credentials are being verified now";
                OAuthError::new(Code::TemporarilyUnavailable, "hashing_queue_full", description).retry_after(BUSY)
            }
            Self::Away => Self::away("Credentials cannot be verified now"),
            Self::Signing => OAuthError::new(Code::ServerError, "signing", "The token could not be signed"),
        }
    }

    /// The store is away, for whichever purpose it was needed.
    pub fn away(description: &'static str) -> OAuthError {
        OAuthError::new(Code::TemporarilyUnavailable, "store", description).retry_after(AWAY)
    }
}
