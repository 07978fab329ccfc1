// The official `@anthropic-ai/sdk` package against the gateway, used as its users use it.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { PIXEL, TEXT, max_tokens, schema } from "./anthropic.mjs";
import {
  PROVIDER_SECRETS,
  ask,
  assertNothingLeaked,
  directive,
  eventually,
  freshId,
  journalOf,
  logOf,
  received,
  send,
  start,
  tokens,
  upstreamEnded,
} from "./support.mjs";

const model = "claude-test";

describe("the @anthropic-ai/sdk package", { concurrency: 4 }, () => {
  let at, mock, gateway, anthropic;

  before(async () => {
    at = await start();
    ({ mock, gateway } = at);
    anthropic = new Anthropic({ baseURL: at.url, apiKey: at.key, maxRetries: 0 });
  });

  after(() => at?.stop());

  // === Messages ===

  test("gets an answer", async () => {
    const tag = freshId();
    const message = await anthropic.messages.create(
      { model, max_tokens, system: "Be brief.", messages: ask({ tag, text: TEXT, usage_in: 12, usage_out: 7 }) },
      { headers: { "x-request-id": tag } },
    );
    assert.equal(message.type, "message");
    assert.deepEqual(message.content, [{ type: "text", text: TEXT }]);
    assert.deepEqual([message.role, message.stop_reason], ["assistant", "end_turn"]);
    assert.deepEqual([message.usage.input_tokens, message.usage.output_tokens], [12, 7]);
    const entry = await received(mock, tag);
    assert.equal(entry.path, "/v1/messages");
    assert.equal(entry.headers["x-api-key"], PROVIDER_SECRETS.ANTHROPIC_KEY);
    assert.equal(entry.headers.authorization, undefined);
    assert.equal(JSON.parse(entry.body).system, "Be brief.");
    const line = await logOf(gateway, tag);
    assert.deepEqual(
      [line.lane, line.outcome, line.model, line.provider, line.upstream_model],
      ["native", "completed", model, "anthropic", "mock-claude"],
    );
    assert.deepEqual(tokens(line.usage), { input: 12, output: 7 });
  });

  // === What else a request may have ===

  test("answers in the form of a JSON schema", async () => {
    const tag = freshId();
    const body = {
      model,
      max_tokens,
      messages: ask({ tag }, "A recipe."),
      output_config: { format: { type: "json_schema", schema } },
    };
    const message = await anthropic.messages.create(body);
    const answer = JSON.parse(message.content[0].text);
    assert.ok(Number.isInteger(answer.minutes) && typeof answer.title === "string");
    assert.deepEqual(JSON.parse((await received(mock, tag)).body).output_config, body.output_config);
  });

  for (const [kind, source] of [
    ["inline", { type: "base64", media_type: "image/png", data: PIXEL }],
    ["by its address", { type: "url", url: "https://pictures.example/cat.png" }],
  ]) {
    test(`looks at a picture given ${kind}`, async () => {
      const tag = freshId();
      const content = [
        { type: "image", source },
        { type: "text", text: `What is this? ${directive({ tag })}` },
      ];
      const message = await anthropic.messages.create({ model, max_tokens, messages: [{ role: "user", content }] });
      assert.match(message.content[0].text, /image|picture/i);
      assert.deepEqual(JSON.parse((await received(mock, tag)).body).messages[0].content[0].source, source);
    });
  }

  test("writes to and reads from the prompt cache, and the log tells them apart", async () => {
    const system = [
      { type: "text", text: `${"A long instruction. ".repeat(300)}${freshId()}`, cache_control: { type: "ephemeral" } },
    ];
    const usages = [];
    for (const tag of [freshId(), freshId()]) {
      const message = await anthropic.messages.create(
        { model, max_tokens, system, messages: ask({ tag }) },
        { headers: { "x-request-id": tag } },
      );
      usages.push([message.usage, (await logOf(gateway, tag)).usage]);
    }
    const [[written, writtenInLog], [read, readInLog]] = usages;
    assert.ok(written.cache_creation_input_tokens > 1000);
    assert.equal(writtenInLog.cache_write_5m + writtenInLog.cache_write_1h, written.cache_creation_input_tokens);
    assert.equal(writtenInLog.input, written.input_tokens);
    assert.equal(read.cache_read_input_tokens, written.cache_creation_input_tokens);
    assert.equal(readInLog.cache_read, read.cache_read_input_tokens);
  });

  test("passes beta features on", async () => {
    const tag = freshId();
    await anthropic.beta.messages.create({
      model,
      max_tokens,
      messages: ask({ tag }),
      betas: ["context-management-2025-06-27", "fast-mode"],
      context_management: { edits: [] },
    });
    const entry = await received(mock, tag);
    assert.match(entry.headers["anthropic-beta"], /context-management-2025-06-27,\s*fast-mode/);
    assert.deepEqual(JSON.parse(entry.body).context_management, { edits: [] });
  });

  test("passes the API version on that it was written for", async () => {
    for (const version of ["2023-06-01", "2026-10-21"]) {
      const tag = freshId();
      const options = { headers: { "anthropic-version": version } };
      await anthropic.messages.create({ model, max_tokens, messages: ask({ tag }) }, options);
      assert.equal((await received(mock, tag)).headers["anthropic-version"], version);
    }
  });

  test("passes what the gateway does not know on byte for byte, so that the provider judges it", async () => {
    const tag = freshId();
    const body = `{ "max_tokens":64 ,\t"model" : "claude-test","future_field": {"b":1.50, "a":[ ]},
      "messages":[{"role":"user","content":"\\u0068i ${directive({ tag })}"}] }`;
    const reply = await send({
      url: `${at.url}/v1/messages`,
      method: "POST",
      headers: { "content-type": "application/json", "x-api-key": at.key, "anthropic-version": "2023-06-01" },
      body,
    });
    // The mock provider refuses unknown fields as the API does, and in its words.
    assert.equal(reply.status, 400);
    assert.match(reply.json.error.message, /future_field/);
    const [entry] = await journalOf(mock, tag);
    assert.equal(entry.body, body.replace('"claude-test"', '"mock-claude"'));
  });

  test("counts tokens, or is told that the gateway does not", async () => {
    const counted = await anthropic.messages.countTokens({ model, messages: ask() }).catch((error) => error);
    if (counted instanceof Error) assert.ok(counted instanceof Anthropic.NotFoundError, `${counted}`);
    else assert.ok(counted.input_tokens > 0);
  });

  // === Leaving ===

  for (const [what, stream, wait] of [
    ["an unstreamed answer", false, { ttfb_ms: 20_000 }],
    ["the head of a stream", true, { ttfb_ms: 20_000 }],
    ["the first event", true, { first_chunk_ms: 20_000 }],
  ]) {
    test(`gives up before ${what}, and the provider stops`, async () => {
      const tag = freshId();
      const leave = new AbortController();
      const behindEdge = new Anthropic({ baseURL: gateway.edgeUrl, apiKey: at.key, maxRetries: 0 });
      const reading = async () => {
        const answer = await behindEdge.messages.create(
          { model, max_tokens, messages: ask({ tag, ...wait }), stream },
          { signal: leave.signal, headers: { "x-request-id": tag } },
        );
        if (stream) for await (const _ of answer);
      };
      // A stream whose head has come ends without an error when its own caller aborts it.
      const gone = reading().catch((error) => assert.ok(error instanceof Anthropic.APIUserAbortError, `${error}`));
      await eventually(async () => (await journalOf(mock, tag)).length === 1, "the provider has the request");
      leave.abort();
      await gone;
      await upstreamEnded(mock, tag, "client_disconnected", { timeout: 5000 });
      assert.equal((await logOf(gateway, tag)).outcome, "client_closed");
    });
  }

  // === Errors ===

  test("gets errors of the gateway's own in its shape, with the request id", async () => {
    const tag = freshId();
    const options = { headers: { "x-request-id": tag } };
    const unknown = await anthropic.messages
      .create({ model: "claude-nothing", max_tokens, messages: ask() }, options)
      .catch((e) => e);
    assert.ok(unknown instanceof Anthropic.NotFoundError);
    assert.equal(unknown.requestID, tag);
    assert.deepEqual(
      [unknown.error.type, unknown.error.error.type, unknown.error.request_id],
      ["error", "not_found_error", tag],
    );
    const stranger = new Anthropic({ baseURL: at.url, apiKey: "sk-ant-nobody", maxRetries: 2 });
    const refused = await stranger.messages.create({ model, max_tokens, messages: ask() }).catch((error) => error);
    assert.ok(refused instanceof Anthropic.AuthenticationError);
    assert.equal(refused.error.error.type, "authentication_error");
    assert.equal(refused.headers.get("x-should-retry"), "false");
    const wrong = await anthropic.messages.create({ model, max_tokens, messages: [] }).catch((error) => error);
    assert.ok(wrong instanceof Anthropic.BadRequestError);
    assert.match(wrong.message, /messages/);
  });

  test("tries again what is worth it, and only that", async () => {
    const patient = new Anthropic({ baseURL: at.url, apiKey: at.key, maxRetries: 2 });
    for (const status of [429, 500, 529]) {
      const tag = freshId();
      const messages = ask({
        tag,
        status,
        fail_times: 2,
        "header.retry-after-ms": 20,
        "header.retry-after": 0,
        text: "at last",
      });
      const message = await patient.messages.create({ model, max_tokens, messages });
      assert.equal(message.content[0].text, "at last");
      assert.equal((await journalOf(mock, tag)).length, 3);
    }
    for (const status of [400, 401, 403, 404]) {
      const tag = freshId();
      await assert.rejects(patient.messages.create({ model, max_tokens, messages: ask({ tag, status }) }));
      assert.equal((await journalOf(mock, tag)).length, 1);
    }
  });

  // === Who calls, and what there is ===

  test("may send its key as a bearer token", async () => {
    const bearer = new Anthropic({ baseURL: at.url, apiKey: null, authToken: at.key, maxRetries: 0 });
    const tag = freshId();
    const message = await bearer.messages.create({ model, max_tokens, messages: ask({ tag }) });
    assert.equal(message.stop_reason, "end_turn");
    const { headers } = await received(mock, tag);
    assert.deepEqual([headers["x-api-key"], headers.authorization], [PROVIDER_SECRETS.ANTHROPIC_KEY, undefined]);
  });

  test("lists the models in Anthropic's shape and looks one up", async () => {
    const page = await anthropic.models.list();
    const ids = page.data.map(({ id }) => id);
    assert.deepEqual(ids, ["claude-test", "gpt-inline", "gpt-loose", "gpt-test"]);
    assert.deepEqual([page.has_more, page.first_id, page.last_id], [false, ids[0], ids.at(-1)]);
    for (const { type, display_name, created_at } of page.data) {
      assert.equal(type, "model");
      assert.notEqual(display_name, "");
      assert.match(created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/, "RFC 3339");
    }
    const found = await anthropic.models.retrieve("claude-test");
    assert.equal(found.id, "claude-test");
    await assert.rejects(anthropic.models.retrieve("claude-nothing"), Anthropic.NotFoundError);
    const all = [];
    for await (const found of anthropic.models.list()) all.push(found.id);
    assert.deepEqual(all, ids);
  });
});

test("no line of the log has a secret in it", assertNothingLeaked);
