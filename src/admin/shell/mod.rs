//! The part of the control plane that acts: reads and writes D1, calls objects, KV and providers.

mod accounts;
mod alerts;
mod answer;
mod audits;
mod authenticate;
mod configuration;
mod context;
mod credentials;
mod database;
mod drafts;
mod effects;
mod entries;
mod grants;
mod health;
mod keys;
mod limits;
mod me;
mod members;
mod metadata;
pub mod outbox;
mod page;
mod probes;
mod requests;
mod roles;
mod serve;
mod sessions;
mod sign_in;
mod signing_keys;
mod simulations;
mod tokens;
mod turn;
mod usage;
mod users;
mod versions;
mod write;

pub use serve::serve;
