//! The state of the gateway's parts, and what isolates remember.

use std::cell::Cell;
use std::future::Future;

use futures::join;
use serde::Deserialize;

use super::answer::Answer;
use super::context::{Context, sealer};
use super::effects::Effect;
use super::write::Write;
use crate::admin::statement::Statement;
use crate::admin::types::catalog::{CacheState, PartHealth, PurgeReason, SystemHealth};
use crate::config::CURRENT_SNAPSHOT;
use crate::error::{Kind, Problem};
use crate::http::shell::{now_ms, within};
use crate::objects::client::hub_status;
use crate::store::KV;

/// Longest time that a part is looked at, in milliseconds.
const PATIENCE_MS: u64 = 3_000;
/// How long after a publication an isolate may still go by the version before, in seconds.
const PROPAGATION_SECONDS: u64 = 5;
/// How old what waits in the outbox may be, in seconds: it is delivered every minute at the latest.
const OUTBOX_SECONDS: u64 = 150;
/// Least bytes of the secret that keys are hashed under.
const MIN_HASH_SECRET_BYTES: usize = 16;

/// What a look at a part found: how it is, or what is wrong with it.
type Look = Result<String, String>;

/// Looks at a part, for a bounded time.
async fn look(name: &str, looking: impl Future<Output = Look>) -> PartHealth {
    let begun = now_ms();
    let found = within(PATIENCE_MS, looking).await;
    let found = found.unwrap_or_else(|| Err(format!("no answer within {PATIENCE_MS} ms")));
    let healthy = found.is_ok();
    let detail = found.unwrap_or_else(|wrong| wrong);
    PartHealth { name: name.to_owned(), healthy, detail, latency_ms: now_ms().saturating_sub(begun) }
}

pub(super) async fn system(context: &Context<'_>) -> Result<Answer, Problem> {
    let pending = Cell::new(0);
    let (d1, kv, hub, secrets, config, outbox) = join!(
        look("d1", d1(context)),
        look("kv", kv(context)),
        look("hub", hub(context)),
        look("secrets", async { secrets(context) }),
        look("config", config(context)),
        look("outbox", outbox(context, &pending)),
    );
    let parts = vec![d1, kv, hub, secrets, config, outbox];
    let healthy = parts.iter().all(|part| part.healthy);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Answer::ok(&SystemHealth { healthy, parts, outbox_pending: pending.get(), version })
}

#[derive(Deserialize)]
struct Pending {
    pending: u64,
    oldest: Option<u64>,
    last_error: Option<String>,
}

#[derive(Deserialize)]
struct Published {
    version: String,
    created_at: u64,
}

#[derive(Deserialize)]
struct Migrations {
    tables: u64,
}

async fn d1(context: &Context<'_>) -> Look {
    let statement = Statement::new("SELECT count(*) AS tables FROM sqlite_schema WHERE type = 'table'");
    let answer: Option<Migrations> = context.db.first(statement).await.map_err(|problem| problem.message)?;
    Ok(format!("answers; {} tables", answer.map_or(0, |answer| answer.tables)))
}

async fn kv(context: &Context<'_>) -> Look {
    let kv = context.env.kv(KV).map_err(|error| error.to_string())?;
    let entry = kv.get(CURRENT_SNAPSHOT).text().await.map_err(|error| error.to_string())?;
    Ok(if entry.is_some() { "answers; has a configuration" } else { "answers; has no configuration" }.to_owned())
}

async fn hub(context: &Context<'_>) -> Look {
    let mut told = Vec::new();
    for (name, status) in hub_status(context.env).await {
        let status = status?;
        let version = if status.config_version.is_empty() { "none" } else { &status.config_version };
        told.push(format!("{name}: configuration {version}, credentials {}", status.credentials_revision));
    }
    Ok(told.join("; "))
}

fn secrets(context: &Context<'_>) -> Look {
    let mut wrong = Vec::new();
    match context.hash_secret() {
        Ok(secret) if secret.expose().len() < MIN_HASH_SECRET_BYTES => {
            wrong.push(format!("KEY_HASH_SECRET is weak: it should have at least {MIN_HASH_SECRET_BYTES} bytes"));
        }
        Ok(_) => {}
        Err(problem) => wrong.push(problem.message),
    }
    if let Err(problem) = sealer(context.env) {
        wrong.push(problem.message);
    }
    if wrong.is_empty() { Ok("complete".to_owned()) } else { Err(wrong.join(" ")) }
}

async fn config(context: &Context<'_>) -> Look {
    let newest = "SELECT version, created_at FROM config_versions ORDER BY sequence DESC LIMIT 1";
    let newest: Option<Published> =
        context.db.first(Statement::new(newest)).await.map_err(|problem| problem.message)?;
    let served = context.config.as_ref().map(|loaded| loaded.version.as_str());
    match (newest, served) {
        (None, None) => Err("no configuration has been published yet".to_owned()),
        (None, Some(served)) => Ok(format!("serves {served}, which was made without the admin API")),
        (Some(newest), Some(served)) if newest.version == served => Ok(format!("serves {served}, the current version")),
        (Some(newest), _) if context.now() <= newest.created_at.saturating_add(PROPAGATION_SECONDS) => {
            Ok(format!("{} has just been published", newest.version))
        }
        (Some(newest), served) => {
            Err(format!("serves {}, but {} is current", served.unwrap_or("none"), newest.version))
        }
    }
}

async fn outbox(context: &Context<'_>, pending: &Cell<u64>) -> Look {
    let statement = Statement::new(
        "SELECT count(*) AS pending, min(created_at) AS oldest, \
         (SELECT last_error FROM outbox ORDER BY attempts DESC, id LIMIT 1) AS last_error FROM outbox",
    );
    let row: Option<Pending> = context.db.first(statement).await.map_err(|problem| problem.message)?;
    let Some(Pending { pending: waiting @ 1.., oldest, last_error }) = row else {
        return Ok("nothing waits".to_owned());
    };
    pending.set(waiting);
    let age = context.now().saturating_sub(oldest.unwrap_or_else(|| context.now()));
    let told = format!("{waiting} waiting, the oldest for {age} s");
    match last_error.filter(|error| !error.is_empty()) {
        _ if age <= OUTBOX_SECONDS => Ok(told),
        None => Err(told),
        Some(error) => Err(format!("{told}: {error}")),
    }
}

/// The highest purge epoch among the Hubs.
async fn epoch(context: &Context<'_>) -> Result<u64, Problem> {
    let mut highest = 0;
    for status in hub_status(context.env).await.into_values() {
        let status = status.map_err(|error| {
            tracing::error!(target: "admin", message = "the Hub cannot be asked", error);
            let message = "The gateway's coordinator does not answer. Nothing was changed; try again shortly.";
            Problem::new(Kind::Unavailable, "hub_unavailable", message)
        })?;
        highest = highest.max(status.purge_epoch);
    }
    Ok(highest)
}

fn cache_state(context: &Context<'_>, epoch: u64) -> CacheState {
    let auth = context.configuration().auth;
    CacheState { epoch, key_cache_ms: auth.key_cache_ms, jwks_cache_seconds: auth.jwks_cache_seconds }
}

pub(super) async fn cache(context: &Context<'_>) -> Result<Answer, Problem> {
    Answer::ok(&cache_state(context, epoch(context).await?))
}

/// Makes isolates forget key records, issuers' keys and credentials.
pub(super) async fn purge_cache(context: &Context<'_>) -> Result<Answer, Problem> {
    let reason: PurgeReason = context.body()?;
    let before = epoch(context).await?;
    // Higher than before whatever the clocks say.
    let epoch = context.now_ms.max(before.saturating_add(1));
    let write = Write::new("cache:purge", "cache", "isolates")
        .change(&serde_json::json!({"epoch": before}), &serde_json::json!({"epoch": epoch, "reason": reason.reason}))
        .then(Effect::Purge { epoch });
    context.commit(write, Answer::ok(&cache_state(context, epoch))?).await
}
