//! Tells when a limit has been used up so far, or will be before its period ends: each once in a period.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ask::RuleState;
use super::calendar::span;
use super::rule::{Dimension, Period, Scope};

/// Rules that are remembered at most.
const MOST_RULES: usize = 5_000;

/// Percent of a period that must be over before anything is foretold.
const FORETELL_FROM: u64 = 5;

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What has happened.
    #[serde(flatten)]
    pub news: News,
    /// The rule.
    pub rule_id: String,
    /// For whom it holds.
    pub scope: Scope,
    /// The subject's id.
    pub subject: String,
    /// Its model.
    pub model: Option<String>,
    /// What is limited.
    pub dimension: Dimension,
    /// Over which time.
    pub period: Period,
    /// When the period began, in Unix milliseconds.
    pub period_start: u64,
    /// How much is used, reservations left out.
    pub used: u64,
    /// How much may be used.
    pub limit: u64,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum News {
    /// So much of it is used.
    Crossing {
        /// Percent of the limit.
        threshold: u8,
    },
    /// At this pace it will be exceeded.
    Forecast {
        /// When, in Unix milliseconds.
        exceeds_at: u64,
    },
}

/// What has been told. Kept in storage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Watch {
    told: BTreeMap<String, Told>,
    #[serde(skip)]
    changed: bool,
}

/// What has been told of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Told {
    /// In the period that began then.
    #[serde(rename = "s")]
    start: u64,
    /// The thresholds that are crossed.
    #[serde(rename = "c", skip_serializing_if = "Vec::is_empty")]
    crossed: Vec<u8>,
    /// Whether it was foretold.
    #[serde(rename = "f", skip_serializing_if = "std::ops::Not::not")]
    foretold: bool,
}

impl Watch {
    /// Looks at rules of calendar periods; all others are left out. A threshold that is no longer crossed, because the
    /// limit was raised, can be crossed again.
    pub fn look(&mut self, now: u64, states: &[RuleState], thresholds: &[u8]) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for state in states {
            let calendar = matches!(state.period, Period::Day | Period::Week | Period::Month | Period::Total);
            if !calendar || state.limit == 0 {
                continue;
            }
            let span = span(state.period, now);
            let used = state.used.saturating_sub(state.reserved);
            let name = format!("{}/{}", state.rule_id, state.subject);
            let before = self.told.get(&name).filter(|told| told.start == span.start).cloned();
            let mut told = before.clone().unwrap_or(Told { start: span.start, ..Told::default() });
            let is_crossed = |threshold: &u8| is_crossed(used, state.limit, *threshold);
            told.crossed.retain(is_crossed);
            let mut news = Vec::new();
            for threshold in thresholds.iter().filter(|threshold| is_crossed(threshold)) {
                if !told.crossed.contains(threshold) {
                    told.crossed.push(*threshold);
                    news.push(News::Crossing { threshold: *threshold });
                }
            }
            if !told.foretold
                && let Some(exceeds_at) = foretell(now, span.start, span.end, used, state.limit)
            {
                told.foretold = true;
                news.push(News::Forecast { exceeds_at });
            }
            if before.unwrap_or(Told { start: span.start, ..Told::default() }) != told {
                self.told.insert(name, told);
                self.changed = true;
            }
            alerts.extend(news.into_iter().map(|news| Alert {
                news,
                rule_id: state.rule_id.clone(),
                scope: state.scope,
                subject: state.subject.clone(),
                model: state.model.clone(),
                dimension: state.dimension,
                period: state.period,
                period_start: span.start,
                used,
                limit: state.limit,
            }));
        }
        while self.told.len() > MOST_RULES {
            let oldest = self.told.iter().min_by_key(|(name, told)| (told.start, name.as_str()));
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
            self.told.remove(&oldest);
        }
        alerts
    }

    /// Whether it is to be stored again.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}

/// Whether so many percent of a limit are used.
fn is_crossed(used: u64, limit: u64, threshold: u8) -> bool {
    let part = |amount: u64, of: u64| u128::from(amount).saturating_mul(u128::from(of));
    part(used, 100) >= part(limit, u64::from(threshold))
}

/// When a limit will be exceeded if the rest of the period goes on as it began; `None` if it will not be, or is already.
fn foretell(now: u64, start: u64, end: u64, used: u64, limit: u64) -> Option<u64> {
    let (elapsed, length) = (now.saturating_sub(start), end.saturating_sub(start));
    let is_early = elapsed.saturating_mul(100) < length.saturating_mul(FORETELL_FROM);
    if end == u64::MAX || is_early || used == 0 || used >= limit {
        return None;
    }
    let until = u128::from(elapsed).saturating_mul(u128::from(limit)).div_ceil(u128::from(used));
    let exceeds_at = start.saturating_add(u64::try_from(until).ok()?);
    (exceeds_at < end).then_some(exceeds_at)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::arithmetic_side_effects, reason = "small numbers")]

    use super::super::calendar::DAY_MS;
    use super::super::rule::LimitMode;
    use super::*;
    use proptest::prelude::*;

    const ALL: [u8; 4] = [50, 80, 95, 100];

    fn state(period: Period, limit: u64, used: u64, reserved: u64) -> RuleState {
        RuleState {
            rule_id: "r".into(),
            scope: Scope::Account,
            subject: "a".into(),
            model: None,
            dimension: Dimension::Cost,
            period,
            mode: LimitMode::Enforce,
            limit,
            used,
            reserved,
            remaining: 0,
            reset_ms: 0,
        }
    }

    fn crossings(watch: &mut Watch, now: u64, state: RuleState) -> Vec<u8> {
        let alerts = watch.look(now, &[state], &ALL).into_iter();
        alerts
            .filter_map(|alert| if let News::Crossing { threshold } = alert.news { Some(threshold) } else { None })
            .collect()
    }

    #[test]
    fn a_threshold_is_told_once_in_a_period_and_again_when_the_limit_was_raised() {
        let mut watch = Watch::default();
        let at = |used| state(Period::Day, 1_000, used, 0);
        assert!(crossings(&mut watch, 10, at(499)).is_empty() && !watch.take_changed());
        assert!(
            crossings(&mut watch, 10, state(Period::Day, 1_000, 600, 101)).is_empty(),
            "reservations are no spending"
        );
        assert_eq!(crossings(&mut watch, 11, at(500)), [50]);
        assert!(watch.take_changed());
        assert!(crossings(&mut watch, 12, at(501)).is_empty() && !watch.take_changed());
        assert_eq!(crossings(&mut watch, 12, at(960)), [80, 95]);
        assert_eq!(crossings(&mut watch, 13, state(Period::Day, 1_500, 960, 0)), [0_u8; 0]);
        let mut watch: Watch = serde_json::from_str(&serde_json::to_string(&watch).unwrap()).unwrap();
        assert_eq!(crossings(&mut watch, 14, state(Period::Day, 1_500, 1_500, 0)), [80, 95, 100]);
        assert_eq!(crossings(&mut watch, DAY_MS, at(500)), [50]);
        assert_eq!(crossings(&mut watch, DAY_MS, state(Period::Minute, 10, 10, 0)), [0_u8; 0]);
    }

    #[test]
    fn what_will_be_exceeded_is_foretold_once() {
        let mut watch = Watch::default();
        let mut look = |now, used| {
            let alerts = watch.look(now, &[state(Period::Day, 1_000, used, 0)], &[]);
            alerts.first().map(|alert| alert.news)
        };
        assert_eq!(look(DAY_MS / 20 - 1, 900), None, "too early to tell");
        assert_eq!(look(DAY_MS / 2, 500), None, "it will be just enough");
        assert_eq!(look(DAY_MS / 2, 501), Some(News::Forecast { exceeds_at: 86_227_545 }));
        assert_eq!(look(DAY_MS / 2, 800), None);
        assert_eq!(look(DAY_MS + DAY_MS / 2, 1_000), None, "it is used up already");
        assert_eq!(look(DAY_MS + DAY_MS / 2, 0), None);
        assert_eq!(watch.look(DAY_MS, &[state(Period::Total, 1_000, 501, 0)], &[]), []);
    }

    proptest! {
        #[test]
        fn each_threshold_is_told_once_while_usage_grows(steps in proptest::collection::vec(0..200_u64, 1..40), limit in 1..2_000_u64) {
            let (mut watch, mut used, mut told) = (Watch::default(), 0, Vec::new());
            for step in steps {
                used += step;
                told.extend(crossings(&mut watch, 5, state(Period::Month, limit, used, 0)));
                let expected: Vec<u8> = ALL.iter().copied().filter(|t| used * 100 >= limit * u64::from(*t)).collect();
                prop_assert_eq!(&told, &expected);
            }
        }
    }
}
