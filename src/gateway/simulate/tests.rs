use super::super::itinerary::Unknown;
use super::super::loaded::loaded_for_tests;
use super::super::testing::{asked, principal};
use super::*;
use crate::limits::ask::{Denial, Grant};
use serde_json::json;

fn loaded() -> LoadedConfig {
    loaded_for_tests(json!({
        "providers": {
            "o": {"dialect": "openai", "base_url": "https://o.example/v1"},
            "a": {"dialect": "anthropic", "base_url": "https://a.example", "timeouts": {"total_ms": 9000}},
        },
        "models": {
            "gpt": {"provider": "o", "enabled": false}, "free": {"provider": "o"},
            "claude": {"provider": "a", "upstream_model": "claude-1", "max_output_tokens": 1000},
        },
        "routes": {"best": {"targets": [{"model": "gpt"}, {"model": "claude"}]}},
        "prices": {"claude": {"input": "3", "output": "15", "per_request": "0.001"}},
    }))
}

fn described(model: &str, max_tokens: Option<u64>) -> Sample<'_> {
    Sample::Described { model, stream: true, input_tokens: 100, max_tokens }
}

/// What a request is tried with.
#[derive(Default)]
struct Around {
    headers: HeaderMap,
    limits: Vec<ScopedLimit>,
    turns: Turns,
    words: Words,
}

impl Around {
    fn try_out(&self, loaded: &LoadedConfig, api: Api, sample: Sample<'_>) -> Tried {
        let Self { headers, limits, turns, words } = self;
        let (pools, principal, health) = (&loaded.pools, &principal(&[]), &Unknown);
        let trying = Trying { loaded, pools, principal, api, headers, limits, health, turns, words, random: 0, at: 0 };
        simulate(trying, sample)
    }
}

fn try_out(api: Api, sample: Sample<'_>) -> Simulated {
    let limit = |id: &str, account: &str, user: Option<&str>, key: Option<&str>, model: Option<&str>| ScopedLimit {
        id: id.into(),
        account: account.into(),
        user: user.map(str::to_owned),
        key: key.map(str::to_owned),
        model: model.map(str::to_owned),
    };
    let limits = vec![
        limit("account", "a", None, None, None),
        limit("user", "a", Some("u"), None, None),
        limit("other user", "a", Some("u2"), None, None),
        limit("key and model", "a", None, Some("k"), Some("claude")),
        limit("other model", "a", None, None, Some("gpt")),
        limit("other account", "else", None, None, None),
    ];
    Around { limits, ..Around::default() }.try_out(&loaded(), api, sample).told
}

#[test]
fn who_answers_at_what_price_and_under_which_limits_is_told() {
    let told = try_out(Api::ChatCompletions, described("best", Some(10)));
    assert_eq!(told.error, None);
    assert_eq!(told.route.as_deref(), Some("best"));
    let target = told.target.unwrap();
    assert_eq!(
        (target.model.as_str(), target.provider.as_str(), target.upstream_model.as_str()),
        ("claude", "a", "claude-1")
    );
    assert_eq!((target.lane.as_str(), target.timeouts.total_ms), ("translated", 9000));
    let skipped: Vec<_> = told.decision.skipped.iter().map(|it| (it.model.as_str(), it.reason.as_str())).collect();
    assert_eq!(skipped, [("gpt", "the model is disabled")]);
    let [candidate] = &told.decision.candidates[..] else { panic!("{:?}", told.decision) };
    assert_eq!((candidate.model.as_str(), candidate.provider.as_str()), ("claude", "a"));
    assert_eq!(told.decision.strategy.as_deref(), Some("ordered"));
    assert_eq!(told.limits, ["account", "user", "key and model"]);
    let cost = told.cost.unwrap();
    assert_eq!((cost.unpriced, cost.price_source.as_deref()), (false, Some("configured")));
    assert_eq!(cost.input_nanodollars, Some(Nanodollars(300_000 + 1_000_000)));
    assert_eq!(cost.max_nanodollars, Some(Nanodollars(300_000 + 150_000 + 1_000_000)));
}

#[test]
fn what_the_ledger_would_be_asked_is_what_the_request_may_use() {
    let loaded = loaded();
    let tried = |sample| Around::default().try_out(&loaded, Api::ChatCompletions, sample);
    let ask = tried(described("best", Some(10))).ask.unwrap();
    assert_eq!((ask.model.as_str(), ask.key_id.as_str(), ask.user.as_deref()), ("claude", "k", Some("u")));
    assert_eq!((ask.input_tokens, ask.max_output_tokens), (100, 10));
    let two = br#"{"model": "claude", "n": 1, "messages": [{"role": "user", "content": "hello"}]}"#;
    assert_eq!(tried(Sample::Body(two)).ask.unwrap().max_output_tokens, 1_000);
    assert_eq!(tried(described("nope", None)).ask, None);
}

#[test]
fn an_unbounded_output_has_no_most_and_a_missing_price_is_told() {
    let told = try_out(Api::ChatCompletions, described("claude", None));
    assert_eq!(told.max_output_tokens, Some(1000));
    let told = try_out(Api::ChatCompletions, described("free", None));
    let unknown = SimulatedCost { unpriced: true, price_source: None, input_nanodollars: None, max_nanodollars: None };
    assert_eq!((told.max_output_tokens, told.cost), (None, Some(unknown)));
}

#[test]
fn the_error_is_the_one_that_the_caller_would_get() {
    let code = |told: Simulated| told.error.map(|error| (error.status, error.code));
    assert_eq!(code(try_out(Api::ChatCompletions, described("nope", None))), Some((404, "model_not_found".into())));
    let told = try_out(Api::Messages, described("free", None));
    assert_eq!((told.decision.skipped.len(), code(told)), (0, None));
    assert_eq!(code(try_out(Api::ChatCompletions, Sample::Body(b"{"))), Some((400, "invalid_json".into())));
    let body = br#"{"model": "claude", "messages": [{"role": "user", "content": 5}]}"#;
    let told = try_out(Api::ChatCompletions, Sample::Body(body));
    assert_eq!((told.target, told.cost), (None, None));
    assert_eq!(told.decision.skipped[0].code, "unfit");
    assert_eq!(told.error.unwrap().status, 400);
}

#[test]
fn a_body_is_taken_as_it_is() {
    let body = br#"{"model": "best", "max_tokens": 7, "messages": [{"role": "user", "content": "hello there"}]}"#;
    let told = try_out(Api::ChatCompletions, Sample::Body(body));
    assert_eq!((told.error, told.max_output_tokens), (None, Some(7)));
    assert!((5..15).contains(&told.input_tokens), "{}", told.input_tokens);
}

fn pooled() -> LoadedConfig {
    let provider = |name: &str| json!({"dialect": "openai", "base_url": format!("https://{name}.example/v1")});
    let mut capped = provider("c");
    capped["limits"] = json!([{"dimension": "concurrency", "period": "none", "amount": 1}]);
    loaded_for_tests(json!({
        "providers": {"a": provider("a"), "b": provider("b"), "c": capped},
        "models": {"ma": {"provider": "a"}, "mb": {"provider": "b"}, "mc": {"provider": "c"}},
        "routes": {
            "least": {"strategy": "least_connections", "targets": [
                {"model": "ma"}, {"model": "mb"}, {"model": "mc", "priority": 1},
            ]},
            "turns": {"strategy": "round_robin", "targets": [{"model": "ma"}, {"model": "mb"}]},
            "given": {"targets": [{"model": "mb", "when": {"headers": {"x-team": ["blue"]}}}, {"model": "ma"}]},
            "strict": {"targets": [{"model": "mc"}, {"model": "ma"}], "retry": {"retry_on": ["reset"]}},
        },
    }))
}

fn order(told: &Simulated) -> Vec<&str> {
    told.decision.candidates.iter().map(|it| it.model.as_str()).collect()
}

fn granted(index: usize, open: &[u64]) -> Option<Acquired> {
    Some(Acquired { index, answer: Answer::Granted(Grant::default()), open: open.to_vec() })
}

fn denied(index: usize, retry_after_ms: Option<u64>) -> Option<Acquired> {
    let breach = json!({"rule_id": "r", "scope": "provider", "subject": "*", "dimension": "concurrency",
        "period": "none", "limit": 1, "used": 1, "asked": 1, "retry_after_ms": retry_after_ms});
    let denial = Denial { breach: serde_json::from_value(breach).unwrap(), states: Vec::new() };
    Some(Acquired { index, answer: Answer::Denied(denial), open: Vec::new() })
}

fn words(said: &[(&[&str], Option<Acquired>)]) -> Words {
    said.iter().map(|(models, word)| (models.iter().map(|it| (*it).to_owned()).collect(), word.clone())).collect()
}

#[test]
fn the_gauge_is_asked_whom_it_would_pick_and_nothing_is_certain_before() {
    let loaded = pooled();
    let tried = |words: Words| {
        let around = Around { words, ..Around::default() };
        around.try_out(&loaded, Api::ChatCompletions, described("least", None))
    };
    let first = tried(Words::new());
    let question = first.question.unwrap();
    assert_eq!((question.gauge.as_str(), question.models()), ("a", vec!["ma".to_owned(), "mb".to_owned()]));
    assert!(question.acquire.pick && question.acquire.id.is_empty());
    assert_eq!(order(&first.told), ["ma", "mb", "mc"]);

    let picked = tried(words(&[(&["ma", "mb"], granted(1, &[4, 2]))]));
    assert_eq!((picked.question, order(&picked.told)), (None, vec!["mb", "ma", "mc"]));
    let told = picked.told;
    assert_eq!(told.target.unwrap().model, "mb");
    let scores: Vec<_> = told.decision.candidates.iter().map(|it| (it.open, it.share_ppm, it.score.as_str())).collect();
    assert_eq!(scores[..2], [(2, 1_000_000, "2 open for a weight of 1000"), (4, 0, "4 open for a weight of 1000")]);
    assert_eq!(picked.ask.unwrap().model, "ma", "the ledger is asked at the same time");

    let silent = tried(words(&[(&["ma", "mb"], None)]));
    assert_eq!(silent.told.silent, ["a".to_owned(), "b".to_owned()].into());
    assert_eq!(silent.told.target.unwrap().model, "ma");
}

#[test]
fn where_there_is_no_room_it_goes_on_as_far_as_a_request_would() {
    let loaded = pooled();
    let tried = |name, words: Words| {
        let around = Around { words, ..Around::default() };
        around.try_out(&loaded, Api::ChatCompletions, described(name, None))
    };
    let mut said = words(&[(&["ma", "mb"], denied(1, Some(70))), (&["ma"], denied(0, None))]);
    let third = tried("least", said.clone());
    assert_eq!(third.question.unwrap().models(), ["mc"], "its own limits hold");
    said.extend(words(&[(&["mc"], granted(0, &[0]))]));
    let told = tried("least", said.clone()).told;
    assert_eq!((order(&told), &told.error), (vec!["mc"], &None));
    let skipped: Vec<_> =
        told.decision.skipped.iter().map(|it| (it.model.as_str(), it.code.as_str(), it.back_in_ms)).collect();
    assert_eq!(skipped, [("mb", "full", Some(70)), ("ma", "full", None)]);
    said.extend(words(&[(&["mc"], denied(0, Some(90)))]));
    let told = tried("least", said).told;
    assert_eq!((told.target, told.error.unwrap().code.as_str()), (None, "provider_limit"));
    let strict = tried("strict", words(&[(&["mc"], denied(0, Some(90)))])).told;
    assert_eq!(strict.error.unwrap().code, "provider_limit", "the route does not go on after that");
}

#[test]
fn conditions_see_the_headers_and_no_turn_is_taken() {
    let loaded = pooled();
    let mut around = Around::default();
    let tried = |around: &Around, name| around.try_out(&loaded, Api::ChatCompletions, described(name, None)).told;
    assert_eq!(order(&tried(&around, "given")), ["ma"]);
    around.headers.insert("x-team", "blue".parse().unwrap());
    assert_eq!(order(&tried(&around, "given")), ["mb", "ma"]);
    let first = tried(&around, "turns");
    assert_eq!(first.decision.candidates.iter().map(|it| it.share_ppm).collect::<Vec<_>>(), [500_000; 2]);
    assert_eq!((order(&tried(&around, "turns")), around.turns.is_empty()), (order(&first), true));
    // Once the route has been asked, it is its own turn that is told, and stays its own.
    let who = principal(&[]);
    let sight = Sight { asked: asked("turns"), envelope: None, max_output: None, headers: None, principal: &who };
    let mut really = || {
        let chance = Chance { turns: &mut around.turns, random: &mut || 7 };
        let itinerary = itinerary(&loaded, sight, &Unknown, chance).ok().unwrap();
        let order: Vec<_> = itinerary.order.candidates.iter().map(|it| it.deployment.to_owned()).collect();
        (order, around.turns.clone())
    };
    let (mut before, mut turns) = really();
    for _ in 0..3 {
        let told = tried(&Around { turns, ..Around::default() }, "turns");
        let (next, then) = really();
        assert_eq!(order(&told), next);
        assert_ne!(next, before);
        (before, turns) = (next, then);
    }
}
