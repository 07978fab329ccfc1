//! Writes to D1 what objects have gathered: ledgers their usage and alerts, gauges what has turned. One batch of usage is one transaction, and its number is part of it: a batch that was
//! written already changes nothing when it comes again.

use serde_json::Value;
use worker::{D1Database, Env, Result};

use crate::http::shell::now_ms;
use crate::limits::usage::{UsageEntry, add_rows, chunks, records, roll_up};
use crate::store::d1;

/// Bytes of JSON for one statement. D1 takes two million.
const STATEMENT_BYTES: usize = 1_000_000;

const CLAIM: &str = "INSERT INTO usage_batches (object, sequence, applied_at) VALUES (?1, ?2, ?3)";

const CLAIMED: &str = "SELECT sequence FROM usage_batches WHERE object = ?1 AND sequence = ?2";

const ADD_RECORDS: &str = "INSERT OR IGNORE INTO request_records (request_id, account_id, at_ms, key_id, user_id, model, \
    provider, status, outcome, cost_nanos, record) \
    SELECT CASE WHEN EXISTS (SELECT 1 FROM request_records r WHERE r.account_id = value ->> 'account' \
    AND r.request_id = value ->> 'request_id') THEN value ->> 'else_id' ELSE value ->> 'request_id' END, \
    value ->> 'account', value ->> 'at_ms', value ->> 'key_id', value ->> 'user', value ->> 'model', \
    value ->> 'provider', value ->> 'status', value ->> 'outcome', value ->> 'cost_nanos', value -> 'record' \
    FROM json_each(?1)";

/// Writes a batch to D1, once.
pub(super) async fn write(
    env: &Env,
    object: &str,
    batch: u64,
    entries: &[UsageEntry],
) -> std::result::Result<(), String> {
    let database = env.d1("DB").map_err(|error| error.to_string())?;
    let Err(error) = write_all(&database, object, batch, entries).await else { return Ok(()) };
    // It may have been written before and the answer lost.
    let claimed = async {
        let claimed = database.prepare(CLAIMED).bind(&[object.into(), d1::number(batch)])?;
        claimed.first::<f64>(Some("sequence")).await
    };
    match claimed.await {
        Ok(Some(_)) => Ok(()),
        _ => Err(error.to_string()),
    }
}

async fn write_all(database: &D1Database, object: &str, batch: u64, entries: &[UsageEntry]) -> Result<()> {
    let mut statements =
        vec![database.prepare(CLAIM).bind(&[object.into(), d1::number(batch), d1::number(now_ms() / 1000)])?];
    for rows in chunks(&roll_up(entries), STATEMENT_BYTES)? {
        statements.push(database.prepare(add_rows()).bind(&[rows.into()])?);
    }
    for rows in chunks(&records(entries), STATEMENT_BYTES)? {
        statements.push(database.prepare(ADD_RECORDS).bind(&[rows.into()])?);
    }
    d1::batch(database, statements).await.map(drop)
}

const ADD_ALERTS: &str = "INSERT OR IGNORE INTO alert_events (id, rule_id, account_id, name, metric, threshold, value, \
    started_at, resolved_at, kind, detail) \
    SELECT value ->> 'id', value ->> 'rule_id', value ->> 'account_id', value ->> 'name', value ->> 'metric', \
    value ->> 'threshold', value ->> 'value', value ->> 'at', value ->> 'at', value ->> 'kind', value -> 'detail' \
    FROM json_each(?1)";

/// Writes alerts, each a [`LimitEvent`](crate::alerts::limits::LimitEvent) in JSON. Those that are there already stay as
/// they are.
pub(super) async fn write_alerts<'a>(
    env: &Env,
    events: impl Iterator<Item = &'a str>,
) -> std::result::Result<(), String> {
    let events: Vec<&str> = events.collect();
    let written = async {
        let database = env.d1("DB")?;
        let statement = database.prepare(ADD_ALERTS).bind(&[format!("[{}]", events.join(",")).into()])?;
        d1::batch(&database, vec![statement]).await
    };
    written.await.map(drop).map_err(|error| error.to_string())
}

const ADD_TURNS: &str = "INSERT OR IGNORE INTO health_history (id, provider, source, healthy, latency_ms, detail, at, \
    model, state) SELECT value ->> 'id', value ->> 'provider', 'passive', value ->> 'healthy', 0, value ->> 'detail', \
    value ->> 'at', value ->> 'model', value ->> 'state' FROM json_each(?1)";

const OPEN_EVENT: &str = "INSERT OR IGNORE INTO alert_events (id, rule_id, name, metric, threshold, value, started_at, \
    kind, detail) SELECT ?1 ->> 'id', ?1 ->> 'rule_id', ?1 ->> 'name', 'errors', 1, 1, ?1 ->> 'started_at', \
    ?1 ->> 'kind', ?1 -> 'detail'";

// By rule: an event that another gauge has opened, before it counted for this provider no more, is over as well.
const RESOLVE_EVENT: &str = "UPDATE alert_events SET resolved_at = ?1 ->> 'resolved_at' \
    WHERE rule_id = ?1 ->> 'rule_id' AND resolved_at IS NULL AND ?1 ->> 'resolved_at' IS NOT NULL";

/// Writes what has turned, each an [`entry`](super::turns::entry), and what is to become of alerts, each a
/// [`ProviderEvent`](crate::alerts::providers::ProviderEvent) in JSON, in the order in which it happened. What is there
/// already stays as it is.
pub(super) async fn write_health<'a>(
    env: &Env,
    turns: Vec<Value>,
    events: impl Iterator<Item = &'a str>,
) -> std::result::Result<(), String> {
    let written = async {
        let database = env.d1("DB")?;
        let mut statements = vec![database.prepare(ADD_TURNS).bind(&[serde_json::to_string(&turns)?.into()])?];
        for event in events {
            statements.push(database.prepare(OPEN_EVENT).bind(&[event.into()])?);
            statements.push(database.prepare(RESOLVE_EVENT).bind(&[event.into()])?);
        }
        d1::batch(&database, statements).await
    };
    written.await.map(drop).map_err(|error: worker::Error| error.to_string())
}
