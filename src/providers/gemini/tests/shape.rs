//! The members that the documented messages of `generateContent` have. What is not here is refused by Google.

use serde_json::Value;

/// Messages and their members: `name` holds anything, `name:Message` a message or a list of them, `name{Message}` one by
/// each key; `?` is the Gemini API's alone, `!` Vertex's.
const MESSAGES: &[(&str, &str)] = &[
    (
        "Request",
        "contents:Content systemInstruction:Content generationConfig:Config safetySettings:Safety tools:Tool \
         toolConfig:ToolConfig cachedContent ?serviceTier !labels",
    ),
    ("Content", "role parts:Part"),
    (
        "Part",
        "text thought thoughtSignature inlineData:Blob fileData:File functionCall:Call functionResponse:Response \
         executableCode codeExecutionResult ?toolCall ?toolResponse videoMetadata mediaResolution",
    ),
    ("Blob", "mimeType data"),
    ("File", "mimeType fileUri"),
    ("Call", "?id name args"),
    ("Response", "?id name response parts:ResponsePart"),
    ("ResponsePart", "inlineData:Blob"),
    (
        "Config",
        "stopSequences responseMimeType responseSchema:Schema responseJsonSchema responseModalities candidateCount \
         maxOutputTokens temperature topP topK seed presencePenalty frequencyPenalty responseLogprobs logprobs \
         speechConfig:Speech thinkingConfig:Thinking imageConfig mediaResolution",
    ),
    ("Speech", "voiceConfig:Voice multiSpeakerVoiceConfig languageCode"),
    ("Voice", "prebuiltVoiceConfig:Prebuilt"),
    ("Prebuilt", "voiceName"),
    ("Thinking", "includeThoughts thinkingBudget thinkingLevel"),
    ("Safety", "category threshold"),
    (
        "Tool",
        "functionDeclarations:Declaration googleSearch googleSearchRetrieval googleMaps codeExecution urlContext \
         !enterpriseWebSearch",
    ),
    ("Declaration", "name description parameters:Schema parametersJsonSchema"),
    ("ToolConfig", "functionCallingConfig:Calling retrievalConfig ?includeServerSideToolInvocations"),
    ("Calling", "mode allowedFunctionNames"),
    (
        "Schema",
        "type format title description nullable enum items:Schema minItems maxItems properties{Schema} \
         propertyOrdering required minProperties maxProperties minimum maximum minLength maxLength pattern example \
         anyOf:Schema default",
    ),
];

/// Panics where a request has a member that is not declared, or a content or part that has nothing in it.
pub(super) fn check(body: &Value, vertex: bool) {
    message(body, "Request", "", vertex);
    let contents = body["contents"].as_array().unwrap();
    assert!(!contents.is_empty() && contents[0]["role"] == "user", "{body}");
    for content in contents {
        assert!(content["role"] == "user" || content["role"] == "model", "{content}");
        assert!(!content["parts"].as_array().unwrap().is_empty(), "{content}");
        for part in content["parts"].as_array().unwrap() {
            let data = part.as_object().unwrap().keys().filter(|name| !name.starts_with("thought"));
            assert_eq!(data.count(), 1, "{part}");
            if let Some(response) = part.get("functionResponse") {
                assert!(response["response"].is_object() && content["role"] == "user", "{part}");
            }
            if let Some(call) = part.get("functionCall") {
                assert!(call["args"].is_object() && content["role"] == "model", "{part}");
            }
        }
    }
    if body.pointer("/toolConfig/functionCallingConfig").is_some() {
        let tools = body["tools"].as_array().unwrap();
        assert!(tools.iter().any(|tool| tool.get("functionDeclarations").is_some()), "{body}");
    }
}

fn message(value: &Value, name: &str, path: &str, vertex: bool) {
    if let Value::Array(items) = value {
        return items.iter().for_each(|item| message(item, name, path, vertex));
    }
    let (_, members) = MESSAGES.iter().find(|(known, _)| *known == name).unwrap();
    for (member, value) in value.as_object().unwrap_or_else(|| panic!("{path}: no object but {value}")) {
        let path = format!("{path}.{member}");
        let declared = members.split_whitespace().find_map(|declared| {
            let (declared, here) = match declared.split_at(1) {
                ("?", rest) => (rest, !vertex),
                ("!", rest) => (rest, vertex),
                _ => (declared, true),
            };
            let (declared, of) = declared.split_at(declared.find([':', '{']).unwrap_or(declared.len()));
            (here && declared == member).then_some(of)
        });
        match declared {
            None => panic!("{path} is not declared"),
            Some("") => assert!(!value.is_null(), "{path} is null"),
            Some(of) => match of.strip_prefix(':') {
                Some(of) => message(value, of, &path, vertex),
                None => {
                    let of = of.trim_matches(['{', '}']);
                    value.as_object().unwrap().values().for_each(|value| message(value, of, &path, vertex));
                }
            },
        }
    }
}
