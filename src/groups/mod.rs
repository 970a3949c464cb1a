//! Groups of resources, and the Demo group that is open to anyone. Owns the record and its store trait.

pub mod demo;
mod operations;

use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::ids::GroupId;
use crate::persist::Result;

pub(crate) use operations::missing;
pub use operations::{Deleted, Error, GroupChange, Operations};

/// The group whose holders look after all accounts: with its own credential, an account that is licensed for it may ask
/// about every token and end any. It is created and licensed like any other.
pub const OPERATOR: &str = "keybearer-operator";

/// A group of resources that a licence can grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name, as it stands in `scope` and in routes.
    pub id: GroupId,
    /// Free text for people.
    pub title: String,
    /// Tokens that reach this group live no longer than this.
    pub token_lifetime: Option<Duration>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Durable groups.
#[async_trait]
pub trait GroupStore: Send + Sync {
    /// Adds a group; `false` when the id is taken.
    async fn insert_group(&self, group: &Group) -> Result<bool>;
    /// The group of that id.
    async fn group(&self, id: &GroupId) -> Result<Option<Group>>;
    /// All groups by id.
    async fn groups(&self) -> Result<Vec<Group>>;
    /// Replaces a group; `false` when there is none of that id.
    async fn replace_group(&self, group: &Group) -> Result<bool>;
    /// Removes a group; `false` when there is none. Licences that name it keep the name and grant nothing by it.
    async fn delete_group(&self, id: &GroupId) -> Result<bool>;
}
