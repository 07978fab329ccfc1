//! What a request uses of everything that can be limited but connections.

use serde::{Deserialize, Serialize};

use super::rule::Dimension;

pub use crate::billing::AskPrices;

/// Counts of requests and tokens, and money. Stored as an array.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u64, u64)", into = "(u64, u64, u64, u64)")]
pub struct Amounts {
    /// Requests.
    pub requests: u64,
    /// Input tokens, cached ones included.
    pub input: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
    /// Nano-dollars.
    pub cost: u64,
}

impl From<(u64, u64, u64, u64)> for Amounts {
    fn from((requests, input, output, cost): (u64, u64, u64, u64)) -> Self {
        Self { requests, input, output, cost }
    }
}

impl From<Amounts> for (u64, u64, u64, u64) {
    fn from(amounts: Amounts) -> Self {
        (amounts.requests, amounts.input, amounts.output, amounts.cost)
    }
}

impl Amounts {
    /// How much of a dimension; concurrency is no amount and counts as nothing here.
    pub fn of(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::Requests => self.requests,
            Dimension::InputTokens => self.input,
            Dimension::OutputTokens => self.output,
            Dimension::TotalTokens => self.input.saturating_add(self.output),
            Dimension::Cost => self.cost,
            Dimension::Concurrency => 0,
        }
    }

    /// Whether there is nothing.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// What is left without the other; nothing becomes negative.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    /// The smaller of both, part by part.
    #[must_use]
    pub fn at_most(&self, other: &Self) -> Self {
        self.each(other, u64::min)
    }

    /// So many times as much.
    #[must_use]
    pub fn times(&self, n: u64) -> Self {
        self.each(&Self { requests: n, input: n, output: n, cost: n }, u64::saturating_mul)
    }

    /// Whether no part is more than the other's.
    pub fn fits_in(&self, other: &Self) -> bool {
        self.at_most(other) == *self
    }

    fn each(&self, other: &Self, f: fn(u64, u64) -> u64) -> Self {
        Self {
            requests: f(self.requests, other.requests),
            input: f(self.input, other.input),
            output: f(self.output, other.output),
            cost: f(self.cost, other.cost),
        }
    }
}

/// One request's amounts. Without prices it costs nothing.
pub fn of_request(input: u64, output: u64, prices: Option<&AskPrices>) -> Amounts {
    Amounts { requests: 1, input, output, cost: prices.map_or(0, |prices| prices.cost(input, output)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_rounded_up_and_never_overflows() {
        let prices = AskPrices { input: 1_500, output: 2_000_000, fixed: 3 };
        assert_eq!(prices.cost(1, 0), 5);
        assert_eq!(prices.cost(2, 1), 2_006);
        assert_eq!(prices.cost(u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(of_request(7, 5, None), Amounts { requests: 1, input: 7, output: 5, cost: 0 });
    }

    #[test]
    fn amounts_are_stored_as_an_array() {
        let amounts = Amounts { requests: 1, input: 2, output: 3, cost: 4 };
        assert_eq!(serde_json::to_string(&amounts).unwrap(), "[1,2,3,4]");
        assert_eq!(serde_json::from_str::<Amounts>("[1,2,3,4]").unwrap(), amounts);
        assert_eq!((amounts.of(Dimension::TotalTokens), amounts.of(Dimension::Concurrency)), (5, 0));
        assert!(amounts.fits_in(&amounts) && !amounts.times(2).fits_in(&amounts));
        assert!(amounts.minus(&amounts.times(2)).is_zero());
    }
}
