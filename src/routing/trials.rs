//! Who may try something whose breaker is half-open.
//!
//! The gauge gives permits to isolates that want one: each is a lease that ends by itself, is used once at most, and counts
//! until it has ended. As many as are configured exist at a time in the whole world.

use serde::{Deserialize, Serialize};

use super::shifted;

/// How long a lease lasts, in milliseconds.
pub const LEASE_MS: u64 = 5_000;

/// How often a lease may double that ends unused. Where requests are rare, an isolate must be able to keep one until the
/// next.
const DOUBLINGS: u32 = 7;

/// For how long a trial counts as running whose end nobody tells, in milliseconds.
const RUNNING_MS: u64 = 60_000;

/// How long a gauge must have been silent before an isolate helps itself, in milliseconds.
const SILENT_MS: u64 = 5_000;

/// After how many milliseconds without news an isolate helps itself: longer than any lease lasts.
const FORGOTTEN_MS: u64 = 900_000;

/// A permit for one trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct Permit {
    /// Names it, on its gauge.
    pub id: u64,
    /// Until when it is good.
    pub until: u64,
}

impl From<(u64, u64)> for Permit {
    fn from((id, until): (u64, u64)) -> Self {
        Self { id, until }
    }
}

impl From<Permit> for (u64, u64) {
    fn from(permit: Permit) -> Self {
        (permit.id, permit.until)
    }
}

/// A permit that somebody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    permit: Permit,
    holder: String,
    given_at: u64,
}

/// The permits that a gauge has given for one subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Leases {
    given: Vec<Lease>,
    last_id: u64,
    /// How often in a row they have ended unused.
    unused: u32,
    /// When a trial's outcome was last heard of.
    heard_at: u64,
    /// None are given before: those of another life may still be out.
    not_before: u64,
}

impl Leases {
    /// Gives an isolate permits, if there may be more. Not all at once, unless it is the last: others may have use for one.
    /// Tells whether one was given that lasts longer than a gauge needs to be sure that there is none.
    pub fn give(&mut self, now: u64, trials: u64, holder: &str) -> bool {
        self.prune(now);
        let out = u64::try_from(self.given.len()).unwrap_or(u64::MAX);
        if now < self.not_before || self.has_unused(now, holder) {
            return false;
        }
        let lasts = LEASE_MS.checked_shl(self.unused).unwrap_or(LEASE_MS);
        let count = trials.saturating_sub(out).div_ceil(2);
        for _ in 0..count {
            // Higher than every number of an earlier life, and exact in JavaScript.
            self.last_id = self.last_id.saturating_add(1).max(now.saturating_mul(16));
            let permit = Permit { id: self.last_id, until: now.saturating_add(lasts) };
            self.given.push(Lease { permit, holder: holder.to_owned(), given_at: now });
        }
        count > 0 && lasts > LEASE_MS
    }

    /// An isolate's trials are still under way: their permits last on.
    pub fn keep(&mut self, now: u64, holder: &str, running: &[u64]) {
        self.prune(now);
        for id in running {
            let until = now.saturating_add(LEASE_MS);
            match self.given.iter_mut().find(|lease| lease.permit.id == *id) {
                Some(lease) => lease.permit.until = lease.permit.until.max(until),
                None => {
                    let permit = Permit { id: *id, until };
                    self.given.push(Lease { permit, holder: holder.to_owned(), given_at: now });
                }
            }
        }
    }

    /// The permits that an isolate has.
    pub fn of(&self, now: u64, holder: &str) -> Vec<Permit> {
        let own = self.given.iter().filter(|lease| lease.holder == holder && lease.permit.until > now);
        own.map(|lease| lease.permit).collect()
    }

    /// The outcome of a trial has been heard.
    pub fn heard(&mut self, now: u64) {
        self.heard_at = self.heard_at.max(now);
        self.unused = 0;
    }

    /// What is known may be older than what was given last.
    pub fn restored(&mut self, now: u64) {
        self.not_before = now.saturating_add(LEASE_MS);
    }

    /// Whether nothing is out and nothing is known.
    pub fn is_empty(&self) -> bool {
        self.given.is_empty() && self.unused == 0
    }

    /// How many are out.
    pub fn out(&self, now: u64) -> usize {
        self.given.iter().filter(|lease| lease.permit.until > now).count()
    }

    fn has_unused(&self, now: u64, holder: &str) -> bool {
        let mut own = self.given.iter().filter(|lease| lease.holder == holder && lease.permit.until > now);
        own.any(|lease| lease.given_at > self.heard_at)
    }

    fn prune(&mut self, now: u64) {
        let before = self.given.len();
        let heard = self.heard_at;
        let in_vain = self.given.iter().any(|lease| lease.permit.until <= now && lease.given_at > heard);
        self.given.retain(|lease| lease.permit.until > now);
        if in_vain && self.given.len() < before {
            self.unused = self.unused.saturating_add(1).min(DOUBLINGS);
        }
    }
}

/// What an isolate has of permits for one subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permits {
    held: Vec<Permit>,
    used: Vec<Permit>,
    /// The permits' ids of trials under way, and when they began; 0 for one that the isolate has given itself.
    running: Vec<(u64, u64)>,
    /// When a request last wanted one.
    wanted_at: Option<u64>,
}

/// How an isolate stands with the gauge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contact {
    /// When it heard of it last.
    pub heard_at: Option<u64>,
    /// Since when the gauge has not answered.
    pub silent_since: Option<u64>,
}

impl Contact {
    /// Whether the isolate has nobody to ask.
    fn is_lost(self, now: u64) -> bool {
        let passed = |since: u64, bound: u64| now >= since.saturating_add(bound);
        self.heard_at.is_none_or(|at| passed(at, FORGOTTEN_MS))
            || self.silent_since.is_some_and(|at| passed(at, SILENT_MS))
    }
}

impl Permits {
    /// Whether a request may try now.
    pub fn at_hand(&self, now: u64, contact: Contact) -> bool {
        self.held.iter().any(|permit| permit.until > now) || (contact.is_lost(now) && !self.tries_alone(now))
    }

    /// A request tries now.
    pub fn take(&mut self, now: u64) {
        self.prune(now);
        let id = match self.held.pop() {
            Some(permit) => {
                self.used.push(permit);
                permit.id
            }
            None => 0,
        };
        self.running.push((id, now));
    }

    /// A trial has ended.
    pub fn ended(&mut self) {
        if !self.running.is_empty() {
            self.running.remove(0);
        }
    }

    /// A request would have liked to try.
    pub fn want(&mut self, now: u64) {
        self.wanted_at = Some(now);
    }

    /// Whether to ask for permits.
    pub fn wants(&self, now: u64) -> bool {
        let lately = self.wanted_at.is_some_and(|at| now < at.saturating_add(LEASE_MS.saturating_mul(2)));
        lately && !self.held.iter().any(|permit| permit.until > now)
    }

    /// The permits whose trials are under way.
    pub fn running(&self, now: u64) -> Vec<u64> {
        let running = self.running.iter().filter(|(id, since)| *id != 0 && since.saturating_add(RUNNING_MS) > now);
        running.map(|(id, _)| *id).collect()
    }

    /// The gauge says which permits there are. `from` is its clock, `asked` the isolate's at the time of the question: what
    /// lasts must not seem to last longer than it does.
    pub fn adopt(&mut self, now: u64, permits: &[Permit], from: u64, asked: u64) {
        self.prune(now);
        let own = permits.iter().map(|it| Permit { until: shifted(it.until, from, asked), ..*it });
        let used = &self.used;
        self.held = own.filter(|it| it.until > now && used.iter().all(|used| used.id != it.id)).collect();
    }

    /// The permits that are out as far as this isolate knows.
    #[cfg(test)]
    pub(super) fn out(&self, now: u64) -> Vec<u64> {
        let both = self.held.iter().chain(&self.used).filter(|permit| permit.until > now);
        both.map(|permit| permit.id).collect()
    }

    fn tries_alone(&self, now: u64) -> bool {
        self.running.iter().any(|(_, since)| since.saturating_add(RUNNING_MS) > now)
    }

    fn prune(&mut self, now: u64) {
        self.held.retain(|permit| permit.until > now);
        self.running.retain(|(_, since)| since.saturating_add(RUNNING_MS) > now);
        // A permit that is kept for a running trial is told again, with a later end: it must not seem to be unused then.
        self.used.retain(|permit| permit.until.saturating_add(RUNNING_MS).saturating_add(LEASE_MS) > now);
    }
}
