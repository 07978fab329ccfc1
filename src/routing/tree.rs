//! Who answers a request: a route's tree of targets made into one list of candidates, the first to be tried first.
//!
//! At each route the targets of equal priority are put in order by the route's strategy, or by what the caller is kept
//! with a target by; those of a higher number follow. A route among the targets is put in order by its own rules first
//! and then stands, with all its candidates in a row, where the candidate would stand that it puts first. What cannot
//! answer is left out, and the reason told.
//!
//! Nothing here waits, draws by itself or looks at a clock. The one thing that is changed are the [`Turns`], and those
//! only along the way to the first candidate: a route that would have been somebody's turn, but not the turn's route,
//! keeps its turn.

mod order;
mod walk;

pub use order::{Candidate, Contender, LeftOut, LeftOutReason, Order};

use super::outcome::Fault;
use super::strategy::Turns;
use super::traits::{RequestView, View};
use crate::config::{Config, WhenAllOpen};
use walk::Walk;

/// The deepest that routes are nested, the one that is asked for included.
pub const MAX_DEPTH: usize = 4;

/// The most targets that one route may have, those of all routes below it included.
pub const MAX_TARGETS: usize = 128;

/// Who answers a request for `name`, a model or a route. There is nobody if there is no such name, or if it is a route
/// that is disabled.
pub fn order<'a>(
    config: &'a Config,
    name: &str,
    request: &dyn RequestView,
    view: &dyn View,
    turns: &mut Turns,
    random: &mut dyn FnMut() -> u64,
    policy: WhenAllOpen,
) -> Order<'a> {
    Walk::new(config, request, view, turns, random).of_name(name, policy)
}

/// Who is tried instead of the next candidates after one failed in a certain way: what the innermost route of its path
/// says that says anything of this fault. `None` if none does. Candidates that were tried already are among them, and
/// unhealthy ones are not.
pub fn fallbacks<'a>(
    config: &'a Config,
    failed: &Candidate<'a>,
    fault: Fault,
    request: &dyn RequestView,
    view: &dyn View,
    turns: &mut Turns,
    random: &mut dyn FnMut() -> u64,
) -> Option<Order<'a>> {
    let (path, names) = (0..failed.path.len()).rev().find_map(|at| {
        let names = config.routes.get(*failed.path.get(at)?)?.fallbacks.get(fault.name())?;
        Some((failed.path.get(..=at)?, names))
    })?;
    Some(Walk::new(config, request, view, turns, random).of_names(path, names))
}

#[cfg(test)]
mod tests;
