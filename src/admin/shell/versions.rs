//! Published versions of the configuration. They never change; the last one is current.

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, conflict, not_found};
use super::context::Context;
use super::database::Json;
use super::drafts;
use super::effects::Effect;
use super::write::Write;
use crate::admin::draft;
use crate::admin::statement::Statement;
use crate::admin::types::configuration::{Comparison, ComparisonQuery, Publish, Rollback, Version, VersionInfo};
use crate::config::{Snapshot, content_hash, diff};
use crate::error::{FieldProblem, Kind, Problem};

/// The name that stands for the current version in paths.
const CURRENT_ALIAS: &str = "current";

/// The current version, with its document.
pub(super) const CURRENT: &str =
    "SELECT sequence, version, document FROM config_versions ORDER BY sequence DESC LIMIT 1";

macro_rules! columns {
    ($more:literal) => {
        concat!(
            "SELECT json_object('version', v.version, 'sequence', v.sequence, 'parent', p.version, \
             'restored_from', r.version, 'author', v.author, 'comment', v.comment, 'created_at', v.created_at, \
             'current', json(CASE v.sequence WHEN (SELECT max(sequence) FROM config_versions) THEN 'true' ELSE 'false' END)",
            $more,
            ") AS row FROM config_versions v LEFT JOIN config_versions p ON p.sequence = v.parent \
             LEFT JOIN config_versions r ON r.sequence = v.restored_from "
        )
    };
}

// Sequences are unique, so the text of the cursor has nothing to add.
const LIST: &str = concat!(columns!(""), "WHERE v.sequence < ?1 AND ?2 <> '' ORDER BY v.sequence DESC LIMIT ?3");
const GET: &str = concat!(columns!(", 'document', json(v.document)"), "WHERE v.version = ?1");
const GET_CURRENT: &str =
    concat!(columns!(", 'document', json(v.document)"), "WHERE ?1 <> '' ORDER BY v.sequence DESC LIMIT 1");

/// The current version.
#[derive(Deserialize)]
pub(super) struct Current {
    pub(super) sequence: u64,
    pub(super) version: String,
    pub(super) document: Json<Value>,
}

/// A version by its name.
///
/// # Errors
/// 404 if there is none.
async fn find(context: &Context<'_>, version: &str) -> Result<Version, Problem> {
    let statement = Statement::new(if version == CURRENT_ALIAS { GET_CURRENT } else { GET }).bind(version);
    context.db.object(statement).await?.ok_or_else(|| not_found("version", version))
}

pub(super) async fn list(context: &Context<'_>) -> Result<Answer, Problem> {
    context.paged(Statement::new(LIST), |info: &VersionInfo| (info.sequence, info.version.clone())).await
}

pub(super) async fn get(context: &Context<'_>) -> Result<Answer, Problem> {
    Answer::ok(&find(context, context.parameter("version")).await?)
}

/// Compares a version with another one, or with the one before it.
pub(super) async fn compare(context: &Context<'_>) -> Result<Answer, Problem> {
    let query: ComparisonQuery = context.query()?;
    let version = find(context, context.parameter("version")).await?;
    let with = match query.with.or_else(|| version.info.parent.clone()) {
        Some(with) => Some(find(context, &with).await?),
        None => None,
    };
    let nothing = json!({});
    let changes = diff(with.as_ref().map_or(&nothing, |with| &with.document), &version.document);
    let from = with.map(|with| with.info.version);
    Answer::ok(&Comparison { from, to: Some(version.info.version), changes })
}

/// Makes the draft current.
pub(super) async fn publish(context: &Context<'_>) -> Result<Answer, Problem> {
    let wanted: Publish = context.body()?;
    let draft = drafts::load(context).await?;
    let current = draft.current.as_ref();
    if let Some(parent) = wanted.parent.filter(|parent| Some(parent) != current.map(|current| &current.version)) {
        let message = match current {
            Some(current) => format!("The current version is {}, not {parent}.", current.version),
            None => format!("No version has been published yet, so none can be {parent}."),
        };
        return Err(superseded(&message));
    }
    let guard = draft.guard();
    let next = Next { document: &draft.document, restored_from: None, comment: &wanted.comment };
    let (write, answer) = next.write(context, "config:publish", current).await?;
    context.commit(write.with(guard), answer).await.map_err(if_outdated)
}

/// Makes an old version current again, and the draft with it.
pub(super) async fn roll_back(context: &Context<'_>) -> Result<Answer, Problem> {
    let wanted: Rollback = context.body()?;
    let old = find(context, &wanted.version).await?;
    let current: Option<Current> = context.db.first(Statement::new(CURRENT)).await?;
    let next = Next { document: &old.document, restored_from: Some(&old.info), comment: &wanted.comment };
    let (mut write, answer) = next.write(context, "config:rollback", current.as_ref()).await?;
    for statement in drafts::replace(old.document.clone(), context.now()) {
        write = write.with(statement);
    }
    context.commit(write, answer).await.map_err(if_outdated)
}

/// A version about to be published.
struct Next<'a> {
    document: &'a Value,
    restored_from: Option<&'a VersionInfo>,
    comment: &'a str,
}

impl Next<'_> {
    /// # Errors
    /// 409 if it is what is current already, or with everything that is wrong with it; 403 if it grants what its publisher
    /// may not grant; 503 if the database does not answer.
    async fn write(
        &self,
        context: &Context<'_>,
        action: &'static str,
        current: Option<&Current>,
    ) -> Result<(Write, Answer), Problem> {
        if current.is_some_and(|current| content_hash(&current.document.0) == content_hash(self.document)) {
            let message = "This is what the current version says already: there is nothing to publish.";
            return Err(conflict("nothing_to_publish", message));
        }
        drafts::judge(context, self.document).await?.map_err(invalid)?;
        let nothing = json!({});
        let before = current.map_or(&nothing, |current| &current.document.0);
        super::roles::require_issuers(context, before, self.document).await?;
        let sequence = current.map_or(1, |current| current.sequence.saturating_add(1));
        let parent = current.map(|current| current.version.clone());
        let snapshot = Snapshot::seal(self.document.clone(), sequence, parent, context.now()).map_err(invalid)?;
        let actor = &context.actor;
        let info = VersionInfo {
            version: snapshot.version,
            sequence,
            parent: snapshot.parent,
            restored_from: self.restored_from.map(|old| old.version.clone()),
            author: if actor.name.is_empty() { actor.id.clone() } else { actor.name.clone() },
            comment: self.comment.to_owned(),
            created_at: snapshot.created_at,
            current: true,
        };
        let parent = current.map(|current| current.sequence);
        let guard = Statement::new(
            "INSERT INTO guards SELECT 'superseded' \
             WHERE coalesce((SELECT max(sequence) FROM config_versions), 0) <> ?1",
        )
        .bind(parent.unwrap_or(0));
        let insert = Statement::new(
            "INSERT INTO config_versions (sequence, version, parent, restored_from, document, author, comment, created_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .bind(sequence)
        .bind(&info.version)
        .bind(parent)
        .bind(self.restored_from.map(|old| old.sequence))
        .bind(snapshot.config)
        .bind(&info.author)
        .bind(&info.comment)
        .bind(info.created_at);
        let write = Write::new(action, "configuration", &info.version)
            .change(&json!({"version": info.parent}), &info)
            .with(guard)
            .with(insert)
            .then(Effect::Config);
        Ok((write, Answer::json(201, &info)?))
    }
}

/// 409 with everything that is wrong: what is wrong never becomes current.
fn invalid(problems: Vec<FieldProblem>) -> Problem {
    draft::problem(Kind::Conflict, "invalid_configuration", problems)
        .unwrap_or_else(|| conflict("invalid_configuration", "The configuration cannot be published."))
}

fn superseded(why: &str) -> Problem {
    conflict("superseded", format!("{why} Compare it with the draft, then publish again."))
}

fn if_outdated(problem: Problem) -> Problem {
    match problem.code.as_str() {
        "outdated" => superseded("Somebody else has published or changed the draft at the same time."),
        _ => problem,
    }
}
