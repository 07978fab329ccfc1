//! Stage 4: whether the request may be sent, as far as limits and the caller's standing go.
//!
//! One call to the account's ledger says both and reserves what the request may use; the provider's gauge is asked at the
//! same time. No call is made where the isolate knows that nothing applies or has just heard of a refusal that stands, and
//! none to the ledger while the isolate holds a lease that has room. What was reserved stands in the exchange's slot until
//! the request has ended.

use futures::future::join;
use worker::Env;

use super::asking::{self, Load};
use super::limit_refusal::refusal;
use super::plan::{LoadedConfig, Plan};
use super::reservation::{Admission, Fallback, Hold, Reservation, Slot};
use crate::auth::Principal;
use crate::config::{Disclose, Overrides};
use crate::error::{Kind, Problem};
use crate::http::Exchange;
use crate::http::shell::now_ms;
use crate::limits::amounts::{Amounts, of_request};
use crate::limits::ask::{Answer, Ask, Breach, Denial, LeaseGrant};
use crate::limits::fallback::{Decision, FallbackTerms};
use crate::limits::holder::Local;
use crate::objects::call::{CallError, Object};
use crate::objects::wire::{self, Acquire, Acquired, Admit, CandidateAsk, PATIENCE_MS};
use crate::store::keys::{self, Confirmed, Known};
use crate::store::limits;

/// When a request is worth sending again that nobody can judge now, in milliseconds.
const RETRY_MS: u64 = 5_000;

/// A request that wants to be sent.
pub struct Applicant<'a> {
    /// The configuration.
    pub loaded: &'a LoadedConfig,
    /// The caller.
    pub principal: &'a Principal,
    /// What is known of its standing.
    pub known: Known,
    /// What is to be done.
    pub plan: &'a Plan<'a>,
    /// What is asked for.
    pub load: &'a dyn Load,
    /// Those among whom the gauge is to pick: each one's index in the order of candidates, its plan and its weight.
    pub contenders: &'a [(usize, Plan<'a>, u64)],
}

/// What was found of an applicant.
pub struct Admitted {
    /// Whether it must be judged anew.
    pub confirmed: Confirmed,
    /// What the gauge said.
    pub place: Place,
}

/// What a gauge says of a request.
pub enum Place {
    /// Nothing: none was asked, or none has answered.
    Unasked,
    /// There is room at the candidate with this index in the order.
    At(usize),
    /// There is no room at any that was asked for. The candidate with this index is worth asking again first.
    Full(usize, Box<Breach>),
}

/// Admits a request, or finds that its caller must be judged anew.
///
/// # Errors
/// 401 or 403 if the caller's standing is not good, 429 or 402 if a limit stands against the request, 503 if nobody can
/// tell and the configuration wants certainty.
pub async fn admit(exchange: &mut Exchange, env: &Env, applicant: Applicant<'_>) -> Result<Admitted, Problem> {
    let Applicant { loaded, principal, known, plan, load, contenders } = applicant;
    let announced = known.standing.is_none() || asking::is_announced(loaded, known.limited);
    let gauged = !contenders.is_empty() || asking::is_gauged(loaded, plan.provider_name);
    if !announced && !gauged {
        return Ok(Admitted { confirmed: Confirmed::AsItIs, place: Place::Unasked });
    }
    let id = exchange.record.settlement_id.clone();
    let ask = asking::ask(loaded, plan, principal, load, &id, &limits::holder());
    let asked_at = now_ms();
    // A lease and a refusal say nothing of the caller's standing, which must not be older than it may be.
    let is_judged = announced && known.standing.is_some();
    let leased = if is_judged { limits::admit(principal, &ask, asked_at) } else { None };
    if is_judged
        && leased.is_none()
        && let Some(denial) = limits::refusal_of(principal, &ask, asked_at)
    {
        exchange.limits_at = asked_at;
        return Err(denied(exchange, denial, loaded.config.limits.disclose, asked_at));
    }
    let alone = known.standing.is_some() && limits::is_silent(&principal.account, asked_at);
    let asks_ledger = announced && leased.is_none() && !alone;
    let decides_alone = announced && leased.is_none() && alone;
    let (amounts, admission) = match &leased {
        Some(Local { used, .. }) => (used.reserved, Admission::Lease),
        None => (Amounts::default(), Admission::Free),
    };
    // From here on the slot has it, so that it is settled whatever happens while the answers are awaited.
    exchange.reservation.replace(Some(Reservation {
        id: id.clone(),
        account: principal.account.clone(),
        key_id: principal.key_id.clone(),
        user: principal.user.clone(),
        model: plan.model_name.to_owned(),
        provider: plan.provider_name.to_owned(),
        amounts,
        admission,
        unanswered: asks_ledger,
        ..Reservation::default()
    }));
    if let Some(Local { states, .. }) = leased {
        exchange.limit_states = states.to_vec();
        exchange.limits_at = asked_at;
    }
    let asking = Seeking { env, loaded, principal, load, id };
    let alone = [(0, plan.clone(), 1)];
    let sought = if contenders.is_empty() { &alone[..] } else { contenders };
    let slot = exchange.reservation.clone();
    let ledger = async { if asks_ledger { Some(ask_ledger(env, principal, &ask).await) } else { None } };
    let gauge = async { if gauged { Some(asking.place(&slot, sought).await) } else { None } };
    let (ledger, gauge) = join(ledger, gauge).await;
    let mut stage = Stage { exchange, loaded, principal, ask: &ask, asked_at };
    let confirmed = match ledger {
        None if decides_alone => stage.decide_alone().map(|()| Confirmed::AsItIs),
        None => Ok(Confirmed::AsItIs),
        Some(Ok(admitted)) => stage.take_in(admitted),
        Some(Err(error)) => stage.unreachable(&error),
    };
    let (place, shadowed) = gauge.unwrap_or((Place::Unasked, Vec::new()));
    stage.note_shadows(&shadowed);
    stage.close(confirmed.is_err());
    confirmed.map(|confirmed| Admitted { confirmed, place })
}

/// A request that goes on to another candidate.
pub struct Onward<'a> {
    /// The way to the ledger.
    pub env: &'a Env,
    /// The configuration.
    pub loaded: &'a LoadedConfig,
    /// The caller.
    pub principal: &'a Principal,
    /// What is asked for.
    pub load: &'a dyn Load,
}

impl Onward<'_> {
    /// Sees to it that what limits have reserved is enough for this candidate, and reserved with its model.
    ///
    /// # Errors
    /// As [`admit`]; what was reserved before stays.
    pub async fn reserve(&self, exchange: &mut Exchange, plan: &Plan<'_>) -> Result<(), Problem> {
        let Self { env, loaded, principal, load } = *self;
        let is_elsewhere = |it: &&Reservation| it.counts() && it.model != plan.model_name;
        let reserved = exchange.reservation.borrow().as_ref().filter(is_elsewhere).cloned();
        let Some(reserved) = reserved else { return Ok(()) };
        let turn = reserved.turn.saturating_add(1);
        let ask = Ask { turn, ..asking::ask(loaded, plan, principal, load, &reserved.id, "") };
        let needed = of_request(ask.input_tokens, reserved.amounts.output, ask.prices.as_ref());
        if needed.fits_in(&reserved.amounts) && !limits::tells_models_apart(principal, &ask) {
            return Ok(());
        }
        let asked_at = now_ms();
        let alone = limits::is_silent(&principal.account, asked_at);
        let answer = if alone { None } else { Some(ask_ledger(env, principal, &ask).await) };
        let mut stage = Stage { exchange, loaded, principal, ask: &ask, asked_at };
        stage.reservation(|reservation| reservation.turn = turn);
        match answer {
            None => stage.decide_alone(),
            Some(Ok(admitted)) => stage.take_in(admitted).map(|_| ()),
            Some(Err(error)) => stage.unreachable(&error).map(|_| ()),
        }?;
        stage.close(false);
        Ok(())
    }
}

/// Seeks a place at a provider.
pub struct Seeking<'a> {
    /// The way to the gauges.
    pub env: &'a Env,
    /// The configuration.
    pub loaded: &'a LoadedConfig,
    /// The caller.
    pub principal: &'a Principal,
    /// What is asked for.
    pub load: &'a dyn Load,
    /// The attempt's id.
    pub id: String,
}

impl Seeking<'_> {
    /// Asks the gauge for a place at one of these providers, of which it picks one if there are several. The slot's
    /// reservation has it from before it is asked for. Also tells the shadow rules that would have refused it.
    pub async fn place(self, slot: &Slot, sought: &[(usize, Plan<'_>, u64)]) -> (Place, Vec<Breach>) {
        let Self { env, loaded, principal, load, id } = self;
        let Some((_, first, _)) = sought.first() else { return (Place::Unasked, Vec::new()) };
        let gauge = loaded.pools.gauge(first.provider_name);
        let hold = |provider: &str| Hold {
            gauge: gauge.to_owned(),
            provider: provider.to_owned(),
            id: id.clone(),
            used: false,
            passing: asking::is_passing(loaded, provider),
        };
        let keep = |held: Option<Hold>| {
            if let Some(reservation) = slot.borrow_mut().as_mut() {
                reservation.hold = held;
            }
        };
        keep(Some(hold(first.provider_name)));
        let candidates = sought.iter().map(|(_, plan, weight)| {
            let ask = asking::ask(loaded, plan, principal, load, &id, "");
            let provider = plan.provider_name;
            CandidateAsk {
                provider: provider.to_owned(),
                weight: *weight,
                ask: asking::of_provider(&ask, loaded, provider),
            }
        });
        let acquire = Acquire { id: id.clone(), candidates: candidates.collect(), pick: sought.len() > 1 };
        let asked = Object::gauge(gauge).call::<Acquired>(env, "POST", "/acquire", Some(&acquire), PATIENCE_MS).await;
        let picked = |index: usize| sought.get(index).map_or((0, first), |(place, plan, _)| (*place, plan));
        match asked {
            Ok(Acquired { index, answer: Answer::Granted(grant), .. }) => {
                let (place, plan) = picked(index);
                keep(Some(hold(plan.provider_name)));
                (Place::At(place), grant.shadowed)
            }
            Ok(Acquired { index, answer: Answer::Denied(denial), .. }) => {
                keep(None);
                (Place::Full(picked(index).0, Box::new(denial.breach)), Vec::new())
            }
            Err(error) => {
                let (provider, error) = (first.provider_name, error.to_string());
                tracing::error!(target: "limits", message = "a provider's gauge cannot be asked", provider, error);
                (Place::Unasked, Vec::new())
            }
        }
    }
}

async fn ask_ledger(env: &Env, principal: &Principal, ask: &Ask) -> Result<wire::Admitted, CallError> {
    let admit = Admit {
        account: principal.account.clone(),
        check: keys::question(principal),
        ask: ask.clone(),
        rules_of: limits::rules_of(&principal.account),
    };
    Object::ledger(&principal.account).call(env, "POST", "/admit", Some(&admit), PATIENCE_MS).await
}

/// The refusal of a request that the ledger has no room for.
fn denied(exchange: &mut Exchange, denial: Denial, disclose: Disclose, now: u64) -> Problem {
    exchange.limit_states = denial.states;
    exchange.record.refused_by = Some((&denial.breach).into());
    refusal(&denial.breach, disclose, now)
}

/// The refusal of a request whose limits nobody can tell.
fn cannot_be_told(code: &str, what: &str) -> Problem {
    let message = format!("The {what} cannot be looked after at the moment. Try again shortly.");
    Problem::new(Kind::Unavailable, code, message).retry_after_ms(RETRY_MS)
}

/// What the answers are worked into.
struct Stage<'a> {
    exchange: &'a mut Exchange,
    loaded: &'a LoadedConfig,
    principal: &'a Principal,
    ask: &'a Ask,
    asked_at: u64,
}

impl Stage<'_> {
    /// Takes in the ledger's answer.
    fn take_in(&mut self, admitted: wire::Admitted) -> Result<Confirmed, Problem> {
        let wire::Admitted { standing, answer, rules } = admitted;
        let now = now_ms();
        self.exchange.limits_at = now;
        limits::reached(&self.principal.account);
        if let Some(rules) = rules {
            limits::learn(&self.principal.account, now, rules);
        }
        if let Some(Answer::Granted(grant)) = &answer {
            limits::granted(self.principal, self.ask, grant, self.asked_at);
            let until = |lease: &LeaseGrant| (lease.id.clone(), self.asked_at.saturating_add(lease.ttl_ms));
            let watches = grant.lease.as_ref().map(until);
            self.reservation(|reservation| reservation.watches = watches.or(reservation.watches.take()));
        }
        let confirmed = keys::learn(self.principal, self.asked_at, Some(standing), &self.loaded.config.auth);
        self.reservation(|reservation| {
            reservation.unanswered = false;
            if let Some(Answer::Granted(grant)) = &answer {
                reservation.admission = Admission::Ledger;
                reservation.amounts = grant.reserved;
                reservation.model.clone_from(&self.ask.model);
            }
        });
        let confirmed = confirmed.map_err(|refused| {
            self.exchange.record.error_detail = refused.to_string();
            Problem::from(refused)
        })?;
        match answer {
            Some(Answer::Granted(grant)) => {
                self.note_shadows(&grant.shadowed);
                self.exchange.limit_states = grant.states;
            }
            Some(Answer::Denied(denial)) => {
                limits::refused(self.principal, self.ask, &denial, self.asked_at, now);
                return Err(denied(self.exchange, denial, self.loaded.config.limits.disclose, now));
            }
            None => {}
        }
        Ok(confirmed)
    }

    /// Decides where the ledger has not answered.
    fn unreachable(&mut self, error: &CallError) -> Result<Confirmed, Problem> {
        let (account, error) = (self.principal.account.as_str(), error.to_string());
        tracing::error!(target: "auth", message = "an account's ledger cannot be asked", account, error);
        limits::not_reached(account, now_ms());
        let confirmed = keys::learn(self.principal, self.asked_at, None, &self.loaded.config.auth);
        let confirmed = confirmed.map_err(|refused| {
            self.exchange.record.error_detail = refused.to_string();
            Problem::from(refused)
        })?;
        if confirmed == Confirmed::Changed {
            return Ok(confirmed);
        }
        self.decide_alone().map(|()| confirmed)
    }

    /// Decides in the ledger's place.
    fn decide_alone(&mut self) -> Result<(), Problem> {
        let mut settings = self.loaded.config.limits.clone();
        if let Some(overrides) = &self.principal.overrides {
            Overrides::read(overrides).limits.apply(&mut settings);
        }
        let terms = FallbackTerms {
            rates: settings.when_unreachable_rates,
            cost: settings.when_unreachable_cost,
            grace_nanos: settings.grace_cost.0.0,
        };
        let now = now_ms();
        let decision = limits::without_ledger(self.principal, self.ask, &terms, now);
        if let Some(counts) = limits::counts_to_log(now) {
            let counts = serde_json::to_string(&counts).unwrap_or_default();
            tracing::warn!(target: "limits", message = "limits are looked after without a ledger", counts);
        }
        let fallback = match decision {
            Decision::Allowed => Fallback::Open,
            Decision::Local { grace: false } => Fallback::Local,
            Decision::Local { grace: true } => Fallback::Grace,
            Decision::Limited(denial) => {
                self.exchange.record.refused_by = Some((&denial.breach).into());
                return Err(refusal(&denial.breach, settings.disclose, now));
            }
            Decision::NoRates => return Err(cannot_be_told("limits_unavailable", "limits of this API key")),
            Decision::NoBudget => return Err(cannot_be_told("budget_unavailable", "budget of this API key")),
        };
        let output = self.ask.first_output_tokens.min(self.ask.max_output_tokens);
        let amounts = of_request(self.ask.input_tokens, output, self.ask.prices.as_ref());
        self.reservation(|reservation| {
            reservation.admission = Admission::Fallback(fallback);
            reservation.amounts = amounts;
            reservation.model.clone_from(&self.ask.model);
        });
        Ok(())
    }

    /// Notes how it went.
    fn close(&mut self, refused: bool) {
        let mut noted = ("", None);
        self.reservation(|reservation| {
            reservation.refused = refused;
            noted = (reservation.admission.name(), reservation.counts().then(|| reservation.amounts.into()));
        });
        if !refused {
            (self.exchange.record.admitted_by, self.exchange.record.reserved) = noted;
        }
    }

    fn note_shadows(&mut self, breaches: &[Breach]) {
        for breach in breaches {
            let noted = &mut self.exchange.record.shadow_limits;
            if !noted.is_empty() {
                noted.push_str(", ");
            }
            noted.push_str(&breach.rule_id);
        }
    }

    fn reservation(&self, change: impl FnOnce(&mut Reservation)) {
        if let Some(reservation) = self.exchange.reservation.borrow_mut().as_mut() {
            change(reservation);
        }
    }
}
