//! Key records from KV, with the isolate's memory in front, and what their account's ledger says of them.

use std::cell::RefCell;
use std::rc::Rc;

use worker::Env;

use super::bounded_cache::BoundedCache;
use super::standing::{Learnt, Next, Refused, Standings};
use super::{KV, KV_CACHE_SECONDS};
use crate::auth::Principal;
use crate::auth::api_key::{ApiKey, KeyRecord};
use crate::config::Auth;
use crate::error::{Kind, Problem};
use crate::http::shell::now_ms;
use crate::limits::ledger::Verdict;
use crate::objects::call::Object;
use crate::objects::wire::{Check, PATIENCE_MS, Standing};

/// Keys that an isolate remembers, unknown ones included.
const ENTRIES: usize = 10_000;

thread_local! {
    static RECORDS: RefCell<BoundedCache<String, Option<Rc<KeyRecord>>>> = RefCell::new(BoundedCache::new(ENTRIES));
    static STANDINGS: RefCell<Standings> = RefCell::new(Standings::new(ENTRIES));
}

/// Whether a principal may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// It may.
    AsItIs,
    /// The key has been changed: its credential must be judged anew, by the record that is remembered now.
    Changed,
}

/// The record of a key; `None` if there is none. `now` is in milliseconds.
///
/// # Errors
/// 503 if KV does not answer.
pub async fn record(env: &Env, key: &ApiKey, now: u64, auth: &Auth) -> Result<Option<Rc<KeyRecord>>, Problem> {
    let id = key.public_id();
    let known = RECORDS.with_borrow(|records| match records.get(id, now, auth.key_cache_ms) {
        Some(Some(record)) => Some(Some(record)),
        _ => records.get(id, now, auth.negative_cache_ms).filter(Option::is_none),
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let unavailable = |error: String| {
        tracing::error!(target: "auth", message = "a key record could not be read", error);
        Problem::new(
            Kind::Unavailable,
            "key_store_unavailable",
            "API keys cannot be checked at the moment. Try again shortly.",
        )
    };
    let kv = env.kv(KV).map_err(|error| unavailable(error.to_string()))?;
    let text = kv.get(&key.record_name()).cache_ttl(KV_CACHE_SECONDS).text().await;
    let text = text.map_err(|error| unavailable(error.to_string()))?;
    let read = match text.map(|text| serde_json::from_str::<KeyRecord>(&text)) {
        None => None,
        Some(Ok(record)) => Some(Rc::new(record)),
        Some(Err(error)) => {
            let (error, key_id) = (error.to_string(), id);
            tracing::error!(target: "auth", message = "a key record is unreadable", key_id, error);
            None
        }
    };
    // KV may be behind what the ledger has said.
    let older = RECORDS.with_borrow(|records| records.get(id, now, u64::MAX)).flatten();
    let newest = match (read, older) {
        (Some(read), Some(older)) if older.revision > read.revision => Some(older),
        (read, _) => read,
    };
    remember(id, newest.clone(), now);
    Ok(newest)
}

/// The record of a key that was judged a moment ago.
pub fn remembered(public_id: &str) -> Option<Rc<KeyRecord>> {
    RECORDS.with_borrow(|records| records.get(public_id, now_ms(), u64::MAX)).flatten()
}

fn remember(public_id: &str, record: Option<Rc<KeyRecord>>, now: u64) {
    RECORDS.with_borrow_mut(|records| records.put(public_id.to_owned(), record, now));
}

/// What this isolate knows of a caller's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// What the ledger has said, if that is still good.
    pub standing: Option<Result<(), Refused>>,
    /// Whether limits that the control plane has set may apply; `None` if the ledger has never said.
    pub limited: Option<bool>,
}

/// What is known of a principal's standing; `now` is in milliseconds. Whoever finds nothing is expected to ask.
pub fn known(principal: &Principal, auth: &Auth, now: u64) -> Known {
    let name = name(principal);
    STANDINGS.with_borrow_mut(|standings| {
        let limited = standings.limited(&name);
        match standings.next(&name, principal.revision, now, auth.revocation_check_ms) {
            Next::Known(standing) => Known { standing: Some(standing), limited },
            Next::Ask => Known { standing: None, limited },
        }
    })
}

/// Asks the account's ledger about a principal.
///
/// # Errors
/// [`Refused`].
pub async fn ask(env: &Env, principal: &Principal, auth: &Auth) -> Result<Confirmed, Refused> {
    ask_ledger(env, &name(principal), &principal.account, question(principal), auth).await
}

/// The question about a principal.
pub fn question(principal: &Principal) -> Check {
    let Principal { public_id, key_id, user, revision, .. } = principal;
    let public_id = Some(public_id.clone()).filter(|id| !id.is_empty());
    Check { public_id, revision: *revision, key_id: key_id.clone(), user: user.clone() }
}

/// Takes in what the ledger said of a principal to a question asked at `asked_at`, or that it gave no answer.
///
/// # Errors
/// [`Refused`].
pub fn learn(
    principal: &Principal,
    asked_at: u64,
    answer: Option<Standing>,
    auth: &Auth,
) -> Result<Confirmed, Refused> {
    let public_id = Some(principal.public_id.as_str()).filter(|id| !id.is_empty());
    take_in(public_id, &name(principal), principal.revision, asked_at, answer, auth)
}

/// What a caller's standing is remembered by. A public id has no colon.
fn name(principal: &Principal) -> String {
    match principal.public_id.as_str() {
        "" => format!("token:{}:{}", principal.account, principal.key_id),
        public_id => public_id.to_owned(),
    }
}

/// Asks the account's ledger, if this isolate has not done so lately, whether the principal's key is still good and its
/// account not suspended.
///
/// # Errors
/// [`Refused`].
pub async fn confirm(env: &Env, principal: &Principal, auth: &Auth) -> Result<Confirmed, Refused> {
    match known(principal, auth, now_ms()).standing {
        Some(standing) => standing.map(|()| Confirmed::AsItIs),
        None => ask(env, principal, auth).await,
    }
}

/// As [`confirm`], for a key whose record says that it is no longer good: KV may be behind, and the key may have been
/// enabled or prolonged.
///
/// # Errors
/// [`Refused`].
pub async fn confirm_refusal(env: &Env, key: &ApiKey, record: &KeyRecord, auth: &Auth) -> Result<Confirmed, Refused> {
    let public_id = key.public_id();
    let check = Check {
        public_id: Some(public_id.to_owned()),
        revision: record.revision,
        key_id: if record.key.is_empty() { public_id.to_owned() } else { record.key.clone() },
        user: record.user.clone(),
    };
    let next = STANDINGS
        .with_borrow_mut(|standings| standings.next(public_id, check.revision, now_ms(), auth.revocation_check_ms));
    match next {
        Next::Known(standing) => standing.map(|()| Confirmed::AsItIs),
        Next::Ask => ask_ledger(env, public_id, &record.account, check, auth).await,
    }
}

async fn ask_ledger(env: &Env, name: &str, account: &str, check: Check, auth: &Auth) -> Result<Confirmed, Refused> {
    let asked_at = now_ms();
    let ledger = Object::ledger(account);
    let answer = ledger.call::<Standing>(env, "POST", "/check", Some(&check), PATIENCE_MS).await;
    let answer = answer
        .inspect_err(|error| {
            let error = error.to_string();
            tracing::error!(target: "auth", message = "an account's ledger cannot be asked", account, error);
        })
        .ok();
    take_in(check.public_id.as_deref(), name, check.revision, asked_at, answer, auth)
}

fn take_in(
    public_id: Option<&str>,
    name: &str,
    revision: u64,
    asked_at: u64,
    answer: Option<Standing>,
    auth: &Auth,
) -> Result<Confirmed, Refused> {
    if let Some(Standing { verdict: Verdict::Newer(record), .. }) = &answer
        && let Some(public_id) = public_id
    {
        remember(public_id, Some(Rc::new(record.as_ref().clone())), now_ms());
    }
    // Where there is no answer, the wait for it must not make what follows old already.
    let asked_at = if answer.is_some() { asked_at } else { now_ms() };
    let learnt = STANDINGS
        .with_borrow_mut(|standings| standings.learn(name, revision, asked_at, answer, auth.when_ledger_unreachable));
    match learnt {
        Learnt::Known(standing) => standing.map(|()| Confirmed::AsItIs),
        Learnt::Newer(_) => Ok(Confirmed::Changed),
    }
}

/// Forgets everything.
pub fn forget() {
    RECORDS.with_borrow_mut(|records| *records = BoundedCache::new(ENTRIES));
    STANDINGS.with_borrow_mut(Standings::clear);
}
