// What scripts/bench-routing runs.

import { parseArgs } from "node:util";

import { counted, counts } from "../tests/e2e/counting.mjs";
import { startFleet, targets } from "../tests/e2e/fleet.mjs";
import { startGateway, stopAll } from "../tests/e2e/harness.mjs";
import { chat, crowd, settled, tally } from "../tests/e2e/limits.mjs";
import { KEY_HASH_SECRET, PROVIDER_SECRETS } from "../tests/e2e/support.mjs";
import { cpuTime, median, row } from "./measure.mjs";

const { values: options } = parseArgs({
  options: {
    build: { type: "string", default: "build" },
    requests: { type: "string", default: "400" },
    rounds: { type: "string", default: "5" },
    clients: { type: "string", default: "8" },
  },
});
const [REQUESTS, ROUNDS, CLIENTS] = [options.requests, options.rounds, options.clients].map(Number);

/** Every way has providers of its own. */
const WAYS = {
  "a model": { providers: 1 },
  "a route of one": { providers: 1, route: {} },
  "`round_robin` of three": { route: { strategy: "round_robin" } },
  "`weighted`": { route: { strategy: "weighted" } },
  "`split`, `sticky` by session": { route: { strategy: "split", sticky: { by: "session" } } },
  "`lowest_cost`": { route: { strategy: "lowest_cost" } },
  "a model, beside those who compare latencies": { providers: 1, compares: true },
  "`lowest_latency`": { route: { strategy: "lowest_latency" }, compares: true },
  "`least_connections`": { route: { strategy: "least_connections" } },
};

const ways = Object.entries(WAYS).map(([name, { providers = 3, route, compares = false }], nth) => {
  const models = ["a", "b", "c"].slice(0, providers).map((letter) => `way${nth}-${letter}`);
  const model = route ? `way${nth}` : models[0];
  return { name, model, models, compares, route: route && { ...route, targets: targets(...models) } };
});

const { providers, models, stop } = await startFleet(
  Object.fromEntries(ways.flatMap((way) => way.models).map((name) => [name, {}])),
);

/** A gateway with these ways. What compares latencies makes all of a gateway's reports more frequent. */
async function gatewayWith(some) {
  const gateway = await startGateway({
    config: {
      providers,
      models,
      routes: Object.fromEntries(some.filter(({ route }) => route).map(({ model, route }) => [model, route])),
      prices: Object.fromEntries(ways.flatMap((way) => way.models).map((model) => [model, { input: "1", output: "2" }])),
      records: { flush_ms: 1_000 },
    },
    vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
    secrets: { KEY_HASH_SECRET, ...PROVIDER_SECRETS },
    keys: [{ name: "app" }],
    ...counted(options.build),
  });
  for (const way of some) Object.assign(way, { gateway, ms: [], cpu: 0, calls: {}, rows: 0 });
}

async function turn(way, requests) {
  const { gateway, model } = way;
  const ask = async (nth) => {
    const began = performance.now();
    const reply = await chat({ url: gateway.url, key: gateway.keys.app, model, headers: { "x-session-id": `s${nth % 50}` } });
    return { ...reply, ms: performance.now() - began };
  };
  await counts(gateway);
  const before = cpuTime();
  const replies = await crowd(requests, ask, CLIENTS);
  await settled(gateway, "demo");
  const cpu = cpuTime() - before;
  const { ledger, gauge } = await counts(gateway);
  if (tally(replies)[200] !== requests) throw new Error(`${way.name}: not all were served: ${JSON.stringify(tally(replies))}`);
  return { ms: replies.map(({ ms }) => ms), cpu, ledger, gauge };
}

try {
  await gatewayWith(ways.filter(({ compares }) => !compares));
  await gatewayWith(ways.filter(({ compares }) => compares));
  for (const way of ways) await turn(way, 200);
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const way of ways) {
      const { ms, cpu, ledger, gauge } = await turn(way, REQUESTS);
      way.ms.push(...ms);
      way.cpu += cpu;
      way.rows += gauge.rows;
      for (const [path, count] of [...Object.entries(gauge.calls), ["ledger", Object.values(ledger.calls).reduce((a, b) => a + b, 0)]]) {
        way.calls[path] = (way.calls[path] ?? 0) + count;
      }
    }
  }
  const all = ROUNDS * REQUESTS;
  row("requests to", "ms", "CPU, µs", "ledger", "`/acquire`", "`/release`", "`/report`", "rows of gauges");
  row("---", ...Array(7).fill("--:"));
  for (const { name, ms, cpu, calls, rows } of ways) {
    const each = (count = 0) => (count / all).toFixed(2);
    const asked = ["ledger", "/acquire", "/release", "/report"].map((path) => each(calls[path]));
    row(name, median(ms).toFixed(1), Math.round((cpu * 1_000) / all), ...asked, each(rows));
  }
} finally {
  await stopAll();
  await stop();
}
