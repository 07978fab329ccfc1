//! Upstream dialects: one file each, registered in [`outbound`]. All of it is pure: a request goes out as data, a reply
//! comes in as bytes; sending and reading is the shell's business.

pub mod answer_tool;
pub mod anthropic;
pub mod auth;
pub mod bedrock;
pub mod cohere;
pub mod counting;
pub mod custom_tools;
pub mod families;
pub mod functions;
pub mod gemini;
pub mod generic;
pub mod json_edit;
pub mod notes;
pub mod openai;
pub mod outbound;
pub mod preset;
pub mod quirks;
#[cfg(not(target_arch = "wasm32"))]
pub mod reference;
pub mod schema;
pub mod side;
pub mod turns;
pub mod vertex;
pub mod wenxin;
pub mod words;
pub mod workers_ai;

use http::{HeaderMap, Method};
use serde_json::Value;

use crate::config::{Provider, ProviderDialect};
use crate::error::{Kind, Problem};
use crate::protocol::chat::ChatEvent;
use crate::protocol::json_scan::Members;
use crate::protocol::usage::{BillingFacts, Told};
use outbound::Outbound;

pub use crate::protocol::Api;
pub use auth::AuthKind;

/// Where a request goes, and as what.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The provider's configuration.
    pub provider: &'a Provider,
    /// The model's name at the provider.
    pub upstream_model: &'a str,
    /// The most output tokens to ask for where the caller says nothing and the provider insists on a number.
    pub max_output_tokens: u64,
    /// How the model is made to answer with JSON that follows a schema.
    pub structured_output: crate::config::StructuredOutput,
    /// Whether a parameter that the provider does not have is refused rather than left out.
    pub strict_params: bool,
}

/// The caller's request: its bytes, and what the scan found in them.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The body as it came.
    pub body: &'a [u8],
    /// Its top-level members.
    pub members: &'a Members<'a>,
    /// Whether a streamed reply is asked for.
    pub stream: bool,
    /// What marks a response that is kept as the caller's account's, where that can be marked.
    pub mark: Option<&'a str>,
}

/// A request as it will go out, still without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamRequest {
    /// The method.
    pub method: Method,
    /// Path below the provider's base URL, with the query if there is one.
    pub path: String,
    /// Headers that the dialect needs.
    pub headers: Vec<(String, String)>,
    /// The body's content type; `None` if there is no body.
    pub content_type: Option<String>,
    /// The body, or as much of it as is sent before what the caller is still sending.
    pub body: Vec<u8>,
    /// Parameters of the caller's that the provider cannot honour and that were left out.
    pub dropped_params: Vec<String>,
    /// What stands in for what the dialect lacks.
    pub stand_ins: StandIns,
}

/// What a request says in place of what a dialect cannot say; the reply must be read accordingly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StandIns {
    /// Whether the answer comes by the answer tool.
    pub answer_tool: bool,
    /// Functions that stand for tools which take free text.
    pub custom_tools: Vec<String>,
}

impl UpstreamRequest {
    /// A JSON body for this path, with nothing else to it.
    pub fn post(path: impl Into<String>, body: Vec<u8>) -> Self {
        let content_type = Some("application/json".to_owned());
        Self { method: Method::POST, content_type, body, ..Self::get(path) }
    }

    /// A request for this path without a body.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: Vec::new(),
            content_type: None,
            body: Vec::new(),
            dropped_params: Vec::new(),
            stand_ins: StandIns::default(),
        }
    }
}

/// What a provider's error says, in no dialect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportedError {
    /// The provider's words.
    pub message: Option<String>,
    /// Its error code, or the error's type where it has no code.
    pub code: Option<String>,
    /// The field it complains about.
    pub param: Option<String>,
    /// The status that it means, where the reply's own says something else.
    pub status: Option<u16>,
    /// When to ask again, in milliseconds, where the body says so.
    pub retry_after_ms: Option<u64>,
}

/// A provider's dialect.
pub fn outbound(dialect: ProviderDialect) -> &'static dyn Outbound {
    match dialect {
        ProviderDialect::OpenAi => &openai::OpenAi,
        ProviderDialect::Anthropic => &anthropic::Anthropic,
        ProviderDialect::Bedrock => &bedrock::Bedrock,
        ProviderDialect::Cohere => &cohere::Cohere,
        ProviderDialect::Gemini => &gemini::Gemini { host: gemini::Host::GeminiApi },
        ProviderDialect::Vertex => &vertex::Vertex,
        ProviderDialect::Wenxinworkshop => &wenxin::Wenxinworkshop,
        ProviderDialect::WorkersAi => &workers_ai::WorkersAi,
        ProviderDialect::Generic => &generic::Generic,
    }
}

/// Longer than a day nobody is told to wait, in milliseconds.
const LONGEST_WAIT_MS: f64 = 86_400_000.0;

/// A provider's error reply as a problem in no dialect: the status class survives, so that SDKs raise the error class
/// that they would raise at the provider itself.
///
/// A status that speaks of the *gateway's* standing with the provider (401, 402, 403: the provider's credential, not
/// the caller's) becomes a 502, or the caller would look for the fault in its own key. The provider's words then stay
/// in the log: they may name the operator's account.
pub fn upstream_problem(provider: &Provider, status: u16, headers: &HeaderMap, body: &[u8]) -> Problem {
    let body = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let reported = outbound(provider.dialect()).read_error(status, headers, &body, provider);
    let retry_after = headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let status = reported.status.unwrap_or(status);
    if let 401..=403 = status {
        return credential_refused();
    }
    let (status, fallback) = match status {
        400..=599 => (status, None),
        // A redirect is never followed: it could lead to an address that no operator allowed.
        300..=399 => (502, Some("upstream_redirect")),
        _ => (502, Some("upstream_invalid_response")),
    };
    let message = reported.message.unwrap_or_else(|| {
        format!("The provider answered with status {status} and no error message it could be quoted with.")
    });
    let problem = Problem {
        status,
        code: reported
            .code
            .or_else(|| fallback.map(str::to_owned))
            .unwrap_or_else(|| if status >= 500 { "upstream_error" } else { "upstream_rejected" }.to_owned()),
        message,
        param: reported.param,
        retryable: None,
        retry_after,
        retry_after_ms: None,
        allow: None,
        fields: Vec::new(),
    };
    let millis = headers.get("retry-after-ms").and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
    let millis = millis.filter(|millis| (0.0..=LONGEST_WAIT_MS).contains(millis)).map(|millis| millis.ceil() as u64);
    match reported.retry_after_ms.or(millis) {
        Some(millis) if problem.retry_after.is_none() => problem.retry_after_ms(millis),
        _ => problem,
    }
}

/// What the caller is told of a credential of the gateway's that is not accepted.
pub fn credential_refused() -> Problem {
    Problem::new(
        Kind::Upstream,
        "upstream_credential_refused",
        "The provider refused the gateway's credential for this model, or the account behind it. This is not about your \
         API key; the operator of the gateway must renew the provider's credential or its credit.",
    )
    .final_answer()
}

/// The usage that a reply's events report last.
pub fn usage_of(events: &[ChatEvent]) -> Option<Told> {
    let usage = events.iter().rev().find_map(|event| match event {
        ChatEvent::Usage(usage) => Some(*usage),
        _ => None,
    })?;
    let facts = events.iter().rev().find_map(|event| match event {
        ChatEvent::Billed(facts) => Some(*facts),
        _ => None,
    });
    Some(Told { usage, facts: facts.unwrap_or(BillingFacts::default()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_body_tells_is_heeded() {
        let provider =
            serde_json::from_value(serde_json::json!({"dialect": "gemini", "base_url": "https://a.example"}));
        let told = |status, error: Value, headers: &HeaderMap| {
            let body = serde_json::json!({"error": error}).to_string();
            let problem = upstream_problem(provider.as_ref().unwrap(), status, headers, body.as_bytes());
            (problem.status, problem.code, problem.retry_after, problem.retry_after_ms)
        };
        let wait = serde_json::json!({"status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "34.4s"}]});
        let (none, mut seven) = (HeaderMap::new(), HeaderMap::new());
        seven.insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("7"));
        let limited = |after: &str, ms| (429, "rate_limit_exceeded".to_owned(), Some(after.to_owned()), ms);
        assert_eq!(told(429, wait.clone(), &none), limited("35", Some(34_400)));
        assert_eq!(told(429, wait, &seven), limited("7", None));
        let mut millis = HeaderMap::new();
        millis.insert("retry-after-ms", http::HeaderValue::from_static("1500"));
        assert_eq!(told(429, serde_json::json!({"status": "RESOURCE_EXHAUSTED"}), &millis), limited("2", Some(1_500)));
        let key = serde_json::json!({"status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]});
        assert_eq!(told(400, key, &none), (502, "upstream_credential_refused".to_owned(), None, None));
    }
}
