//! What filters of questions have in common.

use super::cursor::{Cursor, MAX_NUMBER};
use crate::error::{FieldProblem, Kind, Problem};

/// The account that a question is about: the path's where it names one, else the one asked for, if any. `path` is empty
/// for a question about all accounts.
///
/// # Errors
/// 400 if the path and the filter name two accounts.
pub fn account(path: &str, asked: Option<String>) -> Result<Option<String>, Problem> {
    match asked {
        _ if path.is_empty() => Ok(asked),
        Some(asked) if asked != path => Err(Problem::invalid(
            "account_id",
            format!("This is about the account `{path}` alone. Leave the filter out."),
        )),
        _ => Ok(Some(path.to_owned())),
    }
}

/// A span of time in Unix milliseconds, the end not included; what is left out does not bound it.
///
/// # Errors
/// 400 if it ends before it begins.
pub fn span(from_ms: Option<u64>, to_ms: Option<u64>) -> Result<(u64, u64), Problem> {
    let span = (from_ms.unwrap_or(0), to_ms.unwrap_or(MAX_NUMBER));
    if span.0 < span.1 {
        return Ok(span);
    }
    Err(Problem::invalid(if to_ms.is_some() { "to_ms" } else { "from_ms" }, "The span must begin before it ends."))
}

/// A cursor that stands before `end` at the latest, in a list that is ordered by time, newest first.
#[must_use]
pub fn before(cursor: Cursor, end: u64) -> Cursor {
    if cursor.number < end { cursor } else { Cursor { number: end, text: String::new() } }
}

/// 400 with every field at fault; nothing if there is none.
///
/// # Errors
/// 400.
pub fn refuse(fields: Vec<FieldProblem>) -> Result<(), Problem> {
    let Some(first) = fields.first() else { return Ok(()) };
    let message = format!("{}: {}.", first.path, first.message);
    Err(Problem { fields, ..Problem::new(Kind::InvalidRequest, "invalid_request", message) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_s_account_is_the_only_one() {
        assert_eq!(account("", None).unwrap(), None);
        assert_eq!(account("", Some("b".into())).unwrap().as_deref(), Some("b"));
        assert_eq!(account("a", None).unwrap().as_deref(), Some("a"));
        assert_eq!(account("a", Some("a".into())).unwrap().as_deref(), Some("a"));
        let refused = account("a", Some("b".into())).unwrap_err();
        assert_eq!((refused.status, refused.param.as_deref()), (400, Some("account_id")));
    }

    #[test]
    fn a_span_begins_before_it_ends() {
        assert_eq!(span(None, None).unwrap(), (0, MAX_NUMBER));
        assert_eq!(span(Some(1), Some(2)).unwrap(), (1, 2));
        assert_eq!(span(Some(2), Some(2)).unwrap_err().param.as_deref(), Some("to_ms"));
        assert_eq!(span(Some(MAX_NUMBER), None).unwrap_err().param.as_deref(), Some("from_ms"));
    }

    #[test]
    fn the_end_of_a_span_bounds_the_first_page_alone() {
        assert_eq!(before(Cursor::start(), 7), Cursor { number: 7, text: String::new() });
        let later = Cursor { number: 6, text: "r".into() };
        assert_eq!(before(later.clone(), 7), later);
    }

    #[test]
    fn every_field_at_fault_is_told() {
        assert!(refuse(Vec::new()).is_ok());
        let field = |path: &str| FieldProblem { path: path.into(), message: "is wrong".into() };
        let refused = refuse(vec![field("a"), field("b")]).unwrap_err();
        assert_eq!((refused.message.as_str(), refused.fields.len()), ("a: is wrong.", 2));
    }
}
