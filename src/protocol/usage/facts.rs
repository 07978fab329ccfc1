//! What a price depends on besides the counts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::count::{count, dollars};

/// A service tier with a price of its own. Every other tier is priced as the standard one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceTier {
    /// Answered within hours.
    Batch,
    /// Slower and cheaper.
    Flex,
    /// Faster and dearer.
    Priority,
}

/// Where a request was served, where that has a price of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InferenceGeo {
    /// In the United States only (Anthropic's `inference_geo`).
    Us,
}

/// How fast a request was served, where that has a price of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Speed {
    /// Anthropic's fast mode.
    Fast,
}

/// What a provider tells of a request, besides its usage, that its price depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BillingFacts {
    /// The tier that served it; `None` for the standard one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<ServiceTier>,
    /// Where it was served; `None` for anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference_geo: Option<InferenceGeo>,
    /// How fast; `None` for as usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// What the provider says that it costs, in nano-dollars. It is kept for comparison, and charged to nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_cost_nanos: Option<u64>,
}

impl ServiceTier {
    /// OpenAI's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Priority => "priority",
        }
    }

    /// Reads any dialect's name of a tier.
    fn read(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "batch" => Some(Self::Batch),
            "flex" | "on_demand_flex" => Some(Self::Flex),
            "priority" | "on_demand_priority" => Some(Self::Priority),
            _ => None,
        }
    }
}

impl BillingFacts {
    /// What is to be expected of a request that asks for this service tier.
    pub fn expected(service_tier: Option<&str>) -> Self {
        Self { service_tier: service_tier.and_then(ServiceTier::read), ..Self::default() }
    }

    /// Reads a reply (or a chunk of a streamed one) in OpenAI's formats: Chat Completions or Responses.
    pub fn from_openai(reply: &Value) -> Self {
        let usage = reply.get("usage").unwrap_or(&Value::Null);
        // OpenRouter tells dollars, Perplexity an object with the total, xAI ten-billionths of a dollar.
        let cost = dollars(usage, "/cost").or_else(|| dollars(usage, "/cost/total_cost"));
        let cost = cost.or_else(|| count(usage, "/cost_in_usd_ticks").map(|ticks| ticks.div_euclid(10)));
        Self { service_tier: tier(reply, "service_tier"), provider_cost_nanos: cost, ..Self::default() }
    }

    /// Reads an Anthropic usage object into `self`; what it does not mention stays.
    pub fn merge_anthropic(&mut self, usage: &Value) {
        let text = |name: &str| usage.get(name).and_then(Value::as_str);
        if text("service_tier").is_some() {
            self.service_tier = tier(usage, "service_tier");
        }
        if let Some(geo) = text("inference_geo") {
            self.inference_geo = (geo == "us").then_some(InferenceGeo::Us);
        }
        if let Some(speed) = text("speed") {
            self.speed = (speed == "fast").then_some(Speed::Fast);
        }
    }

    /// Reads Gemini's `usageMetadata`; Vertex has a name of its own for the tier.
    pub fn from_gemini(usage: &Value) -> Self {
        let service_tier = tier(usage, "serviceTier").or_else(|| tier(usage, "trafficType"));
        Self { service_tier, ..Self::default() }
    }

    /// Reads a reply of Bedrock's Converse.
    pub fn from_bedrock(reply: &Value) -> Self {
        Self { service_tier: reply.get("serviceTier").and_then(|it| tier(it, "type")), ..Self::default() }
    }

    /// These facts, and for those that are not known the ones of `earlier`.
    #[must_use]
    pub fn or(self, earlier: Self) -> Self {
        Self {
            service_tier: self.service_tier.or(earlier.service_tier),
            inference_geo: self.inference_geo.or(earlier.inference_geo),
            speed: self.speed.or(earlier.speed),
            provider_cost_nanos: self.provider_cost_nanos.or(earlier.provider_cost_nanos),
        }
    }
}

fn tier(holder: &Value, name: &str) -> Option<ServiceTier> {
    ServiceTier::read(holder.get(name)?.as_str()?)
}
