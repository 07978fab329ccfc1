// The generic HTTP adapter: a provider that follows nobody's standard, mapped by configuration alone.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import OpenAI from "openai";

import {
  MOCK,
  PROVIDER_SECRETS,
  ask,
  assertBrokenOff,
  assertComplete,
  assertErrorBody,
  assertNothingLeaked,
  config,
  directive,
  eventually,
  freshId,
  journalOf,
  logOf,
  open,
  received,
  requestIn,
  send,
  start,
  startUpstream,
  streamIn,
  tokens,
  upstreamEnded,
} from "./support.mjs";

const TEXT = "one two three four five six seven";

/** How the mock provider's `POST /generate` is mapped. */
const mapping = {
  path: "/generate",
  credential_header: "x-api-key",
  body: {
    engine: "{{model}}",
    prompt: "{{prompt}}",
    settings: { max_length: "{{max_tokens}}", heat: "{{temperature}}" },
    live: "{{stream}}",
  },
  reply: {
    text: "/result/text",
    finish_reason: "/result/why_stopped",
    finish_reasons: { eos: "stop", cut: "length" },
    input_tokens: "/meter/in",
    output_tokens: "/meter/out",
  },
  error_message: "/fault/explanation",
  error_code: "/fault/number",
};

const piecewise = {
  text: "/piece",
  finish_reason: "/end",
  finish_reasons: { eos: "stop", cut: "length" },
  input_tokens: "/meter/in",
  output_tokens: "/meter/out",
};

const FRAMINGS = {
  sse: { framing: "sse", reply: piecewise, done: "[END]", error_message: "/fault/explanation" },
  ndjson: { framing: "ndjson", reply: piecewise, error_message: "/fault/explanation" },
  none: undefined,
};

const provider = (stream, more = {}) => ({
  dialect: "generic",
  base_url: MOCK,
  credential: "ODD_KEY",
  health: { passive: false },
  ...more,
  generic: { ...mapping, ...(stream && { stream }) },
});

describe("a generic provider", () => {
  let at, mock, gateway, openai, upstream;

  before(async () => {
    upstream = await startUpstream((...exchange) => upstream.answer(...exchange));
    at = await start({
      config: config({
        providers: {
          ...Object.fromEntries(Object.entries(FRAMINGS).map(([name, stream]) => [`odd-${name}`, provider(stream)])),
          "odd-hasty": provider(FRAMINGS.ndjson, { timeouts: { idle_ms: 400, first_byte_ms: 400 } }),
          own: {
            dialect: "generic",
            base_url: `${upstream.url}/base`,
            credential: "ODD_KEY",
            headers: { "x-tenant": "tenant-1" },
            generic: {
              path: "/models/{{model}}/run",
              credential_header: "api-key",
              body: {
                system: "{{system}}",
                question: "Q: {{last_user_message}} (for {{user}})",
                turns: "{{messages}}",
                limits: { p: "{{top_p}}", t: "{{temperature}}", stop: "{{stop}}" },
                fixed: [1, "two", true],
                tools: "{{tools}}",
              },
              reply: { text: "/answers/0/text", id: "/id", reasoning: "/thoughts" },
            },
          },
        },
        models: {
          ...Object.fromEntries(
            Object.keys(FRAMINGS).map((name) => [`odd-${name}`, { provider: `odd-${name}`, upstream_model: "odd-1" }]),
          ),
          "odd-hasty": { provider: "odd-hasty", upstream_model: "odd-1" },
          own: { provider: "own", upstream_model: "a/b c" },
        },
      }),
      vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
    });
    ({ mock, gateway } = at);
    openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
  });

  after(async () => {
    await at?.stop();
    await upstream?.stop();
  });

  for (const framing of Object.keys(FRAMINGS)) {
    const model = `odd-${framing}`;
    const lane = { model, api: "chat", extra: {} };
    const asked = { ...lane, extra: { stream_options: { include_usage: true } } };

    describe(`that streams ${framing === "none" ? "not at all" : framing.toUpperCase()}`, () => {
      test("answers in OpenAI's form", async () => {
        const tag = freshId();
        const completion = await openai.chat.completions.create(
          { model, messages: ask({ tag, text: TEXT, usage_in: 9, usage_out: 8 }), max_tokens: 50, temperature: 0.25 },
          { headers: { "x-request-id": tag } },
        );
        assert.equal(completion.object, "chat.completion");
        assert.equal(completion.model, model);
        assert.deepEqual([completion.choices[0].message.content, completion.choices[0].finish_reason], [TEXT, "stop"]);
        assert.deepEqual([completion.usage.prompt_tokens, completion.usage.completion_tokens], [9, 8]);
        const entry = await received(mock, tag);
        assert.equal(entry.path, "/generate");
        const body = JSON.parse(entry.body);
        assert.deepEqual([body.engine, body.settings, body.live], ["odd-1", { max_length: 50, heat: 0.25 }, false]);
        const line = await logOf(gateway, tag);
        assert.deepEqual(
          [line.lane, line.outcome, tokens(line.usage)],
          ["translated", "completed", { input: 9, output: 8 }],
        );
      });

      test("gets its credential in the header that it wants, and nothing of the caller's", async () => {
        const tag = freshId();
        await openai.chat.completions.create({ model, messages: ask({ tag }) });
        const { headers } = await received(mock, tag);
        assert.equal(headers["x-api-key"], PROVIDER_SECRETS.ODD_KEY);
        assert.equal(headers.authorization, undefined);
        assert.ok(!JSON.stringify(headers).includes(at.key));
      });

      test("is not sent what the caller did not say, and the caller learns what was left out", async () => {
        const tag = freshId();
        const { response } = await openai.chat.completions
          .create({ model, messages: ask({ tag }), seed: 5, top_p: 0.5 })
          .withResponse();
        assert.deepEqual(JSON.parse((await received(mock, tag)).body).settings, {});
        assert.deepEqual(response.headers.get("x-gateway-dropped-params").split(", ").sort(), ["seed", "top_p"]);
      });

      test("streams to the caller", async () => {
        for (const lane of [{ model, api: "chat", extra: {} }, asked]) {
          const read = await streamIn(lane, at, { directives: { text: TEXT, usage_in: 9, usage_out: 8 } });
          assertComplete(read, lane);
          assert.equal(read.text, TEXT);
          assert.equal(read.usages.length, lane === asked ? 1 : 0);
          if (lane === asked) assert.equal(read.usages[0].total_tokens, 17);
          const entry = await received(mock, read.id);
          assert.equal(JSON.parse(entry.body).live, framing !== "none");
          assert.match(
            entry.headers.accept,
            { sse: /event-stream/, ndjson: /ndjson/, none: /application\/json/ }[framing],
          );
          const line = await logOf(gateway, read.id);
          assert.deepEqual(
            [line.outcome, line.stream, tokens(line.usage)],
            ["completed", true, { input: 9, output: 8 }],
          );
        }
      });

      test("streams through the SDK's helper", async () => {
        const completion = await openai.chat.completions
          .stream({ model, messages: ask({ unicode: 1 }) })
          .finalChatCompletion();
        assert.match(completion.choices[0].message.content, /你好.*👩‍🚀/su);
      });

      test("tells in its own words why it ended, the caller reads OpenAI's", async () => {
        for (const stream of [false, true]) {
          const limited = await send(
            requestIn(lane, at, { stream, directives: { text: TEXT }, fields: { max_tokens: 3 } }),
          );
          assert.match(limited.text, /"finish_reason":"length"/);
          const cut = await send(requestIn(lane, at, { stream, directives: { text: TEXT, finish: "cut" } }));
          assert.match(cut.text, /"finish_reason":"length"/);
        }
      });

      test("has its errors told in OpenAI's form", async () => {
        for (const [status, Class] of [
          [400, OpenAI.BadRequestError],
          [404, OpenAI.NotFoundError],
          [429, OpenAI.RateLimitError],
          [500, OpenAI.InternalServerError],
        ]) {
          for (const stream of [false, true]) {
            const messages = ask({ status, error_message: "odd words", error_code: 4711, "header.retry-after": 7 });
            const error = await openai.chat.completions.create({ model, messages, stream }).catch((error) => error);
            assert.ok(error instanceof Class, `${error}`);
            assert.match(error.message, /odd words/);
            assert.equal(error.code, status === 404 ? "model_not_found" : "4711");
            assert.equal(error.headers.get("retry-after"), "7");
          }
        }
        const refused = await openai.chat.completions
          .create({ model, messages: ask({ status: 401 }) })
          .catch((error) => error);
        assert.ok(refused instanceof OpenAI.InternalServerError && refused.status === 502);
      });

      test("that answers with something else is a 502", async () => {
        for (const directives of [{ html: 200 }, { html: 503 }, { empty: 1 }, { badjson: 1 }, { status: 302 }]) {
          for (const stream of [false, true]) {
            const request = requestIn(lane, at, { stream, directives });
            const reply = await send(request);
            assert.ok(
              reply.status === 502 || (directives.html === 503 && reply.status === 503),
              `${JSON.stringify(directives)}: ${reply.text}`,
            );
            assertErrorBody(reply.json, "chat");
            assert.doesNotMatch(reply.text, /<html/i);
            assert.equal((await logOf(gateway, request.id)).outcome, "failed");
          }
        }
      });

      if (framing === "none") return;

      for (const [what, fault] of Object.entries({
        truncated: { truncate_at: 3 },
        "truncated before its end": { truncate_at: 1000 },
        "cut inside an object": { cut_event_at: 3 },
        "cut inside its last object": { cut_event_at: 1000 },
        closed: { close_at: 3 },
        reset: { reset_at: 3 },
        "broken off with an error": { error_at: 3, error_message: "engine broke" },
      })) {
        test(`whose stream is ${what} ends with an error event`, async () => {
          const read = await streamIn(lane, at, { directives: { text: TEXT, gap_ms: 5, ...fault } });
          assertBrokenOff(read, lane);
          assert.equal(read.illegible, 0);
          assert.ok(TEXT.startsWith(read.text) && read.text !== "", read.text);
          if (fault.error_message) assert.match(read.errors[0].error.message, /engine broke/);
          const line = await logOf(gateway, read.id);
          assert.equal(line.outcome, "failed");
          assert.ok(tokens(line.usage).input > 0);
        });
      }

      for (const [what, shape] of Object.entries({
        "pieces of one byte": { split: 1, unicode: 1 },
        "pieces of seven bytes": { split: 7, unicode: 1 },
        CRLF: { crlf: 1 },
        "everything in one write": { whole: 1 },
        "a huge object": { huge: 200_000 },
        "no end mark": { no_done: 1 },
        ...(framing === "sse" && {
          comments: { comments: 1 },
          "several data lines": { multiline: 1 },
          "a byte order mark": { bom: 1 },
        }),
      })) {
        test(`may send ${what}`, async () => {
          const content = shape.unicode || shape.huge ? {} : { text: TEXT };
          const read = await streamIn(lane, at, { directives: { ...content, ...shape } });
          assertComplete(read, lane);
          if (content.text) assert.equal(read.text, TEXT);
          else assert.match(read.text, shape.unicode ? /你好.*👩‍🚀.*مرحبا/su : /^.{200000,}$/s);
          assert.ok(tokens((await logOf(gateway, read.id)).usage).output > 0);
        });
      }

      test("is left by a caller that leaves", async () => {
        const id = freshId();
        const reply = await open({
          ...requestIn(lane, at, { id, directives: { chunks: 1000, gap_ms: 40 } }),
          fresh: true,
        });
        reply.body.on("error", () => {});
        reply.body.once("data", () => reply.close());
        const entry = await upstreamEnded(mock, id, "client_disconnected");
        assert.ok(entry.chunks_sent < 300);
        assert.equal((await logOf(gateway, id)).outcome, "client_closed");
      });

      test("sends its first piece on at once", async () => {
        const id = freshId();
        let outcome;
        const read = await streamIn(
          lane,
          at,
          { id, directives: { chunks: 10, gap_ms: 250 } },
          async (_event, _json, read) => {
            if (outcome === undefined && read.text !== "") outcome = (await journalOf(mock, id))[0].outcome;
          },
        );
        assertComplete(read, lane);
        assert.equal(outcome, "open");
      });
    });
  }

  test("that falls silent is ended in time", async () => {
    const lane = { model: "odd-hasty", api: "chat", extra: {} };
    const read = await streamIn(lane, at, { directives: { text: TEXT, stall_at: 3 } });
    assertBrokenOff(read, lane);
    await upstreamEnded(mock, read.id, "client_disconnected");
    const never = await streamIn(lane, at, { directives: { ttfb_ms: 20_000 } });
    assert.equal(never.status, 504);
    assertErrorBody(never.json, "chat");
    await upstreamEnded(mock, never.id, "client_disconnected");
  });

  test("serves Anthropic's Messages as well, by translation", async () => {
    const reply = await send(
      requestIn(
        { model: "odd-sse", api: "messages", extra: { max_tokens: 50 } },
        at,
        { stream: false, directives: { text: "one two" } },
      ),
    );
    assert.equal(reply.status, 200);
    assert.deepEqual([reply.json.type, reply.json.content], ["message", [{ type: "text", text: "one two" }]]);
  });

  // === The template, seen by a provider of our own ===

  const answered = (body) => (_request, response) => {
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  };

  test("is sent what its template says, filled in", async () => {
    upstream.answer = answered({ id: "r-1", answers: [{ text: "ok" }], thoughts: "hm" });
    const messages = [
      { role: "system", content: "Be {{model}}." },
      { role: "user", content: 'Say "{{prompt}}" \\ twice.' },
    ];
    const tools = [{ type: "function", function: { name: "f", parameters: { type: "object" } } }];
    const completion = await openai.chat.completions.create({
      model: "own",
      messages,
      top_p: 0.5,
      stop: "X",
      user: "u1",
      tools,
    });
    const [{ method, path, headers, body }] = upstream.requests.splice(0);
    assert.deepEqual([method, headers["api-key"], headers["x-tenant"]], ["POST", PROVIDER_SECRETS.ODD_KEY, "tenant-1"]);
    assert.equal(path, "/base/models/a/b%20c/run");
    // What callers write is text, even where it looks like a placeholder.
    assert.deepEqual(JSON.parse(body), {
      system: "Be {{model}}.",
      question: 'Q: Say "{{prompt}}" \\ twice. (for u1)',
      turns: messages,
      limits: { p: 0.5, stop: ["X"] },
      fixed: [1, "two", true],
      tools,
    });
    const [{ message }] = completion.choices;
    assert.deepEqual([message.content, message.reasoning_content, completion.id], ["ok", "hm", "chatcmpl-r-1"]);
  });

  test("that cannot stream gets one unstreamed request for a streamed call", async () => {
    upstream.answer = answered({ id: "r-2", answers: [{ text: "all at once" }] });
    const lane = { model: "own", api: "chat", extra: {} };
    const read = await streamIn(lane, at);
    assertComplete(read, lane);
    assert.equal(read.text, "all at once");
    assert.equal(upstream.requests.splice(0).length, 1);
    const line = await logOf(gateway, read.id);
    assert.deepEqual([line.outcome, line.usage_estimated], ["completed", true]);
  });

  test("that leaves the text out, or errs under status 200, is a 502", async () => {
    for (const body of [
      { id: "r" },
      { answers: [] },
      { answers: [{ text: 5 }] },
      [],
      null,
      { error: { message: "no" } },
    ]) {
      upstream.answer = answered(body);
      const request = requestIn({ model: "own", api: "chat", extra: {} }, at, { stream: false });
      const reply = await send(request);
      assert.equal(reply.status, 502, JSON.stringify(body));
      assertErrorBody(reply.json, "chat");
    }
  });

  test("goes on working after all that", async () => {
    await eventually(
      async () =>
        (await send(requestIn({ model: "odd-sse", api: "chat", extra: {} }, at, { stream: false }))).status === 200,
      "an answer",
    );
    const tag = freshId();
    const messages = [
      { role: "user", content: "first" },
      { role: "assistant", content: "second" },
      { role: "user", content: `third ${directive({ tag })}` },
    ];
    await openai.chat.completions.create({ model: "odd-sse", messages });
    const { prompt } = JSON.parse((await received(mock, tag)).body);
    assert.match(prompt, /User: first\n\nAssistant: second\n\nUser: third .*\n\nAssistant:$/s);
  });
});

test("no line of the log has a secret in it", assertNothingLeaked);
