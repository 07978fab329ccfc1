//! What a change makes necessary outside D1. An effect names a thing, not a value: carrying it out reads what D1 has now
//! and tells objects and KV. So it may come twice, late, or out of order.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use worker::Env;

use super::database::{Database, Json};
use crate::admin::statement::Statement;
use crate::admin::types::keys::Limit;
use crate::auth::api_key::KeyRecord;
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
        /// Orders the states; Unix milliseconds.
        revision: u64,
    },
    /// Another configuration is current.
    Config,
    /// A provider's credential has changed.
    Credentials {
        /// Orders the states; Unix milliseconds.
        revision: u64,
    },
    /// The gateway signs with another key.
    SigningKeys {
        /// Orders the states; Unix milliseconds.
        revision: u64,
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
            client::push_key(env, account, key, revision, state).await
        }
        Effect::Account { account, revision } => push_account(env, db, account, *revision).await,
        Effect::Config => push_config(env, db).await,
        Effect::Credentials { revision } => push_credentials(env, db, *revision).await,
        Effect::SigningKeys { revision } => {
            let jwks = super::signing_keys::published(db).await?;
            client::push_public_keys(env, &jwks.to_string(), *revision).await
        }
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
    let rows: Vec<SecretRow> = db.rows(statement.bind(key)).await.map_err(|problem| problem.message)?;
    let Some(current) = rows.first().map(|row| row.revision) else {
        let gone: BTreeSet<String> = public_ids.iter().cloned().collect();
        return Ok((revision, KeyState::Tombstone(gone)));
    };
    let mut records = BTreeMap::new();
    for row in rows {
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
struct AccountRow {
    status: String,
}

async fn push_account(env: &Env, db: &Database, account: &str, revision: u64) -> Result<(), String> {
    let told = |problem: crate::error::Problem| problem.message;
    let row = Statement::new("SELECT status FROM accounts WHERE id = ?1").bind(account);
    let row: Option<AccountRow> = db.first(row).await.map_err(told)?;
    let limits = Statement::new(super::limits::ALL_OF_ACCOUNT).bind(account);
    let limits: Vec<Limit> = db.objects(limits).await.map_err(told)?;
    let limits = serde_json::to_value(limits).map_err(|error| error.to_string())?;
    // An account that is gone must not go on calling models.
    let suspended = row.is_none_or(|row| row.status == "suspended");
    client::push_account(env, account, revision, suspended, limits).await
}

#[derive(Deserialize)]
struct CurrentVersion {
    sequence: u64,
    version: String,
    parent: Option<String>,
    document: Json<Value>,
    created_at: u64,
}

async fn push_config(env: &Env, db: &Database) -> Result<(), String> {
    let statement = Statement::new(
        "SELECT v.sequence, v.version, p.version AS parent, v.document, v.created_at FROM config_versions v \
         LEFT JOIN config_versions p ON p.sequence = v.parent ORDER BY v.sequence DESC LIMIT 1",
    );
    let current: Option<CurrentVersion> = db.first(statement).await.map_err(|problem| problem.message)?;
    let Some(current) = current else { return Ok(()) };
    let snapshot = crate::config::Snapshot {
        version: current.version,
        sequence: current.sequence,
        parent: current.parent,
        created_at: current.created_at,
        config: current.document.0,
    };
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

async fn push_credentials(env: &Env, db: &Database, revision: u64) -> Result<(), String> {
    let statement = Statement::new("SELECT id, sealed, worker_secret, revision FROM provider_credentials");
    let rows: Vec<CredentialRow> = db.rows(statement).await.map_err(|problem| problem.message)?;
    let mut document = Map::new();
    for row in rows {
        let entry = match (row.sealed, row.worker_secret) {
            (Some(sealed), _) => json!({"sealed": sealed, "revision": row.revision}),
            (None, name) => json!({"worker_secret": name, "revision": row.revision}),
        };
        document.insert(row.id, entry);
    }
    client::push_credentials(env, &Value::Object(document).to_string(), revision).await
}
