//! Sample requests, tried on a configuration as the key that they name.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::types::configuration::{Endpoint, SampleAdmission, SampleRequest, SampleResult};
use super::types::standing::LimitState;
use crate::auth::{AuthError, Principal};
use crate::config::Disclose;
use crate::error::{FieldProblem, Problem};
use crate::gateway::itinerary::Health;
use crate::gateway::limit_refusal::refusal;
use crate::gateway::plan::LoadedConfig;
use crate::gateway::simulate::{Sample, ScopedLimit, Tried, Trying, Words, refused, simulate};
use crate::limits::ask::{Ask, Preview};
use crate::objects::pool::Pools;
use crate::providers::Api;
use crate::routing::strategy::Turns;
use crate::store::standing::Refused;

/// Input tokens of a sample that does not say.
const INPUT_TOKENS: u64 = 1_000;

/// A key as a simulation needs it.
#[derive(Debug, Clone, Deserialize)]
pub struct SampleKey {
    /// Its id.
    pub id: String,
    /// Its account.
    pub account_id: String,
    /// Its user.
    pub user_id: Option<String>,
    /// Models it may use.
    pub models: Vec<String>,
    /// Paths it may call.
    pub endpoints: Vec<String>,
    /// Settings of its own.
    pub overrides: Map<String, Value>,
    /// Whether it is switched off.
    pub disabled: bool,
    /// When it ends, in Unix seconds.
    pub expires_at: Option<u64>,
    /// Whether its account is suspended.
    pub suspended: bool,
    /// What limits it may count against.
    pub limits: Vec<SampleLimit>,
}

/// A limit as a simulation needs it.
#[derive(Debug, Clone, Deserialize)]
pub struct SampleLimit {
    /// Its id.
    pub id: String,
    /// The only user it concerns.
    pub user_id: Option<String>,
    /// The only key it concerns.
    pub key_id: Option<String>,
    /// The only model it concerns.
    pub model: Option<String>,
}

impl SampleKey {
    fn principal(&self) -> Principal {
        Principal {
            account: self.account_id.clone(),
            key_id: self.id.clone(),
            user: self.user_id.clone(),
            models: self.models.clone(),
            endpoints: self.endpoints.clone(),
            overrides: Some(Value::Object(self.overrides.clone())),
            ..Principal::default()
        }
    }

    fn limits(&self) -> Vec<ScopedLimit> {
        let scoped = |limit: &SampleLimit| ScopedLimit {
            id: limit.id.clone(),
            account: self.account_id.clone(),
            user: limit.user_id.clone(),
            key: limit.key_id.clone(),
            model: limit.model.clone(),
        };
        self.limits.iter().map(scoped).collect()
    }

    /// Why the key is of no use at all; `now` is in Unix seconds.
    fn unusable(&self, now: u64) -> Option<Problem> {
        if self.disabled {
            return Some(AuthError::Disabled.into());
        }
        if self.expires_at.is_some_and(|end| end <= now) {
            return Some(AuthError::Expired.into());
        }
        self.suspended.then(|| Refused::Suspended.into())
    }
}

/// What is wrong with a sample, beyond what the API's description says; `at` is where it stands, with a dot behind it.
pub fn problems(at: &str, sample: &SampleRequest, keys: &BTreeMap<String, SampleKey>) -> Vec<FieldProblem> {
    let mut found = Vec::new();
    let mut wrong = |field: &str, message: &str| {
        found.push(FieldProblem { path: format!("{at}{field}"), message: message.to_owned() });
    };
    if sample.model.is_some() == sample.body.is_some() {
        wrong("model", "give either `model` or `body`");
    }
    if sample.key_id.as_ref().is_some_and(|id| !keys.contains_key(id)) {
        wrong("key_id", "there is no such key");
    }
    for (name, value) in &sample.headers {
        if header(name, value).is_none() {
            wrong(&format!("headers.{name}"), "this is no header that a request can have");
        }
    }
    found
}

fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
}

/// What samples are tried by.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The configuration.
    pub loaded: &'a LoadedConfig,
    /// The gauges of the configuration that is in force.
    pub pools: &'a Pools,
    /// The keys that samples name.
    pub keys: &'a BTreeMap<String, SampleKey>,
    /// What is known of the health of those who could answer.
    pub health: &'a dyn Health,
    /// Whose turn it is.
    pub turns: &'a Turns,
    /// The time, in Unix seconds.
    pub now: u64,
}

/// Tries a sample; `random` is what chance decides by, `words` what gauges have said of this sample so far.
pub fn outcome(around: Surroundings<'_>, sample: &SampleRequest, words: &Words, random: u64) -> Tried {
    let Surroundings { loaded, pools, keys, health, turns, now } = around;
    let api = match sample.endpoint {
        Endpoint::ChatCompletions => Api::ChatCompletions,
        Endpoint::Messages => Api::Messages,
        Endpoint::Responses => Api::Responses,
        Endpoint::Embeddings => Api::Embeddings,
        Endpoint::Moderations => Api::Moderations,
        Endpoint::Rerank => Api::Rerank,
        Endpoint::ImageGeneration => Api::ImageGeneration,
        Endpoint::Speech => Api::Speech,
    };
    let path = api.path();
    let body = sample.body.as_ref().map(|body| Value::Object(body.clone()).to_string());
    let model = sample.model.as_deref().unwrap_or_default();
    let key = sample.key_id.as_ref().and_then(|id| keys.get(id));
    let principal = key.map(SampleKey::principal).unwrap_or_default();
    // Where the key may call from is not asked: a simulation comes from nowhere.
    let refusal = key.and_then(|key| key.unusable(now));
    let refusal =
        refusal.or_else(|| (!principal.may_call(path)).then(|| crate::auth::Refusal::Endpoint(path.to_owned()).into()));
    if let Some(refusal) = refusal {
        let named = sample.body.as_ref().and_then(|body| body.get("model")?.as_str()).unwrap_or(model);
        return Tried { told: refused(named, refusal), ..Tried::default() };
    }
    let described = Sample::Described {
        model,
        stream: sample.stream,
        input_tokens: sample.input_tokens.unwrap_or(INPUT_TOKENS),
        max_tokens: sample.max_tokens,
    };
    let tried = body.as_ref().map_or(described, |body| Sample::Body(body.as_bytes()));
    let limits = key.map(SampleKey::limits).unwrap_or_default();
    let headers: HeaderMap = sample.headers.iter().filter_map(|(name, value)| header(name, value)).collect();
    let trying = Trying {
        loaded,
        pools,
        principal: &principal,
        api,
        headers: &headers,
        limits: &limits,
        health,
        turns,
        words,
        random,
        at: now,
    };
    simulate(trying, tried)
}

/// What an account's ledger is to be asked about a sample; nothing without a key.
pub fn question<'a>(
    tried: &'a Tried,
    sample: &SampleRequest,
    keys: &BTreeMap<String, SampleKey>,
) -> Option<(String, &'a Ask)> {
    let key = sample.key_id.as_ref().and_then(|id| keys.get(id))?;
    Some((key.account_id.clone(), tried.ask.as_ref()?))
}

/// What is answered about a sample, with what the ledger of the account says; `now` is in Unix milliseconds.
pub fn result(tried: Tried, ledger: Option<(String, Preview)>, disclose: Disclose, now: u64) -> SampleResult {
    let mut simulated = tried.told;
    let provider = simulated.target.as_ref().map_or("", |target| &target.provider);
    let provider_limits = tried.provider_limits.iter().map(|state| LimitState::of(state, provider, now)).collect();
    let admission = ledger.map(|(account, preview)| {
        let now = preview.at;
        if let Some(breach) = &preview.breach {
            simulated.error = Some(refusal(breach, disclose, now).into());
        }
        SampleAdmission {
            admitted: preview.breach.is_none(),
            reserved: preview.reserved.into(),
            limits: preview.states.iter().map(|state| LimitState::of(state, &account, now)).collect(),
            retry_after_ms: preview.breach.as_ref().and_then(|breach| breach.retry_after_ms),
            refused_by: preview.breach.map(|breach| breach.rule_id),
            shadowed: preview.shadowed.into_iter().map(|breach| breach.rule_id).collect(),
        }
    });
    SampleResult { simulated, admission, provider_limits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PrivateHosts, Snapshot};
    use crate::gateway::itinerary::Unknown;
    use crate::gateway::plan::Deployment;
    use serde_json::json;

    fn try_out(loaded: &LoadedConfig, sample: &SampleRequest, keys: &BTreeMap<String, SampleKey>, now: u64) -> Tried {
        let (pools, turns) = (&loaded.pools, &Turns::default());
        let around = Surroundings { loaded, pools, keys, health: &Unknown, turns, now };
        outcome(around, sample, &Words::new(), 0)
    }

    fn loaded() -> LoadedConfig {
        let config = json!({
            "providers": {"p": {"dialect": "openai", "base_url": "https://p.example/v1"}},
            "models": {"m": {"provider": "p"}, "other": {"provider": "p"}},
            "prices": {"m": {"input": "1", "output": "2"}},
        });
        let snapshot = Snapshot { version: "v".into(), sequence: 0, parent: None, created_at: 0, config };
        let deployment = Deployment { private_hosts: PrivateHosts::Any, environment: Vec::new() };
        LoadedConfig::new(snapshot, &deployment).unwrap()
    }

    fn keys(change: Value) -> BTreeMap<String, SampleKey> {
        let mut key = json!({
            "id": "key_1", "account_id": "a", "user_id": null, "models": ["m"], "endpoints": ["/v1/chat/*"],
            "overrides": {"timeouts": {"total_ms": 5000}}, "disabled": false, "expires_at": 100, "suspended": false,
            "limits": [
                {"id": "lim_1", "user_id": null, "key_id": "key_1", "model": null},
                {"id": "lim_2", "user_id": null, "key_id": null, "model": "other"},
            ],
        });
        for (name, value) in change.as_object().unwrap() {
            key[name] = value.clone();
        }
        BTreeMap::from([("key_1".to_owned(), serde_json::from_value(key).unwrap())])
    }

    fn sample(sample: Value) -> SampleRequest {
        serde_json::from_value(sample).unwrap()
    }

    fn code(tried: &crate::gateway::simulate::Simulated) -> Option<&str> {
        tried.error.as_ref().map(|error| error.code.as_str())
    }

    #[test]
    fn a_sample_is_tried_as_its_key() {
        let told = try_out(
            &loaded(),
            &sample(json!({"model": "m", "key_id": "key_1", "max_tokens": 10})),
            &keys(json!({})),
            1,
        )
        .told;
        assert_eq!((code(&told), told.limits.as_slice()), (None, ["lim_1".to_owned()].as_slice()));
        assert_eq!((told.input_tokens, told.target.unwrap().timeouts.total_ms), (1_000, 5_000));
        let told = try_out(&loaded(), &sample(json!({"model": "other", "key_id": "key_1"})), &keys(json!({})), 1).told;
        assert_eq!(code(&told), Some("model_not_found"));
        let told = try_out(&loaded(), &sample(json!({"model": "other"})), &keys(json!({})), 1).told;
        assert_eq!(code(&told), None);
    }

    #[test]
    fn a_key_that_is_refused_is_refused_here() {
        let by = |change: Value, endpoint: &str, now| {
            let sample = sample(json!({"body": {"model": "m"}, "endpoint": endpoint, "key_id": "key_1"}));
            let told = try_out(&loaded(), &sample, &keys(change), now).told;
            assert_eq!(told.model, "m");
            code(&told).unwrap_or_default().to_owned()
        };
        assert_eq!(by(json!({}), "/v1/messages", 1), "endpoint_not_allowed");
        assert_eq!(by(json!({"disabled": true}), "/v1/chat/completions", 1), "invalid_api_key");
        assert_eq!(by(json!({}), "/v1/chat/completions", 100), "invalid_api_key");
        assert_eq!(by(json!({"suspended": true}), "/v1/chat/completions", 1), "account_suspended");
    }

    #[test]
    fn a_whole_body_can_be_tried() {
        let body = json!({"model": "m", "max_tokens": 7, "messages": [{"role": "user", "content": "hello"}]});
        let told = try_out(&loaded(), &sample(json!({"body": body})), &BTreeMap::new(), 1).told;
        assert_eq!((code(&told), told.max_output_tokens), (None, Some(7)));
    }

    #[test]
    fn the_ledger_is_asked_for_keys_alone_and_its_refusal_is_the_error() {
        let asked = |sample: Value| {
            let (sample, keys) = (self::sample(sample), keys(json!({})));
            let tried = try_out(&loaded(), &sample, &keys, 1);
            question(&tried, &sample, &keys).map(|(account, ask)| (account, ask.model.clone()))
        };
        assert_eq!(asked(json!({"model": "m", "key_id": "key_1"})), Some(("a".to_owned(), "m".to_owned())));
        assert_eq!(asked(json!({"model": "m"})), None);
        assert_eq!(asked(json!({"model": "other", "key_id": "key_1"})), None, "nobody would answer");

        let tried = || try_out(&loaded(), &sample(json!({"model": "m", "key_id": "key_1"})), &keys(json!({})), 1);
        let breach = json!({"rule_id": "lim_1", "scope": "key", "subject": "key_1", "dimension": "requests",
            "period": "minute", "limit": 5, "used": 5, "asked": 1, "retry_after_ms": 900});
        let preview = |breach: Value| Preview { breach: serde_json::from_value(breach).unwrap(), ..Preview::default() };
        let told = result(tried(), Some(("a".to_owned(), preview(breach))), Disclose::All, 0);
        let admission = told.admission.unwrap();
        assert_eq!(
            (admission.admitted, admission.refused_by.as_deref(), admission.retry_after_ms),
            (false, Some("lim_1"), Some(900))
        );
        assert_eq!(told.simulated.error.unwrap().status, 429);
        let told = result(tried(), Some(("a".to_owned(), preview(Value::Null))), Disclose::All, 0);
        assert_eq!((told.admission.unwrap().admitted, told.simulated.error), (true, None));
        assert_eq!(result(tried(), None, Disclose::All, 0).admission, None);
    }

    #[test]
    fn samples_name_a_model_or_a_body_keys_that_exist_and_headers_that_can_be() {
        let paths = |it: Value| -> Vec<String> {
            problems("a.", &sample(it), &keys(json!({}))).into_iter().map(|problem| problem.path).collect()
        };
        assert_eq!(paths(json!({})), ["a.model"]);
        assert_eq!(paths(json!({"model": "m", "body": {}})), ["a.model"]);
        assert_eq!(paths(json!({"model": "m", "key_id": "nope"})), ["a.key_id"]);
        assert_eq!(
            paths(json!({"model": "m", "headers": {"x y": "", "a": "\n", "b": "c"}})),
            ["a.headers.a", "a.headers.x y"]
        );
        assert!(paths(json!({"model": "m", "key_id": "key_1"})).is_empty());
    }
}
