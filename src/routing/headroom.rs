//! What a provider's headers say of its own limits.

use serde::{Deserialize, Serialize};

use super::portion;

/// The names of all headers that this module looks at, in lower case.
pub const READ: &[&str] = &[
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-tokens-limit",
    "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-tokens-reset",
    "anthropic-ratelimit-input-tokens-limit",
    "anthropic-ratelimit-input-tokens-remaining",
    "anthropic-ratelimit-input-tokens-reset",
    "anthropic-ratelimit-output-tokens-limit",
    "anthropic-ratelimit-output-tokens-remaining",
    "anthropic-ratelimit-output-tokens-reset",
];

/// What is left of a provider's own limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headroom {
    /// Of its limit on requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Share>,
    /// Of its limit on tokens: of the scarcest, if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Share>,
    /// Of its limit on input tokens, where they have one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<Share>,
    /// Of its limit on output tokens, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<Share>,
}

/// What is left of one limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The limit.
    pub limit: u64,
    /// What is left of it.
    pub remaining: u64,
    /// After how many milliseconds it is whole again. A share of which nobody says so holds for the moment alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_ms: Option<u64>,
}

impl Headroom {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Longer than this, in milliseconds, nothing is believed to last: a day.
const LONGEST_MS: u64 = 86_400_000;

/// Reads the headers of a reply; `header` gives one by its name in lower case, `now_ms` is Unix milliseconds.
pub fn read(header: &dyn Fn(&str) -> Option<String>, now_ms: u64) -> Headroom {
    let openai = |what: &str| {
        let name = |part: &str| header(&format!("x-ratelimit-{part}-{what}"));
        share(name("limit"), name("remaining"), name("reset"), now_ms)
    };
    let anthropic = |what: &str| {
        let name = |part: &str| header(&format!("anthropic-ratelimit-{what}-{part}"));
        share(name("limit"), name("remaining"), name("reset"), now_ms)
    };
    let (input_tokens, output_tokens) = (anthropic("input-tokens"), anthropic("output-tokens"));
    let tokens = [anthropic("tokens"), input_tokens, output_tokens, openai("tokens")].into_iter().flatten();
    Headroom {
        requests: anthropic("requests").or_else(|| openai("requests")),
        tokens: tokens.min_by_key(|share| portion(1_000_000, share.remaining, share.limit)),
        input_tokens,
        output_tokens,
    }
}

/// How long the provider asks to wait, in milliseconds: `retry-after-ms`, or `retry-after` in seconds or as a date. Longer
/// than a day is taken for a day.
pub fn retry_after_ms(header: &dyn Fn(&str) -> Option<String>, now_ms: u64) -> Option<u64> {
    let millis = header("retry-after-ms").and_then(|text| decimal(text.trim(), 1));
    let wait = millis.or_else(|| {
        let text = header("retry-after")?;
        let text = text.trim();
        decimal(text, 1_000).or_else(|| Some(http_date(text)?.saturating_sub(now_ms)))
    });
    wait.map(|millis| millis.min(LONGEST_MS))
}

/// One share, if the headers tell what it needs.
fn share(limit: Option<String>, remaining: Option<String>, reset: Option<String>, now_ms: u64) -> Option<Share> {
    let number = |text: Option<String>| decimal(text?.trim(), 1);
    let (limit, remaining) = (number(limit)?, number(remaining)?);
    let reset_ms = reset.and_then(|reset| {
        let reset = reset.trim();
        duration(reset).or_else(|| Some(rfc3339(reset)?.saturating_sub(now_ms)))
    });
    let reset_ms = reset_ms.map(|millis| millis.min(LONGEST_MS));
    (limit > 0).then_some(Share { limit, remaining: remaining.min(limit), reset_ms })
}

/// A decimal such as `12` or `0.5`, times a unit, rounded up.
fn decimal(text: &str, unit: u64) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 15 || !digits(whole) || !digits(part) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let part = part.get(..part.len().min(9))?;
    let scale = 10_u64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let parts: u64 = if part.is_empty() { 0 } else { part.parse().ok()? };
    let rest = u128::from(parts).saturating_mul(u128::from(unit)).div_ceil(u128::from(scale.max(1)));
    Some(whole.saturating_mul(unit).saturating_add(u64::try_from(rest).unwrap_or(u64::MAX)))
}

/// A duration such as `12ms`, `6m0s`, `1h2m3.5s` or `2d`; a number alone is seconds.
fn duration(text: &str) -> Option<u64> {
    if let Some(millis) = decimal(text, 1_000) {
        return Some(millis);
    }
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))?;
        let (number, after) = rest.split_at_checked(number)?;
        let unit = after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit)?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            // Less than a millisecond is none that anybody waits for.
            "us" | "µs" | "ns" => 0,
            _ => return None,
        };
        total = total.saturating_add(decimal(number, unit_ms)?);
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// A time such as `2026-01-31T12:00:00Z` or `2026-01-31T12:00:00.250+02:00` (RFC 3339), in Unix milliseconds.
fn rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.splitn(3, '-');
    let day = days(number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?)?;
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(zone)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let fraction = decimal(&format!("0.{fraction}"), 1_000)?;
    let local = day.saturating_mul(LONGEST_MS).saturating_add(clock_ms(clock)?).saturating_add(fraction);
    let mut letters = zone.chars();
    let sign = letters.next()?;
    let offset = match letters.as_str() {
        "" => 0,
        offset => clock_ms(&format!("{offset}:00"))?,
    };
    match sign {
        '+' => local.checked_sub(offset),
        '-' => local.checked_add(offset),
        _ => Some(local),
    }
}

/// A date such as `Sat, 31 Jan 2026 12:00:00 GMT` (RFC 9110, section 5.6.7), in Unix milliseconds.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let mut parts = rest.split(' ');
    let day = number(parts.next()?)?;
    let month = parts.next()?;
    let month = MONTHS.iter().position(|name| *name == month)?.checked_add(1)?;
    let day = days(number(parts.next()?)?, u64::try_from(month).ok()?, day)?;
    let clock = clock_ms(parts.next()?)?;
    (parts.next()? == "GMT").then(|| day.saturating_mul(LONGEST_MS).saturating_add(clock))
}

fn number(text: &str) -> Option<u64> {
    (text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// `12:34:56` in milliseconds.
fn clock_ms(text: &str) -> Option<u64> {
    let mut parts = text.splitn(3, ':');
    let (hours, minutes, seconds) = (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
    let seconds = hours.saturating_mul(3_600).saturating_add(minutes.saturating_mul(60)).saturating_add(seconds);
    Some(seconds.saturating_mul(1_000))
}

/// Days from 1970-01-01 to a day from there on.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Howard Hinnant's `days_from_civil`: years that begin in March put the leap day last.
    let year = year.checked_sub(u64::from(month <= 2))?;
    let from_march = month.saturating_add(9).rem_euclid(12);
    let of_year = from_march.saturating_mul(153).saturating_add(2).div_euclid(5).saturating_add(day.saturating_sub(1));
    let leaps = year.div_euclid(4).saturating_sub(year.div_euclid(100)).saturating_add(year.div_euclid(400));
    year.saturating_mul(365).saturating_add(leaps).saturating_add(of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-01-31T12:00:00Z.
    const NOON: u64 = 1_769_860_800_000;

    fn reply(headers: &[(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        let headers = headers.to_vec();
        move |name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn openais_headers_are_read() {
        let header = reply(&[
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-remaining-requests", "9999"),
            ("x-ratelimit-reset-requests", "8.64s"),
            ("x-ratelimit-limit-tokens", "200000"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ]);
        let requests = Share { limit: 10_000, remaining: 9_999, reset_ms: Some(8_640) };
        let tokens = Share { limit: 200_000, remaining: 0, reset_ms: Some(360_000) };
        let expected = Headroom { requests: Some(requests), tokens: Some(tokens), ..Headroom::default() };
        assert_eq!(read(&header, NOON), expected);
    }

    #[test]
    fn of_anthropics_limits_on_tokens_the_scarcest_counts() {
        let header = reply(&[
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-requests-reset", "2026-01-31T12:00:01Z"),
            ("anthropic-ratelimit-tokens-limit", "100000"),
            ("anthropic-ratelimit-tokens-remaining", "50000"),
            ("anthropic-ratelimit-tokens-reset", "2026-01-31T12:00:30Z"),
            ("anthropic-ratelimit-output-tokens-limit", "8000"),
            ("anthropic-ratelimit-output-tokens-remaining", "1000"),
            ("anthropic-ratelimit-output-tokens-reset", "2026-01-31T13:01:00.500+01:00"),
        ]);
        let requests = Some(Share { limit: 50, remaining: 49, reset_ms: Some(1_000) });
        let tokens = Some(Share { limit: 8_000, remaining: 1_000, reset_ms: Some(60_500) });
        assert_eq!(read(&header, NOON), Headroom { requests, tokens, input_tokens: None, output_tokens: tokens });
    }

    #[test]
    fn what_is_incomplete_or_nonsense_says_nothing() {
        for headers in [
            &[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "1s")][..],
            &[("x-ratelimit-limit-requests", "10"), ("x-ratelimit-reset-requests", "1s")],
            &[
                ("x-ratelimit-limit-requests", "0"),
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", "1s"),
            ],
            &[
                ("x-ratelimit-limit-requests", "-1"),
                ("x-ratelimit-remaining-requests", "-1"),
                ("x-ratelimit-reset-requests", "1s"),
            ],
        ] {
            assert!(read(&reply(headers), NOON).is_empty(), "{headers:?}");
        }
    }

    #[test]
    fn a_limit_need_not_say_when_it_is_whole_again() {
        let told = [("x-ratelimit-limit-requests", "9"), ("x-ratelimit-remaining-requests", "1")];
        let soon = [told.as_slice(), &[("x-ratelimit-reset-requests", "soon")]].concat();
        for headers in [told.as_slice(), &soon] {
            let requests = Some(Share { limit: 9, remaining: 1, reset_ms: None });
            assert_eq!(read(&reply(headers), NOON), Headroom { requests, ..Headroom::default() });
        }
    }

    #[test]
    fn how_long_to_wait_is_read_in_every_form() {
        let wait = |headers: &[(&'static str, &'static str)]| retry_after_ms(&reply(headers), NOON);
        assert_eq!(wait(&[("retry-after-ms", "1234.5"), ("retry-after", "9")]), Some(1_235));
        assert_eq!(wait(&[("retry-after", "50")]), Some(50_000));
        assert_eq!(wait(&[("retry-after", "0.25")]), Some(250));
        assert_eq!(wait(&[("retry-after", "Sat, 31 Jan 2026 12:00:07 GMT")]), Some(7_000));
        assert_eq!(wait(&[("retry-after", "Sat, 31 Jan 2026 11:00:00 GMT")]), Some(0));
        assert_eq!(wait(&[("retry-after", "99999999")]), Some(LONGEST_MS));
        assert_eq!(wait(&[("retry-after", "never")]), None);
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn durations_are_read() {
        let all =
            [("12ms", 12), ("6m0s", 360_000), ("1h2m3.5s", 3_723_500), ("2d", 172_800_000), ("7.66", 7_660), ("0s", 0)];
        for (text, millis) in all {
            assert_eq!(duration(text), Some(millis), "{text}");
        }
        for text in ["", "s", "1", "1x", "1.2.3s", "1h2", "é"] {
            assert!(text == "1" || duration(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_are_read_as_they_are_written(seconds in 0_u64..4_000_000_000, millis in 0_u64..1_000) {
            let at = seconds.saturating_mul(1_000).saturating_add(millis);
            prop_assert_eq!(rfc3339(&crate::gateway::limit_headers::rfc3339(at)), Some(at));
        }

        #[test]
        fn any_text_is_read(text in "\\PC{0,24}") {
            let header = |_: &str| Some(text.clone());
            read(&header, NOON);
            retry_after_ms(&header, NOON);
        }
    }
}
