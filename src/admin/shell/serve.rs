//! A call's way: route, body and query by their description, who calls, whether he may, and then the operation.

use std::cell::RefCell;
use std::rc::Rc;

use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use worker::Env;

use super::answer::{Answer, Content, conflict, internal};
use super::context::{Actor, Context, Idempotency, unpublished};
use super::database::Database;
use super::{
    accounts, alerts, audits, configuration, credentials, effects, entries, health, keys, limits, me, members, outbox,
    probes, provider_health, provider_states, requests, roles, sessions, sign_in, signing_keys, simulations, standing,
    tokens, unpriced, usage, users, versions,
};
use crate::admin::operations::{Access, Op, Operation};
use crate::admin::router;
use crate::admin::schema::Description;
use crate::admin::statement::Statement;
use crate::auth::ip_ranges::{IpRange, admits, parse_address};
use crate::auth::strict_json;
use crate::config::Admin;
use crate::error::{Kind, Problem};
use crate::gateway::incoming;
use crate::gateway::pipeline::Inbound;
use crate::gateway::plan::LoadedConfig;
use crate::http::shell::within;
use crate::http::{Exchange, Reply};
use crate::protocol::json_scan::{ScanLimits, scan_object};
use crate::providers::openai::scan_problem;
use crate::seal::Purpose;
use crate::store::config::deployment;

/// How long a body may take to arrive, in milliseconds. Who calls, and what he may do, was found out before it: neither
/// must get old.
const BODY_WAIT_MS: u64 = 30_000;
/// How deep a body may be nested.
const MAX_DEPTH: usize = 64;
/// How much of a user agent is kept, in characters.
const MAX_USER_AGENT: usize = 256;

thread_local! {
    static DESCRIPTION: RefCell<Option<Rc<Description>>> = const { RefCell::new(None) };
}

fn description() -> Result<Rc<Description>, Problem> {
    if let Some(known) = DESCRIPTION.with_borrow(Clone::clone) {
        return Ok(known);
    }
    let read = Rc::new(Description::load().map_err(|error| internal(&error.to_string()))?);
    DESCRIPTION.with_borrow_mut(|slot| *slot = Some(Rc::clone(&read)));
    Ok(read)
}

/// Serves a call of the admin API. `query` is the part of the address behind the question mark.
///
/// # Errors
/// A [`Problem`], told as problem details.
pub async fn serve(exchange: &mut Exchange, query: &str, inbound: Inbound, env: &Env) -> Result<Reply, Problem> {
    let db = Database::of(env)?;
    // Where neither Hub nor KV tell the configuration, who may call is not open to everybody: the database knows it too.
    let config = match &exchange.config {
        Some(config) => Some(Rc::clone(config)),
        None => published(env, &db).await?,
    };
    let admin = config.as_ref().map_or_else(|| unpublished(env), |loaded| loaded.config.clone()).admin;
    let ip = exchange.header("cf-connecting-ip").unwrap_or_default().to_owned();
    check_address(&admin, &ip)?;
    let matched = router::find(&exchange.method, &exchange.path)?;
    let operation = matched.operation;
    let description = description()?;
    let method = operation.method.method().as_str().to_ascii_lowercase();
    let user_agent: String = exchange.header("user-agent").unwrap_or_default().chars().take(MAX_USER_AGENT).collect();
    let mut context = Context {
        env,
        db,
        description: Rc::clone(&description),
        matched,
        actor: Actor::anonymous(),
        config,
        query: Value::Null,
        body: Value::Null,
        if_match: exchange.header("if-match").map(str::to_owned),
        idempotency: None,
        request_id: exchange.request_id.clone(),
        ip,
        user_agent,
        now_ms: inbound.started,
    };
    #[cfg(feature = "test-faults")]
    crate::fault::arm(exchange.header("x-test-fault"));
    if operation.access != Access::Public {
        context.actor = context.authenticate(exchange.header("authorization")).await?;
        exchange.record.key_id.clone_from(&context.actor.id);
        context.authorise()?;
    }
    context.query = description.read_query(&method, operation.path, query)?;
    if operation.method.writes() {
        let limit = admin.max_body_bytes.min(exchange.max_body_bytes);
        let arriving = incoming::request_body(inbound.body, limit, BODY_WAIT_MS);
        let bytes = within(BODY_WAIT_MS, arriving).await.ok_or_else(|| {
            let message = format!("The request body did not arrive within {BODY_WAIT_MS} ms.");
            Problem::new(Kind::RequestTimeout, "request_timeout", message)
        })??;
        exchange.record.bytes_in = bytes.len() as u64;
        context.body = read_body(exchange, &description, operation, &method, &bytes)?;
        context.idempotency = idempotency(&context, exchange.header("idempotency-key"), &bytes)?;
        if let Some(answer) = replay(&context).await? {
            return Ok(answer.into());
        }
    }
    let mut reply: Reply = perform(&context).await?.into();
    reply.set("cache-control", "no-store");
    Ok(reply)
}

async fn published(env: &Env, db: &Database) -> Result<Option<Rc<LoadedConfig>>, Problem> {
    let Some(snapshot) = effects::current_snapshot(db).await? else { return Ok(None) };
    Ok(LoadedConfig::new(snapshot, &deployment(env)).ok().map(Rc::new))
}

fn check_address(admin: &Admin, ip: &str) -> Result<(), Problem> {
    let ranges: Vec<IpRange> = admin.allowed_ip_ranges.iter().filter_map(|range| range.parse().ok()).collect();
    if admin.allowed_ip_ranges.is_empty() || admits(&ranges, parse_address(ip)) {
        return Ok(());
    }
    let message = "The admin API cannot be called from your address.";
    Err(Problem::new(Kind::Permission, "address_not_allowed", message).final_answer())
}

fn read_body(
    exchange: &Exchange,
    description: &Description,
    operation: &Operation,
    method: &str,
    bytes: &[u8],
) -> Result<Value, Problem> {
    if !description.takes_body(method, operation.path) {
        return Ok(Value::Null);
    }
    let kind = exchange.header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !matches!(kind.as_str(), "application/json" | "application/merge-patch+json") {
        let mut problem = Problem::invalid("content-type", "Send the body as `content-type: application/json`.");
        problem.status = 415;
        problem.code = "unsupported_media_type".to_owned();
        return Err(problem);
    }
    scan_object(bytes, ScanLimits { max_depth: MAX_DEPTH, ..ScanLimits::default() }).map_err(scan_problem)?;
    let body = strict_json::parse(bytes).ok_or_else(|| match serde_json::from_slice::<Value>(bytes) {
        Err(error) => Problem::invalid("", format!("The body is not JSON: {error}.")),
        Ok(_) => Problem::invalid("", "The body has an object that names a member twice: which one counts is open."),
    })?;
    description.check_body(method, operation.path, &body)?;
    Ok(body)
}

/// Names the caller with his key, and what is asked for; both under a secret, for the body may hold one.
fn idempotency(context: &Context<'_>, key: Option<&str>, body: &[u8]) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = key else { return Ok(None) };
    if key.is_empty() || key.len() > 128 {
        return Err(Problem::invalid("idempotency-key", "An idempotency key has 1 to 128 characters."));
    }
    let secret = *context.sealer()?.derive(Purpose::IdentityHash).expose();
    let mac = |parts: &[&[u8]]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).map_err(|error| internal(&error.to_string()))?;
        for part in parts {
            mac.update(&Sha256::digest(part));
        }
        let hex = mac.finalize().into_bytes().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        Ok::<_, Problem>(hex)
    };
    let operation = format!("{:?}", context.matched.operation.op);
    let mut parts: Vec<&[u8]> = vec![operation.as_bytes()];
    parts.extend(context.matched.parameters().iter().map(|(_, value)| value.as_bytes()));
    parts.push(body);
    Ok(Some(Idempotency {
        id: mac(&[b"idempotency", context.actor.id.as_bytes(), key.as_bytes()])?,
        fingerprint: mac(&parts)?,
    }))
}

#[derive(Deserialize)]
struct Remembered {
    fingerprint: String,
    status: u16,
    sealed: String,
}

#[derive(Deserialize)]
struct StoredContent {
    json: Option<Value>,
    etag: Option<String>,
}

/// The answer that the same request got before.
async fn replay(context: &Context<'_>) -> Result<Option<Answer>, Problem> {
    let Some(idempotency) = &context.idempotency else { return Ok(None) };
    let statement =
        Statement::new("SELECT fingerprint, status, sealed FROM idempotency_keys WHERE id = ?1 AND expires_at > ?2");
    let known: Option<Remembered> = context.db.first(statement.bind(&idempotency.id).bind(context.now())).await?;
    let Some(known) = known else { return Ok(None) };
    if known.fingerprint != idempotency.fingerprint {
        let mut problem = conflict("idempotency_key_reused", "This idempotency key was used for another request.");
        problem.status = 422;
        return Err(problem);
    }
    // What the first request may have left to be done.
    let delivered = match outbox::drain_from(context.env, &context.db).await {
        Ok(outbox::AT_ONCE..) => Err("there may be more than one run delivers".to_owned()),
        other => other,
    };
    if let Err(error) = &delivered {
        tracing::error!(target: "admin", message = "changes have not reached everything yet", error);
        if known.status != 201 {
            return Err(super::write::pending());
        }
    }
    let place = format!("idempotency_keys/{}", idempotency.id);
    let opened = context.sealer()?.open(Purpose::StoredAnswer, &place, &known.sealed);
    let opened = opened.map_err(|error| internal(&error.to_string()))?;
    let content: StoredContent =
        serde_json::from_slice(opened.expose()).map_err(|error| internal(&error.to_string()))?;
    let mut answer = Answer::done();
    answer.status = known.status;
    answer.content = content.json.map_or(Content::Empty, Content::Json);
    answer.etag = content.etag;
    answer.pending = delivered.is_err();
    answer.replayed = true;
    Ok(Some(answer))
}

async fn perform(context: &Context<'_>) -> Result<Answer, Problem> {
    match context.matched.operation.op {
        Op::Bootstrap => sign_in::bootstrap(context).await,
        Op::SignIn => sign_in::sign_in(context).await,
        Op::RefreshTokens => sign_in::refresh(context).await,
        Op::SignOut => sign_in::sign_out(context).await,
        Op::GetJwks => signing_keys::jwks(context).await,
        Op::GetMe => me::get(context).await,
        Op::UpdateMe => me::update(context).await,
        Op::ChangeMyPassword => me::change_password(context).await,
        Op::ListMySessions => sessions::list_mine(context).await,
        Op::EndMySession => sessions::end_mine(context).await,
        Op::ListUsers => users::list(context).await,
        Op::CreateUser => users::create(context).await,
        Op::GetUser => users::get(context).await,
        Op::UpdateUser => users::update(context).await,
        Op::DeleteUser => users::delete(context).await,
        Op::ResetPassword => users::reset_password(context).await,
        Op::ListSessions => sessions::list_all(context).await,
        Op::ListUserSessions => sessions::list_of_user(context).await,
        Op::EndUserSessions => sessions::end_of_user(context).await,
        Op::EndUserSession => sessions::end_one_of_user(context).await,
        Op::ListServiceTokens => tokens::list(context).await,
        Op::CreateServiceToken => tokens::create(context).await,
        Op::RevokeServiceToken => tokens::revoke(context).await,
        Op::ListPermissions => roles::permissions(),
        Op::ListRoles => roles::list(context).await,
        Op::CreateRole => roles::create(context).await,
        Op::GetRole => roles::get(context).await,
        Op::UpdateRole => roles::update(context).await,
        Op::DeleteRole => roles::delete(context).await,
        Op::ListUserRoles => roles::of_user(context).await,
        Op::GrantRole => roles::grant(context).await,
        Op::WithdrawRole => roles::withdraw(context).await,
        Op::ListAccounts => accounts::list(context).await,
        Op::CreateAccount => accounts::create(context).await,
        Op::GetAccount => accounts::get(context).await,
        Op::UpdateAccount => accounts::update(context).await,
        Op::DeleteAccount => accounts::delete(context).await,
        Op::ListMembers => members::list(context).await,
        Op::GetMember => members::get(context).await,
        Op::PutMember => members::put(context).await,
        Op::RemoveMember => members::remove(context).await,
        Op::SearchKeys | Op::ListKeys => keys::list(context).await,
        Op::CreateKey => keys::create(context).await,
        Op::GetKey => keys::get(context).await,
        Op::UpdateKey => keys::update(context).await,
        Op::DeleteKey => keys::delete(context).await,
        Op::RotateKey => keys::rotate(context).await,
        Op::ListLimits => limits::list(context).await,
        Op::CreateLimit => limits::create(context).await,
        Op::GetStanding => standing::limits(context).await,
        Op::GetConnections => standing::connections(context).await,
        Op::GetLimit => limits::get(context).await,
        Op::UpdateLimit => limits::update(context).await,
        Op::DeleteLimit => limits::delete(context).await,
        Op::CreateModelToken => me::model_token(context).await,
        Op::ListCredentials => credentials::list(context).await,
        Op::CreateCredential => credentials::create(context).await,
        Op::GetCredential => credentials::get(context).await,
        Op::ReplaceCredential => credentials::replace(context).await,
        Op::DeleteCredential => credentials::delete(context).await,
        Op::ListProviders => entries::list(context, entries::PROVIDERS).await,
        Op::GetProvider => entries::get(context, entries::PROVIDERS).await,
        Op::PutProvider => entries::put(context, entries::PROVIDERS).await,
        Op::UpdateProvider => entries::update(context, entries::PROVIDERS).await,
        Op::DeleteProvider => entries::delete(context, entries::PROVIDERS).await,
        Op::TestProvider => probes::test_provider(context).await,
        Op::GetProviderState => provider_states::get(context).await,
        Op::PutProviderState => provider_states::put(context).await,
        Op::GetProviderHealth => provider_health::get(context).await,
        Op::ListProviderHealthHistory => probes::history_of_provider(context).await,
        Op::ResetProvider => provider_health::reset(context).await,
        Op::GetProviderConnections => standing::provider(context).await,
        Op::ListModels => entries::list(context, entries::MODELS).await,
        Op::GetModel => entries::get(context, entries::MODELS).await,
        Op::PutModel => entries::put(context, entries::MODELS).await,
        Op::UpdateModel => entries::update(context, entries::MODELS).await,
        Op::DeleteModel => entries::delete(context, entries::MODELS).await,
        Op::ListRoutes => entries::list(context, entries::ROUTES).await,
        Op::GetRoute => entries::get(context, entries::ROUTES).await,
        Op::PutRoute => entries::put(context, entries::ROUTES).await,
        Op::UpdateRoute => entries::update(context, entries::ROUTES).await,
        Op::DeleteRoute => entries::delete(context, entries::ROUTES).await,
        Op::ListPrices => entries::list(context, entries::PRICES).await,
        Op::GetPrice => entries::get(context, entries::PRICES).await,
        Op::PutPrice => entries::put(context, entries::PRICES).await,
        Op::UpdatePrice => entries::update(context, entries::PRICES).await,
        Op::DeletePrice => entries::delete(context, entries::PRICES).await,
        Op::ListUnpricedModels => unpriced::models(context).await,
        Op::GetSettings => entries::get_settings(context).await,
        Op::PutSettings => entries::put_settings(context).await,
        Op::UpdateSettings => entries::update_settings(context).await,
        Op::GetDraft => configuration::draft(context).await,
        Op::PutDraft => configuration::replace_draft(context).await,
        Op::ValidateConfig => configuration::validate(context).await,
        Op::CompareConfig => configuration::compare(context).await,
        Op::SimulateConfig => simulations::of_draft(context).await,
        Op::Simulate => simulations::now(context).await,
        Op::PublishConfig => versions::publish(context).await,
        Op::RollBackConfig => versions::roll_back(context).await,
        Op::ListVersions => versions::list(context).await,
        Op::GetVersion => versions::get(context).await,
        Op::CompareVersions => versions::compare(context).await,
        Op::GetEffectiveConfig => configuration::effective(context).await,
        Op::GetConfigSchema => configuration::schema(),
        Op::GetCache => health::cache(context).await,
        Op::PurgeCache => health::purge_cache(context).await,
        Op::GetUsage | Op::GetAccountUsage => usage::report(context).await,
        Op::ExportUsage | Op::ExportAccountUsage => usage::export(context).await,
        Op::SearchRecords | Op::SearchAccountRecords => requests::search(context).await,
        Op::GetAccountRecord => requests::get(context).await,
        Op::ListAlertRules => alerts::list(context).await,
        Op::CreateAlertRule => alerts::create(context).await,
        Op::GetAlertRule => alerts::get(context).await,
        Op::UpdateAlertRule => alerts::update(context).await,
        Op::DeleteAlertRule => alerts::delete(context).await,
        Op::ListAlertEvents | Op::ListAccountAlertEvents => alerts::events(context).await,
        Op::GetHealth => health::system(context).await,
        Op::ListHealthHistory => probes::history(context).await,
        Op::SearchAudit | Op::SearchAccountAudit => audits::search(context).await,
        Op::VerifyAudit => audits::verify(context).await,
        Op::GetOpenApi => Answer::ok(context.description.document()),
    }
}
