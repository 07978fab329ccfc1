// Every preset against the mock provider as that provider is: what it refuses, the mock refuses, and what its replies
// have of their own, the mock's have.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { HEALTH, MOCK, ask, assertNothingLeaked, config, directive, freshId, logOf, received, start, tokens } from "./support.mjs";

const TEXT = "one two three four five";

const tool = (more) => {
  const parameters = { properties: { city: { type: "string" } }, ...more };
  return { type: "function", function: { name: "get_weather", parameters } };
};
const tools = [tool({ type: "object" })];
const schema = { type: "json_schema", json_schema: { name: "it", schema: { type: "object", properties: {} } } };

/** What everybody is asked; the row says what of it arrives. */
const EVERYTHING = {
  max_completion_tokens: 50,
  seed: 7,
  stop: ["STOP"],
  frequency_penalty: 0.5,
  user: "user-12345",
  service_tier: "default",
};

/**
 * Rows: the model; `dropped` of [`EVERYTHING`], and `sent` of it in the provider's words (undefined: not sent); what a
 * wish for reasoning becomes (`effort`); a request that must go through (`odd`) or be refused at a place (`refused`); an
 * error and its class.
 */
const ROWS = {
  openai: { model: "gpt-4o", sent: { seed: 7, max_completion_tokens: 50 } },
  "bedrock-mantle": { model: "openai.gpt-oss-120b", sent: { seed: 7 } },
  mistral: {
    model: "mistral-medium-3.5",
    dropped: "user, service_tier",
    sent: { random_seed: 7, seed: undefined, max_tokens: 50, max_completion_tokens: undefined, stop: ["STOP"] },
    effort: { reasoning_effort: "high" },
    odd: {
      logprobs: false,
      tools: [],
      messages: [
        { role: "developer", content: "d" },
        { role: "user", content: "u", name: "ann" },
        { role: "assistant", content: "so", refusal: null, annotations: [] },
      ],
    },
    oddDropped: "messages[].name",
    refused: [{ logit_bias: { 1: 2 } }, "logit_bias"],
  },
  deepseek: {
    model: "deepseek-v4",
    sent: { max_tokens: 50, seed: 7 },
    effort: { reasoning_effort: "high" },
    odd: { messages: [{ role: "developer", content: "d" }, ...ask()], tools, tool_choice: "required", response_format: schema },
    oddDropped: "tool_choice, response_format",
  },
  groq: {
    model: "qwen/qwen3-32b",
    sent: { seed: 7, max_completion_tokens: 50 },
    effort: { reasoning_effort: "default" },
    odd: { n: 1, top_k: 3, messages: [{ role: "user", content: "u", name: "ann" }] },
    oddDropped: "top_k, messages[].name",
    refused: [{ logprobs: true }, "logprobs"],
  },
  xai: {
    model: "grok-4.5",
    dropped: "frequency_penalty, stop",
    sent: { seed: 7, stop: undefined },
    effort: { reasoning_effort: "high" },
    odd: { reasoning_effort: "none" },
    error: [429, 429, "rate_limited"],
  },
  openrouter: { model: "openai/gpt-5", effort: { reasoning: { effort: "high" } }, error: [402, 502, "quota_exhausted"] },
  together: { model: "meta-llama/llama-4", sent: { max_tokens: 50 }, odd: { logprobs: true } },
  fireworks: { model: "accounts/fireworks/models/llama", sent: { max_tokens: 50 } },
  perplexity: {
    model: "sonar-reasoning",
    toolless: true,
    dropped: "seed, stop",
    sent: { max_tokens: 50 },
    odd: { messages: [{ role: "user", content: "a" }, { role: "user", content: "b" }, { role: "assistant", content: "c" }] },
    refused: [{ tools }, "tools"],
  },
  moonshot: {
    model: "kimi-k2.5",
    dropped: "frequency_penalty",
    sent: { max_tokens: 50 },
    effort: { thinking: { type: "enabled" } },
    odd: { temperature: 0.3, tools: [tool({ $schema: "http://json-schema.org/draft-07/schema#" })] },
    oddDropped: "temperature",
    error: [503, 503, "overloaded"],
  },
  zhipu: {
    model: "glm-5.3",
    sent: { max_tokens: 50, user_id: "user-12345", user: undefined },
    effort: { reasoning_effort: "high" },
    odd: { messages: [{ role: "system", content: "s" }], tools, tool_choice: "required" },
    oddDropped: "tool_choice",
    error: [402, 502, "quota_exhausted"],
  },
  zai: { model: "glm-4.6", effort: { thinking: { type: "enabled" } }, error: [429, 429, "rate_limited"] },
  dashscope: {
    model: "qwen3-32b",
    dropped: "frequency_penalty",
    sent: { max_tokens: 50, enable_thinking: false },
    odd: { response_format: { type: "json_object" }, reasoning_effort: "high" },
    oddDropped: "reasoning_effort",
    refused: [
      { messages: [{ role: "user", content: [{ type: "file", file: { file_data: "data:," } }] }] },
      "messages[0].content[0].file",
    ],
  },
  qianfan: {
    model: "ernie-5.0",
    sent: { max_completion_tokens: 50 },
    odd: { temperature: 0 },
    oddDropped: "temperature=0.01",
    error: [429, 429, "rate_limited"],
  },
  cerebras: {
    model: "gpt-oss-120b",
    dropped: "frequency_penalty, service_tier",
    odd: { parallel_tool_calls: false, tools },
    oddDropped: "parallel_tool_calls",
    refused: [{ logit_bias: { 1: 1 } }, "logit_bias"],
  },
  huggingface: { model: "meta-llama/llama-4" },
  ollama: {
    model: "llama4",
    dropped: "user",
    odd: { tools, tool_choice: "none" },
    refused: [
      { messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "https://a.example/a.png" } }] }] },
      "messages[0].content[0].image_url.url",
    ],
  },
  vllm: { model: "llama4", odd: { top_k: 4, guided_json: {} }, error: [404, 404, "model_not_found"] },
  lmstudio: {
    model: "llama4",
    odd: { tools, tool_choice: { type: "function", function: { name: "get_weather" } } },
    error: [500, 500, "server_error"],
  },
  workersai: { model: "@cf/meta/llama-4", error: [429, 502, "quota_exhausted"] },
};

const provider = (preset) => ({ preset, base_url: preset === "openai" ? `${MOCK}/v1` : `${MOCK}/p/${preset}/v1`, credential: "OPENAI_KEY", health: HEALTH });

describe("presets", () => {
  let at, url;

  before(async () => {
    const providers = {
      ...Object.fromEntries(Object.keys(ROWS).map((preset) => [preset, provider(preset)])),
      azure: { ...provider("azure"), base_url: `${MOCK}/p/azure/openai/v1` },
      deployments: { ...provider("azure"), base_url: `${MOCK}/p/azure`, api_version: "2024-10-21" },
    };
    const models = {
      ...Object.fromEntries(Object.entries(ROWS).map(([preset, { model }]) => [preset, { provider: preset, upstream_model: model }])),
      azure: { provider: "azure", upstream_model: "gpt-4o" },
      deployment: { provider: "deployments", upstream_model: "our-gpt" },
      missing: { provider: "deployments", upstream_model: "missing" },
      voiceless: { provider: "perplexity", upstream_model: "sonar" },
    };
    at = await start({ config: config({ providers, models }) });
    url = `${at.url}/v1`;
  });

  after(() => at?.stop());

  /** Asks; the reply's body is JSON or the list of a stream's chunks. */
  async function call(model, body, path = "/chat/completions") {
    const tag = freshId();
    const reply = await fetch(`${url}${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${at.key}`, "content-type": "application/json", "x-request-id": tag },
      body: JSON.stringify({ model, ...body }),
    });
    const text = await reply.text();
    const isStream = reply.headers.get("content-type")?.startsWith("text/event-stream");
    const events = () => text.split("\n\n").map((event) => event.replace(/^(event: .*\n)?data: /, "")).filter((data) => data.startsWith("{"));
    const json = isStream ? events().map((data) => JSON.parse(data)) : JSON.parse(text);
    return { tag, status: reply.status, json, dropped: reply.headers.get("x-gateway-dropped-params"), text };
  }

  /** What the provider was sent, of a request whose directives have a tag. */
  const sentTo = async (tag) => JSON.parse((await received(at.mock, tag)).body);

  const textOf = (chunks) => chunks.map((chunk) => chunk.choices?.[0]?.delta?.content ?? "").join("");

  for (const [preset, row] of Object.entries(ROWS)) {
    describe(preset, { concurrency: 4 }, () => {
      test("answers, and gets what it takes of everything that OpenAI does", async () => {
        const tag = freshId();
        const messages = ask({ tag, text: TEXT, usage_in: 12, usage_out: 7 });
        const { status, json, dropped, text, tag: id } = await call(preset, { messages, ...EVERYTHING });
        assert.equal(status, 200, text);
        assert.equal(json.choices[0].message.content.replace(/^<think>.*<\/think>\s*/s, ""), TEXT);
        assert.equal(dropped, row.dropped ?? null);
        const sent = await sentTo(tag);
        assert.equal(sent.model, row.model);
        for (const [name, value] of Object.entries(row.sent ?? {})) assert.deepEqual(sent[name], value, name);
        assert.deepEqual(tokens((await logOf(at.gateway, id)).usage), { input: 12, output: 7 });
      });

      test("streams, and its usage is known", async () => {
        const messages = ask({ text: TEXT, usage_in: 12, usage_out: 7 });
        const { json, tag, text } = await call(preset, { messages, stream: true });
        assert.equal(textOf(json).replace(/^<think>.*<\/think>\s*/s, ""), TEXT, text);
        const line = await logOf(at.gateway, tag);
        assert.deepEqual(tokens(line.usage), { input: 12, output: 7 });
        assert.equal(line.outcome, "completed");
      });

      test("is spoken to by callers of Messages", async () => {
        const messages = ask({ text: TEXT, reasoning: 3 });
        const asked = { messages, max_tokens: 500, system: "Be kind.", stop_sequences: ["STOP"] };
        const { status, json, text } = await call(preset, asked, "/messages");
        assert.equal(status, 200, text);
        assert.equal(json.content.find(({ type }) => type === "text").text, TEXT);
        const budget = { thinking: { type: "enabled", budget_tokens: 1024 } };
        const thought = await call(preset, { ...asked, ...budget, max_tokens: 3000, stream: true }, "/messages");
        assert.equal(thought.status, 200, thought.text);
        assert.equal(thought.json.at(-1).type, "message_stop");
      });

      if (!row.toolless) {
        test("calls tools and takes their results, in its own dialect and in translation", async () => {
          const question = { role: "user", content: `What is the weather? ${directive({ tools: 1 })}` };
          const first = await call(preset, { messages: [question], tools });
          assert.equal(first.status, 200, first.text);
          const { message } = first.json.choices[0];
          assert.equal(message.tool_calls[0].function.name, "get_weather");
          const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "it is sunny" };
          const follow = { role: "user", content: `Thanks. ${directive({ text: TEXT })}` };
          // Also the calls of another provider, whose ids look otherwise and whose reasoning is not known here.
          const call_id = "call_0123456789abcdef";
          const theirs = { role: "assistant", content: null, tool_calls: [{ ...message.tool_calls[0], id: call_id }] };
          for (const history of [[message, result], [theirs, { ...result, tool_call_id: call_id }]]) {
            const second = await call(preset, { messages: [question, ...history, follow], tools });
            assert.equal(second.status, 200, second.text);
            assert.equal(second.json.choices[0].message.content, TEXT);
          }
          const messages = [
            { role: "user", content: "What is the weather?" },
            { role: "assistant", content: [{ type: "tool_use", id: "toolu_01", name: "get_weather", input: {} }] },
            { role: "user", content: [{ type: "tool_result", tool_use_id: "toolu_01", content: "sunny" }, { type: "text", text: follow.content }] },
          ];
          const input_schema = { type: "object", properties: {} };
          const third = await call(preset, { messages, max_tokens: 500, tools: [{ name: "get_weather", input_schema }] }, "/messages");
          assert.equal(third.status, 200, third.text);
        });
      }

      test("is told how much to think in its own words", { skip: !row.effort }, async () => {
        const tag = freshId();
        const { status, dropped, text } = await call(preset, { messages: ask({ tag, reasoning: 2 }), reasoning_effort: "high" });
        assert.equal(status, 200, text);
        assert.equal(dropped, null);
        const sent = await sentTo(tag);
        for (const [name, value] of Object.entries(row.effort)) assert.deepEqual(sent[name], value, name);
      });

      test("takes what it would refuse of OpenAI's", { skip: !row.odd }, async () => {
        const { status, dropped, text } = await call(preset, { messages: ask(), ...row.odd });
        assert.equal(status, 200, text);
        assert.equal(dropped, row.oddDropped ?? null);
      });

      test("refuses by name what cannot be left out", { skip: !row.refused }, async () => {
        const [body, param] = row.refused;
        const { status, json } = await call(preset, { messages: ask(), ...body });
        assert.deepEqual([status, json.error.param], [400, param]);
      });

      test("has its errors told apart", async () => {
        const [status, told, fault] = row.error ?? [429, 429, "rate_limited"];
        const { tag, status: seen, json } = await call(preset, { messages: ask({ status }) });
        assert.equal(seen, told, JSON.stringify(json));
        assert.equal(typeof (json.error.message ?? json.error), "string");
        assert.equal((await logOf(at.gateway, tag)).tried.at(-1).outcome, fault);
      });

      test("never has a stream taken for complete that ends by an error", async () => {
        const { json, tag } = await call(preset, { messages: ask({ chunks: 8, error_at: 3 }), stream: true });
        assert.ok(json.some((chunk) => chunk.error || chunk.object === "error" || chunk.errors), JSON.stringify(json.at(-1)));
        assert.notEqual((await logOf(at.gateway, tag)).outcome, "completed");
      });
    });
  }

  describe("azure", () => {
    for (const [model, path] of [
      ["azure", "/p/azure/openai/v1/chat/completions"],
      ["deployment", "/p/azure/openai/deployments/our-gpt/chat/completions?api-version=2024-10-21"],
    ]) {
      test(`is called at ${path}, by its own header`, async () => {
        for (const stream of [false, true]) {
          const tag = freshId();
          const reply = await call(model, { messages: ask({ tag, text: TEXT, usage_in: 12, usage_out: 7 }), stream });
          assert.equal(reply.status, 200, reply.text);
          assert.equal(stream ? textOf(reply.json) : reply.json.choices[0].message.content, TEXT);
          const entry = await received(at.mock, tag);
          assert.deepEqual([entry.path, entry.headers.authorization], [path, undefined]);
          assert.equal(typeof entry.headers["api-key"], "string");
          assert.deepEqual(tokens((await logOf(at.gateway, reply.tag)).usage), { input: 12, output: 7 });
        }
        const translated = await call(model, { messages: ask({ text: TEXT }), max_tokens: 50, stream: true }, "/messages");
        assert.equal(translated.json.at(-1).type, "message_stop", translated.text);
        const responses = await call(model, { input: "Hello." }, "/responses");
        assert.deepEqual([responses.status, responses.json.status], [200, "completed"], responses.text);
      });

      test("has its content filter recognised", async () => {
        const { status, json } = await call(model, { messages: ask({ block: 1 }) });
        assert.deepEqual([status, json.error.code], [400, "content_filter"]);
      });
    }

    test("tells of a deployment that does not exist", async () => {
      const { status, json } = await call("missing", { messages: ask() });
      assert.deepEqual([status, json.error.code], [404, "DeploymentNotFound"]);
      const translated = await call("missing", { messages: ask(), max_tokens: 5 }, "/messages");
      assert.deepEqual([translated.status, translated.json.error.type], [404, "not_found_error"]);
    });
  });

  test("what Qianfan withholds is told as a content filter", async () => {
    const { json } = await call("qianfan", { messages: ask({ block: 1 }), max_tokens: 50 }, "/messages");
    assert.equal(json.stop_reason, "refusal");
  });

  test("Perplexity's thoughts and sources are told as what they are", async () => {
    const messages = ask({ text: TEXT, reasoning: 3, citations: 2 });
    const { json, text } = await call("perplexity", { messages, max_tokens: 50 }, "/messages");
    assert.equal(json.content.at(-1).text, TEXT, text);
    assert.equal(json.content[0].type, "thinking", text);
  });
});

test("no line of the log has a secret in it", assertNothingLeaked);
