//! What different ways to reserve cost: the same load against the same limits, with the state machine that is deployed.
//!
//! The load is drawn from the recorded requests' own counts: which of them, how much longer and at what time is up to a
//! generator with a fixed seed. Input is reserved as it is estimated from the recorded body, with the error that the
//! estimate has for it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use llm_gateway::gateway::estimate::Measure;
use llm_gateway::limits::admission::Admission;
use llm_gateway::limits::amounts::{AskPrices, of_request};
use llm_gateway::limits::ask::{Answer, Ask, Settlement};
use llm_gateway::limits::rule::{Dimension, LimitMode, LimitTerms, Period, Rule, Scope};

use crate::published;
use crate::recordings::recordings;
use crate::seeded::Random;

const REQUESTS: usize = 10_000;
const SEEDS: u64 = 3;
const MODEL_MAX: u64 = 32_768;
/// $2.50 and $10 for a million tokens.
const PRICES: AskPrices = AskPrices { input: 2_500_000, output: 10_000_000, fixed: 0 };
/// 2026-01-14, a Wednesday, 12:00 UTC.
const START: u64 = 1_768_392_000_000;

/// How much is reserved for a request's output, and whether anything is.
#[derive(Debug, Clone, Copy)]
enum Policy {
    /// This quantile of what the key and model have used.
    Learned(u8),
    /// What the caller allows, or else what the model can.
    Worst,
    /// Nothing: what was used is charged afterwards.
    Afterwards,
}

#[derive(Debug, Clone)]
struct Request {
    at: u64,
    key: usize,
    estimated: u64,
    input: u64,
    output: u64,
    max_output: u64,
}

/// A factor in thousandths, at least 1,000: half of all are below 1,414, one of a hundred is above 10,000.
fn heavy_tail(random: &mut Random) -> u64 {
    1_000_000_000 / (1 + random.below(1_000_000)).isqrt() / 1_000
}

/// Twenty keys with habits of their own, some forty requests at a time, in bursts.
fn load(seed: u64, samples: &[(u64, u64, u64)]) -> Vec<Request> {
    let mut random = Random::new(seed);
    let mut at = START;
    let mut requests = Vec::with_capacity(REQUESTS);
    while requests.len() < REQUESTS {
        let key = random.below(20);
        let (estimated, input, output) = samples[(key * 7 + random.below(12)) as usize % samples.len()];
        let longer = 1 + random.below(20);
        let model_limit = match random.below(10) {
            0..5 => MODEL_MAX,
            5..8 => 4_096,
            _ => 1_024,
        };
        let output = (output + 20 * (key + 1)) * heavy_tail(&mut random) / 1_000;
        requests.push(Request {
            at,
            key: key as usize,
            estimated: estimated * longer,
            input: input * longer,
            output: output.min(model_limit),
            max_output: model_limit,
        });
        at += if random.below(4) == 0 { random.below(1_200) } else { random.below(40) };
    }
    requests
}

/// What became of a load.
#[derive(Debug, Default, Clone, Copy)]
struct Outcome {
    refused: u64,
    /// Refused though what it would have used had room beside everything that was let through.
    falsely: u64,
    /// Used of the limit, in tenths of a percent, when the first request was refused; of what was let through by then.
    first: Option<u64>,
    /// Used in the end.
    used: u64,
}

fn run(load: &[Request], policy: Policy, terms: LimitTerms) -> (Outcome, Vec<(u64, u64)>) {
    let (dimension, limit, window) = (terms.dimension, terms.amount, terms.period.window_ms());
    let mut admission = Admission::new(Scope::Account);
    admission.set_rules(vec![Rule { id: "r".into(), scope: Scope::Account, subject: "a".into(), terms }]);
    let mut open: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut outcome = Outcome::default();
    let mut admitted: Vec<(u64, u64)> = Vec::new();
    let (mut inside, mut oldest) = (0, 0);
    for (n, request) in load.iter().enumerate() {
        while let Some(Reverse((ends, done))) = open.peek().copied().filter(|Reverse((ends, _))| *ends <= request.at) {
            open.pop();
            settle(&mut admission, ends, done, &load[done], policy);
        }
        while window.is_some_and(|ms| admitted.get(oldest).is_some_and(|(at, _)| at + ms <= request.at)) {
            inside -= admitted[oldest].1;
            oldest += 1;
        }
        let actual = of_request(request.input, request.output, Some(&PRICES)).of(dimension);
        match admission.reserve(request.at, &ask(n, request, policy)) {
            Answer::Granted(_) => {
                outcome.used += actual;
                inside += actual;
                admitted.push((request.at, actual));
                open.push(Reverse((request.at + 500 + 15 * request.output, n)));
            }
            Answer::Denied(_) => {
                outcome.refused += 1;
                outcome.falsely += u64::from(inside + actual <= limit);
                outcome.first.get_or_insert(inside * 1_000 / limit);
            }
        }
        let _stored = admission.take_changes();
    }
    (outcome, admitted)
}

fn ask(n: usize, request: &Request, policy: Policy) -> Ask {
    let ask = Ask {
        id: n.to_string(),
        key_id: request.key.to_string(),
        model: "m".into(),
        input_tokens: request.estimated,
        max_output_tokens: request.max_output,
        prices: Some(PRICES),
        lifetime_ms: 3_600_000,
        first_output_tokens: 1_000,
        ..Ask::default()
    };
    match policy {
        Policy::Learned(percent) => Ask { output_quantile_percent: percent, ..ask },
        Policy::Worst => Ask { first_output_tokens: MODEL_MAX, ..ask },
        // As little as makes a rule look whether anything is left.
        Policy::Afterwards => Ask {
            input_tokens: 1,
            max_output_tokens: 0,
            prices: Some(AskPrices { fixed: 1, ..AskPrices::default() }),
            ..ask
        },
    }
}

fn settle(admission: &mut Admission, now: u64, n: usize, request: &Request, policy: Policy) {
    let settlement = Settlement {
        key_id: request.key.to_string(),
        model: "m".into(),
        amounts: of_request(request.input, request.output, Some(&PRICES)),
        complete: matches!(policy, Policy::Learned(_)),
        ..Settlement::default()
    };
    let id = n.to_string();
    let _counted = admission.settle(now, &id, &settlement);
    let _stored = admission.take_changes();
    admission.forget([id.as_str()]);
}

const POLICIES: [(&str, Policy); 5] = [
    ("learned, 95 % (the default)", Policy::Learned(95)),
    ("learned, 50 %", Policy::Learned(50)),
    ("learned, 100 %", Policy::Learned(100)),
    ("the most that is allowed", Policy::Worst),
    ("nothing, charged afterwards", Policy::Afterwards),
];

fn loads() -> Option<Vec<Vec<Request>>> {
    let samples: Vec<(u64, u64, u64)> = recordings()?
        .iter()
        .map(|r| (Measure::of(r.body.to_string().as_bytes()).tokens(r.family), r.input, r.output))
        .filter(|(estimated, input, _)| *estimated < 20_000 && *input < 20_000)
        .collect();
    Some((0..SEEDS).map(|seed| load(seed, &samples)).collect())
}

fn terms(dimension: Dimension, period: Period, amount: u64) -> LimitTerms {
    LimitTerms { model: None, dimension, period, amount, burst: None, mode: LimitMode::Enforce }
}

fn tenths(of: u64, whole: u64) -> String {
    let tenths = of * 1_000 / whole.max(1);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

fn dollars(nanos: u64) -> String {
    format!("${}.{:02}", nanos / 1_000_000_000, nanos / 10_000_000 % 100)
}

#[test]
fn budgets_are_kept_and_used_as_published() {
    let Some(loads) = loads() else { return };
    let mut rows = vec![
        "| budget | reserved | beyond it at worst | on average | refused, although it had room | spent at the first refusal | spent in the end |"
            .to_owned(),
        "|--:|---|--:|--:|--:|--:|--:|".to_owned(),
    ];
    for budget in [1, 10, 40].map(|dollars| dollars * 1_000_000_000) {
        for (name, policy) in POLICIES {
            let limit = terms(Dimension::Cost, Period::Month, budget);
            let outcomes: Vec<Outcome> = loads.iter().map(|load| run(load, policy, limit.clone()).0).collect();
            let beyond: Vec<u64> = outcomes.iter().map(|outcome| outcome.used.saturating_sub(budget)).collect();
            let (worst, mean) = (*beyond.iter().max().unwrap(), beyond.iter().sum::<u64>() / SEEDS);
            rows.push(format!(
                "| {} | {name} | {} ({}) | {} ({}) | {} of {} | {} | {} |",
                dollars(budget),
                dollars(worst),
                tenths(worst, budget),
                dollars(mean),
                tenths(mean, budget),
                outcomes.iter().map(|outcome| outcome.falsely).sum::<u64>(),
                outcomes.iter().map(|outcome| outcome.refused).sum::<u64>(),
                tenths(outcomes.iter().filter_map(|outcome| outcome.first).sum::<u64>(), 1_000 * SEEDS),
                tenths(outcomes.iter().map(|outcome| outcome.used).sum::<u64>(), budget * SEEDS),
            ));
        }
    }
    published("budgets", &rows.join("\n"));
}

#[test]
fn token_rates_are_kept_and_used_as_published() {
    let Some(loads) = loads() else { return };
    let mut rows = vec![
        "| tokens a minute | reserved | beyond it in the worst minute | refused, although it had room | let through, of what fits |"
            .to_owned(),
        "|--:|---|--:|--:|--:|".to_owned(),
    ];
    for limit in [200_000, 1_000_000] {
        for (name, policy) in POLICIES {
            let (mut worst, mut used, mut fits, mut falsely, mut refused) = (0, 0, 0, 0, 0);
            for load in &loads {
                let (outcome, admitted) = run(load, policy, terms(Dimension::TotalTokens, Period::Minute, limit));
                worst = worst.max(busiest_minute(&admitted).saturating_sub(limit));
                used += outcome.used;
                let minutes = (load[load.len() - 1].at - START).div_ceil(60_000);
                let asked: u64 = load.iter().map(|request| request.input + request.output).sum();
                fits += asked.min(minutes * limit);
                falsely += outcome.falsely;
                refused += outcome.refused;
            }
            rows.push(format!(
                "| {limit} | {name} | {worst} ({}) | {falsely} of {refused} | {} |",
                tenths(worst, limit),
                tenths(used, fits),
            ));
        }
    }
    published("rates", &rows.join("\n"));
}

/// The most that was used by the requests of any minute.
fn busiest_minute(admitted: &[(u64, u64)]) -> u64 {
    let (mut inside, mut oldest, mut most) = (0, 0, 0);
    for (at, used) in admitted {
        inside += used;
        while admitted[oldest].0 + 60_000 <= *at {
            inside -= admitted[oldest].1;
            oldest += 1;
        }
        most = most.max(inside);
    }
    most
}
