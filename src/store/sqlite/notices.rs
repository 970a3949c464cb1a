//! The SQL of notices.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use super::row::{Columns, duration, millis, number, word_of};
use super::{SqliteStore, sql};
use crate::clock::Timestamp;
use crate::licences::Licence;
use crate::notices::{Notice, NoticeState, NoticeStore, Occasion};
use crate::persist::Result;

const STATES: &[(&str, NoticeState)] =
    &[("open", NoticeState::Open), ("sent", NoticeState::Sent), ("given_up", NoticeState::GivenUp)];

fn read(row: &SqliteRow) -> Result<Notice> {
    let columns = Columns::of(row, "notices", "licence");
    Ok(Notice {
        occasion: Occasion {
            licence: columns.parsed("licence")?,
            ends_at: columns.time("ends_at")?,
            ahead: Duration::from_millis(columns.count("ahead")?),
        },
        message: columns.get("message")?,
        state: columns.word("state", STATES)?,
        attempts: columns.get("attempts")?,
        next_at: columns.time("next_at")?,
    })
}

#[async_trait]
impl NoticeStore for SqliteStore {
    async fn licences_ending(&self, after: Timestamp, until: Timestamp) -> Result<Vec<Licence>> {
        let query = sql("SELECT id, account, groups, plan, starts_at, ends_at, suspended, seats, trial, document, \
                         created_at FROM licences WHERE ends_at > $1 AND ends_at <= $2 ORDER BY ends_at, id")
        .bind(millis(after))
        .bind(millis(until));
        self.list(query).await
    }

    async fn notices(&self, after: Timestamp) -> Result<Vec<Notice>> {
        let query = sql("SELECT licence, ends_at, ahead, message, state, attempts, next_at FROM notices \
                         WHERE ends_at > $1 ORDER BY ends_at, licence, ahead DESC")
        .bind(millis(after));
        self.rows(query).await?.iter().map(read).collect()
    }

    async fn update_notice(
        &self,
        occasion: &Occasion,
        change: &(dyn Fn(Option<Notice>) -> Option<Notice> + Send + Sync),
    ) -> Result<Option<Notice>> {
        let mut write = self.write().await?;
        let find = sql("SELECT licence, ends_at, ahead, message, state, attempts, next_at FROM notices \
                        WHERE licence = $1 AND ends_at = $2 AND ahead = $3")
        .bind(occasion.licence.as_str().to_owned())
        .bind(millis(occasion.ends_at))
        .bind(duration(occasion.ahead));
        let held = write.row(find).await?.as_ref().map(read).transpose()?;
        let Some(after) = change(held) else {
            write.abandon().await?;
            return Ok(None);
        };
        let after = Notice { occasion: occasion.clone(), ..after };
        let put = sql("INSERT INTO notices (licence, ends_at, ahead, message, state, attempts, next_at) \
                       VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (licence, ends_at, ahead) DO UPDATE SET \
                       message = excluded.message, state = excluded.state, attempts = excluded.attempts, \
                       next_at = excluded.next_at")
        .bind(occasion.licence.as_str().to_owned())
        .bind(millis(occasion.ends_at))
        .bind(duration(occasion.ahead))
        .bind(after.message.clone())
        .bind(word_of(&after.state, STATES))
        .bind(number(u64::from(after.attempts)))
        .bind(millis(after.next_at));
        write.execute(put).await?;
        write.commit().await?;
        Ok(Some(after))
    }

    async fn forget_notices(&self, until: Timestamp) -> Result<u64> {
        // Most of the time there is nothing, and that should not cost a transaction.
        let old = sql("SELECT 1 FROM notices WHERE ends_at <= $1 LIMIT 1").bind(millis(until));
        if self.row(old).await?.is_none() {
            return Ok(0);
        }
        let mut write = self.write().await?;
        let gone = write.execute(sql("DELETE FROM notices WHERE ends_at <= $1").bind(millis(until))).await?;
        write.commit().await?;
        Ok(gone)
    }
}
