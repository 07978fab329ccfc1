//! Labels that callers attach to things.

use crate::admin::types::Metadata;
use crate::error::{FieldProblem, Problem};

/// Labels a thing may have.
const MOST: usize = 64;
/// Longest name of one, in bytes.
const LONGEST_NAME: usize = 64;
/// Longest value of one, in bytes.
const LONGEST_VALUE: usize = 512;

/// What is wrong with labels.
pub(super) fn check(metadata: &Metadata, fields: &mut Vec<FieldProblem>) {
    let mut add = |path: &str, message: String| fields.push(FieldProblem { path: path.to_owned(), message });
    if metadata.len() > MOST {
        add("metadata", format!("must have at most {MOST} entries"));
    }
    for (name, value) in metadata {
        let path = format!("metadata.{name}");
        if name.is_empty() || name.len() > LONGEST_NAME {
            add(&path, format!("a name must have 1 to {LONGEST_NAME} bytes"));
        }
        if value.len() > LONGEST_VALUE {
            add(&path, format!("must have at most {LONGEST_VALUE} bytes"));
        }
    }
}

/// 400 unless labels are within bounds.
///
/// # Errors
/// 400 with everything that is wrong with them.
pub(super) fn require(metadata: &Metadata) -> Result<(), Problem> {
    let mut fields = Vec::new();
    check(metadata, &mut fields);
    Problem::of_fields(fields)
}
