//! The gauge's object: what is asked of a provider, all accounts together. A shell around an
//! [`Admission`](crate::limits::admission::Admission) by the provider's own limits, which come along with each question.

#![expect(missing_docs, reason = "the object's attribute makes methods that cannot be documented")]

use std::cell::RefCell;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use worker::{DurableObject, Env, Request, Response, Result, State, durable_object};

use super::counting::Counting;
use super::sql::answer;
use super::wire::{GaugeQuery, GaugeState, Release};
use crate::http::shell::now_ms;
use crate::limits::ask::Ask;
use crate::limits::counters::Caller;
use crate::limits::rule::{Rule, Scope};
use crate::telemetry::log;

/// Rows that are closed within the same so many milliseconds are folded together.
const BATCH_MS: u64 = 60_000;

/// For how many such times after its own a closed row is remembered, so that nothing is counted twice.
const BATCHES_REMEMBERED: u64 = 3;

/// Counts what is asked of a provider, and what is open there.
///
/// | request | answer |
/// |---|---|
/// | `POST /acquire` [`Ask`] | [`Answer`](crate::limits::ask::Answer) |
/// | `POST /release` [`Release`] | [`Settled`](crate::limits::ask::Settled) |
/// | `POST /state` [`GaugeQuery`] | [`GaugeState`] |
/// | `GET /state` | [`GaugeState`] |
#[durable_object(alarm)]
pub struct ProviderGauge {
    state: State,
    /// Read from storage with the first event.
    memory: RefCell<Option<Memory>>,
}

// A panic leaves no half-made change behind: storage is written by whole statements, and memory by the pure core.
impl UnwindSafe for ProviderGauge {}
impl RefUnwindSafe for ProviderGauge {}

struct Memory {
    counting: Counting,
    /// The oldest batch of closed rows that is not folded.
    oldest: Option<u64>,
    alarm_at: Option<u64>,
}

impl DurableObject for ProviderGauge {
    fn new(state: State, env: Env) -> Self {
        log::init(&env);
        Self { state, memory: RefCell::new(None) }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        self.or_forget(self.serve(request).await)
    }

    async fn alarm(&self) -> Result<Response> {
        self.or_forget(self.wake().await)
    }
}

impl ProviderGauge {
    async fn serve(&self, mut request: Request) -> Result<Response> {
        let body = request.text().await?;
        self.load()?;
        let path = request.path();
        let answered = match (request.inner().method().as_str(), path.as_str()) {
            ("POST", "/acquire") => {
                let ask: Ask = serde_json::from_str(&body)?;
                answer(&self.change(|counting, now| counting.admission.reserve(now, &ask))?)?
            }
            ("POST", "/release") => {
                let Release { id, settlement } = serde_json::from_str(&body)?;
                answer(&self.change(|counting, now| counting.admission.settle(now, &id, &settlement))?)?
            }
            ("POST", "/state") => {
                let GaugeQuery { rules } = serde_json::from_str(&body)?;
                self.tell(Some(&rules))?
            }
            ("GET", "/state") => self.tell(None)?,
            _ => return Response::error("no such request", 404),
        };
        self.set_alarm().await?;
        Ok(answered)
    }

    async fn wake(&self) -> Result<Response> {
        self.load()?;
        self.with(|memory| memory.alarm_at = None)?;
        self.change(|counting, now| counting.admission.expire(now))?;
        let sql = self.state.storage().sql();
        self.with(|memory| -> Result<()> {
            let up_to = (now_ms() / BATCH_MS).saturating_sub(BATCHES_REMEMBERED);
            if memory.oldest.is_some_and(|oldest| oldest <= up_to) {
                memory.counting.fold(&sql, up_to)?;
                memory.oldest = Counting::oldest(&sql)?;
            }
            Ok(())
        })??;
        self.set_alarm().await?;
        Response::empty()
    }

    /// After a failure what is in memory may not be what was stored: it is read anew.
    fn or_forget<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.memory.replace(None);
        }
        result
    }

    fn load(&self) -> Result<()> {
        if self.memory.borrow().is_none() {
            let (counting, closed) = Counting::load(&self.state.storage().sql(), Scope::Provider)?;
            let oldest = closed.first().map(|(batch, _)| *batch);
            self.memory.replace(Some(Memory { counting, oldest, alarm_at: None }));
        }
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> Result<T> {
        let mut memory = self.memory.borrow_mut();
        memory.as_mut().map(work).ok_or_else(|| "the gauge is not loaded".into())
    }

    /// Does something, and stores what it has changed.
    fn change<T>(&self, work: impl FnOnce(&mut Counting, u64) -> T) -> Result<T> {
        let now = now_ms();
        let sql = self.state.storage().sql();
        self.with(|memory| {
            let done = work(&mut memory.counting, now);
            // The clock may have been set back.
            let batch = (now / BATCH_MS).max(memory.counting.first_batch());
            let oldest = &mut memory.oldest;
            memory.counting.store(&sql, |_| {
                oldest.get_or_insert(batch);
                Ok((Some(batch), None))
            })?;
            Ok(done)
        })?
    }

    /// How things stand by these rules, or by those that were in use last.
    fn tell(&self, rules: Option<&[Rule]>) -> Result<Response> {
        self.change(|counting, now| counting.admission.expire(now))?;
        let now = now_ms();
        let stored_bytes = self.state.storage().sql().database_size() as u64;
        let state = self.with(|memory| {
            let admission = &memory.counting.admission;
            let anybody = Caller { key: "", user: None, model: None };
            let open_by_key = admission.connections(now);
            GaugeState {
                at: now,
                states: admission.states(now, &anybody, rules.unwrap_or_else(|| admission.defaults())),
                totals: admission.totals(now, Scope::Provider, &anybody),
                open: open_by_key.values().fold(0_u64, |sum, open| sum.saturating_add(*open)),
                open_by_key,
                open_since: admission.open_since(now),
                stored_bytes,
            }
        })?;
        answer(&state)
    }

    /// Sees to it that the alarm rings when something is to be charged or folded.
    async fn set_alarm(&self) -> Result<()> {
        let now = now_ms();
        let wanted = self.with(|memory| {
            let fold = memory
                .oldest
                .map(|oldest| oldest.saturating_add(BATCHES_REMEMBERED).saturating_add(1).saturating_mul(BATCH_MS));
            let at = [fold, memory.counting.admission.next_expiry()].into_iter().flatten().min()?;
            if memory.alarm_at.is_some_and(|set| set <= at) {
                return None;
            }
            memory.alarm_at = Some(at);
            Some(at)
        })?;
        let Some(at) = wanted else { return Ok(()) };
        let set = self.state.storage().set_alarm(Duration::from_millis(at.saturating_sub(now))).await;
        if set.is_err() {
            self.with(|memory| memory.alarm_at = None)?;
        }
        set
    }
}
