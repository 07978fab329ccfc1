//! Checks requests against the API's own description, so that what is documented and what is enforced cannot differ.
//!
//! This knows the part of JSON Schema that the generated description uses, which a test ensures.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::error::{FieldProblem, Problem};

/// The generated description of the API (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("openapi.json");

/// Keywords that say something about a value, as far as they are known here.
pub const KEYWORDS: &[&str] = &[
    "$ref",
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "minProperties",
    "maxProperties",
    "anyOf",
    "oneOf",
    "allOf",
    "uniqueItems",
];

/// Keywords that only explain.
pub const ANNOTATIONS: &[&str] = &["title", "description", "default", "format", "examples", "deprecated"];

/// The most problems that are told at once.
const MOST_PROBLEMS: usize = 50;

/// The description, read once.
#[derive(Debug)]
pub struct Description {
    root: Value,
}

impl Description {
    /// Reads the description that was generated from the code.
    ///
    /// # Errors
    /// If it is no JSON, which the tests rule out.
    pub fn load() -> Result<Self, serde_json::Error> {
        serde_json::from_str(OPENAPI).map(|root| Self { root })
    }

    /// The whole document.
    pub fn document(&self) -> &Value {
        &self.root
    }

    /// What is said of an operation.
    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        self.root.get("paths")?.get(path)?.get(method)
    }

    /// Whether an operation takes a body.
    pub fn takes_body(&self, method: &str, path: &str) -> bool {
        self.operation(method, path).is_some_and(|operation| operation.get("requestBody").is_some())
    }

    /// Everything that is wrong with a request's body.
    ///
    /// # Errors
    /// 400 with the fields at fault.
    pub fn check_body(&self, method: &str, path: &str, body: &Value) -> Result<(), Problem> {
        let content = self.operation(method, path).and_then(|operation| operation.get("requestBody")?.get("content"));
        let schema = content.and_then(|content| content.as_object()?.values().next()?.get("schema"));
        schema.map_or(Ok(()), |schema| self.check_value(schema, body))
    }

    /// Everything that is wrong with a value, by the name of its schema.
    ///
    /// # Errors
    /// 400 with the fields at fault.
    pub fn check_named(&self, name: &str, value: &Value) -> Result<(), Problem> {
        let schema = self.root.pointer("/components/schemas").and_then(|schemas| schemas.get(name));
        schema.map_or(Ok(()), |schema| self.check_value(schema, value))
    }

    /// The name of the schema that an operation's body must fulfil once a change has been merged into what is there.
    pub fn merged_schema(&self, method: &str, path: &str) -> Option<&str> {
        self.operation(method, path)?.get("x-merged-schema")?.as_str()
    }

    fn check_value(&self, schema: &Value, value: &Value) -> Result<(), Problem> {
        let mut check = Check { root: &self.root, found: Vec::new() };
        check.value(schema, value, "", 0);
        Problem::of_fields(check.found)
    }

    /// Reads a query by the parameters that an operation declares: texts become numbers and truth values where those
    /// are declared.
    ///
    /// # Errors
    /// 400 for a parameter that does not exist, comes twice, or has the wrong form.
    pub fn read_query(&self, method: &str, path: &str, query: &str) -> Result<Value, Problem> {
        let none = Vec::new();
        let declared = self
            .operation(method, path)
            .and_then(|operation| operation.get("parameters")?.as_array())
            .unwrap_or(&none)
            .iter()
            .filter(|parameter| parameter.get("in").and_then(Value::as_str) == Some("query"));
        let declared: Vec<(&str, &Value)> = declared
            .filter_map(|parameter| Some((parameter.get("name")?.as_str()?, parameter.get("schema")?)))
            .collect();
        let mut check = Check { root: &self.root, found: Vec::new() };
        let mut read = Map::new();
        for (name, text) in url::form_urlencoded::parse(query.as_bytes()) {
            let Some((name, schema)) = declared.iter().find(|(known, _)| *known == name) else {
                let known: Vec<&str> = declared.iter().map(|(name, _)| *name).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                check.add(&name, format!("there is no such parameter; there are: {known}"));
                continue;
            };
            let value = check.coerce(schema, &text);
            check.value(schema, &value, name, 0);
            if read.insert((*name).to_owned(), value).is_some() {
                check.add(name, "is given twice".to_owned());
            }
        }
        Problem::of_fields(check.found)?;
        Ok(Value::Object(read))
    }
}

struct Check<'a> {
    root: &'a Value,
    found: Vec<FieldProblem>,
}

impl<'a> Check<'a> {
    fn add(&mut self, path: &str, message: String) {
        if self.found.len() < MOST_PROBLEMS {
            self.found.push(FieldProblem { path: path.to_owned(), message });
        }
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
        target.and_then(|target| self.root.pointer(target)).unwrap_or(schema)
    }

    /// Whether a schema, or what it refers to, allows a type.
    fn takes(&self, schema: &'a Value, wanted: &str) -> bool {
        let schema = self.resolve(schema);
        let own = match schema.get("type") {
            Some(Value::String(kind)) => kind == wanted,
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == wanted),
            _ => false,
        };
        own || ["anyOf", "oneOf"]
            .iter()
            .filter_map(|name| schema.get(*name)?.as_array())
            .flatten()
            .any(|choice| self.takes(choice, wanted))
    }

    /// A parameter's text as the value that its schema wants.
    fn coerce(&self, schema: &'a Value, text: &str) -> Value {
        let number = text.parse::<u64>().ok().filter(|_| self.takes(schema, "integer"));
        let flag = text.parse::<bool>().ok().filter(|_| self.takes(schema, "boolean"));
        number.map(Value::from).or_else(|| flag.map(Value::from)).unwrap_or_else(|| text.into())
    }

    fn value(&mut self, schema: &'a Value, value: &Value, path: &str, depth: usize) {
        // The description refers to itself nowhere, but a value may be as deep as the parser allows.
        if depth > 128 {
            return;
        }
        let deeper = depth.saturating_add(1);
        let Value::Object(keywords) = self.resolve(schema) else { return };
        if let Some(kinds) = keywords.get("type") {
            let kinds: Vec<&str> = match kinds {
                Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
                kind => kind.as_str().into_iter().collect(),
            };
            if !kinds.iter().any(|kind| is_a(value, kind)) {
                return self.add(path, format!("must be {}, but is {}", words(&kinds), name_of(value)));
            }
        }
        if let Some(Value::Array(choices)) = keywords.get("enum")
            && !choices.contains(value)
        {
            let choices: Vec<String> = choices.iter().map(Value::to_string).collect();
            return self.add(path, format!("must be one of {}", choices.join(", ")));
        }
        if keywords.get("const").is_some_and(|only| only != value) {
            return self.add(path, format!("must be {}", keywords.get("const").unwrap_or(&Value::Null)));
        }
        match value {
            Value::String(text) => self.text(keywords, text, path),
            Value::Number(number) => self.number(keywords, number, path),
            Value::Array(items) => self.items(keywords, items, path, deeper),
            Value::Object(members) => self.members(keywords, members, path, deeper),
            Value::Null | Value::Bool(_) => {}
        }
        if let Some(Value::Array(all)) = keywords.get("allOf") {
            for schema in all {
                self.value(schema, value, path, deeper);
            }
        }
        for name in ["anyOf", "oneOf"] {
            if let Some(Value::Array(choices)) = keywords.get(name) {
                self.choice(choices, value, path, deeper);
            }
        }
    }

    /// A value that must fulfil one of several schemas; told is what the nearest of them misses.
    fn choice(&mut self, choices: &'a [Value], value: &Value, path: &str, depth: usize) {
        let mut nearest: Option<Vec<FieldProblem>> = None;
        for schema in choices {
            let mut attempt = Check { root: self.root, found: Vec::new() };
            attempt.value(schema, value, path, depth);
            if attempt.found.is_empty() {
                return;
            }
            // One that complains about something deeper has understood more of the value.
            let reach = |found: &[FieldProblem]| found.iter().map(|problem| problem.path.len()).max().unwrap_or(0);
            if nearest.as_ref().is_none_or(|nearest| reach(&attempt.found) > reach(nearest)) {
                nearest = Some(attempt.found);
            }
        }
        self.found.extend(nearest.unwrap_or_default());
        self.found.truncate(MOST_PROBLEMS);
    }

    fn text(&mut self, keywords: &Map<String, Value>, text: &str, path: &str) {
        let limit = |name: &str| keywords.get(name).and_then(Value::as_u64);
        let length = text.chars().count() as u64;
        if let Some(min) = limit("minLength").filter(|min| length < *min) {
            self.add(path, format!("must have at least {min} characters"));
        }
        if let Some(max) = limit("maxLength").filter(|max| length > *max) {
            self.add(path, format!("must have at most {max} characters"));
        }
        if text.contains('\0') {
            self.add(path, "must not contain NUL".to_owned());
        }
    }

    fn number(&mut self, keywords: &Map<String, Value>, number: &serde_json::Number, path: &str) {
        let value = number.as_f64().unwrap_or(f64::NAN);
        let limit = |name: &str| keywords.get(name).filter(|limit| limit.is_number());
        if let Some(min) = limit("minimum").filter(|min| min.as_f64().is_some_and(|min| value < min)) {
            self.add(path, format!("must be at least {min}"));
        }
        if let Some(max) = limit("maximum").filter(|max| max.as_f64().is_some_and(|max| value > max)) {
            self.add(path, format!("must be at most {max}"));
        }
    }

    fn items(&mut self, keywords: &'a Map<String, Value>, items: &[Value], path: &str, depth: usize) {
        let limit = |name: &str| keywords.get(name).and_then(Value::as_u64);
        if let Some(min) = limit("minItems").filter(|min| (items.len() as u64) < *min) {
            self.add(path, format!("must have at least {min} entries"));
        }
        if let Some(max) = limit("maxItems").filter(|max| items.len() as u64 > *max) {
            return self.add(path, format!("must have at most {max} entries"));
        }
        if keywords.get("uniqueItems") == Some(&Value::Bool(true)) {
            let distinct: BTreeSet<String> = items.iter().map(Value::to_string).collect();
            if distinct.len() < items.len() {
                self.add(path, "must not have an entry twice".to_owned());
            }
        }
        if let Some(schema) = keywords.get("items") {
            for (nth, item) in items.iter().enumerate() {
                self.value(schema, item, &format!("{path}[{nth}]"), depth);
            }
        }
    }

    fn members(&mut self, keywords: &'a Map<String, Value>, members: &Map<String, Value>, path: &str, depth: usize) {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        if let Some(Value::Array(required)) = keywords.get("required") {
            for name in required.iter().filter_map(Value::as_str).filter(|name| !members.contains_key(*name)) {
                self.add(&below(name), "is required".to_owned());
            }
        }
        let limit = |name: &str| keywords.get(name).and_then(Value::as_u64);
        if let Some(max) = limit("maxProperties").filter(|max| members.len() as u64 > *max) {
            return self.add(path, format!("must have at most {max} members"));
        }
        if let Some(min) = limit("minProperties").filter(|min| (members.len() as u64) < *min) {
            self.add(path, format!("must have at least {min} members"));
        }
        let known = keywords.get("properties").and_then(Value::as_object);
        for (name, value) in members {
            if let Some(schema) = known.and_then(|known| known.get(name)) {
                self.value(schema, value, &below(name), depth);
                continue;
            }
            match keywords.get("additionalProperties") {
                Some(Value::Bool(false)) => self.add(&below(name), "there is no such field".to_owned()),
                Some(schema @ Value::Object(_)) => self.value(schema, value, &below(name), depth),
                _ => {}
            }
        }
    }
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn words(kinds: &[&str]) -> String {
    let kinds: Vec<&str> = kinds
        .iter()
        .map(|kind| match *kind {
            "null" => "null",
            "boolean" => "true or false",
            "integer" => "a whole number",
            "number" => "a number",
            "string" => "a string",
            "array" => "a list",
            _ => "an object",
        })
        .collect();
    kinds.join(" or ")
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
