// The Durable Objects and what depends on them: how fast a configuration, a revoked key and a suspended account are
// known, what counts when an object cannot be reached, usage that is counted exactly once, retention and alerts.

import assert from "node:assert/strict";
import { createCipheriv, hkdfSync, randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { compileConfig, mintKey } from "./harness.mjs";
import {
  KEY_HASH_SECRET,
  MOCK,
  PROVIDER_SECRETS,
  ask,
  assertNothingLeaked,
  config,
  eventually,
  freshId,
  received,
  send,
  sleep,
  start,
} from "./support.mjs";

/** A key that the ledger knows is dead everywhere after so long, in milliseconds. */
const REVOKED_WITHIN = 1_000;
/** A configuration is known to a busy isolate after so long, in milliseconds. */
const PUBLISHED_WITHIN = 2_000;

/** Asks an object, as the Worker does. */
async function call(gateway, binding, name, method, where, body) {
  const stub = await gateway.object(binding, name);
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const reply = await stub.fetch(`https://object${where}`, { method, body: text });
  assert.equal(reply.status, 200, `${method} ${where}`);
  return reply.json();
}

const putKey = (gateway, account, key_id, revision, state) =>
  call(gateway, "LEDGER", account, "PUT", "/keys", { key_id, revision, state });

const putAccount = (gateway, account, revision, suspended) =>
  call(gateway, "LEDGER", account, "PUT", "/account", { revision, suspended, limits: null });

const ledger = (gateway, account) => call(gateway, "LEDGER", account, "GET", "/status");

/** A key with its record; `put` puts it into KV. */
async function mint(gateway, options = {}) {
  const { key, entry } = await mintKey({ name: "made", account: "team", ...options }, KEY_HASH_SECRET);
  const record = JSON.parse(entry.value);
  const id = entry.name.replace("key:", "");
  return { key, id, record, put: (more = {}) => gateway.kv.put(entry.name, JSON.stringify({ ...record, ...more })) };
}

function chat(at, { key = at.key, model = "gpt-test", headers = {}, ...more } = {}) {
  return send({
    url: `${at.url}/v1/chat/completions`,
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${key}`, ...headers },
    body: JSON.stringify({ model, messages: ask({ text: "well" }), ...more }),
  });
}

const models = (at, key = at.key) => send({ url: `${at.url}/v1/models`, headers: { authorization: `Bearer ${key}` } });

/**
 * Sends requests without a pause until one is as wanted; the milliseconds since `from` at which that one was sent. Those
 * that are sent later must all be as wanted as well.
 */
async function timeUntil(request, wanted, from, limit) {
  let first;
  while (first === undefined || performance.now() < first + 300) {
    const sent = performance.now();
    const reply = await request();
    if (wanted(reply)) first ??= sent;
    else assert.equal(first, undefined, `a reply with status ${reply.status} came after one that was as wanted`);
    assert.ok(first !== undefined || sent - from < limit * 3, "never as wanted");
    await sleep(10);
  }
  return first - from;
}

async function startWith(more = {}, options = {}) {
  return start({ config: config({ records: { flush_ms: 100 }, ...more }), ...options });
}

describe("configuration from the Hub", () => {
  let at;
  before(async () => (at = await startWith()));
  after(() => at?.stop());

  let sequence = 0;
  /** Publishes a configuration that differs from all before it. */
  async function publish() {
    sequence += 1;
    const compiled = await compileConfig(config({ http: { max_json_depth: 20 + sequence } }), at.mock.url);
    const query = `number=${sequence}&version=${compiled.version}`;
    const pushed = await call(at.gateway, "HUB", "hub-0", "PUT", `/config?${query}`, compiled.entry.value);
    assert.deepEqual(pushed, { number: sequence });
    return compiled;
  }
  const version = (reply) => reply.headers["x-gateway-config-version"];

  test("KV counts while the Hub has none", async () => {
    assert.equal(version(await models(at)), at.gateway.version);
  });

  test("a busy isolate knows a new version within two seconds", async () => {
    const times = [];
    for (let nth = 0; nth < 3; nth += 1) {
      await models(at);
      const next = await publish();
      const took = await timeUntil(() => models(at), (reply) => version(reply) === next.version, performance.now(), PUBLISHED_WITHIN);
      assert.ok(took <= PUBLISHED_WITHIN, `${took} ms`);
      times.push(Math.round(took));
      await sleep(100 * nth);
    }
    console.log(`a busy isolate knew a new version after ${times.join(", ")} ms`);
  });

  test("an idle isolate knows a new version before its first request", async () => {
    await sleep(2_100);
    const next = await publish();
    assert.equal(version(await models(at)), next.version);
  });

  test("an older version that is pushed late changes nothing", async () => {
    const now = await call(at.gateway, "HUB", "hub-0", "GET", "/status");
    const old = await compileConfig(config({ http: { max_json_depth: 20 } }), at.mock.url);
    const pushed = await call(at.gateway, "HUB", "hub-0", "PUT", `/config?number=1&version=${old.version}`, old.entry.value);
    assert.equal(pushed.number, sequence);
    await sleep(2_100);
    assert.equal(version(await models(at)), now.config_version);
  });

  test("a configuration of several megabytes is stored and served", async () => {
    const compiled = await compileConfig(config(), at.mock.url);
    const snapshot = JSON.parse(compiled.entry.value);
    for (let nth = 0; nth < 9_000; nth += 1) {
      snapshot.config.models[`filler-${nth}-é${"x".repeat(150)}`] = { provider: "openai", upstream_model: "y".repeat(150) };
    }
    snapshot.version = "large";
    const text = JSON.stringify(snapshot);
    assert.ok(text.length > 3_000_000);
    sequence += 1;
    await call(at.gateway, "HUB", "hub-0", "PUT", `/config?number=${sequence}&version=large`, text);
    await sleep(2_100);
    assert.equal(version(await models(at)), "large");
    assert.equal((await chat(at)).status, 200);
  });
});

describe("what else the Hub tells", () => {
  let at;
  before(async () => {
    const providers = {
      referred: { dialect: "openai", base_url: `${MOCK}/v1`, credential: "stored:cred_referred" },
      sealed: { dialect: "openai", base_url: `${MOCK}/v1`, credential: "stored:cred_sealed" },
    };
    const models = {
      referred: { provider: "referred", upstream_model: "mock-large" },
      sealed: { provider: "sealed", upstream_model: "mock-large" },
    };
    const patient = { key_cache_ms: 60_000, negative_cache_ms: 60_000 };
    at = await startWith({ providers, models, auth: patient }, { secrets: { MASTER_SECRET: MASTER } });
  });
  after(() => at?.stop());

  const MASTER = "a master secret of this file's own, long enough";
  const sentWith = async (model) => {
    const id = freshId();
    const reply = await chat(at, { model, messages: ask({ text: "well", tag: id }) });
    return { status: reply.status, credential: reply.status === 200 && (await received(at.mock, id)).headers.authorization };
  };

  test("a stored credential is opened where a provider is called, and replaced within two seconds", async () => {
    assert.equal((await sentWith("sealed")).status, 503, "there is none yet");
    for (const [revision, secret] of [[1, "first-sealed-credential"], [2, "second-sealed-credential"]]) {
      at.hidden.push(secret);
      const document = {
        cred_referred: { worker_secret: "ANTHROPIC_KEY", revision },
        cred_sealed: { sealed: seal(MASTER, "cred_sealed", secret), revision },
      };
      await call(at.gateway, "HUB", "hub-0", "PUT", `/credentials?number=${revision}`, document);
      await sleep(2_000);
      assert.deepEqual(await sentWith("sealed"), { status: 200, credential: `Bearer ${secret}` });
      assert.equal((await sentWith("referred")).credential, `Bearer ${PROVIDER_SECRETS.ANTHROPIC_KEY}`);
    }
    const moved = { cred_sealed: { sealed: seal(MASTER, "cred_other", "moved"), revision: 3 } };
    await call(at.gateway, "HUB", "hub-0", "PUT", "/credentials?number=3", moved);
    await sleep(2_000);
    assert.equal((await sentWith("sealed")).status, 503, "what was sealed for another place does not open");
  });

  test("a purge makes isolates forget what they have cached", async () => {
    const made = await mint(at.gateway);
    assert.equal((await models(at, made.key)).status, 401);
    await made.put();
    assert.equal((await models(at, made.key)).status, 401, "that there is no such key is remembered");
    await call(at.gateway, "HUB", "hub-0", "PUT", `/purge?number=${Date.now()}`);
    await sleep(2_000);
    assert.equal((await models(at, made.key)).status, 200);
  });
});

/** Seals a provider's credential as the control plane does: AES-256-GCM under a key that HKDF derives. */
function seal(master, context, secret) {
  const derive = (info, bytes) => Buffer.from(hkdfSync("sha256", master, "llm-gateway/master/v1", info, bytes));
  const id = derive("id", 2).toString("hex");
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", derive("seal/provider-credential", 32), nonce);
  cipher.setAAD(Buffer.from(`v1.${id}.${context}`));
  const sealed = Buffer.concat([nonce, cipher.update(secret), cipher.final(), cipher.getAuthTag()]);
  return `v1.${id}.${sealed.toString("base64url")}`;
}

describe("a key's standing", () => {
  let at;
  before(async () => (at = await startWith()));
  after(() => at?.stop());

  const good = (reply) => reply.status === 200;
  const dead = (reply) => reply.status === 401;
  const states = (made, more = {}) => ({ records: { [made.id]: { ...made.record, ...more } } });

  test("a key that is switched off, on and deleted in the ledger is known to be within a second, whatever KV says", async () => {
    const made = await mint(at.gateway);
    await made.put();
    const request = () => chat(at, { key: made.key });
    assert.equal((await request()).status, 200, "the ledger has never heard of it, so KV counts");
    const changes = [
      [states(made, { disabled: true }), dead],
      [states(made), good],
      [states(made, { expires_at: 1 }), dead],
      [states(made), good],
      [{ tombstone: [] }, dead],
    ];
    const times = [];
    for (const [nth, [state, wanted]] of changes.entries()) {
      await putKey(at.gateway, "team", "key_1", nth + 1, state);
      const took = await timeUntil(request, wanted, performance.now(), REVOKED_WITHIN);
      assert.ok(took <= REVOKED_WITHIN, `change ${nth} was known after ${took} ms`);
      times.push(Math.round(took));
    }
    console.log(`changes of a key were known after ${times.join(", ")} ms`);
    await putKey(at.gateway, "team", "key_1", 3, states(made));
    await sleep(REVOKED_WITHIN);
    assert.equal((await request()).status, 401, "a late push does not bring it back");
  });

  test("a key that KV takes for disabled is good if the ledger says so", async () => {
    const made = await mint(at.gateway);
    await made.put({ disabled: true });
    assert.equal((await chat(at, { key: made.key })).status, 401);
    await putKey(at.gateway, "team", "key_2", 1, states(made));
    await sleep(REVOKED_WITHIN);
    assert.equal((await chat(at, { key: made.key })).status, 200);
  });

  test("a key's restrictions are the ledger's", async () => {
    const made = await mint(at.gateway);
    await made.put();
    assert.equal((await chat(at, { key: made.key })).status, 200);
    await putKey(at.gateway, "team", "key_3", 1, states(made, { models: ["claude-test"] }));
    await sleep(REVOKED_WITHIN);
    assert.equal((await chat(at, { key: made.key })).status, 404);
  });

  test("of a rotated key the old secret dies and the new one lives", async () => {
    const [old, fresh] = [await mint(at.gateway), await mint(at.gateway)];
    await old.put();
    await fresh.put();
    const both = { records: { [old.id]: old.record, [fresh.id]: fresh.record } };
    await putKey(at.gateway, "team", "key_4", 1, both);
    assert.deepEqual([(await chat(at, { key: old.key })).status, (await chat(at, { key: fresh.key })).status], [200, 200]);
    const now = await putKey(at.gateway, "team", "key_4", 2, states(fresh));
    assert.deepEqual(now.retired, [old.id]);
    await sleep(REVOKED_WITHIN);
    assert.deepEqual([(await chat(at, { key: old.key })).status, (await chat(at, { key: fresh.key })).status], [401, 200]);
  });

  test("a suspended account's keys are refused within a second, and good again as soon", async () => {
    const made = await mint(at.gateway, { account: "owing" });
    await made.put();
    assert.equal((await chat(at, { key: made.key })).status, 200);
    for (const [revision, suspended, status] of [[1, true, 403], [2, false, 200]]) {
      await putAccount(at.gateway, "owing", revision, suspended);
      const took = await timeUntil(
        () => chat(at, { key: made.key }),
        (reply) => reply.status === status,
        performance.now(),
        REVOKED_WITHIN,
      );
      assert.ok(took <= REVOKED_WITHIN, `${took} ms`);
    }
    await putAccount(at.gateway, "owing", 3, true);
    await sleep(REVOKED_WITHIN);
    const refused = await models(at, made.key);
    assert.equal(refused.status, 403);
    assert.equal(JSON.parse(refused.text).error.code, "account_suspended");
    assert.equal(refused.headers["x-should-retry"], "false");
  });
});

describe("an object that cannot be reached", () => {
  // A ledger that never answers.
  const hanging = {
    name: "hanging",
    modules: true,
    script: "export class Hanging { async fetch() { await scheduler.wait(20000); return new Response('late'); } } export default {}",
    durableObjects: { HANGING: { className: "Hanging" } },
    compatibilityDate: "2026-07-30",
  };
  const nowhere = (hub) => ({
    override: {
      durableObjects: {
        LEDGER: { className: "Hanging", scriptName: "hanging" },
        HUB: hub ?? { className: "Hub", useSQLite: true },
      },
    },
    others: [hanging],
  });

  for (const [policy, status] of [["allow", 200], ["deny", 503]]) {
    test(`a key is judged by the policy when its ledger hangs: ${policy}`, async () => {
      const at = await startWith({ auth: { when_ledger_unreachable: policy } }, nowhere());
      try {
        const began = performance.now();
        const reply = await chat(at);
        assert.equal(reply.status, status, reply.text);
        assert.ok(performance.now() - began < 2_500, "the wait is bounded");
        await eventually(() => at.gateway.logs.some((line) => line.includes("an account's ledger cannot be asked")), "a log line");
        const next = performance.now();
        assert.equal((await models(at)).status, status);
        assert.ok(performance.now() - next < 500, "not every request waits for it");
      } finally {
        await at.stop();
      }
    });
  }

  test("the configuration comes from KV when the Hub hangs", async () => {
    const at = await startWith({}, nowhere({ className: "Hanging", scriptName: "hanging" }));
    try {
      assert.equal((await chat(at)).status, 200);
      assert.ok(at.gateway.logs.some((line) => line.includes("the Hub cannot be asked")));
    } finally {
      await at.stop();
    }
  });
});

describe("usage", () => {
  let folder;
  before(async () => (folder = await mkdtemp(path.join(tmpdir(), "llm-gateway-usage-"))));
  after(() => rm(folder, { recursive: true, force: true }));

  const sum = async (gateway, account, column = "requests") =>
    (await gateway.db.prepare(`SELECT COALESCE(SUM(${column}), 0) AS n FROM usage WHERE account_id = ?`).bind(account).first()).n;

  const settled = (gateway, account, requests) =>
    eventually(async () => (await sum(gateway, account)) >= requests, `${requests} requests in the database`);

  test("every request ends in the database exactly once, across a restart", async () => {
    let sent = 0;
    let key;
    const prices = { prices: { "gpt-test": { input: "1", output: "2" } } };
    for (let round = 0; round < 2; round += 1) {
      const at = await startWith(
        { ...prices, records: { flush_ms: 400 } },
        { persist: folder, keys: [{ name: "app", account: "counted", ...(key && { key }) }] },
      );
      try {
        key = at.key;
        const replies = await Promise.all(Array.from({ length: 12 }, () => chat(at)));
        assert.ok(replies.every((reply) => reply.status === 200));
        const streamed = await chat(at, { stream: true });
        assert.equal(streamed.status, 200);
        await models(at);
        sent += 13;
        // The ledger has it all, the database not necessarily, when the first gateway ends.
        const known = async () => (await ledger(at.gateway, "counted")).pending_usage + (await sum(at.gateway, "counted"));
        await eventually(async () => (await known()) >= sent, "all are known to the ledger or the database");
        if (round === 1) await settled(at.gateway, "counted", sent);
        if (round === 1) {
          await sleep(1_000);
          assert.equal(await sum(at.gateway, "counted"), sent);
          assert.equal(await sum(at.gateway, "counted", "errors"), 0);
          assert.equal(await sum(at.gateway, "counted", "unpriced"), 0);
          const told = await at.gateway.db.prepare("SELECT SUM(input) AS input, SUM(output) AS output, SUM(cost_nanos) AS cost FROM usage").first();
          assert.equal(told.cost, told.input * 1_000 + told.output * 2_000);
          const records = await at.gateway.db.prepare("SELECT COUNT(*) AS n FROM request_records WHERE provider <> ''").first();
          assert.equal(records.n, sent);
        }
      } finally {
        await at.stop();
      }
    }
  });

  test("an entry that is posted again is counted once, and a caller's request id does not matter", async () => {
    const at = await startWith({}, { keys: [{ name: "app", account: "again" }] });
    try {
      const id = freshId();
      for (let nth = 0; nth < 3; nth += 1) await chat(at, { headers: { "x-request-id": id } });
      await settled(at.gateway, "again", 3);
      const records = await at.gateway.db.prepare("SELECT record ->> 'request_id' AS id FROM request_records").all();
      assert.deepEqual(records.results, [{ id }, { id }, { id }], "no record is hidden by another");

      const entry = {
        id: "one", request_id: "one", at_ms: Date.now(), account: "again", key_id: "k", model: "m", provider: "p",
        status: 200, outcome: "completed", counted: true, usage: { input: 5 },
      };
      for (let nth = 0; nth < 4; nth += 1) {
        const posted = await call(at.gateway, "LEDGER", "again", "POST", "/usage", { flush_ms: 100, entries: [entry] });
        assert.equal(posted.number, nth === 0 ? 1 : 0);
        await sleep(150);
      }
      await settled(at.gateway, "again", 4);
      await sleep(500);
      assert.equal(await sum(at.gateway, "again"), 4);
    } finally {
      await at.stop();
    }
  });

  test("what fails is an error, and what was refused is only a record", async () => {
    const at = await startWith({}, { keys: [{ name: "app", account: "failing" }] });
    try {
      assert.ok((await chat(at, { messages: ask({ status: 500 }) })).status >= 500);
      assert.equal((await chat(at, { model: "no-such-model" })).status, 404);
      await settled(at.gateway, "failing", 1);
      const count = () => at.gateway.db.prepare("SELECT COUNT(*) AS n FROM request_records").first();
      await eventually(async () => (await count()).n === 2, "both records");
      assert.deepEqual([await sum(at.gateway, "failing"), await sum(at.gateway, "failing", "errors")], [1, 1]);
    } finally {
      await at.stop();
    }
  });

  test("usage waits in the ledger while the database fails", async () => {
    const at = await startWith({}, { keys: [{ name: "app", account: "waiting" }] });
    try {
      await at.gateway.db.exec("ALTER TABLE usage RENAME TO usage_away");
      assert.equal((await chat(at)).status, 200);
      await eventually(async () => (await ledger(at.gateway, "waiting")).last_error !== "", "a failed attempt");
      assert.equal((await ledger(at.gateway, "waiting")).pending_usage, 1);
      await at.gateway.db.exec("ALTER TABLE usage_away RENAME TO usage");
      await settled(at.gateway, "waiting", 1);
      await sleep(1_000);
      assert.equal(await sum(at.gateway, "waiting"), 1);
      const status = await ledger(at.gateway, "waiting");
      assert.deepEqual([status.pending_usage, status.last_error], [0, ""]);
    } finally {
      await at.stop();
    }
  });
});

describe("every minute", () => {
  let at, db;
  before(async () => {
    at = await startWith({ retention: { request_records_days: 1, usage_days: 2 } });
    db = at.gateway.db;
  });
  after(() => at?.stop());

  const DAY = 86_400;
  const seconds = () => Math.floor(Date.now() / 1000);
  const count = async (table) => (await db.prepare(`SELECT COUNT(*) AS n FROM ${table}`).first()).n;
  const use = (minute, { requests = 1, errors = 0, account = "a", model = "m" } = {}) =>
    db
      .prepare(
        "INSERT INTO usage VALUES (?, ?, 'k', '', ?, 'p', ?, ?, 0, 0, 10, 0, 0, 0, 0, 5, 0, 0, 1000, 0, 0, 0, 0, 0, 0) " +
          "ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, errors = errors + excluded.errors",
      )
      .bind(minute, account, model, requests, errors)
      .run();

  test("what is too old is deleted, and nothing else", async () => {
    const now = seconds();
    const old = JSON.stringify(Array.from({ length: 2_500 }, (_, nth) => `old-${nth}`));
    const record = "SELECT value, 'a', ?, 'k', '', 'm', 'p', 200, 'completed', 1, '{}' FROM json_each(?)";
    await db.batch([
      db.prepare(`INSERT INTO request_records ${record}`).bind((now - DAY) * 1000 - 1_000, old),
      db.prepare(`INSERT INTO request_records ${record}`).bind((now - DAY + 600) * 1000, '["new"]'),
      db.prepare("INSERT INTO usage_batches VALUES ('o', 1, ?), ('o', 2, ?)").bind(now - 8 * DAY, now),
      db.prepare("INSERT INTO idempotency_keys VALUES ('i', 'f', 200, 's', ?), ('j', 'f', 200, 's', ?)").bind(now - 10, now + 600),
      db.prepare("INSERT INTO sign_in_attempts VALUES ('s', 1, 0, ?, 0), ('t', 1, 0, ?, ?)").bind(now - 9 * DAY, now - 9 * DAY, now + 600),
    ]);
    await use(Math.floor((now - 2 * DAY) / 60) - 1);
    await use(Math.floor(now / 60) - 5);
    await at.gateway.scheduled();
    for (const table of ["request_records", "usage", "usage_batches", "idempotency_keys", "sign_in_attempts"]) {
      assert.equal(await count(table), 1, table);
    }
    assert.ok(at.gateway.logs.some((line) => line.includes("request_records 2500")), "the log says what was done");
  });

  test("a rule opens one alert while it holds, and resolves it", async () => {
    const minute = () => Math.floor(Date.now() / 60_000);
    const rule = (id, metric, threshold, more = {}) =>
      db
        .prepare(
          "INSERT INTO alert_rules (id, account_id, name, metric, threshold, window_minutes, model, created_at, updated_at) " +
            "VALUES (?, ?, ?, ?, ?, 5, ?, 0, 0)",
        )
        .bind(id, more.account ?? null, id, metric, threshold, more.model ?? null);
    await db.batch([
      db.prepare("DELETE FROM usage"),
      db.prepare("INSERT INTO accounts (id, name) VALUES ('a', 'A'), ('b', 'B')"),
      rule("many", "requests", 100),
      rule("percent", "error_percent", 50, { model: "m" }),
      rule("other", "requests", 1, { account: "b" }),
      rule("cost", "cost", 1_000, { account: "a" }),
    ]);
    await use(minute(), { requests: 10, errors: 5 });
    const open = async () =>
      (await db.prepare("SELECT rule_id, value FROM alert_events WHERE resolved_at IS NULL ORDER BY rule_id").all()).results;
    await at.gateway.scheduled();
    await at.gateway.scheduled();
    assert.deepEqual(await open(), [{ rule_id: "cost", value: 1_000 }, { rule_id: "percent", value: 50 }]);
    assert.equal(await count("alert_events"), 2);

    await use(minute(), { requests: 90 });
    await db.prepare("DELETE FROM alert_rules WHERE id = 'cost'").run();
    await at.gateway.scheduled();
    assert.deepEqual(await open(), [{ rule_id: "many", value: 100 }]);
    assert.equal(await count("alert_events"), 3);
    const lines = at.gateway.logs.filter((line) => line.includes('"event":"alert"'));
    assert.ok(lines.some((line) => line.includes("opened") && line.includes("many")), lines.join("\n"));
    assert.ok(lines.some((line) => line.includes("resolved") && line.includes("percent")), lines.join("\n"));
  });

  test("a job that fails does not keep the others from running", async () => {
    await db.exec("ALTER TABLE alert_rules RENAME TO alert_rules_away");
    await db.prepare("INSERT INTO idempotency_keys VALUES ('late', 'f', 200, 's', 1)").run();
    await at.gateway.scheduled();
    await db.exec("ALTER TABLE alert_rules_away RENAME TO alert_rules");
    assert.equal(await count("idempotency_keys"), 1);
    assert.ok(at.gateway.logs.some((line) => line.includes('"job":"alerts"') && line.includes("failed")));
  });
});

test("nothing that the gateways wrote has a secret in it", assertNothingLeaked);
