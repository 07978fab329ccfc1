//! How the control plane's changes reach the data plane: the objects first (they are the authority), then KV (which is
//! fast, and there when objects cannot be reached).
//!
//! Each push carries a number and may be repeated, and may overtake or be overtaken by another: whoever gets an error
//! repeats the whole push later. None of them takes longer than a few seconds.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{try_join, try_join_all};
use serde_json::Value;
use serde_json::value::RawValue;
use worker::Env;

use super::call::{Object, hub_name, hub_shards};
use super::hub_state::Kind;
use super::wire::{
    Acquire, Acquired, GaugeQuery, GaugeState, HealthNow, HealthQuery, HubStatus, KeyNow, LedgerStatus, LimitsNow,
    LimitsQuery, ProviderStates, Pushed, PutKey,
};
use crate::auth::api_key::record_name;
use crate::config::CURRENT_SNAPSHOT;
use crate::fault;
use crate::http::shell::within;
use crate::limits::ask::{Ask, Preview};
use crate::limits::ledger::{AccountEntry, KeyState};
use crate::limits::rule::Rule;
use crate::routing::board::Terms;
use crate::store::{CREDENTIALS, KV, PROVIDER_STATES, PUBLIC_KEYS};

/// Longest time for one object or one KV entry, in milliseconds.
const PATIENCE_MS: u64 = 3_000;

/// How often a push begins anew because another one has overtaken it.
const OVERTAKEN: u32 = 8;

/// Makes a snapshot current. `sequence` is that of the published version; 1 or more.
///
/// # Errors
/// What failed. Isolates may or may not have the snapshot already; repeating the push is harmless.
pub async fn push_config(env: &Env, snapshot: &str, version: &str, sequence: u64) -> Result<(), String> {
    push_document(env, Kind::Config, CURRENT_SNAPSHOT, snapshot, version, sequence).await
}

/// Replaces the provider credentials: a JSON object of `{"<id>": {"sealed" | "worker_secret": …, "revision": …}}`.
/// `revision` must grow with each change of any of them.
///
/// # Errors
/// As [`push_config`].
pub async fn push_credentials(env: &Env, document: &str, revision: u64) -> Result<(), String> {
    push_document(env, Kind::Credentials, CREDENTIALS, document, "", revision).await
}

/// Replaces the public keys of the gateway's own tokens, a JSON Web Key Set. `revision` must grow with each change.
///
/// # Errors
/// As [`push_config`].
pub async fn push_public_keys(env: &Env, jwks: &str, revision: u64) -> Result<(), String> {
    push_document(env, Kind::Keys, PUBLIC_KEYS, jwks, "", revision).await
}

/// Replaces what is set of providers. `revision` must grow with each change.
///
/// # Errors
/// As [`push_config`].
pub async fn push_provider_states(env: &Env, states: &ProviderStates, revision: u64) -> Result<(), String> {
    let document = serde_json::to_string(states).map_err(|error| error.to_string())?;
    push_document(env, Kind::ProviderStates, PROVIDER_STATES, &document, "", revision).await
}

/// Makes every isolate forget the key records, token issuers' keys and credentials that it has cached. `epoch` must be
/// higher than any before; the time in milliseconds will do.
///
/// # Errors
/// As [`push_config`].
pub async fn purge(env: &Env, epoch: u64) -> Result<(), String> {
    for shard in 0..hub_shards(env) {
        let path = format!("/purge?number={epoch}");
        let _pushed: Pushed = hub(env, shard, "PUT", &path, Some("")).await?;
    }
    Ok(())
}

/// Tells an account's ledger the state of a key: all of its good secrets' records by public id, or that it is gone.
/// `revision` is the key's; 1 or more. `before` are the public ids that it had before the change: those of them that are
/// good no more leave KV, where an older one has left it by the change that retired it.
///
/// A tombstone should name the public ids that the key had: the ledger knows those that it was told of before, but not
/// those of records that were only ever put into KV.
///
/// # Errors
/// As [`push_config`].
pub async fn push_key(
    env: &Env,
    account_id: &str,
    key_id: &str,
    revision: u64,
    state: KeyState,
    before: &[String],
) -> Result<(), String> {
    let put = PutKey { key_id: key_id.to_owned(), revision, state };
    let tell = || async {
        let told = Object::ledger(account_id).call::<KeyNow>(env, "PUT", "/keys", Some(&put), PATIENCE_MS).await;
        told.map_err(|error| format!("the ledger of account {account_id}: {error}"))
    };
    let mut now = tell().await?;
    let mut known: BTreeSet<String> = before.iter().cloned().collect();
    for _ in 0..OVERTAKEN {
        fault::point("after-object")?;
        // What the ledger has may be newer than what was pushed: KV gets the same.
        let puts = now.records.iter().map(|(public_id, record)| async move {
            let text = serde_json::to_string(record).map_err(|error| error.to_string())?;
            put_kv(env, &record_name(public_id), &text).await
        });
        let gone = known.iter().filter(|public_id| !now.records.contains_key(*public_id));
        let deletes = gone.map(|public_id| async move { delete_kv(env, &record_name(public_id)).await });
        try_join(try_join_all(puts), try_join_all(deletes)).await?;
        // A push that came after this one's first look may have written to KV before it: the last to write looks again.
        let then = tell().await?;
        if then.revision == now.revision {
            return Ok(());
        }
        known.extend(now.records.into_keys());
        now = then;
    }
    Err(format!("key {key_id} is being changed too often"))
}

/// Tells an account's ledger the account's state. `revision` is the account's; 1 or more.
///
/// # Errors
/// As [`push_config`].
pub async fn push_account(
    env: &Env,
    account_id: &str,
    revision: u64,
    suspended: bool,
    limits: Value,
) -> Result<(), String> {
    let entry = AccountEntry { revision, suspended, limits };
    let told = Object::ledger(account_id).call::<Pushed>(env, "PUT", "/account", Some(&entry), PATIENCE_MS).await;
    told.map(drop).map_err(|error| format!("the ledger of account {account_id}: {error}"))
}

/// What an account's ledger is at.
///
/// # Errors
/// That it cannot be reached.
pub async fn ledger_status(env: &Env, account_id: &str) -> Result<LedgerStatus, String> {
    let status = Object::ledger(account_id).call(env, "GET", "/status", None::<&()>, PATIENCE_MS).await;
    status.map_err(|error| format!("the ledger of account {account_id}: {error}"))
}

/// How the limits of an account stand.
///
/// # Errors
/// That the ledger cannot be reached.
pub async fn limits_now(env: &Env, account_id: &str, query: &LimitsQuery) -> Result<LimitsNow, String> {
    let limits = Object::ledger(account_id).call(env, "POST", "/limits", Some(query), PATIENCE_MS).await;
    limits.map_err(|error| format!("the ledger of account {account_id}: {error}"))
}

/// What would become of a request.
///
/// # Errors
/// That the ledger cannot be reached.
pub async fn preview(env: &Env, account_id: &str, ask: &Ask) -> Result<Preview, String> {
    let preview = Object::ledger(account_id).call(env, "POST", "/preview", Some(ask), PATIENCE_MS).await;
    preview.map_err(|error| format!("the ledger of account {account_id}: {error}"))
}

/// What a gauge would say of a request now; nothing is reserved.
///
/// # Errors
/// That the gauge cannot be reached.
pub async fn preview_place(env: &Env, gauge: &str, acquire: &Acquire) -> Result<Acquired, String> {
    let preview = Object::gauge(gauge).call(env, "POST", "/preview", Some(acquire), PATIENCE_MS).await;
    preview.map_err(|error| format!("the gauge {gauge}: {error}"))
}

/// How a provider stands by these rules, as `gauge` counts.
///
/// # Errors
/// That the gauge cannot be reached.
pub async fn gauge_state(env: &Env, gauge: &str, provider: &str, rules: &[Rule]) -> Result<GaugeState, String> {
    let query = GaugeQuery { provider: provider.to_owned(), rules: rules.to_vec() };
    let state = Object::gauge(gauge).call(env, "POST", "/state", Some(&query), PATIENCE_MS).await;
    state.map_err(|error| format!("the gauge of provider {provider}: {error}"))
}

/// How a provider and its models are, as `gauge` knows.
///
/// # Errors
/// That the gauge cannot be reached.
pub async fn provider_health(env: &Env, gauge: &str, provider: &str, terms: &Terms) -> Result<HealthNow, String> {
    let query = HealthQuery { provider: provider.to_owned(), terms: *terms };
    let health = Object::gauge(gauge).call(env, "POST", "/health", Some(&query), PATIENCE_MS).await;
    health.map_err(|error| format!("the gauge of provider {provider}: {error}"))
}

/// Has `gauge` forget what speaks against a provider.
///
/// # Errors
/// That the gauge cannot be reached.
pub async fn reset_provider(env: &Env, gauge: &str, provider: &str) -> Result<(), String> {
    let query = HealthQuery { provider: provider.to_owned(), terms: Terms::default() };
    let reset = Object::gauge(gauge).call::<HealthNow>(env, "POST", "/reset", Some(&query), PATIENCE_MS).await;
    reset.map(drop).map_err(|error| format!("the gauge of provider {provider}: {error}"))
}

/// What each Hub is at, by name; an error where one cannot be reached.
pub async fn hub_status(env: &Env) -> BTreeMap<String, Result<HubStatus, String>> {
    let mut all = BTreeMap::new();
    for shard in 0..hub_shards(env) {
        all.insert(hub_name(shard), hub(env, shard, "GET", "/status", None).await);
    }
    all
}

async fn push_document(
    env: &Env,
    kind: Kind,
    entry: &str,
    document: &str,
    version: &str,
    number: u64,
) -> Result<(), String> {
    let name = kind.name();
    if number == 0 || serde_json::from_str::<&RawValue>(document).is_err() {
        return Err(format!("{name}: must be JSON with a number from 1 on"));
    }
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("number", &number.to_string())
        .append_pair("version", version)
        .finish();
    let mut newest = number;
    for shard in 0..hub_shards(env) {
        let pushed: Pushed = hub(env, shard, "PUT", &format!("/{name}?{query}"), Some(document)).await?;
        newest = newest.max(pushed.number);
    }
    // Something newer is there already, and whoever pushed that puts it into KV.
    if newest > number {
        return Ok(());
    }
    fault::point("after-object")?;
    put_kv(env, entry, document).await
}

async fn hub<T: serde::de::DeserializeOwned>(
    env: &Env,
    shard: u32,
    method: &str,
    path: &str,
    body: Option<&str>,
) -> Result<T, String> {
    let name = hub_name(shard);
    let object = Object { binding: super::call::HUB, name: &name };
    object.call_text(env, method, path, body, PATIENCE_MS).await.map_err(|error| format!("{name}: {error}"))
}

async fn put_kv(env: &Env, name: &str, value: &str) -> Result<(), String> {
    let failed = |error: String| format!("KV entry {name}: {error}");
    let put = env
        .kv(KV)
        .map_err(|error| failed(error.to_string()))?
        .put(name, value)
        .map_err(|error| failed(error.to_string()))?;
    match within(PATIENCE_MS, put.execute()).await {
        None => Err(failed(format!("no answer within {PATIENCE_MS} ms"))),
        Some(done) => done.map_err(|error| failed(error.to_string())),
    }
}

async fn delete_kv(env: &Env, name: &str) -> Result<(), String> {
    let failed = |error: String| format!("KV entry {name}: {error}");
    let kv = env.kv(KV).map_err(|error| failed(error.to_string()))?;
    match within(PATIENCE_MS, kv.delete(name)).await {
        None => Err(failed(format!("no answer within {PATIENCE_MS} ms"))),
        Some(done) => done.map_err(|error| failed(error.to_string())),
    }
}
