//! Gemini and Vertex AI over the wire.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rsa::pkcs8::DecodePrivateKey as _;
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::support::{End, Reply, Server};

const KEY: &str = "x-goog-api-key: k\r\n";
const MODEL: &str = "/v1beta/models/gemini-3-flash-preview";

fn body(text: &str) -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": text}]}]})
}

fn stream(server: &Server, text: &str) -> Reply {
    server.post(&format!("{MODEL}:streamGenerateContent?alt=sse"), KEY, &body(text))
}

fn said(chunks: &[Value]) -> String {
    chunks.iter().filter_map(|chunk| chunk.pointer("/candidates/0/content/parts/0/text")?.as_str()).collect()
}

#[test]
fn a_stream_says_what_the_whole_reply_says() {
    let server = Server::start(&[]);
    let whole = server.post(&format!("{MODEL}:generateContent"), KEY, &body("Hello [[mock chunks=5]]")).json();
    let chunks = stream(&server, "Hello [[mock chunks=5 split=3 crlf=1]]").text().replace("\r\n", "\n");
    let chunks: Vec<Value> = chunks
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let text = said(&chunks);
    assert_eq!(text.split(' ').count(), 5);
    assert_eq!(whole["candidates"][0]["content"]["parts"][0]["text"], text.as_str());
    let last = chunks.last().unwrap();
    assert_eq!(last["candidates"][0]["finishReason"], "STOP");
    assert_eq!(last["usageMetadata"], whole["usageMetadata"]);
    assert_eq!(last["usageMetadata"]["candidatesTokenCount"], 5);
}

#[test]
fn without_events_a_stream_is_an_array_and_so_are_its_errors() {
    let server = Server::start(&[]);
    let post = |text: &str| server.post(&format!("{MODEL}:streamGenerateContent"), KEY, &body(text));
    let reply = post("Hello [[mock chunks=3]]");
    assert!(reply.head.contains("content-type: application/json"));
    assert_eq!(reply.json().as_array().unwrap().len(), 4);
    assert_eq!(post("[[mock status=503]]").json()[0]["error"]["status"], "UNAVAILABLE");
    let broken = post("[[mock error_at=2 chunks=3]]").json();
    assert_eq!(broken.as_array().unwrap().last().unwrap()["error"]["code"], 503);
    assert!(serde_json::from_slice::<Value>(&post("[[mock truncate_at=2 chunks=3]]").body).is_err());
    let array = stream(&server, "[[mock json_array=1 chunks=3]]");
    assert_eq!(array.json().as_array().unwrap().len(), 4);
}

#[test]
fn faults_break_a_stream_as_they_break_the_others() {
    let server = Server::start(&[]);
    let count = |reply: &Reply| reply.text().matches("\"role\":\"model\"").count();
    for (directive, complete, end) in [
        ("truncate_at=2", true, End::Closed),
        ("cut_event_at=2", true, End::Closed),
        ("close_at=2", false, End::Closed),
        ("reset_at=2", false, End::Reset),
    ] {
        let reply = stream(&server, &format!("[[mock chunks=5 tag={directive} {directive}]]"));
        assert_eq!((reply.complete, reply.end), (complete, end), "{directive}");
        assert!(!reply.text().contains("finishReason"), "{directive}");
        assert_eq!(server.entry(&directive.replace('=', "%3D"), |entry| entry["outcome"] == "fault")["chunks_sent"], 2);
    }
    let reply = stream(&server, "[[mock chunks=5 no_done=1]]");
    assert_eq!(count(&reply), 5);
    assert!(!reply.text().contains("finishReason"));
    assert_eq!(stream(&server, "[[mock chunks=5 double_finish=1]]").text().matches("finishReason").count(), 2);
    let usage = "\"candidatesTokenCount\":5";
    assert_eq!(stream(&server, "[[mock chunks=5 two_usage=1]]").text().matches(usage).count(), 2);
    assert!(stream(&server, "[[mock error_at=1]]").text().contains("\"status\":\"UNAVAILABLE\""));
}

#[test]
fn what_is_withheld_or_malformed_says_so() {
    let server = Server::start(&[]);
    let post = |text: &str| server.post(&format!("{MODEL}:generateContent"), KEY, &body(text)).json();
    let blocked = post("[[mock block=1]]");
    assert_eq!(blocked["promptFeedback"]["blockReason"], "PROHIBITED_CONTENT");
    assert!(blocked.get("candidates").is_none());
    assert_eq!(post("[[mock malformed_call=1]]")["candidates"][0]["finishReason"], "MALFORMED_FUNCTION_CALL");
    assert_eq!(post("[[mock finish=SAFETY]]")["candidates"][0]["finishReason"], "SAFETY");
    let cited = post("[[mock citations=2]]");
    assert_eq!(cited["candidates"][0]["groundingMetadata"]["groundingChunks"].as_array().unwrap().len(), 2);
    let picture = post("[[mock media=image]]");
    assert_eq!(picture["candidates"][0]["content"]["parts"][0]["inlineData"]["mimeType"], "image/png");
    let usage = post("[[mock usage_in=100 cached=40 usage_out=7 reasoning=9]]");
    assert_eq!(usage["usageMetadata"]["cachedContentTokenCount"], 40);
    assert_eq!(usage["usageMetadata"]["totalTokenCount"], 116);
    let limited = post("[[mock status=429 retry_delay=37]]");
    assert_eq!(limited["error"]["details"][0]["retryDelay"], "37s");
    assert_eq!(
        post("[[mock status=400 error_code=API_KEY_INVALID]]")["error"]["details"][0]["reason"],
        "API_KEY_INVALID"
    );
}

#[test]
fn a_call_is_made_proven_and_answered() {
    let server = Server::start(&[]);
    let post = |body: &Value| server.post(&format!("{MODEL}:generateContent"), KEY, body).json();
    let mut asked = body("How is the weather in Paris?");
    asked["tools"] = json!([{"functionDeclarations": [{"name": "weather", "parameters": {
        "type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]}}]}]);
    asked["generationConfig"] = json!({"thinkingConfig": {"includeThoughts": true}});
    let first = post(&asked);
    let content = first["candidates"][0]["content"].clone();
    assert_eq!(content["parts"][0]["thought"], true);
    assert_eq!(content["parts"][1]["functionCall"]["args"]["city"], "Paris");
    assert!(first["usageMetadata"]["thoughtsTokenCount"].as_u64().unwrap() > 0);
    let answer = json!({"role": "user", "parts": [{"functionResponse": {
        "name": "weather", "response": {"output": "18 degrees"}}}]});
    let contents = asked["contents"].as_array_mut().unwrap();
    contents.extend([content.clone(), answer.clone()]);
    assert!(post(&asked)["candidates"][0]["content"]["parts"].to_string().contains("18 degrees"));
    asked["contents"][1]["parts"][1].as_object_mut().unwrap().remove("thoughtSignature");
    assert!(post(&asked)["error"]["message"].as_str().unwrap().contains("missing a thought_signature"));
}

#[test]
fn keys_stand_in_their_header() {
    let server = Server::start(&["--api-key", "right"]);
    let ask = |path: &str, header: &str| server.post(path, header, &body("Hi"));
    let path = format!("{MODEL}:generateContent");
    assert_eq!(ask(&path, "").status, 403);
    let wrong = ask(&path, "x-goog-api-key: wrong\r\n");
    assert_eq!((wrong.status, &wrong.json()["error"]["details"][0]["reason"]), (400, &json!("API_KEY_INVALID")));
    assert_eq!(ask(&path, "x-goog-api-key: right\r\n").status, 200);
    assert_eq!(ask(&format!("{path}?key=right"), "x-goog-api-key: right\r\n").status, 400);
}

#[test]
fn models_are_listed_by_the_page() {
    let server = Server::start(&[]);
    let get = |target: &str| {
        let mut stream = server.connect();
        let text = format!("GET {target} HTTP/1.1\r\nhost: mock\r\nconnection: close\r\n{KEY}\r\n");
        std::io::Write::write_all(&mut stream, text.as_bytes()).unwrap();
        Reply::read(stream)
    };
    assert_eq!(get("/v1beta/models?pageSize=1").json()["models"].as_array().unwrap().len(), 1);
    assert!(get("/v1beta/models").json()["nextPageToken"].is_null());
    assert_eq!(get(MODEL).json()["name"], "models/gemini-3-flash-preview");
    assert_eq!(get("/v1beta/models/none").status, 404);
    assert_eq!(server.get("/v1beta/models").status, 403);
}

/// A token as a service account gets it, with the key that the mock hands out.
fn token(server: &Server, endpoint: &str) -> String {
    let account = server.get("/_mock/service-account").json();
    let pem = account["private_key"].as_str().unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = rsa::RsaPrivateKey::from_pkcs8_der(&STANDARD.decode(der).unwrap()).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": account["client_email"], "aud": "https://oauth2.googleapis.com/token", "iat": now, "exp": now + 3600,
        "scope": "https://www.googleapis.com/auth/cloud-platform",
    });
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(json!({"alg": "RS256", "kid": account["private_key_id"]})), part(claims));
    let hash = sha2::Sha256::digest(signed.as_bytes());
    let signature = key.sign(rsa::Pkcs1v15Sign::new::<sha2::Sha256>(), &hash).unwrap();
    let form = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={signed}.{}",
        URL_SAFE_NO_PAD.encode(signature)
    );
    let reply = Reply::read(server.open(endpoint, "content-type: application/x-www-form-urlencoded\r\n", &form));
    let reply = reply.json();
    reply["access_token"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
}

#[test]
fn vertex_takes_tokens_that_were_minted_and_nothing_else() {
    let server = Server::start(&[]);
    let path = "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash:generateContent";
    let ask = |token: &str, text: &str| server.post(path, &format!("authorization: Bearer {token}\r\n"), &body(text));
    assert_eq!(server.post(path, KEY, &body("Hi")).json()["error"]["details"][0]["reason"], "CREDENTIALS_MISSING");
    assert_eq!(ask("made-up", "Hi").json()["error"]["details"][0]["reason"], "ACCESS_TOKEN_TYPE_UNSUPPORTED");
    let first = token(&server, "/oauth/google/token");
    assert_eq!(ask(&first, "Hi [[mock tag=good]]").status, 200);
    assert_eq!(server.entry("good", |_| true)["credential"], "token good");
    let rejected = ask(&first, "Hi [[mock tag=r token_reject=1]]");
    assert_eq!(rejected.status, 401);
    let second = token(&server, "/oauth/google/token");
    assert_eq!(ask(&second, "Hi [[mock tag=r token_reject=1]]").status, 200);
    let short = token(&server, "/mock;token_ttl=0/oauth/google/token");
    assert_eq!(ask(&short, "Hi").json()["error"]["details"][0]["reason"], "ACCESS_TOKEN_EXPIRED");
    let fails = |tag: &str| {
        Reply::read(server.open(&format!("/mock;tag={tag};token_fail=1/oauth/google/token"), "", "grant_type=x")).status
    };
    assert_eq!((fails("a"), fails("a"), fails("b")), (503, 400, 503));
}

#[test]
fn claude_on_vertex_has_its_model_in_the_path() {
    let server = Server::start(&[]);
    let bearer = format!("authorization: Bearer {}\r\n", token(&server, "/oauth/google/token"));
    let path = "/v1/projects/p/locations/eu/publishers/anthropic/models/claude-sonnet-4-5@20250929";
    let ask = |verb: &str, change: fn(&mut Value)| {
        let mut body = json!({
            "anthropic_version": "vertex-2023-10-16", "max_tokens": 99,
            "messages": [{"role": "user", "content": "Hi [[mock chunks=3]]"}],
        });
        change(&mut body);
        server.post(&format!("{path}:{verb}"), &bearer, &body)
    };
    let reply = ask("rawPredict", |_| ()).json();
    assert_eq!((&reply["type"], &reply["model"]), (&json!("message"), &json!("claude-sonnet-4-5@20250929")));
    let events = ask("streamRawPredict", |body| body["stream"] = json!(true)).events();
    assert_eq!(events.last().unwrap()["type"], "message_stop");
    for (change, expected) in [
        ((|body| body["model"] = json!("x")) as fn(&mut Value), "model: Extra inputs are not permitted"),
        (|body| body["cache_control"] = json!({"type": "ephemeral"}), "cache_control: Extra inputs"),
        (|body| body["anthropic_version"] = json!("2023-06-01"), "anthropic_version: Input should be"),
        (|body| drop(body.as_object_mut().unwrap().remove("anthropic_version")), "anthropic_version: Field required"),
    ] {
        let told = ask("rawPredict", change).json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(told.contains(expected), "{told}");
    }
    let count = json!({"model": "claude-x", "messages": [{"role": "user", "content": "12345678"}]});
    let path = "/v1/projects/p/locations/eu/publishers/anthropic/models/count-tokens:rawPredict";
    assert_eq!(server.post(path, &bearer, &count).json()["input_tokens"], 6);
    assert_eq!(server.post(path, "", &count).status, 401);
}
