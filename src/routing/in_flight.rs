//! How many requests of this isolate's are open, by deployment.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The counts; clones share them.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Rc<RefCell<BTreeMap<String, u64>>>);

/// An open request. It counts until this is dropped, which even a panic does.
#[derive(Debug)]
#[must_use = "it counts only as long as it is kept"]
pub struct Entry {
    counts: InFlight,
    deployment: String,
}

impl InFlight {
    /// Another request to a deployment.
    pub fn enter(&self, deployment: &str) -> Entry {
        let mut counts = self.0.borrow_mut();
        let count = counts.entry(deployment.to_owned()).or_default();
        *count = count.saturating_add(1);
        Entry { counts: self.clone(), deployment: deployment.to_owned() }
    }

    /// How many are open at a deployment.
    pub fn count(&self, deployment: &str) -> u64 {
        self.0.borrow().get(deployment).copied().unwrap_or(0)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut counts = self.counts.0.borrow_mut();
        if let Some(count) = counts.get_mut(&self.deployment) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.deployment);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_counts_until_it_is_dropped() {
        let counts = InFlight::default();
        let (one, other) = (counts.enter("m"), counts.enter("m"));
        let elsewhere = counts.enter("n");
        assert_eq!((counts.count("m"), counts.count("n"), counts.count("o")), (2, 1, 0));
        drop(one);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _kept = other;
            panic!("in the middle");
        }));
        assert!(panicked.is_err());
        assert_eq!((counts.count("m"), counts.count("n")), (0, 1));
        drop(elsewhere);
        assert!(counts.0.borrow().is_empty());
    }
}
