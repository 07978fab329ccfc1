//! Runs the jobs.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use worker::Env;

use super::probes::probe;
use super::retention::{ROUNDS, ROWS, sweeps};
use crate::admin::shell::outbox::drain;
use crate::alerts::evaluate::{evaluate, forget_gone};
use crate::http::shell::{now_ms, within};
use crate::store;
use crate::store::d1::{changed, number};
use crate::telemetry::log;

/// Longest time for one job, in milliseconds.
const PATIENCE_MS: u64 = 120_000;

/// A job: its name, and what it does. The result is for the log.
type Job<'a> = (&'static str, LocalBoxFuture<'a, Result<String, String>>);

/// Does what is due.
pub async fn run(env: &Env) {
    log::init(env);
    let jobs: [Job<'_>; 4] = [
        ("outbox", Box::pin(outbox(env))),
        ("probes", Box::pin(probe(env))),
        ("alerts", Box::pin(alerts(env))),
        ("retention", Box::pin(retention(env))),
    ];
    for (job, work) in jobs {
        let began = now_ms();
        // Boxed: inlined into the loop, what catches the panic makes the compiler emit a module that no engine accepts.
        let guarded: LocalBoxFuture<'_, _> = Box::pin(AssertUnwindSafe(within(PATIENCE_MS, work)).catch_unwind());
        let result = match guarded.await {
            Ok(Some(result)) => result,
            Ok(None) => Err(format!("not done within {PATIENCE_MS} ms")),
            Err(_) => Err("panicked".to_owned()),
        };
        let millis = now_ms().saturating_sub(began);
        match result {
            Ok(result) => tracing::info!(target: "cron", message = "done", job, millis, result),
            Err(error) => tracing::error!(target: "cron", message = "failed", job, millis, error),
        }
    }
}

async fn outbox(env: &Env) -> Result<String, String> {
    drain(env).await.map(|delivered| format!("{delivered} delivered"))
}

async fn alerts(env: &Env) -> Result<String, String> {
    let database = env.d1("DB").map_err(|error| error.to_string())?;
    let done = evaluate(&database, now_ms()).await.map_err(|error| error.to_string())?;
    if let Some(loaded) = store::config::remembered() {
        let providers: Vec<&String> = loaded.config.providers.keys().collect();
        forget_gone(&database, &providers, now_ms()).await.map_err(|error| error.to_string())?;
    }
    Ok(format!("{} rules, {} opened, {} resolved", done.rules, done.opened, done.resolved))
}

async fn retention(env: &Env) -> Result<String, String> {
    let database = env.d1("DB").map_err(|error| error.to_string())?;
    let loaded = store::config::newest(env).await;
    let settings = loaded.map(|loaded| loaded.config.retention.clone()).unwrap_or_default();
    let mut deleted = Vec::new();
    let mut failed = Vec::new();
    for sweep in sweeps(&settings, now_ms() / 1000) {
        let mut rows: u64 = 0;
        for _ in 0..ROUNDS {
            let swept =
                async { database.prepare(sweep.statement).bind(&[number(sweep.before), number(ROWS)])?.run().await };
            match swept.await {
                Ok(result) => {
                    let now = changed(&result);
                    rows = rows.saturating_add(now);
                    if now < ROWS {
                        break;
                    }
                }
                // The other tables' rows age all the same.
                Err(error) => {
                    failed.push(format!("{}: {error}", sweep.table));
                    break;
                }
            }
        }
        if rows > 0 {
            deleted.push(format!("{} {rows}", sweep.table));
        }
    }
    if failed.is_empty() { Ok(deleted.join(", ")) } else { Err(failed.join("; ")) }
}
