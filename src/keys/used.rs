//! When keys were last used: noted in memory by the request path, and written for many keys at once.
//!
//! The resolution is a minute, so that a key that is used all the time is written once a minute and not at every turn.

use dashmap::DashMap;

use super::{Key, KeyStore};
use crate::clock::Timestamp;
use crate::ids::KeyId;
use crate::persist::Result;

const MINUTE: u64 = 60_000;

/// How long an entry that was written is kept, to know that its minute is written.
const KEPT: u64 = 2 * MINUTE;

/// That a key was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which key.
    pub key: KeyId,
    /// What was known of it then: [`Half::rolled_at`](super::Half::rolled_at), if it had been rolled.
    pub rolled_at: Option<Timestamp>,
    /// With its old secret.
    pub old: bool,
    /// The minute in which it was.
    pub at: Timestamp,
}

impl Stamp {
    /// Puts the stamp on a key. Where it was rolled meanwhile, what was its present secret then is its old one now. A store
    /// may do the same in its own words.
    pub fn put_on(&self, key: &mut Key) {
        let present = key.previous.as_ref().map(|half| half.rolled_at);
        let on = match (&mut key.previous, self.old) {
            (_, false) if present == self.rolled_at => &mut key.used_at,
            (Some(half), true) if present == self.rolled_at => &mut half.used_at,
            (Some(half), false) if self.rolled_at < present => &mut half.used_at,
            _ => return,
        };
        *on = (*on).max(Some(self.at));
    }
}

#[derive(Debug, Clone, Copy)]
struct Noted {
    rolled_at: Option<Timestamp>,
    at: Timestamp,
    written: bool,
}

/// The uses that are not written yet.
#[derive(Debug, Default)]
pub struct Uses(DashMap<(KeyId, bool), Noted>);

impl Uses {
    /// Notes a use. Nothing is waited for.
    pub fn note(&self, key: KeyId, rolled_at: Option<Timestamp>, old: bool, now: Timestamp) {
        let at = Timestamp::from_millis(now.millis() - now.millis() % MINUTE);
        let new = Noted { rolled_at, at, written: false };
        let mut held = self.0.entry((key, old)).or_insert(new);
        if held.at < at || held.rolled_at != rolled_at {
            *held = new;
        }
    }

    /// Writes what was noted since the last time, and returns how many that is. What could not be written stays noted.
    ///
    /// # Errors
    /// The store's.
    pub async fn write(&self, store: &dyn KeyStore, now: Timestamp) -> Result<usize> {
        let due: Vec<Stamp> = self
            .0
            .iter()
            .filter(|held| !held.written)
            .map(|held| Stamp { key: held.key().0, old: held.key().1, rolled_at: held.rolled_at, at: held.at })
            .collect();
        if !due.is_empty() {
            store.stamp_keys(&due).await?;
        }
        for stamp in &due {
            if let Some(mut held) = self.0.get_mut(&(stamp.key, stamp.old)) {
                held.written |= held.at == stamp.at && held.rolled_at == stamp.rolled_at;
            }
        }
        self.0.retain(|_, held| !held.written || now.millis() < held.at.millis() + KEPT);
        Ok(due.len())
    }
}
