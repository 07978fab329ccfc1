//! The gauge's object: what is asked of a provider, or of a [pool](super::pool) of them, all accounts together, and how
//! they are. A shell around an [`Admission`](crate::limits::admission::Admission) for each provider, by the provider's own
//! limits, which come along with each question.

#![expect(missing_docs, reason = "the object's attribute makes methods that cannot be documented")]

mod parts;

use std::panic::{RefUnwindSafe, UnwindSafe};

use worker::{DurableObject, Env, Request, Response, Result, SqlStorage, State, durable_object};

use super::kept::Kept;
use super::sql::answer;
use super::wire::GaugeQuery;
use crate::http::shell::now_ms;
use crate::telemetry::log;
use parts::Parts;

/// Counts what is asked of providers, and what is open there.
///
/// | request | answer |
/// |---|---|
/// | `POST /acquire` [`Acquire`](super::wire::Acquire) | [`Acquired`](super::wire::Acquired) |
/// | `POST /release` [`Release`](super::wire::Release) | [`Settled`](crate::limits::ask::Settled) |
/// | `POST /state` [`GaugeQuery`] | [`GaugeState`](super::wire::GaugeState) |
/// | `GET /state?provider=` | [`GaugeState`](super::wire::GaugeState) |
#[durable_object(alarm)]
pub struct ProviderGauge {
    state: State,
    kept: Kept<Parts>,
}

// A panic leaves no half-made change behind: storage is written by whole statements, and memory by the pure core.
impl UnwindSafe for ProviderGauge {}
impl RefUnwindSafe for ProviderGauge {}

impl DurableObject for ProviderGauge {
    fn new(state: State, env: Env) -> Self {
        log::init(&env);
        Self { state, kept: Kept::unread() }
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
                match self.kept.with(|parts| parts.acquire(&sql, now, &acquire))?? {
                    Some(acquired) => answer(&acquired)?,
                    None => return Response::error("no candidate is named", 400),
                }
            }
            ("POST", "/release") => {
                let release = serde_json::from_str(&body)?;
                answer(&self.kept.with(|parts| parts.release(&sql, now, &release))??)?
            }
            ("POST", "/state") => {
                let GaugeQuery { provider, rules } = serde_json::from_str(&body)?;
                answer(&self.kept.with(|parts| parts.tell(&sql, now, &provider, Some(&rules)))??)?
            }
            ("GET", "/state") => {
                let url = request.url()?;
                let provider = url.query_pairs().find(|(name, _)| name == "provider").map(|(_, value)| value);
                let provider = provider.unwrap_or_default();
                answer(&self.kept.with(|parts| parts.tell(&sql, now, &provider, None))??)?
            }
            _ => return Response::error("no such request", 404),
        };
        self.set_alarm().await?;
        Ok(answered)
    }

    async fn wake(&self) -> Result<Response> {
        let sql = self.load()?;
        self.kept.rang();
        self.kept.with(|parts| parts.clean(&sql, now_ms()))??;
        self.set_alarm().await?;
        Response::empty()
    }

    fn load(&self) -> Result<SqlStorage> {
        let sql = self.state.storage().sql();
        self.kept.load(|| Parts::load(&sql))?;
        Ok(sql)
    }

    /// Sees to it that the alarm rings when something is to be charged or folded.
    async fn set_alarm(&self) -> Result<()> {
        let at = self.kept.with(|parts| parts.next_task())?;
        self.kept.wake_by(&self.state, at).await
    }
}
