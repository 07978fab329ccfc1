//! What an isolate has of the Hub: the configuration, the sealed provider credentials, the public keys of the gateway's
//! own tokens, what operators have set of providers, and the purge epoch.
//!
//! A busy isolate asks the Hub once a second in the background; one whose knowledge is two seconds old asks before it
//! serves. Without a Hub, or with one that has nothing, KV counts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use wasm_bindgen::JsCast as _;
use worker::{Context, Env};

use super::freshness::{Bounds, Freshness, Step};
use super::{CREDENTIALS, KV, KV_CACHE_SECONDS, PROVIDER_STATES, PUBLIC_KEYS};
use crate::auth::issuer_keys;
use crate::config::{CURRENT_SNAPSHOT, ConfigProblem, ENVIRONMENT_PREFIX, PrivateHosts, Snapshot};
use crate::gateway::plan::{Deployment, LoadedConfig};
use crate::http::shell::{now_ms, within};
use crate::objects::call::{HUB, Object, hub_name, hub_shards};
use crate::objects::wire::{Have, Numbered, PATIENCE_MS, ProviderStates, State};

/// How old the configuration may be.
const BOUNDS: Bounds = Bounds { fresh_ms: 1_000, stale_ms: 2_000, patience_ms: 2_500 };

/// How often KV is read where the Hub cannot be reached or has no configuration, in milliseconds.
const KV_INTERVAL_MS: u64 = 5_000;

/// A provider credential as the control plane stores it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct StoredCredential {
    /// Sealed under the deployment's master secret …
    #[serde(default)]
    pub sealed: Option<String>,
    /// … or the name of a Worker secret.
    #[serde(default)]
    pub worker_secret: Option<String>,
}

#[derive(Default)]
struct Memory {
    freshness: Freshness,
    shard: Option<u32>,
    config: Option<Rc<LoadedConfig>>,
    /// The configuration's sequence; 0 for one that was made without a control plane.
    sequence: u64,
    kv_read_at: Option<u64>,
    credentials: (u64, Rc<BTreeMap<String, StoredCredential>>),
    public_keys: (u64, Rc<Value>),
    provider_states: (u64, Rc<ProviderStates>),
    purge_epoch: Option<u64>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::default());
}

/// The current configuration; `None` if there is none that can be used.
pub async fn current(env: &Env, context: &Context) -> Option<Rc<LoadedConfig>> {
    match MEMORY.with_borrow_mut(|memory| memory.freshness.step(now_ms(), BOUNDS)) {
        Step::Use => {}
        Step::UseAndAsk => {
            let env = env.clone();
            context.wait_until(async move { ask(&env).await });
        }
        Step::Ask => ask(env).await,
    }
    remembered()
}

/// The configuration that the isolate has, however old; nobody is asked.
pub fn remembered() -> Option<Rc<LoadedConfig>> {
    MEMORY.with_borrow(|memory| memory.config.clone())
}

/// As [`current`], for work that nobody waits for: always asks.
pub async fn newest(env: &Env) -> Option<Rc<LoadedConfig>> {
    ask(env).await;
    remembered()
}

/// The sealed provider credentials by id.
pub fn credentials() -> Rc<BTreeMap<String, StoredCredential>> {
    MEMORY.with_borrow(|memory| Rc::clone(&memory.credentials.1))
}

/// The public keys of the gateway's own tokens, as a JSON Web Key Set; null where there are none. Good for the request
/// that has asked for the configuration.
pub fn public_keys() -> Rc<Value> {
    MEMORY.with_borrow(|memory| Rc::clone(&memory.public_keys.1))
}

/// What operators have set of providers. As new as the configuration: a request that has asked for that sees it.
pub fn provider_states() -> Rc<ProviderStates> {
    MEMORY.with_borrow(|memory| Rc::clone(&memory.provider_states.1))
}

/// Grows when what an isolate has cached must be forgotten: whoever caches something remembers the epoch along with it.
pub fn purge_epoch() -> u64 {
    MEMORY.with_borrow(|memory| memory.purge_epoch.unwrap_or(0))
}

/// Asks the Hub, or else KV.
async fn ask(env: &Env) {
    let asked_at = now_ms();
    let shards = hub_shards(env);
    let (shard, have) = MEMORY.with_borrow_mut(|memory| {
        let shard = *memory.shard.get_or_insert_with(|| random().checked_rem(shards).unwrap_or(0));
        let have = Have {
            config: memory.config.as_ref().map(|config| config.version.clone()).unwrap_or_default(),
            credentials: memory.credentials.0,
            keys: memory.public_keys.0,
            provider_states: memory.provider_states.0,
        };
        (shard, have)
    });
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("config", &have.config)
        .append_pair("credentials", &have.credentials.to_string())
        .append_pair("keys", &have.keys.to_string())
        .append_pair("provider_states", &have.provider_states.to_string())
        .finish();
    let hub = Object { binding: HUB, name: &hub_name(shard) };
    let answer = hub.call::<State>(env, "GET", &format!("/state?{query}"), None::<&()>, PATIENCE_MS).await;
    let reached = match answer {
        Ok(state) => {
            let has_config = state.config_sequence > 0;
            learn(env, asked_at, state);
            if has_config {
                return;
            }
            true
        }
        Err(error) => {
            let error = error.to_string();
            tracing::error!(target: "config", message = "the Hub cannot be asked", error);
            false
        }
    };
    let due = MEMORY.with_borrow_mut(|memory| {
        let due = memory.kv_read_at.is_none_or(|at| asked_at.saturating_sub(at) >= KV_INTERVAL_MS);
        if due {
            memory.kv_read_at = Some(asked_at);
        }
        due || memory.config.is_none()
    });
    if due {
        read_kv(env, reached).await;
    }
    // Where there is no answer, the wait for it must not make what is known old already.
    let learnt_at = if reached { asked_at } else { now_ms() };
    MEMORY.with_borrow_mut(|memory| memory.freshness.learnt(learnt_at));
}

/// Takes in what the Hub said, unless a later question has been answered already.
fn learn(env: &Env, asked_at: u64, state: State) {
    let news = MEMORY.with_borrow_mut(|memory| {
        let news = memory.freshness.is_news(asked_at);
        // A Hub without a configuration has answered half of the question: KV is read next.
        if state.config_sequence > 0 {
            memory.freshness.learnt(asked_at);
        }
        news
    });
    if !news {
        return;
    }
    let config = state.config.and_then(|config| load(env, config.document.get()));
    MEMORY.with_borrow_mut(|memory| {
        if let Some(config) = config {
            memory.take_config(config, state.config_sequence);
        }
        if let Some(credentials) = state.credentials {
            memory.take_credentials(&credentials);
        }
        if let Some(keys) = state.keys {
            memory.take_keys(&keys);
        }
        if let Some(states) = state.provider_states {
            memory.take_provider_states(&states);
        }
    });
    let purged = MEMORY.with_borrow_mut(|memory| memory.purge_epoch.replace(state.purge_epoch));
    if purged.is_some_and(|before| before != state.purge_epoch) {
        super::keys::forget();
        super::credentials::forget();
        issuer_keys::forget();
        tracing::info!(target: "config", message = "caches emptied", epoch = state.purge_epoch);
    }
}

impl Memory {
    fn take_config(&mut self, config: LoadedConfig, sequence: u64) {
        tracing::info!(target: "config", message = "configuration loaded", version = config.version.as_str());
        self.config = Some(Rc::new(config));
        self.sequence = sequence;
    }

    fn take_credentials(&mut self, credentials: &Numbered) {
        match serde_json::from_str(credentials.document.get()) {
            Ok(by_id) => self.credentials = (credentials.number, Rc::new(by_id)),
            Err(error) => unreadable("credentials", &error),
        }
    }

    fn take_keys(&mut self, keys: &Numbered) {
        match serde_json::from_str(keys.document.get()) {
            Ok(set) => self.public_keys = (keys.number, Rc::new(set)),
            Err(error) => unreadable("public keys", &error),
        }
    }

    fn take_provider_states(&mut self, states: &Numbered) {
        match serde_json::from_str(states.document.get()) {
            Ok(by_name) => self.provider_states = (states.number, Rc::new(by_name)),
            Err(error) => unreadable("provider states", &error),
        }
    }

    /// Whether there is anything but a configuration.
    fn has_more(&self) -> bool {
        self.credentials.0 > 0 || self.public_keys.0 > 0 || self.provider_states.0 > 0
    }
}

fn unreadable(what: &str, error: &serde_json::Error) {
    let error = error.to_string();
    tracing::error!(target: "config", message = "what the Hub or KV has is unreadable", what, error);
}

/// Reads the configuration from KV; where the Hub cannot be reached, what else it would have told as well.
async fn read_kv(env: &Env, hub_reached: bool) {
    match kv_entry(env, CURRENT_SNAPSHOT).await {
        Ok(Some(text)) => take_from_kv(env, &text),
        Ok(None) if MEMORY.with_borrow(|memory| memory.config.is_none()) => {
            tracing::warn!(target: "config", message = "no configuration has been published");
        }
        Ok(None) => {}
        Err(error) => tracing::error!(target: "config", message = "the configuration could not be read", error),
    }
    if hub_reached || MEMORY.with_borrow(Memory::has_more) {
        return;
    }
    // Number 0: whatever the Hub has counts instead as soon as it can be reached.
    let numbered = |text: String| RawValue::from_string(text).map(|document| Numbered { number: 0, document });
    let entries = [
        (CREDENTIALS, Memory::take_credentials as fn(&mut Memory, &Numbered)),
        (PUBLIC_KEYS, Memory::take_keys),
        (PROVIDER_STATES, Memory::take_provider_states),
    ];
    for (name, take) in entries {
        match kv_entry(env, name).await.map(|text| text.map(numbered)) {
            Ok(Some(Ok(document))) => MEMORY.with_borrow_mut(|memory| take(memory, &document)),
            Ok(Some(Err(error))) => unreadable(name, &error),
            Ok(None) => {}
            Err(error) => tracing::error!(target: "config", message = "KV could not be read", name, error),
        }
    }
}

async fn kv_entry(env: &Env, name: &str) -> Result<Option<String>, String> {
    let kv = env.kv(KV).map_err(|error| error.to_string())?;
    let read = within(PATIENCE_MS, kv.get(name).cache_ttl(KV_CACHE_SECONDS).text()).await;
    read.ok_or_else(|| format!("no answer within {PATIENCE_MS} ms"))?.map_err(|error| error.to_string())
}

/// KV may be behind what this isolate has from the Hub.
fn take_from_kv(env: &Env, text: &str) {
    #[derive(Deserialize)]
    struct Head {
        version: String,
        #[serde(default)]
        sequence: u64,
    }
    let head: Head = match serde_json::from_str(text) {
        Ok(head) => head,
        Err(error) => return unreadable("configuration", &error),
    };
    let wanted = MEMORY.with_borrow(|memory| match &memory.config {
        Some(known) => head.sequence >= memory.sequence && head.version != known.version,
        None => true,
    });
    if wanted && let Some(config) = load(env, text) {
        MEMORY.with_borrow_mut(|memory| memory.take_config(config, head.sequence));
    }
}

fn load(env: &Env, text: &str) -> Option<LoadedConfig> {
    let snapshot: Snapshot = match serde_json::from_str(text) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            unreadable("configuration", &error);
            return None;
        }
    };
    let config = match LoadedConfig::new(snapshot, &deployment(env)) {
        Ok(config) => config,
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
    Some(config)
}

/// What the deployment says by its variables.
pub fn deployment(env: &Env) -> Deployment {
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

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness every isolate asks the first Hub, which is no harm.
    let _without = getrandom::getrandom(&mut bytes);
    u32::from_le_bytes(bytes)
}
