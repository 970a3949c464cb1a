//! `GET /me/usage?since&until&by`: the usage of whose token it is.
//!
//! A key's token sees what that key has used, a password's the whole account. Hours of this process that are not written yet
//! are in it; those of other gateways on the same store come with their next flush.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::access::Permit;
use crate::clock::Timestamp;
use crate::exchange::{Exchange, Refusal, private_json};
use crate::keys::KeyPrefix;
use crate::problem::Kind;
use crate::tokens::Client;
use crate::usage::{By, Counts, Error, Filter, Label, Operations, Question, Range, Report, bound};

/// Days that an answer by hour may be about, and any other: a question must not keep the store busy. A day that has begun
/// comes on top.
const MOST_DAYS_BY_HOUR: u32 = 31;
const MOST_DAYS: u32 = 400;

/// Questions that are answered at once. The others wait for their turn, and credentials are looked up meanwhile.
const AT_ONCE: usize = 2;

/// How soon it may be worth to come again when the store is away.
const AWAY: Duration = Duration::from_secs(5);

/// Answers about usage.
#[derive(Debug)]
pub struct MyUsage {
    operations: Operations,
    prefix: KeyPrefix,
    at_once: Semaphore,
}

impl MyUsage {
    /// By these operations; keys are called by `prefix`.
    pub fn new(operations: Operations, prefix: KeyPrefix) -> Self {
        Self { operations, prefix, at_once: Semaphore::new(AT_ONCE) }
    }

    /// Answers a request. Its permit says whose usage it is.
    pub async fn respond(self: &Arc<Self>, permit: &Permit, exchange: &Exchange) -> Response<Body> {
        let query = exchange.target.as_ref().and_then(|target| target.query());
        match self.report(permit, query).await {
            Ok(report) => private_json(self.view(permit, &report).to_string()),
            Err(refusal) => refusal.into_response(exchange),
        }
    }

    async fn report(&self, permit: &Permit, query: Option<&str>) -> Result<Report, Refusal> {
        let Asked { since, until, by } = Asked::read(query.unwrap_or_default())?;
        let range = self.operations.range(since, until).map_err(refused)?;
        let most = if by == By::Hour { MOST_DAYS_BY_HOUR } else { MOST_DAYS };
        if range.hours() > (most + 1) * 24 {
            let detail = format!("By {}, the time from since to until may have {most} days.", by.word());
            return Err(malformed(detail));
        }
        let principal = permit.principal();
        let client = match principal.client() {
            Client::Key(id) => Some(Client::Key(*id)),
            Client::Password => None,
        };
        let filter = Filter { account: Some(principal.account().clone()), client, ..Filter::all(range) };
        // It is closed by nobody.
        let _turn = self.at_once.acquire().await;
        self.operations.report(Question { filter, by }).await.map_err(refused)
    }

    fn view(&self, permit: &Permit, report: &Report) -> Value {
        let principal = permit.principal();
        let key = match principal.client() {
            Client::Key(id) => Some(self.prefix.name_of(id)),
            Client::Password => None,
        };
        let Range { since, until } = report.range;
        let entries = report.entries.iter().map(|entry| {
            let mut view = counts(&entry.counts);
            view[report.by.word()] = self.label(&entry.label);
            view
        });
        json!({
            "account": principal.account(),
            "key": key,
            "since": since.start().to_string(),
            "until": until.start().to_string(),
            "by": report.by.word(),
            "usage": entries.collect::<Vec<_>>(),
            "total": counts(&report.total),
        })
    }

    /// The label's own words; `null` for none.
    fn label(&self, label: &Label) -> Value {
        match label {
            Label::Account(account) => json!(account),
            Label::Key(holder) => match holder.as_ref().map(|holder| &holder.client) {
                Some(Client::Key(id)) => self.prefix.name_of(id).into(),
                _ => Value::Null,
            },
            Label::Group(group) => json!(group),
            Label::Route(route) => json!(route),
            Label::Status(class) => class.to_string().into(),
            Label::Hour(hour) => hour.start().to_string().into(),
            Label::Day(day) => day.start().to_string()[..10].into(),
        }
    }
}

fn counts(counts: &Counts) -> Value {
    let at = |share| counts.latency.percentile(share).and_then(bound);
    json!({
        "requests": counts.requests,
        "bytes_in": counts.bytes_in,
        "bytes_out": counts.bytes_out,
        // The bound of the bucket it falls into; null without requests, and beyond the last bound.
        "latency_ms": { "p50": at(0.5), "p95": at(0.95), "p99": at(0.99) },
    })
}

/// What a query asks for.
struct Asked {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    by: By,
}

impl Asked {
    /// # Errors
    /// 400 for what is not understood: a filter that was left out because of a typing error would say too much.
    fn read(query: &str) -> Result<Self, Refusal> {
        let (mut since, mut until, mut by) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).ok_or_else(|| malformed(format!("{} cannot be read.", shown(name))))?;
            let is_new = match name {
                "since" => since.replace(instant("since", &value)?).is_none(),
                "until" => until.replace(instant("until", &value)?).is_none(),
                "by" => {
                    let word = value.parse().map_err(|rule: &str| malformed(format!("by: {rule}.")))?;
                    by.replace(word).is_none()
                }
                _ => {
                    return Err(malformed(format!("The parameters are since, until and by, and not {}.", shown(name))));
                }
            };
            if !is_new {
                return Err(malformed(format!("{name} is there twice.")));
            }
        }
        Ok(Self { since, until, by: by.unwrap_or(By::Day) })
    }
}

fn instant(name: &str, value: &str) -> Result<Timestamp, Refusal> {
    Timestamp::parse(value).ok_or_else(|| {
        malformed(format!("{name} must be a date (2027-01-31, midnight UTC) or an instant (2027-01-31T12:00:00Z)."))
    })
}

/// A name as it can be told: what a client sent is not repeated at length.
fn shown(name: &str) -> String {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
    format!("\"{plain}\"")
}

/// A value with its escapes undone (RFC 3986 §2.1). A `+` is one: instants have it, and a space would be none of them.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('%') {
        return Some(Cow::Borrowed(value));
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        };
        out.push(byte);
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn malformed(detail: String) -> Refusal {
    Refusal::new(Kind::MalformedRequest, "usage_question", detail)
}

fn refused(error: Error) -> Refusal {
    match error {
        Error::Store(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "usage could not be read");
            let detail = "Usage cannot be read now. Try again in a moment.";
            Refusal::new(Kind::Unavailable, "store", detail).retry_after(AWAY)
        }
        error => malformed(format!("{error}.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_or_refused_and_never_guessed() {
        let asked = Asked::read("since=2026-11-01&until=2026-11-02T01%3A00%3A00%2b01%3A00&by=hour").ok().unwrap();
        assert_eq!(asked.since, Timestamp::parse("2026-11-01"));
        assert_eq!(asked.until, Timestamp::parse("2026-11-02"));
        assert_eq!(asked.by, By::Hour);
        let plain = Asked::read("").ok().unwrap();
        assert_eq!((plain.since, plain.until, plain.by), (None, None, By::Day));
        for bad in
            ["by=week", "by", "since=yesterday", "until=%zz", "until=%f", "account=other", "by=day&by=hour", "=x"]
        {
            let refusal = Asked::read(bad).err().unwrap_or_else(|| panic!("{bad}"));
            assert_eq!(refusal.kind(), Kind::MalformedRequest, "{bad}");
        }
    }
}
