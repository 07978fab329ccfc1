// Limits hold exactly: 64 clients at once, in two isolates, against the real objects, are admitted as often as the limit
// says and not once more; and never more than that when the gateway is killed and started again in between.

import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, before, describe, test } from "node:test";

import { startGatewayProcess, startMock } from "./harness.mjs";
import {
  CLIENTS,
  call,
  chat,
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
import { KEY_HASH_SECRET, MOCK, PROVIDER_SECRETS, assertNothingLeaked, config, start } from "./support.mjs";

/** Runs of each size of limit; those of a thousand take long. LIMITS_RUNS=20 makes 20 of all. */
const RUNS = Number(process.env.LIMITS_RUNS ?? 20);
const LONG_RUNS = Number(process.env.LIMITS_RUNS ?? 5);

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

/** Waits for midnight (UTC) to pass if it is near: a quota of a day is then another day's. */
async function clearOfMidnight(needed) {
  const left = DAY - (Date.now() % DAY);
  if (left < needed) await sleep(left + 100);
}

/** How a limit of so many requests is counted. A token bucket gets one more an hour only. */
const ALGORITHMS = {
  "sliding window": (amount) => ({ period: "hour", amount }),
  "token bucket": (amount) => ({ period: "hour", amount: 1, burst: amount }),
  "quota of a day": (amount) => ({ period: "day", amount }),
};

/** Whom a limit is set for: the keys that call, and what the limit says of that. */
const SCOPES = {
  key: { keys: [{}], limit: (made) => ({ key_id: made[0].id }) },
  user: { keys: [{ user: "ann" }, { user: "ann" }, { user: "ann" }], limit: () => ({ user_id: "ann" }) },
  account: { keys: [{ user: "ann" }, { user: "bob" }, { user: "bob" }, {}], limit: () => ({}) },
  model: { keys: [{}, {}], limit: () => ({ model: "gpt-test" }) },
};

describe("64 clients in two isolates", () => {
  const providers = {};
  const models = {};
  const gauged = (name, amount) => {
    const limits = [{ dimension: "requests", period: "hour", amount }];
    providers[name] = { dialect: "openai", base_url: `${MOCK}/v1`, credential: "OPENAI_KEY", limits };
    models[name] = { provider: name, upstream_model: "mock-large" };
  };
  for (const amount of [1, 10]) for (let run = 0; run < RUNS; run += 1) gauged(`gauged-${amount}-${run}`, amount);
  gauged("gauged-ample", 1_000);
  let at;
  before(async () => {
    await clearOfMidnight(5 * 60_000);
    at = await start({
      isolates: 2,
      config: config({ providers, models, limits: { lease_ms: 0 }, records: { mode: "off", flush_ms: 1_000 } }),
    });
  });
  after(() => at?.stop());

  let accounts = 0;
  /** Sends requests against a limit of its own; the mock's journal says how many of them were passed on. */
  async function against(algorithm, scope, amount, requests) {
    const account = `exact-${++accounts}`;
    const keys = await makeKeys(at.gateway, SCOPES[scope].keys.map((key) => ({ account, ...key })));
    const terms = { dimension: "requests", ...ALGORITHMS[algorithm](amount), ...SCOPES[scope].limit(keys) };
    await limit(at.gateway, account, terms);
    const { urls } = at.gateway;
    const replies = await crowd(requests, (nth) =>
      chat({ url: urls[nth % urls.length], key: keys[(nth >> 1) % keys.length].key, directives: { tag: account } }),
    );
    const passedOn = (await at.mock.journal(account)).length;
    return { account, keys, counts: tally(replies), passedOn };
  }

  for (const algorithm of Object.keys(ALGORITHMS)) {
    for (const amount of [1, 10]) {
      test(`are admitted ${amount} times by a ${algorithm} of ${amount}, ${RUNS} times over`, async () => {
        for (let run = 0; run < RUNS; run += 1) {
          const scope = Object.keys(SCOPES)[run % Object.keys(SCOPES).length];
          const { counts, passedOn } = await against(algorithm, scope, amount, CLIENTS);
          assert.deepEqual({ counts, passedOn }, { counts: { 200: amount, 429: CLIENTS - amount }, passedOn: amount }, scope);
        }
      });
    }
  }

  test(`are admitted 1,000 times by a limit of 1,000, ${LONG_RUNS} times over`, async () => {
    const [amount, more] = [1_000, 2 * CLIENTS];
    const combinations = Object.keys(ALGORITHMS).flatMap((algorithm) => Object.keys(SCOPES).map((scope) => [algorithm, scope]));
    const began = performance.now();
    for (let run = 0; run < LONG_RUNS; run += 1) {
      const [algorithm, scope] = combinations[(5 * run) % combinations.length];
      const { counts } = await against(algorithm, scope, amount, amount + more);
      assert.deepEqual(counts, { 200: amount, 429: more }, `${algorithm}, ${scope}`);
    }
    const rate = (LONG_RUNS * (amount + more)) / ((performance.now() - began) / 1_000);
    console.log(`${Math.round(rate)} requests a second`);
  });

  for (const amount of [1, 10]) {
    test(`are admitted ${amount} times by a provider's limit of ${amount}, ${RUNS} times over`, async () => {
      const keys = await makeKeys(at.gateway, [{ account: "gauged-a" }, { account: "gauged-b" }]);
      await limit(at.gateway, "gauged-b", { dimension: "requests", period: "day", amount: 1_000_000 });
      const { urls } = at.gateway;
      for (let run = 0; run < RUNS; run += 1) {
        const model = `gauged-${amount}-${run}`;
        const replies = await crowd(CLIENTS, (nth) =>
          chat({ url: urls[nth % urls.length], key: keys[(nth >> 1) % keys.length].key, model }),
        );
        assert.deepEqual(tally(replies), { 200: amount, 429: CLIENTS - amount });
      }
      await settled(at.gateway, "gauged-b");
      const { states } = await limitsNow(at.gateway, "gauged-b", { key_id: keys[1].id });
      const { totals } = await limitsNow(at.gateway, "gauged-b");
      assert.equal(states[0].used, totals.total.settled.requests, "what the provider's limit refused is not counted");
      assert.equal(states[0].reserved, 0);
    });
  }

  test("that the ledger refuses count for nothing at the provider", async () => {
    const [account, amount] = ["refused-by-ledger", 5];
    const [made] = await makeKeys(at.gateway, [{ account }]);
    await limit(at.gateway, account, { dimension: "requests", period: "day", amount });
    const model = "gauged-ample";
    const replies = await crowd(CLIENTS, (nth) => chat({ url: at.gateway.urls[nth % 2], key: made.key, model }));
    assert.deepEqual(tally(replies), { 200: amount, 429: CLIENTS - amount });
    await eventually(async (seen) => {
      const { open, states } = await call(at.gateway, "GAUGE", model, "GET", "/state");
      seen({ open, states });
      return open === 0 && states[0].used === amount;
    }, "the provider's limit knows what was sent");
  });

  test("are admitted again as the window moves on, never more than its limit at once", async () => {
    const [account, amount, seconds] = ["moving", 10, 5];
    const [made] = await makeKeys(at.gateway, [{ account }]);
    await limit(at.gateway, account, { dimension: "requests", period: "second", amount });
    const began = performance.now();
    let admitted = 0;
    const ask = async (url) => {
      while (performance.now() < began + seconds * 1_000) {
        const reply = await chat({ url, key: made.key });
        if (reply.status === 200) admitted += 1;
        else await sleep(Math.min(Number(reply.headers["retry-after-ms"]), 200));
      }
    };
    await Promise.all(Array.from({ length: CLIENTS }, (_, nth) => ask(at.gateway.urls[nth % 2])));
    const windows = Math.ceil((performance.now() - began) / 1_000);
    assert.ok(admitted <= windows * amount, `${admitted} in ${windows} windows`);
    assert.ok(admitted >= (seconds - 1) * amount, `${admitted} in ${seconds} s`);
  });

  test("hold limits of all scopes at once, and leave nothing open", async () => {
    const account = "all-scopes";
    const keys = await makeKeys(at.gateway, [{ account, user: "ann" }, { account, user: "ann" }, { account, user: "bob" }]);
    const each = { dimension: "requests", period: "hour" };
    await limit(
      at.gateway,
      account,
      { ...each, amount: 70 },
      { ...each, user_id: "ann", amount: 40 },
      { ...each, key_id: keys[0].id, amount: 15 },
      { ...each, amount: 1_000, mode: "shadow", period: "day" },
      { dimension: "concurrency", period: "none", amount: 1_000 },
    );
    const { urls } = at.gateway;
    const replies = await crowd(6 * CLIENTS, async (nth) => ({
      nth: nth % 3,
      ...(await chat({ url: urls[nth % 2], key: keys[nth % 3].key })),
    }));
    const good = [0, 1, 2].map((which) => replies.filter(({ nth, status }) => nth === which && status === 200).length);
    assert.ok(good[0] <= 15 && good[0] + good[1] <= 40, `${good}`);
    assert.equal(good[0] + good[1] + good[2], 70);
    await settled(at.gateway, account);
    const now = await limitsNow(at.gateway, account);
    assert.deepEqual([now.open, now.totals.total.settled.requests], [0, 70]);
    assert.ok(now.states.every(({ reserved }) => reserved === 0));
  });
});

describe("a gateway that is killed in the middle and started again", () => {
  const KILLS = 5;
  const lifetime = { total_ms: 2_000, first_byte_ms: 2_000, idle_ms: 2_000 };
  let mock, gateway, folder, key;
  let lease_ms = 0;
  const begin = async () => {
    gateway = await startGatewayProcess({
      mockUrl: mock.url,
      persist: folder,
      isolates: 2,
      config: config({
        providers: { gauged: { ...config().providers.openai, limits: [{ dimension: "concurrency", period: "none", amount: 2 }] } },
        models: { gauged: { provider: "gauged", upstream_model: "mock-large" } },
        timeouts: lifetime,
        limits: { lease_ms, reservation_slack_ms: 1_000 },
        records: { mode: "off", flush_ms: 300 },
      }),
      keys: [{ name: "app", key }],
      secrets: { KEY_HASH_SECRET, ...PROVIDER_SECRETS },
    });
    key = gateway.keys.app;
  };
  before(async () => {
    await clearOfMidnight(5 * 60_000);
    folder = await mkdtemp(path.join(tmpdir(), "llm-gateway-killed-"));
    mock = await startMock();
    await begin();
  });
  after(async () => {
    await gateway?.stop();
    await mock?.stop();
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  test(`admits never more, and nothing is stuck: ${RUNS} runs (${LONG_RUNS} of 1,000), ${KILLS} kills`, async () => {
    const kinds = Object.values(ALGORITHMS);
    let admitted = 0, lost = 0;
    for (let round = 0; round < KILLS; round += 1) {
      const accounts = [];
      for (const amount of [1, 10, 1_000]) {
        for (let run = 0; run < (amount === 1_000 ? LONG_RUNS : RUNS) / KILLS; run += 1) {
          const name = `killed-${round}-${amount}-${run}`;
          const keys = await makeKeys(gateway, [{ account: name }, { account: name }]);
          const terms = { dimension: "requests", ...kinds[(round + run) % kinds.length](amount) };
          // A limit on what is open rules leases out.
          const open = { dimension: "concurrency", period: "none", amount: 10_000 };
          await limit(gateway, name, terms, ...(lease_ms === 0 ? [open] : []));
          accounts.push({ name, amount, keys, terms, good: 0, lost: 0, refused: 0, sent: 0 });
        }
      }
      // Requests of all accounts, mixed; half of them before the kill.
      const work = accounts.flatMap((account) => Array(account.amount + CLIENTS).fill(account));
      for (let nth = work.length - 1; nth > 0; nth -= 1) {
        const other = Math.floor(Math.random() * (nth + 1));
        [work[nth], work[other]] = [work[other], work[nth]];
      }
      let restarted;
      const one = async (nth) => {
        if (restarted) await restarted;
        const account = work[nth];
        const url = gateway.urls[nth % gateway.urls.length];
        account.sent += 1;
        if (nth === Math.floor(work.length / 2)) {
          const kill = gateway.kill();
          restarted = kill.then(begin);
          await restarted;
        }
        try {
          const reply = await chat({ url, key: account.keys[nth % 2].key, directives: { tag: account.name } });
          if (reply.status === 200) account.good += 1;
          else account.refused += 1;
        } catch {
          account.lost += 1;
        }
      };
      await crowd(work.length, one);
      for (const account of accounts) {
        const passedOn = (await mock.journal(account.name)).length;
        assert.ok(account.good <= account.amount, `${account.good} of ${account.amount} admitted`);
        assert.ok(passedOn <= account.amount, `${passedOn} of ${account.amount} passed on`);
        assert.equal(account.good + account.lost + account.refused, account.sent);
        admitted += account.good;
        lost += account.lost;
      }
      for (const { name, amount, good, keys, terms } of accounts) {
        await settled(gateway, name);
        const now = await limitsNow(gateway, name, { key_id: keys[0].id });
        assert.equal(now.open, 0, name);
        assert.ok(now.states.every(({ reserved }) => reserved === 0), name);
        assert.ok(now.states.every(({ dimension, used }) => dimension !== "concurrency" || used === 0), name);
        const counted = now.states.find(({ dimension }) => dimension === "requests");
        assert.ok(counted.used <= amount && counted.used >= good, `${good} admitted, ${counted.used} counted of ${amount}`);
        // What was reserved and lost has been charged, so the limit is used up: it has not come free again.
        const { totals } = await limitsNow(gateway, name);
        const [sum] = (await gateway.db.prepare("SELECT SUM(requests) AS n FROM usage WHERE account_id = ?").bind(name).all()).results;
        assert.equal(sum.n, totals.total.settled.requests, name);
        assert.ok(totals.total.settled.requests <= amount && totals.total.settled.requests >= good, name);
        const { results: alerts } = await gateway.db
          .prepare("SELECT threshold FROM alert_events WHERE account_id = ? AND kind = 'limit_threshold' ORDER BY threshold")
          .bind(name)
          .all();
        const parts = terms.period === "day" ? [50, 80, 95, 100].filter((part) => 100 * counted.used >= part * amount) : [];
        assert.deepEqual(alerts.map(({ threshold }) => threshold), parts, `${name} has raised each alert once`);
      }
      // Every other round is one with leases.
      lease_ms = lease_ms === 0 ? 1_000 : 0;
      await gateway.stop();
      await begin();
    }
    console.log(`${admitted} requests admitted, ${lost} lost in ${KILLS} kills`);
    assert.ok(lost > 0, "requests were on their way when it was killed");
  });

  test("frees what was open when it was killed as soon as its time is up", async () => {
    const account = "open-when-killed";
    const [made] = await makeKeys(gateway, [{ account }]);
    await limit(gateway, account, { dimension: "concurrency", period: "none", amount: 2 });
    const ask = (directives) => chat({ url: gateway.url, key: made.key, model: "gauged", directives });
    const slow = [1, 2].map(() => ask({ ttfb_ms: 1_500 }).catch(() => "lost"));
    const gauge = async () => (await call(gateway, "GAUGE", "gauged", "GET", "/state")).open;
    await eventually(async () => (await gauge()) === 2, "both are open");
    assert.equal((await limitsNow(gateway, account)).open, 2);
    await gateway.kill();
    assert.deepEqual(await Promise.all(slow), ["lost", "lost"]);
    await begin();
    // Nobody asks the ledger for anything: it wakes up by itself.
    const sum = async () => (await gateway.db.prepare("SELECT SUM(requests) AS n FROM usage WHERE account_id = ?").bind(account).first()).n;
    await eventually(async () => (await sum()) === 2, "what was lost is charged", { timeout: 8_000 });
    await eventually(async () => (await gauge()) === 0, "nothing is open at the provider", { timeout: 5_000 });
    assert.deepEqual((await Promise.all([ask(), ask()])).map(({ status }) => status), [200, 200]);
    await settled(gateway, account);
    assert.equal((await limitsNow(gateway, account)).totals.total.settled.requests, 4);
  });

  test("takes over what an earlier version had not yet handed on", async () => {
    const account = "earlier";
    const [made] = await makeKeys(gateway, [{ account }]);
    assert.equal((await chat({ url: gateway.url, key: made.key })).status, 200);
    await settled(gateway, account);
    const { flushed_batch } = await ledger(gateway, account);
    await gateway.stop();
    const objects = path.join(folder, "v3/do/llm-gateway-AccountLedger");
    const files = (await readdir(objects)).filter((name) => name.endsWith(".sqlite"));
    const entry = (id) => ({
      id, request_id: id, at_ms: Date.now(), account, key_id: made.id, user: "", model: "gpt-test", provider: "openai",
      status: 200, outcome: "completed", counted: true, usage: { input: 5, output: 7 }, cost_nanos: 11, unpriced: false,
      estimated: false,
    });
    let written = 0;
    for (const name of files) {
      const database = new DatabaseSync(path.join(objects, name));
      const tables = database.prepare("SELECT COUNT(*) AS n FROM sqlite_master WHERE name = 'memo'").get();
      const known = tables.n === 1 && database.prepare("SELECT value FROM memo WHERE name = 'name'").get();
      if (known?.value === account) {
        database.exec("CREATE TABLE entries (batch INTEGER NOT NULL, id TEXT NOT NULL, entry TEXT NOT NULL, PRIMARY KEY (batch, id)) STRICT, WITHOUT ROWID");
        const insert = database.prepare("INSERT INTO entries (batch, id, entry) VALUES (?, ?, ?)");
        for (const nth of [1, 2, 3]) insert.run(flushed_batch + Math.ceil(nth / 2), `old-${nth}`, JSON.stringify(entry(`old-${nth}`)));
        written += 1;
      }
      database.close();
    }
    assert.equal(written, 1);
    await begin();
    assert.equal((await chat({ url: gateway.url, key: made.key })).status, 200);
    await settled(gateway, account);
    const { totals } = await limitsNow(gateway, account);
    assert.equal(totals.total.settled.requests, 5);
    const sum = await gateway.db.prepare("SELECT SUM(requests) AS n FROM usage WHERE account_id = ?").bind(account).first();
    assert.equal(sum.n, 5);
  });
});

test("nothing that the gateways wrote has a secret in it", assertNothingLeaked);
