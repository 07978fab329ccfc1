use serde_json::{Value, json};

use super::check::check;
use super::*;
use crate::recorded::taken;

fn asked(input: Value) -> Value {
    json!({"model": "gpt-4o", "input": input})
}

fn refusal(body: &Value) -> ApiError {
    check(body, Strictness::Closed).err().unwrap_or_else(|| panic!("{body} passes"))
}

fn with(name: &str, value: Value) -> Value {
    let mut body = asked(json!("Hi"));
    body[name] = value;
    body
}

#[test]
fn what_openai_took_passes() {
    for request in taken(&["responses"]) {
        let strictness = match request.provider.as_str() {
            "openai" | "azure" => Strictness::Closed,
            _ => Strictness::Open,
        };
        if let Err(error) = check(&request.body, strictness) {
            panic!("{}: {error:?}", request.id);
        }
    }
}

#[test]
fn unknown_members_are_refused_and_moved_ones_explained() {
    let error = refusal(&with("colour", json!("red")));
    assert_eq!(
        (error.message.as_str(), error.code.as_deref()),
        ("Unknown parameter: 'colour'.", Some("unknown_parameter"))
    );
    let error = refusal(&with("max_tokens", json!(100)));
    assert!(error.message.contains("has moved to 'max_output_tokens'"));
    let error = refusal(&asked(json!([{"role": "user", "content": "Hi", "name": "Ada"}])));
    assert_eq!(error.param.as_deref(), Some("input[0].name"));
    let mut body = with("stream", json!(true));
    body["stream_options"] = json!({"include_usage": true});
    assert_eq!(refusal(&body).param.as_deref(), Some("stream_options.include_usage"));
    assert!(check(&with("colour", json!("red")), Strictness::Open).is_ok());
}

#[test]
fn something_must_be_asked() {
    assert_eq!(refusal(&json!({"input": "Hi"})).param.as_deref(), Some("model"));
    assert_eq!(refusal(&json!({"model": "gpt-4o"})).code.as_deref(), Some("missing_required_parameter"));
    assert!(check(&json!({"model": "gpt-4o", "previous_response_id": "resp_1"}), Strictness::Closed).is_ok());
    assert_eq!(refusal(&asked(json!(3))).code.as_deref(), Some("invalid_type"));
}

#[test]
fn values_have_the_bounds_of_the_api() {
    for (name, value, code) in [
        ("max_output_tokens", json!(15), "integer_below_min_value"),
        ("temperature", json!(2.1), "decimal_above_max_value"),
        ("top_p", json!(-1), "decimal_below_min_value"),
        ("top_logprobs", json!(21), "integer_above_max_value"),
        ("truncation", json!("some"), "invalid_value"),
        ("service_tier", json!("gold"), "invalid_value"),
        ("stream", json!("yes"), "invalid_type"),
        ("instructions", json!(["a"]), "invalid_type"),
    ] {
        let error = refusal(&with(name, value));
        assert_eq!((error.param.as_deref(), error.code.as_deref()), (Some(name), Some(code)));
    }
    let pairs: Value = (0..17).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(refusal(&with("metadata", pairs)).code.as_deref(), Some("object_above_max_properties"));
    assert_eq!(refusal(&with("metadata", json!({"k": 1}))).code.as_deref(), Some("invalid_type"));
    let long = "x".repeat(513);
    assert_eq!(refusal(&with("metadata", json!({"k": long}))).code.as_deref(), Some("string_above_max_length"));
    assert!(refusal(&with("stream_options", json!({}))).message.contains("only allowed when 'stream'"));
}

#[test]
fn a_reasoning_model_takes_no_sampling() {
    let mut body = with("temperature", json!(0.2));
    body["model"] = json!("gpt-5.2");
    assert_eq!(refusal(&body).message, "Unsupported parameter: 'temperature' is not supported with this model.");
    body["reasoning"] = json!({"effort": "none"});
    assert!(check(&body, Strictness::Closed).is_ok());
    body["model"] = json!("gpt-5.2-chat-latest");
    body["reasoning"] = Value::Null;
    assert!(check(&body, Strictness::Closed).is_ok());
    assert!(reasons("o3-mini") && reasons("openai/gpt-5-pro") && !reasons("o4x") && !reasons("gpt-4o"));
}

#[test]
fn a_model_that_does_not_reason_has_no_effort_and_no_proofs() {
    assert_eq!(refusal(&with("reasoning", json!({"effort": "low"}))).code.as_deref(), Some("unsupported_parameter"));
    assert!(refusal(&with("include", json!(["reasoning.encrypted_content"]))).message.starts_with("Encrypted content"));
    let mut body = with("reasoning", json!({"effort": "extreme"}));
    body["model"] = json!("gpt-5");
    assert_eq!(refusal(&body).param.as_deref(), Some("reasoning.effort"));
    assert_eq!(refusal(&with("include", json!(["all"]))).param.as_deref(), Some("include[0]"));
}

#[test]
fn items_and_their_parts_have_known_types() {
    for (item, param) in [
        (json!({"type": "tool_result"}), "input[0]"),
        (json!({"role": "tool", "content": "x"}), "input[0].role"),
        (json!({"role": "user"}), "input[0].content"),
        (json!({"role": "user", "content": [{"type": "text", "text": "x"}]}), "input[0].content[0].type"),
        (json!({"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}), "input[0].content[0].type"),
        (json!({"role": "user", "content": [{"type": "input_text"}]}), "input[0].content[0].text"),
        (json!({"role": "user", "content": [{"type": "input_image"}]}), "input[0].content[0].image_url"),
        (
            json!({"role": "user", "content": [{"type": "input_image", "image_url": "ftp://a"}]}),
            "input[0].content[0].image_url",
        ),
        (json!({"role": "user", "content": [{"type": "input_file"}]}), "input[0].content[0].file_id"),
        (json!({"type": "message", "id": "item_1", "role": "user", "content": "x"}), "input[0].id"),
        (json!({"type": "function_call", "id": "call_1", "call_id": "a", "name": "f", "arguments": ""}), "input[0].id"),
        (json!({"type": "function_call", "name": "f", "arguments": ""}), "input[0].call_id"),
        (json!({"type": "function_call", "call_id": "a", "arguments": ""}), "input[0].name"),
        (json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": {}}), "input[0].arguments"),
        (json!({"type": "function_call_output", "call_id": "a"}), "input[0].output"),
        (json!({"type": "reasoning", "id": "rs_1"}), "input[0].summary"),
        (json!({"type": "function_call_output", "call_id": "x".repeat(65), "output": ""}), "input[0].call_id"),
    ] {
        assert_eq!(refusal(&asked(json!([item]))).param.as_deref(), Some(param), "{item}");
    }
}

#[test]
fn calls_and_results_belong_together() {
    let call = json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"});
    let result = json!({"type": "function_call_output", "call_id": "a", "output": "1"});
    let error = refusal(&asked(json!([call])));
    assert_eq!(error.message, "No tool output found for function call a.");
    let alone = [result.clone()];
    let error = items::check_results(&alone, &[]).err().unwrap();
    assert_eq!(error.message, "No tool call found for function call output with call_id a.");
    assert!(items::check_results(&alone, std::slice::from_ref(&call)).is_ok());
    assert!(check(&asked(json!([call, result])), Strictness::Closed).is_ok());
}

#[test]
fn tools_are_flat() {
    let tools = |tool: Value| with("tools", json!([tool]));
    for (tool, param) in [
        (json!({"type": "function", "function": {"name": "f"}}), "tools[0].name"),
        (json!({"type": "teleport"}), "tools[0].type"),
        (json!({"name": "f"}), "tools[0].type"),
        (json!({"type": "function", "name": "a b"}), "tools[0].name"),
        (json!({"type": "function", "name": "f", "parameters": {"type": "string"}}), "tools[0].parameters"),
        (
            json!({"type": "function", "name": "f", "strict": true,
                "parameters": {"type": "object", "properties": {"a": {}}}}),
            "tools[0].parameters",
        ),
    ] {
        assert_eq!(refusal(&tools(tool.clone())).param.as_deref(), Some(param), "{tool}");
    }
    for hosted in ["web_search_preview_2025_03_11", "mcp", "image_generation"] {
        assert!(check(&tools(json!({"type": hosted})), Strictness::Closed).is_ok(), "{hosted}");
    }
}

#[test]
fn a_choice_names_what_is_offered() {
    assert_eq!(refusal(&with("tool_choice", json!("required"))).param.as_deref(), Some("tool_choice"));
    let mut body = with("tools", json!([{"type": "function", "name": "f"}, {"type": "function", "name": "g"}]));
    body["tool_choice"] = json!({"type": "function", "name": "h"});
    assert!(refusal(&body).message.contains("'h' not found"));
    body["tool_choice"] = json!({"type": "function", "function": {"name": "f"}});
    assert_eq!(refusal(&body).param.as_deref(), Some("tool_choice.name"));
    body["tool_choice"] = json!({"type": "function", "name": "g"});
    let asked = check(&body, Strictness::Closed).unwrap();
    assert!(asked.forced && asked.tools.len() == 1 && asked.tools[0].name == "g");
    body["tool_choice"] = json!("sometimes");
    assert_eq!(refusal(&body).param.as_deref(), Some("tool_choice"));
}

#[test]
fn a_format_is_complete() {
    for (format, param) in [
        (json!({"type": "json_object"}), "input"),
        (json!({"type": "json_schema", "schema": {}}), "text.format.name"),
        (json!({"type": "json_schema", "name": "n"}), "text.format.schema"),
        (json!({"type": "xml"}), "text.format.type"),
        (json!({}), "text.format.type"),
    ] {
        assert_eq!(refusal(&with("text", json!({"format": format}))).param.as_deref(), Some(param));
    }
}

#[test]
fn only_own_proofs_are_taken() {
    let app = App::new(crate::journal::Journal::new(0), Directives::default(), None);
    let store = Store::default();
    let good = proof(&app);
    let item = |proof: &str| json!({"type": "reasoning", "summary": [], "encrypted_content": proof});
    assert!(store.check_proofs(&[item(&good)]).is_ok());
    let mut bad = good.clone();
    bad.pop();
    for foreign in [bad.as_str(), "gAAAAABsomething", "lgw1.o.abc", ""] {
        let error = store.check_proofs(&[item(foreign)]).err().unwrap();
        assert_eq!(error.code.as_deref(), Some("invalid_encrypted_content"), "{foreign}");
    }
    let call = Call {
        item_id: "fc_1".to_owned(),
        call_id: "call_1".to_owned(),
        name: "f".to_owned(),
        arguments: "{}".to_owned(),
        custom: false,
    };
    store.demand(&[call], "rs_1", &good);
    let call = json!({"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"});
    let error = store.check_proofs(std::slice::from_ref(&call)).err().unwrap();
    assert!(error.message.contains("without its required 'reasoning' item: 'rs_1'"), "{}", error.message);
    assert!(store.check_proofs(&[call.clone(), item(&good)]).is_err(), "the proof comes first");
    assert!(store.check_proofs(&[item(&good), call]).is_ok());
}
