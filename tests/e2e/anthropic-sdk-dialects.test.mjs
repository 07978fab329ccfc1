// The official `@anthropic-ai/sdk` package against a model of every upstream dialect: whatever the provider speaks, its
// users see one API. What providers refuse, the mock provider refuses.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { ERROR_CLASSES, PDF, PIXEL, TEXT, asker, clock, max_tokens, schema, user, weather } from "./anthropic.mjs";
import {
  ask,
  assertNothingLeaked,
  config,
  directive,
  freshId,
  journalOf,
  logOf,
  received,
  start,
  tokens,
  upstreamEnded,
} from "./support.mjs";
import { UPSTREAMS, modelsOf, providersOf } from "./upstreams.mjs";

/** What a message says. Proofs of reasoning may stand behind it, in thinking blocks without a text. */
const said = ({ content }) => content.map(({ text }) => text ?? "").join("");

const png = { type: "base64", media_type: "image/png", data: PIXEL };

describe("the @anthropic-ai/sdk package, whatever the provider speaks", () => {
  let at, mock, gateway, anthropic;

  before(async () => {
    at = await start({ config: config({ providers: providersOf(UPSTREAMS), models: modelsOf(UPSTREAMS) }) });
    ({ mock, gateway } = at);
    anthropic = new Anthropic({ baseURL: at.url, apiKey: at.key, maxRetries: 0 });
  });

  after(() => at?.stop());

  for (const [model, upstream] of Object.entries(UPSTREAMS)) {
    const create = (body, options) => anthropic.messages.create({ model, max_tokens, ...body }, options);
    const stream = (body, options) => anthropic.messages.stream({ model, max_tokens, ...body }, options);
    const either = (streamed) => (body) => asker(anthropic, streamed)({ model, max_tokens, ...body });

    describe(model, { concurrency: 4 }, () => {
      test("answers", async () => {
        const tag = freshId();
        const system = ["Be brief.", "Be kind."].map((text) => ({ type: "text", text }));
        const message = await create(
          { system, messages: ask({ tag, text: TEXT, usage_in: 12, usage_out: 7 }) },
          { headers: { "x-request-id": tag } },
        );
        assert.deepEqual([message.type, message.role], ["message", "assistant"]);
        assert.match(message.id, /^msg_/);
        assert.equal(said(message), TEXT);
        assert.deepEqual([message.stop_reason, message.stop_sequence], ["end_turn", null]);
        assert.deepEqual([message.usage.input_tokens, message.usage.output_tokens], [12, 7]);
        const entry = await received(mock, tag);
        assert.equal(entry.path, upstream.path);
        assert.equal(JSON.stringify(entry.headers).includes(at.key), false);
        const line = await logOf(gateway, tag);
        const lane = upstream.provider === "anthropic" ? "native" : "translated";
        assert.deepEqual([line.lane, line.outcome, line.provider], [lane, "completed", upstream.provider]);
        assert.deepEqual(tokens(line.usage), { input: 12, output: 7 });
      });

      test("holds a conversation and says that the token limit ended the answer", async () => {
        const messages = [
          { role: "user", content: "My name is Ada." },
          { role: "assistant", content: [{ type: "text", text: "Hello, Ada." }] },
          user({ type: "text", text: "From Turin." }, { type: "text", text: `And now? ${directive({ text: TEXT })}` }),
        ];
        assert.equal(said(await create({ messages })), TEXT);
        const long = ask({ text: `${TEXT} ${TEXT} ${TEXT}` });
        assert.equal((await create({ messages: long, max_tokens: 16 })).stop_reason, "max_tokens");
      });

      test("ends where a stop sequence comes", async () => {
        // The Responses API has none.
        if (upstream.provider === "responses") return;
        const message = await create({ messages: ask({ text: TEXT }), stop_sequences: ["four"] });
        assert.equal(said(message).includes("four"), false);
        assert.ok(["stop_sequence", "end_turn"].includes(message.stop_reason));
      });

      test("streams events in the order that the API promises, with the usage at the end", async () => {
        const events = await create({ messages: ask({ text: TEXT, usage_in: 12, usage_out: 7 }), stream: true });
        const types = [];
        let text = "";
        let usage = {};
        for await (const event of events) {
          if (types.at(-1) !== event.type && event.type !== "ping") types.push(event.type);
          if (event.type === "content_block_delta") text += event.delta.text ?? "";
          if (event.type === "message_start") usage = event.message.usage;
          if (event.type === "message_delta") usage = { ...usage, ...event.usage };
        }
        assert.equal(text, TEXT);
        assert.deepEqual([usage.input_tokens, usage.output_tokens], [12, 7]);
        const block = ["content_block_start", "content_block_delta", "content_block_stop"];
        const blocks = types.slice(1, -2);
        assert.deepEqual([types[0], ...types.slice(-2)], ["message_start", "message_delta", "message_stop"]);
        assert.deepEqual(blocks, upstream.upstream_model.startsWith("gemini-3") ? [...block, ...block] : block);
      });

      test("streams through the helper, whatever the pieces are in which the stream comes", async () => {
        for (const shape of [{ split: 1 }, { split: 7 }, { whole: 1 }]) {
          const deltas = [];
          const running = stream({ messages: ask({ unicode: 1, usage_out: 7, ...shape }) });
          const message = await running.on("text", (delta) => deltas.push(delta)).finalMessage();
          assert.equal(said(message), deltas.join(""));
          assert.match(said(message), /你好.*👩‍🚀/su, JSON.stringify(shape));
          assert.equal(message.usage.output_tokens, 7);
        }
      });

      // === Tools ===

      test("streams the input of the tool that it must call", async () => {
        const pieces = [];
        const running = stream({
          messages: ask({}, "Hello."),
          tools: [weather, clock],
          tool_choice: { type: "tool", name: "get_time" },
        });
        const message = await running.on("inputJson", (piece) => pieces.push(piece)).finalMessage();
        const [call] = message.content.filter(({ type }) => type === "tool_use");
        assert.deepEqual([call.name, typeof call.input.zone, message.stop_reason], ["get_time", "string", "tool_use"]);
        assert.deepEqual(JSON.parse(pieces.join("")), call.input);
      });

      for (const streamed of [false, true]) {
        const get = (body) => either(streamed)(body);
        const how = streamed ? ", streamed" : "";

        test(`calls tools as the choice says${how}`, async () => {
          const tools = [weather, clock];
          const any = await get({ messages: ask({}, "Hello."), tools, tool_choice: { type: "any" } });
          assert.equal(any.stop_reason, "tool_use");
          const auto = await get({ messages: ask({}, "Hello."), tools, tool_choice: { type: "auto" } });
          assert.equal(auto.stop_reason, "end_turn");
          const none = await get({ messages: ask({}, "Hello."), tools, tool_choice: { type: "none" } });
          assert.ok(said(none) !== "" && none.content.every(({ type }) => type !== "tool_use"));
        });

        test(`calls tools at once and takes their results, pictures and failures among them${how}`, async () => {
          const tools = [weather, clock];
          const messages = [user({ type: "text", text: `What is the weather? ${directive({ tools: 2 })}` })];
          const first = await get({ messages, tools });
          assert.equal(first.stop_reason, "tool_use");
          const calls = first.content.filter(({ type }) => type === "tool_use");
          const asked = calls.map(({ name, input }) => [name, ...Object.keys(input)]);
          assert.deepEqual(asked, [["get_weather", "city"], ["get_time", "zone"]]);
          assert.equal(new Set(calls.map(({ id }) => id)).size, 2);
          const [sunny, late] = calls.map(({ id }) => ({ type: "tool_result", tool_use_id: id }));
          sunny.content = [
            { type: "text", text: "it is sunny" },
            { type: "image", source: png },
          ];
          Object.assign(late, { content: "no such zone", is_error: true });
          const more = { type: "text", text: `And now? ${directive({ text: TEXT })}` };
          const history = [...messages, { role: "assistant", content: first.content }, user(sunny, late, more)];
          const second = await get({ messages: history, tools });
          assert.deepEqual([said(second), second.stop_reason], [TEXT, "end_turn"]);
        });

        test(`shows its thoughts, proves them, and takes them back beside its calls${how}`, async () => {
          const tools = [weather];
          const thinking = upstream.thinking ?? { type: "enabled", budget_tokens: 2048 };
          const question = `What is the weather? ${directive({ tools: 1, signature: 1, reasoning: 9 })}`;
          const messages = [user({ type: "text", text: question })];
          const first = await get({ messages, tools, thinking });
          assert.equal(first.stop_reason, "tool_use");
          const call = first.content.find(({ type }) => type === "tool_use");
          if (upstream.proves) {
            const thoughts = first.content.filter(({ type }) => type === "thinking");
            assert.ok(thoughts.some(({ signature }) => signature?.length > 0), JSON.stringify(first.content));
          }
          const result = { type: "tool_result", tool_use_id: call.id, content: "it is sunny" };
          const history = [...messages, { role: "assistant", content: first.content }, user(result)];
          const second = await get({ messages: history, tools, thinking });
          assert.equal(second.stop_reason, "end_turn");
          assert.match(said(second), /sunny/);
        });
      }

      test("runs tools by the SDK's own runner", async () => {
        const asked = [];
        const run = ({ city }) => `21 degrees in ${asked[asked.push(city) - 1]}`;
        const message = await anthropic.beta.messages.toolRunner({
          model,
          max_tokens,
          thread: false, // the mock provider does not keep conversations
          messages: [{ role: "user", content: "What is the weather?" }],
          tools: [{ ...weather, type: "custom", parse: (input) => input, run }],
        });
        assert.equal(asked.length, 1);
        assert.match(said(message), /21 degrees/);
      });

      // === What else a request may have ===

      test("answers in the form of a JSON schema", async () => {
        const output_config = { format: { type: "json_schema", schema } };
        for (const streamed of [false, true]) {
          const message = await either(streamed)({ messages: ask({}, "A recipe."), output_config });
          const answer = JSON.parse(said(message));
          assert.deepEqual(Object.keys(answer).sort(), ["minutes", "title"]);
          assert.equal(message.stop_reason, "end_turn");
        }
      });

      test("looks at a picture", async () => {
        const message = await create({ messages: [user({ type: "image", source: png }, { type: "text", text: "What is this?" })] });
        assert.match(said(message), /image|picture/i);
      });

      for (const [kind, source] of [
        ["a PDF", { type: "base64", media_type: "application/pdf", data: PDF }],
        ["a text", { type: "text", media_type: "text/plain", data: "The sky is green." }],
      ]) {
        test(`reads ${kind}`, async () => {
          const tag = freshId();
          const document = { type: "document", source, title: "Notes.pdf" };
          const text = { type: "text", text: `What does it say? ${directive({ tag, text: TEXT })}` };
          if (kind === "a PDF" && upstream.textOnly) {
            await assert.rejects(create({ messages: [user(document, text)] }), (error) => {
              assert.match(error.message, /messages\[0\]\.content\[0\]: .* as text only/);
              return error instanceof Anthropic.BadRequestError;
            });
            return;
          }
          const message = await create({ messages: [user(document, text)] });
          assert.equal(said(message), TEXT);
          const { body } = await received(mock, tag);
          assert.ok([PDF, "The sky is green.", btoa("The sky is green.")].some((it) => body.includes(it)), body);
        });
      }

      test("hears that its answer was withheld", async () => {
        for (const streamed of [false, true]) {
          // Gemini has another answer to a prompt that it withholds: an error.
          const messages = ask(upstream.provider === "gemini" ? { finish: "SAFETY" } : { block: 1 });
          // Cohere knows no other.
          if (upstream.provider === "cohere") {
            await assert.rejects(either(streamed)({ messages }), (error) => error instanceof Anthropic.BadRequestError);
            continue;
          }
          const message = await either(streamed)({ messages });
          assert.equal(message.stop_reason, "refusal");
        }
      });

      // === What goes wrong ===

      for (const [status, Class, type] of ERROR_CLASSES) {
        test(`raises ${Class.name} where the provider answers with ${status}`, async () => {
          for (const stream of [false, true]) {
            const tag = freshId();
            const messages = ask({ status, error_message: "provider words", "header.retry-after": 3 });
            const error = await create({ stream, messages }, { headers: { "x-request-id": tag } }).catch((error) => error);
            assert.ok(error instanceof Class, `${error?.constructor?.name}: ${error}`);
            // Its provider's own words reach the caller as they are.
            const expected = upstream.provider === "anthropic" && status === 503 ? "api_error" : type;
            assert.deepEqual([error.error.type, error.error.error.type], ["error", expected]);
            assert.equal(error.error.error.message.includes("provider words"), status !== 401 && status !== 403);
            assert.equal(error.requestID, tag);
            if (status === 429) assert.equal(error.headers.get("retry-after"), "3");
          }
        });
      }

      for (const fault of [{ truncate_at: 3 }, { close_at: 3 }, { reset_at: 3 }, { cut_event_at: 3 }, { error_at: 3 }, { no_done: 1 }]) {
        const [name] = Object.keys(fault);
        // Chat Completions is complete with its finish reason.
        if (name === "no_done" && upstream.provider === "openai") continue;
        // Natively the half of an event reaches the caller before the error does, and the SDK cannot read it.
        const expected = name === "cut_event_at" && upstream.provider === "anthropic" ? Error : Anthropic.APIError;
        test(`never takes a stream for complete that ends by ${name}`, async () => {
          const messages = ask({ chunks: 8, gap_ms: 5, ...fault });
          const events = await create({ messages, stream: true });
          await assert.rejects(async () => {
            for await (const _ of events);
          }, expected);
          await assert.rejects(stream({ messages }).finalMessage(), expected);
        });
      }

      test("is tried again where it is worth it", async () => {
        const patient = new Anthropic({ baseURL: at.url, apiKey: at.key, maxRetries: 2 });
        const tag = freshId();
        const again = { "header.retry-after-ms": 20, "header.retry-after": 0 };
        const messages = ask({ tag, status: 529, fail_times: 2, ...again, text: "at last" });
        const message = await patient.messages.create({ model, max_tokens, messages });
        assert.equal(said(message), "at last");
        assert.equal((await journalOf(mock, tag)).length, 3);
      });

      for (const how of ["aborting", "breaking out of the loop"]) {
        test(`is left by ${how}, and the provider stops`, async () => {
          const tag = freshId();
          const messages = ask({ tag, chunks: 1000, gap_ms: 40 });
          const events = await create({ messages, stream: true }, { headers: { "x-request-id": tag } });
          for await (const event of events) {
            if (event.type !== "content_block_delta") continue;
            if (how !== "aborting") break;
            events.controller.abort();
          }
          const entry = await upstreamEnded(mock, tag, "client_disconnected", { timeout: 5000 });
          assert.ok(entry.chunks_sent < 200);
          const line = await logOf(gateway, tag);
          assert.equal(line.outcome, "client_closed");
          assert.ok(tokens(line.usage).input > 0);
        });
      }
    });
  }
});

test("no line of the log has a secret in it", assertNothingLeaked);
