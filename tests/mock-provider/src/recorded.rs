//! The recorded provider traffic, for tests: what a provider took must pass the checks here.

use std::io::Write as _;
use std::path::PathBuf;

use serde_json::Value;

/// One request that was answered with 200.
#[derive(Debug)]
pub struct Taken {
    pub id: String,
    pub provider: String,
    pub body: Value,
}

/// The requests of an API that were recorded with a body and answered with 200; none, with a note, where there are
/// no recordings.
pub fn taken(apis: &[&str]) -> Vec<Taken> {
    let root = std::env::var_os("FIXTURES_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures")), PathBuf::from);
    let Ok(index) = std::fs::read(root.join("index.json")) else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: there is no recorded traffic at {}; set FIXTURES_DIR to the folder with its index.json",
            root.display()
        );
        return Vec::new();
    };
    let index: Vec<Value> = serde_json::from_slice(&index).unwrap();
    index
        .iter()
        .filter(|entry| apis.contains(&entry["api"].as_str().unwrap()) && entry["status"] == 200)
        .filter_map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap().to_owned();
            let file: Value = serde_json::from_slice(&std::fs::read(root.join(text("file"))).unwrap()).unwrap();
            let body = file["request"].get("body").filter(|body| body.is_object())?.clone();
            Some(Taken { id: text("id"), provider: text("provider"), body })
        })
        .collect()
}
