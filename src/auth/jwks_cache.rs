//! Key sets that issuers publish, as an isolate remembers them.
//!
//! A set is fetched when it is first needed, when it has grown old, and when a token names a key that it lacks: issuers
//! rotate their keys without notice. Tokens can be made up by anybody, so the fetches are bounded however many of them
//! name unknown keys: one window of `refresh_min_seconds` has at most one fetch that ends, and an id that the issuer was
//! found not to have is not asked for again for a while. A failed refresh keeps the old keys for a day at most.

use std::collections::HashMap;
use std::rc::Rc;

use super::jwks::Jwks;
use super::signatures::Algorithm;

/// Issuers whose keys are remembered.
const CAPACITY: usize = 64;

/// How long keys that cannot be refreshed are used beyond their age, in seconds.
const MAX_STALE_SECONDS: u64 = 86_400;

/// How long an issuer is taken not to have a key id that its newest set lacked, in seconds.
const UNKNOWN_SECONDS: u64 = 300;

/// Unknown key ids that are remembered of an issuer.
const MAX_UNKNOWN: usize = 64;

/// Fetches that may be under way at once where a request can do nothing without one. Each request must do its own:
/// requests cannot wait for one another.
const MAX_PARALLEL: u32 = 8;

/// How often issuers are asked.
#[derive(Debug, Clone, Copy)]
pub struct JwksPolicy {
    /// How long a set is used before it is fetched again, in seconds.
    pub max_age_seconds: u64,
    /// The least time between two fetches, in seconds.
    pub refresh_min_seconds: u64,
}

/// Which key a token needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its id, if the token names one.
    pub key_id: Option<String>,
}

impl Wanted {
    fn is_in(&self, keys: &Jwks) -> bool {
        keys.knows(self.algorithm, self.key_id.as_deref())
    }
}

/// What to do for a token's keys.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// Verify with these, even if the wanted one is not among them.
    Use(Rc<Jwks>),
    /// Fetch the set, tell [`JwksCache::store`] how that went, and look again.
    Fetch,
    /// There are none, and the issuer was asked just now.
    Unavailable,
}

/// The sets, by their address. Times are in Unix seconds.
#[derive(Debug, Default)]
pub struct JwksCache {
    issuers: HashMap<String, Issuer>,
}

#[derive(Debug, Default)]
struct Issuer {
    keys: Option<Rc<Jwks>>,
    fetched_at: u64,
    window: Option<Window>,
    unknown: Vec<(Wanted, u64)>,
}

/// The time after a fetch in which there should be no other.
#[derive(Debug)]
struct Window {
    began: u64,
    fetches: u32,
    ended: bool,
}

impl JwksCache {
    /// Decides; [`Lookup::Fetch`] counts as a fetch that begins.
    pub fn look_up(&mut self, uri: &str, wanted: &Wanted, now: u64, policy: JwksPolicy) -> Lookup {
        if self.issuers.len() >= CAPACITY && !self.issuers.contains_key(uri) {
            self.issuers.clear();
        }
        let issuer = self.issuers.entry(uri.to_owned()).or_default();
        let age = now.saturating_sub(issuer.fetched_at);
        let fresh = age < policy.max_age_seconds;
        // What remains to a request if it does not fetch: nothing, keys without the wanted one, or old keys.
        let (wants, cannot_do_without) = match &issuer.keys {
            None => (true, true),
            Some(keys) if wanted.is_in(keys) => (!fresh, false),
            Some(_) => (!fresh || !issuer.is_unknown(wanted, now), true),
        };
        if wants && issuer.may_fetch(now, policy.refresh_min_seconds, cannot_do_without) {
            return Lookup::Fetch;
        }
        let usable = age < policy.max_age_seconds.saturating_add(MAX_STALE_SECONDS);
        match issuer.keys.as_ref().filter(|_| usable) {
            Some(keys) => Lookup::Use(Rc::clone(keys)),
            None => Lookup::Unavailable,
        }
    }

    /// Takes note of how a fetch went; `None` for one that failed.
    pub fn store(&mut self, uri: &str, fetched: Option<Jwks>, wanted: &Wanted, now: u64) {
        let Some(issuer) = self.issuers.get_mut(uri) else { return };
        if let Some(window) = &mut issuer.window {
            window.ended = true;
        }
        let Some(keys) = fetched else { return };
        issuer.unknown.retain(|(unknown, since)| {
            now.saturating_sub(*since) < UNKNOWN_SECONDS && unknown != wanted && !unknown.is_in(&keys)
        });
        if !wanted.is_in(&keys) {
            if issuer.unknown.len() >= MAX_UNKNOWN {
                issuer.unknown.remove(0);
            }
            issuer.unknown.push((wanted.clone(), now));
        }
        issuer.keys = Some(Rc::new(keys));
        issuer.fetched_at = now;
    }
}

impl Issuer {
    /// A token without a key id whose key is ambiguous stays ambiguous.
    fn is_unknown(&self, wanted: &Wanted, now: u64) -> bool {
        wanted.key_id.is_none()
            || self
                .unknown
                .iter()
                .any(|(unknown, since)| unknown == wanted && now.saturating_sub(*since) < UNKNOWN_SECONDS)
    }

    fn may_fetch(&mut self, now: u64, refresh_min_seconds: u64, in_parallel: bool) -> bool {
        match &mut self.window {
            Some(window) if now.saturating_sub(window.began) < refresh_min_seconds => {
                if window.ended || !in_parallel || window.fetches >= MAX_PARALLEL {
                    return false;
                }
                window.fetches = window.fetches.saturating_add(1);
            }
            _ => self.window = Some(Window { began: now, fetches: 1, ended: false }),
        }
        true
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test whose arithmetic overflows fails, as it should")]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::auth::signatures::PublicKey;

    const POLICY: JwksPolicy = JwksPolicy { max_age_seconds: 3600, refresh_min_seconds: 60 };
    const URI: &str = "https://id.example/jwks";

    fn set(ids: &[&str]) -> Jwks {
        static KEY: LazyLock<PublicKey> =
            LazyLock::new(|| PublicKey::Ed25519(ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key()));
        Jwks::of(ids.iter().map(|id| ((*id).to_owned(), KEY.clone())))
    }

    fn key(id: &str) -> Wanted {
        Wanted { algorithm: Algorithm::EdDsa, key_id: Some(id.to_owned()) }
    }

    fn look(cache: &mut JwksCache, id: &str, now: u64) -> &'static str {
        match cache.look_up(URI, &key(id), now, POLICY) {
            Lookup::Use(keys) if key(id).is_in(&keys) => "known",
            Lookup::Use(_) => "unknown",
            Lookup::Fetch => "fetch",
            Lookup::Unavailable => "unavailable",
        }
    }

    fn with_keys(ids: &[&str]) -> JwksCache {
        let mut cache = JwksCache::default();
        assert_eq!(look(&mut cache, "a", 1000), "fetch");
        cache.store(URI, Some(set(ids)), &key("a"), 1000);
        cache
    }

    #[test]
    fn a_set_is_fetched_once_and_again_when_it_is_old() {
        let mut cache = with_keys(&["a"]);
        assert_eq!(look(&mut cache, "a", 1000), "known");
        assert_eq!(look(&mut cache, "a", 4599), "known");
        assert_eq!(look(&mut cache, "a", 4600), "fetch");
        assert_eq!(look(&mut cache, "a", 4600), "known", "one fetches, the others go on with what there is");
        cache.store(URI, Some(set(&["b"])), &key("a"), 4601);
        assert_eq!(look(&mut cache, "a", 4601), "unknown", "a key that was withdrawn is gone");
        assert_eq!(look(&mut cache, "b", 4601), "known");
    }

    #[test]
    fn an_unknown_key_id_is_asked_for_but_not_often() {
        let mut cache = with_keys(&["a"]);
        assert_eq!(look(&mut cache, "new", 1059), "unknown", "asked less than a minute ago");
        assert_eq!(look(&mut cache, "new", 1060), "fetch");
        cache.store(URI, Some(set(&["a", "new"])), &key("new"), 1060);
        assert_eq!(look(&mut cache, "new", 1060), "known");
        assert_eq!(look(&mut cache, "forged", 1200), "fetch");
        cache.store(URI, Some(set(&["a", "new"])), &key("forged"), 1200);
        for now in [1200, 1260, 1499] {
            assert_eq!(look(&mut cache, "forged", now), "unknown");
        }
        assert_eq!(look(&mut cache, "forged", 1500), "fetch", "not remembered for ever");
        cache.store(URI, Some(set(&["a", "forged"])), &key("forged"), 1500);
        assert_eq!(look(&mut cache, "forged", 1500), "known");
    }

    #[test]
    fn a_failed_refresh_keeps_the_old_keys_for_a_while() {
        let mut cache = with_keys(&["a"]);
        for now in [4600, 4660, 90_000] {
            assert_eq!(look(&mut cache, "a", now), "fetch");
            cache.store(URI, None, &key("a"), now);
            assert_eq!(look(&mut cache, "a", now + 59), "known");
        }
        assert_eq!(look(&mut cache, "a", 91_000), "fetch");
        cache.store(URI, None, &key("a"), 91_000);
        assert_eq!(look(&mut cache, "a", 91_001), "unavailable", "a day beyond their age they are no longer believed");
    }

    #[test]
    fn an_issuer_that_does_not_answer_is_asked_once_a_window() {
        let mut cache = JwksCache::default();
        assert_eq!(look(&mut cache, "a", 1000), "fetch");
        assert_eq!(look(&mut cache, "a", 1000), "fetch", "requests cannot wait for one another's fetch");
        cache.store(URI, None, &key("a"), 1001);
        assert_eq!(look(&mut cache, "a", 1002), "unavailable");
        assert_eq!(look(&mut cache, "a", 1060), "fetch");
        for _ in 0..100 {
            look(&mut cache, "a", 1060);
        }
        assert_eq!(look(&mut cache, "a", 1061), "unavailable", "however many requests there are");
    }

    #[test]
    fn a_token_without_a_key_id_causes_no_refresh() {
        let mut cache = with_keys(&["a", "b"]);
        let anonymous = Wanted { algorithm: Algorithm::EdDsa, key_id: None };
        assert!(matches!(cache.look_up(URI, &anonymous, 2000, POLICY), Lookup::Use(_)));
    }

    #[test]
    fn issuers_do_not_share_keys_and_their_number_is_bounded() {
        let mut cache = with_keys(&["a"]);
        assert!(matches!(cache.look_up("https://other.example/jwks", &key("a"), 1001, POLICY), Lookup::Fetch));
        for n in 0..1000 {
            cache.look_up(&format!("https://{n}.example"), &key("a"), 1001, POLICY);
            assert!(cache.issuers.len() <= CAPACITY);
        }
    }

    proptest! {
        #[test]
        fn made_up_tokens_cause_few_fetches_and_take_little_memory(ids in proptest::collection::vec((0u32..500, 0u64..30, any::<bool>()), 1..400)) {
            let mut cache = with_keys(&["a"]);
            let (mut now, mut fetches) = (1000u64, 0u64);
            for (id, pause, works) in ids {
                now += pause;
                let wanted = key(&id.to_string());
                if matches!(cache.look_up(URI, &wanted, now, POLICY), Lookup::Fetch) {
                    fetches += 1;
                    cache.store(URI, works.then(|| set(&["a"])), &wanted, now);
                }
                prop_assert!(cache.issuers[URI].unknown.len() <= MAX_UNKNOWN);
            }
            prop_assert!(fetches <= (now - 1000) / 60 + 1);
        }
    }
}
