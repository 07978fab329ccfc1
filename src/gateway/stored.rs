//! Responses that a provider keeps: looking at one, deleting it, and whether a request may go on from it. Each is proved
//! to be the caller's by the mark that it was made with (see `providers::openai::stored`); nothing of it is charged.

use http::Method;
use web_sys::AbortSignal;
use worker::Env;

use super::attempt::Failed;
use super::confirm::confirmed;
use super::dispatch::{Sender, dispatch};
use super::fault::{fault_of, fault_problem};
use super::keepers::keepers;
use super::patience::Patience;
use super::pipeline::Inbound;
use super::plan::{Lane, Plan};
use super::proxy::{passed_query, secrets};
use super::streams;
use crate::error::{Kind, Problem};
use crate::http::routes::{Stored, StoredAction};
use crate::http::shell::now_ms;
use crate::http::{Body, Exchange, Reply};
use crate::providers::openai::stored;
use crate::providers::{UpstreamRequest, upstream_problem};
use crate::secret::Secret;
use crate::store::responses;

/// The mark of an account; `None` where the deployment lacks the secret that makes it.
pub fn mark(env: &Env, account: &str) -> Option<String> {
    let secret = env.secret("KEY_HASH_SECRET").ok()?;
    stored::mark(&Secret::new(secret.to_string()), account)
}

/// Serves what can be done with a response that is kept.
///
/// # Errors
/// 404 for a response that is not there or not the caller's, in the same words; else what the provider says.
pub async fn serve(
    exchange: &mut Exchange,
    env: &Env,
    wanted: Stored,
    query: &str,
    inbound: Inbound,
) -> Result<Reply, Problem> {
    let (principal, ()) = confirmed(exchange, env, inbound.started, async { Ok(()) }).await?;
    let Stored { id, action } = wanted;
    let (Some(loaded), Some(mark), true) = (exchange.config.clone(), mark(env, &principal.account), stored::is_id(&id))
    else {
        return Err(stored::not_found(&id));
    };
    let asked = stored::Query::read(&passed_query(query, &secrets(&exchange.headers)));
    if asked.streams {
        let message = "stream: a response is streamed only while it is made; leave `stream` out.";
        return Err(Problem::invalid("stream", message));
    }
    let model = exchange.header("x-gateway-model").map(str::to_owned).or(asked.model);
    let known = responses::keeper(&id, &principal.account);
    let plans = keepers(&loaded, &principal, inbound.started / 1000, model.as_deref(), known.as_deref());
    let mut failed = None;
    for plan in plans {
        let mut keeper = Keeper { exchange: &mut *exchange, env, client: &inbound.client, plan: &plan };
        match keeper.act(&id, action, &asked.passed, &mark, &principal.account).await {
            Ok(Some(body)) => {
                let mut reply = Reply::empty(200);
                reply.set("content-type", "application/json");
                reply.body = Body::Bytes(stored::unmarked(body));
                return Ok(reply);
            }
            Ok(None) => {}
            Err(problem) => failed = failed.or(Some(problem)),
        }
    }
    Err(failed.unwrap_or_else(|| stored::not_found(&id)))
}

/// Somebody who keeps responses, and is asked for one.
struct Keeper<'a> {
    exchange: &'a mut Exchange,
    env: &'a Env,
    client: &'a AbortSignal,
    plan: &'a Plan<'a>,
}

impl Keeper<'_> {
    /// Does what is wanted with a response; `None` if there is none of this account's here.
    async fn act(
        &mut self,
        id: &str,
        action: StoredAction,
        query: &str,
        mark: &str,
        account: &str,
    ) -> Result<Option<Vec<u8>>, Problem> {
        let path = |below: &str| stored::path(self.plan.target, id, below, query);
        let told = |failed: Failed| failed.answer.err().unwrap_or_else(unread);
        let (method, below) = match action {
            StoredAction::Get => return self.find(path(""), id, mark, account).await.map_err(told),
            StoredAction::Delete => (Method::DELETE, ""),
            StoredAction::Cancel => (Method::POST, "/cancel"),
            StoredAction::InputItems => (Method::GET, "/input_items"),
        };
        let path = path(below);
        if !self.owns(id, mark, account).await.map_err(told)? {
            return Ok(None);
        }
        let reply = self.ask(UpstreamRequest { method, ..UpstreamRequest::get(path) }).await.map_err(told)?;
        if action == StoredAction::Delete && reply.is_some() {
            responses::forget(id);
        }
        Ok(reply)
    }

    /// Whether a response is there and this account's.
    async fn owns(&mut self, id: &str, mark: &str, account: &str) -> Result<bool, Failed> {
        if responses::keeper(id, account).is_some_and(|keeper| keeper == self.plan.provider_name) {
            return Ok(true);
        }
        let path = stored::path(self.plan.target, id, "", "");
        Ok(self.find(path, id, mark, account).await?.is_some())
    }

    /// The response at a path, if it is this account's.
    async fn find(&mut self, path: String, id: &str, mark: &str, account: &str) -> Result<Option<Vec<u8>>, Failed> {
        let Some(body) = self.ask(UpstreamRequest::get(path)).await? else { return Ok(None) };
        let response: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        if !stored::is_owned(&response, mark) {
            return Ok(None);
        }
        responses::remember(id, self.plan.provider_name, account);
        Ok(Some(body))
    }

    /// The body of a successful reply; `None` if there is nothing at this path.
    async fn ask(&mut self, request: UpstreamRequest) -> Result<Option<Vec<u8>>, Failed> {
        let (plan, provider) = (self.plan, self.plan.target.provider);
        plan.provider_name.clone_into(&mut self.exchange.record.provider);
        self.exchange.record.lane = Lane::Native.name();
        let patience = Patience::new(plan.timeouts, false, self.exchange.caller_patience_ms, None, now_ms());
        let sender = Sender { env: self.env, client: self.client.clone(), patience, upload: None };
        let upstream = dispatch(plan, &request, self.exchange, sender).await?;
        self.exchange.record.upstream_status = Some(upstream.status);
        let max_bytes = self.exchange.settings().http.max_reply_bytes;
        let body = streams::whole(upstream.body.as_ref(), patience, &upstream.abort, max_bytes).await;
        let body =
            body.map_err(|partial| Failed::without_reply(fault_of(&partial.fault), fault_problem(&partial.fault)))?;
        match upstream.status {
            200..300 => Ok(Some(body)),
            404 => Ok(None),
            status => {
                let problem = upstream_problem(provider, status, &upstream.headers, &body);
                Err(Failed::without_reply(crate::routing::outcome::Fault::BadRequest, problem))
            }
        }
    }
}

fn unread() -> Problem {
    Problem::new(Kind::Upstream, "upstream_error", "The provider's answer could not be read.")
}

/// Whether a request may go on from a response: the provider that is asked has it, and it is the account's.
///
/// # Errors
/// [`Failed`] if the provider cannot be asked.
pub async fn may_go_on(
    exchange: &mut Exchange,
    env: &Env,
    client: &AbortSignal,
    plan: &Plan<'_>,
    id: &str,
    mark: &str,
) -> Result<bool, Failed> {
    let account = exchange.record.account.clone();
    Keeper { exchange, env, client, plan }.owns(id, mark, &account).await
}
