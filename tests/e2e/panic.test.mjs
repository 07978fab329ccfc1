// A panic in one request hurts only that request. Runs against the build with faults to provoke (`scripts/build --test`).

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { ROOT } from "./harness.mjs";
import {
  LANES,
  ask,
  assertComplete,
  assertErrorBody,
  assertNothingLeaked,
  config,
  eventually,
  freshId,
  logOf,
  send,
  sleep,
  start,
  streamIn,
} from "./support.mjs";

const BUILD = "build-test";
const skip = !existsSync(path.join(ROOT, BUILD, "index_bg.wasm")) && `${BUILD}/ is absent: run scripts/build --test`;

describe("a panic", { skip }, () => {
  let at;

  before(async () => {
    at = await start({ build: BUILD });
  });

  after(() => at?.stop());

  const panic = (headers = {}) => send({ url: `${at.url}/test/panic`, headers });
  const chat = (lane = LANES.relayed) => streamIn(lane, at, { directives: { text: "well and alive" } });

  test("answers 500 with the request id and an error in the caller's dialect", async () => {
    for (const [api, dialect] of [
      ["chat", {}],
      ["messages", { "anthropic-version": "2023-06-01" }],
    ]) {
      const id = freshId();
      const reply = await panic({ "x-request-id": id, ...dialect });
      assert.equal(reply.status, 500);
      assert.equal(reply.headers["x-request-id"], id);
      assertErrorBody(reply.json, api);
      if (api === "messages") assert.equal(reply.json.request_id, id);
      assert.doesNotMatch(reply.text, /panicked|\.rs|provoked/, "no innards");
    }
  });

  test("has its line in the log, with what went wrong", async () => {
    const id = freshId();
    await panic({ "x-request-id": id });
    const line = await logOf(at.gateway, id);
    assert.deepEqual(
      [line.status, line.outcome, line.level, line.error_code],
      [500, "failed", "warn", "internal_error"],
    );
    assert.match(line.error_detail, /provoked by a test/);
  });

  test("gets a fresh request id where the caller brought none", async () => {
    assert.match((await panic()).headers["x-request-id"], /^[0-9a-f]{8}-[0-9a-f]{4}-7/);
  });

  test("leaves the next request alone, twenty times over", async () => {
    for (let round = 0; round < 20; round++) {
      assert.equal((await panic()).status, 500);
      const lane = Object.values(LANES)[round % Object.keys(LANES).length];
      assertComplete(await chat(lane), lane);
    }
  });

  for (const [name, lane] of Object.entries(LANES)) {
    test(`does not break a stream that is running (${name})`, async () => {
      let panics = 0;
      const read = await streamIn(lane, at, { directives: { chunks: 20, gap_ms: 30 } }, async (_event, _json, read) => {
        if (read.text === "" || panics >= 5) return;
        panics += 1;
        assert.equal((await panic()).status, 500);
      });
      assertComplete(read, lane);
      assert.equal(panics, 5);
      assert.equal((await logOf(at.gateway, read.id)).outcome, "completed");
    });
  }

  test("among many requests at once hurts none of the others", async () => {
    const lanes = Object.values(LANES);
    const work = Array.from({ length: 40 }, async (_, nth) => {
      await sleep((nth % 10) * 5);
      if (nth % 2) return assert.equal((await panic()).status, 500);
      const lane = lanes[nth % lanes.length];
      assertComplete(await streamIn(lane, at, { directives: { chunks: 10, gap_ms: 10 } }), lane);
    });
    await Promise.all(work);
  });

  test("does not make the isolate forget its configuration", async () => {
    const loads = () => at.gateway.logs.filter((line) => line.includes("configuration loaded")).length;
    const before = loads();
    assert.ok(before >= 1);
    for (let round = 0; round < 5; round++) await panic();
    await chat();
    assert.equal(loads(), before);
  });

  test("settles what was reserved: nothing before the provider was asked, all of it afterwards", async () => {
    const limits = { per_key: [{ dimension: "cost", period: "day", amount: 1_000_000_000_000 }], first_output_tokens: 50 };
    const prices = { "gpt-test": { input: "1", output: "2" } };
    const limited = await start({ build: BUILD, config: config({ limits, prices, records: { flush_ms: 100 } }) });
    try {
      const today = async () =>
        (await send({ url: `${limited.url}/v1/key`, headers: { authorization: `Bearer ${limited.key}` } })).json.usage.day;
      const provoke = async (place) => {
        const headers = { "content-type": "application/json", authorization: `Bearer ${limited.key}`, "x-test-fault": `${place}!` };
        const body = JSON.stringify({ model: "gpt-test", messages: ask() });
        const reply = await send({ url: `${limited.url}/v1/chat/completions`, method: "POST", headers, body });
        assert.equal(reply.status, 500);
      };
      await provoke("after-admit");
      const settled = async (requests) => {
        const day = await today();
        return day.requests === requests && day.reserved.requests === 0;
      };
      await eventually(() => settled(1), "the reservation to be settled");
      assert.equal((await today()).cost_nanodollars, 0);
      await provoke("after-dispatch");
      await eventually(() => settled(2), "the reservation to be settled");
      const { cost_nanodollars, output_tokens } = await today();
      assert.equal(output_tokens, 50, "charged as reserved");
      const sum = limited.gateway.db.prepare("SELECT sum(cost_nanos) AS cost, sum(requests) AS requests FROM usage");
      await eventually(async () => (await sum.first()).requests === 2, "the usage to be handed on");
      assert.equal((await sum.first()).cost, cost_nanodollars);
    } finally {
      await limited.stop();
    }
  });

  test("cannot be provoked in the build that is deployed", async () => {
    const deployed = await start();
    try {
      assert.equal((await send({ url: `${deployed.url}/test/panic` })).status, 404);
    } finally {
      await deployed.stop();
    }
  });
});

test("no line of the log has a secret in it", { skip }, assertNothingLeaked);
