#![expect(clippy::arithmetic_side_effects, reason = "small numbers")]

use super::*;
use proptest::prelude::*;

const PERIOD: u64 = 1_000;

/// Events as they were admitted: when, and how much.
fn admit(window: &mut Window, limit: u64, exact: bool, asks: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let (mut now, mut admitted) = (0, Vec::new());
    for (wait, asked) in asks {
        now += wait;
        window.prune(PERIOD, now);
        if window.room(PERIOD, now, limit, *asked).is_ok() {
            let stamp = window.stamp(PERIOD, now, exact);
            window.add(stamp, *asked);
            admitted.push((now, *asked));
        }
    }
    admitted
}

fn in_window(events: &[(u64, u64)], from: u64, to: u64) -> u64 {
    events.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, amount)| amount).sum()
}

#[test]
fn a_request_is_counted_for_exactly_a_period() {
    let mut window = Window::default();
    window.add(window.stamp(PERIOD, 7, true), 1);
    assert_eq!((window.used(PERIOD, 7), window.used(PERIOD, 1_006), window.used(PERIOD, 1_007)), (1, 1, 0));
    assert_eq!(window.room(PERIOD, 7, 1, 1), Err(Some(1_007)));
    assert_eq!((window.room(PERIOD, 7, 1, 2), window.room(PERIOD, 7, 0, 0)), (Err(None), Err(None)));
    assert_eq!(window.empty_at(PERIOD), 1_007);
    window.adjust(7, 1, 0);
    assert_eq!(window.room(PERIOD, 7, 1, 1), Ok(()));
}

#[test]
fn a_log_that_is_never_refused_anything_stays_short() {
    let mut window = Window::default();
    for at in 0..100_000 {
        window.prune(60_000, at);
        let stamp = window.stamp(60_000, at, true);
        window.add(stamp, 1);
        assert!(window.entries.len() <= LOG_ENTRIES + 65 + 1);
        assert!(window.used(60_000, at) >= at.min(60_000));
    }
}

proptest! {
    #[test]
    fn no_window_ever_holds_more_than_the_limit(
        limit in 1..20_u64, exact: bool, asks in proptest::collection::vec((0..400_u64, 1..9_u64), 1..80)
    ) {
        let admitted = admit(&mut Window::default(), limit, exact, &asks);
        for (at, _) in &admitted {
            prop_assert!(in_window(&admitted, *at, at + PERIOD) <= limit);
            prop_assert!(in_window(&admitted, (at + 1).saturating_sub(PERIOD), at + 1) <= limit);
        }
    }

    #[test]
    fn room_comes_at_the_very_millisecond_that_was_said(
        limit in 1..20_u64, exact: bool, asks in proptest::collection::vec((0..400_u64, 1..9_u64), 1..40), asked in 1..25_u64
    ) {
        let mut window = Window::default();
        admit(&mut window, limit, exact, &asks);
        let now = asks.iter().map(|(wait, _)| wait).sum();
        match window.room(PERIOD, now, limit, asked) {
            Ok(()) => prop_assert!(window.used(PERIOD, now) + asked <= limit),
            Err(None) => prop_assert!(asked > limit),
            Err(Some(until)) => {
                prop_assert!(until > now);
                prop_assert!(window.room(PERIOD, until, limit, asked).is_ok());
                prop_assert_eq!(window.room(PERIOD, until - 1, limit, asked), Err(Some(until)));
            }
        }
        prop_assert_eq!(window.used(PERIOD, window.empty_at(PERIOD)), 0);
    }

    #[test]
    fn slots_count_never_less_and_at_most_one_slot_more(
        events in proptest::collection::vec((0..100_u64, 1..9_u64), 1..80), later in 0..1_500_u64
    ) {
        let (mut window, mut at, mut all) = (Window::default(), 0, Vec::new());
        for (wait, amount) in events {
            at += wait;
            window.add(window.stamp(PERIOD, at, false), amount);
            all.push((at, amount));
        }
        let now = at + later;
        let from = (now + 1).saturating_sub(PERIOD);
        let slot = PERIOD.div_ceil(SLOTS);
        let border = from / slot * slot;
        let used = window.used(PERIOD, now);
        prop_assert!(used >= in_window(&all, from, now + 1));
        prop_assert!(used <= in_window(&all, border, now + 1));
    }

    #[test]
    fn a_stored_window_counts_as_before_and_order_does_not_matter(
        events in proptest::collection::vec((0..3_000_u64, 1..9_u64, 0..9_u64), 0..40), now in 0..4_000_u64
    ) {
        let (mut one, mut other) = (Window::default(), Window::default());
        for (at, reserved, _) in &events {
            one.add(*at, *reserved);
        }
        one.prune(PERIOD, now);
        for (at, reserved, actual) in &events {
            one.adjust(*at, *reserved, *actual);
        }
        for (at, _, actual) in events.iter().rev() {
            other.add(*at, *actual);
        }
        let stored: Window = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
        for later in [now, now + 300, now + 999] {
            prop_assert_eq!(one.used(PERIOD, later), other.used(PERIOD, later));
            prop_assert_eq!(stored.room(PERIOD, later, 50, 9), other.room(PERIOD, later, 50, 9));
        }
    }
}
