mod replies;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::protocol::chat::{
    Effort, Format, Lineage, Part, PartBody, ReasoningPart, Role, Signature, Source, ThinkMode, ToolBody, ToolChoice,
};

fn read(body: Value) -> Result<ChatRequest, Problem> {
    Messages.read(body.to_string().as_bytes())
}

fn with(members: Value) -> Value {
    let mut body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

fn said(role: &str, content: Value) -> Value {
    with(json!({"messages": [{"role": role, "content": content}]}))
}

/// The roles and parts of a conversation.
fn parts(body: Value) -> Vec<(Role, Vec<PartBody>)> {
    let bodies = |parts: Vec<Part>| parts.into_iter().map(|part| part.body).collect();
    read(body).unwrap().messages.into_iter().map(|message| (message.role, bodies(message.parts))).collect()
}

fn text(text: &str) -> PartBody {
    PartBody::Text { text: text.to_owned(), signature: None }
}

#[test]
fn every_parameter_is_read() {
    let chat = read(with(json!({
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "stream": true, "stop_sequences": ["END"], "temperature": 0.5, "top_p": 0.9, "top_k": 40,
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "output_config": {"effort": "xhigh", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "metadata": {"user_id": "u1"}, "service_tier": "standard_only", "context_management": {"edits": []},
        "tools": [
            {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": true},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true}, "container": null,
    })))
    .unwrap();
    assert_eq!((chat.origin, chat.model.as_str(), chat.output.max_tokens), (Api::Messages, "m", Some(9)));
    assert_eq!(chat.instructions[0].text, "Be brief.");
    assert_eq!(chat.instructions[0].cache.as_ref().unwrap().ttl(), Some("1h"));
    assert!(chat.stream && chat.include_usage);
    let sampling = (chat.sampling.temperature, chat.sampling.top_p, chat.sampling.top_k);
    assert_eq!(sampling, (Some(0.5), Some(0.9), Some(40)));
    assert_eq!(chat.sampling.stop, ["END"]);
    let thinking = (chat.reasoning.mode, chat.reasoning.budget_tokens, chat.reasoning.effort);
    assert_eq!(thinking, (Some(ThinkMode::Enabled), Some(2048), Some(Effort::XHigh)));
    assert!(matches!(&chat.output.format, Format::Schema { schema, .. } if *schema == json!({"type": "object"})));
    assert_eq!((chat.caller.user.as_deref(), chat.caller.service_tier.as_deref()), (Some("u1"), Some("default")));
    assert_eq!(Value::Object(chat.extra), json!({"context_management": {"edits": []}}));
    assert!(matches!(&chat.tools.offered[0].body, ToolBody::Function(f) if f.name == "f" && f.strict == Some(true)));
    assert!(matches!(&chat.tools.offered[1].body, ToolBody::Hosted { kind, .. } if kind == "web_search_20250305"));
    assert_eq!((chat.tools.choice, chat.tools.parallel), (Some(ToolChoice::Required), Some(false)));
}

#[test]
fn results_become_messages_of_their_own_before_the_rest_of_their_turn() {
    let body = with(json!({"messages": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "text", "text": "Looking."},
            {"type": "tool_use", "id": "t1", "name": "look", "input": {"b": 1, "a": 2}},
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "text", "text": "and?"},
            {"type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": [
                {"type": "text", "text": "no"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
            ]},
        ]},
    ]}));
    let told = parts(body.clone());
    let proof = Signature { family: Lineage::Anthropic, value: "sig".into() };
    let thought = ReasoningPart { text: "hm".into(), signature: Some(proof), ..ReasoningPart::default() };
    let hidden = ReasoningPart { redacted: Some("xyz".into()), ..ReasoningPart::default() };
    let (id, name) = ("t1".to_owned(), "look".to_owned());
    let arguments = r#"{"b":1,"a":2}"#.to_owned();
    assert_eq!(told[1].1[..3], [PartBody::Reasoning(thought), PartBody::Reasoning(hidden), text("Looking.")]);
    let call = PartBody::Call { id: id.clone(), name: name.clone(), arguments, custom: false, signature: None };
    assert_eq!(told[1].1[3], call);
    assert!(matches!(&told[1].1[4], PartBody::Hosted { family: Lineage::Anthropic, value } if value["id"] == "s1"));
    let PartBody::Result { id: of, name: called, parts, is_error: true } = &told[2].1[0] else { panic!("{told:?}") };
    assert_eq!((told[2].0, of, called.as_ref(), parts.len()), (Role::Tool, &id, Some(&name), 2));
    assert_eq!(told[3], (Role::User, vec![text("and?")]));
    let chat = read(body).unwrap();
    assert_eq!(chat.messages[2].parts[0].at.to_string(), "messages[2].content[1]");
    assert_eq!(chat.messages[0].parts[0].at.to_string(), "messages[0].content");
}

#[test]
fn what_one_side_says_in_several_messages_is_one_turn() {
    let call = |id: &str| json!([{"type": "tool_use", "id": id, "name": "f", "input": {}}]);
    let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id});
    let told = parts(with(json!({"messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": call("1")},
        {"role": "assistant", "content": call("2")},
        {"role": "user", "content": [result("1"), {"type": "text", "text": "b"}]},
        {"role": "user", "content": [result("2")]},
    ]})));
    let roles: Vec<(Role, usize)> = told.iter().map(|(role, parts)| (*role, parts.len())).collect();
    let expected = [(Role::User, 1), (Role::Assistant, 2), (Role::Tool, 1), (Role::Tool, 1), (Role::User, 1)];
    assert_eq!(roles, expected);
}

#[test]
fn pictures_and_documents_are_read_from_wherever_they_are() {
    let source = |content: Value| match parts(said("user", json!([content]))).remove(0).1.remove(0) {
        PartBody::Image { source, .. } | PartBody::Document { source, .. } => source,
        other => panic!("{other:?}"),
    };
    let picture = |from: Value| source(json!({"type": "image", "source": from}));
    let paper = |from: Value| source(json!({"type": "document", "source": from, "title": "T"}));
    assert_eq!(
        picture(json!({"type": "url", "url": "https://a.example/x"})),
        Source::Url("https://a.example/x".into())
    );
    assert_eq!(
        picture(json!({"type": "file", "file_id": "file_1"})),
        Source::File { family: Lineage::Anthropic, id: "file_1".into() }
    );
    let pdf = Source::Base64 { media_type: "application/pdf".into(), data: "JVBE".into() };
    assert_eq!(paper(json!({"type": "base64", "media_type": "application/pdf", "data": "JVBE"})), pdf);
    let plain = Source::Text { media_type: "text/plain".into(), text: "a\nb".into() };
    assert_eq!(paper(json!({"type": "text", "media_type": "text/plain", "data": "a\nb"})), plain);
    let blocks = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    assert_eq!(paper(json!({"type": "content", "content": blocks})), plain);
    let found =
        json!({"type": "search_result", "title": "T", "source": "S", "content": [{"type": "text", "text": "x"}]});
    assert_eq!(parts(said("user", json!([found])))[0].1, [text("T\nS\nx")]);
}

#[test]
fn a_marker_at_the_top_stands_behind_the_last_block() {
    let chat = read(with(json!({"cache_control": {"type": "ephemeral"}}))).unwrap();
    assert_eq!(chat.messages[0].parts[0].cache.as_ref().unwrap().0, json!({"type": "ephemeral"}));
}

#[test]
fn what_is_wrong_is_named_by_its_place() {
    let image = |source: Value| said("user", json!([{"type": "image", "source": source}]));
    let without = |name: &str| {
        let mut body = with(json!({}));
        body.as_object_mut().unwrap().remove(name);
        body
    };
    for (body, place) in [
        (json!([]), ""),
        (without("max_tokens"), "max_tokens"),
        (without("model"), "model"),
        (without("messages"), "messages"),
        (with(json!({"messages": []})), "messages"),
        (with(json!({"max_tokens": "9"})), "max_tokens"),
        (with(json!({"max_tokens": -1})), "max_tokens"),
        (with(json!({"temperature": "hot"})), "temperature"),
        (with(json!({"stream": 1})), "stream"),
        (with(json!({"stop_sequences": ["a", 2]})), "stop_sequences[1]"),
        (with(json!({"system": [{"type": "image"}]})), "system[0].type"),
        (with(json!({"metadata": {"user_id": 5}})), "metadata.user_id"),
        (with(json!({"thinking": {"type": "enabled"}})), "thinking.budget_tokens"),
        (with(json!({"thinking": {"type": "hard"}})), "thinking.type"),
        (with(json!({"output_config": {"effort": "huge"}})), "output_config.effort"),
        (with(json!({"output_config": {"format": {"type": "json_schema"}}})), "output_config.format.schema"),
        (with(json!({"tools": [{"name": "f"}]})), "tools[0].input_schema"),
        (with(json!({"tools": [{"input_schema": {}}]})), "tools[0].name"),
        (with(json!({"tool_choice": {"type": "tool"}})), "tool_choice.name"),
        (with(json!({"tool_choice": "auto"})), "tool_choice"),
        (said("robot", json!("x")), "messages[0].role"),
        (said("user", json!(5)), "messages[0].content"),
        (said("user", json!(["x"])), "messages[0].content[0]"),
        (said("user", json!([{"text": "x"}])), "messages[0].content[0].type"),
        (said("user", json!([{"type": "image_url"}])), "messages[0].content[0].type"),
        (said("user", json!([{"type": "text"}])), "messages[0].content[0].text"),
        (said("user", json!([{"type": "tool_use"}])), "messages[0].content[0].type"),
        (said("assistant", json!([{"type": "tool_result"}])), "messages[0].content[0].type"),
        (said("assistant", json!([{"type": "tool_use", "id": "a", "name": "f"}])), "messages[0].content[0].input"),
        (said("user", json!([{"type": "tool_result"}])), "messages[0].content[0].tool_use_id"),
        (
            said("user", json!([{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "x"}]}])),
            "messages[0].content[0].content[0].type",
        ),
        (image(json!({"type": "base64", "data": "x"})), "messages[0].content[0].source.media_type"),
        (image(json!({"type": "ftp"})), "messages[0].content[0].source.type"),
    ] {
        let problem = read(body.clone()).expect_err(&body.to_string());
        assert_eq!((problem.status, problem.param.as_deref().unwrap_or_default()), (400, place), "{body}");
        assert!(problem.message.starts_with(place), "{}", problem.message);
    }
    assert_eq!(Messages.read(b"{\"model\":").unwrap_err().code, "invalid_json");
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(
        kind in "text|image|thinking|tool_use|tool_result|document|x_tool_result|[a-z]{1,6}",
        role in "user|assistant|system|x",
        members in proptest::collection::vec(("text|source|input|id|name|content|type|data|signature", any::<u8>()), 0..6),
    ) {
        let value = |seed: u8| match seed % 7 {
            0 => Value::Null,
            1 => json!("text"),
            2 => json!({"type": "base64", "media_type": "a/b", "data": "AA"}),
            3 => json!([{"type": "text", "text": "x"}]),
            4 => json!(seed),
            5 => json!({"type": "content", "content": [{"type": "image"}]}),
            _ => json!(true),
        };
        let mut block = json!({"type": kind});
        for (name, seed) in members {
            block[name] = value(seed);
        }
        match read(said(&role, json!([block]))) {
            Ok(chat) => prop_assert!(!chat.messages.is_empty()),
            Err(problem) => prop_assert!(problem.status == 400 && problem.param.is_some()),
        }
    }
}
