// What would become of a request now: what is told must be what a real request meets right after, and telling it must
// leave no trace.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { Caller, startAdmin, userWith } from "./admin.mjs";
import { V1 } from "./catalog.mjs";
import { failing, startFleet, targets } from "./fleet.mjs";
import { ROOT } from "./harness.mjs";
import { call, chat } from "./limits.mjs";
import { eventually } from "./support.mjs";

const ABC = ["a", "b", "c"];

/** Providers whose health tests change, besides those that stay well. */
const SICK = ["failing", "limited", "drained"];

/** How long gauges are waited for: what is told is no older. */
const ASKING_MS = 3_000;

/** How many requests may be open at the provider of this name. */
const ROOM = 1;

const weighing = (weights) => ABC.map((model, nth) => ({ model, weight: weights[nth] }));

const ROUTES = {
  ordered: { targets: targets(...ABC) },
  turn: { strategy: "round_robin", targets: targets(...ABC) },
  share: { strategy: "weighted", targets: weighing([5, 3, 2]) },
  split: { strategy: "split", targets: weighing([90, 9, 1]) },
  quick: { strategy: "lowest_latency", targets: targets(...ABC) },
  cheap: { strategy: "lowest_cost", targets: targets(...ABC) },
  least: { strategy: "least_connections", targets: targets("one", "two", "three") },
  stick: { strategy: "split", targets: weighing([1, 1, 1]), sticky: { by: "session" } },
  given: { targets: [{ model: "b", when: { headers: { "x-team": ["blue"] } } }, { model: "a" }] },
  nest: { targets: [{ route: "turn" }, { model: "one", priority: 1 }] },
  sick: { targets: targets(...SICK, "a") },
  roomy: { targets: targets("room", "a") },
  chat: { strategy: "weighted", targets: targets("a", "b"), sticky: { by: "session" } },
};

const PRICES = {
  a: { input: "3", output: "15" },
  b: { input: "1", output: "40" },
  c: { input: "2", output: "2" },
};

let at, fleet, here, there, key, team;
const stops = [];

before(async () => {
  const names = [...ABC, ...SICK, "one", "two", "three", "room"];
  const weathers = Object.fromEntries(names.map((name) => [name, {}]));
  const limits = [{ dimension: "concurrency", period: "none", amount: ROOM }];
  const started = await startFleet(weathers, (name) => ({ credential: undefined, ...(name === "room" && { limits }) }));
  fleet = started.fleet;
  stops.push(started.stop);
  at = await startAdmin({ vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" }, isolates: 2 });
  stops.unshift(at.stop);
  const { providers, models } = started;
  const document = {
    providers,
    models,
    routes: ROUTES,
    prices: PRICES,
    http: { explain: true },
    routing: { slow_start_ms: 0, max_attempts: 3, breaker: { open_ms: 60_000 } },
  };
  here = at.owner;
  there = new Caller(at.urls[1], here.token);
  await here.put(`${V1}/config/draft`, { document });
  await here.post(`${V1}/config/publish`, {});
  await here.post(`${V1}/accounts`, { id: "team", name: "Team" });
  team = await here.post(`${V1}/accounts/team/keys`, { name: "app" });
  key = team.api_key;
  // A busy isolate knows of a publication within two seconds.
  const answers = async (isolate) => (await really("a", { isolate })).status === 200;
  await eventually(async () => (await answers(0)) && (await answers(1)), "both isolates have the configuration");
});
after(async () => {
  for (const stop of stops) await stop();
});

/** What is told of a request; no provider hears of it. */
async function simulated(sample, caller = here) {
  const visits = () => Object.values(fleet).map((provider) => provider.visits.length);
  const before = visits();
  const told = await caller.post(`${V1}/simulate`, sample);
  assert.deepEqual(visits(), before, "nobody was asked");
  return told;
}

/** A real request, with what it was told of itself. */
async function really(model, { isolate = 0, headers = {}, ...more } = {}) {
  const reply = await chat({ url: at.urls[isolate], key, model, headers: { "x-gateway-explain": "true", ...headers }, ...more });
  const header = reply.headers["x-gateway-explain"];
  return { status: reply.status, told: header && JSON.parse(header), model: reply.headers["x-gateway-model"], text: reply.text };
}

const order = ({ candidates }) => candidates.map(({ model }) => model);

/** What does not change from one moment to the next. */
const lasting = ({ candidates }) =>
  candidates.map(({ model, provider, path, priority, weight, share_ppm, why }) => ({ model, provider, path, priority, weight, share_ppm, why }));

const skipped = (told, model) => told.skipped.find((it) => it.model === model);

describe("what is told", () => {
  const cases = [
    ["ordered", {}],
    ["turn", {}],
    ["share", {}],
    ["cheap", { max_tokens: 100 }],
    ["nest", {}],
    ["least", {}],
    ["given", {}],
    ["given", { headers: { "x-team": "blue" } }],
    ["stick", { headers: { "x-session-id": "one" } }],
    ["stick", { headers: { "x-session-id": "another" } }],
    ["a", {}],
  ];
  for (const [model, { headers, ...fields }] of cases) {
    test(`of ${model} ${JSON.stringify(headers ?? {})} is what a request meets right after`, async () => {
      // Turns begin with a draw.
      await really(model, { headers, ...fields });
      for (let nth = 0; nth < 4; nth += 1) {
        const sample = { model, key_id: team.id, input_tokens: 10, max_tokens: 100, headers };
        const told = await simulated(sample);
        assert.deepEqual(await simulated(sample).then(order), order(told), "telling it takes nobody's turn");
        const real = await really(model, { headers, ...fields });
        assert.equal(real.status, 200, real.text);
        assert.deepEqual(lasting(told), lasting(real.told));
        assert.deepEqual([told.error, told.target.model, told.silent], [null, real.model, []]);
        for (const { heard_ms_ago: heard } of told.candidates) assert.ok(heard !== null && heard < ASKING_MS, `${heard} ms`);
      }
    });
  }

  for (const [model, shares] of [
    ["split", { a: 900_000, b: 90_000, c: 10_000 }],
    ["turn", { a: 333_333, b: 333_333, c: 333_333 }],
    ["share", { a: 500_000, b: 300_000, c: 200_000 }],
    ["cheap", { a: 0, b: 0, c: 1_000_000 }],
  ]) {
    test(`of ${model} is who would come first how often`, async () => {
      const told = await simulated({ model, max_tokens: 1_000 });
      assert.deepEqual(Object.fromEntries(told.candidates.map((it) => [it.model, it.share_ppm])), shares);
      const real = (await really(model, { max_tokens: 1_000 })).told;
      assert.deepEqual(Object.fromEntries(real.candidates.map((it) => [it.model, it.share_ppm])), shares);
    });
  }

  test("of the lowest latency is what it is measured by", async () => {
    for (let nth = 0; nth < 6; nth += 1) await really("quick", { stream: true });
    const known = ({ candidates }) => candidates.some(({ usual_ms: usual }) => usual !== null);
    assert.ok(known(await simulated({ model: "quick" })), "what it has seen");
    assert.ok(known(await simulated({ model: "quick" }, there)), "and the other isolate has heard of it");
    const { candidates } = await simulated({ model: "quick" });
    assert.deepEqual(order({ candidates }).sort(), ABC);
    const all = candidates.reduce((sum, { share_ppm: share }) => sum + share, 0);
    assert.ok(Math.abs(all - 1_000_000) < 10, `${all}`);
  });

  test("of the cheapest is what each would cost", async () => {
    const { candidates, cost } = await simulated({ model: "cheap", input_tokens: 1_000, max_tokens: 100 });
    const costs = Object.fromEntries(candidates.map((it) => [it.model, it.cost_nanodollars]));
    assert.deepEqual(costs, { a: 4_500_000, b: 5_000_000, c: 2_200_000 });
    assert.equal(cost.max_nanodollars, 2_200_000);
  });

  test("of the fewest connections is what the gauge counts of all isolates", async () => {
    const hold = (name) => ((fleet[name].weather = { latency: 2_500 }), really(name, { isolate: 1 }));
    const held = [hold("one"), hold("three")];
    await eventually(() => fleet.one.open + fleet.three.open === 2, "both are there");
    const open = async () => (await simulated({ model: "least" })).candidates.map((it) => [it.model, it.open]);
    await eventually(async () => JSON.stringify(await open()) === '[["two",0],["one",1],["three",1]]', "both are counted");
    const counted = () => call(at, "GAUGE", "one", "POST", "/state", { provider: "two" });
    const { open: before, totals } = await counted();
    const told = await simulated({ model: "least" });
    assert.deepEqual([told.target.model, told.candidates[0].score], ["two", "0 open for a weight of 1000"]);
    const now = await counted();
    assert.deepEqual([now.open, now.totals], [before, totals], "nothing was reserved");
    assert.equal((await really("least")).model, "two");
    await Promise.all(held);
    for (const name of ["one", "three"]) fleet[name].weather = {};
  });

  test("of a provider that is as full as it may be is where the request goes instead", async () => {
    fleet.room.weather = { latency: 2_500 };
    const held = really("room", { isolate: 1 });
    await eventually(() => fleet.room.open === ROOM, "it is there");
    const told = await simulated({ model: "roomy" });
    assert.deepEqual([order(told), skipped(told, "room").code, told.error], [["a"], "full", null]);
    const alone = await simulated({ model: "room" });
    assert.deepEqual([alone.target, alone.error.status, alone.error.code], [null, 429, "provider_limit"]);
    const real = await really("room");
    assert.deepEqual([real.status, JSON.parse(real.text).error.code], [429, "provider_limit"]);
    await held;
    fleet.room.weather = {};
    const { provider_limits: limits } = await simulated({ model: "room" });
    assert.deepEqual(limits.map(({ limit, used, scope }) => [limit, used, scope]), [[ROOM, 0, "provider"]]);
  });
});

describe("who is passed over", () => {
  test("is told with the reason and the time, also by an isolate that has seen nothing of it", async () => {
    fleet.failing.weather = failing(500);
    for (let nth = 0; nth < 6; nth += 1) await really("failing", { isolate: 1 });
    fleet.limited.weather = failing(429, {}, { "retry-after": "60" });
    await really("limited", { isolate: 1 });
    await eventually(async () => {
      const told = await simulated({ model: "sick" });
      return skipped(told, "failing") && skipped(told, "limited");
    }, "their gauges have heard of it");
    const told = await simulated({ model: "sick" });
    const [open, cooling] = ["failing", "limited"].map((name) => skipped(told, name));
    assert.deepEqual([open.code, open.route, cooling.code], ["open", "sick", "cooling_down"]);
    assert.ok(open.back_in_ms > 30_000 && open.back_in_ms <= 72_000, `${open.back_in_ms} ms`);
    assert.ok(cooling.back_in_ms > 40_000 && cooling.back_in_ms <= 60_000, `${cooling.back_in_ms} ms`);
    assert.match(open.reason, /is tried again in \d+ ms/);
    for (const { heard_ms_ago: heard } of [open, cooling]) assert.ok(heard < ASKING_MS, `${heard} ms`);
    assert.deepEqual(order(told), ["drained", "a"]);
    assert.equal((await really("sick")).model, "drained");
    const alone = await simulated({ model: "limited" });
    assert.deepEqual([alone.target, alone.error.status, alone.error.code], [null, 429, "provider_rate_limited"]);
  });

  test("may have been drained by an operator", async () => {
    await here.put(`${V1}/providers/drained/state`, { state: "draining" });
    await eventually(async () => skipped(await simulated({ model: "sick" }), "drained"), "the isolate knows");
    const told = await simulated({ model: "sick" });
    assert.deepEqual([skipped(told, "drained").code, told.target.model], ["draining", "a"]);
    assert.equal((await really("sick")).model, "a");
    await here.put(`${V1}/providers/drained/state`, { state: "active" });
    await eventually(async () => !skipped(await simulated({ model: "sick" }), "drained"), "the isolate knows it is back");
  });

  test("may be so by a condition", async () => {
    const told = await simulated({ model: "given", headers: { "x-team": "red" } });
    const { code, reason, route, back_in_ms: back } = skipped(told, "b");
    assert.deepEqual([code, route, back], ["condition", "given", null]);
    assert.match(reason, /x-team/);
  });
});

describe("a key", () => {
  test("that may not is told what its caller would be", async () => {
    const { id } = await here.post(`${V1}/accounts/team/keys`, { name: "narrow", models: ["ordered"] });
    const told = await simulated({ model: "turn", key_id: id });
    assert.deepEqual([told.error.status, told.error.code, told.target], [404, "model_not_found", null]);
    assert.equal((await simulated({ model: "ordered", key_id: id })).error, null);
  });

  test("whose budget is spent is told 402, and nothing is reserved", async () => {
    await here.post(`${V1}/accounts`, { id: "poor", name: "Poor" });
    const poor = await here.post(`${V1}/accounts/poor/keys`, { name: "poor" });
    const budget = await here.post(`${V1}/accounts/poor/limits`, { dimension: "cost", period: "month", amount: 1_000 });
    const told = await simulated({ model: "cheap", key_id: poor.id, input_tokens: 1_000 });
    assert.deepEqual([told.error.status, told.error.code], [402, "budget_exceeded"]);
    assert.deepEqual([told.admission.admitted, told.admission.refused_by, told.limits], [false, budget.id, [budget.id]]);
    const [state] = (await here.get(`${V1}/accounts/poor/limits/state`)).limits;
    assert.deepEqual([state.used, state.reserved], [0, 0]);
    const real = await chat({ url: at.url, key: poor.api_key, model: "cheap" });
    assert.equal(real.status, 402, real.text);
  });

  test("is looked at by those alone who may see keys and their limits", async () => {
    const { id } = await here.post(`${V1}/roles`, { name: "router", permissions: ["config:read"] });
    const router = await userWith(here, id);
    await router.call("POST", `${V1}/simulate`, { body: { model: "turn" }, expected: 200 });
    await router.call("POST", `${V1}/simulate`, { body: { model: "turn", key_id: team.id }, expected: 403 });
    const viewer = await userWith(here, "viewer");
    await viewer.call("POST", `${V1}/simulate`, { body: { model: "turn" }, expected: 403 });
  });
});

test("what cannot be asked is refused with the fields at fault", async () => {
  const paths = async (body) => {
    const { data } = await here.call("POST", `${V1}/simulate`, { body, expected: 400 });
    return data.errors.map((error) => error.path).sort();
  };
  assert.deepEqual(await paths({}), ["model"]);
  assert.deepEqual(await paths({ model: "a", body: {}, key_id: "key_nope" }), ["key_id", "model"]);
  assert.deepEqual(await paths({ model: "a", headers: { "no header": "x" } }), ["headers.no header"]);
});

test("the draft is tried by the same rules", async () => {
  const { results } = await here.post(`${V1}/config/simulate`, { requests: [{ model: "sick" }] });
  const now = await simulated({ model: "sick" });
  assert.deepEqual(order(results[0]), order(now));
  assert.deepEqual(results[0].skipped.map(({ code }) => code), now.skipped.map(({ code }) => code));
  const published = await here.get(`${V1}/config/versions/current`);
  assert.equal(now.version, published.version);
});

test("the documented examples run as they stand", async () => {
  const page = await readFile(path.join(ROOT, "docs/api.md"), "utf8");
  const [, section] = page.split("### What would become of a request\n");
  const blocks = [...section.split("\n### ")[0].matchAll(/```json\n(.*?)```/gs)].map(([, json]) => JSON.parse(json));
  assert.equal(blocks.length, 3, "two requests, one answer");
  const [first, second, documented] = blocks;
  const told = await simulated(first);
  const within = (documented, told, where) => {
    if (Array.isArray(documented)) documented.forEach((it, nth) => within(it, told[nth] ?? told[0] ?? it, `${where}[${nth}]`));
    else if (documented === null || typeof documented !== "object") assert.equal(typeof told, typeof documented, where);
    else for (const [name, it] of Object.entries(documented)) {
      assert.ok(name in told, `${where}.${name}`);
      if (it !== null && told[name] !== null) within(it, told[name], `${where}.${name}`);
    }
  };
  within(documented, told, "answer");
  assert.deepEqual([told.error, told.pinned], [null, true]);
  assert.equal((await simulated(second)).error, null);
});
