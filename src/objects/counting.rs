//! An [`Admission`] and its storage: rows for what is open or was closed lately, and the counters of everything before.
//!
//! All statements of one event run without a pause between them, so they are one transaction: whatever is answered is
//! stored, and nothing is stored by halves.

use serde::Deserialize;
use worker::{Result, SqlStorage};

use super::sql::{number, rows, run};
use crate::limits::admission::Admission;
use crate::limits::base::Base;
use crate::limits::row::{Change, Row, Stage};
use crate::limits::rule::{Rule, Scope};
use crate::limits::usage::UsageEntry;

/// In the table of counters: the batch that was folded into them last.
const FOLDED: &str = "#folded";

/// In the same table: the default rules that were in use last.
const DEFAULTS: &str = "#defaults";

/// Bytes of JSON for one statement. SQLite takes two million.
const STATEMENT_BYTES: usize = 1_000_000;

/// The batch that a closed row belongs to, if it is not known by one already, and what is handed on with it.
pub(super) type Closed = (Option<u64>, Option<String>);

/// The counters of an object.
pub(super) struct Counting {
    /// What decides.
    pub(super) admission: Admission,
    root_scope: Scope,
    /// The batch that was folded last.
    folded: u64,
}

#[derive(Deserialize)]
struct Stored {
    state: String,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    state: String,
}

impl Counting {
    /// Reads everything; the second part is the batch of each closed row, in the batches' order.
    ///
    /// # Errors
    /// What the database says, or that something in it cannot be read.
    pub(super) fn load(sql: &SqlStorage, root_scope: Scope) -> Result<(Self, Vec<(u64, String)>)> {
        #[derive(Deserialize)]
        struct Batch {
            batch: u64,
            id: String,
        }
        for table in [
            "CREATE TABLE IF NOT EXISTS rows (id TEXT PRIMARY KEY, batch INTEGER, state TEXT NOT NULL, entry TEXT) \
             STRICT, WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS base (name TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT, WITHOUT ROWID",
        ] {
            run(sql, table, Vec::new())?;
        }
        let base: Vec<Named> = rows(sql, "SELECT name, state FROM base", Vec::new())?;
        let special = |name: &str| base.iter().find(|it| it.name == name).map(|it| it.state.as_str());
        let folded: u64 = special(FOLDED).and_then(|text| text.parse().ok()).unwrap_or(0);
        let defaults: Vec<Rule> = special(DEFAULTS).map(serde_json::from_str).transpose()?.unwrap_or_default();
        // What is in the counters already is not counted twice.
        run(sql, "DELETE FROM rows WHERE batch <= ?", vec![number(folded)])?;
        take_over(sql)?;
        let stored: Vec<Stored> = rows(sql, "SELECT state FROM rows", Vec::new())?;
        let stored: Vec<Row> = stored.iter().map(|row| serde_json::from_str(&row.state)).collect::<Result<_, _>>()?;
        let counters = base.iter().filter(|it| !it.name.starts_with('#'));
        let counters = Base::read(root_scope, counters.map(|it| (it.name.as_str(), it.state.as_str())))?;
        let admission = Admission::restore(counters, stored, defaults);
        let closed: Vec<Batch> =
            rows(sql, "SELECT batch, id FROM rows WHERE batch IS NOT NULL ORDER BY batch", Vec::new())?;
        Ok((Self { admission, root_scope, folded }, closed.into_iter().map(|row| (row.batch, row.id)).collect()))
    }

    /// Stores what has changed. `close` says what becomes of a row that is closed now.
    ///
    /// # Errors
    /// What the database says; memory and storage may then differ, and memory must be read anew.
    pub(super) fn store(&mut self, sql: &SqlStorage, mut close: impl FnMut(&Row) -> Result<Closed>) -> Result<()> {
        for change in self.admission.take_changes() {
            match change {
                Change::Put(row) if row.is_open() => {
                    let state = serde_json::to_string(&row)?;
                    run(
                        sql,
                        "INSERT INTO rows (id, state) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state",
                        vec![row.id.into(), state.into()],
                    )?;
                }
                Change::Put(row) => {
                    let (batch, entry) = close(&row)?;
                    let state = serde_json::to_string(&row)?;
                    run(
                        sql,
                        "INSERT INTO rows (id, batch, state, entry) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET \
                         batch = excluded.batch, state = excluded.state, entry = excluded.entry",
                        vec![
                            row.id.into(),
                            batch.map_or(worker::SqlStorageValue::Null, number),
                            state.into(),
                            entry.map_or(worker::SqlStorageValue::Null, Into::into),
                        ],
                    )?;
                }
                Change::Delete(id) => run(sql, "DELETE FROM rows WHERE id = ?", vec![id.into()])?,
                Change::Defaults(rules) => put(sql, &[(DEFAULTS.to_owned(), serde_json::to_string(&rules)?)])?,
            }
        }
        Ok(())
    }

    /// Folds the rows of all batches up to this one into the stored counters, and deletes them.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub(super) fn fold(&mut self, sql: &SqlStorage, up_to: u64) -> Result<()> {
        let stored: Vec<Stored> = rows(sql, "SELECT state FROM rows WHERE batch <= ?", vec![number(up_to)])?;
        if stored.is_empty() {
            return Ok(());
        }
        let closed: Vec<Row> = stored.iter().map(|row| serde_json::from_str(&row.state)).collect::<Result<_, _>>()?;
        let names = serde_json::to_string(&Base::names(self.root_scope, &closed))?;
        let base: Vec<Named> = rows(
            sql,
            "SELECT name, state FROM base WHERE name IN (SELECT value FROM json_each(?))",
            vec![names.into()],
        )?;
        let mut base = Base::read(self.root_scope, base.iter().map(|it| (it.name.as_str(), it.state.as_str())))?;
        let mut changed = base.fold(&closed)?;
        changed.push((FOLDED.to_owned(), up_to.to_string()));
        put(sql, &changed)?;
        run(sql, "DELETE FROM rows WHERE batch <= ?", vec![number(up_to)])?;
        self.folded = up_to;
        self.admission.forget(closed.iter().map(|row| row.id.as_str()));
        Ok(())
    }

    /// The first batch that is not folded: none that rows are added to may be before it.
    pub(super) fn first_batch(&self) -> u64 {
        self.folded.saturating_add(1)
    }

    /// The first batch of closed rows that are not folded.
    ///
    /// # Errors
    /// What the database says.
    pub(super) fn oldest(sql: &SqlStorage) -> Result<Option<u64>> {
        #[derive(Deserialize)]
        struct Oldest {
            batch: Option<u64>,
        }
        let oldest: Vec<Oldest> = rows(sql, "SELECT min(batch) AS batch FROM rows", Vec::new())?;
        Ok(oldest.first().and_then(|oldest| oldest.batch))
    }
}

/// Stores counters.
fn put(sql: &SqlStorage, changed: &[(String, String)]) -> Result<()> {
    for chunk in crate::limits::usage::chunks(changed, STATEMENT_BYTES)? {
        run(
            sql,
            "INSERT INTO base (name, state) SELECT value ->> 0, value ->> 1 FROM json_each(?) WHERE true \
             ON CONFLICT (name) DO UPDATE SET state = excluded.state",
            vec![chunk.into()],
        )?;
    }
    Ok(())
}

/// Takes over what an earlier version of the ledger has stored: entries, without what they mean for limits.
fn take_over(sql: &SqlStorage) -> Result<()> {
    #[derive(Deserialize)]
    struct Entry {
        batch: u64,
        id: String,
        entry: String,
    }
    let there = "SELECT name, '' AS state FROM sqlite_master WHERE type = 'table' AND name = 'entries'";
    if rows::<Named>(sql, there, Vec::new())?.is_empty() {
        return Ok(());
    }
    let entries: Vec<Entry> = rows(sql, "SELECT batch, id, entry FROM entries ORDER BY batch, id", Vec::new())?;
    for (sequence, stored) in (1..).zip(entries) {
        let Entry { batch, id, entry } = stored;
        let read: UsageEntry = match serde_json::from_str(&entry) {
            Ok(read) => read,
            Err(error) => {
                let error = error.to_string();
                tracing::error!(target: "usage", message = "an unreadable usage entry is left out", error, entry);
                continue;
            }
        };
        let settlement = read.settlement();
        let row = Row {
            id: id.clone(),
            sequence,
            at: read.at_ms,
            key_id: settlement.key_id,
            user: settlement.user,
            model: settlement.model,
            amounts: settlement.amounts,
            stage: Stage::Settled,
            complete: settlement.complete,
            ..Row::default()
        };
        run(
            sql,
            "INSERT OR IGNORE INTO rows (id, batch, state, entry) VALUES (?, ?, ?, ?)",
            vec![id.into(), number(batch), serde_json::to_string(&row)?.into(), entry.into()],
        )?;
    }
    run(sql, "DROP TABLE entries", Vec::new())
}
