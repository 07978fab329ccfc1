//! Changes take turns within an isolate. Each entry of the audit log follows on the one before it, so of two changes at
//! the same time one must begin anew; in an isolate that is told beforehand, and not by the database.
//!
//! It saves work and decides nothing: without a turn a change is carried out all the same, and what is right is up to the
//! database.

use std::cell::Cell;

use super::context::random;
use crate::error::Problem;
use crate::http::shell::{now_ms, sleep};

/// How long a turn lasts at most, in milliseconds: whoever had it may be gone without a word.
const LASTS_MS: u64 = 1_000;
/// How long a change waits for its turn, in milliseconds.
const PATIENCE_MS: u64 = 10_000;

thread_local! {
    /// Until when it is somebody's turn, in Unix milliseconds, and whose.
    static TAKEN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Somebody's turn; it ends when this is dropped.
pub(super) struct Turn(u64);

/// Waits for a turn; `None` if there is none for too long.
///
/// # Errors
/// 500 without randomness.
pub(super) async fn turn() -> Result<Option<Turn>, Problem> {
    let began = now_ms();
    let name = u64::from_le_bytes(random()?);
    loop {
        let now = now_ms();
        if TAKEN.get().0 <= now {
            TAKEN.set((now.saturating_add(LASTS_MS), name));
            return Ok(Some(Turn(name)));
        }
        if now.saturating_sub(began) > PATIENCE_MS {
            return Ok(None);
        }
        let jitter = random::<1>()?.first().copied().unwrap_or(0);
        sleep(u64::from(jitter % 16).saturating_add(4)).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if TAKEN.get().1 == self.0 {
            TAKEN.set((0, 0));
        }
    }
}
