-- The control plane: identity, roles, keys, the configuration's draft and versions, usage, the audit log.
-- Times are Unix seconds (UTC) unless the name ends in `_ms`. `revision` grows with each change and is the row's ETag.
-- JSON columns hold what is never searched by; what is searched by, or refers to another row, is a column of its own.

-- A statement that inserts here always fails, and with it the batch it stands in: the way to make a write conditional.
CREATE TABLE guards (
    failed TEXT NOT NULL CONSTRAINT guard CHECK (failed IS NULL)
) STRICT;

-- === Accounts and users ===

ALTER TABLE accounts ADD COLUMN status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended'));
ALTER TABLE accounts ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metadata));
ALTER TABLE accounts ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE accounts ADD COLUMN updated_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX accounts_created ON accounts (created_at, id);

CREATE TABLE users (
    id                   TEXT PRIMARY KEY,
    kind                 TEXT NOT NULL CHECK (kind IN ('human', 'service')),
    email                TEXT UNIQUE,                                       -- lower case; services have none
    name                 TEXT NOT NULL,
    password_hash        TEXT,                                              -- argon2id, PHC string
    must_change_password INTEGER NOT NULL DEFAULT 0 CHECK (must_change_password IN (0, 1)),
    status               TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    metadata             TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metadata)),
    last_sign_in_at      INTEGER,
    revision             INTEGER NOT NULL DEFAULT 1,
    created_at           INTEGER NOT NULL,
    updated_at           INTEGER NOT NULL,
    CHECK ((kind = 'human') = (email IS NOT NULL)),
    CHECK (kind = 'human' OR password_hash IS NULL)
) STRICT;
CREATE INDEX users_created ON users (created_at, id);

-- === Roles ===

-- Built-in roles have their permissions in the code.
CREATE TABLE roles (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL DEFAULT '',
    built_in    INTEGER NOT NULL DEFAULT 0 CHECK (built_in IN (0, 1)),
    revision    INTEGER NOT NULL DEFAULT 1,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

INSERT INTO roles (id, name, description, built_in, created_at, updated_at) VALUES
    ('owner', 'Owner', 'Everything, other owners included.', 1, 0, 0),
    ('admin', 'Administrator', 'Everything but what makes owners.', 1, 0, 0),
    ('operator', 'Operator', 'Runs the gateway: providers, models, configuration, limits, alerts.', 1, 0, 0),
    ('developer', 'Developer', 'Makes and uses keys.', 1, 0, 0),
    ('auditor', 'Auditor', 'Reads everything, the audit log included; changes nothing.', 1, 0, 0),
    ('viewer', 'Viewer', 'Reads what is not about people or security.', 1, 0, 0);

CREATE TABLE role_permissions (
    role_id    TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    permission TEXT NOT NULL,
    PRIMARY KEY (role_id, permission)
) STRICT, WITHOUT ROWID;

-- Roles that hold in every account and for everything that belongs to none.
CREATE TABLE role_bindings (
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role_id    TEXT NOT NULL REFERENCES roles (id),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, role_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX role_bindings_role ON role_bindings (role_id);

-- Who belongs to an account, with the role that holds there.
CREATE TABLE account_members (
    account_id TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role_id    TEXT NOT NULL REFERENCES roles (id),
    revision   INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX account_members_user ON account_members (user_id);
CREATE INDEX account_members_role ON account_members (role_id);

-- === Signing in ===

CREATE TABLE sessions (
    id                TEXT PRIMARY KEY,
    user_id           TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    refresh_hash      TEXT NOT NULL UNIQUE,                                 -- of the refresh token in use
    spent_hash        TEXT,                                                 -- of the one before: seen again, it was stolen
    ip                TEXT NOT NULL DEFAULT '',
    user_agent        TEXT NOT NULL DEFAULT '',
    created_at        INTEGER NOT NULL,
    last_used_at      INTEGER NOT NULL,
    expires_at        INTEGER NOT NULL,
    revoked_at        INTEGER
) STRICT;
CREATE INDEX sessions_user ON sessions (user_id, created_at);
CREATE INDEX sessions_expiry ON sessions (expires_at);
CREATE INDEX sessions_spent ON sessions (spent_hash);

CREATE TABLE service_tokens (
    id           TEXT PRIMARY KEY,                                          -- the token's public part
    user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    hash         TEXT NOT NULL UNIQUE,                                      -- HMAC-SHA-256 of the token
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER,
    created_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX service_tokens_user ON service_tokens (user_id, created_at);

-- The key pairs that sign access tokens; the private half is sealed under the deployment's master secret.
CREATE TABLE signing_keys (
    kid        TEXT PRIMARY KEY,
    public     TEXT NOT NULL,                                               -- base64url
    sealed     TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Failed sign-ins by identity and by address; the subject is an HMAC of either.
CREATE TABLE sign_in_attempts (
    subject      TEXT PRIMARY KEY,
    failures     INTEGER NOT NULL,
    first_at     INTEGER NOT NULL,
    last_at      INTEGER NOT NULL,
    locked_until INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX sign_in_attempts_age ON sign_in_attempts (last_at);

-- The first administrator is made once.
CREATE TABLE bootstrap (
    once    INTEGER PRIMARY KEY CHECK (once = 1),
    user_id TEXT NOT NULL,
    used_at INTEGER NOT NULL
) STRICT;

-- === API keys ===

CREATE TABLE api_keys_new (
    id         TEXT PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    user_id    TEXT REFERENCES users (id),
    name       TEXT NOT NULL,
    models     TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(models)),       -- names or prefixes; empty: all
    endpoints  TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(endpoints)),    -- paths; empty: all
    ip_ranges  TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(ip_ranges)),    -- CIDR; empty: all
    overrides  TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(overrides)),    -- configuration that holds for this key
    metadata   TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metadata)),
    disabled   INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    expires_at INTEGER,
    revision   INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- The secrets that a key answers to: one, and for a while two after a rotation. The secret itself is nowhere.
CREATE TABLE api_key_secrets (
    public_id  TEXT PRIMARY KEY,
    key_id     TEXT NOT NULL REFERENCES api_keys_new (id) ON DELETE CASCADE,
    hash       TEXT NOT NULL UNIQUE,                                        -- HMAC-SHA-256 of the key, hexadecimal
    expires_at INTEGER,                                                     -- set when it has been rotated out
    created_at INTEGER NOT NULL
) STRICT;

INSERT INTO api_keys_new (id, account_id, name, models, disabled, expires_at, created_at, updated_at)
    SELECT public_id, account_id, name, models, disabled, expires_at, created_at, created_at FROM api_keys;
INSERT INTO api_key_secrets (public_id, key_id, hash, created_at)
    SELECT public_id, public_id, hash, created_at FROM api_keys;
DROP TABLE api_keys;
ALTER TABLE api_keys_new RENAME TO api_keys;
CREATE INDEX api_keys_account ON api_keys (account_id, created_at, id);
CREATE INDEX api_keys_user ON api_keys (user_id);
CREATE INDEX api_keys_created ON api_keys (created_at, id);
CREATE INDEX api_key_secrets_key ON api_key_secrets (key_id);

-- Limits; one on `cost` is a budget (in nano-dollars).
CREATE TABLE limits (
    id         TEXT PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    user_id    TEXT REFERENCES users (id) ON DELETE CASCADE,                -- neither user nor key: the whole account
    key_id     TEXT REFERENCES api_keys (id) ON DELETE CASCADE,
    model      TEXT,                                                        -- only for this model
    dimension  TEXT NOT NULL CHECK (dimension IN
                   ('requests', 'input_tokens', 'output_tokens', 'total_tokens', 'cost', 'concurrency')),
    period     TEXT NOT NULL CHECK (period IN ('second', 'minute', 'hour', 'day', 'week', 'month', 'total', 'none')),
    amount     INTEGER NOT NULL CHECK (amount >= 0),
    burst      INTEGER CHECK (burst >= 1),
    mode       TEXT NOT NULL DEFAULT 'enforce' CHECK (mode IN ('enforce', 'shadow')),
    revision   INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CHECK (user_id IS NULL OR key_id IS NULL),
    CHECK ((dimension = 'concurrency') = (period = 'none'))
) STRICT;
CREATE INDEX limits_account ON limits (account_id, created_at, id);
CREATE INDEX limits_user ON limits (user_id);
CREATE INDEX limits_key ON limits (key_id);

-- === The configuration's draft ===

CREATE TABLE provider_credentials (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    sealed        TEXT,                                                     -- AES-GCM under the master secret
    worker_secret TEXT,                                                     -- or the name of a Worker secret
    hint          TEXT NOT NULL DEFAULT '',                                 -- its last characters, to tell it by
    revision      INTEGER NOT NULL DEFAULT 1,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    CHECK ((sealed IS NULL) <> (worker_secret IS NULL))
) STRICT;
CREATE INDEX provider_credentials_created ON provider_credentials (created_at, id);

CREATE TABLE providers (
    name          TEXT PRIMARY KEY,
    credential_id TEXT REFERENCES provider_credentials (id),
    document      TEXT NOT NULL CHECK (json_valid(document)),
    revision      INTEGER NOT NULL DEFAULT 1,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX providers_credential ON providers (credential_id);
CREATE INDEX providers_created ON providers (created_at, name);

-- A deployment of a model at a provider.
CREATE TABLE models (
    name       TEXT PRIMARY KEY,
    provider   TEXT NOT NULL REFERENCES providers (name),
    document   TEXT NOT NULL CHECK (json_valid(document)),
    revision   INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX models_provider ON models (provider);
CREATE INDEX models_created ON models (created_at, name);

CREATE TABLE routes (
    name       TEXT PRIMARY KEY,
    document   TEXT NOT NULL CHECK (json_valid(document)),
    revision   INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX routes_created ON routes (created_at, name);

CREATE TABLE route_targets (
    route    TEXT NOT NULL REFERENCES routes (name) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    model    TEXT NOT NULL REFERENCES models (name),
    PRIMARY KEY (route, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX route_targets_model ON route_targets (model);

CREATE TABLE prices (
    name       TEXT PRIMARY KEY REFERENCES models (name),
    document   TEXT NOT NULL CHECK (json_valid(document)),
    revision   INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX prices_created ON prices (created_at, name);

-- Everything else that can be configured.
CREATE TABLE settings (
    once       INTEGER PRIMARY KEY CHECK (once = 1),
    document   TEXT NOT NULL CHECK (json_valid(document)),
    revision   INTEGER NOT NULL DEFAULT 1,
    updated_at INTEGER NOT NULL
) STRICT;
INSERT INTO settings (once, document, updated_at) VALUES (1, '{}', 0);

-- === Published versions ===

DROP TABLE config_versions;
CREATE TABLE config_versions (
    sequence      INTEGER PRIMARY KEY,                                      -- the highest is the current one
    version       TEXT NOT NULL UNIQUE,                                     -- sequence and content hash
    parent        INTEGER REFERENCES config_versions (sequence),
    restored_from INTEGER REFERENCES config_versions (sequence),
    document      TEXT NOT NULL CHECK (json_valid(document)),
    author        TEXT NOT NULL,
    comment       TEXT NOT NULL DEFAULT '',
    created_at    INTEGER NOT NULL
) STRICT;
CREATE TRIGGER config_versions_stay BEFORE UPDATE ON config_versions
    BEGIN SELECT RAISE(ABORT, 'a published version never changes'); END;
CREATE TRIGGER config_versions_remain BEFORE DELETE ON config_versions
    BEGIN SELECT RAISE(ABORT, 'a published version never changes'); END;

-- === Alerts and health ===

CREATE TABLE alert_rules (
    id             TEXT PRIMARY KEY,
    account_id     TEXT REFERENCES accounts (id) ON DELETE CASCADE,         -- null: the whole deployment
    name           TEXT NOT NULL,
    metric         TEXT NOT NULL CHECK (metric IN ('requests', 'errors', 'error_percent', 'cost', 'total_tokens', 'unpriced')),
    threshold      INTEGER NOT NULL CHECK (threshold >= 0),
    window_minutes INTEGER NOT NULL CHECK (window_minutes BETWEEN 1 AND 43200),
    model          TEXT,
    provider       TEXT,
    enabled        INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    revision       INTEGER NOT NULL DEFAULT 1,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX alert_rules_account ON alert_rules (account_id, created_at, id);
CREATE INDEX alert_rules_created ON alert_rules (created_at, id);

CREATE TABLE alert_events (
    id          TEXT PRIMARY KEY,
    rule_id     TEXT NOT NULL,                                              -- outlives the rule
    account_id  TEXT,
    name        TEXT NOT NULL,
    metric      TEXT NOT NULL,
    threshold   INTEGER NOT NULL,
    value       INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    resolved_at INTEGER
) STRICT;
CREATE UNIQUE INDEX alert_events_open ON alert_events (rule_id) WHERE resolved_at IS NULL;
CREATE INDEX alert_events_started ON alert_events (started_at, id);
CREATE INDEX alert_events_account ON alert_events (account_id, started_at, id);

CREATE TABLE health_history (
    id         TEXT PRIMARY KEY,
    provider   TEXT NOT NULL,
    source     TEXT NOT NULL CHECK (source IN ('test', 'probe')),
    healthy    INTEGER NOT NULL CHECK (healthy IN (0, 1)),
    latency_ms INTEGER NOT NULL,
    detail     TEXT NOT NULL DEFAULT '',
    at         INTEGER NOT NULL
) STRICT;
CREATE INDEX health_history_provider ON health_history (provider, at, id);
CREATE INDEX health_history_at ON health_history (at, id);

-- === Usage ===

-- Usage by the minute, for queries and alerts. It outlives keys, users and models, hence no references.
-- Tokens are disjoint counts; cost is in nano-dollars.
CREATE TABLE usage (
    minute            INTEGER NOT NULL,                                     -- Unix minutes
    account_id        TEXT NOT NULL,
    key_id            TEXT NOT NULL,
    user_id           TEXT NOT NULL,                                        -- empty: none
    model             TEXT NOT NULL,
    provider          TEXT NOT NULL,
    requests          INTEGER NOT NULL,
    errors            INTEGER NOT NULL,
    unpriced          INTEGER NOT NULL,                                     -- requests whose model has no price
    estimated         INTEGER NOT NULL,                                     -- requests whose usage the provider did not tell
    input             INTEGER NOT NULL,
    cache_read        INTEGER NOT NULL,
    cache_write_5m    INTEGER NOT NULL,
    cache_write_1h    INTEGER NOT NULL,
    input_audio       INTEGER NOT NULL,
    output            INTEGER NOT NULL,
    output_reasoning  INTEGER NOT NULL,
    output_audio      INTEGER NOT NULL,
    cost_nanos        INTEGER NOT NULL,
    PRIMARY KEY (account_id, minute, key_id, user_id, model, provider)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_minute ON usage (minute);

-- What an object has flushed: a batch that comes again changes nothing.
CREATE TABLE usage_batches (
    object     TEXT NOT NULL,
    sequence   INTEGER NOT NULL,
    applied_at INTEGER NOT NULL,
    PRIMARY KEY (object, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_batches_age ON usage_batches (applied_at);

CREATE TABLE request_records (
    request_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    at_ms      INTEGER NOT NULL,
    key_id     TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    model      TEXT NOT NULL,
    provider   TEXT NOT NULL,
    status     INTEGER NOT NULL,
    outcome    TEXT NOT NULL,
    cost_nanos INTEGER,                                                     -- null: unpriced
    record     TEXT NOT NULL CHECK (json_valid(record)),
    PRIMARY KEY (account_id, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX request_records_account ON request_records (account_id, at_ms, request_id);
CREATE INDEX request_records_at ON request_records (at_ms, request_id);
CREATE INDEX request_records_key ON request_records (key_id, at_ms);

-- === Writing ===

-- What still has to reach objects and KV. A row is deleted once it has.
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    effect     TEXT NOT NULL CHECK (json_valid(effect)),
    attempts   INTEGER NOT NULL DEFAULT 0,
    last_error TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL
) STRICT;

-- Answers to creating requests, so that one that is sent again creates nothing twice. The answer is sealed: it may
-- hold a secret that is shown once.
CREATE TABLE idempotency_keys (
    id          TEXT PRIMARY KEY,                                           -- HMAC of caller and key
    fingerprint TEXT NOT NULL,                                              -- of the request
    status      INTEGER NOT NULL,
    sealed      TEXT NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- Who did what. Each row's hash covers its content and the hash of the row before, under a key that the database does
-- not have: nothing can be changed, inserted or taken out unnoticed.
CREATE TABLE audit_log (
    sequence    INTEGER PRIMARY KEY,
    at_ms       INTEGER NOT NULL,
    actor_kind  TEXT NOT NULL,                                              -- user, service, external, system, anonymous
    actor_id    TEXT NOT NULL,
    actor_name  TEXT NOT NULL,
    action      TEXT NOT NULL,                                              -- resource:action
    outcome     TEXT NOT NULL CHECK (outcome IN ('done', 'refused')),
    target_kind TEXT NOT NULL,
    target_id   TEXT NOT NULL,
    account_id  TEXT NOT NULL,                                              -- empty: none
    before      TEXT NOT NULL CHECK (json_valid(before)),
    after       TEXT NOT NULL CHECK (json_valid(after)),
    ip          TEXT NOT NULL,
    user_agent  TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    hash        TEXT NOT NULL UNIQUE
) STRICT;
CREATE INDEX audit_log_actor ON audit_log (actor_id, sequence);
CREATE INDEX audit_log_action ON audit_log (action, sequence);
CREATE INDEX audit_log_target ON audit_log (target_id, sequence);
CREATE INDEX audit_log_account ON audit_log (account_id, sequence);
CREATE INDEX audit_log_at ON audit_log (at_ms);
CREATE TRIGGER audit_log_stays BEFORE UPDATE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_log_remains BEFORE DELETE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
