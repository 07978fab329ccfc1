//! An account's ledger: pure state machines that its object keeps and asks.
//!
//! - [`ledger`]: which keys are good, and whether the account is
//! - [`usage`]: what a request used, and how many of them become rows
//! - [`queue`]: in which batch an entry is handed on, so that it is counted exactly once

pub mod ledger;
pub mod queue;
pub mod usage;
