//! Looks at providers without anybody's request: what is sent, what its answer means, and what follows.
//!
//! - [`question`]: what is sent
//! - [`judge`]: what a status means
//! - [`streak`]: when a probe is due, and from how many results something follows
//! - `send`: sends it

pub mod judge;
pub mod question;
pub mod streak;

#[cfg(target_arch = "wasm32")]
pub mod send;
