//! How the providers tell errors.

use serde_json::{Value, json};

use crate::openai;
use crate::reply::ApiError;

/// How a provider tells errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errors {
    /// `{"error": {"message", "type", "param", "code"}}`
    OpenAi,
    /// `{"object": "error", "message", "type", "param", "code"}`; the message may be a list of what is wrong.
    Mistral,
    /// `{"error": {"message", "type"}}`
    Moonshot,
    /// `{"code", "error": "text"}`
    Xai,
    /// `{"error": {"code": 400, "message", "metadata"}}`
    OpenRouter,
    /// `{"error": {"message", "type", "code": 400}}`
    Perplexity,
    /// `{"error": {"code": "1210", "message"}}`
    Zhipu,
    /// OpenAI's, with words of its own as codes and `request_id`.
    DashScope,
    /// `{"error": {"code", "message", "type"}, "id"}`
    Qianfan,
    /// `{"message", "type", "param", "code"}`
    Cerebras,
    /// `{"object": "error", "message", "type", "param", "code": 400}`
    Vllm,
    /// `{"error": "text"}`
    LmStudio,
    /// `{"errors": [{"code", "message"}], "success": false, …}`
    WorkersAi,
}

impl Errors {
    /// An error in this provider's words.
    pub(super) fn body(self, error: &ApiError) -> Value {
        let message = error.message.as_str();
        let kind = || {
            json!(error.kind.as_deref().unwrap_or(match error.status {
                401 => "authentication_error",
                403 => "permission_error",
                404 => "not_found_error",
                429 => "rate_limit_error",
                500.. => "server_error",
                _ => "invalid_request_error",
            }))
        };
        let code = error.code.as_deref();
        match self {
            Self::OpenAi => serde_json::from_str(&openai::error_body(error)).unwrap_or(Value::Null),
            Self::Mistral => {
                // A list of what is wrong is no text.
                let message = match message.starts_with(r#"{"detail""#) {
                    true => serde_json::from_str(message).unwrap_or(Value::Null),
                    false => json!(message),
                };
                json!({"object": "error", "message": message, "type": kind(), "param": null, "code": code})
            }
            Self::Moonshot => {
                let kind = match error.status {
                    401 => json!("invalid_authentication_error"),
                    429 if error.kind.is_none() => json!("rate_limit_reached_error"),
                    503 if error.kind.is_none() => json!("engine_overloaded_error"),
                    _ => kind(),
                };
                json!({"error": {"message": message, "type": kind}})
            }
            Self::Xai => {
                let code = code.unwrap_or(match error.status {
                    400 => "Client specified an invalid argument",
                    404 => "The requested resource was not found",
                    429 => "Some resource has been exhausted",
                    500.. => "The service is currently unavailable",
                    _ => "The caller does not have permission to execute the specified operation",
                });
                json!({"code": code, "error": message})
            }
            Self::OpenRouter => json!({"error": {"code": error.status, "message": message}, "user_id": "user_mock"}),
            Self::Perplexity => {
                json!({"error": {"message": message, "type": code.unwrap_or("invalid_message"), "code": error.status}})
            }
            Self::Zhipu => {
                let code = code.unwrap_or(match error.status {
                    401 => "1000",
                    402 => "1113",
                    404 => "1211",
                    429 => "1302",
                    500.. => "1234",
                    _ => "1210",
                });
                json!({"error": {"code": code, "message": message}})
            }
            Self::DashScope => {
                let code = code.unwrap_or(match error.status {
                    401 => "invalid_api_key",
                    404 => "model_not_found",
                    429 => "limit_requests",
                    500.. => "internal_error",
                    _ => "invalid_parameter_error",
                });
                json!({
                    "error": {"message": message, "type": kind(), "param": error.param, "code": code},
                    "request_id": "mock0mock-0000-0000-0000-000000000000",
                })
            }
            Self::Qianfan => {
                let code = code.unwrap_or(match error.status {
                    401 => "invalid_iam_token",
                    403 => "access_denied",
                    404 => "invalid_model",
                    429 => "rpm_rate_limit_exceeded",
                    500.. => "internal_error",
                    _ => "invalid_argument",
                });
                json!({"error": {"code": code, "message": message, "type": kind()}, "id": "as-mock"})
            }
            Self::Cerebras => {
                let code = code.unwrap_or("wrong_api_format");
                json!({"message": message, "type": kind(), "param": error.param, "code": code})
            }
            Self::Vllm => {
                let kind = match error.status {
                    404 => "NotFoundError",
                    500.. => "InternalServerError",
                    _ => "BadRequestError",
                };
                json!({
                    "object": "error", "message": message, "type": kind, "param": error.param, "code": error.status,
                })
            }
            Self::LmStudio => json!({"error": message}),
            Self::WorkersAi => {
                let number = code.and_then(|code| code.parse::<u32>().ok()).unwrap_or(match error.status {
                    401 | 403 => 10000,
                    404 => 3042,
                    413 => 3006,
                    429 => 3036,
                    500.. => 3040,
                    _ => 5004,
                });
                json!({
                    "errors": [{"message": message, "code": number}], "success": false, "result": {}, "messages": [],
                })
            }
        }
    }
}
