//! The SQL of licences.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use super::row::{Columns, millis};
use super::{Replaced, Sql, SqliteStore, Stored, Write, sql};
use crate::clock::Timestamp;
use crate::ids::{AccountName, LicenceId, scope};
use crate::licences::{Beside, Licence, LicenceStore};
use crate::persist::{Error, Inserted, Result, Update, Updated};
use crate::store::rules::Record;

const OF_ACCOUNT: &str = "SELECT id, account, groups, plan, starts_at, ends_at, suspended, seats, trial, document, \
                          created_at FROM licences WHERE account = $1 ORDER BY account, id";

impl Stored for Licence {
    const FIND: &'static str = "SELECT id, account, groups, plan, starts_at, ends_at, suspended, seats, trial, document, \
         created_at FROM licences WHERE id = $1";

    fn read(row: &SqliteRow) -> Result<Self> {
        let columns = Columns::of(row, "licences", "id");
        Ok(Self {
            id: columns.parsed("id")?,
            account: columns.parsed("account")?,
            groups: columns.maybe_groups("groups")?.unwrap_or_default(),
            plan: columns.get("plan")?,
            starts_at: columns.time("starts_at")?,
            ends_at: columns.maybe_time("ends_at")?,
            suspended: columns.get("suspended")?,
            seats: columns.get("seats")?,
            trial: columns.get("trial")?,
            document: columns.get("document")?,
            quotas: [].into(),
            created_at: columns.time("created_at")?,
        })
    }
}

impl Replaced for Licence {
    fn replace(&self) -> Sql {
        sql("UPDATE licences SET groups = $2, plan = $3, starts_at = $4, ends_at = $5, suspended = $6, \
             seats = $7, trial = $8, document = $9 WHERE id = $1")
        .bind(self.id.as_str())
        .bind(scope(&self.groups))
        .bind(self.plan.as_str())
        .bind(millis(self.starts_at))
        .bind(self.ends_at.map(millis))
        .bind(self.suspended)
        .bind(self.seats)
        .bind(self.trial)
        .bind(self.document.clone())
    }
}

impl Write {
    /// The licences of an account, as they are inside this transaction.
    pub(super) async fn licences_of(&mut self, name: &AccountName) -> Result<Vec<Licence>> {
        let query = sql(OF_ACCOUNT).bind(name.as_str().to_owned());
        self.rows(query).await?.iter().map(Licence::read).collect()
    }
}

fn insert(licence: &Licence) -> Sql {
    sql("INSERT INTO licences (id, account, groups, plan, starts_at, ends_at, suspended, seats, \
                          trial, document, created_at) \
                          VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO NOTHING")
    .bind(licence.id.as_str())
    .bind(licence.account.as_str())
    .bind(scope(&licence.groups))
    .bind(licence.plan.as_str())
    .bind(millis(licence.starts_at))
    .bind(licence.ends_at.map(millis))
    .bind(licence.suspended)
    .bind(licence.seats)
    .bind(licence.trial)
    .bind(licence.document.clone())
    .bind(millis(licence.created_at))
}

#[async_trait]
impl LicenceStore for SqliteStore {
    async fn insert_licence(&self, licence: &Licence) -> Result<bool> {
        self.change_one(insert(licence), &licence.change()).await
    }

    async fn insert_licence_if(&self, licence: &Licence, fits: &Beside<'_>) -> Result<Inserted> {
        let mut write = self.write().await?;
        let licences = write.licences_of(&licence.account).await?;
        if !fits(&licences) {
            write.abandon().await?;
            return Ok(Inserted::Refused);
        }
        write.insert(insert(licence), &licence.change()).await
    }

    async fn licence(&self, id: &LicenceId) -> Result<Option<Licence>> {
        self.find(id.as_str()).await
    }

    async fn licences(&self, of: Option<&AccountName>) -> Result<Vec<Licence>> {
        let query = match of {
            Some(name) => sql(OF_ACCOUNT).bind(name.as_str().to_owned()),
            None => sql("SELECT id, account, groups, plan, starts_at, ends_at, suspended, seats, \
                               trial, document, created_at \
                         FROM licences ORDER BY account, id"),
        };
        self.list(query).await
    }

    async fn installed_licences(&self) -> Result<Vec<Licence>> {
        let query = sql("SELECT id, account, groups, plan, starts_at, ends_at, suspended, seats, trial, document, \
                         created_at FROM licences WHERE document IS NOT NULL ORDER BY +account, id");
        self.list(query).await
    }

    async fn update_licence(
        &self,
        id: &LicenceId,
        change: &(dyn Fn(Licence) -> Update<Licence> + Send + Sync),
    ) -> Result<Updated<Licence>> {
        self.update(id.as_str(), change).await
    }

    async fn latest_time(&self) -> Result<Timestamp> {
        match &self.row(sql("SELECT seen_at FROM latest_time")).await? {
            Some(row) => Columns::of(row, "latest_time", "one").time("seen_at"),
            None => Err(Error::Corrupt { detail: "table latest_time has no row".to_owned() }),
        }
    }

    async fn note_time(&self, at: Timestamp) -> Result<()> {
        let mut write = self.write().await?;
        write.execute(sql("UPDATE latest_time SET seen_at = $1 WHERE seen_at < $1").bind(millis(at))).await?;
        write.commit().await
    }
}
