//! Keys in bulk: written out one a line, and taken in again, here or from another system. Only their hashes travel.
//!
//! Taking in is done in two passes. The first looks at every line and writes nothing; where one cannot be taken in, none is.
//! The second writes. What is already there as the line has it is passed over, so that an import that was interrupted is
//! begun anew with the same lines.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::operations::not_demo;
use super::{Added, End, Error, Grace, Half, Key, KeyState, NoSeat, Operations};
use crate::client_addr::Networks;
use crate::clock::Timestamp;
use crate::credentials::{Kept, PasswordHash};
use crate::groups::demo;
use crate::ids::{AccountName, GroupId, Groups, KeyId, PlanId, free_text};
use crate::licences::Licence;
use crate::licences::seats::{Limit, Seating};
use crate::persist;

/// So many faults are told one by one; the rest are counted.
const MOST_FAULTS: usize = 100;

/// A key in one line of JSON. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    id: KeyId,
    account: AccountName,
    hash: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    label: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    groups: Option<Groups>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    networks: Option<Networks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<PlanId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_at: Option<Instant>,
    /// The old secret of a rolled key, as long as it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    old: Option<Old>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Old {
    hash: String,
    rolled_at: Instant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends_at: Option<Instant>,
    /// From the first use of the new one on, where that has not come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grace_seconds: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Active,
    Suspended,
    Revoked,
}

/// An instant to the second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Instant(Timestamp);

impl TryFrom<String> for Instant {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Timestamp::parse(&text).map(Self).ok_or("write a date (2027-01-31) or an instant (2027-01-31T12:00:00Z)")
    }
}

impl From<Instant> for String {
    fn from(at: Instant) -> Self {
        at.0.to_string()
    }
}

impl Line {
    /// The line of a key, at `now`.
    pub fn of(key: &Key, now: Timestamp) -> Self {
        let old = key.old_half(now).and_then(|half| {
            let grace_seconds = match half.end {
                End::AfterFirstUse(grace) => Some(grace.as_secs()),
                End::At(_) => None,
            };
            let hash = half.hash.as_ref()?.as_phc().to_owned();
            Some(Old { hash, rolled_at: Instant(half.rolled_at), ends_at: half.ends_at().map(Instant), grace_seconds })
        });
        Self {
            id: key.id,
            account: key.account.clone(),
            hash: key.hash.as_phc().to_owned(),
            label: key.label.clone(),
            groups: key.groups.clone(),
            networks: key.networks.clone(),
            plan: key.plan.clone(),
            state: match key.state {
                KeyState::Active => None,
                KeyState::Suspended => Some(State::Suspended),
                KeyState::Revoked => Some(State::Revoked),
            },
            expires_at: key.expires_at.map(Instant),
            created_at: Some(Instant(key.created_at)),
            old,
        }
    }

    /// The key of a line.
    fn key(self, now: Timestamp) -> Result<Key, String> {
        let hash = |text: &str| PasswordHash::import(text, Kept::Key).map_err(|why| format!("`hash` is {why}"));
        free_text(&self.label).map_err(|rule| format!("`label`: {rule}"))?;
        let previous = self.old.map(|old| {
            let end = match (old.ends_at, old.grace_seconds) {
                (Some(end), None) => End::At(end.0),
                (None, Some(secs)) => {
                    let grace = Grace::new(Duration::from_secs(secs));
                    End::AfterFirstUse(grace.map_err(|rule| format!("`old`: {rule}"))?.time())
                }
                _ => return Err("`old` has either `ends_at` or `grace_seconds`".to_owned()),
            };
            let hash = hash(&old.hash)?;
            // At its end the tokens from before that end with it: none from here on may be among them.
            let rolled_at = old.rolled_at.0.min(now);
            Ok(Half { hash: Some(hash), rolled_at, end, used_at: None })
        });
        Ok(Key {
            label: self.label,
            groups: self.groups,
            networks: self.networks,
            plan: self.plan,
            state: match self.state {
                None | Some(State::Active) => KeyState::Active,
                Some(State::Suspended) => KeyState::Suspended,
                Some(State::Revoked) => KeyState::Revoked,
            },
            expires_at: self.expires_at.map(|at| at.0),
            previous: previous.transpose()?,
            ..Key::new(self.id, self.account, hash(&self.hash)?, self.created_at.map_or(now, |at| at.0))
        })
    }
}

/// What the first pass found.
#[derive(Debug, Default)]
pub struct Looked {
    /// The keys that are new.
    pub new: Vec<Key>,
    /// How many are there already, as their lines have them.
    pub present: usize,
    /// Lines that cannot be taken in, by their numbers, and why. Of many the first are here.
    pub faults: Vec<(usize, String)>,
    /// How many faults there are.
    pub faulty: usize,
}

/// Looks at lines one after the other.
#[derive(Debug)]
pub struct Look<'a> {
    operations: &'a Operations,
    now: Timestamp,
    found: Looked,
    number: usize,
    ids: HashSet<KeyId>,
    accounts: HashMap<AccountName, bool>,
    groups: HashSet<GroupId>,
    seats: HashMap<AccountName, (Option<Limit>, u64)>,
}

impl Operations {
    /// Begins the first pass.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn look(&self) -> Result<Look<'_>, Error> {
        Ok(Look {
            operations: self,
            now: self.clock.now(),
            found: Looked::default(),
            number: 0,
            ids: HashSet::new(),
            accounts: HashMap::new(),
            groups: self.groups.groups().await?.into_iter().map(|group| group.id).collect(),
            seats: HashMap::new(),
        })
    }

    /// The second pass, for some of the keys that the first found new: written in one transaction. Returns how many are;
    /// another process may have written the others meanwhile.
    ///
    /// # Errors
    /// When the store fails, or an account has no seats for so many any more. Then none of these is written.
    pub async fn take_in(&self, keys: &[Key]) -> Result<usize, Error> {
        let now = self.clock.now();
        let seats = |licences: &[Licence]| self.seats(licences, now).map(|limit| limit.seats);
        match self.keys.insert_keys(keys, now, &seats).await? {
            Added::Keys(count) => Ok(count),
            Added::NoSeats(account, Seating { licences, held }) => {
                let limit = self.seats(&licences, now).unwrap_or(Limit { seats: 0, licences: vec![] });
                Err(Error::NoSeat(NoSeat { account, limit, held }))
            }
        }
    }
}

impl Look<'_> {
    /// Looks at the next line. An empty one is passed over.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn at(&mut self, line: &str) -> Result<(), Error> {
        self.number += 1;
        if line.trim().is_empty() {
            return Ok(());
        }
        match self.key(line).await? {
            Ok(Some(key)) => self.found.new.push(key),
            Ok(None) => self.found.present += 1,
            Err(fault) => {
                self.found.faulty += 1;
                if self.found.faults.len() < MOST_FAULTS {
                    self.found.faults.push((self.number, fault));
                }
            }
        }
        Ok(())
    }

    /// What was found. The new keys come in the order of their ids: a store keeps them so, and what is written together then
    /// lies together.
    pub fn done(mut self) -> Looked {
        self.found.new.sort_unstable_by_key(|key| key.id);
        self.found
    }

    /// The key of a line; `None` when it is there already.
    async fn key(&mut self, line: &str) -> persist::Result<Result<Option<Key>, String>> {
        // What the reader of JSON says of a value repeats it, and it may be a hash.
        let read = serde_json::from_str::<Line>(line).map_err(|error| {
            let text = error.to_string();
            // Where it is in the file its number says; to the reader every line is the first.
            let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
            let what = what.split(", expected").next().unwrap_or_default();
            let what = match error.classify() {
                serde_json::error::Category::Data if !what.contains("invalid type") => what,
                _ => "it is no key in JSON",
            };
            format!("{what} (column {})", error.column())
        });
        let key = match read.and_then(|line| line.key(self.now)) {
            Ok(key) => key,
            Err(fault) => return Ok(Err(fault)),
        };
        if not_demo(&key.id).is_err() || key.account.as_str() == demo::DEMO {
            return Ok(Err("the demo account and its key are built in".to_owned()));
        }
        if !self.ids.insert(key.id) {
            return Ok(Err(format!("the id {} is in a line before", key.id)));
        }
        if !self.has_account(&key.account).await? {
            return Ok(Err(format!("there is no account \"{}\"", key.account)));
        }
        if let Some(groups) = &key.groups {
            if groups.is_empty() || groups.contains(&demo::group()) {
                return Ok(Err("`groups` has at least one, and not the Demo group; leave it away for all".to_owned()));
            }
            if let Some(missing) = groups.iter().find(|group| !self.groups.contains(group)) {
                return Ok(Err(format!("there is no group \"{missing}\"")));
            }
        }
        match self.operations.keys.key(&key.id).await? {
            None => Ok(self.seat(&key).await?.map(|()| Some(key)).map_err(|no_seat| no_seat.to_string())),
            Some(present) if is_same(&present, &key) => Ok(Ok(None)),
            Some(_) => Ok(Err(format!("key {} is there already, and not as this line has it", key.id))),
        }
    }

    /// Takes a seat for a new key, among those that the lines before have left.
    async fn seat(&mut self, key: &Key) -> persist::Result<Result<(), NoSeat>> {
        if !key.holds_seat(self.now) {
            return Ok(Ok(()));
        }
        if !self.seats.contains_key(&key.account) {
            let seating = self.operations.keys.seating(&key.account, self.now).await?;
            let limit = self.operations.seats(&seating.licences, self.now);
            self.seats.insert(key.account.clone(), (limit, seating.held));
        }
        let Some((limit, held)) = self.seats.get_mut(&key.account) else { return Ok(Ok(())) };
        match limit {
            Some(limit) if *held >= limit.seats => {
                Ok(Err(NoSeat { account: key.account.clone(), limit: limit.clone(), held: *held }))
            }
            _ => {
                *held += 1;
                Ok(Ok(()))
            }
        }
    }

    async fn has_account(&mut self, name: &AccountName) -> persist::Result<bool> {
        if let Some(known) = self.accounts.get(name) {
            return Ok(*known);
        }
        let known = self.operations.accounts.account(name).await?.is_some();
        self.accounts.insert(name.clone(), known);
        Ok(known)
    }
}

/// Whether a key is there as a line has it. Its hash may have been made anew since, at its first use, which nothing of it
/// tells; and it may have been used and have come to an end.
fn is_same(present: &Key, line: &Key) -> bool {
    let may_be_renewed = present.hash.has_check_value()
        && (!line.hash.has_check_value() || made_with(&present.hash) != made_with(&line.hash));
    (present.hash == line.hash || may_be_renewed)
        && present.account == line.account
        && present.groups == line.groups
        && present.networks == line.networks
        && present.plan == line.plan
        && present.expires_at.map(Timestamp::secs) == line.expires_at.map(Timestamp::secs)
        && present.state == line.state
        && present.label == line.label
}

/// With what algorithm and parameters an argon2id hash was made; of another, nothing that such a one has.
fn made_with(hash: &PasswordHash) -> Option<&str> {
    hash.as_phc().rsplitn(3, '$').nth(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{Hasher, Settings};

    #[test]
    fn a_key_whose_hash_was_made_anew_at_its_first_use_is_there_as_the_line_has_it() {
        let mut hasher = Hasher::new(&Settings { argon2_memory_kib: 64, ..Settings::default() }).unwrap();
        let mut hash = |of| hasher.hash(b"the key", of).unwrap();
        let key = |hash| Key::new("0123456789ab".parse().unwrap(), "acme".parse().unwrap(), hash, Timestamp::default());
        let sha = PasswordHash::import(&"ab".repeat(32), Kept::Key).unwrap();
        let renewed = key(hash(Kept::Key));
        // Of another system; of an earlier version.
        for line in [key(sha), key(hash(Kept::Password))] {
            assert!(is_same(&line, &line) && is_same(&renewed, &line) && !is_same(&line, &renewed));
            assert!(!is_same(&Key { label: "ci".to_owned(), ..renewed.clone() }, &line));
        }
        assert!(!is_same(&renewed, &key(hash(Kept::Key))), "what would not have been made anew is another key");
    }
}
