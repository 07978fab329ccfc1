//! Entries of the draft (providers, models, routes, prices), and its settings. All entries work alike: a [`Section`] has
//! what is particular to one kind.

use serde::Deserialize;
use serde_json::Value;

use super::answer::{Answer, conflict, not_found};
use super::context::{Context, outdated};
use super::database::Json;
use super::write::{Write, guard_revision};
use crate::admin::draft;
use crate::admin::statement::Statement;
use crate::admin::types::catalog::Entry;
use crate::error::{FieldProblem, Problem};

/// A kind of entry and its table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    name: &'static str,
    kind: &'static str,
    /// What the audit log calls changes.
    actions: [&'static str; 3],
    list: &'static str,
    get: &'static str,
    guard_new: &'static str,
    guard: &'static str,
    upsert: &'static str,
    delete: &'static str,
    /// Takes an object of entries by name, and the time: adds and changes them.
    pub(super) upsert_all: &'static str,
    /// Takes an object of entries by name: deletes all others.
    pub(super) retain: &'static str,
    /// Tells to what an entry must not or cannot refer; takes its name and its settings.
    misfits: &'static str,
    /// Tells what refers to an entry; takes its name.
    users: &'static str,
    guard_unused: &'static str,
    /// What else is to be written with an entry; takes its name and its settings.
    more: &'static [&'static str],
}

/// The columns that hold what an entry refers to follow from its settings: `$columns` are their names, `$values` what they
/// hold and `$changes` how a change sets them, each with a comma in front.
macro_rules! section {
    (
        $table:literal, $kind:literal, [$columns:literal, $values:literal, $changes:literal],
        misfits $misfits:literal, users $users:literal, more $more:expr
    ) => {
        Section {
            name: $table,
            kind: $kind,
            actions: [concat!($table, ":create"), concat!($table, ":update"), concat!($table, ":delete")],
            list: concat!(
                section!(@columns $table),
                "WHERE (created_at, name) < (?1, ?2) ORDER BY created_at DESC, name DESC LIMIT ?3"
            ),
            get: concat!(section!(@columns $table), "WHERE name = ?1"),
            guard_new: concat!(
                "INSERT INTO guards SELECT 'exists' WHERE EXISTS (SELECT 1 FROM ", $table, " WHERE name = ?1)"
            ),
            guard: guard_revision!($table, "name"),
            upsert: concat!(
                "INSERT INTO ", $table, " (name, document, revision, created_at, updated_at", $columns, ") \
                 SELECT ?1, document, ?3, ?4, ?5", $values, " FROM (SELECT ?2 AS document) WHERE true \
                 ON CONFLICT (name) DO UPDATE SET document = excluded.document, revision = excluded.revision, \
                 updated_at = excluded.updated_at", $changes
            ),
            delete: concat!("DELETE FROM ", $table, " WHERE name = ?1"),
            upsert_all: concat!(
                "INSERT INTO ", $table, " (name, document, revision, created_at, updated_at", $columns, ") \
                 SELECT name, document, 1, ?2, ?2", $values,
                " FROM (SELECT key AS name, value AS document FROM json_each(?1)) WHERE true \
                 ON CONFLICT (name) DO UPDATE SET document = excluded.document, revision = revision + 1, \
                 updated_at = excluded.updated_at", $changes, " WHERE document <> excluded.document"
            ),
            retain: concat!("DELETE FROM ", $table, " WHERE name NOT IN (SELECT key FROM json_each(?1))"),
            misfits: $misfits,
            users: concat!($users, " LIMIT 20"),
            guard_unused: concat!("INSERT INTO guards SELECT 'in use' WHERE EXISTS (", $users, ")"),
            more: $more,
        }
    };
    (@columns $table:literal) => {
        concat!(
            "SELECT json_object('name', name, 'settings', json(document), 'revision', revision, \
             'created_at', created_at, 'updated_at', updated_at) AS row FROM ", $table, " "
        )
    };
}

pub(super) const PROVIDERS: Section = section!(
    "providers", "provider",
    [
        ", credential_id",
        ", CASE WHEN json_extract(document, '$.credential') LIKE 'stored:%' \
         THEN substr(json_extract(document, '$.credential'), 8) END",
        ", credential_id = excluded.credential_id"
    ],
    misfits "SELECT 'credential' AS path, 'there is no stored credential `' || substr(credential, 8) || '`' AS message \
             FROM (SELECT json_extract(?2, '$.credential') AS credential) \
             WHERE credential LIKE 'stored:%' AND substr(credential, 8) NOT IN (SELECT id FROM provider_credentials)",
    users "SELECT 'models.' || name AS path FROM models WHERE provider = ?1",
    more &[]
);

pub(super) const MODELS: Section = section!(
    "models", "model",
    [", provider", ", json_extract(document, '$.provider')", ", provider = excluded.provider"],
    misfits "SELECT 'provider' AS path, 'there is no provider `' || provider || '`' AS message \
             FROM (SELECT json_extract(?2, '$.provider') AS provider) \
             WHERE provider NOT IN (SELECT name FROM providers) \
             UNION ALL SELECT '', 'there is a route of this name: callers could not tell which is meant' \
             FROM routes WHERE name = ?1",
    users "SELECT 'routes.' || route AS path FROM route_targets WHERE model = ?1 \
           UNION SELECT 'routes.' || name FROM routes WHERE json_extract(document, '$.shadow.model') = ?1 \
           UNION SELECT 'routes.' || r.name FROM routes r, json_each(r.document, '$.fallbacks') f, json_each(f.value) n \
           WHERE n.value = ?1 \
           UNION SELECT 'prices.' || name FROM prices WHERE name = ?1",
    more &[]
);

pub(super) const ROUTES: Section = section!(
    "routes", "route", ["", "", ""],
    misfits "SELECT 'targets[' || key || '].model' AS path, 'there is no model `' || model || '`' AS message \
             FROM (SELECT key, json_extract(value, '$.model') AS model FROM json_each(?2, '$.targets')) \
             WHERE model IS NOT NULL AND model NOT IN (SELECT name FROM models) \
             UNION ALL SELECT 'targets[' || key || '].route', 'there is no route `' || route || '`' \
             FROM (SELECT key, json_extract(value, '$.route') AS route FROM json_each(?2, '$.targets')) \
             WHERE route IS NOT NULL AND route NOT IN (SELECT name FROM routes) \
             UNION ALL SELECT 'fallbacks.' || f.key || '[' || n.key || ']', 'there is no model and no route `' || n.value || '`' \
             FROM json_each(?2, '$.fallbacks') f, json_each(f.value) n \
             WHERE n.value NOT IN (SELECT name FROM models UNION ALL SELECT name FROM routes) \
             UNION ALL SELECT 'shadow.model', 'there is no model `' || model || '`' \
             FROM (SELECT json_extract(?2, '$.shadow.model') AS model) \
             WHERE model IS NOT NULL AND model NOT IN (SELECT name FROM models) \
             UNION ALL SELECT '', 'there is a model of this name: callers could not tell which is meant' \
             FROM models WHERE name = ?1",
    users "SELECT 'routes.' || r.name AS path FROM routes r, json_each(r.document, '$.targets') t \
           WHERE json_extract(t.value, '$.route') = ?1 \
           UNION SELECT 'routes.' || r.name FROM routes r, json_each(r.document, '$.fallbacks') f, json_each(f.value) n \
           WHERE n.value = ?1",
    more &[
        "DELETE FROM route_targets WHERE route = ?1 AND position NOT IN \
         (SELECT key FROM json_each(?2, '$.targets') WHERE json_extract(value, '$.model') IS NOT NULL)",
        "INSERT INTO route_targets (route, position, model) SELECT ?1, key, json_extract(value, '$.model') \
         FROM json_each(?2, '$.targets') WHERE json_extract(value, '$.model') IS NOT NULL \
         ON CONFLICT (route, position) DO UPDATE SET model = excluded.model",
    ]
);

pub(super) const PRICES: Section = section!(
    "prices", "price", ["", "", ""],
    misfits "SELECT '' AS path, 'there is no model `' || ?1 || '`' AS message \
             WHERE json_valid(?2) AND ?1 NOT IN (SELECT name FROM models)",
    users "SELECT '' AS path WHERE ?1 IS NULL",
    more &[]
);

type Found = Entry<Value>;

async fn find(context: &Context<'_>, section: Section) -> Result<Option<Found>, Problem> {
    context.db.object(Statement::new(section.get).bind(context.parameter("name"))).await
}

async fn found(context: &Context<'_>, section: Section) -> Result<Found, Problem> {
    find(context, section).await?.ok_or_else(|| not_found(section.kind, context.parameter("name")))
}

pub(super) async fn list(context: &Context<'_>, section: Section) -> Result<Answer, Problem> {
    context.paged(Statement::new(section.list), |entry: &Found| (entry.created_at, entry.name.clone())).await
}

pub(super) async fn get(context: &Context<'_>, section: Section) -> Result<Answer, Problem> {
    let entry = found(context, section).await?;
    Ok(Answer::ok(&entry)?.revision(entry.revision))
}

pub(super) async fn put(context: &Context<'_>, section: Section) -> Result<Answer, Problem> {
    let before = find(context, section).await?;
    match &before {
        Some(before) => context.check_revision(before.revision)?,
        // Whoever names a state to be replaced does not mean to create something.
        None if context.if_match.is_some() => return Err(outdated()),
        None => {}
    }
    set(context, section, before, context.body.clone()).await
}

pub(super) async fn update(context: &Context<'_>, section: Section) -> Result<Answer, Problem> {
    let before = found(context, section).await?;
    context.check_revision(before.revision)?;
    let settings = context.merged(&before.settings)?;
    set(context, section, Some(before), settings).await
}

async fn set(
    context: &Context<'_>,
    section: Section,
    before: Option<Found>,
    settings: Value,
) -> Result<Answer, Problem> {
    let name = context.parameter("name");
    let mut problems = draft::entry_problems(section.name, name, &settings);
    if problems.is_empty() {
        let misfits = Statement::new(section.misfits).bind(name).bind(settings.clone());
        problems = context.db.rows::<FieldProblem>(misfits).await?;
    }
    draft::refuse("", problems)?;
    let now = context.now();
    let after = Entry {
        name: name.to_owned(),
        settings,
        revision: before.as_ref().map_or(1, |before| before.revision.saturating_add(1)),
        created_at: before.as_ref().map_or(now, |before| before.created_at),
        updated_at: now,
    };
    let [create, update, _] = section.actions;
    let mut write = match &before {
        None => {
            Write::new(create, section.kind, name).creates(&after).with(Statement::new(section.guard_new).bind(name))
        }
        Some(before) => Write::new(update, section.kind, name)
            .change(before, &after)
            .with(Statement::new(section.guard).bind(name).bind(before.revision)),
    };
    write = write.with(
        Statement::new(section.upsert)
            .bind(name)
            .bind(after.settings.clone())
            .bind(after.revision)
            .bind(after.created_at)
            .bind(after.updated_at),
    );
    for sql in section.more {
        write = write.with(Statement::new(sql).bind(name).bind(after.settings.clone()));
    }
    context.commit(write, Answer::ok(&after)?.revision(after.revision)).await
}

#[derive(Deserialize)]
struct User {
    path: String,
}

pub(super) async fn delete(context: &Context<'_>, section: Section) -> Result<Answer, Problem> {
    let entry = found(context, section).await?;
    context.check_revision(entry.revision)?;
    let users: Vec<User> = context.db.rows(Statement::new(section.users).bind(&entry.name)).await?;
    if !users.is_empty() {
        let told = format!("refers to the {} `{}`", section.kind, entry.name);
        let message = format!("The {} `{}` is in use: see `errors`. Nothing was changed.", section.kind, entry.name);
        let mut refused = conflict("in_use", message);
        refused.fields =
            users.into_iter().map(|user| FieldProblem { path: user.path, message: told.clone() }).collect();
        return Err(refused);
    }
    let [_, _, action] = section.actions;
    let write = Write::new(action, section.kind, &entry.name)
        .removes(&entry)
        .with(Statement::new(section.guard).bind(&entry.name).bind(entry.revision))
        .with(Statement::new(section.guard_unused).bind(&entry.name))
        .with(Statement::new(section.delete).bind(&entry.name));
    context.commit(write, Answer::done()).await
}

#[derive(Deserialize)]
struct Settings {
    document: Json<Value>,
    revision: u64,
}

async fn settings(context: &Context<'_>) -> Result<Settings, Problem> {
    let row = context.db.first(Statement::new("SELECT document, revision FROM settings")).await?;
    row.ok_or_else(|| super::answer::internal("the settings' row is gone"))
}

pub(super) async fn get_settings(context: &Context<'_>) -> Result<Answer, Problem> {
    let settings = settings(context).await?;
    Ok(Answer::ok(&settings.document.0)?.revision(settings.revision))
}

pub(super) async fn put_settings(context: &Context<'_>) -> Result<Answer, Problem> {
    let before = settings(context).await?;
    context.check_revision(before.revision)?;
    set_settings(context, before, context.body.clone()).await
}

pub(super) async fn update_settings(context: &Context<'_>) -> Result<Answer, Problem> {
    let before = settings(context).await?;
    context.check_revision(before.revision)?;
    let after = context.merged(&before.document.0)?;
    set_settings(context, before, after).await
}

async fn set_settings(context: &Context<'_>, before: Settings, after: Value) -> Result<Answer, Problem> {
    draft::refuse("", draft::settings_problems(&after))?;
    let revision = before.revision.saturating_add(1);
    let write = Write::new("settings:update", "settings", "settings")
        .change(&before.document.0, &after)
        .with(Statement::new(guard_revision!("settings", "once")).bind(1u64).bind(before.revision))
        .with(
            Statement::new("UPDATE settings SET document = ?1, revision = ?2, updated_at = ?3")
                .bind(after.clone())
                .bind(revision)
                .bind(context.now()),
        );
    context.commit(write, Answer::ok(&after)?.revision(revision)).await
}
