//! Generates the API's description (OpenAPI 3.1) from the table of operations and the types. It is not part of the
//! Worker, which carries the generated document.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::operations::{Access, OPERATIONS, Operation, Reply};
use super::types::PageQuery;
use crate::error::FieldProblem;

/// The document.
pub fn document() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    let mut patches = Map::new();
    generator.subschema_for::<FieldProblem>();
    for operation in OPERATIONS {
        let described = describe(operation, &mut generator, &mut patches);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Value::Object(path) = path {
            path.insert(operation.method.method().as_str().to_ascii_lowercase(), described);
        }
    }
    let mut schemas: Map<String, Value> = generator.take_definitions(true);
    schemas.extend(patches);
    for operation in OPERATIONS.iter().filter(|operation| !operation.merge) {
        close(&mut schemas, body_name(operation, &paths));
    }
    for operation in OPERATIONS.iter().filter(|operation| operation.merge) {
        let merged = paths.get(operation.path).and_then(|path| {
            path.get(operation.method.method().as_str().to_ascii_lowercase())?
                .get("x-merged-schema")?
                .as_str()
                .map(str::to_owned)
        });
        if let Some(name) = merged {
            schemas.insert(format!("{name}Patch"), patch_of(schemas.get(&name)));
        }
    }
    for schema in schemas.values_mut() {
        tidy(schema);
    }
    schemas.insert("Problem".to_owned(), problem_schema());
    for path in paths.values_mut() {
        tidy(path);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "LLM gateway: admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Manages accounts, users, keys, providers, models, prices, limits and the configuration of the gateway, and tells what happened.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {
                "type": "http",
                "scheme": "bearer",
                "description": "An access token of a sign-in, a service token, or a token of a configured issuer. API keys of the data plane do not work here.",
            }},
            "responses": {"Problem": {
                "description": "What was wrong, where, and what to do (RFC 9457)",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }},
        },
    })
}

fn describe(
    operation: &Operation,
    generator: &mut schemars::SchemaGenerator,
    patches: &mut Map<String, Value>,
) -> Value {
    let mut parameters: Vec<Value> = operation
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1, "maxLength": 256}}))
        .collect();
    if let Some(query) = operation.schemas.query {
        parameters.extend(query_parameters(query(generator), generator));
    }
    if operation.paged {
        parameters.extend(query_parameters(generator.subschema_for::<PageQuery>(), generator));
    }
    if operation.method.writes() {
        parameters.push(json!({
            "name": "idempotency-key", "in": "header", "required": false,
            "schema": {"type": "string", "minLength": 1, "maxLength": 128},
            "description": "Makes the request safe to repeat: the first answer is given again.",
        }));
        if operation.versioned {
            parameters.push(json!({
                "name": "if-match", "in": "header", "required": false,
                "schema": {"type": "string", "maxLength": 128},
                "description": "The ETag of what is to be changed; if it is no longer that, nothing is changed.",
            }));
        }
    }
    let mut described = json!({
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "tags": [tag(operation)],
        "parameters": parameters,
        "responses": responses(operation, generator),
    });
    let (permission, scope) = match operation.access {
        Access::Public => (None, "anybody"),
        Access::SignedIn => (None, "whoever is signed in"),
        Access::Global(permission) => (Some(permission.name()), "globally"),
        Access::Account(permission) => (Some(permission.name()), "in the account, or globally"),
    };
    let Value::Object(members) = &mut described else { return described };
    members.insert("x-permission".to_owned(), json!({"permission": permission, "scope": scope}));
    if operation.access == Access::Public {
        members.insert("security".to_owned(), json!([]));
    }
    if let Some(body) = operation.schemas.body {
        let schema = Value::from(body(generator));
        let (media, schema) = if operation.merge {
            let name = schema
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|target| target.rsplit('/').next())
                .unwrap_or_default();
            members.insert("x-merged-schema".to_owned(), name.into());
            patches.insert(format!("{name}Patch"), Value::Null);
            ("application/merge-patch+json", json!({"$ref": format!("#/components/schemas/{name}Patch")}))
        } else {
            ("application/json", schema)
        };
        members.insert("requestBody".to_owned(), json!({"required": true, "content": {media: {"schema": schema}}}));
    }
    described
}

/// `list_users` for `ListUsers`.
fn operation_id(operation: &Operation) -> String {
    let mut id = String::new();
    for letter in format!("{:?}", operation.op).chars() {
        if letter.is_ascii_uppercase() && !id.is_empty() {
            id.push('_');
        }
        id.push(letter.to_ascii_lowercase());
    }
    id
}

fn tag(operation: &Operation) -> String {
    let mut segments = operation.path.split('/').skip(3);
    let first = segments.next().unwrap_or("api").trim_end_matches(".csv");
    match (first, segments.nth(1)) {
        ("accounts", Some(inner)) => inner.trim_end_matches(".csv").to_owned(),
        _ => first.to_owned(),
    }
}

fn responses(operation: &Operation, generator: &mut schemars::SchemaGenerator) -> Value {
    let mut success = json!({"description": "Done"});
    if let Value::Object(success) = &mut success {
        match (operation.reply, operation.schemas.reply) {
            (Reply::Json, Some(schema)) => {
                success.insert("content".to_owned(), json!({"application/json": {"schema": schema(generator)}}));
            }
            (Reply::Csv, _) => {
                success.insert("content".to_owned(), json!({"text/csv": {"schema": {"type": "string"}}}));
            }
            _ => {}
        }
        if operation.versioned && operation.status != 204 {
            success.insert(
                "headers".to_owned(),
                json!({"etag": {"schema": {"type": "string"}, "description": "Names this state"}}),
            );
        }
    }
    let mut responses = Map::new();
    responses.insert(operation.status.to_string(), success);
    // An address that may not call is refused whatever it calls.
    let mut failures = vec![400, 403, 405, 413, 500, 503];
    if operation.access != Access::Public {
        failures.extend([401, 404]);
    }
    if operation.method.writes() {
        failures.extend([401, 404, 408, 409, 415, 422, 429]);
    }
    if operation.versioned && operation.method.writes() {
        failures.extend([412, 428]);
    }
    failures.sort_unstable();
    failures.dedup();
    for status in failures {
        responses.insert(status.to_string(), json!({"$ref": "#/components/responses/Problem"}));
    }
    Value::Object(responses)
}

fn query_parameters(schema: schemars::Schema, generator: &schemars::SchemaGenerator) -> Vec<Value> {
    let schema = Value::from(schema);
    let name =
        schema.get("$ref").and_then(Value::as_str).and_then(|target| target.rsplit('/').next()).unwrap_or_default();
    let Some(properties) = generator.definitions().get(name).and_then(|schema| schema.get("properties")?.as_object())
    else {
        return Vec::new();
    };
    properties
        .iter()
        .map(|(name, schema)| {
            let mut schema = schema.clone();
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            not_null(&mut schema);
            json!({"name": name, "in": "query", "required": false, "description": description, "schema": schema})
        })
        .collect()
}

/// A parameter is left out, never null.
fn not_null(schema: &mut Value) {
    let Value::Object(keywords) = schema else { return };
    if let Some(Value::Array(kinds)) = keywords.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            keywords.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = keywords.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type") != Some(&json!("null")));
        if let [only] = choices.as_slice() {
            *schema = only.clone();
        }
    }
}

fn body_name(operation: &Operation, paths: &Map<String, Value>) -> Option<String> {
    let method = operation.method.method().as_str().to_ascii_lowercase();
    let schema =
        paths.get(operation.path)?.get(&method)?.pointer("/requestBody/content/application~1json/schema/$ref")?;
    schema.as_str()?.rsplit('/').next().map(str::to_owned)
}

/// Refuses unknown members of what callers send, and of the entries of its lists.
fn close(schemas: &mut Map<String, Value>, name: Option<String>) {
    let Some(Value::Object(schema)) = name.and_then(|name| schemas.get_mut(&name)) else { return };
    let Some(Value::Object(properties)) = schema.get("properties") else { return };
    let entries: Vec<String> = properties
        .values()
        .filter_map(|property| property.pointer("/items/$ref")?.as_str()?.rsplit('/').next().map(str::to_owned))
        .collect();
    schema.entry("additionalProperties").or_insert(Value::Bool(false));
    for entry in entries {
        close(schemas, Some(entry));
    }
}

/// A change: every member may be left out, and null takes it away.
fn patch_of(schema: Option<&Value>) -> Value {
    let mut properties = Map::new();
    for (name, member) in schema.and_then(|schema| schema.get("properties")?.as_object()).into_iter().flatten() {
        let description = member.get("description").cloned();
        let mut member = member.clone();
        if let Value::Object(keywords) = &mut member {
            // What is there counts, not what would be without it.
            keywords.remove("default");
            keywords.remove("description");
        }
        // Members of members may be left out as well, so only the whole is checked, when it has been merged.
        let object = member.get("type") == Some(&json!("object")) || member.get("$ref").is_some();
        let member = if object { json!({}) } else { json!({"anyOf": [member, {"type": "null"}]}) };
        let mut member = member;
        if let (Value::Object(member), Some(description)) = (&mut member, description) {
            member.insert("description".to_owned(), description);
        }
        properties.insert(name.clone(), member);
    }
    json!({
        "type": "object",
        "description": "A change (RFC 7396): what is left out stays, null takes away.",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// Takes out formats that only speak of Rust's types, and null as a bound.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|format| format.starts_with("uint") || format.starts_with("int"))
            {
                members.remove("format");
            }
            let is_integer = match members.get("type") {
                Some(Value::Array(kinds)) => kinds.contains(&json!("integer")),
                kind => kind == Some(&json!("integer")),
            };
            if is_integer && members.get("minimum") == Some(&json!(0)) && !members.contains_key("maximum") {
                // What neither D1 nor JavaScript keeps exact is refused rather than changed.
                members.insert("maximum".to_owned(), json!(super::cursor::MAX_NUMBER));
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "What was wrong (RFC 9457).",
        "properties": {
            "type": {"type": "string", "description": "Names the kind of problem"},
            "title": {"type": "string", "description": "The status in words"},
            "status": {"type": "integer", "description": "The status"},
            "detail": {"type": "string", "description": "What was wrong and what to do"},
            "code": {"type": "string", "description": "A stable word that programs can test"},
            "request_id": {"type": "string", "description": "Names the request in the log"},
            "errors": {"type": "array", "description": "The fields at fault", "items": {"$ref": "#/components/schemas/FieldProblem"}},
        },
        "required": ["type", "title", "status", "detail", "code", "request_id", "errors"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_in_the_repository_is_the_generated_one() {
        let generated = serde_json::to_string(&document()).unwrap();
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/openapi.json");
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&file, &generated).unwrap();
        }
        let same = std::fs::read_to_string(&file).unwrap() == generated;
        assert!(
            same,
            "src/admin/openapi.json is out of date: UPDATE_GENERATED=1 cargo nextest run openapi, then commit it"
        );
    }

    #[test]
    fn every_operation_is_described_with_who_may_call_it() {
        assert!(OPERATIONS.len() >= 60);
        let document = document();
        for operation in OPERATIONS {
            let method = operation.method.method().as_str().to_ascii_lowercase();
            let described = &document["paths"][operation.path][method];
            assert_eq!(described["summary"], operation.summary);
            assert!(described["responses"][operation.status.to_string()].is_object());
            if matches!(operation.access, Access::Account(_)) {
                assert!(operation.path.starts_with("/admin/v1/accounts/{account}"), "{}", operation.path);
            }
        }
    }
}
