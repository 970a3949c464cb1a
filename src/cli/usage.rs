//! `keybearer usage`

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::chart::{self, Bar};
use super::failure::Failure;
use super::when::Past;
use super::{KeyText, Session};
use crate::accounts;
use crate::groups::demo;
use crate::ids::{AccountName, GroupId, KeyId, RouteId};
use crate::keys::{self, KeyPrefix};
use crate::store::SharedStore;
use crate::tokens::Client;
use crate::usage::{
    BUCKETS, By, Counts, Entry, Error, Filter, Hour, Label, Operations, Question, Range, Report, bound,
};

/// Bars that a chart may have: more than a few screens of them say nothing.
const MOST_BARS: u32 = 400;

/// Up to here a chart is by hour, if nothing is said.
const HOURS_OF_CHART: u32 = 48;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  keybearer usage --since 2027-01-01 --until 2027-02-01 --by account --output csv\n  \
    keybearer usage --since 24h --by status --account acme\n  keybearer usage --since 7d --by day --chart\n\n\
    Usage is kept by the hour, UTC: hours that begin before --since or end after --until count as a whole. What a running\n\
    gateway has counted and not written yet (usage.flush_every) is not in it."
)]
pub(super) struct Args {
    /// From when on: a date, an instant, or a span back from now such as 24h [default: 30d].
    #[arg(long, value_name = "WHEN")]
    since: Option<Past>,
    /// Until when, the same way [default: now].
    #[arg(long, value_name = "WHEN")]
    until: Option<Past>,
    /// What to add up by: account, key, group, route, status, hour or day [default: account].
    #[arg(long, value_name = "BY")]
    by: Option<By>,
    /// Only the usage of this account.
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<AccountName>,
    /// Only the usage of this key.
    #[arg(long, value_name = "KEY")]
    key: Option<KeyText>,
    /// Only what this group let through.
    #[arg(long, value_name = "GROUP")]
    group: Option<GroupId>,
    /// Only on this route.
    #[arg(long, value_name = "ROUTE")]
    route: Option<RouteId>,
    /// How it is printed.
    #[arg(long, value_name = "FORM", value_enum)]
    output: Option<Form>,
    /// Draw the requests of each hour or day.
    #[arg(long)]
    chart: bool,
}

/// How usage is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Table,
    /// One document.
    Json,
    /// Comma-separated values (RFC 4180, but with plain line ends), under a header line.
    Csv,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            other => Self::misuse(other.to_string()),
        }
    }
}

pub(super) async fn run(session: &mut Session<'_, '_>, args: Args) -> Result<(), Failure> {
    let form = form(session, &args)?;
    let now = session.now();
    let store = session.store().await?;
    let client = match &args.key {
        Some(key) => Some(Client::Key(known_key(session, &store, key).await?)),
        None => None,
    };
    if let Some(account) = &args.account {
        known_account(&store, account).await?;
    }
    let operations = Operations::new(store, session.clock.clone());
    let resolve = |when: Option<Past>| when.map(|when| when.resolve(now));
    let range = operations.range(resolve(args.since), resolve(args.until))?;
    let by = args.by.unwrap_or(match (args.chart, range.hours()) {
        (true, ..=HOURS_OF_CHART) => By::Hour,
        (true, _) => By::Day,
        (false, _) => By::Account,
    });
    let bars = if args.chart { Some(bars(by, range)?) } else { None };
    let filter = Filter { account: args.account, client, group: args.group, route: args.route, ..Filter::all(range) };
    let report = operations.report(Question { filter, by }).await?;
    if !session.config.usage.enabled {
        session.out.warn("usage is not counted now: usage.enabled = false");
    }
    match (form, bars) {
        (Form::Json, _) => session.out.document(&document(&report, &session.config.key_prefix)),
        (Form::Csv, _) => csv(session, &report),
        (Form::Table, _) if report.entries.is_empty() => {
            let Range { since, until } = range;
            session.out.note(&format!("no usage from {} to {}", since.start(), until.start()));
            Ok(())
        }
        (Form::Table, Some(bars)) => draw(session, &report, &bars),
        (Form::Table, None) => table(session, &report),
    }
}

fn form(session: &Session<'_, '_>, args: &Args) -> Result<Form, Failure> {
    let form = match (args.output, session.out.json()) {
        (None, true) => Form::Json,
        (None, false) => Form::Table,
        (Some(Form::Table | Form::Csv), true) => {
            return Err(Failure::misuse("--json and another --output exclude each other"));
        }
        (Some(form), _) => form,
    };
    match args.chart && form != Form::Table {
        true => Err(Failure::misuse("--chart is for people, and not for --output json or csv")),
        false => Ok(form),
    }
}

/// A mistyped name has no usage, and would look like a customer without any.
async fn known_account(store: &SharedStore, name: &AccountName) -> Result<(), Failure> {
    let is_known = name.as_str() == demo::DEMO || store.account(name).await?.is_some();
    if is_known { Ok(()) } else { Err(accounts::Error::Unknown(name.clone()).into()) }
}

async fn known_key(session: &Session<'_, '_>, store: &SharedStore, key: &KeyText) -> Result<KeyId, Failure> {
    let id = session.key_id(key)?;
    let is_known = id == demo::key_id() || store.key(&id).await?.is_some();
    if is_known { Ok(id) } else { Err(keys::Error::Unknown(id).into()) }
}

/// What an entry is of, for people, in one or two columns.
fn words(label: &Label, prefix: &KeyPrefix) -> Vec<String> {
    let or = |text: Option<&str>, none: &str| text.unwrap_or(none).to_owned();
    match label {
        Label::Account(account) => vec![or(account.as_ref().map(AccountName::as_str), "(other)")],
        Label::Key(None) => vec!["(other)".into(), "(other)".into()],
        Label::Key(Some(holder)) => {
            let key = match &holder.client {
                Client::Key(id) => prefix.name_of(id),
                Client::Password => "(password)".into(),
            };
            vec![key, holder.account.to_string()]
        }
        Label::Group(group) => vec![or(group.as_ref().map(GroupId::as_str), "(none)")],
        Label::Route(route) => vec![or(route.as_ref().map(RouteId::as_str), "(none)")],
        Label::Status(class) => vec![class.to_string()],
        Label::Hour(hour) => vec![hour.start().to_string()],
        Label::Day(day) => vec![day.start().to_string()[..10].to_owned()],
    }
}

/// The same for programs, with names: what is none is null.
fn fields(label: &Label, prefix: &KeyPrefix) -> Vec<(&'static str, Option<String>)> {
    match label {
        Label::Account(account) => vec![("account", account.as_ref().map(ToString::to_string))],
        Label::Key(holder) => {
            let key = holder.as_ref().and_then(|holder| match &holder.client {
                Client::Key(id) => Some(prefix.name_of(id)),
                Client::Password => None,
            });
            vec![("key", key), ("account", holder.as_ref().map(|holder| holder.account.to_string()))]
        }
        Label::Group(group) => vec![("group", group.as_ref().map(ToString::to_string))],
        Label::Route(route) => vec![("route", route.as_ref().map(ToString::to_string))],
        Label::Status(_) => vec![("status", Some(words(label, prefix).remove(0)))],
        Label::Hour(_) => vec![("hour", Some(words(label, prefix).remove(0)))],
        Label::Day(_) => vec![("day", Some(words(label, prefix).remove(0)))],
    }
}

const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

fn table(session: &mut Session<'_, '_>, report: &Report) -> Result<(), Failure> {
    let prefix = session.config.key_prefix.clone();
    let at_most = if chart::is_utf8(&session.source.environment) { "≤" } else { "<=" };
    let mut head: Vec<String> = match report.by {
        By::Key => vec!["KEY".into(), "ACCOUNT".into()],
        by => vec![by.word().to_uppercase()],
    };
    let texts = head.len();
    head.extend(["REQUESTS", "BYTES IN", "BYTES OUT", "P50", "P95", "P99"].map(str::to_owned));
    let line = |mut line: Vec<String>, counts: &Counts| {
        line.extend([counts.requests, counts.bytes_in, counts.bytes_out].map(|count| count.to_string()));
        line.extend(SHARES.map(|(_, share)| match counts.latency.percentile(share) {
            None => "-".into(),
            Some(bucket) => match bound(bucket) {
                Some(millis) => format!("{at_most} {millis} ms"),
                None => format!("> {} ms", bound(BUCKETS - 2).unwrap_or_default()),
            },
        }));
        line
    };
    let mut lines = vec![head];
    lines.extend(report.entries.iter().map(|entry| line(words(&entry.label, &prefix), &entry.counts)));
    let mut total = vec!["total".to_owned()];
    total.resize(texts, String::new());
    lines.push(line(total, &report.total));
    session.out.figures(&lines, texts)
}

fn document(report: &Report, prefix: &KeyPrefix) -> Value {
    let entry = |Entry { label, counts: of }: &Entry| {
        let names = fields(label, prefix).into_iter().map(|(name, text)| (name.to_owned(), json!(text)));
        Value::Object(names.chain(counts(of)).collect())
    };
    json!({
        "since": report.range.since.start().to_string(),
        "until": report.range.until.start().to_string(),
        "by": report.by.word(),
        "usage": report.entries.iter().map(entry).collect::<Vec<_>>(),
        "total": Value::Object(counts(&report.total)),
        // Of each count in "latency"; the last one has no bound.
        "latency_bounds_ms": (0..BUCKETS).map(bound).collect::<Vec<_>>(),
    })
}

fn counts(counts: &Counts) -> Map<String, Value> {
    let percentiles =
        SHARES.map(|(name, share)| (name.to_owned(), json!(counts.latency.percentile(share).and_then(bound))));
    let members = [
        ("requests", json!(counts.requests)),
        ("bytes_in", json!(counts.bytes_in)),
        ("bytes_out", json!(counts.bytes_out)),
        ("latency_ms", Value::Object(percentiles.into_iter().collect())),
        ("latency", json!(counts.latency.0)),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn csv(session: &mut Session<'_, '_>, report: &Report) -> Result<(), Failure> {
    let columns: &[&str] = match report.by {
        By::Key => &["key", "account"],
        ref by => &[by.word()],
    };
    let mut text = columns.join(",") + ",requests,bytes_in,bytes_out,p50_ms,p95_ms,p99_ms";
    for Entry { label, counts } in &report.entries {
        // Names have none of the characters that would have to be quoted.
        let names = fields(label, &session.config.key_prefix).into_iter().map(|(_, text)| text.unwrap_or_default());
        let numbers = [counts.requests, counts.bytes_in, counts.bytes_out].map(|count| count.to_string());
        let percentiles = SHARES.map(|(_, share)| match counts.latency.percentile(share) {
            None => String::new(),
            Some(bucket) => bound(bucket).map_or_else(|| "inf".to_owned(), |millis| millis.to_string()),
        });
        let cells: Vec<String> = names.chain(numbers).chain(percentiles).collect();
        text.push('\n');
        text += &cells.join(",");
    }
    session.out.data(&text)
}

/// The hours or days of a chart, those without usage too.
fn bars(by: By, range: Range) -> Result<Vec<Label>, Failure> {
    let step = match by {
        By::Hour => 1,
        By::Day => 24,
        _ => {
            return Err(Failure::misuse(format!("--chart is by hour or day, and not by {}", by.word()))
                .hint("leave --by out, or write --by day"));
        }
    };
    let first = if by == By::Day { range.since.day() } else { range.since };
    let count = (range.until.0 - first.0).div_ceil(step);
    if count > MOST_BARS {
        let remedy = if by == By::Hour { "write --by day, or a later --since" } else { "write a later --since" };
        let text = format!("a chart of {count} bars is too long to be of use; {MOST_BARS} are the most");
        return Err(Failure::misuse(text).hint(remedy));
    }
    let label = |n| {
        let hour = Hour(first.0 + n * step);
        if by == By::Day { Label::Day(hour) } else { Label::Hour(hour) }
    };
    Ok((0..count).map(label).collect())
}

fn draw(session: &mut Session<'_, '_>, report: &Report, bars: &[Label]) -> Result<(), Failure> {
    let requests = |label: &Label| {
        let entry = report.entries.iter().find(|entry| entry.label == *label);
        entry.map_or(0, |entry| entry.counts.requests)
    };
    let bars: Vec<Bar> = bars
        .iter()
        .map(|label| {
            let name = match label {
                Label::Hour(hour) => hour.start().to_string()[..16].replace('T', " "),
                other => words(other, &session.config.key_prefix).remove(0),
            };
            Bar { name, value: requests(label) }
        })
        .collect();
    let is_utf8 = chart::is_utf8(&session.source.environment);
    session.out.data(&chart::draw(&bars, is_utf8))?;
    session.out.data(&format!("total {} requests", report.total.requests))
}
