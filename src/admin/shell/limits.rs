//! Limits and budgets.

use super::accounts;
use super::answer::{Answer, conflict, not_found};
use super::context::Context;
use super::write::{Write, guard_revision};
use crate::admin::statement::Statement;
use crate::admin::types::keys::{Limit, LimitSettings};
use crate::config::problems_of_terms;
use crate::error::{FieldProblem, Problem};

macro_rules! columns {
    () => {
        "SELECT json_object('id', id, 'account_id', account_id, 'user_id', user_id, 'key_id', key_id, 'model', model, \
         'dimension', dimension, 'period', period, 'amount', amount, 'burst', burst, 'mode', mode, 'revision', revision, \
         'created_at', created_at, 'updated_at', updated_at) AS row FROM limits WHERE account_id = ?1 "
    };
}

/// All limits of an account.
pub(super) const ALL_OF_ACCOUNT: &str = concat!(columns!(), "ORDER BY created_at, id");
const LIST: &str = concat!(columns!(), "AND (created_at, id) < (?2, ?3) ORDER BY created_at DESC, id DESC LIMIT ?4");
const GET: &str = concat!(columns!(), "AND id = ?2");

/// Limits that an account may have: its ledger looks at all of them with each request.
const MOST: u64 = 500;

/// Limits of the same subject that say the same of the same thing; of two, one would be of no effect.
macro_rules! same_kind {
    () => {
        " FROM limits WHERE account_id = ?1 AND user_id IS ?2 AND key_id IS ?3 AND model IS ?4 AND dimension = ?5 \
         AND period = ?6"
    };
}

async fn find(context: &Context<'_>) -> Result<Limit, Problem> {
    let id = context.parameter("limit");
    let limit = Statement::new(GET).bind(context.account()).bind(id);
    context.db.object(limit).await?.ok_or_else(|| not_found("limit", id))
}

pub(super) async fn list(context: &Context<'_>) -> Result<Answer, Problem> {
    let account = accounts::find(context, context.account()).await?;
    let statement = Statement::new(LIST).bind(account.id);
    context.paged(statement, |limit: &Limit| (limit.created_at, limit.id.clone())).await
}

pub(super) async fn create(context: &Context<'_>) -> Result<Answer, Problem> {
    let settings: LimitSettings = context.body()?;
    check(&settings)?;
    let account = accounts::find(context, context.account()).await?;
    check_subject(context, &settings).await?;
    let now = context.now();
    let limit = Limit {
        id: context.fresh_id("lim")?,
        account_id: account.id,
        settings,
        revision: 1,
        created_at: now,
        updated_at: now,
    };
    check_twin(context, &limit).await?;
    check_number(context, 1).await?;
    let write = Write::new("limits:create", "limit", &limit.id)
        .in_account(&limit.account_id)
        .creates(&limit)
        .with(insert(&limit))
        .with(guard_twin(&limit))
        .with(guard_number(&limit.account_id))
        .then(accounts::effect(&limit.account_id));
    let done = context.commit(write, Answer::json(201, &limit)?.revision(1)).await;
    if done.as_ref().is_err_and(|problem| problem.code == "outdated") {
        // Somebody else was faster: it is told what is there now.
        check_twin(context, &limit).await?;
        check_number(context, 1).await?;
    }
    done
}

pub(super) async fn get(context: &Context<'_>) -> Result<Answer, Problem> {
    let limit = find(context).await?;
    Ok(Answer::ok(&limit)?.revision(limit.revision))
}

pub(super) async fn update(context: &Context<'_>) -> Result<Answer, Problem> {
    let before = find(context).await?;
    context.check_revision(before.revision)?;
    let settings: LimitSettings = context.merged(&before.settings)?;
    check(&settings)?;
    if (&settings.user_id, &settings.key_id) != (&before.settings.user_id, &before.settings.key_id) {
        check_subject(context, &settings).await?;
    }
    let after =
        Limit { settings, revision: before.revision.saturating_add(1), updated_at: context.now(), ..before.clone() };
    let moved = kind(&before.settings) != kind(&after.settings);
    if moved {
        check_twin(context, &after).await?;
    }
    let update = bind(
        Statement::new(
            "UPDATE limits SET account_id = ?2, user_id = ?3, key_id = ?4, model = ?5, dimension = ?6, period = ?7, \
             amount = ?8, burst = ?9, mode = ?10, revision = ?11, created_at = ?12, updated_at = ?13 WHERE id = ?1",
        ),
        &after,
    );
    let mut write = Write::new("limits:update", "limit", &after.id)
        .in_account(&after.account_id)
        .change(&before, &after)
        .with(Statement::new(guard_revision!("limits", "id")).bind(&after.id).bind(before.revision))
        .with(update)
        .then(accounts::effect(&after.account_id));
    if moved {
        write = write.with(guard_twin(&after));
    }
    context.commit(write, Answer::ok(&after)?.revision(after.revision)).await
}

pub(super) async fn delete(context: &Context<'_>) -> Result<Answer, Problem> {
    let limit = find(context).await?;
    context.check_revision(limit.revision)?;
    let write = Write::new("limits:delete", "limit", &limit.id)
        .in_account(&limit.account_id)
        .removes(&limit)
        .with(Statement::new(guard_revision!("limits", "id")).bind(&limit.id).bind(limit.revision))
        .with(Statement::new("DELETE FROM limits WHERE id = ?1").bind(&limit.id))
        .then(accounts::effect(&limit.account_id));
    context.commit(write, Answer::done()).await
}

/// The statement that stores a new limit.
pub(super) fn insert(limit: &Limit) -> Statement {
    bind(
        Statement::new(
            "INSERT INTO limits (id, account_id, user_id, key_id, model, dimension, period, amount, burst, mode, revision, \
             created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        ),
        limit,
    )
}

/// Their names in the database are their names in JSON.
fn name(value: serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn bind(statement: Statement, limit: &Limit) -> Statement {
    let (settings, terms) = (&limit.settings, &limit.settings.terms);
    statement
        .bind(&limit.id)
        .bind(&limit.account_id)
        .bind(settings.user_id.clone())
        .bind(settings.key_id.clone())
        .bind(terms.model.clone())
        .bind(name(serde_json::json!(terms.dimension)))
        .bind(name(serde_json::json!(terms.period)))
        .bind(terms.amount)
        .bind(terms.burst)
        .bind(name(serde_json::json!(terms.mode)))
        .bind(limit.revision)
        .bind(limit.created_at)
        .bind(limit.updated_at)
}

fn bind_kind(sql: &'static str, limit: &Limit) -> Statement {
    let (settings, terms) = (&limit.settings, &limit.settings.terms);
    Statement::new(sql)
        .bind(&limit.account_id)
        .bind(settings.user_id.clone())
        .bind(settings.key_id.clone())
        .bind(terms.model.clone())
        .bind(name(serde_json::json!(terms.dimension)))
        .bind(name(serde_json::json!(terms.period)))
}

/// Whom a limit holds for, and what it limits.
fn kind(settings: &LimitSettings) -> impl PartialEq + use<> {
    let terms = settings.terms.clone();
    (settings.user_id.clone(), settings.key_id.clone(), terms.model, terms.dimension, terms.period)
}

/// 409 if there is another limit of the same kind.
async fn check_twin(context: &Context<'_>, limit: &Limit) -> Result<(), Problem> {
    #[derive(serde::Deserialize)]
    struct Twin {
        id: String,
    }
    let twin = bind_kind(concat!("SELECT id", same_kind!(), " AND id <> ?7 LIMIT 1"), limit).bind(&limit.id);
    let Some(Twin { id }) = context.db.first(twin).await? else { return Ok(()) };
    let message =
        format!("The limit `{id}` is of the same kind (whom it holds for, model, dimension, period): change that one.");
    Err(conflict("already_exists", message))
}

/// 409 if an account cannot have so many limits more.
///
/// # Errors
/// 409; 503 if the database does not answer.
pub(super) async fn check_number(context: &Context<'_>, more: usize) -> Result<(), Problem> {
    #[derive(serde::Deserialize)]
    struct Number {
        limits: u64,
    }
    let number = Statement::new("SELECT count(*) AS limits FROM limits WHERE account_id = ?1").bind(context.account());
    let there = context.db.first::<Number>(number).await?.map_or(0, |number| number.limits);
    if there.saturating_add(more as u64) <= MOST {
        return Ok(());
    }
    let message = format!(
        "The account has {there} limits, and may have {MOST}. What holds for every key or user alike can be said once, in \
         the configuration (`limits.per_key`, `limits.per_user`)."
    );
    Err(conflict("too_many_limits", message))
}

/// A guard that stands after what it watches: the batch fails if there is another limit of the same kind.
fn guard_twin(limit: &Limit) -> Statement {
    bind_kind(concat!("INSERT INTO guards SELECT 'same kind' WHERE (SELECT count(*)", same_kind!(), ") > 1"), limit)
}

/// A guard that stands after what it watches: the batch fails if the account has too many limits.
pub(super) fn guard_number(account: &str) -> Statement {
    Statement::new("INSERT INTO guards SELECT 'limits' WHERE (SELECT count(*) FROM limits WHERE account_id = ?1) > ?2")
        .bind(account)
        .bind(MOST)
}

/// What the description cannot say of a limit.
fn check(settings: &LimitSettings) -> Result<(), Problem> {
    let mut fields = Vec::new();
    if settings.user_id.is_some() && settings.key_id.is_some() {
        let message = "must be left out where `user_id` is given: a limit holds for a user or a key";
        fields.push(FieldProblem { path: "key_id".to_owned(), message: message.to_owned() });
    }
    fields.extend(problems_of_terms(&settings.terms, ""));
    Problem::of_fields(fields)
}

async fn check_subject(context: &Context<'_>, settings: &LimitSettings) -> Result<(), Problem> {
    if let Some(user) = &settings.user_id {
        check_member(context, user).await?;
    }
    if let Some(key) = &settings.key_id {
        let known = Statement::new("SELECT id AS row FROM api_keys WHERE account_id = ?1 AND id = ?2");
        let known: Vec<Known> = context.db.rows(known.bind(context.account()).bind(key)).await?;
        if known.is_empty() {
            return Err(Problem::invalid("key_id", "There is no such key in this account."));
        }
    }
    Ok(())
}

/// A guard: the batch fails unless the user, if any, still belongs to the account.
pub(super) fn guard_member(account: &str, user: Option<&str>) -> Statement {
    Statement::new(
        "INSERT INTO guards SELECT 'member' WHERE ?2 IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM account_members WHERE account_id = ?1 AND user_id = ?2)",
    )
    .bind(account)
    .bind(user)
}

/// 400 unless a user belongs to the account of the path.
///
/// # Errors
/// 400; 503 if the database does not answer.
pub(super) async fn check_member(context: &Context<'_>, user: &str) -> Result<(), Problem> {
    let known = Statement::new("SELECT user_id AS row FROM account_members WHERE account_id = ?1 AND user_id = ?2");
    let known: Vec<Known> = context.db.rows(known.bind(context.account()).bind(user)).await?;
    if known.is_empty() {
        return Err(Problem::invalid("user_id", "This user does not belong to the account."));
    }
    Ok(())
}

/// That something is there.
#[derive(serde::Deserialize)]
struct Known {}
