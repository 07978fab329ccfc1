use super::super::loaded::loaded_for_tests;
use super::super::testing::principal;
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn loaded(more: serde_json::Value) -> LoadedConfig {
    let mut config = json!({
        "providers": {
            "o": {"dialect": "openai", "base_url": "https://o.example/v1", "headers": {"x-own": "ours"}},
            "off": {"dialect": "openai", "base_url": "https://o.example/v1", "enabled": false},
            "local": {"dialect": "openai", "base_url": "http://127.0.0.1:1/v1"},
            "g": {"dialect": "gemini", "base_url": "https://g.example/v1beta"},
        },
        "models": {
            "large": {"provider": "o", "upstream_model": "gpt-9"}, "small": {"provider": "o"},
            "old": {"provider": "o", "enabled": false}, "flash": {"provider": "g", "upstream_model": "gemini-3-flash"},
        },
        "prices": {"large": {"input": "1", "output": "2"}},
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    loaded_for_tests(config)
}

fn base() -> Url {
    Url::parse("https://o.example/v1/").unwrap()
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (name.parse::<http::HeaderName>().unwrap(), value.parse::<http::HeaderValue>().unwrap())
    };
    let mut map = HeaderMap::new();
    pairs.iter().map(pair).for_each(|(name, value)| {
        map.append(name, value);
    });
    map
}

#[test]
fn plain_paths_lead_below_the_base_url() {
    for (rest, provider, path) in [
        ("o/files", "o", "/files"),
        ("o/files/", "o", "/files/"),
        ("my%20o/models/gemini-3:generateContent", "my o", "/models/gemini-3:generateContent"),
        ("o/models/claude@2024/a%20b", "o", "/models/claude@2024/a%20b"),
        ("o/@evil.example/x", "o", "/@evil.example/x"),
        ("o/model/anthropic.claude-v1%3A0/converse", "o", "/model/anthropic.claude-v1%3A0/converse"),
    ] {
        let address = Address::read(rest).unwrap();
        assert_eq!((address.provider.as_str(), address.path.as_str()), (provider, path));
        assert_eq!(address.below(&base(), "", &[]).as_deref(), Ok(path));
    }
}

#[test]
fn paths_that_could_lead_elsewhere_are_refused() {
    let paths = [
        "",
        "o",
        "o/",
        "/files",
        "o//files",
        "o/files//1",
        "o/../files",
        "o/./files",
        "o/..",
        "o/%2e%2e/x",
        "o/.%2E/x",
        "o/%252e%252e/x",
        "o/..;/x",
        "o/..;a=b/x",
        "o/a%2fb",
        "o/a%2Fb",
        "o/a%5cb",
        "o/a\\b",
        "o/a%252fb",
        "o/%00",
        "o/a%0ab",
        "o/%zz",
        "o/%ff",
        "o/a%3fb",
        "o/a%23b",
        "o/%25252e%25252e",
        "o/%2525252525252e",
    ];
    for path in paths {
        let refused = Address::read(path).map(|address| address.path);
        assert_eq!(
            refused.map_err(|problem| (problem.status, problem.code)),
            Err((400, "invalid_path".to_owned())),
            "{path}"
        );
    }
}

#[test]
fn the_query_passes_without_credentials() {
    let address = Address::read("o/files").unwrap();
    let passed = |query: &str| address.below(&base(), query, &["sk-lgw-secret".to_owned()]).unwrap();
    assert_eq!(passed("a=1&b=%20x&&flag"), "/files?a=1&b=%20x&flag");
    assert_eq!(passed("alt=sse&key=abc&KEY=abc&access_token=x&api-key=1&%6bey=2"), "/files?alt=sse");
    assert_eq!(passed("api_key=1&X-Amz-Signature=2&x-goog-api-key=3"), "/files");
    assert_eq!(passed("user=sk-lgw-secret&u=sk%2Dlgw-secret&v=1&%zz=1"), "/files?v=1");
    assert!(Address::read("o/sk-lgw-secret").unwrap().below(&base(), "", &["sk-lgw-secret".to_owned()]).is_err());
    assert!(address.below(&base(), "a=#x", &[]).is_err());
}

#[test]
fn headers_pass_unless_they_tell_of_the_caller() {
    let loaded = loaded(json!({}));
    let sent = headers(&[
        ("authorization", "Bearer sk-lgw-secret-of-the-caller"),
        ("x-api-key", "another-secret"),
        ("api-key", "x"),
        ("x-goog-api-key", "x"),
        ("cookie", "a=b"),
        ("connection", "close, X-Hop"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("host", "h"),
        ("x-gateway-timeout-ms", "9"),
        ("cf-connecting-ip", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-real-ip", "1.2.3.4"),
        ("x-amz-security-token", "t"),
        ("openai-organization", "org-1"),
        ("x-own", "theirs"),
        ("x-hidden", "say sk-lgw-secret-of-the-caller twice"),
        ("x-other", "another-secret"),
        ("anthropic-beta", "a"),
        ("anthropic-beta", "b"),
        ("range", "bytes=0-1"),
        ("x-mine", "yes"),
    ]);
    let secrets = secrets(&sent);
    assert_eq!(secrets, ["sk-lgw-secret-of-the-caller", "another-secret"]);
    let mut passed = passed_headers(&sent, &loaded.config.providers["o"], &secrets);
    passed.sort();
    let expected = [("anthropic-beta", "a, b"), ("range", "bytes=0-1"), ("x-mine", "yes")];
    assert_eq!(passed, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

fn seen(address: &str, body: serde_json::Value) -> Seen {
    let mut seen = Seen::default();
    seen.read(body.to_string().as_bytes(), 64).unwrap();
    seen.models.extend(Address::read(address).unwrap().model());
    seen
}

fn decided(models: &[&str], address: &str, body: serde_json::Value) -> Result<String, String> {
    let (loaded, provider) = (loaded(json!({})), address.split('/').next().unwrap());
    let decided = seen(address, body).model(&loaded, provider, &principal(models));
    decided.map(|model| model.unwrap_or_default().to_owned()).map_err(|problem| problem.code)
}

#[test]
fn models_are_recognised_and_judged() {
    let known = |model: &str| Ok(model.to_owned());
    let refused = || Err("model_not_allowed".to_owned());
    let chat = "o/chat/completions";
    for (models, address, body, expected) in [
        (&[][..], chat, json!({"model": "gpt-9"}), known("large")),
        (&[], chat, json!({"model": "small"}), known("small")),
        (&[], chat, json!({"model": "large"}), known("")),
        (&[], chat, json!({"model": "unknown"}), known("")),
        (&[], chat, json!({"model": "old"}), refused()),
        (&[], "o/files", json!([1]), known("")),
        (&["large"], chat, json!({"model": "gpt-9"}), known("large")),
        (&["small"], chat, json!({"model": "gpt-9"}), refused()),
        (&["large"], chat, json!({"model": "unknown"}), refused()),
        (&["large"], chat, json!({"model": "gpt-9", "models": ["small"]}), refused()),
        (&["large", "small"], chat, json!({"model": "gpt-9", "models": ["small"]}), known("large")),
        (&["large"], "o/files", json!({}), refused()),
        (&["flash"], "o/chat/completions", json!({"model": "gemini-3-flash"}), refused()),
        (&["flash"], "g/models/gemini-3-flash:generateContent", json!({}), known("flash")),
        (&["flash"], "g/models/gemini-3-pro:generateContent", json!({}), refused()),
        (&["flash"], "g/models/gemini-3-flash:countTokens", json!({"model": "models/gemini-3-flash"}), known("flash")),
        (&["flash"], "g/models/gemini-3-flash:countTokens", json!({"model": "models/gemini-3-pro"}), refused()),
        (&["large"], "o/deployments/gpt-9/chat/completions", json!({}), known("large")),
    ] {
        assert_eq!(decided(models, address, body.clone()), expected, "{models:?} {address} {body}");
    }
    let mut twice = Seen::default();
    assert_eq!(twice.read(br#"{"model":"a","mod\u0065l":"b"}"#, 64).unwrap_err().status, 400);
}

#[test]
fn what_is_seen_of_a_body_is_what_limits_reserve_for() {
    let seen =
        seen("o/chat/completions", json!({"model": "m", "stream": true, "max_tokens": 5, "max_output_tokens": 7}));
    assert_eq!((seen.stream, seen.max_output), (true, Some(7)));
    let wanted = seen.wanted(Family::of("m", false));
    assert_eq!((wanted.input_tokens, wanted.max_output), (16, Some(7)));
    assert_eq!(Seen::default().wanted(Family::of("m", false)).max_output, Some(0));
}

#[test]
fn a_plan_names_provider_model_and_price() {
    let of = |loaded: &LoadedConfig, address: &str, method: Method| {
        let address = Address::read(address).unwrap();
        let mut seen = Seen::default();
        seen.models.extend(address.model());
        let plan = plan(loaded, &principal(&[]), &address, &seen, &method, 0);
        plan.map(|plan| {
            assert_eq!((plan.lane, plan.serves), (Lane::Proxy, Serves::Natively));
            (plan.model_name.to_owned(), plan.target.upstream_model.to_owned(), plan.pricing.is_some())
        })
        .map_err(|problem| (problem.status, problem.code))
    };
    let ok = |name: &str, upstream: &str, priced| Ok((name.to_owned(), upstream.to_owned(), priced));
    let refused = |status, code: &str| Err((status, code.to_owned()));
    let open = loaded(json!({}));
    assert_eq!(of(&open, "o/models/gpt-9", Method::GET), ok("large", "gpt-9", true));
    assert_eq!(of(&open, "o/models/small", Method::POST), ok("small", "small", false));
    assert_eq!(of(&open, "o/files", Method::POST), ok("", "", false));
    assert_eq!(of(&open, "nobody/files", Method::GET), refused(404, "unknown_provider"));
    assert_eq!(of(&open, "off/files", Method::GET), refused(503, "provider_unavailable"));
    assert_eq!(of(&open, "local/files", Method::GET), refused(503, "provider_unavailable"));
    let strict = loaded(json!({"billing": {"unpriced_models": "refuse"}}));
    assert_eq!(of(&strict, "o/files", Method::POST), refused(403, "model_unpriced"));
    assert_eq!(of(&strict, "o/files", Method::GET), ok("", "", false));
    assert_eq!(of(&strict, "o/models/gpt-9", Method::POST), ok("large", "gpt-9", true));
}

proptest! {
    /// Whatever a caller writes, what goes out stays at the provider's origin and below its base path.
    #[test]
    fn nothing_leads_out_of_the_base_path(path in "[a-z./\\\\%2e5cfF@:;?#\u{0}-\u{20}]{0,24}", query in "[a-z=&#/@%]{0,12}") {
        if let Ok(address) = Address::read(&format!("o/{path}"))
            && let Ok(below) = address.below(&base(), &query, &[])
        {
            let url = Url::parse(&join_url(&base(), &below)).unwrap();
            prop_assert_eq!(url.origin(), base().origin());
            prop_assert!(url.path().starts_with("/v1/"), "{}", url);
            prop_assert!(!url.path().split('/').any(|it| it == ".." || it == "."), "{}", url);
        }
    }
}
