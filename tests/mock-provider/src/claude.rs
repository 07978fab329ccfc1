//! What the generations of Claude take, wherever they are hosted.

use serde_json::Value;

use crate::reply::ApiError;

/// What is known of a model by its name. A name that is none of Claude's is not particular about anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Family {
    /// Major and minor version; zero if there is none.
    version: (u32, u32),
    opus: bool,
    /// Fable and Mythos, which always think and cannot be forced to call a tool.
    always_thinks: bool,
}

impl Family {
    /// Reads a name such as `claude-opus-4-7` or `claude-sonnet-4-5@20250929`.
    pub fn of(model: &str) -> Self {
        let own = |before: &str| before.is_empty() || before.ends_with(['.', '/']);
        let Some((_, name)) = model.split_once("claude-").filter(|(before, _)| own(before)) else {
            return Self::default();
        };
        // `-v1:0` is the version of the host's own id; what is longer than two digits is a date.
        let generation = name.split("-v").next().unwrap_or(name);
        let mut numbers = generation
            .split(|c: char| !c.is_ascii_digit())
            .filter(|part| (1..=2).contains(&part.len()))
            .filter_map(|part| part.parse().ok());
        Self {
            version: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
            opus: name.starts_with("opus"),
            always_thinks: name.starts_with("fable") || name.starts_with("mythos"),
        }
    }

    fn is_claude(self) -> bool {
        self.version.0 > 0 || self.always_thinks
    }

    /// Whether thinking adapts itself, so that effort takes the place of a budget.
    fn adapts(self) -> bool {
        self.version >= (4, 6) || self.always_thinks
    }

    /// Whether budgets and sampling are refused.
    fn is_strict(self) -> bool {
        self.version >= (4, 7) || self.always_thinks
    }
}

/// What a request says of thinking and sampling.
#[derive(Debug)]
pub struct Wishes<'a> {
    pub model: &'a str,
    pub thinking: Option<&'a Value>,
    pub effort: Option<&'a Value>,
    pub max_tokens: Option<u64>,
    /// Names as the request has them, and values.
    pub sampling: &'a [(&'a str, Option<&'a Value>)],
    /// Whether a tool has to be called.
    pub forced: bool,
}

/// Refuses what this generation does not take.
pub fn check(wishes: &Wishes<'_>) -> Result<(), ApiError> {
    let family = Family::of(wishes.model);
    if !family.is_claude() {
        return Ok(());
    }
    let mode = wishes.thinking.and_then(|thinking| thinking.get("type")).and_then(Value::as_str);
    let refuse = |message: &str| Err(ApiError::invalid(message));
    match mode {
        Some("enabled") if family.is_strict() => {
            return refuse(
                "\"thinking.type.enabled\" is not supported for this model. Use \"thinking.type.adaptive\" and \
                 \"output_config.effort\" to control thinking behavior.",
            );
        }
        Some("adaptive") if !family.adapts() => {
            return refuse("adaptive thinking is not supported on this model");
        }
        Some("disabled") if family.always_thinks => {
            return refuse("\"thinking.type.disabled\" is not supported for this model.");
        }
        _ => {}
    }
    let budget = wishes.thinking.and_then(|thinking| thinking.get("budget_tokens")).and_then(Value::as_u64);
    if let (Some("enabled"), Some(budget), Some(most)) = (mode, budget, wishes.max_tokens)
        && budget >= most
    {
        return refuse("`max_tokens` must be greater than `thinking.budget_tokens`.");
    }
    check_sampling(wishes, family, matches!(mode, Some("enabled" | "adaptive")))?;
    if wishes.forced && family.always_thinks {
        return refuse("tool_choice: this model does not support forced tool use. Use `auto` or `none`.");
    }
    if wishes.forced && mode == Some("enabled") {
        return refuse("Thinking may not be enabled when tool_choice forces tool use.");
    }
    check_effort(wishes, family, mode)
}

fn check_sampling(wishes: &Wishes<'_>, family: Family, thinks: bool) -> Result<(), ApiError> {
    for (name, value) in wishes.sampling {
        let Some(value) = value.and_then(Value::as_f64) else { continue };
        let default = *name != "top_k" && (value - 1.0).abs() < f64::EPSILON;
        if family.is_strict() && !default {
            return Err(ApiError::invalid(format!("`{name}` is deprecated for this model.")));
        }
        if thinks && *name == "temperature" && !default {
            return Err(ApiError::invalid(
                "`temperature` may only be set to 1 when thinking is enabled or in adaptive mode. Please consult our \
                 documentation at https://platform.claude.com/docs/en/build-with-claude/extended-thinking",
            ));
        }
        if thinks && *name == "top_k" {
            return Err(ApiError::invalid("`top_k` must be unset when thinking is enabled or in adaptive mode."));
        }
    }
    Ok(())
}

fn check_effort(wishes: &Wishes<'_>, family: Family, mode: Option<&str>) -> Result<(), ApiError> {
    let Some(effort) = wishes.effort.and_then(Value::as_str) else {
        return Ok(());
    };
    let has_effort = family.adapts() || (family.opus && family.version == (4, 5));
    if !has_effort {
        return Err(ApiError::invalid("This model does not support the effort parameter."));
    }
    let known = match effort {
        "low" | "medium" | "high" => true,
        "max" => family.adapts(),
        "xhigh" => family.is_strict(),
        _ => false,
    };
    let capped = family.opus && family.version.0 == 5 && mode == Some("disabled");
    if !known || (capped && matches!(effort, "xhigh" | "max")) {
        return Err(ApiError::invalid(format!("output_config.effort: '{effort}' is not supported for this model.")));
    }
    Ok(())
}

/// Refuses an answer that is begun for a model which begins its answers itself.
pub fn check_prefill(model: &str, last_role: &str) -> Result<(), ApiError> {
    if last_role == "assistant" && Family::of(model).adapts() {
        return Err(ApiError::invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(model: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut body = json!({});
        change(&mut body);
        let sampling: Vec<(&str, Option<&Value>)> =
            ["temperature", "top_p", "top_k"].iter().map(|name| (*name, body.get(name))).collect();
        check(&Wishes {
            model,
            thinking: body.get("thinking"),
            effort: body.get("effort"),
            max_tokens: Some(2000),
            sampling: &sampling,
            forced: body.get("forced").is_some(),
        })
        .map_or_else(|error| error.message, |()| String::new())
    }

    #[test]
    fn names_tell_the_generation() {
        for (name, version) in [
            ("claude-opus-4-7", (4, 7)),
            ("claude-sonnet-4-5@20250929", (4, 5)),
            ("claude-sonnet-4-20250514-v1:0", (4, 0)),
            ("claude-3-7-sonnet-20250219", (3, 7)),
            ("claude-sonnet-5", (5, 0)),
            ("us.anthropic.claude-opus-4-8", (4, 8)),
            ("demo-claude-1", (0, 0)),
            ("mock-small", (0, 0)),
        ] {
            assert_eq!(Family::of(name).version, version, "{name}");
        }
        assert!(Family::of("claude-fable-5").always_thinks);
    }

    #[test]
    fn budgets_end_with_the_sixth_of_the_fourth() {
        let budget =
            |model: &str| told(model, |body| body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024}));
        for model in ["claude-sonnet-4-5", "claude-opus-4-6", "mock-small"] {
            assert_eq!(budget(model), "", "{model}");
        }
        for model in ["claude-opus-4-7", "claude-opus-4-8", "claude-sonnet-5", "claude-opus-5", "claude-fable-5"] {
            assert!(budget(model).contains("Use \"thinking.type.adaptive\""), "{model}");
        }
        let large = |body: &mut Value| body["thinking"] = json!({"type": "enabled", "budget_tokens": 2000});
        assert!(told("claude-sonnet-4-5", large).contains("must be greater than"));
        let adaptive = |model: &str| told(model, |body| body["thinking"] = json!({"type": "adaptive"}));
        assert!(adaptive("claude-sonnet-4-5").contains("not supported"));
        assert_eq!(adaptive("claude-opus-4-6"), "");
        let off = |model: &str| told(model, |body| body["thinking"] = json!({"type": "disabled"}));
        assert_eq!(off("claude-opus-5"), "");
        assert!(off("claude-mythos-5").contains("not supported"));
    }

    #[test]
    fn sampling_ends_there_as_well() {
        for (name, value) in [("temperature", 0.0), ("top_p", 0.9), ("top_k", 4.0)] {
            let set = |body: &mut Value| body[name] = json!(value);
            assert_eq!(told("claude-opus-4-7", set), format!("`{name}` is deprecated for this model."));
            assert_eq!(told("claude-opus-4-6", set), "");
        }
        assert_eq!(told("claude-opus-4-7", |body| body["temperature"] = json!(1.0)), "");
        let both = |body: &mut Value| {
            body["thinking"] = json!({"type": "adaptive"});
            body["temperature"] = json!(0.5);
        };
        assert!(told("claude-opus-4-6", both).contains("may only be set to 1"));
    }

    #[test]
    fn effort_is_a_matter_of_the_generation() {
        let effort = |model: &str, effort: &str| told(model, |body| body["effort"] = json!(effort));
        assert!(effort("claude-sonnet-4-5", "low").contains("does not support the effort"));
        assert_eq!(effort("claude-opus-4-5", "high"), "");
        assert!(effort("claude-opus-4-5", "max").contains("'max' is not supported"));
        assert_eq!(effort("claude-opus-4-6", "max"), "");
        assert!(effort("claude-opus-4-6", "xhigh").contains("'xhigh' is not supported"));
        assert_eq!(effort("claude-opus-4-7", "xhigh"), "");
        let off = |body: &mut Value| {
            body["thinking"] = json!({"type": "disabled"});
            body["effort"] = json!("max");
        };
        assert!(told("claude-opus-5", off).contains("'max' is not supported"));
        assert_eq!(told("claude-opus-4-8", off), "");
    }

    #[test]
    fn forcing_and_prefilling_have_their_limits() {
        assert!(told("claude-fable-5", |body| body["forced"] = json!(1)).contains("forced tool use"));
        let beside = |body: &mut Value| {
            body["forced"] = json!(1);
            body["thinking"] = json!({"type": "adaptive"});
        };
        assert_eq!(told("claude-opus-4-7", beside), "");
        assert!(check_prefill("claude-opus-4-6", "assistant").is_err());
        assert!(check_prefill("claude-opus-4-6", "user").is_ok());
        assert!(check_prefill("claude-sonnet-4-5", "assistant").is_ok());
        assert!(check_prefill("mock-small", "assistant").is_ok());
    }
}
