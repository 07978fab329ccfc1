//! What requests cost, from the usage that a provider sends to the nano-dollar that is charged.
//!
//! `corpus/costs.json` has replies, prices and costs; each case says by which sum it comes to its cost (in micro-dollars:
//! tokens times dollars per million), and that sum is worked out here by other means than the gateway's.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; helpers are outside the tests' own allowance"
)]
#![expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "as above")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use llm_gateway::billing::{Day, Nanodollars, PriceSource, Pricing};
use llm_gateway::config::Price;
use llm_gateway::protocol::Api;
use llm_gateway::protocol::usage::{BillingFacts, Told, Usage};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Corpus {
    prices: BTreeMap<String, Price>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    dialect: String,
    reply: Value,
    price: String,
    #[serde(default)]
    account: String,
    #[serde(default)]
    at: Option<Day>,
    because: Option<String>,
    nanos: Option<u64>,
}

fn corpus() -> Corpus {
    let text = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/costs.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// What a reply in a dialect tells.
fn told(dialect: &str, reply: &Value) -> Option<Told> {
    let usage = &reply["usage"];
    match dialect {
        "chat" => Told::from_openai(reply),
        "responses" => {
            let facts = BillingFacts::from_openai(reply);
            Usage::from_responses_reply(reply).map(|usage| Told { usage, facts })
        }
        "messages" => {
            let mut told = Told::default();
            usage.as_array().unwrap().iter().for_each(|usage| told.merge_anthropic(usage));
            Some(told)
        }
        "gemini" => {
            let usage = &reply["usageMetadata"];
            Usage::from_gemini(usage).map(|counted| Told { usage: counted, facts: BillingFacts::from_gemini(usage) })
        }
        "bedrock" => {
            let facts = BillingFacts::from_bedrock(reply);
            Usage::from_bedrock(usage).map(|usage| Told { usage, facts })
        }
        "cohere" => Usage::from_cohere(usage).map(Told::from),
        "images" => Told::from_side(Api::ImageGeneration, reply, 2),
        "speech" => Told::from_side(Api::Speech, reply, 0),
        "heard" => Told::from_side(Api::Transcription, reply, 0),
        other => panic!("{other} is no dialect"),
    }
}

/// A sum of products such as `700 * 2.5 + 1 * 5000`, in micro-dollars, as nano-dollars: rounded half up.
fn worked_out(sum: &str) -> u64 {
    // Every term as a whole number of 10^-18 micro-dollars, with up to six digits behind each of three points.
    let factor = |text: &str| -> u128 {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        format!("{whole}{fraction:0<6}").parse().unwrap()
    };
    let mut steps: (u128, u128) = (0, 0);
    for term in sum.split(" + ") {
        let factors: Vec<u128> = term.split(" * ").map(factor).collect();
        let product = |factors: &[u128]| factors.iter().product::<u128>();
        match factors.len() {
            // Large sums have no third or fourth factor, and those that have one are small.
            0..=2 => steps.0 += product(&factors) * 1_000_000_u128.pow(2 - u32::try_from(factors.len()).unwrap()),
            3 => steps.1 += product(&factors),
            4 => {
                let exact = product(&factors);
                assert_eq!(exact % 1_000_000, 0, "{sum}");
                steps.1 += exact / 1_000_000;
            }
            _ => panic!("{sum}"),
        }
    }
    let (nanos, rest) = (steps.0 / 1_000_000_000, steps.0 % 1_000_000_000);
    let rest = rest * 1_000_000 + steps.1;
    let rounded = nanos + (rest + 500_000_000_000_000) / 1_000_000_000_000_000;
    u64::try_from(rounded).unwrap_or(u64::MAX)
}

#[test]
fn every_case_costs_exactly_what_it_should() {
    let Corpus { prices, cases } = corpus();
    let cards: BTreeMap<_, _> = prices.iter().map(|(name, price)| (name, Arc::new(price.card()))).collect();
    let mut wrong = Vec::new();
    for case in &cases {
        let day = case.at.unwrap_or_else(|| Day::at(0));
        let pricing = Pricing::of(&cards[&case.price], PriceSource::Configured, &case.account, day);
        let told = told(&case.dialect, &case.reply);
        let cost = pricing.zip(told).map(|(pricing, told)| pricing.cost(&told.usage, &told.facts));
        let cost = cost.map(|Nanodollars(nanos)| nanos);
        if cost != case.nanos {
            wrong.push(format!("{}: {cost:?} instead of {:?} ({:?})", case.name, case.nanos, told));
        }
        assert_eq!(case.because.as_deref().map(worked_out), case.nanos, "{}", case.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let names: std::collections::BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.len() >= 150, "{}", cases.len());
}

/// What a usage object itself says that input and output come to.
fn own_totals(usage: &Value) -> Option<(Usage, u64)> {
    let number = |name: &str| usage.get(name).and_then(Value::as_u64);
    let sum = |names: &[&str]| names.iter().filter_map(|name| number(name)).sum::<u64>();
    if usage.get("promptTokenCount").is_some() {
        let parts = ["promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount"];
        return Some((Usage::from_gemini(usage)?, number("totalTokenCount").unwrap_or(0).max(sum(&parts))));
    }
    if usage.get("inputTokens").is_some() {
        let parts = ["inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"];
        return Some((Usage::from_bedrock(usage)?, number("totalTokens").unwrap_or_else(|| sum(&parts))));
    }
    if let Some(billed) = usage.get("billed_units") {
        let total = ["input_tokens", "output_tokens"].iter().filter_map(|name| billed.get(*name)?.as_u64()).sum();
        return Some((Usage::from_cohere(usage)?, total));
    }
    if usage.get("prompt_tokens").is_some() {
        let total = number("total_tokens").unwrap_or(0).max(sum(&["prompt_tokens", "completion_tokens"]));
        return Some((Usage::from_openai(usage)?, total));
    }
    if usage.get("total_tokens").is_some() {
        return Some((Usage::from_responses(usage)?, number("total_tokens")?));
    }
    if usage.get("input_tokens").is_some() && usage.get("iterations").is_none() {
        let parts = ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];
        let mut counted = Usage::default();
        counted.merge_anthropic(usage);
        return Some((counted, sum(&parts)));
    }
    None
}

/// All usage objects of a value.
fn usages<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if matches!(name.as_str(), "usage" | "usageMetadata") && value.is_object() {
                    found.push(value);
                }
                usages(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| usages(item, found)),
        _ => {}
    }
}

/// Recorded replies: JSON files with a body, and the data of streams' events.
fn recorded(folder: &PathBuf, replies: &mut Vec<(String, Value)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            recorded(&path, replies);
            continue;
        }
        let name = path.display().to_string();
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        match path.extension().and_then(|it| it.to_str()) {
            Some("json") => {
                let file: Value = serde_json::from_str(&text).unwrap();
                let body = file["response"]["body"].clone();
                let body = body.as_str().and_then(|body| serde_json::from_str(body).ok()).unwrap_or(body);
                replies.push((name, body));
            }
            Some("sse") => {
                let events = text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?).ok());
                replies.extend(events.map(|event| (name.clone(), event)));
            }
            _ => {}
        }
    }
}

#[test]
fn recorded_usage_comes_to_the_providers_own_totals() {
    let folder = std::env::var_os("FIXTURES_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures"), PathBuf::from);
    if !folder.is_dir() {
        eprintln!("SKIPPED: there is no recorded traffic at {}; set FIXTURES_DIR to the folder", folder.display());
        return;
    }
    let mut replies = Vec::new();
    recorded(&folder, &mut replies);
    let mut checked = 0;
    for (name, reply) in &replies {
        let mut found = Vec::new();
        usages(reply, &mut found);
        for usage in found {
            let Some((counted, total)) = own_totals(usage) else { continue };
            assert_eq!(counted.input_total() + counted.output_total(), total, "{name}: {usage} as {counted:?}");
            checked += 1;
        }
    }
    assert!(checked > 300, "{checked}");
}
