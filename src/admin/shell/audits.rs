//! Under construction.

use super::answer::{Answer, internal};
use super::context::Context;
use crate::error::Problem;

pub(super) async fn search(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn verify(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
