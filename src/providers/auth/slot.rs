//! What is to be done about a provider's token: to use it, to renew it, to fetch one, or to wait.
//!
//! One slot an isolate and credential. A request that finds no token fetches one itself, for no request may wait for
//! another's I/O: two requests that come at once mint two tokens, which harms nobody. A token that has a while to live
//! is renewed beside a request that already uses it.

use crate::secret::Secret;

/// How long nobody else begins to renew a token once somebody has, in milliseconds.
const RENEWAL_MS: u64 = 10_000;

/// A token is renewed at least this long before it expires, if it lives that long, in milliseconds.
const MARGIN_MS: u64 = 60_000;

/// The longest wait after the first failure, in milliseconds; doubled by each further one.
const FIRST_WAIT_MS: u64 = 1_000;

/// The longest wait after any number of failures, in milliseconds.
const LONGEST_WAIT_MS: u64 = 60_000;

/// A token as it was minted.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token itself.
    pub secret: Secret<String>,
    /// When it stops being accepted, in Unix milliseconds.
    pub expires_at_ms: u64,
}

/// What a request does about its token.
#[derive(Debug)]
pub enum Want {
    /// Send this one.
    Use(Secret<String>),
    /// Send this one, and fetch the next beside the request.
    UseAndRefresh(Secret<String>),
    /// Fetch one first.
    Fetch,
    /// Fetching has failed: not before so many milliseconds.
    Wait {
        /// How long, at least 1.
        ms: u64,
    },
}

/// The token of one credential.
#[derive(Debug, Default)]
pub struct TokenSlot {
    token: Option<Token>,
    /// From when on the token is to be renewed.
    renew_at_ms: u64,
    /// Until when somebody is taken to be renewing it.
    renewing_until_ms: u64,
    /// How often fetching has failed since it last succeeded.
    failures: u32,
    /// Until when nobody fetches.
    wait_until_ms: u64,
}

impl TokenSlot {
    /// What a request that needs the token now does. Who is told to fetch reports to [`Self::got`] or [`Self::failed`].
    pub fn want(&mut self, now_ms: u64) -> Want {
        let waiting = now_ms < self.wait_until_ms;
        match &self.token {
            Some(token) if now_ms < token.expires_at_ms => {
                if now_ms < self.renew_at_ms || now_ms < self.renewing_until_ms || waiting {
                    return Want::Use(token.secret.clone());
                }
                self.renewing_until_ms = now_ms.saturating_add(RENEWAL_MS);
                Want::UseAndRefresh(token.secret.clone())
            }
            _ if waiting => Want::Wait { ms: self.wait_until_ms.saturating_sub(now_ms) },
            _ => Want::Fetch,
        }
    }

    /// A token was fetched. One that expires before the one in hand is a late answer and counts for nothing.
    pub fn got(&mut self, token: Token, now_ms: u64) {
        self.failures = 0;
        self.wait_until_ms = 0;
        if self.token.as_ref().is_some_and(|known| known.expires_at_ms > token.expires_at_ms) {
            return;
        }
        let life = token.expires_at_ms.saturating_sub(now_ms);
        let four_fifths = life.saturating_sub(life.div_euclid(5));
        let after = four_fifths.min(life.saturating_sub(MARGIN_MS)).max(life.div_euclid(2));
        self.renew_at_ms = now_ms.saturating_add(after);
        self.token = Some(token);
    }

    /// Fetching has failed. Failures that come while nobody may fetch were under way together and count as one.
    /// `random` is any number: half of a wait is left to chance, or isolates would come back together.
    pub fn failed(&mut self, now_ms: u64, random: u64) {
        if now_ms < self.wait_until_ms {
            return;
        }
        let longest = FIRST_WAIT_MS.saturating_mul(1_u64.checked_shl(self.failures).unwrap_or(u64::MAX));
        let longest = longest.min(LONGEST_WAIT_MS);
        let half = longest.div_euclid(2);
        self.failures = self.failures.saturating_add(1);
        let by_chance = random.checked_rem(half.saturating_add(1)).unwrap_or(0);
        self.wait_until_ms = now_ms.saturating_add(half).saturating_add(by_chance);
    }

    /// The provider did not accept this token. One that has come in its place meanwhile stays.
    pub fn refused(&mut self, used: &Secret<String>) {
        if self.token.as_ref().is_some_and(|token| token.secret.expose() == used.expose()) {
            self.token = None;
        }
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests compute times")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(name: &str, expires_at_ms: u64) -> Token {
        Token { secret: Secret::new(name.to_owned()), expires_at_ms }
    }

    fn told(want: &Want) -> String {
        match want {
            Want::Use(secret) => format!("use {}", secret.expose()),
            Want::UseAndRefresh(secret) => format!("renew {}", secret.expose()),
            Want::Fetch => "fetch".to_owned(),
            Want::Wait { ms } => format!("wait {ms}"),
        }
    }

    #[test]
    fn a_token_is_used_renewed_by_one_and_given_up_when_it_expires() {
        let mut slot = TokenSlot::default();
        assert_eq!(told(&slot.want(0)), "fetch");
        assert_eq!(told(&slot.want(0)), "fetch");
        slot.got(token("a", 3_600_000), 0);
        assert_eq!(told(&slot.want(2_879_999)), "use a");
        assert_eq!(told(&slot.want(2_880_000)), "renew a");
        assert_eq!(told(&slot.want(2_889_999)), "use a");
        assert_eq!(told(&slot.want(2_890_000)), "renew a");
        assert_eq!(told(&slot.want(3_599_999)), "renew a");
        assert_eq!(told(&slot.want(3_600_000)), "fetch");
    }

    #[test]
    fn short_lives_are_renewed_a_minute_before_their_end_and_shorter_ones_halfway() {
        for (life, renewed_at) in [(200_000, 140_000), (100_000, 50_000), (10, 5), (1_000_000, 800_000)] {
            let mut slot = TokenSlot::default();
            slot.got(token("a", life), 0);
            assert_eq!(told(&slot.want(renewed_at - 1)), "use a", "{life}");
            assert_eq!(told(&slot.want(renewed_at)), "renew a", "{life}");
        }
    }

    #[test]
    fn a_late_answer_does_not_replace_a_token_that_lives_longer() {
        let mut slot = TokenSlot::default();
        slot.got(token("new", 2_000), 0);
        slot.got(token("late", 1_000), 0);
        assert_eq!(told(&slot.want(0)), "use new");
        slot.refused(&Secret::new("late".to_owned()));
        assert_eq!(told(&slot.want(0)), "use new");
        slot.refused(&Secret::new("new".to_owned()));
        assert_eq!(told(&slot.want(0)), "fetch");
    }

    #[test]
    fn waits_double_up_to_a_minute_and_half_of_each_is_chance() {
        for (most, share) in [(false, 2), (true, 1)] {
            let mut slot = TokenSlot::default();
            let mut now = 5;
            for failures in 0..80 {
                let longest = LONGEST_WAIT_MS.min(FIRST_WAIT_MS << failures.min(10));
                slot.failed(now, if most { longest / 2 } else { 0 });
                // One that was under way together with it.
                slot.failed(now, 77);
                assert_eq!(told(&slot.want(now)), format!("wait {}", longest / share), "{failures}");
                now += longest / share;
                assert_eq!(told(&slot.want(now)), "fetch");
            }
        }
    }

    #[test]
    fn after_a_failure_a_token_that_still_lives_is_used_and_a_success_forgets_the_failure() {
        let mut slot = TokenSlot::default();
        slot.got(token("a", 1_000_000), 0);
        assert_eq!(told(&slot.want(900_000)), "renew a");
        slot.failed(909_900, 0);
        assert_eq!(told(&slot.want(910_399)), "use a");
        assert_eq!(told(&slot.want(910_400)), "renew a");
        slot.failed(910_400, 0);
        slot.got(token("b", 2_000_000), 910_400);
        slot.refused(&Secret::new("b".to_owned()));
        assert_eq!(told(&slot.want(910_400)), "fetch");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Pass(u64),
        Want,
        Got(u64),
        Failed(u64),
        RefusedLast,
        RefusedOther,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..20_000u64).prop_map(Step::Pass),
            (0..2_000_000u64).prop_map(Step::Pass),
            Just(Step::Want),
            Just(Step::Want),
            (0..4_000_000u64).prop_map(Step::Got),
            any::<u64>().prop_map(Step::Failed),
            Just(Step::RefusedLast),
            Just(Step::RefusedOther),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_rules_hold(steps in proptest::collection::vec(step(), 0..60)) {
            let mut slot = TokenSlot::default();
            let (mut now, mut renewed_at) = (0, None::<u64>);
            // By the tokens' names, which are numbers: when each expires, and whether it was refused.
            let mut minted = Vec::<(u64, bool)>::new();
            let mut last = None::<usize>;
            for step in steps {
                match step {
                    Step::Pass(ms) => now += ms,
                    Step::Got(life) => {
                        slot.got(token(&minted.len().to_string(), now + life), now);
                        minted.push((now + life, false));
                    }
                    Step::Failed(random) => {
                        slot.failed(now, random);
                        prop_assert!((1..=LONGEST_WAIT_MS).contains(&(slot.wait_until_ms - now)));
                    }
                    Step::RefusedOther => {
                        let before = slot.token.is_some();
                        slot.refused(&Secret::new("none of ours".to_owned()));
                        prop_assert_eq!(slot.token.is_some(), before);
                    }
                    Step::RefusedLast => {
                        let Some(nth) = last else { continue };
                        let held = |slot: &TokenSlot| slot.token.as_ref().map(|token| token.secret.expose().clone());
                        let before = held(&slot);
                        slot.refused(&Secret::new(nth.to_string()));
                        minted[nth].1 = true;
                        prop_assert_eq!(held(&slot), before.filter(|name| *name != nth.to_string()));
                    }
                    Step::Want => {
                        let (secret, renews) = match slot.want(now) {
                            Want::Use(secret) => (secret, false),
                            Want::UseAndRefresh(secret) => (secret, true),
                            Want::Wait { ms } => {
                                prop_assert!((1..=LONGEST_WAIT_MS).contains(&ms));
                                continue;
                            }
                            Want::Fetch => continue,
                        };
                        let nth = secret.expose().parse::<usize>().unwrap();
                        prop_assert!(minted[nth].0 > now && !minted[nth].1, "an expired or refused token");
                        last = Some(nth);
                        if renews {
                            prop_assert!(renewed_at.is_none_or(|at| now >= at + RENEWAL_MS), "two renewals at once");
                            prop_assert!(now >= slot.wait_until_ms, "a renewal while nobody may fetch");
                            renewed_at = Some(now);
                        }
                    }
                }
            }
        }
    }
}
