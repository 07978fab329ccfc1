//! An isolate's leases: what it may admit without asking.
//!
//! A lease is used from when it was asked for until its time is over, by the isolate's own clock alone. It is given back
//! as soon as no request of the isolate needs it: the last one out takes it along. What is given back names the requests
//! that were admitted from it and of which the isolate does not know that their settlement has arrived.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::amounts::{Amounts, AskPrices, of_request};
use super::ask::{Grant, LeaseReturn, LeaseUse, OpenUse, RuleState};

/// Leases that are kept at most; more are given back at once.
const MOST_LEASES: usize = 1_000;

/// For whom a lease is good.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lessee {
    /// The account.
    pub account: String,
    /// The key.
    pub key_id: String,
    /// The user.
    pub user: Option<String>,
    /// The model as callers name it.
    pub model: String,
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens at most.
    pub max_output_tokens: u64,
    /// What they cost.
    pub prices: Option<AskPrices>,
}

/// A request that was admitted from a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// What it took from which lease: part of its settlement.
    pub used: LeaseUse,
    /// How the rules stood when the lease was granted.
    pub states: Rc<[RuleState]>,
}

/// The leases of an isolate.
#[derive(Debug, Default)]
pub struct Holder {
    leases: BTreeMap<String, Lease>,
    lessees: HashMap<Lessee, Vec<String>>,
    /// The lease of each request that needs one.
    requests: HashMap<String, LeaseUse>,
    /// Leases to be given back, with their accounts.
    due: Vec<(String, LeaseReturn)>,
}

#[derive(Debug)]
struct Lease {
    lessee: Lessee,
    left: Amounts,
    output_tokens: u64,
    until: u64,
    states: Rc<[RuleState]>,
    requests: BTreeMap<String, Request>,
}

/// A request of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// It brought the lease along and takes nothing from it.
    Bringer,
    /// Admitted from it.
    Running(Amounts),
    /// Settled, but the settlement has not arrived as far as is known.
    Settled(Amounts),
}

impl Holder {
    /// A request was granted, and perhaps a lease with it. `sent_at` is the time, by the isolate's clock, before the
    /// question was sent.
    pub fn granted(&mut self, sent_at: u64, id: &str, lessee: &Lessee, grant: &Grant) {
        let Some(lease) = &grant.lease else { return };
        if self.leases.contains_key(&lease.id) {
            return;
        }
        if self.leases.len() >= MOST_LEASES {
            self.due.push((lessee.account.clone(), LeaseReturn { id: lease.id.clone(), open: Vec::new() }));
            return;
        }
        let held = Lease {
            lessee: lessee.clone(),
            left: lease.block,
            output_tokens: lease.output_tokens,
            until: sent_at.saturating_add(lease.ttl_ms),
            states: grant.states.as_slice().into(),
            requests: BTreeMap::from([(id.to_owned(), Request::Bringer)]),
        };
        self.leases.insert(lease.id.clone(), held);
        self.lessees.entry(lessee.clone()).or_default().push(lease.id.clone());
        self.requests.insert(id.to_owned(), LeaseUse { id: lease.id.clone(), reserved: Amounts::default() });
    }

    /// Admits a request from a lease; `None` if the ledger must be asked.
    pub fn admit(&mut self, now: u64, id: &str, lessee: &Lessee, need: &Need) -> Option<Local> {
        for lease_id in self.lessees.get(lessee)? {
            let Some(lease) = self.leases.get_mut(lease_id).filter(|lease| now < lease.until) else { continue };
            let output = need.max_output_tokens.min(lease.output_tokens);
            let reserved = of_request(need.input_tokens, output, need.prices.as_ref());
            if reserved.fits_in(&lease.left) {
                lease.left = lease.left.minus(&reserved);
                lease.requests.insert(id.to_owned(), Request::Running(reserved));
                let used = LeaseUse { id: lease_id.clone(), reserved };
                self.requests.insert(id.to_owned(), used.clone());
                return Some(Local { used, states: Rc::clone(&lease.states) });
            }
        }
        None
    }

    /// A request is over, and its settlement is about to be sent: what it took from which lease.
    pub fn settled(&mut self, id: &str) -> Option<LeaseUse> {
        let used = self.requests.remove(id)?;
        let lease = self.leases.get_mut(&used.id);
        let request = lease.and_then(|lease| match lease.requests.get_mut(id)? {
            Request::Bringer => lease.requests.remove(id),
            request => {
                if let Request::Running(reserved) = *request {
                    *request = Request::Settled(reserved);
                }
                Some(*request)
            }
        });
        (request != Some(Request::Bringer) && !used.reserved.is_zero()).then_some(used)
    }

    /// A settlement has arrived.
    pub fn acknowledged(&mut self, id: &str, used: &LeaseUse) {
        if let Some(lease) = self.leases.get_mut(&used.id) {
            lease.requests.remove(id);
        }
    }

    /// What is to be given back to an account's ledger: leases whose time is over, and those that no request needs. They
    /// are used no more.
    pub fn returns(&mut self, now: u64, account: &str) -> Vec<LeaseReturn> {
        let is_due = |lease: &Lease| {
            lease.lessee.account == account
                && (lease.until <= now || lease.requests.values().all(|request| matches!(request, Request::Settled(_))))
        };
        let due: Vec<String> =
            self.leases.iter().filter(|(_, lease)| is_due(lease)).map(|(id, _)| id.clone()).collect();
        let mut returns: Vec<LeaseReturn> = due.into_iter().filter_map(|id| self.drop_lease(id)).collect();
        self.due.retain(|(of, returned)| {
            if of == account {
                returns.push(returned.clone());
            }
            of != account
        });
        returns
    }

    /// What was to be given back did not arrive: it is due again.
    pub fn not_returned(&mut self, account: &str, returns: Vec<LeaseReturn>) {
        self.due.extend(returns.into_iter().map(|returned| (account.to_owned(), returned)));
    }

    /// The accounts that something is to be given back to.
    pub fn accounts_due(&self, now: u64) -> Vec<String> {
        let over = self.leases.values().filter(|lease| lease.until <= now).map(|lease| &lease.lessee.account);
        let mut accounts: Vec<String> = self.due.iter().map(|(account, _)| account).chain(over).cloned().collect();
        accounts.sort();
        accounts.dedup();
        accounts
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there is no lease.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    fn drop_lease(&mut self, id: String) -> Option<LeaseReturn> {
        let lease = self.leases.remove(&id)?;
        if let Some(ids) = self.lessees.get_mut(&lease.lessee) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.lessees.remove(&lease.lessee);
            }
        }
        let open = lease.requests.into_iter().filter_map(|(id, request)| match request {
            Request::Bringer => None,
            Request::Running(reserved) | Request::Settled(reserved) => Some(OpenUse { id, reserved }),
        });
        Some(LeaseReturn { id, open: open.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ask::LeaseGrant;
    use super::*;

    fn lessee() -> Lessee {
        Lessee { account: "a".into(), key_id: "k".into(), user: None, model: "m".into() }
    }

    fn grant(id: &str, requests: u64) -> Grant {
        let block = Amounts { requests, input: 100, output: 100, cost: 0 };
        Grant { lease: Some(LeaseGrant { id: id.into(), block, output_tokens: 20, ttl_ms: 1_000 }), ..Grant::default() }
    }

    const NEED: Need = Need { input_tokens: 10, max_output_tokens: 30, prices: None };

    #[test]
    fn a_lease_admits_what_fits_until_its_time_is_over() {
        let mut holder = Holder::default();
        assert_eq!(holder.admit(0, "1", &lessee(), &NEED), None);
        holder.granted(500, "0", &lessee(), &grant("l", 3));
        let local = holder.admit(1_400, "1", &lessee(), &NEED).unwrap();
        assert_eq!(local.used.reserved, Amounts { requests: 1, input: 10, output: 20, cost: 0 });
        assert_eq!(holder.admit(1_400, "2", &lessee(), &Need { input_tokens: 91, ..NEED }), None);
        let short = holder.admit(1_400, "3", &lessee(), &Need { max_output_tokens: 5, ..NEED }).unwrap();
        assert_eq!(short.used.reserved.output, 5);
        assert_eq!(holder.admit(1_400, "4", &Lessee { model: "n".into(), ..lessee() }, &NEED), None);
        assert_eq!(holder.admit(1_500, "5", &lessee(), &NEED), None, "its time is over");
        assert_eq!(holder.accounts_due(1_500), ["a"]);
        let returns = holder.returns(1_500, "a");
        let open: Vec<_> = returns[0].open.iter().map(|open| open.id.as_str()).collect();
        assert_eq!((open, holder.len()), (vec!["1", "3"], 0));
        assert_eq!(holder.settled("1"), Some(local.used), "its settlement still says where it belongs");
        assert!(holder.returns(1_500, "a").is_empty());
    }

    #[test]
    fn the_last_one_out_gives_the_lease_back() {
        let mut holder = Holder::default();
        holder.granted(0, "0", &lessee(), &grant("l", 3));
        assert!(holder.returns(1, "a").is_empty(), "who brought it is not over");
        let one = holder.admit(1, "1", &lessee(), &NEED).unwrap();
        assert_eq!(holder.settled("0"), None);
        assert!(holder.admit(1, "2", &lessee(), &NEED).is_some());
        assert_eq!(holder.settled("1"), Some(one.used.clone()));
        assert!(holder.returns(2, "a").is_empty() && holder.accounts_due(2).is_empty());
        holder.acknowledged("1", &one.used);
        assert!(holder.settled("2").is_some() && holder.settled("2").is_none());
        assert!(holder.returns(2, "b").is_empty());
        let returns = holder.returns(2, "a");
        assert_eq!((returns[0].id.as_str(), returns[0].open.len(), returns[0].open[0].id.as_str()), ("l", 1, "2"));
        holder.not_returned("a", returns.clone());
        assert_eq!((holder.accounts_due(2), holder.returns(2, "a")), (vec!["a".to_owned()], returns));
    }

    #[test]
    fn more_leases_than_can_be_kept_are_given_back() {
        let mut holder = Holder::default();
        for n in 0..=MOST_LEASES {
            holder.granted(0, &n.to_string(), &lessee(), &grant(&format!("l{n}"), 1));
        }
        assert_eq!((holder.len(), holder.returns(1, "a").len()), (MOST_LEASES, 1));
    }
}
