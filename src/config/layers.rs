//! The layers of the configuration: built-in defaults, under the deployment's environment variables, under the published
//! version, under what a key overrides.
//!
//! A variable is named `GATEWAY__` and the path of a parameter, its parts joined by two underscores:
//! `GATEWAY__HTTP__MAX_BODY_BYTES`. Upper and lower case count the same. In the place of a name (of a provider, model,
//! route or price) every character but letters and digits is written `_`; it means the published entry whose name is the
//! same when written like that, or else a new one, named in lower case with `-` for `_`. The value is JSON, or simply
//! text where text is expected. A variable that is of no use is reported and ignored.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::bounds::{Bounded as _, Problems, at};
use super::reading::{self, Read};
use super::{Config, ConfigProblem, LimitOverrides, RecordsMode, TimeoutOverrides, Timeouts};

/// How the names of variables begin that belong to the configuration.
pub const ENVIRONMENT_PREFIX: &str = "GATEWAY__";

/// Sections whose members are entries with names.
const NAMED: &[&str] = &["providers", "models", "routes", "prices"];

/// Which layer a value comes from. What is not set anywhere has its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Built in.
    Default,
    /// A variable of the deployment.
    Environment,
    /// The published version.
    Published,
}

/// What all layers come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// What counts.
    pub config: Config,
    /// The same as far as it is set: environment and published version in one document.
    pub document: Value,
    /// Where each value comes from that is set, by its path. Every other one has its default.
    pub origins: BTreeMap<String, Origin>,
    /// What is wrong: in the published version by its path, in the environment by the variable's name.
    pub problems: Vec<ConfigProblem>,
}

impl Effective {
    /// Where the value of a parameter comes from.
    pub fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).copied().unwrap_or(Origin::Default)
    }
}

/// Works out what counts. `environment` are the deployment's variables, of which those that begin with
/// [`ENVIRONMENT_PREFIX`] are looked at. Whatever stands in the environment, the result has no problem that the published
/// version does not have by itself.
pub fn effective(environment: &[(String, String)], published: &Value) -> Effective {
    let alone = Judged::of(published.clone());
    let mut problems = alone.problems.clone();
    let mut variables: Vec<Variable> = Vec::new();
    for (name, text) in environment {
        let Some(path) = variable_path(name) else { continue };
        match resolve(path, published).and_then(|path| Variable::read(name, path, text, published)) {
            Ok(variable) => variables.push(variable),
            Err(message) => problems.push(ConfigProblem { path: name.clone(), message }),
        }
    }
    // The same whatever order the platform lists its variables in; the general before the particular.
    variables.sort_by(|a, b| a.path.cmp(&b.path));
    let mut judged = alone.clone();
    while !variables.is_empty() {
        judged = Judged::of(merged(layer(&variables), published));
        let Some(problem) = judged.problems.iter().find(|problem| !alone.problems.contains(problem)) else { break };
        // What belongs together is only of use together: the whole entry goes, or else the section, or else everything.
        let depth = [2, 1].into_iter().find(|depth| variables.iter().any(|one| one.concerns(&problem.path, *depth)));
        let (to_blame, others): (Vec<_>, Vec<_>) = std::mem::take(&mut variables)
            .into_iter()
            .partition(|one| depth.is_none_or(|depth| one.concerns(&problem.path, depth)));
        variables = others;
        problems.extend(to_blame.into_iter().map(|variable| ConfigProblem {
            path: variable.name,
            message: format!("{}: {}", problem.path, problem.message),
        }));
        judged = alone.clone();
    }
    let mut origins = BTreeMap::new();
    note_leaves(&layer(&variables), "", Origin::Environment, &mut origins);
    note_leaves(published, "", Origin::Published, &mut origins);
    Effective { config: judged.config, document: judged.document, origins, problems }
}

/// A document and what is wrong with it.
#[derive(Clone)]
struct Judged {
    document: Value,
    config: Config,
    problems: Vec<ConfigProblem>,
}

impl Judged {
    fn of(document: Value) -> Self {
        let Read { config, mistyped: mut problems, .. } = reading::read(&document);
        problems.extend(config.problems());
        Self { document, config, problems }
    }
}

/// A variable that says something about a parameter.
struct Variable {
    name: String,
    path: Vec<String>,
    value: Value,
}

impl Variable {
    /// Reads a variable: as JSON if that fits, else as text if that does.
    fn read(name: &str, path: Vec<String>, text: &str, published: &Value) -> Result<Self, String> {
        let json = serde_json::from_str::<Value>(text).ok();
        let mut first = None;
        for value in json.into_iter().chain([Value::from(text)]) {
            let variable = Self { name: name.to_owned(), path: path.clone(), value };
            let document = merged(variable.document(), published);
            // Seen by itself an entry may lack what another variable says; only what is said here is judged.
            let Read { mistyped, unknown, .. } = reading::read(&document);
            let said = variable.path.join(".");
            let wrong = mistyped.into_iter().chain(unknown).find(|problem| {
                problem.message != "is required" && (lies_in(&problem.path, &said) || lies_in(&said, &problem.path))
            });
            match wrong {
                None => return Ok(variable),
                Some(problem) => first.get_or_insert(format!("{}: {}", problem.path, problem.message)),
            };
        }
        Err(first.unwrap_or_default())
    }

    /// The document that says this alone.
    fn document(&self) -> Value {
        self.path.iter().rev().fold(self.value.clone(), |value, part| {
            let mut object = Map::new();
            object.insert(part.clone(), value);
            Value::Object(object)
        })
    }

    /// Whether the first parts of its path, so many of them, are those of a problem.
    fn concerns(&self, problem: &str, depth: usize) -> bool {
        let path: Vec<&str> = self.path.iter().take(depth).map(String::as_str).collect();
        let path = path.join(".");
        lies_in(problem, &path) || lies_in(&path, problem)
    }
}

/// Whether a path is another one or leads further into it.
fn lies_in(path: &str, outer: &str) -> bool {
    outer.is_empty() || path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn layer(variables: &[Variable]) -> Value {
    variables.iter().fold(Value::Object(Map::new()), |document, variable| merged(document, &variable.document()))
}

/// The parts of a variable's name behind the prefix, in lower case; `None` if it is not one of ours.
fn variable_path(name: &str) -> Option<Vec<String>> {
    let name = name.to_ascii_lowercase();
    let rest = name.strip_prefix(&ENVIRONMENT_PREFIX.to_ascii_lowercase())?;
    Some(rest.split("__").map(str::to_owned).collect())
}

/// Finds the entry that a variable means by its name.
fn resolve(mut path: Vec<String>, published: &Value) -> Result<Vec<String>, String> {
    if path.iter().any(String::is_empty) {
        return Err("is not the path of a parameter".to_owned());
    }
    let [section, name, ..] = path.as_mut_slice() else { return Ok(path) };
    if !NAMED.contains(&section.as_str()) {
        return Ok(path);
    }
    let as_variable = |name: &str| -> String {
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
    };
    let entries = published.get(&*section).and_then(Value::as_object);
    let meant: Vec<&String> =
        entries.into_iter().flat_map(Map::keys).filter(|entry| as_variable(entry) == *name).collect();
    match meant.as_slice() {
        [] => *name = name.replace('_', "-"),
        [entry] => name.clone_from(entry),
        [one, other, ..] => return Err(format!("could mean `{one}` or `{other}`")),
    }
    Ok(path)
}

/// `over`, with what only `under` says added.
fn merged(mut under: Value, over: &Value) -> Value {
    merge(&mut under, over);
    under
}

fn merge(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                match under.get_mut(name) {
                    Some(below) => merge(below, value),
                    None => {
                        under.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (under, over) => *under = over.clone(),
    }
}

fn note_leaves(value: &Value, path: &str, origin: Origin, origins: &mut BTreeMap<String, Origin>) {
    match value {
        Value::Object(members) if !members.is_empty() || path.is_empty() => {
            for (name, value) in members {
                note_leaves(value, &at(path, name), origin, origins);
            }
        }
        _ => {
            origins.insert(path.to_owned(), origin);
        }
    }
}

/// What an API key overrides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// Time bounds in place of the provider's and the general ones.
    #[serde(skip_serializing_if = "TimeoutOverrides::is_empty")]
    pub timeouts: TimeoutOverrides,
    /// Which of the key's requests are kept as records, in place of `records.mode`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<RecordsMode>,
    /// Whether the key's requests that went well are logged, in place of `logging.log_successes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_successes: Option<bool>,
    /// Whether the key may ask how it was decided who answers it, in place of `http.explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<bool>,
    /// How limits are enforced while the account's ledger cannot be reached, in place of what `limits` says.
    #[serde(skip_serializing_if = "LimitOverrides::is_empty")]
    pub limits: LimitOverrides,
}

impl Overrides {
    /// Reads what lies with a key. What a later version wrote and this one does not know counts as not there.
    pub fn read(stored: &Value) -> Self {
        let part = |name: &str| stored.get(name).cloned().unwrap_or_default();
        Self {
            timeouts: serde_json::from_value(part("timeouts")).unwrap_or_default(),
            records: serde_json::from_value(part("records")).unwrap_or_default(),
            log_successes: part("log_successes").as_bool(),
            explain: part("explain").as_bool(),
            limits: serde_json::from_value(part("limits")).unwrap_or_default(),
        }
    }

    /// Everything that is out of bounds.
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut found = Problems::default();
        self.timeouts.check_bounds("timeouts", &mut found);
        found.0
    }

    /// The time bounds of a request of the key's.
    #[must_use]
    pub fn timeouts(&self, general: Timeouts) -> Timeouts {
        self.timeouts.over(general)
    }

    /// The configuration as it counts for the key. A provider's own time bounds are overridden as well: by
    /// [`Self::timeouts`], when its bounds are known.
    pub fn apply(&self, config: &mut Config) {
        config.timeouts = self.timeouts(config.timeouts);
        config.records.mode = self.records.unwrap_or(config.records.mode);
        config.logging.log_successes = self.log_successes.unwrap_or(config.logging.log_successes);
        config.http.explain = self.explain.unwrap_or(config.http.explain);
        self.limits.apply(&mut config.limits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(variables: &[(&str, &str)], published: Value) -> Effective {
        let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        effective(&variables, &published)
    }

    fn wrong(effective: &Effective) -> Vec<&str> {
        effective.problems.iter().map(|problem| problem.path.as_str()).collect()
    }

    #[test]
    fn the_published_version_stands_above_the_environment_and_that_above_the_defaults() {
        let layers = with(
            &[("GATEWAY__HTTP__MAX_JSON_DEPTH", "100"), ("gateway__http__max_error_bytes", "5000"), ("PATH", "/bin")],
            json!({"http": {"max_json_depth": 32}}),
        );
        assert_eq!(layers.problems, []);
        assert_eq!(layers.config.http.max_json_depth, 32);
        assert_eq!(layers.config.http.max_error_bytes, 5000);
        assert_eq!(layers.origin("http.max_json_depth"), Origin::Published);
        assert_eq!(layers.origin("http.max_error_bytes"), Origin::Environment);
        assert_eq!(layers.origin("http.disclose"), Origin::Default);
        assert_eq!(layers.document, json!({"http": {"max_json_depth": 32, "max_error_bytes": 5000}}));
    }

    #[test]
    fn values_are_json_or_plain_text() {
        let layers = with(
            &[
                ("GATEWAY__CORS__ALLOWED_ORIGINS", r#"["https://a.example"]"#),
                ("GATEWAY__LOGGING__CLIENT_IP", "truncated"),
                ("GATEWAY__HTTP__DISCLOSE", "false"),
                ("GATEWAY__PROVIDERS__P__USER_AGENT", "123"),
            ],
            json!({"providers": {"p": {"dialect": "openai", "base_url": "https://p.example"}}}),
        );
        assert_eq!(layers.problems, []);
        assert_eq!(layers.config.cors.allowed_origins, ["https://a.example"]);
        assert_eq!(layers.config.logging.client_ip, crate::config::ClientIp::Truncated);
        assert!(!layers.config.http.disclose);
        assert_eq!(layers.config.providers.get("p").unwrap().user_agent.as_deref(), Some("123"));
    }

    #[test]
    fn entries_are_found_by_the_way_their_names_are_written_in_variables() {
        let published = json!({
            "providers": {"My.Provider": {"dialect": "openai", "base_url": "https://p.example"}},
            "models": {"a/b": {"provider": "My.Provider"}, "a-b": {"provider": "My.Provider"}},
        });
        let layers = with(
            &[
                ("GATEWAY__PROVIDERS__MY_PROVIDER__CREDENTIAL", "P_KEY"),
                ("GATEWAY__PROVIDERS__NEW_ONE__DIALECT", "openai"),
                ("GATEWAY__PROVIDERS__NEW_ONE__BASE_URL", "https://n.example/v1"),
                ("GATEWAY__MODELS__A_B__ENABLED", "false"),
            ],
            published,
        );
        assert_eq!(layers.config.providers.get("My.Provider").unwrap().credential.as_deref(), Some("P_KEY"));
        assert_eq!(layers.config.providers.get("new-one").unwrap().base_url(), "https://n.example/v1");
        assert_eq!(wrong(&layers), ["GATEWAY__MODELS__A_B__ENABLED"]);
    }

    #[test]
    fn a_variable_that_is_of_no_use_is_told_and_ignored() {
        let published = json!({"admin": {"page_size_default": 100}});
        let layers = with(
            &[
                ("GATEWAY__HTTP__MAX_JSON_DEPTH", "many"),
                ("GATEWAY__HTTP__NOPE", "1"),
                ("GATEWAY__NOPE", "1"),
                ("GATEWAY__", "1"),
                ("GATEWAY__HTTP____X", "1"),
                ("GATEWAY__TIMEOUTS__IDLE_MS", "1"),
                ("GATEWAY__ADMIN__PAGE_SIZE_MAX", "50"),
                ("GATEWAY__PROVIDERS__HALF__DIALECT", "openai"),
                ("GATEWAY__HTTP__HSTS_SECONDS", "60"),
            ],
            published.clone(),
        );
        let mut told = wrong(&layers);
        told.sort_unstable();
        assert_eq!(
            told,
            [
                "GATEWAY__",
                "GATEWAY__ADMIN__PAGE_SIZE_MAX",
                "GATEWAY__HTTP__MAX_JSON_DEPTH",
                "GATEWAY__HTTP__NOPE",
                "GATEWAY__HTTP____X",
                "GATEWAY__NOPE",
                "GATEWAY__PROVIDERS__HALF__DIALECT",
                "GATEWAY__TIMEOUTS__IDLE_MS",
            ]
        );
        assert_eq!(layers.config.http.hsts_seconds, 60);
        assert_eq!(layers.config.admin.page_size_max, Config::default().admin.page_size_max);
        assert!(layers.config.problems().is_empty());
    }

    #[test]
    fn what_is_wrong_with_the_published_version_is_told_by_its_path() {
        assert_eq!(wrong(&with(&[], json!({"http": {"max_json_depth": 1}}))), ["http.max_json_depth"]);
    }

    #[test]
    fn a_key_overrides_what_it_says() {
        let overrides = Overrides::read(&json!({"timeouts": {"idle_ms": 700}, "records": "off", "later": 1}));
        let mut config = Config::default();
        overrides.apply(&mut config);
        assert_eq!((config.timeouts.idle_ms, config.timeouts.total_ms), (700, 600_000));
        assert_eq!((config.records.mode, config.logging.log_successes), (RecordsMode::Off, true));
        assert_eq!(Overrides::read(&json!(5)), Overrides::default());
        let wrong: Overrides = serde_json::from_value(json!({"timeouts": {"idle_ms": 1}})).unwrap();
        assert_eq!(wrong.problems().len(), 1);
    }
}
