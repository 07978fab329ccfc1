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
            "b": {"dialect": "generic", "base_url": "https://x.example", "normalize": true},
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
    assert_eq!(told(json!({"providers": {"p": {"dialect": "klingon", "base_url": "x"}}})), ["providers.p.dialect"]);
    assert!(Config::parse(&json!({"http": {"max_json_depth": 100}})).is_ok());
}
