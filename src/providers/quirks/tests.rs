use super::*;
use crate::config::Preset;
use crate::protocol::Api;
use crate::providers::json_edit::object;
use crate::providers::preset::row;
use proptest::prelude::*;
use serde_json::{Value, json};

fn bytes(preset: Preset, body: &[u8], is_translated: bool) -> Result<(Vec<u8>, Vec<String>), Problem> {
    let value: Value = serde_json::from_slice(body).unwrap();
    let members = object(body).unwrap();
    let mut editor = Editor::new(&members);
    let mut notes = Notes::new(Api::ChatCompletions, false);
    let (model, stream) = (value["model"].as_str().unwrap_or("m"), value["stream"] == json!(true));
    apply(Asked { row: row(preset), model, stream, is_translated }, &mut editor, &mut notes)?;
    Ok((editor.finish(), notes.into_dropped()))
}

fn sent(preset: Preset, body: Value) -> (Value, Vec<String>) {
    let (bytes, dropped) = bytes(preset, body.to_string().as_bytes(), false).unwrap();
    (serde_json::from_slice(&bytes).unwrap(), dropped)
}

fn refusal(preset: Preset, body: Value) -> String {
    bytes(preset, body.to_string().as_bytes(), false).unwrap_err().param.unwrap_or_default()
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}})
}

fn called(id: &str) -> Value {
    let call = json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    json!({"role": "assistant", "content": null, "tool_calls": [call]})
}

#[test]
fn mistral_gets_only_what_it_knows() {
    let (body, dropped) = sent(
        Preset::Mistral,
        json!({
            "model": "mistral-large-latest", "messages": [{"role": "developer", "content": "d", "name": "n"}],
            "max_completion_tokens": 5, "max_tokens": 9, "seed": 1, "stream_options": {"include_usage": true}, "user": "u",
            "logprobs": false, "tools": [], "top_k": 3, "service_tier": "auto", "x": null,
        }),
    );
    assert_eq!(
        body,
        json!({
            "model": "mistral-large-latest", "messages": [{"role": "system", "content": "d"}],
            "max_tokens": 5, "random_seed": 1,
        })
    );
    assert_eq!(dropped, ["user", "top_k", "messages[].name"].map(str::to_owned).to_vec());
    assert_eq!(refusal(Preset::Mistral, json!({"model": "m", "messages": [], "logprobs": true})), "logprobs");
    assert_eq!(refusal(Preset::Mistral, json!({"model": "m", "messages": [], "logit_bias": {"1": 2}})), "logit_bias");
}

#[test]
fn mistral_has_its_own_form_of_files_and_sound() {
    let parts = json!([
        {"type": "text", "text": "Look."},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]);
    let asked = json!({"model": "m", "messages": [{"role": "user", "content": parts}]});
    let (body, dropped) = sent(Preset::Mistral, asked);
    assert_eq!(
        body["messages"][0]["content"],
        json!([
            {"type": "text", "text": "Look."},
            {"type": "document_url", "document_url": "data:application/pdf;base64,JVBERi0=", "document_name": "a.pdf"},
            {"type": "file", "file": {"file_id": "file-1"}},
            {"type": "input_audio", "input_audio": "UklGRg=="},
        ])
    );
    assert_eq!(dropped, Vec::<String>::new());
}

#[test]
fn tools_that_are_not_allowed_are_not_offered() {
    let named = |name: &str| json!({"type": "function", "function": {"name": name}});
    let chosen = |mode: &str| {
        let choice =
            json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named("b"), named("c")]}});
        let tools = json!([tool("a"), tool("b"), tool("c")]);
        let (body, _) =
            sent(Preset::Mistral, json!({"model": "m", "messages": [], "tools": tools, "tool_choice": choice}));
        let names: Vec<String> =
            body["tools"].as_array().unwrap().iter().map(|tool| tool["function"]["name"].to_string()).collect();
        (names.concat(), body["tool_choice"].clone())
    };
    assert_eq!(chosen("required"), (r#""b""c""#.to_owned(), json!("any")));
    assert_eq!(chosen("auto"), (r#""b""c""#.to_owned(), json!("auto")));
}

#[test]
fn mistral_s_order_and_ids_are_kept() {
    let messages = json!([
        {"role": "user", "content": "a"}, called("call_abcdef"),
        {"role": "tool", "tool_call_id": "call_abcdef", "content": "r"}, {"role": "user", "content": "b"},
        called("abcABC123"), {"role": "tool", "tool_call_id": "abcABC123", "content": "r"},
        {"role": "assistant", "content": "so", "refusal": null},
    ]);
    let body = json!({"model": "m", "messages": messages, "tools": [tool("f")], "tool_choice": "required"});
    let (body, dropped) = sent(Preset::Mistral, body);
    assert_eq!(body["tool_choice"], "any");
    let said = body["messages"].as_array().unwrap();
    let roles: Vec<&str> = said.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "assistant", "user", "assistant", "tool", "assistant"]);
    let id = said[1]["tool_calls"][0]["id"].as_str().unwrap();
    assert!(id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
    assert_eq!(said[2]["tool_call_id"], id);
    assert_eq!(said[5]["tool_calls"][0]["id"], "abcABC123");
    assert_eq!(said[7], json!({"role": "assistant", "content": "so", "prefix": true}));
    assert_eq!(dropped, Vec::<String>::new());
    let (body, _) = sent(Preset::Mistral, json!({"model": "m", "tools": [tool("f")], "tool_choice": "none"}));
    assert_eq!(body, json!({"model": "m"}));
}

#[test]
fn what_only_openai_has_is_left_out_or_refused() {
    let ask = |more: Value| {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi", "name": "ann"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let all = || ask(json!({"frequency_penalty": 0.5, "presence_penalty": 0, "parallel_tool_calls": false}));
    assert_eq!(sent(Preset::Cerebras, all()).1, ["frequency_penalty", "parallel_tool_calls"]);
    assert_eq!(sent(Preset::DashScope, all()).1, ["frequency_penalty"]);
    assert_eq!(sent(Preset::Groq, ask(json!({"n": 1, "top_k": 2}))).1, ["top_k", "messages[].name"]);
    assert_eq!(refusal(Preset::Groq, ask(json!({"n": 2}))), "n");
    assert_eq!(refusal(Preset::Perplexity, ask(json!({"tools": [tool("f")]}))), "tools");
    assert_eq!(sent(Preset::Perplexity, ask(json!({"tools": [], "seed": 1, "stop": "x"}))).1, ["seed", "stop"]);
    let grok = |model: &str| sent(Preset::Xai, ask(json!({"model": model, "stop": "x", "reasoning_effort": "none"})));
    assert_eq!(grok("grok-4.20"), {
        let body = ask(json!({"model": "grok-4.20"}));
        (body, vec!["reasoning_effort".to_owned(), "stop".to_owned()])
    });
    assert_eq!(grok("grok-4.5").0["reasoning_effort"], "low");
    assert_eq!(grok("grok-3").1, ["reasoning_effort"]);
    let warm = |model: &str, t: f64| sent(Preset::Qianfan, ask(json!({"model": model, "temperature": t})));
    assert_eq!(
        (&warm("ernie-5.0", 0.0).0["temperature"], warm("ernie-5.0", 0.0).1),
        (&json!(0.01), vec!["temperature=0.01".into()])
    );
    assert_eq!(warm("ernie-5.0", 0.5).1, Vec::<String>::new());
    assert_eq!(warm("deepseek-v3", 1.5).0["temperature"], 1.5);
    let kimi = |model: &str| sent(Preset::Moonshot, ask(json!({"model": model, "temperature": 0.2, "top_p": 0.5}))).1;
    assert_eq!(kimi("kimi-k2.5"), ["temperature", "top_p"]);
    assert_eq!(kimi("kimi-k2-0905-preview"), Vec::<String>::new());
    assert_eq!(sent(Preset::Zhipu, ask(json!({"user": "user-1234"}))).0["user_id"], "user-1234");
    assert_eq!(sent(Preset::Zhipu, ask(json!({"user": "u"}))).1, ["user"]);
    assert_eq!(sent(Preset::Together, ask(json!({"logprobs": true}))).0["logprobs"], 1);
}

#[test]
fn how_much_to_think_is_put_as_the_provider_has_it() {
    let thought = |preset, model: &str, effort: &str| {
        let (mut body, dropped) = sent(preset, json!({"model": model, "stream": true, "reasoning_effort": effort}));
        let body = body.as_object_mut().unwrap();
        body.retain(|name, _| name != "model" && name != "stream");
        (json!(body), dropped)
    };
    let none = Vec::<String>::new;
    for (preset, model, effort, told) in [
        (Preset::DeepSeek, "deepseek-v4", "none", json!({"thinking": {"type": "disabled"}})),
        (Preset::DeepSeek, "deepseek-v4", "medium", json!({"reasoning_effort": "low"})),
        (Preset::Moonshot, "kimi-k2.5", "none", json!({"thinking": {"type": "disabled"}})),
        (Preset::Moonshot, "kimi-k2.5", "high", json!({"thinking": {"type": "enabled"}})),
        (Preset::Moonshot, "kimi-k3", "none", json!({"reasoning_effort": "low"})),
        (Preset::Zai, "glm-4.6", "none", json!({"thinking": {"type": "disabled"}})),
        (Preset::Zai, "glm-5.2", "none", json!({"reasoning_effort": "none"})),
        (Preset::DashScope, "qwen-plus", "none", json!({"enable_thinking": false})),
        (Preset::DashScope, "qwen-plus", "low", json!({"enable_thinking": true, "thinking_budget": 2048})),
        (Preset::Groq, "qwen/qwen3-32b", "high", json!({"reasoning_effort": "default"})),
        (Preset::Groq, "openai/gpt-oss-20b", "minimal", json!({"reasoning_effort": "low"})),
        (Preset::Mistral, "mistral-medium-3.5", "low", json!({"reasoning_effort": "high"})),
        (Preset::OpenRouter, "openai/gpt-5", "high", json!({"reasoning": {"effort": "high"}})),
        (Preset::OpenAi, "gpt-5", "anything", json!({"reasoning_effort": "anything"})),
    ] {
        assert_eq!(thought(preset, model, effort), (told, none()), "{preset:?} {model} {effort}");
    }
    let dropped = (json!({}), vec!["reasoning_effort".to_owned()]);
    for (preset, model) in [
        (Preset::Mistral, "magistral-medium-latest"),
        (Preset::Moonshot, "moonshot-v1-8k"),
        (Preset::DashScope, "qwen3-coder-plus"),
        (Preset::Groq, "llama-4-scout"),
    ] {
        assert_eq!(thought(preset, model, "high"), dropped, "{model}");
    }
    let (body, dropped) = sent(Preset::DashScope, json!({"model": "qwen3-32b", "reasoning_effort": "high"}));
    assert_eq!((&body["enable_thinking"], dropped), (&json!(false), vec!["reasoning_effort".to_owned()]));
    assert_eq!(sent(Preset::DashScope, json!({"model": "qwen3-32b"})).0["enable_thinking"], json!(false));
}

#[test]
fn reasoning_goes_back_with_calls_while_the_model_thinks() {
    let given = |preset, model: &str, thinking: Value| {
        let messages = json!([{"role": "user", "content": "a"}, called("1")]);
        let body = sent(preset, json!({"model": model, "messages": messages, "thinking": thinking})).0;
        body["messages"][1]["reasoning_content"].clone()
    };
    assert_eq!(given(Preset::DeepSeek, "deepseek-v4", Value::Null), " ");
    assert_eq!(given(Preset::DeepSeek, "deepseek-v4", json!({"type": "disabled"})), Value::Null);
    assert_eq!(given(Preset::DeepSeek, "deepseek-chat", Value::Null), Value::Null);
    assert_eq!(given(Preset::Moonshot, "kimi-k3", Value::Null), " ");
}

#[test]
fn demands_for_tools_are_put_as_the_provider_takes_them() {
    let chosen = |preset, model: &str, choice: Value| {
        let tools = json!([tool("a"), tool("b")]);
        let (body, dropped) = sent(preset, json!({"model": model, "tools": tools, "tool_choice": choice}));
        let tools = body["tools"].as_array().map_or(0, Vec::len);
        (body["tool_choice"].clone(), tools, dropped)
    };
    let named = || json!({"type": "function", "function": {"name": "b"}});
    let noted = || (Value::Null, 2, vec!["tool_choice".to_owned()]);
    assert_eq!(chosen(Preset::Zhipu, "glm-5.3", named()), noted());
    assert_eq!(chosen(Preset::Zhipu, "glm-5.3", json!("none")), (Value::Null, 0, vec![]));
    assert_eq!(chosen(Preset::Zhipu, "glm-5.3", json!("auto")), (json!("auto"), 2, vec![]));
    assert_eq!(chosen(Preset::DeepSeek, "deepseek-v4", json!("required")), noted());
    assert_eq!(chosen(Preset::DeepSeek, "deepseek-chat", json!("required")), (json!("required"), 2, vec![]));
    assert_eq!(chosen(Preset::LmStudio, "m", named()), (json!("required"), 1, vec![]));
    assert_eq!(chosen(Preset::Ollama, "m", json!("auto")), (json!("auto"), 2, vec![]));
    assert_eq!(chosen(Preset::OpenAi, "m", named()), (named(), 2, vec![]));
    let forced = json!({"model": "m", "tools": [tool("a")], "tool_choice": "required"});
    assert_eq!(refusal(Preset::Ollama, forced), "tool_choice");
    let body =
        json!({"model": "deepseek-v4", "reasoning_effort": "none", "tools": [tool("a")], "tool_choice": "required"});
    assert_eq!(sent(Preset::DeepSeek, body).1, Vec::<String>::new());
    let bare = json!({"type": "function", "function": {"name": "a", "parameters": {"$schema": "s", "properties": {}}}});
    let (body, _) = sent(Preset::Moonshot, json!({"model": "m", "tools": [bare]}));
    assert_eq!(body["tools"][0]["function"]["parameters"], json!({"type": "object", "properties": {}}));
}

#[test]
fn a_schema_that_is_not_taken_is_told_in_words() {
    let asked = |preset, model: &str, format: Value, text: &str| {
        let messages = json!([{"role": "user", "content": text}]);
        sent(preset, json!({"model": model, "messages": messages, "response_format": format}))
    };
    let schema = || json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}});
    let (body, dropped) = asked(Preset::DeepSeek, "deepseek-chat", schema(), "a");
    assert_eq!(
        (&body["response_format"], dropped),
        (&json!({"type": "json_object"}), vec!["response_format".to_owned()])
    );
    assert!(body["messages"][0]["content"].as_str().unwrap().ends_with(r#"schema: {"type":"object"}"#));
    assert_eq!(asked(Preset::DashScope, "qwen3.7-plus", schema(), "a").0["response_format"], schema());
    let object = || json!({"type": "json_object"});
    assert_eq!(asked(Preset::DashScope, "qwen-plus", object(), "a").0["messages"][0]["role"], "system");
    assert_eq!(asked(Preset::DashScope, "qwen-plus", object(), "a Json").0["messages"][0]["role"], "user");
}

#[test]
fn turns_alternate_where_they_must() {
    let say = |role: &str, content: Value| json!({"role": role, "content": content});
    let body = json!({"model": "sonar", "messages": [
        say("system", json!("s")), say("developer", json!("d")), say("assistant", json!("x")), say("user", json!("a")),
        say("system", json!("later")), say("user", json!([{"type": "text", "text": "b"}])), say("assistant", json!("c")),
    ]});
    let text = |text: &str| json!({"type": "text", "text": text});
    let expected = json!([
        say("system", json!([text("s"), text("d")])),
        say("user", json!(".")),
        say("assistant", json!("x")),
        say("user", json!([text("a"), text("later"), text("b")])),
        say("assistant", json!("c")),
        say("user", json!(".")),
    ]);
    assert_eq!(sent(Preset::Perplexity, body).0["messages"], expected);
    let alone = json!({"model": "glm-5.3", "messages": [say("system", json!("s"))]});
    assert_eq!(sent(Preset::Zhipu, alone).0["messages"][1], say("user", json!(".")));
}

#[test]
fn what_cannot_be_sent_at_all_is_refused_at_its_place() {
    let part = |part: Value| json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, part]}]});
    let web = || part(json!({"type": "image_url", "image_url": {"url": "https://a.example/p.png"}}));
    assert_eq!(refusal(Preset::Ollama, web()), "messages[0].content[1].image_url.url");
    let inline = part(json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}));
    assert_eq!(sent(Preset::Ollama, inline.clone()).0, inline);
    assert_eq!(refusal(Preset::DashScope, part(json!({"type": "file", "file": {}}))), "messages[0].content[1].file");
}

const PRESETS: &[(Preset, &str, crate::providers::preset::Row)] = crate::providers::preset::ROWS;

/// A plain request, written as nobody else would.
const PLAIN: &str = r#"{ "model" :"llama-4",
  "messages":[ {"content":"h\u00e9 \/ 1.50","role" : "user"} ,{"role":"assistant","content":"ok"},{"role":"user","content":[]}  ],"temperature":0.50, "stream": false }"#;

#[test]
fn a_request_that_everybody_takes_stays_as_it_is() {
    for (preset, ..) in PRESETS {
        let (bytes, dropped) = bytes(*preset, PLAIN.as_bytes(), false).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), PLAIN, "{preset:?}");
        assert!(dropped.is_empty());
    }
}

fn any_message() -> impl Strategy<Value = Value> {
    let role = proptest::sample::select(vec!["system", "developer", "user", "assistant", "tool", "x"]);
    let content = prop_oneof![
        Just(Value::Null),
        "[a-z\"\\\\]{0,4}".prop_map(Value::from),
        Just(json!([{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "data:x"}}])),
        Just(json!(5)),
    ];
    let more = proptest::sample::select(vec![
        json!({}),
        json!({"tool_calls": [{"id": "call_1", "function": {}}]}),
        json!({"tool_calls": 5, "name": "n"}),
        json!({"tool_call_id": "call_1", "refusal": "r"}),
    ]);
    (role, content, more).prop_map(|(role, content, more)| {
        let mut message = json!({"role": role, "content": content});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    })
}

proptest! {
    /// Whatever is sent to whomever, what comes out is JSON, texts are all there in their order, and a second look
    /// changes nothing more.
    #[test]
    fn edits_keep_requests_whole(
        nth in 0..PRESETS.len(),
        model in proptest::sample::select(vec!["llama", "kimi-k3", "deepseek-v4", "qwen3-8b", "glm-5.3", "grok-4.3", "ernie-5"]),
        messages in proptest::collection::vec(any_message(), 0..6),
        members in proptest::sample::subsequence(vec![
            ("seed", json!(1)), ("stop", json!(["x"])), ("max_completion_tokens", json!(3)), ("max_tokens", json!(4)),
            ("reasoning_effort", json!("high")), ("temperature", json!(0)), ("user", json!("u")), ("top_k", json!("odd")),
            ("tools", json!([{"type": "function", "function": {"name": "f", "parameters": {}}}])),
            ("tool_choice", json!("auto")), ("response_format", json!({"type": "json_object"})), ("stream", json!(true)),
            ("stream_options", json!(null)), ("thinking", json!({"type": "disabled"})), ("frequency_penalty", json!(1)),
        ], 0..12),
        wide in any::<bool>(),
    ) {
        let mut body = json!({"model": model, "messages": messages});
        body.as_object_mut().unwrap().extend(members.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let text = if wide { serde_json::to_string_pretty(&body).unwrap() } else { body.to_string() };
        let preset = PRESETS[nth].0;
        let Ok((once, _)) = bytes(preset, text.as_bytes(), false) else { return Ok(()) };
        let value: Value = serde_json::from_slice(&once).unwrap();
        prop_assert_eq!(&value["model"], model);
        let texts = |body: &Value| {
            let all = body["messages"].as_array().unwrap().iter().map(|message| message["content"].clone());
            all.flat_map(|content| match content {
                Value::String(text) => vec![text],
                Value::Array(parts) => {
                    parts.iter().filter_map(|part| part["text"].as_str().map(str::to_owned)).collect()
                }
                _ => vec![],
            }).filter(|text| text != "." && !text.contains("JSON")).collect::<Vec<String>>()
        };
        prop_assert_eq!(texts(&value), texts(&body));
        let (twice, dropped) = bytes(preset, &once, false).unwrap();
        prop_assert_eq!(String::from_utf8(twice), String::from_utf8(once));
        prop_assert_eq!(dropped, Vec::<String>::new());
    }
}
