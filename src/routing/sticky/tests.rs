use serde_json::json;

use super::*;
use crate::routing::testing::Request;

fn key_by(sticky: serde_json::Value, request: &Request) -> Option<u64> {
    key(&serde_json::from_value(sticky).unwrap(), request)
}

fn by_session(request: &Request) -> Option<u64> {
    key_by(json!({"by": "session"}), request)
}

#[test]
fn a_session_is_the_first_name_that_there_is() {
    let nothing = Request::new();
    let user = nothing.clone().param("user", &json!("u"));
    let claude = user.clone().param("metadata", &json!({"user_id": "s4"}));
    let cached = claude.clone().param("prompt_cache_key", &json!("s3"));
    let own = cached.clone().header("x-gateway-session", "s2");
    let session = own.clone().header("x-session-id", "s1");
    let keys: Vec<u64> = [user, claude, cached, own, session.clone()].iter().filter_map(by_session).collect();
    assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
    assert_eq!(by_session(&nothing), None);
    assert_eq!(by_session(&Request::new().header("x-session-id", " s1 ")), by_session(&session));
}

#[test]
fn what_is_empty_or_no_text_is_no_session() {
    let odd = Request::new()
        .header("x-session-id", " ")
        .param("prompt_cache_key", &json!(5))
        .param("metadata", &json!({"user_id": ["x"]}))
        .param("user", &json!(""));
    assert_eq!(by_session(&odd), None);
}

#[test]
fn sessions_and_users_of_different_accounts_are_different() {
    let of = |account: &str| Request {
        account: account.into(),
        user: Some("u".into()),
        ..Request::new().header("x-session-id", "1").header("x-tenant", "t")
    };
    assert_ne!(by_session(&of("a")), by_session(&of("b")));
    let by_user = |account: &str| key_by(json!({"by": "user"}), &of(account));
    assert_ne!(by_user("a"), by_user("b"));
    assert_ne!(by_user("a"), by_session(&of("a").header("x-session-id", "u")));
    let by_header = |account: &str| key_by(json!({"by": "header", "header": "X-Tenant"}), &of(account));
    assert!(by_header("a").is_some() && by_header("a") == by_header("b"));
    assert_eq!(key_by(json!({"by": "user"}), &Request::new()), None);
    assert_eq!(key_by(json!({"by": "header", "header": "x-none"}), &Request::new()), None);
}

#[test]
fn a_key_is_kept_by_its_id() {
    let of = |key_id: &str| key_by(json!({"by": "key"}), &Request { key_id: key_id.into(), ..Request::new() });
    assert!(of("k").is_some() && of("k") == of("k") && of("k") != of("l"));
}

#[test]
fn prompts_that_begin_alike_belong_together() {
    let prefix = |bytes: u64, request: &Request| key_by(json!({"by": "prompt_prefix", "prefix_bytes": bytes}), request);
    let asks = |system: &str, question: &str| {
        let messages = json!([{"role": "system", "content": system}, {"role": "user", "content": question}]);
        Request::new().param("messages", &messages)
    };
    let long = "You are a helpful assistant. ".repeat(10);
    assert_eq!(prefix(256, &asks(&long, "What is 1 + 1?")), prefix(256, &asks(&long, "And 2 + 2?")));
    assert_ne!(prefix(1_024, &asks(&long, "What is 1 + 1?")), prefix(1_024, &asks(&long, "And 2 + 2?")));
    assert_ne!(prefix(256, &asks(&long, "x")), prefix(256, &asks("Another.", "x")));
    let with_tools = |name: &str| asks(&long, "x").param("tools", &json!([{"name": name}]));
    assert_ne!(prefix(256, &with_tools("a")), prefix(256, &with_tools("b")));
    let claude = |system: &str| asks("", "x").param("system", &json!(system));
    assert_ne!(prefix(64, &claude("a")), prefix(64, &claude("b")));
    assert_eq!(prefix(64, &Request::new()), None);
}
