//! Tests of connections to providers, and what became of them.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{Answer, internal, not_found};
use super::context::Context;
use super::database::{Json, rows};
use super::write::Write;
use crate::admin::statement::Statement;
use crate::admin::types::catalog::{ConnectionTest, HealthEntry, HealthFilter, HealthHistoryFilter, HealthSource};
use crate::config::{CredentialSource, Provider, Timeouts, effective};
use crate::error::Problem;
use crate::http::shell::now_ms;
use crate::probes::judge::{self, MAX_PATIENCE_MS};
use crate::probes::question::Question;
use crate::probes::send::{Failure, request, send};
use crate::seal::Purpose;
use crate::secret::Secret;
use crate::store::config::deployment;

/// `?1` is the source, which may be null.
macro_rules! entries {
    ($choice:literal) => {
        concat!(
            "SELECT json_object('id', id, 'provider', provider, 'source', source, \
             'healthy', json(CASE healthy WHEN 1 THEN 'true' ELSE 'false' END), 'latency_ms', latency_ms, \
             'detail', detail, 'at', at, 'model', model, 'state', state, 'cost_nanodollars', cost_nanos) AS row \
             FROM health_history WHERE (?1 IS NULL OR source = ?1) AND ",
            $choice
        )
    };
}

const LIST: &str = entries!("(at, id) < (?2, ?3) ORDER BY at DESC, id DESC LIMIT ?4");
const LIST_OF_PROVIDER: &str = entries!("provider = ?2 AND (at, id) < (?3, ?4) ORDER BY at DESC, id DESC LIMIT ?5");
const LAST_PROBE: &str = entries!("provider = ?2 ORDER BY at DESC, id DESC LIMIT 1");

pub(super) async fn history(context: &Context<'_>) -> Result<Answer, Problem> {
    let filter: HealthFilter = context.query()?;
    list(context, filter.provider.as_deref(), filter.source).await
}

pub(super) async fn history_of_provider(context: &Context<'_>) -> Result<Answer, Problem> {
    let filter: HealthHistoryFilter = context.query()?;
    list(context, Some(context.parameter("name")), filter.source).await
}

async fn list(context: &Context<'_>, provider: Option<&str>, source: Option<HealthSource>) -> Result<Answer, Problem> {
    let source = source.map(name);
    let statement = match provider {
        None => Statement::new(LIST).bind(source),
        Some(provider) => Statement::new(LIST_OF_PROVIDER).bind(source).bind(provider),
    };
    context.paged(statement, |entry: &HealthEntry| (entry.at, entry.id.clone())).await
}

/// The statement that gives a provider's last probe.
pub(super) fn last_probe(provider: &str) -> Statement {
    Statement::new(LAST_PROBE).bind(name(HealthSource::Probe)).bind(provider)
}

fn name(source: HealthSource) -> &'static str {
    match source {
        HealthSource::Test => "test",
        HealthSource::Probe => "probe",
        HealthSource::Passive => "passive",
    }
}

/// Asks a provider of the draft something that costs nothing, with its credential.
pub(super) async fn test_provider(context: &Context<'_>) -> Result<Answer, Problem> {
    let name = context.parameter("name");
    let (provider, timeouts) = draft_provider(context, name).await?;
    let patience = provider.timeouts.over(timeouts).first_byte_ms.min(MAX_PATIENCE_MS);
    let begun = now_ms();
    let asked = async {
        let credential = credential(context, &provider).await.map_err(Failure::NotSent)?;
        let hosts = deployment(context.env).private_hosts;
        let request = request(&provider, &hosts, &Question::of_test(&provider), credential.as_ref()).await?;
        // Nothing of the reply but its status is looked at, or told.
        send(request, patience, false).await
    };
    let asked = asked.await;
    let status = asked.as_ref().ok().map(|sent| sent.status);
    let (healthy, detail) = match asked {
        Ok(sent) => judge::judge(provider.dialect(), sent.status),
        Err(failure) => (false, failure.detail()),
    };
    let latency_ms = now_ms().saturating_sub(begun);
    let test = ConnectionTest { provider: name.to_owned(), healthy, latency_ms, status, detail };
    let insert = Statement::new(
        "INSERT INTO health_history (id, provider, source, healthy, latency_ms, detail, at) \
         VALUES (?1, ?2, 'test', ?3, ?4, ?5, ?6)",
    )
    .bind(context.fresh_id("hlt")?)
    .bind(&test.provider)
    .bind(test.healthy)
    .bind(test.latency_ms)
    .bind(&test.detail)
    .bind(context.now());
    let write = Write::new("providers:test", "provider_test", name).creates(&test).with(insert);
    context.commit(write, Answer::ok(&test)?).await
}

#[derive(Deserialize)]
struct Row {
    document: Json<Value>,
}

/// A provider of the draft, and the general time bounds, with the deployment's variables applied.
async fn draft_provider(context: &Context<'_>, name: &str) -> Result<(Provider, Timeouts), Problem> {
    let provider = Statement::new("SELECT document FROM providers WHERE name = ?1").bind(name);
    let settings =
        Statement::new("SELECT coalesce(json_extract(document, '$.timeouts'), '{}') AS document FROM settings");
    let answers = context.db.ask(&[provider, settings]).await?;
    let row =
        |nth: usize| answers.get(nth).map_or_else(|| Ok(Vec::new()), rows::<Row>).map(|rows| rows.into_iter().next());
    let Some(provider) = row(0)? else { return Err(not_found("provider", name)) };
    let timeouts = row(1)?.map_or_else(|| json!({}), |row| row.document.0);
    let providers = Map::from_iter([(name.to_owned(), provider.document.0)]);
    let document = json!({"timeouts": timeouts, "providers": providers});
    let mut config = effective(&deployment(context.env).environment, &document).config;
    match config.providers.remove(name) {
        Some(provider) => Ok((provider, config.timeouts)),
        None => Err(internal("a provider of the draft cannot be read")),
    }
}

#[derive(Deserialize)]
struct Stored {
    sealed: Option<String>,
    worker_secret: Option<String>,
}

/// The credential as the database has it, since the data plane may not have heard of it yet.
async fn credential(context: &Context<'_>, provider: &Provider) -> Result<Option<Secret<String>>, String> {
    let worker_secret = |name: &str| {
        let secret = context.env.secret(name).map(|secret| Some(Secret::new(secret.to_string())));
        secret.map_err(|_| format!("This deployment has no Worker secret `{name}`."))
    };
    let id = match provider.credential_source() {
        None => return Ok(None),
        Some(CredentialSource::WorkerSecret(name)) => return worker_secret(name),
        Some(CredentialSource::Stored(id)) => id,
    };
    let row = Statement::new("SELECT sealed, worker_secret FROM provider_credentials WHERE id = ?1").bind(id);
    let row: Option<Stored> = context.db.first(row).await.map_err(|problem| problem.message)?;
    match row {
        Some(Stored { sealed: Some(sealed), .. }) => {
            let sealer = context.sealer().map_err(|problem| problem.message)?;
            let opened = sealer.open(Purpose::ProviderCredential, id, &sealed);
            let opened = opened.map_err(|error| format!("Its stored credential cannot be opened: {error}."))?;
            let text = String::from_utf8(opened.expose().clone());
            text.map(|text| Some(Secret::new(text))).map_err(|_| "Its stored credential is no text.".to_owned())
        }
        Some(Stored { worker_secret: Some(name), .. }) => worker_secret(&name),
        _ => Err(format!("There is no stored credential `{id}`.")),
    }
}
