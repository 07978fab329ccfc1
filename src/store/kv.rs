//! Key records and the configuration snapshot: KV, with the isolate's memory in front.

use std::cell::RefCell;
use std::rc::Rc;

use wasm_bindgen::JsCast as _;
use worker::{Context, Env};

use super::bounded_cache::BoundedCache;
use crate::auth::api_key::{ApiKey, KeyRecord};
use crate::config::{CURRENT_SNAPSHOT, ConfigProblem, ENVIRONMENT_PREFIX, PrivateHosts, Snapshot};
use crate::error::{Kind, Problem};
use crate::gateway::plan::{Deployment, LoadedConfig};

/// The binding of the KV namespace.
pub const KV: &str = "KV";

/// How long KV may serve an entry from its own cache, in seconds: the least that it allows.
const KV_CACHE_SECONDS: u64 = 30;

/// A snapshot this old (in milliseconds) is looked for anew in the background …
const CONFIG_REFRESH_MS: u64 = 5_000;
/// … and one this old before it is used: the isolate was idle for long.
const CONFIG_STALE_MS: u64 = 60_000;

/// Key records that an isolate remembers, unknown keys included.
const KEY_CACHE_ENTRIES: usize = 10_000;

thread_local! {
    static CONFIG: RefCell<Option<(u64, Rc<LoadedConfig>)>> = const { RefCell::new(None) };
    static KEYS: RefCell<BoundedCache<String, Option<Rc<KeyRecord>>>> = RefCell::new(BoundedCache::new(KEY_CACHE_ENTRIES));
}

/// The current configuration; `None` if there is none that can be used. `now` is in milliseconds.
pub async fn config(env: &Env, context: &Context, now: u64) -> Option<Rc<LoadedConfig>> {
    let known = CONFIG.with_borrow(Clone::clone);
    match known {
        Some((at, config)) if now.saturating_sub(at) < CONFIG_REFRESH_MS => Some(config),
        Some((at, config)) if now.saturating_sub(at) < CONFIG_STALE_MS => {
            // Others need not look as well.
            remember(now, &config);
            let env = env.clone();
            context.wait_until(async move {
                fetch_config(&env, now).await;
            });
            Some(config)
        }
        Some((_, config)) => Some(fetch_config(env, now).await.unwrap_or(config)),
        None => fetch_config(env, now).await,
    }
}

fn remember(now: u64, config: &Rc<LoadedConfig>) {
    CONFIG.with_borrow_mut(|slot| *slot = Some((now, Rc::clone(config))));
}

async fn fetch_config(env: &Env, now: u64) -> Option<Rc<LoadedConfig>> {
    let text = match env.kv(KV) {
        Ok(kv) => kv.get(CURRENT_SNAPSHOT).cache_ttl(KV_CACHE_SECONDS).text().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let text = match text {
        Ok(Some(text)) => text,
        Ok(None) => {
            tracing::warn!(target: "config", message = "no configuration has been published");
            return None;
        }
        Err(error) => {
            tracing::error!(target: "config", message = "the configuration could not be read", error);
            return None;
        }
    };
    let snapshot: Snapshot = match serde_json::from_str(&text) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            let error = error.to_string();
            tracing::error!(target: "config", message = "the published configuration is unreadable", error);
            return None;
        }
    };
    if let Some(known) = CONFIG.with_borrow(|slot| slot.as_ref().map(|(_, config)| Rc::clone(config)))
        && known.version == snapshot.version
    {
        remember(now, &known);
        return Some(known);
    }
    let config = match LoadedConfig::new(snapshot, &deployment(env)) {
        Ok(config) => Rc::new(config),
        Err(problems) => {
            for ConfigProblem { path, message: problem } in problems {
                tracing::error!(target: "config", message = "the published configuration is unreadable", path, problem);
            }
            return None;
        }
    };
    for ConfigProblem { path, message: problem } in &config.problems {
        tracing::error!(target: "config", message = "something is wrong with the configuration", path, problem);
    }
    for (provider, error) in config.refused_endpoints() {
        let error = error.to_string();
        tracing::error!(target: "config", message = "a provider cannot be called", provider, error);
    }
    tracing::info!(target: "config", message = "configuration loaded", version = config.version.as_str());
    remember(now, &config);
    Some(config)
}

/// What the deployment says by its variables.
fn deployment(env: &Env) -> Deployment {
    let private = env.var("PRIVATE_UPSTREAM_HOSTS").map(|hosts| hosts.to_string()).unwrap_or_default();
    let variables = js_sys::Object::entries(env.unchecked_ref());
    let environment = variables
        .iter()
        .filter_map(|entry| {
            let entry: js_sys::Array = entry.unchecked_into();
            Some((entry.get(0).as_string()?, entry.get(1).as_string()?))
        })
        .filter(|(name, _)| name.to_ascii_uppercase().starts_with(ENVIRONMENT_PREFIX))
        .collect();
    Deployment { private_hosts: PrivateHosts::parse(&private), environment }
}

/// The record of a key; `None` if there is none. `now` and `max_age` are in milliseconds.
///
/// # Errors
/// 503 if KV does not answer.
pub async fn key_record(env: &Env, key: &ApiKey, now: u64, max_age: u64) -> Result<Option<Rc<KeyRecord>>, Problem> {
    if let Some(known) = KEYS.with_borrow(|keys| keys.get(key.public_id(), now, max_age)) {
        return Ok(known);
    }
    let unavailable = |error: String| {
        tracing::error!(target: "auth", message = "a key record could not be read", error);
        Problem::new(
            Kind::Unavailable,
            "key_store_unavailable",
            "API keys cannot be checked at the moment. Try again shortly.",
        )
    };
    let kv = env.kv(KV).map_err(|error| unavailable(error.to_string()))?;
    let text = kv.get(&key.record_name()).cache_ttl(KV_CACHE_SECONDS).text().await;
    let text = text.map_err(|error| unavailable(error.to_string()))?;
    let record = match text.map(|text| serde_json::from_str::<KeyRecord>(&text)) {
        None => None,
        Some(Ok(record)) => Some(Rc::new(record)),
        Some(Err(error)) => {
            let (error, key_id) = (error.to_string(), key.public_id());
            tracing::error!(target: "auth", message = "a key record is unreadable", key_id, error);
            None
        }
    };
    KEYS.with_borrow_mut(|keys| keys.put(key.public_id().to_owned(), record.clone(), now));
    Ok(record)
}
