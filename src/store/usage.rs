//! What a request used, on its way to its account's ledger.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use worker::Env;

use super::limits;
use crate::gateway::reservation::Hold;
use crate::http::shell::{now_ms, sleep};
use crate::limits::ask::{LeaseReturn, Settled, Settlement};
use crate::limits::usage::UsageEntry;
use crate::objects::call::{CallError, Object};
use crate::objects::wire::{PostUsage, Pushed, Release};

/// How long the ledger may take, in milliseconds. Nobody waits, but the runtime ends this work 30 s after the reply.
const PATIENCE_MS: u64 = 4_000;

/// Pauses before the entry is sent again, in milliseconds.
const PAUSES_MS: [u64; 3] = [250, 1_000, 4_000];

/// A queue is sent when it has so many entries …
const ENTRIES: usize = 20;

/// … or when the first of them has waited for so many milliseconds.
const WAIT_MS: u64 = 1_000;

/// The runtime ends what is done behind a reply's end after 30 s: no watch is longer than this, in milliseconds.
const LONGEST_WATCH_MS: u64 = 20_000;

/// How the ledger is to deal with entries.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// How long it may gather them before it hands them on, in milliseconds.
    pub flush_ms: u64,
    /// From which percentages of a quota or budget on alert events are raised.
    pub thresholds: &'a [u64],
}

/// Entries that wait to be sent together.
#[derive(Default)]
struct Queue {
    entries: Vec<UsageEntry>,
    since: u64,
}

thread_local! {
    /// By account.
    static QUEUES: RefCell<BTreeMap<String, Queue>> = const { RefCell::new(BTreeMap::new()) };
}

/// Sends an entry. One that cannot be delivered is logged in full, so that it can be entered by hand. Sending it twice is
/// harmless: the ledger knows it by its id.
pub async fn send(env: &Env, entry: &UsageEntry, how: How<'_>) {
    post(env, &entry.account, vec![entry.clone()], Vec::new(), how).await;
}

/// Sends an entry of a request that was admitted from a lease, together with others: nobody waits for it, as what it used
/// counts already. They go when there are many, or after a while, or else when the lease is over.
pub async fn send_with_others(env: &Env, entry: &UsageEntry, how: How<'_>) {
    let now = now_ms();
    let is_watched = entry.lease.as_ref().is_some_and(|used| limits::is_watched(&used.id));
    let due = QUEUES.with_borrow_mut(|queues| {
        let queue = queues.entry(entry.account.clone()).or_default();
        if queue.entries.is_empty() {
            queue.since = now;
        }
        queue.entries.push(entry.clone());
        !is_watched || queue.entries.len() >= ENTRIES || now.saturating_sub(queue.since) >= WAIT_MS
    });
    if due {
        post(env, &entry.account, take(&entry.account), Vec::new(), how).await;
    }
}

/// Waits until a lease is over, then sends what has waited and gives the lease back. For the request that the lease came
/// with, after its end.
pub async fn watch_over(env: &Env, account: &str, (lease, until): &(String, u64), how: How<'_>) {
    sleep(until.saturating_sub(now_ms()).min(LONGEST_WATCH_MS)).await;
    limits::unwatch(lease);
    let (entries, returns) = (take(account), limits::returns(account, now_ms()));
    if !entries.is_empty() || !returns.is_empty() {
        post(env, account, entries, returns, how).await;
    }
}

/// Sends what has waited for long enough, and gives back leases whose time is over, whosever they are: no request of
/// theirs may come any more.
pub async fn give_back(env: &Env, how: How<'_>) {
    let now = now_ms();
    let mut accounts = limits::accounts_due(now);
    QUEUES.with_borrow(|queues| {
        let waited = queues.iter().filter(|(_, queue)| now.saturating_sub(queue.since) >= WAIT_MS);
        accounts.extend(waited.map(|(account, _)| account.clone()));
    });
    for account in accounts {
        let (entries, returns) = (take(&account), limits::returns(&account, now_ms()));
        if !entries.is_empty() || !returns.is_empty() {
            post(env, &account, entries, returns, how).await;
        }
    }
}

fn take(account: &str) -> Vec<UsageEntry> {
    QUEUES.with_borrow_mut(|queues| queues.remove(account)).map(|queue| queue.entries).unwrap_or_default()
}

async fn post(env: &Env, account: &str, entries: Vec<UsageEntry>, returns: Vec<LeaseReturn>, how: How<'_>) {
    let written = entries.iter().filter_map(|entry| match serde_json::value::to_raw_value(entry) {
        Ok(text) => Some(text),
        Err(error) => {
            let (error, id) = (error.to_string(), entry.id.as_str());
            tracing::error!(target: "usage", message = "a usage entry cannot be written", error, id);
            None
        }
    });
    let post =
        PostUsage { flush_ms: how.flush_ms, entries: written.collect(), returns, thresholds: how.thresholds.to_vec() };
    match persist::<Pushed>(env, Object::ledger(account), "/usage", &post).await {
        Ok(_) => {
            for (entry, used) in entries.iter().filter_map(|entry| Some((entry, entry.lease.as_ref()?))) {
                limits::acknowledged(&entry.id, used);
            }
        }
        Err(error) => {
            let error = error.to_string();
            for entry in &post.entries {
                let (error, entry) = (error.as_str(), entry.get());
                tracing::error!(target: "usage", message = "usage was not delivered: enter it by hand", error, entry);
            }
            limits::not_returned(account, post.returns);
        }
    }
}

/// Tells a provider's gauge that an attempt has ended, and what it used. If it never learns, the attempt counts until its
/// time is up.
pub async fn release(env: &Env, hold: &Hold, settlement: Settlement) {
    let Hold { gauge, provider, id, passing, .. } = hold;
    let settlement = Settlement { passing: *passing, ..settlement };
    let release = Release { provider: provider.clone(), id: id.clone(), settlement };
    if let Err(error) = persist::<Settled>(env, Object::gauge(gauge), "/release", &release).await {
        let error = error.to_string();
        tracing::error!(target: "limits", message = "a provider's gauge was not told of a request's end", error, id, provider);
    }
}
/// Posts something that may be posted twice, and again where it fails.
async fn persist<T: DeserializeOwned>(
    env: &Env,
    object: Object<'_>,
    path: &str,
    body: &impl Serialize,
) -> Result<T, CallError> {
    let mut pauses = PAUSES_MS.iter();
    loop {
        match (object.call(env, "POST", path, Some(body), PATIENCE_MS).await, pauses.next()) {
            (Ok(answer), _) => return Ok(answer),
            (Err(_), Some(pause)) => sleep(*pause).await,
            (Err(error), None) => return Err(error),
        }
    }
}
