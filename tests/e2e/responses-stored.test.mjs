// Responses that a provider keeps, by the official `openai` package: going on from one, looking at it, deleting it. They
// lie under the operator's one credential, and each belongs to the account that has made it.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import OpenAI from "openai";

import { HEALTH, MOCK, assertNothingLeaked, config, directive, freshId, journalOf, logOf, received, send, start } from "./support.mjs";

const TEXT = "one two three four five six seven";

const keeper = (more = {}) => ({
  dialect: "openai",
  base_url: `${MOCK}/v1`,
  credential: "OPENAI_KEY",
  wires: ["chat", "responses"],
  stored_responses: true,
  health: HEALTH,
  ...more,
});

const providers = {
  keeps: keeper(),
  forgets: keeper({ stored_responses: false }),
};
const models = {
  "gpt-keeps": { provider: "keeps", upstream_model: "gpt-5.5" },
  "gpt-forgets": { provider: "forgets", upstream_model: "gpt-5.5" },
};
const routes = { any: { targets: [{ model: "gpt-forgets", priority: 1 }, { model: "gpt-keeps", priority: 2 }] } };

const input = (options = {}, text = "Say something.") => `${text} ${directive(options)}`;

describe("responses that a provider keeps", { concurrency: 4 }, () => {
  const model = "gpt-keeps";
  let at, mock, gateway, openai, colleague, stranger;

  before(async () => {
    at = await start({
      config: config({ providers, models, routes }),
      keys: [
        { name: "app", account: "ours" },
        { name: "second", account: "ours" },
        { name: "other", account: "theirs" },
      ],
    });
    ({ mock, gateway } = at);
    const client = (apiKey) => new OpenAI({ baseURL: `${at.url}/v1`, apiKey, maxRetries: 0 });
    [openai, colleague, stranger] = [at.key, gateway.keys.second, gateway.keys.other].map(client);
  });

  after(() => at?.stop());

  const made = (body = {}) => openai.responses.create({ model, input: input({ text: TEXT }), ...body });
  const missing = (error) => error instanceof OpenAI.NotFoundError && /^404 Response with id '.*' not found\.$/.test(error.message);

  test("are marked at the provider, and the caller does not see it", async () => {
    const tag = freshId();
    const response = await made({ input: input({ tag }), metadata: { topic: "x" } });
    assert.deepEqual(response.metadata, { topic: "x" });
    const sent = JSON.parse((await received(mock, tag)).body);
    assert.match(sent.metadata.gateway_account, /^[0-9a-f]{32}$/);
    assert.equal(sent.metadata.topic, "x");
    const again = freshId();
    await stranger.responses.create({ model, input: input({ tag: again }) });
    assert.notEqual(JSON.parse((await received(mock, again)).body).metadata.gateway_account, sent.metadata.gateway_account);
    const unkept = freshId();
    await made({ input: input({ tag: unkept }), store: false });
    assert.equal("metadata" in JSON.parse((await received(mock, unkept)).body), false);
    const many = Object.fromEntries(Array.from({ length: 16 }, (_, nth) => [`k${nth}`, "v"]));
    await assert.rejects(made({ metadata: many }), (error) => error.status === 400 && error.param === "metadata");
  });

  test("are looked at, with what went in", async () => {
    const { id } = await made({ metadata: { topic: "x" } });
    for (const client of [openai, colleague]) {
      const response = await client.responses.retrieve(id);
      assert.deepEqual([response.id, response.output_text, response.metadata], [id, TEXT, { topic: "x" }]);
    }
    const items = await Array.fromAsync(openai.responses.inputItems.list(id, { order: "asc" }));
    assert.equal(items.length, 1);
    assert.equal(items[0].role, "user");
    const named = await openai.responses.retrieve(id, {}, { headers: { "x-gateway-model": model } });
    assert.equal(named.id, id);
  });

  test("are deleted, and gone", async () => {
    const { id } = await made();
    await openai.responses.delete(id);
    await assert.rejects(openai.responses.retrieve(id, {}, { headers: { "x-gateway-model": model } }), missing);
  });

  test("are cancelled as far as the provider lets them be", async () => {
    const { id } = await made();
    const refused = await openai.responses.cancel(id).catch((error) => error);
    assert.ok(refused instanceof OpenAI.BadRequestError, `${refused}`);
    assert.match(refused.message, /Cannot cancel a synchronous response/);
  });

  for (const streamed of [false, true]) {
    test(`are gone on from${streamed ? ", streamed" : ""}`, async () => {
      const tag = freshId();
      const first = streamed
        ? await openai.responses.stream({ model, input: input({ text: TEXT }) }).finalResponse()
        : await made();
      const body = { model, previous_response_id: first.id, input: input({ tag, text: "and so on", usage_in: 9, usage_out: 3 }) };
      const options = { headers: { "x-request-id": tag } };
      const second = streamed
        ? await openai.responses.stream(body, options).finalResponse()
        : await openai.responses.create(body, options);
      assert.equal(second.output_text, "and so on");
      assert.equal(second.previous_response_id, first.id);
      const line = await logOf(gateway, tag);
      assert.deepEqual([line.lane, line.usage.input, line.usage.output], ["native", 9, 3]);
      const counted = await openai.responses.inputTokens.count({ model, previous_response_id: first.id, input: "x" });
      assert.ok(counted.input_tokens > 0);
    });
  }

  test("of another account are not there", async () => {
    const { id } = await made();
    // Whether this isolate has just seen whose it is makes no difference.
    for (const seen of [false, true]) {
      if (seen) await openai.responses.retrieve(id);
      await assert.rejects(stranger.responses.retrieve(id), missing);
      await assert.rejects(stranger.responses.delete(id), missing);
      await assert.rejects(stranger.responses.cancel(id), missing);
      await assert.rejects(stranger.responses.inputItems.list(id), missing);
      const tag = freshId();
      const body = { model, previous_response_id: id, input: input({ tag }) };
      for (const ask of [
        () => stranger.responses.create(body),
        () => stranger.responses.create({ ...body, stream: true }),
        () => stranger.responses.inputTokens.count(body),
      ]) {
        const refused = await ask().catch((error) => error);
        assert.ok(refused instanceof OpenAI.BadRequestError, `${refused}`);
        assert.deepEqual([refused.param, refused.code], ["previous_response_id", "previous_response_not_found"]);
      }
      assert.deepEqual(await journalOf(mock, tag), []);
    }
    assert.equal((await openai.responses.retrieve(id)).id, id);
    await assert.rejects(openai.responses.retrieve("resp_nothing"), missing);
  });

  test("that somebody else has marked with a made-up account are not theirs", async () => {
    const tag = freshId();
    await made({ input: input({ tag }) });
    const { gateway_account } = JSON.parse((await received(mock, tag)).body).metadata;
    const { id } = await stranger.responses.create({ model, input: input(), metadata: { gateway_account } });
    await assert.rejects(openai.responses.retrieve(id, {}, { headers: { "x-gateway-model": model } }), missing);
    assert.equal((await stranger.responses.retrieve(id)).id, id);
  });

  test("are found where they are when a route has several providers", async () => {
    const { id } = await made();
    const second = await openai.responses.create({ model: "any", previous_response_id: id, input: input({ text: TEXT }) });
    assert.equal(second.output_text, TEXT);
  });

  test("are refused where nobody could tell whose they are, or what they cost", async () => {
    const refused = async (body) => (await openai.responses.create({ model, input: input(), ...body }).catch((error) => error));
    for (const [body, param] of [
      [{ model: "gpt-forgets", previous_response_id: "resp_1" }, "previous_response_id"],
      [{ model: "claude-test", previous_response_id: "resp_1" }, "previous_response_id"],
      [{ conversation: "conv_1" }, "conversation"],
      [{ background: true }, "background"],
      [{ input: [{ type: "item_reference", id: "msg_1" }] }, "input[0]"],
      [{ previous_response_id: "../models" }, "previous_response_id"],
    ]) {
      const error = await refused(body);
      assert.ok(error instanceof OpenAI.BadRequestError, `${param}: ${error}`);
      assert.equal(error.param, param);
    }
    const forgotten = await openai.responses.create({ model: "gpt-forgets", input: input() });
    await assert.rejects(openai.responses.retrieve(forgotten.id, {}, { headers: { "x-gateway-model": "gpt-forgets" } }), missing);
    const streamed = await openai.responses.retrieve("resp_1", { stream: true }).catch((error) => error);
    assert.deepEqual([streamed.status, streamed.param], [400, "stream"]);
  });

  test("have ids that lead nowhere else", async () => {
    for (const id of ["..%2Fmodels", "a%3Fb", "%2e%2e%2fmodels"]) {
      const reply = await send({ url: `${at.url}/v1/responses/${id}`, headers: { authorization: `Bearer ${at.key}` } });
      assert.equal(reply.status, 404);
    }
    assert.equal((await send({ url: `${at.url}/v1/responses/resp_1` })).status, 401);
  });
});

test("a response is told of as unknown only by those who could know", async () => {
  const down = { ...providers, elsewhere: keeper({ base_url: `${MOCK}/mock;status=500/v1` }) };
  const all = { ...models, "gpt-elsewhere": { provider: "elsewhere", upstream_model: "gpt-5.5" } };
  const at = await start({ config: config({ providers: down, models: all }) });
  try {
    const openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
    await assert.rejects(openai.responses.retrieve("resp_nothing"), OpenAI.InternalServerError);
    const { id } = await openai.responses.create({ model: "gpt-keeps", input: input() });
    assert.equal((await openai.responses.retrieve(id)).id, id);
  } finally {
    await at.stop();
  }
});

test("responses that Azure keeps are found at its older addresses", async () => {
  const wires = ["chat", "responses"];
  const address = { preset: "azure", base_url: `${MOCK}/p/azure`, api_version: "2025-04-01-preview", wires };
  const { dialect, ...azure } = keeper(address);
  const models = { "gpt-azure": { provider: "azure", upstream_model: "gpt-5.5" } };
  const at = await start({ config: config({ providers: { azure }, models }) });
  try {
    const defaultQuery = { api_key: at.key };
    const openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0, defaultQuery });
    const { id } = await openai.responses.create({ model: "gpt-azure", input: input({ text: TEXT }) });
    assert.equal((await openai.responses.retrieve(id)).output_text, TEXT);
    const items = await Array.fromAsync(openai.responses.inputItems.list(id, { order: "asc", limit: 5 }));
    assert.equal(items.length, 1);
    await openai.responses.delete(id);
    await assert.rejects(openai.responses.retrieve(id), OpenAI.NotFoundError);
  } finally {
    await at.stop();
  }
});

test("no line of the log has a secret in it", assertNothingLeaked);
