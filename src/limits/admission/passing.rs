//! Requests of which nothing matters but that they are open: a provider without limits is counted only so that a gauge
//! can pick the one with the fewest.
//!
//! Most are over before storing them would have been worth it, so they are stored only when they have been open for a
//! while ([`YOUNG_MS`]), and are deleted when they end. A crash makes those forgotten that were not stored: they are not
//! counted any more, and their settlement finds nothing. It never makes one count that has ended: one that was stored is
//! deleted before its end is confirmed.
//!
//! As soon as any rule applies, what is open is stored at once: caps hold across a crash.

use super::super::ask::Ask;
use super::*;

/// For how long a request is open at most before it is stored, in milliseconds.
const YOUNG_MS: u64 = 5_000;

/// Those that were reserved within the same so many milliseconds are stored together.
const TOGETHER_MS: u64 = 1_000;

/// For how long an id is remembered after the request's end, in milliseconds: what was sent to reserve it may come late.
const REMEMBERED_MS: u64 = 60_000;

/// Those that matter only as long as they are open.
#[derive(Debug, Default)]
pub(super) struct Passing {
    /// Those that are open and not stored, by the time of their reservation.
    young: BTreeSet<(u64, String)>,
    /// Those that have ended, by that time.
    ended: VecDeque<(u64, String)>,
}

impl Passing {
    /// When the next one is to be stored.
    pub(super) fn next(&self) -> Option<u64> {
        let begin = |at: u64| at.saturating_sub(at.checked_rem(TOGETHER_MS).unwrap_or(0));
        self.young.first().map(|(at, _)| begin(*at).saturating_add(YOUNG_MS))
    }
}

impl Admission {
    /// Reserves a request that no rule applies to.
    pub(super) fn let_pass(&mut self, now: u64, ask: &Ask) {
        let row = Row {
            id: ask.id.clone(),
            sequence: self.next_sequence(),
            at: now,
            key_id: ask.key_id.clone(),
            user: ask.user.clone(),
            model: ask.model.clone(),
            stage: Stage::Open(now.saturating_add(ask.lifetime_ms)),
            passing: true,
            ..Row::default()
        };
        self.subjects.shift(&row, None, Some(Held::by(&row)));
        self.meta.count(&row);
        self.passing.young.insert((now, row.id.clone()));
        self.keep(row);
    }

    /// Ends one that was taken out.
    pub(super) fn pass(&mut self, now: u64, row: &Row, slot: Slot) {
        self.subjects.shift(row, Some(Held::by(row)), None);
        if !self.passing.young.remove(&(row.at, row.id.clone())) {
            self.pending.push(Pending::Delete(row.id.clone()));
        }
        self.remember_passed(now, &row.id, slot);
    }

    /// Remembers that a request has ended: one that is reserved only then is not open.
    pub(super) fn remember_passed(&mut self, now: u64, id: &str, slot: Slot) {
        self.slots.insert(id.to_owned(), slot);
        self.passing.ended.push_back((now, id.to_owned()));
    }

    /// Tells those that have been open for long enough at this time: they are to be stored.
    pub(super) fn store_passing(&mut self, now: u64) {
        while self.passing.next().is_some_and(|due| due <= now)
            && let Some((_, id)) = self.passing.young.pop_first()
        {
            self.pending.push(Pending::Open(id));
        }
    }

    /// Forgets those that ended long ago.
    pub(super) fn forget_passed(&mut self, now: u64) {
        while self.passing.ended.front().is_some_and(|(at, _)| at.saturating_add(REMEMBERED_MS) <= now)
            && let Some((_, id)) = self.passing.ended.pop_front()
        {
            self.forget([id.as_str()]);
        }
    }
}

#[cfg(test)]
mod tests;
