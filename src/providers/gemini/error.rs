//! Errors, as Google's APIs tell them (<https://cloud.google.com/apis/design/errors>).

use serde_json::Value;

use crate::protocol::chat::ReplyFault;
use crate::providers::ReportedError;

/// Reads an error, which Vertex may put into a list.
pub(super) fn read(body: &Value) -> ReportedError {
    let body = body.as_array().and_then(|list| list.iter().find(|item| item.get("error").is_some())).unwrap_or(body);
    let error = body.get("error").unwrap_or(body);
    let text = |name: &str| error.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let message = text("message").or_else(|| error.as_str());
    let details = || error.get("details").and_then(Value::as_array).into_iter().flatten();
    let (code, status) = meaning(text("status").unwrap_or_default(), message.unwrap_or_default(), &details);
    let number = error.get("code").and_then(Value::as_u64);
    ReportedError {
        message: message.map(str::to_owned),
        code: code.or_else(|| number.map(|number| number.to_string())),
        param: None,
        status,
        retry_after_ms: details().find_map(|detail| millis(detail.get("retryDelay")?.as_str()?)),
    }
}

/// An error within a reply.
pub(super) fn fault(body: &Value) -> ReplyFault {
    let error = read(body);
    let message = error.message.unwrap_or_else(|| "the provider broke its reply off with an error".to_owned());
    ReplyFault::Reported { message, code: error.code }
}

/// A word that is known everywhere, where there is one, and the status where it says too little: a wrong key is a 400.
fn meaning<'d, D: Iterator<Item = &'d Value>>(
    word: &str,
    message: &str,
    details: &impl Fn() -> D,
) -> (Option<String>, Option<u16>) {
    let reason = |reason: &str| details().any(|detail| detail.get("reason").is_some_and(|it| it == reason));
    let a_day = || {
        let violations = details().filter_map(|detail| detail.get("violations")?.as_array()).flatten();
        let mut quotas = violations.filter_map(|violation| violation.get("quotaId")?.as_str());
        quotas.any(|quota| quota.contains("PerDay"))
    };
    let lower = message.to_ascii_lowercase();
    let (code, status) = match word {
        _ if reason("API_KEY_INVALID") => ("invalid_api_key", Some(401)),
        "FAILED_PRECONDITION" if lower.contains("location is not supported") => ("permission_denied", Some(403)),
        "INVALID_ARGUMENT" if lower.contains("exceeds the maximum number of tokens") => {
            ("context_length_exceeded", None)
        }
        "NOT_FOUND" if lower.starts_with("models/") || lower.starts_with("publisher model") => {
            ("model_not_found", None)
        }
        "RESOURCE_EXHAUSTED" if a_day() => ("insufficient_quota", None),
        "RESOURCE_EXHAUSTED" => ("rate_limit_exceeded", None),
        "UNAVAILABLE" => ("overloaded_error", None),
        "" => return (None, None),
        other => return (Some(other.to_ascii_lowercase()), None),
    };
    (Some(code.to_owned()), status)
}

/// A duration such as `34.4s`, in whole milliseconds.
fn millis(duration: &str) -> Option<u64> {
    let (seconds, fraction) = duration.strip_suffix('s').map(|text| text.split_once('.').unwrap_or((text, "")))?;
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    let millis = seconds.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(thousandths.parse().ok()?)?;
    let is_more = fraction.chars().skip(3).any(|digit| digit != '0');
    Some(millis.saturating_add(u64::from(is_more)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn error(code: u16, status: &str, message: &str, details: Value) -> Value {
        json!({"error": {"code": code, "status": status, "message": message, "details": details}})
    }

    #[test]
    fn words_and_details_tell_what_the_status_does_not() {
        let key = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]);
        let quota = |id: &str| json!([{"@type": "google.rpc.QuotaFailure", "violations": [{"quotaId": id}]}]);
        let too_long = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).";
        let none = json!([]);
        for (body, code, status) in [
            (error(400, "INVALID_ARGUMENT", "API key not valid.", key), "invalid_api_key", Some(401)),
            (error(400, "INVALID_ARGUMENT", too_long, none.clone()), "context_length_exceeded", None),
            (error(400, "INVALID_ARGUMENT", "Unknown name", none.clone()), "invalid_argument", None),
            (
                error(400, "FAILED_PRECONDITION", "User location is not supported for the API use.", none.clone()),
                "permission_denied",
                Some(403),
            ),
            (
                error(404, "NOT_FOUND", "models/x is not found for API version v1beta", none.clone()),
                "model_not_found",
                None,
            ),
            (error(404, "NOT_FOUND", "Publisher Model `x` was not found", none.clone()), "model_not_found", None),
            (error(404, "NOT_FOUND", "The file was not found", none.clone()), "not_found", None),
            (
                error(429, "RESOURCE_EXHAUSTED", "Quota", quota("RequestsPerMinute-FreeTier")),
                "rate_limit_exceeded",
                None,
            ),
            (error(429, "RESOURCE_EXHAUSTED", "Quota", quota("RequestsPerDayPerProject")), "insufficient_quota", None),
            (error(503, "UNAVAILABLE", "The model is overloaded.", none.clone()), "overloaded_error", None),
            (error(500, "INTERNAL", "An internal error", none), "internal", None),
            (json!({"error": {"code": 502, "message": "m"}}), "502", None),
        ] {
            let read = read(&body);
            assert_eq!((read.code.as_deref(), read.status), (Some(code), status), "{body}");
            assert!(read.message.is_some());
            let listed = super::read(&json!([body]));
            assert_eq!(listed, read, "a list");
        }
        for odd in [json!(null), json!([]), json!("x"), json!({"error": []}), json!({"error": {"details": 1}})] {
            assert_eq!(read(&odd).code, None);
        }
    }

    #[test]
    fn the_time_to_wait_stands_in_the_body() {
        let wait = |delay: &str| {
            let details = json!([{"@type": "google.rpc.Help"}, {"@type": "google.rpc.RetryInfo", "retryDelay": delay}]);
            read(&error(429, "RESOURCE_EXHAUSTED", "m", details)).retry_after_ms
        };
        assert_eq!(wait("37s"), Some(37_000));
        assert_eq!(wait("34.4s"), Some(34_400));
        assert_eq!(wait("34.074824224s"), Some(34_075));
        assert_eq!(wait("0s"), Some(0));
        for odd in ["", "s", "soon", "-1s", "99999999999999999999s", "1.xs"] {
            assert_eq!(wait(odd), None, "{odd}");
        }
    }
}
