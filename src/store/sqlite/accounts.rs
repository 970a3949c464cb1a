//! The SQL of accounts.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use super::row::{Columns, millis};
use super::{Replaced, Sql, SqliteStore, Stored, sql};
use crate::accounts::{Account, AccountStore};
use crate::credentials::PasswordHash;
use crate::ids::AccountName;
use crate::persist::{Result, Update, Updated};
use crate::revocations::Change;

impl Stored for Account {
    const FIND: &'static str =
        "SELECT name, title, password, suspended, expires_at, created_at FROM accounts WHERE name = $1";

    fn read(row: &SqliteRow) -> Result<Self> {
        let columns = Columns::of(row, "accounts", "name");
        Ok(Self {
            name: columns.parsed("name")?,
            title: columns.get("title")?,
            password: columns.get::<Option<String>>("password")?.map(PasswordHash::from_phc),
            suspended: columns.get("suspended")?,
            expires_at: columns.maybe_time("expires_at")?,
            created_at: columns.time("created_at")?,
        })
    }
}

impl Replaced for Account {
    fn replace(&self) -> Sql {
        sql("UPDATE accounts SET title = $2, password = $3, suspended = $4, expires_at = $5 WHERE name = $1")
            .bind(self.name.as_str())
            .bind(self.title.as_str())
            .bind(self.password.as_ref().map(PasswordHash::as_phc))
            .bind(self.suspended)
            .bind(self.expires_at.map(millis))
    }
}

#[async_trait]
impl AccountStore for SqliteStore {
    async fn insert_account(&self, account: &Account) -> Result<bool> {
        let insert = sql("INSERT INTO accounts (name, title, password, suspended, expires_at, created_at) \
                          VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO NOTHING")
        .bind(account.name.as_str())
        .bind(account.title.as_str())
        .bind(account.password.as_ref().map(PasswordHash::as_phc))
        .bind(account.suspended)
        .bind(account.expires_at.map(millis))
        .bind(millis(account.created_at));
        self.change_one(insert, &Change::Account(account.name.clone())).await
    }

    async fn account(&self, name: &AccountName) -> Result<Option<Account>> {
        self.find(name.as_str()).await
    }

    async fn accounts(&self) -> Result<Vec<Account>> {
        self.list(sql("SELECT name, title, password, suspended, expires_at, created_at FROM accounts ORDER BY name"))
            .await
    }

    async fn update_account(
        &self,
        name: &AccountName,
        change: &(dyn Fn(Account) -> Update<Account> + Send + Sync),
    ) -> Result<Updated<Account>> {
        self.update(name.as_str(), change).await
    }
}
