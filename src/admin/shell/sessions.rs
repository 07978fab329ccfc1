//! Sessions.

use super::answer::{Answer, not_found};
use super::context::Context;
use super::users;
use super::write::Write;
use crate::admin::statement::Statement;
use crate::admin::types::identity::Session;
use crate::error::Problem;

macro_rules! columns {
    () => {
        "SELECT json_object('id', id, 'user_id', user_id, 'ip', ip, 'user_agent', user_agent, 'created_at', created_at, \
         'last_used_at', last_used_at, 'expires_at', expires_at, 'revoked_at', revoked_at) AS row FROM sessions "
    };
}

const LIST: &str = concat!(columns!(), "WHERE (created_at, id) < (?1, ?2) ORDER BY created_at DESC, id DESC LIMIT ?3");
const OF_USER: &str = concat!(
    columns!(),
    "WHERE user_id = ?1 AND (created_at, id) < (?2, ?3) ORDER BY created_at DESC, id DESC LIMIT ?4"
);
const GET: &str = concat!(columns!(), "WHERE id = ?1 AND user_id = ?2");

fn place(session: &Session) -> (u64, String) {
    (session.created_at, session.id.clone())
}

pub(super) async fn list_all(context: &Context<'_>) -> Result<Answer, Problem> {
    context.paged(Statement::new(LIST), place).await
}

pub(super) async fn list_of_user(context: &Context<'_>) -> Result<Answer, Problem> {
    let user = users::find(context, context.parameter("user")).await?;
    context.paged(Statement::new(OF_USER).bind(user.id), place).await
}

pub(super) async fn list_mine(context: &Context<'_>) -> Result<Answer, Problem> {
    context.paged(Statement::new(OF_USER).bind(context.actor.user().unwrap_or_default()), place).await
}

pub(super) async fn end_mine(context: &Context<'_>) -> Result<Answer, Problem> {
    end(context, context.actor.user().unwrap_or_default(), context.parameter("session")).await
}

pub(super) async fn end_one_of_user(context: &Context<'_>) -> Result<Answer, Problem> {
    end(context, context.parameter("user"), context.parameter("session")).await
}

pub(super) async fn end_of_user(context: &Context<'_>) -> Result<Answer, Problem> {
    let user = users::find(context, context.parameter("user")).await?;
    let write = Write::new("sessions:revoke_all", "user", &user.id).with(users::end_sessions(&user.id, context.now()));
    context.commit(write, Answer::done()).await
}

/// Ends a session; one that has ended already stays so.
///
/// # Errors
/// 404 if the user has no such session.
pub(super) async fn end(context: &Context<'_>, user: &str, id: &str) -> Result<Answer, Problem> {
    let session: Option<Session> = context.db.object(Statement::new(GET).bind(id).bind(user)).await?;
    let session = session.ok_or_else(|| not_found("session", id))?;
    if session.revoked_at.is_some() {
        return Ok(Answer::done());
    }
    let write = Write::new("sessions:revoke", "session", id)
        .removes(&session)
        .with(Statement::new("UPDATE sessions SET revoked_at = ?2 WHERE id = ?1").bind(id).bind(context.now()));
    context.commit(write, Answer::done()).await
}
