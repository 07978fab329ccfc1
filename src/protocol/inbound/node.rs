//! A value of the caller's body together with the way to it: readers walk it, and their errors name the place.

use std::fmt;

use serde_json::{Map, Value};

use crate::error::Problem;

/// A value and its place. A missing member is a null, and both count as not there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    value: &'a Value,
    parent: Option<&'a Node<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Member(&'a str),
    Item(usize),
}

impl<'a> Node<'a> {
    /// The body as a whole.
    pub(super) fn root(value: &'a Value) -> Self {
        Self { value, parent: None, step: Step::Root }
    }

    /// A member of an object.
    pub(super) fn member<'b>(&'b self, name: &'b str) -> Node<'b> {
        let value = self.value.get(name).unwrap_or(&Value::Null);
        Node { value, parent: Some(self), step: Step::Member(name) }
    }

    /// The value, whatever it is.
    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// Itself, if it is there.
    pub(super) fn given(self) -> Option<Self> {
        (!self.value.is_null()).then_some(self)
    }

    /// The items of a list.
    pub(super) fn items<'b>(&'b self) -> Result<impl Iterator<Item = Node<'b>>, Problem> {
        let Value::Array(items) = self.value else { return Err(self.not("an array")) };
        let node = |(nth, value)| Node { value, parent: Some(self), step: Step::Item(nth) };
        Ok(items.iter().enumerate().map(node))
    }

    /// The members of an object.
    pub(super) fn object(&self) -> Result<&'a Map<String, Value>, Problem> {
        self.value.as_object().ok_or_else(|| self.not("an object"))
    }

    /// A text.
    pub(super) fn text(&self) -> Result<&'a str, Problem> {
        self.value.as_str().ok_or_else(|| self.not("a string"))
    }

    /// A text of one's own.
    pub(super) fn owned(&self) -> Result<String, Problem> {
        self.text().map(str::to_owned)
    }

    /// True or false.
    pub(super) fn flag(&self) -> Result<bool, Problem> {
        self.value.as_bool().ok_or_else(|| self.not("a boolean"))
    }

    /// A number.
    pub(super) fn number(&self) -> Result<f64, Problem> {
        self.value.as_f64().ok_or_else(|| self.not("a number"))
    }

    /// A whole number from 0.
    pub(super) fn whole(&self) -> Result<u64, Problem> {
        self.value.as_u64().ok_or_else(|| self.not("a whole number, 0 or more"))
    }

    /// What is read from it, if it is there.
    pub(super) fn optional<T>(self, read: impl FnOnce(&Self) -> Result<T, Problem>) -> Result<Option<T>, Problem> {
        self.given().map(|node| read(&node)).transpose()
    }

    /// A 400 that names the place.
    pub(super) fn fault(&self, what: &str) -> Problem {
        let at = self.to_string();
        let place = if at.is_empty() { String::new() } else { format!("{at}: ") };
        Problem::invalid(&at, format!("{place}{what}."))
    }

    fn not(&self, expected: &str) -> Problem {
        let found = match self.value {
            Value::Null => return self.fault(&format!("Field required; it must be {expected}")),
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "this number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        self.fault(&format!("must be {expected}, not {found}"))
    }
}

impl fmt::Display for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Item(nth) => write!(f, "[{nth}]"),
            Step::Member(name) if self.parent.is_some_and(|parent| !matches!(parent.step, Step::Root)) => {
                write!(f, ".{name}")
            }
            Step::Member(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_error_names_the_way() {
        let body = json!({"a": [{"b": {"c": 5, "d": null}}], "n": -1});
        let root = Node::root(&body);
        let list = root.member("a");
        let first = list.items().unwrap().next().unwrap();
        let inner = first.member("b");
        let told = |problem: Problem| (problem.param.unwrap_or_default(), problem.message);
        assert_eq!(
            told(inner.member("c").text().unwrap_err()),
            ("a[0].b.c".to_owned(), "a[0].b.c: must be a string, not this number.".to_owned())
        );
        assert!(inner.member("d").text().unwrap_err().message.starts_with("a[0].b.d: Field required"));
        assert!(root.member("x").flag().unwrap_err().message.starts_with("x: Field required"));
        assert!(root.member("n").whole().unwrap_err().message.contains("0 or more"));
        assert!(inner.member("d").given().is_none() && inner.member("d").optional(Node::flag).unwrap().is_none());
        assert_eq!(root.items().err().map(told), Some((String::new(), "must be an array, not an object.".to_owned())));
    }
}
