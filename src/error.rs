//! What went wrong with a request, and how each dialect says so.
//!
//! Every domain has its own error enum; all of them become a [`Problem`], and this module is the one place where a
//! problem becomes bytes. A problem says what was wrong, where, and what to do. It never carries a provider's
//! credential, nor says whether a key, account or model of somebody else exists.

use serde_json::{Value, json};

/// The wire format an endpoint speaks with its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's Chat Completions and everything that is not another dialect's.
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
    /// The admin API: problem details (RFC 9457).
    Admin,
}

/// The class of a problem. It fixes the status and each dialect's error type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 400: the request is wrong.
    InvalidRequest,
    /// 401: no valid credential.
    Authentication,
    /// 402: the budget is used up.
    PaymentRequired,
    /// 403: not allowed.
    Permission,
    /// 404: no such thing, or not for this caller.
    NotFound,
    /// 405: not with this method.
    MethodNotAllowed,
    /// 409: it contradicts what is there.
    Conflict,
    /// 412: what is there is not what the caller thinks it is.
    PreconditionFailed,
    /// 408: the caller took too long to send the request.
    RequestTimeout,
    /// 413: the request is too large.
    TooLarge,
    /// 429: a limit is reached, the gateway's or the provider's.
    RateLimited,
    /// 500: a fault of the gateway.
    Internal,
    /// 502: the provider answered with something unusable, or not at all.
    Upstream,
    /// 503: the gateway is not ready to serve this.
    Unavailable,
    /// 504: the provider took too long.
    UpstreamTimeout,
}

impl Kind {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Authentication => 401,
            Self::PaymentRequired => 402,
            Self::Permission => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::PreconditionFailed => 412,
            Self::RequestTimeout => 408,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Upstream => 502,
            Self::Unavailable => 503,
            Self::UpstreamTimeout => 504,
        }
    }
}

/// The `type` that OpenAI gives an error with this status.
pub fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "insufficient_quota",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

/// The `type` that Anthropic gives an error with this status.
pub fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

/// An error on its way to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// A stable word that programs can test.
    pub code: String,
    /// A sentence for people: what was wrong and what to do.
    pub message: String,
    /// The field that is at fault, as a path into the request.
    pub param: Option<String>,
    /// Whether sending the same request again can help. SDKs retry 408, 409, 429 and 5xx by themselves unless told
    /// not to (`x-should-retry`).
    pub retryable: Option<bool>,
    /// Seconds after which to ask again: of a provider's refusal in its own words.
    pub retry_after: Option<String>,
    /// The same in milliseconds, where they are known exactly.
    pub retry_after_ms: Option<u64>,
    /// For a 405: the methods that would do.
    pub allow: Option<String>,
    /// Everything that is wrong with a document, where several fields can be at fault at once.
    pub fields: Vec<FieldProblem>,
}

/// One field that is at fault.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct FieldProblem {
    /// Where, such as `providers.openai.base_url`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl Problem {
    /// A problem of a class.
    pub fn new(kind: Kind, code: &str, message: impl Into<String>) -> Self {
        Self {
            status: kind.status(),
            code: code.to_owned(),
            message: message.into(),
            param: None,
            retryable: None,
            retry_after: None,
            retry_after_ms: None,
            allow: None,
            fields: Vec::new(),
        }
    }

    /// A 400 that names the field at fault.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        let mut problem = Self::new(Kind::InvalidRequest, "invalid_value", message);
        problem.param = (!param.is_empty()).then(|| param.to_owned());
        problem
    }

    /// A 400 that names every field at fault; none is at fault if there are none.
    ///
    /// # Errors
    /// The 400.
    pub fn of_fields(fields: Vec<FieldProblem>) -> Result<(), Self> {
        let Some(first) = fields.first() else { return Ok(()) };
        let place = if first.path.is_empty() { String::new() } else { format!("{}: ", first.path) };
        let more = match fields.len() {
            1 => String::new(),
            all => format!(" ({all} problems in all, see `errors`)"),
        };
        let message = format!("{place}{}.{more}", first.message);
        Err(Self { fields, ..Self::new(Kind::InvalidRequest, "invalid_request", message) })
    }

    /// Says that a retry would meet the same answer.
    #[must_use]
    pub fn final_answer(mut self) -> Self {
        self.retryable = Some(false);
        self
    }

    /// Says when the same request can succeed: in so many milliseconds.
    #[must_use]
    pub fn retry_after_ms(mut self, millis: u64) -> Self {
        self.retry_after = Some(millis.div_ceil(1_000).max(1).to_string());
        self.retry_after_ms = Some(millis);
        self
    }

    /// The error as a JSON body in the caller's dialect.
    pub fn body(&self, dialect: Dialect, request_id: &str) -> Value {
        match dialect {
            Dialect::OpenAi => json!({"error": self.openai_error()}),
            Dialect::Anthropic => json!({
                "type": "error",
                "error": {"type": anthropic_type(self.status), "message": self.anthropic_message()},
                "request_id": request_id,
            }),
            Dialect::Admin => json!({
                "type": format!("urn:llm-gateway:problem:{}", self.code),
                "title": title(self.status),
                "status": self.status,
                "detail": self.message,
                "code": self.code,
                "request_id": request_id,
                "errors": self.all_fields(),
            }),
        }
    }

    /// Every field at fault.
    fn all_fields(&self) -> Vec<FieldProblem> {
        match &self.param {
            Some(param) if self.fields.is_empty() => {
                vec![FieldProblem { path: param.clone(), message: self.message.clone() }]
            }
            _ => self.fields.clone(),
        }
    }

    /// The error as a stream's last event in the caller's dialect. What follows it is nothing: neither a finish
    /// reason nor `[DONE]`, so no client takes the reply for complete.
    pub fn stream_event(&self, dialect: Dialect, request_id: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let body = self.body(dialect, request_id).to_string();
        match dialect {
            Dialect::OpenAi | Dialect::Admin => crate::protocol::sse::write_data(&mut out, body.as_bytes()),
            Dialect::Anthropic => crate::protocol::sse::write_event(&mut out, "error", body.as_bytes()),
        }
        out
    }

    /// The API has no codes. Its clients know a prompt that does not fit by how the message begins, and make it shorter.
    fn anthropic_message(&self) -> String {
        const TOO_LONG: &str = "prompt is too long";
        if self.code == "context_length_exceeded" && !self.message.starts_with(TOO_LONG) {
            return format!("{TOO_LONG}: {}", self.message);
        }
        self.message.clone()
    }

    fn openai_error(&self) -> Value {
        json!({
            "message": self.message,
            "type": openai_type(self.status),
            "param": self.param,
            "code": self.code,
        })
    }
}

/// The words of a status (RFC 9110, section 15).
fn title(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_does_not_fit_is_told_in_the_words_that_clients_know() {
        let told = |message: &str| {
            let problem = Problem { code: "context_length_exceeded".into(), ..Problem::invalid("", message) };
            let message = |dialect| problem.body(dialect, "r")["error"]["message"].as_str().map(str::to_owned).unwrap();
            (message(Dialect::Anthropic), message(Dialect::OpenAi))
        };
        assert_eq!(told("9 > 8"), ("prompt is too long: 9 > 8".into(), "9 > 8".into()));
        assert_eq!(told("prompt is too long: 9 > 8").0, "prompt is too long: 9 > 8");
    }

    #[test]
    fn each_dialect_gets_its_own_shape() {
        let problem = Problem::invalid("messages[0].role", "must be `user`");
        assert_eq!(
            problem.body(Dialect::OpenAi, "r"),
            json!({"error": {"message": "must be `user`", "type": "invalid_request_error", "param": "messages[0].role", "code": "invalid_value"}})
        );
        assert_eq!(
            problem.body(Dialect::Anthropic, "r"),
            json!({"type": "error", "error": {"type": "invalid_request_error", "message": "must be `user`"}, "request_id": "r"})
        );
        let details = problem.body(Dialect::Admin, "r");
        assert_eq!(details["errors"], json!([{"path": "messages[0].role", "message": "must be `user`"}]));
        assert_eq!((&details["title"], &details["status"]), (&json!("Bad Request"), &json!(400)));
        let event = String::from_utf8(problem.stream_event(Dialect::Anthropic, "r")).unwrap();
        assert!(event.starts_with("event: error\ndata: {\"type\":\"error\"") && event.ends_with("}\n\n"));
    }
}
