//! The defence of logins against guessing: what a proof costs whoever asks for it, before anything is hashed.
//!
//! An attempt is charged before its hash and given back when it was right, so that however many come at once, no more than
//! the limit can be wrong. Three throttles hold: of an address, of a user-id, and of all together. None of them may lock the
//! innocent out:
//! - What was proven lately costs no hash, and never comes here.
//! - An address from which a user-id logged in is not held to what others guess at that user-id.
//! - When there are too many failures in all, those addresses wait that have failures of their own. A clean one does not.
//! - Of one address, few are hashed at once and the others wait in a line of their own, so that no address can fill the lane
//!   that all share, and a fleet that starts behind one address is let in one after the other and not refused.
//! - What is likely to be right waits in another lane than what is not (see [`Lane`](super::Lane)): a key by its check value, a
//!   password where it comes from an address from which its user-id logged in.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Busy, Settings};
use crate::clock::Timestamp;
use crate::limits::{Limiter, Rate};

/// Addresses and user-ids whose failures are remembered, each; and addresses that user-ids logged in from.
const MOST: usize = 200_000;

/// How many of one address may wait in its line.
const LONGEST_LINE: usize = 1024;

/// How long the address of a right login is remembered, in memory alone.
const FAMILIAR_FOR: Duration = Duration::from_secs(30 * 86_400);

/// Whose failures count together, by a MAC of it.
pub(super) type User = [u8; 32];

/// Why there is no turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many failures: again after so long.
    Throttled(Duration),
    /// The line is too long.
    Busy,
}

impl From<Duration> for Refused {
    fn from(wait: Duration) -> Self {
        Self::Throttled(wait)
    }
}

impl From<Busy> for Refused {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

/// The throttles and the lines.
#[derive(Debug)]
pub(super) struct Defence {
    by_address: Limiter<IpAddr>,
    by_user: Limiter<User>,
    in_all: Limiter<()>,
    /// Of the addresses that have attempts under way.
    lines: DashMap<IpAddr, Arc<Line>>,
    at_once: usize,
    /// When a user-id last logged in from an address.
    familiar: DashMap<(User, IpAddr), Timestamp>,
}

#[derive(Debug)]
struct Line {
    slots: Arc<Semaphore>,
    /// In the line or at its head.
    length: AtomicUsize,
    /// Those whose failure is charged until it is known to be none.
    charged: AtomicUsize,
}

impl Defence {
    /// With nothing remembered.
    pub fn new(settings: &Settings) -> Self {
        Self {
            by_address: Limiter::new(settings.failures_per_address, MOST),
            by_user: Limiter::new(settings.failures_per_user, MOST),
            in_all: Limiter::new(settings.failures_in_all, 1),
            lines: DashMap::new(),
            at_once: at_once(settings),
            familiar: DashMap::new(),
        }
    }

    /// Keeps other rates from now on.
    pub fn set(&self, per_address: Rate, per_user: Rate, in_all: Rate) {
        self.by_address.set(per_address);
        self.by_user.set(per_user);
        self.in_all.set(in_all);
    }

    /// Drops what counts no more.
    pub fn forget(&self, now: Timestamp) {
        self.by_address.forget(now);
        self.by_user.forget(now);
        self.familiar.retain(|_, at| now.since(*at) < FAMILIAR_FOR);
    }

    /// Counts a failure that costs no hash.
    ///
    /// # Errors
    /// The wait, when there were too many before; then it is not to be answered.
    pub fn failed(&self, from: IpAddr, user: Option<&User>, now: Timestamp) -> Result<(), Duration> {
        self.crowded(from, now)?;
        self.by_address.charge(&from, now)?;
        if let Some(user) = user {
            // Being over this limit changes nothing for one that was not held to it before.
            let _ = self.by_user.charge(user, now);
        }
        let _ = self.in_all.charge(&(), now);
        Ok(())
    }

    /// Waits for a place among the few of one address that are hashed at once.
    ///
    /// # Errors
    /// At once when there were too many failures, or too many wait.
    pub async fn place(&self, from: IpAddr, user: User, now: Timestamp) -> Result<Place<'_>, Refused> {
        self.peek(from, &user, now)?;
        let line = {
            let line = self.lines.entry(from).or_insert_with(|| Arc::new(Line::new(self.at_once)));
            Arc::clone(&line)
        };
        // From here on its end is seen to, wherever this is dropped.
        let mut place = Place { defence: self, from, user, line, slot: None };
        if place.line.length.fetch_add(1, Ordering::AcqRel) >= LONGEST_LINE {
            return Err(Refused::Busy);
        }
        let slots = Arc::clone(&place.line.slots);
        place.slot = Some(slots.acquire_owned().await.map_err(|_| Refused::Busy)?);
        Ok(place)
    }

    fn peek(&self, from: IpAddr, user: &User, now: Timestamp) -> Result<(), Duration> {
        self.by_address.peek(&from, now)?;
        self.crowded(from, now)?;
        if self.is_familiar(user, from) { Ok(()) } else { self.by_user.peek(user, now) }
    }

    /// Whether there are too many failures in all, and this address has its part in them.
    fn crowded(&self, from: IpAddr, now: Timestamp) -> Result<(), Duration> {
        // What is under way may be right. Otherwise an address of which two log in at once would not be clean.
        let pending = self.lines.get(&from).map_or(0, |line| line.charged.load(Ordering::Acquire));
        match (self.in_all.peek(&(), now), self.by_address.until_clean(&from, pending, now)) {
            (Err(in_all), Some(clean)) => Err(in_all.min(clean)),
            _ => Ok(()),
        }
    }

    fn is_familiar(&self, user: &User, from: IpAddr) -> bool {
        self.familiar.contains_key(&(*user, from))
    }

    fn is_right(&self, user: User, from: IpAddr, now: Timestamp) {
        if self.familiar.len() >= MOST && !self.is_familiar(&user, from) {
            self.familiar.retain(|_, at| now.since(*at) < FAMILIAR_FOR / 30);
        }
        if self.familiar.len() < MOST {
            self.familiar.insert((user, from), now);
        }
    }
}

/// An eighth of the lane that all share.
fn at_once(settings: &Settings) -> usize {
    (settings.hashing_queue / 8).clamp(1, 16)
}

impl Line {
    fn new(at_once: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(at_once)), length: AtomicUsize::new(0), charged: AtomicUsize::new(0) }
    }
}

/// A place among those of its address that may hash.
#[derive(Debug)]
pub(super) struct Place<'a> {
    defence: &'a Defence,
    from: IpAddr,
    user: User,
    line: Arc<Line>,
    slot: Option<OwnedSemaphorePermit>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.slot = None;
        self.line.length.fetch_sub(1, Ordering::AcqRel);
        // The map's and this one: whoever else wants the line has to wait for the map's lock.
        self.defence.lines.remove_if(&self.from, |_, line| Arc::strong_count(line) == 2);
    }
}

impl<'a> Place<'a> {
    /// Charges a failure, until it is known to be none.
    ///
    /// # Errors
    /// The wait, when too many have failed meanwhile.
    pub fn charge(self, now: Timestamp) -> Result<Turn<'a>, Duration> {
        let Self { defence, from, user, line, .. } = &self;
        defence.crowded(*from, now)?;
        defence.by_address.charge(from, now)?;
        let charges_user = !defence.is_familiar(user, *from);
        if charges_user && let Err(wait) = defence.by_user.charge(user, now) {
            defence.by_address.refund(from);
            return Err(wait);
        }
        line.charged.fetch_add(1, Ordering::AcqRel);
        Ok(Turn { place: self, charges_user, charged_at: now, is_failure: true })
    }
}

/// The turn of one attempt, charged. Dropped without a word it was a failure: whoever goes away before the answer must not
/// guess for nothing.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    place: Place<'a>,
    charges_user: bool,
    charged_at: Timestamp,
    is_failure: bool,
}

impl Turn<'_> {
    /// Whether its user-id has logged in from its address before.
    pub fn is_familiar(&self) -> bool {
        !self.charges_user
    }

    /// It was right, and nobody's failure. `is_guessable` says that its user-id is one that others can name.
    pub fn right(mut self, is_guessable: bool, now: Timestamp) {
        if is_guessable {
            self.place.defence.is_right(self.place.user, self.place.from, now);
        }
        self.give_back();
    }

    /// It could not be judged.
    pub fn unjudged(mut self) {
        self.give_back();
    }

    /// It was wrong. `is_guess` says that it counts as a guess at the user-id too.
    pub fn wrong(mut self, is_guess: bool) {
        if !is_guess {
            self.refund_user();
        }
    }

    fn give_back(&mut self) {
        self.is_failure = false;
        self.place.defence.by_address.refund(&self.place.from);
        self.refund_user();
    }

    fn refund_user(&mut self) {
        if std::mem::take(&mut self.charges_user) {
            self.place.defence.by_user.refund(&self.place.user);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.place.line.charged.fetch_sub(1, Ordering::AcqRel);
        if self.is_failure {
            let _ = self.place.defence.in_all.charge(&(), self.charged_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::task::yield_now;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    const ADA: User = [1; 32];
    const BOB: User = [2; 32];

    fn defence(per_address: u32, per_user: u32, in_all: u32) -> Defence {
        let rate = |count| Rate::new(count, Duration::from_secs(60));
        Defence::new(&Settings {
            failures_per_address: rate(per_address),
            failures_per_user: rate(per_user),
            failures_in_all: rate(in_all),
            hashing_queue: 24,
            ..Settings::default()
        })
    }

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    async fn turn(defence: &Defence, from: u8, user: User) -> Result<Turn<'_>, Refused> {
        Ok(defence.place(address(from), user, NOW).await?.charge(NOW)?)
    }

    #[tokio::test]
    async fn of_many_at_once_no_more_than_the_limit_are_tried() {
        let defence = defence(2, 10, 100);
        let (one, two) = (turn(&defence, 1, ADA).await.unwrap(), turn(&defence, 1, BOB).await.unwrap());
        assert!(matches!(turn(&defence, 1, ADA).await, Err(Refused::Throttled(_))), "two are under way");
        one.right(true, NOW);
        let three = turn(&defence, 1, ADA).await.unwrap();
        three.wrong(true);
        two.wrong(true);
        assert!(matches!(turn(&defence, 1, ADA).await, Err(Refused::Throttled(_))));
        assert!(turn(&defence, 2, ADA).await.is_ok(), "another address has its own allowance");
    }

    #[tokio::test]
    async fn what_goes_away_before_its_answer_has_failed() {
        let defence = defence(1, 10, 100);
        drop(turn(&defence, 1, ADA).await.unwrap());
        assert!(matches!(turn(&defence, 1, ADA).await, Err(Refused::Throttled(_))));
        // But to stand in line costs nothing.
        drop(defence.place(address(2), ADA, NOW).await.unwrap());
        turn(&defence, 2, ADA).await.unwrap().unjudged();
        assert!(turn(&defence, 2, ADA).await.is_ok());
    }

    #[tokio::test]
    async fn guesses_from_elsewhere_do_not_lock_a_user_out_of_where_it_logged_in() {
        let defence = defence(10, 2, 100);
        turn(&defence, 1, ADA).await.unwrap().right(true, NOW);
        turn(&defence, 2, ADA).await.unwrap().wrong(true);
        turn(&defence, 3, ADA).await.unwrap().wrong(true);
        assert!(matches!(turn(&defence, 4, ADA).await, Err(Refused::Throttled(_))), "elsewhere it is throttled");
        turn(&defence, 1, ADA).await.unwrap().right(true, NOW);
        defence.forget(NOW + FAMILIAR_FOR);
        turn(&defence, 2, ADA).await.unwrap().wrong(true);
        turn(&defence, 3, ADA).await.unwrap().wrong(true);
        assert!(matches!(turn(&defence, 1, ADA).await, Err(Refused::Throttled(_))));
    }

    #[tokio::test]
    async fn what_is_no_guess_at_the_user_does_not_count_as_one() {
        let defence = defence(10, 1, 100);
        turn(&defence, 1, ADA).await.unwrap().wrong(false);
        turn(&defence, 1, ADA).await.unwrap().wrong(true);
        assert!(matches!(turn(&defence, 1, ADA).await, Err(Refused::Throttled(_))));
    }

    #[tokio::test]
    async fn when_there_are_too_many_failures_in_all_clean_addresses_do_not_wait() {
        let defence = defence(10, 10, 3);
        for from in 1..=3 {
            turn(&defence, from, [from; 32]).await.unwrap().wrong(true);
        }
        let Err(Refused::Throttled(wait)) = turn(&defence, 1, BOB).await else { panic!("it has failed") };
        assert!(wait <= Duration::from_secs(6), "{wait:?}: its own failure is forgotten by then");
        assert!(defence.failed(address(2), None, NOW).is_err());
        turn(&defence, 9, BOB).await.unwrap().right(true, NOW);
        let (first, second) = (turn(&defence, 9, BOB).await.unwrap(), turn(&defence, 9, ADA).await);
        let second = second.expect("that another of its address is under way says nothing against it");
        first.wrong(true);
        second.right(true, NOW);
        assert!(matches!(turn(&defence, 9, BOB).await, Err(Refused::Throttled(_))), "now it has failed");
    }

    #[tokio::test]
    async fn the_others_of_an_address_wait_in_its_line_and_nobody_elses_does() {
        let defence = Arc::new(defence(100, 100, 100));
        let mut at_once = Vec::new();
        for _ in 0..3 {
            at_once.push(turn(&defence, 1, ADA).await.unwrap());
        }
        let waits = tokio::spawn({
            let defence = Arc::clone(&defence);
            async move { turn(&defence, 1, ADA).await.map(|turn| turn.right(true, NOW)) }
        });
        yield_now().await;
        assert!(!waits.is_finished());
        assert!(turn(&defence, 2, BOB).await.is_ok());
        at_once.pop().unwrap().right(true, NOW);
        assert_eq!(waits.await.unwrap(), Ok(()));
        drop(at_once);
        assert!(defence.lines.is_empty(), "a line without anyone in it is not kept");
    }

    #[tokio::test]
    async fn a_line_has_an_end() {
        let defence = Arc::new(defence(10_000, 10_000, 10_000));
        let _first: Vec<_> = [turn(&defence, 1, ADA).await, turn(&defence, 1, ADA).await, turn(&defence, 1, ADA).await]
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 3..LONGEST_LINE {
            let defence = Arc::clone(&defence);
            waiting.spawn(async move { turn(&defence, 1, ADA).await.map(drop) });
        }
        for _ in 0..LONGEST_LINE {
            yield_now().await;
        }
        assert_eq!(turn(&defence, 1, ADA).await.map(drop), Err(Refused::Busy));
        waiting.shutdown().await;
        assert_eq!(defence.lines.get(&address(1)).unwrap().length.load(Ordering::Relaxed), 3);
    }

    proptest! {
        /// Whatever the order of turns and their ends: within the time of one allowance no more than it are wrong.
        #[test]
        fn no_more_than_the_limit_are_wrong(ends in prop::collection::vec((0..3u8, any::<prop::sample::Index>()), 1..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let defence = defence(4, 100, 1000);
                let (mut under_way, mut wrong) = (Vec::new(), 0);
                for (end, which) in ends {
                    if under_way.len() < 3 && let Ok(turn) = turn(&defence, 1, ADA).await {
                        under_way.push(turn);
                    }
                    if under_way.is_empty() {
                        continue;
                    }
                    let turn = under_way.swap_remove(which.index(under_way.len()));
                    match end {
                        0 => turn.right(false, NOW),
                        1 => turn.unjudged(),
                        _ => { wrong += 1; turn.wrong(true); }
                    }
                }
                prop_assert!(wrong <= 4, "{wrong} of 4");
                Ok(())
            })?;
        }
    }
}
