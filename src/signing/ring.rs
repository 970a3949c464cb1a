//! The key ring: every published key parsed and in memory, swapped as a whole when the store's set changes.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{Jwk, JwkSet};

use super::{Algorithm, Error, PrivateKey, Settings, SigningKey, SigningKeyStore, SigningState};
use crate::clock::{Clock, Timestamp};
use crate::persist::{Cut, Update};
use crate::revocations::LONGEST_TOKEN;

/// All published keys at one moment.
#[derive(Debug)]
struct Published {
    active: Arc<PrivateKey>,
    verifying: Vec<Verifying>,
    jwks: Arc<[u8]>,
}

/// A public key, and the one algorithm it verifies by.
#[derive(Debug)]
struct Verifying {
    kid: String,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Signs with the active key, verifies with any published one.
pub struct KeyRing {
    store: Arc<dyn SigningKeyStore>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    published: ArcSwap<Published>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing").field("published", &self.published.load()).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// Loads the published keys. When there is none, or the configuration supplies one, the store's set is brought in
    /// line first, inside one atomic update: two processes that start at once agree on one key.
    ///
    /// # Errors
    /// [`Error::File`] for a key file, [`Error::Store`], or what is wrong with a stored key.
    pub async fn load(
        settings: &Settings,
        store: Arc<dyn SigningKeyStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let published = Self::published(settings, store.as_ref(), clock.now()).await?;
        Ok(Self { store, clock, settings: settings.clone(), published: ArcSwap::from_pointee(published) })
    }

    /// Loads the set anew, after a change of it. On failure the ring stays as it was.
    ///
    /// # Errors
    /// As [`KeyRing::load`].
    pub async fn reload(&self) -> Result<(), Error> {
        let published = Self::published(&self.settings, self.store.as_ref(), self.clock.now()).await?;
        self.published.store(Arc::new(published));
        Ok(())
    }

    async fn published(settings: &Settings, store: &dyn SigningKeyStore, now: Timestamp) -> Result<Published, Error> {
        let supplied = match &settings.private_key_file {
            Some(path) => Some(read(path, settings.algorithm).await?),
            None => None,
        };
        let stored = store.signing_keys().await.map_err(Error::Store)?;
        let wanted = match supplied {
            Some(key) => Some(key),
            None if stored.iter().any(|key| key.state == SigningState::Active) => None,
            None => {
                let (algorithm, bits) = (settings.algorithm, settings.rsa_bits);
                let made = tokio::task::spawn_blocking(move || PrivateKey::generate(algorithm, bits)).await;
                Some(made.map_err(|_| Error::Generate)??)
            }
        };
        let keys = match wanted {
            None => stored,
            Some(key) => {
                let keep_active = settings.private_key_file.is_none();
                let candidate = SigningKey {
                    kid: key.kid().to_owned(),
                    algorithm: key.algorithm().to_string(),
                    private: key.to_pkcs8()?,
                    state: SigningState::Active,
                    created_at: now,
                    activates_at: now,
                    gone_at: None,
                };
                store
                    .update_signing_keys(&|keys| activate(keys, &candidate, keep_active, now))
                    .await
                    .map_err(Error::Store)?
            }
        };
        publish(&keys)
    }

    /// The key that signs now.
    pub fn active(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.published.load().active)
    }

    /// Calls `verify` with the public key of `kid` and its algorithm, if that is published.
    pub(crate) fn with_key<T>(&self, kid: &str, verify: impl FnOnce(Algorithm, &DecodingKey) -> T) -> Option<T> {
        let published = self.published.load();
        let found = published.verifying.iter().find(|known| known.kid == kid);
        found.map(|found| verify(found.algorithm, &found.key))
    }

    /// The JWK Set document (RFC 7517 §5), as JSON.
    pub fn jwks(&self) -> Arc<[u8]> {
        Arc::clone(&self.published.load().jwks)
    }
}

/// Makes `candidate` the active key; what was active retires and stays published until its last token is dead. With
/// `keep_active`, another process that was quicker wins.
fn activate(
    mut keys: Vec<SigningKey>,
    candidate: &SigningKey,
    keep_active: bool,
    now: Timestamp,
) -> Update<Vec<SigningKey>> {
    let settled = |key: &SigningKey| key.state == SigningState::Active && (keep_active || key.kid == candidate.kid);
    if keys.iter().any(settled) {
        return Update::Keep;
    }
    keys.retain(|key| key.kid != candidate.kid);
    for key in keys.iter_mut().filter(|key| key.state == SigningState::Active) {
        key.state = SigningState::Retiring;
        key.gone_at = Some(now + LONGEST_TOKEN);
    }
    keys.push(candidate.clone());
    Update::Write(keys, Cut::No)
}

fn publish(keys: &[SigningKey]) -> Result<Published, Error> {
    let mut active = None;
    let mut verifying = Vec::with_capacity(keys.len());
    let mut jwks: Vec<Jwk> = Vec::with_capacity(keys.len());
    for record in keys {
        let Ok(algorithm) = record.algorithm.parse::<Algorithm>() else {
            return Err(Error::Algorithm { kid: record.kid.clone(), algorithm: record.algorithm.clone() });
        };
        let key = PrivateKey::from_pkcs8(record.private.expose())?;
        if key.kid() != record.kid || key.algorithm() != algorithm {
            return Err(Error::Mislabelled(record.kid.clone()));
        }
        verifying.push(Verifying { kid: record.kid.clone(), algorithm, key: key.decoding_key()? });
        jwks.push(key.jwk().clone());
        if record.state == SigningState::Active {
            active = Some(Arc::new(key));
        }
    }
    let jwks = serde_json::to_vec(&JwkSet { keys: jwks }).map_err(|_| Error::Unreadable)?;
    Ok(Published { active: active.ok_or(Error::NoActiveKey)?, verifying, jwks: jwks.into() })
}

async fn read(path: &Path, set: Algorithm) -> Result<PrivateKey, Error> {
    let (shown, owned) = (path.to_owned(), path.to_owned());
    let pem = tokio::task::spawn_blocking(move || std::fs::read(owned))
        .await
        .map_err(|_| Error::Unreadable)?
        .map_err(|source| Error::File { path: shown.clone(), source: Box::new(source) })?;
    let key = match PrivateKey::from_pem(&pem) {
        Ok(key) if key.algorithm() == set => return Ok(key),
        Ok(key) => Error::Mismatch { key: key.algorithm(), set },
        Err(error) => error,
    };
    Err(Error::File { path: shown, source: Box::new(key) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &PrivateKey, state: SigningState) -> SigningKey {
        SigningKey {
            kid: key.kid().to_owned(),
            algorithm: key.algorithm().to_string(),
            private: key.to_pkcs8().unwrap(),
            state,
            created_at: Timestamp::default(),
            activates_at: Timestamp::default(),
            gone_at: None,
        }
    }

    #[test]
    fn a_supplied_key_takes_over_and_the_old_one_stays_published() {
        let (old, new) = (PrivateKey::generate(Algorithm::Rs256, 2048).unwrap(), PrivateKey::generate(Algorithm::Rs256, 2048).unwrap());
        let candidate = record(&new, SigningState::Active);
        let now = Timestamp::from_secs(1000);
        let Update::Write(keys, _) = activate(vec![record(&old, SigningState::Active)], &candidate, false, now) else {
            panic!("the set must change");
        };
        assert_eq!(keys[0].state, SigningState::Retiring);
        assert_eq!(keys[0].gone_at, Some(now + LONGEST_TOKEN));
        let published = publish(&keys).unwrap();
        assert_eq!(published.active.kid(), new.kid());
        assert_eq!(published.verifying.len(), 2);
        assert!(matches!(activate(keys, &candidate, false, now), Update::Keep), "a second start changes nothing");
    }

    #[test]
    fn of_two_first_starts_the_quicker_one_wins() {
        let (quick, slow) = (PrivateKey::generate(Algorithm::Rs256, 2048).unwrap(), PrivateKey::generate(Algorithm::Rs256, 2048).unwrap());
        let keys = vec![record(&quick, SigningState::Active)];
        let late = record(&slow, SigningState::Active);
        assert!(matches!(activate(keys, &late, true, Timestamp::default()), Update::Keep));
    }

    #[test]
    fn a_key_under_another_kid_is_refused() {
        let key = PrivateKey::generate(Algorithm::Rs256, 2048).unwrap();
        let mut wrong = record(&key, SigningState::Active);
        wrong.kid = "someone-else".into();
        assert!(matches!(publish(&[wrong]), Err(Error::Mislabelled(_))));
        assert!(matches!(publish(&[]), Err(Error::NoActiveKey)));
    }
}
