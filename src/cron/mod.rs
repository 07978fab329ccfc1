//! What is done every minute. Each job stands alone: one that fails, hangs or panics does not keep the others from running.

pub mod retention;

#[cfg(target_arch = "wasm32")]
pub mod jobs;
#[cfg(target_arch = "wasm32")]
mod probes;
