//! The key ring: every published key parsed and in memory, swapped as a whole when the store's set changes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use tokio::sync::{Mutex, Notify};

use super::{Algorithm, Error, MasterKey, PrivateKey, Settings, SigningKey, SigningKeyStore, SigningState};
use super::{rotation, seal};
use crate::clock::{Clock, Timestamp};
use crate::persist::{Cut, Update};
use crate::secret::Secret;

/// How often it is looked whether something is due. The look is free; it makes up for a system clock that was set, and for
/// a machine that slept.
const LOOK: Duration = Duration::from_secs(60);

/// All published keys at one moment.
#[derive(Debug)]
struct Published {
    active: Arc<PrivateKey>,
    verifying: Vec<Verifying>,
    jwks: Arc<[u8]>,
    /// The records, without their private halves.
    records: Vec<SigningKey>,
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
    longest_token: Duration,
    published: ArcSwap<Published>,
    /// Sets are read and put into force one after the other, so that an older one never replaces a newer one.
    loading: Mutex<()>,
    changed: Notify,
    dropped: AtomicBool,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing").field("published", &self.published.load()).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// Loads the published keys. When there is none, or the configuration supplies one, the store's set is brought in
    /// line first, inside one atomic update: two processes that start at once agree on one key. `longest_token` is how long
    /// a token signed here may be accepted: its life, and the leeway on top.
    ///
    /// # Errors
    /// [`Error::File`] for a key file, [`Error::Store`], or what is wrong with a stored key or the master key.
    pub async fn load(
        settings: &Settings,
        longest_token: Duration,
        store: Arc<dyn SigningKeyStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let master = read_master(settings).await?;
        begin(settings, longest_token, master.as_ref(), store.as_ref(), clock.now()).await?;
        let keys = settled(longest_token, master.as_ref(), store.as_ref()).await?;
        let published = publish(&keys, master.as_ref())?;
        Ok(Self {
            store,
            clock,
            settings: settings.clone(),
            longest_token,
            published: ArcSwap::from_pointee(published),
            loading: Mutex::new(()),
            changed: Notify::new(),
            dropped: AtomicBool::new(false),
        })
    }

    /// Loads the set anew, after a change of it. On failure the ring stays as it was. The file of the master key is read
    /// anew as well, so that changing that key needs no restart.
    ///
    /// # Errors
    /// As [`KeyRing::load`].
    pub async fn reload(&self) -> Result<(), Error> {
        let _one_at_a_time = self.loading.lock().await;
        let master = read_master(&self.settings).await?;
        // The key that was supplied at the start is not made active once more: what the operator, or another process, has
        // decided since then is newer.
        let keys = settled(self.longest_token, master.as_ref(), self.store.as_ref()).await?;
        let new = publish(&keys, master.as_ref())?;
        let now = self.clock.now();
        let old = self.published.load_full();
        let is_untimely = |key: &SigningKey| {
            let is_retired = key.state == SigningState::Retiring && key.gone_at.is_some_and(|at| at <= now);
            !is_retired && keys.iter().all(|kept| kept.kid != key.kid)
        };
        let dropped = old.records.iter().any(is_untimely);
        self.published.store(Arc::new(new));
        if dropped {
            self.dropped.store(true, Ordering::Release);
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Whether a key has gone before its time since this was last asked: what it proved must not be believed any more.
    pub fn take_dropped(&self) -> bool {
        self.dropped.swap(false, Ordering::AcqRel)
    }

    /// Does what is due by the schedule: publishes the next key, lets it sign, drops what has retired. Returns when
    /// something will next be due.
    ///
    /// # Errors
    /// As [`KeyRing::load`]; then nothing has changed.
    pub async fn turn(&self) -> Result<Option<Timestamp>, Error> {
        let now = self.clock.now();
        let due = |published: &Published| rotation::next_turn(&published.records, &self.settings);
        let before = self.published.load_full();
        match due(&before) {
            Some(at) if at <= now => {}
            later => return Ok(later),
        }
        let candidate = match rotation::wants_key(&before.records, &self.settings, now) {
            // Made outside of the update, which decides anew whether it is needed.
            true => Some(generate(&self.settings, self.longest_token, now).await?),
            false => None,
        };
        let master = read_master(&self.settings).await?;
        let candidate = candidate.map(|key| in_safety(key, master.as_ref())).transpose()?;
        let change = |keys: Vec<SigningKey>| {
            // Never in the clear among sealed ones.
            let candidate = candidate.as_ref().filter(|key| fits(key, &keys));
            // The time anew: making the key took some, and waiting for other writers may have.
            rotation::advance(keys, &self.settings, candidate, self.clock.now())
        };
        self.store.update_signing_keys(&change).await.map_err(Error::Store)?;
        self.reload().await?;
        let after = self.published.load_full();
        tell(&before.records, &after.records);
        Ok(due(&after))
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

    /// The published keys, oldest first, without their private halves.
    pub fn records(&self) -> Vec<SigningKey> {
        self.published.load().records.clone()
    }
}

/// Rotates the keys when it is time, for ever. Ends when it is dropped.
pub async fn keep_rotated(ring: Arc<KeyRing>) {
    tell_the_plan(&ring);
    let mut failed = false;
    loop {
        // Made before the look, so that no change falls between the two.
        let changed = ring.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let turned = ring.turn().await;
        let now = ring.clock.now();
        let wake = match &turned {
            Ok(Some(due)) if *due > now => (*due).min(now + LOOK),
            _ => now + LOOK,
        };
        match &turned {
            Err(error) if !failed => tracing::error!(
                error = error as &dyn std::error::Error,
                "the signing keys cannot be rotated now; the present ones stay"
            ),
            Ok(_) if failed => tracing::info!("the signing keys can be rotated again"),
            _ => {}
        }
        failed = turned.is_err();
        tokio::select! {
            () = ring.clock.sleep_until(wake) => {}
            () = changed => {}
        }
    }
}

/// What an operator may want to know of the schedule when the gateway starts.
fn tell_the_plan(ring: &KeyRing) {
    let (settings, active) = (&ring.settings, ring.active());
    if settings.is_supplied() {
        tracing::info!(
            kid = active.kid(),
            "signing.private_key_file supplies the signing key: it is not rotated by itself"
        );
        return;
    }
    if settings.rotate_every.is_zero() {
        tracing::info!(kid = active.kid(), "signing.rotate_every is 0: signing keys are rotated on demand alone");
    }
    if active.algorithm() != settings.algorithm {
        tracing::warn!(
            kid = active.kid(),
            signs = %active.algorithm(),
            configured = %settings.algorithm,
            "signing.algorithm takes effect with the next rotation; `keybearer signing-keys rotate` brings it forward"
        );
    }
}

fn tell(before: &[SigningKey], after: &[SigningKey]) {
    for key in after {
        let was = before.iter().find(|old| old.kid == key.kid).map(|old| old.state);
        match key.state {
            state if was == Some(state) => {}
            SigningState::Next => {
                tracing::info!(kid = key.kid, from = %key.activates_at, "the next signing key is published");
            }
            SigningState::Active => tracing::info!(kid = key.kid, "a new key signs"),
            SigningState::Retiring => {
                let until = key.gone_at.unwrap_or_default();
                tracing::info!(kid = key.kid, until = %until, "a signing key retires");
            }
        }
    }
    for old in before.iter().filter(|old| after.iter().all(|key| key.kid != old.kid)) {
        tracing::info!(kid = old.kid, "a signing key is gone");
    }
}

/// Generates a key, off the async threads, as a record that is active; whoever stores it says what it is.
pub(super) async fn generate(
    settings: &Settings,
    longest_token: Duration,
    now: Timestamp,
) -> Result<SigningKey, Error> {
    let (algorithm, bits) = (settings.algorithm, settings.rsa_bits);
    let made = tokio::task::spawn_blocking(move || PrivateKey::generate(algorithm, bits)).await;
    record(&made.map_err(|_| Error::Generate)??, longest_token, now)
}

/// A key as an active record, in the clear.
pub(super) fn record(key: &PrivateKey, longest_token: Duration, now: Timestamp) -> Result<SigningKey, Error> {
    Ok(SigningKey {
        kid: key.kid().to_owned(),
        algorithm: key.algorithm().to_string(),
        private: key.to_pkcs8()?,
        sealed_by: None,
        state: SigningState::Active,
        created_at: now,
        activates_at: now,
        longest_token,
        gone_at: None,
    })
}

/// Seals a new record, when there is a master key.
pub(super) fn in_safety(key: SigningKey, master: Option<&MasterKey>) -> Result<SigningKey, Error> {
    match master {
        Some(master) => master.seal(key),
        None => Ok(key),
    }
}

/// Whether a new record may join these: all are sealed under one master key, or none is.
pub(super) fn fits(new: &SigningKey, keys: &[SigningKey]) -> bool {
    keys.iter().all(|key| key.sealed_by == new.sealed_by)
}

/// Makes sure that there is a key to sign with, and that it is the supplied one where there is one.
async fn begin(
    settings: &Settings,
    longest_token: Duration,
    master: Option<&MasterKey>,
    store: &dyn SigningKeyStore,
    now: Timestamp,
) -> Result<(), Error> {
    let stored = store.signing_keys().await.map_err(Error::Store)?;
    // Before anything is written: a set that cannot be opened is not ours to add to.
    for key in &stored {
        seal::opened(key, master)?;
    }
    let candidate = match &settings.private_key_file {
        Some(path) => record(&read(path, settings.algorithm).await?, longest_token, now)?,
        None if rotation::active(&stored).is_some() => return Ok(()),
        None => generate(settings, longest_token, now).await?,
    };
    let candidate = in_safety(candidate, master)?;
    let change = |keys| activate(keys, &candidate, !settings.is_supplied(), now);
    store.update_signing_keys(&change).await.map_err(Error::Store)?;
    Ok(())
}

/// The stored set, after the promise of this process is noted in it and what lay in the clear is sealed.
async fn settled(
    longest_token: Duration,
    master: Option<&MasterKey>,
    store: &dyn SigningKeyStore,
) -> Result<Vec<SigningKey>, Error> {
    let change = |mut keys: Vec<SigningKey>| {
        let promised = rotation::promise(&mut keys, longest_token);
        match master.and_then(|master| seal::sealed(&keys, master)) {
            Some(Ok(sealed)) => Update::Write(sealed, Cut::No),
            // One that cannot be sealed is met again below, in the clear.
            Some(Err(_)) | None if promised => Update::Write(keys, Cut::No),
            Some(Err(_)) | None => Update::Keep,
        }
    };
    let stored = store.signing_keys().await.map_err(Error::Store)?;
    for key in &stored {
        seal::opened(key, master)?;
    }
    // A look without a write transaction first: this runs at every change of the set, in every process.
    let keys = match change(stored.clone()) {
        Update::Keep => stored,
        Update::Write(..) => store.update_signing_keys(&change).await.map_err(Error::Store)?,
    };
    match master.is_some_and(|_| keys.iter().any(|key| key.sealed_by.is_none())) {
        true => Err(Error::Seal),
        false => Ok(keys),
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
    // It may have been active before, and what was promised then holds.
    let promised = keys.iter().find(|key| key.kid == candidate.kid).map_or(Duration::ZERO, |key| key.longest_token);
    keys.retain(|key| key.kid != candidate.kid);
    keys.push(SigningKey { longest_token: candidate.longest_token.max(promised), ..candidate.clone() });
    rotation::activate(&mut keys, &candidate.kid, now);
    Update::Write(keys, Cut::No)
}

fn publish(keys: &[SigningKey], master: Option<&MasterKey>) -> Result<Published, Error> {
    let mut active = None;
    let mut verifying = Vec::with_capacity(keys.len());
    let mut jwks: Vec<Jwk> = Vec::with_capacity(keys.len());
    let mut records = Vec::with_capacity(keys.len());
    for record in keys {
        let Ok(algorithm) = record.algorithm.parse::<Algorithm>() else {
            return Err(Error::Algorithm { kid: record.kid.clone(), algorithm: record.algorithm.clone() });
        };
        let key = PrivateKey::from_pkcs8(seal::opened(record, master)?.expose())?;
        if key.kid() != record.kid || key.algorithm() != algorithm {
            return Err(Error::Mislabelled(record.kid.clone()));
        }
        verifying.push(Verifying { kid: record.kid.clone(), algorithm, key: key.decoding_key()? });
        jwks.push(key.jwk().clone());
        records.push(SigningKey { private: Secret::new(vec![]), ..record.clone() });
        if record.state == SigningState::Active {
            active = Some(Arc::new(key));
        }
    }
    let jwks = serde_json::to_vec(&JwkSet { keys: jwks }).map_err(|_| Error::Unreadable)?;
    Ok(Published { active: active.ok_or(Error::NoActiveKey)?, verifying, jwks: jwks.into(), records })
}

/// The master key, if one is configured.
pub(super) async fn read_master(settings: &Settings) -> Result<Option<MasterKey>, Error> {
    let Some(path) = settings.master_key_file.clone() else { return Ok(None) };
    tokio::task::spawn_blocking(move || MasterKey::read(&path)).await.map_err(|_| Error::Seal)?.map(Some)
}

/// The supplied key, which must be for the algorithm that is `set`.
pub(super) async fn read(path: &Path, set: Algorithm) -> Result<PrivateKey, Error> {
    let (shown, owned) = (path.to_owned(), path.to_owned());
    let pem = tokio::task::spawn_blocking(move || std::fs::read(owned))
        .await
        .map_err(|_| Error::Unreadable)?
        .map_err(|source| Error::File { path: shown.clone(), source: Box::new(source) })?;
    let pem = zeroize::Zeroizing::new(pem);
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

    const HOUR: Duration = Duration::from_secs(3600);

    fn record(key: &PrivateKey, state: SigningState) -> SigningKey {
        SigningKey { state, ..super::record(key, HOUR, Timestamp::default()).unwrap() }
    }

    #[test]
    fn a_supplied_key_takes_over_and_the_old_one_stays_published() {
        let (old, new) = (
            PrivateKey::generate(Algorithm::Rs256, 2048).unwrap(),
            PrivateKey::generate(Algorithm::Rs256, 2048).unwrap(),
        );
        let candidate = record(&new, SigningState::Active);
        let now = Timestamp::from_secs(1000);
        let Update::Write(keys, _) = activate(vec![record(&old, SigningState::Active)], &candidate, false, now) else {
            panic!("the set must change");
        };
        assert_eq!(keys[0].state, SigningState::Retiring);
        assert_eq!(keys[0].gone_at, Some(now + HOUR + rotation::JWKS_MAX_AGE));
        let published = publish(&keys, None).unwrap();
        assert_eq!(published.active.kid(), new.kid());
        assert_eq!(published.verifying.len(), 2);
        assert!(matches!(activate(keys, &candidate, false, now), Update::Keep), "a second start changes nothing");
    }

    #[test]
    fn of_two_first_starts_the_quicker_one_wins() {
        let (quick, slow) = (
            PrivateKey::generate(Algorithm::Rs256, 2048).unwrap(),
            PrivateKey::generate(Algorithm::Rs256, 2048).unwrap(),
        );
        let keys = vec![record(&quick, SigningState::Active)];
        let late = record(&slow, SigningState::Active);
        assert!(matches!(activate(keys, &late, true, Timestamp::default()), Update::Keep));
    }

    #[test]
    fn a_key_under_another_kid_is_refused() {
        let key = PrivateKey::generate(Algorithm::Rs256, 2048).unwrap();
        let mut wrong = record(&key, SigningState::Active);
        wrong.kid = "someone-else".into();
        assert!(matches!(publish(&[wrong], None), Err(Error::Mislabelled(_))));
        assert!(matches!(publish(&[], None), Err(Error::NoActiveKey)));
    }
}
