//! What a gateway's isolate and an object that counts say to each other about a request: the ask before it, the
//! settlement after it, and what becomes of leases. All of it is JSON; fields are added with a default and never change
//! their meaning.

use serde::{Deserialize, Serialize};

use super::amounts::{Amounts, AskPrices};
use super::rule::{Dimension, LimitMode, Period, Rule, Scope};

/// May this request be sent?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ask {
    /// The request's settlement id. Asking twice is asking once.
    pub id: String,
    /// Which of the request's asks this is, from 0: one that goes on with another model asks again, with the next number,
    /// and what it has reserved is replaced.
    pub turn: u32,
    /// The key that is used.
    pub key_id: String,
    /// The user that the key belongs to.
    pub user: Option<String>,
    /// The model as the caller named it.
    pub model: String,
    /// Input tokens, counted or estimated.
    pub input_tokens: u64,
    /// Output tokens at most: what the caller allows, or else what the model can.
    pub max_output_tokens: u64,
    /// What tokens cost; `None` for a model without a price, which costs nothing.
    pub prices: Option<AskPrices>,
    /// After how many milliseconds the request is certainly over: an unsettled reservation is then charged as it stands.
    pub lifetime_ms: u64,
    /// Rules that hold unless the subject has one of the same kind.
    pub defaults: Vec<Rule>,
    /// The isolate that asks; empty for one that takes no leases.
    pub holder: String,
    /// On what terms it takes leases.
    pub lease: LeaseTerms,
    /// Output tokens that a request is taken to use while nothing is known of its key and model.
    pub first_output_tokens: u64,
    /// Which quantile of the output seen so far is reserved, in percent.
    pub output_quantile_percent: u8,
    /// If no rule applies, all that matters is that the request is open: it counts in no total, and is not stored while it
    /// is young.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub passing: bool,
}

/// On what terms leases are given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseTerms {
    /// For how many milliseconds one may be used; 0 for none.
    pub ttl_ms: u64,
    /// Percent of what any rule has left that one may hold at most.
    pub share_percent: u8,
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It may. It must be settled.
    Granted(Grant),
    /// It may not. Nothing was counted.
    Denied(Denial),
}

/// What was reserved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grant {
    /// What counts as used until the settlement.
    pub reserved: Amounts,
    /// How every rule that applies stands now.
    pub states: Vec<RuleState>,
    /// The shadow rules that would have refused it.
    pub shadowed: Vec<Breach>,
    /// What the isolate may admit by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseGrant>,
    /// Whether the same was asked or settled before; then nothing was counted again.
    pub repeated: bool,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// The rule that refuses it. Of several, the one that does so for longest.
    pub breach: Breach,
    /// How every rule that applies stands.
    #[serde(default)]
    pub states: Vec<RuleState>,
}

/// What would become of an [`Ask`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preview {
    /// When this was so, in Unix milliseconds by the object's clock.
    pub at: u64,
    /// What would be reserved, if there is room.
    pub reserved: Amounts,
    /// How every rule that applies stands.
    pub states: Vec<RuleState>,
    /// The shadow rules that would have refused it.
    pub shadowed: Vec<Breach>,
    /// The rule that would refuse it. Of several, the one that does so for longest.
    pub breach: Option<Breach>,
}

/// A rule that has no room for a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breach {
    /// The rule.
    pub rule_id: String,
    /// For whom it holds.
    pub scope: Scope,
    /// The subject's id.
    pub subject: String,
    /// Its model.
    #[serde(default)]
    pub model: Option<String>,
    /// What is limited.
    pub dimension: Dimension,
    /// Over which time.
    pub period: Period,
    /// How much may be used; of a token bucket, at once.
    pub limit: u64,
    /// How much is used.
    pub used: u64,
    /// How much was asked for.
    pub asked: u64,
    /// After how many milliseconds there is room if nothing else happens. `None`: never, because more was asked for than
    /// the rule ever allows, or because it is for ever. Of a rule on concurrency it is a guess: a second.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
}

/// How a rule stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleState {
    /// The rule.
    pub rule_id: String,
    /// For whom it holds.
    pub scope: Scope,
    /// The subject's id.
    pub subject: String,
    /// Its model.
    #[serde(default)]
    pub model: Option<String>,
    /// What is limited.
    pub dimension: Dimension,
    /// Over which time.
    pub period: Period,
    /// What happens at it.
    #[serde(default)]
    pub mode: LimitMode,
    /// How much may be used; of a token bucket, at once.
    pub limit: u64,
    /// How much is used, reservations included.
    pub used: u64,
    /// How much of that is reserved and not settled; 0 for rates, which do not tell the two apart.
    #[serde(default)]
    pub reserved: u64,
    /// How much is left.
    pub remaining: u64,
    /// In how many milliseconds all of it is free again, or the period ends. 0 for what never ends, and for concurrency.
    pub reset_ms: u64,
}

/// A block that an isolate may admit requests from without asking.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseGrant {
    /// Names it.
    pub id: String,
    /// How much.
    pub block: Amounts,
    /// Output tokens to reserve for one request out of it, unless the caller allows fewer.
    pub output_tokens: u64,
    /// For how many milliseconds it is good, from when it was asked for by the asker's own clock.
    pub ttl_ms: u64,
}

/// What a request has used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settlement {
    /// The key that was used.
    pub key_id: String,
    /// The user that the key belongs to.
    pub user: Option<String>,
    /// The model as the caller named it.
    pub model: String,
    /// What it used. Without requests it is as if it had never been.
    pub amounts: Amounts,
    /// Whether the output is the whole of a successful reply, and worth learning from.
    pub complete: bool,
    /// The request asked and heard no answer: a lease that came with it is void.
    pub unanswered: bool,
    /// The lease that the request was admitted from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseUse>,
    /// The request was reserved as [`Ask::passing`]: if nothing is known of it any more, nothing is counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub passing: bool,
}

/// What a request took from a lease.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseUse {
    /// The lease.
    pub id: String,
    /// How much of it.
    pub reserved: Amounts,
}

/// A lease that its holder uses no more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseReturn {
    /// The lease.
    pub id: String,
    /// Requests admitted from it that are not known to be settled.
    pub open: Vec<OpenUse>,
}

/// A request that was admitted from a lease and is not known to be settled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenUse {
    /// The request's settlement id.
    pub id: String,
    /// What it took from the lease.
    pub reserved: Amounts,
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// It counts. Its usage entry is to be handed on.
    Counted,
    /// It was settled before.
    Repeated,
    /// Its reservation had run out and was charged as reserved; it changes nothing any more.
    Late,
}
