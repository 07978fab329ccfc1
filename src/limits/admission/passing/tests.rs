#![expect(clippy::arithmetic_side_effects, reason = "small numbers in tests")]

use super::super::super::amounts::Amounts;
use super::super::super::ask::{Answer, Settled, Settlement};
use super::super::super::row::Change;
use super::super::super::rule::{Dimension, EVERYBODY, LimitMode, LimitTerms, Period};
use super::*;
use proptest::prelude::*;

const NOW: u64 = 1_700_000_000_000;
const LIFETIME_MS: u64 = 30_000;

/// What is stored, as its keeper does it.
#[derive(Debug, Clone, Default)]
struct Disk {
    rows: BTreeMap<String, Row>,
    defaults: Vec<Rule>,
    written: usize,
}

impl Disk {
    fn store(&mut self, changes: Vec<Change>) {
        self.written += changes.len();
        for change in changes {
            match change {
                Change::Put(row) => drop(self.rows.insert(row.id.clone(), *row)),
                Change::Delete(id) => drop(self.rows.remove(&id)),
                Change::Defaults(rules) => self.defaults = rules,
            }
        }
    }

    fn read(&self) -> Admission {
        let base = Base { subjects: Subjects::new(Scope::Provider), meta: Meta::default() };
        Admission::restore(base, self.rows.values().cloned(), self.defaults.clone())
    }
}

fn ask(id: &str) -> Ask {
    Ask { id: id.into(), model: "m".into(), lifetime_ms: LIFETIME_MS, passing: true, ..Ask::default() }
}

fn settlement() -> Settlement {
    let amounts = Amounts { requests: 1, input: 5, output: 7, cost: 9 };
    Settlement { model: "m".into(), amounts, complete: true, passing: true, ..Settlement::default() }
}

fn cap(amount: u64) -> Vec<Rule> {
    let (dimension, period, mode) = (Dimension::Concurrency, Period::None, LimitMode::Enforce);
    let terms = LimitTerms { model: None, dimension, period, amount, burst: None, mode };
    vec![Rule { id: "cap".into(), scope: Scope::Provider, subject: EVERYBODY.into(), terms }]
}

fn is_granted(answer: &Answer) -> bool {
    matches!(answer, Answer::Granted(_))
}

fn totals(admission: &Admission) -> Total {
    admission.totals(NOW, Scope::Provider, &Caller { key: "", user: None, model: None }).total
}

#[test]
fn what_is_short_is_counted_while_it_is_open_and_never_stored() {
    let mut admission = Admission::new(Scope::Provider);
    for (nth, open) in [("1", 1), ("2", 2), ("1", 2)] {
        assert!(is_granted(&admission.reserve(NOW, &ask(nth))));
        assert_eq!((admission.open(None), admission.open(Some("m"))), (open, open));
    }
    assert_eq!(admission.connections(NOW), BTreeMap::from([(String::new(), 2)]));
    assert_eq!(admission.settle(NOW + YOUNG_MS - 1, "1", &settlement()), Settled::Counted);
    assert_eq!(admission.settle(NOW + YOUNG_MS - 1, "1", &settlement()), Settled::Repeated);
    assert!(is_granted(&admission.reserve(NOW + YOUNG_MS - 1, &ask("1"))), "what comes late opens nothing");
    assert_eq!((admission.open(None), totals(&admission)), (1, Total::default()));
    assert_eq!(admission.take_changes(), []);
}

#[test]
fn what_is_long_is_stored_once_and_deleted_at_its_end() {
    let mut admission = Admission::new(Scope::Provider);
    admission.reserve(NOW, &ask("1"));
    admission.reserve(NOW + TOGETHER_MS - 1, &ask("2"));
    admission.reserve(NOW + TOGETHER_MS, &ask("3"));
    assert_eq!(admission.next_expiry(), Some(NOW + YOUNG_MS));
    admission.expire(NOW + YOUNG_MS - 1);
    assert_eq!(admission.take_changes(), []);
    admission.expire(NOW + YOUNG_MS);
    let mut disk = Disk::default();
    disk.store(admission.take_changes());
    assert_eq!(disk.rows.keys().collect::<Vec<_>>(), ["1", "2"], "together");
    admission.settle(NOW + YOUNG_MS, "2", &settlement());
    disk.store(admission.take_changes());
    assert_eq!(admission.next_expiry(), Some(NOW + TOGETHER_MS + YOUNG_MS));
    admission.settle(NOW + YOUNG_MS, "3", &settlement());
    admission.expire(NOW + TOGETHER_MS + YOUNG_MS);
    assert_eq!((admission.next_expiry(), admission.take_changes()), (Some(NOW + LIFETIME_MS), vec![]));

    let mut after = disk.read();
    assert_eq!(after.open(None), 1, "it survives");
    after.settle(NOW + YOUNG_MS + 20, "1", &settlement());
    disk.store(after.take_changes());
    assert_eq!((after.open(None), totals(&after), disk.rows.len()), (0, Total::default(), 0));

    admission.expire(NOW + LIFETIME_MS);
    assert_eq!((admission.open(None), admission.take_changes()), (0, vec![Change::Delete("1".into())]));
    assert_eq!(admission.settle(NOW + LIFETIME_MS, "1", &settlement()), Settled::Late);
}

#[test]
fn what_a_crash_made_forgotten_ends_without_a_trace() {
    let mut admission = Admission::new(Scope::Provider);
    assert_eq!(admission.settle(NOW, "1", &settlement()), Settled::Counted);
    assert!(is_granted(&admission.reserve(NOW + REMEMBERED_MS - 1, &ask("1"))));
    assert_eq!((admission.open(None), totals(&admission)), (0, Total::default()));
    assert_eq!(admission.take_changes(), []);
    admission.expire(NOW + REMEMBERED_MS);
    assert!(!admission.knows("1"), "its id is not remembered for ever");
}

#[test]
fn a_rule_counts_what_was_open_before_it_and_holds_across_a_crash() {
    let (mut admission, mut disk) = (Admission::new(Scope::Provider), Disk::default());
    for id in ["1", "2"] {
        assert!(is_granted(&admission.reserve(NOW, &ask(id))));
    }
    let with_rule = |id: &str| Ask { defaults: cap(3), passing: false, ..ask(id) };
    assert!(is_granted(&admission.reserve(NOW + 1, &with_rule("3"))));
    disk.store(admission.take_changes());
    assert_eq!(disk.rows.len(), 3, "those that were young are stored along with the first that a rule applies to");
    let mut admission = disk.read();
    assert!(!is_granted(&admission.reserve(NOW + 2, &with_rule("4"))));
    admission.settle(NOW + 3, "1", &settlement());
    assert!(is_granted(&admission.reserve(NOW + 4, &with_rule("4"))));
    // Rules go again: what they had counted is settled as it was reserved.
    admission.settle(NOW + 5, "3", &settlement());
    admission.settle(NOW + 5, "4", &settlement());
    assert!(is_granted(&admission.reserve(NOW + 6, &ask("5"))));
    disk.store(admission.take_changes());
    assert_eq!((admission.open(None), totals(&admission).settled.requests), (2, 2));
    assert_eq!(disk.rows.keys().collect::<Vec<_>>(), ["2", "3", "4"], "5 is young");
}

/// What happens to a gauge.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A request begins; with a rule, or passing.
    Begin { ruled: bool },
    /// The nth of those that are open ends.
    End(usize),
    /// So many milliseconds go by; the alarm rings when it should.
    Wait(u64),
    /// The object crashes; what it was doing last may not have been stored, nor answered.
    Crash,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => any::<u8>().prop_map(|any| Event::Begin { ruled: any % 8 == 0 }),
        8 => any::<usize>().prop_map(Event::End),
        6 => (0..3 * YOUNG_MS / 2).prop_map(Event::Wait),
        1 => Just(Event::Crash),
    ]
}

/// A gauge, and what is true of the requests that it counts.
#[derive(Debug)]
struct World {
    now: u64,
    gauge: Admission,
    disk: Disk,
    /// When each request began that is open, and whether a rule applied to it.
    open: BTreeMap<String, (u64, bool)>,
    /// Those that the gauge may have forgotten.
    forgotten: BTreeSet<String>,
    begun: usize,
}

impl World {
    fn new() -> Self {
        Self {
            now: NOW,
            gauge: Admission::new(Scope::Provider),
            disk: Disk::default(),
            open: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            begun: 0,
        }
    }

    fn store(&mut self) {
        self.disk.store(self.gauge.take_changes());
    }

    /// Memory is gone. Only what is young may be gone with it.
    fn crash(&mut self) {
        self.gauge = self.disk.read();
        for (id, (at, ruled)) in &self.open {
            if !self.gauge.knows(id) && !self.forgotten.contains(id) {
                assert!(!ruled && self.now - at < YOUNG_MS, "{id} is forgotten, {} ms old", self.now - at);
                self.forgotten.insert(id.clone());
            }
        }
    }

    fn step(&mut self, event: Event, crashes: bool) {
        match event {
            Event::Begin { ruled } => {
                self.begun += 1;
                let id = format!("{:03}", self.begun);
                let defaults = if ruled { cap(1_000) } else { Vec::new() };
                let ask = Ask { defaults, passing: !ruled, lifetime_ms: 1_000_000, ..ask(&id) };
                assert!(is_granted(&self.gauge.reserve(self.now, &ask)));
                if crashes {
                    // Nobody was answered: whoever asked gives up, and says so.
                    self.crash();
                    self.gauge.settle(self.now, &id, &Settlement { passing: !ruled, ..Settlement::default() });
                } else {
                    self.open.insert(id.clone(), (self.now, ruled));
                    assert!(is_granted(&self.gauge.reserve(self.now, &ask)), "again");
                }
                self.store();
            }
            Event::End(nth) => {
                let Some(id) = self.open.keys().nth(nth % self.open.len().max(1)).cloned() else { return };
                let Some((_, ruled)) = self.open.remove(&id) else { return };
                let settlement = Settlement { passing: !ruled, ..settlement() };
                self.gauge.settle(self.now, &id, &settlement);
                if crashes {
                    // Nobody was answered: it is said again.
                    self.crash();
                    self.gauge.settle(self.now, &id, &settlement);
                }
                self.store();
                assert_eq!(self.gauge.settle(self.now, &id, &settlement), Settled::Repeated);
                self.forgotten.remove(&id);
            }
            Event::Wait(millis) => {
                let until = self.now + millis;
                while let Some(at) = self.gauge.next_expiry().filter(|at| *at <= until) {
                    self.now = self.now.max(at);
                    self.gauge.expire(self.now);
                    self.store();
                }
                self.now = until;
            }
            Event::Crash => self.crash(),
        }
        self.check();
    }

    fn check(&self) {
        let counted = self.open.keys().filter(|id| !self.forgotten.contains(*id)).count();
        assert_eq!(self.gauge.open(None), counted as u64, "{:?} are open, {:?} forgotten", self.open, self.forgotten);
        for id in self.disk.rows.values().filter(|row| row.is_open()).map(|row| &row.id) {
            assert!(self.open.contains_key(id), "{id} is a phantom");
        }
    }
}

proptest! {
    #[test]
    fn a_crash_forgets_only_what_is_young_and_leaves_no_phantoms(
        events in proptest::collection::vec((event(), 0..20_u8), 1..200),
    ) {
        let mut world = World::new();
        for (event, chance) in events {
            world.step(event, chance == 0);
        }
        // In the end nothing is open, and only what rules applied to has left anything.
        while !world.open.is_empty() {
            world.step(Event::End(0), false);
        }
        world.crash();
        prop_assert_eq!(world.gauge.open(None), 0);
        prop_assert!(world.disk.rows.values().all(|row| !row.passing && !row.is_open()));
    }
}
