//! A request for a model from its first stage to its last.

use std::rc::Rc;

use http::HeaderMap;
use web_sys::{AbortSignal, ReadableStream};
use worker::Env;

use super::admit::{Admitted, Applicant, admit};
use super::asking::Load;
use super::authenticate::authenticate;
use super::confirm::{identified, told};
use super::count;
use super::envelope::Envelope;
use super::estimate::Input;
use super::explain::Explanation;
use super::forms;
use super::incoming;
use super::itinerary::{Itinerary, Nobody, Sight, itinerary};
use super::journey::Journey;
use super::plan::{Asked, Lane, LoadedConfig, Plan};
use super::relay::Outgoing;
use super::stored;
use super::upload::{FormBody, Taking};
use crate::auth::Principal;
use crate::config::Overrides;
use crate::error::{Kind, Problem};
use crate::fault;
use crate::http::middleware::is_form;
use crate::http::shell::now_ms;
use crate::http::{Exchange, Reply};
use crate::providers::Api;
use crate::routing::tree::LeftOutReason;
use crate::store::health;
use crate::store::keys::{self, Confirmed, Known};
use crate::store::routing::deciding;
use crate::store::standing::Refused;

/// What the platform gives along with a request.
pub struct Inbound {
    /// The body.
    pub body: Option<ReadableStream>,
    /// The query of its address.
    pub query: String,
    /// Fires when the caller leaves.
    pub client: AbortSignal,
    /// When the request came in, in milliseconds.
    pub started: u64,
}

/// Serves a request for a model; a streamed reply comes with the task that feeds it.
///
/// # Errors
/// A [`Problem`] to be rendered in the caller's dialect.
pub async fn call(
    exchange: &mut Exchange,
    api: Api,
    inbound: Inbound,
    env: &Env,
) -> Result<(Reply, Option<Outgoing>), Problem> {
    let loaded = configured(exchange)?;
    let taking = take(exchange, api, inbound.body, &inbound.query);
    let (principal, known, (form, body)) = identified(exchange, env, inbound.started, &loaded, taking).await?;
    exchange.record.bytes_in = form.as_ref().map_or(body.len() as u64, FormBody::bytes);
    let mut caller = Caller::new(principal, known);
    let max_depth = loaded.config.http.max_json_depth;
    let mut envelope = match Envelope::read(&body, api, max_depth) {
        Ok(envelope) => envelope,
        Err(problem) => {
            caller.standing(exchange, env, &loaded).await?;
            return Err(problem);
        }
    };
    if api.of_requests() == Api::Responses {
        envelope.mark = stored::mark(env, &caller.principal.account);
    }
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
        // However long it is, it can be counted.
        input: if api.is_count() { Input::Tokens(0) } else { Input::Body(&envelope.input) },
        at: inbound.started / 1000,
    };
    let (itinerary, place, principal, first, family) = loop {
        let principal = caller.principal.clone();
        let sight = sight(asked, &envelope, &exchange.headers, &principal);
        let decided = decide(&loaded, sight);
        if may_ask_why(exchange, &loaded, &principal) {
            let order = decided.as_ref().map_or_else(|nobody| &nobody.order, |itinerary| &itinerary.order);
            exchange.explanation = Some(Explanation::from(order));
        }
        let decided = decided.map_err(|nobody| nobody.problem);
        let begun = decided.and_then(|mut itinerary| {
            let first = itinerary.begin(&envelope, |plan| enter(exchange, plan, &principal, &envelope));
            first.map(|(plan, first)| (itinerary, plan, first))
        });
        let confirmed = match begun {
            Ok((itinerary, plan, first)) => {
                let applicant = Applicant {
                    loaded: &loaded,
                    principal: &principal,
                    known: caller.known,
                    plan: &plan,
                    load: &envelope,
                    contenders: &itinerary.contenders(),
                };
                let Admitted { confirmed, place } = admit(exchange, env, applicant).await?;
                match confirmed {
                    Confirmed::AsItIs => {
                        break (itinerary, place, principal, (plan.model_name, first), plan.family());
                    }
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
    provoked("after-admit")?;
    let headers = exchange.headers.clone();
    let journey = Journey {
        env,
        loaded: &loaded,
        sight: sight(asked, &envelope, &headers, &principal),
        itinerary,
        first: Some(first),
        form,
        include_cost,
        client: inbound.client,
        started: inbound.started,
    };
    let answered = journey.run(exchange, place).await;
    if !api.is_count() {
        return answered;
    }
    let status = answered.as_ref().map_or_else(|problem| problem.status, |(reply, _)| reply.status);
    if count::stands(status, exchange.record.lane == Lane::Native.name()) {
        return answered;
    }
    exchange.record.lane = Lane::Estimated.name();
    Ok((count::estimate(api, envelope.input.measure().tokens(family)), None))
}

/// The configuration that a request is served by.
pub(super) fn configured(exchange: &Exchange) -> Result<Rc<LoadedConfig>, Problem> {
    #[cfg(feature = "test-faults")]
    if let Some(name) = exchange.header("x-test-fault") {
        fault::arm(Some(name));
    }
    exchange.config.clone().ok_or_else(|| {
        let message = "This gateway has no configuration yet: its operator must publish one.";
        Problem::new(Kind::Unavailable, "gateway_not_configured", message)
    })
}

/// Takes the body in, whole unless it is a form. Of that there is what the rest of the way needs in the body's place.
fn take(
    exchange: &Exchange,
    api: Api,
    body: Option<ReadableStream>,
    query: &str,
) -> impl Future<Output = Result<(Option<FormBody>, Vec<u8>), Problem>> + use<> {
    let http = &exchange.settings().http;
    let (max_bytes, wait_ms) = (exchange.max_body_bytes, http.request_body_wait_ms);
    let content_type = exchange.header("content-type").filter(|it| is_form(it)).unwrap_or_default().to_owned();
    let taking = Taking {
        content_type,
        length: exchange.header("content-length").and_then(|length| length.trim().parse().ok()),
        named: forms::named(exchange.header(forms::MODEL_HEADER), query),
        hold_bytes: http.multipart_hold_bytes,
        max_bytes,
        wait_ms,
    };
    async move {
        let is_form = api.takes_forms() && !taking.content_type.is_empty();
        match body {
            Some(body) if is_form => FormBody::take(&body, taking).await.map(|(form, fields)| (Some(form), fields)),
            _ if is_form || (api.takes_forms() && api != Api::ImageEdit) => Err(forms::not_a_form()),
            body => incoming::request_body(body, max_bytes, wait_ms).await.map(|body| (None, body)),
        }
    }
}

/// The request as routing sees it.
fn sight<'a>(
    asked: Asked<'a>,
    envelope: &'a Envelope<'a>,
    headers: &'a HeaderMap,
    principal: &'a Principal,
) -> Sight<'a> {
    Sight { asked, envelope: Some(envelope), max_output: envelope.max_output, headers: Some(headers), principal }
}

/// A place where tests make requests fail.
pub(super) fn provoked(place: &str) -> Result<(), Problem> {
    fault::point(place).map_err(|error| Problem::new(Kind::Internal, "internal_error", error))
}

/// How often a key may be changed while a request is judged by it.
const CHANGES: u32 = 3;

/// Who calls.
pub(super) struct Caller {
    /// Itself.
    pub(super) principal: Principal,
    /// What is known of its standing.
    pub(super) known: Known,
    rounds: u32,
}

impl Caller {
    /// A caller who has been recognised.
    pub(super) fn new(principal: Principal, known: Known) -> Self {
        Self { principal, known, rounds: 0 }
    }

    /// The standing of a caller whose request fails before its ledger has been asked: one whose key is revoked hears of
    /// that, and of nothing else.
    pub(super) async fn standing(
        &self,
        exchange: &mut Exchange,
        env: &Env,
        loaded: &LoadedConfig,
    ) -> Result<Confirmed, Problem> {
        match self.known.standing {
            Some(_) => Ok(Confirmed::AsItIs),
            None => keys::ask(env, &self.principal, &loaded.config.auth).await.map_err(|why| told(exchange, why)),
        }
    }

    /// Judges the credential by the record that is remembered now.
    pub(super) async fn judge_anew(
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

/// Decides who answers, by what this isolate knows.
fn decide<'a>(loaded: &'a LoadedConfig, sight: Sight<'_>) -> Result<Itinerary<'a>, Box<Nobody<'a>>> {
    let decided = deciding(loaded, |seen, chance| itinerary(loaded, sight, seen, chance));
    let order = decided.as_ref().map_or_else(|nobody| &nobody.order, |itinerary| &itinerary.order);
    for left_out in &order.left_out {
        if let LeftOutReason::Unhealthy(why) = left_out.reason {
            health::passed_over(loaded, left_out.deployment, why);
        }
    }
    decided
}

/// Whether the caller asks why it is answered by whom it is, and may know.
fn may_ask_why(exchange: &Exchange, loaded: &LoadedConfig, principal: &Principal) -> bool {
    let asks = exchange.header("x-gateway-explain").is_some_and(|it| it.trim() == "true");
    let own = principal.overrides.as_ref().and_then(|overrides| Overrides::read(overrides).explain);
    asks && own.unwrap_or(loaded.config.http.explain)
}

/// Notes in the record who is going to be asked.
pub(super) fn enter(exchange: &mut Exchange, plan: &Plan<'_>, principal: &Principal, load: &dyn Load) {
    let record = &mut exchange.record;
    record.route = plan.route.unwrap_or_default().to_owned();
    record.deployment = plan.model_name.to_owned();
    record.price(plan.pricing.clone());
    let input = load.wanted(plan.family()).input_tokens;
    record.estimated_input = Some(input);
    record.expected = load.expected(input);
    if let Some(overrides) = &principal.overrides {
        record.policy.apply(&Overrides::read(overrides));
    }
    record.provider = plan.provider_name.to_owned();
    record.upstream_model = plan.target.upstream_model.to_owned();
    record.lane = plan.lane.name();
    // What an attempt before had to say of its failure is in the list of attempts.
    record.error_code.clear();
    record.error_detail.clear();
    record.dropped_params.clear();
    record.upstream_status = None;
    record.upstream_request_id.clear();
}
