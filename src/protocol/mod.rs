//! Wire formats: what stands on the wire, as data, and the codecs for it. Nothing here knows of Workers.

mod api;
pub mod chat;
pub mod cost_tag;
pub mod event_stream;
pub mod frames;
pub mod inbound;
pub mod json_scan;
pub mod multipart;
pub mod responses;
pub mod sound;
pub mod sse;
pub mod usage;

pub use api::{Api, Apis};
