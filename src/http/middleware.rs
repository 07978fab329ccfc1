//! What happens to every request before it is routed and to every reply before it leaves: [`CHAIN`].

use http::{HeaderMap, HeaderValue, Method, header};

use super::{Body, Exchange, Reply, routes};
use crate::error::{Dialect, Kind, Problem};
use crate::gateway::{limit_headers, proxy};
use crate::telemetry::logged_address;

/// The chain. Requests pass it from top to bottom, replies from bottom to top.
pub const CHAIN: &[&dyn Middleware] = &[
    &CorsExposure,
    &RequestId,
    &AccessLog,
    &Disclosure,
    &Security,
    &Cors,
    &BodyLimit,
    &Deadline,
    &Compression,
    &ErrorRendering,
];

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

/// Every request has an id: the caller's `x-request-id` if it is sane and may count, else a fresh UUIDv7.
struct RequestId;

impl Middleware for RequestId {
    fn before(&self, exchange: &mut Exchange) -> Option<Reply> {
        let sane = |id: &&str| {
            (8..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        };
        let accepted = exchange.settings().http.accept_request_id;
        if let Some(id) = exchange.header("x-request-id").filter(sane).filter(|_| accepted) {
            exchange.request_id = id.to_owned();
        }
        exchange.record.request_id.clone_from(&exchange.request_id);
        None
    }

    fn after(&self, exchange: &mut Exchange, reply: &mut Reply) {
        reply.set("x-request-id", &exchange.request_id);
        // Under the name that Anthropic's SDK looks for.
        if exchange.dialect == Dialect::Anthropic {
            reply.set("request-id", &exchange.request_id);
        }
    }
}

/// One log line a request. That of a stream is written by its relay, when it has ended.
struct AccessLog;

/// How much of the caller's `user-agent` is logged, in bytes.
const USER_AGENT_BYTES: usize = 256;

impl Middleware for AccessLog {
    fn before(&self, exchange: &mut Exchange) -> Option<Reply> {
        let logging = &exchange.settings().logging;
        let address = exchange.header("cf-connecting-ip").and_then(|text| text.parse().ok());
        let client_ip = address.map(|address| logged_address(address, logging.client_ip)).unwrap_or_default();
        let agent = exchange.header("user-agent").filter(|_| logging.user_agent).unwrap_or_default();
        let user_agent = agent.chars().take(USER_AGENT_BYTES).collect();
        let policy = logging.into();
        exchange.record.client_ip = client_ip;
        exchange.record.user_agent = user_agent;
        exchange.record.policy = policy;
        None
    }

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
        let disclose = exchange.settings().limits.disclose;
        let (states, dialect) = (&exchange.limit_states, exchange.dialect);
        let ours = limit_headers::headers(states, disclose, dialect, exchange.limits_at);
        let (left, at) = &exchange.providers_limits;
        let theirs = limit_headers::of_provider(left, states, disclose, dialect, *at);
        for (name, value) in ours.into_iter().chain(theirs) {
            reply.set(name, &value);
        }
        let record = &exchange.record;
        // This is about the caller's own request, not about who answered it.
        if !record.dropped_params.is_empty() {
            reply.set("x-gateway-dropped-params", &record.dropped_params);
        }
        if record.unpriced {
            reply.set("x-gateway-unpriced", "true");
        }
        if let Some(explanation) = &exchange.explanation {
            reply.set("x-gateway-explain", &explanation.header(&record.tried));
        }
        if record.provider.is_empty() || !exchange.settings().http.disclose {
            return;
        }
        reply.set("x-gateway-provider", &record.provider);
        reply.set("x-gateway-model", &record.upstream_model);
        reply.set("x-gateway-attempts", &record.attempts.to_string());
        reply.set("x-gateway-overhead-ms", &record.overhead_ms.to_string());
        if !record.upstream_request_id.is_empty() {
            reply.set("x-gateway-upstream-request-id", &record.upstream_request_id);
        }
    }
}

/// What browsers shall and shall not do with a reply. The data plane's replies are no pages.
struct Security;

impl Middleware for Security {
    fn after(&self, exchange: &mut Exchange, reply: &mut Reply) {
        let http = &exchange.settings().http;
        if http.hsts_seconds > 0 {
            reply.set("strict-transport-security", &format!("max-age={}", http.hsts_seconds));
        }
        if !http.security_headers || exchange.path.starts_with("/v1/") {
            return;
        }
        let headers =
            [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("x-frame-options", "DENY")];
        for (name, value) in headers {
            if !reply.headers.contains_key(name) {
                reply.set(name, value);
            }
        }
    }
}

/// Cross-origin access by allow-list.
struct Cors;

impl Cors {
    /// The origin to allow, if the caller's is on the list.
    fn allowed(exchange: &Exchange) -> Option<HeaderValue> {
        let origin = exchange.header("origin")?;
        let allowed = &exchange.settings().cors.allowed_origins;
        allowed
            .iter()
            .any(|entry| entry == "*" || entry == origin)
            .then(|| HeaderValue::try_from(origin).ok())
            .flatten()
    }

    /// The request headers that a page may send.
    fn request_headers(exchange: &Exchange) -> HeaderValue {
        let allowed = &exchange.settings().cors.allowed_headers;
        let asked = exchange.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        match allowed.as_slice() {
            [] => asked,
            allowed => HeaderValue::try_from(allowed.join(", ")).ok(),
        }
        .unwrap_or(HeaderValue::from_static("authorization, content-type, x-api-key"))
    }
}

impl Middleware for Cors {
    fn before(&self, exchange: &mut Exchange) -> Option<Reply> {
        if exchange.method != Method::OPTIONS {
            return None;
        }
        // Without an allowed origin there are no CORS headers, and the browser refuses by itself.
        let mut reply = Reply::empty(204);
        reply.set("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        if Self::allowed(exchange).is_some() {
            reply.set("access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE");
            reply.headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, Self::request_headers(exchange));
            reply.set("access-control-max-age", &exchange.settings().cors.max_age_seconds.to_string());
        }
        Some(reply)
    }

    fn after(&self, exchange: &mut Exchange, reply: &mut Reply) {
        if exchange.headers.contains_key(header::ORIGIN) {
            reply.headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = Self::allowed(exchange) {
            if exchange.settings().cors.allow_credentials {
                reply.set("access-control-allow-credentials", "true");
            }
            reply.headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
    }
}

/// Lets pages of allowed origins read a reply's headers, once all of them are there.
struct CorsExposure;

impl Middleware for CorsExposure {
    fn after(&self, exchange: &mut Exchange, reply: &mut Reply) {
        if Cors::allowed(exchange).is_none() {
            return;
        }
        let cors = &exchange.settings().cors;
        let exposed = if cors.allow_credentials && cors.exposed_headers.iter().any(|name| name == "*") {
            // With credentials a browser takes `*` for a header of that name.
            let mut names: Vec<&str> = reply.headers.keys().map(http::HeaderName::as_str).collect();
            names.sort_unstable();
            names.join(", ")
        } else {
            cors.exposed_headers.join(", ")
        };
        if !exposed.is_empty() {
            reply.set("access-control-expose-headers", &exposed);
        }
    }
}

/// Refuses a body that is announced too large, and sets the bound for reading one that is not.
struct BodyLimit;

impl Middleware for BodyLimit {
    fn before(&self, exchange: &mut Exchange) -> Option<Reply> {
        let http = &exchange.settings().http;
        let is_form = routes::takes_forms(&exchange.path) && exchange.header("content-type").is_some_and(is_form);
        let passes = is_form || exchange.path.starts_with(proxy::PREFIX);
        let max_body_bytes = if passes { http.max_multipart_bytes } else { http.max_body_bytes };
        exchange.max_body_bytes = max_body_bytes;
        if exchange.header("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
            let mut problem =
                Problem::invalid("content-encoding", "A compressed request body is not supported. Send it as it is.");
            problem.status = 415;
            problem.code = "unsupported_content_encoding".to_owned();
            return Some(problem.into());
        }
        let announced = exchange.header("content-length").and_then(|length| length.parse::<u64>().ok());
        announced.filter(|length| *length > max_body_bytes as u64).map(|_| too_large(max_body_bytes).into())
    }
}

/// Whether a content type is that of a form.
pub(crate) fn is_form(content_type: &str) -> bool {
    content_type.trim_start().get(..19).is_some_and(|it| it.eq_ignore_ascii_case("multipart/form-data"))
}

/// The refusal of a body over the limit.
pub fn too_large(limit: usize) -> Problem {
    let message = format!("The request body is larger than the {limit} bytes that this gateway accepts.");
    Problem::new(Kind::TooLarge, "request_too_large", message).final_answer()
}

/// Learns how long the caller will wait and how much time it gives, so that the gateway does not wait longer for a
/// provider.
struct Deadline;

impl Middleware for Deadline {
    fn before(&self, exchange: &mut Exchange) -> Option<Reply> {
        // OpenAI's and Anthropic's SDKs send seconds: Python's under the first name, Node's under the second.
        let seconds = ["x-stainless-read-timeout", "x-stainless-timeout"]
            .iter()
            .find_map(|name| exchange.header(name)?.parse::<f64>().ok())
            .filter(|seconds| seconds.is_finite() && *seconds > 0.0);
        exchange.caller_patience_ms = seconds.map(|seconds| (seconds * 1000.0).min(86_400_000.0) as u64);
        if !exchange.settings().http.allow_timeout_header {
            return None;
        }
        let timeout = exchange.header("x-gateway-timeout-ms").map(|text| text.trim().parse::<u64>());
        match timeout {
            None => None,
            Some(Ok(millis)) if millis > 0 => {
                exchange.caller_timeout_ms = Some(millis);
                None
            }
            Some(_) => {
                let message = "x-gateway-timeout-ms: must be a whole number of milliseconds, 1 or more.";
                Some(Problem::invalid("x-gateway-timeout-ms", message).into())
            }
        }
    }
}

/// Has JSON and text above a size compressed, by the runtime, if the caller accepts it. Event streams never: a
/// compressor holds pieces back.
struct Compression;

impl Middleware for Compression {
    fn after(&self, exchange: &mut Exchange, reply: &mut Reply) {
        let min = exchange.settings().http.compress_min_bytes;
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
        if exchange.dialect == Dialect::Admin {
            reply.set("content-type", "application/problem+json");
            reply.set("cache-control", "no-store");
        }
        if let Some(retryable) = problem.retryable {
            reply.set("x-should-retry", if retryable { "true" } else { "false" });
        }
        if let Some(after) = &problem.retry_after {
            reply.set("retry-after", after);
        }
        if let Some(millis) = problem.retry_after_ms {
            reply.set("retry-after-ms", &millis.to_string());
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

    use crate::gateway::loaded::loaded_for_tests;

    fn exchange(method: Method, headers: &[(&'static str, &str)]) -> Exchange {
        let config = serde_json::json!({
            "http": {"max_body_bytes": 2000, "compress_min_bytes": 10},
            "cors": {"allowed_origins": ["https://app.example"]},
        });
        configured(config, method, headers)
    }

    fn configured(config: serde_json::Value, method: Method, headers: &[(&'static str, &str)]) -> Exchange {
        let config = Rc::new(loaded_for_tests(config));
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

    #[test]
    fn the_callers_request_id_can_be_refused() {
        let config = serde_json::json!({"http": {"accept_request_id": false}});
        let mut exchange = configured(config, Method::GET, &[("x-request-id", "client-id-1")]);
        assert_eq!(header(&pass(&mut exchange, Reply::empty(200)), "x-request-id"), Some("fresh-id"));
    }

    #[test]
    fn who_answered_can_be_kept_to_oneself() {
        let told = |disclose: bool| {
            let mut exchange = configured(serde_json::json!({"http": {"disclose": disclose}}), Method::POST, &[]);
            exchange.record.provider = "p".into();
            exchange.record.dropped_params = "x".into();
            let reply = pass(&mut exchange, Reply::empty(200));
            assert_eq!(header(&reply, "x-gateway-dropped-params"), Some("x"));
            header(&reply, "x-gateway-provider").is_some()
        };
        assert_eq!((told(true), told(false)), (true, false));
    }

    #[test]
    fn browsers_are_told_what_not_to_do_with_replies_that_are_no_models() {
        let told = |config: serde_json::Value, path: &str| {
            let mut exchange = configured(config, Method::GET, &[]);
            exchange.path = path.into();
            let reply = pass(&mut exchange, Reply::empty(200));
            let hsts = header(&reply, "strict-transport-security").map(str::to_owned);
            (header(&reply, "x-content-type-options").is_some() && header(&reply, "x-frame-options").is_some(), hsts)
        };
        assert_eq!(told(serde_json::json!({}), "/health"), (true, None));
        assert_eq!(told(serde_json::json!({}), "/v1/models"), (false, None));
        assert_eq!(told(serde_json::json!({"http": {"security_headers": false}}), "/health"), (false, None));
        let hsts = told(serde_json::json!({"http": {"hsts_seconds": 60}}), "/v1/models").1;
        assert_eq!(hsts.as_deref(), Some("max-age=60"));
    }

    #[test]
    fn what_pages_may_send_and_read_is_configured() {
        let config = serde_json::json!({"cors": {
            "allowed_origins": ["https://app.example"], "allowed_headers": ["x-one", "x-two"],
            "exposed_headers": ["x-request-id"], "max_age_seconds": 5, "allow_credentials": true,
        }});
        let headers = [("origin", "https://app.example"), ("access-control-request-headers", "x-other")];
        let reply = pass(&mut configured(config, Method::OPTIONS, &headers), Reply::empty(500));
        assert_eq!(header(&reply, "access-control-allow-headers"), Some("x-one, x-two"));
        assert_eq!(header(&reply, "access-control-expose-headers"), Some("x-request-id"));
        assert_eq!(header(&reply, "access-control-max-age"), Some("5"));
        assert_eq!(header(&reply, "access-control-allow-credentials"), Some("true"));
        let config =
            serde_json::json!({"cors": {"allowed_origins": ["https://app.example"], "allow_credentials": true}});
        let reply = pass(&mut configured(config, Method::GET, &headers), Reply::json(200, &serde_json::json!(1)));
        let exposed = header(&reply, "access-control-expose-headers").unwrap();
        assert!(exposed.contains("x-request-id") && !exposed.contains('*'), "{exposed}");
    }

    #[test]
    fn a_caller_may_give_less_time() {
        let asked = |allowed: bool, value: &str| {
            let config = serde_json::json!({"http": {"allow_timeout_header": allowed}});
            let mut exchange = configured(config, Method::POST, &[("x-gateway-timeout-ms", value)]);
            let status = pass(&mut exchange, Reply::empty(200)).status;
            (status, exchange.caller_timeout_ms)
        };
        assert_eq!(asked(true, "250"), (200, Some(250)));
        assert_eq!(asked(false, "250"), (200, None));
        assert_eq!(asked(true, "0"), (400, None));
        assert_eq!(asked(true, "soon"), (400, None));
    }

    #[test]
    fn the_log_learns_of_the_caller_what_it_may() {
        let logged = |client_ip: &str, user_agent: bool| {
            let config = serde_json::json!({"logging": {"client_ip": client_ip, "user_agent": user_agent}});
            let headers = [("cf-connecting-ip", "192.0.2.77"), ("user-agent", "sdk/1")];
            let mut exchange = configured(config, Method::GET, &headers);
            before(&mut exchange);
            (exchange.record.client_ip, exchange.record.user_agent)
        };
        assert_eq!(logged("none", false), (String::new(), String::new()));
        assert_eq!(logged("truncated", true), ("192.0.2.0/24".into(), "sdk/1".into()));
        assert_eq!(logged("full", false), ("192.0.2.77".into(), String::new()));
    }
}
