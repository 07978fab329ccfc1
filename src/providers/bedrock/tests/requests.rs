//! Requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::protocol::chat::{Effort, Format, Lineage, ReasoningPart, Signature, TextPart, ThinkMode, ToolChoice};
use crate::providers::answer_tool::ANSWER_TOOL;

fn messages(chat: &ChatRequest, model: &str) -> Value {
    body(chat, model)["messages"].take()
}

fn turn(role: &str, content: Value) -> Value {
    json!({"role": role, "content": content})
}

// === Conversation ===

#[test]
fn the_model_stands_in_the_path() {
    let path = |model: &str, stream| {
        let mut chat = asked();
        chat.stream = stream;
        let provider = provider();
        let target = target(&provider, model, StructuredOutput::Native);
        Bedrock.translate(&chat, target, &mut Notes::new(Api::ChatCompletions, false)).unwrap().path
    };
    assert_eq!(path("us.amazon.nova-micro-v1:0", false), "/model/us.amazon.nova-micro-v1%3A0/converse");
    assert_eq!(
        path("arn:aws:bedrock:us-east-1:1:inference-profile/x", true),
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fx/converse-stream"
    );
}

#[test]
fn instructions_stand_apart_with_their_marks() {
    let mut chat = chat(vec![
        (Role::System, vec![text("one")]),
        (Role::User, vec![text("hi")]),
        (Role::Developer, vec![text("two"), text(" ")]),
    ]);
    chat.instructions.push(TextPart { text: "zero".to_owned(), cache: mark("1h") });
    let point = json!({"cachePoint": {"type": "default", "ttl": "1h"}});
    let texts = [json!({"text": "zero"}), json!({"text": "one"}), json!({"text": "two"})];
    let [zero, one, two] = texts;
    assert_eq!(body(&chat, CLAUDE)["system"], json!([zero, point, one, two]));
    let point = json!({"cachePoint": {"type": "default"}});
    assert_eq!(body(&chat, NOVA)["system"], json!([zero, point, one, two]), "Nova keeps for five minutes only");
    assert_eq!(body(&chat, LLAMA)["system"], json!([zero, one, two]), "others keep nothing");
    assert_eq!(messages(&chat, CLAUDE), json!([turn("user", json!([{"text": "hi"}]))]));
}

#[test]
fn turns_alternate_and_begin_and_end_as_the_model_wants() {
    let [a, b, c] = ["a", "b", "c"].map(|text| json!([{"text": text}]));
    let begun = chat(vec![(Role::Assistant, vec![text("b")]), (Role::User, vec![text("c")])]);
    let dot = turn("user", json!([{"text": "."}]));
    assert_eq!(messages(&begun, NOVA), json!([dot, turn("assistant", b.clone()), turn("user", c.clone())]));
    assert_eq!(messages(&begun, QWEN), json!([turn("assistant", b.clone()), turn("user", c)]));
    assert_eq!(messages(&chat(vec![(Role::System, vec![text("s")])]), CLAUDE), json!([dot]));

    let begins_the_answer = chat(vec![
        (Role::User, vec![text("a")]),
        (Role::Assistant, vec![text("\n")]),
        (Role::User, vec![]),
        (Role::Assistant, vec![text("b \n")]),
    ]);
    assert_eq!(messages(&begins_the_answer, CLAUDE), json!([turn("user", a.clone()), turn("assistant", b)]));
    let (newest, dropped) = sent(&begins_the_answer, NEWEST);
    let [b, on] = ["b \n", "Continue."].map(|text| json!([{"text": text}]));
    assert_eq!(newest["messages"], json!([turn("user", a), turn("assistant", b), turn("user", on)]));
    assert_eq!(dropped, ["prefill"]);
}

#[test]
fn calls_and_their_results_go_in_turns_of_their_own_kinds() {
    let history = chat(vec![
        (Role::User, vec![text("q")]),
        (Role::Assistant, vec![text("hm"), call("t.1:x", r#"{"a": 1}"#), call("t/2", "")]),
        (Role::Tool, vec![result("t.1:x", vec![text("r"), text(" ")], false)]),
        (Role::Tool, vec![result("t/2", vec![], true)]),
        (Role::User, vec![text("and?")]),
    ]);
    let got = messages(&history, CLAUDE);
    let id = got[1]["content"][2]["toolUse"]["toolUseId"].clone();
    assert_eq!(
        got[1]["content"],
        json!([
            {"text": "hm"},
            {"toolUse": {"toolUseId": "t.1:x", "name": "f", "input": {"a": 1}}},
            {"toolUse": {"toolUseId": id, "name": "f", "input": {}}},
        ])
    );
    let results = json!([
        {"toolResult": {"toolUseId": "t.1:x", "content": [{"text": "r"}]}},
        {"toolResult": {"toolUseId": id, "content": [{"text": "."}], "status": "error"}},
    ]);
    let mut all = results.as_array().unwrap().clone();
    all.push(json!({"text": "and?"}));
    assert_eq!(got[2], turn("user", json!(all)));

    // Where results must stand alone, something of the model's comes between.
    let got = messages(&history, LLAMA);
    assert_eq!(got[2], turn("user", results));
    assert_eq!(
        (&got[3], &got[4]),
        (&turn("assistant", json!([{"text": "."}])), &turn("user", json!([{"text": "and?"}])))
    );

    let ids = messages(&history, MISTRAL);
    let ids = [&ids[1]["content"][1]["toolUse"], &ids[2]["content"][0]["toolResult"]];
    let ids = ids.map(|block| block["toolUseId"].as_str().unwrap().to_owned());
    assert_eq!((ids[0].len(), &ids[0]), (9, &ids[1]));

    let palmyra = messages(&history, PALMYRA);
    assert_eq!(palmyra[2]["content"][1]["toolResult"]["content"], json!([{"text": "The tool failed:"}]));
}

#[test]
fn arguments_that_are_no_object_are_refused() {
    for arguments in ["[]", "1", "{", "\"x\""] {
        let history = chat(vec![(Role::User, vec![text("q")]), (Role::Assistant, vec![call("1", arguments)])]);
        assert_eq!(refused(&history, CLAUDE).0, "messages[1].content[0]", "{arguments}");
    }
}

#[test]
fn a_conversation_with_calls_has_tools_whatever_is_offered() {
    let mut history = chat(vec![
        (Role::User, vec![text("q")]),
        (Role::Assistant, vec![call("1", "{}")]),
        (Role::Tool, vec![result("1", vec![text("r")], false)]),
    ]);
    let minimal = json!({"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}}]});
    assert_eq!(body(&history, CLAUDE)["toolConfig"], minimal);
    history.tools.offered = vec![tool("g")];
    history.tools.choice = Some(ToolChoice::None);
    let (kept, dropped) = sent(&history, CLAUDE);
    assert_eq!(kept["toolConfig"]["tools"][0]["toolSpec"]["name"], "g");
    assert_eq!(dropped, ["tool_choice"]);
}

#[test]
fn reasoning_goes_back_to_claude_alone_and_proven_only() {
    let reasoning = |family, redacted: Option<&str>| {
        let signature = Some(Signature { family, value: "proof".to_owned() });
        let part = ReasoningPart {
            text: "so".to_owned(),
            signature,
            redacted: redacted.map(str::to_owned),
            ..ReasoningPart::default()
        };
        PartBody::Reasoning(part)
    };
    let unproven = PartBody::Reasoning(ReasoningPart { text: "so".to_owned(), ..ReasoningPart::default() });
    let history = chat(vec![
        (Role::User, vec![text("q")]),
        (
            Role::Assistant,
            vec![
                reasoning(Lineage::Anthropic, None),
                reasoning(Lineage::Anthropic, Some("x")),
                reasoning(Lineage::Gemini, None),
                unproven,
                text("a"),
            ],
        ),
        (Role::User, vec![text("q")]),
    ]);
    let plain = json!({"text": "a"});
    assert_eq!(
        messages(&history, CLAUDE)[1]["content"],
        json!([
            {"reasoningContent": {"reasoningText": {"text": "so", "signature": "proof"}}},
            {"reasoningContent": {"redactedContent": STANDARD.encode("x")}},
            plain,
        ])
    );
    assert_eq!(messages(&history, NOVA)[1]["content"], json!([plain]));
}

#[test]
fn what_another_provider_ran_itself_is_left_out_with_a_note() {
    let hosted = PartBody::Hosted { family: Lineage::OpenAi, value: json!({}) };
    let history = chat(vec![
        (Role::User, vec![text("q")]),
        (Role::Assistant, vec![hosted, text("a")]),
        (Role::User, vec![text("q")]),
    ]);
    assert_eq!(sent(&history, CLAUDE).1, ["messages[1].content[0]"]);
}

// === Media ===

#[test]
fn media_come_inline_or_from_s3() {
    let block = |body| messages(&chat(vec![(Role::User, vec![text("see"), body])]), NOVA)[0]["content"][1].take();
    assert_eq!(block(image()), json!({"image": {"format": "png", "source": {"bytes": "AAAA"}}}));
    let s3 = Source::Url("s3://bucket/a.jpg".to_owned());
    assert_eq!(
        block(PartBody::Image { source: s3, detail: None }),
        json!({"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://bucket/a.jpg"}}}})
    );
    assert_eq!(
        block(PartBody::Audio { source: inline("audio/mp3"), format: "mp3".to_owned() }),
        json!({"audio": {"format": "mp3", "source": {"bytes": "AAAA"}}})
    );
    assert_eq!(
        block(PartBody::Video { source: inline("video/quicktime") }),
        json!({"video": {"format": "mov", "source": {"bytes": "AAAA"}}})
    );
    let source = Source::Text { media_type: "text/plain".to_owned(), text: "hé".to_owned() };
    assert_eq!(
        block(PartBody::Document { source, name: None, context: Some("c".to_owned()), cite: true }),
        json!({"document": {
            "format": "txt", "name": "Document", "source": {"bytes": "aMOp"}, "context": "c", "citations": {"enabled": true},
        }})
    );
}

#[test]
fn media_that_cannot_be_sent_are_refused_where_they_stand() {
    let https = || Source::Url("https://a.example/x.png".to_owned());
    let typeless = Source::Base64 { media_type: String::new(), data: "AAAA".to_owned() };
    for (body, advice) in [
        (PartBody::Image { source: https(), detail: None }, "inline"),
        (PartBody::Image { source: inline("image/tiff"), detail: None }, "PNG"),
        (PartBody::Image { source: typeless, detail: None }, "PNG"),
        (PartBody::Video { source: inline("video/avi") }, "MP4"),
        (PartBody::Document { source: inline("application/zip"), name: None, context: None, cite: false }, "PDF"),
        (PartBody::Audio { source: https(), format: "mp3".to_owned() }, "inline"),
    ] {
        let (param, message) = refused(&chat(vec![(Role::User, vec![text("see"), body])]), CLAUDE);
        assert!(param == "messages[0].content[1]" && message.contains(advice), "{message}");
    }
}

#[test]
fn documents_have_a_text_beside_them_and_stand_apart_from_claudes_results() {
    let alone = chat(vec![(Role::User, vec![document("a.pdf"), document("a.pdf")])]);
    let got = messages(&alone, NOVA);
    assert_eq!(got[0]["content"][0], json!({"text": "."}));
    assert_eq!(
        (&got[0]["content"][1]["document"]["name"], &got[0]["content"][2]["document"]["name"]),
        (&json!("a"), &json!("a 2"))
    );

    let with_result = chat(vec![
        (Role::User, vec![text("q")]),
        (Role::Assistant, vec![call("1", "{}")]),
        (Role::User, vec![document("a.pdf"), result("1", vec![text("r")], false)]),
    ]);
    let got = messages(&with_result, CLAUDE);
    let kinds: Vec<usize> =
        got.as_array().unwrap().iter().map(|turn| turn["content"].as_array().unwrap().len()).collect();
    assert_eq!(kinds, [1, 1, 1, 1, 2], "{got:#}");
    assert_eq!(messages(&with_result, NOVA).as_array().unwrap().len(), 3);
}

#[test]
fn media_in_results_stay_there_where_the_model_takes_them() {
    let history = |media| {
        chat(vec![
            (Role::User, vec![text("q")]),
            (Role::Assistant, vec![call("1", "{}")]),
            (Role::Tool, vec![result("1", vec![media], false)]),
        ])
    };
    let inside = |media, model| messages(&history(media), model)[2]["content"][0]["toolResult"]["content"][0].clone();
    assert!(inside(image(), CLAUDE)["image"].is_object());
    assert!(inside(document("a.pdf"), CLAUDE)["document"].is_object());
    assert!(inside(document("a.pdf"), MISTRAL)["document"].is_object());
    for (media, model) in [(image(), MISTRAL), (image(), QWEN), (document("a.pdf"), NOVA)] {
        let got = messages(&history(media), model);
        let result = &got[2]["content"][0]["toolResult"];
        let id = result["toolUseId"].as_str().unwrap();
        assert_eq!(result["content"], json!([{"text": format!("See the attachment of {id} below.")}]));
        let last = got.as_array().unwrap().last().unwrap()["content"].as_array().unwrap();
        let [note, media] = &last[last.len() - 2..] else { panic!("{got:#}") };
        assert_eq!(note, &json!({"text": format!("Attachment of {id}:")}));
        assert!(media["image"].is_object() || media["document"].is_object());
    }
}

#[test]
fn the_last_four_cache_marks_stand_where_they_may() {
    let mut chat = chat(vec![(Role::User, vec![text("a"), text("b"), text("c"), text("d"), document("x.pdf")])]);
    for part in &mut chat.messages[0].parts {
        part.cache = mark("5m");
    }
    chat.tools.offered = vec![tool("f")];
    chat.tools.offered[0].cache = mark("1h");
    let (got, _) = sent(&chat, CLAUDE);
    let kinds: Vec<&String> = got["messages"][0]["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_object().unwrap().keys().next().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["text", "cachePoint", "text", "cachePoint", "text", "cachePoint", "text", "cachePoint", "document"],
        "the document's own mark would stand behind it"
    );
    assert_eq!(got["toolConfig"]["tools"].as_array().unwrap().len(), 1, "the first mark is one too many");
    chat.messages[0].parts.pop();
    chat.messages[0].parts.pop();
    let tools = &body(&chat, CLAUDE)["toolConfig"]["tools"];
    assert_eq!(tools[1], json!({"cachePoint": {"type": "default", "ttl": "1h"}}));
    assert_eq!(body(&chat, NOVA)["toolConfig"]["tools"].as_array().unwrap().len(), 1);
}

// === Tools ===

#[test]
fn tools_are_specified() {
    let mut chat = asked();
    let mut strict = tool("f");
    if let ToolBody::Function(function) = &mut strict.body {
        function.strict = Some(true);
        function.description = Some("does".to_owned());
        function.parameters = Some(json!({"type": "object", "properties": {
            "n": {"type": "integer", "minimum": 1, "description": "how many"}, "minimum": {"type": "string"},
        }}));
    }
    chat.tools.offered = vec![strict, tool("g")];
    let got = body(&chat, CLAUDE);
    assert_eq!(
        got["toolConfig"],
        json!({"tools": [
            {"toolSpec": {"name": "f", "description": "does", "strict": true, "inputSchema": {"json": {
                "type": "object",
                "properties": {"n": {"type": "integer", "description": "how many (minimum: 1)"}, "minimum": {"type": "string"}},
                "additionalProperties": false,
            }}}},
            {"toolSpec": {"name": "g", "inputSchema": {"json": {"type": "object", "properties": {}}}}},
        ]})
    );
    let llamas = &body(&chat, LLAMA)["toolConfig"]["tools"][0]["toolSpec"];
    assert!(llamas["strict"].is_null() && llamas["inputSchema"]["json"]["properties"]["n"]["minimum"] == 1);
}

#[test]
fn tools_that_cannot_be_offered_are_refused() {
    let mut chat = asked();
    let custom = ToolBody::Custom { name: "sh".to_owned(), description: None, format: None };
    for body in [ToolBody::Hosted { kind: "web_search".to_owned(), value: json!({}) }, custom] {
        chat.tools.offered = vec![Tool { body, ..tool("x") }];
        assert_eq!(refused(&chat, CLAUDE).0, "tools[0].type");
    }
    for name in ["", "a.b", "a b", &"x".repeat(65)] {
        chat.tools.offered = vec![tool(name)];
        assert_eq!(refused(&chat, CLAUDE).0, "tools[0]", "{name}");
    }
}

#[test]
fn a_choice_is_told_or_made_by_what_is_offered() {
    let mut chat = asked();
    chat.tools.offered = vec![tool("f"), tool("g")];
    let mut config = |choice, model| {
        chat.tools.choice = Some(choice);
        let config = body(&chat, model)["toolConfig"].take();
        let names = config["tools"].as_array().map(Vec::len).unwrap_or_default();
        (config["toolChoice"].clone(), names)
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(config(ToolChoice::Auto, CLAUDE), (Value::Null, 2));
    assert_eq!(config(ToolChoice::None, CLAUDE), (Value::Null, 0));
    assert_eq!(config(ToolChoice::Required, CLAUDE), (json!({"any": {}}), 2));
    assert_eq!(config(ToolChoice::One("g".into()), CLAUDE), (json!({"tool": {"name": "g"}}), 2));
    assert_eq!(config(ToolChoice::One("g".into()), MISTRAL), (json!({"any": {}}), 1));
    assert_eq!(config(ToolChoice::Among { names: names(&["g"]), required: false }, CLAUDE), (Value::Null, 1));
    assert_eq!(config(ToolChoice::Among { names: names(&["g"]), required: true }, FABLE_NOT), (json!({"any": {}}), 1));
    chat.tools.choice = Some(ToolChoice::One("h".to_owned()));
    assert_eq!(refused(&chat, CLAUDE).0, "tool_choice");
    chat.tools.choice = Some(ToolChoice::Required);
    assert_eq!(refused(&chat, FABLE).0, "tool_choice");
    chat.tools.offered.clear();
    assert_eq!(refused(&chat, CLAUDE).0, "tool_choice");
}

const FABLE_NOT: &str = NEWEST;

// === Output ===

#[test]
fn an_answer_follows_a_schema_natively_or_by_a_tool() {
    let mut chat = asked();
    let schema = json!({"type": "object", "properties": {"a": {"type": "array", "maxItems": 2}}});
    chat.output.format = Format::Schema { name: Some("n".into()), description: Some("d".into()), schema, strict: None };
    let got = body(&chat, CLAUDE);
    let definition = &got["outputConfig"]["textFormat"]["structure"]["jsonSchema"];
    assert_eq!((&definition["name"], &definition["description"]), (&json!("n"), &json!("d")));
    let schema: Value = serde_json::from_str(definition["schema"].as_str().unwrap()).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let told = &schema["properties"]["a"];
    assert!(told["maxItems"].is_null() && told["description"].as_str().unwrap().contains("maxItems: 2"), "{schema}");

    for (model, form) in [(NOVA, StructuredOutput::Native), (CLAUDE, StructuredOutput::Tool)] {
        let (got, _) = sent_as(&chat, model, form).unwrap();
        assert!(got["outputConfig"].is_null());
        assert_eq!(got["toolConfig"]["toolChoice"], json!({"tool": {"name": ANSWER_TOOL}}));
    }
    let (fable, dropped) = sent(&chat, FABLE);
    assert!(fable["toolConfig"]["toolChoice"].is_null());
    assert_eq!(dropped, ["response_format"]);

    chat.output.format = Format::JsonObject;
    assert!(body(&chat, CLAUDE)["system"][0]["text"].as_str().unwrap().contains("JSON"));
}

#[test]
fn sampling_goes_where_the_model_takes_it() {
    let mut chat = asked();
    chat.output.max_tokens = Some(10);
    chat.sampling.temperature = Some(1.5);
    chat.sampling.top_p = Some(0.5);
    chat.sampling.top_k = Some(3);
    chat.sampling.stop = vec!["x".into(), "\n".into(), String::new()];
    let (nova, dropped) = sent(&chat, NOVA);
    assert_eq!(
        nova["inferenceConfig"],
        json!({"maxTokens": 10, "temperature": 1.0, "topP": 0.5, "stopSequences": ["x", "\n"]})
    );
    assert_eq!(nova["additionalModelRequestFields"], json!({"inferenceConfig": {"topK": 3}}));
    assert_eq!(dropped, ["temperature=1", "stop"]);

    let (claude, dropped) = sent(&chat, CLAUDE);
    assert_eq!(claude["inferenceConfig"], json!({"maxTokens": 10, "temperature": 1.0, "stopSequences": ["x"]}));
    assert_eq!(claude["additionalModelRequestFields"], json!({"top_k": 3}));
    assert_eq!(claude["additionalModelResponseFieldPaths"], json!(["/stop_sequence", "/delta/stop_sequence"]));
    assert_eq!(dropped, ["temperature=1", "top_p", "stop"]);

    let (newest, dropped) = sent(&chat, NEWEST);
    assert_eq!(newest["inferenceConfig"], json!({"maxTokens": 10, "stopSequences": ["x"]}));
    assert_eq!(dropped, ["temperature", "top_p", "top_k", "stop"]);

    assert_eq!(sent(&chat, LLAMA).1, ["temperature=1", "top_k", "stop"]);
    assert!(body(&asked(), NOVA)["inferenceConfig"].is_null());
}

#[test]
fn what_tunes_is_dropped_with_a_note_and_what_changes_the_answer_is_refused() {
    let mut chat = asked();
    chat.sampling.seed = Some(1);
    chat.sampling.presence_penalty = Some(0.5);
    chat.sampling.frequency_penalty = Some(0.0);
    chat.output.verbosity = Some("low".into());
    chat.output.prediction = Some(json!({}));
    chat.tools.offered = vec![tool("f")];
    chat.tools.parallel = Some(false);
    chat.extra.insert("unheard_of".into(), json!(1));
    chat.extra.insert("nothing".into(), json!(false));
    assert_eq!(
        sent(&chat, CLAUDE).1,
        ["presence_penalty", "seed", "verbosity", "prediction", "unheard_of", "parallel_tool_calls"]
    );
    for (change, param) in [
        ((|chat| chat.sampling.n = Some(2)) as fn(&mut ChatRequest), "n"),
        (|chat| chat.sampling.logprobs = Some(true), "logprobs"),
        (|chat| chat.sampling.logit_bias = json!({"1": 1}).as_object().cloned(), "logit_bias"),
        (|chat| chat.output.modalities = vec!["text".into(), "audio".into()], "modalities"),
    ] {
        let mut chat = asked();
        change(&mut chat);
        assert_eq!(refused(&chat, NOVA).0, param);
    }
}

#[test]
fn facts_about_the_caller_and_the_services_own_members_pass() {
    let mut chat = asked();
    chat.caller.service_tier = Some("flex".into());
    chat.caller.metadata = json!({"team": "a b", "empty": ""}).as_object().cloned();
    chat.caller.user = Some("u".into());
    chat.extra.insert("guardrail_config".into(), json!({"guardrailIdentifier": "g", "guardrailVersion": "1"}));
    chat.extra.insert("performanceConfig".into(), json!({"latency": "optimized"}));
    chat.extra.insert("additional_model_request_fields".into(), json!({"top_k": 7}));
    chat.sampling.top_k = Some(3);
    let (got, dropped) = sent(&chat, CLAUDE);
    assert_eq!(got["serviceTier"], json!({"type": "flex"}));
    assert_eq!(got["requestMetadata"], json!({"team": "a b", "empty": ""}));
    assert_eq!(got["guardrailConfig"]["guardrailIdentifier"], "g");
    assert_eq!(got["performanceConfig"], json!({"latency": "optimized"}));
    assert_eq!(got["additionalModelRequestFields"], json!({"top_k": 7}), "the caller's own word counts");
    assert_eq!(dropped, ["user"]);

    chat.caller.metadata = json!({"team": "ä"}).as_object().cloned();
    chat.caller.service_tier = Some("scale".into());
    assert_eq!(sent(&chat, CLAUDE).1, ["user", "service_tier", "metadata"]);
    chat.extra.insert("additional_model_request_fields".into(), json!(1));
    assert_eq!(refused(&chat, CLAUDE).0, "additional_model_request_fields");
}

#[test]
fn effort_is_told_in_each_vendors_words() {
    let fields = |effort, model| {
        let mut chat = asked();
        chat.reasoning.effort = Some(effort);
        let (body, dropped) = sent(&chat, model);
        (body["additionalModelRequestFields"].clone(), dropped.concat())
    };
    let quiet = |fields: Value| (fields, String::new());
    let budget = |tokens: u64| json!({"thinking": {"type": "enabled", "budget_tokens": tokens}});
    let adaptive = |effort: &str| json!({"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": effort}});
    assert_eq!(fields(Effort::Low, CLAUDE), quiet(budget(2048)));
    assert_eq!(fields(Effort::Max, CLAUDE), quiet(budget(24_576)));
    assert_eq!(fields(Effort::Minimal, NEWEST), quiet(adaptive("low")));
    assert_eq!(fields(Effort::XHigh, NEWEST), quiet(adaptive("xhigh")));
    assert_eq!(fields(Effort::XHigh, "anthropic.claude-opus-4-6-v1"), quiet(adaptive("high")));
    assert_eq!(fields(Effort::None, NEWEST), quiet(json!({"thinking": {"type": "disabled"}})));
    assert_eq!(fields(Effort::None, FABLE), (Value::Null, "reasoning_effort".into()));
    assert_eq!(
        fields(Effort::High, "anthropic.claude-3-haiku-20240307-v1:0"),
        (Value::Null, "reasoning_effort".into())
    );
    assert_eq!(
        fields(Effort::Medium, NOVA_2),
        quiet(json!({"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}}))
    );
    assert_eq!(fields(Effort::None, NOVA_2), quiet(json!({"reasoningConfig": {"type": "disabled"}})));
    assert_eq!(fields(Effort::High, NOVA), (Value::Null, "reasoning_effort".into()));
    assert_eq!(fields(Effort::XHigh, GPT_OSS), quiet(json!({"reasoning_effort": "high"})));
    assert_eq!(fields(Effort::None, GPT_OSS), (Value::Null, "reasoning_effort".into()));
    assert_eq!(fields(Effort::Medium, QWEN), quiet(json!({"reasoning_config": "high"})));
    assert_eq!(fields(Effort::Minimal, QWEN), quiet(json!({"reasoning_config": "low"})));
    assert_eq!(fields(Effort::Low, LLAMA), (Value::Null, "reasoning_effort".into()));
}

#[test]
fn anthropics_own_setting_is_kept_or_put_into_words() {
    let fields = |budget, mode, model| {
        let mut chat = asked();
        chat.origin = Api::Messages;
        (chat.reasoning.budget_tokens, chat.reasoning.mode) = (budget, Some(mode));
        body(&chat, model)["additionalModelRequestFields"].clone()
    };
    let own = json!({"thinking": {"type": "enabled", "budget_tokens": 5000}});
    assert_eq!(fields(Some(5000), ThinkMode::Enabled, CLAUDE), own);
    assert_eq!(fields(Some(5000), ThinkMode::Enabled, "anthropic.claude-sonnet-4-6"), own);
    assert_eq!(
        fields(Some(5000), ThinkMode::Enabled, NEWEST),
        json!({"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "medium"}})
    );
    assert_eq!(
        fields(None, ThinkMode::Adaptive, NEWEST),
        json!({"thinking": {"type": "adaptive", "display": "summarized"}})
    );
    assert_eq!(
        fields(None, ThinkMode::Adaptive, CLAUDE),
        json!({"thinking": {"type": "enabled", "budget_tokens": 8192}})
    );
    assert_eq!(fields(None, ThinkMode::Disabled, CLAUDE), json!({"thinking": {"type": "disabled"}}));
    assert_eq!(
        fields(Some(20_000), ThinkMode::Enabled, NOVA_2),
        json!({"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}})
    );
}

#[test]
fn thinking_gives_way_to_what_it_cannot_stand_beside() {
    let mut chat = asked();
    chat.reasoning.effort = Some(Effort::High);
    chat.output.max_tokens = Some(4000);
    chat.sampling.temperature = Some(0.5);
    let (got, dropped) = sent(&chat, CLAUDE);
    assert_eq!(got["additionalModelRequestFields"]["thinking"]["budget_tokens"], 3000, "a quarter is for the answer");
    assert_eq!(dropped, ["temperature"]);
    chat.output.max_tokens = Some(1000);
    assert_eq!(sent(&chat, CLAUDE).1, ["reasoning_effort"], "there is no room for it");
    chat.output.max_tokens = None;
    chat.tools.offered = vec![tool("f")];
    chat.tools.choice = Some(ToolChoice::Required);
    assert_eq!(sent(&chat, CLAUDE).1, ["reasoning_effort"]);
    assert_eq!(sent(&chat, NEWEST).1, ["temperature"], "thinking that adapts can stand beside a forced tool");

    let mut nova = asked();
    nova.reasoning.effort = Some(Effort::High);
    (nova.output.max_tokens, nova.sampling.top_p) = (Some(10), Some(0.5));
    let (got, dropped) = sent(&nova, NOVA_2);
    assert!(got["inferenceConfig"].is_null());
    assert_eq!(dropped, ["max_tokens", "top_p"]);

    let mut history = super::chat(vec![
        (Role::User, vec![text("q")]),
        (Role::Assistant, vec![call("1", "{}")]),
        (Role::Tool, vec![result("1", vec![text("r")], false)]),
    ]);
    history.reasoning.effort = Some(Effort::Low);
    assert_eq!(sent(&history, CLAUDE).1, ["reasoning_effort"], "the call's own thinking is not there");
}

#[test]
fn strict_callers_hear_of_what_is_dropped() {
    let mut chat = asked();
    chat.sampling.seed = Some(1);
    let provider = provider();
    let target = target(&provider, NOVA, StructuredOutput::Native);
    let problem = Bedrock.translate(&chat, target, &mut Notes::new(Api::ChatCompletions, true)).unwrap_err();
    assert_eq!((problem.status, problem.param.as_deref()), (400, Some("seed")));
}

// === Any request ===

fn any_body() -> impl Strategy<Value = PartBody> {
    prop_oneof![
        4 => "[a ]{0,3}".prop_map(|words| text(&words)),
        1 => Just(image()),
        1 => "[a.]{0,3}".prop_map(|name| document(&name)),
        1 => Just(PartBody::Audio { source: inline("audio/wav"), format: "wav".to_owned() }),
        1 => Just(PartBody::Video { source: inline("video/mp4") }),
    ]
}

fn any_parts(role: Role) -> BoxedStrategy<Vec<PartBody>> {
    let signature = Some(Signature { family: Lineage::Anthropic, value: "p".to_owned() });
    let proof = PartBody::Reasoning(ReasoningPart { signature, ..ReasoningPart::default() });
    match role {
        Role::Assistant => {
            let body = prop_oneof![
                "[a ]{0,3}".prop_map(|words| text(&words)),
                "[a/]{0,9}".prop_map(|id| call(&id, "{}")),
                Just(proof)
            ];
            prop::collection::vec(body, 0..4).boxed()
        }
        Role::Tool => {
            let result = ("[a/]{0,9}", prop::collection::vec(any_body(), 0..3), any::<bool>());
            prop::collection::vec(result.prop_map(|(id, parts, failed)| super::result(&id, parts, failed)), 0..3)
                .boxed()
        }
        Role::User => prop::collection::vec(any_body(), 0..4).boxed(),
        Role::System | Role::Developer => {
            prop::collection::vec("[a ]{0,3}".prop_map(|words| text(&words)), 0..3).boxed()
        }
    }
}

fn any_chat() -> impl Strategy<Value = ChatRequest> {
    let role = prop_oneof![Just(Role::User), Just(Role::Assistant), Just(Role::Tool), Just(Role::System)];
    let message = role.prop_flat_map(|role| any_parts(role).prop_map(move |parts| (role, parts)));
    let effort = prop::option::of(prop::sample::select(&Effort::ALL[..]));
    let choice = prop::option::of(prop_oneof![
        Just(ToolChoice::Auto),
        Just(ToolChoice::None),
        Just(ToolChoice::Required),
        Just(ToolChoice::One("g".into()))
    ]);
    let messages = prop::collection::vec(message, 0..7);
    (
        messages,
        any::<u64>(),
        effort,
        choice,
        prop::option::of(0.0..2.0),
        prop::option::of(0.0..1.0),
        prop::option::of(1..9000_u64),
    )
        .prop_map(|(messages, marks, effort, choice, temperature, top_p, most)| {
            let mut chat = chat(messages);
            let parts = chat.messages.iter_mut().flat_map(|message| &mut message.parts);
            for (nth, part) in parts.enumerate() {
                part.cache = mark("1h").filter(|_| marks >> (nth % 64) & 1 == 1);
            }
            if choice.is_some() {
                chat.tools.offered = vec![tool("f"), tool("g")];
            }
            chat.tools.choice = choice;
            chat.reasoning.effort = effort;
            (chat.sampling.temperature, chat.sampling.top_p, chat.output.max_tokens) = (temperature, top_p, most);
            chat
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_is_asked_of_whichever_model_it_is_taken_or_refused_by_field(chat in any_chat(), model in prop::sample::select(MODELS)) {
        // The helper looks at what goes out.
        match sent_as(&chat, model, StructuredOutput::Native) {
            Ok((body, _)) => {
                let all = body["messages"].to_string();
                let said = chat.messages.iter().flat_map(|message| &message.parts);
                let media = said.filter(|part| matches!(part.body, PartBody::Image { .. })).count();
                let sent = all.matches("{\"image\":").count();
                prop_assert!(sent >= media, "{}", all);
            }
            Err(problem) => prop_assert_eq!((problem.status, problem.param.as_deref()), (400, Some("tool_choice"))),
        }
    }
}
