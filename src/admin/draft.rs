//! The configuration's draft: what is wrong with it or a part of it, what it refers to, what a change of it is.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::config::{Change, Config, CredentialSource, canonical_json, diff, is_own_secret};
use crate::error::{FieldProblem, Kind, Problem};

/// Largest configuration, in bytes of JSON: the database takes 2 MB in one value, and needs room for what goes with it.
pub const MAX_DOCUMENT_BYTES: usize = 1_900_000;

/// Largest entry, or settings, that can be changed by themselves, in bytes of JSON: the audit log has what they were and
/// what they become in one row.
pub const MAX_PART_BYTES: usize = 400_000;

/// How many differences the audit log takes one by one …
const TOLD_CHANGES: usize = 200;
/// … and how long they may be together, in bytes of JSON.
const TOLD_BYTES: usize = 64 * 1024;

/// What is wrong with an entry by itself. Paths lead into the entry.
pub fn entry_problems(section: &str, name: &str, entry: &Value) -> Vec<FieldProblem> {
    let entries = Map::from_iter([(name.to_owned(), entry.clone())]);
    let document = Map::from_iter([(section.to_owned(), Value::Object(entries))]);
    let place = format!("{section}.{name}");
    let mut problems = Config::problems_of_parts(&Value::Object(document));
    for problem in &mut problems {
        let within = problem.path.strip_prefix(&place).unwrap_or(&problem.path);
        problem.path = within.trim_start_matches('.').to_owned();
    }
    problems.extend(too_large(entry, MAX_PART_BYTES));
    problems
}

/// What is wrong with the settings that are no entries.
pub fn settings_problems(settings: &Value) -> Vec<FieldProblem> {
    let mut problems = Config::problems_of_parts(settings);
    problems.extend(too_large(settings, MAX_PART_BYTES));
    problems
}

fn too_large(value: &Value, most: usize) -> Option<FieldProblem> {
    let bytes = canonical_json(value).len();
    let message = format!("has {bytes} bytes, but must have {most} at most");
    (bytes > most).then(|| FieldProblem { path: String::new(), message })
}

/// Reads a whole configuration.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(document: &Value) -> Result<Config, Vec<FieldProblem>> {
    let config = Config::parse(document);
    let Some(problem) = too_large(document, MAX_DOCUMENT_BYTES) else { return config };
    let mut problems = config.err().unwrap_or_default();
    problems.insert(0, problem);
    Err(problems)
}

/// The stored credentials that providers refer to, by the path of the reference.
pub fn stored_credentials(config: &Config) -> BTreeMap<String, String> {
    references(config)
        .filter_map(|(path, source)| match source {
            CredentialSource::Stored(id) => Some((path, id.to_owned())),
            CredentialSource::WorkerSecret(_) => None,
        })
        .collect()
}

/// The Worker secrets that providers refer to, by the path of the reference.
pub fn worker_secrets(config: &Config) -> BTreeMap<String, String> {
    references(config)
        .filter_map(|(path, source)| match source {
            CredentialSource::WorkerSecret(name) => Some((path, name.to_owned())),
            CredentialSource::Stored(_) => None,
        })
        .collect()
}

fn references(config: &Config) -> impl Iterator<Item = (String, CredentialSource<'_>)> {
    let providers = config.providers.iter();
    providers
        .filter_map(|(name, provider)| Some((format!("providers.{name}.credential"), provider.credential_source()?)))
}

/// 400 with all fields at fault, if there are any; `place` is where in the request they are.
///
/// # Errors
/// 400.
pub fn refuse(place: &str, problems: Vec<FieldProblem>) -> Result<(), Problem> {
    let Some(mut problem) = problem(Kind::InvalidRequest, "invalid_request", problems) else { return Ok(()) };
    if !place.is_empty() {
        for field in &mut problem.fields {
            let path = std::mem::take(&mut field.path);
            field.path = if path.is_empty() { place.to_owned() } else { format!("{place}.{path}") };
        }
    }
    Err(problem)
}

/// A problem that tells all fields at fault; `None` if there are none.
pub fn problem(kind: Kind, code: &str, fields: Vec<FieldProblem>) -> Option<Problem> {
    let first = fields.first()?;
    let place = if first.path.is_empty() { String::new() } else { format!("{}: ", first.path) };
    let more = match fields.len() {
        1 => String::new(),
        n => format!(" ({n} problems in all, see `errors`)"),
    };
    let mut problem = Problem::new(kind, code, format!("{place}{}.{more}", first.message)).final_answer();
    problem.fields = fields;
    Some(problem)
}

/// What is wrong with a stored credential's settings, beyond what the API's description says.
pub fn credential_problems(value: Option<&str>, worker_secret: Option<&str>) -> Vec<FieldProblem> {
    let told = |path: &str, message: &str| FieldProblem { path: path.to_owned(), message: message.to_owned() };
    match (value, worker_secret) {
        (Some(value), None) if value.trim() != value || !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) => {
            vec![told("value", "begins or ends with white space, or has characters that no header can carry")]
        }
        (None, Some(name)) if is_own_secret(name) => {
            vec![told("worker_secret", "is a secret of the gateway's own: the provider would learn it")]
        }
        (None, Some(name)) if !is_word(name) => {
            vec![told("worker_secret", "must be a name of letters, digits and `_`")]
        }
        (Some(_), None) | (None, Some(_)) => Vec::new(),
        _ => vec![told("value", "give either `value` or `worker_secret`")],
    }
}

fn is_word(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
}

/// What of a credential may be shown: its end, and of a short one nothing.
pub fn hint(value: &str) -> String {
    let letters = value.chars().count();
    if letters < 20 { String::new() } else { value.chars().skip(letters.saturating_sub(4)).collect() }
}

/// Two states of a configuration for the audit log: what differs, by its path; or only the hashes and how much it is
/// where that would be too long.
pub fn summary(old: (&Value, &str), new: (&Value, &str)) -> (Value, Value) {
    let changes = diff(old.0, new.0);
    let side = |hash: &str, of: fn(&Change) -> Option<&Value>| {
        let values = changes.iter().filter_map(|change| Some((change.path.clone(), of(change)?.clone())));
        json!({"hash": hash, "changes": Value::Object(values.collect())})
    };
    let before = side(old.1, |change| change.before.as_ref());
    let after = side(new.1, |change| change.after.as_ref());
    let fits = |side: &Value| side.to_string().len() <= TOLD_BYTES;
    if changes.len() <= TOLD_CHANGES && fits(&before) && fits(&after) {
        return (before, after);
    }
    (json!({"hash": old.1}), json!({"hash": new.1, "number_of_changes": changes.len()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(problems: &[FieldProblem]) -> Vec<&str> {
        problems.iter().map(|problem| problem.path.as_str()).collect()
    }

    #[test]
    fn an_entry_is_judged_by_itself() {
        let provider =
            json!({"dialect": "generic", "base_url": "nowhere", "headers": {"authorization": "x"}, "nope": 1});
        let found = entry_problems("providers", "my.provider", &provider);
        assert_eq!(paths(&found), ["nope", "base_url", "headers.authorization", ""]);
        assert_eq!(entry_problems("models", "m", &json!({"provider": "whoever"})), []);
        assert_eq!(entry_problems("prices", "m", &json!({"input": "1.5"})), []);
        assert_eq!(paths(&entry_problems("routes", "r", &json!({"targets": [{"model": ""}]}))), ["targets[0].model"]);
        assert_eq!(paths(&entry_problems("models", "bad\u{1}", &json!({"provider": "p"}))), [""]);
    }

    #[test]
    fn settings_are_judged_by_themselves() {
        assert_eq!(settings_problems(&json!({"http": {"hsts_seconds": 1}})), []);
        let found = settings_problems(&json!({"http": {"max_json_depth": 0}, "cors": {"allowed_origins": ["x/"]}}));
        assert_eq!(paths(&found), ["http.max_json_depth", "cors.allowed_origins[0]"]);
    }

    #[test]
    fn a_configuration_that_the_database_cannot_hold_is_refused() {
        let description = "x".repeat(1000);
        let model = json!({"provider": "p", "description": description});
        let models: Map<String, Value> = (0..2000).map(|nth| (format!("m{nth}"), model.clone())).collect();
        let provider = json!({"dialect": "openai", "base_url": "https://p.example/v1"});
        let problems = read(&json!({"providers": {"p": provider}, "models": models})).unwrap_err();
        assert_eq!(paths(&problems), [""]);
        assert!(problems[0].message.contains("at most"));
    }

    #[test]
    fn a_part_that_the_audit_log_cannot_hold_twice_is_refused() {
        let body = json!({"prompt": "x".repeat(MAX_PART_BYTES)});
        let generic = json!({"body": body, "reply": {"text": "/t"}});
        let provider = json!({"dialect": "generic", "base_url": "https://p.example", "generic": generic});
        assert_eq!(paths(&entry_problems("providers", "p", &provider)), [""]);
        assert_eq!(settings_problems(&json!({"http": {}})), []);
    }

    #[test]
    fn references_to_credentials_are_found() {
        let config = read(&json!({"providers": {
            "a": {"dialect": "openai", "base_url": "https://p.example/v1", "credential": "stored:crd_1"},
            "b": {"dialect": "openai", "base_url": "https://p.example/v1", "credential": "P_KEY"},
            "c": {"dialect": "openai", "base_url": "https://p.example/v1"},
        }}));
        let config = config.unwrap();
        let one = |path: &str, name: &str| BTreeMap::from([(path.to_owned(), name.to_owned())]);
        assert_eq!(stored_credentials(&config), one("providers.a.credential", "crd_1"));
        assert_eq!(worker_secrets(&config), one("providers.b.credential", "P_KEY"));
    }

    #[test]
    fn a_credential_is_a_value_or_a_foreign_secret() {
        let wrong = |value, secret| paths(&credential_problems(value, secret)).join(",");
        assert_eq!(wrong(Some("sk-1"), None), "");
        assert_eq!(wrong(None, Some("P_KEY")), "");
        assert_eq!(wrong(None, None), "value");
        assert_eq!(wrong(Some("sk-1"), Some("P_KEY")), "value");
        assert_eq!(wrong(Some("sk-1\n"), None), "value");
        assert_eq!(wrong(Some("sk\u{7f}1"), None), "value");
        assert_eq!(wrong(Some("sk-ä"), None), "value");
        assert_eq!(wrong(None, Some("MASTER_SECRET")), "worker_secret");
        assert_eq!(wrong(None, Some("a-b")), "worker_secret");
        assert_eq!(wrong(None, Some("1a")), "worker_secret");
    }

    #[test]
    fn only_long_credentials_show_their_end() {
        assert_eq!(hint("0123456789012345678"), "");
        assert_eq!(hint("01234567890123456789"), "6789");
        assert_eq!(hint("ääääääääääääääääääää"), "ääää");
    }

    #[test]
    fn fields_are_told_where_they_are_in_the_request() {
        assert!(refuse("document", Vec::new()).is_ok());
        let field = |path: &str| FieldProblem { path: path.into(), message: "is wrong".into() };
        let problem = refuse("document", vec![field(""), field("a.b")]).unwrap_err();
        assert_eq!(paths(&problem.fields), ["document", "document.a.b"]);
        assert_eq!(problem.status, 400);
    }

    #[test]
    fn the_audit_log_gets_differences_unless_they_are_too_long() {
        let (old, new) = (json!({"http": {"hsts_seconds": 1}}), json!({"http": {"hsts_seconds": 2}, "cors": {}}));
        let (before, after) = summary((&old, "o"), (&new, "n"));
        assert_eq!(before, json!({"hash": "o", "changes": {"http.hsts_seconds": 1}}));
        assert_eq!(after, json!({"hash": "n", "changes": {"http.hsts_seconds": 2, "cors": {}}}));
        let long = json!({"x": "y".repeat(TOLD_BYTES)});
        assert_eq!(
            summary((&old, "o"), (&long, "n")),
            (json!({"hash": "o"}), json!({"hash": "n", "number_of_changes": 2}))
        );
    }
}
