//! The SQL of signing keys: always the whole set, read and written in one transaction.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use super::row::{Columns, duration, millis, word_of};
use super::{SqliteStore, sql};
use crate::persist::{Cut, Result, Update};
use crate::revocations::{Change, Target};
use crate::secret::Secret;
use crate::signing::{SigningKey, SigningKeyStore, SigningState};
use crate::store::rules;

const ALL: &str = "SELECT kid, algorithm, private, sealed_by, state, created_at, activates_at, longest_token, gone_at \
                   FROM signing_keys ORDER BY created_at, kid";

const STATES: &[(&str, SigningState)] =
    &[("next", SigningState::Next), ("active", SigningState::Active), ("retiring", SigningState::Retiring)];

fn read(row: &SqliteRow) -> Result<SigningKey> {
    let columns = Columns::of(row, "signing_keys", "kid");
    Ok(SigningKey {
        kid: columns.get("kid")?,
        algorithm: columns.get("algorithm")?,
        private: Secret::new(columns.get("private")?),
        sealed_by: columns.get("sealed_by")?,
        state: columns.word("state", STATES)?,
        created_at: columns.time("created_at")?,
        activates_at: columns.time("activates_at")?,
        longest_token: Duration::from_millis(columns.count("longest_token")?),
        gone_at: columns.maybe_time("gone_at")?,
    })
}

#[async_trait]
impl SigningKeyStore for SqliteStore {
    async fn signing_keys(&self) -> Result<Vec<SigningKey>> {
        self.rows(sql(ALL)).await?.iter().map(read).collect()
    }

    async fn update_signing_keys(
        &self,
        change: &(dyn Fn(Vec<SigningKey>) -> Update<Vec<SigningKey>> + Send + Sync),
    ) -> Result<Vec<SigningKey>> {
        let mut write = self.write().await?;
        let before = write.rows(sql(ALL)).await?.iter().map(read).collect::<Result<Vec<_>>>()?;
        let (keys, cut) = match change(before.clone()) {
            Update::Write(keys, cut) => (rules::ordered(keys)?, cut),
            Update::Keep => {
                write.abandon().await?;
                return Ok(before);
            }
        };
        write.execute(sql("DELETE FROM signing_keys")).await?;
        for key in &keys {
            let insert = sql("INSERT INTO signing_keys \
                              (kid, algorithm, private, sealed_by, state, created_at, activates_at, longest_token, \
                              gone_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(key.kid.as_str())
            .bind(key.algorithm.as_str())
            .bind(key.private.expose().as_slice())
            .bind(key.sealed_by.as_deref().map(str::to_owned))
            .bind(word_of(&key.state, STATES))
            .bind(millis(key.created_at))
            .bind(millis(key.activates_at))
            .bind(duration(key.longest_token))
            .bind(key.gone_at.map(millis));
            write.execute(insert).await?;
        }
        write.tell(&Change::SigningKeys).await?;
        // What goes for good is not every token there will ever be.
        write.cut(&Target::All, if let Cut::Forever(now) = cut { Cut::Now(now) } else { cut }).await?;
        write.commit().await?;
        Ok(keys)
    }
}
