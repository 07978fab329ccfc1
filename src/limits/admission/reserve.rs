//! Reservations.

use super::super::amounts::{Amounts, of_request};
use super::super::ask::{Answer, Ask, Breach, Denial, Grant, Preview};
use super::super::bucket::{Bucket, Flow};
use super::super::row::{CounterId, Mark, Row, Stage};
use super::super::rule::{Dimension, LimitMode};
use super::super::rules::Applied;
use super::super::window::{EXACT_UP_TO, Until, Window};
use super::aside::Aside;
use super::*;

/// After how many milliseconds a caller refused for concurrency may try again. When a connection ends cannot be known.
const CONCURRENCY_RETRY_MS: u64 = 1_000;

/// A rate that a request is to be counted in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) counter: CounterId,
    /// Whether each event has its own stamp.
    exact: bool,
    /// How a bucket drains; `None` for a window.
    pub(super) flow: Option<Flow>,
}

/// What is found of an ask.
struct Judged {
    /// What it takes.
    amounts: Amounts,
    /// The shadow rules without room for it.
    shadowed: Vec<Breach>,
    /// The rule that stands against it for longest.
    breach: Option<Breach>,
}

impl Admission {
    /// Reserves what a request may use, or says which rule has no room for it. Asking again with the same id reserves
    /// nothing more, unless it is the request's next turn: then what it needs now takes the place of what it has, which
    /// stays where there is no room. Asking after the settlement reserves nothing at all.
    pub fn reserve(&mut self, now: u64, ask: &Ask) -> Answer {
        let now = self.clock(now);
        self.expire(now);
        if !ask.passing {
            self.store_passing(u64::MAX);
        }
        if ask.defaults != self.defaults {
            self.defaults.clone_from(&ask.defaults);
            self.pending.push(Pending::Defaults);
        }
        let caller = ask.caller();
        let counts = |row: &Row| !row.leased.is_lease() && !row.passing && !ask.passing;
        let aside = match self.slots.get(&ask.id) {
            Some(Slot::Open(row)) if counts(row) && row.turn < ask.turn => self.set_aside(now, &ask.id),
            Some(slot) => {
                let reserved = if let Slot::Open(row) = slot { row.amounts } else { Amounts::default() };
                let lease = self.lease_of(&ask.id);
                let states = self.states(now, &caller, &ask.defaults);
                return Answer::Granted(Grant { reserved, states, shadowed: Vec::new(), lease, repeated: true });
            }
            None => None,
        };
        let applied = self.rules.applied(self.subjects.root_scope(), &caller, &ask.defaults);
        if ask.passing && applied.is_empty() {
            self.let_pass(now, ask);
            return Answer::Granted(Grant::default());
        }
        let learned = self.learned(ask);
        let Judged { amounts, shadowed, breach } = self.judge(now, ask, &applied, learned);
        if let Some(breach) = breach {
            let states = self.states_of(now, &caller, &applied);
            if let Some(aside) = aside {
                self.put_back(aside);
            }
            return Answer::Denied(Denial { breach, states });
        }
        let rates = rates(&applied);
        let takes_leases = ask.lease.ttl_ms > 0 && !ask.holder.is_empty();
        let beats = if takes_leases { self.heat.asked(now, ask) } else { 0 };
        let lease = self.lease_size(now, ask, beats, &applied, &amounts);

        let row = Row {
            id: ask.id.clone(),
            at: now,
            key_id: ask.key_id.clone(),
            user: ask.user.clone(),
            model: ask.model.clone(),
            amounts,
            stage: Stage::Open(now.saturating_add(ask.lifetime_ms)),
            turn: ask.turn,
            left: aside.map(Aside::left).unwrap_or_default(),
            ..Row::default()
        };
        self.charge(now, row, &rates);
        let lease = lease.map(|size| self.grant_lease(now, ask, size, learned, &amounts, &rates));
        let states = self.states(now, &caller, &ask.defaults);
        Answer::Granted(Grant { reserved: amounts, states, shadowed, lease, repeated: false })
    }

    /// What [`Self::reserve`] would reserve for a new request, and which rules would have no room for it. Nothing is counted.
    pub fn preview(&self, now: u64, ask: &Ask) -> Preview {
        let applied = self.rules.applied(self.subjects.root_scope(), &ask.caller(), &ask.defaults);
        let at = self.clock(now);
        let Judged { amounts, shadowed, breach } = self.judge(at, ask, &applied, self.learned(ask));
        Preview { at, reserved: amounts, states: self.states_of(at, &ask.caller(), &applied), shadowed, breach }
    }

    /// The output that a request like this has, as far as is known.
    fn learned(&self, ask: &Ask) -> u64 {
        let quantile = ask.output_quantile_percent;
        self.meta.profiles.estimate(&ask.key_id, &ask.model, ask.first_output_tokens, quantile)
    }

    fn judge(&self, now: u64, ask: &Ask, applied: &[Applied<'_>], learned: u64) -> Judged {
        let caller = ask.caller();
        let amounts = fitted(applied, ask, learned.min(ask.max_output_tokens));
        let (mut worst, mut shadowed): (Option<Breach>, Vec<Breach>) = (None, Vec::new());
        for applied in applied {
            let Err(until) = self.room(now, &caller, applied, &amounts) else { continue };
            let breach = self.breach(now, &caller, applied, &amounts, until);
            if applied.rule.terms.mode == LimitMode::Shadow {
                shadowed.push(breach);
            } else if worst.as_ref().is_none_or(|worst| lasts(worst) < lasts(&breach)) {
                worst = Some(breach);
            }
        }
        Judged { amounts, shadowed, breach: worst }
    }

    /// Counts a new row in its totals and in these rates.
    pub(super) fn charge(&mut self, now: u64, mut row: Row, rates: &[Rate]) {
        row.sequence = self.next_sequence();
        let caller = Caller { key: &row.key_id, user: row.user.as_deref(), model: Some(&row.model) };
        for rate in rates {
            let Some(counters) = self.subjects.counters_mut(rate.counter, &caller) else { continue };
            let CounterId { dimension, period, .. } = rate.counter;
            let mark = match rate.flow {
                Some(flow) => {
                    let amount = row.amounts.of(dimension);
                    let added =
                        counters.with_bucket(dimension, period, row.sequence, |bucket| bucket.add(flow, now, amount));
                    added.map(|(place, bucket)| (place, Some(bucket)))
                }
                None => counters.window_mut(dimension, period).map(|window| {
                    let period_ms = period.window_ms().unwrap_or(0);
                    window.prune(period_ms, now);
                    (window.stamp(period_ms, row.at, rate.exact), None)
                }),
            };
            row.marks.extend(mark.map(|(place, bucket)| Mark { counter: rate.counter, place, bucket }));
        }
        // What it counts in again it has not left.
        let Row { left, marks, model, .. } = &mut row;
        left.retain(|(of, left)| {
            let is_same = |mark: &Mark| mark.bucket.is_some() && mark.counter == left.counter;
            !marks.iter().any(|mark| is_same(mark) && (!mark.counter.of_model || of == model))
        });
        self.put(row);
    }

    /// The rates that a caller's requests count in.
    pub(super) fn rates_of(&self, caller: &Caller<'_>) -> Vec<Rate> {
        rates(&self.rules.applied(self.subjects.root_scope(), caller, &self.defaults))
    }

    /// Whether a rule has room for so much, or from when on it does.
    pub(super) fn room(
        &self,
        now: u64,
        caller: &Caller<'_>,
        applied: &Applied<'_>,
        amounts: &Amounts,
    ) -> Result<(), Until> {
        let (rule, terms) = (applied.rule, &applied.rule.terms);
        let counters = self.subjects.counters(rule.scope, caller, terms.model.as_deref());
        let (limit, asked) = (rule.capacity(), asked(amounts, terms.dimension));
        if terms.amount == 0 || asked > limit {
            return Err(None);
        } else if asked == 0 {
            return Ok(());
        }
        if terms.dimension == Dimension::Concurrency {
            let open = counters.map_or(0, |counters| counters.connections());
            let room = open.saturating_add(asked) <= limit;
            return if room { Ok(()) } else { Err(Some(now.saturating_add(CONCURRENCY_RETRY_MS))) };
        }
        if let Some(period_ms) = terms.period.window_ms() {
            if terms.burst.is_some() {
                let flow = Flow { rate: terms.amount, period_ms };
                let bucket = counters.and_then(|counters| counters.bucket(terms.dimension, terms.period));
                return bucket.unwrap_or(&Bucket::default()).room(flow, now, limit, asked);
            }
            let window = counters.and_then(|counters| counters.window(terms.dimension, terms.period));
            return window.unwrap_or(&Window::default()).room(period_ms, now, limit, asked);
        }
        let period = terms.period.calendar();
        let used = counters.map_or(0, |counters| counters.total(period, now).used().of(terms.dimension));
        if used.saturating_add(asked) <= limit {
            return Ok(());
        }
        Err(Some(super::super::calendar::span(period, now).end).filter(|end| *end < u64::MAX))
    }

    fn breach(&self, now: u64, caller: &Caller<'_>, applied: &Applied<'_>, amounts: &Amounts, until: Until) -> Breach {
        let terms = &applied.rule.terms;
        Breach {
            rule_id: applied.rule.id.clone(),
            scope: applied.rule.scope,
            subject: applied.subject.to_owned(),
            model: terms.model.clone(),
            dimension: terms.dimension,
            period: terms.period,
            limit: applied.rule.capacity(),
            used: self.reading(now, caller, applied).used,
            asked: asked(amounts, terms.dimension),
            retry_after_ms: until.map(|until| until.saturating_sub(now)),
        }
    }
}

impl Ask {
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller { key: &self.key_id, user: self.user.as_deref(), model: Some(&self.model) }
    }
}

/// How much of a dimension one request asks for.
pub(super) fn asked(amounts: &Amounts, dimension: Dimension) -> u64 {
    if dimension == Dimension::Concurrency { 1 } else { amounts.of(dimension) }
}

/// For how long a breach lasts; for ever is longest.
fn lasts(breach: &Breach) -> u64 {
    breach.retry_after_ms.unwrap_or(u64::MAX)
}

/// What to reserve. The output is only a guess: it does not keep out a request whose input fits under every rule.
fn fitted(applied: &[Applied<'_>], ask: &Ask, output: u64) -> Amounts {
    let enforced = applied.iter().filter(|applied| applied.rule.terms.mode == LimitMode::Enforce);
    let output = enforced.fold(output, |output, applied| match applied.rule.terms.dimension {
        Dimension::OutputTokens => output.min(applied.rule.capacity()),
        Dimension::TotalTokens => output.min(applied.rule.capacity().saturating_sub(ask.input_tokens)),
        _ => output,
    });
    of_request(ask.input_tokens, output, ask.prices.as_ref())
}

/// The rates among some rules, each counter once.
fn rates(applied: &[Applied<'_>]) -> Vec<Rate> {
    let mut rates: Vec<Rate> = Vec::new();
    for Applied { rule, .. } in applied {
        let Some(period_ms) = rule.terms.period.window_ms() else { continue };
        let counter = CounterId {
            scope: rule.scope,
            of_model: rule.terms.model.is_some(),
            dimension: rule.terms.dimension,
            period: rule.terms.period,
        };
        let flow = rule.terms.burst.map(|_| Flow { rate: rule.terms.amount, period_ms });
        let exact = rule.terms.dimension == Dimension::Requests && rule.terms.amount <= EXACT_UP_TO;
        match rates.iter_mut().find(|rate| rate.counter == counter && rate.flow.is_some() == flow.is_some()) {
            Some(same) => same.exact |= exact,
            None => rates.push(Rate { counter, exact, flow }),
        }
    }
    rates
}
