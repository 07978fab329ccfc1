use super::*;
use crate::recorded;

const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const NOVA: &str = "us.amazon.nova-micro-v1:0";
const LLAMA: &str = "us.meta.llama4-maverick-17b-instruct-v1:0";

fn refusal(id: &str, body: &Value) -> String {
    rules::check(body, id).map_or_else(|error| error.message, |()| String::new())
}

fn user(content: Value) -> Value {
    json!({"role": "user", "content": content})
}

fn ask(content: Value) -> Value {
    json!({"messages": [user(content)]})
}

fn with(name: &str, value: Value) -> Value {
    let mut body = ask(json!([{"text": "a"}]));
    body[name] = value;
    body
}

fn tool_config() -> Value {
    json!({"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}}]})
}

/// A call, and what comes after it.
fn called(answer: Value) -> Value {
    let call = json!({"toolUse": {"toolUseId": "t1", "name": "f", "input": {}}});
    json!({
        "messages": [user(json!([{"text": "a"}])), {"role": "assistant", "content": [call]}, user(answer)],
        "toolConfig": tool_config(),
    })
}

fn result(id: &str) -> Value {
    json!({"toolResult": {"toolUseId": id, "content": [{"text": "x"}]}})
}

/// Amazon took these, or refused them in these words: the checks do the same.
#[test]
fn recorded_requests_are_taken_and_refused_as_they_were() {
    let mut seen = 0;
    for (id, exchange, _) in recorded::exchanges("bedrock") {
        let request = &exchange["request"];
        let (Some(path), body) = (request["path"].as_str(), &request["body"]) else { continue };
        let model = percent_decode(path.rsplit('/').nth(1).unwrap());
        let told = match exchange["api"].as_str().unwrap() {
            "converse" | "converse-stream" => rules::check(body, &model),
            "count-tokens" => rules::check_count(body, &model),
            _ => continue,
        };
        let told = told.err().map(|error| (error.status, error.message));
        let expected = (exchange["response"]["status"] != 200)
            .then(|| (400, exchange["response"]["body"]["message"].as_str().unwrap().to_owned()));
        assert_eq!(told, expected, "{id}");
        seen += 1;
    }
    assert!(seen >= 27 || !recorded::present(), "{seen}");
}

/// What models took in their own words is answered in the members they answered with.
#[test]
fn recorded_requests_to_models_are_answered() {
    let app = App::new(crate::journal::Journal::new(0), Directives::default(), None);
    let mut seen = 0;
    for (id, exchange, _) in recorded::exchanges("bedrock") {
        if exchange["api"] != "invoke" {
            continue;
        }
        let path = exchange["request"]["path"].as_str().unwrap();
        let request = Request {
            method: "POST",
            target: path,
            path,
            query: "",
            headers: &[],
            head: b"",
            body: b"",
            form: None,
            received: std::time::Instant::now(),
        };
        let endpoint = Bedrock::find(&request).unwrap();
        let body = &exchange["request"]["body"];
        let reply = endpoint.invoke(&app, &request, body, &Directives::default());
        let crate::reply::Body::Whole(bytes) = reply.unwrap_or_else(|error| panic!("{id}: {error:?}")).body else {
            panic!("{id}: a stream");
        };
        let reply: Value = serde_json::from_slice(&bytes).unwrap();
        let told = &exchange["response"]["body"];
        for name in ["embedding", "embeddings", "inputTextTokenCount", "response_type", "content", "stop_reason"] {
            assert_eq!(reply[name].is_null(), told[name].is_null(), "{id}: {name}");
            assert_eq!(reply[name].is_array(), told[name].is_array(), "{id}: {name}");
        }
        seen += 1;
    }
    assert!(seen >= 6 || !recorded::present(), "{seen}");
}

#[test]
fn members_are_known_and_have_their_types() {
    for (body, expected) in [
        (with("max_tokens", json!(1)), "#: extraneous key [max_tokens] is not permitted"),
        (with("inferenceConfig", json!({"topK": 1})), "#/inferenceConfig: extraneous key [topK]"),
        (
            with("inferenceConfig", json!({"temperature": 1.5})),
            "'inferenceConfig.temperature' failed to satisfy constraint: Member must have value less than or equal to 1",
        ),
        (with("inferenceConfig", json!({"maxTokens": 0})), "Member must have value greater than or equal to 1"),
        (with("inferenceConfig", json!({"maxTokens": "1"})), "STRING_VALUE can not be converted to a Integer"),
        (with("system", json!("text")), "STRING_VALUE can not be converted to a List"),
        (
            with("system", json!([{"text": ""}])),
            "'system.1.member.text' failed to satisfy constraint: Member must have length",
        ),
        (
            with("toolConfig", json!({"tools": []})),
            "'toolConfig.tools' failed to satisfy constraint: Member must have length greater than or equal to 1",
        ),
        (with("toolConfig", json!({"toolChoice": {"auto": {}}})), "Value null at 'toolConfig.tools'"),
        (
            with("serviceTier", json!({"type": "fast"})),
            "Member must satisfy enum value set: [priority, default, flex, reserved]",
        ),
        (
            ask(json!([{"text": "a", "image": {"format": "png", "source": {"bytes": "AAAA"}}}])),
            "must have exactly one member set",
        ),
        (ask(json!([{"image": {"format": "tiff", "source": {"bytes": "AAAA"}}}])), "enum value set"),
        (ask(json!([{"image": {"format": "png", "source": {"bytes": ""}}}])), "length greater than or equal to 1"),
        (ask(json!([{"type": "text"}])), "extraneous key [type]"),
        (ask(json!("text")), "can not be converted to a List"),
    ] {
        let told = refusal(NOVA, &body);
        assert!(told.contains(expected), "{told}");
    }
    let kind = rules::check(&with("system", json!("text")), NOVA).unwrap_err().kind;
    assert_eq!(kind.as_deref(), Some("SerializationException"));
}

#[test]
fn names_and_ids_have_their_letters_and_lengths() {
    let tool = |name: &str| {
        with(
            "toolConfig",
            json!({"tools": [{"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object"}}}}]}),
        )
    };
    assert_eq!(refusal(NOVA, &tool("a_b-C1")), "");
    for name in ["a.b", "", &"a".repeat(65)] {
        assert!(refusal(NOVA, &tool(name)).contains("'toolConfig.tools.1.member.toolSpec.name'"), "{name}");
    }
    let mut call = called(json!([result("t 1")]));
    call["messages"][1]["content"][0]["toolUse"]["toolUseId"] = json!("t 1");
    assert!(refusal(NOVA, &call).contains("regular expression pattern: [a-zA-Z0-9_.:-]+"));
    let described = json!({"tools": [{"toolSpec": {"name": "f", "description": "", "inputSchema": {"json": {}}}}]});
    assert!(refusal(NOVA, &with("toolConfig", described)).contains("toolSpec.description"));
}

#[test]
fn conversations_begin_with_the_user_and_alternate() {
    let leading =
        json!({"messages": [{"role": "assistant", "content": [{"text": "a"}]}, user(json!([{"text": "b"}]))]});
    assert!(refusal(NOVA, &leading).contains("must start with a user message"));
    assert_eq!(refusal(CLAUDE, &leading), "");
    assert!(refusal(NOVA, &json!({"messages": []})).contains("must start with a user message"));
    let twice = json!({"messages": [user(json!([{"text": "a"}])), user(json!([{"text": "b"}]))]});
    assert!(refusal(CLAUDE, &twice).contains("must alternate between user and assistant"));
    assert!(refusal(CLAUDE, &ask(json!([]))).contains("content field in the Message object at messages.0 is empty"));
    for blank in ["", " \n"] {
        let told = refusal(CLAUDE, &ask(json!([{"text": blank}])));
        assert!(told.contains("text field in the ContentBlock object at messages.0.content.0 is blank"), "{told}");
    }
}

#[test]
fn results_answer_the_calls_before_them() {
    assert_eq!(refusal(CLAUDE, &called(json!([result("t1")]))), "");
    assert!(refusal(CLAUDE, &called(json!([result("t2")]))).contains("for the following Ids: t1"));
    assert!(refusal(CLAUDE, &called(json!([{"text": "b"}]))).contains("for the following Ids: t1"));
    assert!(refusal(CLAUDE, &called(json!([result("t1"), result("t2")]))).contains("exceeds the number of toolUse"));
    let mut alone = called(json!([result("t1")]));
    alone.as_object_mut().unwrap().remove("toolConfig");
    assert!(refusal(CLAUDE, &alone).contains("toolConfig field must be defined"));
    let mut text = called(json!([result("t1")]));
    text["messages"][1]["content"][0]["toolUse"]["input"] = json!("{}");
    assert!(refusal(CLAUDE, &text).contains("Provide a json object"));
    let mut twice = called(json!([result("t1")]));
    let call = twice["messages"][1]["content"][0].clone();
    twice["messages"][1]["content"].as_array_mut().unwrap().push(call);
    assert!(refusal(CLAUDE, &twice).contains("duplicate Ids"));
    let beside = called(json!([result("t1"), {"text": "b"}]));
    assert_eq!(refusal(CLAUDE, &beside), "");
    assert!(refusal(LLAMA, &beside).contains("beside toolResult"));
    let mut status = called(json!([result("t1")]));
    status["messages"][2]["content"][0]["toolResult"]["status"] = json!("success");
    assert!(refusal("us.writer.palmyra-x5-v1:0", &status).contains("Remove status and try again"));
    assert_eq!(refusal(NOVA, &status), "");
}

#[test]
fn documents_have_unique_plain_names_and_text_beside_them() {
    let document = |name: &str| json!({"document": {"format": "pdf", "name": name, "source": {"bytes": "AAAA"}}});
    assert_eq!(refusal(NOVA, &ask(json!([document("A b-(1)[2]_c"), {"text": "a"}]))), "");
    for name in ["report.pdf", "a  b", "a\u{3000}b", "é"] {
        let told = refusal(NOVA, &ask(json!([document(name), {"text": "a"}])));
        assert!(told.starts_with("The document file name can only contain"), "{told}");
    }
    assert!(refusal(NOVA, &ask(json!([document("a")]))).contains("text block is required"));
    assert!(refusal(NOVA, &ask(json!([document("a"), document("a"), {"text": "a"}]))).contains("must be unique"));
    let beside = called(json!([result("t1"), document("a"), {"text": "b"}]));
    assert!(refusal(CLAUDE, &beside).contains("beside toolResult"));
    let s3 = json!([{"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/k"}}}}, {"text": "a"}]);
    assert!(refusal(CLAUDE, &ask(s3.clone())).contains("doesn't support the s3Uri field"));
    assert_eq!(refusal(NOVA, &ask(s3)), "");
}

#[test]
fn choices_of_tools_fit_the_tools_and_the_model() {
    let choose = |choice: Value| {
        let mut config = tool_config();
        config["toolChoice"] = choice;
        with("toolConfig", config)
    };
    assert_eq!(refusal(NOVA, &choose(json!({"tool": {"name": "f"}}))), "");
    assert!(refusal(NOVA, &choose(json!({"tool": {"name": "g"}}))).contains("is not one of the tools"));
    assert!(
        refusal(LLAMA, &choose(json!({"any": {}}))).contains("doesn't support the toolConfig.toolChoice.any field")
    );
    assert_eq!(refusal(LLAMA, &choose(json!({"auto": {}}))), "");
    assert!(refusal(NOVA, &choose(json!({"none": {}}))).contains("extraneous key [none]"));
    let list = json!({"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "string"}}}}]});
    assert!(refusal(NOVA, &with("toolConfig", list)).contains("must be one of the following: object"));
}

#[test]
fn what_goes_to_the_model_is_what_it_knows() {
    let more = |fields: Value| with("additionalModelRequestFields", fields);
    assert!(refusal(CLAUDE, &more(json!({"seed": 1}))).contains("extraneous key [seed]"));
    assert!(refusal(NOVA, &more(json!({"top_k": 1}))).contains("extraneous key [top_k]"));
    assert_eq!(refusal(NOVA, &more(json!({"inferenceConfig": {"topK": 1}}))), "");
    assert_eq!(refusal(CLAUDE, &more(json!({"top_k": 1}))), "");
    let budget = more(json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}));
    assert_eq!(refusal(CLAUDE, &budget), "");
    let told = refusal("us.anthropic.claude-opus-4-7", &budget);
    assert!(told.starts_with("The model returned the following errors: \"thinking.type.enabled\""), "{told}");
    let warm = with("inferenceConfig", json!({"temperature": 0.5}));
    assert!(refusal("us.anthropic.claude-opus-4-7", &warm).contains("`temperature` is deprecated"));
    assert_eq!(refusal(CLAUDE, &warm), "");
    let begun = json!({"messages": [user(json!([{"text": "a"}])), {"role": "assistant", "content": [{"text": "b"}]}]});
    assert!(refusal("anthropic.claude-opus-4-6-v1", &begun).contains("does not support assistant message prefill"));
    assert_eq!(refusal(CLAUDE, &begun), "");
    let schema = |schema: &str| {
        let format = json!({"type": "json_schema", "structure": {"jsonSchema": {"name": "n", "schema": schema}}});
        with("outputConfig", json!({"textFormat": format}))
    };
    assert_eq!(refusal(CLAUDE, &schema("{}")), "");
    assert!(refusal(CLAUDE, &schema("nonsense")).contains("not a valid JSON schema"));
}

#[test]
fn reasoning_comes_back_as_it_was_said() {
    let body = |text: &str, signature: Option<&str>| {
        let mut reasoning = json!({"text": text});
        if let Some(signature) = signature {
            reasoning["signature"] = json!(signature);
        }
        let thought = json!({"reasoningContent": {"reasoningText": reasoning}});
        json!({"messages": [
            user(json!([{"text": "a"}])),
            {"role": "assistant", "content": [thought, {"text": "b"}]},
            user(json!([{"text": "c"}])),
        ]})
    };
    let proof = anthropic::proof("so it is");
    assert_eq!(refusal(CLAUDE, &body("so it is", Some(&proof))), "");
    assert_eq!(refusal(CLAUDE, &body("so it is", Some("of another provider"))), "");
    assert!(refusal(CLAUDE, &body("so it was", Some(&proof))).contains("Invalid `signature` in `thinking` block"));
    assert!(refusal(CLAUDE, &body("so it is", None)).contains("thinking.signature: Field required"));
    assert_eq!(refusal("us.deepseek.r1-v1:0", &body("so it is", None)), "");
}

#[test]
fn ids_name_models() {
    for good in [
        CLAUDE,
        "anthropic.claude-opus-4-8",
        "amazon.nova-pro-v1:0:300k",
        "arn:aws:bedrock:us-east-1:1:inference-profile/us.meta.llama4-v1:0",
    ] {
        assert!(rules::Model::of(good).is_some(), "{good}");
    }
    assert_eq!(rules::Model::of(CLAUDE).map(|model| (model.vendor, model.profile)), Some(("anthropic", true)));
    for bad in ["claude", "us.amazon.nova-micro-v1:O", "us.does-not-exist-model-v1:0"] {
        assert!(rules::Model::of(bad).is_none(), "{bad}");
    }
}

#[test]
fn embeddings_are_asked_for_in_three_ways() {
    assert!(titan(&json!({"inputText": "a", "dimensions": 256})).is_ok());
    assert!(titan(&json!({"inputText": "a", "dimensions": 100})).is_err());
    assert!(titan(&json!({"inputText": "a", "model": "m"})).is_err());
    assert!(titan(&json!({"inputText": ""})).is_err());
    let text = json!({"value": "a", "truncationMode": "NONE"});
    let params = json!({"embeddingPurpose": "GENERIC_INDEX", "text": text});
    assert!(nova(&json!({"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": params})).is_ok());
    assert!(nova(&json!({"singleEmbeddingParams": params})).is_err());
    let app = App::new(crate::journal::Journal::new(0), Directives::default(), None);
    let texts = ["a".to_owned()];
    assert!(cohere(&app, &json!({"input_type": "search_query"}), &texts, true).is_ok());
    assert!(cohere(&app, &json!({}), &texts, true).is_err());
    assert!(cohere(&app, &json!({"input_type": "search_query", "input": "a"}), &texts, true).is_err());
    assert!(cohere(&app, &json!({"input_type": "search_query"}), &[], true).is_err());
}
