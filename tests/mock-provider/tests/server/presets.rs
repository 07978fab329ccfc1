//! Providers that speak as OpenAI does, and Azure: what their replies have of their own.
use crate::support::{Reply, Server};
use serde_json::{Value, json};

fn ask(server: &Server, path: &str, text: &str, more: &[(&str, Value)]) -> Reply {
    let mut body = json!({"model": "@cf/m", "messages": [{"role": "user", "content": text}]});
    for (name, value) in more {
        body[name] = value.clone();
    }
    server.post(path, "", &body)
}

fn streamed(server: &Server, preset: &str, text: &str, more: &[(&str, Value)]) -> Reply {
    let mut all = vec![("stream", json!(true))];
    if preset != "mistral" {
        all.push(("stream_options", json!({"include_usage": true})));
    }
    all.extend(more.iter().cloned());
    ask(server, &format!("/p/{preset}/v1/chat/completions"), text, &all)
}

fn tools() -> (&'static str, Value) {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    ("tools", json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]))
}

const PRESETS: [&str; 18] = [
    "mistral",
    "deepseek",
    "moonshot",
    "groq",
    "xai",
    "openrouter",
    "together",
    "fireworks",
    "perplexity",
    "zhipu",
    "dashscope",
    "qianfan",
    "cerebras",
    "ollama",
    "vllm",
    "lmstudio",
    "workersai",
    "huggingface",
];

#[test]
fn every_preset_answers_breaks_off_and_fails() {
    let server = Server::start(&[]);
    for preset in PRESETS {
        let path = format!("/p/{preset}/v1/chat/completions");
        let whole = ask(&server, &path, "Hello", &[]).json();
        let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
        let reply = streamed(&server, preset, "Hello", &[]);
        assert_eq!(reply.said(), text, "{preset}");
        let events = reply.events();
        assert_eq!(events.last().unwrap(), "[DONE]", "{preset}");
        let told = |event: &Value| event["usage"].is_object() || event["choices"][0]["usage"].is_object();
        assert!(events.iter().any(told), "{preset} tells usage");
        let cut = streamed(&server, preset, "Hello [[mock truncate_at=2 split=5]]", &[]);
        assert!(cut.complete && !cut.text().contains("[DONE]"), "{preset}");
        let failed = streamed(&server, preset, "Hello [[mock error_at=2 error_message=boom]]", &[]);
        assert!(failed.events().last().unwrap().to_string().contains("boom"), "{preset}");
        let refused = ask(&server, &path, "Hello [[mock status=429 error_message=slow]]", &[]);
        assert!(refused.status == 429 && refused.text().contains("slow"), "{preset}");
        let hidden = ask(&server, &path, "Hello [[mock status=429 error_message=slow error_at_200=1]]", &[]);
        assert!(hidden.status == 200 && hidden.text().contains("slow"), "{preset}");
    }
    assert_eq!(ask(&server, "/p/mystery/v1/chat/completions", "Hello", &[]).status, 404);
}

#[test]
fn reasoning_comes_in_many_places() {
    let server = Server::start(&[]);
    for (preset, place) in [
        ("deepseek", "/choices/0/delta/reasoning_content"),
        ("groq", "/choices/0/delta/reasoning"),
        ("openrouter", "/choices/0/delta/reasoning_details/0/text"),
        ("mistral", "/choices/0/delta/content/0/thinking/0/text"),
    ] {
        let events = streamed(&server, preset, "Hello [[mock reasoning=3 text=end]]", &[]).events();
        let count = events.iter().filter(|event| event.pointer(place).is_some_and(Value::is_string)).count();
        assert_eq!(count, 3, "{preset}");
    }
    let tagged = streamed(&server, "perplexity", "Hello [[mock reasoning=3 text=end]]", &[]).said();
    assert!(tagged.starts_with("<think>\n") && tagged.ends_with("\n</think>\n\nend"), "{tagged}");
    let path = "/p/perplexity/v1/chat/completions";
    let whole = ask(&server, path, "Hello [[mock reasoning=3 text=end]]", &[]).json();
    assert_eq!(whole["choices"][0]["message"]["content"], tagged);
}

#[test]
fn tool_calls_have_the_form_of_the_provider() {
    let server = Server::start(&[]);
    let events = streamed(&server, "mistral", "Use tools [[mock tools=2]]", &[tools()]).events();
    let calls: Vec<&Value> =
        events.iter().filter_map(|event| event.pointer("/choices/0/delta/tool_calls/0/id")).collect();
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|id| id.as_str().unwrap().len() == 9), "{calls:?}");
    let events = streamed(&server, "xai", "Use the tool", &[tools()]).events();
    let pieces = events.iter().filter_map(|event| event.pointer("/choices/0/delta/tool_calls/0/function/arguments"));
    assert_eq!(pieces.filter(|piece| *piece != "").count(), 1);
    let path = "/p/bedrock-mantle/v1/chat/completions";
    for _ in 0..2 {
        let whole = ask(&server, path, "Use the tool", &[tools()]).json();
        assert_eq!(whole["choices"][0]["message"]["tool_calls"][0]["id"], "call_0");
    }
    let broken = ask(&server, "/p/groq/v1/chat/completions", "Use the tool [[mock malformed_call=1]]", &[tools()]);
    assert_eq!((broken.status, &broken.json()["error"]["code"]), (400, &json!("tool_use_failed")));
    let broken = streamed(&server, "groq", "Use the tool [[mock malformed_call=1]]", &[tools()]);
    assert!(broken.text().contains("event: error\ndata: ") && broken.text().contains("\"status_code\":400"));
}

#[test]
fn usage_has_the_form_of_the_provider() {
    let server = Server::start(&[]);
    let usage = |preset: &str, text: &str| {
        let events = streamed(&server, preset, text, &[]).events();
        events.into_iter().rfind(|event| event.get("choices").is_some()).unwrap()
    };
    let deepseek = usage("deepseek", "Hi [[mock cached=3 usage_in=10]]");
    assert_eq!(deepseek["usage"]["prompt_cache_miss_tokens"], 7);
    let moonshot = usage("moonshot", "Hi [[mock cached=3]]");
    assert!(moonshot.get("usage").is_none());
    assert_eq!(moonshot["choices"][0]["usage"]["cached_tokens"], 3);
    let xai = usage("xai", "Hi [[mock reasoning=4 usage_out=10]]");
    assert_eq!((&xai["usage"]["completion_tokens"], xai["usage"]["cost_in_usd_ticks"].is_u64()), (&json!(6), true));
    let groq = usage("groq", "Hi");
    assert_eq!(groq["usage"], groq["x_groq"]["usage"]);
    assert!(usage("openrouter", "Hi")["usage"]["cost"].is_f64());
    let events = streamed(&server, "perplexity", "Hi [[mock chunks=3]]", &[]).events();
    let counts: Vec<u64> = events.iter().filter_map(|event| event["usage"]["completion_tokens"].as_u64()).collect();
    assert!(counts.is_sorted() && counts.len() >= 4, "{counts:?}");
    assert_eq!(events[events.len() - 2]["object"], "chat.completion.done");
    let blocked = usage("qianfan", "Hi [[mock block=1]]");
    assert_eq!(
        (&blocked["choices"][0]["flag"], &blocked["choices"][0]["finish_reason"]),
        (&json!(4), &json!("content_filter"))
    );
    assert_eq!(usage("together", "Hi [[mock two_usage=1]]")["choices"], json!([]));
}

#[test]
fn shared_endpoints_have_the_errors_of_the_provider() {
    let server = Server::start(&[]);
    let error = server.post("/p/workersai/ai/v1/embeddings", "", &json!({"model": "m"})).json();
    assert_eq!((&error["success"], &error["errors"][0]["code"]), (&json!(false), &json!(5004)));
    let lenient = json!({"model": "grok-4", "input": "Hi", "search_parameters": {}});
    assert_eq!(server.post("/p/xai/v1/responses", "", &lenient).json()["object"], "response");
    let error = server.post("/p/mistral/v1/embeddings", "", &json!({"model": "m"})).json();
    assert_eq!(error["object"], "error");
}

const DEPLOYMENT: &str = "/openai/deployments/gpt-4o/chat/completions";

#[test]
fn azure_has_its_own_addresses_and_credentials() {
    let server = Server::start(&[]);
    let body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let key = "api-key: k\r\n";
    let path = format!("{DEPLOYMENT}?api-version=2024-10-21");
    assert_eq!(server.post(&path, "", &body).json()["error"]["code"], "401");
    assert_eq!(server.post(&path, "authorization: Bearer k\r\n", &body).status, 401, "a key is no token");
    let whole = server.post(&path, key, &body).json();
    assert_eq!((&whole["model"], whole["prompt_filter_results"].is_array()), (&json!("gpt-4o"), true));
    assert_eq!(whole["choices"][0]["content_filter_results"]["hate"]["severity"], "safe");
    assert_eq!(
        server.post(DEPLOYMENT, key, &body).json()["error"],
        json!({"code": "404", "message": "Resource not found"})
    );
    let missing = "/openai/deployments/missing/chat/completions?api-version=2024-10-21";
    assert_eq!(server.post(missing, key, &body).json()["error"]["code"], "DeploymentNotFound");
    let newer = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]});
    assert_eq!(server.post("/openai/v1/chat/completions", "authorization: Bearer k\r\n", &newer).status, 200);
    assert_eq!(
        server.post("/p/azure/openai/v1/responses", key, &json!({"model": "gpt-4o", "input": "Hi"})).status,
        200
    );
    let embeddings = "/openai/deployments/embed/embeddings?api-version=2024-10-21";
    assert_eq!(server.post(embeddings, key, &json!({"input": "Hi"})).json()["model"], "embed");
}

#[test]
fn azure_filters_and_begins_with_what_it_filtered() {
    let server = Server::start(&[]);
    let path = format!("{DEPLOYMENT}?api-version=2024-10-21");
    let ask = |text: &str, more: &[(&str, Value)]| {
        let mut body = json!({"messages": [{"role": "user", "content": text}], "stream": true});
        for (name, value) in more {
            body[name] = value.clone();
        }
        server.post(&path, "api-key: k\r\n", &body)
    };
    let reply = ask("Hi", &[]);
    let events = reply.events();
    assert_eq!((&events[0]["choices"], &events[0]["id"]), (&json!([]), &json!("")));
    assert!(events[0]["prompt_filter_results"].is_array());
    assert_eq!(events[2]["choices"][0]["content_filter_results"]["hate"]["filtered"], false);
    assert!(!reply.said().is_empty());
    let calls = ask("Use the tool", &[tools()]).events();
    let arguments = calls.iter().filter(|event| event.pointer("/choices/0/delta/tool_calls").is_some());
    assert!(arguments.clone().count() > 1);
    assert!(arguments.skip(1).all(|event| event["choices"][0]["content_filter_results"].is_object()));
    let blocked = ask("Hi [[mock block=1]]", &[]);
    let error = blocked.json()["error"].clone();
    assert_eq!((blocked.status, &error["code"], &error["type"]), (400, &json!("content_filter"), &Value::Null));
    assert_eq!(error["innererror"]["code"], "ResponsibleAIPolicyViolation");
    let limited = ask("Hi [[mock status=429]]", &[]);
    assert!(limited.head.contains("retry-after-ms: 1000"));
    let file = json!([{"role": "user", "content": [{"type": "file", "file": {"file_data": "x"}}]}]);
    assert!(ask("Hi", &[("messages", file)]).text().contains("does not support file content"));
}

#[test]
fn azure_takes_minted_tokens() {
    let server = Server::start(&[]);
    let form = "grant_type=client_credentials&client_id=c&client_secret=s&scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default";
    let head = "content-type: application/x-www-form-urlencoded\r\n";
    let minted = Reply::read(server.open("/tenant/oauth2/v2.0/token", head, form)).json();
    let bearer = format!("authorization: Bearer {}\r\n", minted["access_token"].as_str().unwrap());
    let path = format!("{DEPLOYMENT}?api-version=2024-10-21");
    let body = json!({"messages": [{"role": "user", "content": "Hi [[mock tag=minted]]"}]});
    assert_eq!(server.post(&path, &bearer, &body).status, 200);
    assert_eq!(server.entry("minted", |entry| entry["outcome"] == "completed")["credential"], "token good");
    assert_eq!(server.post(&path, "authorization: Bearer eyJx\r\n", &body).status, 401);
}

const WENXIN: &str = "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat";

fn baidu_token(server: &Server) -> String {
    let path = "/oauth/2.0/token?grant_type=client_credentials&client_id=a&client_secret=b";
    let minted = Reply::read(server.open(path, "", "")).json();
    minted["access_token"].as_str().unwrap().to_owned()
}

#[test]
fn baidu_tells_errors_with_success() {
    let server = Server::start(&[]);
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "stream": true});
    let refused = server.post(&format!("{WENXIN}/completions_pro?access_token=x"), "", &body);
    assert_eq!((refused.status, &refused.json()["error_code"]), (200, &json!(110)));
    let token = baidu_token(&server);
    let missing = server.post(&format!("{WENXIN}/missing?access_token={token}"), "", &body);
    assert_eq!(missing.json()["error_code"], 3);
    let path = format!("{WENXIN}/completions_pro?access_token={token}");
    let even = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    assert_eq!(server.post(&path, "", &even).json()["error_msg"], "the length of messages must be an odd number");
    let limited = json!({"messages": [{"role": "user", "content": "Hi [[mock status=429]]"}], "stream": true});
    let limited = server.post(&path, "", &limited);
    assert!(limited.head.contains("application/json"));
    assert_eq!(limited.json()["error_code"], 18);
}

#[test]
fn baidu_ends_with_its_last_piece() {
    let server = Server::start(&[]);
    let path = format!("{WENXIN}/completions_pro?access_token={}", baidu_token(&server));
    let ask = |text: &str, more: &[(&str, Value)]| {
        let mut body = json!({"messages": [{"role": "user", "content": text}]});
        for (name, value) in more {
            body[name] = value.clone();
        }
        server.post(&path, "", &body)
    };
    let whole = ask("Hello", &[]).json();
    let events = ask("Hello", &[("stream", json!(true))]).events();
    let said: String = events.iter().map(|event| event["result"].as_str().unwrap()).collect();
    assert_eq!(whole["result"], said);
    let last = events.last().unwrap();
    assert_eq!((&last["is_end"], &last["finish_reason"], last["result"] != ""), (&json!(true), &json!("normal"), true));
    assert_eq!((&last["usage"], &last["sentence_id"]), (&whole["usage"], &json!(events.len() - 1)));
    let open = ask("Hello [[mock no_done=1]]", &[("stream", json!(true))]).events();
    assert!(open.iter().all(|event| event["is_end"] == false));
    let broken = ask("Hello [[mock error_at=2]]", &[("stream", json!(true))]).events();
    assert_eq!((broken.len(), &broken[2]["error_code"]), (3, &json!(336_100)));
    let blocked = ask("Hello [[mock block=1]]", &[]).json();
    assert_eq!((&blocked["need_clear_history"], &blocked["finish_reason"]), (&json!(true), &json!("content_filter")));
    let functions = json!([{"name": "f", "parameters": {"type": "object", "properties": {}}}]);
    let called = ask("Use the tool", &[("functions", functions)]).json();
    assert_eq!((&called["function_call"]["name"], &called["finish_reason"]), (&json!("f"), &json!("function_call")));
}
