//! Under construction.

use super::answer::{Answer, internal};
use super::context::Context;
use crate::error::Problem;

pub(super) async fn draft(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn replace_draft(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn validate(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn compare(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn simulate(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn publish(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn roll_back(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn list_versions(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn get_version(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn compare_versions(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn effective(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) fn schema() -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
