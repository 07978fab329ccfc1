// The Vercel AI SDK (`ai`, with `@ai-sdk/openai-compatible` and `@ai-sdk/anthropic`) against models of several upstream
// dialects, by both APIs that it knows of the gateway's.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, isStepCount, jsonSchema, streamObject, streamText, tool } from "ai";

import { PIXEL, TEXT, clock, schema, weather } from "./anthropic.mjs";
import { ask, assertNothingLeaked, config, directive, freshId, journalOf, start, upstreamEnded } from "./support.mjs";
import { UPSTREAMS, modelsOf, providersOf } from "./upstreams.mjs";

const MODELS = Object.fromEntries(
  ["an OpenAI-like model", "OpenAI's Responses", "Claude itself", "Gemini 3", "Claude on Bedrock"].map((name) => [
    name,
    UPSTREAMS[name],
  ]),
);

/** The two ways in. */
const CLIENTS = {
  "@ai-sdk/openai-compatible": ({ url, key }) =>
    createOpenAICompatible({
      name: "gateway",
      baseURL: `${url}/v1`,
      apiKey: key,
      includeUsage: true,
      supportsStructuredOutputs: true,
    }),
  "@ai-sdk/anthropic": ({ url, key }) => createAnthropic({ baseURL: `${url}/v1`, apiKey: key }),
};

globalThis.AI_SDK_LOG_WARNINGS = false;

describe("the Vercel AI SDK, whatever the provider speaks", () => {
  let at, mock;

  before(async () => {
    at = await start({ config: config({ providers: providersOf(MODELS), models: modelsOf(MODELS) }) });
    ({ mock } = at);
  });

  after(() => at?.stop());

  for (const [client, connect] of Object.entries(CLIENTS)) {
    for (const name of Object.keys(MODELS)) {
      const common = (more) => ({ model: connect(at)(name), maxRetries: 0, maxOutputTokens: 4096, ...more });

      describe(`${name}, by ${client}`, { concurrency: 4 }, () => {
        test("writes a text", async () => {
          const messages = ask({ text: TEXT, usage_in: 12, usage_out: 7 });
          const { text, finishReason, usage } = await generateText(common({ instructions: "Be brief.", messages }));
          assert.deepEqual([text, finishReason], [TEXT, "stop"]);
          assert.deepEqual([usage.inputTokens, usage.outputTokens], [12, 7]);
        });

        test("streams a text", async () => {
          const result = streamText(common({ messages: ask({ unicode: 1, split: 3, usage_in: 12, usage_out: 7 }) }));
          const pieces = await Array.fromAsync(result.textStream);
          assert.match(pieces.join(""), /你好.*👩‍🚀/su);
          assert.ok(pieces.length > 1);
          assert.equal(await result.finishReason, "stop");
          const usage = await result.usage;
          assert.deepEqual([usage.inputTokens, usage.outputTokens], [12, 7]);
        });

        for (const streamed of [false, true]) {
          test(`uses tools in several steps${streamed ? ", streamed" : ""}`, async () => {
            const asked = [];
            const offered = ({ name, description, input_schema }, answer) =>
              tool({
                description,
                inputSchema: jsonSchema(input_schema),
                execute: (input) => {
                  asked.push([name, ...Object.keys(input)]);
                  return answer;
                },
              });
            const request = common({
              messages: ask({ tools: 2 }, "What is the weather?"),
              tools: { get_weather: offered(weather, "it is sunny"), get_time: offered(clock, "five") },
              stopWhen: isStepCount(3),
            });
            const result = streamed ? streamText(request) : await generateText(request);
            if (streamed) await result.consumeStream();
            assert.deepEqual(asked.slice(0, 2), [["get_weather", "city"], ["get_time", "zone"]]);
            const steps = await result.steps;
            assert.equal(steps[0].finishReason, "tool-calls");
            assert.equal(steps[0].toolResults.length, 2);
            assert.equal(steps.at(-1).finishReason, "stop");
            assert.match(await result.text, /sunny|five/);
          });
        }

        test("must call the tool that is named", async () => {
          const tools = Object.fromEntries(
            [weather, clock].map((it) => [it.name, tool({ inputSchema: jsonSchema(it.input_schema) })]),
          );
          const toolChoice = { type: "tool", toolName: "get_time" };
          const { toolCalls, finishReason } = await generateText(common({ prompt: "Hello.", tools, toolChoice }));
          assert.deepEqual(toolCalls.map(({ toolName, input }) => [toolName, typeof input.zone]), [["get_time", "string"]]);
          assert.equal(finishReason, "tool-calls");
        });

        test("makes an object, whole and in pieces", async () => {
          const request = common({ prompt: "A recipe, please.", schema: jsonSchema(schema) });
          const { object } = await generateObject(request);
          assert.deepEqual(Object.keys(object).sort(), ["minutes", "title"]);
          const result = streamObject(request);
          for await (const _ of result.partialObjectStream);
          assert.deepEqual(Object.keys(await result.object).sort(), ["minutes", "title"]);
        });

        test("shows a picture", async () => {
          const content = [
            { type: "text", text: "What is this?" },
            { type: "file", data: PIXEL, mediaType: "image/png" },
          ];
          const { text } = await generateText(common({ messages: [{ role: "user", content }] }));
          assert.match(text, /image|picture/i);
        });

        test("raises errors that say whether to ask again", async () => {
          for (const [status, again] of [[400, false], [429, true], [500, true], [503, true]]) {
            const messages = ask({ status, error_message: "provider words" });
            const error = await generateText(common({ messages })).catch((error) => error);
            assert.ok(APICallError.isInstance(error), `${error}`);
            assert.deepEqual([error.statusCode, error.isRetryable], [status, again]);
            assert.match(error.message, /provider words/);
          }
          const error = await generateText(common({ prompt: "x", model: connect(at)("nothing") })).catch((error) => error);
          assert.equal(error.statusCode, 404);
        });

        test("asks again by itself", async () => {
          const tag = freshId();
          const messages = ask({ tag, status: 503, fail_times: 1, "header.retry-after-ms": 10, text: "at last" });
          assert.equal((await generateText(common({ messages, maxRetries: 2 }))).text, "at last");
          assert.equal((await journalOf(mock, tag)).length, 2);
        });

        for (const fault of [{ error_at: 3 }, { truncate_at: 3 }, { reset_at: 3 }]) {
          test(`hears that a stream broke off by ${Object.keys(fault)}`, async () => {
            const errors = [];
            const onError = ({ error }) => errors.push(error);
            const result = streamText(common({ messages: ask({ chunks: 8, gap_ms: 5, ...fault }), onError }));
            const parts = await Array.fromAsync(result.fullStream);
            assert.ok(errors.length > 0 && parts.some(({ type }) => type === "error"), JSON.stringify(parts.at(-1)));
            assert.notEqual(parts.findLast(({ type }) => type === "finish")?.finishReason, "stop");
          });
        }

        test("leaves a stream, and the provider stops", async () => {
          const tag = freshId();
          const leave = new AbortController();
          const content = `Say something. ${directive({ tag, chunks: 1000, gap_ms: 40 })}`;
          const messages = [{ role: "user", content }];
          const result = streamText(common({ messages, abortSignal: leave.signal }));
          for await (const _ of result.textStream) leave.abort();
          const entry = await upstreamEnded(mock, tag, "client_disconnected", { timeout: 5000 });
          assert.ok(entry.chunks_sent < 200);
        });
      });
    }
  }
});

test("no line of the log has a secret in it", assertNothingLeaked);
