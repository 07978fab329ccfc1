//! Providers' credentials. A value is sealed as soon as it is here, and opened only where it is sent to the provider.

use super::answer::{Answer, conflict, not_found};
use super::context::{Context, nonce};
use super::effects::Effect;
use super::write::{Write, guard_revision};
use crate::admin::draft;
use crate::admin::statement::Statement;
use crate::admin::types::catalog::{Credential, CredentialSettings};
use crate::error::{FieldProblem, Problem};
use crate::seal::Purpose;

macro_rules! columns {
    () => {
        "SELECT json_object('id', id, 'name', name, 'worker_secret', worker_secret, 'hint', hint, 'revision', revision, \
         'created_at', created_at, 'updated_at', updated_at) AS row FROM provider_credentials "
    };
}

const LIST: &str = concat!(columns!(), "WHERE (created_at, id) < (?1, ?2) ORDER BY created_at DESC, id DESC LIMIT ?3");
const GET: &str = concat!(columns!(), "WHERE id = ?1");

/// The providers, of the draft and of the current version, that refer to a credential.
macro_rules! users {
    () => {
        "SELECT 'providers.' || name || '.credential' AS path, 'the draft refers to it' AS message \
         FROM providers WHERE credential_id = ?1 \
         UNION ALL SELECT 'providers.' || key || '.credential', 'the current version refers to it' \
         FROM json_each((SELECT document FROM config_versions ORDER BY sequence DESC LIMIT 1), '$.providers') \
         WHERE json_extract(value, '$.credential') = 'stored:' || ?1"
    };
}

const USERS: &str = concat!(users!(), " LIMIT 20");
const GUARD_UNUSED: &str = concat!("INSERT INTO guards SELECT 'in use' WHERE EXISTS (", users!(), ")");

async fn find(context: &Context<'_>) -> Result<Credential, Problem> {
    let id = context.parameter("credential");
    context.db.object(Statement::new(GET).bind(id)).await?.ok_or_else(|| not_found("credential", id))
}

pub(super) async fn list(context: &Context<'_>) -> Result<Answer, Problem> {
    let place = |credential: &Credential| (credential.created_at, credential.id.clone());
    context.paged(Statement::new(LIST), place).await
}

pub(super) async fn create(context: &Context<'_>) -> Result<Answer, Problem> {
    let settings: CredentialSettings = context.body()?;
    let now = context.now();
    let credential = Credential {
        id: context.fresh_id("crd")?,
        name: settings.name.clone(),
        worker_secret: settings.worker_secret.clone(),
        hint: settings.value.as_deref().map(draft::hint).unwrap_or_default(),
        revision: 1,
        created_at: now,
        updated_at: now,
    };
    let insert = Statement::new(
        "INSERT INTO provider_credentials (id, name, sealed, worker_secret, hint, revision, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
    );
    let write = Write::new("credentials:create", "credential", &credential.id)
        .creates(&credential)
        .with(bind(insert, &credential, sealed(context, &credential.id, &settings)?))
        .then(Effect::Credentials);
    context.commit(write, Answer::json(201, &credential)?.revision(1)).await
}

pub(super) async fn get(context: &Context<'_>) -> Result<Answer, Problem> {
    let credential = find(context).await?;
    Ok(Answer::ok(&credential)?.revision(credential.revision))
}

pub(super) async fn replace(context: &Context<'_>) -> Result<Answer, Problem> {
    let before = find(context).await?;
    context.check_revision(before.revision)?;
    let settings: CredentialSettings = context.body()?;
    let after = Credential {
        name: settings.name.clone(),
        worker_secret: settings.worker_secret.clone(),
        hint: settings.value.as_deref().map(draft::hint).unwrap_or_default(),
        revision: before.revision.saturating_add(1),
        updated_at: context.now(),
        ..before.clone()
    };
    let update = Statement::new(
        "UPDATE provider_credentials SET name = ?2, sealed = ?3, worker_secret = ?4, hint = ?5, revision = ?6, \
         updated_at = ?7 WHERE id = ?1",
    );
    let write = Write::new("credentials:replace", "credential", &after.id)
        .change(&before, &after)
        .with(Statement::new(guard_revision!("provider_credentials", "id")).bind(&after.id).bind(before.revision))
        .with(bind(update, &after, sealed(context, &after.id, &settings)?))
        .then(Effect::Credentials);
    context.commit(write, Answer::ok(&after)?.revision(after.revision)).await
}

pub(super) async fn delete(context: &Context<'_>) -> Result<Answer, Problem> {
    let credential = find(context).await?;
    context.check_revision(credential.revision)?;
    let users: Vec<FieldProblem> = context.db.rows(Statement::new(USERS).bind(&credential.id)).await?;
    if !users.is_empty() {
        let message = "Providers use this credential, in the draft or in the current version: see `errors`.";
        let mut problem = conflict("in_use", message);
        problem.fields = users;
        return Err(problem);
    }
    let write = Write::new("credentials:delete", "credential", &credential.id)
        .removes(&credential)
        .with(
            Statement::new(guard_revision!("provider_credentials", "id"))
                .bind(&credential.id)
                .bind(credential.revision),
        )
        .with(Statement::new(GUARD_UNUSED).bind(&credential.id))
        .with(Statement::new("DELETE FROM provider_credentials WHERE id = ?1").bind(&credential.id))
        .then(Effect::Credentials);
    context.commit(write, Answer::done()).await
}

/// The sealed value, if the settings have one.
fn sealed(context: &Context<'_>, id: &str, settings: &CredentialSettings) -> Result<Option<String>, Problem> {
    draft::refuse("", draft::credential_problems(settings.value.as_deref(), settings.worker_secret.as_deref()))?;
    let Some(value) = &settings.value else { return Ok(None) };
    let sealed = context.sealer()?.seal(Purpose::ProviderCredential, id, value.as_bytes(), nonce()?);
    sealed.map(Some).map_err(|error| Problem::invalid("value", format!("value: {error}.")))
}

/// Binds `?1` to `?7`.
fn bind(statement: Statement, credential: &Credential, sealed: Option<String>) -> Statement {
    statement
        .bind(&credential.id)
        .bind(&credential.name)
        .bind(sealed)
        .bind(credential.worker_secret.clone())
        .bind(&credential.hint)
        .bind(credential.revision)
        .bind(credential.updated_at)
}
