//! Recorded traffic, read from where it lies (`FIXTURES_DIR`, or `../shared/fixtures`), against a plain walk over the
//! JSON; and requests of any kind against the documented members.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::protocol::chat::{ChatEvent, Effort, FinishReason, Format, ReplyDecoder, ReplyFault, ThinkMode, ToolChoice};
use crate::protocol::frames::{Decoding, Sse, read_whole};

/// A recorded exchange.
struct Recording {
    id: String,
    is_vertex: bool,
    /// The stream's bytes; `None` for a whole reply.
    stream: Option<Vec<u8>>,
    /// The chunks of a stream, or the whole reply.
    chunks: Vec<Value>,
}

fn recordings() -> Vec<Recording> {
    let root = std::env::var_os("FIXTURES_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures")), PathBuf::from);
    let Ok(index) = fs::read(root.join("index.json")) else {
        eprintln!("SKIPPED: there is no recorded traffic at {}; set FIXTURES_DIR", root.display());
        return Vec::new();
    };
    let index: Vec<Value> = serde_json::from_slice(&index).unwrap();
    let mut recordings = Vec::new();
    for entry in &index {
        if !matches!(entry["api"].as_str(), Some("generateContent" | "streamGenerateContent")) {
            continue;
        }
        let file: Value =
            serde_json::from_slice(&fs::read(root.join(entry["file"].as_str().unwrap())).unwrap()).unwrap();
        assert_eq!(file["response"]["status"], 200);
        let stream = file["response"]["body_file"].as_str().map(|name| fs::read(root.join(name)).unwrap());
        let chunks = match &stream {
            Some(stream) => {
                let text = std::str::from_utf8(stream).unwrap();
                let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
                data.map(|data| serde_json::from_str(data).unwrap()).collect()
            }
            None => vec![file["response"]["body"].clone()],
        };
        let (id, is_vertex) = (entry["id"].as_str().unwrap().to_owned(), entry["provider"] == "google-vertex");
        recordings.push(Recording { id, is_vertex, stream, chunks });
    }
    assert!(recordings.len() > 40, "{} recordings are too few", recordings.len());
    recordings
}

impl Recording {
    fn events(&self) -> Vec<ChatEvent> {
        let reader = API.reader(target(&provider(), "gemini"));
        match &self.stream {
            Some(stream) => decoded(&[stream]).unwrap_or_else(|fault| panic!("{}: {fault}", self.id)),
            None => read_whole(reader, self.chunks[0].to_string().as_bytes())
                .unwrap_or_else(|fault| panic!("{}: {fault}", self.id)),
        }
    }

    /// All parts, in order.
    fn parts(&self) -> impl Iterator<Item = &Value> {
        self.chunks.iter().flat_map(|chunk| chunk["candidates"][0]["content"]["parts"].as_array().into_iter().flatten())
    }
}

fn decoded(pieces: &[&[u8]]) -> Result<Vec<ChatEvent>, ReplyFault> {
    let mut decoding = Decoding::new(Box::new(Sse::default()), API.reader(target(&provider(), "gemini")));
    let mut events = Vec::new();
    for piece in pieces {
        decoding.push(piece, &mut events)?;
    }
    decoding.finish(&mut events)?;
    Ok(events)
}

#[test]
fn recorded_replies_are_read_as_they_stand() {
    for recording in recordings() {
        let (mut text, mut thoughts, mut calls, mut hosted) = (String::new(), String::new(), Vec::new(), 0);
        for part in recording.parts() {
            let words = part["text"].as_str().unwrap_or_default();
            if part["thought"] == true {
                thoughts.push_str(words);
            } else {
                text.push_str(words);
            }
            if let Some(call) = part.get("functionCall") {
                calls.push((call["name"].as_str().unwrap().to_owned(), call["args"].clone()));
            }
            let kinds = ["executableCode", "codeExecutionResult", "toolCall", "toolResponse"];
            hosted += kinds.iter().filter(|kind| part.get(**kind).is_some()).count();
        }
        let last = recording.chunks.last().unwrap();
        let is_call = !calls.is_empty();
        let id = &recording.id;

        let (mut read_text, mut read_thoughts, mut read_calls, mut read_hosted) =
            (String::new(), String::new(), vec![], 0);
        let mut usage = None;
        let events = recording.events();
        let ChatEvent::Start { id: reply, model, .. } = &events[0] else { panic!("{id}: {:?}", events[0]) };
        assert_eq!(reply.as_str(), recording.chunks[0]["responseId"].as_str().unwrap_or_default(), "{id}");
        assert_eq!(model.as_str(), recording.chunks[0]["modelVersion"].as_str().unwrap_or_default(), "{id}");
        for event in &events {
            match event {
                ChatEvent::Text { choice: 0, text, .. } => read_text.push_str(text),
                ChatEvent::Reasoning { choice: 0, text } => read_thoughts.push_str(text),
                ChatEvent::CallStart { choice: 0, name, .. } => read_calls.push((name.clone(), Value::Null)),
                ChatEvent::CallArguments { choice: 0, index, fragment } => {
                    read_calls[*index as usize].1 = serde_json::from_str(fragment).unwrap();
                }
                ChatEvent::Hosted { choice: 0, .. } => read_hosted += 1,
                ChatEvent::Usage(told) => usage = Some(*told),
                _ => {}
            }
        }
        assert_eq!((read_text, read_thoughts, read_hosted), (text, thoughts, hosted), "{id}");
        assert_eq!(read_calls, calls, "{id}");
        let told = &last["usageMetadata"];
        let sum = |names: &[&str]| names.iter().map(|name| told[*name].as_u64().unwrap_or(0)).sum::<u64>();
        if let Some(usage) = usage {
            assert_eq!(usage.input_total(), sum(&["promptTokenCount", "toolUsePromptTokenCount"]), "{id}");
            let output = sum(&["candidatesTokenCount", "thoughtsTokenCount"]);
            assert!(usage.output_total() >= output, "{id}");
            assert_eq!(usage.input_total() + usage.output_total(), sum(&["totalTokenCount"]), "{id}");
        } else {
            assert!(told.is_null(), "{id}");
        }
        let reason = if is_call { FinishReason::ToolCalls } else { FinishReason::Stop };
        assert_eq!(last["candidates"][0]["finishReason"], "STOP");
        assert_eq!(events.last(), Some(&ChatEvent::Finish { choice: 0, reason }), "{id}");
    }
}

#[test]
fn recorded_streams_that_break_off_are_never_taken_for_whole() {
    for recording in recordings() {
        let Some(stream) = &recording.stream else { continue };
        let text = std::str::from_utf8(stream).unwrap();
        let last = text.trim_end().rfind("data:").unwrap();
        for end in (0..last).step_by(97).chain([last]) {
            assert_eq!(decoded(&[&stream[..end]]), Err(ReplyFault::Truncated), "{} cut at {end}", recording.id);
        }
        let inside = last + (text.trim_end().len() - last) / 2;
        assert_eq!(decoded(&[&stream[..inside]]), Err(ReplyFault::Truncated), "{}", recording.id);
    }
}

/// What a caller sends back of a reply.
fn history(events: &[ChatEvent]) -> Vec<PartBody> {
    let mut parts: Vec<PartBody> = Vec::new();
    let mut calls = Vec::new();
    for event in events {
        match event {
            ChatEvent::Text { text: more, .. } => match parts.last_mut() {
                Some(PartBody::Text { text, signature: None }) => text.push_str(more),
                _ => parts.push(text(more)),
            },
            ChatEvent::ReasoningDone { part, .. } => parts.push(PartBody::Reasoning(part.clone())),
            ChatEvent::CallStart { id, name, .. } => {
                calls.push(parts.len());
                parts.push(call(id, name, "", None));
            }
            ChatEvent::CallArguments { index, fragment, .. } => {
                let PartBody::Call { arguments, .. } = &mut parts[calls[*index as usize]] else { panic!() };
                arguments.push_str(fragment);
            }
            ChatEvent::Proof { index: Some(index), signature: proof, .. } => {
                let PartBody::Call { signature, .. } = &mut parts[calls[*index as usize]] else { panic!() };
                *signature = Some(proof.clone());
            }
            ChatEvent::Proof { index: None, signature: proof, .. } => match parts.last_mut() {
                Some(PartBody::Text { signature: signature @ None, .. }) => *signature = Some(proof.clone()),
                _ => parts.push(PartBody::Text { text: String::new(), signature: Some(proof.clone()) }),
            },
            ChatEvent::Hosted { family, value, .. } => {
                parts.push(PartBody::Hosted { family: *family, value: value.clone() });
            }
            _ => {}
        }
    }
    parts
}

/// As the dialects carry it that have a place for a proof only at a block of reasoning.
fn in_blocks(parts: Vec<PartBody>) -> Vec<PartBody> {
    let block = |signature: Signature| {
        // Through a dialect of another family's, in an envelope.
        let signature = Signature::read(&signature.write(Lineage::Anthropic), Lineage::Anthropic);
        PartBody::Reasoning(ReasoningPart { signature: Some(signature), ..ReasoningPart::default() })
    };
    let mut out = Vec::new();
    for part in parts {
        match part {
            PartBody::Call { id, name, arguments, signature: Some(signature), .. } => {
                out.extend([block(signature), call(&id, &name, &arguments, None)]);
            }
            PartBody::Text { text: words, signature: Some(signature) } => out.extend([text(&words), block(signature)]),
            other => out.push(other),
        }
    }
    out
}

/// The proofs of parts with what they belong to.
fn proofs<'p>(parts: impl Iterator<Item = &'p Value>) -> Vec<(String, String)> {
    let kind =
        |part: &Value| part.as_object().unwrap().keys().find(|name| !name.starts_with("thought")).unwrap().clone();
    let signed = parts.filter(|part| part.get("thoughtSignature").is_some());
    signed.map(|part| (kind(part), part["thoughtSignature"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn recorded_proofs_go_back_at_the_parts_that_they_came_with() {
    let mut all = 0;
    for recording in recordings() {
        let answer = history(&recording.events());
        let names: Vec<String> =
            recording.parts().filter_map(|part| part["functionCall"]["name"].as_str()).map(str::to_owned).collect();
        for answer in [answer.clone(), in_blocks(answer)] {
            let dialect = if recording.is_vertex { VERTEX } else { API };
            let mut turns = vec![(Role::User, vec![text("Hi")]), (Role::Assistant, answer.clone())];
            let ids = answer.iter().filter_map(|part| match part {
                PartBody::Call { id, .. } => Some(result(id, vec![text("ok")], false)),
                _ => None,
            });
            turns.push((Role::Tool, ids.collect()));
            let (body, dropped, _) = sent(dialect, "gemini-2.5-flash", &chat(turns)).unwrap();
            assert!(dropped.is_empty());
            let Some(said) = body["contents"][1]["parts"].as_array() else {
                assert!(recording.parts().all(|part| part["text"] == ""), "{}", recording.id);
                continue;
            };
            let expected = proofs(recording.parts());
            all += expected.len();
            assert_eq!(proofs(said.iter()), expected, "{}", recording.id);
            let results = body["contents"][2]["parts"].as_array().into_iter().flatten();
            let answered: Vec<&str> = results.filter_map(|part| part["functionResponse"]["name"].as_str()).collect();
            assert_eq!(answered, names, "{}", recording.id);
        }
    }
    assert!(all > 20 || all == 0, "{all} proofs are too few");
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just(" ".to_owned()), "[a-zé\n]{1,8}", Just("{\"a\":1}".to_owned())]
}

fn any_source() -> impl Strategy<Value = Source> {
    prop_oneof![
        Just(base64("")),
        "(image/png|text/x|audio/mp3|application/pdf|video/x)".prop_map(|kind| base64(&kind)),
        "https://a\\.example/[a-z]{0,3}\\.?(png|PDF|mp3|)".prop_map(Source::Url),
        Just(Source::Url("http://a.example".to_owned())),
        Just(Source::File { family: Lineage::OpenAi, id: "files/a".into() }),
        any_text().prop_map(|text| Source::Text { media_type: String::new(), text }),
    ]
}

fn any_signature() -> impl Strategy<Value = Option<Signature>> {
    let family = prop_oneof![Just(Lineage::Gemini), Just(Lineage::Anthropic)];
    prop::option::of((family, "[a-z]{0,4}").prop_map(|(family, value)| Signature { family, value }))
}

fn any_part() -> BoxedStrategy<PartBody> {
    let context = || prop::option::of(any_text());
    prop_oneof![
        (any_text(), any_signature()).prop_map(|(text, signature)| PartBody::Text { text, signature }),
        any_text().prop_map(PartBody::Refusal),
        any_source().prop_map(|source| PartBody::Image { source, detail: None }),
        (any_source(), context(), context(), any::<bool>())
            .prop_map(|(source, name, context, cite)| PartBody::Document { source, name, context, cite }),
        (any_source(), "(wav|)").prop_map(|(source, format)| PartBody::Audio { source, format }),
        any_source().prop_map(|source| PartBody::Video { source }),
        (any_text(), any_signature()).prop_map(|(text, signature)| PartBody::Reasoning(ReasoningPart {
            text,
            signature,
            ..ReasoningPart::default()
        })),
        Just(PartBody::Hosted {
            family: Lineage::Gemini,
            value: json!({"executableCode": {}, "stray": 1, "thoughtSignature": "s"}),
        }),
        Just(PartBody::Hosted { family: Lineage::Gemini, value: json!({"toolCall": {}}) }),
        Just(PartBody::Hosted { family: Lineage::OpenAi, value: json!({"type": "x"}) }),
    ]
    .boxed()
}

fn any_message() -> impl Strategy<Value = (Role, Vec<PartBody>)> {
    let texts = prop::collection::vec(any_text().prop_map(|words| text(&words)), 0..3);
    let calls = (0..4_u8, prop_oneof![Just(""), Just("{}"), Just(r#"{"a":1}"#)], any_signature());
    let call = calls.prop_map(|(id, arguments, signature)| PartBody::Call {
        id: id.to_string(),
        name: "f".into(),
        arguments: arguments.into(),
        custom: false,
        signature,
    });
    let result = (0..4_u8, prop::collection::vec(any_part(), 0..3), any::<bool>())
        .prop_map(|(id, parts, is_error)| result(&id.to_string(), parts, is_error));
    prop_oneof![
        (prop_oneof![Just(Role::System), Just(Role::Developer)], texts),
        (Just(Role::User), prop::collection::vec(any_part(), 0..4)),
        (Just(Role::Assistant), prop::collection::vec(prop_oneof![2 => any_part(), 1 => call], 0..4)),
        (Just(Role::Tool), prop::collection::vec(result, 1..3)),
    ]
}

/// Schemas with and without what Google's messages have.
fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({})),
        Just(json!(true)),
        Just(json!({"type": ["string", "null"], "format": "date", "minLength": 1})),
        Just(json!({"const": 1, "title": "t", "examples": [1]})),
        Just(json!({"enum": ["a", "b"], "default": "a", "$comment": "x"})),
        Just(json!({"$ref": "#/$defs/x"})),
        Just(json!({"type": "integer", "exclusiveMinimum": 1, "multipleOf": 2})),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::btree_map("[a-z$]{1,6}", inner.clone(), 0..3).prop_map(|properties| json!({
                "type": "object", "properties": properties, "required": ["a"], "additionalProperties": false,
                "patternProperties": {},
            })),
            inner.clone().prop_map(|items| json!({"type": "array", "items": items, "uniqueItems": true})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|of| json!({"anyOf": of})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|of| json!({"oneOf": of, "discriminator": {}})),
            prop::collection::vec(inner, 1..3).prop_map(|of| json!({"allOf": of, "not": {}})),
        ]
    })
    .prop_map(|schema| match schema {
        Value::Object(mut schema) => {
            schema.insert("$defs".into(), json!({"x": {"type": "number"}}));
            schema.insert("$schema".into(), "s".into());
            schema.into()
        }
        other => other,
    })
}

fn any_chat() -> impl Strategy<Value = ChatRequest> {
    let choice = prop::option::of(prop_oneof![
        Just(ToolChoice::None),
        Just(ToolChoice::Auto),
        Just(ToolChoice::Required),
        Just(ToolChoice::One("f0".into())),
        any::<bool>().prop_map(|required| ToolChoice::Among { names: vec!["f0".into()], required }),
    ]);
    let format = prop_oneof![
        Just(Format::Text),
        Just(Format::JsonObject),
        any_schema().prop_map(|schema| Format::Schema { name: None, description: None, schema, strict: None }),
    ];
    let mode =
        prop::option::of(prop_oneof![Just(ThinkMode::Enabled), Just(ThinkMode::Disabled), Just(ThinkMode::Adaptive)]);
    let effort = prop::option::of(prop::sample::select(Effort::ALL.to_vec()));
    let thinking = (effort, prop::option::of(0..100_000_u64), mode);
    let sampling = (prop::option::of(0.0..2.0_f64), prop::option::of(any::<i64>()), prop::option::of(1..9_u64));
    (
        prop::collection::vec(any_message(), 0..7),
        prop::collection::vec((any_schema(), prop::option::of(any::<bool>())), 0..3),
        (choice, format, thinking, sampling, any::<bool>()),
    )
        .prop_map(|(messages, tools, (choice, format, thinking, sampling, flag))| {
            let mut request = chat(messages);
            let nth = |(nth, (schema, strict))| function(&format!("f{nth}"), schema, strict);
            request.tools.offered = tools.into_iter().enumerate().map(nth).collect();
            (request.tools.choice, request.output.format) = (choice, format);
            (request.reasoning.effort, request.reasoning.budget_tokens, request.reasoning.mode) = thinking;
            (request.sampling.temperature, request.sampling.seed, request.sampling.n) = sampling;
            (request.sampling.logprobs, request.stream) = (Some(flag), flag);
            request.caller.service_tier = Some("flex".into());
            request.caller.metadata = json!({"a": "b"}).as_object().cloned();
            request
        })
}

proptest! {
    #[test]
    fn requests_have_no_member_that_is_not_declared(chat in any_chat(), model in 0..5_usize, vertex in any::<bool>()) {
        let model = ["gemini-1.5-flash", "gemma-3-27b-it", "gemini-2.5-pro", "gemini-3-pro-preview", "new"][model];
        let dialect = if vertex { VERTEX } else { API };
        match sent(dialect, model, &chat) {
            Ok((body, _, _)) => {
                let parts: Vec<&Value> =
                    body["contents"].as_array().unwrap().iter().flat_map(|it| it["parts"].as_array().unwrap()).collect();
                // Nothing that was said is lost or moved.
                let said = |text: &str| parts.iter().any(|part| part["text"] == text);
                for message in chat.messages.iter().filter(|message| matches!(message.role, Role::User | Role::Assistant)) {
                    for part in &message.parts {
                        if let PartBody::Text { text, .. } = &part.body {
                            prop_assert!(text.is_empty() || said(text), "{text:?} is not in {body}");
                        }
                    }
                }
                let calls = chat.messages.iter().flat_map(|it| &it.parts).filter(|it| matches!(it.body, PartBody::Call { .. }));
                prop_assert_eq!(calls.count(), parts.iter().filter(|part| part.get("functionCall").is_some()).count());
            }
            Err(problem) => prop_assert_eq!((problem.status, problem.param.is_some()), (400, true)),
        }
    }

    #[test]
    fn recorded_streams_may_be_cut_anywhere(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6), which in any::<prop::sample::Index>()) {
        static STREAMS: LazyLock<Vec<Vec<u8>>> =
            LazyLock::new(|| recordings().into_iter().filter_map(|recording| recording.stream).collect());
        if STREAMS.is_empty() {
            return Ok(());
        }
        let stream = which.get(&STREAMS);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len().saturating_add(1))).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
        prop_assert_eq!(decoded(&pieces), decoded(&[stream]));
    }
}
