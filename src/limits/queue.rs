//! In which batch an entry is handed on.
//!
//! Entries gather in the open batch. A batch that is being handed on is closed: nothing is added to it any more, so that
//! handing it on again, after a crash or an answer that was lost, hands on the same entries under the same number, and
//! the receiver can tell. Ids are remembered with the batch that they came in until that batch is forgotten; an entry
//! whose id is remembered is a repetition.

use std::collections::{HashMap, VecDeque};

/// Entries in a batch at most.
pub const BATCH_ENTRIES: usize = 500;

/// Ids that are remembered at most. The oldest are forgotten first, long after their sender has given up repeating them.
const REMEMBERED: usize = 100_000;

/// Milliseconds until a failed batch is tried again: at first, and at most.
const RETRY_MS: (u64, u64) = (1_000, 300_000);

/// The batches of an object. Batch numbers begin at one.
#[derive(Debug)]
pub struct Queue {
    open: u64,
    in_open: usize,
    waiting: VecDeque<(u64, usize)>,
    seen: HashMap<String, u64>,
    order: VecDeque<String>,
    failures: u32,
}

impl Queue {
    /// A queue as it was stored: `applied` is the last batch that was handed on, `entries` are the stored entries' batches
    /// and ids, in the batches' order.
    pub fn restore(applied: u64, entries: impl IntoIterator<Item = (u64, String)>) -> Self {
        let mut queue = Self {
            open: applied.saturating_add(1),
            in_open: 0,
            waiting: VecDeque::new(),
            seen: HashMap::new(),
            order: VecDeque::new(),
            failures: 0,
        };
        for (batch, id) in entries {
            if batch > applied {
                match queue.waiting.back_mut() {
                    Some((last, count)) if *last == batch => *count = count.saturating_add(1),
                    _ => queue.waiting.push_back((batch, 1)),
                }
            }
            // Whether it had been closed is not known any more.
            queue.open = queue.open.max(batch.saturating_add(1));
            queue.remember(id, batch);
        }
        queue
    }

    /// Takes an entry in: the batch to store it in, or `None` for a repetition.
    pub fn accept(&mut self, id: &str) -> Option<u64> {
        if self.seen.contains_key(id) {
            return None;
        }
        if self.in_open >= BATCH_ENTRIES {
            self.close();
        }
        self.in_open = self.in_open.saturating_add(1);
        let batch = self.open;
        self.remember(id.to_owned(), batch);
        Some(batch)
    }

    /// The batch to hand on next; it is closed by that.
    pub fn next_batch(&mut self) -> Option<u64> {
        if self.waiting.is_empty() {
            self.close();
        }
        self.waiting.front().map(|(batch, _)| *batch)
    }

    /// A batch has been handed on.
    pub fn handed_on(&mut self, batch: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != batch);
        self.failures = 0;
    }

    /// A batch could not be handed on: the milliseconds until it should be tried again.
    pub fn failed(&mut self) -> u64 {
        let wait = RETRY_MS.0.saturating_mul(1_u64.checked_shl(self.failures.min(20)).unwrap_or(u64::MAX));
        self.failures = self.failures.saturating_add(1);
        wait.min(RETRY_MS.1)
    }

    /// Entries that have not been handed on.
    pub fn pending(&self) -> usize {
        self.waiting.iter().fold(self.in_open, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Forgets the ids of all batches up to this one: their entries are deleted.
    pub fn forget(&mut self, up_to: u64) {
        self.seen.retain(|_, batch| *batch > up_to);
        self.order.retain(|id| self.seen.contains_key(id));
    }

    fn close(&mut self) {
        if self.in_open > 0 {
            self.waiting.push_back((self.open, self.in_open));
            self.open = self.open.saturating_add(1);
            self.in_open = 0;
        }
    }

    fn remember(&mut self, id: String, batch: u64) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.seen.insert(id.clone(), batch);
        self.order.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn empty() -> Queue {
        Queue::restore(0, [])
    }

    #[test]
    fn a_repetition_is_told_and_a_closed_batch_stays_as_it_is() {
        let mut queue = empty();
        assert_eq!((queue.accept("a"), queue.accept("b"), queue.accept("a")), (Some(1), Some(1), None));
        assert_eq!(queue.next_batch(), Some(1));
        assert_eq!(queue.accept("c"), Some(2), "batch 1 is on its way");
        assert_eq!((queue.next_batch(), queue.pending()), (Some(1), 3));
        queue.handed_on(1);
        assert_eq!((queue.accept("a"), queue.pending(), queue.next_batch()), (None, 1, Some(2)));
        queue.handed_on(2);
        assert_eq!((queue.next_batch(), queue.pending()), (None, 0));
        queue.forget(1);
        assert_eq!((queue.accept("a"), queue.accept("c")), (Some(3), None));
    }

    #[test]
    fn batches_are_bounded_and_failures_wait_longer_each_time() {
        let mut queue = empty();
        let batches: BTreeSet<u64> = (0..1001).filter_map(|n| queue.accept(&n.to_string())).collect();
        assert_eq!(batches, BTreeSet::from([1, 2, 3]));
        let waits: Vec<u64> = (0..12).map(|_| queue.failed()).collect();
        assert_eq!((waits[0], waits[1], waits[11]), (1_000, 2_000, 300_000));
        queue.handed_on(1);
        assert_eq!(queue.failed(), 1_000);
    }

    /// What can happen to an object and the database behind it.
    #[derive(Debug, Clone)]
    enum Event {
        Post(u8),
        /// The batch arrives and the object learns it.
        Flush,
        /// The batch arrives, the answer does not.
        AnswerLost,
        /// The batch does not arrive.
        Fails,
        /// The object starts anew from what it has stored.
        Restart,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0..20u8).prop_map(Event::Post),
            2 => Just(Event::Flush),
            1 => Just(Event::AnswerLost),
            1 => Just(Event::Fails),
            1 => Just(Event::Restart),
        ]
    }

    proptest! {
        #[test]
        fn every_entry_is_counted_exactly_once_whatever_happens(events in proptest::collection::vec(event(), 0..60)) {
            let mut stored: Vec<(u64, String)> = Vec::new();
            let mut applied = 0;
            let mut queue = empty();
            let mut database: BTreeMap<u64, Vec<String>> = BTreeMap::new();
            let mut posted = BTreeSet::new();
            for event in events.into_iter().chain([Event::Restart, Event::Flush, Event::Flush, Event::Flush]) {
                match event {
                    Event::Post(id) => {
                        posted.insert(id.to_string());
                        if let Some(batch) = queue.accept(&id.to_string()) {
                            stored.push((batch, id.to_string()));
                        }
                    }
                    Event::Flush | Event::AnswerLost => {
                        if let Some(batch) = queue.next_batch() {
                            let ids: Vec<String> =
                                stored.iter().filter(|(b, _)| *b == batch).map(|(_, id)| id.clone()).collect();
                            let there = database.entry(batch).or_insert_with(|| ids.clone());
                            prop_assert_eq!(&*there, &ids, "a batch that comes again is the same");
                            if matches!(event, Event::Flush) {
                                applied = batch;
                                queue.handed_on(batch);
                            }
                        }
                    }
                    Event::Fails => {
                        let _batch = queue.next_batch();
                        queue.failed();
                    }
                    Event::Restart => queue = Queue::restore(applied, stored.clone()),
                }
            }
            while let Some(batch) = queue.next_batch() {
                let ids = stored.iter().filter(|(b, _)| *b == batch).map(|(_, id)| id.clone()).collect();
                database.entry(batch).or_insert(ids);
                queue.handed_on(batch);
            }
            let counted: Vec<String> = database.into_values().flatten().collect();
            prop_assert_eq!(counted.len(), posted.len());
            prop_assert_eq!(counted.into_iter().collect::<BTreeSet<_>>(), posted);
        }
    }
}
