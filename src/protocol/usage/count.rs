//! Counts as providers send them: numbers mostly, but anything can come.

use serde_json::Value;

/// The largest count: beyond it numbers are not exact in JavaScript, nor does anybody use so much.
pub(super) const MOST: u64 = 1 << 53;

/// A count at a JSON pointer. What is not whole is rounded up, and what is too large is the largest count. A number in a
/// string counts; a negative one, or anything else, does not.
pub(super) fn count(value: &Value, pointer: &str) -> Option<u64> {
    let float = |float: f64| match float {
        _ if float >= MOST as f64 => Some(MOST),
        _ if float >= 0.0 => Some(float.ceil() as u64),
        _ => None,
    };
    match value.pointer(pointer)? {
        Value::Number(number) => number.as_u64().map(|n| n.min(MOST)).or_else(|| float(number.as_f64()?)),
        Value::String(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => float(digits.parse().ok()?),
        _ => None,
    }
}

/// The first count that is there.
pub(super) fn first(value: &Value, pointers: &[&str]) -> Option<u64> {
    pointers.iter().find_map(|pointer| count(value, pointer))
}

/// A sum of money in dollars, as nano-dollars. It is told and never charged, so it may come from a fraction.
pub(super) fn dollars(value: &Value, pointer: &str) -> Option<u64> {
    let nanos = value.pointer(pointer)?.as_f64()? * 1e9;
    (0.0..MOST as f64).contains(&nanos).then_some(nanos.round() as u64)
}
