// The end-to-end part of scripts/bench-limits: what a request costs with and without limits.

import { parseArgs } from "node:util";

import { counted, counts } from "../tests/e2e/counting.mjs";
import { startGateway, startMock, stopAll } from "../tests/e2e/harness.mjs";
import { chat, crowd, limit, makeKeys, settled, tally } from "../tests/e2e/limits.mjs";
import { KEY_HASH_SECRET, PROVIDER_SECRETS, config } from "../tests/e2e/support.mjs";
import { cpuTime, row } from "./measure.mjs";

const { values: options } = parseArgs({
  options: { requests: { type: "string", default: "2000" }, build: { type: "string", default: "build" } },
});
const REQUESTS = Number(options.requests);
const CLIENTS = 32;
const COLD_KEYS = 100;

const HOLDING = [
  { dimension: "cost", period: "month", amount: 10 ** 15 },
  { dimension: "total_tokens", period: "minute", amount: 10 ** 12 },
  { dimension: "requests", period: "minute", amount: 10 ** 9 },
];

async function measured(gateway, name, account, keys) {
  const ask = (nth) => chat({ url: gateway.url, key: keys[nth % keys.length].key });
  await crowd(Math.max(200, keys.length), ask, CLIENTS);
  await settled(gateway, account);
  await counts(gateway);
  const before = cpuTime();
  const statuses = tally(await crowd(REQUESTS, ask, CLIENTS));
  await settled(gateway, account);
  const cpu = cpuTime() - before;
  const { calls, rows } = (await counts(gateway)).ledger;
  if (statuses[200] !== REQUESTS) throw new Error(`${name}: not all were served: ${JSON.stringify(statuses)}`);
  const each = (count = 0) => (count / REQUESTS).toFixed(2);
  row(name, each(calls["/admit"]), each(calls["/usage"]), each(calls["/check"]), each(rows), each(cpu));
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
      ...counted(options.build),
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
