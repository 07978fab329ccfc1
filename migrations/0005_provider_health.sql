-- Health of providers: what operators set, what the gateway has seen, and what it raises about them.

-- What operators have set of a provider; no row: nothing.
CREATE TABLE provider_states (
    provider   TEXT PRIMARY KEY,
    state      TEXT NOT NULL CHECK (state IN ('active', 'draining', 'maintenance')),
    reason     TEXT NOT NULL DEFAULT '',
    until      INTEGER,                                                     -- then it is active again
    revision   INTEGER NOT NULL DEFAULT 1,
    updated_at INTEGER NOT NULL
) STRICT;

-- 'passive': what became of requests has changed a breaker's state; healthy: it gets requests as usual.
CREATE TABLE health_history_new (
    id         TEXT PRIMARY KEY,
    provider   TEXT NOT NULL,
    source     TEXT NOT NULL CHECK (source IN ('test', 'probe', 'passive')),
    healthy    INTEGER NOT NULL CHECK (healthy IN (0, 1)),
    latency_ms INTEGER NOT NULL,
    detail     TEXT NOT NULL DEFAULT '',
    at         INTEGER NOT NULL,
    model      TEXT,                                                        -- a breaker's, if it is not the provider's
    state      TEXT,                                                        -- the breaker's new one
    cost_nanos INTEGER                                                      -- what a probe cost; null: not known
) STRICT;
INSERT INTO health_history_new (id, provider, source, healthy, latency_ms, detail, at)
    SELECT id, provider, source, healthy, latency_ms, detail, at FROM health_history;
DROP TABLE health_history;
ALTER TABLE health_history_new RENAME TO health_history;
CREATE INDEX health_history_provider ON health_history (provider, at, id);
CREATE INDEX health_history_at ON health_history (at, id);

-- Further kinds: 'provider_auth': a provider refuses its credential; 'provider_quota': it wants to be paid;
-- 'provider_down': it, or a model there, does not answer as it should. They last until that is over.
CREATE TABLE alert_events_new (
    id          TEXT PRIMARY KEY,
    rule_id     TEXT NOT NULL,                                              -- outlives the rule
    account_id  TEXT,
    name        TEXT NOT NULL,
    metric      TEXT NOT NULL,
    threshold   INTEGER NOT NULL,
    value       INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    resolved_at INTEGER,
    kind        TEXT NOT NULL DEFAULT 'rule' CHECK (kind IN
                    ('rule', 'limit_threshold', 'limit_forecast', 'provider_auth', 'provider_quota', 'provider_down')),
    detail      TEXT                                                        -- of a limit or a provider; JSON
) STRICT;
INSERT INTO alert_events_new
    (id, rule_id, account_id, name, metric, threshold, value, started_at, resolved_at, kind, detail)
    SELECT id, rule_id, account_id, name, metric, threshold, value, started_at, resolved_at, kind, detail
    FROM alert_events;
DROP TABLE alert_events;
ALTER TABLE alert_events_new RENAME TO alert_events;
CREATE UNIQUE INDEX alert_events_open ON alert_events (rule_id) WHERE resolved_at IS NULL;
CREATE INDEX alert_events_started ON alert_events (started_at, id);
CREATE INDEX alert_events_account ON alert_events (account_id, started_at, id);
