//! What is deleted when.

use crate::config::Retention;

/// Rows that one statement deletes at most: D1 has one thread, and others wait for it.
pub const ROWS: u64 = 2_000;

/// Statements a table and run at most. What is left is deleted a minute later.
pub const ROUNDS: usize = 10;

const DAY: u64 = 86_400;

/// Failed sign-ins are remembered this long after the last one, in seconds.
const SIGN_INS: u64 = 7 * DAY;

/// Batches of usage are remembered this long, in seconds: long after their ledger has stopped repeating them.
const BATCHES: u64 = 7 * DAY;

/// A table's rows that are too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// The table.
    pub table: &'static str,
    /// Deletes up to `?2` rows from before `?1`.
    pub statement: &'static str,
    /// The limit of age, in the unit of the table's column.
    pub before: u64,
}

/// Everything that is to be deleted; `now` is in Unix seconds.
pub fn sweeps(retention: &Retention, now: u64) -> [Sweep; 8] {
    let ago = |seconds: u64| now.saturating_sub(seconds);
    let days = |days: u64| ago(days.saturating_mul(DAY));
    [
        Sweep {
            table: "request_records",
            statement: "DELETE FROM request_records WHERE (account_id, request_id) IN (SELECT account_id, request_id \
                        FROM request_records WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)",
            before: days(retention.request_records_days).saturating_mul(1_000),
        },
        Sweep {
            table: "usage",
            statement: "DELETE FROM usage WHERE (account_id, minute, key_id, user_id, model, provider) IN (SELECT \
                        account_id, minute, key_id, user_id, model, provider FROM usage WHERE minute < ?1 \
                        ORDER BY minute LIMIT ?2)",
            before: days(retention.usage_days) / 60,
        },
        Sweep {
            table: "health_history",
            statement: "DELETE FROM health_history WHERE id IN \
                        (SELECT id FROM health_history WHERE at < ?1 ORDER BY at LIMIT ?2)",
            before: days(retention.health_history_days),
        },
        Sweep {
            table: "alert_events",
            statement: "DELETE FROM alert_events WHERE id IN (SELECT id FROM alert_events \
                        WHERE started_at < ?1 AND resolved_at < ?1 ORDER BY started_at LIMIT ?2)",
            before: days(retention.alert_history_days),
        },
        Sweep {
            table: "sessions",
            statement: "DELETE FROM sessions WHERE id IN \
                        (SELECT id FROM sessions WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)",
            before: days(retention.sessions_days),
        },
        Sweep {
            table: "idempotency_keys",
            statement: "DELETE FROM idempotency_keys WHERE id IN \
                        (SELECT id FROM idempotency_keys WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)",
            before: now,
        },
        Sweep {
            table: "sign_in_attempts",
            statement: "DELETE FROM sign_in_attempts WHERE subject IN (SELECT subject FROM sign_in_attempts \
                        WHERE last_at < ?1 AND locked_until < ?1 ORDER BY last_at LIMIT ?2)",
            before: ago(SIGN_INS),
        },
        Sweep {
            table: "usage_batches",
            statement: "DELETE FROM usage_batches WHERE (object, sequence) IN (SELECT object, sequence \
                        FROM usage_batches WHERE applied_at < ?1 ORDER BY applied_at LIMIT ?2)",
            before: ago(BATCHES),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_in_its_tables_unit() {
        let now = 1_000 * DAY;
        let retention = Retention {
            request_records_days: 1,
            usage_days: 2,
            health_history_days: 3,
            alert_history_days: 4,
            sessions_days: 5,
        };
        let before: Vec<(&str, u64)> = sweeps(&retention, now).iter().map(|s| (s.table, s.before)).collect();
        let expected = [
            ("request_records", 999 * DAY * 1_000),
            ("usage", 998 * 24 * 60),
            ("health_history", 997 * DAY),
            ("alert_events", 996 * DAY),
            ("sessions", 995 * DAY),
            ("idempotency_keys", now),
            ("sign_in_attempts", 993 * DAY),
            ("usage_batches", 993 * DAY),
        ];
        assert_eq!(before, expected);
        assert!(sweeps(&retention, 0).iter().all(|sweep| sweep.before == 0), "nothing is older than time");
    }

    #[test]
    fn every_statement_is_bounded() {
        for sweep in sweeps(&Retention::default(), 0) {
            assert!(sweep.statement.contains(&format!("DELETE FROM {} ", sweep.table)), "{}", sweep.table);
            assert!(sweep.statement.ends_with("LIMIT ?2)") && sweep.statement.contains("< ?1"), "{}", sweep.table);
        }
    }
}
