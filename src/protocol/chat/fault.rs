//! Why a reply is no success.

use serde_json::Value;

/// Why a reply of an upstream cannot be passed on as a success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyFault {
    /// It ended before it was complete.
    #[error("the provider's reply ended before it was complete")]
    Truncated,
    /// No byte came for too long.
    #[error("the provider sent nothing for {millis} ms")]
    Stalled {
        /// The bound, in milliseconds.
        millis: u64,
    },
    /// It took longer than allowed.
    #[error("the provider's reply took longer than the {millis} ms allowed")]
    TooSlow {
        /// The bound, in milliseconds.
        millis: u64,
    },
    /// It is larger than the gateway takes.
    #[error("the provider's reply is larger than the {max} bytes that this gateway takes; ask for less")]
    TooLarge {
        /// The bound, in bytes.
        max: usize,
    },
    /// The connection broke.
    #[error("the connection to the provider broke")]
    Broken,
    /// It is not what the dialect says a reply looks like.
    #[error("the provider's reply could not be understood: {0}")]
    Malformed(String),
    /// The provider itself reported an error in the middle of its reply.
    #[error("{message}")]
    Reported {
        /// The provider's words.
        message: String,
        /// The provider's error type or code, where it gave one.
        code: Option<String>,
    },
}

impl ReplyFault {
    /// The provider ended a choice with a word that means failure, see [`FinishReason::is_failure`](super::FinishReason::is_failure).
    pub fn failed_finish(word: &str) -> Self {
        let message = format!("the provider broke its reply off with the finish reason `{word}`");
        Self::Reported { message, code: Some(word.to_owned()) }
    }

    /// Reads an error object, in the members that nearly all providers use.
    pub fn reported(error: &Value) -> Self {
        let message = error
            .get("message")
            .and_then(Value::as_str)
            .or_else(|| error.as_str())
            .unwrap_or("the provider reported an error without a message");
        let code = ["code", "type"].iter().find_map(|field| match error.get(field)? {
            Value::String(code) if !code.is_empty() => Some(code.clone()),
            Value::Number(code) => Some(code.to_string()),
            _ => None,
        });
        Self::Reported { message: message.to_owned(), code }
    }

    /// Reads the data of an event that is an error as a whole, with or without an `error` member.
    pub fn reported_event(data: &[u8]) -> Self {
        let data = serde_json::from_slice(data).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(data)));
        Self::reported(data.get("error").filter(|error| !error.is_null()).unwrap_or(&data))
    }

    /// A stable word for logs and the error's `code`.
    pub fn code(&self) -> &str {
        match self {
            Self::Truncated => "upstream_truncated",
            Self::Stalled { .. } => "upstream_stalled",
            Self::TooSlow { .. } => "upstream_timeout",
            Self::TooLarge { .. } => "upstream_reply_too_large",
            Self::Broken => "upstream_connection_broken",
            Self::Malformed(_) => "upstream_invalid_response",
            Self::Reported { code, .. } => code.as_deref().unwrap_or("upstream_error"),
        }
    }
}
