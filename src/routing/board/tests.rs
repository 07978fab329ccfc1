#![expect(clippy::arithmetic_side_effects, reason = "small numbers")]

use proptest::prelude::*;

use super::*;
use crate::routing::headroom::{Headroom, Share};

const NOW: u64 = 1_000_000;

/// Neither more nor less than the back-off.
const NO_JITTER: u64 = 200;

fn terms() -> Terms {
    Terms {
        breaker: config::Breaker {
            consecutive: 3,
            open_ms: 1_000,
            max_open_ms: 8_000,
            trials: 2,
            ..Default::default()
        },
        ..Terms::default()
    }
}

fn seen(at: u64, fault: Option<Fault>) -> Observation {
    Observation { provider: "p".into(), deployment: "m".into(), fault, total_ms: 10, at, ..Observation::default() }
}

fn standing(board: &Board, now: u64) -> Standing {
    board.standing(now, &terms(), "p", "m")
}

fn availability(board: &Board, now: u64) -> Availability {
    standing(board, now).availability
}

/// A board on which so many observations lie.
fn board(fault: Fault, count: usize) -> Board {
    let mut board = Board::default();
    for _ in 0..count {
        board.observe(NOW, &terms(), &seen(NOW, Some(fault)), NO_JITTER);
    }
    board
}

#[test]
fn faults_of_a_model_leave_the_others_of_its_provider_alone() {
    let board = board(Fault::ServerError, 3);
    assert_eq!(availability(&board, NOW), Availability::Skipped(Skip::Open { ms_left: 1_000 }));
    assert_eq!(board.standing(NOW, &terms(), "p", "other"), Standing::UNKNOWN);
}

#[test]
fn faults_of_a_provider_concern_all_its_models() {
    let board = board(Fault::Unreachable, 3);
    let other = board.standing(NOW + 400, &terms(), "p", "other");
    assert_eq!(other.availability, Availability::Skipped(Skip::Open { ms_left: 600 }));
}

#[test]
fn all_is_well_only_while_nothing_speaks_against_anybody() {
    let calm = |board: &Board, at: u64| board.is_calm(at, &terms(), &["p", "q"]);
    let mut known = Board::default();
    assert!(calm(&known, NOW), "of whom nothing is known nothing speaks against");
    known.observe(NOW, &terms(), &seen(NOW, None), NO_JITTER);
    assert!(calm(&known, NOW));
    let mut failed = known.clone();
    failed.observe(NOW, &terms(), &seen(NOW, Some(Fault::ServerError)), NO_JITTER);
    assert!(!calm(&failed, NOW) && failed.is_calm(NOW, &terms(), &["q"]));
    assert!(calm(&failed, NOW + 600_000), "it is forgotten");
    for fault in [Fault::RateLimited, Fault::Unreachable, Fault::Auth] {
        assert!(!calm(&board(fault, 3), NOW));
    }
    let share = |remaining| Some(Share { limit: 100, remaining, reset_ms: Some(60_000) });
    for (remaining, expected) in [(50, true), (10, false)] {
        let headroom = Headroom { requests: share(remaining), ..Headroom::default() };
        let told = Observation { headroom: Some(headroom), ..seen(NOW, None) };
        let mut scarce = known.clone();
        scarce.observe(NOW, &terms(), &told, NO_JITTER);
        assert_eq!(calm(&scarce, NOW), expected, "{remaining} of 100 left");
    }
}

#[test]
fn a_refused_credential_is_told_at_once_and_by_its_name() {
    let mut board = Board::default();
    let told = board.observe(NOW, &terms(), &seen(NOW, Some(Fault::Auth)), NO_JITTER);
    let expected = Transition {
        subject: Subject::new("p", None),
        from: Condition::Closed,
        to: Condition::Open,
        fault: Some(Fault::Auth),
        at: NOW,
        until: Some(NOW + 1_000),
    };
    assert_eq!(told, [expected]);
    assert!(board.take_changed() && !board.take_changed());
    assert_eq!(availability(&board, NOW), Availability::Skipped(Skip::AuthFailed { ms_left: 1_000 }));
}

#[test]
fn an_empty_account_is_left_alone_and_told_once() {
    let mut board = Board::default();
    let mut told = board.observe(NOW, &terms(), &seen(NOW, Some(Fault::QuotaExhausted)), 0);
    told.extend(board.observe(NOW + 1, &terms(), &seen(NOW + 1, Some(Fault::QuotaExhausted)), 0));
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].to, told[0].subject.deployment.as_deref()), (Condition::CoolingDown, None));
    assert_eq!(availability(&board, NOW + 1), Availability::Skipped(Skip::QuotaExhausted { ms_left: 8_000 }));
    assert_eq!(availability(&board, NOW + 8_001), Availability::Ready);
}

#[test]
fn a_429_that_does_not_say_how_long_looks_at_the_headers() {
    let mut board = Board::default();
    let requests = Some(Share { limit: 10, remaining: 0, reset_ms: Some(2_500) });
    let headroom = Some(Headroom { requests, ..Headroom::default() });
    board.observe(NOW, &terms(), &Observation { headroom, ..seen(NOW, Some(Fault::RateLimited)) }, 0);
    assert_eq!(availability(&board, NOW), Availability::Skipped(Skip::CoolingDown { ms_left: 2_500 }));
    let mut board = Board::default();
    board.observe(NOW, &terms(), &seen(NOW, Some(Fault::RateLimited)), 0);
    assert_eq!(availability(&board, NOW), Availability::Skipped(Skip::CoolingDown { ms_left: 1_000 }));
}

#[test]
fn nothing_left_of_a_limit_is_a_pause_until_the_next_is_there() {
    let mut board = Board::default();
    let tokens = Some(Share { limit: 10, remaining: 0, reset_ms: Some(7_000) });
    let headroom = Some(Headroom { tokens, ..Headroom::default() });
    board.observe(NOW, &terms(), &Observation { headroom, ..seen(NOW, None) }, 0);
    assert_eq!(availability(&board, NOW + 100), Availability::Skipped(Skip::NoHeadroom { ms_left: 600 }));
    assert_eq!(availability(&board, NOW + 700), Availability::Ready);
}

#[test]
fn a_provider_that_somebody_took_out_gets_nothing_until_it_is_back() {
    let mut board = Board::default();
    let manual = |state, until| Manual { state, until };
    board.set_manual("p", manual(ManualState::Draining, None));
    assert_eq!(availability(&board, NOW), Availability::Skipped(Skip::Draining));
    board.set_manual("p", manual(ManualState::Maintenance, Some(NOW + 10)));
    assert_eq!(availability(&board, NOW + 9), Availability::Skipped(Skip::Maintenance));
    assert!(board.observe(NOW + 9, &terms(), &seen(NOW + 9, Some(Fault::Auth)), 0).is_empty());
    assert_eq!(availability(&board, NOW + 10), Availability::Ready);
    board.set_manual("p", Manual::default());
    assert!(board.take_changed());
    assert_eq!(availability(&board, NOW), Availability::Ready);
}

#[test]
fn what_must_survive_survives() {
    let mut open = board(Fault::ServerError, 3);
    open.observe(NOW, &terms(), &Observation { retry_after_ms: Some(9_000), ..seen(NOW, Some(Fault::RateLimited)) }, 0);
    open.set_manual("q", Manual { state: ManualState::Draining, until: None });
    let stored = serde_json::to_string(&open.stored(NOW, &terms())).unwrap();
    let restored = Board::restore(NOW + 500, serde_json::from_str(&stored).unwrap());
    assert_eq!(availability(&restored, NOW + 500), Availability::Skipped(Skip::Open { ms_left: 500 }));
    assert_eq!(availability(&restored, NOW + 5_000), Availability::Skipped(Skip::CoolingDown { ms_left: 4_000 }));
    let drained = restored.standing(NOW, &terms(), "q", "m").availability;
    assert_eq!(drained, Availability::Skipped(Skip::Draining));
    assert_eq!(Board::default().stored(NOW, &terms()), Stored::default());
    assert_eq!(serde_json::from_str::<Stored>("{}").unwrap(), Stored::default());
}

#[test]
fn somebodys_hand_closes_what_is_open() {
    let mut board = board(Fault::Auth, 1);
    let told = board.reset(NOW + 1, "p");
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].from, told[0].to, told[0].fault), (Condition::Open, Condition::Closed, None));
    assert_eq!(availability(&board, NOW + 1), Availability::Ready);
    assert!(board.reset(NOW + 1, "unknown").is_empty());
}

#[test]
fn a_board_for_people_tells_everything() {
    let mut board = board(Fault::ServerError, 3);
    board.observe(NOW, &terms(), &Observation { first_token_ms: Some(250), ..seen(NOW, None) }, 0);
    let states = board.states(NOW + 10, &terms());
    assert_eq!(states.len(), 2);
    let model = &states[1];
    assert_eq!(model.subject, Subject::new("p", Some("m")));
    assert_eq!(
        (model.breaker, model.open_until, model.fault),
        (State::Open, Some(NOW + 1_000), Some(Fault::ServerError))
    );
    assert_eq!((model.usual_ms, model.error_permille > 0, model.openings), (Some(250), true, 1));
}

#[test]
fn a_snapshot_takes_the_place_of_what_an_isolate_thought_and_what_is_not_reported_goes_on_top() {
    let mut isolate = board(Fault::ServerError, 3);
    let mut gauge = board(Fault::ServerError, 2);
    // The gauge's clock is 5 seconds behind.
    let snapshot = gauge.snapshot(NOW - 5_000, &terms(), "i", &[]);
    let snapshot: Snapshot = serde_json::from_str(&serde_json::to_string(&snapshot).unwrap()).unwrap();
    isolate.adopt(NOW + 20, &terms(), NOW, &snapshot, [], 0);
    assert_eq!(availability(&isolate, NOW + 20), Availability::Ready);
    let unreported = seen(NOW + 10, Some(Fault::ServerError));
    isolate.adopt(NOW + 20, &terms(), NOW, &snapshot, [&unreported], NO_JITTER);
    assert_eq!(availability(&isolate, NOW + 20), Availability::Skipped(Skip::Open { ms_left: 1_000 }));
    assert_eq!(isolate.age_ms(NOW + 30, "p"), Some(10));
}

#[test]
fn an_isolate_that_has_nobody_to_ask_tries_one_at_a_time() {
    let mut isolate = board(Fault::ServerError, 3);
    let now = NOW + 1_000;
    assert_eq!(availability(&isolate, now), Availability::Trial);
    assert!(isolate.take_trial(now, "p", "m"));
    assert!(!isolate.take_trial(now, "p", "m"));
    assert_eq!(availability(&isolate, now), Availability::Skipped(Skip::HalfOpen));
    isolate.observe(now + 10, &terms(), &Observation { trial: true, ..seen(now + 10, None) }, 0);
    assert!(isolate.take_trial(now + 10, "p", "m"));
    isolate.observe(now + 20, &terms(), &Observation { trial: true, ..seen(now + 20, None) }, 0);
    assert_eq!(
        standing(&isolate, now + 20).weight_permille,
        50,
        "a tenth, as it starts slowly, and less as it has failed"
    );
    assert!(standing(&isolate, now + 20).slow_start);
}

#[test]
fn an_isolate_that_knows_its_gauge_asks_it_first() {
    let mut gauge = board(Fault::ServerError, 3);
    let mut isolate = Board::default();
    let now = NOW + 1_000;
    let snapshot = gauge.snapshot(now, &terms(), "i", &[]);
    isolate.adopt(now, &terms(), now, &snapshot, [], 0);
    assert_eq!(availability(&isolate, now), Availability::Skipped(Skip::HalfOpen));
    assert!(isolate.wants(now, &["p"]).is_empty());
    isolate.want_trial(now, "p", "m");
    let wants = isolate.wants(now, &["p"]);
    assert_eq!(wants.len(), 1);
    let snapshot = gauge.snapshot(now, &terms(), "i", &wants);
    isolate.adopt(now, &terms(), now, &snapshot, [], 0);
    assert!(isolate.take_trial(now, "p", "m"));
    isolate.adopt(now + 1, &terms(), now, &snapshot, [], 0);
    assert!(!isolate.take_trial(now + 1, "p", "m"), "a permit is used once");
    let other = gauge.snapshot(now + 1, &terms(), "j", &wants);
    assert_eq!(other.providers["p"].deployments["m"].permits.len(), 1, "the other one");
    let third = gauge.snapshot(now + 1, &terms(), "k", &wants);
    assert_eq!(third.providers["p"].deployments["m"].permits, []);
    isolate.unanswered(now + 2, &["p"]);
    isolate.observe(now + 3, &terms(), &Observation { trial: true, ..seen(now + 3, None) }, 0);
    assert_eq!(availability(&isolate, now + 5_001), Availability::Skipped(Skip::HalfOpen));
    assert_eq!(availability(&isolate, now + 5_002), Availability::Trial, "it goes on alone");
}

#[test]
fn weights_follow_latency_only_where_they_are_to() {
    let with = |usual_ms| Standing { usual_ms, ..Standing::UNKNOWN };
    let standings = [with(Some(200)), with(Some(400)), with(Some(800)), with(Some(100_000)), with(None)];
    assert_eq!(weights(&standings, false), [1_000; 5]);
    assert_eq!(weights(&standings, true), [1_000, 1_000, 500, 250, 1_000]);
    assert_eq!(weights(&[with(Some(300)), with(Some(600))], true), [1_000, 500]);
    assert_eq!(weights(&[with(None), with(Some(0))], true), [1_000; 2]);
    assert_eq!(weights(&[], true), [0; 0]);
}

#[test]
fn a_board_does_not_grow_for_ever() {
    let mut board = Board::default();
    for nth in 0..ENTRIES {
        board.observe(NOW, &terms(), &Observation { deployment: format!("m{nth}"), ..seen(NOW, None) }, 0);
    }
    board.observe(NOW + 1, &terms(), &Observation { provider: "q".into(), ..seen(NOW, None) }, 0);
    assert!(board.states(NOW, &terms()).len() <= ENTRIES);
    assert_eq!(board.standing(NOW + 1, &terms(), "q", "m").weight_permille, 1_000);
    let snapshot = board.snapshot(NOW + 2 * IDLE_MS, &terms(), "i", &[]);
    assert!(snapshot.providers.is_empty());
}

const INNOCENT: [Fault; 6] = [
    Fault::BadRequest,
    Fault::ContextLength,
    Fault::ContentPolicy,
    Fault::ClientClosed,
    Fault::ProviderLimit,
    Fault::Gateway,
];

proptest! {
    #[test]
    fn what_is_nobodys_fault_changes_nothing(
        faults in proptest::collection::vec((0_u64..100, proptest::sample::select(INNOCENT.to_vec()), any::<bool>()), 1..200),
    ) {
        let (mut board, mut now) = (Board::default(), NOW);
        for (wait, fault, trial) in faults {
            now += wait;
            let told = board.observe(now, &terms(), &Observation { trial, ..seen(now, Some(fault)) }, 0);
            prop_assert_eq!(told, []);
            let Standing { availability, weight_permille, .. } = standing(&board, now);
            prop_assert_eq!((availability, weight_permille), (Availability::Ready, 1_000));
        }
    }

    /// However many there are, in whatever order and how often they are told: to the millisecond as long as the provider
    /// said.
    #[test]
    fn a_429_is_a_pause_for_exactly_as_long_as_told(
        told in proptest::collection::vec((0_u64..5_000, 1_u64..20_000, 1_usize..3), 1..20),
    ) {
        let mut board = Board::default();
        let until = told.iter().map(|(at, wait, _)| NOW + at + wait).max().unwrap();
        for (at, wait, times) in told {
            let limited = Observation { retry_after_ms: Some(wait), ..seen(NOW + at, Some(Fault::RateLimited)) };
            for _ in 0..times {
                board.observe(NOW + 5_000, &terms(), &limited, 0);
            }
        }
        if until > NOW + 5_000 {
            let last = Availability::Skipped(Skip::CoolingDown { ms_left: 1 });
            prop_assert_eq!(availability(&board, until - 1), last);
        }
        prop_assert_eq!(availability(&board, until.max(NOW + 5_000)), Availability::Ready);
        prop_assert_eq!(standing(&board, until.max(NOW + 5_000)).weight_permille, 1_000);
    }

    #[test]
    fn a_report_that_comes_twice_does_not_leave_anything_alone_for_longer(
        faults in proptest::collection::vec((0_u64..400, 0_usize..19), 1..40),
    ) {
        // Each alone can open or pause; the second telling must not lengthen what the first has led to.
        for (_, nth) in &faults {
            let told = Observation { retry_after_ms: Some(500), ..seen(NOW, Some(Fault::ALL[*nth])) };
            let mut once = Board::default();
            once.observe(NOW, &terms(), &told, NO_JITTER);
            let mut twice = once.clone();
            twice.observe(NOW + 1, &terms(), &told, NO_JITTER);
            prop_assert_eq!(availability(&once, NOW + 1), availability(&twice, NOW + 1));
        }
    }
}

#[test]
fn a_gauge_that_knows_nothing_has_been_heard_of_all_the_same() {
    let mut isolate = Board::default();
    assert_eq!(isolate.age_ms(NOW, "p"), None);
    let snapshot = Snapshot { now: NOW, providers: [("p".to_owned(), ProviderSnapshot::default())].into() };
    isolate.adopt(NOW + 5, &terms(), NOW, &snapshot, [], 0);
    assert_eq!(isolate.age_ms(NOW + 25, "p"), Some(20));
    assert_eq!(isolate.standing(NOW + 25, &terms(), "p", "m").heard_ms_ago, Some(20));
    isolate.adopt(NOW + IDLE_MS + 5, &terms(), NOW, &Snapshot::default(), [], 0);
    assert_eq!(isolate.age_ms(NOW + IDLE_MS + 5, "p"), None, "it is forgotten like everything idle");
}
