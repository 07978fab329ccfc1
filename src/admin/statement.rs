//! SQL, with its arguments apart.

/// A statement to be prepared and bound. The SQL is a constant of the program: nothing that a caller sends can become
/// part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The SQL, with `?1`, `?2` … for the arguments.
    pub sql: &'static str,
    /// The arguments.
    pub arguments: Vec<Argument>,
}

/// An argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// NULL.
    Null,
    /// A number; exact to 2^53.
    Number(i64),
    /// A text.
    Text(String),
}

impl Statement {
    /// A statement without arguments yet.
    pub fn new(sql: &'static str) -> Self {
        Self { sql, arguments: Vec::new() }
    }

    /// Binds the next argument.
    #[must_use]
    pub fn bind(mut self, argument: impl Into<Argument>) -> Self {
        self.arguments.push(argument.into());
        self
    }
}

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Argument {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Argument {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Argument {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Argument {
    fn from(number: u32) -> Self {
        Self::Number(i64::from(number))
    }
}

impl From<bool> for Argument {
    fn from(flag: bool) -> Self {
        Self::Number(i64::from(flag))
    }
}

impl From<serde_json::Value> for Argument {
    fn from(value: serde_json::Value) -> Self {
        Self::Text(value.to_string())
    }
}

impl<T: Into<Self>> From<Option<T>> for Argument {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_their_kind() {
        let statement =
            Statement::new("x").bind(1u64).bind(true).bind("a").bind(None::<u64>).bind(serde_json::json!([1]));
        let expected =
            [Argument::Number(1), Argument::Number(1), "a".into(), Argument::Null, Argument::Text("[1]".into())];
        assert_eq!(statement.arguments, expected);
    }
}
