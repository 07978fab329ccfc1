//! A chat request from its first stage to its last.

use web_sys::{AbortSignal, ReadableStream};
use worker::Env;

use super::admit::{Applicant, admit};
use super::authenticate::authenticate;
use super::confirm::{identified, told};
use super::dispatch::{Upstream, dispatch};
use super::envelope::Envelope;
use super::estimate::Input;
use super::meter::TellCost;
use super::patience::Patience;
use super::plan::{Asked, Lane, LoadedConfig, Plan, Unusable, plan};
use super::relay::{self, Outgoing, Surroundings};
use super::reply::{Form, Wanted, form, processor, whole_reply};
use crate::auth::Principal;
use crate::config::Overrides;
use crate::error::{Kind, Problem};
use crate::fault;
use crate::http::shell::now_ms;
use crate::http::{Body, Exchange, Reply};
use crate::protocol::chat::ReplyFault;
use crate::protocol::openai_chat::ReplyIdentity;
use crate::providers::{Api, UpstreamRequest, fault_problem, upstream_problem};
use crate::store::keys::{self, Confirmed, Known};
use crate::store::standing::Refused;

/// What the platform gives along with a request.
pub struct Inbound {
    /// The body.
    pub body: Option<ReadableStream>,
    /// Fires when the caller leaves.
    pub client: AbortSignal,
    /// When the request came in, in milliseconds.
    pub started: u64,
}

/// Serves a chat request; a streamed reply comes with the task that feeds it.
///
/// # Errors
/// A [`Problem`] to be rendered in the caller's dialect.
pub async fn chat(
    exchange: &mut Exchange,
    api: Api,
    inbound: Inbound,
    env: &Env,
) -> Result<(Reply, Option<Outgoing>), Problem> {
    let Some(loaded) = exchange.config.clone() else {
        return Err(Problem::new(
            Kind::Unavailable,
            "gateway_not_configured",
            "This gateway has no configuration yet: its operator must publish one.",
        ));
    };
    #[cfg(feature = "test-faults")]
    if let Some(name) = exchange.header("x-test-fault") {
        fault::arm(Some(name));
    }
    let body = relay::request_body(inbound.body, exchange.max_body_bytes, loaded.config.http.request_body_wait_ms);
    let (principal, known, body) = identified(exchange, env, inbound.started, &loaded, body).await?;
    exchange.record.bytes_in = body.len() as u64;
    let mut caller = Caller { principal, known, rounds: 0 };
    let max_depth = loaded.config.http.max_json_depth;
    let envelope = match Envelope::read(&body, api, max_depth) {
        Ok(envelope) => envelope,
        Err(problem) => {
            caller.standing(exchange, env, &loaded).await?;
            return Err(problem);
        }
    };
    exchange.record.model.clone_from(&envelope.model);
    exchange.record.stream = envelope.stream;
    let tells_cost = loaded.config.billing.tell_cost;
    let include_cost = tells_cost && exchange.header("x-gateway-include-cost").is_some_and(|it| it.trim() == "true");
    let asked = Asked {
        api,
        model: &envelope.model,
        stream: envelope.stream,
        include_usage: envelope.include_usage,
        include_cost,
        input: Input::Body(&envelope.input),
        at: inbound.started / 1000,
    };
    let (plan, request) = loop {
        let confirmed = match prepare(exchange, &loaded, &caller.principal, &envelope, asked) {
            Ok((plan, request)) => {
                let (principal, known) = (&caller.principal, caller.known);
                let applicant = Applicant { loaded: &loaded, principal, known, plan: &plan, envelope: &envelope };
                match admit(exchange, env, applicant).await? {
                    Confirmed::AsItIs => break (plan, request),
                    Confirmed::Changed => Ok(()),
                }
            }
            Err(problem) => match caller.standing(exchange, env, &loaded).await? {
                Confirmed::AsItIs => Err(problem),
                Confirmed::Changed => Ok(()),
            },
        };
        confirmed?;
        caller.judge_anew(exchange, env, &loaded, inbound.started).await?;
    };
    exchange.record.dropped_params = request.dropped_params.join(", ");
    provoked("after-admit")?;

    let sent = now_ms();
    let patience =
        Patience::new(plan.timeouts, envelope.stream, exchange.caller_patience_ms, exchange.caller_timeout_ms, sent);
    exchange.record.attempts = 1;
    if let Some(reservation) = exchange.reservation.borrow_mut().as_mut() {
        reservation.dispatched = true;
    }
    let upstream = dispatch(&plan, request, exchange, api, env, inbound.client, patience).await?;
    provoked("after-dispatch")?;
    let began = now_ms();
    exchange.record.upstream_status = Some(upstream.status);
    exchange.record.upstream_ms = Some(began.saturating_sub(sent));
    exchange.record.overhead_ms = sent.saturating_sub(inbound.started);
    let upstream_id = upstream.header("x-request-id").or_else(|| upstream.header("request-id"));
    exchange.record.upstream_request_id = upstream_id.unwrap_or_default().to_owned();

    let wanted = Wanted {
        api,
        stream: envelope.stream,
        include_usage: envelope.include_usage,
        cost: include_cost.then(|| TellCost(plan.pricing.clone())),
        identity: ReplyIdentity {
            id: format!("chatcmpl-{}", exchange.request_id),
            created: began / 1000,
            model: envelope.model.clone(),
        },
    };
    let answer = Answer {
        exchange,
        plan: &plan,
        wanted,
        patience,
        started: inbound.started,
        max_bytes: loaded.config.http.max_reply_bytes,
        max_error_bytes: loaded.config.http.max_error_bytes,
        tells_cost,
    };
    answer.from(upstream).await
}

/// A place where tests make requests fail.
fn provoked(place: &str) -> Result<(), Problem> {
    fault::point(place).map_err(|error| Problem::new(Kind::Internal, "internal_error", error))
}

/// How often a key may be changed while a request is judged by it.
const CHANGES: u32 = 3;

/// Who calls.
struct Caller {
    principal: Principal,
    known: Known,
    rounds: u32,
}

impl Caller {
    /// The standing of a caller whose request fails before its ledger has been asked: one whose key is revoked hears of
    /// that, and of nothing else.
    async fn standing(&self, exchange: &mut Exchange, env: &Env, loaded: &LoadedConfig) -> Result<Confirmed, Problem> {
        match self.known.standing {
            Some(_) => Ok(Confirmed::AsItIs),
            None => keys::ask(env, &self.principal, &loaded.config.auth).await.map_err(|why| told(exchange, why)),
        }
    }

    /// Judges the credential by the record that is remembered now.
    async fn judge_anew(
        &mut self,
        exchange: &mut Exchange,
        env: &Env,
        loaded: &LoadedConfig,
        started: u64,
    ) -> Result<(), Problem> {
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds > CHANGES {
            return Err(told(exchange, Refused::Unreachable));
        }
        self.principal = authenticate(exchange, env, started).await?;
        self.known = keys::known(&self.principal, &loaded.config.auth, now_ms());
        Ok(())
    }
}

/// Plans a request, and writes what the provider is going to be sent.
fn prepare<'a>(
    exchange: &mut Exchange,
    loaded: &'a LoadedConfig,
    principal: &Principal,
    envelope: &Envelope<'_>,
    asked: Asked<'_>,
) -> Result<(Plan<'a>, UpstreamRequest), Problem> {
    let plan = plan(loaded, principal, asked)?;
    exchange.record.route = plan.route.unwrap_or_default().to_owned();
    exchange.record.deployment = plan.model_name.to_owned();
    exchange.record.price(plan.pricing.clone());
    exchange.record.estimated_input = Some(envelope.input.measure().tokens(plan.family()));
    if let Some(overrides) = &principal.overrides {
        exchange.record.policy.apply(&Overrides::read(overrides));
    }
    exchange.record.provider = plan.provider_name.to_owned();
    exchange.record.upstream_model = plan.target.upstream_model.to_owned();
    exchange.record.lane = plan.lane.name();
    let request = match asked.api {
        Api::ChatCompletions => plan.adapter.chat_request(&envelope.source(), plan.target)?,
        Api::Messages => match plan.adapter.messages_request(&envelope.source(), plan.target) {
            Some(request) => request?,
            None => return Err(Unusable::WrongApi.problem(&envelope.model)),
        },
    };
    Ok((plan, request))
}

/// Works an upstream's reply into an answer to the caller.
struct Answer<'a, 'p> {
    exchange: &'a mut Exchange,
    plan: &'a Plan<'p>,
    wanted: Wanted,
    patience: Patience,
    started: u64,
    max_bytes: usize,
    max_error_bytes: usize,
    tells_cost: bool,
}

impl Answer<'_, '_> {
    async fn from(self, upstream: Upstream) -> Result<(Reply, Option<Outgoing>), Problem> {
        if !(200..300).contains(&upstream.status) {
            return self.error(upstream).await.map(|reply| (reply, None));
        }
        match (form(upstream.header("content-type"), self.wanted.stream), upstream.body.clone()) {
            (Form::Stream, Some(body)) if self.wanted.stream => self.stream(upstream, &body).await,
            (form, _) => self.whole(upstream, form).await.map(|reply| (reply, None)),
        }
    }

    async fn stream(self, upstream: Upstream, body: &ReadableStream) -> Result<(Reply, Option<Outgoing>), Problem> {
        let around = Surroundings {
            dialect: self.exchange.dialect,
            request_id: self.exchange.request_id.clone(),
            patience: self.patience,
            abort: upstream.abort,
            started: self.started,
        };
        let outgoing = if self.plan.lane == Lane::Native {
            relay::native(body, self.wanted.api, around).await.map_err(|fault| note(self.exchange, &fault))?
        } else {
            let processor = processor(self.plan.lane, self.plan.adapter, self.plan.target, self.wanted);
            relay::processed(body, processor, around).await.map_err(|fault| note(self.exchange, &fault))?
        };
        let mut reply = Reply::empty(200);
        reply.set("content-type", "text/event-stream; charset=utf-8");
        // For proxies in between that would otherwise collect the stream.
        reply.set("cache-control", "no-cache");
        reply.set("x-accel-buffering", "no");
        reply.body = Body::Stream;
        Ok((reply, Some(outgoing)))
    }

    async fn whole(self, upstream: Upstream, form: Form) -> Result<Reply, Problem> {
        let read = relay::whole(upstream.body.as_ref(), self.patience, &upstream.abort, self.max_bytes).await;
        let worked = read
            .and_then(|body| whole_reply(body, form, self.plan.lane, self.plan.adapter, self.plan.target, self.wanted));
        let whole = worked.map_err(|fault| note(self.exchange, &fault))?;
        self.exchange.record.told_or_estimated_whole(whole.told, whole.body.len());
        let mut reply = Reply::empty(200);
        reply.set("content-type", whole.content_type);
        if let Some(cost) = self.exchange.record.cost_nanodollars.filter(|_| self.tells_cost) {
            reply.set("x-gateway-cost", &cost.to_string());
        }
        reply.body = Body::Bytes(whole.body);
        Ok(reply)
    }

    /// An error of the provider's: unmodified where it is in the caller's dialect, otherwise told in it.
    async fn error(self, upstream: Upstream) -> Result<Reply, Problem> {
        let body = relay::whole(upstream.body.as_ref(), self.patience, &upstream.abort, self.max_error_bytes).await;
        let body = body.unwrap_or_default();
        let json = serde_json::from_slice::<serde_json::Value>(&body).ok();
        let reported = json.as_ref().map(|json| self.plan.adapter.decode_error(json, self.plan.target.provider));
        self.exchange.record.error_code = reported.as_ref().and_then(|error| error.code.clone()).unwrap_or_default();
        self.exchange.record.error_detail = reported.and_then(|error| error.message).unwrap_or_default();
        let problem = upstream_problem(self.plan.target.provider, upstream.status, &upstream.headers, &body);
        let in_dialect = self.plan.adapter.speaks(self.wanted.api)
            && json.is_some_and(|json| json.get("error").is_some_and(serde_json::Value::is_object));
        if !in_dialect || problem.status != upstream.status {
            return Err(problem);
        }
        let mut reply = Reply::empty(upstream.status);
        reply.set("content-type", "application/json");
        for name in ["retry-after", "retry-after-ms", "x-should-retry"] {
            if let Some(value) = upstream.header(name) {
                reply.set(name, value);
            }
        }
        reply.body = Body::Bytes(body);
        Ok(reply)
    }
}

fn note(exchange: &mut Exchange, fault: &ReplyFault) -> Problem {
    exchange.record.error_detail = fault.to_string();
    fault_problem(fault)
}
