// The official `@anthropic-ai/sdk` package against models whose providers do not speak Messages.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { PIXEL, TEXT, clock, max_tokens, schema, weather } from "./anthropic.mjs";
import {
  HEALTH,
  MOCK,
  PROVIDER_SECRETS,
  ask,
  assertNothingLeaked,
  config,
  directive,
  freshId,
  journalOf,
  logOf,
  received,
  send,
  start,
  tokens,
} from "./support.mjs";

describe("the @anthropic-ai/sdk package, answered by an OpenAI-like provider", { concurrency: 4 }, () => {
  const model = "gpt-test";
  let at, mock, gateway, anthropic;

  before(async () => {
    at = await start();
    ({ mock, gateway } = at);
    anthropic = new Anthropic({ baseURL: at.url, apiKey: at.key, maxRetries: 0 });
  });

  after(() => at?.stop());

  /** What the provider was sent. */
  const upstream = async (tag) => JSON.parse((await received(mock, tag)).body);

  // === Messages ===

  test("gets an answer", async () => {
    const tag = freshId();
    const system = [
      { type: "text", text: "Be brief.", cache_control: { type: "ephemeral" } },
      { type: "text", text: "Be kind." },
    ];
    const message = await anthropic.messages.create(
      { model, max_tokens, system, messages: ask({ tag, text: TEXT, usage_in: 12, usage_out: 7, cached: 5 }) },
      { headers: { "x-request-id": tag } },
    );
    assert.deepEqual([message.type, message.role, message.model], ["message", "assistant", model]);
    assert.match(message.id, /^msg_/);
    assert.deepEqual(message.content, [{ type: "text", text: TEXT }]);
    assert.deepEqual([message.stop_reason, message.stop_sequence], ["end_turn", null]);
    const { input_tokens, cache_read_input_tokens, output_tokens } = message.usage;
    assert.deepEqual([input_tokens, cache_read_input_tokens, output_tokens], [7, 5, 7]);
    const entry = await received(mock, tag);
    assert.equal(entry.path, "/v1/chat/completions");
    assert.equal(entry.headers.authorization, `Bearer ${PROVIDER_SECRETS.OPENAI_KEY}`);
    assert.deepEqual([entry.headers["x-api-key"], entry.headers["anthropic-version"]], [undefined, undefined]);
    const body = JSON.parse(entry.body);
    assert.equal(body.max_tokens, max_tokens);
    assert.deepEqual(body.messages[0], { role: "system", content: "Be brief.\n\nBe kind." });
    const line = await logOf(gateway, tag);
    assert.deepEqual([line.lane, line.outcome, line.provider], ["translated", "completed", "openai"]);
    assert.deepEqual(tokens(line.usage), { input: 12, output: 7 });
  });

  test("is told no usage that nobody told", async () => {
    for (const stream of [false, true]) {
      const messages = ask({ no_usage: 1 });
      const message = stream
        ? await anthropic.messages.stream({ model, max_tokens, messages }).finalMessage()
        : await anthropic.messages.create({ model, max_tokens, messages });
      assert.deepEqual(message.usage, { input_tokens: 0, output_tokens: 0 });
    }
  });

  // === Tools ===

  for (const streamed of [false, true]) {
    test(`calls tools at once and takes their results${streamed ? ", streamed" : ""}`, async () => {
      const get = (body) =>
        streamed ? anthropic.messages.stream(body).finalMessage() : anthropic.messages.create(body);
      const tag = freshId();
      const tools = [weather, clock];
      const messages = [{ role: "user", content: `What is the weather? ${directive({ tools: 2 })}` }];
      const first = await get({ model, max_tokens, messages, tools });
      assert.equal(first.stop_reason, "tool_use");
      const calls = first.content.filter(({ type }) => type === "tool_use");
      assert.deepEqual(
        calls.map(({ name, input }) => [name, Object.keys(input)]),
        [
          ["get_weather", ["city"]],
          ["get_time", ["zone"]],
        ],
      );
      messages.push({ role: "assistant", content: first.content });
      const results = calls.map(({ id }) => ({ type: "tool_result", tool_use_id: id, content: "sunny" }));
      messages.push({ role: "user", content: [...results, { type: "text", text: `And? ${directive({ tag })}` }] });
      const second = await get({ model, max_tokens, messages, tools });
      assert.equal(second.stop_reason, "end_turn");
      const sent = await upstream(tag);
      assert.deepEqual(
        sent.messages.map(({ role }) => role),
        ["user", "assistant", "tool", "tool", "user"],
      );
      assert.deepEqual(
        sent.messages[1].tool_calls.map(({ id }) => id),
        sent.messages.slice(2, 4).map(({ tool_call_id }) => tool_call_id),
      );
    });
  }

  test("streams the input of a tool that it must call in pieces", async () => {
    const tag = freshId();
    const pieces = [];
    const stream = anthropic.messages
      .stream({
        model,
        max_tokens,
        messages: ask({ tag }),
        tools: [weather],
        tool_choice: { type: "tool", name: "get_weather", disable_parallel_tool_use: true },
      })
      .on("inputJson", (piece) => pieces.push(piece));
    const message = await stream.finalMessage();
    const [call] = message.content.filter(({ type }) => type === "tool_use");
    assert.equal(typeof call.input.city, "string");
    assert.deepEqual(JSON.parse(pieces.join("")), call.input);
    assert.ok(pieces.length > 1);
    const sent = await upstream(tag);
    assert.deepEqual(sent.tool_choice, { type: "function", function: { name: "get_weather" } });
    assert.equal(sent.parallel_tool_calls, false);
  });

  test("gives pictures as results, and they follow them", async () => {
    const tag = freshId();
    const source = { type: "base64", media_type: "image/png", data: PIXEL };
    const messages = [
      { role: "user", content: "Look." },
      { role: "assistant", content: [{ type: "tool_use", id: "toolu_1", name: "get_weather", input: { city: "X" } }] },
      {
        role: "user",
        content: [
          {
            type: "tool_result",
            tool_use_id: "toolu_1",
            content: [
              { type: "text", text: "A picture." },
              { type: "image", source },
            ],
          },
          { type: "text", text: directive({ tag }) },
        ],
      },
    ];
    await anthropic.messages.create({ model, max_tokens, messages, tools: [weather] });
    const sent = (await upstream(tag)).messages;
    const result = sent.find(({ role }) => role === "tool");
    assert.deepEqual([result.tool_call_id, result.content], ["toolu_1", "A picture."]);
    const [shown] = sent[sent.indexOf(result) + 1].content;
    assert.equal(shown.image_url.url, `data:image/png;base64,${PIXEL}`);
  });

  // === What else a request may have ===

  test("answers in the form of a JSON schema", async () => {
    const tag = freshId();
    const output_config = { format: { type: "json_schema", schema } };
    const message = await anthropic.messages.create({ model, max_tokens, messages: ask({ tag }), output_config });
    const answer = JSON.parse(message.content[0].text);
    assert.ok(Number.isInteger(answer.minutes) && typeof answer.title === "string");
    assert.deepEqual((await upstream(tag)).response_format.json_schema.schema, schema);
  });

  for (const [kind, source, url] of [
    ["inline", { type: "base64", media_type: "image/png", data: PIXEL }, `data:image/png;base64,${PIXEL}`],
    ["by its address", { type: "url", url: "https://pictures.example/cat.png" }, "https://pictures.example/cat.png"],
  ]) {
    test(`looks at a picture given ${kind}`, async () => {
      const tag = freshId();
      const content = [
        { type: "image", source },
        { type: "text", text: `What is this? ${directive({ tag })}` },
      ];
      const message = await anthropic.messages.create({ model, max_tokens, messages: [{ role: "user", content }] });
      assert.match(message.content[0].text, /image|picture/i);
      assert.equal((await upstream(tag)).messages[0].content[0].image_url.url, url);
    });
  }

  for (const streamed of [false, true]) {
    test(`shows the model's thoughts and takes them back${streamed ? ", streamed" : ""}`, async () => {
      const tag = freshId();
      const get = (body) =>
        streamed ? anthropic.messages.stream(body).finalMessage() : anthropic.messages.create(body);
      const messages = ask({ reasoning: 9, reasoning_content: 1, text: TEXT });
      const message = await get({ model, max_tokens, messages });
      const [thought, text] = message.content;
      assert.equal(thought.type, "thinking");
      assert.notEqual(thought.thinking, "");
      assert.deepEqual(text, { type: "text", text: TEXT });
      messages.push({ role: "assistant", content: message.content });
      messages.push({ role: "user", content: `Go on. ${directive({ tag })}` });
      const again = await get({ model, max_tokens, messages });
      assert.equal(again.stop_reason, "end_turn");
      // The provider takes no reasoning back, so the answer alone goes to it.
      assert.deepEqual((await upstream(tag)).messages[1], { role: "assistant", content: TEXT });
    });
  }

  test("is told which parameters the provider does not have", async () => {
    const { response } = await anthropic.messages
      .create({ model, max_tokens, messages: ask(), context_management: { edits: [{ type: "x" }] }, inference_geo: "us" })
      .withResponse();
    const dropped = response.headers.get("x-gateway-dropped-params").split(", ").sort();
    assert.deepEqual(dropped, ["context_management", "inference_geo"]);
  });

  // === Errors ===

  test("is refused by a 400 that names the place in its own names", async () => {
    const refused = async (body) => {
      const tag = freshId();
      const error = await anthropic.messages
        .create({ model, max_tokens, messages: ask({ tag }), ...body })
        .catch((error) => error);
      assert.ok(error instanceof Anthropic.BadRequestError, `${error}`);
      assert.equal(error.error.error.type, "invalid_request_error");
      assert.deepEqual(await journalOf(mock, tag), []);
      return error.error.error.message;
    };
    const user = (block) => ({ messages: [{ role: "user", content: [block] }] });
    assert.match(await refused({ max_tokens: undefined }), /^max_tokens: Field required/);
    assert.match(await refused({ thinking: { type: "enabled" } }), /^thinking\.budget_tokens: /);
    assert.match(await refused(user({ type: "image_url" })), /^messages\[0\]\.content\[0\]\.type: /);
    const uploaded = user({ type: "image", source: { type: "file", file_id: "file_1" } });
    assert.match(await refused(uploaded), /^messages\[0\]\.content\[0\]: /);
    const computer = { type: "computer_20250124", name: "computer", display_width_px: 1, display_height_px: 1 };
    assert.match(await refused({ tools: [computer] }), /^tools\[0\]\.type: /);
    const servers = [{ type: "url", url: "https://mcp.example", name: "x" }];
    assert.match(await refused({ mcp_servers: servers }), /^mcp_servers: /);
    const broken = await send({
      url: `${at.url}/v1/messages`,
      method: "POST",
      headers: { "content-type": "application/json", "x-api-key": at.key },
      body: `{"model":"${model}","max_tokens":9,"messages":[}`,
    });
    assert.deepEqual([broken.status, broken.json.error.type], [400, "invalid_request_error"]);
  });

});

test("markers of what is worth caching reach the newest of OpenAI's models, by either API", async () => {
  const provider = { dialect: "openai", base_url: `${MOCK}/v1`, credential: "OPENAI_KEY", health: HEALTH };
  const providers = { chat: provider, responses: { ...provider, wires: ["responses"] } };
  const models = Object.fromEntries(
    ["chat", "responses"].flatMap((provider) => ["gpt-5.5", "gpt-5.6"].map((upstream_model) => [`${provider}-${upstream_model}`, { provider, upstream_model }])),
  );
  const at = await start({ config: config({ providers, models }) });
  try {
    const anthropic = new Anthropic({ baseURL: at.url, apiKey: at.key, maxRetries: 0 });
    const cache_control = { type: "ephemeral" };
    for (const model of Object.keys(models)) {
      const tag = freshId();
      const [{ content }] = ask({ tag, text: TEXT });
      const messages = [{ role: "user", content: [{ type: "text", text: content, cache_control }] }];
      const system = [{ type: "text", text: "Be brief.", cache_control }];
      const { data, response } = await anthropic.messages.create({ model, max_tokens, system, messages }).withResponse();
      assert.equal(data.content[0].text, TEXT);
      const { body } = await received(at.mock, tag);
      const is_newest = model.endsWith("5.6");
      assert.equal(body.split('"prompt_cache_breakpoint":{"mode":"explicit"}').length - 1, is_newest ? 2 : 0, body);
      assert.equal(response.headers.get("x-gateway-dropped-params"), is_newest ? null : "cache_control");
    }
  } finally {
    await at.stop();
  }
});

test("no line of the log has a secret in it", assertNothingLeaked);
