// Limits, budgets and open requests as operators set and see them: from the admin API through the account's ledger to what
// callers meet, and back.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { startAdmin, userWith } from "./admin.mjs";
import { startMock } from "./harness.mjs";
import { MOCK, PROVIDER_SECRETS, ask, config, eventually, freshId, open, readStream, send, sleep } from "./support.mjs";

const V1 = "/admin/v1";

let mock, admin, owner;
before(async () => {
  mock = await startMock();
  const providers = {
    shared: { ...config().providers.openai, limits: [{ dimension: "requests", period: "day", amount: 1_000 }], count_connections: true },
  };
  admin = await startAdmin({
    mockUrl: mock.url,
    secrets: PROVIDER_SECRETS,
    config: config({
      providers,
      models: { shared: { provider: "shared", upstream_model: "mock-large" } },
      // A dollar a million tokens in, two out: 1,000 and 2,000 nano-dollars a token.
      prices: { "gpt-test": { input: "1", output: "2" } },
      records: { flush_ms: 100 },
      limits: { per_user: [{ dimension: "requests", period: "day", amount: 50 }] },
    }),
  });
  ({ owner } = admin);
});
after(async () => {
  await admin?.gateway.stop();
  await mock?.stop();
});

let teams = 0;

/** An account of its own with a key; `limit(terms)` makes a limit of it, `state(query)` and `connections()` tell. */
async function team(more = {}) {
  teams += 1;
  const id = `team-${teams}`;
  await owner.post(`${V1}/accounts`, { id, name: id });
  const at = `${V1}/accounts/${id}`;
  const key = await owner.post(`${at}/keys`, { name: "app", ...more });
  return {
    id,
    at,
    key,
    limit: (terms, body = {}) => owner.post(`${at}/limits`, { ...terms, ...body }),
    state: (query = {}) => owner.get(`${at}/limits/state?${new URLSearchParams(query)}`),
    connections: () => owner.get(`${at}/connections`),
  };
}

function request(key, { model = "gpt-test", stream = false, directives = {}, fields = {} } = {}) {
  const id = freshId();
  return {
    url: `${admin.url}/v1/chat/completions`,
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${key.api_key}`, "x-request-id": id },
    body: JSON.stringify({ model, stream, messages: ask({ tag: id, usage_in: 10, usage_out: 5, ...directives }), max_tokens: 20, ...fields }),
  };
}
const chat = (key, options) => send(request(key, options));
const statuses = async (key, times, options) => {
  const seen = [];
  for (let nth = 0; nth < times; nth += 1) seen.push((await chat(key, options)).status);
  return seen;
};
/** What a request of the tests' costs in nano-dollars. */
const COST = 10 * 1_000 + 5 * 2_000;

const requests = (amount, more = {}) => ({ dimension: "requests", period: "day", amount, ...more });
const one = (standing, id) => standing.limits.find((limit) => limit.id === id);

describe("a limit", () => {
  test("holds within a second, and within a second gives way when it is raised and is gone when it is deleted", async () => {
    const { at, key, limit } = await team();
    assert.deepEqual(await statuses(key, 2), [200, 200], "what was used before counts");
    const made = await limit(requests(3));
    // A second after the change at the latest every isolate knows that a limit applies.
    await sleep(1_000);
    assert.deepEqual(await statuses(key, 2), [200, 429]);
    await owner.patch(`${at}/limits/${made.id}`, { amount: 4 });
    // For as long an isolate remembers a refusal.
    await sleep(1_000);
    assert.deepEqual(await statuses(key, 2), [200, 429], "an amount that is changed keeps the count");
    await owner.delete(`${at}/limits/${made.id}`);
    await sleep(1_000);
    assert.deepEqual(await statuses(key, 1), [200]);
  });

  test("in shadow mode refuses nothing and counts, then is enforced", async () => {
    const { at, key, limit, state } = await team();
    const made = await limit(requests(1, { mode: "shadow" }));
    assert.deepEqual(await statuses(key, 3), [200, 200, 200]);
    const { used, remaining, mode } = one(await state(), made.id);
    assert.deepEqual({ used, remaining, mode }, { used: 3, remaining: 0, mode: "shadow" });
    await owner.patch(`${at}/limits/${made.id}`, { mode: "enforce" });
    assert.deepEqual(await statuses(key, 1), [429]);
  });

  test("goes with its key", async () => {
    const { at, key, state } = await team({ limits: [requests(1)] });
    const other = await owner.post(`${at}/keys`, { name: "other", limits: [requests(7)] });
    assert.deepEqual((await state()).limits.map(({ scope, subject, limit }) => [scope, subject, limit]).sort(), [
      ["key", key.id, 1],
      ["key", other.id, 7],
    ].sort());
    await owner.delete(`${at}/keys/${key.id}`);
    assert.deepEqual((await state()).limits.map(({ subject }) => subject), [other.id]);
  });
});

describe("how limits stand", () => {
  test("is told to the last token and nano-dollar, for the account, a user and a key", async () => {
    const { id, at, key, limit, state } = await team();
    const member = await userWith(owner, "developer", id);
    const own = await owner.post(`${at}/keys`, { name: "own", user_id: member.user.id });
    const budget = await limit({ dimension: "cost", period: "month", amount: 1_000_000_000 });
    const tokens = await limit({ dimension: "total_tokens", period: "day", amount: 1_000, model: "gpt-test" });
    const rate = await limit({ dimension: "requests", period: "minute", amount: 60 }, { key_id: own.id });
    assert.deepEqual(await statuses(key, 2), [200, 200]);
    assert.deepEqual(await statuses(own, 1), [200]);
    const settled = async () => (await state()).limits.every((limit) => limit.reserved === 0);
    await eventually(settled, "all to be settled");

    const whole = await state();
    const told = (standing, made) => {
      const { limit, used, remaining } = one(standing, made.id);
      return [limit, used, remaining];
    };
    assert.deepEqual(told(whole, budget), [1_000_000_000, 3 * COST, 1_000_000_000 - 3 * COST]);
    assert.deepEqual(told(whole, tokens), [1_000, 45, 955]);
    assert.deepEqual(told(whole, rate), [60, 1, 59]);
    const used = (count) => ({ requests: count, input_tokens: 10 * count, output_tokens: 5 * count, cost_nanodollars: count * COST });
    for (const period of ["day", "week", "month", "total"]) {
      assert.deepEqual(whole.usage[period], { settled: used(3), reserved: used(0) }, period);
    }
    const now = new Date();
    const nextMonth = Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1);
    assert.equal(one(whole, budget.id).resets_at_ms, nextMonth);

    const ofKey = await state({ key_id: own.id });
    const kinds = ofKey.limits.map(({ scope, subject }) => `${scope} ${subject}`);
    assert.deepEqual(kinds, [`key ${own.id}`, `user ${member.user.id}`, `account ${id}`, `account ${id}`]);
    assert.deepEqual(ofKey.usage.month.settled, used(1));
    const ofUser = await state({ user_id: member.user.id });
    assert.deepEqual(ofUser.limits.map(({ id }) => id).sort(), [budget.id, tokens.id, "default:user:requests:day"].sort());
    assert.deepEqual([one(ofUser, "default:user:requests:day").used, ofUser.usage.month.settled], [1, used(1)]);
    const ofModel = await state({ model: "gpt-inline" });
    assert.deepEqual(ofModel.limits.map(({ id }) => id).sort(), [budget.id, rate.id].sort());
    assert.deepEqual(ofModel.usage.month.settled, used(0));
    await owner.call("GET", `${at}/limits/state?key_id=${own.id}&user_id=${member.user.id}`, { expected: 400 });
    assert.deepEqual((await state({ key_id: "jwt:0:nobody" })).usage.total.settled, used(0), "a token's caller that never came");
  });

  test("may be seen by who may see limits, in their accounts alone", async () => {
    const [mine, other] = [await team(), await team()];
    const viewer = await userWith(owner, "viewer", mine.id);
    const developer = await userWith(owner, "developer", mine.id);
    for (const where of ["limits/state", "connections"]) {
      await viewer.get(`${mine.at}/${where}`);
      await developer.get(`${mine.at}/${where}`);
      for (const caller of [viewer, developer]) await caller.call("GET", `${other.at}/${where}`, { expected: 404 });
    }
    await viewer.call("GET", `${V1}/providers/shared/connections`, { expected: 403 });
    await (await userWith(owner, "viewer")).get(`${V1}/providers/shared/connections`);
    await owner.call("GET", `${V1}/providers/nobody/connections`, { expected: 404 });
    await owner.call("GET", `${V1}/accounts/nobody/connections`, { expected: 404 });
  });
});

describe("open requests", () => {
  test("are counted by key and provider while streams last, and not after", async () => {
    const { at, key, limit, connections } = await team();
    const other = await owner.post(`${at}/keys`, { name: "other" });
    await limit({ dimension: "concurrency", period: "none", amount: 20 });
    const provider = () => owner.get(`${V1}/providers/shared/connections`);
    const before = Date.now();
    const slow = { model: "shared", stream: true, directives: { chunks: 4, gap_ms: 700 } };
    const streams = await Promise.all([key, key, key, other, other].map((who) => open(request(who, slow))));
    const there = await connections();
    const counts = (told) => Object.fromEntries(told.keys.map(({ key_id, open }) => [key_id, open]));
    assert.deepEqual([there.open, counts(there)], [5, { [key.id]: 3, [other.id]: 2 }]);
    assert.equal(there.complete, false, "requests without limits are not announced");
    for (const { oldest_at_ms } of there.keys) assert.ok(oldest_at_ms >= before - 5 && oldest_at_ms <= Date.now());
    const shared = await provider();
    assert.deepEqual([shared.open, shared.complete, counts(shared)], [5, true, { [key.id]: 3, [other.id]: 2 }]);
    const [quota] = shared.limits;
    assert.deepEqual([quota.id, quota.scope, quota.subject, quota.limit], ["provider:shared:requests:day", "provider", "shared", 1_000]);
    assert.ok(quota.used >= 5);
    const reads = await Promise.all(streams.map((stream) => readStream(stream, "chat")));
    for (const read of reads) assert.equal(read.done, true);
    await eventually(async () => (await connections()).open === 0 && (await provider()).open === 0, "all to be over");
    assert.deepEqual((await connections()).keys, []);
  });
});

describe("a simulation", () => {
  test("tells how limits stand and whether they have room, and reserves nothing", async () => {
    const { key, limit, state } = await team();
    const budget = await limit({ dimension: "cost", period: "day", amount: 100_000_000 });
    const shadow = await limit(requests(0, { mode: "shadow" }));
    const sample = { model: "gpt-test", key_id: key.id, input_tokens: 1_000, max_tokens: 100 };
    const simulate = async (...samples) => (await owner.post(`${V1}/config/simulate`, { document: document(), requests: samples })).results;
    const text = JSON.stringify(config({ prices: { "gpt-test": { input: "1", output: "2" } } }));
    const document = () => JSON.parse(text.replaceAll(MOCK, mock.url));
    const [keyed, anybody] = await simulate(sample, { ...sample, key_id: undefined });
    const { admitted, reserved, refused_by, shadowed, limits } = keyed.admission;
    assert.deepEqual({ admitted, refused_by, shadowed }, { admitted: true, refused_by: null, shadowed: [shadow.id] });
    assert.deepEqual(reserved, { requests: 1, input_tokens: 1_000, output_tokens: 100, cost_nanodollars: 1_200_000 });
    assert.deepEqual(limits.map(({ id, used }) => [id, used]).sort(), [[budget.id, 0], [shadow.id, 0]].sort());
    assert.deepEqual([keyed.error, anybody.admission], [null, null]);
    const [large] = await simulate({ ...sample, input_tokens: 200_000 });
    assert.deepEqual([large.admission.admitted, large.admission.refused_by, large.error.status], [false, budget.id, 402]);
    assert.equal(large.error.code, "budget_exceeded");
    assert.deepEqual((await state()).limits.map(({ used }) => used), [0, 0], "nothing was reserved");
  });
});

describe("alerts of limits", () => {
  test("are raised once each at 50, 80, 95 and 100 per cent, and when a budget will not last", async () => {
    const { id, at, key, limit } = await team();
    const made = await limit({ dimension: "requests", period: "month", amount: 10 });
    const events = async (query = {}) => {
      const page = await owner.get(`${V1}/alerts/events?${new URLSearchParams({ account_id: id, ...query })}`);
      return page.data;
    };
    const thresholds = async () => (await events({ kind: "limit_threshold" })).map(({ threshold }) => threshold).sort((a, b) => a - b);
    for (const [times, expected] of [[4, []], [1, [50]], [4, [50, 80]], [1, [50, 80, 95, 100]]]) {
      assert.deepEqual(new Set(await statuses(key, times)), new Set([200]));
      const seen = async () => (await thresholds()).length >= expected.length;
      await eventually(seen, `the events ${expected}`, { timeout: 15_000 });
    }
    assert.deepEqual(await statuses(key, 2), [429, 429]);
    await sleep(1_500);
    assert.deepEqual(await thresholds(), [50, 80, 95, 100]);
    const told = await events({ kind: "limit_threshold" });
    for (const event of told) {
      assert.deepEqual([event.rule_id, event.metric, event.account_id], [made.id, "requests", id]);
      const { scope, subject, period, limit } = event.detail;
      assert.deepEqual({ scope, subject, period, limit }, { scope: "account", subject: id, period: "month", limit: 10 });
      assert.ok(event.resolved_at !== null);
    }
    const ofAccount = await owner.get(`${at}/alerts/events`);
    assert.deepEqual(ofAccount.data.map((event) => event.id), (await events()).map((event) => event.id));
    assert.deepEqual(await events({ kind: "rule" }), []);
    // Early in a month nothing is foretold.
    const now = new Date();
    const days = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 0)).getUTCDate();
    const elapsed = (Date.now() - Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), 1)) / (days * 86_400_000);
    if (elapsed > 0.06 && elapsed < 0.99) {
      const forecasts = await events({ kind: "limit_forecast" });
      assert.equal(forecasts.length, 1);
      assert.ok(forecasts[0].detail.exceeds_at > forecasts[0].detail.period_start);
    }
  });
});
