//! Proving a credential: from memory where that may be trusted, by its hash otherwise.

use std::sync::Arc;

use super::super::defence::Turn;
use super::super::memory::{Epoch, Proven};
use super::super::record::{Credential, Record, Records};
use super::super::{Hasher, Lane, Match, PasswordHash, Reason};
use super::{Attempt, Login, Stop, Verifier};
use crate::accounts::Account;
use crate::clock::Timestamp;
use crate::keys::{Half, Key};
use crate::persist::{Cut, Update};

impl Verifier {
    /// The record of a credential that was proven before, and whether it was read from the store just now.
    pub(super) async fn remembered(&self, attempt: &Attempt, trusted: bool) -> Result<Option<(Record, bool)>, Stop> {
        let Some(proven) = self.memory.proof(&attempt.credential, &attempt.mac) else { return Ok(None) };
        let now = attempt.began_at;
        if trusted && self.memory.is_fresh(proven.read_at, now) {
            // The store need not be asked what the clock can tell.
            if proven.record.ends_at.is_some_and(|end| now >= end) {
                return Err(Stop::Rejected(Reason::KeyNotLive));
            }
            return Ok(Some((proven.record, false)));
        }
        let epoch = self.memory.epoch();
        match self.records(&attempt.credential, now).await {
            Ok(records) => {
                // What was the present secret may be the old one by now.
                let record = records.with_hash(&proven.record.hash);
                if record.as_ref().is_none_or(|record| record.secret != proven.record.secret) {
                    self.memory.drop_proof(&attempt.credential, &attempt.mac);
                }
                if let Some(record) = &record {
                    self.remember(attempt, record.clone(), epoch);
                }
                Ok(record.map(|record| (record, true)))
            }
            Err(Stop::Store(error)) => {
                tracing::warn!(error = %error, "the store is away: a credential verified before is taken from memory");
                Ok(Some((proven.record, false)))
            }
            Err(stop) => {
                self.memory.drop_proof(&attempt.credential, &attempt.mac);
                Err(stop)
            }
        }
    }

    /// Proves a credential by its argon2id hash, and remembers that it was right.
    pub(super) async fn prove<'a>(
        self: &'a Arc<Self>,
        login: &mut Login<'a>,
        attempt: &Arc<Attempt>,
    ) -> Result<Record, Stop> {
        let place = match login.turn {
            None => Some(self.defence.place(login.from, login.user, self.clock.now()).await?),
            Some(_) => None,
        };
        let epoch = self.memory.epoch();
        let records = self.records(&attempt.credential, attempt.began_at).await;
        if let Ok(Records { present, old }) = &records
            && let Some(known) = self.proven_of(attempt, [Some(present), old.as_ref()])
        {
            // By another who stood further ahead in the line. So a fleet with one key costs one hash, and no failure.
            return Ok(known.clone());
        }
        if let Some(place) = place {
            login.turn = Some(place.charge(self.clock.now()).map_err(Stop::Throttled)?);
        }
        let is_familiar = login.turn.as_ref().is_some_and(Turn::is_familiar);
        let Records { present, old } = match records {
            Ok(records) => records,
            // An unknown user costs what a wrong password costs. Ids of keys are no secret, so that costs nothing.
            Err(Stop::Rejected(reason)) if matches!(attempt.credential, Credential::Password(_)) => {
                let attempt = Arc::clone(attempt);
                let lane = lane(is_familiar);
                self.pool.run(lane, move |hasher| hasher.waste(attempt.secret.expose().as_bytes())).await?;
                return Err(Stop::Rejected(reason));
            }
            Err(stop) => return Err(stop),
        };
        let of = attempt.credential.kept();
        let is_possible = |record: &Record| !record.hash.rules_out(attempt.secret.expose().as_bytes());
        let candidates = [Some(present), old].map(|record| record.filter(is_possible));
        if candidates.iter().all(Option::is_none) {
            return Err(Stop::Rejected(Reason::WrongSecret));
        }
        let is_likely = is_familiar || candidates.iter().flatten().any(|record| record.hash.has_check_value());
        let matched = {
            let (verifier, attempt) = (Arc::clone(self), Arc::clone(attempt));
            self.pool
                .run(lane(is_likely), move |hasher| {
                    // Of many that came at once with the same credential, one is hashed.
                    if let Some(known) = verifier.proven_of(&attempt, candidates.each_ref().map(Option::as_ref)) {
                        return Ok((Match::Yes, Some(known.clone())));
                    }
                    let mut unreadable = None;
                    for record in candidates.into_iter().flatten() {
                        match hasher.verify(attempt.secret.expose().as_bytes(), &record.hash, of) {
                            Ok(Match::No) => {}
                            Ok(matched) => {
                                verifier.remember(&attempt, record.clone(), epoch);
                                return Ok((matched, Some(record)));
                            }
                            Err(error) => unreadable = Some(error),
                        }
                    }
                    unreadable.map_or(Ok((Match::No, None)), Err)
                })
                .await?
        };
        match matched {
            Ok((Match::Outdated, Some(record))) => {
                let (verifier, attempt, outdated) = (Arc::clone(self), Arc::clone(attempt), record.hash.clone());
                tokio::spawn(async move { verifier.rehash(&attempt, outdated).await });
                Ok(record)
            }
            Ok((_, Some(record))) => Ok(record),
            Ok((_, None)) => Err(Stop::Rejected(Reason::WrongSecret)),
            Err(error) => {
                tracing::error!(error = %error, credential = %attempt.credential, "a stored hash cannot be used");
                Err(Stop::Rejected(Reason::UnreadableHash))
            }
        }
    }

    /// Which of these the very credential is remembered for, by the hash that the store has now.
    fn proven_of<'r>(&self, attempt: &Attempt, records: [Option<&'r Record>; 2]) -> Option<&'r Record> {
        let proven = self.memory.proof(&attempt.credential, &attempt.mac)?;
        records.into_iter().flatten().find(|record| record.hash == proven.record.hash)
    }

    /// Replaces a hash that is not as today's are, unless it was replaced meanwhile. Where there is no room for that now, the
    /// next proof tries again.
    async fn rehash(&self, attempt: &Arc<Attempt>, outdated: PasswordHash) {
        let hashing = Arc::clone(attempt);
        let job = move |hasher: &mut Hasher| hasher.hash(hashing.secret.expose().as_bytes(), hashing.credential.kept());
        // It can wait, and who waits for an answer does not wait for it.
        let Ok(Ok(hash)) = self.pool.run(Lane::Doubtful, job).await else { return };
        let replaced = match &attempt.credential {
            Credential::Key(id) => {
                let change = |key: Key| match &key.previous {
                    _ if key.hash == outdated => Update::Write(Key { hash: hash.clone(), ..key }, Cut::No),
                    Some(half) if half.hash.as_ref() == Some(&outdated) => {
                        let previous = Some(Half { hash: Some(hash.clone()), ..half.clone() });
                        Update::Write(Key { previous, ..key }, Cut::No)
                    }
                    _ => Update::Keep,
                };
                self.stores.keys.update_key(id, &change).await.map(drop)
            }
            Credential::Password(name) => {
                let change = |account: Account| match account.password.as_ref() == Some(&outdated) {
                    true => Update::Write(Account { password: Some(hash.clone()), ..account }, Cut::No),
                    false => Update::Keep,
                };
                self.stores.accounts.update_account(name, &change).await.map(drop)
            }
        };
        match replaced {
            Ok(()) => tracing::info!(credential = %attempt.credential, "hashed anew with today's parameters"),
            Err(error) => tracing::warn!(error = %error, credential = %attempt.credential, "could not be hashed anew"),
        }
    }

    fn remember(&self, attempt: &Attempt, record: Record, epoch: Epoch) {
        let proven = Proven { mac: attempt.mac, record, read_at: attempt.began_at };
        self.memory.remember(&attempt.credential, proven, epoch);
    }

    /// What the store says a credential must match now.
    async fn records(&self, credential: &Credential, now: Timestamp) -> Result<Records, Stop> {
        match credential {
            Credential::Key(id) => {
                let key = self.stores.keys.key(id).await?.ok_or(Stop::Rejected(Reason::UnknownKey))?;
                if !key.is_live(now) {
                    return Err(Stop::Rejected(Reason::KeyNotLive));
                }
                Ok(Records::of_key(key, now))
            }
            Credential::Password(name) => {
                let account = self.stores.accounts.account(name).await?;
                let account = account.ok_or(Stop::Rejected(Reason::UnknownAccount))?;
                Records::of_password(account).ok_or(Stop::Rejected(Reason::NoPassword))
            }
        }
    }
}

fn lane(is_likely: bool) -> Lane {
    if is_likely { Lane::Likely } else { Lane::Doubtful }
}
