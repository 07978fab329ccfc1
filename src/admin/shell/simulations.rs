//! Dry runs of requests: what would become of them by the draft or a document, and what would by the configuration in
//! effect, which is the same question about another configuration.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use serde_json::json;

use super::answer::{Answer, internal};
use super::context::Context;
use super::{drafts, standing};
use crate::admin::draft;
use crate::admin::simulation::{SampleKey, Surroundings, outcome, problems, question, result};
use crate::admin::statement::Statement;
use crate::admin::types::configuration::{SampleRequest, SampleResult, SimulatedNow, Simulation, SimulationResult};
use crate::auth::rbac::Permission;
use crate::config::Snapshot;
use crate::error::{Kind, Problem};
use crate::gateway::plan::LoadedConfig;
use crate::gateway::simulate::{Tried, Words};
use crate::http::shell::now_ms;
use crate::objects::client;
use crate::objects::pool::providers;
use crate::store::config::deployment;
use crate::store::health;
use crate::store::routing::{deciding, random};

const KEYS: &str = "SELECT json_object('id', k.id, 'account_id', k.account_id, 'user_id', k.user_id, \
     'models', json(k.models), 'endpoints', json(k.endpoints), 'overrides', json(k.overrides), \
     'disabled', json(CASE k.disabled WHEN 1 THEN 'true' ELSE 'false' END), 'expires_at', k.expires_at, \
     'suspended', json(CASE a.status WHEN 'suspended' THEN 'true' ELSE 'false' END), \
     'limits', (SELECT json_group_array(json_object('id', l.id, 'user_id', l.user_id, 'key_id', l.key_id, \
     'model', l.model)) FROM limits l WHERE l.account_id = k.account_id \
     AND (l.key_id IS NULL OR l.key_id = k.id) AND (l.user_id IS NULL OR l.user_id = k.user_id))) AS row \
     FROM api_keys k JOIN accounts a ON a.id = k.account_id WHERE k.id IN (SELECT value FROM json_each(?1))";

/// How often gauges are asked about one sample: each answer may lead to the next question, if there is no room.
const ROUNDS: usize = 10;

/// Tries sample requests on the draft or a document, as this deployment would serve them.
pub(super) async fn of_draft(context: &Context<'_>) -> Result<Answer, Problem> {
    let wanted: Simulation = context.body()?;
    let keys = keys(context, &wanted.requests).await?;
    let wrong = |(nth, sample): (usize, &SampleRequest)| problems(&format!("requests[{nth}]."), sample, &keys);
    draft::refuse("", wanted.requests.iter().enumerate().flat_map(wrong).collect())?;
    let document = match wanted.document {
        Some(document) => document,
        None => drafts::load(context).await?.document,
    };
    let errors = drafts::judge(context, &document).await?.err().unwrap_or_default();
    let snapshot = Snapshot { version: "draft".to_owned(), sequence: 0, parent: None, created_at: 0, config: document };
    let loaded = match LoadedConfig::new(snapshot, &deployment(context.env)) {
        Ok(loaded) if errors.is_empty() => loaded,
        Ok(_) => return Answer::ok(&SimulationResult { results: Vec::new(), errors }),
        Err(errors) => return Answer::ok(&SimulationResult { results: Vec::new(), errors }),
    };
    let results = results(context, &loaded, &keys, &wanted.requests).await?;
    Answer::ok(&SimulationResult { results, errors })
}

/// Tries a request on the configuration in effect.
pub(super) async fn now(context: &Context<'_>) -> Result<Answer, Problem> {
    let sample = [context.body::<SampleRequest>()?];
    let keys = keys(context, &sample).await?;
    draft::refuse("", sample.iter().flat_map(|sample| problems("", sample, &keys)).collect())?;
    let Some(loaded) = &context.config else {
        let message = "No configuration has been published yet: nothing can be asked of this gateway.";
        return Err(Problem::new(Kind::Unavailable, "gateway_not_configured", message));
    };
    let result = results(context, loaded, &keys, &sample).await?.pop();
    let result = result.ok_or_else(|| internal("a simulation has no result"))?;
    Answer::ok(&SimulatedNow { version: loaded.version.clone(), at_ms: now_ms(), result })
}

/// The keys that samples name.
async fn keys(context: &Context<'_>, samples: &[SampleRequest]) -> Result<BTreeMap<String, SampleKey>, Problem> {
    let ids: Vec<&String> = samples.iter().filter_map(|sample| sample.key_id.as_ref()).collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    // The results tell what keys may do and which limits they have.
    context.require(Permission::KeysRead, None)?;
    context.require(Permission::LimitsRead, None)?;
    let found: Vec<SampleKey> = context.db.objects(Statement::new(KEYS).bind(json!(ids))).await?;
    Ok(found.into_iter().map(|key| (key.id.clone(), key)).collect())
}

/// What would become of samples by a configuration, as the gauges of the configuration in effect know the providers.
async fn results(
    context: &Context<'_>,
    loaded: &LoadedConfig,
    keys: &BTreeMap<String, SampleKey>,
    samples: &[SampleRequest],
) -> Result<Vec<SampleResult>, Problem> {
    let in_effect = context.config.as_deref().unwrap_or(loaded);
    let named = samples.iter().filter_map(SampleRequest::name).flat_map(|name| providers(&loaded.config, name));
    let known = named.filter(|provider| in_effect.config.providers.contains_key(*provider));
    let silent = health::refresh(context.env, in_effect, known).await;
    let trying = Attempt { context, loaded, in_effect, keys, silent };
    try_join_all(samples.iter().map(|sample| trying.result(sample))).await
}

/// What samples are tried with.
struct Attempt<'a> {
    context: &'a Context<'a>,
    loaded: &'a LoadedConfig,
    in_effect: &'a LoadedConfig,
    keys: &'a BTreeMap<String, SampleKey>,
    silent: BTreeSet<String>,
}

impl Attempt<'_> {
    async fn result(&self, sample: &SampleRequest) -> Result<SampleResult, Problem> {
        let Self { context, loaded, keys, silent, .. } = self;
        let (random, mut words) = (random(), Words::new());
        let mut tried = self.tried(sample, &words, random);
        for _ in 0..ROUNDS {
            let Some(question) = tried.question.take() else { break };
            let word = client::preview_place(context.env, &question.gauge, &question.acquire).await;
            if let Err(error) = &word {
                tracing::error!(target: "admin", message = "a provider's gauge cannot be asked", error);
            }
            words.insert(question.models(), word.ok());
            tried = self.tried(sample, &words, random);
        }
        let concerned: BTreeSet<&str> =
            sample.name().into_iter().flat_map(|name| providers(&loaded.config, name)).collect();
        let unheard = silent.iter().filter(|provider| concerned.contains(provider.as_str()));
        tried.told.silent.extend(unheard.cloned());
        let preview = match question(&tried, sample, keys) {
            None => None,
            Some((account, ask)) => {
                let preview = client::preview(context.env, &account, ask).await;
                Some((account, preview.map_err(|error| standing::unavailable(&error))?))
            }
        };
        Ok(result(tried, preview, loaded.config.limits.disclose, now_ms()))
    }

    fn tried(&self, sample: &SampleRequest, words: &Words, random: u64) -> Tried {
        let Self { context, loaded, in_effect, keys, .. } = self;
        deciding(loaded, |seen, chance| {
            let around = Surroundings {
                loaded,
                pools: &in_effect.pools,
                keys,
                health: seen,
                turns: chance.turns,
                now: context.now(),
            };
            outcome(around, sample, words, random)
        })
    }
}
