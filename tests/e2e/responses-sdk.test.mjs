// The official `openai` package's Responses: against a provider that has the API, passed through as it is, and against
// models of providers that have other APIs only, translated.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import OpenAI from "openai";

import { HEALTH, MOCK, assertNothingLeaked, config, directive, freshId, logOf, received, start, tokens } from "./support.mjs";

const TEXT = "one two three four five six seven";

const provider = (dialect, base_url, more = {}) => ({ dialect, base_url, credential: "OPENAI_KEY", health: HEALTH, ...more });

const PROVIDERS = {
  native: provider("openai", `${MOCK}/v1`, { wires: ["chat", "responses"] }),
  gemini: provider("gemini", `${MOCK}/v1beta`),
  bedrock: provider("bedrock", MOCK),
};
const MODELS = {
  "gpt-native": { provider: "native", upstream_model: "gpt-5.5" },
  gemini: { provider: "gemini", upstream_model: "gemini-3-flash-preview" },
  bedrock: { provider: "bedrock", upstream_model: "us.anthropic.claude-sonnet-4-5-20250929-v1:0" },
};

const input = (options = {}, text = "Say something.") => `${text} ${directive(options)}`;

const weather = {
  type: "function",
  name: "get_weather",
  description: "The weather in a city",
  strict: false,
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const clock = { ...weather, name: "get_time", description: "The time" };

describe("Responses of the openai package", () => {
  let at, mock, gateway, openai;

  before(async () => {
    at = await start({ config: config({ providers: PROVIDERS, models: MODELS }) });
    ({ mock, gateway } = at);
    openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
  });

  after(() => at?.stop());

  for (const model of ["gpt-native", "gpt-test", "claude-test", "gemini", "bedrock"]) {
    const native = model === "gpt-native";
    // Nothing is kept where a model of another API answers.
    const create = (body) => openai.responses.create({ model, store: false, ...body });

    describe(`from ${model}`, { concurrency: 4 }, () => {
      test("answers", async () => {
        const tag = freshId();
        const response = await openai.responses.create(
          { model, store: false, instructions: "Be brief.", input: input({ tag, text: TEXT, usage_in: 12, usage_out: 7 }) },
          { headers: { "x-request-id": tag } },
        );
        assert.match(response.id, /^resp_/);
        assert.deepEqual([response.object, response.status, response.output_text], ["response", "completed", TEXT]);
        assert.equal(response.instructions, "Be brief.");
        assert.deepEqual([response.usage.input_tokens, response.usage.output_tokens], [12, 7]);
        await received(mock, tag);
        const line = await logOf(gateway, tag);
        assert.deepEqual([line.lane, line.outcome], [native ? "native" : "translated", "completed"]);
        assert.deepEqual(tokens(line.usage), { input: 12, output: 7 });
      });

      test("streams, each event numbered, and the helper's answer is the whole one", async () => {
        const stream = await create({ input: input({ text: TEXT }), stream: true });
        const events = await Array.fromAsync(stream);
        assert.deepEqual(events.map(({ sequence_number }) => sequence_number), events.map((_, nth) => nth));
        assert.deepEqual([events[0].type, events.at(-1).type], ["response.created", "response.completed"]);
        const text = events.filter(({ type }) => type === "response.output_text.delta").map(({ delta }) => delta);
        assert.equal(text.join(""), TEXT);
        const runner = openai.responses.stream({ model, store: false, input: input({ text: TEXT }) });
        assert.equal((await runner.finalResponse()).output_text, TEXT);
      });

      test("calls tools and takes their results, proofs included", async () => {
        const question = { role: "user", content: input({ tools: 2, reasoning: 4, signature: 1 }, "What is the weather?") };
        const common = {
          tools: [weather, clock],
          reasoning: { effort: "low" },
          include: ["reasoning.encrypted_content"],
          max_output_tokens: 9000,
        };
        const runner = openai.responses.stream({ model, store: false, input: [question], ...common });
        const first = await runner.finalResponse();
        const calls = first.output.filter(({ type }) => type === "function_call");
        assert.deepEqual(calls.map(({ name }) => name), ["get_weather", "get_time"]);
        assert.equal(typeof JSON.parse(calls[0].arguments).city, "string");
        const results = calls.map(({ call_id }) => ({ type: "function_call_output", call_id, output: "it is sunny" }));
        const said = first.output.map(({ parsed_arguments, ...item }) => item);
        const second = await create({ input: [question, ...said, ...results], ...common });
        assert.match(second.output_text, /sunny/);
      });

      test("answers in the form of a schema", async () => {
        const schema = {
          type: "object",
          properties: { title: { type: "string" }, minutes: { type: "integer" } },
          required: ["title", "minutes"],
          additionalProperties: false,
        };
        const format = { type: "json_schema", name: "recipe", strict: true, schema };
        const response = await openai.responses.parse({ model, store: false, input: input({}, "A recipe."), text: { format } });
        assert.deepEqual(Object.keys(response.output_parsed).sort(), ["minutes", "title"]);
      });

      test("says that the token limit ended the answer", async () => {
        const response = await create({ input: input({ text: `${TEXT} ${TEXT} ${TEXT}` }), max_output_tokens: 16 });
        assert.deepEqual([response.status, response.incomplete_details.reason], ["incomplete", "max_output_tokens"]);
      });

      test("refuses by name to build on what is kept elsewhere", async () => {
        await assert.rejects(create({ input: input(), previous_response_id: "resp_1" }), (error) => {
          assert.deepEqual([error.status, error.param], [400, "previous_response_id"]);
          return true;
        });
      });

      test("raises the error that stands for a status", async () => {
        await assert.rejects(create({ input: input({ status: 429, "header.retry-after": 7 }) }), (error) => {
          assert.ok(error instanceof OpenAI.RateLimitError, `${error}`);
          assert.equal(error.headers.get("retry-after"), "7");
          return true;
        });
      });

      for (const fault of [{ truncate_at: 3 }, { error_at: 3 }, { close_at: 3 }]) {
        const [[name]] = Object.entries(fault);
        test(`never takes a stream for complete that ends by ${name}`, async () => {
          const stream = await create({ input: input({ chunks: 8, ...fault }), stream: true });
          const types = [];
          try {
            for await (const event of stream) types.push(event.type);
          } catch {
            types.push("thrown");
          }
          assert.ok(["response.failed", "error", "thrown"].includes(types.at(-1)), types.join(" "));
          assert.equal(types.includes("response.completed"), false);
        });
      }
    });
  }
});

test("no line of the log has a secret in it", assertNothingLeaked);
