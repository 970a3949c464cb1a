//! What is remembered of credentials that were right, and of what the store said. It never outlives a change: whoever forgets
//! moves the epoch first, and what was read in an epoch before is not taken in any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;
use dashmap::DashMap;
use subtle::ConstantTimeEq;

use super::Settings;
use super::record::{Credential, Record, WhichSecret};
use super::standing::{GroupLives, Standing};
use crate::clock::Timestamp;
use crate::ids::{AccountName, KeyId};
use crate::random;
use crate::revocations::Change;

/// What stands for a secret in memory: a MAC of it by a key of this process.
pub(super) type Mac = [u8; 32];

/// Between which changes something was read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

/// A credential that was right when it was last looked at.
#[derive(Clone)]
pub(super) struct Proven {
    pub mac: Mac,
    pub record: Record,
    pub read_at: Timestamp,
}

/// The memory of a verifier.
pub(super) struct Memory {
    ttl: Duration,
    size: usize,
    mac_key: hmac::Key,
    proven: DashMap<Credential, Proven>,
    /// The same of old secrets of keys that were rolled. They are apart, so that two callers with either do not drive each
    /// other out.
    proven_old: DashMap<KeyId, Proven>,
    standings: DashMap<AccountName, Arc<Standing>>,
    lives: ArcSwapOption<GroupLives>,
    /// Moves when anything is forgotten: what was read before must not be remembered after.
    epoch: AtomicU64,
    /// When memory was last known to agree with the store, in milliseconds.
    synced_at: AtomicU64,
}

impl Memory {
    /// Nothing is remembered yet; it agrees with the store at `now`.
    pub fn new(settings: &Settings, now: Timestamp) -> Self {
        Self {
            ttl: settings.cache_ttl,
            size: settings.cache_size,
            mac_key: hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()),
            proven: DashMap::new(),
            proven_old: DashMap::new(),
            standings: DashMap::new(),
            lives: ArcSwapOption::empty(),
            epoch: AtomicU64::new(0),
            synced_at: AtomicU64::new(now.millis()),
        }
    }

    /// What stands for a secret here.
    pub fn mac(&self, secret: &[u8]) -> Mac {
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&self.mac_key, secret).as_ref());
        mac
    }

    /// The present epoch: to be asked before what is to be remembered is read.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Whether something that was read at `read_at` may be taken as it is, without asking the store.
    pub fn is_fresh(&self, read_at: Timestamp, now: Timestamp) -> bool {
        now.since(read_at) < self.ttl
    }

    /// A proof of this very secret, if it is remembered.
    pub fn proof(&self, credential: &Credential, mac: &Mac) -> Option<Proven> {
        let is_it = |proven: &Proven| bool::from(proven.mac.ct_eq(mac));
        let present = self.proven.get(credential).filter(|proven| is_it(proven)).map(|proven| proven.clone());
        present.or_else(|| match credential {
            Credential::Key(id) => self.proven_old.get(id).filter(|proven| is_it(proven)).map(|proven| proven.clone()),
            Credential::Password(_) => None,
        })
    }

    /// Forgets a proof.
    pub fn drop_proof(&self, credential: &Credential, mac: &Mac) {
        self.proven.remove_if(credential, |_, proven| proven.mac == *mac);
        if let Credential::Key(id) = credential {
            self.proven_old.remove_if(id, |_, proven| proven.mac == *mac);
        }
    }

    /// Remembers a proof, unless something was forgotten since its record was read.
    pub fn remember(&self, credential: &Credential, proven: Proven, epoch: Epoch) {
        if self.len() >= self.size {
            self.shrink(proven.read_at);
        }
        // Under the entry's lock: whoever forgets has moved the epoch before it removes, so that what is stale is either not
        // put in or taken out, and nobody sees it in between.
        if let (WhichSecret::Old(_), Credential::Key(id)) = (proven.record.secret, credential) {
            let entry = self.proven_old.entry(*id);
            if self.epoch() == epoch {
                entry.insert(proven);
            }
            return;
        }
        let entry = self.proven.entry(credential.clone());
        if self.epoch() == epoch {
            entry.insert(proven);
        }
    }

    /// The new secret of a rolled key was used, which is written by now. The feed will say it too; until then it need not be
    /// written at every use.
    pub fn first_use_is_written(&self, id: &KeyId, mac: &Mac) {
        if let Some(mut proven) = self.proven.get_mut(&Credential::Key(*id))
            && proven.mac == *mac
        {
            proven.record.secret = WhichSecret::Present;
        }
        self.proven_old.remove(id);
    }

    /// Makes room: first what is old, then one in eight of the rest.
    fn shrink(&self, now: Timestamp) {
        self.proven.retain(|_, proven| self.is_fresh(proven.read_at, now));
        self.proven_old.retain(|_, proven| self.is_fresh(proven.read_at, now));
        if self.len() >= self.size {
            self.proven.retain(|_, proven| proven.mac[0] & 7 != 0);
            self.proven_old.retain(|_, proven| proven.mac[0] & 7 != 0);
        }
    }

    /// How many credentials are remembered.
    pub fn len(&self) -> usize {
        self.proven.len() + self.proven_old.len()
    }

    /// An account with its licences, as last read.
    pub fn standing(&self, name: &AccountName) -> Option<Arc<Standing>> {
        self.standings.get(name).map(|found| Arc::clone(&found))
    }

    /// Remembers one, as [`remember`](Self::remember) does.
    pub fn remember_standing(&self, name: &AccountName, standing: &Arc<Standing>, epoch: Epoch) {
        if self.standings.len() >= self.size {
            let now = standing.read_at;
            self.standings.retain(|_, held| self.is_fresh(held.read_at, now));
        }
        if self.standings.len() < self.size {
            let entry = self.standings.entry(name.clone());
            if self.epoch() == epoch {
                entry.insert(Arc::clone(standing));
            }
        }
    }

    /// All groups, as last read.
    pub fn lives(&self) -> Option<Arc<GroupLives>> {
        self.lives.load_full()
    }

    /// Remembers them.
    pub fn remember_lives(&self, lives: &Arc<GroupLives>, epoch: Epoch) {
        self.lives.store(Some(Arc::clone(lives)));
        if self.epoch() != epoch {
            self.lives.store(None);
        }
    }

    /// Forgets the records that changed.
    pub fn forget(&self, changes: &[Change]) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for change in changes {
            match change {
                Change::Key(id) => {
                    self.proven.remove(&Credential::Key(*id));
                    self.proven_old.remove(id);
                }
                Change::Account(name) => {
                    self.proven.remove(&Credential::Password(name.clone()));
                    self.standings.remove(name);
                }
                Change::Licence(account) => {
                    self.standings.remove(account);
                }
                Change::Group(_) => self.lives.store(None),
                Change::SigningKeys | Change::Revoked(_) => {}
            }
        }
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.proven.clear();
        self.proven_old.clear();
        self.standings.clear();
        self.lives.store(None);
    }

    /// It agreed with the store at `at`.
    pub fn synced(&self, at: Timestamp) {
        self.synced_at.store(at.millis(), Ordering::Release);
    }

    /// When it last agreed with the store.
    pub fn synced_at(&self) -> Timestamp {
        Timestamp::from_millis(self.synced_at.load(Ordering::Acquire))
    }
}
