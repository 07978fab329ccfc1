// The health of providers as operators see and steer it: what gauges know, what has changed, draining, probes, alerts; and
// the gauges themselves, as isolates speak to them.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { MASTER_SECRET, startAdmin, userWith } from "./admin.mjs";
import { SECRETS, V1, startCatalog } from "./catalog.mjs";
import { startGatewayProcess } from "./harness.mjs";
import { call, crowd } from "./limits.mjs";
import { KEY_HASH_SECRET, ask, eventually, freshId, send, startUpstream } from "./support.mjs";

/** What an isolate tells a gauge: `seen` are observations, with their age. */
const report = (at, gauge, seen, more = {}) =>
  call(at, "GAUGE", gauge, "POST", "/report", {
    holder: "a-test",
    providers: [gauge],
    observations: seen.map(({ age_ms = 0, ...seen }) => ({ age_ms, seen })),
    ...more,
  });

/** So many requests to a model that failed, or (without a fault) succeeded. */
const requests = (count, provider, deployment, fault) =>
  Array.from({ length: count }, () => ({ provider, deployment, ...(fault && { fault }), total_ms: 10 }));

/** Sends a request to the data plane; tells who has answered. */
async function chat(model, directives = {}) {
  const reply = await send({
    url: `${at.url}/v1/chat/completions`,
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${at.key}` },
    body: JSON.stringify({ model, messages: ask(directives) }),
  });
  return { status: reply.status, provider: reply.headers["x-gateway-provider"], text: reply.text };
}

/** Events of alerts that are open, by provider. */
const openEvents = async (owner, provider) =>
  (await owner.all(`${V1}/alerts/events?open=true`)).filter((event) => event.provider?.provider === provider);

const MINUTE = 60_000;

let at, owner;
before(async () => {
  at = await startCatalog();
  ({ owner } = at);
  const names = ["turning", "refusing", "poor", "drained", "limited", "one", "two", "three", "left", "right", "failing"];
  await at.release({
    providers: Object.fromEntries(names.map((name) => [name, at.openai()])),
    models: Object.fromEntries(names.map((name) => [`${name}-model`, { provider: name, upstream_model: "mock-small" }])),
    routes: {
      spare: { targets: [{ model: "failing-model" }, { model: "right-model" }] },
      pair: { targets: [{ model: "left-model" }, { model: "right-model" }] },
      least: {
        strategy: "least_connections",
        targets: ["one", "two", "three"].map((name) => ({ model: `${name}-model` })),
      },
    },
  });
});
after(() => at?.stop());

describe("what a gauge knows", () => {
  test("is nothing at first", async () => {
    const health = await owner.get(`${V1}/providers/drained/health`);
    assert.deepEqual([health.own, health.models, health.open, health.last_probe], [null, [], 0, null]);
    assert.equal(health.set.in_effect, "active");
    await owner.call("GET", `${V1}/providers/nobody/health`, { expected: 404 });
    await owner.call("POST", `${V1}/providers/nobody/reset`, { expected: 404 });
  });

  test("is what requests came to: a breaker opens, is told of, raises one alert, and is reset", async () => {
    const model = "turning-model";
    const told = await report(at, "turning", requests(3, "turning", model, "server_error"));
    assert.ok("turning" in told.providers);
    let health = await owner.get(`${V1}/providers/turning/health`);
    assert.deepEqual(health.models.map(({ subject, breaker }) => [subject.deployment, breaker]), [[model, "closed"]]);
    await report(at, "turning", requests(2, "turning", model, "server_error"));
    health = await owner.get(`${V1}/providers/turning/health`);
    const [state] = health.models;
    assert.deepEqual([state.breaker, state.fault, state.openings], ["open", "server_error", 1]);
    assert.ok(state.open_until > health.at_ms && state.error_permille > 0);

    const history = () => owner.all(`${V1}/providers/turning/health/history?source=passive`);
    await eventually(async () => (await history()).length === 1, "the turn is in the history");
    const [turn] = await history();
    assert.deepEqual([turn.source, turn.model, turn.state, turn.healthy], ["passive", model, "open", false]);
    assert.match(turn.detail, /closed to open: server error/);
    const [event, ...more] = await openEvents(owner, "turning");
    assert.deepEqual(more, []);
    assert.deepEqual([event.kind, event.provider.model, event.provider.fault], ["provider_down", model, "server_error"]);
    assert.equal((await owner.all(`${V1}/alerts/events?kind=provider_down`)).length, 1);

    await owner.post(`${V1}/providers/turning/reset`, undefined);
    health = await owner.get(`${V1}/providers/turning/health`);
    assert.equal(health.models[0].breaker, "closed");
    assert.deepEqual(await openEvents(owner, "turning"), []);
    await eventually(async () => (await history())[0].state === "closed", "the reset is in the history");
    const { results } = await at.db.prepare("SELECT target_id FROM audit_log WHERE action = 'providers:reset'").all();
    assert.deepEqual(results, [{ target_id: "turning" }]);
  });

  test("opens at once for a refused credential, and closes when it is accepted again", async () => {
    await report(at, "refusing", requests(1, "refusing", "refusing-model", "auth"));
    const health = await owner.get(`${V1}/providers/refusing/health`);
    assert.deepEqual([health.own.breaker, health.own.fault], ["open", "auth"]);
    await eventually(async () => (await openEvents(owner, "refusing")).length === 1, "an alert");
    assert.equal((await openEvents(owner, "refusing"))[0].kind, "provider_auth");
    // Three verdicts of probes are three successes.
    const probe = { provider: "refusing", probe: true };
    await report(at, "refusing", [probe, probe, probe]);
    assert.equal((await owner.get(`${V1}/providers/refusing/health`)).own.breaker, "closed");
    await eventually(async () => (await openEvents(owner, "refusing")).length === 0, "the alert is over");
  });

  test("is a pause where a provider asks for one or wants to be paid; only the latter raises an alert", async () => {
    const limited = { provider: "limited", deployment: "limited-model", fault: "rate_limited", retry_after_ms: 30_000 };
    await report(at, "limited", [{ ...limited, age_ms: 10_000 }]);
    const [model] = (await owner.get(`${V1}/providers/limited/health`)).models;
    const left = model.cooling_until - (await owner.get(`${V1}/providers/limited/health`)).at_ms;
    assert.ok(left > 15_000 && left <= 20_000, `${left} ms: the pause began when the provider answered`);
    await report(at, "poor", requests(1, "poor", "poor-model", "quota_exhausted"));
    assert.equal((await owner.get(`${V1}/providers/poor/health`)).own.cooling_fault, "quota_exhausted");
    await eventually(async () => (await openEvents(owner, "poor")).length === 1, "an alert");
    assert.equal((await openEvents(owner, "poor"))[0].kind, "provider_quota");
    assert.deepEqual(await openEvents(owner, "limited"), []);
  });

  test("is for those who may see it, and is changed by those who may change providers", async () => {
    const reader = await userWith(owner, "viewer");
    await reader.get(`${V1}/providers/turning/health`);
    await reader.get(`${V1}/providers/turning/health/history`);
    await reader.call("POST", `${V1}/providers/turning/reset`, { expected: 403 });
    await reader.call("PUT", `${V1}/providers/turning/state`, { body: { state: "draining" }, expected: 403 });
  });
});

describe("what is set of a provider", () => {
  const path = `${V1}/providers/drained/state`;

  test("is nothing until somebody sets it", async () => {
    const got = await owner.call("GET", path, { expected: 200 });
    assert.deepEqual([got.data.state, got.data.in_effect, got.data.revision, got.etag], ["active", "active", 0, '"0"']);
    await owner.call("GET", `${V1}/providers/nobody/state`, { expected: 404 });
    const past = { body: { state: "draining", until: 1 }, expected: 400 };
    assert.equal((await owner.call("PUT", path, past)).data.errors[0].path, "until");
  });

  test("reaches isolates with the next look at the Hub, and goes by itself when its time is over", async () => {
    const states = async () => {
      const { provider_states: now } = await call(at, "HUB", "hub-0", "GET", "/state?config=&credentials=0&keys=0&provider_states=0");
      return now?.document ?? {};
    };
    const until = Math.floor(Date.now() / 1_000) + 2;
    const set = await owner.put(path, { state: "maintenance", reason: "a new disk", until });
    assert.deepEqual([set.in_effect, set.reason, set.revision], ["maintenance", "a new disk", 1]);
    assert.deepEqual(await states(), { drained: { state: "maintenance", until: until * 1_000 } });
    assert.equal((await owner.get(`${V1}/providers/drained/health`)).set.in_effect, "maintenance");
    await eventually(async () => (await owner.get(path)).in_effect === "active", "its time is over");
    assert.equal((await owner.get(path)).state, "maintenance", "what was set is still told");
    await owner.put(path, { state: "active" });
    assert.deepEqual(await states(), {});
  });

  test("is changed by who knows it", async () => {
    const { revision } = await owner.get(path);
    const headers = { "if-match": `"${revision}"` };
    await owner.put(path, { state: "draining" }, { headers });
    await owner.call("PUT", path, { body: { state: "active" }, headers, expected: 412 });
    const { results } = await at.db
      .prepare("SELECT after FROM audit_log WHERE action = 'providers:state' ORDER BY sequence DESC LIMIT 1")
      .all();
    assert.equal(JSON.parse(results[0].after).state, "draining");
    await owner.put(path, { state: "active" });
  });
});

describe("requests", () => {
  const health = (name) => owner.get(`${V1}/providers/${name}/health`);

  test("tell gauges what they came to, and an isolate hears of a reset", async () => {
    assert.equal((await chat("failing-model")).status, 200);
    await eventually(async () => (await health("failing")).models.length === 1, "the gauge has heard of it");
    const [well] = (await health("failing")).models;
    assert.deepEqual([well.breaker, well.error_permille], ["closed", 0]);
    assert.equal((await chat("failing-model", { status: 401 })).status, 502);
    await eventually(async () => (await health("failing")).own.breaker === "open", "a refused credential opens at once");
    await eventually(async () => (await openEvents(owner, "failing")).length === 1, "and raises an alert");
    assert.equal((await chat("spare")).provider, "right", "it is passed over");
    await owner.post(`${V1}/providers/failing/reset`, undefined);
    assert.equal((await health("failing")).own.breaker, "closed");
    const began = Date.now();
    await eventually(async () => (await chat("spare")).provider === "failing", "it gets requests again");
    assert.ok(Date.now() - began < 4_000, `${Date.now() - began} ms: before its back-off is over`);
  });

  test("go elsewhere within two seconds once a provider is drained, while what is open there goes on", async () => {
    assert.equal((await chat("pair")).provider, "left");
    const tag = freshId();
    const slow = chat("pair", { tag, ttfb_ms: 3_000 });
    await eventually(async () => (await at.mock.journal(tag)).length === 1, "it is under way");
    await owner.put(`${V1}/providers/left/state`, { state: "draining" });
    const began = Date.now();
    await eventually(async () => (await chat("pair")).provider === "right", "the next one");
    assert.ok(Date.now() - began < 3_000, `${Date.now() - began} ms`);
    assert.equal((await slow).provider, "left");
    assert.equal((await chat("left-model")).status, 503, "nothing new goes there, whoever is left");
    await owner.put(`${V1}/providers/left/state`, { state: "active" });
    await eventually(async () => (await chat("pair")).provider === "left", "it is back");
  });

  test("share their providers evenly where the gauge picks, whatever else goes there", async () => {
    const open = async (name) => (await owner.get(`${V1}/providers/${name}/connections`)).open;
    const direct = [1, 2].map(() => chat("two-model", { ttfb_ms: 4_000 }));
    await eventually(async () => (await open("two")) === 2, "both are counted");
    const picked = Array.from({ length: 10 }, () => chat("least", { ttfb_ms: 4_000 }));
    const counts = () => Promise.all(["one", "two", "three"].map(open));
    await eventually(async () => (await counts()).reduce((sum, count) => sum + count) === 12, "all are open");
    assert.deepEqual(await counts(), [4, 4, 4]);
    const replies = await Promise.all([...direct, ...picked]);
    assert.deepEqual(replies.map(({ status }) => status), Array(12).fill(200));
    await eventually(async () => (await counts()).every((count) => count === 0), "nothing is open");
  });
});

describe("a pool's gauge", () => {
  const rules = (amount) => [
    { id: "r", scope: "provider", subject: "*", dimension: "concurrency", period: "none", amount },
  ];
  const candidate = (name, more = {}) => ({
    provider: name,
    weight: 1,
    ask: { key_id: "k", model: `${name}-model`, lifetime_ms: MINUTE, ...more },
  });
  const acquire = (id, candidates, pick = true) =>
    call(at, "GAUGE", "one", "POST", "/acquire", { id, candidates, pick });
  const release = (provider, id) =>
    call(at, "GAUGE", "one", "POST", "/release", { provider, id, settlement: { amounts: [1, 1, 1, 1] } });
  const names = ["one", "three", "two"];

  test("picks one that has the fewest open of those that have room", async () => {
    const candidates = names.map((name) => candidate(name, name === "two" ? { defaults: rules(5) } : {}));
    const picked = { one: 0, two: 0, three: 0 };
    let most = 0;
    await crowd(200, async () => {
      const id = freshId();
      const { index, answer, open } = await acquire(id, candidates);
      assert.ok(answer.granted, JSON.stringify(answer));
      most = Math.max(most, open[2]);
      const rivals = open.filter((count, nth) => nth !== index && (nth !== 2 || count < 5));
      assert.ok(rivals.every((count) => open[index] <= count + 1), `${index} of ${open}`);
      picked[names[index]] += 1;
      await release(names[index], id);
    });
    assert.ok(most <= 5, `${most} were open`);
    assert.ok(picked.one > 30 && picked.three > 30, JSON.stringify(picked));
    const health = await owner.get(`${V1}/providers/one/health`);
    assert.equal(health.open, 0);
  });

  test("counts for each of its providers what all others ask of it as well", async () => {
    const [first, second] = [freshId(), freshId()];
    assert.equal((await acquire(first, [candidate("two")], false)).index, 0);
    const again = await acquire(first, [candidate("two")], false);
    assert.equal(again.answer.granted.repeated, true);
    const picked = await acquire(second, [candidate("two"), candidate("three")]);
    assert.deepEqual([picked.index, picked.open], [1, [1, 1]]);
    assert.equal((await owner.get(`${V1}/providers/two/connections`)).open, 1);
    const full = await acquire(freshId(), [candidate("two", { defaults: rules(1) })]);
    assert.equal(full.answer.denied.breach.dimension, "concurrency");
    await release("two", first);
    await release("three", second);
    assert.equal((await owner.get(`${V1}/providers/two/connections`)).open, 0);
  });
});

describe("probes", () => {
  let upstream, admin, behave;
  const provider = (health, more = {}) => ({ dialect: "openai", base_url: `${upstream.url}/v1`, health, ...more });
  const completion = { id: "c", object: "chat.completion", created: 1, model: "m", choices: [{ index: 0, message: { role: "assistant", content: "H" }, finish_reason: "length" }], usage: { prompt_tokens: 8, completion_tokens: 1, total_tokens: 9 } };
  const health = (name) => admin.owner.get(`${V1}/providers/${name}/health`);
  const probes = (name) => admin.owner.all(`${V1}/providers/${name}/health/history?source=probe`);
  const answer = (status, body = {}) => (_, response) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));

  before(async () => {
    upstream = await startUpstream((request, response) => behave(request, response));
    const secrets = { UPSTREAM_KEY: SECRETS.worker };
    const vars = { PRIVATE_UPSTREAM_HOSTS: `${new URL(upstream.url).host},127.0.0.1:9` };
    admin = await startAdmin({ mockUrl: upstream.url, secrets, vars });
    const document = {
      providers: {
        listed: provider({ method: "models", unhealthy_after: 2, healthy_after: 1 }, { credential: "UPSTREAM_KEY" }),
        spoken: provider({ method: "chat", model: "m" }),
        deep: provider({ method: "path", path: "/deep?x=1", timeout_ms: 200 }),
        away: { ...provider({ method: "models" }), base_url: "http://127.0.0.1:9/v1" },
        silent: provider({}),
        rarely: provider({ method: "models", interval_seconds: 86_400 }),
      },
      models: { m: { provider: "spoken", upstream_model: "up" } },
      prices: { m: { input: "1", output: "2" } },
    };
    await admin.owner.put(`${V1}/config/draft`, { document });
    await admin.owner.post(`${V1}/config/publish`, {});
  });
  after(async () => {
    await admin?.stop();
    await upstream?.stop();
  });

  test("ask what is configured, each for itself, and what they found and cost is told", async () => {
    behave = (request, response) => {
      if (request.url.includes("deep")) return;
      answer(200, request.method === "POST" ? completion : {})(request, response);
    };
    await admin.scheduled();
    const seen = upstream.requests.map(({ method, path }) => `${method} ${path}`).filter((line) => !line.includes("deep"));
    assert.deepEqual(seen.sort().slice(0, 2), ["GET /v1/models", "POST /v1/chat/completions"]);
    assert.equal(upstream.requests.find(({ path }) => path === "/v1/models").headers.authorization, `Bearer ${SECRETS.worker}`);
    const chat = JSON.parse(upstream.requests.find(({ method }) => method === "POST").body);
    assert.deepEqual([chat.model, chat.max_tokens], ["up", 1]);
    const last = async (name) => (await health(name)).last_probe;
    const listed = await last("listed");
    assert.deepEqual([listed.healthy, listed.source, listed.cost_nanodollars], [true, "probe", 0]);
    // 8 tokens in at 1,000 nano-dollars each, 1 out at 2,000.
    assert.equal((await last("spoken")).cost_nanodollars, 10_000);
    assert.equal((await health("spoken")).probe_cost_nanodollars, 10_000);
    const deep = await last("deep");
    assert.deepEqual([deep.healthy, deep.detail], [false, "It did not answer within 200 ms."]);
    assert.match((await last("away")).detail, /could not be reached/);
    assert.equal(await last("silent"), null);
  });

  test("take a provider out after so many failures and back after so many successes", async () => {
    const own = async () => (await health("listed")).own?.breaker ?? "closed";
    behave = answer(503);
    await admin.scheduled();
    assert.equal(await own(), "closed", "one is not enough");
    await admin.scheduled();
    assert.equal(await own(), "open");
    await eventually(async () => (await openEvents(admin.owner, "listed")).length === 1, "an alert");
    behave = answer(200);
    await admin.scheduled();
    assert.equal(await own(), "half_open", "requests may try it");
    await admin.scheduled();
    await admin.scheduled();
    assert.equal(await own(), "closed");
    await eventually(async () => (await openEvents(admin.owner, "listed")).length === 0, "the alert is over");
    const history = await probes("listed");
    assert.deepEqual(history.slice(0, 5).map(({ healthy }) => healthy), [true, true, true, false, false]);
    assert.match(history[3].detail, /503/);
  });

  test("leave a provider in maintenance alone", async () => {
    const before = (await probes("listed")).length;
    await admin.owner.put(`${V1}/providers/listed/state`, { state: "maintenance" });
    await admin.scheduled();
    assert.equal((await probes("listed")).length, before);
    await admin.owner.put(`${V1}/providers/listed/state`, { state: "active" });
    await admin.scheduled();
    assert.equal((await probes("listed")).length, before + 1);
  });
});

describe("an open breaker", () => {
  test("survives the end of everything", async (context) => {
    const persist = await mkdtemp(path.join(tmpdir(), "llm-gateway-gauge-"));
    const start = () =>
      startGatewayProcess({ config: null, persist, secrets: { KEY_HASH_SECRET, MASTER_SECRET } });
    const states = async (gateway) => {
      const { states } = await call(gateway, "GAUGE", "p", "POST", "/health", { provider: "p" });
      return states.filter(({ subject }) => subject.deployment).map(({ breaker, openings }) => [breaker, openings]);
    };
    let gateway = await start();
    context.after(async () => {
      await gateway.stop();
      await rm(persist, { recursive: true });
    });
    const terms = { breaker: { open_ms: 60_000 } };
    await report(gateway, "p", requests(5, "p", "m", "server_error"), { terms });
    assert.deepEqual(await states(gateway), [["open", 1]]);
    await gateway.kill();
    gateway = await start();
    assert.deepEqual(await states(gateway), [["open", 1]]);
  });
});
