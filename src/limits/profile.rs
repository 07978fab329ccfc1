//! What replies have been as long as: learned per key and model, so that a reservation holds neither too little nor
//! the caller's far too high `max_tokens`.
//!
//! Each profile is a histogram of output tokens with four buckets to the octave, so that what it answers is less than a
//! quarter above what it saw. Old observations fade: whenever more than [`MEMORY`] weigh in, all of them lose half.
//! What was learned is a convenience and no account: an estimate may be lost without anybody's money being lost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Observations below which a profile knows no quantile.
pub const ENOUGH: u32 = 20;

/// Observations that weigh in at most; beyond, all lose half of their weight.
pub const MEMORY: u32 = 512;

/// Profiles that are kept at most, of keys and of models together.
pub const MAX_PROFILES: usize = 2_000;

/// An eviction makes room for so many, so that it is rare.
const EVICTED_AT_ONCE: usize = 250;

/// What one observation weighs when it is new: it takes seven halvings to forget it.
const FRESH: u16 = 64;

/// Longer replies are counted as this long, in tokens.
const LONGEST: u64 = (1 << 22) - 1;

/// Output tokens of many replies, in buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram {
    /// Bucket and weight of each bucket that has any, in the buckets' order.
    weights: Vec<(u8, u16)>,
}

/// The profiles of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profiles {
    /// Counts observations: the time by which the least recently used are known.
    #[serde(default, rename = "t")]
    tick: u64,
    #[serde(default, rename = "m")]
    models: BTreeMap<String, Model>,
}

/// What is known of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Model {
    /// Of all keys together.
    #[serde(rename = "p")]
    pooled: Profile,
    #[serde(default, rename = "k", skip_serializing_if = "BTreeMap::is_empty")]
    keys: BTreeMap<String, Profile>,
}

/// A histogram, and when it was last added to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Profile(u64, Histogram);

// === impl Histogram ===

impl Histogram {
    /// Takes a reply's length in.
    pub fn observe(&mut self, tokens: u64) {
        let bucket = bucket(tokens);
        match self.weights.binary_search_by_key(&bucket, |(of, _)| *of) {
            Ok(at) => {
                if let Some((_, weight)) = self.weights.get_mut(at) {
                    *weight = weight.saturating_add(FRESH);
                }
            }
            Err(at) => self.weights.insert(at, (bucket, FRESH)),
        }
        if self.weight() > u64::from(MEMORY).saturating_mul(u64::from(FRESH)) {
            self.weights.retain_mut(|(_, weight)| {
                *weight /= 2;
                *weight > 0
            });
        }
    }

    /// The length in tokens that so many percent of the replies did not exceed, rounded up to its bucket's edge: less
    /// than a quarter too high. `None` as long as there are fewer than [`ENOUGH`] replies.
    pub fn quantile(&self, percent: u8) -> Option<u64> {
        let total = self.weight();
        if total < u64::from(ENOUGH).saturating_mul(u64::from(FRESH)) {
            return None;
        }
        let wanted = total.saturating_mul(u64::from(percent.min(100)));
        let mut below = 0u64;
        for (bucket, weight) in &self.weights {
            below = below.saturating_add(u64::from(*weight).saturating_mul(100));
            if below >= wanted {
                return Some(upper_edge(*bucket));
            }
        }
        None
    }

    /// The length in tokens to reserve as long as there is no quantile: `first`, but no more than the longest reply times
    /// a factor that sinks with each reply seen; and no less than the longest reply.
    fn guess(&self, first: u64) -> u64 {
        let Some((longest, _)) = self.weights.last() else { return first };
        let longest = upper_edge(*longest);
        let seen = self.weight().checked_div(u64::from(FRESH)).unwrap_or(0).max(1);
        let factor = u64::from(ENOUGH).div_ceil(seen).saturating_add(1);
        longest.saturating_mul(factor).min(first).max(longest)
    }

    fn weight(&self) -> u64 {
        self.weights.iter().map(|(_, weight)| u64::from(*weight)).sum()
    }
}

// === impl Profiles ===

impl Profiles {
    /// How many output tokens to reserve for a request, as `percent` of the replies needed no more: by the key's own
    /// replies if there are enough of them, else by all keys' replies of this model. While those are few, it is between
    /// the longest of them and `first`, which is also what is reserved when nothing is known.
    pub fn estimate(&self, key: &str, model: &str, first: u64, percent: u8) -> u64 {
        let Some(model) = self.models.get(model) else { return first };
        let own = model.keys.get(key).and_then(|profile| profile.1.quantile(percent));
        own.or_else(|| model.pooled.1.quantile(percent)).unwrap_or_else(|| model.pooled.1.guess(first))
    }

    /// Learns from a reply that was settled.
    pub fn observe(&mut self, key: &str, model: &str, output_tokens: u64) {
        self.tick = self.tick.saturating_add(1);
        if !self.models.contains_key(model) {
            self.models.insert(model.to_owned(), Model::default());
        }
        let Some(of_model) = self.models.get_mut(model) else { return };
        of_model.pooled.observe(self.tick, output_tokens);
        if let Some(own) = of_model.keys.get_mut(key) {
            own.observe(self.tick, output_tokens);
            return;
        }
        let mut own = Profile::default();
        own.observe(self.tick, output_tokens);
        of_model.keys.insert(key.to_owned(), own);
        if self.len() > MAX_PROFILES {
            self.evict();
        }
    }

    /// How many profiles there are.
    pub fn len(&self) -> usize {
        self.models.values().fold(0, |sum, model| sum.saturating_add(1).saturating_add(model.keys.len()))
    }

    /// Whether nothing has been learned.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// Forgets the profiles that have not been added to for longest. A model's own goes with the last of its keys'.
    fn evict(&mut self) {
        let mut used: Vec<u64> =
            self.models.values().flat_map(|model| model.keys.values().map(|profile| profile.0)).collect();
        used.sort_unstable();
        let Some(oldest_kept) = used.get(EVICTED_AT_ONCE.min(used.len().saturating_sub(1))).copied() else { return };
        for model in self.models.values_mut() {
            model.keys.retain(|_, profile| profile.0 >= oldest_kept);
        }
        self.models.retain(|_, model| !model.keys.is_empty());
    }
}

// === impl Profile ===

impl Profile {
    fn observe(&mut self, tick: u64, tokens: u64) {
        self.0 = tick;
        self.1.observe(tokens);
    }
}

/// Lengths below eight have a bucket each; above, each octave has four.
fn bucket(tokens: u64) -> u8 {
    let tokens = tokens.min(LONGEST);
    let octave = tokens.checked_ilog2().unwrap_or(0);
    let index = match octave {
        0 | 1 => tokens,
        _ => u64::from(octave.saturating_sub(2))
            .saturating_mul(4)
            .saturating_add(tokens.checked_shr(octave.saturating_sub(2)).unwrap_or(0)),
    };
    u8::try_from(index).unwrap_or(u8::MAX)
}

/// The longest length in a bucket.
fn upper_edge(bucket: u8) -> u64 {
    let index = u64::from(bucket);
    match index {
        0..8 => index,
        _ => {
            let shift = u32::from(bucket / 4).saturating_sub(1);
            let next = index.checked_rem(4).unwrap_or(0).saturating_add(5);
            next.checked_shl(shift).unwrap_or(u64::MAX).saturating_sub(1).min(LONGEST)
        }
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests may fail by overflow")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn learned(profiles: &mut Profiles, key: &str, tokens: impl IntoIterator<Item = u64>) {
        for tokens in tokens {
            profiles.observe(key, "m", tokens);
        }
    }

    #[test]
    fn a_key_is_judged_by_its_own_replies_once_there_are_enough() {
        let mut profiles = Profiles::default();
        assert_eq!(profiles.estimate("a", "m", 1000, 95), 1000, "nothing is known");
        learned(&mut profiles, "a", [100; 19]);
        learned(&mut profiles, "a", [100]);
        assert_eq!(profiles.estimate("a", "m", 1000, 95), 111);
        assert_eq!(profiles.estimate("b", "m", 1000, 95), 111, "by the others of its model");
        assert_eq!(profiles.estimate("a", "another", 1000, 95), 1000);
        learned(&mut profiles, "b", [5; 20]);
        assert_eq!(profiles.estimate("b", "m", 1000, 95), 5);
        assert_eq!(profiles.estimate("a", "m", 1000, 95), 111);
        assert_eq!(profiles.estimate("c", "m", 1000, 95), 111);
        assert_eq!(profiles.estimate("c", "m", 1000, 50), 5);
    }

    #[test]
    fn the_first_few_replies_already_tell_something() {
        let mut profiles = Profiles::default();
        let mut after = |replies: &[u64]| {
            learned(&mut profiles, "a", replies.iter().copied());
            profiles.estimate("b", "m", 1_000, 95)
        };
        assert_eq!((after(&[]), after(&[15])), (1_000, 315));
        assert_eq!((after(&[9; 4]), after(&[9; 5])), (75, 45));
        assert_eq!((after(&[300]), after(&[1_500])), (957, 1_535), "what was longer is believed at once");
    }

    #[test]
    fn a_change_of_habit_is_followed() {
        let mut profiles = Profiles::default();
        learned(&mut profiles, "a", [4_000; 2_000]);
        assert_eq!(profiles.estimate("a", "m", 0, 95), 4_095);
        learned(&mut profiles, "a", [100; 1_400]);
        assert_eq!(profiles.estimate("a", "m", 0, 95), 111);
        learned(&mut profiles, "a", [4_000; 30]);
        assert_eq!(profiles.estimate("a", "m", 0, 95), 4_095, "longer replies are believed sooner");
    }

    #[test]
    fn buckets_meet_without_a_gap() {
        let mut expected = 0;
        for of in 0..=bucket(u64::MAX) {
            assert_eq!(bucket(expected), of);
            assert_eq!(bucket(upper_edge(of)), of);
            expected = upper_edge(of) + 1;
        }
        assert_eq!((bucket(u64::MAX), expected), (83, LONGEST + 1));
    }

    #[test]
    fn the_least_recently_used_are_forgotten() {
        let mut profiles = Profiles::default();
        for n in 0..10_000 {
            profiles.observe("always", "m", 7);
            profiles.observe(&format!("key {n}"), &format!("model {}", n % 7), n);
            assert!(profiles.len() <= MAX_PROFILES);
        }
        assert_eq!(profiles.estimate("always", "m", 0, 95), 7);
        assert!(profiles.len() > MAX_PROFILES - EVICTED_AT_ONCE - 10);
        let stored = serde_json::to_vec(&profiles).unwrap();
        assert!(stored.len() < 100_000, "{}", stored.len());
    }

    proptest! {
        #[test]
        fn an_estimate_is_never_below_the_quantile_and_less_than_a_quarter_above(
            mut tokens in proptest::collection::vec(prop_oneof![0..200u64, 0..LONGEST], 20..=512),
            percent in 1..=100u8,
        ) {
            let mut profiles = Profiles::default();
            learned(&mut profiles, "a", tokens.iter().copied());
            let estimate = profiles.estimate("a", "m", 0, percent);
            tokens.sort_unstable();
            let quantile = tokens[(tokens.len() * usize::from(percent)).div_ceil(100) - 1];
            prop_assert!(estimate >= quantile);
            prop_assert!(estimate * 4 <= quantile * 5, "{estimate} for {quantile}");
        }

        #[test]
        fn a_higher_quantile_is_no_smaller_and_every_estimate_was_seen(
            tokens in proptest::collection::vec(any::<u64>(), 20..3_000),
            percent in 0..100u8,
        ) {
            let mut profiles = Profiles::default();
            learned(&mut profiles, "a", tokens.iter().copied());
            let [lower, higher, most] = [percent, percent + 1, 200].map(|p| profiles.estimate("a", "m", 0, p));
            prop_assert!(lower <= higher && higher <= most);
            prop_assert!(tokens.iter().any(|seen| bucket(*seen) == bucket(lower)));
        }

        #[test]
        fn what_is_stored_is_what_is_learned(
            seen in proptest::collection::vec((0..5u8, 0..5u8, any::<u64>()), 0..300),
        ) {
            let mut profiles = Profiles::default();
            for (key, model, tokens) in &seen {
                profiles.observe(&key.to_string(), &model.to_string(), *tokens);
            }
            let mut restored: Profiles = serde_json::from_slice(&serde_json::to_vec(&profiles).unwrap()).unwrap();
            prop_assert_eq!(&restored, &profiles);
            profiles.observe("k", "m", 5);
            restored.observe("k", "m", 5);
            prop_assert_eq!(restored, profiles);
        }
    }
}
