//! Whose a response is that a provider keeps, as far as this isolate has seen.

use std::cell::RefCell;

use super::bounded_cache::BoundedCache;
use crate::http::shell::now_ms;

/// Responses that are remembered.
const ENTRIES: usize = 4_096;

/// How long one is, in milliseconds.
const MAX_AGE_MS: u64 = 600_000;

thread_local! {
    /// Provider and account, by the response's id.
    static OWNERS: RefCell<BoundedCache<String, (String, String)>> = RefCell::new(BoundedCache::new(ENTRIES));
}

/// The provider that keeps a response of this account's, if that is known.
pub fn keeper(id: &str, account: &str) -> Option<String> {
    let owner = OWNERS.with_borrow(|owners| owners.get(id, now_ms(), MAX_AGE_MS))?;
    (owner.1 == account).then_some(owner.0)
}

/// Remembers whose a response is.
pub fn remember(id: &str, provider: &str, account: &str) {
    let owner = (provider.to_owned(), account.to_owned());
    OWNERS.with_borrow_mut(|owners| owners.put(id.to_owned(), owner, now_ms()));
}

/// Forgets a response that is kept no longer.
pub fn forget(id: &str) {
    OWNERS.with_borrow_mut(|owners| owners.remove(id));
}
