//! An example value for a JSON schema: what a model would put into tool arguments or a structured answer.
//!
//! Covers what providers accept for strict tools and structured output: types, `enum`, `const`, `required`,
//! `anyOf`/`oneOf`/`allOf`, local `$ref` (recursive ones too), string formats and lengths, number and array
//! bounds. Regular expressions are honoured only through `examples` and `default`.

use serde_json::{Map, Value, json};

/// Depth from which only what is required is written.
const OPTIONAL_DEPTH: usize = 4;
/// Depth at which a schema that never ends is cut off.
const MAX_DEPTH: usize = 32;
/// Most values one example has.
const MAX_NODES: usize = 5_000;
/// Longest array or string that bounds can ask for.
const MAX_LENGTH: u64 = 10_000;

/// Builds a value that is valid for `schema`. `hint` is what the user said; words from it make the value look
/// sensible. `variant` makes repeated calls of one tool differ.
pub fn example(schema: &Value, hint: &str, variant: usize) -> Value {
    let mut builder = Builder { root: schema, hint, variant, nodes: 0 };
    builder.value(schema, "", 0)
}

struct Builder<'a> {
    root: &'a Value,
    hint: &'a str,
    variant: usize,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn value(&mut self, schema: &'a Value, name: &str, depth: usize) -> Value {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return Value::Null;
        }
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array)
            && let Some(value) = values.get(self.variant % values.len().max(1))
        {
            return value.clone();
        }
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            return match self.resolve(target) {
                Some(target) => self.value(target, name, depth + 1),
                None => Value::Null,
            };
        }
        for key in ["default", "examples"] {
            match schema.get(key) {
                Some(Value::Array(examples)) if key == "examples" => {
                    if let Some(first) = examples.first() {
                        return first.clone();
                    }
                }
                Some(value) if key == "default" && !value.is_null() => return value.clone(),
                _ => {}
            }
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(options) = schema.get(key).and_then(Value::as_array) {
                return match choose(options, depth) {
                    Some(option) => self.value(option, name, depth + 1),
                    None => Value::Null,
                };
            }
        }
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            return self.all_of(schema, parts, name, depth);
        }
        match type_of(schema, depth) {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, name, depth),
            "string" => Value::String(self.string(schema, name)),
            "integer" => integer(schema, self.variant),
            "number" => number(schema, self.variant),
            "boolean" => Value::Bool(true),
            _ => Value::Null,
        }
    }

    /// Follows a reference within the document.
    fn resolve(&self, target: &str) -> Option<&'a Value> {
        self.root.pointer(target.strip_prefix('#')?)
    }

    /// Objects of all parts laid over each other; for anything else the first part decides.
    fn all_of(&mut self, schema: &'a Value, parts: &'a [Value], name: &str, depth: usize) -> Value {
        let mut merged = Map::new();
        if schema.get("properties").is_some() {
            merged.extend(into_object(self.object(schema, depth)));
        }
        let mut other = None;
        for part in parts {
            match self.value(part, name, depth + 1) {
                Value::Object(object) => merged.extend(object),
                value => {
                    other.get_or_insert(value);
                }
            }
        }
        match other {
            Some(value) if merged.is_empty() => value,
            _ => Value::Object(merged),
        }
    }

    fn object(&mut self, schema: &'a Value, depth: usize) -> Value {
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut object = Map::new();
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, property) in properties {
                if required.contains(&name.as_str()) || depth < OPTIONAL_DEPTH {
                    object.insert(name.clone(), self.value(property, name, depth + 1));
                }
            }
        }
        for name in required {
            if !object.contains_key(name) {
                let value = match schema.get("additionalProperties") {
                    Some(rest @ Value::Object(_)) => self.value(rest, name, depth + 1),
                    _ => Value::String(self.sample(name)),
                };
                object.insert(name.to_owned(), value);
            }
        }
        Value::Object(object)
    }

    fn array(&mut self, schema: &'a Value, name: &str, depth: usize) -> Value {
        let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        let most = schema.get("maxItems").and_then(Value::as_u64).unwrap_or(u64::MAX);
        let wanted = if depth < OPTIONAL_DEPTH { least.max(1).min(most) } else { least };
        let wanted = usize::try_from(wanted.min(MAX_LENGTH)).unwrap_or_default();
        let mut items = Vec::new();
        let fixed = schema.get("prefixItems").and_then(Value::as_array);
        for item in fixed.into_iter().flatten() {
            items.push(self.value(item, name, depth + 1));
        }
        let singular = name.strip_suffix('s').unwrap_or(name);
        let unique = schema.get("uniqueItems") == Some(&Value::Bool(true));
        let variant = self.variant;
        while items.len() < wanted && self.nodes <= MAX_NODES {
            let item = match schema.get("items") {
                Some(item @ Value::Object(_)) => self.value(item, singular, depth + 1),
                Some(Value::Bool(false)) => break,
                _ => Value::String(self.sample(singular)),
            };
            if unique {
                self.variant += 1;
            }
            self.nodes += 1;
            items.push(item);
        }
        self.variant = variant;
        Value::Array(items)
    }

    fn string(&mut self, schema: &Value, name: &str) -> String {
        let mut text = match schema.get("format").and_then(Value::as_str) {
            Some("date-time") => "2025-01-15T09:30:00Z".to_owned(),
            Some("date") => "2025-01-15".to_owned(),
            Some("time") => "09:30:00Z".to_owned(),
            Some("duration") => "PT15M".to_owned(),
            Some("email") => "ada@example.com".to_owned(),
            Some("hostname") => "example.com".to_owned(),
            Some("ipv4") => "192.0.2.1".to_owned(),
            Some("ipv6") => "2001:db8::1".to_owned(),
            Some("uuid") => "3f2b8a54-9c1d-4e7a-8b6f-0a1b2c3d4e5f".to_owned(),
            Some("uri" | "url" | "iri" | "uri-reference") => "https://example.com/".to_owned(),
            _ => self.sample(name),
        };
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64).map(|bound| bound.min(MAX_LENGTH));
        if let Some(most) = bound("maxLength") {
            text = text.chars().take(usize::try_from(most).unwrap_or_default()).collect();
        }
        if let Some(least) = bound("minLength") {
            let missing = usize::try_from(least).unwrap_or_default().saturating_sub(text.chars().count());
            // Long texts use up the bound on the whole example, too.
            self.nodes += missing / 64;
            text.extend(std::iter::repeat_n('x', missing));
        }
        text
    }

    /// A string that suits a field of this name.
    fn sample(&self, name: &str) -> String {
        let lower = name.to_ascii_lowercase();
        let has = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
        let pick = |from: [&str; 3]| from.get(self.variant % 3).copied().unwrap_or_default().to_owned();
        if has(&["city", "location", "place", "town"]) {
            return match place(self.hint) {
                Some(place) if self.variant == 0 => place,
                _ => pick(["Paris", "Tokyo", "Nairobi"]),
            };
        }
        if has(&["country"]) {
            return pick(["France", "Japan", "Kenya"]);
        }
        if has(&["timezone", "time_zone"]) {
            return pick(["Europe/Paris", "Asia/Tokyo", "Africa/Nairobi"]);
        }
        if has(&["email", "mail"]) {
            return "ada@example.com".to_owned();
        }
        if has(&["url", "link"]) {
            return "https://example.com/".to_owned();
        }
        if has(&["date", "day"]) {
            return "2025-01-15".to_owned();
        }
        if has(&["currency"]) {
            return pick(["EUR", "JPY", "KES"]);
        }
        if has(&["query", "question", "prompt", "search", "input", "text", "message"]) && !self.hint.is_empty() {
            return self.hint.chars().take(80).collect();
        }
        if has(&["title", "summary", "description", "answer", "content", "reason"]) {
            return "An example from the demo provider".to_owned();
        }
        if has(&["name", "author", "person"]) {
            return pick(["Ada", "Grace", "Alan"]);
        }
        if lower == "id" || lower.ends_with("_id") {
            return pick(["id-1", "id-2", "id-3"]);
        }
        pick(["example", "another example", "third example"])
    }
}

/// The capitalised words after "in", "for" or "at": where a question is about.
fn place(hint: &str) -> Option<String> {
    let mut words = hint.split_whitespace();
    while let Some(word) = words.next() {
        if ["in", "for", "at"].contains(&word) {
            let name: Vec<&str> =
                words.clone().take_while(|word| word.starts_with(char::is_uppercase)).take(3).collect();
            let name = name.join(" ");
            let name = name.trim_end_matches(|c: char| !c.is_alphanumeric());
            if !name.is_empty() {
                return Some(name.to_owned());
            }
        }
    }
    None
}

fn into_object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// One of several schemas: the first that is not null, and the one that ends soonest when it gets deep.
fn choose(options: &[Value], depth: usize) -> Option<&Value> {
    let null = |option: &&Value| option.get("type").and_then(Value::as_str) == Some("null");
    let compound = |option: &&Value| {
        option.get("$ref").is_some() || matches!(option.get("type").and_then(Value::as_str), Some("object" | "array"))
    };
    if depth >= OPTIONAL_DEPTH {
        return options
            .iter()
            .find(null)
            .or_else(|| options.iter().find(|option| !compound(option)))
            .or_else(|| options.first());
    }
    options.iter().find(|option| !null(option)).or_else(|| options.first())
}

/// The type to write, inferred where the schema does not say.
fn type_of(schema: &Value, depth: usize) -> &str {
    match schema.get("type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(names)) => {
            let mut names = names.iter().filter_map(Value::as_str);
            let all: Vec<&str> = names.by_ref().collect();
            if depth >= OPTIONAL_DEPTH && all.contains(&"null") {
                return "null";
            }
            all.iter().find(|name| **name != "null").copied().unwrap_or("null")
        }
        _ if schema.get("properties").is_some() || schema.get("required").is_some() => "object",
        _ if schema.get("items").is_some() || schema.get("prefixItems").is_some() => "array",
        _ if schema.get("minimum").is_some() || schema.get("maximum").is_some() => "number",
        _ => "string",
    }
}

fn integer(schema: &Value, variant: usize) -> Value {
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let step = bound("multipleOf").filter(|step| *step >= 1.0).unwrap_or(1.0);
    let mut least = bound("minimum").map(f64::ceil);
    if let Some(exclusive) = bound("exclusiveMinimum") {
        least = Some(least.unwrap_or(f64::MIN).max(exclusive.floor() + 1.0));
    }
    let mut most = bound("maximum").map(f64::floor);
    if let Some(exclusive) = bound("exclusiveMaximum") {
        most = Some(most.unwrap_or(f64::MAX).min(exclusive.ceil() - 1.0));
    }
    let wish = 3.0 + variant as f64;
    let mut value = wish.max(least.unwrap_or(f64::MIN)).min(most.unwrap_or(f64::MAX));
    value = (value / step).floor() * step;
    if least.is_some_and(|least| value < least) {
        value += step;
    }
    // Every bound a schema can state exactly lies well within an i64; beyond it `as` saturates.
    json!(value as i64)
}

fn number(schema: &Value, variant: usize) -> Value {
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    if let Some(step) = bound("multipleOf") {
        let least = bound("minimum").unwrap_or(step);
        return json!((least / step).ceil() * step);
    }
    let wish = 1.5 + variant as f64;
    let least = bound("minimum").or(bound("exclusiveMinimum"));
    let most = bound("maximum").or(bound("exclusiveMaximum"));
    json!(match (least, most) {
        (Some(least), Some(most)) if !(wish > least && wish < most) => least / 2.0 + most / 2.0,
        (Some(least), None) if wish <= least => least + 1.0,
        (None, Some(most)) if wish >= most => most - 1.0,
        _ => wish,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_enums_and_constants() {
        let schema = json!({
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 5, "maximum": 7},
                "ratio": {"type": "number", "minimum": 0, "maximum": 1},
                "kind": {"const": "forecast"},
                "strict": {"type": "boolean"},
                "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
                "note": {"type": ["string", "null"]},
            },
            "required": ["city", "unit", "days", "ratio", "kind", "strict", "tags", "note"],
            "additionalProperties": false,
        });
        let value = example(&schema, "What's the weather in New York?", 0);
        assert_eq!(value["city"], "New York");
        assert_eq!(value["unit"], "celsius");
        assert_eq!(value["days"], 5);
        assert_eq!(value["ratio"], 0.5);
        assert_eq!(value["kind"], "forecast");
        assert_eq!(value["strict"], true);
        assert_eq!(value["tags"].as_array().unwrap().len(), 2);
        assert!(value["note"].is_string());
    }

    #[test]
    fn references_and_recursion_end() {
        let schema = json!({
            "$defs": {"Node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                },
                "required": ["name", "next", "children"],
            }},
            "$ref": "#/$defs/Node",
        });
        let value = example(&schema, "", 0);
        assert_eq!(value["name"], "Ada");
        assert!(value.to_string().len() < 20_000);
        let endless = json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]});
        assert!(example(&endless, "", 0).is_object());
    }

    #[test]
    fn bounds_hold() {
        let of = |schema: Value| example(&schema, "", 0);
        assert_eq!(of(json!({"type": "integer", "maximum": -2})), -2);
        assert_eq!(of(json!({"type": "integer", "exclusiveMinimum": 3})), 4);
        assert_eq!(of(json!({"type": "integer", "multipleOf": 10, "minimum": 15})), 20);
        assert_eq!(of(json!({"type": "string", "maxLength": 3})), "exa");
        assert_eq!(of(json!({"type": "string", "minLength": 9})), "examplexx");
        assert_eq!(of(json!({"type": "array", "maxItems": 0})), json!([]));
        assert_eq!(
            of(json!({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}]})),
            json!([3, true])
        );
        assert!(of(json!({"type": "number", "minimum": 10})).as_f64().unwrap() >= 10.0);
        assert_eq!(of(json!({"type": "string", "format": "date"})), "2025-01-15");
    }

    #[test]
    fn all_of_lays_objects_over_each_other() {
        let schema = json!({"allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]},
        ]});
        let value = example(&schema, "", 0);
        assert!(value["a"].is_i64() && value["b"].is_string());
    }

    #[test]
    fn odd_schemas_do_no_harm() {
        for schema in [
            json!(null),
            json!(true),
            json!([]),
            json!({"type": 3}),
            json!({"enum": []}),
            json!({"anyOf": []}),
            json!({"$ref": "#/nowhere"}),
            json!({"$ref": "#"}),
            json!({"type": "integer", "minimum": 1e300, "maximum": -1e300}),
            json!({"type": "string", "minLength": 18_446_744_073_709_551_615_u64}),
            json!({"type": "array", "minItems": 18_446_744_073_709_551_615_u64, "items": {"type": "array", "minItems": 9999}}),
        ] {
            let _ = example(&schema, "x", 7);
        }
    }

    #[test]
    fn repeated_calls_differ() {
        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
        assert_ne!(example(&schema, "", 0), example(&schema, "", 1));
    }
}
