//! Finds the operation that a request means.

use http::Method;

use super::operations::{OPERATIONS, Operation};
use crate::error::{Kind, Problem};
use crate::http::routes::decode;

/// An operation and the values of its path's parameters.
#[derive(Debug, Clone)]
pub struct Matched {
    /// The operation.
    pub operation: &'static Operation,
    parameters: Vec<(&'static str, String)>,
}

impl Matched {
    /// A parameter's value; empty for one that the path does not have.
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value.as_str())
    }

    /// All parameters.
    pub fn parameters(&self) -> &[(&'static str, String)] {
        &self.parameters
    }
}

/// Longest value of a parameter, in bytes.
const MAX_PARAMETER_BYTES: usize = 256;

/// Finds the operation of a method and a path.
///
/// # Errors
/// 404 for an unknown path, 405 (with the methods that would do) for a known one.
pub fn find(method: &Method, path: &str) -> Result<Matched, Problem> {
    let mut allowed = Vec::new();
    for operation in OPERATIONS {
        let Some(parameters) = match_path(operation.path, path) else { continue };
        let own = operation.method.method();
        if own == *method || (own == Method::GET && *method == Method::HEAD) {
            return Ok(Matched { operation, parameters });
        }
        allowed.push(own.to_string());
    }
    if allowed.is_empty() {
        let message = format!("There is nothing at {path}. /admin/openapi.json describes what there is.");
        return Err(Problem::new(Kind::NotFound, "unknown_url", message));
    }
    let message = format!("{path} does not take {method}; use {}.", allowed.join(", "));
    let mut problem = Problem::new(Kind::MethodNotAllowed, "method_not_allowed", message);
    problem.allow = Some(format!("{}, OPTIONS", allowed.join(", ")));
    Err(problem)
}

fn match_path(pattern: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let mut parameters = Vec::new();
    let mut given = path.split('/');
    for segment in pattern.split('/') {
        let value = given.next()?;
        match segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}')) {
            None if segment == value => {}
            None => return None,
            Some(name) => {
                let value = decode(value).filter(|value| {
                    (1..=MAX_PARAMETER_BYTES).contains(&value.len()) && !value.chars().any(char::is_control)
                })?;
                parameters.push((name, value));
            }
        }
    }
    given.next().is_none().then_some(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::operations::Op;

    #[test]
    fn a_path_finds_its_operation_and_parameters() {
        let found = find(&Method::GET, "/admin/v1/accounts/a-1/keys/key_x").unwrap();
        assert_eq!(
            (found.operation.op, found.parameter("account"), found.parameter("key")),
            (Op::GetKey, "a-1", "key_x")
        );
        let found = find(&Method::PUT, "/admin/v1/models/openai%2Fgpt-4o").unwrap();
        assert_eq!((found.operation.op, found.parameter("name")), (Op::PutModel, "openai/gpt-4o"));
        assert_eq!(find(&Method::HEAD, "/admin/v1/users").unwrap().operation.op, Op::ListUsers);
    }

    #[test]
    fn anything_else_is_refused() {
        for path in
            ["/admin", "/admin/v1/users/", "/admin/v1/users//tokens", "/admin/v1/users/%zz", "/admin/v1/users/%00"]
        {
            assert_eq!(find(&Method::GET, path).unwrap_err().status, 404, "{path}");
        }
        let refused = find(&Method::PUT, "/admin/v1/users").unwrap_err();
        assert_eq!((refused.status, refused.allow.as_deref()), (405, Some("GET, POST, OPTIONS")));
    }

    #[test]
    fn no_operation_hides_another() {
        for operation in OPERATIONS {
            let path = operation.path.replace(['{', '}'], "");
            let found = find(&operation.method.method(), &path).unwrap();
            assert_eq!(found.operation.op, operation.op, "{path}");
        }
    }
}
