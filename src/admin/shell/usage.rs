//! Usage and cost.

use super::accounts;
use super::answer::{Answer, internal};
use super::context::Context;
use super::database::{BatchError, Object, rows, unavailable};
use crate::admin::filters;
use crate::admin::statement::Statement;
use crate::admin::types::records::{UsageGroup, UsageQuery, UsageReport, UsageRow};
use crate::admin::usage::{Span, csv, inexact, too_many_rows, total};
use crate::error::Problem;

/// How many rows a report has at most: enough for every hour of a year, and few enough to be held as JSON.
const MOST_IN_REPORT: u64 = 10_000;

/// Sums up by an expression. `?1` and `?2` are the span in minutes, with which an index begins; `?3` to `?6` filter, `?7`
/// is the most rows, `?8` the account.
macro_rules! sums {
    ($group:literal, $condition:literal $(, $rest:literal)*) => {
        concat!(
            "SELECT json_object('group', ",
            $group,
            ", 'requests', COALESCE(SUM(requests), 0), 'errors', COALESCE(SUM(errors), 0), \
             'unpriced', COALESCE(SUM(unpriced), 0), 'estimated', COALESCE(SUM(estimated), 0), \
             'input', COALESCE(SUM(input), 0), 'cache_read', COALESCE(SUM(cache_read), 0), \
             'cache_write_5m', COALESCE(SUM(cache_write_5m), 0), 'cache_write_1h', COALESCE(SUM(cache_write_1h), 0), \
             'input_audio', COALESCE(SUM(input_audio), 0), 'output', COALESCE(SUM(output), 0), \
             'output_reasoning', COALESCE(SUM(output_reasoning), 0), 'output_audio', COALESCE(SUM(output_audio), 0), \
             'input_image', COALESCE(SUM(input_image), 0), 'output_image', COALESCE(SUM(output_image), 0), \
             'web_searches', COALESCE(SUM(web_searches), 0), 'images', COALESCE(SUM(images), 0), \
             'audio_ms', COALESCE(SUM(audio_ms), 0), 'characters', COALESCE(SUM(characters), 0), \
             'cost_nanos', COALESCE(SUM(cost_nanos), 0)) AS row FROM usage \
             WHERE minute >= ?1 AND minute < ?2 AND (?3 IS NULL OR key_id = ?3) AND (?4 IS NULL OR user_id = ?4) \
             AND (?5 IS NULL OR model = ?5) AND (?6 IS NULL OR provider = ?6)",
            $condition,
            $($rest,)*
            " LIMIT ?7"
        )
    };
}

/// Sums up by a column, the dearest first.
macro_rules! dearest {
    ($column:literal, $condition:literal) => {
        sums!(
            $column,
            $condition,
            " GROUP BY ",
            $column,
            " ORDER BY SUM(cost_nanos) DESC, SUM(requests) DESC, ",
            $column
        )
    };
}

macro_rules! statement {
    ($group:expr, $condition:literal) => {
        match $group {
            UsageGroup::None => sums!("''", $condition),
            UsageGroup::Hour => {
                sums!("CAST(minute / 60 * 3600 AS TEXT)", $condition, " GROUP BY minute / 60 ORDER BY minute / 60")
            }
            UsageGroup::Day => {
                sums!(
                    "CAST(minute / 1440 * 86400 AS TEXT)",
                    $condition,
                    " GROUP BY minute / 1440 ORDER BY minute / 1440"
                )
            }
            UsageGroup::Key => dearest!("key_id", $condition),
            UsageGroup::User => dearest!("user_id", $condition),
            UsageGroup::Account => dearest!("account_id", $condition),
            UsageGroup::Model => dearest!("model", $condition),
            UsageGroup::Provider => dearest!("provider", $condition),
        }
    };
}

fn statement(group: UsageGroup, of_account: bool) -> &'static str {
    if of_account { statement!(group, " AND account_id = ?8") } else { statement!(group, "") }
}

pub(super) async fn report(context: &Context<'_>) -> Result<Answer, Problem> {
    Answer::ok(&sum_up(context, MOST_IN_REPORT).await?)
}

/// Whoever reads an export takes it for the whole, so nothing is left out of one.
pub(super) async fn export(context: &Context<'_>) -> Result<Answer, Problem> {
    let most = context.admin().csv_max_rows;
    let report = sum_up(context, most).await?;
    if report.truncated {
        return Err(too_many_rows(most));
    }
    Ok(Answer::csv(csv(report.group_by, &report.data)))
}

async fn sum_up(context: &Context<'_>, most: u64) -> Result<UsageReport, Problem> {
    let query: UsageQuery = context.query()?;
    let span = Span::of(&query, context.now(), context.admin().usage_max_days)?;
    let account = filters::account(context.account(), query.account_id.clone())?;
    if !context.account().is_empty() {
        accounts::find(context, context.account()).await?;
    }
    let group = query.group_by.unwrap_or_default();
    let ask = |group: UsageGroup, most: u64| {
        let statement = Statement::new(statement(group, account.is_some()))
            .bind(span.from)
            .bind(span.to)
            .bind(query.key_id.clone())
            .bind(query.user_id.clone())
            .bind(query.model.clone())
            .bind(query.provider.clone())
            .bind(most);
        match &account {
            Some(account) => statement.bind(account),
            None => statement,
        }
    };
    // One more than is told tells whether there are more.
    let mut data = sums(context, ask(group, most.saturating_add(1))).await?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let truncated = data.len() > most;
    data.truncate(most);
    let total = if truncated { total(&sums(context, ask(UsageGroup::None, 1)).await?)? } else { total(&data)? };
    let (from, to) = (span.from.saturating_mul(60), span.to.saturating_mul(60));
    Ok(UsageReport { from, to, group_by: group, data, truncated, total })
}

/// The database sums up exactly or not at all.
async fn sums(context: &Context<'_>, statement: Statement) -> Result<Vec<UsageRow>, Problem> {
    let results = match context.db.batch(&[statement]).await {
        Ok(results) => results,
        Err(BatchError::Failed(message)) if message.contains("integer overflow") => return Err(inexact("cost_nanos")),
        Err(BatchError::Failed(message)) => return Err(unavailable(&message)),
        Err(other) => return Err(internal(&format!("{other:?}"))),
    };
    let Some(result) = results.first() else { return Ok(Vec::new()) };
    Ok(rows::<Object<UsageRow>>(result)?.into_iter().map(|object| object.row.0).collect())
}
