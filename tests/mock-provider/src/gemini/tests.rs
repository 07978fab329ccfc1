use super::*;
use crate::recorded;

fn refusal(model: &str, body: Value) -> String {
    rules::check(&body, model, Host::Gemini).map_or_else(|error| error.message, |()| String::new())
}

fn user(text: &str) -> Value {
    json!({"role": "user", "parts": [{"text": text}]})
}

fn called(signature: Option<&str>) -> Value {
    let mut part = json!({"functionCall": {"name": "f", "args": {"a": 1}}});
    if let Some(signature) = signature {
        part["thoughtSignature"] = json!(signature);
    }
    json!({"role": "model", "parts": [part]})
}

fn answered(name: &str) -> Value {
    json!({"role": "user", "parts": [{"functionResponse": {"name": name, "response": {"output": "x"}}}]})
}

/// Google took these: the validators take them as well.
#[test]
fn every_recorded_request_passes() {
    let mut seen = 0;
    for (host, provider) in [(Host::Gemini, "google"), (Host::Vertex, "google-vertex")] {
        for (id, exchange, _) in recorded::exchanges(provider) {
            let request = &exchange["request"];
            let (Some(path), true) = (request["path"].as_str(), exchange["response"]["status"] == 200) else {
                continue;
            };
            let path = path.split('?').next().unwrap();
            let (model, verb) = path.rsplit_once('/').unwrap().1.rsplit_once(':').unwrap();
            let body = &request["body"];
            let told = match verb_of(verb, host) {
                Verb::Generate | Verb::Stream => rules::check(body, model, host),
                Verb::CountTokens => rules::check_count(body, model, host),
                Verb::Embed => rules::check_embed(body, model, host, &proto::EMBED),
                Verb::BatchEmbed => rules::check_embed(body, model, host, &proto::BATCH_EMBED),
                verb => panic!("{id}: {verb:?}"),
            };
            assert_eq!(told, Ok(()), "{id}");
            seen += 1;
        }
    }
    assert!(seen >= 40 || !recorded::present(), "{seen}");
}

#[test]
fn paths_are_read_with_what_stands_before_them() {
    let find = |target: &str| {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Gemini::find(&Request {
            method: "POST",
            target,
            path,
            query,
            headers: &[],
            head: b"",
            body: b"",
            form: None,
            received: std::time::Instant::now(),
        })
    };
    let asked = find("/x/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse").unwrap();
    assert_eq!((asked.host, asked.model.as_str(), asked.verb), (Host::Gemini, "gemini-2.5-pro", Verb::Stream));
    assert!(asked.events && !asked.key_in_query);
    let vertex = "/v1/projects/p/locations/global/publishers/google/models/gemini-3-flash:predict";
    assert_eq!(find(vertex).map(|asked| (asked.host, asked.verb)), Some((Host::VertexStable, Verb::Predict)));
    assert_eq!(find("/v1beta/models").map(|asked| asked.verb), Some(Verb::List));
    assert_eq!(find("/v1beta/models/m:nothing").map(|asked| asked.verb), Some(Verb::Unknown));
    assert!(find("/v1beta/models/m:generateContent?key=k").unwrap().key_in_query);
    for other in ["/v1/models", "/v1/models/gpt", "/v1beta/openai/chat/completions", "/v1/messages"] {
        assert!(find(other).is_none(), "{other}");
    }
}

#[test]
fn contents_have_parts_and_one_of_two_roles() {
    for (contents, expected) in [
        (json!([]), "contents is not specified"),
        (json!([{"role": "assistant", "parts": [{"text": "a"}]}]), "valid role: user, model"),
        (json!([{"role": "user", "parts": []}]), "contents.parts must not be empty"),
        (json!([{"role": "user", "parts": [{"thought": true}]}]), "contents[0].parts[0].data: required oneof"),
        (
            json!([{"role": "user", "parts": [{"text": "a", "inlineData": {"mimeType": "a/b", "data": ""}}]}]),
            "already set. Cannot set 'inline_data'",
        ),
        (json!([{"role": "user", "parts": [{"inlineData": {"data": "aaaa"}}]}]), "mime type must be set"),
    ] {
        let told = refusal("gemini-2.5-flash", json!({"contents": contents}));
        assert!(told.contains(expected), "{told}");
    }
    assert_eq!(refusal("m", json!({"contents": [{"parts": [{"text": ""}]}]})), "");
}

#[test]
fn calls_are_answered_in_the_next_turn_by_their_names() {
    let told = |contents: Value| refusal("gemini-2.5-flash", json!({"contents": contents}));
    assert_eq!(told(json!([user("a"), called(None), answered("f")])), "");
    assert_eq!(told(json!([user("a"), called(None), called(None), answered("f"), answered("f"), user("b")])), "");
    assert!(told(json!([user("a"), called(None), user("b")])).contains("number of function response parts"));
    assert!(
        told(json!([user("a"), called(None), called(None), answered("f")])).contains("number of function response")
    );
    assert!(told(json!([user("a"), answered("f")])).contains("immediately after a function call turn"));
    assert!(told(json!([user("a"), called(None), answered("g")])).contains("no call of `g`"));
    assert!(told(json!([called(None), answered("f")])).contains("immediately after a user turn"));
    let nameless =
        json!([user("a"), called(None), {"role": "user", "parts": [{"functionResponse": {"response": {}}}]}]);
    assert!(told(nameless).contains("function_response.name: Name cannot be empty"));
}

#[test]
fn the_newest_models_demand_the_proof_of_the_first_call_of_each_step() {
    let contents = |signature, more: Option<Value>| {
        let mut contents = vec![user("a"), called(signature), answered("f")];
        contents.extend(more);
        json!({"contents": contents})
    };
    let told = refusal("gemini-3-pro-preview", contents(None, None));
    assert!(told.contains("missing a thought_signature") && told.contains("`default_api:f` , position 2"), "{told}");
    assert_eq!(refusal("gemini-2.5-pro", contents(None, None)), "");
    assert_eq!(refusal("gemini-3-pro-preview", contents(Some("skip_thought_signature_validator"), None)), "");
    assert_eq!(refusal("gemini-3-pro-preview", contents(None, Some(user("and now?")))), "", "an earlier turn");
    let good = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, rules::proof("f", &json!({"a": 1})));
    let other = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, rules::proof("f", &json!({"a": 2})));
    assert_eq!(refusal("gemini-3-pro-preview", contents(Some(&good), None)), "");
    assert_eq!(refusal("gemini-2.5-pro", contents(Some(&other), None)), "Corrupted thought signature.");
    let mut proven = contents(None, None);
    proven["contents"][1]["parts"][0]["functionCall"]["id"] = json!("proven_1");
    assert!(refusal("gemini-2.5-pro", proven).contains("missing a thought_signature"));
    let mut parallel = contents(Some(&good), None);
    let second = json!({"functionCall": {"name": "f", "args": {}}});
    parallel["contents"][1]["parts"].as_array_mut().unwrap().push(second);
    parallel["contents"][2]["parts"].as_array_mut().unwrap().push(answered("f")["parts"][0].clone());
    assert_eq!(refusal("gemini-3-pro-preview", parallel), "", "only the first of parallel calls has one");
}

#[test]
fn tools_have_names_and_their_configuration_needs_them() {
    let told = |more: Value| {
        let mut body = json!({"contents": [user("a")]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        refusal("gemini-2.5-flash", body)
    };
    let tool = |name: &str| json!({"tools": [{"functionDeclarations": [{"name": name}]}]});
    assert_eq!(told(tool("a.b:c-d_e")), "");
    for name in ["", "1a", "a b", &"a".repeat(65)] {
        assert!(told(tool(name)).contains("Invalid function name"), "{name}");
    }
    let twice = json!({"tools": [{"functionDeclarations": [{"name": "f"}, {"name": "f"}]}]});
    assert!(told(twice).contains("Duplicate function declaration"));
    let config = json!({"toolConfig": {"functionCallingConfig": {"mode": "NONE"}}, "tools": [{"googleSearch": {}}]});
    assert!(told(config).contains("without function_declarations"));
}

#[test]
fn numbers_have_the_ranges_of_the_api() {
    for (name, value) in
        [("temperature", 2.1), ("topP", 1.5), ("candidateCount", 9.0), ("maxOutputTokens", 0.0), ("temperature", -0.1)]
    {
        let body = json!({"contents": [user("a")], "generationConfig": {name: value}});
        assert!(refusal("m", body.clone()).contains("must be in the range"), "{name}");
        let told = rules::check(&body, "m", Host::Vertex).unwrap_err().message;
        assert!(told.starts_with("Unable to submit request because it has a"), "{told}");
    }
    let stops = json!({"contents": [user("a")], "generationConfig": {"stopSequences": ["1", "2", "3", "4", "5", "6"]}});
    let told = rules::check(&stops, "m", Host::Vertex).unwrap_err().message;
    assert!(told.contains("stopSequences value of 6 but the supported range is from 1 (inclusive) to 6 (exclusive)"));
    assert!(refusal("m", stops).contains("must not exceed 5"));
}

#[test]
fn formats_and_thinking_are_a_matter_of_the_family() {
    let told = |model: &str, config: Value, tools: bool| {
        let mut body = json!({"contents": [user("a")], "generationConfig": config});
        if tools {
            body["tools"] = json!([{"functionDeclarations": [{"name": "f"}]}]);
        }
        refusal(model, body)
    };
    let json = json!({"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}});
    assert_eq!(told("gemini-2.5-flash", json.clone(), false), "");
    assert!(told("gemini-2.5-flash", json.clone(), true).contains("Function calling with a response mime type"));
    assert_eq!(told("gemini-3-flash-preview", json, true), "");
    assert!(told("m", json!({"responseSchema": {"type": "OBJECT"}}), false).contains("only allowed when"));
    let thinking = |model: &str, config: Value| told(model, json!({"thinkingConfig": config}), false);
    assert!(thinking("gemini-2.5-pro", json!({"thinkingLevel": "low"})).contains("level is not supported"));
    assert!(thinking("gemini-3-pro-preview", json!({"thinkingLevel": "MINIMAL"})).contains("MINIMAL is not supported"));
    assert_eq!(thinking("gemini-3-flash-preview", json!({"thinkingLevel": "minimal"})), "");
    assert!(thinking("gemini-3-pro", json!({"thinkingLevel": "low", "thinkingBudget": 1})).contains("only one of"));
    assert!(thinking("gemini-2.5-pro", json!({"thinkingBudget": 0})).contains("only works in thinking mode"));
    assert!(thinking("gemini-2.5-flash", json!({"thinkingBudget": 24_577})).contains("between 0 and 24576"));
    assert_eq!(thinking("gemini-2.5-pro", json!({"thinkingBudget": -1})), "");
    let gemma = json!({"contents": [user("a")], "systemInstruction": {"parts": [{"text": "b"}]}});
    assert!(refusal("gemma-3-27b-it", gemma).contains("Developer instruction is not enabled"));
}

#[test]
fn counting_and_embedding_have_messages_of_their_own() {
    let count = |body: Value| rules::check_count(&body, "m", Host::Gemini).map_err(|error| error.message);
    assert_eq!(count(json!({"contents": [user("a")]})), Ok(()));
    assert!(count(json!({"contents": [user("a")], "systemInstruction": {"parts": [{"text": "a"}]}})).is_err());
    let nested =
        |model: &str| json!({"generateContentRequest": {"model": model, "contents": [user("a")], "tools": []}});
    assert_eq!(count(nested("models/m")), Ok(()));
    assert!(count(nested("m")).is_err());
    let embed = |body: Value| rules::check_embed(&body, "m", Host::Gemini, &proto::BATCH_EMBED);
    let one = |model: &str| json!({"requests": [{"model": model, "content": {"parts": [{"text": "a"}]}}]});
    assert_eq!(embed(one("models/m")), Ok(()));
    assert!(embed(one("models/other")).is_err());
    assert!(embed(json!({"requests": [{"content": {"parts": [{"text": "a"}]}}]})).is_err());
    assert!(embed(json!({"requests": []})).is_err());
    assert!(embed(json!({"requests": [{"model": "models/m", "content": {"parts": []}}]})).is_err());
    assert_eq!(vector("a", Some(7)).len(), 7);
    assert_ne!(vector("a", None), vector("b", None));
}

#[test]
fn errors_are_googles() {
    let error = ApiError { param: Some(retry_info(37)), ..ApiError::new(429, "slow down").code("RATE_LIMIT_EXCEEDED") };
    let body: Value = serde_json::from_str(&error_body(&error)).unwrap();
    assert_eq!(body["error"]["status"], "RESOURCE_EXHAUSTED");
    assert_eq!(body["error"]["code"], 429);
    assert_eq!(body["error"]["details"][0]["retryDelay"], "37s");
    assert_eq!(body["error"]["details"][1]["reason"], "RATE_LIMIT_EXCEEDED");
    let plain: Value = serde_json::from_str(&error_body(&ApiError::new(503, "x"))).unwrap();
    assert_eq!(plain["error"]["status"], "UNAVAILABLE");
    assert!(plain["error"].get("details").is_none());
}
