//! The recorded provider traffic, for tests. It lies outside the repository: `FIXTURES_DIR`, or `../shared/fixtures`.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::Value;

fn root() -> PathBuf {
    std::env::var_os("FIXTURES_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures")), PathBuf::from)
}

/// Whether there are recordings at all; says so if not.
pub fn present() -> bool {
    let present = root().join("index.json").is_file();
    if !present {
        let place = root();
        let place = place.display();
        let _ = writeln!(std::io::stderr(), "SKIPPED: there is no recorded traffic at {place}; set FIXTURES_DIR");
    }
    present
}

/// The exchanges of a provider: id, what was recorded, and the reply's bytes.
pub fn exchanges(provider: &str) -> Vec<(String, Value, Vec<u8>)> {
    if !present() {
        return Vec::new();
    }
    let index: Vec<Value> = serde_json::from_slice(&fs::read(root().join("index.json")).unwrap()).unwrap();
    let mut exchanges = Vec::new();
    for entry in index.iter().filter(|entry| entry["provider"] == provider) {
        let exchange: Value =
            serde_json::from_slice(&fs::read(root().join(entry["file"].as_str().unwrap())).unwrap()).unwrap();
        let body = match exchange["response"]["body_file"].as_str() {
            Some(name) => fs::read(root().join(name)).unwrap(),
            None => exchange["response"]["body"].to_string().into_bytes(),
        };
        exchanges.push((entry["id"].as_str().unwrap().to_owned(), exchange, body));
    }
    exchanges
}

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
    if !present() {
        return Vec::new();
    }
    let index: Vec<Value> = serde_json::from_slice(&fs::read(root().join("index.json")).unwrap()).unwrap();
    index
        .iter()
        .filter(|entry| apis.contains(&entry["api"].as_str().unwrap()) && entry["status"] == 200)
        .filter_map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap().to_owned();
            let file: Value = serde_json::from_slice(&fs::read(root().join(text("file"))).unwrap()).unwrap();
            let body = file["request"].get("body").filter(|body| body.is_object())?.clone();
            Some(Taken { id: text("id"), provider: text("provider"), body })
        })
        .collect()
}
