// Limits that the configuration sets, and what it says of how all of them are enforced.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { mintKey } from "./harness.mjs";
import { KEY_HASH_SECRET, PATHS, ask, assertNothingLeaked, config, eventually, freshId, logOf, send, sleep, start } from "./support.mjs";

const prices = { "gpt-test": { input: "1", output: "2" }, "gpt-inline": { input: "1", output: "2" } };
const records = { mode: "all", flush_ms: 100 };

/** A gateway with these limits. `key(account, record)` makes a key; `object` asks an object as the Worker does. */
async function gatewayWith(limits, { providers = {}, models = {}, ...options } = {}) {
  const at = await start({ config: config({ prices, records, limits, providers, models }), ...options });
  at.makeKey = async (account, more = {}) => {
    const { key, entry } = await mintKey({ name: "made", account }, KEY_HASH_SECRET);
    at.hidden.push(key);
    await at.gateway.kv.put(entry.name, JSON.stringify({ ...JSON.parse(entry.value), ...more }));
    return { key, id: entry.name.replace("key:", ""), account };
  };
  at.object = async (binding, name, method, where, body) => {
    const stub = await at.gateway.object(binding, name);
    const reply = await stub.fetch(`https://object${where}`, { method, body: body && JSON.stringify(body) });
    assert.equal(reply.status, 200, `${method} ${where}`);
    return reply.json();
  };
  at.chat = async (who, { model = "gpt-test", directives = {}, fields = {}, headers = {} } = {}) => {
    const id = freshId();
    const reply = await send({
      url: `${at.url}${PATHS.chat}`,
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${who.key}`, "x-request-id": id, ...headers },
      body: JSON.stringify({ model, messages: ask({ tag: id, ...directives }), ...fields }),
    });
    return Object.assign(reply, { id });
  };
  at.report = async (who) =>
    (await send({ url: `${at.url}/v1/key`, headers: { authorization: `Bearer ${who.key}` } })).json;
  at.statuses = async (who, times, options) => {
    const statuses = [];
    for (let nth = 0; nth < times; nth += 1) statuses.push((await at.chat(who, options)).status);
    return statuses;
  };
  return at;
}

const limitOf = (dimension, period, amount, more = {}) => ({ dimension, period, amount, ...more });

describe("limits that hold by default", () => {
  let at;
  before(async () => {
    const openai = config().providers.openai;
    at = await gatewayWith(
      {
        lease_ms: 0,
        per_key: [
          limitOf("requests", "minute", 3),
          limitOf("requests", "hour", 1_000, { burst: 1, model: "gpt-inline" }),
          limitOf("output_tokens", "day", 1, { mode: "shadow" }),
        ],
        per_user: [
          limitOf("requests", "day", 5),
          limitOf("requests", "hour", 1_000, { burst: 2, model: "gpt-loose" }),
          limitOf("output_tokens", "day", 1, { mode: "shadow" }),
        ],
        per_account: [
          limitOf("requests", "day", 4, { model: "gpt-inline" }),
          limitOf("requests", "hour", 1_000, { burst: 3, model: "claude-test" }),
          limitOf("output_tokens", "day", 1, { mode: "shadow" }),
        ],
      },
      {
        providers: {
          narrow: { ...openai, limits: [limitOf("requests", "minute", 2), limitOf("requests", "hour", 1, { mode: "shadow" })] },
          bursty: { ...openai, limits: [limitOf("requests", "hour", 1_000, { burst: 1, model: "bursty" })] },
          counted: { ...openai, count_connections: true },
        },
        models: Object.fromEntries(["narrow", "bursty", "counted"].map((name) => [name, { provider: name, upstream_model: "mock-large" }])),
      },
    );
  });
  after(() => at.stop());

  test("hold for each key by itself", async () => {
    const [one, other] = [await at.makeKey("keys"), await at.makeKey("keys")];
    assert.deepEqual(await at.statuses(one, 4), [200, 200, 200, 429]);
    assert.deepEqual(await at.statuses(other, 1), [200]);
    const shadow = (await logOf(at.gateway, (await at.chat(other)).id)).shadow_limits;
    assert.equal(shadow, "default:key:output_tokens:day, default:account:output_tokens:day");
    assert.deepEqual(await at.statuses(await at.makeKey("bursts"), 2, { model: "gpt-inline" }), [200, 429]);
  });

  test("hold for each user with all keys", async () => {
    const keys = await Promise.all([1, 2, 3].map(() => at.makeKey("users", { user: "u1" })));
    const statuses = [];
    for (const key of keys) statuses.push(...(await at.statuses(key, 2)));
    assert.deepEqual(statuses, [200, 200, 200, 200, 200, 429]);
    const bursts = await at.makeKey("users", { user: "u2" });
    assert.deepEqual(await at.statuses(bursts, 3, { model: "gpt-loose" }), [200, 200, 429]);
    const shadowed = await at.chat(await at.makeKey("users", { user: "u3" }), { model: "gpt-test" });
    assert.match((await logOf(at.gateway, shadowed.id)).shadow_limits, /default:user:output_tokens:day/);
  });

  test("hold for each account with all keys", async () => {
    const keys = await Promise.all([1, 2, 3, 4, 5].map(() => at.makeKey("accounts")));
    const statuses = [];
    for (const key of keys) statuses.push(...(await at.statuses(key, 1, { model: "gpt-inline" })));
    assert.deepEqual(statuses, [200, 200, 200, 200, 429]);
    const others = await Promise.all([1, 2, 3, 4].map(() => at.makeKey("bursting")));
    const bursts = [];
    for (const key of others) bursts.push(...(await at.statuses(key, 1, { model: "claude-test" })));
    assert.deepEqual(bursts, [200, 200, 200, 429]);
  });

  test("give way to a limit of the same kind that is the key's own", async () => {
    const who = await at.makeKey("own");
    const own = { id: "lim_own", account_id: "own", key_id: who.id, user_id: null, model: null, dimension: "requests", period: "minute", amount: 1, burst: null, mode: "enforce" };
    await at.object("LEDGER", "own", "PUT", "/account", { revision: 1, suspended: false, limits: [own] });
    assert.deepEqual(await at.statuses(who, 2), [200, 429]);
  });

  test("of a provider hold for all accounts together", async () => {
    const [one, other] = [await at.makeKey("p1"), await at.makeKey("p2")];
    assert.deepEqual(await at.statuses(one, 1, { model: "narrow" }), [200]);
    const second = await at.chat(other, { model: "narrow" });
    assert.equal(second.status, 200);
    assert.match((await logOf(at.gateway, second.id)).shadow_limits, /provider:narrow:requests:hour/);
    const third = await at.chat(one, { model: "narrow" });
    assert.deepEqual([third.status, third.json.error.code], [429, "provider_limit"]);
    assert.ok(Number(third.headers["retry-after-ms"]) > 30_000);
    assert.deepEqual(await at.statuses(one, 2, { model: "bursty" }), [200, 429]);
  });

  test("are not needed for a provider's requests to be counted", async () => {
    const slow = at.chat(await at.makeKey("counting"), { model: "counted", directives: { ttfb_ms: 1_000 } });
    const open = async () => (await at.object("GAUGE", "counted", "GET", "/state")).open;
    await eventually(async () => (await open()) === 1, "the request to be counted");
    await slow;
    await eventually(async () => (await open()) === 0, "the request to be released");
  });
});

describe("what is reserved", () => {
  const reservedWith = async (limits) => {
    const at = await gatewayWith({ lease_ms: 0, per_key: [limitOf("total_tokens", "day", 1_000_000)], ...limits });
    try {
      const who = await at.makeKey("reserving");
      return (await logOf(at.gateway, (await at.chat(who)).id)).reserved;
    } finally {
      await at.stop();
    }
  };

  test("is first_output_tokens while nothing is known, and never more than the caller allows", async () => {
    assert.equal((await reservedWith({ first_output_tokens: 77 })).output, 77);
    assert.equal((await reservedWith({})).output, 1_000);
  });

  test("follows output_quantile_percent once replies are known", async () => {
    const at = await gatewayWith({ lease_ms: 0, output_quantile_percent: 50, per_key: [limitOf("total_tokens", "day", 1_000_000)] });
    try {
      const who = await at.makeKey("learning");
      for (let nth = 0; nth < 24; nth += 1) await at.chat(who, { directives: { usage_in: 5, usage_out: nth % 4 === 0 ? 5_000 : 20 } });
      const { reserved } = await logOf(at.gateway, (await at.chat(who)).id);
      assert.ok(reserved.output >= 20 && reserved.output < 40, `${reserved.output}`);
    } finally {
      await at.stop();
    }
  });

  test("is charged when its time is over: the request's own and reservation_slack_ms", async () => {
    const at = await gatewayWith({ lease_ms: 0, reservation_slack_ms: 1_000, per_key: [limitOf("cost", "day", 1_000_000_000)] });
    try {
      const ask = { id: "lost", key_id: "k", model: "gpt-test", input_tokens: 10, max_output_tokens: 5, first_output_tokens: 9, prices: { input: 1_000_000, output: 2_000_000 }, lifetime_ms: 300 };
      const check = { key_id: "k" };
      const { answer } = await at.object("LEDGER", "losing", "POST", "/admit", { account: "losing", check, ask });
      assert.deepEqual(answer.granted.reserved, [1, 10, 5, 20_000]);
      const totals = async () => (await at.object("LEDGER", "losing", "POST", "/limits", { key_id: "k" })).totals.day;
      await eventually(async () => (await totals()).settled[3] === 20_000, "the reservation to be charged");
      assert.equal((await totals()).reserved[3], 0);
      const row = at.gateway.db.prepare("SELECT sum(cost_nanos) AS cost FROM usage WHERE account_id = 'losing'");
      await eventually(async () => (await row.first()).cost === 20_000, "the charge to be handed on", { timeout: 15_000 });
      const who = await at.makeKey("slack");
      const slow = at.chat(who, { directives: { ttfb_ms: 500 }, headers: { "x-gateway-timeout-ms": "400" } });
      assert.equal((await slow).status, 504);
    } finally {
      await at.stop();
    }
  });
});

describe("leases", () => {
  test("spare calls, and count to the last request", async () => {
    const at = await gatewayWith({ lease_ms: 10_000, lease_share_percent: 25, per_key: [limitOf("requests", "day", 100_000), limitOf("cost", "day", 1_000_000_000_000)] });
    try {
      const who = await at.makeKey("leasing");
      const admitted = [];
      for (let nth = 0; nth < 60; nth += 1) {
        const reply = await at.chat(who, { directives: { usage_in: 5, usage_out: 20 }, fields: { max_tokens: 20 } });
        assert.equal(reply.status, 200);
        admitted.push((await logOf(at.gateway, reply.id)).admitted_by);
      }
      assert.ok(admitted.filter((by) => by === "lease").length > 10, admitted.join(" "));
      // All are over, so the last one has given the lease back.
      await eventually(async () => {
        const { day } = (await at.report(who)).usage;
        return day.requests === 60 && day.reserved.requests === 0;
      }, "all to be settled", { timeout: 15_000 });
      const { day } = (await at.report(who)).usage;
      assert.equal(day.cost_nanodollars, 60 * (5 * 1_000 + 20 * 2_000));
    } finally {
      await at.stop();
    }
  });

  test("are not given where lease_ms is 0", async () => {
    const at = await gatewayWith({ lease_ms: 0, per_key: [limitOf("requests", "day", 100_000)] });
    try {
      const who = await at.makeKey("leasing");
      for (let nth = 0; nth < 30; nth += 1) {
        assert.equal((await logOf(at.gateway, (await at.chat(who)).id)).admitted_by, "ledger");
      }
    } finally {
      await at.stop();
    }
  });
});

describe("what callers are told", () => {
  for (const [disclose, headers, limits, words] of [
    ["all", "1", 2, /The account's limit/],
    ["own", "5", 1, /^A limit is reached/],
    ["none", undefined, 0, /^A limit is reached/],
  ]) {
    test(`is as much as limits.disclose says: ${disclose}`, async () => {
      const at = await gatewayWith({
        lease_ms: 0,
        disclose,
        per_key: [limitOf("requests", "day", 5)],
        per_account: [limitOf("requests", "hour", 1)],
      });
      try {
        const who = await at.makeKey("told");
        assert.equal((await at.chat(who)).headers["x-ratelimit-limit-requests"], headers);
        const refused = await at.chat(who);
        assert.equal(refused.status, 429);
        assert.match(refused.json.error.message, words);
        assert.ok(Number(refused.headers["retry-after"]) > 60, "when to come again is always told");
        assert.equal((await at.report(who)).limits.length, limits);
      } finally {
        await at.stop();
      }
    });
  }

  test("of quotas is raised at alert_thresholds", async () => {
    const at = await gatewayWith({ lease_ms: 0, alert_thresholds: [25], per_account: [limitOf("requests", "month", 4)] });
    try {
      await at.chat(await at.makeKey("watched"));
      const events = at.gateway.db.prepare("SELECT threshold FROM alert_events WHERE kind = 'limit_threshold'");
      await eventually(async () => (await events.all()).results.length > 0, "the event", { timeout: 15_000 });
      assert.deepEqual((await events.all()).results, [{ threshold: 25 }]);
    } finally {
      await at.stop();
    }
  });
});

test("open requests are counted without limits where limits.count_connections says so", async () => {
  for (const [count_connections, counted] of [[true, 1], [false, 0]]) {
    const at = await gatewayWith({ count_connections });
    try {
      const who = await at.makeKey("counted");
      // The first request learns that nothing applies.
      await at.chat(who);
      const slow = at.chat(who, { directives: { ttfb_ms: 900 } });
      await sleep(400);
      assert.equal((await at.report(who)).open_requests, counted);
      await slow;
    } finally {
      await at.stop();
    }
  }
});

describe("while the ledger cannot be reached", () => {
  const hanging = {
    name: "hanging",
    modules: true,
    script: "export class Hanging { async fetch() { await scheduler.wait(20000); return new Response('late'); } } export default {}",
    durableObjects: { HANGING: { className: "Hanging" } },
    compatibilityDate: "2026-07-30",
  };
  const nowhere = {
    override: {
      durableObjects: {
        LEDGER: { className: "Hanging", scriptName: "hanging" },
        HUB: { className: "Hub", useSQLite: true },
        GAUGE: { className: "Hanging", scriptName: "hanging" },
      },
    },
    others: [hanging],
  };
  const rates = [limitOf("requests", "day", 2)];
  const budget = [limitOf("cost", "day", 1_000_000_000)];
  // What is reserved is what is used: a little more than 0.0002 dollars.
  const options = { fields: { max_tokens: 100 }, directives: { usage_in: 20, usage_out: 100 } };

  for (const [policy, expected] of [["local", [200, 200, 429]], ["allow", [200, 200, 200]], ["deny", [503, 503, 503]]]) {
    test(`rates are looked after as when_unreachable_rates says: ${policy}`, async () => {
      const at = await gatewayWith({ when_unreachable_rates: policy, when_unreachable_cost: "allow", per_key: rates }, nowhere);
      try {
        const who = await at.makeKey("cut-off");
        assert.deepEqual(await at.statuses(who, 3), expected);
        await eventually(() => at.gateway.logs.some((line) => line.includes("without a ledger")), "a log line");
      } finally {
        await at.stop();
      }
    });
  }

  for (const [policy, expected] of [["grace", [200, 200, 503]], ["allow", [200, 200, 200]], ["deny", [503, 503, 503]]]) {
    test(`budgets are looked after as when_unreachable_cost says: ${policy}`, async () => {
      const at = await gatewayWith({ when_unreachable_cost: policy, grace_cost: "0.0006", per_key: budget }, nowhere);
      try {
        const who = await at.makeKey("cut-off");
        assert.deepEqual(await at.statuses(who, 3, options), expected);
        if (policy !== "grace") return;
        const reply = await at.chat(who, options);
        assert.deepEqual([reply.json.error.code, reply.headers["retry-after"]], ["budget_unavailable", "5"]);
        const own = await at.makeKey("cut-off", { overrides: { limits: { when_unreachable_cost: "allow" } } });
        assert.deepEqual(await at.statuses(own, 3, options), [200, 200, 200], "a key may say otherwise");
        const poor = await at.makeKey("cut-off", { overrides: { limits: { grace_cost: "0" } } });
        assert.deepEqual(await at.statuses(poor, 1, options), [503]);
      } finally {
        await at.stop();
      }
    });
  }
});

test("no line of the log has a secret in it", () => assertNothingLeaked());
