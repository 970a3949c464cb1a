//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers): what bounds a request, and what is left of it.
//! Structured fields (RFC 9651), lists of one item for each limit; the older `X-RateLimit-…` fields by option.

use std::fmt::Write;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::plans::{Limit, Measure, Shown, Span};

/// What bounds it.
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The quota of the limit that is nearest to its end, what is left of it, and the seconds until there is more.
pub const LEGACY: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
];

/// The most limits that are told: proxies that ask have small buffers for the header sections of answers.
const MOST_TOLD: usize = 8;

/// The most that a structured field's integer can be (RFC 9651 §3.3.1).
const MOST: u64 = 999_999_999_999_999;

/// The fields of one answer.
#[derive(Debug)]
pub struct Fields {
    policy: HeaderValue,
    limit: HeaderValue,
    legacy: Option<[u64; 3]>,
}

impl Fields {
    /// Of limits and where they stand; `None` of no limit.
    pub(super) fn of(mut shown: Vec<Shown>, has_legacy: bool) -> Option<Self> {
        let share = |shown: &Shown| {
            let Shown { standing, .. } = shown;
            u128::from(standing.left) * 1_000_000 / u128::from(standing.quota.max(1))
        };
        // Those fields know requests in a time, and nothing else.
        let is_rate = |shown: &&Shown| limit_of(shown).measure == Measure::Requests && shown.standing.window.is_some();
        let tightest = shown.iter().filter(is_rate).min_by_key(|shown| share(shown));
        let legacy = tightest.filter(|_| has_legacy).map(|Shown { standing, .. }| {
            [standing.quota, standing.left, seconds(standing.reset)].map(|number| number.min(MOST))
        });
        // Of two that bear one name the tighter one is told.
        let mut told: Vec<Shown> = Vec::with_capacity(shown.len());
        for new in shown.drain(..) {
            match told.iter_mut().find(|known| known.plan.id == new.plan.id && word(known) == word(&new)) {
                Some(known) if share(&new) < share(known) => *known = new,
                Some(_) => {}
                None => told.push(new),
            }
        }
        if told.len() > MOST_TOLD {
            told.sort_by_key(share);
            told.truncate(MOST_TOLD);
        }
        let (mut policy, mut limit) = (String::with_capacity(64 * told.len()), String::with_capacity(48 * told.len()));
        for (at, one) in told.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write_policy(&mut policy, comma, one);
            write_limit(&mut limit, comma, one);
        }
        let value = |text: String| HeaderValue::try_from(text).ok();
        if told.is_empty() { None } else { Some(Self { policy: value(policy)?, limit: value(limit)?, legacy }) }
    }

    /// Puts them on an answer. What an upstream says under these names stays beside them: they are lists.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        headers.append(RATE_LIMIT_POLICY, self.policy.clone());
        headers.append(RATE_LIMIT, self.limit.clone());
        if let Some(numbers) = self.legacy {
            for (name, number) in LEGACY.into_iter().zip(numbers) {
                headers.insert(name, HeaderValue::from(number));
            }
        }
    }
}

fn limit_of(shown: &Shown) -> &Limit {
    &shown.plan.limits[shown.limit]
}

fn word(shown: &Shown) -> &'static str {
    limit_of(shown).word()
}

/// The name of a limit in fields and problems. Ids of plans have no character that a string would have to escape.
pub(super) fn policy_name(plan: &str, limit: &Limit) -> String {
    format!("{plan}.{}", limit.word())
}

fn write_policy(out: &mut String, comma: &str, shown: &Shown) {
    let (limit, standing) = (limit_of(shown), &shown.standing);
    let _ = write!(out, "{comma}\"{}.{}\";q={}", shown.plan.id, limit.word(), standing.quota.min(MOST));
    if let Some(window) = standing.window {
        let _ = write!(out, ";w={}", seconds(window).max(1));
    }
    match (limit.span, limit.measure) {
        (Span::AtOnce, _) => out.push_str(";qu=\"concurrent-requests\""),
        (_, Measure::Bytes) => out.push_str(";qu=\"content-bytes\""),
        (_, Measure::Requests) => {}
    }
}

fn write_limit(out: &mut String, comma: &str, shown: &Shown) {
    let standing = &shown.standing;
    let _ = write!(out, "{comma}\"{}.{}\";r={}", shown.plan.id, word(shown), standing.left.min(MOST));
    if standing.window.is_some() {
        let _ = write!(out, ";t={}", seconds(standing.reset));
    }
}

/// Rounded up: never too early.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plans::{Plan, Standing};

    fn shown(plan: &str, name: &str, quota: u64, left: u64) -> Shown {
        let limits = vec![Limit::named(name, quota, None).unwrap()];
        let second = Duration::from_millis(1001);
        let standing = Standing { quota, left, reset: second, window: Some(second) };
        Shown { plan: Arc::new(Plan { id: plan.parse().unwrap(), limits }), limit: 0, standing }
    }

    fn told(all: Vec<Shown>) -> (String, String, usize) {
        let mut headers = HeaderMap::new();
        Fields::of(all, true).unwrap().add_to(&mut headers);
        let text = |name| headers.get(name).unwrap().to_str().unwrap().to_owned();
        let legacy = LEGACY.iter().filter(|name| headers.contains_key(*name)).count();
        (text(RATE_LIMIT_POLICY), text(RATE_LIMIT), legacy)
    }

    #[test]
    fn of_two_that_bear_one_name_the_tighter_is_told_and_times_are_rounded_up() {
        let (policy, limit, legacy) =
            told(vec![shown("a", "requests_per_day", 10, 5), shown("a", "requests_per_day", 10, 4)]);
        assert_eq!((policy.as_str(), limit.as_str(), legacy), ("\"a.day\";q=10;w=2", "\"a.day\";r=4;t=2", 3));
        // Bytes are nothing that the older fields know, and no number is larger than a field can say.
        let (policy, _, legacy) = told(vec![shown("a", "bytes_per_day", u64::MAX, 1)]);
        assert_eq!((policy.as_str(), legacy), ("\"a.day-bytes\";q=999999999999999;w=2;qu=\"content-bytes\"", 0));
        assert!(Fields::of(vec![], true).is_none());
    }

    /// Proxies that ask have small buffers, and the limit that refuses must be among those that are told.
    #[test]
    fn of_many_the_tightest_are_told() {
        let all =
            (0..40).map(|left| shown(&format!("plan-{left:050}"), "requests_per_minute", 100, 39 - left)).collect();
        let (policy, limit, _) = told(all);
        assert_eq!(policy.matches(";q=").count(), MOST_TOLD);
        assert!(limit.contains(";r=0;") && limit.contains(";r=7;") && !limit.contains(";r=8;"), "{limit}");
        assert!(policy.len() + limit.len() < 1500, "{}", policy.len() + limit.len());
    }
}
