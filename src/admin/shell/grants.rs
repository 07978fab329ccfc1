//! What a user may do, as the database has it.

use serde::Deserialize;
use worker::D1Result;

use super::database::{Database, rows};
use crate::admin::statement::Statement;
use crate::auth::rbac::{Grants, Permission, PermissionSet, built_in_role};
use crate::error::Problem;

/// The roles that a user has, and where.
const BINDINGS: &str = "SELECT role_id, NULL AS account_id FROM role_bindings WHERE user_id = ?1 \
     UNION ALL SELECT role_id, account_id FROM account_members WHERE user_id = ?1";

/// What those of them allow that are not built in.
const CUSTOM: &str = "SELECT role_id, permission FROM role_permissions WHERE role_id IN ( \
     SELECT role_id FROM role_bindings WHERE user_id = ?1 \
     UNION SELECT role_id FROM account_members WHERE user_id = ?1)";

#[derive(Deserialize)]
struct Binding {
    role_id: String,
    account_id: Option<String>,
}

#[derive(Deserialize)]
struct Allowed {
    role_id: String,
    permission: String,
}

/// The questions whose answers [`of_results`] reads.
pub(super) fn questions(user: &str) -> [Statement; 2] {
    [Statement::new(BINDINGS).bind(user), Statement::new(CUSTOM).bind(user)]
}

/// Reads the answers to [`questions`].
///
/// # Errors
/// 500 if they are not what the program expects.
pub(super) fn of_results(bindings: &D1Result, custom: &D1Result) -> Result<Grants, Problem> {
    let custom: Vec<Allowed> = rows(custom)?;
    let mut grants = Grants::default();
    for binding in rows::<Binding>(bindings)? {
        let role = built_in_role(&binding.role_id).unwrap_or_else(|| {
            permissions(custom.iter().filter(|one| one.role_id == binding.role_id).map(|one| one.permission.as_str()))
        });
        grants.add(role, binding.account_id.as_deref());
    }
    Ok(grants)
}

/// Permissions by name. One that this version of the gateway does not know allows nothing.
pub(super) fn permissions<'a>(names: impl Iterator<Item = &'a str>) -> PermissionSet {
    names.filter_map(|name| Permission::ALL.iter().copied().find(|permission| permission.name() == name)).collect()
}

/// What a user may do.
///
/// # Errors
/// 503 if the database does not answer.
pub(super) async fn of_user(db: &Database, user: &str) -> Result<Grants, Problem> {
    match db.ask(&questions(user)).await?.as_slice() {
        [bindings, custom] => of_results(bindings, custom),
        _ => Ok(Grants::default()),
    }
}

/// What a role allows; `None` if there is no such role.
///
/// # Errors
/// 503 if the database does not answer.
pub(super) async fn of_role(db: &Database, role: &str) -> Result<Option<PermissionSet>, Problem> {
    if let Some(permissions) = built_in_role(role) {
        return Ok(Some(permissions));
    }
    let known = Statement::new("SELECT id AS role_id, '' AS permission FROM roles WHERE id = ?1").bind(role);
    let allowed = Statement::new("SELECT role_id, permission FROM role_permissions WHERE role_id = ?1").bind(role);
    let answers = db.ask(&[known, allowed]).await?;
    let [known, allowed] = answers.as_slice() else { return Ok(None) };
    if rows::<Allowed>(known)?.is_empty() {
        return Ok(None);
    }
    let allowed: Vec<Allowed> = rows(allowed)?;
    Ok(Some(permissions(allowed.iter().map(|one| one.permission.as_str()))))
}
