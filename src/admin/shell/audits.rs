//! The audit log.

use super::accounts;
use super::answer::{Answer, internal};
use super::context::Context;
use super::database::rows;
use super::page::page;
use crate::admin::audit::{self, Place, StoredEntry};
use crate::admin::filters;
use crate::admin::statement::Statement;
use crate::admin::types::records::{AuditEntry, AuditFilter, Verification, VerifyQuery};
use crate::error::Problem;
use crate::seal::Purpose;

macro_rules! columns {
    ($before:literal, $after:literal, $rest:literal) => {
        concat!(
            "SELECT json_object('sequence', sequence, 'at_ms', at_ms, 'actor_kind', actor_kind, 'actor_id', actor_id, \
             'actor_name', actor_name, 'action', action, 'outcome', outcome, 'target_kind', target_kind, \
             'target_id', target_id, 'account_id', account_id, 'before', ",
            $before,
            ", 'after', ",
            $after,
            ", 'ip', ip, 'user_agent', user_agent, 'request_id', request_id, 'hash', hash) AS row FROM audit_log ",
            $rest
        )
    };
}

/// Newest first. Each choice begins with a condition that an index serves.
macro_rules! search {
    ($choice:literal) => {
        concat!(
            columns!("json(before)", "json(after)", $choice),
            " AND at_ms >= ?1 AND at_ms < ?2 AND (?3 IS NULL OR target_id = ?3) AND (?4 IS NULL OR actor_id = ?4) \
             AND (?5 IS NULL OR account_id = ?5) AND (?6 IS NULL OR action = ?6) AND sequence < ?7 \
             ORDER BY sequence DESC LIMIT ?8"
        )
    };
}

const BY_TARGET: &str = search!("INDEXED BY audit_log_target WHERE target_id = ?3");
const BY_ACTOR: &str = search!("INDEXED BY audit_log_actor WHERE actor_id = ?4");
const BY_ACCOUNT: &str = search!("INDEXED BY audit_log_account WHERE account_id = ?5");
const BY_ACTION: &str = search!("INDEXED BY audit_log_action WHERE action = ?6");
const BY_TIME: &str = search!("INDEXED BY audit_log_at WHERE true");
const ALL: &str = search!("NOT INDEXED WHERE true");

// What was tampered with may be no JSON.
const RUN: &str = columns!("before", "after", "WHERE sequence >= ?1 ORDER BY sequence LIMIT ?2");
const HEAD: &str = "SELECT sequence, hash FROM audit_log ORDER BY sequence DESC LIMIT 1";
const BEFORE: &str = "SELECT sequence, hash FROM audit_log WHERE sequence < ?1 ORDER BY sequence DESC LIMIT 1";

/// How many entries are looked at together: some hold whole configurations.
const TOGETHER: u64 = 250;

/// How many entries are looked at in one call, unless it says otherwise.
const A_CALL: u32 = 5_000;

pub(super) async fn search(context: &Context<'_>) -> Result<Answer, Problem> {
    let filter: AuditFilter = context.query()?;
    let (from, to) = filters::span(filter.from_ms, filter.to_ms)?;
    let account = filters::account(context.account(), filter.account_id)?;
    if !context.account().is_empty() {
        accounts::find(context, context.account()).await?;
    }
    let (cursor, size) = context.page()?;
    let bounded = filter.from_ms.is_some() || filter.to_ms.is_some();
    let sql = match (&filter.target_id, &filter.actor_id, &account, &filter.action, bounded) {
        (Some(_), ..) => BY_TARGET,
        (None, Some(_), ..) => BY_ACTOR,
        (None, None, Some(_), ..) => BY_ACCOUNT,
        (None, None, None, Some(_), _) => BY_ACTION,
        (None, None, None, None, true) => BY_TIME,
        (None, None, None, None, false) => ALL,
    };
    let statement = Statement::new(sql)
        .bind(from)
        .bind(to)
        .bind(filter.target_id)
        .bind(filter.actor_id)
        .bind(account)
        .bind(filter.action)
        .bind(cursor.number)
        .bind(size.saturating_add(1));
    let entries: Vec<AuditEntry> = context.db.objects(statement).await?;
    Answer::ok(&page(entries, size, |entry| (entry.sequence, String::new())))
}

pub(super) async fn verify(context: &Context<'_>) -> Result<Answer, Problem> {
    let query: VerifyQuery = context.query()?;
    let from = query.from.unwrap_or(1).max(1);
    let mut left = u64::from(query.limit.unwrap_or(A_CALL).min(A_CALL));
    let sealer = context.sealer()?;
    let key = |id: &str| sealer.derive_by(id, Purpose::AuditChain).map(|key| *key.expose());
    let results = context.db.ask(&[Statement::new(HEAD), Statement::new(BEFORE).bind(from)]).await?;
    let places: Vec<Option<Place>> =
        results.iter().map(|result| Ok(rows(result)?.into_iter().next())).collect::<Result<_, Problem>>()?;
    let [head, before] = places.as_slice() else { return Err(internal("an answer is missing")) };
    let mut verification = Verification {
        intact: true,
        checked: 0,
        broken_at: None,
        next: None,
        head: head.as_ref().map_or(0, Place::number),
        head_hash: head.as_ref().map(|head| head.hash.clone()).unwrap_or_default(),
    };
    let mut next = from;
    match audit::hash_before(from, before.as_ref(), head.as_ref()) {
        Err(broken) => verification.broken_at = Some(broken),
        Ok(mut previous) => {
            while left > 0 && verification.broken_at.is_none() {
                let wanted = left.min(TOGETHER);
                let run = Statement::new(RUN).bind(next).bind(wanted);
                let run: Vec<StoredEntry> = context.db.objects(run).await?;
                let found = run.len() as u64;
                let checked = audit::check_run(&key, &previous, next, run);
                verification.checked = verification.checked.saturating_add(checked.intact);
                verification.broken_at = checked.broken_at;
                next = next.saturating_add(checked.intact);
                previous = checked.last_hash;
                left = if found < wanted { 0 } else { left.saturating_sub(wanted) };
            }
        }
    }
    verification.intact = verification.broken_at.is_none();
    verification.next = (verification.intact && next <= verification.head).then_some(next);
    Answer::ok(&verification)
}
