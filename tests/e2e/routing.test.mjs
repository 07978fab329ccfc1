// Where requests go while all is well: for each strategy thousands of requests are counted at real providers, and what
// they got is compared with what the strategy promises.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { countBy, startFleet, targets } from "./fleet.mjs";
import { mintKey, startGateway } from "./harness.mjs";
import { books, chat, crowd, eventually, limit, makeKeys, settled, tally } from "./limits.mjs";
import { KEY_HASH_SECRET, PROVIDER_SECRETS } from "./support.mjs";

/** How many requests each strategy gets whose distribution is counted. */
const REQUESTS = 10_000;

/** In how many isolates the gateway runs. */
const ISOLATES = 2;

const ABC = ["a", "b", "c"];
const named = (prefix) => ABC.map((letter) => `${prefix}-${letter}`);
const weighing = (prefix, weights) => named(prefix).map((model, nth) => ({ model, weight: weights[nth] }));

const MILLIS = { "quick-a": 5, "quick-b": 150, "quick-c": 300 };
const GROUPS = ["turn", "share", "split", "cheap", "tier", "stick", "given", "nest", "quick", "who", "shade"];
const WEATHERS = Object.fromEntries(
  GROUPS.flatMap(named).map((name) => [name, { latency: MILLIS[name] ?? 0 }]),
);

const WEIGHTS = [5, 3, 2];
const tools = { tools: [{ type: "function", function: { name: "f", parameters: { type: "object" } } }] };

const ROUTES = {
  turn: { strategy: "round_robin", targets: targets(...named("turn")) },
  share: { strategy: "weighted", targets: weighing("share", WEIGHTS) },
  split: { strategy: "split", targets: weighing("split", WEIGHTS) },
  // The last one has no price.
  cheap: { strategy: "lowest_cost", targets: targets("cheap-a", "cheap-b", { model: "cheap-c", weight: 3 }, "turn-a") },
  quick: { strategy: "lowest_latency", targets: targets(...named("quick")) },
  tier: {
    strategy: "round_robin",
    targets: [{ model: "tier-a" }, { model: "tier-b" }, { model: "tier-c", priority: 1 }],
  },
  stick: { strategy: "split", targets: weighing("stick", WEIGHTS), sticky: { by: "session" } },
  "stick-fewer": {
    strategy: "split",
    targets: weighing("stick", WEIGHTS).map((it) => ({ ...it, enabled: it.model !== "stick-c" })),
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
  // The second is the cheapest for what is long, the others for what is short.
  "cheap-a": { input: "3", output: "1" },
  "cheap-b": { input: "1", output: "10" },
  "cheap-c": { input: "3", output: "1" },
};

let fleet, gateway, key, known;
const stops = [];

before(async () => {
  const started = await startFleet(WEATHERS);
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
      http: { explain: true },
      // Nobody reads what is written of so many requests.
      logging: { log_successes: false },
      records: { mode: "off" },
      routing: { slow_start_ms: 0 },
    },
    vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
    secrets: { KEY_HASH_SECRET, ...PROVIDER_SECRETS },
    keys: [{ name: "app" }],
    isolates: ISOLATES,
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

/** Sends so many requests to a route of a group, to all isolates in turn, and gives how many each provider got. */
async function spread(group, { requests = REQUESTS, clients = 32, of = () => ({}), model = group } = {}) {
  for (const name of named(group)) fleet[name].forget();
  const began = Date.now();
  const replies = await crowd(requests, (nth) => ask(model, { isolate: nth % ISOLATES, ...of(nth) }), clients);
  assert.deepEqual(tally(replies), { 200: requests }, replies.find(({ status }) => status !== 200)?.text);
  const got = counts(group);
  const millis = Date.now() - began;
  console.log(`${model}: ${requests} requests to ${got.join(" : ")} in ${millis} ms, ${Math.round((requests * 1_000) / millis)} a second`);
  assert.equal(got.reduce((sum, count) => sum + count), requests, "each was sent once");
  return { got, replies };
}

/**
 * That requests went to one after the other as exactly as can be: each isolate is within one request of the shares at any
 * time, and begins at a turn drawn by chance.
 */
function assertExact(got, expected) {
  const apart = got.map((count, nth) => Math.abs(count - expected[nth]));
  assert.ok(Math.max(...apart) <= ISOLATES, `${got.join(" : ")}, not ${expected.join(" : ")}`);
}

/** How far counts are from what is expected: chi-squared. */
const distance = (got, expected) => got.reduce((sum, count, nth) => sum + (count - expected[nth]) ** 2 / expected[nth], 0);

/** What chi-squared exceeds once in 10,000 times, by degrees of freedom. */
const RARE = { 1: 15.14, 2: 18.42 };

/** That counts are what chance may make of what is expected: a test that fails once in 10,000 runs. */
function assertChance(got, expected) {
  const chi = distance(got, expected);
  const rare = RARE[got.length - 1];
  const words = `${got.join(" : ")}, expected ${expected.map(Math.round).join(" : ")}, chi-squared ${chi.toFixed(2)} (above ${rare} once in 10,000 runs)`;
  console.log(words);
  assert.ok(chi < rare, words);
}

/** A whole in proportion to weights. */
const parts = (weights, whole) => {
  const all = weights.reduce((sum, weight) => sum + weight);
  return weights.map((weight) => (whole * weight) / all);
};

describe("without trouble", () => {
  test("round robin gives each isolate's requests to one after the other", { timeout: 300_000 }, async () => {
    const { got } = await spread("turn");
    assertExact(got, parts([1, 1, 1], REQUESTS));
  });

  test("weights are kept to exactly", { timeout: 300_000 }, async () => {
    const { got } = await spread("share");
    assertExact(got, parts(WEIGHTS, REQUESTS));
  });

  test("a split is by chance, with the shares as they are set", { timeout: 300_000 }, async () => {
    const { got, replies } = await spread("split");
    assertChance(got, parts(WEIGHTS, REQUESTS));
    // Who comes after whom is by chance as well: what follows the first target has the same shares.
    const where = replies.map(({ headers }) => headers["x-gateway-provider"]);
    const after = countBy(where.filter((_, nth) => where[nth - ISOLATES] === "split-a"), (name) => name);
    const follow = named("split").map((name) => after[name] ?? 0);
    assertChance(follow, parts(WEIGHTS, follow.reduce((sum, count) => sum + count)));
  });

  test("the cheapest depends on the size of the request, and those that cost the same share by weight", { timeout: 300_000 }, async () => {
    const long = { messages: [{ role: "user", content: "word ".repeat(1_000) }] };
    const { got } = await spread("cheap", { of: (nth) => (nth % 4 < 2 ? long : {}) });
    const [first, second, third] = got;
    assert.equal(second, REQUESTS / 2, "all that is long, and nothing else");
    assertChance([first, third], parts([1, 3], REQUESTS / 2));
  });

  test("the faster of two that are drawn gets a request, and one in 32 goes anywhere", { timeout: 300_000 }, async () => {
    const explain = { "x-gateway-explain": "true" };
    const clients = 16;
    const { got, replies } = await spread("quick", { clients, of: () => ({ stream: true, headers: explain }) });
    // By the scores that each request was decided on: of three, the best is in two of three pairs, the worst in none where
    // it is the better one. Those that go anywhere tell that they do.
    const first = { best: 0, middle: 0, worst: 0 };
    const all = { anywhere: 0, inOrder: 0 };
    for (const { headers } of replies) {
      const { candidates } = JSON.parse(headers["x-gateway-explain"]);
      const scored = candidates.map(({ model, score, why }) => ({ model, score: Number.parseInt(score, 10), why }));
      const [chosen] = scored;
      // Of those that score the same the first in the list is the better one.
      const ranks = scored.toSorted((one, other) => one.score - other.score || one.model.localeCompare(other.model));
      first[Object.keys(first)[ranks.indexOf(chosen)]] += 1;
      all.anywhere += Number(chosen.why === "to learn how fast it is");
      all.inOrder += Number(ranks[0].model === "quick-a");
    }
    console.log(JSON.stringify({ first, ...all }));
    const anywhere = REQUESTS / 32;
    const compared = REQUESTS - anywhere;
    assertChance(Object.values(first), [(compared * 2) / 3, compared / 3, 0].map((count) => count + anywhere / 3));
    assertChance([REQUESTS - all.anywhere, all.anywhere], [compared, anywhere]);
    // The quickest wins all its pairs, two thirds of all. What goes to the others settles where both score the same, by the
    // time that they take and what is open there. Were the gateway itself to take no time, that would be 28 and 6 %; what a
    // busy machine adds to all three alike brings them closer together.
    const [most, , least] = got.map((count) => (100 * count) / REQUESTS);
    assert.ok(most >= 55 && most <= 67, `${most} % to the quickest`);
    assert.ok(least >= 1 && least <= 16, `${least} % to the slowest`);
  });

  test("a later tier gets nothing while an earlier one can answer", { timeout: 300_000 }, async () => {
    const { got } = await spread("tier");
    assertExact(got, [REQUESTS / 2, REQUESTS / 2, 0]);
    assert.equal(got[2], 0);
  });

  test("sessions stay where they are, and only those of a target that is gone move", { timeout: 300_000 }, async () => {
    const sessions = REQUESTS / 2;
    // One isolate after the other sees all of them.
    const of = (nth) => ({ headers: { "x-session-id": `s${nth % sessions}` }, isolate: Math.floor(nth / sessions) % ISOLATES });
    const where = ({ headers }) => headers["x-gateway-provider"];
    const { got, replies } = await spread("stick", { of });
    replies.forEach((reply, nth) => assert.equal(where(reply), where(replies[nth % sessions])));
    assertChance(got.map((count) => count / 2), parts(WEIGHTS, sessions));
    const some = 1_000;
    const { replies: later } = await spread("stick", { requests: some, of, model: "stick-fewer" });
    const moved = later.filter((reply, nth) => where(reply) !== where(replies[nth]));
    const gone = replies.slice(0, some).filter((reply) => where(reply) === "stick-c");
    console.log(`${moved.length} of ${some} sessions moved, ${gone.length} had to`);
    assert.equal(moved.length, gone.length);
    const { got: none } = await spread("stick", { requests: some });
    assertChance(none, parts(WEIGHTS, some));
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

  test("a route among the targets has its turn as one, and shares it out", { timeout: 300_000 }, async () => {
    const { got } = await spread("nest");
    assertExact(got, [REQUESTS / 2, REQUESTS / 8, (REQUESTS * 3) / 8]);
  });
});

test("a key may only use the routes that it is given", { timeout: 30_000 }, async () => {
  const [bound] = await makeKeys(gateway, [{ account: "demo", models: ["turn"] }]);
  assert.equal((await ask("turn", { key: bound.key })).status, 200);
  assert.equal((await ask("turn-a", { key: bound.key })).status, 404);
  assert.equal((await ask("share", { key: bound.key })).status, 404);
});
