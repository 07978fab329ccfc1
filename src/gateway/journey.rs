//! Stage 5: one attempt after the other, until somebody answers.
//!
//! As long as the caller has seen nothing of a reply, a candidate that fails is followed by the next one that is worth
//! trying, or by itself after a pause; `routing::attempts` says which. Afterwards a failure is the caller's to hear of.

use std::collections::{BTreeMap, VecDeque};

use futures::future::join;
use web_sys::AbortSignal;
use worker::Env;

use super::admit::{Onward, Place, Seeking};
use super::asking;
use super::attempt::{Attempting, Failed, Served, note_attempt};
use super::count;
use super::envelope::Envelope;
use super::explain::Explanation;
use super::itinerary::{Health as _, Itinerary, ShadowCopy, Sight};
use super::limit_refusal::provider_refusal;
use super::meter::TellCost;
use super::patience::Patience;
use super::pipeline::{enter, provoked};
use super::plan::{Lane, LoadedConfig, Plan};
use super::relay::Outgoing;
use super::reply::Wanted;
use super::stored;
use super::upload::FormBody;
use crate::config::Timeouts;
use crate::error::Problem;
use crate::http::shell::{now_ms, sleep};
use crate::http::{Exchange, Reply};
use crate::limits::amounts::Amounts;
use crate::limits::ask::{Breach, Settlement};
use crate::protocol::inbound::{Echo, ReplyIdentity, inbound};
use crate::providers::openai::stored::{no_previous, previous};
use crate::providers::outbound::Serves;
use crate::providers::{StandIns, UpstreamRequest};
use crate::routing::attempts::{self, Attempts, Next, Policy};
use crate::routing::board::{Availability, Observation};
use crate::routing::outcome::{Blame, Fault};
use crate::routing::tree::Candidate;
use crate::store::routing::{deciding, in_flight, random, saw, with_budget};
use crate::store::{health, usage};

/// A request on its way.
pub struct Journey<'a> {
    /// The way to the gauges.
    pub env: &'a Env,
    /// The configuration.
    pub loaded: &'a LoadedConfig,
    /// Who asks what.
    pub sight: Sight<'a>,
    /// Who may answer.
    pub itinerary: Itinerary<'a>,
    /// What the candidate of this name is going to be sent.
    pub first: Option<(&'a str, UpstreamRequest)>,
    /// Its body, if that is a form.
    pub form: Option<FormBody>,
    /// Whether the caller is told the cost in the reply's usage.
    pub include_cost: bool,
    /// Fires when the caller leaves.
    pub client: AbortSignal,
    /// When the request came in, in milliseconds.
    pub started: u64,
}

/// What an attempt is bounded by.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// When the request's time is over, in milliseconds.
    deadline_at: u64,
    /// How long it was waited for, in milliseconds.
    waited_ms: u64,
    /// Whether nobody is left to be asked after it.
    is_last: bool,
}

/// How far a request has come.
struct Course<'a> {
    /// Who is asked now.
    candidate: Candidate<'a>,
    /// Who may be asked next, in their order.
    queue: VecDeque<Candidate<'a>>,
    /// Among whom the gauge picks, and their weights.
    contenders: BTreeMap<&'a str, u64>,
    /// The limit that has no room at the candidate's provider.
    full: Option<Box<Breach>>,
    /// Who has been asked, or could not be.
    tried: Vec<&'a str>,
    /// The last failure, and what the caller is told of it.
    failure: Option<(Failure<'a>, Result<Reply, Problem>)>,
}

/// A failure, as far as it matters for who is asked next.
#[derive(Clone, Copy)]
struct Failure<'a> {
    /// Of which model.
    deployment: &'a str,
    /// At which provider.
    provider: &'a str,
    /// Which.
    fault: Fault,
    /// Whether the route names those who are asked next for just this fault.
    named: bool,
}

impl<'a> Failure<'a> {
    fn of(candidate: &Candidate<'a>, fault: Fault, named: bool) -> Self {
        Self { deployment: candidate.deployment, provider: candidate.provider, fault, named }
    }
}

/// What an attempt came to.
enum Tried {
    /// An answer.
    Served(Box<Served>),
    /// None.
    Failed(Box<Failed>),
    /// The candidate turned out to be none: it cannot be asked this, or is out of service after all.
    Passed(Problem),
}

impl<'a> Journey<'a> {
    /// Asks one after the other; `place` is what the gauge has said of the first.
    ///
    /// # Errors
    /// What the caller is told if nobody answers, where it is not an error reply of a provider's.
    pub async fn run(self, exchange: &mut Exchange, place: Place) -> Result<(Reply, Option<Outgoing>), Problem> {
        let answer = self.go(exchange, place).await;
        if exchange.record.attempts == 0 && exchange.record.lane != Lane::Estimated.name() {
            exchange.never_mind();
        }
        answer
    }

    async fn go(mut self, exchange: &mut Exchange, place: Place) -> Result<(Reply, Option<Outgoing>), Problem> {
        let contenders = self.itinerary.contender_weights();
        let full = match place {
            Place::Unasked => None,
            Place::At(index) => {
                self.itinerary.order.promote(index);
                None
            }
            Place::Full(index, breach) => {
                self.itinerary.order.promote(index);
                Some(breach)
            }
        };
        if exchange.explanation.is_some() {
            exchange.explanation = Some(Explanation::from(&self.itinerary.order));
        }
        exchange.copy = self.copy(exchange);
        let mut queue: VecDeque<Candidate<'a>> = std::mem::take(&mut self.itinerary.order.candidates).into();
        let name = self.sight.asked.model;
        let Some(candidate) = queue.pop_front() else { return Err(super::plan::no_such_model(name)) };
        let now = now_ms();
        with_budget(name, |budget| budget.request(now));
        let deadline_at = self.deadline(&candidate, exchange, now);
        let mut attempts = Attempts::new(Policy::of(&self.loaded.config, name), Some(deadline_at));
        let mut course = Course { candidate, queue, contenders, full, tried: Vec::new(), failure: None };
        let mut waited_ms = 0;
        loop {
            let outcome = match course.full.take() {
                Some(breach) => Tried::Failed(Box::new(no_room(exchange, &course.candidate, &breach))),
                None => {
                    let slow = Failure::of(&course.candidate, Fault::TooSlow, false);
                    let is_last = attempts.is_last() || self.next(&course.queue, slow).is_none();
                    self.attempt(exchange, &course.candidate, Bounds { deadline_at, waited_ms, is_last }).await
                }
            };
            course.tried.push(course.candidate.deployment);
            let next = match outcome {
                Tried::Served(served) => {
                    // What kept it from somebody else was no refusal of the request.
                    exchange.record.refused_by = None;
                    return Ok((served.reply, served.outgoing));
                }
                // It has not been asked, so the next one is no further attempt. What failed before is told rather than why
                // somebody else could not be asked.
                Tried::Passed(problem) => {
                    let next = match &course.failure {
                        Some((failure, _)) => self.next(&course.queue, *failure),
                        None => Some(0),
                    };
                    let told = || course.failure.take().map_or(Err(problem), |(_, answer)| answer);
                    let Some(next) = next.and_then(|index| course.queue.remove(index)) else {
                        return told().map(|reply| (reply, None));
                    };
                    next
                }
                Tried::Failed(failed) => {
                    let Failed { fault, retry_after_ms, answer, .. } = *failed;
                    if self.form.as_ref().is_some_and(FormBody::is_spent) {
                        return (*answer).map(|reply| (reply, None));
                    }
                    let named = self.take_detour(&mut course, fault);
                    let failure = Failure::of(&course.candidate, fault, named);
                    let next = self.next(&course.queue, failure);
                    let failed = attempts::Failed { fault, retry_after_ms, others: next.is_some(), named };
                    match with_budget(name, |budget| attempts.next(now_ms(), failed, budget, random())) {
                        Next::Stop(_) => return (*answer).map(|reply| (reply, None)),
                        Next::Same { wait_ms } => {
                            waited_ms = wait_ms;
                            sleep(wait_ms).await;
                            if self.client.aborted() {
                                return (*answer).map(|reply| (reply, None));
                            }
                            continue;
                        }
                        Next::Other => {}
                    }
                    let Some(next) = next.and_then(|index| course.queue.remove(index)) else {
                        return (*answer).map(|reply| (reply, None));
                    };
                    course.failure = Some((failure, *answer));
                    next
                }
            };
            waited_ms = 0;
            course.candidate = next;
            self.seek(exchange, &mut course).await;
        }
    }

    /// The copy that the route's shadow gets.
    fn copy(&self, exchange: &Exchange) -> Option<ShadowCopy> {
        let envelope = self.sight.envelope.filter(|envelope| self.form.is_none() && !envelope.api.is_count())?;
        let shadow = self.itinerary.order.shadow?;
        Some(ShadowCopy {
            id: format!("{}.shadow", exchange.record.settlement_id),
            api: self.sight.asked.api,
            body: envelope.body.to_vec(),
            model: shadow.model.clone(),
            account: shadow.account.clone(),
            policy: exchange.record.policy,
        })
    }

    /// When the request's time is over, all attempts together: that of the first candidate, or the caller's own.
    fn deadline(&self, first: &Candidate<'a>, exchange: &Exchange, now: u64) -> u64 {
        let total = self.itinerary.plan(first).map_or(0, |plan| plan.timeouts.total_ms);
        now.saturating_add(total.min(exchange.caller_timeout_ms.unwrap_or(u64::MAX)))
    }

    /// Asks one candidate.
    async fn attempt(&mut self, exchange: &mut Exchange, candidate: &Candidate<'a>, bounds: Bounds) -> Tried {
        let Bounds { waited_ms, .. } = bounds;
        let Some(plan) = self.itinerary.plan(candidate) else {
            return Tried::Passed(super::plan::no_such_model(self.sight.asked.model));
        };
        let Some(envelope) = self.sight.envelope else {
            return Tried::Passed(super::plan::no_such_model(self.sight.asked.model));
        };
        if plan.lane == Lane::Estimated {
            enter(exchange, &plan, self.sight.principal, envelope);
            let reply = count::estimate(envelope.api, envelope.input.measure().tokens(plan.family()));
            return Tried::Served(Box::new(Served { reply, outgoing: None, headroom: Box::default() }));
        }
        match self.goes_on(exchange, &plan, envelope).await {
            Ok(None) => {}
            Ok(Some(problem)) => return Tried::Passed(problem),
            Err(failed) => return Tried::Failed(Box::new(failed)),
        }
        let ready = self.first.take_if(|(name, _)| *name == candidate.deployment).map(|(_, request)| request);
        let mut request = match ready.map_or_else(|| plan.request(envelope), Ok) {
            Ok(request) => request,
            Err(problem) => return Tried::Passed(problem),
        };
        let onward = Onward { env: self.env, loaded: self.loaded, principal: self.sight.principal, load: envelope };
        if let Err(problem) = onward.reserve(exchange, &plan).await {
            exchange.record.attempt_spared(candidate.deployment, candidate.provider, "limit");
            return Tried::Passed(problem);
        }
        enter(exchange, &plan, self.sight.principal, envelope);
        exchange.record.dropped_params = request.dropped_params.join(", ");
        let sent = now_ms();
        let trial = candidate.trial
            && health::with_board(|board| board.take_trial(sent, candidate.provider, candidate.deployment));
        exchange.in_flight = Some(in_flight().enter(candidate.deployment));
        note_attempt(exchange, &plan, self.started, sent);
        let upload = self.form.as_mut().and_then(|form| form.give(&mut request, plan.target.upstream_model));
        let attempting = Attempting {
            upload,
            wanted: self.wanted(exchange, &plan, sent),
            patience: self.patience(exchange, &plan, bounds, sent),
            exchange,
            plan: &plan,
            started: self.started,
        };
        let result = attempting.run(request, self.env, self.client.clone()).await;
        let ended = now_ms();
        let millis = ended.saturating_sub(sent);
        let headroom = result.as_ref().map_or_else(|failed| *failed.headroom, |served| *served.headroom);
        exchange.providers_limits = (headroom, ended);
        let headroom = Some(headroom).filter(|headroom| !headroom.is_empty());
        let seen = Observation {
            provider: candidate.provider.to_owned(),
            deployment: candidate.deployment.to_owned(),
            total_ms: millis,
            trial,
            at: ended,
            ..Observation::default()
        };
        match result {
            Ok(served) => {
                let first_token_ms = served.outgoing.is_some().then_some(millis);
                let seen = Observation { first_token_ms, headroom, ..seen };
                if served.outgoing.is_some() {
                    // What a stream comes to is known when it has ended.
                    exchange.begun = Some(seen);
                } else {
                    saw(self.loaded, seen);
                }
                exchange.record.attempt_succeeded(millis, waited_ms);
                if let Err(problem) = provoked("after-dispatch") {
                    return Tried::Failed(Box::new(Failed::without_reply(Fault::Gateway, problem)));
                }
                Tried::Served(Box::new(served))
            }
            Err(failed) => {
                exchange.in_flight = None;
                // A key's own bounds are the caller's as well.
                let bounds = plan.target.provider.timeouts.over(self.loaded.config.timeouts);
                let theirs = failed.fault.is_the_callers(millis, &bounds, exchange.caller_patience_ms);
                let fault = Some(if theirs { Fault::ClientClosed } else { failed.fault });
                let retry_after_ms = failed.retry_after_ms;
                saw(self.loaded, Observation { fault, retry_after_ms, headroom, ..seen });
                exchange.record.attempt_failed(failed.fault.name(), millis, waited_ms, failed.reply_bytes);
                Tried::Failed(Box::new(failed))
            }
        }
    }

    /// Why a candidate cannot have a request go on from a response that it names, if it names one.
    async fn goes_on(
        &self,
        exchange: &mut Exchange,
        plan: &Plan<'_>,
        envelope: &Envelope<'_>,
    ) -> Result<Option<Problem>, Failed> {
        let (true, Serves::Natively, Some(mark)) =
            (plan.target.provider.stored_responses, plan.serves, envelope.mark.as_deref())
        else {
            return Ok(None);
        };
        let id = match previous(envelope.source().members) {
            Ok(Some(id)) => id,
            Ok(None) => return Ok(None),
            Err(problem) => return Ok(Some(problem)),
        };
        let owned = stored::may_go_on(exchange, self.env, &self.client, plan, &id, mark).await?;
        Ok((!owned).then(|| no_previous(&id)))
    }

    fn wanted(&self, exchange: &Exchange, plan: &Plan<'_>, sent: u64) -> Wanted {
        let asked = self.sight.asked;
        let lost = exchange.record.lost_nanodollars();
        Wanted {
            api: asked.api,
            stream: asked.stream,
            choices: self.sight.envelope.map_or(1, |envelope| envelope.choices),
            echo: self.echo(plan),
            stand_ins: StandIns::default(),
            cost: self.include_cost.then(|| TellCost { pricing: plan.pricing.clone(), lost }),
            identity: ReplyIdentity {
                id: exchange.request_id.clone(),
                created: sent / 1000,
                model: asked.model.to_owned(),
            },
        }
    }

    /// What of the request its reply depends on.
    fn echo(&self, plan: &Plan<'_>) -> Echo {
        let translated = self.sight.envelope.filter(|_| plan.serves == Serves::Translated);
        let told = translated.and_then(|envelope| match plan.dialect.side(envelope.api, plan.target) {
            Some(side) => Some(Echo { members: side.echo(&envelope.json().ok()?), ..Echo::default() }),
            None => Some(inbound(envelope.api)?.echo(envelope.chat().ok()?)),
        });
        told.unwrap_or_else(|| Echo { include_usage: self.sight.asked.include_usage, ..Echo::default() })
    }

    fn patience(&self, exchange: &Exchange, plan: &Plan<'_>, bounds: Bounds, now: u64) -> Patience {
        let left = bounds.deadline_at.saturating_sub(now);
        let timeouts = Timeouts { total_ms: plan.timeouts.total_ms.min(left), ..plan.timeouts };
        let patience = Patience::new(timeouts, self.sight.asked.stream, exchange.caller_patience_ms, None, now);
        let route = self.loaded.config.routes.get(self.sight.asked.model);
        let attempt_ms = route.and_then(|route| route.retry.as_ref()?.attempt_ms).filter(|_| !bounds.is_last);
        attempt_ms.map_or(patience, |millis| patience.with_first_byte(millis))
    }

    /// Puts those in the queue who are asked instead of the next ones after such a fault; whether there are any.
    fn take_detour(&mut self, course: &mut Course<'a>, fault: Fault) -> bool {
        let (loaded, sight) = (self.loaded, self.sight);
        let itinerary = &mut self.itinerary;
        let detour =
            deciding(loaded, |seen, chance| itinerary.detour(loaded, sight, seen, chance, &course.candidate, fault));
        let detour = detour.into_iter().flatten().filter(|it| !course.tried.contains(&it.deployment));
        let detour: VecDeque<_> = detour.collect();
        let named = !detour.is_empty();
        if named {
            course.queue = detour;
        }
        named
    }

    /// The place in the queue of the first one that is worth trying after a failure. Of those that the route names for it,
    /// it knows best.
    fn next(&self, queue: &VecDeque<Candidate<'a>>, failure: Failure<'a>) -> Option<usize> {
        let Failure { deployment, provider, fault, named } = failure;
        let context = |deployment: &str| self.loaded.config.models.get(deployment)?.context_tokens;
        let elsewhere = fault == Fault::ContentPolicy || fault.blame() == Blame::Provider;
        queue.iter().position(|other| {
            if !named && elsewhere && other.provider == provider {
                return false;
            }
            let larger = match (context(deployment), context(other.deployment)) {
                (Some(failed), Some(other)) => other > failed,
                _ => true,
            };
            (named || fault != Fault::ContextLength || larger) && (self.itinerary.order.in_spite || self.is_well(other))
        })
    }

    /// Whether a candidate is still in service.
    fn is_well(&self, candidate: &Candidate<'a>) -> bool {
        let standing = deciding(self.loaded, |seen, _| seen.standing(candidate.provider, candidate.deployment));
        !matches!(standing.availability, Availability::Skipped(_))
    }

    /// Seeks a place for the candidate where a gauge counts, and gives the one before back. Among those that are open to
    /// the gauge's pick it may become another one of the queue.
    async fn seek(&self, exchange: &Exchange, course: &mut Course<'a>) {
        let hold = exchange.reservation.borrow_mut().as_mut().and_then(|reservation| reservation.hold.take());
        let release = async {
            if let Some(hold) = hold {
                let amounts = Amounts { requests: hold.used.into(), ..Amounts::default() };
                usage::release(self.env, &hold, Settlement { amounts, ..Settlement::default() }).await;
            }
        };
        join(release, self.place(exchange, course)).await;
    }

    async fn place(&self, exchange: &Exchange, course: &mut Course<'a>) {
        let Course { candidate, queue, contenders, .. } = course;
        let picks = contenders.contains_key(candidate.deployment);
        let (true, Some(envelope)) = (picks || asking::is_gauged(self.loaded, candidate.provider), self.sight.envelope)
        else {
            return;
        };
        // Place 0 is the candidate, place n + 1 the nth of the queue.
        let others = queue.iter().filter(|_| picks);
        let sought = (0..).zip(std::iter::once(&*candidate).chain(others)).filter_map(|(place, it)| {
            let weight = contenders.get(it.deployment).copied();
            Some((place, self.itinerary.plan(it)?, if place == 0 { weight.unwrap_or(1) } else { weight? }))
        });
        let sought: Vec<_> = sought.collect();
        let seeking = Seeking {
            env: self.env,
            loaded: self.loaded,
            principal: self.sight.principal,
            load: envelope,
            id: format!("{}.{}", exchange.record.settlement_id, exchange.record.tried.len()),
        };
        let (place, full) = match seeking.place(&exchange.reservation, &sought).await.0 {
            Place::Unasked => return,
            Place::At(place) => (place, None),
            Place::Full(place, breach) => (place, Some(breach)),
        };
        if let Some(other) = place.checked_sub(1).and_then(|at| queue.get_mut(at)) {
            std::mem::swap(candidate, other);
        }
        course.full = full;
    }
}

/// A provider that the gateway itself asks no more of at the moment.
fn no_room(exchange: &mut Exchange, candidate: &Candidate<'_>, breach: &Breach) -> Failed {
    exchange.record.refused_by = Some(breach.into());
    exchange.record.attempt_spared(candidate.deployment, candidate.provider, Fault::ProviderLimit.name());
    Failed {
        retry_after_ms: breach.retry_after_ms,
        ..Failed::without_reply(Fault::ProviderLimit, provider_refusal(breach))
    }
}
