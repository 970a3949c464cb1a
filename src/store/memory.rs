//! The reference backend: plain maps behind one lock. For tests, and the yardstick of what a durable one must do.
//!
//! Keeps nothing across a restart. A record change, its cut and their feed entries happen under one lock, which is what a
//! transaction is elsewhere.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::rules::{self, BATCHES_KEPT, FEED_KEPT, Record};
use crate::accounts::{Account, AccountStore};
use crate::clock::Timestamp;
use crate::groups::{Group, GroupStore};
use crate::ids::{AccountName, GroupId, KeyId, LicenceId};
use crate::keys::{Added, Fits, Key, KeyStore, SeatedChange, Seats, Stamp};
use crate::licences::seats::Seating;
use crate::licences::{Beside, Licence, LicenceStore};
use crate::notices::{Notice, NoticeStore, Occasion};
use crate::persist::{Cut, Error, Inserted, Result, Update, Updated};
use crate::plans::{self, CountStore};
use crate::revocations::{Change, Changes, Cutoff, Revocation, RevocationStore, Target};
use crate::signing::{SigningKey, SigningKeyStore};
use crate::usage::{Batch, By, Counts, Filter, Hour, Label, Line, UsageStore};

/// A store that lives as long as the process.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    accounts: BTreeMap<AccountName, Account>,
    groups: BTreeMap<GroupId, Group>,
    keys: BTreeMap<KeyId, Key>,
    licences: BTreeMap<LicenceId, Licence>,
    notices: Vec<Notice>,
    latest_time: Timestamp,
    signing_keys: Vec<SigningKey>,
    revocations: HashMap<Target, Revocation>,
    feed: VecDeque<(u64, Change)>,
    version: u64,
    forgotten: u64,
    /// Which version had been reached when: what is not above a mark of an hour ago is older than an hour.
    marks: VecDeque<(u64, Timestamp)>,
    usage: BTreeMap<(Hour, Line), Counts>,
    counts: BTreeMap<plans::Line, (Timestamp, u64)>,
    count_batches: BTreeMap<String, (u64, Timestamp)>,
    /// The last batch of each gateway, and when it was made.
    batches: HashMap<String, (u64, Timestamp)>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is changed before the caller's function has returned, so a panic in it leaves the state whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self, change: Change) {
        self.version += 1;
        self.feed.push_back((self.version, change));
    }

    fn insert<K: Ord, R>(
        &mut self,
        of: fn(&mut Self) -> &mut BTreeMap<K, R>,
        id: K,
        record: R,
        change: Change,
    ) -> bool {
        if of(self).contains_key(&id) {
            return false;
        }
        of(self).insert(id, record);
        self.tell(change);
        true
    }

    fn update<K: Ord + Clone, R: Record>(
        &mut self,
        of: fn(&mut Self) -> &mut BTreeMap<K, R>,
        id: &K,
        change: &(dyn Fn(R) -> Update<R> + Send + Sync),
    ) -> Updated<R> {
        let Some(before) = of(self).get(id).cloned() else { return Updated::Missing };
        match change(before.clone()) {
            Update::Keep => Updated::Done(before),
            Update::Write(after, cut) => {
                let after = after.settled(&before);
                of(self).insert(id.clone(), after.clone());
                self.tell(after.change());
                self.cut(&after.target(), cut);
                Updated::Done(after)
            }
        }
    }

    fn revoke(&mut self, target: &Target, now: Timestamp, forever: bool) -> Revocation {
        let latest = self.revocations.get(target);
        self.put(rules::revocation(target, latest, self.related_cutoff(target), now, forever))
    }

    fn revoke_before(&mut self, target: &Target, before: Timestamp, now: Timestamp) -> Revocation {
        let latest = self.revocations.get(target);
        self.put(rules::revocation_before(target, latest, before, now))
    }

    fn cut(&mut self, target: &Target, cut: Cut) {
        match cut {
            Cut::No => return,
            Cut::Now(now) => self.revoke(target, now, false),
            Cut::Forever(now) => self.revoke(target, now, true),
            Cut::Before { before, now } => self.revoke_before(target, before, now),
        };
    }

    /// The highest cut-off of the targets that share tokens with this one.
    fn related_cutoff(&self, target: &Target) -> Option<Cutoff> {
        let account_of = |id: &KeyId| self.keys.get(id).map(|key| &key.account);
        let is_related = |other: &Target| match (target, other) {
            (Target::Token(_), _) | (_, Target::Token(_)) => false,
            (Target::All, _) | (_, Target::All) => true,
            (Target::Key(key), Target::Account(name)) | (Target::Account(name), Target::Key(key)) => {
                account_of(key) == Some(name)
            }
            _ => false,
        };
        let related = self.revocations.iter().filter(|(other, _)| is_related(other));
        related.map(|(_, held)| held.cutoff).filter(|cutoff| *cutoff != Cutoff::FOREVER).max()
    }

    fn put(&mut self, revocation: Revocation) -> Revocation {
        self.revocations.insert(revocation.target.clone(), revocation.clone());
        self.tell(Change::Revoked(revocation.clone()));
        revocation
    }

    /// Those of which `is_asked_for` is true, by account and id.
    fn licences_where(&self, is_asked_for: impl Fn(&Licence) -> bool) -> Vec<Licence> {
        let mut licences: Vec<Licence> = self.licences.values().filter(|held| is_asked_for(held)).cloned().collect();
        licences.sort_by(|a, b| (&a.account, &a.id).cmp(&(&b.account, &b.id)));
        licences
    }

    fn licences_of(&self, name: &AccountName) -> Vec<Licence> {
        self.licences.values().filter(|held| held.account == *name).cloned().collect()
    }

    fn seating(&self, name: &AccountName, now: Timestamp) -> Seating {
        let held = self.keys.values().filter(|key| key.account == *name && key.holds_seat(now)).count() as u64;
        Seating { licences: self.licences_of(name), held }
    }

    fn expect_account(&self, name: &AccountName) -> Result<()> {
        match self.accounts.contains_key(name) {
            true => Ok(()),
            false => Err(Error::Unavailable(format!("there is no account {name}").into())),
        }
    }
}

#[async_trait]
impl AccountStore for MemoryStore {
    async fn insert_account(&self, account: &Account) -> Result<bool> {
        let change = Change::Account(account.name.clone());
        Ok(self.state().insert(|state| &mut state.accounts, account.name.clone(), account.clone(), change))
    }

    async fn account(&self, name: &AccountName) -> Result<Option<Account>> {
        Ok(self.state().accounts.get(name).cloned())
    }

    async fn accounts(&self) -> Result<Vec<Account>> {
        Ok(self.state().accounts.values().cloned().collect())
    }

    async fn update_account(
        &self,
        name: &AccountName,
        change: &(dyn Fn(Account) -> Update<Account> + Send + Sync),
    ) -> Result<Updated<Account>> {
        Ok(self.state().update(|state| &mut state.accounts, name, change))
    }
}

#[async_trait]
impl GroupStore for MemoryStore {
    async fn insert_group(&self, group: &Group) -> Result<bool> {
        let change = Change::Group(group.id.clone());
        Ok(self.state().insert(|state| &mut state.groups, group.id.clone(), group.clone(), change))
    }

    async fn group(&self, id: &GroupId) -> Result<Option<Group>> {
        Ok(self.state().groups.get(id).cloned())
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        Ok(self.state().groups.values().cloned().collect())
    }

    async fn replace_group(&self, group: &Group) -> Result<bool> {
        let mut state = self.state();
        let Some(present) = state.groups.get_mut(&group.id) else { return Ok(false) };
        *present = group.clone();
        state.tell(Change::Group(group.id.clone()));
        Ok(true)
    }

    async fn delete_group(&self, id: &GroupId) -> Result<bool> {
        let mut state = self.state();
        if state.groups.remove(id).is_none() {
            return Ok(false);
        }
        state.tell(Change::Group(id.clone()));
        Ok(true)
    }
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn insert_key(&self, key: &Key) -> Result<bool> {
        let mut state = self.state();
        if state.keys.contains_key(&key.id) {
            return Ok(false);
        }
        state.expect_account(&key.account)?;
        Ok(state.insert(|state| &mut state.keys, key.id, key.clone(), key.change()))
    }

    async fn insert_key_if(&self, key: &Key, now: Timestamp, fits: &Fits<'_>) -> Result<Inserted> {
        let mut state = self.state();
        if !fits(&state.seating(&key.account, now)) {
            return Ok(Inserted::Refused);
        }
        if state.keys.contains_key(&key.id) {
            return Ok(Inserted::Taken);
        }
        state.expect_account(&key.account)?;
        state.insert(|state| &mut state.keys, key.id, key.clone(), key.change());
        Ok(Inserted::Done)
    }

    async fn insert_keys(&self, keys: &[Key], now: Timestamp, seats: &Seats<'_>) -> Result<Added> {
        let mut state = self.state();
        for key in keys {
            state.expect_account(&key.account)?;
        }
        let (mut new, mut seated) = (Vec::new(), BTreeSet::new());
        for key in keys {
            if let Entry::Vacant(vacant) = state.keys.entry(key.id) {
                vacant.insert(key.clone());
                new.push(key.id);
                if key.holds_seat(now) {
                    seated.insert(&key.account);
                }
            }
        }
        for account in seated {
            let seating = state.seating(account, now);
            if seats(&seating.licences).is_some_and(|most| most < seating.held) {
                state.keys.retain(|id, _| !new.contains(id));
                return Ok(Added::NoSeats(account.clone(), seating));
            }
        }
        Ok(Added::Keys(new.len()))
    }

    async fn seating(&self, account: &AccountName, now: Timestamp) -> Result<Seating> {
        Ok(self.state().seating(account, now))
    }

    async fn key(&self, id: &KeyId) -> Result<Option<Key>> {
        Ok(self.state().keys.get(id).cloned())
    }

    async fn keys(&self, of: Option<&AccountName>) -> Result<Vec<Key>> {
        let mut keys: Vec<Key> =
            self.state().keys.values().filter(|key| of.is_none_or(|name| key.account == *name)).cloned().collect();
        keys.sort_by(|a, b| (&a.account, &a.id).cmp(&(&b.account, &b.id)));
        Ok(keys)
    }

    async fn update_key(
        &self,
        id: &KeyId,
        change: &(dyn Fn(Key) -> Update<Key> + Send + Sync),
    ) -> Result<Updated<Key>> {
        Ok(self.state().update(|state| &mut state.keys, id, change))
    }

    async fn update_key_seated(&self, id: &KeyId, now: Timestamp, change: &SeatedChange<'_>) -> Result<Updated<Key>> {
        let mut state = self.state();
        let Some(account) = state.keys.get(id).map(|key| key.account.clone()) else { return Ok(Updated::Missing) };
        let seating = state.seating(&account, now);
        Ok(state.update(|state| &mut state.keys, id, &|key| change(key, &seating)))
    }

    async fn keys_to_finish(&self, now: Timestamp) -> Result<Vec<KeyId>> {
        let has_ended =
            |key: &&Key| key.previous.as_ref().is_some_and(|half| half.hash.is_some() && half.has_ended(now));
        Ok(self.state().keys.values().filter(has_ended).map(|key| key.id).collect())
    }

    async fn stamp_keys(&self, stamps: &[Stamp]) -> Result<()> {
        let mut state = self.state();
        for stamp in stamps {
            if let Some(key) = state.keys.get_mut(&stamp.key) {
                stamp.put_on(key);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl LicenceStore for MemoryStore {
    async fn insert_licence(&self, licence: &Licence) -> Result<bool> {
        let mut state = self.state();
        if state.licences.contains_key(&licence.id) {
            return Ok(false);
        }
        state.expect_account(&licence.account)?;
        Ok(state.insert(|state| &mut state.licences, licence.id, licence.clone(), licence.change()))
    }

    async fn insert_licence_if(&self, licence: &Licence, fits: &Beside<'_>) -> Result<Inserted> {
        let mut state = self.state();
        if !fits(&state.licences_of(&licence.account)) {
            return Ok(Inserted::Refused);
        }
        if state.licences.contains_key(&licence.id) {
            return Ok(Inserted::Taken);
        }
        state.expect_account(&licence.account)?;
        state.insert(|state| &mut state.licences, licence.id, licence.clone(), licence.change());
        Ok(Inserted::Done)
    }

    async fn licence(&self, id: &LicenceId) -> Result<Option<Licence>> {
        Ok(self.state().licences.get(id).cloned())
    }

    async fn licences(&self, of: Option<&AccountName>) -> Result<Vec<Licence>> {
        Ok(self.state().licences_where(|held| of.is_none_or(|name| held.account == *name)))
    }

    async fn installed_licences(&self) -> Result<Vec<Licence>> {
        Ok(self.state().licences_where(|held| held.document.is_some()))
    }

    async fn update_licence(
        &self,
        id: &LicenceId,
        change: &(dyn Fn(Licence) -> Update<Licence> + Send + Sync),
    ) -> Result<Updated<Licence>> {
        Ok(self.state().update(|state| &mut state.licences, id, change))
    }

    async fn latest_time(&self) -> Result<Timestamp> {
        Ok(self.state().latest_time)
    }

    async fn note_time(&self, at: Timestamp) -> Result<()> {
        let mut state = self.state();
        state.latest_time = state.latest_time.max(at);
        Ok(())
    }
}

#[async_trait]
impl NoticeStore for MemoryStore {
    async fn licences_ending(&self, after: Timestamp, until: Timestamp) -> Result<Vec<Licence>> {
        let ends = |held: &&Licence| held.ends_at.is_some_and(|end| after < end && end <= until);
        let mut licences: Vec<Licence> = self.state().licences.values().filter(ends).cloned().collect();
        licences.sort_by_key(|held| (held.ends_at, held.id));
        Ok(licences)
    }

    async fn notices(&self, after: Timestamp) -> Result<Vec<Notice>> {
        let mut notices: Vec<Notice> =
            self.state().notices.iter().filter(|held| after < held.occasion.ends_at).cloned().collect();
        notices.sort_by_key(|held| (held.occasion.ends_at, held.occasion.licence, Reverse(held.occasion.ahead)));
        Ok(notices)
    }

    async fn update_notice(
        &self,
        occasion: &Occasion,
        change: &(dyn Fn(Option<Notice>) -> Option<Notice> + Send + Sync),
    ) -> Result<Option<Notice>> {
        let mut state = self.state();
        let held = state.notices.iter().position(|held| held.occasion == *occasion);
        let Some(after) = change(held.map(|at| state.notices[at].clone())) else { return Ok(None) };
        let after = Notice { occasion: occasion.clone(), ..after };
        match held {
            Some(at) => state.notices[at] = after.clone(),
            None => state.notices.push(after.clone()),
        }
        Ok(Some(after))
    }

    async fn forget_notices(&self, until: Timestamp) -> Result<u64> {
        let mut state = self.state();
        let before = state.notices.len();
        state.notices.retain(|held| until < held.occasion.ends_at);
        Ok((before - state.notices.len()) as u64)
    }
}

#[async_trait]
impl SigningKeyStore for MemoryStore {
    async fn signing_keys(&self) -> Result<Vec<SigningKey>> {
        Ok(self.state().signing_keys.clone())
    }

    async fn update_signing_keys(
        &self,
        change: &(dyn Fn(Vec<SigningKey>) -> Update<Vec<SigningKey>> + Send + Sync),
    ) -> Result<Vec<SigningKey>> {
        let mut state = self.state();
        if let Update::Write(keys, cut) = change(state.signing_keys.clone()) {
            state.signing_keys = rules::ordered(keys)?;
            state.tell(Change::SigningKeys);
            // What goes for good is not every token there will ever be.
            state.cut(&Target::All, if let Cut::Forever(now) = cut { Cut::Now(now) } else { cut });
        }
        Ok(state.signing_keys.clone())
    }
}

#[async_trait]
impl RevocationStore for MemoryStore {
    async fn revoke(&self, target: &Target, now: Timestamp, forever: bool) -> Result<Revocation> {
        Ok(self.state().revoke(target, now, forever))
    }

    async fn revoke_all_before(&self, before: Timestamp, now: Timestamp) -> Result<Revocation> {
        Ok(self.state().revoke_before(&Target::All, before, now))
    }

    async fn revocations(&self, now: Timestamp) -> Result<Vec<Revocation>> {
        let mut kept: Vec<Revocation> =
            self.state().revocations.values().filter(|held| now < held.forget_at).cloned().collect();
        kept.sort_by_cached_key(|held| (held.made_at, held.target.to_string()));
        Ok(kept)
    }

    async fn forget(&self, now: Timestamp) -> Result<u64> {
        let mut guard = self.state();
        let state = &mut *guard;
        let before = state.revocations.len() + state.feed.len();
        state.revocations.retain(|_, held| now < held.forget_at);
        if state.version > state.marks.back().map_or(state.forgotten, |(version, _)| *version) {
            state.marks.push_back((state.version, now));
        }
        let old = state.marks.iter().filter(|(_, at)| *at + FEED_KEPT <= now).map(|(version, _)| *version).max();
        if let Some(old) = old {
            state.forgotten = old;
            state.marks.retain(|(version, _)| *version > old);
            state.feed.retain(|(version, _)| *version > old);
        }
        Ok((before - state.revocations.len() - state.feed.len()) as u64)
    }

    async fn version(&self) -> Result<u64> {
        Ok(self.state().version)
    }

    async fn changes_since(&self, version: u64) -> Result<Changes> {
        let state = self.state();
        if version < state.forgotten || version > state.version {
            return Ok(Changes::Lost);
        }
        let since = state.feed.iter().filter(|(at, _)| *at > version).map(|(_, change)| change.clone()).collect();
        Ok(Changes::List(since, state.version))
    }
}

#[async_trait]
impl UsageStore for MemoryStore {
    async fn add_usage(&self, batch: &Batch) -> Result<()> {
        let mut guard = self.state();
        let state = &mut *guard;
        let (last, at) = state.batches.entry(batch.gateway.clone()).or_default();
        if batch.number > *last {
            (*last, *at) = (batch.number, batch.at);
            for row in &batch.rows {
                state.usage.entry((row.hour, row.line.clone())).or_default().add(&row.counts);
            }
        }
        Ok(())
    }

    async fn usage(&self, filter: &Filter, by: By) -> Result<Vec<(Label, Counts)>> {
        let state = self.state();
        let mut sums: BTreeMap<Label, Counts> = BTreeMap::new();
        for ((hour, line), counts) in state.usage.iter().filter(|((hour, line), _)| filter.admits(*hour, line)) {
            sums.entry(by.label(*hour, line)).or_default().add(counts);
        }
        Ok(sums.into_iter().collect())
    }

    async fn forget_usage(&self, before: Hour) -> Result<u64> {
        let mut state = self.state();
        let Some(oldest) = state.usage.keys().next().map(|(hour, _)| *hour).filter(|oldest| *oldest < before) else {
            return Ok(0);
        };
        let (held, kept) = (state.usage.len(), rules::first_kept(oldest, before));
        state.usage.retain(|(hour, _), _| *hour >= kept);
        state.batches.retain(|_, (_, at)| *at + BATCHES_KEPT >= before.start());
        Ok((held - state.usage.len()) as u64)
    }
}

#[async_trait]
impl CountStore for MemoryStore {
    async fn add_counts(&self, batch: &plans::Batch) -> Result<Vec<u64>> {
        let mut guard = self.state();
        let state = &mut *guard;
        let (last, at) = state.count_batches.entry(batch.gateway.clone()).or_default();
        if batch.number > *last {
            (*last, *at) = (batch.number, batch.at);
            for row in &batch.rows {
                let (_, used) = state.counts.entry(row.line.clone()).or_insert((row.until, 0));
                *used += row.used;
            }
        }
        Ok(batch.rows.iter().map(|row| state.counts.get(&row.line).map_or(0, |(_, used)| *used)).collect())
    }

    async fn counts(&self, now: Timestamp) -> Result<Vec<plans::Row>> {
        let state = self.state();
        let live = state.counts.iter().filter(|(_, (until, _))| *until > now);
        Ok(live.map(|(line, (until, used))| plans::Row { line: line.clone(), until: *until, used: *used }).collect())
    }

    async fn forget_counts(&self, now: Timestamp) -> Result<u64> {
        let mut state = self.state();
        let held = state.counts.len();
        state.counts.retain(|_, (until, _)| *until > now);
        state.count_batches.retain(|_, (_, at)| *at + BATCHES_KEPT >= now);
        Ok((held - state.counts.len()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::MemoryStore;
    use crate::store::conformance::Bench;

    async fn bench() -> Bench {
        let store = Arc::new(MemoryStore::new());
        Bench { store: store.clone(), other: store, folder: None }
    }

    store_conformance!(memory, super::bench);
}
