//! What is known of the health of one model at a provider, or of one provider.

use serde::{Deserialize, Serialize};

use super::breaker::Breaker;
use super::headroom::{Headroom, Share};
use super::outcome::Fault;
use super::{portion, shifted};

/// Parts of a half-life that fading is reckoned in.
const TICKS: u64 = 16;

/// What is left after so many of them, in 65,536ths: powers of 2 to the power of -1/16.
const FADED: [u64; 16] = [
    65_536, 62_757, 60_097, 57_549, 55_109, 52_773, 50_535, 48_393, 46_341, 44_376, 42_495, 40_693, 38_968, 37_316,
    35_734, 34_219,
];

/// One of what fades, so that parts of it can be told.
const ONE: u64 = 1 << 16;

/// In which time what was counted of successes and latencies counts half, in milliseconds.
pub const HALF_LIFE_MS: u64 = 10_000;

/// In which time a latency that nothing confirms counts half, in milliseconds: something slow is tried again some time.
const FORGETTING_MS: u64 = 30_000;

/// So many successes are taken for granted, or the first fault would be a rate of 100 %.
const GRANTED: u64 = 5 * ONE;

/// What is left at least of the weight of what is usual: a quarter of a reply.
const LEAST_COUNT: u64 = ONE / 4;

/// The longest pause that repeated 429s lead to, in milliseconds.
pub const MAX_COOLDOWN_MS: u64 = 60_000;

/// Below which share of a provider's own limit its load is reduced, in permille.
const SCARCE_PERMILLE: u64 = 200;

/// The least weight that something which is not left alone has, in permille.
pub const LEAST_PERMILLE: u64 = 10;

/// What is left of a number after some time.
fn faded(number: u64, passed_ms: u64, half_life_ms: u64) -> u64 {
    let ticks = passed_ms.saturating_mul(TICKS).checked_div(half_life_ms).unwrap_or(0);
    let halvings = u32::try_from(ticks.div_euclid(TICKS)).unwrap_or(u32::MAX);
    let halved = number.checked_shr(halvings).unwrap_or(0);
    let rest = usize::try_from(ticks.rem_euclid(TICKS)).unwrap_or(0);
    let factor = FADED.get(rest).copied().unwrap_or(ONE);
    // Both halves of the number apart, so that the product fits.
    let (high, low) = (halved.div_euclid(ONE), halved.rem_euclid(ONE));
    high.saturating_mul(factor).saturating_add(low.saturating_mul(factor).div_euclid(ONE))
}

/// So much of a time as is reckoned with: whole parts of [`HALF_LIFE_MS`], so that fading in steps is fading at once.
fn whole_ticks(passed_ms: u64) -> u64 {
    let tick = HALF_LIFE_MS.div_euclid(TICKS);
    passed_ms.saturating_sub(passed_ms.checked_rem(tick).unwrap_or(0))
}

/// How often requests succeed: successes and faults, each of which counts half after [`HALF_LIFE_MS`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rate {
    all: u64,
    faults: u64,
    at: u64,
}

impl Rate {
    /// Counts a request.
    pub fn note(&mut self, now: u64, failed: bool) {
        self.fade(now);
        self.all = self.all.saturating_add(ONE);
        self.faults = self.faults.saturating_add(if failed { ONE } else { 0 });
    }

    /// The share of faults, in permille.
    pub fn error_permille(&self, now: u64) -> u64 {
        let mut rate = *self;
        rate.fade(now);
        portion(1_000, rate.faults, rate.all.saturating_add(GRANTED))
    }

    fn fade(&mut self, now: u64) {
        let passed = whole_ticks(now.saturating_sub(self.at));
        self.all = faded(self.all, passed, HALF_LIFE_MS);
        self.faults = faded(self.faults, passed, HALF_LIFE_MS);
        self.at = self.at.saturating_add(passed);
    }
}

/// How long the first token takes: what is usual, and a peak that is taken over at once and sinks to what is usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// Fading number and sum, in milliseconds, of what was seen.
    count: u64,
    sum: u64,
    /// The highest, and when it was.
    peak: u64,
    peak_at: u64,
    /// Up to when number and sum have faded.
    at: u64,
    /// When something was last seen.
    seen: u64,
}

impl Latency {
    /// Takes a time to first token in, in milliseconds.
    pub fn note(&mut self, now: u64, millis: u64) {
        // Nobody waits for a day; and the sums stay small.
        let millis = millis.min(86_400_000);
        let peak = self.peak_now(now);
        self.fade(now);
        self.count = self.count.saturating_add(ONE);
        self.sum = self.sum.saturating_add(millis.saturating_mul(ONE));
        if peak.is_none_or(|peak| millis >= peak) {
            self.peak = millis;
            self.peak_at = now;
        }
        self.seen = self.seen.max(now);
    }

    /// What is usual, in milliseconds.
    pub fn usual_ms(&self) -> Option<u64> {
        self.sum.checked_div(self.count)
    }

    /// The peak as far as it has not sunk, in milliseconds. What nothing confirms for long fades.
    pub fn peak_ms(&self, now: u64) -> Option<u64> {
        let unconfirmed = now.saturating_sub(self.seen).saturating_sub(HALF_LIFE_MS);
        self.peak_now(now).map(|peak| faded(peak, unconfirmed, FORGETTING_MS))
    }

    fn peak_now(&self, now: u64) -> Option<u64> {
        let usual = self.usual_ms()?;
        let above = self.peak.saturating_sub(usual);
        Some(usual.saturating_add(faded(above, now.saturating_sub(self.peak_at), HALF_LIFE_MS)))
    }

    fn fade(&mut self, now: u64) {
        let passed = whole_ticks(now.saturating_sub(self.at));
        let count = faded(self.count, passed, HALF_LIFE_MS);
        if count >= LEAST_COUNT {
            (self.count, self.sum) = (count, faded(self.sum, passed, HALF_LIFE_MS));
        } else if let Some(usual) = self.usual_ms() {
            // What is usual stays known as long as nothing newer is: it keeps the weight of a fraction of a reply.
            (self.count, self.sum) = (LEAST_COUNT, usual.saturating_mul(LEAST_COUNT));
        }
        self.at = self.at.saturating_add(passed);
    }
}

/// A pause that the provider asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    /// When it ends.
    pub until: u64,
    /// Why.
    pub fault: Fault,
}

/// What a provider said of its own limits, and until when that holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Left {
    /// When it was said.
    at: u64,
    /// What it said.
    headroom: Headroom,
}

impl Left {
    /// Each share that is not whole again yet.
    fn shares(&self, now: u64) -> impl Iterator<Item = Lasting> + use<> {
        let passed = now.saturating_sub(self.at);
        let both = [self.headroom.requests, self.headroom.tokens].into_iter().flatten();
        let lasting = move |share: Share| Some(Lasting { share, reset_ms: share.reset_ms?, passed });
        both.filter_map(lasting).filter(|lasting| lasting.reset_ms > lasting.passed)
    }

    /// For how long nothing is left. Providers refill all the time and say when all is there again, so the next one of it is
    /// there much sooner.
    pub fn exhausted_ms(&self, now: u64) -> Option<u64> {
        let empty = self.shares(now).filter(|lasting| lasting.share.remaining == 0);
        let next = |Lasting { share, reset_ms, passed }: Lasting| {
            let one = reset_ms.checked_div(share.limit).unwrap_or(reset_ms).max(1);
            one.checked_sub(passed).filter(|left| *left > 0)
        };
        empty.filter_map(next).max()
    }

    /// After how many milliseconds that of which nothing is left is whole again.
    pub fn whole_ms(&self, now: u64) -> Option<u64> {
        let empty = self.shares(now).filter(|lasting| lasting.share.remaining == 0);
        empty.map(|lasting| lasting.reset_ms.saturating_sub(lasting.passed)).max()
    }

    /// By which factor its load is reduced so that it lasts until the reset, in permille.
    pub fn factor_permille(&self, now: u64) -> u64 {
        let shares = self.shares(now).map(|Lasting { share, reset_ms, passed }| {
            let refilled = portion(share.limit.saturating_sub(share.remaining), passed, reset_ms);
            portion(1_000, share.remaining.saturating_add(refilled), share.limit)
        });
        let scarcest = shares.min().unwrap_or(1_000);
        if scarcest >= SCARCE_PERMILLE { 1_000 } else { portion(1_000, scarcest, SCARCE_PERMILLE) }
    }

    /// What is known, with the time until each is whole again reckoned from now.
    pub fn now(&self, now: u64) -> Headroom {
        let passed = now.saturating_sub(self.at);
        let left = |share: Option<Share>| {
            let share = share?;
            let reset_ms = share.reset_ms.filter(|reset_ms| *reset_ms > passed)?.saturating_sub(passed);
            Some(Share { reset_ms: Some(reset_ms), ..share })
        };
        let Headroom { requests, tokens, input_tokens, output_tokens } = self.headroom;
        Headroom {
            requests: left(requests),
            tokens: left(tokens),
            input_tokens: left(input_tokens),
            output_tokens: left(output_tokens),
        }
    }
}

/// A share that is not whole again yet.
struct Lasting {
    share: Share,
    /// When it will be, in milliseconds after it was told.
    reset_ms: u64,
    /// How long ago that was.
    passed: u64,
}

/// What is known of the health of one model at a provider, or of one provider. Times are milliseconds on its keeper's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vitals {
    /// Whether it is left alone because of its faults.
    #[serde(skip_serializing_if = "is_default")]
    pub breaker: Breaker,
    /// The last pause that it asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Cooldown>,
    /// How many pauses in a row were not long enough.
    #[serde(skip_serializing_if = "is_default")]
    pub pauses: u64,
    /// How often it succeeds.
    #[serde(skip_serializing_if = "is_default")]
    pub rate: Rate,
    /// How long it takes.
    #[serde(skip_serializing_if = "is_default")]
    pub first_token: Latency,
    /// What it says of its own limits.
    #[serde(skip_serializing_if = "is_default")]
    pub left: Left,
    /// When anything was last heard of it.
    pub seen: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Vitals {
    /// The pause that it is in, if it is in one: how many milliseconds are left, and why.
    pub fn pause(&self, now: u64) -> Option<(u64, Fault)> {
        let cooldown = self.cooldown.filter(|cooldown| cooldown.until > now)?;
        Some((cooldown.until.saturating_sub(now), cooldown.fault))
    }

    /// It has asked for a pause until a time. Tells whether that begins or noticeably extends one.
    pub fn pause_until(&mut self, now: u64, until: u64, fault: Fault) -> bool {
        let before = self.cooldown.map_or(0, |cooldown| cooldown.until).max(now);
        if until > before {
            self.cooldown = Some(Cooldown { until, fault });
        }
        until > before.saturating_add(if before > now { 1_000 } else { 0 })
    }

    /// It has asked for a pause without saying how long, to a request that began at a time. What it answers to requests
    /// that were under way before the last pause ended does not extend that one.
    pub fn pause_for_a_while(&mut self, now: u64, at: u64, began: u64, first_ms: u64) -> bool {
        let last = self.cooldown.map_or(0, |cooldown| cooldown.until);
        if began < last {
            return false;
        }
        if began > last.saturating_add(MAX_COOLDOWN_MS) {
            self.pauses = 0;
        }
        let factor = 1_u64.checked_shl(u32::try_from(self.pauses).unwrap_or(32)).unwrap_or(u64::MAX);
        let lasts = first_ms.saturating_mul(factor).min(MAX_COOLDOWN_MS);
        self.pauses = self.pauses.saturating_add(1).min(32);
        self.pause_until(now, at.saturating_add(lasts), Fault::RateLimited)
    }

    /// It has answered a request that began at a time.
    pub fn answered(&mut self, began: u64) {
        if self.cooldown.is_none_or(|cooldown| began >= cooldown.until) {
            self.pauses = 0;
        }
    }

    /// It has said something of its own limits.
    pub fn told(&mut self, at: u64, headroom: Headroom) {
        if at >= self.left.at {
            self.left = Left { at, headroom };
        }
    }

    /// Which share of its configured weight it should have, in permille, latency aside: the square of its success rate,
    /// less while it starts slowly and while its own limits are scarce.
    pub fn weight_permille(&self, now: u64, slow_start_ms: u64) -> u64 {
        let success = 1_000_u64.saturating_sub(self.rate.error_permille(now));
        let factors =
            [success, success, self.breaker.slow_start_permille(now, slow_start_ms), self.left.factor_permille(now)];
        factors.into_iter().fold(1_000, |weight, factor| portion(weight, factor, 1_000)).max(LEAST_PERMILLE)
    }

    /// Whether it says nothing that an entry which is not there would not say.
    pub fn is_pristine(&self) -> bool {
        Self { seen: 0, ..self.clone() } == Self::default()
    }

    /// What must survive an eviction, if there is anything.
    pub fn lasting(&self, now: u64, slow_start_ms: u64) -> Option<Self> {
        let starting = self.breaker.slow_start_permille(now, slow_start_ms) < 1_000;
        let lasts =
            self.breaker.opening().is_some() || self.breaker.times() > 0 || starting || self.pause(now).is_some();
        lasts.then(|| Self {
            breaker: self.breaker.lasting(),
            cooldown: self.cooldown,
            pauses: self.pauses,
            seen: self.seen,
            ..Self::default()
        })
    }

    /// The same on a clock that shows `to` where this one shows `from`.
    pub fn shift(&mut self, from: u64, to: u64) {
        let move_one = |at: &mut u64| *at = shifted(*at, from, to);
        self.breaker.shift(from, to);
        if let Some(cooldown) = &mut self.cooldown {
            move_one(&mut cooldown.until);
        }
        [
            &mut self.rate.at,
            &mut self.first_token.at,
            &mut self.first_token.peak_at,
            &mut self.first_token.seen,
            &mut self.left.at,
            &mut self.seen,
        ]
        .into_iter()
        .for_each(move_one);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::arithmetic_side_effects, reason = "small numbers")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_fades_halves() {
        assert_eq!(faded(1 << 20, HALF_LIFE_MS, HALF_LIFE_MS), 1 << 19);
        assert_eq!(faded(1 << 20, 3 * HALF_LIFE_MS, HALF_LIFE_MS), 1 << 17);
        assert!((707_000..=707_107).contains(&faded(1_000_000, 5_000, HALF_LIFE_MS)), "the square root of a half");
        assert_eq!((faded(1 << 20, u64::MAX, HALF_LIFE_MS), faded(7, 0, HALF_LIFE_MS)), (0, 7));
    }

    #[test]
    fn the_error_rate_follows_the_errors_and_is_forgotten() {
        let mut rate = Rate::default();
        assert_eq!(rate.error_permille(0), 0);
        rate.note(1_000, true);
        assert!(rate.error_permille(1_000) < 200, "one fault is no error rate");
        for at in 0..600 {
            rate.note(1_000 + at * 100, at % 4 == 0);
        }
        let error = rate.error_permille(61_000);
        assert!((225..=250).contains(&error), "{error}");
        assert!(rate.error_permille(61_000 + 20 * HALF_LIFE_MS) == 0);
    }

    #[test]
    fn a_peak_is_taken_over_at_once_and_sinks_to_what_is_usual() {
        let mut latency = Latency::default();
        assert_eq!((latency.usual_ms(), latency.peak_ms(0)), (None, None));
        for at in 0..1_000 {
            latency.note(at * 50, 400);
        }
        assert_eq!((latency.usual_ms(), latency.peak_ms(50_000)), (Some(400), Some(400)));
        latency.note(50_000, 4_000);
        assert_eq!(latency.peak_ms(50_000), Some(4_000));
        assert!(latency.usual_ms().unwrap() < 430);
        for at in 0..200 {
            latency.note(50_050 + at * 50, 400);
        }
        let sunk = latency.peak_ms(60_000).unwrap();
        assert!((2_100..=2_300).contains(&sunk), "{sunk}");
        assert_eq!(latency.peak_ms(60_000 + 10 * FORGETTING_MS).unwrap() / 100, 0, "it is worth another try");
        let usual = latency.usual_ms().unwrap();
        latency.note(3_600_000, 100);
        assert!(usual < 430 && latency.usual_ms().unwrap() < 170, "what is old gives way to what is new");
    }

    #[test]
    fn a_pause_lasts_as_long_as_told_or_doubles() {
        let mut vitals = Vitals::default();
        assert!(vitals.pause_until(1_000, 4_000, Fault::RateLimited));
        assert!(!vitals.pause_until(1_001, 3_000, Fault::RateLimited), "a shorter one changes nothing");
        assert_eq!((vitals.pause(3_999).is_some(), vitals.pause(4_000)), (true, None));
        assert!(!vitals.pause_for_a_while(3_000, 3_000, 2_000, 1_000), "it was under way before the pause ended");
        let mut now = 4_000;
        for lasts in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            assert!(vitals.pause_for_a_while(now, now, now, 1_000));
            assert_eq!(vitals.pause(now), Some((lasts, Fault::RateLimited)));
            now += lasts;
        }
        vitals.answered(now - 1);
        vitals.pause_for_a_while(now, now, now, 1_000);
        assert_eq!(vitals.pause(now).unwrap().0, 60_000, "a reply to what was sent before proves nothing");
        now += 60_000;
        vitals.answered(now);
        vitals.pause_for_a_while(now, now, now, 1_000);
        assert_eq!(vitals.pause(now).unwrap().0, 1_000);
    }

    #[test]
    fn the_load_is_reduced_when_little_is_left_and_ends_when_nothing_is() {
        let mut vitals = Vitals::default();
        let told = |remaining, reset_ms| {
            let requests = Some(Share { limit: 1_000, remaining, reset_ms: Some(reset_ms) });
            Headroom { requests, ..Headroom::default() }
        };
        for (remaining, weight) in [(1_000, 1_000), (200, 1_000), (100, 500), (20, 100), (1, LEAST_PERMILLE)] {
            vitals.told(5_000, told(remaining, 2_000));
            assert_eq!((vitals.weight_permille(5_000, 0), vitals.left.exhausted_ms(5_000)), (weight, None));
        }
        vitals.told(5_000, told(0, 20_000));
        assert_eq!((vitals.left.exhausted_ms(5_000), vitals.left.exhausted_ms(5_019)), (Some(20), Some(1)));
        assert_eq!((vitals.left.exhausted_ms(5_020), vitals.left.whole_ms(5_020)), (None, Some(19_980)));
        let weights = [5_020, 7_000, 9_000, 25_000].map(|now| vitals.weight_permille(now, 0));
        assert_eq!(weights, [LEAST_PERMILLE, 500, 1_000, 1_000], "it refills");
        vitals.told(4_000, told(1_000, 9_000));
        assert_eq!(vitals.left.exhausted_ms(5_000), Some(20), "what is older says nothing");
    }

    proptest! {
        #[test]
        fn fading_in_steps_is_fading_at_once(
            steps in proptest::collection::vec(0_u64..3_000, 1..20), faults in proptest::collection::vec(any::<bool>(), 1..20),
        ) {
            let mut stepwise = Rate::default();
            faults.iter().for_each(|failed| stepwise.note(0, *failed));
            let (at_once, mut now) = (stepwise, 0);
            for step in steps {
                now += step;
                stepwise.fade(now);
            }
            prop_assert!(stepwise.error_permille(now).abs_diff(at_once.error_permille(now)) <= 1);
        }

        #[test]
        fn numbers_stay_within_bounds(
            events in proptest::collection::vec((0_u64..50_000, any::<bool>(), 0_u64..u64::MAX, any::<u64>()), 1..50),
        ) {
            let (mut vitals, mut now) = (Vitals::default(), 0);
            let (mut least, mut most) = (u64::MAX, 0);
            for (wait, failed, latency, remaining) in events {
                now += wait;
                vitals.rate.note(now, failed);
                vitals.first_token.note(now, latency);
                (least, most) = (least.min(latency.min(86_400_000)), most.max(latency.min(86_400_000)));
                let tokens = Some(Share { limit: u64::MAX, remaining, reset_ms: Some(1_000) });
                vitals.told(now, Headroom { tokens, ..Headroom::default() });
                let usual = vitals.first_token.usual_ms().unwrap();
                let peak = vitals.first_token.peak_ms(now).unwrap();
                let rounding = most / 100 + 1;
                prop_assert!(usual + rounding >= least && usual <= most + rounding && peak <= most + rounding);
                prop_assert!(vitals.rate.error_permille(now) <= 1_000);
                prop_assert!((LEAST_PERMILLE..=1_000).contains(&vitals.weight_permille(now, 10_000)));
                let read: Vitals = serde_json::from_str(&serde_json::to_string(&vitals).unwrap()).unwrap();
                prop_assert_eq!(&read, &vitals);
                let mut shifted = vitals.clone();
                shifted.shift(now, now + 12_345);
                prop_assert_eq!(shifted.first_token.peak_ms(now + 12_345), Some(peak));
            }
        }
    }
}
