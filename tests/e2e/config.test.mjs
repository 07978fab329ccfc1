// What can be configured changes what the gateway does: the parameters that only show at the running Worker, the layers,
// and scripts/config. (Those of the core are tested natively, next to it.)

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { ROOT } from "./harness.mjs";
import {
  MOCK,
  PATHS,
  ask,
  assertNothingLeaked,
  config,
  eventually,
  freshId,
  logOf,
  received,
  requestLines,
  send,
  sleep,
  start,
} from "./support.mjs";

const openai = { dialect: "openai", base_url: `${MOCK}/v1`, credential: "OPENAI_KEY" };

/** Asks for a model and returns the reply, with the request's `id`. */
async function call(at, model, { directives = {}, headers = {}, fields = {}, api = "chat" } = {}) {
  const id = freshId();
  const body = { model, messages: ask({ tag: id, ...directives }), ...fields };
  const reply = await send({
    url: `${at.url}${PATHS[api]}`,
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${at.key}`, "x-request-id": id, ...headers },
    body: JSON.stringify(body),
  });
  return Object.assign(reply, { id });
}

describe("a configured gateway", { concurrency: true }, () => {
  let at;

  before(async () => {
    at = await start({
      config: config({
        http: { request_body_wait_ms: 200, max_error_bytes: 1024, forward_headers: ["x-team"], hsts_seconds: 60 },
        logging: { client_ip: "truncated", user_agent: true, slow_ms: 300 },
        providers: {
          named: { ...openai, user_agent: "acme-gateway/7", forward_headers: ["x-project"] },
          off: { ...openai, enabled: false },
          sealed: { ...openai, credential: "stored:cred_missing" },
        },
        models: {
          named: { provider: "named", upstream_model: "mock-large", description: "The good one", owned_by: "acme" },
          off: { provider: "named", upstream_model: "mock-large", enabled: false },
          "of-off": { provider: "off", upstream_model: "mock-large" },
          sealed: { provider: "sealed", upstream_model: "mock-large" },
          small: { provider: "openai", upstream_model: "mock-large", context_tokens: 100 },
        },
        routes: {
          best: { description: "Whatever is best", targets: [{ model: "of-off" }, { model: "small" }, { model: "named" }] },
          nowhere: { targets: [{ model: "off" }, { model: "of-off" }] },
          closed: { enabled: false, targets: [{ model: "named" }] },
        },
        prices: { named: { input: "2.5", output: "10", per_request: "0.001" } },
      }),
      keys: [{ name: "app" }, { name: "routes", models: ["best"] }],
      vars: {
        GATEWAY__HTTP__MAX_JSON_DEPTH: "20",
        GATEWAY__PROVIDERS__NAMED__HEADERS: '{"x-from-environment": "yes"}',
        GATEWAY__LOGGING__LEVEL: "nonsense",
      },
    });
  });

  after(() => at?.stop());

  test("answers a route by its first target that can be called", async () => {
    const reply = await call(at, "best");
    assert.equal(reply.status, 200, reply.text);
    const line = await logOf(at.gateway, reply.id);
    assert.deepEqual([line.model, line.route, line.deployment, line.provider], ["best", "best", "small", "openai"]);
    const long = await call(at, "best", { fields: { metadata: { long: "word ".repeat(200) } } });
    assert.equal(long.status, 200, long.text);
    assert.equal((await logOf(at.gateway, long.id)).deployment, "named");
  });

  test("refuses what cannot be called, and says why", async () => {
    const told = async (model, options) => {
      const { status, json } = await call(at, model, options);
      return [status, json.error.code];
    };
    assert.deepEqual(await told("off"), [404, "model_not_found"]);
    assert.deepEqual(await told("closed"), [404, "model_not_found"]);
    assert.deepEqual(await told("of-off"), [503, "provider_unavailable"]);
    assert.deepEqual(await told("sealed"), [503, "provider_unavailable"]);
    assert.deepEqual(await told("nowhere"), [503, "no_target_available"]);
    const long = { fields: { metadata: { long: "word ".repeat(200) } } };
    assert.deepEqual(await told("small", long), [400, "context_length_exceeded"]);
  });

  test("lets a key that may use a route alone use just that", async () => {
    const key = at.gateway.keys.routes;
    assert.equal((await call({ ...at, key }, "best")).status, 200);
    assert.equal((await call({ ...at, key }, "named")).status, 404);
  });

  test("lists models and routes that can be called", async () => {
    const headers = { authorization: `Bearer ${at.key}` };
    const { json } = await send({ url: `${at.url}/v1/models`, headers });
    const names = json.data.map(({ id }) => id);
    assert.ok(names.includes("best") && names.includes("named") && names.includes("gpt-test"), names.join());
    for (const name of ["off", "of-off", "closed", "nowhere"]) assert.ok(!names.includes(name), name);
    const one = (await send({ url: `${at.url}/v1/models/named`, headers })).json;
    assert.deepEqual([one.owned_by, one.description], ["acme", "The good one"]);
    assert.equal((await send({ url: `${at.url}/v1/models/off`, headers })).status, 404);
  });

  test("sends providers what it is told to, and of the caller's headers those that are named", async () => {
    const headers = { "x-team": "blue", "x-project": "p1", "x-secret": "no", cookie: "a=b" };
    const named = await received(at.mock, (await call(at, "named", { headers })).id);
    assert.equal(named.headers["user-agent"], "acme-gateway/7");
    assert.equal(named.headers["x-from-environment"], "yes");
    assert.deepEqual([named.headers["x-team"], named.headers["x-project"]], ["blue", "p1"]);
    assert.deepEqual([named.headers["x-secret"], named.headers.cookie], [undefined, undefined]);
    const other = await received(at.mock, (await call(at, "gpt-test", { headers })).id);
    assert.match(other.headers["user-agent"], /^llm-gateway\//);
    assert.deepEqual([other.headers["x-team"], other.headers["x-project"]], ["blue", undefined]);
  });

  test("takes up the deployment's variables and tells which are of no use", async () => {
    const deep = await call(at, "gpt-test", { fields: { metadata: JSON.parse("[".repeat(25) + "]".repeat(25)) } });
    assert.equal(deep.status, 400);
    const ignored = at.gateway.logs.filter((line) => line.includes("GATEWAY__LOGGING__LEVEL"));
    assert.equal(ignored.length > 0, true);
  });

  test("reads only so much of a provider's error", async () => {
    const reply = await call(at, "gpt-test", { directives: { status: 400, error_message: "x".repeat(5000) } });
    assert.equal(reply.status, 400);
    assert.ok(!reply.text.includes("x".repeat(2000)), "the error was cut");
  });

  test("gives the caller only so long to send its body", async () => {
    const reply = await send({
      url: `${at.url}${PATHS.chat}`,
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${at.key}` },
      fresh: true,
      body: (async function* () {
        yield '{"model":';
        await sleep(1500);
        yield '"gpt-test"}';
      })(),
    });
    assert.deepEqual([reply.status, reply.json.error.code], [408, "request_timeout"]);
  });

  test("heeds the time that a caller gives", async () => {
    const reply = await call(at, "gpt-test", { directives: { ttfb_ms: 3000 }, headers: { "x-gateway-timeout-ms": "150" } });
    assert.equal(reply.status, 504, reply.text);
    assert.equal((await call(at, "gpt-test", { headers: { "x-gateway-timeout-ms": "soon" } })).status, 400);
  });

  test("logs what it may of the caller, what a request cost, and slow requests as warnings", async () => {
    const headers = { "cf-connecting-ip": "203.0.113.9", "user-agent": "some-sdk/1.0" };
    const quick = await call(at, "named", { headers, directives: { usage_in: 1000, usage_out: 100 } });
    const line = await logOf(at.gateway, quick.id);
    assert.deepEqual([line.client_ip, line.user_agent, line.level], ["203.0.113.0/24", "some-sdk/1.0", "info"]);
    assert.equal(line.cost_nanodollars, 1000 * 2500 + 100 * 10_000 + 1_000_000);
    const slow = await call(at, "gpt-test", { directives: { ttfb_ms: 400 } });
    const slowLine = await logOf(at.gateway, slow.id);
    assert.deepEqual([slowLine.level, slowLine.cost_nanodollars], ["warn", undefined]);
  });

  test("sends browsers the headers that protect them", async () => {
    const { headers } = await send({ url: `${at.url}/health` });
    assert.equal(headers["strict-transport-security"], "max-age=60");
    assert.equal(headers["x-content-type-options"], "nosniff");
  });
});

describe("a quiet gateway", () => {
  test("logs neither successes nor who answered, and names requests itself", async () => {
    const at = await start({
      config: config({
        http: { disclose: false, accept_request_id: false, security_headers: false },
        logging: { log_successes: false },
      }),
    });
    try {
      const good = await call(at, "gpt-test");
      assert.equal(good.status, 200);
      assert.equal(good.headers["x-gateway-provider"], undefined);
      assert.notEqual(good.headers["x-request-id"], good.id);
      assert.equal((await send({ url: `${at.url}/health` })).headers["x-content-type-options"], undefined);
      const bad = await call(at, "nope");
      await eventually(() => requestLines(at.gateway).length > 0, "a line for what failed");
      assert.deepEqual(requestLines(at.gateway).map((line) => line.request_id), [bad.headers["x-request-id"]]);
    } finally {
      await at.stop();
    }
  });

  test("writes nothing below the level that is configured", async () => {
    const at = await start({ config: config({ logging: { level: "error" } }) });
    try {
      assert.equal((await call(at, "gpt-test")).status, 200);
      assert.equal((await call(at, "gpt-test", { directives: { html: 502 } })).status, 502);
      await sleep(300);
      assert.deepEqual(requestLines(at.gateway), []);
    } finally {
      await at.stop();
    }
  });
});

describe("scripts/config", () => {
  let server, folder, calls, current;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "llm-gateway-config-"));
    calls = [];
    current = { http: { hsts_seconds: 1 } };
    let draft = current;
    // As much of the admin API as the script uses.
    server = createServer(async (request, response) => {
      let text = "";
      for await (const piece of request) text += piece;
      const body = text === "" ? undefined : JSON.parse(text);
      const what = request.url.replace("/admin/v1/config/", "");
      calls.push(`${request.method} ${what}`);
      const reply = (status, value, headers = {}) =>
        response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));
      if (request.headers.authorization !== "Bearer st-test") return reply(401, { title: "Unauthorized", detail: "Sign in." });
      switch (`${request.method} ${what}`) {
        case "POST validate": {
          const errors = body.document.htpp ? [{ path: "htpp", message: "there is no such field" }] : [];
          return reply(200, { valid: errors.length === 0, errors });
        }
        case "POST diff": {
          const same = JSON.stringify(body.document) === JSON.stringify(current);
          const change = { path: "http.hsts_seconds", kind: "changed", before: 1, after: body.document.http.hsts_seconds };
          return reply(200, { from: "1-x", to: null, changes: same ? [] : [change] });
        }
        case "GET draft":
          return reply(200, { document: draft, hash: "h" }, { etag: '"h"' });
        case "PUT draft":
          if (request.headers["if-match"] !== '"h"') return reply(412, { title: "Precondition Failed" });
          draft = body.document;
          return reply(200, { document: draft, hash: "i" });
        case "POST publish":
          current = draft;
          return reply(201, { version: "2-abc", comment: body.comment });
        case "GET versions/current":
          return reply(200, { version: "2-abc", document: current });
        default:
          return reply(404, { title: "Not Found" });
      }
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  });

  after(async () => {
    server.close();
    await rm(folder, { recursive: true });
  });

  /** Runs the script's working part; resolves to its exit code and what it said. */
  const run = (args, token = "st-test") =>
    new Promise((resolve) => {
      const url = `http://127.0.0.1:${server.address().port}`;
      const env = { ...process.env, GATEWAY_ADMIN_TOKEN: token };
      execFile("node", [path.join(ROOT, "scripts/config.mjs"), ...args, "--url", url], { env }, (error, stdout, stderr) =>
        resolve({ code: error?.code ?? 0, said: stdout + stderr }),
      );
    });

  test("publishes a file that changes something, once", async () => {
    const file = path.join(folder, "gateway.toml");
    await writeFile(file, "[http]\nhsts_seconds = 9\n");
    assert.equal((await run(["diff", file])).code, 1);
    const applied = await run(["apply", file, "--comment", "longer"]);
    assert.deepEqual([applied.code, current], [0, { http: { hsts_seconds: 9 } }], applied.said);
    assert.match(applied.said, /~ http.hsts_seconds = 1 -> 9[\s\S]*published as version 2-abc/);
    calls.length = 0;
    assert.match((await run(["apply", file])).said, /no difference/);
    assert.deepEqual(calls, ["POST validate", "POST diff"]);
    const exported = path.join(folder, "exported.toml");
    assert.equal((await run(["export", exported])).code, 0);
    assert.match(await readFile(exported, "utf8"), /\[http\]\nhsts_seconds = 9/);
  });

  test("publishes nothing that is wrong, and says what is", async () => {
    const file = path.join(folder, "wrong.toml");
    await writeFile(file, "[htpp]\nx = 1\n[http]\nhsts_seconds = 5\n");
    calls.length = 0;
    const { code, said } = await run(["apply", file]);
    assert.deepEqual([code, calls], [1, ["POST validate"]]);
    assert.match(said, /htpp: there is no such field/);
    assert.equal((await run(["validate", path.join(folder, "none.toml")])).code, 2);
    assert.match((await run(["diff", file], "other")).said, /401 Sign in\./);
  });
});

test("no log has a secret in it", assertNothingLeaked);
