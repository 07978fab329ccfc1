// What becomes of requests when providers fail: every way to fail is drilled with real connections, and counted on both
// sides. As long as a caller has seen nothing of a reply, another provider answers; a provider that fails is left alone
// soon, and gets back what it can bear.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import OpenAI from "openai";

import { failing, startFleet, targets } from "./fleet.mjs";
import { startGateway } from "./harness.mjs";
import { chat, chatWith, crowd, eventually, tally } from "./limits.mjs";
import { KEY_HASH_SECRET, PROVIDER_SECRETS, freshId, logOf, open, readStream, requestLines, sleep } from "./support.mjs";

/** How the gateway is set: all in all as by default, but quicker. */
const OPEN_MS = 1_000;
const ROUTING = {
  breaker: { consecutive: 5, open_ms: OPEN_MS, max_open_ms: 4_000, trials: 3 },
  slow_start_ms: 2_000,
  report_ms: 200,
};

/** What a provider's first answer may take. */
const FIRST_BYTE_MS = 400;

/**
 * Every way to fail before the caller has seen anything: the fault's name, how often a provider may fail in a row before it
 * is left alone, and for how long it then is.
 */
const FAULTS = {
  refused: { down: true, fault: "unreachable", most: 5 },
  reset: { weather: { fault: "reset" }, fault: "reset", most: 5 },
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
  },
  "html-502": {
    weather: { status: 502, headers: { "content-type": "text/html" }, body: "<html>Bad Gateway</html>" },
    fault: "server_error",
    most: 5,
  },
  nothing: { weather: { status: 200, body: "" }, fault: "bad_reply", most: 5 },
  broken: { weather: { status: 200, body: '{"id": "c", "choi' }, fault: "bad_reply", most: 5 },
  cut: { weather: { fault: "cut" }, fault: "cut", most: 5, lost: true, streams: [false] },
};

const NAMES = Object.keys(FAULTS);

let fleet, gateway, key;
const stops = [];

before(async () => {
  const weathers = {};
  for (const name of NAMES) {
    weathers[`${name}-bad`] = FAULTS[name].weather ?? {};
    weathers[`${name}-good`] = {};
  }
  const started = await startFleet(weathers, () => ({ timeouts: { first_byte_ms: FIRST_BYTE_MS } }));
  fleet = started.fleet;
  stops.push(started.stop);
  const routes = {};
  for (const name of NAMES) routes[name] = { targets: targets(`${name}-bad`, `${name}-good`) };
  gateway = await startGateway({
    config: { providers: started.providers, models: started.models, routes, routing: ROUTING, records: { mode: "all", flush_ms: 200 } },
    vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
    secrets: { KEY_HASH_SECRET, ...PROVIDER_SECRETS },
    keys: [{ name: "app" }],
  });
  key = gateway.keys.app;
  stops.unshift(gateway.stop);
});
after(async () => {
  for (const stop of stops) await stop();
});

/** Asks a route, and gives the reply with its request's id. */
async function asked(model, more = {}) {
  const id = freshId();
  const reply = await chat({ url: gateway.url, key, model, ...more, headers: { "x-request-id": id, ...more.headers } });
  return { id, status: reply.status, headers: reply.headers, text: reply.text };
}

/** The log lines of requests, in their order. */
async function linesOf(replies) {
  const ids = new Set(replies.map(({ id }) => id));
  const lines = await eventually(() => {
    const found = requestLines(gateway).filter(({ request_id }) => ids.has(request_id));
    return found.length >= ids.size && found;
  }, "log lines");
  return replies.map(({ id }) => lines.find(({ request_id }) => request_id === id));
}

describe("a provider that fails before the caller has seen anything is no caller's trouble, and is left alone", () => {
  for (const [name, { down, fault, most, lost, streams = [false, true] }] of Object.entries(FAULTS)) {
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
      const trials = most > 1 || millis < OPEN_MS ? 0 : Math.ceil(millis / OPEN_MS) * 3;
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
      for (const attempt of failed) {
        assert.equal(attempt.lost_usage !== undefined, lost === true, JSON.stringify(attempt));
      }
    });
  }
});
