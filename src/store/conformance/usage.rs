//! Usage: added up, once, and told apart by all that it is kept by.

use super::*;
use crate::tokens::Client;
use crate::usage::{Batch, By, Counts, Filter, Holder, Hour, Label, Latency, Line, Range, Row, StatusClass};

const NOON: Hour = Hour(24 * 20_000 + 12);

fn holder(account: &str, key: Option<char>) -> Holder {
    let client = key.map_or(Client::Password, |digit| Client::Key(key_id(digit)));
    Holder { account: name(account), client }
}

fn line(holder: Holder, group: Option<&str>, route: Option<&str>, status: u16) -> Line {
    let route = route.map(|route| route.parse().expect("a route id"));
    Line { holder: Some(holder), group: group.map(group_id), route, class: StatusClass::of(status) }
}

/// Counts in which no two fields are alike.
fn counts(seed: u64) -> Counts {
    let latency = Latency(std::array::from_fn(|bucket| seed + bucket as u64));
    Counts { requests: latency.0.iter().sum(), bytes_in: seed * 1000, bytes_out: seed * 1_000_000_000_000, latency }
}

fn row(hour: Hour, line: &Line, counts: Counts) -> Row {
    Row { hour, line: line.clone(), counts }
}

fn batch(gateway: &str, number: u64, rows: Vec<Row>) -> Batch {
    Batch { gateway: gateway.to_owned(), number, at: NOON.start(), rows }
}

fn always() -> Filter {
    Filter::all(Range { since: Hour(0), until: Hour(u32::MAX) })
}

async fn usage(store: &SharedStore, filter: &Filter, by: By) -> Vec<(Label, Counts)> {
    let mut found = store.usage(filter, by).await.expect("an answer");
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn sum(of: &[Counts]) -> Counts {
    of.iter().fold(Counts::default(), |mut sum, counts| {
        sum.add(counts);
        sum
    })
}

pub(crate) async fn usage_is_added_up_and_told_apart(bench: Bench) {
    let store = &bench.store;
    assert_eq!(usage(store, &always(), By::Account).await, []);
    let lines = [
        line(holder("acme", Some('a')), Some("orders"), Some("orders"), 200),
        line(holder("acme", Some('b')), None, Some("token"), 200),
        line(holder("acme", None), None, None, 404),
        line(holder("bob", None), Some("orders.read"), Some("orders"), 503),
        Line::other(StatusClass::of(302)),
    ];
    let later = Hour(NOON.0 + 12);
    let mut rows: Vec<Row> = lines.iter().zip(1..).map(|(line, seed)| row(NOON, line, counts(seed))).collect();
    rows.push(row(later, &lines[0], counts(7)));
    store.add_usage(&batch("one", 1, rows)).await.expect("added");
    store.add_usage(&batch("two", 1, vec![row(NOON, &lines[0], counts(10))])).await.expect("added");

    let both = sum(&[counts(1), counts(10), counts(7)]);
    let of = |label, seeds: &[u64]| (label, sum(&seeds.iter().map(|seed| counts(*seed)).collect::<Vec<_>>()));
    let account = |text: &str| Label::Account(Some(name(text)));
    assert_eq!(
        usage(store, &always(), By::Account).await,
        [of(Label::Account(None), &[5]), of(account("acme"), &[1, 10, 7, 2, 3]), of(account("bob"), &[4])]
    );
    let key = |account, key| Label::Key(Some(holder(account, key)));
    assert_eq!(
        usage(&bench.other, &always(), By::Key).await,
        [
            of(Label::Key(None), &[5]),
            (key("acme", Some('a')), both),
            of(key("acme", Some('b')), &[2]),
            of(key("acme", None), &[3]),
            of(key("bob", None), &[4]),
        ]
    );
    let group = |text: &str| Label::Group(Some(group_id(text)));
    assert_eq!(
        usage(store, &always(), By::Group).await,
        [of(Label::Group(None), &[2, 3, 5]), (group("orders"), both), of(group("orders.read"), &[4])]
    );
    let route = |text: &str| Label::Route(Some(text.parse().expect("a route id")));
    assert_eq!(
        usage(store, &always(), By::Route).await,
        [of(Label::Route(None), &[3, 5]), of(route("orders"), &[1, 10, 7, 4]), of(route("token"), &[2])]
    );
    let status = |status| Label::Status(StatusClass::of(status));
    assert_eq!(
        usage(store, &always(), By::Status).await,
        [of(status(200), &[1, 10, 7, 2]), of(status(300), &[5]), of(status(400), &[3]), of(status(500), &[4])]
    );
    let at_noon = [1, 10, 2, 3, 4, 5];
    assert_eq!(
        usage(store, &always(), By::Hour).await,
        [of(Label::Hour(NOON), &at_noon), of(Label::Hour(later), &[7])]
    );
    assert_eq!(
        usage(store, &always(), By::Day).await,
        [of(Label::Day(NOON.day()), &at_noon), of(Label::Day(later), &[7])],
        "twelve hours after noon the next day begins"
    );
}

pub(crate) async fn usage_is_filtered_by_everything_it_is_kept_by(bench: Bench) {
    let store = &bench.store;
    let mut all = Vec::new();
    for (seed, account) in ["acme", "bob"].into_iter().enumerate() {
        for key in [Some('a'), Some('b'), None] {
            for (group, route) in [(Some("g"), Some("r")), (None, Some("r")), (None, None)] {
                for hour in 0..3 {
                    let line = line(holder(account, key), group, route, 200);
                    let hour = Hour(NOON.0 + hour);
                    all.push(row(hour, &line, counts(seed as u64 + 1)));
                }
            }
        }
    }
    all.push(row(NOON, &Line::other(StatusClass::of(200)), counts(9)));
    store.add_usage(&batch("one", 1, all.clone())).await.expect("added");
    let between =
        |since: u32, until: u32| Filter::all(Range { since: Hour(NOON.0 + since), until: Hour(NOON.0 + until) });
    let filters = [
        between(0, 3),
        between(1, 2),
        between(3, 9),
        Filter { account: Some(name("acme")), ..between(0, 2) },
        Filter { account: Some(name("nobody")), ..between(0, 2) },
        Filter { client: Some(Client::Key(key_id('a'))), ..between(0, 3) },
        Filter { client: Some(Client::Password), ..between(0, 3) },
        Filter { account: Some(name("bob")), client: Some(Client::Key(key_id('b'))), ..between(0, 3) },
        Filter { group: Some(group_id("g")), ..between(0, 3) },
        Filter { route: Some("r".parse().expect("a route id")), ..between(1, 3) },
        Filter {
            account: Some(name("acme")),
            client: Some(Client::Password),
            group: Some(group_id("g")),
            route: Some("r".parse().expect("a route id")),
            ..between(0, 1)
        },
    ];
    for filter in filters {
        for by in By::ALL {
            let mut expected: std::collections::BTreeMap<Label, Counts> = Default::default();
            for row in all.iter().filter(|row| filter.admits(row.hour, &row.line)) {
                expected.entry(by.label(row.hour, &row.line)).or_default().add(&row.counts);
            }
            let expected: Vec<_> = expected.into_iter().collect();
            assert_eq!(usage(store, &filter, by).await, expected, "{filter:?} by {by:?}");
        }
    }
}

pub(crate) async fn a_batch_of_usage_is_added_once(bench: Bench) {
    let acme = line(holder("acme", None), None, None, 200);
    let one = batch("one", 1, vec![row(NOON, &acme, counts(1))]);
    let two = batch("one", 2, vec![row(NOON, &acme, counts(2))]);
    for batch in [&one, &one, &two, &one, &two] {
        bench.store.add_usage(batch).await.expect("added");
        bench.other.add_usage(batch).await.expect("added");
    }
    let elsewhere = batch("two", 1, vec![row(NOON, &acme, counts(3))]);
    bench.other.add_usage(&elsewhere).await.expect("added");
    bench.other.add_usage(&batch("one", 3, vec![])).await.expect("added");
    let found = usage(&bench.store, &always(), By::Status).await;
    assert_eq!(found, [(Label::Status(StatusClass::of(200)), sum(&[counts(1), counts(2), counts(3)]))]);
}

pub(crate) async fn no_usage_is_lost_under_many_writers(bench: Bench) {
    let writers: Vec<_> = (0..20u32)
        .map(|number| {
            let store = Arc::clone(if number % 2 == 0 { &bench.store } else { &bench.other });
            tokio::spawn(async move {
                for batch_number in 1..=3 {
                    let lines = [holder("acme", Some('a')), holder(&format!("a{number}"), None)];
                    let rows = lines.map(|holder| row(NOON, &line(holder, None, Some("r"), 200), counts(1)));
                    let batch = batch(&format!("gateway {number}"), batch_number, rows.into());
                    store.add_usage(&batch).await.expect("added");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    let found = usage(&bench.store, &always(), By::Account).await;
    assert_eq!(found.len(), 21);
    assert_eq!(found[1], (Label::Account(Some(name("a1"))), sum(&[counts(1); 3])));
    let acme = found.iter().find(|(label, _)| *label == Label::Account(Some(name("acme"))));
    assert_eq!(acme.map(|(_, counts)| *counts), Some(sum(&[counts(1); 60])));
}

pub(crate) async fn old_usage_is_forgotten_by_the_day(bench: Bench) {
    let store = &bench.store;
    let (old, acme) = (line(holder("old", None), None, None, 200), line(holder("acme", None), None, None, 200));
    let hours = [0, 1, 23, 24, 60, 61].map(|hour| Hour(NOON.0 + hour));
    let mut rows: Vec<Row> = hours.iter().map(|hour| row(*hour, &acme, counts(1))).collect();
    rows.push(row(hours[0], &old, counts(2)));
    store.add_usage(&batch("one", 1, rows)).await.expect("added");
    assert_eq!(store.forget_usage(hours[0]).await.expect("forgotten"), 0, "nothing lies before it");
    assert_eq!(store.forget_usage(hours[1]).await.expect("forgotten"), 2);
    let until = hours[5];
    let mut gone = Vec::new();
    while let count @ 1.. = store.forget_usage(until).await.expect("forgotten") {
        gone.push(count);
    }
    assert_eq!(gone, [3, 1], "a day's at a time, and what is kept is kept");
    assert_eq!(usage(&bench.other, &always(), By::Hour).await, [(Label::Hour(until), counts(1))]);
    store.add_usage(&batch("one", 1, vec![row(until, &acme, counts(5))])).await.expect("added");
    store.add_usage(&batch("one", 2, vec![row(hours[0], &old, counts(3))])).await.expect("added");
    let found = usage(store, &always(), By::Account).await;
    let account = |text: &str| Label::Account(Some(name(text)));
    assert_eq!(found, [(account("acme"), counts(1)), (account("old"), counts(3))], "what was added is still known");
}
