//! What an operation did to a record, told honestly: whether anything changed, and whether tokens died of it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::persist::{Cut, Update, Updated};
use crate::revocations::LONGEST_TOKEN;

/// The end of an operation on a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed<T> {
    /// The record as it now stands.
    pub record: T,
    /// Whether it was written; `false` when it already was as asked for.
    pub written: bool,
    /// Whether the tokens issued so far below this record are dead now.
    pub tokens_cut: bool,
}

/// Carries what an atomic update decided out of it. A store may run an update more than once, when another writer came
/// first; the last run is the one that counts.
pub(crate) struct Verdict<E>(Mutex<Option<Result<(bool, Cut), E>>>);

impl<E> Default for Verdict<E> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<E> Verdict<E> {
    /// Notes a decision and turns it into what the store has to do; a refusal keeps the record.
    pub(crate) fn note<T>(&self, decided: Result<Update<T>, E>) -> Update<T> {
        let (verdict, update) = match decided {
            Ok(Update::Keep) => (Ok((false, Cut::No)), Update::Keep),
            Ok(Update::Write(record, cut)) => (Ok((true, cut)), Update::Write(record, cut)),
            Err(refusal) => (Err(refusal), Update::Keep),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        update
    }

    /// The end of the operation, or `None` when there is no such record.
    pub(crate) fn of<T>(self, updated: Updated<T>) -> Result<Option<Changed<T>>, E> {
        let Updated::Done(record) = updated else { return Ok(None) };
        let verdict = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (written, cut) = verdict.transpose()?.unwrap_or((false, Cut::No));
        Ok(Some(Changed { record, written, tokens_cut: cut != Cut::No }))
    }

    /// Whether the cut must be made once more, now that the change is there for all to see.
    ///
    /// A cut-off counts in whole seconds and is decided before the change is committed. Where the second turns in between, a
    /// login that still saw the record as it was got a token that the cut-off does not cover. No login can see that any
    /// more once the change is committed, so one repetition is enough.
    pub(crate) fn is_late(&self, committed_at: Timestamp) -> bool {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Ok((_, Cut::Now(decided_at)))) => is_late(*decided_at, committed_at),
            _ => false,
        }
    }
}

/// Whether the second has turned between a decision and its being there for all to see; see [`Verdict::is_late`].
pub(crate) fn is_late(decided_at: Timestamp, committed_at: Timestamp) -> bool {
    committed_at.secs() > decided_at.secs()
}

/// Whether moving an end from `old` to `new` must cut tokens: no token may outlive what it stands on.
///
/// An end so far ahead that every live token is dead before it needs no cut, so that giving a key a yearly end does not
/// interrupt anyone. The extra hour covers an issuance that is under way elsewhere while the end moves.
pub(crate) fn cut_for_end(old: Option<Timestamp>, new: Option<Timestamp>, now: Timestamp) -> Cut {
    const UNDER_WAY: Duration = Duration::from_secs(3600);
    let earlier = match (old, new) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(old), Some(new)) => new < old,
    };
    let near = new.is_some_and(|new| new < now + LONGEST_TOKEN + UNDER_WAY);
    if earlier && near { Cut::Now(now) } else { Cut::No }
}

#[cfg(test)]
mod tests {
    mod late;

    use super::*;

    #[test]
    fn an_end_cuts_tokens_only_when_one_could_outlive_it() {
        let now = Timestamp::from_secs(1_000_000);
        let days = |days: u64| Some(now + Duration::from_secs(days * 86_400));
        for (old, new, cuts) in [
            (None, days(1), true),
            (days(3), days(2), true),
            (days(2), days(3), false),
            (days(2), None, false),
            (None, None, false),
            (None, days(90), false),
            (days(365), days(30), true),
        ] {
            assert_eq!(cut_for_end(old, new, now) != Cut::No, cuts, "{old:?} -> {new:?}");
        }
    }

    #[test]
    fn the_last_run_of_an_update_is_the_one_that_is_told() {
        let verdict = Verdict::<&str>::default();
        let now = Timestamp::from_secs(1);
        assert!(matches!(verdict.note(Ok(Update::Write(1, Cut::Now(now)))), Update::Write(1, _)));
        assert!(matches!(verdict.note::<i32>(Ok(Update::Keep)), Update::Keep));
        assert_eq!(verdict.of(Updated::Done(7)), Ok(Some(Changed { record: 7, written: false, tokens_cut: false })));

        let verdict = Verdict::<&str>::default();
        let decided_at = Timestamp::from_millis(1_900);
        assert!(!verdict.is_late(Timestamp::from_secs(2)), "nothing was decided");
        assert!(matches!(verdict.note(Ok(Update::Write(1, Cut::Now(decided_at)))), Update::Write(1, _)));
        assert!(!verdict.is_late(Timestamp::from_millis(1_999)));
        assert!(verdict.is_late(Timestamp::from_secs(2)));

        let verdict = Verdict::<&str>::default();
        assert!(matches!(verdict.note::<i32>(Err("no")), Update::Keep));
        assert_eq!(verdict.of(Updated::Done(7)), Err("no"));
        assert_eq!(Verdict::<&str>::default().of::<i32>(Updated::Missing), Ok(None));
    }
}
