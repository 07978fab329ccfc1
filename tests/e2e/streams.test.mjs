// Streams: every way in which a provider's stream can break or look odd, in every lane that a stream can take through
// the gateway. Read with a reader of our own, so that no SDK hides what is on the wire.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import {
  HEALTH,
  LANES,
  MOCK,
  PROVIDER_SECRETS,
  assertBrokenOff,
  assertComplete,
  assertErrorBody,
  assertNothingLeaked,
  config,
  eventually,
  freshId,
  journalOf,
  laneInLog,
  logOf,
  open,
  readStream,
  received,
  requestIn,
  send,
  sendAndVanish,
  sleep,
  start,
  startUpstream,
  streamIn,
  tokens,
  upstreamEnded,
} from "./support.mjs";

const TEXT = "one two three four five six seven eight nine ten";

/** Providers with one short time bound each, for OpenAI's and Anthropic's dialect. */
const BOUNDS = {
  "first-byte": { first_byte_ms: 400 },
  idle: { idle_ms: 400 },
  total: { total_ms: 1500 },
  patient: {},
};

function bounded() {
  const tables = { providers: {}, models: {} };
  for (const [name, timeouts] of Object.entries(BOUNDS)) {
    const openai = { dialect: "openai", base_url: `${MOCK}/v1`, credential: "OPENAI_KEY", health: HEALTH, timeouts };
    tables.providers[`openai-${name}`] = openai;
    tables.providers[`loose-${name}`] = { ...openai, normalize: true };
    tables.providers[`anthropic-${name}`] = {
      dialect: "anthropic",
      base_url: MOCK,
      credential: "ANTHROPIC_KEY",
      health: HEALTH,
      timeouts,
    };
    tables.models[`gpt-${name}`] = { provider: `openai-${name}`, upstream_model: "mock-large" };
    tables.models[`loose-${name}`] = { provider: `loose-${name}`, upstream_model: "mock-large" };
    tables.models[`claude-${name}`] = { provider: `anthropic-${name}`, upstream_model: "mock-claude" };
  }
  return tables;
}

/** The same lane over a provider with that bound. */
function withBound(lane, bound) {
  const kind = { "gpt-test": "gpt", "gpt-loose": "loose", "claude-test": "claude" }[lane.model];
  return { ...lane, model: `${kind}-${bound}` };
}

/** The lanes for which a bounded provider exists, one of each kind. */
const BOUNDED_LANES = ["native", "relayed", "normalised", "translated", "native Messages"];

const lanes = Object.entries(LANES);

describe("streams", () => {
  let at, mock, gateway, upstream;

  before(async () => {
    upstream = await startUpstream((...exchange) => upstream.answer(...exchange));
    const own = {
      "own-openai": { dialect: "openai", base_url: `${upstream.url}/v1`, credential: "OPENAI_KEY", health: HEALTH },
      "own-loose": { dialect: "openai", base_url: `${upstream.url}/v1`, credential: "OPENAI_KEY", health: HEALTH, normalize: true },
      "own-anthropic": { dialect: "anthropic", base_url: upstream.url, credential: "ANTHROPIC_KEY", health: HEALTH },
    };
    const more = bounded();
    at = await start({
      config: config({
        providers: { ...more.providers, ...own },
        models: {
          ...more.models,
          "gpt-own": { provider: "own-openai" },
          "loose-own": { provider: "own-loose" },
          "claude-own": { provider: "own-anthropic" },
        },
      }),
      vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
    });
    ({ mock, gateway } = at);
  });

  after(async () => {
    await at?.stop();
    await upstream?.stop();
  });

  // === A good stream ===

  for (const [name, lane] of lanes) {
    describe(`the lane "${name}"`, { concurrency: 4 }, () => {
      test("carries the whole text, one finish reason and the end mark", async () => {
        const read = await streamIn(lane, at, { directives: { text: TEXT, usage_in: 21, usage_out: 34 } });
        assertComplete(read, lane);
        assert.equal(read.text, TEXT);
        assert.match(read.headers["content-type"], /^text\/event-stream/);
        assert.equal(read.headers["content-encoding"], undefined);
        const line = await logOf(gateway, read.id);
        assert.equal(line.outcome, "completed");
        assert.equal(line.status, 200);
        assert.equal(line.lane, laneInLog(name));
        assert.equal(line.stream, true);
        assert.deepEqual(tokens(line.usage), { input: 21, output: 34 });
        assert.equal((await received(mock, read.id)).outcome, "completed");
      });

      test("shows the usage where, and only where, the caller asked for it", async () => {
        const read = await streamIn(lane, at, { directives: { text: TEXT, usage_in: 21, usage_out: 34 } });
        if (lane.api === "messages") {
          assert.equal(read.usages.at(-1).output_tokens, 34);
          return;
        }
        const empty = read.all.filter(({ json }) => json?.choices.length === 0);
        if (lane.usageInline) {
          assert.deepEqual([empty, read.usages.length], [[], 1]);
        } else if (lane.usageChunk) {
          assert.equal(empty.length, 1, "one chunk without choices");
          assert.equal(read.all.at(-2).json, empty[0].json, "it is the last before [DONE]");
          assert.equal(empty[0].json.usage.prompt_tokens, 21);
          assert.equal(empty[0].json.usage.completion_tokens, 34);
          assert.equal(empty[0].json.usage.total_tokens, 55);
          assert.equal(read.usages.length, 1);
        } else {
          assert.deepEqual([empty, read.usages], [[], []]);
        }
      });

      // The provider sends an event each 250 ms for seconds; nothing here depends on how fast the machine is.
      test("hands out the first event while the provider is still sending", async () => {
        const id = freshId();
        let whileOpen;
        const read = await streamIn(
          lane,
          at,
          { id, directives: { chunks: 12, gap_ms: 250 } },
          async (_event, _json, read) => {
            if (whileOpen || read.text === "") return;
            const [entry] = await journalOf(mock, id);
            whileOpen = { outcome: entry.outcome, sent: entry.chunks_sent };
          },
        );
        assertComplete(read, lane);
        assert.equal(whileOpen.outcome, "open");
        assert.ok(whileOpen.sent < 12, `${whileOpen.sent} of 12 events had been sent`);
      });
    });
  }

  // === Faults in the middle ===

  const middle = {
    truncated: { truncate_at: 3 },
    "cut inside an event": { cut_event_at: 3 },
    "closed without the end of its encoding": { close_at: 3 },
    reset: { reset_at: 3 },
    "broken off by the provider's error event": { error_at: 3, error_message: "engine overheated" },
    "truncated before the finish reason": { truncate_at: 1000 },
    "cut inside the finish event": { cut_event_at: 1000 },
    "closed before the finish reason": { close_at: 1000 },
    "reset before the finish reason": { reset_at: 1000 },
    "broken off by an error event before the finish reason": { error_at: 1000 },
    "truncated, in pieces of 3 bytes": { truncate_at: 4, split: 3, unicode: 1 },
    "truncated, with CRLF": { truncate_at: 3, crlf: 1 },
    "truncated, with CR": { truncate_at: 3, cr: 1 },
  };

  for (const [name, lane] of lanes) {
    describe(`in the lane "${name}", a stream that is`, { concurrency: 4 }, () => {
      for (const [what, fault] of Object.entries(middle)) {
        test(`${what} ends with an error event`, async () => {
          const directives = { ...(!fault.unicode && { text: TEXT }), gap_ms: 5, ...fault };
          const read = await streamIn(lane, at, { directives });
          assertBrokenOff(read, lane);
          if (!fault.unicode) {
            assert.ok(TEXT.startsWith(read.text), `what came before the fault is right: ${read.text}`);
            assert.notEqual(read.text, "");
          }
          // Natively the half of an event has left before anybody can know; it must not swallow the error event.
          const cutNatively = name.startsWith("native") && fault.cut_event_at;
          assert.ok(read.illegible <= (cutNatively ? 1 : 0), "no half-written event is passed on");
          if (fault.error_message) assert.match(read.errors[0].error.message, /engine overheated/);
          const line = await logOf(gateway, read.id);
          assert.equal(line.outcome, "failed");
          assert.notEqual(line.error_code ?? "", "", "the log says what went wrong");
          assert.equal(line.lane, laneInLog(name));
          // Anthropic tells the input at the start; of the others no more is known than what went in and came out.
          assert.ok(tokens(line.usage).input > 0, "what was used is logged");
          if (lane.api === "chat" && lane.model !== "claude-test") assert.equal(line.usage_estimated, true);
        });
      }
    });
  }

  // === Faults at the start ===

  const beginning = {
    "resets the connection instead of answering": { reset_at: "head" },
    "closes the connection instead of answering": { close_at: "head" },
  };

  for (const [name, lane] of lanes) {
    describe(`in the lane "${name}", a provider that`, { concurrency: 4 }, () => {
      for (const [what, directives] of Object.entries(beginning)) {
        test(`${what} gets a 502`, async () => {
          const reply = await streamIn(lane, at, { directives });
          assert.equal(reply.status, 502);
          assertErrorBody(reply.json, lane.api);
          const line = await logOf(gateway, reply.id);
          assert.deepEqual([line.outcome, line.status], ["failed", 502]);
          assert.notEqual(line.error_code ?? "", "");
        });
      }

      for (const [what, directives] of Object.entries({
        "begins with an error event": { error_at: "start", error_message: "engine overheated" },
        "ends right after its head": { truncate_at: "start" },
        "resets right after its head": { reset_at: "start" },
      })) {
        test(`${what} gets an error status`, async () => {
          const reply = await streamIn(lane, at, { directives });
          assert.ok(reply.status >= 500, `status ${reply.status}`);
          assertErrorBody(reply.json, lane.api);
          if (directives.error_message) assert.match(reply.json.error.message, /engine overheated/);
          const line = await logOf(gateway, reply.id);
          assert.deepEqual([line.outcome, line.status], ["failed", reply.status]);
        });
      }
    });
  }

  // === Odd shapes that are right ===

  const harmless = {
    ...Object.fromEntries(
      [1, 2, 3, 4, 5, 6, 7].map((bytes) => [`pieces of ${bytes} bytes`, { split: bytes, unicode: 1 }]),
    ),
    "lines that end with CRLF": { crlf: 1 },
    "lines that end with CR": { cr: 1 },
    "CRLF in pieces of 1 byte": { crlf: 1, split: 1, unicode: 1 },
    "CR in pieces of 1 byte": { cr: 1, split: 1, unicode: 1 },
    comments: { comments: 1 },
    "data over several lines": { multiline: 1 },
    "data over several lines, CRLF, in pieces of 2 bytes": { multiline: 1, crlf: 1, split: 2 },
    "a byte order mark": { bom: 1 },
    "a byte order mark in pieces of 1 byte": { bom: 1, split: 1 },
    "no space after the colon": { nospace: 1 },
    "ids and retry times": { retry_id: 1 },
    "text of every script": { unicode: 1 },
    "everything in one write": { whole: 1 },
    "a huge event": { huge: 300_000 },
    "a huge event in small pieces": { huge: 60_000, split: 97 },
    "many events": { chunks: 3000 },
    "every oddity at once": {
      crlf: 1,
      comments: 1,
      multiline: 1,
      bom: 1,
      nospace: 1,
      retry_id: 1,
      split: 5,
      unicode: 1,
    },
  };

  for (const [name, lane] of lanes) {
    describe(`in the lane "${name}", the text is unchanged by`, { concurrency: 4 }, () => {
      for (const [what, shape] of Object.entries(harmless)) {
        test(what, async () => {
          const text = shape.unicode || shape.huge || shape.chunks ? {} : { text: TEXT };
          const shapeOnly = Object.entries(shape).filter(([key]) => !["unicode", "huge", "chunks"].includes(key));
          const content = { ...shape, ...text };
          for (const [key] of shapeOnly) delete content[key];
          // Both are asked with the same words, so that the mock provider gives the same answer.
          const tag = freshId();
          const plain = await streamIn(lane, at, { id: tag, directives: content });
          const read = await streamIn(lane, at, { directives: { ...content, ...shape, tag } });
          assertComplete(plain, lane);
          assertComplete(read, lane);
          assert.equal(read.text, plain.text);
          assert.notEqual(read.text, "");
          const line = await logOf(gateway, read.id);
          assert.equal(line.outcome, "completed");
          assert.deepEqual(line.usage, (await logOf(gateway, plain.id)).usage);
          assert.ok(tokens(line.usage).output > 0);
        });
      }

      if (lane.api === "chat") {
        test("a missing end mark behind the finish reason", async () => {
          const read = await streamIn(lane, at, { directives: { text: TEXT, no_done: 1 } });
          // What is translated gets its own end mark; what is passed on is passed on.
          if (lane.model === "claude-test") return assertBrokenOffOrComplete(read, lane);
          assertComplete(read, lane, { endMark: laneInLog(name) === "translated" });
          assert.equal(read.text, TEXT);
          const line = await logOf(gateway, read.id);
          assert.equal(line.outcome, "completed");
          assert.ok(tokens(line.usage).output > 0);
        });

        test("a finish event that comes twice: one is enough where the stream is written anew", async () => {
          const read = await streamIn(lane, at, { directives: { text: TEXT, double_finish: 1 } });
          assert.deepEqual(read.errors, []);
          assert.equal(read.text, TEXT);
          assert.ok(read.done);
          if (laneInLog(name) === "translated") assert.deepEqual(read.reasons, ["stop"]);
        });
      }
    });
  }

  /** Without `message_stop` an Anthropic stream is not complete; but all that matters has been said. Either is right, a mixture is not. */
  function assertBrokenOffOrComplete(read, lane) {
    if (read.errors.length > 0) assertBrokenOff(read, lane);
    else assertComplete(read, lane);
  }

  test("usage inside the last chunk that has choices reaches the log, and the chunk reaches the caller", async () => {
    for (const name of ["native", "native, usage always", "relayed", "normalised"]) {
      const lane = LANES[name];
      const read = await streamIn(lane, at, {
        directives: { text: TEXT, usage_inline: 1, usage_in: 3, usage_out: 4 },
        fields: { stream_options: { include_usage: true } },
      });
      assertComplete(read, lane);
      assert.equal(read.text, TEXT);
      assert.deepEqual(tokens((await logOf(gateway, read.id)).usage), { input: 3, output: 4 }, name);
      assert.equal(read.usages.at(-1).completion_tokens, 4);
    }
    for (const name of ["relayed", "normalised"]) {
      const read = await streamIn(LANES[name], at, {
        directives: { text: TEXT, usage_inline: 1, usage_in: 3, usage_out: 4 },
      });
      assertComplete(read, LANES[name]);
      assert.equal(read.text, TEXT);
      assert.deepEqual(tokens((await logOf(gateway, read.id)).usage), { input: 3, output: 4 }, name);
    }
  });

  test("usage that the provider does not tell is estimated in the log, and marked as an estimate", async () => {
    for (const name of ["native", "relayed", "normalised"]) {
      const lane = LANES[name];
      for (const stream of [true, false]) {
        const request = requestIn(lane, at, { stream, directives: { text: TEXT, no_usage: 1 } });
        assert.equal((await send(request)).status, 200);
        const line = await logOf(gateway, request.id);
        assert.equal(line.outcome, "completed");
        assert.equal(line.usage_estimated, true);
        const { input, output } = tokens(line.usage);
        assert.ok(input > 0 && output > 0, JSON.stringify(line.usage));
      }
    }
    // The caller is told no estimate, and no zeros, as if the provider had said so.
    for (const name of ["native", "normalised"]) {
      const fields = { stream_options: { include_usage: true } };
      const read = await streamIn(LANES[name], at, { directives: { text: TEXT, no_usage: 1 }, fields });
      assertComplete(read, LANES[name]);
      assert.deepEqual(read.usages, [], name);
    }
    const told = requestIn(LANES.native, at, { directives: { text: TEXT } });
    await send(told);
    assert.equal((await logOf(gateway, told.id)).usage_estimated, undefined);
  });

  // === What only a provider of our own does ===

  const chunk = (delta, finish_reason = null, more = {}) =>
    `data: ${JSON.stringify({
      id: "chatcmpl-own",
      object: "chat.completion.chunk",
      created: 1700000000,
      model: "own",
      choices: [{ index: 0, delta, finish_reason }],
      ...more,
    })}\n\n`;

  const head = (response, type = "text/event-stream") => response.writeHead(200, { "content-type": type });

  for (const [name, model, extra] of [
    ["native", "gpt-own", { stream_options: { include_usage: true } }],
    ["relayed", "gpt-own", {}],
    ["normalised", "loose-own", {}],
  ]) {
    const lane = { model, api: "chat", extra };

    // The finish reason has gone out when the connection breaks. The text is complete, but the gateway cannot know that
    // nothing else was due (the usage was): an error event behind the finish reason and a plain end are both acceptable;
    // a [DONE] that the provider never sent is not, except where the gateway writes the stream anew.
    test(`in the lane "${name}", a reset behind the finish reason is told or shrugged off, never papered over`, async () => {
      upstream.answer = async (_request, response) => {
        head(response);
        response.write(chunk({ role: "assistant", content: "all there" }));
        response.write(chunk({}, "stop"));
        await sleep(50);
        response.socket.resetAndDestroy();
      };
      const read = await streamIn(lane, at);
      assert.equal(read.text, "all there");
      assert.equal(read.broken, false);
      assert.ok(read.errors.length <= 1 && read.afterError === 0);
      if (read.errors.length > 0) assert.equal(read.done, false);
      if (name !== "normalised") assert.equal(read.done, false);
      await logOf(gateway, read.id);
    });

    test(`in the lane "${name}", a JSON reply to a streamed request becomes a stream or an error`, async () => {
      upstream.answer = (_request, response) => {
        head(response, "application/json");
        response.end(
          JSON.stringify({
            id: "chatcmpl-own",
            object: "chat.completion",
            created: 1700000000,
            model: "own",
            choices: [{ index: 0, message: { role: "assistant", content: "whole" }, finish_reason: "stop" }],
            usage: { prompt_tokens: 5, completion_tokens: 6, total_tokens: 11 },
          }),
        );
      };
      const read = await streamIn(lane, at);
      assertComplete(read, lane);
      assert.equal(read.text, "whole");
      assert.equal(read.usages.length, extra.stream_options ? 1 : 0);
      const line = await logOf(gateway, read.id);
      assert.deepEqual([line.outcome, tokens(line.usage)], ["completed", { input: 5, output: 6 }]);
    });

    test(`in the lane "${name}", an event stream in reply to an unstreamed request becomes JSON`, async () => {
      upstream.answer = (_request, response) => {
        head(response);
        response.write(chunk({ role: "assistant", content: "in " }));
        response.write(chunk({ content: "pieces" }));
        response.write(chunk({}, "stop", { usage: { prompt_tokens: 5, completion_tokens: 6, total_tokens: 11 } }));
        response.end("data: [DONE]\n\n");
      };
      const reply = await send(requestIn(lane, at, { stream: false }));
      assert.equal(reply.status, 200, reply.text);
      assert.match(reply.headers["content-type"], /^application\/json/);
      assert.equal(reply.json.object, "chat.completion");
      assert.equal(reply.json.choices[0].message.content, "in pieces");
      assert.equal(reply.json.usage.completion_tokens, 6);
    });

    test(`in the lane "${name}", an error in the caller's dialect under status 200 is an error`, async () => {
      upstream.answer = (_request, response) => {
        head(response, "application/json");
        response.end(JSON.stringify({ error: { message: "out of capacity", type: "server_error", code: "busy" } }));
      };
      for (const stream of [false, true]) {
        const request = requestIn(lane, at, { stream });
        const reply = await send(request);
        assert.ok(reply.status >= 500, `status ${reply.status}`);
        assertErrorBody(reply.json, "chat");
        assert.match(reply.json.error.message, /out of capacity/);
        assert.equal((await logOf(gateway, request.id)).outcome, "failed");
      }
    });

    test(`in the lane "${name}", a last event without its blank line still counts`, async () => {
      upstream.answer = (_request, response) => {
        head(response);
        response.write(chunk({ role: "assistant", content: "all there" }));
        response.write(chunk({}, "stop"));
        response.end("data: [DONE]");
      };
      const read = await streamIn(lane, at);
      assert.equal(read.text, "all there");
      assert.deepEqual([read.reasons, read.errors, read.broken], [["stop"], [], false]);
      assert.equal((await logOf(gateway, read.id)).outcome, "completed");
    });

    test(`in the lane "${name}", an event beyond all measure ends the stream with an error, not the gateway`, async () => {
      upstream.answer = async (_request, response) => {
        head(response);
        response.on("error", () => {});
        response.write(chunk({ role: "assistant", content: "before" }));
        response.write("data: ");
        const piece = "x".repeat(1024 * 1024);
        for (let sent = 0; sent < 24 && !response.destroyed; sent++) {
          if (!response.write(piece)) {
            await new Promise((resolve) => response.once("drain", resolve).once("close", resolve));
          }
        }
        response.end();
      };
      const id = freshId();
      const reply = await open(requestIn(lane, at, { id }));
      const tail = [];
      for await (const piece of reply.body) {
        tail.push(piece);
        while (tail.length > 4) tail.shift();
      }
      const end = Buffer.concat(tail).toString().slice(-2000);
      assert.match(end, /data: \{"error":/);
      assert.doesNotMatch(end, /\[DONE\]/);
      assert.equal((await logOf(gateway, id)).outcome, "failed");
      assertComplete(await streamIn(LANES.native, at, { directives: { text: TEXT } }), LANES.native);
    });
  }

  // === Replies that are no streams ===

  const others = {
    "an HTML page": { html: 1 },
    "an HTML page with status 200": { html: 200 },
    "an empty reply": { empty: 1 },
    "JSON that breaks off": { badjson: 1 },
    "a redirect": { status: 302, "header.location": "http://127.0.0.1:9/elsewhere" },
    "a status without a meaning": { status: 204 },
  };

  for (const [name, lane] of lanes) {
    describe(`in the lane "${name}", a 502 in the caller's dialect is the answer to`, { concurrency: 4 }, () => {
      for (const [what, directives] of Object.entries(others)) {
        for (const stream of [true, false]) {
          test(`${what}, ${stream ? "streamed" : "unstreamed"}`, async () => {
            const request = requestIn(lane, at, { stream, directives });
            const reply = await send(request);
            assert.equal(reply.status, 502, reply.text);
            assertErrorBody(reply.json, lane.api);
            assert.doesNotMatch(reply.text, /<html/i);
            const line = await logOf(gateway, request.id);
            assert.deepEqual([line.outcome, line.status], ["failed", 502]);
            assert.equal((await journalOf(mock, request.id)).length, 1, "asked once, followed nowhere");
          });
        }
      }

      test("a JSON reply that is reset half-way", async () => {
        const request = requestIn(lane, at, { stream: false, directives: { body_reset: 1, big_reply: 200_000 } });
        const reply = await send(request);
        assert.equal(reply.status, 502, reply.text.slice(0, 300));
        assertErrorBody(reply.json, lane.api);
        assert.equal((await logOf(gateway, request.id)).outcome, "failed");
      });
    });
  }

  test("no provider's header but the known ones reaches the caller", async () => {
    for (const [name, lane] of lanes) {
      for (const stream of [true, false]) {
        const directives = { text: "hi", "header.set-cookie": "id=1", "header.x-secret-of-the-provider": "1" };
        const reply = await send(requestIn(lane, at, { stream, directives }));
        assert.equal(reply.status, 200, name);
        assert.equal(reply.headers["set-cookie"], undefined, name);
        assert.equal(reply.headers["x-secret-of-the-provider"], undefined, name);
        for (const secret of Object.values(PROVIDER_SECRETS)) {
          assert.ok(!JSON.stringify(reply.headers).includes(secret) && !reply.text.includes(secret), name);
        }
      }
    }
  });

  // === Time ===

  describe("a provider that is too slow", { concurrency: 6 }, () => {
    /** [what, bound, directives, whether a first byte has left already when the bound runs out] */
    const cases = [
      ["does not answer at all", "first-byte", { stall_at: "head" }, false],
      ["answers after the first byte's bound", "first-byte", { ttfb_ms: 20_000 }, false],
      ["sends a head and nothing else", "first-byte", { stall_at: "start" }, false],
      ["sends its first event too late", "first-byte", { first_chunk_ms: 20_000 }, false],
      ["falls silent in the middle", "idle", { stall_at: 3 }, true],
      ["falls silent before the finish reason", "idle", { stall_at: 1000 }, true],
      ["goes on for longer than the whole reply may take", "total", { chunks: 80, gap_ms: 100 }, true],
    ];

    for (const name of BOUNDED_LANES) {
      for (const [what, bound, directives, begun] of cases) {
        test(`and ${what} is ended (${name})`, async () => {
          const lane = withBound(LANES[name], bound);
          const read = await streamIn(lane, at, {
            directives: { ...(!directives.chunks && { text: TEXT }), ...directives },
          });
          const line = await logOf(gateway, read.id);
          if (begun) {
            assertBrokenOff(read, lane);
            assert.equal(line.status, 200);
          } else {
            assert.equal(read.status, 504);
            assertErrorBody(read.json, lane.api);
            assert.equal(line.status, 504);
          }
          assert.equal(line.outcome, "failed");
          assert.match(
            `${line.error_code} ${line.error_detail}`,
            /stalled|timeout/,
            "the log says that it was the time",
          );
          await upstreamEnded(mock, read.id, "client_disconnected", { timeout: 5000 });
        });
      }

      test(`and does not come to the end of an unstreamed reply is ended (${name})`, async () => {
        const lane = withBound(LANES[name], "total");
        for (const directives of [{ ttfb_ms: 20_000 }, { slow_body_ms: 20_000 }, { stall_at: 1, big_reply: 100_000 }]) {
          const request = requestIn(lane, at, { stream: false, directives });
          const reply = await send(request);
          assert.equal(reply.status, 504, JSON.stringify(directives));
          assertErrorBody(reply.json, lane.api);
          const line = await logOf(gateway, request.id);
          assert.deepEqual([line.outcome, line.status], ["failed", 504]);
          await upstreamEnded(mock, request.id, "client_disconnected", { timeout: 5000 });
        }
      });

      test(`is not waited for longer than the caller waits (${name})`, async () => {
        const lane = withBound(LANES[name], "patient");
        for (const header of ["x-stainless-timeout", "x-stainless-read-timeout"]) {
          const options = { directives: { ttfb_ms: 20_000 }, headers: { [header]: "0.5" } };
          for (const stream of [true, false]) {
            const request = requestIn(lane, at, { ...options, stream });
            const reply = await send(request);
            assert.equal(reply.status, 504, `${header}, ${stream ? "streamed" : "unstreamed"}`);
            assertErrorBody(reply.json, lane.api);
            assert.match(`${(await logOf(gateway, request.id)).error_code}`, /stalled|timeout/);
            await upstreamEnded(mock, request.id, "client_disconnected", { timeout: 5000 });
          }
        }
      });
    }
  });

  describe("a provider that is slow, but not too slow", { concurrency: 6 }, () => {
    for (const name of BOUNDED_LANES) {
      test(`may pause for less than the idle bound as often as it likes (${name})`, async () => {
        const lane = withBound(LANES[name], "idle");
        const read = await streamIn(lane, at, { directives: { chunks: 20, gap_ms: 120 } });
        assertComplete(read, lane);
        assert.equal((await logOf(gateway, read.id)).outcome, "completed");
      });

      // Reading is the caller's business: while it pauses, nothing is the provider's fault.
      test(`is not blamed for a caller that reads slowly (${name})`, async () => {
        const lane = withBound(LANES[name], "idle");
        const id = freshId();
        const reply = await open({
          ...requestIn(lane, at, { id, directives: { chunks: 400, chunk_bytes: 20_000 } }),
          fresh: true,
        });
        reply.body.pause();
        await sleep(2000);
        const read = await readStream(reply, lane.api);
        assertComplete(read, lane);
        assert.equal(read.text.length, 400 * 20_000);
        assert.equal((await logOf(gateway, id)).outcome, "completed");
      });
    }
  });

  // === The caller leaves ===

  describe("a caller that leaves", { concurrency: 4 }, () => {
    for (const [name, lane] of lanes) {
      test(`in the middle ends the provider's work (${name})`, async () => {
        const id = freshId();
        const reply = await open({
          ...requestIn(lane, at, { id, directives: { chunks: 1000, gap_ms: 50 } }),
          fresh: true,
        });
        reply.body.once("data", () => reply.close());
        reply.body.on("error", () => {});
        const entry = await upstreamEnded(mock, id, "client_disconnected", { timeout: 5000 });
        assert.ok(entry.chunks_sent < 200, `the provider sent ${entry.chunks_sent} of 1000 events`);
        const line = await logOf(gateway, id);
        assert.equal(line.outcome, "client_closed");
        assert.equal(line.lane, laneInLog(name));
        assert.ok(tokens(line.usage).input > 0, "what was used is logged, if only as an estimate");
      });

      test(`during a stall ends the provider's work (${name})`, async () => {
        const id = freshId();
        const reply = await open({
          ...requestIn(lane, at, { id, directives: { text: TEXT, stall_at: 2 } }),
          fresh: true,
        });
        reply.body.on("error", () => {});
        // Of a reset that meets a write the runtime tells at the next write only; once all is silent, it tells at once.
        reply.body.once("data", () => setTimeout(() => reply.reset(), 100));
        await upstreamEnded(mock, id, "client_disconnected", { timeout: 5000 });
        assert.equal((await logOf(gateway, id)).outcome, "client_closed");
      });

      for (const [what, directives, stream] of [
        ["before the head", { ttfb_ms: 20_000 }, true],
        ["before the first event", { first_chunk_ms: 20_000 }, true],
        ["before an unstreamed reply", { ttfb_ms: 20_000 }, false],
        ["in the middle of an unstreamed reply", { stall_at: 1, big_reply: 300_000 }, false],
      ]) {
        test(`${what} ends the provider's work (${name})`, async () => {
          const id = freshId();
          await sendAndVanish(requestIn(lane, at, { id, stream, directives }), () =>
            eventually(async () => (await journalOf(mock, id)).length === 1, "the provider has the request"),
          );
          await upstreamEnded(mock, id, "client_disconnected", { timeout: 5000 });
          const line = await logOf(gateway, id, { timeout: 3000 });
          assert.equal(line.outcome, "client_closed");
          assert.equal(line.stream, stream);
        });
      }
    }
  });

  test("fifty streams at once do not mix", async () => {
    const names = Object.keys(LANES);
    const reads = await Promise.all(
      Array.from({ length: 50 }, async (_, nth) => {
        const lane = LANES[names[nth % names.length]];
        const text = `stream number ${nth}: ${TEXT}`;
        const read = await streamIn(lane, at, { directives: { text, gap_ms: 10 } });
        assertComplete(read, lane);
        assert.equal(read.text, text);
        return read;
      }),
    );
    for (const { id } of reads) assert.equal((await logOf(gateway, id)).outcome, "completed");
  });
});

test("no line of the log has a secret in it", assertNothingLeaked);
