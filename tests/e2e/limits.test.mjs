// Limits and budgets, as callers meet them: what is admitted and refused, what they are told, and what becomes of what was
// reserved.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

import { mintKey } from "./harness.mjs";
import {
  KEY_HASH_SECRET,
  PATHS,
  ask,
  assertNothingLeaked,
  config,
  eventually,
  freshId,
  logOf,
  send,
  start,
} from "./support.mjs";

let at;
let accounts = 0;

before(async () => {
  const prices = { "gpt-test": { input: "1", output: "2" }, "claude-test": { input: "1", output: "2" } };
  const models = { gauged: { provider: "gauged", upstream_model: "mock-large" } };
  const providers = {
    gauged: {
      ...config().providers.openai,
      limits: [{ dimension: "concurrency", period: "none", amount: 1 }],
    },
  };
  at = await start({
    config: config({ prices, models, providers, records: { mode: "all", flush_ms: 100 }, limits: { lease_ms: 0 } }),
  });
});
after(() => at.stop());

/** Asks an object, as the Worker does. */
async function object(binding, name, method, where, body) {
  const stub = await at.gateway.object(binding, name);
  const reply = await stub.fetch(`https://object${where}`, { method, body: body && JSON.stringify(body) });
  assert.equal(reply.status, 200, `${method} ${where}`);
  return reply.json();
}

const limit = (id, dimension, period, amount, more = {}) => ({
  id,
  user_id: null,
  key_id: null,
  model: null,
  dimension,
  period,
  amount,
  burst: null,
  mode: "enforce",
  ...more,
});

/** A key of an account of its own that has these limits; `set` changes them. */
async function limited(...limits) {
  accounts += 1;
  const account = `limited-${accounts}`;
  const { key, entry } = await mintKey({ name: "made", account }, KEY_HASH_SECRET);
  await at.gateway.kv.put(entry.name, entry.value);
  let revision = 0;
  const set = (...limits) => {
    revision += 1;
    const own = limits.map((limit) => ({ account_id: account, ...limit }));
    return object("LEDGER", account, "PUT", "/account", { revision, suspended: false, limits: own });
  };
  await set(...limits);
  const status = () => object("LEDGER", account, "GET", "/status");
  return { account, key, id: entry.name.replace("key:", ""), set, status };
}

function chat(who, { model = "gpt-test", api = "chat", directives = {}, fields = {}, headers = {} } = {}) {
  const id = freshId();
  const sent = send({
    url: `${at.url}${PATHS[api]}`,
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${who.key}`, "x-request-id": id, ...headers },
    body: JSON.stringify({ model, messages: ask({ tag: id, ...directives }), max_tokens: 50, ...fields }),
  });
  return sent.then((reply) => Object.assign(reply, { id }));
}

const keyReport = async (who) =>
  (await send({ url: `${at.url}/v1/key`, headers: { authorization: `Bearer ${who.key}` } })).json;

describe("a rate", () => {
  test("admits as many as it says, and tells both how it stands and when there is room again", async () => {
    const who = await limited(limit("lim_rate", "requests", "minute", 3));
    const replies = [];
    for (let nth = 0; nth < 4; nth += 1) replies.push(await chat(who));
    assert.deepEqual(replies.map(({ status }) => status), [200, 200, 200, 429]);
    assert.deepEqual(replies.map(({ headers }) => headers["x-ratelimit-remaining-requests"]), ["2", "1", "0", "0"]);
    const { headers, json } = replies[3];
    assert.equal(headers["x-ratelimit-limit-requests"], "3");
    assert.equal(json.error.code, "rate_limit_exceeded");
    assert.equal(json.error.type, "rate_limit_error");
    const wait = Number(headers["retry-after-ms"]);
    assert.ok(wait > 50_000 && wait <= 60_000, `${wait}`);
    assert.equal(headers["retry-after"], String(Math.ceil(wait / 1000)));
    assert.match(json.error.message, /^The account's limit of 3 requests a minute is reached/);
    const line = await logOf(at.gateway, replies[3].id);
    assert.deepEqual(line.refused_by, { limit: "lim_rate", scope: "account", dimension: "requests", period: "minute" });
  });

  test("with a burst fills up again", async () => {
    const who = await limited(limit("lim_burst", "requests", "second", 2, { burst: 1 }));
    assert.equal((await chat(who)).status, 200);
    const refused = await chat(who);
    assert.equal(refused.status, 429);
    await new Promise((resolve) => setTimeout(resolve, Number(refused.headers["retry-after-ms"])));
    assert.equal((await chat(who)).status, 200);
  });

  test("of nothing refuses everything, once and for all", async () => {
    const who = await limited(limit("lim_none", "requests", "day", 0));
    const reply = await chat(who);
    assert.equal(reply.status, 429);
    assert.equal(reply.headers["x-should-retry"], "false");
  });

  test("in shadow mode is counted and reported, and refuses nothing", async () => {
    const who = await limited(limit("lim_shadow", "requests", "minute", 1, { mode: "shadow" }));
    assert.equal((await chat(who)).status, 200);
    const second = await chat(who);
    assert.equal(second.status, 200);
    // What is told there is the provider's own.
    assert.notEqual(second.headers["x-ratelimit-limit-requests"], "1");
    assert.equal((await logOf(at.gateway, second.id)).shadow_limits, "lim_shadow");
  });
});

describe("a budget", () => {
  test("is a 402 when it is used up, and what was spent is what is told", async () => {
    const who = await limited(limit("lim_budget", "cost", "month", 200_000));
    const first = await chat(who, { directives: { usage_in: 40, usage_out: 30 } });
    assert.equal(first.status, 200);
    const { usage } = first.json;
    const spent = usage.prompt_tokens * 1_000 + usage.completion_tokens * 2_000;
    let last;
    await eventually(async () => (last = await chat(who)).status === 402, "the budget to be used up", { timeout: 20_000 });
    assert.equal(last.json.error.code, "budget_exceeded");
    assert.equal(last.json.error.type, "insufficient_quota");
    assert.equal(last.headers["x-should-retry"], "false");
    const told = await keyReport(who);
    const [budget] = told.limits;
    assert.ok(spent > 0 && budget.used <= 200_000, JSON.stringify(budget));
    assert.equal(budget.used, told.usage.month.cost_nanodollars);
    const anthropic = await chat(who, { model: "claude-test", api: "messages" });
    assert.deepEqual([anthropic.status, anthropic.json.error.type], [402, "billing_error"]);
  });

  test("tells what is left of it", async () => {
    const who = await limited(limit("lim_left", "cost", "day", 5_000_000_000));
    const reply = await chat(who);
    assert.match(reply.headers["x-gateway-budget-remaining"], /^4\.999\d*$/);
  });
});

describe("concurrency", () => {
  test("counts what is open, and no more", async () => {
    const who = await limited(limit("lim_open", "concurrency", "none", 1));
    const slow = chat(who, { directives: { ttfb_ms: 1_200 } });
    await eventually(async () => (await keyReport(who)).open_requests === 1, "the request to be open");
    const second = await chat(who);
    assert.deepEqual([second.status, second.headers["retry-after"]], [429, "1"]);
    assert.equal((await slow).status, 200);
    await eventually(async () => (await keyReport(who)).open_requests === 0, "the request to be settled");
    assert.equal((await chat(who)).status, 200);
  });

  test("of a provider is everybody's", async () => {
    const [one, other] = [await limited(), await limited()];
    const slow = chat(one, { model: "gauged", directives: { ttfb_ms: 1_200 } });
    const open = async () => (await object("GAUGE", "gauged", "GET", "/state")).open;
    await eventually(async () => (await open()) === 1, "the request to be open");
    const second = await chat(other, { model: "gauged" });
    assert.deepEqual([second.status, second.json.error.code], [429, "provider_limit"]);
    assert.equal((await slow).status, 200);
    await eventually(async () => (await open()) === 0, "the request to be released");
    assert.equal((await chat(other, { model: "gauged" })).status, 200);
  });
});

describe("what a request comes to", () => {
  test("is the same in the ledger, in the sums and in the records", async () => {
    const who = await limited(limit("lim_sum", "cost", "month", 1_000_000_000_000));
    for (const directives of [{}, { status: 500 }, { usage_out: 7 }]) await chat(who, { directives });
    await eventually(async () => (await who.status()).pending_usage === 0, "the usage to be handed on", { timeout: 15_000 });
    const sum = async (table, what) =>
      (await at.gateway.db.prepare(`SELECT ${what} AS sum FROM ${table} WHERE account_id = ?`).bind(who.account).first()).sum;
    const { month } = (await keyReport(who)).usage;
    assert.ok(month.cost_nanodollars > 0);
    assert.equal(await sum("usage", "sum(cost_nanos)"), month.cost_nanodollars);
    assert.equal(await sum("request_records", "sum(cost_nanos)"), month.cost_nanodollars);
    assert.equal(await sum("usage", "sum(requests)"), month.requests);
    assert.equal(month.reserved.requests, 0);
  });
});

describe("what is nearly used up", () => {
  test("is told once, at each threshold", async () => {
    const who = await limited(limit("lim_alert", "requests", "month", 4));
    for (let nth = 0; nth < 4; nth += 1) assert.equal((await chat(who)).status, 200);
    const events = async () =>
      (await at.gateway.db.prepare("SELECT * FROM alert_events WHERE account_id = ? AND kind = 'limit_threshold' ORDER BY threshold").bind(who.account).all()).results;
    await eventually(async () => (await events()).length >= 4, "the events", { timeout: 15_000 });
    const told = await events();
    assert.deepEqual(told.map(({ threshold, value }) => [threshold, value]), [[50, 2], [80, 4], [95, 4], [100, 4]]);
    assert.equal(told[0].name, `50 % of the monthly quota of requests of account ${who.account} are used`);
    const { scope, period, limit: amount } = JSON.parse(told[0].detail);
    assert.deepEqual([scope, period, amount, told[0].rule_id], ["account", "month", 4, "lim_alert"]);
  });
});

describe("the official packages", () => {
  test("openai sees a rate limit, and does not try again what cannot succeed", async () => {
    const who = await limited(limit("lim_sdk", "requests", "day", 1));
    const client = new OpenAI({ apiKey: who.key, baseURL: `${at.url}/v1` });
    const request = { model: "gpt-test", messages: ask(), max_tokens: 20 };
    const { response } = await client.chat.completions.create(request).withResponse();
    assert.equal(response.headers.get("x-ratelimit-remaining-requests"), "0");
    const began = Date.now();
    await assert.rejects(client.chat.completions.create(request), (error) => {
      assert.ok(error instanceof OpenAI.RateLimitError);
      assert.equal(error.code, "rate_limit_exceeded");
      return true;
    });
    assert.ok(Date.now() - began < 5_000, "it did not wait for tomorrow");
  });

  test("anthropic sees its own headers", async () => {
    const who = await limited(
      limit("lim_a1", "requests", "hour", 1),
      limit("lim_a2", "output_tokens", "hour", 100_000),
    );
    const client = new Anthropic({ apiKey: who.key, baseURL: at.url, maxRetries: 0 });
    const request = { model: "claude-test", messages: ask(), max_tokens: 20 };
    const { response } = await client.messages.create(request).withResponse();
    assert.equal(response.headers.get("anthropic-ratelimit-requests-remaining"), "0");
    assert.match(response.headers.get("anthropic-ratelimit-output-tokens-reset"), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    await assert.rejects(client.messages.create(request), Anthropic.RateLimitError);
  });
});

test("a key learns its limits and its usage in either dialect", async () => {
  const who = await limited(limit("lim_key", "requests", "day", 9), limit("lim_user", "requests", "day", 5, { user_id: "u" }));
  await chat(who);
  const report = await keyReport(who);
  assert.equal(report.account, who.account);
  assert.deepEqual(report.limits.map(({ id, used, remaining }) => ({ id, used, remaining })), [
    { id: "lim_key", used: 1, remaining: 8 },
  ]);
  assert.ok(report.models.includes("gpt-test"));
  const headers = { "x-api-key": who.key, "anthropic-version": "2023-06-01" };
  assert.equal((await send({ url: `${at.url}/v1/key`, headers })).json.id, report.id);
});

test("no line of the log has a secret in it", async () => {
  await at.stop();
  assertNothingLeaked();
});
