//! What limits have reserved for a request, until the request is settled.
//!
//! A reservation stands in its request's [`Slot`] from before it is asked for until the request has ended, however it
//! ends: the slot outlives a panic. Whoever ends the request takes it out and settles it. One that is lost all the same,
//! with its isolate, is charged as reserved when its time is up.

use std::cell::RefCell;
use std::rc::Rc;

use crate::limits::amounts::Amounts;
use crate::telemetry::{Outcome, RequestRecord};

/// The place for a request's reservation.
pub type Slot = Rc<RefCell<Option<Reservation>>>;

/// By whom a request was admitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Admission {
    /// By nobody: no limit of the account, user or key applies, or the answer is not there yet.
    #[default]
    Free,
    /// By its account's ledger.
    Ledger,
    /// By this isolate, out of a lease.
    Lease,
    /// By this isolate, because the ledger has not answered.
    Fallback(Fallback),
}

/// What an isolate did in the ledger's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing that is known of applies, or is enforced.
    Open,
    /// It enforced rates by itself.
    Local,
    /// It took the cost from the key's grace.
    Grace,
}

/// What was reserved for a request.
#[must_use = "what is reserved must be settled"]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reservation {
    /// The request's settlement id.
    pub id: String,
    /// The account.
    pub account: String,
    /// The key.
    pub key_id: String,
    /// The user that the key belongs to.
    pub user: Option<String>,
    /// The model of the configuration.
    pub model: String,
    /// The provider.
    pub provider: String,
    /// How much.
    pub amounts: Amounts,
    /// By whom.
    pub admission: Admission,
    /// Whether the request was refused after all, by something else: it is as if it had never been.
    pub refused: bool,
    /// Whether the ledger was asked and has not answered: it may have reserved something.
    pub unanswered: bool,
    /// The lease that came with it, and until when that is good, in Unix milliseconds: its watch is this request's.
    pub watches: Option<(String, u64)>,
    /// Its place at a provider, if a gauge was asked: it may count the request.
    pub hold: Option<Hold>,
    /// Whether the provider has been asked.
    pub dispatched: bool,
    /// How often the ledger has been asked for it after the first time.
    pub turn: u32,
}

/// A place at a provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hold {
    /// The gauge that counts it.
    pub gauge: String,
    /// The provider.
    pub provider: String,
    /// The attempt's id there.
    pub id: String,
    /// Whether the provider has been asked in it.
    pub used: bool,
    /// Whether nothing of it matters but that it is open.
    pub passing: bool,
}

impl Reservation {
    /// Whether the request counts in the account's limits.
    pub fn counts(&self) -> bool {
        !self.refused && self.admission != Admission::Free
    }

    /// Whether the ledger must hear of the request's end, whatever is recorded of it.
    pub fn must_be_told(&self) -> bool {
        self.admission != Admission::Free || self.unanswered
    }

    /// Fills in what a record has lost with its request's panic. What was on its way to a provider has cost something:
    /// it is charged as reserved.
    pub fn complete(&self, record: &mut RequestRecord) {
        record.settlement_id.clone_from(&self.id);
        record.account.clone_from(&self.account);
        record.key_id.clone_from(&self.key_id);
        record.user = self.user.clone().unwrap_or_default();
        record.model.clone_from(&self.model);
        record.deployment.clone_from(&self.model);
        record.provider.clone_from(&self.provider);
        record.outcome = Outcome::Failed;
        if self.dispatched {
            record.attempts = 1;
            record.charge_as_reserved(&self.amounts);
        }
    }
}

impl Admission {
    /// The name in records; empty where no limit was in question.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Free => "",
            Self::Ledger => "ledger",
            Self::Lease => "lease",
            Self::Fallback(Fallback::Open) => "unreachable",
            Self::Fallback(Fallback::Local) => "local",
            Self::Fallback(Fallback::Grace) => "grace",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_panicked_on_its_way_is_charged_as_reserved() {
        let reservation = Reservation {
            id: "s".into(),
            account: "a".into(),
            key_id: "k".into(),
            user: Some("u".into()),
            model: "m".into(),
            provider: "p".into(),
            amounts: Amounts { requests: 1, input: 5, output: 7, cost: 9 },
            admission: Admission::Ledger,
            refused: false,
            watches: None,
            unanswered: false,
            hold: None,
            dispatched: true,
            turn: 0,
        };
        let mut record = RequestRecord { settlement_id: "fresh".into(), ..RequestRecord::default() };
        reservation.complete(&mut record);
        assert_eq!((record.settlement_id.as_str(), record.account.as_str(), record.user.as_str()), ("s", "a", "u"));
        assert_eq!(record.usage.map(|usage| (usage.input, usage.output)), Some((5, 7)));
        assert_eq!((record.cost_nanodollars.map(|cost| cost.0), record.usage_estimated), (Some(9), true));
        let mut record = RequestRecord::default();
        Reservation { dispatched: false, ..reservation.clone() }.complete(&mut record);
        assert_eq!((record.attempts, record.usage), (0, None));
    }

    #[test]
    fn what_is_reserved_is_released_and_what_may_be_as_well() {
        let reservation = Reservation { id: "s".into(), ..Reservation::default() };
        assert!(!reservation.counts() && !reservation.must_be_told());
        let unanswered = Reservation { unanswered: true, ..reservation.clone() };
        assert!(!unanswered.counts() && unanswered.must_be_told());
        let granted = Reservation { admission: Admission::Ledger, ..reservation };
        assert!(granted.counts() && granted.must_be_told());
        let refused = Reservation { refused: true, ..granted };
        assert!(!refused.counts() && refused.must_be_told());
    }
}
