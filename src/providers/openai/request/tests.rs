use super::super::OpenAi;
use super::*;
use crate::config::{Provider, StructuredOutput};
use crate::protocol::chat::{List, TextPart};
use crate::protocol::inbound::{Inbound as _, chat::Chat};
use crate::providers::Target;
use crate::providers::families::takes_cache_breakpoints;
use crate::providers::outbound::translated;

fn sent(model: &str, chat: &ChatRequest) -> (Value, Vec<String>) {
    let provider = json!({"dialect": "openai", "base_url": "https://o.example/v1"});
    let provider: Provider = serde_json::from_value(provider).unwrap();
    let structured_output = StructuredOutput::Native;
    let target = Target {
        provider: &provider,
        upstream_model: model,
        max_output_tokens: 100,
        structured_output,
        strict_params: false,
    };
    let request = translated(&OpenAi, target, chat).unwrap();
    (serde_json::from_slice(&request.body).unwrap(), request.dropped_params)
}

fn asked(more: Value) -> ChatRequest {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Chat.read(body.to_string().as_bytes()).unwrap()
}

#[test]
fn the_bound_on_output_goes_by_the_name_that_the_model_knows() {
    let bounded = asked(json!({"max_tokens": 5}));
    for (model, name) in [
        ("gpt-5-mini", "max_completion_tokens"),
        ("o3", "max_completion_tokens"),
        ("gpt-4o", "max_tokens"),
        ("gpt-oss-120b", "max_tokens"),
        ("mistral-large-latest", "max_tokens"),
    ] {
        assert_eq!(sent(model, &bounded).0[name], 5, "{model}");
    }
}

#[test]
fn thinking_is_put_in_words_for_models_that_reason_and_left_out_for_others() {
    let effort = |model: &str, more: Value| {
        let (body, dropped) = sent(model, &asked(more));
        (body.get("reasoning_effort").and_then(Value::as_str).map(str::to_owned), dropped)
    };
    let budget = || json!({"thinking": {"type": "enabled", "budget_tokens": 10_000}});
    assert_eq!(effort("gpt-5", budget()), (Some("medium".into()), vec![]));
    assert_eq!(effort("gpt-4o", budget()), (None, vec!["thinking".to_owned()]));
    assert_eq!(effort("gpt-5", json!({"reasoning_effort": "none"})), (Some("minimal".into()), vec![]));
    assert_eq!(effort("gpt-5.5", json!({"thinking": {"type": "disabled"}})), (Some("none".into()), vec![]));
    assert_eq!(effort("someone's", json!({"reasoning_effort": "max"})), (Some("max".into()), vec![]));
}

#[test]
fn what_the_models_of_openai_refuse_is_left_out_or_refused() {
    let dropped = |model: &str, more: Value| sent(model, &asked(more)).1;
    for model in ["o3", "gpt-5-mini", "gpt-5.4"] {
        assert_eq!(dropped(model, json!({"stop": ["x"]})), ["stop"], "{model}");
    }
    assert_eq!(dropped("gpt-4.1", json!({"stop": ["x"]})), Vec::<String>::new());
    for model in ["gpt-4o", "ft:gpt-4o:org::id", "gpt-3.5-turbo"] {
        assert_eq!(dropped(model, json!({"reasoning_effort": "low"})), ["reasoning_effort"], "{model}");
        assert_eq!(dropped(model, json!({"reasoning_effort": "none"})), Vec::<String>::new());
    }
    let refused = |model: &str, more: Value| {
        let mut notes = Notes::new(Api::ChatCompletions, false);
        body(&asked(more), model, &OPENAI, &mut notes).unwrap_err().param.unwrap()
    };
    assert_eq!(refused("o3", json!({"logprobs": true})), "logprobs");
    assert_eq!(refused("gpt-5", json!({"logit_bias": {"1": 5}})), "logit_bias");
    let off = json!({"logprobs": true, "reasoning_effort": "none"});
    assert_eq!(sent("gpt-5.5", &asked(off)).0["logprobs"], true);
    let by_address = json!({"messages": [{"role": "user", "content": [
        {"type": "file", "file": {"file_data": "https://a.example/a.pdf"}}]}]});
    assert_eq!(refused("gpt-4.1", by_address), "messages[0].content[0]");
}

#[test]
fn the_newest_models_get_markers_in_their_own_form() {
    let mark = json!({"type": "ephemeral"});
    let text = |text: &str| json!({"type": "text", "text": text, "cache_control": mark});
    let mut chat = asked(json!({"messages": [
        {"role": "user", "content": [text("Long."), text("Longer.")]},
        {"role": "assistant", "content": [text("I see.")], "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "R", "cache_control": mark},
    ], "tools": [{"type": "function", "function": {"name": "f"}, "cache_control": mark}]}));
    chat.instructions.push(TextPart { text: "Be kind.".into(), cache: Some(CacheMark::plain()) });
    let sent = |chat: &ChatRequest, model: &str| {
        let mut notes = Notes::new(Api::Messages, true);
        let form = ChatForm { breakpoints: takes_cache_breakpoints(model), ..OPENAI };
        let body = body(chat, model, &form, &mut notes).unwrap();
        (body, notes.into_dropped())
    };
    let (body, dropped) = sent(&chat, "gpt-5.6-sol");
    assert_eq!(dropped, Vec::<String>::new());
    let breakpoint = json!({"mode": "explicit"});
    for place in ["/messages/0/content/0", "/messages/1/content/0", "/messages/1/content/1"] {
        assert_eq!(body.pointer(place).unwrap()["prompt_cache_breakpoint"], breakpoint, "{place}");
    }
    // Not what the model has said, nor more than there may be, nor tools.
    assert_eq!(body.to_string().matches("breakpoint").count(), 3, "{body}");
    assert!(!body.to_string().contains("cache_control"));
    assert_eq!(body["messages"][2]["content"], "I see.");
    chat.instructions.clear();
    chat.messages.remove(0);
    let (body, _) = sent(&chat, "gpt-5.6-sol");
    let result = json!([{"type": "text", "text": "R", "prompt_cache_breakpoint": breakpoint}]);
    assert_eq!(body["messages"][1]["content"], result);
    assert_eq!(sent(&chat, "gpt-5.5").1, ["cache_control"]);
    assert!(!sent(&chat, "gpt-5.5").0.to_string().contains("breakpoint"));
}

#[test]
fn markers_go_to_those_that_take_them() {
    let row = crate::providers::preset::row(crate::config::Preset::OpenRouter);
    let mark = json!({"type": "ephemeral"});
    let mut chat = asked(json!({"messages": [
        {"role": "user", "content": [{"type": "text", "text": "Long.", "cache_control": mark}]},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "R", "cache_control": mark},
    ], "tools": [{"type": "function", "function": {"name": "f"}, "cache_control": mark}]}));
    chat.instructions.push(TextPart { text: "Be kind.".into(), cache: Some(CacheMark(mark.clone())) });
    let form = ChatForm { row, ..OPENAI };
    let mut notes = Notes::new(Api::Messages, false);
    let sent = body(&chat, "anthropic/claude-opus-4.1", &form, &mut notes).unwrap();
    for place in ["/messages/0/content/0", "/messages/1/content/0", "/messages/3/content/0", "/tools/0"] {
        assert_eq!(sent.pointer(place).unwrap()["cache_control"], mark, "{place}");
    }
    assert_eq!(notes.into_dropped(), Vec::<String>::new());
    let mut notes = Notes::new(Api::Messages, true);
    let elsewhere = body(&chat, "gpt-4.1", &OPENAI, &mut notes).unwrap();
    assert!(!elsewhere.to_string().contains("cache_control"));
    assert_eq!(notes.into_dropped(), ["cache_control"]);
}

#[test]
fn sampling_is_left_out_where_the_model_refuses_it() {
    let sampled = |model: &str, effort: Option<&str>| {
        sent(model, &asked(json!({"temperature": 0.5, "top_k": 3, "reasoning_effort": effort}))).1
    };
    assert_eq!(sampled("gpt-5", None), ["temperature", "top_k"]);
    assert_eq!(sampled("gpt-5.5", Some("high")), ["temperature", "top_k"]);
    assert_eq!(sampled("gpt-5.5", Some("none")), ["top_k"]);
    assert_eq!(sampled("gpt-5.4", None), ["top_k"]);
    // From here on they reason unless told not to.
    assert_eq!(sampled("gpt-5.5", None), ["temperature", "top_k"]);
    assert_eq!(sampled("llama-4", None), Vec::<String>::new());
}

#[test]
fn results_are_text_and_what_they_show_follows_once_all_are_told() {
    let mut chat = asked(json!({}));
    let at = Place::item(List::Messages, 1);
    let part = |body| Part { body, cache: None, at };
    let picture = || part(PartBody::Image { source: Source::Url("https://x.example/i".into()), detail: None });
    let result = |id: &str, parts| {
        let body = PartBody::Result { id: id.into(), name: None, parts, is_error: false };
        Message { role: Role::Tool, parts: vec![part(body)], name: None, at }
    };
    let text = part(PartBody::Text { text: "two".into(), signature: None });
    chat.instructions.push(TextPart { text: "Be kind.".into(), cache: None });
    chat.messages.extend([result("a", vec![picture()]), result("b", vec![text])]);
    let messages = sent("m", &chat).0["messages"].take();
    let roles: Vec<&str> = messages.as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "tool", "tool", "user"]);
    assert_eq!(messages[3], json!({"role": "tool", "tool_call_id": "b", "content": "two"}));
    assert_eq!(messages[4]["content"][0]["image_url"]["url"], "https://x.example/i");
}

#[test]
fn documents_have_names_and_failures_are_told() {
    let mut chat = asked(json!({}));
    let at = Place::item(List::Messages, 1);
    let part = |body| Part { body, cache: None, at };
    let pdf = Source::Base64 { media_type: "application/pdf".into(), data: "AA==".into() };
    let document = |source, name: Option<&str>, context: Option<&str>| {
        let (name, context) = (name.map(str::to_owned), context.map(str::to_owned));
        part(PartBody::Document { source, name, context, cite: false })
    };
    let text = Source::Text { text: "t".into(), media_type: "text/plain".into() };
    let parts = vec![document(pdf, None, None), document(text, Some("N"), Some("C"))];
    chat.messages.push(Message { role: Role::User, parts, name: None, at });
    let failed = PartBody::Result { id: "a".into(), name: None, parts: vec![], is_error: true };
    chat.messages.push(Message { role: Role::Tool, parts: vec![part(failed)], name: None, at });
    let messages = sent("m", &chat).0["messages"].take();
    assert_eq!(messages[1]["content"][0]["file"]["filename"], "document.pdf");
    assert_eq!(messages[1]["content"][1]["text"], "N\n\nC\n\nt");
    assert_eq!(messages[2]["content"], "The tool failed:");
}
