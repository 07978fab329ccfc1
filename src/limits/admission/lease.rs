//! Leases: blocks that isolates admit from by themselves.
//!
//! Only who asks often gets one, and only as much as it has lately needed twice over. No rule that must be followed
//! closely leaves room for one: concurrency, token buckets, a second's window, and whatever has little left.

use super::super::amounts::Amounts;
use super::super::ask::{Ask, LeaseGrant, LeaseReturn};
use super::super::calendar::DAY_MS;
use super::super::row::Leased;
use super::super::rule::{Dimension, LimitMode, Period};
use super::super::rules::Applied;
use super::reserve::{Rate, asked};
use super::*;

/// Requests within a lease's time from which on its asker is hot.
const HOT: u64 = 4;

/// Requests that a lease allows at most.
const MOST_REQUESTS: u64 = 10_000;

/// Requests that a lease allows at least: with fewer it spares nothing.
const LEAST_REQUESTS: u64 = 2;

/// Percent of what a rule has left that a lease holds at most, whatever its asker says.
const MOST_SHARE: u8 = 25;

/// Askers whose heat is known at most.
const ASKERS: usize = 1_000;

/// How often holders have asked, or used their leases.
#[derive(Debug, Default)]
pub(super) struct Heat {
    askers: BTreeMap<(String, String, String), Pulse>,
}

/// Requests in this stretch of time and the one before.
#[derive(Debug, Default)]
struct Pulse {
    stretch: u64,
    before: u64,
    now: u64,
}

impl Heat {
    /// Another request: how many there were within a lease's time lately.
    pub(super) fn asked(&mut self, now: u64, ask: &Ask) -> u64 {
        self.beat(now, (&ask.holder, &ask.key_id, &ask.model), ask.lease.ttl_ms)
    }

    /// Another request that was admitted from a lease.
    pub(super) fn leased(&mut self, now: u64, holder: &str, key: &str, model: &str, ttl_ms: u64) {
        self.beat(now, (holder, key, model), ttl_ms);
    }

    fn beat(&mut self, now: u64, (holder, key, model): (&str, &str, &str), ttl_ms: u64) -> u64 {
        let stretch = now.checked_div(ttl_ms).unwrap_or(0);
        if self.askers.len() >= ASKERS {
            self.askers.retain(|_, pulse| pulse.stretch.saturating_add(1) >= stretch);
        }
        if self.askers.len() >= ASKERS {
            self.askers.clear();
        }
        let pulse = self.askers.entry((holder.to_owned(), key.to_owned(), model.to_owned())).or_default();
        if pulse.stretch != stretch {
            let before = if pulse.stretch.saturating_add(1) == stretch { pulse.now } else { 0 };
            *pulse = Pulse { stretch, before, now: 0 };
        }
        pulse.now = pulse.now.saturating_add(1);
        pulse.now.max(pulse.before)
    }
}

/// The lease that comes with a request's reservation.
pub(super) fn lease_id(id: &str) -> String {
    format!("{id}.lease")
}

impl Admission {
    /// Takes a lease back. What was admitted from it and is not settled becomes a reservation of its own, until when the
    /// lease would have expired; the rest is free again. A second return changes nothing.
    pub fn give_back(&mut self, now: u64, returned: &LeaseReturn) {
        if !self.is_open_lease(&returned.id) {
            return;
        }
        for open in &returned.open {
            if self.slots.contains_key(&open.id) {
                continue;
            }
            if let Some(row) = self.take_from_lease(&returned.id, &open.id, &open.reserved) {
                self.put(row);
            }
        }
        if let Some(mut lease) = self.take_open(&returned.id) {
            let before = Held::by(&lease);
            lease.amounts = Amounts::default();
            self.subjects.shift(&lease, Some(before), None);
            self.pending.push(Pending::Delete(lease.id));
        }
        self.expire(now);
    }

    /// An open row for a request that was admitted from a lease. What it reserved is the lease's no more.
    pub(super) fn take_from_lease(&mut self, lease: &str, id: &str, reserved: &Amounts) -> Option<Row> {
        let sequence = self.next_sequence();
        let Some(Slot::Open(lease)) = self.slots.get_mut(lease) else { return None };
        let before = Held::by(lease);
        let taken = reserved.at_most(&lease.amounts);
        lease.amounts = lease.amounts.minus(&taken);
        lease.sequence = sequence;
        self.subjects.shift(lease, Some(before), Some(Held::by(lease)));
        self.pending.push(Pending::Open(lease.id.clone()));
        let row = Row { id: id.to_owned(), amounts: taken, leased: Leased::From, ..(**lease).clone() };
        let sequence = self.next_sequence();
        Some(Row { sequence, ..row })
    }

    /// How many requests a lease may stand for, if there is to be one; `beats` is how hot its asker is.
    pub(super) fn lease_size(
        &self,
        now: u64,
        ask: &Ask,
        beats: u64,
        applied: &[Applied<'_>],
        amounts: &Amounts,
    ) -> Option<u64> {
        let too_tight = |applied: &Applied<'_>| {
            let terms = &applied.rule.terms;
            terms.dimension == Dimension::Concurrency
                || terms.period == Period::Second
                || applied.rule.bucket_burst().is_some()
        };
        if beats < HOT || lease_end(now, ask.lease.ttl_ms) <= now || applied.iter().any(too_tight) {
            return None;
        }
        let caller = ask.caller();
        let mut size = beats.saturating_mul(2).min(MOST_REQUESTS);
        for applied in applied.iter().filter(|applied| applied.rule.terms.mode == LimitMode::Enforce) {
            let each = asked(amounts, applied.rule.terms.dimension);
            let left = self.reading(now, &caller, applied).remaining.saturating_sub(each);
            let share = u128::from(left).saturating_mul(u128::from(ask.lease.share_percent.min(MOST_SHARE))) / 100;
            if let Some(fit) = share.checked_div(u128::from(each)) {
                size = size.min(u64::try_from(fit).unwrap_or(u64::MAX));
            }
        }
        Some(size).filter(|size| *size >= LEAST_REQUESTS)
    }

    /// Makes a lease.
    pub(super) fn grant_lease(
        &mut self,
        now: u64,
        ask: &Ask,
        size: u64,
        output_tokens: u64,
        amounts: &Amounts,
        rates: &[Rate],
    ) -> LeaseGrant {
        let until = lease_end(now, ask.lease.ttl_ms);
        let ttl_ms = until.saturating_sub(now);
        let row = Row {
            id: lease_id(&ask.id),
            at: until,
            key_id: ask.key_id.clone(),
            user: ask.user.clone(),
            model: ask.model.clone(),
            amounts: amounts.times(size),
            stage: Stage::Open(until.saturating_add(ask.lifetime_ms)),
            leased: Leased::Lease { output_tokens, ttl_ms, holder: ask.holder.clone() },
            ..Row::default()
        };
        let grant = LeaseGrant { id: row.id.clone(), block: row.amounts, output_tokens, ttl_ms };
        self.charge(now, row, rates);
        grant
    }

    /// The lease that was granted with a request, if it is still whole.
    pub(super) fn lease_of(&self, id: &str) -> Option<LeaseGrant> {
        let id = lease_id(id);
        let Some(Slot::Open(row)) = self.slots.get(&id) else { return None };
        let Leased::Lease { output_tokens, ttl_ms, .. } = row.leased else { return None };
        Some(LeaseGrant { id, block: row.amounts, output_tokens, ttl_ms })
    }

    fn is_open_lease(&self, id: &str) -> bool {
        matches!(self.slots.get(id), Some(Slot::Open(row)) if row.leased.is_lease())
    }
}

/// When a lease ends at the latest: within its day, so that it counts in the right calendar periods.
fn lease_end(now: u64, ttl_ms: u64) -> u64 {
    let day = (now / DAY_MS).saturating_add(1).saturating_mul(DAY_MS);
    now.saturating_add(ttl_ms).min(day.saturating_sub(1))
}
