// A panic in one request hurts only that request. Runs against the build with faults to provoke (`scripts/build --test`).

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { ROOT } from "./harness.mjs";
import {
  LANES,
  assertComplete,
  assertErrorBody,
  assertNothingLeaked,
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
