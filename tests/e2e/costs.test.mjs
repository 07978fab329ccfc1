// What callers are told of the cost of their requests, with the official SDKs of both dialects.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

import { ask, assertNothingLeaked, config, freshId, logOf, start } from "./support.mjs";

// Micro-dollars a token: 2.5 in and 10 out.
const PRICE = { input: "2.5", output: "10" };
const USED = { usage_in: 41, usage_out: 9 };
const COST = 0.0001925;
const NANOS = 192_500;
const TELL = { "x-gateway-include-cost": "true" };

/** What serves a model of Chat Completions: the same bytes, decoded and written anew, another dialect. */
const CHAT = { "gpt-test": "native", "gpt-loose": "translated", "claude-test": "translated" };

describe("what a request cost", { concurrency: 4 }, () => {
  let at, openai, anthropic;

  before(async () => {
    const models = { free: { provider: "openai", upstream_model: "mock-large" } };
    models["claude-free"] = { provider: "anthropic", upstream_model: "mock-claude" };
    const prices = Object.fromEntries(Object.keys(CHAT).map((name) => [name, PRICE]));
    at = await start({ config: config({ models, prices }) });
    openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
    anthropic = new Anthropic({ baseURL: at.url, apiKey: at.key, maxRetries: 0 });
  });

  after(() => at?.stop());

  /** The chunks of a stream, and its id. */
  async function streamed(model, headers, fields = {}) {
    const tag = freshId();
    const body = { model, stream: true, messages: ask({ tag, ...USED }), ...fields };
    const chunks = [];
    for await (const chunk of await openai.chat.completions.create(body, { headers: { "x-request-id": tag, ...headers } })) {
      chunks.push(chunk);
    }
    return { tag, chunks, usages: chunks.filter(({ usage }) => usage).map(({ usage }) => usage) };
  }

  for (const [model, lane] of Object.entries(CHAT)) {
    test(`is in a header of a whole reply, and in its usage where that is asked for (${model})`, async () => {
      const body = { model, messages: ask({ tag: freshId(), ...USED }) };
      const plain = await openai.chat.completions.create(body).withResponse();
      assert.equal(plain.response.headers.get("x-gateway-cost"), String(COST));
      assert.equal(plain.response.headers.get("x-gateway-unpriced"), null);
      assert.equal("cost" in plain.data.usage, false);
      const told = await openai.chat.completions.create(body, { headers: TELL }).withResponse();
      assert.equal(told.response.headers.get("x-gateway-cost"), String(COST));
      assert.deepEqual([told.data.usage.cost, told.data.usage.prompt_tokens], [COST, 41]);
    });

    test(`comes with the usage at the end of a stream where that is asked for (${model})`, async () => {
      const silent = await streamed(model, {});
      assert.deepEqual(silent.usages, []);
      const asked = await streamed(model, {}, { stream_options: { include_usage: true } });
      assert.equal("cost" in asked.usages.at(-1), false);
      for (const fields of [{}, { stream_options: { include_usage: true } }]) {
        const { tag, chunks, usages } = await streamed(model, TELL, fields);
        assert.deepEqual(usages.map(({ cost }) => cost), [COST]);
        assert.deepEqual(chunks.at(-1).choices, [], "the usage comes last");
        const line = await logOf(at.gateway, tag);
        assert.deepEqual([line.cost_nanodollars, line.price_source], [NANOS, "configured"]);
        assert.equal(line.lane, lane === "native" ? "relayed" : lane);
      }
    });
  }

  test("is in Messages as in Chat Completions", async () => {
    const tag = freshId();
    const body = { model: "claude-test", max_tokens: 100, messages: ask({ tag, ...USED }) };
    const { data, response } = await anthropic.messages.create(body, { headers: TELL }).withResponse();
    assert.deepEqual([data.usage.cost, response.headers.get("x-gateway-cost")], [COST, String(COST)]);
    const plain = await anthropic.messages.create(body);
    assert.equal("cost" in plain.usage, false);
  });

  test("is in the last event but one of a Messages stream", async () => {
    for (const headers of [{}, TELL]) {
      const tag = freshId();
      const body = { model: "claude-test", max_tokens: 100, stream: true, messages: ask({ tag, ...USED }) };
      const events = [];
      const options = { headers: { "x-request-id": tag, ...headers } };
      for await (const event of await anthropic.messages.create(body, options)) events.push(event);
      assert.equal(events.at(-1).type, "message_stop");
      const [delta] = events.filter(({ type }) => type === "message_delta");
      assert.equal(delta.usage.cost, headers === TELL ? COST : undefined);
      const line = await logOf(at.gateway, tag);
      assert.deepEqual([line.cost_nanodollars, line.lane], [NANOS, headers === TELL ? "relayed" : "native"]);
    }
  });

  test("is unknown where a model has no price, and that is told", async () => {
    const body = { model: "free", messages: ask({ tag: freshId(), ...USED }) };
    const { data, response } = await openai.chat.completions.create(body, { headers: TELL }).withResponse();
    assert.deepEqual([data.usage.cost, response.headers.get("x-gateway-cost")], [null, null]);
    assert.equal(response.headers.get("x-gateway-unpriced"), "true");
    const { tag, usages } = await streamed("free", TELL);
    assert.deepEqual(usages.map(({ cost }) => cost), [null]);
    const line = await logOf(at.gateway, tag);
    assert.deepEqual([line.unpriced, line.cost_nanodollars, line.price_source], [true, undefined, undefined]);
    const message = { model: "claude-free", max_tokens: 100, messages: ask({ tag: freshId() }) };
    assert.equal((await anthropic.messages.create(message, { headers: TELL })).usage.cost, null);
  });
});

test("no line of the log has a secret in it", assertNothingLeaked);
