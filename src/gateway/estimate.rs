//! How many tokens a request is about to use, before anybody has counted them.
//!
//! One pass over the body as it came ([`Measure::of`]) weighs what a model will read: texts, the arguments and results of
//! tool calls, the tools' schemas, pictures and files. The measure is the same for all models; how many tokens it makes
//! differs by [`Family`]. The weights are fitted, and the error that is left is published in `docs/limits.md`.

mod family;
mod picture;
mod text;
mod walk;

use std::cell::OnceCell;

pub use family::Family;
pub use picture::{Picture, Rule};
pub use text::{Weight, weigh};

/// Bytes of JSON that make a token, roughly.
pub const BYTES_PER_TOKEN: u64 = 4;

/// What a request gives a model to read, whichever model it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measure {
    /// The texts.
    pub text: Weight,
    /// Tools' schemas: their names and descriptions.
    pub schema: Weight,
    /// Tools' schemas: the words of JSON Schema, which some providers leave out.
    pub keywords: Weight,
    /// Messages, the system prompt among them.
    pub messages: u64,
    /// Tool calls in messages, and their results.
    pub calls: u64,
    /// Tools that are offered.
    pub tools: u64,
    /// Properties in the tools' schemas.
    pub properties: u64,
    /// The schema that the reply is to follow.
    pub format: Weight,
    /// Whether a budget for thinking is asked for.
    pub thinks: bool,
    /// Pictures.
    pub pictures: Vec<Picture>,
    /// Bytes of attached documents (PDF).
    pub document_bytes: u64,
    /// Documents, attached or linked.
    pub documents: u64,
    /// Milliseconds of attached sound.
    pub sound_ms: u64,
}

/// A request's body, which is measured when somebody asks, and only once.
#[derive(Debug)]
pub struct InputBody<'a> {
    bytes: &'a [u8],
    measure: OnceCell<Measure>,
}

impl<'a> InputBody<'a> {
    /// A body that has not been measured.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, measure: OnceCell::new() }
    }

    /// What it gives a model to read.
    pub fn measure(&self) -> &Measure {
        self.measure.get_or_init(|| Measure::of(self.bytes))
    }
}

/// What is known of a request's input.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Its body.
    Body(&'a InputBody<'a>),
    /// Its number of tokens.
    Tokens(u64),
}

impl Input<'_> {
    /// About how many tokens it is for a model of this family.
    pub fn tokens(self, family: Family) -> u64 {
        match self {
            Self::Body(body) => body.measure().tokens(family),
            Self::Tokens(tokens) => tokens,
        }
    }
}

/// About how many tokens a chat request's body is for a model of this family.
pub fn input_tokens(body: &[u8], family: Family) -> u64 {
    Measure::of(body).tokens(family)
}

impl Measure {
    /// Measures a chat request (Chat Completions or Messages). Any bytes will do: what is no request measures little.
    pub fn of(body: &[u8]) -> Self {
        walk::measure(body)
    }

    /// How many tokens it is for a model of this family.
    pub fn tokens(&self, family: Family) -> u64 {
        family.tokens(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GPT: &str = "gpt-4o";

    fn tokens(body: &str) -> u64 {
        input_tokens(body.as_bytes(), Family::of(GPT, false))
    }

    #[test]
    fn what_a_model_reads_is_counted_and_the_rest_is_not() {
        let asked = tokens(r#"{"model":"m","messages":[{"role":"user","content":"What is the capital of France?"}]}"#);
        assert!((13..=16).contains(&asked), "{asked}");
        let more = r#"{"model":"m","user":"someone with a very long name","metadata":{"note":"not for the model's eyes"},
            "messages":[{"role":"user","content":[{"type":"text","text":"What is the capital of France?",
            "cache_control":{"type":"ephemeral"}}]}],"stream_options":{"include_usage":true},"temperature":0.123456}"#;
        assert_eq!(tokens(more), asked);
        let twice =
            r#"{"system":"What is the capital of France?","messages":[{"content":"What is the capital of France?"}]}"#;
        assert!((asked * 2 - 4..=asked * 2).contains(&tokens(twice)));
        assert_eq!(
            tokens(r#"{"messages":[{"cont\u0065nt":"What is the capital of France?"}]}"#),
            asked,
            "hidden by an escape"
        );
    }

    #[test]
    fn what_is_no_chat_is_counted_as_it_is_read() {
        let text = "What is the capital of France?";
        let one = tokens(&format!(r#"{{"model":"m","input":"{text}","encoding_format":"base64"}}"#));
        assert!((8..=12).contains(&one), "{one}");
        let list = tokens(&format!(r#"{{"input":["{text}","{text}"]}}"#));
        assert!((one * 2 - 4..=one * 2).contains(&list), "{list}");
        assert_eq!(tokens(&format!(r#"{{"prompt":"{text}","n":2,"size":"1024x1024"}}"#)), one);
        let elements = (0..1_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(tokens(&format!(r#"{{"input":[{elements}]}}"#)), 1_003);
        assert_eq!(tokens(&format!(r#"{{"input":[[{elements}],[{elements}]],"dimensions":512}}"#)), 2_003);
        let ranked = format!(r#"{{"query":"{text}","documents":["{text}",{{"text":"{text}"}}],"top_n":2}}"#);
        assert!((one * 3 - 6..=one * 3 + 4).contains(&tokens(&ranked)), "{}", tokens(&ranked));
        let moderated = format!(
            r#"{{"input":[{{"type":"text","text":"{text}"}},
            {{"type":"image_url","image_url":{{"url":"https://example.com/a.png"}}}}]}}"#
        );
        assert_eq!(Measure::of(moderated.as_bytes()).pictures.len(), 1);
    }

    #[test]
    fn tools_and_their_calls_are_counted() {
        let question = r#"{"role":"user","content":"What is the weather?"}"#;
        let plain = tokens(&format!(r#"{{"messages":[{question}]}}"#));
        let tool = r#"{"type":"function","function":{"name":"get_weather","description":"The weather of a city.","parameters":
            {"type":"object","properties":{"city":{"type":"string","description":"Its name."}},"required":["city"]}}}"#;
        let offered = tokens(&format!(r#"{{"messages":[{question}],"tools":[{tool}]}}"#));
        assert!((plain + 25..plain + 60).contains(&offered), "{offered}");
        let call = r#"{"role":"assistant","tool_calls":[{"id":"call_1","type":"function","function":
            {"name":"get_weather","arguments":"{\"city\":\"Paris\"}"}}]},{"role":"tool","tool_call_id":"call_1","content":"Rain"}"#;
        let called = tokens(&format!(r#"{{"messages":[{question},{call}]}}"#));
        assert!((plain + 20..plain + 50).contains(&called), "{called}");
        let messages = r#"{"messages":[{"content":[{"type":"tool_use","id":"t","name":"get_weather","input":{"city":"Paris"}}]},
            {"content":[{"type":"tool_result","tool_use_id":"t","content":"Rain"}]}]}"#;
        let measure = Measure::of(messages.as_bytes());
        assert_eq!((measure.messages, measure.calls), (2, 2));
        let claude = Family::of("claude-sonnet-4-5", true);
        let described = format!(r#"{{"messages":[{question}],"tools":[{tool}]}}"#);
        assert!(input_tokens(described.as_bytes(), claude) > 500, "Anthropic adds a system prompt for tools");
    }

    #[test]
    fn pictures_sounds_and_documents_count_by_the_providers_rules() {
        let measure = |part: &str| Measure::of(format!(r#"{{"messages":[{{"content":[{part}]}}]}}"#).as_bytes());
        let png = "iVBORw0KGgoAAAANSUhEUgAAAoAAAAHgCAYAAAA10dzk";
        let of_openai = measure(&format!(r#"{{"image_url":{{"url":"data:image/png;base64,{png}","detail":"low"}}}}"#));
        assert_eq!(of_openai.pictures, [Picture { size: Some((640, 480)), low: true }]);
        let of_anthropic =
            measure(&format!(r#"{{"source":{{"data":"{png}","media_type":"image/png"}},"type":"image"}}"#));
        assert_eq!(of_anthropic.pictures, [Picture { size: Some((640, 480)), low: false }]);
        assert_eq!(of_anthropic.text, Weight::default());
        assert_eq!(of_anthropic.tokens(Family::of("claude-3-opus", true)), 3 + 4 + 410);
        let linked =
            measure(r#"{"image_url":{"url":"https://example.com/a.png"}},{"image_url":"http://example.com/b"}"#);
        assert_eq!(linked.pictures, [Picture { size: None, low: false }; 2]);
        let document = measure(&format!(
            r#"{{"file":{{"filename":"a.pdf","file_data":"data:application/pdf;base64,JVBERi0x{}"}}}}"#,
            "A".repeat(160_000)
        ));
        assert_eq!((document.documents, document.document_bytes / 1000), (1, 120));
        let sound = measure(&format!(r#"{{"input_audio":{{"format":"mp3","data":"SUQz{}"}}}}"#, "A".repeat(32_000)));
        assert_eq!(sound.sound_ms / 100, 30);
        let plain =
            measure(r#"{"source":{"type":"text","media_type":"text/plain","data":"What is the capital of France?"}}"#);
        assert!(plain.text.western > 6_000);
    }

    #[test]
    fn models_are_told_apart_by_their_names() {
        let name = |model: &str| Family::of(model, false).name();
        for model in ["gpt-4o", "gpt-4.1-mini", "openai/gpt-4o-mini", "chatgpt-4o-latest"] {
            assert_eq!(name(model), "OpenAI GPT-4o, GPT-4.1", "{model}");
        }
        for model in ["gpt-5-mini", "o3", "o4-mini", "openai/o1-pro", "openai.gpt-5.5"] {
            assert_eq!(name(model), "OpenAI GPT-5, o-series", "{model}");
        }
        for model in ["gpt-4", "gpt-4-turbo", "gpt-4-32k", "gpt-3.5-turbo", "gpt-35-turbo"] {
            assert_eq!(name(model), "OpenAI before GPT-4o", "{model}");
        }
        for model in
            ["claude-3-5-sonnet-20241022", "claude-opus-4-6", "anthropic/claude-sonnet-4.5", "claude-opus-4-20250514"]
        {
            assert_eq!(name(model), "Claude", "{model}");
        }
        for model in
            ["claude-opus-4-7", "claude-opus-4.8", "claude-sonnet-5", "us.anthropic.claude-opus-5-20270101-v1:0"]
        {
            assert_eq!(name(model), "Claude since Opus 4.7", "{model}");
        }
        assert_eq!(
            (name("gemini-2.5-pro"), name("gpt-oss-120b"), name("llama-4")),
            ("Gemini", "OpenAI open weights", "others")
        );
        assert_eq!(Family::of("our-alias", true).name(), "Claude");
    }

    #[test]
    fn a_body_is_measured_once_and_other_models_count_more() {
        let bytes = r#"{"messages":[{"content":"Бюджет соблюдён только тогда, когда никто не ждёт."}]}"#;
        let body = InputBody::new(bytes.as_bytes());
        let [new, old] = ["gpt-4o", "gpt-4"].map(|model| Input::Body(&body).tokens(Family::of(model, false)));
        assert!(old > new && new > 10);
        assert_eq!(Input::Tokens(7).tokens(Family::of(GPT, false)), 7);
    }

    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\"messages\":",
        "\"content\":",
        "\"tools\":",
        "\"properties\":",
        "12e",
        "\"source\":{\"data\":",
        "\"image_url\":",
        "\"data:image/png;base64,iVBORw0KGgo\"",
        "\\u00",
        "\\ud83d",
        "é",
        "word ",
    ];

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let measure = Measure::of(&bytes);
            for model in [GPT, "claude-sonnet-5", "gemini-2.5-pro", "llama"] {
                let _ = measure.tokens(Family::of(model, false));
            }
        }

        #[test]
        fn almost_json_does_no_harm(pieces in proptest::collection::vec(prop::sample::select(PIECES), 0..60)) {
            let _ = tokens(&pieces.concat());
        }

        #[test]
        fn a_text_counts_alike_however_it_is_escaped(text in "[ -~äé€жש你好한😀\n\t]{0,80}") {
            let body = |content: String| format!(r#"{{"messages":[{{"content":{content}}}]}}"#);
            let plain = serde_json::to_string(&text).unwrap();
            let escaped: String = plain
                .encode_utf16()
                .map(|unit| match u8::try_from(unit) {
                    Ok(byte) if byte < 0x80 => char::from(byte).to_string(),
                    _ => format!("\\u{unit:04x}"),
                })
                .collect();
            prop_assert_eq!(tokens(&body(plain)), tokens(&body(escaped)));
        }

        #[test]
        fn a_longer_text_counts_no_less(words in proptest::collection::vec("[a-zA-Z]{1,12}", 1..40)) {
            let body = |words: &[String]| tokens(&format!(r#"{{"messages":[{{"content":"{}"}}]}}"#, words.join(" ")));
            prop_assert!(body(&words) >= body(&words[1..]));
        }
    }
}
