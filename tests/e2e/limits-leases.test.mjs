// Leases: isolates admit requests of busy keys from what the ledger has lent them. That spares calls and changes nothing
// else: limits hold as exactly, what was lent comes back, and what was used is counted once.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { CLIENTS, books, call, chat, crowd, limit, limitsNow, makeKeys, settled, sleep, tally } from "./limits.mjs";
import { meddle, meddled } from "./meddler.mjs";
import { assertNothingLeaked, config, eventually, freshId, logOf, requestLines, start } from "./support.mjs";

const HOUR = { dimension: "requests", period: "hour" };
const PRICES = { "gpt-test": { input: "1.37", output: "4.01" } };

describe("leases", () => {
  let at;
  before(async () => {
    at = await start({
      ...meddled(),
      isolates: 2,
      config: config({
        prices: PRICES,
        providers: { gauged: { ...config().providers.openai, limits: [{ ...HOUR, amount: 50 }] } },
        models: { gauged: { provider: "gauged", upstream_model: "mock-large" } },
        timeouts: { total_ms: 4_000, first_byte_ms: 4_000, idle_ms: 4_000 },
        limits: { lease_ms: 2_000, reservation_slack_ms: 1_000 },
        records: { mode: "all", flush_ms: 200 },
      }),
    });
  });
  after(() => at?.stop());

  const calls = () => meddle(at.gateway, { faults: [] });
  const by = (account, how) =>
    requestLines(at.gateway).filter((line) => line.account === account && line.admitted_by === how).length;

  test("spare a busy key's requests the call to the ledger", async () => {
    const [account, requests] = ["hot", 1_500];
    const [made] = await makeKeys(at.gateway, [{ account }]);
    await limit(at.gateway, account, { ...HOUR, amount: 1_000_000 }, { dimension: "cost", period: "month", amount: 10 ** 13 });
    await calls();
    const replies = await crowd(requests, (nth) => chat({ url: at.gateway.urls[nth % 2], key: made.key }));
    assert.deepEqual(tally(replies), { 200: requests });
    const asked = await calls();
    console.log(`${requests} requests: ${JSON.stringify(asked)}`);
    assert.ok(asked["/admit"] <= 0.3 * requests, `${asked["/admit"]} calls to admit ${requests} requests`);
    assert.ok(asked["/usage"] <= 0.3 * requests, `${asked["/usage"]} calls to settle ${requests} requests`);
    assert.equal(asked["/check"] ?? 0, 0);
    await settled(at.gateway, account);
    const { ledger, database, records } = await books(at.gateway, account);
    assert.equal(ledger.requests, requests);
    assert.deepEqual(database, ledger);
    assert.deepEqual([records.records, records.cost], [requests, ledger.cost]);
    const { states } = await limitsNow(at.gateway, account, { key_id: made.id });
    assert.equal(states.find(({ dimension }) => dimension === "requests").used, requests);
    assert.equal(states.find(({ dimension }) => dimension === "cost").used, ledger.cost);
    assert.ok(by(account, "lease") > 0.6 * requests);
  });

  test("and a limit that is hammered at is asked about once a second", async () => {
    const account = "hammered";
    const [made] = await makeKeys(at.gateway, [{ account }]);
    await limit(at.gateway, account, { ...HOUR, amount: 1 });
    const ask = () => chat({ url: at.gateway.urls[0], key: made.key });
    assert.equal((await ask()).status, 200);
    assert.equal((await ask()).status, 429);
    await calls();
    const began = Date.now();
    const replies = await crowd(300, ask);
    const seconds = Math.ceil((Date.now() - began) / 1_000);
    assert.deepEqual(tally(replies), { 429: 300 });
    const waits = replies.map(({ headers }) => Number(headers["retry-after-ms"]));
    assert.ok(waits.every((wait) => wait > 3_500_000 && wait <= 3_600_000), "each is told how long to wait from then on");
    const asked = (await calls())["/admit"] ?? 0;
    // Whoever comes while the answer is on its way asks as well.
    assert.ok(asked <= seconds * CLIENTS && asked < 150, `${asked} calls in ${seconds} s`);
  });

  for (const [amount, runs] of [[10, 5], [1_000, 3]]) {
    test(`admit ${amount} times and no more in two isolates, ${runs} times over`, async () => {
      for (let run = 0; run < runs; run += 1) {
        const account = `shared-${amount}-${run}`;
        const keys = await makeKeys(at.gateway, [{ account }, { account }]);
        await limit(at.gateway, account, { ...HOUR, amount, period: run % 2 ? "day" : "hour" });
        const ask = (nth) => chat({ url: at.gateway.urls[nth % 2], key: keys[(nth >> 1) % 2].key, directives: { tag: account } });
        const first = tally(await crowd(amount + CLIENTS, ask));
        assert.ok(first[200] <= amount, JSON.stringify(first));
        // What was lent and not used has come back: the rest of the limit is there for whoever asks.
        await settled(at.gateway, account);
        const rest = tally(await crowd(amount - first[200] + CLIENTS, ask));
        assert.equal(first[200] + (rest[200] ?? 0), amount, JSON.stringify([first, rest]));
        assert.equal((await at.mock.journal(account)).length, amount);
        if (run === 0) console.log(`at first ${first[200]} of ${amount}, then ${rest[200] ?? 0}`);
      }
    });
  }

  test("hold little of a budget back, and none of it for long", async () => {
    const [account, cost, fit] = ["budgeted", 20 * 1_370 + 50 * 4_010, 400];
    const keys = await makeKeys(at.gateway, [{ account }, { account }]);
    await limit(at.gateway, account, { dimension: "cost", period: "month", amount: fit * cost });
    const directives = { usage_in: 20, usage_out: 50 };
    const ask = (nth) => chat({ url: at.gateway.urls[nth % 2], key: keys[(nth >> 1) % 2].key, directives, max_tokens: 50 });
    const first = tally(await crowd(fit + CLIENTS, ask));
    console.log(`at first ${first[200]} of ${fit} that fit the budget`);
    assert.ok(first[200] >= 0.8 * fit, `${first[200]} of ${fit}`);
    await settled(at.gateway, account);
    let more = 0;
    while ((await ask(more)).status === 200) more += 1;
    await settled(at.gateway, account);
    const { ledger, database, records } = await books(at.gateway, account);
    assert.deepEqual([database, records.cost], [ledger, ledger.cost]);
    assert.deepEqual([ledger.requests, ledger.cost], [first[200] + more, (first[200] + more) * cost]);
    assert.ok(ledger.cost <= fit * cost && ledger.cost >= 0.97 * fit * cost, `${ledger.cost} of ${fit * cost}`);
  });

  test("get back what a provider's limit refuses", async () => {
    const account = "refused-by-provider";
    const [made] = await makeKeys(at.gateway, [{ account }]);
    await limit(at.gateway, account, { ...HOUR, amount: 1_000_000 });
    const replies = await crowd(200, () => chat({ url: at.url, key: made.key, model: "gauged" }), 16);
    assert.deepEqual(tally(replies), { 200: 50, 429: 150 });
    await settled(at.gateway, account);
    const { states, totals } = await limitsNow(at.gateway, account, { key_id: made.id });
    assert.deepEqual([states[0].used, totals.total.settled.requests], [50, 50]);
  });

  test("are not given where a limit is tight", async () => {
    const tight = {
      concurrency: { dimension: "concurrency", period: "none", amount: 1_000 },
      "a token bucket": { ...HOUR, amount: 1_000_000, burst: 1_000_000 },
      "a second": { ...HOUR, period: "second", amount: 1_000_000 },
      "what has little left": { ...HOUR, amount: 39 },
    };
    for (const [nth, [name, terms]] of Object.entries(tight).entries()) {
      const account = `tight-${nth}`;
      const [made] = await makeKeys(at.gateway, [{ account }]);
      await limit(at.gateway, account, { ...HOUR, period: "day", amount: 1_000_000 }, terms);
      await crowd(60, () => chat({ url: at.url, key: made.key }), 8);
      await settled(at.gateway, account);
      assert.equal(by(account, "lease"), 0, name);
    }
  });

  test("are given back by the last request, also if it outlives the lease", async () => {
    const account = "outlived";
    const [made] = await makeKeys(at.gateway, [{ account }]);
    await limit(at.gateway, account, { ...HOUR, amount: 1_000_000 });
    const quick = (requests) => crowd(requests, () => chat({ url: at.url, key: made.key }), 8);
    await quick(40);
    const ids = [1, 2, 3, 4, 5, 6].map(freshId);
    const slow = ids.map((id) =>
      chat({ url: at.url, key: made.key, directives: { ttfb_ms: 3_000 }, headers: { "x-request-id": id } }),
    );
    await quick(20);
    assert.ok((await Promise.all(slow)).every(({ status }) => status === 200));
    const admitted = await Promise.all(ids.map(async (id) => (await logOf(at.gateway, id)).admitted_by));
    assert.ok(admitted.includes("lease"), `${admitted}`);
    // Nobody asks for anything any more; well before anything expires all is settled.
    await settled(at.gateway, account, { timeout: 1_800 });
    const { ledger, database } = await books(at.gateway, account);
    assert.equal(ledger.requests, 66);
    assert.deepEqual(database, ledger);
  });

  test("do not keep a key alive that is revoked", async () => {
    const account = "revoked";
    const [made] = await makeKeys(at.gateway, [{ account }]);
    await limit(at.gateway, account, { ...HOUR, amount: 1_000_000 });
    const quick = (requests) => crowd(requests, () => chat({ url: at.url, key: made.key }), 8);
    await quick(60);
    assert.ok(by(account, "lease") > 0);
    const state = { records: { [made.id]: { ...made.record, disabled: true } } };
    await call(at.gateway, "LEDGER", account, "PUT", "/keys", { key_id: made.id, revision: 1, state });
    const revoked = performance.now();
    let late = 0;
    while (performance.now() < revoked + 2_000) {
      const began = performance.now();
      const replies = await quick(8);
      if (began > revoked + 1_000) late += tally(replies)[200] ?? 0;
    }
    assert.equal(late, 0, "a second later it is dead");
    await settled(at.gateway, account);
  });

  test("count once, whatever is lost, doubled or late between isolate and ledger", async () => {
    const [account, requests] = ["meddled", 800];
    const keys = await makeKeys(at.gateway, [{ account }, { account }]);
    await limit(at.gateway, account, { ...HOUR, amount: 1_000_000 }, { dimension: "cost", period: "month", amount: 10 ** 13 });
    const faults = ["/admit", "/usage"].flatMap((path) => [
      { path, fault: "lose the answer", share: 0.03 },
      { path, fault: "refuse", share: 0.03 },
      { path, fault: "double", share: 0.1 },
      { path, fault: "delay", share: 0.2, ms: 400 },
    ]);
    await meddle(at.gateway, { faults });
    const replies = await crowd(requests, (nth) => chat({ url: at.gateway.urls[nth % 2], key: keys[(nth >> 1) % 2].key }));
    await sleep(2_000);
    await calls();
    assert.deepEqual(tally(replies), { 200: requests });
    // One more in each isolate, for what waits there.
    for (const url of at.gateway.urls) assert.equal((await chat({ url, key: keys[0].key })).status, 200);
    await settled(at.gateway, account);
    const { ledger, database, records } = await books(at.gateway, account);
    assert.equal(ledger.requests, requests + 2);
    assert.deepEqual(database, ledger);
    assert.deepEqual([records.records, records.cost], [requests + 2, ledger.cost]);
  });

  test("that an isolate has are void when the limit is lowered, within their time", async () => {
    const account = "lowered";
    const [made] = await makeKeys(at.gateway, [{ account }]);
    await limit(at.gateway, account, { ...HOUR, amount: 1_000_000 });
    await crowd(100, () => chat({ url: at.url, key: made.key }), 16);
    await limit(at.gateway, account, { ...HOUR, amount: 10 });
    const end = performance.now() + 2_100;
    await eventually(async () => (await chat({ url: at.url, key: made.key })).status === 429, "it is refused", { timeout: 2_500 });
    await sleep(Math.max(0, end - performance.now()));
    assert.equal((await chat({ url: at.url, key: made.key })).status, 429);
    await settled(at.gateway, account);
  });
});

test("nothing that the gateways wrote has a secret in it", assertNothingLeaked);
