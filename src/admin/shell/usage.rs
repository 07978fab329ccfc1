//! Under construction.

use super::answer::{Answer, internal};
use super::context::Context;
use crate::error::Problem;

pub(super) async fn report(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn export(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn records(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn record(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
