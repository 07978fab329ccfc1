//! The ledger's side of the world: what an object around [`Admission`] does, and its crashes.

use std::collections::BTreeMap;

use super::world::{Entry, Event, LIFETIME_MS, World};
use crate::limits::admission::Admission;
use crate::limits::ask::{Answer, Ask, Denial, LeaseReturn, Settled};
use crate::limits::base::Base;
use crate::limits::counters::Caller;
use crate::limits::row::{Change, Row, Stage};
use crate::limits::rule::{Dimension, Rule, Scope};

/// How long stored rows stay after they were closed: longer than any message is on its way.
const RETENTION_MS: u64 = 120_000;

/// What the ledger has stored.
#[derive(Default)]
pub(super) struct Store {
    pub(super) base: BTreeMap<String, String>,
    pub(super) rows: BTreeMap<String, Row>,
    pub(super) closed_at: BTreeMap<String, u64>,
    pub(super) defaults: Vec<Rule>,
}

impl World {
    pub(super) fn asked(&mut self, isolate: usize, epoch: u64, ask: &Ask) {
        let compare = ask.holder.is_empty() && self.random.percent(25);
        let compared = compare.then(|| {
            self.seen.count("compared", 1);
            self.restored().reserve(self.now, ask)
        });
        let known = self.store.rows.get(&ask.id).map(|row| row.at);
        let answer = self.ledger.reserve(self.now, ask);
        if let Some(compared) = compared {
            assert_eq!(answer, compared, "a restored ledger answers as the other does");
        }
        match &answer {
            Answer::Granted(grant) => {
                self.seen.count("granted", 1);
                self.seen.count("shadowed", grant.shadowed.len() as u64);
                self.seen.count("leases", u64::from(grant.lease.is_some() && !grant.repeated));
            }
            Answer::Denied(denial) => {
                self.seen.count("denied", 1);
                let breach = &denial.breach;
                // What a request of a later turn has is not in its own way.
                if self.random.percent(10)
                    && ask.turn == 0
                    && breach.dimension != Dimension::Concurrency
                    && let Some(wait) = breach.retry_after_ms
                    && wait > 0
                {
                    let again = Ask { id: "later".into(), holder: String::new(), ..ask.clone() };
                    let mut restored = self.restored();
                    let early = restored.reserve(self.now + wait - 1, &again);
                    assert!(matches!(early, Answer::Denied(_)), "refused for less than {wait} ms: {breach:?}");
                    let later = restored.reserve(self.now + wait, &again);
                    // When connections end cannot be told.
                    let is_open = |denial: &Denial| denial.breach.dimension == Dimension::Concurrency;
                    let kept = matches!(&later, Answer::Denied(denial) if !is_open(denial));
                    assert!(!kept, "refused for {wait} ms, then {later:?}");
                }
            }
        }
        let (stored, lives) = self.store_changes();
        if ask.turn > 0 {
            match &answer {
                Answer::Granted(grant) if !grant.repeated && stored => {
                    self.seen.count("moved", 1);
                    self.oracle.moved(&self.store.rows[&ask.id]);
                }
                Answer::Denied(_) => self.seen.count("kept", u64::from(known.is_some())),
                Answer::Granted(_) => {}
            }
        }
        if lives {
            let at = known.or_else(|| self.store.rows.get(&ask.id).map(|row| row.at)).unwrap_or(self.now);
            self.send(Event::Answered { isolate, epoch, id: ask.id.clone(), turn: ask.turn, at, answer });
        }
    }

    pub(super) fn posted(&mut self, isolate: usize, epoch: u64, post: u64, entries: &[Entry], returns: &[LeaseReturn]) {
        let (mut counted, mut late) = (Vec::new(), Vec::new());
        for (id, settlement) in entries {
            match self.ledger.settle(self.now, id, settlement) {
                Settled::Counted => counted.push((id, settlement.amounts)),
                Settled::Repeated => self.seen.count("repeated", 1),
                Settled::Late => late.push((id, settlement)),
            }
        }
        for returned in returns {
            self.seen.count("returned", 1);
            self.ledger.give_back(self.now, returned);
        }
        let (stored, lives) = self.store_changes();
        // What has expired may have done so just now, with this message.
        for (id, settlement) in late.into_iter().filter(|_| stored) {
            self.seen.count("late", 1);
            let lease = settlement.lease.as_ref().is_some_and(|used| self.expired.contains(&used.id));
            assert!(self.expired.contains(id) || lease, "{id} is too late, but nothing has expired");
        }
        for (id, amounts) in counted.into_iter().filter(|_| stored) {
            self.oracle.settled(id, amounts);
        }
        if lives {
            self.send(Event::Acknowledged { isolate, epoch, post });
        }
    }

    /// Stores what has changed: whether that was done, and whether the ledger lives to answer.
    fn store_changes(&mut self) -> (bool, bool) {
        let fate = if self.random.percent(self.crash) { self.random.below(2) } else { 2 };
        if fate == 0 {
            self.crash_ledger();
            return (false, false);
        }
        for change in self.ledger.take_changes() {
            match change {
                Change::Delete(id) => {
                    let row = self.store.rows.remove(&id);
                    assert!(row.is_none_or(|row| row.leased.is_lease()));
                }
                Change::Defaults(rules) => self.store.defaults = rules,
                Change::Put(row) => {
                    if !row.is_open() {
                        let before = self.store.closed_at.insert(row.id.clone(), self.now);
                        assert_eq!(before, None, "{} is counted twice", row.id);
                        self.oracle.entry(&row);
                    }
                    if row.stage == Stage::Expired {
                        self.seen.count("expired", 1);
                        self.expired.insert(row.id.clone());
                    }
                    if self.random.percent(10) {
                        let text = serde_json::to_string(&row).unwrap();
                        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), *row);
                    }
                    self.store.rows.insert(row.id.clone(), *row);
                }
            }
        }
        if fate == 1 {
            self.crash_ledger();
        }
        (true, fate == 2)
    }

    fn restored(&self) -> Admission {
        let texts = self.store.base.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let base = Base::read(Scope::Account, texts).unwrap();
        let mut ledger = Admission::restore(base, self.store.rows.values().cloned(), self.store.defaults.clone());
        ledger.set_rules(self.rules.clone());
        ledger
    }

    pub(super) fn crash_ledger(&mut self) {
        self.seen.count("ledger_crashes", 1);
        self.ledger = self.restored();
    }

    pub(super) fn alarm(&mut self) {
        self.ledger.expire(self.now);
        self.store_changes();
        self.fold();
        if self.random.percent(25) {
            self.compare();
        }
        let wait = self.random.within(500, self.pause_ms * 5 + 1_000);
        if self.left > 0 || !self.events.is_empty() {
            self.after(wait, Event::Alarm);
        }
    }

    /// Deletes rows that were closed long ago, and folds them into the base.
    fn fold(&mut self) {
        let old = |row: &&Row| self.store.closed_at.get(&row.id).is_some_and(|at| at + RETENTION_MS <= self.now);
        let rows: Vec<Row> = self.store.rows.values().filter(old).cloned().collect();
        if rows.is_empty() {
            return;
        }
        self.seen.count("folded", rows.len() as u64);
        let names = Base::names(Scope::Account, &rows);
        let stored = names.iter().filter_map(|name| Some((name.as_str(), self.store.base.get(name)?.as_str())));
        let changed = Base::read(Scope::Account, stored).unwrap().fold(&rows).unwrap();
        self.store.base.extend(changed);
        for row in &rows {
            self.store.rows.remove(&row.id);
        }
        self.ledger.forget(rows.iter().map(|row| row.id.as_str()));
    }

    /// What was stored says the same as what is in memory.
    fn compare(&mut self) {
        let restored = self.restored();
        assert_eq!(restored.next_expiry(), self.ledger.next_expiry());
        assert_eq!(restored.open_rows(), self.ledger.open_rows());
        assert_eq!(restored.connections(self.now), self.ledger.connections(self.now));
        let now = self.now + self.random.pick(&[0, 700, 50_000]);
        for key in ["k0", "k1", "k2"] {
            let model = self.random.pick(&[None, Some("m0"), Some("m1")]);
            let caller = Caller { key, user: (key != "k2").then_some("u0"), model };
            let defaults = &self.defaults;
            assert_eq!(restored.states(now, &caller, defaults), self.ledger.states(now, &caller, defaults));
            for scope in [Scope::Key, Scope::User, Scope::Account] {
                assert_eq!(restored.totals(now, scope, &caller), self.ledger.totals(now, scope, &caller));
            }
        }
    }

    /// After everything has expired nothing is stuck, and every sum is right.
    pub(super) fn finish(&mut self) {
        self.crash = 0;
        self.now += LIFETIME_MS + 60_000;
        self.ledger.expire(self.now);
        self.store_changes();
        self.compare();
        assert_eq!((self.ledger.next_expiry(), self.ledger.open_rows()), (None, 0));
        assert!(self.ledger.connections(self.now).is_empty());
        self.oracle.check(&self.ledger, self.now);
    }
}
