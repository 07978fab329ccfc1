//! The Durable Objects: what the whole world agrees on.
//!
//! - `AccountLedger`, one per account: the authority on its keys and its standing; gathers what its requests used
//! - `Hub`, one (or a few, all alike) per deployment: the current configuration, the sealed provider credentials, the
//!   public keys of the gateway's own tokens, and the epoch in which caches are valid
//!
//! The objects themselves are shells around pure state machines ([`hub_state`], [`crate::limits`]). [`wire`] is what is
//! said between them and everybody else; `client` is how the control plane tells them, `call` how anybody asks them.

pub mod hub_state;
pub mod wire;

#[cfg(target_arch = "wasm32")]
pub mod call;
#[cfg(target_arch = "wasm32")]
pub mod client;
#[cfg(target_arch = "wasm32")]
pub mod hub;
#[cfg(target_arch = "wasm32")]
pub mod ledger;
#[cfg(target_arch = "wasm32")]
mod sql;
