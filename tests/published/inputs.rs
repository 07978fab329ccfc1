//! How far the estimate of a request's input is from what was counted.

use std::collections::BTreeMap;

use llm_gateway::gateway::estimate::{Family, Measure, weigh};
use serde::Deserialize;

use crate::published;
use crate::recordings::recordings;

/// A text with its number of tokens by OpenAI's two vocabularies.
#[derive(Deserialize)]
struct Text {
    name: String,
    text: String,
    cl100k: u64,
    o200k: u64,
}

/// Relative error in tenths of a percent; above zero where too much was estimated.
fn error(estimated: u64, counted: u64) -> i64 {
    let (estimated, counted) = (i64::try_from(estimated).unwrap(), i64::try_from(counted).unwrap());
    (estimated - counted) * 1000 / counted
}

fn percent(tenths: i64) -> String {
    format!("{}{}.{} %", if tenths < 0 { "−" } else { "" }, tenths.abs() / 10, tenths.abs() % 10)
}

fn at(sorted: &[i64], percent: usize) -> i64 {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

#[test]
fn the_error_over_texts_is_the_published_one() {
    let texts: Vec<Text> = serde_json::from_str(include_str!("texts.json")).unwrap();
    let mut rows =
        vec!["| text | characters | tokens | estimated | error |".to_owned(), "|---|--:|--:|--:|--:|".to_owned()];
    let mut errors = Vec::new();
    for text in &texts {
        let quoted = serde_json::to_string(&text.text).unwrap();
        let weight = weigh(&quoted.as_bytes()[1..quoted.len() - 1]);
        let estimated = (weight.western + weight.alphabets + weight.cjk).div_ceil(1000);
        let error = error(estimated, text.o200k);
        errors.push(error.abs());
        let Text { name, text: said, o200k, .. } = text;
        rows.push(format!("| {name} | {} | {o200k} | {estimated} | {} |", said.chars().count(), percent(error)));
    }
    let mean = errors.iter().sum::<i64>() / i64::try_from(errors.len()).unwrap();
    rows.push(format!("| mean of the errors' sizes | | | | {} |", percent(mean)));
    assert!(mean < 100 && errors.iter().all(|error| *error < 300), "{errors:?}");
    // The older vocabulary makes more tokens of everything that is not English.
    let before = Family::of("gpt-4-turbo", false);
    for text in &texts {
        let body = serde_json::json!({"messages": [{"content": text.text}]}).to_string();
        let error = error(Measure::of(body.as_bytes()).tokens(before), text.cl100k);
        assert!((-400..500).contains(&error), "{}: {error}", text.name);
    }
    published("texts", &rows.join("\n"));
}

#[test]
fn the_error_over_recorded_requests_is_the_published_one() {
    let Some(recordings) = recordings() else { return };
    let mut families: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for recording in &recordings {
        let estimated = Measure::of(recording.body.to_string().as_bytes()).tokens(recording.family);
        families.entry(recording.family.name()).or_default().push((estimated, recording.input));
    }
    let mut rows = vec![
        "| family | requests | tokens counted | tokens estimated | all together | median | 90 of 100 within | share too low by over 20 % |"
            .to_owned(),
        "|---|--:|--:|--:|--:|--:|--:|--:|".to_owned(),
    ];
    for (family, pairs) in families {
        let estimated: u64 = pairs.iter().map(|pair| pair.0).sum();
        let counted: u64 = pairs.iter().map(|pair| pair.1).sum();
        let mut sizes: Vec<i64> = pairs.iter().map(|pair| error(pair.0, pair.1).abs()).collect();
        sizes.sort_unstable();
        let low = pairs.iter().filter(|pair| error(pair.0, pair.1) < -200).count();
        rows.push(format!(
            "| {family} | {} | {counted} | {estimated} | {} | {} | {} | {} |",
            pairs.len(),
            percent(error(estimated, counted)),
            percent(at(&sizes, 50)),
            percent(at(&sizes, 90)),
            percent(i64::try_from(low * 1000 / pairs.len()).unwrap()),
        ));
    }
    published("requests", &rows.join("\n"));
}
