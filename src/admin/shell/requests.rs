//! Request records.

use super::accounts;
use super::answer::{Answer, not_found};
use super::context::Context;
use super::page::page;
use crate::admin::filters;
use crate::admin::statement::Statement;
use crate::admin::types::records::{RecordFilter, RequestEntry};
use crate::error::Problem;

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT json_object('request_id', request_id, 'account_id', account_id, 'at_ms', at_ms, 'key_id', key_id, \
             'user_id', user_id, 'model', model, 'provider', provider, 'status', status, 'outcome', outcome, \
             'cost_nanos', cost_nanos, 'record', json(record)) AS row FROM request_records ",
            $rest
        )
    };
}

/// Newest first. Two accounts may use one request id at one time, so the account belongs to the place of an entry.
macro_rules! search {
    ($choice:literal) => {
        concat!(
            columns!($choice),
            " AND at_ms >= ?1 AND (?2 IS NULL OR user_id = ?2) AND (?3 IS NULL OR model = ?3) \
             AND (?4 IS NULL OR provider = ?4) AND (?5 IS NULL OR outcome = ?5) AND (?6 IS NULL OR status = ?6) \
             AND (at_ms, request_id, account_id) < (?7, ?8, ?9) \
             ORDER BY at_ms DESC, request_id DESC, account_id DESC LIMIT ?10"
        )
    };
}

const OF_ALL: &str = search!("INDEXED BY request_records_at WHERE true");
const OF_ACCOUNT: &str = search!("INDEXED BY request_records_account WHERE account_id = ?11");
const OF_KEY: &str = search!("INDEXED BY request_records_key WHERE key_id = ?12 AND (?11 IS NULL OR account_id = ?11)");
const GET: &str = columns!("WHERE account_id = ?1 AND request_id = ?2");

/// Separates a request's id from its account's in a cursor; neither has one.
const SEPARATOR: char = '\n';

pub(super) async fn search(context: &Context<'_>) -> Result<Answer, Problem> {
    let filter: RecordFilter = context.query()?;
    let (from, to) = filters::span(filter.from_ms, filter.to_ms)?;
    let account = filters::account(context.account(), filter.account_id)?;
    if !context.account().is_empty() {
        accounts::find(context, context.account()).await?;
    }
    let (cursor, size) = context.page()?;
    let cursor = filters::before(cursor, to);
    let (request, of) = cursor.text.rsplit_once(SEPARATOR).unwrap_or((&cursor.text, ""));
    let sql = match (&filter.key_id, &account) {
        (Some(_), _) => OF_KEY,
        (None, Some(_)) => OF_ACCOUNT,
        (None, None) => OF_ALL,
    };
    let mut statement = Statement::new(sql)
        .bind(from)
        .bind(filter.user_id)
        .bind(filter.model)
        .bind(filter.provider)
        .bind(filter.outcome.map(|outcome| outcome.name()))
        .bind(filter.status.map(u32::from))
        .bind(cursor.number)
        .bind(request)
        .bind(of)
        .bind(size.saturating_add(1));
    if account.is_some() || filter.key_id.is_some() {
        statement = statement.bind(account);
    }
    if let Some(key) = filter.key_id {
        statement = statement.bind(key);
    }
    let entries: Vec<RequestEntry> = context.db.objects(statement).await?;
    let place = |entry: &RequestEntry| (entry.at_ms, format!("{}{SEPARATOR}{}", entry.request_id, entry.account_id));
    Answer::ok(&page(entries, size, place))
}

pub(super) async fn get(context: &Context<'_>) -> Result<Answer, Problem> {
    let id = context.parameter("request");
    let entry = Statement::new(GET).bind(context.account()).bind(id);
    let entry: Option<RequestEntry> = context.db.object(entry).await?;
    Answer::ok(&entry.ok_or_else(|| not_found("record of a request", id))?)
}
