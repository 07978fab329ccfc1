//! Changes: each is one batch, so that it happens as a whole or not at all.
//!
//! The batch holds what must still be true (guards), the change, its entry in the audit log, what has to reach objects
//! and KV (the outbox), and the answer for a request that is repeated (the idempotency key).

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Content, conflict, internal};
use super::context::{Actor, Context, nonce, outdated};
use super::database::{BatchError, Database, rows, unavailable};
use super::effects::Effect;
use super::outbox;
use super::turn::turn;
use crate::admin::audit;
use crate::admin::statement::Statement;
use crate::admin::types::records::AuditEntry;
use crate::error::{Kind, Problem};
use crate::http::shell::sleep;
use crate::seal::{Purpose, Sealer};

/// How often a batch is tried while others write to the audit log at the same time.
const ATTEMPTS: u32 = 24;

/// A change in the making.
#[derive(Debug)]
pub(super) struct Write {
    action: &'static str,
    outcome: &'static str,
    target_kind: &'static str,
    target_id: String,
    account: String,
    before: Value,
    after: Value,
    statements: Vec<Statement>,
    effects: Vec<Effect>,
}

impl Write {
    /// A change of one thing; `action` is `resource:action` in the audit log.
    pub(super) fn new(action: &'static str, target_kind: &'static str, target_id: &str) -> Self {
        Self {
            action,
            outcome: "done",
            target_kind,
            target_id: target_id.to_owned(),
            account: String::new(),
            before: json!({}),
            after: json!({}),
            statements: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// Nothing was changed, because it was refused.
    #[must_use]
    pub(super) fn refused(mut self) -> Self {
        self.outcome = "refused";
        self
    }

    /// It concerns an account.
    #[must_use]
    pub(super) fn in_account(mut self, account: &str) -> Self {
        account.clone_into(&mut self.account);
        self
    }

    /// What it was and what it becomes, for the audit log: only differences are kept, and no secrets.
    #[must_use]
    pub(super) fn change(mut self, before: &impl serde::Serialize, after: &impl serde::Serialize) -> Self {
        let value = |state: Result<Value, serde_json::Error>| audit::redact(state.unwrap_or_default());
        (self.before, self.after) =
            audit::difference(&value(serde_json::to_value(before)), &value(serde_json::to_value(after)));
        self
    }

    /// What it becomes, for the audit log.
    #[must_use]
    pub(super) fn creates(self, after: &impl serde::Serialize) -> Self {
        self.change(&json!({}), after)
    }

    /// What it was, for the audit log.
    #[must_use]
    pub(super) fn removes(self, before: &impl serde::Serialize) -> Self {
        self.change(before, &json!({}))
    }

    /// One more statement.
    #[must_use]
    pub(super) fn with(mut self, statement: Statement) -> Self {
        self.statements.push(statement);
        self
    }

    /// Something that must reach objects and KV.
    #[must_use]
    pub(super) fn then(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }
}

#[derive(Deserialize)]
struct Head {
    sequence: u64,
    hash: String,
}

#[derive(Deserialize)]
struct OutboxRow {
    id: u64,
}

impl Context<'_> {
    /// Carries a change out and answers with `answer`.
    ///
    /// # Errors
    /// 412 if a guard does not hold, 409 for what exists already or is in use, 503 if the database does not answer. If
    /// the change is recorded but has not reached objects and KV, a request that created something is answered with
    /// success (and `x-gateway-propagation: pending`), any other with 503: whoever disables a key must know whether it is
    /// disabled.
    pub(super) async fn commit(&self, write: Write, mut answer: Answer) -> Result<Answer, Problem> {
        let sealer = self.sealer()?;
        // What was refused is no answer to be given again.
        let remembered = if write.outcome == "done" { self.remember(&sealer, &answer)? } else { Vec::new() };
        let outbox = commit(&self.db, &sealer, &self.actor, &self.origin(), &write, remembered).await?;
        crate::fault::point("after-commit").map_err(|error| internal(&error))?;
        if let Err(error) = outbox::deliver(self.env, &self.db, &outbox).await {
            let action = write.action;
            tracing::error!(target: "admin", message = "a change has not reached everything yet", action, error);
            if answer.status != 201 {
                return Err(pending());
            }
            answer.pending = true;
        }
        Ok(answer)
    }

    fn origin(&self) -> Origin<'_> {
        Origin { ip: &self.ip, user_agent: &self.user_agent, request_id: &self.request_id, now_ms: self.now_ms }
    }

    /// The row that answers the same request when it is repeated. It takes the place of one that has expired and is only
    /// waiting to be swept; one that still counts makes the batch fail.
    fn remember(&self, sealer: &Sealer, answer: &Answer) -> Result<Vec<Statement>, Problem> {
        let Some(idempotency) = &self.idempotency else { return Ok(Vec::new()) };
        let content = match &answer.content {
            Content::Json(value) => json!({"json": value, "etag": answer.etag}),
            Content::Csv(_) | Content::Empty => json!({}),
        };
        let context = format!("idempotency_keys/{}", idempotency.id);
        let sealed = sealer
            .seal(Purpose::StoredAnswer, &context, content.to_string().as_bytes(), nonce()?)
            .map_err(|error| internal(&error.to_string()))?;
        let expired = Statement::new("DELETE FROM idempotency_keys WHERE id = ?1 AND expires_at <= ?2");
        let insert = Statement::new(
            "INSERT INTO idempotency_keys (id, fingerprint, status, sealed, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        );
        let expires = self.now().saturating_add(self.admin().idempotency_seconds);
        Ok(vec![
            expired.bind(&idempotency.id).bind(self.now()),
            insert
                .bind(&idempotency.id)
                .bind(&idempotency.fingerprint)
                .bind(u64::from(answer.status))
                .bind(sealed)
                .bind(expires),
        ])
    }
}

/// From where a change comes.
pub(super) struct Origin<'a> {
    pub(super) ip: &'a str,
    pub(super) user_agent: &'a str,
    pub(super) request_id: &'a str,
    pub(super) now_ms: u64,
}

/// Carries out the batch of a change; returns the outbox rows that have to be delivered. `first` stands before what the
/// change itself does: of equal requests at the same time, all but one must fail there, not at what they would create.
///
/// # Errors
/// As [`Context::commit`].
pub(super) async fn commit(
    db: &Database,
    sealer: &Sealer,
    actor: &Actor,
    origin: &Origin<'_>,
    write: &Write,
    first: Vec<Statement>,
) -> Result<Vec<(u64, Effect)>, Problem> {
    crate::fault::point("before-commit").map_err(|error| internal(&error))?;
    let key = *sealer.derive(Purpose::AuditChain).expose();
    let _until_done = turn().await?;
    for attempt in 0..ATTEMPTS {
        let head = Statement::new("SELECT sequence, hash FROM audit_log ORDER BY sequence DESC LIMIT 1");
        let head: Option<Head> = db.first(head).await?;
        let (previous, sequence) =
            head.map_or((audit::BEGINNING.to_owned(), 1), |head| (head.hash, head.sequence.saturating_add(1)));
        let mut entry = AuditEntry {
            sequence,
            at_ms: origin.now_ms,
            actor_kind: actor.kind.to_owned(),
            actor_id: actor.id.clone(),
            actor_name: actor.name.clone(),
            action: write.action.to_owned(),
            outcome: write.outcome.to_owned(),
            target_kind: write.target_kind.to_owned(),
            target_id: write.target_id.clone(),
            account_id: write.account.clone(),
            before: write.before.clone(),
            after: write.after.clone(),
            ip: origin.ip.to_owned(),
            user_agent: origin.user_agent.to_owned(),
            request_id: origin.request_id.to_owned(),
            hash: String::new(),
        };
        entry.hash = audit::chain(sealer.key_id(), &key, &previous, &entry);
        let mut batch = first.clone();
        batch.extend(write.statements.iter().cloned());
        batch.push(insert_audit(&entry));
        let first_effect = batch.len();
        for effect in &write.effects {
            let effect = serde_json::to_value(effect).map_err(|error| internal(&error.to_string()))?;
            let insert = Statement::new("INSERT INTO outbox (effect, created_at) VALUES (?1, ?2) RETURNING id");
            batch.push(insert.bind(effect).bind(origin.now_ms / 1000));
        }
        match db.batch(&batch).await {
            Ok(results) => {
                log_entry(&entry);
                let mut pending = Vec::new();
                for (result, effect) in results.iter().skip(first_effect).zip(&write.effects) {
                    let row = rows::<OutboxRow>(result)?.into_iter().next();
                    pending.extend(row.map(|row| (row.id, effect.clone())));
                }
                return Ok(pending);
            }
            // Somebody else wrote the entry that this one was to follow.
            Err(BatchError::Exists(columns)) if columns.contains("audit_log") => {
                let jitter = super::context::random::<1>()?.first().copied().unwrap_or(0);
                let most = u64::from(attempt).saturating_add(1).saturating_mul(8);
                sleep(u64::from(jitter).checked_rem(most).unwrap_or(0)).await;
            }
            Err(error) => return Err(problem_of(error)),
        }
    }
    let message = "Too many changes at the same time. Nothing was changed; try again shortly.";
    Err(Problem::new(Kind::Unavailable, "busy", message))
}

fn insert_audit(entry: &AuditEntry) -> Statement {
    Statement::new(
        "INSERT INTO audit_log (sequence, at_ms, actor_kind, actor_id, actor_name, action, outcome, target_kind, \
         target_id, account_id, before, after, ip, user_agent, request_id, hash) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )
    .bind(entry.sequence)
    .bind(entry.at_ms)
    .bind(&entry.actor_kind)
    .bind(&entry.actor_id)
    .bind(&entry.actor_name)
    .bind(&entry.action)
    .bind(&entry.outcome)
    .bind(&entry.target_kind)
    .bind(&entry.target_id)
    .bind(&entry.account_id)
    .bind(entry.before.clone())
    .bind(entry.after.clone())
    .bind(&entry.ip)
    .bind(&entry.user_agent)
    .bind(&entry.request_id)
    .bind(&entry.hash)
}

/// The log has the hashes outside the database: with one of them a cut-off end can be proven.
fn log_entry(entry: &AuditEntry) {
    let (sequence, action, actor, target) =
        (entry.sequence, entry.action.as_str(), entry.actor_id.as_str(), entry.target_id.as_str());
    let (outcome, hash, request_id) = (entry.outcome.as_str(), entry.hash.as_str(), entry.request_id.as_str());
    tracing::info!(target: "audit", sequence, action, actor, target, outcome, request_id, hash);
}

fn problem_of(error: BatchError) -> Problem {
    match error {
        BatchError::Guard => outdated(),
        BatchError::Exists(columns) if columns.contains("idempotency_keys") => {
            let message = "The same request is being carried out at the moment. Repeat it shortly.";
            let mut problem = conflict("in_progress", message);
            problem.retryable = Some(true);
            problem
        }
        BatchError::Exists(columns) => {
            let field = columns.split(',').next().and_then(|column| column.rsplit('.').next()).unwrap_or_default();
            let mut problem = conflict("already_exists", format!("There is one with this {field} already."));
            problem.param = Some(field.to_owned());
            problem
        }
        BatchError::Reference => conflict(
            "in_use",
            "It refers to something that does not exist, or something else refers to it. Nothing was changed.",
        ),
        BatchError::Failed(message) => unavailable(&message),
    }
}

/// 503: recorded, but not everywhere yet.
pub(super) fn pending() -> Problem {
    let message = "The change is recorded, but has not reached every part of the gateway yet. It will by itself; repeat \
                   the request to wait for it.";
    let mut problem = Problem::new(Kind::Unavailable, "propagation_pending", message);
    problem.retryable = Some(true);
    problem.retry_after = Some("1".to_owned());
    problem
}

/// A guard: the batch fails unless a row has the revision that was seen.
macro_rules! guard_revision {
    ($table:literal, $key:literal) => {
        concat!(
            "INSERT INTO guards SELECT 'outdated' WHERE NOT EXISTS (SELECT 1 FROM ",
            $table,
            " WHERE ",
            $key,
            " = ?1 AND revision = ?2)"
        )
    };
}
pub(super) use guard_revision;
