//! The ledger's object: a shell around [`Ledger`], [`Admission`](crate::limits::admission::Admission) and [`Queue`].
//!
//! What is reserved for a request, and what it used, is stored here before its sender hears that it was. What was used is
//! handed on to D1 by alarm: one batch is one transaction there, and its number is part of it. A batch that was handed on
//! already changes nothing when it comes again, so a crash at any point neither loses an entry nor counts one twice.

#![expect(missing_docs, reason = "the object's attribute makes methods that cannot be documented")]

use std::collections::{BTreeSet, HashMap};
use std::panic::{RefUnwindSafe, UnwindSafe};

use serde::Deserialize;
use worker::{DurableObject, Env, Request, Response, Result, SqlStorage, State, durable_object};

use super::counting::Counting;
use super::flush;
use super::kept::Kept;
use super::sql::{Memo, answer, keep, memos, number, rows, run};
use super::wire::{
    Admit, Admitted, Check, KeyNow, LedgerStatus, LimitsNow, LimitsQuery, PostUsage, Pushed, PutKey, RulesNow, Standing,
};
use crate::alerts::limits::LimitEvent;
use crate::config::Limits;
use crate::http::shell::now_ms;
use crate::limits::ask::{Ask, Settled};
use crate::limits::counters::Caller;
use crate::limits::handed_on::HandedOn;
use crate::limits::ledger::{AccountEntry, KeyEntry, Ledger, Verdict};
use crate::limits::queue::Queue;
use crate::limits::row::Row;
use crate::limits::rule::{Rule, Scope};
use crate::limits::usage::UsageEntry;
use crate::limits::watch::Watch;
use crate::telemetry::log;

/// Batches that one alarm hands on at most.
const BATCHES_AN_ALARM: usize = 20;

/// How long alerts wait that could not be written, in milliseconds.
const ALERT_RETRY_MS: u64 = 5_000;

/// In the table of notes: which batches were handed on, and until when they are remembered.
const HANDED_ON: &str = "handed_on";

/// Bounds of the time for which entries are gathered, in milliseconds.
const FLUSH_MS: (u64, u64) = (100, 300_000);

/// That time until a sender says another one.
const FLUSH_AT_FIRST_MS: u64 = 5_000;

/// The authority on an account's keys, standing and limits; gathers what its requests used.
///
/// | request | answer |
/// |---|---|
/// | `POST /check` [`Check`] | [`Standing`] |
/// | `POST /admit` [`Admit`] | [`Admitted`]: the same, and whether a request may be sent |
/// | `POST /preview` [`Ask`] | [`Preview`](crate::limits::ask::Preview): what would become of it |
/// | `POST /limits` [`LimitsQuery`] | [`LimitsNow`] |
/// | `POST /usage` [`PostUsage`] | [`Pushed`]: how many entries were new; what was reserved for them is settled |
/// | `PUT /keys` [`PutKey`] | [`KeyNow`] |
/// | `PUT /account` [`AccountEntry`] | [`Pushed`] |
/// | `GET /status` | [`LedgerStatus`] |
#[durable_object(alarm)]
pub struct AccountLedger {
    state: State,
    env: Env,
    kept: Kept<Memory>,
}

// A panic leaves no half-made change behind: storage is written by whole statements, and memory by the pure core.
impl UnwindSafe for AccountLedger {}
impl RefUnwindSafe for AccountLedger {}

struct Memory {
    /// The account's id, as soon as anybody has said it.
    name: String,
    ledger: Ledger,
    counting: Counting,
    queue: Queue,
    applied: u64,
    /// Batches that were handed on and are still remembered.
    handed_on: HandedOn,
    /// The database has failed: not before this time.
    not_before: u64,
    flush_ms: u64,
    last_error: String,
    watch: Watch,
    thresholds: Vec<u8>,
    /// Whether there are alerts that have not reached the database.
    has_alerts: bool,
}

impl Memory {
    /// Sees whether callers' quotas and budgets are nearly used up, and stores what is to be told of that.
    fn watch(&mut self, sql: &SqlStorage, callers: &BTreeSet<Spender>) -> Result<()> {
        let (now, admission) = (now_ms(), &self.counting.admission);
        for Spender { key_id, user, model } in callers {
            let caller = Caller { key: key_id, user: user.as_deref(), model: Some(model) };
            let states = admission.states(now, &caller, admission.defaults());
            for alert in self.watch.look(now, &states, &self.thresholds) {
                let event = LimitEvent::new(&alert, &self.name, now);
                let (name, id, account) = (event.name.as_str(), event.id.as_str(), self.name.as_str());
                tracing::warn!(target: "alert", message = "raised", name, id, account);
                run(
                    sql,
                    "INSERT OR IGNORE INTO alerts (id, event) VALUES (?, ?)",
                    vec![event.id.as_str().into(), serde_json::to_string(&event)?.into()],
                )?;
                self.has_alerts = true;
            }
        }
        if self.watch.take_changed() {
            keep(sql, "watch", serde_json::to_string(&self.watch)?)?;
        }
        Ok(())
    }

    fn standing(&self, check: &Check) -> Standing {
        let caller = Caller { key: &check.key_id, user: check.user.as_deref(), model: None };
        Standing {
            verdict: match &check.public_id {
                Some(public_id) => self.ledger.check(public_id, check.revision),
                None => Verdict::Unknown,
            },
            account_suspended: self.ledger.account().suspended,
            limited: self.counting.admission.applies(&caller, &[]),
        }
    }

    /// Takes note of the account's id.
    fn learn_name(&mut self, sql: &SqlStorage, name: &str) -> Result<()> {
        if self.name != name && !name.is_empty() {
            keep(sql, "name", name.to_owned())?;
            name.clone_into(&mut self.name);
        }
        Ok(())
    }

    /// Stores what has changed. A request that is settled goes into a batch with its entry, which `settled` has by id, and
    /// so does one that nobody has settled in time, with an entry that says so.
    fn store(&mut self, sql: &SqlStorage, settled: &HashMap<String, &str>) -> Result<()> {
        let (queue, account) = (&mut self.queue, &self.name);
        let mut spenders = BTreeSet::new();
        self.counting.store(sql, |row| {
            spenders.insert(Spender::of(row));
            let entry = match settled.get(&row.id) {
                Some(entry) => (*entry).to_owned(),
                None => serde_json::to_string(&UsageEntry::never_settled(account, row))?,
            };
            Ok((queue.accept(&row.id), Some(entry)))
        })?;
        self.watch(sql, &spenders)
    }

    /// When there is something to do: batches to hand on, reservations to charge, rows to fold.
    fn next_task(&self, now: u64) -> Option<u64> {
        let pending = self.queue.pending() > 0 || self.has_alerts;
        let flush = pending.then(|| now.saturating_add(self.flush_ms).max(self.not_before));
        [flush, self.handed_on.next(), self.counting.admission.next_expiry()].into_iter().flatten().min()
    }
}

/// Whose limits a settlement counts in.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Spender {
    key_id: String,
    user: Option<String>,
    model: String,
}

impl Spender {
    fn of(row: &Row) -> Self {
        Self { key_id: row.key_id.clone(), user: row.user.clone(), model: row.model.clone() }
    }
}

impl DurableObject for AccountLedger {
    fn new(state: State, env: Env) -> Self {
        log::init(&env);
        Self { state, env, kept: Kept::unread() }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        self.kept.or_forget(self.serve(request).await)
    }

    async fn alarm(&self) -> Result<Response> {
        self.kept.or_forget(self.wake().await)
    }
}

impl AccountLedger {
    async fn serve(&self, mut request: Request) -> Result<Response> {
        let body = request.text().await?;
        if self.load()? {
            // The alarm that was set may have been given up.
            self.set_alarm().await?;
        }
        let path = request.path();
        match (request.inner().method().as_str(), path.as_str()) {
            ("POST", "/check") => self.check(&serde_json::from_str(&body)?),
            ("POST", "/admit") => self.admit(&serde_json::from_str(&body)?).await,
            ("POST", "/preview") => self.preview(&serde_json::from_str(&body)?),
            ("POST", "/limits") => self.limits(&serde_json::from_str(&body)?),
            ("POST", "/usage") => self.take(serde_json::from_str(&body)?).await,
            ("PUT", "/keys") => self.put_key(serde_json::from_str(&body)?),
            ("PUT", "/account") => self.put_account(serde_json::from_str(&body)?),
            ("GET", "/status") => self.status(),
            _ => Response::error("no such request", 404),
        }
    }

    async fn wake(&self) -> Result<Response> {
        self.load()?;
        self.kept.rang();
        self.expire()?;
        self.hand_on().await?;
        self.tell_alerts().await?;
        self.forget()?;
        self.set_alarm().await?;
        Response::empty()
    }

    fn sql(&self) -> SqlStorage {
        self.state.storage().sql()
    }

    /// Reads storage, if that has not been done; whether it was done now.
    fn load(&self) -> Result<bool> {
        self.kept.load(|| load(&self.sql()))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> Result<T> {
        self.kept.with(work)
    }

    // === Callers and requests ===

    fn check(&self, check: &Check) -> Result<Response> {
        answer(&self.with(|memory| memory.standing(check))?)
    }

    async fn admit(&self, admit: &Admit) -> Result<Response> {
        let sql = self.sql();
        let admitted = self.with(|memory| -> Result<Admitted> {
            memory.learn_name(&sql, &admit.account)?;
            let standing = memory.standing(&admit.check);
            let may_go_on =
                !standing.account_suspended && matches!(standing.verdict, Verdict::Current | Verdict::Unknown);
            let answer = may_go_on.then(|| memory.counting.admission.reserve(now_ms(), &admit.ask));
            memory.store(&sql, &HashMap::new())?;
            let account = memory.ledger.account();
            let rules = (admit.rules_of != Some(account.revision))
                .then(|| RulesNow { revision: account.revision, rules: Rule::read_all(&account.limits) });
            Ok(Admitted { standing, answer, rules })
        })??;
        self.set_alarm().await?;
        answer(&admitted)
    }

    /// What has run out is charged before: it counts no more towards what may be open.
    fn preview(&self, ask: &Ask) -> Result<Response> {
        self.expire()?;
        answer(&self.with(|memory| memory.counting.admission.preview(now_ms(), ask))?)
    }

    fn limits(&self, query: &LimitsQuery) -> Result<Response> {
        self.expire()?;
        let now = now_ms();
        let limits = self.with(|memory| {
            let admission = &memory.counting.admission;
            let caller = Caller { key: &query.key_id, user: query.user.as_deref(), model: query.model.as_deref() };
            let scope = match (query.key_id.as_str(), &query.user) {
                ("", None) => Scope::Account,
                ("", Some(_)) => Scope::User,
                _ => Scope::Key,
            };
            let open_by_key = admission.connections(now);
            let open = match query.key_id.as_str() {
                "" => open_by_key.values().fold(0_u64, |sum, open| sum.saturating_add(*open)),
                key => open_by_key.get(key).copied().unwrap_or(0),
            };
            let mut states = admission.states(now, &caller, &query.defaults);
            if query.all {
                states.extend(admission.inner_states(now, query.model.as_deref()));
            }
            LimitsNow {
                at: now,
                states,
                totals: admission.totals(now, scope, &caller),
                open,
                open_by_key,
                open_since: admission.open_since(now),
            }
        })?;
        answer(&limits)
    }

    // === Keys and account ===

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
                memory.counting.admission.set_rules(Rule::read_all(&memory.ledger.account().limits));
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
            open: memory.counting.admission.open_rows() as u64,
            late_settlements: memory.counting.admission.late_settlements(),
            flushed_batch: memory.applied,
            last_error: memory.last_error.clone(),
            stored_bytes,
        })?;
        answer(&status)
    }

    // === Usage ===

    async fn take(&self, post: PostUsage) -> Result<Response> {
        let (sql, now) = (self.sql(), now_ms());
        let new = self.with(|memory| -> Result<u64> {
            memory.flush_ms = post.flush_ms.clamp(FLUSH_MS.0, FLUSH_MS.1);
            if !post.thresholds.is_empty() {
                memory.thresholds = percentages(&post.thresholds);
            }
            let mut new: u64 = 0;
            // Stored all at once, so that a lease which many of them draw on is written once.
            let mut settled = HashMap::new();
            for text in &post.entries {
                let entry: UsageEntry = serde_json::from_str(text.get())?;
                memory.learn_name(&sql, &entry.account)?;
                if memory.counting.admission.settle(now, &entry.id, &entry.settlement()) == Settled::Counted {
                    new = new.saturating_add(1);
                    settled.insert(entry.id, text.get());
                }
            }
            for lease in &post.returns {
                memory.counting.admission.give_back(now, lease);
            }
            memory.store(&sql, &settled)?;
            Ok(new)
        })??;
        self.set_alarm().await?;
        answer(&Pushed { number: new })
    }

    /// Charges what should have been settled by now.
    fn expire(&self) -> Result<()> {
        self.with(|memory| {
            memory.counting.admission.expire(now_ms());
            memory.store(&self.sql(), &HashMap::new())
        })?
    }

    /// Sees to it that the alarm rings when there is something to do.
    async fn set_alarm(&self) -> Result<()> {
        let at = self.with(|memory| memory.next_task(now_ms()))?;
        self.kept.wake_by(&self.state, at).await
    }

    /// Hands batches on until there is none or the database fails.
    async fn hand_on(&self) -> Result<()> {
        let object = self.state.id().to_string();
        for _ in 0..BATCHES_AN_ALARM {
            let Some(batch) = self.with(|memory| memory.queue.next_batch())? else { break };
            let entries = self.entries(batch)?;
            let done = flush::write(&self.env, &object, batch, &entries).await;
            let failed = self.with(|memory| -> Result<bool> {
                match done {
                    Ok(()) => {
                        keep(&self.sql(), "applied", batch.to_string())?;
                        memory.applied = batch;
                        memory.queue.handed_on(batch);
                        if memory.handed_on.add(batch, now_ms()) {
                            keep(&self.sql(), HANDED_ON, serde_json::to_string(&memory.handed_on)?)?;
                        }
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

    /// Writes alerts to the database. Each is stored there once, however often it is written.
    async fn tell_alerts(&self) -> Result<()> {
        #[derive(Deserialize)]
        struct Row {
            id: String,
            event: String,
        }
        if !self.with(|memory| memory.has_alerts)? {
            return Ok(());
        }
        let events: Vec<Row> = rows(&self.sql(), "SELECT id, event FROM alerts ORDER BY id LIMIT 500", Vec::new())?;
        let written = flush::write_alerts(&self.env, events.iter().map(|row| row.event.as_str())).await;
        self.with(|memory| -> Result<()> {
            match written {
                Ok(()) => {
                    let ids: Vec<&str> = events.iter().map(|row| row.id.as_str()).collect();
                    let ids = serde_json::to_string(&ids)?;
                    run(
                        &self.sql(),
                        "DELETE FROM alerts WHERE id IN (SELECT value FROM json_each(?))",
                        vec![ids.into()],
                    )?;
                    memory.has_alerts = any_alerts(&self.sql())?;
                }
                Err(error) => {
                    tracing::error!(target: "alert", message = "alerts have not reached the database", error);
                    memory.not_before = memory.not_before.max(now_ms().saturating_add(ALERT_RETRY_MS));
                }
            }
            Ok(())
        })?
    }

    fn entries(&self, batch: u64) -> Result<Vec<UsageEntry>> {
        #[derive(Deserialize)]
        struct Row {
            entry: String,
        }
        let stored: Vec<Row> =
            rows(&self.sql(), "SELECT entry FROM rows WHERE batch = ? ORDER BY id", vec![number(batch)])?;
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

    /// Folds rows that were handed on long ago into the stored counters, and deletes them.
    fn forget(&self) -> Result<()> {
        let sql = self.sql();
        self.with(|memory| {
            let Some(up_to) = memory.handed_on.due(now_ms()) else { return Ok(()) };
            keep(&sql, HANDED_ON, serde_json::to_string(&memory.handed_on)?)?;
            memory.queue.forget(up_to);
            memory.counting.fold(&sql, up_to)
        })?
    }
}

/// Percentages as they are watched.
fn percentages(thresholds: &[u64]) -> Vec<u8> {
    thresholds.iter().filter_map(|percent| u8::try_from(*percent).ok()).collect()
}

fn any_alerts(sql: &SqlStorage) -> Result<bool> {
    #[derive(Deserialize)]
    struct Any {}
    Ok(!rows::<Any>(sql, "SELECT 1 AS one FROM alerts LIMIT 1", Vec::new())?.is_empty())
}

fn load(sql: &SqlStorage) -> Result<Memory> {
    #[derive(Deserialize)]
    struct Key {
        id: String,
        entry: String,
    }
    for table in [
        "CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, entry TEXT NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS alerts (id TEXT PRIMARY KEY, event TEXT NOT NULL) STRICT, WITHOUT ROWID",
    ] {
        run(sql, table, Vec::new())?;
    }
    let mut watch = Watch::default();
    let mut account = None;
    let mut name = String::new();
    let mut applied = 0;
    let mut handed_on = HandedOn::default();
    for Memo { name: of, value } in memos(sql)? {
        match of.as_str() {
            "account" => account = Some(serde_json::from_str::<AccountEntry>(&value)?),
            "name" => name = value,
            "watch" => watch = serde_json::from_str(&value)?,
            "applied" => applied = value.parse().unwrap_or(0),
            HANDED_ON => handed_on = serde_json::from_str(&value)?,
            _ => {}
        }
    }
    let mut keys = Vec::new();
    for key in rows::<Key>(sql, "SELECT id, entry FROM keys", Vec::new())? {
        keys.push((key.id, serde_json::from_str::<KeyEntry>(&key.entry)?));
    }
    let (mut counting, batches) = Counting::load(sql, Scope::Account, None)?;
    let ledger = Ledger::restore(account, keys);
    let mut handed_on = handed_on.restore(applied);
    // An earlier version has handed something on and not noted when.
    if handed_on.is_empty() && batches.iter().any(|(batch, _)| *batch <= applied) && handed_on.add(applied, now_ms()) {
        keep(sql, HANDED_ON, serde_json::to_string(&handed_on)?)?;
    }
    counting.admission.set_rules(Rule::read_all(&ledger.account().limits));
    Ok(Memory {
        name,
        ledger,
        counting,
        queue: Queue::restore(applied, batches),
        applied,
        handed_on,
        not_before: 0,
        flush_ms: FLUSH_AT_FIRST_MS,
        last_error: String::new(),
        watch,
        thresholds: percentages(&Limits::default().alert_thresholds),
        has_alerts: any_alerts(sql)?,
    })
}
