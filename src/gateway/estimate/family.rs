//! Which models count alike, and how they count.

use super::{Measure, Rule, Weight};

/// Models that count tokens alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    tokenizer: Tokenizer,
    pictures: Rule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tokenizer {
    /// OpenAI's models since GPT-4o (`o200k_base`).
    OpenAi,
    /// Of these, the ones that reason: they are told more about the use of tools.
    OpenAiReasoning,
    /// OpenAI's models before (`cl100k_base`).
    OpenAiBefore,
    /// OpenAI's open-weight models (the Harmony format).
    OpenAiOpen,
    Claude,
    /// Claude since Opus 4.7, with a tokenizer that makes more tokens of the same text.
    ClaudeSince47,
    Gemini,
    Other,
}

/// How a family counts. Text and schemas in thousandths of what they weigh, the rest in tokens.
struct Count {
    western: u64,
    alphabets: u64,
    cjk: u64,
    /// Schemas, in thousandths of their text.
    schema: u64,
    /// The words of JSON Schema, in thousandths of their text.
    keywords: u64,
    /// Each request.
    request: u64,
    /// Each message.
    message: u64,
    /// Each tool call, and each result.
    call: u64,
    /// Each request that offers tools.
    tools: u64,
    /// Each tool.
    tool: u64,
    /// Each property of a schema.
    property: u64,
    /// Each request whose reply is to follow a schema; and the schema itself, in thousandths of its text.
    structured: (u64, u64),
    /// Each request with a budget for thinking.
    thinking: u64,
    /// Each page of a document.
    page: u64,
    /// Each second of sound.
    sound: u64,
}

/// Bytes of a document's file that make a page, roughly: how many it has only the provider knows.
const PAGE_BYTES: u64 = 60_000;

impl Family {
    /// The family of a model, by the name that its provider gives it. A name that tells nothing is taken for Claude at a
    /// provider that speaks Anthropic's Messages.
    pub fn of(upstream_model: &str, speaks_messages: bool) -> Self {
        let name = upstream_model.to_ascii_lowercase();
        let has = |part: &str| name.contains(part);
        let tokenizer = match () {
            () if has("claude") => match is_since_47(&name) {
                true => Tokenizer::ClaudeSince47,
                false => Tokenizer::Claude,
            },
            () if has("gemini") || has("gemma") => Tokenizer::Gemini,
            () if has("gpt-oss") => Tokenizer::OpenAiOpen,
            () if has("gpt-3.5") || has("gpt-35") || (has("gpt-4") && !has("gpt-4o") && !has("gpt-4.")) => {
                Tokenizer::OpenAiBefore
            }
            () if has("gpt-5") || is_reasoning_model(&name) => Tokenizer::OpenAiReasoning,
            () if has("gpt-") => Tokenizer::OpenAi,
            () if speaks_messages => Tokenizer::Claude,
            () => Tokenizer::Other,
        };
        let small = |part: &str| has(part) && (has("gpt-4.1") || has("gpt-5") || has("o4"));
        let pictures = match tokenizer {
            Tokenizer::Claude | Tokenizer::ClaudeSince47 => Rule::Area,
            Tokenizer::Gemini => Rule::Crops,
            _ if has("gpt-4o-mini") => Rule::Tiles(2_833, 5_667),
            _ if small("nano") => Rule::Patches(246),
            _ if small("mini") && has("o4") => Rule::Patches(172),
            _ if small("mini") => Rule::Patches(162),
            _ => Rule::Tiles(85, 170),
        };
        Self { tokenizer, pictures }
    }

    /// The family's name in reports.
    pub fn name(self) -> &'static str {
        match self.tokenizer {
            Tokenizer::OpenAi => "OpenAI GPT-4o, GPT-4.1",
            Tokenizer::OpenAiReasoning => "OpenAI GPT-5, o-series",
            Tokenizer::OpenAiBefore => "OpenAI before GPT-4o",
            Tokenizer::OpenAiOpen => "OpenAI open weights",
            Tokenizer::Claude => "Claude",
            Tokenizer::ClaudeSince47 => "Claude since Opus 4.7",
            Tokenizer::Gemini => "Gemini",
            Tokenizer::Other => "others",
        }
    }

    /// How many tokens so much input is.
    pub(super) fn tokens(self, measure: &Measure) -> u64 {
        let count = self.tokenizer.count();
        let milli = |weight: Weight| {
            let parts = [
                weight.western.saturating_mul(count.western),
                weight.alphabets.saturating_mul(count.alphabets),
                weight.cjk.saturating_mul(count.cjk),
            ];
            sum(&parts).div_ceil(1_000)
        };
        let text = [
            milli(measure.text),
            milli(measure.schema).saturating_mul(count.schema).div_ceil(1_000),
            milli(measure.keywords).saturating_mul(count.keywords).div_ceil(1_000),
            milli(measure.format).saturating_mul(count.structured.1).div_ceil(1_000),
        ];
        let pages = measure.documents.max(measure.document_bytes.div_ceil(PAGE_BYTES));
        let parts = [
            sum(&text).div_ceil(1_000),
            count.request,
            measure.messages.saturating_mul(count.message),
            measure.calls.saturating_mul(count.call),
            if measure.tools > 0 { count.tools } else { 0 },
            measure.tools.saturating_mul(count.tool),
            measure.properties.saturating_mul(count.property),
            measure.pictures.iter().fold(0, |sum, picture| sum.saturating_add(self.pictures.tokens(*picture))),
            if measure.format == Weight::default() { 0 } else { count.structured.0 },
            if measure.thinks { count.thinking } else { 0 },
            pages.saturating_mul(count.page),
            measure.sound_ms.saturating_mul(count.sound).div_ceil(1_000),
        ];
        sum(&parts)
    }
}

impl Tokenizer {
    fn count(self) -> Count {
        // Google publishes 32 tokens for a second of sound, OpenAI 10; the others take none, or do not say.
        let openai = Count {
            western: 1_000,
            alphabets: 1_000,
            cjk: 1_000,
            schema: 1_000,
            keywords: 0,
            request: 3,
            message: 4,
            call: 8,
            tools: 10,
            tool: 8,
            property: 3,
            structured: (10, 800),
            thinking: 0,
            page: 1_000,
            sound: 10,
        };
        let claude = Count {
            western: 1_050,
            alphabets: 1_600,
            cjk: 1_150,
            keywords: 1_000,
            call: 30,
            tools: 500,
            tool: 20,
            property: 8,
            structured: (150, 1_000),
            thinking: 29,
            page: 2_000,
            sound: 32,
            ..openai
        };
        match self {
            Self::OpenAi => openai,
            Self::OpenAiReasoning => Count { tools: 90, ..openai },
            Self::OpenAiBefore => Count { western: 1_030, alphabets: 2_100, cjk: 1_280, ..openai },
            Self::OpenAiOpen => Count { request: 68, ..openai },
            Self::Claude => claude,
            Self::ClaudeSince47 => Count { western: 1_400, alphabets: 2_000, cjk: 1_400, ..claude },
            Self::Gemini => {
                Count { request: 0, message: 1, tools: 0, tool: 12, structured: (0, 0), page: 300, sound: 32, ..openai }
            }
            Self::Other => {
                Count { western: 1_050, alphabets: 1_600, cjk: 1_150, keywords: 1_000, tools: 200, sound: 32, ..openai }
            }
        }
    }
}

/// `o1`, `o3-mini`, `openai/o4-mini` and so on.
fn is_reasoning_model(name: &str) -> bool {
    let model = name.rsplit('/').next().unwrap_or(name);
    matches!(model.as_bytes(), [b'o', b'1'..=b'9'] | [b'o', b'1'..=b'9', b'-', ..])
}

/// Opus 4.7 and later, and every model of the fifth generation.
fn is_since_47(name: &str) -> bool {
    let after = |part: &str| name.split_once(part).map(|(_, rest)| rest.as_bytes());
    let of_opus = matches!(
        after("opus-4-").or_else(|| after("opus-4.")),
        Some([b'7'..=b'9'] | [b'7'..=b'9', b'-' | b':' | b'@', ..])
    );
    let families = ["opus-", "sonnet-", "haiku-", "fable-"];
    of_opus
        || families
            .iter()
            .any(|family| matches!(after(family), Some([b'5'..=b'9'] | [b'5'..=b'9', b'-' | b'.' | b':' | b'@', ..])))
}

fn sum(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |sum, part| sum.saturating_add(*part))
}
