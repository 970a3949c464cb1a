//! The SQL of API keys.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use super::row::{Columns, millis, word_of};
use super::{Replaced, Sql, SqliteStore, Stored, sql};
use crate::credentials::PasswordHash;
use crate::ids::{AccountName, KeyId, scope};
use crate::keys::{Key, KeyState, KeyStore};
use crate::persist::{Result, Update, Updated};
use crate::revocations::Change;

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

#[async_trait]
impl KeyStore for SqliteStore {
    async fn insert_key(&self, key: &Key) -> Result<bool> {
        let insert = sql("INSERT INTO keys (id, account, label, hash, groups, state, expires_at, created_at) \
                          VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING")
        .bind(key.id.as_str())
        .bind(key.account.as_str())
        .bind(key.label.as_str())
        .bind(key.hash.as_phc())
        .bind(key.groups.as_ref().map(scope))
        .bind(word_of(&key.state, STATES))
        .bind(key.expires_at.map(millis))
        .bind(millis(key.created_at));
        self.change_one(insert, &Change::Key(key.id.clone())).await
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
}
