mod replies;

use serde_json::json;

use super::*;
use crate::config::StructuredOutput;
use crate::protocol::chat::{ChatEvent, Citation, FinishReason, Lineage, ReasoningPart, ReplyFault, Signature};
use crate::protocol::inbound::{Inbound as _, chat::Chat};
use crate::protocol::usage::Usage;
use crate::providers::StandIns;
use crate::providers::answer_tool::ANSWER_TOOL;
use crate::providers::outbound::{decode_body, decoder, translated as translate};

fn provider() -> Provider {
    serde_json::from_value(json!({"dialect": "anthropic", "base_url": "https://a.example"})).unwrap()
}

fn target(provider: &Provider, structured_output: StructuredOutput) -> Target<'_> {
    target_of(provider, "claude-sonnet-4-5", structured_output)
}

fn target_of<'a>(provider: &'a Provider, model: &'a str, structured_output: StructuredOutput) -> Target<'a> {
    Target { provider, upstream_model: model, max_output_tokens: 8192, structured_output, strict_params: false }
}

/// What a model of this name is asked, and what was left out.
fn asked_of(model: &str, more: Value) -> (Value, Vec<String>) {
    let chat = Chat.read(chat(json!([{"role": "user", "content": "hi"}]), more).to_string().as_bytes()).unwrap();
    let provider = provider();
    let request = translate(&Anthropic, target_of(&provider, model, StructuredOutput::Native), &chat).unwrap();
    (serde_json::from_slice(&request.body).unwrap(), request.dropped_params)
}

fn translated(body: &Value, structured_output: StructuredOutput) -> Result<(Value, Vec<String>), Problem> {
    let chat = Chat.read(body.to_string().as_bytes())?;
    let request = translate(&Anthropic, target(&provider(), structured_output), &chat)?;
    Ok((serde_json::from_slice(&request.body).unwrap(), request.dropped_params))
}

/// A request with these messages and further members.
fn chat(messages: Value, more: Value) -> Value {
    let mut body = json!({"model": "m", "messages": messages});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The translation of a request that asks one question, with further members.
fn asked(more: Value) -> Value {
    translated(&chat(json!([{"role": "user", "content": "hi"}]), more), StructuredOutput::Native).unwrap().0
}

fn asked_and_dropped(more: Value) -> (Value, Vec<String>) {
    translated(&chat(json!([{"role": "user", "content": "hi"}]), more), StructuredOutput::Native).unwrap()
}

fn asked_with_answer_tool(more: Value) -> Value {
    translated(&chat(json!([{"role": "user", "content": "hi"}]), more), StructuredOutput::Tool).unwrap().0
}

fn messages_of(messages: Value) -> Value {
    translated(&chat(messages, json!({})), StructuredOutput::Native).unwrap().0["messages"].take()
}

fn refused(messages: Value, more: Value) -> String {
    let problem = translated(&chat(messages, more), StructuredOutput::Native).unwrap_err();
    let param = problem.param.unwrap();
    assert_eq!((problem.status, problem.message.starts_with(&param)), (400, true), "{}", problem.message);
    param
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn tools() -> Value {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
    json!([tool("f"), tool("g")])
}

fn schema_format() -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": {"properties": {}}}})
}

// === Requests ===

#[test]
fn instructions_move_to_the_system_from_wherever_they_stand() {
    let body = chat(
        json!([
            {"role": "system", "content": "one"},
            {"role": "user", "content": "hi"},
            {"role": "developer", "content": [{"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}}]},
            {"role": "user", "content": "there"},
        ]),
        json!({}),
    );
    let (request, _) = translated(&body, StructuredOutput::Native).unwrap();
    let two = json!({"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}});
    assert_eq!(request["system"], json!([text("one"), two]));
    assert_eq!(request["messages"], json!([{"role": "user", "content": [text("hi"), text("there")]}]));
}

#[test]
fn turns_alternate_and_begin_with_the_users() {
    let turn = |role: &str, content: &str| json!({"role": role, "content": [text(content)]});
    let said = |role: &str, content: &str| json!({"role": role, "content": content});
    assert_eq!(
        messages_of(json!([said("user", "a"), said("assistant", "b"), said("user", "c")])),
        json!([turn("user", "a"), turn("assistant", "b"), turn("user", "c")])
    );
    assert_eq!(
        messages_of(json!([said("assistant", "b"), said("user", "c")])),
        json!([turn("user", "."), turn("assistant", "b"), turn("user", "c")])
    );
    assert_eq!(
        messages_of(json!([said("user", "a"), said("assistant", " "), said("user", "c")])),
        json!([{"role": "user", "content": [text("a"), text("c")]}])
    );
    assert_eq!(messages_of(json!([said("system", "s")])), json!([turn("user", ".")]));
    // The beginning of the answer may be given, without white space at its end.
    assert_eq!(
        messages_of(json!([said("user", "a"), said("assistant", "b \n")])),
        json!([turn("user", "a"), turn("assistant", "b")])
    );
}

#[test]
fn text_of_white_space_alone_is_left_out_everywhere() {
    let messages = messages_of(json!([
        {"role": "user", "content": [{"type": "text", "text": "\n"}, {"type": "text", "text": "a"}]},
        {"role": "assistant", "content": "\n\n", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "1", "content": ""},
    ]));
    assert_eq!(messages[0]["content"], json!([text("a")]));
    assert_eq!(messages[1]["content"], json!([{"type": "tool_use", "id": "1", "name": "f", "input": {}}]));
    assert_eq!(messages[2]["content"], json!([{"type": "tool_result", "tool_use_id": "1"}]));
}

#[test]
fn images_come_inline_or_by_address() {
    let image = |url: &str| json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]}]);
    let source = |url: &str| messages_of(image(url))[0]["content"][0]["source"].take();
    assert_eq!(
        source("data:image/png;base64,AAAA"),
        json!({"type": "base64", "media_type": "image/png", "data": "AAAA"})
    );
    assert_eq!(source("data:image/jpg;base64,AAAA")["media_type"], "image/jpeg");
    assert_eq!(source("https://x.example/a.png"), json!({"type": "url", "url": "https://x.example/a.png"}));
    assert_eq!(refused(image("http://x.example/a.png"), json!({})), "messages[0].content[0]");
    for url in ["ftp://x", "a.png", "data:image/png,AAAA"] {
        assert_eq!(refused(image(url), json!({})), "messages[0].content[0].image_url.url", "{url}");
    }
}

#[test]
fn documents_come_inline() {
    let file = |file: Value| json!([{"role": "user", "content": [{"type": "file", "file": file}]}]);
    let block = |file_| messages_of(file(file_))[0]["content"][0].take();
    assert_eq!(
        block(json!({"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"})),
        json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}, "title": "a.pdf"})
    );
    assert_eq!(
        block(json!({"file_data": "data:text/markdown;charset=utf-8;base64,aMOp"})),
        json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hé"}})
    );
    for wrong in [json!({"file_id": "file-1"}), json!({"file_data": "data:text/plain;base64,/w=="})] {
        assert_eq!(refused(file(wrong), json!({})), "messages[0].content[0]");
    }
    assert_eq!(refused(file(json!({"file_data": "x"})), json!({})), "messages[0].content[0].file.file_data");
}

#[test]
fn parallel_calls_and_their_results_keep_their_order_and_results_come_first() {
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let messages = messages_of(json!([
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "let me see", "tool_calls": [call("call_1", "f", "{\"a\": 1}"), call("functions.g:1", "g", "null")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "one"},
        {"role": "user", "content": "and hurry"},
        {"role": "tool", "tool_call_id": "functions.g:1", "content": [{"type": "text", "text": "two"}, {"type": "image_url", "image_url": {"url": "https://x.example/i"}}]},
    ]));
    let fitted = crate::protocol::chat::ids::fit("functions.g:1", crate::protocol::chat::ids::plain, 64);
    assert_eq!(
        messages[1]["content"],
        json!([
            text("let me see"),
            {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": fitted, "name": "g", "input": {}},
        ])
    );
    assert_eq!(
        messages[2]["content"],
        json!([
            {"type": "tool_result", "tool_use_id": "call_1", "content": [text("one")]},
            {"type": "tool_result", "tool_use_id": fitted, "content": [
                text("two"), {"type": "image", "source": {"type": "url", "url": "https://x.example/i"}},
            ]},
            text("and hurry"),
        ])
    );
    assert_eq!(messages.as_array().unwrap().len(), 3);
}

#[test]
fn tools_get_the_schema_that_the_api_insists_on() {
    let function = |function: Value| json!({"type": "function", "function": function});
    let marked = json!({"type": "function", "function": {"name": "c"}, "cache_control": {"type": "ephemeral"}});
    let request = asked(json!({"tools": [
        function(json!({"name": "a", "description": "d", "strict": true, "parameters": {"properties": {"x": {"type": "string"}}}})),
        function(json!({"name": "b", "parameters": null})),
        marked,
    ]}));
    let empty = json!({"type": "object", "properties": {}});
    assert_eq!(
        request["tools"],
        json!([
            {"name": "a", "description": "d", "strict": true, "input_schema":
                {"properties": {"x": {"type": "string"}}, "type": "object", "additionalProperties": false}},
            {"name": "b", "input_schema": empty},
            {"name": "c", "input_schema": empty, "cache_control": {"type": "ephemeral"}},
        ])
    );
}

#[test]
fn each_form_of_tool_choice_has_its_counterpart() {
    let choice = |more: Value| {
        let mut all = json!({"tools": tools()});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        asked(all).get("tool_choice").cloned()
    };
    assert_eq!(choice(json!({})), None);
    assert_eq!(choice(json!({"tool_choice": null, "parallel_tool_calls": true})), None);
    assert_eq!(choice(json!({"tool_choice": "auto"})), Some(json!({"type": "auto"})));
    assert_eq!(choice(json!({"tool_choice": "none"})), Some(json!({"type": "none"})));
    assert_eq!(choice(json!({"tool_choice": "required"})), Some(json!({"type": "any"})));
    assert_eq!(
        choice(json!({"tool_choice": {"type": "function", "function": {"name": "g"}}, "parallel_tool_calls": false})),
        Some(json!({"type": "tool", "name": "g", "disable_parallel_tool_use": true}))
    );
    assert_eq!(
        choice(json!({"parallel_tool_calls": false})),
        Some(json!({"type": "auto", "disable_parallel_tool_use": true}))
    );
    assert_eq!(asked(json!({"tool_choice": "auto", "tools": []})).get("tool_choice"), None);
}

#[test]
fn sampling_and_limits_are_carried_over() {
    let request = asked(json!({
        "temperature": 1.7, "top_p": 0.5, "top_k": 4, "stop": ["END", " "], "max_tokens": 9, "max_completion_tokens": 7,
        "user": "u", "service_tier": "default", "stream": true,
    }));
    let expected = json!({
        "model": "claude-sonnet-4-5", "max_tokens": 7, "messages": [{"role": "user", "content": [text("hi")]}], "stream": true,
        "temperature": 1.0, "top_k": 4, "stop_sequences": ["END"],
        "metadata": {"user_id": "u"}, "service_tier": "standard_only",
    });
    assert_eq!(request, expected);
    assert_eq!(asked(json!({"top_p": 0.5}))["top_p"], 0.5);
    assert_eq!(asked(json!({"max_tokens": 9}))["max_tokens"], 9);
    assert_eq!(asked(json!({}))["max_tokens"], 8192);
    assert_eq!(asked(json!({"stop": "x"}))["stop_sequences"], json!(["x"]));
    assert_eq!(asked(json!({"temperature": 0.2, "top_p": 1.0})).get("top_p"), None);
}

#[test]
fn parameters_that_cannot_be_honoured_are_listed() {
    let (request, dropped) = asked_and_dropped(json!({
        "seed": 1, "logprobs": false, "frequency_penalty": 0.5, "stop": [" "], "service_tier": "flex", "logit_bias": {},
        "presence_penalty": null, "store": false, "metadata": {"a": "b"}, "made_up": 1, "no\r\nheader": 1, "é": 1, "": 1,
    }));
    assert_eq!(dropped, ["frequency_penalty", "seed", "metadata", "made_up", "stop", "service_tier"]);
    assert_eq!(request.as_object().unwrap().keys().collect::<Vec<_>>(), ["model", "max_tokens", "messages"]);
}

#[test]
fn answers_in_json_are_asked_for_natively_or_by_a_tool() {
    let native = asked(json!({"response_format": schema_format()}));
    assert_eq!(native["output_config"]["format"]["type"], "json_schema");
    assert_eq!(native["output_config"]["format"]["schema"]["properties"], json!({}));
    assert_eq!(native.get("tools"), None);

    let by_tool = asked_with_answer_tool(json!({"response_format": schema_format()}));
    assert_eq!(by_tool["tools"][0]["name"], ANSWER_TOOL);
    assert_eq!(by_tool["tools"][0]["input_schema"], json!({"properties": {}, "type": "object"}));
    let forced = json!({"type": "tool", "name": ANSWER_TOOL, "disable_parallel_tool_use": true});
    assert_eq!(by_tool["tool_choice"], forced);
    assert_eq!(by_tool.get("output_config"), None);

    let object = asked(json!({"response_format": {"type": "json_object"}}));
    assert!(object["system"][0]["text"].as_str().unwrap().contains("JSON"));
    assert_eq!(asked(json!({"response_format": {"type": "text"}})).get("system"), None);
}

#[test]
fn the_answer_tool_respects_the_callers_tools() {
    let choice = |choice: Value, parallel: bool| {
        let more = json!({"response_format": schema_format(), "tools": tools(), "tool_choice": choice, "parallel_tool_calls": parallel});
        asked_with_answer_tool(more)["tool_choice"].take()
    };
    assert_eq!(choice(json!("auto"), true), json!({"type": "any"}));
    assert_eq!(choice(json!("auto"), false), json!({"type": "any", "disable_parallel_tool_use": true}));
    assert_eq!(choice(json!("none"), true)["name"], ANSWER_TOOL);
    let named = json!({"type": "function", "function": {"name": "g"}});
    assert_eq!(choice(named, true), json!({"type": "tool", "name": "g"}));

    // The name is taken only where an answer comes by it.
    let own = json!([{"type": "function", "function": {"name": ANSWER_TOOL}}]);
    let question = || json!([{"role": "user", "content": "hi"}]);
    assert!(translated(&chat(question(), json!({"tools": own})), StructuredOutput::Tool).is_ok());
    let body = chat(question(), json!({"tools": own, "response_format": schema_format()}));
    assert!(translated(&body, StructuredOutput::Native).is_ok());
    assert_eq!(translated(&body, StructuredOutput::Tool).unwrap_err().param.as_deref(), Some("tools[0]"));
}

#[test]
fn effort_becomes_a_budget_that_leaves_room_for_the_answer() {
    let budget = |effort: &str, limit: u64| {
        let (request, dropped) = asked_and_dropped(json!({"reasoning_effort": effort, "max_tokens": limit}));
        (request["thinking"]["budget_tokens"].as_u64(), dropped.len())
    };
    assert_eq!(budget("low", 64_000), (Some(2048), 0));
    assert_eq!(budget("medium", 64_000), (Some(8192), 0));
    assert_eq!(budget("high", 64_000), (Some(24_576), 0));
    assert_eq!(budget("high", 8000), (Some(6000), 0));
    assert_eq!(budget("low", 1200), (None, 1));
    assert_eq!(asked(json!({"thinking": {"type": "enabled"}}))["thinking"]["budget_tokens"], 6144);
    assert_eq!(budget("none", 64_000), (None, 0));
    assert_eq!(budget("minimal", 64_000), (None, 0));
    let question = json!([{"role": "user", "content": "hi"}]);
    assert_eq!(refused(question, json!({"reasoning_effort": "very"})), "reasoning_effort");
}

#[test]
fn newer_models_think_as_they_see_fit_and_are_told_how_much_in_words() {
    let thinks = |model: &str, more: Value| {
        let (request, dropped) = asked_of(model, more);
        (request["thinking"].clone(), request["output_config"]["effort"].as_str().map(str::to_owned), dropped)
    };
    let adaptive = |effort: &str| {
        (json!({"type": "adaptive", "display": "summarized"}), Some(effort.to_owned()), Vec::<String>::new())
    };
    assert_eq!(thinks("claude-opus-4-8", json!({"reasoning_effort": "xhigh"})), adaptive("xhigh"));
    assert_eq!(thinks("claude-opus-4-6", json!({"reasoning_effort": "xhigh"})), adaptive("high"));
    assert_eq!(thinks("claude-opus-9", json!({"reasoning_effort": "minimal"})), adaptive("low"));
    let budget = json!({"thinking": {"type": "enabled", "budget_tokens": 10_000}});
    assert_eq!(thinks("claude-opus-4-8", budget), adaptive("medium"));
    let own = json!({"type": "adaptive", "display": "omitted"});
    assert_eq!(thinks("claude-opus-4-8", json!({"thinking": own})), (own, None, vec![]));
    let off = (json!({"type": "disabled"}), None, vec![]);
    assert_eq!(thinks("claude-opus-4-8", json!({"reasoning_effort": "none"})), off);
    let never = thinks("claude-fable-5", json!({"reasoning_effort": "none"}));
    assert_eq!((never.1.as_deref(), never.2), (Some("low"), vec!["reasoning_effort".to_owned()]));
    let oldest = thinks("claude-3-5-sonnet-20241022", json!({"reasoning_effort": "low"}));
    assert_eq!(oldest, (Value::Null, None, vec!["reasoning_effort".to_owned()]));
}

#[test]
fn what_a_generation_refuses_it_is_not_sent() {
    let (request, dropped) = asked_of("claude-opus-4-8", json!({"temperature": 0.3, "top_p": 0.5, "top_k": 3}));
    assert_eq!(dropped, ["temperature", "top_p", "top_k"]);
    assert!(["temperature", "top_p", "top_k"].iter().all(|name| request.get(name).is_none()));
    let one = json!({"type": "function", "function": {"name": "g"}});
    let (request, dropped) = asked_of("claude-fable-5", json!({"tools": tools(), "tool_choice": one}));
    assert_eq!((request["tools"].as_array().unwrap().len(), &request["tools"][0]["name"]), (1, &json!("g")));
    assert_eq!((request.get("tool_choice"), dropped), (None, vec!["tool_choice".to_owned()]));
    let (request, _) = asked_of("claude-3-5-haiku-latest", json!({"response_format": schema_format()}));
    assert_eq!(request["tools"][0]["name"], ANSWER_TOOL);

    let begun = chat(json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "So"}]), json!({}));
    let begun = Chat.read(begun.to_string().as_bytes()).unwrap();
    let provider = provider();
    let target = target_of(&provider, "claude-opus-4-8", StructuredOutput::Native);
    let request = translate(&Anthropic, target, &begun).unwrap();
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((&body["messages"][2]["role"], request.dropped_params), (&json!("user"), vec!["prefill".to_owned()]));
}

#[test]
fn of_many_cache_markers_the_last_four_stay() {
    let part = |text: &str| json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral"}});
    let said: Vec<Value> = ["a", "b", "c", "d"].iter().map(|text| part(text)).collect();
    let body = chat(json!([{"role": "system", "content": [part("s")]}, {"role": "user", "content": said}]), json!({}));
    let (request, _) = translated(&body, StructuredOutput::Native).unwrap();
    assert_eq!(request["system"][0].get("cache_control"), None);
    assert!((0..4).all(|nth| request["messages"][0]["content"][nth].get("cache_control").is_some()));
}

#[test]
fn thinking_rules_out_sampling_parameters() {
    let (request, dropped) =
        asked_and_dropped(json!({"reasoning_effort": "low", "temperature": 0.3, "top_p": 0.5, "top_k": 3}));
    assert_eq!(dropped, ["temperature", "top_p", "top_k"]);
    assert!(request.get("thinking").is_some() && request.get("temperature").is_none());
    let (request, dropped) = asked_and_dropped(json!({"thinking": {"type": "disabled"}, "temperature": 0.3}));
    assert_eq!((request["temperature"].as_f64(), dropped.len()), (Some(0.3), 0));
}

#[test]
fn the_callers_own_thinking_is_handed_on_with_room_for_the_answer() {
    let own = json!({"type": "enabled", "budget_tokens": 10_000, "display": "omitted"});
    let (request, dropped) = asked_and_dropped(json!({"thinking": own, "reasoning_effort": "low"}));
    assert_eq!((&request["thinking"], dropped), (&own, vec!["reasoning_effort".to_owned()]));
    assert_eq!(request["max_tokens"], 18_192);
    let question = || json!([{"role": "user", "content": "hi"}]);
    assert_eq!(refused(question(), json!({"thinking": true})), "thinking.type");
}

#[test]
fn thinking_is_dropped_where_the_api_would_refuse_it() {
    let dropped = |messages: Value, more: Value| {
        let (request, dropped) = translated(&chat(messages, more), StructuredOutput::Native).unwrap();
        assert_eq!(request.get("thinking").is_none(), !dropped.is_empty());
        dropped
    };
    let question = || json!([{"role": "user", "content": "q"}]);
    let effort = || json!({"reasoning_effort": "low"});
    assert_eq!(
        dropped(question(), json!({"reasoning_effort": "low", "tools": tools(), "tool_choice": "required"})),
        ["reasoning_effort"]
    );
    let own = json!({"type": "enabled", "budget_tokens": 2000});
    assert_eq!(
        dropped(question(), json!({"thinking": own, "tools": tools(), "tool_choice": "required"})),
        ["thinking"]
    );
    assert_eq!(
        dropped(json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "So"}]), effort()),
        ["reasoning_effort"]
    );

    let tool_turn = |thinking_blocks: Value| {
        json!([
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": null, "thinking_blocks": thinking_blocks,
             "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "r"},
            {"role": "user", "content": "and?"},
        ])
    };
    let signed = json!([{"type": "thinking", "thinking": "hm", "signature": "s"}]);
    assert_eq!(dropped(tool_turn(json!(null)), effort()), ["reasoning_effort"]);
    assert_eq!(dropped(tool_turn(signed), effort()), Vec::<String>::new());
}

#[test]
fn signed_thinking_goes_back_first_and_unchanged() {
    let blocks = json!([
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "b3BhcXVl"},
    ]);
    let messages = messages_of(json!([
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "reasoning_content": "hm", "thinking_blocks": blocks},
        {"role": "user", "content": "q"},
    ]));
    assert_eq!(messages[1]["content"], json!([blocks[0], blocks[1], text("a")]));
}

#[test]
fn cache_markers_are_kept_on_parts_and_put_on_the_last_part_of_a_message() {
    let marker = json!({"type": "ephemeral", "ttl": "1h"});
    let messages = messages_of(json!([
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": marker}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "cache_control": marker, "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s"}]},
        {"role": "user", "cache_control": marker, "content": [{"type": "text", "text": "c"}, {"type": "image_url", "image_url": {"url": "https://x.example/i"}}]},
    ]));
    assert_eq!(messages[0]["content"][0]["cache_control"], marker);
    assert_eq!(messages[0]["content"][1].get("cache_control"), None);
    assert_eq!(messages[1]["content"][0].get("cache_control"), None);
    assert_eq!(messages[2]["content"][0].get("cache_control"), None);
    assert_eq!(messages[2]["content"][1]["cache_control"], marker);
}

#[test]
fn what_has_no_counterpart_is_refused_by_name() {
    let question = || json!([{"role": "user", "content": "hi"}]);
    let part = |role: &str, part: Value| json!([{"role": role, "content": [part], "tool_call_id": "1"}]);
    assert_eq!(refused(question(), json!({"n": 2})), "n");
    assert_eq!(refused(question(), json!({"logprobs": true})), "logprobs");
    assert_eq!(refused(question(), json!({"logit_bias": {"1": 2}})), "logit_bias");
    assert_eq!(refused(question(), json!({"modalities": ["text", "audio"]})), "modalities");
    assert_eq!(refused(question(), json!({"temperature": "hot"})), "temperature");
    assert_eq!(refused(question(), json!({"tool_choice": {"type": "one"}})), "tool_choice");
    assert_eq!(refused(question(), json!({"response_format": {"type": "grammar"}})), "response_format.type");
    assert_eq!(refused(json!([]), json!({})), "messages");
    assert_eq!(refused(json!([{"role": "wizard", "content": "x"}]), json!({})), "messages[0].role");
    assert_eq!(
        refused(
            part("user", json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}})),
            json!({})
        ),
        "messages[0].content[0]"
    );
    let image = json!({"type": "image_url", "image_url": {"url": "https://x.example/i"}});
    for role in ["system", "assistant"] {
        assert_eq!(refused(part(role, image.clone()), json!({})), "messages[0].content[0]");
    }
    assert_eq!(refused(json!([{"role": "tool", "content": "x"}]), json!({})), "messages[0].tool_call_id");
    let call = |arguments: &str| json!([{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]}]);
    for arguments in ["[1]", "{", "5"] {
        assert_eq!(refused(call(arguments), json!({})), "messages[0].tool_calls[0]");
    }
}

#[test]
fn the_older_form_of_tools_is_taken_as_well() {
    let call = json!({"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}});
    let result = json!({"role": "function", "name": "f", "content": "r"});
    let body = chat(
        json!([{"role": "user", "content": "q"}, call, result]),
        json!({"functions": [{"name": "f"}], "function_call": {"name": "f"}}),
    );
    let (request, _) = translated(&body, StructuredOutput::Native).unwrap();
    assert_eq!(request["tools"][0]["name"], "f");
    // One call at a time is all that the older form has.
    let choice = json!({"type": "tool", "name": "f", "disable_parallel_tool_use": true});
    assert_eq!(request["tool_choice"], choice);
    let id = &request["messages"][1]["content"][0]["id"];
    assert_eq!(
        request["messages"][2]["content"][0],
        json!({"type": "tool_result", "tool_use_id": id, "content": [text("r")]})
    );
}

#[test]
fn only_allowed_tools_are_offered() {
    let choice = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}});
    let request = asked(json!({"tools": tools(), "tool_choice": choice}));
    assert_eq!((&request["tools"][0]["name"], request["tools"].as_array().unwrap().len()), (&json!("g"), 1));
    assert_eq!(request["tool_choice"], json!({"type": "any"}));
}
