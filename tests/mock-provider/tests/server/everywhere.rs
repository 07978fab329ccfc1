//! What every dialect has to do when it is told to, for those that stream in a way of their own.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{End, Reply, Server};

/// How a dialect is asked, streamed and whole.
struct Dialect {
    name: &'static str,
    headers: &'static str,
    stream: &'static str,
    whole: &'static str,
    /// The request for a text, streamed or not.
    body: fn(&str, bool) -> Value,
    /// What every content event has, and how often it stands elsewhere.
    mark: &'static str,
    more: usize,
}

const DIALECTS: [Dialect; 7] = [
    Dialect {
        name: "gemini",
        headers: "x-goog-api-key: k\r\n",
        stream: "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        whole: "/v1beta/models/gemini-2.5-flash:generateContent",
        body: |text, _| json!({"contents": [{"role": "user", "parts": [{"text": text}]}]}),
        mark: "\"parts\":[{\"text\":\"",
        more: 1,
    },
    Dialect {
        name: "gemini-array",
        headers: "x-goog-api-key: k\r\n",
        stream: "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        whole: "/v1beta/models/gemini-2.5-flash:generateContent",
        body: |text, _| json!({"contents": [{"role": "user", "parts": [{"text": text}]}]}),
        mark: "\"parts\":[{\"text\":\"",
        more: 1,
    },
    Dialect {
        name: "bedrock",
        headers: "authorization: Bearer k\r\n",
        stream: "/model/amazon.nova-pro-v1%3A0/converse-stream",
        whole: "/model/amazon.nova-pro-v1%3A0/converse",
        body: |text, _| json!({"messages": [{"role": "user", "content": [{"text": text}]}]}),
        mark: "\"delta\":{\"text\":\"",
        more: 0,
    },
    Dialect {
        name: "completions",
        headers: "",
        stream: "/v1/completions",
        whole: "/v1/completions",
        body: |text, stream| json!({"model": "mock-small", "prompt": text, "stream": stream}),
        mark: "\"finish_reason\":null",
        more: 0,
    },
    Dialect {
        name: "responses",
        headers: "",
        stream: "/v1/responses",
        whole: "/v1/responses",
        body: |text, stream| json!({"model": "mock-small", "input": text, "stream": stream}),
        mark: "\"type\":\"response.output_text.delta\"",
        more: 0,
    },
    Dialect {
        name: "cohere",
        headers: "",
        stream: "/v2/chat",
        whole: "/v2/chat",
        body: chat,
        mark: "\"type\":\"content-delta\"",
        more: 0,
    },
    Dialect {
        name: "azure",
        headers: "api-key: k\r\n",
        stream: "/openai/deployments/d/chat/completions?api-version=2024-10-21",
        whole: "/openai/deployments/d/chat/completions?api-version=2024-10-21",
        body: chat,
        mark: "\"delta\":{\"content\":",
        more: 0,
    },
];

fn chat(text: &str, stream: bool) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream})
}

impl Dialect {
    fn stream(&self, server: &Server, directives: &str) -> Reply {
        server.post(self.stream, self.headers, &(self.body)(&format!("Hi [[mock chunks=4 {directives}]]"), true))
    }

    fn whole(&self, server: &Server, directives: &str) -> Reply {
        server.post(self.whole, self.headers, &(self.body)(&format!("Hi [[mock {directives}]]"), false))
    }

    fn count(&self, reply: &Reply) -> usize {
        String::from_utf8_lossy(&reply.body).matches(self.mark).count()
    }
}

#[test]
fn the_shape_on_the_wire_changes_no_byte_of_it() {
    let server = Server::start(&[]);
    for dialect in DIALECTS {
        // Ids and the letters that depend on them differ; the length does not.
        let plain = dialect.stream(&server, "");
        for shape in ["split=1", "split=7", "whole=1", "gap_ms=1", "first_chunk_ms=5"] {
            let reply = dialect.stream(&server, shape);
            assert_eq!(reply.body.len(), plain.body.len(), "{} {shape}", dialect.name);
            assert!(reply.complete, "{} {shape}", dialect.name);
        }
        assert!(dialect.stream(&server, "split=1").chunks.iter().all(|chunk| *chunk == 1));
        assert_eq!(dialect.stream(&server, "whole=1").chunks.len(), 1, "{}", dialect.name);
    }
}

#[test]
fn faults_strike_where_they_are_told_to() {
    let server = Server::start(&[]);
    for dialect in DIALECTS {
        assert_eq!(dialect.count(&dialect.stream(&server, "")), 4 + dialect.more, "{}", dialect.name);
        for (fault, complete, end) in [
            ("truncate_at", true, End::Closed),
            ("cut_event_at", true, End::Closed),
            ("close_at", false, End::Closed),
            ("reset_at", false, End::Reset),
        ] {
            for (place, content) in [("start", 0), ("0", 0), ("3", 3), ("99", 4)] {
                let reply = dialect.stream(&server, &format!("{fault}={place}"));
                let seen = (reply.complete, reply.end);
                assert_eq!(seen, (complete, end), "{} {fault}={place}", dialect.name);
                // A cut event may have got as far as its mark.
                let most = content + usize::from(fault == "cut_event_at");
                assert!((content..=most).contains(&dialect.count(&reply)), "{} {fault}={place}", dialect.name);
            }
        }
        let failed = dialect.stream(&server, "error_at=2 error_message=oh%20no");
        assert!(String::from_utf8_lossy(&failed.body).contains("oh no"), "{}", dialect.name);
        assert_eq!((dialect.count(&failed), failed.complete), (2, true), "{}", dialect.name);
        let before = dialect.stream(&server, "reset_at=head");
        assert_eq!((before.status, before.end), (0, End::Reset), "{}", dialect.name);
    }
}

#[test]
fn replies_that_are_not_the_answer_come_in_every_dialect() {
    let server = Server::start(&[]);
    for dialect in DIALECTS {
        for reply in [dialect.whole(&server, "html=1"), dialect.stream(&server, "html=1")] {
            assert!(reply.status == 502 && reply.head.contains("text/html"), "{}", dialect.name);
        }
        assert!(dialect.stream(&server, "empty=1").body.is_empty(), "{}", dialect.name);
        let broken = dialect.stream(&server, "badjson=1");
        assert!(broken.status == 200 && serde_json::from_slice::<Value>(&broken.body).is_err(), "{}", dialect.name);
        for status in [401, 404, 429, 500, 503] {
            let reply = dialect.stream(&server, &format!("status={status} header.retry-after=7"));
            assert_eq!(reply.status, status, "{}", dialect.name);
            assert!(reply.head.contains("retry-after: 7"), "{}", dialect.name);
            assert!(serde_json::from_slice::<Value>(&reply.body).is_ok(), "{}", dialect.name);
        }
        assert!(!dialect.whole(&server, "body_reset=1").complete, "{}", dialect.name);
        assert!(dialect.whole(&server, "nolength=1 split=3").chunks.len() > 10, "{}", dialect.name);
        let start = Instant::now();
        dialect.stream(&server, "ttfb_ms=60");
        assert!(start.elapsed().as_millis() >= 60, "{}", dialect.name);
        let unknown = dialect.whole(&server, "nonsense=1");
        assert!(unknown.status == 400 && unknown.text().contains("nonsense"), "{}", dialect.name);
        let tag = format!("tag={}", dialect.name);
        let failing: Vec<u16> =
            (0..3).map(|_| dialect.whole(&server, &format!("{tag} status=503 fail_times=2")).status).collect();
        assert_eq!(failing, [503, 503, 200], "{}", dialect.name);
    }
}
