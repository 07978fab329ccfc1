#![expect(clippy::arithmetic_side_effects, reason = "small numbers")]

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_000_000;

fn policy() -> Policy {
    Policy::new(&Routing::default(), None, None)
}

fn failed(fault: Fault, others: bool) -> Failed {
    Failed { fault, retry_after_ms: None, others, named: false }
}

/// What is done about the first attempt's fault.
fn first(policy: Policy, failed: Failed) -> Next {
    Attempts::new(policy, None).next(NOW, failed, &mut Budget::default(), 0)
}

#[test]
fn each_fault_has_its_own_remedy() {
    let (other, same) = (Next::Other, Next::Same { wait_ms: 0 });
    let (last, none) = (Next::Stop(Why::Final), Next::Stop(Why::Candidates));
    for (fault, with_others, alone) in [
        (Fault::Unreachable, other, same),
        (Fault::Reset, other, same),
        (Fault::Stalled, other, same),
        (Fault::Cut, other, same),
        (Fault::BadReply, other, same),
        (Fault::ServerError, other, same),
        (Fault::Overloaded, other, same),
        (Fault::RateLimited, other, same),
        (Fault::TooSlow, other, none),
        (Fault::QuotaExhausted, other, none),
        (Fault::Auth, other, none),
        (Fault::ModelNotFound, other, none),
        (Fault::ProviderLimit, other, none),
        (Fault::ContextLength, other, none),
        (Fault::ContentPolicy, last, last),
        (Fault::TimedOut, last, last),
        (Fault::BadRequest, last, last),
        (Fault::ClientClosed, last, last),
        (Fault::Gateway, last, last),
    ] {
        assert_eq!(first(policy(), failed(fault, true)), with_others, "{fault:?}");
        assert_eq!(first(policy(), failed(fault, false)), alone, "{fault:?}");
    }
}

#[test]
fn another_provider_may_be_tried_with_content_that_one_refuses() {
    let elsewhere = Policy { content_policy: ContentPolicy::OtherProvider, ..policy() };
    assert_eq!(first(elsewhere.clone(), failed(Fault::ContentPolicy, true)), Next::Other);
    assert_eq!(first(elsewhere, failed(Fault::ContentPolicy, false)), Next::Stop(Why::Candidates));
}

#[test]
fn a_route_says_what_is_tried_again() {
    let only = Policy::new(&Routing::default(), Some(1), Some(&[Fault::Overloaded, Fault::BadRequest]));
    assert_eq!(first(only.clone(), failed(Fault::ServerError, true)), Next::Stop(Why::Final));
    assert_eq!(first(only.clone(), failed(Fault::BadRequest, true)), Next::Stop(Why::Final), "nothing helps with that");
    assert_eq!(first(only, failed(Fault::Overloaded, true)), Next::Stop(Why::Attempts));
}

#[test]
fn a_provider_that_says_how_long_to_wait_is_waited_for_unless_it_is_too_long() {
    let after = |millis| Failed { retry_after_ms: Some(millis), ..failed(Fault::RateLimited, false) };
    assert_eq!(first(policy(), after(5_000)), Next::Same { wait_ms: 5_000 });
    assert_eq!(first(policy(), after(5_001)), Next::Stop(Why::TooLong));
    assert_eq!(first(policy(), Failed { others: true, ..after(60_000) }), Next::Other);
    let mut hurried = Attempts::new(policy(), Some(NOW + 3_000));
    assert_eq!(hurried.next(NOW, after(3_000), &mut Budget::default(), 0), Next::Stop(Why::Deadline));
    assert_eq!(hurried.next(NOW, after(2_999), &mut Budget::default(), 0), Next::Same { wait_ms: 2_999 });
}

#[test]
fn pauses_are_anything_up_to_a_bound_that_doubles() {
    let patient = Policy { max_attempts: 10, ..policy() };
    let mut attempts = Attempts::new(patient, None);
    let mut bounds = Vec::new();
    for _ in 1..10 {
        let Next::Same { wait_ms } = attempts.clone().next(NOW, failed(Fault::Reset, false), &mut Budget::default(), 0)
        else {
            panic!("it is tried again");
        };
        assert_eq!(wait_ms, 0);
        let most = (0..6_000).map(|random| {
            match attempts.clone().next(NOW, failed(Fault::Reset, false), &mut Budget::default(), random) {
                Next::Same { wait_ms } => wait_ms,
                other => panic!("{other:?}"),
            }
        });
        bounds.push(most.max().unwrap());
        attempts.next(NOW, failed(Fault::Reset, false), &mut Budget::default(), 0);
    }
    assert_eq!(bounds, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
}

#[test]
fn what_the_gateway_itself_held_back_is_no_attempt() {
    let mut attempts = Attempts::new(policy(), None);
    let mut spent = Budget::default();
    let none = Policy { allowance: Allowance { share_percent: 0, floor: 0 }, ..policy() };
    assert_eq!(first(none, failed(Fault::ProviderLimit, true)), Next::Other);
    for _ in 0..20 {
        assert_eq!(attempts.next(NOW, failed(Fault::ProviderLimit, true), &mut spent, 0), Next::Other);
    }
    assert_eq!(attempts.made, 1);
}

#[test]
fn a_budget_that_is_used_up_refuses() {
    let allowance = Allowance { share_percent: 20, floor: 2 };
    let mut budget = Budget::default();
    let stingy = || Attempts::new(Policy { allowance, ..policy() }, None);
    for expected in [Next::Other, Next::Other, Next::Stop(Why::Budget)] {
        assert_eq!(stingy().next(NOW, failed(Fault::Reset, true), &mut budget, 0), expected);
    }
    for _ in 0..15 {
        budget.request(NOW);
    }
    assert_eq!(stingy().next(NOW, failed(Fault::Reset, true), &mut budget, 0), Next::Other, "3 of 15 are 20 %");
    assert_eq!(stingy().next(NOW, failed(Fault::Reset, true), &mut budget, 0), Next::Stop(Why::Budget));
    let later = NOW + super::super::budget::SPAN_MS;
    assert_eq!(stingy().next(later, failed(Fault::Reset, true), &mut budget, 0), Next::Other);
}

#[test]
fn those_that_the_route_names_for_a_fault_are_tried_whatever_is_said_of_it() {
    let none = || Policy { retry_on: Vec::new(), ..policy() };
    for fault in [Fault::ContentPolicy, Fault::BadRequest, Fault::RateLimited] {
        assert_eq!(first(none(), failed(fault, true)), Next::Stop(Why::Final));
        assert_eq!(first(none(), Failed { named: true, ..failed(fault, true) }), Next::Other);
        assert_eq!(first(none(), Failed { named: true, ..failed(fault, false) }), Next::Stop(Why::Final));
    }
    let once = Policy { max_attempts: 1, ..policy() };
    let named = Failed { named: true, ..failed(Fault::ContentPolicy, true) };
    assert_eq!(first(once, named), Next::Stop(Why::Attempts));
}

proptest! {
    #[test]
    fn attempts_end_and_nobody_waits_past_the_deadline(
        faults in proptest::collection::vec((0_usize..19, any::<bool>(), proptest::option::of(0_u64..10_000), any::<u64>()), 1..60),
        max_attempts in 1_u64..=10, deadline in 0_u64..20_000,
    ) {
        let policy = Policy { max_attempts, ..policy() };
        let mut attempts = Attempts::new(policy.clone(), Some(NOW + deadline));
        let (mut budget, mut now) = (Budget::default(), NOW);
        for (fault, others, retry_after_ms, random) in faults {
            let failed = Failed { fault: Fault::ALL[fault], retry_after_ms, others, named: false };
            match attempts.next(now, failed, &mut budget, random) {
                Next::Same { wait_ms } => {
                    prop_assert!(!others && failed.fault.may_pass());
                    prop_assert!(wait_ms >= retry_after_ms.unwrap_or(0) && wait_ms <= policy.max_wait_ms.max(policy.max_backoff_ms));
                    now += wait_ms;
                }
                Next::Other => prop_assert!(others),
                Next::Stop(_) => break,
            }
            prop_assert!(now < NOW + deadline && attempts.made <= max_attempts);
        }
    }

    /// An outage in which every request fails every time: the load stays within what is allowed.
    #[test]
    fn an_outage_does_not_multiply_the_load(
        waits in proptest::collection::vec(0_u64..300, 100..600), share_percent in 0_u64..=100, floor in 0_u64..20,
    ) {
        let allowance = Allowance { share_percent, floor };
        let policy = Policy { allowance, max_attempts: 10, ..policy() };
        let (mut budget, mut now) = (Budget::default(), NOW);
        let (mut requests, mut retries) = (Vec::new(), Vec::new());
        for wait in waits {
            now += wait;
            budget.request(now);
            requests.push(now);
            let before = retries.len();
            let mut attempts = Attempts::new(policy.clone(), None);
            while attempts.next(now, failed(Fault::ServerError, true), &mut budget, 0) == Next::Other {
                retries.push(now);
            }
            // A tenth of the time that is looked back at is what the counts may be out of date by.
            let lately = |all: &[u64], span: u64| all.iter().filter(|at| **at + span > now).count() as u64;
            let allowed = floor.max(lately(&requests, 11_000) * share_percent / 100);
            prop_assert!(retries.len() == before || lately(&retries, 9_000) <= allowed);
        }
    }
}
