//! `keybearer usage`: tables, documents, charts, and what it says to a question that is none.

use std::time::Duration;

use serde_json::json;

use super::{Desk, Exit, id_of};
use crate::clock::Clock;
use crate::store::SqliteStore;
use crate::tokens::Client;
use crate::usage::{Batch, Counts, Holder, Hour, Latency, Line, Row, StatusClass, UsageStore};

/// A desk whose gateway has counted something: two days of `acme`, by key and by password, and what was not told apart.
async fn used() -> (Desk, String) {
    let (mut desk, key) = Desk::furnished().await;
    desk.env.push(("LANG".into(), "C.UTF-8".into()));
    let client = Client::Key(id_of(&key).parse().unwrap());
    let line = |client: &Client, route: &str, group: Option<&str>, status| Line {
        holder: Some(Holder { account: "acme".parse().unwrap(), client: client.clone() }),
        group: group.map(|group| group.parse().unwrap()),
        route: Some(route.parse().unwrap()),
        class: StatusClass::of(status),
    };
    let counts = |requests: u64, bucket: usize| {
        let mut latency = Latency::default();
        latency.0[bucket] = requests;
        Counts { requests, bytes_in: requests * 10, bytes_out: requests * 1000, latency }
    };
    let now = Hour::of(desk.clock.now());
    let row = |hour, line, counts| Row { hour: Hour(now.0 - hour), line, counts };
    let rows = vec![
        row(1, line(&client, "orders", Some("orders"), 200), counts(98, 3)),
        row(1, line(&client, "orders", None, 403), counts(2, 16)),
        row(3, line(&client, "token", None, 200), counts(5, 0)),
        row(26, line(&Client::Password, "orders", Some("orders"), 200), counts(7, 1)),
        row(26, Line::other(StatusClass::of(200)), counts(11, 1)),
    ];
    let store = SqliteStore::open(&desk.dir.path().join("data/keybearer.db")).await.unwrap();
    let batch = Batch { gateway: "one".into(), number: 1, at: desk.clock.now(), rows };
    store.add_usage(&batch).await.unwrap();
    store.close().await;
    (desk, key)
}

#[tokio::test]
async fn a_table_ends_in_a_total_and_numbers_below_one_another() {
    let (desk, key) = used().await;
    let id = id_of(&key);
    assert_eq!(
        desk.run("usage").await.done(),
        "ACCOUNT  REQUESTS  BYTES IN  BYTES OUT     P50     P95         P99\n\
         acme          112      1120     112000  ≤ 8 ms  ≤ 8 ms  > 32768 ms\n\
         (other)        11       110      11000  ≤ 2 ms  ≤ 2 ms      ≤ 2 ms\n\
         total         123      1230     123000  ≤ 8 ms  ≤ 8 ms  > 32768 ms\n"
    );
    assert_eq!(
        desk.run("usage --by key --account acme --since 2d").await.done(),
        format!(
            "KEY              ACCOUNT  REQUESTS  BYTES IN  BYTES OUT     P50     P95         P99\n\
             kb_{id}  acme          105      1050     105000  ≤ 8 ms  ≤ 8 ms  > 32768 ms\n\
             (password)       acme            7        70       7000  ≤ 2 ms  ≤ 2 ms      ≤ 2 ms\n\
             total                          112      1120     112000  ≤ 8 ms  ≤ 8 ms  > 32768 ms\n"
        )
    );
    let lines = |text: String| -> Vec<String> {
        let words = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        text.lines().skip(1).map(words).collect()
    };
    for (args, expected) in [
        ("--by group", &["orders 105", "(none) 18", "total 123"][..]),
        ("--by route --since 24h", &["orders 100", "token 5", "total 105"]),
        ("--by status", &["2xx 121", "4xx 2", "total 123"]),
        ("--by day", &["2026-10-31 18", "2026-11-01 105", "total 123"]),
        ("--by hour --since 4h", &["2026-11-01T09:00:00Z 5", "2026-11-01T11:00:00Z 100", "total 105"]),
        ("--by hour --until 2026-11-01", &["2026-10-31T10:00:00Z 18", "total 18"]),
        ("--by status --group orders", &["2xx 105", "total 105"]),
        ("--by status --route token", &["2xx 5", "total 5"]),
    ] {
        assert_eq!(lines(desk.run(&format!("usage {args}")).await.done()), expected, "{args}");
    }
    let by_key = desk.run_args(&["usage", "--by", "route", "--key", &key[..15]]).await.done();
    assert_eq!(lines(by_key), ["orders 100", "token 5", "total 105"]);
}

#[tokio::test]
async fn programs_get_json_or_comma_separated_values() {
    let (desk, key) = used().await;
    let id = id_of(&key);
    let document = desk.run("usage --by key --json").await.json();
    assert_eq!(
        (&document["since"], &document["until"]),
        (&json!("2026-10-02T12:00:00Z"), &json!("2026-11-01T12:00:00Z"))
    );
    assert_eq!(document["usage"].as_array().map(Vec::len), Some(3));
    let mut latency = [0; 17];
    (latency[0], latency[3], latency[16]) = (5, 98, 2);
    assert_eq!(
        document["usage"][0],
        json!({
            "key": format!("kb_{id}"), "account": "acme", "requests": 105, "bytes_in": 1050, "bytes_out": 105_000,
            "latency_ms": { "p50": 8, "p95": 8, "p99": null }, "latency": latency,
        })
    );
    assert_eq!((&document["usage"][1]["key"], &document["usage"][1]["account"]), (&json!(null), &json!(null)));
    assert_eq!((&document["usage"][2]["key"], &document["usage"][2]["account"]), (&json!(null), &json!("acme")));
    assert_eq!(document["total"]["requests"], 123);
    assert_eq!((&document["latency_bounds_ms"][15], &document["latency_bounds_ms"][16]), (&json!(32768), &json!(null)));
    assert_eq!(desk.run("usage --by key --output json").await.json(), document);

    assert_eq!(
        desk.run("usage --by key --output csv").await.done(),
        format!(
            "key,account,requests,bytes_in,bytes_out,p50_ms,p95_ms,p99_ms\n\
             kb_{id},acme,105,1050,105000,8,8,inf\n,,11,110,11000,2,2,2\n,acme,7,70,7000,2,2,2\n"
        )
    );
    assert_eq!(desk.run("usage --by day --since 1h --output csv").await.done().lines().count(), 2);
}

#[tokio::test]
async fn a_chart_has_a_bar_for_every_hour_or_day() {
    let (mut desk, _) = used().await;
    let full = "█".repeat(40);
    assert_eq!(
        desk.run("usage --chart --since 4h").await.done(),
        format!(
            "2026-11-01 08:00  {:40}    0\n2026-11-01 09:00  {:40}    5\n2026-11-01 10:00  {:40}    0\n\
             2026-11-01 11:00  {full}  100\ntotal 105 requests\n",
            "", "██", ""
        )
    );
    desk.env.retain(|(name, _)| name != "LANG");
    assert_eq!(
        desk.run("usage --chart --since 2026-10-30").await.done(),
        format!(
            "2026-10-30  {:40}    0\n2026-10-31  {:40}   18\n2026-11-01  {}  105\ntotal 123 requests\n",
            "",
            "######",
            "#".repeat(40)
        )
    );
    let table = desk.run("usage --by status").await.done();
    assert!(table.contains("<= 8 ms") && table.is_ascii(), "{table}");
}

#[tokio::test]
async fn a_wrong_question_is_told_what_is_wrong() {
    let (mut desk, _) = used().await;
    for (args, exit, said) in [
        ("--since tomorrow", Exit::Misuse, "a span back from now"),
        ("--since 2026-12-01", Exit::Misuse, "2026-12-01T00:00:00Z has not come yet"),
        ("--since 1h --until 2h", Exit::Misuse, "since must be before until"),
        ("--by week", Exit::Misuse, "account, key, group, route, status, hour or day"),
        ("--account nobody", Exit::Failed, "there is no account \"nobody\""),
        ("--key kb_000000000000", Exit::Failed, "there is no key 000000000000"),
        ("--key nonsense", Exit::Misuse, "that is no key id"),
        ("--chart --by route", Exit::Misuse, "--chart is by hour or day, and not by route"),
        ("--chart --by hour --since 30d", Exit::Misuse, "write --by day"),
        ("--chart --output csv", Exit::Misuse, "--chart is for people"),
        ("--json --output csv", Exit::Misuse, "exclude each other"),
        ("--output xml", Exit::Misuse, "[possible values: table, json, csv]"),
    ] {
        let ran = desk.run(&format!("usage {args}")).await;
        assert_eq!((ran.exit, ran.out.as_str()), (exit, ""), "{args}: {ran:#?}");
        assert!(ran.err.contains(said), "{args}: {}", ran.err);
    }
    desk.advance(Duration::from_secs(90 * 86_400));
    let none = desk.run("usage").await;
    assert_eq!((none.exit, none.out.as_str()), (Exit::Done, ""));
    assert_eq!(none.err, "no usage from 2026-12-31T12:00:00Z to 2027-01-30T12:00:00Z\n");
    assert_eq!(desk.run("usage --json").await.json()["usage"], json!([]));
    desk.env.push(("KEYBEARER__USAGE__ENABLED".into(), "false".into()));
    let off = desk.run("usage").await;
    assert!(off.err.starts_with("warning: usage is not counted now"), "{}", off.err);
    assert_eq!(desk.run("usage --account demo").await.exit, Exit::Done, "it is no record, and has usage");
}
