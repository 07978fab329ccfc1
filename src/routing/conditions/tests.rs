use serde_json::json;

use super::*;
use crate::routing::testing::Request;

fn unmet(when: Value, request: &Request) -> Option<String> {
    let when: When = serde_json::from_value(when).unwrap();
    Reading::new(request).unmet(&when).map(|unmet| unmet.to_string())
}

fn holds(when: Value, request: &Request) -> bool {
    unmet(when, request).is_none()
}

#[test]
fn what_says_nothing_holds_for_everybody() {
    assert!(holds(json!({}), &Request::new()));
}

#[test]
fn headers_are_compared_whole_and_their_names_in_any_case() {
    let request = Request::new().header("x-tier", " gold ");
    assert!(holds(json!({"headers": {"X-Tier": ["silver", "gold"]}}), &request));
    assert!(holds(json!({"headers": {"x-tier": ["*"]}}), &request));
    assert!(!holds(json!({"headers": {"x-tier": ["Gold", "gol"]}}), &request));
    assert!(!holds(json!({"headers": {"x-tier": ["*"], "x-other": ["*"]}}), &request));
}

#[test]
fn metadata_is_the_json_object_of_its_header() {
    let request = Request::new().header("x-gateway-metadata", r#"{"team": "x", "n": 5, "on": true, "list": [1]}"#);
    let metadata = |key: &str, value: &str| holds(json!({"metadata": {key: [value]}}), &request);
    assert!(metadata("team", "x") && metadata("n", "5") && metadata("on", "true"));
    assert!(metadata("list", "*") && !metadata("list", "[1]") && !metadata("nope", "*"));
    for broken in ["", "[1]", "{", "\"x\""] {
        assert!(!holds(json!({"metadata": {"team": ["*"]}}), &Request::new().header("x-gateway-metadata", broken)));
    }
}

#[test]
fn fields_of_the_body_are_compared_as_json() {
    let request = Request::new()
        .param("effort", &json!("hi\u{e9}gh"))
        .param("n", &json!(1))
        .param("temperature", &json!(0.0))
        .param("store", &json!(false))
        .param("user", &json!(null))
        .param("stop", &json!(["x"]));
    let param = |name: &str, value: Value| holds(json!({"params": {name: [value]}}), &request);
    assert!(param("effort", json!("hi\u{e9}gh")) && param("n", json!(1.0)) && param("temperature", json!(0)));
    assert!(param("store", json!(false)) && !param("store", json!("false")) && !param("n", json!("1")));
    assert!(param("user", json!("*")) && param("stop", json!("*")));
    assert!(!param("stop", json!("x")) && !param("nope", json!("*")) && !param("n", json!(2)));
}

#[test]
fn streams_and_tools_are_told_apart() {
    let plain = Request::new();
    let stream = Request { stream: true, ..Request::new() };
    assert!(holds(json!({"stream": true}), &stream) && holds(json!({"stream": false}), &plain));
    assert!(!holds(json!({"stream": true}), &plain) && !holds(json!({"stream": false}), &stream));
    for (params, has) in [
        (plain.clone(), false),
        (plain.clone().param("tools", &json!([])), false),
        (plain.clone().param("tools", &json!(null)), false),
        (plain.clone().param("tools", &json!([{"type": "function"}])), true),
        (plain.clone().param("functions", &json!([{"name": "f"}])), true),
    ] {
        assert_eq!(holds(json!({"tools": true}), &params), has);
        assert_eq!(holds(json!({"tools": false}), &params), !has);
    }
}

#[test]
fn the_inputs_size_has_bounds_that_are_part_of_them() {
    let request = Request { input_tokens: 100, ..Request::new() };
    assert!(holds(json!({"min_input_tokens": 100, "max_input_tokens": 100}), &request));
    assert!(!holds(json!({"min_input_tokens": 101}), &request));
    assert!(!holds(json!({"max_input_tokens": 99}), &request));
}

#[test]
fn accounts_users_and_keys_are_named_by_id() {
    let request = Request { user: Some("u".into()), ..Request::new() };
    assert!(holds(json!({"accounts": ["b", "a"], "users": ["u"], "keys": ["k"]}), &request));
    assert!(!holds(json!({"accounts": ["b"]}), &request));
    assert!(!holds(json!({"users": ["v"]}), &request));
    assert!(!holds(json!({"users": ["u"]}), &Request::new()));
    assert!(!holds(json!({"keys": ["l"]}), &request));
}

#[test]
fn what_does_not_hold_is_named() {
    let all = json!({"headers": {"x-a": ["1"]}, "max_input_tokens": 1});
    assert_eq!(
        unmet(all.clone(), &Request::new()).as_deref(),
        Some("the header `x-a` does not have a value that it asks for")
    );
    assert_eq!(
        unmet(all, &Request::new().header("x-a", "1")).as_deref(),
        Some("the input is longer than what it is for")
    );
}
