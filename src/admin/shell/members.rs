//! Who belongs to an account.

use super::answer::{Answer, conflict, not_found};
use super::context::{Context, outdated};
use super::roles::require_grantable;
use super::write::{Write, guard_revision};
use super::{accounts, users};
use crate::admin::statement::Statement;
use crate::admin::types::people::{Member, MemberSettings};
use crate::error::Problem;

macro_rules! columns {
    () => {
        "SELECT json_object('account_id', m.account_id, 'user_id', m.user_id, 'name', u.name, 'email', u.email, \
         'role_id', m.role_id, 'revision', m.revision, 'created_at', m.created_at, 'updated_at', m.updated_at) AS row \
         FROM account_members m JOIN users u ON u.id = m.user_id WHERE m.account_id = ?1 "
    };
}

const LIST: &str =
    concat!(columns!(), "AND (m.created_at, m.user_id) < (?2, ?3) ORDER BY m.created_at DESC, m.user_id DESC LIMIT ?4");
const GET: &str = concat!(columns!(), "AND m.user_id = ?2");

pub(super) async fn list(context: &Context<'_>) -> Result<Answer, Problem> {
    let account = accounts::find(context, context.account()).await?;
    let statement = Statement::new(LIST).bind(account.id);
    context.paged(statement, |member: &Member| (member.created_at, member.user_id.clone())).await
}

async fn find(context: &Context<'_>) -> Result<Option<Member>, Problem> {
    context.db.object(Statement::new(GET).bind(context.account()).bind(context.parameter("user"))).await
}

async fn found(context: &Context<'_>) -> Result<Member, Problem> {
    find(context).await?.ok_or_else(|| not_found("member", context.parameter("user")))
}

pub(super) async fn get(context: &Context<'_>) -> Result<Answer, Problem> {
    let member = found(context).await?;
    Ok(Answer::ok(&member)?.revision(member.revision))
}

/// Adds a member or changes the role; whoever does must hold the old role and the new one.
pub(super) async fn put(context: &Context<'_>) -> Result<Answer, Problem> {
    let settings: MemberSettings = context.body()?;
    let account = accounts::find(context, context.account()).await?;
    let user = users::find(context, context.parameter("user")).await?;
    let before = find(context).await?;
    require_grantable(context, &settings.role_id, Some(&account.id)).await?;
    match &before {
        Some(before) => {
            context.check_revision(before.revision)?;
            require_grantable(context, &before.role_id, Some(&account.id)).await?;
        }
        // What is not there has no ETag (RFC 9110, section 13.1.1).
        None if context.if_match.is_some() => return Err(outdated()),
        None => {}
    }
    let now = context.now();
    let after = Member {
        account_id: account.id,
        user_id: user.id,
        name: user.settings.name,
        email: user.email,
        role_id: settings.role_id,
        revision: before.as_ref().map_or(1, |before| before.revision.saturating_add(1)),
        created_at: before.as_ref().map_or(now, |before| before.created_at),
        updated_at: now,
    };
    let upsert = Statement::new(
        "INSERT INTO account_members (account_id, user_id, role_id, revision, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (account_id, user_id) DO UPDATE SET role_id = excluded.role_id, \
         revision = excluded.revision, updated_at = excluded.updated_at",
    )
    .bind(&after.account_id)
    .bind(&after.user_id)
    .bind(&after.role_id)
    .bind(after.revision)
    .bind(after.created_at)
    .bind(after.updated_at);
    let mut write = Write::new("members:put", "member", &after.user_id).in_account(&after.account_id);
    write = match &before {
        Some(before) => write.change(before, &after).with(guard(before)),
        None => write.creates(&after),
    };
    context.commit(write.with(upsert), Answer::ok(&after)?.revision(after.revision)).await
}

/// Whoever leaves must not go on calling models by keys of his own.
pub(super) async fn remove(context: &Context<'_>) -> Result<Answer, Problem> {
    let member = found(context).await?;
    context.check_revision(member.revision)?;
    require_grantable(context, &member.role_id, Some(&member.account_id)).await?;
    let keys = Statement::new("SELECT id FROM api_keys WHERE account_id = ?1 AND user_id = ?2 LIMIT 1");
    let keys: Vec<KeyOf> = context.db.rows(keys.bind(&member.account_id).bind(&member.user_id)).await?;
    if let Some(KeyOf { id }) = keys.first() {
        let message =
            format!("Keys of this account are the member's, such as `{id}`: delete them or give them away first.");
        return Err(conflict("in_use", message));
    }
    let delete = Statement::new("DELETE FROM account_members WHERE account_id = ?1 AND user_id = ?2")
        .bind(&member.account_id)
        .bind(&member.user_id);
    let write = Write::new("members:remove", "member", &member.user_id)
        .in_account(&member.account_id)
        .removes(&member)
        .with(guard(&member))
        .with(
            Statement::new(
                "INSERT INTO guards SELECT 'keys' WHERE EXISTS (SELECT 1 FROM api_keys WHERE account_id = ?1 AND user_id = ?2)",
            )
            .bind(&member.account_id)
            .bind(&member.user_id),
        )
        .with(delete);
    context.commit(write, Answer::done()).await
}

#[derive(serde::Deserialize)]
struct KeyOf {
    id: String,
}

fn guard(member: &Member) -> Statement {
    Statement::new(guard_revision!("account_members", "account_id || '/' || user_id"))
        .bind(format!("{}/{}", member.account_id, member.user_id))
        .bind(member.revision)
}
