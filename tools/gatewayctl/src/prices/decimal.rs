//! Decimal numbers as JSON has them, read exactly: a price never passes through a binary fraction.

/// A number that has been read, in steps of a power of ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steps {
    /// How many steps, rounded half up.
    pub(super) steps: u64,
    /// Whether nothing was lost in rounding.
    pub(super) exact: bool,
}

/// Reads a JSON number that is not negative, in steps of `10^-places`. `None` if it is none, or too large.
pub(super) fn read(text: &str, places: i64) -> Option<Steps> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: String = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // The digits are a whole number of `10^-written`, of which `10^shift` make a step.
    let written = i64::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    let shift = usize::try_from(written.checked_sub(places)?.unsigned_abs()).ok()?;
    let significant = digits.trim_start_matches('0');
    if written <= places {
        let zeros = if significant.is_empty() { 0 } else { shift };
        let padded: String = significant.chars().chain(std::iter::repeat_n('0', zeros.min(30))).collect();
        let steps = if padded.is_empty() { 0 } else { padded.parse().ok()? };
        return Some(Steps { steps, exact: true });
    }
    let (kept, lost) = match significant.len().checked_sub(shift) {
        Some(at) => significant.split_at_checked(at)?,
        // All of it lies behind the last place, none of it in the first one behind.
        None => return Some(Steps { steps: 0, exact: significant.is_empty() }),
    };
    let kept: u64 = if kept.is_empty() { 0 } else { kept.parse().ok()? };
    let up = lost.starts_with(['5', '6', '7', '8', '9']);
    Some(Steps { steps: kept.checked_add(u64::from(up))?, exact: lost.bytes().all(|byte| byte == b'0') })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let pico = |text: &str| read(text, 12).map(|it| (it.steps, it.exact));
        assert_eq!(pico("1.25e-07"), Some((125_000, true)));
        assert_eq!(pico("3e-06"), Some((3_000_000, true)));
        assert_eq!(pico("0.000015"), Some((15_000_000, true)));
        assert_eq!(pico("0.0"), Some((0, true)));
        assert_eq!(pico("0"), Some((0, true)));
        assert_eq!(pico("1"), Some((1_000_000_000_000, true)));
        assert_eq!(pico("5.5E+1"), Some((55_000_000_000_000, true)));
        assert_eq!(pico("1.0000000000004"), Some((1_000_000_000_000, false)));
        assert_eq!(pico("5e-13"), Some((1, false)));
        assert_eq!(pico("4.9e-13"), Some((0, false)));
        assert_eq!(pico("1e-14"), Some((0, false)));
        assert_eq!(pico("2.50e-06"), Some((2_500_000, true)));
        for wrong in ["-1e-6", "", ".", "1e", "\"1\"", "null", "1e99", "1.2.3"] {
            assert_eq!(pico(wrong), None, "{wrong}");
        }
    }
}
