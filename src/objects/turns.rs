//! What has turned about providers, as the history has it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::routing::board::{Condition, Subject, Transition};
use crate::routing::outcome::Fault;

/// How often a pause that the same subject asks for is written down at most, in milliseconds.
const PAUSES_MS: u64 = 60_000;

/// When pauses were last written down.
#[derive(Debug, Default)]
pub struct Pauses(BTreeMap<Subject, u64>);

impl Pauses {
    /// Whether a turn is worth a row of the history. A model over its rate limit asks for a pause again and again.
    pub fn is_noteworthy(&mut self, now: u64, turn: &Transition) -> bool {
        if turn.to != Condition::CoolingDown || turn.fault == Some(Fault::QuotaExhausted) {
            return true;
        }
        self.0.retain(|_, at| at.saturating_add(PAUSES_MS) > now);
        if self.0.contains_key(&turn.subject) {
            return false;
        }
        self.0.insert(turn.subject.clone(), now);
        true
    }
}

/// A turn as a row of the history. `object` and `nth` name it together.
pub fn entry(object: &str, nth: u64, turn: &Transition) -> Value {
    let word = |condition: Condition| json!(condition).as_str().unwrap_or_default().replace('_', " ");
    let why = turn.fault.map(|fault| format!(": {}", fault.name().replace('_', " "))).unwrap_or_default();
    json!({
        // Entries of the same second are in the order of their ids.
        "id": format!("hlt_{:012x}_{nth:012x}_{object}", turn.at),
        "provider": turn.subject.provider,
        "model": turn.subject.deployment,
        "healthy": u8::from(turn.to == Condition::Closed),
        "state": turn.to,
        "detail": format!("From {} to {}{why}.", word(turn.from), word(turn.to)),
        "at": turn.at / 1_000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(model: &str, to: Condition, fault: Option<Fault>) -> Transition {
        let subject = Subject::new("p", Some(model));
        Transition { subject, from: Condition::HalfOpen, to, fault, at: 1_700_000_000_500, until: None }
    }

    #[test]
    fn a_turn_is_told_in_words_and_in_order() {
        let told = entry("object", 17, &turn("m", Condition::Open, Some(Fault::ServerError)));
        assert_eq!((&told["provider"], &told["model"], &told["healthy"]), (&json!("p"), &json!("m"), &json!(0)));
        assert_eq!((&told["state"], &told["at"]), (&json!("open"), &json!(1_700_000_000)));
        assert_eq!(told["detail"], "From half open to open: server error.");
        let next = entry("object", 18, &turn("m", Condition::Closed, None));
        assert_eq!((&next["healthy"], &next["detail"]), (&json!(1), &json!("From half open to closed.")));
        assert!(told["id"].as_str() < next["id"].as_str());
    }

    #[test]
    fn a_model_s_pauses_are_written_down_once_a_minute_and_everything_else_always() {
        let mut pauses = Pauses::default();
        let limited = |model| turn(model, Condition::CoolingDown, Some(Fault::RateLimited));
        let noted = [(0, "m"), (59_999, "m"), (59_999, "n"), (60_000, "m")]
            .map(|(now, model)| pauses.is_noteworthy(now, &limited(model)));
        assert_eq!(noted, [true, false, true, true]);
        let unpaid = turn("m", Condition::CoolingDown, Some(Fault::QuotaExhausted));
        let open = turn("m", Condition::Open, Some(Fault::Reset));
        assert!([&unpaid, &open, &open].iter().all(|turn| pauses.is_noteworthy(60_001, turn)));
    }
}
