//! Rolling a key: the operations, and the two steps that follow them by themselves.
//!
//! A roll puts a new secret beside the old one. With the default start, the old one goes on until the new one is first used:
//! whichever gateway sees that writes when the old one ends ([`first_used`]). At the end the old hash is cleared away, and the
//! tokens from before the roll end with it ([`Operations::finish_due`]). Tokens since the roll bear the end already.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::operations::not_demo;
use super::{ApiKey, End, Error, Grace, Half, Key, KeyState, KeyStore, Operations, Start};
use crate::change::{Changed, is_late};
use crate::clock::{Clock, Timestamp};
use crate::credentials::{HashError, PasswordHash};
use crate::ids::KeyId;
use crate::persist::{self, Cut, Update, Updated};
use crate::secret::Secret;

/// How long after it was decided a roll may be there for all to see. A login until then got a token that does not bear the end
/// of the secret, and a cut of the tokens from before the roll covers it.
const COMMIT: Duration = Duration::from_secs(15);

/// How to roll a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roll {
    /// How long the old secret goes on working.
    pub grace: Grace,
    /// What that is counted from.
    pub start: Start,
    /// Even if the key was rolled before and its old secret still works: that one ends at once.
    pub force: bool,
}

impl Operations {
    /// Gives a key a new secret, and the old one an end. The new one is stored before it is returned. `hash` is as in
    /// [`Operations::create`].
    ///
    /// Tokens got with the old secret go on, and never longer than it. With no grace it ends at once, and the tokens of the key
    /// with it; the same happens where force ends an older secret.
    ///
    /// # Errors
    /// When there is no such key; it is revoked, suspended or expired; its last roll is not over; or hashing or the store
    /// fails.
    pub async fn roll<H, F>(&self, id: &KeyId, roll: Roll, hash: H) -> Result<(ApiKey, Changed<Key>), Error>
    where
        H: FnOnce(Secret<String>) -> F + Send,
        F: Future<Output = Result<PasswordHash, HashError>> + Send,
    {
        // Looked at before anything slow is done, and again when it is done.
        may_roll(&self.show(id).await?, roll.force, self.clock.now())?;
        let api_key = ApiKey::renewed(&self.prefix, id);
        let new = hash(api_key.secret().clone()).await.map_err(Error::Hash)?;
        let changed = self
            .update(id, |key, now| {
                may_roll(&key, roll.force, now)?;
                let old = match (roll.grace.is_none(), roll.start) {
                    (true, _) => Half { hash: None, rolled_at: now, end: End::At(now), used_at: key.used_at },
                    (false, start) => {
                        let end = match start {
                            Start::FirstUse => End::AfterFirstUse(roll.grace.time()),
                            Start::Now => End::At(now + roll.grace.time()),
                        };
                        Half { hash: Some(key.hash), rolled_at: now, end, used_at: key.used_at }
                    }
                };
                let cut = match &key.previous {
                    _ if roll.grace.is_none() => Cut::Now(now),
                    Some(older) if older.is_live(now) => Cut::Now(now),
                    // It has ended, and nobody has finished it yet.
                    Some(Half { hash: Some(_), rolled_at, .. }) => Cut::Before { before: *rolled_at + COMMIT, now },
                    _ => Cut::No,
                };
                Ok(Update::Write(Key { hash: new.clone(), used_at: None, previous: Some(old), ..key }, cut))
            })
            .await?;
        Ok((api_key, changed))
    }

    /// Ends the old secret of a rolled key now, and the tokens of the key so far: which of the two a token was got with
    /// does not matter to a cut.
    ///
    /// # Errors
    /// When there is no such key, or the store fails.
    pub async fn end_old(&self, id: &KeyId) -> Result<Changed<Key>, Error> {
        self.update(id, |key, now| {
            if key.old_half(now).is_none() {
                return Ok(Update::Keep);
            }
            let previous = key.previous.map(|half| half.ended(now));
            Ok(Update::Write(Key { previous, ..key }, Cut::Now(now)))
        })
        .await
    }

    /// Clears away the old secrets that have come to their ends. With each, the tokens end that were got before its roll and
    /// would outlive it; they do not bear the end. Every gateway may do this: the second finds nothing to do. Returns the keys
    /// that were finished here.
    ///
    /// # Errors
    /// The store's. What was not done is done the next time.
    pub async fn finish_due(&self) -> persist::Result<Vec<KeyId>> {
        let mut finished = Vec::new();
        for id in self.keys.keys_to_finish(self.clock.now()).await? {
            let wrote = Mutex::new(false);
            let finish = |key: Key| {
                let now = self.clock.now();
                let due = key.previous.clone().filter(|half| half.hash.is_some() && half.has_ended(now));
                *wrote.lock().unwrap_or_else(PoisonError::into_inner) = due.is_some();
                let Some(half) = due else { return Update::Keep };
                let before = half.rolled_at + COMMIT;
                Update::Write(Key { previous: Some(half.ended(now)), ..key }, Cut::Before { before, now })
            };
            self.keys.update_key(&id, &finish).await?;
            if wrote.into_inner().unwrap_or_else(PoisonError::into_inner) {
                finished.push(id);
            }
        }
        Ok(finished)
    }
}

/// Whether a key may be rolled at `now`.
fn may_roll(key: &Key, force: bool, now: Timestamp) -> Result<(), Error> {
    not_demo(&key.id)?;
    match key.state {
        KeyState::Revoked => return Err(Error::Revoked(key.id)),
        KeyState::Suspended => return Err(Error::Suspended(key.id)),
        KeyState::Active if !key.is_live(now) => return Err(Error::Expired(key.id)),
        KeyState::Active => {}
    }
    match key.old_half(now) {
        Some(_) if !force => Err(Error::Rolling(key.id, key.old_ends_at())),
        _ => Ok(()),
    }
}

/// The new secret of a rolled key was used: where the grace of the old one is counted from that and this is the first time,
/// its end is written now. Of two gateways that come at once one writes, and both return what is written.
///
/// # Errors
/// The store's.
pub async fn first_used(keys: &dyn KeyStore, clock: &dyn Clock, id: &KeyId) -> persist::Result<Updated<Key>> {
    let decided = Mutex::new(None);
    let begin = |key: Key| {
        let mut decided = decided.lock().unwrap_or_else(PoisonError::into_inner);
        *decided = None;
        let now = clock.now();
        match key.previous.clone() {
            Some(Half { end: End::AfterFirstUse(grace), hash: Some(hash), rolled_at, used_at }) => {
                *decided = Some((now, now + grace));
                let end = End::At(now + grace);
                Update::Write(
                    Key { previous: Some(Half { hash: Some(hash), rolled_at, end, used_at }), ..key },
                    Cut::No,
                )
            }
            _ => Update::Keep,
        }
    };
    let updated = keys.update_key(id, &begin).await?;
    let decided = decided.into_inner().unwrap_or_else(PoisonError::into_inner);
    let committed_at = clock.now();
    match decided {
        // A login with the old secret that did not see this yet got a token for a whole grace from its own second. The end
        // moves beyond it, since no token is to outlive the secret that it was got with.
        Some((decided_at, end)) if is_late(decided_at, committed_at) => {
            let later = end + committed_at.since(decided_at);
            let postpone = |key: Key| match key.previous.clone() {
                Some(half) if half.end == End::At(end) => {
                    Update::Write(Key { previous: Some(Half { end: End::At(later), ..half }), ..key }, Cut::No)
                }
                _ => Update::Keep,
            };
            keys.update_key(id, &postpone).await
        }
        _ => Ok(updated),
    }
}

#[cfg(test)]
mod tests;
