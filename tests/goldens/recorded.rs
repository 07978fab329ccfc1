//! Where the recorded provider traffic lies. Shared by the tests that read it.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// The folder and its index; `None`, with a note, where there is none.
pub(crate) fn index() -> Option<(PathBuf, Vec<Value>)> {
    let root = std::env::var_os("FIXTURES_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures")), PathBuf::from);
    let Ok(index) = fs::read(root.join("index.json")) else {
        eprintln!(
            "SKIPPED: there is no recorded traffic at {}; set FIXTURES_DIR to the folder with its index.json",
            root.display()
        );
        return None;
    };
    Some((root, serde_json::from_slice(&index).unwrap()))
}
