// The Worker with ledgers and gauges that count what they are asked and how many rows they write, remember how gauges
// picked and when they were asked, and can be made slow. Behind that are the real objects.
//
//   const gateway = await startGateway({ ...counted(), … });
//   await counts(gateway);                                  // from now on
//   const { ledger, gauge, picks, spans } = await counts(gateway);

import path from "node:path";

import { ROOT } from "./harness.mjs";
import { call } from "./limits.mjs";

const SCRIPT = `
import worker, { AccountLedger as Ledger, ProviderGauge as Gauge } from "./index.js";
export * from "./index.js";
export default worker;

const nothing = () => ({ ledger: { calls: {} }, gauge: { calls: {} }, picks: [], spans: [] });
let counted = nothing();
let cursors = [];
let delays = {};
const owners = new WeakMap();

function watch(sql, owner) {
  owners.set(sql, owner);
  const prototype = Object.getPrototypeOf(sql);
  if (prototype.watched) return;
  prototype.watched = true;
  const { exec } = prototype;
  prototype.exec = function (...statement) {
    const cursor = exec.apply(this, statement);
    cursors.push([owners.get(this), cursor]);
    return cursor;
  };
}

function tell() {
  const told = counted;
  for (const owner of ["ledger", "gauge"]) {
    const of = cursors.filter(([whose]) => whose === owner);
    told[owner].rows = of.reduce((sum, [, { rowsWritten }]) => sum + rowsWritten, 0);
  }
  counted = nothing();
  cursors = [];
  return told;
}

const counting = (Class, owner) => class extends Class {
  constructor(state, env) {
    watch(state.storage.sql, owner);
    super(state, env);
  }

  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/counted") {
      delays = await request.json();
      return Response.json(tell());
    }
    const { calls } = counted[owner];
    calls[pathname] = (calls[pathname] ?? 0) + 1;
    const span = { path: pathname, from: Date.now() };
    counted.spans.push(span);
    const asked = pathname === "/acquire" ? await request.clone().json() : undefined;
    if (delays[pathname]) await scheduler.wait(delays[pathname]);
    const reply = await super.fetch(request);
    span.to = Date.now();
    if (asked?.pick && reply.ok) {
      const { index, answer, open } = await reply.clone().json();
      const candidates = asked.candidates.map(({ provider, weight }) => ({ provider, weight }));
      counted.picks.push({ candidates, index, open, granted: answer.granted !== undefined });
    }
    return reply;
  }

  async alarm(info) {
    const { calls } = counted[owner];
    calls.alarm = (calls.alarm ?? 0) + 1;
    return super.alarm(info);
  }
};

export const AccountLedger = counting(Ledger, "ledger");
export const ProviderGauge = counting(Gauge, "gauge");
`;

/** What the harness starts such a gateway with. */
export function counted(build = "build") {
  const folder = path.resolve(ROOT, build);
  const modules = [
    { type: "ESModule", path: path.join(folder, "counting.js"), contents: SCRIPT },
    { type: "ESModule", path: path.join(folder, "index.js") },
    { type: "CompiledWasm", path: path.join(folder, "index_bg.wasm") },
  ];
  return { build, override: { modulesRoot: folder, modules } };
}

/**
 * What was counted since this was called last: for `ledger` and `gauge` the `calls` by path (`alarm` among them) and the
 * `rows` written; `picks`, the gauges' answers where they chose; `spans`, when each call began and ended.
 *
 * @param {{[path: string]: number}} delays how many milliseconds the objects hesitate from now on, by path
 */
export const counts = (gateway, delays = {}) => call(gateway, "GAUGE", "anybody", "POST", "/counted", delays);
