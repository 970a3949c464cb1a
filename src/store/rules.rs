//! What every backend must do alike, in one place: which fields an update leaves alone, how a cut-off grows, how long a
//! revocation and a feed entry are remembered.

use std::time::Duration;

use crate::accounts::Account;
use crate::clock::Timestamp;
use crate::keys::Key;
use crate::licences::Licence;
use crate::persist::{Error, Result};
use crate::revocations::{Change, Cutoff, LONGEST_TOKEN, Revocation, Target};
use crate::signing::SigningKey;
use crate::usage::Hour;

/// How long an entry stays in the feed of changes.
pub(super) const FEED_KEPT: Duration = Duration::from_secs(3600);

/// How long the number of a gateway's last batch of usage is kept beyond the usage itself: longer than any gateway tries to
/// write the same batch.
pub(super) const BATCHES_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// The hours before this one are forgotten at once, when those before `before` are to go and `oldest` is the first there is:
/// no more than a day's, so that others who write do not wait for long.
pub(super) fn first_kept(oldest: Hour, before: Hour) -> Hour {
    before.min(Hour(oldest.0.saturating_add(24)))
}

/// A record that an atomic update may replace.
pub(super) trait Record: Clone + Send + Sync {
    /// This record with the fields of `before` that never change.
    fn settled(self, before: &Self) -> Self;
    /// What the feed says when it was written.
    fn change(&self) -> Change;
    /// Whose tokens a cut ends.
    fn target(&self) -> Target;
}

impl Record for Account {
    fn settled(self, before: &Self) -> Self {
        Self { name: before.name.clone(), created_at: before.created_at, ..self }
    }
    fn change(&self) -> Change {
        Change::Account(self.name.clone())
    }
    fn target(&self) -> Target {
        Target::Account(self.name.clone())
    }
}

impl Record for Key {
    fn settled(self, before: &Self) -> Self {
        Self { id: before.id, account: before.account.clone(), created_at: before.created_at, ..self }
    }
    fn change(&self) -> Change {
        Change::Key(self.id)
    }
    fn target(&self) -> Target {
        Target::Key(self.id)
    }
}

impl Record for Licence {
    fn settled(self, before: &Self) -> Self {
        Self { id: before.id, account: before.account.clone(), created_at: before.created_at, ..self }
    }
    fn change(&self) -> Change {
        Change::Licence(self.account.clone())
    }
    fn target(&self) -> Target {
        Target::Account(self.account.clone())
    }
}

/// The revocation of `target` at `now`, given the latest one of the same target and the highest cut-off (those for
/// good aside) of the targets that share tokens with it: a key with its account, an account with its keys, all with everyone.
/// A token got just after one of those cut-offs has it for its `iat`, which may lie ahead, and must die by this one too.
pub(super) fn revocation(
    target: &Target,
    latest: Option<&Revocation>,
    related: Option<Cutoff>,
    now: Timestamp,
    forever: bool,
) -> Revocation {
    let cutoff = if forever || matches!(target, Target::Token(_)) {
        Cutoff::FOREVER
    } else {
        Cutoff::after(latest.map(|latest| latest.cutoff).max(related), now)
    };
    remembered(target.clone(), cutoff, latest, now)
}

/// The revocation of the tokens of `target` issued before `before`, given the latest one of the same target.
pub(super) fn revocation_before(
    target: &Target,
    latest: Option<&Revocation>,
    before: Timestamp,
    now: Timestamp,
) -> Revocation {
    // Rounded up: a token of the second that `before` lies in may have been issued before it.
    let asked = Cutoff(before.millis().div_ceil(1000));
    let cutoff = latest.map_or(asked, |latest| latest.cutoff.max(asked));
    remembered(target.clone(), cutoff, latest, now)
}

fn remembered(target: Target, cutoff: Cutoff, latest: Option<&Revocation>, now: Timestamp) -> Revocation {
    // The last token that the cut-off concerns is issued just before it, which may lie ahead. Past a cut-off for good
    // nothing is issued any more.
    let last_issued = match cutoff {
        Cutoff::FOREVER => now,
        Cutoff(secs) => now.max(Timestamp::from_secs(secs)),
    };
    // A clock that was set back must not shorten what was promised before.
    let promised = latest.map_or(Timestamp::default(), |latest| latest.forget_at);
    Revocation { target, cutoff, made_at: now, forget_at: promised.max(last_issued + LONGEST_TOKEN) }
}

/// A set of signing keys in its order, oldest first; refused when a `kid` occurs twice.
pub(super) fn ordered(mut keys: Vec<SigningKey>) -> Result<Vec<SigningKey>> {
    keys.sort_by(|a, b| (a.created_at, &a.kid).cmp(&(b.created_at, &b.kid)));
    let mut kids: Vec<&str> = keys.iter().map(|key| key.kid.as_str()).collect();
    kids.sort_unstable();
    match kids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::Unavailable(format!("two signing keys have the kid {}", pair[0]).into())),
        None => Ok(keys),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_later_revocation_ends_more_and_is_remembered_longer(
            steps in prop::collection::vec((0..3_000_000u64, 0..3u8, 0..3_000_000u64), 1..20),
        ) {
            let mut latest: Option<Revocation> = None;
            for (now, kind, before) in steps {
                let (now, before) = (Timestamp::from_millis(now), Timestamp::from_millis(before));
                let next = match kind {
                    0 => revocation(&Target::All, latest.as_ref(), None, now, false),
                    1 => revocation_before(&Target::All, latest.as_ref(), before, now),
                    _ => revocation(&Target::All, latest.as_ref(), None, now, before.millis() > 2_900_000),
                };
                if let Some(latest) = &latest {
                    prop_assert!(next.cutoff >= latest.cutoff);
                    prop_assert!(next.forget_at >= latest.forget_at);
                }
                // The last token it ends was issued below the cut-off and lives no longer than the longest.
                prop_assert!(next.forget_at >= now + LONGEST_TOKEN);
                if next.cutoff != Cutoff::FOREVER {
                    prop_assert!(next.forget_at >= Timestamp::from_secs(next.cutoff.0) + LONGEST_TOKEN);
                }
                latest = Some(next);
            }
        }
    }

    #[test]
    fn everything_before_an_instant_is_rounded_up_to_the_second() {
        let now = Timestamp::from_secs(500);
        let at = |millis| revocation_before(&Target::All, None, Timestamp::from_millis(millis), now).cutoff;
        assert_eq!(at(100_000), Cutoff(100));
        assert_eq!(at(100_001), Cutoff(101));
    }
}
