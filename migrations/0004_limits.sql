-- Limits and budgets: what their accounts' ledgers raise.

-- 'rule': an alert rule holds; 'limit_threshold': so much of a limit is used; 'limit_forecast': it will be exceeded.
ALTER TABLE alert_events ADD COLUMN kind TEXT NOT NULL DEFAULT 'rule'
    CHECK (kind IN ('rule', 'limit_threshold', 'limit_forecast'));
-- Of a limit: whose it is, what it limits and when it will be exceeded; JSON.
ALTER TABLE alert_events ADD COLUMN detail TEXT;
