//! What operators set of providers: draining, maintenance. It is in effect without another configuration, and reaches
//! isolates in the same way as one.

use serde::Deserialize;
use worker::D1Result;

use super::answer::{Answer, not_found};
use super::context::Context;
use super::database::rows;
use super::effects::Effect;
use super::write::{Write, guard_revision};
use crate::admin::statement::Statement;
use crate::admin::types::health::{ProviderStateInfo, ProviderStateSettings};
use crate::error::Problem;
use crate::objects::wire::ProviderStates;
use crate::routing::board::{Manual, ManualState};

/// Everything that is set.
pub(super) const ALL: &str = "SELECT provider, state, reason, until, revision, updated_at FROM provider_states";

const GET: &str =
    "SELECT provider, state, reason, until, revision, updated_at FROM provider_states WHERE provider = ?1";

#[derive(Deserialize)]
struct Row {
    provider: String,
    state: ManualState,
    reason: String,
    until: Option<u64>,
    revision: u64,
    updated_at: u64,
}

impl Row {
    fn pushed(&self) -> Manual {
        Manual { state: self.state, until: self.until.map(|until| until.saturating_mul(1_000)) }
    }
}

/// What isolates get.
///
/// # Errors
/// 500 if the rows are not what the program expects.
pub(super) fn pushed(result: &D1Result) -> Result<ProviderStates, Problem> {
    let set = rows::<Row>(result)?.into_iter().filter(|row| row.state != ManualState::Active);
    Ok(set.map(|row| (row.provider.clone(), row.pushed())).collect())
}

/// What is set of a provider of the configuration in effect.
///
/// # Errors
/// 404 if there is none of this name, 503 if the database does not answer.
pub(super) async fn find(context: &Context<'_>, provider: &str) -> Result<ProviderStateInfo, Problem> {
    let known = context.config.as_ref().is_some_and(|loaded| loaded.config.providers.contains_key(provider));
    if !known {
        return Err(not_found("provider in effect", provider));
    }
    let row: Option<Row> = context.db.first(Statement::new(GET).bind(provider)).await?;
    Ok(match row {
        Some(row) => ProviderStateInfo {
            in_effect: row.pushed().at(context.now_ms),
            provider: row.provider,
            settings: ProviderStateSettings { state: row.state, reason: row.reason, until: row.until },
            revision: row.revision,
            updated_at: Some(row.updated_at),
        },
        None => ProviderStateInfo {
            provider: provider.to_owned(),
            settings: ProviderStateSettings::default(),
            in_effect: ManualState::Active,
            revision: 0,
            updated_at: None,
        },
    })
}

pub(super) async fn get(context: &Context<'_>) -> Result<Answer, Problem> {
    let info = find(context, context.parameter("name")).await?;
    Ok(Answer::ok(&info)?.revision(info.revision))
}

pub(super) async fn put(context: &Context<'_>) -> Result<Answer, Problem> {
    let before = find(context, context.parameter("name")).await?;
    context.check_revision(before.revision)?;
    let settings: ProviderStateSettings = context.body()?;
    if settings.until.is_some_and(|until| until <= context.now()) {
        return Err(Problem::invalid("until", "This time is over already. Leave it out, or name a later one."));
    }
    let after = ProviderStateInfo {
        provider: before.provider.clone(),
        in_effect: settings.state,
        settings,
        revision: before.revision.saturating_add(1),
        updated_at: Some(context.now()),
    };
    // What was not there must not have come meanwhile: two first changes would both have the first revision.
    let guard = if before.revision == 0 {
        Statement::new(
            "INSERT INTO guards SELECT 'outdated' WHERE EXISTS (SELECT 1 FROM provider_states WHERE provider = ?1)",
        )
        .bind(&after.provider)
    } else {
        Statement::new(guard_revision!("provider_states", "provider")).bind(&after.provider).bind(before.revision)
    };
    let upsert = Statement::new(
        "INSERT INTO provider_states (provider, state, reason, until, revision, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (provider) DO UPDATE SET state = excluded.state, \
         reason = excluded.reason, until = excluded.until, revision = excluded.revision, updated_at = excluded.updated_at",
    );
    let ProviderStateSettings { state, reason, until } = &after.settings;
    let upsert = upsert
        .bind(&after.provider)
        .bind(name(*state))
        .bind(reason)
        .bind(*until)
        .bind(after.revision)
        .bind(context.now());
    let write = Write::new("providers:state", "provider", &after.provider)
        .change(&before, &after)
        .with(guard)
        .with(upsert)
        .then(Effect::ProviderStates);
    context.commit(write, Answer::ok(&after)?.revision(after.revision)).await
}

fn name(state: ManualState) -> &'static str {
    match state {
        ManualState::Active => "active",
        ManualState::Draining => "draining",
        ManualState::Maintenance => "maintenance",
    }
}
