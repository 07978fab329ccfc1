//! Users.

use super::answer::{Answer, not_found};
use super::context::{Context, random};
use super::grants;
use super::write::{Write, guard_revision};
use crate::admin::statement::Statement;
use crate::admin::types::identity::PasswordReset;
use crate::admin::types::people::{User, UserCreate, UserFilter, UserKind, UserSettings, UserStatus};
use crate::auth::password;
use crate::error::{Kind, Problem};
use crate::secret::Secret;

macro_rules! columns {
    () => {
        "SELECT json_object('id', id, 'kind', kind, 'email', email, 'name', name, 'status', status, \
         'metadata', json(metadata), 'must_change_password', \
         json(CASE must_change_password WHEN 1 THEN 'true' ELSE 'false' END), \
         'last_sign_in_at', last_sign_in_at, 'revision', revision, 'created_at', created_at, 'updated_at', updated_at) \
         AS row FROM users "
    };
}

const LIST: &str = concat!(
    columns!(),
    "WHERE (?1 IS NULL OR email = ?1) AND (?2 IS NULL OR kind = ?2) AND (?3 IS NULL OR status = ?3) \
     AND (created_at, id) < (?4, ?5) ORDER BY created_at DESC, id DESC LIMIT ?6"
);
const GET: &str = concat!(columns!(), "WHERE id = ?1");

/// A user.
///
/// # Errors
/// 404 if there is none.
pub(super) async fn find(context: &Context<'_>, id: &str) -> Result<User, Problem> {
    context.db.object(Statement::new(GET).bind(id)).await?.ok_or_else(|| not_found("user", id))
}

/// 403 unless the caller may do all that the user may: who changes how a user signs in, or whether, acts for him.
///
/// # Errors
/// 403; 503 if the database does not answer.
pub(super) async fn require_power_over(context: &Context<'_>, user: &str) -> Result<(), Problem> {
    let theirs = grants::of_user(&context.db, user).await?;
    if context.actor.grants.cover(&theirs) {
        return Ok(());
    }
    let message = "This user may do things that you may not, so you cannot act on this user's behalf.";
    Err(Problem::new(Kind::Permission, "user_is_more_powerful", message).final_answer())
}

pub(super) async fn list(context: &Context<'_>) -> Result<Answer, Problem> {
    let filter: UserFilter = context.query()?;
    let statement = Statement::new(LIST)
        .bind(filter.email.map(|email| email.trim().to_lowercase()))
        .bind(filter.kind.map(kind))
        .bind(filter.status.map(status));
    context.paged(statement, |user: &User| (user.created_at, user.id.clone())).await
}

pub(super) async fn create(context: &Context<'_>) -> Result<Answer, Problem> {
    let wanted: UserCreate = context.body()?;
    let (email, password) = match wanted.kind {
        UserKind::Human => {
            let email = email(wanted.email.as_deref().unwrap_or_default())?;
            let Some(password) = wanted.password.map(Secret::new) else {
                return Err(Problem::invalid("password", "A person needs a first password."));
            };
            let hash = hash_password(context, "password", &password, &email)?;
            (Some(email), Some(hash))
        }
        UserKind::Service => {
            if wanted.email.is_some() || wanted.password.is_some() {
                return Err(Problem::invalid(
                    "kind",
                    "A service has neither e-mail address nor password: make it a token.",
                ));
            }
            (None, None)
        }
    };
    let (user, insert) = insert(context, wanted.kind, email, password, wanted.settings, true)?;
    let write = Write::new("users:create", "user", &user.id).creates(&user).with(insert);
    context.commit(write, Answer::json(201, &user)?.revision(1)).await
}

/// A new user and the statement that makes it.
///
/// # Errors
/// 500 without randomness.
pub(super) fn insert(
    context: &Context<'_>,
    kind_of: UserKind,
    email: Option<String>,
    password_hash: Option<String>,
    settings: UserSettings,
    must_change_password: bool,
) -> Result<(User, Statement), Problem> {
    let now = context.now();
    let user = User {
        id: context.fresh_id("usr")?,
        kind: kind_of,
        email,
        settings,
        must_change_password: must_change_password && password_hash.is_some(),
        last_sign_in_at: None,
        revision: 1,
        created_at: now,
        updated_at: now,
    };
    let insert = Statement::new(
        "INSERT INTO users (id, kind, email, name, status, metadata, password_hash, must_change_password, created_at, \
         updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)",
    )
    .bind(&user.id)
    .bind(kind(user.kind))
    .bind(user.email.clone())
    .bind(&user.settings.name)
    .bind(status(user.settings.status))
    .bind(serde_json::json!(user.settings.metadata))
    .bind(password_hash)
    .bind(user.must_change_password)
    .bind(now);
    Ok((user, insert))
}

pub(super) async fn get(context: &Context<'_>) -> Result<Answer, Problem> {
    let user = find(context, context.parameter("user")).await?;
    Ok(Answer::ok(&user)?.revision(user.revision))
}

pub(super) async fn update(context: &Context<'_>) -> Result<Answer, Problem> {
    let before = find(context, context.parameter("user")).await?;
    context.check_revision(before.revision)?;
    let settings: UserSettings = context.merged(&before.settings)?;
    if settings.status != before.settings.status {
        require_power_over(context, &before.id).await?;
        refuse_self(context, &before.id, "disable")?;
    }
    save(context, "users:update", before, settings).await
}

/// Stores what can be set of a user.
///
/// # Errors
/// As [`Context::commit`].
pub(super) async fn save(
    context: &Context<'_>,
    action: &'static str,
    before: User,
    settings: UserSettings,
) -> Result<Answer, Problem> {
    let after =
        User { settings, revision: before.revision.saturating_add(1), updated_at: context.now(), ..before.clone() };
    let update = Statement::new(
        "UPDATE users SET name = ?2, status = ?3, metadata = ?4, revision = ?5, updated_at = ?6 WHERE id = ?1",
    )
    .bind(&after.id)
    .bind(&after.settings.name)
    .bind(status(after.settings.status))
    .bind(serde_json::json!(after.settings.metadata))
    .bind(after.revision)
    .bind(after.updated_at);
    let mut write = Write::new(action, "user", &after.id)
        .change(&before, &after)
        .with(Statement::new(guard_revision!("users", "id")).bind(&after.id).bind(before.revision))
        .with(update);
    if after.settings.status == UserStatus::Disabled {
        write = write.with(end_sessions(&after.id, context.now()));
    }
    context.commit(write, Answer::ok(&after)?.revision(after.revision)).await
}

pub(super) async fn delete(context: &Context<'_>) -> Result<Answer, Problem> {
    let user = find(context, context.parameter("user")).await?;
    context.check_revision(user.revision)?;
    require_power_over(context, &user.id).await?;
    refuse_self(context, &user.id, "delete")?;
    let write = Write::new("users:delete", "user", &user.id)
        .removes(&user)
        .with(Statement::new(guard_revision!("users", "id")).bind(&user.id).bind(user.revision))
        .with(Statement::new("DELETE FROM users WHERE id = ?1").bind(&user.id));
    context.commit(write, Answer::done()).await
}

pub(super) async fn reset_password(context: &Context<'_>) -> Result<Answer, Problem> {
    let user = find(context, context.parameter("user")).await?;
    require_power_over(context, &user.id).await?;
    let Some(email) = user.email.clone() else {
        return Err(Problem::invalid("user", "A service has no password: make it a token."));
    };
    let wanted: PasswordReset = context.body()?;
    let hash = hash_password(context, "password", &Secret::new(wanted.password), &email)?;
    let write = Write::new("users:reset_password", "user", &user.id)
        .with(set_password(&user.id, hash, true, context.now()))
        .with(end_sessions(&user.id, context.now()));
    context.commit(write, Answer::done()).await
}

/// Nobody locks himself out.
fn refuse_self(context: &Context<'_>, user: &str, what: &str) -> Result<(), Problem> {
    if context.actor.user() != Some(user) {
        return Ok(());
    }
    Err(Problem::new(Kind::Conflict, "own_user", format!("You cannot {what} your own user.")).final_answer())
}

/// The statement that stores a password.
pub(super) fn set_password(user: &str, hash: String, must_change: bool, now: u64) -> Statement {
    Statement::new(
        "UPDATE users SET password_hash = ?2, must_change_password = ?3, revision = revision + 1, updated_at = ?4 \
         WHERE id = ?1",
    )
    .bind(user)
    .bind(hash)
    .bind(must_change)
    .bind(now)
}

/// The statement that ends all sessions of a user.
pub(super) fn end_sessions(user: &str, now: u64) -> Statement {
    Statement::new("UPDATE sessions SET revoked_at = ?2 WHERE user_id = ?1 AND revoked_at IS NULL").bind(user).bind(now)
}

/// Checks a password against the policy and hashes it.
///
/// # Errors
/// 400 with what is wrong with it.
pub(super) fn hash_password(
    context: &Context<'_>,
    field: &str,
    password: &Secret<String>,
    email: &str,
) -> Result<String, Problem> {
    let min = usize::try_from(context.sessions().password_min_length).unwrap_or(usize::MAX);
    password::check_policy(password, email, min)
        .map_err(|weak| Problem::invalid(field, format!("The password {weak}.")))?;
    password::hash(password, &random()?).map_err(|error| Problem::invalid(field, error.to_string()))
}

/// An e-mail address in the form in which it is stored.
///
/// # Errors
/// 400 for what cannot be one.
pub(super) fn email(text: &str) -> Result<String, Problem> {
    let email = text.trim().to_lowercase();
    let plausible = email.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && domain.contains('.')
            && !domain.starts_with('.')
            && !domain.ends_with('.')
            && !domain.contains('@')
    });
    if plausible && email.len() <= 254 && !email.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Ok(email);
    }
    Err(Problem::invalid("email", "This is not an e-mail address."))
}

fn kind(kind: UserKind) -> &'static str {
    match kind {
        UserKind::Human => "human",
        UserKind::Service => "service",
    }
}

fn status(status: UserStatus) -> &'static str {
    match status {
        UserStatus::Active => "active",
        UserStatus::Disabled => "disabled",
    }
}
