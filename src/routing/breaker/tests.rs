#![expect(clippy::arithmetic_side_effects, reason = "small numbers")]

use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms {
    consecutive: 3,
    failure_percent: 50,
    min_requests: 10,
    window_ms: 10_000,
    open_ms: 1_000,
    max_open_ms: 8_000,
    trials: 2,
};

/// Neither more nor less than the back-off.
const NO_JITTER: u64 = 200;

fn request(began: u64, fault: Option<Fault>) -> Evidence {
    Evidence { began, fault, source: Source::Request }
}

fn trial(began: u64, fault: Option<Fault>) -> Evidence {
    Evidence { source: Source::Trial, ..request(began, fault) }
}

const BAD: Option<Fault> = Some(Fault::ServerError);

/// A breaker that opened at a time.
fn opened(now: u64) -> Breaker {
    let mut breaker = Breaker::default();
    for _ in 0..TERMS.consecutive {
        breaker.note(now, &TERMS, request(now, BAD), NO_JITTER);
    }
    breaker
}

#[test]
fn faults_in_a_row_open_it_and_trials_in_a_row_close_it() {
    let mut breaker = opened(10_000);
    assert_eq!(breaker.opening(), Some((10_000, 11_000, Fault::ServerError)));
    assert_eq!((breaker.state(10_999), breaker.state(11_000)), (State::Open, State::HalfOpen));
    assert_eq!(breaker.note(11_100, &TERMS, trial(11_050, None), 0), None);
    let closed = breaker.note(11_200, &TERMS, trial(11_050, None), 0);
    assert_eq!(closed, Some(Turned { from: State::HalfOpen, to: State::Closed }));
    assert_eq!(breaker.slow_start_permille(11_200, 10_000), 100);
    assert_eq!(breaker.slow_start_permille(16_200, 10_000), 550);
    assert_eq!((breaker.slow_start_permille(21_200, 10_000), breaker.slow_start_permille(11_200, 0)), (1_000, 1_000));
}

#[test]
fn each_failed_trial_doubles_the_back_off_until_it_was_closed_for_long() {
    let mut breaker = opened(10_000);
    let mut now = 11_000;
    for lasts in [2_000, 4_000, 8_000, 8_000] {
        assert_eq!(breaker.note(now, &TERMS, trial(now, None), NO_JITTER), None);
        let turned = breaker.note(now, &TERMS, trial(now, BAD), NO_JITTER);
        assert_eq!(turned, Some(Turned { from: State::HalfOpen, to: State::Open }));
        assert_eq!(breaker.opening(), Some((now, now + lasts, Fault::ServerError)));
        now += lasts;
    }
    for _ in 0..TERMS.trials {
        breaker.note(now, &TERMS, trial(now, None), NO_JITTER);
    }
    let mut soon = breaker.clone();
    for (breaker, now, lasts) in [(&mut soon, now + 7_999, 8_000), (&mut breaker, now + 8_000, 1_000)] {
        for _ in 0..TERMS.consecutive {
            breaker.note(now, &TERMS, request(now, BAD), NO_JITTER);
        }
        assert_eq!(breaker.opening().unwrap().1, now + lasts);
    }
}

#[test]
fn a_share_of_faults_opens_it_when_there_were_enough_requests() {
    let mut breaker = Breaker::default();
    for nth in 0..9 {
        let fault = if nth % 2 == 0 { None } else { BAD };
        assert_eq!(breaker.note(1_000 + nth, &TERMS, request(1_000, fault), 0), None);
    }
    assert!(breaker.note(1_010, &TERMS, request(1_000, BAD), 0).is_some(), "5 of 10");
    let mut breaker = Breaker::default();
    for nth in 0..100 {
        let fault = if nth % 3 == 0 { BAD } else { None };
        assert_eq!(breaker.note(1_000 + nth, &TERMS, request(1_000, fault), 0), None, "a third is not half");
    }
    let mut breaker = Breaker::default();
    for nth in 0..100 {
        let fault = if nth % 2 == 0 { BAD } else { None };
        assert_eq!(breaker.note(nth * 2_000, &TERMS, request(nth * 2_000, fault), 0), None, "too few in the window");
    }
}

#[test]
fn a_refused_credential_and_a_verdict_of_probes_open_at_once() {
    for (source, fault) in [(Source::Request, Fault::Auth), (Source::Probe, Fault::Unreachable)] {
        let mut breaker = Breaker::default();
        let evidence = Evidence { began: 5_000, fault: Some(fault), source };
        assert_eq!(breaker.note(5_000, &TERMS, evidence, 0), Some(Turned { from: State::Closed, to: State::Open }));
    }
}

#[test]
fn probes_need_not_wait_for_the_back_off() {
    let mut breaker = opened(10_000);
    let probe = |began, fault| Evidence { began, fault, source: Source::Probe };
    assert_eq!(breaker.note(10_100, &TERMS, probe(10_100, BAD), NO_JITTER), None, "it is open already");
    let turned = breaker.note(10_200, &TERMS, probe(10_150, None), NO_JITTER);
    assert_eq!(turned, Some(Turned { from: State::Open, to: State::HalfOpen }));
    assert!(breaker.note(10_300, &TERMS, probe(10_250, None), NO_JITTER).is_some());
    assert_eq!(breaker.state(10_300), State::Closed);
}

#[test]
fn what_began_before_it_turned_changes_nothing() {
    let mut breaker = opened(10_000);
    let before = breaker.clone();
    for evidence in [request(9_000, BAD), request(10_500, BAD), request(10_500, None), trial(10_500, BAD)] {
        assert_eq!(breaker.note(10_900, &TERMS, evidence, 0), None);
    }
    assert_eq!(breaker.note(11_500, &TERMS, request(10_999, BAD), 0), None, "it was sent while the breaker was open");
    assert_eq!(breaker, before);
    for _ in 0..TERMS.trials {
        breaker.note(12_000, &TERMS, trial(11_900, None), 0);
    }
    for _ in 0..TERMS.consecutive {
        assert_eq!(breaker.note(20_000, &TERMS, request(11_999, BAD), 0), None);
    }
    assert_eq!(breaker.state(20_000), State::Closed);
}

/// What a breaker should be, said as simply as possible: a list of what it was told since it last turned.
#[derive(Debug, Default)]
struct Model {
    /// When it opened, until when it is open, and its how many-th opening in a row this is.
    open: Option<(u64, u64, u64)>,
    closed_at: u64,
    was_open: bool,
    times: u64,
    counted: Vec<bool>,
}

impl Model {
    fn note(&mut self, now: u64, evidence: Evidence, jitter: u64) {
        let bad = evidence.fault.is_some();
        let Some((at, until, _)) = self.open else {
            if evidence.began >= self.closed_at {
                self.counted.push(bad);
            }
            let row = usize::try_from(TERMS.consecutive).unwrap();
            let at_once = bad && (evidence.source == Source::Probe || evidence.fault == Some(Fault::Auth));
            let last = self.counted.iter().rev().take_while(|bad| **bad).count();
            if evidence.began >= self.closed_at && (last >= row || at_once) {
                if !self.was_open || now >= self.closed_at + TERMS.max_open_ms {
                    self.times = 0;
                }
                self.open(now, jitter);
            }
            return;
        };
        let counts = match evidence.source {
            Source::Request => evidence.began >= until,
            Source::Trial => evidence.began >= at && now >= until,
            Source::Probe => evidence.began >= at && (!bad || now >= until),
        };
        if !counts {
        } else if bad {
            self.open(now, jitter);
        } else {
            self.open = Some((at, until.min(now), 0));
            self.counted.push(false);
            if self.counted.len() as u64 >= TERMS.trials {
                *self = Self { closed_at: now, was_open: true, times: self.times, ..Self::default() };
            }
        }
    }

    fn open(&mut self, now: u64, jitter: u64) {
        let wait = (TERMS.open_ms << self.times.min(20)).min(TERMS.max_open_ms);
        self.times += 1;
        self.open = Some((now, now + wait * (800 + jitter) / 1_000, self.times));
        self.counted.clear();
    }
}

proptest! {
    /// Whatever happens, in whatever order it is told: the breaker is what the model is. (Of shares of faults the model
    /// knows nothing: they are out of reach here.)
    #[test]
    fn it_does_what_the_model_does(
        steps in proptest::collection::vec((0_u64..2_500, 0_u64..4_000, 0_usize..8, 0_u64..=400, any::<bool>()), 1..80),
    ) {
        let terms = Terms { min_requests: 1_000, ..TERMS };
        let (mut breaker, mut model, mut now) = (Breaker::default(), Model::default(), 100_000);
        for (wait, took, kind, jitter, trial) in steps {
            now += wait;
            let fault = match kind {
                0..=3 => None,
                4 => Some(Fault::Auth),
                _ => BAD,
            };
            let source = match (trial, kind) {
                (true, _) => Source::Trial,
                (false, 3 | 7) => Source::Probe,
                _ => Source::Request,
            };
            let evidence = Evidence { began: now - took, fault, source };
            let before = breaker.state(now);
            let turned = breaker.note(now, &terms, evidence, jitter);
            model.note(now, evidence, jitter);
            let state = breaker.state(now);
            prop_assert_eq!(turned, (before != state).then_some(Turned { from: before, to: state }));
            prop_assert_eq!(breaker.opening().map(|(at, until, _)| (at, until)), model.open.map(|it| (it.0, it.1)));
            prop_assert!(before != State::Closed || state != State::HalfOpen);
            if let Some((at, until, _)) = breaker.opening() {
                // No state is stuck: once the back-off is over, trials are let through.
                prop_assert!(until <= at + TERMS.max_open_ms * 12 / 10 && breaker.state(until) == State::HalfOpen);
            }
            let read: Breaker = serde_json::from_str(&serde_json::to_string(&breaker).unwrap()).unwrap();
            prop_assert_eq!(&read, &breaker);
        }
    }
}
