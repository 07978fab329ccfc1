// Money: after a run of random traffic with faults of the provider, callers that leave, messages that are lost or doubled,
// and a gateway that is killed, the ledger, the database's sums and the records say the same, to the nano-dollar, and what
// callers were told is what they were charged.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";

import { startGatewayProcess, startMock } from "./harness.mjs";
import { books, chatWith, crowd, ledger, limit, makeKeys, settled, sleep } from "./limits.mjs";
import { meddle, meddled } from "./meddler.mjs";
import {
  KEY_HASH_SECRET,
  PROVIDER_SECRETS,
  config,
  freshId,
  linesWith,
  open,
  readStream,
} from "./support.mjs";

/** Requests of the run, and how often the gateway is killed while they are under way. */
const REQUESTS = 1_600;
const KILLS = 3;

/** An isolate tries for so long to tell the ledger what a request has used, in milliseconds. */
const DELIVERED_AFTER = 7_000;

const SEED = Number(process.env.MONEY_SEED ?? Date.now() % 1_000_000);

/** A stream of numbers that can be had again (mulberry32). */
function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const next = random(SEED);
const chance = (share) => next() < share;
const upTo = (most) => Math.floor(next() * most);
const one = (list) => list[upTo(list.length)];

const MODELS = [
  { model: "gpt-test", api: "chat" },
  { model: "gpt-inline", api: "chat" },
  { model: "gpt-loose", api: "chat" },
  { model: "claude-test", api: "chat" },
  { model: "claude-test", api: "messages" },
  { model: "unpriced", api: "chat" },
];

const PRICES = {
  "gpt-test": { input: "1.2345", output: "6.789", cache_read: "0.1111", per_request: "0.000001" },
  "gpt-inline": { input: "0.075", output: "0.3" },
  "gpt-loose": { input: "0.0333", output: "0.0777" },
  "claude-test": { input: "3.003", output: "15.0015", cache_read: "0.3", cache_write_5m: "3.75", cache_write_1h: "6" },
};

let mock, gateway, folder, key;
const written = [];
const hidden = [KEY_HASH_SECRET, ...Object.values(PROVIDER_SECRETS)];

async function begin() {
  gateway = await startGatewayProcess({
    ...meddled(),
    mockUrl: mock.url,
    persist: folder,
    isolates: 2,
    config: config({
      prices: PRICES,
      models: { unpriced: { provider: "openai", upstream_model: "mock-large" } },
      timeouts: { total_ms: 3_000, first_byte_ms: 1_000, idle_ms: 600 },
      limits: { reservation_slack_ms: 1_000, lease_ms: 1_000 },
      records: { mode: "all", flush_ms: 300 },
    }),
    keys: [{ name: "app", key }],
    secrets: { KEY_HASH_SECRET, ...PROVIDER_SECRETS },
  });
  key = gateway.keys.app;
  written.push(gateway.logs);
}

before(async () => {
  console.log(`MONEY_SEED=${SEED}`);
  folder = await mkdtemp(path.join(tmpdir(), "llm-gateway-money-"));
  mock = await startMock();
  await begin();
});
after(async () => {
  await gateway?.stop();
  await mock?.stop();
  if (folder) await rm(folder, { recursive: true, force: true });
});

const meddle_a_little = ["/admit", "/usage"].flatMap((where) => [
  { path: where, fault: "lose the answer", share: 0.02 },
  { path: where, fault: "refuse", share: 0.02 },
  { path: where, fault: "double", share: 0.05 },
  { path: where, fault: "delay", share: 0.2, ms: 150 },
]);

/** What the provider is told to do. */
function weather(stream) {
  const usage = chance(0.5) ? { usage_in: upTo(5_000), usage_out: upTo(800), cached: upTo(1_000) } : {};
  const calm = { chunks: 1 + upTo(6), gap_ms: chance(0.3) ? upTo(80) : 0, ...usage };
  if (chance(0.6)) return calm;
  const faults = [
    { status: one([400, 429, 500, 503]) },
    { ttfb_ms: 100 + upTo(600) },
    { ttfb_ms: 1_200 },
    { no_usage: 1 },
    { reset_at: "head" },
    { badjson: 1 },
    { empty: 1 },
    { html: 502 },
    { cached: 200, cache_write: 300, cache_write_1h: 50 },
  ];
  const cuts = ["stall_at", "reset_at", "close_at", "truncate_at", "cut_event_at", "error_at"];
  if (stream && chance(0.6)) return { ...calm, chunks: 6, [one(cuts)]: one(["start", "1", "3"]) };
  return { ...calm, ...one(faults) };
}

/** What a reply says that it has cost, in nano-dollars. */
function told(headers, usages) {
  const dollars = headers["x-gateway-cost"] ?? usages.map((usage) => usage.cost).filter((cost) => cost != null).at(-1);
  return dollars === undefined ? undefined : Math.round(Number(dollars) * 1e9);
}

/** Sends a request of the run; what came of it. */
async function send(made) {
  const { model, api } = one(MODELS);
  const stream = chance(0.5);
  const id = freshId();
  const directives = { tag: "money", ...weather(stream), ...(model === "gpt-inline" && { usage_inline: 1 }) };
  const headers = { "x-request-id": id, ...(chance(0.5) && { "x-gateway-include-cost": "true" }) };
  const leaves = chance(0.12) ? upTo(150) : undefined;
  const fields = {
    max_tokens: 1 + upTo(2_000),
    ...(stream && { stream: true }),
    ...(stream && api === "chat" && chance(0.5) && { stream_options: { include_usage: true } }),
  };
  const asks = headers["x-gateway-include-cost"] !== undefined;
  const url = leaves === undefined ? one(gateway.urls) : gateway.edgeUrl;
  const request = chatWith({ url, key: made.key, model, directives, headers, ...fields });
  if (api === "messages") request.url = `${url}/v1/messages`;
  const began = performance.now();
  // A stream in which the provider tells no usage has no place for what it cost.
  const mustTell = model !== "unpriced" && (!stream || (asks && !directives.no_usage));
  const result = (more) => ({ id, account: made.account, mustTell, asked: { model, api, stream, asks, directives }, began, ended: performance.now(), ...more });
  try {
    const reply = await open({ ...request, fresh: leaves !== undefined });
    if (leaves !== undefined) {
      reply.body.on("error", () => {});
      await sleep(leaves);
      reply.reset();
      return result({ left: true });
    }
    if (reply.headers["content-type"]?.startsWith("text/event-stream")) {
      const read = await readStream(reply, api);
      const whole = !read.broken && read.errors.length === 0 && read.done;
      return result({ whole, told: whole ? told(reply.headers, read.usages) : undefined });
    }
    const pieces = [];
    for await (const piece of reply.body) pieces.push(piece);
    const whole = reply.status === 200;
    return result({ whole, told: whole ? told(reply.headers, []) : undefined });
  } catch (error) {
    if (error.code === "ERR_ASSERTION") throw error;
    return result({ lost: true });
  }
}

test(`${REQUESTS} requests and ${KILLS} kills later all books say the same`, async () => {
  const accounts = {
    free: [],
    budget: [{ dimension: "cost", period: "month", amount: 10 ** 14 }],
    tight: [{ dimension: "cost", period: "day", amount: 10 ** 9 }],
    rates: [
      { dimension: "requests", period: "minute", amount: 100_000 },
      { dimension: "total_tokens", period: "hour", amount: 10 ** 9, burst: 10 ** 8 },
    ],
    open: [{ dimension: "concurrency", period: "none", amount: 8 }],
  };
  const keys = [];
  for (const [account, limits] of Object.entries(accounts)) {
    await limit(gateway, account, ...limits);
    keys.push(...(await makeKeys(gateway, [{ account, user: "ann" }, { account }])));
  }
  hidden.push(...keys.map(({ key }) => key));
  await meddle(gateway, { faults: meddle_a_little });

  const kills = Array.from({ length: KILLS }, (_, nth) => Math.floor(((nth + 1) * REQUESTS) / (KILLS + 1)));
  const killed = [];
  let restarted;
  const results = await crowd(REQUESTS, async (nth) => {
    await restarted;
    if (kills.includes(nth)) {
      killed.push(performance.now());
      restarted = gateway.kill().then(begin).then(() => meddle(gateway, { faults: meddle_a_little }));
      await restarted;
    }
    return send(one(keys));
  }, 40);
  await sleep(1_500);
  await meddle(gateway, { faults: [] });
  // One more in each isolate, for what waits there.
  for (const url of gateway.urls) {
    for (const made of keys) await open(chatWith({ url, key: made.key })).then(({ body }) => body.resume());
  }

  const count = (what) => results.filter((result) => result[what]).length;
  console.log(`${count("whole")} whole, ${count("left")} left, ${count("lost")} lost, ${results.filter((it) => it.told !== undefined).length} told what they cost`);
  const sums = { requests: 0, cost: 0 };
  for (const account of Object.keys(accounts)) {
    await settled(gateway, account);
    const { ledger: own, database, records } = await books(gateway, account);
    console.log(account, JSON.stringify(own));
    assert.deepEqual(database, own, account);
    assert.deepEqual([records.cost, records.told], [own.cost, own.cost], account);
    assert.equal((await ledger(gateway, account)).open, 0);
    sums.requests += own.requests;
    sums.cost += own.cost;
  }
  assert.ok(sums.cost > 0);

  // What a caller was told is what the record says, unless the gateway was killed before it could be settled.
  const { results: rows } = await gateway.db
    .prepare("SELECT request_id, cost_nanos FROM request_records WHERE account_id <> 'demo'")
    .all();
  const recorded = new Map(rows.map((row) => [row.request_id, row.cost_nanos]));
  const untold = results.filter(({ whole, told, mustTell }) => whole && mustTell && told === undefined);
  assert.deepEqual(untold.map(({ asked }) => JSON.stringify(asked)), [], "all were told what they cost");
  let compared = 0;
  for (const result of results.filter(({ whole }) => whole)) {
    if (!recorded.has(result.id)) {
      const before = killed.map((at) => Math.round(at - result.ended)).filter((wait) => wait > -1_000);
      assert.ok(before.some((wait) => wait < DELIVERED_AFTER), `${JSON.stringify(result)} has no record; kills ${before} ms later`);
    }
    if (result.told === undefined || !recorded.has(result.id)) continue;
    assert.equal(recorded.get(result.id), result.told, `${result.id} was told what it was charged`);
    compared += 1;
  }
  console.log(`${compared} were charged what they were told`);
  assert.ok(compared > REQUESTS / 5);
});

test("nothing that the gateways wrote has a secret in it", () => {
  assert.ok(written.flat().length > 0);
  assert.deepEqual(linesWith(hidden, written.flat()), []);
});
