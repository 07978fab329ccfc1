//! Probes the providers that are due: asks each, writes down what came of it, and tells its gauge once enough results agree.

use std::panic::AssertUnwindSafe;

use futures::future::LocalBoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use worker::{D1Database, Env};

use crate::admin::ids;
use crate::config::{HealthProbe, ProbeMethod, Provider};
use crate::gateway::plan::LoadedConfig;
use crate::http::shell::now_ms;
use crate::probes::judge::judge_probe;
use crate::probes::question::{Question, target};
use crate::probes::send::{Failure, Sent, request, send};
use crate::probes::streak::{Verdict, is_due, needed, verdict};
use crate::providers::outbound::decode_body;
use crate::providers::{StandIns, outbound, usage_of};
use crate::routing::board::{ManualState, Observation};
use crate::routing::outcome::Fault;
use crate::store;
use crate::store::config::deployment;
use crate::store::d1::{batch, number};
use crate::store::{credentials, health};

/// Probes under way at a time: a Worker waits for so many connections at most.
const AT_A_TIME: usize = 6;

/// What a probe came to.
struct Looked {
    healthy: bool,
    fault: Option<Fault>,
    latency_ms: u64,
    detail: String,
    /// What it cost, in nano-dollars; `None` if that is not known.
    cost: Option<u64>,
}

/// Probes what is due in this minute.
///
/// # Errors
/// Which probes' results could not be stored or told.
pub(super) async fn probe(env: &Env) -> Result<String, String> {
    let Some(loaded) = store::config::newest(env).await else { return Ok("no configuration".to_owned()) };
    let database = env.d1("DB").map_err(|error| error.to_string())?;
    let now = now_ms();
    let set = store::config::provider_states();
    let due = loaded.config.providers.iter().filter(|(name, provider)| {
        let in_use = set.get(*name).is_none_or(|state| state.at(now) != ManualState::Maintenance);
        let probed = provider.enabled && provider.health.method != ProbeMethod::None;
        probed && in_use && is_due(name, &provider.health, now / 60_000)
    });
    let work = due.map(|(name, provider)| {
        let probing = AssertUnwindSafe(one(env, &database, &loaded, name, provider)).catch_unwind();
        // Boxed: inlined into the loop, what catches the panic makes the compiler emit a module that no engine accepts.
        let probing: LocalBoxFuture<'_, _> = Box::pin(probing);
        async move {
            let done = probing.await.unwrap_or_else(|_| Err("panicked".to_owned()));
            done.map_err(|error| format!("{name}: {error}"))
        }
    });
    let done: Vec<Result<bool, String>> = futures::stream::iter(work).buffer_unordered(AT_A_TIME).collect().await;
    let healthy = done.iter().filter(|done| **done == Ok(true)).count();
    let told = format!("{} probed, {healthy} healthy", done.len());
    let failed: Vec<String> = done.into_iter().filter_map(Result::err).collect();
    if failed.is_empty() { Ok(told) } else { Err(format!("{told}; {}", failed.join("; "))) }
}

/// Probes a provider; whether it is healthy.
async fn one(
    env: &Env,
    database: &D1Database,
    loaded: &LoadedConfig,
    name: &str,
    provider: &Provider,
) -> Result<bool, String> {
    let begun = now_ms();
    let looked = look(env, loaded, provider, begun).await;
    let Looked { healthy, fault, latency_ms, ref detail, .. } = looked;
    if !healthy {
        tracing::warn!(target: "probe", message = "a provider is not well", provider = name, latency_ms, detail);
    }
    let results = note(database, name, &provider.health, &looked, begun).await.map_err(|error| error.to_string())?;
    let fault = match verdict(&provider.health, &results) {
        Verdict::Unclear => return Ok(healthy),
        Verdict::Healthy => None,
        // What is wrong with the configuration is no fault of the provider's.
        Verdict::Unhealthy if fault.is_none() => return Ok(healthy),
        Verdict::Unhealthy => fault,
    };
    let found = Observation {
        provider: name.to_owned(),
        fault,
        total_ms: latency_ms,
        probe: true,
        at: now_ms(),
        ..Observation::default()
    };
    health::tell(env, loaded, found).await.map_err(|error| error.to_string())?;
    Ok(healthy)
}

/// Asks a provider.
async fn look(env: &Env, loaded: &LoadedConfig, provider: &Provider, begun: u64) -> Looked {
    let HealthProbe { method, timeout_ms, ref model, .. } = provider.health;
    let asked = async {
        let question = Question::of_probe(provider, |name| loaded.config.models.get(name));
        let question = question.and_then(|question| question.ok_or_else(|| "There is no probe.".to_owned()));
        let question = question.map_err(Failure::NotSent)?;
        let credential = provider.credential.as_deref().map(|name| credentials::resolve(env, name)).transpose();
        let credential = credential.map_err(|error| Failure::NotSent(format!("It has no credential: {error}.")))?;
        let request = request(provider, &deployment(env).private_hosts, &question, credential.as_ref()).await?;
        send(request, timeout_ms, method == ProbeMethod::Chat).await
    };
    let asked = asked.await;
    let latency_ms = now_ms().saturating_sub(begun);
    match asked {
        Ok(sent) => {
            let (healthy, detail) = judge_probe(provider.dialect(), method, sent.status);
            let fault = (!healthy).then(|| Fault::of_reply(sent.status, None, None, None));
            let cost = match model {
                Some(model) if method == ProbeMethod::Chat => cost(loaded, provider, model, &sent, begun),
                _ => Some(0),
            };
            Looked { healthy, fault, latency_ms, detail, cost }
        }
        Err(failure) => {
            let fault = match &failure {
                Failure::NotSent(_) => None,
                Failure::Unreachable => Some(Fault::Unreachable),
                Failure::TooSlow(_) => Some(Fault::TooSlow),
            };
            let cost = (method != ProbeMethod::Chat || !matches!(failure, Failure::TooSlow(_))).then_some(0);
            Looked { healthy: false, fault, latency_ms, detail: failure.detail(), cost }
        }
    }
}

/// What a model's reply cost, in nano-dollars; `None` if nobody can tell.
fn cost(loaded: &LoadedConfig, provider: &Provider, name: &str, sent: &Sent, begun: u64) -> Option<u64> {
    if !(200..300).contains(&sent.status) {
        return Some(0);
    }
    let model = loaded.config.models.get(name)?;
    let events =
        decode_body(outbound(provider.dialect()), target(provider, name, model), &StandIns::default(), &sent.body)
            .ok()?;
    let told = usage_of(&events)?;
    let pricing = loaded.prices.find(name, "", begun / 1_000)?;
    Some(pricing.cost(&told.usage, &told.facts).0)
}

/// Writes a result down; the last ones as far as they matter, this one first.
async fn note(
    database: &D1Database,
    provider: &str,
    probe: &HealthProbe,
    looked: &Looked,
    begun: u64,
) -> worker::Result<Vec<bool>> {
    #[derive(Deserialize)]
    struct Row {
        healthy: u8,
    }
    let mut random = [0; ids::RANDOM_BYTES];
    getrandom::getrandom(&mut random).map_err(|error| error.to_string())?;
    let at = begun / 1_000;
    // Results from before a pause say nothing of now.
    let since = at.saturating_sub(needed(probe).saturating_add(2).saturating_mul(probe.interval_seconds));
    let insert = database
        .prepare(
            "INSERT INTO health_history (id, provider, source, healthy, latency_ms, detail, at, cost_nanos) \
             VALUES (?1, ?2, 'probe', ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(&[
            // Entries of the same second are in the order of their ids.
            ids::compose(&format!("hlt_{begun:012x}"), &random).into(),
            provider.into(),
            number(u64::from(looked.healthy)),
            number(looked.latency_ms),
            looked.detail.as_str().into(),
            number(at),
            looked.cost.map_or(wasm_bindgen::JsValue::NULL, number),
        ])?;
    let last = database
        .prepare(
            "SELECT healthy FROM health_history WHERE provider = ?1 AND source = 'probe' AND at >= ?2 \
             ORDER BY at DESC, id DESC LIMIT ?3",
        )
        .bind(&[provider.into(), number(since), number(needed(probe))])?;
    let answers = batch(database, vec![insert, last]).await?;
    let rows: Vec<Row> = answers.last().map(|answer| answer.results()).transpose()?.unwrap_or_default();
    Ok(rows.into_iter().map(|row| row.healthy != 0).collect())
}
