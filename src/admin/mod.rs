//! The control plane's API under `/admin/v1`.
//!
//! [`operations`] is the table of everything that can be called; [`types`] what is taken and given; the modules of the
//! shell do it. D1 is the truth. A write is one D1 batch (guards, changes, audit entry, outbox), so it happens as a whole
//! or not at all; what has to reach objects and KV is in the outbox until it has.

pub mod audit;
pub mod cursor;
pub mod draft;
pub mod filters;
pub mod ids;
pub mod issuers;
#[cfg(not(target_arch = "wasm32"))]
pub mod openapi;
pub mod operations;
pub mod router;
pub mod schema;
#[cfg(target_arch = "wasm32")]
pub mod shell;
pub mod simulation;
pub mod statement;
pub mod types;
pub mod unpriced;
pub mod usage;
