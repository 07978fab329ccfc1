//! A document as the control plane keeps its draft: entries as rows, everything else as one piece.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The parts of a document. Entries are by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Parts {
    /// Every section that has no entries.
    pub settings: Map<String, Value>,
    /// The providers.
    pub providers: Map<String, Value>,
    /// The models.
    pub models: Map<String, Value>,
    /// The routes.
    pub routes: Map<String, Value>,
    /// The prices.
    pub prices: Map<String, Value>,
}

/// Makes the document of its parts; those without an entry are left out.
pub fn compile(parts: Parts) -> Value {
    let Parts { settings: mut document, providers, models, routes, prices } = parts;
    for (section, entries) in [("providers", providers), ("models", models), ("routes", routes), ("prices", prices)] {
        // Settings cannot bring entries of their own: they would bypass the rows' checks.
        document.shift_remove(section);
        if !entries.is_empty() {
            document.insert(section.to_owned(), Value::Object(entries));
        }
    }
    Value::Object(document)
}

/// Takes a document apart. What is not an object has no parts.
pub fn split(document: Value) -> Parts {
    let Value::Object(mut settings) = document else { return Parts::default() };
    let mut entries = |section: &str| match settings.shift_remove(section) {
        Some(Value::Object(entries)) => entries,
        _ => Map::new(),
    };
    let (providers, models) = (entries("providers"), entries("models"));
    let (routes, prices) = (entries("routes"), entries("prices"));
    Parts { settings, providers, models, routes, prices }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_taken_apart_is_put_together_again() {
        let document = json!({
            "http": {"hsts_seconds": 1}, "timeouts": {}, "providers": {"p": {"dialect": "openai"}},
            "models": {"m": {"provider": "p"}}, "routes": {"r": {}}, "prices": {"m": {}},
        });
        let parts = split(document.clone());
        assert_eq!(parts.settings.keys().collect::<Vec<_>>(), ["http", "timeouts"]);
        assert_eq!(compile(parts), document);
        assert_eq!(compile(split(json!({}))), json!({}));
        assert_eq!(split(json!([])), Parts::default());
    }

    #[test]
    fn settings_cannot_bring_entries() {
        let Value::Object(settings) = json!({"providers": {"x": {}}, "http": {}}) else { panic!("an object") };
        assert_eq!(compile(Parts { settings, ..Parts::default() }), json!({"http": {}}));
    }
}
