//! One attempt: a request to one provider, and what its reply is for the caller.

use web_sys::{AbortSignal, ReadableStream};
use worker::Env;

use super::dispatch::{BEDROCK_INPUT_TOKENS, Sender, Upstream, dispatch};
use super::fault::{coded, fault_of, fault_of_reply, fault_problem, recognisable, scrubbed};
use super::patience::Patience;
use super::plan::{Lane, Plan};
use super::relay::{self, Outgoing, Surroundings};
use super::reply::{Form, Wanted, form, is_sound, processor, whole_reply};
use super::streams;
use super::upload::Upload;
use crate::error::Problem;
use crate::http::shell::now_ms;
use crate::http::{Body, Exchange, Reply};
use crate::protocol::chat::ReplyFault;
use crate::protocol::usage::Usage;
use crate::providers::outbound::Serves;
use crate::providers::{Api, UpstreamRequest, anthropic, upstream_problem};
use crate::routing::headroom::{self, Headroom};
use crate::routing::outcome::Fault;
use crate::store::tokens::{self, Used};

/// An attempt that gives the caller no answer yet.
pub struct Failed {
    /// What went wrong.
    pub fault: Fault,
    /// When the provider wants to be asked again, in milliseconds from now.
    pub retry_after_ms: Option<u64>,
    /// Bytes of a reply that had begun well; the provider presumably charges for them.
    pub reply_bytes: Option<usize>,
    /// What the provider said of its own limits.
    pub headroom: Box<Headroom>,
    /// The minted token that was not accepted.
    pub refused_token: Option<Used>,
    /// What the caller is told if nobody else answers.
    pub answer: Box<Result<Reply, Problem>>,
}

impl Failed {
    /// A failure without a reply.
    pub fn without_reply(fault: Fault, problem: Problem) -> Self {
        Self {
            fault,
            retry_after_ms: None,
            reply_bytes: None,
            headroom: Box::default(),
            refused_token: None,
            answer: Box::new(Err(problem)),
        }
    }
}

/// An attempt that gives the caller an answer.
pub struct Served {
    /// The reply.
    pub reply: Reply,
    /// Its stream, if it is one.
    pub outgoing: Option<Outgoing>,
    /// What the provider said of its own limits.
    pub headroom: Box<Headroom>,
}

/// Notes that a provider is going to be asked; both times are in milliseconds.
pub fn note_attempt(exchange: &mut Exchange, plan: &Plan<'_>, started: u64, sent: u64) {
    exchange.record.attempts = exchange.record.attempts.saturating_add(1);
    if exchange.record.attempts == 1 {
        exchange.record.overhead_ms = sent.saturating_sub(started);
    }
    if let Some(reservation) = exchange.reservation.borrow_mut().as_mut() {
        reservation.provider = plan.provider_name.to_owned();
        reservation.dispatched = true;
        if let Some(hold) = &mut reservation.hold {
            hold.used = true;
        }
    }
}

/// What surrounds an attempt.
pub struct Attempting<'a, 'p> {
    /// The request.
    pub exchange: &'a mut Exchange,
    /// What is to be done.
    pub plan: &'a Plan<'p>,
    /// What the caller wants of the reply.
    pub wanted: Wanted,
    /// What of the request's body is still coming.
    pub upload: Option<Upload>,
    /// The time bounds.
    pub patience: Patience,
    /// When the request came in, in milliseconds.
    pub started: u64,
}

impl Attempting<'_, '_> {
    /// Asks the provider. The record says of the attempt what is known of it.
    ///
    /// # Errors
    /// [`Failed`], as long as the caller has seen nothing of a reply.
    pub async fn run(mut self, request: UpstreamRequest, env: &Env, client: AbortSignal) -> Result<Served, Failed> {
        let is_spent = self.upload.is_some();
        let first = self.once(&request, env, client.clone()).await;
        // A token may be taken back before its time: another one is worth the same attempt once more.
        let Err(Failed { refused_token: Some(token), .. }) = &first else { return first };
        tokens::refused(token);
        if is_spent {
            return first;
        }
        let provider = self.plan.provider_name;
        tracing::warn!(target: "tokens", message = "an access token was refused before its time", provider);
        let second = self.once(&request, env, client).await;
        if let Err(Failed { refused_token: Some(token), .. }) = &second {
            tokens::refused_again(token);
        }
        second
    }

    async fn once(&mut self, request: &UpstreamRequest, env: &Env, client: AbortSignal) -> Result<Served, Failed> {
        let sent = now_ms();
        self.exchange.record.upstream_status = None;
        self.wanted.stand_ins.clone_from(&request.stand_ins);
        let sender = Sender { env, client, patience: self.patience, upload: self.upload.take() };
        let upstream = dispatch(self.plan, request, self.exchange, sender).await?;
        let began = now_ms();
        let record = &mut self.exchange.record;
        record.upstream_status = Some(upstream.status);
        record.upstream_ms = Some(began.saturating_sub(sent));
        let upstream_id = upstream.header("x-request-id").or_else(|| upstream.header("request-id"));
        record.upstream_request_id = upstream_id.unwrap_or_default().to_owned();
        let header = |name: &str| upstream.header(name).map(str::to_owned);
        let headroom = Box::new(headroom::read(&header, began));
        if !(200..300).contains(&upstream.status) {
            let retry_after_ms = headroom::retry_after_ms(&header, began);
            return Err(Failed { headroom, retry_after_ms, ..self.refused(upstream).await });
        }
        if self.wanted.api == Api::Speech && upstream.header("content-type").is_none_or(is_sound) {
            let sound = self.sound(upstream).await;
            return match sound {
                Ok((reply, outgoing)) => Ok(Served { reply, outgoing: Some(outgoing), headroom }),
                Err(failed) => Err(Failed { headroom, ..failed }),
            };
        }
        // Whether a form asks for a stream may stand behind what has been looked at of it.
        let streams = self.wanted.stream || self.wanted.api.takes_forms();
        let served = match (form(upstream.header("content-type"), self.wanted.stream), upstream.body.clone()) {
            (Form::Stream, Some(body)) if streams => {
                self.stream(upstream, &body).await.map(|(reply, outgoing)| (reply, Some(outgoing)))
            }
            (form, _) => self.whole(upstream, form).await.map(|reply| (reply, None)),
        };
        match served {
            Ok((reply, outgoing)) => Ok(Served { reply, outgoing, headroom }),
            Err(failed) => Err(Failed { headroom, ..failed }),
        }
    }

    /// Asks the provider, reads its reply to the end and throws it away; the record says what it has used.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn discard(mut self, request: UpstreamRequest, env: &Env, client: AbortSignal) -> Result<(), Failed> {
        self.exchange.record.upstream_status = None;
        self.wanted.stand_ins.clone_from(&request.stand_ins);
        let sender = Sender { env, client, patience: self.patience, upload: None };
        let upstream = dispatch(self.plan, &request, self.exchange, sender).await?;
        self.exchange.record.upstream_status = Some(upstream.status);
        if !(200..300).contains(&upstream.status) {
            return Err(self.refused(upstream).await);
        }
        let max_bytes = self.exchange.settings().http.max_reply_bytes;
        let read = streams::whole(upstream.body.as_ref(), self.patience, &upstream.abort, max_bytes).await;
        let bytes = read.as_ref().map_or_else(|partial| partial.bytes, Vec::len);
        let form = form(upstream.header("content-type"), self.wanted.stream);
        let (plan, wanted) = (self.plan, self.wanted);
        let is_sound = wanted.api == Api::Speech && upstream.header("content-type").is_none_or(is_sound);
        let told = read.map_err(|partial| partial.fault).and_then(|body| {
            if is_sound {
                return Ok(None);
            }
            if form != Form::Stream || !wanted.stream {
                return whole_reply(body, form, plan.lane, plan.dialect, plan.target, wanted).map(|whole| whole.told);
            }
            let mut processor = processor(plan.lane, plan.dialect, plan.target, wanted);
            let mut nobody = Vec::new();
            processor.push(&body, &mut nobody)?;
            let metered = processor.finish(&mut nobody);
            metered.result.map(|()| metered.told)
        });
        let told = told.map_err(|fault| broken(self.exchange, &upstream, &fault, bytes))?;
        self.exchange.record.told_or_estimated_whole(told, bytes);
        Ok(())
    }

    async fn stream(&mut self, upstream: Upstream, body: &ReadableStream) -> Result<(Reply, Outgoing), Failed> {
        let around = Surroundings {
            api: self.wanted.api,
            choices: self.wanted.choices,
            request_id: self.exchange.request_id.clone(),
            patience: self.patience,
            abort: upstream.abort.clone(),
            scrubber: upstream.scrubber.clone(),
            started: self.started,
        };
        let begun = if self.plan.lane == Lane::Native {
            relay::native(body, self.wanted.api, around).await
        } else {
            let processor = processor(self.plan.lane, self.plan.dialect, self.plan.target, self.wanted.clone());
            relay::processed(body, processor, around).await
        };
        let outgoing = begun.map_err(|fault| match broken(self.exchange, &upstream, &fault, 0) {
            // No first byte is no answer at all.
            failed if failed.fault == Fault::Stalled => Failed { fault: Fault::TooSlow, reply_bytes: None, ..failed },
            failed => failed,
        })?;
        let mut reply = Reply::empty(200);
        reply.set("content-type", "text/event-stream; charset=utf-8");
        // For proxies in between that would otherwise collect the stream.
        reply.set("cache-control", "no-cache");
        reply.set("x-accel-buffering", "no");
        reply.body = Body::Stream;
        Ok((reply, outgoing))
    }

    /// Sound, piece by piece, of which nobody can tell whether it is complete but by how it ends.
    async fn sound(&mut self, upstream: Upstream) -> Result<(Reply, Outgoing), Failed> {
        let around = Surroundings {
            api: self.wanted.api,
            choices: self.wanted.choices,
            request_id: self.exchange.request_id.clone(),
            patience: self.patience,
            abort: upstream.abort.clone(),
            scrubber: upstream.scrubber.clone(),
            started: self.started,
        };
        let begun = match &upstream.body {
            Some(body) => relay::opaque(body, upstream.length(), around).await,
            None => Err(ReplyFault::Truncated),
        };
        let outgoing = begun.map_err(|fault| match broken(self.exchange, &upstream, &fault, 0) {
            failed if failed.fault == Fault::Stalled => Failed { fault: Fault::TooSlow, reply_bytes: None, ..failed },
            failed => failed,
        })?;
        let mut reply = Reply::empty(200);
        reply.set("content-type", upstream.header("content-type").unwrap_or("application/octet-stream"));
        reply.set("cache-control", "no-cache");
        reply.body = Body::Stream;
        Ok((reply, outgoing))
    }

    async fn whole(&mut self, upstream: Upstream, form: Form) -> Result<Reply, Failed> {
        let settings = self.exchange.settings();
        let (max_bytes, tells_cost) = (settings.http.max_reply_bytes, settings.billing.tell_cost);
        let read = streams::whole(upstream.body.as_ref(), self.patience, &upstream.abort, max_bytes).await;
        let bytes = read.as_ref().map_or_else(|partial| partial.bytes, Vec::len);
        let (plan, wanted) = (self.plan, self.wanted.clone());
        let worked = read
            .map_err(|partial| partial.fault)
            .and_then(|body| whole_reply(body, form, plan.lane, plan.dialect, plan.target, wanted));
        let whole = worked.map_err(|fault| {
            let failed = broken(self.exchange, &upstream, &fault, bytes);
            let code = if let ReplyFault::Reported { code, .. } = &fault { code.as_deref() } else { None };
            let refused = self.plan.dialect.refuses_token(upstream.status, code);
            Failed { refused_token: upstream.token.clone().filter(|_| refused), ..failed }
        })?;
        // Some of Bedrock's embedding models tell it beside the body alone.
        let in_header = || upstream.header(BEDROCK_INPUT_TOKENS)?.trim().parse().ok();
        let beside = || in_header().map(|input| Usage { input, ..Usage::default() }.into());
        self.exchange.record.told_or_estimated_whole(whole.told.or_else(beside), whole.body.len());
        let mut reply = Reply::empty(200);
        let own = upstream.header("content-type").filter(|_| form == Form::Text);
        reply.set("content-type", own.unwrap_or(whole.content_type));
        if let Some(cost) = self.exchange.record.cost_nanodollars.filter(|_| tells_cost) {
            reply.set("x-gateway-cost", &cost.to_string());
        }
        reply.body = Body::Bytes(whole.body);
        Ok(reply)
    }

    /// An error of the provider's: unmodified where it is in the caller's dialect, otherwise told in it.
    async fn refused(&mut self, upstream: Upstream) -> Failed {
        let max_bytes = self.exchange.settings().http.max_error_bytes;
        let body = streams::whole(upstream.body.as_ref(), self.patience, &upstream.abort, max_bytes).await;
        let body = upstream.scrubber.body(body.unwrap_or_default());
        let json = serde_json::from_slice::<serde_json::Value>(&body).ok();
        // Some say in headers alone what went wrong.
        let said = json.as_ref().unwrap_or(&serde_json::Value::Null);
        let (dialect, provider) = (self.plan.dialect, self.plan.target.provider);
        let reported = dialect.read_error(upstream.status, &upstream.headers, said, provider);
        let fault = fault_of_reply(upstream.status, &reported, json.as_ref());
        let refused = dialect.refuses_token(upstream.status, reported.code.as_deref());
        let refused_token = upstream.token.clone().filter(|_| refused);
        self.exchange.record.error_code = reported.code.unwrap_or_default();
        self.exchange.record.error_detail = reported.message.unwrap_or_default();
        let problem = upstream_problem(self.plan.target.provider, upstream.status, &upstream.headers, &body);
        let said = Some(self.exchange.record.error_detail.as_str()).filter(|said| !said.is_empty());
        let problem = recognisable(problem, fault, said);
        let in_dialect = json.is_some_and(|json| match self.wanted.api {
            // Who hosts a model of Anthropic's may have errors of its own.
            Api::Messages => anthropic::is_error(&json),
            _ => json.get("error").is_some_and(serde_json::Value::is_object),
        });
        if self.plan.serves != Serves::Natively || !in_dialect || problem.status != upstream.status {
            return Failed { refused_token, ..Failed::without_reply(fault, problem) };
        }
        let mut reply = Reply::empty(upstream.status);
        reply.set("content-type", "application/json");
        for name in ["retry-after", "retry-after-ms", "x-should-retry"] {
            if let Some(value) = upstream.header(name) {
                reply.set(name, value);
            }
        }
        reply.body =
            Body::Bytes(if self.wanted.api == Api::Messages { body } else { coded(body, fault, &problem.code) });
        Failed { answer: Box::new(Ok(reply)), refused_token, ..Failed::without_reply(fault, problem) }
    }
}

/// A reply that began with success and came to nothing.
fn broken(exchange: &mut Exchange, upstream: &Upstream, fault: &ReplyFault, bytes: usize) -> Failed {
    let fault = &scrubbed(fault.clone(), &upstream.scrubber);
    exchange.record.error_code = fault.code().to_owned();
    exchange.record.error_detail = fault.to_string();
    let class = if upstream.abort.client_closed() { Fault::ClientClosed } else { fault_of(fault) };
    // What a provider reports as failed in place of an answer it does not charge for, nor for a page of something in
    // between or for nothing.
    let is_answer = matches!(form(upstream.header("content-type"), false), Form::Json | Form::Stream);
    let is_charged = bytes > 0 && is_answer && !matches!(fault, ReplyFault::Reported { .. });
    let mut problem = recognisable(fault_problem(fault), class, None);
    problem.retry_after = problem.retry_after.or_else(|| upstream.header("retry-after").map(str::to_owned));
    let retry_after_ms = headroom::retry_after_ms(&|name| upstream.header(name).map(str::to_owned), now_ms());
    Failed { reply_bytes: is_charged.then_some(bytes), retry_after_ms, ..Failed::without_reply(class, problem) }
}
