// What limits do with a request that goes on to another model: it needs room there, has what it had before back, and is
// nowhere counted twice.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { failing, startFleet, targets } from "./fleet.mjs";
import { startGateway } from "./harness.mjs";
import { books, call, chat, crowd, eventually, limit, limitsNow, makeKeys, settled, tally } from "./limits.mjs";
import { KEY_HASH_SECRET, PROVIDER_SECRETS, freshId, logOf } from "./support.mjs";

/** Output tokens that each request reserves and uses. */
const OUTPUT = 100;

/** Dollars per million output tokens, which are all that costs here: nano-dollars per token, times a thousand. */
const CHEAP = 1;
const DEAR = 20;

/** What a request needs there, in nano-dollars. */
const needs = (price) => OUTPUT * price * 1_000;

const WELL = { usage: { prompt_tokens: 10, completion_tokens: OUTPUT, total_tokens: 10 + OUTPUT } };

const ROUTES = {
  up: { targets: targets("broken", "dear") },
  over: { targets: targets("broken", "dear", "cheap") },
};

let fleet, gateway;
const stops = [];

before(async () => {
  const started = await startFleet({ broken: failing(500), dear: WELL, cheap: WELL }, (name) => ({
    health: { passive: false },
    ...(name === "dear" && { count_connections: true }),
  }));
  fleet = started.fleet;
  stops.push(started.stop);
  const price = (output) => ({ input: "0", output: `${output}` });
  gateway = await startGateway({
    config: {
      providers: started.providers,
      models: started.models,
      routes: ROUTES,
      prices: { broken: price(CHEAP), dear: price(DEAR), cheap: price(CHEAP) },
      limits: { first_output_tokens: OUTPUT },
      records: { mode: "all", flush_ms: 200 },
      routing: { max_attempts: 3, retry_floor: 1_000 },
    },
    vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
    secrets: { KEY_HASH_SECRET, ...PROVIDER_SECRETS },
    keys: [{ name: "app" }],
  });
  stops.unshift(gateway.stop);
});
after(async () => {
  for (const stop of stops) await stop();
});

/** An account with limits and a key, and how its requests are sent. */
async function account(name, ...limits) {
  if (limits.length > 0) await limit(gateway, name, ...limits);
  const [made] = await makeKeys(gateway, [{ account: name }]);
  return async (model) => {
    const id = freshId();
    const reply = await chat({ url: gateway.url, key: made.key, model, max_tokens: OUTPUT, headers: { "x-request-id": id } });
    return { id, status: reply.status, headers: reply.headers, body: JSON.parse(reply.text) };
  };
}

const outcomes = ({ tried }) => tried.map(({ deployment, outcome }) => `${deployment}: ${outcome}`);
const budget = (amount, more = {}) => ({ dimension: "cost", period: "total", amount, ...more });

/** Waits until everything is settled, and says what the account has used by its ledger; the database must agree. */
async function usedBy(name) {
  await settled(gateway, name);
  const { ledger, database } = await books(gateway, name);
  assert.deepEqual(database, ledger);
  return ledger;
}

describe("a budget", () => {
  test("with room for a dearer model lets a request go on to it", { timeout: 30_000 }, async () => {
    const ask = await account("rich", budget(needs(DEAR)));
    const reply = await ask("up");
    assert.deepEqual([reply.status, reply.headers["x-gateway-provider"]], [200, "dear"], JSON.stringify(reply.body));
    const line = await logOf(gateway, reply.id);
    assert.deepEqual(outcomes(line), ["broken: server_error", "dear: ok"]);
    assert.equal(line.reserved.cost_nanos, needs(DEAR), "what was reserved is what the answering model needs");
    assert.equal((await usedBy("rich")).cost, needs(DEAR));
    assert.equal((await ask("up")).status, 402, "now it is spent");
  });

  test("without such room keeps a request from it, and from nobody else", { timeout: 30_000 }, async () => {
    const ask = await account("poor", budget(needs(DEAR) - 1));
    fleet.dear.forget();
    const reply = await ask("over");
    assert.deepEqual([reply.status, reply.headers["x-gateway-provider"]], [200, "cheap"], JSON.stringify(reply.body));
    const line = await logOf(gateway, reply.id);
    assert.deepEqual(outcomes(line), ["broken: server_error", "dear: limit", "cheap: ok"]);
    assert.deepEqual([line.attempts, line.refused_by], [2, undefined]);
    const failed = await ask("up");
    assert.equal(failed.status, 500, "the caller hears what went wrong, not who could not be asked");
    const told = await logOf(gateway, failed.id);
    assert.deepEqual(outcomes(told), ["broken: server_error", "dear: limit"]);
    assert.deepEqual([told.deployment, told.refused_by?.dimension], ["broken", "cost"]);
    assert.equal(fleet.dear.visits.length, 0);
    assert.equal((await usedBy("poor")).cost, needs(CHEAP));
  });

  test("is never exceeded by many that go on at the same time", { timeout: 60_000 }, async () => {
    const room = 5;
    // Ten cheap ones more: what a request takes where it begins, and what its isolate may have on loan.
    const ask = await account("crowded", budget(room * needs(DEAR) + 10 * needs(CHEAP)));
    const replies = await crowd(60, () => ask("up"), 16);
    const { cost } = await usedBy("crowded");
    console.log(`room for ${room} of 60: ${JSON.stringify(tally(replies))}, ${cost / needs(DEAR)} paid for`);
    const served = tally(replies)[200];
    assert.ok(served >= 1 && served <= room, `${served} served`);
    assert.equal(cost, served * needs(DEAR), "what failed costs nothing");
    // What others had reserved for their first model is free again: all the room there is gets used.
    for (let nth = served; nth < room; nth += 1) assert.equal((await ask("up")).status, 200);
    assert.equal((await ask("up")).status, 500);
    assert.equal((await usedBy("crowded")).cost, room * needs(DEAR));
  });
});

test("a model's limit counts the requests that went on to it, and not those that left it", { timeout: 30_000 }, async () => {
  const once = (model, amount) => ({ dimension: "requests", period: "total", amount, model });
  const ask = await account("modelled", once("dear", 2), once("broken", 1));
  const statuses = [];
  for (let nth = 0; nth < 3; nth += 1) statuses.push((await ask("up")).status);
  assert.deepEqual(statuses, [200, 200, 500]);
  await usedBy("modelled");
  const { states } = await limitsNow(gateway, "modelled");
  const used = Object.fromEntries(states.map((state) => [state.model, state.used]));
  assert.deepEqual(used, { dear: 2, broken: 1 }, "the third one failed where it was");
});

test("a request is not in its own way", { timeout: 30_000 }, async () => {
  const ask = await account("single", { dimension: "concurrency", period: "none", amount: 1 }, budget(10 ** 12));
  for (let nth = 0; nth < 3; nth += 1) assert.equal((await ask("up")).status, 200);
  assert.equal((await usedBy("single")).requests, 3);
});

test("a provider's place that nobody took up counts nothing there", { timeout: 30_000 }, async () => {
  const gauge = () => call(gateway, "GAUGE", "dear", "GET", "/state");
  const requests = async () => (await gauge()).totals.total.settled[0];
  const before = await requests();
  const ask = await account("kept-out", budget(needs(DEAR) - 1));
  assert.equal((await ask("over")).status, 200);
  const rich = await account("let-in", budget(needs(DEAR)));
  assert.equal((await rich("up")).status, 200);
  await eventually(async () => (await gauge()).open === 0, "nothing is open there");
  assert.equal((await requests()) - before, 1);
});

test("what isolates lend themselves is accounted for as well", { timeout: 60_000 }, async () => {
  const ask = await account("hot", budget(10 ** 13), { dimension: "total_tokens", period: "minute", amount: 10 ** 12 });
  const replies = await crowd(300, () => ask("up"), 8);
  assert.deepEqual(tally(replies), { 200: 300 });
  const lines = await Promise.all(replies.slice(-50).map(({ id }) => logOf(gateway, id)));
  const admitted = [...new Set(lines.map(({ admitted_by }) => admitted_by))];
  assert.deepEqual(admitted, ["ledger"], "the ledger has heard of each before it went on");
  const used = await usedBy("hot");
  assert.deepEqual([used.requests, used.cost], [300, 300 * needs(DEAR)]);
});
