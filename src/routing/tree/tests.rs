#![expect(clippy::arithmetic_side_effects, reason = "tests may overflow and panic")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use serde_json::{Value, json};

use super::*;
use crate::billing::AskPrices;
use crate::gateway::plan::Unusable;
use crate::routing::board::{Availability, Skip, Standing};
use crate::routing::testing::{Request, World, config};
use crate::seeded::Random;

/// Routes, the state of their turns, and a seed.
struct Desk {
    config: Config,
    turns: Turns,
    random: Random,
    policy: WhenAllOpen,
}

impl Desk {
    fn new(routes: Value) -> Self {
        Self { config: config(routes), turns: Turns::default(), random: Random::new(1), policy: WhenAllOpen::Refuse }
    }

    fn order(&mut self, name: &str, request: &Request, world: &World) -> Order<'_> {
        order(&self.config, name, request, world, &mut self.turns, &mut || self.random.next(), self.policy)
    }

    fn names(&mut self, request: &Request, world: &World) -> Vec<String> {
        names(&self.order("r", request, world))
    }

    fn first(&mut self, request: &Request, world: &World) -> String {
        self.names(request, world).swap_remove(0)
    }
}

fn names(order: &Order<'_>) -> Vec<String> {
    order.candidates.iter().map(|candidate| candidate.deployment.to_owned()).collect()
}

fn told(order: &Order<'_>) -> Vec<String> {
    order.left_out.iter().map(|it| format!("{}: {}", it.deployment, it.reason)).collect()
}

fn models(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"model": name})).collect()
}

fn session(name: &str) -> Request {
    Request::new().header("x-session-id", name)
}

#[test]
fn a_model_stands_for_itself() {
    let mut desk = Desk::new(json!({"r": {"targets": models(&["m1"])}}));
    let order = desk.order("m1", &Request::new(), &World::default());
    assert_eq!((names(&order), order.strategy, order.pinned), (vec!["m1".to_owned()], None, false));
    let [only] = order.candidates.as_slice() else { panic!("one candidate") };
    assert_eq!((only.provider, only.path.len(), only.route()), ("p", 0, None));
    let unhealthy = World::default().without("m1", Skip::Open { ms_left: 70 });
    let order = desk.order("m1", &Request::new(), &unhealthy);
    assert_eq!((order.candidates.len(), order.retry_after_ms(), order.has_unhealthy()), (0, Some(70), true));
    assert!(desk.order("nobody", &Request::new(), &World::default()).candidates.is_empty());
}

#[test]
fn what_cannot_answer_is_left_out_and_the_reason_told() {
    let mut desk = Desk::new(json!({
        "r": {"targets": [
            {"model": "m1", "enabled": false},
            {"model": "m2", "when": {"stream": true}},
            {"model": "m3"},
            {"model": "m4"},
            {"route": "off"},
            {"route": "none"},
            {"model": "m5"},
            {"model": "m6"},
            {"model": "m5"},
        ]},
        "off": {"enabled": false, "targets": models(&["m1"])},
    }));
    desk.config.models.remove("m6");
    let mut world = World::default().without("m4", Skip::CoolingDown { ms_left: 5 });
    world.unusable.insert("m3".into());
    let order = desk.order("r", &Request::new(), &world);
    assert_eq!(names(&order), ["m5"]);
    assert_eq!(
        told(&order),
        [
            "m1: the route's target is disabled",
            "m2: it is only for requests with another value of `stream`",
            "m3: the model's provider does not serve this API",
            "off: the route is disabled",
            "none: the route does not exist",
            "m6: the model does not exist",
            "m5: it stands further up already",
            &format!("m4: {}", Skip::CoolingDown { ms_left: 5 }),
        ]
    );
    assert!(order.left_out.iter().all(|it| it.route == Some("r")));
    desk.config.routes.get_mut("r").unwrap().enabled = false;
    assert!(desk.order("r", &Request::new(), &world).candidates.is_empty());
}

#[test]
fn whoever_cannot_be_asked_after_all_makes_room() {
    let mut desk = Desk::new(json!({"r": {"strategy": "least_connections", "targets": models(&["m1", "m2", "m3"])}}));
    let mut order = desk.order("r", &Request::new(), &World::default());
    let before = names(&order);
    order.pass_first(LeftOutReason::Unfit);
    assert_eq!(names(&order), before[1..]);
    assert_eq!(order.least_connections.iter().map(|it| it.index).collect::<Vec<_>>(), [0, 1]);
    (0..3).for_each(|_| order.pass_first(LeftOutReason::Unfit));
    assert!(order.candidates.is_empty() && order.least_connections.is_empty());
}

#[test]
fn lower_priorities_stand_by_for_higher_ones() {
    let mut desk = Desk::new(json!({"r": {"strategy": "round_robin", "targets": [
        {"model": "m5", "priority": 9}, {"model": "m1"}, {"model": "m3", "priority": 1}, {"model": "m2"},
        {"model": "m4", "priority": 1},
    ]}}));
    let world = World::default();
    let orders: Vec<Vec<String>> = (0..4).map(|_| desk.names(&Request::new(), &world)).collect();
    for order in &orders {
        assert_eq!(order[..2].iter().collect::<BTreeSet<_>>().len(), 2);
        assert_eq!(order[2..4].iter().collect::<BTreeSet<_>>(), ["m3".to_owned(), "m4".to_owned()].iter().collect());
        assert_eq!(order[4], "m5");
    }
    assert_ne!(orders[0][0], orders[1][0]);
    assert_eq!(orders[..2], orders[2..], "what stands by has no turns");
    let down = ["m1", "m2"].into_iter().fold(world, |world, it| world.without(it, Skip::HalfOpen));
    let firsts: Vec<String> = (0..4).map(|_| desk.first(&Request::new(), &down)).collect();
    assert_ne!(firsts[0], firsts[1]);
    assert_eq!(firsts[..2], firsts[2..]);
}

#[test]
fn a_route_keeps_its_turn_until_it_is_its_turn() {
    let inner = |names: &[&str]| json!({"strategy": "round_robin", "targets": models(names)});
    let mut desk = Desk::new(json!({
        "r": {"strategy": "round_robin", "targets": [{"route": "a"}, {"route": "b"}, {"model": "m5"}]},
        "a": inner(&["m1", "m2"]),
        "b": inner(&["m3", "m4"]),
    }));
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..600 {
        *counts.entry(desk.first(&Request::new(), &World::default())).or_default() += 1;
    }
    let counts: Vec<u64> = counts.into_values().collect();
    assert_eq!(counts, [100, 100, 100, 100, 200]);
}

#[test]
fn a_route_among_the_targets_stays_together() {
    let mut desk = Desk::new(json!({
        "r": {"strategy": "lowest_cost", "targets": [{"model": "m1"}, {"route": "a"}, {"model": "m4"}]},
        "a": {"targets": models(&["m2", "m3"])},
    }));
    let costs = [("m1", 5), ("m2", 3), ("m3", 9), ("m4", 4)];
    let world = World { costs: costs.map(|(name, cost)| (name.to_owned(), cost)).into(), ..World::default() };
    let order = desk.order("r", &Request::new(), &world);
    assert_eq!(names(&order), ["m2", "m3", "m4", "m1"]);
    let paths: Vec<String> = order.candidates.iter().map(|candidate| candidate.path.join(">")).collect();
    assert_eq!(paths, ["r>a", "r>a", "r", "r"]);
    let why: Vec<&str> = order.candidates.iter().map(|candidate| candidate.why).collect();
    assert_eq!(why, ["the first in the list", "stands by", "stands by", "stands by"]);
    let down = world.without("m2", Skip::HalfOpen);
    assert_eq!(desk.names(&Request::new(), &down), ["m4", "m1", "m3"], "then it counts as the next of its own");
}

/// Deployments at prices.
struct Market(BTreeMap<String, AskPrices>, u64);

impl View for Market {
    fn usable(&self, _: &str) -> Result<(), Unusable> {
        Ok(())
    }

    fn standing(&self, _: &str, _: &str) -> Standing {
        Standing::UNKNOWN
    }

    fn in_flight(&self, _: &str) -> u64 {
        0
    }

    fn cost(&self, deployment: &str) -> Option<u64> {
        self.0.get(deployment).map(|prices| prices.cost(self.1, 200))
    }
}

#[test]
fn who_is_cheapest_depends_on_the_requests_size() {
    let mut desk = Desk::new(json!({"r": {"strategy": "lowest_cost", "targets": models(&["m0", "m1", "m2"])}}));
    let prices = [
        ("m1", AskPrices { input: 2_500_000, output: 10_000_000, fixed: 0 }),
        ("m2", AskPrices { input: 100_000, output: 15_000_000, fixed: 0 }),
    ];
    let prices: BTreeMap<String, AskPrices> = prices.map(|(name, prices)| (name.to_owned(), prices)).into();
    for (tokens, expected) in [(100, ["m1", "m2", "m0"]), (10_000, ["m2", "m1", "m0"])] {
        let market = Market(prices.clone(), tokens);
        let Desk { config, turns, random, .. } = &mut desk;
        let found = order(config, "r", &Request::new(), &market, turns, &mut || random.next(), WhenAllOpen::Refuse);
        assert_eq!(names(&found), expected);
    }
}

#[test]
fn who_is_kept_stays_until_its_target_fails_and_then_has_one_other() {
    let mut desk = Desk::new(json!({
        "r": {"strategy": "round_robin", "targets": models(&["m1", "m2", "m3"]), "sticky": {"by": "session"}},
    }));
    let world = World::default();
    let order = desk.names(&session("s"), &world);
    for _ in 0..10 {
        assert_eq!(desk.names(&session("s"), &world), order);
    }
    assert!(desk.order("r", &session("s"), &world).pinned);
    let down = world.clone().without(&order[0], Skip::Open { ms_left: 1 });
    for _ in 0..10 {
        assert_eq!(desk.names(&session("s"), &down), order[1..]);
    }
    let without: BTreeSet<String> = (0..3).map(|_| desk.first(&Request::new(), &world)).collect();
    assert_eq!(without.len(), 3, "without a session it is everybody's turn");
    assert!(!desk.order("r", &Request::new(), &world).pinned);
}

#[test]
fn routes_below_take_over_what_callers_are_kept_by() {
    let mut desk = Desk::new(json!({
        "r": {"targets": [{"route": "a"}], "sticky": {"by": "session"}},
        "a": {"strategy": "split", "targets": models(&["m1", "m2", "m3", "m4"])},
        "own": {"targets": [{"route": "b"}], "sticky": {"by": "session"}},
        "b": {"strategy": "round_robin", "targets": models(&["m1", "m2"]), "sticky": {"by": "user"}},
    }));
    let world = World::default();
    for name in ["s", "t", "u"] {
        let kept: BTreeSet<String> = (0..20).map(|_| desk.first(&session(name), &world)).collect();
        assert_eq!(kept.len(), 1);
    }
    let all: BTreeSet<String> = (0..50).map(|nth| desk.first(&session(&nth.to_string()), &world)).collect();
    assert_eq!(all.len(), 4);
    let own: BTreeSet<String> =
        (0..4).map(|_| names(&desk.order("own", &session("s"), &world)).swap_remove(0)).collect();
    assert_eq!(own.len(), 2, "by user, of whom there is none here");
}

#[test]
fn the_gauge_picks_among_those_of_the_first_priority() {
    let routes = json!({
        "r": {"strategy": "least_connections", "targets": [
            {"model": "m1", "weight": 2}, {"model": "m2"}, {"model": "m3"}, {"model": "m4", "priority": 1},
        ]},
        "deep": {"targets": [{"route": "r"}, {"model": "m5"}]},
        "both": {"strategy": "least_connections", "targets": [{"model": "m6"}, {"route": "r", "weight": 4}]},
        "late": {"targets": [{"model": "m5"}, {"route": "r"}]},
    });
    let mut desk = Desk::new(routes);
    let mut world = World::default().without("m3", Skip::HalfOpen);
    world.in_flight.insert("m1".into(), 9);
    let found = |order: &Order<'_>| {
        let name = |contender: &Contender| order.candidates[contender.index].deployment.to_owned();
        order.least_connections.iter().map(|it| (name(it), it.weight)).collect::<BTreeMap<_, _>>()
    };
    let of = |list: &[(&str, u64)]| list.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
    let order = desk.order("r", &Request::new(), &world);
    assert_eq!(names(&order), ["m2", "m1", "m4"]);
    let expected: BTreeMap<String, u64> = of(&[("m1", 2_000), ("m2", 1_000)]);
    assert_eq!(found(&order), expected);
    assert_eq!(found(&desk.order("deep", &Request::new(), &world)), expected);
    let both: BTreeMap<String, u64> = of(&[("m1", 2_666), ("m2", 1_333), ("m6", 1_000)]);
    assert_eq!(found(&desk.order("both", &Request::new(), &world)), both);
    assert!(found(&desk.order("late", &Request::new(), &world)).is_empty());
    let one = world.without("m2", Skip::HalfOpen);
    assert!(found(&desk.order("r", &Request::new(), &one)).is_empty(), "nothing to choose from");
}

#[test]
fn a_pick_comes_first_and_the_others_keep_their_order() {
    let mut desk = Desk::new(json!({"r": {"strategy": "least_connections", "targets": models(&["m1", "m2", "m3"])}}));
    let mut order = desk.order("r", &Request::new(), &World::default());
    order.promote(2);
    assert_eq!(names(&order), ["m3", "m1", "m2"]);
    let weights: Vec<usize> = order.least_connections.iter().map(|it| it.index).collect();
    assert_eq!(weights, [1, 2, 0]);
    order.promote(9);
    assert_eq!(names(&order), ["m3", "m1", "m2"]);
}

#[test]
fn when_all_are_unhealthy_the_policy_decides() {
    let names_of_all = ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"];
    let mut desk = Desk::new(json!({"r": {"targets": models(&names_of_all)}}));
    let skips = [
        ("m1", Skip::CoolingDown { ms_left: 900 }),
        ("m2", Skip::AuthFailed { ms_left: 10 }),
        ("m3", Skip::Open { ms_left: 500 }),
        ("m4", Skip::Open { ms_left: 50 }),
        ("m5", Skip::HalfOpen),
        ("m6", Skip::Maintenance),
        ("m7", Skip::NoHeadroom { ms_left: 600 }),
        ("m8", Skip::QuotaExhausted { ms_left: 5 }),
    ];
    let world = skips.into_iter().fold(World::default(), |world, (name, skip)| world.without(name, skip));
    let order = desk.order("r", &Request::new(), &world);
    assert_eq!((names(&order).len(), order.retry_after_ms(), order.in_spite), (0, Some(5), false));
    desk.policy = WhenAllOpen::Try;
    let order = desk.order("r", &Request::new(), &world);
    assert_eq!(names(&order), ["m7", "m5", "m4", "m3", "m8", "m2"]);
    assert!(order.in_spite);
    assert_eq!(told(&order).len(), 2, "a provider's and an operator's word hold all the same");
    let one_left = world.with("m1", Standing::UNKNOWN);
    let order = desk.order("r", &Request::new(), &one_left);
    assert_eq!((names(&order), order.in_spite), (vec!["m1".to_owned()], false));
}

#[test]
fn a_trial_is_a_candidate_that_says_so() {
    let mut desk = Desk::new(json!({"r": {"targets": models(&["m1", "m2"])}}));
    let trial = Standing { availability: Availability::Trial, weight_permille: 100, ..Standing::UNKNOWN };
    let order = desk.order("r", &Request::new(), &World::default().with("m1", trial)).candidates;
    let told: Vec<(bool, u64)> = order.iter().map(|it| (it.trial, it.effective_weight_permille)).collect();
    assert_eq!(told, [(true, 100), (false, 1_000)]);
}

#[test]
fn another_list_is_tried_after_some_faults() {
    let mut desk = Desk::new(json!({
        "r": {"targets": [{"route": "a"}, {"model": "m2"}], "fallbacks": {"context_length": ["m3", "big"], "auth": ["m4"]}},
        "a": {"targets": models(&["m1"]), "fallbacks": {"auth": ["m5"]}},
        "big": {"strategy": "lowest_cost", "targets": models(&["m6", "m7"]), "shadow": {"model": "m1", "account": "a", "percent": 100}},
    }));
    let world = World { costs: [("m7".to_owned(), 1)].into(), ..World::default() }.without("m3", Skip::HalfOpen);
    let Desk { config, turns, random, policy } = &mut desk;
    let (request, random) = (Request::new(), &mut || random.next());
    let found = order(config, "r", &request, &world, turns, random, *policy);
    let [first, second] = found.candidates.as_slice() else { panic!("two candidates") };
    let mut after = |failed: &Candidate<'_>, fault: Fault| {
        let order = fallbacks(config, failed, fault, &request, &world, turns, random)?;
        assert!(order.shadow.is_none(), "it has been copied already");
        Some(order.candidates.iter().map(|it| format!("{} {}", it.deployment, it.path.join(">"))).collect::<Vec<_>>())
    };
    assert_eq!(after(first, Fault::ContextLength), Some(vec!["m7 r>big".to_owned(), "m6 r>big".to_owned()]));
    assert_eq!(after(first, Fault::Auth), Some(vec!["m5 r>a".to_owned()]), "the innermost says it");
    assert_eq!(after(second, Fault::Auth), Some(vec!["m4 r".to_owned()]));
    assert_eq!(after(first, Fault::Overloaded), None);
}

#[test]
fn so_many_of_a_hundred_requests_are_copied() {
    let mut desk = Desk::new(json!({
        "r": {"targets": [{"route": "a"}]},
        "a": {"targets": models(&["m1"]), "shadow": {"model": "m2", "account": "lab", "percent": 25}},
    }));
    let copied = (0..10_000).filter(|_| {
        let order = desk.order("r", &Request::new(), &World::default());
        order.shadow.is_some_and(|shadow| shadow.model == "m2")
    });
    let copied = copied.count();
    assert!((2_350..=2_650).contains(&copied), "{copied}");
}

#[test]
fn circles_that_were_not_noticed_come_to_an_end() {
    let mut targets = vec![json!({"route": "r"}); 32];
    targets.push(json!({"model": "m1"}));
    let mut desk = Desk::new(json!({"r": {"targets": targets}}));
    let order = desk.order("r", &Request::new(), &World::default());
    assert!(order.left_out.len() < 500, "{}", order.left_out.len());
    assert!(order.left_out.iter().any(|it| it.reason == LeftOutReason::TooLarge));
}

#[test]
fn isolates_that_live_for_one_request_keep_to_the_shares_together() {
    let mut random = Random::new(5);
    let config = config(json!({"r": {"strategy": "weighted", "targets": [
        {"model": "m1", "weight": 90}, {"model": "m2", "weight": 9}, {"model": "m3", "weight": 1},
    ]}}));
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..10_000 {
        let mut turns = Turns::default();
        let policy = WhenAllOpen::Refuse;
        let found = order(&config, "r", &Request::new(), &World::default(), &mut turns, &mut || random.next(), policy);
        *counts.entry(names(&found).swap_remove(0)).or_default() += 1;
    }
    let counts: Vec<u64> = counts.into_values().collect();
    assert!((8_850..=9_150).contains(&counts[0]) && (60..=140).contains(&counts[2]), "{counts:?}");
}

#[test]
fn targets_that_come_and_go_by_request_all_get_their_turns() {
    let mut desk = Desk::new(json!({"r": {"strategy": "round_robin", "targets": [
        {"model": "m1"}, {"model": "m2", "when": {"stream": true}}, {"model": "m3"},
    ]}}));
    let mut counts: BTreeMap<(bool, String), u64> = BTreeMap::new();
    for nth in 0..3_000 {
        let request = Request { stream: nth % 2 == 0, ..Request::new() };
        *counts.entry((request.stream, desk.first(&request, &World::default()))).or_default() += 1;
    }
    let of = |name: &str| counts.iter().filter(|((_, it), _)| it == name).map(|(_, count)| count).sum::<u64>();
    let all = [of("m1"), of("m2"), of("m3")];
    // A half of the requests is shared by three, the other by two.
    for (count, expected) in all.into_iter().zip([1_250, 500, 1_250]) {
        assert!(count.abs_diff(expected) <= 3, "{all:?}");
    }
}

#[test]
fn turns_are_kept_of_so_many_routes_and_begin_anew_when_a_route_changes() {
    let routes: serde_json::Map<String, Value> = (0..1_100)
        .map(|nth| (format!("r{nth}"), json!({"strategy": "round_robin", "targets": models(&["m1", "m2"])})))
        .collect();
    let mut desk = Desk::new(Value::Object(routes));
    for nth in 0..1_100 {
        desk.order(&format!("r{nth}"), &Request::new(), &World::default());
    }
    assert_eq!(desk.turns.len(), 1_024);
    desk.config.routes.get_mut("r1099").unwrap().targets.pop();
    let order = desk.order("r1099", &Request::new(), &World::default());
    assert_eq!(names(&order), ["m1"]);
    assert!(!desk.turns.is_empty());
}

const STRATEGIES: [&str; 7] =
    ["ordered", "round_robin", "weighted", "split", "least_connections", "lowest_latency", "lowest_cost"];

/// A tree of routes `r0` … `r3`, each of which leads only to later ones.
fn any_routes() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::strategy::Strategy as _;
    let target = (0..12_usize, 0..3_u64, 1..=5_u64, any::<bool>(), prop::option::weighted(0.2, any::<bool>()));
    // Three each are 120 in all: more than `MAX_TARGETS` no configuration can have.
    let route = (prop::sample::select(&STRATEGIES[..]), prop::collection::vec(target, 1..=3), any::<bool>());
    prop::collection::vec(route, 4).prop_map(|routes| {
        let mut written = serde_json::Map::new();
        for (nth, (strategy, targets, sticky)) in routes.into_iter().enumerate() {
            let targets: Vec<Value> = targets
                .into_iter()
                .map(|(what, priority, weight, nested, stream)| {
                    let mut target = json!({"priority": priority, "weight": weight});
                    match nested && nth < 3 {
                        true => target["route"] = json!(format!("r{}", nth + 1 + what % (3 - nth))),
                        false => target["model"] = json!(format!("m{}", what % 8)),
                    }
                    if let Some(stream) = stream {
                        target["when"] = json!({"stream": stream});
                    }
                    target
                })
                .collect();
            let mut route = json!({"strategy": strategy, "targets": targets});
            if sticky {
                route["sticky"] = json!({"by": "session"});
            }
            written.insert(format!("r{nth}"), route);
        }
        Value::Object(written)
    })
}

/// The deployments that a request can reach.
fn reachable(config: &Config, route: &str, stream: bool, found: &mut BTreeSet<String>) {
    for target in &config.routes[route].targets {
        if target.when.as_ref().and_then(|when| when.stream).is_some_and(|only| only != stream) {
            continue;
        }
        match (&target.model, &target.route) {
            (Some(model), _) => drop(found.insert(model.clone())),
            (None, Some(route)) => reachable(config, route, stream, found),
            (None, None) => {}
        }
    }
}

proptest! {
    #[test]
    fn everybody_who_can_answer_is_there_exactly_once(
        routes in any_routes(),
        healths in prop::collection::vec(0..4_u8, 8),
        seed in any::<u64>(),
        stream in any::<bool>(),
        in_session in any::<bool>(),
    ) {
        let mut desk = Desk::new(routes);
        desk.random = Random::new(seed);
        let mut world = World::default();
        for (nth, health) in healths.iter().enumerate() {
            let name = format!("m{nth}");
            match health {
                0 => { world.unusable.insert(name); }
                1 => world = world.without(&name, Skip::Open { ms_left: 1 }),
                _ => {}
            }
        }
        let request = Request { stream, ..if in_session { session("s") } else { Request::new() } };
        let mut expected = BTreeSet::new();
        reachable(&desk.config, "r0", stream, &mut expected);
        let can = |name: &String| !world.unusable.contains(name) && !world.standings.contains_key(name);
        let (can, cannot): (Vec<String>, Vec<String>) = expected.into_iter().partition(can);
        for _ in 0..3 {
            let order = desk.order("r0", &request, &world);
            let mut found = names(&order);
            found.sort_unstable();
            prop_assert_eq!(&found, &can);
            for contender in &order.least_connections {
                prop_assert!(contender.index < order.candidates.len() && contender.weight > 0);
            }
            let left_out: BTreeSet<&str> = order.left_out.iter().map(|it| it.deployment).collect();
            for name in &cannot {
                prop_assert!(left_out.contains(name.as_str()), "{name}");
            }
        }
        desk.policy = WhenAllOpen::Try;
        let order = desk.order("r0", &request, &world);
        prop_assert_eq!(order.in_spite, can.is_empty() && cannot.iter().any(|name| !world.unusable.contains(name)));
    }
}

#[test]
fn shares_go_down_the_tree_and_to_the_first_tier_alone() {
    let mut desk = Desk::new(json!({
        "r": {"strategy": "split", "targets": [
            {"route": "half", "weight": 3}, {"model": "m3", "weight": 1}, {"model": "m1", "weight": 4},
            {"model": "m4", "priority": 1},
        ]},
        "half": {"strategy": "round_robin", "targets": models(&["m1", "m2"])},
    }));
    let shares = |order: &Order<'_>| -> BTreeMap<String, u64> {
        order.candidates.iter().map(|it| (it.deployment.to_owned(), it.share_ppm)).collect()
    };
    let order = desk.order("r", &Request::new(), &World::default());
    let expected = [("m1", 187_500 + 500_000), ("m2", 187_500), ("m3", 125_000), ("m4", 0)];
    assert_eq!(shares(&order), expected.map(|(name, share)| (name.to_owned(), share)).into());
    assert!(order.left_out.iter().any(|it| it.deployment == "m1" && it.reason.code() == "duplicate"));
}

#[test]
fn whom_the_gauge_picks_is_first_for_the_reason_that_the_first_had() {
    let mut desk = Desk::new(json!({"r": {"strategy": "least_connections", "targets": models(&["m1", "m2", "m3"])}}));
    let mut order = desk.order("r", &Request::new(), &World::default());
    order.promote(2);
    let told: Vec<_> = order.candidates.iter().map(|it| (it.deployment, it.why, it.share_ppm)).collect();
    let others = |name| (name, "stands by", 0);
    assert_eq!(told, [("m3", "the fewest open requests", 1_000_000), others("m1"), others("m2")]);
}
