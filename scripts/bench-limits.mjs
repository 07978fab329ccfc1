// The end-to-end part of scripts/bench-limits: what a request costs with and without limits.

import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";

import { ROOT, startGateway, startMock, stopAll } from "../tests/e2e/harness.mjs";
import { call, chat, crowd, limit, makeKeys, settled, tally } from "../tests/e2e/limits.mjs";
import { KEY_HASH_SECRET, PROVIDER_SECRETS, config } from "../tests/e2e/support.mjs";

const { values: options } = parseArgs({
  options: { requests: { type: "string", default: "2000" }, build: { type: "string", default: "build" } },
});
const REQUESTS = Number(options.requests);
const BUILD = path.resolve(ROOT, options.build);
const CLIENTS = 32;
const COLD_KEYS = 100;

/** The Worker with a ledger that counts what it is asked and how many rows it writes. */
const COUNTING = `
import worker, { AccountLedger as Ledger } from "./index.js";
export * from "./index.js";
export default worker;

let calls = {};
let cursors = [];
let watched = false;

function watch(sql) {
  if (watched) return;
  watched = true;
  const prototype = Object.getPrototypeOf(sql);
  const { exec } = prototype;
  prototype.exec = function (...statement) {
    const cursor = exec.apply(this, statement);
    cursors.push(cursor);
    return cursor;
  };
}

export class AccountLedger extends Ledger {
  constructor(state, env) {
    watch(state.storage.sql);
    super(state, env);
  }

  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/counted") {
      const counted = { calls, rows: cursors.reduce((sum, { rowsWritten }) => sum + rowsWritten, 0) };
      calls = {};
      cursors = [];
      return Response.json(counted);
    }
    calls[pathname] = (calls[pathname] ?? 0) + 1;
    return super.fetch(request);
  }
}
`;

/** CPU time of the runtime that this process has started, in milliseconds. */
function cpuTime() {
  const ticks = readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const [, name, rest] = /\((.*)\) (.*)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8"));
      const fields = rest.split(" ");
      return name === "workerd" && Number(fields[1]) === process.pid ? [Number(fields[11]) + Number(fields[12])] : [];
    } catch {
      return []; // It has ended meanwhile.
    }
  });
  return ticks.reduce((sum, n) => sum + n, 0) * 10;
}

const HOLDING = [
  { dimension: "cost", period: "month", amount: 10 ** 15 },
  { dimension: "total_tokens", period: "minute", amount: 10 ** 12 },
  { dimension: "requests", period: "minute", amount: 10 ** 9 },
];

async function measured(gateway, name, account, keys) {
  const ask = (nth) => chat({ url: gateway.url, key: keys[nth % keys.length].key });
  await crowd(Math.max(200, keys.length), ask, CLIENTS);
  await settled(gateway, account);
  await call(gateway, "LEDGER", account, "GET", "/counted");
  const before = cpuTime();
  const statuses = tally(await crowd(REQUESTS, ask, CLIENTS));
  await settled(gateway, account);
  const cpu = cpuTime() - before;
  const { calls, rows } = await call(gateway, "LEDGER", account, "GET", "/counted");
  if (statuses[200] !== REQUESTS) throw new Error(`${name}: not all were served: ${JSON.stringify(statuses)}`);
  const each = (count = 0) => (count / REQUESTS).toFixed(2);
  const row = [name, each(calls["/admit"]), each(calls["/usage"]), each(calls["/check"]), each(rows), each(cpu)];
  console.log(`| ${row.join(" | ")} |`);
}

console.log("| requests | `/admit` | `/usage` | `/check` | rows written | CPU, ms |");
console.log("|---|--:|--:|--:|--:|--:|");
const mock = await startMock();
try {
  for (const lease_ms of [2_000, 0]) {
    const gateway = await startGateway({
      mockUrl: mock.url,
      config: config({
        prices: { "gpt-test": { input: "2.5", output: "10" } },
        limits: { lease_ms },
        records: { flush_ms: 1_000 },
      }),
      secrets: { KEY_HASH_SECRET, ...PROVIDER_SECRETS },
      build: options.build,
      override: {
        modulesRoot: BUILD,
        modules: [
          { type: "ESModule", path: path.join(BUILD, "counting.js"), contents: COUNTING },
          { type: "ESModule", path: path.join(BUILD, "index.js") },
          { type: "CompiledWasm", path: path.join(BUILD, "index_bg.wasm") },
        ],
      },
    });
    const keysOf = (account, count) => makeKeys(gateway, Array.from({ length: count }, () => ({ account })));
    await measured(gateway, "no limits, one key", "free", await keysOf("free", 1));
    await limit(gateway, "hot", ...HOLDING);
    const leases = lease_ms > 0 ? "with leases" : "without leases";
    await measured(gateway, `three limits, one key, ${leases}`, "hot", await keysOf("hot", 1));
    await limit(gateway, "cold", ...HOLDING);
    await measured(gateway, `three limits, ${COLD_KEYS} keys in turn, ${leases}`, "cold", await keysOf("cold", COLD_KEYS));
    await gateway.stop();
  }
} finally {
  await stopAll();
}
