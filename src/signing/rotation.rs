//! The life of a signing key: next → active → retiring → gone, as functions of a whole set and an instant.
//!
//! A key is published long before it signs, so that a verifier that keeps the JWK Set never meets an unknown `kid`; it stays
//! published until the last token it signed is dead. Nothing here reads a store or a clock: a store runs these functions
//! inside its atomic update, and of two processes that find the same thing due the second one finds it done.

use std::time::Duration;

use super::{Settings, SigningKey, SigningState};
use crate::clock::Timestamp;
use crate::persist::{Cut, Update};

/// How long a verifier may keep the JWK Set (`Cache-Control: max-age`). It also covers the moment in which a process still
/// signs with a key that another has just retired.
pub const JWKS_MAX_AGE: Duration = Duration::from_secs(300);

/// A key is published this long before it signs, at the least: the slowest verifiers known fetch the JWK Set anew within an
/// hour, and the usual ones within 20 minutes.
pub const LEAST_PUBLISH_AHEAD: Duration = Duration::from_secs(3600);

/// The key that signs.
pub(super) fn active(keys: &[SigningKey]) -> Option<&SigningKey> {
    keys.iter().find(|key| key.state == SigningState::Active)
}

pub(super) fn next(keys: &[SigningKey]) -> Option<&SigningKey> {
    keys.iter().find(|key| key.state == SigningState::Next)
}

/// When a key has to be published that follows the active one; `None` when there is one already, or the schedule is off.
fn publication(keys: &[SigningKey], settings: &Settings) -> Option<Timestamp> {
    if !settings.is_scheduled() || next(keys).is_some() {
        return None;
    }
    Some(active(keys)?.activates_at + settings.rotate_every.saturating_sub(settings.publish_ahead))
}

/// When something is next due, if ever.
pub(super) fn next_turn(keys: &[SigningKey], settings: &Settings) -> Option<Timestamp> {
    let of_key = |key: &SigningKey| match key.state {
        SigningState::Next if settings.is_supplied() => None,
        SigningState::Next => Some(key.activates_at),
        SigningState::Active => None,
        SigningState::Retiring => Some(gone_at(key)),
    };
    keys.iter().filter_map(of_key).chain(publication(keys, settings)).min()
}

/// Whether what is due at `now` takes a new key. That which [`advance`] does first may make it so.
pub(super) fn wants_key(keys: &[SigningKey], settings: &Settings, now: Timestamp) -> bool {
    match advance(keys.to_vec(), settings, None, now) {
        Update::Keep => publication(keys, settings).is_some_and(|at| at <= now),
        Update::Write(keys, _) => publication(&keys, settings).is_some_and(|at| at <= now),
    }
}

/// Does all that is due at `now`. A `candidate` that is not needed, because another process was quicker, is left out.
pub(super) fn advance(
    mut keys: Vec<SigningKey>,
    settings: &Settings,
    candidate: Option<&SigningKey>,
    now: Timestamp,
) -> Update<Vec<SigningKey>> {
    let before = keys.len();
    keys.retain(|key| key.state != SigningState::Retiring || now < gone_at(key));
    let mut changed = keys.len() != before;
    let ripe = next(&keys).filter(|key| !settings.is_supplied() && key.activates_at <= now);
    if let Some(kid) = ripe.map(|key| key.kid.clone()) {
        activate(&mut keys, &kid, now);
        changed = true;
    }
    if let Some(candidate) = candidate
        && publication(&keys, settings).is_some_and(|at| at <= now)
        && keys.iter().all(|key| key.kid != candidate.kid)
    {
        keys.push(SigningKey {
            state: SigningState::Next,
            created_at: now,
            // Late or not: it is published for so long before it signs.
            activates_at: now + settings.publish_ahead,
            gone_at: None,
            ..candidate.clone()
        });
        changed = true;
    }
    if changed { Update::Write(keys, Cut::No) } else { Update::Keep }
}

/// Makes the key of `kid` the one that signs from `now` on; the one before retires.
pub(super) fn activate(keys: &mut [SigningKey], kid: &str, now: Timestamp) {
    for key in keys.iter_mut() {
        if key.kid == kid {
            (key.state, key.activates_at, key.gone_at) = (SigningState::Active, now, None);
        } else if key.state == SigningState::Active {
            key.state = SigningState::Retiring;
            key.gone_at = Some(now + key.longest_token + JWKS_MAX_AGE);
        }
    }
}

/// When a retiring key is gone.
fn gone_at(key: &SigningKey) -> Timestamp {
    key.gone_at.unwrap_or(key.activates_at + key.longest_token + JWKS_MAX_AGE)
}

/// When the next key may sign: once it has been published for so long.
pub(super) fn ripe_at(key: &SigningKey, settings: &Settings) -> Timestamp {
    key.created_at + settings.publish_ahead
}

/// Notes on the keys that sign, or will, how long the tokens of this process may be accepted. Written before the first of
/// them is signed, so that no key is gone before its last token, whatever another process is configured to.
pub(super) fn promise(keys: &mut [SigningKey], longest: Duration) -> bool {
    let mut changed = false;
    for key in keys.iter_mut().filter(|key| key.state != SigningState::Retiring && key.longest_token < longest) {
        key.longest_token = longest;
        changed = true;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const DAY: Duration = Duration::from_secs(86_400);
    const HOUR: Duration = Duration::from_secs(3600);

    fn key(kid: &str, state: SigningState, activates: Timestamp) -> SigningKey {
        SigningKey {
            kid: kid.into(),
            algorithm: "RS256".into(),
            private: Secret::new(vec![]),
            sealed_by: None,
            state,
            created_at: activates,
            activates_at: activates,
            longest_token: HOUR,
            gone_at: None,
        }
    }

    fn written(update: Update<Vec<SigningKey>>) -> Vec<SigningKey> {
        match update {
            Update::Write(keys, Cut::No) => keys,
            other => panic!("{other:?}"),
        }
    }

    fn states(keys: &[SigningKey]) -> Vec<(&str, SigningState)> {
        keys.iter().map(|key| (key.kid.as_str(), key.state)).collect()
    }

    #[test]
    fn a_key_goes_from_next_to_gone_at_its_times() {
        use SigningState::{Active, Next, Retiring};
        let settings = Settings::default();
        let start = Timestamp::from_secs(1_000_000);
        let keys = vec![key("a", Active, start)];
        let published = start + 29 * DAY;
        assert_eq!(next_turn(&keys, &settings), Some(published));
        let candidate = key("b", Active, Timestamp::default());
        let early = Timestamp::from_millis(published.millis() - 1);
        assert!(matches!(advance(keys.clone(), &settings, Some(&candidate), early), Update::Keep));
        assert!(!wants_key(&keys, &settings, early) && wants_key(&keys, &settings, published));
        let keys = written(advance(keys, &settings, Some(&candidate), published));
        assert_eq!(states(&keys), [("a", Active), ("b", Next)]);
        assert!(
            matches!(advance(keys.clone(), &settings, Some(&key("c", Active, start)), published), Update::Keep),
            "the slower one throws its key away"
        );

        let ripe = published + DAY;
        assert_eq!((next_turn(&keys, &settings), ripe_at(&keys[1], &settings)), (Some(ripe), ripe));
        let keys = written(advance(keys, &settings, None, ripe));
        assert_eq!(states(&keys), [("a", Retiring), ("b", Active)]);
        let gone = ripe + HOUR + JWKS_MAX_AGE;
        assert_eq!((keys[0].gone_at, next_turn(&keys, &settings)), (Some(gone), Some(gone)));
        assert!(matches!(advance(keys.clone(), &settings, None, ripe + HOUR), Update::Keep));
        let keys = written(advance(keys, &settings, None, gone));
        assert_eq!(states(&keys), [("b", Active)]);
        assert_eq!(next_turn(&keys, &settings), Some(ripe + 29 * DAY));
    }

    #[test]
    fn after_a_long_sleep_the_next_key_is_still_published_before_it_signs() {
        let settings = Settings::default();
        let start = Timestamp::from_secs(1_000_000);
        let late = start + 100 * DAY;
        let keys = written(advance(
            vec![key("a", SigningState::Active, start)],
            &settings,
            Some(&key("b", SigningState::Active, start)),
            late,
        ));
        assert_eq!((keys[1].state, keys[1].activates_at), (SigningState::Next, late + DAY));
        // Promoted late, it is published anew from then on, and the one after it only when its own time has come.
        let later = late + 200 * DAY;
        assert!(!wants_key(&keys, &settings, later));
        let keys = written(advance(keys, &settings, Some(&key("c", SigningState::Active, start)), later));
        assert_eq!((keys.len(), keys[1].activates_at), (2, later));
    }

    #[test]
    fn without_a_schedule_or_with_a_supplied_key_nothing_new_is_published() {
        let off = Settings { rotate_every: Duration::ZERO, ..Settings::default() };
        let supplied = Settings { private_key_file: Some("a".into()), ..Settings::default() };
        let start = Timestamp::from_secs(1_000_000);
        let late = start + 100 * DAY;
        let candidate = key("b", SigningState::Active, start);
        for settings in [&off, &supplied] {
            let keys = vec![key("a", SigningState::Active, start)];
            assert_eq!(next_turn(&keys, settings), None);
            assert!(matches!(advance(keys, settings, Some(&candidate), late), Update::Keep));
        }
        // One that was asked for takes over all the same, but not from a supplied one.
        let keys = vec![key("a", SigningState::Active, start), key("b", SigningState::Next, start + DAY)];
        assert_eq!(next_turn(&keys, &off), Some(start + DAY));
        assert_eq!(written(advance(keys.clone(), &off, None, late))[1].state, SigningState::Active);
        assert_eq!(next_turn(&keys, &supplied), None);
        assert!(matches!(advance(keys, &supplied, None, late), Update::Keep));
        // And what retires goes in any case.
        let mut keys = vec![key("a", SigningState::Retiring, start), key("b", SigningState::Active, start)];
        keys[0].gone_at = Some(start + HOUR);
        assert_eq!(written(advance(keys, &supplied, None, start + HOUR)).len(), 1);
    }

    #[test]
    fn a_promise_only_grows() {
        let mut keys = [key("a", SigningState::Active, Timestamp::default())];
        assert!(promise(&mut keys, 2 * HOUR));
        assert!(!promise(&mut keys, HOUR));
        assert_eq!(keys[0].longest_token, 2 * HOUR);
    }
}
