//! Columns to fields and back. A value that is no such field makes the record corrupt; the detail names table and id, and
//! never quotes the value, which may be a secret.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};

use crate::clock::Timestamp;
use crate::ids::Groups;
use crate::persist::{Error, Result};

/// One row of a table.
pub(super) struct Columns<'r> {
    row: &'r SqliteRow,
    table: &'static str,
    id: &'static str,
}

impl<'r> Columns<'r> {
    /// The columns of a row of `table`, which is told from the others by its column `id`.
    pub(super) fn of(row: &'r SqliteRow, table: &'static str, id: &'static str) -> Self {
        Self { row, table, id }
    }

    /// The error that a column is not what it has to be.
    pub(super) fn corrupt(&self, column: &str, why: impl Display) -> Error {
        let id = self.row.try_get::<&str, _>(self.id).unwrap_or("(unreadable)");
        Error::Corrupt { detail: format!("table {}, {} {id:?}: {column}: {why}", self.table, self.id) }
    }

    /// A column as SQLite has it.
    pub(super) fn get<T: Decode<'r, Sqlite> + Type<Sqlite>>(&self, column: &str) -> Result<T> {
        self.row.try_get(column).map_err(|error| match error {
            sqlx::Error::ColumnDecode { source, .. } => self.corrupt(column, source),
            other => self.corrupt(column, other),
        })
    }

    /// A text column as a checked type.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T> {
        self.get::<&str>(column)?.parse().map_err(|error| self.corrupt(column, error))
    }

    /// A text column as one of `words`.
    pub(super) fn word<T: Copy>(&self, column: &str, words: &[(&str, T)]) -> Result<T> {
        let found: &str = self.get(column)?;
        match words.iter().find(|(word, _)| *word == found) {
            Some((_, value)) => Ok(*value),
            None => Err(self.corrupt(column, "an unknown word")),
        }
    }

    /// An instant.
    pub(super) fn time(&self, column: &str) -> Result<Timestamp> {
        Ok(Timestamp::from_millis(self.count(column)?))
    }

    /// An instant, if there is one.
    pub(super) fn maybe_time(&self, column: &str) -> Result<Option<Timestamp>> {
        Ok(self.maybe_count(column)?.map(Timestamp::from_millis))
    }

    /// A stretch of time, if there is one.
    pub(super) fn maybe_duration(&self, column: &str) -> Result<Option<Duration>> {
        Ok(self.maybe_count(column)?.map(Duration::from_millis))
    }

    /// A number that is not negative.
    pub(super) fn count(&self, column: &str) -> Result<u64> {
        self.maybe_count(column)?.ok_or_else(|| self.corrupt(column, "no value"))
    }

    fn maybe_count(&self, column: &str) -> Result<Option<u64>> {
        let number: Option<i64> = self.get(column)?;
        number.map(u64::try_from).transpose().map_err(|_| self.corrupt(column, "a negative number"))
    }

    /// A set of groups, if there is one.
    pub(super) fn maybe_groups(&self, column: &str) -> Result<Option<Groups>> {
        let Some(text) = self.get::<Option<&str>>(column)? else { return Ok(None) };
        let groups: std::result::Result<Groups, _> = text.split_ascii_whitespace().map(str::parse).collect();
        groups.map(Some).map_err(|error| self.corrupt(column, error))
    }
}

/// A number as SQLite's signed integer; what lies beyond is as good as never.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// An instant as it is stored.
pub(super) fn millis(at: Timestamp) -> i64 {
    number(at.millis())
}

/// A stretch of time as it is stored.
pub(super) fn duration(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The word for `value`, from the same table that reads it.
pub(super) fn word_of<T: PartialEq>(value: &T, words: &[(&'static str, T)]) -> &'static str {
    words.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word)
}
