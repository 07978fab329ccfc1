//! D1, for what is not on the data plane.

use wasm_bindgen::JsValue;
use worker::{D1Database, D1PreparedStatement, D1Result, Result};

/// A number for a statement; exact to 2^53.
pub fn number(value: u64) -> JsValue {
    JsValue::from_f64(value as f64)
}

/// Runs statements in one transaction.
///
/// # Errors
/// What the database says of the first that fails; none of them has happened then.
pub async fn batch(database: &D1Database, statements: Vec<D1PreparedStatement>) -> Result<Vec<D1Result>> {
    let results = database.batch(statements).await?;
    match results.iter().find_map(D1Result::error) {
        Some(error) => Err(error.into()),
        None => Ok(results),
    }
}

/// How many rows a statement has changed.
pub fn changed(result: &D1Result) -> u64 {
    result.meta().ok().flatten().and_then(|meta| meta.changes).map_or(0, |changes| changes as u64)
}
