//! How much a Claude is to think: its generations want it said differently.

use serde_json::{Value, json};

use super::super::families::{SwitchedOff, Taken, Traits};
use super::super::notes::{Notes, Param};
use super::request::own_reasoning;
use crate::error::Problem;
use crate::protocol::chat::{ChatRequest, Effort, Part, PartBody, Role, ThinkMode};

/// The least thinking budget that the API accepts, in tokens.
const MIN_BUDGET: u64 = 1024;

/// What is said of thinking.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Thinking {
    /// The request's `thinking`.
    pub(super) setting: Option<Value>,
    /// Its `output_config.effort`.
    pub(super) effort: Option<&'static str>,
    /// Whether the model is going to think, as far as the request says.
    pub(super) active: bool,
}

/// What the caller wishes, whichever way it says it.
enum Wish {
    Off,
    /// So much, in words.
    Effort(Effort),
    /// So many tokens.
    Budget(u64),
    /// As the model sees fit.
    Adaptive,
}

/// Says what the caller wishes as the model takes it. `limit` are the most output tokens.
pub(super) fn decide(
    chat: &ChatRequest,
    traits: &Traits,
    limit: u64,
    forced_tool: bool,
    notes: &mut Notes,
) -> Result<Thinking, Problem> {
    let reasoning = &chat.reasoning;
    let wish = match (reasoning.mode, reasoning.budget_tokens, reasoning.effort) {
        (None, None, None) => {
            if reasoning.thinking.is_some() {
                notes.drop(Param::Thinking)?;
            }
            return Ok(Thinking::default());
        }
        (Some(ThinkMode::Disabled), ..) | (None, None, Some(Effort::None)) => Wish::Off,
        (_, Some(budget), _) => Wish::Budget(budget),
        (_, None, Some(effort)) => Wish::Effort(effort),
        (Some(_), None, None) => Wish::Adaptive,
    };
    let param = if reasoning.thinking.is_some() { Param::Thinking } else { Param::ReasoningEffort };
    if traits.adaptive_thinking {
        return adaptive(chat, traits, wish, param, notes);
    }
    // Whoever else speaks this dialect takes budgets, as Claude did first; only the oldest Claudes, which follow no
    // schema either, do not.
    if traits.budgets.is_none() && !traits.reasons && traits.json_schema == Taken::Never {
        notes.drop(param)?;
        return Ok(Thinking::default());
    }
    budget(chat, wish, limit, forced_tool, param, notes)
}

/// For models that think as they see fit and are told how much in words.
fn adaptive(
    chat: &ChatRequest,
    traits: &Traits,
    wish: Wish,
    param: Param,
    notes: &mut Notes,
) -> Result<Thinking, Problem> {
    let thinking = |setting: Value, effort| Thinking { setting: Some(setting), effort, active: true };
    let own_setting = || {
        let own = chat.reasoning.thinking.clone();
        let is_adaptive = |own: &Value| own.get("type").is_some_and(|kind| kind == "adaptive");
        own.filter(is_adaptive).unwrap_or_else(|| shown_thinking(chat))
    };
    Ok(match wish {
        Wish::Off => {
            // Beside it an effort holds for the answer alone.
            match traits.switched_off {
                SwitchedOff::Always | SwitchedOff::UpToHigh => {
                    Thinking { setting: Some(json!({"type": "disabled"})), ..Thinking::default() }
                }
                SwitchedOff::BetweenTools => thinking(json!({"type": "between_tools"}), None),
                SwitchedOff::Never => {
                    notes.drop(param)?;
                    thinking(json!({"type": "adaptive"}), traits.effort(Effort::Low))
                }
            }
        }
        Wish::Effort(effort) => thinking(own_setting(), traits.effort(effort)),
        // Some generations still take budgets; words are what all of them take.
        Wish::Budget(tokens) => {
            let effort = chat.reasoning.effort.unwrap_or_else(|| Effort::of_budget(tokens));
            thinking(shown_thinking(chat), traits.effort(effort))
        }
        Wish::Adaptive => thinking(own_setting(), None),
    })
}

/// The setting for a caller that asked to think in other words than these. From 4.7 on thoughts are not shown unless that is
/// asked for; who asks a model to reason expects to see it, as with all others.
pub fn shown_thinking(chat: &ChatRequest) -> Value {
    let own = chat.reasoning.thinking.as_ref().and_then(|own| own.get("display")).cloned();
    json!({"type": "adaptive", "display": own.unwrap_or_else(|| "summarized".into())})
}

/// For models that are told how many tokens they may think.
fn budget(
    chat: &ChatRequest,
    wish: Wish,
    limit: u64,
    forced_tool: bool,
    param: Param,
    notes: &mut Notes,
) -> Result<Thinking, Problem> {
    let own = chat.reasoning.thinking.as_ref();
    if own.is_some() && chat.reasoning.effort.is_some() {
        notes.drop(Param::ReasoningEffort)?;
    }
    let tokens = match wish {
        Wish::Off if own.is_some() => {
            return Ok(Thinking { setting: Some(json!({"type": "disabled"})), ..Thinking::default() });
        }
        Wish::Off | Wish::Effort(Effort::None | Effort::Minimal) => return Ok(Thinking::default()),
        Wish::Budget(tokens) => tokens,
        Wish::Effort(Effort::Low) => 2_048,
        Wish::Effort(Effort::Medium) | Wish::Adaptive => 8_192,
        Wish::Effort(Effort::High | Effort::XHigh | Effort::Max) => 24_576,
    };
    // The budget must leave room for the answer; a caller's own is its own matter.
    let tokens = match wish {
        Wish::Budget(tokens) if own.is_some() => tokens,
        _ => tokens.min(limit.saturating_sub(limit.div_euclid(4).max(1))),
    };
    // The API refuses budgets beside a forced tool, before an answer whose beginning is given, and in the middle of
    // tool calls whose own thinking is not given back.
    let last = chat.messages.iter().rev().find(|message| message.role == Role::Assistant);
    let is_proof = |part: &Part| matches!(&part.body, PartBody::Reasoning(part) if own_reasoning(part).is_some());
    let unsigned_call = last.is_some_and(|message| message.has_calls() && !message.parts.iter().any(is_proof));
    let begun_answer = chat.messages.last().is_some_and(|message| message.role == Role::Assistant);
    let too_small = own.is_none() && tokens < MIN_BUDGET;
    if forced_tool || unsigned_call || begun_answer || too_small {
        notes.drop(param)?;
        return Ok(Thinking::default());
    }
    let given = own.filter(|own| own.get("budget_tokens").is_some()).cloned();
    let setting = given.unwrap_or_else(|| json!({"type": "enabled", "budget_tokens": tokens}));
    Ok(Thinking { setting: Some(setting), effort: None, active: true })
}
