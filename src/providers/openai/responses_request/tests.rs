use super::*;
use crate::config::{Provider, StructuredOutput};
use crate::protocol::chat::{CacheMark, Effort, List, Place, ReasoningPart};

fn sent(chat: &ChatRequest) -> Result<(Value, Vec<String>), Problem> {
    sent_to("up", chat)
}

fn sent_to(model: &str, chat: &ChatRequest) -> Result<(Value, Vec<String>), Problem> {
    let provider: Provider =
        serde_json::from_value(json!({"dialect": "openai", "base_url": "https://provider.example/v1"})).unwrap();
    let target = Target {
        provider: &provider,
        upstream_model: model,
        max_output_tokens: 64,
        structured_output: StructuredOutput::Native,
        strict_params: false,
    };
    let mut notes = Notes::new(chat.origin, false);
    let request = request(chat, target, &mut notes)?;
    Ok((serde_json::from_slice(&request.body).unwrap(), notes.into_dropped()))
}

fn message(role: Role, bodies: Vec<PartBody>) -> Message {
    let at = Place::item(List::Messages, 0);
    let part = |(nth, body)| Part { body, cache: None, at: at.part(nth) };
    Message { role, parts: bodies.into_iter().enumerate().map(part).collect(), name: None, at }
}

fn text(text: &str) -> PartBody {
    PartBody::Text { text: text.to_owned(), signature: None }
}

fn call(id: &str, custom: bool) -> PartBody {
    PartBody::Call { id: id.into(), name: "f".into(), arguments: "{}".into(), custom, signature: None }
}

fn result(id: &str, bodies: Vec<PartBody>) -> PartBody {
    PartBody::Result { id: id.into(), name: None, parts: message(Role::Tool, bodies).parts, is_error: false }
}

fn reasoned(family: Lineage) -> PartBody {
    let signature = Some(Signature { family, value: "proof".into() });
    PartBody::Reasoning(ReasoningPart {
        text: "hm".into(),
        signature,
        summary: true,
        id: Some("rs".into()),
        redacted: None,
    })
}

fn chat(messages: Vec<Message>) -> ChatRequest {
    ChatRequest { messages, ..ChatRequest::new(Api::ChatCompletions, "m".to_owned()) }
}

#[test]
fn a_conversation_becomes_items_in_its_order() {
    let image = PartBody::Image { source: Source::Url("https://i".into()), detail: Some("low".into()) };
    let pdf = PartBody::Document {
        source: Source::Base64 { media_type: "application/pdf".into(), data: "AAAA".into() },
        name: None,
        context: None,
        cite: false,
    };
    let mut chat = chat(vec![
        message(Role::Developer, vec![text("rules")]),
        message(Role::User, vec![text("look"), image.clone(), pdf]),
        message(
            Role::Assistant,
            vec![
                reasoned(Lineage::OpenAi),
                reasoned(Lineage::Anthropic),
                text("so"),
                call("c1", false),
                call("c2", true),
                PartBody::Refusal("no".into()),
            ],
        ),
        message(Role::Tool, vec![result("c1", vec![text("one"), text("two")])]),
        message(Role::Tool, vec![result("c2", vec![text("see"), image])]),
    ]);
    chat.instructions.push(TextPart { text: "be brief".into(), cache: None });
    let (body, dropped) = sent(&chat).unwrap();
    let picture = json!({"type": "input_image", "image_url": "https://i", "detail": "low"});
    let file =
        json!({"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "document.pdf"});
    let words = |text: &str| json!({"type": "input_text", "text": text});
    assert_eq!(
        body["input"],
        json!([
            {"type": "message", "role": "developer", "content": [words("rules")]},
            {"type": "message", "role": "user", "content": [words("look"), picture, file]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "proof", "id": "rs"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "so"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "custom_tool_call", "call_id": "c2", "name": "f", "input": "{}"},
            {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"type": "function_call_output", "call_id": "c1", "output": "onetwo"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": [words("see"), picture]},
        ])
    );
    assert_eq!(
        (&body["instructions"], &body["model"], &body["store"]),
        (&json!("be brief"), &json!("up"), &json!(false))
    );
    assert_eq!(body["include"], json!(["reasoning.encrypted_content"]));
    assert!(dropped.is_empty());
}

#[test]
fn parameters_have_their_places() {
    let mut chat = chat(vec![message(Role::User, vec![text("x")])]);
    chat.output.max_tokens = Some(5);
    chat.output.format = Format::Schema { name: None, description: None, schema: json!({}), strict: Some(true) };
    chat.reasoning.budget_tokens = Some(5000);
    chat.sampling.logprobs = Some(true);
    chat.sampling.stop = vec!["x".into()];
    chat.sampling.seed = Some(1);
    chat.stream = true;
    let tool = |body| Tool { body, cache: None, at: Place::item(List::Tools, 0) };
    let function = Function { name: "f".into(), description: None, parameters: None, strict: None };
    chat.tools.offered = vec![tool(ToolBody::Function(function))];
    let (body, dropped) = sent_to("gpt-5.5", &chat).unwrap();
    assert_eq!(body["text"]["format"], json!({"type": "json_schema", "name": "answer", "schema": {}, "strict": true}));
    assert_eq!((&body["max_output_tokens"], &body["stream"]), (&json!(16), &json!(true)));
    assert_eq!(body["reasoning"], json!({"effort": "medium"}));
    assert_eq!(body["include"], json!(["reasoning.encrypted_content", "message.output_text.logprobs"]));
    assert_eq!(
        (&body["tools"][0]["strict"], &body["tools"][0]["parameters"]["type"]),
        (&json!(false), &json!("object"))
    );
    assert_eq!(dropped, ["seed", "stop", "max_tokens=16"]);
}

#[test]
fn what_cannot_be_said_is_refused_by_its_place() {
    let mut several = chat(Vec::new());
    several.sampling.n = Some(2);
    let video = PartBody::Video { source: Source::Url("https://v".into()) };
    let mut hosted = chat(Vec::new());
    hosted.origin = Api::Messages;
    let body = ToolBody::Hosted { kind: "bash_20250124".into(), value: json!({}) };
    hosted.tools.offered = vec![Tool { body, cache: None, at: Place::item(List::Tools, 0) }];
    for (chat, place) in [
        (several, "n"),
        (chat(vec![message(Role::User, vec![text("x"), video])]), "messages[0].content[1]"),
        (chat(vec![message(Role::Assistant, vec![result("c", Vec::new())])]), "messages[0].content[0]"),
        (hosted, "tools[0].type"),
    ] {
        let problem = sent(&chat).unwrap_err();
        assert_eq!((problem.status, problem.param.as_deref()), (400, Some(place)));
    }
}

#[test]
fn nobody_builds_on_a_response_that_the_provider_keeps() {
    use crate::protocol::json_scan::{ScanLimits, scan_object};
    let refused = |rest: &str| {
        let body = format!("{{\"model\":\"m\",{rest}}}");
        let members = scan_object(body.as_bytes(), ScanLimits::default()).unwrap();
        let source = providers::Source { body: body.as_bytes(), members: &members, stream: false, mark: None };
        let told = |owned| refuse_state(&source, owned).err().and_then(|problem| problem.param);
        assert_eq!(told(true), told(false).filter(|place| place != "previous_response_id"), "{rest}");
        told(false)
    };
    for (rest, place) in [
        (r#""input":"x","previous_response_id":"resp_1""#, "previous_response_id"),
        (r#""input":"x","conversation":{"id":"c"}"#, "conversation"),
        (r#""input":"x","background":true"#, "background"),
        (r#""input":[{"role":"user","content":"x"},{"type":"item_reference","id":"i"}]"#, "input[1]"),
        (r#""input":[{"id":"i"}]"#, "input[0]"),
    ] {
        assert_eq!(refused(rest).as_deref(), Some(place), "{rest}");
    }
    for rest in [
        r#""input":"x","previous_response_id":null,"background":false,"prompt":{"id":"p"}"#,
        r#""input":[{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"e"},{"id":"m","role":"user","content":"x"}]"#,
    ] {
        assert_eq!(refused(rest), None, "{rest}");
    }
}

#[test]
fn a_model_is_told_what_it_takes_and_nothing_else() {
    let told = |model: &str, effort: Option<Effort>| {
        let mut asked = chat(vec![message(Role::User, vec![text("hi")])]);
        (asked.sampling.temperature, asked.sampling.top_p) = (Some(0.5), Some(0.9));
        asked.reasoning.effort = effort;
        let (body, dropped) = sent_to(model, &asked).unwrap();
        assert_eq!(body.get("temperature").is_some(), dropped.is_empty(), "{model}");
        (body["reasoning"]["effort"].clone(), dropped)
    };
    let both = vec!["temperature".to_owned(), "top_p".to_owned()];
    assert_eq!(told("gpt-4.1", None), (Value::Null, vec![]));
    assert_eq!(told("gpt-5", Some(Effort::Max)), ("high".into(), both.clone()));
    assert_eq!(told("gpt-5", Some(Effort::None)), ("minimal".into(), both.clone()));
    assert_eq!(told("gpt-5.1", Some(Effort::None)), ("none".into(), vec![]));
    assert_eq!(told("gpt-5.5", None), (Value::Null, both.clone()));
    assert_eq!(told("o3", Some(Effort::High)), ("high".into(), both));
    assert_eq!(told("of-the-operators-own", Some(Effort::XHigh)), ("xhigh".into(), vec![]));
}

#[test]
fn a_tool_that_failed_says_so() {
    let failed = |bodies| {
        let mut result = result("c", bodies);
        if let PartBody::Result { is_error, .. } = &mut result {
            *is_error = true;
        }
        let asked = chat(vec![message(Role::Assistant, vec![call("c", false)]), message(Role::Tool, vec![result])]);
        sent(&asked).unwrap().0["input"][1]["output"].clone()
    };
    assert_eq!(failed(vec![text("no such file")]), "The tool failed:\nno such file");
    let picture = PartBody::Image { source: Source::Url("https://i".into()), detail: None };
    assert_eq!(failed(vec![picture])[0], json!({"type": "input_text", "text": "The tool failed:\n"}));
}

#[test]
fn the_newest_models_get_markers_for_their_prompt_cache() {
    let mark = || Some(CacheMark::plain());
    let marked = |message: Message| {
        let parts = message.parts.into_iter().map(|part| Part { cache: mark(), ..part }).collect();
        Message { parts, ..message }
    };
    let mut chat = chat(vec![
        marked(message(Role::User, vec![text("a")])),
        marked(message(Role::Assistant, vec![text("b"), call("c", false)])),
        marked(message(Role::Tool, vec![result("c", vec![text("d")])])),
    ]);
    chat.instructions.push(TextPart { text: "Be kind.".into(), cache: mark() });
    let (body, dropped) = sent_to("gpt-5.6", &chat).unwrap();
    assert_eq!((dropped, body.get("instructions")), (vec![], None));
    let breakpoint = json!({"mode": "explicit"});
    let at = |place: &str| body.pointer(place).unwrap();
    assert_eq!((at("/input/0/role"), at("/input/0/content/0/text")), (&json!("system"), &json!("Be kind.")));
    for place in ["/input/0/content/0", "/input/1/content/0", "/input/4/output/0"] {
        assert_eq!(at(place)["prompt_cache_breakpoint"], breakpoint, "{place}: {body}");
    }
    assert_eq!(body.to_string().matches("breakpoint").count(), 3);
    let (body, dropped) = sent_to("gpt-5.5", &chat).unwrap();
    assert_eq!((&body["instructions"], body.to_string().contains("breakpoint")), (&json!("Be kind."), false));
    assert_eq!(dropped, ["cache_control"]);
}
