//! What an isolate knows of the health of providers and models: its board, on which requests are decided without a call,
//! and what it has seen, on its way to the gauges.
//!
//! [`sync`] is called after each reply, when nobody waits any more: it tells each gauge what has been seen, at most every
//! `routing.report_ms`, less often while all is well, at once where that may open or close a breaker, and takes over the
//! gauge's board from the answer.
//! What operators have set of providers does not come from gauges but along with the configuration ([`super::config`]).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use futures::future::join_all;
use worker::Env;

use super::config::provider_states;
use super::limits::holder;
use super::reports::{Due, Pace, Reports};
use crate::gateway::plan::LoadedConfig;
use crate::http::shell::{now_ms, sleep};
use crate::objects::call::{CallError, Object};
use crate::objects::wire::{Aged, PATIENCE_MS, ProviderStates, Report};
use crate::routing::board::{Board, Manual, Observation, Skip, Snapshot, Terms, Want};

/// How long gauges may take where somebody waits for nothing but their word, in milliseconds.
const ASKING_MS: u64 = 3_000;

/// How long is waited, in milliseconds, before it is looked again whether somebody else has heard of a gauge.
const LOOK_MS: u64 = 20;

/// How old it may be about something that is passed over, in milliseconds: somebody may have found it well, or reset it.
const PASSED_OVER_MS: u64 = 2_000;

thread_local! {
    static BOARD: RefCell<Board> = RefCell::new(Board::default());
    static REPORTS: RefCell<Reports> = RefCell::new(Reports::default());
    /// What operators have set, as it is on the board.
    static SET: RefCell<Rc<ProviderStates>> = RefCell::new(Rc::default());
}

/// Works with the board. Not to be held while anything else of this module is called.
pub fn with_board<T>(work: impl FnOnce(&mut Board) -> T) -> T {
    BOARD.with_borrow_mut(|board| {
        put_what_is_set(board, false);
        work(board)
    })
}

/// Takes in what an attempt came to, and sees to it that its gauge is told.
pub fn observe(loaded: &LoadedConfig, seen: Observation) {
    let terms = Terms::of(&loaded.config.routing);
    let transitions = with_board(|board| board.observe(now_ms(), &terms, &seen, random()));
    for transition in transitions {
        let what = serde_json::to_string(&transition).unwrap_or_default();
        tracing::info!(target: "health", message = "changed", transition = what);
    }
    let gauge = loaded.pools.gauge(&seen.provider).to_owned();
    REPORTS.with_borrow_mut(|reports| reports.add(&gauge, seen));
}

/// A request has passed a deployment over. If only for want of a permit for a trial, the gauge is asked for one; and it is
/// asked whether what is known still holds, if that is old: nobody here would find out otherwise.
pub fn passed_over(loaded: &LoadedConfig, deployment: &str, why: Skip) {
    let Some(model) = loaded.config.models.get(deployment) else { return };
    let now = now_ms();
    let asks = with_board(|board| match why {
        Skip::HalfOpen => {
            board.want_trial(now, &model.provider, deployment);
            true
        }
        // Gauges know nothing of what operators set.
        Skip::Draining | Skip::Maintenance => false,
        _ => is_old(board, now, &model.provider, PASSED_OVER_MS),
    });
    if asks {
        REPORTS.with_borrow_mut(|reports| reports.ask(loaded.pools.gauge(&model.provider)));
    }
}

/// Whether a gauge's word is older than it may be.
fn is_old(board: &Board, now: u64, provider: &str, most: u64) -> bool {
    board.age_ms(now, provider).is_none_or(|age| age >= most)
}

/// Tells gauges what is due, and takes their word. To be called when nobody waits for it any more; returns at once where
/// nothing is due.
pub async fn sync(env: &Env, loaded: &LoadedConfig) {
    let waiting = REPORTS.with_borrow(|reports| reports.waiting(now_ms()));
    join_all(waiting.iter().map(|gauge| see_to(env, loaded, gauge, PATIENCE_MS))).await;
}

/// Asks the gauges of these providers how they are now. Tells which of the providers nothing could be heard of in time.
pub async fn refresh<'a>(
    env: &Env,
    loaded: &LoadedConfig,
    providers: impl IntoIterator<Item = &'a str>,
) -> BTreeSet<String> {
    let since = now_ms();
    let providers: BTreeSet<&str> = providers.into_iter().collect();
    let gauges: BTreeSet<&str> = providers.iter().map(|provider| loaded.pools.gauge(provider)).collect();
    join_all(gauges.iter().map(|gauge| hear(env, loaded, gauge, since))).await;
    let silent = providers.into_iter().filter(|provider| !is_heard(provider, since));
    silent.map(str::to_owned).collect()
}

/// Asks a gauge how its providers are, unless somebody is doing so.
async fn hear(env: &Env, loaded: &LoadedConfig, gauge: &str, since: u64) {
    let provider = loaded.pools.providers(gauge).first().copied().unwrap_or(gauge);
    let left = || since.saturating_add(ASKING_MS).saturating_sub(now_ms());
    while !is_heard(provider, since) && left() > 0 {
        REPORTS.with_borrow_mut(|reports| reports.ask(gauge));
        if !see_to(env, loaded, gauge, left()).await {
            sleep(LOOK_MS).await;
        }
    }
}

/// Whether a gauge has said how a provider is since then.
fn is_heard(provider: &str, since: u64) -> bool {
    let now = now_ms();
    with_board(|board| board.age_ms(now, provider)).is_some_and(|age| now.saturating_sub(age) >= since)
}

/// Tells a provider's gauge of something at once, such as what probes have found.
///
/// # Errors
/// That it cannot be reached; it is told later then.
pub async fn tell(env: &Env, loaded: &LoadedConfig, seen: Observation) -> Result<(), CallError> {
    let gauge = loaded.pools.gauge(&seen.provider).to_owned();
    observe(loaded, seen);
    report(env, loaded, &gauge, PATIENCE_MS).await
}

/// Sees to a gauge if it is to be told something and no other request does. Tells whether it was.
async fn see_to(env: &Env, loaded: &LoadedConfig, gauge: &str, patience_ms: u64) -> bool {
    let now = now_ms();
    let calm = !loaded.compares_latency && {
        let (terms, providers) = (Terms::of(&loaded.config.routing), loaded.pools.providers(gauge));
        with_board(|board| board.is_calm(now, &terms, &providers))
    };
    let pace = Pace { report_ms: loaded.config.routing.report_ms, calm };
    let first = REPORTS.with_borrow(|reports| reports.due(now, gauge, pace));
    if first == Due::Not {
        return false;
    }
    let _mine = Mine::take(gauge);
    if let Due::In(millis) = first {
        sleep(millis).await;
    }
    if let Err(error) = report(env, loaded, gauge, patience_ms).await {
        let error = error.to_string();
        tracing::warn!(target: "health", message = "a gauge has not heard what was seen", gauge, error);
    }
    true
}

/// That a request sees to a gauge, until it has done so or is broken off.
struct Mine<'a>(&'a str);

impl<'a> Mine<'a> {
    fn take(gauge: &'a str) -> Self {
        REPORTS.with_borrow_mut(|reports| reports.take(now_ms(), gauge));
        Self(gauge)
    }
}

impl Drop for Mine<'_> {
    fn drop(&mut self) {
        REPORTS.with_borrow_mut(|reports| reports.leave(self.0));
    }
}

/// Tells a gauge what has been seen, and takes over what it answers.
async fn report(env: &Env, loaded: &LoadedConfig, gauge: &str, patience_ms: u64) -> Result<(), CallError> {
    let asked = now_ms();
    let terms = Terms::of(&loaded.config.routing);
    let providers = loaded.pools.providers(gauge);
    let wants: Vec<Want> = with_board(|board| board.wants(asked, &providers));
    let said = REPORTS.with_borrow_mut(|reports| reports.begin(asked, gauge));
    let told = Report {
        holder: holder(),
        providers: providers.iter().map(|provider| (*provider).to_owned()).collect(),
        terms,
        observations: said
            .iter()
            .map(|seen| Aged { age_ms: asked.saturating_sub(seen.at), seen: seen.clone() })
            .collect(),
        wants,
    };
    let answer = Object::gauge(gauge).call::<Snapshot>(env, "POST", "/report", Some(&told), patience_ms).await;
    let now = now_ms();
    match answer {
        Ok(snapshot) => {
            REPORTS.with_borrow(|reports| {
                BOARD.with_borrow_mut(|board| {
                    board.adopt(now, &terms, asked, &snapshot, reports.unreported(gauge), random());
                    put_what_is_set(board, true);
                });
            });
            Ok(())
        }
        Err(error) => {
            BOARD.with_borrow_mut(|board| board.unanswered(now, &providers));
            REPORTS.with_borrow_mut(|reports| reports.failed(now, gauge, said));
            Err(error)
        }
    }
}

/// Puts what operators have set of providers on the board, where that has changed; `anew` where the board may have lost it.
fn put_what_is_set(board: &mut Board, anew: bool) {
    let now = provider_states();
    SET.with_borrow_mut(|set| {
        if !anew && Rc::ptr_eq(set, &now) {
            return;
        }
        for provider in set.keys().filter(|provider| !now.contains_key(*provider)) {
            board.set_manual(provider, Manual::default());
        }
        for (provider, manual) in now.iter() {
            board.set_manual(provider, *manual);
        }
        *set = now;
    });
}

/// Any number. Without randomness back-offs do not differ between isolates, which is no harm.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    let _without = getrandom::getrandom(&mut bytes);
    u64::from_le_bytes(bytes)
}
