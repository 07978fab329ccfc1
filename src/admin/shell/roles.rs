//! Roles, and who has them everywhere.

use serde_json::Value;

use super::answer::{Answer, conflict, not_found};
use super::context::Context;
use super::write::{Write, guard_revision};
use super::{grants, users};
use crate::admin::issuers::newly_granted;
use crate::admin::statement::Statement;
use crate::admin::types::List;
use crate::admin::types::people::{PermissionInfo, Role, RoleBinding, RoleSettings};
use crate::auth::rbac::{Permission, PermissionSet, Scope, built_in_role};
use crate::config::RoleGrant;
use crate::error::{Kind, Problem};

macro_rules! columns {
    () => {
        "SELECT json_object('id', id, 'name', name, 'description', description, 'permissions', \
         (SELECT json_group_array(permission) FROM role_permissions WHERE role_id = roles.id), 'built_in', \
         json(CASE built_in WHEN 1 THEN 'true' ELSE 'false' END), 'revision', revision, 'created_at', created_at, \
         'updated_at', updated_at) AS row FROM roles "
    };
}

const LIST: &str = concat!(columns!(), "WHERE (created_at, id) < (?1, ?2) ORDER BY created_at DESC, id DESC LIMIT ?3");
const GET: &str = concat!(columns!(), "WHERE id = ?1");
const BINDINGS: &str = "SELECT json_object('user_id', user_id, 'role_id', role_id, 'created_at', created_at) AS row \
     FROM role_bindings WHERE user_id = ?1 ORDER BY role_id";

pub(super) fn permissions() -> Result<Answer, Problem> {
    let data = Permission::ALL
        .iter()
        .map(|permission| PermissionInfo {
            name: *permission,
            about: permission.about().to_owned(),
            within_account: permission.scope() == Scope::Account,
        })
        .collect();
    Answer::ok(&List { data })
}

/// A role's permissions are in the code if it is built in.
fn complete(mut role: Role) -> Role {
    if let Some(permissions) = built_in_role(&role.id) {
        role.settings.permissions = permissions.iter().collect();
    }
    role
}

async fn find(context: &Context<'_>, id: &str) -> Result<Role, Problem> {
    let role: Option<Role> = context.db.object(Statement::new(GET).bind(id)).await?;
    role.map(complete).ok_or_else(|| not_found("role", id))
}

pub(super) async fn list(context: &Context<'_>) -> Result<Answer, Problem> {
    let (cursor, size) = context.page()?;
    let statement = Statement::new(LIST).bind(cursor.number).bind(cursor.text).bind(size.saturating_add(1));
    let roles: Vec<Role> = context.db.objects(statement).await?.into_iter().map(complete).collect();
    Answer::ok(&super::page::page(roles, size, |role| (role.created_at, role.id.clone())))
}

pub(super) async fn create(context: &Context<'_>) -> Result<Answer, Problem> {
    let settings: RoleSettings = context.body()?;
    let settings = distinct(settings);
    require_all(context, &settings)?;
    let now = context.now();
    let role =
        Role { id: context.fresh_id("rol")?, settings, built_in: false, revision: 1, created_at: now, updated_at: now };
    let insert =
        Statement::new("INSERT INTO roles (id, name, description, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)")
            .bind(&role.id)
            .bind(&role.settings.name)
            .bind(&role.settings.description)
            .bind(now);
    let write =
        Write::new("roles:create", "role", &role.id).creates(&role).with(insert).with(insert_permissions(&role));
    context.commit(write, Answer::json(201, &role)?.revision(1)).await
}

pub(super) async fn get(context: &Context<'_>) -> Result<Answer, Problem> {
    let role = find(context, context.parameter("role")).await?;
    Ok(Answer::ok(&role)?.revision(role.revision))
}

/// Whoever changes a role changes what all who have it may do: he must hold what it was and what it becomes.
pub(super) async fn update(context: &Context<'_>) -> Result<Answer, Problem> {
    let before = find_custom(context).await?;
    context.check_revision(before.revision)?;
    let settings = distinct(context.merged(&before.settings)?);
    require_all(context, &before.settings)?;
    require_all(context, &settings)?;
    let after =
        Role { settings, revision: before.revision.saturating_add(1), updated_at: context.now(), ..before.clone() };
    let update =
        Statement::new("UPDATE roles SET name = ?2, description = ?3, revision = ?4, updated_at = ?5 WHERE id = ?1")
            .bind(&after.id)
            .bind(&after.settings.name)
            .bind(&after.settings.description)
            .bind(after.revision)
            .bind(after.updated_at);
    let write = Write::new("roles:update", "role", &after.id)
        .change(&before, &after)
        .with(Statement::new(guard_revision!("roles", "id")).bind(&after.id).bind(before.revision))
        .with(update)
        .with(Statement::new("DELETE FROM role_permissions WHERE role_id = ?1").bind(&after.id))
        .with(insert_permissions(&after));
    context.commit(write, Answer::ok(&after)?.revision(after.revision)).await
}

pub(super) async fn delete(context: &Context<'_>) -> Result<Answer, Problem> {
    let role = find_custom(context).await?;
    context.check_revision(role.revision)?;
    require_all(context, &role.settings)?;
    let write = Write::new("roles:delete", "role", &role.id)
        .removes(&role)
        .with(Statement::new(guard_revision!("roles", "id")).bind(&role.id).bind(role.revision))
        .with(Statement::new("DELETE FROM roles WHERE id = ?1").bind(&role.id));
    context.commit(write, Answer::done()).await
}

pub(super) async fn of_user(context: &Context<'_>) -> Result<Answer, Problem> {
    let user = users::find(context, context.parameter("user")).await?;
    let data: Vec<RoleBinding> = context.db.objects(Statement::new(BINDINGS).bind(user.id)).await?;
    Answer::ok(&List { data })
}

async fn binding(context: &Context<'_>, user: &str, role: &str) -> Result<Option<RoleBinding>, Problem> {
    let all: Vec<RoleBinding> = context.db.objects(Statement::new(BINDINGS).bind(user)).await?;
    Ok(all.into_iter().find(|binding| binding.role_id == role))
}

pub(super) async fn grant(context: &Context<'_>) -> Result<Answer, Problem> {
    let user = users::find(context, context.parameter("user")).await?;
    let role = context.parameter("role");
    require_grantable(context, role, None).await?;
    if let Some(binding) = binding(context, &user.id, role).await? {
        return Answer::ok(&binding);
    }
    let binding = RoleBinding { user_id: user.id, role_id: role.to_owned(), created_at: context.now() };
    let write = Write::new("roles:grant", "user", &binding.user_id).creates(&binding).with(
        Statement::new(
            "INSERT INTO role_bindings (user_id, role_id, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )
        .bind(&binding.user_id)
        .bind(&binding.role_id)
        .bind(binding.created_at),
    );
    context.commit(write, Answer::ok(&binding)?).await
}

pub(super) async fn withdraw(context: &Context<'_>) -> Result<Answer, Problem> {
    let (user, role) = (context.parameter("user"), context.parameter("role"));
    let binding = binding(context, user, role).await?.ok_or_else(|| not_found("role of this user", role))?;
    require_grantable(context, role, None).await?;
    let mut write = Write::new("roles:withdraw", "user", user).removes(&binding);
    if role == "owner" {
        write = write.with(users::guard_last_owner(user));
    }
    let delete = Statement::new("DELETE FROM role_bindings WHERE user_id = ?1 AND role_id = ?2").bind(user).bind(role);
    context.commit(write.with(delete), Answer::done()).await.map_err(|problem| match problem.code.as_str() {
        "outdated" => conflict("last_owner", "This is the last owner: make another one first."),
        _ => problem,
    })
}

/// 403 unless the caller may grant a role, everywhere or within an account.
///
/// # Errors
/// 403, or 404 if there is no such role.
pub(super) async fn require_grantable(context: &Context<'_>, role: &str, account: Option<&str>) -> Result<(), Problem> {
    let permissions = grants::of_role(&context.db, role).await?.ok_or_else(|| not_found("role", role))?;
    if context.actor.grants.may_grant(permissions, account) {
        return Ok(());
    }
    let message = format!("You cannot grant or withdraw the role `{role}`: it allows more than you may do yourself.");
    Err(Problem::new(Kind::Permission, "role_is_more_powerful", message).final_answer())
}

/// 403 if a configuration would make issuers vouch for callers with a role that the publisher may not grant.
///
/// # Errors
/// 403; 503 if the database does not answer.
pub(super) async fn require_issuers(context: &Context<'_>, before: &Value, after: &Value) -> Result<(), Problem> {
    for RoleGrant { role, account } in newly_granted(before, after) {
        // One that does not exist allows nothing.
        let permissions = grants::of_role(&context.db, &role).await?.unwrap_or_default();
        if !context.actor.grants.may_grant(permissions, account.as_deref()) {
            let message = format!(
                "You cannot publish this: an issuer under `auth.issuers` would grant the role `{role}`, which allows more \
                 than you may do yourself."
            );
            let mut problem = Problem::new(Kind::Permission, "role_is_more_powerful", message).final_answer();
            problem.param = Some("auth.issuers".to_owned());
            return Err(problem);
        }
    }
    Ok(())
}

fn require_all(context: &Context<'_>, settings: &RoleSettings) -> Result<(), Problem> {
    let wanted: PermissionSet = settings.permissions.iter().copied().collect();
    match wanted.iter().find(|permission| !context.actor.grants.global.has(*permission)) {
        None => Ok(()),
        Some(missing) => Err(super::context::denied(missing)),
    }
}

async fn find_custom(context: &Context<'_>) -> Result<Role, Problem> {
    let role = find(context, context.parameter("role")).await?;
    if role.built_in {
        return Err(conflict("built_in_role", "A built-in role cannot be changed: create one of your own."));
    }
    Ok(role)
}

fn distinct(mut settings: RoleSettings) -> RoleSettings {
    settings.permissions = settings.permissions.iter().copied().collect::<PermissionSet>().iter().collect();
    settings
}

fn insert_permissions(role: &Role) -> Statement {
    Statement::new("INSERT INTO role_permissions (role_id, permission) SELECT ?1, value FROM json_each(?2)")
        .bind(&role.id)
        .bind(serde_json::json!(role.settings.permissions))
}
