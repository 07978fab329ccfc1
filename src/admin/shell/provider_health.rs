//! How providers are: asked of the gauges that count for them.

use serde::Deserialize;

use super::answer::Answer;
use super::context::Context;
use super::database::{Object, rows};
use super::effects::Effect;
use super::probes::last_probe;
use super::provider_states;
use super::standing::unavailable;
use super::write::Write;
use crate::admin::statement::Statement;
use crate::admin::types::catalog::HealthEntry;
use crate::admin::types::health::ProviderHealth;
use crate::error::Problem;
use crate::objects::client;
use crate::routing::board::Terms;

/// Over which time the cost of probes is summed up, in seconds.
const COST_SECONDS: u64 = 30 * 86_400;

const COST: &str = "SELECT coalesce(sum(cost_nanos), 0) AS cost FROM health_history \
    WHERE provider = ?1 AND at >= ?2 AND source = 'probe'";

#[derive(Deserialize)]
struct Cost {
    cost: u64,
}

pub(super) async fn get(context: &Context<'_>) -> Result<Answer, Problem> {
    let provider = context.parameter("name");
    let set = provider_states::find(context, provider).await?;
    let cost = Statement::new(COST).bind(provider).bind(context.now().saturating_sub(COST_SECONDS));
    let answers = context.db.ask(&[last_probe(provider), cost]).await?;
    let (probe, cost) = (answers.first(), answers.get(1));
    let probe = probe.map(rows::<Object<HealthEntry>>).transpose()?.unwrap_or_default().into_iter().next();
    let cost = cost.map(rows::<Cost>).transpose()?.unwrap_or_default().into_iter().next();
    let health = client::provider_health(context.env, &gauge(context), provider, &terms(context)).await;
    let health = health.map_err(|error| unavailable(&error))?;
    let states = health.states.into_iter().map(|mut state| {
        state.manual = set.in_effect;
        state
    });
    let (own, models): (Vec<_>, Vec<_>) = states.partition(|state| state.subject.deployment.is_none());
    Answer::ok(&ProviderHealth {
        provider: provider.to_owned(),
        set,
        at_ms: health.at,
        own: own.into_iter().next(),
        models,
        open: health.open,
        last_probe: probe.map(|row| row.row.0),
        probe_cost_nanodollars: cost.map_or(0, |row| row.cost),
    })
}

/// Forgets what speaks against a provider. What is open of its alerts is over.
pub(super) async fn reset(context: &Context<'_>) -> Result<Answer, Problem> {
    let provider = context.parameter("name");
    provider_states::find(context, provider).await?;
    let resolve = Statement::new(
        "UPDATE alert_events SET resolved_at = ?2 WHERE resolved_at IS NULL AND kind LIKE 'provider_%' \
         AND detail ->> 'provider' = ?1",
    );
    let write = Write::new("providers:reset", "provider", provider)
        .with(resolve.bind(provider).bind(context.now()))
        .then(Effect::ProviderReset { provider: provider.to_owned(), gauge: gauge(context) });
    context.commit(write, Answer::done()).await
}

/// The gauge that counts for the path's provider.
fn gauge(context: &Context<'_>) -> String {
    let provider = context.parameter("name");
    context.config.as_ref().map_or(provider, |loaded| loaded.pools.gauge(provider)).to_owned()
}

fn terms(context: &Context<'_>) -> Terms {
    context.config.as_ref().map_or_else(Terms::default, |loaded| Terms::of(&loaded.config.routing))
}
