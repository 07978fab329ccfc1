//! What Gemini's models differ in.

use crate::providers::families::{Traits, traits};

/// What matters of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Family {
    /// How new it is.
    pub(super) age: Age,
    /// What is known of it.
    pub(super) traits: &'static Traits,
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

impl Family {
    /// Reads a model's name at the provider, with or without a path before it. A name of somebody's own is taken for
    /// that of the newest.
    pub(super) fn of(model: &str) -> Self {
        let lower = model.to_ascii_lowercase();
        let is_known = lower.contains("gemini-") || lower.contains("gemma-");
        let traits = traits(if is_known { model } else { "gemini-latest" });
        let age = match traits {
            Traits { thinking_level: true, .. } => Age::Three,
            Traits { budgets: Some(_), .. } => Age::Two5,
            _ => Age::Old,
        };
        Self { age, traits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_age() {
        for (name, age) in [
            ("gemini-1.5-flash", Age::Old),
            ("models/gemini-2.0-flash", Age::Old),
            ("gemma-3-27b-it", Age::Old),
            ("gemini-2.5-pro", Age::Two5),
            ("publishers/google/models/Gemini-2.5-Flash-Lite-preview", Age::Two5),
            ("gemini-3-pro-preview", Age::Three),
            ("gemini-flash-latest", Age::Three),
            ("gemini-9-flash", Age::Three),
            ("tunedModels/mine", Age::Three),
            ("endpoints/123", Age::Three),
        ] {
            assert_eq!(Family::of(name).age, age, "{name}");
        }
    }
}
