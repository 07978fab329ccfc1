//! What an operation answers with.

use serde::Serialize;
use serde_json::Value;

use crate::error::{Kind, Problem};
use crate::http::{Body, Reply};

/// An answer on its way to the caller.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content: Content,
    /// The revision of what is answered with.
    pub(super) etag: Option<String>,
    /// Whether the change has yet to reach objects and KV.
    pub(super) pending: bool,
    /// Whether this answer was given before, to the same idempotency key.
    pub(super) replayed: bool,
}

/// An answer's body.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Json(Value),
    Csv(String),
    Empty,
}

impl Answer {
    fn new(status: u16, content: Content) -> Self {
        Self { status, content, etag: None, pending: false, replayed: false }
    }

    /// JSON with a status.
    ///
    /// # Errors
    /// 500 if the value cannot be JSON.
    pub(super) fn json<T: Serialize>(status: u16, value: &T) -> Result<Self, Problem> {
        let value = serde_json::to_value(value).map_err(|error| internal(&error.to_string()))?;
        Ok(Self::new(status, Content::Json(value)))
    }

    /// What was asked for.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub(super) fn ok<T: Serialize>(value: &T) -> Result<Self, Problem> {
        Self::json(200, value)
    }

    /// Comma-separated values.
    pub(super) fn csv(text: String) -> Self {
        Self::new(200, Content::Csv(text))
    }

    /// That it is done.
    pub(super) fn done() -> Self {
        Self::new(204, Content::Empty)
    }

    /// With the ETag of a revision.
    #[must_use]
    pub(super) fn revision(self, revision: u64) -> Self {
        self.etag(&revision.to_string())
    }

    /// With an ETag.
    #[must_use]
    pub(super) fn etag(mut self, tag: &str) -> Self {
        self.etag = Some(format!("\"{tag}\""));
        self
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        let mut reply = match answer.content {
            Content::Json(value) => Self::json(answer.status, &value),
            Content::Csv(text) => {
                let mut reply = Self::empty(answer.status);
                reply.set("content-type", "text/csv; charset=utf-8");
                reply.set("content-disposition", "attachment; filename=\"usage.csv\"");
                reply.body = Body::Bytes(text.into_bytes());
                reply
            }
            Content::Empty => Self::empty(answer.status),
        };
        if let Some(etag) = &answer.etag {
            reply.set("etag", etag);
        }
        if answer.pending {
            reply.set("x-gateway-propagation", "pending");
        }
        if answer.replayed {
            reply.set("idempotency-replayed", "true");
        }
        reply
    }
}

/// A fault of the gateway's own; the detail goes to the log.
pub(super) fn internal(detail: &str) -> Problem {
    tracing::error!(target: "admin", message = "an operation failed", detail);
    Problem::new(
        Kind::Internal,
        "internal_error",
        "The gateway failed on this request. It has been logged under the request id.",
    )
}

/// 404 for something by its kind.
pub(super) fn not_found(kind: &str, id: &str) -> Problem {
    Problem::new(Kind::NotFound, "not_found", format!("There is no {kind} `{id}`, or you may not see it."))
}

/// 409.
pub(super) fn conflict(code: &str, message: impl Into<String>) -> Problem {
    Problem::new(Kind::Conflict, code, message).final_answer()
}
