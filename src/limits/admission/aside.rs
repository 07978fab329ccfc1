//! Requests that go on with another model: what they have reserved is set aside while it is judged what they need now.

use super::super::amounts::Amounts;
use super::super::bucket::Bucket;
use super::super::row::Mark;
use super::*;

/// A row that counts for nothing at the moment.
#[derive(Debug)]
pub(super) struct Aside {
    /// The row, as it was.
    row: Row,
    /// The buckets that it was counted in, as they were with it.
    buckets: Vec<Bucket>,
    /// The row, as it leaves them.
    gone: Row,
}

impl Admission {
    /// Takes what an open row counts for out of everything.
    pub(super) fn set_aside(&mut self, now: u64, id: &str) -> Option<Aside> {
        let row = *self.take_open(id)?;
        let before = Held::by(&row);
        let buckets = row.marks.iter().filter_map(|mark| self.bucket_of(&row, mark)).collect();
        let mut gone = Row { sequence: self.next_sequence(), amounts: Amounts::default(), ..row.clone() };
        self.adjust_buckets(now, &mut gone, before);
        self.subjects.shift(&gone, Some(before), None);
        Some(Aside { row, buckets, gone })
    }

    /// Counts a row again that was set aside, as if nothing had been.
    pub(super) fn put_back(&mut self, aside: Aside) {
        let Aside { row, buckets: before, .. } = aside;
        let sequence = self.next_sequence();
        let caller = row.caller();
        let buckets = row.marks.iter().filter(|mark| mark.bucket.is_some());
        for (mark, bucket) in buckets.zip(before) {
            if let Some(counters) = self.subjects.counters_mut(mark.counter, &caller) {
                counters.with_bucket(mark.counter.dimension, mark.counter.period, sequence, |there| {
                    *there = bucket;
                    mark.place
                });
            }
        }
        self.subjects.shift(&row, None, Some(Held::by(&row)));
        self.keep(row);
    }

    fn bucket_of(&mut self, row: &Row, mark: &Mark) -> Option<Bucket> {
        mark.bucket?;
        let counters = self.subjects.counters_mut(mark.counter, &row.caller())?;
        Some(counters.bucket(mark.counter.dimension, mark.counter.period).copied().unwrap_or_default())
    }
}

impl Aside {
    /// What becomes of the buckets that the row has left for good, as another row will remember it: each with its model.
    pub(super) fn left(self) -> Vec<(String, Mark)> {
        let Row { model, marks, left, .. } = self.gone;
        let leaves = marks.into_iter().filter(|mark| mark.bucket.is_some()).map(|mark| (model.clone(), mark));
        left.into_iter().chain(leaves).collect()
    }
}
