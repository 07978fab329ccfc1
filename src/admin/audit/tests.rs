use super::*;
use proptest::prelude::*;
use serde_json::json;

const KEY: [u8; 32] = [7; 32];

fn entry(sequence: u64, after: Value) -> AuditEntry {
    AuditEntry {
        sequence,
        at_ms: 1000 + sequence,
        actor_kind: "user".into(),
        actor_id: "usr_1".into(),
        actor_name: "Ada".into(),
        action: "keys:update".into(),
        outcome: "done".into(),
        target_kind: "key".into(),
        target_id: "key_1".into(),
        account_id: "a".into(),
        before: json!({}),
        after,
        ip: "192.0.2.1".into(),
        user_agent: "test".into(),
        request_id: "r".into(),
        hash: String::new(),
    }
}

fn log(length: u64) -> Vec<AuditEntry> {
    let mut previous = BEGINNING.to_owned();
    (1..=length)
        .map(|sequence| {
            let mut entry = entry(sequence, json!({"n": sequence}));
            entry.hash = chain("id", &KEY, &previous, &entry);
            previous.clone_from(&entry.hash);
            entry
        })
        .collect()
}

#[test]
fn the_order_of_members_does_not_matter() {
    let one = chain("id", &KEY, "", &entry(1, json!({"a": 1, "b": {"c": 2, "d": 3}})));
    assert_eq!(one, chain("id", &KEY, "", &entry(1, json!({"b": {"d": 3, "c": 2}, "a": 1}))));
    assert_eq!(one.len(), 3 + 64);
    assert_ne!(one, chain("id", &[8; 32], "", &entry(1, json!({"a": 1, "b": {"c": 2, "d": 3}}))));
}

#[test]
fn only_differences_are_kept_and_no_secrets() {
    let (before, after) = difference(&json!({"a": 1, "b": 2}), &json!({"a": 1, "b": 3, "c": 4}));
    assert_eq!((before, after), (json!({"b": 2}), json!({"b": 3, "c": 4})));
    let redacted = redact(
        json!({"value": "sk", "nested": [{"refresh_token": "x"}], "worker_secret": "NAME", "name": "n", "hash": null}),
    );
    assert_eq!(
        redacted,
        json!({"value": "[redacted]", "nested": [{"refresh_token": "[redacted]"}], "worker_secret": "NAME", "name": "n", "hash": null})
    );
}

/// As the database has an entry.
fn stored(entry: &AuditEntry) -> StoredEntry {
    let mut row = serde_json::to_value(entry).unwrap();
    row["before"] = entry.before.to_string().into();
    row["after"] = entry.after.to_string().into();
    serde_json::from_value(row).unwrap()
}

fn place(sequence: i64) -> Place {
    Place { sequence, hash: format!("h{sequence}") }
}

#[test]
fn a_run_follows_on_the_entry_before_it() {
    assert_eq!(hash_before(1, None, None).as_deref(), Ok(BEGINNING));
    assert_eq!(hash_before(1, None, Some(&place(9))).as_deref(), Ok(BEGINNING));
    assert_eq!(hash_before(5, Some(&place(4)), Some(&place(9))).as_deref(), Ok("h4"));
    assert_eq!(hash_before(10, Some(&place(9)), Some(&place(9))).as_deref(), Ok("h9"));
    assert_eq!(hash_before(50, Some(&place(9)), Some(&place(9))).as_deref(), Ok(BEGINNING), "behind the end");
}

#[test]
fn what_is_missing_or_forged_before_a_run_is_found() {
    assert_eq!(hash_before(5, Some(&place(2)), Some(&place(9))), Err(3));
    assert_eq!(hash_before(5, None, Some(&place(9))), Err(1));
    assert_eq!(hash_before(1, Some(&place(0)), Some(&place(9))), Err(0));
    assert_eq!(hash_before(1, Some(&place(-3)), Some(&place(9))), Err(0));
    assert_eq!(hash_before(3, Some(&place(-3)), Some(&place(9))), Err(1));
}

#[test]
fn an_entry_that_cannot_be_read_is_broken() {
    let entries = log(4);
    let run: Vec<StoredEntry> = entries.iter().map(stored).collect();
    let whole = Checked { intact: 4, broken_at: None, last_hash: entries[3].hash.clone() };
    assert_eq!(check_run(&|_| Some(KEY), BEGINNING, 1, run.clone()), whole);
    for tamper in [
        |entry: &mut StoredEntry| entry.after = "{".into(),
        |entry: &mut StoredEntry| entry.at_ms = -1,
        |entry: &mut StoredEntry| entry.before = "\"\\ud800\"".into(),
    ] {
        let mut run = run.clone();
        tamper(&mut run[2]);
        let found = check_run(&|_| Some(KEY), BEGINNING, 1, run);
        assert_eq!((found.intact, found.broken_at), (2, Some(3)));
    }
    let nothing = check_run(&|_| Some(KEY), "h", 7, Vec::new());
    assert_eq!(nothing, Checked { intact: 0, broken_at: None, last_hash: "h".into() });
}

proptest! {
    #[test]
    fn runs_join(length in 1u64..12, cut in 0usize..12) {
        let run: Vec<StoredEntry> = log(length).iter().map(stored).collect();
        let (first, second) = run.split_at(cut.min(run.len()));
        let one = check_run(&|_| Some(KEY), BEGINNING, 1, first.to_vec());
        let two = check_run(&|_| Some(KEY), &one.last_hash, 1 + one.intact, second.to_vec());
        prop_assert_eq!((one.broken_at, two.broken_at, one.intact + two.intact), (None, None, length));
    }

    #[test]
    fn numbers_survive_the_database(number in any::<f64>(), whole in any::<i64>()) {
        let mut entry = entry(1, json!({"number": number, "whole": whole}));
        entry.hash = chain("id", &KEY, BEGINNING, &entry);
        prop_assert_eq!(check_run(&|_| Some(KEY), BEGINNING, 1, vec![stored(&entry)]).broken_at, None);
    }

    #[test]
    fn every_tampering_is_found_where_it_happened(length in 1u64..12, at in 0usize..12, how in 0usize..4) {
        let mut entries = log(length);
        prop_assert_eq!(first_broken(&|_| Some(KEY), BEGINNING, 1, &entries), None);
        prop_assume!(at < entries.len());
        match how {
            0 => entries[at].after = json!({"n": 0}),
            1 => entries[at].actor_id.push('x'),
            2 if at + 1 < entries.len() => { entries.remove(at); }
            _ => {
                // Forged without the key, the rest of the chain put right.
                let previous = if at == 0 { String::new() } else { entries[at - 1].hash.clone() };
                entries[at].outcome = "refused".into();
                entries[at].hash = chain("id", &[0; 32], &previous, &entries[at]);
            }
        }
        prop_assert_eq!(first_broken(&|_| Some(KEY), BEGINNING, 1, &entries), Some(at as u64 + 1));
    }
}
