//! Reads a whole document and finds everything in it that has the wrong type, not just the first.

use serde_ignored::Path as IgnoredPath;
use serde_json::Value;
use serde_path_to_error::{Path, Segment, Track};

use super::bounds::at;
use super::{Config, ConfigProblem};

/// What a document says.
pub(super) struct Read {
    /// What could be read; what could not has its default.
    pub(super) config: Config,
    /// What has the wrong type, or lacks a field that it needs.
    pub(super) mistyped: Vec<ConfigProblem>,
    /// Fields that do not exist.
    pub(super) unknown: Vec<ConfigProblem>,
}

/// The most mistakes that are told at once.
const MOST_MISTAKES: usize = 50;

/// Reads a document. A part that cannot be read is noted and taken away, and the rest read again.
pub(super) fn read(document: &Value) -> Read {
    let mut taken_away = TakenAway::default();
    let mut mistyped = Vec::new();
    let mut rest = None;
    for _ in 0..MOST_MISTAKES {
        let mut unknown = Vec::new();
        let note = |path: IgnoredPath<'_>| {
            let path = text(&taken_away.original(&ignored_steps(&path)));
            unknown.push(ConfigProblem { path, message: "there is no such field".to_owned() });
        };
        let mut track = Track::new();
        let current: &Value = rest.as_ref().unwrap_or(document);
        let tracked = serde_path_to_error::Deserializer::new(current, &mut track);
        let parsed: Result<Config, _> = serde_ignored::deserialize(tracked, note);
        let error = match parsed {
            Ok(config) => return Read { config, mistyped, unknown },
            Err(error) => error.to_string(),
        };
        let steps = steps(&track.path());
        let path = taken_away.original(&steps);
        if !taken_away.explains(&path, &error) {
            mistyped.push(told(&path, error));
        }
        let rest = rest.get_or_insert_with(|| document.clone());
        if !remove(rest, &steps) {
            *rest = Value::Object(serde_json::Map::new());
        }
        taken_away.0.push(path);
    }
    Read { config: Config::default(), mistyped, unknown: Vec::new() }
}

/// Reads what somebody wrote: the second part is what has the wrong type, or does not exist.
pub(super) fn read_strictly(written: &Value) -> (Config, Vec<ConfigProblem>) {
    let Read { config, mistyped: mut problems, unknown } = read(written);
    problems.extend(unknown);
    if problems.is_empty() {
        let read = serde_json::to_value(&config).unwrap_or_default();
        note_lists("", written, Some(&read), &mut problems);
    }
    (config, problems)
}

/// Notes lists in the places of objects. Serde takes a list's items for the object's fields, one after the other.
fn note_lists(path: &str, written: &Value, read: Option<&Value>, problems: &mut Vec<ConfigProblem>) {
    match (written, read) {
        (Value::Object(written), Some(Value::Object(read))) => {
            for (name, value) in written {
                note_lists(&at(path, name), value, read.get(name), problems);
            }
        }
        (Value::Array(written), Some(Value::Array(read))) => {
            for (nth, (value, read)) in written.iter().zip(read).enumerate() {
                note_lists(&format!("{path}[{nth}]"), value, Some(read), problems);
            }
        }
        // What is empty may be left out of what was read, whether it is a list or an object.
        (Value::Array(written), None) if written.is_empty() => {}
        (Value::Array(_), _) => {
            problems.push(ConfigProblem { path: path.to_owned(), message: "must be an object, not a list".to_owned() });
        }
        _ => {}
    }
}

/// A mistake, at the place that must be changed: what is missing is missing there and not in the object around it.
fn told(path: &[Step], error: String) -> ConfigProblem {
    match error.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        Some(field) => ConfigProblem { path: at(&text(path), field), message: "is required".to_owned() },
        None => ConfigProblem { path: text(path), message: error },
    }
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

fn steps(path: &Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Name(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

fn ignored_steps(path: &IgnoredPath<'_>) -> Vec<Step> {
    let (parent, step) = match path {
        IgnoredPath::Root => return Vec::new(),
        IgnoredPath::Seq { parent, index } => (parent, Some(Step::Index(*index))),
        IgnoredPath::Map { parent, key } => (parent, Some(Step::Name(key.clone()))),
        IgnoredPath::Some { parent }
        | IgnoredPath::NewtypeStruct { parent }
        | IgnoredPath::NewtypeVariant { parent } => (parent, None),
    };
    let mut steps = ignored_steps(parent);
    steps.extend(step);
    steps
}

/// `a.b[2].c`
fn text(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Name(name) if text.is_empty() => text.push_str(name),
            Step::Name(name) => {
                text.push('.');
                text.push_str(name);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Takes the value at a path away; false if there is none.
fn remove(value: &mut Value, steps: &[Step]) -> bool {
    let Some((last, parents)) = steps.split_last() else { return false };
    let parent = parents.iter().try_fold(value, |value, step| match step {
        Step::Name(name) => value.get_mut(name),
        Step::Index(index) => value.get_mut(index),
    });
    match (parent, last) {
        (Some(Value::Object(members)), Step::Name(name)) => members.shift_remove(name).is_some(),
        (Some(Value::Array(items)), Step::Index(index)) if *index < items.len() => {
            items.remove(*index);
            true
        }
        _ => false,
    }
}

/// The paths, in the document as it was written, of what has been taken away.
#[derive(Default)]
struct TakenAway(Vec<Vec<Step>>);

impl TakenAway {
    /// Where something stood before items in front of it were taken away.
    fn original(&self, steps: &[Step]) -> Vec<Step> {
        let mut path: Vec<Step> = Vec::with_capacity(steps.len());
        for step in steps {
            let step = match step {
                Step::Name(name) => Step::Name(name.clone()),
                Step::Index(index) => Step::Index(self.original_index(&path, *index)),
            };
            path.push(step);
        }
        path
    }

    fn original_index(&self, parent: &[Step], index: usize) -> usize {
        let mut gone: Vec<usize> = self
            .0
            .iter()
            .filter_map(|path| match path.split_last() {
                Some((Step::Index(index), before)) if before == parent => Some(*index),
                _ => None,
            })
            .collect();
        gone.sort_unstable();
        gone.into_iter().fold(index, |index, gone| if gone <= index { index.saturating_add(1) } else { index })
    }

    /// Whether an error at a path only says that something is missing which has been taken away.
    fn explains(&self, path: &[Step], error: &str) -> bool {
        self.0.iter().any(|gone| match gone.split_last() {
            Some((Step::Name(name), before)) => before == path && error == format!("missing field `{name}`"),
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mistyped(document: Value) -> Vec<String> {
        read(&document).mistyped.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn every_mistake_is_told_where_it_was_written() {
        let paths = mistyped(json!({
            "http": {"max_body_bytes": "large", "max_json_depth": -1},
            "cors": {"allowed_origins": [1, "https://a.example", 2]},
            "auth": {"issuers": [{"issuer": "a"}, {"issuer": "b", "audiences": [], "algorithms": ["RS256", "HS256", 5]}]},
            "providers": {"p": {"dialect": "klingon", "base_url": 5}, "q": {"dialect": "openai"}},
            "models": {"m": {"enabled": "yes"}},
        }));
        assert_eq!(
            paths,
            [
                "http.max_body_bytes",
                "http.max_json_depth",
                "cors.allowed_origins[0]",
                "cors.allowed_origins[2]",
                "auth.issuers[0].audiences",
                "auth.issuers[1].algorithms[1]",
                "auth.issuers[1].algorithms[2]",
                "providers.p.dialect",
                "providers.p.base_url",
                "models.m.enabled",
                "models.m.provider",
            ]
        );
    }

    #[test]
    fn what_is_no_object_at_all_is_a_mistake_and_nothing_else() {
        assert_eq!(mistyped(json!("x")), [""]);
        assert_eq!(mistyped(json!({"http": 5, "cors": {}})), ["http"]);
    }

    #[test]
    fn a_list_is_no_object() {
        let noted = |document: Value| -> Vec<String> {
            read_strictly(&document).1.into_iter().map(|problem| problem.path).collect()
        };
        assert_eq!(noted(json!([])), [""]);
        assert_eq!(noted(json!([{"max_body_bytes": 5}])), [""]);
        let provider = json!({
            "dialect": "generic", "base_url": "https://p.example", "forward_headers": [], "timeouts": [50],
            "generic": {"body": {"list": [[1], {}]}, "reply": {"text": "/t"}},
        });
        assert_eq!(
            noted(json!({"http": [], "providers": {"p": provider}, "routes": {"r": {"targets": [["m"]]}}})),
            ["http", "providers.p.timeouts", "routes.r.targets[0]"]
        );
    }

    #[test]
    fn what_can_be_read_is_kept() {
        let read = read(&json!({"http": {"max_body_bytes": "x", "max_json_depth": 9, "nope": 1}, "y": [{"z": 1}]}));
        assert_eq!(read.config.http.max_json_depth, 9);
        let unknown: Vec<&str> = read.unknown.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(unknown, ["http.nope", "y"]);
    }
}
