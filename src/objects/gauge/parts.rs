//! What a gauge counts: for each of its providers an [`Admission`] with tables of its own.

use std::collections::BTreeMap;

use serde::Deserialize;
use worker::{Result, SqlStorage};

use super::super::counting::Counting;
use super::super::pick::{Desks, acquire, preview, release};
use super::super::sql::{number, rows, run};
use super::super::wire::{Acquire, Acquired, GaugeState, Release};
use crate::limits::admission::Admission;
use crate::limits::ask::Settled;
use crate::limits::counters::Caller;
use crate::limits::rule::{Rule, Scope};

/// Rows that are closed within the same so many milliseconds are folded together.
const BATCH_MS: u64 = 60_000;

/// For how many such times after its own a closed row is remembered, so that nothing is counted twice.
const BATCHES_REMEMBERED: u64 = 3;

/// The counters of all providers.
pub(super) struct Parts {
    parts: BTreeMap<String, Part>,
}

/// The counters of a provider.
struct Part {
    counting: Counting,
    /// The oldest batch of closed rows that is not folded.
    oldest: Option<u64>,
}

impl Desks for Parts {
    fn desk(&mut self, provider: &str) -> Option<&mut Admission> {
        self.parts.get_mut(provider).map(|part| &mut part.counting.admission)
    }

    fn who_knows(&mut self, id: &str) -> Option<&mut Admission> {
        self.parts.values_mut().map(|part| &mut part.counting.admission).find(|desk| desk.knows(id))
    }
}

/// The counters of providers that are only looked at: those that there are none for have none afterwards.
struct Looking<'p> {
    parts: &'p mut Parts,
    unheard: BTreeMap<String, Admission>,
}

impl Desks for Looking<'_> {
    fn desk(&mut self, provider: &str) -> Option<&mut Admission> {
        if self.parts.parts.contains_key(provider) {
            return self.parts.desk(provider);
        }
        Some(self.unheard.entry(provider.to_owned()).or_insert_with(|| Admission::new(Scope::Provider)))
    }

    fn who_knows(&mut self, id: &str) -> Option<&mut Admission> {
        self.parts.who_knows(id)
    }
}

impl Parts {
    /// Reads everything.
    ///
    /// # Errors
    /// What the database says, or that something in it cannot be read.
    pub(super) fn load(sql: &SqlStorage) -> Result<Self> {
        #[derive(Deserialize)]
        struct Named {
            name: String,
            number: u64,
        }
        for statement in [
            "CREATE TABLE IF NOT EXISTS providers (name TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE) STRICT",
            // What an earlier version counted is of one provider that it does not name: it begins anew.
            "DROP TABLE IF EXISTS rows",
            "DROP TABLE IF EXISTS base",
        ] {
            run(sql, statement, Vec::new())?;
        }
        let known: Vec<Named> = rows(sql, "SELECT name, number FROM providers", Vec::new())?;
        let parts = known.into_iter().map(|known| Ok((known.name, Part::load(sql, known.number)?)));
        Ok(Self { parts: parts.collect::<Result<_>>()? })
    }

    /// Sees to it that a provider has counters.
    fn set_up(&mut self, sql: &SqlStorage, provider: &str) -> Result<()> {
        if !self.parts.contains_key(provider) {
            let next = self.parts.len() as u64;
            run(sql, "INSERT INTO providers (name, number) VALUES (?, ?)", vec![provider.into(), number(next)])?;
            self.parts.insert(provider.to_owned(), Part::load(sql, next)?);
        }
        Ok(())
    }

    /// Reserves a request; `None` if it names no candidate.
    ///
    /// # Errors
    /// What the database says.
    pub(super) fn acquire(&mut self, sql: &SqlStorage, now: u64, ask: &Acquire) -> Result<Option<Acquired>> {
        for candidate in &ask.candidates {
            self.set_up(sql, &candidate.provider)?;
        }
        let acquired = acquire(now, self, ask);
        self.store(sql, now)?;
        Ok(acquired)
    }

    /// What [`Self::acquire`] would answer for a new request; nothing is reserved. `None` if it names no candidate.
    ///
    /// # Errors
    /// What the database says.
    pub(super) fn preview(&mut self, sql: &SqlStorage, now: u64, ask: &Acquire) -> Result<Option<Acquired>> {
        self.expire(sql, now)?;
        Ok(preview(now, &mut Looking { parts: self, unheard: BTreeMap::new() }, ask))
    }

    /// Settles a request.
    ///
    /// # Errors
    /// What the database says.
    pub(super) fn release(&mut self, sql: &SqlStorage, now: u64, settled: &Release) -> Result<Settled> {
        if settled.provider.is_empty() {
            return Ok(Settled::Late);
        }
        self.set_up(sql, &settled.provider)?;
        let settled = release(now, self, settled);
        self.store(sql, now)?;
        Ok(settled)
    }

    /// Charges what should have been released by now, and folds what was closed long ago.
    ///
    /// # Errors
    /// What the database says.
    pub(super) fn clean(&mut self, sql: &SqlStorage, now: u64) -> Result<()> {
        self.expire(sql, now)?;
        let up_to = (now / BATCH_MS).saturating_sub(BATCHES_REMEMBERED);
        for part in self.parts.values_mut() {
            if part.oldest.is_some_and(|oldest| oldest <= up_to) {
                part.counting.fold(sql, up_to)?;
                part.oldest = part.counting.oldest(sql)?;
            }
        }
        Ok(())
    }

    /// Charges what should have been released by now.
    ///
    /// # Errors
    /// What the database says.
    fn expire(&mut self, sql: &SqlStorage, now: u64) -> Result<()> {
        for part in self.parts.values_mut() {
            part.counting.admission.expire(now);
        }
        self.store(sql, now)
    }

    /// Stores what has changed.
    fn store(&mut self, sql: &SqlStorage, now: u64) -> Result<()> {
        for Part { counting, oldest } in self.parts.values_mut() {
            // The clock may have been set back.
            let batch = (now / BATCH_MS).max(counting.first_batch());
            counting.store(sql, |_| {
                oldest.get_or_insert(batch);
                Ok((Some(batch), None))
            })?;
        }
        Ok(())
    }

    /// How a provider stands by these rules, or by those that were in use last; the first one, if none is named.
    ///
    /// # Errors
    /// What the database says.
    pub(super) fn tell(
        &mut self,
        sql: &SqlStorage,
        now: u64,
        provider: &str,
        rules: Option<&[Rule]>,
    ) -> Result<GaugeState> {
        self.expire(sql, now)?;
        let stored_bytes = sql.database_size() as u64;
        let part = if provider.is_empty() { self.parts.values().next() } else { self.parts.get(provider) };
        let nothing;
        let admission = match part {
            Some(part) => &part.counting.admission,
            None => {
                nothing = Admission::new(Scope::Provider);
                &nothing
            }
        };
        let anybody = Caller { key: "", user: None, model: None };
        Ok(GaugeState {
            at: now,
            states: admission.states(now, &anybody, rules.unwrap_or_else(|| admission.defaults())),
            totals: admission.totals(now, Scope::Provider, &anybody),
            open: admission.open(None),
            open_by_key: admission.connections(now),
            open_since: admission.open_since(now),
            stored_bytes,
        })
    }

    /// How many requests are open at a provider.
    ///
    /// # Errors
    /// What the database says.
    pub(super) fn open_at(&mut self, sql: &SqlStorage, now: u64, provider: &str) -> Result<u64> {
        self.expire(sql, now)?;
        Ok(self.desk(provider).map_or(0, |desk| desk.open(None)))
    }

    /// How many requests are open at each provider.
    ///
    /// # Errors
    /// What the database says.
    pub(super) fn open(&mut self, sql: &SqlStorage, now: u64) -> Result<BTreeMap<String, u64>> {
        self.expire(sql, now)?;
        let open = self.parts.iter().map(|(name, part)| (name.clone(), part.counting.admission.open(None)));
        Ok(open.collect())
    }

    /// When something is to be charged, stored or folded.
    pub(super) fn next_task(&self) -> Option<u64> {
        let fold = |batch: u64| batch.saturating_add(BATCHES_REMEMBERED).saturating_add(1).saturating_mul(BATCH_MS);
        let tasks = self.parts.values().flat_map(|part| [part.oldest.map(fold), part.counting.admission.next_expiry()]);
        tasks.flatten().min()
    }
}

impl Part {
    fn load(sql: &SqlStorage, part: u64) -> Result<Self> {
        let (counting, closed) = Counting::load(sql, Scope::Provider, Some(part))?;
        Ok(Self { counting, oldest: closed.first().map(|(batch, _)| *batch) })
    }
}
