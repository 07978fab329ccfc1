//! Several isolates and a gauge that dies at times, with reports that are lost, late, repeated or answered in vain.

#![expect(clippy::arithmetic_side_effects, reason = "small numbers")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::routing::trials::LEASE_MS;

const TRIALS: u64 = 2;
const ISOLATES: usize = 3;

fn terms() -> Terms {
    let breaker = config::Breaker {
        consecutive: 3,
        open_ms: 500,
        max_open_ms: 4_000,
        trials: TRIALS,
        ..config::Breaker::default()
    };
    Terms { breaker, ..Terms::default() }
}

/// What can happen.
#[derive(Debug, Clone)]
enum Step {
    /// Time passes.
    Wait(u64),
    /// An isolate gets a request, and sends it if it may.
    Begin(usize),
    /// The oldest request of an isolate ends.
    End(usize, Option<Fault>),
    /// An isolate reports; the answer takes a while.
    Ask(usize, Fate),
    /// The oldest answer that is on its way to an isolate arrives.
    Hear(usize),
    /// The gauge is evicted.
    Evict,
}

/// What becomes of a report.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    ArrivesTwice,
    IsLost,
    AnswerIsLost,
}

#[derive(Default)]
struct Isolate {
    board: Board,
    queue: Vec<Observation>,
    /// Requests under way: when they began, and whether as a trial.
    open: Vec<(u64, bool)>,
    /// Answers on their way: when the question was asked.
    answers: Vec<(u64, Snapshot)>,
}

struct World {
    now: u64,
    isolates: Vec<Isolate>,
    gauge: Board,
    disk: String,
    /// The permits that have been used.
    spent: BTreeSet<u64>,
}

impl World {
    fn new() -> Self {
        let isolates = (0..ISOLATES).map(|_| Isolate::default()).collect();
        let mut world =
            Self { now: 1_000_000, isolates, gauge: Board::default(), disk: "{}".to_owned(), spent: BTreeSet::new() };
        // Everybody has met the gauge once.
        for nth in 0..ISOLATES {
            world.begin(nth);
            world.end(nth, None);
            world.ask(nth, Fate::Arrives);
            world.hear(nth);
        }
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(millis) => self.now += millis,
            Step::Begin(nth) => self.begin(nth),
            Step::End(nth, fault) => self.end(nth, fault),
            Step::Ask(nth, fate) => self.ask(nth, fate),
            Step::Hear(nth) => self.hear(nth),
            Step::Evict => {
                self.gauge = Board::restore(self.now, serde_json::from_str(&self.disk).unwrap());
            }
        }
    }

    fn begin(&mut self, nth: usize) {
        let Isolate { board, open, .. } = &mut self.isolates[nth];
        match board.standing(self.now, &terms(), "p", "m").availability {
            Availability::Ready => open.push((self.now, false)),
            Availability::Trial => {
                let running = |board: &Board| board.providers["p"].deployments["m"].permits.running(self.now);
                let before = running(board);
                assert!(board.take_trial(self.now, "p", "m"), "what is at hand can be taken");
                // One that the isolate has given itself has no id.
                let taken = running(board).into_iter().find(|id| !before.contains(id));
                assert!(taken.is_none_or(|id| self.spent.insert(id)), "a permit is used once");
                open.push((self.now, true));
            }
            Availability::Skipped(Skip::HalfOpen) => board.want_trial(self.now, "p", "m"),
            Availability::Skipped(_) => {}
        }
    }

    fn end(&mut self, nth: usize, fault: Option<Fault>) {
        let isolate = &mut self.isolates[nth];
        if isolate.open.is_empty() {
            return;
        }
        let (began, trial) = isolate.open.remove(0);
        let seen = Observation {
            provider: "p".into(),
            deployment: "m".into(),
            fault,
            total_ms: self.now - began,
            trial,
            at: self.now,
            ..Observation::default()
        };
        isolate.board.observe(self.now, &terms(), &seen, began % 401);
        isolate.queue.push(seen);
    }

    fn ask(&mut self, nth: usize, fate: Fate) {
        let (now, terms) = (self.now, terms());
        let isolate = &mut self.isolates[nth];
        let wants = isolate.board.wants(now, &["p"]);
        let report = std::mem::take(&mut isolate.queue);
        let times = match fate {
            Fate::IsLost => 0,
            Fate::Arrives | Fate::AnswerIsLost => 1,
            Fate::ArrivesTwice => 2,
        };
        let holder = format!("isolate {nth}");
        for _ in 0..times {
            for seen in &report {
                self.gauge.observe(now, &terms, seen, now % 401);
            }
            let snapshot = self.gauge.snapshot(now, &terms, &holder, &wants);
            if !matches!(fate, Fate::AnswerIsLost) {
                isolate.answers.push((now, snapshot));
            }
        }
        if matches!(fate, Fate::IsLost | Fate::AnswerIsLost) {
            isolate.queue.splice(0..0, report);
            isolate.board.unanswered(now, &["p"]);
        }
        if self.gauge.take_changed() {
            self.disk = serde_json::to_string(&self.gauge.stored(now, &terms)).unwrap();
        }
    }

    fn hear(&mut self, nth: usize) {
        let isolate = &mut self.isolates[nth];
        if !isolate.answers.is_empty() {
            let (asked, snapshot) = isolate.answers.remove(0);
            isolate.board.adopt(self.now, &terms(), asked, &snapshot, &isolate.queue, self.now % 401);
        }
    }

    /// The permits that are out, as far as isolates can still make use of them.
    fn permits(&self) -> BTreeSet<u64> {
        let entries = self.isolates.iter().filter_map(|it| it.board.providers.get("p")?.deployments.get("m"));
        entries.flat_map(|entry| entry.permits.out(self.now)).collect()
    }

    /// Trials under way that isolates have allowed themselves.
    fn own_trials(&self, nth: usize) -> usize {
        self.isolates[nth].open.iter().filter(|(_, trial)| *trial).count()
    }
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        3 => Just(None),
        4 => Just(Some(Fault::ServerError)),
        1 => Just(Some(Fault::ClientClosed)),
        1 => Just(Some(Fault::BadRequest)),
    ];
    let fate = prop_oneof![
        6 => Just(Fate::Arrives),
        1 => Just(Fate::ArrivesTwice),
        1 => Just(Fate::IsLost),
        1 => Just(Fate::AnswerIsLost),
    ];
    prop_oneof![
        4 => (1_u64..1_500).prop_map(Step::Wait),
        6 => (0..ISOLATES).prop_map(Step::Begin),
        5 => (0..ISOLATES, fault).prop_map(|(nth, fault)| Step::End(nth, fault)),
        4 => (0..ISOLATES, fate).prop_map(|(nth, fate)| Step::Ask(nth, fate)),
        4 => (0..ISOLATES).prop_map(Step::Hear),
        1 => Just(Step::Evict),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 5_000 }))]

    #[test]
    fn there_are_never_more_permits_than_configured_and_nothing_is_stuck(
        steps in proptest::collection::vec(step(), 1..200), gauge_answers in any::<bool>(),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            prop_assert!(world.permits().len() as u64 <= TRIALS, "{:?}", world.permits());
            for nth in 0..ISOLATES {
                // One of its own beside those that the gauge has given it, now or in the minute before.
                let recent = world.now.saturating_sub(LEASE_MS);
                let begun = world.isolates[nth].open.iter().filter(|(began, trial)| *trial && *began > recent).count();
                prop_assert!(begun as u64 <= TRIALS + 1, "{begun} of {}", world.own_trials(nth));
            }
        }
        // Whatever has been: some time after all is over, each isolate can send a request again.
        for nth in 0..ISOLATES {
            world.isolates[nth].answers.clear();
            while !world.isolates[nth].open.is_empty() {
                world.end(nth, Some(Fault::ServerError));
            }
        }
        world.now += 70_000;
        let fate = if gauge_answers { Fate::Arrives } else { Fate::IsLost };
        let mut sent = false;
        for _ in 0..3 {
            world.begin(0);
            sent |= !world.isolates[0].open.is_empty();
            world.ask(0, fate);
            world.hear(0);
            world.now += if gauge_answers { 20 } else { 5_000 };
        }
        prop_assert!(sent);
        for _ in 0..20 {
            world.begin(0);
            world.now += 20;
            world.end(0, None);
            world.ask(0, fate);
            world.hear(0);
            world.now += 3_000;
        }
        let standing = world.isolates[0].board.standing(world.now, &terms(), "p", "m");
        prop_assert_eq!(standing.availability, Availability::Ready);
    }
}

/// Requests that come once in five minutes, to one isolate: its permits end unused until the gauge lends them for longer.
#[test]
fn where_requests_are_rare_they_are_tried_all_the_same() {
    let mut world = World::new();
    for _ in 0..3 {
        world.begin(0);
        world.end(0, Some(Fault::ServerError));
    }
    world.ask(0, Fate::Arrives);
    world.hear(0);
    let mut tried_after = None;
    for nth in 1..20 {
        world.now += 300_000;
        world.begin(0);
        if !world.isolates[0].open.is_empty() {
            tried_after = Some(nth);
            break;
        }
        world.ask(0, Fate::Arrives);
        world.hear(0);
    }
    assert!(tried_after.is_some_and(|nth| nth <= 9), "{tried_after:?}");
}
