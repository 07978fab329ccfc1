use super::*;
use crate::protocol::chat::{Effort, TextPart, ThinkMode};

const NO_PROOF: &str = "skip_thought_signature_validator";

pub(super) fn contents(chat: &ChatRequest) -> Value {
    body(chat)["contents"].clone()
}

/// The parts of the one turn of the user's.
fn user_parts(parts: Vec<PartBody>) -> Value {
    contents(&chat(vec![(Role::User, parts)]))[0]["parts"].clone()
}

pub(super) fn config(chat: &ChatRequest) -> Value {
    body(chat)["generationConfig"].clone()
}

/// What is dropped of a request for a model.
pub(super) fn dropped(dialect: Gemini, model: &str, chat: &ChatRequest) -> Vec<String> {
    sent(dialect, model, chat).unwrap().1
}

pub(super) fn with_tools(tools: Vec<Tool>) -> ChatRequest {
    let mut chat = asking();
    chat.tools.offered = tools;
    chat
}

pub(super) fn one() -> Value {
    json!({"type": "object", "properties": {"a": {"const": 1}}})
}

#[test]
fn instructions_stand_apart_and_later_ones_where_they_are() {
    let mut chat = chat(vec![
        (Role::System, vec![text("b")]),
        (Role::Developer, vec![text("c"), text("")]),
        (Role::User, vec![text("Hi")]),
        (Role::System, vec![text("d")]),
        (Role::Assistant, vec![text("e"), PartBody::Refusal("f".into())]),
        (Role::User, vec![text("g")]),
    ]);
    chat.instructions = vec![TextPart { text: "a".into(), cache: None }];
    let written = body(&chat);
    assert_eq!(written["systemInstruction"], json!({"parts": [{"text": "a"}, {"text": "b"}, {"text": "c"}]}));
    let turns = json!([
        {"role": "user", "parts": [{"text": "Hi"}, {"text": "d"}]},
        {"role": "model", "parts": [{"text": "e"}, {"text": "f"}]},
        {"role": "user", "parts": [{"text": "g"}]},
    ]);
    assert_eq!(written["contents"], turns);
    let (gemma, _, _) = sent(API, "gemma-3-27b-it", &chat).unwrap();
    assert_eq!(gemma.get("systemInstruction"), None);
    let first = json!([{"text": "a"}, {"text": "b"}, {"text": "c"}, {"text": "Hi"}, {"text": "d"}]);
    assert_eq!(gemma["contents"][0]["parts"], first);
    chat.messages[0].parts[0].body = PartBody::Image { source: base64("image/png"), detail: None };
    assert_eq!(refusal(API, &chat).0, "messages[0].content[0]");
}

#[test]
fn a_conversation_begins_with_the_user_and_is_never_empty() {
    let filler = json!({"role": "user", "parts": [{"text": "."}]});
    let model = json!({"role": "model", "parts": [{"text": "a"}]});
    assert_eq!(contents(&chat(vec![(Role::Assistant, vec![text("a")])])), json!([filler, model]));
    for parts in [vec![], vec![(Role::System, vec![text("s")])], vec![(Role::User, vec![text("")])]] {
        assert_eq!(contents(&chat(parts)), json!([filler]));
    }
    // A turn of the model's with nothing to send in it is no turn.
    let unsigned = PartBody::Reasoning(ReasoningPart { text: "hm".into(), ..ReasoningPart::default() });
    let history = vec![(Role::User, vec![text("a")]), (Role::Assistant, vec![unsigned, text("")])];
    assert_eq!(contents(&chat(history)), json!([{"role": "user", "parts": [{"text": "a"}]}]));
    let (gemma, _, _) = sent(API, "gemma-3-4b-it", &chat(vec![(Role::System, vec![text("s")])])).unwrap();
    assert_eq!(gemma["contents"], json!([{"role": "user", "parts": [{"text": "s"}]}]));
}

#[test]
fn media_stand_inline_or_by_their_address() {
    let image = |source| PartBody::Image { source, detail: Some("auto".into()) };
    let url = |url: &str| Source::Url(url.into());
    let document = |source, name: Option<&str>| PartBody::Document {
        source,
        name: name.map(str::to_owned),
        context: None,
        cite: false,
    };
    let inline = |kind: &str| json!({"inlineData": {"mimeType": kind, "data": "AAAA"}});
    let file = |kind: &str, uri: &str| json!({"fileData": {"mimeType": kind, "fileUri": uri}});
    for (part, expected) in [
        (image(base64("image/png")), inline("image/png")),
        (image(base64("")), inline("image/jpeg")),
        (image(url("https://a.example/x.WEBP?y=1.png")), file("image/webp", "https://a.example/x.WEBP?y=1.png")),
        (image(url("https://a.example/x")), file("image/jpeg", "https://a.example/x")),
        (image(url("gs://bucket/x.png")), file("image/png", "gs://bucket/x.png")),
        (
            image(url("https://generativelanguage.googleapis.com/v1beta/files/x")),
            json!({"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x"}}),
        ),
        (
            image(Source::File { family: Lineage::OpenAi, id: "files/x".into() }),
            json!({"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x"}}),
        ),
        (document(base64("application/pdf"), None), inline("application/pdf")),
        (document(base64(""), Some("a.txt")), inline("text/plain")),
        (document(base64("text/csv"), None), inline("text/plain")),
        (document(base64("application/json"), None), inline("text/plain")),
        (document(url("https://a.example/x"), None), file("application/pdf", "https://a.example/x")),
        (
            document(Source::Text { media_type: "text/html".into(), text: "ab".into() }, None),
            json!({"inlineData": {"mimeType": "text/plain", "data": "YWI="}}),
        ),
        (PartBody::Audio { source: base64(""), format: "mp3".into() }, inline("audio/mp3")),
        (PartBody::Audio { source: base64("audio/flac"), format: "wav".into() }, inline("audio/flac")),
        (PartBody::Audio { source: base64(""), format: String::new() }, inline("audio/wav")),
        (PartBody::Video { source: base64("video/webm") }, inline("video/webm")),
        (PartBody::Video { source: url("https://youtu.be/x") }, file("video/mp4", "https://youtu.be/x")),
    ] {
        assert_eq!(user_parts(vec![part]), json!([expected]));
    }
    for (dialect, source) in [
        (API, url("http://a.example/x.png")),
        (API, url("ftp://a.example")),
        (API, Source::File { family: Lineage::OpenAi, id: "file-123".into() }),
        (VERTEX, Source::File { family: Lineage::OpenAi, id: "files/x".into() }),
    ] {
        let (at, why) = refusal(dialect, &chat(vec![(Role::User, vec![text("a"), image(source)])]));
        assert_eq!(at, "messages[0].content[1]");
        assert!(why.starts_with("messages[0].content[1]: ") && why.contains("inline"), "{why}");
    }
    let cited = PartBody::Document { source: base64(""), name: None, context: Some("about".into()), cite: true };
    let chat = chat(vec![(Role::User, vec![cited])]);
    let (written, dropped, _) = sent(API, "gemini-3", &chat).unwrap();
    assert_eq!(written["contents"][0]["parts"], json!([{"text": "about"}, inline("application/pdf")]));
    assert_eq!(dropped, ["messages[0].content[0].citations"]);
}

#[test]
fn calls_and_results_find_each_other_by_name() {
    let history = vec![
        (Role::User, vec![text("a")]),
        (Role::Assistant, vec![text("b"), call("1", "f", r#"{"x":1}"#, own("s")), call("2", "g", " ", None)]),
        (Role::Tool, vec![result("2", vec![text(r#"{"ok":true}"#)], false)]),
        (Role::Tool, vec![result("1", vec![text("[1]"), text("2")], false)]),
        (Role::User, vec![text("c")]),
    ];
    let written = |dialect, model| sent(dialect, model, &chat(history.clone())).unwrap().0["contents"].clone();
    assert_eq!(
        written(API, "gemini-3"),
        json!([
            {"role": "user", "parts": [{"text": "a"}]},
            {"role": "model", "parts": [
                {"text": "b"},
                {"functionCall": {"name": "f", "args": {"x": 1}, "id": "1"}, "thoughtSignature": "s"},
                {"functionCall": {"name": "g", "args": {}, "id": "2"}},
            ]},
            {"role": "user", "parts": [
                {"functionResponse": {"name": "g", "response": {"ok": true}, "id": "2"}},
                {"functionResponse": {"name": "f", "response": {"output": "[1]\n2"}, "id": "1"}},
            ]},
            {"role": "user", "parts": [{"text": "c"}]},
        ])
    );
    let vertex = written(VERTEX, "gemini-3");
    assert_eq!(vertex[1]["parts"][1]["functionCall"], json!({"name": "f", "args": {"x": 1}}));
    assert_eq!(vertex[2]["parts"][0]["functionResponse"], json!({"name": "g", "response": {"ok": true}}));

    let lost = |origin, list| {
        let mut chat = chat(vec![(Role::User, vec![text("a")]), (Role::Tool, vec![result("9", vec![], false)])]);
        chat.origin = origin;
        chat.messages[1].parts[0].at = Place::item(list, 1);
        refusal(API, &chat).0
    };
    assert_eq!(lost(Api::ChatCompletions, List::Messages), "messages[1].tool_call_id");
    assert_eq!(lost(Api::Messages, List::Messages), "messages[1].tool_use_id");
    assert_eq!(lost(Api::ChatCompletions, List::Input), "input[1].call_id");
    for arguments in ["[]", "{", "1", "null"] {
        let bad = chat(vec![(Role::Assistant, vec![call("1", "f", arguments, None)])]);
        assert_eq!(refusal(API, &bad).0, "messages[0].content[0]", "{arguments}");
    }
}

#[test]
fn results_hold_errors_and_media() {
    let write = |model: &str, parts, is_error| {
        let history =
            vec![(Role::Assistant, vec![call("1", "f", "{}", None)]), (Role::Tool, vec![result("1", parts, is_error)])];
        let contents = sent(API, model, &chat(history)).unwrap().0["contents"].clone();
        let response = contents[2]["parts"][0]["functionResponse"].clone();
        (response["response"].clone(), response.get("parts").cloned(), contents.get(3).cloned())
    };
    let image = || PartBody::Image { source: base64("image/png"), detail: None };
    let gif = || PartBody::Image { source: base64("image/gif"), detail: None };
    let inline = json!({"inlineData": {"mimeType": "image/png", "data": "AAAA"}});
    let animated = json!({"inlineData": {"mimeType": "image/gif", "data": "AAAA"}});
    assert_eq!(write("gemini-3", vec![], false), (json!({"output": ""}), None, None));
    assert_eq!(write("gemini-3", vec![text("bad")], true), (json!({"error": "bad"}), None, None));
    assert_eq!(write("gemini-3", vec![text("{\"a\":1}")], true), (json!({"error": "{\"a\":1}"}), None, None));
    let (response, parts, after) = write("gemini-3", vec![text("a"), image(), gif()], false);
    assert_eq!((response, parts), (json!({"output": "a"}), Some(json!([inline]))));
    assert_eq!(after, Some(json!({"role": "user", "parts": [animated]})));
    let (_, parts, after) = write("gemini-2.5-flash", vec![text("a"), image()], false);
    assert_eq!((parts, after), (None, Some(json!({"role": "user", "parts": [inline]}))));
}

#[test]
fn proofs_go_back_where_they_came() {
    let foreign = Some(Signature { family: Lineage::Anthropic, value: "z".into() });
    let reasoning = |text: &str, signature| {
        PartBody::Reasoning(ReasoningPart { text: text.into(), signature, ..ReasoningPart::default() })
    };
    let parts = |model: &str, parts| {
        let history = chat(vec![(Role::User, vec![text("a")]), (Role::Assistant, parts)]);
        sent(API, model, &history).unwrap().0["contents"][1]["parts"].clone()
    };
    let shown = |proof: Option<&str>, mut part: Value| {
        if let Some(proof) = proof {
            part["thoughtSignature"] = proof.into();
        }
        part
    };
    let called = |proof, id: &str| shown(proof, json!({"functionCall": {"name": "f", "args": {}, "id": id}}));
    let f = |id: &str, signature| call(id, "f", "{}", signature);
    // The first call of a step needs one, whoever made it; models before 3 do not ask.
    let two = || vec![f("1", foreign.clone()), f("2", None)];
    assert_eq!(parts("gemini-3", two()), json!([called(Some(NO_PROOF), "1"), called(None, "2")]));
    assert_eq!(parts("gemini-2.5-pro", two()), json!([called(None, "1"), called(None, "2")]));
    // Where a dialect has no place at the call, its proof stands before it.
    let before = vec![reasoning("shown", own("s")), f("1", None), f("2", None)];
    assert_eq!(parts("gemini-3", before), json!([called(Some("s"), "1"), called(None, "2")]));
    let both = vec![reasoning("", own("r")), f("1", own("s"))];
    assert_eq!(parts("gemini-3", both), json!([shown(Some("r"), json!({"text": ""})), called(Some("s"), "1")]));
    // Texts stay apart, each with its own.
    let signed = |words: &str, proof: &str| PartBody::Text { text: words.into(), signature: own(proof) };
    assert_eq!(
        parts("gemini-3", vec![reasoning("why", own("t")), text("a"), signed("b", "b"), signed("", "c")]),
        json!([
            shown(Some("t"), json!({"text": "why", "thought": true})),
            {"text": "a"},
            shown(Some("b"), json!({"text": "b"})),
            shown(Some("c"), json!({"text": ""})),
        ])
    );
    // Thoughts without a proof of Gemini's own are nothing to it.
    assert_eq!(
        parts("gemini-3", vec![reasoning("x", foreign), reasoning("y", None), text("a")]),
        json!([{"text": "a"}])
    );
}

#[test]
fn what_tools_of_googles_own_did_goes_back_as_it_was_told() {
    let hosted = |family, value| PartBody::Hosted { family, value };
    let ran = json!({"executableCode": {"code": "1", "id": "x"}, "thoughtSignature": "s"});
    let searched = json!({"toolCall": {"id": "x"}, "whatever": 1});
    let history = chat(vec![
        (Role::User, vec![text("a")]),
        (
            Role::Assistant,
            vec![
                hosted(Lineage::Gemini, ran.clone()),
                hosted(Lineage::Gemini, searched),
                hosted(Lineage::OpenAi, json!({})),
            ],
        ),
    ]);
    let (written, dropped, _) = sent(API, "gemini-3", &history).unwrap();
    assert_eq!(written["contents"][1]["parts"], json!([ran, {"toolCall": {"id": "x"}}]));
    assert_eq!(dropped, ["messages[1].content[2]"]);
    assert_eq!(sent(VERTEX, "gemini-3", &history).unwrap().0["contents"][1]["parts"], json!([ran]));
}

#[test]
fn sampling_has_other_names() {
    let mut chat = asking();
    let sampling = &mut chat.sampling;
    (sampling.temperature, sampling.top_p, sampling.top_k) = (Some(1.5), Some(0.5), Some(40));
    (sampling.presence_penalty, sampling.frequency_penalty, sampling.seed) = (Some(0.25), Some(-0.5), Some(-7));
    sampling.stop = vec!["x".into(), " ".into()];
    (sampling.n, sampling.logprobs, sampling.top_logprobs) = (Some(3), Some(true), Some(5));
    chat.output.max_tokens = Some(100);
    assert_eq!(
        config(&chat),
        json!({
            "maxOutputTokens": 100, "temperature": 1.5, "topP": 0.5, "topK": 40, "presencePenalty": 0.25,
            "frequencyPenalty": -0.5, "seed": -7, "stopSequences": ["x", " "], "candidateCount": 3,
            "responseLogprobs": true, "logprobs": 5,
        })
    );
    let mut chat = asking();
    (chat.sampling.n, chat.sampling.logprobs, chat.sampling.top_logprobs) = (Some(1), Some(false), Some(5));
    chat.tools.parallel = Some(false);
    assert_eq!(body(&chat).get("generationConfig"), None);
    for seed in [i64::MIN, i64::MAX, i64::from(i32::MAX) + 1] {
        chat.sampling.seed = Some(seed);
        assert!(i32::try_from(config(&chat)["seed"].as_i64().unwrap()).is_ok());
    }
}

#[test]
fn what_only_tunes_is_dropped_and_told() {
    let mut chat = with_tools(vec![function("f", one(), None)]);
    (chat.sampling.min_p, chat.sampling.repetition_penalty) = (Some(0.1), Some(1.1));
    (chat.output.verbosity, chat.output.prediction) = (Some("low".into()), Some(json!({})));
    chat.tools.parallel = Some(false);
    chat.caller.service_tier = Some("scale".into());
    chat.extra.insert("novelty".into(), json!(1));
    let expected =
        ["min_p", "repetition_penalty", "verbosity", "prediction", "novelty", "parallel_tool_calls", "service_tier"];
    let told = dropped(API, "gemini-3", &chat);
    assert_eq!(told, expected);
    let mut notes = Notes::new(Api::ChatCompletions, true);
    let problem = API.translate(&chat, target(&provider(), "gemini-3"), &mut notes).unwrap_err();
    assert_eq!((problem.status, problem.param.as_deref()), (400, Some("min_p")));

    // What is for records and caches alone is told, and never refused.
    let mut chat = asking();
    (chat.caller.user, chat.caller.store) = (Some("u".into()), Some(true));
    chat.caller.metadata = json!({"a": "b", "B": "C"}).as_object().cloned();
    assert_eq!(dropped(API, "gemini-3", &chat), ["user", "store", "metadata"]);
    let mut notes = Notes::new(Api::ChatCompletions, true);
    assert!(API.translate(&chat, target(&provider(), "gemini-3"), &mut notes).is_ok());
    assert_eq!(notes.into_dropped(), ["user", "store", "metadata"]);
    // Vertex takes as labels what can be one.
    let (labelled, told, _) = sent(VERTEX, "gemini-3", &chat).unwrap();
    assert_eq!(
        (&labelled["labels"], told),
        (&json!({"a": "b"}), vec!["user".into(), "store".into(), "metadata".into()])
    );

    chat.sampling.logit_bias = json!({"1": 5}).as_object().cloned();
    assert_eq!(refusal(API, &chat).0, "logit_bias");
}

#[test]
fn effort_is_a_level_or_a_budget() {
    let thinking = |model: &str, effort: Option<Effort>, budget, mode| {
        let mut chat = asking();
        (chat.reasoning.effort, chat.reasoning.budget_tokens, chat.reasoning.mode) = (effort, budget, mode);
        let (body, dropped, _) = sent(API, model, &chat).unwrap();
        (body.pointer("/generationConfig/thinkingConfig").cloned(), dropped)
    };
    let shown = |mut config: Value| {
        config["includeThoughts"] = true.into();
        config
    };
    let level = |level: &str| json!({"thinkingLevel": level});
    let budget = |tokens: i64| json!({"thinkingBudget": tokens});
    let (pro, flash, lite) = ("gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite");
    let (flash3, pro3) = ("gemini-3-flash-preview", "gemini-3-pro-preview");
    for (model, effort, expected) in [
        (flash3, Effort::None, level("minimal")),
        (flash3, Effort::Minimal, shown(level("minimal"))),
        (flash3, Effort::Low, shown(level("low"))),
        (flash3, Effort::Medium, shown(level("medium"))),
        (flash3, Effort::High, shown(level("high"))),
        (flash3, Effort::Max, shown(level("high"))),
        (pro3, Effort::None, level("low")),
        (pro3, Effort::Minimal, shown(level("low"))),
        (flash, Effort::None, budget(0)),
        (pro, Effort::None, budget(128)),
        (lite, Effort::Minimal, shown(budget(1_024))),
        (flash, Effort::Low, shown(budget(2_048))),
        (flash, Effort::Medium, shown(budget(8_192))),
        (flash, Effort::High, shown(budget(24_576))),
        (flash, Effort::XHigh, shown(budget(24_576))),
        (pro, Effort::XHigh, shown(budget(24_576))),
        (pro, Effort::Max, shown(budget(-1))),
    ] {
        assert_eq!(thinking(model, Some(effort), None, None), (Some(expected), vec![]), "{model} {effort:?}");
    }
    let enabled = Some(ThinkMode::Enabled);
    for (model, tokens, expected, told) in [
        (flash3, 1_024, shown(level("low")), None),
        (flash3, 10_000, shown(level("medium")), None),
        (flash3, 30_000, shown(level("high")), None),
        (flash, 5_000, shown(budget(5_000)), None),
        (flash, 30_000, shown(budget(24_576)), Some("thinking=24576")),
        (pro, 100, shown(budget(128)), Some("thinking=128")),
    ] {
        let told: Vec<String> = told.into_iter().map(str::to_owned).collect();
        assert_eq!(thinking(model, None, Some(tokens), enabled), (Some(expected), told), "{model} {tokens}");
    }
    for mode in [ThinkMode::Enabled, ThinkMode::Adaptive] {
        let expected = (Some(json!({"includeThoughts": true})), vec![]);
        assert_eq!(thinking(flash3, None, None, Some(mode)), expected);
        assert_eq!(thinking(flash, None, None, Some(mode)), expected);
    }
    let off = Some(ThinkMode::Disabled);
    assert_eq!(thinking(flash3, None, None, off).0, Some(level("minimal")));
    assert_eq!(thinking(flash, None, Some(9_000), off).0, Some(budget(0)));
    assert_eq!(thinking(flash3, None, None, None).0, None);
    let old = "gemini-2.0-flash";
    assert_eq!(thinking(old, Some(Effort::High), None, None), (None, vec!["reasoning_effort".to_owned()]));
    assert_eq!(thinking(old, None, Some(1_024), enabled), (None, vec!["thinking".to_owned()]));
    assert_eq!(thinking(old, Some(Effort::None), None, off), (None, vec![]));
    let mut chat = asking();
    chat.reasoning.summary = Some("auto".into());
    assert_eq!(config(&chat), json!({"thinkingConfig": {"includeThoughts": true}}));
}

#[test]
fn other_kinds_of_output() {
    let kinds = |asked: &[&str], audio: Option<Value>| {
        let mut chat = asking();
        chat.output.modalities = asked.iter().map(|kind| (*kind).to_owned()).collect();
        chat.output.audio = audio;
        let (body, dropped, _) = sent(API, "gemini-3", &chat).unwrap();
        (body.get("generationConfig").cloned(), dropped)
    };
    assert_eq!(kinds(&["text"], None), (None, vec![]));
    assert_eq!(kinds(&["image"], None).0, Some(json!({"responseModalities": ["IMAGE"]})));
    assert_eq!(kinds(&["text", "image"], None).0, Some(json!({"responseModalities": ["TEXT", "IMAGE"]})));
    let voice = json!({"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}});
    let expected = json!({"speechConfig": voice, "responseModalities": ["AUDIO"]});
    let asked = ["text", "audio"];
    assert_eq!(
        kinds(&asked, Some(json!({"voice": "Kore", "format": "wav"}))),
        (Some(expected.clone()), vec!["audio.format".to_owned()])
    );
    assert_eq!(kinds(&asked, Some(json!({"voice": "Kore", "format": "pcm16"}))), (Some(expected), vec![]));
}

#[test]
fn tiers_and_labels_depend_on_the_host() {
    let tier = |dialect, tier: &str| {
        let mut chat = asking();
        chat.caller.service_tier = Some(tier.into());
        let (body, dropped, request) = sent(dialect, "gemini-3", &chat).unwrap();
        assert!(dropped.is_empty());
        (body.get("serviceTier").cloned(), request.headers)
    };
    let header = |tier: &str| vec![("x-vertex-ai-llm-shared-request-type".to_owned(), tier.to_owned())];
    assert_eq!(tier(API, "auto"), (None, vec![]));
    assert_eq!(tier(API, "default"), (Some(json!("standard")), vec![]));
    assert_eq!(tier(API, "flex"), (Some(json!("flex")), vec![]));
    assert_eq!(tier(VERTEX, "priority"), (None, header("priority")));
    assert_eq!(tier(VERTEX, "default"), (None, vec![]));

    let labels = |metadata: Value| {
        let mut chat = asking();
        chat.caller.metadata = metadata.as_object().cloned();
        sent(VERTEX, "gemini-3", &chat).unwrap().0.get("labels").cloned()
    };
    assert_eq!(labels(json!({"team": "a-1", "x_2": ""})), Some(json!({"team": "a-1", "x_2": ""})));
    for odd in [json!({"Team": "a"}), json!({"1a": "a"}), json!({"a": "A b"}), json!({"a": 1}), json!({})] {
        assert_eq!(labels(odd), None);
    }
}

#[test]
fn members_of_googles_own_are_put_into_the_body() {
    let mut chat = with_tools(vec![function("f", one(), None)]);
    chat.sampling.temperature = Some(1.0);
    let settings = json!([{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]);
    chat.extra = json!({
        "safety_settings": settings, "cached_content": "cachedContents/x", "nothing": null,
        "google": {
            "generation_config": {"top_k": 3, "image_config": {"aspect_ratio": "1:1"}},
            "thinking_config": {"thinking_budget": 9},
            "tools": [{"googleSearch": {}}],
            "toolConfig": {"retrievalConfig": {}},
        },
    })
    .as_object()
    .cloned()
    .unwrap();
    let mut expected = chat.clone();
    expected.extra.clear();
    let mut expected = body(&expected);
    expected["safetySettings"] = settings;
    expected["cachedContent"] = "cachedContents/x".into();
    expected["generationConfig"] = json!({
        "temperature": 1.0, "topK": 3, "imageConfig": {"aspect_ratio": "1:1"}, "thinkingConfig": {"thinking_budget": 9},
    });
    expected["tools"].as_array_mut().unwrap().push(json!({"googleSearch": {}}));
    expected["toolConfig"] = json!({"retrievalConfig": {}});
    let mut notes = Notes::new(chat.origin, true);
    let request = API.translate(&chat, target(&provider(), "gemini-3"), &mut notes).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), expected);
    for (own, at) in [(json!({"contents": []}), "google.contents"), (json!(1), "google")] {
        chat.extra = json!({"google": own}).as_object().cloned().unwrap();
        assert_eq!(refusal(API, &chat).0, at);
    }
}

#[test]
fn newer_flash_models_set_their_sampling_and_leave_the_last_word_to_the_user() {
    let mut chat = chat(vec![(Role::User, vec![text("Hi")]), (Role::Assistant, vec![text("Well,")])]);
    (chat.sampling.temperature, chat.sampling.top_k) = (Some(0.5), Some(3));
    chat.sampling.presence_penalty = Some(0.5);
    for model in ["gemini-3.6-flash", "gemini-3.5-flash-lite", "gemini-3.8-flash"] {
        let (body, dropped, _) = sent(API, model, &chat).unwrap();
        assert_eq!(dropped, ["prefill", "temperature", "top_k", "presence_penalty"], "{model}");
        assert_eq!(body.pointer("/contents/2/role").unwrap(), "user");
        assert_eq!(body.get("generationConfig"), None);
    }
    let (body, dropped, _) = sent(API, "gemini-3.5-flash", &chat).unwrap();
    assert_eq!(dropped, Vec::<String>::new());
    assert_eq!(body["contents"].as_array().unwrap().len(), 2);
}
