//! Looks for what is due, claims it, says it in the log and hands it to whoever delivers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio::task::JoinSet;

use super::due::{LATE, due};
use super::{Notice, NoticeState, NoticeStore, Occasion, Settings};
use crate::clock::{Clock, Timestamp};
use crate::ids::{Groups, scope};
use crate::licences::Licence;
use crate::persist::Result;
use crate::random;

/// How often a gateway looks.
const EVERY: Duration = Duration::from_secs(60);

/// How long a claim holds: longer than any delivery takes.
const CLAIM: Duration = Duration::from_secs(120);

/// The pauses after each attempt that failed. There is one attempt more than pauses.
const PAUSES: [Duration; 7] = {
    const fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(minutes * 60)
    }
    [minutes(1), minutes(5), minutes(15), minutes(60), minutes(3 * 60), minutes(6 * 60), minutes(12 * 60)]
};

/// Deliveries at once: a receiver that is slow must not hold up all the others for long.
const AT_ONCE: usize = 8;

/// Why a notice was not delivered, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered(pub String);

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Delivers notices somewhere.
#[async_trait]
pub trait Deliver: Send + Sync {
    /// Delivers `body`, a JSON document, under a message id that is the same in every attempt.
    ///
    /// # Errors
    /// Why it is not certain to have arrived.
    async fn deliver(&self, message: &str, at: Timestamp, body: Vec<u8>) -> std::result::Result<(), Undelivered>;
}

/// Sees to it that notices are sent; see the module.
pub struct Notifier {
    store: Arc<dyn NoticeStore>,
    deliver: Option<Arc<dyn Deliver>>,
    before_end: Vec<Duration>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").field("before_end", &self.before_end).finish_non_exhaustive()
    }
}

impl Notifier {
    /// A notifier that writes to the log, and delivers where there is somewhere to deliver to.
    pub fn new(
        settings: &Settings,
        store: Arc<dyn NoticeStore>,
        deliver: Option<Arc<dyn Deliver>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { store, deliver, before_end: settings.before_end.clone(), clock }
    }

    /// Sends what is due and not another gateway's, and returns when each was delivered or failed.
    ///
    /// # Errors
    /// The store's. What was claimed until then is settled.
    pub async fn look(self: &Arc<Self>) -> Result<()> {
        let now = self.clock.now();
        let farthest = self.before_end.iter().copied().max().unwrap_or_default();
        let ending = self.store.licences_ending(now - LATE, now + farthest).await?;
        let held: HashMap<Occasion, Notice> =
            self.store.notices(now - LATE).await?.into_iter().map(|notice| (notice.occasion.clone(), notice)).collect();
        let mut running = JoinSet::new();
        let mut ended = Ok(());
        for licence in ending {
            let Some(occasion) = due(&licence, &self.before_end, now) else { continue };
            // A look costs nothing, a claim that is bound to fail a transaction.
            if held.get(&occasion).is_some_and(|notice| !is_free(notice, now)) {
                continue;
            }
            let notice = match self.claim(&occasion, now).await {
                Ok(Some(notice)) => notice,
                Ok(None) => continue,
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            };
            if notice.attempts == 1 {
                say(&licence, &occasion);
            }
            if running.len() >= AT_ONCE {
                running.join_next().await;
            }
            let notifier = Arc::clone(self);
            running.spawn(async move { notifier.send(&licence, notice).await });
        }
        while running.join_next().await.is_some() {}
        ended.and(self.store.forget_notices(now - 2 * LATE).await.map(drop))
    }

    /// Takes a notice upon this gateway, unless another has it.
    async fn claim(&self, occasion: &Occasion, now: Timestamp) -> Result<Option<Notice>> {
        let message = format!("msg_{}", random::base62(24));
        let claim = |held: Option<Notice>| {
            let next_at = now + CLAIM;
            match held {
                None => Some(Notice {
                    occasion: occasion.clone(),
                    message: message.clone(),
                    state: NoticeState::Open,
                    attempts: 1,
                    next_at,
                }),
                Some(held) if is_free(&held, now) => Some(Notice { attempts: held.attempts + 1, next_at, ..held }),
                Some(_) => None,
            }
        };
        self.store.update_notice(occasion, &claim).await
    }

    async fn send(&self, licence: &Licence, notice: Notice) {
        let sent = match &self.deliver {
            None => Ok(()),
            Some(deliver) => {
                deliver
                    .deliver(&notice.message, self.clock.now(), body(licence, &notice.occasion, self.clock.now()))
                    .await
            }
        };
        let now = self.clock.now();
        let pause = usize::try_from(notice.attempts).ok().and_then(|attempts| PAUSES.get(attempts.saturating_sub(1)));
        let (state, next_at) = match (&sent, pause) {
            (Ok(()), _) => (NoticeState::Sent, now),
            (Err(_), Some(pause)) => (NoticeState::Open, now + *pause),
            (Err(_), None) => (NoticeState::GivenUp, now),
        };
        if let Err(error) = &sent {
            let (message, attempt) = (&notice.message, notice.attempts);
            if state == NoticeState::GivenUp {
                tracing::error!(%error, licence.id = %licence.id, message, attempt, "a notice was not delivered and is given up");
            } else {
                tracing::warn!(%error, licence.id = %licence.id, message, attempt, next = %next_at, "a notice was not delivered");
            }
        }
        // Whoever took it over after this claim has lapsed settles it; their attempt is a later one.
        let settle = |held: Option<Notice>| {
            let held = held.filter(|held| held.state == NoticeState::Open && held.attempts == notice.attempts)?;
            Some(Notice { state, next_at, ..held })
        };
        if let Err(error) = self.store.update_notice(&notice.occasion, &settle).await {
            // The claim lapses, and the notice is sent once more, under the same id.
            tracing::warn!(error = &error as &dyn std::error::Error, "how a notice went could not be stored");
        }
    }
}

/// Whether the next attempt is anyone's.
fn is_free(notice: &Notice, now: Timestamp) -> bool {
    notice.state == NoticeState::Open && notice.next_at <= now
}

/// The line in the log. Its target and its `event` stay as they are: people write alerts for them.
fn say(licence: &Licence, occasion: &Occasion) {
    let Licence { id, account, groups, plan, trial, suspended, .. } = licence;
    let (ends_at, groups) = (occasion.ends_at, scope(groups));
    let event = event(occasion);
    tracing::warn!(
        target: "keybearer::notices",
        event,
        licence.id = %id,
        account = %account,
        licence.ends_at = %ends_at,
        ahead_s = occasion.ahead.as_secs(),
        groups,
        plan,
        trial,
        suspended,
        "{}",
        if occasion.ahead.is_zero() { "a licence has ended" } else { "a licence is about to end" }
    );
}

fn event(occasion: &Occasion) -> &'static str {
    if occasion.ahead.is_zero() { "licence.ended" } else { "licence.expiring" }
}

/// The document that is delivered.
fn body(licence: &Licence, occasion: &Occasion, now: Timestamp) -> Vec<u8> {
    #[derive(Serialize)]
    struct Event<'a> {
        r#type: &'static str,
        timestamp: String,
        data: Data<'a>,
    }
    #[derive(Serialize)]
    struct Data<'a> {
        licence: &'a str,
        account: &'a str,
        groups: &'a Groups,
        plan: &'a str,
        trial: bool,
        suspended: bool,
        ends_at: String,
        /// How long before the end this notice was due.
        ahead_seconds: u64,
    }
    let data = Data {
        licence: licence.id.as_str(),
        account: licence.account.as_str(),
        groups: &licence.groups,
        plan: &licence.plan,
        trial: licence.trial,
        suspended: licence.suspended,
        ends_at: occasion.ends_at.to_string(),
        ahead_seconds: occasion.ahead.as_secs(),
    };
    let event = Event { r#type: event(occasion), timestamp: now.to_string(), data };
    serde_json::to_vec(&event).unwrap_or_default()
}

/// Looks for ever.
pub async fn keep_noticed(notifier: Arc<Notifier>) {
    loop {
        // From when it began to look: time that passes meanwhile is not lost.
        let next = notifier.clock.now() + EVERY;
        if let Err(error) = notifier.look().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "notices of licences wait: the store is away");
        }
        notifier.clock.sleep_until(next).await;
    }
}

#[cfg(test)]
mod tests;
