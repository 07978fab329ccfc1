//! The configuration as a whole: the draft, what is wrong with it, what would come of it, and what is in effect.

use serde_json::{Value, json};

use super::answer::{Answer, internal};
use super::context::Context;
use super::drafts;
use super::versions::Current;
use super::write::Write;
use crate::admin::draft;
use crate::admin::statement::Statement;
use crate::admin::types::configuration::{
    Comparison, DocumentChoice, Draft, DraftReplacement, EffectiveConfig, SettingOrigin, Validation,
};
use crate::config::{CURRENT_SNAPSHOT, Config, Snapshot, check_base_url, content_hash, diff};
use crate::error::{FieldProblem, Problem};
use crate::http::shell::within;
use crate::store::KV;
use crate::store::config::deployment;

/// The JSON Schema of a configuration, generated from its types.
const SCHEMA: &str = include_str!("../../../config/schema.json");

/// Longest time that KV is waited for, in milliseconds.
const KV_PATIENCE_MS: u64 = 1_000;

pub(super) async fn draft(context: &Context<'_>) -> Result<Answer, Problem> {
    let draft = drafts::load(context).await?;
    answer(draft.document, draft.hash)
}

fn answer(document: Value, hash: String) -> Result<Answer, Problem> {
    let draft = Draft { document, hash };
    Ok(Answer::ok(&draft)?.etag(&draft.hash))
}

/// Replaces the draft. Each part must be right by itself and refer to what there is: entries are rows that refer to each
/// other.
pub(super) async fn replace_draft(context: &Context<'_>) -> Result<Answer, Problem> {
    let wanted: DraftReplacement = context.body()?;
    let before = drafts::load(context).await?;
    context.check_etag(&before.hash)?;
    draft::refuse("document", drafts::judge(context, &wanted.document).await?.err().unwrap_or_default())?;
    let hash = content_hash(&wanted.document);
    let (old, new) = draft::summary((&before.document, &before.hash), (&wanted.document, &hash));
    let mut write = Write::new("config:replace_draft", "draft", "draft").change(&old, &new).with(before.guard());
    for statement in drafts::replace(wanted.document.clone(), context.now()) {
        write = write.with(statement);
    }
    context.commit(write, answer(wanted.document, hash)?).await
}

/// The document that is given, or else the draft's; and what is current.
async fn chosen(context: &Context<'_>, document: Option<Value>) -> Result<(Value, Option<Current>), Problem> {
    match document {
        None => drafts::load(context).await.map(|draft| (draft.document, draft.current)),
        Some(document) => Ok((document, context.db.first(Statement::new(super::versions::CURRENT)).await?)),
    }
}

pub(super) async fn validate(context: &Context<'_>) -> Result<Answer, Problem> {
    let choice: DocumentChoice = context.body()?;
    let (document, _) = chosen(context, choice.document).await?;
    Answer::ok(&match drafts::judge(context, &document).await? {
        Ok(config) => Validation { valid: true, errors: Vec::new(), warnings: warnings(context, &config) },
        Err(errors) => Validation { valid: false, errors, warnings: Vec::new() },
    })
}

/// What only this deployment makes wrong: addresses that it does not allow, Worker secrets that it does not have.
fn warnings(context: &Context<'_>, config: &Config) -> Vec<FieldProblem> {
    let hosts = deployment(context.env).private_hosts;
    let addresses = config.providers.iter().filter_map(|(name, provider)| {
        let error = check_base_url(provider.base_url(), &hosts).err()?;
        Some(FieldProblem { path: format!("providers.{name}.base_url"), message: error.to_string() })
    });
    let secrets = draft::worker_secrets(config).into_iter().filter(|(_, name)| context.env.secret(name).is_err());
    let secrets = secrets.map(|(path, name)| FieldProblem {
        path,
        message: format!("this deployment has no Worker secret {name}: set it with `wrangler secret put {name}`"),
    });
    addresses.chain(secrets).collect()
}

/// Compares the draft or a document with what is current.
pub(super) async fn compare(context: &Context<'_>) -> Result<Answer, Problem> {
    let choice: DocumentChoice = context.body()?;
    let (document, current) = chosen(context, choice.document).await?;
    let nothing = json!({});
    let changes = diff(current.as_ref().map_or(&nothing, |current| &current.document.0), &document);
    Answer::ok(&Comparison { from: current.map(|current| current.version), to: None, changes })
}

/// What this isolate goes by.
pub(super) async fn effective(context: &Context<'_>) -> Result<Answer, Problem> {
    let version = context.config.as_ref().map(|loaded| loaded.version.clone());
    let published = match &version {
        Some(version) => published(context, version).await?,
        None => json!({}),
    };
    let effective = crate::config::effective(&deployment(context.env).environment, &published);
    let document = serde_json::to_value(&effective.config).map_err(|error| internal(&error.to_string()))?;
    let origins = effective.origins.into_iter().map(|(path, origin)| SettingOrigin { path, origin }).collect();
    Answer::ok(&EffectiveConfig { version, document, origins, problems: effective.problems })
}

#[derive(serde::Deserialize)]
struct Stored {
    document: super::database::Json<Value>,
}

/// The document of a version. One that was made without the control plane is in KV alone.
async fn published(context: &Context<'_>, version: &str) -> Result<Value, Problem> {
    let stored = Statement::new("SELECT document FROM config_versions WHERE version = ?1").bind(version);
    if let Some(Stored { document }) = context.db.first(stored).await? {
        return Ok(document.0);
    }
    let kv = context.env.kv(KV).map_err(|error| internal(&error.to_string()))?;
    let text = within(KV_PATIENCE_MS, kv.get(CURRENT_SNAPSHOT).text()).await.and_then(Result::ok).flatten();
    let snapshot: Option<Snapshot> = text.and_then(|text| serde_json::from_str(&text).ok());
    let snapshot = snapshot.filter(|snapshot| snapshot.version == version);
    snapshot.map(|snapshot| snapshot.config).ok_or_else(|| super::answer::not_found("version", version))
}

pub(super) fn schema() -> Result<Answer, Problem> {
    let schema: Value = serde_json::from_str(SCHEMA).map_err(|error| internal(&error.to_string()))?;
    Answer::ok(&schema)
}
