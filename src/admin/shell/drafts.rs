//! The draft as a whole: read from its tables, and written back into them.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::context::Context;
use super::database::{Json, rows};
use super::entries::{MODELS, PRICES, PROVIDERS, ROUTES};
use super::versions::{CURRENT, Current};
use crate::admin::draft;
use crate::admin::statement::Statement;
use crate::config::{Config, Parts, compile, content_hash, split};
use crate::error::{FieldProblem, Problem};

const ALL: &str = "SELECT 'settings' AS section, '' AS name, document FROM settings \
     UNION ALL SELECT 'providers', name, document FROM providers UNION ALL SELECT 'models', name, document FROM models \
     UNION ALL SELECT 'routes', name, document FROM routes UNION ALL SELECT 'prices', name, document FROM prices \
     ORDER BY 1, 2";

/// The draft, and what is current.
pub(super) struct Draft {
    pub(super) document: Value,
    /// Names its content.
    pub(super) hash: String,
    pub(super) current: Option<Current>,
    /// The last entry of the audit log when it was read.
    head: u64,
}

#[derive(Deserialize)]
struct Row {
    section: String,
    name: String,
    document: Json<Value>,
}

#[derive(Deserialize)]
struct Head {
    sequence: u64,
}

/// Reads it.
///
/// # Errors
/// 503 if the database does not answer.
pub(super) async fn load(context: &Context<'_>) -> Result<Draft, Problem> {
    let head = "SELECT coalesce(max(sequence), 0) AS sequence FROM audit_log";
    let answers = context.db.ask(&[Statement::new(ALL), Statement::new(CURRENT), Statement::new(head)]).await?;
    let mut parts = Parts::default();
    for row in answers.first().map_or_else(|| Ok(Vec::new()), rows::<Row>)? {
        let entries = match row.section.as_str() {
            "providers" => &mut parts.providers,
            "models" => &mut parts.models,
            "routes" => &mut parts.routes,
            "prices" => &mut parts.prices,
            _ => {
                if let Value::Object(settings) = row.document.0 {
                    parts.settings = settings;
                }
                continue;
            }
        };
        entries.insert(row.name, row.document.0);
    }
    let document = compile(parts);
    let current = answers.get(1).map_or_else(|| Ok(Vec::new()), rows::<Current>)?;
    let head = answers.get(2).map_or_else(|| Ok(Vec::new()), rows::<Head>)?;
    Ok(Draft {
        hash: content_hash(&document),
        document,
        current: current.into_iter().next(),
        head: head.first().map_or(0, |head| head.sequence),
    })
}

impl Draft {
    /// A guard: nobody has changed it since it was read. Every change is in the audit log.
    pub(super) fn guard(&self) -> Statement {
        Statement::new(
            "INSERT INTO guards SELECT 'draft' WHERE EXISTS (SELECT 1 FROM audit_log WHERE sequence > ?1 \
             AND target_kind IN ('provider', 'model', 'route', 'price', 'settings', 'draft', 'configuration'))",
        )
        .bind(self.head)
    }
}

/// Makes a document the draft. What it does not have goes, what has not changed keeps its revision. The order is that
/// of the references between the tables.
pub(super) fn replace(document: Value, now: u64) -> Vec<Statement> {
    let Parts { settings, providers, models, routes, prices } = split(document);
    let [providers, models, routes, prices] =
        [providers, models, routes, prices].map(|entries: Map<String, Value>| Value::Object(entries).to_string());
    let upsert = |sql: &'static str, entries: &String| Statement::new(sql).bind(entries).bind(now);
    let retain = |sql: &'static str, entries: &String| Statement::new(sql).bind(entries);
    vec![
        Statement::new(
            "UPDATE settings SET document = ?1, revision = revision + 1, updated_at = ?2 WHERE document <> ?1",
        )
        .bind(Value::Object(settings))
        .bind(now),
        upsert(PROVIDERS.upsert_all, &providers),
        upsert(MODELS.upsert_all, &models),
        Statement::new("DELETE FROM route_targets"),
        retain(PRICES.retain, &prices),
        retain(ROUTES.retain, &routes),
        retain(MODELS.retain, &models),
        retain(PROVIDERS.retain, &providers),
        upsert(ROUTES.upsert_all, &routes),
        upsert(PRICES.upsert_all, &prices),
        Statement::new(
            "INSERT INTO route_targets (route, position, model) \
             SELECT r.key, t.key, json_extract(t.value, '$.model') \
             FROM json_each(?1) r, json_each(r.value, '$.targets') t \
             WHERE json_extract(t.value, '$.model') IS NOT NULL",
        )
        .bind(&routes),
    ]
}

/// Reads a whole configuration; the inner error is everything that is wrong with it, credentials that do not exist
/// included.
///
/// # Errors
/// 503 if the database does not answer.
pub(super) async fn judge(
    context: &Context<'_>,
    document: &Value,
) -> Result<Result<Config, Vec<FieldProblem>>, Problem> {
    let read = draft::read(document);
    let wanted = read.as_ref().map(draft::stored_credentials).unwrap_or_default();
    if wanted.is_empty() {
        return Ok(read);
    }
    let missing = Statement::new(
        "SELECT key AS path, 'there is no stored credential `' || value || '`' AS message FROM json_each(?1) \
         WHERE value NOT IN (SELECT id FROM provider_credentials) ORDER BY key",
    );
    let missing: Vec<FieldProblem> = context.db.rows(missing.bind(json!(wanted))).await?;
    Ok(if missing.is_empty() { read } else { Err(missing) })
}
