//! What Gemini's models differ in, by their names. An unknown one is taken for the newest: models come faster than
//! this table.

/// What matters of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Family {
    /// How new it is.
    pub(super) age: Age,
    /// How it is told how much to think.
    pub(super) thinking: Thinking,
    /// Whether instructions have a place of their own; if not, they stand in the first turn.
    pub(super) instructions: bool,
}

/// How new a model is, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Age {
    /// 2.0 and older: schemas in OpenAPI's form only.
    Old,
    /// 2.5: JSON Schema, thinking, calls that are held to their schemas.
    Two5,
    /// 3 and newer: calls want their proofs back, an answer's schema goes together with tools, results have pictures.
    Three,
}

/// How a model is told how much to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thinking {
    /// It does not think.
    None,
    /// In tokens.
    Budget {
        /// The fewest.
        least: u64,
        /// The most.
        most: u64,
        /// Whether it can be switched off.
        can_be_off: bool,
    },
    /// In words.
    Level {
        /// Whether there is one below `low`.
        minimal: bool,
    },
}

impl Family {
    /// Reads a model's name at the provider, with or without a path before it.
    pub(super) fn of(model: &str) -> Self {
        let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
        let starts = |with: &[&str]| with.iter().any(|with| name.starts_with(with));
        if starts(&["gemma-"]) {
            return Self { age: Age::Old, thinking: Thinking::None, instructions: false };
        }
        let is_old = starts(&["gemini-1", "gemini-2.0", "gemini-pro-vision"]) || name == "gemini-pro";
        let (age, thinking) = if is_old {
            (Age::Old, Thinking::None)
        } else if starts(&["gemini-2.5", "gemini-robotics-er-1.5"]) {
            (Age::Two5, budget(&name))
        } else {
            let from_low =
                name.contains("pro") || (name.contains("flash") && !name.contains("lite") && version(&name) >= (3, 7));
            (Age::Three, Thinking::Level { minimal: !from_low })
        };
        Self { age, thinking, instructions: true }
    }
}

fn budget(name: &str) -> Thinking {
    match name {
        _ if name.contains("image") || name.contains("tts") => Thinking::None,
        _ if name.contains("pro") => Thinking::Budget { least: 128, most: 32_768, can_be_off: false },
        _ if name.contains("lite") => Thinking::Budget { least: 512, most: 24_576, can_be_off: true },
        _ => Thinking::Budget { least: 1, most: 24_576, can_be_off: true },
    }
}

/// The version in a name such as `gemini-3.7-flash`; without one it is the latest.
fn version(name: &str) -> (u32, u32) {
    let number = name.strip_prefix("gemini-").and_then(|rest| rest.split('-').next()).unwrap_or_default();
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    let number = |digits: &str| digits.parse().ok();
    number(major).zip(number(minor)).unwrap_or((u32::MAX, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_family() {
        let level = |minimal| (Age::Three, Thinking::Level { minimal });
        let budget = |least, most, can_be_off| (Age::Two5, Thinking::Budget { least, most, can_be_off });
        for (name, expected) in [
            ("gemini-1.5-flash", (Age::Old, Thinking::None)),
            ("models/gemini-2.0-flash", (Age::Old, Thinking::None)),
            ("gemini-pro", (Age::Old, Thinking::None)),
            ("gemma-3-27b-it", (Age::Old, Thinking::None)),
            ("gemini-2.5-pro", budget(128, 32_768, false)),
            ("gemini-2.5-flash", budget(1, 24_576, true)),
            ("publishers/google/models/Gemini-2.5-Flash-Lite-preview", budget(512, 24_576, true)),
            ("gemini-2.5-flash-image", (Age::Two5, Thinking::None)),
            ("gemini-3-pro-preview", level(false)),
            ("gemini-3-flash-preview", level(true)),
            ("gemini-3.6-flash", level(true)),
            ("gemini-3.7-flash", level(false)),
            ("gemini-3.10-flash", level(false)),
            ("gemini-3.7-flash-lite", level(true)),
            ("gemini-flash-latest", level(false)),
            ("gemini-4-flash", level(false)),
            ("tunedModels/mine", level(true)),
        ] {
            let family = Family::of(name);
            assert_eq!((family.age, family.thinking), expected, "{name}");
            assert_eq!(family.instructions, !name.starts_with("gemma"), "{name}");
        }
    }
}
