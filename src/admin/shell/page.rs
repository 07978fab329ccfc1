//! Pages of lists that are ordered by a time and an id, newest first.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::Answer;
use super::context::Context;
use crate::admin::cursor::Cursor;
use crate::admin::statement::Statement;
use crate::admin::types::Page;
use crate::error::Problem;

impl Context<'_> {
    /// Answers with a page. `statement` takes the cursor's number and text and the page's length as its next arguments
    /// (and gives what comes after the cursor, as JSON in the column `row`); `place` tells where an entry stands.
    ///
    /// # Errors
    /// 400 for a bad cursor or length, 503 if the database does not answer.
    pub(super) async fn paged<T: Serialize + DeserializeOwned>(
        &self,
        statement: Statement,
        place: impl Fn(&T) -> (u64, String),
    ) -> Result<Answer, Problem> {
        let (cursor, size) = self.page()?;
        // One more than asked for tells whether there is a next page.
        let more = size.saturating_add(1);
        let statement = statement.bind(cursor.number).bind(cursor.text).bind(more);
        let entries = self.db.objects(statement).await?;
        Answer::ok(&page(entries, size, place))
    }
}

/// Cuts a page of at most `size` entries off.
pub(super) fn page<T>(mut entries: Vec<T>, size: u32, place: impl Fn(&T) -> (u64, String)) -> Page<T> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let goes_on = entries.len() > size;
    entries.truncate(size);
    let next_cursor = entries.last().filter(|_| goes_on).map(|last| {
        let (number, text) = place(last);
        Cursor { number, text }.write()
    });
    Page { data: entries, next_cursor }
}
