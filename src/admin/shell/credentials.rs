//! Under construction.

use super::answer::{Answer, internal};
use super::context::Context;
use crate::error::Problem;

pub(super) async fn list(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn create(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn get(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn replace(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn delete(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
