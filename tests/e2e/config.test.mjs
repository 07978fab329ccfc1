// What can be configured changes what the gateway does: the parameters that only show at the running Worker, the layers,
// and scripts/config. (Those of the core are tested natively, next to it.)

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { startAdmin, userWith } from "./admin.mjs";
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
        logging: { client_ip: "truncated", user_agent: true, slow_ms: 1_200 },
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
    const long = await call(at, "best", { fields: { messages: [{ role: "user", content: "word ".repeat(200) }] } });
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
    const long = { fields: { messages: [{ role: "user", content: "word ".repeat(200) }] } };
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
    const slow = await call(at, "gpt-test", { directives: { ttfb_ms: 1_500 } });
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
  let at, folder;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "llm-gateway-config-"));
    at = await startAdmin();
  });

  after(async () => {
    await at?.gateway.stop();
    await rm(folder, { recursive: true });
  });

  /** Runs the script's working part; resolves to its exit code and what it said. */
  const run = (args, token = at.owner.token) =>
    new Promise((resolve) => {
      const env = { ...process.env, GATEWAY_ADMIN_TOKEN: token };
      execFile("node", [path.join(ROOT, "scripts/config.mjs"), ...args, "--url", at.url], { env }, (error, stdout, stderr) =>
        resolve({ code: error?.code ?? 0, said: stdout + stderr }),
      );
    });

  const file = async (name, text) => {
    const where = path.join(folder, name);
    await writeFile(where, text);
    return where;
  };
  const versions = () => at.owner.all("/admin/v1/config/versions");

  test("publishes a file that changes something, once", async () => {
    const first = await file("first.toml", "[http]\nhsts_seconds = 1\n");
    assert.equal((await run(["apply", first])).code, 0);
    const next = await file("gateway.toml", "[http]\nhsts_seconds = 9\n");
    assert.equal((await run(["diff", next])).code, 1);
    const applied = await run(["apply", next, "--comment", "longer"]);
    assert.equal(applied.code, 0, applied.said);
    const [newest, older] = await versions();
    assert.match(applied.said, /~ http.hsts_seconds = 1 -> 9/);
    assert.ok(applied.said.includes(`published as version ${newest.version}`), applied.said);
    assert.deepEqual([newest.comment, newest.parent, newest.current], ["longer", older.version, true]);
    assert.equal(older.comment, "scripts/config apply first.toml");
    assert.match((await run(["apply", next])).said, /no difference/);
    assert.equal((await run(["diff", next])).code, 0);
    assert.equal((await versions()).length, 2);
    const exported = path.join(folder, "exported.toml");
    assert.equal((await run(["export", exported])).code, 0);
    assert.match(await readFile(exported, "utf8"), /\[http\]\nhsts_seconds = 9/);
    // What was published is what the gateway does.
    await eventually(
      async () => (await send({ url: `${at.url}/health` })).headers["strict-transport-security"] === "max-age=9",
      "the new version",
    );
  });

  test("takes a whole configuration there and back", async () => {
    const demo = path.join(ROOT, "config/demo.toml");
    assert.equal((await run(["apply", demo])).code, 0);
    const exported = path.join(folder, "demo.toml");
    assert.equal((await run(["export", exported])).code, 0);
    assert.match((await run(["diff", exported])).said, /no difference/);
    const draft = path.join(folder, "draft.toml");
    assert.equal((await run(["export", draft, "--draft"])).code, 0);
    assert.equal(await readFile(draft, "utf8"), await readFile(exported, "utf8"));
  });

  test("publishes nothing that is wrong, and says what is", async () => {
    const before = (await versions()).length;
    const draft = await at.owner.get("/admin/v1/config/draft");
    const wrong = await file("wrong.toml", "[htpp]\nx = 1\n[http]\nhsts_seconds = 5\nmax_json_depth = 1\n");
    const { code, said } = await run(["apply", wrong]);
    assert.equal(code, 1);
    assert.match(said, /htpp.*: /);
    assert.match(said, /http\.max_json_depth: /);
    assert.equal((await versions()).length, before);
    assert.deepEqual(await at.owner.get("/admin/v1/config/draft"), draft);
    assert.equal((await run(["validate", path.join(folder, "none.toml")])).code, 2);
  });

  test("says what its token lacks", async () => {
    const demo = path.join(ROOT, "config/demo.toml");
    assert.match((await run(["diff", demo], "nonsense")).said, /401 /);
    const viewer = await userWith(at.owner, "viewer");
    const refused = await run(["diff", demo], viewer.token);
    assert.deepEqual([refused.code, /403 .*config:read/.test(refused.said)], [2, true], refused.said);
  });
});

test("no log has a secret in it", assertNothingLeaked);
