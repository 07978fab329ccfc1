//! The counters as they are stored: of everything whose row is deleted. A base and the rows that are there make the
//! counters of the moment, so deleting rows and folding them into the base in one transaction changes nothing.

use super::counters::{Held, Subjects};
use super::profile::Profiles;
use super::row::Row;
use super::rule::Scope;

use serde::{Deserialize, Serialize};

/// The name that a base keeps its own affairs under.
const META: &str = "meta";

/// Stored counters, or as many of them as are needed to fold some rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Base {
    pub(super) subjects: Subjects,
    pub(super) meta: Meta,
}

/// What concerns no subject.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Meta {
    /// The latest time of any row.
    pub(super) latest: u64,
    /// The highest sequence of any row.
    pub(super) sequence: u64,
    /// What was learned.
    pub(super) profiles: Profiles,
}

impl Base {
    /// Reads stored subjects, each under its name. `root_scope` is [`Scope::Account`] for an account's ledger and
    /// [`Scope::Provider`] for a provider's gauge.
    ///
    /// # Errors
    /// That a subject cannot be read.
    pub fn read<'a>(
        root_scope: Scope,
        stored: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, serde_json::Error> {
        let mut base = Self { subjects: Subjects::new(root_scope), meta: Meta::default() };
        for (name, text) in stored {
            if name == META {
                base.meta = serde_json::from_str(text)?;
            } else {
                base.subjects.read(name, text)?;
            }
        }
        Ok(base)
    }

    /// The names of all that must have been read before these rows can be folded.
    pub fn names(root_scope: Scope, rows: &[Row]) -> Vec<String> {
        Subjects::names(root_scope, rows).into_iter().chain([META.to_owned()]).collect()
    }

    /// Takes in rows that are about to be deleted: what is to be stored under which name, in the same transaction as the
    /// deletion. Rows that were closed earlier must be folded earlier. Rows that are open must not be deleted, and are
    /// left out.
    ///
    /// # Errors
    /// That a subject cannot be written.
    pub fn fold(&mut self, rows: &[Row]) -> Result<Vec<(String, String)>, serde_json::Error> {
        let mut closed: Vec<&Row> = rows.iter().filter(|row| !row.is_open()).collect();
        closed.sort_by_key(|row| row.sequence);
        for row in closed {
            self.meta.count(row);
            self.subjects.shift(row, None, Some(Held::by(row)));
        }
        let mut changed = vec![(META.to_owned(), serde_json::to_string(&self.meta)?)];
        for name in Subjects::names(self.subjects.root_scope(), rows) {
            let text = self.subjects.write(&name, self.meta.latest)?;
            changed.push((name, text));
        }
        Ok(changed)
    }
}

impl Meta {
    /// What a row says of time, order and what is worth learning.
    pub(super) fn count(&mut self, row: &Row) {
        self.sequence = self.sequence.max(row.sequence);
        // What counts at a lease's end lies ahead of the clock.
        if row.leased.is_not() {
            self.latest = self.latest.max(row.at);
        }
        if row.complete && !row.is_open() {
            self.profiles.observe(&row.key_id, &row.model, row.amounts.output);
        }
    }
}
