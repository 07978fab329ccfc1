// What the end-to-end tests share: a configuration with every kind of provider, raw HTTP, a reader of event streams
// that owes nothing to the code under test, and looks at what the mock provider and the gateway's log say.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

import { startGateway, startMock } from "./harness.mjs";

// === The two servers ===

/** Credentials of the providers in [`config`]; no client and no log may ever see one. */
export const PROVIDER_SECRETS = {
  OPENAI_KEY: "openai-credential-for-tests-5fQ",
  ANTHROPIC_KEY: "anthropic-credential-for-tests-8hW",
  ODD_KEY: "odd-credential-for-tests-2kZ",
};

/** The Worker secret under which keys are hashed. */
export const KEY_HASH_SECRET = "hash-secret-for-tests-0pX-and-long-enough";

/** Where the mock provider listens, as configurations write it (the harness puts the real address in). */
export const MOCK = "http://127.0.0.1:8788";

/** Providers' section `health` where faults are provoked: whatever one test does, the next one's provider is as good as new. */
export const HEALTH = { passive: false };

/**
 * A configuration with a provider for each lane. `more` is merged into it, one level deep: its tables add to or replace
 * entries of the tables here.
 */
export function config(more = {}) {
  const tables = {
    routing: { max_attempts: 1 },
    providers: {
      openai: { dialect: "openai", base_url: `${MOCK}/v1`, credential: "OPENAI_KEY", health: HEALTH },
      inline: { dialect: "openai", base_url: `${MOCK}/v1`, credential: "OPENAI_KEY", stream_usage: "always", health: HEALTH },
      loose: { dialect: "openai", base_url: `${MOCK}/v1`, credential: "OPENAI_KEY", normalize: true, health: HEALTH },
      anthropic: { dialect: "anthropic", base_url: MOCK, credential: "ANTHROPIC_KEY", health: HEALTH },
    },
    models: {
      "gpt-test": { provider: "openai", upstream_model: "mock-large" },
      "gpt-inline": { provider: "inline", upstream_model: "mock-large" },
      "gpt-loose": { provider: "loose", upstream_model: "mock-large" },
      "claude-test": { provider: "anthropic", upstream_model: "mock-claude" },
    },
  };
  for (const [name, table] of Object.entries(more)) {
    tables[name] = Array.isArray(table) ? table : { ...tables[name], ...table };
  }
  return tables;
}

/** Lines of gateways' logs that have a secret in them, and how many lines were looked at. */
const leaks = [];
let looked = 0;

/** The last test of a file: nothing that any gateway in it wrote has a secret in it. (A hook's failure would not count.) */
export function assertNothingLeaked() {
  assert.deepEqual(leaks, []);
  assert.ok(looked > 0, "there was a log to look at");
}

/**
 * Starts the mock provider and the gateway in front of it; `given` makes further options from the former. The result's `stop()` ends both and looks for secrets in all
 * that the gateway has logged, for `assertNothingLeaked`.
 */
export async function start({ keys = [{ name: "app" }], secrets = {}, given = async () => ({}), ...options } = {}) {
  const mock = await startMock();
  try {
    const { secrets: more, ...others } = await given(mock);
    const all = { KEY_HASH_SECRET, ...PROVIDER_SECRETS, ...secrets, ...more };
    const gateway = await startGateway({ mockUrl: mock.url, config: config(), keys, secrets: all, ...options, ...others });
    const hidden = [...Object.values(all), ...Object.values(gateway.keys)];
    return {
      mock,
      gateway,
      url: gateway.url,
      key: gateway.keys.app,
      hidden,
      secrets: all,
      async stop() {
        await gateway.stop();
        await mock.stop();
        looked += gateway.logs.length;
        leaks.push(...linesWith(hidden, gateway.logs));
      },
    };
  } catch (error) {
    await mock.stop();
    throw error;
  }
}

/** The lines that have one of the secrets in them, or the part of an API key that is secret. */
export function linesWith(hidden, lines) {
  const words = hidden.map((secret) => /^sk-lgw-[^-]+-(.{32})/.exec(secret)?.[1] ?? secret);
  return lines.filter((line) => words.some((word) => line.includes(word)));
}

/**
 * A provider written in a test, for what the mock provider does not do. `answer` is a node:http request listener with
 * the body's text as third argument; `requests` collects what arrived.
 */
export async function startUpstream(answer) {
  const requests = [];
  const server = http.createServer(async (request, response) => {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    const seen = { method: request.method, path: request.url, headers: request.headers, closed: false };
    seen.body = Buffer.concat(pieces).toString();
    requests.push(seen);
    response.on("close", () => (seen.closed = true));
    await answer(request, response, seen.body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const stop = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { url: `http://127.0.0.1:${server.address().port}`, requests, stop };
}

// === Asking ===

let count = 0;
const run = randomBytes(4).toString("hex");

/** A name for one request: its `x-request-id` and its tag in the mock's journal. */
export const freshId = () => `e2e-${run}-${++count}`;

/** `[[mock key=value …]]`, which tells the mock provider what to do. */
export function directive(options) {
  const list = Object.entries(options).map(([key, value]) => `${key}=${encodeURIComponent(String(value))}`);
  return `[[mock ${list.join(" ")}]]`;
}

/** A conversation of one message with directives for the mock provider. */
export const ask = (options = {}, text = "Say something.") => [
  { role: "user", content: `${text} ${directive(options)}` },
];

/** What every kind of stream lane is asked with, and how its reply is to be read. */
export const LANES = {
  native: { model: "gpt-test", api: "chat", extra: { stream_options: { include_usage: true } }, usageChunk: true },
  // A provider that tells the usage unasked, within the last chunk that has choices.
  "native, usage always": {
    model: "gpt-inline",
    api: "chat",
    extra: {},
    directives: { usage_inline: 1 },
    usageInline: true,
  },
  relayed: { model: "gpt-test", api: "chat", extra: {} },
  normalised: { model: "gpt-loose", api: "chat", extra: {} },
  translated: { model: "claude-test", api: "chat", extra: {} },
  "translated, usage asked": {
    model: "claude-test",
    api: "chat",
    extra: { stream_options: { include_usage: true } },
    usageChunk: true,
  },
  "native Messages": { model: "claude-test", api: "messages", extra: { max_tokens: 4096 } },
  "translated Messages": { model: "gpt-test", api: "messages", extra: { max_tokens: 4096 } },
};

/** The name of a lane in the gateway's log. */
export const laneInLog = (name) =>
  name.startsWith("native") ? "native" : name.startsWith("relayed") ? "relayed" : "translated";

export const PATHS = { chat: "/v1/chat/completions", messages: "/v1/messages" };

/** Asks in a lane. Directives go to the mock; `fields` go into the body. Returns what [`send`] and [`open`] take. */
export function requestIn(
  lane,
  { url, key },
  { id = freshId(), stream = true, directives = {}, fields = {}, headers = {} } = {},
) {
  const extra = { ...lane.extra };
  if (!stream) delete extra.stream_options;
  const body = {
    model: lane.model,
    messages: ask({ tag: id, ...lane.directives, ...directives }),
    ...(stream && { stream: true }),
    ...extra,
    ...fields,
  };
  return {
    url: `${url}${PATHS[lane.api]}`,
    method: "POST",
    headers: { "content-type": "application/json", "x-request-id": id, authorization: `Bearer ${key}`, ...headers },
    body: JSON.stringify(body),
    id,
  };
}

// === Raw HTTP ===

// The server closes connections that have been idle for five seconds: none that old may be used again.
const agent = new http.Agent({ keepAlive: true, maxSockets: 32, timeout: 3_000 });

/**
 * Sends a request and cuts the connection, with a reset, when `when` resolves; resolves when that is done. A connection
 * that is merely closed while nothing is under way is a half-open one to the local runtime, so it would go unnoticed.
 */
export async function sendAndVanish(options, when) {
  const target = new URL(options.url);
  const { method, headers, body } = options;
  const request = http.request(target, { method, headers, agent: new http.Agent() });
  request.on("error", () => {});
  request.on("response", (response) => response.on("error", () => {}).resume());
  // It may be answered, and closed, before it is time.
  const closed = new Promise((resolve) => request.once("close", resolve));
  request.end(body);
  await when();
  request.socket?.resetAndDestroy();
  await closed;
}

/**
 * Sends a request and resolves once the reply's head is there, with the body as it comes: nothing is decompressed, no
 * redirect is followed, nothing is retried. `body` may be a string, bytes, or an async iterable of pieces (sent chunked).
 */
export function open({ url, method = "GET", headers = {}, body, fresh = false, agent: own = agent }) {
  return new Promise((resolve, reject) => {
    const target = new URL(url);
    const whole = typeof body === "string" || body instanceof Uint8Array;
    const request = http.request(target, {
      method,
      agent: fresh ? new http.Agent() : own,
      headers: { ...(whole && { "content-length": Buffer.byteLength(body) }), ...headers },
    });
    request.once("error", reject);
    request.once("response", (response) => {
      // A server may answer before it has read all of the request, and close.
      request.on("error", () => {});
      resolve({
        status: response.statusCode,
        headers: response.headers,
        body: response,
        // As SDKs leave: the connection is closed, which the server sees when it writes the next time.
        close: () => request.destroy(),
        // As a crash, or the network, ends a connection: the server sees it at once.
        reset: () => request.socket.resetAndDestroy(),
      });
    });
    if (whole || body === undefined) request.end(body);
    else {
      (async () => {
        for await (const piece of body) {
          if (request.destroyed || request.errored) return;
          if (!request.write(piece))
            await new Promise((resolve) => request.once("drain", resolve).once("close", resolve));
        }
        request.end();
      })().catch(reject);
    }
  });
}

/** Sends a request and reads the whole reply. */
export async function send(options) {
  const reply = await open(options);
  const pieces = [];
  for await (const piece of reply.body) pieces.push(piece);
  const bytes = Buffer.concat(pieces);
  return {
    status: reply.status,
    headers: reply.headers,
    bytes,
    text: bytes.toString(),
    get json() {
      return JSON.parse(bytes.toString());
    },
  };
}

// === Event streams ===

/** Reads events as the HTML standard defines them ("Interpreting an event stream"), whatever the line ends. */
export async function* events(body) {
  const decoder = new TextDecoder("utf-8"); // takes the byte order mark off
  let rest = "";
  let fields = { data: [] };
  const take = function* (text, last) {
    rest += text;
    for (;;) {
      const end = /\r\n|\r|\n/.exec(rest);
      // A CR at the very end may be half of a CRLF.
      if (!end || (!last && end[0] === "\r" && end.index === rest.length - 1)) return;
      const line = rest.slice(0, end.index);
      rest = rest.slice(end.index + end[0].length);
      if (line === "") {
        if (fields.data.length > 0) yield { event: fields.event ?? "message", data: fields.data.join("\n") };
        fields = { data: [] };
      } else if (!line.startsWith(":")) {
        const [, name, value = ""] = /^([^:]*)(?::(?: )?(.*))?$/s.exec(line);
        if (name === "data") fields.data.push(value);
        else fields[name] = value;
      }
    }
  };
  for await (const piece of body) yield* take(decoder.decode(piece, { stream: true }), false);
  yield* take(decoder.decode(), true);
}

const parsed = (data) => {
  try {
    return JSON.parse(data);
  } catch {
    return undefined;
  }
};

/**
 * Reads a streamed reply to its end, however it ends.
 *
 * - `text`, `reasons` (finish or stop reasons), `done` ([DONE] or message_stop), `usages` (usage objects)
 * - `errors`: error events; `afterError`: what came behind the first of them
 * - `illegible`: events whose data is not JSON
 * - `broken`: the connection ended without the reply's end
 */
export async function readStream(reply, api, onEvent = () => {}) {
  const read = {
    status: reply.status,
    headers: reply.headers,
    all: [],
    text: "",
    reasons: [],
    usages: [],
    ids: new Set(),
    errors: [],
    afterError: 0,
    illegible: 0,
    done: false,
    broken: false,
  };
  try {
    for await (const event of events(reply.body)) {
      const json = event.data === "[DONE]" ? undefined : parsed(event.data);
      read.all.push({ ...event, json });
      if (read.errors.length > 0) read.afterError += 1;
      if (event.data === "[DONE]") read.done = true;
      else if (json === undefined) read.illegible += 1;
      else if (json.error) read.errors.push({ event: event.event, ...json });
      else if (api === "messages") {
        assert.equal(event.event, json.type, "an event's name is its type");
        read.text += json.delta?.text ?? "";
        if (json.delta?.stop_reason) read.reasons.push(json.delta.stop_reason);
        if (json.type === "message_stop") read.done = true;
        const usage = json.usage ?? json.message?.usage;
        if (usage) read.usages.push(usage);
      } else {
        read.ids.add(json.id);
        for (const choice of json.choices) {
          read.text += choice.delta.content ?? "";
          if (choice.finish_reason) read.reasons.push(choice.finish_reason);
        }
        if (json.usage) read.usages.push(json.usage);
      }
      await onEvent(event, json, read);
    }
  } catch (error) {
    if (error.code === "ERR_ASSERTION") throw error;
    read.broken = true;
    read.why = error;
  }
  return read;
}

/** Asks in a lane and reads the stream, or the error that came instead. */
export async function streamIn(lane, at, options, onEvent) {
  const request = requestIn(lane, at, options);
  const reply = await open(request);
  if (!reply.headers["content-type"]?.startsWith("text/event-stream")) {
    const pieces = [];
    for await (const piece of reply.body) pieces.push(piece);
    const text = Buffer.concat(pieces).toString();
    return { id: request.id, status: reply.status, headers: reply.headers, text, json: parsed(text) };
  }
  return { id: request.id, ...(await readStream(reply, lane.api, onEvent)) };
}

/** That a stream is complete: one reason why it ended, the end mark, no error, nothing behind it. */
export function assertComplete(
  read,
  lane,
  { endMark = true, reasons = [lane.api === "messages" ? "end_turn" : "stop"] } = {},
) {
  const { broken, errors, illegible } = read;
  assert.deepEqual(
    { status: read.status, broken, errors, illegible },
    { status: 200, broken: false, errors: [], illegible: 0 },
  );
  assert.deepEqual(read.reasons, reasons);
  if (endMark) {
    assert.ok(read.done, "the end mark came");
    const last = read.all.at(-1);
    assert.equal(lane.api === "chat" ? last.data : last.json.type, lane.api === "chat" ? "[DONE]" : "message_stop");
  }
  if (lane.api === "chat") assert.equal(read.ids.size, 1, "all chunks have one id");
}

/** That a body is an error in a dialect. */
export function assertErrorBody(body, api, message) {
  assert.equal(typeof body?.error?.message, "string", message ?? `not an error: ${JSON.stringify(body)}`);
  assert.notEqual(body.error.message, "");
  assert.equal(typeof body.error.type, "string", `an error has a type: ${JSON.stringify(body)}`);
  if (api === "messages") {
    assert.equal(body.type, "error");
    assert.equal(typeof body.request_id, "string", `the request id is missing: ${JSON.stringify(body)}`);
  } else {
    assert.ok("code" in body.error && "param" in body.error, `code and param are missing: ${JSON.stringify(body)}`);
  }
}

/** That a stream that had begun ended with exactly one error event, as its last event, and with nothing that says success. */
export function assertBrokenOff(read, lane) {
  assert.equal(read.status, 200);
  assert.equal(read.broken, false, `the stream ends with an event, not with a broken connection (${read.why})`);
  assert.equal(read.errors.length, 1, `one error event, not ${JSON.stringify(read.all.slice(-3))}`);
  assertErrorBody(read.errors[0], lane.api);
  if (lane.api === "messages") assert.equal(read.errors[0].event, "error");
  assert.equal(read.afterError, 0, "nothing follows the error");
  assert.equal(read.done, false, "there is no end mark");
  assert.deepEqual(read.reasons, [], "there is no finish reason");
}

// === What came of it ===

/** Waits until `check` gives something that is not undefined, null or false, and returns that. */
export async function eventually(check, what, { timeout = 10_000, interval = 20 } = {}) {
  const end = Date.now() + timeout;
  let last;
  for (;;) {
    const found = await check((seen) => (last = seen));
    if (found !== undefined && found !== null && found !== false) return found;
    if (Date.now() > end)
      assert.fail(
        `${what}: not within ${timeout} ms${last === undefined ? "" : `; last seen: ${JSON.stringify(last)}`}`,
      );
    await sleep(interval);
  }
}

/** The log lines of a gateway that are requests', parsed. */
export const requestLines = (gateway) => gateway.logs.map(parsed).filter((line) => line?.event === "request");

/** The one log line of a request. */
export async function logOf(gateway, id, { timeout = 10_000 } = {}) {
  const found = () => requestLines(gateway).filter((line) => line.request_id === id);
  await eventually(() => found().length > 0, `a log line for ${id}`, { timeout });
  const lines = found();
  assert.equal(lines.length, 1, `one log line a request, not ${lines.length}`);
  return lines[0];
}

/** The mock provider's journal entries with a tag. */
export const journalOf = (mock, tag) => mock.journal(tag);

/** The only journal entry with a tag. */
export async function received(mock, tag) {
  const entries = await journalOf(mock, tag);
  assert.equal(entries.length, 1, `one request reached the provider, not ${entries.length}`);
  return entries[0];
}

/** Waits until the provider's side of a request has ended in some way. */
export function upstreamEnded(mock, tag, outcome, { timeout = 10_000 } = {}) {
  return eventually(
    async (seen) => {
      const [entry] = await journalOf(mock, tag);
      seen(entry?.outcome);
      return entry?.outcome === outcome && entry;
    },
    `${outcome} at the provider (${tag})`,
    { timeout },
  );
}

/** All tokens in and out, as the log's usage vector has them. */
export function tokens(usage) {
  const sum = (...names) => names.reduce((total, name) => total + (usage?.[name] ?? 0), 0);
  return {
    input: sum("input", "cache_read", "cache_write_5m", "cache_write_1h", "input_audio"),
    output: sum("output", "output_reasoning", "output_audio"),
  };
}

export { sleep };
