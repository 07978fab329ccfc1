// The official `openai` package against a model of every upstream dialect that the gateway translates to: whatever the
// provider speaks, its users see one API. What providers refuse, the mock provider refuses.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

import { AI_PATH, PROVIDERS as MORE, given } from "./bindings.mjs";
import {
  HEALTH,
  MOCK,
  ask,
  assertNothingLeaked,
  config,
  directive,
  freshId,
  logOf,
  received,
  start,
  tokens,
  upstreamEnded,
} from "./support.mjs";

const TEXT = "one two three four five six seven";

const tool = (name, properties) => ({
  type: "function",
  function: { name, description: name, parameters: { type: "object", properties, required: Object.keys(properties) } },
});
const tools = [tool("get_weather", { city: { type: "string" } }), tool("get_time", { zone: { type: "string" } })];

const schema = {
  type: "object",
  properties: { title: { type: "string" }, minutes: { type: "integer" } },
  required: ["title", "minutes"],
  additionalProperties: false,
};

const PIXEL =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";

const provider = (dialect, base_url, more = {}) => ({ dialect, base_url, credential: "OPENAI_KEY", health: HEALTH, ...more });

const PROVIDERS = {
  gemini: provider("gemini", `${MOCK}/v1beta`),
  bedrock: provider("bedrock", MOCK),
  responses: provider("openai", `${MOCK}/v1`, { wires: ["responses"] }),
  ...MORE,
};

/**
 * Models by what they stand for. `path` is where they are asked whole, `effort` where a wish for reasoning goes. Some see
 * nothing (`blind`), and some call one function at a time, and none in particular of several (`single`).
 */
const MODELS = {
  "a Claude of the newest generation": {
    provider: "anthropic",
    upstream_model: "claude-opus-4-8",
    path: "/v1/messages",
    effort: (sent) => sent.output_config.effort,
  },
  "Gemini 2.5": {
    provider: "gemini",
    upstream_model: "gemini-2.5-flash",
    path: "/v1beta/models/gemini-2.5-flash:generateContent",
    effort: (sent) => sent.generationConfig.thinkingConfig.thinkingBudget,
  },
  "Gemini 3": {
    provider: "gemini",
    upstream_model: "gemini-3-flash-preview",
    path: "/v1beta/models/gemini-3-flash-preview:generateContent",
    effort: (sent) => sent.generationConfig.thinkingConfig.thinkingLevel,
  },
  "Claude on Bedrock": {
    provider: "bedrock",
    upstream_model: "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    path: "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse",
    effort: (sent) => sent.additionalModelRequestFields.thinking.budget_tokens,
  },
  "Nova on Bedrock": {
    provider: "bedrock",
    upstream_model: "us.amazon.nova-2-lite-v1:0",
    path: "/model/us.amazon.nova-2-lite-v1%3A0/converse",
    effort: (sent) => sent.additionalModelRequestFields.reasoningConfig.maxReasoningEffort,
  },
  "OpenAI's Responses": {
    provider: "responses",
    upstream_model: "gpt-5.5",
    path: "/v1/responses",
    effort: (sent) => sent.reasoning.effort,
  },
  "Cohere's Command": {
    provider: "cohere",
    upstream_model: "command-a-reasoning-08-2025",
    path: "/v2/chat",
    effort: (sent) => sent.thinking.token_budget,
  },
  "ERNIE on wenxinworkshop": {
    provider: "wenxin",
    upstream_model: "ernie-4.0-8k-latest",
    path: "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/ernie-4.0-8k-latest",
    blind: true,
    single: true,
  },
  "Workers AI by its binding": {
    provider: "workers-ai",
    upstream_model: "@cf/openai/gpt-oss-120b",
    path: AI_PATH,
    effort: (sent) => sent.reasoning_effort,
    // As in OpenAI's form, the finish reason is an end as good as the mark behind it.
    markless: true,
  },
};

/** Models of Workers AI that answer in its own form. */
const OWN = ["whole", "stream", "call", "thrown"];

describe("the openai package, whatever the provider speaks", () => {
  let at, mock, gateway, openai;

  before(async () => {
    const model = ({ provider, upstream_model }) => ({ provider, upstream_model });
    const models = Object.fromEntries(Object.entries(MODELS).map(([name, it]) => [name, model(it)]));
    for (const name of OWN) models[`own-${name}`] = { provider: "workers-ai", upstream_model: `@cf/own/${name}` };
    at = await start({ given, config: config({ providers: PROVIDERS, models }) });
    ({ mock, gateway } = at);
    openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
  });

  after(() => at?.stop());

  for (const [model, { path, upstream_model, provider, effort, blind, single, markless }] of Object.entries(MODELS)) {
    const create = (body, options) => openai.chat.completions.create({ model, ...body }, options);

    describe(model, { concurrency: 4 }, () => {
      test("answers", async () => {
        const tag = freshId();
        const completion = await create(
          { messages: ask({ tag, text: TEXT, usage_in: 12, usage_out: 7 }), max_completion_tokens: 5000 },
          { headers: { "x-request-id": tag } },
        );
        assert.match(completion.id, /^chatcmpl-/);
        const [{ message, finish_reason }] = completion.choices;
        assert.deepEqual([message.content, finish_reason, completion.model], [TEXT, "stop", model]);
        assert.deepEqual([completion.usage.prompt_tokens, completion.usage.completion_tokens], [12, 7]);
        assert.equal((await received(mock, tag)).path.split("?")[0], path);
        const line = await logOf(gateway, tag);
        assert.deepEqual([line.lane, line.outcome, line.provider], ["translated", "completed", provider]);
        assert.deepEqual(tokens(line.usage), { input: 12, output: 7 });
      });

      test("streams, with one identity, one finish and the usage at the end", async () => {
        const stream = await create({
          messages: ask({ text: TEXT, usage_in: 12, usage_out: 7 }),
          stream: true,
          stream_options: { include_usage: true },
        });
        const chunks = await Array.fromAsync(stream);
        assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), TEXT);
        assert.equal(new Set(chunks.map(({ id }) => id)).size, 1);
        const finished = chunks.flatMap(({ choices }) => choices).filter(({ finish_reason }) => finish_reason);
        assert.deepEqual(finished.map(({ finish_reason }) => finish_reason), ["stop"]);
        const { usage } = chunks.at(-1);
        assert.deepEqual([usage.prompt_tokens, usage.completion_tokens], [12, 7]);
      });

      test("holds a conversation that begins with the assistant and has instructions in between", async () => {
        const completion = await create({
          messages: [
            { role: "developer", content: "Be brief." },
            { role: "assistant", content: "Hello, I am here." },
            { role: "user", content: "My name is Ada." },
            { role: "user", content: "I am from Turin." },
            { role: "system", content: "Be kind." },
            { role: "user", content: `Who am I? ${directive({ text: TEXT })}` },
          ],
        });
        assert.equal(completion.choices[0].message.content, TEXT);
      });

      test("says when the token limit ended the answer", async () => {
        const messages = ask({ text: `${TEXT} ${TEXT} ${TEXT}` });
        const { choices } = await create({ messages, max_completion_tokens: 16 });
        assert.equal(choices[0].finish_reason, "length");
      });

      test("looks at a picture", async () => {
        const content = [
          { type: "text", text: "What is this?" },
          { type: "image_url", image_url: { url: PIXEL } },
        ];
        const asked = create({ messages: [{ role: "user", content }] });
        if (blind) {
          await assert.rejects(asked, (error) => error.status === 400 && error.param === "messages[0].content[1]");
          return;
        }
        const { choices } = await asked;
        assert.match(choices[0].message.content, /image|picture/i);
      });

      test("calls the tool that is named", async () => {
        const tool_choice = { type: "function", function: { name: "get_time" } };
        const { choices } = await create({ messages: ask({}, "Hello."), tools, tool_choice });
        const [{ message, finish_reason }] = choices;
        assert.equal(message.tool_calls[0].function.name, "get_time");
        assert.equal(typeof JSON.parse(message.tool_calls[0].function.arguments).zone, "string");
        assert.equal(finish_reason, "tool_calls");
      });

      test("calls a tool that takes free text, whole and streamed, and takes its result", async () => {
        const shell = { name: "run_shell", description: "Runs a script." };
        const messages = [{ role: "user", content: "List \"all\" files\n\\ 你好 👩‍🚀" }];
        const offered = [{ type: "custom", custom: shell }];
        const tool_choice = { type: "custom", custom: { name: "run_shell" } };
        const { choices } = await create({ messages, tools: offered, tool_choice });
        const [{ message, finish_reason }] = choices;
        const [call] = message.tool_calls;
        assert.deepEqual([finish_reason, call.type, call.custom.name, call.function], ["tool_calls", "custom", "run_shell", undefined]);
        assert.match(call.custom.input, /List "all" files/);
        let input = "";
        for await (const { choices } of await create({ messages, tools: offered, tool_choice, stream: true })) {
          for (const piece of choices[0]?.delta.tool_calls ?? []) input += piece.custom?.input ?? "";
        }
        assert.equal(input, call.custom.input);
        const result = { role: "tool", tool_call_id: call.id, content: "it is sunny" };
        const second = await create({ messages: [...messages, message, result], tools: offered });
        assert.match(second.choices[0].message.content, /sunny/);

        // The same by Responses, where such a call is an item of its own.
        const ask = { model, tools: [{ type: "custom", ...shell }], store: false };
        const asked = [{ role: "user", content: messages[0].content }];
        const response = await openai.responses.create({ ...ask, input: asked, tool_choice: { type: "custom", name: "run_shell" } });
        const item = response.output.find(({ type }) => type === "custom_tool_call");
        assert.deepEqual([item.name, item.input], ["run_shell", input]);
        const output = { type: "custom_tool_call_output", call_id: item.call_id, output: "it is sunny" };
        const later = await openai.responses.create({ ...ask, input: [...asked, item, output] });
        assert.match(later.output_text, /sunny/);
      });

      test("calls several tools at once in a stream and takes their results, proofs included", async () => {
        const messages = [{ role: "user", content: `What is the weather? ${directive({ tools: 2, signature: 1, reasoning: 5 })}` }];
        const runner = openai.chat.completions.stream({ model, messages, tools, reasoning_effort: "low", max_completion_tokens: 9000 });
        const first = await runner.finalChatCompletion();
        const [{ message, finish_reason }] = first.choices;
        assert.equal(finish_reason, "tool_calls");
        const names = ["get_weather", "get_time"].slice(0, single ? 1 : 2);
        assert.deepEqual(message.tool_calls.map((call) => call.function.name), names);
        assert.equal(new Set(message.tool_calls.map(({ id }) => id)).size, names.length);
        // The helper puts together what it knows; proofs come whole in an unstreamed answer.
        const whole = await create({ messages, tools, reasoning_effort: "low", max_completion_tokens: 9000 });
        const said = whole.choices[0].message;
        const results = said.tool_calls.map(({ id }) => ({ role: "tool", tool_call_id: id, content: "it is sunny" }));
        const history = [...messages, said, ...results];
        const second = await create({ messages: history, tools, reasoning_effort: "low", max_completion_tokens: 9000 });
        assert.equal(second.choices[0].finish_reason, "stop");
        assert.match(second.choices[0].message.content, /sunny/);
      });

      test("answers callers of Messages: whole, streamed, by a tool and with its result", async () => {
        const anthropic = new Anthropic({ baseURL: at.url, apiKey: at.key, maxRetries: 0 });
        const base = { model, max_tokens: 5000, system: "Be brief." };
        const said = ({ content }) => content.map(({ text }) => text ?? "").join("");
        const messages = ask({ text: TEXT, usage_in: 12, usage_out: 7 });
        for (const message of [
          await anthropic.messages.create({ ...base, messages }),
          await anthropic.messages.stream({ ...base, messages }).finalMessage(),
        ]) {
          assert.deepEqual([said(message), message.stop_reason], [TEXT, "end_turn"]);
          assert.deepEqual([message.usage.input_tokens, message.usage.output_tokens], [12, 7]);
        }
        const input_schema = { type: "object", properties: { zone: { type: "string" } }, required: ["zone"] };
        const tools = [{ name: "get_time", description: "The time.", input_schema }];
        const question = [{ role: "user", content: "Hello." }];
        const first = await anthropic.messages.stream({ ...base, messages: question, tools, tool_choice: { type: "any" } }).finalMessage();
        const call = first.content.find(({ type }) => type === "tool_use");
        assert.deepEqual([call.name, typeof call.input.zone, first.stop_reason], ["get_time", "string", "tool_use"]);
        const result = { type: "tool_result", tool_use_id: call.id, content: "it is sunny" };
        const history = [...question, { role: "assistant", content: first.content }, { role: "user", content: [result] }];
        const second = await anthropic.messages.create({ ...base, messages: history, tools });
        assert.match(said(second), /sunny/);
        for (const fault of [{ truncate_at: 3 }, { error_at: 3 }]) {
          const broken = anthropic.messages.stream({ ...base, messages: ask({ chunks: 8, ...fault }) });
          await assert.rejects(broken.finalMessage(), Anthropic.APIError);
        }
      });

      test("answers in the form of a schema, also beside tools", async () => {
        const response_format = { type: "json_schema", json_schema: { name: "recipe", strict: true, schema } };
        // Who cannot demand one of several functions is asked in words for the form.
        for (const more of single ? [{}] : [{}, { tools }]) {
          const { choices } = await create({ messages: ask({}, "A recipe, please."), response_format, ...more });
          // A model that answers by a tool may first call the caller's own.
          if (more.tools && choices[0].finish_reason === "tool_calls") continue;
          const answer = JSON.parse(choices[0].message.content);
          assert.deepEqual(Object.keys(answer).sort(), ["minutes", "title"]);
          assert.equal(choices[0].finish_reason, "stop");
        }
      });

      test("reasons as much as is wished for", async () => {
        const tag = freshId();
        await create({ messages: ask({ tag, text: TEXT }), reasoning_effort: "low", max_completion_tokens: 9000 });
        const sent = JSON.parse((await received(mock, tag)).body);
        const told = effort?.(sent);
        assert.ok((effort ? ["low", "LOW", 2048] : [undefined]).includes(told), `${told}`);
      });

      test("tells which parameters its provider does not have, or refuses by name those that it cannot do without", async () => {
        const { response } = await create({ messages: ask(), seed: 5, made_up: 1 }).withResponse();
        assert.equal(response.headers.get("x-gateway-dropped-params").includes("made_up"), true);
        if (provider === "gemini") return;
        await assert.rejects(create({ messages: ask(), n: 2 }), (error) => error.status === 400 && error.param === "n");
      });

      // Workers AI's only limit is what an account may use in a day, which is the operator's business.
      const limited = provider === "workers-ai" ? [429, OpenAI.InternalServerError, 502] : [429, OpenAI.RateLimitError];
      for (const [status, type, told = status] of [[400, OpenAI.BadRequestError], limited, [503, OpenAI.InternalServerError]]) {
        test(`raises the error that stands for ${status}`, async () => {
          const messages = ask({ status, "header.retry-after": 7 });
          await assert.rejects(create({ messages }), (error) => {
            assert.ok(error instanceof type, `${error}`);
            assert.equal(error.status, told);
            if (told === 429) assert.equal(error.headers.get("retry-after"), "7");
            return true;
          });
        });
      }

      for (const fault of [{ truncate_at: 3 }, { close_at: 3 }, { cut_event_at: 3 }, { error_at: 3 }, { no_done: 1 }]) {
        const [[name]] = Object.entries(fault);
        if (name === "no_done" && markless) continue;
        test(`never takes a stream for complete that ends by ${name}`, async () => {
          const stream = await create({ messages: ask({ chunks: 8, ...fault }), stream: true });
          let text = "";
          await assert.rejects(async () => {
            for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
          });
          if (name !== "no_done") assert.notEqual(text, "");
        });
      }

      test("is read whatever the pieces are in which its stream comes", async () => {
        for (const shape of [{ split: 1 }, { split: 7 }, { whole: 1 }]) {
          const stream = await create({ messages: ask({ text: "näïve 你好 one two", ...shape }), stream: true });
          let text = "";
          for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
          assert.equal(text, "näïve 你好 one two", JSON.stringify(shape));
        }
      });

      test("is left when the caller leaves", async () => {
        const tag = freshId();
        const stream = await create({ messages: ask({ tag, chunks: 1000, gap_ms: 40 }), stream: true });
        for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
        const entry = await upstreamEnded(mock, tag, "client_disconnected", { timeout: 5000 });
        assert.ok(entry.chunks_sent < 200);
      });

      test(`is asked as ${upstream_model} under the credential of its provider`, async () => {
        const tag = freshId();
        await create({ messages: ask({ tag }) });
        const entry = await received(mock, tag);
        assert.equal(JSON.stringify(entry.headers).includes(at.key), false);
        assert.equal(entry.status, 200);
      });
    });
  }

  test("Workers AI answers in a form of its own, too", async () => {
    const create = (name, more) => openai.chat.completions.create({ model: `own-${name}`, messages: ask(), ...more });
    const { choices, usage } = await create("whole");
    assert.deepEqual([choices[0].message.content, choices[0].finish_reason], ["one two", "stop"]);
    assert.deepEqual([usage.prompt_tokens, usage.completion_tokens], [4, 2]);
    const chunks = await Array.fromAsync(await create("stream", { stream: true }));
    assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), "one two");
    assert.equal(chunks.findLast((chunk) => chunk.choices[0]?.finish_reason).choices[0].finish_reason, "stop");
    const [called] = (await create("call", { tools })).choices;
    assert.deepEqual([called.message.tool_calls[0].function, called.finish_reason], [{ name: "get_time", arguments: '{"zone":"UTC"}' }, "tool_calls"]);
    await assert.rejects(create("thrown"), (error) => error.status === 404 && error.code === "model_not_found");
  });
});

test("without the binding a model of Workers AI is the operator's business", async () => {
  const models = { bound: { provider: "workers-ai", upstream_model: "@cf/a/b" } };
  const at = await start({ config: config({ providers: { "workers-ai": MORE["workers-ai"] }, models }) });
  try {
    const openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
    await assert.rejects(openai.chat.completions.create({ model: "bound", messages: ask() }), (error) => {
      assert.deepEqual([error.status, error.code], [503, "provider_misconfigured"]);
      return true;
    });
  } finally {
    await at.stop();
  }
});

test("no line of the log has a secret in it", assertNothingLeaked);
