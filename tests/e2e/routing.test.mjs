// Where requests go while all is well: for each strategy thousands of requests are counted at real providers, and what
// they got is compared with what the strategy promises.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { countBy, startFleet, targets } from "./fleet.mjs";
import { mintKey, startGateway } from "./harness.mjs";
import { CLIENTS, books, chat, crowd, eventually, limit, makeKeys, settled, tally } from "./limits.mjs";
import { KEY_HASH_SECRET, PROVIDER_SECRETS } from "./support.mjs";

/** How many requests each strategy gets. */
const REQUESTS = 1_500;

const ABC = ["a", "b", "c"];
const named = (prefix) => ABC.map((letter) => `${prefix}-${letter}`);
const weighing = (prefix, weights) => named(prefix).map((model, nth) => ({ model, weight: weights[nth] }));

const MILLIS = { "quick-a": 5, "quick-b": 40, "quick-c": 80, "least-a": 20, "least-b": 60, "least-c": 180 };
const GROUPS = ["turn", "share", "split", "cheap", "tier", "stick", "given", "nest", "quick", "least", "room", "heavy", "who", "shade"];
const WEATHERS = Object.fromEntries(
  GROUPS.flatMap(named).map((name) => [name, { latency: MILLIS[name] ?? (name.startsWith("room") ? 30 : 0) }]),
);

/** How many requests the gateway may have open at each of these providers. */
const ROOM = 5;

const WEIGHTS = [5, 3, 2];
const tools = { tools: [{ type: "function", function: { name: "f", parameters: { type: "object" } } }] };

const ROUTES = {
  turn: { strategy: "round_robin", targets: targets(...named("turn")) },
  share: { strategy: "weighted", targets: weighing("share", WEIGHTS) },
  split: { strategy: "split", targets: weighing("split", WEIGHTS) },
  cheap: { strategy: "lowest_cost", targets: targets(...named("cheap")) },
  quick: { strategy: "lowest_latency", targets: targets(...named("quick")) },
  least: { strategy: "least_connections", targets: targets(...named("least")) },
  heavy: { strategy: "least_connections", targets: weighing("heavy", [1, 2, 1]) },
  room: { strategy: "least_connections", targets: targets(...named("room")) },
  tier: {
    strategy: "round_robin",
    targets: [{ model: "tier-a" }, { model: "tier-b" }, { model: "tier-c", priority: 1 }],
  },
  stick: { strategy: "split", targets: targets(...named("stick")), sticky: { by: "session" } },
  "stick-fewer": {
    strategy: "split",
    targets: targets("stick-a", "stick-b", { model: "stick-c", enabled: false }),
    sticky: { by: "session" },
  },
  given: {
    targets: [
      { model: "given-b", when: { headers: { "x-team": ["blue"] } } },
      { model: "given-b", when: { metadata: { plan: ["gold"] } } },
      { model: "given-b", when: { params: { temperature: [0] } } },
      { model: "given-c", when: { stream: true } },
      { model: "given-c", when: { tools: true } },
      { model: "given-c", when: { min_input_tokens: 500 } },
      { model: "given-b", when: { params: { seed: [7] }, max_input_tokens: 100 } },
      { model: "given-a" },
    ],
  },
  "stick-header": { strategy: "split", targets: targets(...named("stick")), sticky: { by: "header", header: "x-thread" } },
  "stick-prefix": {
    strategy: "split",
    targets: targets(...named("stick")),
    sticky: { by: "prompt_prefix", prefix_bytes: 64 },
  },
  who: {
    targets: [
      { model: "who-b", when: { accounts: ["blue"] } },
      { model: "who-b", when: { users: ["ann"] } },
      // The known key's id is put in when there is one.
      { model: "who-c", when: { keys: [] } },
      { model: "who-a" },
    ],
  },
  shaded: { targets: targets("shade-a"), shadow: { model: "shade-b", percent: 50, account: "shade-payer" } },
  "nest-inner": { strategy: "weighted", targets: [{ model: "nest-b" }, { model: "nest-c", weight: 3 }] },
  nest: { strategy: "round_robin", targets: [{ model: "nest-a" }, { route: "nest-inner" }] },
};

const PRICES = {
  // The first is the cheapest for what is short, the second for what is long.
  "cheap-a": { input: "3", output: "1" },
  "cheap-b": { input: "1", output: "10" },
};

let fleet, gateway, key, known;
const stops = [];

before(async () => {
  const started = await startFleet(WEATHERS, (name) =>
    name.startsWith("room") ? { limits: [{ dimension: "concurrency", period: "none", amount: ROOM }] } : {},
  );
  fleet = started.fleet;
  stops.push(started.stop);
  known = await mintKey({ name: "known", account: "demo" }, KEY_HASH_SECRET);
  ROUTES.who.targets[2].when.keys.push(known.entry.name.replace("key:", ""));
  gateway = await startGateway({
    config: {
      providers: started.providers,
      models: started.models,
      routes: ROUTES,
      prices: PRICES,
      limits: { first_output_tokens: 100 },
      routing: { slow_start_ms: 0 },
    },
    vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
    secrets: { KEY_HASH_SECRET, ...PROVIDER_SECRETS },
    keys: [{ name: "app" }],
    isolates: 2,
  });
  key = gateway.keys.app;
  stops.unshift(gateway.stop);
  await gateway.kv.put(known.entry.name, known.entry.value);
});
after(async () => {
  for (const stop of stops) await stop();
});

const ask = (model, { isolate = 0, ...more } = {}) => chat({ url: gateway.urls[isolate], key, model, ...more });

/** How many requests each of a group's providers got. */
const counts = (group) => named(group).map((name) => fleet[name].visits.length);

/** Sends so many requests to a route of a group, and gives how many each provider got. */
async function spread(group, { requests = REQUESTS, clients = 16, isolates = 1, of = () => ({}), model = group } = {}) {
  for (const name of named(group)) fleet[name].forget();
  const began = Date.now();
  const replies = await crowd(requests, (nth) => ask(model, { isolate: nth % isolates, ...of(nth) }), clients);
  assert.deepEqual(tally(replies), { 200: requests }, replies.find(({ status }) => status !== 200)?.text);
  const got = counts(group);
  console.log(`${model}: ${requests} requests to ${got.join(" : ")} in ${Date.now() - began} ms`);
  assert.equal(got.reduce((sum, count) => sum + count), requests, "each was sent once");
  return { got, replies };
}

/** How far counts are from what is expected: chi-squared. */
const distance = (got, expected) => got.reduce((sum, count, nth) => sum + (count - expected[nth]) ** 2 / expected[nth], 0);

/** What chi-squared exceeds once in 10,000 times, with two degrees of freedom. */
const RARE = 18.42;

describe("without trouble", () => {
  test("round robin gives each isolate's requests to one after the other", { timeout: 60_000 }, async () => {
    const { got } = await spread("turn", { requests: REQUESTS });
    for (const count of got) assert.ok(Math.abs(count - REQUESTS / 3) <= 1, got.join());
    const { got: both } = await spread("turn", { requests: 600, isolates: 2 });
    for (const count of both) assert.ok(Math.abs(count - 200) <= 2, both.join());
  });

  test("weights are kept to exactly", { timeout: 60_000 }, async () => {
    const { got } = await spread("share");
    got.forEach((count, nth) => assert.ok(Math.abs(count - (REQUESTS * WEIGHTS[nth]) / 10) <= 5, got.join()));
  });

  test("a split is by chance, with the shares as they are set", { timeout: 60_000 }, async () => {
    const { got } = await spread("split");
    const chi = distance(got, WEIGHTS.map((weight) => (REQUESTS * weight) / 10));
    console.log(`chi-squared ${chi.toFixed(2)} (${RARE} once in 10,000 runs)`);
    assert.ok(chi < RARE, got.join());
    const exact = got.every((count, nth) => count === (REQUESTS * WEIGHTS[nth]) / 10);
    assert.ok(!exact || chi > 0, "it is by chance");
  });

  test("the cheapest depends on the size of the request", { timeout: 60_000 }, async () => {
    const { got: short } = await spread("cheap", { requests: 200 });
    assert.deepEqual(short, [200, 0, 0]);
    const long = [{ role: "user", content: "word ".repeat(5_000) }];
    const { got } = await spread("cheap", { requests: 100, of: () => ({ messages: long }) });
    assert.deepEqual(got, [0, 100, 0]);
  });

  test("the quickest gets most, and none is forgotten", { timeout: 60_000 }, async () => {
    const { got } = await spread("quick", { requests: 1_000 });
    assert.ok(got[0] > 1.5 * got[2] && got[0] > got[1] && got[1] > got[2], got.join());
    assert.ok(got[2] > 0, got.join());
  });

  test("a later tier gets nothing while an earlier one can answer", { timeout: 60_000 }, async () => {
    const { got } = await spread("tier", { requests: 600 });
    assert.deepEqual(got, [300, 300, 0]);
  });

  test("sessions stay where they are, and only those of a target that is gone move", { timeout: 60_000 }, async () => {
    const sessions = 300;
    const of = (nth) => ({ headers: { "x-session-id": `s${nth % sessions}` } });
    const where = ({ headers }) => headers["x-gateway-provider"];
    const { got, replies } = await spread("stick", { requests: 3 * sessions, isolates: 2, of });
    replies.forEach((reply, nth) => assert.equal(where(reply), where(replies[nth % sessions])));
    assert.ok(distance(got.map((count) => count / 3), [100, 100, 100]) < RARE, got.join());
    const { replies: later } = await spread("stick", { requests: sessions, of, model: "stick-fewer" });
    const moved = later.filter((reply, nth) => where(reply) !== where(replies[nth]));
    const gone = replies.slice(0, sessions).filter((reply) => where(reply) === "stick-c");
    console.log(`${moved.length} of ${sessions} sessions moved, ${gone.length} had to`);
    assert.equal(moved.length, gone.length);
    const { got: none } = await spread("stick", { requests: 300 });
    assert.ok(distance(none, [100, 100, 100]) < RARE, "those without a session are not kept");
  });

  test("conditions decide by header, metadata, parameter, stream, tools and size", { timeout: 60_000 }, async () => {
    const to = async (more) => (await ask("given", more)).headers["x-gateway-provider"];
    assert.equal(await to({}), "given-a");
    assert.equal(await to({ headers: { "x-team": "blue" } }), "given-b");
    assert.equal(await to({ headers: { "x-team": "red" } }), "given-a");
    assert.equal(await to({ headers: { "x-gateway-metadata": '{"plan":"gold"}' } }), "given-b");
    assert.equal(await to({ headers: { "x-gateway-metadata": '{"plan":"tin"}' } }), "given-a");
    assert.equal(await to({ temperature: 0 }), "given-b");
    assert.equal(await to({ temperature: 1 }), "given-a");
    assert.equal(await to({ seed: 7 }), "given-b");
    assert.equal(await to({ seed: 7, messages: [{ role: "user", content: "word ".repeat(200) }] }), "given-a");
    assert.equal(await to({ stream: true }), "given-c");
    assert.equal(await to(tools), "given-c");
    assert.equal(await to({ messages: [{ role: "user", content: "word ".repeat(1_000) }] }), "given-c");
  });

  test("conditions decide by who asks", { timeout: 30_000 }, async () => {
    const made = await makeKeys(gateway, [{ account: "blue" }, { account: "demo", user: "ann" }, { account: "demo", user: "bob" }]);
    const to = async (key) => (await ask("who", { key })).headers["x-gateway-provider"];
    const got = [];
    for (const { key } of [...made, known]) got.push(await to(key));
    assert.deepEqual(got, ["who-b", "who-b", "who-a", "who-c"]);
  });

  test("callers are kept by a header, or by how their prompts begin", { timeout: 60_000 }, async () => {
    const where = async (model, more) => (await ask(model, more)).headers["x-gateway-provider"];
    const begins = (nth) => `${String(nth).padStart(4, "0")} ${"a prompt that begins like this ".repeat(4)}`;
    const kept = { header: new Set(), prompt: new Set() };
    for (let nth = 0; nth < 20; nth += 1) {
      const first = await where("stick-header", { headers: { "x-thread": `t${nth}` } });
      const again = await where("stick-header", { isolate: 1, headers: { "x-thread": `t${nth}` } });
      assert.equal(again, first);
      kept.header.add(first);
      const asks = (end) => ({ messages: [{ role: "user", content: `${begins(nth)}${end}` }] });
      const begun = await where("stick-prefix", asks("one"));
      assert.equal(await where("stick-prefix", { isolate: 1, ...asks("two") }), begun);
      kept.prompt.add(begun);
    }
    assert.ok(kept.header.size > 1 && kept.prompt.size > 1, "not all of them are with one");
  });

  test("a shadow gets copies that another account pays for, and nobody waits for it", { timeout: 60_000 }, async () => {
    const requests = 200;
    const terms = { dimension: "requests", period: "month", amount: 10 ** 6 };
    await limit(gateway, "shade-payer", terms);
    fleet["shade-b"].weather = { latency: 1_500 };
    const began = Date.now();
    const first = await ask("shaded");
    assert.deepEqual([first.status, first.headers["x-gateway-provider"]], [200, "shade-a"]);
    assert.ok(Date.now() - began < 1_400);
    fleet["shade-b"].weather = {};
    const replies = await crowd(requests - 1, () => ask("shaded"), 16);
    assert.deepEqual(tally(replies), { 200: requests - 1 });
    assert.equal(fleet["shade-a"].visits.length, requests);
    const copies = () => fleet["shade-b"].visits.length;
    await eventually(() => fleet["shade-b"].open === 0 && copies() > 0, "the copies are through");
    console.log(`${copies()} of ${requests} requests were copied, of 50 %`);
    // Six standard deviations either way.
    assert.ok(Math.abs(copies() - requests / 2) <= 43, `${copies()}`);
    await settled(gateway, "shade-payer");
    const { ledger } = await books(gateway, "shade-payer");
    assert.equal(ledger.requests, copies());
  });

  test("a route among the targets has its turn as one, and shares it out", { timeout: 60_000 }, async () => {
    const { got } = await spread("nest", { requests: 800 });
    assert.deepEqual(got, [400, 100, 300]);
  });
});

describe("the fewest connections", () => {
  /** Samples how many requests are open at a group's providers, as they know it themselves. */
  function sampling(group) {
    const samples = [];
    const timer = setInterval(() => samples.push(named(group).map((name) => fleet[name].open)), 5);
    return () => {
      clearInterval(timer);
      return samples;
    };
  }

  test("are counted over all isolates: unequal providers have equally many open", { timeout: 60_000 }, async () => {
    const end = sampling("least");
    const { got } = await spread("least", { requests: REQUESTS, clients: 48, isolates: 2 });
    const samples = end().filter((open) => open.reduce((sum, count) => sum + count) >= 24);
    const most = Math.max(...named("least").map((name) => fleet[name].most));
    const apart = samples.map((open) => Math.max(...open) - Math.min(...open)).sort((a, b) => a - b);
    const at = (share) => apart[Math.floor(share * (apart.length - 1))];
    console.log(`${samples.length} samples: apart ${at(0.5)} (median), ${at(0.9)} (90 %), ${at(1)} (most); at most ${most} open`);
    assert.ok(got[0] > got[1] && got[1] > got[2], got.join());
    // What is on its way there or back a provider does not know of.
    assert.ok(at(0.5) <= 12, `${at(0.5)} apart`);
  });

  test("respect weights and the room that providers have", { timeout: 60_000 }, async () => {
    const heavy = await spread("heavy", { requests: 400, clients: 32, isolates: 2 });
    assert.ok(heavy.got[1] > heavy.got[0] && heavy.got[1] > heavy.got[2], heavy.got.join());
    for (const name of named("room")) fleet[name].forget();
    const replies = await crowd(1_000, (nth) => ask("room", { isolate: nth % 2 }), CLIENTS);
    const statuses = tally(replies);
    const most = named("room").map((name) => fleet[name].most);
    console.log(`room for ${ROOM} at each of three, ${CLIENTS} clients: ${JSON.stringify(statuses)}, at most ${most} open`);
    for (const open of most) assert.ok(open <= ROOM, `${open} at once`);
    assert.ok(statuses[200] >= 100, JSON.stringify(statuses));
    assert.deepEqual(Object.keys(statuses).filter((status) => !["200", "429"].includes(status)), []);
    const told = countBy(replies.filter(({ status }) => status === 429), ({ headers }) => headers["retry-after"] !== undefined);
    assert.deepEqual(Object.keys(told), ["true"], "those who are refused are told when to come again");
  });
});

test("a key may only use the routes that it is given", { timeout: 30_000 }, async () => {
  const [bound] = await makeKeys(gateway, [{ account: "demo", models: ["turn"] }]);
  assert.equal((await ask("turn", { key: bound.key })).status, 200);
  assert.equal((await ask("turn-a", { key: bound.key })).status, 404);
  assert.equal((await ask("share", { key: bound.key })).status, 404);
});
