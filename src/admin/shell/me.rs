//! One's own user.

use serde::Deserialize;

use super::answer::Answer;
use super::context::{Context, random};
use super::users;
use super::write::Write;
use crate::admin::statement::Statement;
use crate::admin::types::identity::{Me, MeChange, ModelToken, ModelTokenRequest, PasswordChange};
use crate::admin::types::people::{User, UserSettings};
use crate::auth::password;
use crate::auth::rbac::PermissionSet;
use crate::auth::session_token::{Issue, ModelsGrant, sign_models};
use crate::error::{Kind, Problem};
use crate::secret::Secret;

async fn own(context: &Context<'_>) -> Result<User, Problem> {
    match context.actor.user() {
        Some(user) => users::find(context, user).await,
        None => {
            let message = "An external issuer vouches for you; there is no user here that could be changed.";
            Err(Problem::new(Kind::Permission, "no_user", message).final_answer())
        }
    }
}

pub(super) async fn get(context: &Context<'_>) -> Result<Answer, Problem> {
    let user = match context.actor.user() {
        Some(user) => Some(users::find(context, user).await?),
        None => None,
    };
    let names = |set: PermissionSet| set.iter().map(|permission| permission.name().to_owned()).collect::<Vec<_>>();
    let actor = &context.actor;
    Answer::ok(&Me {
        kind: actor.kind.to_owned(),
        id: actor.id.clone(),
        name: actor.name.clone(),
        user,
        session_id: actor.session.clone(),
        permissions: names(actor.grants.global),
        accounts: actor.grants.accounts.iter().map(|(account, held)| (account.clone(), names(*held))).collect(),
    })
}

pub(super) async fn update(context: &Context<'_>) -> Result<Answer, Problem> {
    let change: MeChange = context.body()?;
    let before = own(context).await?;
    let settings = UserSettings { name: change.name, ..before.settings.clone() };
    users::save(context, "users:update_own", before, settings).await
}

#[derive(Deserialize)]
struct Stored {
    password_hash: Option<String>,
}

/// A wrong current password counts like a wrong sign-in: whoever finds an open session must not guess here instead.
pub(super) async fn change_password(context: &Context<'_>) -> Result<Answer, Problem> {
    let change: PasswordChange = context.body()?;
    let user = own(context).await?;
    let Some(email) = user.email.clone() else {
        return Err(Problem::invalid("", "A service has no password."));
    };
    let stored = Statement::new("SELECT password_hash FROM users WHERE id = ?1").bind(&user.id);
    let stored: Option<Stored> = context.db.first(stored).await?;
    let subjects = context.count_attempt(&email).await?;
    let current = Secret::new(change.current);
    if !password::verify(&current, stored.and_then(|stored| stored.password_hash).as_deref()).matches {
        let refused = Write::new("users:change_own_password", "user", &user.id).refused();
        context.acting(context.actor.clone()).commit(refused, Answer::done()).await?;
        return Err(Problem::invalid("current", "This is not the current password."));
    }
    let new = Secret::new(change.new);
    if new.expose() == current.expose() {
        return Err(Problem::invalid("new", "This is the password that you have already."));
    }
    let hash = users::hash_password(context, "new", &new, &email)?;
    let others =
        Statement::new("UPDATE sessions SET revoked_at = ?2 WHERE user_id = ?1 AND id <> ?3 AND revoked_at IS NULL")
            .bind(&user.id)
            .bind(context.now())
            .bind(context.actor.session.clone().unwrap_or_default());
    let write = Write::new("users:change_own_password", "user", &user.id)
        .with(users::set_password(&user.id, hash, false, context.now()))
        .with(others)
        .with(subjects.forget());
    context.commit(write, Answer::done()).await
}

/// Trades the sign-in for a token that calls models at an account's expense.
pub(super) async fn model_token(context: &Context<'_>) -> Result<Answer, Problem> {
    let wanted: ModelTokenRequest = context.body()?;
    let mut fields = Vec::new();
    super::keys::check_models(&wanted.models, &mut fields);
    Problem::of_fields(fields)?;
    let account = super::accounts::find(context, context.account()).await?;
    let (Some(user), Some(session)) = (context.actor.user(), context.actor.session.as_deref()) else {
        let message = "Only whoever has signed in gets a token for calling models; programs use API keys.";
        return Err(Problem::new(Kind::Permission, "no_session", message).final_answer());
    };
    let expires_in = context.sessions().model_token_seconds;
    let grant = ModelsGrant {
        user: user.to_owned(),
        session: session.to_owned(),
        account: account.id.clone(),
        key_id: format!("user:{user}"),
        models: wanted.models,
    };
    let issue = Issue { now: context.now(), lifetime_seconds: expires_in, token_id: random()? };
    let token = sign_models(&context.signing_key().await?, &grant, issue);
    let write = Write::new("model_tokens:create", "user", user)
        .in_account(&account.id)
        .creates(&serde_json::json!({"models": grant.models, "expires_in": expires_in}));
    let answer = ModelToken { token: token.expose().clone(), expires_in, account_id: account.id };
    context.commit(write, Answer::json(201, &answer)?).await
}
