// What is no chat, by the official `openai` package or as its users would send it: moderations, rankings, images and speech.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import OpenAI from "openai";

import { limit, makeKeys } from "./limits.mjs";
import {
  HEALTH,
  MOCK,
  assertNothingLeaked,
  config,
  directive,
  freshId,
  logOf,
  open,
  received,
  send,
  sendAndVanish,
  sleep,
  start,
  upstreamEnded,
} from "./support.mjs";

const PATHS = {
  "/v1/moderations": { input: "well" },
  "/v1/rerank": { query: "sea", documents: ["the sea", "a hill"] },
  "/v1/images/generations": { prompt: "the sea" },
  "/v1/audio/speech": { input: "the sea", voice: "alloy" },
};

describe("what is no chat", () => {
  let at, mock, gateway, openai;

  before(async () => {
    const provider = { dialect: "openai", base_url: `${MOCK}/v1`, credential: "OPENAI_KEY", health: HEALTH };
    const of = (upstream_model, provider = "openai") => ({ provider, upstream_model });
    const models = {
      "omni-moderation-latest": of("omni-moderation-latest"),
      ranker: of("rerank-v3.5"),
      "cohere-ranker": of("rerank-v3.5", "cohere"),
      painter: of("gpt-image-1"),
      "old-painter": of("dall-e-3"),
      voice: of("gpt-4o-mini-tts"),
      "old-voice": of("tts-1"),
      failing: of("mock-large", "failing"),
    };
    const prices = {
      ranker: { per_search: "0.002", input: "1" },
      "cohere-ranker": { per_search: "0.002" },
      painter: { input: "5", output_image: "40" },
      "old-painter": { per_image: "0.04" },
      voice: { input: "1", output_audio: "10" },
      "old-voice": { per_million_characters: "15" },
    };
    const spare = (model) => ({ targets: [{ model: "failing" }, { model, priority: 1 }] });
    const routes = {
      "/v1/moderations": spare("omni-moderation-latest"),
      "/v1/rerank": spare("ranker"),
      "/v1/images/generations": spare("painter"),
      "/v1/audio/speech": spare("voice"),
    };
    const named = Object.fromEntries(Object.entries(routes).map(([path, route]) => [path.replaceAll("/", "-").slice(1), route]));
    at = await start({
      config: config({
        providers: {
          failing: provider,
          cohere: { ...provider, dialect: "cohere", base_url: MOCK },
          hasty: { ...provider, timeouts: { idle_ms: 300 } },
        },
        models: { ...models, "hasty-voice": of("tts-1", "hasty") },
        prices,
        routes: named,
        routing: { max_attempts: 2 },
        limits: { lease_ms: 0 },
      }),
    });
    ({ mock, gateway } = at);
    openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
  });

  after(async () => {
    await at?.stop();
  });

  const post = (path, body, headers = {}, key = at.key) => ({
    url: `${at.url}${path}`,
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });

  test("moderations come from the model that is named, or from OpenAI's own", async () => {
    const tag = freshId();
    const input = `I am well. ${directive({ tag, block: 1 })}`;
    const verdict = await openai.moderations.create({ input }, { headers: { "x-request-id": tag } });
    assert.equal(verdict.results[0].flagged, true);
    const sent = await received(mock, tag);
    const body = typeof sent.body === "string" ? JSON.parse(sent.body) : sent.body;
    assert.deepEqual([sent.path, body.model], ["/v1/moderations", "omni-moderation-latest"], JSON.stringify(sent));
    const line = await logOf(gateway, tag);
    assert.deepEqual([line.model, line.lane, line.outcome, line.usage_estimated], ["omni-moderation-latest", "native", "completed", true]);
    const several = await openai.moderations.create({ model: "omni-moderation-latest", input: ["a", "b"] });
    assert.equal(several.results.length, 2);
  });

  test("documents are ranked, for as much as the provider says", async () => {
    const tag = freshId();
    const query = `Where is the sea? ${directive({ tag, usage_in: 30 })}`;
    const documents = ["a hill", "Where is the sea?"];
    const reply = await send(post("/v1/rerank", { model: "ranker", query, documents, top_n: 1 }, { "x-request-id": tag }));
    assert.deepEqual([reply.status, reply.json.results.map(({ index }) => index)], [200, [1]], reply.text);
    const line = await logOf(gateway, tag);
    assert.deepEqual([line.lane, line.usage_estimated], ["native", undefined]);
    assert.ok(line.usage.input > 0 || line.usage.web_searches > 0);
    assert.equal(line.cost_nanodollars, line.usage.input * 1_000 + line.usage.web_searches * 2_000_000);
  });

  test("documents are ranked by Cohere, in the same form", async () => {
    const tag = freshId();
    const query = `Where is the sea? ${directive({ tag })}`;
    const documents = ["a hill", { text: "Where is the sea?" }];
    const body = { model: "cohere-ranker", query, documents, top_n: 1, return_documents: true };
    const reply = await send(post("/v1/rerank", body, { "x-request-id": tag }));
    assert.equal(reply.status, 200, reply.text);
    const [{ index, relevance_score, document }] = reply.json.results;
    assert.deepEqual([index, document, relevance_score > 0], [1, { text: "Where is the sea?" }, true]);
    assert.equal((await received(mock, tag)).path, "/v2/rerank");
    const line = await logOf(gateway, tag);
    assert.deepEqual([line.lane, line.usage.web_searches, line.cost_nanodollars], ["translated", 1, 2_000_000]);
    const wrong = await send(post("/v1/rerank", { ...body, documents: ["a", 5] }));
    assert.deepEqual([wrong.status, wrong.json.error.param], [400, "documents[1]"], wrong.text);
  });

  test("images are made, and charged by the token or by the piece", async () => {
    const tag = freshId();
    const prompt = `The sea. ${directive({ tag })}`;
    const made = await openai.images.generate({ model: "painter", prompt, n: 2 }, { headers: { "x-request-id": tag } });
    assert.equal(made.data.length, 2);
    assert.ok(Buffer.from(made.data[0].b64_json, "base64").length > 0);
    const line = await logOf(gateway, tag);
    const { input, output_image, images } = line.usage;
    assert.deepEqual([images, input, output_image], [2, made.usage.input_tokens, made.usage.output_tokens]);
    assert.equal(line.cost_nanodollars, input * 5_000 + output_image * 40_000);
    const old = freshId();
    await openai.images.generate({ model: "old-painter", prompt: "The sea." }, { headers: { "x-request-id": old } });
    const piece = await logOf(gateway, old);
    assert.deepEqual([piece.usage.images, piece.cost_nanodollars, piece.usage_estimated], [1, 40_000_000, undefined]);
  });

  test("images come as events", async () => {
    const tag = freshId();
    const prompt = `The sea. ${directive({ tag })}`;
    const body = { model: "painter", prompt, stream: true, partial_images: 2 };
    const stream = await openai.images.generate(body, { headers: { "x-request-id": tag } });
    const events = await Array.fromAsync(stream);
    const types = events.map(({ type }) => type);
    assert.deepEqual(types, ["image_generation.partial_image", "image_generation.partial_image", "image_generation.completed"]);
    const line = await logOf(gateway, tag);
    const { usage } = events.at(-1);
    assert.deepEqual([line.usage.images, line.usage.output_image, line.outcome], [1, usage.output_tokens, "completed"]);
    for (const cut of [{ truncate_at: 1 }, { reset_at: 1 }, { error_at: 1 }]) {
      const broken = await openai.images.generate({ ...body, prompt: `The sea. ${directive(cut)}` });
      await assert.rejects(Array.fromAsync(broken), `${JSON.stringify(cut)} is no success`);
    }
  });

  test("speech comes as the sound that it is", async () => {
    const tag = freshId();
    const input = `The sea is wide. ${directive({ tag })}`;
    const body = { model: "old-voice", voice: "alloy", input, response_format: "wav" };
    const reply = await openai.audio.speech.create(body, { headers: { "x-request-id": tag } });
    assert.equal(reply.headers.get("content-type"), "audio/wav");
    const sound = Buffer.from(await reply.arrayBuffer());
    assert.ok(sound.length > 0 && (await received(mock, tag)).path === "/v1/audio/speech");
    const line = await logOf(gateway, tag);
    assert.deepEqual([line.usage.characters, line.bytes_out, line.lane], [input.length, sound.length, "native"]);
    assert.deepEqual([line.cost_nanodollars, line.usage_estimated], [input.length * 15_000, true]);
  });

  test("speech whose length is announced has that length", async () => {
    for (const directives of [{ whole: 1 }, {}]) {
      const input = `The sea is wide. ${directive(directives)}`;
      const reply = await openai.audio.speech.create({ model: "old-voice", voice: "alloy", input });
      const { byteLength } = await reply.arrayBuffer();
      assert.equal(reply.headers.get("content-length"), directives.whole ? `${byteLength}` : null);
    }
  });

  test("speech comes as events, with what it used", async () => {
    const tag = freshId();
    const input = `The sea is wide. ${directive({ tag, usage_in: 14, usage_out: 101 })}`;
    const body = { model: "voice", voice: "alloy", input, stream_format: "sse" };
    const reply = await openai.audio.speech.create(body, { headers: { "x-request-id": tag } });
    const text = await reply.text();
    assert.match(text, /speech\.audio\.delta/);
    assert.match(text, /speech\.audio\.done/);
    const line = await logOf(gateway, tag);
    assert.deepEqual([line.usage.input, line.usage.output_audio, line.usage_estimated], [14, 101, undefined]);
    assert.equal(line.cost_nanodollars, 14_000 + 1_010_000);
    for (const cut of [{ truncate_at: 1 }, { reset_at: 1 }]) {
      const broken = await openai.audio.speech.create({ ...body, input: `The sea is wide. ${directive(cut)}` });
      assert.match(await broken.text(), /data: {"error"/, JSON.stringify(cut));
    }
  });

  test("long speech is passed on while it comes", { timeout: 60_000 }, async () => {
    const size = 12 * 1024 * 1024;
    const whole = await open(post("/v1/audio/speech", { model: "old-voice", voice: "alloy", input: `x ${directive({ big_reply: size, split: 65_536 })}` }));
    let bytes = 0;
    for await (const piece of whole.body) bytes += piece.length;
    assert.ok(bytes >= size, `${bytes} bytes`);
    const tag = freshId();
    const slow = { tag, text: "one two three four", gap_ms: 400 };
    const began = Date.now();
    const reply = await open(post("/v1/audio/speech", { model: "old-voice", voice: "alloy", input: `x ${directive(slow)}` }));
    await new Promise((resolve) => reply.body.once("data", resolve));
    const first = Date.now() - began;
    for await (const _ of reply.body);
    assert.ok(Date.now() - began > first + 600, "the beginning is there long before the end");
  });

  for (const [how, fault] of Object.entries({ reset: { reset_at: 2 }, close: { close_at: 2 }, stall: { stall_at: 2 } })) {
    test(`speech that breaks off is seen to (${how})`, async () => {
      const tag = freshId();
      const input = `x ${directive({ text: "one two three four five six seven", ...fault })}`;
      const request = post("/v1/audio/speech", { model: "hasty-voice", voice: "alloy", input }, { "x-request-id": tag });
      const reply = await open({ ...request, fresh: true });
      assert.equal(reply.status, 200);
      let bytes = 0;
      // The local runtime ends the transfer of a body that fails as it ends a whole one's, so that callers see here only
      // that it ends; the edge resets it.
      for await (const piece of reply.body) bytes += piece.length;
      const line = await logOf(gateway, tag);
      assert.deepEqual([line.outcome, line.bytes_out], ["failed", bytes]);
      assert.ok(bytes > 0 && bytes < 12, `${bytes} bytes`);
      assert.equal(line.error_code, how === "stall" ? "upstream_stalled" : "upstream_connection_broken");
      assert.deepEqual([line.usage.characters > 0, line.usage_estimated], [true, true]);
    });
  }

  test("a caller who leaves ends the speech", async () => {
    const tag = freshId();
    const input = `x ${directive({ tag, text: "one two three four five six seven", gap_ms: 300 })}`;
    const request = post("/v1/audio/speech", { model: "old-voice", voice: "alloy", input }, { "x-request-id": tag });
    await sendAndVanish(request, () => sleep(900));
    const line = await logOf(gateway, tag);
    assert.equal(line.outcome, "client_closed");
    assert.notEqual((await upstreamEnded(mock, tag, "aborted").catch(() => null)) ?? (await received(mock, tag)).outcome, "completed");
  });

  test("what is no sound is none of a voice's", async () => {
    for (const [path, body] of Object.entries(PATHS)) {
      const field = Object.keys(body)[0];
      for (const page of [{ contenttype: "text/html" }, { html: 200 }]) {
        const reply = await send(post(path, { ...body, model: "voice", [field]: `x ${directive(page)}` }));
        assert.deepEqual([reply.status, reply.json.error.type], [502, "server_error"], `${path}: ${reply.text}`);
      }
    }
  });

  for (const [path, body] of Object.entries(PATHS)) {
    const field = Object.keys(body)[0];
    const model = path.replaceAll("/", "-").slice(1);

    test(`${path} is answered by somebody else where a provider fails`, async () => {
      const tag = freshId();
      const asked = { ...body, model, [field]: `${body[field]} ${directive({ tag, status: 503, fail_times: 1 })}` };
      const reply = await send(post(path, asked, { "x-request-id": tag }));
      assert.equal(reply.status, 200, reply.text);
      const line = await logOf(gateway, tag);
      assert.deepEqual([line.attempts, line.tried?.[0]?.outcome], [2, "overloaded"]);
    });

    test(`${path} has OpenAI's errors`, async () => {
      const missing = await send(post(path, { model: "voice" }));
      assert.deepEqual([missing.status, missing.json.error.param], [400, field], missing.text);
      const wrong = await send(post(path, { ...body, model: "claude-test" }));
      assert.deepEqual([wrong.status, wrong.json.error.code], [400, "unsupported_api_for_model"], wrong.text);
      assert.match(wrong.json.error.message, /\/v1\/messages/);
      const none = await send(post(path, { ...body, model: "nobody" }));
      assert.deepEqual([none.status, none.json.error.code], [404, "model_not_found"]);
      const limited = { ...body, model: "voice", [field]: `x ${directive({ status: 429 })}` };
      const reply = await send(post(path, limited));
      assert.deepEqual([reply.status, typeof reply.json.error.message], [429, "string"]);
    });
  }

  test("a budget refuses what would cost more, before anybody is asked", async () => {
    const [{ key }] = await makeKeys(gateway, [{ account: "poor" }]);
    await limit(gateway, "poor", { dimension: "cost", period: "month", amount: 100_000_000 });
    const paint = (n) => send(post("/v1/images/generations", { model: "old-painter", prompt: "x", n }, {}, key));
    assert.equal((await paint(1)).status, 200);
    const refused = await paint(3);
    assert.ok([402, 429].includes(refused.status), refused.text);
    const speak = (input) => send(post("/v1/audio/speech", { model: "old-voice", voice: "alloy", input }, {}, key));
    const long = await speak("x".repeat(4_096));
    assert.ok([402, 429].includes(long.status), long.text);
    assert.equal((await speak("short")).status, 200);
  });

  test("a key may be for some endpoints alone", async () => {
    const [{ key }] = await makeKeys(gateway, [{ account: "demo", endpoints: ["/v1/moderations"] }]);
    const statuses = [];
    for (const [path, body] of Object.entries(PATHS)) {
      const model = path === "/v1/moderations" ? undefined : "voice";
      statuses.push((await send(post(path, { ...body, model }, {}, key))).status);
    }
    assert.deepEqual(statuses, [200, 403, 403, 403]);
  });
});

test("no secret is in what the gateway logged", assertNothingLeaked);
