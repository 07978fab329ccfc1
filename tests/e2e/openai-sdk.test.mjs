// The official `openai` package against the gateway, used as its users use it: the same tests for a model of an
// OpenAI-like provider, for one whose replies are normalised, and for one of Anthropic's.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import OpenAI from "openai";

import {
  ask,
  assertNothingLeaked,
  config,
  directive,
  eventually,
  freshId,
  journalOf,
  logOf,
  received,
  start,
  tokens,
  upstreamEnded,
} from "./support.mjs";

const TEXT = "one two three four five six seven";

const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city",
    parameters: {
      type: "object",
      properties: { city: { type: "string" }, days: { type: "integer" } },
      required: ["city", "days"],
      additionalProperties: false,
    },
  },
};
const clock = {
  type: "function",
  function: {
    name: "get_time",
    parameters: { type: "object", properties: { zone: { type: "string" } }, required: ["zone"] },
  },
};

const recipe = {
  type: "json_schema",
  json_schema: {
    name: "recipe",
    strict: true,
    schema: {
      type: "object",
      properties: {
        title: { type: "string" },
        minutes: { type: "integer" },
        steps: { type: "array", items: { type: "string" } },
      },
      required: ["title", "minutes", "steps"],
      additionalProperties: false,
    },
  },
};

// A red pixel.
const PIXEL =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";

const MODELS = {
  "an OpenAI-like provider": "gpt-test",
  "a normalised provider": "gpt-loose",
  Anthropic: "claude-test",
};

describe("the openai package", () => {
  let at, mock, gateway, openai;

  before(async () => {
    const byTool = { provider: "anthropic", upstream_model: "mock-claude", structured_output: "tool" };
    at = await start({
      config: config({ models: { "claude-by-tool": byTool } }),
      keys: [{ name: "app" }, { name: "narrow", models: ["claude-*"] }],
    });
    ({ mock, gateway } = at);
    openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
  });

  after(() => at?.stop());

  for (const [provider, model] of Object.entries(MODELS)) {
    const anthropic = model === "claude-test";

    describe(`with a model of ${provider}`, { concurrency: 4 }, () => {
      // === Chat ===

      test("chats", async () => {
        const tag = freshId();
        const completion = await openai.chat.completions.create({
          model,
          messages: ask({ tag, text: TEXT, usage_in: 12, usage_out: 7 }),
          temperature: 0.5,
          max_completion_tokens: 100,
        });
        assert.equal(completion.object, "chat.completion");
        assert.match(completion.id, /^chatcmpl-/);
        assert.ok(Math.abs(completion.created - Date.now() / 1000) < 86_400 * 365 * 20, "created is in seconds");
        assert.equal(completion.choices.length, 1);
        const [{ message, finish_reason }] = completion.choices;
        assert.deepEqual([message.role, message.content, finish_reason], ["assistant", TEXT, "stop"]);
        assert.deepEqual(
          [completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.total_tokens],
          [12, 7, 19],
        );
        const sent = JSON.parse((await received(mock, tag)).body);
        assert.equal(sent.model, anthropic ? "mock-claude" : "mock-large");
        assert.equal(sent.temperature, 0.5);
        assert.equal(anthropic ? sent.max_tokens : sent.max_completion_tokens, 100);
      });

      test("holds a conversation of several turns with instructions", async () => {
        const tag = freshId();
        const completion = await openai.chat.completions.create({
          model,
          messages: [
            { role: "system", content: "Be brief." },
            { role: "user", content: "My name is Ada." },
            { role: "assistant", content: "Hello, Ada." },
            { role: "user", content: [{ type: "text", text: `What is my name? ${directive({ tag })}` }] },
          ],
        });
        assert.equal(completion.choices[0].finish_reason, "stop");
        const sent = JSON.parse((await received(mock, tag)).body);
        assert.deepEqual(
          sent.messages.map(({ role }) => role),
          anthropic ? ["user", "assistant", "user"] : ["system", "user", "assistant", "user"],
        );
        if (anthropic) assert.equal(JSON.stringify(sent.system).includes("Be brief."), true);
      });

      test("says when the token limit or a stop text ended the answer", async () => {
        const limited = await openai.chat.completions.create({
          model,
          messages: ask({ text: TEXT }),
          max_completion_tokens: 3,
        });
        assert.equal(limited.choices[0].finish_reason, "length");
        assert.equal(limited.usage.completion_tokens, 3);
        const stopped = await openai.chat.completions.create({ model, messages: ask({ text: TEXT }), stop: ["four"] });
        assert.equal(stopped.choices[0].finish_reason, "stop");
        assert.equal(stopped.choices[0].message.content.includes("four"), false);
      });

      test("gives the text of every script unharmed", async () => {
        const whole = await openai.chat.completions.create({ model, messages: ask({ unicode: 1 }) });
        assert.match(whole.choices[0].message.content, /你好.*👩‍🚀.*مرحبا/su);
        let text = "";
        const stream = await openai.chat.completions.create({
          model,
          messages: ask({ unicode: 1, split: 1 }),
          stream: true,
        });
        for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
        assert.equal(text, whole.choices[0].message.content);
      });

      test("tells what was read from a prompt cache", async () => {
        const completion = await openai.chat.completions.create({ model, messages: ask({ usage_in: 50, cached: 30 }) });
        assert.equal(completion.usage.prompt_tokens_details.cached_tokens, 30);
        assert.equal(completion.usage.prompt_tokens, anthropic ? 80 : 50, "cached tokens are prompt tokens");
      });

      // === Streams ===

      test("streams, and naive loops over choices[0] work", async () => {
        const stream = await openai.chat.completions.create({ model, messages: ask({ text: TEXT }), stream: true });
        let text = "";
        const seen = { ids: new Set(), reasons: [], roles: [] };
        for await (const chunk of stream) {
          // As many programs do, without looking whether there is a choice.
          text += chunk.choices[0].delta.content ?? "";
          seen.ids.add(chunk.id);
          assert.equal(chunk.object, "chat.completion.chunk");
          assert.equal(chunk.usage ?? null, null);
          if (chunk.choices[0].delta.role) seen.roles.push(chunk.choices[0].delta.role);
          if (chunk.choices[0].finish_reason) seen.reasons.push(chunk.choices[0].finish_reason);
        }
        assert.equal(text, TEXT);
        assert.equal(seen.ids.size, 1);
        assert.deepEqual([seen.reasons, seen.roles], [["stop"], ["assistant"]]);
      });

      test("streams the usage last where it was asked for", async () => {
        const stream = await openai.chat.completions.create({
          model,
          messages: ask({ text: TEXT, usage_in: 12, usage_out: 7 }),
          stream: true,
          stream_options: { include_usage: true },
        });
        const chunks = await Array.fromAsync(stream);
        const told = chunks.filter((chunk) => chunk.usage);
        assert.deepEqual([told.length, told[0]], [1, chunks.at(-1)]);
        assert.deepEqual(told[0].choices, []);
        assert.deepEqual([told[0].usage.prompt_tokens, told[0].usage.completion_tokens], [12, 7]);
      });

      test("streams through the helper", async () => {
        const deltas = [];
        const runner = openai.chat.completions
          .stream({ model, messages: ask({ text: TEXT }), stream_options: { include_usage: true } })
          .on("content", (delta) => deltas.push(delta));
        const completion = await runner.finalChatCompletion();
        assert.equal(completion.choices[0].message.content, TEXT);
        assert.equal(deltas.join(""), TEXT);
        assert.equal(completion.choices[0].finish_reason, "stop");
        assert.ok((await runner.totalUsage()).completion_tokens > 0);
      });

      // === Tools ===

      const tools = [weather, clock];
      const callOf = (message) => {
        const call = message.tool_calls[0];
        assert.equal(call.type, "function");
        assert.notEqual(call.id, "");
        return { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
      };

      test("calls a tool of the model's choice", async () => {
        const completion = await openai.chat.completions.create({
          model,
          messages: [{ role: "user", content: "What is the weather?" }],
          tools,
          tool_choice: "auto",
        });
        assert.equal(completion.choices[0].finish_reason, "tool_calls");
        const call = callOf(completion.choices[0].message);
        assert.equal(call.name, "get_weather");
        assert.equal(typeof call.arguments.city, "string");
        assert.ok(Number.isInteger(call.arguments.days));
      });

      test("calls some tool if one is required", async () => {
        const completion = await openai.chat.completions.create({
          model,
          messages: ask({}, "Hello."),
          tools,
          tool_choice: "required",
        });
        assert.ok(completion.choices[0].message.tool_calls.length > 0);
      });

      test("calls the tool that is named", async () => {
        const completion = await openai.chat.completions.create({
          model,
          messages: ask({}, "Hello."),
          tools,
          tool_choice: { type: "function", function: { name: "get_time" } },
        });
        assert.equal(callOf(completion.choices[0].message).name, "get_time");
      });

      test("calls no tool if none may be called", async () => {
        const completion = await openai.chat.completions.create({
          model,
          messages: [{ role: "user", content: "What is the weather?" }],
          tools,
          tool_choice: "none",
        });
        assert.equal(completion.choices[0].message.tool_calls, undefined);
        assert.equal(completion.choices[0].finish_reason, "stop");
      });

      test("calls several tools at once, streamed and not", async () => {
        const body = { model, messages: ask({ tools: 3 }), tools };
        const whole = await openai.chat.completions.create(body);
        const calls = whole.choices[0].message.tool_calls;
        assert.deepEqual(
          calls.map((call) => call.function.name),
          ["get_weather", "get_time", "get_weather"],
        );
        assert.equal(new Set(calls.map(({ id }) => id)).size, 3);

        const streamed = [];
        let reason;
        const stream = await openai.chat.completions.create({ ...body, stream: true });
        for await (const chunk of stream) {
          reason = chunk.choices[0].finish_reason ?? reason;
          for (const piece of chunk.choices[0].delta.tool_calls ?? []) {
            streamed[piece.index] ??= { id: piece.id, name: piece.function.name, arguments: "", pieces: 0 };
            streamed[piece.index].arguments += piece.function?.arguments ?? "";
            streamed[piece.index].pieces += 1;
          }
        }
        assert.equal(reason, "tool_calls");
        assert.deepEqual(
          streamed.map((call) => [call.name, JSON.parse(call.arguments)]),
          calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]),
        );
        assert.ok(streamed[0].pieces > 2, "arguments come in pieces");
        assert.equal(new Set(streamed.map(({ id }) => id)).size, 3);
      });

      test("can be kept from calling several at once", async () => {
        const tag = freshId();
        const completion = await openai.chat.completions.create({
          model,
          messages: ask({ tag }, "What is the weather?"),
          tools,
          parallel_tool_calls: false,
        });
        assert.equal(completion.choices[0].message.tool_calls.length, 1);
        const sent = JSON.parse((await received(mock, tag)).body);
        if (anthropic) assert.equal(sent.tool_choice.disable_parallel_tool_use, true);
        else assert.equal(sent.parallel_tool_calls, false);
      });

      test("takes the results of tools and goes on", async () => {
        const messages = [{ role: "user", content: `What is the weather? ${directive({ tools: 2 })}` }];
        const first = await openai.chat.completions.create({ model, messages, tools });
        const { message } = first.choices[0];
        assert.equal(message.tool_calls.length, 2);
        messages.push(message);
        for (const call of message.tool_calls) {
          messages.push({ role: "tool", tool_call_id: call.id, content: `result of ${call.function.name}: sunny` });
        }
        const second = await openai.chat.completions.create({ model, messages, tools });
        assert.equal(second.choices[0].finish_reason, "stop");
        assert.match(second.choices[0].message.content, /sunny/);
      });

      test("runs tools by itself (runTools), streamed and not", async () => {
        for (const stream of [false, true]) {
          const asked = [];
          const runner = openai.chat.completions.runTools({
            model,
            stream,
            messages: [{ role: "user", content: "What is the weather?" }],
            tools: [
              {
                type: "function",
                function: {
                  ...weather.function,
                  parse: JSON.parse,
                  function: ({ city }) => {
                    asked.push(city);
                    return `It is 21 degrees in ${city}.`;
                  },
                },
              },
            ],
          });
          const content = await runner.finalContent();
          assert.equal(asked.length, 1);
          assert.match(content, /21 degrees/);
        }
      });

      // === Structured output ===

      test("answers in the form of a JSON schema", async () => {
        const completion = await openai.chat.completions.parse({
          model,
          messages: ask({}, "A recipe, please."),
          response_format: recipe,
        });
        const { parsed } = completion.choices[0].message;
        assert.equal(typeof parsed.title, "string");
        assert.ok(Number.isInteger(parsed.minutes));
        assert.ok(Array.isArray(parsed.steps));
      });

      test("streams an answer in the form of a JSON schema", async () => {
        const runner = openai.chat.completions.stream({
          model,
          messages: ask({}, "A recipe, please."),
          response_format: recipe,
        });
        const completion = await runner.finalChatCompletion();
        const answer = JSON.parse(completion.choices[0].message.content);
        assert.deepEqual(Object.keys(answer).sort(), ["minutes", "steps", "title"]);
      });

      // A model that is not held to JSON by its provider is told to answer so; the mock provider does not read.
      test("asks for some JSON object", async () => {
        const tag = freshId();
        const completion = await openai.chat.completions.create({
          model,
          messages: ask({ tag, ...(anthropic && { text: '{"a":1}' }) }, "Answer in JSON."),
          response_format: { type: "json_object" },
        });
        assert.equal(typeof JSON.parse(completion.choices[0].message.content), "object");
        const sent = JSON.parse((await received(mock, tag)).body);
        if (anthropic) assert.match(JSON.stringify(sent.system), /JSON/);
        else assert.deepEqual(sent.response_format, { type: "json_object" });
      });

      // === Pictures ===

      for (const [kind, url] of [
        ["inline", PIXEL],
        ["by its address", "https://pictures.example/cat.png"],
      ]) {
        test(`looks at a picture given ${kind}`, async () => {
          const tag = freshId();
          const completion = await openai.chat.completions.create({
            model,
            messages: [
              {
                role: "user",
                content: [
                  { type: "text", text: `What is this? ${directive({ tag })}` },
                  { type: "image_url", image_url: { url, detail: "low" } },
                ],
              },
            ],
          });
          assert.match(completion.choices[0].message.content, /image|picture/i);
          assert.ok(completion.usage.prompt_tokens >= 85, "the picture is counted");
          const sent = JSON.parse((await received(mock, tag)).body).messages[0].content[1];
          if (!anthropic) assert.equal(sent.image_url.url, url);
          else if (url === PIXEL) assert.deepEqual([sent.source.type, sent.source.media_type], ["base64", "image/png"]);
          else assert.deepEqual(sent.source, { type: "url", url });
        });
      }

      // === Several choices ===

      if (anthropic) {
        test("is told that this model gives one choice", async () => {
          const error = await openai.chat.completions.create({ model, messages: ask(), n: 2 }).catch((error) => error);
          assert.ok(error instanceof OpenAI.BadRequestError, `${error}`);
          assert.equal(error.param, "n");
          await openai.chat.completions.create({ model, messages: ask(), n: 1 });
        });
      } else {
        test("gets two choices, streamed and not", async () => {
          const body = { model, messages: ask(), n: 2 };
          const whole = await openai.chat.completions.create(body);
          assert.deepEqual(
            whole.choices.map(({ index, finish_reason }) => [index, finish_reason]),
            [
              [0, "stop"],
              [1, "stop"],
            ],
          );
          const texts = ["", ""];
          const reasons = [[], []];
          for await (const chunk of await openai.chat.completions.create({ ...body, stream: true })) {
            for (const { index, delta, finish_reason } of chunk.choices) {
              texts[index] += delta.content ?? "";
              if (finish_reason) reasons[index].push(finish_reason);
            }
          }
          assert.deepEqual(reasons, [["stop"], ["stop"]]);
          assert.deepEqual(
            texts,
            whole.choices.map(({ message }) => message.content),
          );
        });
      }

      // === Leaving ===

      const endings = { "usage asked for": { stream_options: { include_usage: true } }, "usage not asked for": {} };
      for (const [what, extra] of Object.entries(endings)) {
        for (const [how, leave] of [
          ["by aborting", (stream) => stream.controller.abort()],
          ["by breaking out of the loop", undefined],
        ]) {
          test(`leaves a stream ${how}, ${what}, and the provider stops`, async () => {
            const tag = freshId();
            const stream = await openai.chat.completions.create(
              { model, messages: ask({ tag, chunks: 1000, gap_ms: 40 }), stream: true, ...extra },
              { headers: { "x-request-id": tag } },
            );
            let left;
            for await (const chunk of stream) {
              if (!chunk.choices[0]?.delta?.content) continue;
              left = Date.now();
              if (!leave) break;
              leave(stream);
            }
            const entry = await upstreamEnded(mock, tag, "client_disconnected", { timeout: 5000 });
            assert.ok(Date.now() - left < 4000, `it took ${Date.now() - left} ms`);
            assert.ok(entry.chunks_sent < 200);
            assert.equal((await logOf(gateway, tag)).outcome, "client_closed");
          });
        }
      }

      for (const [what, fields, wait] of [
        ["an unstreamed answer", {}, { ttfb_ms: 20_000 }],
        ["the head of a stream", { stream: true }, { ttfb_ms: 20_000 }],
        [
          "the first event, usage asked for",
          { stream: true, stream_options: { include_usage: true } },
          { first_chunk_ms: 20_000 },
        ],
        ["the first event, usage not asked for", { stream: true }, { first_chunk_ms: 20_000 }],
      ]) {
        test(`gives up before ${what}, and the provider stops`, async () => {
          const tag = freshId();
          const leave = new AbortController();
          const behindEdge = new OpenAI({ baseURL: `${gateway.edgeUrl}/v1`, apiKey: at.key, maxRetries: 0 });
          const reading = async () => {
            const answer = await behindEdge.chat.completions.create(
              { model, messages: ask({ tag, ...wait }), ...fields },
              { signal: leave.signal, headers: { "x-request-id": tag } },
            );
            if (fields.stream) for await (const _ of answer);
          };
          // A stream whose head has come ends without an error when its own caller aborts it.
          const gone = reading().catch((error) => assert.ok(error instanceof OpenAI.APIUserAbortError, `${error}`));
          await eventually(async () => (await journalOf(mock, tag)).length === 1, "the provider has the request");
          leave.abort();
          await gone;
          await upstreamEnded(mock, tag, "client_disconnected", { timeout: 5000 });
          assert.equal((await logOf(gateway, tag)).outcome, "client_closed");
        });
      }

      // === Errors ===

      /** [status of the provider, class, whether the provider's words may be told] */
      const classes = [
        [400, OpenAI.BadRequestError, true],
        [404, OpenAI.NotFoundError, true],
        [409, OpenAI.ConflictError, true],
        [422, OpenAI.UnprocessableEntityError, true],
        [429, OpenAI.RateLimitError, true],
        [500, OpenAI.InternalServerError, true],
        [503, OpenAI.InternalServerError, true],
        // These are about the gateway's own credential at the provider.
        [401, OpenAI.InternalServerError, false],
        [403, OpenAI.InternalServerError, false],
      ];
      for (const [status, Class, told] of classes) {
        test(`raises ${Class.name} where the provider answers with ${status}`, async () => {
          for (const stream of [false, true]) {
            const error = await openai.chat.completions
              .create({ model, messages: ask({ status, error_message: "provider words" }), stream })
              .catch((error) => error);
            assert.ok(error instanceof Class, `${error?.constructor?.name}: ${error}`);
            assert.equal(error.message.includes("provider words"), told);
            assert.notEqual(error.requestID ?? "", "");
          }
        });
      }

      test("learns from a rate limit when to come back", async () => {
        const error = await openai.chat.completions
          .create({ model, messages: ask({ status: 429, "header.retry-after": 17 }) })
          .catch((error) => error);
        assert.ok(error instanceof OpenAI.RateLimitError);
        assert.equal(error.headers.get("retry-after"), "17");
      });

      test("gets an error in the middle of a stream", async () => {
        for (const fault of [{ error_at: 2 }, { truncate_at: 2 }, { reset_at: 2 }]) {
          const stream = await openai.chat.completions.create({
            model,
            messages: ask({ text: TEXT, gap_ms: 5, ...fault }),
            stream: true,
          });
          let text = "";
          const reading = (async () => {
            for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
          })();
          await assert.rejects(reading, OpenAI.APIError, JSON.stringify(fault));
          assert.ok(TEXT.startsWith(text) && text !== "" && text !== TEXT);
        }
      });

      test("tries again what is worth it, as often as it is told", async () => {
        const patient = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 2 });
        for (const status of [429, 500, 503]) {
          const tag = freshId();
          const messages = ask({
            tag,
            status,
            fail_times: 2,
            "header.retry-after-ms": 20,
            "header.retry-after": 0,
            text: "at last",
          });
          const completion = await patient.chat.completions.create({ model, messages });
          assert.equal(completion.choices[0].message.content, "at last");
          assert.equal((await journalOf(mock, tag)).length, 3, `status ${status}`);
        }
      });

      test("does not try again what is not worth it", async () => {
        const patient = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 2 });
        for (const status of [400, 401, 403, 404]) {
          const tag = freshId();
          await assert.rejects(patient.chat.completions.create({ model, messages: ask({ tag, status }) }));
          assert.equal((await journalOf(mock, tag)).length, 1, `status ${status}`);
        }
      });

      test("does not try again by itself if told so", async () => {
        const tag = freshId();
        await assert.rejects(openai.chat.completions.create({ model, messages: ask({ tag, status: 500 }) }));
        assert.equal((await journalOf(mock, tag)).length, 1);
      });

      test("runs out of patience", async () => {
        const hasty = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0, timeout: 300 });
        await assert.rejects(
          hasty.chat.completions.create({ model, messages: ask({ ttfb_ms: 3000 }) }),
          OpenAI.APIConnectionTimeoutError,
        );
        // With whole seconds the gateway is told of the patience, and answers or lets the caller go: both are a timeout.
        const calm = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0, timeout: 1000 });
        const error = await calm.chat.completions
          .create({ model, messages: ask({ ttfb_ms: 8000 }) })
          .catch((error) => error);
        assert.ok(error instanceof OpenAI.APIConnectionTimeoutError || error.status === 504, `${error}`);
      });

      test("finds usage and model in the gateway's log", async () => {
        const tag = freshId();
        await openai.chat.completions.create(
          { model, messages: ask({ tag, text: TEXT, usage_in: 12, usage_out: 7 }) },
          { headers: { "x-request-id": tag } },
        );
        const line = await logOf(gateway, tag);
        assert.deepEqual(tokens(line.usage), { input: 12, output: 7 });
        assert.deepEqual([line.model, line.outcome, line.stream, line.account], [model, "completed", false, "demo"]);
      });
    });
  }

  test("answers in the form of a JSON schema by a tool, where a model has no parameter for it", async () => {
    const body = { model: "claude-by-tool", messages: ask({}, "A recipe, please."), response_format: recipe };
    const isRecipe = (answer) => typeof answer.title === "string" && Number.isInteger(answer.minutes);
    const whole = await openai.chat.completions.parse(body);
    const streamed = await openai.chat.completions.stream(body).finalChatCompletion();
    for (const { choices } of [whole, streamed]) {
      assert.equal(choices[0].finish_reason, "stop");
      assert.equal(choices[0].message.tool_calls, undefined, "the tool is the gateway's own business");
      assert.ok(isRecipe(JSON.parse(choices[0].message.content)));
    }
    // Tools of the caller's own still work beside it.
    const messages = [{ role: "user", content: "What is the weather?" }];
    const called = await openai.chat.completions.create({ ...body, messages, tools: [weather] });
    assert.equal(called.choices[0].finish_reason, "tool_calls");
    assert.equal(called.choices[0].message.tool_calls[0].function.name, "get_weather");
  });

  // === Whom and what the gateway knows ===

  test("raises AuthenticationError for a wrong key, and does not try again", async () => {
    const stranger = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: "sk-lgw-nobody", maxRetries: 2 });
    const error = await stranger.chat.completions
      .create({ model: "gpt-test", messages: ask() })
      .catch((error) => error);
    assert.ok(error instanceof OpenAI.AuthenticationError);
    assert.equal(error.code, "invalid_api_key");
    assert.equal(error.headers.get("x-should-retry"), "false");
  });

  test("raises NotFoundError for a model that does not exist", async () => {
    const error = await openai.chat.completions
      .create({ model: "gpt-nothing", messages: ask() })
      .catch((error) => error);
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.deepEqual([error.code, error.param], ["model_not_found", "model"]);
  });

  test("raises BadRequestError where the gateway refuses the request", async () => {
    const error = await openai.chat.completions.create({ model: "gpt-test", messages: "hi" }).catch((error) => error);
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "messages");
  });

  test("raises a connection error where there is no gateway", async () => {
    const nobody = new OpenAI({ baseURL: "http://127.0.0.1:9/v1", apiKey: at.key, maxRetries: 0 });
    await assert.rejects(nobody.models.list(), OpenAI.APIConnectionError);
  });

  test("names the parameter that a translation cannot express, and lists those it left out", async () => {
    const { data, response } = await openai.chat.completions
      .create({ model: "claude-test", messages: ask(), seed: 7, frequency_penalty: 0.5 })
      .withResponse();
    assert.equal(data.choices[0].finish_reason, "stop");
    const dropped = response.headers.get("x-gateway-dropped-params").split(", ").sort();
    assert.deepEqual(dropped, ["frequency_penalty", "seed"]);
  });

  test("reasons, and shows it, with models of either provider", async () => {
    for (const model of ["gpt-test", "claude-test"]) {
      const completion = await openai.chat.completions.create({
        model,
        messages: ask({ text: TEXT, reasoning: 5, ...(model === "gpt-test" && { reasoning_content: 1 }) }),
        reasoning_effort: "low",
        max_completion_tokens: 8000,
      });
      const { message } = completion.choices[0];
      assert.equal(message.content, TEXT);
      assert.notEqual(message.reasoning_content ?? "", "", model);
    }
  });

  test("lists the models and looks one up", async () => {
    const models = await Array.fromAsync(await openai.models.list());
    assert.deepEqual(
      models.map(({ id }) => id),
      ["claude-by-tool", "claude-test", "gpt-inline", "gpt-loose", "gpt-test"],
    );
    for (const model of models) {
      assert.equal(model.object, "model");
      assert.ok(Number.isInteger(model.created) && typeof model.owned_by === "string");
    }
    assert.deepEqual(await openai.models.retrieve("gpt-test"), models.at(-1));
    await assert.rejects(openai.models.retrieve("gpt-nothing"), OpenAI.NotFoundError);
  });

  test("sees only the models that its key may use", async () => {
    const narrow = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: gateway.keys.narrow, maxRetries: 0 });
    const models = await Array.fromAsync(await narrow.models.list());
    assert.deepEqual(
      models.map(({ id }) => id),
      ["claude-by-tool", "claude-test"],
    );
    await assert.rejects(narrow.models.retrieve("gpt-test"), OpenAI.NotFoundError);
    await narrow.chat.completions.create({ model: "claude-test", messages: ask() });
  });
});

test("no line of the log has a secret in it", assertNothingLeaked);
