//! The ledger's object: a shell around [`Ledger`] and [`Queue`].
//!
//! What a request used is stored here before its sender hears that it was, and handed on to D1 by alarm: one batch is one
//! transaction there, and its number is part of it. A batch that was handed on already changes nothing when it comes
//! again, so a crash at any point neither loses an entry nor counts one twice.

#![expect(missing_docs, reason = "the object's attribute makes methods that cannot be documented")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use serde::Deserialize;
use worker::{D1Database, DurableObject, Env, Request, Response, Result, SqlStorage, State, durable_object};

use super::sql::{answer, number, rows, run};
use super::wire::{Check, KeyNow, LedgerStatus, PostUsage, Pushed, PutKey, Standing};
use crate::http::shell::now_ms;
use crate::limits::ledger::{AccountEntry, KeyEntry, Ledger, Verdict};
use crate::limits::queue::Queue;
use crate::limits::usage::{UsageEntry, add_rows, chunks, records, roll_up};
use crate::store::d1;
use crate::telemetry::log;

/// Batches that one alarm hands on at most.
const BATCHES_AN_ALARM: usize = 20;

/// How long the ids of entries that were handed on are remembered, in milliseconds. A sender gives up long before.
const REMEMBER_MS: u64 = 120_000;

/// Bounds of the time for which entries are gathered, in milliseconds.
const FLUSH_MS: (u64, u64) = (100, 300_000);

/// That time until a sender says another one.
const FLUSH_AT_FIRST_MS: u64 = 5_000;

/// Bytes of JSON for one statement. D1 takes two million.
const STATEMENT_BYTES: usize = 1_000_000;

const CLAIM: &str = "INSERT INTO usage_batches (object, sequence, applied_at) VALUES (?1, ?2, ?3)";

const CLAIMED: &str = "SELECT sequence FROM usage_batches WHERE object = ?1 AND sequence = ?2";

const ADD_RECORDS: &str = "INSERT OR IGNORE INTO request_records (request_id, account_id, at_ms, key_id, user_id, model, \
    provider, status, outcome, cost_nanos, record) \
    SELECT CASE WHEN EXISTS (SELECT 1 FROM request_records r WHERE r.account_id = value ->> 'account' \
    AND r.request_id = value ->> 'request_id') THEN value ->> 'else_id' ELSE value ->> 'request_id' END, \
    value ->> 'account', value ->> 'at_ms', value ->> 'key_id', value ->> 'user', value ->> 'model', \
    value ->> 'provider', value ->> 'status', value ->> 'outcome', value ->> 'cost_nanos', value -> 'record' \
    FROM json_each(?1)";

/// The authority on an account's keys and standing; gathers what its requests used.
///
/// | request | answer |
/// |---|---|
/// | `POST /check` [`Check`] | [`Standing`] |
/// | `POST /usage` [`PostUsage`] | [`Pushed`]: how many entries were new |
/// | `PUT /keys` [`PutKey`] | [`KeyNow`] |
/// | `PUT /account` [`AccountEntry`] | [`Pushed`] |
/// | `GET /status` | [`LedgerStatus`] |
#[durable_object(alarm)]
pub struct AccountLedger {
    state: State,
    env: Env,
    /// Read from storage with the first event.
    memory: RefCell<Option<Memory>>,
}

// A panic leaves no half-made change behind: storage is written by whole statements, and memory by the pure core.
impl UnwindSafe for AccountLedger {}
impl RefUnwindSafe for AccountLedger {}

struct Memory {
    ledger: Ledger,
    queue: Queue,
    applied: u64,
    /// Batches that were handed on, and when.
    handed_on: VecDeque<(u64, u64)>,
    /// When the alarm will ring, as far as is known.
    alarm_at: Option<u64>,
    /// The database has failed: not before this time.
    not_before: u64,
    flush_ms: u64,
    last_error: String,
}

impl DurableObject for AccountLedger {
    fn new(state: State, env: Env) -> Self {
        log::init(&env);
        Self { state, env, memory: RefCell::new(None) }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        self.or_forget(self.serve(request).await)
    }

    async fn alarm(&self) -> Result<Response> {
        self.or_forget(self.wake().await)
    }
}

impl AccountLedger {
    async fn serve(&self, mut request: Request) -> Result<Response> {
        let body = request.text().await?;
        if self.load()? && self.with(|memory| memory.queue.pending() > 0)? {
            // The alarm that was set may have been given up.
            self.set_alarm().await?;
        }
        let path = request.path();
        match (request.inner().method().as_str(), path.as_str()) {
            ("POST", "/check") => self.check(&serde_json::from_str(&body)?),
            ("POST", "/usage") => self.take(serde_json::from_str(&body)?).await,
            ("PUT", "/keys") => self.put_key(serde_json::from_str(&body)?),
            ("PUT", "/account") => self.put_account(serde_json::from_str(&body)?),
            ("GET", "/status") => self.status(),
            _ => Response::error("no such request", 404),
        }
    }

    async fn wake(&self) -> Result<Response> {
        self.load()?;
        self.with(|memory| memory.alarm_at = None)?;
        self.hand_on().await?;
        self.forget()?;
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

    fn sql(&self) -> SqlStorage {
        self.state.storage().sql()
    }

    /// Reads storage, if that has not been done; whether it was done now.
    fn load(&self) -> Result<bool> {
        let missing = self.memory.borrow().is_none();
        if missing {
            let loaded = load(&self.sql())?;
            self.memory.replace(Some(loaded));
        }
        Ok(missing)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> Result<T> {
        let mut memory = self.memory.borrow_mut();
        memory.as_mut().map(work).ok_or_else(|| "the ledger is not loaded".into())
    }

    // === Keys and account ===

    fn check(&self, check: &Check) -> Result<Response> {
        let standing = self.with(|memory| Standing {
            verdict: match &check.public_id {
                Some(public_id) => memory.ledger.check(public_id, check.revision),
                None => Verdict::Unknown,
            },
            account_suspended: memory.ledger.account().suspended,
        })?;
        answer(&standing)
    }

    fn put_key(&self, put: PutKey) -> Result<Response> {
        let now = self.with(|memory| -> Result<Option<KeyNow>> {
            if let Some(entry) = memory.ledger.put_key(&put.key_id, put.revision, put.state) {
                run(
                    &self.sql(),
                    "INSERT INTO keys (id, entry) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET entry = excluded.entry",
                    vec![put.key_id.as_str().into(), serde_json::to_string(entry)?.into()],
                )?;
            }
            Ok(memory.ledger.key(&put.key_id).map(|entry| KeyNow {
                revision: entry.revision,
                records: entry.records.clone(),
                retired: entry.retired.clone(),
            }))
        })??;
        match now {
            Some(now) => answer(&now),
            None => Response::error("a key's revision begins at 1", 400),
        }
    }

    fn put_account(&self, entry: AccountEntry) -> Result<Response> {
        let number = self.with(|memory| -> Result<u64> {
            let text = serde_json::to_string(&entry)?;
            if memory.ledger.put_account(entry) {
                keep(&self.sql(), "account", text)?;
            }
            Ok(memory.ledger.account().revision)
        })??;
        answer(&Pushed { number })
    }

    fn status(&self) -> Result<Response> {
        let stored_bytes = self.sql().database_size() as u64;
        let status = self.with(|memory| LedgerStatus {
            account_revision: memory.ledger.account().revision,
            suspended: memory.ledger.account().suspended,
            keys: memory.ledger.keys() as u64,
            pending_usage: memory.queue.pending() as u64,
            flushed_batch: memory.applied,
            last_error: memory.last_error.clone(),
            stored_bytes,
        })?;
        answer(&status)
    }

    // === Usage ===

    async fn take(&self, post: PostUsage) -> Result<Response> {
        #[derive(Deserialize)]
        struct Named<'a> {
            id: &'a str,
        }
        let sql = self.sql();
        let new = self.with(|memory| -> Result<u64> {
            memory.flush_ms = post.flush_ms.clamp(FLUSH_MS.0, FLUSH_MS.1);
            let mut new: u64 = 0;
            for entry in &post.entries {
                let id = serde_json::from_str::<Named<'_>>(entry.get())?.id;
                let Some(batch) = memory.queue.accept(id) else { continue };
                run(
                    &sql,
                    "INSERT INTO entries (batch, id, entry) VALUES (?, ?, ?)",
                    vec![number(batch), id.into(), entry.get().into()],
                )?;
                new = new.saturating_add(1);
            }
            Ok(new)
        })??;
        self.set_alarm().await?;
        answer(&Pushed { number: new })
    }

    /// Sees to it that the alarm rings when there is something to do.
    async fn set_alarm(&self) -> Result<()> {
        let now = now_ms();
        let wanted = self.with(|memory| {
            let at = if memory.queue.pending() > 0 {
                now.saturating_add(memory.flush_ms).max(memory.not_before)
            } else {
                memory.handed_on.front()?.1.saturating_add(REMEMBER_MS)
            };
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

    /// Hands batches on until there is none or the database fails.
    async fn hand_on(&self) -> Result<()> {
        let object = self.state.id().to_string();
        for _ in 0..BATCHES_AN_ALARM {
            let Some(batch) = self.with(|memory| memory.queue.next_batch())? else { break };
            let entries = self.entries(batch)?;
            let done = write(&self.env, &object, batch, &entries).await;
            let failed = self.with(|memory| -> Result<bool> {
                match done {
                    Ok(()) => {
                        keep(&self.sql(), "applied", batch.to_string())?;
                        memory.applied = batch;
                        memory.queue.handed_on(batch);
                        memory.handed_on.push_back((batch, now_ms()));
                        memory.not_before = 0;
                        memory.last_error.clear();
                        Ok(false)
                    }
                    Err(error) => {
                        let retry_ms = memory.queue.failed();
                        tracing::error!(
                            target: "usage", message = "usage has not reached the database", error, retry_ms, object, batch
                        );
                        memory.not_before = now_ms().saturating_add(retry_ms);
                        memory.last_error = error;
                        Ok(true)
                    }
                }
            })??;
            if failed {
                break;
            }
        }
        Ok(())
    }

    fn entries(&self, batch: u64) -> Result<Vec<UsageEntry>> {
        #[derive(Deserialize)]
        struct Row {
            entry: String,
        }
        let stored: Vec<Row> =
            rows(&self.sql(), "SELECT entry FROM entries WHERE batch = ? ORDER BY id", vec![number(batch)])?;
        let readable = stored.into_iter().filter_map(|row| match serde_json::from_str(&row.entry) {
            Ok(entry) => Some(entry),
            Err(error) => {
                let (error, entry) = (error.to_string(), row.entry);
                tracing::error!(target: "usage", message = "an unreadable usage entry is left out", error, entry);
                None
            }
        });
        Ok(readable.collect())
    }

    /// Deletes entries that were handed on long ago.
    fn forget(&self) -> Result<()> {
        let sql = self.sql();
        self.with(|memory| {
            let old = now_ms().saturating_sub(REMEMBER_MS);
            let mut up_to = None;
            while memory.handed_on.front().is_some_and(|(_, at)| *at <= old) {
                up_to = memory.handed_on.pop_front().map(|(batch, _)| batch);
            }
            let Some(up_to) = up_to else { return Ok(()) };
            memory.queue.forget(up_to);
            run(&sql, "DELETE FROM entries WHERE batch <= ?", vec![number(up_to)])
        })?
    }
}

fn keep(sql: &SqlStorage, name: &str, value: String) -> Result<()> {
    run(
        sql,
        "INSERT INTO memo (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        vec![name.into(), value.into()],
    )
}

fn load(sql: &SqlStorage) -> Result<Memory> {
    #[derive(Deserialize)]
    struct Memo {
        name: String,
        value: String,
    }
    #[derive(Deserialize)]
    struct Key {
        id: String,
        entry: String,
    }
    #[derive(Deserialize)]
    struct Entry {
        batch: u64,
        id: String,
    }
    for table in [
        "CREATE TABLE IF NOT EXISTS memo (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, entry TEXT NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS entries (batch INTEGER NOT NULL, id TEXT NOT NULL, entry TEXT NOT NULL, \
         PRIMARY KEY (batch, id)) STRICT, WITHOUT ROWID",
    ] {
        run(sql, table, Vec::new())?;
    }
    let mut account = None;
    let mut applied = 0;
    for memo in rows::<Memo>(sql, "SELECT name, value FROM memo", Vec::new())? {
        match memo.name.as_str() {
            "account" => account = Some(serde_json::from_str::<AccountEntry>(&memo.value)?),
            "applied" => applied = memo.value.parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut keys = Vec::new();
    for key in rows::<Key>(sql, "SELECT id, entry FROM keys", Vec::new())? {
        keys.push((key.id, serde_json::from_str::<KeyEntry>(&key.entry)?));
    }
    let entries: Vec<Entry> = rows(sql, "SELECT batch, id FROM entries ORDER BY batch", Vec::new())?;
    let queue = Queue::restore(applied, entries.into_iter().map(|entry| (entry.batch, entry.id)));
    Ok(Memory {
        ledger: Ledger::restore(account, keys),
        queue,
        applied,
        handed_on: VecDeque::from([(applied, now_ms())]),
        alarm_at: None,
        not_before: 0,
        flush_ms: FLUSH_AT_FIRST_MS,
        last_error: String::new(),
    })
}

/// Writes a batch to D1, once.
async fn write(env: &Env, object: &str, batch: u64, entries: &[UsageEntry]) -> std::result::Result<(), String> {
    let database = env.d1("DB").map_err(|error| error.to_string())?;
    let Err(error) = write_all(&database, object, batch, entries).await else { return Ok(()) };
    // It may have been written before and the answer lost.
    let claimed = async {
        let claimed = database.prepare(CLAIMED).bind(&[object.into(), d1::number(batch)])?;
        claimed.first::<f64>(Some("sequence")).await
    };
    match claimed.await {
        Ok(Some(_)) => Ok(()),
        _ => Err(error.to_string()),
    }
}

async fn write_all(database: &D1Database, object: &str, batch: u64, entries: &[UsageEntry]) -> Result<()> {
    let mut statements =
        vec![database.prepare(CLAIM).bind(&[object.into(), d1::number(batch), d1::number(now_ms() / 1000)])?];
    for rows in chunks(&roll_up(entries), STATEMENT_BYTES)? {
        statements.push(database.prepare(add_rows()).bind(&[rows.into()])?);
    }
    for rows in chunks(&records(entries), STATEMENT_BYTES)? {
        statements.push(database.prepare(ADD_RECORDS).bind(&[rows.into()])?);
    }
    d1::batch(database, statements).await.map(drop)
}
