//! `POST /me/keys/{id}/roll`: the holder of a key gives it a new secret.
//!
//! A token of a key may roll that key alone; a token got by an account's password, any key of the account. Of any other key
//! nobody learns whether it exists. The token is not enough: the content proves that its sender has the present key, or the
//! password. The new key is in the answer once, and nowhere else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::header::PRAGMA;
use http::{HeaderValue, Request, Response};
use serde::{Deserialize, Serialize};

use super::proof::{Proof, away, busy};
use crate::access::Permit;
use crate::clock::Clock;
use crate::credentials::{HashError, Verifier};
use crate::exchange::{Exchange, Refusal, private_json, read_body};
use crate::ids::{AccountName, KeyId};
use crate::keys::{self, ApiKey, End, Grace, Key, KeyPrefix, Operations, Roll, Start};
use crate::limits::{Limiter, Rate};
use crate::problem::Kind;
use crate::secret::Secret;
use crate::tokens::Client;

/// How often the keys of one account can be rolled here: each time costs a hash and a write, and nobody rolls by the minute.
const MOST_ROLLS: Rate = Rate::new(10, Duration::from_secs(600));

/// Accounts whose rolls are counted at once.
const MOST_ACCOUNTS: usize = 100_000;

/// How much content is read, and for how long.
const MOST_CONTENT: usize = 4 * 1024;
const LONGEST_CONTENT: Duration = Duration::from_secs(10);

/// What a request has to look like.
const FORM: &str = r#"Send JSON as in {"api_key": "kb_…", "grace": "24h", "start": "first-use"}, with the whole key that is to be rolled, or with your account's "password" in its place."#;

/// Rolls keys for their holders.
pub struct Roller {
    keys: Operations,
    credentials: Arc<Verifier>,
    clock: Arc<dyn Clock>,
    prefix: KeyPrefix,
    rolls: Limiter<AccountName>,
}

impl std::fmt::Debug for Roller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roller").finish_non_exhaustive()
    }
}

/// The content of a request: the present key or the password, and how to roll. What is left out of that is as the operator's
/// command has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    api_key: Option<String>,
    password: Option<String>,
    grace: Option<String>,
    start: Option<String>,
}

/// The content of an answer.
#[derive(Serialize)]
struct Answer<'a> {
    /// The whole new key.
    api_key: &'a str,
    /// `<prefix>_<id>`, which stays the same.
    key: String,
    old_secret: OldSecret,
}

/// What becomes of the old secret: either it is known when it ends, or for how long it goes on once the new one is used.
#[derive(Serialize)]
struct OldSecret {
    ends_at: Option<String>,
    grace_seconds: Option<u64>,
}

impl OldSecret {
    fn of(key: &Key) -> Self {
        let grace_seconds = key.previous.as_ref().and_then(|half| match half.end {
            End::AfterFirstUse(grace) => Some(grace.as_secs()),
            End::At(_) => None,
        });
        Self { ends_at: key.old_ends_at().map(|end| end.to_string()), grace_seconds }
    }
}

impl Roller {
    /// Rolls by `keys`, and hashes by `credentials`.
    pub fn new(keys: Operations, credentials: Arc<Verifier>, clock: Arc<dyn Clock>, prefix: &KeyPrefix) -> Self {
        Self { keys, credentials, clock, prefix: prefix.clone(), rolls: Limiter::new(MOST_ROLLS, MOST_ACCOUNTS) }
    }

    /// Answers a request.
    pub async fn respond(&self, exchange: &Exchange, request: Request<Body>) -> Response<Body> {
        self.rolled(exchange, request).await.unwrap_or_else(|refusal| refusal.into_response(exchange))
    }

    async fn rolled(&self, exchange: &Exchange, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let permit = exchange.permit().ok_or_else(no_such_key)?;
        let content = read_body(request.into_body(), MOST_CONTENT, LONGEST_CONTENT).await?;
        let id = self.key_id(exchange.path()).ok_or_else(no_such_key)?;
        self.own_key(permit, &id).await?;
        let asked: Asked = serde_json::from_slice(&content).map_err(|_| malformed("no_roll", FORM))?;
        let proof = match (asked.api_key, asked.password) {
            (Some(key), None) => Proof::Key(Secret::new(key)),
            (None, Some(password)) => Proof::Password(Secret::new(password)),
            (None, None) => return Err(malformed("no_proof", FORM)),
            (Some(_), Some(_)) => {
                return Err(malformed("two_proofs", "Send either `api_key` or `password`, and not both."));
            }
        };
        let grace = asked.grace.map_or(Ok(Grace::default()), |text| text.parse());
        let grace = grace.map_err(|rule| malformed("no_grace", &format!("`grace`: {rule}.")))?;
        let start = asked.start.map_or(Ok(Start::default()), |text| text.parse());
        let start = start.map_err(|rule| malformed("no_start", &format!("`start`: {rule}.")))?;
        let account = permit.principal().account();
        proof.verify(&self.credentials, &id, account, exchange.client).await?;
        self.rolls.charge(account, self.clock.now()).map_err(|wait| {
            let detail = "The keys of this account were rolled too often. Wait before the next one.";
            Refusal::new(Kind::TooManyRequests, "rolls", detail).retry_after(wait)
        })?;
        let (api_key, key) = self.roll(&id, Roll { grace, start, force: false }).await?;
        tracing::info!(key.id = %id, account = %account, "a key was rolled by its holder");
        let answer = Answer {
            api_key: api_key.secret().expose(),
            key: self.prefix.name_of(&id),
            old_secret: OldSecret::of(&key),
        };
        let mut response = private_json(serde_json::to_vec(&answer).unwrap_or_default());
        response.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
        Ok(response)
    }

    /// The key that a path names, by its id with or without the prefix.
    fn key_id(&self, path: &str) -> Option<KeyId> {
        let segment = path.strip_prefix("/me/keys/")?.split('/').next()?;
        self.prefix.key_id(segment).or_else(|| segment.parse().ok())
    }

    /// Whether the key may be rolled with this token.
    async fn own_key(&self, permit: &Permit, id: &KeyId) -> Result<(), Refusal> {
        let principal = permit.principal();
        match principal.client() {
            Client::Key(own) if own != id => {
                let detail = "With an API key's token that very key can be rolled, and no other.";
                Err(Refusal::new(Kind::Forbidden, "not_this_key", detail))
            }
            Client::Key(_) => Ok(()),
            Client::Password => match self.keys.show(id).await {
                Ok(key) if key.account == *principal.account() => Ok(()),
                Ok(_) => Err(no_such_key()),
                Err(error) => Err(refused(&error)),
            },
        }
    }

    async fn roll(&self, id: &KeyId, roll: Roll) -> Result<(ApiKey, Key), Refusal> {
        let is_busy = AtomicBool::new(false);
        let hash = async |text| {
            self.credentials.hash_key(text).await.unwrap_or_else(|_| {
                is_busy.store(true, Ordering::Relaxed);
                Err(HashError::Unreadable)
            })
        };
        let rolled = self.keys.roll(id, roll, hash).await;
        let (api_key, changed) = rolled.map_err(|error| match is_busy.load(Ordering::Relaxed) {
            true => busy(),
            false => refused(&error),
        })?;
        Ok((api_key, changed.record))
    }

    /// Drops the accounts that have their full allowance again.
    pub fn forget_accounts(&self) {
        self.rolls.forget(self.clock.now());
    }
}

fn malformed(reason: &'static str, detail: &str) -> Refusal {
    Refusal::new(Kind::MalformedRequest, reason, detail)
}

/// There is none, or it is somebody else's.
fn no_such_key() -> Refusal {
    Refusal::new(Kind::NotFound, "no_such_key", "You have no such key.")
}

/// Why a key was not rolled, as its holder may hear it.
fn refused(error: &keys::Error) -> Refusal {
    use keys::Error as E;
    let conflict = |reason, detail: String| Refusal::new(Kind::Conflict, reason, detail);
    match error {
        E::Unknown(_) | E::Demo => no_such_key(),
        E::Rolling(_, Some(end)) => {
            conflict("roll_under_way", format!("The key was rolled before, and its old secret works until {end}."))
        }
        E::Rolling(_, None) => conflict(
            "roll_under_way",
            "The key was rolled before. Use its new secret first; the old one ends a grace after that.".to_owned(),
        ),
        E::Revoked(_) | E::Suspended(_) | E::Expired(_) => {
            conflict("key_not_live", "The key is suspended, expired or revoked.".to_owned())
        }
        E::Store(error) => {
            tracing::error!(error = error as &dyn std::error::Error, "a key could not be rolled");
            away()
        }
        other => {
            tracing::error!(error = %other, "a key could not be rolled");
            Refusal::new(Kind::Internal, "roll", "The key could not be rolled. It was logged.")
        }
    }
}
