use serde_json::{Value, json};

use super::*;
use crate::recorded::taken;
use crate::reply::put;

fn preset(name: &str) -> &'static Preset {
    named(name).unwrap()
}

fn chat(more: &[(&str, Value)]) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in more {
        put(&mut body, name, value.clone());
    }
    body
}

fn refusal(name: &str, body: &Value) -> ApiError {
    preset(name).check(body).err().unwrap_or_else(|| panic!("{name} takes {body}"))
}

fn taken_by(name: &str, body: &Value) {
    if let Err(error) = preset(name).check(body) {
        panic!("{name} refuses {body}: {error:?}");
    }
}

fn call(id: &str, more: &[(&str, Value)]) -> Value {
    let function = json!({"name": "f", "arguments": "{}"});
    let mut message = json!({
        "role": "assistant", "content": "", "tool_calls": [{"id": id, "type": "function", "function": function}],
    });
    for (name, value) in more {
        put(&mut message, name, value.clone());
    }
    message
}

fn conversation(messages: Value, more: &[(&str, Value)]) -> Value {
    let mut body = chat(more);
    put(&mut body, "messages", messages);
    body
}

#[test]
fn what_the_providers_took_passes() {
    let recorded = taken(&["chat"]);
    for request in &recorded {
        let name = match request.provider.as_str() {
            "moonshotai" => "moonshot",
            "alibaba" => "dashscope",
            "baidu-v2" => "qianfan",
            other => other,
        };
        if let Some(preset) = named(name) {
            let result = preset.check(&request.body).and_then(|()| read(&request.body).map(|_| ()));
            assert!(result.is_ok(), "{}: {result:?}", request.id);
        }
    }
    for request in recorded.iter().filter(|request| ["openai", "azure"].contains(&request.provider.as_str())) {
        let result = openai::check(&request.body);
        assert!(result.is_ok(), "{}: {:?}", request.id, result.err());
    }
}

#[test]
fn mistral_knows_its_members() {
    for (name, value) in [
        ("max_completion_tokens", json!(5)),
        ("seed", json!(1)),
        ("stream_options", json!({})),
        ("user", json!("u")),
        ("tools", json!([])),
    ] {
        let error = refusal("mistral", &chat(&[(name, value)]));
        assert_eq!(error.status, 422);
        let body = preset("mistral").errors.body(&error);
        assert_eq!((&body["object"], &body["message"]["detail"][0]["loc"]), (&json!("error"), &json!(["body", name])));
        assert_eq!(body["message"]["detail"][0]["type"], "extra_forbidden");
    }
    let named = conversation(json!([{"role": "user", "content": "Hi", "name": "Ada"}]), &[]);
    let body = preset("mistral").errors.body(&refusal("mistral", &named));
    assert_eq!(body["message"]["detail"][0]["loc"], json!(["body", "messages", 0, "user", "name"]));
    assert_eq!(refusal("mistral", &conversation(json!([{"role": "developer", "content": "x"}]), &[])).status, 422);
    taken_by("mistral", &chat(&[("random_seed", json!(1)), ("max_tokens", json!(5))]));
}

#[test]
fn mistral_has_its_choices_ids_and_order() {
    assert_eq!(refusal("mistral", &chat(&[("tool_choice", json!("sometimes"))])).status, 422);
    assert_eq!(refusal("mistral", &chat(&[("tool_choice", json!({"type": "function"}))])).status, 422);
    let user = json!({"role": "user", "content": "Hi"});
    let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "1"});
    for id in ["call_1234", "abc", "abcdefghij"] {
        let error = refusal("mistral", &conversation(json!([user, call(id, &[]), result(id)]), &[]));
        assert_eq!((error.code.as_deref(), error.kind.as_deref()), (Some("3280"), Some("invalid_function_call")));
    }
    let id = "abcDEF123";
    taken_by("mistral", &conversation(json!([user, call(id, &[]), result(id)]), &[]));
    let order = refusal("mistral", &conversation(json!([user, call(id, &[]), result(id), user]), &[]));
    assert_eq!((order.status, order.code.as_deref()), (400, Some("3230")));
    let last = json!({"role": "assistant", "content": "So"});
    assert_eq!(refusal("mistral", &conversation(json!([user, last]), &[])).code.as_deref(), Some("3230"));
    let prefix = json!({"role": "assistant", "content": "So", "prefix": true});
    taken_by("mistral", &conversation(json!([user, prefix]), &[]));
}

#[test]
fn deepseek_wants_its_reasoning_back() {
    let history = |more: &[(&str, Value)]| json!([{"role": "user", "content": "Hi"}, call("a", more), {"role": "tool", "tool_call_id": "a", "content": "1"}]);
    let thinking = [("model", json!("deepseek-v4-pro"))];
    let error = refusal("deepseek", &conversation(history(&[]), &thinking));
    assert!(error.message.contains("must be passed back"));
    taken_by("deepseek", &conversation(history(&[("reasoning_content", json!(""))]), &thinking));
    let off = [("model", json!("deepseek-v4-pro")), ("thinking", json!({"type": "disabled"}))];
    taken_by("deepseek", &conversation(history(&[]), &off));
    taken_by("deepseek", &conversation(history(&[]), &[("model", json!("deepseek-chat"))]));
    let forced = chat(&[("model", json!("deepseek-reasoner")), ("tool_choice", json!("required"))]);
    assert!(refusal("deepseek", &forced).message.contains("tool_choice"));
    assert!(preset("deepseek").check(&chat(&[("response_format", json!({"type": "json_schema"}))])).is_err());
    assert_eq!(refusal("deepseek", &conversation(json!([{"role": "developer", "content": "x"}]), &[])).status, 422);
}

#[test]
fn kimi_has_sampling_of_its_own() {
    let kimi = ("model", json!("kimi-k2.5"));
    let error = refusal("moonshot", &chat(&[kimi.clone(), ("temperature", json!(0.3))]));
    assert_eq!(error.message, "invalid temperature: only 1 is allowed for this model");
    assert!(preset("moonshot").check(&chat(&[kimi.clone(), ("top_p", json!(1))])).is_err());
    taken_by("moonshot", &chat(&[kimi.clone(), ("temperature", json!(1)), ("top_p", json!(0.95))]));
    let off = ("thinking", json!({"type": "disabled"}));
    taken_by("moonshot", &chat(&[kimi.clone(), off.clone(), ("temperature", json!(0.6))]));
    taken_by("moonshot", &chat(&[("model", json!("moonshot-v1-8k")), ("temperature", json!(0.3))]));
    let history = json!([{"role": "user", "content": "Hi"}, call("a", &[])]);
    let error = refusal("moonshot", &conversation(history.clone(), std::slice::from_ref(&kimi)));
    assert!(error.message.ends_with("at index 1"), "{}", error.message);
    taken_by("moonshot", &conversation(history, &[kimi, off]));
    let tool = json!([{"type": "function", "function": {"name": "f", "parameters": {"anyOf": []}}}]);
    assert!(refusal("moonshot", &chat(&[("tools", tool)])).message.contains("moonshot flavored"));
    let body = preset("moonshot").errors.body(&ApiError::new(429, "slow down"));
    assert_eq!(body, json!({"error": {"message": "slow down", "type": "rate_limit_reached_error"}}));
}

#[test]
fn groq_refuses_what_it_does_not_know() {
    for (name, value) in [
        ("logprobs", json!(true)),
        ("top_logprobs", json!(2)),
        ("logit_bias", json!({})),
        ("n", json!(2)),
        ("colour", json!(1)),
    ] {
        assert_eq!(refusal("groq", &chat(&[(name, value)])).status, 400, "{name}");
    }
    let named = conversation(json!([{"role": "user", "content": "Hi", "name": "Ada"}]), &[]);
    assert!(refusal("groq", &named).message.contains("property 'name' is unsupported"));
    let replayed = conversation(json!([{"role": "assistant", "content": "x", "reasoning_content": "y"}]), &[]);
    assert!(refusal("groq", &replayed).message.contains("'messages.0' : for 'role:assistant'"));
}

#[test]
fn xai_has_no_penalties_where_it_reasons() {
    let grok = |model: &str, name: &str, value: Value| chat(&[("model", json!(model)), (name, value)]);
    let error = refusal("xai", &grok("grok-4.3", "presence_penalty", json!(0)));
    assert_eq!(
        preset("xai").errors.body(&error),
        json!({
            "code": "Client specified an invalid argument",
            "error": "Argument not supported on this model: presencePenalty",
        })
    );
    assert!(preset("xai").check(&grok("grok-3-mini", "stop", json!("x"))).is_err());
    taken_by("xai", &grok("grok-4-fast-non-reasoning", "stop", json!("x")));
    taken_by("xai", &grok("grok-3", "stop", json!("x")));
    assert!(preset("xai").check(&grok("grok-code-fast-1", "reasoning_effort", json!("low"))).is_err());
    assert!(preset("xai").check(&grok("grok-4.5", "reasoning_effort", json!("none"))).is_err());
    taken_by("xai", &grok("grok-4.3", "reasoning_effort", json!("none")));
}

#[test]
fn perplexity_takes_turns() {
    assert!(preset("perplexity").check(&chat(&[("tools", json!([]))])).is_err());
    let say = |role: &str| json!({"role": role, "content": "x"});
    for wrong in [
        json!([say("user"), say("user")]),
        json!([say("assistant"), say("user")]),
        json!([say("user"), say("assistant")]),
        json!([say("user"), say("system"), say("user")]),
    ] {
        let error = refusal("perplexity", &conversation(wrong, &[]));
        assert_eq!(preset("perplexity").errors.body(&error)["error"]["code"], 400);
    }
    taken_by("perplexity", &conversation(json!([say("system"), say("user"), say("assistant"), say("user")]), &[]));
}

#[test]
fn chinese_providers_have_rules_and_codes_of_their_own() {
    let error = refusal("zhipu", &chat(&[("tool_choice", json!("required"))]));
    assert_eq!(preset("zhipu").errors.body(&error)["error"]["code"], "1210");
    taken_by("zhipu", &chat(&[("tool_choice", json!("auto"))]));
    let silent = conversation(json!([{"role": "system", "content": "x"}]), &[]);
    assert_eq!(preset("zhipu").errors.body(&refusal("zhipu", &silent))["error"]["code"], "1214");
    let file = conversation(json!([{"role": "user", "content": [{"type": "file"}]}]), &[]);
    assert!(refusal("dashscope", &file).message.contains("file"));
    let json_mode = ("response_format", json!({"type": "json_object"}));
    assert!(refusal("dashscope", &chat(&[json_mode])).message.contains("'json'"));
    let open = [("model", json!("qwen3-32b")), ("enable_thinking", json!(true))];
    assert!(refusal("dashscope", &chat(&open)).message.contains("non-streaming"));
    let plus = [("model", json!("qwen-plus")), ("enable_thinking", json!(true)), ("tool_choice", json!("required"))];
    assert!(refusal("dashscope", &chat(&plus)).message.contains("thinking mode"));
    assert!(preset("dashscope").errors.body(&ApiError::invalid("x"))["request_id"].is_string());
    for warmth in [json!(0), json!(1.1), json!("warm")] {
        let error = refusal("qianfan", &chat(&[("temperature", warmth)]));
        assert_eq!(preset("qianfan").errors.body(&error)["error"]["code"], "invalid_argument");
    }
    taken_by("qianfan", &chat(&[("temperature", json!(0.01))]));
}

#[test]
fn others_refuse_what_they_lack() {
    for name in ["frequency_penalty", "presence_penalty", "logit_bias", "parallel_tool_calls", "service_tier"] {
        let error = refusal("cerebras", &chat(&[(name, json!(0))]));
        assert_eq!(preset("cerebras").errors.body(&error)["param"], name);
    }
    let image = |url: &str| {
        conversation(json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]), &[])
    };
    assert_eq!(refusal("ollama", &image("https://a/b.png")).message, "invalid image input");
    taken_by("ollama", &image("data:image/png;base64,AAAA"));
    taken_by("ollama", &chat(&[("tool_choice", json!("required"))]));
    let named = json!({"type": "function", "function": {"name": "f"}});
    let error = refusal("lmstudio", &chat(&[("tool_choice", named)]));
    assert!(preset("lmstudio").errors.body(&error)["error"].is_string());
    let error = refusal("workersai", &chat(&[]));
    assert_eq!(preset("workersai").errors.body(&error)["errors"][0]["code"], 5007);
    taken_by("workersai", &chat(&[("model", json!("@cf/openai/gpt-oss-20b"))]));
    assert_eq!(preset("vllm").errors.body(&ApiError::invalid("x"))["code"], 400);
    assert_eq!(preset("openrouter").errors.body(&ApiError::new(402, "x"))["error"]["code"], 402);
}

#[test]
fn paths_choose_the_provider() {
    for (path, name) in [
        ("/p/mistral/v1/chat/completions", Some("mistral")),
        ("/p/zai/api/paas/v4/chat/completions", Some("zhipu")),
        ("/p/groq/openai/v1/audio/transcriptions", Some("groq")),
        ("/p/openrouter/api/v1/responses/resp_1", Some("openrouter")),
        ("/client/v4/accounts/a/ai/v1/chat/completions", Some("workersai")),
        ("/p/mystery/v1/chat/completions", Some("unknown")),
        ("/p/mistral/v1/nothing", None),
        ("/v1/chat/completions", None),
    ] {
        assert_eq!(find(path).map(|housed| housed.preset.name), name, "{path}");
    }
}
