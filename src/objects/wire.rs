//! What is said between objects and those who ask them: JSON bodies of plain HTTP requests. While a deployment rolls out,
//! the two sides may be of different versions: fields are added with a default and never change their meaning.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::auth::api_key::KeyRecord;
use crate::limits::admission::Totals;
use crate::limits::ask::{Answer, Ask, LeaseReturn, RuleState, Settlement};
use crate::limits::ledger::{KeyState, Verdict};
use crate::limits::rule::Rule;
use crate::routing::board::{Manual, Observation, StateView, Terms, Want};

/// Longest time that an object is waited for, in milliseconds, while a caller waits.
pub const PATIENCE_MS: u64 = 1_000;

// === Hub ===

/// What an isolate has and asks for news of: `GET /state`, as the query string.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Have {
    /// The configuration's version; empty for none.
    pub config: String,
    /// The credentials' revision; 0 for none.
    pub credentials: u64,
    /// The public keys' revision; 0 for none.
    pub keys: u64,
    /// The revision of what is set of providers; 0 for none.
    pub provider_states: u64,
}

/// A document with its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Numbered {
    /// Its sequence or revision.
    pub number: u64,
    /// The document, as JSON.
    pub document: Box<RawValue>,
}

/// The Hub's answer: what the asker does not have, or has in another version.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The sequence of the current configuration; 0 if the Hub has none.
    pub config_sequence: u64,
    /// The configuration's snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Numbered>,
    /// The sealed credentials by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Numbered>,
    /// The public keys of the gateway's own tokens, as a JSON Web Key Set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Numbered>,
    /// What is set of providers, as [`ProviderStates`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_states: Option<Numbered>,
    /// Grows when caches are to be emptied.
    pub purge_epoch: u64,
}

/// What a Hub is at, for the control plane's health page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HubStatus {
    /// The configuration's version; empty for none.
    pub config_version: String,
    /// Its sequence.
    pub config_sequence: u64,
    /// The credentials' revision.
    pub credentials_revision: u64,
    /// The public keys' revision.
    pub keys_revision: u64,
    /// The revision of what is set of providers.
    pub provider_states_revision: u64,
    /// The purge epoch.
    pub purge_epoch: u64,
    /// The object's storage, in bytes.
    pub stored_bytes: u64,
}

/// The answer to a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// The number that the object is at now: the pushed one, or a higher one that it had before.
    pub number: u64,
}

/// What operators have set of providers, by name; those of which nothing is set are left out.
pub type ProviderStates = BTreeMap<String, Manual>;

// === Ledger ===

/// `PUT /keys`: a key's state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PutKey {
    /// The key.
    pub key_id: String,
    /// Grows with each change of it.
    pub revision: u64,
    /// What it is now.
    pub state: KeyState,
}

/// The answer to [`PutKey`]: the key as the ledger has it now, which may be newer than what was pushed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyNow {
    /// Its revision.
    pub revision: u64,
    /// The good secrets' records by public id.
    pub records: BTreeMap<String, KeyRecord>,
    /// Public ids that are good no more.
    pub retired: BTreeSet<String>,
}

/// `POST /check`: is this secret good, and the account?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Check {
    /// The secret's public id; absent for a caller with a token, where only the account counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_id: Option<String>,
    /// The revision of the asker's record.
    #[serde(default)]
    pub revision: u64,
    /// The key's stable id.
    #[serde(default)]
    pub key_id: String,
    /// The user that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// The answer to [`Check`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// What counts for the key.
    pub verdict: Verdict,
    /// Whether the account may not call models.
    pub account_suspended: bool,
    /// Whether a limit that the control plane has set may apply to requests of this key.
    #[serde(default)]
    pub limited: bool,
}

/// `POST /admit`: is this secret good, and the account, and may this request be sent?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Admit {
    /// The account: an object does not know its own name.
    #[serde(default)]
    pub account: String,
    /// The caller.
    pub check: Check,
    /// The request.
    pub ask: Ask,
    /// The account's revision that the asker knows the rules of; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules_of: Option<u64>,
}

/// The answer to [`Admit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Admitted {
    /// The caller's standing.
    pub standing: Standing,
    /// Whether the request may be sent; absent where the caller may not go on, or must be judged anew: nothing is reserved
    /// then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// The account's rules, where the asker knows older ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<RulesNow>,
}

/// The rules that the control plane has set for an account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RulesNow {
    /// The account's revision.
    pub revision: u64,
    /// All of them.
    pub rules: Vec<Rule>,
}

/// `POST /usage`: what requests used, which settles what was reserved for them. The same entry may be posted again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PostUsage {
    /// How long the ledger may gather entries before it hands them on, in milliseconds.
    pub flush_ms: u64,
    /// The entries, as [`crate::limits::usage::UsageEntry`].
    pub entries: Vec<Box<RawValue>>,
    /// Leases that the sender uses no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returns: Vec<LeaseReturn>,
    /// From which percentages of a quota or budget on alert events are raised.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<u64>,
}

/// `POST /limits`: how do the limits stand that apply to a key?
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsQuery {
    /// The key; empty for the account (and the user) alone.
    pub key_id: String,
    /// The user.
    pub user: Option<String>,
    /// Only what applies to this model; all if there is none.
    pub model: Option<String>,
    /// The limits that hold by default.
    pub defaults: Vec<Rule>,
    /// Whether the limits of all keys and users are to be told as well.
    pub all: bool,
}

/// The answer to [`LimitsQuery`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsNow {
    /// When this was so, in Unix milliseconds by the object's clock.
    pub at: u64,
    /// How each limit stands.
    pub states: Vec<RuleState>,
    /// What the key has used in the running calendar periods; the account, if no key was named.
    pub totals: Totals,
    /// Requests of the key that are open, as far as they were announced; of the account, if no key was named.
    pub open: u64,
    /// The same of every key that has any.
    pub open_by_key: BTreeMap<String, u64>,
    /// Since when the oldest of each key's is open, in Unix milliseconds.
    pub open_since: BTreeMap<String, u64>,
}

// === Gauge ===

/// `POST /acquire`: may this request be sent to one of these?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Acquire {
    /// The attempt's id. Asking twice is asking once; another attempt of the same request has another id.
    pub id: String,
    /// Where it may be sent.
    pub candidates: Vec<CandidateAsk>,
    /// Whether the gauge picks the candidate with the fewest open requests. Otherwise the first one is meant.
    pub pick: bool,
}

/// A deployment that a request may be sent to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CandidateAsk {
    /// The provider.
    pub provider: String,
    /// Its share of what is open, compared to the others'; 0 counts as 1.
    pub weight: u64,
    /// What the request would use there, by the provider's rules. Its model is the deployment; its id is [`Acquire::id`],
    /// whatever it says.
    pub ask: Ask,
}

/// The answer to [`Acquire`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquired {
    /// Which candidate is meant: the one that was picked or, if none has room, the one that is worth asking again first.
    pub index: usize,
    /// Whether it may be sent there. If so, it must be released.
    pub answer: Answer,
    /// Requests that are open at each candidate's provider now, this one included; of the first alone unless the gauge
    /// was to pick.
    #[serde(default)]
    pub open: Vec<u64>,
}

/// `POST /release`: a request that the gauge counts has ended. The answer is [`Settled`](crate::limits::ask::Settled).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Release {
    /// The provider that it was sent to.
    pub provider: String,
    /// The attempt's id.
    pub id: String,
    /// What it used.
    pub settlement: Settlement,
}

/// `POST /report`: what an isolate has seen of providers. The answer is a
/// [`Snapshot`](crate::routing::board::Snapshot) with all that the gauge knows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The isolate's name, by which it gets permits for trials.
    pub holder: String,
    /// The providers that it wants to hear of, whether or not the gauge knows anything of them.
    pub providers: Vec<String>,
    /// What the gauge is to judge by.
    pub terms: Terms,
    /// What it has seen and not told before.
    pub observations: Vec<Aged>,
    /// The permits that it wants and has.
    pub wants: Vec<Want>,
}

/// An observation on its way: clocks differ, ages do not.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Aged {
    /// How long ago the attempt had ended when the report was sent, in milliseconds.
    pub age_ms: u64,
    /// What was seen.
    pub seen: Observation,
}

/// `POST /health`: how are a provider and its models? `POST /reset`: forget what speaks against them. Both answer with
/// [`HealthNow`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthQuery {
    /// The provider.
    pub provider: String,
    /// What the gauge is to judge by.
    pub terms: Terms,
}

/// The answer to [`HealthQuery`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthNow {
    /// When this was so, in Unix milliseconds by the object's clock.
    pub at: u64,
    /// The provider, if anything has been heard of it, and its models.
    pub states: Vec<StateView>,
    /// Requests that are counted as open at the provider.
    pub open: u64,
}

/// `POST /state`: how does a provider stand?
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GaugeQuery {
    /// The provider.
    pub provider: String,
    /// Its limits.
    pub rules: Vec<Rule>,
}

/// What a gauge is at. `GET /state?provider=` tells it by the limits that were in use last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GaugeState {
    /// When this was so, in Unix milliseconds by the object's clock.
    pub at: u64,
    /// How each of the provider's limits stands.
    pub states: Vec<RuleState>,
    /// What was used in the running calendar periods.
    pub totals: Totals,
    /// Requests that are open at the provider.
    pub open: u64,
    /// The same of every key that has any.
    pub open_by_key: BTreeMap<String, u64>,
    /// Since when the oldest of each key's is open, in Unix milliseconds.
    pub open_since: BTreeMap<String, u64>,
    /// The object's storage, in bytes.
    pub stored_bytes: u64,
}

/// `GET /counts`: how many requests are open, at one moment, at each provider that the gauge counts for?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GaugeCounts {
    /// When this was so, in Unix milliseconds by the object's clock.
    pub at: u64,
    /// By provider.
    pub open: BTreeMap<String, u64>,
}

// === Status ===

/// What a ledger is at, for the control plane's health page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerStatus {
    /// The account's revision; 0 if none was pushed.
    pub account_revision: u64,
    /// Whether the account is suspended.
    pub suspended: bool,
    /// Keys that it knows, those that are gone included.
    pub keys: u64,
    /// Usage entries that have not reached the database.
    pub pending_usage: u64,
    /// Reservations and leases that are open.
    pub open: u64,
    /// Settlements that came after their reservation had been charged, since the object was started.
    pub late_settlements: u64,
    /// The last batch that has reached the database.
    pub flushed_batch: u64,
    /// Why the last attempt failed; empty if it did not.
    pub last_error: String,
    /// The object's storage, in bytes.
    pub stored_bytes: u64,
}
