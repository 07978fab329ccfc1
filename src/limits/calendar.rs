//! Calendar periods in UTC, by integer arithmetic on Unix milliseconds.

use super::rule::Period;

/// Milliseconds in a day.
pub const DAY_MS: u64 = 86_400_000;

/// Days from the era's begin, 0000-03-01, to 1970-01-01.
const EPOCH: u64 = 719_468;

/// Days in 400 years.
const ERA: u64 = 146_097;

/// A stretch of time, from `start` until just before `end`, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first millisecond.
    pub start: u64,
    /// The first millisecond after it; `u64::MAX` for never.
    pub end: u64,
}

/// The calendar period that a moment lies in: a day, a week from Monday on, a month. Everything else is one period that
/// never ends.
pub fn span(period: Period, at_ms: u64) -> Span {
    let day = at_ms / DAY_MS;
    let days = |from: u64, to: u64| Span { start: from.saturating_mul(DAY_MS), end: to.saturating_mul(DAY_MS) };
    match period {
        Period::Day => days(day, day.saturating_add(1)),
        Period::Week => {
            // Day 0 was a Thursday: the first week began three days before time does.
            let monday = (day.saturating_add(3) / 7).saturating_mul(7);
            days(monday.saturating_sub(3), monday.saturating_add(4))
        }
        Period::Month => {
            let (year, month, _) = date(day);
            let next = if month == 12 { (year.saturating_add(1), 1) } else { (year, month.saturating_add(1)) };
            days(day_number(year, month, 1), day_number(next.0, next.1, 1))
        }
        Period::Second | Period::Minute | Period::Hour | Period::Total | Period::None => {
            Span { start: 0, end: u64::MAX }
        }
    }
}

/// Year, month and day of the month of a day counted from 1970-01-01. Years are counted from March on, so that the day
/// that leap years add is a year's last.
fn date(day: u64) -> (u64, u64, u64) {
    let day = day.saturating_add(EPOCH);
    let (era, in_era) = (day / ERA, day % ERA);
    // Without the leap days that have been: one after each four years but not after a hundred, yet after 400.
    let leap_days = (in_era / 1_460).saturating_add(in_era / 146_096).saturating_sub(in_era / 36_524);
    let year_of_era = in_era.saturating_sub(leap_days) / 365;
    let before = days_before_year(year_of_era);
    let in_year = in_era.saturating_sub(before);
    // March to July, August to December and January have the same pattern of 153 days in five months.
    let from_march = in_year.saturating_mul(5).saturating_add(2) / 153;
    let in_month = in_year.saturating_sub(days_before_month(from_march)).saturating_add(1);
    let month = if from_march < 10 { from_march.saturating_add(3) } else { from_march.saturating_sub(9) };
    let year = era.saturating_mul(400).saturating_add(year_of_era).saturating_add(u64::from(month <= 2));
    (year, month, in_month)
}

/// The day of a date, counted from 1970-01-01. Days before that are day 0.
fn day_number(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let from_march = if month > 2 { month.saturating_sub(3) } else { month.saturating_add(9) };
    (year / 400)
        .saturating_mul(ERA)
        .saturating_add(days_before_year(year % 400))
        .saturating_add(days_before_month(from_march))
        .saturating_add(day.saturating_sub(1))
        .saturating_sub(EPOCH)
}

fn days_before_year(year_of_era: u64) -> u64 {
    year_of_era.saturating_mul(365).saturating_add(year_of_era / 4).saturating_sub(year_of_era / 100)
}

fn days_before_month(from_march: u64) -> u64 {
    from_march.saturating_mul(153).saturating_add(2) / 5
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn day_of(year: u64, month: u64, day: u64) -> u64 {
        let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let months = |year| [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let years: u64 = (1970..year).map(|year| months(year).iter().sum::<u64>()).sum();
        let months: u64 = months(year).iter().take(usize::try_from(month).unwrap().saturating_sub(1)).sum();
        [years, months, day.saturating_sub(1)].iter().sum()
    }

    #[test]
    fn months_end_when_the_calendar_says_so() {
        for (at, start, end) in [
            ((2024, 2, 29), (2024, 2), (2024, 3)),
            ((2023, 2, 28), (2023, 2), (2023, 3)),
            ((2000, 2, 29), (2000, 2), (2000, 3)),
            ((2100, 2, 28), (2100, 2), (2100, 3)),
            ((2025, 12, 31), (2025, 12), (2026, 1)),
            ((2026, 1, 1), (2026, 1), (2026, 2)),
            ((1970, 1, 1), (1970, 1), (1970, 2)),
        ] {
            let first = |(year, month)| day_of(year, month, 1).checked_mul(DAY_MS).unwrap();
            let noon = day_of(at.0, at.1, at.2).checked_mul(DAY_MS).unwrap().checked_add(DAY_MS / 2).unwrap();
            assert_eq!(span(Period::Month, noon), Span { start: first(start), end: first(end) }, "{at:?}");
        }
    }

    #[test]
    fn a_week_begins_on_monday_and_crosses_years() {
        // 2026-01-01 is a Thursday.
        let at = day_of(2026, 1, 1).checked_mul(DAY_MS).unwrap();
        let (monday, next) = (day_of(2025, 12, 29), day_of(2026, 1, 5));
        let days = |days: u64| days.checked_mul(DAY_MS).unwrap();
        assert_eq!(span(Period::Week, at), Span { start: days(monday), end: days(next) });
        assert_eq!(span(Period::Week, days(next).checked_sub(1).unwrap()).end, days(next));
        assert_eq!(span(Period::Week, days(next)).start, days(next));
        assert_eq!(span(Period::Week, 5), Span { start: 0, end: days(4) });
    }

    #[test]
    fn every_day_of_four_centuries_has_its_date() {
        let mut day = 0;
        for year in 1970..2371_u64 {
            for month in 1..=12 {
                let days = day_of(year, month, 1).abs_diff(if month == 12 {
                    day_of(year.checked_add(1).unwrap(), 1, 1)
                } else {
                    day_of(year, month.checked_add(1).unwrap(), 1)
                });
                for in_month in 1..=days {
                    assert_eq!(date(day), (year, month, in_month));
                    assert_eq!(day_number(year, month, in_month), day);
                    day = day.checked_add(1).unwrap();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_moment_lies_in_its_period_and_periods_follow_each_other(at in 0..4_102_444_800_000_u64) {
            for period in [Period::Day, Period::Week, Period::Month] {
                let span = span(period, at);
                prop_assert!(span.start <= at && at < span.end);
                prop_assert_eq!(super::span(period, span.end).start, span.end);
                prop_assert_eq!(super::span(period, span.start), span);
            }
            prop_assert_eq!(span(Period::Total, at), Span { start: 0, end: u64::MAX });
        }
    }
}
