//! What a model's tokens cost one request: the base price and its variants, of which those count whose conditions hold.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::date::Day;
use super::money::Multiplier;
use super::{Nanodollars, Parts, Picodollars, Rates, cost};
use crate::protocol::usage::{BillingFacts, InferenceGeo, ServiceTier, Speed, Usage};

/// A price that counts under conditions. All that are stated must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variant {
    /// The input, cached or not, is longer than so many tokens.
    pub above_input_tokens: Option<u64>,
    /// The request was served in this tier.
    pub service_tier: Option<ServiceTier>,
    /// It was served in this part of the world.
    pub inference_geo: Option<InferenceGeo>,
    /// It was served at this speed.
    pub speed: Option<Speed>,
    /// It came in on this day (UTC) or later.
    pub from: Option<Day>,
    /// It came in before this day (UTC).
    pub until: Option<Day>,
    /// It is charged to this account.
    pub account: Option<String>,
    /// What the parts cost then.
    pub parts: Parts,
    /// By how much the price of tokens is multiplied then.
    pub multiplier: Option<Multiplier>,
}

impl Variant {
    /// Whether what is known before the provider answers fits.
    fn may_concern(&self, account: &str, day: Day) -> bool {
        self.account.as_deref().is_none_or(|it| it == account)
            && self.from.is_none_or(|from| from <= day)
            && self.until.is_none_or(|until| day < until)
    }

    fn holds(&self, input_tokens: u64, facts: &BillingFacts) -> bool {
        self.above_input_tokens.is_none_or(|most| input_tokens > most)
            && self.service_tier.is_none_or(|tier| facts.service_tier == Some(tier))
            && self.inference_geo.is_none_or(|geo| facts.inference_geo == Some(geo))
            && self.speed.is_none_or(|speed| facts.speed == Some(speed))
    }
}

/// A price with its variants, those that count later behind those that count earlier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceCard {
    /// What counts if no variant says otherwise.
    pub base: Parts,
    /// The variants.
    pub variants: Vec<Variant>,
}

/// Where a price comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PriceSource {
    /// From the configuration.
    #[default]
    Configured,
    /// From what the gateway brings along, as it was on this day.
    Bundled(&'static str),
}

impl fmt::Display for PriceSource {
    /// `configured`, or `bundled (2026-11-20)`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => formatter.write_str("configured"),
            Self::Bundled(date) => write!(formatter, "bundled ({date})"),
        }
    }
}

impl Serialize for PriceSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a request's model costs its account at its time. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pricing {
    card: Arc<PriceCard>,
    source: PriceSource,
}

/// What a request may cost, to be reserved before it is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AskPrices {
    /// An input token, in pico-dollars.
    pub input: u64,
    /// An output token, in pico-dollars.
    pub output: u64,
    /// The request itself, in nano-dollars.
    pub fixed: u64,
}

impl AskPrices {
    /// What so many tokens cost, in nano-dollars, rounded up.
    pub fn cost(&self, input: u64, output: u64) -> u64 {
        let part = |tokens: u64, price: u64| u128::from(tokens).saturating_mul(u128::from(price));
        let nanos = part(input, self.input).saturating_add(part(output, self.output)).div_ceil(1_000);
        u64::try_from(nanos).unwrap_or(u64::MAX).saturating_add(self.fixed)
    }
}

impl Pricing {
    /// The part of a card that concerns an account on a day; `None` if it states no price then.
    pub fn of(card: &Arc<PriceCard>, source: PriceSource, account: &str, day: Day) -> Option<Self> {
        let concerns = |variant: &Variant| variant.may_concern(account, day);
        let card = if card.variants.iter().all(concerns) {
            Arc::clone(card)
        } else {
            let variants = card.variants.iter().filter(|variant| concerns(variant)).cloned().collect();
            Arc::new(PriceCard { base: card.base, variants })
        };
        let states_one = !card.base.is_empty() || card.variants.iter().any(|variant| !variant.parts.is_empty());
        states_one.then_some(Self { card, source })
    }

    /// The same price for all tokens and requests, whatever the circumstances.
    pub fn flat(base: Parts) -> Self {
        Self { card: Arc::new(PriceCard { base, variants: Vec::new() }), source: PriceSource::Configured }
    }

    /// Where it comes from.
    pub fn source(&self) -> PriceSource {
        self.source
    }

    /// The rates for a request with so much input, and by what its tokens' price is multiplied.
    fn rates(&self, input_tokens: u64, facts: &BillingFacts) -> (Rates, Multiplier) {
        let holding = self.card.variants.iter().filter(|variant| variant.holds(input_tokens, facts));
        let (parts, multiplier) = holding.fold((self.card.base, Multiplier::ONE), |(parts, multiplier), variant| {
            (variant.parts.over(parts), variant.multiplier.map_or(multiplier, |more| multiplier.times(more)))
        });
        (Rates::from(parts), multiplier)
    }

    /// What a request cost that used this much.
    pub fn cost(&self, usage: &Usage, facts: &BillingFacts) -> Nanodollars {
        let (rates, multiplier) = self.rates(usage.input_total(), facts);
        cost(&rates, multiplier, usage)
    }

    /// What a request may cost that is about to be sent: `input_tokens`, `facts` and, of what is charged by the piece,
    /// `pieces` are what is expected. Output is taken at the dearer of the prices of text and reasoning.
    pub fn ask(&self, input_tokens: u64, pieces: &Usage, facts: &BillingFacts) -> AskPrices {
        let (rates, multiplier) = self.rates(input_tokens, facts);
        let Picodollars(input) = multiplier.of(rates.input);
        let Picodollars(output) = multiplier.of(rates.output.max(rates.output_reasoning));
        AskPrices { input, output, fixed: cost(&rates, multiplier, pieces).0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Price;
    use serde_json::json;

    #[test]
    fn what_is_asked_for_is_reckoned_at_the_price_that_will_count() {
        let price: Price = serde_json::from_value(json!({
            "input": "1", "output": "2", "output_reasoning": "3", "per_request": "0.001",
            "variants": [
                {"service_tier": "flex", "input": "0.5", "output": "1", "output_reasoning": "1"},
                {"above_input_tokens": 100, "input": "4"},
                {"account": "partners", "multiplier": "1.1"},
            ],
        }))
        .unwrap();
        let card = Arc::new(price.card());
        let ask = |input, tier, account| {
            let pricing = Pricing::of(&card, PriceSource::Configured, account, Day::at(0)).unwrap();
            let AskPrices { input, output, fixed } =
                pricing.ask(input, &Usage::default(), &BillingFacts::expected(tier));
            (input, output, fixed)
        };
        assert_eq!(ask(100, None, "a"), (1_000_000, 3_000_000, 1_000_000));
        assert_eq!(ask(101, Some("auto"), "a"), (4_000_000, 3_000_000, 1_000_000));
        assert_eq!(ask(100, Some("flex"), "a"), (500_000, 1_000_000, 1_000_000));
        assert_eq!(ask(100, None, "partners"), (1_100_000, 3_300_000, 1_000_000));
        let prices = AskPrices { input: 1, output: 1_000, fixed: 5 };
        assert_eq!((prices.cost(1, 2), prices.cost(0, 0), prices.cost(u64::MAX, u64::MAX)), (8, 5, u64::MAX));
    }
}
