//! Settlements, and what is never settled.

use super::super::ask::{LeaseReturn, LeaseUse, Settled, Settlement};
use super::super::bucket::Flow;
use super::super::row::{CounterId, Leased};
use super::lease::lease_id;
use super::*;

impl Admission {
    /// Counts what a request has used, in place of what was reserved for it and at that time; now, if nothing was. It
    /// may come before its reservation, twice, or too late.
    pub fn settle(&mut self, now: u64, id: &str, settlement: &Settlement) -> Settled {
        let now = self.clock(now);
        if settlement.unanswered {
            self.give_back(now, &LeaseReturn { id: lease_id(id), open: Vec::new() });
        }
        match self.slots.get(id) {
            Some(Slot::Settled) => return Settled::Repeated,
            Some(Slot::Expired) => return self.late(),
            Some(Slot::Open(row)) if row.leased.is_lease() => return Settled::Repeated,
            Some(Slot::Open(_)) | None => {}
        }
        if let Some(mut row) = self.take_open(id) {
            if row.passing {
                self.pass(now, &row, Slot::Settled);
                return Settled::Counted;
            }
            let before = Held::by(&row);
            row.amounts = settlement.amounts;
            row.stage = Stage::Settled;
            row.complete = settlement.complete;
            self.close(now, *row, before);
            return Settled::Counted;
        }
        if let Some(used) = &settlement.lease {
            return self.settle_leased(now, id, settlement, used);
        }
        if settlement.passing {
            self.remember_passed(now, id, Slot::Settled);
            return Settled::Counted;
        }
        let row = Row {
            id: id.to_owned(),
            at: now,
            key_id: settlement.key_id.clone(),
            user: settlement.user.clone(),
            model: settlement.model.clone(),
            amounts: settlement.amounts,
            complete: settlement.complete,
            ..Row::default()
        };
        let caller = Caller { key: &row.key_id, user: row.user.as_deref(), model: Some(&row.model) };
        let rates = self.rates_of(&caller);
        self.charge(now, row, &rates);
        Settled::Counted
    }

    /// Charges what should have been settled by now as it was reserved. Their rows say [`Stage::Expired`] and need a
    /// usage entry each; a lease's may stand for several requests. Stores what has passed for long enough.
    pub fn expire(&mut self, now: u64) {
        while let Some((at, id)) = self.expiries.first()
            && *at <= now
        {
            let id = id.clone();
            let Some(mut row) = self.take_open(&id) else { break };
            if row.passing {
                self.pass(now, &row, Slot::Expired);
                continue;
            }
            let before = Held::by(&row);
            if row.leased.is_lease() && row.amounts.is_zero() {
                self.pending.push(Pending::Delete(id));
                continue;
            }
            row.stage = Stage::Expired;
            self.close(now, *row, before);
        }
        self.store_passing(now);
        self.forget_passed(now);
    }

    /// Counts a row for what it has become; it is no longer open.
    fn close(&mut self, now: u64, mut row: Row, before: Held) {
        row.sequence = self.next_sequence();
        self.adjust_buckets(now, &mut row, before);
        self.subjects.shift(&row, Some(before), Some(Held::by(&row)));
        self.meta.count(&row);
        self.tell(row);
    }

    /// Corrects the buckets that a row was counted in, and notes how it leaves them.
    pub(super) fn adjust_buckets(&mut self, now: u64, row: &mut Row, before: Held) {
        if row.left.is_empty() && row.marks.iter().all(|mark| mark.bucket.is_none()) {
            return;
        }
        let caller = Caller { key: &row.key_id, user: row.user.as_deref(), model: Some(&row.model) };
        let rates = self.rates_of(&caller);
        for mark in row.marks.iter_mut().filter(|mark| mark.bucket.is_some()) {
            let CounterId { dimension, period, .. } = mark.counter;
            let (from, to) = (before.amounts.of(dimension), row.amounts.of(dimension));
            let current = rates.iter().find(|rate| rate.counter == mark.counter).and_then(|rate| rate.flow);
            let Some(counters) = self.subjects.counters_mut(mark.counter, &caller) else { continue };
            let changed = counters.with_bucket(dimension, period, row.sequence, |bucket| {
                if from != to {
                    // A rule that is gone drains as it did last.
                    let period_ms = period.window_ms().unwrap_or(0);
                    let flow = current.unwrap_or(Flow { rate: bucket.rate(), period_ms });
                    bucket.adjust(flow, now, mark.place, from, to);
                }
                mark.place
            });
            mark.bucket = changed.map(|(_, bucket)| bucket);
        }
        for (model, mark) in &mut row.left {
            let caller = Caller { model: Some(model), ..caller };
            let CounterId { dimension, period, .. } = mark.counter;
            let Some(counters) = self.subjects.counters_mut(mark.counter, &caller) else { continue };
            let noted = counters.with_bucket(dimension, period, row.sequence, |_| mark.place);
            mark.bucket = noted.map(|(_, bucket)| bucket);
        }
    }

    pub(super) fn late(&mut self) -> Settled {
        self.late = self.late.saturating_add(1);
        Settled::Late
    }

    fn settle_leased(&mut self, now: u64, id: &str, settlement: &Settlement, used: &LeaseUse) -> Settled {
        let Some(Slot::Open(lease)) = self.slots.get(&used.id) else { return self.late() };
        let Leased::Lease { holder, ttl_ms, .. } = &lease.leased else { return self.late() };
        let (holder, ttl_ms) = (holder.clone(), *ttl_ms);
        self.heat.leased(now, &holder, &lease.key_id, &lease.model, ttl_ms);
        let Some(row) = self.take_from_lease(&used.id, id, &used.reserved) else { return self.late() };
        let row = Row { amounts: settlement.amounts, complete: settlement.complete, stage: Stage::Settled, ..row };
        self.put(row);
        Settled::Counted
    }
}
