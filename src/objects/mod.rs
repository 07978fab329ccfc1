//! The Durable Objects: what the whole world agrees on.
//!
//! - `AccountLedger`, one per account: the authority on its keys, its standing and its limits; gathers what its requests used
//! - `ProviderGauge`, one per provider or [`pool`] of providers: what is asked of them, all accounts together, and how
//!   they are
//! - `Hub`, one (or a few, all alike) per deployment: the current configuration, the sealed provider credentials, the
//!   public keys of the gateway's own tokens, what operators have set of providers, and the epoch in which caches are valid
//!
//! The objects themselves are shells around pure state machines ([`hub_state`], [`pick`], [`turns`], [`crate::limits`],
//! [`crate::routing`]). [`wire`] is what is said between them and everybody else; `client` is how the control plane tells
//! them, `call` how anybody asks them.

pub mod hub_state;
pub mod pick;
pub mod pool;
pub mod turns;
pub mod wire;

#[cfg(target_arch = "wasm32")]
pub mod call;
#[cfg(target_arch = "wasm32")]
pub mod client;
#[cfg(target_arch = "wasm32")]
mod counting;
#[cfg(target_arch = "wasm32")]
mod flush;
#[cfg(target_arch = "wasm32")]
pub mod gauge;
#[cfg(target_arch = "wasm32")]
pub mod hub;
#[cfg(target_arch = "wasm32")]
mod kept;
#[cfg(target_arch = "wasm32")]
pub mod ledger;
#[cfg(target_arch = "wasm32")]
mod sql;
