//! The counters of an account: for each subject, alone and with each model, calendar totals that are always there and
//! the rates that rules have needed.
//!
//! A row counts in all of them in the same way whether it has just been made, is read in after a restart, or is folded
//! into the stored base when it is deleted; and the order of rows matters to none of them. (A bucket is the exception:
//! each row brings the state that it left behind, and the latest counts.)

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::amounts::Amounts;
use super::bucket::Bucket;
use super::calendar::span;
use super::row::{CounterId, Mark, Row};
use super::rule::{Dimension, Period, Scope};
use super::window::Window;

/// The periods of the totals that are always kept.
pub const TOTALS: [Period; 4] = [Period::Day, Period::Week, Period::Month, Period::Total];

/// Who asks: a key, the user it belongs to, and a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller<'a> {
    /// The key's id.
    pub key: &'a str,
    /// The user's id.
    pub user: Option<&'a str>,
    /// The model as callers name it; `None` for any.
    pub model: Option<&'a str>,
}

/// What was used in a calendar period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Total {
    /// What is settled, or was charged as reserved.
    pub settled: Amounts,
    /// What is reserved.
    pub reserved: Amounts,
}

impl Total {
    /// Both together.
    pub fn used(&self) -> Amounts {
        self.settled.plus(&self.reserved)
    }
}

/// What a row counts for at some time: how much, and whether it is still open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) amounts: Amounts,
    pub(super) open: bool,
}

impl Held {
    pub(super) fn by(row: &Row) -> Self {
        Self { amounts: row.amounts, open: row.is_open() }
    }
}

/// A calendar total: of the latest period that anything was counted in.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Cell {
    start: u64,
    total: Total,
}

/// A bucket, and the change that it comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tank {
    sequence: u64,
    bucket: Bucket,
}

/// What is counted of one subject, of all models or one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredCounters", into = "StoredCounters")]
pub(super) struct Counters {
    cells: [Cell; 4],
    windows: Vec<(Dimension, Period, Window)>,
    tanks: Vec<(Dimension, Period, Tank)>,
    connections: u64,
}

/// What is stored of [`Counters`]: nothing that is open.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredCounters {
    #[serde(rename = "c")]
    cells: Vec<(u64, Amounts)>,
    #[serde(rename = "w", skip_serializing_if = "Vec::is_empty")]
    windows: Vec<(Dimension, Period, Window)>,
    #[serde(rename = "b", skip_serializing_if = "Vec::is_empty")]
    tanks: Vec<(Dimension, Period, u64, Bucket)>,
}

/// What is counted of one subject.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Subject {
    #[serde(rename = "a")]
    all: Counters,
    #[serde(rename = "m")]
    models: BTreeMap<String, Counters>,
}

/// All subjects of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Subjects {
    root_scope: Scope,
    root: Subject,
    users: HashMap<String, Subject>,
    keys: HashMap<String, Subject>,
}

// === impl Cell ===

impl Cell {
    fn shift(&mut self, start: u64, from: Option<Held>, to: Option<Held>) {
        if start > self.start {
            *self = Self { start, total: Total::default() };
        }
        if start < self.start {
            return;
        }
        if let Some(from) = from {
            let part = if from.open { &mut self.total.reserved } else { &mut self.total.settled };
            *part = part.minus(&from.amounts);
        }
        if let Some(to) = to {
            let part = if to.open { &mut self.total.reserved } else { &mut self.total.settled };
            *part = part.plus(&to.amounts);
        }
    }
}

// === impl Counters ===

impl Counters {
    /// What was used in the calendar period that a time lies in.
    pub(super) fn total(&self, period: Period, now: u64) -> Total {
        let cell = TOTALS.iter().zip(&self.cells).find(|(of, _)| **of == period).map(|(_, cell)| cell);
        cell.filter(|cell| cell.start == span(period, now).start).map_or_else(Total::default, |cell| cell.total)
    }

    pub(super) fn window(&self, dimension: Dimension, period: Period) -> Option<&Window> {
        find(&self.windows, dimension, period)
    }

    pub(super) fn bucket(&self, dimension: Dimension, period: Period) -> Option<&Bucket> {
        find(&self.tanks, dimension, period).map(|tank| &tank.bucket)
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections
    }

    pub(super) fn window_mut(&mut self, dimension: Dimension, period: Period) -> Option<&mut Window> {
        find_or_new(&mut self.windows, dimension, period, Window::default())
    }

    /// Changes a bucket; `sequence` is that of the row that does so.
    pub(super) fn with_bucket(
        &mut self,
        dimension: Dimension,
        period: Period,
        sequence: u64,
        change: impl FnOnce(&mut Bucket) -> u64,
    ) -> Option<(u64, Bucket)> {
        let fresh = Tank { sequence, bucket: Bucket::default() };
        let tank = find_or_new(&mut self.tanks, dimension, period, fresh)?;
        tank.sequence = sequence;
        let place = change(&mut tank.bucket);
        Some((place, tank.bucket))
    }

    fn shift(&mut self, row: &Row, starts: &[u64; 4], from: Option<Held>, to: Option<Held>) {
        for (cell, start) in self.cells.iter_mut().zip(starts) {
            cell.shift(*start, from, to);
        }
        if !row.leased.is_lease() {
            let open = |held: Option<Held>| u64::from(held.is_some_and(|held| held.open));
            self.connections = self.connections.saturating_add(open(to)).saturating_sub(open(from));
        }
    }

    fn mark(&mut self, mark: &Mark, sequence: u64, from: Option<Held>, to: Option<Held>) {
        let (dimension, period) = (mark.counter.dimension, mark.counter.period);
        if let Some(bucket) = mark.bucket {
            let state = Tank { sequence, bucket };
            if let Some(tank) = find_or_new(&mut self.tanks, dimension, period, state)
                && tank.sequence < sequence
            {
                *tank = state;
            }
        } else if let Some(window) = self.window_mut(dimension, period) {
            let amount = |held: Option<Held>| held.map_or(0, |held| held.amounts.of(dimension));
            window.adjust(mark.place, amount(from), amount(to));
        }
    }

    fn prune(&mut self, now: u64) {
        self.windows.retain_mut(|(_, period, window)| {
            window.prune(period.window_ms().unwrap_or(0), now);
            !window.is_empty()
        });
    }
}

fn find<T>(all: &[(Dimension, Period, T)], dimension: Dimension, period: Period) -> Option<&T> {
    all.iter().find(|(d, p, _)| (*d, *p) == (dimension, period)).map(|(_, _, found)| found)
}

fn find_or_new<T>(
    all: &mut Vec<(Dimension, Period, T)>,
    dimension: Dimension,
    period: Period,
    fresh: T,
) -> Option<&mut T> {
    let place = all.iter().position(|(d, p, _)| (*d, *p) == (dimension, period)).unwrap_or_else(|| {
        all.push((dimension, period, fresh));
        all.len().saturating_sub(1)
    });
    all.get_mut(place).map(|(_, _, found)| found)
}

impl From<Counters> for StoredCounters {
    fn from(counters: Counters) -> Self {
        Self {
            cells: counters.cells.iter().map(|cell| (cell.start, cell.total.settled)).collect(),
            windows: counters.windows,
            tanks: counters.tanks.into_iter().map(|(d, p, tank)| (d, p, tank.sequence, tank.bucket)).collect(),
        }
    }
}

impl From<StoredCounters> for Counters {
    fn from(stored: StoredCounters) -> Self {
        let mut cells = [Cell::default(); 4];
        for (cell, (start, settled)) in cells.iter_mut().zip(stored.cells) {
            *cell = Cell { start, total: Total { settled, ..Total::default() } };
        }
        let tanks = stored.tanks.into_iter();
        Self {
            cells,
            windows: stored.windows,
            tanks: tanks.map(|(d, p, sequence, bucket)| (d, p, Tank { sequence, bucket })).collect(),
            connections: 0,
        }
    }
}

// === impl Subject ===

impl Subject {
    fn counters(&self, model: Option<&str>) -> Option<&Counters> {
        match model {
            None => Some(&self.all),
            Some(model) => self.models.get(model),
        }
    }

    fn model_mut(&mut self, model: &str) -> Option<&mut Counters> {
        if !self.models.contains_key(model) {
            self.models.insert(model.to_owned(), Counters::default());
        }
        self.models.get_mut(model)
    }

    fn shift(&mut self, scope: Scope, row: &Row, starts: &[u64; 4], from: Option<Held>, to: Option<Held>) {
        self.all.shift(row, starts, from, to);
        let marks = row.marks.iter().filter(|mark| mark.counter.scope == scope);
        for mark in marks.clone().filter(|mark| !mark.counter.of_model) {
            self.all.mark(mark, row.sequence, from, to);
        }
        for (model, mark) in row.left.iter().filter(|(_, mark)| mark.counter.scope == scope) {
            let left = if mark.counter.of_model { self.model_mut(model) } else { Some(&mut self.all) };
            if let Some(left) = left {
                left.mark(mark, row.sequence, None, None);
            }
        }
        let Some(model) = self.model_mut(&row.model) else { return };
        model.shift(row, starts, from, to);
        for mark in marks.filter(|mark| mark.counter.of_model) {
            model.mark(mark, row.sequence, from, to);
        }
    }
}

// === impl Subjects ===

impl Subjects {
    pub(super) fn new(root_scope: Scope) -> Self {
        Self { root_scope, ..Self::default() }
    }

    pub(super) fn root_scope(&self) -> Scope {
        self.root_scope
    }

    /// A subject's counters, of all models or one.
    pub(super) fn counters(&self, scope: Scope, caller: &Caller<'_>, model: Option<&str>) -> Option<&Counters> {
        let subject = match scope {
            Scope::Key => self.keys.get(caller.key),
            Scope::User => self.users.get(caller.user?),
            Scope::Account | Scope::Provider => Some(&self.root),
        };
        subject?.counters(model)
    }

    /// The counters that a row's mark speaks of; the caller names a model.
    pub(super) fn counters_mut(&mut self, counter: CounterId, caller: &Caller<'_>) -> Option<&mut Counters> {
        let subject = match counter.scope {
            Scope::Key => entry(&mut self.keys, caller.key)?,
            Scope::User => entry(&mut self.users, caller.user?)?,
            Scope::Account | Scope::Provider => &mut self.root,
        };
        if counter.of_model { subject.model_mut(caller.model?) } else { Some(&mut subject.all) }
    }

    /// Counts a row for what it is instead of for what it was.
    pub(super) fn shift(&mut self, row: &Row, from: Option<Held>, to: Option<Held>) {
        let starts = TOTALS.map(|period| span(period, row.at).start);
        let root_scope = self.root_scope;
        self.root.shift(root_scope, row, &starts, from, to);
        if root_scope != Scope::Account {
            return;
        }
        if let Some(key) = entry(&mut self.keys, &row.key_id) {
            key.shift(Scope::Key, row, &starts, from, to);
        }
        if let Some(user) = row.user.as_ref().and_then(|user| entry(&mut self.users, user)) {
            user.shift(Scope::User, row, &starts, from, to);
        }
    }

    /// The names that a row's subjects are stored under.
    pub(super) fn names(root_scope: Scope, rows: &[Row]) -> BTreeSet<String> {
        let mut names = BTreeSet::from([ROOT.to_owned()]);
        for row in rows.iter().filter(|_| root_scope == Scope::Account) {
            names.insert(format!("{KEY}{}", row.key_id));
            names.extend(row.user.as_ref().map(|user| format!("{USER}{user}")));
        }
        names
    }

    /// Takes a stored subject in.
    pub(super) fn read(&mut self, name: &str, text: &str) -> Result<(), serde_json::Error> {
        let subject = serde_json::from_str(text)?;
        if let Some(key) = name.strip_prefix(KEY) {
            self.keys.insert(key.to_owned(), subject);
        } else if let Some(user) = name.strip_prefix(USER) {
            self.users.insert(user.to_owned(), subject);
        } else {
            self.root = subject;
        }
        Ok(())
    }

    /// A subject as it is stored, without what does not count any more.
    pub(super) fn write(&mut self, name: &str, now: u64) -> Result<String, serde_json::Error> {
        let subject = if let Some(key) = name.strip_prefix(KEY) {
            entry(&mut self.keys, key)
        } else if let Some(user) = name.strip_prefix(USER) {
            entry(&mut self.users, user)
        } else {
            Some(&mut self.root)
        };
        if let Some(subject) = subject {
            subject.all.prune(now);
            subject.models.values_mut().for_each(|model| model.prune(now));
            return serde_json::to_string(subject);
        }
        Ok(String::new())
    }
}

const ROOT: &str = "root";
const KEY: &str = "key:";
const USER: &str = "user:";

fn entry<'a>(subjects: &'a mut HashMap<String, Subject>, id: &str) -> Option<&'a mut Subject> {
    if !subjects.contains_key(id) {
        subjects.insert(id.to_owned(), Subject::default());
    }
    subjects.get_mut(id)
}
