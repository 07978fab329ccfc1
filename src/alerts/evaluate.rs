//! Looks at the rules that are due, and opens and resolves events.

use wasm_bindgen::JsValue;
use worker::{D1Database, D1PreparedStatement, Result};

use super::rules::{Change, Rule, Sums};
use crate::store::d1::{batch, changed, number};

/// Rules that are looked at together.
const BATCH: usize = 50;

/// Rules that a deployment can have.
const MOST: usize = 10_000;

/// What a look at the rules came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evaluated {
    /// Rules that were due.
    pub rules: usize,
    /// Events that were opened.
    pub opened: usize,
    /// Events that were resolved.
    pub resolved: u64,
}

/// Resolves what is open of providers that are not there any more: nobody else would. `now` is in milliseconds.
///
/// # Errors
/// What the database says.
pub async fn forget_gone(database: &D1Database, providers: &[&String], now: u64) -> Result<()> {
    let statement = database.prepare(
        "UPDATE alert_events SET resolved_at = ?1 WHERE resolved_at IS NULL AND kind LIKE 'provider_%' \
         AND detail ->> 'provider' NOT IN (SELECT value FROM json_each(?2))",
    );
    statement.bind(&[number(now / 1000), serde_json::to_string(providers)?.into()])?.run().await.map(drop)
}

/// Looks at the rules; `now` is in milliseconds.
///
/// # Errors
/// What the database says.
pub async fn evaluate(database: &D1Database, now: u64) -> Result<Evaluated> {
    let minute = now / 60_000;
    // Rules that are gone or switched off hold no more.
    let orphans = database
        .prepare(
            "UPDATE alert_events SET resolved_at = ?1 WHERE resolved_at IS NULL AND kind = 'rule' \
             AND rule_id NOT IN (SELECT id FROM alert_rules WHERE enabled = 1)",
        )
        .bind(&[number(now / 1000)])?
        .run()
        .await?;
    let mut done = Evaluated { resolved: changed(&orphans), ..Evaluated::default() };
    let rules: Vec<Rule> = database
        .prepare(
            "SELECT r.id, r.account_id, r.name, r.metric, r.threshold, r.window_minutes, r.model, r.provider, \
             r.revision, r.updated_at, EXISTS (SELECT 1 FROM alert_events e WHERE e.rule_id = r.id AND e.resolved_at IS NULL) AS open \
             FROM alert_rules r WHERE r.enabled = 1 ORDER BY r.created_at, r.id LIMIT ?1",
        )
        .bind(&[number(MOST as u64)])?
        .all()
        .await?
        .results()?;
    let due: Vec<Rule> = rules.into_iter().filter(|rule| rule.is_due(minute)).collect();
    for rules in due.chunks(BATCH) {
        let questions: Vec<D1PreparedStatement> =
            rules.iter().map(|rule| sums(database, rule, minute)).collect::<Result<_>>()?;
        let answers = batch(database, questions).await?;
        let mut writes = Vec::new();
        for (rule, answer) in rules.iter().zip(answers) {
            let sums = answer.results::<Sums>()?.into_iter().next().unwrap_or_default();
            let change = rule.change(&sums);
            writes.extend(write(database, rule, change, now)?);
            match change {
                Change::Opens(_) => done.opened = done.opened.saturating_add(1),
                Change::Resolves(_) => done.resolved = done.resolved.saturating_add(1),
                Change::None => {}
            }
            done.rules = done.rules.saturating_add(1);
        }
        if !writes.is_empty() {
            batch(database, writes).await?;
        }
    }
    Ok(done)
}

/// The sums over a rule's window. Only the conditions that the rule has are asked, so that an index can serve them. No
/// threshold is above 2^53 - 1, the largest number that is exact on its way here, so larger sums need not be; nor may one
/// that no integer holds keep the other rules from being looked at, as with `SUM` it would.
fn sums(database: &D1Database, rule: &Rule, minute: u64) -> Result<D1PreparedStatement> {
    let mut statement = "SELECT COALESCE(SUM(requests), 0) AS requests, COALESCE(SUM(errors), 0) AS errors, \
        CAST(MIN(TOTAL(cost_nanos), 9007199254740991) AS INTEGER) AS cost, COALESCE(SUM(unpriced), 0) AS unpriced, \
        CAST(MIN(TOTAL(input + cache_read + cache_write_5m + cache_write_1h + input_audio + output + \
        output_reasoning + output_audio), 9007199254740991) AS INTEGER) AS total_tokens FROM usage WHERE minute >= ?"
        .to_owned();
    let mut values = vec![number(rule.since(minute))];
    for (condition, value) in [("account_id", &rule.account_id), ("model", &rule.model), ("provider", &rule.provider)] {
        if let Some(value) = value {
            statement.push_str(&format!(" AND {condition} = ?"));
            values.push(JsValue::from_str(value));
        }
    }
    database.prepare(statement).bind(&values)
}

fn write(database: &D1Database, rule: &Rule, change: Change, now: u64) -> Result<Option<D1PreparedStatement>> {
    let (rule_id, name, account) = (rule.id.as_str(), rule.name.as_str(), rule.account_id.as_deref().unwrap_or(""));
    let threshold = rule.threshold;
    match change {
        Change::None => Ok(None),
        Change::Opens(value) => {
            tracing::warn!(target: "alert", message = "opened", rule_id, name, account, value, threshold);
            let mut random = [0; 10];
            // Without randomness the time still tells ids apart.
            let _without = getrandom::getrandom(&mut random);
            let id = uuid::Builder::from_unix_timestamp_millis(now, &random).into_uuid();
            let statement = database
                .prepare(
                    "INSERT OR IGNORE INTO alert_events \
                     (id, rule_id, account_id, name, metric, threshold, value, started_at) \
                     SELECT ?1, id, account_id, name, metric, threshold, ?2, ?3 FROM alert_rules \
                     WHERE id = ?4 AND revision = ?5",
                )
                .bind(&[
                    id.to_string().into(),
                    number(value),
                    number(now / 1000),
                    rule_id.into(),
                    number(rule.revision),
                ])?;
            Ok(Some(statement))
        }
        Change::Resolves(value) => {
            tracing::info!(target: "alert", message = "resolved", rule_id, name, account, value, threshold);
            let statement = database
                .prepare("UPDATE alert_events SET resolved_at = ?1 WHERE rule_id = ?2 AND resolved_at IS NULL")
                .bind(&[number(now / 1000), rule_id.into()])?;
            Ok(Some(statement))
        }
    }
}
