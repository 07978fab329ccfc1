//! JSON Schemas as far as a provider takes them: what it would refuse is said in other words, moved into the
//! description, or left out. What it is not known to refuse stays.

use serde_json::{Map, Value, json};

/// Which schemas a provider takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subset {
    /// Gemini's `Schema`, after OpenAPI 3.0: models before 2.5, and `parameters` of a function.
    OpenApi,
    /// Gemini's `responseJsonSchema` and `parametersJsonSchema`.
    GeminiJson,
    /// Anthropic's `output_config.format`.
    AnthropicOutput,
    /// Moonshot's tools.
    Moonshot,
    /// xAI's tools: anything but `additionalProperties: false`.
    XaiTools,
    /// Anything but references.
    InlineRefs,
}

/// A schema that cannot be made to fit. Pointers are JSON pointers into it as it came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaFault {
    /// A reference leads back to itself.
    #[error("{pointer}: the model's provider takes no recursive schemas; limit the nesting and write each level out")]
    Recursive {
        /// Where the reference stands.
        pointer: String,
    },
    /// A reference leads nowhere, or out of the schema.
    #[error("{pointer}: \"$ref\" must lead to a place in the same schema, such as \"#/$defs/name\"")]
    Unresolved {
        /// Where the reference stands.
        pointer: String,
    },
    /// Written out without references, or by itself, it is too large or nested too deeply.
    #[error("{pointer}: the schema is too large for the model's provider, which takes no references; make it smaller")]
    TooLarge {
        /// Where it became so.
        pointer: String,
    },
}

/// How much may be written out for references, roughly in bytes.
const MAX_WRITTEN_OUT: usize = 1 << 20;

/// Nesting of schemas, references written out, at most.
const MAX_DEPTH: usize = 100;

/// Keywords whose value is one schema.
const ONE: &[&str] = &[
    "items",
    "additionalProperties",
    "contains",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
    "additionalItems",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords whose value is a list of schemas.
const LIST: &[&str] = &["anyOf", "oneOf", "allOf", "prefixItems", "items"];

/// Keywords whose value names schemas.
const NAMED: &[&str] = &["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Restrictions of a value that a description can tell where a keyword may not.
const RESTRICTIONS: &[&str] = &[
    "const",
    "enum",
    "format",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
];

const OPEN_API: &[&str] = &[
    "type",
    "format",
    "description",
    "nullable",
    "enum",
    "items",
    "minItems",
    "maxItems",
    "properties",
    "required",
    "minProperties",
    "maxProperties",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "anyOf",
    "propertyOrdering",
];

const GEMINI_JSON: &[&str] = &[
    "$id",
    "$defs",
    "$ref",
    "$anchor",
    "type",
    "format",
    "title",
    "description",
    "enum",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "anyOf",
    "properties",
    "additionalProperties",
    "required",
    "propertyOrdering",
];

const ANTHROPIC: &[&str] = &[
    "type",
    "title",
    "description",
    "default",
    "format",
    "enum",
    "const",
    "items",
    "minItems",
    "properties",
    "required",
    "additionalProperties",
    "anyOf",
];

const ANTHROPIC_FORMATS: &[&str] =
    &["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];

const OPEN_API_FORMATS: &[&str] = &["float", "double", "int32", "int64", "enum", "date-time"];

impl Subset {
    /// The keywords that may stay; `None` where all may that are not [`Self::dropped`].
    fn kept(self) -> Option<&'static [&'static str]> {
        match self {
            Self::OpenApi => Some(OPEN_API),
            Self::GeminiJson => Some(GEMINI_JSON),
            Self::AnthropicOutput => Some(ANTHROPIC),
            Self::Moonshot | Self::XaiTools | Self::InlineRefs => None,
        }
    }

    fn dropped(self) -> &'static [&'static str] {
        match self {
            Self::Moonshot => &["$schema"],
            Self::InlineRefs => &["$defs", "definitions"],
            _ => &[],
        }
    }

    fn writes_references_out(self) -> bool {
        matches!(self, Self::OpenApi | Self::AnthropicOutput | Self::InlineRefs)
    }

    /// Whether a restriction may stay as it is.
    fn takes(self, keyword: &str, value: &Value) -> bool {
        let each = |of: fn(&Value) -> bool| value.as_array().is_some_and(|values| values.iter().all(of));
        let is_format = |formats: &[&str]| value.as_str().is_some_and(|format| formats.contains(&format));
        match (self, keyword) {
            (Self::OpenApi, "enum") => each(Value::is_string),
            (Self::OpenApi, "format") => is_format(OPEN_API_FORMATS),
            (Self::GeminiJson, "enum") => each(|value| value.is_string() || value.is_number()),
            (Self::AnthropicOutput, "enum") => each(|value| !value.is_object() && !value.is_array()),
            (Self::AnthropicOutput, "const") => !value.is_object() && !value.is_array(),
            (Self::AnthropicOutput, "format") => is_format(ANTHROPIC_FORMATS),
            (Self::AnthropicOutput, "additionalProperties") => *value == Value::Bool(false),
            (Self::AnthropicOutput, "minItems") => matches!(value.as_u64(), Some(0 | 1)),
            _ => true,
        }
    }
}

/// The schema as this subset has it. A schema that fits comes out as it is.
///
/// # Errors
/// [`SchemaFault`] if references would have to be written out and cannot be.
pub fn fit(schema: &Value, to: Subset) -> Result<Value, SchemaFault> {
    let mut fitting = Fitting { root: schema, to, written_out: 0, open: Vec::new() };
    let mut fitted = fitting.schema(schema, &mut String::new(), 0)?;
    if let (Subset::Moonshot, Some(root)) = (to, fitted.as_object_mut())
        && !["type", "anyOf", "$ref"].iter().any(|keyword| root.contains_key(*keyword))
    {
        root.insert("type".to_owned(), "object".into());
    }
    Ok(fitted)
}

/// What Anthropic bounds in schemas that must be followed exactly: properties that may be left out, and places of several
/// types. <https://platform.claude.com/docs/en/build-with-claude/structured-outputs>
const MAX_OPTIONAL: usize = 24;
const MAX_UNIONS: usize = 16;

/// Whether Claude can be held to a schema. It knows neither objects with members of any name, nor recursion, and no
/// more than so many alternatives: what is then left of the schema would be another.
pub fn claude_can_follow(schema: &Value) -> bool {
    let (mut optional, mut unions) = (0_usize, 0_usize);
    let is_closed = is_closed(schema, 0, &mut |members| {
        let properties = members.get("properties").and_then(Value::as_object).map_or(0, Map::len);
        let required = members.get("required").and_then(Value::as_array).map_or(0, Vec::len);
        optional = optional.saturating_add(properties.saturating_sub(required));
        let is_union = members.get("type").is_some_and(Value::is_array)
            || ["anyOf", "oneOf"].iter().any(|keyword| members.contains_key(*keyword));
        unions = unions.saturating_add(usize::from(is_union));
    });
    is_closed && optional <= MAX_OPTIONAL && unions <= MAX_UNIONS && fit(schema, Subset::AnthropicOutput).is_ok()
}

/// Whether no object in a schema is a map. Shows every schema within.
fn is_closed(schema: &Value, depth: usize, show: &mut dyn FnMut(&Map<String, Value>)) -> bool {
    let Some(members) = schema.as_object().filter(|_| depth <= MAX_DEPTH) else { return depth <= MAX_DEPTH };
    show(members);
    let more = members.get("additionalProperties");
    let has_properties = members.get("properties").and_then(Value::as_object).is_some_and(|named| !named.is_empty());
    let is_object = is_type(members, "object") || members.get("type").is_none() && more.is_some();
    let is_map = more.is_some_and(Value::is_object)
        || members.contains_key("patternProperties")
        || (is_object && !has_properties && more != Some(&Value::Bool(false)) && !alternates(members));
    !is_map
        && members.iter().all(|(keyword, value)| {
            let name = keyword.as_str();
            let mut each = |value: &Value| is_closed(value, depth.saturating_add(1), show);
            match value {
                Value::Object(named) if NAMED.contains(&name) => named.values().all(each),
                Value::Array(list) if LIST.contains(&name) => list.iter().all(each),
                Value::Object(_) if ONE.contains(&name) => each(value),
                _ => true,
            }
        })
}

/// Whether a schema leaves to others what its objects have.
fn alternates(members: &Map<String, Value>) -> bool {
    ["$ref", "anyOf", "oneOf", "allOf"].iter().any(|keyword| members.contains_key(*keyword))
}

struct Fitting<'a> {
    root: &'a Value,
    to: Subset,
    written_out: usize,
    /// The references that are being written out.
    open: Vec<String>,
}

impl Fitting<'_> {
    fn schema(&mut self, schema: &Value, at: &mut String, depth: usize) -> Result<Value, SchemaFault> {
        if depth > MAX_DEPTH {
            return Err(SchemaFault::TooLarge { pointer: pointer(at) });
        }
        let Value::Object(members) = schema else {
            // `true` and `false`: anything, and nothing, which only some can say.
            return Ok(if self.to.kept().is_some() { json!({}) } else { schema.clone() });
        };
        let Some(Value::String(reference)) = members.get("$ref") else { return self.members(members, at, depth) };
        if self.to.writes_references_out() {
            let target = self.target(reference, members, at)?;
            self.open.push(reference.clone());
            let fitted = self.schema(&Value::Object(target), at, depth.saturating_add(1));
            self.open.pop();
            return fitted;
        }
        if self.to != Subset::GeminiJson {
            return self.members(members, at, depth);
        }
        // Beside a reference Gemini takes nothing else.
        let mut beside = members.clone();
        rename(&mut beside, "definitions", "$defs");
        let mut fitted = self.only(&beside, at, depth, Some(&["$id", "$anchor", "$defs"]))?;
        let reference = match reference.strip_prefix("#/definitions/") {
            Some(name) => format!("#/$defs/{name}"),
            None => reference.clone(),
        };
        fitted.insert("$ref".to_owned(), reference.into());
        Ok(Value::Object(fitted))
    }

    /// The schema with its keywords fitted, and what could not stay told in its description.
    fn members(&mut self, members: &Map<String, Value>, at: &mut String, depth: usize) -> Result<Value, SchemaFault> {
        let plain = match self.to {
            Subset::OpenApi | Subset::GeminiJson | Subset::AnthropicOutput => Some(self.plain(members, at, 0)?),
            Subset::Moonshot => Some(moonshot(members.clone())),
            Subset::XaiTools | Subset::InlineRefs => None,
        };
        let members = plain.as_ref().unwrap_or(members);
        let mut fitted = self.only(members, at, depth, self.to.kept())?;
        if self.to.kept().is_some() {
            tell(members, &mut fitted);
        }
        match self.to {
            Subset::OpenApi => open_api(&mut fitted),
            Subset::AnthropicOutput if fitted.contains_key("properties") || is_type(&fitted, "object") => {
                fitted.insert("additionalProperties".to_owned(), false.into());
            }
            Subset::XaiTools if fitted.get("additionalProperties") == Some(&Value::Bool(false)) => {
                fitted.shift_remove("additionalProperties");
            }
            _ => {}
        }
        Ok(Value::Object(fitted))
    }

    /// The keywords that may stay, with the schemas in them fitted.
    fn only(
        &mut self,
        members: &Map<String, Value>,
        at: &mut String,
        depth: usize,
        kept: Option<&[&str]>,
    ) -> Result<Map<String, Value>, SchemaFault> {
        let mut fitted = Map::new();
        for (keyword, value) in members {
            let name = keyword.as_str();
            let stays = kept.is_none_or(|kept| kept.contains(&name)) && !self.to.dropped().contains(&name);
            if !stays || !self.to.takes(name, value) {
                continue;
            }
            let fits = |own: &[&str]| own.contains(&name);
            let value = at_step(at, name, |at| match value {
                Value::Object(named) if fits(NAMED) => {
                    let schemas = named.iter().map(|(name, schema)| {
                        let schema = at_step(at, name, |at| self.schema(schema, at, depth.saturating_add(1)))?;
                        Ok((name.clone(), schema))
                    });
                    schemas.collect::<Result<_, _>>().map(Value::Object)
                }
                Value::Array(list) if fits(LIST) => {
                    let schemas = list.iter().enumerate().map(|(nth, schema)| {
                        at_step(at, &nth.to_string(), |at| self.schema(schema, at, depth.saturating_add(1)))
                    });
                    schemas.collect::<Result<_, _>>().map(Value::Array)
                }
                Value::Bool(_) if name == "additionalProperties" => Ok(value.clone()),
                Value::Object(_) | Value::Bool(_) if fits(ONE) => self.schema(value, at, depth.saturating_add(1)),
                other => Ok(other.clone()),
            })?;
            fitted.insert(keyword.clone(), value);
        }
        Ok(fitted)
    }

    /// What the subset has no keyword for, in keywords that it has. The schemas within are not fitted yet. `merged` is
    /// how many `allOf` this one stands in.
    fn plain(
        &mut self,
        members: &Map<String, Value>,
        at: &mut String,
        merged: usize,
    ) -> Result<Map<String, Value>, SchemaFault> {
        let mut plain = members.clone();
        rename(&mut plain, "oneOf", "anyOf");
        if let Some(Value::Array(parts)) = plain.shift_remove("allOf") {
            if merged > MAX_DEPTH {
                return Err(SchemaFault::TooLarge { pointer: pointer(at) });
            }
            for part in parts.iter().filter_map(Value::as_object) {
                // Nothing may stand beside a reference, so it cannot be merged as one.
                let part = match part.get("$ref").and_then(Value::as_str) {
                    Some(reference) => {
                        let target = self.target(reference, part, at)?;
                        self.open.push(reference.to_owned());
                        let part = self.plain(&target, at, merged.saturating_add(1));
                        self.open.pop();
                        part?
                    }
                    None => self.plain(part, at, merged.saturating_add(1))?,
                };
                for (keyword, value) in part {
                    merge(&mut plain, keyword, value);
                }
            }
        }
        if plain.get("items").is_some_and(Value::is_array) {
            rename(&mut plain, "items", "prefixItems");
        }
        if self.to != Subset::GeminiJson
            && let Some(Value::Array(tuple)) = plain.shift_remove("prefixItems")
        {
            let count = Value::from(tuple.len());
            plain.insert("items".to_owned(), json!({ "anyOf": tuple }));
            plain.entry("minItems").or_insert(count.clone());
            plain.entry("maxItems").or_insert(count);
        }
        if self.to == Subset::AnthropicOutput {
            return Ok(plain);
        }
        if self.to == Subset::GeminiJson {
            rename(&mut plain, "definitions", "$defs");
        }
        if let Some(value) = plain.get("const") {
            let values = Value::Array(vec![value.clone()]);
            if self.to.takes("enum", &values) {
                plain.shift_remove("const");
                plain.entry("enum").or_insert(values);
            }
        }
        Ok(plain)
    }

    /// What a reference leads to, with what stands beside it.
    fn target(
        &mut self,
        reference: &str,
        beside: &Map<String, Value>,
        at: &str,
    ) -> Result<Map<String, Value>, SchemaFault> {
        if matches!(reference, "#" | "#/") || self.open.iter().any(|open| open == reference) {
            return Err(SchemaFault::Recursive { pointer: pointer(at) });
        }
        // In a URI a pointer may be percent-encoded.
        let path = reference.strip_prefix('#').map(|path| path.replace("%24", "$").replace("%20", " "));
        let target = path.and_then(|path| self.root.pointer(&path));
        self.written_out = self.written_out.saturating_add(target.map_or(0, weight));
        if self.written_out > MAX_WRITTEN_OUT {
            return Err(SchemaFault::TooLarge { pointer: pointer(at) });
        }
        let mut target = match target {
            Some(Value::Object(target)) => target.clone(),
            Some(Value::Bool(true)) => Map::new(),
            _ => return Err(SchemaFault::Unresolved { pointer: pointer(at) }),
        };
        for (keyword, value) in beside.iter().filter(|(keyword, _)| *keyword != "$ref") {
            target.insert(keyword.clone(), value.clone());
        }
        Ok(target)
    }
}

/// Moonshot wants the types of alternatives in the alternatives, and tuples by their newer name.
fn moonshot(mut members: Map<String, Value>) -> Map<String, Value> {
    if members.get("items").is_some_and(Value::is_array) {
        rename(&mut members, "items", "prefixItems");
    }
    if members.get("anyOf").is_some_and(Value::is_array)
        && let Some(kind) = members.shift_remove("type")
    {
        for one in members.get_mut("anyOf").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(one) = one.as_object_mut().filter(|one| !one.contains_key("$ref") && !one.contains_key("anyOf"))
            {
                one.entry("type").or_insert_with(|| kind.clone());
            }
        }
    }
    members
}

/// Gemini's schemas have one type, `nullable`, items in every array and in nothing else, and require only what there is.
fn open_api(schema: &mut Map<String, Value>) {
    let mut nullable = false;
    if let Some(Value::Array(kinds)) = schema.get("type").cloned() {
        let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
        nullable = kinds.contains(&"null");
        let others: Vec<&str> = kinds.into_iter().filter(|kind| *kind != "null").collect();
        schema.shift_remove("type");
        match others.as_slice() {
            [] => {}
            [one] => _ = schema.insert("type".to_owned(), (*one).into()),
            many if !schema.contains_key("anyOf") => {
                let alternatives = many.iter().map(|kind| Value::Object(alternative(schema, kind))).collect();
                for keyword in [&["items", "minItems", "maxItems"][..], &["properties", "required"]].concat() {
                    schema.shift_remove(keyword);
                }
                schema.insert("anyOf".to_owned(), Value::Array(alternatives));
            }
            _ => {}
        }
    }
    if let Some(Value::Array(mut alternatives)) = schema.shift_remove("anyOf") {
        let is_null = |one: &Value| one.as_object().is_some_and(|one| is_type(one, "null"));
        nullable |= alternatives.iter().any(is_null);
        alternatives.retain(|one| !is_null(one));
        // An alternative that takes anything makes the others idle.
        let restricts = alternatives.iter().all(|one| one.as_object().is_some_and(|one| !one.is_empty()));
        match alternatives.as_mut_slice() {
            [Value::Object(only)] => {
                for (keyword, value) in std::mem::take(only) {
                    schema.entry(keyword).or_insert(value);
                }
            }
            [_, _, ..] if restricts => _ = schema.insert("anyOf".to_owned(), Value::Array(alternatives)),
            _ => {}
        }
    }
    if nullable {
        schema.insert("nullable".to_owned(), true.into());
    }
    if !schema.contains_key("type") && !schema.contains_key("anyOf") {
        let kinds = [("enum", "string"), ("properties", "object"), ("items", "array")];
        if let Some((_, kind)) = kinds.iter().find(|(keyword, _)| schema.contains_key(*keyword)) {
            schema.insert("type".to_owned(), (*kind).into());
        }
    }
    if is_type(schema, "array") {
        schema.entry("items").or_insert_with(|| json!({"type": "string"}));
    } else {
        for keyword in ["items", "minItems", "maxItems"] {
            schema.shift_remove(keyword);
        }
    }
    if let Some(required) = schema.shift_remove("required") {
        let named = schema.get("properties").and_then(Value::as_object);
        let is_there = |name: &&Value| name.as_str().is_some_and(|name| named.is_some_and(|it| it.contains_key(name)));
        let there: Vec<Value> = required.as_array().into_iter().flatten().filter(is_there).cloned().collect();
        if !there.is_empty() {
            schema.insert("required".to_owned(), Value::Array(there));
        }
    }
}

/// One of several types that a schema has, with what the schema says of this type alone.
fn alternative(schema: &Map<String, Value>, kind: &str) -> Map<String, Value> {
    let own: &[&str] = match kind {
        "array" => &["items", "minItems", "maxItems"],
        "object" => &["properties", "required"],
        _ => &[],
    };
    let mut one = Map::from_iter([("type".to_owned(), Value::from(kind))]);
    one.extend(own.iter().filter_map(|keyword| Some(((*keyword).to_owned(), schema.get(*keyword)?.clone()))));
    open_api(&mut one);
    one
}

/// Puts the restrictions that had to go into the description.
fn tell(members: &Map<String, Value>, fitted: &mut Map<String, Value>) {
    let gone = RESTRICTIONS.iter().filter(|keyword| !fitted.contains_key(**keyword));
    let told: Vec<String> =
        gone.filter_map(|keyword| members.get(*keyword).map(|value| format!("{keyword}: {value}"))).collect();
    if !told.is_empty() {
        let told = told.join(", ");
        let description = match fitted.get("description").and_then(Value::as_str) {
            Some(description) => format!("{description} ({told})"),
            None => told,
        };
        fitted.insert("description".to_owned(), description.into());
    }
}

fn is_type(schema: &Map<String, Value>, kind: &str) -> bool {
    schema.get("type").and_then(Value::as_str) == Some(kind)
}

/// Gives a keyword another name; what already has this name wins.
fn rename(members: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = members.shift_remove(from) {
        merge(members, to.to_owned(), value);
    }
}

/// Adds a keyword: names and schemas join those that are there, anything else gives way to what is there.
fn merge(members: &mut Map<String, Value>, keyword: String, value: Value) {
    match (members.get_mut(&keyword), value) {
        (None, value) => _ = members.insert(keyword, value),
        (Some(Value::Object(known)), Value::Object(more)) if NAMED.contains(&keyword.as_str()) => {
            for (name, schema) in more {
                known.entry(name).or_insert(schema);
            }
        }
        (Some(Value::Array(known)), Value::Array(more)) if keyword == "required" => {
            known.extend(more.into_iter().filter(|name| !known.contains(name)).collect::<Vec<_>>());
        }
        _ => {}
    }
}

/// Does something one step further down.
fn at_step<T>(at: &mut String, name: &str, act: impl FnOnce(&mut String) -> T) -> T {
    let before = at.len();
    at.push('/');
    at.push_str(&name.replace('~', "~0").replace('/', "~1"));
    let done = act(at);
    at.truncate(before);
    done
}

/// How large a value is, roughly in bytes.
fn weight(value: &Value) -> usize {
    let within = match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(weight).fold(0, usize::saturating_add),
        Value::Object(members) => {
            let each = members.iter().map(|(name, value)| name.len().saturating_add(weight(value)));
            each.fold(0, usize::saturating_add)
        }
        _ => 0,
    };
    within.saturating_add(8)
}

fn pointer(at: &str) -> String {
    format!("#{at}")
}

#[cfg(test)]
mod tests;
