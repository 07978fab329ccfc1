//! What went wrong with an attempt, in the words of [`routing`](crate::routing).

use serde_json::Value;

use crate::error::Problem;
use crate::protocol::chat::ReplyFault;
use crate::providers::ReportedError;
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
            let code = code.as_deref();
            let of = |status| Fault::of_reply(status, code, code, Some(message));
            match of(400) {
                // A provider that has begun to answer had nothing against the request, unless it says so.
                Fault::BadRequest if !matches!(code, Some("invalid_request_error" | "400")) => of(500),
                fault => fault,
            }
        }
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

/// A provider's error with the code by which callers know what they can do something about, whatever the provider calls
/// it. `said` is the provider's own words.
pub fn recognisable(problem: Problem, fault: Fault, said: Option<&str>) -> Problem {
    let known: &[&str] = match fault {
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
        let refused = told(Kind::Upstream, "upstream_credential_refused", Fault::Auth);
        assert_eq!(refused, made(502, "upstream_credential_refused", "m"));
    }
}
