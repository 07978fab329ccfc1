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

/// The counters of an object, or of a part of one.
pub(super) struct Counting {
    /// What decides.
    pub(super) admission: Admission,
    root_scope: Scope,
    tables: Tables,
    /// The batch that was folded last.
    folded: u64,
}

/// The names of its tables.
struct Tables {
    rows: String,
    base: String,
}

impl Tables {
    /// Those of an object, or of the part of it that has this number.
    fn of(part: Option<u64>) -> Self {
        let named = |name: &str| part.map_or_else(|| name.to_owned(), |part| format!("{name}_{part}"));
        Self { rows: named("rows"), base: named("base") }
    }
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
    /// Reads everything that an object counts, or the part of it that has this number; the second part of the result is
    /// the batch of each closed row, in the batches' order.
    ///
    /// # Errors
    /// What the database says, or that something in it cannot be read.
    pub(super) fn load(sql: &SqlStorage, root_scope: Scope, part: Option<u64>) -> Result<(Self, Vec<(u64, String)>)> {
        #[derive(Deserialize)]
        struct Batch {
            batch: u64,
            id: String,
        }
        let tables = Tables::of(part);
        let Tables { rows: of_rows, base: of_base } = &tables;
        for table in [
            format!(
                "CREATE TABLE IF NOT EXISTS {of_rows} (id TEXT PRIMARY KEY, batch INTEGER, state TEXT NOT NULL, \
                 entry TEXT) STRICT, WITHOUT ROWID"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {of_base} (name TEXT PRIMARY KEY, state TEXT NOT NULL) \
                 STRICT, WITHOUT ROWID"
            ),
        ] {
            run(sql, &table, Vec::new())?;
        }
        let base: Vec<Named> = rows(sql, &format!("SELECT name, state FROM {of_base}"), Vec::new())?;
        let special = |name: &str| base.iter().find(|it| it.name == name).map(|it| it.state.as_str());
        let folded: u64 = special(FOLDED).and_then(|text| text.parse().ok()).unwrap_or(0);
        let defaults: Vec<Rule> = special(DEFAULTS).map(serde_json::from_str).transpose()?.unwrap_or_default();
        // What is in the counters already is not counted twice.
        run(sql, &format!("DELETE FROM {of_rows} WHERE batch <= ?"), vec![number(folded)])?;
        if part.is_none() {
            take_over(sql)?;
        }
        let stored: Vec<Stored> = rows(sql, &format!("SELECT state FROM {of_rows}"), Vec::new())?;
        let stored: Vec<Row> = stored.iter().map(|row| serde_json::from_str(&row.state)).collect::<Result<_, _>>()?;
        let counters = base.iter().filter(|it| !it.name.starts_with('#'));
        let counters = Base::read(root_scope, counters.map(|it| (it.name.as_str(), it.state.as_str())))?;
        let admission = Admission::restore(counters, stored, defaults);
        let closed = format!("SELECT batch, id FROM {of_rows} WHERE batch IS NOT NULL ORDER BY batch");
        let closed: Vec<Batch> = rows(sql, &closed, Vec::new())?;
        let closed = closed.into_iter().map(|row| (row.batch, row.id)).collect();
        Ok((Self { admission, root_scope, tables, folded }, closed))
    }

    /// Stores what has changed. `close` says what becomes of a row that is closed now.
    ///
    /// # Errors
    /// What the database says; memory and storage may then differ, and memory must be read anew.
    pub(super) fn store(&mut self, sql: &SqlStorage, mut close: impl FnMut(&Row) -> Result<Closed>) -> Result<()> {
        let Tables { rows: of_rows, base: of_base } = &self.tables;
        for change in self.admission.take_changes() {
            match change {
                Change::Put(row) if row.is_open() => {
                    let state = serde_json::to_string(&row)?;
                    run(
                        sql,
                        &format!(
                            "INSERT INTO {of_rows} (id, state) VALUES (?, ?) \
                             ON CONFLICT (id) DO UPDATE SET state = excluded.state"
                        ),
                        vec![row.id.into(), state.into()],
                    )?;
                }
                Change::Put(row) => {
                    let (batch, entry) = close(&row)?;
                    let state = serde_json::to_string(&row)?;
                    run(
                        sql,
                        &format!(
                            "INSERT INTO {of_rows} (id, batch, state, entry) VALUES (?, ?, ?, ?) ON CONFLICT (id) \
                             DO UPDATE SET batch = excluded.batch, state = excluded.state, entry = excluded.entry"
                        ),
                        vec![
                            row.id.into(),
                            batch.map_or(worker::SqlStorageValue::Null, number),
                            state.into(),
                            entry.map_or(worker::SqlStorageValue::Null, Into::into),
                        ],
                    )?;
                }
                Change::Delete(id) => run(sql, &format!("DELETE FROM {of_rows} WHERE id = ?"), vec![id.into()])?,
                Change::Defaults(rules) => {
                    put(sql, of_base, &[(DEFAULTS.to_owned(), serde_json::to_string(&rules)?)])?;
                }
            }
        }
        Ok(())
    }

    /// Folds the rows of all batches up to this one into the stored counters, and deletes them.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub(super) fn fold(&mut self, sql: &SqlStorage, up_to: u64) -> Result<()> {
        let Tables { rows: of_rows, base: of_base } = &self.tables;
        let stored = format!("SELECT state FROM {of_rows} WHERE batch <= ?");
        let stored: Vec<Stored> = rows(sql, &stored, vec![number(up_to)])?;
        if stored.is_empty() {
            return Ok(());
        }
        let closed: Vec<Row> = stored.iter().map(|row| serde_json::from_str(&row.state)).collect::<Result<_, _>>()?;
        let names = serde_json::to_string(&Base::names(self.root_scope, &closed))?;
        let base: Vec<Named> = rows(
            sql,
            &format!("SELECT name, state FROM {of_base} WHERE name IN (SELECT value FROM json_each(?))"),
            vec![names.into()],
        )?;
        let mut base = Base::read(self.root_scope, base.iter().map(|it| (it.name.as_str(), it.state.as_str())))?;
        let mut changed = base.fold(&closed)?;
        changed.push((FOLDED.to_owned(), up_to.to_string()));
        put(sql, of_base, &changed)?;
        run(sql, &format!("DELETE FROM {of_rows} WHERE batch <= ?"), vec![number(up_to)])?;
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
    pub(super) fn oldest(&self, sql: &SqlStorage) -> Result<Option<u64>> {
        #[derive(Deserialize)]
        struct Oldest {
            batch: Option<u64>,
        }
        let oldest = format!("SELECT min(batch) AS batch FROM {}", self.tables.rows);
        let oldest: Vec<Oldest> = rows(sql, &oldest, Vec::new())?;
        Ok(oldest.first().and_then(|oldest| oldest.batch))
    }
}

/// Stores counters.
fn put(sql: &SqlStorage, table: &str, changed: &[(String, String)]) -> Result<()> {
    for chunk in crate::limits::usage::chunks(changed, STATEMENT_BYTES)? {
        run(
            sql,
            &format!(
                "INSERT INTO {table} (name, state) SELECT value ->> 0, value ->> 1 FROM json_each(?) WHERE true \
                 ON CONFLICT (name) DO UPDATE SET state = excluded.state"
            ),
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
