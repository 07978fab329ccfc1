//! Alerts: rules over the usage of the last minutes or days, looked at every minute.
//!
//! A rule that holds opens an event, and the event is resolved once the rule no longer holds, or is switched off or
//! deleted. A rule never has two open events. What is nearly used up of a quota or budget is told by the accounts'
//! ledgers ([`limits`]), what is wrong with providers by their gauges ([`providers`]).

pub mod limits;
pub mod providers;
pub mod rules;

#[cfg(target_arch = "wasm32")]
pub mod evaluate;
