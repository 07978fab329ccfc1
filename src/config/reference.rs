//! The configuration's references, made from its types: the JSON Schema and the page for people.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::bounds::at;
use super::{Config, ENVIRONMENT_PREFIX};

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Where it stands, such as `http.max_body_bytes`, `providers.<name>.base_url` or `auth.issuers[].issuer`.
    pub path: String,
    /// What it takes.
    pub kind: String,
    /// What counts if it is left out; `None` if nothing does.
    pub default: Option<Value>,
    /// Whether it cannot be left out.
    pub required: bool,
    /// Its schema, references resolved.
    pub schema: Value,
    /// What it is for.
    pub description: String,
}

impl Parameter {
    /// The variable that sets it for a deployment; items of lists have none, as lists are given whole.
    pub fn environment(&self) -> Option<String> {
        let name = self.path.replace('.', "__").to_ascii_uppercase();
        (!self.path.contains("[]")).then(|| format!("{ENVIRONMENT_PREFIX}{name}"))
    }

    /// The least and the most of it, with what is counted.
    fn bounds(&self) -> Option<String> {
        let units = [
            ("minimum", "maximum", ""),
            ("minItems", "maxItems", " items"),
            ("minLength", "maxLength", " characters"),
            ("minProperties", "maxProperties", " entries"),
        ];
        units.iter().find_map(|(least, most, unit)| {
            let bound = |name: &str| self.schema.get(name).and_then(Value::as_u64);
            Some(format!("{} to {}{unit}", grouped(bound(least)?), grouped(bound(most)?)))
        })
    }
}

/// The JSON Schema of a configuration (draft 2020-12).
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Config).to_value();
    if let Some(members) = schema.as_object_mut() {
        members.insert("title".to_owned(), "Configuration of the LLM gateway".into());
    }
    schema
}

/// Every parameter, in the order of the sections and of their fields.
pub fn parameters() -> Vec<Parameter> {
    let schema = schema();
    let mut walk = Walk { definitions: schema.get("$defs").cloned().unwrap_or_default(), found: Vec::new() };
    walk.object("", &schema);
    walk.found
}

struct Walk {
    definitions: Value,
    found: Vec<Parameter>,
}

impl Walk {
    /// A schema without references: what the place says goes above what the type says.
    fn resolved(&self, schema: &Value) -> Value {
        let own = schema.as_object().cloned().unwrap_or_default();
        let optional = own.get("anyOf").and_then(Value::as_array).and_then(|options| options.first());
        let referred = own
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| self.definitions.get(reference.rsplit('/').next().unwrap_or_default()));
        let Some(base) = referred.or(optional) else { return schema.clone() };
        let Value::Object(mut resolved) = self.resolved(base) else { return schema.clone() };
        resolved.extend(own.into_iter().filter(|(name, _)| name != "$ref" && name != "anyOf"));
        Value::Object(resolved)
    }

    fn object(&mut self, path: &str, schema: &Value) {
        let none = Map::new();
        let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        for (name, property) in schema.get("properties").and_then(Value::as_object).unwrap_or(&none) {
            let property = self.resolved(property);
            self.value(&at(path, name), &property, required.iter().any(|it| it == name));
        }
    }

    fn value(&mut self, path: &str, schema: &Value, required: bool) {
        if schema.get("properties").is_some() {
            self.object(path, schema);
            return;
        }
        let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let entries = schema.get("additionalProperties").map(|entries| self.resolved(entries));
        let items = schema.get("items").map(|items| self.resolved(items));
        self.found.push(Parameter {
            path: path.to_owned(),
            kind: self.kind(schema),
            default: schema.get("default").cloned(),
            required,
            schema: schema.clone(),
            description: text("description").replace('\n', " "),
        });
        match (entries, items) {
            (Some(entries), _) if entries.get("properties").is_some() => self.object(&at(path, "<name>"), &entries),
            (_, Some(items)) if items.get("properties").is_some() => self.object(&format!("{path}[]"), &items),
            _ => {}
        }
    }

    fn kind(&self, schema: &Value) -> String {
        let inner = |name: &str| schema.get(name).map(|inner| self.kind(&self.resolved(inner)));
        let kind = match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
            kind => kind.and_then(Value::as_str),
        };
        match kind {
            _ if !choices(schema).is_empty() => {
                let names: Vec<String> = choices(schema).iter().map(|(name, _)| format!("`{name}`")).collect();
                names.join(", ")
            }
            Some("integer") => "whole number".to_owned(),
            Some("boolean") => "`true`, `false`".to_owned(),
            Some("string") if schema.get("pattern").is_some() => "decimal in a string".to_owned(),
            Some("string") => "text".to_owned(),
            Some("array") => format!("list of {}", plural(inner("items"))),
            Some("object") if schema.get("properties").is_some() => "object".to_owned(),
            Some("object") => format!("map of {}", plural(inner("additionalProperties"))),
            _ => "any JSON".to_owned(),
        }
    }
}

fn plural(kind: Option<String>) -> String {
    match kind.as_deref() {
        Some("text") => "texts".to_owned(),
        Some("object") => "objects".to_owned(),
        Some("any JSON") | None => "JSON values".to_owned(),
        Some(kind) => kind.to_owned(),
    }
}

/// The words that an enumeration takes, with what each means.
fn choices(schema: &Value) -> Vec<(String, String)> {
    let documented = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    documented
        .filter_map(|option| {
            let description = option.get("description").and_then(Value::as_str).unwrap_or_default();
            Some((option.get("const")?.as_str()?.to_owned(), description.to_owned()))
        })
        .collect()
}

/// A number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len().checked_rem(3).unwrap_or(0);
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && nth.checked_rem(3) == Some(first) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const INTRODUCTION: &str = "# Configuration

*This page is generated from the code (`gatewayctl config docs`), and so is `config/schema.json`, its JSON Schema.*

A configuration is a TOML or JSON document. Everything has a default unless it is said to be required; bounds are
inclusive. What counts is made up of layers, the later above the earlier:

1. the defaults below,
2. the environment variables of the deployment,
3. the published version,
4. what an API key overrides (`timeouts`, `records`, `log_successes`),
5. what a request says in its headers, where the configuration allows it (`x-gateway-timeout-ms`).

**Environment variables** are named `GATEWAY__` and the path of the parameter, with two underscores for each point; upper
and lower case count the same. In the place of `<NAME>` stands the name of the entry with `_` for everything but letters
and digits: `GATEWAY__PROVIDERS__MY_PROVIDER__BASE_URL` means the published provider whose name is the same when written
like that (`my-provider`, `My.Provider`), or else a new one called `my-provider`. The value is JSON, or simply text where
text is expected; lists and whole sections are given as JSON. A variable that is of no use is logged, shown by
`GET /admin/v1/config/effective`, and ignored.

Check a file with `gatewayctl config check FILE`: it tells everything that is wrong at once, each with its path.
";

/// The page for people, as Markdown.
pub fn page() -> String {
    let parameters = parameters();
    let schema = schema();
    let definitions = schema.get("$defs").cloned().unwrap_or_default();
    let walk = Walk { definitions, found: Vec::new() };
    let mut page = INTRODUCTION.to_owned();
    let none = Map::new();
    for (section, place) in schema.get("properties").and_then(Value::as_object).unwrap_or(&none) {
        let place = walk.resolved(place);
        let about = place.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
        let _infallible = write!(page, "\n## `{section}`\n\n{about}\n\n");
        page.push_str("| parameter | takes | default | bounds | what it is | variable |\n|---|---|---|---|---|---|\n");
        let inside = |path: &str| {
            path.strip_prefix(section.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        for parameter in parameters.iter().filter(|parameter| inside(&parameter.path)) {
            page.push_str(&row(parameter));
        }
    }
    page
}

fn row(parameter: &Parameter) -> String {
    let default = match &parameter.default {
        _ if parameter.required => "required".to_owned(),
        None | Some(Value::Null) => String::new(),
        Some(Value::Number(number)) => number.as_u64().map_or_else(|| number.to_string(), grouped),
        Some(value) => format!("`{value}`"),
    };
    let mut description = parameter.description.clone();
    for (name, meaning) in choices(&parameter.schema).iter().filter(|(_, meaning)| !meaning.is_empty()) {
        let _infallible = write!(description, " `{name}`: {}", meaning.replace('\n', " "));
    }
    let variable = parameter.environment().map(|name| format!("`{name}`")).unwrap_or_default();
    let cells = [
        format!("`{}`", parameter.path),
        parameter.kind.clone(),
        default,
        parameter.bounds().unwrap_or_default(),
        description,
        variable,
    ];
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}
