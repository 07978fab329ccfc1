//! What an isolate decides on who answers by, besides the health of those who could: whose turn it is, what it has open,
//! and how many attempts its routes have made lately.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::health;
use crate::gateway::itinerary::{Chance, Seen};
use crate::gateway::plan::LoadedConfig;
use crate::http::shell::now_ms;
use crate::routing::board::{Observation, Terms};
use crate::routing::budget::Budget;
use crate::routing::in_flight::InFlight;
use crate::routing::score::mix;
use crate::routing::strategy::Turns;

/// Names whose budgets are kept at most.
const BUDGETS_KEPT: usize = 2_000;

thread_local! {
    static TURNS: RefCell<Turns> = RefCell::new(Turns::default());
    static BUDGETS: RefCell<BTreeMap<String, Budget>> = const { RefCell::new(BTreeMap::new()) };
    static IN_FLIGHT: InFlight = InFlight::default();
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// Takes in what an attempt came to, if that counts for the health of its provider.
pub fn saw(loaded: &LoadedConfig, seen: Observation) {
    if loaded.config.providers.get(&seen.provider).is_some_and(|provider| provider.health.passive) {
        health::observe(loaded, seen);
    }
}

/// Decides on what the isolate knows.
pub fn deciding<T>(loaded: &LoadedConfig, decide: impl FnOnce(&Seen<'_>, Chance<'_>) -> T) -> T {
    let (terms, now) = (Terms::of(&loaded.config.routing), now_ms());
    health::with_board(|board| {
        let seen = Seen { board, terms, in_flight: in_flight(), now };
        TURNS.with_borrow_mut(|turns| decide(&seen, Chance { turns, random: &mut random }))
    })
}

/// Works with the budget of further attempts that a model or a route has.
pub fn with_budget<T>(name: &str, work: impl FnOnce(&mut Budget) -> T) -> T {
    BUDGETS.with_borrow_mut(|budgets| {
        if budgets.len() >= BUDGETS_KEPT && !budgets.contains_key(name) {
            budgets.clear();
        }
        work(budgets.entry(name.to_owned()).or_default())
    })
}

/// The requests of this isolate that are open.
pub fn in_flight() -> InFlight {
    IN_FLIGHT.with(Clone::clone)
}

/// A number, uniformly distributed; good enough to share load by, and for nothing secret.
pub fn random() -> u64 {
    SEED.with(|seed| {
        if seed.get() == 0 {
            let mut bytes = [0; 8];
            // Without randomness every isolate draws the same numbers, which is no harm.
            let _without = getrandom::getrandom(&mut bytes);
            seed.set(u64::from_le_bytes(bytes));
        }
        seed.set(seed.get().wrapping_add(1));
        mix(seed.get())
    })
}
