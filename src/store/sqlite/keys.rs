//! The SQL of API keys.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use super::row::{Columns, millis, word_of};
use super::{Replaced, Sql, SqliteStore, Stored, Write, sql};
use crate::clock::Timestamp;
use crate::credentials::PasswordHash;
use crate::ids::{AccountName, KeyId, scope};
use crate::keys::{Fits, Key, KeyState, KeyStore, SeatedChange};
use crate::licences::seats::Seating;
use crate::persist::{Inserted, Result, Update, Updated};
use crate::store::rules::Record;

const STATES: &[(&str, KeyState)] =
    &[("active", KeyState::Active), ("suspended", KeyState::Suspended), ("revoked", KeyState::Revoked)];

impl Stored for Key {
    const FIND: &'static str =
        "SELECT id, account, label, hash, groups, state, expires_at, created_at FROM keys WHERE id = $1";

    fn read(row: &SqliteRow) -> Result<Self> {
        let columns = Columns::of(row, "keys", "id");
        Ok(Self {
            id: columns.parsed("id")?,
            account: columns.parsed("account")?,
            label: columns.get("label")?,
            hash: PasswordHash::from_phc(columns.get("hash")?),
            groups: columns.maybe_groups("groups")?,
            state: columns.word("state", STATES)?,
            expires_at: columns.maybe_time("expires_at")?,
            created_at: columns.time("created_at")?,
        })
    }
}

impl Replaced for Key {
    fn replace(&self) -> Sql {
        sql("UPDATE keys SET label = $2, hash = $3, groups = $4, state = $5, expires_at = $6 WHERE id = $1")
            .bind(self.id.as_str())
            .bind(self.label.as_str())
            .bind(self.hash.as_phc())
            .bind(self.groups.as_ref().map(scope))
            .bind(word_of(&self.state, STATES))
            .bind(self.expires_at.map(millis))
    }
}

fn insert(key: &Key) -> Sql {
    sql("INSERT INTO keys (id, account, label, hash, groups, state, expires_at, created_at) \
                          VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING")
    .bind(key.id.as_str())
    .bind(key.account.as_str())
    .bind(key.label.as_str())
    .bind(key.hash.as_phc())
    .bind(key.groups.as_ref().map(scope))
    .bind(word_of(&key.state, STATES))
    .bind(key.expires_at.map(millis))
    .bind(millis(key.created_at))
}

impl Write {
    /// The seats of an account, as they are inside this transaction.
    async fn seating(&mut self, name: &AccountName, now: Timestamp) -> Result<Seating> {
        // As `Key::holds_seat`.
        let count = sql("SELECT COUNT(*) AS held FROM keys WHERE account = $1 AND state <> 'revoked' \
                         AND (expires_at IS NULL OR expires_at > $2)")
        .bind(name.as_str().to_owned())
        .bind(millis(now));
        let held = match &self.row(count).await? {
            Some(row) => Columns::of(row, "keys", "held").count("held")?,
            None => 0,
        };
        Ok(Seating { licences: self.licences_of(name).await?, held })
    }
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn insert_key(&self, key: &Key) -> Result<bool> {
        self.change_one(insert(key), &key.change()).await
    }

    async fn insert_key_if(&self, key: &Key, now: Timestamp, fits: &Fits<'_>) -> Result<Inserted> {
        let mut write = self.write().await?;
        let seating = write.seating(&key.account, now).await?;
        if !fits(&seating) {
            write.abandon().await?;
            return Ok(Inserted::Refused);
        }
        write.insert(insert(key), &key.change()).await
    }

    async fn key(&self, id: &KeyId) -> Result<Option<Key>> {
        self.find(id.as_str()).await
    }

    async fn keys(&self, of: Option<&AccountName>) -> Result<Vec<Key>> {
        let query = match of {
            Some(name) => sql("SELECT id, account, label, hash, groups, state, expires_at, created_at FROM keys \
                               WHERE account = $1 ORDER BY account, id")
            .bind(name.as_str()),
            None => sql("SELECT id, account, label, hash, groups, state, expires_at, created_at FROM keys \
                         ORDER BY account, id"),
        };
        self.list(query).await
    }

    async fn update_key(
        &self,
        id: &KeyId,
        change: &(dyn Fn(Key) -> Update<Key> + Send + Sync),
    ) -> Result<Updated<Key>> {
        self.update(id.as_str(), change).await
    }

    async fn update_key_seated(&self, id: &KeyId, now: Timestamp, change: &SeatedChange<'_>) -> Result<Updated<Key>> {
        let mut write = self.write().await?;
        let Some(row) = write.row(sql(Key::FIND).bind(id.as_str().to_owned())).await? else {
            write.abandon().await?;
            return Ok(Updated::Missing);
        };
        let before = Key::read(&row)?;
        let seating = write.seating(&before.account, now).await?;
        let decided = change(before.clone(), &seating);
        write.update(before, decided).await
    }
}
