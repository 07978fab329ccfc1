//! What an isolate remembers of refusals, so that a caller hammering at a limit costs the ledger nothing.
//!
//! Only what surely stands is remembered: a limit on requests, which are not given back once they are counted; and a
//! quota or budget that has no room even if nothing of what is reserved should be used. A refusal holds for requests that
//! ask for as much or more, until there may be room again, and never for longer than [`KEPT_MS`]: that is how soon a raised
//! limit shows.

use std::collections::HashMap;

use super::amounts::AskPrices;
use super::ask::{Ask, Breach, Denial, RuleState};
use super::holder::Lessee;
use super::rule::Dimension;

/// For how many milliseconds a refusal is remembered at most.
pub const KEPT_MS: u64 = 1_000;

/// Refusals that are remembered at most.
const MOST: usize = 1_000;

/// The refusals that an isolate remembers.
#[derive(Debug, Default)]
pub struct Refusals {
    refused: HashMap<Lessee, Refused>,
}

#[derive(Debug)]
struct Refused {
    /// What was asked for.
    input_tokens: u64,
    max_output_tokens: u64,
    prices: Option<AskPrices>,
    /// When the answer came.
    since: u64,
    /// Until when it is good.
    until: u64,
    denial: Denial,
}

impl Refusals {
    /// Remembers a refusal, asked for at `asked_at` and heard at `now`, if it surely stands for a while.
    pub fn learn(&mut self, asked_at: u64, now: u64, lessee: Lessee, ask: &Ask, denial: &Denial) {
        let wait = denial.breach.retry_after_ms.unwrap_or(KEPT_MS).min(KEPT_MS);
        let until = asked_at.saturating_add(wait);
        if until <= now || !is_firm(denial) {
            return;
        }
        if self.refused.len() >= MOST {
            self.refused.retain(|_, refused| now < refused.until);
        }
        if self.refused.len() < MOST {
            let (input_tokens, max_output_tokens) = (ask.input_tokens, ask.max_output_tokens);
            let denial = denial.clone();
            let refused = Refused { input_tokens, max_output_tokens, prices: ask.prices, since: now, until, denial };
            self.refused.insert(lessee, refused);
        }
    }

    /// The refusal that a request would meet, as it is by now. `None` if the ledger must be asked.
    pub fn of(&self, now: u64, lessee: &Lessee, ask: &Ask) -> Option<Denial> {
        let refused = self.refused.get(lessee).filter(|refused| (refused.since..refused.until).contains(&now))?;
        let one_more = refused.denial.breach.dimension == Dimension::Requests;
        let no_less = ask.prices == refused.prices
            && ask.input_tokens >= refused.input_tokens
            && ask.max_output_tokens >= refused.max_output_tokens;
        if !one_more && !no_less {
            return None;
        }
        let passed = now.saturating_sub(refused.since);
        let mut denial = refused.denial.clone();
        denial.breach.retry_after_ms = denial.breach.retry_after_ms.map(|wait| wait.saturating_sub(passed));
        for state in &mut denial.states {
            state.reset_ms = state.reset_ms.saturating_sub(passed);
        }
        Some(denial)
    }
}

/// Whether nothing that is reserved now can make room by turning out not to be used.
fn is_firm(denial: &Denial) -> bool {
    let Breach { rule_id, dimension, period, limit, asked, .. } = &denial.breach;
    let state = denial.states.iter().find(|state| state.rule_id == *rule_id);
    match dimension {
        Dimension::Requests => true,
        Dimension::Concurrency => false,
        // Rates do not tell what is reserved from what is used.
        _ if period.window_ms().is_some() => false,
        _ => state.is_some_and(|RuleState { used, reserved, .. }| {
            used.saturating_sub(*reserved).saturating_add(*asked) > *limit
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::{LimitMode, Period, Scope};
    use super::*;

    fn lessee() -> Lessee {
        Lessee { account: "a".into(), key_id: "k".into(), user: None, model: "m".into() }
    }

    fn denial(dimension: Dimension, period: Period, reserved: u64, retry_after_ms: Option<u64>) -> Denial {
        let breach = Breach {
            rule_id: "r".into(),
            scope: Scope::Key,
            subject: "k".into(),
            model: None,
            dimension,
            period,
            limit: 100,
            used: 100,
            asked: 1,
            retry_after_ms,
        };
        let state = RuleState {
            rule_id: "r".into(),
            scope: Scope::Key,
            subject: "k".into(),
            model: None,
            dimension,
            period,
            mode: LimitMode::Enforce,
            limit: 100,
            used: 100,
            reserved,
            remaining: 0,
            reset_ms: 5_000,
        };
        Denial { breach, states: vec![state] }
    }

    fn remembered(denial: &Denial) -> Refusals {
        let mut refusals = Refusals::default();
        let ask = Ask { input_tokens: 10, max_output_tokens: 20, ..Ask::default() };
        refusals.learn(1_000, 1_050, lessee(), &ask, denial);
        refusals
    }

    #[test]
    fn it_holds_until_there_may_be_room_and_for_a_second_at_most() {
        let brief = remembered(&denial(Dimension::Requests, Period::Minute, 0, Some(300)));
        let any = Ask::default();
        let told = brief.of(1_299, &lessee(), &any).unwrap();
        assert_eq!((told.breach.retry_after_ms, told.states[0].reset_ms), (Some(51), 4_751));
        assert_eq!((brief.of(1_300, &lessee(), &any), brief.of(1_049, &lessee(), &any)), (None, None));
        assert_eq!(brief.of(1_100, &Lessee { model: "n".into(), ..lessee() }, &any), None);
        for wait in [Some(60_000), None] {
            let lasting = remembered(&denial(Dimension::Requests, Period::Minute, 0, wait));
            assert_eq!(lasting.of(1_999, &lessee(), &any).unwrap().breach.retry_after_ms, wait.map(|wait| wait - 949));
            assert_eq!(lasting.of(2_000, &lessee(), &any), None);
        }
        assert!(remembered(&denial(Dimension::Requests, Period::Second, 0, Some(50))).refused.is_empty());
    }

    #[test]
    fn what_may_come_free_is_asked_again() {
        for (denial, kept) in [
            (denial(Dimension::Concurrency, Period::None, 0, Some(1_000)), false),
            (denial(Dimension::TotalTokens, Period::Minute, 0, Some(9_000)), false),
            (denial(Dimension::Cost, Period::Day, 1, Some(9_000)), false),
            (denial(Dimension::Cost, Period::Day, 0, Some(9_000)), true),
            (denial(Dimension::Cost, Period::Total, 0, None), true),
        ] {
            assert_eq!(!remembered(&denial).refused.is_empty(), kept, "{denial:?}");
        }
    }

    #[test]
    fn who_asks_for_less_is_judged_anew() {
        let refusals = remembered(&denial(Dimension::Cost, Period::Month, 0, None));
        let of = |input_tokens, max_output_tokens, prices| {
            let ask = Ask { input_tokens, max_output_tokens, prices, ..Ask::default() };
            refusals.of(1_100, &lessee(), &ask).is_some()
        };
        assert!(of(10, 20, None) && of(11, 21, None));
        assert!(!of(9, 20, None) && !of(10, 19, None) && !of(10, 20, Some(AskPrices::default())));
    }

    #[test]
    fn their_number_is_bounded() {
        let mut refusals = Refusals::default();
        let denial = denial(Dimension::Requests, Period::Hour, 0, None);
        for n in 0..3 * MOST as u64 {
            let key_id = n.to_string();
            refusals.learn(n, n, Lessee { key_id, ..lessee() }, &Ask::default(), &denial);
            assert!(refusals.refused.len() <= MOST);
        }
        assert!(refusals.refused.len() > MOST / 2);
    }
}
