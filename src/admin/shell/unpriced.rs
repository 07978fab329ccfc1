//! Models without a price.

use super::answer::Answer;
use super::context::Context;
use crate::admin::statement::Statement;
use crate::admin::types::catalog::UnpricedModels;
use crate::admin::unpriced::{LOOK_BACK, Used, list};
use crate::error::Problem;

const USED: &str = "SELECT json_object('model', model, 'requests', SUM(unpriced), 'last_minute', MAX(minute)) AS row \
     FROM usage WHERE minute >= ?1 AND unpriced > 0 GROUP BY model ORDER BY SUM(unpriced) DESC, model LIMIT 1000";

pub(super) async fn models(context: &Context<'_>) -> Result<Answer, Problem> {
    let now = context.now();
    let since = now.saturating_sub(LOOK_BACK) / 60;
    let used: Vec<Used> = context.db.objects(Statement::new(USED).bind(since)).await?;
    let data = list(context.config.as_deref(), used, now);
    Answer::ok(&UnpricedModels { since: since.saturating_mul(60), data })
}
