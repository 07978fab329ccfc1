//! Copies of requests to a route's shadow: a model that is tried out on real traffic. Nobody waits for its answer, which is
//! thrown away; its usage is charged to the account that the route names, and recorded there under the same request id.

use futures::future::join;
use web_sys::AbortController;
use worker::Env;

use super::admit::{Place, Seeking};
use super::asking::{self, ask};
use super::attempt::{Attempting, Failed};
use super::envelope::Envelope;
use super::estimate::Input;
use super::itinerary::ShadowCopy;
use super::patience::Patience;
use super::pipeline::enter;
use super::plan::{Asked, LoadedConfig, Plan, candidate};
use super::reply::Wanted;
use super::reservation::Reservation;
use super::settle::{charge, settle_whole};
use crate::auth::Principal;
use crate::config::Timeouts;
use crate::http::Exchange;
use crate::http::shell::now_ms;
use crate::objects::client;
use crate::protocol::inbound::{Echo, ReplyIdentity};
use crate::providers::StandIns;
use crate::store::routing::in_flight;

/// The key that copies are recorded under.
const KEY: &str = "shadow";

/// The runtime ends what is done behind a reply's end after 30 s: a copy is given up after this, in milliseconds.
const LONGEST_MS: u64 = 25_000;

/// Sends a copy of this exchange's request, and sees it through.
pub async fn send(env: &Env, original: &Exchange, copy: ShadowCopy) {
    let Some(loaded) = original.config.clone() else { return };
    let ShadowCopy { id, api, body, model, account, policy } = copy;
    // The caller's own request has passed the same scan.
    let Ok(envelope) = Envelope::read(&body, api, loaded.config.http.max_json_depth) else { return };
    let principal = Principal { account, key_id: KEY.to_owned(), ..Principal::default() };
    let started = now_ms();
    let asked = Asked {
        api,
        model: &model,
        stream: envelope.stream,
        include_usage: true,
        include_cost: false,
        input: Input::Body(&envelope.input),
        at: started / 1_000,
    };
    let plan = match candidate(&loaded, &principal, asked, &model) {
        Ok(plan) => plan,
        Err(reason) => return left_out(original, &model, &reason.to_string()),
    };
    let mut exchange = Exchange::new(
        original.method.clone(),
        original.path.clone(),
        original.headers.clone(),
        original.config.clone(),
        id.clone(),
    );
    exchange.request_id.clone_from(&original.request_id);
    exchange.record.request_id.clone_from(&original.request_id);
    exchange.record.account.clone_from(&principal.account);
    exchange.record.key_id.clone_from(&principal.key_id);
    exchange.record.model.clone_from(&model);
    exchange.record.stream = envelope.stream;
    exchange.record.shadow = true;
    exchange.record.policy = policy;
    enter(&mut exchange, &plan, &principal, &envelope);
    let sending = Sending { env, loaded: &loaded, plan: &plan, principal: &principal, envelope: &envelope, id };
    if let Err(why) = sending.run(&mut exchange, asked, started).await {
        return left_out(original, &model, &why);
    }
    let record = settle_whole(std::mem::take(&mut exchange.record), false, started, now_ms());
    let reserved = exchange.reservation.take();
    charge(env, &exchange, &record, started, reserved).await;
}

fn left_out(original: &Exchange, model: &str, why: &str) {
    let request_id = original.request_id.as_str();
    tracing::warn!(target: "shadow", message = "a copy is not sent", request_id, model, why);
}

struct Sending<'a> {
    env: &'a Env,
    loaded: &'a LoadedConfig,
    plan: &'a Plan<'a>,
    principal: &'a Principal,
    envelope: &'a Envelope<'a>,
    id: String,
}

impl Sending<'_> {
    /// Sends it, if the account that pays and the provider have room for it. The record says how it went.
    ///
    /// # Errors
    /// Why it was not sent.
    async fn run(self, exchange: &mut Exchange, asked: Asked<'_>, started: u64) -> Result<(), String> {
        let Self { env, loaded, plan, principal, envelope, id } = self;
        let request = plan.request(envelope).map_err(|problem| problem.message)?;
        let wanted_of = ask(loaded, plan, principal, envelope, &id, "");
        exchange.reservation.replace(Some(Reservation {
            id: id.clone(),
            account: principal.account.clone(),
            key_id: principal.key_id.clone(),
            model: plan.model_name.to_owned(),
            provider: plan.provider_name.to_owned(),
            ..Reservation::default()
        }));
        let slot = exchange.reservation.clone();
        let place = async {
            if !asking::is_gauged(loaded, plan.provider_name) {
                return Place::Unasked;
            }
            let seeking = Seeking { env, loaded, principal, load: envelope, id };
            seeking.place(&slot, &[(0, plan.clone(), 1)]).await.0
        };
        let (preview, place) = join(client::preview(env, &principal.account, &wanted_of), place).await;
        if preview?.breach.is_some() {
            return Err("the account that pays for copies has no room for it".to_owned());
        }
        if let Place::Full(..) = place {
            return Err("its provider is asked as much as it may be".to_owned());
        }
        let aborting = AbortController::new().map_err(|error| format!("{error:?}"))?;
        let sent = now_ms();
        let timeouts = Timeouts { total_ms: plan.timeouts.total_ms.min(LONGEST_MS), ..plan.timeouts };
        exchange.record.attempts = 1;
        if let Some(reservation) = slot.borrow_mut().as_mut() {
            reservation.dispatched = true;
        }
        let _open = in_flight().enter(plan.model_name);
        let attempting = Attempting {
            upload: None,
            wanted: Wanted {
                api: asked.api,
                stream: asked.stream,
                choices: envelope.choices,
                echo: Echo { include_usage: true, ..Echo::default() },
                stand_ins: StandIns::default(),
                cost: None,
                identity: ReplyIdentity { id: String::new(), created: sent / 1_000, model: asked.model.to_owned() },
            },
            patience: Patience::new(timeouts, asked.stream, None, None, sent),
            exchange,
            plan,
            started,
        };
        let ended = attempting.discard(request, env, aborting.signal()).await;
        let millis = now_ms().saturating_sub(sent);
        match ended {
            Ok(()) => exchange.record.status = 200,
            Err(Failed { fault, reply_bytes, .. }) => {
                exchange.record.status = exchange.record.upstream_status.filter(|status| *status >= 400).unwrap_or(502);
                exchange.record.attempt_failed(fault.name(), millis, 0, reply_bytes);
            }
        }
        Ok(())
    }
}
