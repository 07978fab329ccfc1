//! Under construction.

use super::answer::{Answer, internal};
use super::context::Context;
use crate::error::Problem;

#[derive(Debug, Clone, Copy)]
pub(super) struct Section;
pub(super) const PROVIDERS: Section = Section;
pub(super) const MODELS: Section = Section;
pub(super) const ROUTES: Section = Section;
pub(super) const PRICES: Section = Section;
pub(super) async fn list(_: &Context<'_>, _: Section) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn get(_: &Context<'_>, _: Section) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn put(_: &Context<'_>, _: Section) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn update(_: &Context<'_>, _: Section) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn delete(_: &Context<'_>, _: Section) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn get_settings(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn put_settings(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
pub(super) async fn update_settings(_: &Context<'_>) -> Result<Answer, Problem> {
    Err(internal("unfinished"))
}
