use super::*;
use crate::recorded;
use serde_json::json;

/// Anthropic took these: the checks take them as well.
#[test]
fn every_recorded_request_passes() {
    let mut seen = 0;
    for (id, exchange, _) in recorded::exchanges("anthropic") {
        let body = &exchange["request"]["body"];
        if body.is_object() && exchange["response"]["status"] == 200 {
            let told = check(body, &FIELDS, true, true).err().map(|error| error.message);
            assert_eq!(told, None, "{id}");
            seen += 1;
        }
    }
    assert!(seen >= 20 || !recorded::present(), "{seen}");
}

#[test]
fn a_fifth_cache_mark_is_one_too_many() {
    let told = |marks: usize| {
        let block = json!({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}});
        let body = json!({
            "model": "m", "max_tokens": 10,
            "messages": [{"role": "user", "content": vec![block; marks]}],
            "cache_control": {"type": "ephemeral"},
        });
        check(&body, &FIELDS, false, true).err().map(|error| error.message)
    };
    assert_eq!(told(3), None);
    assert!(told(4).unwrap().contains("maximum of 4 blocks with cache_control may be provided. Found 5"));
}

#[test]
fn the_generations_of_claude_have_rules_of_their_own() {
    let told = |model: &str, more: Value| {
        let mut body = json!({"model": model, "max_tokens": 3000, "messages": [{"role": "user", "content": "a"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        check(&body, &FIELDS, false, true).map_or_else(|error| error.message, |_| String::new())
    };
    let budget = json!({"thinking": {"type": "enabled", "budget_tokens": 1024}});
    assert_eq!(told("claude-sonnet-4-5", budget.clone()), "");
    assert!(told("claude-opus-4-7", budget).contains("thinking.type.adaptive"));
    assert!(told("claude-opus-4-7", json!({"temperature": 0.2})).contains("`temperature` is deprecated"));
    assert!(told("claude-opus-4-5", json!({"output_config": {"effort": "max"}})).contains("effort"));
    let prefill = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    assert!(told("claude-opus-4-6", prefill.clone()).contains("does not support assistant message prefill"));
    assert_eq!(told("claude-sonnet-4-5", prefill), "");
}

fn refusal(messages: Value) -> String {
    let body = json!({"model": "m", "max_tokens": 10, "messages": messages});
    match check(&body, &FIELDS, false, true) {
        Ok(_) => String::new(),
        Err(error) => error.message,
    }
}

#[test]
fn every_tool_use_is_answered_at_once() {
    let call = json!({"type": "tool_use", "id": "a", "name": "f", "input": {}});
    let result = json!({"type": "tool_result", "tool_use_id": "a", "content": "1"});
    let user = json!({"role": "user", "content": "hi"});
    let assistant = json!({"role": "assistant", "content": [call]});
    assert_eq!(refusal(json!([user, assistant, {"role": "user", "content": [result]}])), "");
    assert!(refusal(json!([user, assistant])).starts_with("messages.1: `tool_use` ids were found without"));
    assert!(refusal(json!([user, assistant, user])).contains("immediately after: a."));
    let late = json!([user, assistant, {"role": "user", "content": [{"type": "text", "text": "x"}, result]}]);
    assert!(refusal(late).contains("immediately after: a."));
    let stray = json!([{"role": "user", "content": [result]}]);
    assert!(refusal(stray).starts_with("messages.0.content.0: unexpected `tool_use_id`"));
}

#[test]
fn foreign_fields_are_refused_wherever_they_stand() {
    assert_eq!(
        refusal(json!([{"role": "user", "content": "x", "name": "n"}])),
        "messages.0.name: Extra inputs are not permitted"
    );
    assert_eq!(
        refusal(json!([{"role": "user", "content": [{"type": "text", "text": "x", "foo": 1}]}])),
        "messages.0.content.0.text.foo: Extra inputs are not permitted"
    );
    let body = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}], "n": 1});
    let error = check(&body, &FIELDS, false, true).err().unwrap();
    assert_eq!(error.message, "n: Extra inputs are not permitted");
}

#[test]
fn a_changed_thinking_block_is_noticed() {
    let with = |thinking: &str| {
        let block = json!({"type": "thinking", "thinking": thinking, "signature": proof("so it is")});
        refusal(json!([
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [block, {"type": "text", "text": "y"}]},
            {"role": "user", "content": "z"},
        ]))
    };
    assert_eq!(with("so it is"), "");
    assert_eq!(with("so it was"), "messages.1.content.0: Invalid `signature` in `thinking` block");
}

#[test]
fn the_numbers_of_a_thinking_request_must_fit() {
    let refused = |thinking: Value, max_tokens: u64, temperature: f64| {
        let body = json!({
            "model": "m", "max_tokens": max_tokens, "thinking": thinking, "temperature": temperature,
            "messages": [{"role": "user", "content": "x"}],
        });
        check(&body, &FIELDS, false, true).err().map(|error| error.message).unwrap_or_default()
    };
    assert_eq!(refused(json!({"type": "enabled", "budget_tokens": 1024}), 2000, 1.0), "");
    assert_eq!(
        refused(json!({"type": "enabled", "budget_tokens": 100}), 2000, 1.0),
        "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
    );
    assert!(refused(json!({"type": "enabled", "budget_tokens": 2000}), 2000, 1.0).contains("`max_tokens` must"));
    assert!(refused(json!({"type": "enabled", "budget_tokens": 1024}), 2000, 0.5).contains("`temperature`"));
    assert_eq!(refused(json!({"type": "adaptive"}), 20, 0.5), "");
}
