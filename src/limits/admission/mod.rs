//! The state machine that decides whether a request may be sent, and counts what it used.
//!
//! It is one object's: an account's ledger (scopes key, user and account) or a provider's gauge (scope provider). Time
//! comes as an argument, in Unix milliseconds of the object's clock.
//!
//! **Every change is a row.** After each call that may change something, [`Admission::take_changes`] tells what must be
//! stored before the call is answered. All that is counted follows from the stored base and the stored rows
//! ([`Admission::restore`]), so a crash at any point forgets nothing that was answered, and knows nothing else.
//!
//! | call | row |
//! |---|---|
//! | [`reserve`](Admission::reserve) | an open one for the request, in place of the one that it had for another model, and perhaps one for a lease |
//! | [`settle`](Admission::settle) | the request's is closed, with what was used |
//! | [`expire`](Admission::expire) | what was open for too long is closed as it stands |
//! | [`give_back`](Admission::give_back) | the lease's goes; requests that are still open get their own |
//!
//! Requests that are only [passing](super::ask::Ask::passing) are stored late, and leave nothing behind.
//!
//! **A lease counts at its end.** What it allows may be used any time until then, and a window that ends later than it was
//! granted must not have lost sight of it. What is settled of it counts at the same time, so nothing moves between
//! windows; and no lease reaches beyond a UTC day.

mod aside;
mod lease;
mod passing;
mod reserve;
mod settle;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::base::{Base, Meta};
use super::counters::{Caller, Held, Subjects, Total};
use super::row::{Change, Row, Stage};
use super::rule::{Rule, Scope};
use super::rules::Rules;
use lease::Heat;
use passing::Passing;
pub use standing::{Connections, Totals};

/// The counters of an object, and what is open.
#[derive(Debug)]
pub struct Admission {
    rules: Rules,
    defaults: Vec<Rule>,
    subjects: Subjects,
    meta: Meta,
    slots: HashMap<String, Slot>,
    expiries: BTreeSet<(u64, String)>,
    heat: Heat,
    passing: Passing,
    late: u64,
    pending: Vec<Pending>,
}

/// What is known under an id.
#[derive(Debug)]
enum Slot {
    Open(Box<Row>),
    Settled,
    Expired,
}

/// A change that has not been told yet.
#[derive(Debug)]
enum Pending {
    /// A closed row.
    Closed(Box<Row>),
    /// The open row of this id, as it is when changes are told.
    Open(String),
    Delete(String),
    Defaults,
}

impl Admission {
    /// An object that nothing was counted in.
    pub fn new(root_scope: Scope) -> Self {
        Self::restore(Base { subjects: Subjects::new(root_scope), meta: Meta::default() }, Vec::new(), Vec::new())
    }

    /// An object as it was stored: the whole base, all rows in any order, and the default rules that were in use last.
    /// Its own rules are to be set.
    pub fn restore(base: Base, rows: impl IntoIterator<Item = Row>, defaults: Vec<Rule>) -> Self {
        let mut admission = Self {
            rules: Rules::default(),
            defaults,
            subjects: base.subjects,
            meta: base.meta,
            slots: HashMap::new(),
            expiries: BTreeSet::new(),
            heat: Heat::default(),
            passing: Passing::default(),
            late: 0,
            pending: Vec::new(),
        };
        let mut rows: Vec<Row> = rows.into_iter().collect();
        rows.sort_by_key(|row| row.sequence);
        for row in rows {
            admission.meta.count(&row);
            admission.subjects.shift(&row, None, Some(Held::by(&row)));
            admission.keep(row);
        }
        admission
    }

    /// Replaces the rules that the object's subjects have of their own.
    pub fn set_rules(&mut self, rules: Vec<Rule>) {
        self.rules = Rules::new(rules);
    }

    /// What must be stored, in this order, before anything is answered.
    #[must_use]
    pub fn take_changes(&mut self) -> Vec<Change> {
        let pending = std::mem::take(&mut self.pending);
        let mut changes = Vec::with_capacity(pending.len());
        let mut told: BTreeSet<String> = BTreeSet::new();
        for pending in pending {
            match pending {
                Pending::Closed(row) => changes.push(Change::Put(row)),
                Pending::Delete(id) => changes.push(Change::Delete(id)),
                Pending::Defaults => changes.push(Change::Defaults(self.defaults.clone())),
                Pending::Open(id) => {
                    if let Some(Slot::Open(row)) = self.slots.get(&id)
                        && told.insert(id)
                    {
                        changes.push(Change::Put(row.clone()));
                    }
                }
            }
        }
        changes
    }

    /// When something open must be charged or stored: [`expire`](Self::expire) is to be called then.
    pub fn next_expiry(&self) -> Option<u64> {
        self.expiries.first().map(|(at, _)| *at).into_iter().chain(self.passing.next()).min()
    }

    /// Forgets the ids of closed rows that are deleted. One that comes again is a new one.
    pub fn forget<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>) {
        for id in ids {
            if self.slots.get(id).is_some_and(|slot| !matches!(slot, Slot::Open(_))) {
                self.slots.remove(id);
            }
        }
    }

    /// Settlements that came after their reservation had been charged, since the object was read in.
    pub fn late_settlements(&self) -> u64 {
        self.late
    }

    /// Rows that are open, leases included.
    pub fn open_rows(&self) -> usize {
        self.expiries.len()
    }

    /// Whether a request has been reserved or settled under this id, as far as that is remembered.
    pub fn knows(&self, id: &str) -> bool {
        self.slots.contains_key(id)
    }

    /// The latest time known: clocks may run backwards, what was counted may not.
    fn clock(&self, now: u64) -> u64 {
        now.max(self.meta.latest)
    }

    /// The number of the next change.
    fn next_sequence(&mut self) -> u64 {
        self.meta.sequence = self.meta.sequence.saturating_add(1);
        self.meta.sequence
    }

    /// Keeps a row that is counted already.
    fn keep(&mut self, row: Row) {
        let id = row.id.clone();
        let slot = match row.stage {
            Stage::Open(until) => {
                self.expiries.insert((until, id.clone()));
                Slot::Open(Box::new(row))
            }
            Stage::Settled => Slot::Settled,
            Stage::Expired => Slot::Expired,
        };
        self.slots.insert(id, slot);
    }

    /// Counts, keeps and tells a new row.
    fn put(&mut self, row: Row) {
        self.subjects.shift(&row, None, Some(Held::by(&row)));
        self.meta.count(&row);
        self.tell(row);
    }

    /// Keeps and tells a row that is counted already.
    fn tell(&mut self, row: Row) {
        if row.is_open() {
            self.pending.push(Pending::Open(row.id.clone()));
            self.keep(row);
        } else {
            let slot = if row.stage == Stage::Expired { Slot::Expired } else { Slot::Settled };
            self.slots.insert(row.id.clone(), slot);
            self.pending.push(Pending::Closed(Box::new(row)));
        }
    }

    /// Takes an open row out, to be closed.
    fn take_open(&mut self, id: &str) -> Option<Box<Row>> {
        let Some(Slot::Open(_)) = self.slots.get(id) else { return None };
        let Some(Slot::Open(row)) = self.slots.remove(id) else { return None };
        if let Stage::Open(until) = row.stage {
            self.expiries.remove(&(until, row.id.clone()));
        }
        Some(row)
    }
}
