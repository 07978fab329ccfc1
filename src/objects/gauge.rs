//! The gauge's object: what is asked of a provider, or of a [pool](super::pool) of them, all accounts together, and how
//! they are. A shell around an [`Admission`](crate::limits::admission::Admission) for each provider, by the provider's own
//! limits, which come along with each question.

#![expect(missing_docs, reason = "the object's attribute makes methods that cannot be documented")]

mod health;
mod parts;

use std::panic::{RefUnwindSafe, UnwindSafe};

use url::Url;
use worker::{DurableObject, Env, Request, Response, Result, SqlStorage, State, durable_object};

use super::kept::Kept;
use super::sql::answer;
use super::wire::{Acquire, GaugeCounts, GaugeQuery, HealthQuery, Release, Report};
use crate::http::shell::now_ms;
use crate::limits::rule::Rule;
use crate::telemetry::log;
use health::Health;
use parts::Parts;

/// Counts what is asked of providers and what is open there; the authority on their health.
///
/// | request | answer |
/// |---|---|
/// | `POST /acquire` [`Acquire`] | [`Acquired`](super::wire::Acquired) |
/// | `POST /preview` [`Acquire`], without reserving anything | [`Acquired`](super::wire::Acquired) |
/// | `POST /release` [`Release`] | [`Settled`](crate::limits::ask::Settled) |
/// | `POST /report` [`Report`] | [`Snapshot`](crate::routing::board::Snapshot) |
/// | `POST /health` [`HealthQuery`] | [`HealthNow`](super::wire::HealthNow) |
/// | `POST /reset` [`HealthQuery`] | [`HealthNow`](super::wire::HealthNow) |
/// | `POST /state` [`GaugeQuery`] | [`GaugeState`](super::wire::GaugeState) |
/// | `GET /state?provider=` | [`GaugeState`](super::wire::GaugeState) |
/// | `GET /counts` | [`GaugeCounts`] |
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

/// What a gauge is asked.
enum Question {
    Acquire(Acquire),
    Preview(Acquire),
    Release(Release),
    Report(Report),
    Health(HealthQuery),
    Reset(HealthQuery),
    State { provider: String, rules: Option<Vec<Rule>> },
    Counts,
}

// A panic leaves no half-made change behind: storage is written by whole statements, and memory by the pure core.
impl UnwindSafe for ProviderGauge {}
impl RefUnwindSafe for ProviderGauge {}

impl DurableObject for ProviderGauge {
    fn new(state: State, env: Env) -> Self {
        log::init(&env);
        Self { state, env, kept: Kept::unread() }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let body = request.text().await?;
        // What cannot be read leaves memory as it is: not all of it is stored.
        match Question::read(request.inner().method().as_str(), &request.url()?, &body) {
            Ok(Some(question)) => self.kept.or_forget(self.serve(question).await),
            Ok(None) => Response::error("no such request", 404),
            Err(error) => Response::error(error.to_string(), 400),
        }
    }

    async fn alarm(&self) -> Result<Response> {
        self.kept.or_forget(self.wake().await)
    }
}

impl ProviderGauge {
    async fn serve(&self, question: Question) -> Result<Response> {
        let (sql, now) = (self.load()?, now_ms());
        let answered = self.kept.with(|memory| memory.answer(&sql, now, question))??;
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

impl Memory {
    fn answer(&mut self, sql: &SqlStorage, now: u64, question: Question) -> Result<Response> {
        let Self { parts, health } = self;
        match question {
            Question::Acquire(acquire) => match parts.acquire(sql, now, &acquire)? {
                Some(acquired) => answer(&acquired),
                None => Response::error("no candidate is named", 400),
            },
            Question::Preview(acquire) => match parts.preview(sql, now, &acquire)? {
                Some(acquired) => answer(&acquired),
                None => Response::error("no candidate is named", 400),
            },
            Question::Release(release) => answer(&parts.release(sql, now, &release)?),
            Question::Report(report) => answer(&health.report(sql, now, report)?),
            Question::Health(query) => answer(&health.tell(now, &query, parts.open_at(sql, now, &query.provider)?)),
            Question::Reset(query) => {
                health.reset(sql, now, &query)?;
                answer(&health.tell(now, &query, parts.open_at(sql, now, &query.provider)?))
            }
            Question::State { provider, rules } => answer(&parts.tell(sql, now, &provider, rules.as_deref())?),
            Question::Counts => answer(&GaugeCounts { at: now, open: parts.open(sql, now)? }),
        }
    }
}

impl Question {
    /// `None` for one that there is not.
    ///
    /// # Errors
    /// That it cannot be read.
    fn read(method: &str, url: &Url, body: &str) -> serde_json::Result<Option<Self>> {
        Ok(Some(match (method, url.path()) {
            ("POST", "/acquire") => Self::Acquire(serde_json::from_str(body)?),
            ("POST", "/preview") => Self::Preview(serde_json::from_str(body)?),
            ("POST", "/release") => Self::Release(serde_json::from_str(body)?),
            ("POST", "/report") => Self::Report(serde_json::from_str(body)?),
            ("POST", "/health") => Self::Health(serde_json::from_str(body)?),
            ("POST", "/reset") => Self::Reset(serde_json::from_str(body)?),
            ("POST", "/state") => {
                let GaugeQuery { provider, rules } = serde_json::from_str(body)?;
                Self::State { provider, rules: Some(rules) }
            }
            ("GET", "/state") => {
                let provider = url.query_pairs().find(|(name, _)| name == "provider").map(|(_, value)| value);
                Self::State { provider: provider.unwrap_or_default().into_owned(), rules: None }
            }
            ("GET", "/counts") => Self::Counts,
            _ => return Ok(None),
        }))
    }
}
