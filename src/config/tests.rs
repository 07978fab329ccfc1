use serde_json::json;

use super::*;

fn config(value: Value) -> Config {
    serde_json::from_value(value).unwrap()
}

#[test]
fn every_problem_is_told_at_once_with_its_path() {
    let problems = config(json!({
        "http": {"max_body_bytes": 1},
        "cors": {"allowed_origins": ["https://a.example/x"]},
        "timeouts": {"idle_ms": 1},
        "providers": {
            "a": {"dialect": "openai", "base_url": "ftp://x", "headers": {"Authorization": "Bearer x"}},
            "b": {"dialect": "generic", "base_url": "https://x.example", "normalize": true, "wires": ["responses"]},
            "c": {"dialect": "generic", "base_url": "https://x.example", "generic": {
                "body": {"a": "{{nonsense}}"}, "reply": {"text": "no"}, "stream": {"framing": "sse", "reply": {"text": "/t"}}}},
        },
        "models": {"m": {"provider": "zzz", "max_output_tokens": 0}},
    }))
    .problems();
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "http.max_body_bytes",
            "cors.allowed_origins[0]",
            "timeouts.idle_ms",
            "providers.a.base_url",
            "providers.a.headers.Authorization",
            "providers.b.normalize",
            "providers.b.wires",
            "providers.b",
            "providers.c.generic.reply.text",
            "providers.c.generic.stream",
            "providers.c.generic.body",
            "models.m.max_output_tokens",
            "models.m.provider",
        ]
    );
}

#[test]
fn what_is_written_is_read_strictly_and_told_by_path() {
    let told = |written: Value| {
        let problems = Config::parse(&written).unwrap_err();
        problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
    };
    let misspelt = json!({
        "timeouts": {"idel_ms": 5, "total_ms": 1},
        "providers": {"p": {"dialect": "openai", "base_url": "https://x.example", "nope": 1, "timeouts": {"x": 1}}},
    });
    let paths = told(misspelt);
    assert_eq!(paths, ["timeouts.idel_ms", "providers.p.nope", "providers.p.timeouts.x", "timeouts.total_ms"]);
    assert_eq!(told(json!({"models": {"m": {"provider": 5}}})), ["models.m.provider"]);
    let klingon = json!({"providers": {"p": {"dialect": "klingon", "base_url": "https://x.example"}}});
    assert_eq!(told(klingon), ["providers.p.dialect"]);
    assert!(Config::parse(&json!({"http": {"max_json_depth": 100}})).is_ok());
}

#[test]
fn a_preset_says_what_a_provider_would_have_to() {
    let told = |provider: Value| match Config::parse(&json!({"providers": {"p": provider}})) {
        Ok(config) => {
            let provider = config.providers.get("p").unwrap();
            let url = provider.base_url().to_owned();
            (vec![url, format!("{:?} {:?}", provider.dialect(), provider.stream_usage())], provider.wires().len())
        }
        Err(problems) => (problems.into_iter().map(|problem| problem.path).collect(), 0),
    };
    let is = |lines: [&str; 2], wires| (lines.map(str::to_owned).to_vec(), wires);
    assert_eq!(told(json!({"preset": "mistral"})), is(["https://api.mistral.ai/v1", "OpenAi Always"], 1));
    assert_eq!(told(json!({"preset": "gemini"})).0[1], "Gemini OnRequest");
    let beside =
        json!({"preset": "openai", "base_url": "https://x.example", "wires": ["chat"], "stream_usage": "always"});
    assert_eq!(told(beside), is(["https://x.example", "OpenAi Always"], 1));
    assert_eq!(told(json!({})), is(["providers.p.dialect", "providers.p.base_url"], 0));
    assert_eq!(told(json!({"preset": "vllm"})).0, ["providers.p.base_url"]);
    assert_eq!(told(json!({"preset": "acme"})).0[0], "providers.p.preset");
    let azure =
        |url: &str, version: Option<&str>| told(json!({"preset": "azure", "base_url": url, "api_version": version})).0;
    assert_eq!(azure("https://r.openai.azure.com", None), ["providers.p.api_version"]);
    assert_eq!(azure("https://r.openai.azure.com", Some("?x")), ["providers.p.api_version"]);
    assert_eq!(azure("https://r.openai.azure.com", Some("2024-10-21"))[0], "https://r.openai.azure.com");
    assert_eq!(azure("https://r.openai.azure.com/openai/v1/", None)[0], "https://r.openai.azure.com/openai/v1/");
    let other = json!({"preset": "openai", "api_version": "2024-10-21"});
    assert_eq!(told(other).0, ["providers.p.api_version"]);
}

/// A configuration with one of everything, for tests that change one value of it.
fn one_of_everything() -> Value {
    let limits = json!([{"dimension": "requests", "period": "minute", "amount": 1}]);
    json!({
        "limits": {"per_key": limits, "per_user": limits, "per_account": limits, "alert_thresholds": [50]},
        "auth": {"issuers": [{"issuer": "i", "audiences": ["a"], "algorithms": ["RS256"], "planes": ["models"],
            "jwks_uri": "https://id.example/keys", "roles": {"n": [{"role": "viewer"}]}, "roles_claim": "roles"}]},
        "providers": {"n": {"dialect": "openai", "wires": ["chat"], "base_url": "https://p.example/v1", "timeouts": {},
            "credential": "P_KEY", "auth": {"method": "entra", "tenant": "t", "client_id": "c"}, "limits": limits}},
        "models": {"n": {"provider": "n"}},
        "routing": {"retry_on": ["unreachable"]},
        "routes": {"r": {"targets": [{"model": "n", "when": {
            "headers": {"x": ["*"]}, "metadata": {"x": ["*"]}, "params": {"x": ["*"]}}}], "sticky": {"by": "session"},
            "retry": {"retry_on": ["auth"]}, "fallbacks": {"auth": ["n"]}, "shadow": {"model": "n", "account": "a"}}},
        "prices": {"n": {"variants": [{"multiplier": "1"}]}},
    })
}

/// The value at a parameter's path, made where it is not there yet.
fn place<'a>(document: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(document, |value, part| {
        let (name, item) = match part.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (part, false),
        };
        let value = match name {
            "<name>" => value.as_object_mut().unwrap().values_mut().next().unwrap(),
            name => {
                if !value[name].is_object() && !value[name].is_array() {
                    value[name] = json!({});
                }
                &mut value[name]
            }
        };
        if item { &mut value[0] } else { value }
    })
}

/// What has a given size: a number, or a text, list or map of so many.
fn sized(parameter: &reference::Parameter, sample: &Value, size: u64) -> Value {
    let kind = parameter.schema["type"].as_str().or(parameter.schema["type"][0].as_str()).unwrap();
    let count = usize::try_from(size).unwrap();
    match kind {
        "integer" => json!(size),
        "string" => json!("x".repeat(count)),
        "array" => {
            let item = sample.as_array().and_then(|items| items.first()).cloned().unwrap_or(json!("x"));
            Value::Array(vec![item; count])
        }
        "object" => {
            let entry = sample.as_object().and_then(|entries| entries.values().next()).cloned().unwrap_or(json!("x"));
            Value::Object((0..count).map(|nth| (format!("e{nth}"), entry.clone())).collect())
        }
        other => panic!("{other} has no size"),
    }
}

#[test]
fn the_schema_and_the_validation_draw_the_same_lines() {
    let mut checked = 0;
    for parameter in reference::parameters() {
        let bound = |names: [&str; 4]| names.iter().find_map(|name| parameter.schema[*name].as_u64());
        let least = bound(["minimum", "minItems", "minLength", "minProperties"]);
        let most = bound(["maximum", "maxItems", "maxLength", "maxProperties"]);
        let kind = parameter.kind.as_str();
        assert!(kind != "whole number" || most.is_some(), "{} has no bounds", parameter.path);
        let (Some(least), Some(most)) = (least, most) else { continue };
        for size in [least.checked_sub(1), Some(least), Some(most), most.checked_add(1)].into_iter().flatten() {
            let mut document = one_of_everything();
            let value = place(&mut document, &parameter.path);
            *value = sized(&parameter, value, size);
            let path = parameter.path.replace("[]", "[0]");
            let parsed = reading::read(&document);
            assert!(parsed.mistyped.is_empty(), "{} = {size}: {:?}", parameter.path, parsed.mistyped);
            let named = |path: &str| path.replace("routes.r", "routes.<name>").replace(".n.", ".<name>.");
            let told = parsed.config.problems().iter().any(|problem| {
                named(&problem.path) == path
                    && problem.message.contains(&format!(" {size}"))
                    && problem.message.contains("but must")
            });
            assert_eq!(told, size < least || size > most, "{} = {size}", parameter.path);
            checked += 1;
        }
    }
    assert!(checked > 300, "{checked}");
}

#[test]
fn every_parameter_is_described_and_there_are_enough_of_them() {
    let parameters = reference::parameters();
    assert!(parameters.len() >= 120, "{}", parameters.len());
    for parameter in parameters {
        assert!(parameter.description.ends_with('.'), "{}: {:?}", parameter.path, parameter.description);
    }
}

#[test]
fn the_defaults_are_valid_and_are_the_schemas_defaults() {
    assert_eq!(Config::default().problems(), []);
    let written = serde_json::to_value(Config::default()).unwrap();
    assert_eq!(Config::parse(&written), Ok(Config::default()));
    let parameters = reference::parameters();
    let depth = parameters.iter().find(|parameter| parameter.path == "http.max_json_depth").unwrap();
    assert_eq!(depth.default, Some(json!(64)));
    assert_eq!(depth.environment().as_deref(), Some("GATEWAY__HTTP__MAX_JSON_DEPTH"));
}

#[test]
fn the_generated_references_are_up_to_date() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = format!("{:#}\n", reference::schema());
    for (file, expected, command) in
        [("config/schema.json", schema, "schema"), ("docs/configuration.md", reference::page(), "docs")]
    {
        let found = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        assert!(
            found == expected,
            "{file} is not what the code says. Run: cargo run -p gatewayctl -- config {command} > {file}"
        );
    }
}

#[test]
fn entries_must_refer_to_what_exists_and_secrets_stay_at_home() {
    let told = |change: &dyn Fn(&mut Value)| {
        let mut document = one_of_everything();
        change(&mut document);
        Config::parse(&document).err().unwrap_or_default().into_iter().map(|it| it.path).collect::<Vec<_>>()
    };
    let variants = |variants: Value| told(&|it| it["prices"]["n"]["variants"] = variants.clone());
    assert_eq!(told(&|_| ()), Vec::<String>::new());
    assert_eq!(told(&|it| it["routes"]["n"] = json!({"targets": [{"model": "n"}]})), ["routes.n"]);
    assert_eq!(told(&|it| it["routes"]["r"]["targets"][0]["model"] = json!("z")), ["routes.r.targets[0].model"]);
    assert_eq!(told(&|it| it["prices"]["z"] = json!({})), ["prices.z"]);
    assert_eq!(told(&|it| it["prices"]["n"]["input"] = json!(0.5)), ["prices.n.input"]);
    assert_eq!(variants(json!([{"service_tier": "flex"}])), ["prices.n.variants[0]"]);
    assert_eq!(variants(json!([{"service_tier": "slow", "input": "1"}])), ["prices.n.variants[0].service_tier"]);
    assert_eq!(
        variants(json!([{"from": "2027-01-01", "until": "2027-01-01", "input": "1"}])),
        ["prices.n.variants[0].until"]
    );
    let above = |tokens: u64| json!({"above_input_tokens": tokens, "input": "1"});
    assert_eq!(variants(json!([above(1), above(2), above(1)])), ["prices.n.variants[2].above_input_tokens"]);
    assert_eq!(variants(json!([above(2), {"above_input_tokens": 1, "account": "a", "input": "1"}])), [""; 0]);
    assert_eq!(told(&|it| it["providers"]["n"]["price_catalog"] = json!("x")), ["providers.n.price_catalog"]);
    assert_eq!(told(&|it| it["providers"]["n"]["credential"] = json!("MASTER_SECRET")), ["providers.n.credential"]);
    assert_eq!(told(&|it| it["providers"]["n"]["credential"] = json!("stored:cred_1")), Vec::<String>::new());
    assert_eq!(told(&|it| it["providers"]["n"]["credential"] = json!("a b")), ["providers.n.credential"]);
    assert_eq!(told(&|it| it["http"] = json!({"forward_headers": ["x-ok", "Cookie"]})), ["http.forward_headers[1]"]);
    for name in ["Authorization", "X-Goog-Api-Key", "ocp-apim-subscription-key", "x-amz-security-token", "x-auth-token"]
    {
        let set = told(&|it| it["providers"]["n"]["headers"] = json!({name: "v", "openai-organization": "org-1"}));
        assert_eq!(set, [format!("providers.n.headers.{name}")]);
        let forwarded = told(&|it| it["providers"]["n"]["forward_headers"] = json!([name]));
        assert_eq!(forwarded, ["providers.n.forward_headers[0]"], "{name}");
    }
    assert_eq!(told(&|it| it["auth"]["issuers"][0]["jwks"] = json!({"keys": []})), ["auth.issuers[0]"]);
    assert_eq!(
        told(&|it| it["auth"]["issuers"][0]["required_claims"] = json!({"a": []})),
        ["auth.issuers[0].required_claims.a"]
    );
    assert_eq!(told(&|it| it["admin"] = json!({"allowed_ip_ranges": ["10.0.0.0/33"]})), ["admin.allowed_ip_ranges[0]"]);
    let open = json!({"allow_credentials": true, "allowed_origins": ["*"]});
    let problems = Config::parse(&json!({"cors": open})).unwrap_err();
    assert_eq!(problems.first().unwrap().path, "cors.allow_credentials");
}
