//! The SQL of what plans count.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::row::{Columns, millis, number};
use super::{SqliteStore, sql};
use crate::clock::Timestamp;
use crate::persist::Result;
use crate::plans::{Batch, CountStore, Line, Row};
use crate::store::rules::BATCHES_KEPT;

/// Adds rows to what is there. `$1` is a list of them, as [`listed`] makes it: one statement for all.
const ADD: &str = "INSERT INTO plan_counts (plan, subject, word, starts_at, ends_at, used) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each($1) WHERE true \
     ON CONFLICT DO UPDATE SET used = used + excluded.used";

/// What there is now of the same rows, in their order.
const TOTALS: &str = "SELECT asked.value ->> 0 AS plan, COALESCE(used, 0) AS used FROM json_each($1) AS asked \
     LEFT JOIN plan_counts ON plan = asked.value ->> 0 AND subject = asked.value ->> 1 AND word = asked.value ->> 2 \
     AND starts_at = asked.value ->> 3 ORDER BY asked.key";

/// A row as a list, in the order of the columns.
fn listed(row: &Row) -> Value {
    let Row { line: Line { plan, subject, limit, from }, until, used } = row;
    json!([plan.as_str(), subject.to_string(), limit, millis(*from), millis(*until), number(*used)])
}

#[async_trait]
impl CountStore for SqliteStore {
    async fn add_counts(&self, batch: &Batch) -> Result<Vec<u64>> {
        let rows = Value::Array(batch.rows.iter().map(listed).collect()).to_string();
        let mut write = self.write().await?;
        let mark = sql(
            "INSERT INTO plan_batches (gateway, number, made_at) VALUES ($1, $2, $3) ON CONFLICT (gateway) DO UPDATE \
                 SET number = excluded.number, made_at = excluded.made_at WHERE number < excluded.number",
        )
        .bind(batch.gateway.clone())
        .bind(number(batch.number))
        .bind(millis(batch.at));
        if write.execute(mark).await? == 0 {
            // It is there already.
            write.abandon().await?;
        } else {
            write.execute(sql(ADD).bind(rows.clone())).await?;
            write.commit().await?;
        }
        // Read after it: what others have added meanwhile is true as well.
        let found = self.rows(sql(TOTALS).bind(rows)).await?;
        found.iter().map(|row| Columns::of(row, "plan_counts", "plan").count("used")).collect()
    }

    async fn counts(&self, now: Timestamp) -> Result<Vec<Row>> {
        let rows = self.rows(sql("SELECT * FROM plan_counts WHERE ends_at > $1").bind(millis(now))).await?;
        let read = rows.iter().map(|row| {
            let columns = Columns::of(row, "plan_counts", "subject");
            let line = Line {
                plan: columns.parsed("plan")?,
                subject: columns.parsed("subject")?,
                limit: columns.get::<String>("word")?,
                from: columns.time("starts_at")?,
            };
            Ok(Row { line, until: columns.time("ends_at")?, used: columns.count("used")? })
        });
        read.collect()
    }

    async fn forget_counts(&self, now: Timestamp) -> Result<u64> {
        // Most often there is nothing to forget, and then nobody else need wait.
        let old = sql("SELECT 1 AS one FROM plan_counts WHERE ends_at <= $1 LIMIT 1").bind(millis(now));
        if self.row(old).await?.is_none() {
            return Ok(0);
        }
        let mut write = self.write().await?;
        let gone = write.execute(sql("DELETE FROM plan_counts WHERE ends_at <= $1").bind(millis(now))).await?;
        let batches = sql("DELETE FROM plan_batches WHERE made_at < $1").bind(millis(now - BATCHES_KEPT));
        write.execute(batches).await?;
        write.commit().await?;
        Ok(gone)
    }
}
