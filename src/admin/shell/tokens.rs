//! Service tokens.

use super::answer::{Answer, not_found};
use super::context::{Context, random};
use super::users;
use super::write::Write;
use crate::admin::statement::Statement;
use crate::admin::types::identity::{ServiceToken, ServiceTokenCreate, ServiceTokenCreated};
use crate::admin::types::people::UserKind;
use crate::auth::opaque::{Opaque, OpaqueKind};
use crate::error::Problem;

macro_rules! columns {
    () => {
        "SELECT json_object('id', id, 'user_id', user_id, 'name', name, 'expires_at', expires_at, 'revoked_at', revoked_at, \
         'last_used_at', last_used_at, 'created_at', created_at) AS row FROM service_tokens "
    };
}

const LIST: &str = concat!(
    columns!(),
    "WHERE user_id = ?1 AND (created_at, id) < (?2, ?3) ORDER BY created_at DESC, id DESC LIMIT ?4"
);
const GET: &str = concat!(columns!(), "WHERE id = ?1 AND user_id = ?2");

pub(super) async fn list(context: &Context<'_>) -> Result<Answer, Problem> {
    let user = users::find(context, context.parameter("user")).await?;
    let statement = Statement::new(LIST).bind(user.id);
    context.paged(statement, |token: &ServiceToken| (token.created_at, token.id.clone())).await
}

/// A token acts as its user, so whoever makes one must be able to do all that the user may.
pub(super) async fn create(context: &Context<'_>) -> Result<Answer, Problem> {
    let user = users::find(context, context.parameter("user")).await?;
    users::require_power_over(context, &user.id).await?;
    if user.kind == UserKind::Human {
        return Err(Problem::invalid("user", "Tokens are for programs: create a user of kind `service` for it."));
    }
    let wanted: ServiceTokenCreate = context.body()?;
    if wanted.expires_at.is_some_and(|end| end <= context.now()) {
        return Err(Problem::invalid("expires_at", "The token would have ended already."));
    }
    let token = Opaque::compose(OpaqueKind::Service, &random()?);
    let service_token = ServiceToken {
        id: token.id().to_owned(),
        user_id: user.id,
        name: wanted.name,
        expires_at: wanted.expires_at,
        revoked_at: None,
        last_used_at: None,
        created_at: context.now(),
    };
    let insert = Statement::new(
        "INSERT INTO service_tokens (id, user_id, name, hash, expires_at, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(&service_token.id)
    .bind(&service_token.user_id)
    .bind(&service_token.name)
    .bind(token.hash(&context.hash_secret()?))
    .bind(service_token.expires_at)
    .bind(service_token.created_at);
    let write = Write::new("tokens:create", "service_token", &service_token.id).creates(&service_token).with(insert);
    let created = ServiceTokenCreated { token: token.text().expose().clone(), service_token };
    context.commit(write, Answer::json(201, &created)?).await
}

pub(super) async fn revoke(context: &Context<'_>) -> Result<Answer, Problem> {
    let (user, id) = (context.parameter("user"), context.parameter("token"));
    let token: Option<ServiceToken> = context.db.object(Statement::new(GET).bind(id).bind(user)).await?;
    let token = token.ok_or_else(|| not_found("service token", id))?;
    if token.revoked_at.is_some() {
        return Ok(Answer::done());
    }
    let write = Write::new("tokens:revoke", "service_token", id)
        .removes(&token)
        .with(Statement::new("UPDATE service_tokens SET revoked_at = ?2 WHERE id = ?1").bind(id).bind(context.now()));
    context.commit(write, Answer::done()).await
}
