//! Signing in and out, and the first administrator.

use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use super::answer::{Answer, conflict, internal};
use super::context::{Actor, Context, random};
use super::database::{BatchError, unavailable};
use super::sessions;
use super::users;
use super::write::Write;
use crate::admin::statement::Statement;
use crate::admin::types::identity::{Bootstrap, Refresh, SignIn, Tokens};
use crate::admin::types::people::{UserKind, UserSettings};
use crate::auth::ip_ranges::parse_address;
use crate::auth::lockout::{self, Attempts, Gate, LockoutPolicy};
use crate::auth::opaque::{Opaque, OpaqueKind, RefreshRecord, Rotation, rotate};
use crate::auth::password;
use crate::auth::session_token::{Issue, sign_admin};
use crate::error::{Kind, Problem};
use crate::seal::Purpose;
use crate::secret::Secret;

/// How often a count is tried while others count the same.
const COUNT_ATTEMPTS: u32 = 16;

#[derive(Deserialize)]
struct UserRow {
    id: String,
    name: String,
    password_hash: Option<String>,
    status: String,
    must_change_password: u64,
}

#[derive(Deserialize)]
struct AttemptsRow {
    subject: String,
    #[serde(flatten)]
    attempts: Attempts,
}

/// What an attempt was counted under.
pub(super) struct Subjects {
    identity: String,
}

impl Subjects {
    /// The statement that forgets the identity's failures: the password was right.
    pub(super) fn forget(&self) -> Statement {
        Statement::new("DELETE FROM sign_in_attempts WHERE subject = ?1").bind(&self.identity)
    }
}

impl Context<'_> {
    /// Counts an attempt before its password is looked at, so that guesses sent at the same time are all counted.
    ///
    /// # Errors
    /// 429 while identity or address are locked: the same whether or not the identity exists.
    pub(super) async fn count_attempt(&self, email: &str) -> Result<Subjects, Problem> {
        let settings = self.sessions();
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let policy = LockoutPolicy {
            after: small(settings.lockout_after),
            base_seconds: settings.lockout_base_seconds,
            max_seconds: settings.lockout_max_seconds,
            per_address_per_minute: small(settings.attempts_per_ip_per_minute),
        };
        let key = self.sealer()?.derive(Purpose::IdentityHash);
        let identity = lockout::identity_subject(email, &key);
        let address = parse_address(&self.ip).map(|address| lockout::address_subject(address, &key));
        for _ in 0..COUNT_ATTEMPTS {
            let known = Statement::new(
                "SELECT subject, failures, first_at, last_at, locked_until FROM sign_in_attempts WHERE subject IN (?1, ?2)",
            );
            let known: Vec<AttemptsRow> = self.db.rows(known.bind(&identity).bind(address.clone())).await?;
            let stored = |subject: &str| known.iter().find(|row| row.subject == subject).map(|row| row.attempts);
            let mut batch = Vec::new();
            let gates = [
                Some((&identity, lockout::for_identity(stored(&identity), &policy, self.now()))),
                address.as_ref().map(|subject| (subject, lockout::for_address(stored(subject), &policy, self.now()))),
            ];
            for (subject, gate) in gates.into_iter().flatten() {
                match gate {
                    Gate::Locked { retry_after_s } => return Err(locked(retry_after_s)),
                    Gate::Allowed(counted) => {
                        let before = stored(subject).map_or(0, |attempts| attempts.failures);
                        batch.extend(store_attempts(subject, before, counted));
                    }
                }
            }
            match self.db.batch(&batch).await {
                Ok(_) => return Ok(Subjects { identity }),
                // Somebody else counted meanwhile.
                Err(BatchError::Guard) => {}
                Err(error) => return Err(unavailable(&format!("{error:?}"))),
            }
        }
        Err(locked(1))
    }

    /// Opens a session: the statement that stores it, and what its owner gets.
    async fn open_session(&self, user: &str, must_change_password: bool) -> Result<(Vec<Statement>, Tokens), Problem> {
        let settings = self.sessions();
        let id = self.fresh_id("ses")?;
        let refresh = Opaque::compose(OpaqueKind::Refresh, &random()?);
        let record = RefreshRecord::first(&refresh, &self.hash_secret()?, self.now(), settings.refresh_token_seconds);
        let insert = Statement::new(
            "INSERT INTO sessions (id, user_id, refresh_hash, ip, user_agent, created_at, last_used_at, expires_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7)",
        )
        .bind(&id)
        .bind(user)
        .bind(&record.hash)
        .bind(&self.ip)
        .bind(&self.user_agent)
        .bind(self.now())
        .bind(record.expires_at);
        // Never the new one, which may have come in the same second as others.
        let oldest = Statement::new(
            "UPDATE sessions SET revoked_at = ?2 WHERE revoked_at IS NULL AND id IN (SELECT id FROM sessions \
             WHERE user_id = ?1 AND id <> ?4 AND revoked_at IS NULL ORDER BY created_at DESC, id DESC LIMIT -1 OFFSET ?3)",
        )
        .bind(user)
        .bind(self.now())
        .bind(settings.max_per_user.saturating_sub(1))
        .bind(&id);
        let tokens = self.tokens(user, &id, &refresh, record.expires_at, must_change_password).await?;
        Ok((vec![insert, oldest], tokens))
    }

    async fn tokens(
        &self,
        user: &str,
        session: &str,
        refresh: &Opaque,
        session_expires_at: u64,
        must_change_password: bool,
    ) -> Result<Tokens, Problem> {
        let expires_in = self.sessions().access_token_seconds;
        let issue = Issue { now: self.now(), lifetime_seconds: expires_in, token_id: random()? };
        let access = sign_admin(&self.signing_key().await?, user, session, issue);
        Ok(Tokens {
            access_token: access.expose().clone(),
            token_type: "Bearer".to_owned(),
            expires_in,
            refresh_token: refresh.text().expose().clone(),
            session_expires_at,
            must_change_password,
            session_id: session.to_owned(),
        })
    }

    /// The context with somebody else as the caller: whoever has just signed in, or has been refused.
    pub(super) fn acting(&self, actor: Actor) -> Context<'_> {
        Context {
            env: self.env,
            db: self.db.clone(),
            description: std::rc::Rc::clone(&self.description),
            matched: self.matched.clone(),
            actor,
            config: self.config.clone(),
            query: self.query.clone(),
            body: self.body.clone(),
            if_match: None,
            // Neither tokens nor refusals are kept for a repetition: it is tried anew.
            idempotency: None,
            request_id: self.request_id.clone(),
            ip: self.ip.clone(),
            user_agent: self.user_agent.clone(),
            now_ms: self.now_ms,
        }
    }
}

fn store_attempts(subject: &str, before: u32, counted: Attempts) -> [Statement; 2] {
    let guard = Statement::new(
        "INSERT INTO guards SELECT 'counted' WHERE ?2 <> coalesce((SELECT failures FROM sign_in_attempts WHERE subject = ?1), 0)",
    )
    .bind(subject)
    .bind(before);
    let upsert = Statement::new(
        "INSERT INTO sign_in_attempts (subject, failures, first_at, last_at, locked_until) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (subject) DO UPDATE SET failures = excluded.failures, first_at = excluded.first_at, \
         last_at = excluded.last_at, locked_until = excluded.locked_until",
    )
    .bind(subject)
    .bind(counted.failures)
    .bind(counted.first_at)
    .bind(counted.last_at)
    .bind(counted.locked_until);
    [guard, upsert]
}

fn locked(retry_after_s: u64) -> Problem {
    let message = format!("Too many attempts. Try again in {retry_after_s} s.");
    let mut problem = Problem::new(Kind::RateLimited, "sign_in_locked", message);
    problem.retryable = Some(false);
    problem.retry_after = Some(retry_after_s.to_string());
    problem
}

fn wrong() -> Problem {
    let message = "E-mail address or password are wrong, or the user may not sign in.";
    Problem::new(Kind::Authentication, "wrong_password", message).final_answer()
}

pub(super) async fn sign_in(context: &Context<'_>) -> Result<Answer, Problem> {
    let wanted: SignIn = context.body()?;
    let email = users::normal(&wanted.email);
    let subjects = context.count_attempt(&email).await?;
    let user =
        Statement::new("SELECT id, name, password_hash, status, must_change_password FROM users WHERE email = ?1");
    let user: Option<UserRow> = context.db.first(user.bind(&email)).await?;
    let stored = user.as_ref().and_then(|user| user.password_hash.as_deref());
    // Takes the same time for a user who does not exist.
    let password = Secret::new(wanted.password);
    let verdict = password::verify(&password, stored);
    let user = user.filter(|user| verdict.matches && user.status == "active");
    let Some(user) = user else {
        // What is no address may be a password in the wrong field.
        let told = if users::is_email(&email) { email.as_str() } else { "" };
        let attempt = context.acting(Actor { name: told.to_owned(), ..Actor::anonymous() });
        let refused = Write::new("sessions:sign_in", "user", told).refused();
        attempt.commit(refused, Answer::done()).await?;
        return Err(wrong());
    };
    let actor = Actor { kind: "user", id: user.id.clone(), name: user.name.clone(), ..Actor::anonymous() };
    let (session, tokens) = context.open_session(&user.id, user.must_change_password != 0).await?;
    let mut write = Write::new("sessions:sign_in", "session", &tokens.session_id)
        .with(subjects.forget())
        .with(Statement::new("UPDATE users SET last_sign_in_at = ?2 WHERE id = ?1").bind(&user.id).bind(context.now()));
    if verdict.needs_rehash {
        let hash = password::hash(&password, &random()?).map_err(|error| internal(&error.to_string()))?;
        write =
            write.with(Statement::new("UPDATE users SET password_hash = ?2 WHERE id = ?1").bind(&user.id).bind(hash));
    }
    for statement in session {
        write = write.with(statement);
    }
    context.acting(actor).commit(write, Answer::ok(&tokens)?).await
}

#[derive(Deserialize)]
struct SessionRow {
    id: String,
    user_id: String,
    refresh_hash: String,
    spent_hash: Option<String>,
    last_used_at: u64,
    expires_at: u64,
    revoked_at: Option<u64>,
    user_name: String,
    user_status: String,
    must_change_password: u64,
}

pub(super) async fn refresh(context: &Context<'_>) -> Result<Answer, Problem> {
    let wanted: Refresh = context.body()?;
    let refused = || {
        let message = "The refresh token is not valid, or the session has ended. Sign in again.";
        Problem::new(Kind::Authentication, "invalid_refresh_token", message).final_answer()
    };
    let presented = Opaque::parse(OpaqueKind::Refresh, wanted.refresh_token.trim()).ok_or_else(refused)?;
    let secret = context.hash_secret()?;
    let row = Statement::new(
        "SELECT s.id, s.user_id, s.refresh_hash, s.spent_hash, s.last_used_at, s.expires_at, s.revoked_at, \
         u.name AS user_name, u.status AS user_status, u.must_change_password FROM sessions s \
         JOIN users u ON u.id = s.user_id WHERE s.refresh_hash = ?1 OR s.spent_hash = ?1",
    );
    let row: Option<SessionRow> = context.db.first(row.bind(presented.hash(&secret))).await?;
    let row = row.ok_or_else(refused)?;
    let record = RefreshRecord {
        hash: row.refresh_hash,
        spent_hash: row.spent_hash,
        last_used_at: row.last_used_at,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
    };
    let successor = Opaque::compose(OpaqueKind::Refresh, &random()?);
    let idle = context.sessions().idle_seconds;
    let actor = Actor { kind: "user", id: row.user_id.clone(), name: row.user_name, ..Actor::anonymous() };
    let acting = context.acting(actor);
    match rotate(Some(&record), &presented, &successor, &secret, context.now(), idle) {
        Rotation::Rotated(next) if row.user_status == "active" => {
            let tokens = context
                .tokens(&row.user_id, &row.id, &successor, next.expires_at, row.must_change_password != 0)
                .await?;
            let write = Write::new("sessions:refresh", "session", &row.id)
                .with(
                    Statement::new("INSERT INTO guards SELECT 'used' WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE id = ?1 AND refresh_hash = ?2)")
                        .bind(&row.id)
                        .bind(&record.hash),
                )
                .with(
                    Statement::new("UPDATE sessions SET refresh_hash = ?2, spent_hash = ?3, last_used_at = ?4 WHERE id = ?1")
                        .bind(&row.id)
                        .bind(&next.hash)
                        .bind(next.spent_hash.clone())
                        .bind(next.last_used_at),
                );
            match acting.commit(write, Answer::ok(&tokens)?).await {
                // It was used by somebody else between the look and the change.
                Err(problem) if problem.status == 412 => reused(&acting, &row.id).await.and_then(|()| Err(refused())),
                other => other,
            }
        }
        Rotation::Reused => reused(&acting, &row.id).await.and_then(|()| Err(refused())),
        _ => Err(refused()),
    }
}

/// Two parties hold the same refresh token, and one of them has stolen it: the session ends.
async fn reused(acting: &Context<'_>, session: &str) -> Result<(), Problem> {
    let write = Write::new("sessions:refresh_token_reused", "session", session)
        .refused()
        .with(Statement::new("UPDATE sessions SET revoked_at = ?2 WHERE id = ?1").bind(session).bind(acting.now()));
    acting.commit(write, Answer::done()).await.map(drop)
}

pub(super) async fn sign_out(context: &Context<'_>) -> Result<Answer, Problem> {
    match (context.actor.user(), context.actor.session.as_deref()) {
        (Some(user), Some(session)) => sessions::end(context, user, session).await,
        _ => Err(conflict("no_session", "There is no session: a token of this kind is revoked, not signed out.")),
    }
}

/// Makes the first owner. The token is the Worker secret `BOOTSTRAP_TOKEN`; it works once, while there is no user.
pub(super) async fn bootstrap(context: &Context<'_>) -> Result<Answer, Problem> {
    let wanted: Bootstrap = context.body()?;
    let used = || conflict("bootstrap_done", "This deployment has its first administrator already. Sign in instead.");
    let refused = || {
        let message =
            "The bootstrap token is wrong, or the deployment has none: set the Worker secret BOOTSTRAP_TOKEN.";
        Problem::new(Kind::Authentication, "wrong_bootstrap_token", message).final_answer()
    };
    context.count_attempt("bootstrap").await?;
    let token = context.env.secret("BOOTSTRAP_TOKEN").map_err(|_| refused())?.to_string();
    let right = !token.is_empty() && bool::from(token.as_bytes().ct_eq(wanted.token.as_bytes()));
    if !right {
        // Nothing to be remembered: the same request, repeated, is refused again.
        let attempt = Write::new("users:bootstrap", "user", "").refused();
        context.acting(Actor::anonymous()).commit(attempt, Answer::done()).await?;
        return Err(refused());
    }
    let email = users::email(&wanted.email)?;
    let hash = users::hash_password(context, "password", &Secret::new(wanted.password), &email)?;
    let settings = UserSettings { name: wanted.name, status: Default::default(), metadata: Default::default() };
    let (user, insert) = users::insert(context, UserKind::Human, Some(email), Some(hash), settings, false)?;
    let owner = Statement::new("INSERT INTO role_bindings (user_id, role_id, created_at) VALUES (?1, 'owner', ?2)");
    let write = Write::new("users:bootstrap", "user", &user.id)
        .creates(&user)
        .with(Statement::new("INSERT INTO guards SELECT 'users' WHERE EXISTS (SELECT 1 FROM users)"))
        .with(insert)
        .with(owner.bind(&user.id).bind(context.now()))
        .with(
            Statement::new("INSERT INTO bootstrap (once, user_id, used_at) VALUES (1, ?1, ?2)")
                .bind(&user.id)
                .bind(context.now()),
        );
    let actor = Actor { kind: "system", name: "bootstrap".to_owned(), ..Actor::anonymous() };
    let mut acting = context.acting(actor);
    acting.idempotency.clone_from(&context.idempotency);
    acting.commit(write, Answer::json(201, &user)?).await.map_err(|problem| match problem.code.as_str() {
        "outdated" | "already_exists" => used(),
        _ => problem,
    })
}
