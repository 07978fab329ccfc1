//! What the models behind Converse take: the API is one, the models are many, and each refuses something else.
//!
//! What is not known to be refused is taken. The facts are those of AWS's service model, of its documentation, and of
//! what others have tried out against the service.

use crate::providers::families::{self, Taken, Traits, traits};

/// Who made a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vendor {
    Amazon,
    Anthropic,
    Google,
    Meta,
    MiniMax,
    Mistral,
    Moonshot,
    Nvidia,
    OpenAi,
    Qwen,
    Writer,
    Zai,
    /// Another, or hidden behind the name of an inference profile.
    Other,
}

const VENDORS: &[(&str, Vendor)] = &[
    ("amazon", Vendor::Amazon),
    ("anthropic", Vendor::Anthropic),
    ("google", Vendor::Google),
    ("meta", Vendor::Meta),
    ("minimax", Vendor::MiniMax),
    ("mistral", Vendor::Mistral),
    ("moonshot", Vendor::Moonshot),
    ("moonshotai", Vendor::Moonshot),
    ("nvidia", Vendor::Nvidia),
    ("openai", Vendor::OpenAi),
    ("qwen", Vendor::Qwen),
    ("writer", Vendor::Writer),
    ("zai", Vendor::Zai),
];

/// A model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Model<'a> {
    pub(super) vendor: Vendor,
    /// Its name without region and vendor.
    name: &'a str,
    /// What is known of its family, wherever it is hosted. Of others than Claude it says how their own vendors' APIs
    /// want things said, not how Converse does.
    family: &'static Traits,
}

impl<'a> Model<'a> {
    /// Reads a model id (`us.anthropic.claude-sonnet-4-5-20250929-v1:0`) or the ARN of one or of an inference profile.
    pub(super) fn of(id: &'a str) -> Self {
        let family = traits(id);
        let id = id.rsplit('/').next().unwrap_or(id);
        let mut rest = id;
        while let Some((segment, after)) = rest.split_once('.') {
            if let Some((_, vendor)) = VENDORS.iter().find(|(known, _)| *known == segment) {
                return Self { vendor: *vendor, name: after, family };
            }
            rest = after;
        }
        // Without a vendor it is a name of the operator's own, unless it says what it is.
        let vendor = if id.starts_with("claude") { Vendor::Anthropic } else { Vendor::Other };
        Self { vendor, name: id, family }
    }

    fn is_claude(&self) -> bool {
        self.vendor == Vendor::Anthropic
    }

    /// Claude in one of these versions.
    fn is_claude_of(&self, versions: &[&str]) -> bool {
        self.is_claude() && versions.iter().any(|version| self.name.contains(version))
    }

    /// Whether a conversation may begin with the model.
    pub(super) fn may_begin(&self) -> bool {
        matches!(self.vendor, Vendor::Anthropic | Vendor::Qwen | Vendor::Zai | Vendor::Moonshot)
    }

    /// Whether a conversation may end with the beginning of the answer.
    pub(super) fn continues(&self) -> bool {
        !self.is_claude() || self.family.prefill
    }

    /// Whether the results of tools may share their turn with content of this kind.
    pub(super) fn takes_beside_results(&self, kind: &str) -> bool {
        match self.vendor {
            _ if matches!(kind, "toolResult" | "cachePoint") => true,
            Vendor::Meta | Vendor::Mistral | Vendor::Writer => false,
            Vendor::Anthropic => !matches!(kind, "document" | "video"),
            _ => true,
        }
    }

    /// Whether the result of a tool may contain content of this kind and format.
    pub(super) fn takes_in_results(&self, kind: &str, format: &str) -> bool {
        match (self.vendor, kind) {
            (_, "text") => true,
            // The API has no place for it.
            (_, "audio") | (Vendor::Qwen | Vendor::Moonshot, _) | (Vendor::Mistral, "image") => false,
            (Vendor::Amazon, "document") => matches!(format, "csv" | "txt" | "md" | "html"),
            _ => true,
        }
    }

    /// Whether a result may say that the tool failed.
    pub(super) fn takes_status(&self) -> bool {
        self.vendor != Vendor::Writer
    }

    /// Whether call ids are nine letters and digits.
    pub(super) fn has_short_ids(&self) -> bool {
        self.vendor == Vendor::Mistral
    }

    /// Whether it takes cache marks in prompts.
    pub(super) fn caches(&self) -> bool {
        matches!(self.vendor, Vendor::Anthropic | Vendor::Amazon)
    }

    /// Whether it takes them behind tools, and for an hour.
    pub(super) fn caches_tools(&self) -> bool {
        self.is_claude()
    }

    /// Whether one tool can be forced by its name.
    pub(super) fn takes_named_choice(&self) -> bool {
        matches!(self.vendor, Vendor::Anthropic | Vendor::Amazon | Vendor::Other)
    }

    /// Whether it refuses to be forced to call a tool.
    pub(super) fn refuses_force(&self) -> bool {
        self.is_claude() && self.family.forced_tools == Taken::Never
    }

    /// Whether proofs of reasoning of Claude's may be given back to it.
    pub(super) fn reads_signatures(&self) -> bool {
        matches!(self.vendor, Vendor::Anthropic | Vendor::Other)
    }

    /// Whether answers can be made to follow a schema, and calls of tools.
    /// <https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html>
    pub(super) fn follows_schemas(&self) -> bool {
        let is_one_of = |names: &[&str]| names.iter().any(|name| self.name.starts_with(name));
        match self.vendor {
            Vendor::Anthropic => self.is_claude_of(&["-4-5", "-4-6"]),
            Vendor::Google => is_one_of(&["gemma-3-12b-it", "gemma-3-27b-it"]),
            Vendor::MiniMax => is_one_of(&["minimax-m2"]),
            Vendor::Mistral => is_one_of(&["magistral-small", "ministral-3", "mistral-large-3", "voxtral"]),
            Vendor::Nvidia => is_one_of(&["nemotron-nano"]),
            Vendor::Qwen => is_one_of(&["qwen3"]),
            Vendor::Moonshot | Vendor::Zai => true,
            _ => false,
        }
    }

    /// Whether temperature and its like are refused.
    pub(super) fn refuses_sampling(&self) -> bool {
        self.is_claude() && self.family.sampling == Taken::Never
    }

    /// Whether `top_p` is refused beside a temperature.
    pub(super) fn takes_one_of_temperature_and_top_p(&self) -> bool {
        self.is_claude() && families::takes_one_of_temperature_and_top_p(self.name)
    }

    /// Where `top_k` goes.
    pub(super) fn top_k(&self) -> TopK {
        match self.vendor {
            Vendor::Anthropic => TopK::Flat,
            Vendor::Amazon if self.name.starts_with("nova") => TopK::Nested,
            _ => TopK::Nowhere,
        }
    }

    /// How it is told how much to think.
    pub(super) fn thinking(&self) -> Thinking {
        match self.vendor {
            Vendor::Anthropic if self.family.reasons => Thinking::Claude(self.family),
            Vendor::Amazon if self.name.starts_with("nova-2") => Thinking::Nova,
            Vendor::OpenAi if self.name.starts_with("gpt-oss") => Thinking::Effort,
            Vendor::Qwen if self.name.starts_with("qwen3") || self.name.starts_with("qwq") => Thinking::Qwen,
            _ => Thinking::None,
        }
    }

    /// Whether it refuses stop texts of white space.
    pub(super) fn refuses_blank_stops(&self) -> bool {
        self.is_claude()
    }

    /// Whether it tells, when asked, which stop text came.
    pub(super) fn tells_stop_sequence(&self) -> bool {
        self.is_claude()
    }
}

/// Where `top_k` goes among the model's own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopK {
    Flat,
    Nested,
    Nowhere,
}

/// How a model is told how much to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thinking {
    None,
    /// `thinking`, with a budget or with `output_config.effort`.
    Claude(&'static Traits),
    /// `reasoningConfig`
    Nova,
    /// `reasoning_effort`
    Effort,
    /// `reasoning_config`, of two levels
    Qwen,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_known_by_any_of_their_names() {
        let of = |id| {
            let model = Model::of(id);
            (model.vendor, model.name)
        };
        for id in [
            "anthropic.claude-sonnet-4-5-20250929-v1:0",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-sonnet-4-5-20250929-v1:0",
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ] {
            assert_eq!(of(id), (Vendor::Anthropic, "claude-sonnet-4-5-20250929-v1:0"), "{id}");
        }
        assert_eq!(of("moonshotai.kimi-k2.5").0, Vendor::Moonshot);
        assert_eq!(of("us.meta.llama4-maverick-17b-instruct-v1:0").0, Vendor::Meta);
        assert_eq!(of("arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/ab12").0, Vendor::Other);
    }
}
