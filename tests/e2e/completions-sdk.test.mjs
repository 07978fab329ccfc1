// OpenAI's older Completions by the official `openai` package: passed on where the provider has them, translated where
// a chat model answers.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import OpenAI from "openai";

import { HEALTH, MOCK, assertNothingLeaked, config, directive, freshId, journalOf, logOf, received, start, tokens } from "./support.mjs";
import { UPSTREAMS, modelsOf, providersOf } from "./upstreams.mjs";

const TEXT = "one two three four five six seven";

const providers = {
  ...providersOf(UPSTREAMS),
  completes: {
    dialect: "openai",
    base_url: `${MOCK}/v1`,
    credential: "OPENAI_KEY",
    wires: ["chat", "completions"],
    health: HEALTH,
  },
};
const NATIVE = "an instruct model";
const models = { ...modelsOf(UPSTREAMS), [NATIVE]: { provider: "completes", upstream_model: "mock-instruct" } };

const prompt = (options) => `Once upon a time ${directive(options)}`;

describe("completions by the openai package", () => {
  let at, mock, gateway, openai;

  before(async () => {
    at = await start({ config: config({ providers, models }) });
    ({ mock, gateway } = at);
    openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
  });

  after(() => at?.stop());

  for (const model of Object.keys(models)) {
    const create = (body, options) => openai.completions.create({ model, ...body }, options);
    const lane = model === NATIVE ? "native" : "translated";

    describe(model, { concurrency: 4 }, () => {
      test("continues a text", async () => {
        const tag = freshId();
        const completion = await create(
          { prompt: prompt({ tag, text: TEXT, usage_in: 12, usage_out: 7 }), max_tokens: 400 },
          { headers: { "x-request-id": tag } },
        );
        assert.match(completion.id, /^cmpl-/);
        assert.equal(completion.object, "text_completion");
        assert.deepEqual(completion.choices, [{ text: TEXT, index: 0, logprobs: null, finish_reason: "stop" }]);
        assert.deepEqual([completion.usage.prompt_tokens, completion.usage.completion_tokens], [12, 7]);
        assert.equal((await received(mock, tag)).path, models[model].path ?? (await received(mock, tag)).path);
        const line = await logOf(gateway, tag);
        assert.deepEqual([line.lane, line.outcome], [lane, "completed"]);
        assert.deepEqual(tokens(line.usage), { input: 12, output: 7 });
      });

      for (const include_usage of [false, true]) {
        test(`streams it${include_usage ? ", with the usage at the end" : ""}`, async () => {
          const tag = freshId();
          const stream = await create(
            {
              prompt: prompt({ unicode: 1, split: 3, usage_in: 12, usage_out: 7 }),
              max_tokens: 400,
              stream: true,
              ...(include_usage && { stream_options: { include_usage } }),
            },
            { headers: { "x-request-id": tag } },
          );
          const chunks = await Array.fromAsync(stream);
          const choices = chunks.flatMap(({ choices }) => choices);
          assert.match(choices.map(({ text }) => text).join(""), /你好.*👩‍🚀/su);
          assert.deepEqual(choices.flatMap(({ finish_reason }) => finish_reason ?? []), ["stop"]);
          assert.equal(new Set(chunks.map(({ id }) => id)).size, 1);
          assert.equal(chunks.at(-1).usage?.completion_tokens, include_usage ? 7 : undefined);
          const line = await logOf(gateway, tag);
          assert.deepEqual(tokens(line.usage), { input: 12, output: 7 });
          assert.equal(line.lane, model === NATIVE && !include_usage ? "relayed" : lane);
        });
      }

      test("is cut where the caller says", async () => {
        const { choices } = await create({ prompt: prompt({ text: `${TEXT} ${TEXT} ${TEXT}` }), max_tokens: 16 });
        assert.equal(choices[0].finish_reason, "length");
      });

      for (const fault of [{ truncate_at: 3 }, { reset_at: 3 }, { error_at: 3 }]) {
        test(`never takes a stream for complete that ends by ${Object.keys(fault)}`, async () => {
          const stream = await create({ prompt: prompt({ chunks: 8, gap_ms: 5, ...fault }), max_tokens: 400, stream: true });
          await assert.rejects(async () => {
            for await (const _ of stream);
          });
        });
      }

      test("raises errors of their classes", async () => {
        for (const [status, Class] of [
          [400, OpenAI.BadRequestError],
          [429, OpenAI.RateLimitError],
          [500, OpenAI.InternalServerError],
        ]) {
          await assert.rejects(create({ prompt: prompt({ status }) }), Class);
        }
      });
    });
  }

  test("what a chat model cannot do is refused by name, before anybody is asked", async () => {
    for (const [body, param] of [
      [{ prompt: ["a", "b"] }, "prompt"],
      [{ prompt: [1, 2] }, "prompt"],
      [{ suffix: "the end" }, "suffix"],
      [{ best_of: 3 }, "best_of"],
      [{ logprobs: 2 }, "logprobs"],
    ]) {
      const tag = freshId();
      const asked = openai.completions.create({ model: "gpt-test", prompt: prompt({ tag }), ...body });
      await assert.rejects(asked, (error) => error instanceof OpenAI.BadRequestError && error.param === param);
      assert.deepEqual(await journalOf(mock, tag), []);
    }
  });

  test("a chat model repeats the prompt where that is asked, and tells what it does not have", async () => {
    for (const stream of [false, true]) {
      const asked = openai.completions.create({
        model: "Claude on Bedrock",
        prompt: ["Once upon a time [[mock text=.]]"],
        echo: true,
        stream,
        seed: 7,
        guided_regex: "b*",
      });
      const { data, response } = await asked.withResponse();
      const pieces = stream ? (await Array.fromAsync(data)).flatMap(({ choices }) => choices) : data.choices;
      assert.match(pieces.map(({ text }) => text).join(""), /^Once upon a time .*\.$/);
      const dropped = response.headers.get("x-gateway-dropped-params").split(", ");
      assert.deepEqual(dropped.sort(), ["guided_regex", "seed"]);
    }
  });

  test("several prompts go to a provider that has the API, byte for byte", async () => {
    const tag = freshId();
    const text = prompt({ tag, text: "a" });
    const { choices } = await openai.completions.create({ model: NATIVE, prompt: [text, text], n: 2, best_of: 2 });
    assert.equal(choices.length, 4);
    const { path, body } = await received(mock, tag);
    assert.equal(path, "/v1/completions");
    assert.deepEqual(JSON.parse(body).model, "mock-instruct");
  });
});

test("no line of the log has a secret in it", assertNothingLeaked);
