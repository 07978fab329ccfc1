//! An object's own SQLite database.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use worker::{Response, Result, SqlStorage, SqlStorageValue};

/// A number for a statement. Numbers beyond JavaScript's exact range do not occur here: they count changes, or time.
pub(super) fn number(value: u64) -> SqlStorageValue {
    SqlStorageValue::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Runs a statement that has no result.
///
/// # Errors
/// What the database says.
pub(super) fn run(sql: &SqlStorage, statement: &str, values: Vec<SqlStorageValue>) -> Result<()> {
    sql.exec(statement, values).map(drop)
}

/// Runs a query.
///
/// # Errors
/// What the database says, or that a row is not as expected.
pub(super) fn rows<T: DeserializeOwned>(
    sql: &SqlStorage,
    statement: &str,
    values: Vec<SqlStorageValue>,
) -> Result<Vec<T>> {
    sql.exec(statement, values)?.to_array()
}

/// An answer in JSON.
///
/// # Errors
/// That it cannot be written.
pub(super) fn answer(value: &impl serde::Serialize) -> Result<Response> {
    Response::ok(serde_json::to_string(value)?)
}

/// Something that an object keeps under a name of its own.
#[derive(Debug, Deserialize)]
pub(super) struct Memo {
    pub(super) name: String,
    pub(super) value: String,
}

/// Everything that is kept so.
///
/// # Errors
/// What the database says.
pub(super) fn memos(sql: &SqlStorage) -> Result<Vec<Memo>> {
    let table = "CREATE TABLE IF NOT EXISTS memo (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID";
    run(sql, table, Vec::new())?;
    rows(sql, "SELECT name, value FROM memo", Vec::new())
}

/// Keeps something, in place of what was kept under the same name.
///
/// # Errors
/// What the database says.
pub(super) fn keep(sql: &SqlStorage, name: &str, value: String) -> Result<()> {
    run(
        sql,
        "INSERT INTO memo (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        vec![name.into(), value.into()],
    )
}
