// What deciding costs a request, in calls of objects: none for any strategy but least connections, which takes one before
// the request, beside the admission, and one after it. And what is reported of it, which nobody waits for.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { counted, counts } from "./counting.mjs";
import { startFleet, targets } from "./fleet.mjs";
import { startGateway } from "./harness.mjs";
import { chat, crowd, limit, makeKeys, settled, tally } from "./limits.mjs";
import { KEY_HASH_SECRET, PROVIDER_SECRETS, sleep } from "./support.mjs";

const REQUESTS = 200;
const REPORT_MS = 500;

const ABC = ["a", "b", "c"];
const GROUPS = {
  turn: { strategy: "round_robin" },
  share: { strategy: "weighted" },
  split: { strategy: "split" },
  stick: { strategy: "weighted", sticky: { by: "session" } },
  cheap: { strategy: "lowest_cost" },
  first: { strategy: "ordered" },
  least: { strategy: "least_connections" },
};
const QUICK = { quick: { strategy: "lowest_latency" } };
const named = (prefix) => ABC.map((letter) => `${prefix}-${letter}`);

let calm, comparing;
const stops = [];

async function gatewayWith(groups, routing = {}) {
  const started = await startFleet(Object.fromEntries(Object.keys(groups).flatMap(named).map((name) => [name, {}])));
  stops.push(started.stop);
  const routes = Object.entries(groups).map(([name, route]) => [name, { ...route, targets: targets(...named(name)) }]);
  const gateway = await startGateway({
    config: {
      providers: started.providers,
      models: started.models,
      routes: Object.fromEntries(routes),
      routing: { report_ms: REPORT_MS, ...routing },
    },
    vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
    secrets: { KEY_HASH_SECRET, ...PROVIDER_SECRETS },
    keys: [{ name: "app" }],
    ...counted(),
  });
  stops.unshift(gateway.stop);
  return gateway;
}

before(async () => {
  [calm, comparing] = [await gatewayWith(GROUPS), await gatewayWith(QUICK)];
});
after(async () => {
  for (const stop of stops) await stop();
});

/** Sends requests, and tells what gauges were asked meanwhile; `every` so many milliseconds, if they are not to hurry. */
async function asked(gateway, model, { requests = REQUESTS, every = 0 } = {}) {
  const ask = async (nth, name = model) => {
    const headers = { "x-session-id": `s${nth % 20}` };
    const [reply] = await Promise.all([chat({ url: gateway.url, key: gateway.keys.app, model: name, headers }), sleep(every)]);
    return reply;
  };
  // Gauges that are asked for the first time set up their tables.
  for (const name of named(model)) await ask(0, name);
  await sleep(500);
  await counts(gateway);
  const began = Date.now();
  assert.deepEqual(tally(await crowd(requests, (nth) => ask(nth), every ? 1 : 8)), { 200: requests });
  const took = Date.now() - began;
  await settled(gateway, "demo");
  const { gauge } = await counts(gateway);
  console.log(`${requests} requests to ${model} in ${took} ms: ${JSON.stringify(gauge)}`);
  const { "/report": reports = 0, alarm = 0, ...others } = gauge.calls;
  return { reports, others, took, rows: gauge.rows, alarms: alarm };
}

describe("gauges are asked", () => {
  for (const group of Object.keys(GROUPS).filter((name) => name !== "least")) {
    test(`nothing on the way of a request by ${group}`, { timeout: 60_000 }, async () => {
      const { reports, others, took, rows } = await asked(calm, group);
      assert.deepEqual(others, {});
      assert.equal(rows, 0);
      assert.ok(reports <= 3 * (took / REPORT_MS + 2), `${reports} reports to three gauges in ${took} ms`);
    });
  }

  test("nothing on the way of a request by lowest latency", { timeout: 60_000 }, async () => {
    const { reports, others, took } = await asked(comparing, "quick");
    assert.deepEqual(others, {});
    assert.ok(reports <= 3 * (took / REPORT_MS + 2), `${reports} reports to three gauges in ${took} ms`);
  });

  test("once before and once after a request by least connections", { timeout: 60_000 }, async () => {
    const { reports, others, took, rows, alarms } = await asked(calm, "least");
    assert.deepEqual(others, { "/acquire": REQUESTS, "/release": REQUESTS });
    assert.equal(rows, 0);
    assert.ok(alarms <= took / 5_000 + 1, `${alarms} alarms in ${took} ms`);
    assert.ok(reports <= took / REPORT_MS + 2, `${reports} reports to one gauge in ${took} ms`);
  });

  test("rarely, where there is little to tell, but for those who compare latencies", { timeout: 60_000 }, async () => {
    // Slower than a report would be due after each.
    const slowly = { requests: 12, every: REPORT_MS + 100 };
    const [rare, often] = await Promise.all([asked(calm, "first", slowly), asked(comparing, "quick", slowly)]);
    assert.ok(rare.reports <= rare.took / (10 * REPORT_MS) + 1, `${rare.reports} reports of 12 successes`);
    assert.ok(often.reports >= 12 - 3, `${often.reports} reports of 12 successes`);
  });
});

test("the gauge's pick and the ledger's admission are under way at the same time", { timeout: 30_000 }, async () => {
  const millis = 400;
  await limit(calm, "limited", { dimension: "requests", period: "minute", amount: 10 ** 6 });
  const [{ key }] = await makeKeys(calm, [{ account: "limited" }]);
  const ask = () => chat({ url: calm.url, key, model: "least" });
  // The first one finds out that limits apply.
  assert.equal((await ask()).status, 200);
  await sleep(2_500);
  await counts(calm, { "/acquire": millis, "/admit": millis });
  const began = Date.now();
  assert.equal((await ask()).status, 200);
  const took = Date.now() - began;
  const { spans } = await counts(calm);
  const [acquire, admit] = ["/acquire", "/admit"].map((path) => spans.filter((span) => span.path === path));
  assert.deepEqual([acquire.length, admit.length], [1, 1]);
  assert.ok(acquire[0].from < admit[0].to && admit[0].from < acquire[0].to, JSON.stringify(spans));
  assert.ok(took >= millis && took < 2 * millis, `${took} ms`);
});
