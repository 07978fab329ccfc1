//! What models can do and how they want it said, by the family that a model's name tells.
//!
//! The traits choose how a wish is put, never whether a request is refused: names say nothing for certain. A name that
//! is not known is taken for the newest model of its vendor.

use std::borrow::Cow;

use crate::protocol::chat::Effort;
use Effort::{High, Low, Max, Medium, Minimal, None as Off, XHigh};

/// When a model takes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Whatever else is asked.
    Always,
    /// Only while it does not reason (by a budget, where the model also reasons as it sees fit).
    WithoutReasoning,
    /// Only where it is told not to reason: else it does.
    ReasoningOff,
    /// Only in a request without tools.
    WithoutTools,
    /// Not at all.
    Never,
}

/// Whether reasoning can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwitchedOff {
    /// It can.
    Always,
    /// It can, beside an effort of `high` at most.
    UpToHigh,
    /// Not quite: the model can be told to reason between calls of tools only.
    BetweenTools,
    /// It cannot, or there is nothing to switch off.
    Never,
}

/// What is known of a family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// It reasons before it answers, or can be asked to.
    pub reasons: bool,
    /// The words for efforts that it takes, least first; empty if it takes none. See [`Self::effort`].
    pub efforts: &'static [Effort],
    /// The least and the most tokens of a budget for reasoning, if it takes one. See [`Self::budget`].
    pub budgets: Option<(u64, u64)>,
    /// It takes Anthropic's `adaptive` thinking.
    pub adaptive_thinking: bool,
    /// It takes Gemini's `thinkingLevel`, and demands the signatures of its calls back.
    pub thinking_level: bool,
    /// Whether reasoning can be switched off.
    pub switched_off: SwitchedOff,
    /// It demands the text of its reasoning back beside the calls that it made.
    pub reasoning_back: bool,
    /// When it takes temperature, `top_p` and the like.
    pub sampling: Taken,
    /// When it can be made to call a tool.
    pub forced_tools: Taken,
    /// It takes texts at which to stop.
    pub stops: bool,
    /// When it takes a JSON schema for its answer.
    pub json_schema: Taken,
    /// It goes on with a last message of its own.
    pub prefill: bool,
    /// It takes instructions apart from the conversation.
    pub system: bool,
}

impl Traits {
    /// The word for an effort: itself, or the nearest less that the model takes, or else the nearest more. Only who
    /// wishes none gets `none`. Nothing if the model takes no such words.
    pub fn effort(&self, wish: Effort) -> Option<&'static str> {
        let taken = |effort: &&Effort| **effort == wish || **effort != Off;
        let below = self.efforts.iter().filter(taken).rfind(|effort| **effort <= wish);
        let word = below.or_else(|| self.efforts.iter().find(|effort| **effort > wish));
        word.map(|effort| effort.as_str())
    }

    /// The tokens that an effort stands for where the model takes budgets; 0 is none.
    pub fn budget(&self, wish: Effort) -> Option<u64> {
        let (least, most) = self.budgets?;
        let tokens = match wish {
            Off if self.switched_off == SwitchedOff::Always => return Some(0),
            Off => 0,
            Minimal => 1_024,
            Low => 2_048,
            Medium => 8_192,
            High | XHigh | Max => 24_576,
        };
        Some(tokens.max(least).min(most))
    }
}

/// A model that says nothing of itself.
const PLAIN: Traits = Traits {
    reasons: false,
    efforts: &[],
    budgets: None,
    adaptive_thinking: false,
    thinking_level: false,
    switched_off: SwitchedOff::Never,
    reasoning_back: false,
    sampling: Taken::Always,
    forced_tools: Taken::Always,
    stops: true,
    json_schema: Taken::Always,
    prefill: true,
    system: true,
};

const REASONING: Traits = Traits { reasons: true, ..PLAIN };
const NO_SCHEMA: Traits = Traits { json_schema: Taken::Never, ..PLAIN };

/// OpenAI's o-series and GPT-5: no sampling, reasoning cannot be switched off.
const GPT_REASONING: Traits = Traits { sampling: Taken::Never, stops: false, ..REASONING };

/// GPT-5.1 and later: reasoning can be switched off, and then there is sampling.
const GPT: Traits =
    Traits { sampling: Taken::WithoutReasoning, switched_off: SwitchedOff::Always, stops: false, ..REASONING };

/// GPT-5.5 and later: reasons unless told not to.
const GPT_BY_DEFAULT: Traits = Traits { sampling: Taken::ReasoningOff, stops: true, ..GPT };

/// Claude up to 4.5: reasons within a budget.
const CLAUDE_BUDGET: Traits = Traits {
    budgets: Some((1_024, u64::MAX)),
    switched_off: SwitchedOff::Always,
    sampling: Taken::WithoutReasoning,
    forced_tools: Taken::WithoutReasoning,
    ..REASONING
};

/// Claude from 4.7 on.
const CLAUDE: Traits = Traits {
    efforts: &[Low, Medium, High, XHigh, Max],
    adaptive_thinking: true,
    switched_off: SwitchedOff::Always,
    sampling: Taken::Never,
    prefill: false,
    ..REASONING
};

const GEMINI_2: Traits = Traits { json_schema: Taken::WithoutTools, ..PLAIN };
const GEMINI_BUDGET: Traits =
    Traits { reasons: true, budgets: Some((1, 24_576)), switched_off: SwitchedOff::Always, ..GEMINI_2 };
const GEMINI: Traits = Traits { efforts: &[Minimal, Low, Medium, High], thinking_level: true, ..REASONING };

/// Flash from 3.6 on, and 3.5 Flash-Lite: sets its sampling itself, and the user has the last word.
/// <https://ai.google.dev/gemini-api/docs/whats-new-gemini-3.6>
const GEMINI_FIXED: Traits = Traits { sampling: Taken::Never, prefill: false, ..GEMINI };

const GROK: Traits = Traits { efforts: &[Low, Medium, High, XHigh], ..REASONING };

/// DeepSeek and Zhipu: tools as the model sees fit, JSON without a schema.
const DEEPSEEK: Traits = Traits {
    efforts: &[Low, High, Max],
    switched_off: SwitchedOff::Always,
    reasoning_back: true,
    forced_tools: Taken::Never,
    json_schema: Taken::Never,
    ..REASONING
};
const GLM_SWITCHED: Traits = Traits { efforts: &[], ..DEEPSEEK };

const KIMI: Traits = Traits { efforts: &[Low, High, Max], sampling: Taken::Never, reasoning_back: true, ..REASONING };
const KIMI_SWITCHED: Traits = Traits { efforts: &[], switched_off: SwitchedOff::Always, ..KIMI };

const QWEN: Traits =
    Traits { budgets: Some((1, u64::MAX)), switched_off: SwitchedOff::Always, forced_tools: Taken::Never, ..REASONING };

const COMMAND: Traits = Traits { json_schema: Taken::WithoutTools, ..PLAIN };

const NOVA: Traits = Traits { json_schema: Taken::Never, ..PLAIN };

/// Patterns of names, and what is known of the models so named. The first that matches counts; the last of a vendor is
/// for all of its names that are not known.
static FAMILIES: &[(&[&str], Traits)] = &[
    (&["gpt-oss*"], Traits { efforts: &[Low, Medium, High], ..REASONING }),
    (&["gpt-4o*", "gpt-4.*", "chatgpt-4o*", "gpt-5*-chat*", "gpt-audio*", "gpt-realtime*"], PLAIN),
    (&["gpt-3.5*", "gpt-4*"], NO_SCHEMA),
    (&["o1*", "o3*", "o4*", "codex-mini*"], Traits { efforts: &[Low, Medium, High], ..GPT_REASONING }),
    (&["gpt-5-pro*"], Traits { efforts: &[High], ..GPT_REASONING }),
    (&["gpt-5", "gpt-5-*"], Traits { efforts: &[Minimal, Low, Medium, High], ..GPT_REASONING }),
    (&["gpt-5.1-codex-max*"], Traits { efforts: &[Off, Low, Medium, High, XHigh], ..GPT }),
    (&["gpt-5.1*"], Traits { efforts: &[Off, Low, Medium, High], ..GPT }),
    (&["gpt-5.2*", "gpt-5.3*", "gpt-5.4*"], Traits { efforts: &[Off, Low, Medium, High, XHigh], ..GPT }),
    (&["gpt-5.5*"], Traits { efforts: &[Off, Low, Medium, High, XHigh], ..GPT_BY_DEFAULT }),
    (&["gpt-*"], Traits { efforts: &[Off, Low, Medium, High, XHigh, Max], ..GPT_BY_DEFAULT }),
    (
        &["claude-2*", "claude-instant*", "claude-3-opus*", "claude-3-sonnet*", "claude-3-haiku*", "claude-3-5*"],
        NO_SCHEMA,
    ),
    (&["claude-opus-4-1*"], CLAUDE_BUDGET),
    (
        &["claude-3-7*", "claude-opus-4", "claude-opus-4-0*", "claude-sonnet-4", "claude-sonnet-4-0*", "claude-4-*"],
        Traits { json_schema: Taken::Never, ..CLAUDE_BUDGET },
    ),
    (&["claude-opus-4-5*"], Traits { efforts: &[Low, Medium, High], ..CLAUDE_BUDGET }),
    (&["claude-*-4-5*"], CLAUDE_BUDGET),
    (
        &["claude-*-4-6*"],
        Traits {
            efforts: &[Low, Medium, High, Max],
            budgets: CLAUDE_BUDGET.budgets,
            sampling: Taken::WithoutReasoning,
            ..CLAUDE
        },
    ),
    (&["claude-sonnet-5-5*"], Traits { switched_off: SwitchedOff::BetweenTools, forced_tools: Taken::Never, ..CLAUDE }),
    (
        &["claude-opus-5-5*", "claude-fable*", "claude-mythos*"],
        Traits { switched_off: SwitchedOff::Never, forced_tools: Taken::Never, ..CLAUDE },
    ),
    (&["claude-opus-5*"], Traits { switched_off: SwitchedOff::UpToHigh, ..CLAUDE }),
    (&["claude*"], CLAUDE),
    (&["gemini-1*", "gemini-2.0*"], GEMINI_2),
    (&["gemini-2.5-pro*"], Traits { budgets: Some((128, 32_768)), switched_off: SwitchedOff::Never, ..GEMINI_BUDGET }),
    (&["gemini-2.5-flash-lite*"], Traits { budgets: Some((512, 24_576)), ..GEMINI_BUDGET }),
    (&["gemini-2.5*"], GEMINI_BUDGET),
    (
        &["gemini-3.7-flash*", "gemini-3.8-flash*", "gemini-flash-latest*"],
        Traits { efforts: &[Low, Medium, High], ..GEMINI_FIXED },
    ),
    (&["gemini-3.5-flash-lite*", "gemini-3.6-flash*"], GEMINI_FIXED),
    (&["gemini-*-pro*", "gemini-pro*"], Traits { efforts: &[Low, Medium, High], ..GEMINI }),
    (&["gemini*"], GEMINI),
    (&["gemma*"], Traits { forced_tools: Taken::Never, system: false, ..NO_SCHEMA }),
    (&["grok-3-mini*"], Traits { efforts: &[Low, High], ..GROK }),
    (&["grok-2*", "grok-3*", "grok-*-non-reasoning*"], PLAIN),
    (&["grok-build*", "grok-code*", "grok-4", "grok-4-*", "grok-4.1*", "grok-4.20*"], REASONING),
    (
        &["grok-4.3*", "grok-latest*"],
        Traits { efforts: &[Off, Low, Medium, High], switched_off: SwitchedOff::Always, ..GROK },
    ),
    (&["grok-4.5*"], Traits { efforts: &[Low, Medium, High], ..GROK }),
    (&["grok*"], GROK),
    (&["deepseek-chat*", "deepseek-v2*", "deepseek-v3*", "deepseek-coder*", "v3*"], NO_SCHEMA),
    (
        &["deepseek-r1*", "r1*"],
        Traits { efforts: &[], switched_off: SwitchedOff::Never, reasoning_back: false, ..DEEPSEEK },
    ),
    (&["deepseek*"], DEEPSEEK),
    (&["kimi-k2.5*", "kimi-k2.6*"], KIMI_SWITCHED),
    (&["kimi-k2.7*", "kimi-k2-thinking*"], Traits { switched_off: SwitchedOff::Never, ..KIMI_SWITCHED }),
    (&["kimi-k2*", "moonshot-v1*"], PLAIN),
    (&["kimi*"], KIMI),
    (&["glm-4", "glm-4-*", "glm-4v*", "glm-3*"], Traits { forced_tools: Taken::Never, ..NO_SCHEMA }),
    (&["glm-4.*", "glm-5", "glm-5-*", "glm-5.1*"], GLM_SWITCHED),
    (&["glm-5.2*"], Traits { efforts: &Effort::ALL, ..DEEPSEEK }),
    (&["glm*"], Traits { switched_off: SwitchedOff::Never, ..DEEPSEEK }),
    (&["qwen3-coder*", "qwen-3-coder*", "qwen2*", "qwen-2*", "qwen1*"], NO_SCHEMA),
    (&["qwen3", "qwen3-*", "qwen-3-*", "qwq*"], Traits { json_schema: Taken::Never, ..QWEN }),
    (&["qwen*"], QWEN),
    (&["magistral*"], REASONING),
    (
        &["mistral-small-2603*", "mistral-medium-3*"],
        Traits { efforts: &[Off, High], switched_off: SwitchedOff::Always, ..REASONING },
    ),
    (
        &["command-a-reasoning*"],
        Traits { reasons: true, budgets: Some((1, u64::MAX)), switched_off: SwitchedOff::Always, ..COMMAND },
    ),
    (&["command*", "c4ai*"], COMMAND),
    (&["nova-2*"], Traits { reasons: true, efforts: &[Low, Medium, High], switched_off: SwitchedOff::Always, ..NOVA }),
    (&["nova*"], NOVA),
];

/// What is known of a model by its name at a provider.
pub fn traits(upstream_model: &str) -> &'static Traits {
    let name = plain(upstream_model);
    let known = FAMILIES.iter().find(|(patterns, _)| patterns.iter().any(|pattern| matches(pattern, &name)));
    known.map_or(&PLAIN, |(_, traits)| traits)
}

/// Whether a model refuses `top_p` beside a temperature.
pub fn takes_one_of_temperature_and_top_p(upstream_model: &str) -> bool {
    let name = plain(upstream_model);
    name.starts_with("claude") && ["-4-1", "-4-5", "-4-6"].iter().any(|version| name.contains(version))
}

/// Whether a model of OpenAI's takes markers behind what is to be cached: from GPT-5.6 on. An unknown name tells nothing,
/// since models before refuse them.
pub fn takes_cache_breakpoints(upstream_model: &str) -> bool {
    let name = plain(upstream_model);
    let version = name.strip_prefix("gpt-").map(|rest| rest.split('-').next().unwrap_or_default());
    let Some((major, minor)) = version.map(|version| version.split_once('.').unwrap_or((version, "0"))) else {
        return false;
    };
    let number = |text: &str| text.parse::<u32>().ok();
    number(major).zip(number(minor)).is_some_and(|version| version >= (5, 6))
}

/// All that is known, in the order in which it is looked up.
pub fn all() -> impl Iterator<Item = (&'static [&'static str], &'static Traits)> {
    FAMILIES.iter().map(|(patterns, traits)| (*patterns, traits))
}

/// A model's own name, in lower case: without who hosts it, in which region, its date and its version at the host.
fn plain(upstream_model: &str) -> String {
    let lower = upstream_model.trim().to_ascii_lowercase();
    let mut name = lower.rsplit('/').next().unwrap_or_default();
    // `us.anthropic.`; a model's own dots stand behind a digit.
    while let Some((host, rest)) = name.split_once('.')
        && !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-')
    {
        name = rest;
    }
    let name = match name.split_once([':', '@']) {
        // Bedrock's `-v1:0`.
        Some((name, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => without_version(name),
        Some((name, _)) => name,
        None => name,
    };
    let name = without_date(name);
    // Claude's versions are written with a dot by some.
    let name = if name.starts_with("claude") { Cow::Owned(name.replace('.', "-")) } else { Cow::Borrowed(name) };
    name.into_owned()
}

/// Without `-v1` at its end.
fn without_version(name: &str) -> &str {
    let is_version = |end: &str| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit());
    name.rsplit_once("-v").filter(|(rest, end)| !rest.is_empty() && is_version(end)).map_or(name, |(rest, _)| rest)
}

/// Without `-20250929` or `-2025-08-07` at its end.
fn without_date(name: &str) -> &str {
    for form in ["-dddddddd", "-dddd-dd-dd"] {
        let Some((rest, end)) = name.len().checked_sub(form.len()).and_then(|at| name.split_at_checked(at)) else {
            continue;
        };
        let fits = |(byte, wanted): (u8, u8)| if wanted == b'd' { byte.is_ascii_digit() } else { byte == wanted };
        if end.bytes().zip(form.bytes()).all(fits) {
            return rest;
        }
    }
    name
}

/// Whether a name is what a pattern says, where `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, mut rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    while let Some((middle, others)) = rest.split_once('*') {
        let Some((_, behind)) = name.split_once(middle) else { return false };
        (rest, name) = (others, behind);
    }
    name.ends_with(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_stripped_of_hosts_regions_dates_and_versions() {
        for (given, name) in [
            ("gpt-5", "gpt-5"),
            ("GPT-4o-2024-08-06", "gpt-4o"),
            ("openai/gpt-5.6-sol", "gpt-5.6-sol"),
            ("openai.gpt-oss-120b-1:0", "gpt-oss-120b-1"),
            ("us.anthropic.claude-sonnet-4-20250514-v1:0", "claude-sonnet-4"),
            ("us-gov.anthropic.claude-3-7-sonnet-20250219-v1:0", "claude-3-7-sonnet"),
            ("arn:aws:bedrock:eu-west-1:1:inference-profile/eu.anthropic.claude-opus-4-8", "claude-opus-4-8"),
            ("claude-opus-4-5@20251101", "claude-opus-4-5"),
            ("anthropic/claude-3.7-sonnet:thinking", "claude-3-7-sonnet"),
            ("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5"),
            ("publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
            ("us.amazon.nova-2-lite-v1:0", "nova-2-lite"),
            ("us.deepseek.r1-v1:0", "r1"),
            ("deepseek-ai/DeepSeek-V3", "deepseek-v3"),
            ("accounts/fireworks/models/kimi-k2.5", "kimi-k2.5"),
            ("moonshot-v1-8k", "moonshot-v1-8k"),
            ("qwen3:0.6b", "qwen3"),
            ("deepseek-v3:671b", "deepseek-v3"),
            ("", ""),
            ("-v1:0", "-v1"),
            ("claude-3-5-sonnet-v2@20241022", "claude-3-5-sonnet"),
            ("é.é", "é.é"),
        ] {
            assert_eq!(plain(given), name, "{given}");
        }
    }

    #[test]
    fn no_pattern_is_hidden_by_an_earlier_one() {
        for (nth, (patterns, _)) in FAMILIES.iter().enumerate() {
            for pattern in *patterns {
                let sample = pattern.replace('*', "");
                let first = FAMILIES.iter().position(|(all, _)| all.iter().any(|one| matches(one, &sample)));
                assert_eq!(first, Some(nth), "{pattern}");
            }
        }
    }

    #[test]
    fn efforts_are_put_into_words_that_the_model_takes() {
        for (model, words) in [
            ("gpt-4o", [None; 7]),
            (
                "o3-mini",
                [Some("low"), Some("low"), Some("low"), Some("medium"), Some("high"), Some("high"), Some("high")],
            ),
            ("gpt-5-mini", ["minimal", "minimal", "low", "medium", "high", "high", "high"].map(Some)),
            ("gpt-5-pro", [Some("high"); 7]),
            ("gpt-5.1", ["none", "low", "low", "medium", "high", "high", "high"].map(Some)),
            ("gpt-5.5", ["none", "low", "low", "medium", "high", "xhigh", "xhigh"].map(Some)),
            ("gpt-7", ["none", "low", "low", "medium", "high", "xhigh", "max"].map(Some)),
            ("claude-opus-4-6", ["low", "low", "low", "medium", "high", "high", "max"].map(Some)),
            ("claude-opus-9", ["low", "low", "low", "medium", "high", "xhigh", "max"].map(Some)),
            ("gemini-3-pro-preview", ["low", "low", "low", "medium", "high", "high", "high"].map(Some)),
            ("deepseek-v4-flash", ["low", "low", "low", "low", "high", "high", "max"].map(Some)),
            ("mistral-small-2603", ["none", "high", "high", "high", "high", "high", "high"].map(Some)),
        ] {
            assert_eq!(Effort::ALL.map(|wish| traits(model).effort(wish)), words, "{model}");
        }
    }

    #[test]
    fn budgets_keep_within_what_the_model_takes() {
        let budgets = |model: &str| Effort::ALL.map(|wish| traits(model).budget(wish).unwrap());
        assert_eq!(budgets("gemini-2.5-flash"), [0, 1_024, 2_048, 8_192, 24_576, 24_576, 24_576]);
        assert_eq!(budgets("gemini-2.5-pro")[0], 128);
        assert_eq!(budgets("claude-sonnet-4-5")[..3], [0, 1_024, 2_048]);
        assert_eq!(traits("claude-opus-4-8").budget(High), None);
    }

    #[test]
    fn claudes_differ_by_their_versions() {
        let of = |model: &str| traits(model);
        assert!(!of("claude-3-5-haiku-20241022").reasons);
        assert_eq!(of("claude-sonnet-4-20250514").json_schema, Taken::Never);
        assert_eq!(of("claude-opus-4-1-20250805").json_schema, Taken::Always);
        assert_eq!(of("claude-haiku-4-5").sampling, Taken::WithoutReasoning);
        assert!(of("claude-sonnet-4-6").adaptive_thinking && of("claude-sonnet-4-6").budgets.is_some());
        for (model, takes) in [
            ("gpt-5.6-sol", true),
            ("openai/gpt-5.10", true),
            ("gpt-6-mini", true),
            ("gpt-5.5", false),
            ("gpt-5-mini", false),
            ("gpt-4o", false),
            ("gpt-oss-120b", false),
            ("gpt-mine", false),
            ("claude-opus-5", false),
        ] {
            assert_eq!(takes_cache_breakpoints(model), takes, "{model}");
        }
        for model in ["claude-opus-4-7", "claude-opus-4-8", "claude-sonnet-5", "claude-opus-5", "claude-haiku-5"] {
            let traits = of(model);
            assert!(traits.adaptive_thinking && traits.budgets.is_none() && !traits.prefill, "{model}");
            assert_eq!((traits.sampling, traits.forced_tools), (Taken::Never, Taken::Always), "{model}");
        }
        assert_eq!(of("claude-opus-5").switched_off, SwitchedOff::UpToHigh);
        assert_eq!(of("claude-sonnet-5-5").switched_off, SwitchedOff::BetweenTools);
        assert_eq!(of("claude-sonnet-5.5").switched_off, SwitchedOff::BetweenTools);
        assert_eq!(of("claude-sonnet-5-5").forced_tools, Taken::Never);
        assert_eq!(of("claude-opus-5-5"), of("claude-fable-5"));
        assert_eq!(
            (of("claude-fable-5").forced_tools, of("claude-fable-5").switched_off),
            (Taken::Never, SwitchedOff::Never)
        );
    }

    #[test]
    fn names_that_are_not_known_are_taken_for_the_newest_of_their_vendor() {
        for (unknown, newest) in [
            ("gpt-9-turbo", "gpt-5.6"),
            ("claude-nova-12", "claude-opus-4-8"),
            ("gemini-9-flash", "gemini-3-flash-preview"),
            ("grok-9", "grok-4.7"),
            ("deepseek-v9", "deepseek-v4-pro"),
            ("kimi-k9", "kimi-k3"),
            ("glm-9", "glm-5.3"),
            ("qwen9-max", "qwen3.8-plus"),
        ] {
            assert_eq!(traits(unknown), traits(newest), "{unknown}");
        }
        assert!(!traits("deepseek-ai/DeepSeek-V3.1").reasons && traits("us.deepseek.r1-v1:0").reasons);
        assert_eq!(*traits("meta-llama/llama-4-scout"), PLAIN);
        assert_eq!(*traits(""), PLAIN);
        assert!(!traits("gpt-5.3-chat-latest").reasons && !traits("gemma-3-27b-it").system);
    }

    proptest! {
        #[test]
        fn any_name_has_traits_and_efforts_only_grow(name in "(us\\.|openai/)?(gpt|o[0-9]|claude|gemini|grok|.{0,3})[-.a-z0-9:@é]{0,20}") {
            let traits = traits(&name);
            let words: Vec<_> = Effort::ALL.iter().filter_map(|wish| traits.effort(*wish)).collect();
            prop_assert!(words.is_empty() || words.len() == Effort::ALL.len());
            prop_assert!(words.iter().map(|word| Effort::parse(word).unwrap()).is_sorted());
            prop_assert!(traits.efforts.is_sorted());
            for effort in traits.efforts {
                prop_assert_eq!(traits.effort(*effort), Some(effort.as_str()));
            }
            prop_assert!(Effort::ALL.iter().map(|wish| traits.budget(*wish)).is_sorted());
        }
    }
}
