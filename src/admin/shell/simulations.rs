//! Dry runs of sample requests.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use serde_json::json;

use super::answer::Answer;
use super::context::Context;
use super::{drafts, standing};
use crate::admin::draft;
use crate::admin::simulation::{SampleKey, Surroundings, outcome, problems, question, result};
use crate::admin::statement::Statement;
use crate::admin::types::configuration::{SampleRequest, Simulation, SimulationResult};
use crate::auth::rbac::Permission;
use crate::config::Snapshot;
use crate::error::Problem;
use crate::gateway::plan::LoadedConfig;
use crate::gateway::simulate::Tried;
use crate::objects::client;
use crate::objects::pool::providers;
use crate::store::config::deployment;
use crate::store::health;
use crate::store::routing::deciding;

const KEYS: &str = "SELECT json_object('id', k.id, 'account_id', k.account_id, 'user_id', k.user_id, \
     'models', json(k.models), 'endpoints', json(k.endpoints), 'overrides', json(k.overrides), \
     'disabled', json(CASE k.disabled WHEN 1 THEN 'true' ELSE 'false' END), 'expires_at', k.expires_at, \
     'suspended', json(CASE a.status WHEN 'suspended' THEN 'true' ELSE 'false' END), \
     'limits', (SELECT json_group_array(json_object('id', l.id, 'user_id', l.user_id, 'key_id', l.key_id, \
     'model', l.model)) FROM limits l WHERE l.account_id = k.account_id \
     AND (l.key_id IS NULL OR l.key_id = k.id) AND (l.user_id IS NULL OR l.user_id = k.user_id))) AS row \
     FROM api_keys k JOIN accounts a ON a.id = k.account_id WHERE k.id IN (SELECT value FROM json_each(?1))";

/// Tries sample requests on the draft or a document, as this deployment would serve them.
pub(super) async fn simulate(context: &Context<'_>) -> Result<Answer, Problem> {
    let wanted: Simulation = context.body()?;
    let ids: Vec<&String> = wanted.requests.iter().filter_map(|sample| sample.key_id.as_ref()).collect();
    let mut keys = BTreeMap::new();
    if !ids.is_empty() {
        // The results tell what keys may do and which limits they have.
        context.require(Permission::KeysRead, None)?;
        context.require(Permission::LimitsRead, None)?;
        let found: Vec<SampleKey> = context.db.objects(Statement::new(KEYS).bind(json!(ids))).await?;
        keys.extend(found.into_iter().map(|key| (key.id.clone(), key)));
    }
    draft::refuse("", problems(&wanted.requests, &keys))?;
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
    let asked: BTreeSet<&str> = wanted
        .requests
        .iter()
        .filter_map(SampleRequest::name)
        .flat_map(|name| providers(&loaded.config, name))
        .collect();
    // The pools are those of the configuration in effect.
    health::refresh(context.env, context.config.as_deref().unwrap_or(&loaded), asked).await;
    let tried: Vec<Tried> = deciding(&loaded, |seen, chance| {
        let around = Surroundings { loaded: &loaded, keys: &keys, health: seen, now: context.now() };
        wanted.requests.iter().map(|sample| outcome(around, sample, (chance.random)())).collect()
    });
    let previews = tried.iter().zip(&wanted.requests).map(|(tried, sample)| async {
        let Some((account, ask)) = question(tried, sample, &keys) else { return Ok::<_, Problem>(None) };
        let preview =
            client::preview(context.env, &account, ask).await.map_err(|error| standing::unavailable(&error))?;
        Ok(Some((account, preview)))
    });
    let previews: Vec<_> = try_join_all(previews).await?;
    let disclose = loaded.config.limits.disclose;
    let results = tried.into_iter().zip(previews);
    let results = results.map(|(tried, preview)| result(tried, preview, disclose)).collect();
    Answer::ok(&SimulationResult { results, errors })
}
