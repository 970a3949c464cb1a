//! The SQL of signing keys: always the whole set, read and written in one transaction.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use super::row::{Columns, millis, word_of};
use super::{SqliteStore, sql};
use crate::persist::{Result, Update};
use crate::revocations::Change;
use crate::secret::Secret;
use crate::signing::{SigningKey, SigningKeyStore, SigningState};
use crate::store::rules;

const ALL: &str = "SELECT kid, algorithm, private, state, created_at, activates_at, gone_at FROM signing_keys \
                   ORDER BY created_at, kid";

const STATES: &[(&str, SigningState)] =
    &[("next", SigningState::Next), ("active", SigningState::Active), ("retiring", SigningState::Retiring)];

fn read(row: &SqliteRow) -> Result<SigningKey> {
    let columns = Columns::of(row, "signing_keys", "kid");
    Ok(SigningKey {
        kid: columns.get("kid")?,
        algorithm: columns.get("algorithm")?,
        private: Secret::new(columns.get("private")?),
        state: columns.word("state", STATES)?,
        created_at: columns.time("created_at")?,
        activates_at: columns.time("activates_at")?,
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
        let keys = match change(before.clone()) {
            Update::Write(keys, _) => rules::ordered(keys)?,
            Update::Keep => {
                write.abandon().await?;
                return Ok(before);
            }
        };
        write.execute(sql("DELETE FROM signing_keys")).await?;
        for key in &keys {
            let insert = sql("INSERT INTO signing_keys \
                              (kid, algorithm, private, state, created_at, activates_at, gone_at) \
                              VALUES ($1, $2, $3, $4, $5, $6, $7)")
            .bind(key.kid.as_str())
            .bind(key.algorithm.as_str())
            .bind(key.private.expose().as_slice())
            .bind(word_of(&key.state, STATES))
            .bind(millis(key.created_at))
            .bind(millis(key.activates_at))
            .bind(key.gone_at.map(millis));
            write.execute(insert).await?;
        }
        write.tell(&Change::SigningKeys).await?;
        write.commit().await?;
        Ok(keys)
    }
}
