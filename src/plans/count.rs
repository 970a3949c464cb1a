//! The count of one limit. Pure: what is counted, when, and how it is kept are arguments. The clock may be set back: then what
//! was counted goes on to count, and nothing is allowed twice. But a clock that was ahead and is put right must not shut anybody
//! out until it shows that time again, so what was counted then is taken to have been counted now.

use std::time::Duration;

use super::{Calendar, Limit, Period, Span, Standing};
use crate::clock::Timestamp;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// The wait for what is never allowed. There is no right one; a day keeps the knocking down.
const NEVER: Duration = Duration::from_secs(86_400);

/// So far may an instant lie before a period that began already, or beyond what can be owed at a rate: requests that come at
/// once are not counted in the order of their instants, and clocks are put right by a little all the time.
const BEHIND_PERIOD: Duration = Duration::from_secs(3600);
const BEHIND_RATE: u64 = 60 * SECOND;

/// What came in one window or period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// All that is known of, of other gateways too.
    used: u64,
    /// So much of it was counted here and not handed over to be written.
    unwritten: u64,
}

impl Tally {
    fn add(&mut self, n: u64) {
        self.used = self.used.saturating_add(n);
        self.unwritten = self.unwritten.saturating_add(n);
    }
}

/// Where one limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// Of [`Span::Second`]: the theoretical arrival time of the next one, in nanoseconds since the epoch.
    Cells(u64),
    /// Of [`Span::Sliding`]: how long a window is in milliseconds, the number of the present one, what came in it, and in the
    /// one before.
    Windows { window: u64, number: u64, current: Tally, previous: Tally },
    /// Of [`Span::Calendar`]: the present period, and what came in it.
    Total { period: Period, first: Timestamp, next: Timestamp, tally: Tally },
    /// Of [`Span::AtOnce`]: how many are under way.
    Open(u64),
}

/// A window or period: from its first instant until it counts no more.
pub(super) type Reach = (Timestamp, Timestamp);

impl Count {
    /// Nothing was counted yet.
    pub fn new(limit: &Limit) -> Self {
        match limit.span {
            Span::Second { .. } => Self::Cells(0),
            Span::Sliding(window) => {
                let nothing = Tally::default();
                Self::Windows { window: millis(window), number: 0, current: nothing, previous: nothing }
            }
            Span::Calendar(period) => {
                let never = Timestamp::default();
                Self::Total { period, first: never, next: never, tally: Tally::default() }
            }
            Span::AtOnce => Self::Open(0),
        }
    }

    /// Brings it to `now`: what is over counts no more.
    pub fn turn(&mut self, limit: &Limit, calendar: &Calendar, now: Timestamp) {
        match self {
            Self::Windows { window, number, current, previous } => {
                let present = now.millis() / *window;
                if present > *number {
                    *previous = if present == *number + 1 { *current } else { Tally::default() };
                    (*number, *current) = (present, Tally::default());
                } else if present + 1 < *number {
                    (*number, *previous) = (present, Tally::default());
                }
            }
            Self::Total { period, first, next, tally } => {
                if now >= *next {
                    (*first, *next) = calendar.around(*period, now);
                    *tally = Tally::default();
                } else if now + BEHIND_PERIOD < *first {
                    (*first, *next) = calendar.around(*period, now);
                }
            }
            Self::Cells(arrival) => {
                let Span::Second { burst } = limit.span else { return };
                let most = nanos(now).saturating_add(interval(limit.most).saturating_mul(burst.max(1)));
                if *arrival > most.saturating_add(BEHIND_RATE) {
                    *arrival = most;
                }
            }
            Self::Open(_) => {}
        }
    }

    /// Whether one more is allowed, or how long to wait for it. It was brought to `now`.
    pub fn allows(&self, limit: &Limit, now: Timestamp) -> Result<(), Duration> {
        let most = limit.most;
        if most == 0 {
            return Err(NEVER);
        }
        match self {
            Self::Cells(arrival) => {
                let Span::Second { burst } = limit.span else { return Ok(()) };
                let early = arrival.saturating_sub(interval(most).saturating_mul(burst.max(1) - 1));
                let now = nanos(now);
                if early <= now { Ok(()) } else { Err(Duration::from_nanos(early - now)) }
            }
            Self::Windows { window, number, current, previous } => {
                let window = *window;
                let left = left_of_window(window, *number, now);
                if current.used < most {
                    // So much of the window before may still count.
                    let tolerable = tolerable(most - current.used - 1, previous.used, window);
                    // A clock that was set back is taken to stand at the beginning of the window.
                    if left.min(window) <= tolerable {
                        return Ok(());
                    }
                    return Err(Duration::from_millis(left - tolerable));
                }
                // In the next window the present one is the one before; if even that is too much, when it is over too.
                Err(Duration::from_millis(left + window - tolerable(most - 1, current.used, window)))
            }
            Self::Total { next, tally, .. } => {
                if tally.used < most {
                    Ok(())
                } else {
                    Err(next.since(now))
                }
            }
            // Nobody knows when one of those under way ends.
            Self::Open(open) => {
                if *open < most {
                    Ok(())
                } else {
                    Err(Duration::ZERO)
                }
            }
        }
    }

    /// Counts `n`, allowed or not. Whether there is something to be written.
    pub fn add(&mut self, limit: &Limit, n: u64, now: Timestamp) -> bool {
        match self {
            Self::Cells(arrival) => {
                let step = interval(limit.most).saturating_mul(n);
                *arrival = nanos(now).max(*arrival).saturating_add(step);
                return false;
            }
            Self::Windows { current, .. } => current.add(n),
            Self::Total { tally, .. } => tally.add(n),
            Self::Open(open) => {
                *open += n;
                return false;
            }
        }
        true
    }

    /// One of those under way has ended.
    pub fn end(&mut self) {
        if let Self::Open(open) = self {
            *open = open.saturating_sub(1);
        }
    }

    /// Where it stands at `now`. It was brought there.
    pub fn standing(&self, limit: &Limit, now: Timestamp) -> Standing {
        match self {
            Self::Cells(arrival) => {
                let Span::Second { burst } = limit.span else { return Standing::open(limit.most) };
                let (burst, interval) = (burst.max(1), interval(limit.most));
                let owed = arrival.saturating_sub(nanos(now));
                let left = burst.saturating_sub(owed.div_ceil(interval));
                let until = if owed == 0 { 0 } else { (owed - 1) % interval + 1 };
                let window = Duration::from_nanos(interval.saturating_mul(burst));
                Standing { quota: burst, left, reset: Duration::from_nanos(until), window: Some(window) }
            }
            Self::Windows { window, number, current, previous } => {
                let window = *window;
                let left = left_of_window(window, *number, now);
                let before = (u128::from(previous.used) * u128::from(left.min(window))).div_ceil(u128::from(window));
                let used = u64::try_from(before).unwrap_or(u64::MAX).saturating_add(current.used);
                Standing {
                    quota: limit.most,
                    left: limit.most.saturating_sub(used),
                    reset: Duration::from_millis(left),
                    window: Some(Duration::from_millis(window)),
                }
            }
            Self::Total { first, next, tally, .. } => Standing {
                quota: limit.most,
                left: limit.most.saturating_sub(tally.used),
                reset: next.since(now),
                window: Some(next.since(*first)),
            },
            Self::Open(open) => Standing { left: limit.most.saturating_sub(*open), ..Standing::open(limit.most) },
        }
    }

    /// Takes out what is to be written, with the window or period that it belongs to.
    pub fn take_unwritten(&mut self) -> impl Iterator<Item = (Reach, u64)> {
        let mut out = [None, None];
        match self {
            Self::Windows { window, number, current, previous } => {
                for (out, (tally, number)) in
                    out.iter_mut().zip([(current, *number), (previous, number.saturating_sub(1))])
                {
                    let from = Timestamp::from_millis(number * *window);
                    let until = Timestamp::from_millis((number + 2) * *window);
                    *out = Some(((from, until), std::mem::take(&mut tally.unwritten)));
                }
            }
            Self::Total { first, next, tally, .. } => {
                out[0] = Some(((*first, *next), std::mem::take(&mut tally.unwritten)));
            }
            Self::Cells(_) | Self::Open(_) => {}
        }
        out.into_iter().flatten().filter(|(_, n)| *n > 0)
    }

    /// Learns what all gateways together have counted in the window or period that begins with `from`; what was not handed
    /// over yet comes on top.
    pub fn learn(&mut self, from: Timestamp, total: u64) {
        let tally = match self {
            Self::Windows { window, number, current, previous } => match number.checked_sub(from.millis() / *window) {
                Some(0) => current,
                Some(1) => previous,
                _ => return,
            },
            Self::Total { first, tally, .. } if *first == from => tally,
            _ => return,
        };
        tally.used = total.saturating_add(tally.unwritten);
    }

    /// Whether nothing of it counts at `now` any more.
    pub fn is_over(&self, now: Timestamp) -> bool {
        match self {
            Self::Cells(arrival) => *arrival <= nanos(now),
            Self::Windows { window, number, .. } => now.millis() / window > number + 1,
            Self::Total { next, .. } => now >= *next,
            Self::Open(open) => *open == 0,
        }
    }
}

/// How long until the window of that number is over, in milliseconds: more than a window, when the clock was set back before it.
fn left_of_window(window: u64, number: u64, now: Timestamp) -> u64 {
    ((number + 1) * window).saturating_sub(now.millis())
}

/// How much of a window of `previous` may still lie within, so that no more than `room` of it count.
fn tolerable(room: u64, previous: u64, window: u64) -> u64 {
    if previous == 0 {
        return window;
    }
    let most = u128::from(room) * u128::from(window) / u128::from(previous);
    u64::try_from(most).unwrap_or(u64::MAX).min(window)
}

/// From one to the next, in nanoseconds; rounded up, so that there are never more than the limit says.
fn interval(most: u64) -> u64 {
    SECOND.div_ceil(most.max(1))
}

fn millis(window: Duration) -> u64 {
    u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn nanos(at: Timestamp) -> u64 {
    at.millis().saturating_mul(1_000_000)
}
