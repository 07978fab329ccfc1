//! How an attempt failed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Fault {
    Unreachable,
    Reset,
    TooSlow,
    TimedOut,
    Stalled,
    Cut,
    BadReply,
    ServerError,
    Overloaded,
    RateLimited,
    QuotaExhausted,
    Auth,
    ModelNotFound,
    ContextLength,
    ContentPolicy,
    BadRequest,
    ProviderLimit,
    ClientClosed,
    Gateway,
}
