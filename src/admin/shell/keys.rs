//! API keys. A key keeps its id, its settings and its usage when its secret is rotated.

use super::answer::{Answer, not_found};
use super::context::{Context, random};
use super::effects::Effect;
use super::write::{Write, guard_revision};
use super::{accounts, limits};
use crate::admin::operations::Op;
use crate::admin::statement::Statement;
use crate::admin::types::keys::{
    Key, KeyCreate, KeyFilter, KeyIssued, KeyRotation, KeySecret, KeySettings, Limit, LimitSettings,
};
use crate::auth::ip_ranges::IpRange;
use crate::auth::opaque::{Opaque, OpaqueKind};
use crate::config::problems_of_list;
use crate::error::{FieldProblem, Problem};

macro_rules! columns {
    () => {
        "SELECT json_object('id', k.id, 'account_id', k.account_id, 'user_id', k.user_id, 'name', k.name, \
         'models', json(k.models), 'endpoints', json(k.endpoints), 'ip_ranges', json(k.ip_ranges), \
         'overrides', json(k.overrides), 'metadata', json(k.metadata), \
         'disabled', json(CASE k.disabled WHEN 1 THEN 'true' ELSE 'false' END), 'expires_at', k.expires_at, \
         'secrets', (SELECT json_group_array(json_object('public_id', s.public_id, 'expires_at', s.expires_at, \
         'created_at', s.created_at)) FROM api_key_secrets s WHERE s.key_id = k.id), 'revision', k.revision, \
         'created_at', k.created_at, 'updated_at', k.updated_at) AS row FROM api_keys k "
    };
}

const LIST: &str = concat!(
    columns!(),
    "WHERE k.account_id = ?4 AND (?1 IS NULL OR k.id = (SELECT key_id FROM api_key_secrets WHERE public_id = ?1)) \
     AND (?2 IS NULL OR k.user_id = ?2) AND (?3 IS NULL OR k.disabled = ?3) \
     AND (k.created_at, k.id) < (?5, ?6) ORDER BY k.created_at DESC, k.id DESC LIMIT ?7"
);
const SEARCH: &str = concat!(
    columns!(),
    "WHERE (?1 IS NULL OR k.id = (SELECT key_id FROM api_key_secrets WHERE public_id = ?1)) \
     AND (?2 IS NULL OR k.user_id = ?2) AND (?3 IS NULL OR k.disabled = ?3) \
     AND (k.created_at, k.id) < (?4, ?5) ORDER BY k.created_at DESC, k.id DESC LIMIT ?6"
);
const GET: &str = concat!(columns!(), "WHERE k.account_id = ?1 AND k.id = ?2");

async fn find(context: &Context<'_>) -> Result<Key, Problem> {
    let id = context.parameter("key");
    let key = Statement::new(GET).bind(context.account()).bind(id);
    context.db.object(key).await?.ok_or_else(|| not_found("key", id))
}

pub(super) async fn list(context: &Context<'_>) -> Result<Answer, Problem> {
    let filter: KeyFilter = context.query()?;
    let in_account = context.matched.operation.op == Op::ListKeys;
    let statement = Statement::new(if in_account { LIST } else { SEARCH })
        .bind(filter.public_id)
        .bind(filter.user_id)
        .bind(filter.disabled);
    let statement =
        if in_account { statement.bind(accounts::find(context, context.account()).await?.id) } else { statement };
    context.paged(statement, |key: &Key| (key.created_at, key.id.clone())).await
}

/// What the audit log tells of a new key.
#[derive(serde::Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    key: &'a Key,
    limits: &'a [Limit],
}

pub(super) async fn create(context: &Context<'_>) -> Result<Answer, Problem> {
    let wanted: KeyCreate = context.body()?;
    let mut fields = problems(&wanted.settings, context.now());
    fields.extend(problems_of_list(&wanted.limits, "limits"));
    Problem::of_fields(fields)?;
    let account = accounts::find(context, context.account()).await?;
    check_user(context, &wanted.settings).await?;
    if !wanted.limits.is_empty() {
        context.require(crate::auth::rbac::Permission::LimitsWrite, Some(&account.id))?;
    }
    let now = context.now();
    let secret = Opaque::compose(OpaqueKind::ApiKey, &random()?);
    let key = Key {
        id: context.fresh_id("key")?,
        account_id: account.id,
        settings: wanted.settings,
        secrets: vec![KeySecret { public_id: secret.id().to_owned(), expires_at: None, created_at: now }],
        revision: 1,
        created_at: now,
        updated_at: now,
    };
    let mut limits = Vec::new();
    for terms in wanted.limits {
        let settings = LimitSettings { user_id: None, key_id: Some(key.id.clone()), terms };
        limits.push(Limit {
            id: context.fresh_id("lim")?,
            account_id: key.account_id.clone(),
            settings,
            revision: 1,
            created_at: now,
            updated_at: now,
        });
    }
    let mut write = Write::new("keys:create", "key", &key.id)
        .in_account(&key.account_id)
        .creates(&Made { key: &key, limits: &limits })
        .with(limits::guard_member(&key.account_id, key.settings.user_id.as_deref()))
        .with(
            bind_settings(
                Statement::new(
                    "INSERT INTO api_keys (id, account_id, user_id, name, models, endpoints, ip_ranges, overrides, metadata, \
                     disabled, expires_at, created_at, updated_at) \
                     VALUES (?1, ?12, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)",
                ),
                &key,
            )
            .bind(&key.account_id),
        )
        .with(insert_secret(&key.id, &secret, context)?)
        .then(effect(&key, key.revision));
    for limit in &limits {
        write = write.with(limits::insert(limit));
    }
    if !limits.is_empty() {
        limits::check_number(context, limits.len()).await?;
        write = write.with(limits::guard_number(&key.account_id));
    }
    let write = write.then(accounts::effect(&key.account_id));
    let issued = KeyIssued { api_key: secret.text().expose().clone(), key };
    context.commit(write, Answer::json(201, &issued)?.revision(1)).await
}

pub(super) async fn get(context: &Context<'_>) -> Result<Answer, Problem> {
    let key = find(context).await?;
    Ok(Answer::ok(&key)?.revision(key.revision))
}

pub(super) async fn update(context: &Context<'_>) -> Result<Answer, Problem> {
    let before = find(context).await?;
    context.check_revision(before.revision)?;
    let settings: KeySettings = context.merged(&before.settings)?;
    Problem::of_fields(problems(&settings, 0))?;
    let new_user = (settings.user_id != before.settings.user_id).then(|| settings.user_id.clone()).flatten();
    if new_user.is_some() {
        check_user(context, &settings).await?;
    }
    let after =
        Key { settings, revision: before.revision.saturating_add(1), updated_at: context.now(), ..before.clone() };
    let update = bind_settings(
        Statement::new(
            "UPDATE api_keys SET user_id = ?2, name = ?3, models = ?4, endpoints = ?5, ip_ranges = ?6, overrides = ?7, \
             metadata = ?8, disabled = ?9, expires_at = ?10, updated_at = ?11, revision = ?12 WHERE id = ?1",
        ),
        &after,
    )
    .bind(after.revision);
    let write = Write::new("keys:update", "key", &after.id)
        .in_account(&after.account_id)
        .change(&before, &after)
        .with(Statement::new(guard_revision!("api_keys", "id")).bind(&after.id).bind(before.revision))
        .with(limits::guard_member(&after.account_id, new_user.as_deref()))
        .with(update)
        .then(effect(&before, after.revision));
    context.commit(write, Answer::ok(&after)?.revision(after.revision)).await
}

pub(super) async fn delete(context: &Context<'_>) -> Result<Answer, Problem> {
    let key = find(context).await?;
    context.check_revision(key.revision)?;
    let write = Write::new("keys:delete", "key", &key.id)
        .in_account(&key.account_id)
        .removes(&key)
        .with(Statement::new(guard_revision!("api_keys", "id")).bind(&key.id).bind(key.revision))
        .with(Statement::new("DELETE FROM api_keys WHERE id = ?1").bind(&key.id))
        .then(effect(&key, key.revision.saturating_add(1)))
        .then(accounts::effect(&key.account_id));
    context.commit(write, Answer::done()).await
}

/// A new secret. The one before ends now or after an overlap; one from an earlier rotation ends now in any case.
pub(super) async fn rotate(context: &Context<'_>) -> Result<Answer, Problem> {
    let wanted: KeyRotation = context.body()?;
    let before = find(context).await?;
    context.check_revision(before.revision)?;
    let now = context.now();
    let secret = Opaque::compose(OpaqueKind::ApiKey, &random()?);
    let overlap_ends = now.saturating_add(wanted.overlap_seconds);
    let mut secrets: Vec<KeySecret> = before
        .secrets
        .iter()
        .filter(|old| wanted.overlap_seconds > 0 && old.expires_at.is_none())
        .map(|old| KeySecret { expires_at: Some(overlap_ends), ..old.clone() })
        .collect();
    secrets.push(KeySecret { public_id: secret.id().to_owned(), expires_at: None, created_at: now });
    let after = Key { secrets, revision: before.revision.saturating_add(1), updated_at: now, ..before.clone() };
    let old = if wanted.overlap_seconds > 0 {
        Statement::new("UPDATE api_key_secrets SET expires_at = ?2 WHERE key_id = ?1 AND expires_at IS NULL")
            .bind(&after.id)
            .bind(overlap_ends)
    } else {
        Statement::new("DELETE FROM api_key_secrets WHERE key_id = ?1").bind(&after.id)
    };
    let write = Write::new("keys:rotate", "key", &after.id)
        .in_account(&after.account_id)
        .change(&before, &after)
        .with(Statement::new(guard_revision!("api_keys", "id")).bind(&after.id).bind(before.revision))
        .with(
            Statement::new("DELETE FROM api_key_secrets WHERE key_id = ?1 AND expires_at IS NOT NULL").bind(&after.id),
        )
        .with(old)
        .with(insert_secret(&after.id, &secret, context)?)
        .with(
            Statement::new("UPDATE api_keys SET revision = ?2, updated_at = ?3 WHERE id = ?1")
                .bind(&after.id)
                .bind(after.revision)
                .bind(now),
        )
        .then(effect(&before, after.revision));
    let revision = after.revision;
    let issued = KeyIssued { api_key: secret.text().expose().clone(), key: after };
    context.commit(write, Answer::ok(&issued)?.revision(revision)).await
}

/// That the ledger and KV must learn of a change to the key as it was.
fn effect(before: &Key, revision: u64) -> Effect {
    Effect::Key {
        account: before.account_id.clone(),
        key: before.id.clone(),
        public_ids: before.secrets.iter().map(|secret| secret.public_id.clone()).collect(),
        revision,
    }
}

fn insert_secret(key: &str, secret: &Opaque, context: &Context<'_>) -> Result<Statement, Problem> {
    let insert =
        Statement::new("INSERT INTO api_key_secrets (public_id, key_id, hash, created_at) VALUES (?1, ?2, ?3, ?4)");
    Ok(insert.bind(secret.id()).bind(key).bind(secret.hash(&context.hash_secret()?)).bind(context.now()))
}

/// Binds `?1` to `?11`: the id, what can be set, and the time of the change.
fn bind_settings(statement: Statement, key: &Key) -> Statement {
    let settings = &key.settings;
    statement
        .bind(&key.id)
        .bind(settings.user_id.clone())
        .bind(&settings.name)
        .bind(serde_json::json!(settings.models))
        .bind(serde_json::json!(settings.endpoints))
        .bind(serde_json::json!(settings.ip_ranges))
        .bind(serde_json::json!(settings.overrides))
        .bind(serde_json::json!(settings.metadata))
        .bind(settings.disabled)
        .bind(settings.expires_at)
        .bind(key.updated_at)
}

/// What the description cannot say of a key's settings. `now` is 0 where an end in the past is as good as any.
fn problems(settings: &KeySettings, now: u64) -> Vec<FieldProblem> {
    let mut fields = Vec::new();
    let mut add = |path: String, message: String| fields.push(FieldProblem { path, message });
    for (nth, range) in settings.ip_ranges.iter().enumerate() {
        if let Err(error) = range.parse::<IpRange>() {
            add(format!("ip_ranges[{nth}]"), error.to_string());
        }
    }
    for (nth, endpoint) in settings.endpoints.iter().enumerate() {
        if !endpoint.starts_with("/v1/") || endpoint.len() > 256 {
            add(format!("endpoints[{nth}]"), "must be a path such as /v1/chat/completions".to_owned());
        }
    }
    if settings.expires_at.is_some_and(|end| end <= now) {
        add("expires_at".to_owned(), "is in the past".to_owned());
    }
    for problem in settings.overrides.problems() {
        add(format!("overrides.{}", problem.path), problem.message);
    }
    check_models(&settings.models, &mut fields);
    super::metadata::check(&settings.metadata, &mut fields);
    fields
}

/// What the description cannot say of names of models.
pub(super) fn check_models(models: &[String], fields: &mut Vec<FieldProblem>) {
    for (nth, model) in models.iter().enumerate() {
        if model.is_empty() || model.len() > 256 {
            let message = "must have 1 to 256 bytes".to_owned();
            fields.push(FieldProblem { path: format!("models[{nth}]"), message });
        }
    }
}

/// A key's user must belong to the account.
async fn check_user(context: &Context<'_>, settings: &KeySettings) -> Result<(), Problem> {
    let Some(user) = &settings.user_id else { return Ok(()) };
    limits::check_member(context, user).await
}
