// Checks of what concerns every request: `http`, `cors`, `auth`, `timeouts`, `logging`, `records`, `retention`.

import { PATHS, send, sleep } from "../support.mjs";
import { check, shownBy } from "./table.mjs";
import { arrived, chat, freshKey, isLogged, logged, models, now, object, stream, token, within } from "./tools.mjs";

const padding = (bytes) => ({ metadata: { padding: "x".repeat(bytes) } });

// === http ===

check("http.max_body_bytes", { plain: [undefined, 200], tight: [2_000, 413] }, async (at) =>
  (await chat(at, "gpt-test", { fields: padding(3_000) })).status);

/** Sends a form, part after part as over a slow line. */
const form = (at, parts) => {
  const pieces = parts.map(([head, value]) => `--B\r\ncontent-disposition: form-data; name=${head}\r\n\r\n${value}\r\n`);
  return send({
    url: `${at.url}/v1/audio/transcriptions`,
    method: "POST",
    headers: { "content-type": "multipart/form-data; boundary=B", authorization: `Bearer ${at.key}` },
    body: (async function* () {
      for (const piece of pieces) {
        yield piece;
        await sleep(100);
      }
      yield "--B--\r\n";
    })(),
    fresh: true,
  });
};
const sound = (bytes) => ['"file"; filename="a.wav"', "x".repeat(bytes)];

check("http.max_multipart_bytes", { plain: [undefined, 200], tight: [2_000, 413] }, async (at) =>
  (await form(at, [['"model"', "gpt-test"], sound(3_000)])).status);

check("http.multipart_hold_bytes", { plain: [undefined, 200], tight: [1_024, 400] }, async (at) =>
  (await form(at, [sound(1_300), ['"model"', "gpt-test"]])).status);

check("http.max_json_depth", { plain: [undefined, 200], tight: [8, 400] }, async (at) =>
  (await chat(at, "gpt-test", { fields: { metadata: JSON.parse(`${"[".repeat(12)}${"]".repeat(12)}`) } })).status);

check("http.compress_min_bytes", { plain: [100_000, undefined], tight: [0, "gzip"] }, async (at) =>
  (await models(at, at.key, { "accept-encoding": "gzip" })).headers["content-encoding"]);

check("http.max_reply_bytes", { plain: [undefined, 200], tight: [2_000, 502] }, async (at) =>
  (await chat(at, "gpt-test", { directives: { big_reply: 4_000 } })).status);

check("http.max_error_bytes", { plain: [undefined, true], tight: [1_024, false] }, async (at) => {
  const reply = await chat(at, "gpt-test", { directives: { status: 400, error_message: "x".repeat(3_000) } });
  return reply.text.includes("x".repeat(2_000));
});

check("http.request_body_wait_ms", { plain: [undefined, 200], tight: [200, 408] }, async (at) => {
  const body = JSON.stringify({ model: "gpt-test", messages: [{ role: "user", content: "Well?" }] });
  const reply = await send({
    url: `${at.url}${PATHS.chat}`,
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${at.key}` },
    fresh: true,
    body: (async function* () {
      yield body.slice(0, 10);
      await sleep(900);
      yield body.slice(10);
    })(),
  });
  return reply.status;
});

check("http.accept_request_id", { plain: [undefined, true], quiet: [false, false] }, async (at) => {
  const reply = await chat(at, "gpt-test");
  return reply.headers["x-request-id"] === reply.id;
});

check("http.security_headers", { plain: [undefined, "nosniff"], tight: [false, undefined] }, async (at) =>
  (await send({ url: `${at.url}/health` })).headers["x-content-type-options"]);

check("http.hsts_seconds", { plain: [undefined, undefined], tight: [60, "max-age=60"] }, async (at) =>
  (await send({ url: `${at.url}/health` })).headers["strict-transport-security"]);

check("http.disclose", { plain: [undefined, "openai"], tight: [false, undefined] }, async (at) =>
  (await chat(at, "gpt-test")).headers["x-gateway-provider"]);

check("http.allow_timeout_header", { plain: [undefined, 504], tight: [false, 200] }, async (at) =>
  (await chat(at, "gpt-test", { directives: { ttfb_ms: 900 }, headers: { "x-gateway-timeout-ms": "200" } })).status);

check("http.strict_params", { plain: [undefined, [200, "seed"]], tight: [true, [400, undefined]] }, async (at) => {
  const { status, headers } = await chat(at, "talkative", { fields: { seed: 7 } });
  return [status, headers["x-gateway-dropped-params"]];
});

check("http.forward_headers", { plain: [undefined, undefined], tight: [["x-team"], "blue"] }, async (at) =>
  (await arrived(at, "gpt-test", { headers: { "x-team": "blue" } })).headers["x-team"]);

// === cors ===

const ORIGIN = "https://app.example";

const preflight = async (at) => {
  const headers = {
    origin: ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "x-one, x-two",
  };
  return (await send({ url: `${at.url}${PATHS.chat}`, method: "OPTIONS", headers })).headers;
};
const fromPage = async (at) => (await models(at, at.key, { origin: ORIGIN })).headers;

check("cors.allowed_origins", {
  plain: [undefined, undefined],
  tight: [[ORIGIN], ORIGIN],
  strict: [[ORIGIN], ORIGIN],
}, async (at) =>
  (await fromPage(at))["access-control-allow-origin"]);

check("cors.allowed_headers", { tight: [undefined, "x-one, x-two"], strict: [["x-one"], "x-one"] }, async (at) =>
  (await preflight(at))["access-control-allow-headers"]);

check("cors.exposed_headers", { tight: [undefined, false], strict: [["x-shown"], true] }, async (at) =>
  (await fromPage(at))["access-control-expose-headers"].includes("x-shown"));

check("cors.max_age_seconds", { tight: [undefined, "7200"], strict: [5, "5"] }, async (at) =>
  (await preflight(at))["access-control-max-age"]);

check("cors.allow_credentials", { tight: [undefined, undefined], strict: [true, "true"] }, async (at) =>
  (await fromPage(at))["access-control-allow-credentials"]);

// === auth ===

check("auth.key_cache_ms", { plain: [60_000, 200], tight: [0, 401] }, async (at) => {
  const made = await freshKey(at);
  await made.put();
  if ((await models(at, made.key)).status !== 200) return "never good";
  await made.put({ disabled: true });
  return (await models(at, made.key)).status;
});

check("auth.negative_cache_ms", { plain: [60_000, 401], tight: [0, 200] }, async (at) => {
  const made = await freshKey(at);
  if ((await models(at, made.key)).status !== 401) return "good before it was made";
  await made.put();
  return (await models(at, made.key)).status;
});

check("auth.revocation_check_ms", { plain: [undefined, true], tight: [0, false] }, async (at, phase) => {
  // Whether a key that has just been revoked is still good; on a slow machine it takes more than one look to find out.
  for (let nth = 0; nth < 3; nth += 1) {
    const made = await freshKey(at, `revoked-${phase}-${nth}`);
    await made.put();
    // The first call starts the asking; the second's knowledge is from before the change.
    await models(at, made.key);
    await sleep(1_100);
    await models(at, made.key);
    const state = { records: { [made.id]: { ...made.record, disabled: true } } };
    await object(at, "LEDGER", `revoked-${phase}-${nth}`, "PUT", "/keys", { key_id: "key_1", revision: 1, state });
    if ((await models(at, made.key)).status === 200) return true;
  }
  return false;
});

shownBy("tests/e2e/objects.test.mjs", "a key is judged by the policy when its ledger hangs: ${policy}", [
  "auth.when_ledger_unreachable",
]);

check("auth.accept_x_api_key", { plain: [undefined, 200], tight: [false, 401] }, async (at) =>
  (await send({ url: `${at.url}/v1/models`, headers: { "x-api-key": at.key } })).status);

check("auth.max_token_bytes", { plain: [undefined, 200], tight: [1_024, 401] }, async (at) =>
  (await models(at, token("steady", at.first, { padding: "x".repeat(2_000) }))).status);

check("auth.leeway_seconds", { plain: [undefined, 200], tight: [0, 401] }, async (at) =>
  (await models(at, token("steady", at.first, { exp: now() - 5 }))).status);

// An hour is the default and a minute the least: too long for a test with a real clock.
shownBy("src/auth/jwks_cache.rs", "a_set_is_fetched_once_and_again_when_it_is_old", ["auth.jwks_cache_seconds"]);

check("auth.jwks_refresh_min_seconds", { plain: [undefined, 401], tight: [1, 200] }, async (at, phase) => {
  if ((await models(at, token("rotating", at.first))).status !== 200) return "never good";
  at.published[`rotating-${phase}`].push(at.second.jwk);
  await sleep(1_200);
  return (await models(at, token("rotating", at.second))).status;
});

check("auth.jwks_timeout_ms", { plain: [undefined, 200], tight: [800, 503] }, async (at) =>
  (await models(at, token("slow", at.first))).status);

check("auth.jwks_max_bytes", { plain: [undefined, 200], tight: [1_024, 503] }, async (at) =>
  (await models(at, token("large", at.first))).status);

// === auth.issuers ===

const entry = async (at, name, claims, key = at.first) => (await models(at, token(name, key, claims))).status;
/** Whom the log names for a request with an issuer's token. */
const who = async (at, name, claims) => logged(at, "gpt-test", { key: token(name, at.first, claims) });

check("auth.issuers[renamed].issuer", { plain: [undefined, 200], tight: ["https://other.example", 401] }, (at) =>
  entry(at, "renamed"));
check("auth.issuers[audience].audiences", { plain: [undefined, 200], tight: [["other"], 401] }, (at) =>
  entry(at, "audience"));
check("auth.issuers[algorithm].algorithms", { plain: [undefined, 200], tight: [["ES256"], 401] }, (at) =>
  entry(at, "algorithm"));
check("auth.issuers[plane].planes", { plain: [undefined, 200], tight: [["admin"], 401] }, (at) => entry(at, "plane"));
check("auth.issuers[required].required_claims", { plain: [undefined, 200], tight: [{ tenant: "acme" }, 401] }, (at) =>
  entry(at, "required", { tenant: "other" }));
check("auth.issuers[aged].max_age_seconds", { plain: [undefined, 200], tight: [60, 401] }, (at) =>
  entry(at, "aged", { iat: now() - 300 }));
check("auth.issuers[subject].subject_claim", {
  plain: [undefined, "user-1"],
  tight: ["email", "ada@example.com"],
}, async (at) =>
  (await who(at, "subject", { email: "ada@example.com" })).key_id.split(":").at(-1));
check("auth.issuers[claimed].account_claim", { plain: [undefined, "user-1"], tight: ["team", "blue"] }, async (at) =>
  (await who(at, "claimed")).account);
check("auth.issuers[fixed].account", { plain: [undefined, "user-1"], tight: ["everybody", "everybody"] }, async (at) =>
  (await who(at, "fixed")).account);
check("auth.issuers[personal].user_claim", { plain: [undefined, undefined], tight: ["uid", "usr_ada"] }, async (at) =>
  (await who(at, "personal", { uid: "usr_ada" })).user);
check("auth.issuers[bound].models", { plain: [undefined, 200], tight: [["claude-*"], 404] }, async (at) =>
  (await chat(at, "gpt-test", { key: token("bound", at.first) })).status);
check("auth.issuers[claims].models_claim", { plain: [undefined, 200], tight: ["may", 404] }, async (at) =>
  (await chat(at, "gpt-test", { key: token("claims", at.first, { may: ["claude-test"] }) })).status);

const signedBy = async (at, name) => [
  (await models(at, token(name, at.first))).status,
  (await models(at, token(name, at.second))).status,
];
check("auth.issuers[embedded].jwks", {
  plain: [(at) => ({ keys: [at.first.jwk] }), [200, 401]],
  tight: [(at) => ({ keys: [at.second.jwk] }), [401, 200]],
}, (at) => signedBy(at, "embedded"));
check("auth.issuers[fetched].jwks_uri", {
  plain: [(at) => `${at.keyServer.url}/first`, [200, 401]],
  tight: [(at) => `${at.keyServer.url}/second`, [401, 200]],
}, (at) => signedBy(at, "fetched"));

const admin = async (at, name, claims) => {
  const headers = { authorization: `Bearer ${token(name, at.first, claims)}`, "cf-connecting-ip": at.address() };
  const reply = await send({ url: `${at.url}/admin/v1/me`, headers });
  return reply.json.permissions.includes("audit:read");
};
check("auth.issuers[roles].roles", {
  plain: [{ boss: [{ role: "viewer" }] }, false],
  tight: [{ boss: [{ role: "auditor" }] }, true],
}, (at) => admin(at, "roles", { groups: "boss" }));
check("auth.issuers[groups].roles_claim", { plain: ["groups", false], tight: ["realm.groups", true] }, (at) =>
  admin(at, "groups", { groups: "nobody", realm: { groups: ["boss"] } }));

// === timeouts ===

check("timeouts.first_byte_ms", { plain: [undefined, 200], sparse: [500, 504] }, async (at) =>
  (await stream(at, "heir", { directives: { ttfb_ms: 1_500 } })).status);
check("timeouts.idle_ms", { plain: [undefined, 0], sparse: [500, 1] }, async (at) =>
  (await stream(at, "heir", { directives: { chunks: 2, gap_ms: 1_500 } })).errors.length);
check("timeouts.total_ms", { plain: [undefined, 200], sparse: [900, 504] }, async (at) =>
  (await chat(at, "heir", { directives: { ttfb_ms: 2_000 } })).status);

// === logging ===

check("logging.level", { plain: [undefined, true], strict: ["error", false] }, async (at) =>
  isLogged(at, (await chat(at, "gpt-test")).id));
check("logging.log_successes", { plain: [undefined, true], sparse: [false, false] }, async (at) =>
  isLogged(at, (await chat(at, "gpt-test")).id));
check("logging.sample_percent", { plain: [undefined, true], frugal: [0, false] }, async (at) =>
  isLogged(at, (await chat(at, "priced-input")).id));
check("logging.client_ip", { plain: [undefined, undefined], tight: ["full", "203.0.113.9"] }, async (at) =>
  (await logged(at, "gpt-test", { headers: { "cf-connecting-ip": "203.0.113.9" } })).client_ip);
check("logging.user_agent", { plain: [undefined, undefined], tight: [true, "some-sdk/1.0"] }, async (at) =>
  (await logged(at, "gpt-test", { headers: { "user-agent": "some-sdk/1.0" } })).user_agent);
check("logging.slow_ms", { plain: [undefined, "info"], tight: [50, "warn"] }, async (at) =>
  (await logged(at, "gpt-test", { directives: { ttfb_ms: 150 } })).level);

// === records ===

/** The record that a request leaves, if it does within four seconds. */
async function recordOf(at, name, phase, headers = {}) {
  const made = await freshKey(at, `${name}-${phase}`);
  await made.put();
  const { id } = await chat(at, "priced-input", { key: made.key, headers });
  const seek = at.gateway.db.prepare("SELECT record FROM request_records WHERE request_id = ?1").bind(id);
  let row;
  await within(4_000, async () => (row = await seek.first()));
  return row ? JSON.parse(row.record) : undefined;
}

check("records.mode", {
  plain: ["all", true],
  strict: ["off", false],
  frugal: ["sampled", false],
  sparse: ["sampled", true],
}, async (at, phase) =>
  (await recordOf(at, "mode", phase)) !== undefined);
check("records.sample_percent", { frugal: [0, false], sparse: [100, true] }, async (at, phase) =>
  (await recordOf(at, "sample", phase)) !== undefined);
check("records.flush_ms", { plain: [100, true], sparse: [100, true], tight: [60_000, false] }, async (at, phase) =>
  (await recordOf(at, "flush", phase)) !== undefined);
check("records.metadata", { plain: [undefined, { job: "j1" }], sparse: [false, undefined] }, async (at, phase) =>
  (await recordOf(at, "metadata", phase, { "x-gateway-metadata": '{"job":"j1"}' }))?.metadata);

// === retention ===

/** Whether a row of three days ago outlives what is done every minute. */
const outlives = (insert, seek) => async (at, phase) => {
  const then = now() - 3 * 86_400;
  await at.gateway.db.prepare(insert).bind(`old-${phase}`, then, at.ownerId).run();
  await at.gateway.scheduled();
  return (await at.gateway.db.prepare(seek).bind(`old-${phase}`).first()) !== null;
};
const KEPT = { plain: [undefined, true], strict: [1, false] };

check("retention.request_records_days", KEPT, outlives(
  "INSERT INTO request_records SELECT ?1, 'a', CAST(?2 * 1000 AS INTEGER), 'k', '', 'm', 'p', 200, 'completed', 1, '{}' WHERE ?3 <> ''",
  "SELECT 1 FROM request_records WHERE request_id = ?1",
));
check("retention.usage_days", KEPT, outlives(
  "INSERT INTO usage SELECT CAST(?2 / 60 AS INTEGER), 'a', ?1, '', 'm', 'p', 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0 WHERE ?3 <> ''",
  "SELECT 1 FROM usage WHERE key_id = ?1",
));
check("retention.health_history_days", KEPT, outlives(
  "INSERT INTO health_history (id, provider, source, healthy, latency_ms, detail, at) SELECT ?1, 'p', 'test', 1, 5, '', ?2 WHERE ?3 <> ''",
  "SELECT 1 FROM health_history WHERE id = ?1",
));
check("retention.alert_history_days", KEPT, outlives(
  "INSERT INTO alert_events (id, rule_id, account_id, name, metric, threshold, value, started_at, resolved_at) SELECT ?1, 'r', NULL, 'n', 'requests', 1, 2, ?2, ?2 WHERE ?3 <> ''",
  "SELECT 1 FROM alert_events WHERE id = ?1",
));
check("retention.sessions_days", KEPT, outlives(
  "INSERT INTO sessions (id, user_id, refresh_hash, created_at, last_used_at, expires_at) SELECT ?1, ?3, ?1, ?2, ?2, ?2",
  "SELECT 1 FROM sessions WHERE id = ?1",
));

// === limits ===

const LIMITS = "tests/e2e/limits-config.test.mjs";
const terms = (list) => ["model", "dimension", "period", "amount", "burst", "mode"].map((name) => `${list}[].${name}`);

shownBy(LIMITS, "hold for each key by itself", terms("limits.per_key"));
shownBy(LIMITS, "hold for each user with all keys", terms("limits.per_user"));
shownBy(LIMITS, "hold for each account with all keys", terms("limits.per_account"));
shownBy(LIMITS, "of a provider hold for all accounts together", terms("providers.narrow.limits"));
shownBy(LIMITS, "are not needed for a provider's requests to be counted", ["providers.counted.count_connections"]);
shownBy(LIMITS, "rates are looked after as when_unreachable_rates says: ${policy}", ["limits.when_unreachable_rates"]);
shownBy(LIMITS, "budgets are looked after as when_unreachable_cost says: ${policy}", [
  "limits.when_unreachable_cost",
  "limits.grace_cost",
]);
shownBy(LIMITS, "spare calls, and count to the last request", ["limits.lease_ms", "limits.lease_share_percent"]);
shownBy(LIMITS, "follows output_quantile_percent once replies are known", ["limits.output_quantile_percent"]);
shownBy(LIMITS, "is first_output_tokens while nothing is known, and never more than the caller allows", [
  "limits.first_output_tokens",
]);
shownBy(LIMITS, "is charged when its time is over: the request's own and reservation_slack_ms", [
  "limits.reservation_slack_ms",
]);
shownBy(LIMITS, "is as much as limits.disclose says: ${disclose}", ["limits.disclose"]);
shownBy(LIMITS, "of quotas is raised at alert_thresholds", ["limits.alert_thresholds"]);
shownBy(LIMITS, "open requests are counted without limits where limits.count_connections says so", [
  "limits.count_connections",
]);
