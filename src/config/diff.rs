//! What is different between two documents.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds::at;

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It is not there any more.
    Removed,
    /// It is another one.
    Changed,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Where, such as `providers.openai.base_url`.
    pub path: String,
    /// What became of it.
    pub kind: ChangeKind,
    /// The value before, unless it was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The value after, unless it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Everything that is different, in the order of the paths. Objects are compared member by member, lists as a whole.
pub fn diff(old: &Value, new: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", Some(old), Some(new), &mut changes);
    changes
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    let change = match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                compare(&at(path, name), old.get(name), new.get(name), changes);
            }
            return;
        }
        (Some(old), Some(new)) if old == new => return,
        (None, None) => return,
        (None, Some(_)) => ChangeKind::Added,
        (Some(_), None) => ChangeKind::Removed,
        (Some(_), Some(_)) => ChangeKind::Changed,
    };
    changes.push(Change { path: path.to_owned(), kind: change, before: old.cloned(), after: new.cloned() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn differences_are_told_by_path_in_a_stable_order() {
        let old = json!({"b": {"x": 1, "y": [1]}, "a": {"gone": true}, "same": {"z": 1}});
        let new = json!({"same": {"z": 1}, "b": {"y": [1, 2], "x": 1, "new": {"k": null}}, "a": {}});
        let told: Vec<_> = diff(&old, &new).into_iter().map(|change| (change.path, change.kind)).collect();
        assert_eq!(
            told,
            [
                ("a.gone".to_owned(), ChangeKind::Removed),
                ("b.new".to_owned(), ChangeKind::Added),
                ("b.y".to_owned(), ChangeKind::Changed),
            ]
        );
        let change = diff(&json!({"a": 1}), &json!({"a": {"b": 1}})).pop().unwrap();
        assert_eq!((change.before, change.after), (Some(json!(1)), Some(json!({"b": 1}))));
    }

    proptest! {
        #[test]
        fn only_what_is_equal_has_no_differences(old in document(), new in document()) {
            prop_assert_eq!(diff(&old, &new).is_empty(), old == new);
            prop_assert_eq!(diff(&old, &new).len(), diff(&new, &old).len());
        }
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), (0u8..3).prop_map(Value::from), "[ab]".prop_map(Value::from)];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::btree_map("[abc]", inner.clone(), 0..3)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
                prop::collection::vec(inner, 0..3).prop_map(Value::Array),
            ]
        })
    }
}
