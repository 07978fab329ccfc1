//! Which provider answers a request, and what happens when one fails: pure state machines that isolates and gauges keep.
//!
//! - [`outcome`]: how an attempt can fail, and whose fault that is
//! - [`headroom`]: what a provider's headers say of its own limits
//! - [`breaker`]: closed, open, half-open; [`trials`]: who may try a half-open one
//! - [`vitals`]: what is known of the health of one model or provider
//! - [`board`]: all of it together, as an isolate and a gauge keep it, and how the two agree
//! - [`traits`]: what is known of a request; [`tree`]: a route's targets, put in order by [`strategy`], [`conditions`] and
//!   what callers are kept [`sticky`] by
//! - [`attempts`]: what is done about an attempt that failed; [`budget`]: how many further attempts there may be
//! - [`in_flight`]: what an isolate has open
//! - [`window`]: counts over a span of time that slides

pub mod attempts;
pub mod board;
pub mod breaker;
pub mod budget;
pub mod conditions;
pub mod headroom;
pub mod in_flight;
pub mod outcome;
pub mod score;
#[cfg(test)]
mod simulation;
pub mod sticky;
pub mod strategy;
#[cfg(test)]
mod testing;
pub mod traits;
pub mod tree;
pub mod trials;
pub mod vitals;
pub mod window;

/// A time on a clock that shows `to` where the one it was read from shows `from`.
fn shifted(at: u64, from: u64, to: u64) -> u64 {
    if to >= from { at.saturating_add(to.saturating_sub(from)) } else { at.saturating_sub(from.saturating_sub(to)) }
}

/// `part` of `whole`, times `amount`; everything if there is no whole.
fn portion(amount: u64, part: u64, whole: u64) -> u64 {
    if let Some(product) = amount.checked_mul(part) {
        return product.checked_div(whole).unwrap_or(amount);
    }
    let portion = u128::from(amount).saturating_mul(u128::from(part)).checked_div(u128::from(whole));
    portion.map_or(amount, |portion| u64::try_from(portion).unwrap_or(u64::MAX))
}
