use proptest::prelude::*;

use super::*;

const ALL: [Subset; 6] = [
    Subset::OpenApi,
    Subset::GeminiJson,
    Subset::AnthropicOutput,
    Subset::Moonshot,
    Subset::XaiTools,
    Subset::InlineRefs,
];

fn fitted(schema: Value, to: Subset) -> Value {
    fit(&schema, to).unwrap()
}

#[test]
fn a_usual_schema_fits_everywhere_as_it_is_but_for_objects_being_closed_or_open() {
    let schema = |closed: bool| {
        let mut schema = json!({
            "type": "object",
            "description": "A place.",
            "properties": {
                "name": {"type": "string", "description": "as locals say it"},
                "kind": {"type": "string", "enum": ["city", "village"]},
                "near": {"type": "array", "items": {"type": "number"}},
            },
            "required": ["name", "kind"],
        });
        if closed {
            schema["additionalProperties"] = false.into();
        }
        schema
    };
    for to in [Subset::GeminiJson, Subset::AnthropicOutput, Subset::Moonshot, Subset::InlineRefs] {
        assert_eq!(fitted(schema(true), to), schema(true), "{to:?}");
    }
    assert_eq!(fitted(schema(true), Subset::XaiTools), schema(false));
    assert_eq!(fitted(schema(true), Subset::OpenApi), schema(false));
    assert_eq!(fitted(schema(false), Subset::AnthropicOutput), schema(true));
}

#[test]
fn openapi_has_one_type_and_nullable() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "T",
        "type": ["object", "null"],
        "properties": {
            "one": {"type": ["string", "null"], "format": "email", "minLength": 3},
            "two": {"type": ["string", "array"], "items": {"type": "integer"}},
            "three": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "d"},
            "four": {"oneOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
            "five": {"const": "c"},
            "six": {"const": 6, "exclusiveMinimum": 1},
            "seven": {"type": "array"},
            "eight": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]},
            "nine": {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            "ten": {"type": "string", "format": "date-time", "examples": ["x"], "default": "y"},
        },
        "required": ["one", "gone"],
    });
    assert_eq!(
        fitted(schema, Subset::OpenApi),
        json!({
            "properties": {
                "one": {"minLength": 3, "description": "format: \"email\"", "type": "string", "nullable": true},
                "two": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]},
                "three": {"description": "d", "type": "string", "nullable": true},
                "four": {"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": true},
                "five": {"enum": ["c"], "type": "string"},
                "six": {"description": "const: 6, exclusiveMinimum: 1"},
                "seven": {"type": "array", "items": {"type": "string"}},
                "eight": {
                    "type": "array",
                    "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                    "minItems": 2,
                    "maxItems": 2,
                },
                "nine": {"type": "object"},
                "ten": {"type": "string", "format": "date-time"},
            },
            "type": "object",
            "nullable": true,
            "required": ["one"],
        })
    );
}

#[test]
fn gemini_keeps_references_alone() {
    let schema = json!({
        "definitions": {"node": {"type": "object", "properties": {"next": {"$ref": "#/definitions/node", "title": "t"}}}},
        "properties": {"first": {"$ref": "#/definitions/node"}, "n": {"type": "integer", "minimum": 1, "multipleOf": 2}},
        "allOf": [{"properties": {"more": {"const": true}}, "required": ["more"]}, {"required": ["n", "more"]}],
        "additionalProperties": true,
    });
    assert_eq!(
        fitted(schema, Subset::GeminiJson),
        json!({
            "properties": {
                "first": {"$ref": "#/$defs/node"},
                "n": {"type": "integer", "minimum": 1, "description": "multipleOf: 2"},
                "more": {"description": "const: true"},
            },
            "additionalProperties": true,
            "required": ["more", "n"],
            "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
        })
    );
}

#[test]
fn anthropic_is_told_in_words_what_it_has_no_keywords_for() {
    let schema = json!({
        "type": "object",
        "properties": {
            "mail": {"type": "string", "format": "email", "maxLength": 9, "description": "Where to."},
            "tags": {"type": "array", "items": {"type": "string", "format": "color"}, "minItems": 1},
            "pair": {"type": "array", "items": [{"type": "string"}, {"type": "number"}], "minItems": 2},
            "free": {"type": "object", "additionalProperties": {"type": "string"}},
            "base": {"allOf": [{"$ref": "#/$defs/base"}], "oneOf": [{"const": {"a": 1}}]},
        },
        "$defs": {"base": {"type": "object", "properties": {"id": {"$ref": "#/%24defs/id"}}}, "id": {"type": "integer"}},
    });
    assert_eq!(
        fitted(schema, Subset::AnthropicOutput),
        json!({
            "type": "object",
            "properties": {
                "mail": {"type": "string", "format": "email", "description": "Where to. (maxLength: 9)"},
                "tags": {
                    "type": "array",
                    "items": {"type": "string", "description": "format: \"color\""},
                    "minItems": 1,
                },
                "pair": {
                    "type": "array",
                    "items": {"anyOf": [{"type": "string"}, {"type": "number"}]},
                    "description": "minItems: 2, maxItems: 2",
                },
                "free": {"type": "object", "additionalProperties": false},
                "base": {
                    "anyOf": [{"description": "const: {\"a\":1}"}],
                    "type": "object",
                    "properties": {"id": {"type": "integer"}},
                    "additionalProperties": false,
                },
            },
            "additionalProperties": false,
        })
    );
}

#[test]
fn moonshot_wants_types_in_alternatives_and_an_object_at_the_root() {
    let schema = json!({
        "$schema": "s",
        "properties": {
            "a": {"type": "string", "anyOf": [{"enum": ["x"]}, {"type": "null"}, {"$ref": "#/$defs/d"}], "minLength": 1},
            "b": {"items": [{"type": "string"}], "additionalProperties": false},
        },
        "$defs": {"d": {"type": "string"}},
    });
    assert_eq!(
        fitted(schema, Subset::Moonshot),
        json!({
            "properties": {
                "a": {"anyOf": [{"enum": ["x"], "type": "string"}, {"type": "null"}, {"$ref": "#/$defs/d"}], "minLength": 1},
                "b": {"prefixItems": [{"type": "string"}], "additionalProperties": false},
            },
            "$defs": {"d": {"type": "string"}},
            "type": "object",
        })
    );
    let at_root = json!({"type": "object", "anyOf": [{"properties": {}}, {"type": "object"}]});
    let moved = json!({"anyOf": [{"properties": {}, "type": "object"}, {"type": "object"}]});
    assert_eq!(fitted(at_root, Subset::Moonshot), moved);
}

#[test]
fn references_are_written_out_and_those_that_cannot_be_are_told_by_their_place() {
    let schema = json!({
        "properties": {"a": {"$ref": "#/$defs/a~1b", "description": "mine"}, "$ref": {"type": "null"}, "$defs": {}},
        "$defs": {"a/b": {"description": "its", "items": {"$ref": "#/$defs/c"}}, "c": true},
    });
    let expected = json!({
        "properties": {"a": {"description": "mine", "items": {}}, "$ref": {"type": "null"}, "$defs": {}},
    });
    assert_eq!(fitted(schema, Subset::InlineRefs), expected);

    let recursive = |pointer: &str| SchemaFault::Recursive { pointer: pointer.to_owned() };
    let unresolved = |pointer: &str| SchemaFault::Unresolved { pointer: pointer.to_owned() };
    let node = json!({"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}});
    for (schema, fault) in [
        (json!({"$ref": "#"}), recursive("#")),
        (json!({"$defs": {"node": node.clone()}, "$ref": "#/$defs/node"}), recursive("#/properties/next")),
        (
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
            recursive("#"),
        ),
        (
            json!({"properties": {"x/y": {"items": {"$ref": "#/properties/x~1y"}}}}),
            recursive("#/properties/x~1y/items/items"),
        ),
        (json!({"anyOf": [{}, {"$ref": "#/$defs/none"}]}), unresolved("#/anyOf/1")),
        (json!({"$ref": "https://example.com/schema"}), unresolved("#")),
        (json!({"$ref": "#/type", "type": "object"}), unresolved("#")),
    ] {
        for to in [Subset::OpenApi, Subset::AnthropicOutput, Subset::InlineRefs] {
            assert_eq!(fit(&schema, to), Err(fault.clone()), "{to:?}");
        }
        for to in [Subset::GeminiJson, Subset::Moonshot, Subset::XaiTools] {
            assert!(fit(&schema, to).is_ok(), "{to:?}");
        }
    }
    let merged = json!({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"});
    assert_eq!(fit(&merged, Subset::OpenApi), Err(recursive("#")));
    assert!(recursive("#/a").to_string().starts_with("#/a: "));
}

#[test]
fn what_references_can_grow_to_is_bounded() {
    let name = |nth: u32| format!("d{nth}");
    for keyword in ["anyOf", "allOf"] {
        let mut defs = Map::new();
        for nth in 0..40_u32 {
            let next = json!({"$ref": format!("#/$defs/{}", name(nth.saturating_add(1)))});
            defs.insert(name(nth), json!({ keyword: [next.clone(), next] }));
        }
        defs.insert(name(40), json!({"type": "string"}));
        let bomb = json!({"$defs": defs, "$ref": "#/$defs/d0"});
        for to in [Subset::OpenApi, Subset::AnthropicOutput, Subset::InlineRefs] {
            assert!(matches!(fit(&bomb, to), Err(SchemaFault::TooLarge { .. })), "{keyword} {to:?}");
        }
    }
    let long = json!({"$ref": "#/$defs/long"});
    let bomb = json!({"$defs": {"long": {"description": "x".repeat(100_000)}}, "anyOf": vec![long; 100]});
    assert!(matches!(fit(&bomb, Subset::InlineRefs), Err(SchemaFault::TooLarge { .. })));

    let mut deep = json!({});
    for _ in 0..=MAX_DEPTH {
        deep = json!({ "items": deep });
    }
    assert!(matches!(fit(&deep, Subset::Moonshot), Err(SchemaFault::TooLarge { .. })));
    assert!(fit(&deep["items"], Subset::Moonshot).is_ok());
}

/// Schemas, sensible and not.
fn schema() -> impl Strategy<Value = Value> {
    let name = || prop::sample::select(vec!["a", "b", "$ref", "items"]);
    let leaf = prop_oneof![
        prop::sample::select(vec!["string", "integer", "array", "object", "null"])
            .prop_map(|kind| json!({"type": kind})),
        prop::sample::subsequence(vec!["string", "integer", "array", "object", "null"], 0..4)
            .prop_map(|kinds| json!({"type": kinds})),
        Just(json!({})),
        Just(json!(true)),
        Just(json!(7)),
        Just(json!({"const": 1})),
        Just(json!({"enum": ["a", "b"], "description": "d"})),
        Just(json!({"enum": [1, null, {"a": 1}]})),
        Just(json!({"format": "email", "maxLength": 3, "minItems": 2, "nullable": true})),
        prop::sample::select(vec!["#/$defs/a", "#/$defs/b", "#/definitions/a", "#", "#/properties/a", "x"])
            .prop_map(|reference| json!({"$ref": reference, "title": "t"})),
    ];
    leaf.prop_recursive(4, 24, 3, move |inner| {
        let named = prop::collection::btree_map(name(), inner.clone(), 0..3);
        let list = prop::collection::vec(inner.clone(), 0..3);
        let one = (prop::sample::select(vec!["items", "additionalProperties", "not", "contains"]), inner.clone())
            .prop_map(|(keyword, schema)| json!({ keyword: schema }));
        let named = (prop::sample::select(vec!["properties", "$defs", "definitions"]), named)
            .prop_map(|(keyword, schemas)| json!({ keyword: schemas, "required": ["a", "z"] }));
        let list = (prop::sample::select(vec!["anyOf", "oneOf", "allOf", "prefixItems", "items"]), list)
            .prop_map(|(keyword, schemas)| json!({ keyword: schemas }));
        prop::collection::vec(prop_oneof![one, named, list, inner], 1..4).prop_map(|parts| {
            let mut all = Map::new();
            for part in parts {
                all.extend(part.as_object().cloned().unwrap_or_default());
            }
            Value::Object(all)
        })
    })
}

/// Every keyword that stands in a schema, and the schema.
fn each(schema: &Value, look: &mut dyn FnMut(&Map<String, Value>)) {
    let Some(members) = schema.as_object() else { return };
    look(members);
    for (keyword, value) in members {
        match value {
            Value::Object(named) if NAMED.contains(&keyword.as_str()) => named.values().for_each(|one| each(one, look)),
            Value::Array(list) if LIST.contains(&keyword.as_str()) => list.iter().for_each(|one| each(one, look)),
            Value::Object(_) if ONE.contains(&keyword.as_str()) => each(value, look),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_comes_out_fits_and_fitting_it_again_changes_nothing(schema in schema(), to in prop::sample::select(ALL.to_vec())) {
        match fit(&schema, to) {
            Ok(once) => {
                each(&once, &mut |members| {
                    for keyword in members.keys() {
                        assert!(to.kept().is_none_or(|kept| kept.contains(&keyword.as_str())), "{keyword}: {once}");
                        assert!(!to.dropped().contains(&keyword.as_str()), "{keyword}: {once}");
                    }
                    assert!(!to.writes_references_out() || !members.get("$ref").is_some_and(Value::is_string));
                    if to == Subset::OpenApi {
                        assert!(!members.get("type").is_some_and(Value::is_array), "{once}");
                        assert!(!is_type(members, "array") || members.contains_key("items"), "{once}");
                    }
                    if to == Subset::AnthropicOutput && is_type(members, "object") {
                        assert_eq!(members["additionalProperties"], false);
                    }
                });
                prop_assert_eq!(fit(&once, to), Ok(once));
            }
            Err(fault) => {
                let (SchemaFault::Recursive { pointer }
                | SchemaFault::Unresolved { pointer }
                | SchemaFault::TooLarge { pointer }) = fault;
                prop_assert!(pointer.starts_with('#') && to.writes_references_out() | (to == Subset::GeminiJson));
            }
        }
    }
}
