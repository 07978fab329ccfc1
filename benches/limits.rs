//! What limits cost a request, natively: deciding, counting, estimating. `scripts/bench-limits` runs this.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a benchmark may fail by panicking"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use llm_gateway::billing::{Day, Parts, Picodollars, PriceCard, PriceSource, Pricing, Variant};
use llm_gateway::gateway::estimate::{Family, Measure};
use llm_gateway::limits::admission::Admission;
use llm_gateway::limits::amounts::{Amounts, AskPrices, of_request};
use llm_gateway::limits::ask::{Answer, Ask, Grant, LeaseGrant, Settlement};
use llm_gateway::limits::bucket::{Bucket, Flow};
use llm_gateway::limits::calendar::span;
use llm_gateway::limits::holder::{Holder, Lessee, Need};
use llm_gateway::limits::profile::Profiles;
use llm_gateway::limits::rule::{Dimension, LimitMode, LimitTerms, Period, Rule, Scope};
use llm_gateway::limits::window::Window;
use llm_gateway::protocol::usage::{BillingFacts, Usage};

/// 2026-01-14, a Wednesday, 12:00 UTC.
const START: u64 = 1_768_392_000_000;
const PRICES: AskPrices = AskPrices { input: 2_500_000, output: 10_000_000, fixed: 0 };
const MINUTE: u64 = 60_000;

/// So many rules on the account, of all kinds, none of them ever reached.
fn rules(count: usize) -> Vec<Rule> {
    let kinds = [
        (Dimension::Cost, Period::Month, None),
        (Dimension::TotalTokens, Period::Minute, None),
        (Dimension::Requests, Period::Minute, None),
        (Dimension::Requests, Period::Second, Some(1_000_000)),
        (Dimension::Concurrency, Period::None, None),
    ];
    let rule = |n: usize| {
        let (dimension, period, burst) = kinds[n % kinds.len()];
        let model = (n / kinds.len() > 0).then(|| "m".to_owned());
        let scope = if n / kinds.len() < 2 { Scope::Account } else { Scope::Key };
        let subject = if scope == Scope::Key { "key 0" } else { "a" };
        let terms = LimitTerms { model, dimension, period, amount: 1 << 50, burst, mode: LimitMode::Enforce };
        Rule { id: n.to_string(), scope, subject: subject.to_owned(), terms }
    };
    (0..count).map(rule).collect()
}

fn ask(n: u64, keys: u64) -> Ask {
    Ask {
        id: format!("0190b7c4-0000-7000-8000-{n:012}"),
        key_id: format!("key {}", n % keys),
        model: "m".to_owned(),
        input_tokens: 1_000,
        max_output_tokens: 4_096,
        prices: Some(PRICES),
        lifetime_ms: 600_000,
        first_output_tokens: 1_000,
        output_quantile_percent: 95,
        ..Ask::default()
    }
}

/// Reserves and settles one request, as the ledger does with it.
fn serve(admission: &mut Admission, n: u64, keys: u64) {
    let (now, ask) = (START + n, ask(n, keys));
    match admission.reserve(now, &ask) {
        Answer::Granted(grant) => black_box(grant),
        Answer::Denied(denial) => panic!("{denial:?}"),
    };
    black_box(admission.take_changes());
    let settlement = Settlement {
        key_id: ask.key_id,
        model: ask.model,
        amounts: of_request(900, 100 + n % 700, Some(&PRICES)),
        complete: true,
        ..Settlement::default()
    };
    black_box(admission.settle(now, &ask.id, &settlement));
    black_box(admission.take_changes());
    admission.forget([ask.id.as_str()]);
}

fn admission(c: &mut Criterion) {
    let mut group = c.benchmark_group("reserve and settle");
    for (name, keys) in [("one key", 1), ("100 keys", 100)] {
        for count in [1, 5, 20] {
            let mut admission = Admission::new(Scope::Account);
            admission.set_rules(rules(count));
            let mut n = 0;
            for _ in 0..2_000 {
                serve(&mut admission, n, keys);
                n += 1;
            }
            group.bench_function(BenchmarkId::new(name, format!("{count} rules")), |b| {
                b.iter(|| {
                    serve(&mut admission, n, keys);
                    n += 1;
                });
            });
        }
    }
    group.finish();

    let mut refusing = Admission::new(Scope::Account);
    let mut rules = rules(5);
    rules[0].terms.amount = 1;
    refusing.set_rules(rules);
    let refused = ask(1, 1);
    c.bench_function("refuse, 5 rules", |b| b.iter(|| black_box(refusing.reserve(START, &refused))));
}

fn windows(c: &mut Criterion) {
    let mut group = c.benchmark_group("windows");
    let mut window = Window::default();
    let mut now = START;
    group.bench_function("sliding window by slots: room and add", |b| {
        b.iter(|| {
            now += 7;
            window.prune(MINUTE, now);
            let room = black_box(window.room(MINUTE, now, u64::MAX, 100));
            window.add(window.stamp(MINUTE, now, false), 100);
            room
        });
    });
    let (mut log, mut now) = (Window::default(), START);
    group.bench_function("sliding window by an exact log of 900: room and add", |b| {
        b.iter(|| {
            now += MINUTE / 900;
            log.prune(MINUTE, now);
            let room = black_box(log.room(MINUTE, now, 1_000, 1));
            log.add(log.stamp(MINUTE, now, true), 1);
            room
        });
    });
    let (mut bucket, mut now) = (Bucket::default(), START);
    let flow = Flow { rate: 1_000, period_ms: 1_000 };
    group.bench_function("token bucket: room and add", |b| {
        b.iter(|| {
            now += 1;
            let room = black_box(bucket.room(flow, now, 100, 1));
            black_box(bucket.add(flow, now, 1));
            room
        });
    });
    group.bench_function("calendar: the month of a moment", |b| {
        b.iter(|| black_box(span(Period::Month, black_box(START))))
    });
    group.finish();
}

fn holder(c: &mut Criterion) {
    let lessee = Lessee { account: "a".into(), key_id: "k".into(), user: None, model: "m".into() };
    let need = Need { input_tokens: 1_000, max_output_tokens: 500, prices: Some(PRICES) };
    let block = Amounts { requests: 1 << 40, input: 1 << 50, output: 1 << 50, cost: 1 << 60 };
    let lease = Some(LeaseGrant { id: "l".into(), block, output_tokens: 400, ttl_ms: 1 << 40 });
    c.bench_function("admit eight requests from a lease, settle them", |b| {
        b.iter_batched_ref(
            || {
                let mut holder = Holder::default();
                holder.granted(START, "0", &lessee, &Grant { lease: lease.clone(), ..Grant::default() });
                holder
            },
            |holder| {
                for id in ["1", "2", "3", "4", "5", "6", "7", "8"] {
                    let local = holder.admit(START, id, &lessee, &need).unwrap();
                    black_box(holder.settled(id));
                    holder.acknowledged(id, &local.used);
                }
            },
            BatchSize::SmallInput,
        );
    });
}

fn profiles(c: &mut Criterion) {
    let mut profiles = Profiles::default();
    for n in 0..10_000_u64 {
        profiles.observe(&format!("key {}", n % 100), "m", n * 7_919 % 6_000);
    }
    let mut n = 0_u64;
    c.bench_function("learn from a reply", |b| {
        b.iter(|| {
            n += 1;
            profiles.observe("key 7", "m", n * 7_919 % 6_000);
        });
    });
    c.bench_function("estimate a reply", |b| b.iter(|| black_box(profiles.estimate("key 7", "m", 1_000, 95))));
}

fn costs(c: &mut Criterion) {
    let parts = |input: u64| Parts {
        input: Some(Picodollars(input)),
        cache_read: Some(Picodollars(input / 10)),
        output: Some(Picodollars(input * 4)),
        ..Parts::default()
    };
    let tier = |above: u64| Variant { above_input_tokens: Some(above), parts: parts(above * 20), ..Variant::default() };
    let usage = Usage { input: 150_000, cache_read: 90_000, output: 700, output_reasoning: 1_300, ..Usage::default() };
    let mut group = c.benchmark_group("cost of a request");
    for (name, variants) in [("one price", vec![]), ("three tiers", [128_000, 200_000, 272_000].map(tier).to_vec())] {
        let card = Arc::new(PriceCard { base: parts(2_500_000), variants });
        let pricing = Pricing::of(&card, PriceSource::Configured, "a", Day::at(START / 1_000)).unwrap();
        group.bench_function(name, |b| b.iter(|| black_box(pricing.cost(black_box(&usage), &BillingFacts::default()))));
    }
    group.finish();
}

const PROSE: &str = "A gateway stands between many teams and a handful of providers. It decides who may ask, how much may \
    be asked, and who pays for the answer. Most of the work is ordinary: reading a request, finding its owner.\\n";
const CODE: &str = "    for counter in self.counters_of(&reservation) {\\n        counter.adjust(reservation.at, reserved, \
    actual);\\n    }\\n";
const CHINESE: &str = "只有当没有人能够花费超过约定的数额，同时也没有人需要无缘无故地等待时，预算才算得到遵守。";

fn estimates(c: &mut Criterion) {
    let family = Family::of("gpt-4o", false);
    let mut group = c.benchmark_group("estimate input");
    for (name, piece) in [("prose", PROSE), ("code", CODE), ("Chinese", CHINESE)] {
        for bytes in [1_000, 100_000] {
            let text = piece.repeat(bytes / piece.len() + 1);
            let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#);
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_function(BenchmarkId::new(name, bytes), |b| {
                b.iter(|| black_box(Measure::of(black_box(body.as_bytes())).tokens(family)));
            });
        }
    }
    let image = format!(
        r#"{{"messages":[{{"content":[{{"image_url":{{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAoAAAAHg{}"}}}}]}}]}}"#,
        "CAYAAAA10dzk".repeat(100_000)
    );
    group.throughput(Throughput::Bytes(image.len() as u64));
    group.bench_function("a picture of 1.2 MB", |b| {
        b.iter(|| black_box(Measure::of(black_box(image.as_bytes())).tokens(family)));
    });
    group.finish();
}

criterion_group!(benches, admission, windows, holder, profiles, costs, estimates);
criterion_main!(benches);
