//! Sections `logging`, `records` and `retention`: what leaves a trace, and for how long.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::section;

section! {
    /// The log: one line a request.
    pub struct Logging {
        /// The least level that is written. Left out: the deployment's `LOG_LEVEL`, or `info`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub level: Option<LogLevel> = None;
        /// Whether requests that went well are logged. Those that failed always are.
        pub log_successes: bool = true;
        /// How many per cent of the requests that went well are logged; chosen by an id of the gateway's own, so that
        /// callers cannot choose.
        pub sample_percent: u64 = 100, in 0 ..= 100;
        /// How much of the caller's address is logged.
        pub client_ip: ClientIp = ClientIp::None;
        /// Whether the caller's `user-agent` is logged (its first 256 bytes).
        pub user_agent: bool = false;
        /// A request that takes longer than this, in milliseconds, is logged as a warning whatever it came to. 0 turns
        /// this off.
        pub slow_ms: u64 = 0, in 0 ..= 3_600_000;
    }
}

/// A level of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What the gateway itself failed at.
    Error,
    /// What failed on the gateway's or a provider's side.
    Warn,
    /// Every request.
    Info,
    /// More than is needed in operation.
    Debug,
    /// Everything.
    Trace,
}

/// How much of a caller's address is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientIp {
    /// Nothing.
    #[default]
    None,
    /// Its network: the first 24 bits of an IPv4 address, 48 of an IPv6 address.
    Truncated,
    /// All of it.
    Full,
}

section! {
    /// Request records: one row a request in the database, for search in the admin API.
    pub struct Records {
        /// Which requests are kept.
        pub mode: RecordsMode = RecordsMode::All;
        /// How many per cent of the requests that went well are kept where `mode` is `sampled`.
        pub sample_percent: u64 = 10, in 0 ..= 100;
        /// How long records are collected before they are written, in milliseconds.
        pub flush_ms: u64 = 5_000, in 100 ..= 300_000;
        /// Whether the caller's `x-gateway-metadata` header (a JSON object of up to 2 KiB) is kept with the record.
        pub metadata: bool = true;
    }
}

/// Which requests are kept as records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordsMode {
    /// None.
    Off,
    /// Those that failed.
    Errors,
    /// Those that failed, and a sample of the others.
    Sampled,
    /// All.
    #[default]
    All,
}

section! {
    /// How long the database keeps what it collects, in days.
    pub struct Retention {
        /// Request records.
        pub request_records_days: u64 = 30, in 1 ..= 3_660;
        /// Usage by the minute.
        pub usage_days: u64 = 400, in 1 ..= 3_660;
        /// Results of health probes.
        pub health_history_days: u64 = 30, in 1 ..= 3_660;
        /// Alerts and their delivery.
        pub alert_history_days: u64 = 90, in 1 ..= 3_660;
        /// Sessions that have ended.
        pub sessions_days: u64 = 30, in 1 ..= 3_660;
    }
}
