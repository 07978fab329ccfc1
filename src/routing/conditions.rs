//! Which requests a target is considered for.

use std::cell::OnceCell;
use std::fmt;

use serde_json::{Map, Value};

use super::traits::RequestView;
use crate::config::When;

/// Stands for any value in a list of values.
const ANY: &str = "*";

/// A request, with what is worth reading once.
pub(super) struct Reading<'r> {
    pub(super) request: &'r dyn RequestView,
    metadata: OnceCell<Map<String, Value>>,
}

/// The first condition that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmet<'a> {
    /// A header lacks or has another value.
    Header(&'a str),
    /// A member of the metadata lacks or has another value.
    Metadata(&'a str),
    /// A field of the body lacks or has another value.
    Param(&'a str),
    /// It is about requests for a stream, or about others.
    Stream,
    /// It is about requests with tools, or about others.
    Tools,
    /// The input is too short.
    TooShort,
    /// The input is too long.
    TooLong,
    /// It is for other accounts.
    Account,
    /// It is for other users.
    User,
    /// It is for other keys.
    Key,
}

impl<'r> Reading<'r> {
    pub(super) fn new(request: &'r dyn RequestView) -> Self {
        Self { request, metadata: OnceCell::new() }
    }

    /// The members of `x-gateway-metadata`; none if it is not an object.
    fn metadata(&self) -> &Map<String, Value> {
        self.metadata.get_or_init(|| {
            let header = self.request.header("x-gateway-metadata");
            header.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
        })
    }

    /// Whether the model is given tools.
    fn has_tools(&self) -> bool {
        let listed = |name: &str| {
            let list = self.request.param(name).and_then(|raw| raw.strip_prefix(b"["));
            list.is_some_and(|rest| !rest.trim_ascii_start().starts_with(b"]"))
        };
        listed("tools") || listed("functions")
    }

    /// The first condition that does not hold for the request; `None` if all do. What is cheap is looked at first.
    pub(super) fn unmet<'a>(&self, when: &'a When) -> Option<Unmet<'a>> {
        let request = self.request;
        let is_among = |list: &[String], id: Option<&str>| {
            list.is_empty() || id.is_some_and(|id| list.iter().any(|listed| listed == id))
        };
        if !is_among(&when.accounts, Some(request.account())) {
            return Some(Unmet::Account);
        }
        if !is_among(&when.users, request.user()) {
            return Some(Unmet::User);
        }
        if !is_among(&when.keys, Some(request.key_id())) {
            return Some(Unmet::Key);
        }
        if when.stream.is_some_and(|stream| stream != request.stream()) {
            return Some(Unmet::Stream);
        }
        if when.tools.is_some_and(|tools| tools != self.has_tools()) {
            return Some(Unmet::Tools);
        }
        if let Some((name, _)) = when.headers.iter().find(|(name, values)| !self.header_fits(name, values)) {
            return Some(Unmet::Header(name));
        }
        if let Some((key, _)) = when.metadata.iter().find(|(key, values)| !self.metadata_fits(key, values)) {
            return Some(Unmet::Metadata(key));
        }
        if let Some((name, _)) = when.params.iter().find(|(name, values)| !self.param_fits(name, values)) {
            return Some(Unmet::Param(name));
        }
        if when.min_input_tokens.is_some_and(|least| request.input_tokens() < least) {
            return Some(Unmet::TooShort);
        }
        if when.max_input_tokens.is_some_and(|most| request.input_tokens() > most) {
            return Some(Unmet::TooLong);
        }
        None
    }

    fn header_fits(&self, name: &str, values: &[String]) -> bool {
        let header = self.request.header(name).map(str::trim);
        header.is_some_and(|header| values.iter().any(|value| value == ANY || value == header))
    }

    fn metadata_fits(&self, key: &str, values: &[String]) -> bool {
        let fits = |found: &Value| match found {
            Value::String(text) => values.iter().any(|value| value == ANY || value == text),
            // Numbers and truth values as they are written.
            Value::Number(_) | Value::Bool(_) => {
                let text = found.to_string();
                values.iter().any(|value| value == ANY || *value == text)
            }
            Value::Null | Value::Array(_) | Value::Object(_) => values.iter().any(|value| value == ANY),
        };
        self.metadata().get(key).is_some_and(fits)
    }

    fn param_fits(&self, name: &str, values: &[Value]) -> bool {
        let Some(raw) = self.request.param(name) else { return false };
        if values.iter().any(|value| value == ANY) {
            return true;
        }
        // Only a scalar can be equal to one; a long list or object is not worth reading.
        if raw.first().is_none_or(|first| matches!(first, b'[' | b'{')) {
            return false;
        }
        serde_json::from_slice::<Value>(raw).is_ok_and(|found| values.iter().any(|value| is_same(value, &found)))
    }
}

/// Whether two JSON values are the same; `1` and `1.0` are.
fn is_same(one: &Value, other: &Value) -> bool {
    one == other || (one.is_number() && other.is_number() && one.as_f64() == other.as_f64())
}

impl fmt::Display for Unmet<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(formatter, "the header `{name}` does not have a value that it asks for"),
            Self::Metadata(key) => write!(formatter, "the metadata `{key}` does not have a value that it asks for"),
            Self::Param(name) => write!(formatter, "the field `{name}` does not have a value that it asks for"),
            Self::Stream => formatter.write_str("it is only for requests with another value of `stream`"),
            Self::Tools => formatter.write_str("it is only for requests with tools, or only for those without"),
            Self::TooShort => formatter.write_str("the input is shorter than what it is for"),
            Self::TooLong => formatter.write_str("the input is longer than what it is for"),
            Self::Account => formatter.write_str("it is for other accounts"),
            Self::User => formatter.write_str("it is for other users"),
            Self::Key => formatter.write_str("it is for other keys"),
        }
    }
}

#[cfg(test)]
mod tests;
