//! What reply headers say of limits, in the words of OpenAI's and Anthropic's APIs.

use crate::billing::Nanodollars;
use crate::config::Disclose;
use crate::error::Dialect;
use crate::limits::ask::RuleState;
use crate::limits::rule::{Dimension, LimitMode, Scope};
use crate::routing::headroom::{Headroom, Share};

/// One header: its name and its value.
pub type Header = (&'static str, String);

const OPENAI_REQUESTS: [&str; 3] =
    ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
const OPENAI_TOKENS: [&str; 3] =
    ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
const ANTHROPIC_REQUESTS: [&str; 3] = [
    "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
];
const ANTHROPIC_TOKENS: [&str; 3] =
    ["anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"];
const ANTHROPIC_INPUT_TOKENS: [&str; 3] = [
    "anthropic-ratelimit-input-tokens-limit",
    "anthropic-ratelimit-input-tokens-remaining",
    "anthropic-ratelimit-input-tokens-reset",
];
const ANTHROPIC_OUTPUT_TOKENS: [&str; 3] = [
    "anthropic-ratelimit-output-tokens-limit",
    "anthropic-ratelimit-output-tokens-remaining",
    "anthropic-ratelimit-output-tokens-reset",
];

/// Whether callers are told of a limit of this scope.
pub fn is_disclosed(scope: Scope, disclose: Disclose) -> bool {
    match (disclose, scope) {
        // Whose credential the provider limits is not the caller's business.
        (Disclose::None, _) | (_, Scope::Provider) => false,
        (Disclose::All, _) => true,
        (Disclose::Own, scope) => matches!(scope, Scope::Key | Scope::User),
    }
}

/// The headers for these states of limits; `now` is in Unix milliseconds. Of several limits of the same kind the tightest
/// is told: the one with the smallest share left.
pub fn headers(states: &[RuleState], disclose: Disclose, dialect: Dialect, now: u64) -> Vec<Header> {
    let shown: Vec<&RuleState> =
        states.iter().filter(|state| state.mode == LimitMode::Enforce && is_disclosed(state.scope, disclose)).collect();
    let tightest = |dimensions: &[Dimension]| {
        shown.iter().copied().filter(|state| dimensions.contains(&state.dimension)).min_by(|a, b| share(a, b))
    };
    let all_tokens = [Dimension::TotalTokens, Dimension::InputTokens, Dimension::OutputTokens];
    let mut headers = Vec::new();
    let openai = [(tightest(&[Dimension::Requests]), OPENAI_REQUESTS), (tightest(&all_tokens), OPENAI_TOKENS)];
    for (state, names) in openai {
        if let Some(state) = state {
            headers.extend(three(names, state, duration(state.reset_ms)));
        }
    }
    if dialect == Dialect::Anthropic {
        let anthropic = [
            (tightest(&[Dimension::Requests]), ANTHROPIC_REQUESTS),
            (tightest(&all_tokens), ANTHROPIC_TOKENS),
            (tightest(&[Dimension::InputTokens]), ANTHROPIC_INPUT_TOKENS),
            (tightest(&[Dimension::OutputTokens]), ANTHROPIC_OUTPUT_TOKENS),
        ];
        for (state, names) in anthropic {
            if let Some(state) = state {
                headers.extend(three(names, state, reset_at(now, state.reset_ms)));
            }
        }
    }
    let budget = shown.iter().filter(|state| state.dimension == Dimension::Cost).map(|state| state.remaining).min();
    headers.extend(budget.map(|nanos| ("x-gateway-budget-remaining", Nanodollars(nanos).to_string())));
    headers
}

/// The headers for what the provider has said of its own limits, where the gateway has none of that kind that holds: what
/// its own say is what the caller can go by. `now` is in Unix milliseconds.
pub fn of_provider(
    left: &Headroom,
    states: &[RuleState],
    disclose: Disclose,
    dialect: Dialect,
    now: u64,
) -> Vec<Header> {
    if disclose == Disclose::None {
        return Vec::new();
    }
    let is_ours = |dimensions: &[Dimension]| {
        let mut enforced = states.iter().filter(|state| state.mode == LimitMode::Enforce);
        enforced.any(|state| state.scope != Scope::Provider && dimensions.contains(&state.dimension))
    };
    let requests = is_ours(&[Dimension::Requests]);
    let tokens = is_ours(&[Dimension::TotalTokens, Dimension::InputTokens, Dimension::OutputTokens]);
    let mut headers = Vec::new();
    let mut tell = |names: [&'static str; 3], share: Share, reset: Option<String>| {
        let told = [Some(share.limit.to_string()), Some(share.remaining.to_string()), reset];
        headers.extend(names.into_iter().zip(told).filter_map(|(name, value)| Some((name, value?))));
    };
    for (share, is_ours, openai, anthropic) in [
        (left.requests, requests, Some(OPENAI_REQUESTS), ANTHROPIC_REQUESTS),
        (left.tokens, tokens, Some(OPENAI_TOKENS), ANTHROPIC_TOKENS),
        (left.input_tokens, tokens, None, ANTHROPIC_INPUT_TOKENS),
        (left.output_tokens, tokens, None, ANTHROPIC_OUTPUT_TOKENS),
    ] {
        let Some(share) = share.filter(|_| !is_ours) else { continue };
        if let Some(openai) = openai {
            tell(openai, share, share.reset_ms.map(duration));
        }
        if dialect == Dialect::Anthropic {
            tell(anthropic, share, share.reset_ms.map(|reset_ms| reset_at(now, reset_ms)));
        }
    }
    headers
}

/// When a limit is whole again: whole seconds, as Anthropic writes them, and never before the time.
fn reset_at(now: u64, reset_ms: u64) -> String {
    rfc3339(now.saturating_add(reset_ms).div_ceil(1_000).saturating_mul(1_000))
}

fn three(names: [&'static str; 3], state: &RuleState, reset: String) -> impl Iterator<Item = Header> {
    names.into_iter().zip([state.limit.to_string(), state.remaining.to_string(), reset])
}

/// Compares the shares that are left, exactly; where they are equal, the smaller remainder counts.
fn share(a: &RuleState, b: &RuleState) -> std::cmp::Ordering {
    let part = |of: &RuleState, whole: &RuleState| {
        // A limit of nothing has nothing left.
        if of.limit == 0 { 0 } else { u128::from(of.remaining).saturating_mul(u128::from(whole.limit.max(1))) }
    };
    part(a, b).cmp(&part(b, a)).then(a.remaining.cmp(&b.remaining))
}

/// A duration as OpenAI writes it: `12ms`, `1.5s`, `6m0s`, `1h0m0s`.
pub fn duration(millis: u64) -> String {
    if millis < 1_000 {
        return format!("{millis}ms");
    }
    let (seconds, fraction) = (millis / 1_000, millis % 1_000);
    let seconds_in_minute = seconds % 60;
    let tail = match fraction {
        0 => format!("{seconds_in_minute}s"),
        fraction => format!("{seconds_in_minute}.{}s", format!("{fraction:03}").trim_end_matches('0')),
    };
    match (seconds / 3_600, seconds / 60 % 60) {
        (0, 0) => tail,
        (0, minutes) => format!("{minutes}m{tail}"),
        (hours, minutes) => format!("{hours}h{minutes}m{tail}"),
    }
}

/// A time in Unix milliseconds as RFC 3339 writes it, in UTC: `2026-11-23T05:38:38Z`, with milliseconds where there are
/// any.
pub fn rfc3339(millis: u64) -> String {
    let seconds = millis / 1_000;
    // Days are counted from 0000-03-01, so that leap days come last in a year of this calendar.
    let days = (seconds / 86_400).saturating_add(719_468);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let without_leap_days = day_of_era
        .saturating_sub(day_of_era / 1_460)
        .saturating_add(day_of_era / 36_524)
        .saturating_sub(day_of_era / 146_096);
    let year_of_era = without_leap_days / 365;
    let year_begins = year_of_era.saturating_mul(365).saturating_add(year_of_era / 4).saturating_sub(year_of_era / 100);
    let day_of_year = day_of_era.saturating_sub(year_begins);
    let month_from_march = day_of_year.saturating_mul(5).saturating_add(2) / 153;
    let month_begins = month_from_march.saturating_mul(153).saturating_add(2) / 5;
    let day = day_of_year.saturating_sub(month_begins).saturating_add(1);
    let (month, later) = match month_from_march {
        0..=9 => (month_from_march.saturating_add(3), 0),
        _ => (month_from_march.saturating_sub(9), 1),
    };
    let year = era.saturating_mul(400).saturating_add(year_of_era).saturating_add(later);
    let fraction = match millis % 1_000 {
        0 => String::new(),
        millis => format!(".{millis:03}"),
    };
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::rule::Period;

    fn state(scope: Scope, dimension: Dimension, limit: u64, remaining: u64) -> RuleState {
        RuleState {
            rule_id: "r".into(),
            scope,
            subject: "s".into(),
            model: None,
            dimension,
            period: Period::Minute,
            mode: LimitMode::Enforce,
            limit,
            used: limit.saturating_sub(remaining),
            reserved: 0,
            remaining,
            reset_ms: 1_500,
        }
    }

    fn told(states: &[RuleState], disclose: Disclose, dialect: Dialect) -> Vec<String> {
        let headers = headers(states, disclose, dialect, 500);
        headers.into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn a_providers_limits_are_told_where_the_gateway_has_none() {
        let share = |limit| Some(Share { limit, remaining: 1, reset_ms: Some(1_500) });
        let left = Headroom { requests: share(10), tokens: share(20), output_tokens: share(20), ..Headroom::default() };
        let of = |left: &Headroom, states: &[RuleState], disclose, dialect| {
            let headers = of_provider(left, states, disclose, dialect, 500);
            headers.into_iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
        };
        let told = |states: &[RuleState], disclose, dialect| of(&left, states, disclose, dialect);
        let requests =
            ["x-ratelimit-limit-requests: 10", "x-ratelimit-remaining-requests: 1", "x-ratelimit-reset-requests: 1.5s"];
        let tokens =
            ["x-ratelimit-limit-tokens: 20", "x-ratelimit-remaining-tokens: 1", "x-ratelimit-reset-tokens: 1.5s"];
        assert_eq!(told(&[], Disclose::All, Dialect::OpenAi), [requests, tokens].concat());
        let ours =
            [state(Scope::Account, Dimension::Requests, 5, 5), state(Scope::Provider, Dimension::TotalTokens, 5, 5)];
        // Also where callers are not told of ours: another's would lead them astray.
        assert_eq!(told(&ours, Disclose::Own, Dialect::OpenAi), tokens);
        let output = [state(Scope::Key, Dimension::OutputTokens, 5, 5)];
        assert_eq!(told(&output, Disclose::All, Dialect::OpenAi), requests);
        assert_eq!(told(&[], Disclose::None, Dialect::Anthropic), Vec::<String>::new());
        let both = told(&[], Disclose::All, Dialect::Anthropic);
        assert!(both.contains(&"anthropic-ratelimit-tokens-reset: 1970-01-01T00:00:02Z".to_owned()), "{both:?}");
        assert!(both.contains(&"anthropic-ratelimit-output-tokens-limit: 20".to_owned()), "{both:?}");
        assert_eq!(both.len(), 15);
        let endless = Some(Share { limit: 9, remaining: 3, reset_ms: None });
        let left = Headroom { requests: endless, ..Headroom::default() };
        let lines = of(&left, &[], Disclose::All, Dialect::OpenAi);
        assert_eq!(lines, ["x-ratelimit-limit-requests: 9", "x-ratelimit-remaining-requests: 3"]);
    }

    #[test]
    fn the_tightest_limit_of_each_kind_is_told() {
        let states = [
            state(Scope::Key, Dimension::Requests, 100, 50),
            state(Scope::Account, Dimension::Requests, 1_000, 400),
            state(Scope::User, Dimension::TotalTokens, 10, 0),
            state(Scope::User, Dimension::OutputTokens, 10, 1),
            state(Scope::Account, Dimension::Cost, 5_000_000_000, 1_250_000_000),
            state(Scope::Key, Dimension::Cost, 900_000_000_000, 2_000_000_000),
            state(Scope::Provider, Dimension::Requests, 100, 1),
            RuleState { mode: LimitMode::Shadow, ..state(Scope::Key, Dimension::Requests, 100, 0) },
        ];
        assert_eq!(
            told(&states, Disclose::All, Dialect::OpenAi),
            [
                "x-ratelimit-limit-requests: 1000",
                "x-ratelimit-remaining-requests: 400",
                "x-ratelimit-reset-requests: 1.5s",
                "x-ratelimit-limit-tokens: 10",
                "x-ratelimit-remaining-tokens: 0",
                "x-ratelimit-reset-tokens: 1.5s",
                "x-gateway-budget-remaining: 1.25",
            ]
        );
        let anthropic = told(&states, Disclose::All, Dialect::Anthropic);
        for line in [
            "anthropic-ratelimit-requests-remaining: 400",
            "anthropic-ratelimit-requests-reset: 1970-01-01T00:00:02Z",
            "anthropic-ratelimit-tokens-limit: 10",
            "anthropic-ratelimit-output-tokens-remaining: 1",
        ] {
            assert!(anthropic.iter().any(|told| told == line), "{line} in {anthropic:?}");
        }
        assert!(!anthropic.iter().any(|line| line.contains("input-tokens")));
    }

    #[test]
    fn only_what_a_caller_may_know_is_told() {
        let states = [
            state(Scope::Key, Dimension::Requests, 100, 50),
            state(Scope::Account, Dimension::Requests, 1_000, 4),
            state(Scope::Account, Dimension::Cost, 5, 4),
        ];
        let own = told(&states, Disclose::Own, Dialect::OpenAi);
        assert_eq!((own.len(), own[0].as_str()), (3, "x-ratelimit-limit-requests: 100"));
        assert!(told(&states, Disclose::None, Dialect::Anthropic).is_empty());
    }

    #[test]
    fn a_limit_of_nothing_is_the_tightest() {
        let states = [state(Scope::Key, Dimension::Requests, 5, 1), state(Scope::User, Dimension::Requests, 0, 0)];
        assert_eq!(told(&states, Disclose::All, Dialect::OpenAi)[0], "x-ratelimit-limit-requests: 0");
    }

    #[test]
    fn durations_are_written_as_openai_does() {
        let written = [0, 12, 999, 1_000, 1_020, 59_999, 60_000, 360_000, 3_600_000, 90_061_500].map(duration);
        assert_eq!(written, ["0ms", "12ms", "999ms", "1s", "1.02s", "59.999s", "1m0s", "6m0s", "1h0m0s", "25h1m1.5s"]);
    }

    #[test]
    fn times_are_written_in_utc() {
        let days = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (951_868_800_000, "2000-03-01T00:00:00Z"),
            (1_798_761_599_000, "2026-12-31T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
            (4_107_456_000_000, "2100-02-28T00:00:00Z"),
        ];
        for (millis, text) in days {
            assert_eq!(rfc3339(millis), text);
        }
    }
}
