//! What an account's ledger and a provider's gauge know and decide: pure state machines that their objects keep and ask.
//!
//! - [`ledger`]: which keys are good, and whether the account is
//! - [`rule`]: what can be limited; [`ask`]: what is asked and answered about it, in [`amounts`]
//! - [`admission`]: decides and counts, in [`window`]s, [`bucket`]s and [`calendar`] periods; its state is a [`base`] and
//!   [`row`]s
//! - [`holder`]: an isolate's leases; [`refusals`]: what it need not ask again; [`fallback`]: what it decides while the
//!   ledger cannot be reached
//! - [`watch`]: when a limit is nearly used up
//! - [`profile`]: how many output tokens to reserve, learned from replies
//! - [`usage`]: what a request used, and how many of them become rows
//! - [`queue`]: in which batch an entry is handed on, so that it is counted exactly once

pub mod admission;
pub mod amounts;
pub mod ask;
pub mod base;
pub mod bucket;
pub mod calendar;
pub mod counters;
pub mod fallback;
pub mod handed_on;
pub mod holder;
pub mod ledger;
pub mod profile;
pub mod queue;
pub mod refusals;
pub mod row;
pub mod rule;
mod rules;
#[cfg(test)]
mod simulation;
pub mod usage;
pub mod watch;
pub mod window;
