//! Errors: numbers, whatever the status (<https://cloud.baidu.com/doc/WENXINWORKSHOP/s/tlmyncueh>).

use serde_json::Value;

use crate::protocol::chat::ReplyFault;
use crate::providers::ReportedError;

/// The access token is not good, or no longer.
pub(super) const TOKEN_REFUSED: &str = "unauthenticated";

/// What the numbers mean: a word that is known everywhere, and the status that others have for it.
const MEANINGS: &[(&str, u16, &[u64])] = &[
    (TOKEN_REFUSED, 401, &[100, 110, 111]),
    ("invalid_api_key", 401, &[6, 13, 14, 15, 336_004]),
    ("insufficient_quota", 402, &[17, 19]),
    ("model_not_found", 404, &[3, 336_005]),
    ("context_length_exceeded", 400, &[336_007, 336_103]),
    ("rate_limit_exceeded", 429, &[18, 336_501, 336_502]),
    ("overloaded_error", 503, &[2, 4, 336_100]),
    ("server_error", 500, &[1, 336_000]),
];

/// The number of an error; `None` if this is none.
pub(super) fn number(body: &Value) -> Option<u64> {
    let code = body.get("error_code")?;
    code.as_u64().or_else(|| code.as_str()?.parse().ok()).filter(|number| *number != 0)
}

/// Reads an error.
pub(super) fn read(body: &Value) -> ReportedError {
    let number = number(body);
    let meaning = MEANINGS.iter().find(|(_, _, numbers)| number.is_some_and(|number| numbers.contains(&number)));
    let (code, status) = match (meaning, number) {
        (Some((code, status, _)), _) => (Some(*code), Some(*status)),
        (None, Some(_)) => (Some("invalid_request_error"), Some(400)),
        (None, None) => (None, None),
    };
    let message = body.get("error_msg").and_then(Value::as_str).filter(|message| !message.is_empty());
    let message = match (message, number) {
        (Some(message), Some(number)) => Some(format!("{message} (error {number})")),
        (message, _) => message.map(str::to_owned),
    };
    ReportedError { message, code: code.map(str::to_owned), status, ..ReportedError::default() }
}

/// The error that a reply is; `None` if it is none.
pub(super) fn fault(body: &Value) -> Option<ReplyFault> {
    number(body)?;
    let error = read(body);
    let message = error.message.unwrap_or_else(|| "the provider reported an error without a message".to_owned());
    Some(ReplyFault::Reported { message, code: error.code })
}
