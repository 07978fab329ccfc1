//! Accounts.

use super::answer::{Answer, not_found};
use super::context::Context;
use super::effects::Effect;
use super::write::{Write, guard_revision};
use crate::admin::ids;
use crate::admin::statement::Statement;
use crate::admin::types::people::{Account, AccountCreate, AccountSettings, AccountStatus};
use crate::auth::rbac::Permission;
use crate::error::{FieldProblem, Problem};

macro_rules! columns {
    () => {
        "SELECT json_object('id', id, 'name', name, 'status', status, 'metadata', json(metadata), 'revision', revision, \
         'created_at', created_at, 'updated_at', updated_at) AS row FROM accounts "
    };
}

const LIST: &str = concat!(columns!(), "WHERE (created_at, id) < (?1, ?2) ORDER BY created_at DESC, id DESC LIMIT ?3");
const LIST_SOME: &str = concat!(
    columns!(),
    "WHERE id IN (SELECT value FROM json_each(?1)) AND (created_at, id) < (?2, ?3) \
     ORDER BY created_at DESC, id DESC LIMIT ?4"
);
const GET: &str = concat!(columns!(), "WHERE id = ?1");

/// An account.
///
/// # Errors
/// 404 if there is none.
pub(super) async fn find(context: &Context<'_>, id: &str) -> Result<Account, Problem> {
    context.db.object(Statement::new(GET).bind(id)).await?.ok_or_else(|| not_found("account", id))
}

/// Whoever may see all accounts sees all, everybody else those in which he may see something.
pub(super) async fn list(context: &Context<'_>) -> Result<Answer, Problem> {
    let place = |account: &Account| (account.created_at, account.id.clone());
    let grants = &context.actor.grants;
    if grants.allow(Permission::AccountsRead, None) {
        return context.paged(Statement::new(LIST), place).await;
    }
    let visible: Vec<&String> =
        grants.accounts.iter().filter(|(_, held)| held.has(Permission::AccountsRead)).map(|(id, _)| id).collect();
    context.paged(Statement::new(LIST_SOME).bind(serde_json::json!(visible)), place).await
}

pub(super) async fn create(context: &Context<'_>) -> Result<Answer, Problem> {
    let wanted: AccountCreate = context.body()?;
    let mut fields = Vec::new();
    if wanted.id.as_deref().is_some_and(|id| !ids::is_sane(id)) {
        let message = "must have letters, digits, `-`, `_` and `.` alone, and begin with a letter or a digit";
        fields.push(FieldProblem { path: "id".to_owned(), message: message.to_owned() });
    }
    super::metadata::check(&wanted.settings.metadata, &mut fields);
    Problem::of_fields(fields)?;
    let id = match wanted.id {
        Some(id) => id,
        None => context.fresh_id("acc")?,
    };
    let now = context.now();
    let account = Account { id, settings: wanted.settings, revision: 1, created_at: now, updated_at: now };
    let insert = Statement::new(
        "INSERT INTO accounts (id, name, status, metadata, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
    )
    .bind(&account.id)
    .bind(&account.settings.name)
    .bind(status(account.settings.status))
    .bind(serde_json::json!(account.settings.metadata))
    .bind(now);
    let write = Write::new("accounts:create", "account", &account.id)
        .in_account(&account.id)
        .creates(&account)
        .with(insert)
        .then(effect(&account.id));
    context.commit(write, Answer::json(201, &account)?.revision(1)).await
}

pub(super) async fn get(context: &Context<'_>) -> Result<Answer, Problem> {
    let account = find(context, context.account()).await?;
    Ok(Answer::ok(&account)?.revision(account.revision))
}

pub(super) async fn update(context: &Context<'_>) -> Result<Answer, Problem> {
    let before = find(context, context.account()).await?;
    context.check_revision(before.revision)?;
    let settings: AccountSettings = context.merged(&before.settings)?;
    super::metadata::require(&settings.metadata)?;
    let after =
        Account { settings, revision: before.revision.saturating_add(1), updated_at: context.now(), ..before.clone() };
    let write = Write::new("accounts:update", "account", &after.id)
        .in_account(&after.id)
        .change(&before, &after)
        .with(Statement::new(guard_revision!("accounts", "id")).bind(&after.id).bind(before.revision))
        .with(
            Statement::new("UPDATE accounts SET name = ?2, status = ?3, metadata = ?4, revision = ?5, updated_at = ?6 WHERE id = ?1")
                .bind(&after.id)
                .bind(&after.settings.name)
                .bind(status(after.settings.status))
                .bind(serde_json::json!(after.settings.metadata))
                .bind(after.revision)
                .bind(after.updated_at),
        )
        .then(effect(&after.id));
    context.commit(write, Answer::ok(&after)?.revision(after.revision)).await
}

/// Keys refer to their account, so one that has any stays.
pub(super) async fn delete(context: &Context<'_>) -> Result<Answer, Problem> {
    let account = find(context, context.account()).await?;
    context.check_revision(account.revision)?;
    let write = Write::new("accounts:delete", "account", &account.id)
        .in_account(&account.id)
        .removes(&account)
        .with(Statement::new(guard_revision!("accounts", "id")).bind(&account.id).bind(account.revision))
        .with(Statement::new("DELETE FROM accounts WHERE id = ?1").bind(&account.id))
        .then(effect(&account.id));
    context.commit(write, Answer::done()).await
}

/// That the account's ledger must learn of a change.
pub(super) fn effect(account: &str) -> Effect {
    Effect::Account { account: account.to_owned() }
}

fn status(status: AccountStatus) -> &'static str {
    match status {
        AccountStatus::Active => "active",
        AccountStatus::Suspended => "suspended",
    }
}
