//! Says why a request went where it went.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::routing::tree::{Candidate, LeftOut, Order};
use crate::telemetry::Attempt;

/// The largest explanation that a header carries, in bytes; of a longer one the end is left out.
const HEADER_BYTES: usize = 6 * 1024;

/// How it was decided who answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The route's strategy; null for a model.
    pub strategy: Option<String>,
    /// Whether the first candidate is the first because the caller is kept with it.
    pub pinned: bool,
    /// Whether all are unhealthy, and these are tried all the same.
    pub in_spite: bool,
    /// Those who could answer, in the order in which they are tried.
    pub candidates: Vec<ExplainedCandidate>,
    /// Those who were considered and left out.
    pub skipped: Vec<ExplainedSkip>,
}

/// Somebody who could answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedCandidate {
    /// The model in the configuration.
    pub model: String,
    /// Its provider.
    pub provider: String,
    /// The routes on the way to it, from the one that was asked for to the one that lists it.
    pub path: Vec<String>,
    /// Its priority in the last of them.
    pub priority: u64,
    /// Its weight there.
    pub weight: u64,
    /// What its health leaves of the weight, in thousandths.
    pub effective_weight_permille: u64,
    /// How often it would be the first, in millionths, were the same request to come again and again: by its turns and by
    /// chance, as things stand.
    pub share_ppm: u64,
    /// Whether the request would be a trial of a provider that was out of service.
    pub trial: bool,
    /// Requests that are open there: this isolate's, unless `score` says otherwise.
    pub open: u64,
    /// The peak time to the first token that has not been forgotten, in milliseconds; null if nothing is known.
    pub first_token_ms: Option<u64>,
    /// The usual time to the first token, in milliseconds; null if nothing is known.
    pub usual_ms: Option<u64>,
    /// The share of faults lately, in thousandths.
    pub error_permille: u64,
    /// What the request is expected to cost there, in nano-dollars; null if no route on the way goes by cost, or there is no
    /// price.
    pub cost_nanodollars: Option<u64>,
    /// How long ago the provider's gauge was last heard of, in milliseconds; null if never: what is known of its health is
    /// what this isolate alone has seen.
    pub heard_ms_ago: Option<u64>,
    /// What it was compared with the others by.
    pub score: String,
    /// Why it has this place.
    pub why: String,
}

/// Somebody who was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedSkip {
    /// The model in the configuration, or the route with everything in it.
    pub model: String,
    /// The route that lists it; null if it was asked for itself.
    pub route: Option<String>,
    /// Why, in a word for programs.
    pub code: String,
    /// Why.
    pub reason: String,
    /// In how many milliseconds it may be back; null if nobody knows, or it is not a matter of time.
    pub back_in_ms: Option<u64>,
    /// As with candidates, where its health is the reason.
    pub heard_ms_ago: Option<u64>,
}

impl From<&Candidate<'_>> for ExplainedCandidate {
    fn from(candidate: &Candidate<'_>) -> Self {
        Self {
            model: candidate.deployment.to_owned(),
            provider: candidate.provider.to_owned(),
            path: candidate.path.iter().map(|route| (*route).to_owned()).collect(),
            priority: candidate.priority,
            weight: candidate.weight,
            effective_weight_permille: candidate.effective_weight_permille,
            share_ppm: candidate.share_ppm,
            trial: candidate.trial,
            open: candidate.open,
            first_token_ms: candidate.standing.first_token_ms,
            usual_ms: candidate.standing.usual_ms,
            error_permille: candidate.standing.error_permille,
            cost_nanodollars: candidate.cost,
            heard_ms_ago: candidate.standing.heard_ms_ago,
            score: candidate.score.to_string(),
            why: candidate.why.to_owned(),
        }
    }
}

impl From<&LeftOut<'_>> for ExplainedSkip {
    fn from(left_out: &LeftOut<'_>) -> Self {
        Self {
            model: left_out.deployment.to_owned(),
            route: left_out.route.map(str::to_owned),
            code: left_out.reason.code().to_owned(),
            reason: left_out.reason.to_string(),
            back_in_ms: left_out.reason.ms_left(),
            heard_ms_ago: left_out.heard_ms_ago,
        }
    }
}

impl From<&Order<'_>> for Explanation {
    fn from(order: &Order<'_>) -> Self {
        Self {
            strategy: order.strategy.map(|strategy| strategy.name().to_owned()),
            pinned: order.pinned,
            in_spite: order.in_spite,
            candidates: order.candidates.iter().map(ExplainedCandidate::from).collect(),
            skipped: order.left_out.iter().map(ExplainedSkip::from).collect(),
        }
    }
}

impl Explanation {
    /// The explanation with the attempts that were made, as a header's value: JSON in ASCII. One that is too long says
    /// `"truncated": true` and ends with as many candidates and skipped ones as fit.
    pub fn header(&self, tried: &[Attempt]) -> String {
        let mut shown = self.clone();
        let mut truncated = false;
        loop {
            let text = ascii(&serde_json::json!({
                "strategy": shown.strategy,
                "pinned": shown.pinned,
                "in_spite": shown.in_spite,
                "candidates": shown.candidates,
                "skipped": shown.skipped,
                "attempts": tried,
                "truncated": truncated,
            }));
            if text.len() <= HEADER_BYTES || (shown.candidates.is_empty() && shown.skipped.is_empty()) {
                return text;
            }
            truncated = true;
            if shown.skipped.pop().is_none() {
                shown.candidates.pop();
            }
        }
    }
}

/// JSON with everything beyond ASCII escaped, as headers cannot carry it otherwise.
fn ascii(value: &serde_json::Value) -> String {
    let mut text = String::new();
    for letter in value.to_string().chars() {
        if letter.is_ascii() {
            text.push(letter);
        } else {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(model: &str) -> ExplainedSkip {
        ExplainedSkip { model: model.to_owned(), reason: "the model is disabled".into(), ..ExplainedSkip::default() }
    }

    #[test]
    fn a_header_is_json_in_ascii() {
        let explanation = Explanation { skipped: vec![skip("größer 🙂")], ..Explanation::default() };
        let attempt =
            Attempt { deployment: "m".into(), outcome: "server_error", status: Some(500), ..Attempt::default() };
        let text = explanation.header(&[attempt]);
        assert!(text.is_ascii(), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (read["skipped"][0]["model"].as_str(), read["truncated"].as_bool()),
            (Some("größer 🙂"), Some(false))
        );
        assert_eq!(read["attempts"][0]["outcome"], "server_error");
    }

    #[test]
    fn a_long_explanation_ends_where_headers_end() {
        let skipped = (0..200).map(|n| skip(&format!("model-{n}"))).collect();
        let text = Explanation { skipped, ..Explanation::default() }.header(&[]);
        assert!(text.len() <= HEADER_BYTES);
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["truncated"], true);
        assert!(read["skipped"].as_array().unwrap().len() > 50);
    }
}
