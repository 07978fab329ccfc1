//! Messages of a conversation.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::place::Place;

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order: tool calls and reasoning stand among the text, as their order matters to some providers.
    pub parts: Vec<Part>,
    /// The speaker's name among several of the same role.
    pub name: Option<String>,
    /// Where the caller wrote it.
    pub at: Place,
}

impl Message {
    /// The text of it, parts joined.
    pub fn text(&self) -> String {
        let text = |part: &Part| match &part.body {
            PartBody::Text { text, .. } => Some(text.clone()),
            _ => None,
        };
        self.parts.iter().filter_map(text).collect()
    }

    /// Whether it calls tools.
    pub fn has_calls(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.body, PartBody::Call { .. }))
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, by their newer name.
    Developer,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// Results of tool calls.
    Tool,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What it is.
    pub body: PartBody,
    /// A prompt-cache marker behind it.
    pub cache: Option<CacheMark>,
    /// Where the caller wrote it.
    pub at: Place,
}

/// What a part is.
#[derive(Debug, Clone, PartialEq)]
pub enum PartBody {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// Proof of reasoning that belongs to it (Gemini).
        signature: Option<Signature>,
    },
    /// A refusal by the model.
    Refusal(String),
    /// A picture.
    Image {
        /// Where it is.
        source: Source,
        /// How closely to look: `low`, `high`, `auto`.
        detail: Option<String>,
    },
    /// A document.
    Document {
        /// Where it is.
        source: Source,
        /// Its file name or title.
        name: Option<String>,
        /// Words about it that are not part of it.
        context: Option<String>,
        /// Whether the answer is to cite it.
        cite: bool,
    },
    /// Sound.
    Audio {
        /// Where it is.
        source: Source,
        /// `wav`, `mp3`, …
        format: String,
    },
    /// A moving picture.
    Video {
        /// Where it is.
        source: Source,
    },
    /// Reasoning of an earlier turn.
    Reasoning(ReasoningPart),
    /// A call of a tool by the model.
    Call {
        /// The call's id.
        id: String,
        /// The tool's name.
        name: String,
        /// JSON text; the free text of a custom tool.
        arguments: String,
        /// Whether the tool takes free text.
        custom: bool,
        /// Proof of reasoning that belongs to it (Gemini).
        signature: Option<Signature>,
    },
    /// The result of a tool call.
    Result {
        /// The call's id.
        id: String,
        /// The tool's name, where the caller gives it or an earlier call has it.
        name: Option<String>,
        /// The result: text, pictures, documents.
        parts: Vec<Part>,
        /// Whether the tool failed.
        is_error: bool,
    },
    /// What a provider's own tool did, in its own words: goes back only to the family that said it.
    Hosted {
        /// Whose it is.
        family: Lineage,
        /// The words.
        value: Value,
    },
}

/// Text of instructions.
#[derive(Debug, Clone, PartialEq)]
pub struct TextPart {
    /// The text.
    pub text: String,
    /// A prompt-cache marker behind it.
    pub cache: Option<CacheMark>,
}

/// Where a picture, document or sound is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// At an address, `https:` as a rule.
    Url(String),
    /// Here.
    Base64 {
        /// Its media type; may be empty where the caller gave none.
        media_type: String,
        /// The bytes, in base64.
        data: String,
    },
    /// Here, as text.
    Text {
        /// Its media type.
        media_type: String,
        /// The text.
        text: String,
    },
    /// Uploaded to a provider of this family, under this id.
    File {
        /// Whose it is.
        family: Lineage,
        /// The id.
        id: String,
    },
}

impl Source {
    /// Reads `data:<media type>;base64,<data>` as what it holds, and anything else as an address. `None` if it is a
    /// `data:` URL of another form.
    pub fn from_url(url: &str) -> Option<Self> {
        let Some(rest) = url.strip_prefix("data:") else { return Some(Self::Url(url.to_owned())) };
        let (media_type, data) = rest.split_once(";base64,")?;
        let media_type = media_type.split(';').next().unwrap_or_default();
        let media_type = if media_type == "image/jpg" { "image/jpeg" } else { media_type };
        Some(Self::Base64 { media_type: media_type.to_owned(), data: data.to_owned() })
    }

    /// As an address: a `data:` URL of what is here. `None` for what only the provider has.
    pub fn to_url(&self) -> Option<String> {
        match self {
            Self::Url(url) => Some(url.clone()),
            Self::Base64 { media_type, data } => Some(format!("data:{media_type};base64,{data}")),
            Self::Text { media_type, text } => {
                let data = base64::engine::general_purpose::STANDARD.encode(text);
                Some(format!("data:{media_type};base64,{data}"))
            }
            Self::File { .. } => None,
        }
    }
}

/// A marker that the prompt up to here is worth caching, in Anthropic's form (`{"type":"ephemeral","ttl":"5m"|"1h"}`).
#[derive(Debug, Clone, PartialEq)]
pub struct CacheMark(pub Value);

impl CacheMark {
    /// One that says no more.
    pub fn plain() -> Self {
        Self(json!({"type": "ephemeral"}))
    }

    /// How long: `5m`, `1h`.
    pub fn ttl(&self) -> Option<&str> {
        self.0.get("ttl")?.as_str()
    }
}

/// A block of reasoning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReasoningPart {
    /// What is shown of it; may be empty.
    pub text: String,
    /// The provider's proof that it is its own.
    pub signature: Option<Signature>,
    /// The block where it is given encrypted only (Anthropic's `redacted_thinking`).
    pub redacted: Option<String>,
    /// Whether the text is a summary.
    pub summary: bool,
    /// The provider's id of it.
    pub id: Option<String>,
}

/// Proof of reasoning; only the family that gave it can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Whose it is.
    pub family: Lineage,
    /// The proof.
    pub value: String,
}

/// A family of models whose members read each other's proofs and hosted items, wherever they are hosted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lineage {
    /// Claude.
    Anthropic,
    /// OpenAI's models.
    OpenAi,
    /// Gemini.
    Gemini,
    /// Grok.
    Xai,
    /// OpenRouter's `reasoning_details`.
    OpenRouter,
}

impl Lineage {
    const LETTERS: [(Self, &'static str); 5] =
        [(Self::Anthropic, "a"), (Self::OpenAi, "o"), (Self::Gemini, "g"), (Self::Xai, "x"), (Self::OpenRouter, "r")];
}

/// What a proof begins with that stands where another family's has its place.
const ENVELOPE: &str = "lgw1.";

impl Signature {
    /// As it stands in a dialect whose own proofs are `native`'s: those as they are, others in an envelope
    /// (`lgw1.<family>.<base64url>`), so that they come back with the conversation.
    pub fn write(&self, native: Lineage) -> String {
        let letter = Lineage::LETTERS.iter().find(|(family, _)| *family == self.family).map(|(_, letter)| *letter);
        match letter {
            Some(letter) if self.family != native => {
                format!("{ENVELOPE}{letter}.{}", URL_SAFE_NO_PAD.encode(&self.value))
            }
            _ => self.value.clone(),
        }
    }

    /// Reads what [`Self::write`] wrote; what is in no envelope is `native`'s own.
    pub fn read(text: &str, native: Lineage) -> Self {
        let opened = text.strip_prefix(ENVELOPE).and_then(|rest| {
            let (letter, value) = rest.split_once('.')?;
            let (family, _) = Lineage::LETTERS.iter().find(|(_, known)| *known == letter)?;
            let value = String::from_utf8(URL_SAFE_NO_PAD.decode(value).ok()?).ok()?;
            Some(Self { family: *family, value })
        });
        opened.unwrap_or_else(|| Self { family: native, value: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn data_urls_are_opened_and_written_again() {
        let png = Source::Base64 { media_type: "image/png".into(), data: "AAAA".into() };
        assert_eq!(Source::from_url("data:image/png;charset=x;base64,AAAA"), Some(png.clone()));
        assert_eq!(png.to_url().as_deref(), Some("data:image/png;base64,AAAA"));
        assert_eq!(Source::from_url("data:text/plain,hello"), None);
        assert_eq!(Source::from_url("https://a.example/x"), Some(Source::Url("https://a.example/x".into())));
    }

    proptest! {
        #[test]
        fn a_proof_comes_back_through_any_dialect(value in any::<String>(), family in 0..5_usize, native in 0..5_usize) {
            let (family, native) = (Lineage::LETTERS[family].0, Lineage::LETTERS[native].0);
            prop_assume!(!value.starts_with(ENVELOPE));
            let signature = Signature { family, value };
            prop_assert_eq!(Signature::read(&signature.write(native), native), signature);
        }
    }
}
