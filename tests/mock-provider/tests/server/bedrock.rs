//! Bedrock over the wire: signatures and the binary stream.

use base64::Engine as _;
use hmac::Mac as _;
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::support::{End, Reply, Server};

const BEARER: &str = "authorization: Bearer k\r\n";
const CLAUDE: &str = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0";

fn body(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": [{"text": text}]}]})
}

fn stream(server: &Server, text: &str) -> Reply {
    server.post(&format!("{CLAUDE}/converse-stream"), BEARER, &body(text))
}

/// The messages of a stream, by name, up to the first that is not whole.
fn messages(reply: &Reply) -> Vec<(String, Value)> {
    let mut bytes = reply.body.as_slice();
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap()) as usize;
    let mut messages = Vec::new();
    while bytes.len() >= 16 && bytes.len() >= number(&bytes[..4]) {
        let (total, headers) = (number(&bytes[..4]), number(&bytes[4..8]));
        let mut rest = &bytes[12..12 + headers];
        let mut name = String::new();
        while let Some((&length, after)) = rest.split_first() {
            let (key, after) = after.split_at(usize::from(length));
            let (value, after) = after[3..].split_at(usize::from(u16::from_be_bytes([after[1], after[2]])));
            if [&b":event-type"[..], b":exception-type", b":error-code"].contains(&key) {
                name = String::from_utf8(value.to_vec()).unwrap();
            }
            rest = after;
        }
        let payload = serde_json::from_slice(&bytes[12 + headers..total - 4]).unwrap_or(Value::Null);
        messages.push((name, payload));
        bytes = &bytes[total..];
    }
    messages
}

fn names(reply: &Reply) -> Vec<String> {
    messages(reply).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_stream_says_what_the_whole_reply_says() {
    let server = Server::start(&[]);
    let text = "Hello [[mock chunks=4 reasoning=3 cached=7 cache_write=5 cache_write_1h=2]]";
    let whole = server.post(&format!("{CLAUDE}/converse"), BEARER, &body(text)).json();
    let reply = stream(&server, &text.replace("]]", " split=5]]"));
    assert!(reply.head.contains("content-type: application/vnd.amazon.eventstream"));
    let messages = messages(&reply);
    let told = |pointer: &str| -> String {
        messages.iter().filter_map(|(_, payload)| payload.pointer(pointer)?.as_str()).collect()
    };
    let content = &whole["output"]["message"]["content"];
    assert_eq!(content[0]["reasoningContent"]["reasoningText"]["text"], told("/delta/reasoningContent/text"));
    assert_eq!(content[0]["reasoningContent"]["reasoningText"]["signature"], told("/delta/reasoningContent/signature"));
    assert_eq!(content[1]["text"], told("/delta/text"));
    assert_eq!(told("/stopReason"), "end_turn");
    let metadata = &messages.last().unwrap().1;
    assert_eq!(metadata["usage"], whole["usage"]);
    assert_eq!(whole["usage"]["cacheWriteInputTokens"], 7);
    let sum = ["inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"];
    let sum: u64 = sum.iter().map(|name| whole["usage"][name].as_u64().unwrap()).sum();
    assert_eq!(whole["usage"]["totalTokens"], sum);
    assert_eq!(
        names(&stream(&server, "[[mock chunks=1]]")),
        ["messageStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"]
    );
}

#[test]
fn faults_break_the_binary_stream() {
    let server = Server::start(&[]);
    for (directive, complete, end) in [
        ("truncate_at=2", true, End::Closed),
        ("cut_event_at=2", true, End::Closed),
        ("close_at=2", false, End::Closed),
        ("reset_at=2", false, End::Reset),
    ] {
        let reply = stream(&server, &format!("[[mock chunks=5 tag={directive} {directive}]]"));
        assert_eq!((reply.complete, reply.end), (complete, end), "{directive}");
        assert_eq!(names(&reply), ["messageStart", "contentBlockDelta", "contentBlockDelta"], "{directive}");
    }
    let last = |text: &str| names(&stream(&server, text)).pop().unwrap();
    assert_eq!(last("[[mock exception_at=1 error_type=throttlingException]]"), "throttlingException");
    assert_eq!(last("[[mock exception_at=1]]"), "modelStreamErrorException");
    assert_eq!(last("[[mock error_at=1]]"), "InternalServerException");
    assert_eq!(last("[[mock no_usage=1]]"), "messageStop");
    assert!(!names(&stream(&server, "[[mock no_done=1]]")).contains(&"messageStop".to_owned()));
    assert_eq!(names(&stream(&server, "[[mock no_start=1 chunks=1]]"))[0], "contentBlockDelta");
    let usages = names(&stream(&server, "[[mock two_usage=1]]"));
    assert_eq!(usages.iter().filter(|name| *name == "metadata").count(), 2);
    stream(&server, "[[mock badcrc=1 tag=crc]]");
    assert_eq!(server.entry("crc", |entry| entry["outcome"] == "fault")["status"], 200);
}

#[test]
fn calls_are_made_one_after_the_other_or_woven() {
    let server = Server::start(&[]);
    let ask = |directives: &str| {
        let mut body = body(&format!("Go [[mock tools=2 {directives}]]"));
        let tool = |name: &str| {
            json!({"toolSpec": {"name": name, "inputSchema": {"json": {
                "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}})
        };
        body["toolConfig"] = json!({"tools": [tool("a"), tool("b")], "toolChoice": {"any": {}}});
        messages(&server.post(&format!("{CLAUDE}/converse-stream"), BEARER, &body))
    };
    let order = |messages: &[(String, Value)]| -> Vec<u64> {
        let deltas = messages.iter().filter(|(name, _)| name == "contentBlockDelta");
        deltas.map(|(_, payload)| payload["contentBlockIndex"].as_u64().unwrap()).collect()
    };
    let plain = ask("");
    assert!(order(&plain).is_sorted());
    let woven = ask("interleave=1");
    assert_eq!(&order(&woven)[..4], [0, 1, 0, 1]);
    for messages in [plain, woven] {
        for index in 0..2 {
            let input: String = messages
                .iter()
                .filter(|(_, payload)| payload["contentBlockIndex"] == index)
                .filter_map(|(_, payload)| payload.pointer("/delta/toolUse/input")?.as_str())
                .collect();
            assert!(serde_json::from_str::<Value>(&input).unwrap()["city"].is_string());
        }
        assert!(messages.iter().any(|(_, payload)| payload["stopReason"] == "tool_use"));
    }
}

#[test]
fn what_is_withheld_or_malformed_says_so() {
    let server = Server::start(&[]);
    let post = |text: &str| server.post(&format!("{CLAUDE}/converse"), BEARER, &body(text));
    assert_eq!(post("[[mock block=1]]").json()["stopReason"], "guardrail_intervened");
    assert_eq!(post("[[mock malformed_call=1]]").json()["stopReason"], "malformed_tool_use");
    let cited = post("[[mock citations=2]]").json();
    let block = &cited["output"]["message"]["content"][0]["citationsContent"];
    assert_eq!(block["citations"].as_array().unwrap().len(), 2);
    let limited = post("[[mock status=429]]");
    assert!(limited.head.contains("x-amzn-errortype: throttlingexception:"));
    assert!(limited.json()["message"].is_string());
    let other = post("[[mock status=400 error_type=ServiceQuotaExceededException]]");
    assert!(other.head.contains("x-amzn-errortype: servicequotaexceededexception:"));
}

#[test]
fn other_requests_than_conversations_are_answered() {
    let server = Server::start(&[]);
    let count = "/model/anthropic.claude-sonnet-4-20250514-v1%3A0/count-tokens";
    let reply = server.post(count, BEARER, &json!({"input": {"converse": body("12345678")}}));
    assert_eq!(reply.json()["inputTokens"], 6);
    let titan = server.post("/model/amazon.titan-embed-text-v2%3A0/invoke", BEARER, &json!({"inputText": "12345678"}));
    assert!(titan.head.contains("x-amzn-bedrock-input-token-count: 2"));
    assert_eq!(titan.json()["embedding"].as_array().unwrap().len(), 64);
    let claude = json!({
        "anthropic_version": "bedrock-2023-05-31", "max_tokens": 99,
        "messages": [{"role": "user", "content": "Hi [[mock chunks=3]]"}],
    });
    let whole = server.post(&format!("{CLAUDE}/invoke"), BEARER, &claude).json();
    let reply = server.post(&format!("{CLAUDE}/invoke-with-response-stream"), BEARER, &claude);
    let events: Vec<Value> = messages(&reply)
        .iter()
        .map(|(name, payload)| {
            assert_eq!(name, "chunk");
            let bytes = payload["bytes"].as_str().unwrap();
            serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(bytes).unwrap()).unwrap()
        })
        .collect();
    let text: String = events.iter().filter_map(|event| event.pointer("/delta/text")?.as_str()).collect();
    assert_eq!(whole["content"][0]["text"], text);
    assert_eq!(events.last().unwrap()["type"], "message_stop");
    let mut wrong = claude;
    wrong["stream"] = json!(true);
    assert!(server.post(&format!("{CLAUDE}/invoke"), BEARER, &wrong).text().contains("extraneous key [stream]"));
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn signatures_are_recomputed_and_noted() {
    let server = Server::start(&[]);
    let path = format!("{CLAUDE}/converse");
    let ask = |tag: &str, secret: &str, time: &str| {
        let body = body(&format!("Hi [[mock tag={tag}]]")).to_string();
        let (date, _) = time.split_at(8);
        let hash = |text: &str| hex(&sha2::Sha256::digest(text.as_bytes()));
        let canonical = format!(
            "POST\n{}\n\nhost:mock\nx-amz-date:{time}\n\nhost;x-amz-date\n{}",
            path.replace('%', "%25"),
            hash(&body)
        );
        let scope = format!("{date}/eu-west-1/bedrock/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hash(&canonical));
        let mut key = sign(format!("AWS4{secret}").as_bytes(), date);
        for part in ["eu-west-1", "bedrock", "aws4_request"] {
            key = sign(&key, part);
        }
        let header = format!(
            "x-amz-date: {time}\r\nauthorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, \
             SignedHeaders=host;x-amz-date, Signature={}\r\n",
            hex(&sign(&key, &text))
        );
        let reply = Reply::read(server.open(&path, &header, &body));
        (reply.status, reply.head, server.entry(tag, |_| true)["credential"].as_str().unwrap().to_owned())
    };
    let time =
        String::from_utf8(std::process::Command::new("date").args(["-u", "+%Y%m%dT%H%M%SZ"]).output().unwrap().stdout)
            .unwrap();
    let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    let (status, _, noted) = ask("good", secret, time.trim());
    assert_eq!((status, noted.as_str()), (200, "signature good"));
    let (status, head, noted) = ask("bad", "another", time.trim());
    assert_eq!(status, 403);
    assert!(head.contains("x-amzn-errortype: invalidsignatureexception:"));
    assert!(noted.starts_with("signature refused: The request signature we calculated"));
    let (status, _, noted) = ask("old", secret, "20200101T000000Z");
    assert_eq!(status, 403);
    assert!(noted.contains("Signature expired"));
    let unsigned = server.post(&path, "", &body("Hi"));
    assert!(unsigned.head.contains("x-amzn-errortype: missingauthenticationtokenexception:"));
}
