//! Starts the built program and checks over real sockets what it answers, how it breaks, and what it notes.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends by panicking"
)]

mod bedrock;
mod connection;
mod dialects;
mod endpoints;
mod everywhere;
mod faults;
mod google;
mod presets;
mod sides;
mod support;
