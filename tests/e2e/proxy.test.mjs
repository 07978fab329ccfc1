// Paths of a provider's own, through `/v1/proxy/{provider}/{path…}`: what passes and what never does, whom it is charged to,
// and that nothing is gathered on the way.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import http from "node:http";
import { after, before, describe, test } from "node:test";

import {
  HEALTH,
  MOCK,
  ask,
  assertErrorBody,
  assertNothingLeaked,
  config,
  eventually,
  events,
  freshId,
  journalOf,
  logOf,
  open,
  received,
  send,
  sleep,
  start,
  tokens,
  upstreamEnded,
} from "./support.mjs";

const MIB = 1024 * 1024;

/** A provider that notes what arrives, as it arrives, and answers as `replies` says. */
async function startEcho() {
  const requests = [];
  const replies = new Map();
  const server = http.createServer(async (request, response) => {
    const seen = { method: request.method, path: request.url, headers: request.headers, bytes: 0, whole: false };
    requests.push(seen);
    const hash = createHash("sha256");
    request.on("error", () => (seen.broken = true));
    response.on("close", () => (seen.closed = true));
    try {
      for await (const piece of request) {
        seen.bytes += piece.length;
        hash.update(piece);
      }
      seen.whole = true;
    } catch {
      return;
    }
    seen.sha256 = hash.digest("hex");
    const path = new URL(request.url, "http://echo").pathname;
    const answer = [...replies].find(([end]) => path.endsWith(end))?.[1];
    if (answer) return answer(request, response);
    response.setHeader("content-type", "application/json");
    response.end(request.method === "HEAD" ? undefined : JSON.stringify({ method: seen.method, bytes: seen.bytes }));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const stop = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { url: `http://127.0.0.1:${server.address().port}`, requests, replies, stop };
}

/** Sends a request whose path nothing tidies up first. */
function sendRaw({ url, key, path, method = "GET" }) {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const request = http.request({ hostname, port, path, method, headers: { authorization: `Bearer ${key}` } });
    request.once("error", reject);
    request.once("response", (response) => {
      response.resume();
      response.once("end", () => resolve(response.statusCode));
    });
    request.end();
  });
}

describe("paths of providers", () => {
  let at, echo, mock, gateway, keys;

  const PRICE = { input: "1", output: "2" };

  before(async () => {
    echo = await startEcho();
    const own = (more = {}) => ({ dialect: "openai", base_url: `${echo.url}/base`, health: HEALTH, ...more });
    const providers = {
      echo: own({ credential: "OPENAI_KEY", headers: { "x-own": "ours" } }),
      off: own({ enabled: false }),
      tight: own({ limits: [{ dimension: "requests", period: "day", amount: 1 }] }),
      gemini: { dialect: "gemini", base_url: `${MOCK}/v1beta`, credential: "OPENAI_KEY", health: HEALTH },
      gone: { ...own(), base_url: "http://127.0.0.1:9/v1" },
      short: own({ timeouts: { first_byte_ms: 300, idle_ms: 300, total_ms: 1_000 } }),
    };
    const models = {
      flash: { provider: "gemini", upstream_model: "gemini-2.5-flash" },
      "echo-model": { provider: "echo" },
      "off-model": { provider: "echo", enabled: false },
    };
    const prices = { "gpt-test": PRICE, flash: PRICE, "claude-test": PRICE };
    const endpoints = ["/v1/proxy/*", "/v1/chat/completions"];
    at = await start({
      config: config({ providers, models, prices, records: { mode: "all", flush_ms: 100 } }),
      vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
      keys: [
        { name: "app", endpoints },
        { name: "plain" },
        { name: "all", endpoints: ["/v1/*"] },
        { name: "narrow", endpoints: ["/v1/proxy/echo/files*"] },
        { name: "bound", endpoints, models: ["gpt-test", "flash"] },
      ],
    });
    ({ mock, gateway } = at);
    keys = gateway.keys;
  });

  after(async () => {
    await at?.stop();
    await echo?.stop();
  });

  /** Asks for a path; `headers` over the usual ones. The reply with the request's `id`. */
  async function pass(path, { key = keys.app, method = "GET", headers = {}, body, ...more } = {}) {
    const id = freshId();
    const json = body && typeof body === "object" && !(body instanceof Uint8Array) && !body[Symbol.asyncIterator];
    const reply = await send({
      url: `${at.url}/v1/proxy/${path}`,
      method,
      headers: {
        authorization: `Bearer ${key}`,
        "x-request-id": id,
        ...(json && { "content-type": "application/json" }),
        ...headers,
      },
      body: json ? JSON.stringify(body) : body,
      ...more,
    });
    return Object.assign(reply, { id });
  }

  const last = () => echo.requests.at(-1);
  const chatBody = (tag, more = {}, directives = {}) => ({ model: "mock-large", messages: ask({ tag, ...directives }), ...more });

  describe("who may", () => {
    test("only keys that name such paths", async () => {
      for (const [key, path, status] of [
        ["plain", "echo/files", 403],
        ["all", "echo/files", 403],
        ["narrow", "echo/files/1", 200],
        ["narrow", "echo/models", 403],
        ["narrow", "openai/files", 403],
        ["app", "echo/anything", 200],
      ]) {
        const reply = await pass(path, { key: keys[key] });
        assert.equal(reply.status, status, `${key} ${path}: ${reply.text}`);
        if (status === 403) assert.equal(reply.json.error.code, "endpoint_not_allowed");
      }
      assert.equal((await send({ url: `${at.url}/v1/proxy/echo/files` })).status, 401);
      const chat = { url: `${at.url}/v1/chat/completions`, method: "POST", body: JSON.stringify(chatBody(freshId(), { model: "gpt-test" })) };
      assert.equal((await send({ ...chat, headers: { authorization: `Bearer ${keys.plain}` } })).status, 200);
    });

    test("a key with models, for these alone", async () => {
      const bound = { key: keys.bound, method: "POST" };
      const generate = { contents: [{ role: "user", parts: [{ text: "Hi." }] }] };
      for (const [path, body, status] of [
        ["openai/chat/completions", chatBody(freshId()), 200],
        ["openai/chat/completions", chatBody(freshId(), { model: "mock-small" }), 403],
        ["openai/chat/completions", chatBody(freshId(), { models: ["mock-small"] }), 403],
        ["openai/files", { purpose: "x" }, 403],
        ["echo/chat/completions", { model: "echo-model" }, 403],
        ["gemini/models/gemini-2.5-flash:generateContent", generate, 200],
        ["gemini/models/gemini-2.5-pro:generateContent", generate, 403],
      ]) {
        const reply = await pass(path, { ...bound, body });
        assert.equal(reply.status, status, `${path}: ${reply.text}`);
        if (status === 403) assert.equal(reply.json.error.code, "model_not_allowed");
      }
      assert.equal((await pass("openai/models", { key: keys.bound })).status, 403);
      const twice = await pass("echo/x", { ...bound, body: '{"model":"a","model":"b"}', headers: { "content-type": "application/json" } });
      assert.deepEqual([twice.status, twice.json.error.param], [400, "model"]);
      assert.equal((await pass("echo/x", { method: "POST", body: { model: "off-model" } })).status, 403);
    });

    test("what a key with models may use cannot be hidden behind the bound of what is held", async () => {
      const padding = "x".repeat(9 * MIB);
      const body = `{"model":"mock-large","padding":"${padding}","model":"mock-small"}`;
      const headers = { "content-type": "application/json" };
      const before = echo.requests.length;
      const reply = await pass("echo/chat/completions", { key: keys.bound, method: "POST", body, headers, fresh: true });
      assert.equal(reply.status, 403);
      assert.equal(echo.requests.length, before);
    });

    test("a provider that is there and on", async () => {
      for (const [path, status, code] of [
        ["nobody/files", 404, "unknown_provider"],
        ["off/files", 503, "provider_unavailable"],
        ["gone/files", 502, "upstream_unreachable"],
      ]) {
        const reply = await pass(path);
        assert.deepEqual([reply.status, reply.json.error.code], [status, code]);
        assertErrorBody(reply.json);
      }
    });

    test("limits of the provider", async () => {
      assert.equal((await pass("tight/files")).status, 200);
      const reply = await pass("tight/files");
      assert.deepEqual([reply.status, reply.json.error.code], [429, "provider_limit"]);
    });
  });

  describe("what passes", () => {
    test("every method, with its body and the provider's credential", async () => {
      for (const method of ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]) {
        const body = ["GET", "HEAD"].includes(method) ? undefined : new Uint8Array(1000).fill(7);
        const reply = await pass("echo/things/1?a=b%20c&key=mine&d", { method, body });
        assert.equal(reply.status, 200, `${method}: ${reply.text}`);
        const seen = last();
        assert.deepEqual([seen.method, seen.path, seen.bytes], [method, "/base/things/1?a=b%20c&d", body ? 1000 : 0]);
        assert.equal(seen.headers.authorization, "Bearer openai-credential-for-tests-5fQ");
        if (method !== "HEAD") assert.equal(reply.json.method, method);
        const line = await logOf(gateway, reply.id);
        assert.deepEqual([line.lane, line.outcome, line.provider, line.upstream_status], ["proxy", "completed", "echo", 200]);
        assert.equal(line.usage, undefined, "nobody has used any tokens");
      }
      const traced = await pass("echo/x", { method: "PROPFIND" });
      assert.deepEqual([traced.status, traced.headers.allow], [405, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"]);
    });

    test("headers, but none that tells of the caller", async () => {
      const kept = {
        "x-api-key": "something-of-mine",
        "api-key": "something-of-mine",
        "x-goog-api-key": "something-of-mine",
        cookie: "session=1",
        "proxy-authorization": "Basic eDp5",
        te: "trailers",
        "x-hop": "1",
        connection: "x-hop",
        "x-gateway-metadata": "{}",
        "cf-ray": "1",
        "cf-connecting-ip": "203.0.113.9",
        "x-forwarded-host": "h",
        "x-real-ip": "203.0.113.9",
        "true-client-ip": "203.0.113.9",
        forwarded: "for=203.0.113.9",
        referer: "https://app.example/",
        "openai-organization": "org-theirs",
        "x-amz-security-token": "t",
        "x-smuggled": `Bearer ${keys.app}`,
        "x-own": "theirs",
      };
      const passing = { "x-mine": "1", range: "bytes=0-9", "openai-beta": "assistants=v2", "if-none-match": '"e"' };
      await pass(`echo/files?note=${keys.app}&ok=1`, { headers: { ...kept, ...passing }, fresh: true });
      const { headers, path } = last();
      assert.equal(path, "/base/files?ok=1");
      for (const [name, value] of Object.entries(passing)) assert.equal(headers[name], value, name);
      assert.equal(headers["x-own"], "ours");
      const allowed = ["authorization", "host", "connection", "x-own", "user-agent"];
      const others = Object.keys(kept).filter((name) => !allowed.includes(name));
      for (const name of others) assert.equal(headers[name], undefined, name);
      assert.match(headers["user-agent"], /^llm-gateway\//);
      assert.doesNotMatch(JSON.stringify(headers), /203\.0\.113\.9|sk-lgw|theirs/);
    });

    test("headers of replies that are known to be harmless", async () => {
      echo.replies.set("/talkative", (_, response) => {
        response.writeHead(206, {
          "content-type": "application/octet-stream",
          "content-disposition": "attachment; filename=a.bin",
          "content-range": "bytes 0-3/10",
          etag: '"1"',
          "set-cookie": ["a=b", "c=d"],
          "x-internal": "10.0.0.1",
          "openai-organization": "operators-account",
          "strict-transport-security": "max-age=1",
          "x-request-id": "theirs-1",
          "access-control-allow-origin": "*",
        });
        response.end("abcd");
      });
      const reply = await pass("echo/talkative");
      assert.deepEqual([reply.status, reply.text], [206, "abcd"]);
      const { headers } = reply;
      assert.deepEqual(
        [headers["content-type"], headers["content-disposition"], headers["content-range"], headers.etag],
        ["application/octet-stream", "attachment; filename=a.bin", "bytes 0-3/10", '"1"'],
      );
      for (const name of ["set-cookie", "x-internal", "openai-organization", "strict-transport-security", "access-control-allow-origin"])
        assert.equal(headers[name], undefined, name);
      assert.equal(headers["x-request-id"], reply.id);
      assert.equal(headers["x-gateway-upstream-request-id"], "theirs-1");
    });

    test("errors as they are, but what is about the gateway's own credential", async () => {
      const answers = { 404: { detail: "no such file" }, 422: { detail: [1] }, 429: { error: { message: "slow down" } }, 503: {} };
      for (const [status, body] of Object.entries(answers)) {
        echo.replies.set(`/fails-${status}`, (_, response) => {
          response.writeHead(Number(status), { "content-type": "application/problem+json", "retry-after": "7" });
          response.end(JSON.stringify(body));
        });
        const reply = await pass(`echo/fails-${status}`);
        assert.deepEqual([reply.status, reply.json, reply.headers["retry-after"]], [Number(status), body, "7"]);
        assert.equal(reply.headers["content-type"], "application/problem+json");
        assert.equal((await logOf(gateway, reply.id)).outcome, "failed");
      }
      for (const [status, code] of [
        [401, "upstream_credential_refused"],
        [403, "upstream_credential_refused"],
        [302, "upstream_redirect"],
      ]) {
        echo.replies.set(`/hides-${status}`, (_, response) => {
          response.writeHead(status, { location: "http://127.0.0.1:1/", "content-type": "application/json" });
          response.end('{"error":{"message":"account acme-operators"}}');
        });
        const reply = await pass(`echo/hides-${status}`);
        assert.deepEqual([reply.status, reply.json.error.code], [502, code]);
        assert.doesNotMatch(reply.text + JSON.stringify(reply.headers), /127\.0\.0\.1:1/);
        if (status !== 302) assert.doesNotMatch(reply.text, /acme-operators/);
      }
      // What callers provoke at paths of their choice says nothing of the models.
      assert.equal((await pass("echo/fine")).status, 200);
    });

    test("replies without a body", async () => {
      echo.replies.set("/empty", (_, response) => response.writeHead(204).end());
      echo.replies.set("/unchanged", (_, response) => response.writeHead(304, { etag: '"1"' }).end());
      for (const [path, status] of [["echo/empty", 204], ["echo/unchanged", 304]]) {
        const reply = await pass(path);
        assert.deepEqual([reply.status, reply.bytes.length], [status, 0]);
      }
    });
  });

  test("paths that could lead elsewhere lead nowhere", async () => {
    const before = echo.requests.length;
    for (const path of [
      "echo/../secret",
      "echo/%2e%2e/secret",
      "echo/.%2e/secret",
      "echo/a/../../secret",
      "echo/%252e%252e/secret",
      "echo/..;/secret",
      "echo/..%2fsecret",
      "echo/a%2fb",
      "echo/a%5cb",
      "echo/a\\..\\..\\secret",
      "echo//files",
      "echo/%2f%2fevil.example/x",
      "echo/%00",
      "echo/a%0d%0ax:y",
      "echo",
      "echo/",
      "/echo/files",
      "%2e%2e/echo/files",
    ]) {
      const status = await sendRaw({ url: at.url, key: keys.app, path: `/v1/proxy/${path}` });
      assert.ok([400, 403, 404].includes(status), `${path}: ${status}`);
    }
    assert.deepEqual(echo.requests.slice(before).map(({ path }) => path), []);
    // An at sign is a letter like any other: nobody can be logged in to.
    assert.equal(await sendRaw({ url: at.url, key: keys.app, path: "/v1/proxy/echo/@evil.example:80/x" }), 200);
    assert.equal(last().path, "/base/@evil.example:80/x");
  });

  describe("what it costs", () => {
    const generate = (tag) => ({ contents: [{ role: "user", parts: [{ text: ask({ tag, usage_in: 30, usage_out: 20 })[0].content }] }] });
    const claude = (tag) => ({ model: "mock-claude", max_tokens: 100, messages: ask({ tag, usage_in: 30, usage_out: 20 }) });
    for (const [name, path, body, headers] of [
      ["Chat Completions", "openai/chat/completions", (tag) => chatBody(tag, {}, { usage_in: 30, usage_out: 20 })],
      ["a stream", "openai/chat/completions", (tag) => chatBody(tag, { stream: true, stream_options: { include_usage: true } }, { usage_in: 30, usage_out: 20 })],
      ["Messages", "anthropic/v1/messages", claude, { "anthropic-version": "2023-06-01" }],
      ["streamed Messages", "anthropic/v1/messages", (tag) => ({ ...claude(tag), stream: true }), { "anthropic-version": "2023-06-01" }],
      ["Gemini", "gemini/models/gemini-2.5-flash:generateContent", generate],
      ["a stream of Gemini's", "gemini/models/gemini-2.5-flash:streamGenerateContent?alt=sse", generate],
    ]) {
      test(name, async () => {
        const tag = freshId();
        const reply = await pass(path, { method: "POST", body: body(tag), headers });
        assert.equal(reply.status, 200, reply.text);
        const line = await logOf(gateway, reply.id);
        assert.deepEqual(tokens(line.usage), { input: 30, output: 20 });
        assert.deepEqual([line.lane, line.cost_nanodollars, line.usage_estimated], ["proxy", 30 * 1000 + 20 * 2000, undefined]);
        const { headers: sent } = await received(mock, tag);
        assert.doesNotMatch(JSON.stringify(sent), /sk-lgw/);
      });
    }

    test("an estimate where nothing is told", async () => {
      const reply = await pass("openai/chat/completions", { method: "POST", body: chatBody(freshId(), {}, { no_usage: 1, text: "y".repeat(400) }) });
      const line = await logOf(gateway, reply.id);
      assert.equal(line.usage_estimated, true);
      assert.ok(line.usage.input > 20 && line.usage.output >= 100, JSON.stringify(line.usage));
      assert.ok(line.cost_nanodollars > 0);
    });

    test("nothing for what is asked for again", async () => {
      echo.replies.set("/responses/1", (_, response) => {
        response.setHeader("content-type", "application/json");
        response.end('{"usage":{"input_tokens":5,"output_tokens":5}}');
      });
      const reply = await pass("echo/responses/1");
      assert.equal((await logOf(gateway, reply.id)).usage, undefined);
    });

    test("a model that is not configured has no price", async () => {
      const reply = await pass("echo/chat/completions", { method: "POST", body: { model: "unheard-of" } });
      assert.deepEqual([reply.status, reply.headers["x-gateway-unpriced"]], [200, "true"]);
      assert.equal((await pass("echo/files")).headers["x-gateway-unpriced"], undefined);
    });
  });

  describe("streams and large bodies", () => {
    test("a stream comes as it is written", async () => {
      const tag = freshId();
      const reply = await open({
        url: `${at.url}/v1/proxy/openai/chat/completions`,
        method: "POST",
        headers: { authorization: `Bearer ${keys.app}`, "content-type": "application/json" },
        body: JSON.stringify(chatBody(tag, { stream: true }, { chunks: 4, gap_ms: 300 })),
      });
      const times = [];
      for await (const _ of events(reply.body)) times.push(Date.now());
      assert.ok(times.at(-1) - times[0] > 600, `the first event did not wait for the last: ${times.at(-1) - times[0]} ms`);
    });

    test("a stream that breaks off ends with an error", async () => {
      const claude = { path: "anthropic/v1/messages", body: { model: "mock-claude", max_tokens: 100 }, headers: { "anthropic-version": "2023-06-01" } };
      const gpt = { path: "openai/chat/completions", body: {} };
      for (const fault of ["reset_at", "close_at"]) {
        for (const { path, body, headers } of [gpt, claude]) {
          const id = freshId();
          const reply = await open({
            url: `${at.url}/v1/proxy/${path}`,
            method: "POST",
            headers: { authorization: `Bearer ${keys.app}`, "content-type": "application/json", "x-request-id": id, ...headers },
            body: JSON.stringify(chatBody(freshId(), { stream: true, ...body }, { chunks: 6, gap_ms: 100, [fault]: 3 })),
          });
          assert.equal(reply.status, 200);
          const seen = [];
          for await (const event of events(reply.body)) seen.push(event);
          assertErrorBody(JSON.parse(seen.at(-1).data), path.startsWith("anthropic") ? "messages" : "chat");
          const line = await logOf(gateway, id);
          assert.deepEqual([line.outcome, line.error_code], ["failed", "upstream_connection_broken"]);
        }
      }
    });

    test("any other reply that breaks off has no end", async () => {
      echo.replies.set("/torn-reply", (_, response) => {
        response.writeHead(200, { "content-type": "application/octet-stream", "content-length": 1_000_000 });
        response.write(Buffer.alloc(300_000), () => setTimeout(() => response.destroy(), 100));
      });
      const id = freshId();
      const reply = await open({
        url: `${at.url}/v1/proxy/echo/torn-reply`,
        headers: { authorization: `Bearer ${keys.app}`, "x-request-id": id },
        fresh: true,
      });
      assert.deepEqual([reply.status, reply.headers["content-length"]], [200, "1000000"]);
      await assert.rejects(async () => {
        for await (const _ of reply.body);
      });
      assert.equal((await logOf(gateway, id)).outcome, "failed");
    });

    test("a provider that falls silent is given up", async () => {
      echo.replies.set("/silent", () => {});
      const reply = await pass("short/silent");
      assert.equal(reply.status, 504);
      echo.replies.set("/pauses", (_, response) => {
        response.writeHead(200, { "content-type": "application/octet-stream", "content-length": 10 });
        response.write("abc");
      });
      const paused = await open({
        url: `${at.url}/v1/proxy/short/pauses`,
        headers: { authorization: `Bearer ${keys.app}` },
        fresh: true,
      });
      await assert.rejects(async () => {
        for await (const _ of paused.body);
      });
    });

    test("a caller who leaves ends the provider's work", async () => {
      const tag = freshId();
      const reply = await open({
        url: `${gateway.edgeUrl}/v1/proxy/openai/chat/completions`,
        method: "POST",
        headers: { authorization: `Bearer ${keys.app}`, "content-type": "application/json" },
        body: JSON.stringify(chatBody(tag, { stream: true }, { chunks: 100, gap_ms: 100 })),
        fresh: true,
      });
      reply.body.on("error", () => {});
      await new Promise((resolve) => reply.body.once("data", resolve));
      reply.reset();
      await upstreamEnded(mock, tag, "client_disconnected");
    });

    test("a large body goes out while it comes in, byte for byte", async () => {
      const piece = Buffer.alloc(MIB, "0123456789abcdef");
      const hash = createHash("sha256");
      let early = 0;
      async function* body() {
        for (let nth = 0; nth < 60; nth += 1) {
          if (nth === 30) {
            const seen = await eventually(() => echo.requests.find(({ path }) => path === "/base/big"), "the head of the upload");
            await eventually(() => seen.bytes > 4 * MIB, "the first bytes of the upload");
            early = seen.bytes;
            assert.equal(seen.whole, false);
          }
          hash.update(piece);
          yield piece;
        }
      }
      const reply = await pass("echo/big", { method: "POST", body: body(), headers: { "content-type": "application/octet-stream" } });
      assert.deepEqual([reply.status, reply.json.bytes], [200, 60 * MIB]);
      assert.equal(last().sha256, hash.digest("hex"));
      assert.ok(early > 4 * MIB);
    });

    test("a body has the length that was announced", async () => {
      const body = new Uint8Array(3 * MIB).fill(1);
      await pass("echo/sized", { method: "PUT", body, headers: { "content-type": "application/octet-stream" } });
      assert.deepEqual([last().headers["content-length"], last().bytes], [String(3 * MIB), 3 * MIB]);
    });

    test("a body that is too large, announced or not, does not arrive as a whole", async () => {
      const announced = await pass("echo/huge", {
        method: "POST",
        headers: { "content-type": "application/octet-stream", "content-length": String(101 * MIB) },
        body: (async function* () {
          yield Buffer.alloc(10);
        })(),
        fresh: true,
      });
      assert.equal(announced.status, 413);
      const piece = Buffer.alloc(MIB);
      const reply = await pass("echo/endless", {
        method: "POST",
        headers: { "content-type": "application/octet-stream" },
        body: (async function* () {
          for (let nth = 0; nth < 110; nth += 1) yield piece;
        })(),
        fresh: true,
      });
      assert.equal(reply.status, 413);
      const seen = echo.requests.find(({ path }) => path === "/base/endless");
      await eventually(() => seen.broken || seen.closed, "the end of the upload");
      assert.equal(seen.whole, false);
    });

    test("an upload that breaks off does not arrive as a whole", async () => {
      const target = new URL(`${gateway.edgeUrl}/v1/proxy/echo/torn`);
      const request = http.request(target, {
        method: "POST",
        agent: new http.Agent(),
        headers: { authorization: `Bearer ${keys.app}`, "content-type": "application/octet-stream" },
      });
      request.on("error", () => {});
      request.write(Buffer.alloc(2 * MIB));
      const seen = await eventually(() => echo.requests.find(({ path }) => path === "/base/torn"), "the upload's head");
      await eventually(() => seen.bytes > 0, "the upload's beginning");
      await sleep(100);
      request.socket.resetAndDestroy();
      await eventually(() => seen.broken || seen.closed, "the upload's end");
      assert.equal(seen.whole, false);
    });
  });

  test("the callers' keys are nowhere at the providers", async () => {
    const journal = JSON.stringify(await journalOf(mock)) + JSON.stringify(echo.requests);
    for (const key of Object.values(keys)) assert.ok(!journal.includes(key));
    assert.ok(journal.length > 10_000);
  });
});

describe("limits of the caller", () => {
  let at;

  before(async () => {
    const limits = { lease_ms: 0, per_key: [{ dimension: "requests", period: "day", amount: 2 }], per_account: [{ dimension: "cost", period: "day", amount: 1 }] };
    at = await start({
      config: config({ limits, prices: { "gpt-test": { input: "1", output: "2" } } }),
      keys: ["one", "two"].map((name) => ({ name, account: name, endpoints: ["/v1/proxy/*"] })),
    });
  });
  after(() => at?.stop());

  const models = (key) => send({ url: `${at.url}/v1/proxy/openai/models`, headers: { authorization: `Bearer ${key}` } });

  test("requests are counted", async () => {
    const statuses = [];
    for (let nth = 0; nth < 3; nth += 1) statuses.push((await models(at.gateway.keys.one)).status);
    assert.deepEqual(statuses, [200, 200, 429]);
  });

  test("a budget is reserved for by estimate", async () => {
    const body = JSON.stringify({ model: "mock-large", max_tokens: 100_000_000, messages: ask({ tag: freshId() }) });
    const headers = { authorization: `Bearer ${at.gateway.keys.two}`, "content-type": "application/json" };
    const reply = await send({ url: `${at.url}/v1/proxy/openai/chat/completions`, method: "POST", headers, body });
    assert.ok([402, 429].includes(reply.status), `${reply.status}: ${reply.text}`);
  });
});

test("nothing leaked", assertNothingLeaked);
