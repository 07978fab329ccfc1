//! The figures that `docs/limits.md` publishes are what the code does: each table is worked out anew and must be the one
//! that stands there. `UPDATE_GENERATED=1 cargo nextest run -j1 --test published` writes them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking; helpers are outside the tests' own allowance"
)]
#![expect(clippy::print_stderr, reason = "a skipped test says that it was skipped")]

#[path = "published/inputs.rs"]
mod inputs;
#[path = "published/policies.rs"]
mod policies;
#[path = "goldens/recorded.rs"]
mod recorded;
#[path = "published/recordings.rs"]
mod recordings;
#[path = "../src/seeded.rs"]
mod seeded;

use std::fs;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/limits.md");

/// Checks, or writes, the table between the page's markers of this name.
pub(crate) fn published(name: &str, table: &str) {
    let (begin, end) = (format!("<!-- {name}: generated -->\n"), format!("<!-- /{name} -->"));
    let page = fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(&begin).unwrap();
    let (there, after) = rest.split_once(&end).unwrap();
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(PAGE, format!("{before}{begin}\n{table}\n{end}{after}")).unwrap();
        return;
    }
    assert_eq!(
        there.trim(),
        table.trim(),
        "docs/limits.md publishes other figures; UPDATE_GENERATED=1 cargo nextest run -j1 --test published writes them anew"
    );
}
