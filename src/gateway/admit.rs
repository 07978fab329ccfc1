//! Stage 4: whether the request may be sent, as far as limits and the caller's standing go.
//!
//! One call to the account's ledger says both and reserves what the request may use; the provider's gauge is asked at the
//! same time. No call is made where the isolate knows that nothing applies or has just heard of a refusal that stands, and
//! none to the ledger while the isolate holds a lease that has room. What was reserved stands in the exchange's slot until
//! the request has ended.

use futures::future::join;
use worker::Env;

use super::asking;
use super::envelope::Envelope;
use super::limit_refusal::{provider_refusal, refusal};
use super::plan::{LoadedConfig, Plan};
use super::reservation::{Admission, Fallback, Reservation};
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
use crate::objects::wire::{Acquire, Acquired, Admit, Admitted, CandidateAsk, PATIENCE_MS};
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
    pub envelope: &'a Envelope<'a>,
}

/// Admits a request, or finds that its caller must be judged anew.
///
/// # Errors
/// 401 or 403 if the caller's standing is not good, 429 or 402 if a limit stands against the request, 503 if nobody can
/// tell and the configuration wants certainty.
pub async fn admit(exchange: &mut Exchange, env: &Env, applicant: Applicant<'_>) -> Result<Confirmed, Problem> {
    let Applicant { loaded, principal, known, plan, envelope } = applicant;
    let announced = known.standing.is_none() || asking::is_announced(loaded, known.limited);
    let gauged = asking::is_gauged(&loaded.config, plan.provider_name);
    if !announced && !gauged {
        return Ok(Confirmed::AsItIs);
    }
    let id = exchange.record.settlement_id.clone();
    let ask = asking::ask(loaded, plan, principal, envelope, &id, &limits::holder());
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
        id,
        account: principal.account.clone(),
        key_id: principal.key_id.clone(),
        user: principal.user.clone(),
        model: plan.model_name.to_owned(),
        provider: plan.provider_name.to_owned(),
        amounts,
        admission,
        unanswered: asks_ledger,
        gauge: if gauged { loaded.pools.gauge(plan.provider_name).to_owned() } else { String::new() },
        ..Reservation::default()
    }));
    if let Some(Local { states, .. }) = leased {
        exchange.limit_states = states.to_vec();
        exchange.limits_at = asked_at;
    }
    let ledger = async { if asks_ledger { Some(ask_ledger(env, principal, &ask).await) } else { None } };
    let gauge = async { if gauged { Some(ask_gauge(env, loaded, plan, &ask).await) } else { None } };
    let (ledger, gauge) = join(ledger, gauge).await;
    let mut stage = Stage { exchange, loaded, principal, ask: &ask, asked_at };
    let confirmed = match ledger {
        None if decides_alone => stage.decide_alone().map(|()| Confirmed::AsItIs),
        None => Ok(Confirmed::AsItIs),
        Some(Ok(admitted)) => stage.take_in(admitted),
        Some(Err(error)) => stage.unreachable(&error),
    };
    let gauged = stage.gauge(plan.provider_name, gauge);
    let confirmed = match confirmed {
        Ok(Confirmed::AsItIs) => gauged.map(|()| Confirmed::AsItIs),
        other => other,
    };
    stage.close(confirmed.is_err());
    confirmed
}

async fn ask_ledger(env: &Env, principal: &Principal, ask: &Ask) -> Result<Admitted, CallError> {
    let admit = Admit {
        account: principal.account.clone(),
        check: keys::question(principal),
        ask: ask.clone(),
        rules_of: limits::rules_of(&principal.account),
    };
    Object::ledger(&principal.account).call(env, "POST", "/admit", Some(&admit), PATIENCE_MS).await
}

async fn ask_gauge(env: &Env, loaded: &LoadedConfig, plan: &Plan<'_>, ask: &Ask) -> Result<Answer, CallError> {
    let provider = plan.provider_name;
    let candidate =
        CandidateAsk { provider: provider.to_owned(), weight: 1, ask: asking::of_provider(ask, loaded, provider) };
    let acquire = Acquire { id: ask.id.clone(), candidates: vec![candidate], pick: false };
    let gauge = Object::gauge(loaded.pools.gauge(provider));
    gauge.call::<Acquired>(env, "POST", "/acquire", Some(&acquire), PATIENCE_MS).await.map(|acquired| acquired.answer)
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
    fn take_in(&mut self, admitted: Admitted) -> Result<Confirmed, Problem> {
        let Admitted { standing, answer, rules } = admitted;
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
            self.reservation(|reservation| reservation.watches = watches);
        }
        let confirmed = keys::learn(self.principal, self.asked_at, Some(standing), &self.loaded.config.auth);
        self.reservation(|reservation| {
            reservation.unanswered = false;
            if let Some(Answer::Granted(grant)) = &answer {
                reservation.admission = Admission::Ledger;
                reservation.amounts = grant.reserved;
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
        });
        Ok(())
    }

    /// Takes in the gauge's answer.
    fn gauge(&mut self, provider: &str, answer: Option<Result<Answer, CallError>>) -> Result<(), Problem> {
        match answer {
            None => Ok(()),
            Some(Ok(Answer::Granted(grant))) => {
                self.note_shadows(&grant.shadowed);
                Ok(())
            }
            Some(Ok(Answer::Denied(denial))) => {
                self.reservation(|reservation| reservation.gauge.clear());
                if self.exchange.record.refused_by.is_none() {
                    self.exchange.record.refused_by = Some((&denial.breach).into());
                }
                Err(provider_refusal(&denial.breach))
            }
            Some(Err(error)) => {
                let error = error.to_string();
                tracing::error!(target: "limits", message = "a provider's gauge cannot be asked", provider, error);
                Ok(())
            }
        }
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
