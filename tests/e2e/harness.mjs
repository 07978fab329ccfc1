// Starts the mock provider and the gateway (the built Worker under miniflare), for the end-to-end tests and scripts/dev.
//
//   const mock = await startMock();
//   const gateway = await startGateway({ mockUrl: mock.url, keys: [{ name: "app" }] });
//   await fetch(`${gateway.url}/v1/models`, { headers: { authorization: `Bearer ${gateway.keys.app}` } });
//   await gateway.stop();
//   await mock.stop();
//
// What is still running when the process ends, or is told to end, is stopped too.

import { execFile, fork, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

import { Log, LogLevel, Miniflare } from "miniflare";
import { unstable_getMiniflareWorkerOptions, unstable_splitSqlQuery } from "wrangler";

import { keyRows } from "../../scripts/seed.mjs";

export const ROOT = path.resolve(import.meta.dirname, "../..");

/** The environment of wrangler.toml whose bindings and settings run locally. */
const ENVIRONMENT = "production";

/** The mock provider's address as configuration files write it. */
const MOCK_ADDRESS = "http://127.0.0.1:8788";

// === Mock provider ===

/**
 * Starts the mock provider.
 *
 * @param {{port?: number, args?: string[], onLine?: (line: string) => void}} options port 0 takes a free one
 * @returns {Promise<{url: string, logs: string[], journal: (tag?: string) => Promise<any>, stop: () => Promise<void>}>}
 */
export async function startMock({ port = 0, args = [], onLine = () => {} } = {}) {
  const logs = [];
  const child = spawn(nativeTool("mock-provider"), ["--listen", `127.0.0.1:${port}`, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const stop = whileRunning(() => endChild(child));
  const url = await new Promise((resolve, reject) => {
    const failed = (why) => reject(new Error(`mock-provider ${why}\n${logs.join("\n")}`));
    const timer = setTimeout(() => failed("did not start within 10 s"), 10_000);
    child.once("error", (error) => failed(`cannot be started: ${error.message}`));
    child.once("exit", (status) => failed(`ended (status ${status})`));
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        logs.push(line);
        onLine(line);
        const found = /listening on (http:\/\/\S+)/.exec(line);
        if (found) {
          clearTimeout(timer);
          resolve(found[1]);
        }
      });
    }
  }).catch(async (error) => {
    await stop();
    throw error;
  });
  const journal = async (tag) => {
    const query = tag === undefined ? "" : `?tag=${encodeURIComponent(tag)}`;
    return (await fetch(`${url}/_mock/journal${query}`)).json();
  };
  return { url, logs, journal, stop };
}

// === Gateway ===

/**
 * Starts the gateway with its stores filled.
 *
 * - `mockUrl`: where the mock provider listens: allowed as an upstream, and put into the configuration's place for it
 * - `config`: an object, TOML text or a TOML file's path; config.toml beside this file unless given; null for none
 * - `keys`: API keys to make: `{name, account?, models?, endpoints?, expires_at?, disabled?, key?}`
 * - `vars`, `secrets`: the Worker's settings and secrets on top of wrangler.toml's and the tests' own; a secret that is
 *   undefined is not set at all
 * - `override`: the Worker's Miniflare options in place of wrangler.toml's; `others`: further Workers that run beside it
 * - `persist`: the folder that keeps the stores, as wrangler's `--persist-to`; in memory unless given
 * - `port`: 0 takes a free one
 * - `build`: the Worker's folder, "build" or "build-test"
 * - `isolates`: in how many isolates the Worker runs; those after the first have the first one's objects
 * - `onLog`: called with each line of the Worker's output
 *
 * @returns the gateway's `url`, the `urls` of all its isolates, `edgeUrl` (see startEdge), its `keys` by name, the KV namespace `kv`, the D1 database `db`, the Worker's output
 *   `logs` (one entry a line), the configuration's `version`, `object(binding, name)` for a call to a Durable Object,
 *   `worker(name)` for one to a Worker beside it, `scheduled()`, which does what the cron trigger does, and `stop()`
 */
export async function startGateway({
  mockUrl,
  config = path.join(ROOT, "tests/e2e/config.toml"),
  keys = [],
  vars = {},
  secrets = {},
  override = {},
  others = [],
  persist,
  port = 0,
  build = "build",
  isolates = 1,
  onLog = () => {},
} = {}) {
  const logs = [];
  const allSecrets = {
    KEY_HASH_SECRET: "a secret that only tests use, nowhere else",
    MASTER_SECRET: "a master secret that only tests use, nowhere else",
    DEMO_PROVIDER_KEY: "demo-provider-key",
    ...secrets,
  };
  for (const [name, value] of Object.entries(allSecrets)) if (value === undefined) delete allSecrets[name];
  // What the stores will hold is made first: a mistake in it needs no Worker to show.
  const compiled = config === null ? null : await compileConfig(config, mockUrl);
  const minted = await Promise.all(keys.map((key) => mintKey(key, allSecrets.KEY_HASH_SECRET)));

  const options = workerOptions();
  const worker = {
    ...options,
    ...workerModules(build),
    name: "llm-gateway",
    bindings: {
      ...options.bindings,
      PRIVATE_UPSTREAM_HOSTS: mockUrl ? new URL(mockUrl).host : "",
      ...vars,
      ...allSecrets,
    },
    // Its own socket: miniflare's entry Worker stays out of the way of streams and disconnects. The same goes for the
    // interceptor on outgoing requests.
    unsafeDirectSockets: [{ host: "127.0.0.1", port }],
    stripCfConnectingIp: false,
    ...override,
  };
  const further = Array.from({ length: isolates - 1 }, (_, nth) => isolateBeside(worker, nth + 2));
  const miniflare = new Miniflare({
    workers: [worker, ...further, ...others],
    host: "127.0.0.1",
    port: 0,
    cf: false,
    log: new Log(LogLevel.WARN),
    handleStructuredLogs: ({ message }) => {
      for (const line of message.split("\n")) {
        logs.push(line);
        onLog(line);
      }
    },
    ...(persist && {
      defaultPersistRoot: path.resolve(persist, "v3"),
      kvPersist: true,
      d1Persist: true,
      durableObjectsPersist: true,
    }),
  });
  let edge;
  const stop = whileRunning(async () => {
    edge?.close();
    await miniflare.dispose();
  });
  try {
    await miniflare.ready;
    const kv = await miniflare.getKVNamespace("KV");
    const db = await miniflare.getD1Database("DB");
    await migrate(db);
    const rows = minted.flatMap(keyRows);
    if (rows.length > 0) await db.batch(rows.map((row) => db.prepare(row)));
    for (const { entry } of [...minted, ...(compiled ? [compiled] : [])]) await kv.put(entry.name, entry.value);
    const { origin: url, port: listening } = await miniflare.unsafeGetDirectURL();
    const besides = await Promise.all(further.map(({ name }) => miniflare.unsafeGetDirectURL(name)));
    edge = await startEdge(Number(listening));
    return {
      url,
      urls: [url, ...besides.map(({ origin }) => origin)],
      edgeUrl: `http://127.0.0.1:${edge.port}`,
      keys: Object.fromEntries(keys.map(({ name }, at) => [name, minted[at].key])),
      version: compiled?.version,
      kv,
      db,
      logs,
      object: async (binding, name) => {
        const namespace = await miniflare.getDurableObjectNamespace(binding);
        return namespace.get(namespace.idFromName(name));
      },
      worker: (name) => miniflare.getWorker(name),
      scheduled: async () => (await miniflare.getWorker()).scheduled({ cron: "* * * * *" }),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The Worker once more, in an isolate of its own, in front of the same stores and objects. */
function isolateBeside(worker, nth) {
  const durableObjects = Object.fromEntries(
    Object.entries(worker.durableObjects).map(([binding, object]) => [
      binding,
      { ...object, scriptName: object.scriptName ?? worker.name },
    ]),
  );
  const unsafeDirectSockets = [{ host: "127.0.0.1", port: 0 }];
  return { ...worker, name: `${worker.name}-${nth}`, durableObjects, unsafeDirectSockets };
}

/**
 * A TCP relay that tells the gateway at once when a client has gone, as Cloudflare's edge does. Locally the runtime
 * takes a client's closed connection for half-open and notices only when it writes; a reset it notices at once.
 */
async function startEdge(port) {
  const clients = new Set();
  const server = createServer((client) => {
    const gateway = connect(port, "127.0.0.1");
    clients.add(client);
    client.on("error", () => {});
    gateway.on("error", () => client.resetAndDestroy());
    client.on("close", () => {
      clients.delete(client);
      gateway.resetAndDestroy();
    });
    client.pipe(gateway, { end: false });
    gateway.pipe(client);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () => {
    server.close();
    for (const client of clients) client.destroy();
  };
  return { port: server.address().port, close };
}

/** The Worker's options as wrangler.toml has them, without a developer's .dev.vars or .env. */
function workerOptions() {
  process.env.CLOUDFLARE_LOAD_DEV_VARS_FROM_DOT_ENV = "false";
  const file = path.join(ROOT, "wrangler.toml");
  const { modulesRules: _, ...options } = unstable_getMiniflareWorkerOptions(file, ENVIRONMENT, {
    envFiles: ["none"],
  }).workerOptions;
  return options;
}

function workerModules(build) {
  const folder = path.join(ROOT, build);
  const modules = [
    { type: "ESModule", path: path.join(folder, "index.js") },
    { type: "CompiledWasm", path: path.join(folder, "index_bg.wasm") },
  ];
  if (!modules.every((module) => existsSync(module.path))) {
    throw new Error(`${folder} has no Worker: run scripts/build${build === "build-test" ? " --test" : ""}`);
  }
  return { modules, modulesRoot: folder };
}

/** Applies the migrations that the database does not have yet, as `wrangler d1 migrations apply` does. */
async function migrate(db) {
  await db.exec(
    "CREATE TABLE IF NOT EXISTS d1_migrations (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, " +
      "applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL)",
  );
  const applied = new Set((await db.prepare("SELECT name FROM d1_migrations").all()).results.map(({ name }) => name));
  const folder = path.join(ROOT, "migrations");
  const files = (await readdir(folder)).filter((name) => name.endsWith(".sql")).sort();
  for (const name of files.filter((name) => !applied.has(name))) {
    const statements = unstable_splitSqlQuery(await readFile(path.join(folder, name), "utf8"));
    await db.batch([
      ...statements.map((statement) => db.prepare(statement)),
      db.prepare("INSERT INTO d1_migrations (name) VALUES (?)").bind(name),
    ]);
  }
}

/**
 * Starts the gateway in a process of its own, which can be killed. Takes what `startGateway` takes, as far as JSON can
 * tell it, and gives the same as far as tests of several processes need it; and `kill()`, which ends the process and its
 * runtime at once, in the middle of whatever they do.
 */
export async function startGatewayProcess(options) {
  const child = fork(path.join(import.meta.dirname, "gateway-process.mjs"), {
    // A group of its own: the runtime is a process too, and dies at the same moment.
    detached: true,
    stdio: ["ignore", "ignore", "inherit", "ipc"],
    execArgv: [],
  });
  const logs = [];
  const asked = new Map();
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const killed = async () => {
    if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid, "SIGKILL");
    await ended;
  };
  const stop = whileRunning(killed);
  child.on("message", ({ id, line, value, error }) => {
    if (line !== undefined) return logs.push(line);
    const { resolve, reject } = asked.get(id);
    asked.delete(id);
    return error === undefined ? resolve(value) : reject(new Error(error));
  });
  ended.then(() => asked.forEach(({ reject }) => reject(new Error("the gateway's process has ended"))));
  let count = 0;
  const ask = (what, ...args) =>
    new Promise((resolve, reject) => {
      const id = (count += 1);
      asked.set(id, { resolve, reject });
      child.send({ id, what, args }, (error) => error && reject(error));
    });
  try {
    const started = await ask("start", options);
    const prepared = (query, values) => ({
      bind: (...bound) => prepared(query, bound),
      all: () => ask("sql", query, values),
      first: async () => (await ask("sql", query, values)).results[0] ?? null,
    });
    return {
      ...started,
      logs,
      kv: { put: (name, value) => ask("put", name, value) },
      db: { prepare: (query) => prepared(query, []) },
      object: async (binding, name) => ({
        fetch: async (url, init) => {
          const { status, text } = await ask("object", binding, name, url, init);
          return new Response(text, { status });
        },
      }),
      worker: async (name) => ({
        fetch: async (url, init) => {
          const { status, text } = await ask("worker", name, url, init);
          return new Response(text, { status });
        },
      }),
      kill: stop,
      stop: async () => {
        await ask("stop").catch(() => {});
        await stop();
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

// === gatewayctl ===

/** Runs gatewayctl and reads the JSON it prints. Rejects with what it wrote to standard error. */
export async function gatewayctl(args, env = {}) {
  try {
    const { stdout } = await promisify(execFile)(nativeTool("gatewayctl"), args, { env: { ...process.env, ...env } });
    return JSON.parse(stdout);
  } catch (error) {
    throw new Error(`gatewayctl ${args.slice(0, 2).join(" ")}: ${error.stderr || error.message}`, { cause: error });
  }
}

/** Makes a key, or its record anew when `key` is given. */
export async function mintKey({ name, account = "demo", models = [], endpoints = [], expires_at, disabled, key }, hashSecret) {
  const args = ["key", "mint", "--name", name, "--account", account];
  if (models.length > 0) args.push("--models", models.join(","));
  if (expires_at !== undefined) args.push("--expires-at", String(expires_at));
  if (disabled) args.push("--disabled");
  if (key) args.push("--key", key);
  const minted = await gatewayctl(args, { KEY_HASH_SECRET: hashSecret });
  const value = { ...JSON.parse(minted.entry.value), ...(endpoints.length > 0 && { endpoints }) };
  return { ...minted, entry: { ...minted.entry, value: JSON.stringify(value) } };
}

/** Compiles a configuration: an object, TOML text or a TOML file's path. */
export async function compileConfig(config, mockUrl = MOCK_ADDRESS) {
  let text = config;
  if (typeof config === "object") text = toml(config);
  else if (!config.includes("\n")) text = await readFile(config, "utf8");
  const folder = await mkdtemp(path.join(tmpdir(), "llm-gateway-"));
  try {
    const file = path.join(folder, "config.toml");
    await writeFile(file, text.replaceAll(MOCK_ADDRESS, mockUrl));
    return await gatewayctl(["config", "compile", file]);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Writes an object as TOML: one line a top-level entry, tables inline. */
function toml(object) {
  const inline = (value) => {
    if (Array.isArray(value)) return `[${value.map(inline).join(", ")}]`;
    if (value !== null && typeof value === "object") return `{ ${pairs(value).join(", ")} }`;
    return JSON.stringify(value);
  };
  const pairs = (table) =>
    Object.entries(table)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => `${JSON.stringify(key)} = ${inline(value)}`);
  return `${pairs(object).join("\n")}\n`;
}

// === Processes ===

function nativeTool(name) {
  const file = path.join(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, "target"), "native", name);
  if (!existsSync(file)) throw new Error(`${file} is missing: run scripts/build`);
  return file;
}

async function endChild(child) {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), 3_000);
  await ended;
  clearTimeout(timer);
}

const running = new Set();

/** Registers what ends something that runs; the result ends it, once. */
function whileRunning(end) {
  let ended;
  const stop = () => {
    running.delete(stop);
    ended ??= end();
    return ended;
  };
  running.add(stop);
  return stop;
}

/** Ends everything that was started here. */
export async function stopAll() {
  await Promise.allSettled([...running].reverse().map((stop) => stop()));
}

for (const [signal, status] of [["SIGINT", 130], ["SIGTERM", 143]]) {
  process.once(signal, () => stopAll().finally(() => process.exit(status)));
}
process.once("beforeExit", stopAll);
process.once("exit", () => running.forEach((stop) => stop()));
