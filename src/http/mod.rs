//! Inbound HTTP: what a request and a reply are, the middleware chain, the route table.

pub mod middleware;
pub mod routes;
#[cfg(target_arch = "wasm32")]
pub mod shell;

use std::rc::Rc;
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::config::Config;
use crate::error::{Dialect, Problem};
use crate::gateway::explain::Explanation;
use crate::gateway::itinerary::ShadowCopy;
use crate::gateway::plan::LoadedConfig;
use crate::gateway::reservation::Slot;
use crate::limits::ask::RuleState;
use crate::providers::auth::Renewal;
use crate::routing::board::Observation;
use crate::routing::headroom::Headroom;
use crate::routing::in_flight::Entry;
use crate::telemetry::RequestRecord;

/// One request and what is known of it on its way through the gateway.
#[derive(Debug)]
pub struct Exchange {
    /// The method.
    pub method: Method,
    /// The path, still percent-encoded.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The wire format that the caller expects errors in.
    pub dialect: Dialect,
    /// Configuration; absent where none has been published yet.
    pub config: Option<Rc<LoadedConfig>>,
    /// Names the request in headers, logs and at the provider.
    pub request_id: String,
    /// Largest body that will be read, in bytes.
    pub max_body_bytes: usize,
    /// The longest that the caller will wait for the next byte, in milliseconds.
    pub caller_patience_ms: Option<u64>,
    /// The most time that the caller gives the whole reply, in milliseconds.
    pub caller_timeout_ms: Option<u64>,
    /// What the log will say.
    pub record: RequestRecord,
    /// What limits have reserved for it.
    pub reservation: Slot,
    /// How it was decided who answers it, if the caller may know and wants to.
    pub explanation: Option<Explanation>,
    /// A copy of it that is to be sent as well.
    pub copy: Option<ShadowCopy>,
    /// A provider's access token that is to be renewed beside it.
    pub renewal: Option<Renewal>,
    /// What is known of the stream that answers it, until it has ended.
    pub begun: Option<Observation>,
    /// Its place among the open requests of the isolate.
    pub in_flight: Option<Entry>,
    /// How the limits that apply to it stood …
    pub limit_states: Vec<RuleState>,
    /// … when it was admitted or refused, in Unix milliseconds.
    pub limits_at: u64,
    /// What the provider that was asked last has said of its own limits, and when, in Unix milliseconds.
    pub providers_limits: (Headroom, u64),
}

impl Exchange {
    /// A request as it comes in. `fresh_id` becomes its id unless the caller brings a sane one.
    pub fn new(
        method: Method,
        path: String,
        headers: HeaderMap,
        config: Option<Rc<LoadedConfig>>,
        fresh_id: String,
    ) -> Self {
        let dialect = routes::dialect(&path, &headers);
        let record = RequestRecord {
            method: method.to_string(),
            path: path.clone(),
            settlement_id: fresh_id.clone(),
            ..RequestRecord::default()
        };
        Self {
            method,
            path,
            headers,
            dialect,
            config,
            request_id: fresh_id,
            max_body_bytes: 0,
            caller_patience_ms: None,
            caller_timeout_ms: None,
            record,
            reservation: Slot::default(),
            explanation: None,
            copy: None,
            renewal: None,
            begun: None,
            in_flight: None,
            limit_states: Vec::new(),
            limits_at: 0,
            providers_limits: (Headroom::default(), 0),
        }
    }

    /// What is configured; the defaults where nothing has been published yet.
    pub fn settings(&self) -> &Config {
        static DEFAULTS: LazyLock<Config> = LazyLock::new(Config::default);
        self.config.as_ref().map_or_else(|| &*DEFAULTS, |loaded| &loaded.config)
    }

    /// Nobody was asked: it is as if it had never been admitted.
    pub fn never_mind(&mut self) {
        if let Some(reservation) = self.reservation.borrow_mut().as_mut() {
            reservation.refused = true;
        }
        (self.record.admitted_by, self.record.reserved) = ("", None);
    }

    /// A header's value as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A reply's body. The stream itself is the shell's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// None.
    Empty,
    /// In memory.
    Bytes(Vec<u8>),
    /// Handed over piece by piece; its log line is written when it ends.
    Stream,
}

/// A reply on its way to the caller.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// What went wrong, while it still has to be rendered in the caller's dialect.
    pub problem: Option<Problem>,
}

impl Reply {
    /// A reply without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: HeaderMap::new(), body: Body::Empty, problem: None }
    }

    /// A reply with a JSON body.
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        let mut reply = Self::empty(status);
        reply.set("content-type", "application/json");
        reply.body = Body::Bytes(value.to_string().into_bytes());
        reply
    }

    /// Sets a header. A value that no header can carry is left out.
    pub fn set(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::try_from(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        Self { problem: Some(problem.clone()), ..Self::empty(problem.status) }
    }
}
