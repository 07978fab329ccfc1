//! The authority on an account's keys. KV is fast but may be half a minute behind; what stands here counts at once.
//!
//! Everything is pushed with a revision and applied only if it is newer than what is known: a push that comes late, twice
//! or out of order changes nothing. A public id that a key has once had is never forgotten, so that a rotated or deleted
//! secret stays dead although KV may still have it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::auth::api_key::KeyRecord;

/// What the control plane says of a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// The record of each secret that the key answers to, by public id.
    Records(BTreeMap<String, KeyRecord>),
    /// The key is gone. The public ids are those that it had, as far as the sender knows.
    Tombstone(BTreeSet<String>),
}

/// A key's state as the ledger keeps it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyEntry {
    /// Grows with each change.
    pub revision: u64,
    /// The good secrets' records by public id; empty for a key that is gone.
    pub records: BTreeMap<String, KeyRecord>,
    /// Public ids that are good no more.
    pub retired: BTreeSet<String>,
}

/// The account itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AccountEntry {
    /// Grows with each change.
    pub revision: u64,
    /// Whether it may not call models.
    pub suspended: bool,
    /// Its limits, as the control plane wrote them.
    pub limits: Value,
}

/// What the ledger says of a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The asker's record is the current one.
    Current,
    /// This record counts instead of the asker's.
    Newer(Box<KeyRecord>),
    /// The secret is good no more.
    Revoked,
    /// The ledger has never heard of it: KV's word counts.
    Unknown,
}

/// An account's keys and standing.
#[derive(Debug, Default)]
pub struct Ledger {
    account: AccountEntry,
    keys: HashMap<String, KeyEntry>,
    owners: HashMap<String, String>,
}

impl Ledger {
    /// A ledger as it was stored.
    pub fn restore(account: Option<AccountEntry>, keys: impl IntoIterator<Item = (String, KeyEntry)>) -> Self {
        let mut ledger = Self { account: account.unwrap_or_default(), ..Self::default() };
        for (id, entry) in keys {
            ledger.keep(id, entry);
        }
        ledger
    }

    /// Takes in what the control plane says of a key. The result is the entry to store, or `None` if it was not news.
    pub fn put_key(&mut self, key_id: &str, revision: u64, state: KeyState) -> Option<&KeyEntry> {
        let known = self.keys.get(key_id);
        if known.is_some_and(|known| known.revision >= revision) {
            return None;
        }
        let (records, gone) = match state {
            KeyState::Records(records) => (records, BTreeSet::new()),
            KeyState::Tombstone(gone) => (BTreeMap::new(), gone),
        };
        let before = known.into_iter().flat_map(|known| known.retired.iter().chain(known.records.keys()));
        let retired = before.chain(&gone).filter(|id| !records.contains_key(*id)).cloned().collect();
        let records = records.into_iter().map(|(id, record)| (id, KeyRecord { revision, ..record })).collect();
        self.keep(key_id.to_owned(), KeyEntry { revision, records, retired });
        self.keys.get(key_id)
    }

    /// Takes in what the control plane says of the account; whether it was news.
    pub fn put_account(&mut self, entry: AccountEntry) -> bool {
        let news = entry.revision > self.account.revision;
        if news {
            self.account = entry;
        }
        news
    }

    /// What is known of a key.
    pub fn key(&self, key_id: &str) -> Option<&KeyEntry> {
        self.keys.get(key_id)
    }

    /// What is known of the account.
    pub fn account(&self) -> &AccountEntry {
        &self.account
    }

    /// How many keys are known, those that are gone included.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Judges a secret by its public id; `revision` is that of the asker's record.
    pub fn check(&self, public_id: &str, revision: u64) -> Verdict {
        let Some(entry) = self.owners.get(public_id).and_then(|key_id| self.keys.get(key_id)) else {
            return Verdict::Unknown;
        };
        match entry.records.get(public_id) {
            None => Verdict::Revoked,
            Some(_) if entry.revision == revision => Verdict::Current,
            Some(record) => Verdict::Newer(Box::new(record.clone())),
        }
    }

    fn keep(&mut self, key_id: String, entry: KeyEntry) {
        for public_id in entry.records.keys().chain(&entry.retired) {
            self.owners.insert(public_id.clone(), key_id.clone());
        }
        self.keys.insert(key_id, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(name: &str) -> KeyRecord {
        serde_json::from_value(serde_json::json!({"hash": "h", "account": "a", "name": name})).unwrap()
    }

    fn records(ids: &[&str], name: &str) -> KeyState {
        KeyState::Records(ids.iter().map(|id| ((*id).to_owned(), record(name))).collect())
    }

    #[test]
    fn the_ledgers_record_counts_once_it_has_one() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.check("p1", 0), Verdict::Unknown);
        assert!(ledger.put_key("k", 3, records(&["p1"], "first")).is_some());
        assert_eq!(ledger.check("p1", 3), Verdict::Current);
        let Verdict::Newer(newer) = ledger.check("p1", 2) else { panic!("the ledger's record is newer") };
        assert_eq!((newer.name.as_str(), newer.revision), ("first", 3));
    }

    #[test]
    fn a_late_or_repeated_push_changes_nothing() {
        let mut ledger = Ledger::default();
        ledger.put_key("k", 3, records(&["p1"], "third"));
        assert!(ledger.put_key("k", 3, records(&["p1"], "again")).is_none());
        assert!(ledger.put_key("k", 2, KeyState::Tombstone(BTreeSet::new())).is_none());
        assert_eq!(ledger.check("p1", 3), Verdict::Current);
        assert!(ledger.put_account(AccountEntry { revision: 2, suspended: true, limits: Value::Null }));
        assert!(!ledger.put_account(AccountEntry { revision: 1, suspended: false, limits: Value::Null }));
        assert!(ledger.account().suspended);
    }

    #[test]
    fn a_secret_that_was_rotated_out_or_deleted_stays_dead() {
        let mut ledger = Ledger::default();
        ledger.put_key("k", 1, records(&["p1"], ""));
        ledger.put_key("k", 2, records(&["p1", "p2"], ""));
        ledger.put_key("k", 3, records(&["p2"], ""));
        assert_eq!((ledger.check("p1", 1), ledger.check("p2", 3)), (Verdict::Revoked, Verdict::Current));
        ledger.put_key("k", 4, KeyState::Tombstone(BTreeSet::from(["p0".to_owned()])));
        for id in ["p0", "p1", "p2"] {
            assert_eq!(ledger.check(id, 3), Verdict::Revoked, "{id}");
        }
    }

    #[test]
    fn a_stored_ledger_judges_as_before() {
        let mut ledger = Ledger::default();
        ledger.put_key("k", 1, records(&["p1", "p2"], ""));
        let entry = ledger.put_key("k", 2, records(&["p2"], "")).unwrap().clone();
        let stored: KeyEntry = serde_json::from_str(&serde_json::to_string(&entry).unwrap()).unwrap();
        let restored = Ledger::restore(Some(ledger.account().clone()), [("k".to_owned(), stored)]);
        for (id, revision) in [("p1", 1), ("p2", 1), ("p2", 2), ("p3", 0)] {
            assert_eq!(restored.check(id, revision), ledger.check(id, revision), "{id} {revision}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_pushes_does_not_matter_for_what_is_good(order in Just((0..5usize).collect::<Vec<_>>()).prop_shuffle(), twice in 0..5usize) {
            let states = [
                records(&["p1"], "1"), records(&["p1", "p2"], "2"), records(&["p2"], "3"), records(&["p2", "p3"], "4"),
                records(&["p3"], "5"),
            ];
            let mut ledger = Ledger::default();
            for nth in order.into_iter().chain([twice]) {
                ledger.put_key("k", (nth as u64).saturating_add(1), states[nth].clone());
            }
            prop_assert_eq!(ledger.check("p3", 5), Verdict::Current);
            for id in ["p1", "p2"] {
                prop_assert!(matches!(ledger.check(id, 5), Verdict::Revoked | Verdict::Unknown));
            }
        }
    }
}
