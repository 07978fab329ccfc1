use super::*;
use serde_json::json;

fn check(schema: Value, value: Value) -> Vec<String> {
    let description = Description {
        root: json!({"components": {"schemas": {"T": schema, "Name": {"type": "string", "maxLength": 3}}}}),
    };
    match description.check_named("T", &value) {
        Ok(()) => Vec::new(),
        Err(problem) => problem.fields.into_iter().map(|field| format!("{}: {}", field.path, field.message)).collect(),
    }
}

#[test]
fn every_problem_is_told_at_once_with_its_path() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"$ref": "#/components/schemas/Name"},
            "count": {"type": "integer", "minimum": 1, "maximum": 9},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
            "kind": {"enum": ["a", "b"]},
            "maybe": {"anyOf": [{"$ref": "#/components/schemas/Name"}, {"type": "null"}]},
        },
        "required": ["name"],
        "additionalProperties": false,
    });
    assert_eq!(
        check(schema.clone(), json!({"name": "abc", "count": 9, "tags": ["x"], "kind": "a", "maybe": null})),
        [""; 0]
    );
    assert_eq!(
        check(schema, json!({"count": 10, "tags": ["x", 5], "kind": "c", "maybe": "long", "other": 1})),
        [
            "name: is required",
            "count: must be at most 9",
            "tags[1]: must be a string, but is a number",
            "kind: must be one of \"a\", \"b\"",
            "maybe: must have at most 3 characters",
            "other: there is no such field",
        ]
    );
}

#[test]
fn free_members_are_checked_by_their_own_schema() {
    let schema =
        json!({"type": "object", "additionalProperties": {"type": "string", "maxLength": 1}, "maxProperties": 2});
    assert_eq!(check(schema.clone(), json!({"a": "x", "b": "yy"})), ["b: must have at most 1 characters"]);
    assert_eq!(check(schema, json!({"a": "x", "b": "y", "c": "z"})), [": must have at most 2 members"]);
}

#[test]
fn a_query_is_read_as_declared() {
    let description = Description {
        root: json!({"paths": {"/p": {"get": {"parameters": [
            {"name": "limit", "in": "query", "schema": {"type": ["integer", "null"], "maximum": 5}},
            {"name": "open", "in": "query", "schema": {"type": "boolean"}},
            {"name": "model", "in": "query", "schema": {"type": "string"}},
        ]}}}}),
    };
    let read = |query: &str| description.read_query("get", "/p", query);
    assert_eq!(read("limit=5&open=true&model=12%2Fx").unwrap(), json!({"limit": 5, "open": true, "model": "12/x"}));
    assert_eq!(read("").unwrap(), json!({}));
    for (query, path) in
        [("limit=6", "limit"), ("limit=-1", "limit"), ("open=1", "open"), ("x=1", "x"), ("model=a&model=b", "model")]
    {
        assert_eq!(read(query).unwrap_err().fields[0].path, path, "{query}");
    }
}

#[test]
fn the_description_uses_nothing_that_is_not_checked() {
    fn walk(schema: &Value, path: &str) {
        let Value::Object(keywords) = schema else { return };
        for (name, inner) in keywords {
            assert!(
                KEYWORDS.contains(&name.as_str()) || ANNOTATIONS.contains(&name.as_str()),
                "{path}: the keyword `{name}` is not checked"
            );
            match (name.as_str(), inner) {
                ("properties", Value::Object(members)) => {
                    members.iter().for_each(|(name, inner)| walk(inner, &format!("{path}.{name}")))
                }
                ("items" | "additionalProperties", inner) => walk(inner, path),
                ("anyOf" | "oneOf" | "allOf", Value::Array(choices)) => {
                    choices.iter().for_each(|inner| walk(inner, path))
                }
                _ => {}
            }
        }
    }
    let description = Description::load().unwrap();
    let schemas = description.document().pointer("/components/schemas").unwrap().as_object().unwrap();
    assert!(schemas.len() > 4 * 10);
    schemas.iter().for_each(|(name, schema)| walk(schema, name));
}
