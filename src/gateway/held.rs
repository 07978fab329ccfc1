//! How much of callers' bodies an isolate holds that are passed on as they come.

use std::cell::Cell;

use crate::error::{Kind, Problem};

/// Bytes that all requests of an isolate hold together, at most. On its way out each exists three times at once (as it
/// came, as the request's body, and as the runtime's copy of that), and an isolate has 128 MiB for everything.
pub const MAX_HELD_BYTES: usize = 24 * 1024 * 1024;

/// When there is room again, most likely, in milliseconds.
const RETRY_MS: u64 = 1_000;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// What one request holds. Given back when it is dropped.
#[derive(Debug, Default)]
pub struct Held(usize);

impl Held {
    /// Holds so many bytes more.
    ///
    /// # Errors
    /// 503 if the isolate holds too much.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let all = HELD.get().saturating_add(bytes);
        if all > MAX_HELD_BYTES {
            let message = "The gateway holds as many uploads as it can at the moment. Try again shortly.";
            return Err(Problem::new(Kind::Unavailable, "too_many_uploads", message).retry_after_ms(RETRY_MS));
        }
        HELD.set(all);
        self.0 = self.0.saturating_add(bytes);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.set(HELD.get().saturating_sub(self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let mut one = Held::default();
        one.grow(MAX_HELD_BYTES - 10).unwrap();
        let mut other = Held::default();
        other.grow(10).unwrap();
        let refused = other.grow(1).unwrap_err();
        assert_eq!((refused.status, refused.retry_after.as_deref()), (503, Some("1")));
        drop(one);
        other.grow(MAX_HELD_BYTES - 10).unwrap();
        drop(other);
        assert_eq!(HELD.get(), 0);
    }
}
