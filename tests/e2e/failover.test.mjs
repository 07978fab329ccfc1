// What becomes of requests when providers fail: every way to fail is drilled with real connections, and counted on both
// sides. As long as a caller has seen nothing of a reply, another provider answers, and a provider that fails is left alone
// soon. (What happens under load, and when it is back: outages.test.mjs.)

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import OpenAI from "openai";

import { ROUTING, askedAt, failing, linesAt, startFleet, targets } from "./fleet.mjs";
import { startGateway } from "./harness.mjs";
import { books, chatWith, eventually, limit, makeKeys, settled, tally } from "./limits.mjs";
import { KEY_HASH_SECRET, LANES, PROVIDER_SECRETS, assertBrokenOff, freshId, logOf, open, readStream, requestLines } from "./support.mjs";

/** What a provider's first answer may take. */
const FIRST_BYTE_MS = 400;

/**
 * Every way to fail before the caller has seen anything: the fault's name, how often a provider may fail in a row before it
 * is left alone, and for how long it then is.
 */
const FAULTS = {
  refused: { down: true, fault: "unreachable", most: 5 },
  // The runtime does not tell a connection that broke from one that never came about.
  reset: { weather: { fault: "reset" }, fault: "unreachable", most: 5 },
  silent: { weather: { fault: "hang" }, fault: "too_slow", most: 5, streams: [true] },
  "late-event": { weather: { first: 60_000 }, fault: "too_slow", most: 5, streams: [true] },
  "status-500": { weather: failing(500), fault: "server_error", most: 5 },
  "status-503": { weather: failing(503), fault: "server_error", most: 5 },
  "status-529": { weather: failing(529, { type: "overloaded_error" }), fault: "overloaded", most: 5 },
  "rate-told": { weather: failing(429, { type: "requests" }, { "retry-after": "3" }), fault: "rate_limited", most: 1 },
  "rate-untold": { weather: failing(429, { type: "requests" }), fault: "rate_limited", most: 1 },
  "quota-429": { weather: failing(429, { type: "insufficient_quota" }), fault: "quota_exhausted", most: 1 },
  "quota-402": { weather: failing(402), fault: "quota_exhausted", most: 1 },
  "status-401": { weather: failing(401, { code: "invalid_api_key" }), fault: "auth", most: 1 },
  "status-403": { weather: failing(403), fault: "auth", most: 1 },
  "no-model": { weather: failing(404, { code: "model_not_found" }), fault: "model_not_found", most: 5 },
  "html-200": {
    weather: { status: 200, headers: { "content-type": "text/html" }, body: "<html>Hello</html>" },
    fault: "bad_reply",
    most: 5,
    lost: null,
  },
  "html-502": {
    weather: { status: 502, headers: { "content-type": "text/html" }, body: "<html>Bad Gateway</html>" },
    fault: "server_error",
    most: 5,
  },
  nothing: { weather: { status: 200, body: "" }, fault: "bad_reply", most: 5, lost: null },
  broken: { weather: { status: 200, body: '{"id": "c", "choi' }, fault: "bad_reply", most: 5, lost: true },
  cut: { weather: { fault: "cut" }, fault: "cut", most: 5, lost: true, streams: [false] },
};

const NAMES = Object.keys(FAULTS);

const BAD_REQUEST = failing(400, { type: "invalid_request_error", code: "invalid_value" });
const TOO_LONG = failing(400, { code: "context_length_exceeded" });
const REFUSED_CONTENT = failing(400, { code: "content_policy_violation" });

/** The providers of the other drills, with their weather at first. */
const OTHERS = {
  "wrong-a": BAD_REQUEST,
  "wrong-b": {},
  "long-a": TOO_LONG,
  "long-b": {},
  "long-c": {},
  "content-a": REFUSED_CONTENT,
  "content-b": {},
  "most-a": failing(500),
  "most-b": failing(500),
  "most-c": failing(500),
  "most-d": {},
  "late-a": { ...failing(500), latency: 400 },
  "late-b": { latency: 5_000 },
  "mute-a": { fault: "hang" },
  "mute-b": {},
  "begun-a": { fault: "stall" },
  "begun-b": {},
  "torn-a": { fault: "break" },
  "torn-b": {},
  "pause-a": {},
  "pause-b": {},
  alone: {},
  "sdk-a": { fault: "reset" },
  "sdk-b": failing(503),
  "sdk-c": {},
  "explained-off": {},
  "explained-a": failing(500),
  "explained-b": {},
};

/** What models have besides their provider. */
const CONTEXTS = { "long-a": 1_000, "long-b": 1_000, "long-c": 8_000 };

const ROUTES = {
  wrong: { targets: targets("wrong-a", "wrong-b") },
  long: { targets: targets("long-a", "long-b", "long-c") },
  content: { targets: targets("content-a", "content-b") },
  "content-elsewhere": { targets: targets("content-a"), fallbacks: { content_policy: ["content-b"] } },
  most: { targets: targets("most-a", "most-b", "most-c", "most-d") },
  "most-two": { targets: targets("most-a", "most-b", "most-d"), retry: { max_attempts: 2 } },
  "most-not": { targets: targets("most-a", "most-d"), retry: { retry_on: ["unreachable"] } },
  late: { targets: targets("late-a", "late-b") },
  mute: { targets: targets("mute-a", "mute-b"), retry: { attempt_ms: 300 } },
  begun: { targets: targets("begun-a", "begun-b") },
  torn: { targets: targets("torn-a", "torn-b") },
  pause: { targets: targets("pause-a", "pause-b") },
  sdk: { targets: targets("sdk-a", "sdk-b", "sdk-c") },
  explained: { targets: targets({ model: "explained-off", enabled: false }, "explained-a", "explained-b") },
};

let fleet, gateway, key;
const stops = [];

before(async () => {
  const weathers = { ...OTHERS };
  for (const name of NAMES) {
    weathers[`${name}-bad`] = FAULTS[name].weather ?? {};
    weathers[`${name}-good`] = {};
  }
  const timeouts = { first_byte_ms: FIRST_BYTE_MS, idle_ms: FIRST_BYTE_MS };
  const started = await startFleet(weathers, (name) => ({ timeouts: name === "late-b" ? undefined : timeouts }));
  fleet = started.fleet;
  stops.push(started.stop);
  const { providers, models } = started;
  for (const [name, context_tokens] of Object.entries(CONTEXTS)) models[name].context_tokens = context_tokens;
  const routes = { ...ROUTES };
  for (const name of NAMES) routes[name] = { targets: targets(`${name}-bad`, `${name}-good`) };
  const prices = Object.fromEntries(Object.keys(models).map((name) => [name, { input: "1.37", output: "4.01" }]));
  gateway = await startGateway({
    config: { providers, models, routes, prices, routing: ROUTING, records: { mode: "all", flush_ms: 200 } },
    vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
    secrets: { KEY_HASH_SECRET, ...PROVIDER_SECRETS },
    keys: [{ name: "app" }],
  });
  key = gateway.keys.app;
  stops.unshift(gateway.stop);
  await limit(gateway, "demo", { dimension: "cost", period: "month", amount: 10 ** 13 });
});
after(async () => {
  for (const stop of stops) await stop();
});

const asked = (model, more) => askedAt(gateway, model, more);
const linesOf = (replies) => linesAt(gateway, replies);

describe("a provider that fails before the caller has seen anything is no caller's trouble, and is left alone", () => {
  for (const [name, { down, fault, most, lost = false, streams = [false, true] }] of Object.entries(FAULTS)) {
    test(name, { timeout: 30_000 }, async () => {
      const bad = fleet[`${name}-bad`];
      const good = fleet[`${name}-good`];
      if (down) await bad.down();
      const began = Date.now();
      const replies = [];
      for (let nth = 0; nth < 16; nth += 1) replies.push(await asked(name, { stream: streams[nth % streams.length] }));
      const millis = Date.now() - began;
      assert.deepEqual(tally(replies), { 200: 16 }, replies.find(({ status }) => status !== 200)?.text);
      assert.equal(good.visits.length, 16, "each was answered by the good one");
      for (const { text } of replies.filter(({ headers }) => headers["content-type"].startsWith("text/event-stream"))) {
        assert.match(text, /data: \[DONE\]\n\n$/);
      }
      const lines = await linesOf(replies);
      const attempts = lines.flatMap(({ tried = [] }) => tried);
      const failed = attempts.filter(({ outcome }) => outcome !== "ok");
      const outcomes = [...new Set(failed.map(({ outcome }) => outcome))];
      console.log(`${name}: ${failed.length} of 16 requests met it (${outcomes}), ${millis} ms for all`);
      assert.deepEqual(outcomes, [fault]);
      // Where all took longer than it was left alone for, it was tried again.
      const trials = most > 1 || millis < ROUTING.breaker.open_ms ? 0 : Math.ceil(millis / ROUTING.breaker.open_ms) * 3;
      assert.ok(failed.length <= most + trials, `${failed.length} attempts, not more than ${most}`);
      if (!down) assert.equal(bad.visits.length, failed.length, "what the provider has seen");
      assert.equal(replies[0].headers["x-gateway-attempts"], "2");
      assert.equal(replies[0].headers["x-gateway-provider"], `${name}-good`);
      assert.equal(replies.at(-1).headers["x-gateway-attempts"], "1");
      const [first] = lines;
      const told = first.tried.map(({ deployment, provider, outcome }) => ({ deployment, provider, outcome }));
      assert.deepEqual(told, [
        { deployment: `${name}-bad`, provider: `${name}-bad`, outcome: fault },
        { deployment: `${name}-good`, provider: `${name}-good`, outcome: "ok" },
      ]);
      assert.equal(first.attempts, 2);
      for (const attempt of failed.filter(() => lost !== null)) {
        assert.equal(attempt.lost_usage !== undefined, lost, JSON.stringify(attempt));
        assert.equal((attempt.lost_nanodollars ?? 0) > 0, lost, JSON.stringify(attempt));
      }
    });
  }
});

describe("what another attempt cannot help with is not tried again", () => {
  test("a request that is wrong is told so, and takes nobody out of service", { timeout: 30_000 }, async () => {
    const replies = [];
    for (let nth = 0; nth < 12; nth += 1) replies.push(await asked("wrong"));
    assert.deepEqual(tally(replies), { 400: 12 });
    assert.match(replies[0].text, /invalid_value/);
    assert.equal(replies[0].headers["x-gateway-attempts"], "1");
    assert.deepEqual([fleet["wrong-a"].visits.length, fleet["wrong-b"].visits.length], [12, 0]);
  });

  test("one that is too long goes to a model with a larger context only", { timeout: 30_000 }, async () => {
    const replies = [];
    for (let nth = 0; nth < 8; nth += 1) replies.push(await asked("long"));
    assert.deepEqual(tally(replies), { 200: 8 });
    const visits = ["long-a", "long-b", "long-c"].map((name) => fleet[name].visits.length);
    assert.deepEqual(visits, [8, 0, 8], "nobody is out of service for it");
    const { tried } = await logOf(gateway, replies[0].id);
    assert.deepEqual(tried.map(({ outcome }) => outcome), ["context_length", "ok"]);
  });

  test("one that is refused for its content goes elsewhere only where a route says so", { timeout: 30_000 }, async () => {
    const refused = await asked("content");
    assert.deepEqual([refused.status, refused.headers["x-gateway-attempts"]], [400, "1"]);
    assert.match(refused.text, /content_policy_violation/);
    assert.equal(fleet["content-b"].visits.length, 0);
    const elsewhere = await asked("content-elsewhere");
    assert.deepEqual([elsewhere.status, elsewhere.headers["x-gateway-attempts"]], [200, "2"], elsewhere.text);
    assert.equal(fleet["content-b"].visits.length, 1);
  });

  test("there are no more attempts than configured, and only after the faults that are", { timeout: 30_000 }, async () => {
    const outcome = async (model) => {
      const { id, status, headers } = await asked(model);
      const { attempts, tried = [] } = await logOf(gateway, id);
      return [status, Number(headers["x-gateway-attempts"]), attempts, tried.length];
    };
    assert.deepEqual(await outcome("most"), [500, 3, 3, 3]);
    assert.deepEqual(await outcome("most-two"), [500, 2, 2, 2]);
    assert.deepEqual(await outcome("most-not"), [500, 1, 1, 1]);
    assert.equal(fleet["most-d"].visits.length, 0);
  });

  test("the time that a caller gives is that of all attempts", { timeout: 30_000 }, async () => {
    for (const stream of [false, true]) {
      const began = Date.now();
      const reply = await asked("late", { stream, headers: { "x-gateway-timeout-ms": "900" } });
      const millis = Date.now() - began;
      console.log(`a caller that gives 900 ms hears after ${millis} ms: ${reply.status}`);
      assert.equal(reply.status, 504, reply.text);
      assert.ok(millis >= 850 && millis < 2_000, `${millis} ms`);
      assert.equal(reply.headers["x-gateway-attempts"], "2");
    }
    await eventually(() => fleet["late-b"].open === 0, "the provider is not asked any longer");
  });

  for (const [name, what] of Object.entries({ begun: "falls silent", torn: "breaks off" })) {
    test(`a stream that ${what} once the caller has seen its beginning ends with an error`, { timeout: 30_000 }, async () => {
      const lane = LANES.relayed;
      const once = async () => {
        const id = freshId();
        const request = chatWith({ url: gateway.url, key, model: name, stream: true, headers: { "x-request-id": id } });
        return { id, ...(await readStream(await open(request), lane.api)) };
      };
      const first = await once();
      assertBrokenOff(first, lane);
      assert.notEqual(first.text, "", "the beginning has come");
      assert.equal(first.headers["x-gateway-attempts"], "1");
      assert.equal(fleet[`${name}-b`].visits.length, 0, "nobody else is asked");
      for (let nth = 1; nth < 5; nth += 1) assertBrokenOff(await once(), lane);
      // Its faults count all the same.
      const sixth = await eventually(async () => {
        const read = await once();
        return read.errors.length === 0 && read;
      }, "the other one answers", { timeout: 3_000 });
      assert.equal(sixth.headers["x-gateway-provider"], `${name}-b`);
      console.log(`${name}: the provider was asked ${fleet[`${name}-a`].visits.length} times`);
      assert.ok(fleet[`${name}-a`].visits.length <= 6);
    });
  }
});

describe("a provider that says nothing", () => {
  test("is given up for another after the time that the route sets an attempt", { timeout: 30_000 }, async () => {
    for (const stream of [false, true]) {
      const began = Date.now();
      const reply = await asked("mute", { stream });
      assert.deepEqual([reply.status, reply.headers["x-gateway-provider"], reply.headers["x-gateway-attempts"]], [200, "mute-b", "2"]);
      const took = Date.now() - began;
      assert.ok(took >= 290 && took < 5_000, `${took} ms`);
    }
    // Nobody is left to give it up for.
    fleet["mute-b"].weather = { latency: 600 };
    assert.equal((await asked("mute")).status, 200);
  });
});

describe("a provider that asks for a pause", () => {
  test("gets no request until it is over, and then gets them again", { timeout: 30_000 }, async () => {
    const [paused, other] = [fleet["pause-a"], fleet["pause-b"]];
    paused.weather = failing(429, { type: "requests" }, { "retry-after": "3" });
    assert.equal((await asked("pause")).headers["x-gateway-provider"], "pause-b");
    const told = paused.visits.at(-1).ended;
    paused.weather = {};
    const back = await eventually(async () => {
      await asked("pause");
      return paused.visits.at(1);
    }, "it is asked again", { timeout: 10_000, interval: 25 });
    const silence = back.at - told;
    console.log(`retry-after 3 s: silence for ${silence} ms, while the other one answered ${other.visits.length}`);
    assert.ok(silence >= 2_950 && silence < 4_500, `${silence} ms`);
  });

  test("is asked again by the same request where there is nobody else", { timeout: 30_000 }, async () => {
    fleet.alone.weather = () => (fleet.alone.visits.length === 1 ? failing(429, {}, { "retry-after": "1" }) : {});
    const began = Date.now();
    const { id, status, headers, text } = await asked("alone");
    assert.deepEqual([status, headers["x-gateway-attempts"]], [200, "2"], text);
    const millis = Date.now() - began;
    assert.ok(millis >= 1_000 && millis < 3_000, `${millis} ms`);
    const { tried } = await logOf(gateway, id);
    assert.ok(tried[1].waited_ms >= 1_000, JSON.stringify(tried));
  });

  test("for longer than a request may wait leads to its answer", { timeout: 30_000 }, async () => {
    fleet.alone.forget();
    fleet.alone.weather = failing(429, {}, { "retry-after": "60" });
    const first = await asked("alone");
    assert.deepEqual([first.status, first.headers["retry-after"]], [429, "60"], first.text);
    const second = await asked("alone");
    assert.equal(second.status, 429, second.text);
    assert.ok(Number(second.headers["retry-after"]) > 50, JSON.stringify(second.headers));
    assert.equal(fleet.alone.visits.length, 1, "it is not even asked");
  });
});

test("OpenAI's SDK sees one clean answer", { timeout: 30_000 }, async () => {
  const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: key, maxRetries: 0 });
  const messages = [{ role: "user", content: "Hello" }];
  const whole = await client.chat.completions.create({ model: "sdk", messages });
  assert.equal(whole.choices[0].message.content, "Well, well.");
  const stream = await client.chat.completions.create({ model: "sdk", messages, stream: true });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  assert.equal(text, "Well, well.");
  assert.deepEqual([fleet["sdk-a"].visits.length, fleet["sdk-b"].visits.length], [2, 2]);
});

describe("what a caller is told of it", () => {
  const explained = async (who, headers = { "x-gateway-explain": "true" }) => {
    const reply = await asked("explained", { key: who, headers });
    assert.equal(reply.status, 200, reply.text);
    return reply.headers["x-gateway-explain"];
  };

  test("is how it was decided, where its key may know", { timeout: 30_000 }, async () => {
    const [plain, curious] = await makeKeys(gateway, [
      { account: "demo" },
      { account: "demo", overrides: { explain: true } },
    ]);
    const told = JSON.parse(await explained(curious.key));
    assert.equal(told.strategy, "ordered");
    assert.deepEqual(told.candidates.map(({ model }) => model), ["explained-a", "explained-b"]);
    assert.deepEqual(told.skipped.map(({ model }) => model), ["explained-off"]);
    assert.ok(told.skipped[0].reason.length > 0);
    assert.deepEqual(
      told.attempts.map(({ deployment, outcome, status }) => [deployment, outcome, status]),
      [
        ["explained-a", "server_error", 500],
        ["explained-b", "ok", 200],
      ],
    );
    assert.equal(await explained(curious.key, {}), undefined, "unless it asks, it is not told");
    assert.equal(await explained(plain.key), undefined, "others are not told");
  });
});

test("after all of this, ledger, database and records say the same", { timeout: 60_000 }, async () => {
  await settled(gateway, "demo");
  const { ledger, database, records } = await eventually(async () => {
    const seen = await books(gateway, "demo");
    return seen.records.cost === seen.ledger.cost && seen;
  }, "the records are written", { timeout: 5_000 }).catch(() => books(gateway, "demo"));
  console.log(JSON.stringify({ ledger, database, records }));
  assert.deepEqual(database, ledger);
  assert.equal(records.cost, ledger.cost);
  assert.equal(records.told, ledger.cost);
  const lines = requestLines(gateway);
  const cost = lines.reduce((sum, line) => sum + (line.cost_nanodollars ?? 0), 0);
  assert.equal(cost, ledger.cost, "the log says so too");
});
