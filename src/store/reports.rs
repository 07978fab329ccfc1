//! What an isolate has seen of providers and not yet told their gauges, and when it is to do so.
//!
//! Successes can wait for a while, and for long where nothing depends on them; what may open or close a breaker is told at
//! once, but for a short pause in which more of it comes together.

use std::collections::{BTreeMap, VecDeque};

use crate::routing::board::Observation;
use crate::routing::outcome::Blame;

/// Observations that wait for a gauge at most.
const MOST: usize = 1_000;

/// How old an observation may be that is told at all, in milliseconds.
const TOO_OLD_MS: u64 = 30_000;

/// The least time between two reports to a gauge, in milliseconds.
const GAP_MS: u64 = 100;

/// How long a gauge is left alone that has not answered, in milliseconds.
const LEFT_ALONE_MS: u64 = 1_000;

/// For how long whoever has taken a gauge over is trusted to see to it, in milliseconds: the platform may break a request
/// off without a word.
const TRUSTED_MS: u64 = 5_000;

/// So many successes are not kept waiting for longer than `routing.report_ms`.
const MANY: usize = 20;

/// How many times as long fewer of them may wait …
const LONGER: u64 = 10;

/// … but no longer than this, unless that is what is configured, in milliseconds.
const LONGEST_MS: u64 = 10_000;

/// How long successes may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// `routing.report_ms`.
    pub report_ms: u64,
    /// Whether they change nothing that somebody decides by: all is well, and nobody compares latencies.
    pub calm: bool,
}

/// When a gauge is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Now.
    Now,
    /// In so many milliseconds.
    In(u64),
    /// Not as long as nothing else happens; or somebody is doing it.
    Not,
}

/// What is to be told to gauges, by their names.
#[derive(Debug, Default)]
pub struct Reports {
    lanes: BTreeMap<String, Lane>,
}

/// What is to be told to a gauge.
#[derive(Debug, Default)]
struct Lane {
    pending: VecDeque<Observation>,
    /// Whether something is among it that cannot wait, or that is asked for.
    urgent: bool,
    /// No report before this time.
    not_before: u64,
    /// When the last report was begun.
    sent_at: Option<u64>,
    /// Since when somebody sees to it: waits to send a report, or has sent one.
    taken_at: Option<u64>,
}

impl Reports {
    /// Something has been seen.
    pub fn add(&mut self, gauge: &str, seen: Observation) {
        let lane = self.lane(gauge);
        lane.urgent |= seen.trial || seen.probe || seen.fault.is_some_and(|fault| fault.blame() != Blame::Nobody);
        lane.push(seen);
    }

    /// The gauge's word is wanted.
    pub fn ask(&mut self, gauge: &str) {
        self.lane(gauge).urgent = true;
    }

    /// The gauges that are to be told something sooner or later.
    pub fn waiting(&self, now: u64) -> Vec<String> {
        let waits = |lane: &Lane| !lane.is_taken(now) && (lane.urgent || !lane.pending.is_empty());
        self.lanes.iter().filter(|(_, lane)| waits(lane)).map(|(gauge, _)| gauge.clone()).collect()
    }

    /// When a gauge is to be told.
    pub fn due(&self, now: u64, gauge: &str, pace: Pace) -> Due {
        let Some(lane) = self.lanes.get(gauge).filter(|lane| !lane.is_taken(now)) else { return Due::Not };
        let Pace { report_ms, calm } = pace;
        let gap = match calm && lane.pending.len() < MANY {
            _ if lane.urgent => GAP_MS,
            true => report_ms.saturating_mul(LONGER).min(LONGEST_MS.max(report_ms)),
            false => report_ms,
        };
        let from = lane.not_before.max(lane.sent_at.map_or(0, |at| at.saturating_add(gap)));
        match (lane.urgent, lane.pending.is_empty()) {
            (false, true) => Due::Not,
            _ if from <= now => Due::Now,
            // The clock may have been set back.
            (true, _) => Due::In(from.saturating_sub(now).min(LEFT_ALONE_MS)),
            (false, false) => Due::Not,
        }
    }

    /// Somebody takes a gauge over, to wait until it is due or to tell it; nobody else does before [`Self::leave`], or for
    /// a while.
    pub fn take(&mut self, now: u64, gauge: &str) {
        self.lane(gauge).taken_at = Some(now);
    }

    /// Nobody sees to a gauge any more.
    pub fn leave(&mut self, gauge: &str) {
        self.lane(gauge).taken_at = None;
    }

    /// What a report that is sent now is to say.
    pub fn begin(&mut self, now: u64, gauge: &str) -> Vec<Observation> {
        let lane = self.lane(gauge);
        lane.urgent = false;
        lane.sent_at = Some(now);
        lane.pending.drain(..).filter(|seen| seen.at.saturating_add(TOO_OLD_MS) > now).collect()
    }

    /// What has been seen since the report was begun.
    pub fn unreported(&self, gauge: &str) -> impl Iterator<Item = &Observation> {
        self.lanes.get(gauge).into_iter().flat_map(|lane| &lane.pending)
    }

    /// A report has not been answered: what it said is to be said again.
    pub fn failed(&mut self, now: u64, gauge: &str, said: Vec<Observation>) {
        let lane = self.lane(gauge);
        lane.not_before = now.saturating_add(LEFT_ALONE_MS);
        let since = std::mem::take(&mut lane.pending);
        said.into_iter().chain(since).for_each(|seen| lane.push(seen));
    }

    fn lane(&mut self, gauge: &str) -> &mut Lane {
        if !self.lanes.contains_key(gauge) {
            self.lanes.insert(gauge.to_owned(), Lane::default());
        }
        self.lanes.entry(gauge.to_owned()).or_default()
    }
}

impl Lane {
    fn is_taken(&self, now: u64) -> bool {
        self.taken_at.is_some_and(|at| now.saturating_sub(at) < TRUSTED_MS)
    }

    /// Where there is no room, the oldest success goes first.
    fn push(&mut self, seen: Observation) {
        if self.pending.len() >= MOST {
            let oldest = self.pending.iter().position(|known| known.fault.is_none() && !known.trial).unwrap_or(0);
            self.pending.remove(oldest);
        }
        self.pending.push_back(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::outcome::Fault;

    fn pace(report_ms: u64) -> Pace {
        Pace { report_ms, calm: false }
    }

    fn seen(at: u64, fault: Option<Fault>) -> Observation {
        Observation { provider: "p".into(), deployment: "m".into(), fault, at, ..Observation::default() }
    }

    #[test]
    fn successes_wait_and_faults_do_not() {
        let mut reports = Reports::default();
        assert_eq!(reports.due(1_000, "g", pace(1_000)), Due::Not);
        reports.add("g", seen(1_000, None));
        assert_eq!(reports.due(1_000, "g", pace(1_000)), Due::Now, "nothing has been told for long");
        assert_eq!(reports.begin(1_000, "g").len(), 1);
        assert_eq!((reports.due(1_001, "g", pace(1_000)), reports.waiting(1_001)), (Due::Not, vec![]));
        reports.add("g", seen(1_010, None));
        assert_eq!((reports.due(1_999, "g", pace(1_000)), reports.due(2_000, "g", pace(1_000))), (Due::Not, Due::Now));
        reports.add("g", seen(1_020, Some(Fault::BadRequest)));
        assert_eq!(reports.due(1_020, "g", pace(1_000)), Due::Not, "nobody is to blame");
        reports.add("g", seen(1_030, Some(Fault::ServerError)));
        assert_eq!(
            (reports.due(1_030, "g", pace(1_000)), reports.due(1_100, "g", pace(1_000))),
            (Due::In(70), Due::Now)
        );
        assert_eq!(reports.begin(1_100, "g").len(), 3);
        assert_eq!(reports.due(5_000, "g", pace(1_000)), Due::Not);
        reports.ask("g");
        assert_eq!((reports.due(5_000, "g", pace(1_000)), reports.waiting(5_000)), (Due::Now, vec!["g".to_owned()]));
    }

    #[test]
    fn a_few_successes_wait_for_longer_where_nothing_depends_on_them() {
        let mut reports = Reports::default();
        let calm = |report_ms| Pace { report_ms, calm: true };
        reports.add("g", seen(1_000, None));
        assert_eq!(reports.due(1_000, "g", calm(1_000)), Due::Now, "nothing has been told for long");
        assert_eq!(reports.begin(1_000, "g").len(), 1);
        for nth in 1..MANY as u64 {
            reports.add("g", seen(1_000 + nth, None));
        }
        for (at, calm_too) in [(1_999, Due::Not), (10_999, Due::Not), (11_000, Due::Now)] {
            assert_eq!(reports.due(at, "g", calm(1_000)), calm_too);
            assert_eq!(reports.due(at, "g", pace(1_000)), if at < 2_000 { Due::Not } else { Due::Now });
        }
        assert_eq!([5_000, 11_000].map(|at| reports.due(at, "g", calm(5_000))), [Due::Not, Due::Now]);
        assert_eq!(
            [10_999, 11_000].map(|at| reports.due(at, "g", calm(10_000))),
            [Due::Not, Due::Now],
            "and no longer"
        );
        reports.add("g", seen(1_500, None));
        assert_eq!([1_999, 2_000].map(|at| reports.due(at, "g", calm(1_000))), [Due::Not, Due::Now], "they are many");
        assert_eq!(reports.begin(2_000, "g").len(), MANY);
        reports.add("g", seen(2_010, Some(Fault::ServerError)));
        assert_eq!(reports.due(2_100, "g", calm(1_000)), Due::Now, "a fault never waits");
    }

    #[test]
    fn one_at_a_time_sees_to_a_gauge() {
        let mut reports = Reports::default();
        reports.add("g", seen(1_000, None));
        reports.take(1_000, "g");
        assert_eq!((reports.due(1_000, "g", pace(1_000)), reports.waiting(1_000)), (Due::Not, vec![]));
        reports.leave("g");
        assert_eq!(reports.due(1_000, "g", pace(1_000)), Due::Now);
        reports.take(1_000, "g");
        assert_eq!(
            (reports.due(5_999, "g", pace(1_000)), reports.due(6_000, "g", pace(1_000))),
            (Due::Not, Due::Now),
            "it never left"
        );
    }

    #[test]
    fn what_has_not_arrived_is_said_again_in_order_unless_it_is_old() {
        let mut reports = Reports::default();
        reports.add("g", seen(1_000, Some(Fault::Reset)));
        let said = reports.begin(1_000, "g");
        reports.add("g", seen(1_500, None));
        assert_eq!(reports.unreported("g").count(), 1, "what is under way is not among it");
        reports.failed(2_000, "g", said);
        reports.ask("g");
        assert_eq!(
            (reports.due(2_000, "g", pace(100)), reports.due(3_000, "g", pace(100))),
            (Due::In(1_000), Due::Now)
        );
        let times: Vec<u64> = reports.unreported("g").map(|seen| seen.at).collect();
        assert_eq!(times, [1_000, 1_500]);
        assert_eq!(reports.begin(31_000, "g").len(), 1);
    }

    #[test]
    fn there_is_an_end_to_what_waits_and_faults_stay() {
        let mut reports = Reports::default();
        reports.add("g", seen(0, Some(Fault::Reset)));
        (0..MOST as u64).for_each(|at| reports.add("g", seen(at, None)));
        let said = reports.begin(0, "g");
        assert_eq!((said.len(), said[0].fault, said[1].at), (MOST, Some(Fault::Reset), 1));
    }
}
