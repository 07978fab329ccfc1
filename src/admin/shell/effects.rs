//! What a change makes necessary outside D1. An effect names a thing, not a value: carrying it out reads what D1 has now
//! and tells objects and KV. So it may come twice, late, or out of order.
//!
//! What orders the states is the audit log's last sequence, read in the same transaction as the state: every change adds
//! an entry, so of two states the newer one always has the higher number. The time of a request would not do: one that
//! began earlier may commit later.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use worker::{D1Result, Env};

use super::database::{Database, Json, Object, rows};
use super::provider_states;
use super::signing_keys;
use crate::admin::statement::Statement;
use crate::admin::types::keys::Limit;
use crate::auth::api_key::KeyRecord;
use crate::config::Snapshot;
use crate::error::Problem;
use crate::limits::ledger::KeyState;
use crate::objects::client;

/// Something that objects and KV must learn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Effect {
    /// A key has changed or is gone.
    Key {
        /// The account whose ledger knows it.
        account: String,
        /// The key.
        key: String,
        /// The public ids that it had before the change.
        public_ids: Vec<String>,
        /// The key's revision after the change.
        revision: u64,
    },
    /// An account, or its limits, have changed.
    Account {
        /// The account.
        account: String,
    },
    /// Another configuration is current.
    Config,
    /// A provider's credential has changed.
    Credentials,
    /// The gateway signs with another key.
    SigningKeys,
    /// Something else is set of a provider.
    ProviderStates,
    /// What speaks against a provider is to be forgotten.
    ProviderReset {
        /// The provider.
        provider: String,
        /// The gauge that counts for it.
        gauge: String,
    },
    /// Isolates must forget what they remember.
    Purge {
        /// Higher than any before; Unix milliseconds.
        epoch: u64,
    },
}

/// Carries an effect out.
///
/// # Errors
/// What failed; to be tried again.
pub(super) async fn carry_out(env: &Env, db: &Database, effect: &Effect) -> Result<(), String> {
    match effect {
        Effect::Key { account, key, public_ids, revision } => {
            let (revision, state) = key_state(db, key, public_ids, *revision).await?;
            client::push_key(env, account, key, revision, state, public_ids).await
        }
        Effect::Account { account } => push_account(env, db, account).await,
        Effect::Config => push_config(env, db).await,
        Effect::Credentials => push_credentials(env, db).await,
        Effect::SigningKeys => push_signing_keys(env, db).await,
        Effect::ProviderStates => push_provider_states(env, db).await,
        Effect::ProviderReset { provider, gauge } => client::reset_provider(env, gauge, provider).await,
        Effect::Purge { epoch } => client::purge(env, *epoch).await,
    }
}

#[derive(Deserialize)]
struct SecretRow {
    public_id: String,
    hash: String,
    secret_expires_at: Option<u64>,
    account_id: String,
    user_id: Option<String>,
    name: String,
    models: Json<Vec<String>>,
    endpoints: Json<Vec<String>>,
    ip_ranges: Json<Value>,
    overrides: Json<Value>,
    metadata: Json<Map<String, Value>>,
    disabled: u64,
    expires_at: Option<u64>,
    revision: u64,
}

async fn key_state(db: &Database, key: &str, public_ids: &[String], revision: u64) -> Result<(u64, KeyState), String> {
    let statement = Statement::new(
        "SELECT s.public_id, s.hash, s.expires_at AS secret_expires_at, k.account_id, k.user_id, k.name, k.models, \
         k.endpoints, k.ip_ranges, k.overrides, k.metadata, k.disabled, k.expires_at, k.revision \
         FROM api_keys k JOIN api_key_secrets s ON s.key_id = k.id WHERE k.id = ?1",
    );
    let secrets: Vec<SecretRow> = db.rows(statement.bind(key)).await.map_err(|problem| problem.message)?;
    let Some(current) = secrets.first().map(|row| row.revision) else {
        let gone: BTreeSet<String> = public_ids.iter().cloned().collect();
        return Ok((revision, KeyState::Tombstone(gone)));
    };
    let mut records = BTreeMap::new();
    for row in secrets {
        let ip_ranges = serde_json::from_value(row.ip_ranges.0).map_err(|error| error.to_string())?;
        let overrides =
            Some(row.overrides.0).filter(|value| value.as_object().is_some_and(|object| !object.is_empty()));
        let record = KeyRecord {
            hash: row.hash,
            account: row.account_id,
            key: key.to_owned(),
            user: row.user_id,
            name: row.name,
            models: row.models.0,
            endpoints: row.endpoints.0,
            ip_ranges,
            expires_at: [row.expires_at, row.secret_expires_at].into_iter().flatten().min(),
            disabled: row.disabled != 0,
            revision: row.revision,
            overrides,
            metadata: row.metadata.0,
        };
        records.insert(row.public_id, record);
    }
    Ok((current, KeyState::Records(records)))
}

#[derive(Deserialize)]
struct SequenceRow {
    sequence: u64,
}

/// Asks questions along with the number that orders their answers.
async fn ask_in_order(db: &Database, questions: &[Statement]) -> Result<(u64, Vec<D1Result>), Problem> {
    let mut batch = vec![Statement::new("SELECT coalesce(max(sequence), 0) AS sequence FROM audit_log")];
    batch.extend_from_slice(questions);
    let mut answers = db.ask(&batch).await?.into_iter();
    let sequence = match answers.next() {
        Some(answer) => rows::<SequenceRow>(&answer)?.first().map_or(0, |row| row.sequence),
        None => 0,
    };
    Ok((sequence, answers.collect()))
}

#[derive(Deserialize)]
struct AccountRow {
    status: String,
}

async fn push_account(env: &Env, db: &Database, account: &str) -> Result<(), String> {
    let (revision, suspended, limits) = account_state(db, account).await.map_err(|problem| problem.message)?;
    let limits = serde_json::to_value(limits).map_err(|error| error.to_string())?;
    client::push_account(env, account, revision, suspended, limits).await
}

async fn account_state(db: &Database, account: &str) -> Result<(u64, bool, Vec<Limit>), Problem> {
    let status = Statement::new("SELECT status FROM accounts WHERE id = ?1").bind(account);
    let limits = Statement::new(super::limits::ALL_OF_ACCOUNT).bind(account);
    let (revision, answers) = ask_in_order(db, &[status, limits]).await?;
    let [status, limits] = answers.as_slice() else { return Ok((revision, true, Vec::new())) };
    // An account that is gone must not go on calling models.
    let suspended = rows::<AccountRow>(status)?.first().is_none_or(|row| row.status == "suspended");
    let limits = rows::<Object<Limit>>(limits)?.into_iter().map(|limit| limit.row.0).collect();
    Ok((revision, suspended, limits))
}

async fn push_signing_keys(env: &Env, db: &Database) -> Result<(), String> {
    let (revision, answers) =
        ask_in_order(db, &[Statement::new(signing_keys::ALL)]).await.map_err(|problem| problem.message)?;
    let jwks = answers.first().map(signing_keys::published).transpose().map_err(|problem| problem.message)?;
    match jwks {
        Some(jwks) => client::push_public_keys(env, &jwks.to_string(), revision).await,
        None => Ok(()),
    }
}

async fn push_provider_states(env: &Env, db: &Database) -> Result<(), String> {
    let (revision, answers) =
        ask_in_order(db, &[Statement::new(provider_states::ALL)]).await.map_err(|problem| problem.message)?;
    let states = answers.first().map(provider_states::pushed).transpose().map_err(|problem| problem.message)?;
    client::push_provider_states(env, &states.unwrap_or_default(), revision).await
}

#[derive(Deserialize)]
struct CurrentVersion {
    sequence: u64,
    version: String,
    parent: Option<String>,
    document: Json<Value>,
    created_at: u64,
}

/// The current version as isolates get it; `None` if none has been published.
///
/// # Errors
/// 503 if the database does not answer.
pub(super) async fn current_snapshot(db: &Database) -> Result<Option<Snapshot>, Problem> {
    let statement = Statement::new(
        "SELECT v.sequence, v.version, p.version AS parent, v.document, v.created_at FROM config_versions v \
         LEFT JOIN config_versions p ON p.sequence = v.parent ORDER BY v.sequence DESC LIMIT 1",
    );
    let current: Option<CurrentVersion> = db.first(statement).await?;
    Ok(current.map(|current| Snapshot {
        version: current.version,
        sequence: current.sequence,
        parent: current.parent,
        created_at: current.created_at,
        config: current.document.0,
    }))
}

async fn push_config(env: &Env, db: &Database) -> Result<(), String> {
    let Some(snapshot) = current_snapshot(db).await.map_err(|problem| problem.message)? else { return Ok(()) };
    let text = serde_json::to_string(&snapshot).map_err(|error| error.to_string())?;
    client::push_config(env, &text, &snapshot.version, snapshot.sequence).await
}

#[derive(Deserialize)]
struct CredentialRow {
    id: String,
    sealed: Option<String>,
    worker_secret: Option<String>,
    revision: u64,
}

async fn push_credentials(env: &Env, db: &Database) -> Result<(), String> {
    let statement = Statement::new("SELECT id, sealed, worker_secret, revision FROM provider_credentials");
    let (revision, answers) = ask_in_order(db, &[statement]).await.map_err(|problem| problem.message)?;
    let stored: Vec<CredentialRow> =
        answers.first().map_or_else(|| Ok(Vec::new()), rows).map_err(|problem| problem.message)?;
    let mut document = Map::new();
    for row in stored {
        let entry = match (row.sealed, row.worker_secret) {
            (Some(sealed), _) => json!({"sealed": sealed, "revision": row.revision}),
            (None, name) => json!({"worker_secret": name, "revision": row.revision}),
        };
        document.insert(row.id, entry);
    }
    client::push_credentials(env, &Value::Object(document).to_string(), revision).await
}
