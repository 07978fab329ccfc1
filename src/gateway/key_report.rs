//! What a key is told of itself: `GET /v1/key`.

use serde_json::{Value, json};

use super::limit_headers::is_disclosed;
use crate::auth::Principal;
use crate::auth::api_key::KeyRecord;
use crate::billing::Nanodollars;
use crate::config::Disclose;
use crate::limits::amounts::Amounts;
use crate::limits::ask::RuleState;
use crate::limits::counters::Total;
use crate::limits::rule::Dimension;
use crate::objects::wire::LimitsNow;

/// The report. `record` is the key's, if the caller has one and not a token; `models` are the names that it may use.
pub fn report(
    principal: &Principal,
    record: Option<&KeyRecord>,
    models: &[&str],
    limits: &LimitsNow,
    disclose: Disclose,
) -> Value {
    let shown = limits.states.iter().filter(|state| is_disclosed(state.scope, disclose));
    json!({
        "object": "key",
        "id": principal.key_id,
        "name": record.map(|record| &record.name),
        "account": principal.account,
        "user": principal.user,
        "expires_at": record.and_then(|record| record.expires_at),
        "models": models,
        "limits": shown.map(limit).collect::<Vec<_>>(),
        "usage": {
            "day": total(&limits.totals.day),
            "week": total(&limits.totals.week),
            "month": total(&limits.totals.month),
            "total": total(&limits.totals.total),
        },
        "open_requests": limits.open,
    })
}

fn limit(state: &RuleState) -> Value {
    let mut limit = json!({
        "id": state.rule_id,
        "scope": state.scope,
        "model": state.model,
        "dimension": state.dimension,
        "period": state.period,
        "mode": state.mode,
        "limit": state.limit,
        "used": state.used,
        "reserved": state.reserved,
        "remaining": state.remaining,
        "resets_in_ms": state.reset_ms,
    });
    if state.dimension == Dimension::Cost
        && let Some(members) = limit.as_object_mut()
    {
        for (name, nanos) in [("limit_usd", state.limit), ("used_usd", state.used), ("remaining_usd", state.remaining)]
        {
            members.insert(name.to_owned(), Nanodollars(nanos).to_string().into());
        }
    }
    limit
}

/// What is settled, and beside it what is reserved for requests that are under way.
fn total(total: &Total) -> Value {
    let mut told = amounts(&total.settled);
    if let Some(members) = told.as_object_mut() {
        members.insert("reserved".to_owned(), amounts(&total.reserved));
    }
    told
}

fn amounts(amounts: &Amounts) -> Value {
    json!({
        "requests": amounts.requests,
        "input_tokens": amounts.input,
        "output_tokens": amounts.output,
        "cost_nanodollars": amounts.cost,
        "cost_usd": Nanodollars(amounts.cost).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::admission::Totals;
    use crate::limits::rule::{LimitMode, Period, Scope};

    #[test]
    fn a_key_learns_its_limits_and_its_usage() {
        let state = |scope| RuleState {
            rule_id: "lim_1".into(),
            scope,
            subject: "x".into(),
            model: None,
            dimension: Dimension::Cost,
            period: Period::Month,
            mode: LimitMode::Enforce,
            limit: 5_000_000_000,
            used: 1_500_000_000,
            reserved: 0,
            remaining: 3_500_000_000,
            reset_ms: 7,
        };
        let settled = Amounts { requests: 2, input: 30, output: 40, cost: 1_500_000_000 };
        let limits = LimitsNow {
            states: vec![state(Scope::Key), state(Scope::Account)],
            totals: Totals { day: Total { settled, reserved: Amounts::default() }, ..Totals::default() },
            open: 3,
            ..LimitsNow::default()
        };
        let principal = Principal { account: "a".into(), key_id: "k".into(), ..Principal::default() };
        let told = report(&principal, None, &["m"], &limits, Disclose::Own);
        assert_eq!((&told["id"], &told["name"], &told["models"]), (&json!("k"), &Value::Null, &json!(["m"])));
        assert_eq!(told["limits"].as_array().map(Vec::len), Some(1), "the account's is not told");
        assert_eq!(told["limits"][0]["remaining_usd"], "3.5");
        assert_eq!((&told["usage"]["day"]["cost_usd"], &told["usage"]["week"]["requests"]), (&json!("1.5"), &json!(0)));
        assert_eq!(told["open_requests"], 3);
        assert!(!told.to_string().contains("\"x\""));
    }
}
