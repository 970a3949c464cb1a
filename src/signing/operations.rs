//! What an operator can do about signing keys, with the gateway up or down: rotate them, drop them in an emergency, change
//! the master key. Each is one atomic update of the store; a running gateway follows.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::ring::{fits, generate, in_safety, read, read_master, record};
use super::{
    Certificate, Error, MasterKey, PrivateKey, Settings, SigningKey, SigningKeyStore, SigningState, rotation, seal,
};
use crate::change::is_late;
use crate::clock::{Clock, Timestamp};
use crate::persist::{Cut, Update};

/// How a rotation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotated {
    /// This key signs now.
    Now(String),
    /// This key is published, and signs from then on.
    Planned(String, Timestamp),
}

/// The operations on signing keys.
#[derive(Clone)]
pub struct Operations {
    store: Arc<dyn SigningKeyStore>,
    settings: Settings,
    longest_token: Duration,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

/// What an update decided, carried out of it. A store may run an update more than once; the last run counts.
struct Decided<T>(Mutex<Result<T, Error>>);

impl<T> Decided<T> {
    fn new() -> Self {
        Self(Mutex::new(Err(Error::NoKeys)))
    }

    fn note(&self, decided: Result<(T, Update<Vec<SigningKey>>), Error>) -> Update<Vec<SigningKey>> {
        let (decided, update) = match decided {
            Ok((value, update)) => (Ok(value), update),
            Err(error) => (Err(error), Update::Keep),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = decided;
        update
    }

    fn take(self) -> Result<T, Error> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Operations {
    /// Operations on `store` by these settings; `longest_token` is how long a token of this configuration may be accepted.
    pub fn new(
        store: Arc<dyn SigningKeyStore>,
        settings: &Settings,
        longest_token: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { store, settings: settings.clone(), longest_token, clock }
    }

    /// All keys, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self) -> Result<Vec<SigningKey>, Error> {
        self.store.signing_keys().await.map_err(Error::Store)
    }

    /// Whether all stored keys can be opened, and the supplied one read, as the gateway would when it starts.
    ///
    /// # Errors
    /// The first fault.
    pub async fn check(&self) -> Result<(), Error> {
        if let Some(path) = &self.settings.private_key_file {
            read(path, self.settings.algorithm).await?;
        }
        check_all(&self.list().await?, read_master(&self.settings).await?.as_ref())
    }

    /// A certificate of every published key, oldest first.
    ///
    /// # Errors
    /// [`Error::NoKeys`], or what is wrong with a stored key or the master key.
    pub async fn certificates(&self) -> Result<Vec<Certificate>, Error> {
        let (keys, master) = (self.list().await?, read_master(&self.settings).await?);
        if keys.is_empty() {
            return Err(Error::NoKeys);
        }
        let certificate = |key| PrivateKey::from_pkcs8(seal::opened(key, master.as_ref())?.expose())?.certificate();
        keys.iter().map(certificate).collect()
    }

    /// Lets the next key sign as soon as it has been published for `publish_ahead`, and publishes one when there is none,
    /// or none for the configured algorithm. With `or_fail` nothing is planned: it signs now, or the reason is told.
    ///
    /// # Errors
    /// [`Error::Supplied`], [`Error::NoKeys`], [`Error::TooEarly`], [`Error::NothingPublished`], or the store's, the
    /// master key's or the generation's.
    pub async fn rotate(&self, or_fail: bool) -> Result<Rotated, Error> {
        if let Some(path) = &self.settings.private_key_file {
            return Err(Error::Supplied(path.clone()));
        }
        let master = read_master(&self.settings).await?;
        let stored = self.list().await?;
        check_all(&stored, master.as_ref())?;
        let candidate = match self.usable_next(&stored) {
            None if !or_fail && !stored.is_empty() => {
                let made = generate(&self.settings, self.longest_token, self.clock.now()).await?;
                Some(alike(made, &stored, master.as_ref())?)
            }
            _ => None,
        };
        let decided = Decided::new();
        // The time is taken in the update: making the key took some, and waiting for other writers may have.
        let change = |keys| decided.note(self.decide(keys, candidate.as_ref(), or_fail, self.clock.now()));
        self.store.update_signing_keys(&change).await.map_err(Error::Store)?;
        decided.take()
    }

    /// The next key, unless it is for another algorithm than is set now.
    fn usable_next<'k>(&self, keys: &'k [SigningKey]) -> Option<&'k SigningKey> {
        rotation::next(keys).filter(|next| next.algorithm == self.settings.algorithm.as_str())
    }

    fn decide(
        &self,
        mut keys: Vec<SigningKey>,
        candidate: Option<&SigningKey>,
        or_fail: bool,
        now: Timestamp,
    ) -> Result<(Rotated, Update<Vec<SigningKey>>), Error> {
        if rotation::active(&keys).is_none() {
            return Err(Error::NoKeys);
        }
        if let Some(next) = self.usable_next(&keys) {
            let (kid, ripe) = (next.kid.clone(), rotation::ripe_at(next, &self.settings));
            if ripe <= now {
                rotation::activate(&mut keys, &kid, now);
                return Ok((Rotated::Now(kid), Update::Write(keys, Cut::No)));
            }
            if or_fail {
                return Err(Error::TooEarly(ripe));
            }
            let mut at = ripe;
            for key in keys.iter_mut().filter(|key| key.kid == kid) {
                key.activates_at = key.activates_at.min(ripe);
                at = key.activates_at;
            }
            return Ok((Rotated::Planned(kid, at), Update::Write(keys, Cut::No)));
        }
        // Another process may have changed the set since the candidate was made.
        let candidate = candidate.filter(|key| fits(key, &keys)).ok_or(Error::NothingPublished)?;
        let at = now + self.settings.publish_ahead;
        // One for another algorithm has signed nothing yet.
        keys.retain(|key| key.state != SigningState::Next);
        keys.push(SigningKey { state: SigningState::Next, created_at: now, activates_at: at, ..candidate.clone() });
        Ok((Rotated::Planned(candidate.kid.clone(), at), Update::Write(keys, Cut::No)))
    }

    /// After a private key got into wrong hands: a new key signs at once, all others are gone at once, and every token
    /// issued so far is revoked, in one transaction. Where the operator supplies the key, the new one is that of the file.
    ///
    /// # Errors
    /// [`Error::SuppliedIsOld`], [`Error::File`], or the store's, the master key's or the generation's.
    pub async fn emergency(&self) -> Result<String, Error> {
        let master = read_master(&self.settings).await?;
        let stored = self.list().await?;
        check_all(&stored, master.as_ref())?;
        let now = self.clock.now();
        let candidate = match &self.settings.private_key_file {
            None => generate(&self.settings, self.longest_token, now).await?,
            Some(path) => {
                let key = read(path, self.settings.algorithm).await?;
                if stored.iter().any(|old| old.kid == key.kid()) {
                    return Err(Error::SuppliedIsOld(path.clone()));
                }
                record(&key, self.longest_token, now)?
            }
        };
        let candidate = alike(candidate, &stored, master.as_ref())?;
        let replace = async |at| {
            let only = SigningKey { created_at: at, activates_at: at, ..candidate.clone() };
            let change = |_| Update::Write(vec![only.clone()], Cut::Now(at));
            self.store.update_signing_keys(&change).await.map_err(Error::Store)
        };
        let decided_at = self.clock.now();
        replace(decided_at).await?;
        let committed_at = self.clock.now();
        if is_late(decided_at, committed_at) {
            replace(committed_at).await?;
        }
        Ok(candidate.kid.clone())
    }

    /// Seals all keys under `new`: those under `old`, and those in the clear. Those under `new` already stay. Returns how
    /// many there are.
    ///
    /// # Errors
    /// What is wrong with a file, [`Error::WrongMasterKey`], [`Error::Damaged`], or the store's; then nothing has changed.
    pub async fn change_master(&self, old: &Path, new: &Path) -> Result<usize, Error> {
        let (old, new) = (MasterKey::read(old)?, MasterKey::read(new)?);
        let decided = Decided::new();
        let reseal = |key: SigningKey| {
            if key.sealed_by.as_deref() == Some(new.id()) {
                return Ok(key);
            }
            let private = seal::opened(&key, Some(&old))?;
            new.seal(SigningKey { private, sealed_by: None, ..key })
        };
        let change = |keys: Vec<SigningKey>| {
            let sealed: Result<Vec<_>, _> = keys.into_iter().map(reseal).collect();
            decided.note(sealed.map(|keys| (keys.len(), Update::Write(keys, Cut::No))))
        };
        self.store.update_signing_keys(&change).await.map_err(Error::Store)?;
        decided.take()
    }
}

/// Seals a new key if the others are sealed. When they are not, although there is a master key, the gateway that runs may
/// not know of it yet: its next start seals them all.
fn alike(new: SigningKey, stored: &[SigningKey], master: Option<&MasterKey>) -> Result<SigningKey, Error> {
    in_safety(new, master.filter(|_| stored.iter().any(|key| key.sealed_by.is_some())))
}

/// A set that cannot be opened is not one to add to.
fn check_all(keys: &[SigningKey], master: Option<&MasterKey>) -> Result<(), Error> {
    keys.iter().try_for_each(|key| seal::opened(key, master).map(drop))
}
