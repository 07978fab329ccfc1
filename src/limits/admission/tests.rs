use super::super::amounts::{Amounts, AskPrices};
use super::super::ask::{Answer, Ask, Breach, Grant, LeaseReturn, LeaseTerms, LeaseUse, OpenUse, Settled, Settlement};
use super::*;
use crate::limits::calendar::DAY_MS;
use crate::limits::rule::Dimension;
use serde_json::{Value, json};

/// 2026-01-14, a Wednesday, 12:00 UTC.
const NOON: u64 = 20_467 * DAY_MS + DAY_MS / 2;

fn rule(scope: &str, subject: &str, terms: Value) -> Rule {
    let mut rule = json!({"id": format!("{scope} {subject} {terms}"), "scope": scope, "subject": subject});
    rule.as_object_mut().unwrap().extend(terms.as_object().unwrap().clone());
    serde_json::from_value(rule).unwrap()
}

fn terms(dimension: &str, period: &str, amount: u64) -> Value {
    json!({"dimension": dimension, "period": period, "amount": amount})
}

fn with(rules: impl IntoIterator<Item = Rule>) -> Admission {
    let mut admission = Admission::new(Scope::Account);
    admission.set_rules(rules.into_iter().collect());
    admission
}

fn ask(id: &str) -> Ask {
    Ask {
        id: id.into(),
        key_id: "k".into(),
        user: Some("u".into()),
        model: "m".into(),
        input_tokens: 10,
        max_output_tokens: 1_000,
        prices: Some(AskPrices { input: 1_000, output: 2_000, fixed: 5 }),
        lifetime_ms: 60_000,
        first_output_tokens: 20,
        output_quantile_percent: 95,
        ..Ask::default()
    }
}

fn used(requests: u64, input: u64, output: u64, cost: u64) -> Settlement {
    Settlement {
        key_id: "k".into(),
        user: Some("u".into()),
        model: "m".into(),
        amounts: Amounts { requests, input, output, cost },
        ..Settlement::default()
    }
}

fn granted(answer: Answer) -> Grant {
    match answer {
        Answer::Granted(grant) => grant,
        Answer::Denied(denial) => panic!("denied: {denial:?}"),
    }
}

fn denied(answer: Answer) -> Breach {
    match answer {
        Answer::Denied(denial) => denial.breach,
        Answer::Granted(grant) => panic!("granted: {grant:?}"),
    }
}

const CALLER: Caller<'static> = Caller { key: "k", user: Some("u"), model: None };

fn total(admission: &Admission, now: u64) -> Total {
    admission.totals(now, Scope::Account, &CALLER).total
}

#[test]
fn a_reservation_counts_until_the_settlement_takes_its_place() {
    let mut admission = with([rule("account", "acc", terms("cost", "month", 1_000))]);
    let grant = granted(admission.reserve(NOON, &ask("1")));
    assert_eq!(grant.reserved, Amounts { requests: 1, input: 10, output: 20, cost: 55 });
    let state = &grant.states[0];
    assert_eq!((state.used, state.reserved, state.remaining, state.limit), (55, 55, 945, 1_000));
    assert_eq!(state.reset_ms, 17 * DAY_MS + DAY_MS / 2);
    assert_eq!(admission.settle(NOON + 5, "1", &used(1, 10, 3, 21)), Settled::Counted);
    let caller = Caller { model: Some("m"), ..CALLER };
    for scope in [Scope::Key, Scope::User, Scope::Account] {
        for caller in [CALLER, caller] {
            let totals = admission.totals(NOON + 9, scope, &caller);
            let expected = Total { settled: used(1, 10, 3, 21).amounts, reserved: Amounts::default() };
            assert_eq!((totals.day, totals.week, totals.month, totals.total), (expected, expected, expected, expected));
        }
    }
    assert_eq!(admission.totals(NOON + DAY_MS, Scope::Key, &caller).day, Total::default());
    assert_eq!(admission.totals(NOON, Scope::Key, &Caller { model: Some("n"), ..CALLER }), Totals::default());
}

#[test]
fn a_refusal_names_the_rule_that_lasts_longest_and_counts_nothing() {
    let mut admission = with([
        rule("key", "k", terms("requests", "minute", 1)),
        rule("user", "u", terms("requests", "day", 1)),
        rule("account", "acc", terms("concurrency", "none", 1)),
        rule("key", "other", terms("requests", "total", 0)),
    ]);
    granted(admission.reserve(NOON, &ask("1")));
    let breach = denied(admission.reserve(NOON + 1_000, &ask("2")));
    assert_eq!((breach.scope, breach.retry_after_ms), (Scope::User, Some(DAY_MS / 2 - 1_000)));
    assert_eq!((breach.limit, breach.used, breach.asked), (1, 1, 1));
    assert_eq!(total(&admission, NOON).reserved.requests, 1);
    admission.set_rules(vec![rule("account", "acc", terms("concurrency", "none", 1))]);
    assert_eq!(denied(admission.reserve(NOON + 2_000, &ask("2"))).retry_after_ms, Some(1_000));
    assert_eq!(admission.connections(NOON), BTreeMap::from([("k".to_owned(), 1)]));
    admission.settle(NOON + 3_000, "1", &used(1, 0, 0, 0));
    granted(admission.reserve(NOON + 3_000, &ask("2")));
    admission.set_rules(vec![rule("account", "acc", terms("requests", "minute", 0))]);
    assert_eq!(denied(admission.reserve(NOON, &ask("3"))).retry_after_ms, None);
}

#[test]
fn a_shadow_rule_reports_what_it_would_have_refused() {
    let shadow = json!({"dimension": "requests", "period": "total", "amount": 1, "mode": "shadow"});
    let mut admission = with([rule("key", "k", shadow)]);
    assert!(granted(admission.reserve(NOON, &ask("1"))).shadowed.is_empty());
    let grant = granted(admission.reserve(NOON, &ask("2")));
    assert_eq!((grant.shadowed.len(), grant.shadowed[0].used, grant.states[0].used), (1, 1, 2));
    assert_eq!(grant.shadowed[0].retry_after_ms, None);
}

#[test]
fn a_default_holds_for_whom_no_rule_of_its_kind_is_made() {
    let mut admission = with([rule("key", "k", terms("requests", "minute", 2))]);
    let defaults =
        vec![rule("key", "*", terms("requests", "minute", 1)), rule("user", "*", terms("requests", "day", 3))];
    let of = |id: &str, key: &str| Ask { key_id: key.into(), defaults: defaults.clone(), ..ask(id) };
    granted(admission.reserve(NOON, &of("1", "k")));
    granted(admission.reserve(NOON, &of("2", "k")));
    assert_eq!(denied(admission.reserve(NOON, &of("3", "k"))).subject, "k");
    granted(admission.reserve(NOON, &of("4", "j")));
    let breach = denied(admission.reserve(NOON, &of("5", "j")));
    assert_eq!((breach.subject.as_str(), breach.period), ("u", crate::limits::rule::Period::Day));
    assert!(admission.applies(&CALLER, &[]) && !admission.applies(&Caller { key: "j", ..CALLER }, &[]));
    let changes = admission.take_changes();
    assert_eq!(changes[0], Change::Defaults(defaults));
}

#[test]
fn a_gauge_counts_a_provider_whoever_asks() {
    let mut gauge = Admission::new(Scope::Provider);
    let defaults = vec![rule("provider", "openai", terms("concurrency", "none", 2))];
    let of = |id: &str, key: &str| Ask { key_id: key.into(), defaults: defaults.clone(), ..ask(id) };
    granted(gauge.reserve(NOON, &of("1", "j")));
    let grant = granted(gauge.reserve(NOON, &of("2", "k")));
    assert_eq!((grant.states[0].used, grant.states[0].scope), (2, Scope::Provider));
    assert_eq!(denied(gauge.reserve(NOON, &of("3", "l"))).dimension, crate::limits::rule::Dimension::Concurrency);
    assert_eq!(gauge.connections(NOON), BTreeMap::from([("j".to_owned(), 1), ("k".to_owned(), 1)]));
    gauge.settle(NOON, "1", &used(0, 0, 0, 0));
    assert_eq!(gauge.totals(NOON, Scope::Provider, &CALLER).total.used().requests, 1);
    granted(gauge.reserve(NOON, &of("3", "l")));
}

#[test]
fn the_outputs_guess_keeps_nothing_out_whose_input_fits() {
    let mut admission = with([rule("key", "k", terms("total_tokens", "minute", 25))]);
    assert_eq!(granted(admission.reserve(NOON, &ask("1"))).reserved.output, 15);
    let breach = denied(admission.reserve(NOON, &ask("2")));
    assert_eq!((breach.asked, breach.retry_after_ms > Some(59_000)), (25, true));
    let large = Ask { input_tokens: 26, ..ask("3") };
    assert_eq!(denied(admission.reserve(NOON, &large)).retry_after_ms, None);
}

#[test]
fn output_is_learned_from_complete_replies() {
    let mut admission = with([]);
    for n in 0..20 {
        let id = n.to_string();
        granted(admission.reserve(NOON, &ask(&id)));
        admission.settle(NOON, &id, &Settlement { complete: true, ..used(1, 10, 100, 0) });
        admission.settle(NOON, &format!("{n} cut"), &used(1, 10, 900, 0));
    }
    assert_eq!(granted(admission.reserve(NOON, &ask("x"))).reserved.output, 111);
    let short = Ask { max_output_tokens: 7, ..ask("y") };
    assert_eq!(granted(admission.reserve(NOON, &short)).reserved.output, 7);
}

#[test]
fn repeated_and_reordered_messages_change_nothing() {
    let mut admission = with([rule("key", "k", terms("requests", "minute", 5))]);
    let first = granted(admission.reserve(NOON, &ask("1")));
    let again = granted(admission.reserve(NOON + 1, &ask("1")));
    assert_eq!((again.reserved, again.repeated, first.repeated), (first.reserved, true, false));
    assert_eq!(again.states[0].used, 1);
    let settlements: Vec<_> = (0..2).map(|_| admission.settle(NOON + 2, "1", &used(1, 1, 1, 1))).collect();
    assert_eq!(settlements, [Settled::Counted, Settled::Repeated]);
    assert_eq!(admission.settle(NOON + 2, "2", &used(1, 1, 1, 1)), Settled::Counted);
    let late = granted(admission.reserve(NOON + 3, &ask("2")));
    assert_eq!((late.reserved, late.repeated, late.states[0].used), (Amounts::default(), true, 2));
    assert_eq!(
        total(&admission, NOON),
        Total { settled: Amounts { requests: 2, input: 2, output: 2, cost: 2 }, ..Total::default() }
    );
}

#[test]
fn what_is_never_settled_is_charged_as_reserved() {
    let mut admission = with([rule("key", "k", terms("concurrency", "none", 1))]);
    granted(admission.reserve(NOON, &ask("1")));
    assert_eq!(admission.next_expiry(), Some(NOON + 60_000));
    admission.expire(NOON + 59_999);
    let _ = admission.take_changes();
    granted(admission.reserve(NOON + 60_000, &ask("2")));
    let changes = admission.take_changes();
    let Change::Put(row) = &changes[0] else { panic!("{changes:?}") };
    assert_eq!((row.id.as_str(), row.stage, row.amounts.cost), ("1", Stage::Expired, 55));
    assert_eq!(admission.settle(NOON + 60_001, "1", &used(1, 0, 0, 0)), Settled::Late);
    assert_eq!((admission.late_settlements(), total(&admission, NOON).settled.cost), (1, 55));
    admission.forget(["1", "2"]);
    assert_eq!((admission.open_rows(), admission.settle(NOON + 60_002, "2", &used(1, 0, 0, 0))), (1, Settled::Counted));
}

fn leasing(id: &str) -> Ask {
    Ask { holder: "h".into(), lease: LeaseTerms { ttl_ms: 2_000, share_percent: 5 }, ..ask(id) }
}

fn lease(admission: &mut Admission, now: u64) -> crate::limits::ask::LeaseGrant {
    for n in 0..3 {
        assert_eq!(granted(admission.reserve(now, &leasing(&format!("warm {n}")))).lease, None);
    }
    granted(admission.reserve(now, &leasing("hot"))).lease.unwrap()
}

#[test]
fn who_asks_often_gets_a_lease_that_counts_at_its_end() {
    let mut admission = with([rule("account", "acc", terms("requests", "minute", 200))]);
    let grant = lease(&mut admission, NOON);
    assert_eq!((grant.block.requests, grant.block.output, grant.output_tokens, grant.ttl_ms), (8, 160, 20, 2_000));
    assert_eq!(admission.states(NOON, &CALLER, &[])[0].used, 12);
    assert_eq!(granted(admission.reserve(NOON, &leasing("hot"))).lease, Some(grant.clone()), "asked again");
    let from = |requests: u64| {
        Some(LeaseUse { id: grant.id.clone(), reserved: Amounts { requests, input: 10, output: 20, cost: 55 } })
    };
    assert_eq!(admission.settle(NOON + 900, "a", &Settlement { lease: from(1), ..used(1, 9, 9, 9) }), Settled::Counted);
    assert_eq!(
        admission.settle(NOON + 900, "a", &Settlement { lease: from(1), ..used(1, 9, 9, 9) }),
        Settled::Repeated
    );
    assert_eq!(admission.states(NOON + 61_999, &CALLER, &[])[0].used, 8);
    assert_eq!(admission.states(NOON + 62_000, &CALLER, &[])[0].used, 0);
    let open = vec![
        OpenUse { id: "a".into(), reserved: from(1).unwrap().reserved },
        OpenUse { id: "b".into(), reserved: from(1).unwrap().reserved },
    ];
    admission.give_back(NOON + 1_000, &LeaseReturn { id: grant.id.clone(), open });
    assert_eq!(admission.states(NOON + 1_000, &CALLER, &[])[0].used, 6);
    assert_eq!(admission.settle(NOON + 900, "b", &Settlement { lease: from(1), ..used(0, 0, 0, 0) }), Settled::Counted);
    assert_eq!(admission.states(NOON + 1_000, &CALLER, &[])[0].used, 5);
    assert_eq!(admission.settle(NOON + 900, "c", &Settlement { lease: from(1), ..used(1, 0, 0, 0) }), Settled::Late);
    assert_eq!(granted(admission.reserve(NOON + 1_000, &leasing("hot"))).lease, None);
}

#[test]
fn an_abandoned_lease_is_charged_and_an_unheard_one_is_not() {
    let mut admission = with([]);
    lease(&mut admission, NOON);
    admission.expire(NOON + 61_999);
    assert_eq!(total(&admission, NOON).settled.requests, 4);
    admission.expire(NOON + 62_000);
    assert_eq!(
        total(&admission, NOON),
        Total { settled: Amounts { requests: 12, input: 120, output: 240, cost: 4 * 55 * 3 }, ..Total::default() }
    );

    let mut admission = with([]);
    lease(&mut admission, NOON);
    admission.settle(NOON + 5, "hot", &Settlement { unanswered: true, ..used(1, 1, 1, 1) });
    assert_eq!(total(&admission, NOON).used().requests, 4);
    let deleted = admission.take_changes().into_iter().any(|change| change == Change::Delete("hot.lease".to_owned()));
    assert!(deleted);
}

#[test]
fn tight_limits_leave_no_room_for_leases() {
    for tight in [
        terms("concurrency", "none", 1_000),
        terms("requests", "second", 10_000),
        json!({"dimension": "requests", "period": "minute", "amount": 10_000, "burst": 10_000}),
        terms("requests", "day", 40),
        terms("cost", "total", 2_000),
    ] {
        let mut admission = with([rule("key", "k", tight)]);
        for n in 0..12 {
            assert_eq!(granted(admission.reserve(NOON, &leasing(&n.to_string()))).lease, None);
        }
    }
    let mut admission = with([]);
    let midnight = NOON + DAY_MS / 2;
    assert_eq!(lease(&mut admission, midnight - 500).ttl_ms, 499);
}

#[test]
fn a_preview_says_what_a_request_would_meet_and_changes_nothing() {
    let shadow = json!({"dimension": "requests", "period": "minute", "amount": 0, "mode": "shadow"});
    let mut admission = with([rule("account", "acc", terms("requests", "day", 1)), rule("key", "k", shadow)]);
    let room = admission.preview(NOON, &ask("1"));
    assert_eq!((room.reserved.cost, room.breach), (55, None));
    assert_eq!(room.shadowed.len(), 1);
    assert!(admission.take_changes().is_empty());
    let grant = granted(admission.reserve(NOON, &ask("1")));
    assert_eq!((grant.reserved, grant.shadowed), (room.reserved, room.shadowed));
    let full = admission.preview(NOON + 1, &ask("2"));
    assert_eq!(Some(denied(admission.reserve(NOON + 1, &ask("2")))), full.breach);
    assert_eq!(full.reserved, room.reserved, "what it would take is told all the same");
}

#[test]
fn what_users_and_keys_have_of_their_own_can_be_seen_at_once() {
    let for_model = json!({"dimension": "requests", "period": "day", "amount": 5, "model": "n"});
    let mut admission = with([
        rule("account", "acc", terms("requests", "day", 9)),
        rule("user", "u", terms("requests", "day", 8)),
        rule("key", "k", terms("requests", "day", 7)),
        rule("key", "k", for_model),
        rule("key", "other", terms("requests", "day", 6)),
    ]);
    granted(admission.reserve(NOON, &ask("1")));
    let seen = |model| {
        let states = admission.inner_states(NOON, model);
        states.into_iter().map(|state| (state.subject, state.limit, state.used)).collect::<Vec<_>>()
    };
    let expected = [("k", 7, 1), ("k", 5, 0), ("other", 6, 0), ("u", 8, 1)];
    let named = |all: &[(&str, u64, u64)]| {
        all.iter().map(|(subject, limit, used)| ((*subject).to_owned(), *limit, *used)).collect::<Vec<_>>()
    };
    let mut all = seen(None);
    all.sort_by(|one, other| (&one.0, other.1).cmp(&(&other.0, one.1)));
    assert_eq!(all, named(&expected));
    assert_eq!(seen(Some("m")).len(), 3);
}

#[test]
fn since_when_requests_are_open_is_known() {
    let mut admission = with([]);
    for (id, at) in [("1", 5), ("2", 9)] {
        granted(admission.reserve(NOON + at, &ask(id)));
    }
    assert_eq!(admission.open_since(NOON + 10), BTreeMap::from([("k".to_owned(), NOON + 5)]));
    admission.settle(NOON + 11, "1", &used(1, 1, 1, 1));
    assert_eq!(admission.open_since(NOON + 12), BTreeMap::from([("k".to_owned(), NOON + 9)]));
    assert!(admission.open_since(NOON + 9 + 60_000).is_empty());
}

#[test]
fn a_request_that_goes_on_has_what_it_needs_there_or_keeps_what_it_has() {
    let mut admission = with([
        rule("account", "acc", terms("cost", "month", 200)),
        rule("key", "k", terms("concurrency", "none", 1)),
        rule("key", "k", json!({"dimension": "requests", "period": "total", "amount": 1, "model": "n"})),
    ]);
    granted(admission.reserve(NOON, &ask("1")));
    let dearer = |times: u64| AskPrices { input: 1_000 * times, output: 2_000 * times, fixed: 5 };
    let next = |turn, model: &str, times| Ask { turn, model: model.into(), prices: Some(dearer(times)), ..ask("1") };
    let grant = granted(admission.reserve(NOON + 1, &next(1, "n", 3)));
    assert_eq!((grant.reserved.cost, grant.repeated), (155, false));
    assert_eq!((total(&admission, NOON).reserved.cost, admission.connections(NOON)["k"]), (155, 1));
    // Once more, and an earlier turn that comes late, change nothing.
    assert!(granted(admission.reserve(NOON + 2, &next(1, "n", 3))).repeated);
    assert!(granted(admission.reserve(NOON + 2, &ask("1"))).repeated);
    let breach = denied(admission.reserve(NOON + 3, &next(2, "m", 4)));
    assert_eq!((breach.dimension, breach.used, breach.asked), (Dimension::Cost, 0, 205));
    assert_eq!(total(&admission, NOON).reserved.cost, 155);
    let of = |model| Caller { model: Some(model), ..CALLER };
    assert_eq!(admission.totals(NOON, Scope::Key, &of("m")).total, Total::default());
    assert_eq!(admission.settle(NOON + 4, "1", &used(1, 10, 3, 63)), Settled::Counted);
    assert_eq!(admission.totals(NOON, Scope::Key, &of("n")).total.settled.cost, 63);
    assert!(granted(admission.reserve(NOON + 5, &next(3, "m", 1))).repeated, "it is over");
    let n = Ask { model: "n".into(), ..ask("2") };
    assert_eq!(denied(admission.reserve(NOON + 6, &n)).dimension, Dimension::Requests);
    granted(admission.reserve(NOON + 6, &ask("2")));
}

#[test]
fn a_bucket_that_a_request_leaves_is_as_it_was_without_it_also_after_a_restart() {
    let bucket = |model: &str| json!({"dimension": "output_tokens", "period": "minute", "amount": 60, "burst": 30, "model": model});
    let rules = [rule("key", "k", bucket("m")), rule("key", "k", bucket("n"))];
    let mut admission = with(rules.clone());
    let mut rows = BTreeMap::new();
    let mut store = |admission: &mut Admission| {
        for change in admission.take_changes() {
            if let Change::Put(row) = change {
                rows.insert(row.id.clone(), *row);
            }
        }
        let base = Base { subjects: Subjects::new(Scope::Account), meta: Meta::default() };
        let mut restored = Admission::restore(base, rows.values().cloned(), Vec::new());
        restored.set_rules(rules.to_vec());
        for model in ["m", "n"] {
            let caller = Caller { model: Some(model), ..CALLER };
            assert_eq!(restored.states(NOON + 9_000, &caller, &[]), admission.states(NOON + 9_000, &caller, &[]));
        }
    };
    let used_of = |admission: &Admission, now, model| {
        admission.states(now, &Caller { model: Some(model), ..CALLER }, &[])[0].used
    };
    granted(admission.reserve(NOON, &ask("1")));
    assert_eq!(used_of(&admission, NOON, "m"), 20);
    let turn = |turn, model: &str| Ask { turn, model: model.into(), ..ask("1") };
    granted(admission.reserve(NOON + 5_000, &turn(1, "n")));
    store(&mut admission);
    assert_eq!((used_of(&admission, NOON + 5_000, "m"), used_of(&admission, NOON + 5_000, "n")), (0, 20));
    granted(admission.reserve(NOON + 6_000, &ask("2")));
    let full = Ask { max_output_tokens: 20, ..turn(2, "m") };
    assert_eq!(denied(admission.reserve(NOON + 6_000, &full)).used, 20);
    assert_eq!((used_of(&admission, NOON + 6_000, "m"), used_of(&admission, NOON + 6_000, "n")), (20, 19));
    store(&mut admission);
    granted(admission.reserve(NOON + 20_000, &full));
    store(&mut admission);
    admission.settle(NOON + 21_000, "1", &used(1, 10, 20, 1));
    store(&mut admission);
    assert_eq!((used_of(&admission, NOON + 21_000, "m"), used_of(&admission, NOON + 21_000, "n")), (25, 0));
}
