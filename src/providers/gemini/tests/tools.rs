use super::requests::{config, dropped, one, with_tools};
use super::*;
use crate::protocol::chat::{Format, ToolChoice};

#[test]
fn schemas_are_native_or_by_a_tool() {
    let mut chat = asking();
    chat.output.format = Format::JsonObject;
    assert_eq!(config(&chat), json!({"responseMimeType": "application/json"}));
    let schema = json!({"type": "object", "properties": {"a": {"type": ["integer", "null"]}}, "$schema": "x"});
    chat.output.format = Format::Schema { name: None, description: None, schema, strict: Some(true) };
    let form = |model: &str, chat: &ChatRequest| sent(API, model, chat).unwrap().0;
    let fitted = json!({"type": "object", "properties": {"a": {"type": ["integer", "null"]}}});
    let native = json!({"responseMimeType": "application/json", "responseJsonSchema": fitted});
    assert_eq!(form("gemini-2.5-flash", &chat)["generationConfig"], native);
    let narrow = json!({"type": "object", "properties": {"a": {"type": "integer", "nullable": true}}});
    let older = json!({"responseMimeType": "application/json", "responseSchema": narrow});
    assert_eq!(form("gemini-2.0-flash", &chat)["generationConfig"], older);

    chat.tools.offered = vec![function("f", one(), None)];
    let beside = form("gemini-3", &chat);
    assert_eq!((&beside["generationConfig"], beside.get("toolConfig")), (&native, None));
    let by_tool = form("gemini-2.5-flash", &chat);
    assert_eq!(by_tool.get("generationConfig"), None);
    let declared = &by_tool["tools"][0]["functionDeclarations"];
    assert_eq!((&declared[0]["name"], &declared[1]["name"]), (&json!("f"), &json!("json_answer")));
    assert_eq!(by_tool["toolConfig"], json!({"functionCallingConfig": {"mode": "ANY"}}));

    let provider = provider();
    let asked = Target { structured_output: StructuredOutput::Tool, ..target(&provider, "gemini-3") };
    chat.tools.offered.clear();
    let request = API.translate(&chat, asked, &mut Notes::new(chat.origin, false)).unwrap();
    let by_wish: Value = serde_json::from_slice(&request.body).unwrap();
    let only = json!({"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["json_answer"]}});
    assert_eq!(by_wish["toolConfig"], only);

    let mut chat = with_tools(vec![function("f", one(), None)]);
    chat.output.format = Format::JsonObject;
    assert_eq!(dropped(API, "gemini-2.5-flash", &chat), ["response_format"]);
    assert_eq!(dropped(API, "gemini-3", &chat), [""; 0]);
    let schema = json!({"properties": {"a": {"$ref": "#"}}});
    let mut chat = asking();
    chat.output.format = Format::Schema { name: None, description: None, schema, strict: None };
    let problem = sent(API, "gemini-2.0-flash", &chat).unwrap_err();
    assert_eq!((problem.status, problem.param.as_deref()), (400, Some("response_format")));
    assert!(sent(API, "gemini-3", &chat).is_ok());
}

#[test]
fn tools_are_declared() {
    let declared = |model: &str, tool| {
        let (body, dropped, _) = sent(API, model, &with_tools(vec![tool])).unwrap();
        (body["tools"][0]["functionDeclarations"][0].clone(), dropped)
    };
    let fitted = json!({"type": "object", "properties": {"a": {"enum": [1]}}});
    let bare = json!({"name": "f"});
    assert_eq!(
        declared("gemini-3", function("f", one(), None)).0,
        json!({"name": "f", "parametersJsonSchema": fitted})
    );
    let narrow = json!({"type": "object", "properties": {"a": {"description": "const: 1"}}});
    assert_eq!(declared("gemini-2.0-flash", function("f", one(), None)).0, json!({"name": "f", "parameters": narrow}));
    for nothing in [json!({}), json!({"type": "object", "properties": {}}), json!({"additionalProperties": false})] {
        assert_eq!(declared("gemini-3", function("f", nothing, None)).0, bare);
    }
    let free = json!({"additionalProperties": {"type": "string"}});
    let kept = declared("gemini-3", function("f", free, None)).0["parametersJsonSchema"].clone();
    assert_eq!(kept, json!({"additionalProperties": {"type": "string"}, "type": "object"}));
    let recursive = with_tools(vec![function("f", json!({"properties": {"a": {"$ref": "#"}}}), None)]);
    assert_eq!(sent(API, "gemini-2.0-flash", &recursive).unwrap_err().param.as_deref(), Some("tools[0]"));
    assert!(sent(API, "gemini-2.5-flash", &recursive).is_ok());
}

#[test]
fn choices_of_tools_are_modes() {
    let calling = |model: &str, choice, strict| {
        let mut chat = with_tools(vec![function("f", one(), strict), function("g", one(), None)]);
        chat.tools.choice = choice;
        let body = sent(API, model, &chat).unwrap().0;
        let count = body["tools"][0]["functionDeclarations"].as_array().unwrap().len();
        (body.pointer("/toolConfig/functionCallingConfig").cloned(), count)
    };
    let some = |names: &[&str], required| {
        Some(ToolChoice::Among { names: names.iter().map(|name| (*name).to_owned()).collect(), required })
    };
    let mode = |mode: &str| json!({"mode": mode});
    let allowed = |mode: &str, names: &[&str]| json!({"mode": mode, "allowedFunctionNames": names});
    for (model, choice, strict, expected, count) in [
        ("gemini-3", None, None, None, 2),
        ("gemini-3", Some(ToolChoice::None), None, Some(mode("NONE")), 2),
        ("gemini-3", Some(ToolChoice::Auto), None, Some(mode("AUTO")), 2),
        ("gemini-3", Some(ToolChoice::Required), Some(true), Some(mode("ANY")), 2),
        ("gemini-3", Some(ToolChoice::One("g".into())), None, Some(allowed("ANY", &["g"])), 2),
        ("gemini-3", some(&["f"], true), None, Some(allowed("ANY", &["f"])), 2),
        ("gemini-3", some(&["f"], false), None, Some(allowed("VALIDATED", &["f"])), 2),
        ("gemini-2.0-flash", some(&["f"], false), None, Some(mode("AUTO")), 1),
        ("gemini-2.5-flash", None, Some(true), Some(mode("VALIDATED")), 2),
        ("gemini-3", Some(ToolChoice::Auto), Some(true), Some(mode("VALIDATED")), 2),
        ("gemini-2.0-flash", None, Some(true), None, 2),
    ] {
        assert_eq!(calling(model, choice.clone(), strict), (expected, count), "{model} {choice:?}");
    }
    // How to call what is not there is refused by Google.
    let mut chat = asking();
    chat.tools.choice = Some(ToolChoice::Auto);
    assert_eq!(body(&chat).get("toolConfig"), None);
    chat.tools.choice = Some(ToolChoice::Required);
    assert_eq!(refusal(API, &chat).0, "tool_choice");
}

#[test]
fn tools_that_providers_run_are_googles_own_or_refused() {
    let hosted = |kind: &str, value: Value| {
        let body = ToolBody::Hosted { kind: kind.into(), value };
        Tool { body, cache: None, at: Place::item(List::Tools, 1) }
    };
    let search = || hosted("google_search", json!({"type": "google_search"}));
    let run = hosted("code_execution", json!({"type": "code_execution", "code_execution": {"a": 1}}));
    let chat = with_tools(vec![search(), run]);
    assert_eq!(body(&chat)["tools"], json!([{"googleSearch": {}}, {"codeExecution": {"a": 1}}]));
    let both = with_tools(vec![function("f", one(), None), search()]);
    assert_eq!(body(&both)["toolConfig"], json!({"includeServerSideToolInvocations": true}));
    assert_eq!(sent(VERTEX, "gemini-3", &both).unwrap().0.get("toolConfig"), None);

    let mut foreign = with_tools(vec![hosted("web_search_20250305", json!({}))]);
    assert_eq!(refusal(API, &foreign).0, "tools[1].type");
    foreign.origin = Api::Messages;
    let (written, dropped, _) = sent(API, "gemini-3", &foreign).unwrap();
    assert_eq!((written.get("tools"), dropped), (None, vec!["tools[1]".to_owned()]));
}
