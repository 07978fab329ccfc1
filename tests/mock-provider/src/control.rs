//! The control plane under `/_mock/`: what tests read and reset. Its own requests are not journaled.

use crate::directives::percent_decode;
use crate::http::Request;
use crate::reply::Reply;
use crate::server::App;
use crate::tokens;

/// Entries that a journal request gets without `limit`.
const DEFAULT_LIMIT: usize = 1000;

pub fn handle(app: &App, request: &Request<'_>) -> Reply {
    let read = matches!(request.method, "GET" | "HEAD");
    match request.path {
        "/_mock/health" if read => Reply::json(200, r#"{"status":"ok"}"#),
        "/_mock/journal" if read => journal(app, request.query),
        "/_mock/stats" if read => Reply::json(200, app.journal.stats().to_string()),
        "/_mock/service-account" if read => Reply::json(200, tokens::service_account()),
        "/_mock/reset" if request.method == "POST" => {
            app.reset();
            Reply::json(200, r#"{"status":"reset"}"#)
        }
        "/_mock/health" | "/_mock/journal" | "/_mock/stats" | "/_mock/service-account" => {
            problem(405, "use GET").header("allow", "GET")
        }
        "/_mock/reset" => problem(405, "use POST").header("allow", "POST"),
        _ => problem(404, "no such control: there are health, journal, stats, service-account and reset"),
    }
}

fn journal(app: &App, query: &str) -> Reply {
    let (mut tag, mut since, mut limit) = (None, None, DEFAULT_LIMIT);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode(&value.replace('+', " "));
        match (key, value.parse::<u64>()) {
            ("tag", _) => tag = Some(value),
            ("since", Ok(seq)) => since = Some(seq),
            ("limit", Ok(most)) => limit = usize::try_from(most).unwrap_or(usize::MAX),
            ("since" | "limit", Err(_)) => {
                return problem(400, "since and limit take whole numbers");
            }
            _ => return problem(400, "the journal takes tag, since and limit"),
        }
    }
    let entries = app.journal.read(tag.as_deref(), since, limit);
    match serde_json::to_vec(&entries) {
        Ok(body) => Reply::json(200, body),
        Err(error) => problem(500, &error.to_string()),
    }
}

fn problem(status: u16, message: &str) -> Reply {
    Reply::json(status, serde_json::json!({"error": message}).to_string())
}
