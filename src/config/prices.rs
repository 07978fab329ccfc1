//! Sections `prices` and `billing`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::{fields, section};
use crate::billing::{Day, Multiplier, Parts, PriceCard, RequestPrice, TokenPrice, Variant};
use crate::protocol::usage::{InferenceGeo, ServiceTier, Speed};

/// Declares a type with the parts of a price among its fields: `{ fields before } parts { fields behind }`.
macro_rules! priced {
    ($(#[$meta:meta])* pub struct $name:ident { $($before:tt)* } parts { $($behind:tt)* }) => {
        fields! {
            $(#[$meta])*
            #[derive(Default, Eq)]
            #[serde(default)]
            pub struct $name {
                $($before)*
                /// Text input. Left out: nothing.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub input: Option<TokenPrice>;
                /// Text output. Left out: nothing.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub output: Option<TokenPrice>;
                /// Input read from the provider's prompt cache. Left out: as `input`.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub cache_read: Option<TokenPrice>;
                /// Input written to the prompt cache for five minutes. Left out: as `input`.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub cache_write_5m: Option<TokenPrice>;
                /// Input written to the prompt cache for an hour. Left out: as `cache_write_5m`.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub cache_write_1h: Option<TokenPrice>;
                /// Reasoning. Left out: as `output`.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub output_reasoning: Option<TokenPrice>;
                /// Audio input. Left out: as `input`.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub input_audio: Option<TokenPrice>;
                /// Audio output. Left out: as `output`.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub output_audio: Option<TokenPrice>;
                /// Image input, where the provider tells its tokens from those of text. Left out: as `input`.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub input_image: Option<TokenPrice>;
                /// Image output. Left out: as `output`.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub output_image: Option<TokenPrice>;
                /// Each request, whatever it used: US dollars as a decimal in a string, exact to nine places. Left out: nothing.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub per_request: Option<RequestPrice>;
                /// Each web search that the provider ran, in US dollars. Left out: nothing.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub per_search: Option<RequestPrice>;
                /// Each image that was made, besides its tokens, in US dollars. Left out: nothing.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub per_image: Option<RequestPrice>;
                /// Each minute of sound that was listened to, where that is charged by its time, in US dollars. Left out:
                /// nothing.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub per_audio_minute: Option<RequestPrice>;
                /// A million characters of text that was spoken. Left out: nothing.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub per_million_characters: Option<TokenPrice>;
                $($behind)*
            }
        }

        impl $name {
            /// The parts that it states.
            pub fn parts(&self) -> Parts {
                let token = |part: Option<TokenPrice>| part.map(|TokenPrice(price)| price);
                let piece = |part: Option<RequestPrice>| part.map(|RequestPrice(price)| price);
                Parts {
                    input: token(self.input),
                    cache_read: token(self.cache_read),
                    cache_write_5m: token(self.cache_write_5m),
                    cache_write_1h: token(self.cache_write_1h),
                    input_audio: token(self.input_audio),
                    input_image: token(self.input_image),
                    output: token(self.output),
                    output_reasoning: token(self.output_reasoning),
                    output_audio: token(self.output_audio),
                    output_image: token(self.output_image),
                    per_request: piece(self.per_request),
                    per_search: piece(self.per_search),
                    per_image: piece(self.per_image),
                    per_audio_minute: piece(self.per_audio_minute),
                    characters: token(self.per_million_characters),
                }
            }
        }
    };
}

priced! {
    /// What a model costs. Prices per token are in US dollars per million tokens, written as decimals in a string, such as
    /// `"0.075"`: exact to six places. A part that is left out costs what the part it belongs to costs. What states no
    /// part at all is no price: the one that the gateway brings along counts, varied by `variants`.
    pub struct Price {}
    parts {
        /// What the parts cost under conditions: long inputs, service tiers, days, accounts. Where several hold, the later
        /// in the list counts.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub variants: Vec<PriceVariant>, items 0 ..= 256;
        /// Where the price comes from, for people.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub source: Option<String>, chars 0 ..= 1024;
    }
}

priced! {
    /// A price under conditions. It counts for a request if all the conditions that it states hold; then the parts that it
    /// states cost what it says, for the whole request, and the others what they cost without it.
    pub struct PriceVariant {
        /// Condition: the input, cached or not, is longer than so many tokens.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub above_input_tokens: Option<u64>, in 0 ..= 100_000_000;
        /// Condition: the provider says that it served the request in this tier.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub service_tier: Option<ServiceTier>;
        /// Condition: the provider says that it served the request in this part of the world.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub inference_geo: Option<InferenceGeo>;
        /// Condition: the provider says that it served the request at this speed.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub speed: Option<Speed>;
        /// Condition: the request comes in on this day (UTC) or later, such as `2026-01-31`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub from: Option<Day>;
        /// Condition: the request comes in before this day (UTC).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub until: Option<Day>;
        /// Condition: the request is charged to the account of this id.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub account: Option<String>, chars 1 ..= 256;
    }
    parts {
        /// What all prices of tokens are multiplied by, such as `"1.1"`. Those of several variants are multiplied with each
        /// other.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub multiplier: Option<Multiplier>;
    }
}

impl PriceVariant {
    /// Whether another one behind it, with the same conditions but for a shorter input, takes its place.
    pub(super) fn hides(&self, behind: &Self) -> bool {
        let conditions = |it: &Self| {
            let Self { service_tier, inference_geo, speed, from, until, .. } = *it;
            (service_tier, inference_geo, speed, from, until)
        };
        conditions(self) == conditions(behind)
            && self.account == behind.account
            && self.above_input_tokens.unwrap_or(0) > behind.above_input_tokens.unwrap_or(0)
    }

    /// As it is worked with.
    fn variant(&self) -> Variant {
        Variant {
            above_input_tokens: self.above_input_tokens,
            service_tier: self.service_tier,
            inference_geo: self.inference_geo,
            speed: self.speed,
            from: self.from,
            until: self.until,
            account: self.account.clone(),
            parts: self.parts(),
            multiplier: self.multiplier,
        }
    }
}

impl Price {
    /// As it is worked with.
    pub fn card(&self) -> PriceCard {
        PriceCard { base: self.parts(), variants: self.variants.iter().map(PriceVariant::variant).collect() }
    }
}

section! {
    /// What requests cost.
    pub struct Billing {
        /// What happens to requests for a model that has no price.
        pub unpriced_models: Unpriced = Unpriced::Allow;
        /// Whether models without a configured price get the one that the gateway brings along, where it has one.
        pub bundled_prices: bool = true;
        /// Whether callers are told what their requests cost: in the header `x-gateway-cost`, and in the reply's usage if
        /// they ask for it by `x-gateway-include-cost: true`.
        pub tell_cost: bool = true;
    }
}

/// What happens to requests for a model that has no price.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unpriced {
    /// They are served, and their cost is recorded as unknown.
    #[default]
    Allow,
    /// They are refused.
    Refuse,
}
