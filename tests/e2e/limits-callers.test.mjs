// What callers meet at a limit: budgets that hold, waits that are exact, what is open, and what happens while the ledger
// cannot be reached.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

import { ROOT } from "./harness.mjs";
import {
  CLIENTS,
  books,
  call,
  chat,
  chatWith,
  crowd,
  eventually,
  ledger,
  limit,
  limitsNow,
  makeKeys,
  settled,
  sleep,
  tally,
} from "./limits.mjs";
import { meddle, meddled } from "./meddler.mjs";
import { ask, assertErrorBody, assertNothingLeaked, config, freshId, logOf, open, requestLines, send, sendAndVanish, start } from "./support.mjs";

/** Nano-dollars a token. */
const [INPUT, OUTPUT] = [1_000, 10_000];
const PRICES = Object.fromEntries(["gpt-test", "claude-test"].map((model) => [model, { input: "1", output: "10" }]));
const DAY = 86_400_000;

const settings = (more = {}) =>
  config({
    prices: PRICES,
    timeouts: { total_ms: 5_000, first_byte_ms: 5_000, idle_ms: 3_000 },
    records: { mode: "all", flush_ms: 200 },
    ...more,
    limits: { lease_ms: 0, reservation_slack_ms: 1_000, ...more.limits },
    providers: { counted: { ...config().providers.openai, count_connections: true }, ...more.providers },
    models: { counted: { provider: "counted", upstream_model: "mock-large" }, ...more.models },
  });

let accounts = 0;
/** A key of an account of its own that has these limits. */
async function limited(at, limits, more = {}) {
  const account = `callers-${++accounts}`;
  const [made] = await makeKeys(at.gateway, [{ account, ...more }]);
  const set = (...list) => limit(at.gateway, account, ...list);
  await set(...limits);
  return { ...made, set };
}

const linesOf = (at, account) => requestLines(at.gateway).filter((line) => line.account === account);

describe("a budget", () => {
  let at;
  before(async () => (at = await start({ isolates: 2, config: settings() })));
  after(() => at?.stop());

  const dear = { usage_in: 5, usage_out: 100 };
  const COST = 5 * INPUT + 100 * OUTPUT;

  test("or a quota of tokens is kept by 64 clients at once, and used up to the last request that fits", async () => {
    const FIT = 40;
    for (const [dimension, period, each, refused, more] of [
      ["cost", "day", COST, 402],
      ["cost", "total", COST, 402],
      ["output_tokens", "week", 100, 429],
      ["total_tokens", "hour", 105, 429],
      ["output_tokens", "hour", 100, 429, { amount: 1, burst: FIT * 100 }],
    ]) {
      const who = await limited(at, [{ dimension, period, amount: FIT * each, ...more }]);
      const ask = (nth) => chat({ url: at.gateway.urls[nth % 2], key: who.key, directives: dear, max_tokens: 100 });
      const replies = await crowd(3 * CLIENTS, ask);
      await settled(at.gateway, who.account);
      // What was reserved and not used is there again, for requests one after the other.
      let last;
      do replies.push((last = await ask(0)));
      while (last.status === 200);
      assert.deepEqual(Object.keys(tally(replies)), ["200", String(refused)], dimension);
      await settled(at.gateway, who.account);
      const { ledger: spent, database } = await books(at.gateway, who.account);
      assert.deepEqual(database, spent);
      assert.equal(spent.cost, tally(replies)[200] * COST);
      assert.ok(spent.requests <= FIT && spent.requests >= FIT - 2, `${spent.requests} of ${FIT}: ${dimension}, ${period}`);
      assert.equal(last.headers["x-should-retry"], "false");
      assert.equal(last.json.error.code, refused === 402 ? "budget_exceeded" : "rate_limit_exceeded");
    }
  });

  test("is overdrawn at most by what was open, if answers are longer than any before", async () => {
    const who = await limited(at, [{ dimension: "cost", period: "month", amount: 40 * COST }]);
    const long = { usage_in: 5, usage_out: 2_000 };
    for (let nth = 0; nth < 5; nth += 1) await chat({ url: at.url, key: who.key, directives: { usage_in: 5, usage_out: 1 } });
    const replies = await crowd(3 * CLIENTS, () => chat({ url: at.url, key: who.key, directives: long }));
    await settled(at.gateway, who.account);
    const { ledger: spent } = await books(at.gateway, who.account);
    const margin = CLIENTS * (5 * INPUT + 2_000 * OUTPUT);
    assert.ok(tally(replies)[402] > 0, JSON.stringify(tally(replies)));
    assert.ok(spent.cost <= 40 * COST + margin, `${spent.cost}`);
    assert.equal((await chat({ url: at.url, key: who.key })).status, 402);
  });

  test("that is used up is told in either dialect, and official clients do not try again", async () => {
    const who = await limited(at, [{ dimension: "cost", period: "month", amount: 10 }]);
    const openai = new OpenAI({ apiKey: who.key, baseURL: `${at.url}/v1` });
    await assert.rejects(openai.chat.completions.create({ model: "gpt-test", messages: ask(), max_tokens: 9 }), (error) => {
      assert.deepEqual([error.status, error.code, error.type], [402, "budget_exceeded", "insufficient_quota"]);
      return true;
    });
    const anthropic = new Anthropic({ apiKey: who.key, baseURL: at.url });
    await assert.rejects(anthropic.messages.create({ model: "claude-test", messages: ask(), max_tokens: 9 }), (error) => {
      assert.equal(error.status, 402);
      assertErrorBody(error.error, "messages");
      assert.equal(error.error.error.type, "billing_error");
      return true;
    });
    await sleep(1_000);
    assert.equal(linesOf(at, who.account).length, 2, "one request each");
    assert.equal(linesOf(at, who.account)[0].refused_by.dimension, "cost");
  });

  test("in shadow mode is reported and refuses nothing", async () => {
    const who = await limited(at, [{ id: "shade", dimension: "cost", period: "month", amount: 10, mode: "shadow" }]);
    const replies = await crowd(10, () => chat({ url: at.url, key: who.key, max_tokens: 5 }));
    assert.deepEqual(tally(replies), { 200: 10 });
    await settled(at.gateway, who.account);
    assert.ok(linesOf(at, who.account).every(({ shadow_limits }) => shadow_limits === "shade"));
  });

  test("that is raised is there within the second that an isolate remembers a refusal, and one that is lowered at once", async () => {
    const who = await limited(at, [{ dimension: "cost", period: "month", amount: 3 * COST }]);
    const spend = () => chat({ url: at.url, key: who.key, directives: dear, max_tokens: 100 });
    await eventually(async () => (await spend()).status === 402, "it is used up");
    await who.set({ dimension: "cost", period: "month", amount: 100 * COST });
    await sleep(1_000);
    assert.equal((await spend()).status, 200);
    await who.set({ dimension: "cost", period: "month", amount: 1 });
    assert.equal((await spend()).status, 402);
  });

  test("of which nothing is reserved any more after failures of every kind", async () => {
    const who = await limited(at, [{ dimension: "cost", period: "month", amount: 10 ** 12 }]);
    const failures = [{ status: 500 }, { reset_at: "head" }, { badjson: 1 }, { empty: 1 }, { html: 502 }, { no_usage: 1 }];
    for (const directives of failures) {
      for (const stream of [false, true]) {
        const reply = await open(chatWith({ url: at.url, key: who.key, directives, stream }));
        reply.body.on("error", () => {}).resume();
        await new Promise((resolve) => reply.body.once("close", resolve));
      }
    }
    await chat({ url: at.url, key: who.key, model: "no-such-model" });
    await settled(at.gateway, who.account, { timeout: 3_000 });
    const { ledger: spent, database, records } = await books(at.gateway, who.account);
    assert.deepEqual(database, spent);
    assert.equal(records.cost, spent.cost);
    assert.equal(spent.requests, 2 * failures.length);
  });
});

describe("a refusal", () => {
  let at;
  before(async () => (at = await start({ config: settings() })));
  after(() => at?.stop());

  for (const [name, terms] of Object.entries({
    "sliding window": { dimension: "requests", period: "second", amount: 2 },
    "token bucket": { dimension: "requests", period: "second", amount: 2, burst: 1 },
  })) {
    test(`of a ${name} says exactly when there is room again`, async () => {
      const who = await limited(at, [terms]);
      const ask = async () => {
        const sent = performance.now();
        const reply = await chat({ url: at.url, key: who.key });
        return { ...reply, sent, received: performance.now(), wait: Number(reply.headers["retry-after-ms"]) };
      };
      let [tooEarly, inTime] = [0, 0];
      for (let round = 0; round < 25 && (tooEarly < 3 || inTime < 3); round += 1) {
        let refused;
        do refused = await ask();
        while (refused.status === 200);
        assert.ok(refused.wait >= 1 && refused.wait <= 1_000, `${refused.wait}`);
        assert.equal(refused.headers["retry-after"], String(Math.ceil(refused.wait / 1_000)));
        if (round % 2) {
          await sleep(Math.max(0, refused.sent + refused.wait - 50 - performance.now()));
          const early = await ask();
          // A request that took long on its way proves nothing.
          if (early.received < refused.sent + refused.wait) {
            assert.equal(early.status, 429, `${early.sent - refused.sent} ms of ${refused.wait}`);
            tooEarly += 1;
          }
        } else {
          await sleep(Math.max(0, Math.ceil(refused.received + refused.wait - performance.now()) + 1));
          const late = await ask();
          assert.equal(late.status, 200, `${late.sent - refused.received} ms after ${refused.wait}`);
          inTime += 1;
        }
      }
      assert.ok(inTime >= 3, `${inTime} in time, ${tooEarly} too early`);
    });
  }

  test("of a quota of a day says when the day ends, and that clients need not try", async () => {
    const who = await limited(at, [{ dimension: "total_tokens", period: "day", amount: 2_000 }]);
    const dear = { usage_in: 10, usage_out: 1_900 };
    assert.equal((await chat({ url: at.url, key: who.key, directives: dear })).status, 200);
    const refused = await eventually(async () => {
      const reply = await chat({ url: at.url, key: who.key, directives: dear });
      return reply.status === 429 && reply;
    }, "the quota is used up");
    const left = DAY - (Date.now() % DAY);
    assert.ok(Math.abs(Number(refused.headers["retry-after-ms"]) - left) < 5_000, refused.headers["retry-after-ms"]);
    assert.equal(refused.headers["x-should-retry"], "false");
    assert.equal(refused.headers["x-ratelimit-limit-tokens"], "2000");
    assert.match(refused.headers["x-ratelimit-reset-tokens"], /^(\d+h)?(\d+m)?[\d.]+s$|^\d+ms$/);
  });

  test("of what can never fit says so", async () => {
    const who = await limited(at, [{ dimension: "input_tokens", period: "hour", amount: 50 }]);
    const refused = await send({
      ...chatWith({ url: at.url, key: who.key }),
      body: JSON.stringify({ model: "gpt-test", messages: [{ role: "user", content: "word ".repeat(2_000) }] }),
    });
    assert.equal(refused.status, 429);
    assert.equal(refused.json.error.code, "request_exceeds_limit");
    assert.equal(refused.headers["x-should-retry"], "false");
    assert.equal(refused.headers["retry-after-ms"], undefined);
  });

  test("and success tell how limits stand, by the names of either dialect", async () => {
    const who = await limited(at, [
      { dimension: "requests", period: "hour", amount: 2 },
      { dimension: "input_tokens", period: "hour", amount: 100_000 },
      { dimension: "output_tokens", period: "hour", amount: 200_000 },
      { dimension: "cost", period: "month", amount: 7_000_000_000 },
    ]);
    const messages = {
      ...chatWith({ url: at.url, key: who.key, model: "claude-test", max_tokens: 50, headers: { "anthropic-version": "2023-06-01" } }),
      url: `${at.url}/v1/messages`,
    };
    const good = await send(messages);
    assert.equal(good.status, 200);
    assert.equal(good.headers["anthropic-ratelimit-requests-limit"], "2");
    assert.equal(good.headers["anthropic-ratelimit-requests-remaining"], "1");
    assert.equal(good.headers["anthropic-ratelimit-input-tokens-limit"], "100000");
    assert.equal(good.headers["anthropic-ratelimit-output-tokens-limit"], "200000");
    assert.ok(Date.parse(good.headers["anthropic-ratelimit-requests-reset"]) > Date.now());
    assert.match(good.headers["x-gateway-budget-remaining"], /^6\.99\d+$/);
    const second = await chat({ url: at.url, key: who.key });
    assert.equal(second.headers["x-ratelimit-limit-requests"], "2");
    assert.equal(second.headers["x-ratelimit-remaining-requests"], "0");
    assert.match(second.headers["x-ratelimit-reset-requests"], /^(59m[\d.]+s|1h0m0s)$/);
    const refused = await send(messages);
    assert.equal(refused.status, 429);
    assertErrorBody(refused.json, "messages");
    assert.equal(refused.json.error.type, "rate_limit_error");
    assert.equal(refused.headers["anthropic-ratelimit-requests-remaining"], "0");
    assert.ok(Number(refused.headers["retry-after-ms"]) > 3_500_000);
    assert.equal(refused.headers["x-should-retry"], "false");
  });
});

describe("what is open", () => {
  let at;
  before(async () => (at = await start({ config: settings({ limits: { count_connections: true, lease_ms: 5_000 } }) })));
  after(() => at?.stop());

  const stream = (who, directives, { url = at.url, model = "gpt-test" } = {}) =>
    open({ ...chatWith({ url, key: who.key, model, stream: true, directives: { chunks: 400, gap_ms: 100, ...directives } }), fresh: true });
  const report = async (who) => (await send({ url: `${at.url}/v1/key`, headers: { authorization: `Bearer ${who.key}` } })).json;
  const none = (who, timeout = 3_000) =>
    eventually(async (seen) => {
      const { open_requests } = await report(who);
      seen(open_requests);
      return open_requests === 0;
    }, "nothing is open", { timeout });

  test("is limited for streams, and free again however a stream ends", async () => {
    const who = await limited(at, [{ dimension: "concurrency", period: "none", amount: 2 }]);
    const endings = {
      "at its end": async () => {
        const reply = await stream(who, { chunks: 5, gap_ms: 60 });
        return { reply, end: () => reply.body.resume() };
      },
      "when its caller leaves": async () => {
        const reply = await stream(who, {}, { url: at.gateway.edgeUrl });
        reply.body.on("error", () => {}).resume();
        return { reply, end: () => reply.reset() };
      },
      "when the provider fails": async () => {
        const reply = await stream(who, { chunks: 10, gap_ms: 40, reset_at: "8" });
        return { reply, end: () => reply.body.on("error", () => {}).resume() };
      },
      "when the provider is silent": async () => {
        const reply = await stream(who, { chunks: 10, gap_ms: 10, stall_at: "3" });
        return { reply, end: () => reply.body.on("error", () => {}).resume() };
      },
    };
    for (const [name, begin] of Object.entries(endings)) {
      const both = [await begin(), await begin()];
      assert.deepEqual(both.map(({ reply }) => reply.status), [200, 200], name);
      const third = await chat({ url: at.url, key: who.key });
      assert.deepEqual([third.status, third.headers["retry-after-ms"]], [429, "1000"], name);
      both.forEach(({ end }) => end());
      await none(who, 6_000);
      assert.equal((await chat({ url: at.url, key: who.key })).status, 200, name);
      await none(who);
    }
    await settled(at.gateway, who.account);
    const { ledger: used, database } = await books(at.gateway, who.account);
    assert.deepEqual(database, used);
  });

  test("is counted exactly for the key and the provider, and is nothing when all have left", async () => {
    const who = await limited(at, [{ dimension: "requests", period: "day", amount: 10 ** 9 }]);
    // Busy enough to be lent something, if counts did not have to be exact.
    await crowd(60, () => chat({ url: at.url, key: who.key, model: "counted" }), 8);
    await none(who);
    const gauge = async () => (await call(at.gateway, "GAUGE", "counted", "GET", "/state")).open;
    const replies = await Promise.all(
      Array.from({ length: CLIENTS }, () => stream(who, {}, { url: at.gateway.edgeUrl, model: "counted" })),
    );
    assert.ok(replies.every(({ status }) => status === 200));
    const [key, provider] = [(await report(who)).open_requests, await gauge()];
    assert.deepEqual([key, provider], [CLIENTS, CLIENTS]);
    const { open_by_key } = await limitsNow(at.gateway, who.account);
    assert.deepEqual(open_by_key, { [who.id]: CLIENTS });
    for (const reply of replies) {
      reply.body.on("error", () => {}).resume();
      reply.reset();
    }
    await none(who);
    await eventually(async () => (await gauge()) === 0, "nothing is open at the provider");
    await settled(at.gateway, who.account);
    assert.equal((await books(at.gateway, who.account)).ledger.requests, 60 + CLIENTS);
  });

  test("and used is what a key learns of itself", async () => {
    const who = await limited(at, [
      { id: "lim-key", dimension: "requests", period: "day", amount: 9 },
      { id: "lim-money", dimension: "cost", period: "month", amount: 5_000_000_000 },
    ]);
    const used = { usage_in: 7, usage_out: 11 };
    for (let nth = 0; nth < 3; nth += 1) await chat({ url: at.url, key: who.key, directives: used });
    await settled(at.gateway, who.account);
    const told = await report(who);
    assert.equal(told.account, who.account);
    assert.deepEqual(told.limits.map(({ id, used, remaining }) => [id, used, remaining]).sort(), [
      ["lim-key", 3, 6],
      ["lim-money", 3 * (7 * INPUT + 11 * OUTPUT), 5_000_000_000 - 3 * (7 * INPUT + 11 * OUTPUT)],
    ]);
    for (const period of ["day", "week", "month", "total"]) {
      const { requests, input_tokens, output_tokens, cost_nanodollars } = told.usage[period];
      assert.deepEqual([requests, input_tokens, output_tokens], [3, 21, 33], period);
      assert.equal(cost_nanodollars, 3 * (7 * INPUT + 11 * OUTPUT), period);
    }
    assert.equal(told.usage.day.cost_usd, "0.000351");
    const other = await send({ url: `${at.url}/v1/key`, headers: { "x-api-key": who.key, "anthropic-version": "2023-06-01" } });
    assert.deepEqual(other.json.limits, told.limits.map((it) => ({ ...it, resets_in_ms: other.json.limits.find(({ id }) => id === it.id).resets_in_ms })));
    assert.equal((await send({ url: `${at.url}/v1/key` })).status, 401);
  });
});

describe("while the ledger cannot be reached", () => {
  let at;
  before(async () => {
    at = await start({ ...meddled(), isolates: 2, config: settings({ limits: { grace_cost: "0.005" } }) });
  });
  after(() => at?.stop());

  const COST = 5 * INPUT + 100 * OUTPUT;
  const spend = (who, nth = 0) =>
    chat({ url: at.gateway.urls[nth % 2], key: who.key, directives: { usage_in: 5, usage_out: 100, tag: who.account }, max_tokens: 100 });
  /** Both isolates have heard of the account's rules; then the ledger goes away. */
  async function known(...whos) {
    for (const who of whos) for (const nth of [0, 1]) assert.equal((await spend(who, nth)).status, 200);
    for (const who of whos) await settled(at.gateway, who.account);
  }
  const away = (fault = "refuse") => meddle(at.gateway, { faults: ["/admit", "/check"].map((where) => ({ path: where, fault })) });
  const back = () => meddle(at.gateway, { faults: [] });
  const overrides = (limits) => ({ overrides: { limits } });

  test("each isolate enforces rates by itself, as long as it lasts", async () => {
    const who = await limited(at, [{ dimension: "requests", period: "hour", amount: 10 }]);
    await known(who);
    await away();
    const replies = await crowd(CLIENTS, (nth) => spend(who, nth));
    assert.deepEqual(tally(replies), { 200: 20, 429: CLIENTS - 20 });
    const refused = replies.find(({ status }) => status === 429);
    assert.equal(refused.json.error.code, "rate_limit_exceeded");
    await back();
    await settled(at.gateway, who.account);
    const { ledger: used, database } = await books(at.gateway, who.account);
    assert.equal(used.requests, 22, "what was served meanwhile is counted");
    assert.deepEqual(database, used);
    assert.equal((await spend(who)).status, 429, "the ledger's own count counts again");
    const lines = linesOf(at, who.account);
    assert.equal(lines.filter(({ admitted_by }) => admitted_by === "local").length, 20);
    const logged = (text) => at.gateway.logs.some((line) => line.includes(text));
    assert.ok(logged("an account's ledger cannot be asked"));
    assert.ok(logged("limits are looked after without a ledger"));
  });

  test("a key may spend its grace, then nothing", async () => {
    const who = await limited(at, [{ dimension: "cost", period: "month", amount: 10 ** 12 }]);
    await known(who);
    await away();
    const replies = await crowd(CLIENTS, (nth) => spend(who, nth));
    await back();
    const { 200: served, 503: refused } = tally(replies);
    // The grace is each isolate's own; what is reserved is a little more than what it costs.
    assert.ok(served >= 2 && served * COST <= 2 * 5_000_000 + 2 * COST, `${served} served`);
    assert.equal(served + refused, CLIENTS);
    const reply = replies.find(({ status }) => status === 503);
    assert.equal(reply.json.error.code, "budget_unavailable");
    assert.ok(Number(reply.headers["retry-after"]) >= 1);
    await settled(at.gateway, who.account);
    assert.equal((await books(at.gateway, who.account)).ledger.requests, served + 2);
    // For a moment the isolates do not ask again.
    await eventually(async () => (await spend(who)).status === 200, "it is served", { timeout: 3_000 });
    assert.equal(linesOf(at, who.account).filter(({ admitted_by }) => admitted_by === "grace").length, served);
    const { results } = await at.gateway.db
      .prepare("SELECT record ->> '$.admitted_by' AS how, COUNT(*) AS n FROM request_records WHERE account_id = ? GROUP BY how")
      .bind(who.account)
      .all();
    assert.equal(results.find(({ how }) => how === "grace")?.n, served);
  });

  test("a key says itself what happens to it", async () => {
    const [rate, money] = [{ dimension: "requests", period: "hour", amount: 5 }, { dimension: "cost", period: "month", amount: 10 ** 12 }];
    const cases = [
      [await limited(at, [rate], overrides({ when_unreachable_rates: "allow" })), { 200: 20 }],
      [await limited(at, [rate], overrides({ when_unreachable_rates: "deny" })), { 503: 20 }, "limits_unavailable"],
      [await limited(at, [money], overrides({ when_unreachable_cost: "allow" })), { 200: 20 }],
      [await limited(at, [money], overrides({ when_unreachable_cost: "deny" })), { 503: 20 }, "budget_unavailable"],
      [await limited(at, [money], overrides({ grace_cost: "0" })), { 503: 20 }, "budget_unavailable"],
      [await limited(at, [money], overrides({ grace_cost: "100" })), { 200: 20 }],
      [await limited(at, []), { 200: 20 }],
    ];
    await known(...cases.map(([who]) => who));
    await away();
    for (const [who, expected, code] of cases) {
      const replies = await crowd(20, (nth) => spend(who, nth));
      assert.deepEqual(tally(replies), expected, who.account);
      if (code) assert.equal(replies[0].json.error.code, code);
    }
    await back();
    for (const [who] of cases) await settled(at.gateway, who.account);
  });

  test("an isolate that has never heard of an account's budget takes it for one", async () => {
    const who = await limited(at, [{ dimension: "cost", period: "month", amount: 10 ** 12 }], overrides({ grace_cost: "0" }));
    await away();
    assert.equal((await spend(who)).status, 503);
    await back();
    await eventually(async () => (await spend(who)).status === 200, "it is served", { timeout: 3_000 });
  });

  test("a caller that leaves while it is asked leaves nothing behind", async () => {
    const limits = [{ dimension: "concurrency", period: "none", amount: 10 }, { dimension: "cost", period: "day", amount: 10 ** 12 }];
    const who = await limited(at, limits);
    await known(who);
    await meddle(at.gateway, { faults: [{ path: "/admit", fault: "delay", ms: 900 }] });
    const request = () => ({ ...chatWith({ url: at.gateway.edgeUrl, key: who.key }), agent: undefined });
    await Promise.all(Array.from({ length: 10 }, () => sendAndVanish(request(), () => sleep(60))));
    await sleep(1_000);
    await back();
    await settled(at.gateway, who.account, { timeout: 3_000 });
    const { ledger: used, database, records } = await books(at.gateway, who.account);
    assert.deepEqual(database, used);
    assert.equal(records.cost, used.cost);
    assert.ok(used.requests <= 12, `${used.requests}`);
    const replies = await crowd(10, () => spend(who));
    assert.deepEqual(tally(replies), { 200: 10 });
  });

  test("nobody waits long for one that hangs", async () => {
    const who = await limited(at, [{ dimension: "requests", period: "hour", amount: 1_000 }]);
    await known(who);
    await away("hang");
    const began = performance.now();
    assert.equal((await spend(who)).status, 200);
    assert.ok(performance.now() - began < 2_500);
    await back();
    await settled(at.gateway, who.account);
  });
});

const BUILD = "build-test";
const skip = !existsSync(path.join(ROOT, BUILD, "index_bg.wasm")) && `${BUILD}/ is absent: run scripts/build --test`;

describe("a panic", { skip }, () => {
  let at;
  before(async () => {
    const records = { mode: "off", flush_ms: 200 };
    at = await start({ build: BUILD, config: settings({ records }) });
  });
  after(() => at?.stop());

  /** Makes the next request that comes to a place panic there. */
  const provoke = (place) => send({ url: `${at.url}/admin/v1/me`, headers: { "x-test-fault": `${place}!` } });

  test("leaves nothing reserved, and what had reached the provider is charged", async () => {
    const who = await limited(at, [
      { dimension: "cost", period: "month", amount: 10 ** 12 },
      { dimension: "concurrency", period: "none", amount: 4 },
    ]);
    for (const [place, asked] of [["after-admit", 0], ["after-dispatch", 1]]) {
      const tag = freshId();
      const before = (await books(at.gateway, who.account)).ledger;
      for (let nth = 0; nth < 6; nth += 1) {
        const id = freshId();
        await provoke(place);
        const reply = await chat({
          url: at.url,
          key: who.key,
          headers: { "x-request-id": id },
          directives: { tag },
          stream: nth % 2 === 1,
        });
        assert.deepEqual([reply.status, reply.headers["x-request-id"]], [500, id]);
        assert.match((await logOf(at.gateway, id)).error_detail, /provoked by a test/);
      }
      assert.equal((await at.mock.journal(tag)).length, 6 * asked);
      await settled(at.gateway, who.account);
      const { ledger: now, database, records } = await books(at.gateway, who.account);
      assert.deepEqual(database, now);
      assert.equal(records.records, 0, "the configuration still says what is kept");
      assert.equal(now.requests - before.requests, 6, "requests count");
      assert.equal(now.cost > before.cost, asked === 1, place);
    }
    assert.equal((await chat({ url: at.url, key: who.key })).status, 200);
    assert.equal((await ledger(at.gateway, who.account)).late_settlements, 0);
  });
});

test("nothing that the gateways wrote has a secret in it", assertNothingLeaked);
