//! Alert rules and what they raised. They are evaluated every minute (see [`crate::alerts`]).

use super::accounts;
use super::answer::{Answer, not_found};
use super::context::Context;
use super::write::{Write, guard_revision};
use crate::admin::filters;
use crate::admin::statement::Statement;
use crate::admin::types::alerts::{
    AlertEvent, AlertEventFilter, AlertMetric, AlertRule, AlertRuleFilter, AlertRuleSettings,
};
use crate::error::{FieldProblem, Problem};

macro_rules! rules {
    ($rest:literal) => {
        concat!(
            "SELECT json_object('id', id, 'account_id', account_id, 'name', name, 'metric', metric, \
             'threshold', threshold, 'window_minutes', window_minutes, 'model', model, 'provider', provider, \
             'enabled', json(CASE enabled WHEN 1 THEN 'true' ELSE 'false' END), 'revision', revision, \
             'created_at', created_at, 'updated_at', updated_at) AS row FROM alert_rules ",
            $rest
        )
    };
}

const LIST: &str = rules!("WHERE (created_at, id) < (?1, ?2) ORDER BY created_at DESC, id DESC LIMIT ?3");
const LIST_OF_ACCOUNT: &str =
    rules!("WHERE account_id = ?1 AND (created_at, id) < (?2, ?3) ORDER BY created_at DESC, id DESC LIMIT ?4");
const GET: &str = rules!("WHERE id = ?1");

/// `?1` is the account, `?2` the kind; either may be null.
macro_rules! events {
    ($choice:literal) => {
        concat!(
            "SELECT json_object('id', id, 'rule_id', rule_id, 'account_id', account_id, 'name', name, 'metric', metric, \
             'threshold', threshold, 'value', value, 'started_at', started_at, 'resolved_at', resolved_at, 'kind', kind, \
             'detail', CASE WHEN kind LIKE 'limit%' THEN json(detail) END, \
             'provider', CASE WHEN kind LIKE 'provider%' THEN json(detail) END) AS row \
             FROM alert_events ",
            $choice,
            " AND (?2 IS NULL OR kind = ?2) AND (started_at, id) < (?3, ?4) ORDER BY started_at DESC, id DESC LIMIT ?5"
        )
    };
}

// Open events are few, whatever their age: they have an index of their own.
const OPEN: &str =
    events!("INDEXED BY alert_events_open WHERE resolved_at IS NULL AND (?1 IS NULL OR account_id = ?1)");
const EVENTS: &str = events!("INDEXED BY alert_events_started WHERE ?1 IS NULL");
const OVER: &str = events!("INDEXED BY alert_events_started WHERE ?1 IS NULL AND resolved_at IS NOT NULL");
const EVENTS_OF_ACCOUNT: &str = events!("INDEXED BY alert_events_account WHERE account_id = ?1");
const OVER_OF_ACCOUNT: &str =
    events!("INDEXED BY alert_events_account WHERE account_id = ?1 AND resolved_at IS NOT NULL");

async fn find(context: &Context<'_>) -> Result<AlertRule, Problem> {
    let id = context.parameter("rule");
    context.db.object(Statement::new(GET).bind(id)).await?.ok_or_else(|| not_found("alert rule", id))
}

pub(super) async fn list(context: &Context<'_>) -> Result<Answer, Problem> {
    let filter: AlertRuleFilter = context.query()?;
    let statement = match filter.account_id {
        Some(account) => Statement::new(LIST_OF_ACCOUNT).bind(account),
        None => Statement::new(LIST),
    };
    context.paged(statement, |rule: &AlertRule| (rule.created_at, rule.id.clone())).await
}

pub(super) async fn create(context: &Context<'_>) -> Result<Answer, Problem> {
    let settings: AlertRuleSettings = context.body()?;
    check(context, &settings).await?;
    let now = context.now();
    let rule = AlertRule { id: context.fresh_id("alr")?, settings, revision: 1, created_at: now, updated_at: now };
    let insert = bind(
        Statement::new(
            "INSERT INTO alert_rules (id, account_id, name, metric, threshold, window_minutes, model, provider, enabled, \
             revision, updated_at, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)",
        ),
        &rule,
    );
    let write = Write::new("alerts:create", "alert_rule", &rule.id)
        .in_account(rule.settings.account_id.as_deref().unwrap_or_default())
        .creates(&rule)
        .with(insert);
    context.commit(write, Answer::json(201, &rule)?.revision(1)).await
}

pub(super) async fn get(context: &Context<'_>) -> Result<Answer, Problem> {
    let rule = find(context).await?;
    Ok(Answer::ok(&rule)?.revision(rule.revision))
}

/// A rule that watches something else, or by another measure, has not fired yet.
pub(super) async fn update(context: &Context<'_>) -> Result<Answer, Problem> {
    let before = find(context).await?;
    context.check_revision(before.revision)?;
    let settings: AlertRuleSettings = context.merged(&before.settings)?;
    check(context, &settings).await?;
    let after = AlertRule {
        settings,
        revision: before.revision.saturating_add(1),
        updated_at: context.now(),
        ..before.clone()
    };
    let update = bind(
        Statement::new(
            "UPDATE alert_rules SET account_id = ?2, name = ?3, metric = ?4, threshold = ?5, window_minutes = ?6, \
             model = ?7, provider = ?8, enabled = ?9, revision = ?10, updated_at = ?11 WHERE id = ?1",
        ),
        &after,
    );
    let (old, new) = (&before.settings, &after.settings);
    let mut write = Write::new("alerts:update", "alert_rule", &after.id)
        .in_account(new.account_id.as_ref().or(old.account_id.as_ref()).map_or("", String::as_str))
        .change(&before, &after)
        .with(Statement::new(guard_revision!("alert_rules", "id")).bind(&after.id).bind(before.revision))
        .with(update);
    if *new != (AlertRuleSettings { name: new.name.clone(), ..old.clone() }) {
        write = write.with(resolve(context, &after.id));
    }
    context.commit(write, Answer::ok(&after)?.revision(after.revision)).await
}

pub(super) async fn delete(context: &Context<'_>) -> Result<Answer, Problem> {
    let rule = find(context).await?;
    context.check_revision(rule.revision)?;
    let write = Write::new("alerts:delete", "alert_rule", &rule.id)
        .in_account(rule.settings.account_id.as_deref().unwrap_or_default())
        .removes(&rule)
        .with(Statement::new(guard_revision!("alert_rules", "id")).bind(&rule.id).bind(rule.revision))
        .with(Statement::new("DELETE FROM alert_rules WHERE id = ?1").bind(&rule.id))
        .with(resolve(context, &rule.id));
    context.commit(write, Answer::done()).await
}

pub(super) async fn events(context: &Context<'_>) -> Result<Answer, Problem> {
    let filter: AlertEventFilter = context.query()?;
    let account = filters::account(context.account(), filter.account_id)?;
    if !context.account().is_empty() {
        accounts::find(context, context.account()).await?;
    }
    let sql = match (filter.open, &account) {
        (Some(true), _) => OPEN,
        (Some(false), None) => OVER,
        (Some(false), Some(_)) => OVER_OF_ACCOUNT,
        (None, None) => EVENTS,
        (None, Some(_)) => EVENTS_OF_ACCOUNT,
    };
    let place = |event: &AlertEvent| (event.started_at, event.id.clone());
    // Its name in the database is its name in JSON.
    let kind = filter.kind.and_then(|kind| serde_json::json!(kind).as_str().map(str::to_owned));
    context.paged(Statement::new(sql).bind(account).bind(kind), place).await
}

/// Ends the event that a rule has open.
fn resolve(context: &Context<'_>, rule: &str) -> Statement {
    Statement::new("UPDATE alert_events SET resolved_at = ?2 WHERE rule_id = ?1 AND resolved_at IS NULL")
        .bind(rule)
        .bind(context.now())
}

fn bind(statement: Statement, rule: &AlertRule) -> Statement {
    let settings = &rule.settings;
    statement
        .bind(&rule.id)
        .bind(settings.account_id.clone())
        .bind(&settings.name)
        // Its name in the database is its name in JSON.
        .bind(serde_json::json!(settings.metric).as_str().unwrap_or_default())
        .bind(settings.threshold)
        .bind(settings.window_minutes)
        .bind(settings.model.clone())
        .bind(settings.provider.clone())
        .bind(settings.enabled)
        .bind(rule.revision)
        .bind(rule.updated_at)
}

/// What the description cannot say of a rule.
async fn check(context: &Context<'_>, settings: &AlertRuleSettings) -> Result<(), Problem> {
    let mut fields = Vec::new();
    let mut add = |path: &str, message: &str| {
        fields.push(FieldProblem { path: path.to_owned(), message: message.to_owned() });
    };
    if settings.metric == AlertMetric::ErrorPercent && settings.threshold > 100 {
        add("threshold", "cannot be above 100, for it is in per cent");
    }
    if let Some(account) = &settings.account_id {
        match accounts::find(context, account).await {
            Ok(_) => {}
            Err(problem) if problem.status == 404 => add("account_id", "is not the id of an account"),
            Err(problem) => return Err(problem),
        }
    }
    filters::refuse(fields)
}
