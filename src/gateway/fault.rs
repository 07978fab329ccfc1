//! What went wrong with an attempt, in the words of [`routing`](crate::routing).

use serde_json::Value;

use crate::error::{Kind, Problem};
use crate::protocol::chat::ReplyFault;
use crate::providers::auth::scrub::Scrubber;
use crate::providers::{ReportedError, credential_refused};
use crate::routing::outcome::Fault;

/// The fault of a reply that came to nothing.
pub fn fault_of(fault: &ReplyFault) -> Fault {
    match fault {
        ReplyFault::Truncated | ReplyFault::Broken => Fault::Cut,
        ReplyFault::Stalled { .. } => Fault::Stalled,
        ReplyFault::TooSlow { .. } => Fault::TimedOut,
        // The same request would be answered at the same length by anybody.
        ReplyFault::TooLarge { .. } => Fault::Gateway,
        ReplyFault::Malformed(_) => Fault::BadReply,
        ReplyFault::Reported { message, code } => {
            let of = |status| Fault::of_reply(status, code.as_deref(), code.as_deref(), Some(message));
            let number = code.as_deref().and_then(|code| code.parse::<u32>().ok());
            match of(400) {
                // A provider that has begun to answer had nothing against the request, unless it says so by a word or by a
                // status that is known.
                Fault::BadRequest if number.is_none_or(|number| (400..600).contains(&number)) => of(200),
                Fault::BadRequest => of(500),
                fault => fault,
            }
        }
    }
}

/// A fault without the credential that the provider was asked with.
pub fn scrubbed(fault: ReplyFault, scrubber: &Scrubber) -> ReplyFault {
    match fault {
        ReplyFault::Reported { message, code } => {
            ReplyFault::Reported { message: scrubber.text(message), code: code.map(|code| scrubber.text(code)) }
        }
        ReplyFault::Malformed(message) => ReplyFault::Malformed(scrubber.text(message)),
        fault => fault,
    }
}

/// The fault of an error reply: its status, what the adapter has read of it, and its body.
pub fn fault_of_reply(status: u16, reported: &ReportedError, body: Option<&Value>) -> Fault {
    let kind = body.and_then(|body| {
        ["/error/type", "/error/status", "/type"].iter().find_map(|at| body.pointer(at).and_then(Value::as_str))
    });
    match reported.status.unwrap_or(status) {
        // A redirect is never followed, and nothing below is an answer to a chat.
        ..=199 | 300..=399 => Fault::BadReply,
        status => Fault::of_reply(status, reported.code.as_deref(), kind, reported.message.as_deref()),
    }
}

/// A reply that cannot be passed on as a success, as a problem.
pub fn fault_problem(fault: &ReplyFault) -> Problem {
    let ReplyFault::Reported { code, .. } = fault else {
        let kind = match fault {
            ReplyFault::Stalled { .. } | ReplyFault::TooSlow { .. } => Kind::UpstreamTimeout,
            _ => Kind::Upstream,
        };
        return match fault {
            // The same request would be answered, and billed, at the same length.
            ReplyFault::TooLarge { .. } => Problem::new(kind, fault.code(), fault.to_string()).final_answer(),
            _ => {
                let message = format!("{fault}; the reply is incomplete, send the request again");
                Problem::new(kind, fault.code(), message)
            }
        };
    };
    let kind = match fault_of(fault) {
        Fault::Auth | Fault::QuotaExhausted => return credential_refused(),
        Fault::Overloaded => Kind::Unavailable,
        Fault::RateLimited => Kind::RateLimited,
        Fault::ModelNotFound => Kind::NotFound,
        Fault::TooSlow => Kind::UpstreamTimeout,
        Fault::BadRequest | Fault::ContextLength | Fault::ContentPolicy => match code.as_deref() {
            Some("request_too_large" | "413") => Kind::TooLarge,
            Some("409") => Kind::Conflict,
            _ => Kind::InvalidRequest,
        },
        _ => Kind::Upstream,
    };
    Problem::new(kind, fault.code(), fault.to_string())
}

/// A provider's error with the code by which callers know what they can do something about, whatever the provider calls
/// it. `said` is the provider's own words. What they say of the operator's credential or account is not for the caller.
pub fn recognisable(problem: Problem, fault: Fault, said: Option<&str>) -> Problem {
    let known: &[&str] = match fault {
        Fault::Auth | Fault::QuotaExhausted => return credential_refused(),
        Fault::ContextLength => &["context_length_exceeded"],
        Fault::ContentPolicy => &["content_filter", "content_policy_violation"],
        Fault::ModelNotFound if problem.status == 404 => &["model_not_found"],
        _ => return problem,
    };
    let message = said.map_or_else(|| problem.message.clone(), str::to_owned);
    let code = known.iter().find(|code| problem.code == **code).or(known.first()).map_or("", |code| code);
    // Some have the status of a credential that may not do this, or of a fault of their own.
    let status = if (400..500).contains(&problem.status) { problem.status } else { 400 };
    let retryable = if status == problem.status { problem.retryable } else { None };
    Problem { status, code: code.to_owned(), message, retryable, ..problem }
}

/// An error body in OpenAI's form that goes out as it came, but with the code by which callers know what they can do
/// something about. Providers number it, or name it otherwise.
pub fn coded(body: Vec<u8>, fault: Fault, code: &str) -> Vec<u8> {
    if !matches!(fault, Fault::ContextLength | Fault::ContentPolicy) {
        return body;
    }
    let Ok(mut json) = serde_json::from_slice::<Value>(&body) else { return body };
    match json.get_mut("error").and_then(Value::as_object_mut) {
        Some(error) if error.get("code").is_none_or(|own| own != code) => {
            error.insert("code".to_owned(), code.into());
            json.to_string().into_bytes()
        }
        _ => body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use serde_json::json;

    #[test]
    fn a_provider_that_reports_a_fault_in_its_reply_is_believed() {
        let reported = |code: &str| ReplyFault::Reported { message: "no".into(), code: Some(code.into()) };
        assert_eq!(fault_of(&reported("overloaded_error")), Fault::Overloaded);
        assert_eq!(fault_of(&reported("rate_limit_error")), Fault::RateLimited);
        assert_eq!(fault_of(&reported("content_filter")), Fault::ContentPolicy);
        assert_eq!(fault_of(&reported("invalid_request_error")), Fault::BadRequest);
        assert_eq!(fault_of(&reported("anything")), Fault::ServerError);
        assert_eq!(fault_of(&ReplyFault::TooLarge { max: 1 }), Fault::Gateway);
    }

    #[test]
    fn an_error_reply_is_judged_by_all_that_it_says() {
        let of = |status, body: Value| fault_of_reply(status, &ReportedError::default(), Some(&body));
        assert_eq!(of(429, json!({"error": {"type": "insufficient_quota"}})), Fault::QuotaExhausted);
        assert_eq!(of(429, json!({"error": {"type": "requests"}})), Fault::RateLimited);
        assert_eq!(of(302, json!({})), Fault::BadReply);
        let means = ReportedError { status: Some(403), ..ReportedError::default() };
        assert_eq!(fault_of_reply(400, &means, None), Fault::Auth);
        assert_eq!(fault_of_reply(529, &ReportedError::default(), None), Fault::Overloaded);
    }

    #[test]
    fn what_callers_can_mend_has_a_code_that_they_know() {
        let told = |kind, code: &str, fault| {
            let problem = recognisable(Problem::new(kind, code, "m"), fault, Some("said"));
            (problem.status, problem.code, problem.message)
        };
        let made = |status, code: &str, message: &str| (status, code.to_owned(), message.to_owned());
        let too_long = told(Kind::InvalidRequest, "invalid_request_error", Fault::ContextLength);
        assert_eq!(too_long, made(400, "context_length_exceeded", "said"));
        let moderated = told(Kind::Upstream, "upstream_credential_refused", Fault::ContentPolicy);
        assert_eq!(moderated, made(400, "content_filter", "said"));
        let policy = told(Kind::InvalidRequest, "content_policy_violation", Fault::ContentPolicy);
        assert_eq!(policy.1, "content_policy_violation");
        assert_eq!(told(Kind::TooLarge, "x", Fault::ContextLength).0, 413);
        assert_eq!(told(Kind::NotFound, "not_found", Fault::ModelNotFound).1, "model_not_found");
        for fault in [Fault::Auth, Fault::QuotaExhausted] {
            let (status, code, message) = told(Kind::RateLimited, "insufficient_quota", fault);
            assert_eq!((status, code.as_str()), (502, "upstream_credential_refused"));
            assert!(!message.contains("said"));
        }
    }

    #[test]
    fn a_body_that_goes_out_as_it_came_has_the_code_that_callers_know() {
        let told = |body: Value, fault| {
            let body = coded(body.to_string().into_bytes(), fault, "context_length_exceeded");
            serde_json::from_slice::<Value>(&body).unwrap()
        };
        let numbered = json!({"error": {"code": "1261", "message": "m"}});
        let named = json!({"error": {"code": "context_length_exceeded", "message": "m"}});
        assert_eq!(told(numbered.clone(), Fault::ContextLength), named);
        assert_eq!(told(json!({"error": {"message": "m"}}), Fault::ContextLength), named);
        assert_eq!(told(numbered.clone(), Fault::BadRequest), numbered);
        assert_eq!(coded(b"{ \"error\" : 1}".to_vec(), Fault::ContextLength, "c"), b"{ \"error\" : 1}");
    }

    #[test]
    fn a_fault_keeps_its_class_and_says_whether_to_try_again() {
        let told = |fault: ReplyFault| {
            let problem = fault_problem(&fault);
            (problem.status, problem.retryable)
        };
        let reported = |code: &str| ReplyFault::Reported { message: "m".into(), code: Some(code.into()) };
        assert_eq!(told(ReplyFault::Stalled { millis: 1 }), (504, None));
        assert_eq!(told(ReplyFault::Truncated), (502, None));
        assert_eq!(told(ReplyFault::TooLarge { max: 1 }), (502, Some(false)));
        assert_eq!(told(reported("overloaded_error")), (503, None));
        assert_eq!(told(reported("rate_limit_exceeded")), (429, None));
        assert_eq!(told(reported("content_filter")), (400, None));
        assert_eq!(told(reported("model_not_found")), (404, None));
        assert_eq!(told(reported("timeout_error")), (504, None));
        assert_eq!(told(reported("DEADLINE_EXCEEDED")), (504, None));
        assert_eq!(told(reported("modelTimeoutException")), (504, None));
        assert_eq!(told(reported("INVALID_ARGUMENT")), (400, None));
        assert_eq!(told(reported("not_found_error")), (404, None));
        assert_eq!(told(reported("request_too_large")), (413, None));
        assert_eq!(told(reported("409")), (409, None));
        assert_eq!(told(reported("422")), (400, None));
        assert_eq!(told(reported("throttlingException")), (429, None));
        assert_eq!(told(reported("engine_overloaded_error")), (503, None));
        assert_eq!(told(reported("billing_error")), (502, Some(false)));
        assert_eq!(told(reported("PERMISSION_DENIED")), (502, Some(false)));
        assert_eq!(told(reported("4711")), (502, None));
        // What the provider says of the operator's account is not for the caller.
        assert_eq!(told(reported("insufficient_quota")), (502, Some(false)));
        let secret = ReplyFault::Reported { message: "org-1".into(), code: Some("invalid_api_key".into()) };
        assert!(!fault_problem(&secret).message.contains("org-1"));
        assert_eq!(told(reported("anything")), (502, None));
    }
}
