// Embeddings by the official `openai` package, from models of every dialect that has some: by default the package asks for
// base64 and decodes it, whatever the provider sends.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import OpenAI from "openai";

import {
  HEALTH,
  MOCK,
  assertNothingLeaked,
  config,
  directive,
  freshId,
  journalOf,
  logOf,
  received,
  send,
  start,
} from "./support.mjs";

const provider = (dialect, base_url) => ({ dialect, base_url, credential: "OPENAI_KEY", health: HEALTH });

const PROVIDERS = {
  gemini: provider("gemini", `${MOCK}/v1beta`),
  bedrock: provider("bedrock", MOCK),
  cohere: provider("cohere", MOCK),
  broken: provider("openai", `${MOCK}/v1`),
};

/** `told` is whether the provider tells how many tokens there were; `many` whether it takes several texts. */
const MODELS = {
  embed: { provider: "openai", upstream_model: "text-embedding-3-small", path: "/v1/embeddings", lane: "native", told: true, many: true },
  "embed-gemini": {
    provider: "gemini",
    upstream_model: "gemini-embedding-2",
    path: "/v1beta/models/gemini-embedding-2:batchEmbedContents",
    lane: "translated",
    many: true,
  },
  "embed-titan": {
    provider: "bedrock",
    upstream_model: "amazon.titan-embed-text-v2:0",
    path: "/model/amazon.titan-embed-text-v2%3A0/invoke",
    lane: "translated",
    told: true,
    dimensions: 256,
  },
  "embed-bedrock-cohere": {
    provider: "bedrock",
    upstream_model: "cohere.embed-v4:0",
    path: "/model/cohere.embed-v4%3A0/invoke",
    lane: "translated",
    many: true,
    dimensions: 256,
  },
  "embed-cohere": {
    provider: "cohere",
    upstream_model: "embed-v4.0",
    path: "/v2/embed",
    lane: "translated",
    told: true,
    many: true,
    dimensions: 256,
  },
  "embed-nova": {
    provider: "bedrock",
    upstream_model: "amazon.nova-2-multimodal-embeddings-v1:0",
    path: "/model/amazon.nova-2-multimodal-embeddings-v1%3A0/invoke",
    lane: "translated",
    dimensions: 256,
  },
};

describe("embeddings", () => {
  let at, mock, gateway, openai;

  before(async () => {
    const models = Object.fromEntries(
      Object.entries(MODELS).map(([name, { provider, upstream_model }]) => [name, { provider, upstream_model }]),
    );
    models["embed-broken"] = { provider: "broken", upstream_model: "text-embedding-3-small" };
    const prices = Object.fromEntries(["embed", "embed-titan", "embed-cohere"].map((name) => [name, { input: "2" }]));
    const routes = { either: { targets: [{ model: "embed-broken" }, { model: "embed", priority: 1 }] } };
    const routing = { max_attempts: 3 };
    at = await start({
      config: config({ providers: PROVIDERS, models, prices, routes, routing }),
      
    });
    ({ mock, gateway } = at);
    openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
  });

  after(() => at?.stop());

  for (const [model, { path, upstream_model, lane, told, many, dimensions = 512 }] of Object.entries(MODELS)) {
    test(`of ${model}`, async () => {
      const tag = freshId();
      const text = `Where is the sea? ${directive({ tag, usage_in: 41 })}`;
      const create = (body, options) => openai.embeddings.create({ model, ...body }, options);
      const decoded = await create({ input: text, dimensions }, { headers: { "x-request-id": tag } });
      const [{ embedding, index, object }] = decoded.data;
      assert.deepEqual([decoded.model, index, object, decoded.data.length], [lane === "native" ? upstream_model : model, 0, "embedding", 1]);
      assert.equal(embedding.length, dimensions);
      assert.ok(embedding.every((number) => Number.isFinite(number) && Math.abs(number) <= 1));
      assert.equal((await received(mock, tag)).path, path);
      const floats = await create({ input: text, dimensions, encoding_format: "float" });
      const near = floats.data[0].embedding.every((number, nth) => Math.abs(number - embedding[nth]) < 1e-6);
      assert.ok(near, "what was packed is what was not");

      const line = await logOf(gateway, tag);
      assert.deepEqual([line.lane, line.outcome, line.attempts], [lane, "completed", 1]);
      assert.equal(line.usage.output, 0);
      if (told) {
        assert.ok(decoded.usage.prompt_tokens > 0);
        assert.deepEqual([line.usage.input, line.usage_estimated], [decoded.usage.prompt_tokens, undefined]);
      }
      if (model === "embed") assert.equal(line.usage.input, 41);
      if (told) assert.equal(line.cost_nanodollars, line.usage.input * 2_000);
      if (many) {
        const several = await create({ input: ["one", "two", "three"], dimensions });
        assert.deepEqual(several.data.map((one) => one.index), [0, 1, 2]);
      } else {
        const refused = await create({ input: ["one", "two"] }).catch((error) => error);
        assert.deepEqual([refused.status, refused.param], [400, "input"]);
      }
    });
  }

  test("of tokens, where the provider knows them", async () => {
    const tokens = await openai.embeddings.create({ model: "embed", input: [[1, 2, 3], [4, 5]] });
    assert.equal(tokens.data.length, 2);
    const refused = await openai.embeddings.create({ model: "embed-gemini", input: [[1, 2]] }).catch((error) => error);
    assert.deepEqual([refused.status, refused.param, refused.type], [400, "input[0]", "invalid_request_error"]);
  });

  test("pass on every byte that need not change", async () => {
    const tag = freshId();
    const body = `{ "model" : "embed", "input":["x ${directive({ tag })}"],"user":"é\\u00e9" }`;
    const reply = await send({
      url: `${at.url}/v1/embeddings`,
      method: "POST",
      headers: { authorization: `Bearer ${at.key}`, "content-type": "application/json" },
      body,
    });
    assert.equal(reply.status, 200, reply.text);
    const [entry] = await journalOf(mock, tag);
    const sent = typeof entry.body === "string" ? JSON.parse(entry.body) : entry.body;
    assert.deepEqual(sent, { ...JSON.parse(body), model: "text-embedding-3-small" });
  });

  test("come from somebody else where a provider fails", async () => {
    const tag = freshId();
    const input = `x ${directive({ tag, status: 503, fail_times: 1 })}`;
    const reply = await openai.embeddings.create({ model: "either", input }, { headers: { "x-request-id": tag } });
    assert.equal(reply.data.length, 1);
    const line = await logOf(gateway, tag);
    assert.deepEqual([line.attempts, line.deployment, line.outcome], [2, "embed", "completed"]);
  });

  test("errors are OpenAI's, whoever made them", async () => {
    const create = (body) => openai.embeddings.create(body).catch((error) => error);
    const limited = await create({ model: "embed-gemini", input: `x ${directive({ status: 429 })}` });
    assert.deepEqual([limited.status, limited.constructor.name], [429, "RateLimitError"]);
    const none = await create({ model: "nothing", input: "x" });
    assert.deepEqual([none.status, none.code], [404, "model_not_found"]);
    const chat = await create({ model: "claude-test", input: "x" });
    assert.deepEqual([chat.status, chat.code], [400, "unsupported_api_for_model"]);
    assert.match(chat.message, /POST .*\/v1\/messages/);
    assert.doesNotMatch(chat.message, /embeddings/);
  });

  test("are told of by the list of models", async () => {
    const models = Object.fromEntries((await openai.models.list()).data.map((model) => [model.id, model.supported_endpoints]));
    assert.ok(models.embed.includes("/v1/embeddings") && models["embed-titan"].includes("/v1/embeddings"));
    assert.ok(models.either.includes("/v1/embeddings"));
    assert.ok(!models["claude-test"].includes("/v1/embeddings") && models["claude-test"].includes("/v1/messages"));
  });
});

test("no secret is in what the gateway logged", assertNothingLeaked);
