//! Slowing down who guesses passwords.
//!
//! Attempts are counted by identity (whether or not it exists, so that a lock tells nothing) and by address. An attempt
//! is counted *before* its password is hashed, and the count is taken back when the password was right: guesses sent at
//! the same time cannot all slip past a count that only the first one of them has raised.
//!
//! A lock also keeps the rightful owner out, so it is short at first, doubles with each further failure, and is bounded.

use std::net::IpAddr;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::ip_ranges;
use crate::config::Sessions;
use crate::secret::Secret;

/// Failures are forgotten after so many seconds without one, and without a lock.
const FORGET_SECONDS: u64 = 86_400;

/// The window in which an address's attempts are counted, in seconds.
const ADDRESS_WINDOW_SECONDS: u64 = 60;

/// What is stored about one identity or address. Times are in Unix seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Attempts that have not turned out well.
    pub failures: u32,
    /// The first of them.
    pub first_at: u64,
    /// The last of them.
    pub last_at: u64,
    /// Until when further ones are refused; 0 if they are not.
    pub locked_until: u64,
}

/// How guessing is slowed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockoutPolicy {
    /// How many failures lock an identity.
    pub after: u32,
    /// How long the first lock lasts, in seconds.
    pub base_seconds: u64,
    /// How long a lock lasts at most, in seconds.
    pub max_seconds: u64,
    /// Attempts from one address in a minute.
    pub per_address_per_minute: u32,
}

impl From<&Sessions> for LockoutPolicy {
    fn from(settings: &Sessions) -> Self {
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            after: count(settings.lockout_after),
            base_seconds: settings.lockout_base_seconds,
            max_seconds: settings.lockout_max_seconds,
            per_address_per_minute: count(settings.attempts_per_ip_per_minute),
        }
    }
}

/// Whether a password may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It may. Store these attempts before hashing the password.
    Allowed(Attempts),
    /// It may not; nothing is to be stored.
    Locked {
        /// When to try again, in seconds: at least 1.
        retry_after_s: u64,
    },
}

/// Decides on an attempt for an identity, and counts it as failed. If it turns out well, delete what is stored.
pub fn for_identity(stored: Option<Attempts>, policy: &LockoutPolicy, now: u64) -> Gate {
    let quiet_since = |attempts: &Attempts| attempts.last_at.max(attempts.locked_until);
    let forgotten = |attempts: &Attempts| now >= quiet_since(attempts).saturating_add(FORGET_SECONDS);
    let known = stored.filter(|attempts| !forgotten(attempts)).unwrap_or_default();
    if let Some(locked) = locked(known.locked_until, now) {
        return locked;
    }
    let mut counted = count(known, now);
    if let Some(beyond) = counted.failures.checked_sub(policy.after.max(1)) {
        let doubled = 1u64.checked_shl(beyond).and_then(|factor| policy.base_seconds.checked_mul(factor));
        counted.locked_until = now.saturating_add(doubled.unwrap_or(u64::MAX).min(policy.max_seconds));
    }
    Gate::Allowed(counted)
}

/// Decides on an attempt from an address, and counts it, whatever its outcome: an attacker with one good password could
/// otherwise reset the count at will.
pub fn for_address(stored: Option<Attempts>, policy: &LockoutPolicy, now: u64) -> Gate {
    let window_over = |attempts: &Attempts| now >= attempts.first_at.saturating_add(ADDRESS_WINDOW_SECONDS);
    let known = stored.filter(|attempts| !window_over(attempts)).unwrap_or_default();
    if let Some(locked) = locked(known.locked_until, now) {
        return locked;
    }
    let mut counted = count(known, now);
    if counted.failures >= policy.per_address_per_minute {
        counted.locked_until = counted.first_at.saturating_add(ADDRESS_WINDOW_SECONDS);
    }
    Gate::Allowed(counted)
}

fn locked(until: u64, now: u64) -> Option<Gate> {
    let retry_after_s = until.checked_sub(now).filter(|seconds| *seconds > 0)?;
    Some(Gate::Locked { retry_after_s })
}

fn count(known: Attempts, now: u64) -> Attempts {
    let first_at = if known.failures == 0 { now } else { known.first_at };
    Attempts { failures: known.failures.saturating_add(1), first_at, last_at: now, locked_until: 0 }
}

/// What an e-mail address's attempts are stored under: an HMAC, so that the table is no list of addresses that somebody
/// tried. `key` is derived for this purpose alone ([`crate::seal::Purpose::IdentityHash`]).
pub fn identity_subject(email: &str, key: &Secret<[u8; 32]>) -> String {
    subject("identity", &email.trim().to_lowercase(), key)
}

/// What an address's attempts are stored under. All addresses of an IPv6 /64 are one.
pub fn address_subject(address: IpAddr, key: &Secret<[u8; 32]>) -> String {
    subject("address", &ip_ranges::guesser(address), key)
}

fn subject(kind: &str, name: &str, key: &Secret<[u8; 32]>) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(key.expose()).map(|mut mac| {
        mac.update(kind.as_bytes());
        mac.update(b"\n");
        mac.update(name.as_bytes());
        mac.finalize().into_bytes()
    });
    mac.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test whose arithmetic overflows fails, as it should")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: LockoutPolicy =
        LockoutPolicy { after: 5, base_seconds: 30, max_seconds: 3600, per_address_per_minute: 10 };

    #[test]
    fn the_policy_is_the_configurations() {
        let settings = Sessions { attempts_per_ip_per_minute: 10, ..Sessions::default() };
        assert_eq!(LockoutPolicy::from(&settings), POLICY);
    }

    /// Fails as often as possible and says after how many seconds each attempt was let through.
    fn guess(
        decide: fn(Option<Attempts>, &LockoutPolicy, u64) -> Gate,
        policy: &LockoutPolicy,
        times: usize,
    ) -> Vec<u64> {
        let (mut stored, mut now, mut waits) = (None, 1_000_000, Vec::new());
        for _ in 0..times {
            let began = now;
            loop {
                match decide(stored, policy, now) {
                    Gate::Allowed(attempts) => break stored = Some(attempts),
                    Gate::Locked { retry_after_s } => now += retry_after_s,
                }
            }
            waits.push(now - began);
        }
        waits
    }

    #[test]
    fn locks_begin_after_some_failures_and_double_up_to_a_bound() {
        assert_eq!(
            guess(for_identity, &POLICY, 15),
            [0, 0, 0, 0, 0, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
        );
    }

    #[test]
    fn a_success_or_a_day_without_failures_forgets_them() {
        let Gate::Allowed(mut attempts) = for_identity(None, &POLICY, 1000) else { panic!() };
        for n in 1..4 {
            let Gate::Allowed(next) = for_identity(Some(attempts), &POLICY, 1000 + n) else { panic!() };
            attempts = next;
        }
        assert_eq!(attempts, Attempts { failures: 4, first_at: 1000, last_at: 1003, locked_until: 0 });
        let next_day = 1003 + FORGET_SECONDS;
        let Gate::Allowed(again) = for_identity(Some(attempts), &POLICY, next_day) else { panic!() };
        assert_eq!((again.failures, again.first_at), (1, next_day));
        let Gate::Allowed(fifth) = for_identity(Some(attempts), &POLICY, next_day - 1) else { panic!() };
        assert_eq!(for_identity(Some(fifth), &POLICY, next_day), Gate::Locked { retry_after_s: 29 });
        assert!(matches!(for_identity(None, &POLICY, next_day), Gate::Allowed(_)), "what a success leaves");
    }

    #[test]
    fn an_address_gets_so_many_attempts_a_minute() {
        assert_eq!(guess(for_address, &POLICY, 21), [[0; 10].as_slice(), &[60], &[0; 9], &[60]].concat());
    }

    #[test]
    fn a_subject_tells_nothing_and_ignores_spelling() {
        let key = Secret::new([7; 32]);
        let subject = identity_subject("Ada@Example.com", &key);
        assert_eq!(subject, identity_subject(" ada@example.COM ", &key));
        assert_eq!(subject.len(), 64);
        assert!(!subject.contains("ada"));
        assert_ne!(subject, identity_subject("ada@example.com", &Secret::new([8; 32])));
        let address = "192.0.2.1".parse().unwrap();
        assert_eq!(address_subject(address, &key), address_subject("::ffff:192.0.2.1".parse().unwrap(), &key));
        assert_ne!(address_subject(address, &key), identity_subject("192.0.2.1", &key));
    }

    prop_compose! {
        fn policies()(after in 1u32..20, base in 1u64..4000, max in 1u64..90_000, rate in 1u32..100) -> LockoutPolicy {
            LockoutPolicy { after, base_seconds: base, max_seconds: max, per_address_per_minute: rate }
        }
    }

    proptest! {
        #[test]
        fn a_clean_identity_is_never_locked(policy in policies(), now in any::<u64>()) {
            prop_assert!(matches!(for_identity(None, &policy, now), Gate::Allowed(_)));
            prop_assert!(matches!(for_address(None, &policy, now), Gate::Allowed(_)));
        }

        #[test]
        fn locks_never_get_shorter_nor_longer_than_the_bound(policy in policies()) {
            let waits = guess(for_identity, &policy, 40);
            prop_assert!(waits.iter().take(usize::try_from(policy.after).unwrap()).all(|wait| *wait == 0));
            prop_assert!(waits.is_sorted());
            prop_assert!(waits.iter().all(|wait| *wait <= policy.max_seconds));
        }

        #[test]
        fn whatever_is_stored_a_wait_is_bounded_and_ends(policy in policies(), failures in any::<u32>(), at in 0u64..1 << 40, pause in 0u64..200_000) {
            let Gate::Allowed(attempts) = for_identity(Some(Attempts { failures, first_at: at, last_at: at, locked_until: 0 }), &policy, at) else {
                return Err(TestCaseError::fail("not locked"));
            };
            match for_identity(Some(attempts), &policy, at + pause) {
                Gate::Allowed(_) => {}
                Gate::Locked { retry_after_s } => {
                    prop_assert!(retry_after_s >= 1 && retry_after_s + pause <= policy.max_seconds);
                    let after = for_identity(Some(attempts), &policy, at + pause + retry_after_s);
                    prop_assert!(matches!(after, Gate::Allowed(_)));
                }
            }
        }

        #[test]
        fn no_address_exceeds_its_rate(policy in policies(), pauses in proptest::collection::vec(0u64..20, 1..300)) {
            let (mut stored, mut now, mut let_through) = (None, 1000u64, Vec::new());
            for pause in pauses {
                now += pause;
                if let Gate::Allowed(attempts) = for_address(stored, &policy, now) {
                    stored = Some(attempts);
                    let_through.push(now);
                }
                let window = stored.unwrap().first_at;
                let within = let_through.iter().filter(|at| **at >= window).count();
                prop_assert!(within <= usize::try_from(policy.per_address_per_minute).unwrap());
            }
        }
    }
}
