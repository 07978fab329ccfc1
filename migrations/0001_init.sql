-- The control plane's tables. Times are Unix seconds, UTC.

CREATE TABLE accounts (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    created_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;

-- An API key's record. The key itself is nowhere: its owner has the only copy.
CREATE TABLE api_keys (
    public_id  TEXT PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    name       TEXT NOT NULL,
    hash       TEXT NOT NULL UNIQUE,                                     -- HMAC-SHA-256 of the key, in hexadecimal
    models     TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(models)),    -- JSON list of allowed models; empty: all
    disabled   INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    expires_at INTEGER,
    created_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;

CREATE INDEX api_keys_account ON api_keys (account_id);

-- Compiled configurations; a row never changes.
CREATE TABLE config_versions (
    version    TEXT PRIMARY KEY,                                         -- content hash
    snapshot   TEXT NOT NULL CHECK (json_valid(snapshot)),
    author     TEXT NOT NULL DEFAULT '',
    comment    TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;

CREATE INDEX config_versions_created ON config_versions (created_at);
