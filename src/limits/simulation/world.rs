//! The world of a schedule.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::Store;
use super::oracle::{Decision, Oracle};
use super::{Random, Seen};
use crate::limits::admission::Admission;
use crate::limits::amounts::{Amounts, AskPrices};
use crate::limits::ask::{Answer, Ask, LeaseReturn, LeaseTerms, LeaseUse, Settlement};
use crate::limits::calendar::DAY_MS;
use crate::limits::holder::{Holder, Lessee, Need};
use crate::limits::rule::{Dimension, LimitMode, LimitTerms, Period, Rule, Scope};

/// 2026-02-01, a Sunday: the day before a week's begin, the first of a month.
const SUNDAY: u64 = 20_485 * DAY_MS;

/// After how long an isolate gives up waiting for an answer, in milliseconds.
const PATIENCE_MS: u64 = 1_000;

/// After how long a request that is not settled is charged.
pub(super) const LIFETIME_MS: u64 = 20_000;

/// A settlement on its way, with its request's id.
pub(super) type Entry = (String, Settlement);

#[derive(Debug, Clone)]
pub(super) enum Event {
    Arrive { isolate: usize },
    Asked { isolate: usize, epoch: u64, ask: Ask },
    Answered { isolate: usize, epoch: u64, id: String, turn: u32, at: u64, answer: Answer },
    GivenUp { isolate: usize, epoch: u64, id: String },
    GoesOn { isolate: usize, epoch: u64, id: String },
    Ended { isolate: usize, epoch: u64, id: String },
    Posted { isolate: usize, epoch: u64, post: u64, entries: Vec<Entry>, returns: Vec<LeaseReturn> },
    Acknowledged { isolate: usize, epoch: u64, post: u64 },
    Resend { isolate: usize, epoch: u64, post: u64 },
    CrashIsolate { isolate: usize },
    CrashLedger,
    NewAmounts,
    Alarm,
}

#[derive(Default)]
struct Isolate {
    epoch: u64,
    /// How far its clock is ahead, in milliseconds, of one that is an hour late.
    ahead: u64,
    holder: Holder,
    /// Requests that wait for an answer: when they asked by the isolate's clock.
    asking: BTreeMap<String, (u64, Ask)>,
    running: BTreeMap<String, (Ask, Amounts)>,
    /// What running requests ask that go on with another model.
    going: BTreeMap<String, Ask>,
    outbox: BTreeMap<u64, (Vec<Entry>, Vec<LeaseReturn>, u64)>,
}

/// How a world is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anything goes.
    Any,
    /// So busy that leases matter.
    Hot,
    /// One rate that is always full.
    Tight,
    /// One rate that is always full, of leases above all.
    Leased,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) now: u64,
    pub(super) events: BTreeMap<(u64, u64), Event>,
    pub(super) scheduled: u64,
    isolates: Vec<Isolate>,
    pub(super) ledger: Admission,
    pub(super) store: Store,
    pub(super) rules: Vec<Rule>,
    pub(super) defaults: Vec<Rule>,
    pub(super) oracle: Oracle,
    pub(super) expired: BTreeSet<String>,
    pub(super) seen: Seen,
    // How this world is.
    pub(super) loss: u64,
    pub(super) slow: u64,
    pub(super) crash: u64,
    pub(super) pause_ms: u64,
    pub(super) keys: u64,
    pub(super) models: u64,
    pub(super) kind: Kind,
    pub(super) left: u64,
    pub(super) lease_ms: u64,
    pub(super) share: u8,
    pub(super) requests: u64,
}

/// Runs a schedule to its end.
pub(super) fn run(seed: u64) -> Seen {
    let mut world = World::new(Random::new(seed));
    while let Some(((at, _), event)) = world.events.pop_first() {
        world.now = at;
        world.happen(event);
    }
    world.finish();
    world.seen
}

impl World {
    fn new(mut random: Random) -> Self {
        let isolates: Vec<Isolate> = (0..random.within(1, 3))
            .map(|_| Isolate { ahead: random.within(3_590_000, 3_610_000), ..Isolate::default() })
            .collect();
        let kind = random.pick(&[Kind::Any, Kind::Hot, Kind::Tight, Kind::Leased]);
        let pauses: &[u64] = match kind {
            Kind::Any => &[3, 30, 300, 3_000, 60_000],
            Kind::Hot => &[3, 30, 300],
            Kind::Tight => &[10, 40, 300, 1_500],
            Kind::Leased => &[100, 300],
        };
        let one = matches!(kind, Kind::Tight | Kind::Leased);
        let pause_ms = random.pick(pauses);
        let left = match kind {
            Kind::Any => random.within(5, 50),
            Kind::Hot | Kind::Tight => random.within(40, 120),
            Kind::Leased => random.within(80, 200),
        };
        // Near the end of the day, half of the time.
        let start = if random.percent(50) { SUNDAY + DAY_MS - random.below(pause_ms * left + 1) } else { SUNDAY + 7 };
        let mut world = Self {
            now: start,
            events: BTreeMap::new(),
            scheduled: 0,
            isolates,
            ledger: Admission::new(Scope::Account),
            store: Store::default(),
            rules: Vec::new(),
            defaults: Vec::new(),
            oracle: Oracle::default(),
            expired: BTreeSet::new(),
            seen: Seen::default(),
            loss: if one { 0 } else { random.pick(&[0, 2, 20]) },
            slow: if one { 0 } else { random.pick(&[0, 5, 20]) },
            crash: random.pick(&[0, 1, 5]),
            keys: if kind == Kind::Any { random.within(1, 3) } else { 1 },
            models: if kind == Kind::Any { random.within(1, 2) } else { 1 },
            kind,
            left,
            lease_ms: random.pick(if kind == Kind::Leased { &[2_000, 10_000] } else { &[0, 500, 2_000, 10_000] }),
            share: random.pick(&[5, 25]),
            pause_ms,
            requests: 0,
            random,
        };
        let most_rules = if one { 1 } else { 4 };
        for n in 0..world.random.within(most_rules / 4, most_rules) {
            let rule = world.any_rule(n);
            let rules = if rule.subject == "*" { &mut world.defaults } else { &mut world.rules };
            // Nobody can set two of a kind.
            if !rules.iter().any(|other| other.subject == rule.subject && other.is_of_the_kind_of(&rule)) {
                rules.push(rule);
            }
        }
        world.apply_rules();
        for isolate in 0..world.isolates.len() {
            world.after(0, Event::Arrive { isolate });
        }
        world.after(1_000, Event::Alarm);
        for _ in 0..if one { 0 } else { world.random.below(3) } {
            let at = world.random.below(world.pause_ms * 20 + 1);
            world.after(at, Event::NewAmounts);
        }
        world
    }

    fn any_rule(&mut self, n: u64) -> Rule {
        let random = &mut self.random;
        let leased = self.kind == Kind::Leased;
        let tight = leased || self.kind == Kind::Tight;
        let scope = if tight { Scope::Account } else { random.pick(&[Scope::Key, Scope::User, Scope::Account]) };
        let subject = match scope {
            _ if random.percent(25) => "*".to_owned(),
            Scope::Key => format!("k{}", random.below(3)),
            Scope::User => "u0".to_owned(),
            Scope::Account | Scope::Provider => "acc".to_owned(),
        };
        let dimension = random.pick(&[
            Dimension::Requests,
            Dimension::Requests,
            Dimension::InputTokens,
            Dimension::OutputTokens,
            Dimension::TotalTokens,
            Dimension::Cost,
            Dimension::Cost,
            Dimension::Concurrency,
        ]);
        let periods =
            [Period::Second, Period::Minute, Period::Hour, Period::Day, Period::Week, Period::Month, Period::Total];
        let dimension = if leased { Dimension::Requests } else { dimension };
        let period = match dimension {
            _ if leased => Period::Minute,
            Dimension::Concurrency => Period::None,
            _ if tight => random.pick(&[Period::Second, Period::Minute]),
            _ => random.pick(&periods),
        };
        let amount = amount(random, dimension, self.kind);
        let burst =
            (!leased && period.window_ms().is_some() && random.percent(30)).then(|| amount / random.within(1, 4) + 1);
        let mode = if !tight && random.percent(15) { LimitMode::Shadow } else { LimitMode::Enforce };
        let model = (!tight && random.percent(20)).then(|| "m0".to_owned());
        Rule {
            id: format!("r{n}"),
            scope,
            subject,
            terms: LimitTerms { model, dimension, period, amount, burst, mode },
        }
    }

    fn apply_rules(&mut self) {
        self.ledger.set_rules(self.rules.clone());
        self.oracle.rules_since(self.now, &self.rules, &self.defaults);
    }

    pub(super) fn after(&mut self, wait: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((self.now + wait, self.scheduled), event);
    }

    /// Sends a message: perhaps late, twice, or never.
    pub(super) fn send(&mut self, event: Event) {
        let copies = 1 + u64::from(self.random.percent(self.loss));
        for _ in 0..copies {
            if !self.random.percent(self.loss) {
                let most = if self.random.percent(self.slow) { 40_000 } else { 80 };
                let wait = self.random.below(most);
                self.after(wait, event.clone());
            }
        }
    }

    fn clock(&self, isolate: usize) -> u64 {
        self.now + self.isolates[isolate].ahead - 3_600_000
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { isolate } => self.arrive(isolate),
            Event::Asked { isolate, epoch, ask } => self.asked(isolate, epoch, &ask),
            Event::Answered { isolate, epoch, id, turn, at, answer } => {
                if self.isolates[isolate].epoch == epoch && turn > 0 {
                    self.went_on(isolate, &id, turn, &answer);
                } else if self.isolates[isolate].epoch == epoch {
                    self.answered(isolate, &id, at, &answer);
                }
            }
            Event::GoesOn { isolate, epoch, id } => {
                if self.isolates[isolate].epoch == epoch {
                    self.go_on(isolate, &id);
                }
            }
            Event::GivenUp { isolate, epoch, id } => {
                if self.isolates[isolate].epoch == epoch {
                    self.give_up(isolate, &id);
                }
            }
            Event::Ended { isolate, epoch, id } => {
                if self.isolates[isolate].epoch == epoch {
                    self.end(isolate, &id);
                }
            }
            Event::Posted { isolate, epoch, post, entries, returns } => {
                self.posted(isolate, epoch, post, &entries, &returns);
            }
            Event::Acknowledged { isolate, epoch, post } => {
                let isolate = &mut self.isolates[isolate];
                if isolate.epoch == epoch
                    && let Some((entries, ..)) = isolate.outbox.remove(&post)
                {
                    for (id, settlement) in entries {
                        if let Some(used) = settlement.lease {
                            isolate.holder.acknowledged(&id, &used);
                        }
                    }
                }
            }
            Event::Resend { isolate, epoch, post } => {
                if self.isolates[isolate].epoch == epoch {
                    self.resend(isolate, post);
                }
            }
            Event::CrashIsolate { isolate } => {
                self.seen.count("isolate_crashes", 1);
                let Isolate { epoch, ahead, .. } = self.isolates[isolate];
                for id in self.isolates[isolate].running.keys() {
                    self.oracle.ended(id, self.now);
                }
                self.isolates[isolate] = Isolate { epoch: epoch + 1, ahead, ..Isolate::default() };
            }
            Event::CrashLedger => self.crash_ledger(),
            Event::NewAmounts => {
                for rule in &mut self.rules {
                    rule.terms.amount = amount(&mut self.random, rule.terms.dimension, self.kind);
                }
                self.apply_rules();
            }
            Event::Alarm => self.alarm(),
        }
    }

    // === Isolates ===

    fn arrive(&mut self, isolate: usize) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        // Just as the windows of before begin to empty, everybody comes again.
        let pause = self.kind != Kind::Any && self.random.percent(3);
        let short = self.kind == Kind::Leased && self.random.percent(10);
        let wait = match (pause, short) {
            (true, _) => self.random.within(50_000, 60_500),
            (_, true) => self.random.within(1_000, 6_000),
            _ => self.random.below(self.pause_ms + 1),
        };
        self.after(wait, Event::Arrive { isolate });
        if self.random.percent(self.crash) {
            let wait = self.random.below(500);
            let crash = if self.random.percent(50) { Event::CrashIsolate { isolate } } else { Event::CrashLedger };
            self.after(wait, crash);
        }

        self.requests += 1;
        let id = format!("q{}", self.requests);
        let key = self.random.below(self.keys);
        let ask = Ask {
            key_id: format!("k{key}"),
            user: (key < 2).then(|| "u0".to_owned()),
            model: format!("m{}", self.random.below(self.models)),
            input_tokens: self.random.below(30),
            max_output_tokens: self.random.within(0, 60),
            prices: self.random.percent(90).then_some(AskPrices { input: 1_500, output: 7_300, fixed: 2 }),
            lifetime_ms: LIFETIME_MS,
            defaults: self.defaults.clone(),
            holder: if self.random.percent(90) { format!("h{isolate}") } else { String::new() },
            lease: LeaseTerms { ttl_ms: self.lease_ms, share_percent: self.share },
            first_output_tokens: 20,
            output_quantile_percent: 90,
            id: id.clone(),
            turn: 0,
            passing: false,
        };
        let clock = self.clock(isolate);
        let need =
            Need { input_tokens: ask.input_tokens, max_output_tokens: ask.max_output_tokens, prices: ask.prices };
        if let Some(local) = self.isolates[isolate].holder.admit(clock, &id, &lessee(&ask), &need) {
            self.seen.count("leased", 1);
            self.admitted(isolate, ask, local.used.reserved, self.now);
            return;
        }
        let epoch = self.isolates[isolate].epoch;
        self.isolates[isolate].asking.insert(id.clone(), (clock, ask.clone()));
        self.send(Event::Asked { isolate, epoch, ask: ask.clone() });
        if self.random.percent(10) {
            self.send(Event::Asked { isolate, epoch, ask });
        }
        self.after(PATIENCE_MS, Event::GivenUp { isolate, epoch, id });
    }

    fn admitted(&mut self, isolate: usize, ask: Ask, reserved: Amounts, at: u64) {
        let decision = Decision {
            at,
            key: ask.key_id.clone(),
            user: ask.user.clone(),
            model: ask.model.clone(),
            reserved,
            counted: reserved,
            end: u64::MAX,
        };
        self.oracle.decided(&ask.id, decision);
        let most = if self.kind == Kind::Leased { 15_000 } else { self.random.pick(&[10, 1_000, 8_000]) };
        let wait = self.random.below(most);
        let epoch = self.isolates[isolate].epoch;
        self.after(wait, Event::Ended { isolate, epoch, id: ask.id.clone() });
        while self.random.percent(15) {
            let wait = self.random.below(wait + 1);
            self.after(wait, Event::GoesOn { isolate, epoch, id: ask.id.clone() });
        }
        self.isolates[isolate].running.insert(ask.id.clone(), (ask, reserved));
    }

    /// A request was not answered, and tries another model: that of its next turn.
    fn go_on(&mut self, isolate: usize, id: &str) {
        let Some((running, _)) = self.isolates[isolate].running.get(id) else { return };
        let turn = self.isolates[isolate].going.get(id).map_or(running.turn, |ask| ask.turn) + 1;
        let (running, times) = (running.clone(), self.random.within(1, 3));
        let ask = Ask {
            turn,
            model: format!("m{}", self.random.below(self.models)),
            input_tokens: self.random.below(30),
            prices: running.prices.map(|prices| AskPrices { output: prices.output * times, ..prices }),
            defaults: self.defaults.clone(),
            holder: String::new(),
            ..running
        };
        self.isolates[isolate].going.insert(id.to_owned(), ask.clone());
        let epoch = self.isolates[isolate].epoch;
        self.send(Event::Asked { isolate, epoch, ask: ask.clone() });
        if self.random.percent(10) {
            self.send(Event::Asked { isolate, epoch, ask });
        }
    }

    fn went_on(&mut self, isolate: usize, id: &str, turn: u32, answer: &Answer) {
        let isolate = &mut self.isolates[isolate];
        let Some(ask) = isolate.going.get(id).filter(|ask| ask.turn == turn).cloned() else { return };
        if let (Answer::Granted(grant), Some(running)) = (answer, isolate.running.get_mut(id)) {
            *running = (ask, grant.reserved);
        }
    }

    fn answered(&mut self, isolate: usize, id: &str, at: u64, answer: &Answer) {
        let Some((sent_at, ask)) = self.isolates[isolate].asking.remove(id) else { return };
        if let Answer::Granted(grant) = answer {
            self.isolates[isolate].holder.granted(sent_at, id, &lessee(&ask), grant);
            self.admitted(isolate, ask, grant.reserved, at);
        }
    }

    /// Without an answer a request is refused, or served all the same: either way it is settled.
    fn give_up(&mut self, isolate: usize, id: &str) {
        let Some((_, ask)) = self.isolates[isolate].asking.remove(id) else { return };
        self.seen.count("unanswered", 1);
        let amounts = if self.random.percent(50) { Amounts::default() } else { self.actual(&ask, &Amounts::default()) };
        self.post(isolate, vec![(id.to_owned(), settlement(&ask, amounts, true))]);
    }

    fn end(&mut self, isolate: usize, id: &str) {
        self.oracle.ended(id, self.now);
        let Some((ask, reserved)) = self.isolates[isolate].running.remove(id) else { return };
        let amounts = self.actual(&ask, &reserved);
        let lease = self.isolates[isolate].holder.settled(id);
        let settlement = Settlement { lease, ..settlement(&ask, amounts, false) };
        self.post(isolate, vec![(id.to_owned(), settlement)]);
    }

    fn actual(&mut self, ask: &Ask, reserved: &Amounts) -> Amounts {
        if self.random.percent(if self.kind == Kind::Tight { 40 } else { 10 }) {
            return Amounts { requests: self.random.below(2), ..Amounts::default() };
        } else if self.random.percent(if self.kind == Kind::Leased { 90 } else { 50 }) {
            return *reserved;
        }
        let (input, output) = (self.random.below(40), self.random.below(80));
        Amounts { requests: 1, input, output, cost: ask.prices.map_or(0, |prices| prices.cost(input, output)) }
    }

    fn post(&mut self, isolate: usize, entries: Vec<Entry>) {
        let clock = self.clock(isolate);
        let returns = self.isolates[isolate].holder.returns(clock, "acc");
        let post = self.scheduled;
        self.isolates[isolate].outbox.insert(post, (entries, returns, 6));
        self.resend(isolate, post);
    }

    fn resend(&mut self, isolate: usize, post: u64) {
        let epoch = self.isolates[isolate].epoch;
        let Some((entries, returns, tries)) = self.isolates[isolate].outbox.get_mut(&post) else { return };
        if *tries == 0 {
            return;
        }
        *tries -= 1;
        let (entries, returns) = (entries.clone(), returns.clone());
        self.send(Event::Posted { isolate, epoch, post, entries, returns });
        self.after(PATIENCE_MS, Event::Resend { isolate, epoch, post });
    }
}

fn lessee(ask: &Ask) -> Lessee {
    Lessee { account: "acc".into(), key_id: ask.key_id.clone(), user: ask.user.clone(), model: ask.model.clone() }
}

fn settlement(ask: &Ask, amounts: Amounts, unanswered: bool) -> Settlement {
    Settlement {
        key_id: ask.key_id.clone(),
        user: ask.user.clone(),
        model: ask.model.clone(),
        amounts,
        complete: amounts.output > 0,
        unanswered,
        lease: None::<LeaseUse>,
        passing: false,
    }
}

fn amount(random: &mut Random, dimension: Dimension, kind: Kind) -> u64 {
    match (dimension, kind) {
        (Dimension::Concurrency, Kind::Hot) => random.within(1, 60),
        (Dimension::Concurrency, _) => random.within(0, 5),
        (Dimension::Requests, Kind::Any) => random.pick(&[0, 1, 3, 10, 300, 1_200]),
        (Dimension::Requests, Kind::Hot) => random.pick(&[20, 40, 60, 300, 1_200]),
        (Dimension::Requests, Kind::Tight) => random.pick(&[3, 5, 10]),
        (_, Kind::Any) => random.pick(&[0, 40, 200, 1_000, 10_000]),
        (_, Kind::Hot) => random.pick(&[600, 2_000, 10_000, 40_000]),
        (Dimension::Requests, Kind::Leased) => random.pick(&[20, 30, 40]),
        (_, Kind::Tight | Kind::Leased) => random.pick(&[70, 200, 600]),
    }
}
