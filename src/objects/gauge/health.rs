//! What a gauge knows of the health of its providers: the board that all isolates feed, and what is to be told of it.
//!
//! The board is in memory. What must survive (breakers that are not closed, pauses) is stored when something has turned,
//! before it is told. Turns and alerts go to D1 by alarm; until they are there they are stored here.

use serde::Deserialize;
use worker::{Env, Result, SqlStorage};

use super::super::flush;
use super::super::sql::{Memo, keep, memos, number, rows, run};
use super::super::turns::{Pauses, entry};
use super::super::wire::{HealthNow, HealthQuery, Report};
use crate::alerts::providers::{ProviderAlerts, ProviderEvent};
use crate::http::shell::now_ms;
use crate::routing::board::{Board, Snapshot, Terms, Transition};
use crate::routing::breaker::State;
use crate::store::health::random;

/// How long what is to be told to D1 may wait for more, in milliseconds.
const FLUSH_MS: u64 = 500;

/// How long it waits when D1 does not take it, in milliseconds.
const RETRY_MS: u64 = 5_000;

/// What waits for D1 at most. Where there is more, the oldest is not told.
const WAITING: u64 = 500;

/// In the table of notes.
const BOARD: &str = "board";

/// In the table of notes.
const ALERTS: &str = "alerts";

/// What is known of the health of a gauge's providers.
pub(super) struct Health {
    board: Board,
    terms: Terms,
    alerts: ProviderAlerts,
    pauses: Pauses,
    /// Whether anything waits for D1.
    waiting: bool,
    /// D1 is not told before this time.
    not_before: u64,
}

impl Health {
    /// Reads what has survived.
    ///
    /// # Errors
    /// What the database says, or that something in it cannot be read.
    pub(super) fn load(sql: &SqlStorage, now: u64) -> Result<Self> {
        let table = "CREATE TABLE IF NOT EXISTS news (nth INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, \
                     event TEXT NOT NULL) STRICT";
        run(sql, table, Vec::new())?;
        let (mut board, mut alerts) = (Board::default(), ProviderAlerts::default());
        for Memo { name, value } in memos(sql)? {
            match name.as_str() {
                BOARD => board = Board::restore(now, serde_json::from_str(&value)?),
                ALERTS => alerts = serde_json::from_str(&value)?,
                _ => {}
            }
        }
        let waiting = !waiting(sql, 1)?.is_empty();
        Ok(Self { board, terms: Terms::default(), alerts, pauses: Pauses::default(), waiting, not_before: 0 })
    }

    /// Takes in what an isolate has seen, and tells it all that is known.
    ///
    /// # Errors
    /// What the database says.
    pub(super) fn report(&mut self, sql: &SqlStorage, now: u64, report: Report) -> Result<Snapshot> {
        self.terms = report.terms;
        let mut turns = Vec::new();
        let mut events = Vec::new();
        for told in report.observations {
            let mut seen = told.seen;
            seen.at = now.saturating_sub(told.age_ms);
            turns.extend(self.board.observe(now, &self.terms, &seen, random()));
            events.extend(self.alerts.seen(now, &seen));
        }
        let mut snapshot = self.board.snapshot(now, &self.terms, &report.holder, &report.wants);
        for provider in report.providers {
            snapshot.providers.entry(provider).or_default();
        }
        self.note(sql, now, &turns, events)?;
        Ok(snapshot)
    }

    /// Closes the breakers of a provider and its models, and ends their pauses.
    ///
    /// # Errors
    /// What the database says.
    pub(super) fn reset(&mut self, sql: &SqlStorage, now: u64, query: &HealthQuery) -> Result<()> {
        let turns = self.board.reset(now, &query.provider);
        self.note(sql, now, &turns, Vec::new())
    }

    /// How a provider and its models are.
    pub(super) fn tell(&self, now: u64, query: &HealthQuery, open: u64) -> HealthNow {
        let mut states = self.board.states(now, &query.terms);
        states.retain(|state| state.subject.provider == query.provider);
        HealthNow { at: now, states, open }
    }

    /// Stores what has turned.
    fn note(&mut self, sql: &SqlStorage, now: u64, turns: &[Transition], events: Vec<ProviderEvent>) -> Result<()> {
        let mut events = events;
        for turn in turns {
            let what = serde_json::to_string(turn)?;
            tracing::info!(target: "health", message = "changed", transition = what);
            events.extend(self.alerts.changed(turn));
            if self.pauses.is_noteworthy(now, turn) {
                self.tell_later(sql, "turn", what)?;
            }
        }
        if !self.alerts.is_empty() {
            let states = self.board.states(now, &self.terms).into_iter();
            let not_closed = states.filter(|state| state.breaker != State::Closed).map(|state| state.subject).collect();
            events.extend(self.alerts.only(now, &not_closed));
        }
        for event in &events {
            let (name, id, resolved) = (event.name.as_str(), event.id.as_str(), event.resolved_at.is_some());
            tracing::warn!(target: "alert", message = if resolved { "resolved" } else { "raised" }, name, id);
            self.tell_later(sql, "alert", serde_json::to_string(event)?)?;
        }
        if !events.is_empty() {
            keep(sql, ALERTS, serde_json::to_string(&self.alerts)?)?;
        }
        if self.board.take_changed() {
            keep(sql, BOARD, serde_json::to_string(&self.board.stored(now, &self.terms))?)?;
        }
        Ok(())
    }

    /// Stores something that D1 is to be told.
    fn tell_later(&mut self, sql: &SqlStorage, kind: &str, event: String) -> Result<()> {
        run(sql, "INSERT INTO news (kind, event) VALUES (?, ?)", vec![kind.into(), event.into()])?;
        let oldest = "DELETE FROM news WHERE nth <= (SELECT max(nth) FROM news) - ?";
        run(sql, oldest, vec![number(WAITING)])?;
        if !self.waiting {
            self.waiting = true;
            self.not_before = self.not_before.max(now_ms().saturating_add(FLUSH_MS));
        }
        Ok(())
    }

    /// When D1 is to be told something.
    pub(super) fn next_task(&self) -> Option<u64> {
        self.waiting.then_some(self.not_before)
    }

    /// What D1 is to be told now.
    ///
    /// # Errors
    /// What the database says.
    pub(super) fn news(&self, sql: &SqlStorage, now: u64) -> Result<Vec<News>> {
        if self.waiting && self.not_before <= now { waiting(sql, WAITING) } else { Ok(Vec::new()) }
    }

    /// D1 was told, or was not.
    ///
    /// # Errors
    /// What the database says.
    pub(super) fn told(
        &mut self,
        sql: &SqlStorage,
        news: &[News],
        done: std::result::Result<(), String>,
    ) -> Result<()> {
        match done {
            Ok(()) => {
                let last = news.last().map_or(0, |last| last.nth);
                run(sql, "DELETE FROM news WHERE nth <= ?", vec![number(last)])?;
                self.waiting = !waiting(sql, 1)?.is_empty();
                self.not_before = now_ms().saturating_add(FLUSH_MS);
            }
            Err(error) => {
                tracing::error!(target: "health", message = "what has turned has not reached the database", error);
                self.not_before = now_ms().saturating_add(RETRY_MS);
            }
        }
        Ok(())
    }
}

/// Something that D1 is to be told.
#[derive(Debug, Deserialize)]
pub(super) struct News {
    nth: u64,
    kind: String,
    event: String,
}

/// Tells D1 what there is.
///
/// # Errors
/// What it says.
pub(super) async fn flush(env: &Env, object: &str, news: &[News]) -> std::result::Result<(), String> {
    let of = |kind: &'static str| news.iter().filter(move |it| it.kind == kind);
    let turns = of("turn").filter_map(|it| Some(entry(object, it.nth, &serde_json::from_str(&it.event).ok()?)));
    flush::write_health(env, turns.collect(), of("alert").map(|it| it.event.as_str())).await
}

fn waiting(sql: &SqlStorage, most: u64) -> Result<Vec<News>> {
    rows(sql, "SELECT nth, kind, event FROM news ORDER BY nth LIMIT ?", vec![number(most)])
}
