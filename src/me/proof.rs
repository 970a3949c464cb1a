//! That whoever asks for a new secret knows the present one. A token is passed around, logged and stolen more easily than
//! what it was got with, and may reach less: alone it must not become a key.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::credentials::{Outcome, Presented, Verifier};
use crate::exchange::Refusal;
use crate::ids::{AccountName, KeyId};
use crate::keys::ApiKey;
use crate::problem::Kind;
use crate::secret::Secret;

/// How long to wait for a hashing thread, and for a store that is away.
const BUSY: Duration = Duration::from_secs(1);
const AWAY: Duration = Duration::from_secs(5);

/// What is to prove it.
pub(super) enum Proof {
    /// The key that is to be rolled, whole.
    Key(Secret<String>),
    /// The password of its account.
    Password(Secret<String>),
}

impl Proof {
    /// Asks `credentials` whether it proves that its holder may roll the key `id` of `account`. A failure counts as one at
    /// the token endpoint.
    pub(super) async fn verify(
        self,
        credentials: &Arc<Verifier>,
        id: &KeyId,
        account: &AccountName,
        from: IpAddr,
    ) -> Result<(), Refusal> {
        let presented = match self {
            Self::Key(text) => match ApiKey::parse(credentials.prefix(), text.expose()) {
                Ok(key) if key.id() == id => Presented::Key(key),
                _ => return Err(wrong("another_key")),
            },
            Self::Password(password) => Presented::Password { user_id: account.to_string(), password, otherwise: None },
        };
        match credentials.verify(presented, from).await {
            Outcome::Verified(grant) if grant.account == *account => Ok(()),
            Outcome::Verified(_) => Err(wrong("another_account")),
            Outcome::Rejected(reason) => Err(wrong(reason.word())),
            Outcome::Throttled(wait) => {
                let detail =
                    "Too many failed attempts from this address or for this user-id. Wait before trying again.";
                Err(Refusal::new(Kind::TooManyRequests, "failures", detail).retry_after(wait))
            }
            Outcome::Busy => Err(busy()),
            Outcome::Unavailable(error) => {
                tracing::error!(error = %error, "the holder of a key could not be verified");
                Err(away())
            }
        }
    }
}

/// No hashing thread is free.
pub(super) fn busy() -> Refusal {
    let detail = "Too many credentials are being verified now. Try again in a moment.";
    Refusal::new(Kind::Unavailable, "hashing_queue_full", detail).retry_after(BUSY)
}

/// The store does not answer.
pub(super) fn away() -> Refusal {
    let detail = "The key cannot be rolled now. Try again in a moment.";
    Refusal::new(Kind::Unavailable, "store", detail).retry_after(AWAY)
}

fn wrong(reason: &'static str) -> Refusal {
    let detail = "What the content has to prove that the key is yours does not: `api_key` is the whole key of this path with \
                  its present secret, `password` your account's.";
    Refusal::new(Kind::Forbidden, reason, detail)
}
