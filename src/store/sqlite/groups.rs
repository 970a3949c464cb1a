//! The SQL of groups.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use super::row::{Columns, duration, millis};
use super::{SqliteStore, Stored, sql};
use crate::groups::{Group, GroupStore};
use crate::ids::GroupId;
use crate::persist::Result;
use crate::revocations::Change;

impl Stored for Group {
    const FIND: &'static str = "SELECT id, title, token_lifetime, created_at FROM groups WHERE id = $1";

    fn read(row: &SqliteRow) -> Result<Self> {
        let columns = Columns::of(row, "groups", "id");
        Ok(Self {
            id: columns.parsed("id")?,
            title: columns.get("title")?,
            token_lifetime: columns.maybe_duration("token_lifetime")?,
            created_at: columns.time("created_at")?,
        })
    }
}

#[async_trait]
impl GroupStore for SqliteStore {
    async fn insert_group(&self, group: &Group) -> Result<bool> {
        let insert = sql("INSERT INTO groups (id, title, token_lifetime, created_at) VALUES ($1, $2, $3, $4) \
                          ON CONFLICT (id) DO NOTHING")
        .bind(group.id.as_str())
        .bind(group.title.as_str())
        .bind(group.token_lifetime.map(duration))
        .bind(millis(group.created_at));
        self.change_one(insert, &Change::Group(group.id.clone())).await
    }

    async fn group(&self, id: &GroupId) -> Result<Option<Group>> {
        self.find(id.as_str()).await
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.list(sql("SELECT id, title, token_lifetime, created_at FROM groups ORDER BY id")).await
    }

    async fn replace_group(&self, group: &Group) -> Result<bool> {
        let replace = sql("UPDATE groups SET title = $2, token_lifetime = $3, created_at = $4 WHERE id = $1")
            .bind(group.id.as_str())
            .bind(group.title.as_str())
            .bind(group.token_lifetime.map(duration))
            .bind(millis(group.created_at));
        self.change_one(replace, &Change::Group(group.id.clone())).await
    }

    async fn delete_group(&self, id: &GroupId) -> Result<bool> {
        let delete = sql("DELETE FROM groups WHERE id = $1").bind(id.as_str());
        self.change_one(delete, &Change::Group(id.clone())).await
    }
}
