//! What leaves a trace: one wide log event a request.

#[cfg(target_arch = "wasm32")]
pub mod log;

mod policy;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::billing::{Nanodollars, PriceSource, Pricing};
use crate::gateway::estimate::BYTES_PER_TOKEN;
use crate::limits::amounts::Amounts;
use crate::limits::ask::Breach;
use crate::limits::rule::{Dimension, Period, Scope};
use crate::protocol::usage::{BillingFacts, Told, Usage};
use crate::routing::outcome::Fault;

pub use policy::{LogPolicy, Severity, is_sampled, logged_address};

/// How a request ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As asked.
    #[default]
    Completed,
    /// With an error.
    Failed,
    /// The caller left before the end.
    ClientClosed,
}

/// Everything the log says of a request. Credentials and bodies are not among it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RequestRecord {
    /// Names the request.
    pub request_id: String,
    /// Names it too, but is never the caller's: what is charged by it cannot be taken for a repetition.
    #[serde(skip)]
    pub settlement_id: String,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The status that was sent.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// The error's code, if there was one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_code: String,
    /// What the caller is not told of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_detail: String,
    /// The account that is charged.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account: String,
    /// The key; its public id for one that was not recognised.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key_id: String,
    /// The user that the key belongs to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The caller's address, as far as it may be kept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_ip: String,
    /// The caller's software, if that is kept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// The model as the caller named it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// The route that this is, if it is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// The model of the configuration that answered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deployment: String,
    /// The provider.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub provider: String,
    /// The model as the provider names it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub upstream_model: String,
    /// How often a provider was asked.
    pub attempts: u32,
    /// Every attempt, in their order; left out where the first one went well, which the record itself describes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Attempt>,
    /// Whether it is the copy of a request, sent to a model that is tried out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// Why a reply broke off of which the caller has seen the beginning.
    #[serde(skip)]
    pub broken_off: Option<Fault>,
    /// The caller's parameters that the provider cannot honour, separated by commas.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dropped_params: String,
    /// The provider's own id of the request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub upstream_request_id: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The reply's lane.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub lane: &'static str,
    /// The status that the provider gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_status: Option<u16>,
    /// Tokens; absent where the provider did not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Whether `usage` is the gateway's estimate, because the provider told none or was cut off before it did.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub usage_estimated: bool,
    /// What `usage` costs, in nano-dollars; absent where the model has no price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_nanodollars: Option<Nanodollars>,
    /// What limits reserved for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Reserved>,
    /// Who admitted it where limits apply: `ledger`, `lease` (the isolate, from what the ledger has lent it), or, while the
    /// ledger cannot be reached, `local`, `grace` or `unreachable`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub admitted_by: &'static str,
    /// The limit that refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<RefusedBy>,
    /// The ids of limits in shadow mode that would have refused it, separated by commas.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub shadow_limits: String,
    /// What the model costs.
    #[serde(skip)]
    pub pricing: Option<Pricing>,
    /// Where that price comes from: `configured`, or `bundled` and the day that it was true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_source: Option<PriceSource>,
    /// Whether the model that was chosen has no price.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unpriced: bool,
    /// What else the provider told that the price depends on.
    #[serde(flatten)]
    pub facts: BillingFacts,
    /// Whether and how this is logged.
    #[serde(skip)]
    pub policy: LogPolicy,
    /// Body bytes in.
    pub bytes_in: u64,
    /// Tokens that the body is for the model that was chosen, by estimate.
    #[serde(skip)]
    pub estimated_input: Option<u64>,
    /// What it has used if the provider does not tell, where that does not depend on the reply's length.
    #[serde(skip)]
    pub expected: Option<Usage>,
    /// Body bytes out, as far as they passed through the gateway's hands.
    pub bytes_out: u64,
    /// Milliseconds until the provider's reply began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<u64>,
    /// Milliseconds until the first byte left for the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// Milliseconds in all.
    pub total_ms: u64,
    /// Milliseconds of it that were the gateway's own, until the reply began.
    pub overhead_ms: u64,
    /// The configuration's version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub config_version: String,
}

/// One time that a provider was asked, or found to be out of the question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// The model of the configuration.
    pub deployment: String,
    /// Its provider.
    pub provider: String,
    /// `ok`, or the fault.
    pub outcome: &'static str,
    /// The status that the provider gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Milliseconds until the reply began, or the attempt failed.
    pub millis: u64,
    /// Milliseconds that were waited before it.
    #[serde(skip_serializing_if = "is_zero")]
    pub waited_ms: u64,
    /// What the provider presumably charges for it although it failed: its reply had begun. Tokens, by estimate; part of
    /// the record's `usage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_usage: Option<Usage>,
    /// What they cost, in nano-dollars: part of the record's `cost_nanodollars`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_nanodollars: Option<Nanodollars>,
}

/// Whether there is nothing to tell.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What limits have reserved for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reserved {
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Nano-dollars.
    pub cost_nanos: u64,
}

impl From<Amounts> for Reserved {
    fn from(amounts: Amounts) -> Self {
        Self { input: amounts.input, output: amounts.output, cost_nanos: amounts.cost }
    }
}

/// The limit that refused a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedBy {
    /// Its id.
    pub limit: String,
    /// For whom it holds.
    pub scope: Scope,
    /// What it limits.
    pub dimension: Dimension,
    /// Over which time.
    pub period: Period,
}

impl From<&Breach> for RefusedBy {
    fn from(breach: &Breach) -> Self {
        let Breach { rule_id, scope, dimension, period, .. } = breach;
        Self { limit: rule_id.clone(), scope: *scope, dimension: *dimension, period: *period }
    }
}

impl Outcome {
    /// The name in logs and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::ClientClosed => "client_closed",
        }
    }
}

impl RequestRecord {
    /// Notes the usage that the provider told, or else an estimate: every request that reached a provider has cost
    /// something. `output` is the estimate for the output, in tokens.
    pub fn told_or_estimated(&mut self, told: Option<Told>, output: u64) {
        self.usage_estimated = told.is_none();
        let input = self.estimated_input.unwrap_or_else(|| self.bytes_in.div_ceil(BYTES_PER_TOKEN));
        let expected = self.expected.unwrap_or(Usage { input, output, ..Usage::default() });
        let Told { usage, facts } = told.unwrap_or(expected.into());
        self.cost_nanodollars = self.pricing.as_ref().map(|pricing| pricing.cost(&usage, &facts));
        self.usage = Some(usage);
        self.facts = facts;
        self.add_what_is_lost();
    }

    /// Notes that the attempt which is running has failed, `millis` after it began. If the provider's reply had begun, it
    /// is charged by estimate: `reply_bytes` are what came of it.
    pub fn attempt_failed(&mut self, fault: &'static str, millis: u64, waited_ms: u64, reply_bytes: Option<usize>) {
        let mut attempt = self.attempt(fault, millis, waited_ms);
        if let Some(bytes) = reply_bytes {
            let mut alone = Self {
                bytes_in: self.bytes_in,
                estimated_input: self.estimated_input,
                expected: self.expected,
                pricing: self.pricing.clone(),
                ..Self::default()
            };
            alone.told_or_estimated_whole(None, bytes);
            (attempt.lost_usage, attempt.lost_nanodollars) = (alone.usage, alone.cost_nanodollars);
        }
        self.tried.push(attempt);
    }

    /// Notes that the attempt which is running has brought a reply.
    pub fn attempt_succeeded(&mut self, millis: u64, waited_ms: u64) {
        if !self.tried.is_empty() {
            let attempt = self.attempt("ok", millis, waited_ms);
            self.tried.push(attempt);
        }
    }

    /// Notes who was not asked after all, and why.
    pub fn attempt_spared(&mut self, deployment: &str, provider: &str, why: &'static str) {
        let (deployment, provider) = (deployment.to_owned(), provider.to_owned());
        self.tried.push(Attempt { deployment, provider, outcome: why, ..Attempt::default() });
    }

    fn attempt(&self, outcome: &'static str, millis: u64, waited_ms: u64) -> Attempt {
        Attempt {
            deployment: self.deployment.clone(),
            provider: self.provider.clone(),
            outcome,
            status: self.upstream_status,
            millis,
            waited_ms,
            ..Attempt::default()
        }
    }

    /// What failed attempts have cost, in nano-dollars.
    pub fn lost_nanodollars(&self) -> u64 {
        self.tried.iter().filter_map(|attempt| attempt.lost_nanodollars).fold(0, |sum, lost| sum.saturating_add(lost.0))
    }

    /// Charges what failed attempts have cost, if nothing else of the request has been charged.
    pub fn charge_what_is_lost(&mut self) {
        if self.usage.is_none() {
            self.add_what_is_lost();
        }
    }

    fn add_what_is_lost(&mut self) {
        for attempt in &self.tried {
            let Some(usage) = &attempt.lost_usage else { continue };
            self.usage = Some(self.usage.unwrap_or_default().plus(usage, u64::MAX));
            self.usage_estimated = true;
            if let Some(lost) = attempt.lost_nanodollars {
                let cost = self.cost_nanodollars.map_or(0, |cost| cost.0);
                self.cost_nanodollars = Some(Nanodollars(cost.saturating_add(lost.0)));
            }
        }
    }

    /// Notes what the model that was chosen costs.
    pub fn price(&mut self, pricing: Option<Pricing>) {
        self.price_source = pricing.as_ref().map(Pricing::source);
        self.unpriced = pricing.is_none();
        self.pricing = pricing;
    }

    /// Notes that the request is charged what was reserved for it, because nobody knows better.
    pub fn charge_as_reserved(&mut self, amounts: &Amounts) {
        self.usage_estimated = true;
        self.usage = Some(Usage { input: amounts.input, output: amounts.output, ..Usage::default() });
        self.cost_nanodollars = Some(Nanodollars(amounts.cost));
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let mut line = format!("{} {} {}", self.method, self.path, self.status);
        if !self.model.is_empty() {
            line.push_str(&format!(" | {}", self.model));
        }
        if !self.provider.is_empty() {
            line.push_str(&format!(" -> {}/{} ({})", self.provider, self.upstream_model, self.lane));
        }
        if let Some(usage) = &self.usage {
            let about = if self.usage_estimated { "about " } else { "" };
            line.push_str(&format!(" | {about}{} in, {} out", usage.input_total(), usage.output_total()));
        }
        if let Some(first) = self.first_byte_ms {
            line.push_str(&format!(" | first byte {first} ms"));
        }
        line.push_str(&format!(" | {} ms", self.total_ms));
        match self.outcome {
            Outcome::Completed => {}
            Outcome::Failed => line.push_str(&format!(" | failed: {} {}", self.error_code, self.error_detail)),
            Outcome::ClientClosed => line.push_str(" | the client left"),
        }
        line.push_str(&format!(" | {}", self.request_id));
        line
    }

    /// As [`Self::told_or_estimated`], for a reply of so many bytes that came as a whole.
    pub fn told_or_estimated_whole(&mut self, told: Option<Told>, reply_bytes: usize) {
        self.told_or_estimated(told, (reply_bytes as u64).div_ceil(BYTES_PER_TOKEN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people_says_who_answered_and_what_went_wrong() {
        let mut record = RequestRecord {
            request_id: "r1".into(),
            method: "POST".into(),
            path: "/v1/messages".into(),
            status: 200,
            model: "m".into(),
            provider: "p".into(),
            upstream_model: "u".into(),
            lane: "native",
            total_ms: 12,
            ..RequestRecord::default()
        };
        record.told_or_estimated(None, 7);
        assert_eq!(record.summary(), "POST /v1/messages 200 | m -> p/u (native) | about 0 in, 7 out | 12 ms | r1");
        record.outcome = Outcome::Failed;
        record.error_code = "upstream_stalled".into();
        assert!(record.summary().contains("failed: upstream_stalled"));
    }

    #[test]
    fn an_attempt_that_broke_off_is_charged_with_the_one_that_did_not() {
        let priced = |picos| {
            let price = Some(crate::billing::Picodollars(picos));
            Some(Pricing::flat(crate::billing::Parts { input: price, output: price, ..Default::default() }))
        };
        let mut record =
            RequestRecord { deployment: "a".into(), estimated_input: Some(10), ..RequestRecord::default() };
        record.pricing = priced(1_000);
        record.attempt_failed("server_error", 5, 0, None);
        record.attempt_failed("cut", 7, 100, Some(8 * BYTES_PER_TOKEN as usize));
        assert_eq!(record.tried[0].lost_usage, None);
        assert_eq!(record.lost_nanodollars(), 18);
        let mut given_up = record.clone();
        given_up.charge_what_is_lost();
        assert_eq!(given_up.usage.map(|usage| (usage.input, usage.output)), Some((10, 8)));
        assert_eq!((given_up.cost_nanodollars, given_up.usage_estimated), (Some(Nanodollars(18)), true));
        record.deployment = "b".into();
        record.pricing = priced(2_000);
        record.attempt_succeeded(3, 0);
        record.told_or_estimated(Some(Usage { input: 11, output: 2, ..Usage::default() }.into()), 0);
        record.charge_what_is_lost();
        assert_eq!(record.usage.map(|usage| (usage.input, usage.output)), Some((21, 10)));
        assert_eq!(record.cost_nanodollars, Some(Nanodollars(26 + 18)));
        let tried: Vec<_> = record.tried.iter().map(|it| (it.deployment.as_str(), it.outcome, it.waited_ms)).collect();
        assert_eq!(tried, [("a", "server_error", 0), ("a", "cut", 100), ("b", "ok", 0)]);
        let mut at_once = RequestRecord::default();
        at_once.attempt_succeeded(3, 0);
        assert!(at_once.tried.is_empty());
    }

    #[test]
    fn what_the_provider_tells_counts_and_an_estimate_is_marked() {
        let mut record = RequestRecord { bytes_in: 41, ..RequestRecord::default() };
        record.told_or_estimated(None, 7);
        assert_eq!(record.usage.map(|usage| (usage.input, usage.output)), Some((11, 7)));
        assert!(record.usage_estimated);
        record.estimated_input = Some(5);
        record.told_or_estimated(None, 7);
        assert_eq!(record.usage.map(|usage| usage.input), Some(5));
        let told = Usage { input: 3, output: 2, ..Usage::default() };
        record.told_or_estimated(Some(told.into()), 7);
        assert_eq!((record.usage, record.usage_estimated), (Some(told), false));
        assert_eq!(record.cost_nanodollars, None);
        let input = Some(crate::billing::Picodollars(2_000));
        record.pricing = Some(Pricing::flat(crate::billing::Parts { input, ..Default::default() }));
        record.told_or_estimated(Some(told.into()), 7);
        assert_eq!(record.cost_nanodollars, Some(Nanodollars(6)));
    }
}
