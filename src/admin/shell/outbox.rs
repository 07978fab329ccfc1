//! Delivers what changes have left in the outbox.

use serde::Deserialize;
use worker::Env;

use super::database::{Database, Json};
use super::effects::{Effect, carry_out};
use crate::admin::statement::Statement;
use crate::fault;

/// How many rows one run delivers.
pub(super) const AT_ONCE: u64 = 50;

/// Carries effects out, in order; each row is deleted once it is.
///
/// # Errors
/// What failed first; that row and the ones behind it stay in the outbox.
pub(super) async fn deliver(env: &Env, db: &Database, pending: &[(u64, Effect)]) -> Result<(), String> {
    for (id, effect) in pending {
        let delivered = match fault::point("before-effect") {
            Ok(()) => carry_out(env, db, effect).await,
            Err(error) => Err(error),
        };
        let delivered = delivered.and_then(|()| fault::point("after-effect"));
        if let Err(error) = delivered {
            let note = Statement::new("UPDATE outbox SET attempts = attempts + 1, last_error = ?2 WHERE id = ?1");
            let noted = note.bind(*id).bind(&error);
            if db.batch(&[noted]).await.is_err() {
                tracing::warn!(target: "admin", message = "a failed delivery could not be noted", id);
            }
            return Err(error);
        }
        let delete = Statement::new("DELETE FROM outbox WHERE id = ?1").bind(*id);
        db.ask(&[delete]).await.map_err(|problem| problem.message)?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Row {
    id: u64,
    effect: Json<Effect>,
}

/// Delivers what is left over from changes whose delivery failed, or whose request ended before it. A row that fails does
/// not hold up the others.
///
/// # Errors
/// The database does not answer, or how many rows failed.
pub async fn drain(env: &Env) -> Result<u64, String> {
    let db = Database::of(env).map_err(|problem| problem.message)?;
    drain_from(env, &db).await
}

/// As [`drain`], with the database at hand.
///
/// # Errors
/// As [`drain`].
pub(super) async fn drain_from(env: &Env, db: &Database) -> Result<u64, String> {
    let oldest = Statement::new("SELECT id, effect FROM outbox ORDER BY attempts, id LIMIT ?1").bind(AT_ONCE);
    let rows: Vec<Row> = db.rows(oldest).await.map_err(|problem| problem.message)?;
    let (mut delivered, mut failed) = (0u64, Vec::new());
    for row in rows {
        match deliver(env, db, &[(row.id, row.effect.0)]).await {
            Ok(()) => delivered = delivered.saturating_add(1),
            Err(error) => failed.push(error),
        }
    }
    match failed.first() {
        None => Ok(delivered),
        Some(first) => Err(format!("{} of the outbox's rows cannot be delivered, the first: {first}", failed.len())),
    }
}
