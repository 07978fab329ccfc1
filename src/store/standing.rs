//! What an isolate knows of keys' and accounts' standing, and when it must ask their ledger.
//!
//! The ledger's word is good for `revocation_check_ms` from when it was asked for, so a key that is revoked is dead that
//! long after, wherever it is used. A busy key is asked for a little earlier than it must be, by one request.

use std::collections::HashMap;

use super::freshness::{Bounds, Freshness, Step};
use crate::auth::AuthError;
use crate::auth::api_key::KeyRecord;
use crate::config::WhenUnreachable;
use crate::error::{Kind, Problem};
use crate::limits::ledger::Verdict;
use crate::objects::wire::{PATIENCE_MS, Standing};

/// Why a caller whose credential is right may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The secret is good no more.
    #[error("the account's ledger says that the key is revoked")]
    Revoked,
    /// The account is suspended.
    #[error("the account is suspended")]
    Suspended,
    /// Nobody can tell.
    #[error("the account's ledger cannot be reached")]
    Unreachable,
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Revoked => AuthError::Disabled.into(),
            Refused::Suspended => Self::new(
                Kind::Permission,
                "account_suspended",
                "The account of this API key is suspended. Ask its owner, or the operator of the gateway.",
            )
            .final_answer(),
            Refused::Unreachable => Self::new(
                Kind::Unavailable,
                "key_status_unavailable",
                "It cannot be told at the moment whether this API key is still in use. Try again shortly.",
            ),
        }
    }
}

/// What to do with a caller whose credential is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This is known.
    Known(Result<(), Refused>),
    /// The ledger must be asked.
    Ask,
}

/// What an answer comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Learnt {
    /// This.
    Known(Result<(), Refused>),
    /// There is a newer record of the key: the credential must be judged by that.
    Newer(Box<KeyRecord>),
}

#[derive(Debug, Default)]
struct Entry {
    freshness: Freshness,
    /// The record that the ledger judged.
    revision: u64,
    standing: Option<Result<(), Refused>>,
    /// Whether the ledger has said that limits of the account, the user or the key may apply.
    limited: Option<bool>,
}

/// The standing of keys (by public id) and, for callers without one, accounts.
#[derive(Debug)]
pub struct Standings {
    entries: HashMap<String, Entry>,
    capacity: usize,
}

impl Standings {
    /// Nothing is known yet; at most `capacity` entries will be.
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity }
    }

    /// Decides what to do; `revision` is that of the record which the credential was judged by.
    pub fn next(&mut self, name: &str, revision: u64, now: u64, check_ms: u64) -> Next {
        let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.revision == revision) else {
            return Next::Ask;
        };
        let fresh_ms = check_ms.saturating_sub(check_ms / 4);
        let bounds = Bounds { fresh_ms, stale_ms: check_ms, patience_ms: PATIENCE_MS };
        match (entry.freshness.step(now, bounds), entry.standing) {
            (Step::Use, Some(standing)) => Next::Known(standing),
            _ => Next::Ask,
        }
    }

    /// Whether limits that the control plane has set may apply to the caller; `None` if the ledger has never said.
    pub fn limited(&self, name: &str) -> Option<bool> {
        self.entries.get(name)?.limited
    }

    /// Notes the ledger's answer to a question asked at `asked_at`, or that there was none.
    pub fn learn(
        &mut self,
        name: &str,
        revision: u64,
        asked_at: u64,
        answer: Option<Standing>,
        policy: WhenUnreachable,
    ) -> Learnt {
        if self.entries.len() >= self.capacity && !self.entries.contains_key(name) {
            self.entries.clear();
        }
        let entry = self.entries.entry(name.to_owned()).or_default();
        let limited = answer.as_ref().map(|answer| answer.limited);
        let (standing, revision, newer) = match answer {
            None => {
                let known = entry.standing.filter(|known| *known != Err(Refused::Unreachable));
                let standing = match (policy, known) {
                    (WhenUnreachable::Allow, Some(known)) => known,
                    (WhenUnreachable::Allow, None) => Ok(()),
                    (WhenUnreachable::Deny, _) => Err(Refused::Unreachable),
                };
                (standing, revision, None)
            }
            Some(Standing { account_suspended: true, .. }) => (Err(Refused::Suspended), revision, None),
            Some(Standing { verdict: Verdict::Revoked, .. }) => (Err(Refused::Revoked), revision, None),
            Some(Standing { verdict: Verdict::Current | Verdict::Unknown, .. }) => (Ok(()), revision, None),
            Some(Standing { verdict: Verdict::Newer(record), .. }) => (Ok(()), record.revision, Some(record)),
        };
        if entry.freshness.is_news(asked_at) {
            entry.freshness.learnt(asked_at);
            entry.revision = revision;
            entry.standing = Some(standing);
            entry.limited = limited.or(entry.limited);
        }
        newer.map_or(Learnt::Known(standing), Learnt::Newer)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: WhenUnreachable = WhenUnreachable::Allow;

    fn said(verdict: Verdict) -> Option<Standing> {
        Some(Standing { verdict, account_suspended: false, limited: false })
    }

    #[test]
    fn the_ledgers_word_is_good_for_a_while_from_when_it_was_asked_for() {
        let mut known = Standings::new(10);
        assert_eq!(known.next("p", 1, 0, 1_000), Next::Ask);
        assert_eq!(known.learn("p", 1, 0, said(Verdict::Current), ALLOW), Learnt::Known(Ok(())));
        assert_eq!(known.next("p", 1, 749, 1_000), Next::Known(Ok(())));
        assert_eq!(known.next("p", 1, 750, 1_000), Next::Ask, "one asks early …");
        assert_eq!(known.next("p", 1, 999, 1_000), Next::Known(Ok(())), "… and the others need not");
        assert_eq!(known.next("p", 1, 1_000, 1_000), Next::Ask);
        assert_eq!(known.next("p", 1, 1_000, 0), Next::Ask, "0 asks on every request");
    }

    #[test]
    fn a_record_that_the_ledger_has_not_judged_is_asked_for() {
        let mut known = Standings::new(10);
        known.learn("p", 2, 0, said(Verdict::Current), ALLOW);
        assert_eq!(known.next("p", 1, 1, 1_000), Next::Ask, "KV gave an older record again");
    }

    #[test]
    fn the_ledgers_newer_record_is_the_one_that_was_judged() {
        let mut known = Standings::new(10);
        let record = KeyRecord { revision: 5, ..KeyRecord::default() };
        let newer = said(Verdict::Newer(Box::new(record.clone())));
        assert_eq!(known.learn("p", 1, 0, newer, ALLOW), Learnt::Newer(Box::new(record)));
        assert_eq!(known.next("p", 5, 1, 1_000), Next::Known(Ok(())));
    }

    #[test]
    fn revoked_and_suspended_are_refused() {
        let mut known = Standings::new(10);
        assert_eq!(known.learn("p", 1, 0, said(Verdict::Revoked), ALLOW), Learnt::Known(Err(Refused::Revoked)));
        let suspended = Some(Standing { verdict: Verdict::Current, account_suspended: true, limited: false });
        assert_eq!(known.learn("q", 1, 0, suspended, ALLOW), Learnt::Known(Err(Refused::Suspended)));
        assert_eq!(known.next("q", 1, 1, 1_000), Next::Known(Err(Refused::Suspended)));
        let told = |refused: Refused| (Problem::from(refused).status, Problem::from(refused).retryable);
        assert_eq!(told(Refused::Revoked), (401, Some(false)));
        assert_eq!(told(Refused::Suspended), (403, Some(false)));
        assert_eq!(told(Refused::Unreachable).0, 503);
    }

    #[test]
    fn without_the_ledger_the_policy_decides_and_what_was_revoked_stays_so() {
        let mut known = Standings::new(10);
        assert_eq!(known.learn("p", 1, 0, None, ALLOW), Learnt::Known(Ok(())));
        assert_eq!(known.next("p", 1, 500, 1_000), Next::Known(Ok(())), "not every request waits for it");
        known.learn("p", 1, 1_000, said(Verdict::Revoked), ALLOW);
        assert_eq!(known.learn("p", 1, 2_000, None, ALLOW), Learnt::Known(Err(Refused::Revoked)));
        let denied = known.learn("q", 1, 0, None, WhenUnreachable::Deny);
        assert_eq!(denied, Learnt::Known(Err(Refused::Unreachable)));
        assert_eq!(known.learn("q", 1, 1, None, ALLOW), Learnt::Known(Ok(())), "the policy has changed");
    }

    #[test]
    fn whether_limits_apply_is_remembered_while_the_ledger_is_silent() {
        let mut known = Standings::new(10);
        assert_eq!(known.limited("p"), None);
        known.learn("p", 1, 0, None, ALLOW);
        assert_eq!(known.limited("p"), None);
        let limited = Some(Standing { verdict: Verdict::Current, account_suspended: false, limited: true });
        known.learn("p", 1, 1, limited, ALLOW);
        known.learn("p", 1, 2, None, ALLOW);
        assert_eq!(known.limited("p"), Some(true));
        known.learn("p", 1, 3, said(Verdict::Current), ALLOW);
        assert_eq!(known.limited("p"), Some(false));
    }

    #[test]
    fn an_answer_that_was_overtaken_does_not_replace_a_newer_one() {
        let mut known = Standings::new(10);
        known.learn("p", 1, 100, said(Verdict::Revoked), ALLOW);
        known.learn("p", 1, 50, said(Verdict::Current), ALLOW);
        assert_eq!(known.next("p", 1, 101, 1_000), Next::Known(Err(Refused::Revoked)));
    }
}
