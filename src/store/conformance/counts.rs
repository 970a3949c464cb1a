//! What plans count: added up once, told apart, and forgotten when it counts no more.

use super::*;
use crate::plans::{Batch, Line, Row, Subject};

fn subjects() -> [Subject; 5] {
    [
        Subject::Licence(licence_id('1')),
        Subject::Key(key_id('1')),
        Subject::Route("orders".parse().expect("a route id"), name("acme")),
        Subject::Address("2001:db8::".parse().expect("an address")),
        Subject::RouteAddress("orders".parse().expect("a route id"), "2001:db8::".parse().expect("an address")),
    ]
}

fn row(subject: &Subject, limit: &str, from: u64, until: u64, used: u64) -> Row {
    let plan = "pro".parse().expect("a plan");
    Row {
        line: Line { plan, subject: subject.clone(), limit: limit.to_owned(), from: at(from) },
        until: at(until),
        used,
    }
}

fn batch(gateway: &str, number: u64, rows: Vec<Row>) -> Batch {
    Batch { gateway: gateway.to_owned(), number, at: at(1000), rows }
}

async fn counts(store: &SharedStore, now: u64) -> Vec<Row> {
    let mut found = store.counts(at(now)).await.expect("an answer");
    found.sort_by(|a, b| a.line.cmp(&b.line));
    found
}

pub(crate) async fn counts_are_added_up_and_told_apart(bench: Bench) {
    let store = &bench.store;
    assert_eq!(counts(store, 0).await, []);
    let mut rows = Vec::new();
    for (number, subject) in (1..).zip(subjects()) {
        for (place, (limit, from)) in (1..).zip([("day", 100), ("day", 200), ("month", 100)]) {
            rows.push(row(&subject, limit, from, from + 1000, number * 1_000_000_000_000 + place));
        }
    }
    let mut other_plan = row(&subjects()[0], "day", 100, 1100, 7);
    other_plan.line.plan = "licence-0.x".parse().expect("a plan");
    rows.push(other_plan);
    // The answer is in the order of the batch, whatever order that is.
    rows.swap(0, 7);
    let used: Vec<u64> = rows.iter().map(|row| row.used).collect();
    assert_eq!(store.add_counts(&batch("a", 1, rows.clone())).await.expect("added"), used);
    let twice: Vec<u64> = used.iter().map(|used| used * 2).collect();
    assert_eq!(bench.other.add_counts(&batch("b", 1, rows.clone())).await.expect("added"), twice);
    rows.iter_mut().for_each(|row| row.used *= 2);
    rows.sort_by(|a, b| a.line.cmp(&b.line));
    assert_eq!(counts(store, 0).await, rows);
    assert_eq!(counts(&bench.other, 0).await, rows);
}

pub(crate) async fn a_batch_of_counts_is_added_once(bench: Bench) {
    let (store, [subject, other, ..]) = (&bench.store, subjects());
    let first = batch("a", 1, vec![row(&subject, "day", 0, 9000, 5)]);
    for _ in 0..3 {
        assert_eq!(store.add_counts(&first).await.expect("added"), [5]);
    }
    let second = batch("a", 2, vec![row(&other, "day", 0, 9000, 1), row(&subject, "day", 0, 9000, 2)]);
    assert_eq!(store.add_counts(&second).await.expect("added"), [1, 7]);
    // One that is late is there already; what it is told is what there is now.
    assert_eq!(bench.other.add_counts(&first).await.expect("an answer"), [7]);
    assert_eq!(bench.other.add_counts(&batch("b", 1, first.rows.clone())).await.expect("added"), [12]);
    assert_eq!(store.add_counts(&batch("c", 1, vec![])).await.expect("nothing to add"), [0; 0]);
}

pub(crate) async fn no_count_is_lost_between_many_gateways(bench: Bench) {
    let subject = subjects()[1].clone();
    let writers = (0..8).map(|writer| {
        let store = if writer % 2 == 0 { Arc::clone(&bench.store) } else { Arc::clone(&bench.other) };
        let subject = subject.clone();
        tokio::spawn(async move {
            let mut latest = 0;
            for number in 1..=10 {
                let rows = vec![row(&subject, "hour", 0, 9000, 3)];
                let totals = store.add_counts(&batch(&format!("g{writer}"), number, rows)).await.expect("added");
                assert!(totals[0] >= latest + 3, "a total only grows, and has one's own in it");
                latest = totals[0];
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("it ends");
    }
    assert_eq!(counts(&bench.store, 0).await, [row(&subject, "hour", 0, 9000, 240)]);
}

pub(crate) async fn counts_are_forgotten_when_they_end(bench: Bench) {
    let (store, [subject, ..]) = (&bench.store, subjects());
    let rows = vec![row(&subject, "day", 0, 100, 1), row(&subject, "day", 100, 200, 2)];
    store.add_counts(&batch("a", 1, rows.clone())).await.expect("added");
    assert_eq!(counts(store, 99).await.len(), 2);
    assert_eq!(counts(store, 100).await, rows[1..], "at its end it counts no more");
    assert_eq!(store.forget_counts(at(99)).await.expect("forgotten"), 0);
    assert_eq!(store.forget_counts(at(100)).await.expect("forgotten"), 1);
    assert_eq!(store.forget_counts(at(100)).await.expect("forgotten"), 0);
    assert_eq!(counts(store, 0).await, rows[1..]);
    // What was forgotten may come once more, and the batch is known still.
    assert_eq!(store.add_counts(&batch("a", 1, rows.clone())).await.expect("an answer"), [0, 2]);
}
