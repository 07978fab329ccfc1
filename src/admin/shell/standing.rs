//! How limits stand and what is open: asked of the objects that count.

use serde::Deserialize;

use super::accounts;
use super::answer::{Answer, not_found};
use super::context::Context;
use crate::admin::statement::Statement;
use crate::admin::types::standing::{Connections, LimitState, ProviderConnections, Standing, StandingFilter};
use crate::error::{Kind, Problem};
use crate::limits::rule::{Rule, Scope};
use crate::objects::client;
use crate::objects::wire::{LimitsNow, LimitsQuery};

/// How an account's limits stand.
pub(super) async fn limits(context: &Context<'_>) -> Result<Answer, Problem> {
    let filter: StandingFilter = context.query()?;
    if filter.key_id.is_some() && filter.user_id.is_some() {
        let message = "must be left out where `key_id` is given: a key's user is known";
        return Err(Problem::invalid("user_id", message));
    }
    let account = accounts::find(context, context.account()).await?;
    let user = match &filter.key_id {
        Some(key) => user_of(context, key).await?,
        None => filter.user_id,
    };
    let scopes: &[Scope] = match (&filter.key_id, &user) {
        (Some(_), _) => &[Scope::Key, Scope::User, Scope::Account],
        (None, Some(_)) => &[Scope::User, Scope::Account],
        (None, None) => &[Scope::Account],
    };
    let query = LimitsQuery {
        all: filter.key_id.is_none() && user.is_none(),
        key_id: filter.key_id.unwrap_or_default(),
        user,
        model: filter.model,
        defaults: defaults(context, scopes),
    };
    let now = ask(context, &query).await?;
    let limits = now.states.iter().map(|state| LimitState::of(state, &account.id, now.at)).collect();
    Answer::ok(&Standing { limits, usage: now.totals.into(), open: now.open })
}

/// What requests of an account are open.
pub(super) async fn connections(context: &Context<'_>) -> Result<Answer, Problem> {
    accounts::find(context, context.account()).await?;
    let now = ask(context, &LimitsQuery::default()).await?;
    let complete = context.config.as_ref().is_some_and(|loaded| loaded.config.limits.count_connections);
    Answer::ok(&Connections::of(&now.open_by_key, &now.open_since, complete))
}

/// What requests are open at a provider of the configuration in effect, and how its limits stand.
pub(super) async fn provider(context: &Context<'_>) -> Result<Answer, Problem> {
    let name = context.parameter("name");
    let known = context.config.as_ref().and_then(|loaded| Some((loaded, loaded.config.providers.get(name)?)));
    let Some((loaded, provider)) = known else { return Err(not_found("provider in effect", name)) };
    let state = client::gauge_state(context.env, loaded.pools.gauge(name), name, loaded.provider_rules(name)).await;
    let state = state.map_err(|error| unavailable(&error))?;
    // A gauge that picks among several counts all that goes to any of them.
    let complete = provider.count_connections || loaded.pools.is_shared(name);
    Answer::ok(&ProviderConnections {
        connections: Connections::of(&state.open_by_key, &state.open_since, complete),
        limits: state.states.iter().map(|told| LimitState::of(told, name, state.at)).collect(),
        usage: state.totals.into(),
    })
}

/// The user that a key belongs to; none for the caller with a token, who may have an id like a key's.
async fn user_of(context: &Context<'_>, key: &str) -> Result<Option<String>, Problem> {
    #[derive(Deserialize)]
    struct Owner {
        user_id: Option<String>,
    }
    let owner = Statement::new("SELECT user_id FROM api_keys WHERE account_id = ?1 AND id = ?2");
    let owner: Option<Owner> = context.db.first(owner.bind(context.account()).bind(key)).await?;
    Ok(owner.and_then(|owner| owner.user_id))
}

/// The limits of the configuration in effect that hold by default.
fn defaults(context: &Context<'_>, scopes: &[Scope]) -> Vec<Rule> {
    let all = context.config.as_ref().map_or(&[][..], |loaded| loaded.default_rules());
    all.iter().filter(|rule| scopes.contains(&rule.scope)).cloned().collect()
}

async fn ask(context: &Context<'_>, query: &LimitsQuery) -> Result<LimitsNow, Problem> {
    client::limits_now(context.env, context.account(), query).await.map_err(|error| unavailable(&error))
}

/// 503: an object does not answer.
pub(super) fn unavailable(error: &str) -> Problem {
    tracing::error!(target: "admin", message = "an object that counts cannot be asked", error);
    let message = "What counts requests does not answer at the moment. Try again shortly.";
    Problem::new(Kind::Unavailable, "limits_unavailable", message)
}
