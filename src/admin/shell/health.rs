//! Under construction.

use super::answer::{Answer, internal};
use super::context::Context;
use crate::error::Problem;

pub(super) async fn test_provider(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn cache(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn purge_cache(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn system(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn history(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
