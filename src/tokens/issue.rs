//! Issuing: a grant becomes a signed token.

use std::sync::Arc;
use std::time::Duration;

use super::extra::Extra;
use super::{Audience, Client, LARGEST, Settings, Terms, Token};
use crate::clock::Timestamp;
use crate::ids::{AccountName, Groups, TokenId};
use crate::keys::KeyPrefix;
use crate::revocations::Cutoff;
use crate::secret::Secret;
use crate::signing::{self, KeyRing};

/// What a verified credential may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// To which account.
    pub account: AccountName,
    /// By which of its credentials.
    pub client: Client,
    /// Which groups.
    pub groups: Groups,
    /// The token must be dead by then: the end of a key, an account or a licence.
    pub not_after: Option<Timestamp>,
    /// The longest life that the granted groups allow.
    pub longest: Option<Duration>,
    /// The instant at which the credential was known to be good, and the token's `iat`: a revocation decided after it
    /// covers the token, however long the verification took.
    pub known_at: Timestamp,
    /// The cut-off in force then. `iat` is no earlier, so that a token got in the same second as a past revocation is good.
    pub cutoff: Cutoff,
    /// What the token is bound to beyond that.
    pub terms: Terms,
}

impl Grant {
    /// A token of all that is granted, which lives for `life` if nothing shortens it. `None` when the grant ends before the
    /// present second does.
    pub fn token(&self, life: Duration, now: Timestamp) -> Option<Token> {
        let issued_at = self.known_at.secs().min(now.secs()).max(self.cutoff.0);
        let life = self.longest.map_or(life, |longest| life.min(longest)).as_secs();
        let end = self.not_after.map_or(u64::MAX, Timestamp::secs);
        let expires_at = now.secs().saturating_add(life).min(end);
        // A credential taken from memory while the store is away may have ended since, by the clock alone.
        (expires_at > issued_at.max(now.secs())).then(|| Token {
            account: self.account.clone(),
            client: self.client.clone(),
            groups: self.groups.clone(),
            id: TokenId::random(),
            issued_at,
            expires_at,
            terms: self.terms.clone(),
        })
    }
}

/// A signed token.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The JWT, in compact form (RFC 7515 §7.1).
    pub jwt: Secret<String>,
    /// What it says.
    pub token: Token,
}

/// Issues tokens.
#[derive(Debug)]
pub struct Issuer {
    settings: Settings,
    prefix: KeyPrefix,
    extra: Extra,
    ring: Arc<KeyRing>,
}

impl Issuer {
    /// An issuer that signs with `ring`.
    pub fn new(settings: &Settings, prefix: &KeyPrefix, ring: Arc<KeyRing>) -> Self {
        Self { settings: settings.clone(), prefix: prefix.clone(), extra: Extra::new(&settings.claims), ring }
    }

    /// Issues a token for `grant`. `None` when the grant ends before the present second does.
    ///
    /// One signature, a quarter of a millisecond with an RSA key of 2048 bits: it is done where it is called.
    ///
    /// # Errors
    /// [`signing::Error::Sign`], or [`signing::Error::TooLarge`] for one of so many groups that nobody would accept it.
    pub fn issue(&self, grant: &Grant, now: Timestamp) -> Result<Option<Issued>, signing::Error> {
        self.issue_for(grant, self.settings.lifetime, now)
    }

    /// As [`Issuer::issue`], for a life other than the configured one.
    ///
    /// # Errors
    /// As [`Issuer::issue`].
    pub fn issue_for(&self, grant: &Grant, life: Duration, now: Timestamp) -> Result<Option<Issued>, signing::Error> {
        let Some(token) = grant.token(life, now) else { return Ok(None) };
        let not_before = token.not_before(self.settings.not_before_slack, now);
        let audience = Audience::from(self.settings.audience.as_slice());
        let claims = token.claims(&self.prefix, &self.settings.issuer, audience, not_before);
        let mut payload = serde_json::to_vec(&claims).map_err(|_| signing::Error::Sign)?;
        self.extra.append(&token, &mut payload);
        let key = self.ring.active();
        let jwt = key.compact(key.encoded_header(), &payload)?;
        if jwt.len() > LARGEST {
            return Err(signing::Error::TooLarge { bytes: jwt.len() });
        }
        Ok(Some(Issued { jwt: Secret::new(jwt), token }))
    }
}
