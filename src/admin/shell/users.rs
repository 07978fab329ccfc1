//! Users.

use serde::Deserialize;

use super::accounts;
use super::answer::{Answer, internal, not_found};
use super::context::{Context, random};
use super::grants;
use super::write::{Write, guard_revision};
use crate::admin::statement::Statement;
use crate::admin::types::identity::PasswordReset;
use crate::admin::types::people::{User, UserCreate, UserFilter, UserKind, UserSettings, UserStatus};
use crate::auth::password::{self, WeakPassword};
use crate::error::{FieldProblem, Kind, Problem};
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
        .bind(filter.email.map(|email| normal(&email)))
        .bind(filter.kind.map(kind))
        .bind(filter.status.map(status));
    context.paged(statement, |user: &User| (user.created_at, user.id.clone())).await
}

pub(super) async fn create(context: &Context<'_>) -> Result<Answer, Problem> {
    let mut wanted: UserCreate = context.body()?;
    wanted.email = wanted.email.map(|email| normal(&email));
    let password = wanted.password.take().map(Secret::new);
    check(context, &wanted, password.as_ref())?;
    let hash = password.map(|password| hash(&password)).transpose()?;
    let (user, insert) = insert(context, wanted.kind, wanted.email, hash, wanted.settings, true)?;
    let write = Write::new("users:create", "user", &user.id).creates(&user).with(insert);
    context.commit(write, Answer::json(201, &user)?.revision(1)).await
}

/// What the description cannot say of a new user.
fn check(context: &Context<'_>, wanted: &UserCreate, password: Option<&Secret<String>>) -> Result<(), Problem> {
    let mut fields = Vec::new();
    let mut add = |path: &str, message: String| fields.push(FieldProblem { path: path.to_owned(), message });
    let email = wanted.email.as_deref();
    match wanted.kind {
        UserKind::Human => {
            match email {
                None => add("email", "a person needs an e-mail address".to_owned()),
                Some(email) if !is_email(email) => add("email", "is not an e-mail address".to_owned()),
                Some(_) => {}
            }
            let weak = |password| weakness(context, password, email.unwrap_or_default());
            match password.map(weak) {
                None => add("password", "a person needs a first password".to_owned()),
                Some(Some(weak)) => add("password", weak.to_string()),
                Some(None) => {}
            }
        }
        UserKind::Service => {
            for (path, given) in [("email", email.is_some()), ("password", password.is_some())] {
                if given {
                    add(path, "a program has none: make it a token".to_owned());
                }
            }
        }
    }
    super::metadata::check(&wanted.settings.metadata, &mut fields);
    Problem::of_fields(fields)
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
    super::metadata::require(&settings.metadata)?;
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
        write = write.with(guard_last_owner(&after.id)).with(end_sessions(&after.id, context.now()));
    }
    context.commit(write, Answer::ok(&after)?.revision(after.revision)).await
}

pub(super) async fn delete(context: &Context<'_>) -> Result<Answer, Problem> {
    let user = find(context, context.parameter("user")).await?;
    context.check_revision(user.revision)?;
    require_power_over(context, &user.id).await?;
    refuse_self(context, &user.id, "delete")?;
    let limited = Statement::new("SELECT DISTINCT account_id FROM limits WHERE user_id = ?1").bind(&user.id);
    let limited: Vec<Limited> = context.db.rows(limited).await?;
    let mut write = Write::new("users:delete", "user", &user.id)
        .removes(&user)
        .with(Statement::new(guard_revision!("users", "id")).bind(&user.id).bind(user.revision))
        .with(guard_last_owner(&user.id))
        .with(Statement::new("DELETE FROM users WHERE id = ?1").bind(&user.id));
    // The user's limits go as well, which the accounts' ledgers must learn.
    for Limited { account_id } in limited {
        write = write.then(accounts::effect(&account_id));
    }
    context.commit(write, Answer::done()).await
}

#[derive(Deserialize)]
struct Limited {
    account_id: String,
}

/// One's own password is changed by whoever knows it: an open session that somebody else finds must not be enough.
pub(super) async fn reset_password(context: &Context<'_>) -> Result<Answer, Problem> {
    let user = find(context, context.parameter("user")).await?;
    require_power_over(context, &user.id).await?;
    refuse_self(context, &user.id, "reset the password of")?;
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

/// A guard: the batch fails if the user is the last owner, for without any nobody could make one again.
pub(super) fn guard_last_owner(user: &str) -> Statement {
    Statement::new(
        "INSERT INTO guards SELECT 'last owner' WHERE \
         EXISTS (SELECT 1 FROM role_bindings WHERE role_id = 'owner' AND user_id = ?1) \
         AND NOT EXISTS (SELECT 1 FROM role_bindings b JOIN users u ON u.id = b.user_id \
         WHERE b.role_id = 'owner' AND b.user_id <> ?1 AND u.status = 'active')",
    )
    .bind(user)
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
    match weakness(context, password, email) {
        None => hash(password),
        Some(weak) => Err(Problem::invalid(field, format!("The password {weak}."))),
    }
}

/// Why a password is not accepted.
fn weakness(context: &Context<'_>, password: &Secret<String>, email: &str) -> Option<WeakPassword> {
    let min = usize::try_from(context.sessions().password_min_length).unwrap_or(usize::MAX);
    password::check_policy(password, email, min).err()
}

/// Hashes a password that is accepted.
fn hash(password: &Secret<String>) -> Result<String, Problem> {
    password::hash(password, &random()?).map_err(|error| internal(&error.to_string()))
}

/// An e-mail address in the form in which it is stored.
///
/// # Errors
/// 400 for what cannot be one.
pub(super) fn email(text: &str) -> Result<String, Problem> {
    let email = normal(text);
    if is_email(&email) { Ok(email) } else { Err(Problem::invalid("email", "This is not an e-mail address.")) }
}

/// The form in which an e-mail address is stored and compared.
pub(super) fn normal(email: &str) -> String {
    email.trim().to_lowercase()
}

/// Whether a text in its normal form can be an e-mail address.
pub(super) fn is_email(email: &str) -> bool {
    let plausible = email.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && domain.contains('.')
            && !domain.starts_with('.')
            && !domain.ends_with('.')
            && !domain.contains('@')
    });
    plausible && email.len() <= 254 && !email.chars().any(|c| c.is_whitespace() || c.is_control())
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
