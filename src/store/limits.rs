//! What an isolate knows of limits: the leases that it holds, the refusals it has heard, the rules of the accounts that it
//! serves, and its own counts for while their ledgers cannot be reached.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use super::bounded_cache::BoundedCache;
use crate::auth::Principal;
use crate::limits::admission::Admission;
use crate::limits::ask::{Ask, Denial, Grant, LeaseReturn, LeaseUse, Settlement};
use crate::limits::counters::Caller;
use crate::limits::fallback::{Decision, Fallback, FallbackCounts, FallbackTerms};
use crate::limits::holder::{Holder, Lessee, Local, Need};
use crate::limits::refusals::Refusals;
use crate::limits::rule::{Dimension, EVERYBODY, LimitMode, LimitTerms, Period, Rule, Scope};
use crate::objects::wire::RulesNow;

/// Accounts whose rules are remembered.
const ACCOUNTS: usize = 2_000;

/// A ledger that has not answered is not waited for again by every request, but for so many milliseconds left alone.
const LEFT_ALONE_MS: u64 = 1_000;

/// What is done without a ledger is logged once in so many milliseconds.
const LOG_EVERY_MS: u64 = 1_000;

/// An account's rules.
struct Known {
    revision: u64,
    rules: Admission,
}

thread_local! {
    static NAME: RefCell<String> = const { RefCell::new(String::new()) };
    static HOLDER: RefCell<Holder> = RefCell::new(Holder::default());
    /// Leases that a request sees to: it will send what waits, and give the lease back, when its time is over.
    static WATCHED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    static REFUSALS: RefCell<Refusals> = RefCell::new(Refusals::default());
    static FALLBACK: RefCell<Fallback> = RefCell::new(Fallback::default());
    static RULES: RefCell<BoundedCache<String, Rc<Known>>> = RefCell::new(BoundedCache::new(ACCOUNTS));
    static SILENT: RefCell<BoundedCache<String, ()>> = RefCell::new(BoundedCache::new(ACCOUNTS));
    static LOGGED_AT: Cell<u64> = const { Cell::new(0) };
}

// === Leases ===

/// The isolate's name, by which ledgers lend to it.
pub fn holder() -> String {
    NAME.with_borrow_mut(|name| {
        if name.is_empty() {
            let mut bytes = [0; 8];
            // Without randomness it has no name, and gets no leases.
            if getrandom::getrandom(&mut bytes).is_ok() {
                *name = format!("{:016x}", u64::from_le_bytes(bytes));
            }
        }
        name.clone()
    })
}

fn lessee(principal: &Principal, ask: &Ask) -> Lessee {
    Lessee {
        account: principal.account.clone(),
        key_id: principal.key_id.clone(),
        user: principal.user.clone(),
        model: ask.model.clone(),
    }
}

/// Admits a request from a lease; `None` if the ledger must be asked.
pub fn admit(principal: &Principal, ask: &Ask, now: u64) -> Option<Local> {
    let need = Need { input_tokens: ask.input_tokens, max_output_tokens: ask.max_output_tokens, prices: ask.prices };
    HOLDER.with_borrow_mut(|holder| holder.admit(now, &ask.id, &lessee(principal, ask), &need))
}

/// The ledger has granted a request, asked for at `asked_at`.
pub fn granted(principal: &Principal, ask: &Ask, grant: &Grant, asked_at: u64) {
    HOLDER.with_borrow_mut(|holder| holder.granted(asked_at, &ask.id, &lessee(principal, ask), grant));
    if let Some(lease) = &grant.lease {
        WATCHED.with_borrow_mut(|watched| watched.insert(lease.id.clone()));
    }
}

/// Whether somebody will send what waits to be sent of a lease.
pub fn is_watched(lease: &str) -> bool {
    WATCHED.with_borrow(|watched| watched.contains(lease))
}

/// Nobody watches over a lease any more.
pub fn unwatch(lease: &str) {
    WATCHED.with_borrow_mut(|watched| watched.remove(lease));
}

/// A request is over: what it took from which lease.
pub fn settled(id: &str) -> Option<LeaseUse> {
    HOLDER.with_borrow_mut(|holder| holder.settled(id))
}

/// A settlement has arrived.
pub fn acknowledged(id: &str, used: &LeaseUse) {
    HOLDER.with_borrow_mut(|holder| holder.acknowledged(id, used));
}

/// The leases that are to be given back to an account's ledger now.
pub fn returns(account: &str, now: u64) -> Vec<LeaseReturn> {
    HOLDER.with_borrow_mut(|holder| holder.returns(now, account))
}

/// Leases could not be given back.
pub fn not_returned(account: &str, returns: Vec<LeaseReturn>) {
    HOLDER.with_borrow_mut(|holder| holder.not_returned(account, returns));
}

/// The accounts to whose ledgers leases are to be given back.
pub fn accounts_due(now: u64) -> Vec<String> {
    HOLDER.with_borrow(|holder| holder.accounts_due(now))
}

// === Refusals ===

/// The ledger has refused a request, asked for at `asked_at`; `now` is when it said so.
pub fn refused(principal: &Principal, ask: &Ask, denial: &Denial, asked_at: u64, now: u64) {
    REFUSALS.with_borrow_mut(|refusals| refusals.learn(asked_at, now, lessee(principal, ask), ask, denial));
}

/// The refusal that the ledger would give.
pub fn refusal_of(principal: &Principal, ask: &Ask, now: u64) -> Option<Denial> {
    REFUSALS.with_borrow(|refusals| refusals.of(now, &lessee(principal, ask), ask))
}

// === Rules ===

/// The revision of an account whose rules are known.
pub fn rules_of(account: &str) -> Option<u64> {
    known(account).map(|known| known.revision)
}

/// Takes in an account's rules.
pub fn learn(account: &str, now: u64, rules: RulesNow) {
    let mut of_account = Admission::new(Scope::Account);
    of_account.set_rules(rules.rules);
    let known = Rc::new(Known { revision: rules.revision, rules: of_account });
    RULES.with_borrow_mut(|cache| cache.put(account.to_owned(), known, now));
}

/// Whether it matters to the limits of a caller which model it asks; also where nobody knows.
pub fn tells_models_apart(principal: &Principal, ask: &Ask) -> bool {
    let caller = Caller { key: &ask.key_id, user: ask.user.as_deref(), model: None };
    known(&principal.account)
        .is_none_or(|known| known.rules.rules_of(&caller, &ask.defaults).iter().any(|rule| rule.terms.model.is_some()))
}

fn known(account: &str) -> Option<Rc<Known>> {
    RULES.with_borrow(|cache| cache.get(account, 0, u64::MAX))
}

// === Without the ledger ===

/// Decides about a request that the ledger gives no answer to. Of an account whose rules this isolate has never heard,
/// nobody knows that it has no budget.
pub fn without_ledger(principal: &Principal, ask: &Ask, terms: &FallbackTerms, now: u64) -> Decision {
    let caller = Caller { key: &ask.key_id, user: ask.user.as_deref(), model: Some(&ask.model) };
    let rules = match known(&principal.account) {
        Some(known) => known.rules.rules_of(&caller, &ask.defaults),
        None => {
            let mut rules = Admission::new(Scope::Account).rules_of(&caller, &ask.defaults);
            rules.push(unheard_of(&ask.key_id));
            rules
        }
    };
    FALLBACK.with_borrow_mut(|fallback| fallback.reserve(now, &principal.account, ask, &rules, terms))
}

/// Stands for the budgets that may be there.
fn unheard_of(key_id: &str) -> Rule {
    Rule {
        id: EVERYBODY.to_owned(),
        scope: Scope::Key,
        subject: key_id.to_owned(),
        terms: LimitTerms {
            model: None,
            dimension: Dimension::Cost,
            period: Period::Total,
            amount: u64::MAX,
            burst: None,
            mode: LimitMode::Enforce,
        },
    }
}

/// A request that was admitted without the ledger has ended.
pub fn settled_without_ledger(account: &str, id: &str, settlement: &Settlement, now: u64) {
    FALLBACK.with_borrow_mut(|fallback| fallback.settle(now, account, id, settlement));
}

/// An account's ledger has answered.
pub fn reached(account: &str) {
    FALLBACK.with_borrow_mut(|fallback| fallback.reached(account));
    SILENT.with_borrow_mut(|silent| silent.remove(account));
}

/// An account's ledger has not answered.
pub fn not_reached(account: &str, now: u64) {
    SILENT.with_borrow_mut(|silent| silent.put(account.to_owned(), (), now));
}

/// Whether an account's ledger has not answered a moment ago.
pub fn is_silent(account: &str, now: u64) -> bool {
    SILENT.with_borrow(|silent| silent.get(account, now, LEFT_ALONE_MS)).is_some()
}

/// How often what was decided without a ledger, if it is time to log it.
pub fn counts_to_log(now: u64) -> Option<FallbackCounts> {
    if now.saturating_sub(LOGGED_AT.get()) < LOG_EVERY_MS {
        return None;
    }
    LOGGED_AT.set(now);
    Some(FALLBACK.with_borrow(Fallback::counts))
}
