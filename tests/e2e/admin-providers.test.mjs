// Providers' credentials, tests of providers, the gateway's health and its caches, by way of the admin API.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { startAdmin } from "./admin.mjs";
import { SECRETS, V1, startCatalog } from "./catalog.mjs";
import { eventually, freshId, linesWith, received, sleep, startUpstream } from "./support.mjs";

let at;
let owner;
let mock;
let openai;
let draftOf;
let publish;
let release;
let call;
let refused;

before(async () => {
  at = await startCatalog();
  ({ owner, mock, openai, draftOf, publish, release, call, refused } = at);
});
after(() => at?.stop());

/** Everything that the database holds, as text. */
async function database() {
  const { results: tables } = await at.db
    .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_cf%' ESCAPE '\\' AND name NOT LIKE 'sqlite%'")
    .all();
  const rows = await Promise.all(tables.map(({ name }) => at.db.prepare(`SELECT * FROM "${name}"`).all()));
  return JSON.stringify(rows.map(({ results }) => results));
}

describe("credentials", () => {
  test("are sealed; only their end is shown", async () => {
    const created = await owner.call("POST", `${V1}/credentials`, {
      body: { name: "sealed", value: SECRETS.first },
      expected: 201,
    });
    assert.match(created.data.id, /^crd_[0-9A-Za-z]{22}$/);
    assert.deepEqual([created.data.hint, created.data.worker_secret, created.etag], ["Ab12", null, '"1"']);
    const got = await owner.call("GET", `${V1}/credentials/${created.data.id}`, { expected: 200 });
    assert.deepEqual([got.data, got.etag], [created.data, '"1"']);
    const listed = (await owner.all(`${V1}/credentials`)).find(({ id }) => id === created.data.id);
    assert.deepEqual(listed, created.data);
    const short = await owner.post(`${V1}/credentials`, { name: "short", value: "sk-short" });
    assert.equal(short.hint, "");
    const everything = await database();
    assert.ok(everything.includes("v1."), "something is sealed");
    for (const secret of Object.values(SECRETS)) assert.ok(!everything.includes(secret), "a value is readable");
    assert.deepEqual(linesWith(Object.values(SECRETS), at.logs), []);
  });

  test("are a value or somebody else's secret", async () => {
    const wrong = async (body) => (await refused("POST", "/credentials", { name: "wrong", ...body }, 400)).paths;
    assert.deepEqual(await wrong({}), ["value"]);
    assert.deepEqual(await wrong({ value: "x", worker_secret: "UPSTREAM_KEY" }), ["value"]);
    assert.deepEqual(await wrong({ value: "pasted\n" }), ["value"]);
    assert.deepEqual(await wrong({ worker_secret: "MASTER_SECRET" }), ["worker_secret"]);
    assert.deepEqual(await wrong({ worker_secret: "no-word" }), ["worker_secret"]);
    const taken = await refused("POST", "/credentials", { name: "sealed", value: "y" }, 409);
    assert.deepEqual([taken.code, taken.paths], ["already_exists", ["name"]]);
  });

  test("are created once for one idempotency key", async () => {
    const headers = { "idempotency-key": freshId() };
    const body = { name: `once ${headers["idempotency-key"]}`, value: "abc" };
    const first = await owner.post(`${V1}/credentials`, body, { headers });
    assert.deepEqual(await owner.post(`${V1}/credentials`, body, { headers }), first);
    await refused("POST", "/credentials", { ...body, value: "other" }, 422, { headers });
  });

  test("are replaced by who knows their state, and deleted only when nobody uses them", async () => {
    const { id } = await owner.post(`${V1}/credentials`, { name: "used", value: SECRETS.first });
    const body = { name: "used", worker_secret: "UPSTREAM_KEY" };
    const headers = { "if-match": '"1"' };
    const replaced = await owner.put(`${V1}/credentials/${id}`, body, { headers });
    assert.deepEqual([replaced.revision, replaced.hint, replaced.worker_secret], [2, "", "UPSTREAM_KEY"]);
    assert.equal((await refused("PUT", `/credentials/${id}`, body, 412, { headers })).code, "outdated");

    await owner.put(`${V1}/providers/user`, openai({ credential: `stored:${id}` }));
    assert.deepEqual((await refused("DELETE", `/credentials/${id}`, undefined, 409)).paths, ["providers.user.credential"]);
    await publish();
    await owner.delete(`${V1}/providers/user`);
    const current = await refused("DELETE", `/credentials/${id}`, undefined, 409);
    assert.equal(current.code, "in_use");
    assert.match(current.data.errors[0].message, /current version/);
    await release(draftOf());
    await owner.delete(`${V1}/credentials/${id}`);
    await refused("GET", `/credentials/${id}`, undefined, 404);
    await refused("DELETE", `/credentials/${id}`, undefined, 404);
  });

  test("reach the provider, and a replaced one does within seconds", async () => {
    const { id } = await owner.post(`${V1}/credentials`, { name: "in use", value: SECRETS.first });
    const version = await release(draftOf({ providers: { mock: openai({ credential: `stored:${id}` }) } }));
    const sent = async () => {
      const reply = await call("small");
      assert.equal(reply.status, 200, reply.text);
      return (await received(mock, reply.id)).headers.authorization;
    };
    await eventually(async () => (await call("small")).version === version.version, "the version");
    assert.equal(await sent(), `Bearer ${SECRETS.first}`);
    await owner.put(`${V1}/credentials/${id}`, { name: "in use", value: SECRETS.second });
    const began = Date.now();
    await eventually(async () => (await sent()) === `Bearer ${SECRETS.second}`, "the new credential");
    assert.ok(Date.now() - began < 3_000, `${Date.now() - began} ms`);
    await owner.put(`${V1}/credentials/${id}`, { name: "in use", worker_secret: "UPSTREAM_KEY" });
    await eventually(async () => (await sent()) === `Bearer ${SECRETS.worker}`, "the Worker secret");
    await release(draftOf());
    assert.deepEqual(linesWith(Object.values(SECRETS), at.logs), []);
  });
});

describe("the test of a provider", () => {
  let upstream;
  let tester;
  let behave;

  before(async () => {
    upstream = await startUpstream((request, response) => behave(request, response));
    tester = await startAdmin({
      mockUrl: upstream.url,
      secrets: { UPSTREAM_KEY: SECRETS.worker },
      vars: { PRIVATE_UPSTREAM_HOSTS: `${new URL(upstream.url).host},127.0.0.1:9` },
    });
  });
  after(async () => {
    await tester?.stop();
    await upstream?.stop();
  });

  const status = (code, headers = {}) => (_, response) => response.writeHead(code, headers).end("{}");
  /** Tests a provider with these settings. */
  const probe = async (settings, answer = status(200)) => {
    behave = answer;
    await tester.owner.put(`${V1}/providers/p`, { dialect: "openai", base_url: `${upstream.url}/v1`, ...settings });
    return tester.owner.post(`${V1}/providers/p/test`, undefined);
  };

  test("asks for what costs nothing, with the credential", async () => {
    const { id } = await tester.owner.post(`${V1}/credentials`, { name: "a", value: SECRETS.first });
    const good = await probe({ credential: `stored:${id}`, headers: { "x-team": "a" }, user_agent: "acme/1" });
    assert.deepEqual([good.provider, good.healthy, good.status], ["p", true, 200]);
    const seen = upstream.requests.at(-1);
    assert.deepEqual([seen.method, seen.path, seen.body], ["GET", "/v1/models", ""]);
    assert.equal(seen.headers.authorization, `Bearer ${SECRETS.first}`);
    assert.deepEqual([seen.headers["x-team"], seen.headers["user-agent"]], ["a", "acme/1"]);

    assert.equal((await probe({ dialect: "anthropic", base_url: upstream.url, credential: "UPSTREAM_KEY" })).healthy, true);
    const anthropic = upstream.requests.at(-1);
    assert.deepEqual([anthropic.path, anthropic.headers["x-api-key"]], ["/v1/models", SECRETS.worker]);
    assert.equal(anthropic.headers["anthropic-version"], "2023-06-01");
    await tester.owner.call("POST", `${V1}/providers/nobody/test`, { expected: 404 });
  });

  test("says in words what is wrong, and nothing that it must not", async () => {
    const said = async (settings, answer) => {
      const result = await probe({ credential: "UPSTREAM_KEY", ...settings }, answer);
      assert.equal(result.healthy, false, result.detail);
      return result.detail;
    };
    const echo = (request, response) =>
      response.writeHead(401).end(JSON.stringify({ error: { message: `bad key ${request.headers.authorization}` } }));
    assert.match(await said({}, echo), /refused the credential/);
    assert.match(await said({}, status(404)), /no list of models/);
    assert.match(await said({}, status(500)), /failed \(status 500\)/);
    assert.match(await said({}, status(302, { location: `${upstream.url}/elsewhere` })), /redirect/);
    assert.notEqual(upstream.requests.at(-1).path, "/elsewhere");
    assert.match(await said({ base_url: "http://127.0.0.1:9/v1" }), /could not be reached/);
    assert.match(await said({ credential: "NOBODYS_KEY" }), /no Worker secret `NOBODYS_KEY`/);
    assert.match(await said({ base_url: "https://169.254.169.254/v1" }), /not a public host/);
    const began = Date.now();
    assert.match(await said({ timeouts: { first_byte_ms: 200 } }, () => {}), /within 200 ms/);
    assert.ok(Date.now() - began < 3_000);
    await eventually(() => upstream.requests.at(-1).closed, "the request is ended");
    assert.deepEqual(linesWith(Object.values(SECRETS), tester.logs), []);
  });

  test("is remembered", async () => {
    // The history's times are whole seconds; within one there is no order.
    await sleep(1_000 - (Date.now() % 1_000));
    await probe({}, status(503));
    await tester.owner.put(`${V1}/providers/q`, { dialect: "generic", base_url: upstream.url, generic: { body: {}, reply: { text: "/t" } } });
    behave = status(405);
    assert.equal((await tester.owner.post(`${V1}/providers/q/test`, undefined)).healthy, true);
    const [last] = (await tester.owner.get(`${V1}/health/history?provider=p&limit=1`)).data;
    assert.deepEqual([last.provider, last.source, last.healthy], ["p", "test", false]);
    const all = await tester.owner.all(`${V1}/health/history`, 4);
    assert.ok(all.length > 4 && all.some(({ provider }) => provider === "q"));
    const { results } = await tester.db.prepare("SELECT count(*) AS tests FROM audit_log WHERE action = 'providers:test'").all();
    assert.equal(results[0].tests, all.length);
  });
});

describe("health and caches", () => {
  test("the parts tell how they are", async () => {
    const health = await owner.get(`${V1}/health`);
    assert.deepEqual(
      health.parts.map(({ name, healthy }) => [name, healthy]),
      ["d1", "kv", "hub", "secrets", "config", "outbox"].map((name) => [name, true]),
      JSON.stringify(health.parts),
    );
    assert.deepEqual([health.healthy, health.outbox_pending], [true, 0]);
  });

  test("what is stuck or weak shows", async () => {
    const long = Math.floor(Date.now() / 1000) - 1_000;
    const effect = JSON.stringify({ kind: "account", account: "team" });
    await at.db.prepare("INSERT INTO outbox (effect, last_error, created_at) VALUES (?, 'why', ?)").bind(effect, long).run();
    const stuck = await owner.get(`${V1}/health`);
    const outbox = stuck.parts.find(({ name }) => name === "outbox");
    assert.deepEqual([stuck.healthy, stuck.outbox_pending, outbox.healthy], [false, 1, false]);
    assert.match(outbox.detail, /1 waiting.*why/);
    await at.scheduled();
    await eventually(async () => (await owner.get(`${V1}/health`)).healthy, "the outbox is delivered");

    const weak = await startAdmin({ secrets: { KEY_HASH_SECRET: "short" } });
    try {
      const secrets = (await weak.owner.get(`${V1}/health`)).parts.find(({ name }) => name === "secrets");
      assert.equal(secrets.healthy, false);
      assert.match(secrets.detail, /KEY_HASH_SECRET is weak/);
      const config = (await weak.owner.get(`${V1}/health`)).parts.find(({ name }) => name === "config");
      assert.match(config.detail, /no configuration/);
    } finally {
      await weak.stop();
    }
  });

  test("a purge is counted and logged", async () => {
    const before = await owner.get(`${V1}/cache`);
    assert.equal(before.key_cache_ms > 0 && before.jwks_cache_seconds > 0, true);
    const purged = await owner.post(`${V1}/cache/purge`, { reason: "a test" });
    assert.ok(purged.epoch > before.epoch);
    assert.equal((await owner.get(`${V1}/cache`)).epoch, purged.epoch);
    await eventually(async () => {
      await call("small");
      return at.logs.some((line) => line.includes("caches emptied") && line.includes(String(purged.epoch)));
    }, "the isolate empties its caches");
    const { results } = await at.db.prepare("SELECT after FROM audit_log WHERE action = 'cache:purge'").all();
    assert.deepEqual(JSON.parse(results[0].after), { epoch: purged.epoch, reason: "a test" });
  });
});
