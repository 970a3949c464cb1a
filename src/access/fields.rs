//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers): what bounds a request, and what is left of it.
//! Structured fields (RFC 9651), lists of one item for each limit; the older `X-RateLimit-…` fields by option.

use std::fmt::Write;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::limits;
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

/// The rate of the Demo group in fields and problems: as of a plan `demo`, and a limit that no plan can have.
pub(super) const DEMO_POLICY: &str = "demo.address";

/// One limit as fields say it: what it is called, and where it stands.
#[derive(Debug, Clone, Copy)]
struct Item<'a> {
    plan: &'a str,
    word: &'a str,
    unit: Option<&'static str>,
    quota: u64,
    left: u64,
    reset: Duration,
    window: Option<Duration>,
}

/// The fields of one answer.
#[derive(Debug)]
pub struct Fields {
    policy: HeaderValue,
    limit: HeaderValue,
    legacy: Option<[u64; 3]>,
}

impl Fields {
    /// Of the Demo group's rate, of plans' limits, and where they stand; `None` of no limit.
    pub(super) fn of(demo: Option<&limits::Standing>, shown: &[Shown], has_legacy: bool) -> Option<Self> {
        let items = || demo.map(Item::of_demo).into_iter().chain(shown.iter().map(Item::of_plan));
        // Those fields know requests in a time, and nothing else.
        let tightest = items().filter(Item::is_rate).min_by_key(Item::share);
        let legacy = tightest
            .filter(|_| has_legacy)
            .map(|item| [item.quota, item.left, seconds(item.reset)].map(|number| number.min(MOST)));
        // Of two that bear one name the tighter one is told.
        let mut told: Vec<Item<'_>> = Vec::with_capacity(shown.len() + usize::from(demo.is_some()));
        for new in items() {
            match told.iter_mut().find(|known| (known.plan, known.word) == (new.plan, new.word)) {
                Some(known) if new.share() < known.share() => *known = new,
                Some(_) => {}
                None => told.push(new),
            }
        }
        if told.len() > MOST_TOLD {
            told.sort_by_key(Item::share);
            told.truncate(MOST_TOLD);
        }
        let (mut policy, mut limit) = (String::with_capacity(64 * told.len()), String::with_capacity(48 * told.len()));
        for (at, one) in told.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            one.write_policy(&mut policy, comma);
            one.write_limit(&mut limit, comma);
        }
        let value = |text: String| HeaderValue::try_from(text).ok();
        if told.is_empty() { None } else { Some(Self { policy: value(policy)?, limit: value(limit)?, legacy }) }
    }

    /// Puts them on an answer. What an upstream says under these names stays beside them: they are lists.
    pub fn add_to(self, headers: &mut HeaderMap) {
        headers.append(RATE_LIMIT_POLICY, self.policy);
        headers.append(RATE_LIMIT, self.limit);
        if let Some(numbers) = self.legacy {
            for (name, number) in LEGACY.into_iter().zip(numbers) {
                headers.insert(name, HeaderValue::from(number));
            }
        }
    }
}

/// The name of a limit in fields and problems. Ids of plans have no character that a string would have to escape.
pub(super) fn policy_name(plan: &str, limit: &Limit) -> String {
    format!("{plan}.{}", limit.word())
}

impl<'a> Item<'a> {
    fn of_demo(standing: &limits::Standing) -> Self {
        let limits::Standing { rate, left, reset } = *standing;
        let (plan, word) = DEMO_POLICY.split_once('.').unwrap_or_default();
        Self { plan, word, unit: None, quota: rate.count.into(), left: left.into(), reset, window: Some(rate.per) }
    }

    fn of_plan(shown: &'a Shown) -> Self {
        let Shown { plan, limit, standing } = shown;
        let limit = &plan.limits[*limit];
        let unit = match (limit.span, limit.measure) {
            (Span::AtOnce, _) => Some("concurrent-requests"),
            (_, Measure::Bytes) => Some("content-bytes"),
            (_, Measure::Requests) => None,
        };
        let crate::plans::Standing { quota, left, reset, window } = *standing;
        Self { plan: plan.id.as_str(), word: limit.word(), unit, quota, left, reset, window }
    }

    fn is_rate(&self) -> bool {
        self.unit.is_none() && self.window.is_some()
    }

    /// How much of it is left, in millionths.
    fn share(&self) -> u128 {
        u128::from(self.left) * 1_000_000 / u128::from(self.quota.max(1))
    }

    fn write_policy(&self, out: &mut String, comma: &str) {
        let _ = write!(out, "{comma}\"{}.{}\";q={}", self.plan, self.word, self.quota.min(MOST));
        if let Some(window) = self.window {
            let _ = write!(out, ";w={}", seconds(window).max(1));
        }
        if let Some(unit) = self.unit {
            let _ = write!(out, ";qu=\"{unit}\"");
        }
    }

    fn write_limit(&self, out: &mut String, comma: &str) {
        let _ = write!(out, "{comma}\"{}.{}\";r={}", self.plan, self.word, self.left.min(MOST));
        if self.window.is_some() {
            let _ = write!(out, ";t={}", seconds(self.reset));
        }
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

    fn told(all: &[Shown]) -> (String, String, usize) {
        let mut headers = HeaderMap::new();
        Fields::of(None, all, true).unwrap().add_to(&mut headers);
        let text = |name| headers.get(name).unwrap().to_str().unwrap().to_owned();
        let legacy = LEGACY.iter().filter(|name| headers.contains_key(*name)).count();
        (text(RATE_LIMIT_POLICY), text(RATE_LIMIT), legacy)
    }

    #[test]
    fn of_two_that_bear_one_name_the_tighter_is_told_and_times_are_rounded_up() {
        let (policy, limit, legacy) =
            told(&[shown("a", "requests_per_day", 10, 5), shown("a", "requests_per_day", 10, 4)]);
        assert_eq!((policy.as_str(), limit.as_str(), legacy), ("\"a.day\";q=10;w=2", "\"a.day\";r=4;t=2", 3));
        // Bytes are nothing that the older fields know, and no number is larger than a field can say.
        let (policy, _, legacy) = told(&[shown("a", "bytes_per_day", u64::MAX, 1)]);
        assert_eq!((policy.as_str(), legacy), ("\"a.day-bytes\";q=999999999999999;w=2;qu=\"content-bytes\"", 0));
        assert!(Fields::of(None, &[], true).is_none());
    }

    /// Proxies that ask have small buffers, and the limit that refuses must be among those that are told.
    #[test]
    fn of_many_the_tightest_are_told() {
        let all: Vec<_> =
            (0..40).map(|left| shown(&format!("plan-{left:050}"), "requests_per_minute", 100, 39 - left)).collect();
        let (policy, limit, _) = told(&all);
        assert_eq!(policy.matches(";q=").count(), MOST_TOLD);
        assert!(limit.contains(";r=0;") && limit.contains(";r=7;") && !limit.contains(";r=8;"), "{limit}");
        assert!(policy.len() + limit.len() < 1500, "{}", policy.len() + limit.len());
    }

    #[test]
    fn the_rate_of_the_demo_group_is_told_beside_plans_and_under_a_name_that_is_no_plans() {
        let demo = limits::Standing { rate: "300/m".parse().unwrap(), left: 3, reset: Duration::from_millis(200) };
        let mut headers = HeaderMap::new();
        let plan = shown("demo", "requests_per_day", 10, 5);
        Fields::of(Some(&demo), std::slice::from_ref(&plan), true).unwrap().add_to(&mut headers);
        let said = |name| headers.get(name).unwrap().to_str().unwrap();
        assert_eq!(said(RATE_LIMIT_POLICY), "\"demo.address\";q=300;w=60, \"demo.day\";q=10;w=2");
        assert_eq!(said(RATE_LIMIT), "\"demo.address\";r=3;t=1, \"demo.day\";r=5;t=2");
        assert_eq!(LEGACY.map(said), ["300", "3", "1"], "there is the least left of it");
        let more = limits::Standing { left: 299, ..demo };
        Fields::of(Some(&more), &[plan], true).unwrap().add_to(&mut headers);
        assert_eq!(LEGACY.map(|name| headers[name].to_str().unwrap().to_owned()), ["10", "5", "2"], "and of the plan");
        let words = Limit::NAMES.map(|name| Limit::named(name, 1, None).unwrap().word());
        let is_a_plans = |word: &&str| DEMO_POLICY.ends_with(&format!(".{word}"));
        assert!(!words.iter().any(is_a_plans), "whatever the id of a plan, its limits end in their words");
    }
}
