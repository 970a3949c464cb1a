//! Many rows by one statement: each statement is a message to the thread of its connection and back, which costs more than the
//! row does.
//!
//! A statement is as long for a few rows as for many, and the places left over are NULL, which stands for no row. So there is
//! one text of it, and each connection prepares it once.

use super::Sql;

/// So many rows are written by one statement. More of them gain nothing, and make it long.
pub(super) const AT_ONCE: usize = 64;

/// The places of so many rows, for `VALUES`.
pub(super) fn places(columns: usize) -> String {
    vec![format!("({})", vec!["?"; columns].join(", ")); AT_ONCE].join(", ")
}

/// Binds each of `rows`, of which there are at most [`AT_ONCE`], and fills the places left over.
pub(super) fn bind_all<T>(query: Sql, rows: &[T], columns: usize, bind: impl Fn(Sql, &T) -> Sql) -> Sql {
    let query = rows.iter().fold(query, bind);
    (0..(AT_ONCE - rows.len()) * columns).fold(query, |query, _| query.bind(None::<i64>))
}
