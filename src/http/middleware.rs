//! What happens to every request before it is routed and to every reply before it leaves: [`CHAIN`].

use http::{HeaderMap, HeaderValue, Method, header};

use super::{Body, Exchange, Reply};
use crate::error::{Kind, Problem};

/// The chain. Requests pass it from top to bottom, replies from bottom to top.
pub const CHAIN: &[&dyn Middleware] =
    &[&RequestId, &AccessLog, &Disclosure, &Cors, &BodyLimit, &Deadline, &Compression, &ErrorRendering];

/// One link of the chain.
pub trait Middleware: Sync {
    /// Looks at a request; a reply given here ends its way.
    fn before(&self, _: &mut Exchange) -> Option<Reply> {
        None
    }

    /// Looks at the reply.
    fn after(&self, _: &mut Exchange, _: &mut Reply) {}
}

/// Passes a request through the chain; `Some` is the reply of the link that ended its way.
pub fn before(exchange: &mut Exchange) -> Option<Reply> {
    CHAIN.iter().find_map(|link| link.before(exchange))
}

/// Passes a reply back through the chain.
pub fn after(exchange: &mut Exchange, reply: &mut Reply) {
    for link in CHAIN.iter().rev() {
        link.after(exchange, reply);
    }
}

/// Every request has an id: the caller's `x-request-id` if it is sane, else a fresh UUIDv7.
struct RequestId;

impl Middleware for RequestId {
    fn before(&self, exchange: &mut Exchange) -> Option<Reply> {
        let sane = |id: &&str| {
            (8..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        };
        if let Some(id) = exchange.header("x-request-id").filter(sane) {
            exchange.request_id = id.to_owned();
        }
        exchange.record.request_id.clone_from(&exchange.request_id);
        None
    }

    fn after(&self, exchange: &mut Exchange, reply: &mut Reply) {
        reply.set("x-request-id", &exchange.request_id);
        // Under the name that Anthropic's SDK looks for.
        if exchange.dialect == crate::error::Dialect::Anthropic {
            reply.set("request-id", &exchange.request_id);
        }
    }
}

/// One log line a request. That of a stream is written by its relay, when it has ended.
struct AccessLog;

impl Middleware for AccessLog {
    fn after(&self, exchange: &mut Exchange, reply: &mut Reply) {
        exchange.record.status = reply.status;
        if let Some(config) = &exchange.config {
            exchange.record.config_version.clone_from(&config.version);
        }
        if let Body::Bytes(bytes) = &reply.body {
            exchange.record.bytes_out = bytes.len() as u64;
        }
    }
}

/// Tells the caller what the gateway did for it.
struct Disclosure;

impl Middleware for Disclosure {
    fn after(&self, exchange: &mut Exchange, reply: &mut Reply) {
        if let Some(config) = &exchange.config {
            reply.set("x-gateway-config-version", &config.version);
        }
        let record = &exchange.record;
        if record.provider.is_empty() {
            return;
        }
        reply.set("x-gateway-provider", &record.provider);
        reply.set("x-gateway-model", &record.upstream_model);
        reply.set("x-gateway-attempts", &record.attempts.to_string());
        reply.set("x-gateway-overhead-ms", &record.overhead_ms.to_string());
        if !record.upstream_request_id.is_empty() {
            reply.set("x-gateway-upstream-request-id", &record.upstream_request_id);
        }
        if !record.dropped_params.is_empty() {
            reply.set("x-gateway-dropped-params", &record.dropped_params);
        }
    }
}

/// Cross-origin access by allow-list.
struct Cors;

impl Cors {
    /// The origin to allow, if the caller's is on the list.
    fn allowed(exchange: &Exchange) -> Option<HeaderValue> {
        let origin = exchange.header("origin")?;
        let allowed = &exchange.config.as_ref()?.config.cors.allowed_origins;
        allowed
            .iter()
            .any(|entry| entry == "*" || entry == origin)
            .then(|| HeaderValue::try_from(origin).ok())
            .flatten()
    }
}

impl Middleware for Cors {
    fn before(&self, exchange: &mut Exchange) -> Option<Reply> {
        if exchange.method != Method::OPTIONS {
            return None;
        }
        // Without an allowed origin there are no CORS headers, and the browser refuses by itself.
        let mut reply = Reply::empty(204);
        reply.set("allow", "GET, HEAD, POST, OPTIONS");
        if Self::allowed(exchange).is_some() {
            reply.set("access-control-allow-methods", "GET, HEAD, POST");
            let asked = exchange.headers.get("access-control-request-headers").cloned();
            let fallback = HeaderValue::from_static("authorization, content-type, x-api-key");
            reply.headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(fallback));
            reply.set("access-control-max-age", "7200");
        }
        Some(reply)
    }

    fn after(&self, exchange: &mut Exchange, reply: &mut Reply) {
        if exchange.headers.contains_key(header::ORIGIN) {
            reply.headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = Self::allowed(exchange) {
            reply.headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            reply.set("access-control-expose-headers", "*");
        }
    }
}

/// Refuses a body that is announced too large, and sets the bound for reading one that is not.
struct BodyLimit;

impl Middleware for BodyLimit {
    fn before(&self, exchange: &mut Exchange) -> Option<Reply> {
        let http = exchange.config.as_ref().map(|config| config.config.http.clone()).unwrap_or_default();
        exchange.max_body_bytes = http.max_body_bytes;
        if exchange.header("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
            let mut problem =
                Problem::invalid("content-encoding", "A compressed request body is not supported. Send it as it is.");
            problem.status = 415;
            problem.code = "unsupported_content_encoding".to_owned();
            return Some(problem.into());
        }
        let announced = exchange.header("content-length").and_then(|length| length.parse::<u64>().ok());
        announced.filter(|length| *length > http.max_body_bytes as u64).map(|_| too_large(http.max_body_bytes).into())
    }
}

/// The refusal of a body over the limit.
pub fn too_large(limit: usize) -> Problem {
    let message = format!("The request body is larger than the {limit} bytes that this gateway accepts.");
    Problem::new(Kind::TooLarge, "request_too_large", message).final_answer()
}

/// Learns how long the caller will wait, so that the gateway does not wait longer for a provider.
struct Deadline;

impl Middleware for Deadline {
    fn before(&self, exchange: &mut Exchange) -> Option<Reply> {
        // OpenAI's and Anthropic's SDKs send seconds: Python's under the first name, Node's under the second.
        let seconds = ["x-stainless-read-timeout", "x-stainless-timeout"]
            .iter()
            .find_map(|name| exchange.header(name)?.parse::<f64>().ok())
            .filter(|seconds| seconds.is_finite() && *seconds > 0.0);
        exchange.caller_patience_ms = seconds.map(|seconds| (seconds * 1000.0).min(86_400_000.0) as u64);
        None
    }
}

/// Has JSON and text above a size compressed, by the runtime, if the caller accepts it. Event streams never: a
/// compressor holds pieces back.
struct Compression;

impl Middleware for Compression {
    fn after(&self, exchange: &mut Exchange, reply: &mut Reply) {
        let min = exchange.config.as_ref().map_or(1024, |config| config.config.http.compress_min_bytes);
        let Body::Bytes(bytes) = &reply.body else { return };
        let kind = reply.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let compressible = kind.starts_with("application/json")
            || (kind.starts_with("text/") && !kind.starts_with("text/event-stream"));
        if bytes.len() < min || !compressible || reply.headers.contains_key(header::CONTENT_ENCODING) {
            return;
        }
        reply.headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        if accepts_gzip(&exchange.headers) {
            reply.set("content-encoding", "gzip");
        }
    }
}

/// Reads `accept-encoding` (RFC 9110, section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut verdict = None;
    for coding in lists.flat_map(|list| list.split(',')) {
        let mut parts = coding.split(';');
        let name = parts.next().unwrap_or_default().trim();
        let refused =
            parts.filter_map(|part| part.trim().strip_prefix("q=")).any(|q| q.trim().parse::<f64>() == Ok(0.0));
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => return !refused,
            "*" => verdict = Some(!refused),
            _ => {}
        }
    }
    verdict.unwrap_or(false)
}

/// Turns what went wrong into a body in the caller's dialect.
struct ErrorRendering;

impl Middleware for ErrorRendering {
    fn after(&self, exchange: &mut Exchange, reply: &mut Reply) {
        let Some(problem) = reply.problem.take() else { return };
        exchange.record.error_code.clone_from(&problem.code);
        let rendered = Reply::json(problem.status, &problem.body(exchange.dialect, &exchange.request_id));
        reply.status = rendered.status;
        reply.body = rendered.body;
        reply.headers.extend(rendered.headers);
        if let Some(retryable) = problem.retryable {
            reply.set("x-should-retry", if retryable { "true" } else { "false" });
        }
        if let Some(after) = &problem.retry_after {
            reply.set("retry-after", after);
        }
        if let Some(allow) = &problem.allow {
            reply.set("allow", allow);
        }
        if problem.status == 401 {
            reply.set("www-authenticate", "Bearer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    use crate::gateway::plan::loaded_for_tests;

    fn exchange(method: Method, headers: &[(&'static str, &str)]) -> Exchange {
        let config = Rc::new(loaded_for_tests(serde_json::json!({
            "http": {"max_body_bytes": 2000, "compress_min_bytes": 10},
            "cors": {"allowed_origins": ["https://app.example"]},
        })));
        let headers = headers.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect();
        Exchange::new(method, "/v1/models".into(), headers, Some(config), "fresh-id".into())
    }

    fn pass(exchange: &mut Exchange, handler: Reply) -> Reply {
        let mut reply = before(exchange).unwrap_or(handler);
        after(exchange, &mut reply);
        reply
    }

    fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
        reply.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn a_sane_request_id_is_kept_and_any_other_replaced() {
        for (sent, expected) in
            [("client-id-1", "client-id-1"), ("short", "fresh-id"), ("bad id with spaces", "fresh-id")]
        {
            let reply = pass(&mut exchange(Method::GET, &[("x-request-id", sent)]), Reply::empty(200));
            assert_eq!(header(&reply, "x-request-id"), Some(expected));
            assert_eq!(header(&reply, "x-gateway-config-version"), Some("v1"));
        }
    }

    #[test]
    fn only_listed_origins_are_allowed() {
        let mut good =
            exchange(Method::OPTIONS, &[("origin", "https://app.example"), ("access-control-request-headers", "x-a")]);
        let reply = pass(&mut good, Reply::empty(500));
        assert_eq!(reply.status, 204);
        assert_eq!(header(&reply, "access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(header(&reply, "access-control-allow-headers"), Some("x-a"));
        let reply = pass(&mut exchange(Method::OPTIONS, &[("origin", "https://evil.example")]), Reply::empty(500));
        assert_eq!((reply.status, header(&reply, "access-control-allow-origin")), (204, None));
        assert_eq!(header(&reply, "vary"), Some("origin"));
    }

    #[test]
    fn a_body_announced_too_large_is_refused_unread() {
        let reply = pass(&mut exchange(Method::POST, &[("content-length", "2001")]), Reply::empty(200));
        assert_eq!((reply.status, header(&reply, "x-should-retry")), (413, Some("false")));
        let mut fits = exchange(Method::POST, &[("content-length", "2000")]);
        assert_eq!(pass(&mut fits, Reply::empty(200)).status, 200);
        assert_eq!(fits.max_body_bytes, 2000);
        assert_eq!(pass(&mut exchange(Method::POST, &[("content-encoding", "gzip")]), Reply::empty(200)).status, 415);
    }

    #[test]
    fn json_is_compressed_if_it_is_large_and_the_caller_accepts_it() {
        let json = || Reply::json(200, &serde_json::json!({"a": "long enough to be worth it"}));
        let coding = |accept: &str, reply| {
            let reply = pass(&mut exchange(Method::GET, &[("accept-encoding", accept)]), reply);
            header(&reply, "content-encoding").map(str::to_owned)
        };
        assert_eq!(coding("br, gzip;q=0.5", json()).as_deref(), Some("gzip"));
        assert_eq!(coding("*", json()).as_deref(), Some("gzip"));
        assert_eq!(coding("gzip;q=0, *", json()), None);
        assert_eq!(coding("br", json()), None);
        assert_eq!(coding("gzip", Reply::json(200, &serde_json::json!(1))), None);
        let mut events = json();
        events.set("content-type", "text/event-stream");
        assert_eq!(coding("gzip", events), None);
    }

    #[test]
    fn how_long_the_caller_waits_is_learnt() {
        let patience = |value: &str| {
            let mut exchange = exchange(Method::POST, &[("x-stainless-timeout", value)]);
            before(&mut exchange);
            exchange.caller_patience_ms
        };
        assert_eq!(patience("2.5"), Some(2500));
        assert_eq!(patience("-1"), None);
        assert_eq!(patience("NaN"), None);
        assert_eq!(patience("1e300"), Some(86_400_000));
    }

    #[test]
    fn a_problem_is_rendered_with_what_the_caller_needs() {
        let mut exchange = exchange(Method::GET, &[("anthropic-version", "x")]);
        let reply = pass(&mut exchange, Problem::from(crate::auth::AuthError::Unknown).into());
        assert_eq!((reply.status, header(&reply, "x-should-retry")), (401, Some("false")));
        assert_eq!(header(&reply, "request-id"), Some("fresh-id"));
        let Body::Bytes(body) = reply.body else { panic!("no body") };
        assert!(String::from_utf8(body).unwrap().contains("\"type\":\"authentication_error\""));
        assert_eq!(exchange.record.error_code, "invalid_api_key");
        assert_eq!(exchange.record.status, 401);
    }
}
