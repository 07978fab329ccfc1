//! JSON Schemas in the two forms that Gemini reads.

use serde_json::{Map, Value, json};

/// Keywords whose value is a schema.
const ONE: &[&str] = &["items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"];
/// Keywords whose value is a list of schemas.
const LIST: &[&str] = &["anyOf", "oneOf", "allOf", "prefixItems"];
/// Keywords whose value has a schema by each name.
const NAMED: &[&str] = &["properties", "$defs", "definitions", "patternProperties"];
/// What the form of OpenAPI keeps as it is.
const OPEN_API: &[&str] = &[
    "title",
    "description",
    "nullable",
    "minItems",
    "maxItems",
    "propertyOrdering",
    "minProperties",
    "maxProperties",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "example",
    "default",
];
/// The most schemas that one may grow to when its references are replaced by what they stand for.
const MOST: u32 = 5_000;
/// The deepest nesting.
const DEEPEST: u32 = 64;

/// As models since 2.5 read it: JSON Schema, without what they take exception to.
pub(super) fn json_schema(schema: &Value) -> Value {
    let Value::Object(schema) = schema else { return schema.clone() };
    let mut fitted = Map::new();
    for (keyword, value) in schema {
        let value = match (keyword.as_str(), value) {
            ("$schema" | "discriminator" | "examples" | "exclusiveMinimum" | "exclusiveMaximum" | "const", _) => {
                continue;
            }
            ("format", Value::String(_)) if is_text(schema) => continue,
            (keyword, value) if ONE.contains(&keyword) => json_schema(value),
            (keyword, Value::Array(list)) if LIST.contains(&keyword) => list.iter().map(json_schema).collect(),
            (keyword, Value::Object(named)) if NAMED.contains(&keyword) => {
                named.iter().map(|(name, value)| (name.clone(), json_schema(value))).collect::<Map<_, _>>().into()
            }
            (_, value) => value.clone(),
        };
        fitted.insert(keyword.clone(), value);
    }
    if let Some(only) = schema.get("const") {
        fitted.insert("enum".to_owned(), json!([only]));
    }
    if is_text(schema)
        && let Some(format) = schema.get("format").and_then(Value::as_str)
    {
        describe(&mut fitted, &format!("Format: {format}"));
    }
    Value::Object(fitted)
}

/// As older models read it: a part of OpenAPI's schemas, in which nothing else may stand. `None` if it refers to
/// itself or grows too large: there is no such form of it.
pub(super) fn open_api(schema: &Value) -> Option<Value> {
    Narrowing { root: schema, left: MOST }.fit(schema, 0)
}

fn is_text(schema: &Map<String, Value>) -> bool {
    schema.get("type").is_some_and(|kind| kind == "string")
}

/// Adds a sentence to a schema's description.
fn describe(schema: &mut Map<String, Value>, words: &str) {
    let before = schema.get("description").and_then(Value::as_str);
    let description = before.map_or_else(|| words.to_owned(), |before| format!("{before} ({words})"));
    schema.insert("description".to_owned(), description.into());
}

struct Narrowing<'s> {
    root: &'s Value,
    left: u32,
}

impl Narrowing<'_> {
    fn fit(&mut self, schema: &Value, depth: u32) -> Option<Value> {
        self.left = self.left.checked_sub(1)?;
        if depth > DEEPEST {
            return None;
        }
        let deeper = depth.saturating_add(1);
        let Value::Object(schema) = schema else { return Some(json!({})) };
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = self.root.pointer(reference.strip_prefix('#')?)?;
            let mut fitted = self.fit(target, deeper)?;
            if let (Some(fitted), Some(description)) = (fitted.as_object_mut(), schema.get("description")) {
                fitted.insert("description".to_owned(), description.clone());
            }
            return Some(fitted);
        }
        let mut fitted: Map<String, Value> =
            schema.iter().filter(|(keyword, _)| OPEN_API.contains(&keyword.as_str())).map(cloned).collect();
        let mut choices: Vec<&Value> = Vec::new();
        for keyword in ["anyOf", "oneOf"] {
            choices.extend(schema.get(keyword).and_then(Value::as_array).into_iter().flatten());
        }
        let one_of_types: Vec<Value> =
            self.kinds(schema, &mut fitted).into_iter().map(|kind| json!({"type": kind})).collect();
        choices.extend(&one_of_types);
        self.values(schema, &mut fitted);
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            let mut narrow = Map::new();
            for (name, property) in properties {
                narrow.insert(name.clone(), self.fit(property, deeper)?);
            }
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            let required: Vec<&Value> =
                required.filter(|name| name.as_str().is_some_and(|name| narrow.contains_key(name))).collect();
            if !required.is_empty() {
                fitted.insert("required".to_owned(), json!(required));
            }
            fitted.insert("properties".to_owned(), narrow.into());
            fitted.entry("type").or_insert_with(|| "object".into());
        }
        let items = schema.get("items").or_else(|| schema.get("prefixItems")?.get(0));
        if let Some(items) = items {
            fitted.insert("items".to_owned(), self.fit(items, deeper)?);
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            merge(&mut fitted, self.fit(part, deeper)?);
        }
        let is_null = |choice: &&Value| choice.get("type").is_some_and(|kind| kind == "null");
        if choices.iter().any(is_null) {
            fitted.insert("nullable".to_owned(), true.into());
            choices.retain(|choice| !is_null(choice));
        }
        match choices.as_slice() {
            [] => {}
            [only] => merge(&mut fitted, self.fit(only, deeper)?),
            several => {
                let several: Option<Vec<Value>> = several.iter().map(|choice| self.fit(choice, deeper)).collect();
                fitted.insert("anyOf".to_owned(), several?.into());
            }
        }
        Some(Value::Object(fitted))
    }

    /// Sets the type; several are choices.
    fn kinds<'s>(&self, schema: &'s Map<String, Value>, fitted: &mut Map<String, Value>) -> Vec<&'s Value> {
        match schema.get("type") {
            Some(Value::Array(kinds)) => return kinds.iter().collect(),
            Some(kind) => _ = fitted.insert("type".to_owned(), kind.clone()),
            None => {}
        }
        Vec::new()
    }

    /// Enumerations are of texts only, and formats of few kinds: others are described.
    fn values(&self, schema: &Map<String, Value>, fitted: &mut Map<String, Value>) {
        let values = schema.get("enum").and_then(Value::as_array).cloned();
        let values = values.or_else(|| schema.get("const").map(|only| vec![only.clone()]));
        if let Some(values) = values {
            if values.iter().all(Value::is_string) {
                fitted.insert("enum".to_owned(), values.into());
                fitted.entry("type").or_insert_with(|| "string".into());
            } else {
                describe(fitted, &format!("One of: {}", Value::from(values)));
            }
        }
        if let Some(format) = schema.get("format").and_then(Value::as_str) {
            describe(fitted, &format!("Format: {format}"));
        }
    }
}

fn cloned((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

/// Adds what a schema says to another; properties and what is required of them are put together.
fn merge(into: &mut Map<String, Value>, from: Value) {
    let Value::Object(from) = from else { return };
    for (keyword, value) in from {
        match (into.get_mut(&keyword), value) {
            (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
            (Some(Value::Array(known)), Value::Array(more)) => known.extend(more),
            (Some(_), _) => {}
            (None, value) => _ = into.insert(keyword, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_schema_loses_only_what_models_take_exception_to() {
        let schema = json!({
            "$schema": "x", "title": "T", "type": "object", "additionalProperties": false, "required": ["const"],
            "properties": {
                "const": {"const": 1, "exclusiveMinimum": 0},
                "when": {"type": "string", "format": "date", "description": "A day"},
                "examples": {"$ref": "#/$defs/a"},
            },
            "$defs": {"a": {"anyOf": [{"type": "null", "examples": []}]}},
        });
        assert_eq!(
            json_schema(&schema),
            json!({
                "title": "T", "type": "object", "additionalProperties": false, "required": ["const"],
                "properties": {
                    "const": {"enum": [1]},
                    "when": {"type": "string", "description": "A day (Format: date)"},
                    "examples": {"$ref": "#/$defs/a"},
                },
                "$defs": {"a": {"anyOf": [{"type": "null"}]}},
            })
        );
    }

    #[test]
    fn the_form_of_open_api_has_no_other_keyword() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["a", "gone"],
            "properties": {
                "a": {"$ref": "#/$defs/a", "description": "An a"},
                "b": {"type": ["string", "null"], "format": "email"},
                "c": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                "d": {"oneOf": [{"type": "integer"}, {"type": "string", "const": "x"}]},
                "e": {"enum": [1, 2], "type": "integer"},
                "f": {"allOf": [{"properties": {"x": {}}}, {"properties": {"y": true}}]},
                "g": {"type": "array", "prefixItems": [{"type": "number", "uniqueItems": true}]},
            },
            "$defs": {"a": {"type": "string", "minLength": 1}},
        });
        assert_eq!(
            open_api(&schema).unwrap(),
            json!({
                "type": "object", "required": ["a"],
                "properties": {
                    "a": {"type": "string", "minLength": 1, "description": "An a"},
                    "b": {"description": "Format: email", "nullable": true, "type": "string"},
                    "c": {"nullable": true, "type": "integer"},
                    "d": {"anyOf": [{"type": "integer"}, {"type": "string", "enum": ["x"]}]},
                    "e": {"type": "integer", "description": "One of: [1,2]"},
                    "f": {"properties": {"x": {}, "y": {}}, "type": "object"},
                    "g": {"type": "array", "items": {"type": "number"}},
                },
            })
        );
    }

    #[test]
    fn what_never_ends_has_no_such_form() {
        let recursive = json!({"properties": {"next": {"$ref": "#"}}});
        assert_eq!(open_api(&recursive), None);
        assert_eq!(open_api(&json!({"$ref": "#/$defs/missing"})), None);
        let doubling: Map<String, Value> = (0..30)
            .map(|n| (format!("d{n}"), json!({"anyOf": [{"$ref": format!("#/$defs/d{}", n + 1)}, {"$ref": format!("#/$defs/d{}", n + 1)}]})))
            .collect();
        assert_eq!(open_api(&json!({"$ref": "#/$defs/d0", "$defs": doubling})), None);
        assert_eq!(json_schema(&recursive), recursive);
    }
}
