//! The token that tells a registry what its bearer may do there. It is a JWT of another type than our access tokens, so the
//! guard takes neither for the other; and as no registry asks whether it was revoked, it is short.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::{Access, KeyName, Settings};
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::signing::{Error, KeyRing, PrivateKey};
use crate::tokens::{self, Grant, Issued};

/// How long such a token lives: what a revocation takes, at the most, to reach the registry. A client gets a new one for
/// every command, and a registry looks at it when a request begins.
pub const LIFETIME: Duration = Duration::from_secs(300);

/// Issues tokens for a registry.
#[derive(Debug)]
pub struct Issuer {
    issuer: String,
    not_before_slack: Duration,
    ring: Arc<KeyRing>,
    /// The header of the key that signed last, as it was named then.
    header: ArcSwapOption<Header>,
}

#[derive(Debug)]
struct Header {
    kid: String,
    name: KeyName,
    encoded: String,
}

/// The claims, as the registry reads them.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    access: &'a [Access],
}

impl Issuer {
    /// An issuer that signs with `ring`.
    pub fn new(settings: &tokens::Settings, ring: Arc<KeyRing>) -> Self {
        let tokens::Settings { issuer, not_before_slack, .. } = settings;
        Self { issuer: issuer.clone(), not_before_slack: *not_before_slack, ring, header: ArcSwapOption::empty() }
    }

    /// Issues a token of `grant` for this access. `None` when the grant ends before the present second does.
    ///
    /// # Errors
    /// [`Error::Unnamed`] for a key that this registry could not know, or [`Error::Sign`].
    pub fn issue(
        &self,
        settings: &Settings,
        grant: &Grant,
        access: &[Access],
        now: Timestamp,
    ) -> Result<Option<Issued>, Error> {
        let Some(token) = grant.token(LIFETIME, now) else { return Ok(None) };
        let claims = Claims {
            iss: &self.issuer,
            sub: token.account.as_str(),
            aud: &settings.service,
            exp: token.expires_at,
            nbf: token.not_before(self.not_before_slack, now),
            iat: token.issued_at,
            jti: token.id.to_string(),
            access,
        };
        let payload = serde_json::to_vec(&claims).map_err(|_| Error::Sign)?;
        let key = self.ring.active();
        let jwt = key.compact(&self.header_of(&key, settings.key_name)?.encoded, &payload)?;
        Ok(Some(Issued { jwt: Secret::new(jwt), token }))
    }

    /// Made once for each key: a certificate costs a signature.
    fn header_of(&self, key: &PrivateKey, name: KeyName) -> Result<Arc<Header>, Error> {
        let (kid, algorithm) = (key.kid(), key.algorithm());
        let is_the_same = |header: &Arc<Header>| header.kid == kid && header.name == name;
        if let Some(header) = self.header.load_full().filter(is_the_same) {
            return Ok(header);
        }
        let unnamed = || Error::Unnamed { kid: kid.to_owned(), algorithm };
        if !name.fits(algorithm) {
            return Err(unnamed());
        }
        let member = match name {
            KeyName::Libtrust => format!(r#""kid":"{}""#, key.libtrust_id()?.ok_or_else(unnamed)?),
            KeyName::Thumbprint => format!(r#""kid":"{kid}""#),
            KeyName::X5c => format!(r#""x5c":["{}"]"#, key.certificate()?.x5c()),
        };
        let encoded = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","typ":"JWT",{member}}}"#));
        let header = Arc::new(Header { kid: kid.to_owned(), name, encoded });
        self.header.store(Some(Arc::clone(&header)));
        Ok(header)
    }
}
