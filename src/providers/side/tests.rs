//! Translations of what is no chat; with recorded traffic where it lies (`FIXTURES_DIR`, or `../shared/fixtures`).

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::*;
use crate::config::{Provider, StructuredOutput};
use crate::providers::gemini::Host;

fn provider() -> Provider {
    serde_json::from_value(json!({"dialect": "openai", "base_url": "https://p.example"})).unwrap()
}

fn asked(side: &dyn Side, model: &str, body: &Value, strict: bool) -> Result<UpstreamRequest, Problem> {
    let provider = provider();
    let target = Target {
        provider: &provider,
        upstream_model: model,
        max_output_tokens: 1,
        structured_output: StructuredOutput::default(),
        strict_params: strict,
    };
    translated(side, target, Api::Embeddings, body)
}

fn sent(side: &dyn Side, model: &str, body: &Value) -> (String, Value) {
    let request = asked(side, model, body, false).unwrap();
    (request.path, serde_json::from_slice(&request.body).unwrap())
}

fn replied(side: &dyn Side, request: &Value, reply: &Value) -> Result<(Value, Option<Told>), ReplyFault> {
    let members = side.echo(request);
    side.reply(reply, &SideAsked { members: &members, model: "called", id: "id" })
}

/// A recorded exchange: the request's path and body where they were recorded, and the reply.
fn recorded(file: &str) -> Option<(Value, Value, Value)> {
    let root = std::env::var_os("FIXTURES_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures")), PathBuf::from);
    if !root.join("index.json").exists() {
        eprintln!("SKIPPED: there is no recorded traffic at {}; set FIXTURES_DIR", root.display());
        return None;
    }
    let file: Value = serde_json::from_slice(&fs::read(root.join(file)).unwrap()).unwrap();
    let request = &file["request"];
    Some((request["path"].clone(), request["body"].clone(), file["response"]["body"].clone()))
}

/// A recording: the side, the model there, the caller's request that must become what was recorded (but for members that
/// say nothing), where the embeddings stand in the reply, and the tokens that it tells.
type Recording<'a> = (&'a str, &'static dyn Side, &'a str, Value, &'a [&'a str], Option<u64>);

fn recordings() -> Vec<Recording<'static>> {
    let gemini = |model| google_embeddings(Host::GeminiApi, model);
    let vertex = |model| google_embeddings(Host::Vertex, model);
    let bedrock = |model| bedrock_embeddings(model).unwrap();
    let hello =
        || json!({"model": "called", "input": "Hello, world!", "input_type": "search_query", "truncate": "NONE"});
    vec![
        (
            "google/embeddings-google_task_prefix_default-query_.json",
            gemini("gemini-embedding-2"),
            "gemini-embedding-2",
            json!({"input": ["task: search result | query: Hello, world!"]}),
            &["/embeddings/0/values"],
            Some(11),
        ),
        (
            "google/embeddings-google_task_prefix_asymmetric-document-with-title_.json",
            gemini("gemini-embedding-2"),
            "gemini-embedding-2",
            json!({"input": "title: Greeting | text: hello"}),
            &["/embeddings/0/values"],
            Some(7),
        ),
        (
            "google/embeddings-google_task_prefix_task-ignored-on-other-model_.json",
            gemini("gemini-embedding-2-preview"),
            "gemini-embedding-2-preview",
            json!({"input": "hello", "task_type": "RETRIEVAL_QUERY"}),
            &["/embeddings/0/values"],
            Some(1),
        ),
        (
            "google-vertex/embeddings-google_task_prefix_vertex.json",
            vertex("gemini-embedding-2"),
            "gemini-embedding-2",
            json!({"input": ["task: question answering | query: Hello, world!"]}),
            &["/embedding/values"],
            Some(11),
        ),
        (
            "google-vertex/vai-google-vertex-embedding.json",
            vertex("text-embedding-005"),
            "text-embedding-005",
            json!({"input": ["a", "b"]}),
            &["/predictions/0/embeddings/values", "/predictions/1/embeddings/values"],
            Some(11),
        ),
        (
            "cohere/embeddings-TestCohere.query.json",
            COHERE_EMBEDDINGS,
            "embed-v4.0",
            hello(),
            &["/embeddings/float/0"],
            Some(4),
        ),
        (
            "cohere/embeddings-TestCohere.query_with_cohere_truncate.json",
            COHERE_EMBEDDINGS,
            "embed-v4.0",
            json!({"input": "Hello, world!", "input_type": "search_query", "truncate": "END"}),
            &["/embeddings/float/0"],
            Some(4),
        ),
        (
            "cohere/vai-cohere-embedding.json",
            COHERE_EMBEDDINGS,
            "embed-v4.0",
            json!({"input": ["sunny day at the beach", "rainy day in the city"]}),
            &["/embeddings/float/0", "/embeddings/float/1"],
            Some(10),
        ),
        (
            "bedrock/embeddings-TestBedrock.cohere_v3_minimal.json",
            bedrock("cohere.embed-english-v3"),
            "cohere.embed-english-v3",
            hello(),
            &["/embeddings/0"],
            None,
        ),
        (
            "bedrock/embeddings-TestBedrock.cohere_v4_minimal.json",
            bedrock("cohere.embed-v4:0"),
            "cohere.embed-v4:0",
            hello(),
            &["/embeddings/float/0"],
            None,
        ),
        (
            "bedrock/embeddings-TestBedrock.cohere_v4_with_max_tokens.json",
            bedrock("cohere.embed-v4:0"),
            "cohere.embed-v4:0",
            json!({"input": "Test max tokens setting", "input_type": "search_query", "truncate": "NONE",
                "max_tokens": 256}),
            &["/embeddings/float/0"],
            None,
        ),
        (
            "bedrock/embeddings-TestBedrock.nova_multiple_texts.0.json",
            bedrock("amazon.nova-2-multimodal-embeddings-v1:0"),
            "amazon.nova-2-multimodal-embeddings-v1:0",
            json!({"input": "hello"}),
            &["/embeddings/0/embedding"],
            None,
        ),
        (
            "bedrock/embeddings-TestBedrock.titan_v2_with_dimensions.json",
            bedrock("amazon.titan-embed-text-v2:0"),
            "amazon.titan-embed-text-v2:0",
            json!({"input": "Test embedding dimensions", "dimensions": 256, "normalize": true}),
            &["/embedding"],
            Some(4),
        ),
    ]
}

/// Takes away what says nothing.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let said = members.iter().filter(|(_, value)| !value.is_null());
            said.map(|(name, value)| (name.clone(), without_nulls(value))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

#[test]
fn recorded_requests_are_written_and_their_replies_read() {
    for (file, side, model, request, places, tokens) in recordings() {
        let Some((path, body, reply)) = recorded(file) else { return };
        let (sent_to, sent) = sent(side, model, &request);
        if !body.is_null() {
            assert!(path.as_str().unwrap().ends_with(&sent_to), "{file}: {path} {sent_to}");
            assert_eq!(sent, without_nulls(&body), "{file}");
        }
        let (written, told) = replied(side, &request, &reply).unwrap_or_else(|fault| panic!("{file}: {fault}"));
        assert_eq!(told.map(|told| told.usage.input_total()), tokens, "{file}");
        assert_eq!(written["model"], "called");
        assert_eq!(written.pointer("/usage/prompt_tokens").and_then(Value::as_u64), tokens, "{file}");
        let data = written["data"].as_array().unwrap();
        assert_eq!(data.len(), places.len(), "{file}");
        for (nth, (one, place)) in data.iter().zip(places).enumerate() {
            assert_eq!((&one["index"], &one["embedding"]), (&json!(nth), reply.pointer(place).unwrap()), "{file}");
        }
        let mut packed = request.clone();
        packed["encoding_format"] = json!("base64");
        let (written, _) = replied(side, &packed, &reply).unwrap();
        for (nth, place) in places.iter().enumerate() {
            let bytes = BASE64.decode(written["data"][nth]["embedding"].as_str().unwrap()).unwrap();
            let floats: Vec<f32> =
                bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
            let numbers: Vec<f32> = serde_json::from_value(reply.pointer(place).unwrap().clone()).unwrap();
            assert_eq!(floats, numbers, "{file}");
        }
    }
}

#[test]
fn what_a_provider_does_not_take_is_refused_by_its_place() {
    let refused = |side: &dyn Side, body: Value| {
        let problem = asked(side, "m", &body, true).unwrap_err();
        (problem.status, problem.param.unwrap_or_default())
    };
    let titan = bedrock_embeddings("amazon.titan-embed-text-v1").unwrap();
    assert_eq!(refused(COHERE_EMBEDDINGS, json!({"input": [1, 2]})), (400, "input[0]".into()));
    assert_eq!(refused(COHERE_EMBEDDINGS, json!({"input": ["a", [1]]})), (400, "input[1]".into()));
    assert_eq!(refused(COHERE_EMBEDDINGS, json!({"input": ""})), (400, "input".into()));
    assert_eq!(refused(COHERE_EMBEDDINGS, json!({"input": vec!["a"; 97]})), (400, "input".into()));
    assert_eq!(refused(titan, json!({"input": ["a", "b"]})), (400, "input".into()));
    assert_eq!(refused(titan, json!({"input": "a", "dimensions": 0})), (400, "dimensions".into()));
    assert_eq!(refused(titan, json!({"input": "a", "encoding_format": "hex"})), (400, "encoding_format".into()));
    assert_eq!(refused(titan, json!({"input": "a", "input_type": "x"})), (400, "input_type".into()));
    let dropped = asked(titan, "m", &json!({"input": "a", "user": "u", "input_type": "x"}), false).unwrap();
    assert_eq!(dropped.dropped_params, ["input_type"]);
    assert!(bedrock_embeddings("anthropic.claude-sonnet-4-5").is_none());
}

#[test]
fn a_reply_that_is_none_is_an_error() {
    let request = json!({"input": ["a", "b"]});
    for reply in [
        json!({"embeddings": {"float": [[1.0]]}}),
        json!({"embeddings": {"float": [[1.0], []]}}),
        json!({"embeddings": {"float": [[1.0], ["x"]]}}),
        json!({"embeddings": {"float": [[1.0], [1.0], [1.0]]}}),
        json!({"message": "no"}),
    ] {
        assert!(replied(COHERE_EMBEDDINGS, &request, &reply).is_err(), "{reply}");
    }
    assert!(replied(COHERE_RERANK, &json!({}), &json!({"results": [{"index": 0}]})).is_err());
    assert!(replied(COHERE_RERANK, &json!({}), &json!({})).is_err());
}

#[test]
fn documents_are_ranked_and_given_back_where_that_is_asked() {
    let request = json!({"model": "called", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1,
        "return_documents": true});
    let (path, body) = sent(COHERE_RERANK, "rerank-v3.5", &request);
    assert_eq!(path, "/v2/rerank");
    assert_eq!(body, json!({"model": "rerank-v3.5", "query": "q", "documents": ["a", "b"], "top_n": 1}));
    let reply = json!({"id": "r", "results": [{"index": 1, "relevance_score": 0.9}],
        "meta": {"billed_units": {"search_units": 1}}});
    let (written, told) = replied(COHERE_RERANK, &request, &reply).unwrap();
    assert_eq!(written["results"], json!([{"index": 1, "relevance_score": 0.9, "document": {"text": "b"}}]));
    assert_eq!((&written["id"], &written["model"]), (&json!("r"), &json!("called")));
    assert_eq!(told.map(|told| told.usage.web_searches), Some(1));
    let plain = json!({"query": "q", "documents": ["a", "b"]});
    assert_eq!(replied(COHERE_RERANK, &plain, &reply).unwrap().0["results"][0].get("document"), None);
}
