//! The data plane: a chat request's way, one file a stage.
//!
//! 1. [`envelope`]: the fields that routing needs, read from the raw bytes
//! 2. `authenticate`: the credential, resolved to a principal; `confirm`: the ledger's word that it is still good
//! 3. [`itinerary`]: who answers, one after the other; [`plan`]: for each the upstream model, the reply's lane
//! 4. `admit`: what [`asking`] asks the account's ledger and the provider's gauge; what they reserve is kept by
//!    [`reservation`]
//! 5. `journey`: one `attempt` after the other until somebody answers; `dispatch`: the upstream request, within the time
//!    that [`patience`] allows; [`mod@fault`]: what went wrong; [`explain`]: why it went where it went
//! 6. [`reply`] and `relay`, by `streams`: the reply to the caller, with [`meter`] reading along; [`mod@count`]: what is only counted
//!    `shadow`: a copy of it to a model that is tried out
//! 7. `settle`: what the request used, its log line, and what it is charged ([`charge`])
//!
//! `stored` is about responses that a provider keeps, for which [`keepers`] are asked.
//!
//! [`limit_headers`] and [`limit_refusal`] say what callers are told of limits, and [`key_report`] what a key learns of itself. [`loaded`] is
//! the configuration that all of it works with; [`simulate`] tells what would become of a request.

pub mod asking;
pub mod charge;
pub mod count;
pub mod envelope;
pub mod estimate;
pub mod explain;
pub mod faithful;
pub mod fault;
pub mod forms;
pub mod held;
pub mod itinerary;
pub mod keepers;
pub mod key_report;
pub mod limit_headers;
pub mod limit_refusal;
pub mod loaded;
pub mod meter;
pub mod patience;
pub mod plan;
pub mod proxy;
pub mod recognise;
pub mod reply;
pub mod reservation;
pub mod simulate;
#[cfg(test)]
mod testing;

#[cfg(target_arch = "wasm32")]
pub mod admit;
#[cfg(target_arch = "wasm32")]
pub mod attempt;
#[cfg(target_arch = "wasm32")]
pub mod authenticate;
#[cfg(target_arch = "wasm32")]
pub mod confirm;
#[cfg(target_arch = "wasm32")]
pub mod credential;
#[cfg(target_arch = "wasm32")]
pub mod dispatch;
#[cfg(target_arch = "wasm32")]
pub mod incoming;
#[cfg(target_arch = "wasm32")]
pub mod journey;
#[cfg(target_arch = "wasm32")]
pub mod passthrough;
#[cfg(target_arch = "wasm32")]
pub mod pipeline;
#[cfg(target_arch = "wasm32")]
pub mod relay;
#[cfg(target_arch = "wasm32")]
pub mod settle;
#[cfg(target_arch = "wasm32")]
pub mod shadow;
#[cfg(target_arch = "wasm32")]
pub mod stored;
#[cfg(target_arch = "wasm32")]
pub mod streams;
#[cfg(target_arch = "wasm32")]
pub mod upload;
