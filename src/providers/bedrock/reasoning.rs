//! How much a model is to think, in each vendor's words.

use serde_json::{Map, Value, json};

use super::model::{Model, Thinking};
use crate::error::Problem;
use crate::protocol::chat::{ChatRequest, Effort, PartBody, Role, ThinkMode};
use crate::providers::anthropic::thinking::shown_thinking;
use crate::providers::families::{SwitchedOff, Traits};
use crate::providers::notes::{Notes, Param};

/// What thinking does to other parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Temperature and its like are refused beside it.
    pub(super) refuses_sampling: bool,
    /// And a limit of tokens, too.
    pub(super) refuses_limits: bool,
}

/// What the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Off,
    /// As much as the model sees fit.
    On,
    Effort(Effort),
    Budget(u64),
}

impl Wish {
    /// The wish, and the parameter that it was told by. A setting of Anthropic's says more than a word.
    fn of(chat: &ChatRequest) -> Option<(Self, Param)> {
        let wish = &chat.reasoning;
        let by_word = wish.effort.map(|effort| if effort == Effort::None { Self::Off } else { Self::Effort(effort) });
        let by_setting = match (wish.mode, wish.budget_tokens) {
            (Some(ThinkMode::Disabled), _) | (_, Some(0)) => Some(Self::Off),
            (_, Some(tokens)) => Some(Self::Budget(tokens)),
            (Some(ThinkMode::Enabled | ThinkMode::Adaptive), None) => Some(by_word.unwrap_or(Self::On)),
            (None, None) => None,
        };
        let by_word = by_word.map(|wish| (wish, Param::ReasoningEffort));
        by_setting.map(|wish| (wish, Param::Thinking)).or(by_word)
    }

    /// In words, `None` being off.
    fn effort(self) -> Effort {
        match self {
            Self::Off => Effort::None,
            Self::On => Effort::Medium,
            Self::Effort(effort) => effort,
            Self::Budget(tokens) => Effort::of_budget(tokens),
        }
    }
}

/// Sets it among the model's own fields.
pub(super) fn set(
    chat: &ChatRequest,
    model: Model<'_>,
    forced: bool,
    begun: bool,
    fields: &mut Map<String, Value>,
    notes: &mut Notes,
) -> Result<Effect, Problem> {
    let Some((wish, param)) = Wish::of(chat) else { return Ok(Effect::default()) };
    let none = Effect::default();
    let effort = wish.effort();
    let three = match effort {
        Effort::None => "none",
        Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High | Effort::XHigh | Effort::Max => "high",
    };
    match (model.thinking(), wish) {
        (Thinking::Claude(family), Wish::Off) => {
            let kind = match family.switched_off {
                SwitchedOff::Always | SwitchedOff::UpToHigh => "disabled",
                SwitchedOff::BetweenTools => "between_tools",
                SwitchedOff::Never => return notes.drop(param).map(|()| none),
            };
            fields.insert("thinking".to_owned(), json!({"type": kind}));
        }
        (Thinking::Claude(family), _) => {
            let by_budget = family.budgets.is_some() && (!family.adaptive_thinking || matches!(wish, Wish::Budget(_)));
            if !by_budget {
                adapt(chat, wish, family, fields);
                return Ok(Effect { refuses_sampling: true, ..none });
            }
            match budget(chat, wish, family).filter(|_| !forced && !begun && !has_unproven_call(chat)) {
                Some(budget) => {
                    let thinking = json!({"type": "enabled", "budget_tokens": budget});
                    fields.insert("thinking".to_owned(), thinking);
                    return Ok(Effect { refuses_sampling: true, ..none });
                }
                None => notes.drop(param)?,
            }
        }
        (Thinking::Nova, Wish::Off) => {
            fields.insert("reasoningConfig".to_owned(), json!({"type": "disabled"}));
        }
        (Thinking::Nova, _) => {
            let config = json!({"type": "enabled", "maxReasoningEffort": three});
            fields.insert("reasoningConfig".to_owned(), config);
            return Ok(Effect { refuses_limits: three == "high", ..none });
        }
        (Thinking::Effort, wish) if wish != Wish::Off => {
            fields.insert("reasoning_effort".to_owned(), three.into());
        }
        (Thinking::Qwen, wish) if wish != Wish::Off => {
            let level = if three == "low" { "low" } else { "high" };
            fields.insert("reasoning_config".to_owned(), level.into());
        }
        // It does not think, or not otherwise, or cannot be kept from it.
        _ => notes.drop(param)?,
    }
    Ok(none)
}

/// Claude's newer way: it thinks as it sees fit, and is told how hard to try.
fn adapt(chat: &ChatRequest, wish: Wish, family: &Traits, fields: &mut Map<String, Value>) {
    let own = chat.reasoning.thinking.as_ref().filter(|own| own.get("type").is_some_and(|kind| kind == "adaptive"));
    fields.insert("thinking".to_owned(), own.cloned().unwrap_or_else(|| shown_thinking(chat)));
    if let Some(word) = family.effort(wish.effort()).filter(|_| wish != Wish::On) {
        fields.insert("output_config".to_owned(), json!({"effort": word}));
    }
}

/// Claude's older way: tokens. They must leave room for the answer; `None` if they cannot.
fn budget(chat: &ChatRequest, wish: Wish, family: &Traits) -> Option<u64> {
    if let Wish::Budget(tokens) = wish {
        return Some(tokens); // the caller's own affair
    }
    let wanted = family.budget(wish.effort())?;
    let room = chat.output.max_tokens.map_or(wanted, |most| most.saturating_sub(most.div_euclid(4).max(1)));
    Some(wanted.min(room)).filter(|budget| family.budgets.is_some_and(|(least, _)| *budget >= least))
}

/// Whether the model would have to think in the middle of tool calls whose own thinking is not given back.
fn has_unproven_call(chat: &ChatRequest) -> bool {
    let last = chat.messages.iter().rev().find(|message| message.role == Role::Assistant);
    last.is_some_and(|message| {
        let is_proof = |body: &PartBody| match body {
            PartBody::Reasoning(reasoning) => reasoning.signature.is_some() || reasoning.redacted.is_some(),
            _ => false,
        };
        message.has_calls() && !message.parts.iter().any(|part| is_proof(&part.body))
    })
}
