//! The gauge's object: what is asked of a provider, or of a [pool](super::pool) of them, all accounts together, and how
//! they are. A shell around an [`Admission`](crate::limits::admission::Admission) for each provider, by the provider's own
//! limits, which come along with each question.

#![expect(missing_docs, reason = "the object's attribute makes methods that cannot be documented")]

mod health;
mod parts;

use std::panic::{RefUnwindSafe, UnwindSafe};

use worker::{DurableObject, Env, Request, Response, Result, SqlStorage, State, durable_object};

use super::kept::Kept;
use super::sql::answer;
use super::wire::{GaugeQuery, HealthNow, HealthQuery};
use crate::http::shell::now_ms;
use crate::telemetry::log;
use health::Health;
use parts::Parts;

/// Counts what is asked of providers and what is open there; the authority on their health.
///
/// | request | answer |
/// |---|---|
/// | `POST /acquire` [`Acquire`](super::wire::Acquire) | [`Acquired`](super::wire::Acquired) |
/// | `POST /release` [`Release`](super::wire::Release) | [`Settled`](crate::limits::ask::Settled) |
/// | `POST /report` [`Report`](super::wire::Report) | [`Snapshot`](crate::routing::board::Snapshot) |
/// | `POST /health` [`HealthQuery`] | [`HealthNow`](super::wire::HealthNow) |
/// | `POST /reset` [`HealthQuery`] | [`HealthNow`](super::wire::HealthNow) |
/// | `POST /state` [`GaugeQuery`] | [`GaugeState`](super::wire::GaugeState) |
/// | `GET /state?provider=` | [`GaugeState`](super::wire::GaugeState) |
#[durable_object(alarm)]
pub struct ProviderGauge {
    state: State,
    env: Env,
    kept: Kept<Memory>,
}

struct Memory {
    parts: Parts,
    health: Health,
}

// A panic leaves no half-made change behind: storage is written by whole statements, and memory by the pure core.
impl UnwindSafe for ProviderGauge {}
impl RefUnwindSafe for ProviderGauge {}

impl DurableObject for ProviderGauge {
    fn new(state: State, env: Env) -> Self {
        log::init(&env);
        Self { state, env, kept: Kept::unread() }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        self.kept.or_forget(self.serve(request).await)
    }

    async fn alarm(&self) -> Result<Response> {
        self.kept.or_forget(self.wake().await)
    }
}

impl ProviderGauge {
    async fn serve(&self, mut request: Request) -> Result<Response> {
        let body = request.text().await?;
        let (sql, now) = (self.load()?, now_ms());
        let path = request.path();
        let answered = match (request.inner().method().as_str(), path.as_str()) {
            ("POST", "/acquire") => {
                let acquire = serde_json::from_str(&body)?;
                match self.kept.with(|memory| memory.parts.acquire(&sql, now, &acquire))?? {
                    Some(acquired) => answer(&acquired)?,
                    None => return Response::error("no candidate is named", 400),
                }
            }
            ("POST", "/release") => {
                let release = serde_json::from_str(&body)?;
                answer(&self.kept.with(|memory| memory.parts.release(&sql, now, &release))??)?
            }
            ("POST", "/report") => {
                let report = serde_json::from_str(&body)?;
                answer(&self.kept.with(|memory| memory.health.report(&sql, now, report))??)?
            }
            ("POST", path @ ("/health" | "/reset")) => {
                let query: HealthQuery = serde_json::from_str(&body)?;
                let told = self.kept.with(|Memory { parts, health }| -> Result<HealthNow> {
                    if path == "/reset" {
                        health.reset(&sql, now, &query)?;
                    }
                    Ok(health.tell(now, &query, parts.open_at(&sql, now, &query.provider)?))
                })??;
                answer(&told)?
            }
            ("POST", "/state") => {
                let GaugeQuery { provider, rules } = serde_json::from_str(&body)?;
                answer(&self.kept.with(|memory| memory.parts.tell(&sql, now, &provider, Some(&rules)))??)?
            }
            ("GET", "/state") => {
                let url = request.url()?;
                let provider = url.query_pairs().find(|(name, _)| name == "provider").map(|(_, value)| value);
                let provider = provider.unwrap_or_default();
                answer(&self.kept.with(|memory| memory.parts.tell(&sql, now, &provider, None))??)?
            }
            _ => return Response::error("no such request", 404),
        };
        self.set_alarm().await?;
        Ok(answered)
    }

    async fn wake(&self) -> Result<Response> {
        let sql = self.load()?;
        self.kept.rang();
        let now = now_ms();
        let news = self.kept.with(|Memory { parts, health }| {
            parts.clean(&sql, now)?;
            health.news(&sql, now)
        })??;
        if !news.is_empty() {
            let done = health::flush(&self.env, &self.state.id().to_string(), &news).await;
            self.kept.with(|memory| memory.health.told(&sql, &news, done))??;
        }
        self.set_alarm().await?;
        Response::empty()
    }

    fn load(&self) -> Result<SqlStorage> {
        let sql = self.state.storage().sql();
        self.kept.load(|| Ok(Memory { parts: Parts::load(&sql)?, health: Health::load(&sql, now_ms())? }))?;
        Ok(sql)
    }

    /// Sees to it that the alarm rings when something is to be charged, folded or told.
    async fn set_alarm(&self) -> Result<()> {
        let tasks = self.kept.with(|memory| [memory.parts.next_task(), memory.health.next_task()])?;
        let at = tasks.into_iter().flatten().min();
        self.kept.wake_by(&self.state, at).await
    }
}
