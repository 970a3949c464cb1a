//! The SQL of usage.

use std::sync::LazyLock;

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteRow;

use super::many::{AT_ONCE, bind_all, places};
use super::row::{Columns, millis, number};
use super::{Sql, SqliteStore, sql};
use crate::persist::Result;
use crate::store::rules::{BATCHES_KEPT, first_kept};
use crate::tokens::Client;
use crate::usage::{BUCKETS, Batch, By, Counts, Filter, Holder, Hour, Label, Line, Row, StatusClass, UsageStore};

/// The columns of what is counted, in the order of [`Counts`].
const COUNTED: [&str; 3 + BUCKETS] = [
    "requests",
    "bytes_in",
    "bytes_out",
    "le_1ms",
    "le_2ms",
    "le_4ms",
    "le_8ms",
    "le_16ms",
    "le_32ms",
    "le_64ms",
    "le_128ms",
    "le_256ms",
    "le_512ms",
    "le_1024ms",
    "le_2048ms",
    "le_4096ms",
    "le_8192ms",
    "le_16384ms",
    "le_32768ms",
    "longer",
];

/// The columns of a line, and those of a row: its hour, its line and what is counted of it.
const LINE: usize = 5;
const ROW: usize = 1 + LINE + COUNTED.len();

/// Lines that are new. A row of NULLs is none.
static ADD_LINES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO usage_lines (account, key, grp, route, class) \
         SELECT * FROM (VALUES {}) WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING",
        places(LINE),
    )
});

/// What is counted of them: added to what is there. A row of NULLs is of no line.
static ADD_COUNTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH new (hour, account, key, grp, route, class, {columns}) AS (VALUES {}) \
         INSERT INTO usage (hour, line, {columns}) SELECT new.hour, usage_lines.id, {} \
         FROM new CROSS JOIN usage_lines ON usage_lines.account = new.account AND usage_lines.key = new.key \
         AND usage_lines.grp = new.grp AND usage_lines.route = new.route AND usage_lines.class = new.class WHERE true \
         ON CONFLICT (hour, line) DO UPDATE SET {}",
        places(ROW),
        each(|column| format!("new.{column}")),
        each(|column| format!("{column} = {column} + excluded.{column}")),
        columns = COUNTED.join(", "),
    )
});

/// The oldest hour. `MIN(hour)` would be looked for in the other index, all through it.
pub(super) const OLDEST: &str = "SELECT hour FROM usage ORDER BY hour LIMIT 1";

/// The sums of what was counted.
static SUMS: LazyLock<String> = LazyLock::new(|| each(|column| format!("SUM({column}) AS {column}")));

/// Something for each of the columns.
fn each(of: impl Fn(&str) -> String) -> String {
    COUNTED.map(of).join(", ")
}

/// A line, in the order of its columns.
type LineColumns<'a> = (&'a str, &'a str, &'a str, &'a str, i64);

fn line_columns(line: &Line) -> LineColumns<'_> {
    let (account, key) = match &line.holder {
        Some(holder) => (holder.account.as_str(), key_column(&holder.client)),
        None => ("", ""),
    };
    let group = line.group.as_ref().map_or("", |group| group.as_str());
    let route = line.route.as_ref().map_or("", |route| route.as_str());
    (account, key, group, route, line.class.digit().into())
}

fn bind_line(query: Sql, (account, key, group, route, class): LineColumns<'_>) -> Sql {
    query.bind(account).bind(key).bind(group).bind(route).bind(class)
}

fn bind_row(query: Sql, line: LineColumns<'_>, row: &Row) -> Sql {
    let Counts { requests, bytes_in, bytes_out, latency } = &row.counts;
    let counts = [requests, bytes_in, bytes_out].into_iter().chain(&latency.0);
    counts.fold(bind_line(query.bind(row.hour.0), line), |query, count| query.bind(number(*count)))
}

fn key_column(client: &Client) -> &str {
    match client {
        Client::Key(id) => id.as_str(),
        Client::Password => "",
    }
}

/// The question. Whichever is fewer is looked up first: the lines of somebody, or the hours. Names are bound; what is put
/// together here are words of this file.
pub(super) fn question(filter: &Filter, by: By) -> String {
    let (columns, named) = match by {
        By::Account => ("account", ""),
        By::Key => ("account, key", ""),
        By::Group => ("grp", ""),
        By::Route => ("route", ""),
        By::Status => ("class", ""),
        By::Hour => ("hour", ""),
        By::Day => ("hour / 24 * 24", " AS hour"),
    };
    let from = if filter.account.is_some() || filter.client.is_some() {
        "usage_lines CROSS JOIN usage INDEXED BY usage_by_line ON line = id"
    } else {
        "usage CROSS JOIN usage_lines ON id = line"
    };
    let of_account = if filter.account.is_some() { "account = $3" } else { "$3 IS NULL" };
    format!(
        "SELECT {columns}{named}, {} FROM {from} WHERE hour >= $1 AND hour < $2 AND {of_account} \
         AND ($4 IS NULL OR (key = $4 AND account <> '')) AND ($5 IS NULL OR grp = $5) AND ($6 IS NULL OR route = $6) \
         GROUP BY {columns}",
        *SUMS
    )
}

fn ask(filter: &Filter, by: By) -> Sql {
    let Filter { range, account, client, group, route } = filter;
    sqlx::query(AssertSqlSafe(question(filter, by)))
        .bind(range.since.0)
        .bind(range.until.0)
        .bind(account.as_ref().map(ToString::to_string))
        .bind(client.as_ref().map(|client| key_column(client).to_owned()))
        .bind(group.as_ref().map(ToString::to_string))
        .bind(route.as_ref().map(ToString::to_string))
}

/// What a row is of, by its columns.
fn label(columns: &Columns<'_>, by: By) -> Result<Label> {
    let is_some = |column| columns.get::<&str>(column).map(|text| !text.is_empty());
    Ok(match by {
        By::Account => Label::Account(is_some("account")?.then(|| columns.parsed("account")).transpose()?),
        By::Key if !is_some("account")? => Label::Key(None),
        By::Key => {
            let client = if is_some("key")? { Client::Key(columns.parsed("key")?) } else { Client::Password };
            Label::Key(Some(Holder { account: columns.parsed("account")?, client }))
        }
        By::Group => Label::Group(is_some("grp")?.then(|| columns.parsed("grp")).transpose()?),
        By::Route => Label::Route(is_some("route")?.then(|| columns.parsed("route")).transpose()?),
        By::Status => match columns.count("class")? {
            class @ 1..=5 => Label::Status(StatusClass::of(u16::try_from(class * 100).unwrap_or_default())),
            _ => return Err(columns.corrupt("class", "no status class")),
        },
        By::Hour => Label::Hour(hour(columns)?),
        By::Day => Label::Day(hour(columns)?),
    })
}

fn read(row: &SqliteRow, by: By) -> Result<(Label, Counts)> {
    let columns = Columns::of(row, "usage", "account");
    let label = label(&columns, by)?;
    let mut counts = Counts::default();
    let Counts { requests, bytes_in, bytes_out, latency } = &mut counts;
    for (count, column) in [requests, bytes_in, bytes_out].into_iter().chain(&mut latency.0).zip(COUNTED) {
        *count = columns.count(column)?;
    }
    Ok((label, counts))
}

fn hour(columns: &Columns<'_>) -> Result<Hour> {
    let hour = columns.count("hour")?;
    u32::try_from(hour).map(Hour).map_err(|error| columns.corrupt("hour", error))
}

impl SqliteStore {
    /// Reads every line that something is counted of, to see whether it is one.
    pub(super) async fn read_all_usage_lines(&self) -> Result<()> {
        let rows = self.rows(sql("SELECT account, key, grp, route, class FROM usage_lines")).await?;
        let columns = rows.iter().map(|row| Columns::of(row, "usage_lines", "account"));
        for columns in columns {
            for by in [By::Key, By::Group, By::Route, By::Status] {
                label(&columns, by)?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl UsageStore for SqliteStore {
    async fn add_usage(&self, batch: &Batch) -> Result<()> {
        let mut write = self.write().await?;
        let mark = sql(
            "INSERT INTO usage_batches (gateway, number, made_at) VALUES ($1, $2, $3) ON CONFLICT (gateway) DO UPDATE \
                 SET number = excluded.number, made_at = excluded.made_at WHERE number < excluded.number",
        )
        .bind(batch.gateway.clone())
        .bind(number(batch.number))
        .bind(millis(batch.at));
        if write.execute(mark).await? == 0 {
            // It is there already.
            return write.abandon().await;
        }
        // In the order of the index: neighbours in it are on the same pages.
        let mut rows: Vec<(LineColumns<'_>, &Row)> =
            batch.rows.iter().map(|row| (line_columns(&row.line), row)).collect();
        rows.sort_unstable_by_key(|(line, _)| *line);
        let statement = |text: &'static LazyLock<String>| sqlx::query(AssertSqlSafe(text.as_str()));
        for some in rows.chunks(AT_ONCE) {
            let lines = bind_all(statement(&ADD_LINES), some, LINE, |query, (line, _)| bind_line(query, *line));
            write.execute(lines).await?;
            let counts = bind_all(statement(&ADD_COUNTS), some, ROW, |query, (line, row)| bind_row(query, *line, row));
            write.execute(counts).await?;
        }
        write.commit().await
    }

    async fn usage(&self, filter: &Filter, by: By) -> Result<Vec<(Label, Counts)>> {
        self.rows(ask(filter, by)).await?.iter().map(|row| read(row, by)).collect()
    }

    async fn forget_usage(&self, before: Hour) -> Result<u64> {
        // Most often there is nothing to forget, and then nobody else need wait.
        let oldest = self.row(sql(OLDEST)).await?;
        let Some(oldest) = oldest.as_ref().map(|row| hour(&Columns::of(row, "usage", "hour"))).transpose()? else {
            return Ok(0);
        };
        if oldest >= before {
            return Ok(0);
        }
        let mut write = self.write().await?;
        let kept = first_kept(oldest, before);
        let gone = write.execute(sql("DELETE FROM usage WHERE hour < $1").bind(kept.0)).await?;
        let lines =
            sql("DELETE FROM usage_lines WHERE NOT EXISTS (SELECT 1 FROM usage WHERE usage.line = usage_lines.id)");
        write.execute(lines).await?;
        let old = millis(before.start() - BATCHES_KEPT);
        write.execute(sql("DELETE FROM usage_batches WHERE made_at < $1").bind(old)).await?;
        write.commit().await?;
        Ok(gone)
    }
}
