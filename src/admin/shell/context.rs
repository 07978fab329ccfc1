//! What every operation works with.

use std::rc::Rc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use worker::Env;

use super::answer::internal;
use super::database::Database;
use crate::admin::cursor::{Cursor, page_size};
use crate::admin::ids;
use crate::admin::router::Matched;
use crate::admin::schema::Description;
use crate::auth::rbac::{Grants, Permission};
use crate::config::{Admin, Config, Sessions};
use crate::error::{Kind, Problem};
use crate::gateway::plan::LoadedConfig;
use crate::seal::{NONCE_BYTES, Sealer};
use crate::secret::Secret;
use crate::store::config::deployment;

/// Who calls.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    /// `user`, `service`, `external`, `system` or `anonymous`.
    pub(super) kind: &'static str,
    /// The user's id, or issuer and subject.
    pub(super) id: String,
    /// The name.
    pub(super) name: String,
    /// The session, if a person signed in.
    pub(super) session: Option<String>,
    /// What is allowed.
    pub(super) grants: Grants,
    /// Whether nothing but changing the password is allowed.
    pub(super) must_change_password: bool,
}

impl Actor {
    /// Somebody who has not signed in.
    pub(super) fn anonymous() -> Self {
        Self {
            kind: "anonymous",
            id: String::new(),
            name: String::new(),
            session: None,
            grants: Grants::default(),
            must_change_password: false,
        }
    }

    /// The gateway itself.
    pub(super) fn system() -> Self {
        Self { kind: "system", name: "gateway".to_owned(), ..Self::anonymous() }
    }

    /// The user, unless somebody else vouches for the caller.
    pub(super) fn user(&self) -> Option<&str> {
        matches!(self.kind, "user" | "service").then_some(self.id.as_str())
    }
}

/// One call.
pub(super) struct Context<'a> {
    pub(super) env: &'a Env,
    pub(super) db: Database,
    pub(super) description: Rc<Description>,
    pub(super) matched: Matched,
    pub(super) actor: Actor,
    pub(super) config: Option<Rc<LoadedConfig>>,
    pub(super) query: Value,
    pub(super) body: Value,
    pub(super) if_match: Option<String>,
    pub(super) idempotency: Option<Idempotency>,
    pub(super) request_id: String,
    pub(super) ip: String,
    pub(super) user_agent: String,
    /// Unix milliseconds.
    pub(super) now_ms: u64,
}

/// A request that may be repeated.
#[derive(Debug, Clone)]
pub(super) struct Idempotency {
    /// Names caller and key.
    pub(super) id: String,
    /// Names what is asked for.
    pub(super) fingerprint: String,
}

impl Context<'_> {
    /// Unix seconds.
    pub(super) fn now(&self) -> u64 {
        self.now_ms / 1000
    }

    /// The settings of the admin API.
    pub(super) fn admin(&self) -> Admin {
        self.config.as_ref().map_or_else(|| unpublished(self.env).admin, |loaded| loaded.config.admin.clone())
    }

    /// The settings of sign-in.
    pub(super) fn sessions(&self) -> Sessions {
        self.config.as_ref().map_or_else(|| unpublished(self.env).sessions, |loaded| loaded.config.sessions.clone())
    }

    /// The whole configuration.
    pub(super) fn configuration(&self) -> Config {
        self.config.as_ref().map_or_else(|| unpublished(self.env), |loaded| loaded.config.clone())
    }

    /// A parameter of the path.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.matched.parameter(name)
    }

    /// The account that the path names.
    pub(super) fn account(&self) -> &str {
        self.parameter("account")
    }

    /// The body, which has been checked against its description.
    ///
    /// # Errors
    /// 400 for what no description can say.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        read(&self.body)
    }

    /// The body merged into what is there (RFC 7396), checked as a whole.
    ///
    /// # Errors
    /// 400 with the fields at fault.
    pub(super) fn merged<T: DeserializeOwned>(&self, current: &impl serde::Serialize) -> Result<T, Problem> {
        let mut merged = serde_json::to_value(current).map_err(|error| internal(&error.to_string()))?;
        merge(&mut merged, &self.body);
        let method = self.matched.operation.method.method().as_str().to_ascii_lowercase();
        if let Some(name) = self.description.merged_schema(&method, self.matched.operation.path) {
            self.description.check_named(name, &merged)?;
        }
        read(&merged)
    }

    /// The query.
    ///
    /// # Errors
    /// 400 for what no description can say.
    pub(super) fn query<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        read(&self.query)
    }

    /// Where the page begins and how long it is.
    ///
    /// # Errors
    /// 400 for a cursor or a length that cannot be.
    pub(super) fn page(&self) -> Result<(Cursor, u32), Problem> {
        let query: crate::admin::types::PageQuery = self.query()?;
        let admin = self.admin();
        let whole = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let size = page_size(query.limit, whole(admin.page_size_default), whole(admin.page_size_max))?;
        Ok((Cursor::read(query.cursor.as_deref())?, size))
    }

    /// Whether the caller knows the state that is to be changed.
    ///
    /// # Errors
    /// 412 if not; 428 if the caller does not say and the settings demand it.
    pub(super) fn check_revision(&self, revision: u64) -> Result<(), Problem> {
        self.check_etag(&revision.to_string())
    }

    /// As [`Self::check_revision`], by ETag.
    ///
    /// # Errors
    /// As [`Self::check_revision`].
    pub(super) fn check_etag(&self, tag: &str) -> Result<(), Problem> {
        match &self.if_match {
            None if self.admin().require_if_match => {
                let message = "Say what is to be changed: send the ETag of what you have seen as `if-match`.";
                let mut problem = Problem::new(Kind::PreconditionFailed, "precondition_required", message);
                problem.status = 428;
                Err(problem)
            }
            None => Ok(()),
            Some(wanted) if wanted == "*" || wanted.split(',').any(|one| one.trim() == format!("\"{tag}\"")) => Ok(()),
            Some(_) => Err(outdated()),
        }
    }

    /// A fresh id.
    ///
    /// # Errors
    /// 500 without randomness.
    pub(super) fn fresh_id(&self, prefix: &str) -> Result<String, Problem> {
        Ok(ids::compose(prefix, &random()?))
    }

    /// What seals secrets.
    ///
    /// # Errors
    /// 503 while the deployment has no master secret.
    pub(super) fn sealer(&self) -> Result<Sealer, Problem> {
        sealer(self.env)
    }

    /// What keys and tokens are hashed under.
    ///
    /// # Errors
    /// 503 while the deployment has none.
    pub(super) fn hash_secret(&self) -> Result<Secret<String>, Problem> {
        secret(self.env, "KEY_HASH_SECRET")
    }

    /// 403 unless the caller has a permission, in an account or globally.
    ///
    /// # Errors
    /// 403.
    pub(super) fn require(&self, permission: Permission, account: Option<&str>) -> Result<(), Problem> {
        if self.actor.grants.allow(permission, account) { Ok(()) } else { Err(denied(permission)) }
    }
}

/// What counts while nothing is published: defaults, and what the deployment's variables say.
pub(super) fn unpublished(env: &Env) -> Config {
    crate::config::effective(&deployment(env).environment, &serde_json::json!({})).config
}

/// What seals secrets.
///
/// # Errors
/// 503 while the deployment has no master secret.
pub(super) fn sealer(env: &Env) -> Result<Sealer, Problem> {
    let master = secret(env, "MASTER_SECRET")?;
    let previous = env.secret("MASTER_SECRET_PREVIOUS").ok().map(|secret| Secret::new(secret.to_string()));
    Sealer::new(&master, previous.as_ref()).map_err(|error| not_configured("MASTER_SECRET", &error.to_string()))
}

fn secret(env: &Env, name: &str) -> Result<Secret<String>, Problem> {
    let secret = env.secret(name).map_err(|_| not_configured(name, "it is not set"))?;
    Ok(Secret::new(secret.to_string()))
}

fn not_configured(name: &str, why: &str) -> Problem {
    let message =
        format!("The deployment's secret {name} cannot be used: {why}. Set it with `wrangler secret put {name}`.");
    Problem::new(Kind::Unavailable, "gateway_not_configured", message).final_answer()
}

/// Random bytes.
///
/// # Errors
/// 500 without randomness.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    getrandom::getrandom(&mut bytes).map_err(|error| internal(&error.to_string()))?;
    Ok(bytes)
}

/// A nonce for sealing.
///
/// # Errors
/// 500 without randomness.
pub(super) fn nonce() -> Result<[u8; NONCE_BYTES], Problem> {
    random()
}

/// 403 that names what is missing.
pub(super) fn denied(permission: Permission) -> Problem {
    let message = format!("This needs the permission {}, which you do not have here.", permission.name());
    Problem::new(Kind::Permission, "permission_denied", message).final_answer()
}

/// 412: what is to be changed has changed meanwhile.
pub(super) fn outdated() -> Problem {
    let message = "It has been changed meanwhile. Look at it again, then repeat the change with its new ETag.";
    Problem::new(Kind::PreconditionFailed, "outdated", message).final_answer()
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        Problem::invalid(&path, format!("{}.", error.inner()))
    })
}

/// RFC 7396.
fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(members) = target else { return };
    for (name, value) in change {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
