//! Isolates, a gauge, models and callers, on one clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::routing::attempts::{Attempts, Failed, Next, Policy};
use crate::routing::board::{
    Availability, Board, Condition, Observation, Skip, Snapshot, Standing, Terms, Want, weights,
};
use crate::routing::budget::Budget;
use crate::routing::outcome::Fault;
use crate::seeded::Random;

/// How long it runs.
pub(super) const SECONDS: usize = 360;

/// When the first model is down, in seconds.
pub(super) const OUTAGE: (u64, u64) = (100, 130);

/// When the second one flaps, in seconds: five of them down, five up.
pub(super) const FLAPPING: (u64, u64) = (180, 240);

const ISOLATES: usize = 20;

/// The way to a gauge, in milliseconds.
const WAY_MS: u64 = 20;

/// How often an isolate reports while it is busy, and after a fault, in milliseconds.
const REPORT_MS: u64 = 1_000;
const SOON_MS: u64 = 100;

/// A model.
pub(super) struct Model {
    /// What it is called; its provider as well.
    pub(super) name: &'static str,
    /// The time to its first token with no load, in milliseconds.
    first_token_ms: u64,
    /// How many requests double that.
    capacity: u64,
    /// How often it fails, in permille.
    errors: u64,
}

pub(super) const MODELS: [Model; 3] = [
    Model { name: "fast", first_token_ms: 300, capacity: 60, errors: 10 },
    Model { name: "slow", first_token_ms: 600, capacity: 60, errors: 10 },
    Model { name: "shaky", first_token_ms: 300, capacity: 60, errors: 80 },
];

/// What was seen, by second and model.
#[derive(Default)]
pub(super) struct Log {
    /// First attempts.
    pub(super) first: Vec<[u64; 3]>,
    /// All attempts.
    pub(super) attempts: Vec<[u64; 3]>,
    /// Attempts as trials.
    pub(super) trials: Vec<[u64; 3]>,
    /// Attempts that failed.
    pub(super) failed: Vec<[u64; 3]>,
    /// The effective weights by the gauge's board, 0 for one that is left alone.
    pub(super) weights: Vec<[u64; 3]>,
    /// When breakers closed, in milliseconds.
    pub(super) closed: Vec<(usize, u64)>,
    /// When the first model was last asked in its outage by somebody who did not know of it, in milliseconds.
    pub(super) unaware_at: u64,
    /// The most trials of one model that were under way at a time.
    pub(super) most_trials: usize,
    pub(super) requests: u64,
    /// Requests whose attempts all failed.
    pub(super) unanswered: u64,
}

#[derive(Default)]
struct Isolate {
    board: Board,
    budget: Budget,
    queue: Vec<Observation>,
    reported_at: u64,
    /// When the next report is due.
    due: Option<u64>,
    /// Whether one is under way.
    asking: bool,
}

/// A request under way.
struct Call {
    isolate: usize,
    attempts: Attempts,
    tried: [bool; 3],
    model: usize,
    began: u64,
    trial: bool,
    fault: Option<Fault>,
}

enum Event {
    Request,
    Done(Call),
    Report(usize),
    Asked(usize, u64, Vec<Observation>, Vec<Want>),
    Answered(usize, u64, Snapshot),
    Second,
}

/// Events by time, those of the same time in the order in which they were planned.
struct Planned(u64, u64, Event);

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

pub(super) struct World {
    random: Random,
    now: u64,
    planned: BinaryHeap<Reverse<Planned>>,
    count: u64,
    isolates: Vec<Isolate>,
    gauge: Board,
    terms: Terms,
    policy: Policy,
    open: [u64; 3],
    trying: [usize; 3],
    log: Log,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let routing = crate::config::Routing { dynamic_weights: true, ..Default::default() };
        Self {
            random: Random::new(seed),
            now: 0,
            planned: BinaryHeap::new(),
            count: 0,
            isolates: (0..ISOLATES).map(|_| Isolate::default()).collect(),
            gauge: Board::default(),
            terms: Terms::of(&routing),
            policy: Policy::new(&routing, None, None),
            open: [0; 3],
            trying: [0; 3],
            log: Log::default(),
        }
    }

    pub(super) fn run(mut self) -> Log {
        for second in 0..SECONDS {
            self.plan(second as u64 * 1_000, Event::Second);
        }
        self.plan(1, Event::Request);
        while let Some(Reverse(Planned(at, _, event))) = self.planned.pop() {
            self.now = at;
            if at >= SECONDS as u64 * 1_000 {
                break;
            }
            match event {
                Event::Second => self.second(),
                Event::Request => self.request(),
                Event::Done(call) => self.done(call),
                Event::Report(isolate) => self.report(isolate),
                Event::Asked(isolate, asked, said, wants) => self.asked(isolate, asked, said, &wants),
                Event::Answered(isolate, asked, snapshot) => self.answered(isolate, asked, &snapshot),
            }
        }
        self.log
    }

    fn plan(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.planned.push(Reverse(Planned(at, self.count, event)));
    }

    fn second(&mut self) {
        let standings = self.standings(&self.gauge);
        let effective = weights(&standings, true);
        let ready = |nth: usize| standings[nth].availability == Availability::Ready;
        self.log.weights.push([0, 1, 2].map(|nth| if ready(nth) { effective[nth] } else { 0 }));
        for counts in [&mut self.log.first, &mut self.log.attempts, &mut self.log.trials, &mut self.log.failed] {
            counts.push([0; 3]);
        }
    }

    fn standings(&self, board: &Board) -> [Standing; 3] {
        [0, 1, 2].map(|nth: usize| board.standing(self.now, &self.terms, MODELS[nth].name, MODELS[nth].name))
    }

    /// A caller's request; the next one comes in a moment.
    fn request(&mut self) {
        let (gap, isolate) = (1 + self.random.below(9), usize::try_from(self.random.below(ISOLATES as u64)).unwrap());
        self.plan(self.now + gap, Event::Request);
        self.log.requests += 1;
        self.isolates[isolate].budget.request(self.now);
        let attempts = Attempts::new(self.policy.clone(), None);
        self.attempt(isolate, attempts, [false; 3]);
    }

    /// Draws a model by effective weight; of trials only as many are made as there are permits.
    fn attempt(&mut self, isolate: usize, attempts: Attempts, mut tried: [bool; 3]) {
        let standings = self.standings(&self.isolates[isolate].board);
        for (model, standing) in MODELS.iter().zip(&standings) {
            if standing.availability == Availability::Skipped(Skip::HalfOpen) {
                self.isolates[isolate].board.want_trial(self.now, model.name, model.name);
                self.due(isolate, SOON_MS);
            }
        }
        let may = |nth: usize| !tried[nth] && !matches!(standings[nth].availability, Availability::Skipped(_));
        let mut effective = weights(&standings, true);
        (0..3).filter(|nth| !may(*nth)).for_each(|nth| effective[nth] = 0);
        let mut drawn = self.random.below(effective.iter().sum::<u64>().max(1));
        let model = effective.iter().position(|weight| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        });
        let Some(model) = model else {
            self.log.unanswered += 1;
            return;
        };
        let name = MODELS[model].name;
        let trial = self.isolates[isolate].board.take_trial(self.now, name, name);
        let second = self.log.attempts.last_mut().unwrap();
        second[model] += 1;
        self.log.trials.last_mut().unwrap()[model] += u64::from(trial);
        if model == 0 && !trial && self.now / 1_000 < OUTAGE.1 {
            self.log.unaware_at = self.now;
        }
        if tried == [false; 3] {
            self.log.first.last_mut().unwrap()[model] += 1;
        }
        tried[model] = true;
        self.open[model] += 1;
        self.trying[model] += usize::from(trial);
        self.log.most_trials = self.log.most_trials.max(self.trying[model]);
        let (fault, takes) = self.fate(model);
        let call = Call { isolate, attempts, tried, model, began: self.now, trial, fault };
        self.plan(self.now + takes, Event::Done(call));
    }

    /// What becomes of a request to a model, and how long that takes.
    fn fate(&mut self, model: usize) -> (Option<Fault>, u64) {
        let second = self.now / 1_000;
        let within = |span: (u64, u64)| second >= span.0 && second < span.1;
        let down = match model {
            0 => within(OUTAGE),
            1 => within(FLAPPING) && (second - FLAPPING.0) % 10 < 5,
            _ => false,
        };
        let known = &MODELS[model];
        let loaded = known.first_token_ms * (known.capacity + self.open[model]) / known.capacity;
        let takes = loaded * (70 + self.random.below(61)) / 100;
        match down {
            true => (Some(Fault::ServerError), 30 + self.random.below(40)),
            false => ((self.random.below(1_000) < known.errors).then_some(Fault::ServerError), takes),
        }
    }

    fn done(&mut self, mut call: Call) {
        let Call { isolate, model, began, trial, fault, .. } = call;
        let took = self.now - began;
        self.open[model] -= 1;
        self.trying[model] -= usize::from(trial);
        self.log.failed.last_mut().unwrap()[model] += u64::from(fault.is_some());
        let seen = Observation {
            provider: MODELS[model].name.to_owned(),
            deployment: MODELS[model].name.to_owned(),
            fault,
            first_token_ms: fault.is_none().then_some(took),
            total_ms: took,
            trial,
            at: self.now,
            ..Observation::default()
        };
        let random = self.random.next();
        self.isolates[isolate].board.observe(self.now, &self.terms, &seen, random);
        self.isolates[isolate].queue.push(seen);
        self.due(isolate, if fault.is_some() || trial { SOON_MS } else { REPORT_MS });
        let Some(fault) = fault else { return };
        let others = call.tried.contains(&false);
        let failed = Failed { fault, retry_after_ms: None, others, named: false };
        match call.attempts.next(self.now, failed, &mut self.isolates[isolate].budget, random) {
            Next::Other => self.attempt(isolate, call.attempts, call.tried),
            Next::Same { .. } | Next::Stop(_) => self.log.unanswered += 1,
        }
    }

    /// A report is due so long after the last one at the latest.
    fn due(&mut self, nth: usize, after_ms: u64) {
        let isolate = &mut self.isolates[nth];
        let at = (isolate.reported_at + after_ms).max(self.now);
        if isolate.due.is_none_or(|due| at < due) {
            isolate.due = Some(at);
            self.plan(at, Event::Report(nth));
        }
    }

    fn report(&mut self, nth: usize) {
        let isolate = &mut self.isolates[nth];
        if isolate.asking || isolate.due.is_none_or(|due| due > self.now) {
            return;
        }
        (isolate.due, isolate.asking, isolate.reported_at) = (None, true, self.now);
        let wants = isolate.board.wants(self.now, &MODELS.map(|model| model.name));
        let said = std::mem::take(&mut isolate.queue);
        self.plan(self.now + WAY_MS, Event::Asked(nth, self.now, said, wants));
    }

    fn asked(&mut self, nth: usize, asked: u64, said: Vec<Observation>, wants: &[Want]) {
        for mut seen in said {
            // A gauge is told ages, so the way makes everything seem later than it was.
            seen.at += self.now - asked;
            let random = self.random.next();
            for turn in self.gauge.observe(self.now, &self.terms, &seen, random) {
                if turn.to == Condition::Closed {
                    let model = MODELS.iter().position(|model| model.name == turn.subject.provider).unwrap();
                    self.log.closed.push((model, self.now));
                }
            }
        }
        let snapshot = self.gauge.snapshot(self.now, &self.terms, &nth.to_string(), wants);
        self.plan(self.now + WAY_MS, Event::Answered(nth, asked, snapshot));
    }

    fn answered(&mut self, nth: usize, asked: u64, snapshot: &Snapshot) {
        let random = self.random.next();
        let isolate = &mut self.isolates[nth];
        isolate.asking = false;
        isolate.board.adopt(self.now, &self.terms, asked, snapshot, &isolate.queue, random);
        if isolate.due.take().is_some() || !isolate.queue.is_empty() {
            self.due(nth, SOON_MS);
        }
    }
}
