//! What routing costs a request, natively: asking the board, putting a route's candidates in order, taking in what was seen.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a benchmark may fail by panicking"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use llm_gateway::config::{Config, WhenAllOpen};
use llm_gateway::gateway::plan::Unusable;
use llm_gateway::routing::board::{Board, Observation, Standing, Terms, weights};
use llm_gateway::routing::outcome::Fault;
use llm_gateway::routing::strategy::Turns;
use llm_gateway::routing::traits::{RequestView, View};
use llm_gateway::routing::tree::order;
use serde_json::json;

const START: u64 = 1_768_392_000_000;

/// Model `n` of a hundred, ten at each provider.
fn names(n: u64) -> (String, String) {
    (format!("provider-{}", n % 100 / 10), format!("model-{}", n % 100))
}

fn seen(n: u64) -> Observation {
    let (provider, deployment) = names(n);
    Observation {
        provider,
        deployment,
        fault: (n % 50 == 7).then_some(Fault::ServerError),
        first_token_ms: Some(200 + n % 300),
        total_ms: 2_000,
        at: START + n,
        ..Observation::default()
    }
}

/// A board that knows a hundred models well.
fn board() -> Board {
    let mut board = Board::default();
    for n in 0..10_000 {
        board.observe(START + n, &Terms::default(), &seen(n), n);
    }
    board
}

fn boards(c: &mut Criterion) {
    let (mut known, terms, names) = (board(), Terms::default(), (0..100).map(names).collect::<Vec<_>>());
    let mut group = c.benchmark_group("a board of 100 models");
    let mut n = 10_000;
    group.bench_function("standing of one", |b| {
        b.iter(|| {
            n += 1;
            let (provider, model) = &names[n as usize % 100];
            black_box(known.standing(START + n, &terms, provider, model))
        });
    });
    let observations: Vec<Observation> = (0..100).map(seen).collect();
    group.bench_function("observe", |b| {
        b.iter(|| {
            n += 1;
            known.observe(START + n, &terms, &observations[n as usize % 100], n)
        });
    });
    let standings: Vec<Standing> =
        names.iter().take(10).map(|(provider, model)| known.standing(START + n, &terms, provider, model)).collect();
    group.bench_function("weights of ten", |b| b.iter(|| black_box(weights(black_box(&standings), true))));
    group.bench_function("a gauge's snapshot as JSON", |b| {
        b.iter(|| serde_json::to_string(&known.snapshot(START + n, &terms, "isolate", &[])).unwrap());
    });
    let text = serde_json::to_string(&known.snapshot(START + n, &terms, "isolate", &[])).unwrap();
    group.bench_function("an isolate takes it over", |b| {
        b.iter(|| {
            let snapshot = serde_json::from_str(black_box(&text)).unwrap();
            known.adopt(START + n, &terms, START + n, &snapshot, [], n);
        });
    });
    group.finish();
}

/// A request without anything to it.
struct Plain;

impl RequestView for Plain {
    fn header(&self, _: &str) -> Option<&str> {
        None
    }
    fn param(&self, _: &str) -> Option<&[u8]> {
        None
    }
    fn stream(&self) -> bool {
        true
    }
    fn input_tokens(&self) -> u64 {
        1_000
    }
    fn account(&self) -> &str {
        "a"
    }
    fn user(&self) -> Option<&str> {
        None
    }
    fn key_id(&self) -> &str {
        "k"
    }
}

/// All that can answer, as a board has it.
struct All<'a>(&'a Board, Terms);

impl View for All<'_> {
    fn usable(&self, _: &str) -> Result<(), Unusable> {
        Ok(())
    }
    fn standing(&self, provider: &str, deployment: &str) -> Standing {
        self.0.standing(START + 20_000, &self.1, provider, deployment)
    }
    fn in_flight(&self, _: &str) -> u64 {
        1
    }
    fn cost(&self, _: &str) -> Option<u64> {
        Some(1_000)
    }
}

/// A route of so many models, by a strategy.
fn route(strategy: &str, count: u64) -> Config {
    let all: Vec<(String, String)> = (0..count).map(names).collect();
    let provider =
        |(name, _): &(String, String)| (name.clone(), json!({"dialect": "openai", "base_url": "https://p.example/v1"}));
    let model = |(provider, name): &(String, String)| (name.clone(), json!({"provider": provider}));
    let targets: Vec<_> = all.iter().map(|(_, model)| json!({"model": model})).collect();
    Config::parse(&json!({
        "providers": all.iter().map(provider).collect::<serde_json::Map<_, _>>(),
        "models": all.iter().map(model).collect::<serde_json::Map<_, _>>(),
        "routes": {"r": {"strategy": strategy, "targets": targets}},
    }))
    .unwrap()
}

fn orders(c: &mut Criterion) {
    let known = board();
    let mut group = c.benchmark_group("order");
    for strategy in ["ordered", "weighted", "lowest_latency"] {
        for count in [3, 30] {
            let (config, view) = (route(strategy, count), All(&known, Terms::default()));
            let (mut turns, mut n) = (Turns::default(), 0_u64);
            group.bench_function(BenchmarkId::new(strategy, count), |b| {
                b.iter(|| {
                    let mut random = || {
                        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        n
                    };
                    let order = order(&config, "r", &Plain, &view, &mut turns, &mut random, WhenAllOpen::Try);
                    black_box(order.candidates.len())
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, boards, orders);
criterion_main!(benches);
