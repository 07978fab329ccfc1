//! A small cache in an isolate's memory: bounded in entries, each good for a while.

use std::collections::HashMap;
use std::hash::Hash;

/// Values with the time at which they were put in. Time is milliseconds on any one clock.
#[derive(Debug)]
pub struct BoundedCache<K, V> {
    entries: HashMap<K, (u64, V)>,
    capacity: usize,
}

impl<K: Eq + Hash, V: Clone> BoundedCache<K, V> {
    /// An empty cache of at most `capacity` entries.
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity }
    }

    /// The value, if it was put in less than `max_age_ms` ago.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q, now_ms: u64, max_age_ms: u64) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let (at, value) = self.entries.get(key)?;
        (now_ms.saturating_sub(*at) < max_age_ms).then(|| value.clone())
    }

    /// Takes a value out.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
    {
        self.entries.remove(key);
    }

    /// Puts a value in. A full cache is emptied: whoever floods it with made-up keys costs look-ups, not memory.
    pub fn put(&mut self, key: K, value: V, now_ms: u64) {
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.entries.clear();
        }
        self.entries.insert(key, (now_ms, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_age_and_their_number_is_bounded() {
        let mut cache = BoundedCache::new(2);
        cache.put("a", 1, 100);
        assert_eq!(cache.get("a", 149, 50), Some(1));
        assert_eq!(cache.get("a", 150, 50), None);
        cache.put("b", 2, 100);
        cache.put("c", 3, 100);
        assert_eq!((cache.get("a", 100, 50), cache.get("c", 100, 50)), (None, Some(3)));
        cache.remove("c");
        assert_eq!(cache.get("c", 100, 50), None);
    }
}
